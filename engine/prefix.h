/* The prefix index: which full blocks hold the KV of which tokens.
 *
 * A block that is full and complete in every layer and head is entered under (its parent block, its
 * tokens, salt); the root's parent is the salt (model, adapter, tenant). Look-up hashes the chain
 * and then compares tokens and parents exactly, so a collision can never serve another prompt's KV.
 * Unused blocks wait in LRU order; children are always older than their parents, so eviction never
 * leaves an orphan.
 *
 * Owner: the loop thread. Sized at create.
 */
#ifndef ENGINE_PREFIX_H
#define ENGINE_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kvpool.h"

struct prefix;

struct prefix *prefix_create(struct kvpool *pool, int32_t blocks, int32_t block_tokens);
void prefix_destroy(struct prefix *x);
/* Longest chain of cached full blocks for ids[0..n): references each (kvpool_ref) and writes their
 * numbers. Returns how many; covers at most `max_blocks`. */
int32_t prefix_match(struct prefix *x, uint64_t salt, const int32_t *ids, int32_t n,
                     int32_t max_blocks, int32_t *blocks);
/* Enters block `blocks[i]` for tokens ids[i*bt .. (i+1)*bt) given that blocks[0..i) are entered;
 * when an equal entry exists already, nothing is entered and false is returned (the duplicate is
 * not shared). */
bool prefix_insert(struct prefix *x, uint64_t salt, const int32_t *ids, const int32_t *blocks,
                   int32_t i);
/* References the block that stands already where `blocks[i]` would be entered, and returns it; -1:
 * none. */
int32_t prefix_share(struct prefix *x, uint64_t salt, const int32_t *ids, const int32_t *blocks,
                     int32_t i);
bool prefix_holds(const struct prefix *x, int32_t block);
/* Takes a held block out of the index again; false when others hold it or entries hang below it. */
bool prefix_forget(struct prefix *x, int32_t block);
/* The block's last holder is gone: it goes to the young end of the LRU list. Release a chain from
 * its end to its beginning. */
void prefix_release(struct prefix *x, int32_t block);
/* Makes at least `n` blocks free by evicting the oldest; returns how many it evicted. */
int32_t prefix_evict(struct prefix *x, int32_t n);
void prefix_clear(struct prefix *x);       /* evicts all that is unused */
void prefix_check(const struct prefix *x); /* its invariants against the pool's; asserts */

#endif
