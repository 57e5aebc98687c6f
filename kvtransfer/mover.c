#include "kvtransfer/mover_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int32_t mover_transport_index(const struct mover *m, const struct transport *t)
{
    for (int32_t i = 0; i < m->args.n_transports; i++)
        if (m->args.transports[i] == t)
            return i;
    return 0;
}

static void register_metrics(struct mover *m)
{
    struct metrics *reg = m->args.metrics;
    if (!reg)
        return;
    for (int32_t i = 0; i < m->args.n_transports; i++) {
        char labels[96];
        const char *name = m->args.transports[i]->ops->name;
        snprintf(labels, sizeof(labels), "direction=\"in\",transport=\"%s\"", name);
        m->m_in[i] = metrics_counter(reg, "baton_kv_transfer_bytes_total", labels,
                                     "KV bytes that crossed between nodes.");
        snprintf(labels, sizeof(labels), "direction=\"out\",transport=\"%s\"", name);
        m->m_out[i] = metrics_counter(reg, "baton_kv_transfer_bytes_total", labels,
                                      "KV bytes that crossed between nodes.");
    }
}

void mover_count_in(struct mover *m, int32_t way, size_t bytes)
{
    m->stats.bytes_in += (int64_t)bytes;
    if (m->m_in[way])
        metric_add(m->m_in[way], (double)bytes);
}

int32_t *mover_copy_blocks(const struct mover *m, const int32_t *blocks, int32_t n_blocks,
                           int32_t stride)
{
    const struct kv_layout *l = &m->args.pool.layout;
    const struct kv_blocks_view from = {blocks, n_blocks, 0, stride};
    int32_t *copy = malloc(kv_blocks_bytes(l, n_blocks));
    if (copy)
        kv_blocks_copy(l, copy, &from);
    return copy;
}

void mover_count_out(struct mover *m, int32_t way, size_t bytes)
{
    m->stats.bytes_out += (int64_t)bytes;
    if (m->m_out[way])
        metric_add(m->m_out[way], (double)bytes);
}

enum status mover_create(const struct mover_args *args, struct mover **out, struct error *err)
{
    assert(args->n_transports >= 1 && args->n_transports <= MOVER_TRANSPORTS_MAX);
    struct mover *m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(err, ST_NO_MEMORY, "no memory for the mover");
    m->args = *args;
    m->stats.staging_free = args->staging_buffers;
    m->staging = calloc((size_t)args->staging_buffers, sizeof(*m->staging));
    m->staging_memory = malloc((size_t)args->staging_buffers * MOVER_SLICE_BYTES_MAX);
    m->mapped = malloc(MOVER_SLICE_BYTES_MAX);
    m->waiting = calloc(MOVER_WAITING_MAX, sizeof(*m->waiting));
    m->plans = calloc((size_t)args->max_plans, sizeof(*m->plans));
    m->sendings = calloc((size_t)args->max_offerings, sizeof(*m->sendings));
    if (!m->staging || !m->staging_memory || !m->mapped || !m->waiting || !m->plans ||
        !m->sendings) {
        mover_destroy(m);
        return err_set(err, ST_NO_MEMORY, "no memory for %d staging buffers",
                       args->staging_buffers);
    }
    for (int32_t i = 0; i < args->staging_buffers; i++)
        m->staging[i].memory = m->staging_memory + (size_t)i * MOVER_SLICE_BYTES_MAX;
    register_metrics(m);
    *out = m;
    return ST_OK;
}

/* ---- staging ---- */

struct staging *mover_staging_take(struct mover *m, enum staging_use use)
{
    for (int32_t i = 0; m->stats.staging_free > 0 && i < m->args.staging_buffers; i++) {
        if (m->staging[i].use != STAGING_FREE)
            continue;
        m->staging[i].use = use;
        m->stats.staging_free--;
        return &m->staging[i];
    }
    return NULL;
}

