/* Products in tiles of whole cache lines: of bf16 weights in panels (kernels/panels.h) with rows of
 * bf16, and of bytes with a scale for a whole row (packed_is_whole()) with rows of bytes.
 *
 * A line of each row is one product of tiles. Of bf16 that is a span of 32 columns: the sum of its
 * even columns, that of its odd ones, and both added to what was there. That is the order for any
 * number of rows: a single one, for which tiles would be mostly empty, is done so by vectors. Of
 * bytes it is 64 columns, and sums are exact: whole_body.h, which has the single row, adds them up
 * otherwise. Weights have no sign there; what that adds is taken off in the end.
 *
 * Two tiles of rows meet three panels at a time, six sums for five loads from L2, which is what
 * bounds this: a core that has 2 MiB of it gives some 48 bytes a cycle, and four sums for four loads
 * would take more. Of many rows a block of columns stays there while the panels of a strip pass by
 * it, and the three that come next are fetched meanwhile. The sums wait in memory as they are, so
 * that cutting changes no order of addition. What comes from behind L2 costs the most, the weights
 * once for each block of rows, rows once for each strip; what shares of the cache the blocks take
 * was tried out.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_TILES_LINES_BODY_H
#define KERNELS_CPU_GEMM_TILES_LINES_BODY_H

#include <assert.h>

#include "kernels/cpu/gemm/tiles_unit_body.h"
#include "kernels/cpu/gemm/whole_body.h"
#include "kernels/cpu/vec/tiles.h"
#include "kernels/panels.h"

/* A line of a panel of either kind. */
_Static_assert(PANELS_SPAN_BYTES == 2 * PACKED_SPAN * PACKED_ROWS && PANELS_ROWS == PACKED_ROWS,
               "a line of each row of a panel");

#define LINES_ROWS 256  /* of x at a time */
#define LINES_PANELS 18 /* whose sums wait meanwhile: threes, and pairs of a unit's */
#define LINES_WIDE 3    /* panels side by side */
#define LINES_AHEAD 8192

struct lines_run {
    const struct op_gemm *op;
    bool bytes;                /* else bf16 */
    const char *x;             /* of the block's first row */
    size_t x_stride, spans;    /* lines of a row */
    size_t rows;               /* of the block */
    size_t first, n;           /* spans of the block */
    const char *w[LINES_WIDE]; /* the panels' first span */
    size_t panels;             /* so many of them */
    size_t below;              /* rows from the upper tile's first to the lower one's */
    uint8_t set;               /* rows that the tiles are set for */
    bool ahead;
    const char *next[LINES_WIDE]; /* of the panels that come next: what this tile asks for */
    size_t next_lines;            /* of each of them with each span */
    float (*sum)[LINES_ROWS * TILE_ROWS]; /* [panels] */
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

static __attribute__((noinline)) void pairs_row(const struct lines_run *b, float *out)
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
            __builtin_prefetch(w + 64 * k + LINES_AHEAD);
            even = vec_fma(pairs_even(xv), pairs_even(wv), even);
            odd = vec_fma(pairs_odd(xv), pairs_odd(wv), odd);
        }
        sum = sum + (even + odd);
    }
    vec_store(out, sum);
    flush_end(csr);
}

/* ---- more of them, in tiles ---- */

/* Tiles 0 to 2 are sums of the upper rows, 3 to 5 of the lower ones, 6 is of x and 7 of w. */
static void lines_configure(struct lines_run *b, size_t rows)
{
    struct tile_config c = {0};
    if (b->set == rows)
        return;
    b->set = (uint8_t)rows;
    for (int i = 0; i < 7; i++)
        tile_set(&c, i, rows, TILE_ROW_BYTES);
    tile_set(&c, 7, TILE_ROWS, TILE_ROW_BYTES);
    tiles_begin(&c);
}

/* What is constant where this is inlined: the number of panels; whether there is a lower tile;
 * whether of bytes. */
struct lines_form {
    int panels;
    bool lower, bytes;
};

#define LINES_DOT(f, c, a, b)                                                                      \
    do {                                                                                           \
        if ((f).bytes)                                                                             \
            TILE_DOT_MIXED(c, a, b);                                                               \
        else                                                                                       \
            TILE_DOT_BF16(c, a, b);                                                                \
    } while (0)

