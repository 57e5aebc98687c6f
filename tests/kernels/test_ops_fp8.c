/* Weights in FP8: every byte is its value, every body's products are those of the reference, and a
 * row's bits depend on that row alone. */
#include "kernels/fp8.h"
#include "kernels/kernels_util.h"

struct weights {
    uint8_t *q;
    float *scale;
    struct fp8_grid grid;
    struct matrix m, in_panels;
};

struct form {
    int row_block, col_block; /* 0: all of them */
    int first;                /* row of the grid that the matrix begins with */
};
static const struct form forms[] = {
    {128, 128, 0}, {1, 0, 0}, {0, 0, 5}, {48, 256, 40}, {7, 384, 6}};
#define FORMS (sizeof forms / sizeof forms[0])

/* As bodies with rows of bf16 take them. */
static struct matrix panels_make(const struct matrix *m)
{
    struct matrix out = *m;
    uint8_t *q = aligned_alloc(64, panels8_bytes(m->rows, m->cols));
    memset(q, 0, panels8_bytes(m->rows, m->cols));
    for (size_t row = 0; row < (size_t)m->rows; row++)
        panels8_put_row(q, m->cols, row, (const uint8_t *)m->data + row * (size_t)m->cols);
    out.data = q;
    out.panels = true;
    return out;
}

static struct weights *weights_make(const struct form *f, int rows, int cols, uint64_t seed)
{
    struct weights *w = malloc(sizeof *w);
    size_t n = (size_t)rows * (size_t)cols;
    int row_block = f->row_block ? f->row_block : rows + f->first;
    int col_block = f->col_block ? f->col_block : cols;
    int grid_rows = (f->first + rows + row_block - 1) / row_block;
    int scale_cols = (cols + col_block - 1) / col_block;
    w->q = malloc(n); /* exactly as long as it is, for the sanitizer */
    w->scale = malloc((size_t)(grid_rows * scale_cols) * sizeof *w->scale);
    for (size_t i = 0; i < n; i++)
        do
            w->q[i] = (uint8_t)kt_below(&seed, 256);
        while ((w->q[i] & 0x7f) == 0x7f);
    for (int i = 0; i < grid_rows * scale_cols; i++)
        w->scale[i] = kt_uniform(&seed) * 0.01f;
    cr_assert(fp8_takes(col_block, cols));
    w->grid = (struct fp8_grid){w->scale, row_block, col_block, f->first, scale_cols};
    w->m = (struct matrix){.data = w->q, .fp8 = &w->grid, .rows = rows, .cols = cols};
    w->in_panels = panels_make(&w->m);
    return w;
}

static void weights_free(struct weights *w)
{
    free(w->q);
    free((void *)(uintptr_t)w->in_panels.data);
    free(w->scale);
    free(w);
}

/* Rows of bf16 where the body has a use for them, as wide apart as it wants them. */
static uint16_t *rounded(const struct ops *ops, const float *x, int rows, int k)
{
    uint16_t *x16 = malloc((size_t)rows * rows16_stride(k) * sizeof *x16);
    memset(x16, 0xff, (size_t)rows * rows16_stride(k) * sizeof *x16);
    ops->round(&(struct op_round){.out = x16, .x = x, .tokens = rows, .dim = k}, 0, 1);
    return x16;
}

