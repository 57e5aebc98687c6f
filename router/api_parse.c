/* JSON bodies to struct api_request: every known field is checked, unknown ones are ignored, null
 * is "not given". The first mistake wins: after it the field readers do nothing. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/api.h"
#include "router/api_fields.h"
#include "router/api_tool_grammar.h"

/* What reading one body may cost, on the loop or at the desk. */
#define BODY_DEPTH_MAX 64
#define BODY_MEMORY_MAX (64u << 20)
#define BODY_MEMBERS_MAX (128u << 10)

/* ---- what we know and do not do ---- */

static bool is_off(const json *v)
{
    switch (json_kind_of(v)) {
    case JSON_ABSENT:
    case JSON_NULL_:
        return true;
    case JSON_BOOL:
        return !json_as_bool(v, false);
    case JSON_STR:
        return json_str_len(v) == 0;
    case JSON_ARR:
    case JSON_OBJ:
        return json_count(v) == 0;
    default:
        return false;
    }
}

static void refuse_unsupported(struct fields *p)
{
    static const char *const keys[] = {"suffix",
                                       "functions",
                                       "audio",
                                       "web_search_options",
                                       "use_beam_search",
                                       "prompt_embeds",
                                       "bad_words",
                                       "allowed_token_ids",
                                       "logprob_token_ids",
                                       "truncate_prompt_tokens"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys && p->err->status == 0; i++) {
        if (!is_off(json_get(p->body, keys[i])))
            api_fail(p->err, 400, "unsupported_parameter", keys[i],
                     "'%s' is not supported by this server.", keys[i]);
    }
    const json *modalities = field_kind(p, "modalities", JSON_ARR, "an array");
    for (size_t i = 0; i < json_count(modalities) && p->err->status == 0; i++) {
        if (strcmp(json_as_str(json_at(modalities, i), ""), "text") != 0)
            api_fail(p->err, 400, "unsupported_value", "modalities",
                     "Only the modality \"text\" is supported by this server.");
    }
}

/* Known, harmless, without effect: only their types are looked at. */
static void check_ignored(struct fields *p)
{
    static const char *const strings[] = {"user", "service_tier", "prompt_cache_key",
                                          "safety_identifier", "verbosity"};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        field_str(p, strings[i], NULL, 4096);
    field_bool(p, "store", false);
    field_bool(p, "spaces_between_special_tokens", true);
    field_kind(p, "metadata", JSON_OBJ, "an object");
}

/* ---- sampling ---- */

static void parse_bias(struct fields *p, struct msg_sampling *s)
{
    const json *v = field_kind(p, "logit_bias", JSON_OBJ, "an object");
    size_t n = json_count(v);
    if (!v || n == 0)
        return;
    if (n > MSG_BIAS_MAX) {
        api_fail(p->err, 400, "invalid_value", "logit_bias",
                 "'logit_bias' has %zu entries, at most %d are allowed.", n, MSG_BIAS_MAX);
        return;
    }
    struct msg_bias *bias = calloc(n, sizeof *bias);
    if (!bias) {
        api_fail(p->err, 500, "internal_error", NULL, "Out of memory.");
        return;
    }
    s->bias = bias;
    for (void *it = json_first(v); it; it = json_next(v, it)) {
        const char *key = json_iter_key(it);
        const json *x = json_iter_value(it);
        char *end;
        long id = strtol(key, &end, 10);
        double b = json_as_number(x, NAN);
        if (key[0] < '0' || key[0] > '9' || (key[0] == '0' && key[1]) || *end || id < 0 ||
            id >= p->rules->vocab) {
            api_fail(p->err, 400, "invalid_value", "logit_bias",
                     "'logit_bias' keys must be token ids below %d.", p->rules->vocab);
            return;
        }
        if (!(b >= -100 && b <= 100)) {
            api_fail(p->err, 400, "invalid_value", "logit_bias",
                     "'logit_bias' values must be numbers from -100 to 100.");
            return;
        }
        bias[s->n_bias++] = (struct msg_bias){.id = (int32_t)id, .bias = (float)b};
    }
}

