/* Making and unmaking the router's process, in order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "router/router.h"

#define KEYS_BYTES_MAX (16 << 20)
#define MESSAGE_BYTES_MAX (80 << 20) /* a Start with the longest prompt */
#define PUBLIC_OUTBOX_BYTES (64 << 10)
#define PUBLIC_CALLS_MAX 4096
#define DESK_BODIES 8 /* of the largest size, waiting to be read */
#define HTTP_IDLE_NS (75 * NS_PER_S)

static enum status start_metrics(struct router *r, struct error *err)
{
    struct buf labels = {0};
    if (!r->config->model.path || !r->config->model.name)
        return err_set(err, ST_INVALID, "model.path: expected the model's folder, got nothing");
    if (r->config->router.n_nodes == 0)
        return err_set(err, ST_INVALID, "router.nodes: expected at least a decode node, got none");
    metrics_label(&labels, "model", r->config->model.name);
    metrics_label(&labels, "node", "router");
    metrics_label(&labels, "role", "router");
    r->metrics = metrics_create(labels.data ? labels.data : "");
    buf_fini(&labels);
    if (!r->metrics)
        return err_set(err, ST_NO_MEMORY, "no memory for metrics");
    router_metrics_register(r);
    return ST_OK;
}

static enum status start_keys(struct router *r, struct error *err)
{
    const char *path = r->config->router.api_keys_file;
    char *text;
    if (!path)
        return ST_OK;
    enum status st = file_read_text(path, KEYS_BYTES_MAX, &text, err);
    if (st != ST_OK)
        return st;
    size_t bytes = strlen(text);
    st = keys_parse(&r->keys, text, path, err);
    explicit_bzero(text, bytes);
    free(text);
    return st;
}

static enum status start_core(struct router *r, struct error *err)
{
    int64_t most = r->config->router.queue_max + ROUTER_REQUESTS_MAX;
    struct core_args args = {.effects = router_effects,
                             .config = r->config,
                             .metrics = r->metrics,
                             .max_requests = (int32_t)most};
    args.effects.ctx = r;
    r->now_ns = clock_now_ns();
    return core_create(&args, &r->core, err);
}

/* ---- servers ---- */

static enum status start_rpcs(struct router *r, const struct rpc_tls *tls, struct error *err)
{
    const struct config *c = r->config;
    const struct rpc_args nodes = {.tls = *tls,
                                   .max_message_bytes = MESSAGE_BYTES_MAX,
                                   .max_outbox_bytes = MESSAGE_BYTES_MAX,
                                   .keepalive_ns = c->timeouts.keepalive_ns};
    const struct rpc_args open = {.tls = *tls,
                                  .max_calls = PUBLIC_CALLS_MAX,
                                  .max_message_bytes = (size_t)c->router.limits.body_bytes,
                                  .max_outbox_bytes = PUBLIC_OUTBOX_BYTES,
                                  .keepalive_ns = c->timeouts.keepalive_ns,
                                  .reflection = true,
                                  .methods = grpc_api_methods,
                                  .n_methods = GRPC_API_METHODS};
    int port, asked;
    char host[256];
    enum status st = rpc_create(&nodes, &r->nodes_rpc, err);
    if (st == ST_OK)
        st = rpc_start(r->nodes_rpc, err);
    for (size_t i = 0; i < c->router.n_nodes && st == ST_OK; i++)
        st = rpc_connect(r->nodes_rpc, c->router.nodes[i].address, &r->channels[i], err);
    if (st == ST_OK)
        st = rpc_create(&open, &r->public_rpc, err);
    if (st == ST_OK)
        st = rpc_listen(r->public_rpc, c->router.grpc, &port, err);
    if (st == ST_OK)
        st = rpc_start(r->public_rpc, err);
    if (st == ST_OK)
        st = config_split_address(c->router.grpc, host, sizeof host, &asked, err);
    if (st == ST_OK)
        snprintf(r->grpc_address, sizeof r->grpc_address, "%s:%d", host, port);
    return st;
}

static enum status start_grpc(struct router *r, struct error *err)
{
    const char *const paths[] = {r->config->tls.ca, r->config->tls.cert, r->config->tls.key};
    char *pem[3] = {NULL, NULL, NULL};
    enum status st = ST_OK;
    for (size_t i = 0; i < 3 && st == ST_OK; i++) {
        if (paths[i])
            st = file_read_text(paths[i], 1 << 20, &pem[i], err);
    }
    if (st == ST_OK)
        st = start_rpcs(r, &(struct rpc_tls){pem[0], pem[1], pem[2]}, err);
    for (size_t i = 0; i < 3; i++)
        free(pem[i]);
    return st;
}

static enum status start_http(struct router *r, struct error *err)
{
    const struct config *c = r->config;
    const struct http_server_args args = {.listen = c->router.listen,
                                          .body_bytes_max = (size_t)c->router.limits.body_bytes,
                                          .header_bytes_max = (size_t)c->router.limits.header_bytes,
                                          .connections_max = (int32_t)c->router.limits.connections,
                                          .idle_timeout_ns = HTTP_IDLE_NS,
                                          .request_timeout_ns = c->timeouts.request_ns,
                                          .stream_bytes_max = ROUTER_STREAM_BYTES};
    char host[256];
    int asked;
    enum status st = http_server_create(&args, &r->http, err);
    if (st == ST_OK)
        st = config_split_address(c->router.listen, host, sizeof host, &asked, err);
    if (st == ST_OK)
        snprintf(r->http_address, sizeof r->http_address, "%s:%d", host, http_port(r->http));
    return st;
}

static enum status start_desk(struct router *r, struct error *err)
{
    const struct desk_args args = {.bytes_max =
                                       DESK_BODIES * (size_t)r->config->router.limits.body_bytes,
                                   .patience_ns = r->config->timeouts.request_ns};
    router_note_context(r);
    return desk_create(&args, &r->desk, err);
}

static enum status start_loop(struct router *r, struct error *err)
{
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (r->signal_fd < 0 || r->epoll_fd < 0)
        return err_set(err, ST_IO, "the event loop: %s", strerror(errno));
    const int fds[] = {r->signal_fd, rpc_fd(r->nodes_rpc), rpc_fd(r->public_rpc), http_fd(r->http),
                       desk_fd(r->desk)};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = fds[i]};
        if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fds[i], &ev) != 0)
            return err_set(err, ST_IO, "the event loop: %s", strerror(errno));
    }
    return ST_OK;
}

enum status router_start(struct router *r, struct error *err)
{
    static enum status (*const steps[])(struct router *, struct error *) = {
        start_metrics, router_load_model, start_keys, start_core,
        start_grpc,    start_http,        start_desk, start_loop};
    list_init(&r->runs);
    list_init(&r->grpc_calls);
    r->epoll_fd = -1;
    r->started_s = clock_unix_ns() / NS_PER_S;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        enum status st = steps[i](r, err);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

void router_stop(struct router *r)
{
    if (r->epoll_fd >= 0)
        close(r->epoll_fd);
    if (r->signal_fd >= 0)
        close(r->signal_fd);
    desk_destroy(r->desk); /* its jobs hold what comes below */
    http_server_destroy(r->http, NS_PER_S);
    if (r->public_rpc)
        rpc_destroy(r->public_rpc, NS_PER_S);
    if (r->nodes_rpc)
        rpc_destroy(r->nodes_rpc, 0);
    core_destroy(r->core);
    keys_fini(&r->keys);
    router_unload_model(r);
    if (r->metrics)
        metrics_destroy(r->metrics);
    buf_fini(&r->scratch);
}
