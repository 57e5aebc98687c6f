/* Quantized KV (kv_vector.h) to floats in AVX-512: LANES elements, without their
 * scale, of fp8 in units of its own. The words that kv_widen_body.h is written in. */
#ifndef KERNELS_CPU_VEC_KV_AVX512_H
#define KERNELS_CPU_VEC_KV_AVX512_H

#include "kernels/cpu/vec/vec_avx512.h"

INLINE vec vec_load_int8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
INLINE vec vec_load_int4(const void *p)
{
    __m128i w = _mm_cvtepu8_epi16(_mm_loadl_epi64(p)); /* a byte's halves, to a byte each */
    w = _mm_and_si128(_mm_or_si128(w, _mm_slli_epi16(w, 4)), _mm_set1_epi8(15));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(w));
}
/* What vec_load_fp8_units() is to be multiplied by; in fp16 2^-8 of an element is a shift. */
#define KV_FP8_UNIT 256.0f
INLINE vec vec_load_fp8_units(const void *p)
{
    __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);
    h = _mm256_and_si256(h, _mm256_set1_epi16((short)0xbfff));
    return _mm512_cvtph_ps(h);
}

#endif
