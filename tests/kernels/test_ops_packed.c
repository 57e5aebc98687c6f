/* Packed weights: what was put in comes out, every body's products are those of the reference, and
 * a row's bits depend on that row alone. It is over 600 lines because weights are made here that
 * all of its tests read. */
#include "kernels/cpu/cpu.h"
#include "kernels/gemm_share.h"
#include "kernels/packed_weights.h"

static struct rows8 rows8_make(int tokens, int cols)
{
    size_t spans = ((size_t)cols + PACKED_SPAN - 1) / PACKED_SPAN, n = (size_t)tokens * spans;
    return (struct rows8){.q = malloc((size_t)tokens * rows8_stride((int32_t)spans)),
                          .scale = malloc(n * sizeof(float)),
                          .sum = malloc(2 * n * sizeof(int32_t)),
                          .spans = (int32_t)spans};
}

static void rows8_free(struct rows8 *r)
{
    free(r->q);
    free(r->scale);
    free(r->sum);
}

/* What has one scale. */
enum share { A_SPAN, A_PAIR, A_ROW, SHARES };

/* Where spans are even in number, and pairs of such weights alone. */
static bool can_share(const struct packed *p, enum share share)
{
    return share == A_SPAN || (packed_spans(p) % 2 == 0 && (share == A_ROW || packed_pairs(p)));
}

static bool same_q(const struct rows8 *a, const struct rows8 *b, int tokens)
{
    for (int m = 0; m < tokens; m++)
        if (memcmp(rows8_from(a, (size_t)m).q, rows8_from(b, (size_t)m).q,
                   (size_t)a->spans * PACKED_SPAN) != 0)
            return false;
    return true;
}

static struct rows8 quantized_as(const struct ops *ops, const float *x, int tokens, int cols,
                                 const int32_t *order, enum share share)
{
    struct op_quantize a = {
        .out = rows8_make(tokens, cols), .x = x, .tokens = tokens, .dim = cols, .order = order};
    a.out.paired = share != A_SPAN;
    a.out.whole = share == A_ROW;
    for (int part = 2; part >= 0; part--)
        ops->quantize(&a, part, 3);
    return a.out;
}

static struct rows8 quantized(const struct ops *ops, const float *x, int tokens, int cols,
                              const int32_t *order)
{
    return quantized_as(ops, x, tokens, cols, order, A_SPAN);
}

Test(packed, what_was_put_in_comes_out)
{
    for (int i = 0; i < FORMS; i++)
        for (int rows = 1; rows < 40; rows += 13)
            for (int cols = 16; cols < 300; cols += 28) {
                struct weights *w = weights_make(&forms[i], rows, cols, (uint64_t)(i + 1));
                float *row = malloc((size_t)cols * sizeof *row);
                for (int r = 0; r < rows; r++) {
                    packed_read_row(&w->p, (size_t)r, row);
                    kt_same("row", row, w->values + (size_t)r * (size_t)cols, (size_t)cols);
                    for (int k = 0; k < cols; k++)
                        cr_assert_eq(packed_element(&w->p, (size_t)r, (size_t)k),
                                     row[w->p.order ? w->p.order[k] : k]);
                }
                free(row);
                weights_free(w);
            }
}

Test(packed, groups_that_do_not_fit_are_refused)
{
    cr_assert(packed_takes(4, 32, 100) && packed_takes(8, 16, 100) && packed_takes(8, 100, 100));
    cr_assert_not(packed_takes(4, 48, 100));
    cr_assert_not(packed_takes(4, 8, 100));
    cr_assert_not(packed_takes(2, 32, 100));
    cr_assert_not(packed_takes(4, 0, 100));
    cr_assert_not(packed_takes(4, 32, 0));
}

Test(packed, fp16_is_for_scales_that_it_holds)
{
    cr_assert(packed_fits_f16((float[]){0, 1, -0.1f, 65504, 0x1p-14f, 0x1p-24f}, 6));
    cr_assert_not(packed_fits_f16((float[]){1e-6f}, 1));
    cr_assert_not(packed_fits_f16((float[]){1e5f}, 1));
}

