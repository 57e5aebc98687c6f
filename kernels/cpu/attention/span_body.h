/* One span of positions for one tile of attention: scores, weights, weighted values. Included by
 * attention_body.h, which says what a tile is and in which order spans come. It is code, a body
 * compiled once per instruction set, and over 150 lines because of that. */
#ifndef KERNELS_CPU_ATTENTION_SPAN_BODY_H
#define KERNELS_CPU_ATTENTION_SPAN_BODY_H

#include <math.h>

#include "kernels/cpu/attention/kv_widen_body.h"
#include "kernels/cpu/attention/mix_body.h"
#include "kernels/cpu/attention/score_body.h"
#if defined(BODY_TILES)
#include "kernels/cpu/vec/tiles.h"
#endif

#define ATTENTION_LANES_MAX 16 /* of any body */
/* (row, head) pairs of a tile, at most; their elements, and what padding adds to them. */
#if defined(BODY_TILES)
#define ATTENTION_QUERIES 256
#define ATTENTION_QUERY_FLOATS 36864
#define ATTENTION_PADDING (TILE_ROWS * OPS_HEAD_DIM_MAX + 31 * ATTENTION_QUERIES)
#else
#define ATTENTION_QUERIES 64
#define ATTENTION_QUERY_FLOATS 16384
#define ATTENTION_PADDING (2 * ATTENTION_QUERIES * ATTENTION_LANES_MAX)
#endif

#define ATTENTION_STRETCH (8 * OPS_KV_SPAN)
#define ATTENTION_ITEMS_EACH 8 /* tiles for each part, from which stretches are not shared out */

/* Where a tile's positions are read. */
struct attention_where {
    int kv_head;
    int32_t at; /* which stretch; -1: none */
};

struct attention_tile {
    const struct op_attention *op;
    int32_t row, rows;           /* adjacent rows of one sequence */
    int kv_head, head, heads;    /* query heads, all of kv_head */
    struct attention_where next; /* what is read after this stretch, most likely */
};

/* Where a span's keys and values lie. Positions that nobody sees have a neighbour's place. */
struct attention_places {
    const char *key[OPS_KV_SPAN], *value[OPS_KV_SPAN];
};

/* Where one head's of a sequence are found. */
struct attention_pool {
    const int32_t *blocks;
    int32_t block_tokens;
    const char *first[2];  /* key and value of block 0, slot 0 */
    size_t slot[2], block; /* bytes from one to the next */
};

struct attention_range {
    int32_t first, end;
};

/* Of each pair what its weights add up to, and with values. */
struct attention_sums {
    float *max, *sum, *acc; /* acc: acc_stride apart */
};

#if defined(BODY_TILES)
#define TILES_OF_SPAN (OPS_KV_SPAN / TILE_ROWS)
#define TILES_OF_STRETCH (ATTENTION_STRETCH / TILE_ROWS)
#define TILES_COLS 32                      /* elements, or positions, of a product */
#define TILES_TILE (TILE_ROWS * TILE_ROWS) /* floats, or pairs of bf16, of a tile */
#define TILES_CHUNK 64                     /* elements of values at a time */

/* What some row of a tile sees of a stretch, and where it lies: of spans that somebody sees some of
 * all positions, as attention_locate() has them; of others nothing is said. */
struct tiles_seen {
    int range[2]; /* positions of the stretch; nothing where they are not in order */
    const char *key[ATTENTION_STRETCH], *value[ATTENTION_STRETCH];
};

/* What tiles_body.h computes with. */
struct attention_tiles {
    /* [blocks][ATTENTION_STRETCH][TILES_COLS] */
    uint16_t staged[OPS_HEAD_DIM_MAX * ATTENTION_STRETCH];
    float score[2][TILES_OF_STRETCH * TILES_TILE]; /* of 16 pairs each: [position][pair] */
    /* [16 pairs][32 positions][pair][position and that 16 later]; of few pairs narrow_weights() */
    float weight[ATTENTION_QUERIES / TILE_ROWS][TILES_OF_STRETCH / 2][TILES_TILE];
    /* [32 positions][][position and that 16 later][elements]; of few pairs narrow_products() */
    float value[TILES_OF_STRETCH / 2][2 * TILES_CHUNK / TILES_COLS][TILES_TILE];
    struct tiles_seen seen[2];    /* now and next, or next and now */
    int turn;                     /* which was found last */
    struct attention_where known; /* in it, of the tile whose first row is `row`; -1: nothing */
    int32_t row;
    int width; /* pairs that the tiles are set for; 0: they are not */
};
#endif

