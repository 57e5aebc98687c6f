/* Attention, compiled once per instruction set (see cpu.h).
 *
 * Work goes in tiles: a few adjacent rows of one sequence and the query heads that share one kv
 * head, so that keys and values are read once for all of them. For each span of OPS_KV_SPAN
 * absolute positions a tile computes its scores, and each (row, head) then merges the span into its
 * own running maximum, sum and accumulator. A (row, head) sees only positions up to its own and
 * adds them in one order, so neither the tile, the chunk, the blocks nor the threads show in its
 * bits. */
#ifndef KERNELS_CPU_ATTENTION_BODY_H
#define KERNELS_CPU_ATTENTION_BODY_H

#include <assert.h>
#include <math.h>

#include "kernels/cpu/dot_body.h"
#include "kernels/cpu/mix_body.h"

#define ATTENTION_LANES_MAX 16      /* of any body */
#define ATTENTION_QUERIES 32        /* (row, head) pairs of a tile, at most */
#define ATTENTION_QUERY_FLOATS 8192 /* and their elements */
#define ATTENTION_PANEL_DIM 256     /* head_dim up to which a span is widened */
#define ATTENTION_PANEL_MIN 8       /* pairs from which widening first is faster */

struct attention_tile {
    const struct op_attention *op;
    int32_t row, rows;        /* adjacent rows of one sequence */
    int kv_head, head, heads; /* query heads, all of kv_head */
};

struct attention_state {
    float q[ATTENTION_QUERY_FLOATS];
    float acc[ATTENTION_QUERY_FLOATS + ATTENTION_QUERIES * ATTENTION_LANES_MAX];
    float score[ATTENTION_QUERIES * OPS_KV_SPAN];
    float max[ATTENTION_QUERIES], sum[ATTENTION_QUERIES], fade[ATTENTION_QUERIES];
    float panel[OPS_KV_SPAN * ATTENTION_PANEL_DIM];
    struct kv_run runs[OPS_KV_SPAN];
    int n_runs;
    enum dtype dtype; /* of what the runs point to */
    size_t acc_stride;
};

/* The runs of `count` positions from `base` on: one per block touched. */
static void attention_runs(const struct attention_tile *t, struct attention_state *s, int32_t base,
                           int count)
{
    const struct op_attention *a = t->op;
    const struct kv_layout *l = a->layout;
    const int32_t *blocks = a->rows->block_tables[a->rows->seq_of[t->row]];
    const char *pool = a->pool;
    s->n_runs = 0;
    s->dtype = l->dtype;
    for (int j = 0; j < count;) {
        int32_t block = blocks[(base + j) / l->block_tokens];
        int slot = (base + j) % l->block_tokens;
        int run = l->block_tokens - slot < count - j ? l->block_tokens - slot : count - j;
        s->runs[s->n_runs++] = (struct kv_run){
            .key = pool + kv_offset(l, a->layer, block, KV_KEY, t->kv_head, slot),
            .value = pool + kv_offset(l, a->layer, block, KV_VALUE, t->kv_head, slot),
            .count = run,
        };
        j += run;
    }
}

/* Widens the runs' keys or values, one after the other, into the panel. */
static void attention_widen(struct attention_state *s, enum kv_part part, size_t dim)
{
    float *to = s->panel;
    for (int r = 0; r < s->n_runs; r++) {
        const char *from = part == KV_KEY ? s->runs[r].key : s->runs[r].value;
        size_t n = (size_t)s->runs[r].count * dim, whole = n - n % LANES;
        for (size_t i = 0; i < whole; i += LANES)
            vec_store(to + i, vec_load_as(from, s->dtype, i));
        if (n > whole)
            vec_store_n(to + whole, vec_load_as_n(from, s->dtype, whole, (int)(n - whole)),
                        (int)(n - whole));
        to += n;
    }
}

/* Scores of pairs [from, to) against the span's keys. */
static void attention_scores(struct attention_state *s, size_t dim, int from, int to, bool widen)
{
    enum dtype t = widen ? DTYPE_F32 : s->dtype;
    const char *keys[OPS_KV_SPAN];
    float dot[DOT_TILE];
    struct dot_args d = {.x_stride = dim, .k = dim, .first = true, .last = true, .sum = dot};
    int count = 0;
    if (widen)
        attention_widen(s, KV_KEY, dim);
    for (int r = 0; r < s->n_runs; r++)
        for (int j = 0; j < s->runs[r].count; j++, count++)
            keys[count] = widen ? (const char *)(s->panel + (size_t)count * dim)
                                : s->runs[r].key + (size_t)j * dim * dtype_bytes(t);
    for (int j = 0; j < count; j += DOT_COLS) {
        int cols = count - j < DOT_COLS ? count - j : DOT_COLS;
        for (int c = 0; c < DOT_COLS; c++)
            d.w[c] = keys[j + (c < cols ? c : cols - 1)];
        for (int i = from; i < to; i += d.rows) {
            d.rows = dot_rows(to - i);
            d.x = s->q + (size_t)i * dim;
            dot_run(&d, t);
            for (int e = 0; e < d.rows; e++)
                memcpy(&s->score[(i + e) * OPS_KV_SPAN + j], &dot[e * DOT_COLS],
                       (size_t)cols * sizeof dot[0]);
        }
    }
}

