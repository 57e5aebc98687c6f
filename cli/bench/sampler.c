/* `baton bench sampler`: what choosing a token costs, by the size of the vocabulary and by what the
 * request asks for. Logits are those of a text: few likely tokens and a long tail. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/flags.h"
#include "base/rng.h"
#include "cli/bench/bench.h"
#include "cli/bench/report.h"
#include "cli/bench/summary.h"
#include "cli/facts.h"
#include "engine/sampler.h"

#define ROWS 8 /* of logits, taken in turns: a step has just written them */
#define IDS 1024
#define SAMPLES_MAX 10000

static const int32_t vocabularies[] = {128256, 262144};

static const struct kind {
    const char *name;
    float temperature, top_p, min_p, repetition;
    int32_t top_k, logprobs;
    bool masked;
} kinds[] = {
    {"greedy", 0, 1, 0, 1, 0, -1, false},
    {"temperature", 0.8F, 1, 0, 1, 0, -1, false},
    {"top-k 50", 0.8F, 1, 0, 1, 50, -1, false},
    {"top-p 0.95", 0.8F, 0.95F, 0, 1, 0, -1, false},
    {"top-k 50, top-p 0.95", 0.8F, 0.95F, 0, 1, 50, -1, false},
    {"min-p 0.05", 0.8F, 1, 0.05F, 1, 0, -1, false},
    {"greedy, penalties", 0, 1, 0, 1.1F, 0, -1, false},
    {"greedy, 20 logprobs", 0, 1, 0, 1, 0, 20, false},
    {"greedy, grammar's mask", 0, 1, 0, 1, 0, -1, true},
};

#define KINDS (sizeof kinds / sizeof kinds[0])
#define VOCABULARIES (sizeof vocabularies / sizeof vocabularies[0])

static const char *const formulas[][2] = {
    {"us", "microseconds from the logits of a step to a token, one thread; percentiles are "
           "interpolated between the samples"},
    {NULL, NULL},
};

struct bench {
    int64_t samples;
    const char *json;
    struct kernels_probe before, last;                 /* where there is JSON to hold them */
    const struct kernels_probe *after;                 /* `last`, or NULL: there was no memory */
    struct bench_figures figures[VOCABULARIES][KINDS]; /* us */
    double us[SAMPLES_MAX];
    int32_t ids[IDS];
    float *logits;  /* [ROWS][vocabulary] */
    uint64_t *mask; /* every other run of 64 ids */
};

static void fill(struct bench *b, int32_t vocab)
{
    for (int32_t i = 0; i < IDS; i++)
        b->ids[i] = (int32_t)(rng_hash(1, (uint64_t)i, 0, 0) % (uint64_t)vocab);
    for (int32_t i = 0; i < vocab / 64 + 1; i++)
        b->mask[i] = i % 2 ? 0 : UINT64_MAX;
    for (int32_t r = 0; r < ROWS; r++)
        for (int32_t v = 0; v < vocab; v++) {
            uint64_t h = rng_hash(2, (uint64_t)r, (uint64_t)v, 0);
            double rank = (double)((h >> 11) % (uint64_t)vocab);
            b->logits[(size_t)r * (size_t)vocab + (size_t)v] = (float)(14 - 1.6 * log(1 + rank));
        }
}

static enum status measure(struct bench *b, struct sampler *s, int32_t vocab, const struct kind *k)
{
    struct msg_sampling spec = sampling_default();
    spec.temperature = k->temperature;
    spec.top_p = k->top_p;
    spec.min_p = k->min_p;
    spec.top_k = k->top_k;
    spec.repetition_penalty = k->repetition;
    spec.presence_penalty = k->repetition != 1 ? 0.5F : 0;
    spec.logprobs = k->logprobs;
    for (int64_t i = 0; i < b->samples; i++) {
        struct msg_token t;
        const struct sampler_input in = {.logits = b->logits + (size_t)(i % ROWS) * (size_t)vocab,
                                         .spec = &spec,
                                         .ids = b->ids,
                                         .n_ids = IDS / 2 + (int32_t)(i % (IDS / 2)),
                                         .n_prompt = IDS / 4,
                                         .mask = k->masked ? b->mask : NULL};
        int64_t begun = clock_now_ns();
        enum status st = sampler_pick(s, &in, &t);
        if (st != ST_OK)
            return st;
        b->us[i] = (double)(clock_now_ns() - begun) * 1e-3;
    }
    return ST_OK;
}

