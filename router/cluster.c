#include "router/cluster.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define WINDOW_MAX 64 /* reservations at once: beyond it a node counts as roomy */

void cluster_init(struct cluster *c, const struct config *config)
{
    memset(c, 0, sizeof(*c));
    for (size_t i = 0; i < config->router.n_nodes && c->n < CLUSTER_NODES_MAX; i++) {
        struct cluster_node *n = &c->nodes[c->n++];
        n->role = n->configured = config->router.nodes[i].role;
        snprintf(n->address, sizeof(n->address), "%s", config->router.nodes[i].address);
        snprintf(n->name, sizeof(n->name), "node%d", c->n - 1);
    }
}

static bool seen(const struct cluster_node *n)
{
    return n->max_context > 0 && n->state != NODE_REFUSED;
}

/* It has not answered yet, nor failed to: it may be large. */
static bool unheard(const struct cluster_node *n)
{
    return n->max_context == 0 && n->state == NODE_UNKNOWN;
}

static void recount_limits(struct cluster *c)
{
    c->max_context = 0;
    for (int32_t i = 0; i < c->n; i++) {
        const struct cluster_node *n = &c->nodes[i];
        if (!seen(n))
            continue;
        if (n->role != ROLE_PREFILL && n->max_context > c->max_context)
            c->max_context = n->max_context;
        c->vocab = n->vocab;
    }
}

static bool role_fits(enum node_role configured, const char *said)
{
    switch (configured) {
    case ROLE_PREFILL:
        return strcmp(said, "prefill") == 0;
    case ROLE_DECODE:
        return strcmp(said, "decode") == 0 || strcmp(said, "both") == 0;
    case ROLE_BOTH:
        return strcmp(said, "both") == 0;
    case ROLE_ROUTER:
        break;
    }
    return false;
}

static const char *refusal(const struct cluster *c, const struct cluster_node *n,
                           const struct msg_status *s)
{
    if (s->wire_min > MSG_WIRE_VERSION || s->wire_max < MSG_WIRE_VERSION)
        return "it speaks other wire versions";
    if (c->has_model && memcmp(c->fingerprint, s->fingerprint, sizeof(c->fingerprint)) != 0)
        return "it serves another model (fingerprint differs)";
    if (!role_fits(n->configured, s->role))
        return "it has another role than configured";
    return NULL;
}

bool cluster_on_status(struct cluster *c, int32_t node, const struct msg_status *s, int64_t now_ns,
                       const char **why)
{
    struct cluster_node *n = &c->nodes[node];
    enum node_state before = n->state;
    n->seen_ns = now_ns;
    *why = refusal(c, n, s);
    if (*why) {
        n->state = NODE_REFUSED;
        if (before != NODE_REFUSED || n->refused_why != *why)
            log_error("node_refused", "address=%s reason=\"%s\"", n->address, *why);
        n->refused_why = *why;
        return false;
    }
    if (!c->has_model && s->ready) {
        c->has_model = true;
        memcpy(c->fingerprint, s->fingerprint, sizeof(c->fingerprint));
        snprintf(c->model, sizeof(c->model), "%s", s->model);
    }
    n->role = strcmp(s->role, "both") == 0 ? ROLE_BOTH : n->configured;
    memcpy(n->fingerprint, s->fingerprint, sizeof(n->fingerprint));
    snprintf(n->name, sizeof(n->name), "%s", s->name);
    snprintf(n->http, sizeof(n->http), "%s", s->http ? s->http : "");
    n->boot = s->boot;
    n->max_context = s->max_context;
    n->vocab = s->vocab;
    n->block_tokens = s->block_tokens;
    n->blocks = s->blocks;
    n->room_tokens = s->room_tokens;
    n->running = s->running;
    n->waiting = s->waiting;
    n->waiting_tokens = s->waiting_tokens;
    n->slots = s->slots;
    n->prefill_ns_per_token = s->prefill_ns_per_token;
    n->decode_ns_per_step = s->decode_ns_per_step;
    n->state = s->draining ? NODE_DRAINING : s->ready ? NODE_UP : NODE_UNKNOWN;
    if (n->state != before)
        log_info(n->state == NODE_UP ? "node_up" : "node_draining", "node=%s role=%s address=%s",
                 n->name, s->role, n->address);
    recount_limits(c);
    return true;
}