/* Half a step of the grid away at most, and the same on every body. */
Test(packed, quantized_rows)
{
    enum { TOKENS = 5, COLS = 170 };
    float *x = kt_floats(TOKENS * COLS, 3);
    for (int i = 0; i < 70; i++)
        x[COLS + i] = i < 40 ? 0 : x[COLS + i] * 0x1p-120f;
    for (int i = 0; ops_at(i / SHARES); i++) {
        const int b = i / SHARES;
        const enum share share = (enum share)(i % SHARES);
        struct rows8 r = quantized_as(ops_at(b), x, TOKENS, COLS, NULL, share), ref;
        const int each = share == A_ROW ? r.spans : share == A_PAIR ? 2 : 1;
        ref = quantized_as(ops_ref(), x, TOKENS, COLS, NULL, share);
        for (int span = 0; span < TOKENS * r.spans; span++)
            cr_assert_eq(r.scale[span], r.scale[span / each * each], "%s", ops_at(b)->name);
        for (int m = 0; m < TOKENS; m++)
            for (int k = 0; k < r.spans * PACKED_SPAN; k++) {
                int at = m * (int)rows8_stride(r.spans) + k, span = m * r.spans + k / PACKED_SPAN;
                float v = k < COLS ? x[m * COLS + k] : 0, s = r.scale[span];
                cr_assert_leq(fabsf(v - s * r.q[at]), s * 0.5001f + 0x1p-100f, "%s",
                              ops_at(b)->name);
                cr_assert_eq(r.q[at], ref.q[at], "%s", ops_at(b)->name);
                cr_assert_eq(s, ref.scale[span]);
                cr_assert_eq(r.sum[2 * span], ref.sum[2 * span]);
                cr_assert_eq(r.sum[2 * span + 1], ref.sum[2 * span + 1]);
            }
        rows8_free(&r);
        rows8_free(&ref);
    }
    free(x);
}

/* A row in another order is what the row is that was put in that order before. */
Test(packed, rows_in_another_order)
{
    enum { TOKENS = 3, COLS = 150, STRIDE = 160 };
    float *x = kt_floats(TOKENS * STRIDE, 3), moved[TOKENS * COLS];
    int32_t *order = kt_order(COLS, 5);
    for (int i = 0; i < TOKENS * COLS; i++)
        moved[i] = x[i / COLS * STRIDE + order[i % COLS]];
    for (int b = 0; ops_at(b); b++) {
        struct rows8 want = quantized(ops_at(b), moved, TOKENS, COLS, NULL);
        struct rows8 got = rows8_make(TOKENS, COLS);
        struct op_quantize a = {
            .out = got, .x = x, .tokens = TOKENS, .dim = COLS, .x_stride = STRIDE, .order = order};
        for (int part = 0; part < 4; part++)
            ops_at(b)->quantize(&a, part, 4);
        size_t spans = TOKENS * (size_t)got.spans;
        cr_assert(same_q(&got, &want, TOKENS), "%s", ops_at(b)->name);
        cr_assert_eq(memcmp(got.sum, want.sum, 2 * spans * sizeof *got.sum), 0);
        kt_same(ops_at(b)->name, got.scale, want.scale, spans);
        rows8_free(&want);
        rows8_free(&got);
    }
    free(order);
    free(x);
}

Test(packed, what_is_no_number_stays_none)
{
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    struct weights *w = weights_make(&forms[0], 16, 64, 5);
    for (int b = 0; ops_at(b); b++)
        for (int i = 0; i < 3; i++) {
            float *x = kt_floats(64, 3), out[16];
            x[37] = wrong[i];
            struct rows8 r = quantized(ops_at(b), x, 1, 64, NULL);
            cr_assert(isnan(r.scale[1]) && !isnan(r.scale[0]));
            struct op_gemm a = {.out = out, .x8 = &r, .w = &w->m, .tokens = 1};
            ops_at(b)->gemm(&a, 0, 1);
            for (int n = 0; n < 16; n++)
                cr_assert(isnan(out[n]), "%s", ops_at(b)->name);
            rows8_free(&r);
            free(x);
        }
    weights_free(w);
}

static void check_products(const struct form *f, int rows, int cols, int tokens, uint64_t seed)
{
    struct weights *w = weights_make(f, rows, cols, seed);
    const enum share wanted = (enum share)((tokens + rows) % SHARES);
    const enum share share = can_share(&w->p, wanted) ? wanted : A_SPAN;
    float *x = kt_floats((size_t)(tokens * cols), seed + 1), *bias = kt_floats((size_t)rows, 9);
    int stride = rows + 3;
    size_t n = (size_t)(tokens * stride);
    float *start = kt_floats(n, 4), *want = kt_copy(start, n);
    struct rows8 r = quantized_as(ops_ref(), x, tokens, cols, w->p.order, share);
    struct op_gemm a = {.out = want,
                        .x8 = &r,
                        .w = &w->m,
                        .bias = tokens % 2 ? bias : NULL,
                        .scale = tokens % 3 ? 0 : 0.5f,
                        .tokens = tokens,
                        .out_stride = stride,
                        .accumulate = tokens % 4 == 0};
    ops_ref()->gemm(&a, 0, 1);
    for (int b = 1; ops_at(b); b++)
        for (int parts = 1; parts < 6; parts += 2) {
            char what[128];
            float *got = kt_copy(start, n);
            a.out = got;
            for (int part = parts - 1; part >= 0; part--)
                ops_at(b)->gemm(&a, part, parts);
            snprintf(what, sizeof what, "%s %d bits group %d rows %d N%d K%d M%d of %d",
                     ops_at(b)->name, f->bits, f->group, (int)share, rows, cols, tokens, parts);
            kt_near(what, got, want, n, (struct kt_tolerance){2e-7 * cols, 2e-6});
            free(got);
        }
    rows8_free(&r);
    free(start);
    free(want);
    free(bias);
    free(x);
    weights_free(w);
}

