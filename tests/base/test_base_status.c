#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/rng.h"
#include "base/status.h"

Test(status, set_and_prefix)
{
    struct error err;
    cr_assert_eq(err_set(&err, ST_INVALID, "%d of %s", 3, "four"), ST_INVALID);
    cr_assert_str_eq(err.text, "3 of four");
    cr_assert_eq(err_prefix(&err, "file %s", "a.json"), ST_INVALID);
    cr_assert_str_eq(err.text, "file a.json: 3 of four");
    cr_assert_eq(err_set(&err, ST_IO, "again: %s", err.text), ST_IO);
    cr_assert_str_eq(err.text, "again: file a.json: 3 of four",
                     "an error may be wrapped in itself");
}

Test(status, null_error_is_allowed)
{
    cr_assert_eq(err_set(NULL, ST_BUSY, "%s", "x"), ST_BUSY);
    cr_assert_eq(err_prefix(NULL, "x"), ST_INTERNAL);
}

Test(status, long_text_is_cut)
{
    struct error err;
    char longer[2000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    err_set(&err, ST_IO, "%s", longer);
    cr_assert_eq(strlen(err.text), sizeof err.text - 1);
    err_prefix(&err, "%s", "front");
    cr_assert_eq(strncmp(err.text, "front: aaa", 10), 0);
    cr_assert_eq(strlen(err.text), sizeof err.text - 1);
    err_prefix(&err, "%s", longer);
    cr_assert_eq(strlen(err.text), sizeof err.text - 1);
}

Test(status, every_status_has_its_own_name)
{
    static const enum status all[] = {
        ST_OK,       ST_PENDING,      ST_INVALID,   ST_NOT_FOUND, ST_CANCELLED,   ST_DEADLINE,
        ST_BUSY,     ST_NEVER_FITS,   ST_PREEMPTED, ST_DENIED,    ST_UNSUPPORTED, ST_LINK,
        ST_PROTOCOL, ST_INCOMPATIBLE, ST_CHECKSUM,  ST_NO_MEMORY, ST_IO,          ST_INTERNAL};
    size_t n = sizeof all / sizeof all[0];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            cr_assert_str_neq(status_name(all[i]), status_name(all[j]));
    cr_assert_str_eq(status_name((enum status) - 999), "unknown");
}

Test(clock, goes_forward_and_sleeps)
{
    int64_t before = clock_now_ns();
    clock_sleep_ns(5 * NS_PER_MS);
    clock_sleep_ns(0);
    clock_sleep_ns(-1);
    int64_t took = clock_now_ns() - before;
    cr_assert_geq(took, 5 * NS_PER_MS);
    cr_assert_lt(took, 5 * NS_PER_S);
    cr_assert_lt(llabs(clock_unix_ns() / NS_PER_S - (int64_t)time(NULL)), 2);
}

Test(rng, is_splitmix64)
{
    struct rng r = rng_seed(1234567);
    cr_assert_eq(rng_next(&r), UINT64_C(6457827717110365317));
    cr_assert_eq(rng_next(&r), UINT64_C(3203168211198807973));
    cr_assert_eq(rng_next(&r), UINT64_C(9817491932198370423));
}

Test(rng, hash_depends_on_every_word)
{
    uint64_t h = rng_hash(1, 2, 3, 4);
    cr_assert_eq(h, rng_hash(1, 2, 3, 4));
    cr_assert_neq(h, rng_hash(2, 2, 3, 4));
    cr_assert_neq(h, rng_hash(1, 3, 3, 4));
    cr_assert_neq(h, rng_hash(1, 2, 4, 4));
    cr_assert_neq(h, rng_hash(1, 2, 3, 5));
    cr_assert_neq(rng_hash(1, 2, 3, 4), rng_hash(1, 3, 2, 4));
    cr_assert_neq(rng_hash(0, 0, 0, 0), 0);
}

Test(rng, unit_is_half_open)
{
    cr_assert_eq(rng_unit(0), 0.0);
    cr_assert_lt(rng_unit(UINT64_MAX), 1.0);
    cr_assert_gt(rng_unit(UINT64_MAX), 0.9999999);
}

Test(rng, below_is_even)
{
    struct rng r = rng_seed(7);
    int count[6] = {0};
    for (int i = 0; i < 60000; i++)
        count[rng_below(&r, 6)]++;
    for (int i = 0; i < 6; i++)
        cr_assert(count[i] > 9500 && count[i] < 10500, "%d came %d times", i, count[i]);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(rng_below(&r, 1), 0);
        cr_assert_lt(rng_below(&r, UINT64_C(3) << 62), UINT64_C(3) << 62);
    }
}

Test(rng, exponential_has_its_mean)
{
    struct rng r = rng_seed(99);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        double x = rng_exponential(&r, 2.0);
        cr_assert(x >= 0 && isfinite(x));
        sum += x;
    }
    cr_assert_float_eq(sum / 100000, 2.0, 0.05);
}

Test(rng, entropy_differs)
{
    cr_assert_neq(rng_entropy(), rng_entropy());
}

struct item {
    int n;
    struct list link;
};

Test(list, order_and_removal)
{
    struct list head;
    struct item items[4];
    list_init(&head);
    cr_assert(list_empty(&head));
    cr_assert_null(list_first(&head));
    for (int i = 0; i < 4; i++) {
        items[i].n = i;
        list_push_back(&head, &items[i].link);
    }
    list_remove(&items[2].link);
    list_remove(&items[2].link);
    list_push_front(&head, &items[2].link);
    static const int want[] = {2, 0, 1, 3};
    int at = 0;
    list_for_each(it, &head) cr_assert_eq(list_entry(it, struct item, link)->n, want[at++]);
    cr_assert_eq(at, 4);
    list_for_each_safe(it, tmp, &head) list_remove(it);
    cr_assert(list_empty(&head));
}
