/* Making a node and taking it apart: the two functions are the same list, read in opposite
 * directions. */
#include "node/node_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/topology.h"

#define STAGING_BUFFERS 32
#define OFFERS_IN_FLIGHT 4
#define MESSAGE_BYTES_MAX (128u << 20)
#define OUTBOX_BYTES_MAX (8u << 20)
#define PEM_BYTES_MAX (1u << 20)

static int32_t max_calls(const struct node *n)
{
    return (int32_t)(2 * n->config->engine.max_batch);
}

/* Loading a large model takes minutes. The signal stays there, for the loop. */
static bool is_told_to_stop(void *ctx)
{
    const struct node *n = ctx;
    struct pollfd fd = {.fd = n->signal_fd, .events = POLLIN};
    return n->signal_fd >= 0 && poll(&fd, 1, 0) > 0;
}

static enum status start_model(struct node *n, struct error *err)
{
    const struct config *c = n->config;
    int cores = topology_cpus();
    int threads = c->node.threads > 0 ? (int)c->node.threads : cores;
    const struct ops *ops;
    enum status st = ops_cpu(c->node.cpu_features, &ops, err);
    if (st != ST_OK)
        return st;
    if (strcmp(c->node.device, "cpu") != 0)
        return err_set(err, ST_UNSUPPORTED, "node.device: %s is not built in; supported: cpu",
                       c->node.device);
    if (c->ranks.tensor != 1 || c->ranks.expert != 1 || c->ranks.rank != 0)
        return err_set(err, ST_UNSUPPORTED,
                       "ranks: tensor %lld, expert %lld: only one rank per node is built in",
                       (long long)c->ranks.tensor, (long long)c->ranks.expert);
    enum model_weights_form form;
    if (!model_weights_form_parse(c->node.weights, &form))
        return err_set(err, ST_INVALID, "node.weights: %s", c->node.weights);
    const char *cache = strcmp(c->node.weights_cache, "none") == 0 ? NULL : c->node.weights_cache;
    if (!c->model.path)
        return err_set(err, ST_INVALID, "model.path: expected the model's folder, got nothing");
    n->team = team_create(threads, threads <= cores && threads > 1, c->node.pin);
    if (!n->team)
        return err_set(err, ST_NO_MEMORY, "%d kernel threads could not be started", threads);
    const struct engine_args sizes = {.max_batch = (int32_t)c->engine.max_batch,
                                      .chunk_tokens_max = (int32_t)c->engine.chunk_tokens_max};
    struct stop stop = {.asked = is_told_to_stop, .ctx = n};
    const struct model_load_args load = {.dir = c->model.path,
                                         .ops = ops,
                                         .team = n->team,
                                         .max_batch_tokens = engine_rows_max(&sizes),
                                         .max_logits_rows = engine_logits_max(&sizes),
                                         .weights = form,
                                         .weights_cache = cache,
                                         .stop = &stop};
    return model_load(&load, &n->model, err);
}

/* Where pinned threads have their memory, on a machine where that is a question. */
static void say_memory(const struct node *n)
{
    int refused, nodes = team_memory_nodes(n->team, &refused);
    char why[128];
    if (refused)
        log_warn("memory_not_placed", "reason=%s", log_quote(why, sizeof why, strerror(refused)));
    else if (nodes > 0)
        log_info("memory_placed", "memory_nodes=%d", nodes);
}

static enum status start_pool(struct node *n, struct error *err)
{
    enum dtype dtype = model_get_config(n->model)->dtype;
    if (strcmp(n->config->kv.dtype, "auto") != 0 && !kv_dtype_parse(n->config->kv.dtype, &dtype))
        return err_set(err, ST_INVALID, "kv.dtype: %s", n->config->kv.dtype);
    n->layout = model_kv_layout(n->model, dtype, (int32_t)n->config->kv.block_tokens,
                                (uint64_t)n->config->kv.pool_bytes);
    int32_t least = 2 * kv_groups_of(&n->layout);
    if (n->layout.blocks < least)
        return err_set(err, ST_NEVER_FITS,
                       "kv.pool_bytes: %lld holds %d blocks, at least %d needed",
                       (long long)n->config->kv.pool_bytes, n->layout.blocks, least);
    size_t bytes = kv_pool_bytes(&n->layout);
    /* The kernel promises more than there is; a pool that cannot be filled would end in a kill. */
    size_t host_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (bytes > host_bytes)
        return err_set(err, ST_NO_MEMORY, "kv.pool_bytes: %zu, this host has %zu", bytes,
                       host_bytes);
    enum status st = shm_pool_create(&n->pool, bytes, err);
    if (st != ST_OK)
        return st;
    team_place(n->team, n->pool.base, bytes);
    say_memory(n);
    return ST_OK;
}

