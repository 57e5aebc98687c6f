/* A tile of panels_body.h: up to eight rows of bf16 by up to three panels of weights, in vectors
 * that multiply pairs of bf16. Compiled once per instruction set (see cpu.h).
 *
 * A vector of a panel holds a pair of each of 16 outputs; a pair of a row goes to all lanes. So an
 * output is one lane, its sum goes over pairs in order of K, and nothing has to be added up across
 * lanes; for 24 products 11 loads are made. What is scaled is added up from zero over a unit, some
 * columns that have one scale, and then scaled and added to what there was.
 *
 * It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_GEMM_PANELS_TILE_BODY_H
#define KERNELS_CPU_GEMM_PANELS_TILE_BODY_H

#include "kernels/cpu/gemm/wide_body.h"
#include "kernels/panels.h"

_Static_assert(PANELS_ROWS == LANES && PANELS_ROWS == PACKED_ROWS, "an output is a lane");

#define PANELS_TILE_ROWS 8
#define PANELS_TILE 3 /* panels side by side */
#define PANELS_LINE ((size_t)64)
#define PANELS_STEP 32 /* columns that are done at a time, */
#define PANELS_HALF 16 /* or so many: a unit is a multiple */

/* How weights lie. */
enum panels_kind {
    PANELS_BF16,
    PANELS_UNITS, /* bf16, scaled by units */
    PANELS_FP8,   /* the others are scaled as well, and expanded on the way */
    PANELS_BITS8,
    PANELS_BITS4,
    PANELS_KINDS
};

/* What is constant where a tile is inlined. */
struct panels_form {
    int rows, panels;
    enum panels_kind kind;
};

struct panels_tile {
    const uint16_t *x;
    size_t x_stride, cols; /* of the piece: whole units */
    const char *w[PANELS_TILE];
    bool first;               /* there are no sums yet */
    float *sum[PANELS_TILE];  /* [rows][LANES] each */
    const uint16_t *unit_end; /* [units] of scaled ones; and of each panel, [units][LANES]: */
    const float *scale[PANELS_TILE], *min[PANELS_TILE]; /* min: or NULL */
    __m512i of;                                         /* of packed ones: wide_of() */
    const char *ahead[PANELS_TILE]; /* with each step so many lines are asked for, from here on */
    size_t ahead_lines;
};

typedef vec panels_acc[PANELS_TILE_ROWS][PANELS_TILE];

/* Bytes of so many columns of a panel. */
INLINE size_t panels_column_bytes(enum panels_kind kind, size_t cols)
{
    const size_t pairs = cols * PANELS_LINE / 2;
    return kind <= PANELS_UNITS ? pairs : kind == PANELS_BITS4 ? pairs / 4 : pairs / 2;
}

/* ---- expanding ---- */

/* Lines that 64 bytes hold. */
INLINE size_t panels_lines_of(enum panels_kind kind)
{
    return kind <= PANELS_UNITS ? 1 : kind == PANELS_BITS4 ? 4 : 2;
}

INLINE void panels_lines(const char *from, enum panels_kind kind, __m512i of, __m512i out[4])
{
    if (kind == PANELS_FP8)
        bytes_fp8_pairs(_mm512_loadu_si512(from), &out[0], &out[1]);
    else if (kind == PANELS_BITS8)
        wide_lines8((const uint8_t *)from, of, out);
    else if (kind == PANELS_BITS4)
        wide_lines4((const uint8_t *)from, of, out);
    else
        out[0] = _mm512_loadu_si512(from);
}

/* ---- multiplying ---- */

/* What a step of `cols` columns asks for. */
INLINE void panels_fetch(struct panels_tile *t, size_t cols, int panels)
{
    for (size_t line = 0; line < t->ahead_lines && cols == PANELS_STEP; line++) {
        UNROLL
        for (int j = 0; j < panels; j++) {
            __builtin_prefetch(t->ahead[j], 0, 2);
            t->ahead[j] += PANELS_LINE;
        }
    }
}

/* `cols` columns from k on. */
INLINE void panels_step(struct panels_tile *t, size_t k, size_t cols, struct panels_form f,
                        panels_acc acc)
{
    const size_t at = panels_column_bytes(f.kind, k), lines = panels_lines_of(f.kind);
    const uint16_t *x = t->x + k;
    panels_fetch(t, cols, f.panels);
    UNROLL
    for (size_t i = 0; i < cols / 2; i += lines) {
        __m512i w[PANELS_TILE][4];
        UNROLL
        for (int j = 0; j < f.panels; j++)
            panels_lines(t->w[j] + at + i / lines * PANELS_LINE, f.kind, t->of, w[j]);
        UNROLL
        for (size_t line = 0; line < lines; line++) {
            UNROLL
            for (int r = 0; r < f.rows; r++) {
                int32_t pair;
                memcpy(&pair, x + (size_t)r * t->x_stride + 2 * (i + line), sizeof pair);
                UNROLL
                for (int j = 0; j < f.panels; j++)
                    acc[r][j] = _mm512_dpbf16_ps(acc[r][j], (__m512bh)_mm512_set1_epi32(pair),
                                                 (__m512bh)w[j][line]);
            }
        }
    }
}

