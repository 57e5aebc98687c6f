/* Converted weights that are kept, and the checkpoint's files: those that change, or are others and
 * hold the same, before a start or during one. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "model/model_impl.h"
#include "tests/model/cache_rig.h"
#include "tests/model/file_rig.h"

#define SETTLED_NS (INT64_C(2100) * NS_PER_MS)

static void path_of_weights(char path[256])
{
    snprintf(path, 256, "%s/model.safetensors", kept_rig.folder);
}

static void copy_file(const char *from, const char *to)
{
    char buffer[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    cr_assert(in && out);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        cr_assert_eq(fwrite(buffer, 1, n, out), n);
    fclose(in);
    fclose(out);
}

/* Where in the file bytes of some tensors of integers lie; returns how many. */
static int find_integers(const char *path, long *places, int most)
{
    uint64_t len;
    int n = 0;
    FILE *f = fopen(path, "rb");
    cr_assert(f && fread(&len, sizeof len, 1, f) == 1);
    char *header = calloc(1, len + 1), *at = header;
    cr_assert_eq(fread(header, 1, len, f), len);
    while (n < most && (at = strstr(at, "\"dtype\":\"I8\""))) {
        unsigned long begin, end;
        at = strstr(at, "data_offsets");
        cr_assert_eq(sscanf(at, "data_offsets\":[%lu,%lu]", &begin, &end), 2);
        places[n++] = (long)(sizeof len + len + begin + (end - begin) / 3);
    }
    free(header);
    fclose(f);
    return n;
}
/* Of the folder's only file. */
static struct weights_key stamp_now(void)
{
    char path[256];
    path_of_weights(path);
    const struct opened_file f = file_opened(path);
    return weights_files_stamp((struct weights_files){&f, 1});
}

/* A byte that the fingerprint does not see, of a file of the same size and time. */
Test(cache_files, of_changed_files, .init = kept_begin, .fini = kept_end)
{
    char weights[256];
    long places[8];
    bool mapped;
    size_t n;
    path_of_weights(weights);
    const int n_places = find_integers(weights, places, 8);
    cr_assert_gt(n_places, 2);
    free(kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n));
    int unseen = 0;
    for (int i = 0; i < n_places; i++) {
        const struct weights_origin was = kept_origin();
        file_change(weights, places[i]);
        float *want = kept_say(kept_rig.folder, NULL, &mapped, &n);
        kept_expect(false, want, "a byte changed and the time put back");
        const struct weights_origin is = kept_origin();
        cr_assert_neq(is.content, was.content);
        unseen += memcmp(&is.key, &was.key, sizeof is.key) == 0;
        kept_expect(true, want, "kept");
        free(want);
    }
    cr_assert_gt(unseen, 0, "no byte that samples do not see was tried");
}

static bool is_stamped(void)
{
    const struct weights_key now = stamp_now(), was = kept_origin().stamp;
    return memcmp(&now, &was, sizeof now) == 0;
}

/* Whether it is so soon after the last change of the checkpoint that no start had trusted it. */
static bool is_fresh(void)
{
    char path[256];
    path_of_weights(path);
    return clock_unix_ns() - file_opened(path).state.changed_ns < INT64_C(1900) * NS_PER_MS;
}

/* Another inode or time is no other model; what has not settled is not trusted. */
Test(cache_files, of_files_that_hold_the_same, .init = kept_begin, .fini = kept_end)
{
    static const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    static const struct weights_key none = {{0, 0}};
    char weights[256], copy[260];
    bool mapped;
    size_t n;
    path_of_weights(weights);
    snprintf(copy, sizeof copy, "%s.new", weights);
    float *want = kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n);
    cr_assert(kept_says("event=checkpoint_hashing ") && kept_says("event=checkpoint_hashed "));
    const struct weights_origin first = kept_origin();
    cr_assert(!is_fresh() || memcmp(&first.stamp, &none, sizeof none) == 0);
    for (int copied = 0; copied < 2; copied++) {
        cr_assert_eq(utimensat(AT_FDCWD, weights, long_ago, 0), 0);
        kept_expect(true, want, copied ? "copied just now" : "touched just now");
        cr_assert(kept_says("checkpoint_hashed") && !kept_says("not_stamped"));
        cr_assert(!is_fresh() || !is_stamped());
        clock_sleep_ns(SETTLED_NS);
        kept_expect(true, want, "settled");
        cr_assert(is_stamped());
        kept_expect(true, want, "stamped");
        cr_assert(kept_says("weights_mapped") && !kept_says("checkpoint_hash"));
        const struct weights_origin now = kept_origin();
        cr_assert(memcmp(&first.key, &now.key, sizeof now.key) == 0);
        cr_assert_eq(first.content, now.content);
        copy_file(weights, copy);
        cr_assert_eq(rename(copy, weights), 0);
    }
    clock_sleep_ns(SETTLED_NS);
    kept_expect(true, want, "copied again");
    kept_flip(60);
    kept_expect(true, want, "half of a stamp");
    cr_assert(kept_says("checkpoint_hashed") && is_stamped());
    free(want);
}

