/* Products of packed weights (kernels/packed.h) with rows of floats, compiled once per instruction
 * set (see cpu.h); rows of bf16 are for panels_body.h and tiles_wide_body.h, which take units and
 * expanded words from here.
 *
 * A piece of some panels is expanded once, into the cache, for a block of rows. The products of a
 * unit (a group, or as much of one as WIDE_UNIT) are added up in two accumulators, by turns; their
 * sum times the group's scale goes to the output's own, in order of K, whatever else a tile holds.
 * Mins meet the sum of a unit's x. Between pieces the outputs wait in memory, so cutting changes no
 * order of addition. x is copied, tile by tile.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_WIDE_BODY_H
#define KERNELS_CPU_GEMM_WIDE_BODY_H

#include <assert.h>

#define WIDE_UNIT ((size_t)128)  /* columns; a multiple of PACKED_SPAN */
#define WIDE_PIECE ((size_t)512) /* columns of a piece: units that end within them */
#define WIDE_PANELS 4            /* panels of a piece; one where a tile holds all rows */
#define WIDE_BLOCK 64            /* rows of x for which it is expanded */
#define WIDE_AHEAD 4096
#define WIDE_BYTES 64 /* of a step of 8 bits, or of two of 4 */
#if LANES == 16
#define WIDE_ROWS 8
#else
#define WIDE_ROWS 2
#endif
#define WIDE_STEP_BYTES ((size_t)4 * PACKED_ROWS * sizeof(float)) /* of four columns, at most */
#define WIDE_UNITS (WIDE_PIECE / (PACKED_SPAN / 2))
#define WIDE_SUMS ((size_t)WIDE_BLOCK * 512) /* of a block's rows, over all of their units */
/* From row to row of a tile's x; an odd number of cache lines. */
#define WIDE_X_STRIDE (WIDE_PIECE * sizeof(float) + 64)

struct wide_tile {
    const struct packed *p;
    size_t begin, end;  /* columns of the piece */
    const char *x;      /* [rows] WIDE_X_STRIDE apart: of these columns, zeros behind the last */
    const char *w;      /* a panel of it, expanded */
    const void *scales; /* of the panel */
    const void *mins;   /* the same, or NULL */
    const float *x_sum; /* of the first row and unit, where mins; from row to row */
    size_t x_sum_stride;
    float *sum; /* [rows][sum_stride]; found there where begin > 0 */
    size_t sum_stride;
};

/* Where the unit that begins with column k ends. */
INLINE size_t wide_unit_end(const struct packed *p, size_t k)
{
    const size_t group = (size_t)p->group, cols = (size_t)p->cols;
    size_t end = k - k % group + group;
    end = end - k < WIDE_UNIT ? end : k + WIDE_UNIT;
    return end < cols ? end : cols;
}

/* ---- expanding ---- */

/* What each q of 4 bits stands for. */
static void wide_values(const struct packed *p, float out[16])
{
    for (int i = 0; i < 16; i++)
        out[i] = (float)((p->has_table ? p->table[i] : i) - p->zero);
}

/* Four columns of a panel, [4][PACKED_ROWS] floats. */
INLINE void wide_step8(const uint8_t *q, int32_t zero, float *out)
{
    UNROLL
    for (int i = 0; i < 4 * PANEL_VECS; i++)
        vec_store(out + (size_t)i * LANES,
                  bytes_floats(bytes_load(q + (size_t)(i % PANEL_VECS) * 4 * LANES),
                               i / PANEL_VECS * 8, zero));
}
/* The same; `shift` is 4 for the second of two steps that share their bytes. */
INLINE void wide_step4(const uint8_t *q, int shift, const float values[16], float *out)
{
    UNROLL
    for (int i = 0; i < 4 * PANEL_VECS; i++)
        vec_store(out + (size_t)i * LANES,
                  bytes_entries(bytes_load(q + (size_t)(i % PANEL_VECS) * 4 * LANES),
                                i / PANEL_VECS * 8 + shift, values));
}

#if defined(BODY_ROUNDS) || defined(BODY_TILES)
/* The words that each q of 4 bits stands for, twice over: the bit above is none of it. */
static __m512i wide_words(const struct packed *p)
{
    uint16_t words[32];
    float values[16];
    wide_values(p, values);
    for (int i = 0; i < 32; i++)
        words[i] = dtype_f32_to_bf16(values[i % 16]);
    return _mm512_loadu_si512(words);
}

