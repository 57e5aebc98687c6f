/* The vector vocabulary in AVX-512 (F, BW, VL, DQ): 16 floats. *_n touch only n elements and read
 * the rest as zero.
 *
 * It is over 150 lines because a body has one vocabulary. */
#ifndef KERNELS_CPU_VEC_VEC_AVX512_H
#define KERNELS_CPU_VEC_VEC_AVX512_H

#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* The same text is compiled for several: with VNNI products of bytes are one instruction, with BF16
 * those of pairs of bf16 too; with AMX there are tiles of both. */
#if defined(TILES_EMULATED)
#define BODY_NAME "amx_emulated"
#define BODY(name) name##_amx_emulated
#define BODY_TILES 1
#elif defined(__AMX_INT8__)
#define BODY_NAME "amx"
#define BODY(name) name##_amx
#define BODY_TILES 1
#elif defined(__AVX512BF16__)
#define BODY_NAME "avx512_bf16"
#define BODY(name) name##_bf16
#define BODY_ROUNDS 1 /* has products of two bf16 */
#elif defined(__AVX512VNNI__)
#define BODY_NAME "avx512_vnni"
#define BODY(name) name##_vnni
#else
#define BODY_NAME "avx512"
#define BODY(name) name##_avx512
#endif
#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define DOT_ROWS 4 /* register tile of dot products: rows of x by rows of w */
#define DOT_COLS 6
#define DOT_TALL 8 /* of many rows */
#define DOT_TALL_COLS 3
#define DOT_IN_TURN 1024 /* columns of rows that one row of x meets one by one */
#define MIX_ROWS 4       /* register tile of weighted sums: rows by vectors */
#define MIX_VECS 4

typedef __m512 vec;
typedef __m512i ivec;

INLINE vec vec_set1(float v)
{
    return _mm512_set1_ps(v);
}
INLINE vec vec_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE vec vec_load(const void *p)
{
    return _mm512_loadu_ps(p);
}
INLINE __mmask16 vec_first(int n)
{
    return (__mmask16)((1u << n) - 1);
}
INLINE vec vec_load_n(const void *p, int n)
{
    return _mm512_maskz_loadu_ps(vec_first(n), p);
}
INLINE void vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}
INLINE void vec_store_n(float *p, vec v, int n)
{
    _mm512_mask_storeu_ps(p, vec_first(n), v);
}
/* The second operand where either is NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
INLINE vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
/* v in a register: compilers load it anew for each use else, and loads run short. */
INLINE vec vec_kept(vec v)
{
    __asm__("" : "+v"(v));
    return v;
}
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* out[i] = the sum of v[i]: of lanes 8 apart, then 4, 2, 1 apart, for four vectors at a time. */
INLINE void vec_reduce_add4(float *out, const vec *v)
{
    vec ab = _mm512_shuffle_f32x4(v[0], v[1], 0x44) + _mm512_shuffle_f32x4(v[0], v[1], 0xee);
    vec cd = _mm512_shuffle_f32x4(v[2], v[3], 0x44) + _mm512_shuffle_f32x4(v[2], v[3], 0xee);
    vec s = _mm512_shuffle_f32x4(ab, cd, 0x88) + _mm512_shuffle_f32x4(ab, cd, 0xdd);
    s = s + _mm512_permute_ps(s, 0x4e);
    s = s + _mm512_permute_ps(s, 0xb1);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s)));
}
INLINE float vec_reduce_add(vec v)
{
    float out[4];
    vec four[4] = {v, v, v, v};
    vec_reduce_add4(out, four);
    return out[0];
}
INLINE float vec_reduce_max(vec v)
{
    return _mm512_reduce_max_ps(v);
}
INLINE vec vec_from_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
INLINE vec vec_load_bf16(const void *p)
{
    return vec_from_bf16(_mm256_loadu_si256(p));
}
/* The even or odd ones of 2 * LANES elements. */
INLINE vec vec_even(const float *p)
{
    const __m512i index =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(vec_load(p), index, vec_load(p + LANES));
}
INLINE vec vec_odd(const float *p)
{
    const __m512i index =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(vec_load(p), index, vec_load(p + LANES));
}
/* out[2 i] = even[i], out[2 i + 1] = odd[i] */
INLINE void vec_store_both(float *out, vec even, vec odd)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(LANES / 2));
    vec_store(out, _mm512_permutex2var_ps(even, low, odd));
    vec_store(out + LANES, _mm512_permutex2var_ps(even, high, odd));
}
/* 32 elements in their order, of which unpacking two rows has left of each eight the first four in
 * `low` and the others in `high`. */
INLINE void vec_of_unpacked(vec low, vec high, vec out[2])
{
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    out[0] = _mm512_permutex2var_ps(low, first, high);
    out[1] = _mm512_permutex2var_ps(low, second, high);
}
/* Pairs of bf16, one in each lane: 2 * LANES elements, or the `left` ones that there are; and their
 * even or odd ones. */
