/* Tiles of dot products: what products with weights that lie row by row are made of.
 *
 * Every dot product has one accumulator of LANES partial sums, to which DOT_PAIRS elements are
 * added in two steps: LANES after LANES or, of rows of bf16, the even ones and then the odd ones,
 * which come apart in one operation each. What is behind the last whole DOT_PAIRS is filled up with
 * zeros, and one fixed tree sums the lanes. A tile only decides which dot products run side by
 * side. It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_GEMM_DOT_BODY_H
#define KERNELS_CPU_GEMM_DOT_BODY_H

#define DOT_AHEAD_MOST ((size_t)128 << 10) /* bytes: a part of L2 */
#define DOT_TILE ((DOT_ROWS * DOT_COLS + 3) / 4 * 4)
#define DOT_PAIRS (2 * LANES)

_Static_assert(DOT_TILE >= DOT_TALL * DOT_TALL_COLS, "both tiles' sums fit");

/* A tile: `rows` rows of x, x_stride elements apart, by dot_cols(rows) rows of some dtype, wherever
 * they lie; where fewer are wanted the last is named again. Of a sum over K in several calls all
 * but the last leave the accumulators in `carry`, and all but the first find them there; the last
 * writes sum[i * dot_cols(rows) + j]. All but the last are of whole DOT_PAIRS. */
struct dot_args {
    const float *x; /* DOT_TALL rows: as dot_pack() leaves them */
    size_t x_stride;
    const char *w[DOT_COLS];
    size_t k;
    int rows; /* 1, 2, DOT_ROWS or DOT_TALL */
    bool first, last;
    bool quiet; /* one row asks for nothing */
    vec *carry; /* [DOT_TILE] */
    float *sum; /* [DOT_TILE] */
};

INLINE int dot_cols(int rows)
{
    return rows == DOT_TALL ? DOT_TALL_COLS : DOT_COLS;
}

INLINE void dot_begin(const struct dot_args *d, vec acc[][DOT_COLS], int rows, int cols)
{
    UNROLL
    for (int i = 0; i < rows * cols; i++)
        acc[i / cols][i % cols] = vec_zero();
    if (!d->first) {
        UNROLL
        for (int i = 0; i < rows * cols; i++)
            acc[i / cols][i % cols] = d->carry[i];
    }
}

INLINE void dot_end(const struct dot_args *d, vec acc[][DOT_COLS], int rows, int cols)
{
    if (!d->last) {
        UNROLL
        for (int i = 0; i < rows * cols; i++)
            d->carry[i] = acc[i / cols][i % cols];
        return;
    }
    vec none = vec_zero();
#define DOT_AT(e) (4 * g + e < rows * cols ? acc[(4 * g + e) / cols][(4 * g + e) % cols] : none)
    UNROLL
    for (int g = 0; g < (rows * cols + 3) / 4; g++) {
        vec four[4] = {DOT_AT(0), DOT_AT(1), DOT_AT(2), DOT_AT(3)};
        vec_reduce_add4(d->sum + 4 * g, four);
    }
}

INLINE size_t dot_bytes(enum dtype t)
{
    return t == DTYPE_F32 ? 4 : 2;
}

/* A step's vector of x, and of weights of type t. */
INLINE vec dot_x(const float *x, enum dtype t, bool second)
{
    if (t != DTYPE_BF16)
        return vec_load(x + (second ? LANES : 0));
    return second ? vec_odd(x) : vec_even(x);
}
INLINE vec dot_w(const char *w, enum dtype t, bool second)
{
    if (t != DTYPE_BF16)
        return vec_load_as(w, t, second ? LANES : 0);
    return second ? vec_odd_bf16(w) : vec_even_bf16(w);
}

INLINE void dot_pack_pairs(const float *x, enum dtype t, float *out)
{
    vec_store(out, dot_x(x, t, false));
    vec_store(out + DOT_TALL * LANES, dot_x(x, t, true));
}

