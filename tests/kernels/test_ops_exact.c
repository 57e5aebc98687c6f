/* Bit for bit: on each body a row's result depends on that row alone, whatever is computed beside
 * it, however work is split and wherever keys and values lie. */
#include "base/team.h"
#include "kernels/kernels_util.h"

static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16,
                                    DTYPE_FP8, DTYPE_INT8, DTYPE_INT4}; /* plain ones first */

enum { ROWS = 70 };

/* The sweeps below call the parts one after the other: a race detector finds nothing, slowly. */
#if defined(BATON_TSAN)
#define SWEEP() cr_skip_test("one thread only")
#else
#define SWEEP() (void)0
#endif

static void gemm_parts(const struct ops *ops, const struct op_gemm *a, int parts)
{
    for (int part = parts - 1; part >= 0; part--)
        ops->gemm(a, part, parts);
}

/* Rows [first, first + count) as a batch of their own against the same rows of `all`. */
static void gemm_slice(const struct ops *ops, const struct op_gemm *all, int first, int count,
                       int parts)
{
    int n = all->w->rows, k = all->w->cols, x_stride = k + 3, out_stride = n + 1;
    float *x = malloc((size_t)(count * x_stride) * sizeof *x);
    float *out = malloc((size_t)(count * out_stride) * sizeof *out);
    struct op_gemm a = *all;
    char what[128];
    for (int i = 0; i < count; i++)
        memcpy(x + i * x_stride, all->x + (size_t)(first + i) * (size_t)k, (size_t)k * sizeof *x);
    a.x = x;
    a.x_stride = x_stride;
    a.out = out;
    a.out_stride = out_stride;
    a.tokens = count;
    gemm_parts(ops, &a, parts);
    snprintf(what, sizeof what, "%s %s K%d rows %d+%d of %d, %d parts", ops->name,
             dtype_name(all->w->dtype), k, first, count, ROWS, parts);
    for (int i = 0; i < count; i++)
        kt_same(what, out + i * out_stride, all->out + (size_t)(first + i) * (size_t)n, (size_t)n);
    free(out);
    free(x);
}

Test(exact, gemm, .timeout = 240)
{
    static const int ns[] = {3, 53, 130, 101}, ks[] = {5, 513, 2090, 2048};
    static const int counts[] = {1, 2, 4, 5, 6, 8, 13, ROWS};
    SWEEP();
    for (int b = 0; ops_at(b); b++)
        for (size_t d = 0; d < 3; d++)
            for (size_t s = 0; s < 4; s++) {
                struct kt_matrix w = kt_matrix_make(ns[s], ks[s], dtypes[d], 2, 1);
                float *x = kt_floats((size_t)(ROWS * ks[s]), 2);
                float *bias = kt_floats((size_t)ns[s], 3);
                float *out = malloc((size_t)(ROWS * ns[s]) * sizeof *out);
                struct op_gemm a = {.out = out, .x = x, .w = &w.m, .bias = bias, .tokens = ROWS};
                ops_at(b)->gemm(&a, 0, 1);
                for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
                    for (int first = 0; first + counts[c] <= ROWS; first += 29)
                        for (int parts = 1; parts <= (b ? 5 : 2); parts++)
                            gemm_slice(ops_at(b), &a, first, counts[c], parts);
                free(out);
                free(bias);
                free(x);
                free(w.memory);
            }
}

/* NaN and infinity in two rows of x leave the others alone, and reach every output of their own. */
Test(exact, gemm_keeps_nan_in_its_row)
{
    enum { M = 13, N = 31, K = 75 };
    for (int b = 0; ops_at(b); b++)
        for (size_t d = 0; d < 3; d++) {
            struct kt_matrix w = kt_matrix_make(N, K, dtypes[d], 1, 1);
            float *x = kt_floats(M * K, 2), clean[M * N], dirty[M * N];
            struct op_gemm a = {.out = clean, .x = x, .w = &w.m, .tokens = M};
            ops_at(b)->gemm(&a, 0, 1);
            x[4 * K + 74] = NAN;
            x[5 * K + 3] = INFINITY;
            x[5 * K + 74] = -INFINITY;
            a.out = dirty;
            ops_at(b)->gemm(&a, 0, 1);
            for (int m = 0; m < M; m++)
                for (int n = 0; n < N; n++) {
                    if (m == 4)
                        cr_assert(isnan(dirty[m * N + n]), "%s", ops_at(b)->name);
                    else if (m == 5)
                        cr_assert_not(isfinite(dirty[m * N + n]), "%s", ops_at(b)->name);
                    else
                        kt_same(ops_at(b)->name, &dirty[m * N + n], &clean[m * N + n], 1);
                }
            free(x);
            free(w.memory);
        }
}

