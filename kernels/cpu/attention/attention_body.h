/* Attention, compiled once per instruction set (see cpu.h).
 *
 * Work goes in tiles: a few adjacent rows of one sequence and the query heads that share one kv
 * head, so that keys and values are read once for all of them. For each span of OPS_KV_SPAN
 * absolute positions a tile computes its scores, and each (row, head) then merges the span into its
 * own running maximum, sum and accumulator; tiles_body.h takes a whole stretch at once. Every
 * ATTENTION_STRETCH absolute positions these begin anew, and the stretches of a (row, head) are
 * added in ascending order (split KV, as in Flash-Decoding, 2023). It sees only positions up to its
 * own, and both orders are always the same, so neither the tile, the chunk, the blocks nor the
 * threads show in its bits.
 *
 * Where there are fewer tiles than would keep all parts busy, stretches are shared out too: whoever
 * has computed one leaves it in the op's scratch memory, and who is last of a tile adds them up.
 * It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_ATTENTION_ATTENTION_BODY_H
#define KERNELS_CPU_ATTENTION_ATTENTION_BODY_H

#include <assert.h>
#include <math.h>
#include <stdatomic.h>

#include "base/team.h"
#include "kernels/cpu/attention/span_body.h"
#if defined(BODY_TILES)
#include "kernels/cpu/attention/tiles_body.h"
#endif

_Static_assert(sizeof(struct attention_state) < TEAM_STACK / 2,
               "lies on the stack of whoever calls");
_Static_assert(ATTENTION_PADDING >= (2 * LANES - 1) * ATTENTION_QUERIES,
               "queries and sums are padded to two vectors");

/* How the body multiplies by what is stored. */
INLINE enum score_form attention_form(const struct op_attention *a)
{
#if defined(BODY_ROUNDS)
    if (a->rounds && a->layout->dtype == DTYPE_BF16)
        return SCORE_ROUNDED;
#endif
#if defined(BODY_TILES)
    if (a->rounds && a->layout->dtype != DTYPE_F32)
        return SCORE_TILES;
#endif
    (void)a;
    return SCORE_FLOATS;
}

