/* Products of rows of bf16 with weights in panels (kernels/panels.h), bf16 or FP8, in vectors: for
 * CPUs that multiply pairs of bf16, and have no tiles, which have tiles_lines_body.h and
 * tiles_fp8_body.h.
 *
 * A vector of a panel holds a pair of each of 16 outputs; a pair of a row goes to all lanes. So an
 * output is one lane, its sum goes over pairs in order of K, and nothing has to be added up across
 * lanes. Eight rows meet three panels: 24 sums, for which 11 loads are made. Of many rows a block
 * of columns of these panels stays in L2, as do the same columns of the rows, while all rows pass
 * by; the panels that come next are fetched meanwhile. The sums wait in memory as they are, so that
 * cutting changes no order of addition.
 *
 * FP8 is exact in bf16. Of few rows it is expanded in registers, else once for a block, into L2. A
 * span of FP8_SPAN columns is added up from zero before it is scaled and added to what there was.
 *
 * It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_GEMM_PANELS_BODY_H
#define KERNELS_CPU_GEMM_PANELS_BODY_H

#include <assert.h>

#include "kernels/cpu/gemm/packed_body.h"
#include "kernels/cpu/gemm/tiles_unit_body.h"
#include "kernels/panels.h"

_Static_assert(PANELS_ROWS == LANES && PANELS_ROWS == PACKED_ROWS, "an output is a lane");

#define PANELS_TILE_ROWS 8
#define PANELS_TILE 3    /* panels side by side */
#define PANELS_STRIP 256 /* rows whose sums wait, at most */
#define PANELS_LINE ((size_t)64)
#define PANELS_UNIT (FP8_SPAN / PANELS_COLS) /* spans that have one scale */
#define PANELS_PIECE 32                      /* spans of FP8 that are expanded at a time */

/* What is constant where a tile is inlined. */
struct panels_form {
    int rows, panels;
    bool fp8;    /* weights are bytes, expanded on the way */
    bool scaled; /* by units */
};

struct panels_tile {
    const uint16_t *x;
    size_t x_stride, spans;
    const char *w[PANELS_TILE];
    bool first;                      /* there are no sums yet */
    float *sum[PANELS_TILE];         /* [rows][LANES] each */
    const float *scale[PANELS_TILE]; /* [units][LANES] each */
    const char *ahead[PANELS_TILE];  /* of each span so many lines are asked for, from here on */
    size_t ahead_lines;
};

typedef vec panels_acc[PANELS_TILE_ROWS][PANELS_TILE];

INLINE void panels_fetch(struct panels_tile *t, int panels)
{
    for (size_t line = 0; line < t->ahead_lines; line++) {
        UNROLL
        for (int j = 0; j < panels; j++) {
            __builtin_prefetch(t->ahead[j], 0, 2);
            t->ahead[j] += PANELS_LINE;
        }
    }
}

/* A pair of columns, of which x is the first row's. */
INLINE void panels_pair(const struct panels_tile *t, const uint16_t *x, struct panels_form f,
                        const __m512i w[PANELS_TILE], panels_acc acc)
{
    UNROLL
    for (int i = 0; i < f.rows; i++) {
        int32_t two;
        memcpy(&two, x + (size_t)i * t->x_stride, sizeof two);
        UNROLL
        for (int j = 0; j < f.panels; j++)
            acc[i][j] =
                _mm512_dpbf16_ps(acc[i][j], (__m512bh)_mm512_set1_epi32(two), (__m512bh)w[j]);
    }
}

INLINE void panels_span(struct panels_tile *t, size_t s, struct panels_form f, panels_acc acc)
{
    const uint16_t *x = t->x + s * PANELS_COLS;
    const size_t at = s * (f.fp8 ? PANELS_SPAN_BYTES / 2 : PANELS_SPAN_BYTES);
    panels_fetch(t, f.panels);
    UNROLL
    for (size_t pair = 0; pair < PANELS_COLS / 2; pair += f.fp8 ? 2 : 1) {
        __m512i w[2][PANELS_TILE];
        UNROLL
        for (int j = 0; j < f.panels; j++) {
            const char *line = t->w[j] + at + pair * (f.fp8 ? PANELS_LINE / 2 : PANELS_LINE);
            if (f.fp8)
                bytes_fp8_pairs(_mm512_loadu_si512(line), &w[0][j], &w[1][j]);
            else
                w[0][j] = _mm512_loadu_si512(line);
        }
        panels_pair(t, x + 2 * pair, f, w[0], acc);
        if (f.fp8)
            panels_pair(t, x + 2 * pair + 2, f, w[1], acc);
    }
}

/* rows and panels are constants where this is inlined, and the arrays registers. */
INLINE void panels_run(struct panels_tile *t, struct panels_form f)
{
    panels_acc acc;
    UNROLL
    for (int i = 0; i < f.rows * f.panels; i++)
        acc[i / f.panels][i % f.panels] =
            t->first ? vec_zero() : vec_load(t->sum[i % f.panels] + i / f.panels * LANES);
    for (size_t s = 0; s < t->spans; s++)
        panels_span(t, s, f, acc);
    UNROLL
    for (int i = 0; i < f.rows * f.panels; i++)
        vec_store(t->sum[i % f.panels] + i / f.panels * LANES, acc[i / f.panels][i % f.panels]);
}

