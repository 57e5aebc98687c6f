/* Routing of tokens to experts: a few comparisons per expert, not worth vectors. In fp32, every sum
 * in ascending order of expert or of choice. */
#include <assert.h>
#include <math.h>

#include "base/team.h"
#include "kernels/cpu/cpu.h"

/* Best of n by `key`, leaving out those taken. Of equals the first. */
static int32_t best(const float *key, const uint8_t *taken, int32_t n)
{
    int32_t at = -1;
    for (int32_t i = 0; i < n; i++)
        if (!taken[i] && (at < 0 || key[i] > key[at]))
            at = i;
    return at;
}

static void scores(const struct op_route *a, const float *logits, float *score)
{
    float max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < a->experts; i++)
        max = fmaxf(max, logits[i]);
    for (int32_t i = 0; i < a->experts; i++) {
        if (a->score == ROUTE_SIGMOID)
            score[i] = 1 / (1 + expf(-logits[i]));
        else
            score[i] = a->score == ROUTE_SOFTMAX ? expf(logits[i] - max) : logits[i];
        sum += score[i];
    }
    for (int32_t i = 0; a->score == ROUTE_SOFTMAX && i < a->experts; i++)
        score[i] /= sum;
}

/* Takes out the experts of all but the best groups. */
static void keep_groups(const struct op_route *a, const float *choice, uint8_t *taken)
{
    float key[OPS_EXPERTS_MAX];
    uint8_t kept[OPS_EXPERTS_MAX] = {0};
    int32_t size = a->experts / a->groups;
    for (int32_t g = 0; g < a->groups; g++) {
        const float *mine = choice + g * size;
        float first = -INFINITY, second = -INFINITY;
        for (int32_t i = 0; i < size; i++) {
            float v = mine[i];
            if (v > first)
                second = first, first = v;
            else if (v > second)
                second = v;
        }
        key[g] = a->bias && size > 1 ? first + second : first;
    }
    for (int32_t i = 0; i < a->top_groups; i++)
        kept[best(key, kept, a->groups)] = 1;
    for (int32_t i = 0; i < a->experts; i++)
        taken[i] = !kept[i / size];
}

static void route(const struct op_route *a, size_t m)
{
    float score[OPS_EXPERTS_MAX], choice[OPS_EXPERTS_MAX], sum = 0;
    uint8_t taken[OPS_EXPERTS_MAX] = {0};
    int32_t *expert = a->expert + m * (size_t)a->top_k;
    float *weight = a->weight + m * (size_t)a->top_k;
    scores(a, a->logits + m * (size_t)a->experts, score);
    for (int32_t i = 0; i < a->experts; i++)
        choice[i] = a->bias ? score[i] + a->bias[i] : score[i];
    if (a->groups > 0)
        keep_groups(a, choice, taken);
    for (int32_t k = 0; k < a->top_k; k++) {
        expert[k] = best(choice, taken, a->experts);
        taken[expert[k]] = 1;
        weight[k] = score[expert[k]];
        if (a->score == ROUTE_SOFTMAX_TOP)
            weight[k] = expf(weight[k] - score[expert[0]]);
        sum += weight[k];
    }
    for (int32_t k = 0; k < a->top_k; k++) {
        if (a->score == ROUTE_SOFTMAX_TOP || a->normalize)
            weight[k] /= sum + 1e-20f;
        if (a->scale != 0)
            weight[k] *= a->scale;
    }
}

void cpu_route(const struct op_route *a, int part, int parts)
{
    size_t begin, end;
    assert(a->experts <= OPS_EXPERTS_MAX && a->top_k <= a->experts);
    team_split((size_t)a->tokens, 1, part, parts, &begin, &end);
    for (size_t m = begin; m < end; m++)
        route(a, m);
}