Test(fp8, every_byte_is_its_value)
{
    static const struct {
        uint8_t q;
        float v;
    } known[] = {{0, 0},     {1, 0x1p-9f}, {7, 7 * 0x1p-9f}, {8, 0x1p-6f},
                 {0x38, 1},  {0x3c, 1.5f}, {0x7e, 448},      {0x80, -0.0f},
                 {0xb8, -1}, {0xfe, -448}, {0x81, -0x1p-9f}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        cr_assert_eq(fp8_to_f32(known[i].q), known[i].v, "%02x", known[i].q);
    cr_assert(isnan(fp8_to_f32(0x7f)) && isnan(fp8_to_f32(0xff)));
    for (int q = 1; q < 0x7f; q++) {
        cr_assert_gt(fp8_to_f32((uint8_t)q), fp8_to_f32((uint8_t)(q - 1)));
        cr_assert_eq(fp8_to_f32((uint8_t)(q | 0x80)), -fp8_to_f32((uint8_t)q));
    }
}

Test(fp8, nan_is_found)
{
    uint8_t q[9000] = {0};
    cr_assert_eq(fp8_find_nan(q, sizeof q), sizeof q);
    for (size_t at = 0; at < sizeof q; at += 999) {
        q[at] = at % 2 ? 0x7f : 0xff;
        cr_assert_eq(fp8_find_nan(q, sizeof q), at);
        cr_assert_eq(fp8_find_nan(q, at), at);
        q[at] = 0x7e;
    }
}

Test(fp8, grids_that_no_span_fits_are_refused)
{
    cr_assert(fp8_takes(128, 300) && fp8_takes(300, 300) && fp8_takes(256, 200));
    cr_assert_not(fp8_takes(64, 300));
    cr_assert_not(fp8_takes(192, 300));
    cr_assert_not(fp8_takes(0, 300));
}

/* One weight of each value by one element of x that is 1, on every body: exact. */
Test(fp8, single_products_are_exact)
{
    enum { K = 300 };
    uint8_t q[256 * K] = {0};
    float x[K], scale = 1, out[5 * 256];
    struct fp8_grid grid = {&scale, 256, K, 0, 1};
    struct matrix m = {.data = q, .fp8 = &grid, .rows = 256, .cols = K};
    for (int at = 0; at < K; at += 23) {
        memset(q, 0, sizeof q);
        memset(x, 0, sizeof x);
        for (int i = 0; i < 256; i++)
            q[i * K + at] = (uint8_t)((i & 0x7f) == 0x7f ? 0 : i);
        x[at] = 1;
        struct matrix in_panels = panels_make(&m);
        for (int b = 1; ops_at(b); b++)
            for (int pairs = 0; pairs <= (ops_at(b)->round != NULL); pairs++) {
                float rows[5 * K];
                for (int r = 0; r < 5; r++)
                    memcpy(rows + r * K, x, sizeof x);
                uint16_t *x16 = pairs ? rounded(ops_at(b), rows, 5, K) : NULL;
                for (int tokens = 1; tokens <= 5; tokens += 4) {
                    struct op_gemm a = {.out = out,
                                        .x = rows,
                                        .x16 = x16,
                                        .w = pairs ? &in_panels : &m,
                                        .tokens = tokens};
                    ops_at(b)->gemm(&a, 0, 1);
                    for (int i = 0; i < tokens * 256; i++)
                        cr_assert_eq(out[i], fp8_to_f32(q[i % 256 * K + at]), "%s %02x: %g",
                                     ops_at(b)->name, i % 256, (double)out[i]);
                }
                free(x16);
            }
        free((void *)(uintptr_t)in_panels.data);
    }
}

static void check_products(const struct form *f, int rows, int cols, int tokens, uint64_t seed)
{
    struct weights *w = weights_make(f, rows, cols, seed);
    int stride = rows + 3;
    size_t n = (size_t)(tokens * stride);
    float *x = kt_floats((size_t)(tokens * cols), seed + 1), *bias = kt_floats((size_t)rows, 9);
    float *start = kt_floats(n, 4), *want = kt_copy(start, n);
    for (int b = 1; ops_at(b); b++)
        for (int pairs = 0; pairs <= (ops_at(b)->round != NULL); pairs++) {
            uint16_t *x16 = pairs ? rounded(ops_at(b), x, tokens, cols) : NULL;
            struct op_gemm a = {.out = want,
                                .x = x,
                                .x16 = x16,
                                .w = pairs ? &w->in_panels : &w->m,
                                .bias = tokens % 2 ? bias : NULL,
                                .scale = tokens % 3 ? 0 : 0.5f,
                                .tokens = tokens,
                                .out_stride = stride,
                                .accumulate = tokens % 4 == 0};
            memcpy(want, start, n * sizeof *want);
            ops_ref()->gemm(&a, 0, 1);
            for (int parts = 1; parts < 6; parts += 2) {
                char what[128];
                float *got = kt_copy(start, n);
                a.out = got;
                for (int part = parts - 1; part >= 0; part--)
                    ops_at(b)->gemm(&a, part, parts);
                snprintf(what, sizeof what, "%s blocks of %dx%d N%d K%d M%d of %d", ops_at(b)->name,
                         f->row_block, f->col_block, rows, cols, tokens, parts);
                kt_near(what, got, want, n, (struct kt_tolerance){2e-6 * cols, 3e-6});
                free(got);
            }
            a.out = want;
            free(x16);
        }
    free(start);
    free(want);
    free(bias);
    free(x);
    weights_free(w);
}

Test(fp8, products, .timeout = 120)
{
    for (size_t i = 0; i < FORMS; i++)
        for (int tokens = 1; tokens < 14; tokens += tokens < 6 ? 1 : 4) {
            check_products(&forms[i], 16, 32, tokens, 1);
            check_products(&forms[i], 3, 17, tokens, 2);
            check_products(&forms[i], 49, 160, tokens, 3);
            check_products(&forms[i], 130, 391, tokens, 4);
        }
    check_products(&forms[0], 150, 2300, 3, 5);
    check_products(&forms[0], 150, 2300, 150, 6);
    check_products(&forms[0], 70, 300, 530, 9); /* more rows than are done at a time */
    check_products(&forms[3], 31, 1100, 67, 7);
    check_products(&forms[4], 31, 2300, 67, 8);
}

/* Rows by themselves, or among others, by one thread or by several: the same bits. */
Test(fp8, rows_depend_on_themselves_alone, .timeout = 120)
{
    enum { ROWS = 75, N = 70, K = 1190 };
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 32, 33};
    float *x = kt_floats(ROWS * K, 7);
    float *all = malloc(ROWS * N * sizeof *all), *one = malloc(ROWS * N * sizeof *one);
    for (size_t i = 0; i < FORMS; i++) {
        struct weights *w = weights_make(&forms[i], N, K, 8);
        for (int b = 1; ops_at(b); b++)
            for (int pairs = 0; pairs <= (ops_at(b)->round != NULL); pairs++) {
                const struct ops *ops = ops_at(b);
                uint16_t *x16 = pairs ? rounded(ops, x, ROWS, K) : NULL;
                const struct matrix *m = pairs ? &w->in_panels : &w->m;
                struct op_gemm a = {.out = all, .x = x, .x16 = x16, .w = m, .tokens = ROWS};
                ops->gemm(&a, 0, 1);
                for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
                    const int count = counts[c];
                    for (int first = 0; first + count <= ROWS; first += 33) {
                        a = (struct op_gemm){.out = one,
                                             .x = x + first * K,
                                             .x16 = x16 ? x16 + (size_t)first * rows16_stride(K)
                                                        : NULL,
                                             .w = m,
                                             .tokens = count};
                        const int parts = count < 10 ? count : 1;
                        for (int part = 0; part < parts; part++)
                            ops->gemm(&a, part, parts);
                        kt_same(ops->name, one, all + first * N, (size_t)(count * N));
                    }
                }
                free(x16);
            }
        weights_free(w);
    }
    free(one);
    free(all);
    free(x);
}

