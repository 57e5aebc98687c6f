/* Products of weights in FP8 (kernels/fp8.h) with rows of bf16, in tiles of pairs.
 *
 * As in tiles_lines_body.h, whose tiles these are, but that a piece of two panels is expanded to
 * bf16, which is exact, into L1, for all rows of a block, and a span of FP8_SPAN columns is added
 * up from zero before it is scaled and added to what there was. Any number of rows goes this way,
 * a single one too.
 *
 * Counted, not measured: expanding 64 bytes takes six instructions that a core does one at a time
 * (of bodies with VBMI), and the products of 1 KiB with 16 rows 32 cycles. Of 128 columns by 32
 * rows by 32 outputs, 16 products take 256 cycles, their tiles are loaded in 128 and stored in 64,
 * and 64 vectors are scaled and added meanwhile.
 *
 * It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_GEMM_TILES_FP8_BODY_H
#define KERNELS_CPU_GEMM_TILES_FP8_BODY_H

#include "kernels/cpu/gemm/tiles_lines_body.h"

#define EIGHTS_ROWS 512 /* of x at a time */
#define EIGHTS_SPANS 4  /* of FP8_SPAN columns */
#define EIGHTS_TILES (FP8_SPAN / PANELS_COLS)
#define EIGHTS_AHEAD 2048 /* bytes */

struct eights_run {
    struct lines_run pairs; /* its rows, tiles and sums; first, n: spans of FP8_SPAN columns */
    size_t k, panel;
    const float *scales[2][PANELS_ROWS]; /* of the panels' rows, and those of the piece */
    float scale[2][EIGHTS_SPANS][PANELS_ROWS];
    char w[2][EIGHTS_SPANS * EIGHTS_TILES][TILE_BYTES] __attribute__((aligned(64)));
    float part[2][2 * TILE_ROWS * TILE_ROWS] __attribute__((aligned(64))); /* a span's sums */
};

/* ---- weights to tiles ---- */

/* The piece of panel number i, and its scales. */
static __attribute__((noinline)) void eights_open(struct eights_run *f, size_t i)
{
    const struct lines_run *b = &f->pairs;
    const struct matrix *w = b->op->w;
    const size_t first = b->first * EIGHTS_TILES, last = first + b->n * EIGHTS_TILES;
    const size_t tiles = (last < b->spans ? last : b->spans) - first;
    const char *q = (const char *)w->data + ((f->panel + i) * b->spans + first) * (TILE_BYTES / 2);
    char *to = f->w[i][0];
    for (size_t at = 0; at < tiles * (TILE_BYTES / 2); at += TILE_ROW_BYTES) {
        __m512i pairs[2];
        __builtin_prefetch(q + at + EIGHTS_AHEAD);
        bytes_fp8_pairs(_mm512_load_si512(q + at), &pairs[0], &pairs[1]);
        _mm512_store_si512(to + 2 * at, pairs[0]);
        _mm512_store_si512(to + 2 * at + TILE_ROW_BYTES, pairs[1]);
    }
    for (size_t s = 0; s < b->n; s++) {
        const size_t group = (b->first + s) * FP8_SPAN / (size_t)w->fp8->col_block;
        for (size_t r = 0; r < PANELS_ROWS; r++)
            f->scale[i][s][r] = f->scales[i][r][group];
    }
}

/* ---- a piece ---- */

/* Adds a span's sums, scaled, to those of rows [row, row + rows). */
INLINE void eights_add(struct eights_run *f, size_t span, size_t row, size_t rows)
{
    for (size_t i = 0; i < f->pairs.panels; i++) {
        const vec scale = vec_load(f->scale[i][span]);
        float *sum = f->pairs.sum[i] + row * TILE_ROWS;
        for (size_t r = 0; r < rows; r++, sum += TILE_ROWS) {
            const vec before = f->pairs.first + span > 0 ? vec_load(sum) : vec_zero();
            vec_store(sum, vec_fma(vec_load(f->part[i] + r * TILE_ROWS), scale, before));
        }
    }
}

