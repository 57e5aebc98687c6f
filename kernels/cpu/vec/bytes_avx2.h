/* Four-byte dot products in AVX2: even and odd bytes apart, so that no sum of two saturates, but of
 * few bits, where none does. See bytes_avx512.h for the words. */
#ifndef KERNELS_CPU_VEC_BYTES_AVX2_H
#define KERNELS_CPU_VEC_BYTES_AVX2_H

#include "kernels/cpu/vec/vec_avx2.h"

#define BYTES_ROWS 4
#define BYTES_PANELS 1

typedef __m256i byte_vec;
typedef struct {
    __m256i even, odd;
} bytes_w;
typedef bytes_w bytes_x;

INLINE ivec ivec_set1(int32_t v)
{
    return _mm256_set1_epi32(v);
}
INLINE byte_vec bytes_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE byte_vec bytes_low(byte_vec b)
{
    return _mm256_and_si256(b, _mm256_set1_epi8(15));
}
INLINE byte_vec bytes_high(byte_vec b)
{
    return _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi8(15));
}
INLINE byte_vec bytes_lookup(byte_vec b, const uint8_t *table)
{
    __m128i t = _mm_loadu_si128((const __m128i *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), b);
}
INLINE bytes_w bytes_w_of(byte_vec b)
{
    return (bytes_w){_mm256_and_si256(b, _mm256_set1_epi16(255)), _mm256_srli_epi16(b, 8)};
}
INLINE bytes_x bytes_x_of(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    __m256i v = _mm256_set1_epi32(four);
    return (bytes_x){_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)};
}
/* One product at a time: gcc would compute many before it adds any, and has 16 registers. */
INLINE ivec bytes_dot(ivec sum, bytes_w w, bytes_x x)
{
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.even, x.even));
    __asm__("" : "+x"(sum));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.odd, x.odd));
    __asm__("" : "+x"(sum));
    return sum;
}
/* Sums of pairs in 16 bits: `w` of few bits, see packed_body.h. */
#define BYTES_CHAIN
INLINE byte_vec chain_zero(void)
{
    return _mm256_setzero_si256();
}
INLINE byte_vec chain_x_of(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}
INLINE byte_vec chain_dot(byte_vec sum, byte_vec w, byte_vec x)
{
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
    __asm__("" : "+x"(sum));
    return sum;
}
INLINE ivec chain_sum(ivec sum, byte_vec chain)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(chain, _mm256_set1_epi16(1)));
}
INLINE void bytes_store(int8_t *to, ivec v)
{
    __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packs_epi16(h, h));
}

/* Of each four bytes the one that begins with bit `at` (0, 8, 16, 24), less `zero`; the entry of
 * `table` that the four bits from `at` on stand for, all in one byte. */
INLINE vec bytes_floats(byte_vec b, int at, int32_t zero)
{
    const ivec byte = _mm256_and_si256(_mm256_srli_epi32(b, at), ivec_set1(255));
    return vec_of_int(vec_sub_int(byte, ivec_set1(zero)));
}
INLINE vec bytes_entries(byte_vec b, int at, const float table[16])
{
    const ivec i = _mm256_srli_epi32(b, at); /* of which three bits are read, and then the fourth */
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(vec_load(table), i),
                            _mm256_permutevar8x32_ps(vec_load(table + 8), i),
                            _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}

INLINE vec vec_load_fp8(const uint8_t *p)
{
    __m128i h = _mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);
    h = _mm_add_epi16(h, _mm_and_si128(h, _mm_set1_epi16(0x4000)));
    return _mm256_cvtph_ps(h);
}

#endif
