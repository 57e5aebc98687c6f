#include <criterion/criterion.h>

#include <string.h>

#include "base/buf.h"
#include "base/rng.h"

Test(buf, empty_is_valid)
{
    struct buf b = {0};
    buf_clear(&b);
    buf_consume(&b, 0);
    size_t len = 7;
    char *text = buf_take(&b, &len);
    cr_assert_str_eq(text, "");
    cr_assert_eq(len, 0);
    free(text);
    buf_fini(&b);
    buf_fini(&b);
}

Test(buf, append_puts_printf)
{
    struct buf b = {0};
    buf_puts(&b, "ab");
    buf_putc(&b, 'c');
    buf_append(&b, "d\0e", 3);
    buf_append(&b, NULL, 0);
    buf_printf(&b, "[%d]", 42);
    cr_assert_eq(b.len, 10);
    cr_assert_eq(memcmp(b.data, "abcd\0e[42]", 11), 0, "a NUL follows");
    buf_consume(&b, 6);
    cr_assert_str_eq(b.data, "[42]");
    buf_clear(&b);
    cr_assert_str_eq(b.data, "");
    buf_fini(&b);
}

Test(buf, printf_longer_than_its_room)
{
    struct buf b = {0};
    char longer[5000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    buf_puts(&b, "<");
    buf_printf(&b, "%s>", longer);
    cr_assert_eq(b.len, sizeof longer + 1);
    cr_assert_eq(b.data[b.len - 1], '>');
    buf_fini(&b);
}

Test(buf, cap_is_exact_and_sticks)
{
    struct buf b = {.max = 10};
    buf_puts(&b, "1234567890");
    cr_assert_not(b.failed);
    buf_putc(&b, 'x');
    cr_assert(b.failed);
    cr_assert_eq(b.len, 10);
    buf_puts(&b, "");
    buf_printf(&b, "%d", 1);
    cr_assert_eq(b.len, 10);
    size_t len;
    cr_assert_null(buf_take(&b, &len), "a failed buffer gives nothing");
    cr_assert_eq(len, 0);
    buf_puts(&b, "again");
    cr_assert_str_eq(b.data, "again");
    buf_fini(&b);
}

Test(buf, printf_over_the_cap_fails_cleanly)
{
    struct buf b = {.max = 100};
    buf_puts(&b, "keep");
    buf_printf(&b, "%200d", 1);
    cr_assert(b.failed);
    cr_assert_str_eq(b.data, "keep");
    buf_fini(&b);
}

Test(buf, printf_up_to_the_cap_succeeds)
{
    struct buf b = {.max = 70};
    buf_printf(&b, "%70d", 1);
    cr_assert_not(b.failed);
    cr_assert_eq(b.len, 70);
    buf_fini(&b);
    b.max = 5;
    buf_printf(&b, "%d", 12345);
    cr_assert_not(b.failed, "a cap below the first guess of a print's length");
    cr_assert_str_eq(b.data, "12345");
    buf_fini(&b);
}

Test(buf, absurd_reserve_fails)
{
    struct buf b = {0};
    buf_puts(&b, "x");
    cr_assert_not(buf_reserve(&b, SIZE_MAX));
    cr_assert(b.failed);
    buf_clear(&b);
    cr_assert_not(b.failed);
    buf_fini(&b);
}

Test(buf, random_appends_match_a_plain_copy)
{
    struct rng r = rng_seed(5);
    static char model[1 << 16];
    size_t len = 0;
    struct buf b = {0};
    for (int round = 0; round < 3000 && len < 60000; round++) {
        char piece[300];
        size_t n = rng_below(&r, sizeof piece);
        for (size_t i = 0; i < n; i++)
            piece[i] = (char)rng_next(&r);
        buf_append(&b, piece, n);
        memcpy(model + len, piece, n);
        len += n;
        if (rng_below(&r, 10) == 0) {
            size_t drop = rng_below(&r, len + 1) / 4;
            buf_consume(&b, drop);
            memmove(model, model + drop, len - drop);
            len -= drop;
        }
        cr_assert_eq(b.len, len);
    }
    cr_assert_eq(memcmp(b.data, model, len), 0);
    buf_fini(&b);
}
