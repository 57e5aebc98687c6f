/* The mover: drives every handoff of one rank over its transports. It is what the transfer thread
 * runs, and what the simulator calls directly; it has no thread or clock of its own.
 *
 * Receiving: the loop registers a *landing plan* (ticket -> blocks) and from then on the mover
 * alone touches those blocks: it takes offers, pulls them into staging, checks the CRC, scatters
 * into the blocks, counts, answers. LANDED says that all is there; after mover_forget() the plan's
 * memory is quiet when QUIET has come.
 *
 * Sending: the loop opens an offering of a sequence's blocks to the ranks of a decode node, reports
 * layers as they are computed and at last fills it. DELIVERED says that every rank has answered
 * Landed. FAILED (LINK, DEADLINE ...) says that it never will. After mover_close() the blocks are
 * quiet when QUIET has come.
 *
 * Pool memory is touched only inside calls to the mover: a payload on the wire is always in the
 * mover's own staging buffers, which stay taken until the transport says that they are quiet.
 * Staging is bounded; what finds none waits.
 *
 * Each plan and each offering reports at most: one of LANDED / DELIVERED / FAILED, then one QUIET.
 */
#ifndef KVTRANSFER_MOVER_H
#define KVTRANSFER_MOVER_H

#include "base/metrics.h"
#include "kvtransfer/handoff.h"
#include "kvtransfer/transport.h"

#define MOVER_TRANSPORTS_MAX 4
#define MOVER_SLICE_BYTES_MAX (1 << 20) /* one offer's data; a peer's larger offer is dropped */

struct mover;

struct mover_args {
    struct transport
        *transports[MOVER_TRANSPORTS_MAX]; /* in order of preference; owned by the caller */
    int32_t n_transports;
    struct kv_pool_view pool;
    int32_t staging_buffers; /* of MOVER_SLICE_BYTES_MAX each */
    int32_t max_plans, max_offerings;
    int32_t window;          /* offers in flight per offering */
    struct metrics *metrics; /* may be NULL */
};

struct mover_plan {
    uint64_t user;
    struct msg_ticket ticket;
    int32_t token_begin, token_end; /* what must land */
    const int32_t *blocks;          /* of the sequence from token 0, for each group; copied */
    int32_t n_blocks;
    int32_t stride; /* entries from one group's blocks to the next's */
};

struct mover_send {
    uint64_t user;
    struct msg_ticket ticket;
    int32_t token_begin, token_end;
    const int32_t *blocks; /* of the sequence from token 0, for each group; copied */
    int32_t n_blocks;
    const struct msg_rank_address *ranks; /* copied */
    int32_t n_ranks;
    int64_t deadline_ns;
    int32_t stride; /* as in a plan */
};

enum mover_event_kind { MOVER_LANDED, MOVER_DELIVERED, MOVER_FAILED, MOVER_QUIET };

struct mover_event {
    enum mover_event_kind kind;
    uint64_t user;
    enum status status;
    const struct msg_token
        *first; /* LANDED: tokens that the prefill node sampled; valid until mover_forget() */
    uint32_t n_first;
    int64_t transfer_ns; /* DELIVERED: first offer to Landed */
    int64_t exposed_ns;  /* DELIVERED: filled to Landed: what no compute hid */
};

enum status mover_create(const struct mover_args *args, struct mover **out, struct error *err);
/* Force-closes every link and drives the transports until all is quiet; then frees. */
void mover_destroy(struct mover *m);
/* How to reach this rank: one entry per transport, in msg_rank_address form; strings live in the
 * mover. */
enum status mover_address(struct mover *m, struct msg_rank_address *out, struct error *err);

enum status mover_expect(struct mover *m, const struct mover_plan *plan);
/* False: it is not known (and no QUIET will come). */
bool mover_forget(struct mover *m, uint64_t user);

enum status mover_open(struct mover *m, const struct mover_send *send, int64_t now_ns);
void mover_layer_ready(struct mover *m, uint64_t user, int32_t layer, int32_t tokens);
void mover_fill(struct mover *m, uint64_t user, const struct msg_token *first, uint32_t n_first,
                int64_t now_ns);
bool mover_close(struct mover *m, uint64_t user); /* as mover_forget */

/* Handles what the transports have and posts what can be posted; true when it did anything. */
bool mover_work(struct mover *m, int64_t now_ns);
bool mover_next(struct mover *m, struct mover_event *ev);
/* Latest time at which mover_work() should run again without any other cause. */
int64_t mover_wake_ns(const struct mover *m);

struct mover_stats {
    int64_t bytes_in, bytes_out, checksum_failures, unknown_tickets, dropped_offers, missing_rounds;
    int64_t links_lost, frames_refused;
    int32_t plans, offerings, staging_free;
};
void mover_get_stats(const struct mover *m, struct mover_stats *out);

#endif
