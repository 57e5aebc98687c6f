/* Which experts a token goes to, and what becomes of what they say: every body against ref, with
 * ties, groups and biases; and whatever the parts and the other tokens, bit for bit the same. */
#include "kernels/kernels_util.h"

enum { TOKENS = 13 };

struct route_case {
    int experts, top_k, groups, top_groups;
    enum route_score score;
    bool bias, normalize, ties;
};

struct routed {
    int32_t *expert;
    float *weight;
};

static struct routed routed_make(int n)
{
    return (struct routed){malloc((size_t)n * sizeof(int32_t)), malloc((size_t)n * sizeof(float))};
}

static void routed_free(struct routed *r)
{
    free(r->expert);
    free(r->weight);
}

static void route_parts(const struct ops *ops, struct op_route a, const struct routed *to,
                        int parts)
{
    a.expert = to->expert;
    a.weight = to->weight;
    memset(to->expert, 0xff, (size_t)(a.tokens * a.top_k) * sizeof *to->expert);
    for (int part = parts - 1; part >= 0; part--)
        ops->route(&a, part, parts);
}

static void same_experts(const char *what, const int32_t *got, const int32_t *want, int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(got[i], want[i], "%s: choice %d is %d, expected %d", what, i, got[i], want[i]);
}

static void check_body(const struct ops *ops, const struct op_route *a, const struct routed *want,
                       const char *name)
{
    char what[200];
    int n = a->tokens * a->top_k;
    struct routed got = routed_make(n), other = routed_make(n);
    snprintf(what, sizeof what, "%s %s", ops->name, name);
    route_parts(ops, *a, &got, 1);
    same_experts(what, got.expert, want->expert, n);
    kt_near(what, got.weight, want->weight, (size_t)n,
            (struct kt_tolerance){1e-9, 2e-6 + 2e-8 * a->experts});
    for (int parts = 2; parts < 6; parts++) {
        route_parts(ops, *a, &other, parts);
        same_experts(what, other.expert, got.expert, n);
        kt_same(what, other.weight, got.weight, (size_t)n);
    }
    for (int m = 0; m < a->tokens; m++) {
        struct op_route one = *a;
        one.tokens = 1;
        one.logits = a->logits + m * a->experts;
        route_parts(ops, one, &other, 1);
        same_experts(what, other.expert, got.expert + m * a->top_k, a->top_k);
        kt_same(what, other.weight, got.weight + m * a->top_k, (size_t)a->top_k);
    }
    routed_free(&got);
    routed_free(&other);
}

static void route_check(const struct route_case *c)
{
    /* no two of them add up to what two others do: that would be a tie in one precision alone */
    static const float tied[] = {0, 1, 2.5f};
    float *logits = kt_floats((size_t)(TOKENS * c->experts), 5), *bias = NULL;
    char what[160];
    for (int i = 0; i < TOKENS * c->experts; i++)
        logits[i] = c->ties ? tied[1 + (int)rintf(logits[i] * 1.4f)] : logits[i] * 9;
    if (c->bias) {
        bias = kt_floats((size_t)c->experts, 6);
        int group = c->groups ? c->experts / c->groups : 1;
        for (int i = 0; c->ties && i < c->experts; i++)
            bias[i] = rintf(bias[i - i % group]); /* equal again after it was added */
    }
    struct op_route a = {.logits = logits,
                         .bias = bias,
                         .score = c->score,
                         .scale = c->normalize ? 2.5f : 0,
                         .tokens = TOKENS,
                         .experts = c->experts,
                         .top_k = c->top_k,
                         .groups = c->groups,
                         .top_groups = c->top_groups,
                         .normalize = c->normalize};
    snprintf(what, sizeof what, "route %d of %d groups %d of %d score %d%s%s%s", c->top_k,
             c->experts, c->top_groups, c->groups, (int)c->score, c->bias ? " bias" : "",
             c->normalize ? " normalize" : "", c->ties ? " ties" : "");
    struct routed want = routed_make(TOKENS * c->top_k);
    route_parts(ops_ref(), a, &want, 1);
    for (int b = 1; ops_at(b); b++)
        check_body(ops_at(b), &a, &want, what);
    routed_free(&want);
    free(bias);
    free(logits);
}

Test(route, every_kind)
{
    static const int shapes[][4] = {{1, 1, 0, 0},   {3, 2, 0, 0},   {8, 8, 0, 0},   {60, 4, 0, 0},
                                    {129, 8, 0, 0}, {256, 8, 8, 4}, {160, 6, 8, 3}, {12, 3, 4, 1},
                                    {6, 4, 6, 4},   {64, 6, 1, 1},  {512, 64, 2, 2}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int kind = ROUTE_SOFTMAX; kind <= ROUTE_SIGMOID; kind++)
            for (int options = 0; options < 8; options++) {
                struct route_case c = {
                    shapes[s][0],           shapes[s][1], shapes[s][2], shapes[s][3],
                    (enum route_score)kind, options & 1,  options & 2,  options & 4};
                route_check(&c);
            }
}

/* Of equals the first, whatever the body's width. */
Test(route, of_equals_the_first)
{
    for (int b = 0; ops_at(b); b++)
        for (int experts = 1; experts < 70; experts += 4) {
            float logits[70], weight[5];
            int32_t expert[5];
            int top_k = experts < 5 ? experts : 5;
            for (int i = 0; i < experts; i++)
                logits[i] = 0.5f;
            struct op_route a = {.expert = expert,
                                 .weight = weight,
                                 .logits = logits,
                                 .score = ROUTE_SOFTMAX,
                                 .tokens = 1,
                                 .experts = experts,
                                 .top_k = top_k,
                                 .normalize = 1};
            ops_at(b)->route(&a, 0, 1);
            for (int k = 0; k < top_k; k++) {
                cr_assert_eq(expert[k], k, "%s", ops_at(b)->name);
                cr_assert_float_eq((double)weight[k], 1.0 / top_k, 1e-6, "%s", ops_at(b)->name);
            }
        }
}

