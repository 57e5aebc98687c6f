/* `baton generate MODEL`: one engine in this process, one prompt, its continuation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"
#include "cli/commands.h"
#include "cli/local.h"
#include "engine/sampler.h"

struct options {
    struct local_options local;
    const char *prompt, *prompt_file, *ids, *stop_ids;
    const char *grammar, *json_schema, *regex; /* files, and a pattern */
    int64_t max_tokens, min_tokens, top_k, seed, logprobs;
    double temperature, top_p, min_p, repetition, presence, frequency;
    bool greedy, json, ignore_eos, no_special, json_object;
    bool has_seed;
};

/* What was generated, in order; filled by the engine's events. */
struct generated {
    struct ids ids;
    struct buf logprobs, top; /* JSON of --json, built as tokens come */
    struct jw logprobs_json, top_json;
    bool want_logprobs, ended, failed;
    struct msg_finish finish;
    char why[128];
    size_t printed;
    struct detok *detok;
    struct buf text;
    int64_t start_ns, first_ns, end_ns;
};

static void on_token(void *ctx, void *user, const struct msg_token *t)
{
    (void)ctx;
    struct generated *g = user;
    if (g->ids.n == 0)
        g->first_ns = clock_now_ns();
    if (!ids_push(&g->ids, t->id))
        g->failed = true;
    if (!g->want_logprobs)
        return;
    jw_real(&g->logprobs_json, (double)t->logprob);
    jw_arr(&g->top_json);
    for (uint32_t i = 0; i < t->n_top; i++) {
        jw_obj(&g->top_json);
        jw_key(&g->top_json, "id");
        jw_int(&g->top_json, t->top[i].id);
        jw_key(&g->top_json, "logprob");
        jw_real(&g->top_json, (double)t->top[i].logprob);
        jw_end_obj(&g->top_json);
    }
    jw_end_arr(&g->top_json);
}

static void on_finish(void *ctx, void *user, const struct msg_finish *f)
{
    (void)ctx;
    struct generated *g = user;
    g->finish = *f;
    g->ended = true;
}

static void on_failed(void *ctx, void *user, enum status status, const char *why)
{
    (void)ctx;
    struct generated *g = user;
    snprintf(g->why, sizeof g->why, "%s: %s", status_name(status), why);
    g->failed = true;
}

/* Turns new tokens into text; the token that stopped the sequence has none. */
static void decode_new(struct generated *g, bool stream)
{
    if (g->detok == NULL)
        return;
    size_t from = g->text.len;
    bool stopped = g->ended && g->finish.reason == MSG_FINISH_STOP && g->finish.stop_id >= 0;
    size_t n = g->ids.n - stopped;
    while (g->printed < n)
        detok_push(g->detok, g->ids.v[g->printed++], &g->text);
    if (g->ended)
        detok_flush(g->detok, &g->text);
    if (stream && g->text.len > from) {
        fwrite(g->text.data + from, 1, g->text.len - from, stdout);
        fflush(stdout);
    }
}

static enum status read_prompt(const struct options *o, const struct local *l, struct ids *out,
                               struct error *err)
{
    if (o->ids)
        return local_parse_ids(o->ids, out, err);
    struct buf text = {0};
    enum status st = ST_OK;
    if (o->prompt) {
        buf_puts(&text, o->prompt);
    } else {
        bool is_stdin = strcmp(o->prompt_file, "-") == 0;
        FILE *f = is_stdin ? stdin : fopen(o->prompt_file, "rb");
        st = f ? local_read_all(f, o->prompt_file, &text, err)
               : err_set(err, ST_NOT_FOUND, "%s: cannot open", o->prompt_file);
        if (f && !is_stdin)
            fclose(f);
    }
    if (st == ST_OK)
        st = tokenizer_encode(l->tokenizer, text.data ? text.data : "", text.len,
                              o->no_special ? TOKENIZE_PARSE_SPECIAL
                                            : TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL,
                              out, err);
    buf_fini(&text);
    return st;
}

