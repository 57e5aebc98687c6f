#include "decode-node/decode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/role_call.h"
#include "node/scores.h"

enum call_state {
    CALL_OPENED,
    CALL_COMPILING,
    CALL_FILLING,
    CALL_SWITCHING,
    CALL_RUNNING,
    CALL_CLOSING,
    CALL_STATES
};

static const char *const state_names[CALL_STATES] = {"opened",    "compiling", "filling",
                                                     "switching", "running",   "closing"};
#define BIT(s) (1u << (s))
static const unsigned allowed[CALL_STATES] = {
    [CALL_OPENED] = BIT(CALL_COMPILING) | BIT(CALL_FILLING) | BIT(CALL_RUNNING) | BIT(CALL_CLOSING),
    [CALL_COMPILING] = BIT(CALL_FILLING) | BIT(CALL_RUNNING) | BIT(CALL_CLOSING),
    [CALL_FILLING] = BIT(CALL_RUNNING) | BIT(CALL_SWITCHING) | BIT(CALL_CLOSING),
    [CALL_SWITCHING] = BIT(CALL_RUNNING) | BIT(CALL_CLOSING),
    [CALL_RUNNING] = BIT(CALL_CLOSING),
    [CALL_CLOSING] = 0,
};

struct call {
    struct role_call base;
    enum call_state state;
    group_id group;
    bool has_group;   /* holds blocks */
    bool has_plan;    /* the mover knows it: its QUIET has not come */
    bool quarantined; /* the group was released before its plan was quiet */
    bool forgotten;   /* and has been told to forget it */
    bool scored;      /* the prompt is to be */
    bool scored_by_p; /* and was computed by another, who says its scores */
    int64_t at_ns[CALL_STATES];
    int32_t n, prompt_tokens, cached_tokens;
    int32_t finished_choices, generated_tokens;
    bool *done;                /* [n] choices that are over */
    struct msg_finish *finish; /* [n] in order of finishing */
    int32_t n_finish, n_finish_said;
    struct said *said; /* bounded by the credits that the router gave */
    int32_t n_said, said_cap;
    struct node_scores scores;
    struct msg_start start; /* while it is compiling */
    struct codec_arena kept;
};

struct role {
    struct role_base base;
    struct metric *m_fill;
};

static void call_move(struct role *r, struct call *c, enum call_state to)
{
    assert(allowed[c->state] & BIT(to));
    log_debug("decode_call", "request=%s from=%s to=%s", c->base.request_id, state_names[c->state],
              state_names[to]);
    c->state = to;
    c->at_ns[to] = r->base.now_ns;
}

static void call_free_memory(struct call *c)
{
    free(c->done);
    free(c->finish);
    free(c->said);
    node_scores_fini(&c->scores);
    codec_arena_fini(&c->kept);
}

static void call_fini(struct role *r, struct call *c)
{
    role_observe_quiet(&r->base, &c->base, c->at_ns[CALL_CLOSING]);
    call_free_memory(c);
    slots_free(r->base.calls, c->base.id);
}

/* Gives back all that the call holds. Blocks that the mover may still write to are not ours to
 * reuse before QUIET. */
static void call_release(struct role *r, struct call *c)
{
    bool plan_live = c->has_plan && c->state != CALL_RUNNING;
    role_compile_leave(&c->base);
    codec_arena_fini(&c->kept);
    if (c->has_plan && !c->forgotten)
        r->base.args.effects.forget(r->base.args.effects.ctx, c->base.id);
    c->forgotten = true;
    if (c->has_group)
        engine_release(r->base.engine, c->group, c->state == CALL_RUNNING, !plan_live);
    c->has_group = false;
    c->quarantined = plan_live;
}

static void decode_destroy(struct role *r)
{
    struct slots *calls = r->base.calls;
    for (slot_id id = slots_next(calls, 0); id; id = slots_next(calls, id))
        call_free_memory(slots_get(calls, id));
    role_base_fini(&r->base);
    free(r);
}

/* ---- what the engine says ---- */

