/* Products of bytes that have one scale for a whole row, with rows of bytes that have one as well
 * (rows8.whole): sums of integers from one end of a row to the other, exact in whatever order they
 * are added up, and two multiplications in the end. Vectors, for CPUs without tiles, which have
 * tiles_lines_body.h. Compiled once per instruction set (see cpu.h).
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_WHOLE_BODY_H
#define KERNELS_CPU_GEMM_WHOLE_BODY_H

#include "kernels/cpu/gemm/packed_body.h"

#define WHOLE_SPANS 16       /* of a piece */
#define WHOLE_COLS_MAX 65536 /* of a row, for 32 bits to hold the sum of so many products */

/* Whether a gemm is one of these. */
static bool packed_is_whole(const struct packed *p, const struct rows8 *x)
{
    return x->whole && p->bits == 8 && p->group == p->cols && !p->has_min && !p->has_table &&
           x->spans % 2 == 0 && packed_spans(p) == (size_t)x->spans && p->cols <= WHOLE_COLS_MAX;
}

/* ---- sums to what they stand for ---- */

struct whole_row {
    int32_t sum; /* of the row's q */
    float scale;
};

static struct whole_row whole_row_of(const struct rows8 *x, size_t r)
{
    const size_t spans = (size_t)x->spans;
    const int32_t *sums = x->sum + r * 2 * spans;
    struct whole_row row = {.scale = x->scale[r * spans]};
    for (size_t i = 0; i < 2 * spans; i++)
        row.sum += sums[i];
    return row;
}

/* Outputs [n, n + LANES), of which these are the sums of q times q. */
INLINE vec whole_value(const struct packed *p, struct whole_row row, ivec sum, size_t n)
{
    const vec value = vec_of_int(vec_sub_int(sum, ivec_set1(p->zero * row.sum)));
    return value * vec_set1(row.scale) * vec_load_as(p->scales, p->scale_type, n);
}

/* ---- a tile ---- */

struct whole_tile {
    struct packed_tile t; /* rows and panels */
    size_t first, n;      /* spans of the piece */
    int32_t *sum;         /* [rows][panels][PACKED_ROWS] */
};

INLINE void whole_ahead(const struct whole_tile *w, int panels, size_t at)
{
    for (int i = 0; i < panels; i++)
        __builtin_prefetch(w->t.panel[i] + at, 0, 2);
}

/* Where `ahead`, asks for the next piece on the way. */
INLINE void whole_run(const struct whole_tile *w, struct packed_form f, bool ahead)
{
    enum { steps = PACKED_SPAN / 4 };
    ivec sum[BYTES_ROWS][TILE_VECS];
    UNROLL
    for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
        sum[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)] = ivec_set1(0);
    if (w->first > 0) {
        UNROLL
        for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
            memcpy(&sum[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)],
                   w->sum + i * LANES, sizeof(ivec));
    }
    for (size_t s = w->first; s < w->first + w->n; s++) {
        const size_t at = s * steps * PANEL_STEP_BYTES;
        UNROLL
        for (size_t step = 0; step < steps; step++) {
            const size_t from = at + step * PANEL_STEP_BYTES;
            if (ahead)
                whole_ahead(w, f.panels, from + WHOLE_SPANS * steps * PANEL_STEP_BYTES);
            tile_step(&w->t, f, from, w->t.x.q + s * PACKED_SPAN + 4 * step, sum);
        }
    }
    UNROLL
    for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
        memcpy(w->sum + i * LANES, &sum[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)],
               sizeof(ivec));
}

#define WHOLE_CASE(name, rows, panels, ahead)                                                      \
    static __attribute__((noinline)) void name(const struct whole_tile *w)                         \
    {                                                                                              \
        whole_run(w,                                                                               \
                  (struct packed_form){rows, panels, 8,                                            \
                                       .asks = (panels) == 1 && (rows) == 1}, /* far ahead */      \
                  ahead);                                                                          \
    }
