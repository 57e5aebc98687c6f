/* Passes over a row of logits, compiled once per instruction set (see cpu.h). */
#ifndef KERNELS_CPU_ROWS_LOGITS_BODY_H
#define KERNELS_CPU_ROWS_LOGITS_BODY_H

#include <math.h>

#include "kernels/cpu/rows/logits.h"

/* Eight doubles, whatever the CPU's vectors hold: the order of a sum is part of its value. */
#define WIDE 8
typedef double wide __attribute__((vector_size(8 * WIDE)));
typedef int64_t wide_bits __attribute__((vector_size(8 * WIDE)));
typedef int32_t lanes __attribute__((vector_size(4 * LANES)));
typedef float narrow __attribute__((vector_size(4 * WIDE)));

static int32_t logits_skip_body(const float *x, int32_t n, int32_t from, float than)
{
    for (; n - from >= LOGITS_BLOCK; from += LOGITS_BLOCK) {
        vec most = vec_load(x + from);
        UNROLL
        for (int i = LANES; i < LOGITS_BLOCK; i += LANES)
            most = vec_max(most, vec_load(x + from + i));
        if (vec_reduce_max(most) > than)
            return from;
    }
    for (int32_t i = from; i < n; i++)
        if (x[i] > than)
            return from;
    return n;
}

static struct logits_peak logits_find_peak_body(const float *x, int32_t n)
{
    struct logits_peak p = {.max = -INFINITY, .id = -1};
    vec most[2] = {vec_set1(-INFINITY), vec_set1(-INFINITY)};
    lanes wrong = (lanes){0};
    int32_t i = 0;
    for (; n - i >= 2 * LANES; i += 2 * LANES) {
        vec a = vec_load(x + i), b = vec_load(x + i + LANES);
        most[0] = vec_max(a, most[0]); /* which stays where a is NaN */
        most[1] = vec_max(b, most[1]);
        wrong |= (lanes)(a != a) | (lanes)(b != b);
    }
    p.max = vec_reduce_max(vec_max(most[0], most[1]));
    for (int lane = 0; lane < LANES; lane++)
        p.nan |= wrong[lane] != 0;
    for (; i < n; i++) {
        p.nan |= x[i] != x[i];
        p.max = x[i] > p.max ? x[i] : p.max;
    }
    if (p.max == -INFINITY || p.nan)
        return p;
    for (p.id = logits_skip_body(x, n, 0, nextafterf(p.max, -INFINITY)); x[p.id] != p.max; p.id++)
        ;
    return p;
}

/* As logits_weight(). */
INLINE void weigh_add(wide *sum, const narrow *x, const struct logits_scale *s)
{
    const wide low = (wide){0} + LOGITS_NEGLIGIBLE;
    wide y = __builtin_convertvector(*x, wide) - (double)s->max;
    if (s->temperature != 1)
        y /= s->temperature;
    const wide_bits counts = (wide_bits)(y >= low);
    y = (wide)(((wide_bits)y & counts) | ((wide_bits)low & ~counts));
    wide at = y * LOGITS_LOG2E + LOGITS_ROUND, k = at - LOGITS_ROUND;
    wide r = y - k * LOGITS_LN2_HIGH - k * LOGITS_LN2_LOW;
    wide p = (wide){0} + logits_term[LOGITS_TERMS];
    UNROLL
    for (int i = LOGITS_TERMS - 1; i >= 0; i--)
        p = p * r + logits_term[i];
    p *= (wide)(((wide_bits)at + 1023) << 52);
    *sum += (wide)((wide_bits)p & counts);
}

static double logits_weigh_body(const float *x, int32_t n, const struct logits_scale *s)
{
    wide sum = (wide){0};
    narrow v;
    int32_t i = 0;
    for (; n - i >= WIDE; i += WIDE) {
        memcpy(&v, x + i, sizeof v);
        weigh_add(&sum, &v, s);
    }
    if (i < n) {
        v = (narrow){0} - INFINITY;
        memcpy(&v, x + i, (size_t)(n - i) * sizeof *x);
        weigh_add(&sum, &v, s);
    }
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

const struct logits_body BODY(logits) = {.name = BODY_NAME,
                                         .find_peak = logits_find_peak_body,
                                         .skip = logits_skip_body,
                                         .weigh = logits_weigh_body};

#endif