Test(fp8, what_is_no_number_stays_none)
{
    enum { N = 16, K = 300, ROWS = 10 };
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    static const int counts[] = {1, 6, ROWS};
    struct weights *w = weights_make(&forms[0], N, K, 5);
    for (int t = 0; ops_at(t / 9); t++)
        for (int pairs = 0; pairs <= (ops_at(t / 9)->round != NULL); pairs++) {
            const struct ops *ops = ops_at(t / 9);
            const int tokens = counts[t / 3 % 3];
            float *x = kt_floats((size_t)(tokens * K), 3), out[ROWS * N];
            x[290] = wrong[t % 3];
            uint16_t *x16 = pairs ? rounded(ops, x, tokens, K) : NULL;
            struct op_gemm a = {.out = out,
                                .x = x,
                                .x16 = x16,
                                .w = pairs ? &w->in_panels : &w->m,
                                .tokens = tokens};
            ops->gemm(&a, 0, 1);
            for (int n = 0; n < N; n++)
                cr_assert_not(isfinite(out[n]), "%s", ops->name);
            for (int n = N; n < tokens * N; n++)
                cr_assert(isfinite(out[n]), "%s", ops->name);
            free(x16);
            free(x);
        }
    weights_free(w);
}

Test(fp8, embedding)
{
    struct weights *w = weights_make(&forms[3], 50, 300, 2);
    int32_t ids[] = {49, 0, 17, 16};
    for (int i = 0; ops_at(i / 2); i++) {
        const int b = i / 2;
        float out[4 * 300];
        struct op_embed a = {
            .out = out, .table = i % 2 ? &w->in_panels : &w->m, .ids = ids, .tokens = 4};
        ops_at(b)->embed(&a, 0, 1);
        for (int t = 0; t < 4; t++)
            for (int k = 0; k < 300; k++)
                cr_assert_eq(out[t * 300 + k],
                             fp8_scales(&w->grid, (size_t)ids[t])[k / 256] *
                                 fp8_to_f32(w->q[ids[t] * 300 + k]),
                             "%s", ops_at(b)->name);
    }
    weights_free(w);
}
