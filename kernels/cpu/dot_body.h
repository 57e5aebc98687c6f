/* Tiles of dot products: what gemm and attention scores are made of.
 *
 * Every dot product has one accumulator of LANES partial sums; step s adds elements [s*LANES,
 * (s+1)*LANES), the last one masked, and one fixed tree sums the lanes. A tile only decides which
 * dot products run side by side. */
#ifndef KERNELS_CPU_DOT_BODY_H
#define KERNELS_CPU_DOT_BODY_H

#define DOT_TILE ((DOT_ROWS * DOT_COLS + 3) / 4 * 4)

/* Rows of x are fp32, rows of w of some dtype; strides in elements. Of a sum over K in several
 * calls all but the last leave the accumulators in `carry`, and all but the first find them there;
 * the last writes sum[i * cols + j]. */
struct dot_args {
    const float *x;
    size_t x_stride;
    const char *w;
    size_t w_stride;
    size_t k;
    int rows, cols;
    bool first, last;
    vec *carry; /* [DOT_TILE] */
    float *sum; /* [DOT_TILE] */
};

/* rows, cols and t are constants where this is inlined, and the arrays registers. */
INLINE void dot_tile(const struct dot_args *d, enum dtype t, int rows, int cols)
{
    vec acc[DOT_ROWS][DOT_COLS];
    const float *x[DOT_ROWS];
    const char *w[DOT_COLS];
    size_t whole = d->k - d->k % LANES;
    int tail = (int)(d->k % LANES);

    UNROLL
    for (int i = 0; i < rows; i++)
        x[i] = d->x + (size_t)i * d->x_stride;
    UNROLL
    for (int j = 0; j < cols; j++)
        w[j] = d->w + (size_t)j * d->w_stride * (t == DTYPE_F32 ? 4 : 2);
    UNROLL
    for (int i = 0; i < rows * cols; i++)
        acc[i / cols][i % cols] = vec_zero();
    if (!d->first) {
        UNROLL
        for (int i = 0; i < rows * cols; i++)
            acc[i / cols][i % cols] = d->carry[i];
    }
    for (size_t k = 0; k < whole; k += LANES) {
        vec wv[DOT_COLS];
        UNROLL
        for (int j = 0; j < cols; j++)
            wv[j] = vec_load_as(w[j], t, k);
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

#define DOT_NAME(t, rows, cols) DOT_NAME_(t, rows, cols)
#define DOT_NAME_(t, rows, cols) dot_##t##_##rows##_##cols
#define DOT_CASE(t, rows, cols)                                                                    \
    static __attribute__((noinline)) void DOT_NAME(t, rows, cols)(const struct dot_args *d)        \
    {                                                                                              \
        dot_tile(d, DTYPE_##t, rows, cols);                                                        \
    }
#define DOT_CASES(t)                                                                               \
    DOT_CASE(t, DOT_ROWS, DOT_COLS)                                                                \
    DOT_CASE(t, 2, DOT_COLS)                                                                       \
    DOT_CASE(t, 1, DOT_COLS)                                                                       \
    DOT_CASE(t, DOT_ROWS, 1)                                                                       \
    DOT_CASE(t, 2, 1)                                                                              \
    DOT_CASE(t, 1, 1)

DOT_CASES(F32)
DOT_CASES(BF16)
DOT_CASES(F16)

typedef void dot_fn(const struct dot_args *d);

#define DOT_PAIR(t, rows) DOT_NAME(t, rows, 1), DOT_NAME(t, rows, DOT_COLS)
#define DOT_TABLE(t) DOT_PAIR(t, 1), DOT_PAIR(t, 2), DOT_PAIR(t, DOT_ROWS)

static dot_fn *const dot_fns[DTYPE_COUNT][6] = {
    [DTYPE_F32] = {DOT_TABLE(F32)},
    [DTYPE_BF16] = {DOT_TABLE(BF16)},
    [DTYPE_F16] = {DOT_TABLE(F16)},
};

/* The largest tile that fits in what is left: rows are taken by DOT_ROWS, 2, 1 and columns by
 * DOT_COLS, 1. */
INLINE int dot_rows(int left)
{
    return left >= DOT_ROWS ? DOT_ROWS : left >= 2 ? 2 : 1;
}
INLINE int dot_cols(int left)
{
    return left >= DOT_COLS ? DOT_COLS : 1;
}
INLINE void dot_run(const struct dot_args *d, enum dtype t)
{
    int at = d->rows == 1 ? 0 : d->rows == 2 ? 2 : 4;
    dot_fns[t][at + (d->cols == DOT_COLS)](d);
}

#endif
