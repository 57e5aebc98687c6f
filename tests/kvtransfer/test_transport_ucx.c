/* The UCX transport within one process: the contract of transport.h at its edges, and what a
 * stranger's bytes on its ports do. Skips, and says so, in a build without UCX. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "kvtransfer/kv_rig.h"

#define PAYLOAD (1 << 20)

static struct transport *open_one(void)
{
    struct transport *t = NULL;
    struct error err = {0};
    const struct transport_ucx_args a = {.device = "", .keepalive_ns = 10 * NS_PER_S};
    enum status st = transport_ucx_create(&a, &t, &err);
    if (st == ST_UNSUPPORTED)
        cr_skip_test("this build has no UCX");
    cr_assert_eq(st, ST_OK, "%s", err.text);
    return t;
}

/* The next event of `t`, while `other` (may be NULL) makes progress, its events being lost. */
static bool next(struct transport *t, struct transport *other, struct transport_event *ev,
                 int64_t for_ns)
{
    for (int64_t until = clock_now_ns() + for_ns; clock_now_ns() < until;) {
        struct transport_event lost;
        if (t->ops->poll(t, ev))
            return true;
        if (other)
            other->ops->poll(other, &lost);
    }
    return false;
}

static struct transport_link *connect_to(struct transport *from, struct transport *to)
{
    struct buf a = {0};
    struct transport_link *l = NULL;
    cr_assert_eq(to->ops->address(to, &a, NULL), ST_OK);
    cr_assert_eq(from->ops->connect(from, a.data, a.len, &l, NULL), ST_OK);
    buf_fini(&a);
    return l;
}

struct pair {
    struct transport *a, *b;
    struct transport_link *out, *in; /* a's, b's end */
};

static void pair_open(struct pair *p)
{
    struct transport_event ev;
    p->a = open_one();
    p->b = open_one();
    p->out = connect_to(p->a, p->b);
    cr_assert_eq(p->a->ops->send(p->out, "hello", 5, NULL, 0, 0), ST_OK);
    cr_assert(next(p->b, p->a, &ev, 5 * NS_PER_S));
    cr_assert(ev.kind == TRANSPORT_FRAME && ev.frame_bytes == 5 && !ev.incoming);
    p->in = ev.link;
}

static void pair_close(struct pair *p)
{
    p->a->ops->destroy(p->a);
    p->b->ops->destroy(p->b);
}

Test(transport_ucx, frames_of_all_sizes, .timeout = 60)
{
    struct pair p;
    struct transport_event ev;
    static uint8_t frame[WIRE_FRAME_MAX];
    static const size_t sizes[] = {1, 100, 4096, 9000, 128 << 10, 1 << 20, WIRE_FRAME_MAX};
    pair_open(&p);
    for (int back = 0; back < 2; back++)
        for (int i = 0; i < 7; i++) {
            struct transport_link *l = back ? p.in : p.out;
            struct transport *to = back ? p.a : p.b;
            for (size_t k = 0; k < sizes[i]; k++)
                frame[k] = (uint8_t)(k * 7 + (size_t)i);
            cr_assert_eq(l->transport->ops->send(l, frame, sizes[i], NULL, 0, 0), ST_OK);
            frame[0]++; /* it was copied */
            cr_assert(next(to, l->transport, &ev, 10 * NS_PER_S), "%zu bytes", sizes[i]);
            frame[0]--;
            cr_assert_eq(ev.frame_bytes, sizes[i]);
            cr_assert_eq(memcmp(ev.frame, frame, sizes[i]), 0, "%zu bytes", sizes[i]);
            cr_assert(ev.link == (back ? p.out : p.in));
        }
    cr_assert_eq(p.a->ops->send(p.out, frame, sizeof(frame) + 1, NULL, 0, 0), ST_BUSY);
    pair_close(&p);
}

