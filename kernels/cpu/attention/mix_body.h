/* Tiles of weighted sums: out[i] = out[i] * fade[i] + sum_j weight[i][j] * v[j], the second half of
 * attention.
 *
 * Every element adds its positions in ascending order into one accumulator; a tile only decides
 * which elements run side by side. */
#ifndef KERNELS_CPU_ATTENTION_MIX_BODY_H
#define KERNELS_CPU_ATTENTION_MIX_BODY_H

#include "kernels/cpu/attention/score_body.h"

struct mix_args {
    float *acc; /* [rows], acc_stride apart, with room for whole vectors */
    size_t acc_stride;
    const float *weight; /* [rows][OPS_KV_SPAN]; rounded: bf16, in the first half */
    const float *fade;   /* [rows] */
    struct span_rows v;  /* `ahead`: fetched on the way */
    int range[2];        /* positions */
};

/* Elements [d, d + vecs * LANES), or the `tail` elements from d on when tail > 0 (vecs is the least
 * there is: of bf16 two, the even elements and the odd ones). rows, vecs, t are constants where
 * this is inlined. */
INLINE void mix_tile(const struct mix_args *a, size_t d, enum dtype t, int rows, int vecs, int tail)
{
    vec sum[MIX_ROWS * MIX_VECS], v[MIX_VECS];
    const size_t ahead = rows_bytes(t, (size_t)(vecs * LANES));
    const size_t offset = a->v.offset + rows_bytes(t, d);
    const bool near = kv_is_quantized(t) && a->v.near;
    const int least = score_width(t) / LANES;
    const int ask_from = a->v.ahead ? a->v.asked : a->range[1];
    float *acc = a->acc + d;
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        sum[i] = vec_load(acc + (size_t)(i / vecs) * a->acc_stride + i % vecs * LANES) *
                 vec_set1(a->fade[i / vecs]);
    for (int j = a->range[0]; j < a->range[1]; j++) {
        const char *value = a->v.row[j] + offset;
        if (j >= ask_from)
            rows_ask(a->v.ahead[j] + offset, ahead, near);
        UNROLL
        for (int e = 0; e < vecs; e += least) {
            const size_t at = (size_t)e * LANES;
            if (t == DTYPE_BF16) {
                const vec pairs =
                    vec_load_pairs(value + rows_bytes(t, at), tail ? tail : 2 * LANES);
                v[e] = vec_even_of(pairs);
                v[e + 1] = vec_odd_of(pairs);
            } else {
                v[e] = kv_is_quantized(t) ? rows_widen(&a->v, j, t, d + at)
                       : tail             ? vec_load_as_n(value, t, 0, tail)
                                          : vec_load_as(value, t, at);
            }
        }
        UNROLL
        for (int i = 0; i < rows; i++) {
            vec w = vec_set1(a->weight[i * OPS_KV_SPAN + j]);
            UNROLL
            for (int e = 0; e < vecs; e++)
                sum[i * vecs + e] = vec_fma(w, v[e], sum[i * vecs + e]);
        }
    }
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        vec_store(acc + (size_t)(i / vecs) * a->acc_stride + i % vecs * LANES, sum[i]);
}

#define MIX_CASE(name, t, rows)                                                                    \
    static __attribute__((noinline)) void name(const struct mix_args *a, size_t dim)               \
    {                                                                                              \
        const size_t least = (size_t)score_width(t);                                               \
        size_t d = 0;                                                                              \
        for (; d + MIX_VECS * LANES <= dim; d += MIX_VECS * LANES)                                 \
            mix_tile(a, d, t, rows, MIX_VECS, 0);                                                  \
        for (; d + least <= dim; d += least)                                                       \
            mix_tile(a, d, t, rows, (int)least / LANES, 0);                                        \
        if (d < dim)                                                                               \
            mix_tile(a, d, t, rows, (int)least / LANES, (int)(dim - d));                           \
    }

#define MIX_CASES(name, t)                                                                         \
    MIX_CASE(name##_one, t, 1)                                                                     \
    MIX_CASE(name##_two, t, 2)                                                                     \
    MIX_CASE(name##_all, t, MIX_ROWS)

MIX_CASES(mix_f32, DTYPE_F32)
MIX_CASES(mix_bf16, DTYPE_BF16)
MIX_CASES(mix_f16, DTYPE_F16)
MIX_CASES(mix_fp8, DTYPE_FP8)
MIX_CASES(mix_int8, DTYPE_INT8)
MIX_CASES(mix_int4, DTYPE_INT4)

typedef void mix_fn(const struct mix_args *a, size_t dim);

static mix_fn *const mix_fns[DTYPE_KV_COUNT][3] = {
    [DTYPE_F32] = {mix_f32_one, mix_f32_two, mix_f32_all},
    [DTYPE_BF16] = {mix_bf16_one, mix_bf16_two, mix_bf16_all},
    [DTYPE_F16] = {mix_f16_one, mix_f16_two, mix_f16_all},
    [DTYPE_FP8] = {mix_fp8_one, mix_fp8_two, mix_fp8_all},
    [DTYPE_INT8] = {mix_int8_one, mix_int8_two, mix_int8_all},
    [DTYPE_INT4] = {mix_int4_one, mix_int4_two, mix_int4_all},
};

#if defined(BODY_ROUNDS)
#include "kernels/cpu/attention/mix16_body.h"
#endif

#endif
