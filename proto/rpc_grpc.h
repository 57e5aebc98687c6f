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

#define RPC_QUEUES 2
#define RPC_REQUESTS_PER_QUEUE 8
#define RPC_TEXT_MAX 480
#define RPC_BUILTIN_CALLS_MAX 256

/* gRPC's library carries no TSan instrumentation: the hand-over of a tag is told to it here. */
#ifdef BATON_TSAN
void __tsan_acquire(void *);
void __tsan_release(void *);
#define RPC_TAG_GIVE(tag) __tsan_release(tag)
#define RPC_TAG_TAKE(tag) __tsan_acquire(tag)
#else
#define RPC_TAG_GIVE(tag) (void)(tag)
#define RPC_TAG_TAKE(tag) (void)(tag)
#endif

struct rpc_tag { /* what gRPC hands back; `done` runs on a queue's thread */
    void (*done)(struct rpc_tag *tag, bool ok);
};

struct rpc_node { /* one kind of event of one call, waiting or not */
    struct rpc_node *next;
    struct rpc_call *call;
    bool queued; /* rpc->queue_lock */
};

/* A service that answers on the queue threads by itself. */
struct rpc_builtin {
    const char *method;
    void (*on_message)(struct rpc_call *c, const uint8_t *data, size_t len);
    void (*on_half_close)(struct rpc_call *c);
    void (*on_drained)(struct rpc_call *c);
    void (*on_closed)(struct rpc_call *c);
};

struct rpc_out { /* a message that waits to be sent */
    struct rpc_out *next;
    grpc_byte_buffer *bytes;
    size_t len;
};

struct rpc_call {
    struct list link; /* rpc->calls */
    struct rpc *rpc;
    grpc_call *core;
    bool server;
    int method;
    const struct rpc_builtin *builtin;
    struct list watch;    /* health_lock: among the watchers */
    bool unwatched;       /* health_lock: its end was seen */
    char *peer;           /* server */
    int64_t deadline_ns;  /* server */
    void *user;           /* loop thread */
    bool closed_polled;   /* loop thread */
    bool held;            /* rpc->lock: the user's reference is there */
    pthread_mutex_t lock; /* all below */
    int refs;
    bool over;   /* the end is known: nothing more goes out */
    bool closed; /* CLOSED was queued: nothing more is queued */
    struct rpc_tag on_send, on_recv, on_end;
    /* sending */
    struct rpc_out *out_first, *out_last;
    size_t out_bytes;
    bool out_full, sending, broken, headers_sent, ending, end_sent;
    enum status finish_status;
    char finish_text[RPC_TEXT_MAX];
    /* receiving */
    bool receiving, half_closed, first_recv;
    grpc_byte_buffer *arriving, *inbox;
    grpc_metadata_array initial, trailing;
    /* the end */
    int cancelled;
    grpc_status_code code;
    grpc_slice details;
    enum status status;
    char text[RPC_TEXT_MAX];
    struct rpc_node nodes[RPC_EV_CLOSED + 1];
};

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
    int32_t n_calls, n_builtin_calls; /* of the server */
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

/* rpc_grpc.c */
void rpc_push(struct rpc_call *c, enum rpc_event_kind kind); /* under call->lock */

/* rpc_grpc_call.c */
struct rpc_call *rpc_call_create(struct rpc *r, grpc_call *core, bool server);
/* Takes the call's lock; returns with it freed, and the call too when this was the last reference.
 */
void rpc_call_unref(struct rpc_call *c);
/* Posts what waits for its end and, unless it is refused already, the first receive. The maker's
 * reference is gone after. */
void rpc_call_begin(struct rpc_call *c);
/* Copies a buffer's bytes to one slice. */
grpc_slice rpc_bytes(grpc_byte_buffer *b);
void rpc_call_drop(struct rpc_call *c); /* the user's reference, when it is still there */

/* rpc_grpc_server.c */
enum status rpc_server_create(struct rpc *r, struct error *err);
void rpc_server_start(struct rpc *r);
void rpc_server_request(struct rpc_request *q);

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
