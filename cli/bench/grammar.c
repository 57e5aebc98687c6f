/* `baton bench grammar`: what a step of constrained output costs, for a few grammars over one
 * vocabulary.
 *
 * Each grammar is walked at random under its mask: first with a cold run (states and masks are
 * worked out as they are met), then again with other draws ("warm": what has been worked out is
 * there, what has not yet been met still costs).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/flags.h"
#include "base/rng.h"
#include "cli/bench/bench.h"
#include "cli/bench/summary.h"
#include "cli/facts.h"
#include "tokenizer/grammar/grammar.h"

#define STEPS_MAX (1 << 20)

static const struct sample {
    const char *name;
    enum grammar_kind kind;
    const char *text;
} samples[] = {
    {"json_object", GRAMMAR_JSON_OBJECT, ""},
    {"schema", GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
     "\"integer\",\"minimum\":0,\"maximum\":150},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":["
     "\"red\",\"green\",\"blue\"]},\"maxItems\":8},\"address\":{\"type\":\"object\",\"properties\":"
     "{\"street\":{\"type\":\"string\"},\"zip\":{\"type\":\"string\",\"pattern\":\"^[0-9]{5}$\"}},"
     "\"required\":[\"street\",\"zip\"],\"additionalProperties\":false},\"score\":{\"type\":"
     "\"number\"}},\"required\":[\"name\",\"age\",\"address\"],\"additionalProperties\":false}"},
    {"schema_lengths", GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\",\"maxLength\":80},"
     "\"text\":{\"type\":\"string\",\"minLength\":20,\"maxLength\":2000}},\"required\":[\"title\","
     "\"text\"],\"additionalProperties\":false}"},
    {"schema_recursive", GRAMMAR_JSON_SCHEMA,
     "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"value\":{\"type\":[\"string\","
     "\"number\",\"null\"]},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":"
     "\"#/$defs/node\"}}},\"required\":[\"value\",\"children\"]}},\"$ref\":\"#/$defs/node\"}"},
    {"regex", GRAMMAR_REGEX,
     "(?:[A-Z][a-z]+ ){2,6}<[a-z0-9._]+@[a-z0-9-]+(?:\\.[a-z]{2,8})+>, \\d{4}-\\d\\d-\\d\\d"},
    {"gbnf", GRAMMAR_GBNF,
     "root ::= (expr \"=\" ws term \"\\n\")+\nexpr ::= term ([-+*/] term)*\n"
     "term ::= ident | num | \"(\" ws expr \")\" ws\nident ::= [a-z] [a-z0-9_]* ws\n"
     "num ::= [0-9]+ ws\nws ::= [ \\t\\n]*\n"},
    {"free_text", GRAMMAR_STRUCTURE,
     "{\"seq\":[{\"until\":[\"</think>\"]},{\"schema\":{\"type\":\"object\"}}]}"},
};
#define N_SAMPLES (sizeof samples / sizeof *samples)

struct timing {
    double *v; /* us of every step's mask and accept */
    size_t n;
    struct bench_figures us;
};

struct row {
    double compile_us, create_us;
    struct timing cold, warm;
    struct grammar_run_stats stats;
    size_t bytes;
};

struct options {
    const char *dir, *json;
    int64_t walks, tokens, seed;
};

struct bench {
    struct options *o;
    struct grammar_vocab *vocab;
    int32_t vocab_size;
    double vocab_ms;
    struct kernels_probe before, last; /* where there is JSON to hold them */
    const struct kernels_probe *after; /* `last`, or NULL: there was no memory */
    struct row rows[N_SAMPLES];
};

/* One of the allowed ids, -1: none. */
static int32_t pick(const uint64_t *mask, int32_t size, uint64_t draw)
{
    int32_t words = (size + 63) / 64, count = 0;
    for (int32_t i = 0; i < words; i++)
        count += __builtin_popcountll(mask[i]);
    if (count == 0)
        return -1;
    int32_t want = (int32_t)(draw % (uint64_t)count);
    for (int32_t i = 0; i < words; i++) {
        int32_t here = __builtin_popcountll(mask[i]);
        if (want >= here) {
            want -= here;
            continue;
        }
        uint64_t word = mask[i];
        while (want-- > 0)
            word &= word - 1;
        return i * 64 + __builtin_ctzll(word);
    }
    return -1;
}

