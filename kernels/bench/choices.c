/* Ops that choose: experts and what becomes of what they say, and passes over the logits of a
 * vocabulary, of which each member of the team has a row of its own. */
#include <assert.h>
#include <stdio.h>

#include "kernels/bench/job.h"

static bool prepare_route(struct bench_job *j)
{
    const struct bench_shape *s = j->shape;
    assert(s->experts <= BENCH_EXPERTS_MAX && s->tokens * s->top_k <= BENCH_ROWS_MAX);
    j->flops = 0;
    j->math = KERNELS_MATH_FLOAT;
    j->bytes = s->tokens * (4.0 * s->experts + 8.0 * s->top_k);
    j->pieces = 0;
    return true;
}

static void run_route(const struct bench_job *j, int part, int parts)
{
    const struct bench_shape *s = j->shape;
    const struct op_route a = {.expert = j->pairs->expert,
                               .weight = j->pairs->weight,
                               .logits = j->logits,
                               .bias = s->groups ? j->x : NULL,
                               .score = s->groups ? ROUTE_SIGMOID : ROUTE_SOFTMAX,
                               .tokens = s->tokens,
                               .experts = s->experts,
                               .top_k = s->top_k,
                               .groups = s->groups,
                               .top_groups = s->groups / 2,
                               .normalize = 1};
    j->ops->route(&a, part, parts);
}

static void describe_route(const struct bench_job *j, char *text, size_t cap)
{
    const struct bench_shape *s = j->shape;
    char groups[24] = "";
    if (s->groups)
        snprintf(groups, sizeof groups, " groups=%d", s->groups);
    snprintf(text, cap, "rows=%d experts=%d top=%d%s", s->tokens, s->experts, s->top_k, groups);
}

static bool prepare_combine(struct bench_job *j)
{
    const struct bench_shape *s = j->shape;
    j->flops = 0;
    j->math = KERNELS_MATH_FLOAT;
    j->bytes = 4.0 * s->tokens * s->a * (s->top_k + 1);
    j->pieces = 0;
    for (int32_t i = 0; i < s->tokens * s->top_k; i++)
        j->pairs->weight[i] = 1.0f / (float)s->top_k;
    return true;
}

static void run_combine(const struct bench_job *j, int part, int parts)
{
    const struct bench_shape *s = j->shape;
    const struct op_combine a = {.out = j->y,
                                 .y = j->x,
                                 .weight = j->pairs->weight,
                                 .tokens = s->tokens,
                                 .dim = s->a,
                                 .k = s->top_k};
    j->ops->combine(&a, part, parts);
}

static void describe_combine(const struct bench_job *j, char *text, size_t cap)
{
    snprintf(text, cap, "rows=%d dim=%d k=%d", j->shape->tokens, j->shape->a, j->shape->top_k);
}

static bool prepare_logits(struct bench_job *j)
{
    j->flops = 0;
    j->math = KERNELS_MATH_FLOAT;
    j->bytes = 4.0 * j->shape->a * team_size(j->team);
    j->pieces = 0;
    return true;
}

static const float *row_of(const struct bench_job *j, int part)
{
    const size_t rows = BENCH_FLOATS / (size_t)j->shape->a;
    return j->x + (size_t)part % rows * (size_t)j->shape->a;
}

static void run_peak(const struct bench_job *j, int part, int parts)
{
    (void)parts;
    j->peaks->find_peak(row_of(j, part), j->shape->a);
}

/* None is above 1: all are looked at. */
static void run_skip(const struct bench_job *j, int part, int parts)
{
    (void)parts;
    j->peaks->skip(row_of(j, part), j->shape->a, 0, 1);
}

static void run_weigh(const struct bench_job *j, int part, int parts)
{
    const struct logits_scale scale = {.max = 1, .temperature = 1};
    (void)parts;
    j->peaks->weigh(row_of(j, part), j->shape->a, &scale);
}

static void describe_logits(const struct bench_job *j, char *text, size_t cap)
{
    snprintf(text, cap, "rows=%d vocab=%d", team_size(j->team), j->shape->a);
}

const struct bench_op bench_route = {.name = "route",
                                     .forms = FORM_BIT(FORM_F32),
                                     .prepare = prepare_route,
                                     .run = run_route,
                                     .describe = describe_route};
const struct bench_op bench_combine = {.name = "combine",
                                       .forms = FORM_BIT(FORM_F32),
                                       .prepare = prepare_combine,
                                       .run = run_combine,
                                       .describe = describe_combine};

#define LOGITS_OP(op)                                                                              \
    const struct bench_op bench_##op = {.name = "logits_" #op,                                     \
                                        .forms = FORM_BIT(FORM_F32),                               \
                                        .of_logits = true,                                         \
                                        .prepare = prepare_logits,                                 \
                                        .run = run_##op,                                           \
                                        .describe = describe_logits}
LOGITS_OP(peak);
LOGITS_OP(skip);
LOGITS_OP(weigh);
