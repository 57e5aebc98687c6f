/* Products of packed weights (kernels/packed.h) in groups with some rows of x, or many, in tiles of
 * bytes.
 *
 * The integers of a unit are those of packed_body.h, and every operation on floats is done in its
 * order: the bits are the same, so that rows go there or come here as it is faster. Weights are
 * widened to signed bytes a piece at a time, a piece of one panel, that stays in L1 while a block
 * of rows of x passes by; between pieces the sums wait in memory. Those of 8 bits that meet one
 * tile of rows are multiplied as they lie, without sign: what that adds is taken off each unit.
 * Vectors do 4, 8, 12 or 16 rows of a tile, as many as there are. While they scale the products of
 * one unit, the tile unit is at the next but one, and those between are stored after that: a store
 * that has to wait for its products holds up all that comes behind it. The weights of the next
 * piece are fetched meanwhile, a few lines with each unit.
 *
 * Counted per unit of 16 rows and 16 outputs: a product of tiles takes 16 cycles, be it of 32
 * columns or of 64; its two tiles are loaded in 12 or 16 and the sums stored in 16; 16 vectors are
 * read again, with as many scales of x (16 cycles of the loads' ports), and scaled by 32 or 48
 * operations on two ports (16 to 24). So the loads' ports should bind, with about 30 cycles a unit.
 * Measured are 60 from L1 and 75 in the gemm, as vectors and tiles hardly overlap. Units of 64
 * columns, which spans of x that are paired allow, save half of the units.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_TILES_BYTES_BODY_H
#define KERNELS_CPU_GEMM_TILES_BYTES_BODY_H

#include <assert.h>

#include "kernels/cpu/gemm/unit_body.h"
#include "kernels/cpu/vec/tiles.h"

#define BLOCK_ROWS 512        /* of x at a time */
#define DIRECT_ROWS TILE_ROWS /* of 8 bits, whose weights are not widened */
#define BLOCK_PANELS 16       /* that a piece of a block of rows meets, while it stays in L2 */
#define PIECE_UNITS 32        /* of a panel at a time; half as many where they are of two spans */
#define PIECE_SPANS PIECE_UNITS
#define TILE_FLOATS (TILE_ROWS * TILE_ROWS)

/* Where a block of rows stands between two pieces. */
struct bytes_sums {
    float acc[BLOCK_PANELS][BLOCK_ROWS * TILE_ROWS];
    float inner[BLOCK_PANELS][BLOCK_ROWS * TILE_ROWS]; /* of a group that goes on */
    float group[BLOCK_ROWS][PIECE_UNITS];  /* sum of x over the group that ends with this unit */
    int32_t left[BLOCK_ROWS][PIECE_UNITS]; /* what the zero point still takes of a unit */
    float padded[TILE_ROWS * PIECE_UNITS]; /* scales of the rows of x that do not fill a tile */
};

struct bytes_run {
    const struct op_gemm *op;
    const struct packed *p;
    struct packed_form form;
    size_t unit, units, each; /* columns of a unit; units of a row, and of a group */
    bool direct;              /* weights of 8 bits as they lie in memory, without sign */
    int32_t off, left;        /* weights are less `off` here; what the zero point still takes */
    size_t m, rows;           /* the block */
    size_t end;               /* the share's last panel is before this */
    size_t first, n;          /* units of the piece */
    struct bytes_sums *sums;
    const uint8_t *next; /* weights of the piece that comes then, or NULL; so many lines of them */
    size_t next_lines;   /* each tile of rows asks for, */
    size_t unit_lines;   /* with each unit */
    const char *next_scales, *next_mins; /* its scales and, or NULL, mins: lines of each */
    size_t scale_lines;
    size_t set;      /* rows that the tiles are set for; 0: none */
    int8_t *widened; /* a piece, aligned to a cache line */
    const int8_t *w; /* the piece, this or where it lies in memory */
    /* Of the groups of the piece, from that of its first unit on. */
    float scale[PIECE_UNITS][PACKED_ROWS] __attribute__((aligned(64)));
    float min[PIECE_UNITS][PACKED_ROWS] __attribute__((aligned(64)));
};

/* ---- weights to signed bytes ---- */

