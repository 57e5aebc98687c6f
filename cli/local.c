#include "cli/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/huge.h"
#include "base/topology.h"

/* Prompts are cut by --chunk-tokens-max, not by how long a step may take (a first short one but,
 * which measures that): nobody streams to others from here. */
#define STEP_BUDGET_NS (INT64_C(600000) * NS_PER_MS)

struct local_options local_defaults(void)
{
    return (struct local_options){.cpu_features = "auto",
                                  .weights = "auto",
                                  .weights_cache = "none",
                                  .kv_dtype = "fp32",
                                  .block_tokens = 16,
                                  .chunk_tokens_max = 512,
                                  .max_batch = 1,
                                  .prefix_cache = true};
}

static enum status open_model(struct local *l, const struct local_options *o, struct error *err)
{
    const struct ops *ops;
    enum model_weights_form form;
    enum status st = ops_cpu(o->cpu_features, &ops, err);
    if (st != ST_OK)
        return st;
    if (!model_weights_form_parse(o->weights, &form))
        return err_set(err, ST_INVALID,
                       "--weights: expected auto, packed, int8, wide or float, got \"%s\"",
                       o->weights);
    if (*o->weights_cache == '\0')
        return err_set(err, ST_INVALID, "--weights-cache: expected model, none or a folder");
    int cores = topology_cpus(), threads = o->threads > 0 ? (int)o->threads : cores;
    l->team = team_create(threads, threads <= cores, false);
    if (l->team == NULL)
        return err_set(err, ST_NO_MEMORY, "cannot start %d threads", threads);
    const bool keeps = strcmp(o->weights_cache, "none") != 0;
    struct engine_args sizes = {.max_batch = (int32_t)o->max_batch,
                                .chunk_tokens_max = (int32_t)o->chunk_tokens_max};
    struct model_load_args args = {.dir = o->dir,
                                   .ops = ops,
                                   .team = l->team,
                                   .max_batch_tokens = engine_rows_max(&sizes),
                                   .max_logits_rows = engine_logits_max(&sizes),
                                   .weights = form,
                                   .weights_cache = keeps ? o->weights_cache : NULL};
    return model_load(&args, &l->model, err);
}

/* Mapped, not allocated: only what is used costs memory. */
static enum status open_pool(struct local *l, const struct local_options *o, struct error *err)
{
    enum dtype dtype;
    if (!kv_dtype_parse(o->kv_dtype, &dtype))
        return err_set(err, ST_INVALID,
                       "--kv-dtype: expected fp32, bf16, fp16, fp8, int8 or int4, got \"%s\"",
                       o->kv_dtype);
    int64_t tokens = o->pool_tokens > 0 ? o->pool_tokens : l->max_context;
    int64_t blocks = tokens / o->block_tokens + 2 * o->max_batch + 2;
    l->layout = model_kv_layout(l->model, dtype, (int32_t)o->block_tokens, 0);
    blocks *= kv_groups_of(&l->layout);
    if (blocks > INT32_MAX)
        return err_set(err, ST_INVALID, "a KV pool for %lld tokens is too large",
                       (long long)tokens);
    l->layout.blocks = (int32_t)blocks;
    void *pool = mmap(NULL, kv_pool_bytes(&l->layout), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool == MAP_FAILED)
        return err_set(err, ST_NO_MEMORY, "no memory for a KV pool of %lld tokens",
                       (long long)tokens);
    huge_ask(pool, kv_pool_bytes(&l->layout));
    l->pool = pool;
    return ST_OK;
}

static void forward(void *ctx, const struct batch *b, const struct model_kv *kv, float *logits,
                    model_layer_done_fn *done, void *done_ctx)
{
    model_forward(ctx, b, kv, logits, done, done_ctx);
}

static bool is_long(const void *ctx, int32_t prompt_tokens)
{
    return model_is_long(ctx, prompt_tokens);
}

static enum status open_vocabulary(struct local *l, const struct local_options *o,
                                   struct error *err)
{
    const struct model_config *c = model_get_config(l->model);
    enum status st = tokenizer_load(o->dir, &l->tokenizer, err);
    if (st != ST_OK || !o->grammars)
        return st;
    const struct grammar_vocab_args args = {
        .tokenizer = l->tokenizer, .size = c->vocab, .ends = c->eos, .n_ends = c->n_eos};
    return grammar_vocab_create(&args, &l->vocab, err);
}

static enum status open_engine(struct local *l, const struct local_options *o,
                               const struct engine_events *events, struct error *err)
{
    const struct model_config *c = model_get_config(l->model);
    struct engine_args args = {.runner = {.ctx = l->model,
                                          .forward = forward,
                                          .is_long = is_long,
                                          .vocab = c->vocab,
                                          .max_context = l->max_context,
                                          .eos = c->eos,
                                          .n_eos = c->n_eos},
                               .events = *events,
                               .pool = l->pool,
                               .layout = l->layout,
                               .prefix_cache = o->prefix_cache,
                               .max_batch = (int32_t)o->max_batch,
                               .chunk_tokens_max = (int32_t)o->chunk_tokens_max,
                               .step_budget_ns = STEP_BUDGET_NS,
                               .max_groups = (int32_t)o->max_batch,
                               .grammar_vocab = l->vocab};
    return engine_create(&args, &l->engine, err);
}

enum status local_open(struct local *l, const struct local_options *o,
                       const struct engine_events *events, bool with_tokenizer, struct error *err)
{
    *l = (struct local){0};
    enum status st = open_model(l, o, err);
    if (st == ST_OK) {
        l->max_context = model_get_config(l->model)->max_context;
        if (o->max_context > 0 && o->max_context < l->max_context)
            l->max_context = (int32_t)o->max_context;
        st = open_pool(l, o, err);
    }
    if (st == ST_OK && with_tokenizer)
        st = open_vocabulary(l, o, err);
    if (st == ST_OK)
        st = open_engine(l, o, events, err);
    if (st != ST_OK)
        local_close(l);
    return st;
}

void local_close(struct local *l)
{
    engine_destroy(l->engine);
    grammar_vocab_free(l->vocab);
    if (l->tokenizer)
        tokenizer_free(l->tokenizer);
    if (l->pool)
        munmap(l->pool, kv_pool_bytes(&l->layout));
    if (l->model)
        model_free(l->model);
    if (l->team)
        team_destroy(l->team);
    *l = (struct local){0};
}

enum status local_parse_ids(const char *text, struct ids *out, struct error *err)
{
    const char *at = text;
    while (*at != '\0') {
        char *end;
        errno = 0;
        long v = strtol(at, &end, 10);
        if (end == at || errno != 0 || v < 0 || v > INT32_MAX)
            return err_set(err, ST_INVALID, "expected token ids as in 1,2,3, got \"%.40s\"", at);
        if (!ids_push(out, (int32_t)v))
            return err_set(err, ST_NO_MEMORY, "no memory for the ids");
        at = end;
        while (*at == ' ' || *at == ',')
            at++;
    }
    return ST_OK;
}

enum status local_read_all(FILE *f, const char *name, struct buf *out, struct error *err)
{
    char chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(out, chunk, n);
    if (ferror(f))
        return err_set(err, ST_IO, "%s: %s", name, strerror(errno));
    return out->failed ? err_set(err, ST_NO_MEMORY, "%s: too large", name) : ST_OK;
}
