/* `baton bench model`: one engine in this process, no network: how fast it prefills and decodes, by
 * batch and depth, against what the machine could do at most. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/bench/bench.h"
#include "cli/bench/profile.h"
#include "cli/facts.h"
#include "cli/local.h"
#include "engine/sampler.h"
#include "kernels/kv_layout.h"
#include "model/profile.h"

#define LIST_MAX 16
#define BATCH_MAX 1024
#define ROWS_MAX (LIST_MAX * LIST_MAX + LIST_MAX)

static const char *const formulas[][2] = {
    {"prefill", "batch prompts of `tokens` / batch tokens each, from an empty cache, to the first "
                "token of all: tokens / seconds"},
    {"decode", "batch sequences with `depth` tokens before them, one token each per step: tokens / "
               "seconds; the median of the repetitions is shown"},
    {"fraction",
     "time at the probe's limits (better of before and after) / seconds: the weights that "
     "every token needs and the experts that were chosen once per step, and KV of "
     "every sequence, read from memory, or 2 operations per parameter and token plus 4 "
     "per head, head dimension, layer and earlier token (of bytes or bf16 where the model's "
     "weights "
     "are multiplied so), whichever takes longer; over 1 where the model stays in cache"},
    {"profile",
     "with --profile: a kind's time over all threads / (seconds x threads); what waits for "
     "other threads is `barrier`"},
    {NULL, NULL}};

struct options {
    struct local_options local;
    const char *batches, *depths, *json;
    int64_t prompt_tokens, gen_tokens, repetitions;
    bool quick, profile;
};

/* What a measurement had to do at least. */
struct work {
    double passes;   /* over all weights */
    double tokens;   /* through the layers */
    double logits;   /* rows of them */
    double attended; /* (token, earlier token) pairs */
    double kv_read;  /* tokens whose KV was read, once per step */
    double experts;  /* bytes of those that were chosen, once per step */
};

struct row {
    bool prefill;
    int32_t batch, depth;
    int64_t tokens;
    struct work work;
    double seconds, fraction;
    struct model_profile profile; /* of the measured steps, where it is asked for */
};

struct bench {
    struct local local;
    struct kernels_probe before, last, probe; /* the better ones of both */
    const struct kernels_probe *after;        /* `last`, or NULL: there was no memory */
    int64_t batches[LIST_MAX], depths[LIST_MAX];
    size_t n_batches, n_depths, n_rows;
    struct row rows[ROWS_MAX];
    struct group {
        group_id id;
        int64_t tokens; /* generated */
    } groups[BATCH_MAX];
    int64_t tokens; /* of all groups */
    bool failed, profile;
    char why[160];
};

static void on_token(void *ctx, void *user, const struct msg_token *t)
{
    (void)t;
    struct bench *b = ctx;
    struct group *g = user;
    g->tokens++;
    b->tokens++;
}

static void on_finish(void *ctx, void *user, const struct msg_finish *f)
{
    (void)ctx;
    (void)user;
    (void)f;
}

static void on_failed(void *ctx, void *user, enum status status, const char *why)
{
    (void)user;
    struct bench *b = ctx;
    b->failed = true;
    snprintf(b->why, sizeof b->why, "%s: %s", status_name(status), why);
}

/* ---- running ---- */

static enum status step(struct bench *b, struct error *err)
{
    struct engine_step_info info;
    int64_t t = clock_now_ns();
    if (!engine_runnable(b->local.engine))
        return err_set(err, ST_INTERNAL, "the engine has nothing to do");
    engine_step(b->local.engine, &info);
    engine_step_took(b->local.engine, &info, clock_now_ns() - t);
    return b->failed ? err_set(err, ST_INTERNAL, "%s", b->why) : ST_OK;
}

