#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>

/* Best of n by `key`, leaving out those taken; -1: none. Of equals the first. */
static int32_t best(const double *key, const bool *taken, int32_t n)
{
    int32_t at = -1;
    for (int32_t i = 0; i < n; i++)
        if (!taken[i] && (at < 0 || key[i] > key[at]))
            at = i;
    return at;
}

static void scores(const struct op_route *a, const float *logits, double *score)
{
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < a->experts; i++)
        max = fmax(max, (double)logits[i]);
    for (int32_t i = 0; i < a->experts; i++)
        sum += exp((double)logits[i] - max);
    for (int32_t i = 0; i < a->experts; i++) {
        double x = (double)logits[i];
        if (a->score == ROUTE_SIGMOID)
            score[i] = 1 / (1 + exp(-x));
        else
            score[i] = a->score == ROUTE_SOFTMAX ? exp(x - max) / sum : x;
    }
}

/* Takes out the experts of all but the best groups. */
static void keep_groups(const struct op_route *a, const double *choice, bool *taken)
{
    double key[OPS_EXPERTS_MAX];
    bool kept[OPS_EXPERTS_MAX] = {false};
    int32_t size = a->experts / a->groups;
    for (int32_t g = 0; g < a->groups; g++) {
        const double *mine = choice + g * size;
        bool used[OPS_EXPERTS_MAX] = {false};
        int32_t first = best(mine, used, size);
        key[g] = mine[first];
        used[first] = true;
        if (a->bias && size > 1)
            key[g] += mine[best(mine, used, size)];
    }
    for (int32_t i = 0; i < a->top_groups; i++)
        kept[best(key, kept, a->groups)] = true;
    for (int32_t i = 0; i < a->experts; i++)
        taken[i] = !kept[i / size];
}

static void route(const struct op_route *a, int32_t m)
{
    double score[OPS_EXPERTS_MAX], choice[OPS_EXPERTS_MAX], sum = 0;
    double scale = a->scale == 0 ? 1 : (double)a->scale;
    bool taken[OPS_EXPERTS_MAX] = {false};
    int32_t *expert = a->expert + (size_t)m * (size_t)a->top_k;
    float *weight = a->weight + (size_t)m * (size_t)a->top_k;
    scores(a, a->logits + (size_t)m * (size_t)a->experts, score);
    for (int32_t i = 0; i < a->experts; i++)
        choice[i] = score[i] + (a->bias ? (double)a->bias[i] : 0);
    if (a->groups > 0)
        keep_groups(a, choice, taken);
    for (int32_t k = 0; k < a->top_k; k++) {
        expert[k] = best(choice, taken, a->experts);
        taken[expert[k]] = true;
        double s = score[expert[k]];
        sum += a->score == ROUTE_SOFTMAX_TOP ? exp(s - score[expert[0]]) : s;
    }
    for (int32_t k = 0; k < a->top_k; k++) {
        double s = score[expert[k]];
        if (a->score == ROUTE_SOFTMAX_TOP)
            s = exp(s - score[expert[0]]) / sum;
        else if (a->normalize)
            s /= sum + 1e-20;
        weight[k] = (float)(s * scale);
    }
}

void ref_route(const struct op_route *a, int part, int parts)
{
    int32_t begin, end;
    assert(a->experts <= OPS_EXPERTS_MAX && a->top_k <= a->experts);
    ref_split(a->tokens, part, parts, &begin, &end);
    for (int32_t m = begin; m < end; m++)
        route(a, m);
}
