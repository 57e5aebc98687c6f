/* The transfer thread: runs a rank's mover, and sleeps when there is nothing to move.
 *
 * The loop thread gives it commands through a bounded ring and gets the mover's events through
 * another; nothing else is shared but the pool's memory, which the rules of mover.h divide.
 * Commands are never lost: a full ring makes the loop wait the moment that the thread needs to take
 * one.
 *
 * Owner: the node. Thread: the loop thread calls all of these.
 */
#ifndef NODE_TRANSFER_H
#define NODE_TRANSFER_H

#include "kvtransfer/mover.h"

struct transfer;

/* The mover is the thread's from here on, and destroyed by it. */
enum status transfer_start(struct mover *m, const struct mover_args *args, struct transfer **out,
                           struct error *err);
void transfer_stop(struct transfer *t);
void transfer_expect(struct transfer *t, const struct mover_plan *plan);
void transfer_forget(struct transfer *t, uint64_t user);
void transfer_open(struct transfer *t, const struct mover_send *send);
void transfer_layer(struct transfer *t, uint64_t user, int32_t layer, int32_t tokens);
void transfer_fill(struct transfer *t, uint64_t user, const struct msg_token *first, uint32_t n);
void transfer_close(struct transfer *t, uint64_t user);
int transfer_fd(const struct transfer *t);
/* Call before draining with transfer_next(). */
void transfer_clear(struct transfer *t);
bool transfer_next(struct transfer *t, struct mover_event *ev);
void transfer_stats(struct transfer *t, struct mover_stats *out); /* a snapshot */

#endif