static struct call *call_of(struct role *r, void *user)
{
    return role_call_of(&r->base, user);
}

static void on_token(void *ctx, void *user, const struct msg_token *t)
{
    struct role *r = ctx;
    struct call *c = call_of(r, user);
    if (!c)
        return;
    if (c->n_said == c->said_cap) {
        int32_t cap = c->said_cap ? 2 * c->said_cap : 16;
        struct said *more = realloc(c->said, sizeof(*more) * (size_t)cap);
        if (!more) {
            role_fail(&c->base, ST_NO_MEMORY, "no memory for tokens");
            return;
        }
        c->said = more;
        c->said_cap = cap;
    }
    said_set(&c->said[c->n_said++], t);
    c->generated_tokens++;
}

static void on_score(void *ctx, void *user, const struct msg_score *s)
{
    struct call *c = call_of(ctx, user);
    if (c && !node_scores_push(&c->scores, s))
        role_fail(&c->base, ST_NO_MEMORY, "no memory for scores");
}

static void choice_over(struct call *c, int32_t choice)
{
    assert(choice >= 0 && choice < c->n);
    c->finished_choices += !c->done[choice];
    c->done[choice] = true;
}

static void on_finish(void *ctx, void *user, const struct msg_finish *f)
{
    struct role *r = ctx;
    struct call *c = call_of(r, user);
    if (!c)
        return;
    assert(c->n_finish < c->n);
    c->finish[c->n_finish++] = *f;
    choice_over(c, f->choice);
}

static struct engine_events decode_engine_events(struct role *r)
{
    return (struct engine_events){.token = on_token,
                                  .score = on_score,
                                  .finish = on_finish,
                                  .failed = role_on_failed,
                                  .ctx = r};
}

/* ---- what the router says ---- */

static enum status try_event(struct role *r, struct call *c, const struct msg_decode_event *ev)
{
    buf_clear(&r->base.out);
    codec_put_decode_event(&r->base.out, ev);
    return role_send(&r->base, &c->base);
}

static void send_event(struct role *r, struct call *c, const struct msg_decode_event *ev)
{
    if (try_event(r, c, ev) != ST_OK)
        role_fail(&c->base, ST_BUSY, "the router does not read its events");
}

static void reject(struct role *r, struct call *c, enum status status, const char *why)
{
    struct msg_decode_event ev = {.kind = MSG_D_REJECTED, .rejected = status, .reason = why};
    send_event(r, c, &ev);
    role_finish(&r->base, &c->base, ST_OK, "");
}

static enum status check_start(const struct role *r, const struct msg_start *m, struct error *err)
{
    if (r->base.draining)
        return err_set(err, ST_BUSY, "this node is draining");
    if (memcmp(m->fingerprint, r->base.args.fingerprint, sizeof(m->fingerprint)) != 0)
        return err_set(err, ST_INCOMPATIBLE, "the request is for another model");
    if (m->prompt.n < 1 || (int64_t)m->prompt.n >= r->base.args.max_context)
        return err_set(err, ST_INVALID, "%u prompt tokens, context %d", m->prompt.n,
                       r->base.args.max_context);
    if (m->n < 1 || m->n > MSG_CHOICES_MAX)
        return err_set(err, ST_INVALID, "n is %d", m->n);
    return ST_OK;
}

static void accept_call(struct role *r, struct call *c, int32_t have)
{
    struct msg_decode_event ev = {.kind = MSG_D_ACCEPTED};
    ev.accepted.have_tokens = have;
    ev.accepted.ranks = r->base.args.ranks;
    ev.accepted.n_ranks = (uint32_t)r->base.args.n_ranks;
    if (c->has_plan) {
        ev.accepted.ticket.w[0] = r->base.args.effects.random(r->base.args.effects.ctx);
        ev.accepted.ticket.w[1] = r->base.args.effects.random(r->base.args.effects.ctx);
        struct mover_plan plan = {.user = c->base.id,
                                  .ticket = ev.accepted.ticket,
                                  .token_begin = have,
                                  .token_end = engine_transfer_tokens(r->base.engine, c->group)};
        plan.blocks = engine_begin_fill(r->base.engine, c->group, &plan.n_blocks);
        plan.stride = engine_table_stride(r->base.engine, c->group);
        if (r->base.args.effects.expect(r->base.args.effects.ctx, &plan) != ST_OK) {
            c->has_plan = false;
            call_release(r, c);
            reject(r, c, ST_BUSY, "too many handoffs at once");
            return;
        }
        call_move(r, c, CALL_FILLING);
    } else {
        engine_fill_here(r->base.engine, c->group);
        call_move(r, c, CALL_RUNNING);
    }
    send_event(r, c, &ev);
}

