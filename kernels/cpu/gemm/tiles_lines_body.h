/* Products in tiles of whole cache lines: of bf16 weights in panels (kernels/panels.h) with rows of
 * bf16, and of bytes with a scale for a whole row (packed_is_whole()) with rows of bytes.
 *
 * A line of each row is one product of tiles. Of bf16 that is a span of 32 columns: the sum of its
 * even columns, that of its odd ones, and both added to what was there. Of bytes it is 64 columns,
 * and sums are exact: whole_body.h, for CPUs without tiles, adds them up otherwise. Weights have no
 * sign there; what that adds is taken off in the end.
 *
 * Few rows wait for the memory, a single one too: most of its tile is empty, but tiles need few
 * instructions, so that the CPU sees far ahead: vectors that did the same made seven eighths of it.
 * Two panels at a time are two streams, which memory gives faster than one, and than four.
 *
 * Two tiles of rows meet two panels at a time. Of many rows a block of columns stays in L2 while
 * the panels of a strip pass by it, two at a time, and the next two are fetched meanwhile. The sums
 * wait in memory as they are, so that cutting changes no order of addition. What comes from behind
 * L2 costs most: weights once for a block of rows, rows once for a strip; what shares of the cache
 * these are was tried out on a core that has 2 MiB. There L2 gives some 48 bytes a cycle, and four
 * products take 84 cycles where they would take 64 from L1; each line that comes into L2 meanwhile
 * costs four to five more, be it asked for or not, and sums that are loaded and stored some ten.
 * Three panels side by side, with sums in six tiles, are 6 per cent faster on a quiet core, and 14
 * slower on one that is shared with another thread: there each load of a tile adds to what products
 * take, the less so if it comes before them.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_TILES_LINES_BODY_H
#define KERNELS_CPU_GEMM_TILES_LINES_BODY_H

#include <assert.h>

#include "kernels/cpu/gemm/unit_body.h"
#include "kernels/cpu/gemm/whole_body.h"
#include "kernels/cpu/vec/tiles.h"
#include "kernels/panels.h"

/* A line of a panel of either kind. */
_Static_assert(PANELS_SPAN_BYTES == 2 * PACKED_SPAN * PACKED_ROWS && PANELS_ROWS == PACKED_ROWS,
               "a line of each row of a panel");

#define LINES_ROWS (TILES_BLOCK_ROWS / 2 * 3) /* of x at a time, at most */
#define LINES_PANELS 16                       /* whose sums wait meanwhile */
#define LINES_AHEAD 8                         /* spans that few rows ask for ahead */

_Static_assert(OPS_BLOCK_GRAIN == 2 * TILE_ROWS && LINES_ROWS % OPS_BLOCK_GRAIN == 0,
               "blocks of whole tiles");

struct lines_run {
    const struct op_gemm *op;
    bool bytes;             /* else bf16 */
    const char *x;          /* of the block's first row */
    size_t x_stride, spans; /* lines of a row */
    size_t rows;            /* of the block */
    size_t first, n;        /* spans of the block */
    const char *w[2];       /* the panels' first span */
    size_t panels;          /* 1 or 2 */
    uint8_t upper, lower;   /* rows that the tiles are set for */
    bool few;
    const char *next[2]; /* of the panels that come next: what this tile asks for, */
    size_t next_lines;   /* of many rows twice so many lines of each with each span */
    float *sum[2];
};

static void lines_configure(struct lines_run *b, size_t upper, size_t lower)
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
 * panel; whether of bytes. */
struct lines_form {
    bool lower, right, bytes;
};

#define LINES_DOT(f, c, a, b)                                                                      \
    do {                                                                                           \
        if ((f).bytes)                                                                             \
            TILE_DOT_MIXED(c, a, b);                                                               \
        else                                                                                       \
            TILE_DOT_BF16(c, a, b);                                                                \
    } while (0)