static enum status measure_all(struct bench *b, size_t v, struct error *err)
{
    const int32_t vocab = vocabularies[v];
    struct sampler *s = sampler_create(vocab);
    enum status st = s ? ST_OK : err_set(err, ST_NO_MEMORY, "no memory");
    fill(b, vocab);
    for (size_t k = 0; st == ST_OK && k < KINDS; k++) {
        st = measure(b, s, vocab, &kinds[k]);
        if (st != ST_OK)
            err_set(err, st, "%s: no token was chosen", kinds[k].name);
        else
            b->figures[v][k] = bench_figures_of(b->us, (size_t)b->samples);
    }
    sampler_destroy(s);
    return st;
}

static void print_table(const struct bench *b)
{
    printf("microseconds per token, one thread\n\n%-23s %10s %9s %9s\n", "request", "vocabulary",
           "p50", "p99");
    for (size_t v = 0; v < VOCABULARIES; v++)
        for (size_t k = 0; k < KINDS; k++)
            printf("%-23s %10d %9.1f %9.1f\n", kinds[k].name, vocabularies[v], b->figures[v][k].p50,
                   b->figures[v][k].p99);
}

static enum status write_json(const struct bench *b, int argc, char **argv, struct error *err)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton bench sampler", argc, argv);
    facts_put_probes(&w, &b->before, b->after, 1);
    facts_put_formulas(&w, formulas);
    jw_key(&w, "rows");
    jw_arr(&w);
    for (size_t v = 0; v < VOCABULARIES; v++)
        for (size_t k = 0; k < KINDS; k++) {
            jw_obj(&w);
            jw_key(&w, "request");
            jw_str(&w, kinds[k].name);
            jw_key(&w, "vocab");
            jw_int(&w, vocabularies[v]);
            bench_put_figures(&w, "us", &b->figures[v][k]);
            jw_end_obj(&w);
        }
    jw_end_arr(&w);
    jw_end_obj(&w);
    enum status st = facts_write_file(b->json, &text, err);
    buf_fini(&text);
    return st;
}

static enum status run(struct bench *b, int argc, char **argv, struct error *err)
{
    const size_t most = (size_t)vocabularies[VOCABULARIES - 1];
    enum status st = ST_OK;
    b->logits = malloc(ROWS * most * sizeof *b->logits);
    b->mask = malloc((most / 64 + 1) * sizeof *b->mask);
    if (!b->logits || !b->mask)
        st = err_set(err, ST_NO_MEMORY, "no memory");
    if (st == ST_OK && b->json)
        st = facts_probe(1, &b->before, err);
    for (size_t v = 0; st == ST_OK && v < VOCABULARIES; v++)
        st = measure_all(b, v, err);
    if (st == ST_OK && b->json)
        b->after = facts_probe_after(1, &b->last);
    if (st == ST_OK)
        print_table(b);
    if (st == ST_OK && b->json)
        st = write_json(b, argc, argv, err);
    free(b->logits);
    free(b->mask);
    return st;
}

int bench_sampler(int argc, char **argv)
{
    int64_t samples = 200;
    const char *file = NULL;
    struct flag table[] = {
        {"samples", FLAG_INT, &samples, "N", "tokens of each row (200)", 1, SAMPLES_MAX},
        {"json", FLAG_STR, &file, "FILE", "write the result as JSON; -: to stdout"},
    };
    struct flags f = {.program = "baton bench sampler",
                      .usage = "[options]",
                      .about = "Measures what choosing a token costs over a large vocabulary.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, NULL, 0, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    struct bench *b = calloc(1, sizeof *b);
    struct error err = {0};
    if (!b) {
        fputs("baton bench sampler: no memory\n", stderr);
        return 1;
    }
    b->samples = samples;
    b->json = file;
    enum status st = run(b, argc, argv, &err);
    free(b);
    if (st == ST_OK)
        return 0;
    fprintf(stderr, "baton bench sampler: %s\n", err.text);
    return 1;
}