struct rows_data {
    const struct ops *ops;
    const float *x; /* [tokens, 2 * dim] */
    float *out;     /* [tokens, dim] */
    const struct matrix *weight;
    const int32_t *positions;
    const float *inv_freq;
    int dim, tokens;
};

static void run_rmsnorm(const struct rows_data *r, int part, int parts)
{
    struct op_rmsnorm a = {.out = r->out,
                           .x = r->x,
                           .weight = r->weight,
                           .eps = 1e-6f,
                           .tokens = r->tokens,
                           .dim = r->dim};
    r->ops->rmsnorm(&a, part, parts);
}

static void run_silu(const struct rows_data *r, int part, int parts)
{
    struct op_glu a = {.out = r->out,
                       .gate = r->x,
                       .up = r->x,
                       .tokens = r->tokens,
                       .dim = r->dim,
                       .in_stride = r->dim};
    r->ops->glu(&a, part, parts);
}

static void run_rope(const struct rows_data *r, int part, int parts)
{
    struct op_rope a = {.x = r->out,
                        .positions = r->positions,
                        .inv_freq = r->inv_freq,
                        .attention_factor = 1,
                        .tokens = r->tokens,
                        .heads = 1,
                        .head_dim = r->dim};
    if (part == parts - 1) /* parts run from the last to the first here */
        memcpy(r->out, r->x, (size_t)(r->tokens * r->dim) * sizeof(float));
    r->ops->rope(&a, part, parts);
}

static const struct {
    const char *name;
    void (*run)(const struct rows_data *r, int part, int parts);
} row_ops[] = {{"rmsnorm", run_rmsnorm}, {"glu", run_silu}, {"rope", run_rope}};

Test(exact, small_ops)
{
    enum { TOKENS = 9, DIM = 246 };
    int32_t positions[TOKENS];
    float inv_freq[DIM / 2], *x = kt_floats(TOKENS * DIM, 5), all[TOKENS * DIM], some[TOKENS * DIM];
    struct kt_matrix weight = kt_matrix_make(1, DIM, DTYPE_BF16, 1, 6);
    for (int i = 0; i < TOKENS; i++)
        positions[i] = 77 * i;
    for (int i = 0; i < DIM / 2; i++)
        inv_freq[i] = 1 / (1 + (float)i);
    x[3 * DIM + 5] = NAN;
    x[4 * DIM + 245] = INFINITY;
    for (int b = 0; ops_at(b); b++)
        for (size_t o = 0; o < 3; o++) {
            struct rows_data r = {ops_at(b), x, all, &weight.m, positions, inv_freq, DIM, TOKENS};
            char what[64];
            snprintf(what, sizeof what, "%s %s", ops_at(b)->name, row_ops[o].name);
            row_ops[o].run(&r, 0, 1);
            r.out = some;
            for (int parts = 2; parts <= 5; parts++) {
                for (int part = parts - 1; part >= 0; part--)
                    row_ops[o].run(&r, part, parts);
                for (int i = 0; i < TOKENS * DIM; i++)
                    cr_assert(memcmp(&some[i], &all[i], 4) == 0, "%s %d parts", what, parts);
            }
            r.tokens = 1;
            for (int m = 0; m < TOKENS; m++)
                for (int parts = 1; parts <= 5; parts += 2) {
                    r.x = x + m * DIM;
                    r.positions = positions + m;
                    for (int part = parts - 1; part >= 0; part--)
                        row_ops[o].run(&r, part, parts);
                    kt_same(what, some, all + m * DIM, DIM);
                }
            for (int i = 0; i < TOKENS * DIM; i++)
                if (i / DIM != 3 && i / DIM != 4)
                    cr_assert(isfinite(all[i]), "%s: row %d", what, i / DIM);
        }
    free(weight.memory);
    free(x);
}

/* One sequence of LENGTH positions and its queries; results by position in out[LENGTH][heads][dim].
 */
enum { LENGTH = 150 };

struct sequence {
    const struct ops *ops;
    int heads, kv_heads, dim;
    enum dtype dtype;
    const float *q, *k, *v;
};

struct way { /* how the sequence is computed */
    int block_tokens, chunk, parts;
    bool company; /* between two other sequences */
};

/* Feeds positions [at, at + count) of the sequence as one batch, in company of two rows of others
 * when asked. */
