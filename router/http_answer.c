/* One generation over HTTP: from the body to the run, and from the run to a whole answer or to
 * server-sent events.
 *
 * Nothing of a stream is sent before its first token: until then a failure is a plain error with
 * its own status, and the nodes' names are not known. Afterwards a failure is an `error` event.
 * What cannot be sent at once waits in `out`, which the credit of the run bounds: tokens are
 * reported as consumed only when all bytes before them are with the kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "router/router.h"

#define CHOICES_MAX 2048

struct slot {
    struct buf text;          /* stream: not yet in a chunk */
    struct api_output output; /* where the text is taken apart */
    struct api_tokens tokens; /* with logprobs */
    size_t offset;            /* characters before the first of `tokens` */
    bool over, opened;
    enum msg_finish_reason reason;
    const char *stop_text; /* ours */
    int32_t stop_id;
};

struct answer {
    struct router *r;
    struct http_request *q;
    struct run *run; /* NULL: it has ended */
    struct api_answer head;
    struct slot *slots;
    size_t n_slots;
    struct buf *echoes; /* [n_prompts] */
    size_t n_prompts;
    int32_t n;
    struct api_output_plan plan;
    struct buf out;
    bool begun, ended, broken, usage_always;
    char prefill[64], decode[64];
};

static void answer_free(struct answer *a)
{
    for (size_t i = 0; i < a->n_slots; i++) {
        buf_fini(&a->slots[i].text);
        api_tokens_fini(&a->slots[i].tokens);
        api_output_fini(&a->slots[i].output);
        free((char *)(uintptr_t)a->slots[i].stop_text);
    }
    for (size_t i = 0; a->echoes && i < a->n_prompts; i++)
        buf_fini(&a->echoes[i]);
    api_output_plan_fini(&a->plan);
    free(a->slots);
    free(a->echoes);
    buf_fini(&a->out);
    a->r->answers--;
    free(a);
}

/* ---- sending ---- */

static void set_nodes(struct answer *a)
{
    const char *prefill = "", *decode = "";
    if (a->run)
        run_nodes(a->run, &prefill, &decode);
    if (decode[0])
        snprintf(a->decode, sizeof a->decode, "%s", decode);
    if (prefill[0])
        snprintf(a->prefill, sizeof a->prefill, "%s", prefill);
}

static void send_node_headers(struct answer *a)
{
    if (a->prefill[0])
        http_set_header(a->q, "x-baton-prefill", a->prefill);
    if (a->decode[0])
        http_set_header(a->q, "x-baton-decode", a->decode);
}

/* Hands over what it can. True: the answer is complete and `a` is gone. */
static bool flush(struct answer *a)
{
    if (a->out.failed)
        a->broken = true;
    if (a->out.len && !a->broken) {
        enum status st = http_write(a->q, a->out.data, a->out.len);
        if (st == ST_OK)
            buf_clear(&a->out);
        else if (st == ST_CANCELLED)
            a->broken = true;
    }
    if (a->broken && a->run)
        run_cancel(a->run, ST_CANCELLED, "The answer cannot be sent.");
    if (!a->ended || (a->out.len && !a->broken))
        return false;
    if (a->broken)
        http_abort(a->q);
    else
        http_stream_end(a->q);
    http_release(a->q);
    answer_free(a);
    return true;
}

static struct api_choice_out choice_out(const struct answer *a, int32_t index)
{
    struct slot *s = &a->slots[index];
    struct api_choice_out c = {.index = index, .text_offset = s->offset, .stop_id = -1};
    c.text = (struct api_text_ref){s->text.data ? s->text.data : "", s->text.len};
    c.tokens = a->head.logprobs ? &s->tokens : NULL;
    c.output = a->plan.parse ? &s->output : NULL;
    if (s->over) {
        c.finish = s->reason == MSG_FINISH_LENGTH ? "length" : "stop";
        /* Where one function was asked for by name, calling it is no decision of the model's. */
        if (s->reason != MSG_FINISH_LENGTH && s->output.calls.n && !a->plan.forced_name[0])
            c.finish = "tool_calls";
        c.stop_text = s->stop_text;
        c.stop_id = s->stop_id;
    }
    return c;
}

/* An event of a choice. With usage where every event is to have it, else with null in its place. */
static void put_event(struct answer *a, const struct api_choice_out *c)
{
    struct msg_usage usage = a->usage_always && a->run ? run_usage(a->run) : (struct msg_usage){0};
    api_render_chunk(&a->out, &a->head, c, a->usage_always ? &usage : NULL);
}

