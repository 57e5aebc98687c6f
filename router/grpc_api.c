/* The public gRPC API, baton.v1.Inference: Generate, Tokenize, Models.
 *
 * A call brings one message and gets its answer. What Generate cannot send at once (the call's
 * outbox is full) is kept per choice and merged; only what was taken counts as consumed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "router/grpc_reading.h"

enum { GENERATE, TOKENIZE, MODELS };
const char *const grpc_api_methods[GRPC_API_METHODS] = {[GENERATE] = "/baton.v1.Inference/Generate",
                                                        [TOKENIZE] = "/baton.v1.Inference/Tokenize",
                                                        [MODELS] = "/baton.v1.Inference/Models"};

struct slot {
    struct buf text;
    struct ids ids;
    struct api_tokens tokens;
    int32_t finish; /* 0: not yet, or said */
};

struct grpc_call {
    struct list link; /* router->grpc_calls */
    int64_t since_ns; /* when it last got on, where nothing of the core's runs for it */
    struct router *r;
    struct rpc_call *call;
    int method;
    struct grpc_reading *reading; /* NULL: its message is not on the desk */
    struct run *run;
    struct slot *slots;
    struct api_tokens prompt; /* scored, waiting to be sent from prompt_said on */
    size_t prompt_scored, prompt_said;
    int32_t n;
    bool logprobs, got, ended, finished;
    enum status status;
    char text[256];
    struct msg_usage usage;
};

static void finish(struct grpc_call *g, enum status status, const char *text)
{
    if (g->finished)
        return;
    rpc_call_finish(g->call, status, text);
    g->finished = true;
    g->since_ns = g->r->now_ns;
}

/* ---- sending ---- */

static bool slot_dirty(const struct slot *s)
{
    return s->text.len || s->ids.n || s->finish;
}

static enum status send_slot(struct grpc_call *g, int32_t i)
{
    struct slot *s = &g->slots[i];
    struct buf *out = &g->r->scratch;
    struct msg_token *tokens = g->logprobs ? calloc(s->tokens.n + 1, sizeof *tokens) : NULL;
    struct msg_generate_event ev = {
        .choice = i,
        .text = s->text.data ? s->text.data : "",
        .ids = {.v = s->ids.v, .n = (uint32_t)s->ids.n},
        .tokens = tokens,
        .n_tokens = tokens ? (uint32_t)s->tokens.n : 0,
        .finish_reason = s->finish,
    };
    for (size_t k = 0; tokens && k < s->tokens.n; k++) {
        const struct api_token *t = &s->tokens.v[k];
        tokens[k] = (struct msg_token){.choice = i,
                                       .position = t->position,
                                       .id = t->id,
                                       .logprob = t->logprob,
                                       .top = t->top,
                                       .n_top = t->n_top};
    }
    buf_clear(out);
    codec_put_generate_event(out, &ev);
    free(tokens);
    enum status st =
        out->failed ? ST_NO_MEMORY : rpc_call_send(g->call, (const uint8_t *)out->data, out->len);
    if (st != ST_OK)
        return st;
    buf_clear(&s->text);
    s->ids.n = 0;
    api_tokens_clear(&s->tokens);
    s->finish = 0;
    return ST_OK;
}

#define PROMPT_PIECE 64

static enum status send_prompt(struct grpc_call *g)
{
    struct msg_score piece[PROMPT_PIECE];
    struct buf *out = &g->r->scratch;
    while (g->prompt_said < g->prompt_scored) {
        struct msg_generate_event ev = {.text = "", .prompt = piece};
        for (; ev.n_prompt < PROMPT_PIECE && g->prompt_said + ev.n_prompt < g->prompt_scored;
             ev.n_prompt++) {
            const struct api_token *t = &g->prompt.v[g->prompt_said + ev.n_prompt];
            piece[ev.n_prompt] = (struct msg_score){.position = t->position,
                                                    .id = t->id,
                                                    .rank = t->rank,
                                                    .logprob = t->logprob,
                                                    .top = t->top,
                                                    .n_top = t->n_top};
        }
        buf_clear(out);
        codec_put_generate_event(out, &ev);
        enum status st = out->failed ? ST_NO_MEMORY
                                     : rpc_call_send(g->call, (const uint8_t *)out->data, out->len);
        if (st != ST_OK)
            return st;
        g->prompt_said += ev.n_prompt;
    }
    return ST_OK;
}