/* A router that has lost its numbers must still name different experts that there are: they are
 * looked up. */
Test(route, nan_and_infinity_choose_experts_that_there_are)
{
    enum { EXPERTS = 16, TOP_K = 4 };
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0};
    for (int b = 0; ops_at(b); b++)
        for (int kind = ROUTE_SOFTMAX; kind <= ROUTE_SIGMOID; kind++)
            for (int fill = 0; fill < 24; fill++) {
                float logits[EXPERTS], weight[TOP_K], bias[EXPERTS] = {0};
                int32_t expert[TOP_K];
                uint64_t seed = (uint64_t)fill;
                for (int i = 0; i < EXPERTS; i++)
                    logits[i] = fill < 4 ? odd[fill] : odd[kt_below(&seed, 4)];
                struct op_route a = {.expert = expert,
                                     .weight = weight,
                                     .logits = logits,
                                     .bias = fill % 2 ? bias : NULL,
                                     .score = (enum route_score)kind,
                                     .tokens = 1,
                                     .experts = EXPERTS,
                                     .top_k = TOP_K,
                                     .groups = fill % 3 ? 4 : 0,
                                     .top_groups = 2};
                ops_at(b)->route(&a, 0, 1);
                for (int k = 0; k < TOP_K; k++) {
                    cr_assert(expert[k] >= 0 && expert[k] < EXPERTS, "%s kind %d fill %d: %d",
                              ops_at(b)->name, kind, fill, expert[k]);
                    for (int l = 0; l < k; l++)
                        cr_assert_neq(expert[l], expert[k], "%s kind %d fill %d", ops_at(b)->name,
                                      kind, fill);
                }
            }
}

/* ---- combine ---- */

/* options: bit 0 row, 1 bias, 2 scale, 3 accumulate, 4 sigmoid */
static void combine_check(int dim, int k, int options)
{
    enum { ROWS = 40 };
    float *y = kt_floats((size_t)(ROWS * dim), 7), *weight = kt_floats((size_t)(TOKENS * k), 8);
    float *bias = kt_floats((size_t)dim, 9), *start = kt_floats((size_t)(TOKENS * dim), 10);
    int32_t row[TOKENS * 3];
    size_t n = (size_t)(TOKENS * dim);
    char what[160];
    for (int i = 0; i < TOKENS * k; i++) {
        row[i] = (i * 17 + 5) % ROWS;
        weight[i] *= options & 16 ? 6 : 1;
    }
    struct op_combine a = {.y = y,
                           .row = options & 1 ? row : NULL,
                           .weight = weight,
                           .bias = options & 2 ? bias : NULL,
                           .scale = options & 4 ? 0.3f : 0,
                           .tokens = TOKENS,
                           .dim = dim,
                           .k = k,
                           .accumulate = (options & 8) != 0,
                           .sigmoid = (options & 16) != 0};
    float *want = a.out = kt_copy(start, n);
    ops_ref()->combine(&a, 0, 1);
    for (int b = 1; ops_at(b); b++)
        for (int parts = 1; parts < 6; parts++) {
            snprintf(what, sizeof what, "%s combine dim %d k %d options %d parts %d",
                     ops_at(b)->name, dim, k, options, parts);
            float *got = a.out = kt_copy(start, n);
            for (int part = parts - 1; part >= 0; part--)
                ops_at(b)->combine(&a, part, parts);
            kt_near(what, got, want, n, (struct kt_tolerance){2e-6, 1e-6});
            float *one = a.out = kt_copy(start, n);
            ops_at(b)->combine(&a, 0, 1);
            kt_same(what, got, one, n);
            free(one);
            free(got);
        }
    free(want);
    free(start);
    free(bias);
    free(weight);
    free(y);
}

Test(combine, every_option)
{
    static const int dims[] = {1, 7, 16, 33, 130};
    for (size_t d = 0; d < 5; d++)
        for (int k = 1; k <= 3; k++)
            for (int options = 0; options < 32; options++)
                combine_check(dims[d], k, options);
}

/* What one expert lost is lost for the tokens that went there, and for no other. */
Test(combine, keeps_nan_to_those_who_went_there)
{
    enum { DIM = 19 };
    static const int32_t row[] = {0, 1, 2, 1, 3, 4};
    static const float weight[] = {0.5f, 0.5f, 0.25f, 0.5f, 1, 0.125f};
    for (int b = 0; ops_at(b); b++) {
        float *y = kt_floats(5 * DIM, 1), clean[3 * DIM], dirty[3 * DIM];
        struct op_combine a = {
            .out = clean, .y = y, .row = row, .weight = weight, .tokens = 3, .dim = DIM, .k = 2};
        ops_at(b)->combine(&a, 0, 1);
        y[2 * DIM + 18] = NAN;
        a.out = dirty;
        ops_at(b)->combine(&a, 0, 1);
        cr_assert(isnan(dirty[DIM + 18]), "%s", ops_at(b)->name);
        dirty[DIM + 18] = clean[DIM + 18];
        kt_same(ops_at(b)->name, dirty, clean, 3 * DIM);
        free(y);
    }
}