/* The weights of a panel from this unit on. */
static const uint8_t *bytes_from(const struct bytes_run *b, const struct packed *p, size_t panel,
                                 size_t unit)
{
    return p->q + panel * packed_panel_bytes(p) +
           unit * b->unit * PACKED_ROWS * (size_t)p->bits / 8;
}

/* Steps, of 64 bytes each. */
static void bytes_widen(struct bytes_run *b, size_t panel)
{
    const struct packed *p = b->p;
    const size_t steps = b->n * b->unit / 4;
    const uint8_t *from = bytes_from(b, p, panel, b->first);
    const __m512i off = _mm512_set1_epi8((char)b->off);
    const int shared = p->bits == 4 ? 2 : 1;
    for (size_t s = 0; s < steps; s += (size_t)shared, from += PANEL_STEP_BYTES) {
        byte_vec v = bytes_load(from), half[2] = {v, v};
        if (shared == 2) {
            half[0] = bytes_low(v);
            half[1] = bytes_high(v);
        }
        for (int i = 0; i < shared; i++) {
            if (p->has_table)
                half[i] = bytes_lookup(half[i], p->table);
            _mm512_store_si512(b->widened + (s + (size_t)i) * PANEL_STEP_BYTES,
                               _mm512_sub_epi8(half[i], off));
        }
    }
}

/* ---- a tile of 16 rows by 16 outputs, over a piece ---- */

struct bytes_tile {
    const struct bytes_run *run;
    const int8_t *x;    /* of the first row and unit */
    const float *scale; /* of x: [16 rows][units of 32], `scale_stride` apart */
    size_t x_stride, scale_stride;
    size_t row, rows;   /* row: within the block */
    float *acc, *carry; /* of the tile: the groups that are done, and the one that goes on */
    const uint8_t *next, *next_end; /* what this tile asks for of the piece that comes then */
    int32_t product[2][TILE_FLOATS] __attribute__((aligned(64)));
};

/* What is constant where these are inlined: the rows of x, of which the last may be none; whether
 * weights have no sign; and which of two tiles, and of two places in memory, a unit has. */
struct bytes_form {
    int rows;
    bool direct, odd;
};

INLINE struct bytes_form bytes_odd(struct bytes_form f)
{
    f.odd = !f.odd;
    return f;
}

#define BYTES_MULTIPLY(t, f, u, c, a, b)                                                           \
    do {                                                                                           \
        TILE_LOAD(b, (t)->run->w + (u)*unit * PACKED_ROWS, TILE_ROW_BYTES);                        \
        TILE_LOAD(a, (t)->x + (u)*unit, (t)->x_stride);                                            \
        TILE_ZERO(c);                                                                              \
        if ((f).direct)                                                                            \
            TILE_DOT_MIXED(c, a, b);                                                               \
        else                                                                                       \
            TILE_DOT_BYTES(c, a, b);                                                               \
    } while (0)

INLINE void bytes_multiply(const struct bytes_tile *t, struct bytes_form f, size_t u)
{
    const size_t unit = t->run->unit;
    if (u >= t->run->n)
        return;
    if (f.odd)
        BYTES_MULTIPLY(t, f, u, 1, 3, 5);
    else
        BYTES_MULTIPLY(t, f, u, 0, 2, 4);
}

/* From the tile to where vectors find them. */
INLINE void bytes_keep(struct bytes_tile *t, struct bytes_form f, size_t u)
{
    if (u >= t->run->n)
        return;
    if (f.odd)
        TILE_STORE(1, t->product[1], TILE_ROW_BYTES);
    else
        TILE_STORE(0, t->product[0], TILE_ROW_BYTES);
}

/* Before the first unit is scaled: its products are there, and the next one's under way. */
INLINE void bytes_begin(struct bytes_tile *t, struct bytes_form f)
{
    bytes_multiply(t, f, 0);
    bytes_keep(t, f, 0);
    bytes_multiply(t, bytes_odd(f), 1);
}

/* What the zero point takes, where it did not fit in a byte. */
static __attribute__((noinline)) void bytes_correct(struct bytes_tile *t, size_t u)
{
    for (size_t i = 0; i < t->rows; i++)
        for (size_t n = 0; n < TILE_ROWS; n++)
            t->product[u % 2][i * TILE_ROWS + n] -= t->run->sums->left[t->row + i][u];
}

