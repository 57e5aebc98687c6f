/* A request for text, from its body to the beginning of its answer. What is small is read at once;
 * what is large, or has a grammar to compile or a template of its own, goes over the desk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/http_answer.h"

#define CHOICES_MAX 2048

struct reading {
    struct desk_job job; /* first */
    struct http_user user;
    struct router *r;
    struct http_request *q; /* the loop's alone */
    enum api_kind kind;
    int64_t arrived_ns;
    char id[MSG_REQUEST_ID_MAX];
    struct buf body; /* empty: it is with the HTTP request */
    bool parsed, ok;
    struct api_request req;
    struct ids *all;
    size_t n_prompts;
    enum output_place place;
    struct answer *answer;
    struct api_error err;
};

static struct http_order order_of(const struct reading *d)
{
    return (struct http_order){.r = d->r,
                               .req = &d->req,
                               .all = d->all,
                               .request_id = d->id,
                               .arrived_ns = d->arrived_ns,
                               .inside_reasoning = d->place == OUTPUT_WITHIN_REASONING};
}

/* ---- reading: from any thread ---- */

static bool no_memory(struct api_error *err)
{
    return api_fail(err, 500, "internal_error", NULL, "Out of memory.");
}

/* Prompts to ids; `all` has one array per prompt. */
static bool make_ids(struct router *r, const struct api_request *q, struct ids *all,
                     enum output_place *place, struct api_error *err)
{
    if (q->kind == API_CHAT) {
        const struct api_chat chat = {.tokenizer = r->tokenizer,
                                      .template_ = r->chat_template,
                                      .habits = r->habits,
                                      .tool_template = r->tool_template,
                                      .tool_habits = r->tool_habits,
                                      .reasoning = r->formats.reasoning,
                                      .place = place};
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

static bool parse(struct reading *d, struct api_text_ref body)
{
    if (!api_parse(&d->req, d->kind, &d->r->rules, body, &d->err))
        return false;
    d->parsed = true;
    d->n_prompts = d->kind == API_CHAT ? 1 : d->req.n_prompts;
    size_t choices = d->n_prompts * (size_t)d->req.n;
    if (choices > CHOICES_MAX)
        return api_fail(&d->err, 400, "invalid_value", "n",
                        "The request asks for %zu choices in all, at most %d are allowed.", choices,
                        CHOICES_MAX);
    return prompt_check_model(d->r, d->req.model, &d->err);
}

/* What is asked for, in ids, and an answer that is ready to be begun. */
static bool work_out(struct reading *d)
{
    const struct api_request *q = &d->req;
    if (!prompt_check_grammar(d->r, &q->sampling.grammar, q->grammar_param, d->n_prompts, &d->err))
        return false;
    d->all = calloc(d->n_prompts, sizeof *d->all);
    if (!d->all)
        return no_memory(&d->err);
    if (desk_is_left(&d->job) || !make_ids(d->r, q, d->all, &d->place, &d->err) ||
        desk_is_left(&d->job) || !check_scores(q, d->all, &d->err) ||
        !prompt_lead_grammar(d->r, &d->req, &d->place, &d->err))
        return false;
    const struct http_order order = order_of(d);
    d->answer = http_answer_create(&order);
    return d->answer || no_memory(&d->err);
}

/* Nothing but the body's length tells how long the rest takes. */
static bool is_plain(const struct reading *d)
{
    const struct msg_grammar *g = &d->req.sampling.grammar;
    return !d->req.chat_template && (g->kind == MSG_GRAMMAR_NONE || prompt_knows_grammar(d->r, g));
}

static void reading_work(struct desk_job *job)
{
    struct reading *d = (struct reading *)job;
    if (!d->parsed) {
        struct api_text_ref body = {d->body.data ? d->body.data : "", d->body.len};
        bool ok = parse(d, body);
        buf_fini(&d->body);
        if (!ok)
            return;
    }
    d->ok = !desk_is_left(job) && work_out(d);
}

static void reading_drop(struct desk_job *job)
{
    struct reading *d = (struct reading *)job;
    for (size_t i = 0; d->all && i < d->n_prompts; i++)
        ids_fini(&d->all[i]);
    free(d->all);
    http_answer_free(d->answer);
    api_request_fini(&d->req);
    buf_fini(&d->body);
    free(d);
}

/* ---- the loop's part ---- */

static void finish(struct reading *d)
{
    const struct http_order order = order_of(d);
    if (d->ok && http_answer_start(d->answer, d->q, &order, &d->err))
        d->answer = NULL;
    else
        http_api_fail(d->q, &d->err);
}

static void reading_done(struct desk_job *job, enum status status)
{
    struct reading *d = (struct reading *)job;
    struct api_error err = {0};
    d->r->answers--;
    http_set_user(d->q, NULL);
    if (status == ST_OK) {
        finish(d);
        return;
    }
    api_fail_status(&err, status, desk_says(status));
    http_api_fail(d->q, &err);
}

static void reading_event(struct http_user *user, enum http_event_kind kind)
{
    struct reading *d = list_entry(user, struct reading, user);
    if (kind != HTTP_EV_GONE)
        return;
    d->r->answers--;
    http_release(d->q);
    desk_leave(d->r->desk, &d->job);
}

/* False: it is not for the desk, or the desk is full. */
static bool put_on_desk(struct reading *d, size_t bytes)
{
    d->job.bytes = bytes;
    enum status st = desk_submit(d->r->desk, &d->job, d->r->now_ns);
    if (st == ST_OK) {
        d->r->answers++;
        http_set_user(d->q, &d->user);
        return true;
    }
    api_fail_status(&d->err, st, desk_says(st));
    return false;
}

/* True: it has gone to the desk. */
static bool begin(struct reading *d)
{
    struct api_text_ref body;
    body.text = http_body(d->q, &body.len);
    if (body.len >= DESK_BYTES_MIN) {
        http_take_body(d->q, &d->body);
        return put_on_desk(d, d->body.cap);
    }
    if (!parse(d, body))
        return false;
    if (!is_plain(d))
        return put_on_desk(d, body.len);
    d->ok = work_out(d);
    return false;
}

void http_generate(struct router *r, struct http_request *q, const char *request_id,
                   enum api_kind kind)
{
    struct reading *d = calloc(1, sizeof *d);
    struct api_error err = {0};
    if (r->drain_ns)
        api_fail(&err, 503, "unavailable", NULL, "The server is shutting down.");
    else if (!d)
        no_memory(&err);
    if (err.status) {
        http_api_fail(q, &err);
        free(d);
        return;
    }
    d->job.work = reading_work;
    d->job.done = reading_done;
    d->job.drop = reading_drop;
    d->user.event = reading_event;
    d->r = r;
    d->q = q;
    d->kind = kind;
    d->arrived_ns = r->now_ns;
    snprintf(d->id, sizeof d->id, "%s", request_id);
    if (begin(d))
        return;
    finish(d);
    reading_drop(&d->job);
}
