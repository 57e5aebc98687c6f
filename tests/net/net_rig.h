/* A server and raw sockets to it, driven by one thread: what the tests of net/ share. */
#ifndef TESTS_NET_RIG_H
#define TESTS_NET_RIG_H

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/http_server.h"

#define RIG_WAIT_NS (10 * NS_PER_S)

static inline struct http_server_args rig_args(void)
{
    return (struct http_server_args){.listen = "127.0.0.1:0",
                                     .body_bytes_max = 4096,
                                     .header_bytes_max = 2048,
                                     .connections_max = 1200,
                                     .idle_timeout_ns = 30 * NS_PER_S,
                                     .stream_bytes_max = 65536};
}

static inline struct http_server *rig_server(struct http_server_args args)
{
    struct http_server *s = NULL;
    struct error err = {0};
    cr_assert_eq(http_server_create(&args, &s, &err), ST_OK, "%s", err.text);
    return s;
}

static inline int rig_connect(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(fd >= 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static inline void rig_send(int fd, const char *text)
{
    size_t len = strlen(text);
    cr_assert_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* The next event; false: none within `wait_ns`. */
static inline bool rig_event_within(struct http_server *s, struct http_event *ev, int64_t wait_ns)
{
    int64_t until_ns = clock_now_ns() + wait_ns;
    do {
        if (http_poll(s, ev))
            return true;
        struct pollfd p = {.fd = http_fd(s), .events = POLLIN};
        poll(&p, 1, 5);
    } while (clock_now_ns() < until_ns);
    return false;
}

static inline struct http_event rig_event(struct http_server *s, enum http_event_kind kind)
{
    struct http_event ev = {0};
    cr_assert(rig_event_within(s, &ev, RIG_WAIT_NS), "event %d did not come", (int)kind);
    cr_assert_eq((int)ev.kind, (int)kind, "event %d instead of %d", (int)ev.kind, (int)kind);
    return ev;
}

/* Reads until `want` is there, the peer closed (true only for want == NULL), or time is up. */
static inline bool rig_expect(int fd, char *text, size_t cap, const char *want)
{
    size_t len = 0;
    int64_t until_ns = clock_now_ns() + RIG_WAIT_NS;
    text[0] = 0;
    while (clock_now_ns() < until_ns && len + 1 < cap) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 50) <= 0)
            continue;
        ssize_t n = recv(fd, text + len, want ? 1 : cap - 1 - len, 0);
        if (n <= 0)
            return want == NULL;
        len += (size_t)n;
        text[len] = 0;
        if (want && strstr(text, want))
            return true;
    }
    return false;
}

#define RIG_POST                                                                                   \
    "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "         \
    "5\r\n\r\n"                                                                                    \
    "hello"

#endif