static void run_model(void *ctx, const struct batch *b, const struct model_kv *kv, float *logits,
                      model_layer_done_fn *done, void *done_ctx)
{
    model_forward(ctx, b, kv, logits, done, done_ctx);
}

static bool is_long(const void *ctx, int32_t prompt_tokens)
{
    return model_is_long(ctx, prompt_tokens);
}

/* What constrained output needs of the tokenizer. A model without one is served all the same. */
static enum status start_vocabulary(struct node *n, struct error *err)
{
    const struct model_config *mc = model_get_config(n->model);
    struct tokenizer *t = NULL;
    struct error why = {0};
    if (tokenizer_load(n->config->model.path, &t, &why) != ST_OK) {
        char quoted[600];
        log_warn("no_grammars", "reason=%s", log_quote(quoted, sizeof quoted, why.text));
        return ST_OK;
    }
    const struct grammar_vocab_args args = {
        .tokenizer = t, .size = mc->vocab, .ends = mc->eos, .n_ends = mc->n_eos};
    enum status st = grammar_vocab_create(&args, &n->vocab, err);
    tokenizer_free(t);
    return st;
}

static enum status start_compiler(struct node *n, struct error *err)
{
    return compiler_start(&n->compiler, err);
}

static enum status start_engine(struct node *n, struct error *err)
{
    const struct config *c = n->config;
    const struct model_config *mc = model_get_config(n->model);
    struct engine_args args = {
        .runner = {.ctx = n->model,
                   .forward = run_model,
                   .is_long = is_long,
                   .vocab = mc->vocab,
                   .max_context = mc->max_context,
                   .eos = mc->eos,
                   .n_eos = mc->n_eos},
        .events = n->role_ops->engine_events(n->role),
        .pool = n->pool.base,
        .layout = n->layout,
        .prefix_cache = c->kv.prefix_cache,
        .max_batch = (int32_t)c->engine.max_batch,
        .chunk_tokens_max = (int32_t)c->engine.chunk_tokens_max,
        .step_budget_ns = c->engine.step_budget_ms * NS_PER_MS,
        .max_groups = 2 * max_calls(n), /* released groups stay until their transfer is quiet */
        .salt = model_fingerprint(n->model).w[0],
        .grammar_vocab = n->vocab,
    };
    if (c->model.max_context > 0 && c->model.max_context < args.runner.max_context)
        args.runner.max_context = (int32_t)c->model.max_context;
    enum status st = engine_create(&args, &n->engine, err);
    if (st == ST_OK)
        n->role_ops->set_engine(n->role, n->engine);
    return st;
}

/* A node that serves on loopback only has no business listening elsewhere, and UCX would, on every
 * device that it finds. */
static const char *ucx_device(const struct config *c)
{
    bool loopback = strncmp(c->node.listen, "127.", 4) == 0 ||
                    strncmp(c->node.listen, "localhost:", 10) == 0 ||
                    strncmp(c->node.listen, "[::1]:", 6) == 0;
    return c->kv.device[0] == '\0' && loopback ? "lo" : c->kv.device;
}

static enum status start_transports(struct node *n, struct error *err)
{
    const char *want = n->config->kv.transport;
    bool automatic = strcmp(want, "auto") == 0;
    const struct kv_pool_view pool = {.base = n->pool.base, .layout = n->layout};
    if (automatic || strcmp(want, "shm") == 0) {
        const struct transport_shm_args a = {.pool_fd = n->pool.fd, .pool = pool};
        enum status st = transport_shm_create(&a, &n->transports[n->n_transports], err);
        if (st != ST_OK)
            return st;
        n->n_transports++;
    }
    if (automatic || strcmp(want, "ucx") == 0) {
        const struct transport_ucx_args a = {.device = ucx_device(n->config),
                                             .keepalive_ns = n->config->timeouts.keepalive_ns};
        enum status st = transport_ucx_create(&a, &n->transports[n->n_transports], err);
        if (st == ST_OK)
            n->n_transports++;
        else if (!automatic || st != ST_UNSUPPORTED)
            return st;
    }
    if (n->n_transports == 0)
        return err_set(err, ST_INVALID, "kv.transport: %s; expected auto, shm or ucx", want);
    struct mover_args args = {.n_transports = n->n_transports,
                              .pool = pool,
                              .staging_buffers = STAGING_BUFFERS,
                              .max_plans = 2 * max_calls(n),
                              .max_offerings = 2 * max_calls(n),
                              .window = OFFERS_IN_FLIGHT,
                              .metrics = n->metrics};
    memcpy(args.transports, n->transports, sizeof(args.transports));
    struct mover *m;
    enum status st = mover_create(&args, &m, err);
    if (st != ST_OK)
        return st;
    st = mover_address(m, &n->address, err);
    if (st == ST_OK)
        st = transfer_start(m, &args, &n->transfer, err);
    if (st != ST_OK)
        mover_destroy(m);
    return st;
}