Test(packed, products, .timeout = 120)
{
    for (int i = 0; i < FORMS; i++)
        for (int tokens = 1; tokens < 60; tokens += tokens < 6 ? 1 : tokens < 14 ? 4 : 19) {
            check_products(&forms[i], 16, 32, tokens, 1);
            check_products(&forms[i], 3, 16, tokens, 2);
            check_products(&forms[i], 49, 160, tokens, 3);
            check_products(&forms[i], 100, 250, tokens, 4);
        }
    /* Past the borders of pieces of K, of groups that lie across one, and of blocks of rows. */
    for (int i = 0; i < FORMS; i++)
        for (int cols = 1080; cols <= 1100; cols += 20)
            check_products(&forms[i], 33, cols, 45, 5);
    check_products(&(struct form){.bits = 8, .group = 96, .zero = 128}, 17, 1100, 45, 6);
    check_products(&(struct form){.bits = 4, .group = 96, .min = true}, 17, 1100, 45, 7);
    check_products(&forms[0], 33, 64, 530, 8);
    check_products(&forms[4], 33, 64, 530, 8);
    for (int tokens = 512; tokens < 515; tokens++) /* of each share, and a row that is left */
        check_products(&forms[2], 33, 64, tokens, 9);
    for (int tokens = 64; tokens < 67; tokens++)
        check_products(&forms[2], 300, 4200, tokens, 10);
    check_products(&forms[2], 40, 4200, 94, 10); /* emulated in blocks of columns, and on a unit: */
    check_products(&forms[2], 40, 4200, 286, 10); /* the last tile is not full */
}

/* What a body gives of these rows. */
struct kt_rows {
    const struct ops *ops;
    const struct matrix *w;
    const struct rows8 *x;
    const float *out;
};

static void check_some_rows(const struct kt_rows *all, int first, int count, int parts)
{
    struct rows8 from = rows8_from(all->x, (size_t)first);
    const size_t n = (size_t)all->w->rows;
    float *some = malloc((size_t)count * n * sizeof *some);
    struct op_gemm a = {.out = some, .x8 = &from, .w = all->w, .tokens = count};
    for (int part = 0; part < parts; part++)
        all->ops->gemm(&a, part, parts);
    kt_same(all->ops->name, some, all->out + (size_t)first * n, (size_t)count * n);
    free(some);
}

/* Rows by themselves, or among others, by one thread or by several: the same bits; and the bodies
 * that add in vectors of fused operations agree to the bit too. */
static void check_rows_alone(int k)
{
    enum { ROWS = 45, N = 130 };
    /* On both sides of where vectors give way to tiles, and tiles of rows are full. */
    static const int counts[] = {8, 9, 11, 12, 13, 15, 16, 17, 27, 28, 29};
    float *x = kt_floats(ROWS * k, 7), *fused = NULL;
    for (int i = 0; i < SHARES * FORMS; i++) {
        struct weights *w = weights_make(&forms[i / SHARES], N, k, 8);
        const enum share share = (enum share)(i % SHARES);
        for (int b = 1; ops_at(b); b++) {
            const struct ops *ops = ops_at(b);
            struct rows8 r = quantized_as(ops, x, ROWS, k, w->p.order, share);
            float *all = malloc(ROWS * N * sizeof *all);
            const struct kt_rows whole = {ops, &w->m, &r, all};
            struct op_gemm a = {.out = all, .x8 = &r, .w = &w->m, .tokens = ROWS};
            ops->gemm(&a, 0, 1);
            for (int count = 1; count <= 7; count++)
                for (int first = 0; first + count <= ROWS; first += 11)
                    check_some_rows(&whole, first, count, count);
            for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
                check_some_rows(&whole, (int)c, counts[c], 1);
            if (ops->name[0] == 'a') { /* avx or amx */
                if (fused)
                    kt_same("across bodies", all, fused, ROWS * N);
                free(fused);
                fused = kt_copy(all, ROWS * N);
            }
            free(all);
            rows8_free(&r);
        }
        free(fused);
        fused = NULL;
        weights_free(w);
    }
    free(x);
}

Test(packed, rows_depend_on_themselves_alone, .timeout = 240)
{
    check_rows_alone(300);
    check_rows_alone(700); /* more than a piece */
    check_rows_alone(1080);
}

/* A list of products, cut for several members, gives what each gives as a whole: packed and other
 * weights side by side, products of no row among them. */
