/* What the router knows of the model: its tokenizer, its chat template, and a few keys of
 * config.json and generation_config.json, or of a GGUF file's metadata. Weights are the nodes'
 * business. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "formats/weight_source.h"
#include "router/router.h"

#define FILE_BYTES_MAX (16 << 20)
#define EOS_MAX 64
#define CONTEXT_MAX (1 << 24)

static void add_eos_id(struct router *r, int64_t id)
{
    if (id < 0 || id >= r->rules.vocab || r->n_eos == EOS_MAX)
        return;
    for (size_t i = 0; i < r->n_eos; i++) {
        if (r->eos[i] == id)
            return;
    }
    r->eos[r->n_eos++] = (int32_t)id;
}

static void read_eos(struct router *r, const json *v)
{
    add_eos_id(r, json_as_int(v, -1));
    for (size_t i = 0; json_kind_of(v) == JSON_ARR && i < json_count(v); i++)
        add_eos_id(r, json_as_int(json_at(v, i), -1));
}

struct bounds {
    double fallback, min, max;
};

/* A default of the model's; out of range it is none. */
static float default_of(const json *v, const char *key, struct bounds b)
{
    double x = json_as_number(json_get(v, key), b.fallback);
    return (float)(x >= b.min && x <= b.max ? x : b.fallback);
}

static void read_defaults(struct router *r, const json *v)
{
    struct msg_sampling *d = &r->rules.defaults;
    d->temperature = default_of(v, "temperature", (struct bounds){1, 0, 2});
    d->top_p = default_of(v, "top_p", (struct bounds){1, 1e-6, 1});
    d->min_p = default_of(v, "min_p", (struct bounds){0, 0, 1});
    d->repetition_penalty = default_of(v, "repetition_penalty", (struct bounds){1, 1e-6, 100});
    int64_t top_k = json_as_int(json_get(v, "top_k"), 0);
    d->top_k = top_k > 0 && top_k <= INT32_MAX ? (int32_t)top_k : 0;
    d->logprobs = -1;
}

/* NULL: not there, as nothing is where the model is a file. One that is there and cannot be read is
 * an error. */
static enum status read_json(const struct router *r, const char *file, bool needed, json **out,
                             struct error *err)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", r->config->model.path, file);
    *out = NULL;
    enum status st = json_read_file(path, FILE_BYTES_MAX, out, err);
    return st == ST_NOT_FOUND && !needed ? ST_OK : st;
}

/* A member of config.json, or of the text model that is a part of a larger one. */
static const json *config_get(const json *config, const char *key)
{
    const json *v = json_get(config, key);
    return v && json_kind_of(v) != JSON_NULL_ ? v : json_get(json_get(config, "text_config"), key);
}

static void set_sizes(struct router *r, int64_t vocab, int64_t context)
{
    size_t known = tokenizer_vocab_size(r->tokenizer);
    r->rules.vocab = vocab > 0 && vocab <= INT32_MAX ? (int32_t)vocab : (int32_t)known;
    r->model_context = context > 0 && context <= CONTEXT_MAX ? (int32_t)context : 0;
}

static enum status read_gguf(struct router *r, const char *path, const json *generation,
                             struct error *err)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    struct gguf *g;
    enum status st = gguf_open(path, &g, err);
    if (st != ST_OK)
        return st;
    struct gguf_str arch = gguf_string(g, "general.architecture");
    char key[160];
    snprintf(key, sizeof key, "%.*s.context_length", arch.len < 64 ? (int)arch.len : 0,
             arch.s ? arch.s : "");
    const struct gguf_tensor *embed = gguf_find_tensor(g, "token_embd.weight");
    set_sizes(r, embed ? (int64_t)embed->shape[0] : 0, gguf_int(g, key, 0));
    read_eos(r, json_get(generation, "eos_token_id"));
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        add_eos_id(r, gguf_int(g, ends[i], -1));
    gguf_close(g);
    return ST_OK;
}

static enum status read_config(struct router *r, const json *generation, struct error *err)
{
    char gguf[4400];
    json *config;
    if (weight_source_find_gguf(r->config->model.path, gguf, sizeof gguf, NULL) == ST_OK)
        return read_gguf(r, gguf, generation, err);
    enum status st = read_json(r, "config.json", true, &config, err);
    if (st != ST_OK)
        return st;
    set_sizes(r, json_as_int(config_get(config, "vocab_size"), 0),
              json_as_int(config_get(config, "max_position_embeddings"), 0));
    read_eos(r, json_get(generation, "eos_token_id"));
    read_eos(r, config_get(config, "eos_token_id"));
    json_free(config);
    return ST_OK;
}

