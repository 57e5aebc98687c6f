/* What gemms in tiles, and by panels, do with op_gemm.unit: sums of two products become a gated
 * unit's outputs, and are never anything else in memory. */
#ifndef KERNELS_CPU_GEMM_UNIT_BODY_H
#define KERNELS_CPU_GEMM_UNIT_BODY_H

#include "kernels/cpu/rows/glu_body.h"

/* A row's sums of one panel of both matrices. */
INLINE void unit_write(const struct op_gemm *op, const float *gate_sum, const float *up_sum,
                       size_t row, size_t panel)
{
    const struct gemm_unit *u = op->unit;
    const size_t rows = (size_t)op->w->rows, col = panel * PACKED_ROWS, left = rows - col;
    const size_t stride = (size_t)(op->out_stride ? op->out_stride : op->w->rows);
    const int n = left < PACKED_ROWS ? (int)left : PACKED_ROWS;
    vec gate = vec_load(gate_sum), up = vec_load(up_sum);
    if (op->bias)
        gate = gate + vec_load_n(op->bias + col, n);
    if (u->up_bias)
        up = up + vec_load_n(u->up_bias + col, n);
    const vec v = glu_vec(u->kind, (struct glu_shape){u->limit, u->alpha}, gate, up);
    if (!u->out16) {
        vec_store_n(op->out + row * stride + col, v, n);
        return;
    }
    uint16_t *out = u->out16 + row * rows16_stride(op->w->rows);
    vec_store_bf16_n(out + col, v, n);
    if (col + (size_t)n == rows) /* behind the last, zeros up to a whole span */
        memset(out + rows, 0, (PACKED_SPAN - rows % PACKED_SPAN) % PACKED_SPAN * sizeof *out);
}

#endif