static void check_list(const struct ops *ops, const struct matrix *const *w, const int *rows,
                       int parts)
{
    enum { LIST = 5, ROWS = 45, N = 130, K = 300 };
    float *x = kt_floats(ROWS * K, 7), *want = calloc(LIST * ROWS * N, sizeof *want);
    float *got = kt_copy(want, LIST * ROWS * N);
    struct rows8 r = quantized(ops, x, ROWS, K, NULL);
    uint64_t cost = 0;
    for (int i = 0; i < LIST; i++) {
        struct op_gemm a = {
            .out = want + i * ROWS * N, .x = x, .x8 = &r, .w = w[i], .tokens = rows[i]};
        cost += gemm_cost(w[i], rows[i]);
        if (rows[i])
            ops->gemm(&a, 0, 1);
    }
    for (int part = 0; part < parts; part++) {
        struct gemm_share s = gemm_share_of(cost, (size_t)part, (size_t)part + 1, (size_t)parts);
        for (int i = 0; i < LIST; i++) {
            struct op_gemm a = {
                .out = got + i * ROWS * N, .x = x, .x8 = &r, .w = w[i], .tokens = rows[i]};
            a.accumulate = 1; /* twice would be seen */
            if (gemm_share_take(&s, &a))
                ops->gemm(&a, 0, 1);
        }
        cr_assert_eq(s.at, cost);
    }
    kt_same(ops->name, got, want, LIST * ROWS * N);
    rows8_free(&r);
    free(got);
    free(want);
    free(x);
}

Test(packed, lists_of_products, .timeout = 120)
{
    static const int rows[][5] = {{1, 1, 1, 1, 1}, {45, 0, 3, 1, 7}, {0, 0, 0, 2, 0}};
    struct weights *eight = weights_make(&forms[0], 130, 300, 8);
    struct weights *four = weights_make(&forms[6], 130, 300, 9);
    struct kt_matrix plain = kt_matrix_make(130, 300, DTYPE_BF16, 2, 5);
    const struct matrix *w[] = {&eight->m, &four->m, &plain.m, &eight->m, &four->m};
    for (int b = 0; ops_at(b); b++)
        for (int i = 0; i < 3; i++)
            for (int parts = 1; parts < 12; parts += 1 + parts / 3)
                check_list(ops_at(b), w, rows[i], parts);
    free(plain.memory);
    weights_free(four);
    weights_free(eight);
}

/* Members' parts are of like cost, up to a panel. */
Test(packed, shares_are_even)
{
    struct matrix w = {.dtype = DTYPE_BF16, .rows = 160, .cols = 64};
    enum { LIST = 7, PARTS = 4 };
    int panels[PARTS] = {0};
    for (int part = 0; part < PARTS; part++) {
        struct gemm_share s =
            gemm_share_of(LIST * gemm_cost(&w, 2), (size_t)part, (size_t)part + 1, PARTS);
        for (int i = 0; i < LIST; i++) {
            struct op_gemm a = {.w = &w, .tokens = 2};
            if (gemm_share_take(&s, &a))
                panels[part] += (a.end - a.first) / PACKED_ROWS;
        }
    }
    for (int part = 0; part < PARTS; part++)
        cr_assert(panels[part] == 17 || panels[part] == 18, "%d", panels[part]);
}

/* Rows of x taken in another order, some of them twice. */
Test(packed, rows_by_number)
{
    enum { ROWS = 9, OUT = 12, K = 100 };
    static const int32_t row[OUT] = {8, 8, 0, 3, 5, 1, 2, 8, 0, 4, 7, 6};
    float *x = kt_floats(ROWS * K, 3), *picked = malloc(OUT * K * sizeof *picked);
    const size_t stride = rows16_stride(K);
    for (int i = 0; i < OUT; i++)
        memcpy(picked + i * K, x + row[i] * K, K * sizeof *x);
    for (int b = 0; ops_at(b); b++) {
        const struct ops *ops = ops_at(b);
        struct rows8 want = quantized(ops, picked, OUT, K, NULL), got = rows8_make(OUT, K);
        struct op_quantize q = {.out = got, .x = x, .tokens = OUT, .dim = K, .row = row};
        for (int part = 0; part < 3; part++)
            ops->quantize(&q, part, 3);
        cr_assert(same_q(&got, &want, OUT));
        for (int i = 0; i < OUT * want.spans; i++) {
            cr_assert_eq(got.scale[i], want.scale[i]);
            cr_assert_eq(memcmp(got.sum + 2 * i, want.sum + 2 * i, 2 * sizeof *got.sum), 0);
        }
        rows8_free(&want);
        rows8_free(&got);
        if (!ops->round)
            continue;
        uint16_t *x16 = malloc(OUT * stride * sizeof *x16);
        for (int part = 0; part < 3; part++)
            ops->round(&(struct op_round){.out = x16, .x = x, .row = row, .tokens = OUT, .dim = K},
                       part, 3);
        for (int i = 0; i < OUT * K; i++)
            cr_assert_eq(x16[(size_t)(i / K) * stride + (size_t)(i % K)],
                         dtype_f32_to_bf16(picked[i]));
        free(x16);
    }
    free(picked);
    free(x);
}

