/* Files read whole: what is there, and what is no such file. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static char path[64];

static void put(const void *bytes, size_t n)
{
    strcpy(path, "/tmp/baton_test_file_XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

static enum status text_of(char **out, struct error *err)
{
    *out = NULL;
    *err = (struct error){0};
    return file_read_text(path, 10000, out, err);
}

Test(file, sizes)
{
    static char bytes[10001];
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 10000, 10001};
    memset(bytes, 'k', sizeof(bytes));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct error err;
        char *text;
        put(bytes, sizes[i]);
        enum status st = text_of(&text, &err);
        cr_assert_eq(st, sizes[i] > 10000 ? ST_INVALID : ST_OK, "%zu: %s", sizes[i], err.text);
        if (st == ST_OK)
            cr_assert_eq(strlen(text), sizes[i]);
        else
            cr_assert(strstr(err.text, path) && strstr(err.text, "at most"), "%s", err.text);
        free(text);
        unlink(path);
    }
}

Test(file, what_is_none, .timeout = 20)
{
    struct error err;
    char *text;
    put("a\0b", 3);
    cr_assert_eq(text_of(&text, &err), ST_INVALID);
    cr_assert(strstr(err.text, "NUL") != NULL, "%s", err.text);
    unlink(path);
    cr_assert_eq(text_of(&text, &err), ST_NOT_FOUND);
    cr_assert_eq(mkfifo(path, 0600), 0); /* must not wait for somebody to write */
    cr_assert_eq(text_of(&text, &err), ST_INVALID);
    unlink(path);
    strcpy(path, "/");
    cr_assert_eq(text_of(&text, &err), ST_INVALID);
    cr_assert(strstr(err.text, "regular") != NULL, "%s", err.text);
}

/* What the system gives no size for is read to its end, and no further than allowed. */
Test(file, sizes_that_are_not_told)
{
    struct buf b = {0};
    struct error err = {0};
    cr_assert_eq(file_read("/proc/self/maps", 1 << 20, &b, &err), ST_OK, "%s", err.text);
    cr_assert(b.len > 100 && memchr(b.data, '\n', b.len) != NULL);
    buf_fini(&b);
    cr_assert_eq(file_read("/proc/self/maps", 50, &b, &err), ST_INVALID);
    cr_assert(strstr(err.text, "larger than 50") != NULL, "%s", err.text);
    buf_fini(&b);
}