/* What the text has to be, into *out; its text lives in `text`. */
static enum status read_grammar(const struct options *o, struct buf *text, struct msg_grammar *out,
                                struct error *err)
{
    const char *name = o->grammar ? o->grammar : o->json_schema;
    out->kind = o->grammar       ? MSG_GRAMMAR_GBNF
                : o->json_schema ? MSG_GRAMMAR_JSON_SCHEMA
                : o->regex       ? MSG_GRAMMAR_REGEX
                : o->json_object ? MSG_GRAMMAR_JSON_OBJECT
                                 : MSG_GRAMMAR_NONE;
    if (o->regex)
        buf_puts(text, o->regex);
    if (name) {
        FILE *f = fopen(name, "rb");
        enum status st = f ? local_read_all(f, name, text, err)
                           : err_set(err, ST_NOT_FOUND, "%s: cannot open", name);
        if (f)
            fclose(f);
        if (st != ST_OK)
            return st;
    }
    if (text->len > MSG_GRAMMAR_BYTES_MAX)
        return err_set(err, ST_INVALID, "a grammar of %zu bytes, at most %u", text->len,
                       MSG_GRAMMAR_BYTES_MAX);
    out->text = text->data;
    out->len = (uint32_t)text->len;
    return ST_OK;
}

static bool flag_seen(const struct flags *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->table[i].name, name) == 0)
            return f->table[i].seen;
    return false;
}

/* The flag, else the model's generation_config.json, else neutral. */
static struct msg_sampling sampling_of(const struct options *o, const struct flags *f,
                                       const struct generation_defaults *d)
{
    struct msg_sampling s = sampling_default();
    s.temperature = (float)(flag_seen(f, "temperature") || !d->has_temperature ? o->temperature
                                                                               : d->temperature);
    s.top_p = (float)(flag_seen(f, "top-p") || !d->has_top_p ? o->top_p : d->top_p);
    s.min_p = (float)(flag_seen(f, "min-p") || !d->has_min_p ? o->min_p : d->min_p);
    s.top_k = flag_seen(f, "top-k") || !d->has_top_k ? (int32_t)o->top_k : d->top_k;
    s.repetition_penalty = (float)(flag_seen(f, "repetition-penalty") || !d->has_repetition_penalty
                                       ? o->repetition
                                       : d->repetition_penalty);
    s.presence_penalty = (float)o->presence;
    s.frequency_penalty = (float)o->frequency;
    if (o->greedy)
        s.temperature = 0;
    /* one that --seed takes: what --json shows can be repeated */
    s.seed = flag_seen(f, "seed") ? (uint64_t)o->seed : rng_entropy() & INT64_MAX;
    s.max_tokens = (int32_t)o->max_tokens;
    s.min_tokens = (int32_t)o->min_tokens;
    s.ignore_eos = o->ignore_eos;
    s.logprobs = o->json && o->logprobs < 0 ? 0 : (int32_t)o->logprobs;
    return s;
}

static enum status run(struct local *l, struct generated *g, const struct engine_request *req,
                       bool stream, struct error *err)
{
    group_id id;
    int32_t have;
    g->start_ns = clock_now_ns();
    enum status st = engine_reserve(l->engine, req, &id, &have, err);
    if (st != ST_OK)
        return st;
    engine_fill_here(l->engine, id);
    while (!g->ended && !g->failed) {
        struct engine_step_info info;
        int64_t before = clock_now_ns();
        engine_step(l->engine, &info);
        engine_step_took(l->engine, &info, clock_now_ns() - before);
        decode_new(g, stream);
    }
    g->end_ns = clock_now_ns();
    engine_release(l->engine, id, true, true);
    if (g->failed)
        return err_set(err, ST_INTERNAL, "%s", g->why[0] ? g->why : "no memory");
    return ST_OK;
}

static void put_ids(struct jw *w, const char *key, const struct ids *ids)
{
    jw_key(w, key);
    jw_arr(w);
    for (size_t i = 0; i < ids->n; i++)
        jw_int(w, ids->v[i]);
    jw_end_arr(w);
}

static void put_usage(struct jw *w, const struct generated *g, size_t n_prompt)
{
    jw_key(w, "usage");
    jw_obj(w);
    jw_key(w, "prompt_tokens");
    jw_uint(w, n_prompt);
    jw_key(w, "completion_tokens");
    jw_uint(w, g->ids.n);
    jw_end_obj(w);
    jw_key(w, "seconds");
    jw_obj(w);
    jw_key(w, "first_token");
    jw_real(w, (double)(g->first_ns - g->start_ns) / 1e9);
    jw_key(w, "total");
    jw_real(w, (double)(g->end_ns - g->start_ns) / 1e9);
    jw_end_obj(w);
}