#define WHOLE_CASES(rows, panels)                                                                  \
    WHOLE_CASE(whole_##rows##_##panels, rows, panels, false)                                       \
    WHOLE_CASE(whole_ahead_##rows##_##panels, rows, panels, true)
#define WHOLE_ROW(rows, panels)                                                                    \
    {                                                                                              \
        whole_##rows##_##panels, whole_ahead_##rows##_##panels                                     \
    }

typedef void whole_fn(const struct whole_tile *w);

WHOLE_CASES(1, 1)
WHOLE_CASES(2, 1)
#if BYTES_ROWS == 4
WHOLE_CASES(4, 1)
#endif
#if BYTES_PANELS == 2
WHOLE_CASES(1, 2)
WHOLE_CASES(2, 2)
WHOLE_CASES(4, 2)
#endif

/* [one panel or BYTES_PANELS][1, 2 or BYTES_ROWS rows][whether the next piece is fetched] */
static whole_fn *const whole_fns[BYTES_PANELS][3][2] = {
#if BYTES_ROWS == 4
    {WHOLE_ROW(1, 1), WHOLE_ROW(2, 1), WHOLE_ROW(4, 1)},
#else
    {WHOLE_ROW(1, 1), WHOLE_ROW(2, 1), WHOLE_ROW(2, 1)},
#endif
#if BYTES_PANELS == 2
    {WHOLE_ROW(1, 2), WHOLE_ROW(2, 2), WHOLE_ROW(4, 2)},
#endif
};

/* ---- a strip ---- */

static void whole_write(const struct op_gemm *op, const struct packed_strip *s, int32_t *sums)
{
    const struct rows8 x = rows8_from(op->x8, s->m);
    const size_t all = s->panels * PACKED_ROWS;
    float values[PACKED_TILES_MAX * BYTES_ROWS * TILE_WIDTH];
    for (size_t r = 0; r < s->rows; r++) {
        const struct whole_row row = whole_row_of(&x, r);
        for (size_t n = 0; n < all; n += LANES) {
            ivec sum;
            memcpy(&sum, sums + r * all + n, sizeof sum);
            vec_store(values + r * all + n,
                      whole_value(op->w->packed, row, sum, s->panel * PACKED_ROWS + n));
        }
    }
    packed_write(op, values, s);
}

static void whole_strip(const struct op_gemm *op, const struct packed_strip *s)
{
    const struct packed *p = op->w->packed;
    const size_t spans = packed_spans(p), piece = s->rows <= BYTES_ROWS ? spans : WHOLE_SPANS;
    int32_t sums[PACKED_TILES_MAX * BYTES_ROWS * TILE_WIDTH] __attribute__((aligned(64)));
    struct whole_tile w = {.t = {.p = p}};
    for (size_t i = 0; i < s->panels; i++)
        w.t.panel[i] = p->q + (s->panel + i) * packed_panel_bytes(p);
    for (w.first = 0; w.first < spans; w.first += w.n) {
        w.n = spans - w.first < piece ? spans - w.first : piece;
        for (size_t i = 0, n; i < s->rows; i += n) {
            n = tile_rows(s->rows - i, BYTES_ROWS);
            w.t.x = rows8_from(op->x8, s->m + i);
            w.sum = sums + i * s->panels * PACKED_ROWS;
            whole_fns[s->panels - 1][n == 1 ? 0 : n == 2 ? 1 : 2][s->rows > 1 && i == 0](&w);
        }
    }
    whole_write(op, s, sums);
}

static void whole_gemm(const struct op_gemm *op, struct packed_share share)
{
    /* A row alone was not faster with two panels here; more rows are worth more of them side by
     * side. */
    const size_t panels = share.m_end - share.m_begin == 1 ? 1 : BYTES_PANELS;
    for (struct packed_strip s = {0};
         packed_next(&share, PACKED_TILES_MAX * BYTES_ROWS, panels, &s);)
        whole_strip(op, &s);
}

#endif