/* Where a start cannot write the stamp, each has to hash, and says so. */
Test(cache_files, that_cannot_be_stamped, .init = kept_begin, .fini = kept_end)
{
    char elsewhere[100];
    bool mapped;
    size_t n;
    struct error why = {0};
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", kept_rig.cache);
    float *want = kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n);
    clock_sleep_ns(SETTLED_NS);
    cr_assert(rename(kept_rig.file, elsewhere) == 0 && symlink(elsewhere, kept_rig.file) == 0);
    for (int i = 0; i < 2; i++) {
        kept_expect(true, want, "not to be stamped");
        cr_assert(kept_says("checkpoint_hashed") && kept_says("level=warn") && !is_stamped());
        cr_assert(kept_says("event=weights_cache_not_stamped why="), "%s", kept_rig.logged);
    }
    cr_assert_eq(rename(elsewhere, kept_rig.file), 0);
    const struct weights_key key = kept_origin().key, stamp = stamp_now();
    struct weights_cache c = {0};
    cr_assert_eq(chmod(kept_rig.file, 0666), 0);
    cr_assert_eq(weights_cache_restamp(&c, kept_rig.file, &stamp, &why), ST_IO);
    cr_assert_not_null(strstr(why.text, "nobody else can write"));
    cr_assert_not(is_stamped());
    cr_assert_eq(chmod(kept_rig.file, 0600), 0);
    kept_expect(true, want, "to be stamped");
    cr_assert(is_stamped());
    cr_assert_eq(key.w[0], kept_origin().key.w[0]);
    free(want);
}

/* Binds weights of files that are touched after they were opened; returns whether a cache is what
 * they are bound to. */
static bool bind_touched(void)
{
    static const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 2000}};
    char weights[256];
    struct model_config config;
    struct generation_defaults defaults;
    struct weight_source *source;
    struct model_weights w = {0};
    struct error err = {0};
    const struct ops *ops;
    struct team *team = team_create(2, false, false);
    path_of_weights(weights);
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    cr_assert_eq(model_config_read(kept_rig.folder, &config, &defaults, &err), ST_OK, "%s",
                 err.text);
    cr_assert_eq(weight_source_open(kept_rig.folder, &source, &err), ST_OK, "%s", err.text);
    weights_settle(source, &config);
    cr_assert_eq(utimensat(AT_FDCWD, weights, long_ago, 0), 0);
    const struct weights_args args = {.config = &config,
                                      .source = source,
                                      .dir = kept_rig.folder,
                                      .team = team,
                                      .form = MODEL_WEIGHTS_PACKED,
                                      .cache = kept_rig.cache,
                                      .fingerprint = fingerprint_compute(&config, source),
                                      .rounds = ops->round != NULL,
                                      .panels = ops->panels};
    kept_log_begin();
    const enum status st = weights_bind(&args, &w, &err);
    kept_log_end();
    cr_assert_eq(st, ST_OK, "%s", err.text);
    cr_assert(kept_says("event=weights_not_kept why="), "%s", kept_rig.logged);
    cr_assert(kept_says("changed while it was read"), "%s", kept_rig.logged);
    const bool mapped = w.cache.map != NULL;
    weights_fini(&w);
    weight_source_close(source);
    team_destroy(team);
    return mapped;
}

Test(cache_files, of_files_that_change_during_a_load, .init = kept_begin, .fini = kept_end)
{
    size_t n;
    bool mapped;
    cr_assert_not(bind_touched());
    cr_assert(access(kept_rig.file, F_OK) == -1 && access(kept_rig.part, F_OK) == -1,
              "kept all the same");
    float *want = kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n);
    const struct weights_origin was = kept_origin();
    cr_assert_not(bind_touched());
    cr_assert(kept_says("weights_cache_unusable") && kept_says("could not be hashed before"), "%s",
              kept_rig.logged);
    const struct weights_origin is = kept_origin();
    cr_assert(memcmp(&was, &is, sizeof is) == 0, "stamped or written all the same");
    kept_expect(true, want, "they no longer change");
    free(want);
}

/* Says no so many times, and then yes. */
static bool countdown(void *left)
{
    return --*(int *)left < 0;
}

/* Loads until it is asked `left` times whether to stop. */
static enum status load_until(int left, bool *mapped)
{
    const struct ops *ops;
    struct model *m;
    struct error err = {0};
    struct team *team = team_create(2, false, false);
    struct stop stop = {.asked = countdown, .ctx = &left};
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    const struct model_load_args args = {.dir = kept_rig.folder,
                                         .ops = ops,
                                         .team = team,
                                         .max_batch_tokens = 4,
                                         .max_logits_rows = 4,
                                         .weights = MODEL_WEIGHTS_PACKED,
                                         .weights_cache = kept_rig.cache,
                                         .stop = &stop};
    kept_log_begin();
    const enum status st = model_load(&args, &m, &err);
    kept_log_end();
    cr_assert(st == ST_OK || st == ST_CANCELLED, "%d: %s", (int)st, err.text);
    cr_assert_eq(access(kept_rig.part, F_OK), -1, "a part of a file is left");
    cr_assert_not(kept_says("level=warn"), "%s", kept_rig.logged);
    if (!st) {
        *mapped = m->weights.cache.map != NULL;
        model_free(m);
    }
    team_destroy(team);
    return st;
}

/* Wherever a load is stopped: while weights are converted, files hashed, a cache written or read;
 * nothing is left of it, and what was kept before stays. */
Test(cache_files, loads_that_are_stopped, .init = kept_begin, .fini = kept_end, .timeout = 120)
{
    bool mapped = true;
    size_t n;
    int stopped = 0;
    for (; load_until(stopped, &mapped) == ST_CANCELLED; stopped++)
        cr_assert_eq(access(kept_rig.file, F_OK), -1, "kept all the same");
    cr_assert_gt(stopped, 10, "it was hardly asked: %d", stopped);
    cr_assert_not(mapped);
    clock_sleep_ns(SETTLED_NS);
    float *want = kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n);
    cr_assert(mapped);
    for (stopped = 0; load_until(stopped, &mapped) == ST_CANCELLED; stopped++)
        cr_assert_eq(access(kept_rig.file, F_OK), 0);
    cr_assert_gt(stopped, 1, "it was hardly asked: %d", stopped);
    cr_assert(mapped);
    kept_expect(true, want, "after loads that were stopped");
    free(want);
}
