#include "kvtransfer/transport_loopback.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"

struct endpoint;

/* One side of a connection. Freed when its DOWN has been polled and nothing refers to it. */
struct side {
    struct transport_link base;
    struct list in_endpoint;
    struct endpoint *owner;
    uint64_t id;
    struct side *peer; /* NULL once either side is down */
    bool down;         /* DOWN is on its way */
};

struct event {
    struct list queue;
    int64_t at_ns;
    uint64_t order;
    enum transport_event_kind kind;
    struct side *side;
    void *frame;
    size_t frame_bytes;
    struct transport_incoming *incoming; /* FRAME, PULLED */
    const void *watched;                 /* SENT: the payload, which must not have changed */
    size_t watched_bytes;
    uint32_t watched_crc;
    void *dst; /* PULLED */
    uint64_t token;
    enum status status;
};

struct transport_incoming {
    void *bytes;
    size_t len;
    uint64_t side_id; /* of the link that it came by, which may be gone by now */
    int64_t pull_ns;
};

struct endpoint {
    struct transport base;
    struct fabric *fabric;
    struct list in_fabric, sides, events;
    char *name;
    struct kv_pool_view view;
    bool dead;
    struct event *last; /* its memory is lent to the last poll's caller */
};

struct fabric {
    struct list endpoints;
    fabric_fate_fn *fate;
    void *ctx;
    int64_t now_ns;
    uint64_t order, sides;
};

struct fabric *fabric_create(fabric_fate_fn *fate, void *ctx)
{
    struct fabric *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    list_init(&f->endpoints);
    f->fate = fate;
    f->ctx = ctx;
    return f;
}

void fabric_destroy(struct fabric *f)
{
    assert(list_empty(&f->endpoints));
    free(f);
}

void fabric_set_now(struct fabric *f, int64_t now_ns)
{
    f->now_ns = now_ns;
}

int64_t fabric_next_ns(const struct fabric *f)
{
    int64_t next = NS_NEVER;
    list_for_each(it, &f->endpoints)
    {
        const struct endpoint *e = list_entry(it, struct endpoint, in_fabric);
        if (e->dead || list_empty(&e->events))
            continue;
        int64_t at = list_entry(e->events.next, struct event, queue)->at_ns;
        if (at < next)
            next = at;
    }
    return next;
}

/* ---- events ---- */

static void event_free(struct event *ev)
{
    list_remove(&ev->queue);
    free(ev->frame);
    free(ev);
}

/* Queues in order of time, then of posting. */
static struct event *post(struct endpoint *e, struct side *s, enum transport_event_kind kind,
                          int64_t delay_ns)
{
    struct fabric *f = e->fabric;
    struct event *ev = calloc(1, sizeof(*ev));
    assert(ev != NULL);
    ev->kind = kind;
    ev->side = s;
    ev->at_ns = f->now_ns + delay_ns;
    ev->order = f->order++;
    struct list *at = e->events.prev;
    while (at != &e->events && list_entry(at, struct event, queue)->at_ns > ev->at_ns)
        at = at->prev;
    list_push_front(at, &ev->queue);
    return ev;
}

static void incoming_free(struct transport_incoming *in)
{
    free(in->bytes);
    free(in);
}

/* One side goes down: frames that have not arrived never will, what was posted completes with
 * ST_LINK, then DOWN. */
static void side_down(struct side *s, int64_t delay_ns)
{
    struct fabric *f = s->owner->fabric;
    int64_t down_ns = f->now_ns + delay_ns;
    if (s->down)
        return;
    s->down = true;
    s->peer = NULL;
    list_for_each_safe(it, next, &s->owner->events)
    {
        struct event *ev = list_entry(it, struct event, queue);
        if (ev->side != s)
            continue;
        if (ev->kind == TRANSPORT_FRAME) {
            if (ev->incoming)
                incoming_free(ev->incoming);
            event_free(ev);
            continue;
        }
        ev->status = ST_LINK;
        if (ev->at_ns > down_ns)
            down_ns = ev->at_ns;
    }
    post(s->owner, s, TRANSPORT_DOWN, down_ns - f->now_ns);
}

static void break_link(struct side *s, int64_t peer_delay_ns)
{
    struct side *peer = s->peer;
    side_down(s, 0);
    if (peer)
        side_down(peer, peer_delay_ns);
}

/* ---- ops ---- */

static struct endpoint *endpoint_of(struct transport *t)
{
    return (struct endpoint *)t;
}

static const char *loopback_host(struct transport *t)
{
    return "loopback";
}