/* ---- effects: the role's hands ---- */

static enum status eff_send(void *ctx, void *call, const struct buf *b)
{
    return rpc_call_send(call, (const uint8_t *)b->data, b->len);
}

static void eff_read(void *ctx, void *call)
{
    rpc_call_read(call);
}

static void eff_finish(void *ctx, void *call, enum status status, const char *text)
{
    rpc_call_finish(call, status, text);
}

static enum status eff_expect(void *ctx, const struct mover_plan *plan)
{
    transfer_expect(((struct node *)ctx)->transfer, plan);
    return ST_OK;
}

static void eff_forget(void *ctx, uint64_t user)
{
    transfer_forget(((struct node *)ctx)->transfer, user);
}

static enum status eff_open(void *ctx, const struct mover_send *send)
{
    transfer_open(((struct node *)ctx)->transfer, send);
    return ST_OK;
}

static void eff_layer(void *ctx, uint64_t user, int32_t layer, int32_t tokens)
{
    transfer_layer(((struct node *)ctx)->transfer, user, layer, tokens);
}

static void eff_fill(void *ctx, uint64_t user, const struct msg_token *first, uint32_t count)
{
    transfer_fill(((struct node *)ctx)->transfer, user, first, count);
}

static void eff_close(void *ctx, uint64_t user)
{
    transfer_close(((struct node *)ctx)->transfer, user);
}

static void eff_compile(void *ctx, struct grammar_draft *draft)
{
    compiler_give(((struct node *)ctx)->compiler, draft);
}

static uint64_t eff_random(void *ctx)
{
    return rng_entropy();
}

static enum status start_role(struct node *n, struct error *err)
{
    struct fingerprint f = model_fingerprint(n->model);
    const struct model_config *mc = model_get_config(n->model);
    const struct node_role_args args = {
        .effects = {.ctx = n,
                    .send = eff_send,
                    .read = eff_read,
                    .finish = eff_finish,
                    .expect = eff_expect,
                    .forget = eff_forget,
                    .offer_open = eff_open,
                    .offer_layer = eff_layer,
                    .offer_fill = eff_fill,
                    .offer_close = eff_close,
                    .compile = eff_compile,
                    .random = eff_random},
        .max_calls = max_calls(n),
        .ranks = &n->address,
        .n_ranks = 1,
        .max_context = mc->max_context,
        .fingerprint = {f.w[0], f.w[1]},
        .request_ns = n->config->timeouts.request_ns,
        .metrics = n->metrics,
        .aggregated = n->aggregated,
    };
    return n->role_ops->create(&args, &n->role, err);
}

/* ---- servers ---- */