static void feed(const struct sequence *q, const struct way *w, const struct kv_layout *l,
                 void *pool, float *out, int at, int count)
{
    struct kt_spec spec = {.sequences = 3, .start = {at, at, 0}, .count = {0, count, 0}};
    int before = w->company ? 2 : 0, width = q->heads * q->dim, kv_width = q->kv_heads * q->dim;
    if (w->company) {
        spec.start[0] = 0; /* others come back to their first positions every time */
        spec.count[0] = 2;
        spec.count[2] = 1;
    }
    struct kt_batch b = kt_batch_make(&spec, w->block_tokens, l->blocks);
    int tokens = b.rows.tokens;
    float *rows_q = kt_floats((size_t)(tokens * width), 91);
    float *rows_k = kt_floats((size_t)(tokens * kv_width), 92);
    float *rows_v = kt_floats((size_t)(tokens * kv_width), 93);
    float *rows_out = malloc((size_t)(tokens * width) * sizeof *rows_out);
    memcpy(rows_q + before * width, q->q + at * width, (size_t)(count * width) * 4);
    memcpy(rows_k + before * kv_width, q->k + at * kv_width, (size_t)(count * kv_width) * 4);
    memcpy(rows_v + before * kv_width, q->v + at * kv_width, (size_t)(count * kv_width) * 4);
    struct op_kv_store store = {
        .pool = pool, .layout = l, .layer = 0, .k = rows_k, .v = rows_v, .rows = &b.rows};
    struct op_attention attention = {.out = rows_out,
                                     .q = rows_q,
                                     .pool = pool,
                                     .layout = l,
                                     .heads = q->heads,
                                     .scale = 0.7f,
                                     .rows = &b.rows};
    for (int part = w->parts - 1; part >= 0; part--)
        q->ops->kv_store(&store, part, w->parts);
    for (int part = w->parts - 1; part >= 0; part--)
        q->ops->attention(&attention, part, w->parts);
    memcpy(out + at * width, rows_out + before * width, (size_t)(count * width) * 4);
    free(rows_out);
    free(rows_v);
    free(rows_k);
    free(rows_q);
    kt_batch_free(&b);
}

static void compute(const struct sequence *q, const struct way *w, float *out)
{
    struct kv_layout l = {.layers = 1,
                          .kv_heads = q->kv_heads,
                          .head_dim = q->dim,
                          .value_dim = q->dim,
                          .block_tokens = w->block_tokens,
                          .blocks = 3 * (LENGTH / w->block_tokens + 1),
                          .dtype = q->dtype};
    char *pool = kt_pool_make(&l);
    for (int at = 0; at < LENGTH; at += w->chunk)
        feed(q, w, &l, pool, out, at, LENGTH - at < w->chunk ? LENGTH - at : w->chunk);
    kt_pool_free(pool, &l);
}

Test(exact, attention, .timeout = 240)
{
    static const struct {
        int heads, kv_heads, dim;
    } shapes[] = {{6, 2, 20}, {2, 2, 64}, {40, 1, 16}, {3, 1, 260}};
    static const struct way ways[] = {
        {16, 1, 1, false},    {16, 7, 1, true},       {16, 64, 2, false},   {16, 65, 3, true},
        {1, LENGTH, 1, true}, {2, 31, 4, false},      {3, LENGTH, 5, true}, {64, LENGTH, 1, false},
        {100, 50, 2, true},   {256, LENGTH, 3, true}, {128, 1, 2, true},
    };
    SWEEP();
    for (int b = 0; ops_at(b); b++)
        for (size_t s = 0; s < 4; s++)
            for (size_t d = 0; d < 6; d++) {
                struct sequence q = {ops_at(b), shapes[s].heads, shapes[s].kv_heads, shapes[s].dim,
                                     dtypes[d]};
                size_t n = (size_t)(LENGTH * q.heads * q.dim);
                float *values = kt_floats(3 * n, 8);
                float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
                q.q = values;
                q.k = values + n;
                q.v = values + 2 * n;
                compute(&q, &(struct way){16, LENGTH, 1, false}, want);
                for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
                    char what[128];
                    if (b == 0 && (w % 3 != 0 || d != 1))
                        continue; /* ref is slow, and one loop for all of them */
                    snprintf(what, sizeof what, "%s %s heads %d/%d block %d chunk %d parts %d",
                             q.ops->name, dtype_name(q.dtype), q.heads, q.kv_heads,
                             ways[w].block_tokens, ways[w].chunk, ways[w].parts);
                    compute(&q, &ways[w], got);
                    kt_same(what, got, want, n);
                }
                free(got);
                free(want);
                free(values);
            }
}