/* A chunk of what the slot holds, and what it held is gone. */
static void put_chunk(struct answer *a, int32_t index, bool with_finish)
{
    struct slot *s = &a->slots[index];
    struct api_choice_out c = choice_out(a, index);
    if (!with_finish) {
        c.finish = c.stop_text = NULL;
        c.stop_id = -1;
    } else if (s->tokens.n == 0) {
        c.tokens = NULL;
    }
    put_event(a, &c);
    a->out.failed |= s->text.failed || s->output.failed;
    struct buf bytes = {0};
    for (size_t i = 0; i < s->tokens.n; i++)
        tokenizer_token_bytes(a->r->tokenizer, s->tokens.v[i].id, &bytes);
    s->offset += api_count_characters(bytes.data, bytes.len);
    buf_fini(&bytes);
    api_tokens_clear(&s->tokens);
    api_output_clear(&s->output);
    buf_clear(&s->text);
}

static void begin_stream(struct answer *a)
{
    if (a->begun)
        return;
    a->begun = true;
    set_nodes(a);
    send_node_headers(a);
    http_set_header(a->q, "Cache-Control", "no-cache");
    http_set_header(a->q, "X-Accel-Buffering", "no");
    http_stream_begin(a->q, 200, "text/event-stream");
    for (size_t i = 0; i < a->n_slots; i++) {
        struct api_choice_out c = {.index = (int32_t)i, .stop_id = -1};
        if (a->head.kind == API_CHAT) {
            c.role = true;
            put_event(a, &c);
        } else if (a->echoes) {
            const struct buf *e = &a->echoes[i / (size_t)a->n];
            c.text = (struct api_text_ref){e->data ? e->data : "", e->len};
            put_event(a, &c);
        }
    }
}

/* ---- from the run ---- */

static void put_text(struct answer *a, struct slot *s, struct api_text_ref text, bool token)
{
    if (!a->plan.parse) {
        buf_append(&s->text, text.text, text.len);
        return;
    }
    int32_t before = s->output.reasoning_tokens;
    api_output_push(&s->output, text, run_special_bytes(a->run), token);
    a->head.reasoning_tokens += s->output.reasoning_tokens - before;
    s->text.failed |= s->output.failed;
}

static void on_delta(void *owner, int32_t index, struct api_text_ref text,
                     const struct msg_token *t)
{
    struct answer *a = owner;
    struct slot *s = &a->slots[index];
    put_text(a, s, text, t != NULL);
    if (t && a->head.logprobs && !api_tokens_push(&s->tokens, t))
        s->text.failed = true;
    if (!a->head.stream) {
        if (!a->decode[0])
            set_nodes(a);
        run_consumed(a->run);
        return;
    }
    begin_stream(a);
    if (s->text.len || api_output_pending(&s->output))
        put_chunk(a, index, false);
    flush(a);
    /* With nothing on its way there is nothing to wait for. */
    if (!a->out.len && http_unsent(a->q) == 0)
        run_consumed(a->run);
}

static void on_finish(void *owner, int32_t index, const struct run_finish *f)
{
    struct answer *a = owner;
    struct slot *s = &a->slots[index];
    s->over = true;
    s->reason = f->reason;
    s->stop_text = f->stop_text ? strdup(f->stop_text) : NULL;
    s->stop_id = f->stop_id;
    if (a->plan.parse)
        api_output_finish(&s->output, f->reason == MSG_FINISH_LENGTH);
    if (!a->head.stream)
        return;
    begin_stream(a);
    if (a->head.kind == API_CHAT && (s->text.len || s->tokens.n || api_output_pending(&s->output)))
        put_chunk(a, index, false);
    put_chunk(a, index, true);
    flush(a);
}

static void respond_whole(struct answer *a, const struct msg_usage *usage)
{
    struct api_choice_out *c = calloc(a->n_slots, sizeof *c);
    bool ok = c != NULL;
    for (size_t i = 0; i < a->n_slots && ok; i++) {
        c[i] = choice_out(a, (int32_t)i);
        ok = !a->slots[i].text.failed && !a->slots[i].output.failed;
    }
    if (ok)
        api_render_answer(&a->out, &a->head, c, a->n_slots, usage);
    free(c);
    if (!ok || a->out.failed) {
        struct api_error err = {0};
        api_fail_status(&err, ST_NO_MEMORY, "Out of memory.");
        http_api_fail(a->q, &err);
        return;
    }
    send_node_headers(a);
    http_respond(a->q, 200, "application/json", a->out.data, a->out.len);
    http_release(a->q);
}

