/* The pool of KV blocks: who holds each block, and the sum that must hold (LAW 6).
 *
 *                                                    last reference, in the prefix index
 *    FREE --- take ---> RESERVED ---> RECEIVING ---> RUNNING --------------------------> CACHED
 *     ^ ^                  |             |            |   ^                               |  |
 *     | |                  |             |            |   +----------- hit ---------------+  |
 *     | +--- release ------+-------------+------------+                                      |
 *     +------------------------------ evict -------------------------------------------------+
 *
 * Released while an operation on its memory is not quiet, a block goes to QUARANTINED instead, and
 * from there, once quiet, to FREE.
 *
 * A block has a reference count: sequences that share a prefix share its blocks. The state says
 * what the block is for its most advanced holder. The pool knows nothing of contents; prefix.h
 * does. Numbers are indices of kv_layout.
 *
 * Owner: the loop thread. Memory is sized at create; nothing is allocated later.
 */
#ifndef ENGINE_KVPOOL_H
#define ENGINE_KVPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/messages.h"

enum block_state {
    BLOCK_FREE,
    BLOCK_RESERVED,    /* promised to a sequence, nothing in it */
    BLOCK_RECEIVING,   /* a landing plan may write to it */
    BLOCK_RUNNING,     /* holds KV that a live sequence uses */
    BLOCK_CACHED,      /* no holder; kept for its prefix, may be evicted */
    BLOCK_QUARANTINED, /* no holder, but an operation on its memory is not quiet */
    BLOCK_STATES
};

struct kvpool;

struct kvpool *kvpool_create(int32_t blocks);
void kvpool_destroy(struct kvpool *p);
int32_t kvpool_available(const struct kvpool *p); /* free + cached: what can be had at once */
/* Takes `n` free blocks with one reference each in state RESERVED, or none: false. The caller
 * evicts first (prefix.h). */
bool kvpool_take(struct kvpool *p, int32_t n, int32_t *blocks);
void kvpool_move(struct kvpool *p, int32_t block,
                 enum block_state to); /* RESERVED, RECEIVING, RUNNING among each other */
void kvpool_ref(struct kvpool *p, int32_t block); /* RUNNING or CACHED -> RUNNING */
/* Drops a reference. The last one moves it to CACHED when `keep`, else to FREE. Returns references
 * left. */
int32_t kvpool_unref(struct kvpool *p, int32_t block, bool keep);
/* Drops the last reference of a block under an unfinished operation; kvpool_quiet() frees it later.
 */
void kvpool_quarantine(struct kvpool *p, int32_t block);
void kvpool_quiet(struct kvpool *p, int32_t block);
void kvpool_evict(struct kvpool *p, int32_t block); /* CACHED -> FREE */
int32_t kvpool_refs(const struct kvpool *p, int32_t block);
enum block_state kvpool_state(const struct kvpool *p, int32_t block);
void kvpool_counts(const struct kvpool *p, struct msg_blocks *out);
/* Recounts every block and compares with the counters: LAW 6. Asserts. */
void kvpool_check(const struct kvpool *p);

#endif