INLINE void lines_load(float *left, float *right, struct lines_form f)
{
    TILE_LOAD(0, left, TILE_ROW_BYTES);
    if (f.right)
        TILE_LOAD(1, right, TILE_ROW_BYTES);
    if (f.lower)
        TILE_LOAD(2, left + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
    if (f.lower && f.right)
        TILE_LOAD(3, right + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
}

INLINE void lines_zero(struct lines_form f)
{
    TILE_ZERO(0);
    if (f.right)
        TILE_ZERO(1);
    if (f.lower)
        TILE_ZERO(2);
    if (f.lower && f.right)
        TILE_ZERO(3);
}

INLINE void lines_store(float *left, float *right, struct lines_form f)
{
    TILE_STORE(0, left, TILE_ROW_BYTES);
    if (f.right)
        TILE_STORE(1, right, TILE_ROW_BYTES);
    if (f.lower)
        TILE_STORE(2, left + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
    if (f.lower && f.right)
        TILE_STORE(3, right + TILE_ROWS * TILE_ROWS, TILE_ROW_BYTES);
}

/* What span s asks for, in quarters between the products: so many in one go would wait for each
 * other, and all else for them. Of few rows these panels' span LINES_AHEAD behind it, or the next
 * panels' first; of many the next panels' lines from next[] on. */
INLINE void lines_fetch(const struct lines_run *b, size_t s, int quarter, const char *next[2],
                        struct lines_form f)
{
    const int i = quarter / 2;
    const size_t at = s + LINES_AHEAD;
    if (b->few && (i == 0 || f.right)) {
        const char *w = at < b->n ? b->w[i] + at * PANELS_SPAN_BYTES
                                  : b->next[i] + (at - b->n) * PANELS_SPAN_BYTES;
        UNROLL
        for (size_t line = 0; line < PANELS_SPAN_BYTES / 2; line += 64)
            __builtin_prefetch(w + (size_t)(quarter % 2) * (PANELS_SPAN_BYTES / 2) + line);
    }
    for (size_t line = 0; line < b->next_lines; line++, next[i] += 64)
        __builtin_prefetch(next[i], 0, 2);
}

/* Up to 32 rows, from `row` of the block on. */
INLINE void lines_tile(struct lines_run *b, size_t row, struct lines_form f)
{
    float *left = b->sum[0] + row * TILE_ROWS, *right = b->sum[1] + row * TILE_ROWS;
    const char *x = b->x + row * b->x_stride + b->first * TILE_ROW_BYTES;
    const char *w0 = b->w[0] + b->first * PANELS_SPAN_BYTES;
    const char *w1 = b->w[1] + b->first * PANELS_SPAN_BYTES;
    const char *next[2] = {b->next[0], b->next[1]};
    if (b->first == 0)
        lines_zero(f);
    else
        lines_load(left, right, f);
    for (size_t s = 0; s < b->n; s++) {
        TILE_LOAD(6, w0, TILE_ROW_BYTES);
        if (f.right)
            TILE_LOAD(7, w1, TILE_ROW_BYTES);
        TILE_LOAD(4, x, b->x_stride);
        LINES_DOT(f, 0, 4, 6);
        lines_fetch(b, s, 0, next, f);
        if (!f.lower) /* two products at most */
            lines_fetch(b, s, 1, next, f);
        if (f.right)
            LINES_DOT(f, 1, 4, 7);
        if (f.lower) {
            lines_fetch(b, s, 1, next, f);
            TILE_LOAD(5, x + TILE_ROWS * b->x_stride, b->x_stride);
            LINES_DOT(f, 2, 5, 6);
        }
        lines_fetch(b, s, 2, next, f);
        if (f.lower && f.right)
            LINES_DOT(f, 3, 5, 7);
        lines_fetch(b, s, 3, next, f);
        x += TILE_ROW_BYTES;
        w0 += PANELS_SPAN_BYTES;
        w1 += PANELS_SPAN_BYTES;
    }
    lines_store(left, right, f);
}

#define LINES_CASE(name, lower, right, bytes)                                                      \
    static __attribute__((noinline)) void name(struct lines_run *b, size_t row)                    \
    {                                                                                              \
        lines_tile(b, row, (struct lines_form){lower, right, bytes});                              \
    }
LINES_CASE(lines_one, false, false, false)
LINES_CASE(lines_wide, false, true, false)
LINES_CASE(lines_tall, true, false, false)
LINES_CASE(lines_four, true, true, false)
LINES_CASE(lines_one_bytes, false, false, true)
LINES_CASE(lines_wide_bytes, false, true, true)
LINES_CASE(lines_tall_bytes, true, false, true)
LINES_CASE(lines_four_bytes, true, true, true)

/* The rows of a block by the panels that are set, a block of their columns; `next`: of the panels
 * that come then. */
static void lines_pass(struct lines_run *b, const char *const *next)
{
    static void (*const fns[2][2][2])(struct lines_run *, size_t) = {
        {{lines_one, lines_wide}, {lines_tall, lines_four}},
        {{lines_one_bytes, lines_wide_bytes}, {lines_tall_bytes, lines_four_bytes}}};
    const size_t lines = PANELS_SPAN_BYTES / 64,
                 tiles = (b->rows + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS);
    const size_t each = (lines + 2 * tiles - 1) / (2 * tiles) * 2;
    for (size_t row = 0, tile = 0; row < b->rows; row += 2 * TILE_ROWS, tile++) {
        const size_t left = b->rows - row, upper = left < TILE_ROWS ? left : TILE_ROWS;
        const size_t lower = left - upper < TILE_ROWS ? left - upper : TILE_ROWS;
        b->next_lines = next && tile * each < lines ? each / 2 : 0;
        for (size_t i = 0; i < 2 && b->next_lines; i++)
            b->next[i] = next[i] + tile * each * 64 * b->n;
        lines_configure(b, upper, lower);
        fns[b->bytes][lower > 0][b->panels - 1](b, row);
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
    b->panels = lines_slots(b, s) - slot < 2 ? 1 : 2;
    for (size_t i = 0; i < 2; i++) {
        b->sum[i] = sums[slot + (i < b->panels ? i : 0)];
        b->w[i] = lines_slot(b, s, slot + (i < b->panels ? i : 0));
    }
}

/* Spans of a block: as many as stay in L2 of all rows, and of two panels and those that are
 * fetched; in equal blocks. */
static size_t lines_block(const struct lines_run *b)
{
    const size_t x = TILES_L2_BYTES / 4 / (b->rows * TILE_ROW_BYTES);
    const size_t w = TILES_L2_BYTES / 8 / (2 * PANELS_SPAN_BYTES), most = x < w ? x : w;
    const size_t blocks = (b->spans + most - 1) / most;
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
        for (size_t slot = 0; slot < slots; slot += 2) {
            const bool within = slot + 2 < slots, last = b->first + b->n == b->spans;
            const size_t next = within ? slot + 2 : last ? slots : 0;
            const size_t first = within ? b->first : last ? 0 : b->first + b->n;
            const char *ahead[2];
            for (size_t i = 0; i < 2 && next < all; i++)
                ahead[i] =
                    lines_slot(b, s, next + i < all ? next + i : next) + first * PANELS_SPAN_BYTES;
            lines_open(b, s, sums, slot);
            lines_pass(b, next < all ? ahead : NULL);
        }
    }
}

/* Of few rows, by two panels at most. */
static void lines_all(struct lines_run *b, const struct packed_strip *s, size_t end,
                      float (*sums)[LINES_ROWS * TILE_ROWS])
{
    const struct packed_strip rest = {s->m, s->rows, s->panel, end - s->panel};
    const size_t slots = lines_slots(b, s), all = lines_slots(b, &rest);
    b->first = 0;
    b->n = b->spans;
    assert(slots <= 2);
    lines_open(b, s, sums, 0);
    for (size_t i = 0; i < 2; i++)
        b->next[i] = slots + i < all ? lines_slot(b, &rest, slots + i) : b->w[i];
    lines_pass(b, NULL);
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
            unit_write(op, sums[2 * i] + r * TILE_ROWS, sums[2 * i + 1] + r * TILE_ROWS, s->m + r,
                       s->panel + i);
}

/* `end`: of the share's panels. */
static void lines_strip(struct lines_run *b, const struct packed_strip *s, size_t end,
                        float (*sums)[LINES_ROWS * TILE_ROWS])
{
    b->x = b->bytes ? (const char *)b->op->x8->q : (const char *)b->op->x16;
    b->x += s->m * b->x_stride;
    b->rows = s->rows;
    b->few = s->rows <= 2 * TILE_ROWS;
    if (b->few)
        lines_all(b, s, end, sums);
    else
        lines_blocks(b, s, end, sums);
    if (b->bytes)
        lines_scale(b, s, sums);
    if (b->op->unit)
        lines_write_units(b->op, sums, s);
    else
        lines_write(b->op, sums, s);
}

/* Rows of the next block: equal ones, of pairs of tiles. */
static size_t lines_rows(size_t left)
{
    const size_t blocks = ops_blocks(left, TILES_BLOCK_ROWS), tall = OPS_BLOCK_GRAIN;
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
        assert(s.rows <= LINES_ROWS);
        const size_t slots = s.rows > 2 * TILE_ROWS ? LINES_PANELS : 2; /* lines_all() */
        const size_t most = op->unit ? slots / 2 : slots;
        for (s.panel = share.begin; s.panel < share.end; s.panel += s.panels) {
            s.panels = share.end - s.panel < most ? share.end - s.panel : most;
            lines_strip(&b, &s, share.end, sums);
        }
    }
    if (b.upper > 0)
        tiles_end();
}

#endif
