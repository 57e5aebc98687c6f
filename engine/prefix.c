#include "engine/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

#define NONE (-1)

struct entry {
    uint64_t hash; /* of the chain up to and with this block */
    uint64_t salt;
    int32_t parent;       /* block, or NONE for the first of a chain */
    int32_t children;     /* entries whose parent this is */
    int32_t bucket_next;  /* block */
    int32_t older, newer; /* LRU list while no one holds the block */
    bool used;            /* is in the index */
    bool idle;            /* is in the LRU list */
};

struct prefix {
    struct kvpool *pool;
    int32_t blocks, block_tokens;
    uint32_t mask; /* buckets - 1 */
    int32_t *buckets;
    struct entry *entries; /* [blocks] */
    int32_t *tokens;       /* [blocks][block_tokens] */
    int32_t oldest, newest;
};

struct prefix *prefix_create(struct kvpool *pool, int32_t blocks, int32_t block_tokens)
{
    assert(blocks > 0 && block_tokens > 0);
    struct prefix *x = calloc(1, sizeof *x);
    if (x == NULL)
        return NULL;
    size_t buckets = 16;
    while (buckets < 2 * (size_t)blocks)
        buckets *= 2;
    *x = (struct prefix){.pool = pool,
                         .blocks = blocks,
                         .block_tokens = block_tokens,
                         .mask = (uint32_t)(buckets - 1),
                         .oldest = NONE,
                         .newest = NONE};
    x->buckets = malloc(buckets * sizeof *x->buckets);
    x->entries = calloc((size_t)blocks, sizeof *x->entries);
    x->tokens = calloc((size_t)blocks * (size_t)block_tokens, sizeof *x->tokens);
    if (!x->buckets || !x->entries || !x->tokens) {
        prefix_destroy(x);
        return NULL;
    }
    for (size_t i = 0; i < buckets; i++)
        x->buckets[i] = NONE;
    return x;
}

void prefix_destroy(struct prefix *x)
{
    if (x == NULL)
        return;
    free(x->buckets);
    free(x->entries);
    free(x->tokens);
    free(x);
}

static int32_t *tokens_of(const struct prefix *x, int32_t block)
{
    return x->tokens + (size_t)block * (size_t)x->block_tokens;
}

static size_t run_bytes(const struct prefix *x)
{
    return (size_t)x->block_tokens * sizeof(int32_t);
}

static uint64_t chain_hash(const struct prefix *x, uint64_t salt, int32_t parent,
                           const int32_t *run)
{
    uint64_t from = parent == NONE ? rng_mix(salt) : x->entries[parent].hash;
    return hash_bytes(from, run, run_bytes(x));
}

/* The entry for this run of tokens below `parent`: compares everything that the hash stands for. */
static int32_t find(const struct prefix *x, uint64_t salt, int32_t parent, const int32_t *run,
                    uint64_t hash)
{
    for (int32_t b = x->buckets[hash & x->mask]; b != NONE; b = x->entries[b].bucket_next) {
        const struct entry *e = &x->entries[b];
        if (e->hash == hash && e->parent == parent && e->salt == salt &&
            memcmp(tokens_of(x, b), run, run_bytes(x)) == 0)
            return b;
    }
    return NONE;
}

static void lru_remove(struct prefix *x, int32_t block)
{
    struct entry *e = &x->entries[block];
    if (!e->idle)
        return;
    if (e->older != NONE)
        x->entries[e->older].newer = e->newer;
    else
        x->oldest = e->newer;
    if (e->newer != NONE)
        x->entries[e->newer].older = e->older;
    else
        x->newest = e->older;
    e->idle = false;
}

static void unlink_entry(struct prefix *x, int32_t block)
{
    struct entry *e = &x->entries[block];
    assert(e->used && e->children == 0);
    lru_remove(x, block);
    int32_t *at = &x->buckets[e->hash & x->mask];
    while (*at != block)
        at = &x->entries[*at].bucket_next;
    *at = e->bucket_next;
    if (e->parent != NONE)
        x->entries[e->parent].children--;
    e->used = false;
}

int32_t prefix_match(struct prefix *x, uint64_t salt, const int32_t *ids, int32_t n,
                     int32_t max_blocks, int32_t *blocks)
{
    int32_t limit = n / x->block_tokens, found = 0, parent = NONE;
    if (limit > max_blocks)
        limit = max_blocks;
    while (found < limit) {
        const int32_t *run = ids + (size_t)found * (size_t)x->block_tokens;
        int32_t b = find(x, salt, parent, run, chain_hash(x, salt, parent, run));
        if (b == NONE)
            break;
        lru_remove(x, b);
        kvpool_ref(x->pool, b);
        blocks[found++] = parent = b;
    }
    return found;
}

