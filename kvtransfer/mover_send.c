#include "kvtransfer/mover_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static struct sending *sending_by_user(struct mover *m, uint64_t user)
{
    for (int32_t i = 0; i < m->args.max_offerings; i++)
        if (m->sendings[i].used && m->sendings[i].user == user)
            return &m->sendings[i];
    return NULL;
}

static char *copy_text(const char *s)
{
    return strdup(s ? s : "");
}

static bool copy_address(struct msg_rank_address *to, const struct msg_rank_address *from)
{
    *to = *from;
    uint8_t *ucx = malloc(from->ucx_bytes + 1);
    to->host = copy_text(from->host);
    to->shm = copy_text(from->shm);
    to->ucx = ucx;
    if (!to->host || !to->shm || !ucx)
        return false;
    if (from->ucx_bytes > 0)
        memcpy(ucx, from->ucx, from->ucx_bytes);
    return true;
}

/* This rank's heads that the other rank wants; empty when none. */
static bool shared_heads(const struct kv_pool_view *pool, const struct msg_rank_address *a,
                         int32_t *begin, int32_t *end)
{
    int32_t b = pool->head_base, e = pool->head_base + pool->layout.kv_heads;
    *begin = a->head_begin > b ? a->head_begin : b;
    *end = a->head_end < e ? a->head_end : e;
    return *begin < *end;
}

static enum status rank_init(struct mover *m, struct rank_send *r, const struct mover_send *send,
                             const struct msg_rank_address *address)
{
    const struct kv_layout *l = &m->args.pool.layout;
    struct offering_args a = {.layers = l->layers,
                              .have = send->token_begin,
                              .end = send->token_end,
                              .slice_bytes_max = MOVER_SLICE_BYTES_MAX,
                              .window = m->args.window,
                              .groups = l->groups};
    if (!copy_address(&r->address, address))
        return ST_NO_MEMORY;
    if (!shared_heads(&m->args.pool, address, &a.head_begin, &a.head_end))
        return ST_INVALID;
    a.token_bytes = (int64_t)(a.head_end - a.head_begin) *
                    (int64_t)(kv_slot_bytes(l, KV_KEY) + kv_slot_bytes(l, KV_VALUE));
    if (a.token_bytes > MOVER_SLICE_BYTES_MAX)
        return ST_UNSUPPORTED;
    r->offering_memory = malloc(offering_bytes(l->layers));
    if (!r->offering_memory)
        return ST_NO_MEMORY;
    offering_init(&r->offering, &a, r->offering_memory);
    return ST_OK;
}

enum status mover_open(struct mover *m, const struct mover_send *send, int64_t now_ns)
{
    struct sending *s = NULL;
    for (int32_t i = 0; i < m->args.max_offerings && !s; i++)
        if (!m->sendings[i].used)
            s = &m->sendings[i];
    if (!s)
        return ST_BUSY;
    assert(send->token_begin < send->token_end);
    assert((int64_t)send->n_blocks * m->args.pool.layout.block_tokens >= send->token_end);
    memset(s, 0, sizeof(*s));
    s->ranks = calloc((size_t)send->n_ranks, sizeof(*s->ranks));
    s->blocks = mover_copy_blocks(m, send->blocks, send->n_blocks, send->stride);
    enum status st = s->ranks && s->blocks ? ST_OK : ST_NO_MEMORY;
    s->n_ranks = s->ranks ? send->n_ranks : 0;
    for (int32_t i = 0; i < send->n_ranks && st == ST_OK; i++)
        st = rank_init(m, &s->ranks[i], send, &send->ranks[i]);
    if (st != ST_OK) {
        mover_sending_fini(s);
        return st;
    }
    s->n_blocks = send->n_blocks;
    s->token_end = send->token_end;
    s->user = send->user;
    s->ticket = send->ticket;
    s->deadline_ns = send->deadline_ns;
    s->generation = ++m->generation;
    s->used = true;
    m->stats.offerings++;
    return ST_OK;
}

void mover_layer_ready(struct mover *m, uint64_t user, int32_t layer, int32_t tokens)
{
    struct sending *s = sending_by_user(m, user);
    for (int32_t r = 0; s && !s->quiet_due && r < s->n_ranks; r++)
        offering_ready(&s->ranks[r].offering, layer, tokens);
}