/* Turns the first n scores of pair i into weights and merges the span into its maximum and sum. */
static void attention_softmax(struct attention_state *s, int i, int n, float scale, bool first)
{
    float *score = s->score + i * OPS_KV_SPAN;
    vec top = vec_set1(-INFINITY), sum = vec_zero();
    for (int j = n; j % LANES != 0; j++)
        score[j] = -INFINITY;
    for (int j = 0; j < n; j += LANES) {
        vec v = vec_load(score + j) * vec_set1(scale);
        vec_store(score + j, v);
        top = vec_max(v, top);
    }
    float span = vec_reduce_max(top), before = s->max[i];
    float max = first || span > before ? span : before;
    float base = max == -INFINITY ? 0 : max; /* all scores -inf: weights 0, not NaN */
    for (int j = 0; j < n; j += LANES) {
        vec v = vec_exp(vec_load(score + j) - vec_set1(base));
        vec_store(score + j, v);
        sum = sum + v;
    }
    float fade[LANES];
    vec_store(fade, vec_exp(vec_set1(before - base)));
    s->fade[i] = fade[0];
    s->sum[i] = first ? vec_reduce_add(sum) : s->sum[i] * fade[0] + vec_reduce_add(sum);
    s->max[i] = max;
}

/* Adds the span's values to pairs [from, to), which all see `count` positions. */
static void attention_mix(struct attention_state *s, size_t dim, int from, int to, int count,
                          bool first, bool widened)
{
    struct kv_run all = {.value = (const char *)s->panel, .count = count};
    enum dtype t = widened ? DTYPE_F32 : s->dtype;
    int rows;
    for (int i = from; i < to; i += rows) {
        struct mix_args m = {
            .acc = s->acc + (size_t)i * s->acc_stride,
            .acc_stride = s->acc_stride,
            .weight = s->score + i * OPS_KV_SPAN,
            .fade = first ? NULL : s->fade + i,
            .runs = widened ? &all : s->runs,
            .v_stride = dim,
            .count = count,
        };
        rows = to - i >= MIX_ROWS ? MIX_ROWS : 1;
        mix_fns[t][rows == MIX_ROWS](&m, dim);
    }
}

/* Positions of [base, base + OPS_KV_SPAN) that the tile's row i sees. */
static int attention_seen(const struct attention_tile *t, int i, int32_t base)
{
    int32_t n = t->op->rows->positions[t->row + i] + 1 - base;
    return n > OPS_KV_SPAN ? OPS_KV_SPAN : n > 0 ? (int)n : 0;
}

static void attention_span(const struct attention_tile *t, struct attention_state *s, int32_t base)
{
    size_t dim = (size_t)t->op->layout->head_dim;
    int first_row = 0, end = t->rows * t->heads;
    while (attention_seen(t, first_row, base) == 0)
        first_row++;
    int from = first_row * t->heads;
    bool widen = end - from >= ATTENTION_PANEL_MIN && dim <= ATTENTION_PANEL_DIM;
    bool first = base == 0;

    attention_runs(t, s, base, attention_seen(t, t->rows - 1, base));
    attention_scores(s, dim, from, end, widen);
    for (int i = from; i < end; i++)
        attention_softmax(s, i, attention_seen(t, i / t->heads, base), t->op->scale, first);
    if (widen)
        attention_widen(s, KV_VALUE, dim);
    for (int row = first_row, next; row < t->rows; row = next) {
        int seen = attention_seen(t, row, base);
        for (next = row + 1; next < t->rows && attention_seen(t, next, base) == seen; next++)
            ;
        attention_mix(s, dim, row * t->heads, next * t->heads, seen, first, widen);
    }
}

static void attention_run(const struct attention_tile *t, struct attention_state *s)
{
    const struct op_attention *a = t->op;
    size_t dim = (size_t)a->layout->head_dim, heads = (size_t)a->heads;
    size_t q_stride = a->q_stride ? (size_t)a->q_stride : heads * dim;
    s->acc_stride = (dim + LANES - 1) / LANES * LANES;
    for (int i = 0; i < t->rows; i++)
        memcpy(s->q + (size_t)(i * t->heads) * dim,
               a->q + (size_t)(t->row + i) * q_stride + (size_t)t->head * dim,
               (size_t)t->heads * dim * sizeof(float));
    for (int i = 0; i < t->rows * t->heads; i++)
        s->max[i] = -INFINITY;
    int32_t last = a->rows->positions[t->row + t->rows - 1];
    for (int32_t base = 0; base <= last; base += OPS_KV_SPAN)
        attention_span(t, s, base);
    for (int i = 0; i < t->rows * t->heads; i++) {
        const float *acc = s->acc + (size_t)i * s->acc_stride;
        size_t row = (size_t)(t->row + i / t->heads), head = (size_t)(t->head + i % t->heads);
        float *out = a->out + (row * heads + head) * dim;
        for (size_t d = 0; d < dim; d++)
            out[d] = acc[d] / s->sum[i];
    }
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
static int64_t attention_cost(const struct op_rows *rows, int32_t row, int32_t n)
{
    int64_t cost = 0;
    for (int32_t i = row; i < row + n; i++)
        cost += rows->positions[i] + 1 + OPS_KV_SPAN / 4;
    return cost;
}

void BODY(attention)(const struct op_attention *a, int part, int parts)
{
    const struct op_rows *rows = a->rows;
    const struct kv_layout *l = a->layout;
    int group = a->heads / l->kv_heads;
    assert(l->head_dim <= OPS_HEAD_DIM_MAX && a->heads % l->kv_heads == 0);
    int pairs = ATTENTION_QUERY_FLOATS / l->head_dim;
    pairs = pairs < ATTENTION_QUERIES ? pairs : ATTENTION_QUERIES;
    int32_t most = pairs > group ? pairs / group : 1, n;
    int64_t total = attention_cost(rows, 0, rows->tokens) * l->kv_heads, done = 0;
    struct attention_state s;
    for (int32_t row = 0; row < rows->tokens; row += n) {
        n = attention_tile_rows(rows, row, most);
        int64_t cost = attention_cost(rows, row, n);
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
