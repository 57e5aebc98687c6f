/* Tiles of attention scores: queries times the keys of one span.
 *
 * Keys are turned around first, SCORE_ELEMENTS of each at a time, into a panel whose row d holds
 * element d of all positions of the span: lanes are positions, and nothing has to be summed across
 * them. Every score is one chain over the elements in ascending order; a tile only decides which
 * chains run side by side. Where the body can part two bf16 in a lane, a row of the panel holds
 * pairs of elements. It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_ATTENTION_SCORE_BODY_H
#define KERNELS_CPU_ATTENTION_SCORE_BODY_H

#include "kernels/cpu/cpu.h"

#define SCORE_ELEMENTS 64

/* What a lane of the panel holds; or there is no panel, but tiles (tiles_body.h). */
enum score_form { SCORE_FLOATS, SCORE_PAIRS, SCORE_ROUNDED, SCORE_FORMS, SCORE_TILES };

/* Rows of one span's keys or values: elements from `offset` bytes on, of type t. */
struct span_rows {
    const char *const *row;   /* [OPS_KV_SPAN] */
    const char *const *ahead; /* rows that are read next, or NULL */
    size_t offset;
    enum dtype t;
};

INLINE void rows_prefetch(const char *row, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(row + i, 0, 2);
}

/* LANES lanes of the panel from element i on; `left` elements there are, or more than fit. */
INLINE vec panel_load(const char *row, enum dtype t, enum score_form form, size_t i, int left)
{
#if defined(BODY_PAIRS)
    if (form != SCORE_FLOATS)
        return left >= 2 * LANES ? vec_load(row + 2 * i) : vec_load_pairs_n(row + 2 * i, left);
#endif
    (void)form;
    return left >= LANES ? vec_load_as(row, t, i) : vec_load_as_n(row, t, i, left);
}

/* t and form are constants where this is inlined. Positions [from, to), multiples of LANES. */
INLINE void panel_fill(float *panel, const struct span_rows *r, int n, const int range[2],
                       enum dtype t, enum score_form form)
{
    const int step = form == SCORE_FLOATS ? LANES : 2 * LANES;
    const size_t bytes = (size_t)step * (t == DTYPE_F32 ? 4 : 2);
    for (int g = range[0]; g < range[1]; g += LANES) {
        for (int i = 0; i < n; i += step) {
            vec v[LANES];
            UNROLL
            for (int j = 0; j < LANES; j++)
                v[j] = panel_load(r->row[g + j] + r->offset, t, form, (size_t)i, n - i);
            if (r->ahead)
                for (int j = 0; j < LANES; j++)
                    rows_prefetch(r->ahead[g + j] + r->offset + (size_t)i * (bytes / (size_t)step),
                                  bytes);
            vec_transpose(v);
            int lanes = form == SCORE_FLOATS ? n - i : (n - i + 1) / 2;
            float *to = panel + (size_t)(i / step * LANES * OPS_KV_SPAN + g);
            if (lanes >= LANES) {
                UNROLL
                for (int k = 0; k < LANES; k++)
                    vec_store(to + k * OPS_KV_SPAN, v[k]);
            } else {
                for (int k = 0; k < lanes; k++)
                    vec_store(to + k * OPS_KV_SPAN, v[k]);
            }
        }
    }
}

#define PANEL_CASE(name, t, form)                                                                  \
    static __attribute__((noinline)) void name(float *panel, const struct span_rows *r, int n,     \
                                               const int range[2])                                 \
    {                                                                                              \
        panel_fill(panel, r, n, range, t, form);                                                   \
    }

PANEL_CASE(panel_f32, DTYPE_F32, SCORE_FLOATS)
PANEL_CASE(panel_f16, DTYPE_F16, SCORE_FLOATS)
#if defined(BODY_PAIRS)
PANEL_CASE(panel_bf16, DTYPE_BF16, SCORE_PAIRS)
#else
PANEL_CASE(panel_bf16, DTYPE_BF16, SCORE_FLOATS)
#endif

typedef void panel_fn(float *panel, const struct span_rows *r, int n, const int range[2]);

