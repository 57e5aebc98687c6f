/* Products with packed weights (kernels/packed.h), compiled once per instruction set (see cpu.h).
 *
 * Of a unit (a span, half of one where groups are that small, or two where groups are large and
 * rows of x have one scale for both) the products are summed as integers, exactly; units are added
 * up as floats in order of K, with one accumulator for each output, whatever else the tile holds. A
 * piece of two panels, half of L1, meets as many rows of x as half of L2 holds before the next
 * piece comes; meanwhile the accumulators wait in memory, so cutting changes no order of addition.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_PACKED_BODY_H
#define KERNELS_CPU_GEMM_PACKED_BODY_H

#include <assert.h>

#include "base/team.h"

#define PANEL_VECS (PACKED_ROWS / LANES)
#define PANEL_STEP_BYTES ((size_t)4 * PACKED_ROWS)
#define TILE_VECS (BYTES_PANELS * PANEL_VECS) /* at most */
#define TILE_WIDTH (BYTES_PANELS * PACKED_ROWS)
#define PACKED_FEW (2 * BYTES_ROWS) /* rows for which 4 bits are read one by one */
#define PACKED_AHEAD 6144
#define PACKED_NEAR_TILES 4 /* of a block, for what is fetched to go into the first level */
#define PACKED_LINE_BYTES ((size_t)64)
#define PACKED_TILES_MAX 64   /* of a block of rows */
#define PACKED_NARROW_MOST 32 /* the largest entry of a table that counts as narrow */
#if LANES == 8                /* 16 registers */
#define UNROLL_BYTES NO_UNROLL
#else
#define UNROLL_BYTES UNROLL
#endif

struct packed_tile {
    const struct packed *p;
    uint8_t table[16]; /* p's, less its least, and what stands for zero there */
    int32_t zero;
    bool narrow;    /* its entries are of few bits */
    bool asks;      /* one tile in all: it asks for what comes next as it goes */
    struct rows8 x; /* from its first row on */
    const uint8_t *panel[BYTES_PANELS];
    const char *scales[BYTES_PANELS], *mins[BYTES_PANELS];
    size_t group, group_end;
    float *sum; /* [BYTES_ROWS][panels][PACKED_ROWS]; found there where group > 0 */
    const uint8_t *ahead[BYTES_PANELS]; /* weights of the next piece, and how many lines of them */
    size_t ahead_lines;                 /* each unit of this tile asks for */
};

/* With the least entry of a table at zero sums are the same, and its entries small. */
static struct packed_tile packed_tile_of(const struct packed *p)
{
    struct packed_tile t = {.p = p, .zero = p->zero};
    uint8_t least = UINT8_MAX, most = 0;
    assert(p->bits == 4 || !p->has_table);
    if (!p->has_table)
        return t;
    for (size_t i = 0; i < sizeof t.table; i++) {
        least = p->table[i] < least ? p->table[i] : least;
        most = p->table[i] > most ? p->table[i] : most;
    }
    for (size_t i = 0; i < sizeof t.table; i++)
        t.table[i] = (uint8_t)(p->table[i] - least);
    t.zero -= least;
    t.narrow = most - least <= PACKED_NARROW_MOST;
    return t;
}

/* What is constant where the tile is inlined. */
struct packed_form {
    int rows, panels, bits;
    bool half, twice, table; /* units are half spans, or two; q stands for an entry of the table */
    bool near;               /* what is fetched ahead goes into the first level of the cache */
    bool alone;              /* one row in all: nothing else asks for these weights */
};

INLINE size_t unit_cols(struct packed_form f)
{
    return f.half ? PACKED_SPAN / 2 : f.twice ? 2 * PACKED_SPAN : PACKED_SPAN;
}

INLINE bytes_w tile_bytes(const struct packed_tile *t, struct packed_form f, byte_vec b)
{
    return bytes_w_of(f.table ? bytes_lookup(b, t->table) : b);
}