int32_t prefix_share(struct prefix *x, uint64_t salt, const int32_t *ids, const int32_t *blocks,
                     int32_t i)
{
    int32_t parent = i == 0 ? NONE : blocks[i - 1];
    if (parent != NONE && !x->entries[parent].used)
        return -1;
    const int32_t *run = ids + (size_t)i * (size_t)x->block_tokens;
    int32_t b = find(x, salt, parent, run, chain_hash(x, salt, parent, run));
    if (b == NONE || b == blocks[i])
        return -1;
    lru_remove(x, b);
    kvpool_ref(x->pool, b);
    return b;
}

bool prefix_insert(struct prefix *x, uint64_t salt, const int32_t *ids, const int32_t *blocks,
                   int32_t i)
{
    int32_t block = blocks[i], parent = i == 0 ? NONE : blocks[i - 1];
    assert(block >= 0 && block < x->blocks);
    struct entry *e = &x->entries[block];
    if (e->used || (parent != NONE && !x->entries[parent].used))
        return false;
    assert(kvpool_state(x->pool, block) == BLOCK_RUNNING);
    const int32_t *run = ids + (size_t)i * (size_t)x->block_tokens;
    uint64_t hash = chain_hash(x, salt, parent, run);
    if (find(x, salt, parent, run, hash) != NONE)
        return false;
    int32_t *bucket = &x->buckets[hash & x->mask];
    *e = (struct entry){.hash = hash,
                        .salt = salt,
                        .parent = parent,
                        .bucket_next = *bucket,
                        .older = NONE,
                        .newer = NONE,
                        .used = true};
    *bucket = block;
    if (parent != NONE)
        x->entries[parent].children++;
    memcpy(tokens_of(x, block), run, run_bytes(x));
    return true;
}

bool prefix_holds(const struct prefix *x, int32_t block)
{
    assert(block >= 0 && block < x->blocks);
    return x->entries[block].used;
}

bool prefix_forget(struct prefix *x, int32_t block)
{
    assert(prefix_holds(x, block));
    if (x->entries[block].children > 0 || kvpool_refs(x->pool, block) != 1)
        return false;
    unlink_entry(x, block);
    return true;
}

void prefix_release(struct prefix *x, int32_t block)
{
    struct entry *e = &x->entries[block];
    assert(e->used && !e->idle && kvpool_state(x->pool, block) == BLOCK_CACHED);
    e->older = x->newest;
    e->newer = NONE;
    if (x->newest != NONE)
        x->entries[x->newest].newer = block;
    else
        x->oldest = block;
    x->newest = block;
    e->idle = true;
}

int32_t prefix_evict(struct prefix *x, int32_t n)
{
    int32_t evicted = 0;
    struct msg_blocks counts;
    kvpool_counts(x->pool, &counts);
    while (counts.free + evicted < n && x->oldest != NONE) {
        int32_t block = x->oldest;
        unlink_entry(x, block);
        kvpool_evict(x->pool, block);
        evicted++;
    }
    return evicted;
}

void prefix_clear(struct prefix *x)
{
    prefix_evict(x, x->blocks);
}

void prefix_check(const struct prefix *x)
{
    int32_t idle = 0, previous = NONE;
    for (int32_t b = x->oldest; b != NONE; b = x->entries[b].newer) {
        assert(x->entries[b].used && x->entries[b].idle && x->entries[b].older == previous);
        assert(kvpool_state(x->pool, b) == BLOCK_CACHED);
        previous = b;
        idle++;
    }
    assert(previous == x->newest);
    struct msg_blocks counts;
    kvpool_counts(x->pool, &counts);
    assert(counts.cached == idle);
    for (int32_t b = 0; b < x->blocks; b++) {
        const struct entry *e = &x->entries[b];
        if (!e->used)
            continue;
        assert(e->idle || kvpool_refs(x->pool, b) > 0);
        if (e->parent == NONE)
            continue;
        const struct entry *p = &x->entries[e->parent];
        assert(p->used && p->children > 0);
        assert(e->idle ||
               kvpool_refs(x->pool, e->parent) > 0); /* who holds a block holds its chain */
    }
}