void mover_fill(struct mover *m, uint64_t user, const struct msg_token *first, uint32_t n_first,
                int64_t now_ns)
{
    struct sending *s = sending_by_user(m, user);
    if (!s || s->quiet_due || s->filled_ns)
        return;
    if (n_first > 0) {
        s->first_memory = wire_copy_tokens(first, n_first, &s->first);
        s->n_first = s->first_memory ? n_first : 0; /* without them D samples by itself */
    }
    s->filled_ns = now_ns;
    for (int32_t r = 0; r < s->n_ranks; r++)
        offering_fill(&s->ranks[r].offering);
}

bool mover_close(struct mover *m, uint64_t user)
{
    struct sending *s = sending_by_user(m, user);
    if (!s)
        return false;
    s->quiet_due = true; /* what is still posted reads staging, not the pool */
    m->news = true;
    return true;
}

void mover_sending_fini(struct sending *s)
{
    for (int32_t r = 0; r < s->n_ranks; r++) {
        free((void *)(uintptr_t)s->ranks[r].address.host);
        free((void *)(uintptr_t)s->ranks[r].address.shm);
        free((void *)(uintptr_t)s->ranks[r].address.ucx);
        free(s->ranks[r].offering_memory);
    }
    free(s->ranks);
    free(s->blocks);
    free(s->first_memory);
    memset(s, 0, sizeof(*s));
}

static void fail(struct mover *m, struct sending *s, enum status why)
{
    if (!s->failed && !s->landed_ns) {
        s->failed = true;
        s->failure = why;
        m->news = true;
    }
}

static struct rank_send *rank_by_link(struct sending *s, const struct mover_link *l)
{
    for (int32_t r = 0; r < s->n_ranks; r++)
        if (s->ranks[r].link == l)
            return &s->ranks[r];
    return NULL;
}

void mover_on_answer(struct mover *m, const struct transport_event *ev, const struct wire_frame *f)
{
    const struct mover_link *l = ev->link->user;
    bool known = false;
    /* A prompt may be offered twice under one ticket, when the router asks this node again before
     * the end of its first call has been seen: the answer is for both. */
    for (int32_t i = 0; l && i < m->args.max_offerings; i++) {
        struct sending *s = &m->sendings[i];
        if (!s->used || s->quiet_due || s->ticket.w[0] != f->ticket.w[0] ||
            s->ticket.w[1] != f->ticket.w[1])
            continue;
        struct rank_send *r = rank_by_link(s, l);
        if (!r)
            continue;
        known = true;
        if (f->kind == WIRE_LANDED) {
            offering_landed(&r->offering);
        } else if (!offering_missing(&r->offering, &f->missing)) {
            m->stats.frames_refused++;
            fail(m, s, ST_PROTOCOL);
        }
    }
    m->stats.unknown_tickets += !known;
}

void mover_on_sent(struct mover *m, const struct transport_event *ev)
{
    assert(ev->token < (uint64_t)m->args.staging_buffers);
    struct staging *b = &m->staging[ev->token];
    struct sending *s = sending_by_user(m, b->user);
    if (ev->status == ST_OK)
        mover_count_out(m, b->way, b->bytes);
    if (s && s->generation == b->generation) {
        struct offering *o = &s->ranks[b->rank].offering;
        if (ev->status != ST_OK)
            offering_return(o, &b->slice);
        offering_quiet(o);
    }
    mover_staging_free(m, b);
}

void mover_send_link_down(struct mover *m, struct mover_link *link)
{
    for (int32_t i = 0; i < m->args.max_offerings; i++) {
        struct sending *s = &m->sendings[i];
        for (int32_t r = 0; s->used && r < s->n_ranks; r++) {
            if (s->ranks[r].link != link)
                continue;
            s->ranks[r].link = NULL;
            offering_link_lost(&s->ranks[r].offering);
            if (s->ranks[r].offering.state == OFFERING_FAILED)
                fail(m, s, ST_LINK);
        }
    }
}