/* Adds steps to the sums: one, or with 4 bits the two that share their bytes. */
INLINE void tile_step(const struct packed_tile *t, struct packed_form f, size_t at, const int8_t *x,
                      ivec sum[BYTES_ROWS][TILE_VECS])
{
    const size_t stride = rows8_stride(t->x.spans);
    for (int half = 0; half < (f.bits == 4 ? 2 : 1); half++) {
        bytes_w w[TILE_VECS];
        UNROLL
        for (int v = 0; v < f.panels * PANEL_VECS; v++) {
            const uint8_t *from =
                t->panel[v / PANEL_VECS] + at + (size_t)(v % PANEL_VECS) * (4 * LANES);
            byte_vec b = bytes_load(from);
            if (half + v % PANEL_VECS == 0 &&
                (f.panels == 1 ? f.bits == 4 || f.rows == 1 : f.alone))
                __builtin_prefetch(from + PACKED_AHEAD);
            if (f.bits == 4)
                b = half ? bytes_high(b) : bytes_low(b);
            w[v] = tile_bytes(t, f, b);
        }
        UNROLL
        for (int r = 0; r < f.rows; r++) {
            bytes_x xv = bytes_x_of(x + (size_t)r * stride + 4 * half);
            UNROLL
            for (int v = 0; v < f.panels * PANEL_VECS; v++)
                sum[r][v] = bytes_dot(sum[r][v], w[v], xv);
        }
    }
}

#if defined(BYTES_CHAIN)
/* Pairs of products of 4 bits and 8 fit 16 bits, and so do a few pairs added up: those of
 * CHAIN_STEPS where values are up to 15, of half as many where a table's are narrow. x is -128 only
 * where a row has no number for a scale; then sums come to the last that fits. */
#define CHAIN_STEPS 8
_Static_assert(CHAIN_STEPS * 2 * 15 * 128 <= 32768, "so many pairs of 4 bits");
_Static_assert(CHAIN_STEPS / 2 * 2 * PACKED_NARROW_MOST * 128 <= 32768, "and of narrow tables");

/* Some steps, an even number: where their bytes are, and their x of the first row. */
struct chain_from {
    size_t at, steps;
    const int8_t *x;
};

/* A step of the low or the high halves of bytes. */
INLINE void chain_step(const struct packed_tile *t, struct packed_form f, struct chain_from from,
                       bool high, byte_vec chain[BYTES_ROWS][TILE_VECS])
{
    const size_t stride = rows8_stride(t->x.spans);
    byte_vec w[TILE_VECS];
    UNROLL
    for (int v = 0; v < f.panels * PANEL_VECS; v++) {
        const uint8_t *q =
            t->panel[v / PANEL_VECS] + from.at + (size_t)(v % PANEL_VECS) * (4 * LANES);
        if (!high && v % PANEL_VECS == 0 && t->asks)
            __builtin_prefetch(q + PACKED_AHEAD);
        w[v] = high ? bytes_high(bytes_load(q)) : bytes_low(bytes_load(q));
        if (f.table)
            w[v] = bytes_lookup(w[v], t->table);
    }
    UNROLL
    for (int r = 0; r < f.rows; r++) {
        const byte_vec four = chain_x_of(from.x + (size_t)r * stride + (high ? 4 : 0));
        UNROLL
        for (int v = 0; v < f.panels * PANEL_VECS; v++)
            chain[r][v] = chain_dot(chain[r][v], w[v], four);
    }
}

/* Adds steps to the sums. */
INLINE void tile_chain(const struct packed_tile *t, struct packed_form f, struct chain_from from,
                       ivec sum[BYTES_ROWS][TILE_VECS])
{
    byte_vec chain[BYTES_ROWS][TILE_VECS];
    UNROLL
    for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
        chain[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)] = chain_zero();
    UNROLL_BYTES
    for (size_t s = 0; s < from.steps; s += 2, from.at += PANEL_STEP_BYTES, from.x += 8) {
        chain_step(t, f, from, false, chain);
        chain_step(t, f, from, true, chain);
    }
    UNROLL
    for (int r = 0; r < f.rows; r++) {
        UNROLL
        for (int v = 0; v < f.panels * PANEL_VECS; v++)
            sum[r][v] = chain_sum(sum[r][v], chain[r][v]);
    }
}
#endif

