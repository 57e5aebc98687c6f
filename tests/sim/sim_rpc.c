/* Calls between the router and the nodes: ordered streams with delays, that end once at each side.
 */
#include <stdlib.h>
#include <string.h>

#include "prefill-node/prefill.h"
#include "sim/sim_world.h"

struct sim_msg *sim_post(struct world *w, int64_t at_ns, enum sim_msg_kind kind,
                         struct sim_call *call)
{
    struct sim_msg *m = calloc(1, sizeof(*m));
    m->at_ns = at_ns;
    m->kind = kind;
    m->call = call;
    struct list *at = w->messages.prev;
    while (at != &w->messages && list_entry(at, struct sim_msg, queue)->at_ns > at_ns)
        at = at->prev;
    list_push_front(at, &m->queue);
    return m;
}

/* The request that a call is for; NULL: none, or nobody asks any more. */
static const struct core_req *request_of(struct world *w, const struct sim_call *c)
{
    struct core_call *k = w->router_dead ? NULL : slots_get(w->core->calls, c->user);
    return k && k->request ? slots_get(w->core->requests, k->request) : NULL;
}

static int64_t latency(struct world *w, const struct sim_call *c)
{
    if (!world_chance(w, 0.05))
        return world_between(w, 20 * NS_PER_US, 400 * NS_PER_US);
    sim_count_event(w, SIM_SLOW, request_of(w, c));
    return world_between(w, NS_PER_MS, 20 * NS_PER_MS);
}

static int64_t stream_time(struct world *w, const struct sim_call *c, int64_t *last)
{
    int64_t at = w->now_ns + latency(w, c);
    if (at <= *last)
        at = *last + 1;
    *last = at;
    return at;
}

static struct sim_msg *to_server(struct world *w, struct sim_call *c, enum sim_msg_kind kind)
{
    return sim_post(w, stream_time(w, c, &c->to_server_ns), kind, c);
}

static struct sim_msg *to_client(struct world *w, struct sim_call *c, enum sim_msg_kind kind)
{
    return sim_post(w, stream_time(w, c, &c->to_client_ns), kind, c);
}

/* ---- the router's hands ---- */

static void *core_call_start(void *ctx, int32_t node, const char *method, int64_t deadline_ns,
                             uint64_t user)
{
    struct world *w = ctx;
    struct sim_call *c = calloc(1, sizeof(*c));
    c->node = &w->nodes[node];
    c->boot = c->node->boot;
    c->user = user;
    c->admin = strstr(method, "Admin") != NULL;
    list_init(&c->held);
    list_push_back(&w->calls, &c->in_world);
    if (c->node->alive) {
        to_server(w, c, MSG_OPEN);
    } else {
        c->server_ended = true;
        to_client(w, c, MSG_END_CLIENT)->status = ST_LINK;
    }
    return c;
}

/* PLANT_LAW5: a Start that continues a request carries another seed. */
static bool spoil_seed(struct world *w, struct buf *b)
{
    struct codec_arena arena = {0};
    struct msg_start start;
    struct msg_decode_control control;
    bool is_start, spoiled = false;
    if (codec_get_decode_request((uint8_t *)b->data, b->len, &arena, &is_start, &start, &control) ==
            ST_OK &&
        is_start) {
        for (int32_t i = 0; i < start.n; i++)
            spoiled |= start.emitted[i].n > 0;
        if (spoiled) {
            start.sampling.seed++;
            buf_clear(b);
            codec_put_start(b, &start);
        }
    }
    codec_arena_fini(&arena);
    return spoiled;
}

static enum status core_call_send(void *ctx, void *call, const struct buf *bytes)
{
    struct world *w = ctx;
    struct sim_call *c = call;
    if (c->server_ended)
        return ST_OK; /* as gRPC: the end is on its way */
    struct sim_msg *m = to_server(w, c, MSG_TO_SERVER);
    buf_append(&m->bytes, bytes->data, bytes->len);
    if (w->plant == PLANT_LAW5_SEED_LOST && !c->admin)
        spoil_seed(w, &m->bytes);
    return ST_OK;
}

static void core_half_close(void *ctx, void *call)
{
}

static void core_call_read(void *ctx, void *call)
{
}

static void core_call_cancel(void *ctx, void *call)
{
    struct world *w = ctx;
    struct sim_call *c = call;
    if (!c->server_ended)
        to_server(w, c, MSG_END_SERVER);
    to_client(w, c, MSG_END_CLIENT)->status = ST_CANCELLED;
}

static uint64_t core_random(void *ctx)
{
    return rng_next(&((struct world *)ctx)->rng);
}

void sim_core_effects(struct world *w, struct core_effects *out)
{
    *out = (struct core_effects){.ctx = w,
                                 .call_start = core_call_start,
                                 .call_send = core_call_send,
                                 .call_half_close = core_half_close,
                                 .call_read = core_call_read,
                                 .call_cancel = core_call_cancel,
                                 .random = core_random};
    sim_client_effects(out);
}

