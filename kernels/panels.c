#include "kernels/panels.h"

#include <string.h>

#include "kernels/dtype.h"

void panels_put(void *panels, int32_t cols, size_t row, size_t col, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t v = dtype_f32_to_bf16(values[i]);
        memcpy((char *)panels + panels_at(cols, row, col + i), &v, sizeof v);
    }
}

float panels_element(const void *panels, int32_t cols, size_t row, size_t col)
{
    uint16_t v;
    memcpy(&v, (const char *)panels + panels_at(cols, row, col), sizeof v);
    return dtype_bf16_to_f32(v);
}

void panels_read_row(const void *panels, int32_t cols, size_t row, float *out)
{
    for (size_t k = 0; k < (size_t)cols; k++)
        out[k] = panels_element(panels, cols, row, k);
}

void panels8_put_row(void *panels, int32_t cols, size_t row, const uint8_t *q)
{
    for (size_t k = 0; k < (size_t)cols; k++)
        ((uint8_t *)panels)[panels8_at(cols, row, k)] = q[k];
}
