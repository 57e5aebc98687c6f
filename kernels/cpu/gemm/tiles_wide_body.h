/* Products of packed weights (kernels/packed.h) with rows of bf16, in tiles of pairs.
 *
 * As in tiles_fp8_body.h: a piece of two panels is expanded to bf16, which is exact for integers of
 * 8 bits, for all rows of a block. Products of a unit (a group, or as much of one as WIDE_UNIT) are
 * added up from zero in a tile; its sums times the group's scale go to the output's own, in order
 * of K. Mins meet the sums of a unit's x, which are products with ones. Any number of rows goes
 * this way, a single one too, so a row's result never depends on how many there are.
 *
 * Tiles and vectors do not work beside each other, and changing between them costs. So the sums of
 * WIDER_UNITS units wait in L1, and are scaled one after the other.
 *
 * A unit of half a tile's columns (groups of 16) is expanded to a tile whose other half is zeros.
 *
 * It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_GEMM_TILES_WIDE_BODY_H
#define KERNELS_CPU_GEMM_TILES_WIDE_BODY_H

#include "kernels/cpu/gemm/tiles_lines_body.h"
#include "kernels/cpu/gemm/wide_body.h"

#if defined(TILES_EMULATED)
#define WIDER_ROWS 64 /* of x at a time; so that tests see several blocks */
#else
#define WIDER_ROWS 512
#endif
#define WIDER_TILES 8 /* of each panel that are expanded at a time */
#define WIDER_UNITS 4 /* whose sums are scaled at a time */
#define WIDER_AHEAD 2048

/* Of columns [32 * tile, 32 * (tile + tiles)), or half of one tile's. */
struct wider_unit {
    size_t tile, tiles, group;
    size_t half; /* 0: all; 1, 2: these columns of the tile */
};

struct wider_run {
    struct lines_run pairs; /* its rows, tiles and sums; first: the piece's first column */
    const struct packed *p;
    size_t panel;
    struct wider_unit unit[WIDER_TILES];
    size_t units;
    __m512i of;
    float scale[2][WIDER_TILES][PANELS_ROWS], min[2][WIDER_TILES][PANELS_ROWS];
    char w[2][WIDER_TILES * TILE_BYTES] __attribute__((aligned(64)));
    char ones[3][TILE_BYTES] __attribute__((aligned(64))); /* [wider_unit.half] */
    float part[WIDER_UNITS][4 * TILE_ROWS * TILE_ROWS] __attribute__((aligned(64)));
    float x_sum[WIDER_UNITS][2 * TILE_ROWS * TILE_ROWS] __attribute__((aligned(64)));
};

/* ---- weights to tiles ---- */

/* So many rows of tiles, a multiple of four. */
INLINE void wider_expand(const uint8_t *q, size_t rows, int bits, __m512i of, char *to)
{
    const size_t each = bits == 4 ? 4 : 2;
    for (size_t i = 0; i < rows; i += each, q += 64, to += each * TILE_ROW_BYTES) {
        __m512i lines[4];
        __builtin_prefetch(q + WIDER_AHEAD);
        if (bits == 4)
            wide_lines4(q, of, lines);
        else
            wide_lines8(q, of, lines);
        for (size_t row = 0; row < each; row++)
            _mm512_store_si512(to + row * TILE_ROW_BYTES, lines[row]);
    }
}

/* The units of a piece that begins with column k; returns where it ends. */
static size_t wider_piece(struct wider_run *f, size_t k)
{
    const struct packed *p = f->p;
    size_t tiles = 0;
    f->pairs.first = k;
    for (f->units = 0; k < (size_t)p->cols; f->units++) {
        const size_t end = wide_unit_end(p, k), first = k / PANELS_COLS;
        const size_t n = (end + PANELS_COLS - 1) / PANELS_COLS - first;
        if (tiles + n > WIDER_TILES)
            break;
        tiles += n;
        f->unit[f->units] =
            (struct wider_unit){.tile = first,
                                .tiles = n,
                                .group = k / (size_t)p->group,
                                .half = (size_t)p->group >= PANELS_COLS || p->group == p->cols
                                            ? 0
                                            : 1 + k % PANELS_COLS / 16};
        k = end;
    }
    return k;
}

