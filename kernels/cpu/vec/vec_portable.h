/* The vector vocabulary in GNU C vectors of 4 floats: SSE2, NEON or whatever the compiler has. No
 * fused multiply-add, so that the result does not depend on the machine. See vec_avx512.h for the
 * same words; *_n touch only n elements and read the rest as zero.
 *
 * It is over 150 lines because a body has one vocabulary. */
#ifndef KERNELS_CPU_VEC_VEC_PORTABLE_H
#define KERNELS_CPU_VEC_VEC_PORTABLE_H

#include <string.h>

#include "kernels/cpu/cpu.h"

#define BODY_NAME "portable"
#define BODY(name) name##_portable
#define INLINE static inline __attribute__((always_inline))
#define LANES 4
#define DOT_ROWS 4 /* register tile of dot products: rows of x by rows of w */
#define DOT_COLS 2
#define DOT_TALL 4 /* of many rows */
#define DOT_TALL_COLS 2
#define DOT_IN_TURN SIZE_MAX
#define MIX_ROWS 2 /* register tile of weighted sums: rows by vectors */
#define MIX_VECS 2

typedef float vec __attribute__((vector_size(16)));
typedef int32_t ivec __attribute__((vector_size(16)));

INLINE vec vec_set1(float v)
{
    return (vec){v, v, v, v};
}
INLINE vec vec_zero(void)
{
    return vec_set1(0);
}
INLINE vec vec_load(const void *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE vec vec_load_n(const void *p, int n)
{
    vec v = vec_zero();
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}
INLINE void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}
INLINE void vec_store_n(float *p, vec v, int n)
{
    memcpy(p, &v, (size_t)n * sizeof(float));
}
INLINE vec vec_select(ivec mask, vec yes, vec no)
{
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}
/* As the hardware's: the second operand where either is NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return vec_select(a > b, a, b);
}
INLINE vec vec_min(vec a, vec b)
{
    return vec_select(a < b, a, b);
}
INLINE vec vec_kept(vec v) /* where it is kept the compiler knows best */
{
    return v;
}
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return a * b + c;
}
INLINE float vec_reduce_add(vec v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}
INLINE float vec_reduce_max(vec v)
{
    vec a = vec_max(v, (vec){v[2], v[3], v[0], v[1]});
    return a[0] > a[1] ? a[0] : a[1];
}
/* out[i] = vec_reduce_add(v[i]), bit for bit, four at a time */
INLINE void vec_reduce_add4(float *out, const vec *v)
{
    for (int i = 0; i < 4; i++)
        out[i] = vec_reduce_add(v[i]);
}
INLINE vec vec_from_bf16(const uint16_t h[4])
{
    ivec v = {h[0], h[1], h[2], h[3]};
    return (vec)(v << 16);
}
INLINE vec vec_from_f16(const uint16_t h[4])
{
    ivec v = {h[0], h[1], h[2], h[3]};
    ivec magnitude = v & 0x7fff;
    vec scaled = (vec)(magnitude << 13) * vec_set1(0x1p112f);
    ivec special = (magnitude > 0x7bff) & 0x7f800000; /* infinities and NaNs */
    return (vec)((ivec)scaled | special | (v & 0x8000) << 16);
}
INLINE vec vec_load_bf16(const void *p)
{
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return vec_from_bf16(h);
}
/* The even or odd ones of 2 * LANES elements. */
INLINE vec vec_even(const float *p)
{
    return (vec){p[0], p[2], p[4], p[6]};
}
INLINE vec vec_odd(const float *p)
{
    return (vec){p[1], p[3], p[5], p[7]};
}
/* out[2 i] = even[i], out[2 i + 1] = odd[i] */
INLINE void vec_store_both(float *out, vec even, vec odd)
{
    vec_store(out, (vec){even[0], odd[0], even[1], odd[1]});
    vec_store(out + LANES, (vec){even[2], odd[2], even[3], odd[3]});
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the even one of a pair is its lower half");
/* Pairs of bf16, one in each lane: 2 * LANES elements, or the
 * `left` ones that there are; and their even or odd ones. */
INLINE vec vec_load_pairs(const void *p, int left)
{
    vec v = {0};
    if (left >= 2 * LANES)
        memcpy(&v, p, sizeof v);
    else if (left == LANES)
        memcpy(&v, p, LANES * sizeof(uint16_t));
    else
        memcpy(&v, p, (size_t)left * sizeof(uint16_t));
    return v;
}
INLINE vec vec_even_of(vec pairs)
{
    return (vec)((ivec)pairs << 16);
}
INLINE vec vec_odd_of(vec pairs)
{
    return (vec)((ivec)pairs & (int32_t)0xffff0000);
}
INLINE vec vec_load_bf16_n(const void *p, int n)
{
    uint16_t h[4] = {0};
    memcpy(h, p, (size_t)n * sizeof h[0]);
    return vec_from_bf16(h);
}
INLINE vec vec_load_f16(const void *p)
{
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return vec_from_f16(h);
}
INLINE vec vec_load_f16_n(const void *p, int n)
{
    uint16_t h[4] = {0};
    memcpy(h, p, (size_t)n * sizeof h[0]);
    return vec_from_f16(h);
}
/* The other way around: element j of vector i becomes element i of vector j. */
INLINE void vec_transpose(vec v[LANES])
{
    vec a = v[0], b = v[1], c = v[2], d = v[3];
    for (int i = 0; i < LANES; i++)
        v[i] = (vec){a[i], b[i], c[i], d[i]};
}
/* Sums over the lanes of LANES vectors, lanes 2 apart first: lane j is the sum of vector j. */
#define SUM_GROUP LANES
INLINE vec vec_sum_group(const vec v[SUM_GROUP])
{
    vec t[LANES] = {v[0], v[1], v[2], v[3]};
    vec_transpose(t);
    return (t[0] + t[2]) + (t[1] + t[3]);
}
INLINE vec vec_sum_groups(const vec v[LANES / SUM_GROUP])
{
    return v[0];
}
/* Nearest integers of |v| < 2^22, and 2^k for -126 <= k <= 127. */
INLINE ivec vec_round(vec v)
{
    vec shifted = v + vec_set1(0x1.8p23f);
    return (ivec)shifted - (ivec)vec_set1(0x1.8p23f);
}
INLINE vec vec_of_int(ivec v)
{
    return __builtin_convertvector(v, vec);
}
INLINE vec vec_pow2(ivec k)
{
    return (vec)((k + 127) << 23);
}
INLINE ivec vec_half_int(ivec k)
{
    return k >> 1;
}
INLINE ivec vec_sub_int(ivec a, ivec b)
{
    return a - b;
}

#include "kernels/cpu/vec/vec_common.h"

#endif