/* Row i of unit u. */
INLINE vec bytes_product(const struct bytes_tile *t, struct bytes_form f, size_t u, int i)
{
    __m512i v = _mm512_load_si512(t->product[f.odd] + i * TILE_ROWS);
    if (f.direct)
        v = _mm512_sub_epi32(v, _mm512_set1_epi32(t->run->sums->left[t->row + (size_t)i][u]));
    return vec_of_int(v);
}

/* A few lines with each unit: the CPU drops what is asked for in one go, or waits for it. */
INLINE void bytes_fetch(struct bytes_tile *t)
{
    for (size_t i = 0; i < t->run->unit_lines && t->next < t->next_end; i++, t->next += 64)
        __builtin_prefetch(t->next, 0, 2);
}

/* The scales of x at this unit, scale_stride apart. */
INLINE const float *bytes_scales_of_x(const struct bytes_tile *t, size_t u)
{
    const size_t half = (t->run->first + u) / 2 - t->run->first / 2;
    return t->scale + (t->run->form.half ? half : t->run->form.twice ? 2 * u : u);
}

INLINE void bytes_single_unit(struct bytes_tile *t, struct bytes_form f, size_t u,
                              vec sum[TILE_ROWS])
{
    const struct bytes_run *b = t->run;
    const vec scale = vec_load(b->scale[u]);
    const float *of_x = bytes_scales_of_x(t, u);
    bytes_multiply(t, f, u + 2);
    bytes_fetch(t);
    if (!f.direct && b->left)
        bytes_correct(t, u);
    UNROLL
    for (int i = 0; i < f.rows; i++, of_x += t->scale_stride)
        sum[i] = vec_fma(bytes_product(t, f, u, i) * vec_set1(*of_x), scale, sum[i]);
    bytes_keep(t, bytes_odd(f), u + 1);
    if (!b->p->has_min)
        return;
    const vec min = vec_load(b->min[u]);
    UNROLL
    for (int i = 0; i < f.rows; i++)
        sum[i] = vec_fma(min, vec_set1(b->sums->group[t->row + (size_t)i][u]), sum[i]);
}

/* Groups of one unit: the sums stay in registers. */
INLINE void bytes_single(struct bytes_tile *t, struct bytes_form f)
{
    float *acc = t->acc;
    const struct bytes_run *b = t->run;
    vec sum[TILE_ROWS];
    UNROLL
    for (int i = 0; i < f.rows; i++)
        sum[i] = vec_zero();
    if (b->first > 0) {
        UNROLL
        for (int i = 0; i < f.rows; i++)
            sum[i] = vec_load(acc + i * TILE_ROWS);
    }
    bytes_begin(t, f);
    for (size_t u = 0; u < b->n; u += 2) {
        bytes_single_unit(t, f, u, sum);
        if (u + 1 < b->n)
            bytes_single_unit(t, bytes_odd(f), u + 1, sum);
    }
    UNROLL
    for (int i = 0; i < f.rows; i++)
        vec_store(acc + i * TILE_ROWS, sum[i]);
}

/* A unit of a group, which it `starts` or is added to. */
INLINE void bytes_several_unit(struct bytes_tile *t, struct bytes_form f, size_t u, bool starts,
                               vec inner[TILE_ROWS])
{
    const float *of_x = bytes_scales_of_x(t, u);
    bytes_multiply(t, f, u + 2);
    bytes_fetch(t);
    if (!f.direct && t->run->left)
        bytes_correct(t, u);
    if (starts) {
        UNROLL
        for (int i = 0; i < f.rows; i++, of_x += t->scale_stride)
            inner[i] = bytes_product(t, f, u, i) * vec_set1(*of_x);
    } else {
        UNROLL
        for (int i = 0; i < f.rows; i++, of_x += t->scale_stride)
            inner[i] = vec_fma(bytes_product(t, f, u, i), vec_set1(*of_x), inner[i]);
    }
    bytes_keep(t, bytes_odd(f), u + 1);
}

/* The group that ends with unit u, number `group` of the piece. */
INLINE void bytes_add_group(const struct bytes_tile *t, struct bytes_form f, size_t u, size_t group,
                            const vec inner[TILE_ROWS])
{
    float *acc = t->acc;
    const struct bytes_run *b = t->run;
    const vec scale = vec_load(b->scale[group]);
    UNROLL
    for (int i = 0; i < f.rows; i++)
        vec_store(acc + i * TILE_ROWS, vec_fma(inner[i], scale, vec_load(acc + i * TILE_ROWS)));
    if (!b->p->has_min)
        return;
    const vec min = vec_load(b->min[group]);
    for (int i = 0; i < f.rows; i++)
        vec_store(acc + i * TILE_ROWS, vec_fma(min, vec_set1(b->sums->group[t->row + (size_t)i][u]),
                                               vec_load(acc + i * TILE_ROWS)));
}