/* What pairs are made of: these, or what is taken off each q of 8 bits. */
static __m512i wide_of(const struct packed *p)
{
    return p->bits == 4 ? wide_words(p) : _mm512_set1_epi32(p->zero);
}

/* Four columns of q of 8 bits. A float of so few bits is bf16 in its upper half, zeros below. */
INLINE void wide_floats(const uint8_t *from, __m512i of, __m512i out[4])
{
    const __m512i q = _mm512_loadu_si512(from), byte = _mm512_set1_epi32(255);
    out[0] = _mm512_and_si512(q, byte);
    out[1] = _mm512_and_si512(_mm512_srli_epi32(q, 8), byte);
    out[2] = _mm512_and_si512(_mm512_srli_epi32(q, 16), byte);
    out[3] = _mm512_srli_epi32(q, 24);
    UNROLL
    for (int c = 0; c < 4; c++)
        out[c] = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_sub_epi32(out[c], of)));
}

/* 64 bytes to the lines of pairs that they hold, in order of K. */
INLINE void wide_lines8(const uint8_t *from, __m512i of, __m512i out[2])
{
    __m512i v[4];
    wide_floats(from, of, v);
    out[0] = _mm512_or_si512(_mm512_srli_epi32(v[0], 16), v[1]);
    out[1] = _mm512_or_si512(_mm512_srli_epi32(v[2], 16), v[3]);
}
INLINE void wide_lines4(const uint8_t *from, __m512i of, __m512i out[4])
{
    /* The second and third byte of four change places: then each word's index is in its low bits,
     * of columns that stand side by side. */
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
    const __m512i q = _mm512_shuffle_epi8(_mm512_loadu_si512(from), order);
    out[0] = _mm512_permutexvar_epi16(q, of);
    out[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(q, 8), of);
    out[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(q, 4), of);
    out[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(q, 12), of);
}
#endif

/* The bytes of a panel from column k on, a multiple of a span. */
INLINE const uint8_t *wide_bytes(const struct packed *p, size_t panel, size_t k)
{
    return p->q + panel * packed_panel_bytes(p) + k * PACKED_ROWS * (size_t)p->bits / 8;
}

/* `columns` of a panel, up to whole steps. */
static void wide_expand(const struct packed *p, const uint8_t *q, size_t columns, float *out)
{
    const int32_t zero = p->zero;
    float values[16];
    if (p->bits == 8) {
        for (size_t k = 0; k < columns; k += 4, q += WIDE_BYTES, out += 4 * PACKED_ROWS) {
            __builtin_prefetch(q + WIDE_AHEAD);
            wide_step8(q, zero, out);
        }
        return;
    }
    wide_values(p, values);
    for (size_t k = 0; k < columns; k += 8, q += WIDE_BYTES, out += 8 * PACKED_ROWS) {
        __builtin_prefetch(q + WIDE_AHEAD);
        wide_step4(q, 0, values, out);
        if (k + 4 < columns)
            wide_step4(q, 4, values, out + 4 * PACKED_ROWS);
    }
}

/* ---- multiplying ---- */

typedef vec wide_acc[WIDE_ROWS][PANEL_VECS];

/* Products of the unit [k, end), in two accumulators. */
INLINE void wide_unit(const struct wide_tile *t, size_t k, size_t end, int rows, wide_acc sum[2])
{
    UNROLL
    for (int i = 0; i < 2 * rows * PANEL_VECS; i++)
        sum[i / (rows * PANEL_VECS)][i / PANEL_VECS % rows][i % PANEL_VECS] = vec_zero();
    const char *w = t->w + (k - t->begin) * PACKED_ROWS * sizeof(float);
    const char *at = t->x + (k - t->begin) * sizeof(float);
    for (; k < end; k += 2, w += 2 * PACKED_ROWS * sizeof(float), at += 2 * sizeof(float)) {
        UNROLL
        for (int i = 0; i < 2; i++) {
            vec wv[PANEL_VECS];
            UNROLL
            for (int v = 0; v < PANEL_VECS; v++)
                wv[v] = vec_load((const float *)(const void *)w + i * PACKED_ROWS + v * LANES);
            UNROLL
            for (int r = 0; r < rows; r++) {
                float x;
                memcpy(&x, at + (size_t)r * WIDE_X_STRIDE + (size_t)i * sizeof x, sizeof x);
                UNROLL
                for (int v = 0; v < PANEL_VECS; v++)
                    sum[i][r][v] = vec_fma(vec_set1(x), wv[v], sum[i][r][v]);
            }
        }
    }
}

