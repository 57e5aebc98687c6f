#include "engine/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

#define NONE PREFIX_NONE

struct node {
    uint64_t hash; /* of the chain up to and with this run */
    uint64_t salt;
    int32_t parent;      /* NONE for the first of a chain */
    int32_t children;    /* nodes whose parent this is, and sequences that stand on it */
    int32_t bucket_next; /* node; of a free one the next free one */
    bool used;
};

struct entry {            /* of a block */
    int32_t node;         /* NONE: is not in the index */
    int32_t group;        /* of the layout */
    int32_t older, newer; /* LRU list while no one holds the block */
    bool idle;            /* is in the LRU list */
};

struct prefix {
    struct kvpool *pool;
    struct kv_layout layout;
    int32_t groups, block_tokens;
    uint32_t mask; /* buckets - 1 */
    int32_t *buckets;
    struct node *nodes;
    int32_t cap_nodes, free_node;
    int32_t *blocks;       /* [nodes][groups] NONE: gone */
    int32_t *tokens;       /* [nodes][block_tokens] */
    struct entry *entries; /* [blocks of the pool] */
    int32_t oldest, newest;
};

/* Where all groups slide, chains outlive their blocks. */
#define NODES_OF_SLIDING 4

static bool allocate(struct prefix *x, size_t buckets)
{
    size_t nodes = (size_t)x->cap_nodes, blocks = (size_t)x->layout.blocks;
    x->buckets = malloc(buckets * sizeof *x->buckets);
    x->nodes = calloc(nodes, sizeof *x->nodes);
    x->blocks = calloc(nodes * (size_t)x->groups, sizeof *x->blocks);
    x->tokens = calloc(nodes * (size_t)x->block_tokens, sizeof *x->tokens);
    x->entries = calloc(blocks, sizeof *x->entries);
    if (!x->buckets || !x->nodes || !x->blocks || !x->tokens || !x->entries)
        return false;
    for (size_t i = 0; i < buckets; i++)
        x->buckets[i] = NONE;
    for (size_t i = 0; i < blocks; i++)
        x->entries[i].node = NONE;
    for (int32_t i = 0; i < x->cap_nodes; i++)
        x->nodes[i].bucket_next = i + 1 < x->cap_nodes ? i + 1 : NONE;
    return true;
}

struct prefix *prefix_create(struct kvpool *pool, const struct kv_layout *layout)
{
    assert(layout->blocks > 0 && layout->block_tokens > 0);
    struct prefix *x = calloc(1, sizeof *x);
    if (x == NULL)
        return NULL;
    bool sliding = kv_group_window(layout, 0) > 0;
    int64_t nodes = (int64_t)layout->blocks * (sliding ? NODES_OF_SLIDING : 1);
    *x = (struct prefix){.pool = pool,
                         .layout = *layout,
                         .groups = kv_groups_of(layout),
                         .block_tokens = layout->block_tokens,
                         .cap_nodes = nodes < INT32_MAX ? (int32_t)nodes : INT32_MAX,
                         .oldest = NONE,
                         .newest = NONE};
    size_t buckets = 16;
    while (buckets < 2 * (size_t)x->cap_nodes)
        buckets *= 2;
    x->mask = (uint32_t)(buckets - 1);
    if (!allocate(x, buckets)) {
        prefix_destroy(x);
        return NULL;
    }
    return x;
}

void prefix_destroy(struct prefix *x)
{
    if (x == NULL)
        return;
    free(x->buckets);
    free(x->nodes);
    free(x->blocks);
    free(x->tokens);
    free(x->entries);
    free(x);
}

/* ---- nodes ---- */

static int32_t *tokens_of(const struct prefix *x, int32_t node)
{
    return x->tokens + (size_t)node * (size_t)x->block_tokens;
}

static int32_t *blocks_of(const struct prefix *x, int32_t node)
{
    return x->blocks + (size_t)node * (size_t)x->groups;
}

static size_t run_bytes(const struct prefix *x)
{
    return (size_t)x->block_tokens * sizeof(int32_t);
}

static const int32_t *run_of(const struct prefix *x, const struct prefix_seq *s, int32_t i)
{
    return s->ids + (size_t)i * (size_t)x->block_tokens;
}

static uint64_t chain_hash(const struct prefix *x, uint64_t salt, int32_t parent,
                           const int32_t *run)
{
    uint64_t from = parent == NONE ? rng_mix(salt) : x->nodes[parent].hash;
    return hash_bytes(from, run, run_bytes(x));
}

/* The node for this run of tokens below `parent`: compares everything that the hash stands for. */
static int32_t find(const struct prefix *x, uint64_t salt, int32_t parent, const int32_t *run)
{
    uint64_t hash = chain_hash(x, salt, parent, run);
    for (int32_t n = x->buckets[hash & x->mask]; n != NONE; n = x->nodes[n].bucket_next) {
        const struct node *e = &x->nodes[n];
        if (e->hash == hash && e->parent == parent && e->salt == salt &&
            memcmp(tokens_of(x, n), run, run_bytes(x)) == 0)
            return n;
    }
    return NONE;
}

