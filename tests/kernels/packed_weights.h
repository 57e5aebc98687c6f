/* Packed weights of every form, and what they stand for, for tests of the products by them.
 * Owner: weights_make() gives what weights_free() frees. Thread: any. */
#ifndef TESTS_KERNELS_PACKED_WEIGHTS_H
#define TESTS_KERNELS_PACKED_WEIGHTS_H

#include "kernels/kernels_util.h"
#include "kernels/packed.h"

struct form {
    int bits, group; /* group 0: a whole row */
    int zero;
    bool min, table, wide; /* wide: scales that fp16 does not hold */
    bool order;
    bool narrow; /* a table of entries that lie together */
};

static const struct form forms[] = {
    {8, 32, 128, false, false, false},
    {8, 16, 32, false, false, false},
    {8, 0, 128, false, false, true},
    {8, 128, 0, true, false, true},
    {8, 32, 0, true, false, false},
    {8, 64, 128, false, false, false},
    {4, 32, 8, false, false, false},
    {4, 16, 0, true, false, false},
    {4, 128, 0, true, false, false},
    {4, 0, 8, false, false, true},
    {4, 32, 128, false, true, false},
    {4, 16, 128, false, true, false},
    {4, 64, 8, true, false, false, true},
    {8, 32, 128, false, false, false, true},
    {4, 32, 128, .table = true, .narrow = true},
    {4, 16, 100, .table = true, .narrow = true},
    {4, 64, 128, .table = true, .narrow = true},
};

#define FORMS ((int)(sizeof forms / sizeof forms[0]))

struct weights {
    struct packed p;
    struct matrix m;
    void *memory;
    float *values; /* [rows][cols] */
};

/* Columns in any order. */
static KT_UNUSED int32_t *kt_order(int32_t n, uint64_t seed)
{
    int32_t *order = malloc((size_t)n * sizeof *order);
    for (int32_t i = 0; i < n; i++)
        order[i] = i;
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t k = kt_below(&seed, i + 1), last = order[i];
        order[i] = order[k];
        order[k] = last;
    }
    return order;
}

static KT_UNUSED struct weights *weights_make(const struct form *f, int rows, int cols,
                                              uint64_t seed)
{
    struct weights *made = malloc(sizeof *made),
                   w = {.p = {.rows = rows,
                              .cols = cols,
                              .bits = f->bits,
                              .group = f->group ? f->group : cols,
                              .zero = f->zero,
                              .has_min = f->min,
                              .has_table = f->table,
                              .has_order = f->order,
                              .scale_type = f->wide ? DTYPE_F32 : DTYPE_F16}};
    size_t n = (size_t)rows * (size_t)cols, groups = packed_groups(&w.p);
    uint8_t *q = malloc(n);
    float *scale = malloc((size_t)rows * groups * sizeof *scale);
    float *min = malloc((size_t)rows * groups * sizeof *min);
    for (int i = 0; i < 16; i++)
        w.p.table[i] = (uint8_t)(f->narrow ? 112 + kt_below(&seed, 33) : kt_below(&seed, 256));
    for (size_t i = 0; i < n; i++)
        q[i] = (uint8_t)kt_below(&seed, 1 << f->bits);
    for (size_t i = 0; i < (size_t)rows * groups; i++) {
        scale[i] = kt_uniform(&seed) * 0.01f;
        min[i] = kt_uniform(&seed);
        if (!f->wide) {
            scale[i] = dtype_f16_to_f32(dtype_f32_to_f16(scale[i]));
            min[i] = dtype_f16_to_f32(dtype_f32_to_f16(min[i]));
        }
    }
    cr_assert(packed_takes(w.p.bits, w.p.group, cols));
    w.memory = aligned_alloc(PACKED_ALIGN, packed_bytes(&w.p));
    memset(w.memory, 0xff, packed_bytes(&w.p));
    packed_place(&w.p, w.memory);
    int32_t *order = kt_order(cols, seed);
    if (f->order)
        memcpy((int32_t *)(uintptr_t)w.p.order, order, (size_t)cols * sizeof *order);
    for (size_t r = 0; r < (size_t)rows; r += PACKED_ROWS) {
        size_t left = (size_t)rows - r;
        packed_put(&w.p, &(struct packed_rows){.first = r,
                                               .n = left < PACKED_ROWS ? left : PACKED_ROWS,
                                               .q = q + r * (size_t)cols,
                                               .scale = scale + r * groups,
                                               .min = min + r * groups});
    }
    w.values = malloc(n * sizeof *w.values);
    for (size_t k = 0; k < n; k++) {
        size_t g = k / (size_t)cols * groups + k % (size_t)cols / (size_t)w.p.group;
        size_t i = f->order ? k - k % (size_t)cols + (size_t)order[k % (size_t)cols] : k;
        int value = f->table ? w.p.table[q[i]] : q[i];
        w.values[i] = scale[g] * (float)(value - f->zero) + (f->min ? min[g] : 0);
    }
    w.m = (struct matrix){.rows = rows, .cols = cols, .packed = &made->p};
    free(order);
    free(q);
    free(scale);
    free(min);
    *made = w;
    return made;
}

static KT_UNUSED void weights_free(struct weights *w)
{
    free(w->memory);
    free(w->values);
    free(w);
}

#endif
