/* Products with packed weights (kernels/packed.h), compiled once per instruction set (see cpu.h).
 *
 * Of a unit (a span, or half of one where groups are that small) the products are summed as
 * integers, exactly; units are added up as floats in order of K, with one accumulator for each
 * output, whatever else the tile holds. A block of panels stays in L2 while all rows of x pass by
 * it.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_PACKED_BODY_H
#define KERNELS_CPU_PACKED_BODY_H

#include "base/team.h"

#define PANEL_VECS (PACKED_ROWS / LANES)
#define PANEL_STEP_BYTES ((size_t)4 * PACKED_ROWS)
#define TILE_VECS (BYTES_PANELS * PANEL_VECS)
#define PACKED_BLOCK_BYTES ((size_t)256 << 10)

struct packed_tile {
    const struct packed *p;
    struct rows8 x; /* from its first row on */
    const uint8_t *panel[BYTES_PANELS];
    const char *scales[BYTES_PANELS], *mins[BYTES_PANELS];
    float out[BYTES_ROWS][BYTES_PANELS * PACKED_ROWS];
};

/* What is constant where the tile is inlined. */
struct packed_form {
    int rows, bits;
    bool half, table; /* units are half spans; q stands for an entry of the table */
};

INLINE bytes_w tile_bytes(const struct packed_tile *t, struct packed_form f, byte_vec b)
{
    return bytes_w_of(f.table ? bytes_lookup(b, t->p->table) : b);
}

/* Adds steps to the sums: one, or with 4 bits the two that share their bytes. */
INLINE void tile_step(const struct packed_tile *t, struct packed_form f, size_t at, const int8_t *x,
                      ivec sum[BYTES_ROWS][TILE_VECS])
{
    const size_t stride = (size_t)t->x.spans * PACKED_SPAN;
    for (int half = 0; half < (f.bits == 4 ? 2 : 1); half++) {
        bytes_w w[TILE_VECS];
        UNROLL
        for (int v = 0; v < TILE_VECS; v++) {
            byte_vec b =
                bytes_load(t->panel[v / PANEL_VECS] + at + (size_t)(v % PANEL_VECS) * (4 * LANES));
            if (f.bits == 4)
                b = half ? bytes_high(b) : bytes_low(b);
            w[v] = tile_bytes(t, f, b);
        }
        UNROLL
        for (int r = 0; r < f.rows; r++) {
            bytes_x xv = bytes_x_of(x + (size_t)r * stride + 4 * half);
            UNROLL
            for (int v = 0; v < TILE_VECS; v++)
                sum[r][v] = bytes_dot(sum[r][v], w[v], xv);
        }
    }
}

INLINE int32_t unit_sum(const struct packed_tile *t, struct packed_form f, int r, size_t unit)
{
    const int32_t *sum = t->x.sum + (size_t)r * (size_t)t->x.spans * 2;
    return f.half ? sum[unit] : sum[2 * unit] + sum[2 * unit + 1];
}

INLINE float unit_scale(const struct packed_tile *t, struct packed_form f, int r, size_t unit)
{
    return t->x.scale[(size_t)r * (size_t)t->x.spans + (f.half ? unit / 2 : unit)];
}