/* ---- the nodes' hands ---- */

static enum status role_send(void *ctx, void *call, const struct buf *bytes)
{
    struct sim_node *n = ctx;
    struct sim_call *c = call;
    struct sim_msg *m = to_client(n->world, c, MSG_TO_CLIENT);
    buf_append(&m->bytes, bytes->data, bytes->len);
    return ST_OK;
}

static void role_read(void *ctx, void *call)
{
    struct sim_node *n = ctx;
    struct sim_call *c = call;
    c->unread = false;
    if (!list_empty(&c->held))
        sim_post(n->world, n->world->now_ns, MSG_READ, c);
}

static void role_finish(void *ctx, void *call, enum status status, const char *text)
{
    struct sim_node *n = ctx;
    struct sim_call *c = call;
    to_client(n->world, c, MSG_END_CLIENT)->status = status;
    to_server(n->world, c, MSG_END_SERVER);
}

static uint64_t role_random(void *ctx)
{
    return rng_next(&((struct sim_node *)ctx)->world->rng);
}

void sim_role_calls(struct node_effects *out)
{
    out->send = role_send;
    out->read = role_read;
    out->finish = role_finish;
    out->random = role_random;
}

/* ---- delivery ---- */

static void drop_held(struct sim_call *c)
{
    while (!list_empty(&c->held)) {
        struct sim_msg *m = list_entry(c->held.next, struct sim_msg, queue);
        list_remove(&m->queue);
        buf_fini(&m->bytes);
        free(m);
    }
}

static void call_maybe_free(struct sim_call *c)
{
    if (!c->client_ended || !c->server_ended || c->pinned)
        return;
    struct world *w = c->node->world;
    list_for_each_safe(it, next, &w->messages)
    {
        struct sim_msg *m = list_entry(it, struct sim_msg, queue);
        if (m->call != c)
            continue;
        list_remove(&m->queue);
        buf_fini(&m->bytes);
        free(m);
    }
    drop_held(c);
    list_remove(&c->in_world);
    free(c);
}

static void answer_admin(struct world *w, struct sim_call *c)
{
    struct sim_node *n = c->node;
    struct engine_load l;
    engine_load(n->engine, &l);
    struct msg_status s = {.name = n->name,
                           .role = n->aggregated ? "both" : n->ops->name,
                           .model = "fake",
                           .fingerprint = {7, 7},
                           .boot = n->boot,
                           .wire_min = MSG_WIRE_VERSION,
                           .wire_max = MSG_WIRE_VERSION,
                           .draining = n->drain_ns != 0,
                           .ready = true,
                           .max_context = n->model.max_context,
                           .vocab = n->model.vocab,
                           .slots = 12, /* more than fit: nodes must refuse now and then */
                           .blocks = l.blocks,
                           .block_tokens = n->layout.block_tokens,
                           .room_tokens =
                               engine_room_tokens(n->engine, n->ops == &prefill_role_ops),
                           .http = ""};
    struct sim_msg *m = to_client(w, c, MSG_TO_CLIENT);
    codec_put_status(&m->bytes, &s);
    to_client(w, c, MSG_END_CLIENT)->status = ST_OK;
    c->server_ended = true;
}

static void end_at_server(struct world *w, struct sim_call *c)
{
    if (c->server_ended)
        return;
    c->server_ended = true;
    /* PLANT_LAW1: now and then the word is not passed on. */
    if (w->plant == PLANT_LAW1_CALL_END_UNSEEN && world_chance(w, 0.2)) {
        c->pinned = true;
        return;
    }
    if (c->server_opened && c->handle && c->node->alive && c->boot == c->node->boot)
        c->node->ops->on_closed(c->node->role, c->handle, w->now_ns);
    call_maybe_free(c);
}

static void note_busy(struct world *w, struct sim_call *c, enum status status, const struct buf *b)
{
    struct core_call *k = slots_get(w->core->calls, c->user);
    const struct core_req *q = request_of(w, c);
    bool busy = status == ST_BUSY;
    if (b && k && k->kind == CORE_CALL_D) {
        struct codec_arena arena = {0};
        struct msg_decode_event ev;
        if (codec_get_decode_event((const uint8_t *)b->data, b->len, &arena, &ev) == ST_OK)
            busy = ev.kind == MSG_D_REJECTED && ev.rejected == ST_BUSY;
        codec_arena_fini(&arena);
    }
    if (busy)
        sim_count_event(w, SIM_BUSY, q);
    if (status == ST_PREEMPTED)
        sim_count_event(w, SIM_PREEMPT, q);
}

