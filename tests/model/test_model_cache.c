/* Converted weights that are kept for the next start: what is mapped says what was converted, and
 * nothing that is stale, damaged or another's is used. It is over 600 lines because what can happen
 * to the file is as much. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "model/model_impl.h"
#include "tests/model/int8_folder.h"
#include "tests/model/model_rig.h"

#define N 20
#define SETTLED_NS (INT64_C(2100) * NS_PER_MS)

static char folder[FOLDER_PATH], cache[64], file[160], part[170];
static char logged[1 << 16];

static void setup(void)
{
    int8_folder_make(rig_golden_path("qwen3-moe"), INT8_ORDERED, folder);
    strcpy(cache, "/tmp/baton-cache-XXXXXX");
    cr_assert_not_null(mkdtemp(cache));
    cr_assert(weights_cache_path(cache, folder, "", file, sizeof file));
    snprintf(part, sizeof part, "%s.part", file);
}

static void teardown(void)
{
    unlink(file);
    unlink(part);
    rmdir(cache);
    folder_remove(folder);
}

/* What is written to stderr meanwhile goes to `logged`. */
static int log_to, log_saved;

static void capture_begin(void)
{
    char path[] = "/tmp/baton-log-XXXXXX";
    log_to = mkstemp(path);
    log_saved = dup(STDERR_FILENO);
    cr_assert(log_to >= 0 && log_saved >= 0);
    unlink(path);
    fcntl(log_to, F_SETFL, O_APPEND);
    dup2(log_to, STDERR_FILENO);
}

static void capture_end(void)
{
    dup2(log_saved, STDERR_FILENO);
    close(log_saved);
    ssize_t n = pread(log_to, logged, sizeof logged - 1, 0);
    cr_assert_geq(n, 0);
    logged[n] = 0;
    close(log_to);
}

static bool says(const char *what)
{
    return strstr(logged, what) != NULL;
}

/* Logits of a model loaded with this cache; `mapped`: whether they came from it. */
static float *say(const char *dir, const char *where, bool *mapped, size_t *n)
{
    const struct ops *ops;
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    capture_begin();
    struct rig *r =
        rig_open(&(struct rig_args){dir, ops, 2, DTYPE_F32, 16, MODEL_WEIGHTS_PACKED, where});
    capture_end();
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
    static const long places[] = {0, 8, 16, 24, 32, 40, 48, 52, 72, 80, 4096, 20000, -100, -2000};
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
    free(want);
}

/* ---- the checkpoint's files, as they are now ---- */

