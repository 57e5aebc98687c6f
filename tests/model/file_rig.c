#include "tests/model/file_rig.h"

#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

void file_put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

struct opened_file file_opened(const char *path)
{
    struct opened_file f = {.path = path};
    cr_assert(file_state_read(path, &f.state));
    return f;
}

void file_change(const char *path, long at)
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
