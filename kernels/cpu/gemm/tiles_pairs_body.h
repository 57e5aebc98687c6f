/* Products of bf16 weights in panels (kernels/panels.h) with rows of bf16, in tiles of pairs.
 *
 * A span of 32 columns is one product of tiles: the sum of its even columns, that of its odd
 * ones, and both added to what was there. That is the order for any number of rows: a single one,
 * for which tiles would be mostly empty, is done so by vectors. Two tiles of rows meet two panels
 * at a time; of many rows a piece of the panels stays in L1 while they pass by, the sums waiting
 * in memory as they are.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_TILES_PAIRS_BODY_H
#define KERNELS_CPU_GEMM_TILES_PAIRS_BODY_H

#include <assert.h>

#include "kernels/cpu/vec/tiles.h"
#include "kernels/panels.h"

#define PAIRS_ROWS 512 /* of x at a time */
#define PAIRS_SPANS 8  /* of a piece */
#define PAIRS_AHEAD 8192

struct pairs_run {
    const struct op_gemm *op;
    const char *x; /* of the block's first row */
    size_t x_stride, spans;
    size_t rows;          /* of the block */
    size_t first, n;      /* spans of the piece */
    const char *w[2];     /* the panels' first span */
    size_t panels;        /* 1 or 2 */
    uint8_t upper, lower; /* rows that the tiles are set for */
    bool ahead;
    float (*sum)[PAIRS_ROWS * TILE_ROWS]; /* [2] */
};

/* ---- one row, in vectors ---- */

INLINE vec pairs_even(__m512i v)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
INLINE vec pairs_odd(__m512i v)
{
    return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
}

static __attribute__((noinline)) void pairs_row(const struct pairs_run *b, float *out)
{
    const unsigned csr = flush_begin();
    vec sum = vec_zero();
    for (size_t s = 0; s < b->spans; s++) {
        const char *w = b->w[0] + s * PANELS_SPAN_BYTES, *x = b->x + s * TILE_ROW_BYTES;
        vec even = vec_zero(), odd = vec_zero();
        UNROLL
        for (int k = 0; k < PANELS_COLS / 2; k++) {
            int32_t pair;
            memcpy(&pair, x + 4 * k, sizeof pair);
            __m512i xv = _mm512_set1_epi32(pair), wv = _mm512_loadu_si512(w + 64 * k);
            __builtin_prefetch(w + 64 * k + PAIRS_AHEAD);
            even = vec_fma(pairs_even(xv), pairs_even(wv), even);
            odd = vec_fma(pairs_odd(xv), pairs_odd(wv), odd);
        }
        sum = sum + (even + odd);
    }
    vec_store(out, sum);
    flush_end(csr);
}

/* ---- more of them, in tiles ---- */

static void pairs_configure(struct pairs_run *b, size_t upper, size_t lower)
{
    struct tile_config c = {0};
    if (b->upper == upper && b->lower == lower)
        return;
    b->upper = (uint8_t)upper;
    b->lower = (uint8_t)lower;
    for (int i = 0; i < 2; i++) {
        tile_set(&c, i, upper, TILE_ROW_BYTES);
        tile_set(&c, 6 + i, TILE_ROWS, TILE_ROW_BYTES);
        if (lower)
            tile_set(&c, 2 + i, lower, TILE_ROW_BYTES);
    }
    tile_set(&c, 4, upper, TILE_ROW_BYTES);
    if (lower)
        tile_set(&c, 5, lower, TILE_ROW_BYTES);
    tiles_begin(&c);
}

/* What is constant where this is inlined: whether there is a second tile of rows, and a second
 * panel. */
struct pairs_form {
    bool lower, right;
};

