/* One span of positions for one tile of attention: scores, weights, weighted values. Included by
 * attention_body.h, which says what a tile is and in which order spans come. It is code, a body
 * compiled once per instruction set, and over 150 lines because of that. */
#ifndef KERNELS_CPU_SPAN_BODY_H
#define KERNELS_CPU_SPAN_BODY_H

#include <math.h>

#include "kernels/cpu/dot_body.h"
#include "kernels/cpu/kv_widen_body.h"
#include "kernels/cpu/mix_body.h"

#define ATTENTION_LANES_MAX 16      /* of any body */
#define ATTENTION_QUERIES 32        /* (row, head) pairs of a tile, at most */
#define ATTENTION_QUERY_FLOATS 8192 /* and their elements */
#define ATTENTION_PANEL_DIM 256     /* head_dim up to which a span is widened */
#define ATTENTION_PANEL_FLOATS (OPS_KV_SPAN * ATTENTION_PANEL_DIM)
#define ATTENTION_PANEL_MIN 8 /* pairs from which widening first is faster */

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
    float panel[ATTENTION_PANEL_FLOATS];
    struct kv_run runs[OPS_KV_SPAN];
    int n_runs;
    enum dtype dtype; /* of what the runs point to */
    size_t dim;       /* of queries and keys */
    size_t out_dim;   /* of values: where a key holds its value, its first elements */
    size_t acc_stride, value_stride;
    bool widen; /* the span at hand goes through the panel; always where KV is quantized */
};

/* First position that a row at position p sees. */
INLINE int32_t attention_window_from(const struct op_attention *a, int32_t p)
{
    return a->window > 0 && p >= a->window ? p + 1 - a->window : 0;
}

/* The runs of positions [base + skip, base + count): one per block touched. Blocks before `skip`
 * may be gone. */
static void attention_runs(const struct attention_tile *t, struct attention_state *s, int32_t base,
                           int skip, int count)
{
    const struct op_attention *a = t->op;
    const struct kv_layout *l = a->layout;
    const int32_t *blocks = a->rows->block_tables[a->rows->seq_of[t->row]];
    const char *pool = a->pool;
    s->n_runs = 0;
    s->dtype = l->dtype;
    enum kv_part value = l->value_dim ? KV_VALUE : KV_KEY;
    for (int j = skip; j < count;) {
        int32_t block = blocks[(base + j) / l->block_tokens];
        int slot = (base + j) % l->block_tokens;
        int run = l->block_tokens - slot < count - j ? l->block_tokens - slot : count - j;
        s->runs[s->n_runs++] = (struct kv_run){
            .key = pool + kv_offset(l, a->layer, block, KV_KEY, t->kv_head, slot),
            .value = pool + kv_offset(l, a->layer, block, value, t->kv_head, slot),
            .count = run,
        };
        j += run;
    }
}

/* What fits in the panel of quantized keys or values: elements [from, from + n) of `dim`, of the
 * runs' positions [begin, begin + count). */
struct attention_piece {
    enum kv_part part;
    size_t dim, from, n;
    int begin, count;
};

static void attention_widen_piece(struct attention_state *s, const struct attention_piece *p)
{
    const size_t bytes = kv_vector_bytes(s->dtype, p->dim);
    struct kv_widen w = {
        .dtype = s->dtype, .dim = p->dim, .from = p->from, .n = p->n, .out = s->panel};
    int skip = p->begin, left = p->count;
    for (int r = 0; r < s->n_runs && left > 0; skip -= s->runs[r++].count) {
        int cut = skip > 0 ? skip : 0;
        w.count = s->runs[r].count - cut < left ? s->runs[r].count - cut : left;
        if (w.count <= 0)
            continue;
        w.vectors = (p->part == KV_KEY ? s->runs[r].key : s->runs[r].value) + (size_t)cut * bytes;
        kv_widen(&w);
        w.out += (size_t)w.count * p->n;
        left -= w.count;
    }
}

/* Widens the runs' keys or values, of `dim` elements each, one after the other, into the panel. */
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