INLINE void panels_run_whole(struct panels_tile *t, struct panels_form f)
{
    panels_acc acc;
    UNROLL
    for (int i = 0; i < f.rows * f.panels; i++)
        acc[i / f.panels][i % f.panels] =
            t->first ? vec_zero() : vec_load(t->sum[i % f.panels] + i / f.panels * LANES);
    for (size_t k = 0; k < t->cols; k += PANELS_STEP)
        panels_step(t, k, PANELS_STEP, f, acc);
    UNROLL
    for (int i = 0; i < f.rows * f.panels; i++)
        vec_store(t->sum[i % f.panels] + i / f.panels * LANES, acc[i / f.panels][i % f.panels]);
}

/* The sum of a row's x over the columns [k, end): products with ones. */
INLINE float panels_x_sum(const struct panels_tile *t, int row, size_t k, size_t end)
{
    const __m256i one = _mm256_set1_epi16(0x3f80);
    const uint16_t *x = t->x + (size_t)row * t->x_stride;
    __m256 sum = _mm256_setzero_ps();
    for (; k < end; k += PANELS_HALF)
        sum = _mm256_dpbf16_ps(sum,
                               (__m256bh)_mm256_loadu_si256((const __m256i *)(const void *)(x + k)),
                               (__m256bh)one);
    return _mm512_reduce_add_ps(_mm512_zextps256_ps512(sum));
}

INLINE void panels_run_units(struct panels_tile *t, struct panels_form f)
{
    for (size_t k = 0, unit = 0; k < t->cols; unit++) {
        const size_t begin = k, end = t->unit_end[unit];
        const bool first = t->first && k == 0;
        panels_acc acc;
        UNROLL
        for (int i = 0; i < f.rows * f.panels; i++)
            acc[i / f.panels][i % f.panels] = vec_zero();
        for (; end - k >= PANELS_STEP; k += PANELS_STEP)
            panels_step(t, k, PANELS_STEP, f, acc);
        if (k < end) {
            panels_step(t, k, PANELS_HALF, f, acc);
            k = end;
        }
        UNROLL
        for (int j = 0; j < f.panels; j++) {
            const vec scale = vec_load(t->scale[j] + unit * LANES);
            UNROLL
            for (int i = 0; i < f.rows; i++) {
                float *sum = t->sum[j] + i * LANES;
                vec_store(sum, vec_fma(acc[i][j], scale, first ? vec_zero() : vec_load(sum)));
            }
        }
        for (int i = 0; i < f.rows && t->min[0]; i++) {
            const vec x = vec_set1(panels_x_sum(t, i, begin, end));
            for (int j = 0; j < f.panels; j++) {
                float *sum = t->sum[j] + i * LANES;
                vec_store(sum, vec_fma(x, vec_load(t->min[j] + unit * LANES), vec_load(sum)));
            }
        }
    }
}

typedef void panels_fn(struct panels_tile *t);

#define PANELS_CASE(rows, panels, kind, run)                                                       \
    static __attribute__((noinline)) void panels_##rows##_##panels##_##kind(struct panels_tile *t) \
    {                                                                                              \
        panels_run_##run(t, (struct panels_form){rows, panels, kind});                             \
    }
#define PANELS_CASES(rows, panels)                                                                 \
    PANELS_CASE(rows, panels, PANELS_BF16, whole)                                                  \
    PANELS_CASE(rows, panels, PANELS_UNITS, units)                                                 \
    PANELS_CASE(rows, panels, PANELS_FP8, units)                                                   \
    PANELS_CASE(rows, panels, PANELS_BITS8, units)                                                 \
    PANELS_CASE(rows, panels, PANELS_BITS4, units)
#define PANELS_ENTRY(rows, panels)                                                                 \
    {                                                                                              \
        panels_##rows##_##panels##_PANELS_BF16, panels_##rows##_##panels##_PANELS_UNITS,           \
            panels_##rows##_##panels##_PANELS_FP8, panels_##rows##_##panels##_PANELS_BITS8,        \
            panels_##rows##_##panels##_PANELS_BITS4                                                \
    }
#define PANELS_ROW_CASES(rows)                                                                     \
    PANELS_CASES(rows, 1)                                                                          \
    PANELS_CASES(rows, 2)                                                                          \
    PANELS_CASES(rows, 3)
#define PANELS_ENTRIES(rows)                                                                       \
    {                                                                                              \
        PANELS_ENTRY(rows, 1), PANELS_ENTRY(rows, 2), PANELS_ENTRY(rows, 3)                        \
    }
PANELS_ROW_CASES(1)
PANELS_ROW_CASES(2)
PANELS_ROW_CASES(4)
PANELS_ROW_CASES(8)

/* [log2 of the rows][panels - 1][kind] */
static panels_fn *const panels_fns[4][PANELS_TILE][PANELS_KINDS] = {
    PANELS_ENTRIES(1), PANELS_ENTRIES(2), PANELS_ENTRIES(4), PANELS_ENTRIES(8)};

/* Which rows of panels_fns go on where so many are left: 1 << that many. */
static int panels_rows_log(size_t left)
{
    return left >= 8 ? 3 : left >= 4 ? 2 : left >= 2 ? 1 : 0;
}

#endif