#if defined(__x86_64__)
static void gemm_off_by_a_bit(const struct op_gemm *a, int part, int parts)
{
    cpu_ops_vnni.gemm(a, part, parts);
    ((uint32_t *)(void *)a->out)[a->tokens * a->w->rows - 1] ^= 1;
}

static void gemm_of_pairs_off_by_a_bit(const struct op_gemm *a, int part, int parts)
{
    cpu_ops_amx_emulated.gemm(a, part, parts);
    if (a->w->panels)
        ((uint32_t *)(void *)a->out)[a->tokens * a->w->rows - 1] ^= 1;
}

/* A tile unit that computes something else is found out. */
Test(packed, tiles_are_tried_before_they_are_used)
{
    struct ops wrong = cpu_ops_vnni;
    wrong.gemm = gemm_off_by_a_bit;
    if (!cpu_has_vnni())
        cr_skip_test("this CPU has no VNNI");
    cr_assert(cpu_tiles_agree(&cpu_ops_amx_emulated, &cpu_ops_vnni));
    cr_assert_not(cpu_tiles_agree(&wrong, &cpu_ops_vnni));
    wrong = cpu_ops_amx_emulated;
    wrong.gemm = gemm_of_pairs_off_by_a_bit;
    cr_assert_not(cpu_tiles_agree(&wrong, &cpu_ops_vnni));
}
#endif

/* What a body multiplies rows of bf16 with: weights as they lie, or in panels. */
static struct kt_matrix bf16_weights_of(const struct ops *ops, int rows, int cols, uint64_t seed)
{
    struct kt_matrix w = kt_matrix_make(rows, cols, DTYPE_BF16, 2, seed);
    if (!ops->panels)
        return w;
    float *row = malloc((size_t)cols * sizeof *row);
    char *panels = aligned_alloc(64, panels_bytes(rows, cols));
    memset(panels, 0, panels_bytes(rows, cols));
    for (size_t r = 0; r < (size_t)rows; r++) {
        dtype_convert(row, DTYPE_F32, (const char *)w.m.data + r * (size_t)cols * 2, DTYPE_BF16,
                      (size_t)cols);
        panels_put(panels, cols, r, 0, row, (size_t)cols / 2);
        panels_put(panels, cols, r, (size_t)cols / 2, row + cols / 2, (size_t)(cols - cols / 2));
    }
    free(row);
    free(w.memory);
    w.memory = panels;
    w.m.data = panels;
    w.m.panels = true;
    return w;
}

static struct kt_matrix bf16_weights(const struct ops *ops, int rows, int cols)
{
    return bf16_weights_of(ops, rows, cols, 5);
}

static void check_bf16(const struct ops *ops, int rows, int n, int k)
{
    struct kt_matrix w = bf16_weights(ops, n, k);
    float *x = kt_floats((size_t)(rows * k), 6), *want, *got, *one;
    const size_t stride = rows16_stride(k), cells = (size_t)rows * stride;
    uint16_t *x16 = memset(malloc(cells * sizeof *x16), 0xff, cells * sizeof *x16);
    size_t out = (size_t)(rows * n);
    want = malloc(out * sizeof *want);
    got = malloc(out * sizeof *got);
    one = malloc(out * sizeof *one);
    for (int part = 0; part < 3; part++)
        ops->round(&(struct op_round){.out = x16, .x = x, .tokens = rows, .dim = k}, part, 3);
    for (int e = 0; e < rows * k; e++)
        cr_assert_eq(x16[(size_t)(e / k) * stride + (size_t)(e % k)], dtype_f32_to_bf16(x[e]));
    struct op_gemm a = {.x16 = x16, .w = &w.m, .tokens = rows};
    a.out = want;
    ops_ref()->gemm(&a, 0, 1);
    a.out = got;
    for (int part = 0; part < 3; part++)
        ops->gemm(&a, part, 3);
    kt_near(ops->name, got, want, out, (struct kt_tolerance){2e-7 * k + 1e-6, 1e-5});
    for (int first = 0, count = 1; first + count <= rows; first += count, count++) {
        a = (struct op_gemm){
            .out = one, .x16 = x16 + (size_t)first * stride, .w = &w.m, .tokens = count};
        ops->gemm(&a, 0, 1);
        kt_same(ops->name, one, got + first * n, (size_t)(count * n));
    }
    free(one);
    free(got);
    free(want);
    free(x16);
    free(x);
    free(w.memory);
}

