/* Calls between programs: unary, server-streaming and bidirectional, carrying bytes; gRPC core is
 * the body (rpc_grpc*.c), so any gRPC client or server is a peer. Messages are encoded and decoded
 * by the callers (codec.h).
 *
 * One `struct rpc` per process part: it owns two completion-queue threads, any number of listening
 * ports and channels, and one queue of events that one thread (the loop) polls; rpc_fd() is
 * readable when events wait. No callback ever runs user code on a gRPC thread. Everything is
 * bounded: calls, message size, bytes queued per call. One message per call is delivered at a time:
 * the next arrives only after rpc_call_read() was called, which is the back-pressure.
 *
 * A call lives from rpc_call_start() (client) or RPC_EV_OPEN (server) until its RPC_EV_CLOSED has
 * been polled and rpc_call_release() called; RPC_EV_CLOSED comes exactly once for every call,
 * whatever happened. Statuses travel as gRPC codes with the exact `enum status` in trailing
 * metadata `baton-status`.
 *
 * Thread: rpc_poll and all call functions from the loop thread only; rpc_wake from any.
 *
 * The server answers grpc.health.v1.Health (Check, Watch) and, when asked to, reflection (v1,
 * v1alpha) by itself.
 */
#ifndef PROTO_RPC_H
#define PROTO_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct rpc;
struct rpc_channel;
struct rpc_call;

/* PEM texts (copied), all NULL: plaintext. A server needs cert and key, and with a ca demands
 * client certificates signed by it; a client needs the ca, and shows cert and key when it has them.
 * The server's certificate must name the host (DNS or IP) that the client connects to. */
struct rpc_tls {
    const char *ca, *cert, *key;
};

struct rpc_args { /* 0: the default in brackets */
    struct rpc_tls tls;
    int32_t max_calls;        /* server calls at once; more are refused RESOURCE_EXHAUSTED [1024] */
    size_t max_message_bytes; /* both ways [16 MiB] */
    size_t max_outbox_bytes;  /* queued per call before rpc_call_send says BUSY [1 MiB] */
    int64_t keepalive_ns;     /* ping interval; the timeout is the same, at least 5 s [10 s] */
    bool reflection;
    const char *const *methods; /* server: "/baton.v1.Decode/Start" ...; others are UNIMPLEMENTED */
    size_t n_methods;
};

/* CLOSED at a server: ST_OK when our finish was sent, ST_CANCELLED when the caller or the link went
 * away, ST_DEADLINE. At a client: what the server said, or ST_LINK, ST_DEADLINE, ST_CANCELLED; it
 * waits for messages that were not read. */
enum rpc_event_kind {
    RPC_EV_OPEN,        /* server: a new call; method is the index into args.methods */
    RPC_EV_MESSAGE,     /* data[0..len): valid until the next rpc_poll */
    RPC_EV_HALF_CLOSED, /* server: a read met the client's end of messages */
    RPC_EV_DRAINED,     /* the outbox went from full to empty: send again */
    RPC_EV_CLOSED,      /* status, text: the call is over */
};

struct rpc_event {
    enum rpc_event_kind kind;
    struct rpc_call *call;
    void *user; /* as set for the call, NULL at OPEN */
    int method;
    const uint8_t *data;
    size_t len;
    enum status status; /* CLOSED: ST_OK, or why not */
    const char *text;
    int64_t deadline_ns; /* OPEN: the client's deadline, on clock_now_ns(); NS_NEVER */
    const char *peer;    /* OPEN: the client's address */
};

enum status rpc_create(const struct rpc_args *args, struct rpc **out, struct error *err);
/* Refuses new calls, gives finished answers `grace_ns` to go out, ends what is left (clients read
 * ST_LINK), joins the threads, frees calls and channels too. Events no longer come. */
void rpc_destroy(struct rpc *r, int64_t grace_ns);
/* HOST:PORT, port 0: any free one. ST_IO with the reason when it cannot be had. */
enum status rpc_listen(struct rpc *r, const char *address, int *bound_port, struct error *err);
/* Starts the threads; ports and methods are fixed from here on. */
enum status rpc_start(struct rpc *r, struct error *err);
void rpc_set_serving(struct rpc *r, bool serving); /* health answer; Watch streams are told */
int rpc_fd(const struct rpc *r);
bool rpc_poll(struct rpc *r, struct rpc_event *ev);
void rpc_wake(struct rpc *r); /* makes rpc_fd() readable */

/* HOST:PORT. Connects lazily and reconnects by itself; while it cannot, calls end with ST_LINK at
 * once. */
enum status rpc_connect(struct rpc *r, const char *address, struct rpc_channel **out,
                        struct error *err);
void rpc_disconnect(struct rpc_channel *c); /* its calls must have been released */

/* Client: starts a call; `deadline_ns` on clock_now_ns(). Never blocks; failures come as
 * RPC_EV_CLOSED. */
enum status rpc_call_start(struct rpc_channel *c, const char *method, int64_t deadline_ns,
                           void *user, struct rpc_call **out);
void rpc_call_set_user(struct rpc_call *c, void *user);
/* Server: the client's `authorization` metadata ("Bearer KEY"); NULL: none. */
const char *rpc_call_authorization(const struct rpc_call *c);
/* Copies the bytes into the outbox. ST_BUSY when full (nothing was taken, RPC_EV_DRAINED follows),
 * ST_CANCELLED when the call is over or its end was sent, ST_INVALID over max_message_bytes. A
 * message larger than the outbox is taken when the outbox is empty. */
enum status rpc_call_send(struct rpc_call *c, const uint8_t *data, size_t len);
/* Ready for the next message; call it after an RPC_EV_MESSAGE. A call begins ready for the first.
 */
void rpc_call_read(struct rpc_call *c);
void rpc_call_half_close(struct rpc_call *c); /* client: no more messages from us */
/* Server: sends what is queued, then the status; `text` is cut at 479 bytes. Later ones are
 * ignored. */
void rpc_call_finish(struct rpc_call *c, enum status status, const char *text);
void rpc_call_cancel(struct rpc_call *c); /* either side; CLOSED follows */
void rpc_call_release(struct rpc_call *c);

#endif