/* An array of ids; NULL after a mistake. */
static int32_t *read_ids(struct fields *p, const char *key, const json *v, int32_t *to)
{
    for (size_t i = 0; i < json_count(v); i++) {
        const json *x = json_at(v, i);
        int64_t id = json_as_int(x, -1);
        if (json_kind_of(x) != JSON_INT) {
            field_wrong_type(p, key, "token ids", x);
            return NULL;
        }
        if (id < 0 || id >= p->rules->vocab) {
            api_fail(p->err, 400, "invalid_value", key,
                     "Invalid value for '%s': token id %lld is not below the vocabulary's %d.", key,
                     (long long)id, p->rules->vocab);
            return NULL;
        }
        to[i] = (int32_t)id;
    }
    return to;
}

static void parse_stop_ids(struct fields *p, struct msg_sampling *s)
{
    const json *v = field_kind(p, "stop_token_ids", JSON_ARR, "an array");
    size_t n = json_count(v);
    if (n > MSG_STOP_IDS_MAX)
        api_fail(p->err, 400, "invalid_value", "stop_token_ids",
                 "'stop_token_ids' has %zu entries, at most %d are allowed.", n, MSG_STOP_IDS_MAX);
    if (!n || p->err->status)
        return;
    int32_t *ids = calloc(n, sizeof *ids);
    if (ids && read_ids(p, "stop_token_ids", v, ids))
        s->stop_ids = (struct msg_ids){.v = ids, .n = (uint32_t)n};
    else
        free(ids);
}

static void parse_logprobs(struct fields *p, struct api_request *r)
{
    struct msg_sampling *s = &r->sampling;
    s->logprobs = -1;
    r->prompt_logprobs = (int32_t)field_int(p, "prompt_logprobs", -1, 0, p->rules->logprobs_max);
    if (r->kind == API_COMPLETION) {
        r->echo = field_bool(p, "echo", false);
        s->logprobs = (int32_t)field_int(p, "logprobs", -1, 0, p->rules->logprobs_max);
        return;
    }
    bool wanted = field_bool(p, "logprobs", false);
    int64_t top = field_int(p, "top_logprobs", -1, 0, p->rules->logprobs_max);
    if (top > 0 && !wanted)
        api_fail(p->err, 400, "invalid_value", "top_logprobs",
                 "'top_logprobs' needs 'logprobs' to be true.");
    if (wanted)
        s->logprobs = (int32_t)(top > 0 ? top : 0);
}

/* Nothing may be generated where the answer has something else to say. */
static void parse_max_tokens(struct fields *p, struct api_request *r)
{
    int32_t least = r->echo || r->prompt_logprobs >= 0 ? 0 : 1;
    int64_t most = p->rules->defaults.max_tokens > 0 ? p->rules->defaults.max_tokens
                   : r->kind == API_COMPLETION       ? 16
                                                     : -1;
    most = field_int(p, "max_tokens", most, least, INT32_MAX);
    r->sampling.max_tokens = (int32_t)field_int(p, "max_completion_tokens", most, least, INT32_MAX);
}

static void parse_sampling(struct fields *p, struct api_request *r)
{
    const struct msg_sampling *d = &p->rules->defaults;
    struct msg_sampling *s = &r->sampling;
#define NUMBER(key, ...) (float)field_number(p, key, (struct field_range){__VA_ARGS__})
    s->temperature = NUMBER("temperature", d->temperature, 0, 2, false);
    s->top_p = NUMBER("top_p", d->top_p, 0, 1, true);
    s->min_p = NUMBER("min_p", d->min_p, 0, 1, false);
    s->repetition_penalty = NUMBER("repetition_penalty", d->repetition_penalty, 0.01, 100, false);
    s->presence_penalty = NUMBER("presence_penalty", 0, -2, 2, false);
    s->frequency_penalty = NUMBER("frequency_penalty", 0, -2, 2, false);
#undef NUMBER
    int64_t top_k = field_int(p, "top_k", d->top_k, -1, INT32_MAX);
    s->top_k = top_k > 0 ? (int32_t)top_k : 0;
    r->has_seed = field_get(p, "seed") != NULL;
    s->seed = (uint64_t)field_int(p, "seed", 0, INT64_MIN, INT64_MAX);
    parse_max_tokens(p, r);
    s->min_tokens = (int32_t)field_int(p, "min_tokens", 0, 0, INT32_MAX);
    if (s->max_tokens >= 0 && s->min_tokens > s->max_tokens)
        api_fail(p->err, 400, "invalid_value", "min_tokens",
                 "'min_tokens' must not be larger than 'max_tokens'.");
    s->ignore_eos = field_bool(p, "ignore_eos", false);
    parse_stop_ids(p, s);
    parse_bias(p, s);
}

