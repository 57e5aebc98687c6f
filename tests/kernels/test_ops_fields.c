/* The optional fields of the ops that work row by row, alone and together: every body against ref,
 * and whatever the parts, bit for bit the same. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels_util.h"

static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};

/* An op with its arguments: `out` of n floats starts as a copy of `start`. */
struct job {
    void (*run)(const struct ops *ops, void *args, int part, int parts);
    void *args;
    float **out;
    const float *start;
    size_t n;
    struct kt_tolerance tolerance;
    char what[160];
};

static float *job_run(const struct job *j, const struct ops *ops, int parts)
{
    float *out = kt_copy(j->start, j->n);
    *j->out = out;
    for (int part = parts - 1; part >= 0; part--)
        j->run(ops, j->args, part, parts);
    return out;
}

static void job_check(const struct job *j)
{
    float *want = job_run(j, ops_ref(), 1);
    for (int b = 1; ops_at(b); b++) {
        char what[200];
        snprintf(what, sizeof what, "%s %s", ops_at(b)->name, j->what);
        float *got = job_run(j, ops_at(b), 1);
        kt_near(what, got, want, j->n, j->tolerance);
        for (int parts = 2; parts <= 7; parts += 2 + (parts > 2)) {
            float *split = job_run(j, ops_at(b), parts);
            kt_same(what, split, got, j->n);
            free(split);
        }
        free(got);
    }
    free(want);
}

/* ---- embed and gemm ---- */

static void run_embed(const struct ops *ops, void *a, int part, int parts)
{
    ops->embed(a, part, parts);
}

Test(fields, embed_scale)
{
    static const int32_t ids[] = {4, 0, 4, 3, 1};
    for (size_t d = 0; d < 3; d++)
        for (int dim = 1; dim < 70; dim += 17) {
            struct kt_matrix table = kt_matrix_make(5, dim, dtypes[d], 1, 21);
            struct op_embed a = {.table = &table.m, .ids = ids, .scale = 7.25f, .tokens = 5};
            struct job j = {.run = run_embed, .args = &a, .out = &a.out, .n = 5 * (size_t)dim};
            float *start = kt_floats(j.n, 1);
            j.start = start;
            snprintf(j.what, sizeof j.what, "embed %s dim %d", dtype_name(dtypes[d]), dim);
            job_check(&j);
            free(start);
            free(table.memory);
        }
}

static void run_gemm(const struct ops *ops, void *a, int part, int parts)
{
    ops->gemm(a, part, parts);
}

Test(fields, gemm_scale)
{
    static const int ms[] = {1, 3, 8, 19}, ns[] = {1, 6, 25, 130}, ks[] = {1, 17, 100, 515};
    int count = 0;
    for (size_t m = 0; m < 4; m++)
        for (size_t n = 0; n < 4; n++)
            for (size_t k = 0; k < 4; k++, count++) {
                struct kt_matrix w = kt_matrix_make(ns[n], ks[k], dtypes[count % 3], 1, 11);
                float *x = kt_floats((size_t)(ms[m] * ks[k]), 12);
                float *bias = kt_floats((size_t)ns[n], 13);
                struct op_gemm a = {.x = x,
                                    .w = &w.m,
                                    .bias = count & 1 ? bias : NULL,
                                    .scale = count & 4 ? 0.22f : -3,
                                    .tokens = ms[m],
                                    .accumulate = count & 2};
                struct job j = {.run = run_gemm,
                                .args = &a,
                                .out = &a.out,
                                .n = (size_t)(ms[m] * ns[n]),
                                .tolerance = {2e-7 * (ks[k] + 4), 1e-6}};
                float *start = kt_floats(j.n, 14);
                j.start = start;
                snprintf(j.what, sizeof j.what, "gemm %s M%d N%d K%d case %d",
                         dtype_name(dtypes[count % 3]), ms[m], ns[n], ks[k], count % 8);
                job_check(&j);
                free(start);
                free(bias);
                free(x);
                free(w.memory);
            }
}

/* ---- rmsnorm ---- */

static void run_rmsnorm(const struct ops *ops, void *a, int part, int parts)
{
    ops->rmsnorm(a, part, parts);
}

struct norm_case {
    int tokens, groups, dim,
        options; /* bit 0 offset, 1 scale, 2 accumulate, 3 strides, 4 in place */
    enum dtype dtype;
};