/* All steps of a unit of 4 bits. */
INLINE void tile_halves(const struct packed_tile *t, struct packed_form f, size_t begin,
                        const int8_t *x, ivec sum[BYTES_ROWS][TILE_VECS])
{
    const size_t steps = unit_cols(f) / 4;
#if defined(BYTES_CHAIN)
    if (!f.table || t->narrow) {
        const size_t most = f.table ? CHAIN_STEPS / 2 : CHAIN_STEPS;
        const size_t each = steps < most ? steps : most;
        for (size_t s = 0; s < steps; s += each)
            tile_chain(t, f, (struct chain_from){begin + s / 2 * PANEL_STEP_BYTES, each, x + 4 * s},
                       sum);
        return;
    }
#endif
    UNROLL_BYTES
    for (size_t s = 0; s < steps / 2; s++)
        tile_step(t, f, begin + s * PANEL_STEP_BYTES, x + 8 * s, sum);
}

INLINE int32_t unit_sum(const struct packed_tile *t, struct packed_form f, int r, size_t unit)
{
    const int32_t *sum = t->x.sum + (size_t)r * (size_t)t->x.spans * 2;
    if (f.twice)
        return sum[4 * unit] + sum[4 * unit + 1] + sum[4 * unit + 2] + sum[4 * unit + 3];
    return f.half ? sum[unit] : sum[2 * unit] + sum[2 * unit + 1];
}

INLINE float unit_scale(const struct packed_tile *t, struct packed_form f, int r, size_t unit)
{
    return t->x.scale[(size_t)r * (size_t)t->x.spans + unit * unit_cols(f) / PACKED_SPAN];
}

/* Unit `unit`, scaled by what x is scaled by, added to `inner` (or in its place). */
INLINE void tile_unit(const struct packed_tile *t, struct packed_form f, size_t unit, bool first,
                      vec inner[BYTES_ROWS][TILE_VECS])
{
    ivec sum[BYTES_ROWS][TILE_VECS];
    const size_t cols = unit_cols(f), k = unit * cols;
    const size_t steps = cols / 4, begin = k * PACKED_ROWS * (size_t)f.bits / 8;
    UNROLL
    for (int r = 0; r < f.rows; r++) {
        ivec start = ivec_set1(-t->zero * unit_sum(t, f, r, unit));
        UNROLL
        for (int v = 0; v < f.panels * PANEL_VECS; v++)
            sum[r][v] = start;
    }
    if (f.bits == 8) {
        UNROLL_BYTES
        for (size_t s = 0; s < steps; s++)
            tile_step(t, f, begin + s * PANEL_STEP_BYTES, t->x.q + k + 4 * s, sum);
    } else {
        tile_halves(t, f, begin, t->x.q + k, sum);
    }
    UNROLL
    for (int r = 0; r < f.rows; r++) {
        vec scale = vec_set1(unit_scale(t, f, r, unit));
        UNROLL
        for (int v = 0; v < f.panels * PANEL_VECS; v++)
            if (first)
                inner[r][v] = vec_of_int(sum[r][v]) * scale;
            else
                inner[r][v] = vec_fma(vec_of_int(sum[r][v]), scale, inner[r][v]);
    }
}

/* Sum of x over the units of a group. */
INLINE float group_sum(const struct packed_tile *t, struct packed_form f, int r, size_t unit,
                       size_t end)
{
    float sum = 0;
    for (; unit < end; unit++)
        sum += (float)unit_sum(t, f, r, unit) * unit_scale(t, f, r, unit);
    return sum;
}

/* While the tiles of a piece compute, the memory would do nothing: the next piece is fetched, into
 * the second level of the cache, or where tiles are many, and lines few at a time, into the first.
 * With 4 bits there is no time left that it could fill. */
