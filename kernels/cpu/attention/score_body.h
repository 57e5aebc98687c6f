/* Tiles of attention scores: queries times the keys of one span.
 *
 * A score is the sum of LANES chains, one for each lane of a vector of elements as they are stored,
 * each over its elements in ascending order, and they are added by halves: lanes LANES / 2 apart,
 * then half of that, down to neighbours. Of bf16 a lane holds two neighbours: one product where the
 * body has such, else the even one's and then the odd one's. Of more than SCORE_ELEMENTS elements
 * each so many are a sum of their own.
 *
 * A few queries are multiplied with the keys as they lie, and lanes are summed at the end. For many
 * the keys are turned around first, into a panel whose row k holds lane k of the keys, as
 * score_lanes() counts them, of all positions of the span: lanes are positions, and a chain is
 * every LANES'th row. It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_ATTENTION_SCORE_BODY_H
#define KERNELS_CPU_ATTENTION_SCORE_BODY_H

#include "kernels/cpu/attention/kv_widen_body.h"
#include "kernels/cpu/cpu.h"

#define SCORE_ELEMENTS 64
#define SCORE_FEW 8 /* queries that need no panel */
#define SCORE_VECS 2

/* What a lane holds: an element, or two of them in bf16; or there are tiles (tiles_body.h). */
enum score_form { SCORE_FLOATS, SCORE_ROUNDED, SCORE_FORMS, SCORE_TILES };

/* Rows of one span's keys or values: elements from `offset` bytes on, of type t. */
struct span_rows {
    const char *const *row;   /* [OPS_KV_SPAN] */
    const char *const *ahead; /* rows that are read next, or NULL */
    size_t offset;
    enum dtype t;
    /* Of quantized types, of which SCORE_ELEMENTS are read: [their groups][OPS_KV_SPAN]. */
    const float *scale, *least;
    bool near; /* what lies ahead is wanted in the first level of cache */
    int asked; /* rows ahead that have been asked for already */
};

/* score[i][j] (+)= sum over n elements of q[i] * key[j], positions [range[0], range[1]). */
struct score_args {
    /* [lanes of a key], as score_splits() says, zeros where a lane has no element; rounded: pairs
     * of bf16. */
    const float *q;
    size_t q_stride;
    const float *panel; /* [lanes of a key][OPS_KV_SPAN]; not for a few */
    float *score;       /* [rows][OPS_KV_SPAN] */
    int n, lanes;
    bool first;
    int range[2]; /* multiples of LANES */
};

#define ROWS_LINE 64 /* bytes that are asked for at a time */

INLINE void rows_prefetch(const char *row, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += ROWS_LINE)
        __builtin_prefetch(row + i, 0, 2);
}

INLINE void rows_ask(const char *at, size_t bytes, bool near)
{
    if (!near) {
        rows_prefetch(at, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i += ROWS_LINE)
        __builtin_prefetch(at + i);
}

/* Bytes of n elements. */
INLINE size_t rows_bytes(enum dtype t, size_t n)
{
    return kv_is_quantized(t) ? kv_codes_bytes(t, n) : n * (t == DTYPE_F32 ? 4 : 2);
}

/* A vector of row j, of a quantized type, from element i behind `offset` on: the same as kv_widen()
 * makes of it. */
INLINE vec rows_widen(const struct span_rows *r, int j, enum dtype t, size_t i)
{
    const char *p = r->row[j] + r->offset + kv_codes_bytes(t, i);
    const size_t at = t == DTYPE_INT4 ? i / KV_GROUP_4 * OPS_KV_SPAN + (size_t)j : (size_t)j;
    const vec scale = vec_set1(r->scale[at]);
    return kv_widen_scaled(p, t, scale, vec_set1(t == DTYPE_INT4 ? r->least[at] : 0));
}

/* Elements in a vector of a key as it is loaded. */
INLINE int score_width(enum dtype t)
{
    return t == DTYPE_BF16 ? 2 * LANES : LANES;
}

/* Whether each vector of keys or values is made two, of its even elements and of its odd ones, an
 * operation each. Queries and weighted sums then lie so, 2 * LANES elements at a time. */
INLINE bool score_splits(enum dtype t, enum score_form form)
{
    return t == DTYPE_BF16 && form == SCORE_FLOATS;
}

/* Lanes of n elements, up to whole vectors. */
INLINE int score_lanes(int n, enum dtype t, enum score_form form)
{
    const int vecs = (n + score_width(t) - 1) / score_width(t);
    return vecs * (score_splits(t, form) ? 2 * LANES : LANES);
}

/* A vector of a key, from element i on; `left` elements there are, or more than fit. Of bf16 pairs,
 * whatever the form. */
INLINE vec key_load(const char *row, enum dtype t, size_t i, int left)
{
    if (t == DTYPE_BF16)
        return vec_load_pairs(row + 2 * i, left);
    return left >= LANES ? vec_load_as(row, t, i) : vec_load_as_n(row, t, i, left);
}

INLINE vec score_step(vec sum, vec q, vec keys, enum score_form form)
{
#if defined(BODY_ROUNDS)
    if (form == SCORE_ROUNDED)
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(q),
                                (__m512bh)_mm512_castps_si512(keys));
#endif
    (void)form;
    return vec_fma(q, keys, sum);
}

