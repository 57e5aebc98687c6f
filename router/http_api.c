/* The public HTTP API's door: routes, keys, and everything that is answered at once. What takes
 * tokens is in http_answer.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/revision.h"
#include "base/utf8.h"
#include "baton_version.h"
#include "router/api_fields.h"
#include "router/router.h"

#define JSON_TYPE "application/json"
#define DETOKENIZE_MIN (256u << 10) /* ids that may always be asked for */

struct call {
    struct router *r;
    struct http_request *q;
    const char *id, *path; /* path: what follows the route */
};

/* ---- answers ---- */

static void respond(struct router *r, struct http_request *q, int status)
{
    http_respond(q, status, JSON_TYPE, r->scratch.data ? r->scratch.data : "", r->scratch.len);
    http_release(q);
}

void http_api_fail(struct http_request *q, const struct api_error *err)
{
    struct buf body = {0};
    char seconds[16];
    api_render_error(&body, err);
    int retry = api_retry_after_s(err);
    if (retry) {
        snprintf(seconds, sizeof seconds, "%d", retry);
        http_set_header(q, "Retry-After", seconds);
    }
    if (err->status == 401)
        http_set_header(q, "WWW-Authenticate", "Bearer");
    http_respond(q, err->status, JSON_TYPE, body.data, body.len);
    http_release(q);
    buf_fini(&body);
}

static void fail(const struct call *c, int status, const char *code, const char *message)
{
    struct api_error err = {0};
    api_fail(&err, status, code, NULL, "%s", message);
    http_api_fail(c->q, &err);
}

static bool serves(const struct router *r)
{
    return !r->drain_ns && cluster_ready(core_cluster(r->core));
}

/* ---- health, version, metrics ---- */

static void get_live(const struct call *c)
{
    http_respond(c->q, 200, JSON_TYPE, "{\"status\":\"ok\"}", 15);
    http_release(c->q);
}

static void get_ready(const struct call *c)
{
    if (serves(c->r))
        get_live(c);
    else
        fail(c, 503, "unavailable",
             c->r->drain_ns ? "The server is shutting down." : "No decode node is available.");
}

static void get_version(const struct call *c)
{
    char body[128];
    int len = snprintf(body, sizeof body, "{\"version\":\"" BATON_VERSION "\",\"revision\":\"%s\"}",
                       baton_revision);
    http_respond(c->q, 200, JSON_TYPE, body, (size_t)len);
    http_release(c->q);
}

static void get_metrics(const struct call *c)
{
    struct buf *out = &c->r->scratch;
    router_metrics_refresh(c->r);
    buf_clear(out);
    metrics_render(c->r->metrics, out);
    http_respond(c->q, 200, "text/plain; version=0.0.4; charset=utf-8", out->data, out->len);
    http_release(c->q);
}

/* ---- models ---- */

static void put_card(struct jw *w, const struct router *r)
{
    jw_obj(w);
    jw_key(w, "id");
    jw_str(w, r->config->model.name);
    jw_key(w, "object");
    jw_str(w, "model");
    jw_key(w, "created");
    jw_int(w, r->started_s);
    jw_key(w, "owned_by");
    jw_str(w, "baton");
    jw_key(w, "root");
    jw_str(w, r->config->model.name);
    jw_key(w, "parent");
    jw_null(w);
    jw_key(w, "max_model_len");
    int32_t most = router_max_context(r);
    if (most > 0)
        jw_int(w, most);
    else
        jw_null(w);
    jw_key(w, "permission");
    jw_raw(w, "[]");
    jw_end_obj(w);
}

static void get_models(const struct call *c)
{
    buf_clear(&c->r->scratch);
    struct jw w = jw_begin(&c->r->scratch);
    jw_obj(&w);
    jw_key(&w, "object");
    jw_str(&w, "list");
    jw_key(&w, "data");
    jw_arr(&w);
    put_card(&w, c->r);
    jw_end_arr(&w);
    jw_end_obj(&w);
    respond(c->r, c->q, 200);
}

static void get_model(const struct call *c)
{
    struct api_error err = {0};
    if (!prompt_check_model(c->r, c->path[0] ? c->path : "/", &err)) {
        http_api_fail(c->q, &err);
        return;
    }
    buf_clear(&c->r->scratch);
    struct jw w = jw_begin(&c->r->scratch);
    put_card(&w, c->r);
    respond(c->r, c->q, 200);
}

/* ---- tokens ---- */

static bool read_body(const struct call *c, json **body, struct api_error *err)
{
    struct api_text_ref text;
    text.text = http_body(c->q, &text.len);
    return api_read_body(text, body, err);
}

