/* Products of packed weights (kernels/packed.h) with rows of floats, or of bf16 where the body has
 * products of such pairs, compiled once per instruction set (see cpu.h).
 *
 * A piece of some panels is expanded once, to what it is multiplied as, for a block of rows of x;
 * integers of 8 bits are exact in bf16. The products of a unit (a group, or as much of one as
 * WIDE_UNIT) are added up in two accumulators, by turns; their sum times the group's scale goes to
 * the output's own, in order of K, whatever else a tile holds. Mins meet the sum of a unit's x.
 * Between pieces the outputs wait in memory, so cutting changes no order of addition.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_WIDE_BODY_H
#define KERNELS_CPU_GEMM_WIDE_BODY_H

#define WIDE_UNIT ((size_t)128)  /* columns; a multiple of PACKED_SPAN */
#define WIDE_PIECE ((size_t)512) /* columns of a piece: units that end within them */
#define WIDE_PANELS 4            /* panels of a piece; one where a tile holds all rows */
#define WIDE_BLOCK 64            /* rows of x for which it is expanded */
#define WIDE_AHEAD 4096
#if LANES == 16
#define WIDE_ROWS 8
#else
#define WIDE_ROWS 2
#endif
#define WIDE_STEP_BYTES ((size_t)4 * PACKED_ROWS * sizeof(float)) /* of four columns, at most */

struct wide_tile {
    const struct packed *p;
    const float *x;
    const uint16_t *x16; /* read in its place where there is one */
    size_t x_stride;
    size_t begin, end;  /* columns of the piece */
    const char *w;      /* a panel of it */
    const void *scales; /* of the panel */
    const void *mins;   /* the same, or NULL */
    const float *x_sum; /* [WIDE_ROWS][WIDE_UNITS] of the units of the piece, where mins */
    float *sum;         /* [rows][sum_stride]; found there where begin > 0 */
    size_t sum_stride;
};
#define WIDE_UNITS (WIDE_PIECE / (PACKED_SPAN / 2))

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

/* Four columns of a panel, [4][PACKED_ROWS] floats; `shift` is 4 for the second of two steps that
 * share their bytes. */
INLINE void wide_step_floats(const struct packed *p, const uint8_t *q, int shift,
                             const float values[16], float *out)
{
    uint32_t four[PACKED_ROWS];
    memcpy(four, q, sizeof four);
    for (int c = 0; c < 4; c++, out += PACKED_ROWS)
        for (int r = 0; r < PACKED_ROWS; r++) {
            const int32_t v = (int32_t)(four[r] >> (8 * c + shift));
            out[r] = p->bits == 4 ? values[v & 15] : (float)((v & 255) - p->zero);
        }
}

#if defined(BODY_ROUNDS)
/* The same as pairs of bf16, [2][PACKED_ROWS][2]. A float of so few bits is bf16 in its upper half
 * and zeros. */
INLINE void wide_step_pairs8(__m512i q, __m512i zero, char *out)
{
    const __m512i byte = _mm512_set1_epi32(255);
    __m512i v[4] = {_mm512_and_si512(q, byte), _mm512_and_si512(_mm512_srli_epi32(q, 8), byte),
                    _mm512_and_si512(_mm512_srli_epi32(q, 16), byte), _mm512_srli_epi32(q, 24)};
    UNROLL
    for (int c = 0; c < 4; c++)
        v[c] = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_sub_epi32(v[c], zero)));
    _mm512_store_si512(out, _mm512_or_si512(_mm512_srli_epi32(v[0], 16), v[1]));
    _mm512_store_si512(out + 64, _mm512_or_si512(_mm512_srli_epi32(v[2], 16), v[3]));
}

struct wide_tables { /* of both bytes of the bf16 that each q stands for */
    __m512i low, high;
};

static struct wide_tables wide_tables_of(const float values[16])
{
    uint8_t low[16], high[16];
    for (int i = 0; i < 16; i++) {
        uint16_t v = dtype_f32_to_bf16(values[i]);
        low[i] = (uint8_t)v;
        high[i] = (uint8_t)(v >> 8);
    }
    return (struct wide_tables){
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)low)),
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)high)),
    };
}

INLINE void wide_step_pairs4(__m512i q, const struct wide_tables *t, char *out)
{
    const __m512i first =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13));
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaau;
    UNROLL
    for (int i = 0; i < 2; i++) {
        __m512i at =
            _mm512_shuffle_epi8(q, _mm512_add_epi8(first, _mm512_set1_epi8((char)(2 * i))));
        _mm512_store_si512(out + 64 * i, _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(t->low, at),
                                                                  odd, t->high, at));
    }
}

