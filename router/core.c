#include "router/core_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* ---- life of a request object ---- */

enum status core_create(const struct core_args *args, struct core **out, struct error *err)
{
    struct core *c = calloc(1, sizeof(*c));
    if (c) {
        c->args = *args;
        c->requests = slots_create((size_t)args->max_requests, sizeof(struct core_req));
        /* Two calls a request, calls that were cancelled and not yet closed, and one poll a node.
         */
        c->calls = slots_create(4 * (size_t)args->max_requests + CLUSTER_NODES_MAX,
                                sizeof(struct core_call));
        list_init(&c->queue);
    }
    if (!c || !c->requests || !c->calls) {
        if (c && c->requests)
            slots_destroy(c->requests);
        free(c);
        return err_set(err, ST_NO_MEMORY, "no memory for %d requests", args->max_requests);
    }
    cluster_init(&c->cluster, args->config);
    core_metrics_register(c);
    *out = c;
    return ST_OK;
}

void core_req_free(struct core *c, struct core_req *q)
{
    list_remove(&q->queue);
    c->n_queued -= q->queued;
    request_fini(&q->sm);
    codec_arena_fini(&q->d_arena);
    free(q->memory);
    free(q->choices);
    slots_free(c->requests, q->id);
}

void core_destroy(struct core *c)
{
    if (!c)
        return;
    for (slot_id id = slots_next(c->requests, 0); id; id = slots_next(c->requests, id)) {
        struct core_req *q = slots_get(c->requests, id);
        request_fini(&q->sm);
        codec_arena_fini(&q->d_arena);
        free(q->memory);
        free(q->choices);
    }
    slots_destroy(c->requests);
    slots_destroy(c->calls);
    buf_fini(&c->out);
    free(c);
}

/* ---- calls ---- */

struct core_call *core_call_begin(struct core *c, const struct core_call_args *a)
{
    slot_id id;
    /* Calls that were given up and have not ended must not keep nodes from being asked. */
    if (a->kind != CORE_CALL_STATUS &&
        slots_count(c->calls) >= slots_capacity(c->calls) - CLUSTER_NODES_MAX)
        return NULL;
    struct core_call *k = slots_alloc(c->calls, &id);
    if (!k)
        return NULL;
    k->id = id;
    k->kind = a->kind;
    k->node = a->node;
    k->request = a->request;
    k->rpc =
        c->args.effects.call_start(c->args.effects.ctx, a->node, a->method, a->deadline_ns, id);
    if (!k->rpc) {
        slots_free(c->calls, id);
        return NULL;
    }
    enum status st = c->out.failed
                         ? ST_NO_MEMORY
                         : c->args.effects.call_send(c->args.effects.ctx, k->rpc, &c->out);
    /* CANCELLED: over already, perhaps because the node has answered before it was asked; what it
     * said, or why it failed, is on its way and tells more than we know here. */
    if (st != ST_OK && st != ST_CANCELLED) {
        /* The call exists: its closing will come and free the slot; nobody listens to it any more.
         */
        k->request = 0;
        k->abandoned = true;
        c->args.effects.call_cancel(c->args.effects.ctx, k->rpc);
        return NULL;
    }
    return k;
}

static void call_abandon(struct core *c, slot_id *id)
{
    struct core_call *k = slots_get(c->calls, *id);
    *id = 0;
    if (!k)
        return;
    k->request = 0;
    k->abandoned = true;
    c->args.effects.call_cancel(c->args.effects.ctx, k->rpc);
}

void core_release_p(struct core *c, struct core_req *q)
{
    if (q->p_node >= 0)
        cluster_unplace(&c->cluster, q->p_node, (int64_t)q->prompt.n);
    q->p_node = -1;
}

static void release_d(struct core *c, struct core_req *q)
{
    if (q->reserving)
        cluster_reserved(&c->cluster, q->d_node, false);
    q->reserving = false;
    if (q->d_node >= 0)
        cluster_unplace(&c->cluster, q->d_node, (int64_t)q->prompt.n);
    q->d_node = -1;
}

/* Tokens whose KV a decode node needs before it can go on: for one sequence its emitted ids too. */
int64_t core_transfer_tokens(const struct core_req *q)
{
    return (int64_t)q->prompt.n + (q->sm.n == 1 ? q->sm.choices[0].n : 0);
}

struct cluster_need core_need_of_d(const struct core_req *q)
{
    return (struct cluster_need){.tokens = core_transfer_tokens(q),
                                 .choices = q->sm.n - q->sm.finished,
                                 .context = (int64_t)q->prompt.n + q->sampling.max_tokens,
                                 .above = q->above};
}

struct cluster_need core_need_of_p(const struct core_req *q)
{
    int64_t tokens = core_transfer_tokens(q);
    return (struct cluster_need){.tokens = tokens, .context = tokens + 1};
}

