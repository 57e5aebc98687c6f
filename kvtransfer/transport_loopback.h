/* The loopback fabric: transports that reach each other inside one process, on one thread, in the
 * caller's own time.
 *
 * Without a fate function it is plain loopback: everything arrives at once, in order. With one it
 * is the simulated network: each message may be lost, doubled, delayed (and so overtaken), damaged,
 * or break its link, as the function says; the same answers give the same run, bit for bit. It is
 * as nasty as the contract allows: a pull takes its time, pulled bytes are written at the moment of
 * PULLED and not before; payload memory that changes before SENT is caught by an assert.
 *
 * Owner: the caller makes a fabric, adds transports (destroyed through their ops), advances its
 * time. One thread.
 */
#ifndef KVTRANSFER_TRANSPORT_LOOPBACK_H
#define KVTRANSFER_TRANSPORT_LOOPBACK_H

#include "kvtransfer/transport.h"

struct fabric;

struct fabric_message {
    const char *from, *to; /* names of the transports */
    const void *frame;
    size_t frame_bytes, payload_bytes;
};

struct fabric_fate {
    bool lose;
    bool damage;     /* flip a bit of the payload */
    bool break_link; /* after this message the link goes down, both ways */
    int copies;      /* further deliveries of the same message */
    int64_t delay_ns;
    int64_t pull_ns; /* from pull() to PULLED */
};

/* Fills *fate (all zero before). */
typedef void fabric_fate_fn(void *ctx, const struct fabric_message *m, struct fabric_fate *fate);

struct fabric *fabric_create(fabric_fate_fn *fate, void *ctx);
void fabric_destroy(struct fabric *f); /* all transports must be gone */
/* `name` is its address; `view` is its pool, mapped by peers when maps_pool. */
enum status fabric_add(struct fabric *f, const char *name, bool maps_pool,
                       const struct kv_pool_view *view, struct transport **out);
void fabric_set_now(struct fabric *f, int64_t now_ns);
int64_t fabric_next_ns(const struct fabric *f); /* when something is due next; NS_NEVER */
/* The process of `t` has died: what it has under way vanishes, its peers' links go down after
 * `notice_ns`. The transport must still be destroyed; until then it completes everything at once,
 * with ST_LINK. */
void fabric_kill(struct fabric *f, struct transport *t, int64_t notice_ns);

#endif
