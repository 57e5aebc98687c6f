/* The core's door: from the queue to nodes. */
#include "router/core_internal.h"

/* Picks nodes for the request; false: none can take it now. A decode node that no prefill node can
 * reach gives way to another one, else it computes the prompt itself. */
static bool pick_nodes(struct core *c, struct core_req *q, int32_t *d_out, int32_t *p_out)
{
    const struct cluster *cl = &c->cluster;
    struct policy_query query = {.role = ROLE_DECODE,
                                 .prompt_tokens = q->prompt.n,
                                 .with_decode = -1,
                                 .not_node = -1,
                                 .now_ns = c->now_ns};
    int32_t d = policy_pick_least_loaded(cl, &query);
    *p_out = -1;
    if (d >= 0 && cluster_has(cl, ROLE_PREFILL) && !cluster_can_send(cl, d, c->now_ns)) {
        query.not_node = d;
        int32_t other = policy_pick_least_loaded(cl, &query);
        query.not_node = -1;
        if (other >= 0 && cluster_can_send(cl, other, c->now_ns))
            d = other;
    }
    *d_out = d;
    if (d < 0)
        return false;
    if (cl->nodes[d].role == ROLE_BOTH || !cluster_can_send(cl, d, c->now_ns) ||
        policy_rest_is_short(cl, d, core_transfer_tokens(q)))
        return true;
    query.role = ROLE_PREFILL;
    query.with_decode = d;
    *p_out = policy_pick_least_loaded(cl, &query);
    return *p_out >= 0;
}

static bool admit(struct core *c, struct core_req *q)
{
    int32_t d, p;
    if (!pick_nodes(c, q, &d, &p))
        return false;
    list_remove(&q->queue);
    q->queued = false;
    c->n_queued--;
    q->d_node = d;
    q->p_node = p;
    q->p_name_node = p;
    q->p_failed = -1;
    cluster_place(&c->cluster, d, (int64_t)q->prompt.n);
    if (p >= 0)
        cluster_place(&c->cluster, p, (int64_t)q->prompt.n);
    request_admit(&q->sm, p < 0, c->now_ns);
    core_settle(c, q);
    return true;
}

void core_admit_all(struct core *c)
{
    int32_t looked = 0;
    for (struct list *it = c->queue.next; it != &c->queue && looked < 64;) {
        struct core_req *q = list_entry(it, struct core_req, queue);
        it = it->next;
        looked++;
        if (q->not_before_ns > c->now_ns)
            continue;
        /* In order: what does not fit now must not be overtaken for ever by what does. */
        if (!admit(c, q))
            break;
        it = c->queue.next; /* settling may have changed the queue */
    }
}
