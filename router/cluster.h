/* The router's view of its nodes: who is there, how loaded, whom to avoid.
 *
 *     UNKNOWN --status ok, same model--> UP --call lost / status failed--> DOWN --status ok--> UP
 *                    \--other model or wire version--> REFUSED (until it restarts as the right one)
 *     UP --says it drains--> DRAINING
 *
 * Each node is asked for Admin.Status every CLUSTER_POLL_NS; between answers the router's own
 * counts of what it has placed on a node keep the choice honest. The first node that answers fixes
 * the model; a node with another fingerprint is refused.
 *
 * Plain data, no I/O or clock. Owner: core.c; thread: the router's loop.
 */
#ifndef ROUTER_CLUSTER_H
#define ROUTER_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/config.h"
#include "proto/messages.h"

#define CLUSTER_NODES_MAX CONFIG_NODES_MAX
#define CLUSTER_POLL_NS (250 * NS_PER_MS)
#define CLUSTER_AVOID_NS (10 * NS_PER_S)
#define CLUSTER_BUSY_NS (20 * NS_PER_MS)
#define CLUSTER_AVOID_MAX 64

enum node_state { NODE_UNKNOWN, NODE_UP, NODE_DRAINING, NODE_DOWN, NODE_REFUSED, NODE_STATES };

struct cluster_node {
    enum node_role configured; /* PREFILL, DECODE, or BOTH: only an aggregated decode node */
    enum node_role role;       /* as it says it is: a DECODE may turn out to be BOTH */
    char address[256];
    enum node_state state;
    char name[64], http[256];
    uint64_t fingerprint[2], boot;
    int32_t max_context, vocab, block_tokens;
    struct msg_blocks blocks;
    int64_t room_tokens;                             /* of one sequence, as its status says */
    int64_t running, waiting, waiting_tokens, slots; /* as last reported */
    int64_t prefill_ns_per_token, decode_ns_per_step;
    int64_t seen_ns, next_poll_ns, busy_until_ns;
    /* After a BUSY, how many reservations may be under way at once: doubles with each that is
     * accepted; 0: any number. */
    int32_t window, reserving;
    const char *refused_why; /* of the last refusal: said once each */
    /* our own: what is placed there now */
    int32_t calls;
    int64_t tokens; /* prompt tokens of those calls */
};

/* A pair whose link failed: not used together for a while. */
struct cluster_avoid {
    int32_t prefill, decode;
    int64_t until_ns;
};

struct cluster {
    struct cluster_node nodes[CLUSTER_NODES_MAX];
    int32_t n;
    bool has_model;
    uint64_t fingerprint[2];
    char model[256];
    int32_t max_context, vocab; /* context: the most of any decode node that has been seen */
    struct cluster_avoid avoid[CLUSTER_AVOID_MAX];
    int32_t next_avoid;
};

/* What a request takes of a node for good: more than a node has, and it never fits there. */
struct cluster_need {
    int64_t tokens;  /* whose KV is needed before the first new token */
    int32_t choices; /* each wants a block of its own */
    int64_t context; /* tokens at the end */
    int64_t above;   /* tokens of a pool that proved too small */
};

void cluster_init(struct cluster *c, const struct config *config);
/* Takes a node's status. False: refused, `why` is set. */
bool cluster_on_status(struct cluster *c, int32_t node, const struct msg_status *s, int64_t now_ns,
                       const char **why);
/* A call to it was lost, or it did not answer. */
void cluster_on_lost(struct cluster *c, int32_t node, int64_t now_ns);
/* It is full: it gets nothing for a while, and then one at a time until it takes some. */
void cluster_on_busy(struct cluster *c, int32_t node, int64_t now_ns);
/* A reservation on a decode node begins; ends, accepted or not. */
void cluster_reserve(struct cluster *c, int32_t node);
void cluster_reserved(struct cluster *c, int32_t node, bool accepted);
/* Tokens that its pool holds; 0: it has not said. */
int64_t cluster_room(const struct cluster *c, int32_t node);
bool cluster_node_fits(const struct cluster_node *n, const struct cluster_need *need);
/* True when some decode node, up or not, is large enough or has not answered yet; `up`: one that is
 * up. */
bool cluster_fits(const struct cluster *c, const struct cluster_need *need, bool up);
void cluster_avoid_pair(struct cluster *c, int32_t prefill, int32_t decode, int64_t now_ns);
bool cluster_pair_ok(const struct cluster *c, int32_t prefill, int32_t decode, int64_t now_ns);
/* True when some prefill node that is up and large enough (need; NULL: any) may send to that decode
 * node. */
bool cluster_can_send(const struct cluster *c, int32_t decode, const struct cluster_need *need,
                      int64_t now_ns);
bool cluster_has(const struct cluster *c, enum node_role role); /* one that is up */
/* True when some decode node is up: requests can be served. */
bool cluster_ready(const struct cluster *c);
/* How many nodes of that role are in that state. */
int32_t cluster_count(const struct cluster *c, enum node_role role, enum node_state state);
/* True when every node of the configuration is up. */
bool cluster_complete(const struct cluster *c);
void cluster_place(struct cluster *c, int32_t node, int64_t tokens);
void cluster_unplace(struct cluster *c, int32_t node, int64_t tokens);

/* ---- policy (policy_least_loaded.c): pure choice ---- */

struct policy_query {
    enum node_role role;
    const struct cluster_need *need; /* NULL: fits anywhere */
    const bool *held;                /* [n] nodes that others wait for; NULL: none */
    int32_t with_decode;             /* prefill: the decode node it is to send to; -1 */
    int32_t not_node;                /* one that just failed; -1 */
    int64_t now_ns;
};
/* The best node that can take it now; -1: none now. A decode query may be answered with an
 * aggregated node. */
int32_t policy_pick_least_loaded(const struct cluster *c, const struct policy_query *q);
/* Whether D should compute `rest` prompt tokens by itself rather than have them sent: short
 * prompts, by measured cost. */
bool policy_rest_is_short(const struct cluster *c, int32_t decode, int64_t rest);

#endif