static enum status loopback_address(struct transport *t, struct buf *out, struct error *err)
{
    buf_puts(out, endpoint_of(t)->name);
    return ST_OK;
}

static struct side *side_create(struct endpoint *e)
{
    struct side *s = calloc(1, sizeof(*s));
    assert(s != NULL);
    s->base.transport = &e->base;
    s->owner = e;
    s->id = ++e->fabric->sides;
    list_push_back(&e->sides, &s->in_endpoint);
    return s;
}

static enum status loopback_connect(struct transport *t, const void *address, size_t bytes,
                                    struct transport_link **out, struct error *err)
{
    struct endpoint *e = endpoint_of(t);
    struct side *s = side_create(e);
    list_for_each(it, &e->fabric->endpoints)
    {
        struct endpoint *p = list_entry(it, struct endpoint, in_fabric);
        if (p->dead || strlen(p->name) != bytes || memcmp(p->name, address, bytes) != 0)
            continue;
        s->peer = side_create(p);
        s->peer->peer = s;
        break;
    }
    if (!s->peer)
        side_down(s, 0);
    *out = &s->base;
    return ST_OK;
}

static void loopback_disconnect(struct transport_link *l)
{
    break_link((struct side *)l, 0);
}

static void deliver(struct side *to, const struct fabric_message *m, const void *payload,
                    const struct fabric_fate *fate)
{
    struct event *ev = post(to->owner, to, TRANSPORT_FRAME, fate->delay_ns);
    ev->frame = malloc(m->frame_bytes);
    assert(ev->frame != NULL);
    memcpy(ev->frame, m->frame, m->frame_bytes);
    ev->frame_bytes = m->frame_bytes;
    if (m->payload_bytes == 0)
        return;
    ev->incoming = calloc(1, sizeof(*ev->incoming));
    assert(ev->incoming != NULL);
    ev->incoming->bytes = malloc(m->payload_bytes);
    assert(ev->incoming->bytes != NULL);
    memcpy(ev->incoming->bytes, payload, m->payload_bytes);
    ev->incoming->len = m->payload_bytes;
    ev->incoming->side_id = to->id;
    ev->incoming->pull_ns = fate->pull_ns;
    if (fate->damage)
        ((uint8_t *)ev->incoming->bytes)[m->payload_bytes / 2] ^= 0x10;
}

static enum status loopback_send(struct transport_link *l, const void *frame, size_t frame_bytes,
                                 const void *payload, size_t payload_bytes, uint64_t token)
{
    struct side *s = (struct side *)l;
    struct fabric *f = s->owner->fabric;
    if (s->down)
        return ST_LINK;
    const struct fabric_message m = {.from = s->owner->name,
                                     .to = s->peer->owner->name,
                                     .frame = frame,
                                     .frame_bytes = frame_bytes,
                                     .payload_bytes = payload_bytes};
    struct fabric_fate fate = {0};
    if (f->fate)
        f->fate(f->ctx, &m, &fate);
    if (payload_bytes > 0) {
        struct event *ev = post(s->owner, s, TRANSPORT_SENT, fate.delay_ns);
        ev->token = token;
        ev->watched = payload;
        ev->watched_bytes = payload_bytes;
        ev->watched_crc = hash_crc32c(0, payload, payload_bytes);
    }
    for (int i = 0; !fate.lose && i <= fate.copies; i++)
        deliver(s->peer, &m, payload, &fate);
    if (fate.break_link)
        break_link(s, fate.delay_ns);
    return ST_OK;
}

static void loopback_drop(struct transport *t, struct transport_incoming *in)
{
    incoming_free(in);
}

/* The link that this came by; NULL once that is down. */
static struct side *side_of(struct endpoint *e, uint64_t id)
{
    list_for_each(it, &e->sides)
    {
        struct side *s = list_entry(it, struct side, in_endpoint);
        if (s->id == id && !s->down)
            return s;
    }
    return NULL;
}

static void loopback_pull(struct transport *t, struct transport_incoming *in, void *dst,
                          uint64_t token)
{
    struct endpoint *e = endpoint_of(t);
    struct side *s = side_of(e, in->side_id);
    struct event *ev = post(e, s, TRANSPORT_PULLED, s ? in->pull_ns : 0);
    ev->incoming = in;
    ev->dst = dst;
    ev->token = token;
    ev->status = s ? ST_OK : ST_LINK;
}

static const struct kv_pool_view *loopback_peer_pool(struct transport_link *l)
{
    struct side *s = (struct side *)l;
    return s->peer ? &s->peer->owner->view : NULL;
}