Test(transport_ucx, payload_pulled_or_dropped, .timeout = 60)
{
    struct pair p;
    struct transport_event ev;
    static const size_t sizes[] = {1, 63, 4096, 65536, PAYLOAD};
    uint8_t *from = malloc(PAYLOAD), *to = malloc(PAYLOAD);
    pair_open(&p);
    for (int i = 0; i < 10; i++) {
        size_t n = sizes[i / 2];
        for (size_t k = 0; k < n; k++)
            from[k] = (uint8_t)(k * 31 + (size_t)i);
        memset(to, 0, PAYLOAD);
        cr_assert_eq(p.a->ops->send(p.out, "offer", 5, from, n, 40 + (uint64_t)i), ST_OK);
        cr_assert(next(p.b, p.a, &ev, 5 * NS_PER_S));
        cr_assert_eq(ev.kind, TRANSPORT_FRAME);
        cr_assert_eq(ev.payload_bytes, n);
        cr_assert_eq(ev.frame_bytes, 5);
        cr_assert_eq(memcmp(ev.frame, "offer", 5), 0);
        cr_assert_not_null(ev.incoming);
        if (i % 2) {
            p.b->ops->drop(p.b, ev.incoming);
        } else {
            p.b->ops->pull(p.b, ev.incoming, to, 90 + (uint64_t)i);
            /* both ends must move, and each has its own event to see */
            bool pulled = false;
            for (int64_t until = clock_now_ns() + 5 * NS_PER_S; !pulled && clock_now_ns() < until;)
                pulled = next(p.b, NULL, &ev, NS_PER_MS) || (next(p.a, NULL, &ev, NS_PER_MS) && 0);
            cr_assert(pulled);
            cr_assert_eq(ev.kind, TRANSPORT_PULLED);
            cr_assert_eq(ev.status, ST_OK);
            cr_assert_eq(ev.token, 90 + (uint64_t)i);
            cr_assert_eq(memcmp(from, to, n), 0);
        }
        if (i % 2) {
            cr_assert(next(p.a, p.b, &ev, 5 * NS_PER_S), "a dropped payload frees its sender");
            cr_assert_eq(ev.kind, TRANSPORT_SENT);
            cr_assert_eq(ev.token, 40 + (uint64_t)i);
        }
    }
    free(from);
    free(to);
    pair_close(&p);
}

/* Closed by force with everything in the air: each send and pull completes once, DOWN is last, and
 * the memory is no longer touched then. `who`: 0 the sender closes, 1 the receiver. */
static void closed_in_the_air(int who, uint64_t seed)
{
    enum { N = 12 };
    struct pair p;
    struct rng r = rng_seed(seed);
    struct transport_incoming *held[N];
    uint8_t *from[N], *to[N];
    int sent[N] = {0}, pulled[N] = {0}, n_held = 0, n_pulls = 0, down_a = 0, down_b = 0;
    pair_open(&p);
    for (int i = 0; i < N; i++) {
        from[i] = calloc(1, PAYLOAD);
        to[i] = calloc(1, PAYLOAD);
        cr_assert_eq(p.a->ops->send(p.out, "offer", 5, from[i], PAYLOAD, (uint64_t)i), ST_OK);
    }
    int close_at = (int)rng_below(&r, 60);
    for (int step = 0; step < 4000000 && !(down_a && down_b); step++) {
        struct transport_event ev;
        if (step == close_at && who == 0)
            p.a->ops->disconnect(p.out);
        if (step == close_at && who == 1)
            p.b->ops->disconnect(p.in);
        if (p.a->ops->poll(p.a, &ev)) {
            cr_assert_not(down_a);
            if (ev.kind == TRANSPORT_SENT)
                sent[ev.token]++;
            else
                down_a += ev.kind == TRANSPORT_DOWN;
        }
        if (!p.b->ops->poll(p.b, &ev))
            continue;
        if (ev.kind == TRANSPORT_PULLED)
            pulled[ev.token]++;
        else if (ev.kind == TRANSPORT_DOWN)
            down_b++;
        else if (rng_below(&r, 2) && n_pulls < N)
            p.b->ops->pull(p.b, ev.incoming, to[n_pulls], (uint64_t)n_pulls), n_pulls++;
        else
            held[n_held++] = ev.incoming;
    }
    cr_assert(down_a == 1 && down_b == 1, "who %d: %d and %d", who, down_a, down_b);
    for (int i = 0; i < N; i++)
        cr_assert_eq(sent[i], 1, "who %d seed %d: send %d came %d times", who, (int)seed, i,
                     sent[i]);
    /* What was announced outlives the link: it can still be dropped, or pulled in vain. */
    for (int i = 0; i < n_held; i++) {
        struct transport_event ev;
        if (i % 2) {
            p.b->ops->drop(p.b, held[i]);
            continue;
        }
        p.b->ops->pull(p.b, held[i], to[0], 7);
        cr_assert(next(p.b, NULL, &ev, NS_PER_S));
        cr_assert(ev.kind == TRANSPORT_PULLED && ev.status == ST_LINK && ev.token == 7);
    }
    for (int i = 0; i < n_pulls; i++)
        cr_assert_eq(pulled[i], 1, "who %d seed %d: pull %d came %d times", who, (int)seed, i,
                     pulled[i]);
    for (int i = 0; i < N; i++) {
        free(from[i]);
        free(to[i]);
    }
    pair_close(&p);
}

Test(transport_ucx, closed_by_the_sender, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        closed_in_the_air(0, seed);
}