/* Scores of pairs [from, to) against the span's keys, of which the first is its position `skip`. */
static void attention_scores(struct attention_state *s, int skip, int from, int to)
{
    size_t dim = s->dim;
    enum dtype t = s->widen ? DTYPE_F32 : s->dtype;
    const bool pieces = kv_is_quantized(s->dtype);
    const int room =
        pieces ? (int)(ATTENTION_PANEL_FLOATS / dim) / DOT_COLS * DOT_COLS : OPS_KV_SPAN;
    const char *keys[OPS_KV_SPAN];
    float dot[DOT_TILE];
    struct dot_args d = {.x_stride = dim, .k = dim, .first = true, .last = true, .sum = dot};
    int count = 0;
    if (s->widen && !pieces)
        attention_widen(s, KV_KEY, dim);
    for (int r = 0; r < s->n_runs; r++)
        for (int j = 0; j < s->runs[r].count; j++, count++)
            keys[count] = s->widen ? (const char *)(s->panel + (size_t)(count % room) * dim)
                                   : s->runs[r].key + (size_t)j * dim * dtype_bytes(t);
    for (int j = 0; j < count; j += DOT_COLS) {
        int cols = count - j < DOT_COLS ? count - j : DOT_COLS;
        if (pieces && j % room == 0)
            attention_widen_piece(s, &(struct attention_piece){KV_KEY, dim, 0, dim, j, room});
        for (int c = 0; c < DOT_COLS; c++)
            d.w[c] = keys[j + (c < cols ? c : cols - 1)];
        for (int i = from; i < to; i += d.rows) {
            d.rows = dot_rows(to - i);
            d.x = s->q + (size_t)i * dim;
            dot_run(&d, t);
            for (int e = 0; e < d.rows; e++)
                memcpy(&s->score[(i + e) * OPS_KV_SPAN + skip + j], &dot[e * DOT_COLS],
                       (size_t)cols * sizeof dot[0]);
        }
    }
}

/* Turns scores [skip, n) of pair i into weights and merges the span into its maximum and sum. */
static void attention_softmax(const struct op_attention *a, struct attention_state *s, int i,
                              int skip, int n)
{
    float *score = s->score + i * OPS_KV_SPAN;
    vec top = vec_set1(-INFINITY), sum = vec_zero();
    for (int j = 0; j < skip; j++)
        score[j] = -INFINITY;
    for (int j = n; j % LANES != 0; j++)
        score[j] = -INFINITY;
    for (int j = 0; j < n; j += LANES) {
        vec v = vec_load(score + j) * vec_set1(a->scale);
        if (a->softcap > 0) {
            v = vec_set1(a->softcap) * vec_tanh(v / vec_set1(a->softcap));
            vec_store(score + j, v);
            for (int k = j; k < j + LANES; k++) /* the cap of what is not seen is a number */
                score[k] = k < skip || k >= n ? -INFINITY : score[k];
            v = vec_load(score + j);
        }
        vec_store(score + j, v);
        top = vec_max(v, top);
    }
    float span = vec_reduce_max(top), before = s->max[i];
    float max = span > before ? span : before;
    float base = max == -INFINITY ? 0 : max; /* all scores -inf: weights 0, not NaN */
    for (int j = 0; j < n; j += LANES) {
        vec v = vec_exp(vec_load(score + j) - vec_set1(base));
        vec_store(score + j, v);
        sum = sum + v;
    }
    float fade[LANES];
    vec_store(fade, vec_exp(vec_set1(before - base)));
    s->fade[i] = fade[0];
    s->sum[i] = s->sum[i] * fade[0] + vec_reduce_add(sum);
    s->max[i] = max;
}

/* Adds elements [col, col + cols) of the values of positions [skip, count) to pairs [from, to),
 * which all see just these. The runs begin at position `base_skip`. */
struct attention_part {
    int from, to, base_skip, skip, count;
    size_t col, cols;
};