static panel_fn *const panel_fns[DTYPE_COUNT] = {
    [DTYPE_F32] = panel_f32, [DTYPE_BF16] = panel_bf16, [DTYPE_F16] = panel_f16};

/* score[i][j] (+)= sum over n elements of q[i] * panel[.][j], positions [range[0], range[1]). */
struct score_args {
    const float *q; /* rounded: pairs of bf16 */
    size_t q_stride;
    const float *panel;
    float *score; /* [rows][OPS_KV_SPAN] */
    int n;        /* rows of the panel */
    bool first;
    int range[2];
};

INLINE vec score_step(vec sum, const float *q, vec keys, enum score_form form)
{
#if defined(BODY_PAIRS)
    if (form == SCORE_PAIRS) {
        sum = vec_fma(vec_set1(q[0]), vec_pairs_first(keys), sum);
        return vec_fma(vec_set1(q[1]), vec_pairs_second(keys), sum);
    }
#endif
#if defined(BODY_ROUNDS)
    if (form == SCORE_ROUNDED)
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(vec_set1(q[0])),
                                (__m512bh)_mm512_castps_si512(keys));
#endif
    (void)form;
    return vec_fma(vec_set1(q[0]), keys, sum);
}

/* rows, vecs and form are constants where this is inlined, and the arrays registers. */
INLINE void score_tile(const struct score_args *a, int at, int rows, int vecs, enum score_form form)
{
    vec sum[MIX_ROWS * MIX_VECS];
    const int width = form == SCORE_PAIRS ? 2 : 1;
    const float *panel = a->panel + at;
    float *score = a->score + at;
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        sum[i] =
            a->first ? vec_zero() : vec_load(score + i / vecs * OPS_KV_SPAN + i % vecs * LANES);
    for (int k = 0; k < a->n; k++, panel += OPS_KV_SPAN) {
        vec keys[MIX_VECS];
        UNROLL
        for (int e = 0; e < vecs; e++)
            keys[e] = vec_load(panel + e * LANES);
        UNROLL
        for (int i = 0; i < rows; i++) {
            const float *q = a->q + (size_t)i * a->q_stride + (size_t)(k * width);
            UNROLL
            for (int e = 0; e < vecs; e++)
                sum[i * vecs + e] = score_step(sum[i * vecs + e], q, keys[e], form);
        }
    }
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        vec_store(score + i / vecs * OPS_KV_SPAN + i % vecs * LANES, sum[i]);
}

#define SCORE_CASE(name, rows, form)                                                               \
    static __attribute__((noinline)) void name(const struct score_args *a)                         \
    {                                                                                              \
        int at = a->range[0];                                                                      \
        for (; at + MIX_VECS * LANES <= a->range[1]; at += MIX_VECS * LANES)                       \
            score_tile(a, at, rows, MIX_VECS, form);                                               \
        for (; at < a->range[1]; at += LANES)                                                      \
            score_tile(a, at, rows, 1, form);                                                      \
    }

typedef void score_fn(const struct score_args *a);

SCORE_CASE(score_floats_one, 1, SCORE_FLOATS)
SCORE_CASE(score_floats_two, 2, SCORE_FLOATS)
SCORE_CASE(score_floats_all, MIX_ROWS, SCORE_FLOATS)
#if defined(BODY_PAIRS)
SCORE_CASE(score_pairs_one, 1, SCORE_PAIRS)
SCORE_CASE(score_pairs_two, 2, SCORE_PAIRS)
SCORE_CASE(score_pairs_all, MIX_ROWS, SCORE_PAIRS)
#endif
#if defined(BODY_ROUNDS)
SCORE_CASE(score_rounded_one, 1, SCORE_ROUNDED)
SCORE_CASE(score_rounded_two, 2, SCORE_ROUNDED)
SCORE_CASE(score_rounded_all, MIX_ROWS, SCORE_ROUNDED)
#endif

static score_fn *const score_fns[SCORE_FORMS][3] = {
    [SCORE_FLOATS] = {score_floats_one, score_floats_two, score_floats_all},
#if defined(BODY_PAIRS)
    [SCORE_PAIRS] = {score_pairs_one, score_pairs_two, score_pairs_all},
#endif
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