void mover_staging_free(struct mover *m, struct staging *s)
{
    assert(s->use != STAGING_FREE);
    s->use = STAGING_FREE;
    m->stats.staging_free++;
}

/* ---- links ---- */

/* The preferred transport that can reach this rank, and the address that it wants. */
static struct transport *choose(const struct mover *m, const struct msg_rank_address *a,
                                const void **address, size_t *bytes)
{
    for (int32_t i = 0; i < m->args.n_transports; i++) {
        struct transport *t = m->args.transports[i];
        const char *host = t->ops->host ? t->ops->host(t) : NULL;
        if (host) {
            if (!a->host || !a->shm || !a->shm[0] || strcmp(host, a->host) != 0)
                continue;
            *address = a->shm;
            *bytes = strlen(a->shm);
            return t;
        }
        if (a->ucx_bytes > 0) {
            *address = a->ucx;
            *bytes = a->ucx_bytes;
            return t;
        }
    }
    return NULL;
}

static bool link_in_use(const struct mover *m, const struct mover_link *link)
{
    for (int32_t i = 0; i < m->args.max_offerings; i++) {
        const struct sending *s = &m->sendings[i];
        for (int32_t r = 0; s->used && r < s->n_ranks; r++)
            if (s->ranks[r].link == link)
                return true;
    }
    return false;
}

/* A free slot; the link that was idle longest is closed to make one. */
static struct mover_link *link_slot(struct mover *m)
{
    struct mover_link *oldest = NULL;
    for (int32_t i = 0; i < MOVER_LINKS_MAX; i++) {
        struct mover_link *l = &m->links[i];
        if (!l->address)
            return l;
        if (l->closing)
            return NULL; /* its slot is free when DOWN has come; meanwhile the caller tries again */
        if (l->link && !link_in_use(m, l) && (!oldest || l->used_ns < oldest->used_ns))
            oldest = l;
    }
    if (oldest) {
        oldest->closing = true;
        oldest->transport->ops->disconnect(oldest->link);
    }
    return NULL;
}

enum status mover_link_to(struct mover *m, const struct msg_rank_address *a,
                          struct mover_link **out)
{
    const void *address;
    size_t bytes;
    struct transport *t = choose(m, a, &address, &bytes);
    if (!t)
        return ST_LINK;
    for (int32_t i = 0; i < MOVER_LINKS_MAX; i++) {
        struct mover_link *l = &m->links[i];
        if (l->link && !l->closing && l->transport == t && l->address_bytes == bytes &&
            memcmp(l->address, address, bytes) == 0) {
            l->used_ns = m->now_ns;
            *out = l;
            return ST_OK;
        }
    }
    struct mover_link *l = link_slot(m);
    if (!l)
        return ST_PENDING;
    uint8_t *copy = malloc(bytes + 1);
    if (!copy)
        return ST_PENDING;
    memcpy(copy, address, bytes);
    struct error err = {0};
    if (t->ops->connect(t, address, bytes, &l->link, &err) != ST_OK) {
        log_warn("link_failed", "transport=%s reason=\"%s\"", t->ops->name, err.text);
        free(copy);
        l->link = NULL;
        return ST_LINK;
    }
    l->transport = t;
    l->address = copy;
    l->address_bytes = bytes;
    l->used_ns = m->now_ns;
    l->link->user = l;
    *out = l;
    return ST_OK;
}

static void on_down(struct mover *m, const struct transport_event *ev)
{
    struct mover_link *l = ev->link->user;
    m->stats.links_lost += !l || !l->closing;
    mover_recv_link_down(m, ev->link);
    if (!l)
        return;
    mover_send_link_down(m, l);
    free(l->address);
    memset(l, 0, sizeof(*l));
}

/* ---- work ---- */

