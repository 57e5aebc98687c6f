/* Every op on every body that this CPU can run, against ref.
 *
 * Tolerances: weights and KV are rounded once, before either side reads them, so one tolerance
 * holds for every stored dtype: what fp32 sums of that length may lose against double. */
#include "kernels/cpu/cpu.h"
#include "kernels/kernels_util.h"

static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16,
                                    DTYPE_FP8, DTYPE_INT8, DTYPE_INT4}; /* plain ones first */

/* Sums of k products of numbers in [-1, 1]. */
static struct kt_tolerance sum_tolerance(int k)
{
    return (struct kt_tolerance){.absolute = 6e-8 * (k + 4), .relative = 1e-6};
}

static int round_up(int v, int by)
{
    return (v + by - 1) / by * by;
}

struct gemm_case {
    int m, n, k, options; /* options: bit 0 bias, 1 accumulate, 2 strides */
    enum dtype dtype;
};

static void gemm_check(const struct gemm_case *c)
{
    struct kt_matrix w = kt_matrix_make(c->n, c->k, c->dtype, 1 + c->k % 3, 11);
    int x_stride = c->options & 4 ? c->k + 5 : c->k, out_stride = c->options & 4 ? c->n + 3 : c->n;
    /* exactly as long as the last row needs */
    size_t x_len = (size_t)((c->m - 1) * x_stride + c->k);
    size_t out_len = (size_t)((c->m - 1) * out_stride + c->n);
    float *x = kt_floats(x_len, 12), *bias = kt_floats((size_t)c->n, 13);
    float *start = kt_floats(out_len, 14), *want = kt_copy(start, out_len);
    struct op_gemm a = {.out = want,
                        .x = x,
                        .w = &w.m,
                        .bias = c->options & 1 ? bias : NULL,
                        .accumulate = c->options & 2,
                        .tokens = c->m,
                        .x_stride = c->options & 4 ? x_stride : 0,
                        .out_stride = c->options & 4 ? out_stride : 0};
    ops_ref()->gemm(&a, 0, 1);
    for (int b = 1; ops_at(b); b++) {
        char what[128];
        float *got = kt_copy(start, out_len);
        snprintf(what, sizeof what, "%s %s M%d N%d K%d options %d", ops_at(b)->name,
                 dtype_name(c->dtype), c->m, c->n, c->k, c->options);
        a.out = got;
        ops_at(b)->gemm(&a, 0, 1);
        kt_near(what, got, want, out_len, sum_tolerance(c->k));
        free(got);
    }
    free(want);
    free(start);
    free(bias);
    free(x);
    free(w.memory);
}

Test(bodies, gemm)
{
    static const int ms[] = {1, 2, 4, 5, 6, 9, 65}, ns[] = {1, 5, 6, 25, 101};
    static const int ks[] = {1, 7, 17, 100, 513, 1024, 2090};
    int count = 0;
    for (size_t m = 0; m < sizeof ms / sizeof ms[0]; m++)
        for (size_t n = 0; n < sizeof ns / sizeof ns[0]; n++)
            for (size_t k = 0; k < sizeof ks / sizeof ks[0]; k++)
                for (size_t d = 0; d < 3; d++) {
                    struct gemm_case c = {ms[m], ns[n], ks[k], count++ % 8, dtypes[d]};
                    gemm_check(&c);
                }
}

Test(bodies, embed)
{
    static const int32_t ids[] = {4, 0, 4, 3, 1};
    for (size_t d = 0; d < 3; d++)
        for (int dim = 1; dim < 70; dim += 17) {
            struct kt_matrix table = kt_matrix_make(5, dim, dtypes[d], 1, 21);
            size_t n = 5 * (size_t)dim;
            float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
            struct op_embed a = {.out = want, .table = &table.m, .ids = ids, .tokens = 5};
            ops_ref()->embed(&a, 0, 1);
            a.out = got;
            for (int b = 1; ops_at(b); b++) {
                memset(got, 0, n * sizeof *got);
                ops_at(b)->embed(&a, 0, 1);
                kt_same(ops_at(b)->name, got, want, n); /* widening is exact */
            }
            free(got);
            free(want);
            free(table.memory);
        }
}

