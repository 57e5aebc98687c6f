/* Packed weights times rows of floats, or of bf16 where a body has such products: every body's
 * products are those of the reference, and a row's bits depend on that row alone. */
#include "kernels/packed_weights.h"

/* Rows of x, as floats and in bf16, for one body; columns behind the last are never read. */
struct rows {
    float *x;
    uint16_t *x16;
    int cols;
};

static struct rows rows_make(const struct ops *ops, int tokens, int cols, uint64_t seed)
{
    struct rows r = {.x = kt_floats((size_t)(tokens * cols), seed), .cols = cols};
    size_t n = (size_t)tokens * rows16_stride(cols);
    r.x16 = malloc(n * sizeof *r.x16);
    memset(r.x16, 0xff, n * sizeof *r.x16);
    if (ops->round)
        ops->round(&(struct op_round){.out = r.x16, .x = r.x, .tokens = tokens, .dim = cols}, 0, 1);
    return r;
}

static void rows_free(struct rows *r)
{
    free(r->x);
    free(r->x16);
}

/* A product that reads rows from `first` on. */
static struct op_gemm product(const struct rows *r, bool pairs, const struct matrix *w, int first,
                              int tokens, float *out)
{
    return (struct op_gemm){.out = out,
                            .x = r->x + (size_t)first * (size_t)r->cols,
                            .x16 = pairs ? r->x16 + (size_t)first * rows16_stride(r->cols) : NULL,
                            .w = w,
                            .tokens = tokens};
}

static struct weights *wide_make(const struct form *f, int rows, int cols, uint64_t seed)
{
    struct weights *w = weights_make(f, rows, cols, seed);
    w->m.wide_rows = true;
    return w;
}

static void check_products(const struct form *f, int rows, int cols, int tokens, uint64_t seed)
{
    struct weights *w = wide_make(f, rows, cols, seed);
    float *bias = kt_floats((size_t)rows, 9);
    const int stride = rows + 3;
    const size_t n = (size_t)(tokens * stride);
    float *start = kt_floats(n, 4), *tiles = NULL;
    for (int b = 1; ops_at(b); b++)
        for (int pairs = 0; pairs <= ops_wide_reads_pairs(ops_at(b)); pairs++) {
            struct rows x = rows_make(ops_at(b), tokens, cols, seed + 1);
            float *want = kt_copy(start, n), *got = kt_copy(start, n);
            const int parts = 1 + tokens % 5;
            char what[128];
            struct op_gemm a = product(&x, pairs, &w->m, 0, tokens, want);
            a.bias = tokens % 2 ? bias : NULL;
            a.scale = tokens % 3 ? 0 : 0.5f;
            a.out_stride = stride;
            a.accumulate = tokens % 4 == 0;
            ops_ref()->gemm(&a, 0, 1);
            a.out = got;
            for (int part = parts - 1; part >= 0; part--)
                ops_at(b)->gemm(&a, part, parts);
            snprintf(what, sizeof what, "%s %s %d bits group %d N%d K%d M%d", ops_at(b)->name,
                     pairs ? "bf16" : "fp32", f->bits, f->group, rows, cols, tokens);
            kt_near(what, got, want, n, (struct kt_tolerance){2e-7 * cols, 2e-6});
            if (pairs && ops_at(b)->tiles && tiles) /* emulated ones agree to the bit */
                kt_same(what, got, tiles, n);
            if (pairs && ops_at(b)->tiles && !tiles)
                tiles = kt_copy(got, n);
            free(want);
            free(got);
            rows_free(&x);
        }
    free(tiles);
    free(start);
    free(bias);
    weights_free(w);
}

Test(wide, products, .timeout = 120)
{
    for (int i = 0; i < FORMS; i++) {
        if (forms[i].order)
            continue;
        for (int tokens = 1; tokens < 24; tokens += tokens < 3 ? 1 : 7) {
            check_products(&forms[i], 3, 16, tokens, 2);
            check_products(&forms[i], 49, 160, tokens, 3);
            check_products(&forms[i], 100, 201, tokens, 4);
        }
        /* Past the borders of pieces of K, and of blocks of rows. */
        check_products(&forms[i], 70, 600, 9, 5);
        check_products(&forms[i], 20, 40, 75, 6);
    }
    check_products(&(struct form){.bits = 8, .group = 96, .zero = 128}, 20, 1100, 9, 7);
    check_products(&(struct form){.bits = 4, .group = 160, .min = true}, 20, 1100, 9, 8);
    /* Past what is done at a time, of real tiles too. */
    check_products(&forms[1], 33, 48, 530, 9);
    check_products(&forms[8], 33, 48, 530, 10);
}

/* Numbers so small that sums and what is made of them are no normal numbers: real tiles and
 * emulated ones agree to the bit, and vectors between them do what they do elsewhere. */
Test(wide, tiles_agree_on_small_numbers)
{
    enum { ROWS = 37, N = 33, K = 96 };
    int bodies = 0;
    for (int b = 0; ops_at(b); b++)
        bodies += ops_at(b)->tiles;
    if (bodies < 2)
        cr_skip_test("only %d body has tiles here", bodies);
    for (int i = 0; i < FORMS; i++) {
        struct weights *w = wide_make(&forms[i], N, K, 5);
        float out[2][ROWS * N];
        int n = 0;
        for (int b = 1; ops_at(b) && !forms[i].order; b++) {
            if (!ops_at(b)->tiles)
                continue;
            struct rows x = rows_make(ops_at(b), ROWS, K, 6);
            for (int k = 0; k < ROWS * K; k++)
                x.x[k] *= 0x1p-124f;
            ops_at(b)->round(&(struct op_round){.out = x.x16, .x = x.x, .tokens = ROWS, .dim = K},
                             0, 1);
            struct op_gemm a = product(&x, true, &w->m, 0, ROWS, out[n > 0]);
            ops_at(b)->gemm(&a, 0, 1);
            if (n++ > 0)
                kt_same(ops_at(b)->name, out[1], out[0], ROWS * N);
            rows_free(&x);
        }
        weights_free(w);
    }
}

