/* A decode node that a test plays towards the real core: what it is asked for is in `calls`, what
 * it says goes out through say(). Through http_rig.h. */
#ifndef TESTS_ROUTER_NODE_RIG_H
#define TESTS_ROUTER_NODE_RIG_H

#include <stdlib.h>

#include "api_rig.h"
#include "base/clock.h"
#include "proto/codec.h"
#include "router/router.h"

#define POLLS_MAX 64   /* at a time */
#define STARTS_MAX 256 /* of a test, over all its time */

struct node_call {
    uint64_t user;
    bool live, is_start, cancelled;
    int32_t n, max_tokens;
    struct msg_grammar grammar; /* without its text */
    int64_t credits;
    int32_t stopped[8], n_stopped;
    char prompt[64];
};

static struct router r;
static struct node_call calls[POLLS_MAX + STARTS_MAX];
static size_t n_calls;            /* starts */
static int32_t rig_context = 100; /* tokens */

/* ---- the node ---- */

static inline void *call_start(void *ctx, int32_t node, const char *method, int64_t deadline_ns,
                               uint64_t user)
{
    bool is_start = strcmp(method, "/baton.v1.Decode/Start") == 0;
    size_t i = is_start ? POLLS_MAX + n_calls++ : 0; /* polls first, starts in order behind them */
    while (!is_start && i < POLLS_MAX && calls[i].live)
        i++;
    cr_assert(is_start ? i < POLLS_MAX + STARTS_MAX : i < POLLS_MAX);
    struct node_call *c = &calls[i];
    *c = (struct node_call){.user = user, .live = true};
    c->is_start = is_start;
    return c;
}

static inline enum status call_send(void *ctx, void *call, const struct buf *bytes)
{
    struct node_call *c = call;
    struct codec_arena arena = {0};
    struct msg_start start;
    struct msg_decode_control control;
    bool is_start;
    if (!c->is_start)
        return ST_OK;
    cr_assert_eq(codec_get_decode_request((const uint8_t *)bytes->data, bytes->len, &arena,
                                          &is_start, &start, &control),
                 ST_OK);
    if (is_start) {
        c->n = start.n;
        c->max_tokens = start.sampling.max_tokens;
        c->credits = start.credits;
        c->grammar = start.sampling.grammar;
        c->grammar.text = NULL;
        for (uint32_t i = 0; i < start.prompt.n && i < 63; i++)
            c->prompt[i] = (char)start.prompt.v[i];
    } else {
        c->credits += control.credit;
        if (control.stop_choice_plus1)
            c->stopped[c->n_stopped++] = (int32_t)control.stop_choice_plus1 - 1;
    }
    codec_arena_fini(&arena);
    return ST_OK;
}

static inline void call_nothing(void *ctx, void *call)
{
}

static inline void call_cancel(void *ctx, void *call)
{
    ((struct node_call *)call)->cancelled = true;
}

static inline uint64_t no_random(void *ctx)
{
    return 4;
}

static inline void tell(struct node_call *c, const struct msg_decode_event *ev)
{
    struct buf b = {0};
    codec_put_decode_event(&b, ev);
    core_on_message(r.core, c->user, (const uint8_t *)b.data, b.len, clock_now_ns());
    buf_fini(&b);
}

static inline void say(struct node_call *c, int32_t choice, int32_t position, int32_t id)
{
    const struct msg_token t = {.choice = choice, .position = position, .id = id, .logprob = -1};
    c->credits--;
    tell(c, &(struct msg_decode_event){.kind = MSG_D_TOKENS, .tokens = &t, .n_tokens = 1});
}

static inline void end_choice(struct node_call *c, int32_t choice, enum msg_finish_reason reason)
{
    tell(c, &(struct msg_decode_event){.kind = MSG_D_FINISH,
                                       .finish = {choice, reason, reason == 1 ? RIG_EOS : -1}});
}

static inline void close_call(struct node_call *c, enum status status)
{
    c->live = false;
    core_on_closed(r.core, c->user, status, "", clock_now_ns());
}

/* Status polls are answered at once; calls that were cancelled end. */
static inline void play_node(void)
{
    for (size_t i = 0; i < POLLS_MAX + STARTS_MAX; i++) {
        struct node_call *c = &calls[i];
        if (!c->live)
            continue;
        if (!c->is_start) {
            struct buf b = {0};
            const struct msg_status s = {.name = "d0",
                                         .role = "both",
                                         .model = "m",
                                         .boot = 1,
                                         .wire_min = MSG_WIRE_VERSION,
                                         .wire_max = MSG_WIRE_VERSION,
                                         .ready = true,
                                         .max_context = rig_context,
                                         .vocab = RIG_VOCAB,
                                         .slots = 2,
                                         .block_tokens = 16,
                                         .http = "",
                                         .blocks = {.total = 100, .free = 100}};
            codec_put_status(&b, &s);
            core_on_message(r.core, c->user, (const uint8_t *)b.data, b.len, clock_now_ns());
            buf_fini(&b);
            close_call(c, ST_OK);
        } else if (c->cancelled) {
            close_call(c, ST_CANCELLED);
        }
    }
}

static inline struct core_effects node_effects(void)
{
    struct core_effects e = router_effects;
    e.ctx = &r;
    e.call_start = call_start;
    e.call_send = call_send;
    e.call_half_close = e.call_read = call_nothing;
    e.call_cancel = call_cancel;
    e.random = no_random;
    return e;
}

#endif