Test(bodies, rmsnorm)
{
    for (size_t d = 0; d < 3; d++)
        for (int dim = 1; dim < 300; dim += 23) {
            struct kt_matrix weight = kt_matrix_make(1, dim, dtypes[d], 3, 31);
            size_t n = 4 * (size_t)dim;
            float *x = kt_floats(n, 32), *want = malloc(n * sizeof *want);
            for (int i = 0; i < dim; i++) {
                x[i] *= 1e-4f;
                x[dim + i] *= 1e4f;
                x[2 * dim + i] = 0;
            }
            struct op_rmsnorm a = {
                .out = want, .x = x, .weight = &weight.m, .eps = 1e-5f, .tokens = 4, .dim = dim};
            ops_ref()->rmsnorm(&a, 0, 1);
            for (int b = 1; ops_at(b); b++) {
                float *got = kt_copy(x, n);
                a.out = got;
                a.x = got; /* in place */
                ops_at(b)->rmsnorm(&a, 0, 1);
                kt_near(ops_at(b)->name, got, want, n, (struct kt_tolerance){0, 2e-6});
                free(got);
            }
            free(want);
            free(x);
            free(weight.memory);
        }
}

Test(bodies, rope)
{
    static const int32_t positions[] = {0, 1, 2, 1000, 131071};
    for (int dim = 2; dim <= 160; dim += 26) {
        int heads = 3, stride = heads * dim + 7;
        float *x = kt_floats((size_t)(5 * stride), 41), inv_freq[80];
        for (int i = 0; i < dim / 2; i++)
            inv_freq[i] = (float)pow(10000, -2.0 * i / dim);
        float *want = kt_copy(x, (size_t)(5 * stride));
        struct op_rope a = {.x = want,
                            .positions = positions,
                            .inv_freq = inv_freq,
                            .attention_factor = 1.25f,
                            .tokens = 5,
                            .heads = heads,
                            .head_dim = dim,
                            .x_stride = stride};
        ops_ref()->rope(&a, 0, 1);
        for (int b = 1; ops_at(b); b++) {
            float *got = kt_copy(x, (size_t)(5 * stride));
            a.x = got;
            ops_at(b)->rope(&a, 0, 1);
            kt_near(ops_at(b)->name, got, want, (size_t)(5 * stride),
                    (struct kt_tolerance){1e-7, 1e-6});
            free(got);
        }
        free(want);
        free(x);
    }
}

Test(bodies, silu_mul)
{
    for (int dim = 1; dim < 300; dim += 29) {
        int stride = 2 * dim + 1;
        float *in = kt_floats((size_t)(3 * stride), 51);
        for (int i = 0; i < 2 * stride; i++)
            in[i] *= 40; /* far beyond where silu is 0 or x */
        float *want = malloc((size_t)(3 * dim) * sizeof *want), *got = NULL;
        struct op_glu a = {
            .out = want, .gate = in, .up = in + dim, .tokens = 3, .dim = dim, .in_stride = stride};
        ops_ref()->glu(&a, 0, 1);
        for (int b = 1; ops_at(b); b++) {
            free(got);
            got = malloc((size_t)(3 * dim) * sizeof *got);
            a.out = got;
            ops_at(b)->glu(&a, 0, 1);
            kt_near(ops_at(b)->name, got, want, (size_t)(3 * dim),
                    (struct kt_tolerance){1e-30, 1e-6});
        }
        free(got);
        free(want);
        free(in);
    }
}

struct attention_case {
    int heads, kv_heads, head_dim, block_tokens;
    enum dtype dtype;
    struct kt_spec spec;
};

/* Stores the first `start` positions of every sequence, then the batch itself, through body `ops`.
 */
static void store_all(const struct ops *ops, const struct attention_case *c,
                      const struct kv_layout *l, void *pool)
{
    struct kt_spec all = {.sequences = c->spec.sequences};
    for (int s = 0; s < all.sequences; s++)
        all.count[s] = c->spec.start[s] + c->spec.count[s];
    struct kt_batch b = kt_batch_make(&all, l->block_tokens, l->blocks);
    int stride = l->kv_heads * l->head_dim + 3;
    float *k = kt_floats((size_t)(b.rows.tokens * stride), 61);
    float *v = kt_floats((size_t)(b.rows.tokens * stride), 62);
    struct op_kv_store a = {.pool = pool,
                            .layout = l,
                            .layer = 1,
                            .k = k,
                            .v = v,
                            .kv_stride = stride,
                            .rows = &b.rows};
    for (int part = 0; part < 3; part++)
        ops->kv_store(&a, part, 3);
    free(v);
    free(k);
    kt_batch_free(&b);
}