/* Up to 32 rows, from `row` of the block on. */
INLINE void eights_tile(struct eights_run *f, size_t row, struct lines_form form)
{
    const struct lines_run *b = &f->pairs;
    const size_t left = b->rows - row, rows = left < 2 * TILE_ROWS ? left : 2 * TILE_ROWS;
    const size_t first = b->first * EIGHTS_TILES, tiles = b->spans - first;
    const char *x = b->x + row * b->x_stride + first * TILE_ROW_BYTES;
    for (size_t span = 0; span < b->n; span++) {
        lines_zero(form);
        for (size_t t = span * EIGHTS_TILES; t < (span + 1) * EIGHTS_TILES && t < tiles; t++) {
            TILE_LOAD(4, x + t * TILE_ROW_BYTES, b->x_stride);
            TILE_LOAD(6, f->w[0][t], TILE_ROW_BYTES);
            TILE_DOT_BF16(0, 4, 6);
            if (form.right) {
                TILE_LOAD(7, f->w[1][t], TILE_ROW_BYTES);
                TILE_DOT_BF16(1, 4, 7);
            }
            if (form.lower) {
                TILE_LOAD(5, x + t * TILE_ROW_BYTES + TILE_ROWS * b->x_stride, b->x_stride);
                TILE_DOT_BF16(2, 5, 6);
                if (form.right)
                    TILE_DOT_BF16(3, 5, 7);
            }
        }
        lines_store(f->part[0], f->part[1], form);
        eights_add(f, span, row, rows);
    }
}

#define EIGHTS_CASE(name, lower, right)                                                            \
    static __attribute__((noinline)) void name(struct eights_run *f, size_t row)                   \
    {                                                                                              \
        eights_tile(f, row, (struct lines_form){lower, right});                                    \
    }
EIGHTS_CASE(eights_one, false, false)
EIGHTS_CASE(eights_wide, false, true)
EIGHTS_CASE(eights_tall, true, false)
EIGHTS_CASE(eights_four, true, true)

static void eights_strip(struct eights_run *f, const struct packed_strip *s)
{
    static void (*const fns[2][2])(struct eights_run *, size_t) = {{eights_one, eights_wide},
                                                                   {eights_tall, eights_four}};
    struct lines_run *b = &f->pairs;
    const size_t spans = (f->k + FP8_SPAN - 1) / FP8_SPAN;
    b->x = (const char *)b->op->x16 + s->m * b->x_stride;
    b->rows = s->rows;
    b->panels = s->panels;
    f->panel = s->panel;
    for (size_t i = 0; i < s->panels * PANELS_ROWS; i++) {
        const size_t row = s->panel * PANELS_ROWS + i, last = (size_t)b->op->w->rows - 1;
        f->scales[i / PANELS_ROWS][i % PANELS_ROWS] =
            fp8_scales(b->op->w->fp8, row < last ? row : last);
    }
    for (b->first = 0; b->first < spans; b->first += b->n) {
        b->n = spans - b->first < EIGHTS_SPANS ? spans - b->first : EIGHTS_SPANS;
        for (size_t i = 0; i < s->panels; i++)
            eights_open(f, i);
        for (size_t row = 0; row < b->rows; row += 2 * TILE_ROWS) {
            const size_t left = b->rows - row, upper = left < TILE_ROWS ? left : TILE_ROWS;
            const size_t lower = left - upper < TILE_ROWS ? left - upper : TILE_ROWS;
            lines_configure(b, upper, lower);
            fns[lower > 0][s->panels - 1](f, row);
        }
    }
    for (size_t i = 0; i < s->panels; i++)
        packed_write(b->op, b->sum[i], &(struct packed_strip){s->m, s->rows, s->panel + i, 1});
}

static void tiles_fp8(const struct op_gemm *op, struct packed_share share)
{
    float sum[2][EIGHTS_ROWS * TILE_ROWS];
    struct eights_run f;
    f.k = (size_t)op->w->cols;
    f.pairs = (struct lines_run){.op = op,
                                 .sum = {sum[0], sum[1]},
                                 .x_stride = rows16_stride(op->w->cols) * sizeof(uint16_t),
                                 .spans = panels_spans(op->w->cols)};
    for (struct packed_strip s = {0}; packed_next(&share, EIGHTS_ROWS, 2, &s);)
        eights_strip(&f, &s);
    if (f.pairs.upper > 0)
        tiles_end();
}

#endif
