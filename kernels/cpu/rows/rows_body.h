/* The small ops, compiled once per instruction set (see cpu.h), and the body's table. It is code,
 * and over 150 lines because of that. */
#ifndef KERNELS_CPU_ROWS_ROWS_BODY_H
#define KERNELS_CPU_ROWS_ROWS_BODY_H

#include <assert.h>
#include <math.h>

#include "base/team.h"
#include "kernels/cpu/rows/units_body.h"

static void rows_read_fp8(const struct matrix *t, size_t row, float *out)
{
    const float *scale = fp8_scales(t->fp8, row);
    for (size_t k = 0; k < (size_t)t->cols; k++)
        out[k] = scale[k / (size_t)t->fp8->col_block] * fp8_to_f32(matrix_fp8_at(t, row, k));
}

static void rows_embed(const struct op_embed *a, int part, int parts)
{
    size_t begin, end, cols = (size_t)a->table->cols;
    team_split((size_t)a->tokens, 1, part, parts, &begin, &end);
    for (size_t m = begin; m < end; m++) {
        const struct matrix *t = a->table;
        float *out = a->out + m * cols;
        if (t->packed)
            packed_read_row(t->packed, (size_t)a->ids[m], out);
        else if (t->fp8)
            rows_read_fp8(t, (size_t)a->ids[m], out);
        else if (t->panels)
            panels_read_row(t->data, t->cols, (size_t)a->ids[m], out);
        else
            dtype_convert(out, DTYPE_F32,
                          (const char *)t->data + (size_t)a->ids[m] * cols * dtype_bytes(t->dtype),
                          t->dtype, cols);
        if (a->scale != 0 && a->scale != 1)
            for (size_t i = 0; i < cols; i++)
                out[i] *= a->scale;
    }
}

/* n elements of the run from i on; all LANES where n is 0. */
INLINE void rms_put(const struct op_rmsnorm *a, const float *x, float *out, size_t i, int n,
                    vec scale)
{
    const char *weight = a->weight->data;
    enum dtype t = a->weight->dtype;
    vec offset = vec_set1(a->offset);
    if (n == 0) {
        vec y = vec_load(x + i) * scale * (vec_load_as(weight, t, i) + offset);
        if (a->scale != 0)
            y = y * vec_set1(a->scale);
        if (a->accumulate)
            y = y + vec_load(out + i);
        vec_store(out + i, y);
    } else {
        vec y = vec_load_n(x + i, n) * scale * (vec_load_as_n(weight, t, i, n) + offset);
        if (a->scale != 0)
            y = y * vec_set1(a->scale);
        if (a->accumulate)
            y = y + vec_load_n(out + i, n);
        vec_store_n(out + i, y, n);
    }
}

static void rms_run(const struct op_rmsnorm *a, const float *x, float *out)
{
    size_t dim = (size_t)a->dim, whole = dim - dim % LANES;
    int tail = (int)(dim % LANES);
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
        rms_put(a, x, out, i, 0, scale);
    if (tail)
        rms_put(a, x, out, whole, tail, scale);
}

static void rows_rmsnorm(const struct op_rmsnorm *a, int part, int parts)
{
    size_t begin, end, dim = (size_t)a->dim, groups = (size_t)(a->groups ? a->groups : 1);
    size_t x_stride = a->x_stride ? (size_t)a->x_stride : groups * dim;
    size_t out_stride = a->out_stride ? (size_t)a->out_stride : groups * dim;
    team_split((size_t)a->tokens * groups, 1, part, parts, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t m = item / groups, g = item % groups;
        rms_run(a, a->x + m * x_stride + g * dim, a->out + m * out_stride + g * dim);
    }
}

/* Dynamic NTK scaling: the base grows with the context. */
static double rope_dynamic_theta(const struct op_rope *a, int32_t position)
{
    double dim = a->head_dim, factor = a->dynamic_factor;
    double grown = factor * (position + 1) / a->dynamic_from - (factor - 1);
    return a->dynamic_theta * pow(grown, dim / (dim - 2));
}

/* The angle is rounded to fp32, as the models were trained with; its sine and cosine are then taken
 * in double, the same on every body. */
