/* The core's half that listens to nodes: what calls bring and how they end. */
#include "router/core_internal.h"

#include <string.h>

#include "base/log.h"

/* ---- tokens and finishes ---- */

/* Tells the client what is new. False: the node contradicted itself and its call has been ended. */
static bool take_tokens(struct core *c, struct core_req *q, const struct msg_token *tokens,
                        uint32_t n, bool from_d)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct msg_token *t = &tokens[i];
        if (from_d)
            q->d_outstanding--;
        if (t->choice >= 0 && t->choice < q->sm.n && q->choices[t->choice].stop_pending)
            continue;
        switch (request_on_token(&q->sm, t, from_d, c->now_ns)) {
        case REQUEST_EMIT:
            if (q->unconsumed == 0)
                q->consumed_ns = c->now_ns; /* a stall is counted from the first token that waits */
            q->unconsumed++;
            core_metrics_token(c, q, t->choice);
            c->args.effects.token(c->args.effects.ctx, q->client, t);
            break;
        case REQUEST_SEEN:
            break;
        case REQUEST_CONFLICT:
            log_error("token_conflict", "request=%s choice=%d position=%d", q->request_id,
                      t->choice, t->position);
            return false;
        }
    }
    return true;
}

/* What was cached when the first token was computed. That a resumed request finds its own prompt
 * again is nothing that its client should hear of. */
static void note_cached(struct core_req *q, int32_t tokens, bool anew)
{
    if (q->start_emitted > 0)
        return;
    if (tokens > (int32_t)q->prompt.n)
        tokens = (int32_t)q->prompt.n;
    if (anew || tokens > q->cached_tokens)
        q->cached_tokens = tokens;
}

/* NEVER_FITS is the truth about one node; where a larger one is known the request goes there. */
static enum status judge(struct core *c, struct core_req *q, int32_t node, enum status status)
{
    int64_t room = cluster_room(&c->cluster, node);
    if (status != ST_NEVER_FITS || room == 0)
        return status;
    if (room > q->above)
        q->above = room;
    const struct cluster_need need = core_need_of_d(q);
    return cluster_fits(&c->cluster, &need, false) ? ST_PREEMPTED : status;
}

/* Tells the client what is new; a choice that was over before the last score is told with it.
 * False: these are not scores of this prompt. */
static bool take_scores(struct core *c, struct core_req *q, const struct msg_score *s, uint32_t n)
{
    const struct core_effects *effects = &c->args.effects;
    if (n == 0 || !request_scores_missing(&q->sm))
        return true;
    for (uint32_t i = 0; i < n; i++)
        if ((uint32_t)s[i].position >= q->prompt.n || s[i].id != q->prompt.v[s[i].position])
            return false;
    int32_t known = request_on_scores(&q->sm, s, (int32_t)n, c->now_ns);
    if (known < 0 || known == (int32_t)n)
        return true;
    effects->scores(effects->ctx, q->client, s + known, (int32_t)n - known);
    for (int32_t i = 0; i < q->sm.n && !request_scores_missing(&q->sm); i++) {
        const struct request_choice *x = &q->sm.choices[i];
        const struct msg_finish f = {.choice = i, .reason = x->reason, .stop_id = x->stop_id};
        if (x->finished)
            effects->finish(effects->ctx, q->client, &f);
    }
    return true;
}

static void on_accepted(struct core *c, struct core_req *q, struct msg_accepted *m)
{
    if (m->n_ranks > 0)
        memcpy(q->d_ranks, m->ranks, sizeof(*m->ranks) * m->n_ranks);
    q->n_d_ranks = m->n_ranks;
    q->started = true;
    if (q->reserving)
        cluster_reserved(&c->cluster, q->d_node, true);
    q->reserving = false;
    note_cached(q, m->have_tokens, true);
    int64_t rest = core_transfer_tokens(q) - m->have_tokens;
    bool short_rest = q->p_node >= 0 && policy_rest_is_short(&c->cluster, q->d_node, rest);
    request_on_accepted(&q->sm, m, short_rest || m->n_ranks == 0, c->now_ns);
}

static void on_decode_event(struct core *c, struct core_call *k, struct core_req *q,
                            const uint8_t *data, size_t len)
{
    struct codec_arena arena = {0};
    struct msg_decode_event ev;
    if (codec_get_decode_event(data, len, &arena, &ev) != ST_OK) {
        codec_arena_fini(&arena);
        c->args.effects.call_cancel(c->args.effects.ctx, k->rpc);
        return;
    }
    switch (ev.kind) {
    case MSG_D_ACCEPTED:
        if (ev.accepted.n_ranks <= MSG_RANKS_MAX) {
            codec_arena_fini(&q->d_arena);
            q->d_arena = arena; /* the addresses live in it */
            arena = (struct codec_arena){0};
            on_accepted(c, q, &ev.accepted);
        }
        break;
    case MSG_D_REJECTED:
        request_on_rejected(&q->sm, judge(c, q, k->node, ev.rejected), ev.reason, c->now_ns);
        break;
    case MSG_D_TOKENS:
        take_tokens(c, q, ev.tokens, ev.n_tokens, true);
        break;
    case MSG_D_SCORES:
        if (!take_scores(c, q, ev.scores, ev.n_scores))
            c->args.effects.call_cancel(c->args.effects.ctx, k->rpc);
        break;
    case MSG_D_FINISH:
        if (request_on_finish(&q->sm, &ev.finish, c->now_ns) && !request_scores_missing(&q->sm))
            c->args.effects.finish(c->args.effects.ctx, q->client, &ev.finish);
        break;
    case MSG_D_DONE:
        break; /* every choice has finished: the request has ended, or the call's end tells
                  otherwise */
    }
    codec_arena_fini(&arena);
}

