/* For tests of the HTTP API: a router over real sockets, with the real core, and a decode node that
 * the test plays (node_rig.h). One per process; Criterion runs each test in its own. Thread: the
 * test's. */
#ifndef TESTS_ROUTER_HTTP_RIG_H
#define TESTS_ROUTER_HTTP_RIG_H

#include <poll.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>

#include "node_rig.h"

#define WAIT_NS (10 * NS_PER_S)

static struct config config;
static char text[1 << 20];

/* ---- driving ---- */

static inline void turn(void)
{
    struct http_event ev;
    struct pollfd p[] = {{.fd = http_fd(r.http), .events = POLLIN},
                         {.fd = desk_fd(r.desk), .events = POLLIN}};
    poll(p, 2, 1);
    r.now_ns = clock_now_ns();
    router_note_context(&r);
    desk_poll(r.desk, r.now_ns);
    while (http_poll(r.http, &ev))
        http_api_event(&r, &ev);
    core_tick(r.core, r.now_ns);
    play_node();
}

static inline void turns(int n)
{
    while (n-- > 0)
        turn();
}

#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        int64_t until_ns_ = clock_now_ns() + WAIT_NS;                                              \
        while (!(condition) && clock_now_ns() < until_ns_)                                         \
            turn();                                                                                \
        cr_assert(condition, "%s did not come", #condition);                                       \
    } while (0)

static inline void set_up(int64_t queue_max)
{
    static const char template_text[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    struct error err = {0};
    config_default(&config);
    cr_assert_eq(config_set(&config, "router.nodes", "both=127.0.0.1:1", "test", &err), ST_OK, "%s",
                 err.text);
    config.model.name = strdup("m");
    config.router.queue_max = queue_max;
    r = (struct router){.config = &config, .rules = rig_rules(), .token_bytes_max = 16};
    r.rules.defaults.temperature = 1;
    list_init(&r.runs);
    r.tokenizer = rig_tokenizer();
    r.eos = calloc(1, sizeof *r.eos);
    r.eos[0] = RIG_EOS;
    r.n_eos = 1;
    r.metrics = metrics_create("");
    router_metrics_register(&r);
    cr_assert_eq(template_parse(template_text, sizeof template_text - 1, &r.chat_template, &err),
                 ST_OK);
    struct core_args core = {
        .effects = node_effects(), .config = &config, .max_requests = 64, .credit_window = 8};
    r.now_ns = clock_now_ns();
    n_calls = 0;
    memset(calls, 0, sizeof calls);
    cr_assert_eq(core_create(&core, &r.core, &err), ST_OK);
    const struct http_server_args http = {.listen = "127.0.0.1:0",
                                          .body_bytes_max = 1 << 20,
                                          .header_bytes_max = 8192,
                                          .connections_max = 100,
                                          .idle_timeout_ns = 60 * NS_PER_S,
                                          .stream_bytes_max = 4096};
    cr_assert_eq(http_server_create(&http, &r.http, &err), ST_OK, "%s", err.text);
    const struct desk_args desk = {.bytes_max = 4 << 20, .patience_ns = WAIT_NS};
    cr_assert_eq(desk_create(&desk, &r.desk, &err), ST_OK, "%s", err.text);
    UNTIL(cluster_ready(core_cluster(r.core)));
}

static inline void tear_down(void)
{
    UNTIL(list_empty(&r.runs) && r.answers == 0);
    desk_destroy(r.desk);
    http_server_destroy(r.http, NS_PER_S);
    core_destroy(r.core);
    metrics_destroy(r.metrics);
    keys_fini(&r.keys);
    router_unload_model(&r);
    buf_fini(&r.scratch);
    config_fini(&config);
}

static inline int send_request(const char *path, const char *headers, const char *body)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)http_port(r.http))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    struct buf b = {0};
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n%s",
               body[0] ? "POST" : "GET", path, headers, strlen(body), body);
    cr_assert_eq(send(fd, b.data, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
    buf_fini(&b);
    return fd;
}

/* Reads on while turning, until the text holds `want`. */
static inline void expect(int fd, const char *want)
{
    size_t len = 0;
    int64_t until_ns = clock_now_ns() + WAIT_NS;
    text[0] = 0;
    while (!strstr(text, want) && clock_now_ns() < until_ns && len + 1 < sizeof text) {
        turn();
        ssize_t n = recv(fd, text + len, sizeof text - 1 - len, MSG_DONTWAIT);
        if (n == 0)
            break;
        len += n > 0 ? (size_t)n : 0;
        text[len] = 0;
    }
    cr_assert(strstr(text, want) != NULL, "no %s in: %s", want, text);
}

/* The i-th Start that the node was asked for. */
static inline struct node_call *start_call(size_t i)
{
    return i < n_calls ? &calls[POLLS_MAX + i] : NULL;
}

static inline void accept_call(size_t i)
{
    UNTIL(start_call(i) && start_call(i)->n > 0);
    tell(start_call(i), &(struct msg_decode_event){.kind = MSG_D_ACCEPTED});
}

#endif
