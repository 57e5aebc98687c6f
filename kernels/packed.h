/* Weights of small integers, packed once for instructions that multiply bytes.
 *
 *   element [n, k] = scale[n, k / group] * (value(q) - zero) + min[n, k / group]
 *
 * q has 4 or 8 bits; value(q) is q, or the entry of a table of 16. Rows stand in panels of
 * PACKED_ROWS, columns in spans of PACKED_SPAN (both padded with zeros): a span of a panel is 8
 * steps of [PACKED_ROWS][4 columns] bytes, two of them to each byte where q has 4 bits, the first
 * in the low halves. So one vector of a step holds, for each output, what four adjacent inputs are
 * multiplied with: a decoding row and a tile of a prompt read the same bytes in the same order. The
 * spans of a panel lie one after the other; so do its scales, [groups][PACKED_ROWS], and its mins.
 *
 * Where groups are of columns that do not lie side by side, columns are put in another order first,
 * and rows of x are quantized in that order (op_quantize.order). "Place" below is after that.
 *
 * Scales and mins are fp16 where that loses nothing that matters (formats have them in fp16, or
 * made of parts in fp16), else fp32.
 *
 * Owner: who made the memory. Read-only once packed: any thread.
 */
#ifndef KERNELS_PACKED_H
#define KERNELS_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/dtype.h"

#define PACKED_ROWS 16
#define PACKED_SPAN 32
#define PACKED_ALIGN 64

struct packed {
    int32_t rows, cols;
    int32_t bits;  /* 4 or 8 */
    int32_t group; /* elements of a row to a scale: 16, a multiple of PACKED_SPAN, or cols */
    int32_t zero;
    bool has_min, has_table, has_order;
    uint8_t table[16];
    enum dtype scale_type; /* fp16 or fp32, of mins too */
    const uint8_t *q;      /* [panels][spans][PACKED_SPAN * PACKED_ROWS * bits / 8] */
    const void *scales;    /* [panels][groups][PACKED_ROWS] */
    const void *mins;      /* the same, or NULL */
    const int32_t *order;  /* [cols] the column at each place, or NULL: in order */
};

/* Whether such groups can be packed. */
bool packed_takes(int32_t bits, int32_t group, int32_t cols);

static inline size_t packed_panels(const struct packed *p)
{
    return ((size_t)p->rows + PACKED_ROWS - 1) / PACKED_ROWS;
}
static inline size_t packed_spans(const struct packed *p)
{
    return ((size_t)p->cols + PACKED_SPAN - 1) / PACKED_SPAN;
}
static inline size_t packed_groups(const struct packed *p)
{
    return ((size_t)p->cols + (size_t)p->group - 1) / (size_t)p->group;
}
/* Whether two adjacent spans are of one group, so that they can be added up as integers with rows
 * of x that have one scale for both (struct rows8). */
static inline bool packed_pairs(const struct packed *p)
{
    return p->group % (2 * PACKED_SPAN) == 0 || p->group == p->cols;
}
/* Bytes of the spans of a panel. */
static inline size_t packed_panel_bytes(const struct packed *p)
{
    return packed_spans(p) * PACKED_SPAN * PACKED_ROWS * (size_t)p->bits / 8;
}
/* Memory that a matrix of this form takes, and where in it (aligned to PACKED_ALIGN) its parts are:
 * sets q, scales, mins and order. */
size_t packed_bytes(const struct packed *p);
void packed_place(struct packed *p, void *memory);

/* Rows [first, first + n) of a panel as integers, n up to PACKED_ROWS: q [n][cols], columns as they
 * are without `order`, which is there before; scale and min [n][groups]. */
struct packed_rows {
    size_t first, n; /* first: a multiple of PACKED_ROWS */
    const uint8_t *q;
    const float *scale, *min;
};
/* Writes a panel to the memory of packed_place(). */
void packed_put(const struct packed *p, const struct packed_rows *rows);
/* Whether fp16 holds n scales or mins to the precision of its normal numbers. */
bool packed_fits_f16(const float *v, size_t n);

float packed_element(const struct packed *p, size_t row, size_t place);
/* Columns where they belong. */
void packed_read_row(const struct packed *p, size_t row, float *out); /* [cols] */

#endif
