/* Four-byte dot products without instructions for them. See bytes_avx512.h for the words. */
#ifndef KERNELS_CPU_VEC_BYTES_PORTABLE_H
#define KERNELS_CPU_VEC_BYTES_PORTABLE_H

#include "kernels/cpu/vec/vec_portable.h"

#define BYTES_ROWS 2
#define BYTES_PANELS 1

typedef struct {
    uint8_t q[16];
} byte_vec;
typedef struct {
    ivec at[4];
} bytes_w;
typedef struct {
    ivec at[4];
} bytes_x;

INLINE ivec ivec_set1(int32_t v)
{
    return (ivec){v, v, v, v};
}
INLINE byte_vec bytes_load(const uint8_t *p)
{
    byte_vec b;
    memcpy(b.q, p, sizeof b.q);
    return b;
}
INLINE byte_vec bytes_low(byte_vec b)
{
    for (int i = 0; i < 16; i++)
        b.q[i] &= 15;
    return b;
}
INLINE byte_vec bytes_high(byte_vec b)
{
    for (int i = 0; i < 16; i++)
        b.q[i] >>= 4;
    return b;
}
INLINE byte_vec bytes_lookup(byte_vec b, const uint8_t *table)
{
    for (int i = 0; i < 16; i++)
        b.q[i] = table[b.q[i] & 15];
    return b;
}
INLINE bytes_w bytes_w_of(byte_vec b)
{
    bytes_w w;
    for (int j = 0; j < 4; j++)
        w.at[j] = (ivec){b.q[j], b.q[4 + j], b.q[8 + j], b.q[12 + j]};
    return w;
}
INLINE bytes_x bytes_x_of(const int8_t *x)
{
    bytes_x v;
    for (int j = 0; j < 4; j++)
        v.at[j] = ivec_set1(x[j]);
    return v;
}
INLINE ivec bytes_dot(ivec sum, bytes_w w, bytes_x x)
{
    for (int j = 0; j < 4; j++)
        sum += w.at[j] * x.at[j];
    return sum;
}
INLINE void bytes_store(int8_t *to, ivec v)
{
    for (int i = 0; i < LANES; i++)
        to[i] = (int8_t)v[i];
}

INLINE vec bytes_floats(byte_vec b, int at, int32_t zero)
{
    vec v;
    for (int i = 0; i < LANES; i++)
        v[i] = (float)(b.q[4 * i + at / 8] - zero);
    return v;
}
INLINE vec bytes_entries(byte_vec b, int at, const float table[16])
{
    vec v;
    for (int i = 0; i < LANES; i++)
        v[i] = table[b.q[4 * i + at / 8] >> at % 8 & 15];
    return v;
}

INLINE vec vec_load_fp8(const uint8_t *p)
{
    uint16_t h[4];
    for (int i = 0; i < 4; i++)
        h[i] = (uint16_t)((p[i] & 0x7f) << 7 | (p[i] & 0x80) << 8);
    return vec_from_f16(h);
}

#endif