static enum status walk(struct bench *b, struct grammar_run *run, uint64_t seed, struct timing *t,
                        struct error *err)
{
    struct grammar_state at = grammar_begin(run);
    const uint64_t *mask;
    for (int64_t i = 0; i < b->o->tokens && t->n < STEPS_MAX; i++) {
        if (grammar_is_over(run, &at))
            return ST_OK;
        int64_t begun = clock_now_ns();
        enum status st = grammar_mask(run, &at, &mask, err);
        int64_t mask_ns = clock_now_ns() - begun;
        if (st != ST_OK)
            return st;
        int32_t id = pick(mask, b->vocab_size, rng_hash(seed, 0, (uint64_t)i, 0));
        if (id < 0)
            return ST_OK;
        begun = clock_now_ns();
        st = grammar_accept(run, &at, id, err);
        t->v[t->n++] = (double)(mask_ns + clock_now_ns() - begun) / 1e3;
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

static enum status measure(struct bench *b, const struct sample *s, struct row *row,
                           struct error *err)
{
    struct grammar *g = NULL;
    struct grammar_run *run = NULL;
    int64_t begun = clock_now_ns();
    enum status st = grammar_compile(s->kind, s->text, strlen(s->text), &g, err);
    row->compile_us = (double)(clock_now_ns() - begun) / 1e3;
    begun = clock_now_ns();
    if (st == ST_OK)
        st = grammar_run_create(g, b->vocab, &run, err);
    row->create_us = (double)(clock_now_ns() - begun) / 1e3;
    row->cold.v = malloc(STEPS_MAX * sizeof *row->cold.v);
    row->warm.v = malloc(STEPS_MAX * sizeof *row->warm.v);
    if (!row->cold.v || !row->warm.v)
        st = err_set(err, ST_NO_MEMORY, "no memory");
    for (int64_t i = 0; i < 2 * b->o->walks && st == ST_OK; i++) {
        grammar_run_tidy(run);
        st = walk(b, run, (uint64_t)(b->o->seed + i), i < b->o->walks ? &row->cold : &row->warm,
                  err);
    }
    if (st == ST_OK) {
        row->cold.us = bench_figures_of(row->cold.v, row->cold.n);
        row->warm.us = bench_figures_of(row->warm.v, row->warm.n);
        grammar_run_stats(run, &row->stats);
        row->bytes = grammar_run_bytes(run);
    }
    free(row->cold.v);
    free(row->warm.v);
    row->cold.v = row->warm.v = NULL;
    grammar_run_free(run);
    grammar_free(g);
    return st;
}

static void print_table(const struct bench *b)
{
    printf("vocabulary of %d tokens (made in %.0f ms); microseconds per step\n\n", b->vocab_size,
           b->vocab_ms);
    printf("%-17s %9s %7s %9s %9s %9s %7s %8s %8s %9s %7s %7s %8s\n", "grammar", "compile", "steps",
           "cold p50", "p99", "max", "steps", "warm p50", "p99", "max", "masks", "shared",
           "states");
    for (size_t i = 0; i < N_SAMPLES; i++) {
        const struct row *r = &b->rows[i];
        printf("%-17s %9.0f %7zu %9.2f %9.1f %9.1f %7zu %8.2f %8.1f %9.1f %7llu %7llu %8llu\n",
               samples[i].name, r->compile_us, r->cold.n, r->cold.us.p50, r->cold.us.p99,
               r->cold.us.max, r->warm.n, r->warm.us.p50, r->warm.us.p99, r->warm.us.max,
               (unsigned long long)r->stats.masks_made, (unsigned long long)r->stats.masks_found,
               (unsigned long long)r->stats.states);
    }
}

static void put_timing(struct jw *w, const char *key, const struct timing *t)
{
    const struct {
        const char *name;
        double v;
    } values[] = {{"mean", t->us.mean}, {"p50", t->us.p50}, {"p99", t->us.p99}, {"max", t->us.max}};
    jw_key(w, key);
    jw_obj(w);
    jw_key(w, "steps");
    jw_uint(w, t->n);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        jw_key(w, values[i].name);
        jw_real(w, values[i].v);
    }
    jw_end_obj(w);
}

static enum status write_json(const struct bench *b, int argc, char **argv, struct error *err)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton bench grammar", argc, argv);
    facts_put_probes(&w, &b->before, b->after, 1);
    jw_key(&w, "model");
    jw_str(&w, b->o->dir);
    jw_key(&w, "vocab");
    jw_int(&w, b->vocab_size);
    jw_key(&w, "rows");
    jw_arr(&w);
    for (size_t i = 0; i < N_SAMPLES; i++) {
        const struct row *r = &b->rows[i];
        jw_obj(&w);
        jw_key(&w, "grammar");
        jw_str(&w, samples[i].name);
        jw_key(&w, "compile_us");
        jw_real(&w, r->compile_us);
        put_timing(&w, "cold_us", &r->cold);
        put_timing(&w, "warm_us", &r->warm);
        jw_key(&w, "masks_made");
        jw_uint(&w, r->stats.masks_made);
        jw_key(&w, "masks_shared");
        jw_uint(&w, r->stats.masks_found);
        jw_key(&w, "states");
        jw_uint(&w, r->stats.states);
        jw_key(&w, "bytes");
        jw_uint(&w, r->bytes);
        jw_end_obj(&w);
    }
    jw_end_arr(&w);
    jw_end_obj(&w);
    enum status st = facts_write_file(b->o->json, &text, err);
    buf_fini(&text);
    return st;
}

