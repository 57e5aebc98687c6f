/* Matrix products, compiled once per instruction set (see cpu.h).
 *
 * A block of weight rows stays in L2 while all rows of x pass by it; a tile of x rows stays in L1,
 * packed, while the block passes by it, one block of K after the other. Between blocks of K the
 * accumulators wait in scratch, lanes untouched, so blocking changes no order of addition. Few
 * rows: the weights are read once, where they lie, at the speed of memory.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_GEMM_BODY_H
#define KERNELS_CPU_GEMM_GEMM_BODY_H

#include <assert.h>

#include "base/team.h"
#include "kernels/cpu/gemm/dot_body.h"

#define GEMM_N_BLOCK 96 /* where as many rows of weights fit in half of L2, else half as many */
#define GEMM_K_BLOCK 1024
#define GEMM_GRAIN (2 * DOT_COLS)

_Static_assert(GEMM_N_BLOCK / 2 % DOT_COLS == 0 && GEMM_N_BLOCK / 2 % DOT_TALL_COLS == 0,
               "tiles are whole");
_Static_assert(GEMM_K_BLOCK % DOT_PAIRS == 0, "steps are whole");

struct gemm_view {
    const struct op_gemm *op;
    size_t k, k_block, n_block, x_stride, out_stride;
    size_t m_begin, m_end, n_begin, n_end;
};

static void gemm_write(const struct gemm_view *g, size_t m, size_t n, int cols,
                       const struct dot_args *d)
{
    const struct op_gemm *op = g->op;
    const int wide = dot_cols(d->rows);
    for (int i = 0; i < d->rows; i++) {
        float *out = op->out + (m + (size_t)i) * g->out_stride + n;
        for (int j = 0; j < cols; j++) {
            float v = d->sum[i * wide + j];
            if (op->bias)
                v += op->bias[n + (size_t)j];
            if (op->scale != 0)
                v *= op->scale;
            out[j] = op->accumulate ? v + out[j] : v;
        }
    }
}

/* Rows [m, m + d->rows) of x from column k on, as a tile takes them. */
static void gemm_rows(const struct gemm_view *g, size_t m, size_t k, float *packed,
                      struct dot_args *d)
{
    d->x = g->op->x + m * g->x_stride + k;
    d->x_stride = g->x_stride;
    if (d->rows == DOT_TALL) {
        assert(d->k <= GEMM_K_BLOCK);
        dot_pack(d->x, d->x_stride, d->k, g->op->w->dtype, packed);
        d->x = packed;
    }
}

/* Outputs [m, m + rows) x [n, n + count). */
static void gemm_strip(const struct gemm_view *g, size_t m, int rows, size_t n, int count)
{
    vec carry[GEMM_N_BLOCK * DOT_TALL]; /* each tile its own */
    float sum[DOT_TILE], packed[DOT_TALL * GEMM_K_BLOCK] __attribute__((aligned(64)));
    const struct matrix *w = g->op->w;
    const int wide = dot_cols(rows);
    size_t bytes = dtype_bytes(w->dtype);
    for (size_t k = 0; k == 0 || k < g->k; k += g->k_block) {
        const char *block = (const char *)w->data + (n * g->k + k) * bytes;
        struct dot_args d = {.k = g->k - k < g->k_block ? g->k - k : g->k_block,
                             .carry = carry,
                             .first = k == 0,
                             .last = g->k - k <= g->k_block,
                             .sum = sum,
                             .rows = rows,
                             .quiet = gemm_is_quiet((size_t)rows)};
        gemm_rows(g, m, k, packed, &d);
        for (int j = 0; j < count; j += wide, d.carry += wide * rows) {
            int cols = count - j < wide ? count - j : wide;
            for (int c = 0; c < wide; c++)
                d.w[c] = block + (size_t)(j + (c < cols ? c : cols - 1)) * g->k * bytes;
            dot_run(&d, w->dtype);
            if (d.last)
                gemm_write(g, m, n + (size_t)j, cols, &d);
        }
    }
}

static void gemm_packed(const struct op_gemm *a, struct packed_share share)
{
    const bool is_whole = matrix_reads_bytes(a->w) && packed_is_whole(a->w->packed, a->x8);
#if defined(BODY_TILES)
    if (a->w->fp8) {
        tiles_fp8(a, share);
        return;
    }
    if (a->w->panels || is_whole) {
        tiles_lines(a, share);
        return;
    }
    if (matrix_reads_bytes(a->w) &&
        (a->unit || tiles_bytes_pay(a->w->packed, share.m_end - share.m_begin))) {
        tiles_bytes(a, share);
        return;
    }
    if (a->w->wide_rows && a->x16) {
        assert(!a->unit);
        tiles_wide(a, share);
        return;
    }
#elif defined(BODY_ROUNDS)
    if (a->w->panels || (a->w->wide_rows && a->x16)) {
        panels_gemm(a, share);
        return;
    }
#endif
    assert(a->w->packed && !a->unit);
    if (a->w->wide_rows)
        wide_gemm(a, share);
    else if (is_whole)
        whole_gemm(a, share);
    else
        packed_gemm(a, share);
}

#include "kernels/cpu/gemm/fp8_body.h"

static size_t gemm_n_block(const struct matrix *w)
{
    const size_t bytes = GEMM_N_BLOCK * (size_t)w->cols * dtype_bytes(w->dtype);
    return bytes <= cpu_cache_bytes(2) / 2 ? GEMM_N_BLOCK : GEMM_N_BLOCK / 2;
}

void BODY(gemm)(const struct op_gemm *a, int part, int parts)
{
    const struct matrix *w = a->w;
    assert(!a->unit || w->packed || w->panels);
    if (w->packed || w->panels) {
        gemm_packed(a, packed_split(a, part, parts));
        return;
    }
    assert(!a->x16);
    struct gemm_view g = {
        .op = a,
        .k = (size_t)w->cols,
        /* a single tile reads rows from end to end, but where it is packed, a block at a time */
        .k_block = a->tokens >= DOT_TALL || a->tokens > DOT_ROWS ? GEMM_K_BLOCK : (size_t)w->cols,
        .n_block = gemm_n_block(w),
        .x_stride = (size_t)(a->x_stride ? a->x_stride : w->cols),
        .out_stride = (size_t)(a->out_stride ? a->out_stride : w->rows),
        .m_end = (size_t)a->tokens,
        .n_begin = (size_t)a->first,
        .n_end = (size_t)(a->end ? a->end : w->rows),
    };
    int rows;
    const size_t n_first = g.n_begin, columns = g.n_end - n_first;
    /* Columns, so that each thread streams its own weights; rows where there are too few columns to
     * share. */
    if (columns >= (size_t)parts * GEMM_GRAIN || a->tokens < parts) {
        team_split(columns, GEMM_GRAIN, part, parts, &g.n_begin, &g.n_end);
        g.n_begin += n_first, g.n_end += n_first;
    } else {
        team_split((size_t)a->tokens, 1, part, parts, &g.m_begin, &g.m_end);
    }
    if (w->fp8) {
        fp8_gemm(&g);
        return;
    }
    for (size_t n = g.n_begin; n < g.n_end; n += g.n_block) {
        int count = (int)(g.n_end - n < g.n_block ? g.n_end - n : g.n_block);
        for (size_t m = g.m_begin; m < g.m_end; m += (size_t)rows) {
            rows = dot_rows_most((int)(g.m_end - m));
            gemm_strip(&g, m, rows, n, count);
        }
    }
}

#endif