/* Reserves `batch` sequences of `depth` random ids each. */
static enum status begin(struct bench *b, int32_t batch, int32_t depth, int32_t max_tokens,
                         struct error *err)
{
    int32_t vocab = model_get_config(b->local.model)->vocab;
    int32_t *ids = malloc((size_t)depth * sizeof *ids);
    enum status st = ids ? ST_OK : err_set(err, ST_NO_MEMORY, "no memory");
    b->tokens = 0;
    for (int32_t i = 0; st == ST_OK && i < batch; i++) {
        for (int32_t k = 0; k < depth; k++)
            ids[k] = (int32_t)(rng_hash(1, (uint64_t)i, (uint64_t)k, 0) % (uint64_t)vocab);
        int32_t have;
        b->groups[i] = (struct group){0};
        struct engine_request req = {.prompt = {ids, (uint32_t)depth},
                                     .n = 1,
                                     .sampling = sampling_default(),
                                     .cache_salt = "",
                                     .credits = INT64_MAX,
                                     .user = &b->groups[i]};
        req.sampling.temperature = 0;
        req.sampling.ignore_eos = true;
        req.sampling.max_tokens = max_tokens;
        st = engine_reserve(b->local.engine, &req, &b->groups[i].id, &have, err);
        if (st == ST_OK)
            engine_fill_here(b->local.engine, b->groups[i].id);
    }
    free(ids);
    return st;
}

static void end(struct bench *b, int32_t batch)
{
    for (int32_t i = 0; i < batch; i++)
        if (b->groups[i].id)
            engine_release(b->local.engine, b->groups[i].id, false, true);
    memset(b->groups, 0, sizeof b->groups);
}

static bool all_started(const struct bench *b, int32_t batch)
{
    for (int32_t i = 0; i < batch; i++)
        if (b->groups[i].tokens == 0)
            return false;
    return true;
}

static enum status fill(struct bench *b, int32_t batch, struct error *err)
{
    enum status st = ST_OK;
    while (st == ST_OK && !all_started(b, batch))
        st = step(b, err);
    return st;
}

/* Around what is measured. */
static enum status profile_begin(struct bench *b, struct error *err)
{
    return b->profile ? model_profile_start(b->local.model, err) : ST_OK;
}

static enum status time_prefill(struct bench *b, struct row *r, int32_t tokens, struct error *err)
{
    const int32_t batch = r->batch;
    enum status st = begin(b, batch, tokens, 1, err);
    if (st == ST_OK)
        st = profile_begin(b, err);
    uint64_t experts = model_expert_bytes(b->local.model);
    int64_t t = clock_now_ns();
    if (st == ST_OK)
        st = fill(b, batch, err);
    r->seconds = (double)(clock_now_ns() - t) * 1e-9;
    model_profile_read(b->local.model, &r->profile);
    r->work.experts = (double)(model_expert_bytes(b->local.model) - experts);
    end(b, batch);
    return st;
}

/* All sequences are filled first; those that were early have generated some tokens by then. */
static enum status time_decode(struct bench *b, struct row *r, int32_t steps, struct error *err)
{
    int32_t most = b->local.max_context - r->depth;
    enum status st = begin(b, r->batch, r->depth, most, err);
    if (st == ST_OK)
        st = fill(b, r->batch, err);
    if (st == ST_OK)
        st = profile_begin(b, err);
    uint64_t experts = model_expert_bytes(b->local.model);
    int64_t before = b->tokens, t = clock_now_ns();
    for (int32_t i = 0; st == ST_OK && i < steps; i++)
        st = step(b, err);
    r->seconds = (double)(clock_now_ns() - t) * 1e-9;
    model_profile_read(b->local.model, &r->profile);
    r->work.experts = (double)(model_expert_bytes(b->local.model) - experts);
    r->tokens = b->tokens - before;
    end(b, r->batch);
    return st;
}

/* What the probe says of the products that the model is made of. */
static double arithmetic(const struct bench *b)
{
    enum model_math math = model_get_math(b->local.model);
    return math == MODEL_MATH_INT8   ? b->probe.int8_gops
           : math == MODEL_MATH_BF16 ? b->probe.bf16_gflops
                                     : b->probe.gflops;
}

/* Whether there are experts that a token does not go to. */
static bool is_sparse(const struct model_config *c)
{
    return c->moe.experts > c->moe.top_k;
}

/* How many parameters every token is multiplied with. */
static double dense_parameters(const struct model_config *c)
{
    const double all = (double)model_config_parameters(c);
    const double active = (double)model_config_active_parameters(c);
    if (!is_sparse(c))
        return active;
    const double unread = all - active - (c->tied ? 0 : (double)c->vocab * c->hidden);
    return active - unread * c->moe.top_k / (c->moe.experts - c->moe.top_k);
}