static void flush(struct grpc_call *g)
{
    enum status st = g->finished ? ST_OK : send_prompt(g);
    for (int32_t i = 0; i < g->n && st == ST_OK && !g->finished; i++) {
        if (slot_dirty(&g->slots[i]))
            st = send_slot(g, i);
    }
    if (st != ST_OK || g->finished)
        return; /* DRAINED or CLOSED follows */
    if (!g->ended) {
        if (g->run)
            run_consumed(g->run);
        return;
    }
    if (g->status == ST_OK) {
        buf_clear(&g->r->scratch);
        codec_put_generate_event(
            &g->r->scratch,
            &(struct msg_generate_event){.text = "", .has_usage = true, .usage = g->usage});
        st = rpc_call_send(g->call, (const uint8_t *)g->r->scratch.data, g->r->scratch.len);
        if (st == ST_BUSY)
            return;
    }
    finish(g, g->status, g->text);
}

/* ---- from the run ---- */

static void on_scores(void *owner, size_t prompt, const struct msg_score *s, int32_t n)
{
    struct grpc_call *g = owner;
    if (!api_tokens_score(&g->prompt, s, n)) {
        run_cancel(g->run, ST_NO_MEMORY, "Out of memory.");
        return;
    }
    g->prompt_scored = (size_t)s[n - 1].position + 1;
    flush(g);
}

static void on_delta(void *owner, int32_t index, struct api_text_ref text,
                     const struct msg_token *t)
{
    struct grpc_call *g = owner;
    struct slot *s = &g->slots[index];
    bool ok = true;
    buf_append(&s->text, text.text, text.len);
    if (t) {
        ok = ids_push(&s->ids, t->id);
        if (g->logprobs)
            ok = api_tokens_push(&s->tokens, t) && ok;
    }
    if (!ok || s->text.failed)
        run_cancel(g->run, ST_NO_MEMORY, "Out of memory.");
    flush(g);
}

static void on_finish(void *owner, int32_t index, const struct run_finish *f)
{
    struct grpc_call *g = owner;
    g->slots[index].finish = (int32_t)f->reason;
    flush(g);
}

static void on_end(void *owner, enum status status, const char *text, const struct msg_usage *usage)
{
    struct grpc_call *g = owner;
    g->run = NULL;
    g->ended = true;
    g->since_ns = g->r->now_ns;
    g->status = status;
    g->usage = *usage;
    snprintf(g->text, sizeof g->text, "%s", text);
    flush(g);
}

static const struct run_ops grpc_ops = {on_scores, on_delta, on_finish, on_end};

/* ---- Generate ---- */

static enum status run_generate(struct grpc_call *g, struct grpc_reading *d)
{
    const struct msg_generate *m = &d->m;
    const struct ids *ids = &d->ids;
    struct error *err = &d->err;
    struct router *r = g->r;
    struct api_text_ref *stops = calloc(m->n_stop + 1, sizeof *stops);
    g->slots = calloc((size_t)m->n, sizeof *g->slots);
    if (!stops || !g->slots) {
        free(stops);
        return err_set(err, ST_NO_MEMORY, "Out of memory.");
    }
    for (uint32_t i = 0; i < m->n_stop; i++)
        stops[i] = (struct api_text_ref){m->stop[i], strlen(m->stop[i])};
    g->n = m->n;
    g->logprobs = m->sampling.logprobs >= 0;
    struct msg_ids prompt = {.v = ids->v, .n = (uint32_t)ids->n};
    char id[MSG_REQUEST_ID_MAX];
    router_choose_id(m->request_id, id);
    if (m->has_prompt_logprobs && !api_tokens_of_prompt(&g->prompt, prompt)) {
        free(stops);
        return err_set(err, ST_NO_MEMORY, "Out of memory.");
    }
    g->prompt_said = 1; /* the first token has no score */
    const struct run_args args = {.router = r,
                                  .ops = &grpc_ops,
                                  .owner = g,
                                  .request_id = id,
                                  .arrived_ns = d->arrived_ns,
                                  .prompts = &prompt,
                                  .n_prompts = 1,
                                  .n = m->n,
                                  .has_seed = m->has_seed,
                                  .sampling = m->sampling,
                                  .score = m->has_prompt_logprobs,
                                  .score_top = m->prompt_logprobs,
                                  .cache_salt = m->cache_salt,
                                  .stops = stops,
                                  .n_stops = m->n_stop,
                                  .skip_special = true};
    enum status st = run_start(&args, &g->run, err);
    free(stops);
    return st;
}

/* ---- Tokenize, Models ---- */

static enum status answer_buf(struct grpc_call *g, const struct buf *out)
{
    return out->failed ? ST_NO_MEMORY
                       : rpc_call_send(g->call, (const uint8_t *)out->data, out->len);
}

static enum status answer_models(struct grpc_call *g)
{
    const char *const names[] = {g->r->config->model.name};
    buf_clear(&g->r->scratch);
    codec_put_models(&g->r->scratch, names, 1, router_max_context(g->r));
    return answer_buf(g, &g->r->scratch);
}