static void on_end(void *owner, enum status status, const char *text, const struct msg_usage *usage)
{
    struct answer *a = owner;
    struct api_error err = {0};
    if (status != ST_OK)
        api_fail_status(&err, status, text);
    if (!a->begun && (status != ST_OK || !a->head.stream)) {
        if (status != ST_OK)
            http_api_fail(a->q, &err);
        else
            respond_whole(a, usage);
        answer_free(a);
        return;
    }
    begin_stream(a);
    a->run = NULL;
    a->ended = true;
    if (status == ST_CANCELLED) { /* it does not read */
        a->broken = true;
    } else if (status != ST_OK) {
        buf_puts(&a->out, "data: ");
        api_render_error(&a->out, &err);
        buf_puts(&a->out, "\n\n");
    } else if (a->head.include_usage) {
        api_render_chunk(&a->out, &a->head, NULL, usage);
    }
    buf_puts(&a->out, "data: [DONE]\n\n");
    flush(a);
}

static const struct run_ops answer_ops = {on_delta, on_finish, on_end};

/* ---- from the client ---- */

void http_answer_event(const struct http_event *ev)
{
    struct answer *a = ev->user;
    if (!a)
        return;
    if (ev->kind == HTTP_EV_GONE) {
        if (a->run)
            run_abandon(a->run);
        http_release(a->q);
        answer_free(a);
    } else if (ev->kind == HTTP_EV_SENT && !flush(a)) {
        if (!a->out.len && a->run && http_unsent(a->q) == 0)
            run_consumed(a->run);
    }
}

/* Prompts to ids; `all` has one array per prompt. */
static bool make_ids(struct router *r, const struct api_request *q, struct ids *all,
                     bool *inside_reasoning, struct api_error *err)
{
    if (q->kind == API_CHAT) {
        const struct api_chat chat = {.tokenizer = r->tokenizer,
                                      .template_ = r->chat_template,
                                      .habits = r->habits,
                                      .reasoning = r->formats.reasoning,
                                      .inside_reasoning = inside_reasoning};
        return prompt_check_chat(r, q->messages, err) && api_chat_ids(&chat, q, &all[0], err);
    }
    for (size_t i = 0; i < q->n_prompts; i++) {
        const struct api_prompt *p = &q->prompts[i];
        unsigned flags = TOKENIZE_PARSE_SPECIAL | (q->add_special ? TOKENIZE_ADD_SPECIAL : 0);
        if (p->text) {
            if (!prompt_encode(r, (struct api_text_ref){p->text, p->len}, flags, &all[i], err))
                return false;
        } else if (!ids_append(&all[i], p->ids.v, p->ids.n)) {
            return api_fail(err, 500, "internal_error", NULL, "Out of memory.");
        }
    }
    return true;
}

static bool keep_echoes(struct answer *a, const struct api_request *q, const struct ids *all)
{
    if (!q->echo)
        return true;
    a->echoes = calloc(a->n_prompts, sizeof *a->echoes);
    if (!a->echoes)
        return false;
    for (size_t i = 0; i < a->n_prompts; i++) {
        const struct api_prompt *p = &q->prompts[i];
        if (p->text)
            buf_append(&a->echoes[i], p->text, p->len);
        else
            tokenizer_decode(a->r->tokenizer, all[i].v, all[i].n, q->skip_special, &a->echoes[i]);
        if (a->echoes[i].failed)
            return false;
    }
    for (size_t i = 0; i < a->n_slots && !a->head.stream; i++) {
        const struct buf *e = &a->echoes[i / (size_t)a->n];
        buf_append(&a->slots[i].text, e->data, e->len);
    }
    return true;
}

