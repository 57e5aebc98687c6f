/* From the element types of checkpoints to floats, exactly as the formats define them.
 *
 * GGUF's types follow the published block layouts of ggml (all products and sums in fp32, in the
 * order of its reference); MXFP4 is OCP Microscaling Formats 1.0, FP8 is OCP 8-bit Floating Point
 * 1.0 (e4m3 has no infinity, its NaN is S.1111.111). Inputs are little-endian and may be unaligned.
 *
 * Thread: any; pure, no state. The lengths are the caller's to have checked.
 *
 *     if (dequant_ggml_known(t->type))
 *         dequant_ggml(t->type, row, cols, out);
 */
#ifndef FORMATS_DEQUANT_H
#define FORMATS_DEQUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/ggml_type.h"
#include "formats/safetensors.h"
#include "formats/weight_ints.h"

/* Whether dequant_ggml() has the type: F32 F16 BF16 F64, Q4_0 Q4_1 Q5_0 Q5_1 Q8_0, Q2_K to Q6_K,
 * IQ4_NL IQ4_XS MXFP4. */
bool dequant_ggml_known(enum ggml_type type);
/* `elements`: a multiple of the type's block. */
void dequant_ggml(enum ggml_type type, const void *blocks, size_t elements, float *out);

/* Where integers and their scales go, as weight_read_ints() has them; min may be NULL. */
struct ints_out {
    uint8_t *q;
    float *scale, *min;
};
/* The same blocks before the scales are applied; false: not integers with scales. */
bool dequant_ggml_as_ints(enum ggml_type type, struct weight_ints *out);
void dequant_ggml_ints(enum ggml_type type, const void *blocks, size_t elements,
                       struct ints_out out);

/* F64 (rounded), F32, F16, BF16, FP8 e4m3 and e5m2 (and their FNUZ forms), I8, U8, E8M0. */
bool dequant_plain_known(enum tensor_type type);
void dequant_plain(enum tensor_type type, const void *data, size_t elements, float *out);

/* gpt-oss: groups of 32 elements in 16 bytes, the even one in the low half of each byte; one e8m0
 * scale per group. */
void dequant_mxfp4_pairs(const uint8_t *blocks, const uint8_t *scales, size_t groups, float *out);
/* The same as integers, in the form that dequant_ggml_as_ints() gives for GGML_MXFP4. */
void dequant_mxfp4_pair_ints(const uint8_t *blocks, const uint8_t *scales, size_t groups,
                             struct ints_out out);

float dequant_f16(uint16_t bits);
float dequant_e8m0_half(uint8_t e); /* 2^(e-128), for 255 too */

#endif
