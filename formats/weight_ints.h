/* A weight as the integers that it is stored as, for kernels that multiply those and not floats.
 *
 * The same rows as weight_read_rows() gives, before their scales are applied:
 *
 *     element [r, c] = scale[r][c / group] * value(q[r][c]) + min[r][c / group]
 *
 * where value(q) is q - zero, or table[q] - zero where there is a table. Of columns that were
 * reordered by activation, element [r, order[k]] has scale[r][k / group] and min[r][k / group]. A
 * format of 5 or 6 bits comes as 8, one of 2 or 3 as 4. Computed in fp32 this gives exactly what
 * weight_read_rows() does where no min is added (but for the sign of a zero); with a min, what
 * rounding scale * value and min by themselves costs, which for scales in half precision is
 * nothing.
 *
 * Thread: any number at once, as for weight_read_rows().
 *
 *     struct weight_ints f;
 *     if (weight_as_ints(w, &f))
 *         weight_read_ints(w, r0, r1, q, scale, f.has_min ? min : NULL);
 */
#ifndef FORMATS_WEIGHT_INTS_H
#define FORMATS_WEIGHT_INTS_H

#include <stdbool.h>
#include <stdint.h>

struct weight;

struct weight_ints {
    int bits;             /* 4 or 8: q < 2^bits */
    int32_t group;        /* columns to a scale, at most cols; the last group may be shorter */
    int32_t zero;         /* of the format, the same for the whole weight */
    bool has_min;         /* false: every min is 0 */
    const uint8_t *table; /* [16], where values are not evenly spaced (4 bits); else NULL */
    bool has_order;       /* columns of a group do not lie side by side */
};

/* Whether a weight is stored in this form, and how. GGUF: all integer types that are readable.
 * Safetensors: MXFP4, AWQ, GPTQ and compressed-tensors' integers of 4 and 8 bits, but for groups by
 * activation that are not all of one size. To know `has_min` it looks through the zero points,
 * where a weight has any: not for every step. */
bool weight_as_ints(const struct weight *w, struct weight_ints *out);

/* Whether its checkpoint says that what it is multiplied with is rounded to 8 bits with one scale
 * for each token, found when the token is computed (W8A8 of compressed-tensors). */
bool weight_wants_token_bytes(const struct weight *w);

/* Rows [r0, r1) of a weight that weight_as_ints() has said yes to: q [rows][cols], scale and min
 * [rows][ceil(cols / group)]; r0 <= r1 <= rows, asserted. `min` may be NULL where there are none;
 * else it is written, zeros too. */
void weight_read_ints(const struct weight *w, uint64_t r0, uint64_t r1, uint8_t *q, float *scale,
                      float *min);

/* Columns, group after group and ascending within one: order [cols], of a weight that has_order. */
void weight_read_order(const struct weight *w, int32_t *order);

#endif
