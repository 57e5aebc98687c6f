/* One span of positions for one tile of attention: scores, weights, weighted values. Included by
 * attention_body.h, which says what a tile is and in which order spans come. It is code, a body
 * compiled once per instruction set, and over 150 lines because of that. */
#ifndef KERNELS_CPU_SPAN_BODY_H
#define KERNELS_CPU_SPAN_BODY_H

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
    size_t dim, acc_stride;
    bool first; /* the span at hand is the sequence's first */
    bool widen; /* and goes through the panel */
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
static void attention_widen(struct attention_state *s, enum kv_part part)
{
    float *to = s->panel;
    for (int r = 0; r < s->n_runs; r++) {
        const char *from = part == KV_KEY ? s->runs[r].key : s->runs[r].value;
        size_t n = (size_t)s->runs[r].count * s->dim, whole = n - n % LANES;
        for (size_t i = 0; i < whole; i += LANES)
            vec_store(to + i, vec_load_as(from, s->dtype, i));
        if (n > whole)
            vec_store_n(to + whole, vec_load_as_n(from, s->dtype, whole, (int)(n - whole)),
                        (int)(n - whole));
        to += n;
    }
}

/* Scores of pairs [from, to) against the span's keys. */
static void attention_scores(struct attention_state *s, int from, int to)
{
    size_t dim = s->dim;
    enum dtype t = s->widen ? DTYPE_F32 : s->dtype;
    const char *keys[OPS_KV_SPAN];
    float dot[DOT_TILE];
    struct dot_args d = {.x_stride = dim, .k = dim, .first = true, .last = true, .sum = dot};
    int count = 0;
    if (s->widen)
        attention_widen(s, KV_KEY);
    for (int r = 0; r < s->n_runs; r++)
        for (int j = 0; j < s->runs[r].count; j++, count++)
            keys[count] = s->widen ? (const char *)(s->panel + (size_t)count * dim)
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
static void attention_softmax(struct attention_state *s, int i, int n, float scale)
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
    float max = s->first || span > before ? span : before;
    float base = max == -INFINITY ? 0 : max; /* all scores -inf: weights 0, not NaN */
    for (int j = 0; j < n; j += LANES) {
        vec v = vec_exp(vec_load(score + j) - vec_set1(base));
        vec_store(score + j, v);
        sum = sum + v;
    }
    float fade[LANES];
    vec_store(fade, vec_exp(vec_set1(before - base)));
    s->fade[i] = fade[0];
    s->sum[i] = s->first ? vec_reduce_add(sum) : s->sum[i] * fade[0] + vec_reduce_add(sum);
    s->max[i] = max;
}

/* Adds the span's values to pairs [from, to), which all see `count` positions. */
static void attention_mix(struct attention_state *s, int from, int to, int count)
{
    struct kv_run all = {.value = (const char *)s->panel, .count = count};
    enum dtype t = s->widen ? DTYPE_F32 : s->dtype;
    int rows;
    for (int i = from; i < to; i += rows) {
        struct mix_args m = {
            .acc = s->acc + (size_t)i * s->acc_stride,
            .acc_stride = s->acc_stride,
            .weight = s->score + i * OPS_KV_SPAN,
            .fade = s->first ? NULL : s->fade + i,
            .runs = s->widen ? &all : s->runs,
            .v_stride = s->dim,
            .count = count,
        };
        rows = to - i >= MIX_ROWS ? MIX_ROWS : 1;
        mix_fns[t][rows == MIX_ROWS](&m, s->dim);
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
    int first_row = 0, end = t->rows * t->heads;
    while (attention_seen(t, first_row, base) == 0)
        first_row++;
    int from = first_row * t->heads;
    s->widen = end - from >= ATTENTION_PANEL_MIN && s->dim <= ATTENTION_PANEL_DIM;
    s->first = base == 0;

    attention_runs(t, s, base, attention_seen(t, t->rows - 1, base));
    attention_scores(s, from, end);
    for (int i = from; i < end; i++)
        attention_softmax(s, i, attention_seen(t, i / t->heads, base), t->op->scale);
    if (s->widen)
        attention_widen(s, KV_VALUE);
    for (int row = first_row, next; row < t->rows; row = next) {
        int seen = attention_seen(t, row, base);
        for (next = row + 1; next < t->rows && attention_seen(t, next, base) == seen; next++)
            ;
        attention_mix(s, row * t->heads, next * t->heads, seen);
    }
}

#endif
