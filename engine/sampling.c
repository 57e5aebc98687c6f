#include "engine/sampler.h"

#include <math.h>

struct msg_sampling sampling_default(void)
{
    return (struct msg_sampling){.temperature = 1.0F,
                                 .top_p = 1.0F,
                                 .repetition_penalty = 1.0F,
                                 .logprobs = -1,
                                 .max_tokens = 16};
}

/* NaN fails both comparisons. */
static bool within(double v, double low, double high)
{
    return v >= low && v <= high;
}

static enum status check_ids(const struct msg_sampling *s, int32_t vocab, struct error *err)
{
    if (s->stop_ids.n > MSG_STOP_IDS_MAX)
        return err_set(err, ST_INVALID, "stop_ids: %u of them, at most %d", s->stop_ids.n,
                       MSG_STOP_IDS_MAX);
    for (uint32_t i = 0; i < s->stop_ids.n; i++)
        if (s->stop_ids.v[i] < 0 || s->stop_ids.v[i] >= vocab)
            return err_set(err, ST_INVALID, "stop_ids: %d is not below the vocabulary's %d",
                           s->stop_ids.v[i], vocab);
    if (s->n_bias > MSG_BIAS_MAX)
        return err_set(err, ST_INVALID, "logit_bias: %u entries, at most %d", s->n_bias,
                       MSG_BIAS_MAX);
    for (uint32_t i = 0; i < s->n_bias; i++) {
        if (s->bias[i].id < 0 || s->bias[i].id >= vocab)
            return err_set(err, ST_INVALID, "logit_bias: %d is not below the vocabulary's %d",
                           s->bias[i].id, vocab);
        if (!within(s->bias[i].bias, -100, 100))
            return err_set(err, ST_INVALID, "logit_bias: %g is not within -100..100",
                           (double)s->bias[i].bias);
    }
    return ST_OK;
}

enum status sampling_check(const struct msg_sampling *s, int32_t vocab, struct error *err)
{
    const struct {
        const char *name;
        double value, low, high;
    } ranges[] = {
        {"temperature", (double)s->temperature, 0, 2},
        {"top_p", (double)s->top_p, 0, 1},
        {"min_p", (double)s->min_p, 0, 1},
        {"top_k", s->top_k, 0, INT32_MAX},
        {"presence_penalty", (double)s->presence_penalty, -2, 2},
        {"frequency_penalty", (double)s->frequency_penalty, -2, 2},
        {"repetition_penalty", (double)s->repetition_penalty, 0, 1e6},
        {"logprobs", s->logprobs, -1, MSG_LOGPROBS_MAX},
        {"max_tokens", s->max_tokens, 0, INT32_MAX},
        {"min_tokens", s->min_tokens, 0, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!within(ranges[i].value, ranges[i].low, ranges[i].high))
            return err_set(err, ST_INVALID, "%s: %g is not within %g..%g", ranges[i].name,
                           ranges[i].value, ranges[i].low, ranges[i].high);
    if (s->top_p <= 0)
        return err_set(err, ST_INVALID, "top_p: 0 is not within (0, 1]");
    if (s->repetition_penalty <= 0)
        return err_set(err, ST_INVALID, "repetition_penalty: 0 is not above 0");
    return check_ids(s, vocab, err);
}
