/* Listening, and what becomes of a call that comes in. */
#include <errno.h>
#include <grpc/support/alloc.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "proto/rpc_grpc/rpc_grpc.h"

#define HANDSHAKE_MS 10000
#define PING_MIN_MS 500 /* a client may ping this often */
/* What gRPC holds for clients, messages that are not whole above all: as much as this many of the
 * largest. Over it gRPC ends connections. */
#define MESSAGES_MAX 64
#define MEMORY_BYTES_MIN ((size_t)256 << 20)

static void on_request(struct rpc_tag *tag, bool ok);

static enum status server_create(struct rpc *r, struct error *err)
{
    int64_t ping_ms = r->args.keepalive_ns / NS_PER_MS;
    int64_t max = (int64_t)r->args.max_message_bytes;
    size_t memory = MESSAGES_MAX * r->args.max_message_bytes;
    grpc_resource_quota *quota = grpc_resource_quota_create("rpc");
    grpc_resource_quota_resize(quota, memory > MEMORY_BYTES_MIN ? memory : MEMORY_BYTES_MIN);
    grpc_arg args[] = {
        {.type = GRPC_ARG_POINTER,
         .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {quota, grpc_resource_quota_arg_vtable()}},
        rpc_arg(GRPC_ARG_ALLOW_REUSEPORT, 0), /* a port in use is an error */
        rpc_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, max),
        rpc_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, max),
        rpc_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, r->args.max_calls + RPC_BUILTIN_CALLS_MAX),
        rpc_arg(GRPC_ARG_KEEPALIVE_TIME_MS, ping_ms),
        rpc_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, rpc_ping_timeout_ms(ping_ms)),
        rpc_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        rpc_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        rpc_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_MIN_MS),
        rpc_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS),
        rpc_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        rpc_arg(GRPC_ARG_HTTP2_BDP_PROBE,
                0), /* fixed windows: what an unread call holds is bounded */
        /* no compression: a small message that unpacks to a huge one is refused unread */
        rpc_arg("grpc.compression_enabled_algorithms_bitset", 1),
    };
    const grpc_channel_args server_args = {.num_args = sizeof args / sizeof args[0], .args = args};
    rpc_accept_guard();
    r->server = grpc_server_create(&server_args, NULL);
    grpc_resource_quota_unref(quota);
    if (r->server == NULL)
        return err_set(err, ST_INTERNAL, "gRPC refuses to make a server");
    for (int i = 0; i < RPC_QUEUES; i++)
        grpc_server_register_completion_queue(r->server, r->queues[i], NULL);
    return ST_OK;
}

/* gRPC says only that it failed: tries the same by hand to learn why. */
static const char *why_not(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *list;
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0)
        return gai_strerror(rc);
    const char *why = "refused by gRPC (the certificate or key may not be usable)";
    for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        int one = 1;
        int fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1) != 0)
            why = strerror(errno);
        close(fd);
    }
    freeaddrinfo(list);
    return why;
}

static bool split(const char *address, char host[256], const char **port)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address || (size_t)(colon - address) >= 256)
        return false;
    char *end;
    long n = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end != '\0' || n < 0 || n > 65535)
        return false;
    size_t len = (size_t)(colon - address);
    bool bracketed = address[0] == '[' && len > 2 && colon[-1] == ']';
    memcpy(host, address + bracketed, len - 2 * bracketed);
    host[len - 2 * bracketed] = '\0';
    *port = colon + 1;
    return true;
}

enum status rpc_listen(struct rpc *r, const char *address, int *bound_port, struct error *err)
{
    char host[256];
    const char *port;
    if (!split(address, host, &port))
        return err_set(err, ST_INVALID, "%s: expected HOST:PORT", address);
    if (r->server == NULL) {
        enum status st = server_create(r, err);
        if (st != ST_OK)
            return st;
    }
    int bound = grpc_server_add_http2_port(r->server, address, r->server_creds);
    if (bound <= 0)
        return err_set(err, ST_IO, "cannot listen on %s: %s", address, why_not(host, port));
    if (bound_port != NULL)
        *bound_port = bound;
    return ST_OK;
}

