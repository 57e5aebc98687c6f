/* Attention, compiled once per instruction set (see cpu.h).
 *
 * Work goes in tiles: a few adjacent rows of one sequence and the query heads that share one kv
 * head, so that keys and values are read once for all of them. For each span of OPS_KV_SPAN
 * absolute positions a tile computes its scores, and each (row, head) then merges the span into its
 * own running maximum, sum and accumulator. A (row, head) sees only positions up to its own and
 * adds them in one order, so neither the tile, the chunk, the blocks nor the threads show in its
 * bits. It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_ATTENTION_BODY_H
#define KERNELS_CPU_ATTENTION_BODY_H

#include <assert.h>
#include <math.h>

#include "kernels/cpu/span_body.h"

/* How the body multiplies by what is stored. */
INLINE enum score_form attention_form(const struct op_attention *a)
{
#if defined(BODY_ROUNDS)
    if (a->rounds && a->layout->dtype == DTYPE_BF16)
        return SCORE_ROUNDED;
#endif
#if defined(BODY_PAIRS)
    if (a->layout->dtype == DTYPE_BF16)
        return SCORE_PAIRS;
#endif
    (void)a;
    return SCORE_FLOATS;
}

/* Where element d of a value is in its accumulator. */
INLINE size_t attention_place(const struct attention_state *s, size_t d)
{
#if defined(BODY_ROUNDS)
    if (s->form == SCORE_ROUNDED)
        return mix16_place(d);
#endif
    (void)s;
    return d;
}

/* Writes a pair's result; a sink takes its share of the weights and adds nothing. */
static void attention_finish(const struct attention_tile *t, const struct attention_state *s, int i)
{
    const struct op_attention *a = t->op;
    const float *acc = s->acc + (size_t)i * s->acc_stride;
    size_t row = (size_t)(t->row + i / t->heads), head = (size_t)(t->head + i % t->heads);
    float *out = a->out + (row * (size_t)a->heads + head) * s->out_dim;
    float sum = s->sum[i], fade = 1;
    if (a->sinks) {
        float sink = a->sinks[head], max = sink > s->max[i] ? sink : s->max[i];
        fade = expf(s->max[i] - max);
        sum = sum * fade + expf(sink - max);
    }
    for (size_t d = 0; d < s->out_dim; d++)
        out[d] = acc[attention_place(s, d)] * fade / sum;
}

/* The tile's queries, times scale, and an empty state of each. */
static void attention_begin(const struct attention_tile *t, struct attention_state *s)
{
    const struct op_attention *a = t->op;
    const size_t dim = (size_t)a->layout->head_dim, heads = (size_t)a->heads;
    const size_t q_stride = a->q_stride ? (size_t)a->q_stride : heads * dim;
    s->dim = dim;
    s->out_dim = (size_t)(a->out_dim ? a->out_dim : a->layout->value_dim);
    s->acc_stride = (s->out_dim + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
    s->dtype = a->layout->dtype;
    s->stored[KV_KEY] = dim;
    s->stored[KV_VALUE] = a->layout->value_dim ? (size_t)a->layout->value_dim : dim;
    s->form = attention_form(a);
    s->q_stride = s->form == SCORE_ROUNDED ? (dim + 1) / 2 : dim + dim % 2;
    for (int i = 0; i < t->rows * t->heads; i++) {
        const float *q = a->q + (size_t)(t->row + i / t->heads) * q_stride +
                         (size_t)(t->head + i % t->heads) * dim;
        float *to = s->q + (size_t)i * s->q_stride;
        to[s->q_stride - 1] = 0;
        if (s->form == SCORE_ROUNDED)
            for (size_t d = 0; d < dim; d++)
                ((uint16_t *)to)[d] = dtype_f32_to_bf16(q[d] * a->scale);
        else
            for (size_t d = 0; d < dim; d++)
                to[d] = q[d] * a->scale;
        s->max[i] = -INFINITY;
        s->sum[i] = 0;
        memset(s->acc + (size_t)i * s->acc_stride, 0, s->acc_stride * sizeof s->acc[0]);
    }
}

static void attention_run(const struct attention_tile *t, struct attention_state *s)
{
    const struct op_rows *rows = t->op->rows;
    const int32_t last = rows->positions[t->row + t->rows - 1];
    const int32_t first = attention_window_from(t->op, rows->positions[t->row]);
    int32_t base = first - first % OPS_KV_SPAN;
    struct attention_view next, now = attention_look(t, base);
    int at = 0;
    attention_begin(t, s);
    attention_locate(t, base, now.range, &s->places[0]);
    for (; base <= last; base += OPS_KV_SPAN, now = next, at = !at) {
        s->now = &s->places[at];
        s->ahead = NULL;
        if (base + OPS_KV_SPAN <= last) {
            next = attention_look(t, base + OPS_KV_SPAN);
            attention_locate(t, base + OPS_KV_SPAN, next.range, &s->places[!at]);
            s->ahead = &s->places[!at];
        }
        attention_span(t, s, base, &now);
    }
    for (int i = 0; i < t->rows * t->heads; i++)
        attention_finish(t, s, i);
}

/* Rows [row, row + n) that make one tile: of one sequence, adjacent, at most `most`. */
static int32_t attention_tile_rows(const struct op_rows *rows, int32_t row, int32_t most)
{
    int32_t n = 1;
    while (n < most && row + n < rows->tokens && rows->seq_of[row + n] == rows->seq_of[row] &&
           rows->positions[row + n] == rows->positions[row] + n)
        n++;
    return n;
}

/* What a tile costs: the positions its rows see, and a little for each row. */
static int64_t attention_cost(const struct op_attention *a, int32_t row, int32_t n)
{
    int64_t cost = 0;
    for (int32_t i = row; i < row + n; i++) {
        int32_t p = a->rows->positions[i];
        cost += p + 1 - attention_window_from(a, p) + OPS_KV_SPAN / 4;
    }
    return cost;
}

void BODY(attention)(const struct op_attention *a, int part, int parts)
{
    const struct op_rows *rows = a->rows;
    const struct kv_layout *l = a->layout;
    int group = a->heads / l->kv_heads;
    assert(l->head_dim <= OPS_HEAD_DIM_MAX && a->heads % l->kv_heads == 0);
    assert(l->value_dim <= l->head_dim && a->out_dim <= l->head_dim);
    assert(a->out_dim == 0 || l->value_dim == 0 || a->out_dim == l->value_dim);
    int pairs = ATTENTION_QUERY_FLOATS / l->head_dim;
    pairs = pairs < ATTENTION_QUERIES ? pairs : ATTENTION_QUERIES;
    int32_t most = pairs > group ? pairs / group : 1, n;
    int64_t total = attention_cost(a, 0, rows->tokens) * l->kv_heads, done = 0;
    struct attention_state s;
    for (int32_t row = 0; row < rows->tokens; row += n) {
        n = attention_tile_rows(rows, row, most);
        int64_t cost = attention_cost(a, row, n);
        for (int h = 0; h < l->kv_heads; h++, done += cost) {
            if (done * parts / total != part)
                continue;
            struct attention_tile t = {.op = a, .row = row, .rows = n, .kv_head = h};
            for (int g = 0; g < group; g += t.heads) {
                t.head = h * group + g;
                t.heads = group - g < pairs ? group - g : pairs;
                attention_run(&t, &s);
            }
        }
    }
}

#endif
