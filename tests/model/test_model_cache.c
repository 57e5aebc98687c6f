/* Converted weights that are kept for the next start: what is mapped says what was converted, and
 * nothing that is stale, damaged or another's is used. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "model/model_impl.h"
#include "tests/model/int8_folder.h"
#include "tests/model/model_rig.h"

#define N 20

static char folder[INT8_FOLDER_PATH], cache[64], file[160], part[170];

static void setup(void)
{
    int8_folder_make(rig_golden_path("qwen3-moe"), INT8_ORDERED, folder);
    strcpy(cache, "/tmp/baton-cache-XXXXXX");
    cr_assert_not_null(mkdtemp(cache));
    cr_assert(weights_cache_path(cache, folder, false, file, sizeof file));
    snprintf(part, sizeof part, "%s.part", file);
}

static void teardown(void)
{
    unlink(file);
    unlink(part);
    rmdir(cache);
    int8_folder_remove(folder);
}

/* Logits of a model loaded with this cache; `mapped`: whether they came from it. */
static float *say(const char *dir, const char *where, bool *mapped, size_t *n)
{
    const struct ops *ops;
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    struct rig *r =
        rig_open(&(struct rig_args){dir, ops, 2, DTYPE_F32, 16, MODEL_WEIGHTS_PACKED, where});
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

static void expect(bool mapped, const float *want, const char *what)
{
    bool was;
    size_t n;
    float *got = say(folder, cache, &was, &n);
    cr_assert_eq(was, mapped, "%s: %s", what, was ? "mapped" : "not mapped");
    cr_assert(memcmp(got, want, n * sizeof *got) == 0, "%s", what);
    free(got);
}

static void flip(long at)
{
    FILE *f = fopen(file, "r+b");
    cr_assert_not_null(f);
    cr_assert_eq(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(f);
    fseek(f, -1, SEEK_CUR);
    fputc(byte ^ 4, f);
    fclose(f);
}

Test(cache, what_is_kept_is_used_and_nothing_else, .init = setup, .fini = teardown)
{
    static const long places[] = {0, 8, 16, 24, 32, 40, 56, 64, 72, 80, 4096, 20000, -100, -2000};
    bool mapped;
    size_t n;
    float *want = say(folder, NULL, &mapped, &n);
    cr_assert_not(mapped);
    expect(false, want, "the first time");
    expect(true, want, "the second");
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char what[64];
        flip(places[i]);
        snprintf(what, sizeof what, "a bit flipped at %ld", places[i]);
        expect(false, want, what);
        expect(true, want, "mended");
    }
    for (off_t len = 0; len < 9000; len += 1111) {
        cr_assert_eq(truncate(file, len), 0);
        expect(false, want, "cut short");
    }
    cr_assert_eq(chmod(file, 0666), 0);
    expect(false, want, "others could write to it");
    cr_assert_eq(chmod(file, 0644), 0);
    expect(true, want, "nobody else can");
    char weights[256];
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    cr_assert_eq(utimensat(AT_FDCWD, weights, times, 0), 0);
    expect(false, want, "the checkpoint was written again");
    expect(true, want, "and kept");
    free(want);
}

Test(cache, of_another_form_or_model, .init = setup, .fini = teardown)
{
    char other[INT8_FOLDER_PATH], theirs[160];
    bool mapped;
    size_t n;
    float *want = say(folder, cache, &mapped, &n);
    int8_folder_make(rig_golden_path("qwen3"), INT8_ROWS, other);
    cr_assert(weights_cache_path(cache, other, false, theirs, sizeof theirs));
    cr_assert_eq(rename(file, theirs), 0);
    free(say(other, cache, &mapped, &n));
    cr_assert_not(mapped);
    cr_assert_eq(rename(theirs, file), 0);
    expect(false, want, "another model's");
    free(want);
    int8_folder_remove(other);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

/* Processes of containers have the same number again and again: what is left of one that was killed
 * may not keep the next from writing, nor stay. */
Test(cache, what_another_start_left_or_writes, .init = setup, .fini = teardown)
{
    bool mapped;
    size_t n;
    struct stat s;
    float *want = say(folder, NULL, &mapped, &n);
    put(part, "half of it");
    expect(false, want, "beside what is left of another");
    cr_assert_eq(access(part, F_OK), -1);
    expect(true, want, "taken over");
    cr_assert_eq(stat(file, &s), 0);
    cr_assert_eq(s.st_mode & 0777, 0600);
    unlink(file);
    put(part, "being written");
    int fd = open(part, O_RDWR);
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    expect(false, want, "another writes it");
    cr_assert_eq(access(file, F_OK), -1);
    cr_assert_eq(stat(part, &s), 0);
    cr_assert_eq(s.st_size, 13);
    close(fd);
    expect(false, want, "the other has ended");
    expect(true, want, "ours");
    free(want);
}

Test(cache, files_of_others_are_not_written_to, .init = setup, .fini = teardown)
{
    char theirs[100];
    struct stat s;
    bool mapped;
    size_t n;
    snprintf(theirs, sizeof theirs, "%s/theirs", cache);
    put(theirs, "theirs");
    for (int hard = 0; hard < 2; hard++) {
        cr_assert_eq(hard ? link(theirs, part) : symlink(theirs, part), 0);
        free(say(folder, cache, &mapped, &n));
        cr_assert_not(mapped);
        cr_assert_eq(access(file, F_OK), -1);
        cr_assert_eq(stat(theirs, &s), 0);
        cr_assert_eq(s.st_size, 6);
        unlink(part);
    }
    unlink(theirs);
}

/* Of a split file the first one is named, and the others are as much of the checkpoint. */
Test(cache, of_all_files_of_a_split)
{
    char dir[] = "/tmp/baton-split-XXXXXX", path[2][80];
    struct weights_key key[3] = {0};
    cr_assert_not_null(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/x-%05d-of-00002.gguf", dir, i + 1);
        put(path[i], "GGUF");
    }
    weights_cache_mix(&key[0], path[0]);
    weights_cache_mix(&key[1], path[0]);
    cr_assert(memcmp(&key[0], &key[1], sizeof key[0]) == 0);
    put(path[1], "GGUF and more");
    weights_cache_mix(&key[2], path[0]);
    cr_assert_neq(key[0].w[0], key[2].w[0]);
    cr_assert_neq(key[0].w[1], key[2].w[1]);
    for (int i = 0; i < 2; i++)
        unlink(path[i]);
    rmdir(dir);
}

Test(cache, where_it_cannot_be_written, .init = setup, .fini = teardown)
{
    bool mapped;
    size_t n;
    free(say(folder, "/nonexistent/folder", &mapped, &n));
    cr_assert_not(mapped);
    cr_assert_eq(symlink("/nonexistent/target", file), 0);
    free(say(folder, cache, &mapped, &n));
    cr_assert_not(mapped);
}

Test(cache, names)
{
    char path[64];
    cr_assert(weights_cache_path("model", "/nowhere/x.gguf", false, path, sizeof path));
    cr_assert_str_eq(path, "/nowhere/x.gguf.packed");
    cr_assert(weights_cache_path("model", "/tmp//", false, path, sizeof path));
    cr_assert_str_eq(path, "/tmp/baton.packed");
    cr_assert(weights_cache_path("/c", "/a/b/", false, path, sizeof path));
    cr_assert_str_eq(path, "/c/b.packed");
    cr_assert_not(weights_cache_path("/c", "/a/b", false, path, 10));
    cr_assert(weights_cache_path("/c", "/a/b/", true, path, sizeof path));
    cr_assert_str_eq(path, "/c/b.panels.packed");
    cr_assert(weights_cache_path("model", "/tmp", true, path, sizeof path));
    cr_assert_str_eq(path, "/tmp/baton.panels.packed");
}