/* Seconds that `w` takes at the limits. */
static double limit_seconds(const struct bench *b, const struct work *w)
{
    const struct model_config *c = model_get_config(b->local.model);
    const struct kv_layout *l = &b->local.layout;
    double kv = (double)l->layers * (double)kv_token_bytes(l);
    double embedding = (double)c->vocab * c->hidden;
    double active = (double)model_config_active_parameters(c), matrices = active - embedding;
    double weights = (double)model_weight_bytes(b->local.model) * dense_parameters(c) /
                     (double)model_config_parameters(c);
    double bytes = w->passes * weights + w->kv_read * kv + (is_sparse(c) ? w->experts : 0);
    double flops = 2 * matrices * w->tokens + 2 * embedding * w->logits +
                   4.0 * c->layers * c->heads * c->head_dim * w->attended;
    return fmax(bytes / (b->probe.gbytes_per_second * 1e9), flops / (arithmetic(b) * 1e9));
}

static int compare_rows(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

static enum status time_row(struct bench *b, const struct options *o, struct row *r,
                            struct error *err)
{
    if (!r->prefill)
        return time_decode(b, r, (int32_t)o->gen_tokens, err);
    return time_prefill(b, r, (int32_t)o->prompt_tokens, err);
}

static void set_work(const struct options *o, struct row *r)
{
    const double chunk = (double)o->local.chunk_tokens_max, each = (double)o->prompt_tokens;
    const double experts = r->work.experts;
    if (r->prefill) {
        r->tokens = r->batch * o->prompt_tokens;
        double pairs = r->batch * each * (each + 1) / 2;
        r->work = (struct work){.passes = ceil((double)r->tokens / chunk),
                                .tokens = (double)r->tokens,
                                .logits = r->batch,
                                .attended = pairs,
                                .kv_read = pairs / fmin(chunk, each),
                                .experts = experts};
    } else {
        double pairs = (double)r->tokens * (r->depth + (double)o->gen_tokens / 2);
        r->work = (struct work){.passes = (double)o->gen_tokens,
                                .tokens = (double)r->tokens,
                                .logits = (double)r->tokens,
                                .attended = pairs,
                                .kv_read = pairs,
                                .experts = experts};
    }
}

/* Measures a row `repetitions` times and keeps the median one. */
static enum status add_row(struct bench *b, const struct options *o, const struct row *what,
                           struct error *err)
{
    struct row runs[LIST_MAX];
    for (int i = 0; i < o->repetitions; i++) {
        runs[i] = *what;
        enum status st = time_row(b, o, &runs[i], err);
        if (st != ST_OK)
            return st;
        set_work(o, &runs[i]);
    }
    qsort(runs, (size_t)o->repetitions, sizeof *runs, compare_rows);
    b->rows[b->n_rows++] = runs[o->repetitions / 2];
    return ST_OK;
}

static enum status measure(struct bench *b, const struct options *o, struct error *err)
{
    struct row first = {.batch = 1};
    enum status st = time_prefill(b, &first, 32, err); /* touches the weights */
    for (size_t i = 0; st == ST_OK && i < b->n_batches; i++)
        st = add_row(b, o, &(struct row){.prefill = true, .batch = (int32_t)b->batches[i]}, err);
    for (size_t k = 0; st == ST_OK && k < b->n_depths; k++)
        for (size_t i = 0; st == ST_OK && i < b->n_batches; i++)
            st = add_row(
                b, o,
                &(struct row){.batch = (int32_t)b->batches[i], .depth = (int32_t)b->depths[k]},
                err);
    return st;
}

/* The limits are measured before and after; the better ones count. */
static void judge(struct bench *b)
{
    b->after = facts_probe_after(team_size(b->local.team), &b->last);
    b->probe = b->after ? kernels_probe_best(&b->before, b->after) : b->before;
    for (size_t i = 0; i < b->n_rows; i++)
        b->rows[i].fraction = limit_seconds(b, &b->rows[i].work) / b->rows[i].seconds;
}

/* ---- results ---- */

static void print_table(const struct bench *b, const struct options *o)
{
    static const char *const products[] = {"floats", "bf16", "bytes"};
    printf("%s  KV %s, %d threads: %.1f GFLOP/s of %s, memory %.1f GB/s\n\n", o->local.dir,
           o->local.kv_dtype, team_size(b->local.team), arithmetic(b),
           products[model_get_math(b->local.model)], b->probe.gbytes_per_second);
    printf("%-8s %6s %6s %8s %10s %12s %9s\n", "phase", "batch", "depth", "tokens", "seconds",
           "tokens/s", "of limit");
    for (size_t i = 0; i < b->n_rows; i++) {
        const struct row *r = &b->rows[i];
        printf("%-8s %6d %6d %8lld %10.4f %12.1f %8.1f%%\n", r->prefill ? "prefill" : "decode",
               r->batch, r->depth, (long long)r->tokens, r->seconds, (double)r->tokens / r->seconds,
               100 * r->fraction);
    }
    for (size_t i = 0; i < b->n_rows; i++) {
        const struct row *r = &b->rows[i];
        if (r->profile.forwards == 0)
            continue;
        printf("\n%s, batch %d", r->prefill ? "prefill" : "decode", r->batch);
        if (!r->prefill)
            printf(", depth %d", r->depth);
        profile_print(&r->profile, r->seconds);
    }
    facts_print_formulas(formulas);
}

static void put_row(struct jw *w, const struct row *r)
{
    jw_obj(w);
    jw_key(w, "phase");
    jw_str(w, r->prefill ? "prefill" : "decode");
    jw_key(w, "batch");
    jw_int(w, r->batch);
    jw_key(w, "depth");
    jw_int(w, r->depth);
    jw_key(w, "tokens");
    jw_int(w, r->tokens);
    jw_key(w, "seconds");
    jw_real(w, r->seconds);
    jw_key(w, "tokens_per_second");
    jw_real(w, (double)r->tokens / r->seconds);
    jw_key(w, "expert_bytes");
    jw_real(w, r->work.experts);
    jw_key(w, "fraction");
    jw_real(w, r->fraction);
    if (r->profile.forwards > 0) {
        jw_key(w, "profile");
        profile_put(w, &r->profile, r->seconds);
    }
    jw_end_obj(w);
}

static enum status write_json(const struct bench *b, const struct options *o, int argc, char **argv,
                              struct error *err)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton bench model", argc, argv);
    jw_key(&w, "model");
    jw_str(&w, o->local.dir);
    jw_key(&w, "kv_dtype");
    jw_str(&w, o->local.kv_dtype);
    facts_put_probes(&w, &b->before, b->after, team_size(b->local.team));
    jw_key(&w, "rows");
    jw_arr(&w);
    for (size_t i = 0; i < b->n_rows; i++)
        put_row(&w, &b->rows[i]);
    jw_end_arr(&w);
    facts_put_formulas(&w, formulas);
    jw_end_obj(&w);
    enum status st = facts_write_file(o->json, &text, err);
    buf_fini(&text);
    return st;
}