static bool is_bare(const struct prefix *x, int32_t node)
{
    for (int32_t g = 0; g < x->groups; g++)
        if (blocks_of(x, node)[g] != NONE)
            return false;
    return x->nodes[node].children == 0;
}

/* Removes a node that nothing needs any more, and then those above it. */
static void prune(struct prefix *x, int32_t node)
{
    while (node != NONE && is_bare(x, node)) {
        struct node *n = &x->nodes[node];
        int32_t parent = n->parent, *at = &x->buckets[n->hash & x->mask];
        while (*at != node)
            at = &x->nodes[*at].bucket_next;
        *at = n->bucket_next;
        if (parent != NONE)
            x->nodes[parent].children--;
        n->used = false;
        n->bucket_next = x->free_node;
        x->free_node = node;
        node = parent;
    }
}

/* NONE: all are needed. */
static int32_t add_node(struct prefix *x, uint64_t salt, int32_t parent, const int32_t *run)
{
    while (x->free_node == NONE && x->oldest != NONE) {
        struct msg_blocks counts;
        kvpool_counts(x->pool, &counts);
        prefix_evict(x, (int32_t)counts.free + 1);
    }
    int32_t node = x->free_node;
    if (node == NONE)
        return NONE;
    struct node *n = &x->nodes[node];
    x->free_node = n->bucket_next;
    *n = (struct node){
        .hash = chain_hash(x, salt, parent, run), .salt = salt, .parent = parent, .used = true};
    int32_t *bucket = &x->buckets[n->hash & x->mask];
    n->bucket_next = *bucket;
    *bucket = node;
    if (parent != NONE)
        x->nodes[parent].children++;
    memcpy(tokens_of(x, node), run, run_bytes(x));
    for (int32_t g = 0; g < x->groups; g++)
        blocks_of(x, node)[g] = NONE;
    return node;
}

void prefix_hold(struct prefix *x, int32_t node)
{
    if (node != NONE)
        x->nodes[node].children++;
}

void prefix_let_go(struct prefix *x, int32_t node)
{
    if (node == NONE)
        return;
    assert(x->nodes[node].used && x->nodes[node].children > 0);
    x->nodes[node].children--;
    prune(x, node);
}

int32_t prefix_parent(const struct prefix *x, int32_t node)
{
    return node == NONE ? NONE : x->nodes[node].parent;
}

/* ---- blocks ---- */

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

/* Leaves the node as it is. */
static void detach(struct prefix *x, int32_t block)
{
    struct entry *e = &x->entries[block];
    assert(e->node != NONE && blocks_of(x, e->node)[e->group] == block);
    lru_remove(x, block);
    blocks_of(x, e->node)[e->group] = NONE;
    e->node = NONE;
}

static int32_t share(struct prefix *x, int32_t block)
{
    lru_remove(x, block);
    kvpool_ref(x->pool, block);
    return block;
}

int32_t prefix_first_alive(const struct kv_layout *l, int32_t group, int32_t tokens)
{
    int32_t window = kv_group_window(l, group);
    /* The last full block stays, and what the last token reads, should it be computed again. */
    int32_t keep = window > l->block_tokens ? window : l->block_tokens;
    return window == 0 || tokens <= keep ? 0 : (tokens - keep) / l->block_tokens;
}

/* The first block that a hit of n blocks must have of a group. */
static int32_t reach(const struct prefix *x, int32_t group, int32_t n, int32_t handed)
{
    int32_t first = prefix_first_alive(&x->layout, group, n * x->block_tokens);
    if (handed > 0) {
        int32_t from = kv_groups_need_from(x->layout.groups, group, handed) / x->block_tokens;
        first = from < first ? from : first;
    }
    return first;
}

/* How many blocks, ending with the one of `node`, each group has without a gap. */
static bool count_runs(const struct prefix *x, int32_t node, int32_t *runs)
{
    const int32_t *blocks = blocks_of(x, node);
    for (int32_t g = 0; g < x->groups; g++) {
        runs[g] = blocks[g] == NONE ? 0 : runs[g] + 1;
        if (runs[g] == 0 && kv_group_window(&x->layout, g) == 0)
            return false;
    }
    return true;
}

static bool is_hit(const struct prefix *x, int32_t n, int32_t handed, const int32_t *runs)
{
    for (int32_t g = 0; g < x->groups; g++)
        if (runs[g] < n - reach(x, g, n, handed))
            return false;
    return true;
}

void prefix_match(struct prefix *x, const struct prefix_seq *s, int32_t max_blocks, int32_t handed,
                  struct prefix_hit *out)
{
    int32_t runs[KV_GROUPS_MAX] = {0}, node = NONE;
    *out = (struct prefix_hit){.node = NONE};
    for (int32_t n = 1; n <= max_blocks; n++) {
        node = find(x, s->salt, node, run_of(x, s, n - 1));
        if (node == NONE || !count_runs(x, node, runs))
            break;
        if (!is_hit(x, n, handed, runs))
            continue;
        out->n_blocks = n;
        out->node = node;
    }
    for (int32_t g = 0; g < x->groups && out->n_blocks > 0; g++)
        out->first[g] = reach(x, g, out->n_blocks, handed);
    node = out->node;
    for (int32_t i = out->n_blocks - 1; i >= 0; i--, node = x->nodes[node].parent)
        for (int32_t g = 0; g < x->groups; g++)
            s->table[(size_t)g * (size_t)s->stride + (size_t)i] =
                i < out->first[g] ? NONE : share(x, blocks_of(x, node)[g]);
}