static void on_frame(struct mover *m, const struct transport_event *ev)
{
    struct wire_frame f;
    enum status st = wire_get(ev->frame, ev->frame_bytes, &f);
    if (st != ST_OK) {
        m->stats.frames_refused++;
        if (ev->incoming)
            ev->link->transport->ops->drop(ev->link->transport, ev->incoming);
        log_warn("frame_refused", "transport=%s status=%s bytes=%zu",
                 ev->link->transport->ops->name, status_name(st), ev->frame_bytes);
        return;
    }
    if (f.kind == WIRE_OFFER) {
        mover_on_offer(m, ev, &f);
    } else {
        if (ev->incoming)
            ev->link->transport->ops->drop(ev->link->transport, ev->incoming);
        if (f.kind == WIRE_FILLED)
            mover_on_filled(m, ev, &f);
        else
            mover_on_answer(m, ev, &f);
    }
    wire_frame_fini(&f);
}

static bool poll_transports(struct mover *m)
{
    bool any = false;
    for (int32_t i = 0; i < m->args.n_transports; i++) {
        struct transport *t = m->args.transports[i];
        struct transport_event ev;
        /* Bounded: a flood on one transport must not keep our own offers waiting. */
        for (int n = 0; n < 64 && t->ops->poll(t, &ev); n++) {
            any = true;
            switch (ev.kind) {
            case TRANSPORT_FRAME:
                on_frame(m, &ev);
                break;
            case TRANSPORT_SENT:
                mover_on_sent(m, &ev);
                break;
            case TRANSPORT_PULLED:
                mover_on_pulled(m, &ev);
                break;
            case TRANSPORT_DOWN:
                on_down(m, &ev);
                break;
            }
        }
    }
    return any;
}

bool mover_work(struct mover *m, int64_t now_ns)
{
    m->now_ns = now_ns;
    bool any = poll_transports(m);
    any |= mover_recv_work(m);
    any |= mover_send_work(m);
    return any;
}

static bool next_of_plan(struct mover *m, struct plan *p, struct mover_event *ev)
{
    if (!p->used)
        return false;
    if (p->quiet_due) {
        *ev = (struct mover_event){.kind = MOVER_QUIET, .user = p->user};
        mover_plan_fini(p);
        m->stats.plans--;
        return true;
    }
    if (!p->reported && p->landing.state == LANDING_COMPLETE) {
        p->reported = true;
        *ev = (struct mover_event){
            .kind = MOVER_LANDED, .user = p->user, .first = p->first, .n_first = p->n_first};
        return true;
    }
    return false;
}

static bool next_of_sending(struct mover *m, struct sending *s, struct mover_event *ev)
{
    if (!s->used)
        return false;
    if (s->quiet_due) {
        *ev = (struct mover_event){.kind = MOVER_QUIET, .user = s->user};
        mover_sending_fini(s);
        m->stats.offerings--;
        return true;
    }
    if (s->reported)
        return false;
    if (s->failed) {
        s->reported = true;
        *ev = (struct mover_event){.kind = MOVER_FAILED, .user = s->user, .status = s->failure};
        return true;
    }
    if (s->landed_ns) {
        s->reported = true;
        *ev = (struct mover_event){.kind = MOVER_DELIVERED,
                                   .user = s->user,
                                   .transfer_ns = s->landed_ns - s->offered_ns,
                                   .exposed_ns = s->landed_ns - s->filled_ns};
        return true;
    }
    return false;
}

bool mover_next(struct mover *m, struct mover_event *ev)
{
    if (!m->news)
        return false;
    for (int32_t i = 0; m->stats.plans > 0 && i < m->args.max_plans; i++)
        if (next_of_plan(m, &m->plans[i], ev))
            return true;
    for (int32_t i = 0; m->stats.offerings > 0 && i < m->args.max_offerings; i++)
        if (next_of_sending(m, &m->sendings[i], ev))
            return true;
    m->news = false;
    return false;
}

