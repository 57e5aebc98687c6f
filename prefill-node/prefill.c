#include "prefill-node/prefill.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/role_call.h"
#include "node/scores.h"

enum call_state {
    CALL_OPENED,
    CALL_COMPILING,
    CALL_COMPUTING,
    CALL_DELIVERING,
    CALL_DONE,
    CALL_CLOSING,
    CALL_STATES
};

static const char *const state_names[CALL_STATES] = {"opened",     "compiling", "computing",
                                                     "delivering", "done",      "closing"};
#define BIT(s) (1u << (s))
static const unsigned allowed[CALL_STATES] = {
    [CALL_OPENED] = BIT(CALL_COMPILING) | BIT(CALL_COMPUTING) | BIT(CALL_CLOSING),
    [CALL_COMPILING] = BIT(CALL_COMPUTING) | BIT(CALL_CLOSING),
    [CALL_COMPUTING] = BIT(CALL_DELIVERING) | BIT(CALL_CLOSING),
    [CALL_DELIVERING] = BIT(CALL_DONE) | BIT(CALL_CLOSING),
    [CALL_DONE] = BIT(CALL_CLOSING),
    [CALL_CLOSING] = 0,
};

struct call {
    struct role_call base;
    enum call_state state;
    group_id group;
    bool has_group;    /* holds blocks */
    bool has_offering; /* the mover knows it: its QUIET has not come */
    bool closed_offering, computed, quarantined;
    bool delivered; /* the mover has nothing left to read */
    int64_t at_ns[CALL_STATES];
    int64_t first_step_ns;
    int32_t total_tokens, cached_tokens;
    int32_t n, n_first;
    struct said *first; /* [n] */
    struct node_scores scores;
    struct msg_prefill run; /* while it is compiling */
    struct codec_arena kept;
};

/* What a step computes: whose layers to offer as they are done. */
struct chunk {
    slot_id call;
    int32_t end;
};

struct role {
    struct role_base base;
    struct chunk *chunks; /* of the running step */
    int32_t n_chunks;
    struct metric *m_transfer, *m_exposed;
};

static void call_move(struct role *r, struct call *c, enum call_state to)
{
    assert(allowed[c->state] & BIT(to));
    log_debug("prefill_call", "request=%s from=%s to=%s", c->base.request_id, state_names[c->state],
              state_names[to]);
    c->state = to;
    c->at_ns[to] = r->base.now_ns;
}

static void call_free_memory(struct call *c)
{
    free(c->first);
    node_scores_fini(&c->scores);
    codec_arena_fini(&c->kept);
}

static void prefill_destroy(struct role *r)
{
    struct slots *calls = r->base.calls;
    for (slot_id id = calls ? slots_next(calls, 0) : 0; id; id = slots_next(calls, id))
        call_free_memory(slots_get(calls, id));
    role_base_fini(&r->base);
    free(r->chunks);
    free(r);
}

static void call_fini(struct role *r, struct call *c)
{
    role_observe_quiet(&r->base, &c->base, c->at_ns[CALL_CLOSING]);
    call_free_memory(c);
    slots_free(r->base.calls, c->base.id);
}

/* Gives back all that the call holds; blocks that the mover may still read stay quarantined until
 * QUIET. */
static void call_release(struct role *r, struct call *c)
{
    role_compile_leave(&c->base);
    codec_arena_fini(&c->kept);
    if (c->has_offering && !c->closed_offering)
        r->base.args.effects.offer_close(r->base.args.effects.ctx, c->base.id);
    c->closed_offering = true;
    if (c->has_group) {
        c->quarantined = c->has_offering && !c->delivered;
        engine_release(r->base.engine, c->group, c->computed, !c->quarantined);
    }
    c->has_group = false;
}

static struct call *call_of(struct role *r, void *user)
{
    return role_call_of(&r->base, user);
}

/* ---- what the engine says ---- */

static void on_token(void *ctx, void *user, const struct msg_token *t)
{
    struct call *c = call_of(ctx, user);
    if (!c || c->n_first >= c->n)
        return;
    said_set(&c->first[c->n_first++], t);
}

static void on_score(void *ctx, void *user, const struct msg_score *s)
{
    struct call *c = call_of(ctx, user);
    if (c && !node_scores_push(&c->scores, s))
        role_fail(&c->base, ST_NO_MEMORY, "no memory for scores");
}