static void on_prefill_event(struct core *c, struct core_call *k, struct core_req *q,
                             const uint8_t *data, size_t len)
{
    struct codec_arena arena = {0};
    struct msg_prefill_event ev;
    if (codec_get_prefill_event(data, len, &arena, &ev) != ST_OK) {
        codec_arena_fini(&arena);
        c->args.effects.call_cancel(c->args.effects.ctx, k->rpc);
        return;
    }
    note_cached(q, ev.cached_tokens, false);
    if (take_scores(c, q, ev.scores, ev.n_scores))
        take_tokens(c, q, ev.first, ev.n_first, false);
    else
        c->args.effects.call_cancel(c->args.effects.ctx, k->rpc);
    codec_arena_fini(&arena);
}

static void on_status(struct core *c, struct core_call *k, const uint8_t *data, size_t len)
{
    struct codec_arena arena = {0};
    struct msg_status s;
    const char *why;
    if (codec_get_status(data, len, &arena, &s) == ST_OK)
        cluster_on_status(&c->cluster, k->node, &s, c->now_ns, &why);
    else
        cluster_on_lost(&c->cluster, k->node, c->now_ns);
    codec_arena_fini(&arena);
}

void core_on_message(struct core *c, uint64_t user, const uint8_t *data, size_t len, int64_t now_ns)
{
    struct core_call *k = slots_get(c->calls, user);
    c->now_ns = now_ns;
    if (!k || k->abandoned)
        return;
    void *rpc = k->rpc;
    struct core_req *q = k->request ? slots_get(c->requests, k->request) : NULL;
    if (k->kind == CORE_CALL_STATUS)
        on_status(c, k, data, len);
    else if (q && k->kind == CORE_CALL_D && q->d_call == k->id && q->sm.d_live)
        on_decode_event(c, k, q, data, len);
    else if (q && k->kind == CORE_CALL_P && q->p_call == k->id)
        on_prefill_event(c, k, q, data, len);
    c->args.effects.call_read(c->args.effects.ctx, rpc);
    if (q)
        core_settle(c, q);
}

/* ---- ends ---- */

static void on_d_closed(struct core *c, struct core_call *k, struct core_req *q, enum status status,
                        const char *text)
{
    q->d_call = 0;
    if (status == ST_LINK)
        cluster_on_lost(&c->cluster, k->node, c->now_ns);
    if (status != ST_OK)
        log_info("decode_lost", "request=%s node=%s status=%s", q->request_id,
                 c->cluster.nodes[k->node].name, status_name(status));
    request_on_d_closed(&q->sm, judge(c, q, k->node, status), text, c->now_ns);
}

static void on_p_closed(struct core *c, struct core_call *k, struct core_req *q, enum status status,
                        const char *text)
{
    q->p_call = 0;
    if (status == ST_OK && q->start_emitted == 0 && q->first_token_ns)
        q->transfer_ns = c->now_ns - q->first_token_ns;
    core_release_p(c, q);
    q->p_failed = status == ST_OK ? -1 : k->node;
    if (status == ST_LINK)
        cluster_on_lost(&c->cluster, k->node, c->now_ns);
    if (status == ST_BUSY)
        cluster_on_busy(&c->cluster, k->node, c->now_ns);
    if (status == ST_TRANSFER && q->d_node >= 0)
        cluster_avoid_pair(&c->cluster, k->node, q->d_node, c->now_ns);
    if (status != ST_OK)
        log_info("prefill_lost", "request=%s node=%s status=%s", q->request_id,
                 c->cluster.nodes[k->node].name, status_name(status));
    request_on_p_closed(&q->sm, status, text, c->now_ns);
}

void core_on_closed(struct core *c, uint64_t user, enum status status, const char *text,
                    int64_t now_ns)
{
    struct core_call *k = slots_get(c->calls, user);
    c->now_ns = now_ns;
    if (!k)
        return;
    struct core_call call = *k;
    slots_free(c->calls, user);
    struct core_req *q = call.request ? slots_get(c->requests, call.request) : NULL;
    if (call.kind == CORE_CALL_STATUS) {
        c->cluster.nodes[call.node].next_poll_ns = now_ns + CLUSTER_POLL_NS;
        if (status != ST_OK) {
            log_info("status_lost", "node=%s status=%s text=%s", c->cluster.nodes[call.node].name,
                     status_name(status), text);
            cluster_on_lost(&c->cluster, call.node, now_ns);
        }
        return;
    }
    if (!q)
        return;
    if (call.kind == CORE_CALL_D && q->d_call == user)
        on_d_closed(c, &call, q, status, text);
    else if (call.kind == CORE_CALL_P && q->p_call == user)
        on_p_closed(c, &call, q, status, text);
    core_settle(c, q);
}

/* ---- asking nodes how they are ---- */

void core_poll_nodes(struct core *c)
{
    for (int32_t i = 0; i < c->cluster.n; i++) {
        struct cluster_node *n = &c->cluster.nodes[i];
        if (c->now_ns < n->next_poll_ns)
            continue;
        /* Until this call has ended there is no other. */
        n->next_poll_ns = c->now_ns + 2 * CORE_STATUS_NS;
        buf_clear(&c->out);
        codec_put_admin(&c->out, MSG_ADMIN_STATUS);
        const struct core_call_args a = {.kind = CORE_CALL_STATUS,
                                         .node = i,
                                         .method = "/baton.v1.Admin/Status",
                                         .deadline_ns = c->now_ns + CORE_STATUS_NS};
        struct core_call *k = core_call_begin(c, &a);
        if (k)
            c->args.effects.call_half_close(c->args.effects.ctx, k->rpc);
        else
            cluster_on_lost(&c->cluster, i, c->now_ns);
    }
}
