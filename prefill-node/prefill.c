#include "prefill-node/prefill.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum call_state {
    CALL_OPENED,
    CALL_COMPUTING,
    CALL_DELIVERING,
    CALL_DONE,
    CALL_CLOSING,
    CALL_STATES
};

static const char *const state_names[CALL_STATES] = {"opened", "computing", "delivering", "done",
                                                     "closing"};
#define BIT(s) (1u << (s))
static const unsigned allowed[CALL_STATES] = {
    [CALL_OPENED] = BIT(CALL_COMPUTING) | BIT(CALL_CLOSING),
    [CALL_COMPUTING] = BIT(CALL_DELIVERING) | BIT(CALL_CLOSING),
    [CALL_DELIVERING] = BIT(CALL_DONE) | BIT(CALL_CLOSING),
    [CALL_DONE] = BIT(CALL_CLOSING),
    [CALL_CLOSING] = 0,
};

struct said {
    struct msg_token token;
    struct msg_logprob top[MSG_LOGPROBS_MAX];
};

struct call {
    enum call_state state;
    slot_id id;
    void *rpc; /* NULL once the call is closed */
    group_id group;
    bool has_group;    /* holds blocks */
    bool has_offering; /* the mover knows it: its QUIET has not come */
    bool closed_offering, computed, quarantined;
    bool delivered; /* the mover has nothing left to read */
    int64_t at_ns[CALL_STATES];
    int64_t first_step_ns, deadline_ns;
    char request_id[MSG_REQUEST_ID_MAX + 1];
    int32_t total_tokens, cached_tokens;
    int32_t n, n_first;
    struct said *first; /* [n] */
    enum status failure;
    const char *failure_text;
    bool finish_sent;
};

/* What a step computes: whose layers to offer as they are done. */
struct chunk {
    slot_id call;
    int32_t end;
};

struct role {
    struct node_role_args args;
    struct engine *engine;
    struct slots *calls;
    struct chunk *chunks; /* [max_calls] of the running step */
    int32_t n_chunks;
    struct buf out;
    int64_t now_ns;
    bool draining;
    struct metric *m_transfer, *m_exposed, *m_quiet;
};

static void call_move(struct role *r, struct call *c, enum call_state to)
{
    assert(allowed[c->state] & BIT(to));
    log_debug("prefill_call", "request=%s from=%s to=%s", c->request_id, state_names[c->state],
              state_names[to]);
    c->state = to;
    c->at_ns[to] = r->now_ns;
}

static enum status prefill_create(const struct node_role_args *args, struct role **out,
                                  struct error *err)
{
    struct role *r = calloc(1, sizeof(*r));
    if (r) {
        r->calls = slots_create((size_t)args->max_calls, sizeof(struct call));
        /* A call may have a cached part and a fresh one in one step. */
        r->chunks = calloc(2 * (size_t)args->max_calls, sizeof(*r->chunks));
    }
    if (!r || !r->calls || !r->chunks) {
        if (r) {
            if (r->calls)
                slots_destroy(r->calls);
            free(r->chunks);
        }
        free(r);
        return err_set(err, ST_NO_MEMORY, "no memory for %d calls", args->max_calls);
    }
    r->args = *args;
    if (args->metrics) {
        r->m_transfer = metrics_histogram(
            args->metrics, "baton_kv_transfer_seconds", "",
            "From the first offer of a prompt's KV to its being complete on the decode node.",
            metrics_latency_bounds, metrics_latency_bounds_n);
        r->m_quiet = metrics_histogram(args->metrics, "baton_cancel_to_quiet_seconds", "",
                                       "From a call's being cancelled to all it held being free.",
                                       metrics_latency_bounds, metrics_latency_bounds_n);
        r->m_exposed =
            metrics_histogram(args->metrics, "baton_kv_transfer_exposed_seconds", "",
                              "The part of the KV transfer that no compute hid: from the end of "
                              "prefill to the KV being complete.",
                              metrics_latency_bounds, metrics_latency_bounds_n);
    }
    *out = r;
    return ST_OK;
}

static void call_fini(struct role *r, struct call *c)
{
    bool cancelled = c->state == CALL_CLOSING && !c->finish_sent;
    if (r->m_quiet && cancelled)
        metric_observe(r->m_quiet, (double)(r->now_ns - c->at_ns[CALL_CLOSING]) / 1e9);
    free(c->first);
    slots_free(r->calls, c->id);
}

