/* vec_exp() of one instruction set over an array, for test_exp.c. */
#ifndef TESTS_KERNELS_EXP_BODY_H
#define TESTS_KERNELS_EXP_BODY_H

#include "kernels/exp_bodies.h"

void BODY(exp_floats)(float *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(out + i, vec_exp(vec_load(x + i)));
    if (i < n)
        vec_store_n(out + i, vec_exp(vec_load_n(x + i, (int)(n - i))), (int)(n - i));
}

#endif