static void attach(struct prefix *x, int32_t node, int32_t group, int32_t block)
{
    struct entry *e = &x->entries[block];
    assert(e->node == NONE && !e->idle && kvpool_state(x->pool, block) == BLOCK_RUNNING);
    *e = (struct entry){.node = node, .group = group, .older = NONE, .newer = NONE};
    blocks_of(x, node)[group] = block;
}

/* Another's block stands where ours would have to: what follows would not be a chain of ours. */
static bool is_taken(const struct prefix *x, const struct prefix_seq *s, int32_t i, int32_t node)
{
    for (int32_t g = 0; g < x->groups; g++) {
        int32_t theirs = blocks_of(x, node)[g];
        bool own = theirs == s->table[(size_t)g * (size_t)s->stride + (size_t)i];
        if (theirs != NONE && !own && (g == 0 || kv_group_window(&x->layout, g) == 0))
            return true;
    }
    return false;
}

int32_t prefix_enter(struct prefix *x, const struct prefix_seq *s, int32_t i, int32_t parent,
                     bool adopt)
{
    int32_t node = find(x, s->salt, parent, run_of(x, s, i));
    if (node == NONE)
        node = add_node(x, s->salt, parent, run_of(x, s, i));
    if (node == NONE || (!adopt && is_taken(x, s, i, node)))
        return NONE;
    for (int32_t g = 0; g < x->groups; g++) {
        int32_t *ours = &s->table[(size_t)g * (size_t)s->stride + (size_t)i];
        int32_t theirs = blocks_of(x, node)[g];
        if (*ours < 0 || *ours == theirs)
            continue;
        if (theirs == NONE) {
            attach(x, node, g, *ours);
        } else if (adopt) {
            share(x, theirs);
            assert(!prefix_holds(x, *ours));
            kvpool_unref(x->pool, *ours, false);
            *ours = theirs;
        }
    }
    return node;
}

bool prefix_holds(const struct prefix *x, int32_t block)
{
    assert(block >= 0 && block < x->layout.blocks);
    return x->entries[block].node != NONE;
}

bool prefix_forget(struct prefix *x, int32_t block)
{
    assert(prefix_holds(x, block));
    const struct entry *e = &x->entries[block];
    int32_t node = e->node;
    bool needed = x->nodes[node].children > 0 && kv_group_window(&x->layout, e->group) == 0;
    if (needed || kvpool_refs(x->pool, block) != 1)
        return false;
    detach(x, block);
    prune(x, node);
    return true;
}

void prefix_release(struct prefix *x, int32_t block)
{
    struct entry *e = &x->entries[block];
    assert(e->node != NONE && !e->idle && kvpool_state(x->pool, block) == BLOCK_CACHED);
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
        int32_t block = x->oldest, node = x->entries[block].node;
        detach(x, block);
        kvpool_evict(x->pool, block);
        prune(x, node);
        evicted++;
    }
    return evicted;
}

void prefix_clear(struct prefix *x)
{
    prefix_evict(x, x->layout.blocks);
}

static void check_lru(const struct prefix *x)
{
    int32_t idle = 0, previous = NONE;
    for (int32_t b = x->oldest; b != NONE; b = x->entries[b].newer) {
        assert(x->entries[b].node != NONE && x->entries[b].idle && x->entries[b].older == previous);
        assert(kvpool_state(x->pool, b) == BLOCK_CACHED);
        previous = b;
        idle++;
    }
    assert(previous == x->newest);
    struct msg_blocks counts;
    kvpool_counts(x->pool, &counts);
    assert(counts.cached == idle);
}

void prefix_check(const struct prefix *x)
{
    check_lru(x);
    for (int32_t b = 0; b < x->layout.blocks; b++) {
        const struct entry *e = &x->entries[b];
        if (e->node == NONE)
            continue;
        int32_t parent = x->nodes[e->node].parent;
        assert(x->nodes[e->node].used && blocks_of(x, e->node)[e->group] == b);
        assert(e->idle || kvpool_refs(x->pool, b) > 0);
        if (parent == NONE || kv_group_window(&x->layout, e->group) > 0)
            continue;
        /* Who holds a block holds its chain. */
        int32_t above = blocks_of(x, parent)[e->group];
        assert(above != NONE && (e->idle || kvpool_refs(x->pool, above) > 0));
    }
    for (int32_t n = 0; n < x->cap_nodes; n++) {
        if (!x->nodes[n].used)
            continue;
        int32_t parent = x->nodes[n].parent;
        assert(!is_bare(x, n));
        assert(parent == NONE || (x->nodes[parent].used && x->nodes[parent].children > 0));
    }
}
