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
    const char *what;
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
    kt_near(c->what, out, want, n, (struct kt_tolerance){1e-6, 2e-6});
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
    kt_near(c->what, out, want, (size_t)(m * n), (struct kt_tolerance){2e-5, 2e-6});
    free(out);
    free(w.memory);
}

static void check_rope(const struct check *c)
{
    int tokens = c->g->ints[0], heads = c->g->ints[1], dim = c->g->ints[2];
    int stride = c->g->ints[3] ? c->g->ints[3] : dim; /* of "rope_part" */
    size_t n = (size_t)(tokens * heads * stride);
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
                        .head_dim = dim,
                        .head_stride = c->g->ints[3],
                        .interleaved = c->g->ints[4]};
    c->ops->rope(&a, 0, 1);
    kt_near(c->what, out, want, n, (struct kt_tolerance){1e-6, 1e-6});
    free(out);
}

/* Stores keys and values that follow the queries, and attends to them with what `a` says beside. */
static void run_attention(const struct check *c, struct kv_layout l, struct op_attention a,
                          const float *want, int out_dim)
{
    int tokens = c->g->ints[0];
    const float *k = c->data + tokens * a.heads * l.head_dim;
    const float *v = k + tokens * l.kv_heads * l.head_dim;
    size_t n_out = (size_t)(tokens * a.heads * out_dim);
    l.layers = 1;
    l.block_tokens = 16;
    l.blocks = tokens / 16 + 1;
    struct kt_batch b = kt_batch_make(&(struct kt_spec){1, {0}, {tokens}}, 16, l.blocks);
    char *pool = kt_pool_make(&l);
    float *out = malloc(n_out * sizeof *out);
    struct op_kv_store store = {.pool = pool, .layout = &l, .k = k, .v = v, .rows = &b.rows};
    a.out = out;
    a.q = c->data;
    a.pool = pool;
    a.layout = &l;
    a.rows = &b.rows;
    c->ops->kv_store(&store, 0, 1);
    c->ops->attention(&a, 0, 1);
    kt_near(c->what, out, want, n_out, (struct kt_tolerance){4e-6, 2e-6});
    free(out);
    kt_pool_free(pool, &l);
    kt_batch_free(&b);
}

static void check_attention(const struct check *c)
{
    const int *n = c->g->ints;
    const float *want = c->data + n[0] * (n[1] + 2 * n[2]) * n[3];
    struct kv_layout l = {
        .kv_heads = n[2], .head_dim = n[3], .value_dim = n[3], .dtype = (enum dtype)n[4]};
    struct op_attention a = {.heads = n[1], .scale = c->g->reals[0]};
    run_attention(c, l, a, want, n[3]);
}

static void check_silu_mul(const struct check *c)
{
    int tokens = c->g->ints[0], dim = c->g->ints[1];
    size_t n = (size_t)(tokens * dim);
    float *out = malloc(n * sizeof *out);
    struct op_glu a = {
        .out = out, .gate = c->data, .up = c->data + n, .tokens = tokens, .dim = dim};
    c->ops->glu(&a, 0, 1);
    kt_near(c->what, out, c->data + 2 * n, n, (struct kt_tolerance){1e-9, 2e-6});
    free(out);
}

/* Windows, caps, sinks, values of another size, latents. */
static void check_attend(const struct check *c)
{
    const int *n = c->g->ints;
    int tokens = n[0], heads = n[1];
    const float *sinks = c->data + tokens * (heads * n[3] + n[2] * (n[3] + n[4]));
    struct kv_layout l = {
        .kv_heads = n[2], .head_dim = n[3], .value_dim = n[4], .dtype = (enum dtype)(n[6] % 16)};
    struct op_attention a = {.out_dim = n[5],
                             .heads = heads,
                             .window = n[7],
                             .scale = c->g->reals[0],
                             .softcap = c->g->reals[1],
                             .sinks = n[6] >= 16 ? sinks : NULL};
    run_attention(c, l, a, sinks + heads, n[5]);
}