/* Unit `unit`, scaled by what x is scaled by, added to `inner` (or in its place). */
INLINE void tile_unit(const struct packed_tile *t, struct packed_form f, size_t unit, bool first,
                      vec inner[BYTES_ROWS][TILE_VECS])
{
    ivec sum[BYTES_ROWS][TILE_VECS];
    const size_t cols = f.half ? PACKED_SPAN / 2 : PACKED_SPAN, k = unit * cols;
    const size_t steps = cols / 4, begin = k * PACKED_ROWS * (size_t)f.bits / 8;
    UNROLL
    for (int r = 0; r < f.rows; r++) {
        ivec start = ivec_set1(-t->p->zero * unit_sum(t, f, r, unit));
        UNROLL
        for (int v = 0; v < TILE_VECS; v++)
            sum[r][v] = start;
    }
    if (f.bits == 8) {
        UNROLL
        for (size_t s = 0; s < steps; s++)
            tile_step(t, f, begin + s * PANEL_STEP_BYTES, t->x.q + k + 4 * s, sum);
    } else {
        UNROLL
        for (size_t s = 0; s < steps / 2; s++)
            tile_step(t, f, begin + s * PANEL_STEP_BYTES, t->x.q + k + 8 * s, sum);
    }
    UNROLL
    for (int r = 0; r < f.rows; r++) {
        vec scale = vec_set1(unit_scale(t, f, r, unit));
        UNROLL
        for (int v = 0; v < TILE_VECS; v++)
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

INLINE void tile_run(struct packed_tile *t, struct packed_form f)
{
    const struct packed *p = t->p;
    const enum dtype type = p->scale_type;
    const size_t unit = f.half ? PACKED_SPAN / 2 : PACKED_SPAN;
    const size_t groups = packed_groups(p);
    const size_t units = ((size_t)p->cols + unit - 1) / unit;
    const size_t each = ((size_t)p->group + unit - 1) / unit;
    vec acc[BYTES_ROWS][TILE_VECS], inner[BYTES_ROWS][TILE_VECS];
    UNROLL
    for (int i = 0; i < BYTES_ROWS * TILE_VECS; i++)
        acc[i / TILE_VECS][i % TILE_VECS] = vec_zero();
    for (size_t g = 0; g < groups; g++) {
        size_t begin = g * each, end = begin + each < units ? begin + each : units;
        size_t at = g * PACKED_ROWS;
        tile_unit(t, f, begin, true, inner);
        for (size_t u = begin + 1; u < end; u++)
            tile_unit(t, f, u, false, inner);
        UNROLL
        for (int v = 0; v < TILE_VECS; v++) {
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
            for (int v = 0; v < TILE_VECS; v++) {
                size_t lane = at + (size_t)(v % PANEL_VECS) * LANES;
                acc[r][v] =
                    vec_fma(vec_load_as(t->mins[v / PANEL_VECS], type, lane), sum, acc[r][v]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < f.rows; r++) {
        UNROLL
        for (int v = 0; v < TILE_VECS; v++)
            vec_store(t->out[r] + v * LANES, acc[r][v]);
    }
}

#define PACKED_CASE(name, rows, bits, half, table)                                                 \
    static __attribute__((noinline)) void name(struct packed_tile *t)                              \
    {                                                                                              \
        tile_run(t, (struct packed_form){rows, bits, half, table});                                \
    }
#define PACKED_CASES(rows)                                                                         \
    PACKED_CASE(packed_8_##rows, rows, 8, false, false)                                            \
    PACKED_CASE(packed_8_half_##rows, rows, 8, true, false)                                        \
    PACKED_CASE(packed_4_##rows, rows, 4, false, false)                                            \
    PACKED_CASE(packed_4_half_##rows, rows, 4, true, false)                                        \
    PACKED_CASE(packed_4_table_##rows, rows, 4, false, true)                                       \
    PACKED_CASE(packed_4_half_table_##rows, rows, 4, true, true)

typedef void packed_fn(struct packed_tile *t);

PACKED_CASES(1)
PACKED_CASES(2)
#if BYTES_ROWS > 2
PACKED_CASES(4)
#endif

#define PACKED_ROW(rows)                                                                           \
    {                                                                                              \
        packed_8_##rows, packed_8_half_##rows, packed_4_##rows, packed_4_half_##rows,              \
            packed_4_table_##rows, packed_4_half_table_##rows                                      \
    }

/* [1, 2 or BYTES_ROWS rows][form] */
static packed_fn *const packed_fns[3][6] = {PACKED_ROW(1), PACKED_ROW(2),
#if BYTES_ROWS > 2
                                            PACKED_ROW(4)
#else
                                            PACKED_ROW(2)
#endif
};

static int packed_form_of(const struct packed *p)
{
    int half = p->group < PACKED_SPAN && p->group < p->cols;
    return p->bits == 8 ? half : p->has_table ? 4 + half : 2 + half;
}

static void packed_write(const struct op_gemm *op, const struct packed_tile *t, size_t m, int rows,
                         size_t n)
{
    const size_t stride = (size_t)(op->out_stride ? op->out_stride : op->w->rows);
    const size_t left = (size_t)op->w->rows - n, width = (size_t)BYTES_PANELS * PACKED_ROWS;
    for (int r = 0; r < rows; r++) {
        float *out = op->out + (m + (size_t)r) * stride + n;
        for (size_t j = 0; j < (left < width ? left : width); j++) {
            float v = t->out[r][j];
            if (op->bias)
                v += op->bias[n + j];
            if (op->scale != 0)
                v *= op->scale;
            out[j] = op->accumulate ? v + out[j] : v;
        }
    }
}

struct packed_share {
    size_t m, m_end, panel, panel_end;
};

/* Panels [s->panel, s->panel_end) of all rows of the share; where the panels are odd the last is
 * computed twice and written once. */
static void packed_block(const struct op_gemm *op, const struct packed_share *s)
{
    const struct packed *p = op->w->packed;
    const size_t groups = packed_groups(p) * PACKED_ROWS * dtype_bytes(p->scale_type);
    const int form = packed_form_of(p);
    struct packed_tile t = {.p = p};
    for (size_t m = s->m, rows; m < s->m_end; m += rows) {
        size_t left = s->m_end - m;
        rows = left >= BYTES_ROWS ? BYTES_ROWS : left >= 2 ? 2 : 1;
        t.x = rows8_from(op->x8, m);
        for (size_t panel = s->panel; panel < s->panel_end; panel += BYTES_PANELS) {
            for (size_t i = 0; i < BYTES_PANELS; i++) {
                size_t at = panel + i < s->panel_end ? panel + i : s->panel_end - 1;
                t.panel[i] = p->q + at * packed_panel_bytes(p);
                t.scales[i] = (const char *)p->scales + at * groups;
                t.mins[i] = p->has_min ? (const char *)p->mins + at * groups : NULL;
            }
            packed_fns[rows == 1 ? 0 : rows == 2 ? 1 : 2][form](&t);
            packed_write(op, &t, m, (int)rows, panel * PACKED_ROWS);
        }
    }
}

static void packed_gemm(const struct op_gemm *op, int part, int parts)
{
    const struct packed *p = op->w->packed;
    const size_t panels = packed_panels(p);
    struct packed_share s = {0, (size_t)op->tokens, 0, panels};
    size_t begin, end, block = PACKED_BLOCK_BYTES / packed_panel_bytes(p) / BYTES_PANELS;
    /* As gemm() does: columns where there are enough, else rows. */
    if (panels >= (size_t)parts * BYTES_PANELS || op->tokens < parts)
        team_split(panels, BYTES_PANELS, part, parts, &s.panel, &s.panel_end);
    else
        team_split((size_t)op->tokens, 1, part, parts, &s.m, &s.m_end);
    begin = s.panel;
    end = s.panel_end;
    block = (block ? block : 1) * BYTES_PANELS;
    for (size_t at = begin; at < end; at += block) {
        s.panel = at;
        s.panel_end = end - at < block ? end : at + block;
        packed_block(op, &s);
    }
}

#endif
