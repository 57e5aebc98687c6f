#include "node/node_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"

#define BUSY_TICK_MS 50    /* calls are there: deadlines are looked at this often */
#define ADMIN_TICK_MS 1000 /* somebody asks how we are, and may never say so */
#define IDLE_TICK_MS 10000 /* nothing is */
#define FINAL_NS (5 * NS_PER_S)

/* Admin calls have no handle of a role: their `user` is the method, smaller than any handle. */
static bool is_admin(const struct rpc_event *ev)
{
    return (uintptr_t)ev->user > 0 && (uintptr_t)ev->user < NODE_METHODS;
}

static void open_call(struct node *n, const struct rpc_event *ev, int64_t now_ns)
{
    void *user = NULL;
    if (ev->method == NODE_METHOD_ROLE)
        user = n->role_ops->on_open(n->role, ev->call, now_ns, ev->deadline_ns);
    else if (node_admin_open(n, ev->call))
        user = (void *)(uintptr_t)ev->method;
    rpc_call_set_user(ev->call, user);
    if (!user)
        rpc_call_finish(ev->call, ST_BUSY, "too many calls");
}

static void handle_rpc(struct node *n, const struct rpc_event *ev, int64_t now_ns)
{
    bool of_role = ev->user && !is_admin(ev);
    switch (ev->kind) {
    case RPC_EV_OPEN:
        open_call(n, ev, now_ns);
        break;
    case RPC_EV_MESSAGE:
        if (of_role)
            n->role_ops->on_message(n->role, ev->user, ev->data, ev->len, now_ns);
        else if (is_admin(ev)) /* not before: an answer must not overtake the question */
            node_admin_call(n, ev->call, (int)(uintptr_t)ev->user);
        break;
    case RPC_EV_HALF_CLOSED:
    case RPC_EV_DRAINED: /* the flush that follows says what waited */
        break;
    case RPC_EV_CLOSED:
        if (of_role)
            n->role_ops->on_closed(n->role, ev->user, now_ns);
        else if (is_admin(ev))
            node_admin_closed(n, ev->call);
        rpc_call_release(ev->call);
        break;
    }
}

static void handle_signals(struct node *n)
{
    struct signalfd_siginfo info;
    while (read(n->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        node_drain(n);
}

/* Everything that has arrived; bounded, so that a flood of messages cannot keep the engine from its
 * steps. */
static void handle_events(struct node *n)
{
    int64_t now = clock_now_ns();
    struct rpc_event rpc;
    struct mover_event mover;
    struct http_event http;
    struct grammar_draft *draft;
    handle_signals(n);
    for (int i = 0; i < 1024 && rpc_poll(n->rpc, &rpc); i++)
        handle_rpc(n, &rpc, now);
    transfer_clear(n->transfer);
    while (transfer_next(n->transfer, &mover))
        n->role_ops->on_mover(n->role, &mover, now);
    while ((draft = compiler_next(n->compiler)) != NULL)
        n->role_ops->on_compiled(n->role, draft, now);
    for (int i = 0; i < 64 && http_poll(n->http, &http); i++)
        if (http.kind == HTTP_EV_REQUEST)
            node_http(n, http.request);
    node_admin_check_time(n, now);
    n->role_ops->flush(n->role, now);
}

static void step(struct node *n)
{
    struct engine_step_info info;
    int64_t begin = clock_now_ns();
    engine_step(n->engine, &info);
    int64_t took = clock_now_ns() - begin;
    engine_step_took(n->engine, &info, took);
    if (info.prefill_tokens + info.decode_tokens > 0) {
        metric_observe(info.prefill_tokens == 0  ? n->m.step_decode
                       : info.decode_tokens == 0 ? n->m.step_prefill
                                                 : n->m.step_mixed,
                       (double)took / 1e9);
        metric_observe(n->m.step_tokens, info.prefill_tokens + info.decode_tokens);
    }
    n->role_ops->flush(n->role, clock_now_ns());
}

/* True when the drain is over: nothing is left, or its time is up and what was left has been told.
 */
static bool drained(struct node *n)
{
    struct node_role_load load;
    int64_t now = clock_now_ns();
    if (!n->drain_ns)
        return false;
    n->role_ops->load(n->role, &load);
    if (load.calls == 0)
        return true;
    if (!n->final_drain && now - n->drain_ns > n->config->timeouts.drain_ns) {
        n->final_drain = true;
        n->role_ops->drain(n->role, true);
        n->role_ops->flush(n->role, now);
    }
    return n->final_drain && now - n->drain_ns > n->config->timeouts.drain_ns + FINAL_NS;
}

static void loop(struct node *n)
{
    struct epoll_event evs[8];
    for (;;) {
        handle_events(n);
        if (engine_runnable(n->engine))
            step(n);
        if (drained(n))
            return;
        struct node_role_load load;
        n->role_ops->load(n->role, &load);
        int timeout = engine_runnable(n->engine)           ? 0
                      : load.calls > 0 || n->drain_ns != 0 ? BUSY_TICK_MS
                      : n->n_admin > 0                     ? ADMIN_TICK_MS
                                                           : IDLE_TICK_MS;
        epoll_wait(n->epoll_fd, evs, 8, timeout);
    }
}

/* ROLE_ROUTER is "not said". */
static bool plays(enum node_role asked, const char *program)
{
    bool prefill = strcmp(program, "prefill") == 0;
    return asked == ROLE_ROUTER || (asked == ROLE_PREFILL) == prefill;
}

int node_main(const struct config *config, const struct node_role_ops *role, bool aggregated)
{
    struct error err = {0};
    struct node n = {.config = config, .role_ops = role, .aggregated = aggregated};
    if (!plays(config->node.role, role->name)) {
        fprintf(stderr, "baton-%s: node.role: this program plays %s only\n", role->name,
                strcmp(role->name, "prefill") == 0 ? "prefill" : "decode and both");
        return 2;
    }
    n.signal_fd = process_init(); /* before any thread exists */
    enum status st = node_start(&n, &err);
    if (st == ST_CANCELLED) { /* by a signal, as it was being loaded */
        log_info("node_stopped", "node=%s while=loading", config->node.name);
        node_stop(&n);
        return 0;
    }
    if (st != ST_OK) {
        fprintf(stderr, "baton-%s: %s\n", role->name, err.text);
        node_stop(&n);
        return 1;
    }
    rpc_set_serving(n.rpc, true);
    log_info("node_ready", "node=%s role=%s blocks=%d block_tokens=%d pool_bytes=%zu",
             n.config->node.name, aggregated ? "both" : role->name, n.layout.blocks,
             n.layout.block_tokens, n.pool.bytes);
    printf("node name=%s role=%s rank=%lld pid=%d grpc=%s http=%s\n", config->node.name,
           aggregated ? "both" : role->name, (long long)config->ranks.rank, (int)getpid(),
           n.grpc_address, n.http_address);
    fflush(stdout);
    loop(&n);
    log_info("node_stopped", "node=%s", config->node.name);
    node_stop(&n);
    return 0;
}