/* Encodes and posts one slice. False: no room now, the slice has been returned. */
static bool post_slice(struct mover *m, struct sending *s, struct rank_send *r,
                       const struct kv_slice *slice)
{
    const struct kv_pool_view *pool = &m->args.pool;
    const struct kv_layout *l = &pool->layout;
    const struct transport_ops *ops = r->link->transport->ops;
    const int32_t way = mover_transport_index(m, r->link->transport);
    const struct kv_blocks_view view = {s->blocks, s->n_blocks, 0, s->n_blocks};
    struct staging *b = ops->maps_pool ? NULL : mover_staging_take(m, STAGING_SEND);
    struct wire_offer o = {.slice = *slice,
                           .dtype = l->dtype,
                           .head_dim = l->head_dim,
                           .value_dim = l->value_dim,
                           .block_tokens = l->block_tokens};
    if (!b && !ops->maps_pool) {
        offering_return(&r->offering, slice);
        offering_quiet(&r->offering);
        return false;
    }
    assert(kv_slice_fits(slice, pool, &view));
    o.bytes = wire_slice_bytes(&o);
    o.crc = kv_slice_gather(slice, pool, &view, b ? b->memory : NULL);
    if (ops->maps_pool) {
        int32_t first = slice->token_begin / l->block_tokens;
        o.blocks =
            s->blocks + (size_t)kv_group_of(l, slice->layer_begin) * (size_t)s->n_blocks + first;
        o.n_blocks = (uint32_t)((slice->token_end - 1) / l->block_tokens - first + 1);
    }
    buf_clear(&m->frame);
    wire_put_offer(&m->frame, s->ticket, &o);
    if (b) {
        b->user = s->user;
        b->generation = s->generation;
        b->rank = (int32_t)(r - s->ranks);
        b->slice = *slice;
        b->way = way;
        b->bytes = (size_t)o.bytes;
    }
    enum status st = m->frame.failed ? ST_BUSY
                                     : ops->send(r->link->link, m->frame.data, m->frame.len,
                                                 b ? b->memory : NULL, b ? (size_t)o.bytes : 0,
                                                 b ? (uint64_t)(b - m->staging) : MOVER_NONE);
    if (st != ST_OK) {
        if (b)
            mover_staging_free(m, b);
        offering_return(&r->offering, slice);
        offering_quiet(&r->offering);
        return false;
    }
    if (!s->offered_ns)
        s->offered_ns = m->now_ns;
    if (!b) { /* nothing of ours is lent: the receiver copies when it likes */
        offering_quiet(&r->offering);
        mover_count_out(m, way, (size_t)o.bytes);
    }
    return true;
}

/* Does what one rank's offering wants, up to a few posts. */
static bool pump_rank(struct mover *m, struct sending *s, struct rank_send *r)
{
    struct offering *o = &r->offering;
    if (o->state == OFFERING_DONE || o->state == OFFERING_FAILED)
        return false;
    if (!r->link) {
        enum status st = mover_link_to(m, &r->address, &r->link);
        if (st == ST_LINK)
            offering_link_lost(o);
        if (st != ST_OK)
            return false;
    }
    bool any = false;
    for (int n = 0; n < 4; n++) {
        if (!r->link->transport->ops->maps_pool && m->stats.staging_free == 0)
            return any;
        struct kv_slice slice;
        enum offering_act act = offering_next(o, m->now_ns, &slice);
        if (act == OFFERING_IDLE)
            return any;
        if (act == OFFERING_SLICE) {
            if (!post_slice(m, s, r, &slice))
                return any;
        } else {
            struct wire_filled filled = {
                .kv_tokens = s->token_end, .first = s->first, .n_first = s->n_first};
            buf_clear(&m->frame);
            wire_put_filled(&m->frame, s->ticket, &filled);
            if (!m->frame.failed) /* not sent now: said again after HANDOFF_ANSWER_NS */
                r->link->transport->ops->send(r->link->link, m->frame.data, m->frame.len, NULL, 0,
                                              MOVER_NONE);
        }
        any = true;
    }
    return any;
}

bool mover_send_work(struct mover *m)
{
    bool any = false;
    int32_t max = m->args.max_offerings;
    for (int32_t k = 0; m->stats.offerings > 0 && k < max; k++) {
        struct sending *s = &m->sendings[(m->next_send + k) % max];
        if (!s->used || s->quiet_due || s->failed || s->landed_ns)
            continue;
        if (m->now_ns >= s->deadline_ns) {
            fail(m, s, ST_DEADLINE);
            any = true;
            continue;
        }
        int32_t done = 0;
        for (int32_t r = 0; r < s->n_ranks; r++) {
            any |= pump_rank(m, s, &s->ranks[r]);
            done += s->ranks[r].offering.state == OFFERING_DONE;
            if (s->ranks[r].offering.state == OFFERING_FAILED)
                fail(m, s, ST_LINK);
        }
        if (done == s->n_ranks) {
            s->landed_ns = m->now_ns;
            m->news = true;
            any = true;
        }
    }
    m->next_send = (m->next_send + 1) % max;
    return any;
}