static struct engine_request request_of(const struct call *c, const struct msg_start *m)
{
    return (struct engine_request){.prompt = m->prompt,
                                   .n = m->n,
                                   .emitted = m->emitted,
                                   .finished = m->finished,
                                   .sampling = m->sampling,
                                   .cache_salt = m->cache_salt ? m->cache_salt : "",
                                   .credits = m->credits,
                                   .scoring = m->scoring,
                                   .user = role_user_of(&c->base)};
}

static void begin(struct role *r, struct call *c, const struct msg_start *m)
{
    struct error err = {0};
    int32_t have = 0;
    const struct engine_request req = request_of(c, m);
    enum status st = engine_reserve(r->base.engine, &req, &c->group, &have, &err);
    if (st != ST_OK) {
        reject(r, c, st, err.text);
        return;
    }
    c->has_group = true;
    c->n = m->n;
    c->prompt_tokens = (int32_t)m->prompt.n;
    c->scores.n_top = m->scoring.top;
    c->scored = m->scoring.begin > 0;
    c->cached_tokens = have < c->prompt_tokens ? have : c->prompt_tokens;
    c->has_plan = !m->local_prefill && !r->base.args.aggregated;
    for (int32_t i = 0; i < m->n; i++)
        if (m->finished && m->finished[i])
            choice_over(c, i);
    accept_call(r, c, have);
}

/* `arena` holds the message: taken where it is kept. */
static void on_start(struct role *r, struct call *c, const struct msg_start *m,
                     struct codec_arena *arena)
{
    struct error err = {0};
    if (c->state != CALL_OPENED || c->has_group) {
        role_fail(&c->base, ST_PROTOCOL, "a second Start");
        return;
    }
    role_call_begin(&r->base, &c->base, m->request_id, m->deadline_ms);
    enum status st = check_start(r, m, &err);
    if (st == ST_OK) {
        c->finish = calloc((size_t)m->n, sizeof(*c->finish));
        c->done = calloc((size_t)m->n, sizeof(*c->done));
        if (!c->finish || !c->done)
            st = err_set(&err, ST_NO_MEMORY, "no memory for %d choices", m->n);
    }
    if (st != ST_OK) {
        reject(r, c, st, err.text);
        return;
    }
    const struct engine_request req = request_of(c, m);
    if (!engine_lacks_grammar(r->base.engine, &req)) {
        begin(r, c, m);
        return;
    }
    c->start = *m;
    c->kept = *arena;
    *arena = (struct codec_arena){0};
    call_move(r, c, CALL_COMPILING);
    role_compile(&r->base, &c->base, &c->start.sampling.grammar);
}

static void go_on(struct role *r, struct role_call *waited, const struct error *failed)
{
    struct call *c = (struct call *)waited;
    if (failed)
        reject(r, c, failed->status, failed->text);
    else
        begin(r, c, &c->start);
    codec_arena_fini(&c->kept);
    r->base.args.effects.read(r->base.args.effects.ctx, c->base.rpc);
}