/* One weight of each value by one element of x that is 1: exact, whatever stands for it. */
Test(wide, single_products_are_exact)
{
    enum { COLS = 70 };
    static const struct form each[] = {{.bits = 8, .zero = 128},
                                       {.bits = 8},
                                       {.bits = 4, .zero = 8},
                                       {.bits = 4, .zero = 128, .table = true}};
    for (size_t f = 0; f < sizeof each / sizeof each[0]; f++) {
        struct weights *w = wide_make(&each[f], 256, COLS, 3);
        float out[9 * 256];
        for (int at = 0; at < COLS; at += 23)
            for (int b = 1; ops_at(b); b++)
                for (int pairs = 0; pairs <= ops_wide_reads_pairs(ops_at(b)); pairs++) {
                    struct rows x = rows_make(ops_at(b), 9, COLS, 1);
                    for (int i = 0; i < 9 * COLS; i++)
                        x.x[i] = i % COLS == at;
                    if (pairs)
                        ops_at(b)->round(
                            &(struct op_round){.out = x.x16, .x = x.x, .tokens = 9, .dim = COLS}, 0,
                            1);
                    for (int tokens = 1; tokens < 10; tokens += 8) {
                        struct op_gemm a = product(&x, pairs, &w->m, 9 - tokens, tokens,
                                                   out + (9 - tokens) % 9 * 256);
                        ops_at(b)->gemm(&a, 0, 1);
                    }
                    for (int i = 0; i < 9 * 256; i++)
                        cr_assert_eq(out[i], w->values[i % 256 * COLS + at], "%s: %g, not %g",
                                     ops_at(b)->name, (double)out[i],
                                     (double)w->values[i % 256 * COLS + at]);
                    rows_free(&x);
                }
        weights_free(w);
    }
}

/* Rows by themselves, or among others, by one thread or by several, columns cut anywhere: the same
 * bits. */
static void check_rows(const struct form *form, int k)
{
    enum { ROWS = 66, N = 70 };
    struct weights *w = wide_make(form, N, k, 8);
    for (int b = 1; ops_at(b); b++)
        for (int pairs = 0; pairs <= ops_wide_reads_pairs(ops_at(b)); pairs++) {
            struct rows x = rows_make(ops_at(b), ROWS, k, 7);
            float *all = malloc(ROWS * N * sizeof *all), *one = malloc(ROWS * N * sizeof *one);
            struct op_gemm a = product(&x, pairs, &w->m, 0, ROWS, all);
            ops_at(b)->gemm(&a, 0, 1);
            for (int count = 1; count <= 15; count += 1 + count / 3)
                for (int first = 0; first + count <= ROWS; first += 21) {
                    a = product(&x, pairs, &w->m, first, count, one);
                    for (int part = 0; part < count; part++)
                        ops_at(b)->gemm(&a, part, count);
                    kt_same(ops_at(b)->name, one, all + first * N, (size_t)(count * N));
                    ops_at(b)->gemm(&a, 0, 1);
                    kt_same(ops_at(b)->name, one, all + first * N, (size_t)(count * N));
                }
            a = product(&x, pairs, &w->m, 0, ROWS, one);
            for (a.first = 0; a.first < N; a.first = a.end) {
                a.end = a.first + 48 < N ? a.first + 48 : N;
                ops_at(b)->gemm(&a, 0, 1);
            }
            kt_same(ops_at(b)->name, one, all, ROWS * N);
            free(all);
            free(one);
            rows_free(&x);
        }
    weights_free(w);
}

Test(wide, rows_depend_on_themselves_alone, .timeout = 240)
{
    for (int i = 0; i < FORMS; i++)
        if (!forms[i].order)
            check_rows(&forms[i], 604);
    /* Past the borders of pieces, which groups need not divide. */
    check_rows(&(struct form){.bits = 8, .group = 96, .zero = 128}, 1200);
    check_rows(&(struct form){.bits = 4, .group = 160, .min = true}, 2250);
    check_rows(&(struct form){.bits = 4, .group = 16, .zero = 8}, 1100);
}

/* What is no number stays none, in its row alone. */
Test(wide, what_is_no_number_stays_none)
{
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    for (int f = 0; f < FORMS; f++)
        for (int b = 1; ops_at(b); b++)
            for (int i = 0; i < 3 && !forms[f].order; i++) {
                struct weights *w = wide_make(&forms[f], 16, 64, 5);
                struct rows x = rows_make(ops_at(b), 3, 64, 3);
                float out[3 * 16];
                x.x[64 + 37] = wrong[i];
                if (ops_wide_reads_pairs(ops_at(b)))
                    ops_at(b)->round(
                        &(struct op_round){.out = x.x16, .x = x.x, .tokens = 3, .dim = 64}, 0, 1);
                struct op_gemm a = product(&x, ops_wide_reads_pairs(ops_at(b)), &w->m, 0, 3, out);
                ops_at(b)->gemm(&a, 0, 1);
                for (int n = 0; n < 16; n++) {
                    cr_assert(isfinite(out[n]) && isfinite(out[32 + n]), "%s", ops_at(b)->name);
                    cr_assert(!isfinite(out[16 + n]) || w->values[n * 64 + 37] == 0, "%s",
                              ops_at(b)->name);
                }
                rows_free(&x);
                weights_free(w);
            }
}