/* As gRPC does it: the next message when the role has asked for it. */
static void deliver_held(struct world *w, struct sim_call *c)
{
    while (!c->unread && !c->server_ended && !list_empty(&c->held)) {
        struct sim_msg *m = list_entry(c->held.next, struct sim_msg, queue);
        list_remove(&m->queue);
        c->unread = true;
        c->node->ops->on_message(c->node->role, c->handle, (uint8_t *)m->bytes.data, m->bytes.len,
                                 w->now_ns);
        buf_fini(&m->bytes);
        free(m);
    }
}

static void hold(struct sim_call *c, struct sim_msg *m)
{
    struct sim_msg *held = calloc(1, sizeof(*held));
    held->bytes = m->bytes;
    m->bytes = (struct buf){0};
    list_push_back(&c->held, &held->queue);
}

void sim_deliver(struct world *w, struct sim_msg *m)
{
    struct sim_call *c = m->call;
    struct sim_node *n = c ? c->node : NULL;
    bool up = n && n->alive && c->boot == n->boot;
    switch (m->kind) {
    case MSG_OPEN:
        if (!up || c->server_ended)
            break;
        c->server_opened = true;
        if (c->admin)
            break;
        c->handle = n->ops->on_open(n->role, c, w->now_ns, NS_NEVER);
        if (!c->handle)
            role_finish(n, c, ST_BUSY, "");
        break;
    case MSG_TO_SERVER:
        if (!up || c->server_ended)
            break;
        if (c->admin) {
            answer_admin(w, c);
        } else if (c->handle) {
            w->coverage->held += c->unread;
            hold(c, m);
            deliver_held(w, c);
        }
        break;
    case MSG_READ:
        if (up && c->handle)
            deliver_held(w, c);
        break;
    case MSG_TO_CLIENT:
        if (c->client_ended || w->router_dead)
            break;
        note_busy(w, c, ST_OK, &m->bytes);
        core_on_message(w->core, c->user, (uint8_t *)m->bytes.data, m->bytes.len, w->now_ns);
        break;
    case MSG_END_SERVER:
        end_at_server(w, c);
        break;
    case MSG_END_CLIENT:
        if (c->client_ended)
            break;
        c->client_ended = true;
        if (!w->router_dead) {
            note_busy(w, c, m->status, NULL);
            core_on_closed(w->core, c->user, m->status, "simulated", w->now_ns);
        }
        call_maybe_free(c);
        break;
    case MSG_CONSUMED: {
        struct sim_client *k = &w->clients[m->client];
        if (k->live && !w->router_dead)
            core_consumed(w->core, k->id, m->tokens);
        break;
    }
    }
}

void sim_calls_of_dead_node(struct world *w, struct sim_node *n, int64_t notice_ns)
{
    list_for_each_safe(it, next, &w->calls)
    {
        struct sim_call *c = list_entry(it, struct sim_call, in_world);
        if (c->node != n || c->boot != n->boot)
            continue;
        c->server_ended = true;
        c->handle = NULL;
        if (c->to_client_ns < w->now_ns + notice_ns)
            c->to_client_ns = w->now_ns + notice_ns;
        if (!c->client_ended)
            to_client(w, c, MSG_END_CLIENT)->status = ST_LINK;
        else
            call_maybe_free(c);
    }
}

void sim_router_dies(struct world *w)
{
    for (slot_id id = slots_next(w->core->requests, 0); id; id = slots_next(w->core->requests, id))
        sim_count_event(w, SIM_KILL_ROUTER, slots_get(w->core->requests, id));
    w->router_dead = true;
    list_for_each_safe(it, next, &w->calls)
    {
        struct sim_call *c = list_entry(it, struct sim_call, in_world);
        c->client_ended = true;
        if (!c->server_ended)
            to_server(w, c, MSG_END_SERVER);
        else
            call_maybe_free(c);
    }
}

void sim_break_some_call(struct world *w)
{
    struct sim_call *victim = NULL;
    int seen = 0;
    list_for_each(it, &w->calls)
    {
        struct sim_call *c = list_entry(it, struct sim_call, in_world);
        if (c->admin || c->client_ended || c->server_ended)
            continue;
        if (rng_below(&w->rng, (uint64_t)++seen) == 0)
            victim = c;
    }
    if (!victim)
        return;
    sim_count_event(w, SIM_CALL_BREAK, request_of(w, victim));
    to_server(w, victim, MSG_END_SERVER);
    to_client(w, victim, MSG_END_CLIENT)->status = ST_LINK;
}

void sim_rpc_fini(struct world *w)
{
    list_for_each_safe(it, next, &w->messages)
    {
        struct sim_msg *m = list_entry(it, struct sim_msg, queue);
        list_remove(&m->queue);
        buf_fini(&m->bytes);
        free(m);
    }
    list_for_each_safe(it, next, &w->calls)
    {
        struct sim_call *c = list_entry(it, struct sim_call, in_world);
        drop_held(c);
        list_remove(&c->in_world);
        free(c);
    }
}
