/* The HTTP client against our own server, and the parser of server-sent events. */
#include <pthread.h>

#include "net/http_client.h"
#include "net_rig.h"

/* A server in a thread of its own: echo, stream, status, silence. */
struct served {
    struct http_server *s;
    pthread_t thread;
    volatile int stop;
};

static void serve_one(struct http_request *r)
{
    size_t len;
    const char *body = http_body(r, &len);
    const char *path = http_path(r);
    if (strcmp(path, "/echo") == 0) {
        const char *auth = http_header(r, "authorization");
        http_set_header(r, "X-Auth", auth ? auth : "none");
        http_respond(r, 200, "text/plain", body, len);
    } else if (strcmp(path, "/stream") == 0) {
        http_stream_begin(r, 200, "text/event-stream");
        for (int i = 0; i < 50; i++) {
            char line[64];
            int n = snprintf(line, sizeof line, ": ping\r\ndata: %d\r\n\r\n", i);
            http_write(r, line, (size_t)n);
        }
        http_stream_end(r);
    } else if (strcmp(path, "/broken") == 0) {
        http_stream_begin(r, 200, "text/plain");
        http_write(r, "half", 4);
        http_abort(r);
    } else if (strcmp(path, "/silence") == 0) {
        return; /* its GONE releases it */
    } else {
        http_respond(r, 404, "text/plain", "no", 2);
    }
    http_release(r);
}

static void *serve(void *arg)
{
    struct served *v = arg;
    struct http_event ev;
    while (!__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE)) {
        struct pollfd p = {.fd = http_fd(v->s), .events = POLLIN};
        poll(&p, 1, 10);
        while (http_poll(v->s, &ev)) {
            if (ev.kind == HTTP_EV_REQUEST)
                serve_one(ev.request);
            else if (ev.kind == HTTP_EV_GONE)
                http_release(ev.request);
        }
    }
    return NULL;
}

static void served_start(struct served *v)
{
    v->s = rig_server(rig_args());
    v->stop = 0;
    cr_assert_eq(pthread_create(&v->thread, NULL, serve, v), 0);
}

static void served_stop(struct served *v)
{
    __atomic_store_n(&v->stop, 1, __ATOMIC_RELEASE);
    pthread_join(v->thread, NULL);
    http_server_destroy(v->s, 0);
}

struct result {
    int status, headers, data;
    char body[8192];
    size_t len;
    enum status end;
    char auth[64];
};

static void run(struct http_client *c, int transfers)
{
    struct http_client_event ev;
    int64_t until_ns = clock_now_ns() + RIG_WAIT_NS;
    while (transfers && clock_now_ns() < until_ns) {
        if (!http_client_poll(c, 100, &ev))
            continue;
        struct result *r = ev.user;
        if (ev.kind == HTTP_CLIENT_HEADERS) {
            r->headers++;
            r->status = ev.status;
            const char *auth = http_client_header(ev.transfer, "x-auth");
            snprintf(r->auth, sizeof r->auth, "%s", auth ? auth : "");
        } else if (ev.kind == HTTP_CLIENT_DATA) {
            r->data++;
            cr_assert(r->len + ev.len < sizeof r->body);
            memcpy(r->body + r->len, ev.data, ev.len);
            r->len += ev.len;
        } else {
            r->end = ev.result;
            transfers--;
        }
    }
    cr_assert_eq(transfers, 0, "%d transfers did not end", transfers);
}

static struct http_transfer *start(struct http_client *c, int port, const char *path,
                                   struct http_client_request req)
{
    char url[128];
    struct http_transfer *t = NULL;
    struct error err = {0};
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", port, path);
    req.url = url;
    cr_assert_eq(http_client_start(c, &req, &t, &err), ST_OK, "%s", err.text);
    return t;
}