static enum status start_rpc(struct node *n, struct error *err)
{
    const struct config *c = n->config;
    const char *methods[NODE_METHODS] = {[NODE_METHOD_ROLE] = n->role_ops->method,
                                         [NODE_METHOD_STATUS] = "/baton.v1.Admin/Status",
                                         [NODE_METHOD_DRAIN] = "/baton.v1.Admin/Drain"};
    const char *const paths[] = {c->tls.ca, c->tls.cert, c->tls.key};
    char *pem[3] = {NULL, NULL, NULL};
    enum status st = ST_OK;
    for (size_t i = 0; i < 3 && st == ST_OK; i++)
        if (paths[i])
            st = file_read_text(paths[i], PEM_BYTES_MAX, &pem[i], err);
    if (st == ST_OK) {
        const struct rpc_args args = {.tls = {pem[0], pem[1], pem[2]},
                                      .max_calls = max_calls(n) + NODE_ADMIN_CALLS_MAX,
                                      .max_message_bytes = MESSAGE_BYTES_MAX,
                                      .max_outbox_bytes = OUTBOX_BYTES_MAX,
                                      .keepalive_ns = c->timeouts.keepalive_ns,
                                      .methods = methods,
                                      .n_methods = NODE_METHODS};
        st = rpc_create(&args, &n->rpc, err);
    }
    for (size_t i = 0; i < 3; i++)
        free(pem[i]);
    int port;
    if (st == ST_OK)
        st = rpc_listen(n->rpc, c->node.listen, &port, err);
    if (st == ST_OK)
        st = rpc_start(n->rpc, err);
    if (st != ST_OK)
        return st;
    char host[256];
    int asked;
    st = config_split_address(c->node.listen, host, sizeof(host), &asked, err);
    snprintf(n->grpc_address, sizeof(n->grpc_address), "%s:%d", host, port);
    return st;
}

static enum status start_http(struct node *n, struct error *err)
{
    const struct http_server_args args = {.listen = n->config->node.http,
                                          .body_bytes_max = 4096,
                                          .header_bytes_max = 16384,
                                          .connections_max = 256,
                                          .idle_timeout_ns = 30 * NS_PER_S,
                                          .request_timeout_ns = 60 * NS_PER_S,
                                          .stream_bytes_max = 1 << 20};
    enum status st = http_server_create(&args, &n->http, err);
    char host[256];
    int asked;
    if (st == ST_OK)
        st = config_split_address(n->config->node.http, host, sizeof(host), &asked, err);
    if (st == ST_OK)
        snprintf(n->http_address, sizeof(n->http_address), "http://%s:%d", host,
                 http_port(n->http));
    return st;
}

static enum status start_loop(struct node *n, struct error *err)
{
    n->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (n->signal_fd < 0 || n->epoll_fd < 0)
        return err_set(err, ST_IO, "the event loop: %s", strerror(errno));
    const int fds[] = {n->signal_fd, rpc_fd(n->rpc), transfer_fd(n->transfer),
                       compiler_fd(n->compiler), http_fd(n->http)};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = fds[i]};
        if (epoll_ctl(n->epoll_fd, EPOLL_CTL_ADD, fds[i], &ev) != 0)
            return err_set(err, ST_IO, "the event loop: %s", strerror(errno));
    }
    return ST_OK;
}

static enum status start_metrics(struct node *n, struct error *err)
{
    struct buf labels = {0};
    metrics_label(&labels, "model", n->config->model.name ? n->config->model.name : "");
    metrics_label(&labels, "node", n->config->node.name);
    metrics_label(&labels, "role", n->aggregated ? "both" : n->role_ops->name);
    n->metrics = metrics_create(labels.data ? labels.data : "");
    buf_fini(&labels);
    if (!n->metrics)
        return err_set(err, ST_NO_MEMORY, "no memory for metrics");
    node_metrics_register(n);
    return ST_OK;
}

enum status node_start(struct node *n, struct error *err)
{
    static enum status (*const steps[])(struct node *, struct error *) = {
        start_metrics, start_model,      start_vocabulary, start_compiler, start_pool, start_role,
        start_engine,  start_transports, start_rpc,        start_http,     start_loop};
    n->pool.fd = n->epoll_fd = -1;
    n->boot = rng_entropy();
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        enum status st = steps[i](n, err);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

void node_stop(struct node *n)
{
    if (n->epoll_fd >= 0)
        close(n->epoll_fd);
    if (n->signal_fd >= 0)
        close(n->signal_fd);
    if (n->http)
        http_server_destroy(n->http, NS_PER_S);
    if (n->rpc)
        rpc_destroy(n->rpc, NS_PER_S);
    transfer_stop(n->transfer);
    for (int32_t i = 0; i < n->n_transports; i++)
        n->transports[i]->ops->destroy(n->transports[i]);
    if (n->engine)
        engine_destroy(n->engine);
    compiler_stop(n->compiler);
    grammar_vocab_free(n->vocab);
    if (n->role)
        n->role_ops->destroy(n->role);
    shm_pool_destroy(&n->pool);
    if (n->model)
        model_free(n->model);
    if (n->team)
        team_destroy(n->team);
    if (n->metrics)
        metrics_destroy(n->metrics);
    buf_fini(&n->out);
}
