#include "kernels/ref/ref.h"

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
    at += (row * (size_t)m->cols + col) * dtype_bytes(m->dtype);
    dtype_convert(&v, DTYPE_F32, at, m->dtype, 1);
    return v;
}

void ref_embed(const struct op_embed *a, int part, int parts)
{
    int32_t begin, end;
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        for (int32_t i = 0; i < a->table->cols; i++)
            a->out[(size_t)m * (size_t)a->table->cols + (size_t)i] =
                ref_element(a->table, (size_t)a->ids[m], (size_t)i);
}

void ref_rmsnorm(const struct op_rmsnorm *a, int part, int parts)
{
    int32_t begin, end;
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++) {
        const float *x = a->x + (size_t)m * (size_t)a->dim;
        float *out = a->out + (size_t)m * (size_t)a->dim;
        double squares = 0;
        for (int32_t i = 0; i < a->dim; i++)
            squares += (double)x[i] * (double)x[i];
        double scale = 1 / sqrt(squares / a->dim + (double)a->eps);
        for (int32_t i = 0; i < a->dim; i++)
            out[i] = (float)((double)x[i] * scale * (double)ref_element(a->weight, 0, (size_t)i));
    }
}

void ref_rope(const struct op_rope *a, int part, int parts)
{
    int32_t begin, end, half = a->head_dim / 2;
    size_t stride = ref_stride(a->x_stride, a->heads * a->head_dim);
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        for (int32_t h = 0; h < a->heads; h++) {
            float *x = a->x + (size_t)m * stride + (size_t)h * (size_t)a->head_dim;
            for (int32_t i = 0; i < half; i++) {
                /* The angle is rounded to fp32, as the models were trained with. */
                float angle = (float)a->positions[m] * a->inv_freq[i];
                float c = (float)cos((double)angle) * a->attention_factor;
                float s = (float)sin((double)angle) * a->attention_factor;
                float lo = x[i], hi = x[i + half];
                x[i] = lo * c - hi * s;
                x[i + half] = hi * c + lo * s;
            }
        }
}

void ref_kv_store(const struct op_kv_store *a, int part, int parts)
{
    const struct kv_layout *l = a->layout;
    size_t stride = ref_stride(a->kv_stride, l->kv_heads * l->head_dim);
    int32_t begin, end;
    ref_split(a->rows->tokens, part, parts, &begin, &end);
    for (int32_t r = begin; r < end; r++) {
        int32_t position = a->rows->positions[r];
        int32_t block = a->rows->block_tables[a->rows->seq_of[r]][position / l->block_tokens];
        int slot = position % l->block_tokens;
        for (int32_t h = 0; h < l->kv_heads; h++) {
            size_t from = (size_t)r * stride + (size_t)h * (size_t)l->head_dim;
            char *pool = a->pool;
            dtype_convert(pool + kv_offset(l, a->layer, block, KV_KEY, h, slot), l->dtype,
                          a->k + from, DTYPE_F32, (size_t)l->head_dim);
            dtype_convert(pool + kv_offset(l, a->layer, block, KV_VALUE, h, slot), l->dtype,
                          a->v + from, DTYPE_F32, (size_t)l->head_dim);
        }
    }
}

void ref_silu_mul(const struct op_silu_mul *a, int part, int parts)
{
    int32_t begin, end;
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        for (int32_t i = 0; i < a->dim; i++) {
            size_t in = (size_t)m * ref_stride(a->in_stride, a->dim) + (size_t)i;
            double gate = (double)a->gate[in];
            a->out[(size_t)m * (size_t)a->dim + (size_t)i] =
                (float)(gate / (1 + exp(-gate)) * (double)a->up[in]);
        }
}
