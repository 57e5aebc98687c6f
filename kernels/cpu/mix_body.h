/* Tiles of weighted sums: out[i] = out[i] * fade[i] + sum_j weight[i][j] * v[j], the second half of
 * attention.
 *
 * Every element adds its positions in ascending order into one accumulator; a tile only decides
 * which elements run side by side. */
#ifndef KERNELS_CPU_MIX_BODY_H
#define KERNELS_CPU_MIX_BODY_H

#include "kernels/cpu/cpu.h"

/* Consecutive positions of one block. */
struct kv_run {
    const char *key, *value;
    int count;
};

struct mix_args {
    float *acc; /* [rows], acc_stride apart */
    size_t acc_stride;
    const float *weight; /* [rows][OPS_KV_SPAN] */
    const float *fade;   /* [rows] */
    const struct kv_run *runs;
    size_t v_stride;
    int count; /* positions */
};

/* Elements [d, d + vecs * LANES), or the `tail` elements from d on when tail > 0 (vecs is 1). rows,
 * vecs, t are constants where this is inlined. */
INLINE void mix_tile(const struct mix_args *a, size_t d, enum dtype t, int rows, int vecs, int tail)
{
    vec sum[MIX_ROWS * MIX_VECS], v[MIX_VECS];
    size_t bytes = t == DTYPE_F32 ? 4 : 2;
    float *acc = a->acc + d;
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        sum[i] = vec_load(acc + (size_t)(i / vecs) * a->acc_stride + i % vecs * LANES) *
                 vec_set1(a->fade[i / vecs]);
    for (int j = 0, r = 0; j < a->count; r++) {
        const char *value = a->runs[r].value + d * bytes;
        int end = j + a->runs[r].count < a->count ? j + a->runs[r].count : a->count;
        for (; j < end; j++, value += a->v_stride * bytes) {
            UNROLL
            for (int e = 0; e < vecs; e++)
                v[e] = tail ? vec_load_as_n(value, t, 0, tail)
                            : vec_load_as(value, t, (size_t)e * LANES);
            UNROLL
            for (int i = 0; i < rows; i++) {
                vec w = vec_set1(a->weight[i * OPS_KV_SPAN + j]);
                UNROLL
                for (int e = 0; e < vecs; e++)
                    sum[i * vecs + e] = vec_fma(w, v[e], sum[i * vecs + e]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        vec_store(acc + (size_t)(i / vecs) * a->acc_stride + i % vecs * LANES, sum[i]);
}

/* acc rows have room for a whole number of vectors. */
#define MIX_CASE(name, t, rows)                                                                    \
    static __attribute__((noinline)) void name(const struct mix_args *a, size_t dim)               \
    {                                                                                              \
        size_t d = 0;                                                                              \
        for (; d + MIX_VECS * LANES <= dim; d += MIX_VECS * LANES)                                 \
            mix_tile(a, d, t, rows, MIX_VECS, 0);                                                  \
        for (; d + LANES <= dim; d += LANES)                                                       \
            mix_tile(a, d, t, rows, 1, 0);                                                         \
        if (d < dim)                                                                               \
            mix_tile(a, d, t, rows, 1, (int)(dim - d));                                            \
    }

MIX_CASE(mix_f32_one, DTYPE_F32, 1)
MIX_CASE(mix_f32_rows, DTYPE_F32, MIX_ROWS)
MIX_CASE(mix_bf16_one, DTYPE_BF16, 1)
MIX_CASE(mix_bf16_rows, DTYPE_BF16, MIX_ROWS)
MIX_CASE(mix_f16_one, DTYPE_F16, 1)
MIX_CASE(mix_f16_rows, DTYPE_F16, MIX_ROWS)

typedef void mix_fn(const struct mix_args *a, size_t dim);

static mix_fn *const mix_fns[DTYPE_COUNT][2] = {
    [DTYPE_F32] = {mix_f32_one, mix_f32_rows},
    [DTYPE_BF16] = {mix_bf16_one, mix_bf16_rows},
    [DTYPE_F16] = {mix_f16_one, mix_f16_rows},
};

#endif
