/* Products of rows of bf16 with what stands in panels, bf16 or FP8 (kernels/panels.h) or packed
 * integers (kernels/packed.h), in vectors: for CPUs that multiply pairs of bf16, and have no tiles,
 * which have tiles_lines_body.h, tiles_fp8_body.h and tiles_wide_body.h.
 *
 * Of many rows a block of columns of some panels stays in L2, as do the same columns of the rows,
 * while all rows pass by; the panels that come next are fetched meanwhile. The sums wait in memory
 * as they are, so that cutting changes no order of addition.
 *
 * FP8 and integers of 8 bits are exact in bf16. Of few rows they are expanded in registers, else
 * once for a block, into L2. Products of a unit (FP8_SPAN columns of FP8; a group, or as much of
 * one as WIDE_UNIT) are added up from zero, scaled and added to what there was.
 *
 * It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_GEMM_PANELS_BODY_H
#define KERNELS_CPU_GEMM_PANELS_BODY_H

#include <assert.h>

#include "kernels/cpu/gemm/packed_body.h"
#include "kernels/cpu/gemm/panels_tile_body.h"
#include "kernels/cpu/gemm/unit_body.h"

#define PANELS_STRIP 256  /* rows whose sums wait, at most */
#define PANELS_PIECE 1024 /* columns that are scaled, at a time */
#define PANELS_PIECE_UNITS (PANELS_PIECE / PANELS_HALF)

/* Panels side by side of one matrix, times a strip of rows. */
struct panels_pass {
    const struct matrix *w;
    enum panels_kind kind;
    __m512i of;        /* of packed ones: wide_of() */
    const uint16_t *x; /* the first row */
    size_t x_stride, rows, panel, panels, cols;
    const char *next; /* the panels of the pass that comes next, or NULL */
    float (*sums)[PANELS_STRIP * LANES];
};

/* Some columns of a pass: whole units. */
struct panels_piece {
    size_t begin, end, units;
    uint16_t unit_end[PANELS_PIECE_UNITS]; /* from `begin` on */
    uint32_t group[PANELS_PIECE_UNITS];    /* of scales, or column of a grid */
    float scale[PANELS_TILE][PANELS_PIECE_UNITS * LANES];
    float min[PANELS_TILE][PANELS_PIECE_UNITS * LANES];
    char w[PANELS_TILE][PANELS_PIECE * PANELS_LINE / 2] __attribute__((aligned(64)));
};

static enum panels_kind panels_kind_of(const struct matrix *w)
{
    if (w->packed)
        return w->packed->bits == 4 ? PANELS_BITS4 : PANELS_BITS8;
    return w->fp8 ? PANELS_FP8 : PANELS_BF16;
}

/* Columns with those behind the last that are zeros in x. */
static size_t panels_cols(const struct matrix *w)
{
    return ((size_t)w->cols + PANELS_COLS - 1) / PANELS_COLS * PANELS_COLS;
}

static const char *panels_place(const struct matrix *w, size_t panel, size_t col)
{
    const char *data = w->packed ? (const char *)w->packed->q : w->data;
    const enum panels_kind kind = panels_kind_of(w);
    return data + panel * panels_column_bytes(kind, panels_cols(w)) +
           panels_column_bytes(kind, col);
}

/* Columns of a piece, about: of many rows as many as fill half of L2, in equal pieces. */
static size_t panels_most(const struct panels_pass *p)
{
    const size_t fit = cpu_cache_bytes(2) / 2 / sizeof(uint16_t) / p->rows;
    const size_t all = p->rows <= PANELS_TILE_ROWS || fit < FP8_SPAN ? p->cols : fit;
    const size_t most = p->kind != PANELS_BF16 && all > PANELS_PIECE ? PANELS_PIECE : all;
    const size_t pieces = (p->cols + most - 1) / most, each = (p->cols + pieces - 1) / pieces;
    return (each + FP8_SPAN - 1) / FP8_SPAN * FP8_SPAN;
}

/* Where the unit that begins with column k ends. */
static size_t panels_unit_end(const struct panels_pass *p, size_t k)
{
    const size_t end = p->kind == PANELS_FP8 ? k + FP8_SPAN : wide_unit_end(p->w->packed, k);
    return end < (size_t)p->w->cols ? end : p->cols;
}