/* Gives back all that the call holds; blocks that the mover may still read stay quarantined until
 * QUIET. */
static void call_release(struct role *r, struct call *c)
{
    if (c->has_offering && !c->closed_offering)
        r->args.effects.offer_close(r->args.effects.ctx, c->id);
    c->closed_offering = true;
    if (c->has_group) {
        c->quarantined = c->has_offering && !c->delivered;
        engine_release(r->engine, c->group, c->computed, !c->quarantined);
    }
    c->has_group = false;
}

static void prefill_destroy(struct role *r)
{
    for (slot_id id = slots_next(r->calls, 0); id; id = slots_next(r->calls, id))
        free(((struct call *)slots_get(r->calls, id))->first);
    slots_destroy(r->calls);
    buf_fini(&r->out);
    free(r->chunks);
    free(r);
}

static void *user_of(struct call *c)
{
    return (void *)(uintptr_t)c->id;
}

static struct call *call_of(struct role *r, void *user)
{
    return slots_get(r->calls, (slot_id)(uintptr_t)user);
}

static void fail_call(struct call *c, enum status status, const char *text)
{
    if (c->failure != ST_OK)
        return;
    c->failure = status;
    c->failure_text = text;
}

/* ---- what the engine says ---- */

static void on_token(void *ctx, void *user, const struct msg_token *t)
{
    struct call *c = call_of(ctx, user);
    if (!c || c->n_first >= c->n)
        return;
    struct said *s = &c->first[c->n_first++];
    s->token = *t;
    assert(t->n_top <= MSG_LOGPROBS_MAX);
    if (t->n_top > 0)
        memcpy(s->top, t->top, t->n_top * sizeof(*t->top));
}

static void on_finish(void *ctx, void *user, const struct msg_finish *f)
{
}

static void on_failed(void *ctx, void *user, enum status status, const char *why)
{
    struct call *c = call_of(ctx, user);
    if (c)
        fail_call(c, status, why);
}

static void on_chunk(void *ctx, void *user, int32_t begin, int32_t end)
{
    struct role *r = ctx;
    struct call *c = call_of(r, user);
    if (!c)
        return;
    if (!c->first_step_ns)
        c->first_step_ns = r->now_ns;
    assert(r->n_chunks < 2 * r->args.max_calls);
    r->chunks[r->n_chunks++] = (struct chunk){.call = c->id, .end = end};
}

static void on_layer_done(void *ctx, int32_t layer)
{
    struct role *r = ctx;
    for (int32_t i = 0; i < r->n_chunks; i++)
        r->args.effects.offer_layer(r->args.effects.ctx, r->chunks[i].call, layer,
                                    r->chunks[i].end);
}

static struct engine_events prefill_engine_events(struct role *r)
{
    return (struct engine_events){.token = on_token,
                                  .finish = on_finish,
                                  .failed = on_failed,
                                  .chunk = on_chunk,
                                  .layer_done = on_layer_done,
                                  .ctx = r};
}

static void prefill_set_engine(struct role *r, struct engine *e)
{
    r->engine = e;
}

/* ---- what the router says ---- */

static void *prefill_on_open(struct role *r, void *rpc, int64_t now_ns, int64_t deadline_ns)
{
    slot_id id;
    r->now_ns = now_ns;
    struct call *c = slots_alloc(r->calls, &id);
    if (!c)
        return NULL;
    c->id = id;
    c->rpc = rpc;
    c->state = CALL_OPENED;
    c->at_ns[CALL_OPENED] = now_ns;
    c->deadline_ns = deadline_ns;
    return user_of(c);
}

static enum status check_run(const struct role *r, const struct msg_prefill *m, struct error *err)
{
    if (r->draining)
        return err_set(err, ST_BUSY, "this node is draining");
    if (memcmp(m->fingerprint, r->args.fingerprint, sizeof(m->fingerprint)) != 0)
        return err_set(err, ST_INCOMPATIBLE, "the request is for another model");
    if (m->prompt.n < 1 || (int64_t)m->prompt.n >= r->args.max_context)
        return err_set(err, ST_INVALID, "%u prompt tokens, context %d", m->prompt.n,
                       r->args.max_context);
    if (m->n < 1 || m->n > MSG_CHOICES_MAX || m->n_ranks < 1)
        return err_set(err, ST_INVALID, "n is %d, %u ranks", m->n, m->n_ranks);
    if (m->have_tokens < 0 || m->have_tokens >= (int32_t)m->prompt.n || m->prompt_tokens < 1 ||
        m->prompt_tokens > (int32_t)m->prompt.n)
        return err_set(err, ST_INVALID, "%d of %u tokens are there, %d are the prompt",
                       m->have_tokens, m->prompt.n, m->prompt_tokens);
    return ST_OK;
}