/* The piece of panel number i, and its scales. */
static __attribute__((noinline)) void wider_open(struct wider_run *f, size_t i)
{
    const struct packed *p = f->p;
    const size_t groups = packed_groups(p), panel = f->panel + i;
    char *to = f->w[i];
    for (size_t u = 0; u < f->units; u++) {
        const struct wider_unit *unit = &f->unit[u];
        const size_t half = TILE_BYTES / 2, lane = (panel * groups + unit->group) * PACKED_ROWS;
        const size_t later = unit->half == 2 ? half : 0;
        const size_t columns = unit->tile * PANELS_COLS + (later ? 16 : 0);
        vec_store(f->scale[i][u], vec_load_as(p->scales, p->scale_type, lane));
        if (p->has_min)
            vec_store(f->min[i][u], vec_load_as(p->mins, p->scale_type, lane));
        if (unit->half)
            memset(to + half - later, 0, half);
        wider_expand(wide_bytes(p, panel, columns), unit->half ? 8 : unit->tiles * TILE_ROWS,
                     p->bits, f->of, to + later);
        to += unit->tiles * TILE_BYTES;
    }
}

/* ---- a piece ---- */

/* A unit's products; `at`: its first expanded tile. */
INLINE void wider_products(struct wider_run *f, const struct wider_unit *u, size_t at,
                           const char *x, struct lines_form form)
{
    const size_t stride = f->pairs.x_stride;
    lines_zero(form);
    for (size_t t = 0; t < u->tiles; t++, x += TILE_ROW_BYTES, at += TILE_BYTES) {
        TILE_LOAD(4, x, stride);
        TILE_LOAD(6, f->w[0] + at, TILE_ROW_BYTES);
        TILE_DOT_BF16(0, 4, 6);
        if (form.right) {
            TILE_LOAD(7, f->w[1] + at, TILE_ROW_BYTES);
            TILE_DOT_BF16(1, 4, 7);
        }
        if (form.lower) {
            TILE_LOAD(5, x + TILE_ROWS * stride, stride);
            TILE_DOT_BF16(2, 5, 6);
            if (form.right)
                TILE_DOT_BF16(3, 5, 7);
        }
    }
}

/* The sums of each row's x over a unit, in each column of a tile. */
INLINE void wider_sums(struct wider_run *f, const struct wider_unit *u, const char *x, float *to,
                       struct lines_form form)
{
    const size_t stride = f->pairs.x_stride;
    form.right = false;
    lines_zero(form);
    TILE_LOAD(6, f->ones[u->half], TILE_ROW_BYTES);
    for (size_t t = 0; t < u->tiles; t++, x += TILE_ROW_BYTES) {
        TILE_LOAD(4, x, stride);
        TILE_DOT_BF16(0, 4, 6);
        if (form.lower) {
            TILE_LOAD(5, x + TILE_ROWS * stride, stride);
            TILE_DOT_BF16(2, 5, 6);
        }
    }
    lines_store(to, NULL, form);
}

/* Adds n units' sums, scaled, from unit `first` of the piece on, to those of `rows` rows. */
INLINE void wider_add(struct wider_run *f, size_t first, size_t n, size_t row, size_t rows)
{
    const bool begins = f->pairs.first == 0 && first == 0;
    for (size_t i = 0; i < f->pairs.panels; i++) {
        float *sum = f->pairs.sum[i] + row * TILE_ROWS;
        const size_t from = i * 2 * TILE_ROWS * TILE_ROWS;
        for (size_t r = 0; r < rows; r++, sum += TILE_ROWS) {
            vec all = begins ? vec_zero() : vec_load(sum);
            for (size_t u = 0; u < n; u++) {
                all = vec_fma(vec_load(f->part[u] + from + r * TILE_ROWS),
                              vec_load(f->scale[i][first + u]), all);
                if (f->p->has_min)
                    all = vec_fma(vec_load(f->x_sum[u] + r * TILE_ROWS),
                                  vec_load(f->min[i][first + u]), all);
            }
            vec_store(sum, all);
        }
    }
}

