/* What the files of a node's process share. Not for others. */
#ifndef NODE_NODE_INTERNAL_H
#define NODE_NODE_INTERNAL_H

#include "base/metrics.h"
#include "base/team.h"
#include "kvtransfer/shm_pool.h"
#include "net/http_server.h"
#include "node/compiler.h"
#include "node/node.h"
#include "node/transfer.h"
#include "proto/rpc.h"

#define NODE_ADMIN_CALLS_MAX 64

enum node_method { NODE_METHOD_ROLE, NODE_METHOD_STATUS, NODE_METHOD_DRAIN, NODE_METHODS };

struct node {
    const struct config *config;
    const struct node_role_ops *role_ops;
    bool aggregated;
    /* in the order of their making; torn down in the opposite order */
    struct metrics *metrics;
    struct team *team;
    struct model *model;
    struct grammar_vocab *vocab; /* NULL: the model has no tokenizer */
    struct compiler *compiler;
    struct shm_pool pool;
    struct kv_layout layout;
    struct role *role;
    struct engine *engine;
    struct transport *transports[MOVER_TRANSPORTS_MAX];
    int32_t n_transports;
    struct msg_rank_address address; /* of this rank; strings live in the mover */
    struct transfer *transfer;
    struct rpc *rpc;
    struct http_server *http;
    int signal_fd, epoll_fd;
    char grpc_address[300], http_address[300];
    uint64_t boot;
    int64_t drain_ns; /* when draining began; 0: not */
    bool final_drain;
    struct {
        struct rpc_call *call;
        int64_t opened_ns;
    } admin[NODE_ADMIN_CALLS_MAX]; /* open ones; those that say nothing are ended */
    int n_admin;
    struct buf out;
    struct {
        struct metric *blocks[6], *capacity, *prefix_hit, *preemptions, *running, *waiting;
        struct metric *step_prefill, *step_decode, *step_mixed, *step_tokens;
        struct metric *damaged, *unknown, *missing, *links_lost, *refused;
        int64_t prefix_hit_seen, preemptions_seen, damaged_seen, unknown_seen, missing_seen;
        int64_t links_seen, refused_seen;
    } m;
};

/* node_start.c */
enum status node_start(struct node *n, struct error *err);
void node_stop(struct node *n);

/* node_admin.c: Status, Drain, /metrics, /health */
/* False: there are too many. */
bool node_admin_open(struct node *n, struct rpc_call *call);
void node_admin_call(struct node *n, struct rpc_call *call, int method);
void node_admin_closed(struct node *n, struct rpc_call *call);
void node_admin_check_time(struct node *n, int64_t now_ns);
void node_http(struct node *n, struct http_request *r);
void node_metrics_register(struct node *n);
void node_drain(struct node *n);

#endif
