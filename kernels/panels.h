/* Weights of bf16 in the order in which tiles, and vectors of pairs, take them:
 *
 *     [panels of PANELS_ROWS rows][spans of PANELS_COLS columns][pairs of columns][PANELS_ROWS][2]
 *
 * rows and columns padded with zeros. A span of a panel is one tile of 16 rows of 64 bytes, and
 * one vector of it holds, for each of 16 outputs, what two adjacent inputs are multiplied with.
 *
 * Weights of FP8 likewise, but that a vector holds two pairs of columns, such that unpacking its
 * bytes gives one after the other:
 *
 *     [panels][spans][fours of columns][fours of rows][2 pairs][4 rows][2]
 *
 * Owner: who made the memory. Pure. */
#ifndef KERNELS_PANELS_H
#define KERNELS_PANELS_H

#include <stddef.h>
#include <stdint.h>

#define PANELS_ROWS 16
#define PANELS_COLS 32
#define PANELS_SPAN_BYTES ((size_t)PANELS_ROWS * PANELS_COLS * 2)

static inline size_t panels_count(int32_t rows)
{
    return ((size_t)rows + PANELS_ROWS - 1) / PANELS_ROWS;
}
static inline size_t panels_spans(int32_t cols)
{
    return ((size_t)cols + PANELS_COLS - 1) / PANELS_COLS;
}
static inline size_t panels_bytes(int32_t rows, int32_t cols)
{
    return panels_count(rows) * panels_spans(cols) * PANELS_SPAN_BYTES;
}
/* Byte of an element of a matrix with so many columns. */
static inline size_t panels_at(int32_t cols, size_t row, size_t col)
{
    size_t span = row / PANELS_ROWS * panels_spans(cols) + col / PANELS_COLS;
    size_t pair = col % PANELS_COLS / 2 * PANELS_ROWS + row % PANELS_ROWS;
    return span * PANELS_SPAN_BYTES + pair * 4 + col % 2 * 2;
}
/* The same of FP8. */
static inline size_t panels8_bytes(int32_t rows, int32_t cols)
{
    return panels_bytes(rows, cols) / 2;
}
static inline size_t panels8_at(int32_t cols, size_t row, size_t col)
{
    const size_t span = row / PANELS_ROWS * panels_spans(cols) + col / PANELS_COLS;
    const size_t four = col % PANELS_COLS / 4 * 4 + row % PANELS_ROWS / 4;
    return span * (PANELS_SPAN_BYTES / 2) + four * 16 + col % 4 / 2 * 8 + row % 4 * 2 + col % 2;
}
/* Rounds n values to columns [col, col + n) of a row. What is never put has to be zero before. */
void panels_put(void *panels, int32_t cols, size_t row, size_t col, const float *values, size_t n);
float panels_element(const void *panels, int32_t cols, size_t row, size_t col);
void panels_read_row(const void *panels, int32_t cols, size_t row, float *out); /* [cols] */
void panels8_put_row(void *panels, int32_t cols, size_t row, const uint8_t *q); /* [cols] */

#endif