static void print_json(const struct options *o, struct generated *g, const struct ids *prompt,
                       uint64_t seed)
{
    struct buf out = {0};
    jw_end_arr(&g->logprobs_json);
    jw_end_arr(&g->top_json);
    struct jw w = jw_begin(&out);
    jw_obj(&w);
    put_ids(&w, "prompt_ids", prompt);
    put_ids(&w, "ids", &g->ids);
    if (g->detok) {
        jw_key(&w, "text");
        jw_strn(&w, g->text.data ? g->text.data : "", g->text.len);
    }
    jw_key(&w, "logprobs");
    jw_raw(&w, g->logprobs.data);
    if (o->logprobs > 0) {
        jw_key(&w, "top_logprobs");
        jw_raw(&w, g->top.data);
    }
    jw_key(&w, "finish_reason");
    jw_str(&w, g->finish.reason == MSG_FINISH_STOP ? "stop" : "length");
    jw_key(&w, "seed");
    jw_uint(&w, seed);
    put_usage(&w, g, prompt->n);
    jw_end_obj(&w);
    fwrite(out.data, 1, out.len, stdout);
    putchar('\n');
    buf_fini(&out);
}

static void print_summary(const struct generated *g, size_t n_prompt)
{
    double first = (double)(g->first_ns - g->start_ns) / 1e9;
    double rest = (double)(g->end_ns - g->first_ns) / 1e9;
    size_t more = g->ids.n > 0 ? g->ids.n - 1 : 0;
    putchar('\n');
    fflush(stdout);
    fprintf(stderr, "%zu prompt tokens in %.3f s, %zu tokens (%s), %.1f tokens/s\n", n_prompt,
            first, g->ids.n, g->finish.reason == MSG_FINISH_STOP ? "stop" : "length",
            rest > 0 ? (double)more / rest : 0.0);
}

static enum status generate(const struct options *o, const struct flags *f, struct error *err)
{
    struct engine_events events = {.token = on_token, .finish = on_finish, .failed = on_failed};
    struct generated g = {.want_logprobs = o->json};
    struct ids prompt = {0}, stop = {0};
    struct buf grammar_text = {0};
    struct msg_grammar grammar = {0};
    struct local l;
    struct local_options local = o->local;
    enum status st = read_grammar(o, &grammar_text, &grammar, err);
    local.grammars = grammar.kind != MSG_GRAMMAR_NONE;
    /* Ids in, ids out needs no tokenizer; it is used if there is one. */
    bool text = !(o->ids && o->json) || local.grammars;
    if (st == ST_OK)
        st = local_open(&l, &local, &events, text, err);
    if (st != ST_OK) {
        buf_fini(&grammar_text);
        return st;
    }
    if (!text && tokenizer_load(o->local.dir, &l.tokenizer, NULL) != ST_OK)
        l.tokenizer = NULL;
    st = read_prompt(o, &l, &prompt, err);
    if (st == ST_OK && o->stop_ids)
        st = local_parse_ids(o->stop_ids, &stop, err);
    if (st != ST_OK)
        goto out;
    g.logprobs_json = jw_begin(&g.logprobs);
    g.top_json = jw_begin(&g.top);
    jw_arr(&g.logprobs_json);
    jw_arr(&g.top_json);
    if (l.tokenizer) {
        g.detok = detok_create(l.tokenizer, true);
        if (g.detok == NULL) {
            st = err_set(err, ST_NO_MEMORY, "no memory for the text");
            goto out;
        }
        detok_reset(g.detok, prompt.v, prompt.n);
    }
    struct engine_request req = {.prompt = {prompt.v, (uint32_t)prompt.n},
                                 .n = 1,
                                 .sampling = sampling_of(o, f, model_get_defaults(l.model)),
                                 .cache_salt = "",
                                 .credits = INT64_MAX,
                                 .user = &g};
    req.sampling.grammar = grammar;
    req.sampling.stop_ids = (struct msg_ids){stop.v, (uint32_t)stop.n};
    st = run(&l, &g, &req, !o->json, err);
    if (st == ST_OK && o->json)
        print_json(o, &g, &prompt, req.sampling.seed);
    else if (st == ST_OK)
        print_summary(&g, prompt.n);
out:
    if (g.detok)
        detok_destroy(g.detok);
    buf_fini(&grammar_text);
    buf_fini(&g.text);
    buf_fini(&g.logprobs);
    buf_fini(&g.top);
    ids_fini(&g.ids);
    ids_fini(&prompt);
    ids_fini(&stop);
    local_close(&l);
    return st;
}

