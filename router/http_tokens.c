/* /tokenize and /detokenize: what is small is answered at once, the rest over the desk. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "router/api_fields.h"
#include "router/router.h"

#define DETOKENIZE_MIN (256u << 10) /* ids that may always be asked for */

struct tokens {
    struct desk_job job; /* first */
    struct http_user user;
    struct router *r;
    struct http_request *q; /* the loop's alone */
    bool back;              /* from tokens to text */
    struct buf body;
    bool ok;
    struct buf out;
    struct api_error err;
};

/* ---- from any thread ---- */

/* Ids of {prompt}, {content} (as llama.cpp's server has it) or {messages}. */
static bool tokenize_body(const struct tokens *c, const json *body, struct ids *ids,
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

static void put_tokens(struct tokens *c, const struct ids *ids, struct tokens_shape shape)
{
    struct jw w = jw_begin(&c->out);
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
}

static bool tokenize(struct tokens *c, const json *body)
{
    struct ids ids = {0};
    struct fields p = {.body = body, .rules = &c->r->rules, .err = &c->err};
    struct tokens_shape shape;
    shape.strings = field_bool(&p, "return_token_strs", false);
    shape.pieces = field_bool(&p, "with_pieces", false);
    bool ok = c->err.status == 0 && !desk_is_left(&c->job) &&
              tokenize_body(c, body, &ids, &c->err) && !desk_is_left(&c->job);
    if (ok)
        put_tokens(c, &ids, shape);
    ids_fini(&ids);
    return ok;
}

static bool detokenize_body(const struct tokens *c, const json *body, struct buf *text,
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

static bool detokenize(struct tokens *c, const json *body)
{
    struct buf text = {0};
    bool ok = detokenize_body(c, body, &text, &c->err);
    if (ok) {
        struct jw w = jw_begin(&c->out);
        jw_obj(&w);
        jw_key(&w, "prompt");
        jw_strn(&w, text.data ? text.data : "", text.len);
        jw_key(&w, "content");
        jw_strn(&w, text.data ? text.data : "", text.len);
        jw_end_obj(&w);
    }
    buf_fini(&text);
    return ok;
}

static void answer(struct tokens *c, struct api_text_ref text)
{
    json *body = NULL;
    c->ok =
        api_read_body(text, &body, &c->err) && (c->back ? detokenize(c, body) : tokenize(c, body));
    if (c->ok && c->out.failed)
        c->ok = api_fail(&c->err, 500, "internal_error", NULL, "Out of memory.");
    json_free(body);
}

static void tokens_work(struct desk_job *job)
{
    struct tokens *c = (struct tokens *)job;
    answer(c, (struct api_text_ref){c->body.data ? c->body.data : "", c->body.len});
    buf_fini(&c->body);
}

static void tokens_drop(struct desk_job *job)
{
    struct tokens *c = (struct tokens *)job;
    buf_fini(&c->body);
    buf_fini(&c->out);
    free(c);
}

/* ---- the loop's part ---- */

static void respond(struct tokens *c)
{
    if (!c->ok) {
        http_api_fail(c->q, &c->err);
        return;
    }
    http_respond_take(c->q, 200, "application/json", &c->out);
    http_release(c->q);
}

static void tokens_done(struct desk_job *job, enum status status)
{
    struct tokens *c = (struct tokens *)job;
    struct api_error err = {0};
    c->r->answers--;
    http_set_user(c->q, NULL);
    if (status == ST_OK) {
        respond(c);
        return;
    }
    api_fail_status(&err, status, desk_says(status));
    http_api_fail(c->q, &err);
}

static void tokens_event(struct http_user *user, enum http_event_kind kind)
{
    struct tokens *c = list_entry(user, struct tokens, user);
    if (kind != HTTP_EV_GONE)
        return;
    c->r->answers--;
    http_release(c->q);
    desk_leave(c->r->desk, &c->job);
}

/* True: it has gone to the desk. */
static bool begin(struct tokens *c)
{
    struct api_text_ref body;
    body.text = http_body(c->q, &body.len);
    /* A template of the request's own takes as long as it likes. */
    if (body.len < DESK_BYTES_MIN && !(c->r->rules.chat_templates && !c->back)) {
        answer(c, body);
        return false;
    }
    http_take_body(c->q, &c->body);
    c->job.bytes = c->body.cap;
    enum status st = desk_submit(c->r->desk, &c->job, c->r->now_ns);
    if (st != ST_OK) {
        api_fail_status(&c->err, st, desk_says(st));
        return false;
    }
    c->r->answers++;
    http_set_user(c->q, &c->user);
    return true;
}

void http_tokens(struct router *r, struct http_request *q, bool back)
{
    struct tokens *c = calloc(1, sizeof *c);
    if (!c) {
        struct api_error err = {0};
        api_fail_status(&err, ST_NO_MEMORY, "Out of memory.");
        http_api_fail(q, &err);
        return;
    }
    c->job.work = tokens_work;
    c->job.done = tokens_done;
    c->job.drop = tokens_drop;
    c->user.event = tokens_event;
    c->r = r;
    c->q = q;
    c->back = back;
    if (begin(c))
        return;
    respond(c);
    tokens_drop(&c->job);
}
