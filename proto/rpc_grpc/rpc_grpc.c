/* Life of a struct rpc: queues, threads, the events, the end. */
#include "proto/rpc_grpc/rpc_grpc.h"

#include <assert.h>
#include <errno.h>
#include <grpc/support/log.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define DEFAULT_CALLS 1024
#define DEFAULT_MESSAGE_BYTES ((size_t)16 << 20)
#define DEFAULT_OUTBOX_BYTES ((size_t)1 << 20)
#define DEFAULT_KEEPALIVE_NS (10 * NS_PER_S)
#define SHUTDOWN_STEP_NS (2 * NS_PER_MS)

#ifdef BATON_TSAN
/* What gRPC's own threads do among themselves is out of TSan's sight. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}
#endif

static void on_library_log(gpr_log_func_args *args)
{
    char text[400];
    log_debug("grpc", "text=%s", log_quote(text, sizeof text, args->message));
}

static void signal_locked(struct rpc *r)
{
    uint64_t one = 1;
    if (r->signaled)
        return;
    r->signaled = true;
    while (write(r->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void rpc_push(struct rpc_call *c, enum rpc_event_kind kind)
{
    struct rpc *r = c->rpc;
    struct rpc_node *node = &c->nodes[kind];
    if (c->closed)
        return;
    c->closed = kind == RPC_EV_CLOSED;
    pthread_mutex_lock(&r->queue_lock);
    assert(!node->queued || kind == RPC_EV_DRAINED); /* the others wait at most once by design */
    if (!node->queued && !r->mute) {
        node->queued = true;
        if (r->last != NULL)
            r->last->next = node;
        else
            r->first = node;
        r->last = node;
        signal_locked(r);
    }
    pthread_mutex_unlock(&r->queue_lock);
}

void rpc_wake(struct rpc *r)
{
    pthread_mutex_lock(&r->queue_lock);
    signal_locked(r);
    pthread_mutex_unlock(&r->queue_lock);
}

int rpc_fd(const struct rpc *r)
{
    return r->fd;
}

static struct rpc_node *pop(struct rpc *r)
{
    pthread_mutex_lock(&r->queue_lock);
    struct rpc_node *node = r->first;
    if (node != NULL) {
        r->first = node->next;
        if (r->first == NULL)
            r->last = NULL;
        node->next = NULL;
        node->queued = false;
    } else if (r->signaled) {
        uint64_t count;
        while (read(r->fd, &count, sizeof count) < 0 && errno == EINTR)
            ;
        r->signaled = false;
    }
    pthread_mutex_unlock(&r->queue_lock);
    return node;
}

static void drop_polled(struct rpc *r)
{
    if (r->polled == NULL)
        return;
    grpc_slice_unref(r->polled_slice);
    grpc_byte_buffer_destroy(r->polled);
    r->polled = NULL;
}

bool rpc_poll(struct rpc *r, struct rpc_event *ev)
{
    drop_polled(r);
    struct rpc_node *node = pop(r);
    if (node == NULL)
        return false;
    struct rpc_call *c = node->call;
    *ev = (struct rpc_event){
        .kind = (enum rpc_event_kind)(node - c->nodes),
        .call = c,
        .user = c->user,
        .method = c->method,
        .text = "",
    };
    switch (ev->kind) {
    case RPC_EV_OPEN:
        ev->deadline_ns = c->deadline_ns;
        ev->peer = c->peer != NULL ? c->peer : "";
        break;
    case RPC_EV_MESSAGE:
        pthread_mutex_lock(&c->lock);
        r->polled = c->inbox;
        c->inbox = NULL;
        pthread_mutex_unlock(&c->lock);
        r->polled_slice = rpc_bytes(r->polled);
        ev->data = GRPC_SLICE_START_PTR(r->polled_slice);
        ev->len = GRPC_SLICE_LENGTH(r->polled_slice);
        break;
    case RPC_EV_CLOSED:
        c->closed_polled = true;
        ev->status = c->status;
        ev->text = c->text;
        break;
    case RPC_EV_HALF_CLOSED:
    case RPC_EV_DRAINED:
        break;
    }
    return true;
}

