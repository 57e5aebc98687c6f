/* The sampler against goldens of a straightforward one in Python, and what goldens cannot say. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "engine/sampler.h"

static double number(const json *c, const char *key)
{
    const json *v = json_get(c, key);
    cr_assert_not_null(v, "%s", key);
    return json_kind_of(v) == JSON_BOOL ? json_as_bool(v, false) : json_as_number(v, NAN);
}

static int32_t read_ids(const json *list, int32_t *out, int32_t cap)
{
    int32_t n = (int32_t)json_count(list);
    cr_assert_leq(n, cap);
    for (int32_t i = 0; i < n; i++)
        out[i] = (int32_t)json_as_int(json_at(list, (size_t)i), -1);
    return n;
}

static void make_logits(const json *c, float *logits, int32_t vocab)
{
    uint64_t seed = (uint64_t)number(c, "logits");
    for (int32_t v = 0; v < vocab; v++) {
        double x = (double)(rng_hash(seed, (uint64_t)v, 0, 0) >> 40) * 0x1p-21 - 4;
        x *= number(c, "scale");
        logits[v] = (float)(number(c, "ties") != 0 ? floor(x * 2) / 2 : x);
    }
}

static void check_case(const json *c, size_t nth)
{
    int32_t vocab = (int32_t)number(c, "vocab"), ids[64], eos[4], stop[4];
    float *logits = malloc((size_t)vocab * sizeof *logits);
    struct msg_bias bias[8];
    const json *b = json_get(c, "bias");
    make_logits(c, logits, vocab);
    for (size_t i = 0; i < json_count(b); i++)
        bias[i] = (struct msg_bias){(int32_t)json_as_int(json_at(json_at(b, i), 0), -1),
                                    (float)json_as_number(json_at(json_at(b, i), 1), NAN)};
    struct msg_sampling spec = sampling_default();
    spec.temperature = (float)number(c, "temperature");
    spec.top_k = (int32_t)number(c, "top_k");
    spec.top_p = (float)number(c, "top_p");
    spec.min_p = (float)number(c, "min_p");
    spec.repetition_penalty = (float)number(c, "repetition");
    spec.presence_penalty = (float)number(c, "presence");
    spec.frequency_penalty = (float)number(c, "frequency");
    spec.min_tokens = (int32_t)number(c, "min_tokens");
    spec.seed = (uint64_t)json_as_int(json_get(c, "seed"), 0);
    spec.logprobs = (int32_t)number(c, "n_top");
    spec.bias = bias;
    spec.n_bias = (uint32_t)json_count(b);
    spec.stop_ids = (struct msg_ids){stop, (uint32_t)read_ids(json_get(c, "stop"), stop, 4)};
    struct sampler_input in = {.logits = logits,
                               .spec = &spec,
                               .ids = ids,
                               .n_ids = read_ids(json_get(c, "ids"), ids, 64),
                               .n_prompt = (int32_t)number(c, "n_prompt"),
                               .choice = (int32_t)number(c, "choice"),
                               .eos = eos,
                               .n_eos = read_ids(json_get(c, "eos"), eos, 4)};
    cr_assert_eq(sampling_check(&spec, vocab, NULL), ST_OK);
    struct sampler *s = sampler_create(vocab);
    struct msg_token t;
    for (int again = 0; again < 2; again++) {
        const json *top = json_get(c, "top");
        cr_assert_eq(sampler_pick(s, &in, &t), ST_OK);
        cr_assert_eq(t.id, (int32_t)number(c, "id"), "case %zu: %d", nth, t.id);
        cr_assert_eq(t.position, in.n_ids - in.n_prompt);
        cr_assert_float_eq((double)t.logprob, number(c, "logprob"), 1e-4, "case %zu", nth);
        cr_assert_eq(t.n_top, json_count(top), "case %zu", nth);
        for (uint32_t i = 0; i < t.n_top; i++) {
            const json *pair = json_at(top, i);
            cr_assert_eq(t.top[i].id, json_as_int(json_at(pair, 0), -1), "case %zu", nth);
            cr_assert_float_eq((double)t.top[i].logprob, json_as_number(json_at(pair, 1), NAN),
                               1e-4, "case %zu", nth);
        }
    }
    sampler_destroy(s);
    free(logits);
}

Test(sampler, goldens)
{
    json *root = NULL;
    struct error err = {0};
    cr_assert_eq(json_read_file(BATON_SOURCE_DIR "/tests/engine/goldens/sampler.json", 16 << 20,
                                &root, &err),
                 ST_OK, "%s", err.text);
    cr_assert(json_count(root) > 300);
    for (size_t i = 0; i < json_count(root); i++)
        check_case(json_at(root, i), i);
    json_free(root);
}

static enum status pick(const float *logits, int32_t vocab, const struct msg_sampling *spec,
                        struct msg_token *t)
{
    struct sampler *s = sampler_create(vocab);
    int32_t eos[] = {0};
    struct sampler_input in = {.logits = logits, .spec = spec, .ids = eos, .eos = eos, .n_eos = 1};
    static struct msg_logprob top[MSG_LOGPROBS_MAX];
    enum status st = sampler_pick(s, &in, t);
    for (uint32_t i = 0; st == ST_OK && i < t->n_top; i++)
        top[i] = t->top[i];
    t->top = top;
    sampler_destroy(s);
    return st;
}

Test(sampler, unusable_logits_are_an_error)
{
    struct msg_sampling spec = sampling_default();
    struct msg_token t;
    float nan[] = {1, NAN, 2}, none[] = {-INFINITY, -INFINITY}, huge[] = {1, INFINITY};
    float eos_only[] = {3, -INFINITY};
    for (int greedy = 0; greedy < 2; greedy++) {
        spec.temperature = greedy ? 0 : 1;
        spec.min_tokens = 0;
        cr_assert_eq(pick(nan, 3, &spec, &t), ST_INTERNAL);
        cr_assert_eq(pick(none, 2, &spec, &t), ST_INTERNAL);
        cr_assert_eq(pick(huge, 2, &spec, &t), ST_INTERNAL);
        cr_assert_eq(pick(eos_only, 2, &spec, &t), ST_OK);
        cr_assert_eq(t.id, 0);
        spec.min_tokens = 1;
        cr_assert_eq(pick(eos_only, 2, &spec, &t), ST_INTERNAL);
    }
}

Test(sampler, ties_go_to_the_lower_id)
{
    float same[100] = {0};
    struct msg_sampling spec = sampling_default();
    struct msg_token t;
    spec.temperature = 0;
    spec.logprobs = 20;
    cr_assert_eq(pick(same, 100, &spec, &t), ST_OK);
    cr_assert_eq(t.id, 0);
    spec.temperature = 1;
    spec.top_k = 5;
    for (spec.seed = 0; spec.seed < 50; spec.seed++) {
        cr_assert_eq(pick(same, 100, &spec, &t), ST_OK);
        cr_assert_lt(t.id, 5);
    }
}

/* Which ids 300 draws say. */
static uint64_t ids_drawn(const float *logits, int32_t vocab, struct msg_sampling spec)
{
    uint64_t seen = 0;
    struct msg_token t;
    for (spec.seed = 0; spec.seed < 300; spec.seed++) {
        cr_assert_eq(pick(logits, vocab, &spec, &t), ST_OK);
        seen |= UINT64_C(1) << t.id;
    }
    return seen;
}

