/* Tiles of products with packed weights: a few rows of x by a panel or two, from one group of
 * columns to another. What packed_body.h says of sums and their order is done here.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_PACKED_TILE_BODY_H
#define KERNELS_CPU_GEMM_PACKED_TILE_BODY_H

#include <assert.h>

#define PANEL_VECS (PACKED_ROWS / LANES)
#define PANEL_STEP_BYTES ((size_t)4 * PACKED_ROWS)
#define TILE_VECS (BYTES_PANELS * PANEL_VECS) /* at most */
#define PACKED_AHEAD 6144
#define PACKED_LINE_BYTES ((size_t)64)
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
    bool single;    /* one tile in all: chains ask for what comes next as they go */
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
    bool asks;               /* for bytes of weights, far ahead of where it reads */
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
            if (half + v % PANEL_VECS == 0 && f.asks)
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
        if (!high && v % PANEL_VECS == 0 && t->single)
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

/* The groups of a tile, added to what `acc` holds. */
INLINE void tile_groups(struct packed_tile *t, struct packed_form f, vec acc[BYTES_ROWS][TILE_VECS])
{
    const struct packed *p = t->p;
    const enum dtype type = p->scale_type;
    const size_t unit = unit_cols(f);
    const size_t units = ((size_t)p->cols + unit - 1) / unit;
    const size_t each = ((size_t)p->group + unit - 1) / unit;
    const bool has_min = p->has_min;
    vec inner[BYTES_ROWS][TILE_VECS];
    for (size_t g = t->group, last = t->group_end; g < last; g++) {
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
        if (!has_min)
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
}

INLINE void tile_run(struct packed_tile *t, struct packed_form f)
{
    vec acc[BYTES_ROWS][TILE_VECS];
    UNROLL
    for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
        acc[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)] = vec_zero();
    if (t->group > 0) {
        UNROLL
        for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
            acc[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)] =
                vec_load(t->sum + i * LANES);
    }
    tile_groups(t, f, acc);
    UNROLL
    for (int i = 0; i < f.rows * f.panels * PANEL_VECS; i++)
        vec_store(t->sum + i * LANES,
                  acc[i / (f.panels * PANEL_VECS)][i % (f.panels * PANEL_VECS)]);
}

#endif
