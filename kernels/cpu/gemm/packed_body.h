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

#include "base/team.h"
#include "kernels/cpu/gemm/packed_tile_body.h"

#define TILE_WIDTH (BYTES_PANELS * PACKED_ROWS)
#define PACKED_FEW (2 * BYTES_ROWS) /* rows for which 4 bits are read one by one */
#define PACKED_NEAR_TILES 4         /* of a block, for what is fetched to go into the first level */
#define PACKED_TILES_MAX 64         /* of a block of rows */

#define PACKED_CASE(name, rows, panels, bits, half, twice, table, near)                            \
    static __attribute__((noinline)) void name(struct packed_tile *t)                              \
    {                                                                                              \
        tile_run(t, (struct packed_form){rows, panels, bits, half, twice, table, near,             \
                                         panels == 1 && (bits == 4 || rows == 1)});                \
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

/* One row of 8 bits, two panels at a time: two streams, which memory gives faster than one on CPUs
 * that do not fetch as well by themselves as AMD's. */
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

/* One row that asks for nothing. Of 4 bits in groups of a span or less so much is computed for so
 * few bytes that asking pays all the same; chains of them were not tried without. */
#if LANES == 16
#define PACKED_QUIET(name, bits, half, twice, table)                                               \
    static __attribute__((noinline)) void name(struct packed_tile *t)                              \
    {                                                                                              \
        tile_run(t, (struct packed_form){1, 1, bits, half, twice, table, false, false});           \
    }
PACKED_QUIET(packed_8_quiet, 8, false, false, false)
PACKED_QUIET(packed_8_half_quiet, 8, true, false, false)
PACKED_QUIET(packed_8_twice_quiet, 8, false, true, false)
#if !defined(BYTES_CHAIN)
PACKED_QUIET(packed_4_twice_quiet, 4, false, true, false)
PACKED_QUIET(packed_4_twice_table_quiet, 4, false, true, true)
#endif
static packed_fn *const packed_quiet[9] = {[0] = packed_8_quiet,
                                           [1] = packed_8_half_quiet,
                                           [2] = packed_8_twice_quiet,
#if !defined(BYTES_CHAIN)
                                           [5] = packed_4_twice_quiet,
                                           [8] = packed_4_twice_table_quiet
#endif
};
#endif

/* Whether one row asks for nothing: AMD's cores fetch what comes next of one stream as fast as
 * memory gives it, and asking for it as well, or reading two panels side by side, holds them up
 * (Zen 4: by 6 to 9 per cent, by 13 to 28 where memory is quick). With AVX2 asking is up to a
 * twentieth faster there. */
INLINE bool gemm_is_quiet(size_t rows)
{
    return LANES == 16 && rows == 1 && cpu_is_amd();
}

/* Of a tile of so many of the strip's rows. */
static packed_fn *packed_fn_of(const struct packed_strip *s, size_t rows, int form, bool quiet)
{
#if LANES == 16
    if (quiet && packed_quiet[form])
        return packed_quiet[form];
#endif
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
                       const struct packed_tile *of, bool quiet)
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
    t.single = tiles == 1;
    for (t.group = 0; t.group < groups; t.group = t.group_end) {
        t.group_end = groups - t.group < step ? groups : t.group + step;
        for (size_t i = 0, tile = 0, n; i < s->rows; i += n, tile++) {
            n = tile_rows(s->rows - i, most);
            t.x = rows8_from(op->x8, s->m + i);
            t.sum = sums + i * s->panels * PACKED_ROWS;
            packed_ahead(&t, s, tile, tiles);
            packed_fn_of(s, n, form, quiet)(&t);
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
    const bool quiet = gemm_is_quiet(rows);
    const size_t most = quiet || (p->bits == 4 && rows <= PACKED_FEW) ? 1 : BYTES_PANELS;
    for (struct packed_strip s = {0}; packed_next(&share, block, most, &s);)
        packed_run(op, &s, &of, quiet);
}

#endif