INLINE void score_put(float *to, vec sum, bool first)
{
    if (!first)
        sum = vec_load(to) + sum;
    vec_store(to, sum);
}

/* ---- a few queries ---- */

/* Scores of `rows` queries at the LANES positions from range[0] on. rows, n, t and form are
 * constants where this is inlined, but for n where it is no multiple of a vector. */
INLINE void few_tile(const struct score_args *a, const struct span_rows *r, int rows, int n,
                     enum dtype t, enum score_form form)
{
    const int width = score_width(t), groups = LANES / SUM_GROUP, g = a->range[0];
    const bool splits = score_splits(t, form);
    const char *const *row = r->row + g, *const *ahead = r->ahead ? r->ahead + g : NULL;
    const size_t offset = r->offset, stride = a->q_stride;
    const bool codes = kv_is_quantized(t), near = codes && r->near;
    vec part[MIX_ROWS][LANES / SUM_GROUP];
    NO_UNROLL
    for (int m = 0; m < groups; m++) {
        vec sum[MIX_ROWS][SUM_GROUP];
        for (int j = 0; j < SUM_GROUP && codes && ahead; j++)
            rows_ask(ahead[m * SUM_GROUP + j] + offset, rows_bytes(t, (size_t)n), near);
        UNROLL
        for (int i = 0; i < rows * SUM_GROUP; i++)
            sum[i / SUM_GROUP][i % SUM_GROUP] = vec_zero();
        UNROLL
        for (int i = 0; i < n; i += width) {
            const float *q = a->q + score_lanes(i, t, form);
            UNROLL
            for (int j = 0; j < SUM_GROUP; j++) {
                const vec key = kv_is_quantized(t)
                                    ? rows_widen(r, g + j * groups + m, t, (size_t)i)
                                    : key_load(row[j * groups + m] + offset, t, (size_t)i, n - i);
                const vec even = splits ? vec_even_of(key) : key;
                const size_t at = rows_bytes(t, (size_t)i);
                if (!codes && ahead && at % ROWS_LINE == 0) /* no load waits behind a crowd */
                    rows_prefetch(ahead[m * SUM_GROUP + j] + offset + at, 1);
                UNROLL
                for (int k = 0; k < rows; k++)
                    sum[k][j] = score_step(sum[k][j], vec_load(q + (size_t)k * stride), even, form);
                UNROLL
                for (int k = 0; k < rows && splits; k++)
                    sum[k][j] = score_step(sum[k][j], vec_load(q + (size_t)k * stride + LANES),
                                           vec_odd_of(key), form);
            }
        }
        UNROLL
        for (int k = 0; k < rows; k++)
            part[k][m] = vec_sum_group(sum[k]);
    }
    UNROLL
    for (int k = 0; k < rows; k++)
        score_put(a->score + k * OPS_KV_SPAN + g, vec_sum_groups(part[k]), a->first);
}

INLINE void few_scores(const struct score_args *all, const struct span_rows *r, int rows,
                       enum dtype t, enum score_form form)
{
    struct score_args a = *all;
    struct span_rows keys = *r;
    for (int i = 0, n; i < rows; i += n, keys.ahead = NULL) {
        n = rows - i >= MIX_ROWS && a.n == SCORE_ELEMENTS ? MIX_ROWS : 1;
        for (a.range[0] = all->range[0]; a.range[0] < a.range[1]; a.range[0] += LANES) {
            if (a.n != SCORE_ELEMENTS && !kv_is_quantized(t))
                few_tile(&a, &keys, 1, a.n, t, form);
            else if (n == 1)
                few_tile(&a, &keys, 1, SCORE_ELEMENTS, t, form);
            else
                few_tile(&a, &keys, MIX_ROWS, SCORE_ELEMENTS, t, form);
        }
        a.q += (size_t)n * a.q_stride;
        a.score += n * OPS_KV_SPAN;
    }
}