INLINE void tile_fetch(struct packed_tile *t, struct packed_form f)
{
    for (size_t n = f.bits == 8 ? t->ahead_lines : 0; n > 0; n--) {
        UNROLL
        for (int i = 0; i < f.panels; i++) {
            if (f.near)
                __builtin_prefetch(t->ahead[i], 0, 3);
            else
                __builtin_prefetch(t->ahead[i], 0, 2);
            t->ahead[i] += PACKED_LINE_BYTES;
        }
    }
}

INLINE void tile_run(struct packed_tile *t, struct packed_form f)
{
    const struct packed *p = t->p;
    const enum dtype type = p->scale_type;
    const size_t unit = unit_cols(f);
    const size_t units = ((size_t)p->cols + unit - 1) / unit;
    const size_t each = ((size_t)p->group + unit - 1) / unit;
    vec acc[BYTES_ROWS][TILE_VECS], inner[BYTES_ROWS][TILE_VECS];
    UNROLL
    for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
        acc[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)] = vec_zero();
    if (t->group > 0) {
        UNROLL
        for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
            acc[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)] =
                vec_load(t->sum + i * LANES);
    }
    for (size_t g = t->group; g < t->group_end; g++) {
        size_t begin = g * each, end = begin + each < units ? begin + each : units;
        size_t at = g * PACKED_ROWS;
        tile_fetch(t, f);
        tile_unit(t, f, begin, true, inner);
        for (size_t u = begin + 1; u < end; u++) {
            tile_fetch(t, f);
            tile_unit(t, f, u, false, inner);
        }
        UNROLL
        for (int v = 0; v < f.panels * PANEL_VECS; v++) {
            size_t lane = at + (size_t)(v % PANEL_VECS) * LANES;
            vec scale = vec_load_as(t->scales[v / PANEL_VECS], type, lane);
            UNROLL
            for (int r = 0; r < f.rows; r++)
                acc[r][v] = vec_fma(inner[r][v], scale, acc[r][v]);
        }
        if (!p->has_min)
            continue;
        UNROLL
        for (int r = 0; r < f.rows; r++) {
            vec sum = vec_set1(group_sum(t, f, r, begin, end));
            UNROLL
            for (int v = 0; v < f.panels * PANEL_VECS; v++) {
                size_t lane = at + (size_t)(v % PANEL_VECS) * LANES;
                acc[r][v] =
                    vec_fma(vec_load_as(t->mins[v / PANEL_VECS], type, lane), sum, acc[r][v]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
        vec_store(t->sum + i * LANES,
                  acc[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)]);
}

#define PACKED_CASE(name, rows, panels, bits, half, twice, table, near)                            \
    static __attribute__((noinline)) void name(struct packed_tile *t)                              \
    {                                                                                              \
        tile_run(t, (struct packed_form){rows, panels, bits, half, twice, table, near, false});    \
    }
#define PACKED_CASES(rows, panels)                                                                 \
    PACKED_CASE(packed_8_##rows##_##panels, rows, panels, 8, false, false, false, false)           \
    PACKED_CASE(packed_8_half_##rows##_##panels, rows, panels, 8, true, false, false, false)       \
    PACKED_CASE(packed_8_twice_##rows##_##panels, rows, panels, 8, false, true, false, false)      \
    PACKED_CASE(packed_4_##rows##_##panels, rows, panels, 4, false, false, false, false)           \
    PACKED_CASE(packed_4_half_##rows##_##panels, rows, panels, 4, true, false, false, false)       \
    PACKED_CASE(packed_4_twice_##rows##_##panels, rows, panels, 4, false, true, false, false)      \
    PACKED_CASE(packed_4_table_##rows##_##panels, rows, panels, 4, false, false, true, false)      \
    PACKED_CASE(packed_4_half_table_##rows##_##panels, rows, panels, 4, true, false, true, false)  \
    PACKED_CASE(packed_4_twice_table_##rows##_##panels, rows, panels, 4, false, true, true, false)
#define PACKED_ROW(rows, panels)                                                                   \
    {                                                                                              \
        packed_8_##rows##_##panels, packed_8_half_##rows##_##panels,                               \
            packed_8_twice_##rows##_##panels, packed_4_##rows##_##panels,                          \
            packed_4_half_##rows##_##panels, packed_4_twice_##rows##_##panels,                     \
            packed_4_table_##rows##_##panels, packed_4_half_table_##rows##_##panels,               \
            packed_4_twice_table_##rows##_##panels                                                 \
    }

typedef void packed_fn(struct packed_tile *t);

PACKED_CASES(1, 1)
PACKED_CASES(2, 1)
#if BYTES_ROWS == 4
PACKED_CASES(4, 1)
#endif
#if BYTES_PANELS == 2
PACKED_CASES(1, 2)
PACKED_CASES(2, 2)
PACKED_CASES(4, 2)
#endif

/* [one panel or BYTES_PANELS][1, 2 or BYTES_ROWS rows][form] */
static packed_fn *const packed_fns[BYTES_PANELS][3][9] = {
#if BYTES_ROWS == 4
    {PACKED_ROW(1, 1), PACKED_ROW(2, 1), PACKED_ROW(4, 1)},
#else
    {PACKED_ROW(1, 1), PACKED_ROW(2, 1), PACKED_ROW(2, 1)},
#endif
#if BYTES_PANELS == 2
    {PACKED_ROW(1, 2), PACKED_ROW(2, 2), PACKED_ROW(4, 2)},
#endif
};

/* What one strip is: some panels, side by side, times a block of rows. */
struct packed_strip {
    size_t m, rows, panel, panels;
};

PACKED_CASE(packed_8_near, BYTES_ROWS, BYTES_PANELS, 8, false, false, false, true)

/* One row of 8 bits, two panels at a time: two streams, which memory gives faster than one. */
#if BYTES_PANELS == 2
#define PACKED_ALONE(name, half, twice)                                                            \
    static __attribute__((noinline)) void name(struct packed_tile *t)                              \
    {                                                                                              \
        tile_run(t, (struct packed_form){1, 2, 8, half, twice, false, false, true});               \
    }
PACKED_ALONE(packed_8_alone, false, false)
PACKED_ALONE(packed_8_half_alone, true, false)
PACKED_ALONE(packed_8_twice_alone, false, true)
static packed_fn *const packed_alone[3] = {packed_8_alone, packed_8_half_alone,
                                           packed_8_twice_alone};
#endif

/* Of a tile of so many of the strip's rows. */
static packed_fn *packed_fn_of(const struct packed_strip *s, size_t rows, int form)
{
    if (form == 0 && rows == BYTES_ROWS && s->panels == BYTES_PANELS &&
        s->rows >= PACKED_NEAR_TILES * BYTES_ROWS)
        return packed_8_near; /* one among many others */
#if BYTES_PANELS == 2
    if (s->rows == 1 && s->panels == 2 && form < 3)
        return packed_alone[form];
#endif
    return packed_fns[s->panels - 1][rows == 1 ? 0 : rows == 2 ? 1 : 2][form];
}

static struct packed_form packed_units(const struct packed *p, const struct rows8 *x)
{
    return (struct packed_form){.half = p->group < PACKED_SPAN && p->group < p->cols,
                                .twice = x->paired && packed_pairs(p)};
}

static int packed_form_of(const struct packed *p, const struct rows8 *x)
{
    const struct packed_form f = packed_units(p, x);
    return (p->bits == 8 ? 0 : p->has_table ? 6 : 3) + (f.half ? 1 : f.twice ? 2 : 0);
}

/* Outputs of column `col` on, n of them; all LANES where n is 0. */
INLINE void packed_write_vec(const struct op_gemm *op, vec v, float *out, size_t col, int n)
{
    if (op->bias)
        v = v + (n ? vec_load_n(op->bias + col, n) : vec_load(op->bias + col));
    if (op->scale != 0)
        v = v * vec_set1(op->scale);
    if (op->accumulate)
        v = v + (n ? vec_load_n(out, n) : vec_load(out));
    if (n)
        vec_store_n(out, v, n);
    else
        vec_store(out, v);
}

static void packed_write(const struct op_gemm *op, const float *sum, const struct packed_strip *s)
{
    const size_t stride = (size_t)(op->out_stride ? op->out_stride : op->w->rows);
    const size_t n = s->panel * PACKED_ROWS, all = s->panels * PACKED_ROWS;
    const size_t left = (size_t)op->w->rows - n, width = left < all ? left : all;
    const size_t whole = width - width % LANES;
    for (size_t r = 0; r < s->rows; r++, sum += all) {
        float *out = op->out + (s->m + r) * stride + n;
        for (size_t j = 0; j < whole; j += LANES)
            packed_write_vec(op, vec_load(sum + j), out + j, n + j, 0);
        if (whole < width)
            packed_write_vec(op, vec_load(sum + whole), out + whole, n + whole,
                             (int)(width - whole));
    }
}

/* The most rows of a tile, of so many in all. Four rows of 8 bits, which wait for memory, are two
 * tiles: see packed_ahead(). */
static size_t tile_most(const struct packed *p, size_t rows)
{
    return p->bits == 8 && rows == 4 ? 2 : BYTES_ROWS;
}

/* The rows of a tile, of so many that are left. */
static size_t tile_rows(size_t left, size_t most)
{
    return left >= most ? most : left >= 2 ? 2 : 1;
}

static size_t tiles_of(size_t rows, size_t most)
{
    const size_t left = rows % most;
    return rows / most + left / 2 + left % 2;
}

/* Groups of a panel that are done at a time, by so many tiles: one reads them once anyway. */
static size_t groups_at_once(const struct packed *p, size_t tiles)
{
    size_t each = (size_t)p->group * TILE_WIDTH * (size_t)p->bits / 8;
    size_t n = cpu_cache_bytes(1) / 2 / each;
    return tiles == 1 ? packed_groups(p) : n > 0 ? n : 1;
}

/* Asks for the scales of the piece that begins `groups` groups behind the first of this panel. */
static void scales_ahead(const struct packed_tile *t, size_t panel, size_t groups)
{
    const size_t each = PACKED_ROWS * dtype_bytes(t->p->scale_type);
    const size_t bytes = (t->group_end - t->group) * each;
    for (size_t at = 0; at < bytes; at += PACKED_LINE_BYTES)
        __builtin_prefetch(t->scales[panel] + groups * each + at, 0, 2);
}

/* What tile `tile` of `tiles` fetches of the piece behind this one, be it of these panels or of
 * the next. One tile alone reads as it goes. A CPU drops some of what is asked for at once: where
 * tiles are few, and have to ask for much, the second half of them asks again. */
static void packed_ahead(struct packed_tile *t, const struct packed_strip *s, size_t tile,
                         size_t tiles)
{
    const struct packed *p = t->p;
    const bool last = t->group_end == packed_groups(p);
    const size_t group = (size_t)p->group * PACKED_ROWS * (size_t)p->bits / 8;
    const size_t most = unit_cols(packed_units(p, &t->x));
    const size_t unit = most < (size_t)p->group ? most : (size_t)p->group;
    const size_t lines = unit * PACKED_ROWS / PACKED_LINE_BYTES;
    const size_t turn = tiles < PACKED_NEAR_TILES ? (tiles + 1) / 2 : tiles;
    const size_t each = (lines + turn - 1) / turn, at = tile % turn;
    const size_t next = last ? s->panels * packed_panel_bytes(p) : t->group_end * group;
    t->ahead_lines = tiles > 1 && at * each < lines ? each : 0;
    const size_t ahead = last ? s->panels * packed_groups(p) : t->group_end;
    for (size_t i = 0; i < s->panels && at == 0; i++) {
        t->ahead[i] = t->panel[i] + next;
        if (tiles > 1)
            scales_ahead(t, i, ahead);
    }
}

/* `of`: packed_tile_of() the weights. */
static void packed_run(const struct op_gemm *op, const struct packed_strip *s,
                       const struct packed_tile *of)
{
    const struct packed *p = op->w->packed;
    const size_t most = tile_most(p, s->rows), tiles = tiles_of(s->rows, most);
    const size_t groups = packed_groups(p), step = groups_at_once(p, tiles);
    const size_t scales = groups * PACKED_ROWS * dtype_bytes(p->scale_type);
    const int form = packed_form_of(p, op->x8);
    float sums[PACKED_TILES_MAX * BYTES_ROWS * TILE_WIDTH] __attribute__((aligned(64)));
    struct packed_tile t = *of;
    for (size_t i = 0; i < s->panels; i++) {
        t.panel[i] = p->q + (s->panel + i) * packed_panel_bytes(p);
        t.scales[i] = (const char *)p->scales + (s->panel + i) * scales;
        t.mins[i] = p->has_min ? (const char *)p->mins + (s->panel + i) * scales : NULL;
    }
    t.asks = tiles == 1;
    for (t.group = 0; t.group < groups; t.group = t.group_end) {
        t.group_end = groups - t.group < step ? groups : t.group + step;
        for (size_t i = 0, tile = 0, n; i < s->rows; i += n, tile++) {
            n = tile_rows(s->rows - i, most);
            t.x = rows8_from(op->x8, s->m + i);
            t.sum = sums + i * s->panels * PACKED_ROWS;
            packed_ahead(&t, s, tile, tiles);
            packed_fn_of(s, n, form)(&t);
        }
    }
    packed_write(op, sums, s);
}

/* What one thread does: rows of x by panels. As gemm() does: columns where there are enough, else
 * rows. */
struct packed_share {
    size_t m_begin, m_end, begin, end;
};

static struct packed_share packed_split(const struct op_gemm *op, int part, int parts)
{
    const size_t first = (size_t)op->first / PACKED_ROWS;
    const size_t last = (size_t)(op->end ? op->end : op->w->rows);
    const size_t panels = (last + PACKED_ROWS - 1) / PACKED_ROWS - first;
    struct packed_share s = {0, (size_t)op->tokens, 0, panels};
    if (panels >= (size_t)parts * BYTES_PANELS || op->tokens < parts)
        team_split(panels, BYTES_PANELS, part, parts, &s.begin, &s.end);
    else
        team_split((size_t)op->tokens, 1, part, parts, &s.m_begin, &s.m_end);
    s.begin += first;
    s.end += first;
    return s;
}

/* The next strip of a share, of so many rows by so many panels at most, all panels of a block of
 * rows before the next block; the first one where *s is zeros. False: there is none. */
static bool packed_next(const struct packed_share *share, size_t rows, size_t panels,
                        struct packed_strip *s)
{
    s->panel += s->panels;
    if (s->rows == 0 || s->panel >= share->end) {
        s->m = s->rows == 0 ? share->m_begin : s->m + s->rows;
        s->panel = share->begin;
        if (s->m >= share->m_end || s->panel >= share->end)
            return false;
        s->rows = share->m_end - s->m < rows ? share->m_end - s->m : rows;
    }
    s->panels = share->end - s->panel < panels ? share->end - s->panel : panels;
    return true;
}

static void packed_gemm(const struct op_gemm *op, struct packed_share share)
{
    const struct packed *p = op->w->packed;
    const struct packed_tile of = packed_tile_of(p);
    size_t block = cpu_cache_bytes(2) / 2 / (packed_spans(p) * PACKED_SPAN) / BYTES_ROWS;
    block = (block < 1 ? 1 : block < PACKED_TILES_MAX ? block : PACKED_TILES_MAX) * BYTES_ROWS;
    const size_t rows = share.m_end - share.m_begin;
    const size_t most = p->bits == 4 && rows <= PACKED_FEW ? 1 : BYTES_PANELS;
    for (struct packed_strip s = {0}; packed_next(&share, block, most, &s);)
        packed_run(op, &s, &of);
}

#endif