static void finish_event(struct endpoint *e, struct event *ev, struct transport_event *out)
{
    switch (ev->kind) {
    case TRANSPORT_FRAME:
        break;
    case TRANSPORT_SENT:
        assert(e->dead ||
               hash_crc32c(0, ev->watched, ev->watched_bytes) == ev->watched_crc); /* LAW 3 */
        break;
    case TRANSPORT_PULLED:
        memcpy(ev->dst, ev->incoming->bytes, ev->incoming->len);
        if (e->dead)
            out->status = ST_LINK;
        incoming_free(ev->incoming);
        break;
    case TRANSPORT_DOWN:
        break;
    }
}

static bool loopback_poll(struct transport *t, struct transport_event *out)
{
    struct endpoint *e = endpoint_of(t);
    if (e->last) {
        struct side *gone = e->last->kind == TRANSPORT_DOWN ? e->last->side : NULL;
        event_free(e->last);
        e->last = NULL;
        if (gone) {
            list_remove(&gone->in_endpoint);
            free(gone);
        }
    }
    if (list_empty(&e->events))
        return false;
    struct event *ev = list_entry(e->events.next, struct event, queue);
    if (ev->at_ns > e->fabric->now_ns && !e->dead)
        return false;
    *out = (struct transport_event){.kind = ev->kind,
                                    .link = ev->side ? &ev->side->base : NULL,
                                    .frame = ev->frame,
                                    .frame_bytes = ev->frame_bytes,
                                    .token = ev->token,
                                    .status = ev->status};
    if (ev->kind == TRANSPORT_FRAME && ev->incoming) {
        out->incoming = ev->incoming;
        out->payload_bytes = ev->incoming->len;
    }
    finish_event(e, ev, out);
    list_remove(&ev->queue);
    e->last = ev;
    return true;
}

static int loopback_fd(struct transport *t)
{
    return -1; /* driven by its caller's own time: nothing to sleep on */
}

static bool loopback_arm(struct transport *t)
{
    return list_empty(&endpoint_of(t)->events);
}

static void loopback_destroy(struct transport *t)
{
    struct endpoint *e = endpoint_of(t);
    list_for_each_safe(it, next, &e->sides)
    {
        struct side *s = list_entry(it, struct side, in_endpoint);
        if (!s->down)
            break_link(s, 0);
    }
    if (e->last)
        event_free(e->last);
    list_for_each_safe(it, next, &e->events)
    {
        struct event *ev = list_entry(it, struct event, queue);
        if (ev->incoming)
            incoming_free(ev->incoming);
        event_free(ev);
    }
    list_for_each_safe(it, next, &e->sides)
    {
        free(list_entry(it, struct side, in_endpoint));
    }
    list_remove(&e->in_fabric);
    free(e->name);
    free(e);
}

#define LOOPBACK_OPS(maps)                                                                         \
    {                                                                                              \
        .name = "loopback", .host = loopback_host, .destroy = loopback_destroy,                    \
        .address = loopback_address, .connect = loopback_connect,                                  \
        .disconnect = loopback_disconnect, .send = loopback_send, .pull = loopback_pull,           \
        .drop = loopback_drop, .peer_pool = loopback_peer_pool, .poll = loopback_poll,             \
        .fd = loopback_fd, .arm = loopback_arm, .maps_pool = maps                                  \
    }

static const struct transport_ops ops_mapping = LOOPBACK_OPS(true);
static const struct transport_ops ops_payload = LOOPBACK_OPS(false);

enum status fabric_add(struct fabric *f, const char *name, bool maps_pool,
                       const struct kv_pool_view *view, struct transport **out)
{
    struct endpoint *e = calloc(1, sizeof(*e));
    if (!e)
        return ST_NO_MEMORY;
    e->base.ops = maps_pool ? &ops_mapping : &ops_payload;
    e->fabric = f;
    e->view = *view;
    e->name = strdup(name);
    list_init(&e->sides);
    list_init(&e->events);
    list_push_back(&f->endpoints, &e->in_fabric);
    *out = &e->base;
    return ST_OK;
}

void fabric_kill(struct fabric *f, struct transport *t, int64_t notice_ns)
{
    struct endpoint *e = endpoint_of(t);
    e->dead = true;
    list_for_each_safe(it, next, &e->sides)
    {
        struct side *s = list_entry(it, struct side, in_endpoint);
        if (!s->down)
            break_link(s, notice_ns);
    }
}
