/* The public HTTP API's door: routes, keys, and everything that is answered at once. What takes
 * tokens is in http_generate.c and http_tokens.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/revision.h"
#include "baton_version.h"
#include "router/router.h"

#define JSON_TYPE "application/json"

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

static void post_tokenize(const struct call *c)
{
    http_tokens(c->r, c->q, false);
}

static void post_detokenize(const struct call *c)
{
    http_tokens(c->r, c->q, true);
}

/* ---- generation ---- */

static void post_completions(const struct call *c)
{
    http_generate(c->r, c->q, c->id, API_COMPLETION);
}

static void post_chat(const struct call *c)
{
    http_generate(c->r, c->q, c->id, API_CHAT);
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
    struct http_user *user = ev->user;
    if (ev->kind != HTTP_EV_REQUEST) {
        if (user)
            user->event(user, ev->kind);
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
