/* Element types of weights and KV, and their scalar conversions. bf16 and fp16 round to nearest
 * even. Pure.
 *
 * Types below DTYPE_COUNT are plain: elements have addresses, and every function takes them. Those
 * from there on are of KV alone: elements share scales, so that only a vector of them means
 * anything. kv_vector.h and what takes a kv_layout knows them, and dtype_name(). */
#ifndef KERNELS_DTYPE_H
#define KERNELS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_COUNT,
    DTYPE_FP8 = DTYPE_COUNT, /* e4m3, without infinities */
    DTYPE_INT8,
    DTYPE_INT4,
    DTYPE_KV_COUNT
};

size_t dtype_bytes(enum dtype d);                  /* of a plain type */
const char *dtype_name(enum dtype d);              /* "fp32" "bf16" "fp16" "fp8" "int8" "int4" */
bool dtype_parse(const char *name, enum dtype *d); /* also "float32", "bfloat16", "F32" ... */

float dtype_bf16_to_f32(uint16_t v);
uint16_t dtype_f32_to_bf16(float v);
float dtype_f16_to_f32(uint16_t v);
uint16_t dtype_f32_to_f16(float v);
/* n elements, any pair of plain types */
void dtype_convert(void *dst, enum dtype dst_type, const void *src, enum dtype src_type, size_t n);

#endif