static void on_finish(void *ctx, void *user, const struct msg_finish *f)
{
}

static void on_chunk(void *ctx, void *user, int32_t begin, int32_t end)
{
    struct role *r = ctx;
    struct call *c = call_of(r, user);
    if (!c)
        return;
    if (!c->first_step_ns)
        c->first_step_ns = r->base.now_ns;
    assert(r->n_chunks < 2 * r->base.args.max_calls);
    r->chunks[r->n_chunks++] = (struct chunk){.call = c->base.id, .end = end};
}

static void on_layer_done(void *ctx, int32_t layer)
{
    struct role *r = ctx;
    for (int32_t i = 0; i < r->n_chunks; i++)
        r->base.args.effects.offer_layer(r->base.args.effects.ctx, r->chunks[i].call, layer,
                                         r->chunks[i].end);
}

static struct engine_events prefill_engine_events(struct role *r)
{
    return (struct engine_events){.token = on_token,
                                  .score = on_score,
                                  .finish = on_finish,
                                  .failed = role_on_failed,
                                  .chunk = on_chunk,
                                  .layer_done = on_layer_done,
                                  .ctx = r};
}

/* ---- what the router says ---- */

static enum status check_run(const struct role *r, const struct msg_prefill *m, struct error *err)
{
    if (r->base.draining)
        return err_set(err, ST_BUSY, "this node is draining");
    if (memcmp(m->fingerprint, r->base.args.fingerprint, sizeof(m->fingerprint)) != 0)
        return err_set(err, ST_INCOMPATIBLE, "the request is for another model");
    if (m->prompt.n < 1 || (int64_t)m->prompt.n >= r->base.args.max_context)
        return err_set(err, ST_INVALID, "%u prompt tokens, context %d", m->prompt.n,
                       r->base.args.max_context);
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
    struct mover_send send = {.user = c->base.id,
                              .ticket = m->ticket,
                              .token_begin = m->have_tokens,
                              .token_end = (int32_t)m->prompt.n,
                              .ranks = m->ranks,
                              .n_ranks = (int32_t)m->n_ranks,
                              .deadline_ns = c->base.deadline_ns};
    send.blocks = engine_begin_fill(r->base.engine, c->group, &send.n_blocks);
    send.stride = engine_table_stride(r->base.engine, c->group);
    enum status st = r->base.args.effects.offer_open(r->base.args.effects.ctx, &send);
    if (st != ST_OK)
        return err_set(err, st, "the handoff cannot begin: %s", status_name(st));
    c->has_offering = true;
    engine_fill_here(r->base.engine, c->group);
    return ST_OK;
}

static struct engine_request request_of(const struct call *c, const struct msg_prefill *m)
{
    return (struct engine_request){.prompt = m->prompt,
                                   .n = m->n,
                                   .sampling = m->sampling,
                                   .cache_salt = m->cache_salt ? m->cache_salt : "",
                                   .credits = m->n,
                                   .prefill_only = true,
                                   .want_first = m->want_first,
                                   .history_prompt = m->prompt_tokens,
                                   .scoring = m->scoring,
                                   .user = role_user_of(&c->base)};
}

static void refuse(struct role *r, struct call *c, const struct error *why)
{
    call_release(r, c);
    role_finish(&r->base, &c->base, why->status, why->text);
}

static void begin(struct role *r, struct call *c, const struct msg_prefill *m)
{
    struct error err = {0};
    const struct engine_request req = request_of(c, m);
    enum status st = engine_reserve(r->base.engine, &req, &c->group, &c->cached_tokens, &err);
    c->has_group = st == ST_OK;
    c->total_tokens = (int32_t)m->prompt.n;
    c->scores.n_top = m->scoring.top;
    if (st == ST_OK)
        st = open_offering(r, c, m, &err);
    if (st == ST_OK)
        call_move(r, c, CALL_COMPUTING);
    else
        refuse(r, c, &err);
}