/* Bodies with tiles, emulated ones too, agree to the bit. */
static void check_bf16_across(int rows, int n, int k)
{
    float *x = kt_floats((size_t)(rows * k), 6), *first = NULL;
    uint16_t *x16 = malloc((size_t)rows * rows16_stride(k) * sizeof *x16);
    for (int b = 0; ops_at(b); b++) {
        const struct ops *ops = ops_at(b);
        if (!ops->tiles)
            continue;
        struct kt_matrix w = bf16_weights(ops, n, k);
        float *out = malloc((size_t)(rows * n) * sizeof *out);
        ops->round(&(struct op_round){.out = x16, .x = x, .tokens = rows, .dim = k}, 0, 1);
        struct op_gemm a = {.out = out, .x16 = x16, .w = &w.m, .tokens = rows};
        ops->gemm(&a, 0, 1);
        if (first)
            kt_same(ops->name, out, first, (size_t)(rows * n));
        free(first);
        first = out;
        free(w.memory);
    }
    free(first);
    free(x16);
    free(x);
}

/* Weights of bf16 times rows of bf16, on the bodies that have products of both. */
Test(packed, bf16_rows, .timeout = 120)
{
    static const int ns[] = {1, 7, 100}, ks[] = {1, 31, 32, 100, 2080, 4200};
    for (int b = 0; ops_at(b); b++)
        for (size_t i = 0; ops_at(b)->round && i < 18; i++)
            check_bf16(ops_at(b), 13, ns[i / 6], ks[i % 6]);
    for (int b = 0; ops_at(b); b++)
        for (int rows = 16; ops_at(b)->round && rows < 90; rows += 23)
            check_bf16(ops_at(b), rows, 49, 333);
    for (int b = 0; ops_at(b); b++)
        if (ops_at(b)->round)
            check_bf16(ops_at(b), 530, 33, 64);
    for (int rows = 1; rows < 40; rows += rows < 4 ? 1 : 9)
        check_bf16_across(rows, 100, 1100);
    check_bf16_across(140, 100, 1100);
    /* In tiles: more panels than wait for a block of columns, of which there are several; rows
     * that leave a part of either tile. */
    for (int b = 0; ops_at(b); b++)
        if (ops_at(b)->round && ops_at(b)->panels) {
            check_bf16(ops_at(b), 140, 800, 4000);
            check_bf16(ops_at(b), 155, 300, 4000);
        }
}

/* Rows [first, last) of a gemm, `panels` at a time. */
static void run_cut(const struct ops *ops, const struct op_gemm *a, int first, int last, int panels)
{
    struct op_gemm_rows part;
    ops_cut_rows(a, (size_t)first, (size_t)(last - first), &part);
    for (int col = 0; col < a->w->rows; col = part.op.end) {
        part.op.first = col;
        part.op.end =
            a->w->rows - col > panels * PACKED_ROWS ? col + panels * PACKED_ROWS : a->w->rows;
        ops->gemm(&part.op, 0, 1);
    }
}

/* A gemm with a unit gives what two gemms and the unit give, cut anywhere, bit for bit. */
struct gated {
    const struct ops *ops;
    const struct matrix *gate, *up;
    const struct rows8 *x8;
    const uint16_t *x16;
    int tokens;
};

static void check_gated(const struct gated *g, const float *bias, enum glu_kind kind)
{
    const float *up_bias = kind == GLU_GELU ? NULL : bias;
    const int n = g->gate->rows;
    const size_t cells = (size_t)(g->tokens * n), stride = rows16_stride(n);
    float *want = malloc(cells * sizeof *want), *up = malloc(cells * sizeof *up);
    float *got = malloc(cells * sizeof *got);
    uint16_t *want16 = malloc((size_t)g->tokens * stride * sizeof *want16);
    uint16_t *got16 = malloc((size_t)g->tokens * stride * sizeof *got16);
    struct op_gemm a = {
        .out = want, .x8 = g->x8, .x16 = g->x16, .w = g->gate, .bias = bias, .tokens = g->tokens};
    struct gemm_unit unit = {
        .up = g->up, .up_bias = up_bias, .kind = kind, .limit = 2, .alpha = 1.7f};
    cr_assert(ops_gates(g->ops, &a, g->up), "%s: %d tokens, %d x %d, panels %d", g->ops->name,
              g->tokens, n, g->gate->cols, g->gate->panels);
    g->ops->gemm(&a, 0, 1);
    a.out = up, a.w = g->up, a.bias = up_bias;
    g->ops->gemm(&a, 0, 1);
    struct op_glu glu = {.out = want,
                         .gate = want,
                         .up = up,
                         .kind = kind,
                         .limit = 2,
                         .alpha = 1.7f,
                         .tokens = g->tokens,
                         .dim = n};
    g->ops->glu(&glu, 0, 1);
    memset(want16, 0xee, (size_t)g->tokens * stride * sizeof *want16);
    memset(got16, 0xee, (size_t)g->tokens * stride * sizeof *got16);
    g->ops->round(&(struct op_round){.out = want16, .x = want, .tokens = g->tokens, .dim = n}, 0,
                  1);
    a.w = g->gate, a.bias = bias;
    a.unit = &unit;
    for (int rounded = 0; rounded < 2; rounded++) {
        unit.out16 = rounded ? got16 : NULL;
        a.out = rounded ? NULL : got;
        run_cut(g->ops, &a, 0, 1, 3);
        run_cut(g->ops, &a, 1, 21, 2);
        run_cut(g->ops, &a, 21, 34, 2);
        run_cut(g->ops, &a, 34, g->tokens, n);
    }
    kt_same(g->ops->name, got, want, cells);
    cr_assert_arr_eq(got16, want16, (size_t)g->tokens * stride * sizeof *got16);
    free(got16);
    free(want16);
    free(got);
    free(up);
    free(want);
}

