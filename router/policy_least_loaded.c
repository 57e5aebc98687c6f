/* Least loaded: the prefill node with the fewest prompt tokens before it, the decode node with the
 * fewest requests for its room. Counts are the router's own, which are exact and instant, where the
 * node's report would be a poll old. */
#include "router/cluster.h"

/* Below this a handoff costs more than computing here, whatever was measured. */
#define SHORT_TOKENS_MIN 16
/* What a handoff costs besides the prefill: two calls and a transfer, with a margin. */
#define HANDOFF_NS (3 * NS_PER_MS)

static bool takes(const struct cluster_node *n, const struct policy_query *q)
{
    if (n->state != NODE_UP || n->busy_until_ns > q->now_ns)
        return false;
    if (n->slots > 0 && n->calls >= n->slots)
        return false;
    if (!cluster_node_fits(n, q->need))
        return false;
    if (q->role == ROLE_PREFILL)
        return n->role == ROLE_PREFILL;
    if (n->window > 0 && n->reserving >= n->window)
        return false;
    return n->role == ROLE_DECODE || n->role == ROLE_BOTH;
}

/* Lower is better. */
static double load_of(const struct cluster_node *n, enum node_role role)
{
    if (role == ROLE_PREFILL)
        return (double)n->tokens + 0.001 * (double)n->calls;
    double room = (double)(n->blocks.total > 0 ? n->blocks.total : 1);
    return ((double)n->calls + (double)n->tokens * 1e-3) / room;
}

int32_t policy_pick_least_loaded(const struct cluster *c, const struct policy_query *q)
{
    int32_t best = -1;
    for (int32_t i = 0; i < c->n; i++) {
        const struct cluster_node *n = &c->nodes[i];
        if (i == q->not_node || (q->held && q->held[i]) || !takes(n, q))
            continue;
        if (q->with_decode >= 0 && !cluster_pair_ok(c, i, q->with_decode, q->now_ns))
            continue;
        if (best < 0 || load_of(n, q->role) < load_of(&c->nodes[best], q->role))
            best = i;
    }
    return best;
}

bool policy_rest_is_short(const struct cluster *c, int32_t decode, int64_t rest)
{
    const struct cluster_node *n = &c->nodes[decode];
    if (rest <= SHORT_TOKENS_MIN)
        return true;
    return n->prefill_ns_per_token > 0 && rest * n->prefill_ns_per_token < HANDOFF_NS &&
           rest < 4 * SHORT_TOKENS_MIN;
}
