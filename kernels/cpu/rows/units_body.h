/* The elementwise ops of gated units, mixtures and caps, compiled once per instruction set (see
 * cpu.h). It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_ROWS_UNITS_BODY_H
#define KERNELS_CPU_ROWS_UNITS_BODY_H

#include <assert.h>
#include <string.h>

#include "base/team.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows/glu_body.h"

INLINE vec glu_of(const struct op_glu *a, vec gate, vec up)
{
    return glu_vec(a->kind, (struct glu_shape){a->limit, a->alpha}, gate, up);
}

/* What part `part` of a [tokens][dim] does: whole rows, or the same columns of all of them. */
struct units_share {
    size_t row, row_end, col, col_end;
};

INLINE struct units_share units_split(int32_t tokens, int32_t dim, int part, int parts)
{
    struct units_share s = {0, (size_t)tokens, 0, (size_t)dim};
    if (tokens >= parts)
        team_split(s.row_end, 1, part, parts, &s.row, &s.row_end);
    else
        team_split(s.col_end, 64, part, parts, &s.col, &s.col_end);
    return s;
}

#if defined(BODY_ROUNDS) || defined(BODY_TILES)
/* Columns of row m, rounded, and behind the last what makes its span a whole one. */
static void glu_round(const struct op_glu *a, size_t m, size_t stride, const struct units_share *s)
{
    const float *gate = a->gate + m * stride, *up = a->up + m * stride;
    uint16_t *out = a->out16 + m * rows16_stride(a->dim);
    const size_t dim = (size_t)a->dim, more = (PACKED_SPAN - dim % PACKED_SPAN) % PACKED_SPAN;
    size_t i = s->col;
    for (; i + LANES <= s->col_end; i += LANES)
        vec_store_bf16(out + i, glu_vec(a->kind, (struct glu_shape){a->limit, a->alpha},
                                        vec_load(gate + i), vec_load(up + i)));
    if (i < s->col_end) {
        const int n = (int)(s->col_end - i);
        vec_store_bf16_n(out + i,
                         glu_vec(a->kind, (struct glu_shape){a->limit, a->alpha},
                                 vec_load_n(gate + i, n), vec_load_n(up + i, n)),
                         n);
    }
    if (s->col < s->col_end && s->col_end == dim)
        memset(out + dim, 0, more * sizeof *out);
}
#endif

static void rows_glu(const struct op_glu *a, int part, int parts)
{
    size_t stride = (size_t)(a->in_stride ? a->in_stride : a->dim);
    const struct units_share s = units_split(a->tokens, a->dim, part, parts);
#if defined(BODY_ROUNDS) || defined(BODY_TILES)
    for (size_t m = s.row; a->out16 && m < s.row_end; m++)
        glu_round(a, m, stride, &s);
    if (a->out16)
        return;
#else
    assert(!a->out16);
#endif
    for (size_t m = s.row; m < s.row_end; m++) {
        const float *gate = a->gate + m * stride, *up = a->up + m * stride;
        float *out = a->out + m * (size_t)a->dim;
        size_t i = s.col;
        for (; i + LANES <= s.col_end; i += LANES)
            vec_store(out + i, glu_vec(a->kind, (struct glu_shape){a->limit, a->alpha},
                                       vec_load(gate + i), vec_load(up + i)));
        if (i < s.col_end) {
            int n = (int)(s.col_end - i);
            vec v = glu_vec(a->kind, (struct glu_shape){a->limit, a->alpha},
                            vec_load_n(gate + i, n), vec_load_n(up + i, n));
            vec_store_n(out + i, v, n);
        }
    }
}

static void rows_softcap(const struct op_softcap *a, int part, int parts)
{
    size_t begin, end, i;
    vec cap = vec_set1(a->cap);
    team_split((size_t)a->n, 64, part, parts, &begin, &end);
    for (i = begin; i + LANES <= end; i += LANES)
        vec_store(a->x + i, cap * vec_tanh(vec_load(a->x + i) / cap));
    if (i < end) {
        int n = (int)(end - i);
        vec_store_n(a->x + i, cap * vec_tanh(vec_load_n(a->x + i, n) / cap), n);
    }
}

/* Elements [i, i + n) of one row; all LANES where n is 0. */
INLINE void combine_put(const struct op_combine *a, size_t m, size_t i, int n)
{
    size_t dim = (size_t)a->dim, k = (size_t)a->k;
    float *out = a->out + m * dim + i;
    vec sum = vec_zero();
    for (size_t j = m * k; j < (m + 1) * k; j++) {
        const float *y = a->y + (a->row ? (size_t)a->row[j] : j) * dim + i;
        vec w = vec_set1(a->weight[j]);
        w = a->sigmoid ? sigmoid_vec(w) : w;
        sum = vec_fma(w, n ? vec_load_n(y, n) : vec_load(y), sum);
    }
    if (a->bias)
        sum = sum + (n ? vec_load_n(a->bias + i, n) : vec_load(a->bias + i));
    if (a->scale != 0)
        sum = sum * vec_set1(a->scale);
    if (a->accumulate)
        sum = sum + (n ? vec_load_n(out, n) : vec_load(out));
    if (n)
        vec_store_n(out, sum, n);
    else
        vec_store(out, sum);
}

static void rows_combine(const struct op_combine *a, int part, int parts)
{
    const struct units_share s = units_split(a->tokens, a->dim, part, parts);
    for (size_t m = s.row; m < s.row_end; m++) {
        size_t i = s.col;
        for (; i + LANES <= s.col_end; i += LANES)
            combine_put(a, m, i, 0);
        if (i < s.col_end)
            combine_put(a, m, i, (int)(s.col_end - i));
    }
}

#endif
