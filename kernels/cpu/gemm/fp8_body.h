/* Products with weights in FP8 (kernels/fp8.h) row by row, compiled once per instruction set (see
 * cpu.h); those in panels are for panels_body.h and tiles_fp8_body.h.
 *
 * A dot product adds up spans of FP8_SPAN columns in vectors, as dot_body.h does, and each span
 * times its scale to an accumulator of its own; one tree sums the lanes at the end. Few rows of x:
 * rows of weights are expanded in registers, one after the other, as memory gives them fastest.
 * More: a piece of some rows of weights is expanded once, into L2, for a block of rows of x, and
 * meanwhile the accumulators wait in memory. FP8 is exact in fp32: both are the same sums.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_GEMM_FP8_BODY_H
#define KERNELS_CPU_GEMM_FP8_BODY_H

/* What vec_load_fp8() gives is less by this factor: the bias of fp16 is not that of FP8. */
#define FP8_UNIT 256.0f
#define FP8_M_TILES 16 /* of a block of rows of x */
#define FP8_N_TILES 4  /* of an expanded piece */
#define FP8_PIECE 2048 /* its columns: whole spans */
#define FP8_STRIDE (FP8_PIECE + 32)

typedef vec fp8_acc[DOT_ROWS][DOT_COLS];

/* Rows of x, of DOT_ROWS at most, by DOT_COLS rows of weights; where fewer are wanted the last is
 * named again. */
struct fp8_tile {
    const float *x;
    size_t x_stride, k, group, into; /* the first column's place in its group */
    const uint8_t *q[DOT_COLS];
    const float *w[DOT_COLS];     /* the same, expanded */
    const float *scale[DOT_COLS]; /* of the first column's group on */
    bool first;                   /* piece: the accumulators are not there yet */
};

/* By what scales are multiplied: see vec_load_fp8(). */
INLINE vec fp8_scale(const float *scale)
{
    return vec_set1(*scale * FP8_UNIT);
}

/* Lanes of x that are there, zeros behind them. */
INLINE vec fp8_x(const float *x, size_t left)
{
    return left >= LANES ? vec_load(x) : vec_load_n(x, (int)left);
}

/* sum[i] += the products of `left` columns of row i from k on, LANES at most, which `left` is where
 * it is constant. */
INLINE void fp8_line(const struct fp8_tile *t, const uint8_t *q, size_t k, size_t left, int rows,
                     vec sum[DOT_ROWS])
{
    const vec v = vec_load_fp8(q);
    UNROLL
    for (int i = 0; i < rows; i++)
        sum[i] = vec_fma(fp8_x(t->x + (size_t)i * t->x_stride + k, left), v, sum[i]);
}

/* The same of a span, or of what is left of one. */
INLINE void fp8_span(const struct fp8_tile *t, int j, size_t at, int rows, vec sum[DOT_ROWS])
{
    const size_t left = t->k - at;
    UNROLL
    for (int i = 0; i < rows; i++)
        sum[i] = vec_zero();
    if (left >= FP8_SPAN) {
        UNROLL
        for (size_t e = 0; e < FP8_SPAN; e += LANES)
            fp8_line(t, t->q[j] + at + e, at + e, LANES, rows, sum);
        return;
    }
    for (size_t e = 0; e < left; e += LANES) {
        uint8_t tail[LANES];
        size_t n = left - e < LANES ? left - e : LANES;
        memset(tail, 0, sizeof tail);
        memcpy(tail, t->q[j] + at + e, n);
        fp8_line(t, tail, at + e, n, rows, sum);
    }
}

INLINE void fp8_direct(const struct fp8_tile *t, int rows, fp8_acc acc)
{
    for (int j = 0; j < DOT_COLS; j++) {
        const float *scale = t->scale[j];
        vec all[DOT_ROWS], sum[DOT_ROWS];
        UNROLL
        for (int i = 0; i < rows; i++)
            all[i] = vec_zero();
        for (size_t at = 0, in_group = 0; at < t->k; at += FP8_SPAN, in_group += FP8_SPAN) {
            if (in_group >= t->group) {
                in_group = 0;
                scale++;
            }
            fp8_span(t, j, at, rows, sum);
            UNROLL
            for (int i = 0; i < rows; i++)
                all[i] = vec_fma(sum[i], fp8_scale(scale), all[i]);
        }
        UNROLL
        for (int i = 0; i < rows; i++)
            acc[i][j] = all[i];
    }
}

