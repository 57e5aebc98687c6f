/* See cache_rig.h. */
#include "tests/model/cache_rig.h"

#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/model_impl.h"
#include "tests/model/int8_folder.h"
#include "tests/model/model_rig.h"

#define N 20

struct cache_rig kept_rig;

void kept_begin(void)
{
    int8_folder_make(rig_golden_path("qwen3-moe"), INT8_ORDERED, kept_rig.folder);
    strcpy(kept_rig.cache, "/tmp/baton-cache-XXXXXX");
    cr_assert_not_null(mkdtemp(kept_rig.cache));
    cr_assert(weights_cache_path(kept_rig.cache, kept_rig.folder, "", kept_rig.file,
                                 sizeof kept_rig.file));
    snprintf(kept_rig.part, sizeof kept_rig.part, "%s.part", kept_rig.file);
}

void kept_end(void)
{
    unlink(kept_rig.file);
    unlink(kept_rig.part);
    rmdir(kept_rig.cache);
    folder_remove(kept_rig.folder);
}

/* What is written to stderr meanwhile goes to kept_rig.logged. */
static int log_to, log_saved;

void kept_log_begin(void)
{
    char path[] = "/tmp/baton-log-XXXXXX";
    log_to = mkstemp(path);
    log_saved = dup(STDERR_FILENO);
    cr_assert(log_to >= 0 && log_saved >= 0);
    unlink(path);
    fcntl(log_to, F_SETFL, O_APPEND);
    dup2(log_to, STDERR_FILENO);
}

void kept_log_end(void)
{
    dup2(log_saved, STDERR_FILENO);
    close(log_saved);
    ssize_t n = pread(log_to, kept_rig.logged, sizeof kept_rig.logged - 1, 0);
    cr_assert_geq(n, 0);
    kept_rig.logged[n] = 0;
    close(log_to);
}

bool kept_says(const char *what)
{
    return strstr(kept_rig.logged, what) != NULL;
}

/* Logits of a model loaded with this cache; `mapped`: whether they came from it. */
float *kept_say(const char *dir, const char *where, bool *mapped, size_t *n)
{
    const struct ops *ops;
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    kept_log_begin();
    struct rig *r =
        rig_open(&(struct rig_args){dir, ops, 2, DTYPE_F32, 16, MODEL_WEIGHTS_PACKED, where});
    kept_log_end();
    int32_t ids[N];
    struct sequence s;
    *n = (size_t)N * (size_t)r->vocab;
    float *logits = calloc(*n, sizeof *logits);
    for (int32_t i = 0; i < N; i++)
        ids[i] = (i * 31 + 7) % r->vocab;
    rig_begin(r, &s, ids);
    rig_step(r, &(struct feed){&s, N, WANT_ALL}, 1, logits);
    *mapped = r->model->weights.cache.map != NULL;
    cr_assert_neq(*mapped, r->model->weights.converted != NULL);
    cr_assert_gt(r->model->weights.n_packed, 4);
    rig_close(r);
    return logits;
}

void kept_expect(bool mapped, const float *want, const char *what)
{
    bool was;
    size_t n;
    float *got = kept_say(kept_rig.folder, kept_rig.cache, &was, &n);
    cr_assert_eq(was, mapped, "%s: %s", what, was ? "mapped" : "not mapped");
    cr_assert(memcmp(got, want, n * sizeof *got) == 0, "%s", what);
    free(got);
}

void kept_flip(long at)
{
    FILE *f = fopen(kept_rig.file, "r+b");
    cr_assert_not_null(f);
    cr_assert_eq(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(f);
    fseek(f, -1, SEEK_CUR);
    fputc(byte ^ 4, f);
    fclose(f);
}

struct weights_origin kept_origin(void)
{
    struct weights_origin o;
    FILE *f = fopen(kept_rig.file, "rb");
    cr_assert_not_null(f);
    cr_assert(fseek(f, 8, SEEK_SET) == 0 && fread(&o.key, sizeof o.key, 1, f) == 1 &&
              fread(&o.content, sizeof o.content, 1, f) == 1);
    cr_assert(fseek(f, 56, SEEK_SET) == 0 && fread(&o.stamp, sizeof o.stamp, 1, f) == 1);
    fclose(f);
    return o;
}