INLINE void pairs_load(float *left, float *right, struct pairs_form f)
{
    TILE_LOAD(0, left, TILE_ROW_BYTES);
    if (f.right)
        TILE_LOAD(1, right, TILE_ROW_BYTES);
    if (f.lower)
        TILE_LOAD(2, left + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
    if (f.lower && f.right)
        TILE_LOAD(3, right + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
}

INLINE void pairs_zero(struct pairs_form f)
{
    TILE_ZERO(0);
    if (f.right)
        TILE_ZERO(1);
    if (f.lower)
        TILE_ZERO(2);
    if (f.lower && f.right)
        TILE_ZERO(3);
}

INLINE void pairs_store(float *left, float *right, struct pairs_form f)
{
    TILE_STORE(0, left, TILE_ROW_BYTES);
    if (f.right)
        TILE_STORE(1, right, TILE_ROW_BYTES);
    if (f.lower)
        TILE_STORE(2, left + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
    if (f.lower && f.right)
        TILE_STORE(3, right + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
}

INLINE void pairs_ahead(const char *w)
{
    for (size_t i = 0; i < PANELS_SPAN_BYTES; i += 64)
        __builtin_prefetch(w + PAIRS_AHEAD + i);
}

/* Up to 32 rows, from `row` of the block on. */
INLINE void pairs_tile(struct pairs_run *b, size_t row, struct pairs_form f)
{
    float *left = b->sum[0] + row * TILE_ROWS, *right = b->sum[1] + row * TILE_ROWS;
    const char *x = b->x + row * b->x_stride + b->first * TILE_ROW_BYTES;
    const char *w0 = b->w[0] + b->first * PANELS_SPAN_BYTES;
    const char *w1 = b->w[1] + b->first * PANELS_SPAN_BYTES;
    if (b->first == 0)
        pairs_zero(f);
    else
        pairs_load(left, right, f);
    for (size_t s = 0; s < b->n; s++) {
        TILE_LOAD(4, x, b->x_stride);
        TILE_LOAD(6, w0, TILE_ROW_BYTES);
        TILE_DOT_BF16(0, 4, 6);
        if (f.right) {
            TILE_LOAD(7, w1, TILE_ROW_BYTES);
            TILE_DOT_BF16(1, 4, 7);
        }
        if (f.lower) {
            TILE_LOAD(5, x + TILE_ROWS * b->x_stride, b->x_stride);
            TILE_DOT_BF16(2, 5, 6);
            if (f.right)
                TILE_DOT_BF16(3, 5, 7);
        }
        if (b->ahead)
            pairs_ahead(w0);
        if (b->ahead && f.right)
            pairs_ahead(w1);
        x += TILE_ROW_BYTES;
        w0 += PANELS_SPAN_BYTES;
        w1 += PANELS_SPAN_BYTES;
    }
    pairs_store(left, right, f);
}

#define PAIRS_CASE(name, lower, right)                                                             \
    static __attribute__((noinline)) void name(struct pairs_run *b, size_t row)                    \
    {                                                                                              \
        pairs_tile(b, row, (struct pairs_form){lower, right});                                     \
    }
PAIRS_CASE(pairs_one, false, false)
PAIRS_CASE(pairs_wide, false, true)
PAIRS_CASE(pairs_tall, true, false)
PAIRS_CASE(pairs_four, true, true)

static void pairs_piece(struct pairs_run *b)
{
    static void (*const fns[2][2])(struct pairs_run *, size_t) = {{pairs_one, pairs_wide},
                                                                  {pairs_tall, pairs_four}};
    for (size_t row = 0; row < b->rows; row += 2 * TILE_ROWS) {
        const size_t left = b->rows - row, upper = left < TILE_ROWS ? left : TILE_ROWS;
        const size_t lower = left - upper < TILE_ROWS ? left - upper : TILE_ROWS;
        pairs_configure(b, upper, lower);
        fns[lower > 0][b->panels - 1](b, row);
    }
}

static void pairs_strip(struct pairs_run *b, const struct packed_strip *s)
{
    const size_t panel_bytes = b->spans * PANELS_SPAN_BYTES;
    b->x = (const char *)b->op->x16 + s->m * b->x_stride;
    b->w[0] = (const char *)b->op->w->data + s->panel * panel_bytes;
    b->w[1] = s->panels > 1 ? b->w[0] + panel_bytes : b->w[0];
    b->rows = s->rows;
    b->panels = s->panels;
    if (s->rows == 1) {
        pairs_row(b, b->sum[0]);
    } else {
        const size_t most = s->rows > 2 * TILE_ROWS ? PAIRS_SPANS : b->spans;
        b->ahead = s->rows <= 2 * TILE_ROWS;
        for (b->first = 0; b->first < b->spans; b->first += b->n) {
            b->n = b->spans - b->first < most ? b->spans - b->first : most;
            pairs_piece(b);
        }
    }
    for (size_t i = 0; i < s->panels; i++)
        packed_write(b->op, b->sum[i], &(struct packed_strip){s->m, s->rows, s->panel + i, 1});
}

static void tiles_pairs(const struct op_gemm *op, struct packed_share share)
{
    float sum[2][PAIRS_ROWS * TILE_ROWS];
    struct pairs_run b = {.op = op,
                          .sum = sum,
                          .x_stride = rows16_stride(op->w->cols) * sizeof(uint16_t),
                          .spans = panels_spans(op->w->cols)};
    struct packed_strip s;
    assert(op->x16);
    for (s.m = share.m_begin; s.m < share.m_end; s.m += s.rows) {
        s.rows = share.m_end - s.m < PAIRS_ROWS ? share.m_end - s.m : PAIRS_ROWS;
        const size_t most = s.rows > 1 ? 2 : 1;
        for (s.panel = share.begin; s.panel < share.end; s.panel += s.panels) {
            s.panels = share.end - s.panel < most ? share.end - s.panel : most;
            pairs_strip(&b, &s);
        }
    }
    if (b.upper > 0)
        tiles_end();
}

#endif
