/* What rounding costs, measured on the embedded model: the Kullback-Leibler divergence of the next
 * token's distribution, over texts that the model itself says, from the one that fp32 rows give. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/model_impl.h"
#include "tests/model/model_rig.h"
#include "tests/model/quantized_model.h"

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

static struct rig *open_rig(const char *path, enum model_weights_form form, enum dtype kv)
{
    return rig_open(&(struct rig_args){path, best(), 2, kv, 16, form});
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

static void say(struct texts *t)
{
    struct rig *r = open_rig(TINY, MODEL_WEIGHTS_FLOAT, DTYPE_F32);
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
    rig_close(r);
}

/* Log probabilities of all texts; closes the rig. */
static float *score(struct rig *r, const struct texts *t)
{
    const size_t each = (size_t)N * (size_t)r->vocab;
    float *logits = calloc(TEXTS * each, sizeof *logits);
    for (int i = 0; i < TEXTS; i++) {
        struct sequence s;
        rig_begin(r, &s, t->ids[i]);
        rig_step(r, &(struct feed){&s, N, WANT_ALL}, 1, logits + (size_t)i * each);
    }
    for (size_t row = 0; row < (size_t)TEXTS * N; row++)
        normalise(logits + row * (size_t)r->vocab, r->vocab);
    rig_close(r);
    return logits;
}

static double divergence(const float *of, const float *from, int32_t vocab)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)TEXTS * N * (size_t)vocab; i++)
        sum += exp((double)from[i]) * ((double)from[i] - (double)of[i]);
    return sum / (TEXTS * N);
}

/* ---- weights, and what they are multiplied with ---- */

/* Nats per token from what the model says with its bf16 weights and rows in fp32. Of all bodies'
 * results, which are within a few per cent of each other: `most`, what rounded weights cost, is a
 * sixth over the largest; it is the maker's, and the reader's. Less than a quarter of it would be
 * weights that were not rounded. `packed_more` and `wide_more` are what rounded rows may add to
 * that, which is the kernels' part: some 5e-5 for bytes in spans of 32 or 64, of which 4-bit
 * weights, whose own cost is a hundred times as large, show up to 1.5e-4 as chance has it; 2e-4 for
 * bytes with a scale a token; and for rows of 16 bits next to nothing. 0: not that way. */
#define LEAST 0.25
static const struct {
    const char *weights;
    double most, packed_more, wide_more;
} paths[] = {
    {"int8-rows", 6e-5, 7e-5, 6e-6},
    {"int8-tokens", 6e-5, 2.6e-4, 6e-6},
    {"int8-32-ordered", 3.4e-5, 7e-5, 0},
    {"fp8-rows", 7.4e-4, 2e-5, 0},
    {"fp8-blocks", 9.6e-4, 2e-5, 0},
    {"int4-32", 7.5e-3, 2e-4, 3e-5},
    {"int4-64", 9.8e-3, 2e-4, 3e-5},
    {"int4-128", 1.13e-2, 2e-4, 3e-5},
    {"int4-128-zeros", 8.5e-3, 2.5e-4, 3e-5},
    {"gptq-128", 8.5e-3, 2.5e-4, 3e-5},
    {"gptq-128-ordered", 7.9e-3, 2.5e-4, 0},
    {"awq-64", 7.1e-3, 2.5e-4, 3e-5},
    {"mxfp4", 1.2e-2, 2e-4, 3e-5},
    {"gguf-q8_0", 3.5e-5, 7e-5, 6e-6},
    {"gguf-q4_0", 8.3e-3, 2e-4, 3e-5},
    {"gguf-q4_k", 6.2e-3, 2e-4, 3e-5},
    {"gguf-q6_k", 3.5e-4, 6e-5, 1.2e-5},
    {"gguf-mxfp4", 1.9e-2, 3e-4, 5e-5},
};

#define ROUNDED_MOST 3e-4   /* bf16 weights rounded to bytes when they are loaded, rows as well */
#define BF16_ROWS_MOST 5e-6 /* by bf16 weights */

struct measured {
    const struct texts *texts;
    const float *exact;
};

/* Whether weights of that name stay integers, and are multiplied with bytes; else they are floats
 * or FP8. */
static bool are_integers(const char *name)
{
    return name && strncmp(name, "fp8", 3) != 0;
}

/* What the rows are rounded to. */
static enum model_math math_of(const char *name, enum model_weights_form form)
{
    if (form == MODEL_WEIGHTS_FLOAT)
        return MODEL_MATH_FLOAT;
    if (form == MODEL_WEIGHTS_INT8 || (form == MODEL_WEIGHTS_PACKED && are_integers(name)))
        return MODEL_MATH_INT8;
    return best()->round ? MODEL_MATH_BF16 : MODEL_MATH_FLOAT;
}

