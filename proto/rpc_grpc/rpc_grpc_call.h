/* Inside of the gRPC body: one call, and what its parts hand to each other. Included through
 * rpc_grpc.h, which tells of threads and locks. A call's memory lives while somebody holds a
 * reference: its user (or the built-in service), its maker until rpc_call_begin(), and each batch
 * that gRPC works on. */
#ifndef PROTO_RPC_GRPC_CALL_H
#define PROTO_RPC_GRPC_CALL_H

#include <grpc/grpc.h>
#include <pthread.h>

#include "base/list.h"
#include "proto/rpc.h"

#define RPC_TEXT_MAX 480

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
    char *authorization;  /* server; NULL: none */
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

#endif
