/* The router's core: the queue, the requests, the nodes; token ids only. Text, HTTP and gRPC are
 * its clients' business.
 *
 * Like a node's role it is logic without a world: bytes of calls and time come in, effects go out,
 * so that the real router and the simulator drive the same code. Bounded: queue_max requests wait,
 * max_requests exist.
 *
 * A client submits a request and then hears: tokens, each position of a choice once and in order; a
 * finish per choice; one end. It says how many tokens it has passed on (core_consumed), which is
 * the credit that flows back to the decode node.
 *
 * Thread: the router's loop. Effects must not call back into the core, except core_consumed,
 * core_stop_choice and core_cancel, which are safe anywhere (their consequences are carried out
 * when the core gets control again: core_tick).
 */
#ifndef ROUTER_CORE_H
#define ROUTER_CORE_H

#include "base/metrics.h"
#include "base/slots.h"
#include "router/cluster.h"
#include "router/request.h"

struct core;

struct core_effects {
    void *ctx;
    /* Starts a call whose events come back with `user`; NULL: cannot now (to the core the node is
     * busy). */
    void *(*call_start)(void *ctx, int32_t node, const char *method, int64_t deadline_ns,
                        uint64_t user);
    /* ST_CANCELLED: the call is over already, its end is on the way. Others: it cannot take it. */
    enum status (*call_send)(void *ctx, void *call, const struct buf *bytes);
    void (*call_half_close)(void *ctx, void *call);
    void (*call_read)(void *ctx, void *call);
    void (*call_cancel)(void *ctx, void *call); /* closed still follows */
    /* To the client of a request. */
    /* Of the prompt, adjacent positions, each once and in order, all before the first token. */
    void (*scores)(void *ctx, void *client, const struct msg_score *s, int32_t n);
    void (*token)(void *ctx, void *client, const struct msg_token *t);
    void (*finish)(void *ctx, void *client, const struct msg_finish *f);
    void (*end)(void *ctx, void *client, enum status status, const char *text,
                const struct msg_usage *usage);
    uint64_t (*random)(void *ctx);
};

struct core_args {
    struct core_effects effects;
    const struct config *config; /* outlives the core */
    struct metrics *metrics;     /* may be NULL */
    int32_t max_requests;
    int32_t credit_window; /* tokens per request that may be under way; 0: 64 */
};

struct core_request {
    const char *request_id;
    struct msg_ids prompt;
    int32_t n;
    struct msg_sampling sampling;
    bool score; /* the prompt's own ids too, with so many alternatives: */
    int32_t score_top;
    int64_t arrived_ns; /* what its deadline counts from; 0: now */
    const char *cache_salt;
    void *client;
};

enum status core_create(const struct core_args *args, struct core **out, struct error *err);
void core_destroy(struct core *c);
/* ST_BUSY: the queue is full (429). ST_INVALID: over the context (the text is the API's).
 * ST_NEVER_FITS: no node that has ever been seen has the memory. ST_LINK: no node can serve. */
enum status core_submit(struct core *c, const struct core_request *req, int64_t now_ns,
                        slot_id *out, struct error *err);
void core_consumed(struct core *c, slot_id id, int32_t tokens);
void core_stop_choice(struct core *c, slot_id id, int32_t choice);
void core_cancel(struct core *c, slot_id id, enum status status, const char *text);
/* What it has used until now; all 0 once it has ended. */
void core_usage(struct core *c, slot_id id, struct msg_usage *out);
/* Names of the nodes that serve it now; "" when none. */
void core_nodes(struct core *c, slot_id id, const char **prefill, const char **decode);

void core_on_message(struct core *c, uint64_t user, const uint8_t *data, size_t len,
                     int64_t now_ns);
void core_on_closed(struct core *c, uint64_t user, enum status status, const char *text,
                    int64_t now_ns);
/* Admits from the queue, polls nodes, watches deadlines and stalls. Call after every batch of
 * events and by core_wake_ns(). */
void core_tick(struct core *c, int64_t now_ns);
int64_t core_wake_ns(const struct core *c);
void core_drain(struct core *c); /* no new submits */
const struct cluster *core_cluster(const struct core *c);
struct core_load {
    int32_t requests, queued, calls;
};
void core_get_load(const struct core *c, struct core_load *out);

#endif