static void on_control(struct role *r, struct call *c, const struct msg_decode_control *m)
{
    if (!c->has_group || c->base.failure != ST_OK) {
        role_fail(&c->base, ST_PROTOCOL, "a message before Start");
        return;
    }
    if (m->credit > 0)
        engine_credit(r->base.engine, c->group, m->credit);
    if (m->stop_choice_plus1 > 0 && m->stop_choice_plus1 <= (uint32_t)c->n) {
        engine_stop_choice(r->base.engine, c->group, (int32_t)m->stop_choice_plus1 - 1);
        choice_over(c, (int32_t)m->stop_choice_plus1 - 1);
    }
    if (m->prefill_here && c->state == CALL_FILLING) {
        call_move(r, c, CALL_SWITCHING);
        c->forgotten = true;
        r->base.args.effects.forget(r->base.args.effects.ctx, c->base.id);
    } else if (m->prefill_here && c->scored_by_p) {
        role_fail(&c->base, ST_PREEMPTED, "the prompt is here, but its scores are lost");
    }
}

static void decode_on_message(struct role *r, void *handle, const uint8_t *data, size_t len,
                              int64_t now_ns)
{
    struct call *c = call_of(r, handle);
    r->base.now_ns = now_ns;
    if (!c || !c->base.rpc || c->base.finish_sent)
        return;
    struct codec_arena arena = {0};
    struct msg_start start;
    struct msg_decode_control control;
    bool is_start;
    if (codec_get_decode_request(data, len, &arena, &is_start, &start, &control) != ST_OK)
        role_fail(&c->base, ST_PROTOCOL, "malformed message");
    else if (is_start)
        on_start(r, c, &start, &arena);
    else
        on_control(r, c, &control);
    codec_arena_fini(&arena);
    if (c->state != CALL_COMPILING)
        r->base.args.effects.read(r->base.args.effects.ctx, c->base.rpc);
}

static void decode_on_closed(struct role *r, void *handle, int64_t now_ns)
{
    struct call *c = call_of(r, handle);
    r->base.now_ns = now_ns;
    if (!c)
        return;
    c->base.rpc = NULL;
    call_release(r, c);
    call_move(r, c, CALL_CLOSING);
    if (!c->has_plan)
        call_fini(r, c);
}

/* ---- what the mover says ---- */

static void decode_on_mover(struct role *r, const struct mover_event *ev, int64_t now_ns)
{
    struct call *c = slots_get(r->base.calls, ev->user);
    r->base.now_ns = now_ns;
    if (!c)
        return;
    if (ev->kind == MOVER_LANDED && c->state == CALL_FILLING && c->has_group) {
        if (r->m_fill)
            metric_observe(r->m_fill, (double)(now_ns - c->at_ns[CALL_FILLING]) / 1e9);
        call_move(r, c, CALL_RUNNING);
        c->scored_by_p = c->scored;
        engine_fill_done(r->base.engine, c->group, ev->first, (int32_t)ev->n_first);
    } else if (ev->kind == MOVER_FAILED) {
        role_fail(&c->base, ST_BUSY, "the landing plan could not be made");
    } else if (ev->kind == MOVER_QUIET) {
        c->has_plan = false;
        if (c->quarantined)
            engine_quiet(r->base.engine, c->group);
        c->quarantined = false;
        if (c->state == CALL_CLOSING) {
            call_fini(r, c);
        } else if (c->state == CALL_SWITCHING && c->has_group) {
            call_move(r, c, CALL_RUNNING);
            engine_fill_here(r->base.engine, c->group);
        }
    }
}

/* ---- what we say ---- */

/* False when the outbox is full. */
static bool say_scores(struct role *r, struct call *c)
{
    struct msg_score piece[NODE_SCORES_PIECE];
    while (node_scores_left(&c->scores) > 0) {
        uint32_t n = node_scores_piece(&c->scores, piece);
        struct msg_decode_event ev = {.kind = MSG_D_SCORES, .scores = piece, .n_scores = n};
        if (try_event(r, c, &ev) != ST_OK)
            return false;
        node_scores_said(&c->scores, n);
    }
    return true;
}