/* Does `op` with each tile of sums and where these wait. */
#define LINES_SUMS(f, op, sum, below)                                                              \
    do {                                                                                           \
        op(0, (sum)[0], TILE_ROW_BYTES);                                                           \
        if ((f).panels > 1)                                                                        \
            op(1, (sum)[1], TILE_ROW_BYTES);                                                       \
        if ((f).panels > 2)                                                                        \
            op(2, (sum)[2], TILE_ROW_BYTES);                                                       \
        if ((f).lower)                                                                             \
            op(3, (sum)[0] + (below), TILE_ROW_BYTES);                                             \
        if ((f).lower && (f).panels > 1)                                                           \
            op(4, (sum)[1] + (below), TILE_ROW_BYTES);                                             \
        if ((f).lower && (f).panels > 2)                                                           \
            op(5, (sum)[2] + (below), TILE_ROW_BYTES);                                             \
    } while (0)
#define LINES_ZERO(t, p, stride) TILE_ZERO(t)

INLINE void lines_ahead(const char *w)
{
    for (size_t i = 0; i < PANELS_SPAN_BYTES; i += 64)
        __builtin_prefetch(w + LINES_AHEAD + i);
}

/* Up to 32 rows, from `row` of the block on. Of few the weights come from memory as they are read;
 * else they are in L2, and others are fetched into it. */
INLINE void lines_tile(struct lines_run *b, size_t row, struct lines_form f)
{
    const char *x = b->x + row * b->x_stride + b->first * TILE_ROW_BYTES;
    const char *low = x + b->below * b->x_stride, *w[LINES_WIDE];
    const size_t below = b->below * TILE_ROWS;
    float *sum[LINES_WIDE];
    for (int i = 0; i < f.panels; i++) {
        w[i] = b->w[i] + b->first * PANELS_SPAN_BYTES;
        sum[i] = b->sum[i] + row * TILE_ROWS;
    }
    if (b->first == 0)
        LINES_SUMS(f, LINES_ZERO, sum, below);
    else
        LINES_SUMS(f, TILE_LOAD, sum, below);
    for (size_t s = 0; s < b->n; s++) {
        const size_t at = s * PANELS_SPAN_BYTES;
        TILE_LOAD(6, x + s * TILE_ROW_BYTES, b->x_stride);
        TILE_LOAD(7, w[0] + at, TILE_ROW_BYTES);
        LINES_DOT(f, 0, 6, 7);
        if (f.panels > 1) {
            TILE_LOAD(7, w[1] + at, TILE_ROW_BYTES);
            LINES_DOT(f, 1, 6, 7);
        }
        if (f.panels > 2) {
            TILE_LOAD(7, w[2] + at, TILE_ROW_BYTES);
            LINES_DOT(f, 2, 6, 7);
        }
        for (int i = 0; b->ahead && i < f.panels; i++)
            lines_ahead(w[i] + at);
        for (size_t i = 0; i < b->next_lines; i++)
            for (int j = 0; j < LINES_WIDE; j++)
                __builtin_prefetch(b->next[j] + (s * b->next_lines + i) * 64, 0, 2);
        if (f.lower) { /* from the last panel on, whose tile is there */
            TILE_LOAD(6, low + s * TILE_ROW_BYTES, b->x_stride);
            if (f.panels > 2) {
                LINES_DOT(f, 5, 6, 7);
                TILE_LOAD(7, w[1] + at, TILE_ROW_BYTES);
            }
            if (f.panels > 1) {
                LINES_DOT(f, 4, 6, 7);
                TILE_LOAD(7, w[0] + at, TILE_ROW_BYTES);
            }
            LINES_DOT(f, 3, 6, 7);
        }
    }
    LINES_SUMS(f, TILE_STORE, sum, below);
}

#define LINES_CASE(name, panels, lower, bytes)                                                     \
    static __attribute__((noinline)) void name(struct lines_run *b, size_t row)                    \
    {                                                                                              \
        lines_tile(b, row, (struct lines_form){panels, lower, bytes});                             \
    }
LINES_CASE(lines_1, 1, false, false)
LINES_CASE(lines_2, 2, false, false)
LINES_CASE(lines_3, 3, false, false)
LINES_CASE(lines_1_tall, 1, true, false)
LINES_CASE(lines_2_tall, 2, true, false)
LINES_CASE(lines_3_tall, 3, true, false)
LINES_CASE(lines_1_bytes, 1, false, true)
LINES_CASE(lines_2_bytes, 2, false, true)
LINES_CASE(lines_3_bytes, 3, false, true)
LINES_CASE(lines_1_tall_bytes, 1, true, true)
LINES_CASE(lines_2_tall_bytes, 2, true, true)
LINES_CASE(lines_3_tall_bytes, 3, true, true)

/* The rows of a block by the panels that are set, a block of their columns; `next`: of the panels
 * that come then. Over 16 rows are two whole tiles: the lower one, where fewer are left, has rows
 * of the upper one again, to the same sums. */
