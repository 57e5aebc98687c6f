/* The one wrapper of a UCX worker: connections to peers, messages, and data that the receiver
 * pulls. Nothing of UCX shows here.
 *
 * A message is a few bytes of `kind` and header. It may announce data: the receiver is shown the
 * message and then pulls the data into memory of its own, or drops it. Memory given to a send or a
 * pull belongs to the worker until done() has been called for it, exactly once, also when the
 * connection broke or was closed by force. closed() is a connection's last call, after all its
 * done()s; it comes when the peer has gone, too.
 *
 * Options are given in code. UCX_* variables are only consulted for what is not set here.
 *
 * Owner: one thread at a time creates, progresses, sends, closes; handlers are called inside those
 * calls. Nothing blocks, but for ucx_worker_destroy().
 *
 *     ucx_worker_create(&args, &w, &err);
 *     ucx_ep_connect(w, address, bytes, user, &ep, &err);
 *     ucx_ep_send(ep, &(struct ucx_send){.kind = 1, .header = h, .header_bytes = n});
 *     while (ucx_worker_progress(w)) ...
 */
#ifndef COMM_UCX_H
#define COMM_UCX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

#define UCX_KINDS 8
#define UCX_EPS_MAX 512
#define UCX_POSTED_BYTES_MAX (64u << 20) /* headers of a connection that are not quiet */

struct ucx_worker;
struct ucx_ep;   /* one connection, made by either side */
struct ucx_data; /* announced by a peer: to be pulled or dropped, once */

struct ucx_message {
    uint32_t kind;
    const void *header; /* valid inside the call */
    size_t header_bytes;
    struct ucx_data *data; /* NULL: none */
    size_t data_bytes;
};

enum ucx_op { UCX_SENT, UCX_PULLED };

struct ucx_handlers {
    /* A peer has connected: the user pointer of its connection; NULL refuses it. */
    void *(*accepted)(void *ctx, struct ucx_ep *ep);
    /* False: not wanted. True: the data is to be pulled or dropped, but not inside this call. */
    bool (*arrived)(void *ctx, void *user, const struct ucx_message *m);
    void (*done)(void *ctx, void *user, enum ucx_op op, uint64_t token, enum status status);
    /* The connection is over and quiet; `ep` is invalid afterwards. */
    void (*closed)(void *ctx, void *user);
};

struct ucx_worker_args {
    const char *device;   /* network device; "" any */
    int64_t keepalive_ns; /* a peer silent on the TCP level for so long is dead */
    struct ucx_handlers handlers;
    void *ctx;
};

struct ucx_send {
    uint32_t kind; /* below UCX_KINDS */
    const void *header;
    size_t header_bytes; /* copied */
    const void *data;    /* NULL: none, and no done() */
    size_t data_bytes;
    uint64_t token;
};

/* ST_UNSUPPORTED: built without UCX. ST_INVALID: no such device. */
enum status ucx_worker_create(const struct ucx_worker_args *args, struct ucx_worker **out,
                              struct error *err);
/* Closes what is open by force and waits, some seconds at most, until all of it is quiet. */
void ucx_worker_destroy(struct ucx_worker *w);
/* "192.0.2.1:41000", "[fe80::1]:41000": where peers connect. */
enum status ucx_worker_address(struct ucx_worker *w, struct buf *out, struct error *err);
/* "tcp" or "tcp,rc_verbs" ...: what UCX has found. */
const char *ucx_worker_transports(const struct ucx_worker *w);
/* True when something happened. */
bool ucx_worker_progress(struct ucx_worker *w);
int ucx_worker_fd(struct ucx_worker *w);
/* False: progress first; else the descriptor turns readable when there is something to do. */
bool ucx_worker_arm(struct ucx_worker *w);

enum status ucx_ep_connect(struct ucx_worker *w, const void *address, size_t bytes, void *user,
                           struct ucx_ep **out, struct error *err);
/* ST_OK: on its way; done() may already have been called. ST_LINK: the connection is broken.
 * ST_BUSY: too much is posted. ST_INVALID: a header this long cannot announce data. */
enum status ucx_ep_send(struct ucx_ep *ep, const struct ucx_send *s);
void ucx_ep_close(struct ucx_ep *ep); /* by force; closed() follows from progress */

/* ST_OK: done(UCX_PULLED) comes, or has come. ST_LINK: the connection has gone, nothing comes. The
 * handle is used up in any case. `dst` has room for all data_bytes. */
enum status ucx_data_pull(struct ucx_data *d, void *dst, uint64_t token);
void ucx_data_drop(struct ucx_data *d);

#endif