Test(transport_ucx, closed_by_the_receiver, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        closed_in_the_air(1, seed);
}

Test(transport_ucx, again_and_again, .timeout = 60)
{
    struct transport *a = open_one(), *b = open_one();
    for (int i = 0; i < 30; i++) {
        struct transport_event ev;
        struct transport_link *l = connect_to(a, b);
        cr_assert_eq(a->ops->send(l, "x", 1, NULL, 0, 0), ST_OK);
        cr_assert(next(b, a, &ev, 5 * NS_PER_S) && ev.kind == TRANSPORT_FRAME, "round %d", i);
        a->ops->disconnect(l);
        cr_assert(next(a, NULL, &ev, 5 * NS_PER_S) && ev.kind == TRANSPORT_DOWN, "round %d", i);
        cr_assert(next(b, NULL, &ev, 5 * NS_PER_S) && ev.kind == TRANSPORT_DOWN, "round %d", i);
    }
    a->ops->destroy(a);
    b->ops->destroy(b);
}

Test(transport_ucx, addresses_that_are_none)
{
    static const char *const bad[] = {"",           "x",          "1.2.3.4",       "1.2.3.4:",
                                      "1.2.3.4:0",  "1.2.3.4:-1", "1.2.3.4:99999", "1.2.3:80",
                                      "[::1:80",    "::1]:80",    ":80",           "[]:80",
                                      "1.2.3.4:8x", "[::1]:80 ",  "localhost:80",  "]:80"};
    struct transport *t = open_one();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct transport_link *l;
        cr_assert_eq(t->ops->connect(t, bad[i], strlen(bad[i]), &l, NULL), ST_INVALID, "%s",
                     bad[i]);
    }
    char big[4096];
    struct transport_link *l;
    memset(big, '1', sizeof(big));
    cr_assert_eq(t->ops->connect(t, big, sizeof(big), &l, NULL), ST_INVALID);
    cr_assert_eq(t->ops->connect(t, "1.2.3.4\0:80", 11, &l, NULL), ST_INVALID);
    t->ops->destroy(t);
}

/* A port that refuses is noticed at once; what was sent meanwhile comes back. */
Test(transport_ucx, nobody_there, .timeout = 60)
{
    struct transport *t = open_one();
    struct transport_link *l;
    struct transport_event ev;
    static uint8_t payload[4096];
    enum status st = t->ops->connect(t, "127.0.0.1:1", 11, &l, NULL);
    if (st == ST_OK) {
        bool posted = t->ops->send(l, "x", 1, payload, sizeof(payload), 5) == ST_OK;
        if (posted) {
            cr_assert(next(t, NULL, &ev, 10 * NS_PER_S));
            cr_assert(ev.kind == TRANSPORT_SENT && ev.status == ST_LINK && ev.token == 5);
        }
        cr_assert(next(t, NULL, &ev, 10 * NS_PER_S));
        cr_assert_eq(ev.kind, TRANSPORT_DOWN);
    } else {
        cr_assert_eq(st, ST_LINK);
    }
    t->ops->destroy(t);
}

Test(transport_ucx, no_such_device)
{
    struct transport *t;
    struct error err = {0};
    const struct transport_ucx_args a = {.device = "nosuch0", .keepalive_ns = 10 * NS_PER_S};
    enum status st = transport_ucx_create(&a, &t, &err);
    if (st == ST_UNSUPPORTED)
        cr_skip_test("this build has no UCX");
    cr_assert(st == ST_INVALID || st == ST_IO, "%s", status_name(st));
    cr_assert(strstr(err.text, "nosuch0") != NULL, "%s", err.text);
}

/* Asleep, a transport uses no time; armed, it wakes for a frame. */
Test(transport_ucx, sleeps_and_wakes, .timeout = 60)
{
    struct pair p;
    struct transport_event ev;
    pair_open(&p);
    clock_sleep_ns(20 * NS_PER_MS);
    while (next(p.b, p.a, &ev, 2500 * NS_PER_MS)) /* until nobody waits for a word any more */
        ;
    for (int i = 0; i < 100 && !p.b->ops->arm(p.b); i++)
        cr_assert_not(p.b->ops->poll(p.b, &ev));
    struct pollfd fd = {.fd = p.b->ops->fd(p.b), .events = POLLIN};
    cr_assert_eq(poll(&fd, 1, 300), 0, "it wakes for nothing");
    cr_assert_eq(p.a->ops->send(p.out, "x", 1, NULL, 0, 0), ST_OK);
    p.a->ops->poll(p.a, &ev);
    cr_assert_eq(poll(&fd, 1, 2000), 1, "it sleeps through a frame");
    cr_assert(next(p.b, p.a, &ev, NS_PER_S) && ev.kind == TRANSPORT_FRAME);
    pair_close(&p);
}

