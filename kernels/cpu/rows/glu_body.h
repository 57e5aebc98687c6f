/* What a gated unit computes (op_glu), compiled once per instruction set (see cpu.h). */
#ifndef KERNELS_CPU_ROWS_GLU_BODY_H
#define KERNELS_CPU_ROWS_GLU_BODY_H

#include <math.h>

#include "kernels/ops.h"

INLINE vec sigmoid_vec(vec x)
{
    return vec_set1(1.0f) / (vec_set1(1.0f) + vec_exp(vec_zero() - x));
}

static vec gelu_vec(vec x)
{
    float v[LANES];
    vec_store(v, x);
    for (int i = 0; i < LANES; i++)
        v[i] = 0.5f * v[i] * (1.0f + erff(v[i] * 0.70710678f));
    return vec_load(v);
}

struct glu_shape {
    float limit, alpha; /* of GLU_CLAMPED */
};

INLINE vec glu_vec(enum glu_kind kind, struct glu_shape a, vec gate, vec up)
{
    vec cube, one = vec_set1(1.0f), top = vec_set1(a.limit);
    switch (kind) {
    case GLU_SILU:
        return gate / (one + vec_exp(vec_zero() - gate)) * up;
    case GLU_GELU_TANH: /* (1 + tanh(u)) / 2 = sigmoid(2u) */
        cube = gate * gate * gate;
        return gate * sigmoid_vec(vec_set1(1.5957691216f) * (gate + vec_set1(0.044715f) * cube)) *
               up;
    case GLU_GELU:
        return gelu_vec(gate) * up;
    default:
        gate = vec_min(top, gate);
        up = vec_max(vec_zero() - top, vec_min(top, up));
        return gate * sigmoid_vec(vec_set1(a.alpha) * gate) * (up + one);
    }
}

#endif