static void check_glu(const struct check *c)
{
    int tokens = c->g->ints[0], dim = c->g->ints[1];
    size_t n = (size_t)(tokens * dim);
    float *out = malloc(n * sizeof *out);
    struct op_glu a = {.out = out,
                       .gate = c->data,
                       .up = c->data + n,
                       .kind = (enum glu_kind)c->g->ints[2],
                       .limit = c->g->reals[0],
                       .alpha = c->g->reals[1],
                       .tokens = tokens,
                       .dim = dim};
    c->ops->glu(&a, 0, 1);
    kt_near(c->what, out, c->data + 2 * n, n, (struct kt_tolerance){2e-6, 2e-6});
    free(out);
}

static void check_route(const struct check *c)
{
    const int *n = c->g->ints;
    static const enum route_score scores[] = {ROUTE_SOFTMAX_TOP, ROUTE_SOFTMAX_TOP, ROUTE_SOFTMAX,
                                              ROUTE_SOFTMAX, ROUTE_SIGMOID};
    int tokens = n[0], experts = n[1], top_k = n[2], kind = n[3];
    const float *bias = c->data + tokens * experts, *want = bias + experts;
    const float *want_weight = want + tokens * top_k;
    int32_t expert[64];
    float weight[64];
    struct op_route a = {.expert = expert,
                         .weight = weight,
                         .logits = c->data,
                         .bias = kind == 4 ? bias : NULL,
                         .score = scores[kind],
                         .scale = c->g->reals[0],
                         .tokens = tokens,
                         .experts = experts,
                         .top_k = top_k,
                         .groups = n[4] > 1 ? n[4] : 0,
                         .top_groups = n[5],
                         .normalize = n[6] && kind != 3}; /* V2's router never does */
    cr_assert_leq(tokens * top_k, 64);
    c->ops->route(&a, 0, 1);
    for (int m = 0; m < tokens; m++)
        for (int i = m * top_k; i < (m + 1) * top_k; i++) {
            int at = m * top_k;
            while (at < (m + 1) * top_k && expert[at] != (int32_t)want[i])
                at++;
            cr_assert(at < (m + 1) * top_k, "%s kind %d token %d: expert %d was not chosen",
                      c->ops->name, kind, m, (int)want[i]);
            kt_near(c->what, &weight[at], &want_weight[i], 1, (struct kt_tolerance){0, 3e-6});
        }
}

static void check_softcap(const struct check *c)
{
    size_t n = (size_t)c->g->ints[0];
    float *out = kt_copy(c->data, n);
    struct op_softcap a = {.x = out, .cap = c->g->reals[0], .n = (int64_t)n};
    c->ops->softcap(&a, 0, 1);
    kt_near(c->what, out, c->data + n, n, (struct kt_tolerance){2e-7 * (double)a.cap, 1e-6});
    free(out);
}

static const struct {
    const char *op;
    void (*check)(const struct check *c);
} checks[] = {{"rmsnorm", check_rmsnorm},   {"gemm", check_gemm},
              {"rope", check_rope},         {"attention", check_attention},
              {"silu_mul", check_silu_mul}, {"attend", check_attend},
              {"rope_part", check_rope},    {"glu", check_glu},
              {"route", check_route},       {"softcap", check_softcap}};

static int check_record(const struct golden *g, const float *data)
{
    int done = 0;
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
        for (int b = 0; strcmp(g->op, checks[i].op) == 0 && ops_at(b); b++, done++) {
            char what[128];
            snprintf(what, sizeof what, "%s %s %d %d %d %d", ops_at(b)->name, g->op, g->ints[0],
                     g->ints[1], g->ints[2], g->ints[3]);
            checks[i].check(&(struct check){ops_at(b), g, data, what});
        }
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
    cr_assert_eq(records, 44);
}
