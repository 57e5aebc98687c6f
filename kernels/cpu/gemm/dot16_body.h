/* Tiles of dot products of rows of bf16 with rows of bf16, for dot_body.h: the same shapes, sums
 * and order, but that a step is twice as many elements, two to each lane. AVX-512 with BF16 alone.
 */
#ifndef KERNELS_CPU_GEMM_DOT16_BODY_H
#define KERNELS_CPU_GEMM_DOT16_BODY_H

/* Lane i: acc + the products of elements 2i and 2i + 1 of 2 * LANES each. */
INLINE vec vec_dot_bf16(vec acc, const void *x, const void *w)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(w));
}
INLINE __m512bh vec_bf16_n(const void *p, int n) /* n < 2 * LANES, the rest zeros */
{
    return (__m512bh)_mm512_maskz_loadu_epi16(((__mmask32)1 << n) - 1, p);
}
INLINE vec vec_dot_bf16_n(vec acc, const void *x, const void *w, int n)
{
    return _mm512_dpbf16_ps(acc, vec_bf16_n(x, n), vec_bf16_n(w, n));
}

INLINE void dot_tile16(const struct dot_args *d, int rows)
{
    enum { cols = DOT_COLS, step = 2 * LANES };
    vec acc[DOT_ROWS][DOT_COLS];
    size_t whole = d->k - d->k % step;
    int tail = (int)(d->k % step);

    dot_begin(d, acc, rows);
    /* One row of x: memory gives rows of w one after the other faster than side by side. */
    UNROLL
    for (int j = 0; j < cols && rows == 1; j++)
        for (size_t k = 0; k < whole; k += step)
            acc[0][j] = vec_dot_bf16(acc[0][j], d->x16 + k, d->w[j] + 2 * k);
    for (size_t k = 0; k < whole && rows > 1; k += step) {
        UNROLL
        for (int i = 0; i < rows; i++) {
            UNROLL
            for (int j = 0; j < cols; j++)
                acc[i][j] =
                    vec_dot_bf16(acc[i][j], d->x16 + (size_t)i * d->x_stride + k, d->w[j] + 2 * k);
        }
    }
    UNROLL
    for (int i = 0; i < rows && tail > 0; i++) {
        UNROLL
        for (int j = 0; j < cols; j++)
            acc[i][j] = vec_dot_bf16_n(acc[i][j], d->x16 + (size_t)i * d->x_stride + whole,
                                       d->w[j] + 2 * whole, tail);
    }
    dot_end(d, acc, rows);
}

static __attribute__((noinline)) void dot16_1(const struct dot_args *d)
{
    dot_tile16(d, 1);
}
static __attribute__((noinline)) void dot16_2(const struct dot_args *d)
{
    dot_tile16(d, 2);
}
static __attribute__((noinline)) void dot16_all(const struct dot_args *d)
{
    dot_tile16(d, DOT_ROWS);
}

static dot_fn *const dot_fns16[3] = {dot16_1, dot16_2, dot16_all};

#endif