static void attention_check(const struct attention_case *c)
{
    struct kv_layout l = {.layers = 2,
                          .kv_heads = c->kv_heads,
                          .head_dim = c->head_dim,
                          .value_dim = c->head_dim,
                          .block_tokens = c->block_tokens,
                          .dtype = c->dtype};
    for (int s = 0; s < c->spec.sequences; s++) {
        int used = round_up(c->spec.start[s] + c->spec.count[s], c->block_tokens) / c->block_tokens;
        l.blocks = used > l.blocks ? used : l.blocks;
    }
    l.blocks *= c->spec.sequences;
    char *pool = kt_pool_make(&l);
    store_all(ops_ref(), c, &l, pool);
    struct kt_batch b = kt_batch_make(&c->spec, c->block_tokens, l.blocks);
    int stride = c->heads * c->head_dim + 2;
    size_t n = (size_t)(b.rows.tokens * c->heads * c->head_dim);
    float *q = kt_floats((size_t)(b.rows.tokens * stride), 63), *want = malloc(n * sizeof *want);
    struct op_attention a = {.out = want,
                             .q = q,
                             .q_stride = stride,
                             .pool = pool,
                             .layout = &l,
                             .layer = 1,
                             .heads = c->heads,
                             .scale = 3 / sqrtf((float)c->head_dim),
                             .rows = &b.rows};
    ops_ref()->attention(&a, 0, 1);
    for (int i = 1; ops_at(i); i++) {
        char what[128];
        char *own = kt_pool_make(&l);
        float *got = malloc(n * sizeof *got);
        snprintf(what, sizeof what, "%s %s heads %d/%d dim %d block %d", ops_at(i)->name,
                 dtype_name(c->dtype), c->heads, c->kv_heads, c->head_dim, c->block_tokens);
        store_all(ops_at(i), c, &l, own);
        cr_assert(memcmp(own, pool, kv_pool_bytes(&l)) == 0, "%s: kv_store differs", what);
        a.out = got;
        a.pool = own;
        for (int part = 0; part < 2; part++)
            ops_at(i)->attention(&a, part, 2);
        kt_near(what, got, want, n, (struct kt_tolerance){2e-6, 1e-6});
        free(got);
        kt_pool_free(own, &l);
    }
    free(want);
    free(q);
    kt_batch_free(&b);
    kt_pool_free(pool, &l);
}

Test(bodies, kv_store_and_attention, .timeout = 240)
{
    static const struct {
        int heads, kv_heads, head_dim;
    } shapes[] = {{1, 1, 1},  {4, 4, 8},   {4, 2, 64},  {6, 2, 20},
                  {9, 1, 80}, {37, 1, 12}, {2, 1, 264}, {9, 1, 1024}};
    static const int block_tokens[] = {1, 3, 16, 64, 100, 256};
    static const struct kt_spec specs[] = {
        {1, {0}, {1}},
        {4, {130, 0, 63, 64}, {1, 1, 3, 1}},
        {3, {0, 5, 120}, {70, 9, 12}},
    };
    int count = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t t = 0; t < 6; t++)
            for (size_t p = 0; p < 3; p++) {
                struct attention_case c = {shapes[s].heads,         shapes[s].kv_heads,
                                           shapes[s].head_dim,      block_tokens[t],
                                           dtypes[count++ % 7 % 6], specs[p]};
                attention_check(&c);
            }
}

/* Bodies that a CPU can run and that are slower there than a lower one. */
static bool only_able(const struct ops *o)
{
#if defined(__x86_64__)
    return strcmp(o->name, "avx512_bf16") == 0 && !cpu_has_fast_bf16();
#else
    (void)o;
    return false;
#endif
}

Test(bodies, selection)
{
    const struct ops *ops = NULL;
    struct error err;
    cr_assert_str_eq(ops_at(0)->name, "ref");
    cr_assert_str_eq(ops_at(1)->name, "portable");
    cr_assert_eq(ops_cpu("auto", &ops, &err), ST_OK);
    int last = 0;
    while (ops_at(last + 1))
        last++;
    int best = last;
    while (only_able(ops_at(best)))
        best--;
    cr_assert(ops == ops_at(best), "auto is the best body that pays");
    for (int b = 1; b <= last; b++) {
        cr_assert_eq(ops_cpu(ops_at(b)->name, &ops, &err), ST_OK);
        cr_assert(ops == ops_at(b));
    }
    cr_assert_eq(ops_cpu("amx2", &ops, &err), ST_UNSUPPORTED);
    cr_assert_eq(ops_cpu("", &ops, &err), ST_UNSUPPORTED);
    cr_log_info("bodies on this CPU: %d", last);
}