/* DOT_TALL rows of x, as they meet rows of type t: [k / DOT_PAIRS][steps][DOT_TALL][LANES]. */
INLINE void dot_pack(const float *x, size_t x_stride, size_t k, enum dtype t, float *out)
{
    const size_t left = k % DOT_PAIRS, whole = k - left;
    for (size_t i = 0; i < DOT_TALL; i++, out += LANES) {
        const float *row = x + i * x_stride;
        float rest[DOT_PAIRS] = {0};
        for (size_t at = 0; at < whole; at += DOT_PAIRS)
            dot_pack_pairs(row + at, t, out + at * DOT_TALL);
        if (left == 0)
            continue;
        memcpy(rest, row + whole, left * sizeof rest[0]);
        dot_pack_pairs(rest, t, out + whole * DOT_TALL);
    }
}

/* Where in a tile's rows the next steps begin. */
struct dot_place {
    const float *x; /* DOT_TALL rows: packed */
    size_t x_stride;
    const char *w[DOT_COLS];
};

/* acc[i][j] += the products of DOT_PAIRS elements of the tile's rows. */
INLINE void dot_steps(const struct dot_place *at, enum dtype t, int rows, vec acc[][DOT_COLS])
{
    const int cols = dot_cols(rows);
    UNROLL
    for (int second = 0; second < 2; second++) {
        vec wv[DOT_COLS];
        UNROLL
        for (int j = 0; j < cols; j++)
            wv[j] = dot_w(at->w[j], t, second);
        UNROLL
        for (int i = 0; i < rows; i++) {
            vec xv = rows == DOT_TALL ? vec_load(at->x + (second * DOT_TALL + i) * LANES)
                                      : dot_x(at->x + (size_t)i * at->x_stride, t, second);
            xv = vec_kept(xv);
            UNROLL
            for (int j = 0; j < cols; j++)
                acc[i][j] = vec_fma(xv, wv[j], acc[i][j]);
        }
    }
}

/* The same of the last `left` elements, and zeros behind them. */
INLINE void dot_rest(const struct dot_args *d, size_t left, enum dtype t, int rows,
                     vec acc[][DOT_COLS])
{
    float x[DOT_ROWS][DOT_PAIRS] = {{0}};
    char w[DOT_COLS][DOT_PAIRS * sizeof(float)] = {{0}};
    const size_t k = d->k - left, bytes = dot_bytes(t);
    struct dot_place at = {.x = rows == DOT_TALL ? d->x + k * DOT_TALL : x[0],
                           .x_stride = DOT_PAIRS};
    for (int i = 0; i < rows && rows != DOT_TALL; i++)
        memcpy(x[i], d->x + (size_t)i * d->x_stride + k, left * sizeof(float));
    for (int j = 0; j < dot_cols(rows); j++)
        at.w[j] = memcpy(w[j], d->w[j] + k * bytes, left * bytes);
    dot_steps(&at, t, rows, acc);
}

/* One row of x, and short ones: memory gives rows of weights one after the other faster than side
 * by side. Where they are long the additions of one alone are too slow for it. */
INLINE void dot_in_turn(const struct dot_args *d, size_t k_end, enum dtype t, vec acc[][DOT_COLS])
{
    UNROLL
    for (int j = 0; j < DOT_COLS; j++)
        for (size_t k = 0; k < k_end; k += DOT_PAIRS) {
            const char *w = d->w[j] + k * dot_bytes(t);
            acc[0][j] = vec_fma(dot_x(d->x + k, t, false), dot_w(w, t, false), acc[0][j]);
            acc[0][j] = vec_fma(dot_x(d->x + k, t, true), dot_w(w, t, true), acc[0][j]);
        }
}

/* How far behind a row of weights is what is asked for meanwhile, in bytes: the next tile, or of
 * one row of x as near as is good for the cache. Memory waits for the additions of one row, and
 * those of many for the second level of cache. */