/* top_p is reached by the token that makes up the share, not by one more; min_p lets in what is
 * just as probable as it asks. */
Test(sampler, cuts_at_the_very_edge)
{
    float four[] = {0, 0, 0, 0}, two[] = {2, 2, 1};
    struct msg_sampling spec = sampling_default();
    spec.top_p = 0.5F;
    cr_assert_eq(ids_drawn(four, 4, spec), 0x3);
    spec.top_k = 2; /* half of what top_k left */
    cr_assert_eq(ids_drawn(four, 4, spec), 0x1);
    spec = sampling_default();
    spec.min_p = 1;
    cr_assert_eq(ids_drawn(two, 3, spec), 0x3);
}

Test(sampler, frequencies_follow_the_probabilities)
{
    float logits[4];
    double p[] = {0.5, 0.25, 0.2, 0.05};
    int count[4] = {0}, n = 40000;
    struct msg_sampling spec = sampling_default();
    struct msg_token t;
    for (int i = 0; i < 4; i++)
        logits[i] = (float)log(p[i]);
    for (spec.seed = 0; spec.seed < (uint64_t)n; spec.seed++) {
        cr_assert_eq(pick(logits, 4, &spec, &t), ST_OK);
        count[t.id]++;
    }
    double chi2 = 0;
    for (int i = 0; i < 4; i++)
        chi2 += pow(count[i] - n * p[i], 2) / (n * p[i]);
    cr_assert_lt(chi2, 16.3, "%g", chi2); /* 3 degrees of freedom, p = 0.001; seeds are fixed */
}

