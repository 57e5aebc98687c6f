/* Bytes of weights: the words that packed_body.h (dot products of four in each lane) and fp8_body.h
 * are written in.
 *
 * byte_vec: LANES * 4 unsigned bytes of weights; bytes_w: the same made ready to be multiplied;
 * bytes_x: four signed bytes of a row of x, for all lanes. Sums are exact, so every body gives the
 * same integers. AVX-512 alone takes even and odd bytes apart, but of few bits, which need not be;
 * with VNNI one instruction does it.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_VEC_BYTES_AVX512_H
#define KERNELS_CPU_VEC_BYTES_AVX512_H

#include "kernels/cpu/vec/vec_avx512.h"

#define BYTES_ROWS 4 /* register tile: rows of x by panels */
#define BYTES_PANELS 2

typedef __m512i byte_vec;

INLINE ivec ivec_set1(int32_t v)
{
    return _mm512_set1_epi32(v);
}
INLINE byte_vec bytes_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
/* The low and the high half of each byte. */
INLINE byte_vec bytes_low(byte_vec b)
{
    return _mm512_and_si512(b, _mm512_set1_epi8(15));
}
INLINE byte_vec bytes_high(byte_vec b)
{
    return _mm512_and_si512(_mm512_srli_epi16(b, 4), _mm512_set1_epi8(15));
}
INLINE byte_vec bytes_lookup(byte_vec b, const uint8_t *table)
{
    __m128i t = _mm_loadu_si128((const __m128i *)table);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), b);
}
INLINE int32_t bytes_four(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return four;
}
/* LANES numbers within a byte's range. */
INLINE void bytes_store(int8_t *to, ivec v)
{
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(v));
}

/* Sums of 64 bytes, 16 each. */
#define BYTES_SUM
INLINE void bytes_sum(const int8_t *q, int32_t *sum)
{
    const __m512i bias = _mm512_set1_epi8((char)0x80); /* 128 more in each of 16 */
    const __m512i eight =
        _mm512_sad_epu8(_mm512_xor_si512(_mm512_loadu_si512(q), bias), _mm512_setzero_si512());
    const __m512i both = _mm512_add_epi64(eight, _mm512_bsrli_epi128(eight, 8));
    const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_si128((__m128i *)sum,
                     _mm_sub_epi32(_mm512_castsi512_si128(_mm512_permutexvar_epi32(places, both)),
                                   _mm_set1_epi32(2048)));
}

#if defined(__AVX512VNNI__)
typedef __m512i bytes_w;
typedef __m512i bytes_x;
INLINE bytes_w bytes_w_of(byte_vec b)
{
    return b;
}
INLINE bytes_x bytes_x_of(const int8_t *x)
{
    return _mm512_set1_epi32(bytes_four(x));
}
INLINE ivec bytes_dot(ivec sum, bytes_w w, bytes_x x)
{
    return _mm512_dpbusd_epi32(sum, w, x);
}
#else
typedef struct {
    __m512i even, odd;
} bytes_w;
typedef bytes_w bytes_x;
INLINE bytes_w bytes_w_of(byte_vec b)
{
    return (bytes_w){_mm512_and_si512(b, _mm512_set1_epi16(255)), _mm512_srli_epi16(b, 8)};
}
INLINE bytes_x bytes_x_of(const int8_t *x)
{
    __m512i v = _mm512_set1_epi32(bytes_four(x));
    return (bytes_x){_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), _mm512_srai_epi16(v, 8)};
}
INLINE ivec bytes_dot(ivec sum, bytes_w w, bytes_x x)
{
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(w.even, x.even));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(w.odd, x.odd));
}
/* Sums of pairs in 16 bits: `w` of few bits, see packed_body.h. */
#define BYTES_CHAIN
INLINE byte_vec chain_zero(void)
{
    return _mm512_setzero_si512();
}
INLINE byte_vec chain_x_of(const int8_t *x)
{
    return _mm512_set1_epi32(bytes_four(x));
}
INLINE byte_vec chain_dot(byte_vec sum, byte_vec w, byte_vec x)
{
    return _mm512_add_epi16(sum, _mm512_maddubs_epi16(w, x));
}
INLINE ivec chain_sum(ivec sum, byte_vec chain)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(chain, _mm512_set1_epi16(1)));
}
#endif

