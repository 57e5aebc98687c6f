/* Rows of floats to rows of small integers, compiled once per instruction set (see cpu.h). It is
 * over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_QUANTIZE_BODY_H
#define KERNELS_CPU_GEMM_QUANTIZE_BODY_H

#include <assert.h>

#include "base/team.h"

/* Sums of the halves of each span. */
static void sum_bytes(const int8_t *q, int spans, int32_t *sum)
{
    int i = 0;
#if defined(BYTES_SUM)
    for (; i + 2 <= spans; i += 2)
        bytes_sum(q + i * PACKED_SPAN, sum + 2 * i);
#endif
    for (i *= 2; i < 2 * spans; i++) {
        int32_t half = 0;
        for (int k = 0; k < PACKED_SPAN / 2; k++)
            half += q[i * (PACKED_SPAN / 2) + k];
        sum[i] = half;
    }
}

/* What floats with one scale are divided by. */
struct quantum {
    float scale, by;
    bool none; /* one of them is no number */
};

/* Of n elements the largest, and whether one is no number. */
INLINE void quantum_see(const float *x, int n, vec *most, vec *wrong)
{
    UNROLL
    for (int i = 0; i < n; i += LANES) {
        vec v = vec_load(x + i);
        *most = vec_max(vec_max(v, vec_zero() - v), *most);
        *wrong = vec_fma(v, vec_zero(), *wrong); /* NaN where v is none, or infinite */
    }
}

INLINE struct quantum quantum_of(vec most, vec wrong)
{
    const float max = vec_reduce_max(most), none = vec_reduce_add(wrong);
    return (struct quantum){.scale = (max < QUANTIZE_LEAST ? 0 : max / 127.0f) + none,
                            .by = max < QUANTIZE_LEAST || none != 0 ? 0 : 127.0f / max,
                            .none = none != 0};
}

/* One span, or two; `spans` is constant where this is inlined. */
INLINE void quantize_by(struct quantum u, const float *x, int8_t *q, int spans, int32_t *sum)
{
    vec halves[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    const vec by = vec_set1(u.by);
    float sums[4];
    UNROLL
    for (int i = 0; i < spans * PACKED_SPAN; i += LANES) {
        ivec n = vec_round(vec_load(x + i) * by);
        const int half = i / (PACKED_SPAN / 2);
        bytes_store(q + i, n);
        halves[half] = halves[half] + vec_of_int(n);
    }
    if (u.none) { /* bytes are what rounding leaves of no number */
        sum_bytes(q, spans, sum);
        return;
    }
    vec_reduce_add4(sums, halves); /* exact: integers below 2^24 */
    for (int s = 0; s < 2 * spans; s++)
        sum[s] = (int32_t)sums[s];
}

INLINE void quantize_floats(const float *x, int8_t *q, int spans, float *scale, int32_t *sum)
{
    vec most = vec_zero(), wrong = vec_zero();
    quantum_see(x, spans * PACKED_SPAN, &most, &wrong);
    const struct quantum u = quantum_of(most, wrong);
    for (int s = 0; s < spans; s++)
        scale[s] = u.scale;
    quantize_by(u, x, q, spans, sum);
}

static __attribute__((noinline)) void quantize_one(const float *x, int8_t *q, float *scale,
                                                   int32_t *sum)
{
    quantize_floats(x, q, 1, scale, sum);
}
static __attribute__((noinline)) void quantize_two(const float *x, int8_t *q, float *scale,
                                                   int32_t *sum)
{
    quantize_floats(x, q, 2, scale, sum);
}

/* Columns [k, k + width) of row m as they are quantized: in order, and zeros behind the last. */
INLINE const float *quantize_from(const struct op_quantize *a, size_t m, size_t k, size_t width,
                                  float *padded)
{
    const size_t dim = (size_t)a->dim, n = dim - k < width ? dim - k : width;
    const size_t stride = (size_t)(a->x_stride ? a->x_stride : a->dim);
    const float *x = a->x + (a->row ? (size_t)a->row[m] : m) * stride;
    if (!a->order && n == width)
        return x + k;
    memset(padded, 0, width * sizeof *padded);
    for (size_t c = 0; c < n; c++)
        padded[c] = x[a->order ? (size_t)a->order[k + c] : k + c];
    return padded;
}

/* A whole row, by two spans, whose quarters wait for nobody but themselves. */
static __attribute__((noinline)) void quantize_row(const struct op_quantize *a, size_t m)
{
    const size_t spans = (size_t)a->out.spans, width = 2 * PACKED_SPAN;
    const struct rows8 out = rows8_from(&a->out, m);
    vec most[4], wrong[4];
    float padded[2 * PACKED_SPAN];
    UNROLL
    for (int i = 0; i < 4; i++)
        most[i] = wrong[i] = vec_zero();
    for (size_t s = 0; s < spans; s += 2) {
        const float *x = quantize_from(a, m, s * PACKED_SPAN, width, padded);
        UNROLL
        for (int i = 0; i < 4; i++)
            quantum_see(x + i * PACKED_SPAN / 2, PACKED_SPAN / 2, &most[i], &wrong[i]);
    }
    const struct quantum u =
        quantum_of(vec_max(vec_max(most[0], most[1]), vec_max(most[2], most[3])),
                   (wrong[0] + wrong[1]) + (wrong[2] + wrong[3]));
    for (size_t s = 0; s < spans; s += 2) {
        const float *x = quantize_from(a, m, s * PACKED_SPAN, width, padded);
        out.scale[s] = out.scale[s + 1] = u.scale;
        UNROLL
        for (int i = 0; i < 2 * PACKED_SPAN; i += LANES)
            bytes_store(out.q + s * PACKED_SPAN + i, vec_round(vec_load(x + i) * vec_set1(u.by)));
    }
    sum_bytes(out.q, (int)spans, out.sum);
}

void BODY(quantize)(const struct op_quantize *a, int part, int parts)
{
    const size_t each = a->out.paired ? 2 : 1, width = each * PACKED_SPAN;
    const size_t runs = a->out.whole ? 1 : (size_t)a->out.spans / each;
    size_t begin, end;
    assert((size_t)a->out.spans % each == 0 && (a->out.paired || !a->out.whole));
    team_split((size_t)a->tokens * runs, 1, part, parts, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t m = i / runs, k = i % runs * width, span = i % runs * each;
        const struct rows8 out = rows8_from(&a->out, m);
        float padded[2 * PACKED_SPAN];
        if (a->out.whole)
            quantize_row(a, m);
        else
            (each == 2 ? quantize_two : quantize_one)(quantize_from(a, m, k, width, padded),
                                                      out.q + k, out.scale + span,
                                                      out.sum + 2 * span);
    }
}

#if defined(BODY_ROUNDS) || defined(BODY_TILES)
void BODY(round)(const struct op_round *a, int part, int parts)
{
    const size_t dim = (size_t)a->dim;
    size_t at, end, n;
    team_split((size_t)a->tokens * dim, 64, part, parts, &at, &end);
    for (; at < end; at += n) {
        const size_t m = at / dim, col = at % dim;
        const float *x = a->x + (a->row ? (size_t)a->row[m] : m) * dim + col;
        n = dim - col < end - at ? dim - col : end - at;
        vec_round_run(a->out + m * rows16_stride(a->dim) + col, x, n);
        /* The last span of a row is whole. */
        if (col + n == dim && dim % PACKED_SPAN != 0)
            memset(a->out + m * rows16_stride(a->dim) + dim, 0,
                   (PACKED_SPAN - dim % PACKED_SPAN) * sizeof *a->out);
    }
}
#endif

#endif
