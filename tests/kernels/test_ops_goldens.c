/* Every body against what PyTorch and Hugging Face's Llama layers computed: goldens/ops.bin,
 * written and described by tools/goldens/ops_goldens.py. */
#include "kernels/kernels_util.h"

struct golden {
    char op[16];
    int32_t ints[8];
    float reals[2];
    int32_t n;
};

struct check {
    const struct ops *ops;
    const struct golden *g;
    const float *data;
};

static struct kt_matrix stored(const float *values, int rows, int cols, enum dtype dtype)
{
    struct kt_matrix k = kt_matrix_make(rows, cols, dtype, 1, 1);
    dtype_convert((char *)k.memory + 1, dtype, values, DTYPE_F32, (size_t)rows * (size_t)cols);
    return k;
}

static void check_rmsnorm(const struct check *c)
{
    int tokens = c->g->ints[0], dim = c->g->ints[1];
    size_t n = (size_t)(tokens * dim);
    const float *weights = c->data + n, *want = weights + dim;
    struct kt_matrix weight = stored(weights, 1, dim, (enum dtype)c->g->ints[2]);
    float *out = malloc(n * sizeof *out);
    struct op_rmsnorm a = {.out = out,
                           .x = c->data,
                           .weight = &weight.m,
                           .eps = c->g->reals[0],
                           .tokens = tokens,
                           .dim = dim};
    c->ops->rmsnorm(&a, 0, 1);
    kt_near(c->ops->name, out, want, n, (struct kt_tolerance){1e-6, 2e-6});
    free(out);
    free(weight.memory);
}

static void check_gemm(const struct check *c)
{
    int m = c->g->ints[0], n = c->g->ints[1], k = c->g->ints[2];
    const float *weights = c->data + m * k, *bias = weights + n * k, *want = bias + n;
    struct kt_matrix w = stored(weights, n, k, (enum dtype)c->g->ints[3]);
    float *out = malloc((size_t)(m * n) * sizeof *out);
    struct op_gemm a = {.out = out, .x = c->data, .w = &w.m, .bias = bias, .tokens = m};
    c->ops->gemm(&a, 0, 1);
    kt_near(c->ops->name, out, want, (size_t)(m * n), (struct kt_tolerance){2e-5, 2e-6});
    free(out);
    free(w.memory);
}

static void check_rope(const struct check *c)
{
    int tokens = c->g->ints[0], heads = c->g->ints[1], dim = c->g->ints[2];
    size_t n = (size_t)(tokens * heads * dim);
    const float *inv_freq = c->data + tokens, *x = inv_freq + dim / 2, *want = x + n;
    float *out = kt_copy(x, n);
    int32_t positions[16];
    cr_assert_leq(tokens, 16);
    for (int i = 0; i < tokens; i++)
        positions[i] = (int32_t)c->data[i];
    struct op_rope a = {.x = out,
                        .positions = positions,
                        .inv_freq = inv_freq,
                        .attention_factor = c->g->reals[0],
                        .tokens = tokens,
                        .heads = heads,
                        .head_dim = dim};
    c->ops->rope(&a, 0, 1);
    kt_near(c->ops->name, out, want, n, (struct kt_tolerance){1e-6, 1e-6});
    free(out);
}

static void check_attention(const struct check *c)
{
    int tokens = c->g->ints[0], heads = c->g->ints[1];
    size_t n_q = (size_t)(tokens * heads * c->g->ints[3]);
    size_t n_kv = (size_t)(tokens * c->g->ints[2] * c->g->ints[3]);
    const float *k = c->data + n_q, *v = k + n_kv, *want = v + n_kv;
    struct kv_layout l = {.layers = 1,
                          .kv_heads = c->g->ints[2],
                          .head_dim = c->g->ints[3],
                          .value_dim = c->g->ints[3],
                          .block_tokens = 16,
                          .blocks = tokens / 16 + 1,
                          .dtype = (enum dtype)c->g->ints[4]};
    struct kt_batch b = kt_batch_make(&(struct kt_spec){1, {0}, {tokens}}, 16, l.blocks);
    void *pool = kt_pool_make(&l);
    float *out = malloc(n_q * sizeof *out);
    struct op_kv_store store = {.pool = pool, .layout = &l, .k = k, .v = v, .rows = &b.rows};
    struct op_attention a = {.out = out,
                             .q = c->data,
                             .pool = pool,
                             .layout = &l,
                             .heads = heads,
                             .scale = c->g->reals[0],
                             .rows = &b.rows};
    c->ops->kv_store(&store, 0, 1);
    c->ops->attention(&a, 0, 1);
    kt_near(c->ops->name, out, want, n_q, (struct kt_tolerance){4e-6, 2e-6});
    free(out);
    free(pool);
    kt_batch_free(&b);
}

static void check_silu_mul(const struct check *c)
{
    int tokens = c->g->ints[0], dim = c->g->ints[1];
    size_t n = (size_t)(tokens * dim);
    float *out = malloc(n * sizeof *out);
    struct op_glu a = {
        .out = out, .gate = c->data, .up = c->data + n, .tokens = tokens, .dim = dim};
    c->ops->glu(&a, 0, 1);
    kt_near(c->ops->name, out, c->data + 2 * n, n, (struct kt_tolerance){1e-9, 2e-6});
    free(out);
}

static const struct {
    const char *op;
    void (*check)(const struct check *c);
} checks[] = {{"rmsnorm", check_rmsnorm},
              {"gemm", check_gemm},
              {"rope", check_rope},
              {"attention", check_attention},
              {"silu_mul", check_silu_mul}};

static int check_record(const struct golden *g, const float *data)
{
    int done = 0;
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
        for (int b = 0; strcmp(g->op, checks[i].op) == 0 && ops_at(b); b++, done++)
            checks[i].check(&(struct check){ops_at(b), g, data});
    return done;
}

Test(goldens, pytorch)
{
    FILE *file = fopen(BATON_SOURCE_DIR "/tests/kernels/goldens/ops.bin", "rb");
    struct golden g;
    int records = 0;
    cr_assert_not_null(file, "goldens/ops.bin is part of the repository");
    while (fread(&g, sizeof g, 1, file) == 1) {
        float *data = malloc((size_t)g.n * sizeof *data);
        cr_assert_eq(fread(data, sizeof *data, (size_t)g.n, file), (size_t)g.n);
        cr_assert_gt(check_record(&g, data), 0, "unknown op");
        free(data);
        records++;
    }
    fclose(file);
    cr_assert_eq(records, 17);
}