static void wide_expand_pairs(const struct packed *p, const uint8_t *panel, size_t begin,
                              size_t end, char *out)
{
    const __m512i zero = _mm512_set1_epi32(p->zero);
    const size_t bytes = p->bits == 4 ? 32 : 64; /* of a step */
    float values[16];
    wide_values(p, values);
    const struct wide_tables t = wide_tables_of(values);
    const uint8_t *q = panel + begin / 4 * bytes;
    for (size_t k = begin; k < end; k += p->bits == 4 ? 8 : 4, q += 64) {
        const __m512i v = _mm512_loadu_si512(q);
        __builtin_prefetch(q + WIDE_AHEAD);
        if (p->bits == 4) {
            wide_step_pairs4(bytes_low(v), &t, out);
            wide_step_pairs4(bytes_high(v), &t, out + 128);
        } else {
            wide_step_pairs8(v, zero, out);
        }
        out += p->bits == 4 ? 256 : 128;
    }
}
#endif

/* Columns [begin, end) of a panel, and a few more; begin is the first of a unit. */
static void wide_expand(const struct packed *p, const uint8_t *panel, size_t begin, size_t end,
                        bool pairs, char *out)
{
#if defined(BODY_ROUNDS)
    if (pairs) {
        wide_expand_pairs(p, panel, begin, end, out);
        return;
    }
#endif
    (void)pairs;
    float values[16];
    wide_values(p, values);
    for (size_t k = begin; k < end; k += 4, out += WIDE_STEP_BYTES) {
        const size_t step = k / 4;
        const uint8_t *q = panel + (p->bits == 4 ? step / 2 : step) * 64;
        if (k % 32 == 0)
            __builtin_prefetch(q + WIDE_AHEAD);
        wide_step_floats(p, q, p->bits == 4 && step % 2 ? 4 : 0, values, (float *)(void *)out);
    }
}

/* ---- multiplying ---- */

typedef vec wide_acc[WIDE_ROWS][PANEL_VECS];

/* Products of the unit [k, end), whose weights w are, in two accumulators. */
INLINE void wide_unit(const struct wide_tile *t, size_t k, size_t end, int rows, bool pairs,
                      wide_acc sum[2])
{
    const char *w = t->w + (k - t->begin) * PACKED_ROWS * (pairs ? 2 : 4);
    UNROLL
    for (int i = 0; i < 2 * rows * PANEL_VECS; i++)
        sum[i / (rows * PANEL_VECS)][i / PANEL_VECS % rows][i % PANEL_VECS] = vec_zero();
#if defined(BODY_ROUNDS)
    if (pairs) {
        /* x16 has zeros up to a multiple of a span. */
        for (; k < end; k += 4, w += 128) {
            const __m512bh w0 = (__m512bh)_mm512_load_si512(w);
            const __m512bh w1 = (__m512bh)_mm512_load_si512(w + 64);
            UNROLL
            for (int r = 0; r < rows; r++) {
                int32_t x[2];
                memcpy(x, t->x16 + (size_t)r * t->x_stride + k, sizeof x);
                sum[0][r][0] =
                    _mm512_dpbf16_ps(sum[0][r][0], w0, (__m512bh)_mm512_set1_epi32(x[0]));
                sum[1][r][0] =
                    _mm512_dpbf16_ps(sum[1][r][0], w1, (__m512bh)_mm512_set1_epi32(x[1]));
            }
        }
        return;
    }
#endif
    for (size_t c = 0; k < end; k++, c++, w += PACKED_ROWS * sizeof(float)) {
        UNROLL
        for (int r = 0; r < rows; r++) {
            const vec x = vec_set1(t->x[(size_t)r * t->x_stride + k]);
            UNROLL
            for (int v = 0; v < PANEL_VECS; v++) {
                const vec wv = vec_load((const float *)(const void *)w + v * LANES);
                if (c & 1)
                    sum[1][r][v] = vec_fma(x, wv, sum[1][r][v]);
                else
                    sum[0][r][v] = vec_fma(x, wv, sum[0][r][v]);
            }
        }
    }
}

INLINE void wide_run(const struct wide_tile *t, int rows, bool pairs)
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
        wide_unit(t, k, end, rows, pairs, sum);
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
                    vec_fma(vec_set1(t->x_sum[(size_t)r * WIDE_UNITS + unit]), min, all[r][v]);
        }
    }
    UNROLL
    for (int i = 0; i < rows * PANEL_VECS; i++)
        vec_store(t->sum + (size_t)(i / PANEL_VECS) * t->sum_stride +
                      (size_t)(i % PANEL_VECS) * LANES,
                  all[i / PANEL_VECS][i % PANEL_VECS]);
}

