/* A vector: one token's key or value of one head, as pools and handoffs store it.
 *
 *     fp32 bf16 fp16   dim elements
 *     fp8 int8         dim bytes, then the scale of each KV_GROUP_8 elements
 *     int4             two elements to a byte, the first in the low half; then the scale and the
 *                      least number of each KV_GROUP_4 elements
 *
 * The last group of a vector may be a short one. A vector brings its scales along, so a token's KV
 * does not depend on the tokens beside it, blocks of any size hold the same bytes, and between
 * equal types a vector is copied as it is.
 *
 * fp8, int8: scale = the group's largest magnitude over the largest element (448, 127), rounded up
 * to bf16; an element is x / scale to nearest even, and is read as element * scale. int4: the least
 * number is rounded down to bf16, scale = the way from there to the largest over 15, rounded up to
 * bf16; an element is (x - least) / scale and read as element * scale + least. The products are
 * exact in fp32, so everybody reads the same numbers. Elements are found by multiplying with
 * 1 / scale.
 *
 * A group of magnitudes below KV_VECTOR_LEAST becomes zeros. One with a NaN, or a magnitude of
 * KV_VECTOR_MOST or more, infinity included, reads as NaN as a whole. Any bytes can be read; that
 * everybody reads the same of them holds for what was written so.
 * Vectors need no alignment. Pure.
 */
#ifndef KERNELS_KV_VECTOR_H
#define KERNELS_KV_VECTOR_H

#include <string.h>

#include "kernels/dtype.h"

#define KV_GROUP_8 128
#define KV_GROUP_4 32
#define KV_VECTOR_LEAST 0x1p-100f
#define KV_VECTOR_MOST 0x1p126f

static inline bool kv_is_quantized(enum dtype d)
{
    return d >= DTYPE_COUNT;
}
/* elements that share a scale; of a quantized type */
static inline size_t kv_group(enum dtype d)
{
    return d == DTYPE_INT4 ? KV_GROUP_4 : KV_GROUP_8;
}
static inline size_t kv_codes_bytes(enum dtype d, size_t n) /* of n elements without scales */
{
    return d == DTYPE_INT4 ? (n + 1) / 2 : n;
}
/* where the scale of the group that begins at element `at` is; of int4 the least number follows */
static inline size_t kv_scale_at(enum dtype d, size_t dim, size_t at)
{
    return kv_codes_bytes(d, dim) + at / kv_group(d) * (d == DTYPE_INT4 ? 4 : 2);
}
static inline float kv_load_bf16(const void *at)
{
    uint16_t half;
    memcpy(&half, at, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
static inline size_t kv_vector_bytes(enum dtype d, size_t dim)
{
    if (!kv_is_quantized(d))
        return dim * (d == DTYPE_F32 ? 4 : 2);
    return kv_scale_at(d, dim, dim + kv_group(d) - 1);
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
