/* Shared memory between the processes of one host. A link is an abstract SOCK_SEQPACKET socket that
 * carries frames; the data never moves through it: each side has the other's KV pool mapped
 * read-only and copies out of it.
 *
 * A link begins with a hello each way: the sender's layout, and with it a read-only descriptor of
 * its pool's memfd, which must be sealed against shrinking (a pool that shrank would fault its
 * readers). Only processes of the same user are let in. Death of the peer shows on the socket and
 * on its pidfd, at once. Frames are cut into packets, because a packet must fit the socket's
 * buffer. The beginning of a link is in transport_shm_hello.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/rng.h"
#include "kvtransfer/transport_shm_internal.h"

#define LINKS_MAX 256
#define OUTBOX_BYTES_MAX (64u << 20)

struct outgoing {
    struct list queue;
    size_t bytes, sent;
    uint8_t frame[];
};

/* ---- events ---- */

static void queue_frame(struct shm *s, struct shm_link *l, uint8_t *frame, size_t bytes)
{
    struct shm_event *ev = calloc(1, sizeof(*ev));
    if (!ev) { /* no memory to tell: a frame is lost as on any wire, and asked for again */
        free(frame);
        return;
    }
    ev->kind = TRANSPORT_FRAME;
    ev->link = l;
    ev->frame = frame;
    ev->frame_bytes = bytes;
    list_push_back(&s->events, &ev->queue);
}

static void event_free(struct shm_event *ev)
{
    list_remove(&ev->queue);
    if (ev->kind == TRANSPORT_DOWN)
        return;
    free(ev->frame);
    free(ev);
}

/* ---- links ---- */

void shm_link_down(struct shm *s, struct shm_link *l, const char *why)
{
    if (l->down)
        return;
    log_debug("shm_link_down", "reason=\"%s\"", why);
    l->down = true;
    if (!l->heard)
        shm_hello_settled(s);
    close(l->fd);
    if (l->pid_fd >= 0)
        close(l->pid_fd);
    l->fd = l->pid_fd = -1;
    list_for_each_safe(it, next, &l->outbox)
    {
        struct outgoing *o = list_entry(it, struct outgoing, queue);
        list_remove(it);
        free(o);
    }
    l->down_event.kind = TRANSPORT_DOWN;
    l->down_event.link = l;
    list_push_back(&s->events, &l->down_event.queue);
}

static void link_free(struct shm *s, struct shm_link *l)
{
    list_remove(&l->in_shm);
    s->n_links--;
    if (l->peer.base)
        munmap(l->peer.base, l->peer_bytes);
    free(l->inbox);
    free(l);
}

bool shm_watch(struct shm *s, int op, int fd, uint32_t events, void *what)
{
    struct epoll_event ev = {.events = events, .data.ptr = what};
    return epoll_ctl(s->epoll_fd, op, fd, &ev) == 0;
}

static struct shm_link *link_create(struct shm *s, int fd)
{
    struct shm_link *l = s->n_links < LINKS_MAX ? calloc(1, sizeof(*l)) : NULL;
    if (!l)
        return NULL;
    l->base.transport = &s->base;
    l->fd = fd;
    l->pid_fd = -1;
    l->born_ns = clock_now_ns();
    list_init(&l->outbox);
    list_init(&l->down_event.queue);
    list_push_back(&s->links, &l->in_shm);
    s->n_links++;
    shm_hello_awaited(s);
    if (!shm_watch(s, EPOLL_CTL_ADD, fd, EPOLLIN, l))
        shm_link_down(s, l, "epoll");
    return l;
}

