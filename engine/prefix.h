/* The prefix index: which blocks hold the KV of which tokens.
 *
 * A run of block_tokens tokens that is complete in every layer and head is entered as a *node*
 * under (the node before it, its tokens, salt); the root's parent is the salt (model, adapter,
 * tenant). Look-up hashes the chain and then compares tokens and parents exactly, so a collision
 * can never serve another prompt's KV. A node has a block for each of the layout's groups
 * (kv_groups.h), or not any more: of sliding groups only the last window is needed to go on, and
 * older blocks are given back. So a chain of n blocks is a hit when groups that see everything have
 * all n, and sliding ones those of the window before its end.
 *
 * Unused blocks wait in LRU order; of groups that see everything children are always older than
 * their parents, so eviction never leaves an orphan. A node stays while it has a block, a child or
 * a sequence that stands on it.
 *
 * Owner: the loop thread. Sized at create.
 */
#ifndef ENGINE_PREFIX_H
#define ENGINE_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kvpool.h"
#include "kernels/kv_layout.h"

#define PREFIX_NONE (-1)

struct prefix;

struct prefix *prefix_create(struct kvpool *pool, const struct kv_layout *layout);
void prefix_destroy(struct prefix *x);

/* A sequence as the index sees it. */
struct prefix_seq {
    uint64_t salt;
    const int32_t *ids;
    int32_t *table; /* [groups] of `stride` entries: its blocks, -1: none */
    int32_t stride;
};

struct prefix_hit {
    int32_t n_blocks;
    int32_t node;                 /* of the last block, PREFIX_NONE without one */
    int32_t first[KV_GROUPS_MAX]; /* entries of the group's table before that are -1 */
};

/* The first block of a group that a sequence with KV of `tokens` tokens still reads. */
int32_t prefix_first_alive(const struct kv_layout *l, int32_t group, int32_t tokens);
/* Longest hit of at most `max_blocks` full blocks of ids[0..n): references its blocks (kvpool_ref)
 * and writes them to the table. Where `handed` is not 0 the hit reaches back to what a handoff of
 * so many tokens brings. */
void prefix_match(struct prefix *x, const struct prefix_seq *s, int32_t max_blocks, int32_t handed,
                  struct prefix_hit *out);
/* Enters blocks `i` of the table below `parent`, the node of i - 1. Where other blocks stand there
 * already, those take the place of ours in the table if we `adopt`; else ours stay out of the
 * index. Returns the node; PREFIX_NONE: ours is not to be shared, nor what follows it. */
int32_t prefix_enter(struct prefix *x, const struct prefix_seq *s, int32_t i, int32_t parent,
                     bool adopt);
/* A sequence stands on a node, and leaves it; PREFIX_NONE: nothing is done. */
void prefix_hold(struct prefix *x, int32_t node);
void prefix_let_go(struct prefix *x, int32_t node);
int32_t prefix_parent(const struct prefix *x, int32_t node);
bool prefix_holds(const struct prefix *x, int32_t block);
/* Takes a held block out of the index again; false when others hold it or need it. */
bool prefix_forget(struct prefix *x, int32_t block);
/* The block's last holder is gone: it goes to the young end of the LRU list. Release a chain from
 * its end to its beginning, and the first group last. */
void prefix_release(struct prefix *x, int32_t block);
/* Makes at least `n` blocks free by evicting the oldest; returns how many it evicted. */
int32_t prefix_evict(struct prefix *x, int32_t n);
void prefix_clear(struct prefix *x);       /* evicts all that is unused */
void prefix_check(const struct prefix *x); /* its invariants against the pool's; asserts */

#endif