/* What is still to be scored of the prompt. */
static struct msg_scoring scoring_of(const struct core_req *q)
{
    if (!request_scores_missing(&q->sm))
        return (struct msg_scoring){0};
    return (struct msg_scoring){.begin = q->sm.scored, .top = q->score_top};
}

/* ---- actions ---- */

static void start_d(struct core *c, struct core_req *q)
{
    struct msg_ids *emitted = calloc((size_t)q->sm.n, sizeof(*emitted));
    bool *finished = calloc((size_t)q->sm.n, sizeof(*finished));
    struct core_call *k = NULL;
    q->d_outstanding = q->window - q->unconsumed > 0 ? q->window - q->unconsumed : 0;
    if (request_scores_missing(&q->sm))
        q->d_outstanding = 0; /* no token before the last score */
    struct msg_start m = {.request_id = q->request_id,
                          .prompt = q->prompt,
                          .n = q->sm.n,
                          .emitted = emitted,
                          .finished = finished,
                          .sampling = q->sampling,
                          .cache_salt = q->cache_salt,
                          .deadline_ms = (q->deadline_ns - c->now_ns) / NS_PER_MS,
                          .credits = q->d_outstanding,
                          .local_prefill = q->sm.local,
                          .scoring = scoring_of(q)};
    memcpy(m.fingerprint, c->cluster.fingerprint, sizeof(m.fingerprint));
    q->start_emitted = 0;
    q->start_fresh = true;
    if (emitted && finished) {
        for (int32_t i = 0; i < q->sm.n; i++) {
            const struct request_choice *x = &q->sm.choices[i];
            emitted[i] = (struct msg_ids){.v = x->ids, .n = (uint32_t)x->n};
            finished[i] = x->finished;
            q->start_emitted += x->n;
            q->start_fresh = q->start_fresh && x->n == 0 && !x->finished;
        }
        buf_clear(&c->out);
        codec_put_start(&c->out, &m);
        const struct core_call_args a = {.kind = CORE_CALL_D,
                                         .node = q->d_node,
                                         .request = q->id,
                                         .method = "/baton.v1.Decode/Start",
                                         .deadline_ns = q->deadline_ns};
        k = core_call_begin(c, &a);
    }
    free(emitted);
    free(finished);
    if (k) {
        q->d_call = k->id;
        return;
    }
    cluster_on_busy(&c->cluster, q->d_node, c->now_ns);
    release_d(c, q);
    core_release_p(c, q);
    request_on_d_closed(&q->sm, ST_BUSY, "no call could be started", c->now_ns);
}

/* One sequence that continues: its emitted ids are part of what P computes, as many as there were
 * when D reserved; what has been said since does not change what D waits for. Several: only the
 * prompt is shared. */
static bool build_prefill(struct core *c, struct core_req *q, struct buf *ids,
                          struct msg_prefill *m)
{
    buf_append(ids, q->prompt.v, sizeof(int32_t) * q->prompt.n);
    if (q->sm.n == 1)
        buf_append(ids, q->sm.choices[0].ids, sizeof(int32_t) * (size_t)q->start_emitted);
    if (ids->failed)
        return false;
    *m = (struct msg_prefill){
        .request_id = q->request_id,
        .prompt = {.v = (const int32_t *)(const void *)ids->data,
                   .n = (uint32_t)(ids->len / sizeof(int32_t))},
        .prompt_tokens = (int32_t)q->prompt.n,
        .n = q->sm.n,
        /* Of what was said before only D can tell whether it is the end already. */
        .want_first = q->start_fresh && q->sampling.max_tokens > 0,
        .sampling = q->sampling,
        .cache_salt = q->cache_salt,
        .ticket = q->sm.ticket,
        .have_tokens = q->sm.have_tokens,
        .ranks = q->d_ranks,
        .n_ranks = q->n_d_ranks,
        .deadline_ms = (q->deadline_ns - c->now_ns) / NS_PER_MS,
        .scoring = scoring_of(q),
    };
    memcpy(m->fingerprint, c->cluster.fingerprint, sizeof(m->fingerprint));
    return true;
}

static void start_p(struct core *c, struct core_req *q)
{
    struct buf ids = {0};
    struct msg_prefill m;
    struct core_call *k = NULL;
    if (build_prefill(c, q, &ids, &m)) {
        buf_clear(&c->out);
        codec_put_prefill(&c->out, &m);
        const struct core_call_args a = {.kind = CORE_CALL_P,
                                         .node = q->p_node,
                                         .request = q->id,
                                         .method = "/baton.v1.Prefill/Run",
                                         .deadline_ns = q->deadline_ns};
        k = core_call_begin(c, &a);
    }
    buf_fini(&ids);
    if (k) {
        q->p_call = k->id;
        c->args.effects.call_half_close(c->args.effects.ctx, k->rpc);
        return;
    }
    cluster_on_busy(&c->cluster, q->p_node, c->now_ns);
    core_release_p(c, q);
    request_on_p_closed(&q->sm, ST_BUSY, "no call could be started", c->now_ns);
}

