#include <assert.h>

#include "kernels/ref/ref.h"

/* An FP8 element is exact before it is scaled; what is added up has not been rounded then. */
static double element(const struct matrix *w, size_t row, size_t col)
{
    if (!w->fp8)
        return (double)ref_element(w, row, col);
    return (double)fp8_scales(w->fp8, row)[col / (size_t)w->fp8->col_block] *
           (double)fp8_to_f32(matrix_fp8_at(w, row, col));
}

static double input(const struct op_gemm *a, size_t row, size_t m, size_t k)
{
    if (a->x16)
        return (double)dtype_bf16_to_f32(a->x16[m * rows16_stride(a->w->cols) + k]);
    if (!matrix_reads_bytes(a->w))
        return (double)a->x[row + k];
    const struct rows8 x = rows8_from(a->x8, m);
    return (double)x.scale[k / PACKED_SPAN] * x.q[k];
}

void ref_gemm(const struct op_gemm *a, int part, int parts)
{
    assert(!a->unit);
    size_t k_count = (size_t)a->w->cols;
    size_t x_stride = ref_stride(a->x_stride, a->w->cols);
    size_t out_stride = ref_stride(a->out_stride, a->w->rows);
    int32_t begin, end;
    ref_split((a->end ? a->end : a->w->rows) - a->first, part, parts, &begin, &end);
    for (size_t n = (size_t)(a->first + begin); n < (size_t)(a->first + end); n++)
        for (size_t m = 0; m < (size_t)a->tokens; m++) {
            float *out = &a->out[m * out_stride + n];
            double sum = 0;
            for (size_t k = 0; k < k_count; k++)
                sum += input(a, m * x_stride, m, k) * element(a->w, n, k);
            if (a->bias)
                sum += (double)a->bias[n];
            if (a->scale != 0)
                sum *= (double)a->scale;
            if (a->accumulate)
                sum += (double)*out;
            *out = (float)sum;
        }
}
