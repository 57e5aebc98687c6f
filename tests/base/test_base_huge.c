#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

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