/* ---- stop strings ---- */

static void parse_stops(struct fields *p, struct api_request *r)
{
    const json *v = field_get(p, "stop");
    bool one = json_kind_of(v) == JSON_STR;
    size_t n = one ? 1 : json_count(v);
    if (!v)
        return;
    if (!one && json_kind_of(v) != JSON_ARR) {
        field_wrong_type(p, "stop", "a string or an array of strings", v);
        return;
    }
    if (n > (size_t)p->rules->stop_max) {
        api_fail(p->err, 400, "invalid_value", "stop",
                 "'stop' has %zu strings, at most %d are allowed.", n, p->rules->stop_max);
        return;
    }
    r->stops = n ? calloc(n, sizeof *r->stops) : NULL;
    for (size_t i = 0; r->stops && i < n; i++) {
        const json *s = one ? v : json_at(v, i);
        size_t len = json_str_len(s);
        if (json_kind_of(s) != JSON_STR) {
            field_wrong_type(p, "stop", "a string or an array of strings", s);
            return;
        }
        if (len == 0 || len > API_STOP_BYTES_MAX) {
            api_fail(p->err, 400, "invalid_value", "stop",
                     "Stop strings must have 1 to %d bytes, got %zu.", API_STOP_BYTES_MAX, len);
            return;
        }
        r->stops[r->n_stops++] = (struct api_text_ref){json_as_str(s, ""), len};
    }
}

/* ---- prompts of completions ---- */

static void prompt_wrong(struct fields *p, const json *got)
{
    field_wrong_type(p, "prompt",
                     "a string, an array of strings, an array of token ids or an array of such "
                     "arrays",
                     got);
}

/* Room for the ids of all prompts; json_count() of a string is 0. */
static bool take_ids(struct fields *p, struct api_request *r, const json *list, bool many)
{
    size_t all = 0, at = 0, n = many ? json_count(list) : 1;
    for (size_t i = 0; i < n; i++)
        all += json_count(many ? json_at(list, i) : list);
    r->ids = calloc(all + 1, sizeof *r->ids);
    if (!r->ids)
        return api_fail(p->err, 500, "internal_error", NULL, "Out of memory.");
    for (size_t i = 0; i < n; i++) {
        const json *v = many ? json_at(list, i) : list;
        if (json_kind_of(v) != JSON_ARR) {
            prompt_wrong(p, v);
            return false;
        }
        if (json_count(v) == 0)
            return api_fail(p->err, 400, "invalid_value", "prompt",
                            "The prompt must have at least one token.");
        if (!read_ids(p, "prompt", v, r->ids + at))
            return false;
        r->prompts[i].ids = (struct msg_ids){.v = r->ids + at, .n = (uint32_t)json_count(v)};
        at += json_count(v);
    }
    return true;
}

static void parse_prompts(struct fields *p, struct api_request *r)
{
    const json *v = field_get(p, "prompt");
    if (p->err->status)
        return;
    enum json_kind kind = json_kind_of(v), first = json_kind_of(json_at(v, 0));
    if (!v) {
        api_fail(p->err, 400, "missing_required_parameter", "prompt",
                 "You must provide a 'prompt' parameter.");
        return;
    }
    if (kind != JSON_STR && (kind != JSON_ARR || json_count(v) == 0)) {
        if (kind == JSON_ARR)
            api_fail(p->err, 400, "invalid_value", "prompt", "'prompt' must not be empty.");
        else
            prompt_wrong(p, v);
        return;
    }
    bool many = kind == JSON_ARR && first != JSON_INT;
    r->n_prompts = many ? json_count(v) : 1;
    if (r->n_prompts > API_PROMPTS_MAX) {
        api_fail(p->err, 400, "invalid_value", "prompt",
                 "'prompt' has %zu prompts, at most %d are allowed.", r->n_prompts,
                 API_PROMPTS_MAX);
        return;
    }
    r->prompts = calloc(r->n_prompts, sizeof *r->prompts);
    if (!r->prompts) {
        api_fail(p->err, 500, "internal_error", NULL, "Out of memory.");
        return;
    }
    if (kind == JSON_ARR && (first == JSON_INT || first == JSON_ARR)) {
        take_ids(p, r, v, many);
        return;
    }
    for (size_t i = 0; i < r->n_prompts; i++) {
        const json *s = many ? json_at(v, i) : v;
        if (json_kind_of(s) != JSON_STR) {
            prompt_wrong(p, s);
            return;
        }
        r->prompts[i] = (struct api_prompt){.text = json_as_str(s, ""), .len = json_str_len(s)};
    }
}