/* Ids of {prompt}, {content} (as llama.cpp's server has it) or {messages}. */
static bool tokenize_body(const struct call *c, const json *body, struct ids *ids,
                          struct api_error *err)
{
    struct fields p = {.body = body, .rules = &c->r->rules, .err = err};
    const char *model = field_str(&p, "model", NULL, API_NAME_BYTES_MAX);
    const json *prompt = field_kind(&p, "prompt", JSON_STR, "a string");
    const json *content = field_kind(&p, "content", JSON_STR, "a string");
    if (err->status || !prompt_check_model(c->r, model, err))
        return false;
    if (!prompt && !content) {
        struct api_request chat = {.kind = API_CHAT};
        const struct api_chat how = {.tokenizer = c->r->tokenizer,
                                     .template_ = c->r->chat_template,
                                     .habits = c->r->habits,
                                     .tool_template = c->r->tool_template,
                                     .tool_habits = c->r->tool_habits};
        return api_parse_chat(&chat, body, &c->r->rules, err) &&
               prompt_check_chat(c->r, chat.messages, err) && api_chat_ids(&how, &chat, ids, err);
    }
    bool special =
        prompt ? field_bool(&p, "add_special_tokens", true) : field_bool(&p, "add_special", false);
    bool parse = field_bool(&p, "parse_special", true);
    if (err->status)
        return false;
    const json *text = prompt ? prompt : content;
    if (json_str_len(text) > prompt_bytes_max(c->r))
        return api_fail(err, 400, "invalid_value", prompt ? "prompt" : "content",
                        "A text of %zu bytes is longer than any prompt of this model can be.",
                        json_str_len(text));
    unsigned flags = (special ? TOKENIZE_ADD_SPECIAL : 0) | (parse ? TOKENIZE_PARSE_SPECIAL : 0);
    struct error why = {0};
    enum status st = tokenizer_encode(c->r->tokenizer, json_as_str(text, ""), json_str_len(text),
                                      flags, ids, &why);
    if (st != ST_OK)
        api_fail_status(err, st, why.text);
    return st == ST_OK;
}

/* A string, or the bytes as numbers where they are no text by themselves, as llama.cpp has it. */
static void put_piece(struct jw *w, const struct router *r, int32_t id)
{
    struct buf b = {0};
    tokenizer_token_bytes(r->tokenizer, id, &b);
    const char *bytes = b.data ? b.data : "";
    if (utf8_valid(bytes, b.len)) {
        jw_strn(w, bytes, b.len);
    } else {
        jw_arr(w);
        for (size_t i = 0; i < b.len; i++)
            jw_int(w, (unsigned char)bytes[i]);
        jw_end_arr(w);
    }
    buf_fini(&b);
}

struct tokens_shape {
    bool strings, pieces;
};

static void put_tokens(const struct call *c, const struct ids *ids, struct tokens_shape shape)
{
    buf_clear(&c->r->scratch);
    struct jw w = jw_begin(&c->r->scratch);
    jw_obj(&w);
    jw_key(&w, "count");
    jw_uint(&w, ids->n);
    jw_key(&w, "max_model_len");
    jw_int(&w, router_max_context(c->r));
    jw_key(&w, "tokens");
    jw_arr(&w);
    for (size_t i = 0; i < ids->n; i++) {
        if (!shape.pieces) {
            jw_int(&w, ids->v[i]);
            continue;
        }
        jw_obj(&w);
        jw_key(&w, "id");
        jw_int(&w, ids->v[i]);
        jw_key(&w, "piece");
        put_piece(&w, c->r, ids->v[i]);
        jw_end_obj(&w);
    }
    jw_end_arr(&w);
    jw_key(&w, "token_strs");
    if (shape.strings) {
        jw_arr(&w);
        for (size_t i = 0; i < ids->n; i++) {
            const char *s = tokenizer_token(c->r->tokenizer, ids->v[i]);
            jw_str(&w, s ? s : "");
        }
        jw_end_arr(&w);
    } else {
        jw_null(&w);
    }
    jw_end_obj(&w);
    respond(c->r, c->q, 200);
}

static void post_tokenize(const struct call *c)
{
    json *body = NULL;
    struct ids ids = {0};
    struct api_error err = {0};
    struct tokens_shape shape = {false, false};
    bool ok = read_body(c, &body, &err);
    if (ok) {
        struct fields p = {.body = body, .rules = &c->r->rules, .err = &err};
        shape.strings = field_bool(&p, "return_token_strs", false);
        shape.pieces = field_bool(&p, "with_pieces", false);
        ok = err.status == 0 && tokenize_body(c, body, &ids, &err);
    }
    if (ok)
        put_tokens(c, &ids, shape);
    else
        http_api_fail(c->q, &err);
    ids_fini(&ids);
    json_free(body);
}