INLINE vec vec_load_pairs(const void *p, int left)
{
    if (left >= 2 * LANES)
        return _mm512_loadu_ps(p);
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(((__mmask32)1 << left) - 1, p));
}
INLINE vec vec_even_of(vec pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}
INLINE vec vec_odd_of(vec pairs)
{
    const __m512i upper = _mm512_set1_epi32((int32_t)0xffff0000);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), upper));
}
INLINE vec vec_load_bf16_n(const void *p, int n)
{
    return vec_from_bf16(_mm256_maskz_loadu_epi16(vec_first(n), p));
}
INLINE vec vec_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
INLINE vec vec_load_f16_n(const void *p, int n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_first(n), p));
}
/* The other way around: element j of vector i becomes element i of vector j. */
INLINE void vec_transpose(vec v[LANES])
{
    vec t[LANES];
    UNROLL
    for (int i = 0; i < 16; i += 4) {
        __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[i], v[i + 1]));
        __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(v[i], v[i + 1]));
        __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(v[i + 2], v[i + 3]));
        __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(v[i + 2], v[i + 3]));
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    UNROLL
    for (int k = 0; k < 4; k++) {
        vec a = _mm512_shuffle_f32x4(t[k], t[4 + k], 0x44);
        vec b = _mm512_shuffle_f32x4(t[k], t[4 + k], 0xee);
        vec c = _mm512_shuffle_f32x4(t[8 + k], t[12 + k], 0x44);
        vec d = _mm512_shuffle_f32x4(t[8 + k], t[12 + k], 0xee);
        v[k] = _mm512_shuffle_f32x4(a, c, 0x88);
        v[4 + k] = _mm512_shuffle_f32x4(a, c, 0xdd);
        v[8 + k] = _mm512_shuffle_f32x4(b, d, 0x88);
        v[12 + k] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
/* Sums over the lanes of LANES vectors, lanes 8 apart first, then 4, 2 and 1: SUM_GROUP vectors at
 * a time, then the groups. Lane 4 j + m is the sum of vector j of group m. */
#define SUM_GROUP 4
INLINE vec vec_sum_group(const vec v[SUM_GROUP])
{
    vec ab = _mm512_shuffle_f32x4(v[0], v[1], 0x44) + _mm512_shuffle_f32x4(v[0], v[1], 0xee);
    vec cd = _mm512_shuffle_f32x4(v[2], v[3], 0x44) + _mm512_shuffle_f32x4(v[2], v[3], 0xee);
    return _mm512_shuffle_f32x4(ab, cd, 0x88) + _mm512_shuffle_f32x4(ab, cd, 0xdd);
}
INLINE vec vec_sum_groups(const vec v[LANES / SUM_GROUP])
{
    vec ab = _mm512_shuffle_ps(v[0], v[1], 0x44) + _mm512_shuffle_ps(v[0], v[1], 0xee);
    vec cd = _mm512_shuffle_ps(v[2], v[3], 0x44) + _mm512_shuffle_ps(v[2], v[3], 0xee);
    return _mm512_shuffle_ps(ab, cd, 0x88) + _mm512_shuffle_ps(ab, cd, 0xdd);
}
/* To the nearest bf16, ties to even, in the upper half of each lane; what is no number stays
 * none. */
INLINE __m512i vec_near_bf16(vec v)
{
    const __m512i b = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7fff)), odd);
    return _mm512_mask_or_epi32(near, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), b,
                                _mm512_set1_epi32(0x400000));
}
#define VEC_STORES_BF16 1
/* The same of both, side by side; what is too small for a normal number may be zero. */
INLINE __m512i vec_pack_bf16(vec low, vec high)
{
#if defined(__AVX512BF16__)
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
#else
    const __m512i a = _mm512_srli_epi32(vec_near_bf16(low), 16), b = vec_near_bf16(high);
    const __m512i lanes = _mm512_setr_epi64(0, 1, 2, 3, 8, 9, 10, 11);
    return _mm512_permutex2var_epi64(
        _mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), lanes,
        _mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16))));
#endif
}
INLINE __m256i vec_to_bf16(vec v)
{
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(vec_near_bf16(v), 16));
}
INLINE void vec_store_bf16(void *p, vec v)
{
    _mm256_storeu_si256(p, vec_to_bf16(v));
}
INLINE void vec_store_bf16_n(void *p, vec v, int n)
{
    _mm256_mask_storeu_epi16(p, vec_first(n), vec_to_bf16(v));
}
INLINE void vec_round_run(uint16_t *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store_bf16(out + i, vec_load(x + i));
    if (i < n)
        vec_store_bf16_n(out + i, vec_load_n(x + i, (int)(n - i)), (int)(n - i));
}
/* Nearest integers, and 2^k for -126 <= k <= 127. */
INLINE ivec vec_round(vec v)
{
    return _mm512_cvtps_epi32(v);
}
INLINE vec vec_of_int(ivec v)
{
    return _mm512_cvtepi32_ps(v);
}
INLINE vec vec_pow2(ivec k)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(k, _mm512_set1_epi32(127)), 23));
}
INLINE ivec vec_half_int(ivec k)
{
    return _mm512_srai_epi32(k, 1);
}
INLINE ivec vec_sub_int(ivec a, ivec b)
{
    return _mm512_sub_epi32(a, b);
}

#include "kernels/cpu/vec/vec_common.h"

#endif
