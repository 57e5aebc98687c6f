/* Quantized KV (kv_vector.h) to floats without instructions for it: LANES elements, without their
 * scale, of fp8 in units of its own. The words that kv_widen_body.h is written in. */
#ifndef KERNELS_CPU_VEC_KV_PORTABLE_H
#define KERNELS_CPU_VEC_KV_PORTABLE_H

#include "kernels/cpu/vec/vec_portable.h"

INLINE vec vec_load_int8(const void *p)
{
    int8_t b[4];
    memcpy(b, p, sizeof b);
    return (vec){b[0], b[1], b[2], b[3]};
}
INLINE vec vec_load_int4(const void *p)
{
    uint8_t b[2];
    memcpy(b, p, sizeof b);
    ivec v = {b[0] & 15, b[0] >> 4, b[1] & 15, b[1] >> 4};
    return __builtin_convertvector(v, vec);
}
/* What vec_load_fp8_units() is to be multiplied by. Not 2^120, which it does itself: scales could
 * not be multiplied by that. */
#define KV_FP8_UNIT 1.0f
INLINE vec vec_load_fp8_units(const void *p)
{
    uint8_t b[4];
    memcpy(b, p, sizeof b);
    ivec v = {b[0], b[1], b[2], b[3]};
    return (vec)((v & 0x7f) << 20 | (v & 0x80) << 24) * vec_set1(0x1p120f);
}

#endif