/* Groups of several units: the group's sums stay in registers, and those before in memory. */
INLINE void bytes_several(struct bytes_tile *t, struct bytes_form f)
{
    float *carry = t->carry;
    const struct bytes_run *b = t->run;
    vec inner[TILE_ROWS];
    UNROLL
    for (int i = 0; i < f.rows; i++)
        inner[i] = vec_load(carry + i * TILE_ROWS);
    if (b->first == 0)
        memset(t->acc, 0, TILE_FLOATS * sizeof *t->acc);
    size_t done = b->first % b->each; /* units of the group that is at hand */
    size_t group = 0;                 /* of the piece */
    bytes_begin(t, f);
    for (size_t u = 0; u < b->n; u++) {
        if (u % 2 == 0)
            bytes_several_unit(t, f, u, done == 0, inner);
        else
            bytes_several_unit(t, bytes_odd(f), u, done == 0, inner);
        if (++done < b->each && b->first + u + 1 < b->units)
            continue;
        done = 0;
        bytes_add_group(t, f, u, group++, inner);
    }
    UNROLL
    for (int i = 0; i < f.rows; i++)
        vec_store(carry + i * TILE_ROWS, inner[i]);
}

#define BYTES_CASE(rows, direct, form)                                                             \
    static __attribute__((noinline)) void bytes_##form##_##rows(struct bytes_tile *t)              \
    {                                                                                              \
        if (t->run->each == 1)                                                                     \
            bytes_single(t, (struct bytes_form){rows, direct, false});                             \
        else                                                                                       \
            bytes_several(t, (struct bytes_form){rows, direct, false});                            \
    }
BYTES_CASE(4, false, widened)
BYTES_CASE(8, false, widened)
BYTES_CASE(12, false, widened)
BYTES_CASE(16, false, widened)
BYTES_CASE(4, true, direct)
BYTES_CASE(8, true, direct)
BYTES_CASE(12, true, direct)
BYTES_CASE(16, true, direct)

static void bytes_tile(struct bytes_tile *t)
{
    static void (*const fns[2][4])(struct bytes_tile *) = {
        {bytes_widened_4, bytes_widened_8, bytes_widened_12, bytes_widened_16},
        {bytes_direct_4, bytes_direct_8, bytes_direct_12, bytes_direct_16}};
    fns[t->run->direct][(t->rows - 1) / 4](t);
}

/* ---- a block of rows by the panels side by side ---- */

/* What the zero point takes of each unit. */
static void bytes_sum_left(const struct bytes_run *b)
{
    const struct packed_tile x = {.p = b->p, .x = rows8_from(b->op->x8, b->m)};
    for (size_t r = 0; r < b->rows; r++)
        for (size_t u = 0; u < b->n; u++)
            b->sums->left[r][u] = b->left * unit_sum(&x, b->form, (int)r, b->first + u);
}

/* Sums of x over the groups that end in the piece. */
static void bytes_sum_groups(const struct bytes_run *b)
{
    const struct packed_tile x = {.p = b->p, .x = rows8_from(b->op->x8, b->m)};
    for (size_t u = 0; u < b->n; u++) {
        const size_t end = b->first + u + 1;
        if (end % b->each != 0 && end != b->units)
            continue;
        const size_t begin = (end - 1) / b->each * b->each;
        for (size_t r = 0; r < b->rows; r++)
            b->sums->group[r][u] = group_sum(&x, b->form, (int)r, begin, end);
    }
}

static void bytes_configure(struct bytes_run *b, size_t rows)
{
    struct tile_config c = {0};
    if (b->set == rows)
        return;
    b->set = rows;
    for (int i = 0; i < 2; i++) {
        tile_set(&c, i, rows, TILE_ROW_BYTES);
        tile_set(&c, 2 + i, rows, b->unit);
        tile_set(&c, 4 + i, b->unit / 4, TILE_ROW_BYTES);
    }
    tiles_begin(&c);
}