/* ---- the command ---- */

static enum status parse_list(const char *flag, const char *text, int64_t max, int64_t *out,
                              size_t *n, struct error *err)
{
    *n = 0;
    for (const char *at = text; *at;) {
        char *end;
        long long v = strtoll(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || v < 1 || v > max || *n == LIST_MAX)
            return err_set(err, ST_INVALID,
                           "--%s: expected up to %d numbers from 1 to %lld, got "
                           "\"%.80s\"",
                           flag, LIST_MAX, (long long)max, text);
        out[(*n)++] = v;
        at = *end == ',' ? end + 1 : end;
    }
    return *n > 0 ? ST_OK : err_set(err, ST_INVALID, "--%s: is empty", flag);
}

static int64_t largest(const int64_t *v, size_t n)
{
    int64_t max = v[0];
    for (size_t i = 1; i < n; i++)
        max = v[i] > max ? v[i] : max;
    return max;
}

static enum status open_local(struct bench *b, struct options *o, struct error *err)
{
    struct engine_events events = {
        .token = on_token, .finish = on_finish, .failed = on_failed, .ctx = b};
    enum status st = parse_list("batch", o->batches, BATCH_MAX, b->batches, &b->n_batches, err);
    if (st == ST_OK)
        st = parse_list("depth", o->depths, 1 << 24, b->depths, &b->n_depths, err);
    if (st != ST_OK)
        return st;
    int64_t batch = largest(b->batches, b->n_batches), depth = largest(b->depths, b->n_depths);
    int64_t longest = depth > o->prompt_tokens ? depth : o->prompt_tokens;
    /* A sequence whose prompt was filled early decodes while the others fill. */
    int64_t early = batch * longest / o->local.chunk_tokens_max + 2;
    b->profile = o->profile;
    o->local.max_batch = batch;
    o->local.prefix_cache = false;
    o->local.pool_tokens = batch * (longest + o->gen_tokens + early + 2 * o->local.block_tokens);
    st = local_open(&b->local, &o->local, &events, false, err);
    if (st == ST_OK && longest + o->gen_tokens + early + 1 > b->local.max_context) {
        st = err_set(err, ST_INVALID,
                     "%lld tokens do not fit the model's context of %d: give smaller --depth, "
                     "--prompt-tokens or --gen-tokens",
                     (long long)(longest + o->gen_tokens + early + 1), b->local.max_context);
        local_close(&b->local);
    }
    return st;
}

