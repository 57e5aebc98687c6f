#include "engine/sampler.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/logits.h"

#define PURPOSE_SAMPLE 1 /* of rng_hash(): other draws of the same position take other numbers */

/* Candidates in the order of their probability come from a stream: only those within `depth` of the
 * best are gathered and sorted, and more only when the walk gets that far. Most walks end among the
 * first hundred. */
struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    int32_t vocab;
    const float *logits;     /* [vocab] after bias, penalties and masks: the model's own, or */
    float *adjusted;         /* [vocab] a copy, where there are any */
    int32_t *count;          /* [vocab] 0 between calls */
    struct candidate *order; /* [vocab] */
    struct candidate *spare; /* [vocab] scratch of sort() */
    double *weights;         /* [vocab] of the first n_weights of `order`, as cut() has met them */
    int32_t n_order, n_weights;
    double depth; /* what `order` holds: logits >= max - depth */
    float max;
    int32_t max_id;
    struct msg_logprob top[MSG_LOGPROBS_MAX];
};

struct sampler *sampler_create(int32_t vocab)
{
    assert(vocab > 0);
    struct sampler *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->vocab = vocab;
    s->adjusted = malloc((size_t)vocab * sizeof *s->adjusted);
    s->count = calloc((size_t)vocab, sizeof *s->count);
    s->order = malloc((size_t)vocab * sizeof *s->order);
    s->spare = malloc((size_t)vocab * sizeof *s->spare);
    s->weights = malloc((size_t)vocab * sizeof *s->weights);
    if (!s->adjusted || !s->count || !s->order || !s->spare || !s->weights) {
        sampler_destroy(s);
        return NULL;
    }
    return s;
}

void sampler_destroy(struct sampler *s)
{
    if (s == NULL)
        return;
    free(s->adjusted);
    free(s->count);
    free(s->order);
    free(s->spare);
    free(s->weights);
    free(s);
}

static void penalise_repetition(struct sampler *s, const struct sampler_input *in)
{
    float penalty = in->spec->repetition_penalty;
    if (penalty == 1.0F)
        return;
    for (int32_t i = 0; i < in->n_ids; i++) {
        int32_t id = in->ids[i];
        if (s->count[id]++ == 0) {
            float *l = &s->adjusted[id], was = *l;
            *l = was > 0 ? was / penalty : was * penalty;
            /* A tiny penalty must not pass for a model that gave infinity. */
            if (isinf(*l) && isfinite(was))
                *l = copysignf(FLT_MAX, was);
        }
    }
    for (int32_t i = 0; i < in->n_ids; i++)
        s->count[in->ids[i]] = 0;
}

static void penalise_generated(struct sampler *s, const struct sampler_input *in)
{
    float presence = in->spec->presence_penalty, frequency = in->spec->frequency_penalty;
    if (presence == 0 && frequency == 0)
        return;
    for (int32_t i = in->n_prompt; i < in->n_ids; i++)
        s->count[in->ids[i]]++;
    for (int32_t i = in->n_prompt; i < in->n_ids; i++) {
        int32_t id = in->ids[i], n = s->count[id];
        if (n == 0)
            continue; /* done at its first occurrence */
        s->adjusted[id] -= presence + frequency * (float)n;
        s->count[id] = 0;
    }
}

/* 64 ids of a word of the mask; most words are all or nothing. A NaN stays: it is looked for. */
static void mask_word(float *logits, uint64_t word, int32_t n)
{
    if (word == 0) {
        for (int32_t i = 0; i < n; i++)
            logits[i] = logits[i] != logits[i] ? logits[i] : -INFINITY;
        return;
    }
    for (uint64_t out = ~word; out != 0; out &= out - 1) {
        int32_t i = __builtin_ctzll(out);
        if (i < n && logits[i] == logits[i])
            logits[i] = -INFINITY;
    }
}

static void let_end(struct sampler *s, const struct sampler_input *in, int32_t id, bool may_end)
{
    s->adjusted[id] = may_end ? in->logits[id] : -INFINITY;
}

static void mask_grammar(struct sampler *s, const struct sampler_input *in)
{
    if (in->mask == NULL)
        return;
    for (int32_t i = 0; i < s->vocab; i += 64)
        mask_word(s->adjusted + i, in->mask[i / 64], s->vocab - i < 64 ? s->vocab - i : 64);
    for (int32_t i = 0; i < in->n_eos; i++)
        let_end(s, in, in->eos[i], in->may_end && !in->spec->ignore_eos);
    for (uint32_t i = 0; i < in->spec->stop_ids.n; i++)
        let_end(s, in, in->spec->stop_ids.v[i], in->may_end);
}

static void mask_ends(struct sampler *s, const struct sampler_input *in)
{
    if (in->n_ids - in->n_prompt >= in->spec->min_tokens)
        return;
    for (int32_t i = 0; i < in->n_eos; i++)
        s->adjusted[in->eos[i]] = -INFINITY;
    for (uint32_t i = 0; i < in->spec->stop_ids.n; i++)
        s->adjusted[in->spec->stop_ids.v[i]] = -INFINITY;
}

