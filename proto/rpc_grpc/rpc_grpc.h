/* Inside of the gRPC body of rpc.h. Included by rpc_grpc*.c only; nothing else in the tree sees
 * gRPC core.
 *
 * Threads: two completion queues with one thread each (a stream whose sends complete at once
 * starves the poller of its queue; the other one keeps reading the sockets). A call is bound to one
 * queue, so its completions come from one thread; the loop thread is the only other one that
 * touches it, and call->lock lies between the two. Completions turn into events on one intrusive
 * queue, woken by an eventfd; a call has one node per kind of event and each kind can wait at most
 * once, so events need no memory.
 *
 * Locks, outermost first: rpc->lock (the list of calls), rpc->health_lock, call->lock,
 * rpc->queue_lock.
 *
 * A call's memory lives while somebody holds a reference: the user (or the built-in service), and
 * each batch that gRPC works on. grpc_call_start_batch() is called under call->lock only, with at
 * most one batch per tag in flight.
 */
#ifndef PROTO_RPC_GRPC_H
#define PROTO_RPC_GRPC_H

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>

#include "base/list.h"
#include "proto/rpc.h"
#include "proto/rpc_grpc/rpc_grpc_call.h"

#define RPC_QUEUES 2
#define RPC_REQUESTS_PER_QUEUE 8
#define RPC_BUILTIN_CALLS_MAX 256

struct rpc_request { /* one call that the server is ready to accept */
    struct rpc_tag tag;
    struct rpc *rpc;
    int queue;
    grpc_call *core;
    grpc_call_details details;
    grpc_metadata_array metadata;
};

struct rpc_channel {
    struct list link;
    struct rpc *rpc;
    grpc_channel *core;
};

struct rpc {
    struct rpc_args args; /* the pointers in it are our copies */
    char **methods;
    char *ca, *cert, *key;
    grpc_completion_queue *queues[RPC_QUEUES];
    pthread_t threads[RPC_QUEUES];
    int n_threads;
    bool started;
    grpc_server *server;
    grpc_server_credentials *server_creds;
    grpc_channel_credentials *channel_creds;
    struct rpc_request requests[RPC_QUEUES * RPC_REQUESTS_PER_QUEUE];
    struct list channels;     /* loop thread */
    unsigned next_queue;      /* loop thread */
    grpc_byte_buffer *polled; /* loop thread: the message that the last event showed */
    grpc_slice polled_slice;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a call was freed, or the server has shut down */
    struct list calls;
    int32_t n_calls, n_builtin_calls; /* of the server, not yet released */
    bool closing, server_down;
    struct rpc_tag on_server_down;

    pthread_mutex_t health_lock;
    struct list watchers;
    bool serving;

    pthread_mutex_t queue_lock;
    struct rpc_node *first, *last;
    int fd;
    bool signaled;
    bool mute; /* being destroyed: events are dropped */
};

static inline grpc_arg rpc_arg(const char *key, int64_t value)
{
    grpc_arg a = {.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key};
    a.value.integer = value > INT32_MAX ? INT32_MAX : (int)value;
    return a;
}

/* Under 5 s, a peer that is merely short of CPU would be taken for dead. */
static inline int64_t rpc_ping_timeout_ms(int64_t ping_ms)
{
    return ping_ms < 5000 ? 5000 : ping_ms;
}

/* rpc_grpc_server.c */
void rpc_server_start(struct rpc *r);

/* rpc_grpc_accept.c: does nothing; a call to it links the file's accept4() into the program */
void rpc_accept_guard(void);

/* rpc_grpc_tls.c: nothing to do (and ST_OK) when the arguments ask for plaintext */
enum status rpc_tls_create(struct rpc *r, struct error *err);

/* rpc_grpc_status.c */
grpc_status_code rpc_code_of(enum status status);
enum status rpc_status_of(grpc_status_code code, const grpc_metadata_array *trailing,
                          const char *text);

/* rpc_grpc_health.c, rpc_grpc_reflection.c: ends with method NULL */
extern const struct rpc_builtin rpc_health_services[];
extern const struct rpc_builtin rpc_reflection_services[];
/* Whether some method of args.methods belongs to this service. */
bool rpc_serves(const struct rpc *r, const char *service, size_t len);
#endif
