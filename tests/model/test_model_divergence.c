/* What rounding costs, measured on the embedded model: the Kullback-Leibler divergence of the next
 * token's distribution, over texts that the model itself says, from the one that fp32 rows give. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "model/model_impl.h"
#include "tests/model/int8_folder.h"
#include "tests/model/model_rig.h"

#define TINY BATON_SOURCE_DIR "/models/tiny"
#define TEXTS 4
#define N 200

struct texts {
    int32_t ids[TEXTS][N];
};

static const struct ops *best(void)
{
    const struct ops *ops;
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    return ops;
}

/* Log probabilities in place. */
static void normalise(float *logits, int32_t vocab)
{
    double most = -INFINITY, sum = 0;
    for (int32_t i = 0; i < vocab; i++)
        most = fmax(most, (double)logits[i]);
    for (int32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - most);
    for (int32_t i = 0; i < vocab; i++)
        logits[i] = (float)((double)logits[i] - most - log(sum));
}

static int32_t draw(struct rng *rng, const float *logprobs, int32_t vocab)
{
    double left = (double)(rng_next(rng) >> 11) * 0x1p-53;
    for (int32_t i = 0; i < vocab; i++)
        if ((left -= exp((double)logprobs[i])) < 0)
            return i;
    return vocab - 1;
}

static void say(struct rig *r, struct texts *t)
{
    float *logits = calloc((size_t)r->vocab, sizeof *logits);
    for (int i = 0; i < TEXTS; i++) {
        struct rng rng = rng_seed((uint64_t)i + 1);
        struct sequence s;
        t->ids[i][0] = 1 + i;
        rig_begin(r, &s, t->ids[i]);
        for (int32_t n = 1; n < N; n++) {
            rig_step(r, &(struct feed){&s, 1, WANT_LAST}, 1, logits);
            normalise(logits, r->vocab);
            t->ids[i][n] = draw(&rng, logits, r->vocab);
        }
    }
    free(logits);
}

static float *score_as(const char *path, enum model_weights_form form, enum dtype kv,
                       const struct texts *t, int32_t *vocab)
{
    struct rig *r = rig_open(&(struct rig_args){path, best(), 2, kv, 16, form});
    const size_t each = (size_t)N * (size_t)r->vocab;
    float *logits = calloc(TEXTS * each, sizeof *logits);
    for (int i = 0; i < TEXTS; i++) {
        struct sequence s;
        rig_begin(r, &s, t->ids[i]);
        rig_step(r, &(struct feed){&s, N, WANT_ALL}, 1, logits + (size_t)i * each);
    }
    for (size_t row = 0; row < (size_t)TEXTS * N; row++)
        normalise(logits + row * (size_t)r->vocab, r->vocab);
    *vocab = r->vocab;
    rig_close(r);
    return logits;
}

static float *score(const char *path, enum model_weights_form form, const struct texts *t,
                    int32_t *vocab)
{
    return score_as(path, form, DTYPE_F32, t, vocab);
}

static double divergence(const float *of, const float *from, int32_t vocab)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)TEXTS * N * (size_t)vocab; i++)
        sum += exp((double)from[i]) * ((double)from[i] - (double)of[i]);
    return sum / (TEXTS * N);
}

/* A second rounding, of rows, may not cost more than the first, of weights, does by far: in int8
 * with a scale to a row of weights, or to 32 of its elements in another order, and 32 elements of
 * x, or all of them; and in FP8, with rows in bf16 where the body has them. */
Test(divergence, embedded_model, .timeout = 120)
{
    char path[INT8_FOLDER_PATH];
    struct texts t;
    int32_t vocab;
    struct rig *r =
        rig_open(&(struct rig_args){TINY, best(), 2, DTYPE_F32, 16, MODEL_WEIGHTS_FLOAT});
    say(r, &t);
    rig_close(r);
    float *exact = score(TINY, MODEL_WEIGHTS_FLOAT, &t, &vocab);
    float *rows16 = score(TINY, MODEL_WEIGHTS_PACKED, &t, &vocab);
    double bf16 = divergence(rows16, exact, vocab);
    cr_assert_lt(bf16, 2e-5);
    free(rows16);
    for (int kind = 0; kind < INT8_KINDS; kind++) {
        int8_folder_make(TINY, (enum int8_kind)kind, path);
        float *weights8 = score(path, MODEL_WEIGHTS_FLOAT, &t, &vocab);
        float *both8 = score(path, MODEL_WEIGHTS_PACKED, &t, &vocab);
        float *wide8 = score(path, MODEL_WEIGHTS_WIDE, &t, &vocab);
        int8_folder_remove(path);
        double weights = divergence(weights8, exact, vocab);
        double both = divergence(both8, exact, vocab);
        double wide = divergence(wide8, exact, vocab);
        fprintf(
            stderr,
            "nats per token, %s: bf16 as packed %.2e, weights of 8 bits (%d) %.2e, and rows %.2e, "
            "wide %.2e\n",
            best()->name, bf16, kind, weights, both, wide);
        cr_assert_lt(weights, kind >= INT8_FP8 ? 2e-3 : 2e-4);
        cr_assert_lt(both, weights + (kind == INT8_TOKENS ? 5e-4 : 2e-4));
        if (kind != INT8_ORDERED) /* whose rows are of bytes nevertheless */
            cr_assert_lt(wide, weights + 2e-5);
        free(weights8);
        free(both8);
        free(wide8);
    }
    free(exact);
}

/* What rounding keys and values costs, from the distribution that bf16 ones give. The limits are
 * about twice what is measured. */
Test(divergence, of_quantized_kv, .timeout = 120)
{
    static const double most[DTYPE_KV_COUNT] = {
        [DTYPE_FP8] = 5e-4, [DTYPE_INT8] = 2.5e-5, [DTYPE_INT4] = 3.5e-3};
    struct texts t;
    int32_t vocab;
    struct rig *r =
        rig_open(&(struct rig_args){TINY, best(), 2, DTYPE_F32, 16, MODEL_WEIGHTS_FLOAT});
    say(r, &t);
    rig_close(r);
    float *bf16 = score_as(TINY, MODEL_WEIGHTS_FLOAT, DTYPE_BF16, &t, &vocab);
    for (enum dtype d = DTYPE_COUNT; d < DTYPE_KV_COUNT; d++) {
        float *quantized = score_as(TINY, MODEL_WEIGHTS_FLOAT, d, &t, &vocab);
        double nats = divergence(quantized, bf16, vocab);
        fprintf(stderr, "nats per token, %s: %s KV from bf16 KV %.2e\n", best()->name,
                dtype_name(d), nats);
        cr_assert_lt(nats, most[d]);
        free(quantized);
    }
    free(bf16);
}