/* `arena` holds the message: taken where it is kept. */
static void on_run(struct role *r, struct call *c, const struct msg_prefill *m,
                   struct codec_arena *arena)
{
    struct error err = {0};
    role_call_begin(&r->base, &c->base, m->request_id, m->deadline_ms);
    enum status st = check_run(r, m, &err);
    if (st == ST_OK) {
        c->n = m->n;
        c->first = calloc((size_t)m->n, sizeof(*c->first));
        if (!c->first)
            st = err_set(&err, ST_NO_MEMORY, "no memory for %d choices", m->n);
    }
    if (st != ST_OK) {
        refuse(r, c, &err);
        return;
    }
    const struct engine_request req = request_of(c, m);
    if (!engine_lacks_grammar(r->base.engine, &req)) {
        begin(r, c, m);
        return;
    }
    c->run = *m;
    c->kept = *arena;
    *arena = (struct codec_arena){0};
    call_move(r, c, CALL_COMPILING);
    role_compile(&r->base, &c->base, &c->run.sampling.grammar);
}

static void go_on(struct role *r, struct role_call *waited, const struct error *failed)
{
    struct call *c = (struct call *)waited;
    if (failed)
        refuse(r, c, failed);
    else
        begin(r, c, &c->run);
    codec_arena_fini(&c->kept);
}

static void prefill_on_message(struct role *r, void *handle, const uint8_t *data, size_t len,
                               int64_t now_ns)
{
    struct call *c = call_of(r, handle);
    r->base.now_ns = now_ns;
    if (!c || !c->base.rpc || c->base.finish_sent)
        return;
    struct codec_arena arena = {0};
    struct msg_prefill m;
    if (c->state != CALL_OPENED)
        role_fail(&c->base, ST_PROTOCOL, "a second message");
    else if (codec_get_prefill(data, len, &arena, &m) != ST_OK)
        role_fail(&c->base, ST_PROTOCOL, "malformed message");
    else
        on_run(r, c, &m, &arena);
    codec_arena_fini(&arena);
}

static void prefill_on_closed(struct role *r, void *handle, int64_t now_ns)
{
    struct call *c = call_of(r, handle);
    r->base.now_ns = now_ns;
    if (!c)
        return;
    c->base.rpc = NULL;
    call_release(r, c);
    call_move(r, c, CALL_CLOSING);
    if (!c->has_offering)
        call_fini(r, c);
}

/* ---- what the mover says ---- */

/* A broken way between two nodes makes the router avoid the pair; a node that is full, or out of
 * memory or time, is no reason for that. */
static enum status handoff_failure(enum status why)
{
    return why == ST_LINK || why == ST_PROTOCOL ? ST_TRANSFER : why;
}

static void prefill_on_mover(struct role *r, const struct mover_event *ev, int64_t now_ns)
{
    struct call *c = slots_get(r->base.calls, ev->user);
    r->base.now_ns = now_ns;
    if (!c)
        return;
    switch (ev->kind) {
    case MOVER_DELIVERED:
        if (c->state != CALL_DELIVERING || c->base.finish_sent)
            break;
        if (r->m_transfer) {
            metric_observe(r->m_transfer, (double)ev->transfer_ns / 1e9);
            metric_observe(r->m_exposed, (double)ev->exposed_ns / 1e9);
        }
        call_move(r, c, CALL_DONE);
        c->delivered = true;
        call_release(r, c);
        role_finish(&r->base, &c->base, ST_OK, "");
        break;
    case MOVER_FAILED:
        role_fail(&c->base, handoff_failure(ev->status), "the KV could not be handed over");
        break;
    case MOVER_QUIET:
        c->has_offering = false;
        if (c->quarantined)
            engine_quiet(r->base.engine, c->group);
        c->quarantined = false;
        if (c->state == CALL_CLOSING)
            call_fini(r, c);
        break;
    case MOVER_LANDED:
        break;
    }
}

/* ---- what we say ---- */

static enum status try_event(struct role *r, struct call *c, const struct msg_prefill_event *ev)
{
    buf_clear(&r->base.out);
    codec_put_prefill_event(&r->base.out, ev);
    return role_send(&r->base, &c->base);
}

/* All scores but the last piece, which goes with the first tokens; false: the outbox is full. */
static bool say_scores(struct role *r, struct call *c)
{
    struct msg_score piece[NODE_SCORES_PIECE];
    while (node_scores_left(&c->scores) > NODE_SCORES_PIECE) {
        uint32_t n = node_scores_piece(&c->scores, piece);
        struct msg_prefill_event ev = {.scores = piece, .n_scores = n};
        if (try_event(r, c, &ev) != ST_OK)
            return false;
        node_scores_said(&c->scores, n);
    }
    return true;
}