/* ---- a stranger at the door ---- */

static int stranger(struct transport *t)
{
    struct buf a = {0};
    struct sockaddr_in to = {.sin_family = AF_INET};
    cr_assert_eq(t->ops->address(t, &a, NULL), ST_OK);
    char *colon = strrchr(a.data, ':');
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    *colon = '\0';
    if (inet_pton(AF_INET, a.data, &to.sin_addr) != 1)
        cr_skip_test("listens on IPv6 only");
    buf_fini(&a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* What connects and says nothing, or says an HTTP request, or random bytes, harms nobody else. */
Test(transport_ucx, garbage, .timeout = 60)
{
    struct pair p;
    struct transport_event ev;
    struct rng r = rng_seed(77);
    int fds[24];
    pair_open(&p);
    for (int i = 0; i < 24; i++) {
        uint8_t noise[512];
        size_t n = 1 + (size_t)rng_below(&r, sizeof(noise));
        for (size_t k = 0; k < n; k++)
            noise[k] = (uint8_t)rng_next(&r);
        fds[i] = stranger(p.b);
        if (i % 3 == 0)
            n = (size_t)snprintf((char *)noise, sizeof(noise), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        if (i % 3 != 1)
            cr_assert_gt(send(fds[i], noise, n, MSG_NOSIGNAL), 0);
        cr_assert_not(next(p.b, p.a, &ev, 5 * NS_PER_MS), "event %d", ev.kind);
    }
    for (int i = 0; i < 24; i++)
        close(fds[i]);
    cr_assert_not(next(p.b, p.a, &ev, 50 * NS_PER_MS), "event %d", ev.kind);
    cr_assert_eq(p.a->ops->send(p.out, "still here", 10, NULL, 0, 0), ST_OK);
    cr_assert(next(p.b, p.a, &ev, 5 * NS_PER_S) && ev.kind == TRANSPORT_FRAME);
    pair_close(&p);
}

/* Where this process listens: the address that peers are told, and the ports that UCX has for
 * itself. */
static int listeners(struct sockaddr_in *out, int most)
{
    int n = 0;
    for (int fd = 3; fd < 1024 && n < most; fd++) {
        int listening = 0;
        socklen_t len = sizeof(listening), at_len = sizeof(out[n]);
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening &&
            getsockname(fd, (struct sockaddr *)&out[n], &at_len) == 0 &&
            out[n].sin_family == AF_INET)
            n++;
    }
    return n;
}

/* The same on every port that there is; and a crowd that connects, says nothing and stays costs
 * nobody his place. */
Test(transport_ucx, garbage_on_every_port, .timeout = 60)
{
    enum { CROWD = 40 };
    struct pair p;
    struct transport_event ev;
    struct rng r = rng_seed(78);
    struct sockaddr_in at[16];
    int fds[16 * CROWD], n_fds = 0;
    pair_open(&p);
    int n = listeners(at, 16);
    cr_assert_geq(n, 2, "two transports, %d listeners", n);
    for (int i = 0; i < n * CROWD; i++) {
        uint8_t noise[300];
        size_t bytes = 1 + (size_t)rng_below(&r, sizeof(noise));
        for (size_t k = 0; k < bytes; k++)
            noise[k] = i % 4 == 1 ? 0 : (uint8_t)rng_next(&r);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        connect(fd, (struct sockaddr *)&at[i % n], sizeof(at[0]));
        poll(&ready, 1, 1000);
        if (i / n % 2 == 0)
            send(fd, noise, bytes, MSG_NOSIGNAL);
        fds[n_fds++] = fd;
        cr_assert_not(next(p.b, p.a, &ev, NS_PER_MS / 2), "event %d", ev.kind);
    }
    cr_assert_not(next(p.b, p.a, &ev, 50 * NS_PER_MS), "event %d", ev.kind);
    struct transport_link *l = connect_to(p.a, p.b); /* there is room for one more */
    cr_assert_eq(p.a->ops->send(l, "new", 3, NULL, 0, 0), ST_OK);
    cr_assert(next(p.b, p.a, &ev, 5 * NS_PER_S) && ev.kind == TRANSPORT_FRAME);
    for (int i = 0; i < n_fds; i++)
        close(fds[i]);
    cr_assert_not(next(p.b, p.a, &ev, 50 * NS_PER_MS), "event %d", ev.kind);
    cr_assert_eq(p.a->ops->send(p.out, "still here", 10, NULL, 0, 0), ST_OK);
    cr_assert(next(p.b, p.a, &ev, 5 * NS_PER_S) && ev.kind == TRANSPORT_FRAME);
    pair_close(&p);
}
