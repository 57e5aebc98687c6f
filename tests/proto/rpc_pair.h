/* A server and a client in one process over loopback, driven by one thread: expect() takes the next
 * event of one side, while the other side's events wait in its own queue. */
#ifndef TESTS_PROTO_RPC_PAIR_H
#define TESTS_PROTO_RPC_PAIR_H

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "proto/rpc.h"

#define WAIT_NS (10 * NS_PER_S)
#define METHOD_ECHO "/test.Echo/Unary"
#define METHOD_STREAM "/test.Echo/Stream"

struct pair {
    struct rpc *server, *client;
    struct rpc_channel *channel;
    int port;
};

static const char *const pair_methods[] = {METHOD_ECHO, METHOD_STREAM};

static inline struct rpc_args pair_args(void)
{
    return (struct rpc_args){
        .max_calls = 64,
        .max_message_bytes = 1 << 20,
        .max_outbox_bytes = 64 << 10,
        .methods = pair_methods,
        .n_methods = 2,
        .reflection = true,
    };
}

static inline void pair_open(struct pair *p, const struct rpc_args *server,
                             const struct rpc_args *client)
{
    struct error err = {0};
    char address[64];
    cr_assert_eq(rpc_create(server, &p->server, &err), ST_OK, "%s", err.text);
    cr_assert_eq(rpc_listen(p->server, "127.0.0.1:0", &p->port, &err), ST_OK, "%s", err.text);
    cr_assert_eq(rpc_start(p->server, &err), ST_OK, "%s", err.text);
    cr_assert_eq(rpc_create(client, &p->client, &err), ST_OK, "%s", err.text);
    cr_assert_eq(rpc_start(p->client, &err), ST_OK, "%s", err.text);
    snprintf(address, sizeof address, "127.0.0.1:%d", p->port);
    cr_assert_eq(rpc_connect(p->client, address, &p->channel, &err), ST_OK, "%s", err.text);
}

static inline struct pair pair_default(void)
{
    struct pair p;
    struct rpc_args args = pair_args();
    pair_open(&p, &args, &args);
    return p;
}

static inline void pair_close(struct pair *p)
{
    rpc_destroy(p->client, 0);
    rpc_destroy(p->server, 0);
}

/* The next event, waiting for it up to `wait_ns`. */
static inline bool next_event(struct rpc *r, struct rpc_event *ev, int64_t wait_ns)
{
    int64_t until = clock_now_ns() + wait_ns;
    for (;;) {
        if (rpc_poll(r, ev))
            return true;
        int64_t left = until - clock_now_ns();
        if (left <= 0)
            return false;
        struct pollfd fd = {.fd = rpc_fd(r), .events = POLLIN};
        poll(&fd, 1, (int)(left / NS_PER_MS) + 1);
    }
}

static inline struct rpc_event expect_kind(struct rpc *r, enum rpc_event_kind kind, int line)
{
    struct rpc_event ev = {0};
    cr_assert(next_event(r, &ev, WAIT_NS), "line %d: no event, expected kind %d", line, kind);
    cr_assert_eq(ev.kind, kind, "line %d: event %d instead of %d (status %d, %s)", line, ev.kind,
                 kind, ev.status, ev.text);
    return ev;
}
#define expect(r, kind) expect_kind(r, kind, __LINE__)

static inline void send_text(struct rpc_call *c, const char *text)
{
    cr_assert_eq(rpc_call_send(c, (const uint8_t *)text, strlen(text)), ST_OK);
}

static inline bool text_is(const struct rpc_event *ev, const char *text)
{
    return ev->len == strlen(text) && memcmp(ev->data, text, ev->len) == 0;
}

static inline struct rpc_call *start_call(struct pair *p, const char *method, int64_t timeout_ns)
{
    struct rpc_call *c;
    int64_t deadline = timeout_ns > 0 ? clock_now_ns() + timeout_ns : NS_NEVER;
    cr_assert_eq(rpc_call_start(p->channel, method, deadline, p, &c), ST_OK);
    return c;
}
#endif