static void rope_angles(const struct op_rope *a, size_t m, float *c, float *s)
{
    int32_t position = a->positions[m];
    bool is_long = a->is_long && a->is_long[a->seq_of[m]];
    bool dynamic = a->dynamic_from > 0 && position >= a->dynamic_from;
    const float *inv_freq = is_long ? a->long_inv_freq : a->inv_freq;
    double theta = dynamic ? rope_dynamic_theta(a, position) : 0;
    for (int32_t i = 0; i < a->head_dim / 2; i++) {
        float f = dynamic ? (float)(1 / pow(theta, 2.0 * i / a->head_dim)) : inv_freq[i];
        float angle = (float)position * f;
        c[i] = (float)cos((double)angle) * a->attention_factor;
        s[i] = (float)sin((double)angle) * a->attention_factor;
    }
}

/* The token's cosines and sines, head_dim / 2 of each: where they are kept or in `own`. Who has the
 * token's first head keeps them. */
static const float *rope_angles_of(const struct op_rope *a, size_t m, bool first, float *own)
{
    const size_t dim = (size_t)a->head_dim;
    if (a->angles && a->angled)
        return a->angles + m * dim;
    rope_angles(a, m, own, own + dim / 2);
    if (a->angles && first)
        memcpy(a->angles + m * dim, own, dim * sizeof *own);
    return own;
}

static void rope_pairs(const float *c, const float *s, float *x, int32_t half, int interleaved)
{
    int32_t step = interleaved ? 2 : 1;
    float *y = interleaved ? x + 1 : x + half;
    for (int32_t i = 0; i < half; i++) {
        float u = x[i * step], v = y[i * step];
        x[i * step] = u * c[i] - v * s[i];
        y[i * step] = v * c[i] + u * s[i];
    }
}

static void rows_rope(const struct op_rope *a, int part, int parts)
{
    float own[OPS_HEAD_DIM_MAX];
    const float *angles = own;
    size_t begin, end, heads = (size_t)a->heads, ready = SIZE_MAX;
    size_t head_stride = (size_t)(a->head_stride ? a->head_stride : a->head_dim);
    size_t stride = a->x_stride ? (size_t)a->x_stride : heads * head_stride;
    assert(a->head_dim <= OPS_HEAD_DIM_MAX);
    team_split((size_t)a->tokens * heads, 1, part, parts, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t m = item / heads;
        if (m != ready)
            angles = rope_angles_of(a, m, item % heads == 0, own);
        ready = m;
        rope_pairs(angles, angles + a->head_dim / 2, a->x + m * stride + item % heads * head_stride,
                   a->head_dim / 2, a->interleaved);
    }
}

INLINE void kv_put(void *at, enum dtype type, const float *x, size_t n)
{
#if defined(VEC_STORES_BF16)
    if (type == DTYPE_BF16) {
        vec_round_run(at, x, n);
        return;
    }
#endif
    kv_vector_narrow(at, type, x, n);
}

static void rows_kv_store(const struct op_kv_store *a, int part, int parts)
{
    const struct kv_layout *l = a->layout;
    const struct op_rows *rows = a->rows;
    size_t begin, end, heads = (size_t)l->kv_heads;
    team_split((size_t)rows->tokens * heads, 1, part, parts, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t r = item / heads, h = item % heads;
        int32_t position = rows->positions[r];
        int32_t block = rows->block_tables[rows->seq_of[r]][position / l->block_tokens];
        for (enum kv_part p = KV_KEY; p <= KV_VALUE; p++) {
            size_t dim = (size_t)kv_part_dim(l, p);
            size_t stride = a->kv_stride ? (size_t)a->kv_stride : heads * dim;
            if (dim > 0)
                kv_put((char *)a->pool +
                           kv_offset(l, a->layer, block, p, (int)h, position % l->block_tokens),
                       l->dtype, (p == KV_KEY ? a->k : a->v) + r * stride + h * dim, dim);
        }
    }
}

const struct ops BODY(cpu_ops) = {
    .name = BODY_NAME,
    .embed = rows_embed,
    .rmsnorm = rows_rmsnorm,
    .quantize = BODY(quantize),
#if defined(BODY_ROUNDS) || defined(BODY_TILES)
    .round = BODY(round),
    .panels = true,
    .gates = true,
#endif
#if defined(BODY_TILES)
    .tiles = true,
    .block_rows = TILES_BLOCK_ROWS,
#endif
    .gemm = BODY(gemm),
    .rope = rows_rope,
    .kv_store = rows_kv_store,
    .attention = BODY(attention),
    .glu = rows_glu,
    .softcap = rows_softcap,
    .route = cpu_route,
    .combine = rows_combine,
};

#endif
