/* The small ops, compiled once per instruction set (see cpu.h), and the body's table. */
#ifndef KERNELS_CPU_ROWS_BODY_H
#define KERNELS_CPU_ROWS_BODY_H

#include <assert.h>
#include <math.h>

#include "base/team.h"

static void rows_embed(const struct op_embed *a, int part, int parts)
{
    size_t begin, end, cols = (size_t)a->table->cols;
    team_split((size_t)a->tokens, 1, part, parts, &begin, &end);
    for (size_t m = begin; m < end; m++)
        dtype_convert(a->out + m * cols, DTYPE_F32,
                      (const char *)a->table->data +
                          (size_t)a->ids[m] * cols * dtype_bytes(a->table->dtype),
                      a->table->dtype, cols);
}

static void rms_row(const struct op_rmsnorm *a, const float *x, float *out)
{
    size_t dim = (size_t)a->dim, whole = dim - dim % LANES;
    int tail = (int)(dim % LANES);
    const char *weight = a->weight->data;
    enum dtype t = a->weight->dtype;
    vec sum = vec_zero();
    for (size_t i = 0; i < whole; i += LANES) {
        vec v = vec_load(x + i);
        sum = vec_fma(v, v, sum);
    }
    if (tail) {
        vec v = vec_load_n(x + whole, tail);
        sum = vec_fma(v, v, sum);
    }
    vec scale = vec_set1(1.0f / sqrtf(vec_reduce_add(sum) / (float)a->dim + a->eps));
    for (size_t i = 0; i < whole; i += LANES)
        vec_store(out + i, vec_load(x + i) * scale * vec_load_as(weight, t, i));
    if (tail)
        vec_store_n(out + whole,
                    vec_load_n(x + whole, tail) * scale * vec_load_as_n(weight, t, whole, tail),
                    tail);
}

static void rows_rmsnorm(const struct op_rmsnorm *a, int part, int parts)
{
    size_t begin, end;
    team_split((size_t)a->tokens, 1, part, parts, &begin, &end);
    for (size_t m = begin; m < end; m++)
        rms_row(a, a->x + m * (size_t)a->dim, a->out + m * (size_t)a->dim);
}

/* The angle is rounded to fp32, as the models were trained with; its sine and cosine are then taken
 * in double, the same on every body. */
static void rope_angles(const struct op_rope *a, int32_t position, float *c, float *s)
{
    for (int32_t i = 0; i < a->head_dim / 2; i++) {
        float angle = (float)position * a->inv_freq[i];
        c[i] = (float)cos((double)angle) * a->attention_factor;
        s[i] = (float)sin((double)angle) * a->attention_factor;
    }
}

static void rows_rope(const struct op_rope *a, int part, int parts)
{
    float c[OPS_HEAD_DIM_MAX / 2], s[OPS_HEAD_DIM_MAX / 2];
    size_t begin, end, heads = (size_t)a->heads, ready = SIZE_MAX;
    size_t stride = (size_t)(a->x_stride ? a->x_stride : a->heads * a->head_dim);
    int32_t half = a->head_dim / 2;
    assert(a->head_dim <= OPS_HEAD_DIM_MAX);
    team_split((size_t)a->tokens * heads, 1, part, parts, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t m = item / heads;
        float *lo = a->x + m * stride + item % heads * (size_t)a->head_dim, *hi = lo + half;
        if (m != ready)
            rope_angles(a, a->positions[m], c, s);
        ready = m;
        for (int32_t i = 0; i < half; i++) {
            float x = lo[i], y = hi[i];
            lo[i] = x * c[i] - y * s[i];
            hi[i] = y * c[i] + x * s[i];
        }
    }
}

static void rows_kv_store(const struct op_kv_store *a, int part, int parts)
{
    const struct kv_layout *l = a->layout;
    const struct op_rows *rows = a->rows;
    size_t begin, end, heads = (size_t)l->kv_heads, dim = (size_t)l->head_dim;
    size_t stride = (size_t)(a->kv_stride ? a->kv_stride : l->kv_heads * l->head_dim);
    team_split((size_t)rows->tokens * heads, 1, part, parts, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t r = item / heads, h = item % heads, from = r * stride + h * dim;
        int32_t position = rows->positions[r];
        int32_t block = rows->block_tables[rows->seq_of[r]][position / l->block_tokens];
        int slot = position % l->block_tokens;
        char *pool = a->pool;
        dtype_convert(pool + kv_offset(l, a->layer, block, KV_KEY, (int)h, slot), l->dtype,
                      a->k + from, DTYPE_F32, dim);
        dtype_convert(pool + kv_offset(l, a->layer, block, KV_VALUE, (int)h, slot), l->dtype,
                      a->v + from, DTYPE_F32, dim);
    }
}

INLINE vec silu_mul_vec(vec gate, vec up)
{
    vec one = vec_set1(1.0f);
    return gate / (one + vec_exp(vec_zero() - gate)) * up;
}

static void rows_silu_mul(const struct op_silu_mul *a, int part, int parts)
{
    size_t stride = (size_t)(a->in_stride ? a->in_stride : a->dim);
    size_t m_begin = 0, m_end = (size_t)a->tokens, begin = 0, end = (size_t)a->dim, i;
    if (a->tokens >= parts)
        team_split(m_end, 1, part, parts, &m_begin, &m_end);
    else
        team_split(end, 64, part, parts, &begin, &end);
    for (size_t m = m_begin; m < m_end; m++) {
        const float *gate = a->gate + m * stride, *up = a->up + m * stride;
        float *out = a->out + m * (size_t)a->dim;
        for (i = begin; i + LANES <= end; i += LANES)
            vec_store(out + i, silu_mul_vec(vec_load(gate + i), vec_load(up + i)));
        if (i < end) {
            int tail = (int)(end - i);
            vec_store_n(out + i, silu_mul_vec(vec_load_n(gate + i, tail), vec_load_n(up + i, tail)),
                        tail);
        }
    }
}

const struct ops BODY(cpu_ops) = {
    .name = BODY_NAME,
    .embed = rows_embed,
    .rmsnorm = rows_rmsnorm,
    .gemm = BODY(gemm),
    .rope = rows_rope,
    .kv_store = rows_kv_store,
    .attention = BODY(attention),
    .silu_mul = rows_silu_mul,
};

#endif