static void pick_p(struct core *c, struct core_req *q)
{
    const struct cluster_need need = core_need_of_p(q);
    struct policy_query query = {.role = ROLE_PREFILL,
                                 .need = &need,
                                 .with_decode = q->d_node,
                                 .not_node = q->p_failed,
                                 .now_ns = c->now_ns};
    int32_t node = q->sm.p_tries < 4 ? policy_pick_least_loaded(&c->cluster, &query) : -1;
    if (node < 0) {
        request_no_p(&q->sm, c->now_ns);
        return;
    }
    q->p_node = q->p_name_node = node;
    cluster_place(&c->cluster, node, (int64_t)q->prompt.n);
    request_p_picked(&q->sm);
}

static void send_control(struct core *c, struct core_req *q, const struct msg_decode_control *m)
{
    struct core_call *k = slots_get(c->calls, q->d_call);
    if (!k || !q->sm.d_live)
        return;
    buf_clear(&c->out);
    codec_put_control(&c->out, m);
    enum status st = c->out.failed
                         ? ST_NO_MEMORY
                         : c->args.effects.call_send(c->args.effects.ctx, k->rpc, &c->out);
    /* The node does not read: the call is of no use. Its closing resumes the request. But a call
     * that is over may have its last tokens and finishes still on the way: they are to be heard. */
    if (st != ST_OK && st != ST_CANCELLED)
        c->args.effects.call_cancel(c->args.effects.ctx, k->rpc);
}

static struct msg_usage usage_of(const struct core_req *q)
{
    struct msg_usage usage = {.prompt_tokens = (int32_t)q->prompt.n,
                              .cached_tokens = q->cached_tokens};
    for (int32_t i = 0; i < q->sm.n; i++)
        usage.completion_tokens += q->sm.choices[i].n;
    return usage;
}

void core_usage(struct core *c, slot_id id, struct msg_usage *out)
{
    struct core_req *q = slots_get(c->requests, id);
    *out = q ? usage_of(q) : (struct msg_usage){0};
}

static void end_request(struct core *c, struct core_req *q)
{
    struct msg_usage usage = usage_of(q);
    core_metrics_end(c, q, &usage);
    c->args.effects.end(c->args.effects.ctx, q->client, q->sm.end_status, q->sm.end_text, &usage);
    release_d(c, q);
    core_release_p(c, q);
    core_req_free(c, q);
}

static void requeue(struct core *c, struct core_req *q)
{
    bool accepted = q->d_node >= 0 && !q->reserving;
    release_d(c, q);
    core_release_p(c, q);
    if (accepted)
        core_metrics_resumed(c, q);
    core_enqueue(c, q);
}

/* Carries out what the state machine wants. False: the request is gone. */
static bool run_actions(struct core *c, struct core_req *q)
{
    enum request_action a;
    while (request_take_action(&q->sm, &a)) {
        switch (a) {
        case REQUEST_START_D:
            start_d(c, q);
            break;
        case REQUEST_START_P:
            start_p(c, q);
            break;
        case REQUEST_PICK_P:
            pick_p(c, q);
            break;
        case REQUEST_CANCEL_D:
            call_abandon(c, &q->d_call);
            break;
        case REQUEST_CANCEL_P:
            call_abandon(c, &q->p_call);
            break;
        case REQUEST_PREFILL_HERE:
            core_release_p(c, q);
            q->p_name_node = -1;
            send_control(c, q, &(struct msg_decode_control){.prefill_here = true});
            break;
        case REQUEST_REQUEUE_LATER:
            if (q->d_node >= 0)
                cluster_on_busy(&c->cluster, q->d_node, c->now_ns);
            requeue(c, q);
            break;
        case REQUEST_REQUEUE:
            requeue(c, q);
            break;
        case REQUEST_END:
            end_request(c, q);
            return false;
        }
    }
    return true;
}

