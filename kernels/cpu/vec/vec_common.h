/* Words built of each instruction set's own: included by vec_*.h, last. */
#ifndef KERNELS_CPU_VEC_VEC_COMMON_H
#define KERNELS_CPU_VEC_VEC_COMMON_H

/* LANES elements of type t, starting at element i. */
INLINE vec vec_load_as(const char *p, enum dtype t, size_t i)
{
    if (t == DTYPE_F32)
        return vec_load(p + 4 * i);
    return t == DTYPE_BF16 ? vec_load_bf16(p + 2 * i) : vec_load_f16(p + 2 * i);
}

INLINE vec vec_load_as_n(const char *p, enum dtype t, size_t i, int n)
{
    if (t == DTYPE_F32)
        return vec_load_n(p + 4 * i, n);
    return t == DTYPE_BF16 ? vec_load_bf16_n(p + 2 * i, n) : vec_load_f16_n(p + 2 * i, n);
}

/* The even or odd ones of 2 * LANES elements; vec_load_bf16() takes an operation more for each. */
INLINE vec vec_even_bf16(const void *p)
{
    return vec_even_of(vec_load(p));
}
INLINE vec vec_odd_bf16(const void *p)
{
    return vec_odd_of(vec_load(p));
}

/* e^x to about 1 ulp: x = k ln2 + r, |r| <= ln2/2, a polynomial of degree 6 in r (Moshier, Cephes),
 * and 2^k in two factors so that subnormal results round once. Overflows to infinity, underflows to
 * 0, keeps NaN. */
INLINE vec vec_exp(vec x)
{
    x = vec_max(vec_set1(-104.0f), x);
    x = vec_min(vec_set1(89.0f), x);
    ivec k = vec_round(x * vec_set1(0x1.715476p+0f));
    vec kf = vec_of_int(k);
    vec r = vec_fma(kf, vec_set1(-0x1.63p-1f), x);
    r = vec_fma(kf, vec_set1(0x1.bd0106p-13f), r);
    vec p = vec_set1(1.9875691500e-4f);
    p = vec_fma(p, r, vec_set1(1.3981999507e-3f));
    p = vec_fma(p, r, vec_set1(8.3334519073e-3f));
    p = vec_fma(p, r, vec_set1(4.1665795894e-2f));
    p = vec_fma(p, r, vec_set1(1.6666665459e-1f));
    p = vec_fma(p, r, vec_set1(5.0000001201e-1f));
    p = vec_fma(p, r * r, r) + vec_set1(1.0f);
    ivec half = vec_half_int(k);
    return p * vec_pow2(half) * vec_pow2(vec_sub_int(k, half));
}

/* tanh to about 1e-7 absolute */
INLINE vec vec_tanh(vec x)
{
    vec e = vec_exp(x + x);
    return vec_set1(1.0f) - vec_set1(2.0f) / (e + vec_set1(1.0f));
}

#endif