/* ---- the whole ---- */

bool api_read_body(struct api_text_ref body, json **out, struct api_error *err)
{
    struct error why = {0};
    struct json_limits limits = {
        .depth = BODY_DEPTH_MAX, .memory_bytes = BODY_MEMORY_MAX, .members = BODY_MEMBERS_MAX};
    *out = NULL;
    if (json_read_limited(body.text, body.len, limits, out, &why) != ST_OK)
        return api_fail(err, 400, "invalid_json", NULL,
                        "We could not parse the JSON body of your request: %s.", why.text);
    if (json_kind_of(*out) == JSON_OBJ)
        return true;
    enum json_kind kind = json_kind_of(*out);
    json_free(*out);
    *out = NULL;
    return api_fail(err, 400, "invalid_type", NULL, "The body must be a JSON object, got %s.",
                    json_kind_name(kind));
}

static void parse_stream(struct fields *p, struct api_request *r)
{
    r->stream = field_bool(p, "stream", false);
    if (r->stream && r->prompt_logprobs >= 0)
        api_fail(p->err, 400, "invalid_value", "prompt_logprobs",
                 "'prompt_logprobs' is not available when 'stream' is true.");
    const json *options = field_kind(p, "stream_options", JSON_OBJ, "an object");
    if (!options)
        return;
    if (!r->stream) {
        api_fail(p->err, 400, "invalid_value", "stream_options",
                 "'stream_options' is only allowed when 'stream' is true.");
        return;
    }
    struct fields inner = {.body = options, .rules = p->rules, .err = p->err};
    r->include_usage = field_bool(&inner, "include_usage", false);
    field_bool(&inner, "include_obfuscation", false);
    r->usage_always = field_bool(&inner, "continuous_usage_stats", false) && r->include_usage;
}

static void parse_completion(struct fields *p, struct api_request *r)
{
    r->add_special = field_bool(p, "add_special_tokens", true);
    int64_t best_of = field_int(p, "best_of", r->n, 1, INT32_MAX);
    if (best_of != r->n && p->err->status == 0)
        api_fail(p->err, 400, "unsupported_value", "best_of",
                 "'best_of' is only supported where it equals 'n'.");
    parse_prompts(p, r);
}

bool api_parse(struct api_request *r, enum api_kind kind, const struct api_rules *rules,
               struct api_text_ref body, struct api_error *err)
{
    *r = (struct api_request){.kind = kind};
    err->status = 0;
    if (!api_read_body(body, &r->body, err))
        return false;
    struct fields p = {.body = r->body, .rules = rules, .err = err};
    r->model = field_str(&p, "model", NULL, API_NAME_BYTES_MAX);
    refuse_unsupported(&p);
    check_ignored(&p);
    r->n = (int32_t)field_int(&p, "n", 1, 1, rules->n_max);
    parse_logprobs(&p, r);
    parse_sampling(&p, r);
    parse_stops(&p, r);
    api_parse_grammar(&p, r);
    r->include_stop = field_bool(&p, "include_stop_str_in_output", false);
    r->skip_special = field_bool(&p, "skip_special_tokens", true);
    r->cache_salt = field_str(&p, "cache_salt", "", 128);
    parse_stream(&p, r);
    if (kind == API_COMPLETION)
        parse_completion(&p, r);
    else if (err->status == 0)
        api_parse_chat(r, r->body, rules, err);
    if (err->status == 0 && api_tool_must(r))
        api_force_tool(r, err);
    if (err->status == 0)
        return true;
    api_request_fini(r);
    return false;
}

void api_request_fini(struct api_request *r)
{
    json_free(r->body);
    free(r->ids);
    free(r->prompts);
    free(r->stops);
    buf_fini(&r->grammar_text);
    free((void *)(uintptr_t)r->sampling.bias);
    free((void *)(uintptr_t)r->sampling.stop_ids.v);
    *r = (struct api_request){0};
}