INLINE size_t attention_acc_stride(const struct op_attention *a)
{
    size_t dim = (size_t)(a->out_dim ? a->out_dim : a->layout->value_dim);
    return (dim + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
}

/* Writes two vectors of an accumulator, whose elements are where the form has them, in order. */
INLINE void attention_put(const struct attention_state *s, float *out, vec first, vec second)
{
    vec v[2] = {first, second};
#if defined(BODY_ROUNDS)
    if (s->form == SCORE_ROUNDED)
        vec_of_unpacked(first, second, v);
#endif
    if (score_splits(s->dtype, s->form)) {
        vec_store_both(out, first, second);
        return;
    }
    vec_store(out, v[0]);
    vec_store(out + LANES, v[1]);
}

/* Writes a pair's result; a sink takes its share of the weights and adds nothing. */
static void attention_finish(const struct attention_tile *t, const struct attention_state *s, int i)
{
    const struct op_attention *a = t->op;
    const float *acc = s->all.acc + (size_t)i * s->acc_stride;
    size_t row = (size_t)(t->row + i / t->heads), head = (size_t)(t->head + i % t->heads);
    float *out = a->out + (row * (size_t)a->heads + head) * s->out_dim;
    float sum = s->all.sum[i], fade = 1;
    if (a->sinks) {
        float sink = a->sinks[head], max = sink > s->all.max[i] ? sink : s->all.max[i];
        fade = expf(s->all.max[i] - max);
        sum = sum * fade + expf(sink - max);
    }
#if defined(BODY_TILES)
    if (s->form == SCORE_TILES) {
        tiles_write(s, acc, vec_set1(fade), vec_set1(sum), out);
        return;
    }
#endif
    for (size_t d = 0; d < s->out_dim; d += 2 * LANES) {
        const vec first = vec_load(acc + d) * vec_set1(fade) / vec_set1(sum);
        const vec second = vec_load(acc + d + LANES) * vec_set1(fade) / vec_set1(sum);
        float last[2 * LANES];
        const bool whole = d + 2 * LANES <= s->out_dim;
        attention_put(s, whole ? out + d : last, first, second);
        if (!whole)
            memcpy(out + d, last, (s->out_dim - d) * sizeof *out);
    }
}

/* to = q * scale, in the form that scores are made of. */
static void attention_scale(const struct attention_state *s, const float *q, float scale, float *to)
{
    const size_t dim = s->dim;
    size_t d = 0;
    memset(to, 0, s->q_stride * sizeof *to);
#if defined(BODY_ROUNDS)
    if (s->form == SCORE_ROUNDED) {
        uint16_t *half = (uint16_t *)to;
        for (; d < dim; d += LANES) {
            const __mmask16 there = dim - d < LANES ? vec_first((int)(dim - d)) : 0xffff;
            const vec v = _mm512_maskz_loadu_ps(there, q + d) * vec_set1(scale);
            _mm256_mask_storeu_epi16(half + d, there, (__m256i)_mm512_cvtneps_pbh(v));
        }
        return;
    }
#endif
    if (score_splits(s->dtype, s->form)) {
        for (; d + 2 * LANES <= dim; d += 2 * LANES) {
            vec_store(to + d, vec_even(q + d) * vec_set1(scale));
            vec_store(to + d + LANES, vec_odd(q + d) * vec_set1(scale));
        }
        for (const size_t from = d; d < dim; d++)
            to[from + d % 2 * LANES + (d - from) / 2] = q[d] * scale;
        return;
    }
    for (; d < dim; d++)
        to[d] = q[d] * scale;
}

/* The tile's queries, times scale, and what is the same for all of its spans. */
static void attention_begin(const struct attention_tile *t, struct attention_state *s)
{
    const struct op_attention *a = t->op;
    const size_t dim = (size_t)a->layout->head_dim, heads = (size_t)a->heads;
    const size_t q_stride = a->q_stride ? (size_t)a->q_stride : heads * dim;
    s->dim = dim;
    s->out_dim = (size_t)(a->out_dim ? a->out_dim : a->layout->value_dim);
    s->acc_stride = attention_acc_stride(a);
    s->dtype = a->layout->dtype;
    s->stored[KV_KEY] = dim;
    s->stored[KV_VALUE] = a->layout->value_dim ? (size_t)a->layout->value_dim : dim;
    s->form = attention_form(a);
    attention_find_pool(t, t->kv_head, &s->pool);
    s->all = (struct attention_sums){s->all_max, s->all_sum, s->all_acc};
#if defined(BODY_TILES)
    if (s->form == SCORE_TILES) {
        tiles_attention_set(s, t->rows * t->heads);
        tiles_queries(t, s);
        return;
    }
#endif
    s->q_stride = (size_t)score_lanes((int)dim, s->dtype, s->form);
    for (int i = 0; i < t->rows * t->heads; i++) {
        const float *q = a->q + (size_t)(t->row + i / t->heads) * q_stride +
                         (size_t)(t->head + i % t->heads) * dim;
        attention_scale(s, q, a->scale, s->q + (size_t)i * s->q_stride);
    }
}

/* Of the tile, the stretches that some row, or row i, sees some of: [first, end). */
static struct attention_range attention_stretches(const struct attention_tile *t, int i, int j)
{
    const int32_t *p = t->op->rows->positions + t->row;
    return (struct attention_range){attention_window_from(t->op, p[i]) / ATTENTION_STRETCH,
                                    p[j] / ATTENTION_STRETCH + 1};
}

/* Computes a stretch: of every pair its maximum, sum and accumulator, nothing where it sees none.
 */
static void attention_stretch(const struct attention_tile *t, struct attention_state *s, int32_t at)
{
#if defined(BODY_TILES)
    if (s->form == SCORE_TILES) {
        tiles_stretch(t, s, at);
        return;
    }
#endif
    const struct op_rows *rows = t->op->rows;
    const int32_t last = rows->positions[t->row + t->rows - 1];
    const int32_t first = attention_window_from(t->op, rows->positions[t->row]);
    const int32_t end =
        (at + 1) * ATTENTION_STRETCH - 1 < last ? (at + 1) * ATTENTION_STRETCH : last + 1;
    int32_t base = at * ATTENTION_STRETCH > first ? at * ATTENTION_STRETCH : first;
    base -= base % OPS_KV_SPAN;
    const int pairs = t->rows * t->heads;
    for (int i = 0; i < pairs; i++) {
        s->max[i] = -INFINITY;
        s->sum[i] = 0;
    }
    memset(s->acc, 0, (size_t)pairs * s->acc_stride * sizeof s->acc[0]);
    struct attention_view next, now = attention_look(t, base);
    attention_locate(&s->pool, base, now.range, s->places[0].key, s->places[0].value);
    for (int at_now = 0; base < end; base += OPS_KV_SPAN, now = next, at_now = !at_now) {
        s->now = &s->places[at_now];
        s->ahead = NULL;
        if (base + OPS_KV_SPAN <= last) { /* of the next stretch too, most likely ours */
            next = attention_look(t, base + OPS_KV_SPAN);
            struct attention_places *ahead = &s->places[!at_now];
            attention_locate(&s->pool, base + OPS_KV_SPAN, next.range, ahead->key, ahead->value);
            s->ahead = ahead;
        }
        attention_span(t, s, base, &now);
    }
}

/* Nothing was seen yet. */
static void attention_forget(const struct attention_tile *t, struct attention_state *s)
{
    for (int i = 0; i < t->rows * t->heads; i++) {
        s->all.max[i] = -INFINITY;
        s->all.sum[i] = 0;
    }
}

/* What sums so far and those of a stretch count by. */
struct attention_fades {
    float all[LANES], more[LANES];
};

/* Adds maxima and sums of pairs [i, i + n), n <= LANES; one that sees nothing brings nothing. */
INLINE void attention_fade(struct attention_state *s, const struct attention_sums *from, int i,
                           int n, struct attention_fades *out)
{
    const vec before = vec_load_n(s->all.max + i, n), after = vec_load_n(from->max + i, n);
    const vec lowest = vec_set1(-0x1.fffffep+127f); /* two of -infinity: exp(-infinity), not NaN */
    const vec max = vec_max(after, before), base = vec_max(max, lowest);
    const vec fade = vec_exp(before - base), more = vec_exp(after - base);
    vec_store(out->all, fade);
    vec_store(out->more, more);
    vec_store_n(s->all.max + i, max, n);
    vec_store_n(s->all.sum + i,
                vec_load_n(s->all.sum + i, n) * fade + vec_load_n(from->sum + i, n) * more, n);
}

/* Adds stretch `at` to the pairs that see some of it; a pair's first is taken as it is. */
static void attention_add_all(const struct attention_tile *t, struct attention_state *s,
                              const struct attention_sums *from, int32_t at)
{
    const int pairs = t->rows * t->heads;
    const size_t n = s->acc_stride;
    struct attention_fades f;
    for (int i = 0, row = 0; row < t->rows; row++) {
        const struct attention_range r = attention_stretches(t, row, row);
        for (int end = i + t->heads; i < end; i++) {
            float *acc = s->all.acc + (size_t)i * n;
            const float *more = from->acc + (size_t)i * n;
            if (i % LANES == 0)
                attention_fade(s, from, i, pairs - i < LANES ? pairs - i : LANES, &f);
            if (at == r.first)
                memcpy(acc, more, n * sizeof *acc);
            else if (at > r.first && at < r.end)
                for (size_t d = 0; d < n; d += LANES)
                    vec_store(acc + d, vec_load(acc + d) * vec_set1(f.all[i % LANES]) +
                                           vec_load(more + d) * vec_set1(f.more[i % LANES]));
        }
    }
}

static void attention_run(struct attention_tile *t, struct attention_state *s)
{
    const struct attention_range r = attention_stretches(t, 0, t->rows - 1);
    const struct attention_sums own = {s->max, s->sum, s->acc};
    attention_begin(t, s);
    attention_forget(t, s);
    for (int32_t at = r.first; at < r.end; at++) {
        t->next = (struct attention_where){t->kv_head, at + 1 < r.end ? at + 1 : -1};
        attention_stretch(t, s, at);
        attention_add_all(t, s, &own, at);
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

/* What stretch `at` of a tile costs, or all of it where at < 0: the positions its rows see, and a
 * little for each row. */
static int64_t attention_cost(const struct attention_tile *t, int32_t at)
{
    int64_t cost = 0;
    for (int32_t i = t->row; i < t->row + t->rows; i++) {
        int32_t p = t->op->rows->positions[i], from = attention_window_from(t->op, p);
        int32_t begin = at < 0 || at * ATTENTION_STRETCH < from ? from : at * ATTENTION_STRETCH;
        int32_t end =
            at < 0 || p < (at + 1) * ATTENTION_STRETCH ? p + 1 : (at + 1) * ATTENTION_STRETCH;
        cost += (end > begin ? end - begin : 0) + OPS_KV_SPAN / 4;
    }
    return cost * t->heads;
}

/* A call, as one part walks over it. */
struct attention_walk {
    const struct op_attention *op;
    int32_t pairs, most; /* of a tile: pairs, rows */
    int part, parts;
    bool split;
    int32_t items;                 /* tiles so far */
    int64_t floats;                /* that their stretches take of scratch */
    int64_t done, total;           /* costs */
    struct attention_state *state; /* NULL: to count alone */
};

/* What one stretch of a tile takes of scratch, in floats; of any head's. */
static int64_t attention_slot_floats(const struct attention_walk *w, const struct attention_tile *t)
{
    const int group = w->op->heads / w->op->layout->kv_heads;
    const int64_t pairs = (int64_t)t->rows * (group < w->pairs ? group : w->pairs);
    return pairs * (int64_t)(attention_acc_stride(w->op) + 2);
}

/* Where the nth stretch of the tile's item'th heads is left. */
static struct attention_sums attention_slot(const struct attention_walk *w,
                                            const struct attention_tile *t, int item, int nth)
{
    const size_t pairs = (size_t)(t->rows * t->heads);
    const struct attention_range r = attention_stretches(t, 0, t->rows - 1);
    const int64_t slot = (int64_t)item * (r.end - r.first) + nth;
    float *at = (float *)((char *)w->op->scratch + OPS_ATTENTION_COUNTS) + w->floats +
                slot * attention_slot_floats(w, t);
    return (struct attention_sums){at, at + pairs, at + 2 * pairs};
}

static bool attention_mine(struct attention_walk *w, int64_t cost)
{
    bool mine = w->state && w->done * w->parts / w->total == w->part;
    w->done += cost;
    return mine;
}

/* Who brings the last of some heads' stretches finds all of them, and leaves the count as it was.
 */
static void attention_meet(const struct attention_tile *t, struct attention_walk *w, int item)
{
    _Atomic uint32_t *count = (_Atomic uint32_t *)w->op->scratch + w->items + item;
    const struct attention_range r = attention_stretches(t, 0, t->rows - 1);
    const uint32_t all = (uint32_t)(r.end - r.first);
    if (atomic_fetch_add_explicit(count, 1, memory_order_acq_rel) + 1 < all)
        return;
    atomic_store_explicit(count, 0, memory_order_relaxed);
    attention_forget(t, w->state);
    for (int32_t at = r.first; at < r.end; at++) {
        const struct attention_sums from = attention_slot(w, t, item, at - r.first);
        attention_add_all(t, w->state, &from, at);
    }
    for (int i = 0; i < t->rows * t->heads; i++)
        attention_finish(t, w->state, i);
}

static void attention_share(const struct attention_tile *t, struct attention_walk *w, int item,
                            int32_t at)
{
    struct attention_state *s = w->state;
    const struct attention_range r = attention_stretches(t, 0, t->rows - 1);
    const size_t n = (size_t)(t->rows * t->heads);
    if (!attention_mine(w, attention_cost(t, at)))
        return;
    attention_begin(t, s);
    attention_stretch(t, s, at);
    const struct attention_sums to = attention_slot(w, t, item, at - r.first);
    memcpy(to.max, s->max, n * sizeof(float));
    memcpy(to.sum, s->sum, n * sizeof(float));
    memcpy(to.acc, s->acc, n * s->acc_stride * sizeof(float));
    attention_meet(t, w, item);
}

/* What is read after this stretch, of which these were the last heads or not. */
static struct attention_where attention_after(const struct attention_tile *t, bool last, int32_t at)
{
    const struct attention_range r = attention_stretches(t, 0, t->rows - 1);
    if (!last)
        return (struct attention_where){t->kv_head, at};
    if (t->kv_head + 1 < t->op->layout->kv_heads)
        return (struct attention_where){t->kv_head + 1, at};
    return (struct attention_where){0, at + 1 < r.end ? at + 1 : -1};
}

/* Of some rows and t->kv_head: all of each head, or stretch `at` where at >= 0. How many items they
 * are, of which `item` is the first. */
static int attention_heads(struct attention_walk *w, struct attention_tile *t, int item, int32_t at)
{
    const struct op_attention *a = w->op;
    const int group = a->heads / a->layout->kv_heads, first = item;
    for (int g = 0; g < group; g += t->heads, item++) {
        t->head = t->kv_head * group + g;
        t->heads = group - g < w->pairs ? group - g : w->pairs;
        if (at >= 0) {
            t->next = attention_after(t, g + t->heads == group, at);
            attention_share(t, w, item, at);
        } else if (attention_mine(w, attention_cost(t, -1)))
            attention_run(t, w->state);
    }
    return item - first;
}

/* Stretch by stretch, each of all heads: what lies behind one head's run of a block, the next
 * head's, is read soon, and what the hardware fetches behind a run is not in vain. */
static int attention_shares(struct attention_walk *w, struct attention_tile *t)
{
    const struct attention_range r = attention_stretches(t, 0, t->rows - 1);
    int items = 0;
    for (int32_t at = r.first; at < r.end; at++)
        for (items = t->kv_head = 0; t->kv_head < w->op->layout->kv_heads; t->kv_head++)
            items += attention_heads(w, t, items, at);
    w->floats += (int64_t)items * (r.end - r.first) * attention_slot_floats(w, t);
    return items;
}

static void attention_walk_rows(struct attention_walk *w, struct attention_tile *t)
{
    for (t->row = 0; t->row < w->op->rows->tokens; t->row += t->rows) {
        t->rows = attention_tile_rows(w->op->rows, t->row, w->most);
        w->items += w->split ? attention_shares(w, t) : attention_heads(w, t, 0, -1);
    }
}

/* Where tiles are whole, one head of keys after the other, for all rows: what one tile has read of
 * it, the next one finds near. */
static void attention_walk(struct attention_walk *w)
{
    struct attention_tile t = {.op = w->op};
    if (w->split)
        attention_walk_rows(w, &t);
    for (; !w->split && t.kv_head < w->op->layout->kv_heads; t.kv_head++)
        attention_walk_rows(w, &t);
}

/* Counts a call's tiles and costs, and decides whether to share out stretches: where there are few
 * tiles, or where rows are alone and reading is what takes time. The same for every part, and of no
 * consequence to the result. */
static void attention_plan(struct attention_walk *w)
{
    const struct op_attention *a = w->op;
    struct attention_walk whole = *w, split = *w;
    attention_walk(&whole);
    const bool few = w->parts > 1 && whole.items < w->parts * ATTENTION_ITEMS_EACH;
    const bool alone =
        a->layout->kv_heads > 1 && whole.items >= a->rows->tokens * a->layout->kv_heads;
    if (a->scratch_bytes > OPS_ATTENTION_COUNTS && whole.items > 0 && (few || alone) &&
        whole.items < (int)(OPS_ATTENTION_COUNTS / sizeof(uint32_t))) {
        split.split = true;
        attention_walk(&split);
        w->split =
            (uint64_t)split.floats <= (a->scratch_bytes - OPS_ATTENTION_COUNTS) / sizeof(float);
    }
    w->total = w->split ? split.done : whole.done;
}

/* Of a tile, at most: more of short queries, since sums and weights of all have to stay near. */
static int32_t attention_pairs(int32_t head_dim)
{
    const int32_t fit = ATTENTION_QUERY_FLOATS / head_dim;
    const int32_t most = head_dim > 64 && ATTENTION_QUERIES > 128 ? 128 : ATTENTION_QUERIES;
    return fit < most ? fit : most;
}

void BODY(attention)(const struct op_attention *a, int part, int parts)
{
    const struct kv_layout *l = a->layout;
    int group = a->heads / l->kv_heads;
    assert(l->head_dim <= OPS_HEAD_DIM_MAX && a->heads % l->kv_heads == 0);
    assert(l->value_dim <= l->head_dim && a->out_dim <= l->head_dim);
    assert(a->out_dim == 0 || l->value_dim == 0 || a->out_dim == l->value_dim);
    assert(a->out_dim > 0 || l->value_dim > 0);
    assert(a->scratch_bytes == 0 || a->scratch_bytes > OPS_ATTENTION_COUNTS);
    struct attention_state s;
    struct attention_walk w = {.op = a, .part = part, .parts = parts};
    w.pairs = attention_pairs(l->head_dim);
    w.most = w.pairs > group ? w.pairs / group : 1;
    attention_plan(&w);
    w.state = &s;
#if defined(BODY_TILES)
    if (attention_form(a) == SCORE_TILES)
        tiles_attention_begin(&s);
#endif
    attention_walk(&w);
#if defined(BODY_TILES)
    if (attention_form(a) == SCORE_TILES && s.tiles.width > 0)
        tiles_end();
#endif
}

#endif