INLINE void panels_run_units(struct panels_tile *t, struct panels_form f)
{
    for (size_t s = 0, unit = 0; s < t->spans; unit++) {
        const size_t end = t->spans - s < PANELS_UNIT ? t->spans : s + PANELS_UNIT;
        const bool first = t->first && s == 0;
        panels_acc acc;
        UNROLL
        for (int i = 0; i < f.rows * f.panels; i++)
            acc[i / f.panels][i % f.panels] = vec_zero();
        for (; s < end; s++)
            panels_span(t, s, f, acc);
        UNROLL
        for (int j = 0; j < f.panels; j++) {
            const vec scale = vec_load(t->scale[j] + unit * LANES);
            UNROLL
            for (int i = 0; i < f.rows; i++) {
                float *sum = t->sum[j] + i * LANES;
                vec_store(sum, vec_fma(acc[i][j], scale, first ? vec_zero() : vec_load(sum)));
            }
        }
    }
}

typedef void panels_fn(struct panels_tile *t);

#define PANELS_CASE(name, run, ...)                                                                \
    static __attribute__((noinline)) void name(struct panels_tile *t)                              \
    {                                                                                              \
        run(t, (struct panels_form){__VA_ARGS__});                                                 \
    }
#define PANELS_CASES(rows, panels)                                                                 \
    PANELS_CASE(panels_##rows##_##panels, panels_run, rows, panels, false, false)                  \
    PANELS_CASE(panels_units_##rows##_##panels, panels_run_units, rows, panels, false, true)       \
    PANELS_CASE(panels_fp8_##rows##_##panels, panels_run_units, rows, panels, true, true)
#define PANELS_ROWS_CASES(rows)                                                                    \
    PANELS_CASES(rows, 1)                                                                          \
    PANELS_CASES(rows, 2)                                                                          \
    PANELS_CASES(rows, 3)
PANELS_ROWS_CASES(1)
PANELS_ROWS_CASES(2)
PANELS_ROWS_CASES(4)
PANELS_ROWS_CASES(8)

enum panels_kind { PANELS_BF16, PANELS_EXPANDED, PANELS_FP8 };
#define PANELS_ENTRY(rows, panels)                                                                 \
    {                                                                                              \
        panels_##rows##_##panels, panels_units_##rows##_##panels, panels_fp8_##rows##_##panels     \
    }
#define PANELS_ENTRIES(rows)                                                                       \
    {                                                                                              \
        PANELS_ENTRY(rows, 1), PANELS_ENTRY(rows, 2), PANELS_ENTRY(rows, 3)                        \
    }
/* [rows: 1, 2, 4, 8][panels - 1][kind] */
static panels_fn *const panels_fns[4][PANELS_TILE][3] = {PANELS_ENTRIES(1), PANELS_ENTRIES(2),
                                                         PANELS_ENTRIES(4), PANELS_ENTRIES(8)};

/* Which rows of panels_fns go on where so many are left: 1 << that many. */
static int panels_rows_log(size_t left)
{
    return left >= 8 ? 3 : left >= 4 ? 2 : left >= 2 ? 1 : 0;
}

/* Panels side by side of one matrix, times a strip of rows. */
struct panels_pass {
    const struct matrix *w;
    const uint16_t *x; /* the first row */
    size_t x_stride, rows, panel, panels, spans;
    const char *next; /* the panels of the pass that comes next, or NULL */
    float (*sums)[PANELS_STRIP * LANES];
};

static size_t panels_span_bytes(const struct matrix *w)
{
    return w->fp8 ? PANELS_SPAN_BYTES / 2 : PANELS_SPAN_BYTES;
}

static const char *panels_place(const struct matrix *w, size_t panel, size_t span)
{
    return (const char *)w->data + (panel * panels_spans(w->cols) + span) * panels_span_bytes(w);
}

/* Spans of a block: of many rows as many as fill half of L2, in equal blocks of whole units. */
static size_t panels_block(const struct panels_pass *p)
{
    const size_t line = PANELS_COLS * sizeof(uint16_t), fit = cpu_cache_bytes(2) / 2 / line;
    const size_t all = p->rows <= PANELS_TILE_ROWS || fit < p->rows ? p->spans : fit / p->rows;
    const size_t most = p->w->fp8 && all > PANELS_PIECE ? PANELS_PIECE : all;
    const size_t blocks = (p->spans + most - 1) / most, each = (p->spans + blocks - 1) / blocks;
    return (each + PANELS_UNIT - 1) / PANELS_UNIT * PANELS_UNIT;
}

/* ---- FP8 ---- */

struct panels_piece {
    float scale[PANELS_TILE][PANELS_PIECE / PANELS_UNIT * LANES];
    char w[PANELS_TILE][PANELS_PIECE * PANELS_SPAN_BYTES] __attribute__((aligned(64)));
};

/* Of panel `panel`, spans [first, first + n). */
static void panels_scales(const struct matrix *w, size_t panel, size_t first, size_t n, float *out)
{
    for (size_t r = 0; r < LANES; r++) {
        const size_t row = panel * PANELS_ROWS + r, last = (size_t)w->rows - 1;
        const float *scale = fp8_scales(w->fp8, row < last ? row : last);
        for (size_t s = 0; s < n; s += PANELS_UNIT)
            out[s / PANELS_UNIT * LANES + r] =
                scale[(first + s) * PANELS_COLS / (size_t)w->fp8->col_block];
    }
}

static void panels_expand(const char *q, size_t spans, char *out)
{
    for (size_t i = 0; i < spans * PANELS_SPAN_BYTES / 2; i += PANELS_LINE) {
        __m512i pairs[2];
        bytes_fp8_pairs(_mm512_loadu_si512(q + i), &pairs[0], &pairs[1]);
        _mm512_store_si512(out + 2 * i, pairs[0]);
        _mm512_store_si512(out + 2 * i + PANELS_LINE, pairs[1]);
    }
}

/* Sets what tiles find of spans [first, first + n); a single one expands weights itself. */
static enum panels_kind panels_open(const struct panels_pass *p, size_t first, size_t n,
                                    struct panels_piece *piece, struct panels_tile *t)
{
    const bool expands = p->w->fp8 && p->rows > PANELS_TILE_ROWS;
    for (size_t j = 0; j < p->panels; j++) {
        t->w[j] = panels_place(p->w, p->panel + j, first);
        if (expands) {
            panels_expand(t->w[j], n, piece->w[j]);
            t->w[j] = piece->w[j];
        }
        if (p->w->fp8)
            panels_scales(p->w, p->panel + j, first, n, piece->scale[j]);
        t->scale[j] = piece->scale[j];
    }
    return expands ? PANELS_EXPANDED : p->w->fp8 ? PANELS_FP8 : PANELS_BF16;
}

/* ---- passes ---- */

/* Spans [first, first + n), of all rows. Whole tiles ask for what comes next, each for a share. */
static void panels_spans_of(const struct panels_pass *p, size_t first, size_t n,
                            struct panels_piece *piece)
{
    const size_t lines = panels_span_bytes(p->w) / PANELS_LINE, whole = p->rows / PANELS_TILE_ROWS;
    const size_t each = whole > 1 ? (lines + whole - 1) / whole : 0;
    const size_t panel_bytes = p->spans * panels_span_bytes(p->w);
    const char *next = first + n < p->spans ? panels_place(p->w, p->panel, first + n) : p->next;
    struct panels_tile t = {.x_stride = p->x_stride, .spans = n, .first = first == 0};
    const enum panels_kind kind = panels_open(p, first, n, piece, &t);
    for (size_t row = 0, tile = 0; row < p->rows; tile++) {
        const int rows = panels_rows_log(p->rows - row);
        t.x = p->x + row * p->x_stride + first * PANELS_COLS;
        t.ahead_lines = next && tile * each < lines ? each : 0;
        for (size_t j = 0; j < p->panels; j++) {
            t.sum[j] = p->sums[j] + row * LANES;
            if (next)
                t.ahead[j] = next + j * panel_bytes + tile * each * n * PANELS_LINE;
        }
        panels_fns[rows][p->panels - 1][kind](&t);
        row += (size_t)1 << rows;
    }
}

static void panels_pass(const struct panels_pass *p)
{
    struct panels_piece piece;
    const size_t block = panels_block(p);
    for (size_t first = 0; first < p->spans; first += block)
        panels_spans_of(p, first, p->spans - first < block ? p->spans - first : block, &piece);
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
                tiles_write_unit(op, sum, sums[PANELS_TILE + i] + r * LANES, s->m + r,
                                 s->panel + i);
            else
                packed_write_vec(op, vec_load(sum), op->out + (s->m + r) * stride + col, col,
                                 left < LANES ? (int)left : 0);
        }
    }
}

/* `last`: no panels come after it. */
static void panels_strip(const struct op_gemm *op, const struct packed_strip *s, bool last)
{
    float sums[2 * PANELS_TILE][PANELS_STRIP * LANES] __attribute__((aligned(64)));
    const struct matrix *w = op->w, *up = op->unit ? op->unit->up : NULL;
    const char *next = last ? NULL : panels_place(w, s->panel + s->panels, 0);
    struct panels_pass p = {.w = w,
                            .x = op->x16 + s->m * rows16_stride(w->cols),
                            .x_stride = rows16_stride(w->cols),
                            .rows = s->rows,
                            .panel = s->panel,
                            .panels = s->panels,
                            .spans = panels_spans(w->cols),
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
    assert(op->x16);
    for (struct packed_strip s = {0}; packed_next(&share, rows, PANELS_TILE, &s);)
        panels_strip(op, &s, s.panel + s.panels + PANELS_TILE > share.end);
}

#endif