/* Tokens first, then the finishes they belong to. Returns false when the outbox is full. */
static bool say_tokens(struct role *r, struct call *c)
{
    struct msg_token tokens[64];
    int32_t done = 0;
    while (done < c->n_said) {
        int32_t n = c->n_said - done < 64 ? c->n_said - done : 64;
        for (int32_t i = 0; i < n; i++)
            tokens[i] = said_get(&c->said[done + i]);
        struct msg_decode_event ev = {
            .kind = MSG_D_TOKENS, .tokens = tokens, .n_tokens = (uint32_t)n};
        if (try_event(r, c, &ev) != ST_OK)
            break;
        done += n;
    }
    if (done > 0)
        memmove(c->said, c->said + done, sizeof(*c->said) * (size_t)(c->n_said - done));
    c->n_said -= done;
    return c->n_said == 0;
}

/* False: it waits for the outbox, or the call has failed. */
static bool say_last(struct role *r, struct call *c, const struct msg_decode_event *ev)
{
    enum status st = try_event(r, c, ev);
    if (st != ST_OK && st != ST_BUSY)
        role_fail(&c->base, st, "the router does not take its events");
    return st == ST_OK;
}

static void say_finishes(struct role *r, struct call *c)
{
    for (; c->n_finish_said < c->n_finish; c->n_finish_said++) {
        struct msg_decode_event ev = {.kind = MSG_D_FINISH, .finish = c->finish[c->n_finish_said]};
        if (!say_last(r, c, &ev))
            return;
    }
    if (c->finished_choices < c->n || c->state != CALL_RUNNING ||
        engine_scores_due(r->base.engine, c->group))
        return;
    struct msg_decode_event ev = {.kind = MSG_D_DONE};
    ev.usage = (struct msg_usage){.prompt_tokens = c->prompt_tokens,
                                  .cached_tokens = c->cached_tokens,
                                  .completion_tokens = c->generated_tokens};
    if (c->at_ns[CALL_FILLING])
        ev.kv_wait_us = (c->at_ns[CALL_RUNNING] - c->at_ns[CALL_FILLING]) / NS_PER_US;
    ev.decode_us = (r->base.now_ns - c->at_ns[CALL_RUNNING]) / NS_PER_US;
    if (say_last(r, c, &ev))
        role_finish(&r->base, &c->base, ST_OK, "");
}

static void decode_flush(struct role *r, int64_t now_ns)
{
    r->base.now_ns = now_ns;
    for (slot_id id = slots_next(r->base.calls, 0); id; id = slots_next(r->base.calls, id)) {
        struct call *c = slots_get(r->base.calls, id);
        if (!c->base.rpc || c->base.finish_sent)
            continue;
        role_check_time(&c->base, now_ns);
        if (c->base.failure == ST_OK && say_scores(r, c) && say_tokens(r, c))
            say_finishes(r, c);
        if (c->base.failure != ST_OK && !c->base.finish_sent) {
            /* Others may be waiting for these blocks: they go before the router has heard. */
            call_release(r, c);
            role_finish(&r->base, &c->base, c->base.failure, c->base.failure_text);
        }
    }
}

static enum status decode_create(const struct node_role_args *args, struct role **out,
                                 struct error *err)
{
    struct role *r = calloc(1, sizeof(*r));
    if (!r)
        return err_set(err, ST_NO_MEMORY, "no memory for the role");
    enum status st = role_base_init(&r->base, args, sizeof(struct call), err);
    if (st != ST_OK) {
        free(r);
        return st;
    }
    r->base.go_on = go_on;
    if (args->metrics)
        r->m_fill =
            metrics_histogram(args->metrics, "baton_kv_wait_seconds", "",
                              "From a reservation to the KV being complete on the decode node.",
                              metrics_latency_bounds, metrics_latency_bounds_n);
    *out = r;
    return ST_OK;
}

const struct node_role_ops decode_role_ops = {
    .name = "decode",
    .method = "/baton.v1.Decode/Start",
    .create = decode_create,
    .destroy = decode_destroy,
    .engine_events = decode_engine_events,
    .set_engine = role_set_engine,
    .on_open = role_on_open,
    .on_message = decode_on_message,
    .on_closed = decode_on_closed,
    .on_mover = decode_on_mover,
    .on_compiled = role_on_compiled,
    .flush = decode_flush,
    .drain = role_drain,
    .load = role_load,
};