/* Up to 32 rows, from `row` of the block on. */
INLINE void wider_tile(struct wider_run *f, size_t row, struct lines_form form)
{
    const struct lines_run *b = &f->pairs;
    const size_t left = b->rows - row, rows = left < 2 * TILE_ROWS ? left : 2 * TILE_ROWS;
    for (size_t first = 0, at = 0, n; first < f->units; first += n) {
        n = f->units - first < WIDER_UNITS ? f->units - first : WIDER_UNITS;
        for (size_t i = 0; i < n; i++) {
            const struct wider_unit *u = &f->unit[first + i];
            const char *x = b->x + row * b->x_stride + u->tile * TILE_ROW_BYTES;
            wider_products(f, u, at, x, form);
            lines_store(f->part[i], f->part[i] + 2 * TILE_ROWS * TILE_ROWS, form);
            if (f->p->has_min)
                wider_sums(f, u, x, f->x_sum[i], form);
            at += u->tiles * TILE_BYTES;
        }
        wider_add(f, first, n, row, rows);
    }
}

#define WIDER_CASE(name, lower, right)                                                             \
    static __attribute__((noinline)) void name(struct wider_run *f, size_t row)                    \
    {                                                                                              \
        wider_tile(f, row, (struct lines_form){lower, right});                                     \
    }
WIDER_CASE(wider_one, false, false)
WIDER_CASE(wider_broad, false, true)
WIDER_CASE(wider_tall, true, false)
WIDER_CASE(wider_four, true, true)

static void wider_strip(struct wider_run *f, const struct packed_strip *s)
{
    static void (*const fns[2][2])(struct wider_run *, size_t) = {{wider_one, wider_broad},
                                                                  {wider_tall, wider_four}};
    struct lines_run *b = &f->pairs;
    b->x = (const char *)b->op->x16 + s->m * b->x_stride;
    b->rows = s->rows;
    b->panels = s->panels;
    f->panel = s->panel;
    for (size_t k = 0; k < (size_t)f->p->cols;) {
        k = wider_piece(f, k);
        for (size_t i = 0; i < s->panels; i++)
            wider_open(f, i);
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

/* Ones in all of a tile, in its first half, and in its second. */
static void wider_ones(struct wider_run *f)
{
    const __m512i one = _mm512_set1_epi16(0x3f80), none = _mm512_setzero_si512();
    for (int i = 0; i < TILE_ROWS; i++) {
        const bool first = i < TILE_ROWS / 2;
        _mm512_store_si512(f->ones[0] + i * TILE_ROW_BYTES, one);
        _mm512_store_si512(f->ones[1] + i * TILE_ROW_BYTES, first ? one : none);
        _mm512_store_si512(f->ones[2] + i * TILE_ROW_BYTES, first ? none : one);
    }
}

static void tiles_wide(const struct op_gemm *op, struct packed_share share)
{
    float sum[2][WIDER_ROWS * TILE_ROWS] __attribute__((aligned(64)));
    struct wider_run f;
    f.p = op->w->packed;
    f.of = wide_of(f.p);
    if (f.p->has_min)
        wider_ones(&f);
    f.pairs = (struct lines_run){.op = op,
                                 .sum = {sum[0], sum[1]},
                                 .x_stride = rows16_stride(op->w->cols) * sizeof(uint16_t)};
    for (struct packed_strip s = {0}; packed_next(&share, WIDER_ROWS, 2, &s);)
        wider_strip(&f, &s);
    if (f.pairs.upper > 0)
        tiles_end();
}

#endif
