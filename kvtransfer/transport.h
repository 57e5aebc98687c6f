/* How frames and slices get from one rank to another: an op table with one body per way (loopback,
 * shm, ucx).
 *
 * A link is a connection to one peer process and carries frames both ways; whoever accepts it sees
 * it first as the `link` of a frame. A frame may have a payload (a slice's bytes): the receiver is
 * shown the frame and decides to pull the payload into its own memory, or to drop it (LAW 3). A
 * transport whose receivers map the sender's pool has no payloads; there peer_pool() gives the
 * mapping and offers name blocks.
 *
 * Memory given to send() or pull() belongs to the transport until the matching event has been
 * polled; that event comes exactly once, also after a link went down or was force-closed. Events of
 * a link end with TRANSPORT_DOWN, after all its sends and pulls have completed; from then on the
 * link pointer is invalid. An incoming payload outlives its link: it must still be pulled (which
 * completes with ST_LINK) or dropped.
 *
 * Owner: one thread (the transfer thread) creates, polls and closes. Nothing blocks. fd() is
 * readable when poll() may have something, provided arm() returned true after the last poll() that
 * gave nothing.
 */
#ifndef KVTRANSFER_TRANSPORT_H
#define KVTRANSFER_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"
#include "kvtransfer/slice.h"

struct transport;
struct transport_incoming; /* a payload that waits to be pulled or dropped */

struct transport_link {
    struct transport *transport;
    void *user; /* the mover's; NULL for a link that was just accepted */
};

enum transport_event_kind { TRANSPORT_FRAME, TRANSPORT_SENT, TRANSPORT_PULLED, TRANSPORT_DOWN };

struct transport_event {
    enum transport_event_kind kind;
    struct transport_link *link;
    const void *frame; /* FRAME: valid until the next poll */
    size_t frame_bytes;
    struct transport_incoming *incoming; /* FRAME with payload: pull or drop it, once */
    uint64_t payload_bytes;
    uint64_t token;     /* SENT, PULLED: as given */
    enum status status; /* SENT, PULLED: ST_OK or ST_LINK */
};

struct transport_ops {
    const char *name; /* label of metrics: "shm", "ucx", "loopback" */
    /* Who can be reached: peers with an equal string (one host's shared memory); NULL: any. */
    const char *(*host)(struct transport *t);
    void (*destroy)(struct transport *t);
    /* Appends what a peer needs to connect here. */
    enum status (*address)(struct transport *t, struct buf *out, struct error *err);
    /* Never blocks: frames sent before the connection stands are kept; a failure comes as DOWN. */
    enum status (*connect)(struct transport *t, const void *address, size_t bytes,
                           struct transport_link **out, struct error *err);
    void (*disconnect)(struct transport_link *l); /* force-close; DOWN follows */
    /* Copies the frame. With a payload, SENT{token} comes when its memory is quiet; without,
     * nothing comes. ST_BUSY: try later (bounded queue); ST_LINK: going down. */
    enum status (*send)(struct transport_link *l, const void *frame, size_t frame_bytes,
                        const void *payload, size_t payload_bytes, uint64_t token);
    void (*pull)(struct transport *t, struct transport_incoming *in, void *dst, uint64_t token);
    void (*drop)(struct transport *t, struct transport_incoming *in);
    /* The peer's pool as mapped here, read-only; NULL when this transport carries payloads. */
    const struct kv_pool_view *(*peer_pool)(struct transport_link *l);
    bool (*poll)(struct transport *t, struct transport_event *ev);
    int (*fd)(struct transport *t);
    bool (*arm)(struct transport *t); /* false: poll again first */
    /* True when receivers map the sender's pool: offers name blocks and carry no payload. */
    bool maps_pool;
};

struct transport {
    const struct transport_ops *ops;
};

/* One host's shared memory: the pool is a memfd that receivers map read-only. `pool_fd` is that
 * memfd. Liveness by pidfd and the socket. */
struct transport_shm_args {
    int pool_fd;
    struct kv_pool_view pool;
};
enum status transport_shm_create(const struct transport_shm_args *args, struct transport **out,
                                 struct error *err);
/* Identity of this host for `auto`: equal strings mean that shm can work. */
const char *transport_shm_host(void);

/* UCX in peer-error mode. ST_UNSUPPORTED when built without UCX. `device`: network device, "" any.
 */
struct transport_ucx_args {
    const char *device;
    int64_t keepalive_ns;
};
enum status transport_ucx_create(const struct transport_ucx_args *args, struct transport **out,
                                 struct error *err);

#endif