INLINE size_t dot_ahead(const struct dot_args *d, enum dtype t, int rows)
{
    const size_t next = DOT_COLS * d->k * dot_bytes(t);
    if (rows == DOT_TALL)
        return (size_t)(d->w[1] - d->w[0]) * DOT_TALL_COLS;
    return next < DOT_AHEAD_MOST ? next : DOT_AHEAD_MOST;
}

INLINE void dot_side_by_side(const struct dot_args *d, size_t k_end, enum dtype t, int rows,
                             vec acc[][DOT_COLS])
{
    const size_t x_step = rows == DOT_TALL ? DOT_TALL * DOT_PAIRS : DOT_PAIRS;
    const size_t w_step = DOT_PAIRS * dot_bytes(t), ahead = dot_ahead(d, t, rows);
    struct dot_place at = {.x = d->x, .x_stride = d->x_stride};
    const bool asks = rows == DOT_TALL || (rows == 1 && !d->quiet);
    UNROLL
    for (int j = 0; j < dot_cols(rows); j++)
        at.w[j] = d->w[j];
    for (size_t k = 0; k < k_end; k += DOT_PAIRS, at.x += x_step) {
        if (asks) {
            UNROLL
            for (int j = 0; j < dot_cols(rows); j++) {
                __builtin_prefetch(at.w[j] + ahead);
                if (w_step > 64)
                    __builtin_prefetch(at.w[j] + ahead + 64);
            }
        }
        dot_steps(&at, t, rows, acc);
        UNROLL
        for (int j = 0; j < dot_cols(rows); j++)
            at.w[j] += w_step;
    }
}

/* rows and t are constants where this is inlined, and the arrays registers. */
INLINE void dot_tile(const struct dot_args *d, enum dtype t, int rows)
{
    vec acc[DOT_TALL][DOT_COLS];
    const size_t left = d->k % DOT_PAIRS, whole = d->k - left;
    dot_begin(d, acc, rows, dot_cols(rows));
    if (rows == 1 && d->k <= DOT_IN_TURN)
        dot_in_turn(d, whole, t, acc);
    else
        dot_side_by_side(d, whole, t, rows, acc);
    if (left > 0)
        dot_rest(d, left, t, rows, acc);
    dot_end(d, acc, rows, dot_cols(rows));
}

#define DOT_CASE(name, t, rows)                                                                    \
    static __attribute__((noinline)) void name(const struct dot_args *d)                           \
    {                                                                                              \
        dot_tile(d, t, rows);                                                                      \
    }
#define DOT_CASES(name, t)                                                                         \
    DOT_CASE(dot_##name##_1, t, 1)                                                                 \
    DOT_CASE(dot_##name##_2, t, 2)                                                                 \
    DOT_CASE(dot_##name##_some, t, DOT_ROWS)                                                       \
    DOT_CASE(dot_##name##_tall, t, DOT_TALL)

DOT_CASES(f32, DTYPE_F32)
DOT_CASES(bf16, DTYPE_BF16)
DOT_CASES(f16, DTYPE_F16)

typedef void dot_fn(const struct dot_args *d);

/* The largest tile that fits in what is left. */
INLINE int dot_rows(int left)
{
    return left >= DOT_ROWS ? DOT_ROWS : left >= 2 ? 2 : 1;
}
INLINE int dot_rows_most(int left)
{
    return left >= DOT_TALL ? DOT_TALL : dot_rows(left);
}

INLINE void dot_run(const struct dot_args *d, enum dtype t)
{
    static dot_fn *const fns[DTYPE_COUNT][4] = {
        [DTYPE_F32] = {dot_f32_1, dot_f32_2, dot_f32_some, dot_f32_tall},
        [DTYPE_BF16] = {dot_bf16_1, dot_bf16_2, dot_bf16_some, dot_bf16_tall},
        [DTYPE_F16] = {dot_f16_1, dot_f16_2, dot_f16_some, dot_f16_tall},
    };
    fns[t][d->rows == 1 ? 0 : d->rows == 2 ? 1 : d->rows == DOT_TALL ? 3 : 2](d);
}

#endif
