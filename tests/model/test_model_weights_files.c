/* The files of a checkpoint: what of them counts for the key, the stamp and the hash. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "model/weights_files.h"
#include "tests/model/file_rig.h"

/* Each file counts, and which it is; names do not. */
Test(weights_files, all_count)
{
    char dir[] = "/tmp/baton-files-XXXXXX", path[3][80];
    struct weights_key key[3] = {0}, stamp[3];
    struct opened_file v[3] = {0};
    uint64_t content[3];
    const struct weights_files files = {v, 2};
    struct team *team = team_create(2, false, false);
    cr_assert_not_null(mkdtemp(dir));
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof path[i], "%s/%d", dir, i);
        file_put(path[i], i == 2 ? "GGUF and more" : "GGUF");
        v[i] = file_opened(path[i]);
    }
    for (int i = 0; i < 3; i++) {
        if (i == 2)
            v[1] = v[2];
        weights_files_mix(&key[i], files);
        stamp[i] = weights_files_stamp(files);
        cr_assert_eq(weights_files_hash(files, team, NULL, &content[i], NULL), ST_OK);
    }
    cr_assert(memcmp(&key[0], &key[1], sizeof key[0]) == 0);
    cr_assert(memcmp(&stamp[0], &stamp[1], sizeof stamp[0]) == 0);
    cr_assert_eq(content[0], content[1]);
    cr_assert_neq(key[0].w[0], key[2].w[0]);
    cr_assert_neq(key[0].w[1], key[2].w[1]);
    cr_assert_neq(stamp[0].w[0], stamp[2].w[0]);
    cr_assert_neq(content[0], content[2]);
    v[1] = v[0];
    v[0] = v[2];
    cr_assert_eq(weights_files_hash(files, team, NULL, &content[0], NULL), ST_OK);
    cr_assert_neq(content[0], content[2], "in another order");
    team_destroy(team);
    for (int i = 0; i < 3; i++)
        unlink(path[i]);
    rmdir(dir);
}

/* Pieces that several threads hash: each byte counts, and where it is. */
Test(weights_files, hash)
{
    enum { BYTES = 20000003, PIECE = 8 << 20 };
    char path[] = "/tmp/baton-hash-XXXXXX";
    char *bytes = malloc(BYTES);
    uint64_t first, got;
    struct error err = {0};
    struct team *team = team_create(3, false, false), *alone = team_create(1, false, false);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (char)(i * 7 + i / 1000);
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, bytes, BYTES), (ssize_t)BYTES);
    struct opened_file f = file_opened(path);
    const struct weights_files files = {&f, 1};
    cr_assert_eq(weights_files_hash(files, team, NULL, &first, NULL), ST_OK);
    f.map = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
    cr_assert_neq(f.map, MAP_FAILED);
    cr_assert_eq(weights_files_hash(files, alone, NULL, &got, NULL), ST_OK);
    cr_assert_eq(got, first, "mapped, by one thread");
    cr_assert(weights_files_same(files));
    static const long places[] = {0, PIECE - 1, PIECE, 2 * PIECE + 100, BYTES - 1};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        clock_sleep_ns(20 * NS_PER_MS); /* a tick of the file system's clock, and more */
        file_change(path, places[i]);
        cr_assert_not(weights_files_same(files));
        cr_assert_eq(weights_files_hash(files, team, NULL, &got, &err), ST_INVALID);
        cr_assert_not_null(strstr(err.text, "changed while it was read"), "%s", err.text);
        f.state = file_opened(path).state;
        cr_assert_eq(weights_files_hash(files, team, NULL, &got, NULL), ST_OK);
        cr_assert_neq(got, first, "byte %ld", places[i]);
        file_change(path, places[i]);
        f.state = file_opened(path).state;
        cr_assert_eq(weights_files_hash(files, team, NULL, &got, NULL), ST_OK);
        cr_assert_eq(got, first);
    }
    unlink(path);
    cr_assert_not(weights_files_same(files));
    cr_assert_eq(weights_files_hash(files, team, NULL, &got, NULL), ST_INVALID, "gone");
    f.path = "/dev/null/none";
    cr_assert_eq(weights_files_hash(files, team, NULL, &got, &err), ST_IO);
    cr_assert_not_null(strstr(err.text, "cannot be hashed"), "%s", err.text);
    cr_assert_eq(weights_files_hash((struct weights_files){0}, team, NULL, &got, NULL), ST_INVALID);
    munmap((void *)(uintptr_t)f.map, BYTES);
    close(fd);
    free(bytes);
    team_destroy(team);
    team_destroy(alone);
}

Test(weights_files, settled)
{
    const int64_t now = clock_unix_ns();
    struct opened_file v[2] = {{.state = {.changed_ns = now - 3 * NS_PER_S}},
                               {.state = {.changed_ns = now - 5 * NS_PER_S}}};
    const struct weights_files files = {v, 2};
    cr_assert(weights_files_settled(files));
    v[1].state.changed_ns = now - NS_PER_S;
    cr_assert_not(weights_files_settled(files));
    v[1].state.changed_ns = now + NS_PER_S;
    cr_assert_not(weights_files_settled(files));
}