static enum status open_offering(struct role *r, struct call *c, const struct msg_prefill *m,
                                 struct error *err)
{
    struct mover_send send = {.user = c->id,
                              .ticket = m->ticket,
                              .token_begin = m->have_tokens,
                              .token_end = (int32_t)m->prompt.n,
                              .ranks = m->ranks,
                              .n_ranks = (int32_t)m->n_ranks,
                              .deadline_ns = c->deadline_ns};
    send.blocks = engine_begin_fill(r->engine, c->group, &send.n_blocks);
    enum status st = r->args.effects.offer_open(r->args.effects.ctx, &send);
    if (st != ST_OK)
        return err_set(err, st, "the handoff cannot begin: %s", status_name(st));
    c->has_offering = true;
    engine_fill_here(r->engine, c->group);
    return ST_OK;
}

static void on_run(struct role *r, struct call *c, const struct msg_prefill *m)
{
    struct error err = {0};
    strncpy(c->request_id, m->request_id ? m->request_id : "", MSG_REQUEST_ID_MAX);
    enum status st = check_run(r, m, &err);
    if (st == ST_OK) {
        c->n = m->n;
        c->first = calloc((size_t)m->n, sizeof(*c->first));
        if (!c->first)
            st = err_set(&err, ST_NO_MEMORY, "no memory for %d choices", m->n);
    }
    if (st == ST_OK) {
        struct engine_request req = {.prompt = m->prompt,
                                     .n = m->n,
                                     .sampling = m->sampling,
                                     .cache_salt = m->cache_salt ? m->cache_salt : "",
                                     .credits = m->n,
                                     .prefill_only = true,
                                     .want_first = m->want_first,
                                     .history_prompt = m->prompt_tokens,
                                     .user = user_of(c)};
        st = engine_reserve(r->engine, &req, &c->group, &c->cached_tokens, &err);
        c->has_group = st == ST_OK;
    }
    if (m->deadline_ms > 0 && m->deadline_ms < (c->deadline_ns - r->now_ns) / NS_PER_MS)
        c->deadline_ns = r->now_ns + m->deadline_ms * NS_PER_MS;
    c->total_tokens = (int32_t)m->prompt.n;
    if (st == ST_OK)
        st = open_offering(r, c, m, &err);
    if (st == ST_OK) {
        call_move(r, c, CALL_COMPUTING);
        return;
    }
    call_release(r, c);
    c->finish_sent = true;
    r->args.effects.finish(r->args.effects.ctx, c->rpc, st, err.text);
}

static void prefill_on_message(struct role *r, void *handle, const uint8_t *data, size_t len,
                               int64_t now_ns)
{
    struct call *c = call_of(r, handle);
    r->now_ns = now_ns;
    if (!c || !c->rpc || c->finish_sent)
        return;
    struct codec_arena arena = {0};
    struct msg_prefill m;
    if (c->state != CALL_OPENED)
        fail_call(c, ST_PROTOCOL, "a second message");
    else if (codec_get_prefill(data, len, &arena, &m) != ST_OK)
        fail_call(c, ST_PROTOCOL, "malformed message");
    else
        on_run(r, c, &m);
    codec_arena_fini(&arena);
}

static void prefill_on_drained(struct role *r, void *handle)
{
}

static void prefill_on_closed(struct role *r, void *handle, int64_t now_ns)
{
    struct call *c = call_of(r, handle);
    r->now_ns = now_ns;
    if (!c)
        return;
    c->rpc = NULL;
    call_release(r, c);
    call_move(r, c, CALL_CLOSING);
    if (!c->has_offering)
        call_fini(r, c);
}

/* ---- what the mover says ---- */