/* The scales of the last rows, which are fewer than a tile has, and zeros. */
static void bytes_pad_scales(struct bytes_run *b)
{
    const size_t rows = b->rows % TILE_ROWS;
    const struct rows8 x = rows8_from(b->op->x8, b->m + b->rows - rows);
    const float *scale = x.scale + b->first * b->unit / PACKED_SPAN;
    const size_t spans = (b->n * b->unit + PACKED_SPAN - 1) / PACKED_SPAN;
    memset(b->sums->padded, 0, sizeof b->sums->padded);
    for (size_t i = 0; i < rows; i++)
        memcpy(b->sums->padded + i * PIECE_SPANS, scale + i * (size_t)x.spans,
               spans * sizeof *scale);
}

/* Scales and mins of the piece. */
static void bytes_open_scales(struct bytes_run *b, size_t panel)
{
    const struct packed *p = b->p;
    const size_t first = b->first / b->each, end = (b->first + b->n - 1) / b->each + 1;
    const size_t at = (panel * packed_groups(p) + first) * PACKED_ROWS;
    for (size_t g = 0; g < end - first; g++) {
        vec_store(b->scale[g], vec_load_as(p->scales, p->scale_type, at + g * PACKED_ROWS));
        if (p->has_min)
            vec_store(b->min[g], vec_load_as(p->mins, p->scale_type, at + g * PACKED_ROWS));
    }
}

static void bytes_panel(struct bytes_run *b, size_t panel, size_t at)
{
    struct bytes_tile t = {.run = b};
    b->w = (const int8_t *)bytes_from(b, b->p, panel, b->first);
    if (!b->direct) {
        bytes_widen(b, panel);
        b->w = b->widened;
    }
    bytes_open_scales(b, panel);
    for (size_t i = 0; i < b->scale_lines; i++) {
        __builtin_prefetch(b->next_scales + i * 64, 0, 2);
        if (b->next_mins)
            __builtin_prefetch(b->next_mins + i * 64, 0, 2);
    }
    for (t.row = 0; t.row < b->rows; t.row += TILE_ROWS) {
        const struct rows8 x = rows8_from(b->op->x8, b->m + t.row);
        t.rows = b->rows - t.row < TILE_ROWS ? b->rows - t.row : TILE_ROWS;
        t.next = b->next ? b->next + t.row / TILE_ROWS * b->next_lines * 64 : NULL;
        t.next_end = b->next ? t.next + b->next_lines * 64 : NULL;
        t.x = x.q + b->first * b->unit;
        t.x_stride = rows8_stride(x.spans);
        t.scale = x.scale + b->first * b->unit / PACKED_SPAN;
        t.scale_stride = (size_t)x.spans;
        if (t.rows < TILE_ROWS) {
            t.scale = b->sums->padded;
            t.scale_stride = PIECE_SPANS;
        }
        bytes_configure(b, t.rows);
        t.acc = b->sums->acc[at] + t.row * TILE_ROWS;
        t.carry = b->sums->inner[at] + t.row * TILE_ROWS;
        bytes_tile(&t);
    }
}

/* Units of the piece that begins with this one. */
static size_t bytes_piece(const struct bytes_run *b, size_t first)
{
    const size_t most = b->form.twice ? PIECE_UNITS / 2 : PIECE_UNITS;
    return b->units - first < most ? b->units - first : most;
}

/* What comes behind slot `slot` of a strip: the same piece of the next one, the next piece of the
 * first, or the next strip's. */
static void bytes_set_next(struct bytes_run *b, const struct packed_strip *s, size_t slot)
{
    const struct gemm_unit *u = b->op->unit;
    const size_t each = u ? 2 : 1, tiles = (b->rows + TILE_ROWS - 1) / TILE_ROWS;
    const bool wraps = slot + 1 == s->panels * each;
    const size_t next = wraps ? 0 : slot + 1;
    const struct packed *p = u && next % 2 ? u->up->packed : b->op->w->packed;
    size_t first = wraps ? b->first + b->n : b->first, panel = s->panel + next / each;
    if (first == b->units) {
        first = 0;
        panel = s->panel + s->panels;
    }
    const size_t n = bytes_piece(b, first), group = panel * packed_groups(p) + first / b->each;
    const size_t lines = n * b->unit * PACKED_ROWS * (size_t)p->bits / 8 / 64;
    const size_t scale_bytes = dtype_bytes(p->scale_type) * PACKED_ROWS;
    const bool none = panel == b->end;
    b->next = none ? NULL : bytes_from(b, p, panel, first);
    b->next_lines = (lines + tiles - 1) / tiles;
    b->unit_lines = (b->next_lines + b->n - 1) / b->n;
    b->scale_lines = none ? 0 : ((n + b->each - 1) / b->each * scale_bytes + 63) / 64;
    b->next_scales = (const char *)p->scales + group * scale_bytes;
    b->next_mins = p->has_min ? (const char *)p->mins + group * scale_bytes : NULL;
}

