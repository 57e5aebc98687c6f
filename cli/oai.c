#include "cli/oai.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define CALL_TIMEOUT_NS (30 * NS_PER_S)

enum status oai_server_init(struct oai_server *s, const char *url, const char *key,
                            struct error *err)
{
    size_t n = strlen(url);
    *s = (struct oai_server){.key = key};
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return err_set(err, ST_INVALID, "--url: expected http://HOST:PORT, got \"%s\"", url);
    while (n > 0 && url[n - 1] == '/')
        n--;
    if (n > 3 && memcmp(url + n - 3, "/v1", 3) == 0)
        n -= 3;
    while (n > 0 && url[n - 1] == '/')
        n--;
    if (n >= sizeof s->url)
        return err_set(err, ST_INVALID, "--url: longer than %zu bytes", sizeof s->url - 1);
    memcpy(s->url, url, n);
    return ST_OK;
}

enum status oai_start(struct http_client *c, const struct oai_server *s,
                      const struct http_client_request *req, struct http_transfer **out,
                      struct error *err)
{
    char url[1200];
    struct http_client_request full = *req;
    if (snprintf(url, sizeof url, "%s%s", s->url, req->url) >= (int)sizeof url)
        return err_set(err, ST_INVALID, "%s: too long", s->url);
    full.method = req->body ? "POST" : "GET";
    full.url = url;
    full.bearer = s->key;
    return http_client_start(c, &full, out, err);
}

static enum status collect(struct http_client *c, struct buf *answer, int *status,
                           struct error *err)
{
    struct http_client_event ev;
    for (;;) {
        if (!http_client_poll(c, 1000, &ev))
            continue;
        if (ev.kind == HTTP_CLIENT_DATA)
            buf_append(answer, ev.data, ev.len);
        if (ev.kind != HTTP_CLIENT_END)
            continue;
        *status = ev.status;
        if (ev.result != ST_OK)
            return err_set(err, ev.result, "%s", ev.text);
        return answer->failed ? err_set(err, ST_PROTOCOL, "the answer is too large") : ST_OK;
    }
}

enum status oai_call(const struct oai_server *s, const char *path, const struct buf *body,
                     json **out, struct error *err)
{
    struct http_client *c = NULL;
    struct buf answer = {.max = OAI_BODY_MAX};
    struct http_client_request req = {.url = path,
                                      .body = body ? body->data : NULL,
                                      .body_bytes = body ? body->len : 0,
                                      .timeout_ns = CALL_TIMEOUT_NS};
    int status = 0;
    enum status st = http_client_create(&c, err);
    if (st != ST_OK)
        return st;
    st = oai_start(c, s, &req, NULL, err);
    if (st == ST_OK)
        st = collect(c, &answer, &status, err);
    if (st == ST_OK && status != 200) {
        char text[300];
        oai_error_text(status, &answer, text, sizeof text, NULL);
        st = err_set(err, status == 404 ? ST_NOT_FOUND : ST_INVALID, "%s", text);
    }
    if (st == ST_OK)
        st = json_read(answer.data ? answer.data : "", answer.len, out, err);
    if (st != ST_OK)
        err_prefix(err, "%s%s", s->url, path);
    http_client_destroy(c);
    buf_fini(&answer);
    return st;
}

enum status oai_server_find_model(struct oai_server *s, const char *name, struct error *err)
{
    json *tree = NULL;
    enum status st = ST_OK;
    const char *id = name;
    if (!id) {
        st = oai_call(s, "/v1/models", NULL, &tree, err);
        if (st != ST_OK)
            return st;
        id = json_as_str(json_get(json_at(json_get(tree, "data"), 0), "id"), NULL);
    }
    if (!id || !id[0])
        st = err_set(err, ST_PROTOCOL, "%s/v1/models names no model; use --model", s->url);
    else if (strlen(id) >= sizeof s->model)
        st = err_set(err, ST_INVALID, "a model's name has at most %zu bytes", sizeof s->model - 1);
    else
        snprintf(s->model, sizeof s->model, "%s", id);
    json_free(tree);
    return st;
}

