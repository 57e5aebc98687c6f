/* What the files of the router's core share. Not for others. */
#ifndef ROUTER_CORE_INTERNAL_H
#define ROUTER_CORE_INTERNAL_H

#include "base/list.h"
#include "proto/codec.h"
#include "router/core.h"

#define CORE_WATCH_NS (100 * NS_PER_MS) /* deadlines and stalls are looked at this often */
#define CORE_NO_NODE_NS                                                                            \
    (10 * NS_PER_S)                   /* how long a request waits for a decode node to come back */
#define CORE_STATUS_NS (5 * NS_PER_S) /* a node that takes longer to say how it is, is down */

enum core_call_kind { CORE_CALL_D, CORE_CALL_P, CORE_CALL_STATUS };

struct core_call {
    slot_id id;
    enum core_call_kind kind;
    int32_t node;
    slot_id request; /* 0: nobody listens */
    bool abandoned;  /* we cancelled it: how it ends says nothing about the node */
    void *rpc;
};

struct core_call_args {
    enum core_call_kind kind;
    int32_t node;
    slot_id request;
    const char *method;
    int64_t deadline_ns;
};

struct core_choice {
    bool stop_pending;
    int64_t last_token_ns; /* 0: none yet */
};

struct core_req {
    struct request sm;
    slot_id id;
    void *client;
    /* Its place in the queue: what was accepted once before what never was, each in order of
     * arrival. */
    struct list queue;
    bool queued, touched, started;
    uint64_t arrival;
    int64_t queued_ns, waited_ns; /* since when it is queued; how long it was before that */
    int64_t fits_ns;              /* when a decode node was last up that is large enough */
    /* copied from the client's request into `memory` */
    void *memory;
    struct msg_ids prompt;
    struct msg_sampling sampling;
    int32_t score_top;
    const char *cache_salt, *request_id;
    /* the nodes it is placed on; -1: none */
    int32_t d_node, p_node, p_failed, p_name_node;
    bool reserving; /* counted as such on d_node */
    int64_t above;  /* the largest pool that proved too small, tokens */
    slot_id d_call, p_call;
    struct msg_rank_address d_ranks[MSG_RANKS_MAX]; /* point into d_arena */
    uint32_t n_d_ranks;
    struct codec_arena d_arena; /* of the Accepted message */
    int32_t cached_tokens;
    int32_t start_emitted; /* ids that had been said when this Start was sent, over all choices */
    bool start_fresh;      /* none had, and no choice was over */
    /* credit: tokens that D may still send, tokens that the client has not passed on */
    int64_t window, d_outstanding, unconsumed, consumed_ns;
    struct core_choice *choices; /* [n] */
    int32_t stops_pending;
    bool cancel_pending;
    enum status cancel_status;
    const char *cancel_text;
    /* placed_ns: on the nodes that said the first token; transfer_ns: what its KV took after it */
    int64_t submitted_ns, deadline_ns, placed_ns, first_token_ns, transfer_ns;
};

struct core {
    struct core_args args;
    struct cluster cluster;
    struct slots *requests, *calls;
    struct list queue;
    int32_t n_queued;
    uint64_t arrivals;
    bool draining, touched;
    int64_t now_ns, watch_ns;
    struct buf out;
    struct {
        struct metric *ok, *cancelled, *failed, *refused, *running, *waiting, *resumed;
        struct metric *ttft, *itl, *queue, *prefill, *transfer, *decode, *total;
        struct metric *prompt_tokens, *generated_tokens, *cached_tokens;
    } m;
};

bool core_settle(struct core *c, struct core_req *q);
/* Starts a call whose first message is in c->out; NULL: it could not be started or sent. */
struct core_call *core_call_begin(struct core *c, const struct core_call_args *a);
void core_release_p(struct core *c, struct core_req *q);
int64_t core_transfer_tokens(const struct core_req *q);
struct cluster_need core_need_of_d(const struct core_req *q);
struct cluster_need core_need_of_p(const struct core_req *q);

void core_req_free(struct core *c, struct core_req *q);

/* core_submit.c */
void core_enqueue(struct core *c, struct core_req *q);
void core_dequeue(struct core *c, struct core_req *q);

/* core_admit.c */
void core_admit_all(struct core *c);

/* core_calls.c */
void core_poll_nodes(struct core *c);

/* core_metrics.c */
void core_metrics_register(struct core *c);
void core_metrics_token(struct core *c, struct core_req *q, int32_t choice);
void core_metrics_refused(struct core *c);
void core_metrics_resumed(struct core *c, struct core_req *q);
void core_metrics_end(struct core *c, struct core_req *q, const struct msg_usage *usage);
void core_metrics_update(struct core *c);

#endif
