#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>

void ref_split(int32_t rows, int part, int parts, int32_t *begin, int32_t *end)
{
    *begin = (int32_t)((int64_t)rows * part / parts);
    *end = (int32_t)((int64_t)rows * (part + 1) / parts);
}

size_t ref_stride(int32_t stride, int32_t dense)
{
    return (size_t)(stride ? stride : dense);
}

float ref_element(const struct matrix *m, size_t row, size_t col)
{
    const char *at = m->data;
    float v;
    if (m->packed)
        return packed_element(m->packed, row, col);
    if (m->fp8)
        return fp8_scales(m->fp8, row)[col / (size_t)m->fp8->col_block] *
               fp8_to_f32(matrix_fp8_at(m, row, col));
    if (m->panels)
        return panels_element(m->data, m->cols, row, col);
    at += (row * (size_t)m->cols + col) * dtype_bytes(m->dtype);
    dtype_convert(&v, DTYPE_F32, at, m->dtype, 1);
    return v;
}

void ref_embed(const struct op_embed *a, int part, int parts)
{
    int32_t begin, end;
    float scale = a->scale == 0 ? 1 : a->scale;
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++) {
        float *out = a->out + (size_t)m * (size_t)a->table->cols;
        if (a->table->packed)
            packed_read_row(a->table->packed, (size_t)a->ids[m], out);
        for (int32_t i = 0; i < a->table->cols; i++)
            out[i] =
                (a->table->packed ? out[i] : ref_element(a->table, (size_t)a->ids[m], (size_t)i)) *
                scale;
    }
}

static void norm_run(const struct op_rmsnorm *a, const float *x, float *out)
{
    double squares = 0, factor = a->scale == 0 ? 1 : (double)a->scale;
    for (int32_t i = 0; i < a->dim; i++)
        squares += (double)x[i] * (double)x[i];
    double scale = 1 / sqrt(squares / a->dim + (double)a->eps);
    for (int32_t i = 0; i < a->dim; i++) {
        double weight = (double)ref_element(a->weight, 0, (size_t)i) + (double)a->offset;
        double y = (double)x[i] * scale * weight * factor;
        out[i] = (float)(a->accumulate ? y + (double)out[i] : y);
    }
}

void ref_rmsnorm(const struct op_rmsnorm *a, int part, int parts)
{
    int32_t begin, end, groups = a->groups ? a->groups : 1;
    size_t x_stride = ref_stride(a->x_stride, groups * a->dim);
    size_t out_stride = ref_stride(a->out_stride, groups * a->dim);
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        for (int32_t g = 0; g < groups; g++)
            norm_run(a, a->x + (size_t)m * x_stride + (size_t)g * (size_t)a->dim,
                     a->out + (size_t)m * out_stride + (size_t)g * (size_t)a->dim);
}

/* Dynamic NTK scaling: the base grows with the context. */
static float frequency(const struct op_rope *a, int32_t m, int32_t i)
{
    int32_t position = a->positions[m];
    if (a->dynamic_from == 0 || position < a->dynamic_from) {
        bool is_long = a->is_long && a->is_long[a->seq_of[m]];
        return is_long ? a->long_inv_freq[i] : a->inv_freq[i];
    }
    double dim = a->head_dim, context = position + 1, factor = a->dynamic_factor;
    double grown = factor * context / a->dynamic_from - (factor - 1);
    double theta = a->dynamic_theta * pow(grown, dim / (dim - 2));
    return (float)(1 / pow(theta, 2.0 * i / dim));
}

static void rotate(const struct op_rope *a, int32_t m, float *x)
{
    int32_t half = a->head_dim / 2;
    for (int32_t i = 0; i < half; i++) {
        /* The angle is rounded to fp32, as the models were trained with. */
        float angle = (float)a->positions[m] * frequency(a, m, i);
        float c = (float)cos((double)angle) * a->attention_factor;
        float s = (float)sin((double)angle) * a->attention_factor;
        float *lo = a->interleaved ? x + 2 * i : x + i;
        float *hi = a->interleaved ? lo + 1 : lo + half;
        float u = *lo, v = *hi;
        *lo = u * c - v * s;
        *hi = v * c + u * s;
    }
}