Test(http_client, requests)
{
    struct served v;
    served_start(&v);
    struct http_client *c = NULL;
    cr_assert_eq(http_client_create(&c, NULL), ST_OK);
    static struct result r[4];
    int port = http_port(v.s);
    start(c, port, "/echo",
          (struct http_client_request){
              .method = "POST", .body = "hello", .body_bytes = 5, .bearer = "key", .user = &r[0]});
    start(c, port, "/stream", (struct http_client_request){.method = "GET", .user = &r[1]});
    start(c, port, "/nowhere", (struct http_client_request){.method = "GET", .user = &r[2]});
    start(c, port, "/broken", (struct http_client_request){.method = "GET", .user = &r[3]});
    run(c, 4);
    cr_assert_eq(r[0].status, 200);
    cr_assert_str_eq(r[0].body, "hello");
    cr_assert_str_eq(r[0].auth, "Bearer key");
    cr_assert_eq(r[1].status, 200);
    struct sse_parser p = {0};
    int events = 0;
    for (size_t i = 0; i < r[1].len; i++) { /* a byte at a time */
        cr_assert_eq(sse_feed(&p, r[1].body + i, 1), ST_OK);
        for (const char *e; (e = sse_next(&p));)
            cr_assert_eq(atoi(e), events++);
    }
    cr_assert_eq(events, 50);
    sse_fini(&p);
    cr_assert_eq(r[2].status, 404);
    cr_assert_eq((int)r[2].end, (int)ST_OK);
    cr_assert_eq((int)r[3].end, (int)ST_LINK);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(r[i].headers, 1, "transfer %d", i);
    http_client_destroy(c);
    served_stop(&v);
}

Test(http_client, many_at_once)
{
    struct served v;
    served_start(&v);
    struct http_client *c = NULL;
    cr_assert_eq(http_client_create(&c, NULL), ST_OK);
    static struct result r[200];
    for (int i = 0; i < 200; i++)
        start(c, http_port(v.s), "/echo",
              (struct http_client_request){
                  .method = "POST", .body = "abc", .body_bytes = 3, .user = &r[i]});
    run(c, 200);
    for (int i = 0; i < 200; i++)
        cr_assert_str_eq(r[i].body, "abc", "transfer %d", i);
    http_client_destroy(c);
    served_stop(&v);
}

Test(http_client, cancel_timeout_and_refusal)
{
    struct served v;
    served_start(&v);
    struct http_client *c = NULL;
    cr_assert_eq(http_client_create(&c, NULL), ST_OK);
    static struct result r[4];
    int port = http_port(v.s);
    struct http_transfer *t =
        start(c, port, "/silence", (struct http_client_request){.method = "GET", .user = &r[0]});
    start(c, port, "/silence",
          (struct http_client_request){
              .method = "GET", .timeout_ns = 200 * NS_PER_MS, .user = &r[1]});
    start(c, 1, "/", (struct http_client_request){.method = "GET", .user = &r[2]});
    struct http_client_event ev;
    for (int i = 0; i < 3; i++) {
        if (http_client_poll(c, 20, &ev))
            ((struct result *)ev.user)->end = ev.result;
    }
    http_client_cancel(c, t);
    run(c, 2);
    cr_assert_eq((int)r[0].end, (int)ST_CANCELLED);
    cr_assert_eq((int)r[1].end, (int)ST_DEADLINE);
    cr_assert_eq((int)r[2].end, (int)ST_LINK);
    /* Destroyed with one under way. */
    start(c, port, "/silence", (struct http_client_request){.method = "GET", .user = &r[3]});
    http_client_poll(c, 20, &ev);
    http_client_destroy(c);
    served_stop(&v);
}

Test(sse, splits_and_line_ends)
{
    static const char in[] = "\r\n: comment\n\ndata: a\n\nevent: x\ndata: b\ndata:c\n\ndata\n\n"
                             "id: 1\n\ndata:  two\r\ndata: lines\r\n\r\ndata: cr\r\rdatax: no\n\n"
                             "data: [DONE]\n\ndata: unfinished\n";
    static const char *const want[] = {"a", "b\nc", "", " two\nlines", "cr", "[DONE]"};
    for (size_t step = 1; step < sizeof in; step++) {
        struct sse_parser p = {0};
        size_t n = 0;
        for (size_t i = 0; i < sizeof in - 1; i += step) {
            size_t len = sizeof in - 1 - i < step ? sizeof in - 1 - i : step;
            cr_assert_eq(sse_feed(&p, in + i, len), ST_OK);
            for (const char *e; (e = sse_next(&p)); n++) {
                cr_assert(n < 6, "step %zu: too many: %s", step, e);
                cr_assert_str_eq(e, want[n], "step %zu", step);
            }
        }
        cr_assert_eq(n, (size_t)6, "step %zu", step);
        sse_fini(&p);
    }
}
