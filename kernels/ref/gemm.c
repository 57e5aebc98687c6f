#include "kernels/ref/ref.h"

static double input(const struct op_gemm *a, size_t row, size_t m, size_t k)
{
    if (a->x16)
        return (double)dtype_bf16_to_f32(a->x16[m * rows16_stride(a->w->cols) + k]);
    if (!a->w->packed)
        return (double)a->x[row + k];
    const struct rows8 x = rows8_from(a->x8, m);
    return (double)x.scale[k / PACKED_SPAN] * x.q[k];
}

void ref_gemm(const struct op_gemm *a, int part, int parts)
{
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
                sum += input(a, m * x_stride, m, k) * (double)ref_element(a->w, n, k);
            if (a->bias)
                sum += (double)a->bias[n];
            if (a->scale != 0)
                sum *= (double)a->scale;
            if (a->accumulate)
                sum += (double)*out;
            *out = (float)sum;
        }
}