static enum status run(struct bench *b, int argc, char **argv, struct error *err)
{
    struct tokenizer *t = NULL;
    enum status st = tokenizer_load(b->o->dir, &t, err);
    if (st != ST_OK)
        return st;
    int32_t eos = tokenizer_eos(t);
    struct grammar_vocab_args args = {
        .tokenizer = t, .size = (int32_t)tokenizer_vocab_size(t), .ends = &eos, .n_ends = eos >= 0};
    b->vocab_size = args.size;
    int64_t begun = clock_now_ns();
    st = grammar_vocab_create(&args, &b->vocab, err);
    b->vocab_ms = (double)(clock_now_ns() - begun) / 1e6;
    if (st == ST_OK && b->o->json)
        st = facts_probe(1, &b->before, err);
    for (size_t i = 0; i < N_SAMPLES && st == ST_OK; i++)
        st = measure(b, &samples[i], &b->rows[i], err);
    if (st == ST_OK && b->o->json)
        b->after = facts_probe_after(1, &b->last);
    if (st == ST_OK) {
        print_table(b);
        if (b->o->json)
            st = write_json(b, argc, argv, err);
    }
    grammar_vocab_free(b->vocab);
    tokenizer_free(t);
    return st;
}

int bench_grammar(int argc, char **argv)
{
    struct options o = {.walks = 40, .tokens = 300, .seed = 1};
    struct flag table[] = {
        {"walks", FLAG_INT, &o.walks, "N", "random texts per pass (40)", 1, 10000},
        {"tokens", FLAG_INT, &o.tokens, "N", "of a text at most (300)", 1, 100000},
        {"seed", FLAG_INT, &o.seed, "N", "of the draws (1)", 0, 1e15},
        {"json", FLAG_STR, &o.json, "FILE", "write the result as JSON; -: to stdout"},
    };
    struct flags f = {.program = "baton bench grammar",
                      .usage = "MODEL [options]",
                      .about = "Measures what constrained output costs per step over a model's "
                               "vocabulary; only the folder's tokenizer is read.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, &o.dir, 1, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (n != 1) {
        fprintf(stderr, "baton bench grammar: expected MODEL (see baton bench grammar --help)\n");
        return 2;
    }
    struct bench *b = calloc(1, sizeof *b);
    struct error err = {0};
    if (!b)
        return 1;
    b->o = &o;
    enum status st = run(b, argc, argv, &err);
    free(b);
    if (st == ST_OK)
        return 0;
    fprintf(stderr, "baton bench grammar: %s\n", err.text);
    return 1;
}