static void lines_pass(struct lines_run *b, const char *const *next)
{
    static void (*const fns[2][2][LINES_WIDE])(struct lines_run *, size_t) = {
        {{lines_1, lines_2, lines_3}, {lines_1_tall, lines_2_tall, lines_3_tall}},
        {{lines_1_bytes, lines_2_bytes, lines_3_bytes},
         {lines_1_tall_bytes, lines_2_tall_bytes, lines_3_tall_bytes}}};
    const size_t lines = PANELS_SPAN_BYTES / 64,
                 tiles = (b->rows + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS);
    const size_t each = (lines + tiles - 1) / tiles;
    for (size_t row = 0, tile = 0; row < b->rows; row += 2 * TILE_ROWS, tile++) {
        const size_t left = b->rows - row;
        const bool tall = left > TILE_ROWS;
        b->next_lines = next && tile * each < lines ? each : 0;
        for (size_t i = 0; i < LINES_WIDE && b->next_lines; i++)
            b->next[i] = next[i] + tile * each * 64 * b->n;
        b->below = !tall ? 0 : left < 2 * TILE_ROWS ? left - TILE_ROWS : TILE_ROWS;
        lines_configure(b, tall ? TILE_ROWS : left);
        fns[b->bytes][tall][b->panels - 1](b, row);
    }
}

/* A strip's panels; with a unit (op_gemm.unit) each is followed by that of the second matrix. */
static size_t lines_slots(const struct lines_run *b, const struct packed_strip *s)
{
    return b->op->unit ? 2 * s->panels : s->panels;
}

/* The matrix and the panel of a slot. */
static const struct matrix *lines_matrix(const struct lines_run *b, const struct packed_strip *s,
                                         size_t slot, size_t *panel)
{
    const struct gemm_unit *u = b->op->unit;
    *panel = s->panel + (u ? slot / 2 : slot);
    return u && slot % 2 ? u->up : b->op->w;
}

static const char *lines_slot(const struct lines_run *b, const struct packed_strip *s, size_t slot)
{
    size_t panel;
    const struct matrix *w = lines_matrix(b, s, slot, &panel);
    const char *first = b->bytes ? (const char *)w->packed->q : (const char *)w->data;
    return first + panel * b->spans * PANELS_SPAN_BYTES;
}

/* Sets the panels from `slot` on. */
static void lines_open(struct lines_run *b, const struct packed_strip *s,
                       float (*sums)[LINES_ROWS * TILE_ROWS], size_t slot)
{
    const size_t left = lines_slots(b, s) - slot;
    b->panels = left < LINES_WIDE ? left : LINES_WIDE;
    b->sum = sums + slot;
    for (size_t i = 0; i < b->panels; i++)
        b->w[i] = lines_slot(b, s, slot + i);
}

/* Spans of a block: as many as stay in L2, of all rows, and of three panels and those that are
 * fetched. */
static size_t lines_block(const struct lines_run *b)
{
    const size_t l2 = cpu_cache_bytes(2), x = l2 / 4 / (b->rows * TILE_ROW_BYTES);
    const size_t w = l2 / 8 / (LINES_WIDE * PANELS_SPAN_BYTES), most = x < w ? x : w;
    const size_t blocks = most > 0 ? (b->spans + most - 1) / most : b->spans;
    return (b->spans + blocks - 1) / blocks;
}

/* Of many rows; behind the strip are panels up to `end`. */
static void lines_blocks(struct lines_run *b, const struct packed_strip *s, size_t end,
                         float (*sums)[LINES_ROWS * TILE_ROWS])
{
    const struct packed_strip rest = {s->m, s->rows, s->panel, end - s->panel};
    const size_t slots = lines_slots(b, s), all = lines_slots(b, &rest), block = lines_block(b);
    for (b->first = 0; b->first < b->spans; b->first += b->n) {
        b->n = b->spans - b->first < block ? b->spans - b->first : block;
        for (size_t slot = 0; slot < slots; slot += LINES_WIDE) {
            const bool within = slot + LINES_WIDE < slots, last = b->first + b->n == b->spans;
            const size_t next = within ? slot + LINES_WIDE : last ? slots : 0;
            const size_t first = within ? b->first : last ? 0 : b->first + b->n;
            const char *ahead[LINES_WIDE];
            for (size_t i = 0; i < LINES_WIDE && next < all; i++)
                ahead[i] =
                    lines_slot(b, s, next + i < all ? next + i : next) + first * PANELS_SPAN_BYTES;
            lines_open(b, s, sums, slot);
            lines_pass(b, next < all ? ahead : NULL);
        }
    }
}