static struct answer *answer_create(struct router *r, struct http_request *q,
                                    const struct api_request *req, const struct ids *all)
{
    struct answer *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    r->answers++;
    a->r = r;
    a->q = q;
    a->n = req->n;
    a->usage_always = req->usage_always;
    a->n_prompts = req->kind == API_CHAT ? 1 : req->n_prompts;
    a->n_slots = a->n_prompts * (size_t)req->n;
    a->slots = calloc(a->n_slots, sizeof *a->slots);
    a->head = (struct api_answer){.kind = req->kind,
                                  .tokenizer = r->tokenizer,
                                  .created_s = clock_unix_ns() / NS_PER_S,
                                  .model = r->config->model.name,
                                  .logprobs = req->sampling.logprobs >= 0,
                                  .stream = req->stream,
                                  .include_usage = req->include_usage};
    snprintf(a->head.id, sizeof a->head.id, "%s-%016llx%016llx",
             req->kind == API_CHAT ? "chatcmpl" : "cmpl", (unsigned long long)rng_entropy(),
             (unsigned long long)rng_entropy());
    if (!a->slots || !keep_echoes(a, req, all)) {
        if (!a->slots)
            a->n_slots = 0;
        answer_free(a);
        return NULL;
    }
    return a;
}

static bool plan_output(struct answer *a, const struct api_request *req, bool inside_reasoning)
{
    if (!api_output_plan_init(&a->plan, req, a->r->formats, inside_reasoning))
        return false;
    for (size_t i = 0; i < a->n_slots && a->plan.parse; i++) {
        if (!api_output_init(&a->slots[i].output, &a->plan, &a->slots[i].text))
            return false;
    }
    return true;
}

static bool start_run(struct answer *a, const struct api_request *q, const struct ids *all,
                      const char *request_id, struct api_error *err)
{
    struct msg_ids *prompts = calloc(a->n_prompts, sizeof *prompts);
    for (size_t i = 0; prompts && i < a->n_prompts; i++)
        prompts[i] = (struct msg_ids){.v = all[i].v, .n = (uint32_t)all[i].n};
    const struct run_args args = {.router = a->r,
                                  .ops = &answer_ops,
                                  .owner = a,
                                  .request_id = request_id,
                                  .prompts = prompts,
                                  .n_prompts = a->n_prompts,
                                  .n = q->n,
                                  .has_seed = q->has_seed,
                                  .sampling = q->sampling,
                                  .cache_salt = q->cache_salt,
                                  .stops = q->stops,
                                  .n_stops = q->n_stops,
                                  .include_stop = q->include_stop,
                                  .skip_special = q->skip_special,
                                  .tell_special = a->plan.parse};
    struct error why = {0};
    enum status st =
        prompts ? run_start(&args, &a->run, &why) : err_set(&why, ST_NO_MEMORY, "Out of memory.");
    free(prompts);
    if (st != ST_OK)
        api_fail_status(err, st, why.text);
    if (err->code && strcmp(err->code, "context_length_exceeded") == 0)
        snprintf(err->param, sizeof err->param, "%s", q->kind == API_CHAT ? "messages" : "prompt");
    return st == ST_OK;
}

static bool prepare(struct router *r, struct http_request *q, const char *request_id,
                    const struct api_request *req, struct api_error *err)
{
    size_t n = req->kind == API_CHAT ? 1 : req->n_prompts;
    if (n * (size_t)req->n > CHOICES_MAX)
        return api_fail(err, 400, "invalid_value", "n",
                        "The request asks for %zu choices in all, at most %d are allowed.",
                        n * (size_t)req->n, CHOICES_MAX);
    struct ids *all = calloc(n, sizeof *all);
    struct answer *a = NULL;
    bool ok = all != NULL;
    if (!ok)
        api_fail(err, 500, "internal_error", NULL, "Out of memory.");
    bool inside = false;
    ok = ok && make_ids(r, req, all, &inside, err);
    if (ok) {
        a = answer_create(r, q, req, all);
        ok = (a && plan_output(a, req, inside)) ||
             api_fail(err, 500, "internal_error", NULL, "Out of memory.");
    }
    ok = ok && start_run(a, req, all, request_id, err);
    if (ok)
        http_set_user(q, a);
    else if (a)
        answer_free(a);
    for (size_t i = 0; all && i < n; i++)
        ids_fini(&all[i]);
    free(all);
    return ok;
}

void http_answer_start(struct router *r, struct http_request *q, const char *request_id,
                       enum api_kind kind)
{
    struct api_request req = {0};
    struct api_error err = {0};
    struct api_text_ref body;
    body.text = http_body(q, &body.len);
    bool ok =
        !r->drain_ns || api_fail(&err, 503, "unavailable", NULL, "The server is shutting down.");
    if (ok && api_parse(&req, kind, &r->rules, body, &err)) {
        ok = prompt_check_model(r, req.model, &err) && prepare(r, q, request_id, &req, &err);
        api_request_fini(&req);
    } else {
        ok = false;
    }
    if (!ok)
        http_api_fail(q, &err);
}