struct attention_state {
#if defined(BODY_TILES)
    struct attention_tiles tiles __attribute__((aligned(64)));
#endif
    /* Aligned, so that no vector of these arrays lies in two lines of cache. Queries are times
     * scale, or pairs of bf16, as score_args has them. */
    float q[ATTENTION_QUERY_FLOATS + ATTENTION_PADDING] __attribute__((aligned(64)));
    float acc[ATTENTION_QUERY_FLOATS + ATTENTION_PADDING];
    float score[ATTENTION_QUERIES * OPS_KV_SPAN];
    float all_acc[ATTENTION_QUERY_FLOATS + ATTENTION_PADDING];
    float all_max[ATTENTION_QUERIES], all_sum[ATTENTION_QUERIES];
    float max[ATTENTION_QUERIES], sum[ATTENTION_QUERIES];
    float fade[ATTENTION_QUERIES + ATTENTION_LANES_MAX];
    float panel[SCORE_ELEMENTS * OPS_KV_SPAN];
    float wide[OPS_KV_SPAN * SCORE_ELEMENTS]; /* of quantized keys or values, what is read now */
    const char *wide_row[OPS_KV_SPAN];
    struct attention_sums all; /* all_max, all_sum, all_acc: of the stretches so far */
    struct attention_pool pool;
    struct attention_places places[2]; /* of this span and of the next */
    const struct attention_places *now, *ahead;
    enum dtype dtype; /* of what they point to */
    int asked;        /* positions of `ahead` whose first values have been asked for */
    enum score_form form;
    size_t dim;       /* of queries and keys */
    size_t out_dim;   /* of values: where a key holds its value, its first elements */
    size_t stored[2]; /* elements of keys and of what is read as values */
    size_t q_stride, acc_stride;
    /* Of codes that are read as they lie. */
    float scale[SCORE_ELEMENTS / KV_GROUP_4][OPS_KV_SPAN];
    float least[SCORE_ELEMENTS / KV_GROUP_4][OPS_KV_SPAN];
};