static void flush(struct shm *s, struct shm_link *l)
{
    while (!l->down && !list_empty(&l->outbox)) {
        struct outgoing *o = list_entry(l->outbox.next, struct outgoing, queue);
        struct packet *p = &s->packet;
        size_t left = o->bytes - o->sent;
        uint32_t n = left < PACKET_DATA_BYTES ? (uint32_t)left : PACKET_DATA_BYTES;
        p->kind = PACKET_FRAME;
        p->total = (uint32_t)o->bytes;
        p->offset = (uint32_t)o->sent;
        p->bytes = n;
        memcpy(p->data, o->frame + o->sent, n);
        if (send(l->fd, p, PACKET_HEAD_BYTES + n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
                shm_link_down(s, l, strerror(errno));
            break;
        }
        o->sent += n;
        if (o->sent < o->bytes)
            continue;
        l->outbox_bytes -= o->bytes;
        list_remove(&o->queue);
        free(o);
    }
    bool want = !l->down && !list_empty(&l->outbox);
    if (!l->down && want != l->wants_out) {
        shm_watch(s, EPOLL_CTL_MOD, l->fd, want ? EPOLLIN | EPOLLOUT : EPOLLIN, l);
        l->wants_out = want;
    }
}

/* ---- reading ---- */

static void take_piece(struct shm *s, struct shm_link *l, const struct packet *p)
{
    bool first = p->offset == 0;
    bool sane = l->heard && p->total > 0 && p->total <= WIRE_FRAME_MAX && p->bytes > 0 &&
                p->offset == (first ? 0 : l->inbox_have) && p->bytes <= p->total - p->offset &&
                (first || p->total == l->inbox_total) && (!first || !l->inbox);
    if (!sane) {
        shm_link_down(s, l, "a packet that makes no sense");
        return;
    }
    if (first) {
        l->inbox = malloc(p->total);
        l->inbox_total = p->total;
        l->inbox_have = 0;
    }
    if (!l->inbox) {
        shm_link_down(s, l, "no memory for a frame");
        return;
    }
    memcpy(l->inbox + p->offset, p->data, p->bytes);
    l->inbox_have += p->bytes;
    if (l->inbox_have == l->inbox_total) {
        queue_frame(s, l, l->inbox, l->inbox_total);
        l->inbox = NULL;
    }
}

/* One packet; false when there is none (or the link has gone). */
static bool read_packet(struct shm *s, struct shm_link *l)
{
    struct packet *p = &s->packet;
    struct iovec io = {.iov_base = p, .iov_len = sizeof(*p)};
    union {
        char bytes[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(l->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return false;
    int fds[4], n_fds = 0;
    for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && n_fds < 4; i++)
            memcpy(&fds[n_fds++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    if (n <= 0)
        shm_link_down(s, l, n == 0 ? "closed" : strerror(errno));
    else if ((size_t)n < PACKET_HEAD_BYTES || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
             (size_t)n != PACKET_HEAD_BYTES + p->bytes)
        shm_link_down(s, l, "a malformed packet");
    else if (p->kind == PACKET_HELLO)
        shm_take_hello(s, l, p, n_fds == 1 ? fds[0] : -1);
    else if (p->kind == PACKET_FRAME)
        take_piece(s, l, p);
    else
        shm_link_down(s, l, "an unknown packet");
    for (int i = 0; i < n_fds; i++)
        close(fds[i]);
    return !l->down;
}

static void accept_links(struct shm *s)
{
    for (int i = 0; i < 16; i++) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct shm_link *l = link_create(s, fd);
        if (!l) {
            close(fd);
            continue;
        }
        if (!l->down && !shm_identify(s, l))
            shm_link_down(s, l, "another user's process");
        if (!l->down)
            shm_greet(s, l);
    }
}

static void serve_link(struct shm *s, struct shm_link *l, uint32_t events)
{
    if (events & EPOLLOUT)
        flush(s, l);
    for (int i = 0; i < 16 && !l->down; i++)
        if (!read_packet(s, l))
            break;
    if (l->down || l->pid_fd < 0)
        return;
    /* Its last words are read first. Its socket may stay open: a child may have inherited it. */
    struct pollfd death = {.fd = l->pid_fd, .events = POLLIN};
    if (!(events & EPOLLIN) || poll(&death, 1, 0) != 1)
        return;
    uint8_t byte;
    if (recv(l->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
        shm_link_down(s, l, "the peer has died");
}

static void serve(struct shm *s)
{
    struct epoll_event evs[32];
    int n = epoll_wait(s->epoll_fd, evs, 32, 0);
    for (int i = 0; i < n; i++) {
        if (evs[i].data.ptr == &s->listen_fd)
            accept_links(s);
        else if (evs[i].data.ptr == &s->timer_fd)
            shm_check_hellos(s);
        else if (!((struct shm_link *)evs[i].data.ptr)->down)
            serve_link(s, evs[i].data.ptr, evs[i].events);
    }
}

/* ---- ops ---- */

static const char *shm_host(struct transport *t)
{
    return transport_shm_host();
}

static enum status shm_address(struct transport *t, struct buf *out, struct error *err)
{
    buf_puts(out, ((struct shm *)t)->name);
    return ST_OK;
}

/* Abstract: no file, gone with its socket. */
static socklen_t abstract_address(struct sockaddr_un *a, const void *name, size_t bytes)
{
    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    memcpy(a->sun_path + 1, name, bytes);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + bytes);
}

static enum status shm_connect(struct transport *t, const void *address, size_t bytes,
                               struct transport_link **out, struct error *err)
{
    struct shm *s = (struct shm *)t;
    struct sockaddr_un a;
    if (bytes == 0 || bytes >= sizeof(s->name))
        return err_set(err, ST_INVALID, "shm: an address of %zu bytes", bytes);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, ST_IO, "shm: socket: %s", strerror(errno));
    socklen_t len = abstract_address(&a, address, bytes);
    struct shm_link *l = link_create(s, fd);
    if (!l) {
        close(fd);
        return err_set(err, ST_BUSY, "shm: too many links");
    }
    *out = &l->base;
    if (l->down)
        return ST_OK;
    if (connect(fd, (struct sockaddr *)&a, len) != 0)
        shm_link_down(s, l, strerror(errno));
    else if (!shm_identify(s, l))
        shm_link_down(s, l, "another user's process");
    else
        shm_greet(s, l);
    return ST_OK;
}

static void shm_disconnect(struct transport_link *l)
{
    shm_link_down((struct shm *)l->transport, (struct shm_link *)l, "disconnected");
}

static enum status shm_send(struct transport_link *link, const void *frame, size_t frame_bytes,
                            const void *payload, size_t payload_bytes, uint64_t token)
{
    struct shm_link *l = (struct shm_link *)link;
    if (l->down)
        return ST_LINK;
    if (frame_bytes > WIRE_FRAME_MAX || l->outbox_bytes + frame_bytes > OUTBOX_BYTES_MAX)
        return ST_BUSY;
    struct outgoing *o = malloc(sizeof(*o) + frame_bytes);
    if (!o)
        return ST_BUSY;
    o->bytes = frame_bytes;
    o->sent = 0;
    memcpy(o->frame, frame, frame_bytes);
    list_push_back(&l->outbox, &o->queue);
    l->outbox_bytes += frame_bytes;
    flush((struct shm *)link->transport, l);
    return ST_OK;
}

/* No payloads here, so nothing to pull or drop. */
static void shm_pull(struct transport *t, struct transport_incoming *in, void *dst, uint64_t token)
{
}

static void shm_drop(struct transport *t, struct transport_incoming *in)
{
}

static const struct kv_pool_view *shm_peer_pool(struct transport_link *link)
{
    struct shm_link *l = (struct shm_link *)link;
    return l->heard ? &l->peer : NULL;
}

static bool shm_poll(struct transport *t, struct transport_event *out)
{
    struct shm *s = (struct shm *)t;
    if (s->last) {
        struct shm_link *gone = s->last->kind == TRANSPORT_DOWN ? s->last->link : NULL;
        event_free(s->last);
        s->last = NULL;
        if (gone)
            link_free(s, gone);
    }
    if (list_empty(&s->events))
        serve(s);
    if (list_empty(&s->events))
        return false;
    struct shm_event *ev = list_entry(s->events.next, struct shm_event, queue);
    list_remove(&ev->queue);
    s->last = ev;
    *out = (struct transport_event){.kind = ev->kind,
                                    .link = &ev->link->base,
                                    .frame = ev->frame,
                                    .frame_bytes = ev->frame_bytes};
    return true;
}

static int shm_fd(struct transport *t)
{
    return ((struct shm *)t)->epoll_fd;
}

static bool shm_arm(struct transport *t)
{
    return list_empty(&((struct shm *)t)->events);
}

static void shm_destroy(struct transport *t)
{
    struct shm *s = (struct shm *)t;
    if (s->last)
        event_free(s->last);
    list_for_each_safe(it, next, &s->links)
    {
        shm_link_down(s, list_entry(it, struct shm_link, in_shm), "shutting down");
    }
    list_for_each_safe(it, next, &s->events)
    {
        event_free(list_entry(it, struct shm_event, queue));
    }
    list_for_each_safe(it, next, &s->links)
    {
        link_free(s, list_entry(it, struct shm_link, in_shm));
    }
    if (s->share_fd >= 0)
        close(s->share_fd);
    if (s->timer_fd >= 0)
        close(s->timer_fd);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (s->epoll_fd >= 0)
        close(s->epoll_fd);
    free(s);
}

static const struct transport_ops shm_ops = {
    .name = "shm",
    .host = shm_host,
    .destroy = shm_destroy,
    .address = shm_address,
    .connect = shm_connect,
    .disconnect = shm_disconnect,
    .send = shm_send,
    .pull = shm_pull,
    .drop = shm_drop,
    .peer_pool = shm_peer_pool,
    .poll = shm_poll,
    .fd = shm_fd,
    .arm = shm_arm,
    .maps_pool = true,
};

enum status transport_shm_create(const struct transport_shm_args *args, struct transport **out,
                                 struct error *err)
{
    struct shm *s = calloc(1, sizeof(*s));
    struct sockaddr_un a;
    char self[64];
    if (!s)
        return err_set(err, ST_NO_MEMORY, "no memory for the shm transport");
    s->base.ops = &shm_ops;
    s->args = *args;
    list_init(&s->links);
    list_init(&s->events);
    snprintf(s->name, sizeof(s->name), "baton-%016llx", (unsigned long long)rng_entropy());
    /* Peers get a descriptor that cannot write. */
    snprintf(self, sizeof(self), "/proc/self/fd/%d", args->pool_fd);
    s->share_fd = open(self, O_RDONLY | O_CLOEXEC);
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    s->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t len = abstract_address(&a, s->name, strlen(s->name));
    if (s->share_fd < 0 || s->epoll_fd < 0 || s->timer_fd < 0 || s->listen_fd < 0 ||
        bind(s->listen_fd, (struct sockaddr *)&a, len) != 0 || listen(s->listen_fd, 64) != 0 ||
        !shm_watch(s, EPOLL_CTL_ADD, s->listen_fd, EPOLLIN, &s->listen_fd) ||
        !shm_watch(s, EPOLL_CTL_ADD, s->timer_fd, EPOLLIN, &s->timer_fd)) {
        enum status st = err_set(err, ST_IO, "the shm transport: %s", strerror(errno));
        shm_destroy(&s->base);
        return st;
    }
    *out = &s->base;
    return ST_OK;
}