static void prefill_on_mover(struct role *r, const struct mover_event *ev, int64_t now_ns)
{
    struct call *c = slots_get(r->calls, ev->user);
    r->now_ns = now_ns;
    if (!c)
        return;
    switch (ev->kind) {
    case MOVER_DELIVERED:
        if (c->state != CALL_DELIVERING || c->finish_sent)
            break;
        if (r->m_transfer) {
            metric_observe(r->m_transfer, (double)ev->transfer_ns / 1e9);
            metric_observe(r->m_exposed, (double)ev->exposed_ns / 1e9);
        }
        call_move(r, c, CALL_DONE);
        c->delivered = true;
        c->finish_sent = true;
        call_release(r, c);
        r->args.effects.finish(r->args.effects.ctx, c->rpc, ST_OK, "");
        break;
    case MOVER_FAILED:
        fail_call(c, ev->status == ST_DEADLINE ? ST_DEADLINE : ST_TRANSFER,
                  "the KV could not be handed over");
        break;
    case MOVER_QUIET:
        c->has_offering = false;
        if (c->quarantined)
            engine_quiet(r->engine, c->group);
        c->quarantined = false;
        if (c->state == CALL_CLOSING)
            call_fini(r, c);
        break;
    case MOVER_LANDED:
        break;
    }
}

/* ---- what we say ---- */

static void say_first(struct role *r, struct call *c)
{
    struct msg_token *tokens = calloc((size_t)c->n_first + 1, sizeof(*tokens));
    struct msg_prefill_event ev = {
        .first = tokens, .n_first = (uint32_t)c->n_first, .cached_tokens = c->cached_tokens};
    if (!tokens) {
        fail_call(c, ST_NO_MEMORY, "no memory for tokens");
        return;
    }
    for (int32_t i = 0; i < c->n_first; i++) {
        tokens[i] = c->first[i].token;
        tokens[i].top = c->first[i].top;
    }
    ev.queue_us = (c->first_step_ns - c->at_ns[CALL_COMPUTING]) / NS_PER_US;
    ev.compute_us = (r->now_ns - c->first_step_ns) / NS_PER_US;
    buf_clear(&r->out);
    codec_put_prefill_event(&r->out, &ev);
    if (r->out.failed || r->args.effects.send(r->args.effects.ctx, c->rpc, &r->out) != ST_OK)
        fail_call(c, ST_BUSY, "the router does not read its events");
    r->args.effects.offer_fill(r->args.effects.ctx, c->id, tokens, (uint32_t)c->n_first);
    free(tokens);
}

static void prefill_flush(struct role *r, int64_t now_ns)
{
    r->now_ns = now_ns;
    for (int32_t i = 0; i < r->n_chunks; i++) {
        struct call *c = slots_get(r->calls, r->chunks[i].call);
        if (!c || c->state != CALL_COMPUTING || r->chunks[i].end < c->total_tokens)
            continue;
        c->computed = true;
        if (!c->rpc || c->finish_sent || c->failure != ST_OK)
            continue;
        call_move(r, c, CALL_DELIVERING);
        say_first(r, c);
    }
    r->n_chunks = 0;
    for (slot_id id = slots_next(r->calls, 0); id; id = slots_next(r->calls, id)) {
        struct call *c = slots_get(r->calls, id);
        if (!c->rpc || c->finish_sent)
            continue;
        if (now_ns >= c->deadline_ns)
            fail_call(c, ST_DEADLINE, "the request's time is up");
        else if (c->state == CALL_OPENED && now_ns - c->at_ns[CALL_OPENED] >= NODE_OPEN_NS)
            fail_call(c, ST_DEADLINE, "no request came");
        if (c->failure == ST_OK)
            continue;
        c->finish_sent = true;
        call_release(r, c);
        r->args.effects.finish(r->args.effects.ctx, c->rpc, c->failure, c->failure_text);
    }
}

static void prefill_drain(struct role *r, bool final)
{
    r->draining = true;
    for (slot_id id = slots_next(r->calls, 0); final && id; id = slots_next(r->calls, id))
        fail_call(slots_get(r->calls, id), ST_PREEMPTED, "the node is shutting down");
}

static void prefill_load(const struct role *r, struct node_role_load *out)
{
    out->calls = (int32_t)slots_count(r->calls);
}

const struct node_role_ops prefill_role_ops = {
    .name = "prefill",
    .method = "/baton.v1.Prefill/Run",
    .create = prefill_create,
    .destroy = prefill_destroy,
    .engine_events = prefill_engine_events,
    .set_engine = prefill_set_engine,
    .on_open = prefill_on_open,
    .on_message = prefill_on_message,
    .on_drained = prefill_on_drained,
    .on_closed = prefill_on_closed,
    .on_mover = prefill_on_mover,
    .flush = prefill_flush,
    .drain = prefill_drain,
    .load = prefill_load,
};
