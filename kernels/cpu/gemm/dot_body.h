/* Tiles of dot products: what products with weights that lie row by row are made of.
 *
 * Every dot product has one accumulator of LANES partial sums; step s adds elements [s*LANES,
 * (s+1)*LANES), the last one masked, and one fixed tree sums the lanes. A tile only decides which
 * dot products run side by side. It is code, and over 150 lines because of that. */
#ifndef KERNELS_CPU_GEMM_DOT_BODY_H
#define KERNELS_CPU_GEMM_DOT_BODY_H

#define DOT_AHEAD_MOST ((size_t)128 << 10) /* bytes: a part of L2 */
#define DOT_TILE ((DOT_ROWS * DOT_COLS + 3) / 4 * 4)

/* A tile: `rows` (1, 2 or DOT_ROWS) rows of x, x_stride elements apart, by DOT_COLS rows of some
 * dtype, wherever they lie; where fewer are wanted the last is named again. Of a sum over K in
 * several calls all but the last leave the accumulators in `carry`, and all but the first find them
 * there; the last writes sum[i * DOT_COLS + j]. */
struct dot_args {
    const float *x;
    size_t x_stride;
    const char *w[DOT_COLS];
    size_t k;
    int rows;
    bool first, last;
    vec *carry; /* [DOT_TILE] */
    float *sum; /* [DOT_TILE] */
};

INLINE void dot_begin(const struct dot_args *d, vec acc[DOT_ROWS][DOT_COLS], int rows)
{
    enum { cols = DOT_COLS };
    UNROLL
    for (int i = 0; i < rows * cols; i++)
        acc[i / cols][i % cols] = vec_zero();
    if (!d->first) {
        UNROLL
        for (int i = 0; i < rows * cols; i++)
            acc[i / cols][i % cols] = d->carry[i];
    }
}

INLINE void dot_end(const struct dot_args *d, vec acc[DOT_ROWS][DOT_COLS], int rows)
{
    enum { cols = DOT_COLS };
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

/* rows and t are constants where this is inlined, and the arrays registers. */
INLINE void dot_tile(const struct dot_args *d, enum dtype t, int rows)
{
    enum { cols = DOT_COLS };
    vec acc[DOT_ROWS][DOT_COLS];
    const float *x[DOT_ROWS];
    const char *w[DOT_COLS];
    size_t whole = d->k - d->k % LANES;
    int tail = (int)(d->k % LANES);
    const size_t bytes = t == DTYPE_F32 ? 4 : 2, next = cols * d->k * bytes;
    const size_t ahead = next < DOT_AHEAD_MOST ? next : DOT_AHEAD_MOST;
    const bool in_turn = rows == 1 && d->k <= DOT_IN_TURN;

    UNROLL
    for (int i = 0; i < rows; i++)
        x[i] = d->x + (size_t)i * d->x_stride;
    UNROLL
    for (int j = 0; j < cols; j++)
        w[j] = d->w[j];
    dot_begin(d, acc, rows);
    /* One row of x: memory gives rows of w one after the other faster than side by side. Where rows
     * are long and vectors short the additions of one are too slow for that: then the rows of the
     * next tile are asked for. */
    UNROLL
    for (int j = 0; j < cols && in_turn; j++)
        for (size_t k = 0; k < whole; k += LANES)
            acc[0][j] = vec_fma(vec_load(x[0] + k), vec_load_as(w[j], t, k), acc[0][j]);
    for (size_t k = 0; k < whole && !in_turn; k += LANES) {
        vec wv[DOT_COLS];
        UNROLL
        for (int j = 0; j < cols; j++) {
            wv[j] = vec_load_as(w[j], t, k);
            if (rows == 1)
                __builtin_prefetch(w[j] + k * bytes + ahead);
        }
        UNROLL
        for (int i = 0; i < rows; i++) {
            vec xv = vec_load(x[i] + k);
            UNROLL
            for (int j = 0; j < cols; j++)
                acc[i][j] = vec_fma(xv, wv[j], acc[i][j]);
        }
    }
    if (tail > 0) {
        vec wv[DOT_COLS];
        UNROLL
        for (int j = 0; j < cols; j++)
            wv[j] = vec_load_as_n(w[j], t, whole, tail);
        UNROLL
        for (int i = 0; i < rows; i++) {
            vec xv = vec_load_n(x[i] + whole, tail);
            UNROLL
            for (int j = 0; j < cols; j++)
                acc[i][j] = vec_fma(xv, wv[j], acc[i][j]);
        }
    }
    dot_end(d, acc, rows);
}

#define DOT_CASE(name, t, rows)                                                                    \
    static __attribute__((noinline)) void name(const struct dot_args *d)                           \
    {                                                                                              \
        dot_tile(d, t, rows);                                                                      \
    }

DOT_CASE(dot_f32_1, DTYPE_F32, 1)
DOT_CASE(dot_f32_2, DTYPE_F32, 2)
DOT_CASE(dot_f32_all, DTYPE_F32, DOT_ROWS)
DOT_CASE(dot_bf16_1, DTYPE_BF16, 1)
DOT_CASE(dot_bf16_2, DTYPE_BF16, 2)
DOT_CASE(dot_bf16_all, DTYPE_BF16, DOT_ROWS)
DOT_CASE(dot_f16_1, DTYPE_F16, 1)
DOT_CASE(dot_f16_2, DTYPE_F16, 2)
DOT_CASE(dot_f16_all, DTYPE_F16, DOT_ROWS)

typedef void dot_fn(const struct dot_args *d);

static dot_fn *const dot_fns[DTYPE_COUNT][3] = {
    [DTYPE_F32] = {dot_f32_1, dot_f32_2, dot_f32_all},
    [DTYPE_BF16] = {dot_bf16_1, dot_bf16_2, dot_bf16_all},
    [DTYPE_F16] = {dot_f16_1, dot_f16_2, dot_f16_all},
};

/* The largest tile that fits in what is left. */
INLINE int dot_rows(int left)
{
    return left >= DOT_ROWS ? DOT_ROWS : left >= 2 ? 2 : 1;
}
INLINE void dot_run(const struct dot_args *d, enum dtype t)
{
    dot_fns[t][d->rows == 1 ? 0 : d->rows == 2 ? 1 : 2](d);
}

#endif