Test(sampler, extreme_logits_and_temperatures)
{
    float logits[] = {3e38F, -3e38F, 2.9e38F, 0};
    struct msg_sampling spec = sampling_default();
    struct msg_token t;
    float temperatures[] = {1e-38F, 1e-6F, 1, 2};
    for (int i = 0; i < 4; i++) {
        spec.temperature = temperatures[i];
        spec.logprobs = 4;
        cr_assert_eq(pick(logits, 4, &spec, &t), ST_OK);
        cr_assert_eq(t.id, 0);
        cr_assert_eq(t.n_top, 4);
        cr_assert_eq(t.top[1].id, 2);
        spec.top_k = 3;
        spec.top_p = 0.5F;
        cr_assert_eq(pick(logits, 4, &spec, &t), ST_OK);
        cr_assert_eq(t.id, 0);
    }
}

/* A penalty within its range must not pass for a model that gave infinity: it would cost a request
 * its nodes. */
Test(sampler, penalties_that_overflow_saturate)
{
    static const float penalties[] = {1e-38F, 1e-45F, 1e6F};
    static const int32_t seen[] = {0, 1, 2, 3};
    const float logits[] = {9, -2e34F, 30, -INFINITY, 1};
    for (size_t i = 0; i < sizeof penalties / sizeof *penalties; i++) {
        struct msg_sampling spec = sampling_default();
        struct sampler *s = sampler_create(5);
        struct msg_token t;
        spec.repetition_penalty = penalties[i];
        spec.temperature = 0;
        spec.logprobs = 5;
        struct sampler_input in = {
            .logits = logits, .spec = &spec, .ids = seen, .n_ids = 4, .n_prompt = 4};
        cr_assert_eq(sampling_check(&spec, 5, NULL), ST_OK);
        cr_assert_eq(sampler_pick(s, &in, &t), ST_OK, "penalty %g", (double)penalties[i]);
        cr_assert_eq(t.id, penalties[i] < 1 ? 0 : 4);
        cr_assert(isfinite(t.logprob));
        cr_assert_eq(t.n_top, 4U, "what was impossible stays so");
        spec.temperature = 1;
        cr_assert_eq(sampler_pick(s, &in, &t), ST_OK);
        cr_assert_neq(t.id, 3);
        sampler_destroy(s);
    }
}

Test(sampler, a_large_vocabulary)
{
    int32_t vocab = 1 << 20;
    float *logits = malloc((size_t)vocab * sizeof *logits);
    for (int32_t v = 0; v < vocab; v++)
        logits[v] = (float)(rng_mix((uint64_t)v) >> 40) * 0x1p-22F;
    struct msg_sampling spec = sampling_default();
    struct msg_token t;
    for (spec.seed = 0; spec.seed < 5; spec.seed++) {
        spec.logprobs = 20;
        cr_assert_eq(pick(logits, vocab, &spec, &t), ST_OK);
        for (uint32_t i = 1; i < t.n_top; i++)
            cr_assert(t.top[i - 1].logprob >= t.top[i].logprob);
    }
    free(logits);
}