/* Sums of bytes to what they stand for, in their place. */
static void lines_scale(const struct lines_run *b, const struct packed_strip *s,
                        float (*sums)[LINES_ROWS * TILE_ROWS])
{
    const struct rows8 x = rows8_from(b->op->x8, s->m);
    for (size_t r = 0; r < s->rows; r++) {
        const struct whole_row row = whole_row_of(&x, r);
        for (size_t slot = 0; slot < lines_slots(b, s); slot++) {
            size_t panel;
            const struct packed *p = lines_matrix(b, s, slot, &panel)->packed;
            float *sum = sums[slot] + r * TILE_ROWS;
            vec_store(sum, whole_value(p, row, _mm512_loadu_si512(sum), panel * PACKED_ROWS));
        }
    }
}

/* Row by row, so that what is written lies together. */
static void lines_write(const struct op_gemm *op, float (*sums)[LINES_ROWS * TILE_ROWS],
                        const struct packed_strip *s)
{
    const size_t stride = (size_t)(op->out_stride ? op->out_stride : op->w->rows);
    for (size_t r = 0; r < s->rows; r++) {
        float *out = op->out + (s->m + r) * stride;
        for (size_t i = 0; i < s->panels; i++) {
            const size_t col = (s->panel + i) * PANELS_ROWS, left = (size_t)op->w->rows - col;
            packed_write_vec(op, vec_load(sums[i] + r * TILE_ROWS), out + col, col,
                             left < PANELS_ROWS ? (int)left : 0);
        }
    }
}

static void lines_write_units(const struct op_gemm *op, float (*sums)[LINES_ROWS * TILE_ROWS],
                              const struct packed_strip *s)
{
    for (size_t r = 0; r < s->rows; r++)
        for (size_t i = 0; i < s->panels; i++)
            tiles_write_unit(op, sums[2 * i] + r * TILE_ROWS, sums[2 * i + 1] + r * TILE_ROWS,
                             s->m + r, s->panel + i);
}

/* `end`: of the share's panels. */
static void lines_strip(struct lines_run *b, const struct packed_strip *s, size_t end,
                        float (*sums)[LINES_ROWS * TILE_ROWS])
{
    const size_t slots = lines_slots(b, s);
    b->x = b->bytes ? (const char *)b->op->x8->q : (const char *)b->op->x16;
    b->x += s->m * b->x_stride;
    b->rows = s->rows;
    b->ahead = s->rows <= 2 * TILE_ROWS;
    if (!b->ahead)
        lines_blocks(b, s, end, sums);
    b->n = b->spans;
    for (size_t slot = 0; b->ahead && slot < slots; slot += b->panels) {
        lines_open(b, s, sums, slot);
        b->first = 0;
        if (s->rows > 1 || b->bytes) {
            lines_pass(b, NULL);
        } else {
            b->panels = 1;
            pairs_row(b, sums[slot]);
        }
    }
    if (b->bytes)
        lines_scale(b, s, sums);
    if (b->op->unit)
        lines_write_units(b->op, sums, s);
    else
        lines_write(b->op, sums, s);
}

/* Rows of the next block: equal ones, of whole tiles. */
static size_t lines_rows(size_t left)
{
    const size_t blocks = (left + LINES_ROWS - 1) / LINES_ROWS, tall = 2 * TILE_ROWS;
    const size_t rows = ((left + blocks - 1) / blocks + tall - 1) / tall * tall;
    return rows < left ? rows : left;
}

static void tiles_lines(const struct op_gemm *op, struct packed_share share)
{
    float sums[LINES_PANELS][LINES_ROWS * TILE_ROWS] __attribute__((aligned(64)));
    struct lines_run b = {.op = op, .bytes = op->w->packed != NULL};
    struct packed_strip s;
    assert(b.bytes || op->x16);
    b.x_stride =
        b.bytes ? rows8_stride(op->x8->spans) : rows16_stride(op->w->cols) * sizeof(uint16_t);
    b.spans = b.bytes ? (size_t)op->x8->spans / 2 : panels_spans(op->w->cols);
    for (s.m = share.m_begin; s.m < share.m_end; s.m += s.rows) {
        s.rows = lines_rows(share.m_end - s.m);
        const size_t slots = s.rows > 2 * TILE_ROWS ? LINES_PANELS : 2 * LINES_WIDE;
        const size_t most = op->unit ? slots / 2 : slots;
        for (s.panel = share.begin; s.panel < share.end; s.panel += s.panels) {
            s.panels = share.end - s.panel < most ? share.end - s.panel : most;
            lines_strip(&b, &s, share.end, sums);
        }
    }
    if (b.set > 0)
        tiles_end();
}

#endif
