#include "kvtransfer/mover_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"

static struct plan *plan_by_ticket(struct mover *m, struct msg_ticket t)
{
    for (int32_t i = 0; i < m->args.max_plans; i++) {
        struct plan *p = &m->plans[i];
        if (p->used && !p->quiet_due && p->ticket.w[0] == t.w[0] && p->ticket.w[1] == t.w[1])
            return p;
    }
    return NULL;
}

static struct plan *plan_by_user(struct mover *m, uint64_t user)
{
    for (int32_t i = 0; i < m->args.max_plans; i++)
        if (m->plans[i].used && m->plans[i].user == user)
            return &m->plans[i];
    return NULL;
}

enum status mover_expect(struct mover *m, const struct mover_plan *plan)
{
    struct plan *p = NULL;
    for (int32_t i = 0; i < m->args.max_plans && !p; i++)
        if (!m->plans[i].used)
            p = &m->plans[i];
    if (!p)
        return ST_BUSY;
    const struct kv_layout *l = &m->args.pool.layout;
    assert(plan->token_begin < plan->token_end);
    assert((int64_t)plan->n_blocks * l->block_tokens >= plan->token_end);
    struct kv_slice need = {0,
                            l->layers,
                            plan->token_begin,
                            plan->token_end,
                            m->args.pool.head_base,
                            m->args.pool.head_base + l->kv_heads};
    memset(p, 0, sizeof(*p));
    p->landing_memory = malloc(landing_bytes(&need));
    p->blocks = mover_copy_blocks(m, plan->blocks, plan->n_blocks, plan->stride);
    if (!p->landing_memory || !p->blocks) {
        free(p->landing_memory);
        free(p->blocks);
        return ST_NO_MEMORY;
    }
    p->n_blocks = plan->n_blocks;
    landing_init(&p->landing, &need, l->groups, p->landing_memory);
    p->user = plan->user;
    p->ticket = plan->ticket;
    p->generation = ++m->generation;
    p->used = true;
    m->stats.plans++;
    return ST_OK;
}

bool mover_forget(struct mover *m, uint64_t user)
{
    struct plan *p = plan_by_user(m, user);
    if (!p)
        return false;
    /* The pool is touched only inside our own calls, so the plan's blocks are quiet now; pulls that
     * are still in flight fill staging, whose generation no longer matches. */
    p->quiet_due = true;
    m->news = true;
    return true;
}

void mover_plan_fini(struct plan *p)
{
    free(p->landing_memory);
    free(p->blocks);
    free(p->first_memory);
    memset(p, 0, sizeof(*p));
}

/* Whom a staging buffer was taken for; NULL: it has gone meanwhile. */
static struct plan *plan_of(struct mover *m, const struct staging *s)
{
    struct plan *p = plan_by_user(m, s->user);
    return p && p->generation == s->generation && !p->quiet_due ? p : NULL;
}

/* Lands what has arrived, `crc` being that of the bytes that are there. */
static void land(struct mover *m, struct plan *p, const struct staging *s, uint32_t crc)
{
    bool good = crc == s->crc;
    if (!good) {
        m->stats.checksum_failures++;
        log_warn("slice_damaged", "layers=%d-%d tokens=%d-%d", s->slice.layer_begin,
                 s->slice.layer_end, s->slice.token_begin, s->slice.token_end);
    }
    /* After LANDED the blocks belong to others: what was in flight twice comes too late. */
    if (good && p->landing.state != LANDING_COMPLETE) {
        const struct kv_blocks_view blocks = {p->blocks, p->n_blocks, 0, p->n_blocks};
        const struct kv_scatter_args a = {.from = &s->slice,
                                          .take = &s->take,
                                          .from_dtype = s->dtype,
                                          .bytes = s->memory,
                                          .pool = &m->args.pool,
                                          .blocks = &blocks};
        assert(kv_slice_fits(&s->take, &m->args.pool, &blocks));
        kv_slice_scatter(&a);
    }
    landing_settle(&p->landing, &s->take, good);
    m->news |= p->landing.state == LANDING_COMPLETE;
}

/* The sender's pool is mapped: copy out of it now. */
static void land_from_mapping(struct mover *m, struct plan *p, struct staging *s,
                              const struct wire_offer *o)
{
    const struct kv_pool_view *pool = s->link->transport->ops->peer_pool(s->link);
    const struct kv_blocks_view from = {
        o->blocks, (int32_t)o->n_blocks,
        o->slice.token_begin - o->slice.token_begin % o->block_tokens, 0};
    bool fits = pool && pool->layout.block_tokens == o->block_tokens &&
                pool->layout.dtype == o->dtype && pool->layout.head_dim == o->head_dim &&
                pool->layout.value_dim == o->value_dim && kv_slice_fits(&o->slice, pool, &from);
    if (!fits) {
        m->stats.frames_refused++;
        landing_settle(&p->landing, &s->take, false);
        return;
    }
    s->memory = m->mapped;
    uint32_t crc = kv_slice_gather(&o->slice, pool, &from, s->memory);
    mover_count_in(m, s->way, s->bytes);
    land(m, p, s, crc);
}

static void wait_for_staging(struct mover *m, struct plan *p, const struct waiting *w)
{
    if (m->n_waiting < MOVER_WAITING_MAX) {
        m->waiting[m->n_waiting++] = *w;
        return;
    }
    w->transport->ops->drop(w->transport, w->incoming);
    landing_settle(&p->landing, &w->as.take, false); /* Missing will ask for it again */
}