struct ranked {
    float logit;
    int32_t id;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

/* What top-k and a draw give by their definitions, over all of a sorted vocabulary. */
static int32_t plain_draw(const struct ranked *order, int32_t n, uint64_t seed)
{
    double total = 0, sum = 0;
    for (int32_t i = 0; i < n; i++)
        total += exp((double)order[i].logit - (double)order[0].logit);
    double target = rng_unit(rng_hash(seed, 0, 0, 1)) * total;
    for (int32_t i = 0; i < n; i++) {
        sum += exp((double)order[i].logit - (double)order[0].logit);
        if (sum > target)
            return order[i].id;
    }
    return order[n - 1].id;
}

/* Ties, both signs, both zeros, and logits that no token has: more of them than a sort by
 * comparisons is used for. */
Test(sampler, a_flat_vocabulary_is_ranked_as_by_a_plain_sort)
{
    enum { VOCAB = 4099 };
    static float logits[VOCAB];
    static struct ranked order[VOCAB];
    struct msg_sampling spec = sampling_default();
    struct msg_token t;
    for (int round = 0; round < 4; round++) {
        int32_t n = 0;
        for (int32_t v = 0; v < VOCAB; v++) {
            uint64_t r = rng_mix((uint64_t)(v * 4 + round));
            logits[v] = (float)(r % 1024) / (round == 0 ? 128.0F : 4096.0F) - 0.1F;
            if (r >> 32 & 1)
                logits[v] = r >> 33 & 1 ? 0.0F : -0.0F;
            if ((r >> 40) % 64 == 0)
                logits[v] = -INFINITY;
            if (logits[v] != -INFINITY)
                order[n++] = (struct ranked){logits[v], v};
        }
        qsort(order, (size_t)n, sizeof *order, by_rank);
        spec.logprobs = MSG_LOGPROBS_MAX;
        spec.top_k = round % 2 ? 3000 : 0;
        for (spec.seed = 0; spec.seed < 50; spec.seed++) {
            cr_assert_eq(pick(logits, VOCAB, &spec, &t), ST_OK);
            cr_assert_eq(t.id, plain_draw(order, round % 2 ? 3000 : n, spec.seed), "round %d",
                         round);
            cr_assert_eq(t.n_top, MSG_LOGPROBS_MAX);
            for (int i = 0; i < MSG_LOGPROBS_MAX; i++)
                cr_assert_eq(t.top[i].id, order[i].id, "round %d, rank %d", round, i);
        }
    }
}

Test(sampling, checks_every_range)
{
    struct msg_sampling good = sampling_default(), bad;
    struct error err = {0};
    int32_t ids[MSG_STOP_IDS_MAX + 1] = {0}, outside[] = {10};
    struct msg_bias bias = {3, NAN};
    cr_assert_eq(sampling_check(&good, 10, &err), ST_OK);
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        bad = good;                                                                                \
        change;                                                                                    \
        cr_assert_eq(sampling_check(&bad, 10, &err), ST_INVALID, "%s", #change);                   \
    } while (0)
    REFUSED(bad.temperature = 2.1F);
    REFUSED(bad.temperature = -0.1F);
    REFUSED(bad.temperature = INFINITY);
    REFUSED(bad.temperature = NAN);
    REFUSED(bad.top_p = 0);
    REFUSED(bad.top_p = 1.1F);
    REFUSED(bad.min_p = -0.1F);
    REFUSED(bad.min_p = NAN);
    REFUSED(bad.top_k = -1);
    REFUSED(bad.presence_penalty = 2.5F);
    REFUSED(bad.frequency_penalty = -2.5F);
    REFUSED(bad.repetition_penalty = 0);
    REFUSED(bad.repetition_penalty = INFINITY);
    REFUSED(bad.logprobs = -2);
    REFUSED(bad.logprobs = MSG_LOGPROBS_MAX + 1);
    REFUSED(bad.max_tokens = -1);
    REFUSED(bad.min_tokens = -1);
    REFUSED((bad.stop_ids = (struct msg_ids){ids, MSG_STOP_IDS_MAX + 1}));
    REFUSED((bad.stop_ids = (struct msg_ids){outside, 1}));
    REFUSED((bad.bias = &bias, bad.n_bias = 1));
    REFUSED((bad.bias = &bias, bad.n_bias = MSG_BIAS_MAX + 1));
}

Test(sampler, a_mask_leaves_only_what_it_allows)
{
    enum { VOCAB = 200 };
    float logits[VOCAB];
    uint64_t mask[4] = {0};
    int32_t ids[] = {1, 2}, eos[] = {150}, stop[] = {151};
    struct msg_token t;
    struct sampler *s = sampler_create(VOCAB);
    struct msg_sampling spec = sampling_default();
    spec.temperature = 0;
    spec.logprobs = 3;
    spec.stop_ids = (struct msg_ids){stop, 1};
    struct sampler_input in = {.logits = logits,
                               .spec = &spec,
                               .ids = ids,
                               .n_ids = 2,
                               .n_prompt = 1,
                               .eos = eos,
                               .n_eos = 1,
                               .mask = mask};
    for (int32_t i = 0; i < VOCAB; i++)
        logits[i] = (float)i / 10;
    logits[150] = logits[151] = 100;
    mask[0] = UINT64_C(1) << 63 | 1;
    mask[1] = ~UINT64_C(0);
    mask[2] = UINT64_C(1) << (151 - 128); /* a stop id, which only may_end lets through */
    cr_assert_eq(sampler_pick(s, &in, &t), ST_OK);
    cr_expect_eq(t.id, 127);
    cr_expect_eq(t.n_top, 3u);
    mask[1] = 0;
    cr_assert_eq(sampler_pick(s, &in, &t), ST_OK);
    cr_expect_eq(t.id, 63);
    cr_expect_eq(t.n_top, 2u);
    in.may_end = true;
    cr_assert_eq(sampler_pick(s, &in, &t), ST_OK);
    cr_expect_eq(t.id, 150);
    spec.ignore_eos = true;
    cr_assert_eq(sampler_pick(s, &in, &t), ST_OK);
    cr_expect_eq(t.id, 151);
    spec.min_tokens = 5;
    cr_assert_eq(sampler_pick(s, &in, &t), ST_OK);
    cr_expect_eq(t.id, 63);
    logits[7] = NAN; /* masked, and still seen */
    cr_expect_eq(sampler_pick(s, &in, &t), ST_INTERNAL);
    logits[7] = 0;
    mask[0] = 0;
    cr_expect_eq(sampler_pick(s, &in, &t), ST_INTERNAL);
    sampler_destroy(s);
}
