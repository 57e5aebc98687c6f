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

static char folder[FOLDER_PATH], cache[64], file[160], part[170];

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

/* Another inode, time or folder is no other model. */
Test(cache, of_files_that_hold_the_same, .init = setup, .fini = teardown)
{
    static const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    char weights[256], copy[260];
    bool mapped;
    size_t n;
    path_of_weights(weights);
    snprintf(copy, sizeof copy, "%s.new", weights);
    float *want = say(folder, cache, &mapped, &n);
    const struct weights_origin first = origin_of_file();
    const struct weights_key stamp = weights_files_stamp(folder);
    cr_assert(memcmp(&first.stamp, &stamp, sizeof stamp) == 0);
    cr_assert_eq(utimensat(AT_FDCWD, weights, long_ago, 0), 0);
    for (int copied = 0; copied < 2; copied++) {
        expect(true, want, copied ? "copied" : "touched");
        const struct weights_origin now = origin_of_file();
        const struct weights_key is = weights_files_stamp(folder);
        cr_assert(memcmp(&first.key, &now.key, sizeof now.key) == 0);
        cr_assert_eq(first.content, now.content);
        cr_assert(memcmp(&now.stamp, &is, sizeof is) == 0, "the stamp was not brought up to date");
        cr_assert(memcmp(&now.stamp, &stamp, sizeof is) != 0);
        copy_file(weights, copy);
        cr_assert_eq(rename(copy, weights), 0);
    }
    expect(true, want, "copied again");
    flip(60);
    expect(true, want, "half of a stamp");
    const struct weights_origin last = origin_of_file();
    const struct weights_key is = weights_files_stamp(folder);
    cr_assert(memcmp(&last.stamp, &is, sizeof is) == 0);
    free(want);
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
    struct weights_key key[3] = {0}, stamp[3];
    uint64_t content[3];
    cr_assert_not_null(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/x-%05d-of-00002.gguf", dir, i + 1);
        put(path[i], "GGUF");
    }
    struct team *team = team_create(2, false, false);
    for (int i = 0; i < 3; i++) {
        if (i == 2)
            put(path[1], "GGUF and more");
        weights_files_mix(&key[i], path[0]);
        stamp[i] = weights_files_stamp(path[0]);
        cr_assert(weights_files_hash(path[0], team, &content[i]));
    }
    team_destroy(team);
    cr_assert(memcmp(&key[0], &key[1], sizeof key[0]) == 0);
    cr_assert(memcmp(&stamp[0], &stamp[1], sizeof stamp[0]) == 0);
    cr_assert_eq(content[0], content[1]);
    cr_assert_neq(key[0].w[0], key[2].w[0]);
    cr_assert_neq(key[0].w[1], key[2].w[1]);
    cr_assert_neq(stamp[0].w[0], stamp[2].w[0]);
    cr_assert_neq(content[0], content[2]);
    for (int i = 0; i < 2; i++)
        unlink(path[i]);
    rmdir(dir);
}

/* Pieces that several threads hash: each byte counts, and where it is; names do, folders do not. */
Test(cache, hash_of_files)
{
    enum { BYTES = 20000003, PIECE = 8 << 20 };
    char dir[2][32] = {"/tmp/baton-hash-XXXXXX", "/tmp/baton-hash-XXXXXX"}, path[2][80];
    char *bytes = malloc(BYTES);
    uint64_t first, got;
    struct team *team = team_create(3, false, false), *alone = team_create(1, false, false);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (char)(i * 7 + i / 1000);
    for (int i = 0; i < 2; i++) {
        cr_assert_not_null(mkdtemp(dir[i]));
        snprintf(path[i], sizeof path[i], "%s/a.gguf", dir[i]);
        FILE *f = fopen(path[i], "wb");
        cr_assert_eq(fwrite(bytes, 1, BYTES, f), (size_t)BYTES);
        fclose(f);
    }
    cr_assert(weights_files_hash(dir[0], team, &first));
    cr_assert(weights_files_hash(dir[1], alone, &got));
    cr_assert_eq(got, first, "of another folder, by one thread");
    static const long places[] = {0, PIECE - 1, PIECE, 2 * PIECE + 100, BYTES - 1};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        change(path[1], places[i]);
        cr_assert(weights_files_hash(dir[1], team, &got));
        cr_assert_neq(got, first, "byte %ld", places[i]);
        change(path[1], places[i]);
        cr_assert(weights_files_hash(dir[1], team, &got));
        cr_assert_eq(got, first);
    }
    snprintf(path[1] + strlen(dir[1]), 20, "/b.gguf");
    char old[80];
    snprintf(old, sizeof old, "%s/a.gguf", dir[1]);
    cr_assert_eq(rename(old, path[1]), 0);
    cr_assert(weights_files_hash(dir[1], team, &got));
    cr_assert_neq(got, first, "of another name");
    unlink(path[1]);
    cr_assert_not(weights_files_hash(dir[1], team, &got), "no files");
    unlink(path[0]);
    for (int i = 0; i < 2; i++)
        rmdir(dir[i]);
    free(bytes);
    team_destroy(team);
    team_destroy(alone);
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