/* The piece of all panels of the strip; with a unit each is followed by that of the second matrix,
 * which is like the first. */
static void bytes_panels(struct bytes_run *b, const struct packed_strip *s)
{
    const struct gemm_unit *u = b->op->unit;
    const size_t each = u ? 2 : 1;
    for (size_t slot = 0; slot < s->panels * each; slot++) {
        b->p = u && slot % 2 ? u->up->packed : b->op->w->packed;
        bytes_set_next(b, s, slot);
        bytes_panel(b, s->panel + slot / each, slot);
    }
    b->p = b->op->w->packed;
}

static void bytes_write(const struct bytes_run *b, const struct packed_strip *s)
{
    if (!b->op->unit) {
        for (size_t i = 0; i < s->panels; i++)
            packed_write(b->op, b->sums->acc[i],
                         &(struct packed_strip){s->m, s->rows, s->panel + i, 1});
        return;
    }
    for (size_t r = 0; r < s->rows; r++)
        for (size_t i = 0; i < s->panels; i++)
            unit_write(b->op, b->sums->acc[2 * i] + r * TILE_ROWS,
                       b->sums->acc[2 * i + 1] + r * TILE_ROWS, s->m + r, s->panel + i);
}

/* All of K. The strip's rows are a block at most. */
static void bytes_strip(struct bytes_run *b, const struct packed_strip *s)
{
    b->m = s->m;
    b->rows = s->rows;
    for (b->first = 0; b->first < b->units; b->first += b->n) {
        b->n = bytes_piece(b, b->first);
        if (b->p->has_min)
            bytes_sum_groups(b);
        if (b->direct || b->left)
            bytes_sum_left(b);
        if (b->rows % TILE_ROWS)
            bytes_pad_scales(b);
        bytes_panels(b, s);
    }
    bytes_write(b, s);
}

/* Whether a byte holds what `values` of these are less `zero`. */
static bool bytes_hold(const struct packed *p)
{
    const int32_t most = p->bits == 8 || p->has_table ? 255 : 15;
    return -p->zero >= -128 && most - p->zero <= 127;
}

/* Vectors multiply bytes too, and have nothing to store and read again: with so few rows they are
 * faster, half a tile to each product, and where a second tile would be mostly empty. */
static bool tiles_bytes_pay(const struct packed *p, size_t rows)
{
    if (p->bits == 4)
        return rows >= TILES_FEW_4;
    return rows >= TILES_FEW_8 && (rows <= TILE_ROWS || rows >= TILES_MORE_8);
}

static void tiles_bytes(const struct op_gemm *op, struct packed_share share)
{
    const struct packed *p = op->w->packed;
    struct bytes_sums sums;
    int8_t w[PIECE_SPANS * PACKED_SPAN * PACKED_ROWS] __attribute__((aligned(64)));
    struct bytes_run b = {.op = op, .p = p, .sums = &sums, .widened = w, .end = share.end};
    assert(p->bits == 4 || !p->has_table);
    b.form = packed_units(p, op->x8);
    b.unit = unit_cols(b.form);
    b.units = ((size_t)p->cols + b.unit - 1) / b.unit;
    b.each = ((size_t)p->group + b.unit - 1) / b.unit;
    b.direct = p->bits == 8 && share.m_end - share.m_begin <= DIRECT_ROWS;
    b.off = b.direct ? 0 : bytes_hold(p) ? p->zero : 128;
    b.left = p->zero - b.off;
    for (struct packed_strip s = {0};
         packed_next(&share, BLOCK_ROWS, op->unit ? BLOCK_PANELS / 2 : BLOCK_PANELS, &s);)
        bytes_strip(&b, &s);
    if (b.set > 0)
        tiles_end();
}

#endif
