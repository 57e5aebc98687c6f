/* Converted weights that are kept for the next start: what is mapped says what was converted, and
 * nothing that is stale, damaged or another's is used. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/model_impl.h"
#include "tests/model/cache_rig.h"
#include "tests/model/file_rig.h"
#include "tests/model/int8_folder.h"
#include "tests/model/model_rig.h"

Test(cache, what_is_kept_is_used_and_nothing_else, .init = kept_begin, .fini = kept_end)
{
    static const long places[] = {0, 8, 16, 24, 32, 40, 48, 52, 72, 80, 4096, 20000, -100, -2000};
    bool mapped;
    size_t n;
    float *want = kept_say(kept_rig.folder, NULL, &mapped, &n);
    cr_assert_not(mapped);
    kept_expect(false, want, "the first time");
    kept_expect(true, want, "the second");
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char what[64];
        kept_flip(places[i]);
        snprintf(what, sizeof what, "a bit flipped at %ld", places[i]);
        kept_expect(false, want, what);
        kept_expect(true, want, "mended");
    }
    for (off_t len = 0; len < 9000; len += 1111) {
        cr_assert_eq(truncate(kept_rig.file, len), 0);
        kept_expect(false, want, "cut short");
    }
    cr_assert_eq(chmod(kept_rig.file, 0666), 0);
    kept_expect(false, want, "others could write to it");
    cr_assert_eq(chmod(kept_rig.file, 0644), 0);
    kept_expect(true, want, "nobody else can");
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
Test(cache, of_fp8_that_is_no_number, .init = kept_begin, .fini = kept_end)
{
    char dir[FOLDER_PATH], weights[FOLDER_PATH + 32], copies[2][160];
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
                                                     .weights_cache = kept_rig.cache},
                           &m, &err);
            cr_expect_eq(st, bad ? ST_INVALID : ST_OK, "%s: %s", ops_at(b)->name, err.text);
            cr_expect_eq(strstr(err.text, "is not a finite number") != NULL, bad, "%s", err.text);
            for (int k = 0; k < 2; k++) {
                cr_assert(
                    weights_cache_path(kept_rig.cache, dir, kinds[k], copies[k], sizeof copies[k]));
                cr_expect(!bad || access(copies[k], F_OK) == -1, "%s kept %s", ops_at(b)->name,
                          copies[k]);
            }
            if (!st)
                model_free(m);
            team_destroy(team);
        }
    unlink(copies[0]);
    unlink(copies[1]);
    folder_remove(dir);
}

/* What is of each setting stays beside what is of another. */
Test(cache, of_each_form, .init = kept_begin, .fini = kept_end)
{
    static const char *const kinds[] = {"", ".int8", ".float"};
    static const enum model_weights_form forms[] = {MODEL_WEIGHTS_PACKED, MODEL_WEIGHTS_INT8,
                                                    MODEL_WEIGHTS_FLOAT};
    const struct ops *ops;
    char path[3][160];
    cr_assert_eq(ops_cpu("portable", &ops, NULL), ST_OK);
    for (int again = 0; again < 2; again++)
        for (int i = 0; i < 3; i++) {
            struct rig *r = rig_open(&(struct rig_args){kept_rig.folder, ops, 2, DTYPE_F32, 16,
                                                        forms[i], kept_rig.cache});
            cr_expect_eq(r->model->weights.cache.map != NULL, again, "%s", kinds[i]);
            rig_close(r);
            cr_assert(weights_cache_path(kept_rig.cache, kept_rig.folder, kinds[i], path[i],
                                         sizeof path[i]));
            cr_expect_eq(access(path[i], F_OK), 0, "%s", path[i]);
        }
    for (int i = 0; i < 3; i++)
        unlink(path[i]);
}

Test(cache, of_another_form_or_model, .init = kept_begin, .fini = kept_end)
{
    char other[FOLDER_PATH], theirs[160];
    bool mapped;
    size_t n;
    float *want = kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n);
    int8_folder_make(rig_golden_path("qwen3"), INT8_ROWS, other);
    cr_assert(weights_cache_path(kept_rig.cache, other, "", theirs, sizeof theirs));
    cr_assert_eq(rename(kept_rig.file, theirs), 0);
    free(kept_say(other, kept_rig.cache, &mapped, &n));
    cr_assert_not(mapped);
    cr_assert_eq(rename(theirs, kept_rig.file), 0);
    kept_expect(false, want, "another model's");
    free(want);
    folder_remove(other);
}

/* Processes of containers have the same number again and again: what is left of one that was killed
 * may not keep the next from writing, nor stay. */
Test(cache, what_another_start_left_or_writes, .init = kept_begin, .fini = kept_end)
{
    bool mapped;
    size_t n;
    struct stat s;
    float *want = kept_say(kept_rig.folder, NULL, &mapped, &n);
    file_put(kept_rig.part, "half of it");
    kept_expect(false, want, "beside what is left of another");
    cr_assert_eq(access(kept_rig.part, F_OK), -1);
    kept_expect(true, want, "taken over");
    cr_assert_eq(stat(kept_rig.file, &s), 0);
    cr_assert_eq(s.st_mode & 0777, 0600);
    unlink(kept_rig.file);
    file_put(kept_rig.part, "being written");
    int fd = open(kept_rig.part, O_RDWR);
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    kept_expect(false, want, "another writes it");
    cr_assert(kept_says("event=weights_not_kept") && !kept_says("checkpoint_hash"),
              "hashed for nothing");
    cr_assert_eq(access(kept_rig.file, F_OK), -1);
    cr_assert_eq(stat(kept_rig.part, &s), 0);
    cr_assert_eq(s.st_size, 13);
    close(fd);
    kept_expect(false, want, "the other has ended");
    kept_expect(true, want, "ours");
    free(want);
}

Test(cache, files_of_others_are_not_written_to, .init = kept_begin, .fini = kept_end)
{
    char theirs[100];
    struct stat s;
    bool mapped;
    size_t n;
    snprintf(theirs, sizeof theirs, "%s/theirs", kept_rig.cache);
    file_put(theirs, "theirs");
    for (int hard = 0; hard < 2; hard++) {
        cr_assert_eq(hard ? link(theirs, kept_rig.part) : symlink(theirs, kept_rig.part), 0);
        free(kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n));
        cr_assert_not(mapped);
        cr_assert_eq(access(kept_rig.file, F_OK), -1);
        cr_assert_eq(stat(theirs, &s), 0);
        cr_assert_eq(s.st_size, 6);
        unlink(kept_rig.part);
    }
    unlink(theirs);
}

Test(cache, where_it_cannot_be_written, .init = kept_begin, .fini = kept_end)
{
    bool mapped;
    size_t n;
    free(kept_say(kept_rig.folder, "/nonexistent/folder", &mapped, &n));
    cr_assert_not(mapped);
    cr_assert(kept_says("event=weights_not_kept") && !kept_says("checkpoint_hash"),
              "hashed for nothing");
    cr_assert_eq(symlink("/nonexistent/target", kept_rig.file), 0);
    free(kept_say(kept_rig.folder, kept_rig.cache, &mapped, &n));
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