static void check_gated_sizes(const struct ops *ops, int tokens, int n, int k)
{
    float *x = kt_floats((size_t)(tokens * k), 6), *bias = kt_floats((size_t)n, 7);
    uint16_t *x16 = malloc((size_t)tokens * rows16_stride(k) * sizeof *x16);
    struct kt_matrix a = bf16_weights_of(ops, n, k, 5), b = bf16_weights_of(ops, n, k, 8);
    ops->round(&(struct op_round){.out = x16, .x = x, .tokens = tokens, .dim = k}, 0, 1);
    struct gated g = {.ops = ops, .gate = &a.m, .up = &b.m, .x16 = x16, .tokens = tokens};
    check_gated(&g, NULL, GLU_SILU);
    check_gated(&g, bias, GLU_CLAMPED);
    for (int f = 0; f < FORMS && ops->tiles; f++) {
        struct weights *gate = weights_make(&forms[f], n, k, 3), *up;
        up = weights_make(&forms[f], n, k, 4);
        memcpy(up->p.table, gate->p.table, sizeof up->p.table);
        for (enum share share = A_SPAN; share < SHARES && !forms[f].order; share++) {
            if (!can_share(&gate->p, share))
                continue;
            struct rows8 x8 = quantized_as(ops, x, tokens, k, NULL, share);
            g = (struct gated){
                .ops = ops, .gate = &gate->m, .up = &up->m, .x8 = &x8, .tokens = tokens};
            check_gated(&g, f % 2 ? bias : NULL, f % 3 ? GLU_SILU : f ? GLU_GELU : GLU_GELU_TANH);
            rows8_free(&x8);
        }
        weights_free(gate);
        weights_free(up);
    }
    free(a.memory);
    free(b.memory);
    free(x16);
    free(bias);
    free(x);
}

/* Everything that is by rows begins with the first one that is left, what is by columns stays. */
Test(packed, gemms_cut_by_rows)
{
    float out[3 * 40], x[3 * 64], bias[40];
    uint16_t x16[3 * 96], out16[3 * 96];
    struct rows8 x8 = rows8_make(3, 64);
    const struct matrix w = {.dtype = DTYPE_BF16, .rows = 40, .cols = 64};
    const struct gemm_unit unit = {.up = &w, .up_bias = bias, .out16 = out16};
    struct op_gemm a = {.out = out, .x = x, .x8 = &x8, .x16 = x16, .w = &w, .bias = bias};
    struct op_gemm_rows of;
    a.tokens = 3;
    a.unit = &unit;
    ops_cut_rows(&a, 1, 2, &of);
    cr_assert(of.op.tokens == 2 && of.op.out == out + 40 && of.op.x == x + 64);
    cr_assert(of.op.x16 == x16 + rows16_stride(64) && of.op.bias == bias && of.op.w == &w);
    cr_assert(of.op.x8->q == x8.q + rows8_stride(2) && of.op.x8->scale == x8.scale + 2);
    cr_assert(of.op.x8->sum == x8.sum + 4 && unit.out16 == out16);
    cr_assert(of.op.unit->out16 == out16 + rows16_stride(40) && of.op.unit->up_bias == bias);
    a = (struct op_gemm){.out = out, .x = x, .w = &w, .tokens = 3, .x_stride = 5, .out_stride = 7};
    ops_cut_rows(&a, 2, 1, &of);
    cr_assert(of.op.out == out + 14 && of.op.x == x + 10);
    cr_assert(!of.op.x8 && !of.op.x16 && !of.op.unit);
    rows8_free(&x8);
}

/* Blocks are about as large as they shall be, whatever the number of rows. */
Test(packed, blocks_of_rows)
{
    for (size_t rows = 1; rows < 3000; rows++) {
        const size_t blocks = ops_blocks(rows, 256), each = (rows + blocks - 1) / blocks;
        cr_assert(each < 384 && (blocks == 1 || each >= 192), "%zu: %zu", rows, blocks);
    }
}