/* ---- from the message ---- */

static void on_read(struct grpc_call *g, struct grpc_reading *d)
{
    enum status st = d->status;
    if (st == ST_OK)
        st = d->generate ? run_generate(g, d) : answer_buf(g, &d->out);
    if (st != ST_OK || !d->generate)
        finish(g, st, d->err.text);
}

static void on_desk_done(struct desk_job *job, enum status status)
{
    struct grpc_reading *d = (struct grpc_reading *)job;
    struct grpc_call *g = d->call;
    g->reading = NULL;
    if (status == ST_OK)
        on_read(g, d);
    else
        finish(g, status, desk_says(status));
}

static void read_message(struct grpc_call *g, const uint8_t *data, size_t len)
{
    struct grpc_reading *d = grpc_reading_create(g->r, g->method == GENERATE);
    if (!d) {
        finish(g, ST_NO_MEMORY, "Out of memory.");
        return;
    }
    d->call = g;
    d->job.done = on_desk_done;
    if (grpc_reading_begin(d, data, len)) {
        on_read(g, d);
        d->job.drop(&d->job);
        return;
    }
    enum status st = desk_submit(g->r->desk, &d->job, g->r->now_ns);
    if (st == ST_OK) {
        g->reading = d;
        return;
    }
    finish(g, st, desk_says(st));
    d->job.drop(&d->job);
}

static void on_message(struct grpc_call *g, const uint8_t *data, size_t len)
{
    if (g->got)
        return;
    g->got = true;
    if (g->method == MODELS)
        finish(g, answer_models(g), "");
    else if (g->method == GENERATE && g->r->drain_ns)
        finish(g, ST_LINK, "The server is shutting down.");
    else
        read_message(g, data, len);
}

/* ---- life of a call ---- */

static void open_call(struct router *r, const struct rpc_event *ev)
{
    struct grpc_call *g = calloc(1, sizeof *g);
    if (!g) {
        rpc_call_finish(ev->call, ST_NO_MEMORY, "Out of memory.");
        return;
    }
    *g = (struct grpc_call){.r = r, .call = ev->call, .method = ev->method, .since_ns = r->now_ns};
    list_push_back(&r->grpc_calls, &g->link);
    r->answers++;
    rpc_call_set_user(ev->call, g);
    struct api_error why = {0};
    if (!keys_check(r, rpc_call_authorization(ev->call), NULL, &why))
        finish(g, ST_DENIED, why.message);
}

static void close_call(struct grpc_call *g)
{
    if (g->reading)
        desk_leave(g->r->desk, &g->reading->job);
    if (g->run)
        run_abandon(g->run);
    for (int32_t i = 0; i < g->n; i++) {
        buf_fini(&g->slots[i].text);
        ids_fini(&g->slots[i].ids);
        api_tokens_fini(&g->slots[i].tokens);
    }
    list_remove(&g->link);
    g->r->answers--;
    api_tokens_fini(&g->prompt);
    free(g->slots);
    free(g);
}

void grpc_api_event(struct router *r, const struct rpc_event *ev)
{
    struct grpc_call *g = ev->user;
    switch (ev->kind) {
    case RPC_EV_OPEN:
        open_call(r, ev);
        break;
    case RPC_EV_MESSAGE:
        if (g && !g->finished)
            on_message(g, ev->data, ev->len);
        break;
    case RPC_EV_HALF_CLOSED:
        if (g && !g->got)
            finish(g, ST_INVALID, "The call brought no message.");
        break;
    case RPC_EV_DRAINED:
        if (g) {
            g->since_ns = r->now_ns;
            flush(g);
        }
        break;
    case RPC_EV_CLOSED:
        if (g)
            close_call(g);
        rpc_call_release(ev->call);
        break;
    }
}

/* A client that never says what it wants, or does not read the end of what it asked for, holds its
 * call no longer than one that does not read in between (which the core sees to). */
void grpc_api_watch(struct router *r)
{
    if (r->now_ns < r->grpc_watch_ns)
        return;
    r->grpc_watch_ns = r->now_ns + NS_PER_S;
    list_for_each(it, &r->grpc_calls)
    {
        struct grpc_call *g = list_entry(it, struct grpc_call, link);
        if (r->drain_ns && !g->got)
            finish(g, ST_LINK, "The server is shutting down.");
        if (r->now_ns - g->since_ns <= r->config->timeouts.stall_ns)
            continue;
        if (g->ended || g->finished)
            rpc_call_cancel(g->call);
        else if (!g->got)
            finish(g, ST_DEADLINE, "The call brought no message in time.");
    }
}