/* ---- streams ---- */

enum status oai_stream_feed(struct oai_stream *s, const char *data, size_t len)
{
    return sse_feed(&s->sse, data, len);
}

static void read_usage(const json *usage, struct oai_event *e)
{
    if (json_kind_of(usage) != JSON_OBJ)
        return;
    e->has_usage = true;
    e->prompt_tokens = json_as_int(json_get(usage, "prompt_tokens"), 0);
    e->completion_tokens = json_as_int(json_get(usage, "completion_tokens"), 0);
    e->cached_tokens =
        json_as_int(json_get(json_get(usage, "prompt_tokens_details"), "cached_tokens"), 0);
}

/* A completion's chunk is a token even where its text is still empty (half a character); a chat's
 * empty deltas only carry the role or the end. */
static void read_choice(const json *choice, struct oai_event *e)
{
    const json *delta = json_get(choice, "delta"), *text = json_get(choice, "text");
    if (json_kind_of(choice) != JSON_OBJ)
        return;
    e->has_choice = true;
    e->finish = json_as_str(json_get(choice, "finish_reason"), NULL);
    if (delta) {
        static const char *const fields[] = {"content", "reasoning", "reasoning_content"};
        for (size_t i = 0; i < 3 && json_str_len(text) == 0; i++)
            text = json_get(delta, fields[i]);
        e->has_token = json_count(json_get(delta, "tool_calls")) > 0;
    } else {
        e->has_token = e->finish == NULL;
    }
    if (json_kind_of(text) == JSON_STR) {
        e->text = json_as_str(text, "");
        e->text_len = json_str_len(text);
        e->has_token |= e->text_len > 0;
    }
}

enum oai_result oai_stream_next(struct oai_stream *s, struct oai_event *out)
{
    json_free(s->tree);
    s->tree = NULL;
    const char *data = sse_next(&s->sse);
    *out = (struct oai_event){.text = ""};
    if (!data)
        return OAI_NONE;
    if (strcmp(data, "[DONE]") == 0) {
        s->done = true;
        return OAI_DONE;
    }
    if (json_read(data, strlen(data), &s->tree, NULL) != ST_OK ||
        json_kind_of(s->tree) != JSON_OBJ) {
        out->error = "an event is not a JSON object";
        return OAI_BAD;
    }
    const json *error = json_get(s->tree, "error");
    if (error && json_kind_of(error) != JSON_NULL_) {
        out->error = json_as_str(json_get(error, "message"), "an error without a message");
        out->error_code = json_as_str(json_get(error, "code"), "");
        return OAI_EVENT;
    }
    read_choice(json_at(json_get(s->tree, "choices"), 0), out);
    read_usage(json_get(s->tree, "usage"), out);
    return OAI_EVENT;
}

void oai_stream_fini(struct oai_stream *s)
{
    sse_fini(&s->sse);
    json_free(s->tree);
    *s = (struct oai_stream){0};
}

/* ---- texts ---- */

void oai_error_text(int status, const struct buf *body, char *out, size_t cap, char code[64])
{
    json *tree = NULL;
    const char *message = NULL;
    if (code)
        code[0] = '\0';
    if (body->len > 0 && json_read(body->data, body->len, &tree, NULL) == ST_OK) {
        const json *error = json_get(tree, "error");
        message = json_as_str(json_get(error, "message"), json_as_str(error, NULL));
        if (code)
            snprintf(code, 64, "%s", json_as_str(json_get(error, "code"), ""));
    }
    if (!message)
        message = body->data ? body->data : "";
    snprintf(out, cap, "HTTP %d: %.200s", status, message[0] ? message : "no text");
    for (char *at = out; *at; at++)
        if ((unsigned char)*at < ' ')
            *at = ' ';
    json_free(tree);
}

void oai_print(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0)
            i++; /* U+0080 to U+009F: some terminals obey them */
        else if ((c >= ' ' && c != 0x7f) || c == '\n' || c == '\t')
            putchar(c);
    }
    fflush(stdout);
}