#define FEW_CASE(name, t, form)                                                                    \
    static __attribute__((noinline)) void name(const struct score_args *a,                         \
                                               const struct span_rows *r, int rows)                \
    {                                                                                              \
        few_scores(a, r, rows, t, form);                                                           \
    }

FEW_CASE(few_f32, DTYPE_F32, SCORE_FLOATS)
FEW_CASE(few_f16, DTYPE_F16, SCORE_FLOATS)
FEW_CASE(few_bf16, DTYPE_BF16, SCORE_FLOATS)
FEW_CASE(few_fp8, DTYPE_FP8, SCORE_FLOATS)
FEW_CASE(few_int8, DTYPE_INT8, SCORE_FLOATS)
FEW_CASE(few_int4, DTYPE_INT4, SCORE_FLOATS)
#if defined(BODY_ROUNDS)
FEW_CASE(few_rounded, DTYPE_BF16, SCORE_ROUNDED)
#endif

typedef void few_fn(const struct score_args *a, const struct span_rows *r, int rows);

static few_fn *const few_fns[SCORE_FORMS][DTYPE_KV_COUNT] = {
    [SCORE_FLOATS] = {[DTYPE_F32] = few_f32,
                      [DTYPE_F16] = few_f16,
                      [DTYPE_BF16] = few_bf16,
                      [DTYPE_FP8] = few_fp8,
                      [DTYPE_INT8] = few_int8,
                      [DTYPE_INT4] = few_int4},
#if defined(BODY_ROUNDS)
    [SCORE_ROUNDED] = {[DTYPE_BF16] = few_rounded},
#endif
};

/* ---- many ---- */

/* t and form are constants where this is inlined. */
INLINE void panel_fill(float *panel, const struct score_args *a, const struct span_rows *r,
                       enum dtype t, enum score_form form)
{
    const int width = score_width(t), each = t == DTYPE_F32 ? 4 : 2;
    const bool splits = score_splits(t, form);
    for (int g = a->range[0]; g < a->range[1]; g += LANES) {
        for (int i = 0; i < a->n; i += width) {
            vec v[LANES];
            UNROLL
            for (int j = 0; j < LANES; j++)
                v[j] = key_load(r->row[g + j] + r->offset, t, (size_t)i, a->n - i);
            if (r->ahead)
                for (int j = 0; j < LANES; j++)
                    rows_prefetch(r->ahead[g + j] + r->offset + i * each, (size_t)(width * each));
            vec_transpose(v);
            float *to = panel + (size_t)(score_lanes(i, t, form) * OPS_KV_SPAN + g);
            UNROLL
            for (int k = 0; k < LANES; k++) {
                vec_store(to + k * OPS_KV_SPAN, splits ? vec_even_of(v[k]) : v[k]);
                if (splits)
                    vec_store(to + (LANES + k) * OPS_KV_SPAN, vec_odd_of(v[k]));
            }
        }
    }
}

#define PANEL_CASE(name, t, form)                                                                  \
    static __attribute__((noinline)) void name(float *panel, const struct score_args *a,           \
                                               const struct span_rows *r)                          \
    {                                                                                              \
        panel_fill(panel, a, r, t, form);                                                          \
    }

PANEL_CASE(panel_f32, DTYPE_F32, SCORE_FLOATS)
PANEL_CASE(panel_f16, DTYPE_F16, SCORE_FLOATS)
PANEL_CASE(panel_bf16, DTYPE_BF16, SCORE_FLOATS)
#if defined(BODY_ROUNDS)
PANEL_CASE(panel_rounded, DTYPE_BF16, SCORE_ROUNDED)
#endif

typedef void panel_fn(float *panel, const struct score_args *a, const struct span_rows *r);

static panel_fn *const panel_fns[SCORE_FORMS][DTYPE_COUNT] = {
    [SCORE_FLOATS] = {[DTYPE_F32] = panel_f32, [DTYPE_F16] = panel_f16, [DTYPE_BF16] = panel_bf16},
#if defined(BODY_ROUNDS)
    [SCORE_ROUNDED] = {[DTYPE_BF16] = panel_rounded},
#endif
};

/* sum = the chain of a lane, of each of the tile's scores. rows, vecs and form are constants where
 * this is inlined, and the arrays registers. */
