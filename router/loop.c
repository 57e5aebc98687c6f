/* The router's one thread: events in, the core's effects out, draining. */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "base/rng.h"
#include "router/router.h"

#define EVENTS_AT_ONCE 1024 /* of one source, before the others have their turn */
#define ADMIT_EVERY 64
#define WAIT_MS_MAX 1000
#define LAST_WORDS_NS (5 * NS_PER_S) /* after the drain's time: for answers to go out */

/* ---- effects: what the core wants done ---- */

static void *eff_call_start(void *ctx, int32_t node, const char *method, int64_t deadline_ns,
                            uint64_t user)
{
    struct router *r = ctx;
    struct rpc_call *call;
    enum status st =
        rpc_call_start(r->channels[node], method, deadline_ns, (void *)(uintptr_t)user, &call);
    return st == ST_OK ? call : NULL;
}

static enum status eff_call_send(void *ctx, void *call, const struct buf *bytes)
{
    enum status st = rpc_call_send(call, (const uint8_t *)bytes->data, bytes->len);
    /* A call that is over already was answered without being heard out: its end says how. */
    return st == ST_CANCELLED ? ST_OK : st;
}

static void eff_call_half_close(void *ctx, void *call)
{
    rpc_call_half_close(call);
}

static void eff_call_read(void *ctx, void *call)
{
    rpc_call_read(call);
}

static void eff_call_cancel(void *ctx, void *call)
{
    rpc_call_cancel(call);
}

static void eff_token(void *ctx, void *client, const struct msg_token *t)
{
    run_on_token(client, t);
}

static void eff_scores(void *ctx, void *client, const struct msg_score *s, int32_t n)
{
    run_on_scores(client, s, n);
}

static void eff_finish(void *ctx, void *client, const struct msg_finish *f)
{
    run_on_finish(client, f);
}

static void eff_end(void *ctx, void *client, enum status status, const char *text,
                    const struct msg_usage *usage)
{
    run_on_end(client, status, text, usage);
}

static uint64_t eff_random(void *ctx)
{
    return rng_entropy();
}

const struct core_effects router_effects = {.call_start = eff_call_start,
                                            .call_send = eff_call_send,
                                            .call_half_close = eff_call_half_close,
                                            .call_read = eff_call_read,
                                            .call_cancel = eff_call_cancel,
                                            .token = eff_token,
                                            .scores = eff_scores,
                                            .finish = eff_finish,
                                            .end = eff_end,
                                            .random = eff_random};

/* ---- events ---- */

static void on_node_event(struct router *r, const struct rpc_event *ev)
{
    uint64_t user = (uint64_t)(uintptr_t)ev->user;
    if (ev->kind == RPC_EV_MESSAGE) {
        core_on_message(r->core, user, ev->data, ev->len, r->now_ns);
    } else if (ev->kind == RPC_EV_CLOSED) {
        core_on_closed(r->core, user, ev->status, ev->text, r->now_ns);
        rpc_call_release(ev->call);
    }
}

static void cancel_runs(struct router *r, const char *why)
{
    list_for_each(it, &r->runs) run_cancel(run_of(it), ST_LINK, why);
}

static void on_signals(struct router *r)
{
    struct signalfd_siginfo info;
    while (read(r->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (!r->drain_ns) {
            log_info("drain", "answers=%d", r->answers);
            r->drain_ns = r->now_ns;
            rpc_set_serving(r->public_rpc, false);
        } else {
            log_info("stop_now", "answers=%d", r->answers);
            r->drain_ns = r->now_ns - r->config->timeouts.drain_ns;
        }
    }
}

static void handle_events(struct router *r)
{
    struct rpc_event rpc;
    struct http_event http;
    r->now_ns = clock_now_ns();
    on_signals(r);
    for (int i = 0; i < EVENTS_AT_ONCE && rpc_poll(r->nodes_rpc, &rpc); i++)
        on_node_event(r, &rpc);
    router_note_context(r);
    desk_poll(r->desk, r->now_ns);
    for (int i = 0; i < EVENTS_AT_ONCE && http_poll(r->http, &http); i++) {
        http_api_event(r, &http);
        /* Between, so that a burst meets the nodes' room and not only the queue's. */
        if (i % ADMIT_EVERY == ADMIT_EVERY - 1)
            core_tick(r->core, r->now_ns);
    }
    for (int i = 0; i < EVENTS_AT_ONCE && rpc_poll(r->public_rpc, &rpc); i++)
        grpc_api_event(r, &rpc);
    grpc_api_watch(r);
    core_tick(r->core, r->now_ns);
}

/* ---- being ready ---- */

static void watch_ready(struct router *r)
{
    bool ready = !r->drain_ns && cluster_ready(core_cluster(r->core));
    if (ready != r->ready) {
        r->ready = ready;
        rpc_set_serving(r->public_rpc, ready);
        log_info(ready ? "ready" : "not_ready", "model=%s", r->config->model.name);
    }
    if (ready && !r->said_ready) {
        r->said_ready = true;
        printf("ready http=http://%s grpc=%s model=%s\n", r->http_address, r->grpc_address,
               r->config->model.name);
        fflush(stdout);
    }
    /* One decode node is enough to serve; who started the nodes may wait for all of them. */
    if (ready && !r->said_complete && cluster_complete(core_cluster(r->core))) {
        r->said_complete = true;
        printf("complete nodes=%d\n", core_cluster(r->core)->n);
        fflush(stdout);
    }
}

/* True: the process may end. */
static bool drained(struct router *r)
{
    if (!r->drain_ns)
        return false;
    if (r->answers == 0 && list_empty(&r->runs))
        return true;
    int64_t over_ns = r->now_ns - r->drain_ns - r->config->timeouts.drain_ns;
    if (over_ns >= 0) {
        desk_end_all(r->desk, ST_LINK);
        cancel_runs(r, "The server is shutting down.");
    }
    /* Nothing new has come in since the signal; what is on the desk came before it. */
    if (desk_is_idle(r->desk))
        core_drain(r->core);
    return over_ns > LAST_WORDS_NS;
}

static int wait_ms(const struct router *r)
{
    int64_t ns = core_wake_ns(r->core) - clock_now_ns();
    if (ns <= 0)
        return 0;
    int64_t ms = (ns + NS_PER_MS - 1) / NS_PER_MS;
    return (int)(ms < WAIT_MS_MAX ? ms : WAIT_MS_MAX);
}

static void loop(struct router *r)
{
    struct epoll_event evs[8];
    for (;;) {
        handle_events(r);
        watch_ready(r);
        if (drained(r))
            return;
        epoll_wait(r->epoll_fd, evs, 8, wait_ms(r));
    }
}

int router_main(const struct config *config)
{
    struct error err = {0};
    static struct router r;
    r.config = config;
    r.signal_fd = process_init(); /* before any thread exists */
    enum status st = router_start(&r, &err);
    if (st != ST_OK) {
        fprintf(stderr, "baton-router: %s\n", err.text);
        router_stop(&r);
        return 1;
    }
    log_info("listening", "http=%s grpc=%s nodes=%zu", r.http_address, r.grpc_address,
             config->router.n_nodes);
    loop(&r);
    log_info("stopped", "answers=%d", r.answers);
    router_stop(&r);
    return 0;
}