static void *queue_main(void *arg)
{
    grpc_completion_queue *queue = arg;
    for (;;) {
        grpc_event ev = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (ev.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        struct rpc_tag *tag = ev.tag;
        RPC_TAG_TAKE(tag);
        tag->done(tag, ev.success != 0);
    }
}

static enum status start_threads(struct rpc *r, struct error *err)
{
    while (r->n_threads < RPC_QUEUES) {
        int rc =
            pthread_create(&r->threads[r->n_threads], NULL, queue_main, r->queues[r->n_threads]);
        if (rc != 0)
            return err_set(err, ST_NO_MEMORY, "cannot start an rpc thread: %s", strerror(rc));
        r->n_threads++;
    }
    return ST_OK;
}

static char *copy(const char *s)
{
    return s != NULL ? strdup(s) : NULL;
}

static enum status copy_args(struct rpc *r, const struct rpc_args *args, struct error *err)
{
    r->args = *args;
    if (r->args.max_calls <= 0)
        r->args.max_calls = DEFAULT_CALLS;
    if (r->args.max_message_bytes == 0)
        r->args.max_message_bytes = DEFAULT_MESSAGE_BYTES;
    if (r->args.max_outbox_bytes == 0)
        r->args.max_outbox_bytes = DEFAULT_OUTBOX_BYTES;
    if (r->args.keepalive_ns <= 0)
        r->args.keepalive_ns = DEFAULT_KEEPALIVE_NS;
    if (r->args.max_message_bytes > INT32_MAX)
        return err_set(err, ST_INVALID, "max_message_bytes is over 2 GiB");
    r->methods = calloc(args->n_methods + 1, sizeof *r->methods);
    bool ok = r->methods != NULL;
    for (size_t i = 0; ok && i < args->n_methods; i++)
        ok = (r->methods[i] = copy(args->methods[i])) != NULL;
    r->args.methods = (const char *const *)r->methods;
    r->args.tls.ca = r->ca = copy(args->tls.ca);
    r->args.tls.cert = r->cert = copy(args->tls.cert);
    r->args.tls.key = r->key = copy(args->tls.key);
    return ok ? ST_OK : err_set(err, ST_NO_MEMORY, "out of memory");
}

enum status rpc_create(const struct rpc_args *args, struct rpc **out, struct error *err)
{
    struct rpc *r = calloc(1, sizeof *r);
    if (r == NULL)
        return err_set(err, ST_NO_MEMORY, "out of memory");
    gpr_set_log_function(on_library_log);
    grpc_init();
    list_init(&r->channels);
    list_init(&r->calls);
    list_init(&r->watchers);
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->health_lock, NULL);
    pthread_mutex_init(&r->queue_lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    for (int i = 0; i < RPC_QUEUES; i++)
        r->queues[i] = grpc_completion_queue_create_for_next(NULL);
    r->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    enum status st = r->fd >= 0 ? ST_OK : err_set(err, ST_IO, "eventfd: %s", strerror(errno));
    if (st == ST_OK)
        st = copy_args(r, args, err);
    if (st == ST_OK)
        st = rpc_tls_create(r, err);
    if (st != ST_OK) {
        rpc_destroy(r, 0);
        return st;
    }
    *out = r;
    return ST_OK;
}

enum status rpc_start(struct rpc *r, struct error *err)
{
    enum status st = start_threads(r, err);
    if (st != ST_OK)
        return st;
    if (r->server != NULL)
        rpc_server_start(r);
    r->started = true;
    return ST_OK;
}

static void on_server_down(struct rpc_tag *tag, bool ok)
{
    struct rpc *r = (struct rpc *)((char *)tag - offsetof(struct rpc, on_server_down));
    pthread_mutex_lock(&r->lock);
    r->server_down = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* Answers that are on their way get until then; what nobody will finish does not. */
static bool anything_finishing(struct rpc *r)
{
    bool any = false;
    pthread_mutex_lock(&r->lock);
    list_for_each(it, &r->calls)
    {
        struct rpc_call *c = list_entry(it, struct rpc_call, link);
        pthread_mutex_lock(&c->lock);
        any = any || (c->server && c->ending && !c->over);
        pthread_mutex_unlock(&c->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return any;
}

/* Cancels every call, takes the users' references, and waits until gRPC has let go of all. */
static void end_calls(struct rpc *r)
{
    pthread_mutex_lock(&r->lock);
    for (;;) {
        struct rpc_call *held = NULL;
        list_for_each(it, &r->calls)
        {
            struct rpc_call *c = list_entry(it, struct rpc_call, link);
            if (!c->held)
                continue;
            held = c;
            break;
        }
        if (held != NULL) {
            held->held = false; /* the reference is ours now */
            pthread_mutex_unlock(&r->lock);
            /* a server's client reads that the server is gone, not that it has cancelled itself */
            grpc_call_cancel_with_status(held->core, GRPC_STATUS_UNAVAILABLE, "shutting down",
                                         NULL);
            rpc_call_unref(held);
            pthread_mutex_lock(&r->lock);
            continue;
        }
        if (list_empty(&r->calls))
            break;
        pthread_cond_wait(&r->changed, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
}

static void end_server(struct rpc *r)
{
    grpc_server_cancel_all_calls(r->server);
    pthread_mutex_lock(&r->lock);
    while (!r->server_down)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    grpc_server_destroy(r->server);
}

static void free_args(struct rpc *r)
{
    for (size_t i = 0; r->methods != NULL && i < r->args.n_methods; i++)
        free(r->methods[i]);
    free(r->methods);
    free(r->ca);
    free(r->cert);
    free(r->key);
}

void rpc_destroy(struct rpc *r, int64_t grace_ns)
{
    int64_t until = clock_now_ns() + grace_ns;
    drop_polled(r);
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_mutex_unlock(&r->lock);
    pthread_mutex_lock(&r->queue_lock); /* nobody polls any more, and the calls go one by one */
    r->mute = true;
    r->first = r->last = NULL;
    pthread_mutex_unlock(&r->queue_lock);
    if (start_threads(r, NULL) == ST_OK) { /* the end is told to gRPC through its queues */
        if (r->server != NULL) {
            r->on_server_down.done = on_server_down;
            RPC_TAG_GIVE(&r->on_server_down);
            grpc_server_shutdown_and_notify(r->server, r->queues[0], &r->on_server_down);
        }
        while (grace_ns > 0 && clock_now_ns() < until && anything_finishing(r))
            clock_sleep_ns(SHUTDOWN_STEP_NS);
        end_calls(r);
        if (r->server != NULL)
            end_server(r);
    }
    while (!list_empty(&r->channels))
        rpc_disconnect(list_entry(list_first(&r->channels), struct rpc_channel, link));
    for (int i = 0; i < RPC_QUEUES; i++)
        grpc_completion_queue_shutdown(r->queues[i]);
    for (int i = 0; i < r->n_threads; i++)
        pthread_join(r->threads[i], NULL);
    for (int i = 0; i < RPC_QUEUES; i++)
        grpc_completion_queue_destroy(r->queues[i]);
    if (r->server_creds != NULL)
        grpc_server_credentials_release(r->server_creds);
    if (r->channel_creds != NULL)
        grpc_channel_credentials_release(r->channel_creds);
    free_args(r);
    if (r->fd >= 0)
        close(r->fd);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->queue_lock);
    pthread_mutex_destroy(&r->health_lock);
    pthread_mutex_destroy(&r->lock);
    free(r);
    grpc_shutdown_blocking();
}