/* The maximum (ties: the lower id). */
static enum status find_max(struct sampler *s)
{
    const struct logits_peak peak = logits_find_peak(s->logits, s->vocab);
    s->max = peak.max;
    s->max_id = peak.id;
    return peak.nan || !isfinite(peak.max) ? ST_INTERNAL : ST_OK;
}

/* Most requests want the logits as they are. */
static bool adjusts(const struct sampler_input *in)
{
    const struct msg_sampling *spec = in->spec;
    return in->mask != NULL || spec->n_bias > 0 || spec->repetition_penalty != 1.0F ||
           spec->presence_penalty != 0 || spec->frequency_penalty != 0 ||
           in->n_ids - in->n_prompt < spec->min_tokens;
}

static enum status adjust(struct sampler *s, const struct sampler_input *in)
{
    s->logits = in->logits;
    if (!adjusts(in))
        return find_max(s);
    s->logits = memcpy(s->adjusted, in->logits, (size_t)s->vocab * sizeof *s->adjusted);
    mask_grammar(s, in);
    for (uint32_t i = 0; i < in->spec->n_bias; i++)
        s->adjusted[in->spec->bias[i].id] += in->spec->bias[i].bias;
    penalise_repetition(s, in);
    penalise_generated(s, in);
    mask_ends(s, in);
    return find_max(s);
}