#define NUMBER(flag_name, flag_kind, where, low, high, text)                                       \
    {                                                                                              \
        .name = flag_name, .kind = flag_kind, .target = where, .value = "N", .help = text,         \
        .min = low, .max = high                                                                    \
    }
#define TEXT(flag_name, where, shown, text)                                                        \
    {                                                                                              \
        .name = flag_name, .kind = FLAG_STR, .target = where, .value = shown, .help = text         \
    }
#define SWITCH(flag_name, where, text)                                                             \
    {                                                                                              \
        .name = flag_name, .kind = FLAG_BOOL, .target = where, .help = text                        \
    }

int cmd_generate(int argc, char **argv)
{
    struct options o = {.local = local_defaults(),
                        .max_tokens = 128,
                        .logprobs = -1,
                        .temperature = 1,
                        .top_p = 1,
                        .repetition = 1};
    struct flag table[] = {
        TEXT("prompt", &o.prompt, "TEXT", "the prompt"),
        TEXT("prompt-file", &o.prompt_file, "FILE", "the prompt, from a file; -: stdin"),
        TEXT("ids", &o.ids, "1,2,3", "the prompt as token ids"),
        SWITCH("no-special", &o.no_special, "do not add BOS and the like to the prompt"),
        NUMBER("max-tokens", FLAG_INT, &o.max_tokens, 1, 1 << 30, "stop after this many (128)"),
        NUMBER("min-tokens", FLAG_INT, &o.min_tokens, 0, 1 << 30, "do not stop before"),
        SWITCH("greedy", &o.greedy, "always the most probable token"),
        NUMBER("temperature", FLAG_REAL, &o.temperature, 0, 2, "0: greedy"),
        NUMBER("top-p", FLAG_REAL, &o.top_p, 0, 1, "1: off"),
        NUMBER("min-p", FLAG_REAL, &o.min_p, 0, 1, "0: off"),
        NUMBER("top-k", FLAG_INT, &o.top_k, 0, 1 << 30, "0: off"),
        NUMBER("repetition-penalty", FLAG_REAL, &o.repetition, 0, 1e6, "1: off"),
        NUMBER("presence-penalty", FLAG_REAL, &o.presence, -2, 2, "0: off"),
        NUMBER("frequency-penalty", FLAG_REAL, &o.frequency, -2, 2, "0: off"),
        NUMBER("seed", FLAG_INT, &o.seed, 0, 0, "of the draws; the default is random"),
        TEXT("stop-ids", &o.stop_ids, "1,2", "ids that end the text, besides the model's EOS"),
        SWITCH("ignore-eos", &o.ignore_eos, "go on after EOS"),
        NUMBER("logprobs", FLAG_INT, &o.logprobs, 0, MSG_LOGPROBS_MAX,
               "with --json: alternatives per token"),
        TEXT("grammar", &o.grammar, "FILE", "the text is a sentence of this GBNF grammar"),
        TEXT("json-schema", &o.json_schema, "FILE", "the text is JSON of this schema"),
        TEXT("regex", &o.regex, "PATTERN", "the text matches this pattern"),
        SWITCH("json-object", &o.json_object, "the text is a JSON object"),
        SWITCH("json", &o.json, "one JSON object: ids, text, logprobs, usage"),
        LOCAL_FLAGS(o.local, "fp32; a node: that of the weights"),
    };
    struct flags f = {.program = "baton generate",
                      .usage = "MODEL (--prompt TEXT | --ids 1,2,3) [options]",
                      .about = "Runs one engine in this process, with no network.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, &o.local.dir, 1, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (n != 1 || (o.prompt != NULL) + (o.ids != NULL) + (o.prompt_file != NULL) != 1) {
        fprintf(stderr, "baton generate: expected MODEL and one of --prompt, --prompt-file, --ids "
                        "(see baton generate --help)\n");
        return 2;
    }
    if ((o.grammar != NULL) + (o.json_schema != NULL) + (o.regex != NULL) + o.json_object > 1) {
        fprintf(stderr, "baton generate: expected at most one of --grammar, --json-schema, "
                        "--regex, --json-object\n");
        return 2;
    }
    struct error err = {0};
    if (generate(&o, &f, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton generate: %s\n", err.text);
    return 1;
}
