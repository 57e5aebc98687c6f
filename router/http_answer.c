/* From the run to a whole answer or to server-sent events.
 *
 * Nothing of a stream is sent before its first token: until then a failure is a plain error with
 * its own status, and the nodes' names are not known. Afterwards a failure is an `error` event.
 * What cannot be sent at once waits in `out`, which the credit of the run bounds: tokens are
 * reported as consumed only when all bytes before them are with the kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/http_answer.h"

static void answer_over(struct answer *a)
{
    a->r->answers--;
    http_answer_free(a);
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
    answer_over(a);
    return true;
}

static struct api_choice_out choice_out(const struct answer *a, int32_t index)
{
    struct http_slot *s = &a->slots[index];
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
    struct http_slot *s = &a->slots[index];
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
    const struct http_prompt *p = &a->prompts[index / a->n];
    const struct api_tokens none = {0};
    struct http_slot *s = &a->slots[index];
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

static void put_text(struct answer *a, struct http_slot *s, struct api_text_ref text, bool token)
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
    struct http_slot *s = &a->slots[index];
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
    struct http_slot *s = &a->slots[index];
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
        answer_over(a);
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

const struct run_ops http_answer_ops = {on_scores, on_delta, on_finish, on_end};

/* ---- from the client ---- */

void http_answer_event(struct http_user *user, enum http_event_kind kind)
{
    struct answer *a = (struct answer *)user;
    if (kind == HTTP_EV_GONE) {
        if (a->run)
            run_abandon(a->run);
        http_release(a->q);
        answer_over(a);
    } else if (kind == HTTP_EV_SENT && !flush(a)) {
        if (!a->out.len && a->run && http_unsent(a->q) == 0)
            run_consumed(a->run);
    }
}
