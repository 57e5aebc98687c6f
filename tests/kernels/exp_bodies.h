/* out[i] = e^x[i] as each CPU body computes it. */
#ifndef TESTS_KERNELS_EXP_BODIES_H
#define TESTS_KERNELS_EXP_BODIES_H

#include <stddef.h>

void exp_floats_portable(float *out, const float *x, size_t n);
void exp_floats_avx2(float *out, const float *x, size_t n);
void exp_floats_avx512(float *out, const float *x, size_t n);

#endif
