/* The router's core with hands that write down what it does: two prefill nodes, two decode nodes,
 * calls that answer what the test says. One core per test; nothing happens by itself. */
#ifndef TESTS_ROUTER_CORE_RIG_H
#define TESTS_ROUTER_CORE_RIG_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"
#include "router/core_internal.h"

#ifndef RIG_CALLS
#define RIG_CALLS 700
#define RIG_CLIENTS 16
#endif

enum { P0, P1, D0, D1, RIG_NODES };

struct rig_call {
    struct core_call_args args;
    uint64_t user;
    bool half_closed, closed;
    int cancels, reads;
    /* what was sent on it */
    int starts, prefills, statuses;
    int64_t credits; /* all that was ever given */
    int32_t stopped, here;
    int32_t n, emitted, prompt, have; /* of the Start or Run */
    bool local, want_first;
    uint64_t ticket;
};

struct rig_client {
    slot_id id;
    int32_t tokens, finishes, ends;
    int64_t unconsumed;
    int32_t next[8]; /* position that must come next, by choice */
    bool eager;      /* passes tokens on at once */
    int32_t stop_at; /* stops its choice 0 there */
    bool cancel_at_token;
    enum status end;
    struct msg_usage usage;
};

static struct {
    struct config config;
    struct core *core;
    int64_t now_ns;
    struct rig_call calls[RIG_CALLS];
    int n_calls;
    struct rig_client clients[RIG_CLIENTS];
    bool refuse_start;       /* call_start says NULL */
    enum status refuse_send; /* what call_send says */
    int32_t max_context, slots, block_tokens;
    int64_t blocks[RIG_NODES];
    struct metrics *metrics;
    const char *p_role, *d_role;
} rig;

static int32_t prompt_ids[256];

/* ---- the core's hands ---- */

static void *rig_start(void *ctx, int32_t node, const char *method, int64_t deadline_ns,
                       uint64_t user)
{
    if (rig.refuse_start)
        return NULL;
    cr_assert_lt(rig.n_calls, RIG_CALLS);
    struct rig_call *k = &rig.calls[rig.n_calls++];
    *k = (struct rig_call){.user = user};
    k->args = (struct core_call_args){.node = node,
                                      .method = method,
                                      .deadline_ns = deadline_ns,
                                      .kind = strstr(method, "Decode")    ? CORE_CALL_D
                                              : strstr(method, "Prefill") ? CORE_CALL_P
                                                                          : CORE_CALL_STATUS};
    return k;
}

static void note_decode(struct rig_call *k, const struct buf *b)
{
    struct codec_arena arena = {0};
    struct msg_start s;
    struct msg_decode_control m;
    bool is_start;
    cr_assert_eq(
        codec_get_decode_request((const uint8_t *)b->data, b->len, &arena, &is_start, &s, &m),
        ST_OK);
    if (is_start) {
        k->starts++;
        k->n = s.n;
        k->prompt = (int32_t)s.prompt.n;
        k->local = s.local_prefill;
        k->credits += s.credits;
        for (int32_t i = 0; i < s.n; i++)
            k->emitted += (int32_t)s.emitted[i].n;
    } else {
        k->credits += m.credit;
        k->here += m.prefill_here;
        k->stopped += m.stop_choice_plus1 > 0;
    }
    codec_arena_fini(&arena);
}

static enum status rig_send(void *ctx, void *call, const struct buf *b)
{
    struct rig_call *k = call;
    cr_assert_not(k->closed, "a message into a call that has ended");
    if (rig.refuse_send != ST_OK)
        return rig.refuse_send;
    struct codec_arena arena = {0};
    struct msg_prefill p;
    if (k->args.kind == CORE_CALL_D) {
        note_decode(k, b);
    } else if (k->args.kind == CORE_CALL_P) {
        cr_assert_eq(codec_get_prefill((const uint8_t *)b->data, b->len, &arena, &p), ST_OK);
        k->prefills++;
        k->prompt = (int32_t)p.prompt.n;
        k->have = p.have_tokens;
        k->ticket = p.ticket.w[0];
        k->want_first = p.want_first;
        codec_arena_fini(&arena);
    } else {
        k->statuses++;
    }
    return ST_OK;
}

static void rig_half_close(void *ctx, void *call)
{
    ((struct rig_call *)call)->half_closed = true;
}

static void rig_read(void *ctx, void *call)
{
    ((struct rig_call *)call)->reads++;
}

static void rig_cancel(void *ctx, void *call)
{
    cr_assert_not(((struct rig_call *)call)->closed);
    ((struct rig_call *)call)->cancels++;
}

