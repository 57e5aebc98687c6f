#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>

/* Element i of the vector at `at`, of a key or a value. */
static double element(const struct op_attention *a, size_t at, enum kv_part part, int i)
{
    const char *pool = a->pool;
    const size_t dim = (size_t)kv_part_dim(a->layout, part);
    return (double)ref_kv_element(pool + at, a->layout->dtype, dim, (size_t)i);
}

static size_t at_position(const struct op_attention *a, int32_t row, int32_t position,
                          enum kv_part part, int kv_head)
{
    const struct kv_layout *l = a->layout;
    const int32_t *blocks = a->rows->block_tables[a->rows->seq_of[row]];
    return kv_offset(l, a->layer, blocks[position / l->block_tokens], part, kv_head,
                     position % l->block_tokens);
}

static double score(const struct op_attention *a, int32_t row, int head, int32_t position)
{
    int kv_head = head / (a->heads / a->layout->kv_heads), dim = a->layout->head_dim;
    const float *q =
        a->q + (size_t)row * ref_stride(a->q_stride, a->heads * dim) + (size_t)head * (size_t)dim;
    size_t key = at_position(a, row, position, KV_KEY, kv_head);
    double sum = 0, cap = (double)a->softcap;
    for (int i = 0; i < dim; i++)
        sum += (double)q[i] * element(a, key, KV_KEY, i);
    sum *= (double)a->scale;
    return cap > 0 ? cap * tanh(sum / cap) : sum;
}

/* softmax over the window that ends at the row's own position, in two passes. */
static void attend(const struct op_attention *a, int32_t row, int head)
{
    const struct kv_layout *l = a->layout;
    int kv_head = head / (a->heads / l->kv_heads), dim = a->out_dim ? a->out_dim : l->value_dim;
    int32_t own = a->rows->positions[row];
    int32_t from = a->window > 0 && own >= a->window ? own + 1 - a->window : 0;
    float *out = a->out + ((size_t)row * (size_t)a->heads + (size_t)head) * (size_t)dim;
    double acc[OPS_HEAD_DIM_MAX] = {0}, max = -INFINITY, total = 0;

    if (a->sinks)
        max = (double)a->sinks[head];
    for (int32_t p = from; p <= own; p++)
        max = fmax(max, score(a, row, head, p));
    if (a->sinks)
        total = exp((double)a->sinks[head] - max);
    for (int32_t p = from; p <= own; p++) {
        double weight = exp(score(a, row, head, p) - max);
        enum kv_part part = l->value_dim ? KV_VALUE : KV_KEY;
        size_t value = at_position(a, row, p, part, kv_head);
        total += weight;
        for (int i = 0; i < dim; i++)
            acc[i] += weight * element(a, value, part, i);
    }
    for (int i = 0; i < dim; i++)
        out[i] = (float)(acc[i] / total);
}

void ref_attention(const struct op_attention *a, int part, int parts)
{
    int32_t begin, end;
    assert(a->layout->head_dim <= OPS_HEAD_DIM_MAX);
    ref_split(a->rows->tokens, part, parts, &begin, &end);
    for (int32_t row = begin; row < end; row++)
        for (int32_t head = 0; head < a->heads; head++)
            attend(a, row, head);
}