/* Of each four bytes the one that begins with bit `at` (0, 8, 16, 24), less `zero`; the entry of
 * `table` that the four bits from `at` on stand for, all in one byte. */
INLINE vec bytes_floats(byte_vec b, int at, int32_t zero)
{
    const ivec byte = _mm512_and_si512(_mm512_srli_epi32(b, (unsigned)at), ivec_set1(255));
    return vec_of_int(vec_sub_int(byte, ivec_set1(zero)));
}
INLINE vec bytes_entries(byte_vec b, int at, const float table[16])
{
    return _mm512_permutexvar_ps(_mm512_srli_epi32(b, (unsigned)at), vec_load(table));
}

/* FP8 (e4m3, but for NaN) as fp16 of another bias: times FP8_UNIT it is what it stands for. */
INLINE vec vec_load_fp8(const uint8_t *p)
{
    __m256i h = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)), 7);
    h = _mm256_add_epi16(h, _mm256_and_si256(h, _mm256_set1_epi16(0x4000))); /* the sign, up */
    return _mm512_cvtph_ps(h);
}

/* 64 of them as a panel has them (kernels/panels.h), which are no NaN, to two lines of pairs of
 * bf16. */
#if defined(__AVX512VBMI__)
#define FP8_ROW(v) v, v, v, v, v, v, v, v
#define FP8_LOW(odd)                                                                               \
    odd, odd + 0x10, odd + 0x20, odd + 0x30, odd + 0x40, odd + 0x50, odd + 0x60, odd + 0x70
#define FP8_LOWS FP8_LOW(0x80), FP8_LOW(0)
/* Both bytes of each are looked up by the seven bits without the sign. */
INLINE void bytes_fp8_pairs(__m512i q, __m512i *first, __m512i *second)
{
    static const uint8_t high[128] = {
        0,           0x3b,        0x3b,        0x3b,        0x3c,        0x3c,
        0x3c,        0x3c,        FP8_ROW(60), FP8_ROW(61), FP8_ROW(61), FP8_ROW(62),
        FP8_ROW(62), FP8_ROW(63), FP8_ROW(63), FP8_ROW(64), FP8_ROW(64), FP8_ROW(65),
        FP8_ROW(65), FP8_ROW(66), FP8_ROW(66), FP8_ROW(67), FP8_ROW(67)};
    static const uint8_t low[128] = {0,        0,        0x80,     0xc0,         0,        0x20,
                                     0x40,     0x60,     FP8_LOWS, FP8_LOWS,     FP8_LOWS, FP8_LOWS,
                                     FP8_LOWS, FP8_LOWS, FP8_LOWS, FP8_LOW(0x80)};
    __m512i h =
        _mm512_permutex2var_epi8(_mm512_loadu_si512(high), q, _mm512_loadu_si512(high + 64));
    __m512i l = _mm512_permutex2var_epi8(_mm512_loadu_si512(low), q, _mm512_loadu_si512(low + 64));
    h = _mm512_ternarylogic_epi64(h, q, _mm512_set1_epi8((char)0x80), 0xf8); /* the sign */
    *first = _mm512_unpacklo_epi8(l, h);
    *second = _mm512_unpackhi_epi8(l, h);
}
#else
/* A byte in each word, the upper half zeros: the exponent's bias is moved, and of numbers below the
 * normal ones, which are eight, the fraction is looked up. */
INLINE __m512i bytes_fp8_widen(__m512i b)
{
    static const uint16_t below[32] = {0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};
    const __m512i sign = _mm512_slli_epi16(b, 8), bits = _mm512_slli_epi16(b, 4);
    __m512i v = _mm512_add_epi16(_mm512_and_si512(bits, _mm512_set1_epi16(0x7f0)),
                                 _mm512_set1_epi16(0x3c00));
    v = _mm512_mask_permutexvar_epi16(v, _mm512_testn_epi16_mask(b, _mm512_set1_epi16(0x78)), b,
                                      _mm512_loadu_si512(below));
    return _mm512_ternarylogic_epi64(v, sign, _mm512_set1_epi16((short)0x8000), 0xf8);
}
INLINE void bytes_fp8_pairs(__m512i q, __m512i *first, __m512i *second)
{
    const __m512i none = _mm512_setzero_si512();
    *first = bytes_fp8_widen(_mm512_unpacklo_epi8(q, none));
    *second = bytes_fp8_widen(_mm512_unpackhi_epi8(q, none));
}
#endif

#endif
