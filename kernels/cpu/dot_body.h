/* Tiles of dot products: what gemm and attention scores are made of.
 *
 * Every dot product has one accumulator of LANES partial sums; step s adds elements [s*LANES,
 * (s+1)*LANES), the last one masked, and one fixed tree sums the lanes. A tile only decides which
 * dot products run side by side. */
#ifndef KERNELS_CPU_DOT_BODY_H
#define KERNELS_CPU_DOT_BODY_H

/* Rows of x are fp32, rows of w of dtype `t`; strides in elements. */
struct dot_args {
    const float *x;
    size_t x_stride;
    const char *w;
    size_t w_stride;
    size_t k;
};

/* acc[i * cols + j] += x[i] * w[j], lane by lane. rows, cols and t are constants where this is
 * inlined. */
INLINE void dot_tile(vec *acc, const struct dot_args *d, enum dtype t, int rows, int cols)
{
    vec sum[DOT_ROWS * DOT_COLS];
    const float *x[DOT_ROWS];
    const char *w[DOT_COLS];
    size_t whole = d->k - d->k % LANES;
    int tail = (int)(d->k % LANES);

    for (int i = 0; i < rows; i++)
        x[i] = d->x + (size_t)i * d->x_stride;
    for (int j = 0; j < cols; j++)
        w[j] = d->w + (size_t)j * d->w_stride * (t == DTYPE_F32 ? 4 : 2);
    for (int i = 0; i < rows * cols; i++)
        sum[i] = acc[i];
    for (size_t k = 0; k < whole; k += LANES) {
        vec wv[DOT_COLS];
        for (int j = 0; j < cols; j++)
            wv[j] = vec_load_as(w[j], t, k);
        for (int i = 0; i < rows; i++) {
            vec xv = vec_load(x[i] + k);
            for (int j = 0; j < cols; j++)
                sum[i * cols + j] = vec_fma(xv, wv[j], sum[i * cols + j]);
        }
    }
    if (tail > 0) {
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++)
                sum[i * cols + j] = vec_fma(vec_load_n(x[i] + whole, tail),
                                            vec_load_as_n(w[j], t, whole, tail), sum[i * cols + j]);
    }
    for (int i = 0; i < rows * cols; i++)
        acc[i] = sum[i];
}

#define DOT_NAME(t, rows, cols) DOT_NAME_(t, rows, cols)
#define DOT_NAME_(t, rows, cols) dot_##t##_##rows##_##cols
#define DOT_CASE(t, rows, cols)                                                                    \
    static __attribute__((noinline)) void DOT_NAME(t, rows, cols)(vec * acc,                       \
                                                                  const struct dot_args *d)        \
    {                                                                                              \
        dot_tile(acc, d, DTYPE_##t, rows, cols);                                                   \
    }
#define DOT_CASES(t)                                                                               \
    DOT_CASE(t, 4, DOT_COLS)                                                                       \
    DOT_CASE(t, 2, DOT_COLS)                                                                       \
    DOT_CASE(t, 1, DOT_COLS)                                                                       \
    DOT_CASE(t, 4, 1)                                                                              \
    DOT_CASE(t, 2, 1)                                                                              \
    DOT_CASE(t, 1, 1)

DOT_CASES(F32)
DOT_CASES(BF16)
DOT_CASES(F16)

typedef void dot_fn(vec *acc, const struct dot_args *d);

#define DOT_TABLE(t)                                                                               \
    {                                                                                              \
        {DOT_NAME(t, 1, 1), DOT_NAME(t, 1, DOT_COLS)},                                             \
            {DOT_NAME(t, 2, 1), DOT_NAME(t, 2, DOT_COLS)},                                         \
        {                                                                                          \
            DOT_NAME(t, 4, 1), DOT_NAME(t, 4, DOT_COLS)                                            \
        }                                                                                          \
    }

static dot_fn *const dot_fns[DTYPE_COUNT][3][2] = {
    [DTYPE_F32] = DOT_TABLE(F32),
    [DTYPE_BF16] = DOT_TABLE(BF16),
    [DTYPE_F16] = DOT_TABLE(F16),
};

/* The largest tile that fits in what is left: rows are taken by 4, 2, 1 and columns by DOT_COLS, 1.
 */
INLINE int dot_rows(int left)
{
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}
INLINE int dot_cols(int left)
{
    return left >= DOT_COLS ? DOT_COLS : 1;
}
INLINE dot_fn *dot_fn_of(enum dtype t, int rows, int cols)
{
    return dot_fns[t][rows / 2][cols == DOT_COLS];
}

/* out[i] = the sum of acc[i]'s lanes, i < n <= DOT_ROWS * DOT_COLS. Both have room for a multiple
 * of 4. */
INLINE void dot_finish(float *out, vec *acc, int n)
{
    for (int i = n; i % 4 != 0; i++)
        acc[i] = vec_zero();
    for (int i = 0; i < n; i += 4)
        vec_reduce_add4(out + i, acc + i);
}

#define DOT_TILE ((DOT_ROWS * DOT_COLS + 3) / 4 * 4)

#endif
