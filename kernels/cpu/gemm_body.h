/* Matrix products, compiled once per instruction set (see cpu.h).
 *
 * Few rows: tiles read the weights where they lie, which streams them from memory once. Many rows:
 * a block of weight rows is widened to fp32 on the stack and used for every tile of x; the
 * accumulators of the block wait in scratch between blocks of K, lanes untouched, so both ways add
 * in the same order. */
#ifndef KERNELS_CPU_GEMM_BODY_H
#define KERNELS_CPU_GEMM_BODY_H

#include "base/team.h"
#include "kernels/cpu/dot_body.h"

#define GEMM_M_BLOCK 64
#define GEMM_N_BLOCK 24
#define GEMM_K_BLOCK 512 /* a multiple of every LANES */
#define GEMM_PANEL_STRIDE                                                                          \
    (GEMM_K_BLOCK + 16)  /* rows a power of two apart would share cache sets                       \
                          */
#define GEMM_PANEL_MIN 8 /* rows from which widening first is faster */

struct gemm_view {
    const struct op_gemm *op;
    size_t k, x_stride, out_stride;
    size_t m_begin, m_end, n_begin, n_end;
};

struct gemm_scratch {
    vec acc[GEMM_M_BLOCK * GEMM_N_BLOCK + 4];
    float panel[GEMM_N_BLOCK * GEMM_PANEL_STRIDE];
};

/* Sums a finished tile's lanes and writes its outputs. */
static void gemm_write(const struct gemm_view *g, size_t m, size_t n, const vec *tile, int rows,
                       int cols)
{
    const struct op_gemm *op = g->op;
    vec acc[DOT_TILE];
    float sum[DOT_TILE];
    memcpy(acc, tile, (size_t)(rows * cols) * sizeof *tile);
    dot_finish(sum, acc, rows * cols);
    for (int i = 0; i < rows; i++) {
        float *out = op->out + (m + (size_t)i) * g->out_stride + n;
        for (int j = 0; j < cols; j++) {
            float v = sum[i * cols + j];
            if (op->bias)
                v += op->bias[n + (size_t)j];
            out[j] = op->accumulate ? v + out[j] : v;
        }
    }
}

static void gemm_direct(const struct gemm_view *g)
{
    const struct matrix *w = g->op->w;
    size_t row_bytes = g->k * dtype_bytes(w->dtype);
    int cols, rows;
    for (size_t n = g->n_begin; n < g->n_end; n += (size_t)cols) {
        cols = dot_cols((int)(g->n_end - n));
        for (size_t m = g->m_begin; m < g->m_end; m += (size_t)rows) {
            vec acc[DOT_TILE] = {0};
            struct dot_args d = {.x = g->op->x + m * g->x_stride,
                                 .x_stride = g->x_stride,
                                 .w = (const char *)w->data + n * row_bytes,
                                 .w_stride = g->k,
                                 .k = g->k};
            rows = dot_rows((int)(g->m_end - m));
            dot_fn_of(w->dtype, rows, cols)(acc, &d);
            gemm_write(g, m, n, acc, rows, cols);
        }
    }
}

/* Widens w[n..n+count)[k..k+k_count) into the panel. */
static void gemm_unpack(float *panel, const struct matrix *w, size_t n, int count, size_t k,
                        size_t k_count)
{
    size_t whole = k_count - k_count % LANES;
    for (int j = 0; j < count; j++) {
        const char *row = w->data;
        float *to = panel + (size_t)j * GEMM_PANEL_STRIDE;
        row += ((n + (size_t)j) * (size_t)w->cols + k) * dtype_bytes(w->dtype);
        for (size_t i = 0; i < whole; i += LANES)
            vec_store(to + i, vec_load_as(row, w->dtype, i));
        if (k_count > whole)
            vec_store(to + whole, vec_load_as_n(row, w->dtype, whole, (int)(k_count - whole)));
    }
}

struct gemm_block {
    size_t m, n;
    int m_count, n_count;
};

/* One block of outputs: every block of K in turn into the accumulators, then out. A tile's
 * accumulators lie together, column tiles first, so that each tile has its own place whatever its
 * size. */
static void gemm_panel_block(const struct gemm_view *g, const struct gemm_block *b,
                             struct gemm_scratch *s)
{
    int rows, cols;
    memset(s->acc, 0, (size_t)(b->m_count * b->n_count) * sizeof s->acc[0]);
    for (size_t k = 0; k < g->k; k += GEMM_K_BLOCK) {
        size_t k_count = g->k - k < GEMM_K_BLOCK ? g->k - k : GEMM_K_BLOCK;
        gemm_unpack(s->panel, g->op->w, b->n, b->n_count, k, k_count);
        for (int j = 0; j < b->n_count; j += cols) {
            cols = dot_cols(b->n_count - j);
            for (int i = 0; i < b->m_count; i += rows) {
                rows = dot_rows(b->m_count - i);
                struct dot_args d = {.x = g->op->x + (b->m + (size_t)i) * g->x_stride + k,
                                     .x_stride = g->x_stride,
                                     .w = (const char *)(s->panel + j * GEMM_PANEL_STRIDE),
                                     .w_stride = GEMM_PANEL_STRIDE,
                                     .k = k_count};
                dot_fn_of(DTYPE_F32, rows, cols)(s->acc + j * b->m_count + i * cols, &d);
            }
        }
    }
    for (int j = 0; j < b->n_count; j += cols) {
        cols = dot_cols(b->n_count - j);
        for (int i = 0; i < b->m_count; i += rows) {
            rows = dot_rows(b->m_count - i);
            gemm_write(g, b->m + (size_t)i, b->n + (size_t)j, s->acc + j * b->m_count + i * cols,
                       rows, cols);
        }
    }
}

static int gemm_min(size_t a, size_t b)
{
    return (int)(a < b ? a : b);
}

static void gemm_panels(const struct gemm_view *g)
{
    struct gemm_scratch s;
    struct gemm_block b;
    for (b.m = g->m_begin; b.m < g->m_end; b.m += GEMM_M_BLOCK) {
        b.m_count = gemm_min(g->m_end - b.m, GEMM_M_BLOCK);
        for (b.n = g->n_begin; b.n < g->n_end; b.n += GEMM_N_BLOCK) {
            b.n_count = gemm_min(g->n_end - b.n, GEMM_N_BLOCK);
            gemm_panel_block(g, &b, &s);
        }
    }
}

void BODY(gemm)(const struct op_gemm *a, int part, int parts)
{
    const struct matrix *w = a->w;
    struct gemm_view g = {
        .op = a,
        .k = (size_t)w->cols,
        .x_stride = (size_t)(a->x_stride ? a->x_stride : w->cols),
        .out_stride = (size_t)(a->out_stride ? a->out_stride : w->rows),
        .m_end = (size_t)a->tokens,
        .n_end = (size_t)w->rows,
    };
    /* Columns, so that each thread streams its own weights; rows where there are too few columns to
     * share. */
    if (w->rows >= parts * GEMM_N_BLOCK || a->tokens < parts)
        team_split((size_t)w->rows, GEMM_N_BLOCK, part, parts, &g.n_begin, &g.n_end);
    else
        team_split((size_t)a->tokens, 1, part, parts, &g.m_begin, &g.m_end);
    if (g.m_end - g.m_begin < GEMM_PANEL_MIN)
        gemm_direct(&g);
    else
        gemm_panels(&g);
}

#endif