/* The piece that begins where this one ends, of `most` columns at most. */
static void panels_next_piece(const struct panels_pass *p, size_t most, struct panels_piece *piece)
{
    const size_t begin = piece->end, last = p->cols - begin < most ? p->cols : begin + most;
    piece->begin = begin;
    piece->units = 0;
    if (p->kind == PANELS_BF16) {
        piece->end = last;
        return;
    }
    const size_t group = (size_t)(p->w->packed ? p->w->packed->group : p->w->fp8->col_block);
    for (size_t end; piece->end < last; piece->end = end) {
        end = panels_unit_end(p, piece->end);
        if (end > last)
            break;
        piece->group[piece->units] = (uint32_t)(piece->end / group);
        piece->unit_end[piece->units++] = (uint16_t)(end - begin);
    }
}

/* Scales of a panel to [units][LANES]; and mins. */
static void panels_scales8(const struct fp8_grid *g, size_t row, size_t rows,
                           const struct panels_piece *piece, float *out)
{
    const size_t at = (size_t)g->first + row, each = (size_t)g->row_block;
    const float *scale = g->scale + at / each * (size_t)g->scale_cols;
    for (size_t r = 0, into = at % each; r < LANES; r++) {
        for (size_t u = 0; u < piece->units; u++)
            out[u * LANES + r] = r < rows ? scale[piece->group[u]] : 0;
        if (++into == each) {
            into = 0;
            scale += g->scale_cols;
        }
    }
}
INLINE void panels_scales_as(const struct packed *p, size_t panel, enum dtype type,
                             struct panels_piece *piece, size_t slot)
{
    const size_t first = panel * packed_groups(p);
    for (size_t u = 0; u < piece->units; u++) {
        const size_t at = (first + piece->group[u]) * PACKED_ROWS;
        vec_store(piece->scale[slot] + u * LANES, vec_load_as(p->scales, type, at));
        if (p->has_min)
            vec_store(piece->min[slot] + u * LANES, vec_load_as(p->mins, type, at));
    }
}
static void panels_scales(const struct matrix *w, size_t panel, struct panels_piece *piece,
                          size_t slot)
{
    const size_t row = panel * PANELS_ROWS;
    if (w->fp8)
        panels_scales8(w->fp8, row, (size_t)w->rows - row, piece, piece->scale[slot]);
    else if (w->packed->scale_type == DTYPE_F16)
        panels_scales_as(w->packed, panel, DTYPE_F16, piece, slot);
    else
        panels_scales_as(w->packed, panel, DTYPE_F32, piece, slot);
}

static void panels_expand(const struct panels_pass *p, const char *q, size_t cols, char *out)
{
    const size_t lines = panels_lines_of(p->kind);
    for (size_t k = 0; k < cols; k += 2 * lines, q += PANELS_LINE) {
        __m512i w[4];
        panels_lines(q, p->kind, p->of, w);
        for (size_t i = 0; i < lines; i++, out += PANELS_LINE)
            _mm512_store_si512(out, w[i]);
    }
}

/* Sets what tiles find of a piece; a single one expands weights itself. */
static enum panels_kind panels_open(const struct panels_pass *p, struct panels_piece *piece,
                                    struct panels_tile *t)
{
    const bool scales = p->kind != PANELS_BF16, expands = scales && p->rows > PANELS_TILE_ROWS;
    const bool has_min = p->w->packed && p->w->packed->has_min;
    for (size_t j = 0; j < p->panels; j++) {
        t->w[j] = panels_place(p->w, p->panel + j, piece->begin);
        if (expands) {
            panels_expand(p, t->w[j], piece->end - piece->begin, piece->w[j]);
            t->w[j] = piece->w[j];
        }
        if (scales)
            panels_scales(p->w, p->panel + j, piece, j);
        t->scale[j] = piece->scale[j];
        t->min[j] = has_min ? piece->min[j] : NULL;
    }
    t->of = p->of;
    t->unit_end = piece->unit_end;
    return expands ? PANELS_UNITS : p->kind;
}

/* What tile number `tile` of a piece asks for: of several whole ones each a share of what comes
 * next. A single one reads as fast as memory gives, and would only be held up. */
