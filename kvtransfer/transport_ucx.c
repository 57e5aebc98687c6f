/* UCX as a transport of KV: between hosts, and between processes of one host that share no memory.
 *
 * A frame is a message; a payload is data that the message announces and the receiver pulls. What
 * this adds to comm/ucx.h is liveness: whoever has sent something, or waits for a pull, wants a
 * word from the peer, asks for one after a second of silence, and after UCX_SILENCE_NS closes the
 * link by force. TCP alone does not notice a process that is stopped, or a network that is gone
 * while data is on the way. A peer that is only busy answers, since its transfer thread does. */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "comm/ucx.h"
#include "kvtransfer/transport.h"

#define UCX_SILENCE_NS (5 * NS_PER_S)
#define UCX_ASK_NS (1 * NS_PER_S)

enum ucx_kind { KIND_FRAME = 1, KIND_PING, KIND_PONG };

struct ucx_event { /* a frame's bytes follow it */
    struct list queue;
    struct transport_event ev;
};

struct ucx_link {
    struct transport_link base;
    struct list in_ucx;
    struct ucx_ep *ep; /* valid until the link's DOWN is queued */
    struct ucx_event down;
    int32_t posted;     /* payload sends and pulls under way */
    int64_t waiting_ns; /* since when a word of the peer is wanted; 0: it is not */
    int64_t asked_ns;   /* when it was last asked for one */
};

struct transport_incoming {
    struct list in_ucx;
    struct ucx_data *data;
    struct ucx_link *link;    /* NULL: it is down */
    struct ucx_event *pulled; /* ready for its completion */
};

struct ucx {
    struct transport base;
    struct ucx_worker *worker;
    struct list links, events, incoming;
    struct ucx_event *last; /* lent to the last poll's caller */
    int epoll_fd, timer_fd;
    int64_t tick_ns; /* when to look for silent peers; NS_NEVER */
};

static struct ucx *ucx_of(struct transport *t)
{
    return (struct ucx *)t;
}

/* ---- liveness ---- */

