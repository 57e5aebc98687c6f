/* The vector vocabulary in AVX2 with FMA and F16C: 8 floats. *_n touch only n elements and read the
 * rest as zero.
 *
 * It is over 150 lines because a body has one vocabulary. */
#ifndef KERNELS_CPU_VEC_VEC_AVX2_H
#define KERNELS_CPU_VEC_VEC_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

#define BODY_NAME "avx2"
#define BODY(name) name##_avx2
#define INLINE static inline __attribute__((always_inline))
#define LANES 8
#define DOT_ROWS 4 /* register tile of dot products: rows of x by rows of w */
#define DOT_COLS 3
#define DOT_TALL 6 /* of many rows */
#define DOT_TALL_COLS 2
#define DOT_IN_TURN 1024 /* columns of rows that one row of x meets one by one */
#define MIX_ROWS 2       /* register tile of weighted sums: rows by vectors */
#define MIX_VECS 4

typedef __m256 vec;
typedef __m256i ivec;

INLINE vec vec_set1(float v)
{
    return _mm256_set1_ps(v);
}
INLINE vec vec_zero(void)
{
    return _mm256_setzero_ps();
}
INLINE vec vec_load(const void *p)
{
    return _mm256_loadu_ps(p);
}
INLINE __m256i vec_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vec vec_load_n(const void *p, int n)
{
    return _mm256_maskload_ps(p, vec_first(n));
}
INLINE void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}
INLINE void vec_store_n(float *p, vec v, int n)
{
    _mm256_maskstore_ps(p, vec_first(n), v);
}
/* The second operand where either is NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
INLINE vec vec_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}
INLINE vec vec_kept(vec v)
{
    __asm__("" : "+x"(v));
    return v;
}
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
INLINE __m128 vec_fold_add(vec v) /* lanes 4 apart */
{
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
INLINE float vec_reduce_add(vec v)
{
    __m128 a = vec_fold_add(v);
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
INLINE float vec_reduce_max(vec v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}
/* out[i] = vec_reduce_add(v[i]), bit for bit, four at a time */
INLINE void vec_reduce_add4(float *out, const vec *v)
{
    __m128 a = vec_fold_add(v[0]), b = vec_fold_add(v[1]);
    __m128 c = vec_fold_add(v[2]), d = vec_fold_add(v[3]);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(a, c), _mm_add_ps(b, d)));
}
INLINE __m128i vec_load_halves_n(const void *p, int n)
{
    uint16_t h[8] = {0};
    memcpy(h, p, (size_t)n * sizeof h[0]);
    return _mm_loadu_si128((const __m128i *)h);
}
INLINE vec vec_from_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
INLINE vec vec_load_bf16(const void *p)
{
    return vec_from_bf16(_mm_loadu_si128(p));
}
INLINE vec vec_in_order(vec v) /* the quarters 0, 2, 1, 3 of a vector */
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8));
}
/* The even or odd ones of 2 * LANES elements. */
INLINE vec vec_even(const float *p)
{
    return vec_in_order(_mm256_shuffle_ps(vec_load(p), vec_load(p + LANES), 0x88));
}
INLINE vec vec_odd(const float *p)
{
    return vec_in_order(_mm256_shuffle_ps(vec_load(p), vec_load(p + LANES), 0xdd));
}
/* out[2 i] = even[i], out[2 i + 1] = odd[i] */
INLINE void vec_store_both(float *out, vec even, vec odd)
{
    const vec low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    vec_store(out, _mm256_permute2f128_ps(low, high, 0x20));
    vec_store(out + LANES, _mm256_permute2f128_ps(low, high, 0x31));
}
/* Pairs of bf16, one in each lane: 2 * LANES elements, or the `left` ones that there are; and their
 * even or odd ones. */
INLINE vec vec_load_pairs(const void *p, int left)
{
    if (left >= 2 * LANES)
        return vec_load(p);
    vec pairs = vec_load_n(p, left / 2);
    if (left % 2) {
        uint16_t last;
        memcpy(&last, (const char *)p + (size_t)(left - 1) * sizeof last, sizeof last);
        const __m256i at = _mm256_cmpeq_epi32(_mm256_set1_epi32(left / 2),
                                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        const vec alone = _mm256_castsi256_ps(_mm256_set1_epi32(last));
        pairs = _mm256_blendv_ps(pairs, alone, _mm256_castsi256_ps(at));
    }
    return pairs;
}
INLINE vec vec_even_of(vec pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}
INLINE vec vec_odd_of(vec pairs)
{
    const __m256i upper = _mm256_set1_epi32((int32_t)0xffff0000);
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), upper));
}
INLINE vec vec_load_bf16_n(const void *p, int n)
{
    return vec_from_bf16(vec_load_halves_n(p, n));
}
INLINE vec vec_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
INLINE vec vec_load_f16_n(const void *p, int n)
{
    return _mm256_cvtph_ps(vec_load_halves_n(p, n));
}
/* The other way around: element j of vector i becomes element i of vector j. */
INLINE void vec_transpose(vec v[LANES])
{
    vec t[LANES];
    UNROLL
    for (int i = 0; i < 8; i += 4) {
        __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(v[i], v[i + 1]));
        __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(v[i], v[i + 1]));
        __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(v[i + 2], v[i + 3]));
        __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(v[i + 2], v[i + 3]));
        t[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        t[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        t[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        t[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    UNROLL
    for (int k = 0; k < 4; k++) {
        v[k] = _mm256_permute2f128_ps(t[k], t[4 + k], 0x20);
        v[4 + k] = _mm256_permute2f128_ps(t[k], t[4 + k], 0x31);
    }
}
/* Sums over the lanes of LANES vectors, lanes 4 apart first, then 2 and 1: SUM_GROUP vectors at a
 * time, then the groups. Lane 4 j + m is the sum of vector j of group m. */
#define SUM_GROUP 2
INLINE vec vec_sum_group(const vec v[SUM_GROUP])
{
    return _mm256_permute2f128_ps(v[0], v[1], 0x20) + _mm256_permute2f128_ps(v[0], v[1], 0x31);
}
INLINE vec vec_sum_groups(const vec v[LANES / SUM_GROUP])
{
    vec ab = _mm256_shuffle_ps(v[0], v[1], 0x44) + _mm256_shuffle_ps(v[0], v[1], 0xee);
    vec cd = _mm256_shuffle_ps(v[2], v[3], 0x44) + _mm256_shuffle_ps(v[2], v[3], 0xee);
    return _mm256_shuffle_ps(ab, cd, 0x88) + _mm256_shuffle_ps(ab, cd, 0xdd);
}
/* Nearest integers, and 2^k for -126 <= k <= 127. */
INLINE ivec vec_round(vec v)
{
    return _mm256_cvtps_epi32(v);
}
INLINE vec vec_of_int(ivec v)
{
    return _mm256_cvtepi32_ps(v);
}
INLINE vec vec_pow2(ivec k)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k, _mm256_set1_epi32(127)), 23));
}
INLINE ivec vec_half_int(ivec k)
{
    return _mm256_srai_epi32(k, 1);
}
INLINE ivec vec_sub_int(ivec a, ivec b)
{
    return _mm256_sub_epi32(a, b);
}

#include "kernels/cpu/vec/vec_common.h"

#endif