static void panels_ahead(const struct panels_pass *p, const struct panels_piece *piece, size_t tile,
                         struct panels_tile *t)
{
    const size_t lines = panels_column_bytes(p->kind, PANELS_STEP) / PANELS_LINE;
    const size_t steps = (piece->end - piece->begin) / PANELS_STEP;
    const size_t whole = p->rows / PANELS_TILE_ROWS;
    const size_t each = whole > 1 ? (lines + whole - 1) / whole : 0;
    const char *next = piece->end < p->cols ? panels_place(p->w, p->panel, piece->end) : p->next;
    t->ahead_lines = next && tile * each < lines ? each : 0;
    for (size_t j = 0; j < p->panels && t->ahead_lines > 0; j++)
        t->ahead[j] =
            next + j * panels_column_bytes(p->kind, p->cols) + tile * each * steps * PANELS_LINE;
}

/* A piece, of all rows. */
static void panels_run(const struct panels_pass *p, struct panels_piece *piece)
{
    struct panels_tile t = {
        .x_stride = p->x_stride, .cols = piece->end - piece->begin, .first = piece->begin == 0};
    const enum panels_kind kind = panels_open(p, piece, &t);
    for (size_t row = 0, tile = 0; row < p->rows; tile++) {
        const int rows = panels_rows_log(p->rows - row);
        t.x = p->x + row * p->x_stride + piece->begin;
        panels_ahead(p, piece, tile, &t);
        for (size_t j = 0; j < p->panels; j++)
            t.sum[j] = p->sums[j] + row * LANES;
        panels_fns[rows][p->panels - 1][kind](&t);
        row += (size_t)1 << rows;
    }
}

static void panels_pass(const struct panels_pass *p)
{
    struct panels_piece piece;
    const size_t most = panels_most(p);
    for (piece.end = 0; piece.end < p->cols;) {
        panels_next_piece(p, most, &piece);
        panels_run(p, &piece);
    }
}

/* Row by row, so that what is written lies together. */
static void panels_write(const struct op_gemm *op, const struct packed_strip *s,
                         float (*sums)[PANELS_STRIP * LANES])
{
    const size_t stride = (size_t)(op->out_stride ? op->out_stride : op->w->rows);
    for (size_t r = 0; r < s->rows; r++) {
        for (size_t i = 0; i < s->panels; i++) {
            const size_t col = (s->panel + i) * PANELS_ROWS, left = (size_t)op->w->rows - col;
            const float *sum = sums[i] + r * LANES;
            if (op->unit)
                unit_write(op, sum, sums[PANELS_TILE + i] + r * LANES, s->m + r, s->panel + i);
            else
                packed_write_vec(op, vec_load(sum), op->out + (s->m + r) * stride + col, col,
                                 left < LANES ? (int)left : 0);
        }
    }
}

/* `last`: no panels come after it; `of`: of all of them. */
static void panels_strip(const struct op_gemm *op, const struct packed_strip *s, bool last,
                         __m512i of)
{
    float sums[2 * PANELS_TILE][PANELS_STRIP * LANES] __attribute__((aligned(64)));
    const struct matrix *w = op->w, *up = op->unit ? op->unit->up : NULL;
    const char *next = last ? NULL : panels_place(w, s->panel + s->panels, 0);
    struct panels_pass p = {.w = w,
                            .kind = panels_kind_of(w),
                            .of = of,
                            .x = op->x16 + s->m * rows16_stride(w->cols),
                            .x_stride = rows16_stride(w->cols),
                            .rows = s->rows,
                            .panel = s->panel,
                            .panels = s->panels,
                            .cols = panels_cols(w),
                            .next = up ? panels_place(up, s->panel, 0) : next,
                            .sums = sums};
    panels_pass(&p);
    if (up) {
        p.w = up, p.next = next, p.sums = sums + PANELS_TILE;
        panels_pass(&p);
    }
    panels_write(op, s, sums);
}

/* Rows of a strip: equal ones, of whole tiles. */
static size_t panels_rows(size_t all)
{
    const size_t strips = (all + PANELS_STRIP - 1) / PANELS_STRIP;
    const size_t tiles = (all + PANELS_TILE_ROWS - 1) / PANELS_TILE_ROWS;
    return strips > 0 ? (tiles + strips - 1) / strips * PANELS_TILE_ROWS : 0;
}

static void panels_gemm(const struct op_gemm *op, struct packed_share share)
{
    const size_t rows = panels_rows(share.m_end - share.m_begin);
    const __m512i of = op->w->packed ? wide_of(op->w->packed) : _mm512_setzero_si512();
    assert(op->x16);
    for (struct packed_strip s = {0}; packed_next(&share, rows, PANELS_TILE, &s);)
        panels_strip(op, &s, s.panel + s.panels + PANELS_TILE > share.end, of);
}

#endif
