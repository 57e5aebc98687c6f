/* Files of test data, read whole. */
#ifndef TESTS_SUPPORT_READ_FILE_H
#define TESTS_SUPPORT_READ_FILE_H

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/file.h"

/* The file of that printf-like name, which has to be there. The caller frees. */
__attribute__((format(printf, 1, 2))) static inline struct buf read_file(const char *name, ...)
{
    char path[1024];
    struct buf b = {0};
    struct error err = {0};
    va_list args;
    va_start(args, name);
    int n = vsnprintf(path, sizeof path, name, args);
    va_end(args);
    cr_assert(n > 0 && n < (int)sizeof path);
    cr_assert_eq(file_read(path, 256 << 20, &b, &err), ST_OK, "%s", err.text);
    return b;
}

#endif