typedef void wide_fn(const struct wide_tile *t);

#define WIDE_CASE(name, rows, pairs)                                                               \
    static __attribute__((noinline)) void name(const struct wide_tile *t)                          \
    {                                                                                              \
        wide_run(t, rows, pairs);                                                                  \
    }
WIDE_CASE(wide_1, 1, false)
WIDE_CASE(wide_2, 2, false)
#if WIDE_ROWS == 8
WIDE_CASE(wide_4, 4, false)
WIDE_CASE(wide_8, 8, false)
#endif
#if defined(BODY_ROUNDS)
WIDE_CASE(wide16_1, 1, true)
WIDE_CASE(wide16_2, 2, true)
WIDE_CASE(wide16_4, 4, true)
WIDE_CASE(wide16_8, 8, true)
#endif

/* [x in bf16][log2 of the rows] */
static wide_fn *const wide_fns[][4] = {
#if WIDE_ROWS == 8
    {wide_1, wide_2, wide_4, wide_8},
#else
    {wide_1, wide_2, NULL, NULL},
#endif
#if defined(BODY_ROUNDS)
    {wide16_1, wide16_2, wide16_4, wide16_8},
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

/* Sums of each row's x over the units of the tile's piece, one after the other. */
static void wide_sums(const struct wide_tile *t, size_t rows, float *out)
{
    for (size_t r = 0; r < rows; r++) {
        float *to = out + r * WIDE_UNITS;
        for (size_t k = t->begin, end; k < t->end; k = end) {
            float sum[4] = {0}; /* by turns: four additions at a time */
            end = wide_unit_end(t->p, k);
            for (size_t i = k; i < end; i++)
                sum[i % 4] += t->x16 ? dtype_bf16_to_f32(t->x16[r * t->x_stride + i])
                                     : t->x[r * t->x_stride + i];
            *to++ = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
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

static void wide_block(const struct op_gemm *op, const struct packed_strip *s)
{
    char piece[WIDE_PANELS][WIDE_PIECE / 4 * WIDE_STEP_BYTES] __attribute__((aligned(64)));
    float sums[WIDE_BLOCK * WIDE_PANELS * PACKED_ROWS] __attribute__((aligned(64)));
    float x_sum[WIDE_ROWS * WIDE_UNITS];
    const struct packed *p = op->w->packed;
    const size_t scales = packed_groups(p) * PACKED_ROWS * dtype_bytes(p->scale_type);
    const size_t stride16 = rows16_stride(p->cols);
    const size_t stride = (size_t)(op->x_stride ? op->x_stride : p->cols);
    struct wide_tile t = {.p = p,
                          .x_stride = op->x16 ? stride16 : stride,
                          .x_sum = x_sum,
                          .sum_stride = s->panels * PACKED_ROWS};
    for (; t.begin < (size_t)p->cols; t.begin = t.end) {
        t.end = wide_piece_end(p, t.begin);
        for (size_t i = 0; i < s->panels; i++)
            wide_expand(p, p->q + (s->panel + i) * packed_panel_bytes(p), t.begin, t.end,
                        op->x16 != NULL, piece[i]);
        for (size_t m = 0, rows; m < s->rows; m += rows) {
            int form;
            rows = wide_rows(s->rows - m, &form);
            t.x = op->x ? op->x + (s->m + m) * stride : NULL;
            t.x16 = op->x16 ? op->x16 + (s->m + m) * stride16 : NULL;
            if (p->has_min)
                wide_sums(&t, rows, x_sum);
            for (size_t i = 0; i < s->panels; i++) {
                t.w = piece[i];
                t.scales = (const char *)p->scales + (s->panel + i) * scales;
                t.mins = p->has_min ? (const char *)p->mins + (s->panel + i) * scales : NULL;
                t.sum = sums + m * t.sum_stride + i * PACKED_ROWS;
                wide_fns[op->x16 != NULL][form](&t);
            }
        }
    }
    packed_write(op, sums, s);
}

static void wide_gemm(const struct op_gemm *op, struct packed_share share)
{
    /* Memory gives one stream faster than several. */
    const size_t most = share.m_end - share.m_begin <= WIDE_ROWS ? 1 : WIDE_PANELS;
    struct packed_strip s;
    for (s.m = share.m_begin; s.m < share.m_end; s.m += s.rows) {
        s.rows = share.m_end - s.m < WIDE_BLOCK ? share.m_end - s.m : WIDE_BLOCK;
        for (s.panel = share.begin; s.panel < share.end; s.panel += s.panels) {
            s.panels = share.end - s.panel < most ? share.end - s.panel : most;
            wide_block(op, &s);
        }
    }
}

#endif