static void attention_mix(struct attention_state *s, const struct attention_part *p)
{
    enum dtype t = s->widen ? DTYPE_F32 : s->dtype;
    size_t stride = s->widen ? p->cols : s->value_stride;
    struct kv_run runs[OPS_KV_SPAN];
    int rows, n = 0, drop = p->skip - p->base_skip;
    if (s->widen) {
        runs[n++] = (struct kv_run){
            .value = (const char *)(s->panel + (size_t)drop * p->cols),
            .count = p->count - p->skip,
        };
    } else {
        for (int r = 0; r < s->n_runs; drop -= s->runs[r++].count) {
            int cut = drop > 0 ? drop : 0;
            if (cut < s->runs[r].count)
                runs[n++] = (struct kv_run){
                    .value = s->runs[r].value + (size_t)cut * stride * dtype_bytes(t),
                    .count = s->runs[r].count - cut,
                };
        }
    }
    for (int i = p->from; i < p->to; i += rows) {
        struct mix_args m = {
            .acc = s->acc + (size_t)i * s->acc_stride + p->col,
            .acc_stride = s->acc_stride,
            .weight = s->score + i * OPS_KV_SPAN + p->skip,
            .fade = s->fade + i,
            .runs = runs,
            .v_stride = stride,
            .count = p->count - p->skip,
        };
        rows = p->to - i >= MIX_ROWS ? MIX_ROWS : 1;
        mix_fns[t][rows == MIX_ROWS](&m, p->cols);
    }
}

/* Of positions [base, base + OPS_KV_SPAN) the tile's row i sees [skip, seen); nothing where skip is
 * not less. */
static int attention_seen(const struct attention_tile *t, int i, int32_t base)
{
    int32_t n = t->op->rows->positions[t->row + i] + 1 - base;
    return n > OPS_KV_SPAN ? OPS_KV_SPAN : n > 0 ? (int)n : 0;
}

static int attention_skip(const struct attention_tile *t, int i, int32_t base)
{
    int32_t n = attention_window_from(t->op, t->op->rows->positions[t->row + i]) - base;
    return n > OPS_KV_SPAN ? OPS_KV_SPAN : n > 0 ? (int)n : 0;
}

/* Mixes the columns of `p` into rows [first, last), those that see the same positions together. */
static void attention_mix_rows(const struct attention_tile *t, struct attention_state *s,
                               int32_t base, struct attention_part *p, const int rows[2])
{
    for (int row = rows[0], next; row < rows[1]; row = next) {
        p->skip = attention_skip(t, row, base);
        p->count = attention_seen(t, row, base);
        for (next = row + 1; next < rows[1] && attention_seen(t, next, base) == p->count &&
                             attention_skip(t, next, base) == p->skip;
             next++)
            ;
        p->from = row * t->heads;
        p->to = next * t->heads;
        attention_mix(s, p);
    }
}

/* Rows see nothing of a span that lies behind their own position or before their window: the rows
 * that do see some of it are adjacent. */
static void attention_span(const struct attention_tile *t, struct attention_state *s, int32_t base)
{
    const struct op_attention *a = t->op;
    int first = 0, last = t->rows;
    while (attention_seen(t, first, base) == 0)
        first++;
    while (attention_skip(t, last - 1, base) == OPS_KV_SPAN)
        last--;
    int from = first * t->heads, end = last * t->heads;
    struct attention_part p = {.base_skip = attention_skip(t, first, base)};
    const bool pieces = kv_is_quantized(a->layout->dtype);
    s->widen = pieces || (end - from >= ATTENTION_PANEL_MIN && s->dim <= ATTENTION_PANEL_DIM &&
                          a->layout->value_dim > 0);
    s->value_stride = (size_t)(a->layout->value_dim ? a->layout->value_dim : a->layout->head_dim);

    attention_runs(t, s, base, p.base_skip, attention_seen(t, last - 1, base));
    attention_scores(s, p.base_skip, from, end);
    for (int i = from; i < end; i++)
        attention_softmax(a, s, i, attention_skip(t, i / t->heads, base),
                          attention_seen(t, i / t->heads, base));
    if (s->widen && !pieces)
        attention_widen(s, KV_VALUE, s->out_dim);
    p.cols = pieces ? ATTENTION_PANEL_DIM : s->out_dim;
    for (; p.col < s->out_dim; p.col += p.cols) {
        p.cols = s->out_dim - p.col < p.cols ? s->out_dim - p.col : p.cols;
        if (pieces)
            attention_widen_piece(s, &(struct attention_piece){KV_VALUE, s->value_stride, p.col,
                                                               p.cols, 0, OPS_KV_SPAN});
        attention_mix_rows(t, s, base, &p, (const int[2]){first, last});
    }
}

#endif