/* Where scores have filled the outbox it waits for the router to read them. */
static void say_first(struct role *r, struct call *c)
{
    struct role_base *b = &r->base;
    struct msg_score piece[NODE_SCORES_PIECE];
    struct msg_token *tokens = calloc((size_t)c->n_first + 1, sizeof(*tokens));
    struct msg_prefill_event ev = {.first = tokens,
                                   .n_first = (uint32_t)c->n_first,
                                   .cached_tokens = c->cached_tokens,
                                   .scores = piece,
                                   .n_scores = node_scores_piece(&c->scores, piece)};
    if (!tokens) {
        role_fail(&c->base, ST_NO_MEMORY, "no memory for tokens");
        return;
    }
    for (int32_t i = 0; i < c->n_first; i++)
        tokens[i] = said_get(&c->first[i]);
    ev.queue_us = (c->first_step_ns - c->at_ns[CALL_COMPUTING]) / NS_PER_US;
    ev.compute_us = (b->now_ns - c->first_step_ns) / NS_PER_US;
    enum status st = try_event(r, c, &ev);
    if (st == ST_BUSY && ev.n_scores > 0) {
        free(tokens);
        return;
    }
    if (st != ST_OK)
        role_fail(&c->base, ST_BUSY, "the router does not read its events");
    node_scores_said(&c->scores, ev.n_scores);
    call_move(r, c, CALL_DELIVERING);
    b->args.effects.offer_fill(b->args.effects.ctx, c->base.id, tokens, (uint32_t)c->n_first);
    free(tokens);
}

static void prefill_flush(struct role *r, int64_t now_ns)
{
    r->base.now_ns = now_ns;
    for (int32_t i = 0; i < r->n_chunks; i++) {
        struct call *c = slots_get(r->base.calls, r->chunks[i].call);
        if (c && c->state == CALL_COMPUTING && r->chunks[i].end == c->total_tokens)
            c->computed = true;
    }
    r->n_chunks = 0;
    for (slot_id id = slots_next(r->base.calls, 0); id; id = slots_next(r->base.calls, id)) {
        struct call *c = slots_get(r->base.calls, id);
        if (!c->base.rpc || c->base.finish_sent)
            continue;
        role_check_time(&c->base, now_ns);
        if (c->base.failure == ST_OK && c->state == CALL_COMPUTING && say_scores(r, c) &&
            c->computed)
            say_first(r, c);
        if (c->base.failure == ST_OK)
            continue;
        call_release(r, c);
        role_finish(&r->base, &c->base, c->base.failure, c->base.failure_text);
    }
}

static enum status prefill_create(const struct node_role_args *args, struct role **out,
                                  struct error *err)
{
    struct role *r = calloc(1, sizeof(*r));
    if (!r)
        return err_set(err, ST_NO_MEMORY, "no memory for the role");
    enum status st = role_base_init(&r->base, args, sizeof(struct call), err);
    r->base.go_on = go_on;
    /* A call may have a cached part and a fresh one in one step. */
    r->chunks = calloc(2 * (size_t)args->max_calls, sizeof(*r->chunks));
    if (st == ST_OK && !r->chunks)
        st = err_set(err, ST_NO_MEMORY, "no memory for %d calls", args->max_calls);
    if (st != ST_OK) {
        prefill_destroy(r);
        return st;
    }
    if (args->metrics) {
        r->m_transfer = metrics_histogram(
            args->metrics, "baton_kv_transfer_seconds", "",
            "From the first offer of a prompt's KV to its being complete on the decode node.",
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

const struct node_role_ops prefill_role_ops = {
    .name = "prefill",
    .method = "/baton.v1.Prefill/Run",
    .create = prefill_create,
    .destroy = prefill_destroy,
    .engine_events = prefill_engine_events,
    .set_engine = role_set_engine,
    .on_open = role_on_open,
    .on_message = prefill_on_message,
    .on_closed = prefill_on_closed,
    .on_mover = prefill_on_mover,
    .on_compiled = role_on_compiled,
    .flush = prefill_flush,
    .drain = role_drain,
    .load = role_load,
};