static void rig_token(void *ctx, void *client, const struct msg_token *t)
{
    struct rig_client *c = client;
    cr_assert_eq(c->ends, 0, "a token after the end");
    cr_assert_eq(t->position, c->next[t->choice]++, "position %d of choice %d", t->position,
                 t->choice);
    cr_assert_eq(t->id, 100 + t->position);
    c->tokens++;
    c->unconsumed++;
    if (c->eager) {
        c->unconsumed = 0;
        core_consumed(rig.core, c->id, 1);
    }
    if (c->stop_at > 0 && t->choice == 0 && t->position + 1 == c->stop_at)
        core_stop_choice(rig.core, c->id, 0);
    if (c->cancel_at_token)
        core_cancel(rig.core, c->id, ST_CANCELLED, "The client has gone.");
}

static void rig_finish(void *ctx, void *client, const struct msg_finish *f)
{
    struct rig_client *c = client;
    cr_assert_eq(c->ends, 0);
    c->finishes++;
}

static void rig_end(void *ctx, void *client, enum status status, const char *text,
                    const struct msg_usage *usage)
{
    struct rig_client *c = client;
    cr_assert_eq(c->ends++, 0, "ended twice");
    c->end = status;
    c->usage = *usage;
}

static uint64_t rig_random(void *ctx)
{
    return 4;
}

/* ---- what the test does ---- */

static void rig_tick(int64_t after_ns)
{
    rig.now_ns += after_ns;
    core_tick(rig.core, rig.now_ns);
}

static void rig_close(struct rig_call *k, enum status status)
{
    cr_assert_not(k->closed);
    k->closed = true;
    core_on_closed(rig.core, k->user, status, "scripted", rig.now_ns);
}

/* The last call of that kind that has not ended; NULL: none. */
__attribute__((unused)) static struct rig_call *rig_call_of(enum core_call_kind kind)
{
    for (int i = rig.n_calls - 1; i >= 0; i--)
        if (rig.calls[i].args.kind == kind && !rig.calls[i].closed)
            return &rig.calls[i];
    return NULL;
}

/* Every poll under way is answered: nodes are well. */
static void rig_answer_polls(void)
{
    static const char *const names[] = {"p0", "p1", "d0", "d1"};
    for (int i = 0; i < rig.n_calls; i++) {
        struct rig_call *k = &rig.calls[i];
        if (k->args.kind != CORE_CALL_STATUS || k->closed || k->cancels)
            continue;
        int32_t node = k->args.node;
        const struct msg_status s = {.name = names[node],
                                     .role = node < D0 ? rig.p_role : rig.d_role,
                                     .model = "m",
                                     .fingerprint = {1, 2},
                                     .boot = 3,
                                     .wire_min = MSG_WIRE_VERSION,
                                     .wire_max = MSG_WIRE_VERSION,
                                     .ready = true,
                                     .max_context = rig.max_context,
                                     .vocab = 1000,
                                     .slots = rig.slots,
                                     .blocks = {.total = rig.blocks[node]},
                                     .block_tokens = rig.block_tokens,
                                     .http = ""};
        struct buf b = {0};
        codec_put_status(&b, &s);
        core_on_message(rig.core, k->user, (const uint8_t *)b.data, b.len, rig.now_ns);
        buf_fini(&b);
        rig_close(k, ST_OK);
    }
}

static void rig_open(int32_t window, int32_t max_requests, int64_t queue_max)
{
    static char address[] = "127.0.0.1:1";
    struct error err;
    log_init("test", LOG_ERROR, LOG_TEXT);
    memset(&rig, 0, sizeof(rig));
    config_default(&rig.config);
    rig.config.router.queue_max = queue_max;
    rig.config.timeouts.request_ns = 60 * NS_PER_S;
    rig.config.timeouts.stall_ns = 5 * NS_PER_S;
    for (int i = 0; i < RIG_NODES; i++)
        rig.config.router.nodes[i] =
            (struct config_node){.role = i < D0 ? ROLE_PREFILL : ROLE_DECODE, .address = address};
    rig.config.router.n_nodes = RIG_NODES;
    rig.now_ns = NS_PER_S;
    rig.max_context = 200;
    rig.slots = 8;
    for (int i = 0; i < RIG_NODES; i++)
        rig.blocks[i] = 100;
    rig.metrics = metrics_create("");
    rig.p_role = "prefill";
    rig.d_role = "decode";
    for (int32_t i = 0; i < 256; i++)
        prompt_ids[i] = 1 + i;
    const struct core_args args = {.effects = {.call_start = rig_start,
                                               .call_send = rig_send,
                                               .call_half_close = rig_half_close,
                                               .call_read = rig_read,
                                               .call_cancel = rig_cancel,
                                               .token = rig_token,
                                               .finish = rig_finish,
                                               .end = rig_end,
                                               .random = rig_random},
                                   .config = &rig.config,
                                   .metrics = rig.metrics,
                                   .max_requests = max_requests,
                                   .credit_window = window};
    cr_assert_eq(core_create(&args, &rig.core, &err), ST_OK);
    rig_tick(0);
    rig_answer_polls();
}