static int by_probability(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Ascends as the logit descends; both zeros are one. */
static uint32_t descending_key(float logit)
{
    float x = logit + 0.0F;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 31 ? bits : ~(bits | UINT32_C(1) << 31);
}

#define DIGIT_BITS 11
#define DIGITS (1 << DIGIT_BITS)
#define DIGIT_PASSES 3
#define RADIX_MIN 512 /* below it a sort by comparisons is quicker */

/* As by_probability() sorts what stands in the order of ids: a flat distribution over a large
 * vocabulary gathers all of it, for every token. */
static void sort_by_digits(struct sampler *s)
{
    uint32_t starts[DIGIT_PASSES][DIGITS] = {0};
    for (int32_t i = 0; i < s->n_order; i++) {
        uint32_t key = descending_key(s->order[i].logit);
        for (int pass = 0; pass < DIGIT_PASSES; pass++)
            starts[pass][key >> pass * DIGIT_BITS & (DIGITS - 1)]++;
    }
    for (int pass = 0; pass < DIGIT_PASSES; pass++) {
        uint32_t sum = 0;
        for (int d = 0; d < DIGITS; d++) {
            uint32_t n = starts[pass][d];
            starts[pass][d] = sum;
            sum += n;
        }
        for (int32_t i = 0; i < s->n_order; i++) {
            uint32_t digit = descending_key(s->order[i].logit) >> pass * DIGIT_BITS & (DIGITS - 1);
            s->spare[starts[pass][digit]++] = s->order[i];
        }
        struct candidate *sorted = s->spare;
        s->spare = s->order;
        s->order = sorted;
    }
}

/* The largest float below all that are at least `floor`. */
static float below(double floor)
{
    float f = (float)floor;
    return (double)f < floor ? f : nextafterf(f, -INFINITY);
}

static void gather(struct sampler *s, double depth)
{
    const float than = below((double)s->max - depth);
    s->n_order = 0;
    s->depth = depth;
    for (int32_t i = 0; (i = logits_skip(s->logits, s->vocab, i, than)) < s->vocab;) {
        const int32_t end = s->vocab - i < LOGITS_BLOCK ? s->vocab : i + LOGITS_BLOCK;
        for (; i < end; i++)
            if (s->logits[i] > than)
                s->order[s->n_order++] = (struct candidate){s->logits[i], i};
    }
    if (s->n_order >= RADIX_MIN)
        sort_by_digits(s);
    else
        qsort(s->order, (size_t)s->n_order, sizeof *s->order, by_probability);
}

/* The i-th most probable token, NULL past the last possible one. Needs gather() once before. */
static const struct candidate *nth(struct sampler *s, int32_t i)
{
    while (i >= s->n_order) {
        if (s->depth == (double)INFINITY)
            return NULL;
        gather(s, s->depth < 64 ? s->depth * 2 : (double)INFINITY);
    }
    return &s->order[i];
}

static double weight(const struct sampler *s, float logit, double temperature)
{
    return logits_weight(logit, &(struct logits_scale){s->max, temperature});
}

static double weight_of_all(const struct sampler *s, double temperature)
{
    return logits_weigh(s->logits, s->vocab, &(struct logits_scale){s->max, temperature});
}

/* How many candidates, best first, the cuts leave; *kept is their weight. INT32_MAX: all. */
static int32_t cut(struct sampler *s, const struct msg_sampling *spec, double *kept)
{
    double t = (double)spec->temperature, total = 0;
    s->n_weights = 0;
    int32_t limit = spec->top_k > 0 && spec->top_k < s->vocab ? spec->top_k : INT32_MAX;
    if (limit == INT32_MAX) {
        *kept = total = weight_of_all(s, t);
        if (spec->top_p >= 1 && spec->min_p <= 0)
            return limit;
    } else {
        const struct candidate *c;
        for (int32_t i = 0; i < limit && (c = nth(s, i)) != NULL; i++)
            total += weight(s, c->logit, t);
    }
    double wanted = spec->top_p < 1 ? (double)spec->top_p * total : (double)INFINITY, sum = 0;
    int32_t n = 0;
    const struct candidate *c;
    while (n < limit && sum < wanted && (c = nth(s, n)) != NULL) {
        double w = weight(s, c->logit, t);
        if (n > 0 && (w < (double)spec->min_p || w == 0))
            break;
        sum += w;
        s->weights[n++] = w;
    }
    s->n_weights = n;
    *kept = sum;
    return n;
}

static int32_t draw(struct sampler *s, const struct sampler_input *in)
{
    const struct msg_sampling *spec = in->spec;
    double t = (double)spec->temperature, kept;
    gather(s, t > 1.0 / 4 ? t * 2 : 0.5);
    int32_t n = cut(s, spec, &kept);
    uint64_t position = (uint64_t)(in->n_ids - in->n_prompt);
    double target =
        rng_unit(rng_hash(spec->seed, (uint64_t)in->choice, position, PURPOSE_SAMPLE)) * kept;
    double sum = 0;
    int32_t last = s->max_id;
    const struct candidate *c;
    for (int32_t i = 0; i < n && (c = nth(s, i)) != NULL; i++) {
        double w = i < s->n_weights ? s->weights[i] : weight(s, c->logit, t);
        if (i > 0 && w == 0)
            break; /* rounding left the target above the whole sum */
        last = c->id;
        sum += w;
        if (sum > target)
            break;
    }
    return last;
}

/* Puts it among the best `limit`, of which there are n so far; returns how many there are then. */
static int32_t insert(struct sampler *s, int32_t n, int32_t limit, struct candidate c)
{
    int32_t at = n < limit ? n++ : n - 1;
    for (; at > 0 && s->order[at - 1].logit < c.logit; at--)
        s->order[at] = s->order[at - 1];
    s->order[at] = c;
    return n;
}

/* The few most probable tokens to the front of `order`, in one pass; returns how many. */
static int32_t keep_best(struct sampler *s, int32_t limit)
{
    float than = -INFINITY; /* what the next one must be above */
    int32_t n = 0;
    s->n_order = 0;
    for (int32_t i = 0; (i = logits_skip(s->logits, s->vocab, i, than)) < s->vocab;) {
        const int32_t end = s->vocab - i < LOGITS_BLOCK ? s->vocab : i + LOGITS_BLOCK;
        for (; i < end; i++) {
            if (!(s->logits[i] > than))
                continue;
            n = insert(s, n, limit, (struct candidate){s->logits[i], i});
            if (n == limit)
                than = s->order[n - 1].logit;
        }
    }
    return n;
}

static float logprob_of(const struct sampler *s, float logit, double log_sum)
{
    return (float)((double)logit - (double)s->max - log_sum);
}

/* The few most probable to `top`; returns how many. */
static uint32_t report_top(struct sampler *s, int32_t n_top, double log_sum)
{
    int32_t n = n_top > 0 ? keep_best(s, n_top) : 0;
    for (int32_t i = 0; i < n; i++)
        s->top[i] = (struct msg_logprob){s->order[i].id, logprob_of(s, s->order[i].logit, log_sum)};
    return (uint32_t)n;
}

enum status sampler_pick(struct sampler *s, const struct sampler_input *in, struct msg_token *out)
{
    assert(in->n_ids >= in->n_prompt && in->n_prompt >= 0);
    enum status st = adjust(s, in);
    if (st != ST_OK)
        return st;
    *out = (struct msg_token){.choice = in->choice, .position = in->n_ids - in->n_prompt};
    out->id = in->spec->temperature > 0 ? draw(s, in) : s->max_id;
    if (in->spec->logprobs < 0)
        return ST_OK;
    double log_sum = log(weight_of_all(s, 1.0));
    out->logprob = logprob_of(s, s->logits[out->id], log_sum);
    out->top = s->top;
    out->n_top = report_top(s, in->spec->logprobs, log_sum);
    return ST_OK;
}

enum status sampler_score(struct sampler *s, const float *logits, int32_t id, int32_t n_top,
                          struct msg_score *out)
{
    assert(id >= 0 && id < s->vocab && n_top >= 0 && n_top <= MSG_LOGPROBS_MAX);
    s->logits = logits;
    enum status st = find_max(s);
    if (st != ST_OK)
        return st;
    double log_sum = log(weight_of_all(s, 1.0));
    out->id = id;
    out->rank = 1;
    for (int32_t i = 0; i < s->vocab; i++)
        out->rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    out->logprob = logprob_of(s, logits[id], log_sum);
    out->top = s->top;
    out->n_top = report_top(s, n_top, log_sum);
    return ST_OK;
}
