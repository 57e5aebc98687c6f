/* Rows of floats to rows of small integers, compiled once per instruction set (see cpu.h). */
#ifndef KERNELS_CPU_GEMM_QUANTIZE_BODY_H
#define KERNELS_CPU_GEMM_QUANTIZE_BODY_H

#include <assert.h>

#include "base/team.h"

/* Sums of the halves of a span that is no number, whose bytes are what rounding leaves of that. */
static void sum_bytes(const int8_t *q, int spans, int32_t *sum)
{
    memset(sum, 0, (size_t)(2 * spans) * sizeof *sum);
    for (int i = 0; i < spans * PACKED_SPAN; i++)
        sum[i / (PACKED_SPAN / 2)] += q[i];
}

/* One span, or two with one scale; `spans` is constant where this is inlined. */
INLINE void quantize_floats(const float *x, int8_t *q, int spans, float *scale, int32_t *sum)
{
    vec most = vec_zero(), wrong = vec_zero();
    vec halves[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    float sums[4];
    UNROLL
    for (int i = 0; i < spans * PACKED_SPAN; i += LANES) {
        vec v = vec_load(x + i);
        most = vec_max(vec_max(v, vec_zero() - v), most);
        wrong = vec_fma(v, vec_zero(), wrong); /* NaN where v is none, or infinite */
    }
    float max = vec_reduce_max(most), none = vec_reduce_add(wrong);
    for (int s = 0; s < spans; s++)
        scale[s] = (max < QUANTIZE_LEAST ? 0 : max / 127.0f) + none;
    vec by = vec_set1(max < QUANTIZE_LEAST || none != 0 ? 0 : 127.0f / max);
    UNROLL
    for (int i = 0; i < spans * PACKED_SPAN; i += LANES) {
        ivec n = vec_round(vec_load(x + i) * by);
        const int half = i / (PACKED_SPAN / 2);
        bytes_store(q + i, n);
        halves[half] = halves[half] + vec_of_int(n);
    }
    if (none != 0) {
        sum_bytes(q, spans, sum);
        return;
    }
    vec_reduce_add4(sums, halves); /* exact: integers below 2^24 */
    for (int s = 0; s < 2 * spans; s++)
        sum[s] = (int32_t)sums[s];
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

void BODY(quantize)(const struct op_quantize *a, int part, int parts)
{
    const size_t each = a->out.paired ? 2 : 1, width = each * PACKED_SPAN;
    const size_t spans = (size_t)a->out.spans / each, dim = (size_t)a->dim;
    const size_t stride = (size_t)(a->x_stride ? a->x_stride : a->dim);
    size_t begin, end;
    assert((size_t)a->out.spans % each == 0);
    team_split((size_t)a->tokens * spans, 1, part, parts, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        size_t k = i % spans * width, n = dim - k < width ? dim - k : width;
        const size_t m = i / spans;
        const float *x = a->x + (a->row ? (size_t)a->row[m] : m) * stride;
        float padded[2 * PACKED_SPAN] = {0};
        if (a->order) {
            for (size_t c = 0; c < n; c++)
                padded[c] = x[a->order[k + c]];
            x = padded;
        } else if (n < width) {
            x = memcpy(padded, x + k, n * sizeof *x);
        } else {
            x += k;
        }
        (each == 2 ? quantize_two : quantize_one)(x, a->out.q + i * width, a->out.scale + i * each,
                                                  a->out.sum + 2 * i * each);
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