static void path_of_weights(char path[256])
{
    snprintf(path, 256, "%s/model.safetensors", folder);
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

/* Flips a bit and puts the time back. */
static void change(const char *path, long at)
{
    struct stat s;
    FILE *f = fopen(path, "r+b");
    cr_assert(f && stat(path, &s) == 0);
    cr_assert_eq(fseek(f, at, SEEK_SET), 0);
    int byte = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(byte ^ 16, f);
    fclose(f);
    const struct timespec times[2] = {s.st_atim, s.st_mtim};
    cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0);
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

static struct weights_origin origin_of_file(void)
{
    struct weights_origin o;
    FILE *f = fopen(file, "rb");
    cr_assert_not_null(f);
    cr_assert(fseek(f, 8, SEEK_SET) == 0 && fread(&o.key, sizeof o.key, 1, f) == 1 &&
              fread(&o.content, sizeof o.content, 1, f) == 1);
    cr_assert(fseek(f, 56, SEEK_SET) == 0 && fread(&o.stamp, sizeof o.stamp, 1, f) == 1);
    fclose(f);
    return o;
}

static struct opened_file opened(const char *path)
{
    struct opened_file f = {.path = path};
    cr_assert(file_state_read(path, &f.state));
    return f;
}

/* Of the folder's only file. */
static struct weights_key stamp_now(void)
{
    char path[256];
    path_of_weights(path);
    const struct opened_file f = opened(path);
    return weights_files_stamp((struct weights_files){&f, 1});
}

/* A byte that the fingerprint does not see, of a file of the same size and time. */
Test(cache, of_changed_files, .init = setup, .fini = teardown)
{
    char weights[256];
    long places[8];
    bool mapped;
    size_t n;
    path_of_weights(weights);
    const int n_places = find_integers(weights, places, 8);
    cr_assert_gt(n_places, 2);
    free(say(folder, cache, &mapped, &n));
    int unseen = 0;
    for (int i = 0; i < n_places; i++) {
        const struct weights_origin was = origin_of_file();
        change(weights, places[i]);
        float *want = say(folder, NULL, &mapped, &n);
        expect(false, want, "a byte changed and the time put back");
        const struct weights_origin is = origin_of_file();
        cr_assert_neq(is.content, was.content);
        unseen += memcmp(&is.key, &was.key, sizeof is.key) == 0;
        expect(true, want, "kept");
        free(want);
    }
    cr_assert_gt(unseen, 0, "no byte that samples do not see was tried");
}

static bool is_stamped(void)
{
    const struct weights_key now = stamp_now(), was = origin_of_file().stamp;
    return memcmp(&now, &was, sizeof now) == 0;
}

/* Whether it is so soon after the last change of the checkpoint that no start had trusted it. */
static bool is_fresh(void)
{
    char path[256];
    path_of_weights(path);
    return clock_unix_ns() - opened(path).state.changed_ns < INT64_C(1900) * NS_PER_MS;
}

/* Another inode or time is no other model; what has not settled is not trusted. */
Test(cache, of_files_that_hold_the_same, .init = setup, .fini = teardown)
{
    static const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    static const struct weights_key none = {{0, 0}};
    char weights[256], copy[260];
    bool mapped;
    size_t n;
    path_of_weights(weights);
    snprintf(copy, sizeof copy, "%s.new", weights);
    float *want = say(folder, cache, &mapped, &n);
    cr_assert(says("event=checkpoint_hashing ") && says("event=checkpoint_hashed "));
    const struct weights_origin first = origin_of_file();
    cr_assert(!is_fresh() || memcmp(&first.stamp, &none, sizeof none) == 0);
    for (int copied = 0; copied < 2; copied++) {
        cr_assert_eq(utimensat(AT_FDCWD, weights, long_ago, 0), 0);
        expect(true, want, copied ? "copied just now" : "touched just now");
        cr_assert(says("checkpoint_hashed") && !says("not_stamped"));
        cr_assert(!is_fresh() || !is_stamped());
        clock_sleep_ns(SETTLED_NS);
        expect(true, want, "settled");
        cr_assert(is_stamped());
        expect(true, want, "stamped");
        cr_assert(says("weights_mapped") && !says("checkpoint_hash"));
        const struct weights_origin now = origin_of_file();
        cr_assert(memcmp(&first.key, &now.key, sizeof now.key) == 0);
        cr_assert_eq(first.content, now.content);
        copy_file(weights, copy);
        cr_assert_eq(rename(copy, weights), 0);
    }
    clock_sleep_ns(SETTLED_NS);
    expect(true, want, "copied again");
    flip(60);
    expect(true, want, "half of a stamp");
    cr_assert(says("checkpoint_hashed") && is_stamped());
    free(want);
}

/* Where a start cannot write the stamp, each has to hash, and says so. */
Test(cache, that_cannot_be_stamped, .init = setup, .fini = teardown)
{
    char elsewhere[100];
    bool mapped;
    size_t n;
    struct error why = {0};
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", cache);
    float *want = say(folder, cache, &mapped, &n);
    clock_sleep_ns(SETTLED_NS);
    cr_assert(rename(file, elsewhere) == 0 && symlink(elsewhere, file) == 0);
    for (int i = 0; i < 2; i++) {
        expect(true, want, "not to be stamped");
        cr_assert(says("checkpoint_hashed") && says("level=warn") && !is_stamped());
        cr_assert(says("event=weights_cache_not_stamped why="), "%s", logged);
    }
    cr_assert_eq(rename(elsewhere, file), 0);
    const struct weights_key key = origin_of_file().key, stamp = stamp_now();
    struct weights_cache c = {0};
    cr_assert_eq(chmod(file, 0666), 0);
    cr_assert_eq(weights_cache_restamp(&c, file, &stamp, &why), ST_IO);
    cr_assert_not_null(strstr(why.text, "nobody else can write"));
    cr_assert_not(is_stamped());
    cr_assert_eq(chmod(file, 0600), 0);
    expect(true, want, "to be stamped");
    cr_assert(is_stamped());
    cr_assert_eq(key.w[0], origin_of_file().key.w[0]);
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
    cr_assert_eq(model_config_read(folder, &config, &defaults, &err), ST_OK, "%s", err.text);
    cr_assert_eq(weight_source_open(folder, &source, &err), ST_OK, "%s", err.text);
    weights_settle(source, &config);
    cr_assert_eq(utimensat(AT_FDCWD, weights, long_ago, 0), 0);
    const struct weights_args args = {.config = &config,
                                      .source = source,
                                      .dir = folder,
                                      .team = team,
                                      .form = MODEL_WEIGHTS_PACKED,
                                      .cache = cache,
                                      .fingerprint = fingerprint_compute(&config, source),
                                      .rounds = ops->round != NULL,
                                      .panels = ops->panels};
    capture_begin();
    const enum status st = weights_bind(&args, &w, &err);
    capture_end();
    cr_assert_eq(st, ST_OK, "%s", err.text);
    cr_assert(says("event=weights_not_kept why="), "%s", logged);
    cr_assert(says("changed while it was read"), "%s", logged);
    const bool mapped = w.cache.map != NULL;
    weights_fini(&w);
    weight_source_close(source);
    team_destroy(team);
    return mapped;
}

Test(cache, of_files_that_change_during_a_load, .init = setup, .fini = teardown)
{
    size_t n;
    bool mapped;
    cr_assert_not(bind_touched());
    cr_assert(access(file, F_OK) == -1 && access(part, F_OK) == -1, "kept all the same");
    float *want = say(folder, cache, &mapped, &n);
    const struct weights_origin was = origin_of_file();
    cr_assert_not(bind_touched());
    cr_assert(says("weights_cache_unusable") && says("could not be hashed before"), "%s", logged);
    const struct weights_origin is = origin_of_file();
    cr_assert(memcmp(&was, &is, sizeof is) == 0, "stamped or written all the same");
    expect(true, want, "they no longer change");
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
    const struct model_load_args args = {.dir = folder,
                                         .ops = ops,
                                         .team = team,
                                         .max_batch_tokens = 4,
                                         .max_logits_rows = 4,
                                         .weights = MODEL_WEIGHTS_PACKED,
                                         .weights_cache = cache,
                                         .stop = &stop};
    capture_begin();
    const enum status st = model_load(&args, &m, &err);
    capture_end();
    cr_assert(st == ST_OK || st == ST_CANCELLED, "%d: %s", (int)st, err.text);
    cr_assert_eq(access(part, F_OK), -1, "a part of a file is left");
    cr_assert_not(says("level=warn"), "%s", logged);
    if (!st) {
        *mapped = m->weights.cache.map != NULL;
        model_free(m);
    }
    team_destroy(team);
    return st;
}

/* Wherever a load is stopped: while weights are converted, files hashed, a cache written or read;
 * nothing is left of it, and what was kept before stays. */
Test(cache, loads_that_are_stopped, .init = setup, .fini = teardown, .timeout = 120)
{
    bool mapped = true;
    size_t n;
    int stopped = 0;
    for (; load_until(stopped, &mapped) == ST_CANCELLED; stopped++)
        cr_assert_eq(access(file, F_OK), -1, "kept all the same");
    cr_assert_gt(stopped, 10, "it was hardly asked: %d", stopped);
    cr_assert_not(mapped);
    clock_sleep_ns(SETTLED_NS);
    float *want = say(folder, cache, &mapped, &n);
    cr_assert(mapped);
    for (stopped = 0; load_until(stopped, &mapped) == ST_CANCELLED; stopped++)
        cr_assert_eq(access(file, F_OK), 0);
    cr_assert_gt(stopped, 1, "it was hardly asked: %d", stopped);
    cr_assert(mapped);
    expect(true, want, "after loads that were stopped");
    free(want);
}

/* Where in its file the first byte of FP8 is. */
static long find_fp8(const char *dir)
{
    struct weight_source *source;
    struct weight_fp8 f;
    size_t files;
    long at = -1;
    cr_assert_eq(weight_source_open(dir, &source, NULL), ST_OK);
    const char *map = weight_source_files(source, &files)[0].map;
    cr_assert(files == 1 && map);
    for (size_t i = 0; i < weight_source_count(source) && at < 0; i++)
        if (weight_as_fp8(weight_source_at(source, i), &f))
            at = (const char *)f.data - map;
    weight_source_close(source);
    cr_assert_geq(at, 0);
    return at;
}

/* FP8 that is no number is refused, where it is read as it lies and where it is copied, and a copy
 * is not kept. */
Test(cache, of_fp8_that_is_no_number, .init = setup, .fini = teardown)
{
    char dir[FOLDER_PATH], weights[FOLDER_PATH + 32], kept[2][160];
    static const char *const kinds[] = {"", ".panels"};
    int8_folder_make(rig_golden_path("qwen3"), INT8_FP8, dir);
    snprintf(weights, sizeof weights, "%s/model.safetensors", dir);
    const long at = find_fp8(dir);
    for (int bad = 1; bad >= 0; bad--)
        for (int b = 0; ops_at(b); b++) {
            struct model *m;
            struct error err = {0};
            struct team *team = team_create(2, false, false);
            const uint8_t byte = bad ? 0xff : 0x7e;
            int fd = open(weights, O_WRONLY);
            cr_assert(fd >= 0 && pwrite(fd, &byte, 1, at) == 1 && close(fd) == 0);
            const enum status st =
                model_load(&(struct model_load_args){.dir = dir,
                                                     .ops = ops_at(b),
                                                     .team = team,
                                                     .max_batch_tokens = 4,
                                                     .max_logits_rows = 4,
                                                     .weights = MODEL_WEIGHTS_PACKED,
                                                     .weights_cache = cache},
                           &m, &err);
            cr_expect_eq(st, bad ? ST_INVALID : ST_OK, "%s: %s", ops_at(b)->name, err.text);
            cr_expect_eq(strstr(err.text, "is not a finite number") != NULL, bad, "%s", err.text);
            for (int k = 0; k < 2; k++) {
                cr_assert(weights_cache_path(cache, dir, kinds[k], kept[k], sizeof kept[k]));
                cr_expect(!bad || access(kept[k], F_OK) == -1, "%s kept %s", ops_at(b)->name,
                          kept[k]);
            }
            if (!st)
                model_free(m);
            team_destroy(team);
        }
    unlink(kept[0]);
    unlink(kept[1]);
    folder_remove(dir);
}

/* What is of each setting stays beside what is of another. */
Test(cache, of_each_form, .init = setup, .fini = teardown)
{
    static const char *const kinds[] = {"", ".int8", ".float"};
    static const enum model_weights_form forms[] = {MODEL_WEIGHTS_PACKED, MODEL_WEIGHTS_INT8,
                                                    MODEL_WEIGHTS_FLOAT};
    const struct ops *ops;
    char path[3][160];
    cr_assert_eq(ops_cpu("portable", &ops, NULL), ST_OK);
    for (int again = 0; again < 2; again++)
        for (int i = 0; i < 3; i++) {
            struct rig *r =
                rig_open(&(struct rig_args){folder, ops, 2, DTYPE_F32, 16, forms[i], cache});
            cr_expect_eq(r->model->weights.cache.map != NULL, again, "%s", kinds[i]);
            rig_close(r);
            cr_assert(weights_cache_path(cache, folder, kinds[i], path[i], sizeof path[i]));
            cr_expect_eq(access(path[i], F_OK), 0, "%s", path[i]);
        }
    for (int i = 0; i < 3; i++)
        unlink(path[i]);
}

Test(cache, of_another_form_or_model, .init = setup, .fini = teardown)
{
    char other[FOLDER_PATH], theirs[160];
    bool mapped;
    size_t n;
    float *want = say(folder, cache, &mapped, &n);
    int8_folder_make(rig_golden_path("qwen3"), INT8_ROWS, other);
    cr_assert(weights_cache_path(cache, other, "", theirs, sizeof theirs));
    cr_assert_eq(rename(file, theirs), 0);
    free(say(other, cache, &mapped, &n));
    cr_assert_not(mapped);
    cr_assert_eq(rename(theirs, file), 0);
    expect(false, want, "another model's");
    free(want);
    folder_remove(other);
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
    cr_assert(says("event=weights_not_kept") && !says("checkpoint_hash"), "hashed for nothing");
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

Test(cache, where_it_cannot_be_written, .init = setup, .fini = teardown)
{
    bool mapped;
    size_t n;
    free(say(folder, "/nonexistent/folder", &mapped, &n));
    cr_assert_not(mapped);
    cr_assert(says("event=weights_not_kept") && !says("checkpoint_hash"), "hashed for nothing");
    cr_assert_eq(symlink("/nonexistent/target", file), 0);
    free(say(folder, cache, &mapped, &n));
    cr_assert_not(mapped);
}

Test(cache, names)
{
    char path[64];
    cr_assert(weights_cache_path("model", "/nowhere/x.gguf", "", path, sizeof path));
    cr_assert_str_eq(path, "/nowhere/x.gguf.packed");
    cr_assert(weights_cache_path("model", "/tmp//", "", path, sizeof path));
    cr_assert_str_eq(path, "/tmp/baton.packed");
    cr_assert(weights_cache_path("/c", "/a/b/", "", path, sizeof path));
    cr_assert_str_eq(path, "/c/b.packed");
    cr_assert_not(weights_cache_path("/c", "/a/b", "", path, 10));
    cr_assert(weights_cache_path("/c", "/a/b/", ".panels", path, sizeof path));
    cr_assert_str_eq(path, "/c/b.panels.packed");
    cr_assert(weights_cache_path("model", "/tmp", ".int8.panels", path, sizeof path));
    cr_assert_str_eq(path, "/tmp/baton.int8.panels.packed");
}
