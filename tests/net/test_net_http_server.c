/* The HTTP server over real sockets. */
#include <fcntl.h>

#include "net_rig.h"

static char text[1 << 18];

Test(http_server, whole_request_and_answer)
{
    struct http_server *s = rig_server(rig_args());
    int fd = rig_connect(http_port(s));
    rig_send(fd, "POST /v1/a%20b?x=1&y=a%2Bb&flag HTTP/1.1\r\nHost: a\r\nX-Thing: Value\r\n"
                 "Content-Length: 5\r\n\r\nhello");
    struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
    size_t len;
    cr_assert_str_eq(http_method(r), "POST");
    cr_assert_str_eq(http_path(r), "/v1/a b");
    cr_assert_str_eq(http_header(r, "x-thing"), "Value");
    cr_assert_null(http_header(r, "x-other"));
    cr_assert_str_eq(http_query(r, "x"), "1");
    cr_assert_str_eq(http_query(r, "y"), "a+b");
    cr_assert_str_eq(http_query(r, "flag"), "");
    cr_assert_null(http_query(r, "z"));
    cr_assert_str_eq(http_body(r, &len), "hello");
    cr_assert_eq(len, (size_t)5);
    http_set_header(r, "X-Answer", "42");
    http_respond(r, 201, "text/plain", "world", 5);
    http_release(r);
    cr_assert(rig_expect(fd, text, sizeof text, "world"));
    cr_assert(strncmp(text, "HTTP/1.1 201 ", 13) == 0, "%s", text);
    cr_assert(strstr(text, "X-Answer: 42\r\n") != NULL);
    cr_assert(strstr(text, "Content-Length: 5\r\n") != NULL);
    close(fd);
    http_server_destroy(s, 0);
}

Test(http_server, keep_alive_and_pipelining)
{
    struct http_server *s = rig_server(rig_args());
    int fd = rig_connect(http_port(s));
    for (int i = 0; i < 20; i++) {
        bool two = i % 2;
        rig_send(fd, two ? RIG_POST RIG_POST : RIG_POST);
        for (int k = 0; k < (two ? 2 : 1); k++) {
            struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
            char body[16];
            int n = snprintf(body, sizeof body, "<%d.%d>", i, k);
            http_respond(r, 200, "text/plain", body, (size_t)n);
            http_release(r);
            cr_assert(rig_expect(fd, text, sizeof text, body), "request %d.%d", i, k);
        }
    }
    close(fd);
    http_server_destroy(s, 0);
}

Test(http_server, chunked_upload)
{
    struct http_server *s = rig_server(rig_args());
    int fd = rig_connect(http_port(s));
    rig_send(fd, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
    size_t len;
    cr_assert_str_eq(http_body(r, &len), "abcdefg");
    http_release(r);
    cr_assert(rig_expect(fd, text, sizeof text, "internal_error"), "%s", text);
    cr_assert(strstr(text, " 500 ") != NULL);
    close(fd);
    http_server_destroy(s, 0);
}

Test(http_server, stream_and_sent)
{
    struct http_server *s = rig_server(rig_args());
    int fd = rig_connect(http_port(s));
    rig_send(fd, RIG_POST);
    struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
    int mark = 7;
    http_set_user(r, &mark);
    http_stream_begin(r, 200, "text/event-stream");
    for (int i = 0; i < 5; i++) {
        char line[32];
        int n = snprintf(line, sizeof line, "data: %d\n\n", i);
        cr_assert_eq(http_write(r, line, (size_t)n), ST_OK);
        struct http_event ev = rig_event(s, HTTP_EV_SENT);
        cr_assert(ev.request == r && ev.user == &mark);
        cr_assert_eq(http_unsent(r), (size_t)0);
        cr_assert(rig_expect(fd, text, sizeof text, line), "event %d", i);
    }
    http_stream_end(r);
    http_release(r);
    cr_assert(rig_expect(fd, text, sizeof text, "0\r\n\r\n"));
    rig_send(fd, RIG_POST); /* the connection lives on */
    r = rig_event(s, HTTP_EV_REQUEST).request;
    http_respond(r, 200, "text/plain", "again", 5);
    http_release(r);
    cr_assert(rig_expect(fd, text, sizeof text, "again"));
    close(fd);
    http_server_destroy(s, 0);
}

/* How soon GONE comes after the close. */
static int64_t gone_after_ns(struct http_server *s, struct http_request *r, int fd)
{
    int64_t before_ns = clock_now_ns();
    close(fd);
    struct http_event ev = rig_event(s, HTTP_EV_GONE);
    cr_assert(ev.request == r);
    return clock_now_ns() - before_ns;
}

Test(http_server, disconnect_while_waiting)
{
    struct http_server *s = rig_server(rig_args());
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < 10; i++) {
        int fd = rig_connect(http_port(s));
        rig_send(fd, RIG_POST);
        struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
        int64_t ns = gone_after_ns(s, r, fd);
        best_ns = ns < best_ns ? ns : best_ns;
        http_respond(r, 200, "text/plain", "late", 4); /* dropped */
        http_release(r);
    }
    cr_assert(best_ns < 20 * NS_PER_MS, "noticed after %lld us", (long long)(best_ns / 1000));
    http_server_destroy(s, 0);
}