static void norm_check(const struct norm_case *c)
{
    struct kt_matrix weight = kt_matrix_make(1, c->dim, c->dtype, 3, 31);
    int width = (c->groups ? c->groups : 1) * c->dim;
    int x_stride = c->options & 8 ? width + 5 : width, stride = c->options & 8 ? width + 2 : width;
    bool in_place = c->options & 16;
    stride = in_place ? x_stride : stride;
    size_t x_len = (size_t)((c->tokens - 1) * x_stride + width);
    size_t n = (size_t)((c->tokens - 1) * stride + width);
    float *x = kt_floats(x_len, 32), *start = in_place ? kt_copy(x, n) : kt_floats(n, 33);
    struct op_rmsnorm a = {.x = x,
                           .weight = &weight.m,
                           .eps = 1e-5f,
                           .offset = c->options & 1 ? 1 : 0,
                           .scale = c->options & 2 ? 0.4f : 0,
                           .tokens = c->tokens,
                           .dim = c->dim,
                           .groups = c->groups,
                           .x_stride = c->options & 8 ? x_stride : 0,
                           .out_stride = c->options & 8 ? stride : 0,
                           .accumulate = (c->options & 4) != 0};
    struct job j = {.run = run_rmsnorm,
                    .args = &a,
                    .out = &a.out,
                    .start = start,
                    .n = n,
                    .tolerance = {1e-6, 2e-6}};
    snprintf(j.what, sizeof j.what, "rmsnorm %s tokens %d groups %d dim %d options %d",
             dtype_name(c->dtype), c->tokens, c->groups, c->dim, c->options);
    if (!in_place) {
        job_check(&j);
    } else {
        float *want = job_run(&j, ops_ref(), 1);
        for (int b = 1; ops_at(b); b++) {
            float *own = kt_copy(x, n);
            a.x = a.out = own;
            for (int part = 0; part < 3; part++)
                ops_at(b)->rmsnorm(&a, part, 3);
            kt_near(j.what, own, want, n, j.tolerance);
            free(own);
        }
        free(want);
    }
    free(start);
    free(x);
    free(weight.memory);
}

Test(fields, rmsnorm)
{
    static const int groups[] = {0, 1, 2, 5}, dims[] = {1, 2, 15, 16, 33, 128, 300};
    int count = 0;
    for (size_t g = 0; g < 4; g++)
        for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++)
            for (int options = 0; options < 32; options++) {
                if ((options & 20) == 20)
                    continue; /* adding to what is read has no use */
                struct norm_case c = {1 + 4 * (count % 2), groups[g], dims[d], options,
                                      dtypes[count % 3]};
                norm_check(&c);
                count++;
            }
}

/* A sick group leaves its neighbours in the same row alone. */
Test(fields, rmsnorm_keeps_nan_in_its_group)
{
    enum { GROUPS = 3, DIM = 21 };
    struct kt_matrix weight = kt_matrix_make(1, DIM, DTYPE_F32, 0, 1);
    for (int b = 0; ops_at(b); b++) {
        float *x = kt_floats(2 * GROUPS * DIM, 2), clean[2 * GROUPS * DIM], dirty[2 * GROUPS * DIM];
        struct op_rmsnorm a = {.out = clean,
                               .x = x,
                               .weight = &weight.m,
                               .eps = 1e-6f,
                               .tokens = 2,
                               .dim = DIM,
                               .groups = GROUPS};
        ops_at(b)->rmsnorm(&a, 0, 1);
        x[DIM + 20] = NAN;
        a.out = dirty;
        ops_at(b)->rmsnorm(&a, 0, 1);
        kt_same(ops_at(b)->name, dirty, clean, DIM);
        kt_same(ops_at(b)->name, dirty + 2 * DIM, clean + 2 * DIM, 4 * DIM);
        for (int i = DIM; i < 2 * DIM; i++)
            cr_assert(isnan(dirty[i]), "%s", ops_at(b)->name);
        free(x);
    }
    free(weight.memory);
}

/* ---- rope ---- */

static void run_rope(const struct ops *ops, void *a, int part, int parts)
{
    ops->rope(a, part, parts);
}

static const int32_t rope_positions[] = {0, 1, 2, 77, 255, 256, 1000, 131071};
static const int32_t rope_sequences[] = {0, 0, 0, 1, 1, 1, 2, 2};
static const uint8_t rope_long[] = {0, 1, 0};

enum { ROPE_TOKENS = 8 };