/* Few rows, what else a gemm may have, and weights that are not alike. */
Test(packed, units_that_are_refused)
{
    enum { N = 40, K = 64 };
    struct weights *a = weights_make(&forms[0], N, K, 3), *b = weights_make(&forms[0], N, K, 4);
    struct weights *other = weights_make(&forms[6], N, K, 4);
    const struct op_gemm many = {.w = &a->m, .tokens = 48};
    for (int body = 0; ops_at(body); body++) {
        const struct ops *ops = ops_at(body);
        struct op_gemm few = many, scaled = many, added = many;
        few.tokens = 47;
        scaled.scale = 2;
        added.accumulate = 1;
        cr_assert_eq(ops_gates(ops, &many, &b->m), ops->tiles);
        cr_assert_not(ops_gates(ops, &few, &b->m));
        cr_assert_not(ops_gates(ops, &scaled, &b->m));
        cr_assert_not(ops_gates(ops, &added, &b->m));
        cr_assert_not(ops_gates(ops, &many, &other->m));
        struct matrix wide = b->m, dense = {.dtype = DTYPE_BF16, .rows = N, .cols = K};
        wide.wide_rows = true;
        cr_assert_not(ops_gates(ops, &many, &wide));
        cr_assert_not(ops_gates(ops, &many, &dense));
    }
    weights_free(other);
    weights_free(b);
    weights_free(a);
}

Test(packed, gated_units, .timeout = 240)
{
    for (int b = 0; ops_at(b); b++) {
        if (!ops_at(b)->gates)
            continue;
        check_gated_sizes(ops_at(b), 48, 100, 320);
        check_gated_sizes(ops_at(b), 71, 33, 64);
        check_gated_sizes(ops_at(b), 513, 16, 96);
        check_gated_sizes(ops_at(b), 513, 16, 64);
        check_gated_sizes(ops_at(b), 529, 170, 800);
        check_gated_sizes(ops_at(b), 300, 170, 2100); /* in blocks of columns */
    }
}

static void check_embedding(const struct form *f)
{
    struct weights *w = weights_make(f, 50, 96, 2);
    int32_t ids[] = {49, 0, 17, 16};
    for (int b = 0; ops_at(b); b++) {
        float out[4 * 96];
        struct op_embed a = {.out = out, .table = &w->m, .ids = ids, .tokens = 4};
        ops_at(b)->embed(&a, 0, 1);
        for (int i = 0; i < 4; i++)
            kt_same(ops_at(b)->name, out + i * 96, w->values + ids[i] * 96, 96);
    }
    weights_free(w);
}

/* A row with no number in it has none in its outputs, and leaves its neighbours alone, in tiles
 * too. */
Test(packed, one_row_of_no_number_among_many)
{
    enum { ROWS = 45, N = 33, K = 100 };
    for (int b = 1; ops_at(b); b++) {
        float *x = kt_floats(ROWS * K, 3), *out = malloc(ROWS * N * sizeof *out);
        x[7 * K + 40] = NAN;
        struct op_gemm a;
        for (int whole = 0; whole < 2; whole++) {
            struct weights *w = weights_make(&forms[whole ? 2 : 0], N, K, 5);
            struct rows8 r = quantized_as(ops_at(b), x, ROWS, K, NULL, whole ? A_ROW : A_SPAN);
            a = (struct op_gemm){.out = out, .x8 = &r, .w = &w->m, .tokens = ROWS};
            ops_at(b)->gemm(&a, 0, 1);
            for (int i = 0; i < ROWS * N; i++)
                cr_assert_eq(isnan(out[i]) != 0, i / N == 7, "%s %d", ops_at(b)->name, i);
            rows8_free(&r);
            weights_free(w);
        }
        if (ops_at(b)->round) {
            struct kt_matrix w16 = bf16_weights(ops_at(b), N, K);
            const size_t cells = ROWS * rows16_stride(K);
            uint16_t *x16 = malloc(cells * sizeof *x16);
            ops_at(b)->round(&(struct op_round){.out = x16, .x = x, .tokens = ROWS, .dim = K}, 0,
                             1);
            a = (struct op_gemm){.out = out, .x16 = x16, .w = &w16.m, .tokens = ROWS};
            ops_at(b)->gemm(&a, 0, 1);
            for (int i = 0; i < ROWS * N; i++)
                cr_assert_eq(isnan(out[i]) != 0, i / N == 7, "%s bf16 %d", ops_at(b)->name, i);
            free(x16);
            free(w16.memory);
        }
        free(out);
        free(x);
    }
}

Test(packed, embedding)
{
    check_embedding(&forms[3]);
    check_embedding(&forms[FORMS - 1]);
}
