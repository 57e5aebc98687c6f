/* The passes over logits, every body against plain loops: the same bits. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/logits.h"

#define N_MAX 4099

static const int32_t sizes[] = {1, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000, N_MAX};

#define SIZES (sizeof sizes / sizeof sizes[0])

/* Some of them equal, some -infinity. */
static void fill(float *x, int32_t n, uint64_t seed)
{
    for (int32_t i = 0; i < n; i++) {
        uint64_t h = rng_hash(seed, (uint64_t)i, 0, 0);
        x[i] = h % 16 == 0 ? -INFINITY : (float)(rng_unit(h) * 40 - 20);
        x[i] = h % 3 == 0 ? floorf(x[i]) : x[i];
    }
}

Test(logits, the_peak_is_the_first_of_the_largest)
{
    static float x[N_MAX];
    const struct logits_body *body;
    for (int b = 0; (body = logits_body_at(b)) != NULL; b++)
        for (size_t k = 0; k < SIZES; k++) {
            const int32_t n = sizes[k];
            int32_t want = -1;
            fill(x, n, k);
            for (int32_t i = 0; i < n; i++)
                want = x[i] > -INFINITY && (want < 0 || x[i] > x[want]) ? i : want;
            struct logits_peak p = body->find_peak(x, n);
            cr_assert(!p.nan);
            cr_assert_eq(p.id, want, "body %d, %d logits: %d, not %d", b, n, p.id, want);
            cr_assert(p.max == (want < 0 ? -INFINITY : x[want]));
            x[n - 1] = x[n / 3] = 21; /* ties, one of them in the tail */
            cr_assert_eq(body->find_peak(x, n).id, n / 3, "body %d, %d logits", b, n);
        }
}

Test(logits, no_nan_is_overlooked_and_nothing_is_no_peak)
{
    static float x[257];
    const struct logits_body *body;
    for (int b = 0; (body = logits_body_at(b)) != NULL; b++) {
        for (int32_t i = 0; i < 257; i++)
            x[i] = -INFINITY;
        struct logits_peak p = body->find_peak(x, 257);
        cr_assert(!p.nan && p.id == -1 && p.max == -INFINITY);
        for (int32_t i = 0; i < 257; i++) {
            fill(x, 257, 3);
            x[i] = i % 2 ? NAN : -NAN;
            cr_assert(body->find_peak(x, 257).nan, "body %d: at %d", b, i);
        }
        fill(x, 257, 3);
        x[100] = INFINITY;
        cr_assert_eq(body->find_peak(x, 257).id, 100);
    }
}

Test(logits, skips_to_the_first_block_with_a_larger_one)
{
    static float x[1000];
    const struct logits_body *body;
    for (int b = 0; (body = logits_body_at(b)) != NULL; b++)
        for (int32_t i = 0; i < 1000; i++) {
            memset(x, 0, sizeof x);
            x[i] = 1;
            const int32_t block = i / LOGITS_BLOCK * LOGITS_BLOCK;
            cr_assert_eq(body->skip(x, 1000, 0, 0.5F), block, "body %d: at %d", b, i);
            cr_assert_eq(body->skip(x, 1000, block, 0.5F), block);
            cr_assert_geq(body->skip(x, 1000, block + LOGITS_BLOCK, 0.5F), 1000);
            cr_assert_geq(body->skip(x, 1000, 0, 1), 1000); /* above, not at */
            cr_assert_eq(body->skip(x, 1000, 0, -1), 0);
        }
}

Test(logits, weights_are_those_of_exp)
{
    const float temperatures[] = {1, 0.3F, 2};
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < 200000; i++) {
            const struct logits_scale s = {3, (double)temperatures[t]};
            const float logit = 3 - (float)i * (60.0F / 200000);
            const double y = ((double)logit - 3) / s.temperature, got = logits_weight(logit, &s);
            if (y < LOGITS_NEGLIGIBLE)
                cr_assert_eq(got, 0);
            else
                cr_assert_leq(fabs(got - exp(y)), 4e-16 * exp(y), "e^%.17g", y);
        }
    const struct logits_scale s = {3, 1};
    cr_assert_eq(logits_weight(3, &s), 1);
    cr_assert_eq(logits_weight(-INFINITY, &s), 0);
}

/* In lanes of eight, as logits.h says: what the sum is does not depend on the body. */
Test(logits, all_bodies_sum_the_same_bits)
{
    static float x[N_MAX];
    const struct logits_body *body;
    for (size_t k = 0; k < SIZES; k++)
        for (int t = 0; t < 2; t++) {
            double lanes[8] = {0};
            fill(x, sizes[k], k + 100);
            const struct logits_scale s = {20, t ? 0.7 : 1};
            for (int32_t i = 0; i < sizes[k]; i++)
                lanes[i % 8] += logits_weight(x[i], &s);
            double want = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                          ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
            for (int b = 0; (body = logits_body_at(b)) != NULL; b++) {
                double got = body->weigh(x, sizes[k], &s);
                cr_assert_eq(memcmp(&got, &want, sizeof got), 0, "body %d: %a, not %a", b, got,
                             want);
            }
        }
}
