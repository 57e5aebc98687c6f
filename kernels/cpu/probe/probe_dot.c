/* What the dot-product instructions of AVX-512 can do at most, from registers. Compiled for these
 * alone, and called only where the CPU has them. */
#include <immintrin.h>

#include "kernels/cpu/cpu.h"

#define CHAINS 12

double probe_dot_bf16(int64_t rounds)
{
    __m512 v[CHAINS];
    __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f80);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        v[i] = _mm512_set1_ps((float)i); /* equal chains would be one to the compiler */
    for (int64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            v[i] = _mm512_dpbf16_ps(v[i], x, x);
    }
    __m512 sum = _mm512_setzero_ps();
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum = _mm512_add_ps(sum, v[i]);
    volatile float sink = _mm512_cvtss_f32(sum);
    (void)sink;
    return 2.0 * 32 * CHAINS * (double)rounds;
}

double probe_dot_int8(int64_t rounds)
{
    __m512i v[CHAINS], x = _mm512_set1_epi8(1);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        v[i] = _mm512_set1_epi32(i);
    for (int64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            v[i] = _mm512_dpbusd_epi32(v[i], x, x);
    }
    __m512i sum = _mm512_setzero_si512();
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum = _mm512_add_epi32(sum, v[i]);
    volatile int sink = _mm512_cvtsi512_si32(sum);
    (void)sink;
    return 2.0 * 64 * CHAINS * (double)rounds;
}