static bool detokenize_body(const struct call *c, const json *body, struct buf *text,
                            struct api_error *err)
{
    struct fields p = {.body = body, .rules = &c->r->rules, .err = err};
    const char *model = field_str(&p, "model", NULL, API_NAME_BYTES_MAX);
    const json *tokens = field_kind(&p, "tokens", JSON_ARR, "an array of token ids");
    if (err->status || !prompt_check_model(c->r, model, err))
        return false;
    if (!tokens)
        return api_fail(err, 400, "missing_required_parameter", "tokens",
                        "You must provide a 'tokens' parameter.");
    size_t most = (size_t)router_max_context(c->r);
    most = most > DETOKENIZE_MIN ? most : DETOKENIZE_MIN;
    if (json_count(tokens) > most)
        return api_fail(err, 400, "invalid_value", "tokens",
                        "'tokens' has %zu token ids, at most %zu are allowed.", json_count(tokens),
                        most);
    struct ids ids = {0};
    for (size_t i = 0; i < json_count(tokens) && err->status == 0; i++) {
        const json *v = json_at(tokens, i);
        int64_t id = json_as_int(v, -1);
        if (json_kind_of(v) != JSON_INT)
            field_wrong_type(&p, "tokens", "an array of token ids", v);
        else if (id < 0 || id >= c->r->rules.vocab)
            api_fail(err, 400, "invalid_value", "tokens",
                     "Invalid value for 'tokens': token id %lld is not below the vocabulary's %d.",
                     (long long)id, c->r->rules.vocab);
        else if (!ids_push(&ids, (int32_t)id))
            api_fail(err, 500, "internal_error", NULL, "Out of memory.");
    }
    if (err->status == 0)
        tokenizer_decode(c->r->tokenizer, ids.v, ids.n, false, text);
    ids_fini(&ids);
    return err->status == 0;
}

static void post_detokenize(const struct call *c)
{
    json *body = NULL;
    struct buf text = {0};
    struct api_error err = {0};
    if (read_body(c, &body, &err) && detokenize_body(c, body, &text, &err)) {
        buf_clear(&c->r->scratch);
        struct jw w = jw_begin(&c->r->scratch);
        jw_obj(&w);
        jw_key(&w, "prompt");
        jw_strn(&w, text.data ? text.data : "", text.len);
        jw_key(&w, "content");
        jw_strn(&w, text.data ? text.data : "", text.len);
        jw_end_obj(&w);
        respond(c->r, c->q, 200);
    } else {
        http_api_fail(c->q, &err);
    }
    buf_fini(&text);
    json_free(body);
}

/* ---- generation ---- */

static void post_completions(const struct call *c)
{
    http_answer_start(c->r, c->q, c->id, API_COMPLETION);
}

static void post_chat(const struct call *c)
{
    http_answer_start(c->r, c->q, c->id, API_CHAT);
}

/* ---- the door ---- */

static const struct route {
    const char *method, *path;
    void (*answer)(const struct call *c);
    bool open; /* without a key */
} routes[] = {
    {"POST", "/v1/completions", post_completions, false},
    {"POST", "/v1/chat/completions", post_chat, false},
    {"GET", "/v1/models", get_models, false},
    {"GET", "/v1/models/", get_model, false}, /* and what follows */
    {"POST", "/tokenize", post_tokenize, false},
    {"POST", "/detokenize", post_detokenize, false},
    {"GET", "/health", get_ready, true},
    {"GET", "/health/live", get_live, true},
    {"GET", "/health/ready", get_ready, true},
    {"GET", "/version", get_version, true},
    {"GET", "/metrics", get_metrics, true},
};

static bool check_key(const struct call *c, struct api_error *err)
{
    const char *given = http_header(c->q, "authorization");
    return keys_check(c->r, given, http_header(c->q, "x-api-key"), err);
}

static const struct route *find_route(struct call *c, const char *path, bool *other_method)
{
    const char *method = http_method(c->q);
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        size_t n = strlen(routes[i].path);
        bool prefix = routes[i].path[n - 1] == '/';
        if (prefix ? strncmp(path, routes[i].path, n) != 0 : strcmp(path, routes[i].path) != 0)
            continue;
        if (strcmp(method, routes[i].method) == 0) {
            c->path = path + n;
            return &routes[i];
        }
        *other_method = true;
        http_set_header(c->q, "Allow", routes[i].method);
    }
    return NULL;
}

void http_api_event(struct router *r, const struct http_event *ev)
{
    if (ev->kind != HTTP_EV_REQUEST) {
        http_answer_event(ev);
        return;
    }
    char id[MSG_REQUEST_ID_MAX];
    struct call c = {.r = r, .q = ev->request, .id = id, .path = ""};
    struct api_error err = {0};
    bool other_method = false;
    router_choose_id(http_header(c.q, "x-request-id"), id);
    http_set_header(c.q, "x-request-id", id);
    const struct route *route = find_route(&c, http_path(c.q), &other_method);
    if (!route && other_method)
        fail(&c, 405, "method_not_allowed", "This method is not allowed here.");
    else if (!route)
        fail(&c, 404, "not_found", "There is nothing at this path.");
    else if (!route->open && !check_key(&c, &err))
        http_api_fail(c.q, &err);
    else
        route->answer(&c);
}