static void pull(struct mover *m, struct staging *s, const struct waiting *w)
{
    uint8_t *memory = s->memory;
    *s = w->as;
    s->memory = memory;
    s->use = STAGING_PULL;
    w->transport->ops->pull(w->transport, w->incoming, memory, (uint64_t)(s - m->staging));
}

void mover_on_offer(struct mover *m, const struct transport_event *ev, const struct wire_frame *f)
{
    struct transport *t = ev->link->transport;
    const struct wire_offer *o = &f->offer;
    struct plan *p = plan_by_ticket(m, f->ticket);
    struct waiting w = {.transport = t, .incoming = ev->incoming};
    bool by_mapping = o->n_blocks > 0;
    const struct kv_layout *l = &m->args.pool.layout;
    bool sane = o->head_dim == l->head_dim && o->value_dim == l->value_dim &&
                o->bytes <= MOVER_SLICE_BYTES_MAX &&
                (by_mapping ? !ev->incoming : ev->incoming && ev->payload_bytes == o->bytes);
    if (!p) {
        m->stats.unknown_tickets++;
    } else if (!sane) {
        m->stats.frames_refused++;
        p = NULL;
    } else if (landing_offer(&p->landing, &o->slice, &w.as.take) != LANDING_TAKE) {
        m->stats.dropped_offers++;
        p = NULL;
    }
    if (!p) {
        if (ev->incoming)
            t->ops->drop(t, ev->incoming);
        return;
    }
    w.as.link = ev->link;
    w.as.way = mover_transport_index(m, t);
    w.as.slice = o->slice;
    w.as.crc = o->crc;
    w.as.dtype = o->dtype;
    w.as.bytes = (size_t)o->bytes;
    w.as.user = p->user;
    w.as.generation = p->generation;
    struct staging *s = by_mapping ? NULL : mover_staging_take(m, STAGING_PULL);
    if (by_mapping) {
        land_from_mapping(m, p, &w.as, o);
    } else if (s) {
        pull(m, s, &w);
    } else {
        wait_for_staging(m, p, &w);
    }
}

void mover_on_pulled(struct mover *m, const struct transport_event *ev)
{
    assert(ev->token < (uint64_t)m->args.staging_buffers);
    struct staging *s = &m->staging[ev->token];
    struct plan *p = plan_of(m, s);
    bool arrived = ev->status == ST_OK;
    if (arrived)
        mover_count_in(m, s->way, s->bytes);
    if (p && arrived)
        land(m, p, s, hash_crc32c(0, s->memory, s->bytes));
    else if (p)
        landing_settle(&p->landing, &s->take, false);
    mover_staging_free(m, s);
}

void mover_on_filled(struct mover *m, const struct transport_event *ev, const struct wire_frame *f)
{
    struct plan *p = plan_by_ticket(m, f->ticket);
    if (!p) {
        m->stats.unknown_tickets++;
        return;
    }
    if (!p->first && f->filled.n_first > 0) {
        p->first_memory = wire_copy_tokens(f->filled.first, f->filled.n_first, &p->first);
        if (!p->first_memory)
            return; /* it is said again in a second */
        p->n_first = f->filled.n_first;
    }
    if (!landing_filled(&p->landing, f->filled.kv_tokens)) {
        m->stats.frames_refused++;
        return;
    }
    m->news |= p->landing.state == LANDING_COMPLETE;
    for (int32_t i = 0; i < p->n_reply; i++)
        if (p->reply[i] == ev->link)
            return;
    if (p->n_reply < MSG_RANKS_MAX) /* else it asks again */
        p->reply[p->n_reply++] = ev->link;
}

static bool answer(struct mover *m, struct plan *p)
{
    struct wire_missing missing;
    enum landing_reply r = landing_reply(&p->landing, &missing);
    if (r == LANDING_QUIET)
        return false;
    buf_clear(&m->frame);
    if (r == LANDING_SAY_LANDED) {
        wire_put_landed(&m->frame, p->ticket);
    } else {
        m->stats.missing_rounds++;
        wire_put_missing(&m->frame, p->ticket, &missing);
    }
    /* An answer that cannot be sent is asked for again: Filled is repeated. */
    for (int32_t i = 0; i < p->n_reply && !m->frame.failed; i++)
        p->reply[i]->transport->ops->send(p->reply[i], m->frame.data, m->frame.len, NULL, 0,
                                          MOVER_NONE);
    p->n_reply = 0;
    return true;
}

bool mover_recv_work(struct mover *m)
{
    bool any = false;
    while (m->n_waiting > 0 && m->stats.staging_free > 0) {
        struct waiting w = m->waiting[0];
        memmove(m->waiting, m->waiting + 1, (size_t)--m->n_waiting * sizeof(w));
        if (plan_of(m, &w.as))
            pull(m, mover_staging_take(m, STAGING_PULL), &w);
        else
            w.transport->ops->drop(w.transport, w.incoming);
        any = true;
    }
    for (int32_t i = 0; m->stats.plans > 0 && i < m->args.max_plans; i++)
        if (m->plans[i].used && !m->plans[i].quiet_due)
            any |= answer(m, &m->plans[i]);
    return any;
}

void mover_recv_link_down(struct mover *m, struct transport_link *link)
{
    for (int32_t i = 0; i < m->n_waiting; i++)
        if (m->waiting[i].as.link == link)
            m->waiting[i].as.link = NULL;
    for (int32_t i = 0; i < m->args.max_plans; i++) {
        struct plan *p = &m->plans[i];
        for (int32_t k = 0; k < p->n_reply; k++)
            if (p->reply[k] == link)
                p->reply[k--] = p->reply[--p->n_reply];
    }
}