int64_t mover_wake_ns(const struct mover *m)
{
    int64_t wake = NS_NEVER;
    for (int32_t i = 0; m->stats.offerings > 0 && i < m->args.max_offerings; i++) {
        const struct sending *s = &m->sendings[i];
        if (!s->used || s->reported)
            continue;
        if (s->deadline_ns < wake)
            wake = s->deadline_ns;
        for (int32_t r = 0; r < s->n_ranks; r++) {
            const struct offering *o = &s->ranks[r].offering;
            bool over = o->state == OFFERING_DONE || o->state == OFFERING_FAILED;
            int64_t w = offering_wake_ns(o);
            if (w == 0 || (!over && !s->ranks[r].link))
                w = m->now_ns + 5 * NS_PER_MS; /* something found no room: try again soon */
            if (w < wake)
                wake = w;
        }
    }
    return wake;
}

void mover_get_stats(const struct mover *m, struct mover_stats *out)
{
    *out = m->stats;
}

enum status mover_address(struct mover *m, struct msg_rank_address *out, struct error *err)
{
    const struct kv_pool_view *pool = &m->args.pool;
    memset(out, 0, sizeof(*out));
    out->host = "";
    out->shm = "";
    out->head_begin = pool->head_base;
    out->head_end = pool->head_base + pool->layout.kv_heads;
    for (int32_t i = 0; i < m->args.n_transports; i++) {
        struct transport *t = m->args.transports[i];
        struct buf *b = &m->address[i];
        buf_clear(b);
        enum status st = t->ops->address(t, b, err);
        if (st != ST_OK)
            return st;
        if (b->failed || b->len > MSG_ADDRESS_MAX)
            return err_set(err, ST_INTERNAL, "%s: address of %zu bytes", t->ops->name, b->len);
        if (t->ops->host) {
            out->host = t->ops->host(t);
            out->shm = b->data;
        } else {
            out->ucx = (const uint8_t *)b->data;
            out->ucx_bytes = (uint32_t)b->len;
        }
    }
    return ST_OK;
}

void mover_destroy(struct mover *m)
{
    if (!m)
        return;
    /* Plans and sendings are over: what still comes in finds none. */
    for (int32_t i = 0; m->plans && i < m->args.max_plans; i++)
        if (m->plans[i].used)
            mover_plan_fini(&m->plans[i]);
    for (int32_t i = 0; m->sendings && i < m->args.max_offerings; i++)
        if (m->sendings[i].used)
            mover_sending_fini(&m->sendings[i]);
    /* Then links: every posted send and pull comes back before its staging is freed. Transports
     * promise that. */
    for (int32_t i = 0; i < MOVER_LINKS_MAX; i++)
        if (m->links[i].link)
            m->links[i].transport->ops->disconnect(m->links[i].link);
    /* So are the links that others made and that we pull from. */
    for (int32_t i = 0; m->staging && i < m->args.staging_buffers; i++)
        if (m->staging[i].use == STAGING_PULL && m->staging[i].link)
            m->staging[i].link->transport->ops->disconnect(m->staging[i].link);
    for (int32_t n = 0; n < m->n_waiting; n++)
        m->waiting[n].transport->ops->drop(m->waiting[n].transport, m->waiting[n].incoming);
    m->n_waiting = 0;
    int64_t give_up_ns = clock_now_ns() + 8 * NS_PER_S;
    while (m->stats.staging_free < m->args.staging_buffers && clock_now_ns() < give_up_ns)
        if (!poll_transports(m))
            clock_sleep_ns(NS_PER_MS);
    bool quiet = m->stats.staging_free == m->args.staging_buffers;
    if (!quiet)
        log_error("staging_not_quiet", "buffers=%d",
                  m->args.staging_buffers - m->stats.staging_free);
    for (int32_t i = 0; i < MOVER_LINKS_MAX; i++)
        free(m->links[i].address);
    for (int32_t i = 0; i < MOVER_TRANSPORTS_MAX; i++)
        buf_fini(&m->address[i]);
    buf_fini(&m->frame);
    free(m->sendings);
    free(m->plans);
    free(m->waiting);
    free(m->mapped);
    free(m->staging);
    if (quiet) /* what is not quiet is never reused: it leaks, loudly */
        free(m->staging_memory);
    free(m);
}
