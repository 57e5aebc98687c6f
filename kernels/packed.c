#include "kernels/packed.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define STEP (4 * PACKED_ROWS) /* values of a step */
#define STEPS (PACKED_SPAN / 4)

bool packed_takes(int32_t bits, int32_t group, int32_t cols)
{
    return (bits == 4 || bits == 8) && cols > 0 &&
           (group == 16 || group == cols || (group > 0 && group % PACKED_SPAN == 0));
}

static size_t aligned(size_t bytes)
{
    return (bytes + PACKED_ALIGN - 1) / PACKED_ALIGN * PACKED_ALIGN;
}

static size_t q_bytes(const struct packed *p)
{
    return aligned(packed_panels(p) * packed_panel_bytes(p));
}

static size_t scale_bytes(const struct packed *p)
{
    return aligned(packed_panels(p) * packed_groups(p) * PACKED_ROWS * dtype_bytes(p->scale_type));
}

size_t packed_bytes(const struct packed *p)
{
    return q_bytes(p) + scale_bytes(p) * (p->has_min ? 2 : 1) +
           (p->has_order ? aligned((size_t)p->cols * sizeof *p->order) : 0);
}

void packed_place(struct packed *p, void *memory)
{
    char *at = memory;
    p->q = memory;
    p->scales = at += q_bytes(p);
    at += scale_bytes(p);
    p->mins = p->has_min ? at : NULL;
    at += p->has_min ? scale_bytes(p) : 0;
    p->order = p->has_order ? (const int32_t *)(const void *)at : NULL;
}

/* Where an element's byte is within its panel; *high: which half of it. */
static size_t place_of(const struct packed *p, size_t row, size_t col, bool *high)
{
    size_t span = col / PACKED_SPAN, step = col % PACKED_SPAN / 4;
    size_t within = row % PACKED_ROWS * 4 + col % 4;
    *high = p->bits == 4 && step % 2 == 1;
    step = p->bits == 4 ? step / 2 : step;
    return (span * STEPS * (size_t)p->bits / 8 + step) * STEP + within;
}

static void put_scales(const struct packed *p, const void *scales, const struct packed_rows *r,
                       const float *from)
{
    const size_t groups = packed_groups(p), size = dtype_bytes(p->scale_type);
    char *to = (char *)(uintptr_t)scales + r->first * groups * size;
    for (size_t g = 0; g < groups; g++) {
        float v[PACKED_ROWS] = {0};
        for (size_t i = 0; i < r->n; i++)
            v[i] = from[i * groups + g];
        dtype_convert(to + g * PACKED_ROWS * size, p->scale_type, v, DTYPE_F32, PACKED_ROWS);
    }
}

/* Four values of a row, zeros behind its end. */
static void take_four(const struct packed *p, const uint8_t *row, size_t k, uint8_t *four)
{
    size_t left = k < (size_t)p->cols ? (size_t)p->cols - k : 0;
    memset(four, 0, 4);
    for (size_t j = 0; p->order && j < 4 && j < left; j++)
        four[j] = row[p->order[k + j]];
    if (p->order)
        return;
    memcpy(four, row + (left ? k : 0), left < 4 ? left : 4);
}

static void put_row(const struct packed *p, uint8_t *panel, size_t i, const uint8_t *row)
{
    const size_t steps = packed_spans(p) * STEPS;
    for (size_t s = 0; s < steps; s++) {
        uint8_t four[4], *to = panel + s * STEP + i * 4;
        take_four(p, row, s * 4, four);
        if (p->bits == 4) {
            to = panel + s / 2 * STEP + i * 4;
            for (int j = 0; j < 4 && s % 2 == 1; j++)
                four[j] = (uint8_t)(to[j] | four[j] << 4);
        }
        memcpy(to, four, 4);
    }
}

void packed_put(const struct packed *p, const struct packed_rows *r)
{
    uint8_t *panel = (uint8_t *)(uintptr_t)p->q + r->first / PACKED_ROWS * packed_panel_bytes(p);
    assert(r->first % PACKED_ROWS == 0 && r->n > 0 && r->n <= PACKED_ROWS);
    if (r->n < PACKED_ROWS)
        memset(panel, 0, packed_panel_bytes(p));
    for (size_t i = 0; i < r->n; i++)
        put_row(p, panel, i, r->q + i * (size_t)p->cols);
    put_scales(p, p->scales, r, r->scale);
    if (p->has_min)
        put_scales(p, p->mins, r, r->min);
}

bool packed_fits_f16(const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(v[i]);
        if (a != 0 && !(a >= 0x1p-14f && a <= 65504.0f) &&
            dtype_f16_to_f32(dtype_f32_to_f16(v[i])) != v[i])
            return false;
    }
    return true;
}

/* The value of q. */
static int32_t value_of(const struct packed *p, size_t row, size_t col)
{
    bool high;
    size_t at = place_of(p, row, col, &high);
    uint8_t byte = p->q[row / PACKED_ROWS * packed_panel_bytes(p) + at];
    if (p->bits == 4)
        byte = high ? byte >> 4 : byte & 15;
    return p->has_table ? p->table[byte] : byte;
}

static float scale_of(const struct packed *p, const void *scales, size_t row, size_t group)
{
    size_t at = (row / PACKED_ROWS * packed_groups(p) + group) * PACKED_ROWS + row % PACKED_ROWS;
    float v;
    dtype_convert(&v, DTYPE_F32, (const char *)scales + at * dtype_bytes(p->scale_type),
                  p->scale_type, 1);
    return v;
}

float packed_element(const struct packed *p, size_t row, size_t place)
{
    size_t group = place / (size_t)p->group;
    float min = p->has_min ? scale_of(p, p->mins, row, group) : 0;
    return scale_of(p, p->scales, row, group) * (float)(value_of(p, row, place) - p->zero) + min;
}

void packed_read_row(const struct packed *p, size_t row, float *out)
{
    float scale = 0, min = 0;
    for (size_t k = 0; k < (size_t)p->cols; k++) {
        if (k % (size_t)p->group == 0) {
            scale = scale_of(p, p->scales, row, k / (size_t)p->group);
            min = p->has_min ? scale_of(p, p->mins, row, k / (size_t)p->group) : 0;
        }
        out[p->order ? (size_t)p->order[k] : k] =
            scale * (float)(value_of(p, row, k) - p->zero) + min;
    }
}