INLINE void wide_run(const struct wide_tile *t, int rows)
{
    const struct packed *p = t->p;
    wide_acc all, sum[2];
    UNROLL
    for (int i = 0; i < rows * PANEL_VECS; i++)
        all[i / PANEL_VECS][i % PANEL_VECS] =
            t->begin == 0 ? vec_zero()
                          : vec_load(t->sum + (size_t)(i / PANEL_VECS) * t->sum_stride +
                                     (size_t)(i % PANEL_VECS) * LANES);
    for (size_t k = t->begin, unit = 0, end; k < t->end; k = end, unit++) {
        const size_t at = k / (size_t)p->group * PACKED_ROWS;
        end = wide_unit_end(p, k);
        wide_unit(t, k, end, rows, sum);
        UNROLL
        for (int v = 0; v < PANEL_VECS; v++) {
            const size_t lane = at + (size_t)v * LANES;
            const vec scale = vec_load_as(t->scales, p->scale_type, lane);
            UNROLL
            for (int r = 0; r < rows; r++)
                all[r][v] = vec_fma(sum[0][r][v] + sum[1][r][v], scale, all[r][v]);
            if (!p->has_min)
                continue;
            const vec min = vec_load_as(t->mins, p->scale_type, lane);
            UNROLL
            for (int r = 0; r < rows; r++)
                all[r][v] =
                    vec_fma(vec_set1(t->x_sum[(size_t)r * t->x_sum_stride + unit]), min, all[r][v]);
        }
    }
    UNROLL
    for (int i = 0; i < rows * PANEL_VECS; i++)
        vec_store(t->sum + (size_t)(i / PANEL_VECS) * t->sum_stride +
                      (size_t)(i % PANEL_VECS) * LANES,
                  all[i / PANEL_VECS][i % PANEL_VECS]);
}

typedef void wide_fn(const struct wide_tile *t);

#define WIDE_CASE(rows)                                                                            \
    static __attribute__((noinline)) void wide_##rows(const struct wide_tile *t)                   \
    {                                                                                              \
        wide_run(t, rows);                                                                         \
    }
WIDE_CASE(1)
WIDE_CASE(2)
#if WIDE_ROWS == 8
WIDE_CASE(4)
WIDE_CASE(8)
#endif

/* [log2 of the rows] */
static wide_fn *const wide_fns[4] = {
#if WIDE_ROWS == 8
    wide_1,
    wide_2,
    wide_4,
    wide_8,
#else
    wide_1,
    wide_2,
    NULL,
    NULL,
#endif
};

/* The rows of a tile, of so many that are left: a power of two, whose log goes to *form. */
static size_t wide_rows(size_t left, int *form)
{
    size_t rows = WIDE_ROWS;
    for (*form = WIDE_ROWS == 8 ? 3 : 1; rows > left; --*form)
        rows /= 2;
    return rows;
}

/* ---- a block ---- */

/* Rows [m, m + n) of x. */
struct wide_rows_of {
    const struct op_gemm *op;
    size_t m, n;
};

static const float *wide_x(const struct wide_rows_of *rows, size_t r)
{
    const struct op_gemm *op = rows->op;
    return op->x + (rows->m + r) * (size_t)(op->x_stride ? op->x_stride : op->w->cols);
}
/* Sums of each row's x over the units of columns [begin, end), one after the other; `stride` from
 * row to row. */
