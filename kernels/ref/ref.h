/* The reference bodies: slow, obvious, in double precision where that is clearer. Every other body
 * is tested against these. They split work by rows alone and are called like any body
 * (kernels/ops.h). */
#ifndef KERNELS_REF_REF_H
#define KERNELS_REF_REF_H

#include "kernels/ops.h"

void ref_embed(const struct op_embed *a, int part, int parts);
void ref_rmsnorm(const struct op_rmsnorm *a, int part, int parts);
void ref_quantize(const struct op_quantize *a, int part, int parts);
void ref_gemm(const struct op_gemm *a, int part, int parts);
void ref_rope(const struct op_rope *a, int part, int parts);
void ref_kv_store(const struct op_kv_store *a, int part, int parts);
void ref_attention(const struct op_attention *a, int part, int parts);
void ref_glu(const struct op_glu *a, int part, int parts);
void ref_softcap(const struct op_softcap *a, int part, int parts);
void ref_route(const struct op_route *a, int part, int parts);
void ref_combine(const struct op_combine *a, int part, int parts);

/* Elements from one row to the next: `stride`, or `dense` where it is 0. */
size_t ref_stride(int32_t stride, int32_t dense);
/* Element (row, col) of a stored matrix, widened. */
float ref_element(const struct matrix *m, size_t row, size_t col);
/* A vector of a pool: element i of it widened, and dim floats rounded to one (kv_vector.h). */
float ref_kv_element(const void *vector, enum dtype d, size_t dim, size_t i);
void ref_kv_narrow(void *vector, enum dtype d, const float *x, size_t dim);
/* Rows [*begin, *end) of `rows` that belong to `part`. */
void ref_split(int32_t rows, int part, int parts, int32_t *begin, int32_t *end);

#endif
