/* Tiles of weighted sums of bf16 with weights in bf16, for mix_body.h: positions come in pairs, an
 * even one and the next, and a pair is one product. AVX-512 with BF16 alone.
 *
 * Two rows of 2 * LANES elements side by side, as the unpacking leaves them, put the elements into
 * two accumulators in an order of their own: vec_of_unpacked(). */
#ifndef KERNELS_CPU_ATTENTION_MIX16_BODY_H
#define KERNELS_CPU_ATTENTION_MIX16_BODY_H

INLINE __m512i mix16_load(const char *p, int tail)
{
    return tail ? _mm512_maskz_loadu_epi16(((__mmask32)1 << tail) - 1, p) : _mm512_loadu_si512(p);
}

/* Position j, even, and the next, of which one may not be seen. */
INLINE void mix16_pair(const struct mix_args *a, size_t offset, int j, int tail, __m512i out[2])
{
    const bool even = j >= a->range[0], odd = j + 1 < a->range[1];
    __m512i x = even ? mix16_load(a->v.row[j] + offset, tail) : _mm512_setzero_si512();
    __m512i y = odd ? mix16_load(a->v.row[j + 1] + offset, tail) : _mm512_setzero_si512();
    out[0] = _mm512_unpacklo_epi16(x, y);
    out[1] = _mm512_unpackhi_epi16(x, y);
}

/* Elements [d, d + vecs * LANES), vecs 2 or 4, of the last of which only `tail` are there. */
INLINE void mix16_tile(const struct mix_args *a, size_t d, int rows, int vecs, int tail)
{
    vec sum[MIX_ROWS * MIX_VECS];
    const size_t offset = a->v.offset + d * 2;
    float *acc = a->acc + d;
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        sum[i] = vec_load(acc + (size_t)(i / vecs) * a->acc_stride + i % vecs * LANES) *
                 vec_set1(a->fade[i / vecs]);
    for (int j = a->range[0] & ~1; j < a->range[1]; j += 2) {
        __m512i v[MIX_VECS];
        if (a->v.ahead && j + 1 >= a->v.asked) {
            rows_prefetch(a->v.ahead[j] + offset, (size_t)(vecs * LANES) * 2);
            rows_prefetch(a->v.ahead[j + 1] + offset, (size_t)(vecs * LANES) * 2);
        }
        UNROLL
        for (int e = 0; e < vecs; e += 2)
            mix16_pair(a, offset + (size_t)(e * LANES) * 2, j, tail, v + e);
        UNROLL
        for (int i = 0; i < rows; i++) {
            __m512bh w =
                (__m512bh)_mm512_castps_si512(vec_set1(a->weight[i * OPS_KV_SPAN + j / 2]));
            UNROLL
            for (int e = 0; e < vecs; e++)
                sum[i * vecs + e] = _mm512_dpbf16_ps(sum[i * vecs + e], w, (__m512bh)v[e]);
        }
    }
    UNROLL
    for (int i = 0; i < rows * vecs; i++)
        vec_store(acc + (size_t)(i / vecs) * a->acc_stride + i % vecs * LANES, sum[i]);
}

#define MIX16_CASE(name, rows)                                                                     \
    static __attribute__((noinline)) void name(const struct mix_args *a, size_t dim)               \
    {                                                                                              \
        size_t d = 0;                                                                              \
        for (; d + 4 * LANES <= dim; d += 4 * LANES)                                               \
            mix16_tile(a, d, rows, 4, 0);                                                          \
        for (; d + 2 * LANES <= dim; d += 2 * LANES)                                               \
            mix16_tile(a, d, rows, 2, 0);                                                          \
        if (d < dim)                                                                               \
            mix16_tile(a, d, rows, 2, (int)(dim - d));                                             \
    }

MIX16_CASE(mix16_one, 1)
MIX16_CASE(mix16_two, 2)
MIX16_CASE(mix16_all, MIX_ROWS)

static mix_fn *const mix16_fns[3] = {mix16_one, mix16_two, mix16_all};

#endif
