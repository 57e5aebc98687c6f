/* The core's door: from the queue to nodes. */
#include "router/core_internal.h"

#define LOOK_AT_MAX 256 /* of the queue, each time */

/* Picks nodes for the request; false: none can take it now. A decode node that no prefill node can
 * reach gives way to another one, else it computes the prompt itself. */
static bool pick_nodes(struct core *c, struct core_req *q, const bool *held, int32_t *d_out,
                       int32_t *p_out)
{
    const struct cluster *cl = &c->cluster;
    const struct cluster_need of_d = core_need_of_d(q), of_p = core_need_of_p(q);
    struct policy_query query = {.role = ROLE_DECODE,
                                 .need = &of_d,
                                 .held = held,
                                 .with_decode = -1,
                                 .not_node = -1,
                                 .now_ns = c->now_ns};
    int32_t d = policy_pick_least_loaded(cl, &query);
    *p_out = -1;
    if (d >= 0 && cluster_has(cl, ROLE_PREFILL) && !cluster_can_send(cl, d, &of_p, c->now_ns)) {
        query.not_node = d;
        int32_t other = policy_pick_least_loaded(cl, &query);
        query.not_node = -1;
        if (other >= 0 && cluster_can_send(cl, other, &of_p, c->now_ns))
            d = other;
    }
    *d_out = d;
    if (d < 0)
        return false;
    if (cl->nodes[d].role == ROLE_BOTH || !cluster_can_send(cl, d, &of_p, c->now_ns) ||
        policy_rest_is_short(cl, d, core_transfer_tokens(q)))
        return true;
    query = (struct policy_query){
        .role = ROLE_PREFILL, .need = &of_p, .with_decode = d, .not_node = -1, .now_ns = c->now_ns};
    *p_out = policy_pick_least_loaded(cl, &query);
    return *p_out >= 0;
}

static bool admit(struct core *c, struct core_req *q, const bool *held)
{
    int32_t d, p;
    if (!pick_nodes(c, q, held, &d, &p))
        return false;
    core_dequeue(c, q);
    q->d_node = d;
    q->p_node = p;
    q->p_name_node = p;
    q->p_failed = -1;
    if (!q->first_token_ns)
        q->placed_ns = c->now_ns;
    cluster_place(&c->cluster, d, (int64_t)q->prompt.n);
    cluster_reserve(&c->cluster, d);
    q->reserving = true;
    if (p >= 0)
        cluster_place(&c->cluster, p, (int64_t)q->prompt.n);
    request_admit(&q->sm, p < 0, c->now_ns);
    core_settle(c, q);
    return true;
}

/* Keeps for it every node that could take it some time. True: there is a node left. */
static bool hold(const struct core *c, const struct core_req *q, bool *held)
{
    const struct cluster *cl = &c->cluster;
    const struct cluster_need need = core_need_of_d(q);
    bool left = false;
    for (int32_t i = 0; i < cl->n; i++) {
        const struct cluster_node *n = &cl->nodes[i];
        if (n->state != NODE_UP || n->role == ROLE_PREFILL)
            continue;
        held[i] = held[i] || cluster_node_fits(n, &need);
        left = left || !held[i];
    }
    return left;
}

/* In order: what finds no room now must not be overtaken for ever by what does. Only nodes that are
 * too small for it are open to those behind it. */
void core_admit_all(struct core *c)
{
    bool held[CLUSTER_NODES_MAX] = {false};
    struct list *it = c->queue.next;
    for (int32_t looked = 0; it != &c->queue && looked < LOOK_AT_MAX; looked++) {
        struct core_req *q = list_entry(it, struct core_req, queue);
        /* Settling may put it back, but changes nothing about those before it. */
        struct list *before = it->prev;
        if (admit(c, q, held))
            it = before->next;
        else if (hold(c, q, held))
            it = it->next;
        else
            break;
    }
}