/* options: bit 0 interleaved, 1 head stride, 2 row stride, 3 dynamic, 4 long */
static struct op_rope rope_make(int dim, int heads, int options, float inv_freq[2][80])
{
    const int head_stride = options & 2 ? dim + 6 : dim;
    for (int i = 0; i < dim / 2; i++) {
        inv_freq[0][i] = (float)pow(10000, -2.0 * i / dim);
        inv_freq[1][i] = inv_freq[0][i] / (float)(i + 2);
    }
    return (struct op_rope){.positions = rope_positions,
                            .inv_freq = inv_freq[0],
                            .long_inv_freq = options & 16 ? inv_freq[1] : NULL,
                            .is_long = options & 16 ? rope_long : NULL,
                            .seq_of = options & 16 ? rope_sequences : NULL,
                            .attention_factor = 1.19f,
                            .tokens = ROPE_TOKENS,
                            .heads = heads,
                            .head_dim = dim,
                            .head_stride = options & 2 ? head_stride : 0,
                            .x_stride = options & 4 ? heads * head_stride + 3 : 0,
                            .dynamic_from = options & 8 ? 256 : 0,
                            .dynamic_theta = 10000,
                            .dynamic_factor = 2,
                            .interleaved = options & 1};
}

static size_t rope_floats(const struct op_rope *a)
{
    const int head = a->head_stride ? a->head_stride : a->head_dim;
    return (size_t)(ROPE_TOKENS * (a->x_stride ? a->x_stride : a->heads * head));
}

static void rope_check(int dim, int heads, int options)
{
    float inv_freq[2][80];
    struct op_rope a = rope_make(dim, heads, options, inv_freq);
    float *start = kt_floats(rope_floats(&a), 41);
    struct job j = {.run = run_rope,
                    .args = &a,
                    .out = &a.x,
                    .start = start,
                    .n = rope_floats(&a),
                    .tolerance = {options & 8 ? 2e-5 : 1e-6, 1e-6}};
    snprintf(j.what, sizeof j.what, "rope dim %d heads %d options %d", dim, heads, options);
    job_check(&j);
    free(start);
}

Test(fields, rope)
{
    static const int dims[] = {2, 6, 8, 14, 20, 32, 62, 64, 96, 160};
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++)
        for (int options = 0; options < 32; options++)
            if (dims[d] > 2 || !(options & 8)) /* NTK's exponent is dim / (dim - 2) */
                rope_check(dims[d], 1 + options % 3, options);
}

/* What one op leaves of its angles serves another of other heads, cut otherwise; both give the bits
 * of ops that compute them. */
static void check_kept_angles(const struct ops *ops, int options)
{
    enum { DIM = 64 };
    float inv_freq[2][80], angles[ROPE_TOKENS * DIM];
    memset(angles, 0xff, sizeof angles);
    for (int turn = 0; turn < 2; turn++) {
        struct op_rope a = rope_make(DIM, turn ? 2 : 5, options, inv_freq);
        const size_t n = rope_floats(&a);
        float *want = kt_floats(n, 41), *got = kt_floats(n, 41);
        a.x = want;
        ops->rope(&a, 0, 1);
        a.x = got;
        a.angles = angles;
        a.angled = turn > 0;
        for (int part = 0; part < 3 - turn; part++)
            ops->rope(&a, part, 3 - turn);
        kt_same(ops->name, got, want, n);
        free(got);
        free(want);
    }
}

Test(fields, rope_keeps_angles)
{
    for (int b = 0; ops_at(b); b++)
        for (int options = 0; options < 32; options++)
            check_kept_angles(ops_at(b), options);
}

/* ---- the gated units and soft-capping ---- */

static void run_glu(const struct ops *ops, void *a, int part, int parts)
{
    ops->glu(a, part, parts);
}

Test(fields, glu)
{
    static const enum glu_kind kinds[] = {GLU_SILU, GLU_GELU_TANH, GLU_GELU, GLU_CLAMPED};
    for (size_t k = 0; k < 4; k++)
        for (int dim = 1; dim < 300; dim += 29) {
            int stride = dim % 2 ? dim : 2 * dim + 1;
            size_t len = (size_t)(4 * stride);
            float *gate = kt_floats(len, 51), *up = kt_floats(len, 52);
            for (size_t i = 0; i < len; i++) {
                gate[i] *= i % 3 ? 6 : 60; /* where the units bend, and far beyond */
                up[i] *= 9;
            }
            struct op_glu a = {.gate = gate,
                               .up = up,
                               .kind = kinds[k],
                               .limit = 4.5f,
                               .alpha = 1.702f,
                               .tokens = 4,
                               .dim = dim,
                               .in_stride = dim % 2 ? 0 : stride};
            struct job j = {.run = run_glu,
                            .args = &a,
                            .out = &a.out,
                            .n = (size_t)(4 * dim),
                            .tolerance = {2e-6, 2e-6}};
            float *start = kt_floats(j.n, 53);
            j.start = start;
            snprintf(j.what, sizeof j.what, "glu kind %d dim %d", (int)kinds[k], dim);
            job_check(&j);
            free(start);
            free(up);
            free(gate);
        }
}