__attribute__((unused)) static void rig_setup(void)
{
    rig_open(8, 16, 4);
}

static void rig_teardown(void)
{
    core_destroy(rig.core);
    metrics_destroy(rig.metrics);
    rig.config.router.n_nodes = 0; /* their addresses are not the config's own */
    config_fini(&rig.config);
}

static enum status rig_submit(struct rig_client *c, int32_t prompt, int32_t n)
{
    struct error err;
    const struct core_request req = {
        .request_id = "test",
        .prompt = {.v = prompt_ids, .n = (uint32_t)prompt},
        .n = n,
        .sampling = {.max_tokens = 20, .top_p = 1, .repetition_penalty = 1, .logprobs = -1},
        .client = c};
    return core_submit(rig.core, &req, rig.now_ns, &c->id, &err);
}

__attribute__((unused)) static void say_to_core(struct rig_call *k,
                                                const struct msg_decode_event *ev)
{
    struct buf b = {0};
    codec_put_decode_event(&b, ev);
    core_on_message(rig.core, k->user, (const uint8_t *)b.data, b.len, rig.now_ns);
    buf_fini(&b);
}

__attribute__((unused)) static void d_accept(struct rig_call *k, int32_t have)
{
    const struct msg_rank_address rank = {.head_end = 2, .host = "h", .shm = "s"};
    struct msg_decode_event ev = {.kind = MSG_D_ACCEPTED};
    ev.accepted = (struct msg_accepted){
        .ticket = {{77, 78}}, .have_tokens = have, .ranks = &rank, .n_ranks = 1};
    say_to_core(k, &ev);
}

__attribute__((unused)) static void d_reject(struct rig_call *k, enum status status)
{
    say_to_core(k, &(struct msg_decode_event){
                       .kind = MSG_D_REJECTED, .rejected = status, .reason = "scripted"});
}

/* Tokens of a choice from `position` on: the id of position p is 100 + p. */
__attribute__((unused)) static void d_tokens(struct rig_call *k, int32_t choice, int32_t position,
                                             int32_t count)
{
    struct msg_token t[64];
    for (int32_t i = 0; i < count; i++)
        t[i] = (struct msg_token){
            .choice = choice, .position = position + i, .id = 100 + position + i};
    say_to_core(k, &(struct msg_decode_event){
                       .kind = MSG_D_TOKENS, .tokens = t, .n_tokens = (uint32_t)count});
}

__attribute__((unused)) static void d_finish(struct rig_call *k, int32_t choice)
{
    struct msg_decode_event ev = {.kind = MSG_D_FINISH};
    ev.finish = (struct msg_finish){.choice = choice, .reason = MSG_FINISH_LENGTH, .stop_id = -1};
    say_to_core(k, &ev);
}

__attribute__((unused)) static void p_first(struct rig_call *k, int32_t position)
{
    const struct msg_token t = {.position = position, .id = 100 + position};
    const struct msg_prefill_event ev = {.first = &t, .n_first = 1};
    struct buf b = {0};
    codec_put_prefill_event(&b, &ev);
    core_on_message(rig.core, k->user, (const uint8_t *)b.data, b.len, rig.now_ns);
    buf_fini(&b);
}

__attribute__((unused)) static void garbage(struct rig_call *k)
{
    static const uint8_t bytes[] = {0xff, 0xff, 0xff, 0x01, 0x02};
    core_on_message(rig.core, k->user, bytes, sizeof(bytes), rig.now_ns);
}

/* Ends every call that the core has cancelled, then nothing may be left. */
__attribute__((unused)) static void rig_check_quiet(void)
{
    rig_answer_polls();
    for (int i = 0; i < rig.n_calls; i++)
        if (rig.calls[i].cancels && !rig.calls[i].closed)
            rig_close(&rig.calls[i], ST_CANCELLED);
    for (int i = 0; i < rig.n_calls; i++)
        cr_assert(rig.calls[i].closed, "call %d to node %d was left open", i,
                  rig.calls[i].args.node);
    struct core_load load;
    core_get_load(rig.core, &load);
    cr_assert_eq(load.requests, 0);
    cr_assert_eq(load.queued, 0);
    cr_assert_eq(load.calls, 0);
    for (int i = 0; i < RIG_NODES; i++) {
        cr_assert_eq(core_cluster(rig.core)->nodes[i].calls, 0, "node %d", i);
        cr_assert_eq(core_cluster(rig.core)->nodes[i].tokens, 0, "node %d", i);
    }
    rig_teardown();
}

#endif