static enum status run(struct options *o, int argc, char **argv, struct error *err)
{
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(err, ST_NO_MEMORY, "no memory");
    enum status st = open_local(b, o, err);
    if (st == ST_OK) {
        st = facts_probe(team_size(b->local.team), &b->before, err);
        if (st == ST_OK)
            st = measure(b, o, err);
        if (st == ST_OK) {
            judge(b);
            print_table(b, o);
            if (o->json)
                st = write_json(b, o, argc, argv, err);
        }
        local_close(&b->local);
    }
    free(b);
    return st;
}

int bench_model(int argc, char **argv)
{
    struct options o = {.local = local_defaults(),
                        .batches = "1,4,16",
                        .depths = "128,1024",
                        .prompt_tokens = 512,
                        .gen_tokens = 64,
                        .repetitions = 5};
    o.local.kv_dtype = "bf16";
    struct flag table[] = {
        {"batch", FLAG_STR, &o.batches, "1,4,16", "sequences at a time"},
        {"depth", FLAG_STR, &o.depths, "128,1024", "tokens before those that are decoded"},
        {"prompt-tokens", FLAG_INT, &o.prompt_tokens, "N", "of a prefill (512)", 1, 1 << 24},
        {"gen-tokens", FLAG_INT, &o.gen_tokens, "N", "steps of a decode (64)", 1, 1 << 20},
        {"repetitions", FLAG_INT, &o.repetitions, "N", "of each row; the median counts (5)", 1,
         LIST_MAX},
        {"quick", FLAG_BOOL, &o.quick, NULL, "batches 1 and 8, depth 128, 3 repetitions of less"},
        {"profile", FLAG_BOOL, &o.profile, NULL,
         "say where the time goes, by kind of op; takes a little itself"},
        {"json", FLAG_STR, &o.json, "FILE", "write the result as JSON; -: to stdout"},
        LOCAL_FLAGS(o.local, "bf16"),
    };
    struct flags f = {.program = "baton bench model",
                      .usage = "MODEL [options]",
                      .about = "Measures one engine in this process: prefill and decode tokens/s "
                               "by batch and depth.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, &o.local.dir, 1, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (n != 1) {
        fprintf(stderr, "baton bench model: expected MODEL (see baton bench model --help)\n");
        return 2;
    }
    if (o.quick) {
        o.batches = table[0].seen ? o.batches : "1,8";
        o.depths = table[1].seen ? o.depths : "128";
        o.prompt_tokens = table[2].seen ? o.prompt_tokens : 256;
        o.gen_tokens = table[3].seen ? o.gen_tokens : 32;
        o.repetitions = table[4].seen ? o.repetitions : 3;
    }
    struct error err = {0};
    if (run(&o, argc, argv, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton bench model: %s\n", err.text);
    return 1;
}