/* A NaN key hurts the rows that see it and no earlier one; a row without finite scores is NaN. */
Test(exact, attention_keeps_nan_to_those_who_see_it)
{
    enum { DIM = 24, SICK = 70 };
    for (int b = 0; ops_at(b); b++) {
        float *q = kt_floats(LENGTH * DIM, 1), *k = kt_floats(LENGTH * DIM, 2);
        float *v = kt_floats(LENGTH * DIM, 3), clean[LENGTH * DIM], dirty[LENGTH * DIM];
        struct sequence s = {ops_at(b), 1, 1, DIM, DTYPE_F32, q, k, v};
        struct way w = {16, LENGTH, 2, false};
        compute(&s, &w, clean);
        k[SICK * DIM + 23] = NAN;
        compute(&s, &w, dirty);
        kt_same(s.ops->name, dirty, clean, SICK * DIM);
        for (int i = SICK * DIM; i < LENGTH * DIM; i++)
            cr_assert(isnan(dirty[i]), "%s", s.ops->name);
        free(q);
        free(k);
        free(v);
    }
}

struct team_job {
    const struct ops *ops;
    struct team *team;
    struct op_gemm gemm;
    struct op_kv_store store;
    struct op_attention attention;
};

static void team_gemm(void *arg, int part, int parts)
{
    struct team_job *job = arg;
    job->ops->gemm(&job->gemm, part, parts);
}

static void team_attention(void *arg, int part, int parts)
{
    struct team_job *job = arg;
    job->ops->kv_store(&job->store, part, parts);
    if (parts > 1)
        team_barrier(job->team);
    job->ops->attention(&job->attention, part, parts);
}

/* The same with real threads, which is what a race detector wants to see. */
Test(exact, gemm_on_a_team)
{
    enum { M = 17, N = 301, K = 129 };
    struct team *team = team_create(3, false, false);
    cr_assert_not_null(team);
    for (int b = 0; ops_at(b); b++)
        for (int m = 1; m <= M; m += 8) {
            struct kt_matrix w = kt_matrix_make(N, K, DTYPE_BF16, 1, 1);
            float *x = kt_floats(M * K, 2), *alone = malloc(M * N * 4),
                  *together = malloc(M * N * 4);
            struct team_job job = {.ops = ops_at(b),
                                   .gemm = {.out = alone, .x = x, .w = &w.m, .tokens = m}};
            team_gemm(&job, 0, 1);
            job.gemm.out = together;
            team_run(team, team_gemm, &job);
            kt_same(job.ops->name, together, alone, (size_t)(m * N));
            free(together);
            free(alone);
            free(x);
            free(w.memory);
        }
    team_destroy(team);
}

Test(exact, attention_on_a_team)
{
    enum { HEADS = 6, KV_HEADS = 3, DIM = 20 };
    struct team *team = team_create(3, false, false);
    struct kt_batch batch = kt_batch_make(&(struct kt_spec){3, {0, 0, 0}, {70, 1, 33}}, 16, 3 * 5);
    int tokens = batch.rows.tokens;
    size_t n = (size_t)(tokens * HEADS * DIM);
    float *values = kt_floats(n, 4), *alone = malloc(n * 4), *together = malloc(n * 4);
    struct kv_layout l = {.layers = 1,
                          .kv_heads = KV_HEADS,
                          .head_dim = DIM,
                          .value_dim = DIM,
                          .block_tokens = 16,
                          .blocks = 3 * 5,
                          .dtype = DTYPE_F16};
    cr_assert_not_null(team);
    for (int b = 0; ops_at(b); b++) {
        struct team_job job = {
            .ops = ops_at(b),
            .team = team,
            .store = {.layout = &l, .k = values, .v = values, .rows = &batch.rows},
            .attention = {
                .q = values, .layout = &l, .heads = HEADS, .scale = 0.3f, .rows = &batch.rows}};
        for (int threads = 0; threads < 2; threads++) {
            char *pool = kt_pool_make(&l);
            job.store.pool = pool;
            job.attention.pool = pool;
            job.attention.out = threads ? together : alone;
            if (threads)
                team_run(team, team_attention, &job);
            else
                team_attention(&job, 0, 1);
            kt_pool_free(pool, &l);
        }
        kt_same(job.ops->name, together, alone, n);
    }
    free(together);
    free(alone);
    free(values);
    kt_batch_free(&batch);
    team_destroy(team);
}
