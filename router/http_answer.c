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

struct prompt {
    struct buf echo;
    struct api_tokens tokens; /* where they are scored */
};

struct answer {
    struct router *r;
    struct http_request *q;
    struct run *run; /* NULL: it has ended */
    struct api_answer head;
    struct slot *slots;
    size_t n_slots;
    struct prompt *prompts;
    size_t n_prompts;
    int32_t n;
    struct api_output_plan plan;
    struct buf out;
    bool begun, ended, broken, usage_always;
    bool echo, echo_scores, prompt_scores;
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
    for (size_t i = 0; a->prompts && i < a->n_prompts; i++) {
        buf_fini(&a->prompts[i].echo);
        api_tokens_fini(&a->prompts[i].tokens);
    }
    api_output_plan_fini(&a->plan);
    free(a->slots);
    free(a->prompts);
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
    const struct api_tokens *prompt = &a->prompts[index / a->n].tokens;
    struct api_choice_out c = {.index = index, .text_offset = s->offset, .stop_id = -1};
    if (!a->head.stream) {
        c.echo = a->echo_scores ? prompt : NULL;
        c.prompt = a->prompt_scores && a->head.kind == API_COMPLETION ? prompt : NULL;
    }
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
    for (size_t i = 0; i < a->n_slots && a->head.kind == API_CHAT; i++) {
        struct api_choice_out c = {.index = (int32_t)i, .role = true, .stop_id = -1};
        put_event(a, &c);
    }
}

/* Before a choice's first chunk, and behind the last score of its prompt: the echo. */
static void open_slot(struct answer *a, int32_t index)
{
    const struct prompt *p = &a->prompts[index / a->n];
    const struct api_tokens none = {0};
    struct slot *s = &a->slots[index];
    begin_stream(a);
    if (s->opened || !a->echo)
        return;
    s->opened = true;
    struct api_choice_out c = {.index = index, .stop_id = -1};
    c.text = (struct api_text_ref){p->echo.data ? p->echo.data : "", p->echo.len};
    c.echo = a->echo_scores ? &p->tokens : NULL;
    c.tokens = a->echo_scores ? &none : NULL;
    s->offset = api_count_characters(c.text.text, c.text.len);
    put_event(a, &c);
}

/* ---- from the run ---- */

static void on_scores(void *owner, size_t prompt, const struct msg_score *s, int32_t n)
{
    struct answer *a = owner;
    if (!api_tokens_score(&a->prompts[prompt].tokens, s, n))
        a->out.failed = true;
}

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
    open_slot(a, index);
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
    open_slot(a, index);
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

static const struct run_ops answer_ops = {on_scores, on_delta, on_finish, on_end};

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
                                      .tool_template = r->tool_template,
                                      .tool_habits = r->tool_habits,
                                      .reasoning = r->formats.reasoning,
                                      .inside_reasoning = inside_reasoning};
        return prompt_check_chat(r, q->messages, err) && api_chat_ids(&chat, q, &all[0], err);
    }
    size_t most = (size_t)router_max_context(r);
    for (size_t i = 0; i < q->n_prompts; i++) {
        const struct api_prompt *p = &q->prompts[i];
        /* The one before fits no context and is refused: those after it need no ids. */
        if (i > 0 && most > 0 && all[i - 1].n >= most)
            break;
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

static bool keep_echo(struct answer *a, const struct api_request *q, const struct ids *all,
                      size_t i)
{
    struct buf *echo = &a->prompts[i].echo;
    const struct api_prompt *p = &q->prompts[i];
    if (p->text)
        buf_append(echo, p->text, p->len);
    else
        tokenizer_decode(a->r->tokenizer, all[i].v, all[i].n, q->skip_special, echo);
    for (size_t k = 0; k < (size_t)a->n && !a->head.stream; k++)
        buf_append(&a->slots[i * (size_t)a->n + k].text, echo->data, echo->len);
    return !echo->failed;
}

/* What is said of the prompts themselves. */
static bool keep_prompts(struct answer *a, const struct api_request *q, const struct ids *all)
{
    a->echo = q->echo;
    a->echo_scores = q->echo && q->sampling.logprobs >= 0;
    a->prompt_scores = q->prompt_logprobs >= 0;
    a->head.prompt_top = q->prompt_logprobs;
    a->prompts = calloc(a->n_prompts, sizeof *a->prompts);
    if (!a->prompts)
        return false;
    for (size_t i = 0; i < a->n_prompts; i++) {
        if (q->echo && !keep_echo(a, q, all, i))
            return false;
        const struct msg_ids ids = {.v = all[i].v, .n = (uint32_t)all[i].n};
        if (api_score_top(q) >= 0 && !api_tokens_of_prompt(&a->prompts[i].tokens, ids))
            return false;
    }
    if (a->prompt_scores && q->kind == API_CHAT)
        a->head.chat_prompt = &a->prompts[0].tokens;
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
                                  .echo_top = req->sampling.logprobs,
                                  .stream = req->stream,
                                  .include_usage = req->include_usage};
    snprintf(a->head.id, sizeof a->head.id, "%s-%016llx%016llx",
             req->kind == API_CHAT ? "chatcmpl" : "cmpl", (unsigned long long)rng_entropy(),
             (unsigned long long)rng_entropy());
    if (!a->slots || !keep_prompts(a, req, all)) {
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
                                  .score = api_score_top(q) >= 0,
                                  .score_top = api_score_top(q),
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

/* An answer with scores of long prompts is many times as long as its request. */
static bool check_scores(const struct api_request *q, const struct ids *all, struct api_error *err)
{
    size_t n = q->kind == API_CHAT ? 1 : q->n_prompts, tokens = 0;
    for (size_t i = 0; i < n; i++)
        tokens += all[i].n;
    size_t scores = tokens * (size_t)q->n * (size_t)(api_score_top(q) + 1);
    return scores <= API_SCORES_MAX ||
           api_fail(err, 400, "invalid_value",
                    q->prompt_logprobs >= 0 ? "prompt_logprobs" : "logprobs",
                    "The request asks for %zu log probabilities of prompts, at most %d are "
                    "allowed.",
                    scores, API_SCORES_MAX);
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
    ok = ok && make_ids(r, req, all, &inside, err) && check_scores(req, all, err);
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
        ok = prompt_check_model(r, req.model, &err) &&
             prompt_check_grammar(r, &req.sampling.grammar, req.grammar_param,
                                  kind == API_CHAT ? 1 : req.n_prompts, &err) &&
             prepare(r, q, request_id, &req, &err);
        api_request_fini(&req);
    } else {
        ok = false;
    }
    if (!ok)
        http_api_fail(q, &err);
}