static void set_tick(struct ucx *u, int64_t at_ns)
{
    struct itimerspec t = {0};
    if (at_ns != NS_NEVER) {
        t.it_value.tv_sec = at_ns / NS_PER_S;
        t.it_value.tv_nsec = at_ns % NS_PER_S;
    }
    u->tick_ns = at_ns;
    timerfd_settime(u->timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static void want_word(struct ucx *u, struct ucx_link *l)
{
    if (l->waiting_ns)
        return;
    l->waiting_ns = l->asked_ns = clock_now_ns();
    if (u->tick_ns == NS_NEVER)
        set_tick(u, l->waiting_ns + UCX_ASK_NS);
}

static void heard(struct ucx_link *l)
{
    l->waiting_ns = l->posted > 0 ? clock_now_ns() : 0;
    l->asked_ns = l->waiting_ns;
}

static void tick(struct ucx *u, int64_t now)
{
    bool more = false;
    list_for_each(it, &u->links)
    {
        struct ucx_link *l = list_entry(it, struct ucx_link, in_ucx);
        if (!l->waiting_ns || !l->ep)
            continue;
        more = true;
        if (now - l->waiting_ns >= UCX_SILENCE_NS) {
            log_warn("ucx_peer_silent", "posted=%d", l->posted);
            l->waiting_ns = 0;
            ucx_ep_close(l->ep);
        } else if (now - l->asked_ns >= UCX_ASK_NS) {
            l->asked_ns = now;
            ucx_ep_send(l->ep, &(struct ucx_send){.kind = KIND_PING, .header = "?", 1});
        }
    }
    set_tick(u, more ? now + UCX_ASK_NS : NS_NEVER);
}

/* ---- what UCX tells ---- */

static struct ucx_link *link_create(struct ucx *u)
{
    struct ucx_link *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->base.transport = &u->base;
    l->down.ev.kind = TRANSPORT_DOWN;
    l->down.ev.link = &l->base;
    list_init(&l->down.queue);
    list_push_back(&u->links, &l->in_ucx);
    return l;
}

static void *on_accepted(void *ctx, struct ucx_ep *ep)
{
    struct ucx_link *l = link_create(ctx);
    if (l)
        l->ep = ep;
    return l;
}

static void incoming_free(struct transport_incoming *in)
{
    list_remove(&in->in_ucx);
    free(in->pulled);
    free(in);
}

static struct transport_incoming *incoming_create(struct ucx *u, struct ucx_link *l,
                                                  struct ucx_data *data)
{
    struct transport_incoming *in = calloc(1, sizeof(*in));
    if (!in)
        return NULL;
    list_init(&in->in_ucx);
    in->pulled = calloc(1, sizeof(*in->pulled));
    if (!in->pulled) {
        incoming_free(in);
        return NULL;
    }
    in->data = data;
    in->link = l;
    list_push_back(&u->incoming, &in->in_ucx);
    return in;
}

static bool on_arrived(void *ctx, void *user, const struct ucx_message *m)
{
    struct ucx *u = ctx;
    struct ucx_link *l = user;
    heard(l);
    if (m->kind == KIND_PING)
        ucx_ep_send(l->ep, &(struct ucx_send){.kind = KIND_PONG, .header = "!", 1});
    if (m->kind != KIND_FRAME || m->header_bytes > WIRE_FRAME_MAX)
        return false;
    struct ucx_event *ev = calloc(1, sizeof(*ev) + m->header_bytes);
    struct transport_incoming *in = m->data ? incoming_create(u, l, m->data) : NULL;
    if (!ev || (m->data && !in)) { /* as if lost on the wire: it is asked for again */
        free(ev);
        if (in)
            incoming_free(in);
        return false;
    }
    if (m->header_bytes > 0)
        memcpy(ev + 1, m->header, m->header_bytes);
    ev->ev = (struct transport_event){.kind = TRANSPORT_FRAME,
                                      .link = &l->base,
                                      .frame = ev + 1,
                                      .frame_bytes = m->header_bytes,
                                      .incoming = in,
                                      .payload_bytes = m->data_bytes};
    list_push_back(&u->events, &ev->queue);
    return true;
}

/* The token is the event that send() or pull() has made ready, so no completion can get lost for
 * want of memory. */
static void on_done(void *ctx, void *user, enum ucx_op op, uint64_t token, enum status status)
{
    struct ucx *u = ctx;
    struct ucx_link *l = user;
    struct ucx_event *ev = (struct ucx_event *)(uintptr_t)token;
    l->posted--;
    if (status == ST_OK)
        heard(l);
    ev->ev.status = status;
    list_push_back(&u->events, &ev->queue);
}

static void on_closed(void *ctx, void *user)
{
    struct ucx *u = ctx;
    struct ucx_link *l = user;
    l->ep = NULL;
    l->waiting_ns = 0;
    list_for_each(it, &u->incoming)
    {
        struct transport_incoming *in = list_entry(it, struct transport_incoming, in_ucx);
        if (in->link == l)
            in->link = NULL;
    }
    list_push_back(&u->events, &l->down.queue);
}

/* ---- ops ---- */

static enum status ucx_address(struct transport *t, struct buf *out, struct error *err)
{
    return ucx_worker_address(ucx_of(t)->worker, out, err);
}

static enum status ucx_connect(struct transport *t, const void *address, size_t bytes,
                               struct transport_link **out, struct error *err)
{
    struct ucx *u = ucx_of(t);
    struct ucx_link *l = link_create(u);
    if (!l)
        return err_set(err, ST_NO_MEMORY, "ucx: no memory for a link");
    enum status st = ucx_ep_connect(u->worker, address, bytes, l, &l->ep, err);
    if (st != ST_OK) {
        list_remove(&l->in_ucx);
        free(l);
        return st;
    }
    want_word(u, l);
    *out = &l->base;
    return ST_OK;
}

static void ucx_disconnect(struct transport_link *link)
{
    struct ucx_link *l = (struct ucx_link *)link;
    if (l->ep)
        ucx_ep_close(l->ep);
}

static enum status ucx_send(struct transport_link *link, const void *frame, size_t frame_bytes,
                            const void *payload, size_t payload_bytes, uint64_t token)
{
    struct ucx_link *l = (struct ucx_link *)link;
    struct ucx *u = ucx_of(link->transport);
    if (!l->ep)
        return ST_LINK;
    if (frame_bytes > WIRE_FRAME_MAX)
        return ST_BUSY;
    struct ucx_send s = {.kind = KIND_FRAME, .header = frame, .header_bytes = frame_bytes};
    struct ucx_event *ev = NULL;
    if (payload_bytes > 0) {
        ev = calloc(1, sizeof(*ev));
        if (!ev)
            return ST_BUSY;
        ev->ev = (struct transport_event){.kind = TRANSPORT_SENT, .link = link, .token = token};
        s.data = payload;
        s.data_bytes = payload_bytes;
        s.token = (uint64_t)(uintptr_t)ev;
        l->posted++;
    }
    enum status st = ucx_ep_send(l->ep, &s);
    if (st == ST_OK) {
        want_word(u, l);
    } else if (ev) {
        l->posted--;
        free(ev);
    }
    return st;
}

static void ucx_drop(struct transport *t, struct transport_incoming *in)
{
    ucx_data_drop(in->data);
    incoming_free(in);
}

static void ucx_pull(struct transport *t, struct transport_incoming *in, void *dst, uint64_t token)
{
    struct ucx *u = ucx_of(t);
    struct ucx_link *l = in->link;
    struct ucx_event *ev = in->pulled;
    ev->ev = (struct transport_event){.kind = TRANSPORT_PULLED, .token = token};
    if (l) {
        ev->ev.link = &l->base;
        l->posted++;
    }
    enum status st = ucx_data_pull(in->data, dst, (uint64_t)(uintptr_t)ev);
    if (st == ST_OK) {
        want_word(u, l);
    } else {
        if (l)
            l->posted--;
        ev->ev.link = NULL;
        ev->ev.status = ST_LINK;
        list_push_back(&u->events, &ev->queue);
    }
    in->pulled = NULL; /* with the event's queue now */
    incoming_free(in);
}

static const struct kv_pool_view *ucx_peer_pool(struct transport_link *l)
{
    return NULL;
}

static void release_last(struct ucx *u)
{
    struct ucx_event *ev = u->last;
    u->last = NULL;
    if (ev && ev->ev.kind == TRANSPORT_DOWN) {
        struct ucx_link *l = (struct ucx_link *)ev->ev.link;
        list_remove(&l->in_ucx);
        free(l);
    } else {
        free(ev);
    }
}

static bool ucx_poll(struct transport *t, struct transport_event *out)
{
    struct ucx *u = ucx_of(t);
    release_last(u);
    if (list_empty(&u->events)) {
        if (u->tick_ns != NS_NEVER) {
            int64_t now = clock_now_ns();
            if (now >= u->tick_ns)
                tick(u, now);
        }
        while (ucx_worker_progress(u->worker) && list_empty(&u->events))
            ;
    }
    if (list_empty(&u->events))
        return false;
    struct ucx_event *ev = list_entry(u->events.next, struct ucx_event, queue);
    list_remove(&ev->queue);
    u->last = ev;
    *out = ev->ev;
    return true;
}

static int ucx_fd(struct transport *t)
{
    return ucx_of(t)->epoll_fd;
}

static bool ucx_arm(struct transport *t)
{
    struct ucx *u = ucx_of(t);
    return list_empty(&u->events) && ucx_worker_arm(u->worker);
}

static void ucx_destroy(struct transport *t)
{
    struct ucx *u = ucx_of(t);
    release_last(u);
    while (!list_empty(&u->incoming))
        ucx_drop(t, list_entry(u->incoming.next, struct transport_incoming, in_ucx));
    ucx_worker_destroy(u->worker); /* its last calls queue the last events */
    while (!list_empty(&u->events)) {
        u->last = list_entry(u->events.next, struct ucx_event, queue);
        list_remove(&u->last->queue);
        release_last(u);
    }
    if (u->timer_fd >= 0)
        close(u->timer_fd);
    if (u->epoll_fd >= 0)
        close(u->epoll_fd);
    if (list_empty(&u->links)) /* else the worker was not quiet, and has said so */
        free(u);
}

static const struct transport_ops ucx_ops = {
    .name = "ucx",
    .destroy = ucx_destroy,
    .address = ucx_address,
    .connect = ucx_connect,
    .disconnect = ucx_disconnect,
    .send = ucx_send,
    .pull = ucx_pull,
    .drop = ucx_drop,
    .peer_pool = ucx_peer_pool,
    .poll = ucx_poll,
    .fd = ucx_fd,
    .arm = ucx_arm,
};

static bool watch(struct ucx *u, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    return fd >= 0 && epoll_ctl(u->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

enum status transport_ucx_create(const struct transport_ucx_args *args, struct transport **out,
                                 struct error *err)
{
    struct ucx *u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(err, ST_NO_MEMORY, "no memory for the ucx transport");
    u->base.ops = &ucx_ops;
    list_init(&u->links);
    list_init(&u->events);
    list_init(&u->incoming);
    u->tick_ns = NS_NEVER;
    u->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    u->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    const struct ucx_worker_args a = {.device = args->device ? args->device : "",
                                      .keepalive_ns = args->keepalive_ns,
                                      .handlers = {on_accepted, on_arrived, on_done, on_closed},
                                      .ctx = u};
    enum status st = ucx_worker_create(&a, &u->worker, err);
    if (st == ST_OK && (!watch(u, u->timer_fd) || !watch(u, ucx_worker_fd(u->worker))))
        st = err_set(err, ST_IO, "ucx: no descriptors to wait on");
    struct buf address = {0};
    if (st == ST_OK)
        st = ucx_worker_address(u->worker, &address, err);
    if (st == ST_OK) {
        log_info("ucx_ready", "transports=%s address=%s", ucx_worker_transports(u->worker),
                 address.data);
        *out = &u->base;
    } else {
        ucx_destroy(&u->base);
    }
    buf_fini(&address);
    return st;
}
