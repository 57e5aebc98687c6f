/* A vector: one token's key or value of one head, as pools and handoffs store it.
 *
 *     fp32 bf16 fp16   dim elements
 *     fp8 int8         dim bytes, then a scale for each KV_GROUP_8 elements
 *     int4             two elements to a byte, the first in the low half; then a scale for each
 *                      KV_GROUP_4 elements
 *
 * The last group of a vector may be a short one. A vector brings its scales along, so a token's KV
 * does not depend on the tokens beside it, blocks of any size hold the same bytes, and between
 * equal types a vector is copied as it is.
 *
 * A scale is bf16: the group's largest magnitude over the largest element (fp8 448, int8 127, int4
 * 7), rounded up. Elements are x / scale to nearest even. A group of magnitudes below
 * KV_VECTOR_LEAST becomes zeros; one with an element that is no number, or infinite, has a scale
 * that is none, and reads as NaN as a whole. Element times scale is exact in fp32: everybody reads
 * the same numbers. Any bytes can be read. Vectors need no alignment. Pure.
 */
#ifndef KERNELS_KV_VECTOR_H
#define KERNELS_KV_VECTOR_H

#include <string.h>

#include "kernels/dtype.h"

#define KV_GROUP_8 128
#define KV_GROUP_4 32
#define KV_VECTOR_LEAST 0x1p-100f

static inline bool kv_is_quantized(enum dtype d)
{
    return d >= DTYPE_COUNT;
}
/* elements that share a scale; of a quantized type */
static inline size_t kv_group(enum dtype d)
{
    return d == DTYPE_INT4 ? KV_GROUP_4 : KV_GROUP_8;
}
/* where a quantized vector's scales begin */
static inline size_t kv_scales_at(enum dtype d, size_t dim)
{
    return d == DTYPE_INT4 ? (dim + 1) / 2 : dim;
}
static inline float kv_vector_scale(const char *scales, size_t group)
{
    uint16_t bf16;
    memcpy(&bf16, scales + 2 * group, sizeof bf16);
    uint32_t bits = (uint32_t)bf16 << 16;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}
static inline size_t kv_vector_bytes(enum dtype d, size_t dim)
{
    if (!kv_is_quantized(d))
        return dim * (d == DTYPE_F32 ? 4 : 2);
    return kv_scales_at(d, dim) + 2 * ((dim + kv_group(d) - 1) / kv_group(d));
}

bool kv_dtype_parse(const char *name,
                    enum dtype *d); /* as dtype_parse(), and "fp8" "int8" "int4" */
/* dim floats to a vector, and back */
void kv_vector_narrow(void *vector, enum dtype d, const float *x, size_t dim);
void kv_vector_widen(float *out, const void *vector, enum dtype d, size_t dim);
struct kv_conversion {
    enum dtype to, from;
    size_t dim;
};
/* n vectors that follow each other, any pair of types; dst and src do not overlap. */
void kv_vectors_convert(const struct kv_conversion *c, void *dst, const void *src, size_t n);

#endif