static void request_call(struct rpc_request *q)
{
    struct rpc *r = q->rpc;
    grpc_call_details_init(&q->details);
    grpc_metadata_array_init(&q->metadata);
    q->core = NULL;
    RPC_TAG_GIVE(&q->tag);
    grpc_server_request_call(r->server, &q->core, &q->details, &q->metadata, r->queues[q->queue],
                             r->queues[q->queue], &q->tag);
}

void rpc_server_start(struct rpc *r)
{
    grpc_server_start(r->server);
    for (int i = 0; i < RPC_QUEUES * RPC_REQUESTS_PER_QUEUE; i++) {
        struct rpc_request *q = &r->requests[i];
        *q = (struct rpc_request){.tag = {on_request}, .rpc = r, .queue = i % RPC_QUEUES};
        request_call(q);
    }
}

static const struct rpc_builtin refusal = {.method = "refused"};

static const struct rpc_builtin *find_builtin(const struct rpc *r, grpc_slice method)
{
    for (const struct rpc_builtin *b = rpc_health_services; b->method != NULL; b++)
        if (grpc_slice_str_cmp(method, b->method) == 0)
            return b;
    for (const struct rpc_builtin *b = rpc_reflection_services; b->method != NULL; b++)
        if (r->args.reflection && grpc_slice_str_cmp(method, b->method) == 0)
            return b;
    return NULL;
}

static int64_t deadline_of(gpr_timespec deadline)
{
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0)
        return NS_NEVER;
    gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    if (left.tv_sec > INT32_MAX)
        return NS_NEVER;
    return clock_now_ns() + left.tv_sec * NS_PER_S + left.tv_nsec;
}

/* Decides who answers: the user's method, a service of ours, or a refusal. */
static void dispatch(struct rpc_call *c, grpc_slice method)
{
    struct rpc *r = c->rpc;
    c->builtin = find_builtin(r, method);
    for (size_t i = 0; c->builtin == NULL && c->method < 0 && i < r->args.n_methods; i++)
        if (grpc_slice_str_cmp(method, r->methods[i]) == 0)
            c->method = (int)i;
    enum status refused = ST_OK;
    const char *why = "";
    pthread_mutex_lock(&r->lock);
    if (c->builtin == NULL && c->method < 0) {
        refused = ST_UNSUPPORTED;
        why = "unknown method";
    } else if (r->closing) {
        refused = ST_LINK;
        why = "shutting down";
    } else if (c->builtin == NULL ? r->n_calls >= r->args.max_calls
                                  : r->n_builtin_calls >= RPC_BUILTIN_CALLS_MAX) {
        refused = ST_BUSY;
        why = "too many calls";
    }
    if (refused != ST_OK)
        c->builtin = &refusal;
    if (c->builtin != NULL)
        r->n_builtin_calls++;
    else
        r->n_calls++;
    pthread_mutex_unlock(&r->lock);
    if (refused != ST_OK) {
        c->ending = true;
        c->finish_status = refused;
        snprintf(c->finish_text, sizeof c->finish_text, "%s", why);
    }
    rpc_call_begin(c);
}

/* The value of the first `authorization`; to be freed with gpr_free(). */
static char *authorization_of(const grpc_metadata_array *m)
{
    for (size_t i = 0; i < m->count; i++)
        if (grpc_slice_str_cmp(m->metadata[i].key, "authorization") == 0)
            return grpc_slice_to_c_string(m->metadata[i].value);
    return NULL;
}

static void on_request(struct rpc_tag *tag, bool ok)
{
    struct rpc_request *q = (struct rpc_request *)tag;
    struct rpc_request got = *q;
    if (ok) /* before this call can end: until then the server is there for sure */
        request_call(q);
    struct rpc_call *c = ok ? rpc_call_create(got.rpc, got.core, true) : NULL;
    if (c != NULL) {
        c->deadline_ns = deadline_of(got.details.deadline);
        c->peer = grpc_call_get_peer(got.core);
        c->authorization = authorization_of(&got.metadata);
        dispatch(c, got.details.method);
    } else if (ok) {
        grpc_call_unref(got.core);
    }
    grpc_call_details_destroy(&got.details);
    grpc_metadata_array_destroy(&got.metadata);
}