static enum status read_files(struct router *r, struct error *err)
{
    json *generation = NULL;
    r->eos = calloc(EOS_MAX, sizeof *r->eos);
    if (!r->eos)
        return err_set(err, ST_NO_MEMORY, "no memory for the model");
    enum status st = read_json(r, "generation_config.json", false, &generation, err);
    if (st == ST_OK)
        st = read_config(r, generation, err);
    if (st == ST_OK)
        read_defaults(r, generation);
    json_free(generation);
    return st;
}

/* What the configuration names, or what the template speaks; that for chats with tools is asked
 * first. */
static void choose_formats(struct router *r, const char *text, const char *tool_text)
{
    const char *tools = r->config->router.tool_parser,
               *reasoning = r->config->router.reasoning_parser;
    struct api_output_formats *f = &r->formats;
    bool any_tools = strcmp(tools, "auto") == 0, any_reasoning = strcmp(reasoning, "auto") == 0;
    f->tools = any_tools ? NULL : output_format_find(tools);
    f->reasoning = any_reasoning ? NULL : output_reasoning_find(reasoning);
    if (any_tools && tool_text)
        f->tools = output_format_for(tool_text);
    if (any_tools && !f->tools && text)
        f->tools = output_format_for(text);
    if (any_reasoning && text)
        f->reasoning = output_reasoning_for(text);
    log_info("output_formats", "tools=%s reasoning=%s", f->tools ? f->tools->name : "none",
             f->reasoning ? f->reasoning->name : "none");
}

/* NULL: there is none, or it was refused. */
static struct chat_template *parse_template(const struct router *r, const char *text,
                                            struct template_habits *habits)
{
    struct chat_template *t = NULL;
    struct error why = {0};
    char quoted[600];
    if (!text)
        return NULL;
    if (template_parse(text, strlen(text), &t, &why) != ST_OK) {
        log_warn("chat_template_refused", "model=%s reason=%s", r->config->model.name,
                 log_quote(quoted, sizeof quoted, why.text));
        return NULL;
    }
    *habits = template_habits_of(t, text);
    return t;
}

static void read_templates(struct router *r)
{
    const char *text = tokenizer_chat_template(r->tokenizer);
    const char *tool_text = tokenizer_tool_template(r->tokenizer);
    if (!text)
        log_warn("no_chat_template", "model=%s", r->config->model.name);
    r->chat_template = parse_template(r, text, &r->habits);
    r->tool_template = parse_template(r, tool_text, &r->tool_habits);
    r->rules.chat_templates = r->config->router.request_templates;
    choose_formats(r, text, tool_text);
}

enum status router_load_model(struct router *r, struct error *err)
{
    enum status st = tokenizer_load(r->config->model.path, &r->tokenizer, err);
    if (st == ST_OK)
        st = read_files(r, err);
    if (st != ST_OK)
        return st;
    r->rules.n_max =
        (int32_t)(r->config->router.limits.n < MSG_CHOICES_MAX ? r->config->router.limits.n
                                                               : MSG_CHOICES_MAX);
    r->rules.stop_max = (int32_t)r->config->router.limits.stop;
    r->rules.logprobs_max = (int32_t)(r->config->router.limits.logprobs < MSG_LOGPROBS_MAX
                                          ? r->config->router.limits.logprobs
                                          : MSG_LOGPROBS_MAX);
    r->token_bytes_max = 1;
    for (int32_t id = 0; (size_t)id < tokenizer_vocab_size(r->tokenizer); id++) {
        const char *s = tokenizer_token(r->tokenizer, id);
        size_t n = s ? strlen(s) : 0;
        if (n > r->token_bytes_max)
            r->token_bytes_max = n;
    }
    read_templates(r);
    return ST_OK;
}

void router_unload_model(struct router *r)
{
    if (r->chat_template)
        template_free(r->chat_template);
    template_free(r->tool_template);
    if (r->tokenizer)
        tokenizer_free(r->tokenizer);
    free(r->eos);
}
