#include <assert.h>

#include "kernels/bench/job.h"

#define PAGE ((size_t)4096)

/* Of packed forms the bits and the group, 0: all of a row. */
static const struct {
    const char *name; /* NULL: the dtype's */
    int32_t bits, group;
    bool fp8, paired, whole, wide, mins, rows16;
    enum dtype kv; /* of what tiles alone round */
} forms[FORMS] = {
    [FORM_BF16_ROWS] = {"bf16r", .rows16 = true},
    [FORM_KV_F16_ROWS] = {"fp16r", .rows16 = true, .kv = DTYPE_F16},
    [FORM_KV_FP8_ROWS] = {"fp8r", .rows16 = true, .kv = DTYPE_FP8},
    [FORM_KV_INT8_ROWS] = {"int8r", .rows16 = true, .kv = DTYPE_INT8},
    [FORM_KV_INT4_ROWS] = {"int4r", .rows16 = true, .kv = DTYPE_INT4},
    [FORM_FP8] = {"fp8", .fp8 = true},
    [FORM_FP8_ROWS] = {"fp8r", .fp8 = true, .rows16 = true},
    [FORM_Q8] = {"q8", 8, PACKED_SPAN},
    [FORM_Q4] = {"q4", 4, PACKED_SPAN},
    [FORM_Q8_PAIRED] = {"q8p", 8, 128, .paired = true},
    [FORM_Q4_PAIRED] = {"q4p", 4, 128, .paired = true},
    [FORM_Q8_WHOLE] = {"q8w", 8, 0, .paired = true, .whole = true},
    [FORM_Q8_WIDE] = {"wide8", 8, PACKED_SPAN, .wide = true},
    [FORM_Q4_WIDE] = {"wide4", 4, PACKED_SPAN, .wide = true},
    [FORM_Q4_WIDE_MINS] = {"wide4m", 4, 128, .wide = true, .mins = true},
};

const char *bench_form_name(enum bench_form f)
{
    return forms[f].name ? forms[f].name : dtype_name((enum dtype)f);
}

enum kernels_math bench_form_math(const struct ops *o, enum bench_form f)
{
    if (forms[f].bits && !forms[f].wide)
        return KERNELS_MATH_BYTES;
    return forms[f].rows16 || (forms[f].wide && ops_wide_reads_pairs(o)) ? KERNELS_MATH_BF16
                                                                         : KERNELS_MATH_FLOAT;
}

enum dtype bench_form_kv(enum bench_form f)
{
    return f == FORM_BF16_ROWS ? DTYPE_BF16 : forms[f].kv ? forms[f].kv : (enum dtype)f;
}

bool bench_form_runs(const struct ops *o, enum bench_form f)
{
    return forms[f].kv ? o->tiles : o->round || !forms[f].rows16;
}

struct bench_weights bench_weights_of(const struct bench_job *j, int32_t rows, int32_t cols)
{
    const enum bench_form f = j->form;
    struct bench_weights w = {.matrix = {.dtype = DTYPE_BF16, .rows = rows, .cols = cols}};
    w.matrix.rounds = bench_form_math(j->ops, f) == KERNELS_MATH_BF16;
    if (f < (enum bench_form)DTYPE_COUNT)
        w.matrix.dtype = (enum dtype)f;
    w.bytes = (size_t)rows * (size_t)cols * dtype_bytes(w.matrix.dtype);
    if (f == FORM_BF16_ROWS && j->ops->panels) {
        w.matrix.panels = true;
        w.bytes = panels_bytes(rows, cols);
    } else if (forms[f].fp8) {
        /* Blocks of 128x128; their scales, which are one in 16 KiB, are of x. */
        w.fp8 = (struct fp8_grid){.scale = j->x,
                                  .row_block = FP8_SPAN,
                                  .col_block = FP8_SPAN,
                                  .scale_cols = (cols + FP8_SPAN - 1) / FP8_SPAN};
        w.matrix.panels = w.matrix.rounds && j->ops->panels;
        w.bytes = w.matrix.panels ? panels8_bytes(rows, cols) : (size_t)rows * (size_t)cols;
    } else if (forms[f].bits) {
        w.packed = (struct packed){.rows = rows,
                                   .cols = cols,
                                   .bits = forms[f].bits,
                                   .group = forms[f].group ? forms[f].group : cols,
                                   .zero = forms[f].bits == 8 ? 128 : 8,
                                   .has_min = forms[f].mins,
                                   .scale_type = DTYPE_F16};
        w.matrix.wide_rows = forms[f].wide;
        w.bytes = packed_bytes(&w.packed);
    }
    return w;
}

const struct matrix *bench_weights_place(struct bench_weights *w, char *at)
{
    w->matrix.data = at;
    if (w->packed.bits) {
        packed_place(&w->packed, at);
        w->matrix.packed = &w->packed;
    }
    if (w->fp8.scale)
        w->matrix.fp8 = &w->fp8;
    return &w->matrix;
}

struct rows8 bench_rows8(const struct bench_job *j, int32_t cols)
{
    struct rows8 x8 = j->x8;
    x8.spans = (cols + PACKED_SPAN - 1) / PACKED_SPAN;
    x8.paired = forms[j->form].paired;
    x8.whole = forms[j->form].whole;
    return x8;
}

static size_t step_of(const struct bench_job *j)
{
    return (j->piece_bytes + PAGE - 1) / PAGE * PAGE;
}

void bench_set_pieces(struct bench_job *j, size_t n, size_t bytes)
{
    j->pieces = n;
    j->piece_bytes = bytes;
    assert(bytes > 0 && step_of(j) <= j->buffer_bytes);
}

char *bench_piece(const struct bench_job *j, size_t i)
{
    const size_t step = step_of(j), room = j->buffer_bytes / step;
    return j->buffer + (j->first_piece + i) % room * step;
}
