#include <criterion/criterion.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/huge.h"

Test(huge, aligned_zeroed_and_given_back)
{
    static const size_t sizes[] = {1, 4096, (size_t)2 << 20, ((size_t)5 << 20) + 17};
    for (int round = 0; round < 50; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            char *p = huge_alloc(sizes[i]);
            cr_assert_not_null(p);
            cr_assert_eq((uintptr_t)p % ((size_t)2 << 20), 0);
            cr_assert(p[0] == 0 && p[sizes[i] - 1] == 0);
            memset(p, 1, sizes[i]);
            huge_free(p, sizes[i]);
        }
    huge_free(NULL, 5);
}

Test(huge, absurd_sizes_are_none)
{
    cr_assert_null(huge_alloc(0));
    cr_assert_null(huge_alloc(SIZE_MAX));
    cr_assert_null(huge_alloc(SIZE_MAX / 2));
}

/* A file reads as it is, wherever large pages are or are not. */
Test(huge, file)
{
    static const size_t sizes[] = {1, 4096, 4097, (size_t)2 << 20, ((size_t)5 << 20) + 13};
    char path[] = "/tmp/baton-huge-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t last = sizes[i] - 1;
        cr_assert_eq(ftruncate(fd, (off_t)sizes[i]), 0);
        cr_assert_eq(pwrite(fd, "x", 1, (off_t)last), 1);
        char *p = huge_map_file(fd, sizes[i]);
        cr_assert_not_null(p);
        cr_assert_eq((uintptr_t)p % ((size_t)2 << 20), 0);
        cr_assert_eq(p[last], 'x');
        cr_assert_leq(huge_mapped(p), sizes[i] + ((size_t)2 << 20));
        cr_assert_eq(munmap(p, sizes[i]), 0);
    }
    cr_assert_null(huge_map_file(fd, 0));
    close(fd);
    cr_assert_null(huge_map_file(fd, 4096), "no such file");
    unlink(path);
    cr_assert_eq(huge_mapped(NULL), 0);
    char *memory = huge_alloc((size_t)8 << 20);
    memset(memory, 1, (size_t)8 << 20);
    cr_assert_leq(huge_mapped(memory), (size_t)8 << 20);
    huge_free(memory, (size_t)8 << 20);
}