/* None declines: the model's weights are of this form, and its rows. `name` NULL: as they are. */
static double cost_of(const struct measured *m, const char *name, const char *path,
                      enum model_weights_form form)
{
    struct rig *r = open_rig(path, form, DTYPE_F32);
    const struct model_weights *w = &r->model->weights;
    const int32_t vocab = r->vocab;
    const bool is_fp8 = name && !are_integers(name), is_float = form == MODEL_WEIGHTS_FLOAT;
    const bool packs = form == MODEL_WEIGHTS_INT8 || (!is_float && are_integers(name));
    cr_expect_eq(w->n_packed > 0, packs, "%s, form %d: %zu are packed", path, form, w->n_packed);
    cr_expect_eq(w->fp8.n > 0, is_fp8 && !is_float, "%s, form %d: %zu are FP8", path, form,
                 w->fp8.n);
    cr_expect_eq(model_get_math(r->model), math_of(name, form), "%s, form %d", path, form);
    float *said = score(r, m->texts);
    const double nats = divergence(said, m->exact, vocab);
    free(said);
    return nats;
}

/* What rounded rows cost, beside what the weights alone do: something where they are rounded. */
static void check_rows(const char *name, enum model_weights_form form, double cost, double weights,
                       double more)
{
    const char *shown = name ? name : "as it is";
    cr_expect_lt(cost, weights + more, "%s, form %d: %g", shown, form, cost);
    if (math_of(name, form) != MODEL_MATH_FLOAT)
        cr_expect_neq(cost, weights, "%s, form %d: %g", shown, form, cost);
}

static void check_path(const struct measured *m, size_t i, const char *path)
{
    const char *name = paths[i].weights;
    const double weights = cost_of(m, name, path, MODEL_WEIGHTS_FLOAT);
    const double packed = cost_of(m, name, path, MODEL_WEIGHTS_PACKED);
    const double wide = paths[i].wide_more > 0 ? cost_of(m, name, path, MODEL_WEIGHTS_WIDE) : NAN;
    fprintf(stderr, "nats per token, %s: %-16s weights %.2e, packed %.2e, wide %.2e\n",
            best()->name, name, weights, packed, wide);
    cr_expect_lt(weights, paths[i].most, "%s: %g", name, weights);
    cr_expect_gt(weights, paths[i].most * LEAST, "%s: %g", name, weights);
    check_rows(name, MODEL_WEIGHTS_PACKED, packed, weights, paths[i].packed_more);
    if (paths[i].wide_more > 0)
        check_rows(name, MODEL_WEIGHTS_WIDE, wide, weights, paths[i].wide_more);
}

Test(divergence, of_quantized_weights, .timeout = 240)
{
    struct texts t;
    say(&t);
    float *exact = score(open_rig(TINY, MODEL_WEIGHTS_FLOAT, DTYPE_F32), &t);
    const struct measured m = {&t, exact};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char path[FOLDER_PATH];
        cr_assert(quantized_model_make(TINY, paths[i].weights, path));
        check_path(&m, i, path);
        folder_remove(path);
    }
    const double packed = cost_of(&m, NULL, TINY, MODEL_WEIGHTS_PACKED);
    const double rounded = cost_of(&m, NULL, TINY, MODEL_WEIGHTS_INT8);
    fprintf(stderr, "nats per token, %s: as it is, packed %.2e, rounded to int8 %.2e\n",
            best()->name, packed, rounded);
    check_rows(NULL, MODEL_WEIGHTS_PACKED, packed, 0, BF16_ROWS_MOST);
    cr_expect_lt(rounded, ROUNDED_MOST);
    cr_expect_gt(rounded, ROUNDED_MOST * LEAST);
    free(exact);
}

/* Every kind that can be made is measured. */
Test(divergence, no_kind_is_left_out)
{
    for (size_t i = 0; quantized_model_name(i); i++) {
        size_t k = 0;
        while (k < sizeof paths / sizeof paths[0] &&
               strcmp(paths[k].weights, quantized_model_name(i)) != 0)
            k++;
        cr_assert_lt(k, sizeof paths / sizeof paths[0], "%s", quantized_model_name(i));
    }
}

/* ---- keys and values ---- */

/* From the distribution that fp32 ones give. A fifth over what is measured on every body, and more
 * of what is next to nothing; less than a quarter of that would be what is not stored so. */
Test(divergence, of_quantized_kv, .timeout = 120)
{
    static const double most[DTYPE_KV_COUNT] = {[DTYPE_BF16] = 1.5e-6,
                                                [DTYPE_F16] = 4e-8,
                                                [DTYPE_FP8] = 3e-4,
                                                [DTYPE_INT8] = 1.25e-5,
                                                [DTYPE_INT4] = 2.05e-3};
    struct texts t;
    say(&t);
    struct rig *r = open_rig(TINY, MODEL_WEIGHTS_FLOAT, DTYPE_F32);
    const int32_t vocab = r->vocab;
    float *exact = score(r, &t);
    for (enum dtype d = DTYPE_BF16; d < DTYPE_KV_COUNT; d++) {
        float *rounded = score(open_rig(TINY, MODEL_WEIGHTS_FLOAT, d), &t);
        double nats = divergence(rounded, exact, vocab);
        fprintf(stderr, "nats per token, %s: %s KV: %.2e, at most %.2e\n", best()->name,
                dtype_name(d), nats, most[d]);
        cr_expect_lt(nats, most[d], "%s KV: %g", dtype_name(d), nats);
        cr_expect_gt(nats, most[d] * LEAST, "%s KV: %g", dtype_name(d), nats);
        free(rounded);
    }
    free(exact);
}