void cluster_on_lost(struct cluster *c, int32_t node, int64_t now_ns)
{
    struct cluster_node *n = &c->nodes[node];
    if (n->state == NODE_UP || n->state == NODE_DRAINING)
        log_warn("node_down", "node=%s address=%s", n->name, n->address);
    n->state = NODE_DOWN;
    n->next_poll_ns = now_ns + CLUSTER_POLL_NS;
}

void cluster_on_busy(struct cluster *c, int32_t node, int64_t now_ns)
{
    c->nodes[node].busy_until_ns = now_ns + CLUSTER_BUSY_NS;
    c->nodes[node].window = 1;
}

void cluster_reserve(struct cluster *c, int32_t node)
{
    c->nodes[node].reserving++;
}

void cluster_reserved(struct cluster *c, int32_t node, bool accepted)
{
    struct cluster_node *n = &c->nodes[node];
    n->reserving--;
    if (accepted)
        n->window = n->window < WINDOW_MAX ? 2 * n->window : 0;
}

/* Where layers slide a sequence needs more blocks than one for block_tokens tokens, or fewer. */
static int64_t room_of(const struct cluster_node *n)
{
    return n->room_tokens > 0 ? n->room_tokens : n->blocks.total * n->block_tokens;
}

int64_t cluster_room(const struct cluster *c, int32_t node)
{
    return room_of(&c->nodes[node]);
}

bool cluster_node_fits(const struct cluster_node *n, const struct cluster_need *need)
{
    int64_t block = n->block_tokens, room = room_of(n);
    if (!need)
        return true;
    if (n->max_context > 0 && need->context > n->max_context)
        return false;
    if (block <= 0 || room <= 0) /* it does not say */
        return true;
    return (need->tokens + block - 1) / block + need->choices <= room / block && room > need->above;
}

bool cluster_fits(const struct cluster *c, const struct cluster_need *need, bool up)
{
    for (int32_t i = 0; i < c->n; i++) {
        const struct cluster_node *n = &c->nodes[i];
        if ((up ? n->state == NODE_UP : seen(n) || unheard(n)) && n->role != ROLE_PREFILL &&
            cluster_node_fits(n, need))
            return true;
    }
    return false;
}

void cluster_avoid_pair(struct cluster *c, int32_t prefill, int32_t decode, int64_t now_ns)
{
    c->avoid[c->next_avoid] = (struct cluster_avoid){
        .prefill = prefill, .decode = decode, .until_ns = now_ns + CLUSTER_AVOID_NS};
    c->next_avoid = (c->next_avoid + 1) % CLUSTER_AVOID_MAX;
}

bool cluster_pair_ok(const struct cluster *c, int32_t prefill, int32_t decode, int64_t now_ns)
{
    for (int32_t i = 0; i < CLUSTER_AVOID_MAX; i++) {
        const struct cluster_avoid *a = &c->avoid[i];
        if (a->until_ns > now_ns && a->prefill == prefill && a->decode == decode)
            return false;
    }
    return true;
}

bool cluster_can_send(const struct cluster *c, int32_t decode, const struct cluster_need *need,
                      int64_t now_ns)
{
    for (int32_t i = 0; i < c->n; i++)
        if (c->nodes[i].state == NODE_UP && c->nodes[i].role == ROLE_PREFILL &&
            cluster_node_fits(&c->nodes[i], need) && cluster_pair_ok(c, i, decode, now_ns))
            return true;
    return false;
}

int32_t cluster_count(const struct cluster *c, enum node_role role, enum node_state state)
{
    int32_t n = 0;
    for (int32_t i = 0; i < c->n; i++)
        n += c->nodes[i].state == state && c->nodes[i].role == role;
    return n;
}

bool cluster_has(const struct cluster *c, enum node_role role)
{
    return cluster_count(c, role, NODE_UP) > 0;
}

bool cluster_ready(const struct cluster *c)
{
    return cluster_has(c, ROLE_DECODE) || cluster_has(c, ROLE_BOTH);
}

bool cluster_complete(const struct cluster *c)
{
    for (int32_t i = 0; i < c->n; i++)
        if (c->nodes[i].state != NODE_UP)
            return false;
    return true;
}

void cluster_place(struct cluster *c, int32_t node, int64_t tokens)
{
    c->nodes[node].calls++;
    c->nodes[node].tokens += tokens;
}

void cluster_unplace(struct cluster *c, int32_t node, int64_t tokens)
{
    c->nodes[node].calls--;
    c->nodes[node].tokens -= tokens;
}