/* LANES columns of a tile of expanded weights, `left` of which x has. */
INLINE void fp8_step(const struct fp8_tile *t, size_t k, size_t left, int rows, fp8_acc sum)
{
    UNROLL
    for (int i = 0; i < rows; i++) {
        vec x = fp8_x(t->x + (size_t)i * t->x_stride + k, left);
        UNROLL
        for (int j = 0; j < DOT_COLS; j++)
            sum[i][j] = vec_fma(x, vec_load(t->w[j] + k), sum[i][j]);
    }
}

/* Adds a piece, in order, to the accumulators. */
INLINE void fp8_block(const struct fp8_tile *t, int rows, fp8_acc acc)
{
    size_t group = 0;
    if (t->first) {
        UNROLL
        for (int i = 0; i < rows * DOT_COLS; i++)
            acc[i / DOT_COLS][i % DOT_COLS] = vec_zero();
    }
    for (size_t at = 0, in_group = t->into; at < t->k; at += FP8_SPAN, in_group += FP8_SPAN) {
        const size_t left = t->k - at;
        fp8_acc sum;
        __asm__ volatile("" ::: "memory"); /* acc stays there: a copy on the stack is one more */
        if (in_group >= t->group) {
            in_group = 0;
            group++;
        }
        UNROLL
        for (int i = 0; i < rows * DOT_COLS; i++)
            sum[i / DOT_COLS][i % DOT_COLS] = vec_zero();
        for (size_t e = 0; e < FP8_SPAN && left >= FP8_SPAN; e += LANES)
            fp8_step(t, at + e, LANES, rows, sum);
        for (size_t e = 0; e < left && left < FP8_SPAN; e += LANES)
            fp8_step(t, at + e, left - e, rows, sum);
        UNROLL
        for (int j = 0; j < DOT_COLS; j++) {
            vec scale = fp8_scale(&t->scale[j][group]);
            UNROLL
            for (int i = 0; i < rows; i++)
                acc[i][j] = vec_fma(sum[i][j], scale, acc[i][j]);
        }
    }
}

typedef void fp8_fn(const struct fp8_tile *t, fp8_acc acc);

#define FP8_CASE(name, run, rows)                                                                  \
    static __attribute__((noinline)) void name(const struct fp8_tile *t, fp8_acc acc)              \
    {                                                                                              \
        run(t, rows, acc);                                                                         \
    }
FP8_CASE(fp8_direct_1, fp8_direct, 1)
FP8_CASE(fp8_direct_2, fp8_direct, 2)
FP8_CASE(fp8_direct_all, fp8_direct, DOT_ROWS)
FP8_CASE(fp8_block_1, fp8_block, 1)
FP8_CASE(fp8_block_2, fp8_block, 2)
FP8_CASE(fp8_block_all, fp8_block, DOT_ROWS)

/* [expanded][1, 2 or DOT_ROWS rows] */
static fp8_fn *const fp8_fns[2][3] = {{fp8_direct_1, fp8_direct_2, fp8_direct_all},
                                      {fp8_block_1, fp8_block_2, fp8_block_all}};

static void fp8_run(const struct fp8_tile *t, int rows, bool expanded, fp8_acc acc)
{
    fp8_fns[expanded][rows == 1 ? 0 : rows == 2 ? 1 : 2](t, acc);
}

/* n bytes to floats, and zeros up to LANES. */
static void fp8_expand(const uint8_t *q, size_t n, float *out)
{
    for (size_t k = 0; k < n; k += LANES) {
        uint8_t tail[LANES];
        const uint8_t *from = q + k;
        if (n - k < LANES) {
            memset(tail, 0, sizeof tail);
            from = memcpy(tail, from, n - k);
        }
        vec_store(out + k, vec_load_fp8(from));
    }
}

/* Rows of x from m on by rows of weights from n on, of which there are `cols`. */
static struct fp8_tile fp8_tile_at(const struct gemm_view *g, size_t m, size_t n, int cols)
{
    const struct op_gemm *op = g->op;
    const struct matrix *w = op->w;
    struct fp8_tile t = {.x = op->x + m * g->x_stride,
                         .x_stride = g->x_stride,
                         .k = g->k,
                         .group = (size_t)w->fp8->col_block};
    for (int j = 0; j < DOT_COLS; j++) {
        size_t row = n + (size_t)(j < cols ? j : cols - 1);
        t.q[j] = (const uint8_t *)w->data + row * g->k;
        t.scale[j] = fp8_scales(w->fp8, row);
    }
    return t;
}