/* First position that a row at position p sees. */
INLINE int32_t attention_window_from(const struct op_attention *a, int32_t p)
{
    return a->window > 0 && p >= a->window ? p + 1 - a->window : 0;
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

static void attention_find_pool(const struct attention_tile *t, int kv_head,
                                struct attention_pool *p)
{
    const struct op_attention *a = t->op;
    const struct kv_layout *l = a->layout;
    const enum kv_part value = l->value_dim ? KV_VALUE : KV_KEY;
    p->blocks = a->rows->block_tables[a->rows->seq_of[t->row]];
    p->block_tokens = l->block_tokens;
    p->first[KV_KEY] = (const char *)a->pool + kv_offset(l, a->layer, 0, KV_KEY, kv_head, 0);
    p->first[KV_VALUE] = (const char *)a->pool + kv_offset(l, a->layer, 0, value, kv_head, 0);
    p->slot[KV_KEY] = kv_slot_bytes(l, KV_KEY);
    p->slot[KV_VALUE] = kv_slot_bytes(l, value);
    p->block = kv_block_bytes(l);
}

/* Finds positions [base + range[0], base + range[1]) of a span; blocks of others may be gone, and
 * a neighbour's place stands for theirs. */
static void attention_locate(const struct attention_pool *p, int32_t base, const int range[2],
                             const char **keys, const char **values)
{
    const int32_t *block = p->blocks + (base + range[0]) / p->block_tokens;
    int32_t slot = (base + range[0]) % p->block_tokens;
    for (int j = range[0]; j < range[1]; block++, slot = 0) {
        const int end =
            p->block_tokens - slot < range[1] - j ? j + p->block_tokens - slot : range[1];
        const size_t at = (size_t)*block * p->block;
        const char *k = p->first[KV_KEY] + at + (size_t)slot * p->slot[KV_KEY];
        const char *v = p->first[KV_VALUE] + at + (size_t)slot * p->slot[KV_VALUE];
        for (; j < end; j++, k += p->slot[KV_KEY], v += p->slot[KV_VALUE]) {
            keys[j] = k;
            values[j] = v;
        }
    }
    for (int j = range[1]; j < OPS_KV_SPAN; j++) {
        keys[j] = keys[range[0]];
        values[j] = values[range[0]];
    }
    for (int j = 0; j < range[0]; j++) {
        keys[j] = keys[range[0]];
        values[j] = values[range[0]];
    }
}

static const char *const *attention_ahead(const struct attention_state *s, enum kv_part part)
{
    if (!s->ahead)
        return NULL;
    return part == KV_KEY ? s->ahead->key : s->ahead->value;
}

/* Whether what is read next is asked for into the first level of cache: of types of 8 bits on AMD's
 * CPUs, where attention took a sixth to a quarter less time (Zen 4). */
INLINE bool attention_near(const struct attention_state *s)
{
    return (s->dtype == DTYPE_FP8 || s->dtype == DTYPE_INT8) && cpu_is_amd();
}

/* Elements [cols[0], cols[1]) of the span's keys or values, of types that the tiles do not load, as
 * rows of floats: those of positions [range[0], range[1]), a neighbour in the others' places. */
static struct span_rows attention_widen(struct attention_state *s, enum kv_part part,
                                        const size_t cols[2], const int range[2])
{
    const char *const *row = part == KV_KEY ? s->now->key : s->now->value;
    const char *const *ahead = attention_ahead(s, part);
    const size_t n = cols[1] - cols[0], bytes = kv_vector_bytes(s->dtype, s->stored[part]);
    const size_t from = kv_codes_bytes(s->dtype, cols[0]), codes = kv_codes_bytes(s->dtype, n);
    const bool near = ahead && attention_near(s);
    struct kv_widen w = {
        .dtype = s->dtype, .dim = s->stored[part], .from = cols[0], .n = n, .out = s->wide};
    for (int j = range[0]; j < range[1]; j += w.count) {
        w.vectors = row[j];
        w.out = s->wide + (size_t)j * n;
        w.count = 1;
        while (j + w.count < range[1] && row[j + w.count] == row[j] + (size_t)w.count * bytes)
            w.count++;
        for (int i = j; near && i < j + w.count; i++)
            rows_ask(ahead[i] + from, codes, near);
        kv_widen(&w);
    }
    for (int j = 0; j < OPS_KV_SPAN; j++) {
        const bool hidden = j < range[0] || j >= range[1];
        const int seen = hidden ? range[0] : j;
        if (ahead && (hidden || !near))
            rows_ask(ahead[j] + from, codes, near);
        s->wide_row[j] = (const char *)(s->wide + (size_t)seen * n);
    }
    return (struct span_rows){.row = s->wide_row, .t = DTYPE_F32};
}

/* Whether n elements of a quantized type are made floats where so many pairs multiply them, instead
 * of before: where these are one tile, or two of one row. The numbers are the same. */
INLINE bool attention_reads_codes(const struct attention_state *s, size_t n, int pairs)
{
    return kv_is_quantized(s->dtype) && n == SCORE_ELEMENTS && (pairs == MIX_ROWS || pairs <= 2);
}

/* SCORE_ELEMENTS of the span's keys or values, from element `from` on, as they lie. */
static struct span_rows attention_codes(struct attention_state *s, enum kv_part part, size_t from)
{
    _Static_assert(KV_GROUP_8 % SCORE_ELEMENTS == 0 && SCORE_ELEMENTS % KV_GROUP_4 == 0, "groups");
    _Static_assert(MIX_ROWS <= SCORE_FEW && SCORE_ELEMENTS % (MIX_VECS * LANES) == 0,
                   "no panels and no tails, neither of which reads codes");
    const char *const *row = part == KV_KEY ? s->now->key : s->now->value;
    const size_t groups = s->dtype == DTYPE_INT4 ? SCORE_ELEMENTS / KV_GROUP_4 : 1;
    for (size_t g = 0; g < groups; g++) {
        const size_t at = kv_scale_at(s->dtype, s->stored[part], from + g * kv_group(s->dtype));
        for (int j = 0; j < OPS_KV_SPAN; j++)
            s->scale[g][j] = kv_widen_scale(row[j] + at, s->dtype);
        for (int j = 0; j < OPS_KV_SPAN && s->dtype == DTYPE_INT4; j++)
            s->least[g][j] = kv_load_bf16(row[j] + at + 2);
    }
    return (struct span_rows){.row = row,
                              .ahead = attention_ahead(s, part),
                              .offset = kv_codes_bytes(s->dtype, from),
                              .t = s->dtype,
                              .scale = s->scale[0],
                              .least = s->least[0],
                              .near = attention_near(s)};
}

/* Where elements [cols[0], cols[1]) of the span's keys or values are read by so many pairs. */
static struct span_rows attention_rows(struct attention_state *s, enum kv_part part,
                                       const size_t cols[2], const int range[2], int pairs)
{
    if (attention_reads_codes(s, cols[1] - cols[0], pairs))
        return attention_codes(s, part, cols[0]);
    if (kv_is_quantized(s->dtype))
        return attention_widen(s, part, cols, range);
    return (struct span_rows){
        .row = part == KV_KEY ? s->now->key : s->now->value,
        .ahead = attention_ahead(s, part),
        .offset = cols[0] * dtype_bytes(s->dtype),
        .t = s->dtype,
        .asked = part == KV_VALUE && cols[0] == 0 ? s->asked : 0,
    };
}

/* Scores of pairs [from, to) at the span's positions [range[0], range[1]). */
static void attention_scores(struct attention_state *s, const int range[2], int from, int to)
{
    struct score_args a = {.q_stride = s->q_stride, .panel = s->panel, .first = true};
    a.range[0] = range[0] / LANES * LANES;
    a.range[1] = (range[1] + LANES - 1) / LANES * LANES;
    for (size_t d = 0; d < s->dim; d += SCORE_ELEMENTS, a.first = false) {
        a.n = s->dim - d < SCORE_ELEMENTS ? (int)(s->dim - d) : SCORE_ELEMENTS;
        a.lanes = score_lanes(a.n, s->dtype, s->form);
        const size_t cols[2] = {d, d + (size_t)a.n};
        const struct span_rows keys = attention_rows(s, KV_KEY, cols, range, to - from);
        a.q = s->q + (size_t)from * s->q_stride + (s->form == SCORE_ROUNDED ? d / 2 : d);
        a.score = s->score + from * OPS_KV_SPAN;
        if (to - from <= SCORE_FEW) {
            few_fns[s->form][keys.t](&a, &keys, to - from);
            continue;
        }
        panel_fns[s->form][keys.t](s->panel, &a, &keys);
        for (int i = from, rows; i < to; i += rows) {
            rows = tile_rows(to - i);
            score_fns[s->form][tile_place(rows)](&a);
            a.q += (size_t)rows * s->q_stride;
            a.score += rows * OPS_KV_SPAN;
        }
    }
}

/* Weights of a pair in bf16, in the first half of their places, and their sum as they are now. */
#if defined(BODY_ROUNDS)
static vec attention_round(float *score, int end)
{
    const __m512bh one = (__m512bh)_mm512_set1_epi16(0x3f80);
    vec sum = vec_zero();
    for (int j = end; j < OPS_KV_SPAN && j % (2 * LANES) != 0; j += LANES)
        vec_store(score + j, vec_zero());
    for (int j = 0; j < end; j += 2 * LANES) {
        __m512bh w = _mm512_cvtne2ps_pbh(vec_load(score + j + LANES), vec_load(score + j));
        _mm512_storeu_si512(score + j / 2, (__m512i)w);
        sum = _mm512_dpbf16_ps(sum, w, one);
    }
    return sum;
}
#endif

/* The rows of the tile that see some of a span, adjacent ones, and what they see together: others
 * are behind it or have it behind their window. */
struct attention_view {
    int first, last;
    int range[2];
};

static struct attention_view attention_look(const struct attention_tile *t, int32_t base)
{
    struct attention_view v = {.last = t->rows};
    while (attention_seen(t, v.first, base) == 0)
        v.first++;
    while (attention_skip(t, v.last - 1, base) == OPS_KV_SPAN)
        v.last--;
    v.range[0] = attention_skip(t, v.first, base);
    v.range[1] = attention_seen(t, v.last - 1, base);
    return v;
}

/* Scores [skip, n) of pair i as they count, -INFINITY in the others' places; the largest. */
static float attention_top(const struct op_attention *a, float *score, int skip, int n)
{
    const int end = (n + LANES - 1) / LANES * LANES;
    vec top = vec_set1(-INFINITY);
    for (int j = 0; j < end && a->softcap > 0; j += LANES) {
        vec v = vec_load(score + j) / vec_set1(a->softcap);
        vec_store(score + j, vec_set1(a->softcap) * vec_tanh(v));
    }
    for (int j = 0; j < skip; j++)
        score[j] = -INFINITY;
    for (int j = n; j < end; j++)
        score[j] = -INFINITY;
    for (int j = 0; j < end; j += LANES)
        top = vec_max(vec_load(score + j), top);
    return vec_reduce_max(top);
}

/* Asks for the next of the next span's values, so that memory does not idle while weights are
 * computed: SCORE_ELEMENTS of one position. Codes, which are few bytes, lose by it, and values that
 * are keys have been asked for. */
INLINE void attention_ask_value(struct attention_state *s)
{
    const size_t n = s->out_dim < SCORE_ELEMENTS ? s->out_dim : SCORE_ELEMENTS;
    const bool own = s->pool.first[KV_VALUE] != s->pool.first[KV_KEY];
    if (s->ahead && s->asked < OPS_KV_SPAN / 4 && own && !kv_is_quantized(s->dtype))
        rows_prefetch(s->ahead->value[s->asked++], rows_bytes(s->dtype, n));
}

/* Scores up to n of a pair as weights; what they add up to. */
static vec attention_weigh(struct attention_state *s, float *score, float base, int n)
{
    const int end = (n + LANES - 1) / LANES * LANES;
    vec sum = vec_zero();
    for (int j = 0; j < end; j += LANES) {
        vec v = vec_exp(vec_load(score + j) - vec_set1(base));
        attention_ask_value(s);
        vec_store(score + j, v);
        sum = sum + v;
    }
#if defined(BODY_ROUNDS)
    if (s->form == SCORE_ROUNDED)
        sum = attention_round(score, end);
#endif
    return sum;
}

/* Turns the scores of the pairs in view into weights and merges the span into their maxima and
 * sums: step by step for all of them, since each step waits for the one before. */
static void attention_softmax(const struct attention_tile *t, struct attention_state *s,
                              int32_t base, const struct attention_view *v)
{
    const int from = v->first * t->heads, to = v->last * t->heads;
    float lowest[ATTENTION_QUERIES + ATTENTION_LANES_MAX], *fade = s->fade + from;
    s->asked = 0;
    for (int i = from; i < to; i++) {
        const int row = i / t->heads;
        const float top = attention_top(t->op, s->score + i * OPS_KV_SPAN,
                                        attention_skip(t, row, base), attention_seen(t, row, base));
        const float max = top > s->max[i] ? top : s->max[i];
        lowest[i - from] = max == -INFINITY ? 0 : max; /* all are: weights 0, not NaN */
        fade[i - from] = s->max[i] - lowest[i - from];
        s->max[i] = max;
    }
    for (int i = 0; i < to - from; i += LANES)
        vec_store(fade + i, vec_exp(vec_load(fade + i)));
    for (int i = from; i < to; i++) {
        const vec sum = attention_weigh(s, s->score + i * OPS_KV_SPAN, lowest[i - from],
                                        attention_seen(t, i / t->heads, base));
        s->sum[i] = s->sum[i] * s->fade[i] + vec_reduce_add(sum);
    }
}

/* Adds elements from `d` on of the values of positions [range[0], range[1]) to pairs [from, to),
 * which all see just these. */
struct attention_part {
    size_t d, n;
    int range[2], from, to;
};

static void attention_mix(struct attention_state *s, struct span_rows values,
                          const struct attention_part *p)
{
    for (int i = p->from, rows; i < p->to; i += rows, values.ahead = NULL) {
        struct mix_args m = {
            .acc = s->acc + (size_t)i * s->acc_stride + p->d,
            .acc_stride = s->acc_stride,
            .weight = s->score + i * OPS_KV_SPAN,
            .fade = s->fade + i,
            .v = values,
            .range = {p->range[0], p->range[1]},
        };
        rows = tile_rows(p->to - i);
#if defined(BODY_ROUNDS)
        if (s->form == SCORE_ROUNDED)
            mix16_fns[tile_place(rows)](&m, p->n);
        else
#endif
            mix_fns[values.t][tile_place(rows)](&m, p->n);
    }
}

/* Rows that see the same positions together. */
static void attention_mix_rows(const struct attention_tile *t, struct attention_state *s,
                               int32_t base, const struct attention_view *v)
{
    struct attention_part p = {.n = SCORE_ELEMENTS};
    for (; p.d < s->out_dim; p.d += p.n) {
        p.n = s->out_dim - p.d < p.n ? s->out_dim - p.d : p.n;
        struct span_rows values = attention_rows(s, KV_VALUE, (const size_t[2]){p.d, p.d + p.n},
                                                 v->range, (v->last - v->first) * t->heads);
        for (int row = v->first, next; row < v->last; row = next, values.ahead = NULL) {
            p.range[0] = attention_skip(t, row, base);
            p.range[1] = attention_seen(t, row, base);
            for (next = row + 1; next < v->last && attention_seen(t, next, base) == p.range[1] &&
                                 attention_skip(t, next, base) == p.range[0];
                 next++)
                ;
            p.from = row * t->heads;
            p.to = next * t->heads;
            attention_mix(s, values, &p);
        }
    }
}

/* s->now has been located, and s->ahead where there is a next span. */
static void attention_span(const struct attention_tile *t, struct attention_state *s, int32_t base,
                           const struct attention_view *v)
{
    attention_scores(s, v->range, v->first * t->heads, v->last * t->heads);
    attention_softmax(t, s, base, v);
    attention_mix_rows(t, s, base, v);
}

#endif