/* What the client asked for meanwhile, then actions, then credit. False: the request is gone. */
bool core_settle(struct core *c, struct core_req *q)
{
    for (int32_t i = 0; q->stops_pending > 0 && i < q->sm.n; i++) {
        if (!q->choices[i].stop_pending)
            continue;
        q->choices[i].stop_pending = false;
        q->stops_pending--;
        if (q->sm.choices[i].finished)
            continue;
        send_control(c, q, &(struct msg_decode_control){.stop_choice_plus1 = (uint32_t)i + 1});
        request_stop_choice(&q->sm, i, c->now_ns);
    }
    if (q->cancel_pending)
        request_end(&q->sm, q->cancel_status, q->cancel_text, c->now_ns);
    if (!run_actions(c, q))
        return false;
    int64_t grant = q->window - q->unconsumed - q->d_outstanding;
    if (q->d_call && q->sm.d_live && q->sm.state != REQUEST_RESERVING &&
        !request_scores_missing(&q->sm) && grant * 2 >= q->window) {
        q->d_outstanding += grant;
        send_control(c, q, &(struct msg_decode_control){.credit = grant});
    }
    return true;
}

/* ---- the client's side ---- */

void core_consumed(struct core *c, slot_id id, int32_t tokens)
{
    struct core_req *q = slots_get(c->requests, id);
    if (!q)
        return;
    q->unconsumed -= tokens;
    assert(q->unconsumed >= 0);
    q->consumed_ns = c->now_ns;
    q->touched = true;
    c->touched = true;
}

void core_stop_choice(struct core *c, slot_id id, int32_t choice)
{
    struct core_req *q = slots_get(c->requests, id);
    if (!q || choice < 0 || choice >= q->sm.n || q->choices[choice].stop_pending)
        return;
    q->choices[choice].stop_pending = true;
    q->stops_pending++;
    q->touched = true;
    c->touched = true;
}

void core_cancel(struct core *c, slot_id id, enum status status, const char *text)
{
    struct core_req *q = slots_get(c->requests, id);
    if (!q || q->cancel_pending)
        return;
    q->cancel_pending = true;
    q->cancel_status = status;
    q->cancel_text = text;
    q->touched = true;
    c->touched = true;
}

void core_nodes(struct core *c, slot_id id, const char **prefill, const char **decode)
{
    struct core_req *q = slots_get(c->requests, id);
    *prefill = q && q->p_name_node >= 0 ? c->cluster.nodes[q->p_name_node].name : "";
    *decode = q && q->d_node >= 0 ? c->cluster.nodes[q->d_node].name : "";
}

/* ---- ticking ---- */

/* A queue is for what will be served: by a node that is up, or will be up again soon. */
static void watch_queued(struct core *c, struct core_req *q)
{
    const struct cluster_need need = core_need_of_d(q);
    if (cluster_fits(&c->cluster, &need, true))
        q->fits_ns = c->now_ns;
    else if (!cluster_fits(&c->cluster, &need, false))
        core_cancel(c, q->id, ST_NEVER_FITS,
                    "The request has outgrown the memory of every decode node.");
    else if (c->now_ns - q->fits_ns > CORE_NO_NODE_NS)
        core_cancel(c, q->id, ST_LINK, "No decode node is available.");
}

static void watch(struct core *c, struct core_req *q)
{
    const struct config *cfg = c->args.config;
    if (c->now_ns >= q->deadline_ns)
        core_cancel(c, q->id, ST_DEADLINE, "The request's time is up.");
    else if (q->unconsumed > 0 && c->now_ns - q->consumed_ns > cfg->timeouts.stall_ns)
        core_cancel(c, q->id, ST_CANCELLED, "The client does not read.");
    else if (q->queued)
        watch_queued(c, q);
}

void core_tick(struct core *c, int64_t now_ns)
{
    c->now_ns = now_ns;
    core_poll_nodes(c);
    bool full = now_ns >= c->watch_ns;
    if (full)
        c->watch_ns = now_ns + CORE_WATCH_NS;
    if (full || c->touched) {
        c->touched = false;
        for (slot_id id = slots_next(c->requests, 0); id; id = slots_next(c->requests, id)) {
            struct core_req *q = slots_get(c->requests, id);
            if (full)
                watch(c, q);
            if (q->touched) {
                q->touched = false;
                core_settle(c, q);
            }
        }
    }
    core_admit_all(c);
    core_metrics_update(c);
}

int64_t core_wake_ns(const struct core *c)
{
    int64_t wake = c->watch_ns;
    for (int32_t i = 0; i < c->cluster.n; i++)
        if (c->cluster.nodes[i].next_poll_ns < wake)
            wake = c->cluster.nodes[i].next_poll_ns;
    if (c->n_queued > 0 && c->now_ns + CLUSTER_BUSY_NS < wake)
        wake = c->now_ns + CLUSTER_BUSY_NS;
    return c->touched ? c->now_ns : wake;
}

void core_drain(struct core *c)
{
    c->draining = true;
}

const struct cluster *core_cluster(const struct core *c)
{
    return &c->cluster;
}

void core_get_load(const struct core *c, struct core_load *out)
{
    *out = (struct core_load){.requests = (int32_t)slots_count(c->requests),
                              .queued = c->n_queued,
                              .calls = (int32_t)slots_count(c->calls)};
}