Test(http_server, disconnect_while_streaming)
{
    struct http_server *s = rig_server(rig_args());
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < 10; i++) {
        int fd = rig_connect(http_port(s));
        rig_send(fd, RIG_POST);
        struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
        http_stream_begin(r, 200, "text/event-stream");
        cr_assert_eq(http_write(r, "data: x\n\n", 9), ST_OK);
        rig_event(s, HTTP_EV_SENT);
        int64_t ns = gone_after_ns(s, r, fd);
        best_ns = ns < best_ns ? ns : best_ns;
        cr_assert_eq(http_write(r, "data: y\n\n", 9), ST_CANCELLED);
        http_release(r);
    }
    cr_assert(best_ns < 20 * NS_PER_MS, "noticed after %lld us", (long long)(best_ns / 1000));
    http_server_destroy(s, 0);
}

static int descriptors(void)
{
    int n = 0;
    for (int fd = 0; fd < 4096; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

Test(http_server, streams_that_were_left_give_their_descriptors_back_behind_an_older_connection)
{
    struct http_server *s = rig_server(rig_args());
    int idle = rig_connect(http_port(s));
    rig_send(idle, "GET / HT");
    clock_sleep_ns(50 * NS_PER_MS);
    int before = descriptors();
    for (int i = 0; i < 20; i++) {
        int fd = rig_connect(http_port(s));
        rig_send(fd, RIG_POST);
        struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
        http_stream_begin(r, 200, "text/event-stream");
        cr_assert_eq(http_write(r, "data: x\n\n", 9), ST_OK);
        rig_event(s, HTTP_EV_SENT);
        if (i % 2) {
            http_abort(r);
            close(fd);
        } else {
            gone_after_ns(s, r, fd);
        }
        http_release(r);
    }
    struct http_event ev;
    int64_t until_ns = clock_now_ns() + RIG_WAIT_NS;
    while (descriptors() > before && clock_now_ns() < until_ns)
        rig_event_within(s, &ev, 10 * NS_PER_MS);
    cr_assert(descriptors() <= before, "%d descriptors, %d before", descriptors(), before);
    close(idle);
    http_server_destroy(s, 0);
}

Test(http_server, slow_reader_makes_it_busy)
{
    struct http_server *s = rig_server(rig_args());
    int fd = rig_connect(http_port(s));
    int small = 131072;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    rig_send(fd, RIG_POST);
    struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
    http_stream_begin(r, 200, "text/plain");
    static char block[8192];
    memset(block, 'z', sizeof block);
    size_t taken = 0;
    int busy = 0;
    struct http_event ev;
    while (busy < 20 && taken < 64u << 20) {
        if (http_write(r, block, sizeof block) == ST_OK) {
            taken += sizeof block;
            busy = 0;
        } else {
            busy++;
            clock_sleep_ns(5 * NS_PER_MS);
        }
        while (http_poll(s, &ev)) {
        }
    }
    cr_assert_eq(busy, 20, "%zu bytes went nowhere", taken);
    cr_assert(http_unsent(r) <= 65536 + 65536);

    /* The reader wakes up: all is sent, nothing is lost. */
    size_t got = 0;
    bool sent = false;
    int64_t until_ns = clock_now_ns() + RIG_WAIT_NS;
    while ((got < taken || !sent) && clock_now_ns() < until_ns) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n = poll(&p, 1, 5) > 0 ? recv(fd, text, sizeof text, MSG_DONTWAIT) : 0;
        for (ssize_t i = 0; i < n; i++)
            got += text[i] == 'z';
        while (http_poll(s, &ev))
            sent |= ev.kind == HTTP_EV_SENT;
    }
    cr_assert(sent, "no word that it was sent; %zu of %zu, unsent %zu", got, taken, http_unsent(r));
    cr_assert_eq(got, taken);
    cr_assert_eq(http_write(r, "more", 4), ST_OK);
    http_stream_end(r);
    http_release(r);
    cr_assert(rig_expect(fd, text, sizeof text, "0\r\n\r\n"));
    close(fd);
    http_server_destroy(s, 0);
}

/* A client that closes in the middle of what it is not reading. */
Test(http_server, slow_reader_that_leaves)
{
    struct http_server *s = rig_server(rig_args());
    int fd = rig_connect(http_port(s));
    rig_send(fd, RIG_POST);
    struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
    http_stream_begin(r, 200, "text/plain");
    static char block[60000];
    struct http_event ev;
    for (int i = 0; i < 400; i++) {
        http_write(r, block, sizeof block);
        while (http_poll(s, &ev)) {
        }
    }
    cr_assert_eq(http_write(r, block, sizeof block), ST_BUSY);
    cr_assert(gone_after_ns(s, r, fd) < RIG_WAIT_NS);
    http_release(r);
    http_server_destroy(s, 0);
}

struct refused {
    const char *name, *request;
    int status; /* 0: closed without a word is right too */
    bool json;
};

Test(http_server, refusals)
{
    static char headers[1 << 17], big[40000];
    size_t n = (size_t)sprintf(headers, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 60; i++)
        n += (size_t)sprintf(headers + n, "X-Header-%d: %040d\r\n", i, i);
    strcpy(headers + n, "\r\n");
    n = (size_t)sprintf(big, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n");
    memset(big + n, 'b', 8000);
    static char chunked[40000];
    n = (size_t)sprintf(chunked, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "1f40\r\n");
    memset(chunked + n, 'b', 8000);
    strcpy(chunked + n + 8000, "\r\n0\r\n\r\n");
    static char huge[1 << 17], uri[1 << 17];
    n = (size_t)sprintf(huge, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(huge + n, 'x', 60000);
    strcpy(huge + n + 60000, "\r\n\r\n");
    memset(uri, 'x', 60000);
    memcpy(uri, "GET /", 5);
    strcpy(uri + 60000, " HTTP/1.1\r\nHost: a\r\n\r\n");
    const struct refused cases[] = {
        {"body over the limit", big, 413, true},
        {"chunked body over the limit", chunked, 413, true},
        {"announced body far over the limit",
         "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413, true},
        {"expecting to be allowed a large body",
         "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8000\r\n\r\n", 413,
         true},
        {"headers over the limit", headers, 431, true},
        {"two lengths",
         "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400,
         true},
        {"length and chunked",
         "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
         400, true},
        {"unknown transfer encoding",
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400, true},
        {"length that is no number", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400,
         true},
        {"a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400,
         true},
        {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, true},
        {"no host", "GET / HTTP/1.1\r\n\r\n", 400, true},
        {"a header without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400, true},
        {"a head that has no room", huge, 431, true},
        {"a URI that has no room", uri, 414, true},
        {"a chunk size that is no number",
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n", 400, true},
        {"a chunk size that is too large",
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
         413, true},
        {"a chunk that is longer than it says",
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400,
         true},
        {"another version", "GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505, true},
        {"garbage", "\x16\x03\x01\x02\x01\x03\xff\xfe\xfd\r\n\r\n", 0, false},
        {"not a request", "hello\r\n\r\n", 0, false},
    };
    struct http_server *s = rig_server(rig_args());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct refused *c = &cases[i];
        int fd = rig_connect(http_port(s));
        rig_send(fd, c->request);
        shutdown(fd, SHUT_WR);
        char want[16];
        sprintf(want, " %d ", c->status);
        bool closed = rig_expect(fd, text, sizeof text, NULL);
        cr_assert(closed, "%s: still open: %s", c->name, text);
        cr_assert(c->status == 0 || strstr(text, want), "%s: %s", c->name, text);
        cr_assert(!c->json || strstr(text, "{\"error\":{\"message\":"), "%s: %s", c->name, text);
        cr_assert(!c->json || strstr(text, "Content-Type: application/json"), "%s: %s", c->name,
                  text);
        cr_assert(!strstr(text, "<html>"), "%s: %s", c->name, text);
        cr_assert(!strstr(text, "\r\n\r\nHTTP/1.1 "), "%s: two heads: %s", c->name, text);
        struct http_event ev;
        cr_assert(!rig_event_within(s, &ev, 0), "%s: was delivered", c->name);
        close(fd);
    }
    http_server_destroy(s, 0);
}

Test(http_server, half_sent_requests_time_out)
{
    struct http_server_args args = rig_args();
    args.idle_timeout_ns = NS_PER_S;
    struct http_server *s = rig_server(args);
    static const char *const halves[] = {
        "", "POST /v1/x HT", "POST / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhello"};
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = rig_connect(http_port(s));
        if (halves[i][0])
            rig_send(fds[i], halves[i]);
    }
    for (int i = 0; i < 4; i++) {
        cr_assert(rig_expect(fds[i], text, sizeof text, NULL), "half %d stays open", i);
        close(fds[i]);
    }
    struct http_event ev;
    cr_assert(!rig_event_within(s, &ev, 0));
    http_server_destroy(s, 0);
}

/* True: the other side has closed; the server is polled meanwhile. */
static bool closes_within(struct http_server *s, int fd, int64_t wait_ns)
{
    struct http_event ev;
    int64_t until_ns = clock_now_ns() + wait_ns;
    while (clock_now_ns() < until_ns) {
        cr_assert(!rig_event_within(s, &ev, 10 * NS_PER_MS), "it was delivered");
        ssize_t n = recv(fd, text, sizeof text, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return true;
    }
    return false;
}

/* The end comes in one segment with the bytes before it. */
Test(http_server, clients_that_leave_within_a_request_are_not_waited_for)
{
    static const char *const halves[] = {
        "POST /v1/x HT", "POST / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"};
    struct http_server *s = rig_server(rig_args());
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        int fd = rig_connect(http_port(s)), one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &one, sizeof one);
        rig_send(fd, halves[i]);
        shutdown(fd, SHUT_WR);
        cr_assert(closes_within(s, fd, 5 * NS_PER_S), "half %zu stays open", i);
        close(fd);
    }
    http_server_destroy(s, 0);
}

Test(http_server, a_request_that_trickles_in_has_an_end)
{
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n";
    struct http_server_args args = rig_args();
    args.request_timeout_ns = NS_PER_S;
    struct http_server *s = rig_server(args);
    for (size_t at_once = 1; at_once < sizeof head; at_once += sizeof head - 2) {
        int fd = rig_connect(http_port(s));
        int64_t begun_ns = clock_now_ns();
        bool closed = false;
        for (size_t sent = 0; !closed && clock_now_ns() - begun_ns < 8 * NS_PER_S; sent++) {
            size_t n = sent ? 1 : at_once;
            send(fd, sent < sizeof head - 1 ? head + sent : "x", n, MSG_NOSIGNAL);
            closed = closes_within(s, fd, 50 * NS_PER_MS);
        }
        cr_assert(closed, "%zu bytes at once, then one by one", at_once);
        cr_assert(clock_now_ns() - begun_ns >= NS_PER_S);
        close(fd);
    }
    http_server_destroy(s, 0);
}

Test(http_server, waiting_requests_do_not_time_out)
{
    struct http_server_args args = rig_args();
    args.idle_timeout_ns = NS_PER_S;
    struct http_server *s = rig_server(args);
    int fd = rig_connect(http_port(s));
    rig_send(fd, RIG_POST);
    struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
    struct http_event ev;
    cr_assert(!rig_event_within(s, &ev, 2500 * NS_PER_MS));
    http_respond(r, 200, "text/plain", "patience", 8);
    http_release(r);
    cr_assert(rig_expect(fd, text, sizeof text, "patience"));
    close(fd);
    http_server_destroy(s, 0);
}

Test(http_server, too_many_connections)
{
    struct http_server_args args = rig_args();
    args.connections_max = 4;
    struct http_server *s = rig_server(args);
    int fds[5];
    for (int i = 0; i < 4; i++) {
        fds[i] = rig_connect(http_port(s));
        rig_send(fds[i], RIG_POST);
        struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
        http_respond(r, 200, "text/plain", "ok!", 3);
        http_release(r);
        cr_assert(rig_expect(fds[i], text, sizeof text, "ok!"));
    }
    fds[4] = rig_connect(http_port(s));
    cr_assert(rig_expect(fds[4], text, sizeof text, NULL), "the fifth was let in");
    close(fds[4]);
    close(fds[0]);
    clock_sleep_ns(100 * NS_PER_MS);
    fds[0] = rig_connect(http_port(s));
    rig_send(fds[0], RIG_POST);
    http_release(rig_event(s, HTTP_EV_REQUEST).request);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    http_server_destroy(s, 0);
}

Test(http_server, abort_breaks_the_stream)
{
    struct http_server *s = rig_server(rig_args());
    int fd = rig_connect(http_port(s));
    rig_send(fd, RIG_POST);
    struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
    http_stream_begin(r, 200, "text/plain");
    http_write(r, "begun", 5);
    rig_event(s, HTTP_EV_SENT);
    http_abort(r);
    http_release(r);
    cr_assert(rig_expect(fd, text, sizeof text, NULL));
    cr_assert_null(strstr(text, "0\r\n\r\n"));
    struct http_event ev;
    cr_assert(!rig_event_within(s, &ev, 50 * NS_PER_MS));
    close(fd);
    http_server_destroy(s, 0);
}

#define STREAMS 1000

/* A thousand streams at once, a few events each, over as many connections. */
Test(http_server, thousand_streams, .timeout = 120)
{
    struct http_server *s = rig_server(rig_args());
    static int fds[STREAMS];
    static struct http_request *requests[STREAMS];
    struct http_event ev;
    int n = 0;
    for (int i = 0; i < STREAMS; i++) {
        fds[i] = rig_connect(http_port(s));
        rig_send(fds[i], RIG_POST);
    }
    while (n < STREAMS) {
        ev = rig_event(s, HTTP_EV_REQUEST);
        requests[n++] = ev.request;
        http_stream_begin(ev.request, 200, "text/event-stream");
    }
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < STREAMS; i++) {
            char line[32];
            int len = snprintf(line, sizeof line, "data: %d\n\n", round);
            cr_assert_eq(http_write(requests[i], line, (size_t)len), ST_OK);
        }
        while (http_poll(s, &ev))
            cr_assert_eq((int)ev.kind, (int)HTTP_EV_SENT);
    }
    /* One in ten leaves, the others see the end. */
    for (int i = 0; i < STREAMS; i += 10)
        close(fds[i]);
    int gone = 0;
    while (gone < STREAMS / 10) {
        cr_assert(rig_event_within(s, &ev, RIG_WAIT_NS));
        gone += ev.kind == HTTP_EV_GONE;
    }
    for (int i = 0; i < STREAMS; i++) {
        http_stream_end(requests[i]);
        http_release(requests[i]);
    }
    for (int i = 0; i < STREAMS; i++) {
        if (i % 10 == 0)
            continue;
        cr_assert(rig_expect(fds[i], text, sizeof text, "0\r\n\r\n"), "stream %d: %s", i, text);
        cr_assert(strstr(text, "data: 0\n\n") && strstr(text, "data: 4\n\n"));
        close(fds[i]);
    }
    http_server_destroy(s, NS_PER_S);
}

Test(http_server, stops_over_waiting_and_streaming_requests)
{
    struct http_server *s = rig_server(rig_args());
    int fds[3];
    struct http_request *r[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = rig_connect(http_port(s));
        rig_send(fds[i], RIG_POST);
        r[i] = rig_event(s, HTTP_EV_REQUEST).request;
    }
    http_stream_begin(r[1], 200, "text/plain");
    http_write(r[1], "x", 1);
    http_stream_begin(r[2], 200, "text/plain");
    http_write(r[2], "last words", 10);
    http_stream_end(r[2]);
    http_release(r[0]);
    http_release(r[1]);
    http_release(r[2]);
    http_server_destroy(s, NS_PER_S);
    cr_assert(rig_expect(fds[2], text, sizeof text, "last words"));
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

Test(http_server, bad_addresses)
{
    static const char *const bad[] = {"", "127.0.0.1", "127.0.0.1:99999", "no such host:1",
                                      "203.0.113.7:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct http_server_args args = rig_args();
        args.listen = bad[i];
        struct http_server *s = NULL;
        struct error err = {0};
        cr_assert(http_server_create(&args, &s, &err) < 0, "%s", bad[i]);
        cr_assert(err.text[0] != 0);
    }
}
