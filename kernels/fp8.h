/* Weights in FP8: e4m3 of OCP 8-bit Floating Point 1.0, which has no infinity, row by row as a
 * checkpoint has them or in panels (kernels/panels.h), and a grid of scales.
 *
 *   element [n, k] = scale[(first + n) / row_block][k / col_block] * q[n, k]
 *
 * A product adds up spans of FP8_SPAN columns as they are, and then each sum times its scale. Bytes
 * that stand for NaN are not looked for there: whoever loads weights refuses them.
 *
 * Owner: who made it. Read-only: any thread.
 */
#ifndef KERNELS_FP8_H
#define KERNELS_FP8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FP8_SPAN 128

struct fp8_grid {
    const float *scale; /* [grid rows][scale_cols] */
    int32_t row_block, col_block;
    int32_t first; /* row of the grid's first block that the matrix begins with */
    int32_t scale_cols;
};

/* Whether scales lie so that whole spans have one each. */
static inline bool fp8_takes(int32_t col_block, int32_t cols)
{
    return col_block > 0 && (col_block % FP8_SPAN == 0 || col_block >= cols);
}
/* Scales of a row. */
static inline const float *fp8_scales(const struct fp8_grid *g, size_t row)
{
    return g->scale + ((size_t)g->first + row) / (size_t)g->row_block * (size_t)g->scale_cols;
}

float fp8_to_f32(uint8_t q);
/* Index of the first NaN, or n. */
size_t fp8_find_nan(const uint8_t *q, size_t n);

#endif