/* Rounding is to nearest even in every body, what is no number stays none; a gated unit that gives
 * bf16 gives what rounding its floats would. Behind a row stand zeros up to a whole span. */
static void check_round(const struct ops *ops, int tokens, int dim, int parts)
{
    static const float odd[] = {NAN,         -NAN,       INFINITY, -INFINITY, 0.0f,
                                -0.0f,       FLT_MAX,    -FLT_MAX, 1e-40f,    1.00390625f,
                                1.01171875f, 1.0039063f, FLT_MIN};
    const size_t n = (size_t)(tokens * dim), stride = rows16_stride(dim);
    const size_t span = (size_t)(dim + PACKED_SPAN - 1) / PACKED_SPAN * PACKED_SPAN;
    float *gate = kt_floats(n, 21), *up = kt_floats(n, 22), *y = malloc(n * sizeof *y);
    uint16_t *got = malloc((size_t)tokens * stride * sizeof *got);
    for (size_t i = 0; i < n; i += 3)
        up[i] = odd[i / 3 % (sizeof odd / sizeof odd[0])];
    struct op_glu a = {
        .out = y, .gate = gate, .up = up, .kind = GLU_SILU, .tokens = tokens, .dim = dim};
    ops->glu(&a, 0, 1);
    for (int what = 0; what < 2; what++) {
        const float *from = what == 0 ? up : y;
        memset(got, 0xee, (size_t)tokens * stride * sizeof *got);
        a.out = NULL;
        a.out16 = got;
        for (int part = parts - 1; part >= 0; part--)
            if (what == 0)
                ops->round(&(struct op_round){.out = got, .x = up, .tokens = tokens, .dim = dim},
                           part, parts);
            else
                ops->glu(&a, part, parts);
        for (size_t m = 0; m < (size_t)tokens; m++)
            for (size_t i = 0; i < span; i++)
                cr_assert_eq(got[m * stride + i],
                             i < (size_t)dim ? dtype_f32_to_bf16(from[m * (size_t)dim + i]) : 0,
                             "%s %d: row %zu of %d, column %zu of %d", ops->name, what, m, tokens,
                             i, dim);
    }
    free(got);
    free(y);
    free(up);
    free(gate);
}

Test(fields, rounding_to_bf16)
{
    for (int b = 0; ops_at(b); b++)
        for (int dim = 1; ops_at(b)->round && dim < 300; dim += 1 + dim / 2)
            for (int parts = 1; parts < 6; parts += 2) {
                check_round(ops_at(b), 1, dim, parts);
                check_round(ops_at(b), 7, dim, parts);
            }
}

/* Each element by itself: NaN stays, infinities go where the formula says. */
Test(fields, glu_without_numbers)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 0, -0.0f, 1e-40f, 88, -80};
    enum { ODD = sizeof odd / sizeof odd[0] };
    float gate[ODD * ODD], up[ODD * ODD], want[ODD * ODD], got[ODD * ODD];
    for (int i = 0; i < ODD * ODD; i++) {
        gate[i] = odd[i / ODD];
        up[i] = odd[i % ODD];
    }
    for (int kind = GLU_SILU; kind <= GLU_CLAMPED; kind++) {
        struct op_glu a = {.out = want,
                           .gate = gate,
                           .up = up,
                           .kind = (enum glu_kind)kind,
                           .limit = 7,
                           .alpha = 1.702f,
                           .tokens = 1,
                           .dim = ODD * ODD};
        ops_ref()->glu(&a, 0, 1);
        a.out = got;
        for (int b = 1; ops_at(b); b++) {
            char what[64];
            snprintf(what, sizeof what, "%s kind %d", ops_at(b)->name, kind);
            ops_at(b)->glu(&a, 0, 1);
            kt_near(what, got, want, ODD * ODD, (struct kt_tolerance){1e-30, 2e-6});
        }
    }
}

static void run_softcap(const struct ops *ops, void *a, int part, int parts)
{
    ops->softcap(a, part, parts);
}

Test(fields, softcap)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 0, 1e-30f};
    for (int n = 1; n < 400; n += 37) {
        float *start = kt_floats((size_t)n, 54);
        for (int i = 0; i < n; i++)
            start[i] = i % 5 == 4 ? odd[i % 7] : start[i] * 100;
        struct op_softcap a = {.cap = 30, .n = n};
        struct job j = {.run = run_softcap,
                        .args = &a,
                        .out = &a.x,
                        .start = start,
                        .n = (size_t)n,
                        .tolerance = {2e-7 * 30, 1e-6}};
        snprintf(j.what, sizeof j.what, "softcap n %d", n);
        job_check(&j);
        free(start);
    }
}