/* The same tile some rows of x further on, columns [k, k + width). */
static struct fp8_tile fp8_piece_of(const struct fp8_tile *from, size_t rows, size_t k,
                                    size_t width)
{
    struct fp8_tile t = *from;
    t.x += rows * t.x_stride + k;
    for (int c = 0; c < DOT_COLS; c++)
        t.scale[c] += k / t.group;
    t.into = k % t.group;
    t.k = width;
    t.first = k == 0;
    return t;
}

static void fp8_write(const struct gemm_view *g, size_t m, size_t n, int cols, int rows,
                      fp8_acc acc)
{
    float sum[DOT_TILE];
    struct dot_args d = {.rows = rows, .sum = sum, .last = true};
    dot_end(&d, acc, rows, DOT_COLS);
    gemm_write(g, m, n, cols, &d);
}

/* Few rows of x. */
static void fp8_stream(const struct gemm_view *g)
{
    for (size_t n = g->n_begin; n < g->n_end; n += DOT_COLS) {
        int cols = g->n_end - n < DOT_COLS ? (int)(g->n_end - n) : DOT_COLS, rows;
        for (size_t m = g->m_begin; m < g->m_end; m += (size_t)rows) {
            fp8_acc acc;
            struct fp8_tile t = fp8_tile_at(g, m, n, cols);
            rows = dot_rows((int)(g->m_end - m));
            fp8_run(&t, rows, false, acc);
            fp8_write(g, m, n, cols, rows, acc);
        }
    }
}

/* Rows [m, m_end) of x, of M_TILES tiles at most, by rows of weights of N_TILES tiles at most. */
struct fp8_strip {
    const struct gemm_view *g;
    size_t m, m_end, n, n_end;
};

static void fp8_strip_run(const struct fp8_strip *s)
{
    const struct gemm_view *g = s->g;
    float piece[FP8_N_TILES * DOT_COLS][FP8_STRIDE] __attribute__((aligned(64)));
    fp8_acc acc[FP8_M_TILES + 2][FP8_N_TILES];
    struct fp8_tile tiles[FP8_N_TILES];
    int cols[FP8_N_TILES], n_tiles = 0;
    for (size_t n = s->n; n < s->n_end; n += DOT_COLS, n_tiles++) {
        cols[n_tiles] = s->n_end - n < DOT_COLS ? (int)(s->n_end - n) : DOT_COLS;
        tiles[n_tiles] = fp8_tile_at(g, s->m, n, cols[n_tiles]);
        for (int c = 0; c < DOT_COLS; c++) {
            int row = c < cols[n_tiles] ? c : cols[n_tiles] - 1;
            tiles[n_tiles].w[c] = piece[n_tiles * DOT_COLS + row];
        }
    }
    for (size_t k = 0; k < g->k; k += FP8_PIECE) {
        size_t width = g->k - k < FP8_PIECE ? g->k - k : FP8_PIECE, rows;
        for (size_t i = s->n; i < s->n_end; i++)
            fp8_expand((const uint8_t *)g->op->w->data + i * g->k + k, width, piece[i - s->n]);
        for (size_t m = s->m, mt = 0; m < s->m_end; m += rows, mt++) {
            rows = (size_t)dot_rows((int)(s->m_end - m));
            for (int j = 0; j < n_tiles; j++) {
                struct fp8_tile t = fp8_piece_of(&tiles[j], m - s->m, k, width);
                fp8_run(&t, (int)rows, true, acc[mt][j]);
                if (k + width == g->k)
                    fp8_write(g, m, s->n + (size_t)(j * DOT_COLS), cols[j], (int)rows, acc[mt][j]);
            }
        }
    }
}

static void fp8_gemm(const struct gemm_view *g)
{
    const size_t block = (size_t)FP8_M_TILES * DOT_ROWS, across = FP8_N_TILES * DOT_COLS;
    if (g->m_end - g->m_begin <= DOT_ROWS) {
        fp8_stream(g);
        return;
    }
    for (size_t m = g->m_begin; m < g->m_end; m += block)
        for (size_t n = g->n_begin; n < g->n_end; n += across)
            fp8_strip_run(
                &(struct fp8_strip){.g = g,
                                    .m = m,
                                    .m_end = g->m_end - m < block ? g->m_end : m + block,
                                    .n = n,
                                    .n_end = g->n_end - n < across ? g->n_end : n + across});
}

#endif
