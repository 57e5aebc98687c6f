/* What the files of the simulator share. */
#ifndef TESTS_SIM_SIM_WORLD_H
#define TESTS_SIM_SIM_WORLD_H

#include "base/list.h"
#include "base/rng.h"
#include "kvtransfer/mover.h"
#include "kvtransfer/transport_loopback.h"
#include "node/role.h"
#include "router/core_internal.h"
#include "sim/sim.h"
#include "support/fake_model.h"
#include "support/letters.h"

#define SIM_NODES 4
#define SIM_CLIENTS_MAX 12
#define SIM_CHOICES_MAX 3
#define SIM_PROMPT_MAX 90
#define SIM_TOKENS_MAX 24

struct world;

struct sim_node {
    struct world *world;
    int index;
    const struct node_role_ops *ops;
    bool alive, aggregated;
    uint64_t boot;
    int64_t back_ns;  /* dead: when it comes back */
    int64_t drain_ns; /* draining: when what is left is ended; 0: it does not drain */
    struct fake_model model;
    struct kv_layout layout;
    void *pool;
    struct role *role;
    struct engine *engine;
    struct transport *transport;
    struct mover *mover;
    struct msg_rank_address address;
    struct grammar_draft *draft; /* its compiling ends at draft_ns */
    int64_t draft_ns;
    int64_t busy_until_ns;
    char name[16];
};

/* A gRPC call as both ends see it. Freed when both have seen its end. */
struct sim_call {
    struct list in_world;
    struct sim_node *node;
    uint64_t boot; /* of the node when the call began */
    uint64_t user; /* the core's */
    void *handle;  /* the role's; NULL before OPEN and for Admin */
    bool admin;
    bool client_ended, server_ended, server_opened;
    bool unread;      /* the role has a message and has not asked for the next */
    struct list held; /* messages that wait for that */
    bool pinned;      /* a planted bug may still use it: freed at the end of the run */
    int64_t to_server_ns, to_client_ns; /* last delivery: streams keep their order */
};

enum sim_msg_kind {
    MSG_OPEN,
    MSG_TO_SERVER,
    MSG_READ, /* the role has asked for what is held */
    MSG_TO_CLIENT,
    MSG_END_SERVER,
    MSG_END_CLIENT,
    MSG_CONSUMED /* a client has passed tokens on */
};

struct sim_msg {
    struct list queue;
    int64_t at_ns;
    enum sim_msg_kind kind;
    struct sim_call *call;
    struct buf bytes;
    enum status status;
    int client, tokens;
};

struct sim_client {
    struct world *world;
    int index;
    slot_id id;
    bool submitted, live, ended, cancelled;
    enum status end;
    int64_t submit_ns, cancel_ns, slow_ns;
    int32_t prompt_ids[SIM_PROMPT_MAX];
    struct msg_ids prompt;
    struct msg_sampling sampling;
    int32_t n;
    bool scored;        /* the prompt is */
    int32_t next_score; /* position */
    float score[SIM_PROMPT_MAX];
    int32_t
        stop_at[SIM_CHOICES_MAX]; /* the router ends the choice after so many tokens; 0: never */
    bool stopped[SIM_CHOICES_MAX], finished[SIM_CHOICES_MAX];
    int32_t said[SIM_CHOICES_MAX];
    int32_t expect[SIM_CHOICES_MAX][SIM_TOKENS_MAX], n_expect[SIM_CHOICES_MAX];
    enum msg_finish_reason reason[SIM_CHOICES_MAX];
    int starts; /* times a Start for it was sent: PLANT_LAW5 */
};

struct world {
    uint64_t seed;
    struct rng rng;
    enum sim_plant plant;
    bool verbose;
    struct sim_coverage *coverage;
    struct sim_result *result;
    int64_t now_ns;
    struct fabric *fabric;
    const struct letters *letters; /* NULL: nobody asks for a grammar */
    int32_t windows[2], slack;     /* of the model's layers; 0, 0: none slides */
    struct sim_node nodes[SIM_NODES];
    int n_nodes;
    struct config config;
    struct core *core;
    bool router_dead;
    int64_t router_dies_ns;
    int64_t next_tick_ns, tick_lag_ns; /* the router takes events in batches */
    struct list calls, messages;
    struct sim_client clients[SIM_CLIENTS_MAX];
    int n_clients;
    /* faults of this run */
    double lose, doubled, delay, damage, break_link;
    int64_t delay_ns_max;
    int kills_left; /* nodes that will die, calls that will break: fewer than make a request poison
                     */
    int64_t next_kill_ns;
    int64_t arrives_ns[SIM_NODES][SIM_NODES]; /* the last frame under way from one to another */
};

void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool world_chance(struct world *w, double p);
int64_t world_between(struct world *w, int64_t lo, int64_t hi);

/* sim_fault.c */
void sim_make_faults(struct world *w);
void sim_frame_fate(void *ctx, const struct fabric_message *m, struct fabric_fate *fate);

/* sim_rpc.c */
void sim_core_effects(struct world *w, struct core_effects *out);
void sim_role_calls(struct node_effects *out);
struct sim_msg *sim_post(struct world *w, int64_t at_ns, enum sim_msg_kind kind,
                         struct sim_call *call);
void sim_deliver(struct world *w, struct sim_msg *m);
void sim_calls_of_dead_node(struct world *w, struct sim_node *n, int64_t notice_ns);
void sim_router_dies(struct world *w);
void sim_break_some_call(struct world *w);
void sim_rpc_fini(struct world *w);

/* sim_node.c */
void sim_node_boot(struct world *w, struct sim_node *n);
void sim_node_die(struct world *w, struct sim_node *n);
void sim_node_drain(struct world *w, struct sim_node *n);
void sim_node_fini(struct sim_node *n);
bool sim_node_work(struct world *w, struct sim_node *n);
int64_t sim_node_wake_ns(const struct sim_node *n);

/* sim_client.c */
void sim_client_init(struct world *w, int index);
void sim_client_effects(struct core_effects *out);
void sim_clients_work(struct world *w);
void sim_count_event(struct world *w, enum sim_event e, const struct core_req *q);

#endif
