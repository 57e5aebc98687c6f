/* A role is what a node is for: prefill or decode. It is the node's logic without its world: bytes
 * of calls, mover events and engine events come in, effects go out through a table. The real node
 * (node.c) and the simulator drive the same code; a role has no thread, clock, I/O or hidden state.
 *
 * Thread: the loop thread only. Effects must not call back into the role.
 */
#ifndef NODE_ROLE_H
#define NODE_ROLE_H

#include "engine/engine.h"
#include "engine/grammars.h"
#include "kvtransfer/mover.h"
#include "proto/codec.h"

/* A call that says nothing takes one of max_calls places: it is ended after this long. */
#define NODE_OPEN_NS (10 * NS_PER_S)

/* What a role may do to the world. */
struct node_effects {
    void *ctx;
    /* Calls. `send` takes a copy; ST_BUSY: the outbox is full, a flush() follows when it is not. */
    enum status (*send)(void *ctx, void *call, const struct buf *bytes);
    void (*read)(void *ctx, void *call); /* ready for the call's next message */
    void (*finish)(void *ctx, void *call, enum status status, const char *text);
    /* The mover, in order; pointers inside are copied. Answers come as mover events. */
    enum status (*expect)(void *ctx, const struct mover_plan *plan);
    void (*forget)(void *ctx, uint64_t user);
    enum status (*offer_open)(void *ctx, const struct mover_send *send);
    void (*offer_layer)(void *ctx, uint64_t user, int32_t layer, int32_t tokens);
    void (*offer_fill)(void *ctx, uint64_t user, const struct msg_token *first, uint32_t n);
    void (*offer_close)(void *ctx, uint64_t user);
    /* grammar_draft_compile() somewhere else, then on_compiled(). The draft is the world's until
     * then, and when the role is gone before. One at a time. */
    void (*compile)(void *ctx, struct grammar_draft *draft);
    uint64_t (*random)(void *ctx); /* for tickets */
};

struct node_role_args {
    struct node_effects effects;
    struct engine *engine; /* NULL at create: see set_engine */
    int32_t max_calls;
    const struct msg_rank_address
        *ranks; /* how to reach this node's ranks: lives as long as the role */
    int32_t n_ranks;
    int32_t max_context;
    uint64_t fingerprint[2];
    int64_t request_ns;      /* the time of a call whose caller gives none; 0: no end */
    struct metrics *metrics; /* may be NULL */
    bool aggregated;         /* decode role that never waits for a prefill node */
};

/* What a role counts for Admin.Status and drain. */
struct node_role_load {
    int32_t calls; /* that hold something */
};

struct role; /* the role's own object */

struct node_role_ops {
    const char *name;   /* "prefill", "decode" */
    const char *method; /* "/baton.v1.Decode/Start" */
    enum status (*create)(const struct node_role_args *args, struct role **out, struct error *err);
    void (*destroy)(struct role *r);
    /* The engine needs its events before the role has its engine: set once, right after
     * engine_create(). */
    struct engine_events (*engine_events)(struct role *r);
    void (*set_engine)(struct role *r, struct engine *e);
    /* A call: returns the role's handle for it, NULL when it cannot take one more (the shell
     * finishes it BUSY). */
    void *(*on_open)(struct role *r, void *call, int64_t now_ns, int64_t deadline_ns);
    void (*on_message)(struct role *r, void *handle, const uint8_t *data, size_t len,
                       int64_t now_ns);
    /* The call is over, whatever the reason: everything it held is released. The handle is invalid
     * afterwards. */
    void (*on_closed)(struct role *r, void *handle, int64_t now_ns);
    void (*on_mover)(struct role *r, const struct mover_event *ev, int64_t now_ns);
    void (*on_compiled)(struct role *r, struct grammar_draft *draft, int64_t now_ns);
    /* After each engine step, and whenever messages were handled: say what there is to say. */
    void (*flush)(struct role *r, int64_t now_ns);
    /* Draining: no new calls are admitted; `final` ends what is left with PREEMPTED. */
    void (*drain)(struct role *r, bool final);
    void (*load)(const struct role *r, struct node_role_load *out);
};

#endif