void ref_rope(const struct op_rope *a, int part, int parts)
{
    int32_t begin, end;
    size_t head_stride = ref_stride(a->head_stride, a->head_dim);
    size_t stride = ref_stride(a->x_stride, a->heads * (int32_t)head_stride);
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        for (int32_t h = 0; h < a->heads; h++)
            rotate(a, m, a->x + (size_t)m * stride + (size_t)h * head_stride);
}

static void store(const struct op_kv_store *a, int32_t r, int32_t h, enum kv_part part)
{
    const struct kv_layout *l = a->layout;
    size_t dim = (size_t)kv_part_dim(l, part);
    size_t stride = ref_stride(a->kv_stride, l->kv_heads * (int32_t)dim);
    int32_t position = a->rows->positions[r];
    int32_t block = a->rows->block_tables[a->rows->seq_of[r]][position / l->block_tokens];
    const float *from = (part == KV_KEY ? a->k : a->v) + (size_t)r * stride + (size_t)h * dim;
    char *pool = a->pool;
    ref_kv_narrow(pool + kv_offset(l, a->layer, block, part, h, position % l->block_tokens),
                  l->dtype, from, dim);
}

void ref_kv_store(const struct op_kv_store *a, int part, int parts)
{
    int32_t begin, end;
    ref_split(a->rows->tokens, part, parts, &begin, &end);
    for (int32_t r = begin; r < end; r++)
        for (int32_t h = 0; h < a->layout->kv_heads; h++) {
            store(a, r, h, KV_KEY);
            if (a->layout->value_dim > 0)
                store(a, r, h, KV_VALUE);
        }
}

static double glu(const struct op_glu *a, double gate, double up)
{
    double limit = (double)a->limit;
    switch (a->kind) {
    case GLU_SILU:
        return gate / (1 + exp(-gate)) * up;
    case GLU_GELU_TANH:
        return 0.5 * gate * (1 + tanh(sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate))) *
               up;
    case GLU_GELU:
        return 0.5 * gate * (1 + erf(gate / sqrt(2))) * up;
    default: /* comparisons that keep NaN */
        gate = gate > limit ? limit : gate;
        up = up > limit ? limit : up < -limit ? -limit : up;
        return gate / (1 + exp(-(double)a->alpha * gate)) * (up + 1);
    }
}

void ref_glu(const struct op_glu *a, int part, int parts)
{
    assert(!a->out16);
    int32_t begin, end;
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        for (int32_t i = 0; i < a->dim; i++) {
            size_t in = (size_t)m * ref_stride(a->in_stride, a->dim) + (size_t)i;
            a->out[(size_t)m * (size_t)a->dim + (size_t)i] =
                (float)glu(a, (double)a->gate[in], (double)a->up[in]);
        }
}

void ref_softcap(const struct op_softcap *a, int part, int parts)
{
    int64_t begin = a->n * part / parts, end = a->n * (part + 1) / parts;
    for (int64_t i = begin; i < end; i++)
        a->x[i] = (float)((double)a->cap * tanh((double)a->x[i] / (double)a->cap));
}

void ref_combine(const struct op_combine *a, int part, int parts)
{
    int32_t begin, end;
    double scale = a->scale == 0 ? 1 : (double)a->scale;
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        for (int32_t i = 0; i < a->dim; i++) {
            float *out = &a->out[(size_t)m * (size_t)a->dim + (size_t)i];
            double sum = 0;
            for (int32_t k = 0; k < a->k; k++) {
                size_t at = (size_t)m * (size_t)a->k + (size_t)k;
                size_t row = a->row ? (size_t)a->row[at] : at;
                double w = (double)a->weight[at];
                w = a->sigmoid ? 1 / (1 + exp(-w)) : w;
                sum += w * (double)a->y[row * (size_t)a->dim + (size_t)i];
            }
            sum += a->bias ? (double)a->bias[i] : 0;
            *out = (float)(sum * scale + (a->accumulate ? (double)*out : 0));
        }
}