INLINE void score_chain(const struct score_args *a, int lane, vec *sum, const int shape[2],
                        enum score_form form)
{
    const int rows = shape[0], vecs = shape[1];
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        sum[i] = vec_zero();
    for (int k = lane; k < a->lanes; k += LANES) {
        vec keys[SCORE_VECS];
        UNROLL
        for (int e = 0; e < vecs; e++)
            keys[e] = vec_load(a->panel + k * OPS_KV_SPAN + e * LANES);
        UNROLL
        for (int i = 0; i < rows; i++) {
            const vec q = vec_set1(a->q[(size_t)i * a->q_stride + (size_t)k]);
            UNROLL
            for (int e = 0; e < vecs; e++)
                sum[i * vecs + e] = score_step(sum[i * vecs + e], q, keys[e], form);
        }
    }
}

/* sum = (l + l + LANES / 2) + (l + LANES / 4 + l + 3 LANES / 4), chains of lanes. */
INLINE void score_four(const struct score_args *a, int lane, vec *sum, const int shape[2],
                       enum score_form form)
{
    const int tile = shape[0] * shape[1];
    vec b[MIX_ROWS * SCORE_VECS], c[MIX_ROWS * SCORE_VECS];
    score_chain(a, lane, sum, shape, form);
    score_chain(a, lane + LANES / 2, b, shape, form);
    UNROLL
    for (int i = 0; i < tile; i++)
        sum[i] = sum[i] + b[i];
    score_chain(a, lane + LANES / 4, b, shape, form);
    score_chain(a, lane + LANES / 4 * 3, c, shape, form);
    UNROLL
    for (int i = 0; i < tile; i++)
        sum[i] = sum[i] + (b[i] + c[i]);
}

INLINE void score_tile(const struct score_args *all, int at, int rows, int vecs,
                       enum score_form form)
{
    const int shape[2] = {rows, vecs};
    struct score_args a = *all;
    a.panel += at;
    a.score += at;
    vec sum[MIX_ROWS * SCORE_VECS], half[MIX_ROWS * SCORE_VECS], more[MIX_ROWS * SCORE_VECS];
    score_four(&a, 0, sum, shape, form);
    if (LANES > 4) {
        score_four(&a, LANES / 8, half, shape, form);
        UNROLL
        for (int i = 0; i < rows * vecs; i++)
            sum[i] = sum[i] + half[i];
    }
    if (LANES > 8) {
        score_four(&a, LANES / 16, half, shape, form);
        score_four(&a, LANES / 16 + LANES / 8, more, shape, form);
        UNROLL
        for (int i = 0; i < rows * vecs; i++)
            sum[i] = sum[i] + (half[i] + more[i]);
    }
    UNROLL
    for (int i = 0; i < rows * vecs; i++) {
        float *to = a.score + i / vecs * OPS_KV_SPAN + i % vecs * LANES;
        score_put(to, sum[i], a.first);
    }
}

#define SCORE_CASE(name, rows, form)                                                               \
    static __attribute__((noinline)) void name(const struct score_args *a)                         \
    {                                                                                              \
        int at = a->range[0];                                                                      \
        for (; at + SCORE_VECS * LANES <= a->range[1]; at += SCORE_VECS * LANES)                   \
            score_tile(a, at, rows, SCORE_VECS, form);                                             \
        for (; at < a->range[1]; at += LANES)                                                      \
            score_tile(a, at, rows, 1, form);                                                      \
    }

typedef void score_fn(const struct score_args *a);

SCORE_CASE(score_floats_one, 1, SCORE_FLOATS)
SCORE_CASE(score_floats_two, 2, SCORE_FLOATS)
SCORE_CASE(score_floats_all, MIX_ROWS, SCORE_FLOATS)
#if defined(BODY_ROUNDS)
SCORE_CASE(score_rounded_one, 1, SCORE_ROUNDED)
SCORE_CASE(score_rounded_two, 2, SCORE_ROUNDED)
SCORE_CASE(score_rounded_all, MIX_ROWS, SCORE_ROUNDED)
#endif

static score_fn *const score_fns[SCORE_FORMS][3] = {
    [SCORE_FLOATS] = {score_floats_one, score_floats_two, score_floats_all},
#if defined(BODY_ROUNDS)
    [SCORE_ROUNDED] = {score_rounded_one, score_rounded_two, score_rounded_all},
#endif
};

/* The largest tile that fits in what is left, and its place above. */
INLINE int tile_rows(int left)
{
    return left >= MIX_ROWS ? MIX_ROWS : left >= 2 ? 2 : 1;
}
INLINE int tile_place(int rows)
{
    return rows == 1 ? 0 : rows == MIX_ROWS ? 2 : 1;
}

#endif