static void wide_sums(const struct wide_rows_of *rows, size_t begin, size_t end, size_t stride,
                      float *out)
{
    const struct packed *p = rows->op->w->packed;
    for (size_t r = 0; r < rows->n; r++) {
        float *to = out + r * stride;
        for (size_t k = begin, last; k < end; k = last) {
            float sum[4] = {0}; /* by turns: four additions at a time */
            last = wide_unit_end(p, k);
            for (size_t i = k; i < last; i++)
                sum[i % 4] += wide_x(rows, r)[i];
            *to++ = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
    }
}

static size_t wide_units(const struct packed *p, size_t begin, size_t end)
{
    size_t n = 0;
    for (; begin < end; n++)
        begin = wide_unit_end(p, begin);
    return n;
}

/* The columns of the tile's piece, as they are multiplied. */
static void wide_copy(const struct wide_tile *t, const struct wide_rows_of *rows, char *out)
{
    const size_t n = t->end - t->begin;
    for (size_t r = 0; r < rows->n; r++, out += WIDE_X_STRIDE) {
        memcpy(out, wide_x(rows, r) + t->begin, n * sizeof(float));
        memset(out + n * sizeof(float), 0, 3 * sizeof(float));
    }
}

/* The piece that begins with column k. */
static size_t wide_piece_end(const struct packed *p, size_t k)
{
    size_t end = k, next;
    while (end < (size_t)p->cols && (next = wide_unit_end(p, end)) <= k + WIDE_PIECE)
        end = next;
    return end;
}

/* A tile of rows, whose x and sums are ready, by the panels of a strip. */
static void wide_panels(struct wide_tile *t, const struct packed_strip *s, wide_fn *run,
                        const char *piece)
{
    const struct packed *p = t->p;
    const size_t scales = packed_groups(p) * PACKED_ROWS * dtype_bytes(p->scale_type);
    float *sum = t->sum;
    for (size_t i = 0; i < s->panels; i++, t->sum += PACKED_ROWS) {
        t->w = piece + i * (WIDE_PIECE / 4 * WIDE_STEP_BYTES);
        t->scales = (const char *)p->scales + (s->panel + i) * scales;
        t->mins = p->has_min ? (const char *)p->mins + (s->panel + i) * scales : NULL;
        run(t);
    }
    t->sum = sum;
}

/* `x_sums`: of all units of the strip's rows, or NULL. */
static void wide_block(const struct op_gemm *op, const struct packed_strip *s, const float *x_sums)
{
    char piece[WIDE_PANELS][WIDE_PIECE / 4 * WIDE_STEP_BYTES] __attribute__((aligned(64)));
    char x[WIDE_ROWS * WIDE_X_STRIDE] __attribute__((aligned(64)));
    float sums[WIDE_BLOCK * WIDE_PANELS * PACKED_ROWS] __attribute__((aligned(64)));
    float x_sum[WIDE_ROWS * WIDE_UNITS];
    const struct packed *p = op->w->packed;
    const size_t units = x_sums ? wide_units(p, 0, (size_t)p->cols) : WIDE_UNITS;
    struct wide_tile t = {
        .p = p, .x = x, .x_sum_stride = units, .sum_stride = s->panels * PACKED_ROWS};
    for (size_t unit = 0; t.begin < (size_t)p->cols; t.begin = t.end) {
        struct wide_rows_of rows = {.op = op, .m = s->m};
        t.end = wide_piece_end(p, t.begin);
        for (size_t i = 0; i < s->panels; i++)
            wide_expand(p, wide_bytes(p, s->panel + i, t.begin), t.end - t.begin,
                        (float *)(void *)piece[i]);
        for (t.sum = sums; rows.m < s->m + s->rows;
             rows.m += rows.n, t.sum += rows.n * t.sum_stride) {
            int form;
            rows.n = wide_rows(s->m + s->rows - rows.m, &form);
            wide_copy(&t, &rows, x);
            t.x_sum = x_sums ? x_sums + (rows.m - s->m) * units + unit : x_sum;
            if (p->has_min && !x_sums)
                wide_sums(&rows, t.begin, t.end, units, x_sum);
            wide_panels(&t, s, wide_fns[form], piece[0]);
        }
        unit += x_sums ? wide_units(p, t.begin, t.end) : 0;
    }
    packed_write(op, sums, s);
}

static void wide_gemm(const struct op_gemm *op, struct packed_share share)
{
    /* One stream was faster here than several. */
    const size_t most = share.m_end - share.m_begin <= WIDE_ROWS ? 1 : WIDE_PANELS;
    assert(!op->x16);
    const size_t cols = (size_t)op->w->cols;
    const size_t units = op->w->packed->has_min ? wide_units(op->w->packed, 0, cols) : 0;
    float x_sums[WIDE_SUMS];
    for (struct packed_strip s = {0}; packed_next(&share, WIDE_BLOCK, most, &s);) {
        const bool fits = units > 0 && units * s.rows <= WIDE_SUMS;
        if (fits && s.panel == share.begin)
            wide_sums(&(struct wide_rows_of){op, s.m, s.rows}, 0, cols, units, x_sums);
        wide_block(op, &s, fits ? x_sums : NULL);
    }
}

#endif
