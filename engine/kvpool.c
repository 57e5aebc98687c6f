#include "engine/kvpool.h"

#include <assert.h>
#include <stdlib.h>

struct kvpool {
    int32_t blocks;
    int32_t n_free;
    int32_t *free_stack; /* the last freed is used first */
    int32_t *refs;
    uint8_t *state; /* enum block_state */
    int64_t counts[BLOCK_STATES];
};

struct kvpool *kvpool_create(int32_t blocks)
{
    assert(blocks > 0);
    struct kvpool *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->blocks = blocks;
    p->free_stack = malloc((size_t)blocks * sizeof *p->free_stack);
    p->refs = calloc((size_t)blocks, sizeof *p->refs);
    p->state = calloc((size_t)blocks, sizeof *p->state);
    if (!p->free_stack || !p->refs || !p->state) {
        kvpool_destroy(p);
        return NULL;
    }
    for (int32_t i = 0; i < blocks; i++)
        p->free_stack[i] = blocks - 1 - i;
    p->n_free = blocks;
    p->counts[BLOCK_FREE] = blocks;
    return p;
}

void kvpool_destroy(struct kvpool *p)
{
    if (p == NULL)
        return;
    free(p->free_stack);
    free(p->refs);
    free(p->state);
    free(p);
}

static void set_state(struct kvpool *p, int32_t block, enum block_state to)
{
    p->counts[p->state[block]]--;
    p->counts[to]++;
    p->state[block] = (uint8_t)to;
    if (to == BLOCK_FREE)
        p->free_stack[p->n_free++] = block;
}

static void check_block(const struct kvpool *p, int32_t block)
{
    assert(block >= 0 && block < p->blocks);
}

static bool is_held(enum block_state s)
{
    return s == BLOCK_RESERVED || s == BLOCK_RECEIVING || s == BLOCK_RUNNING;
}

int32_t kvpool_available(const struct kvpool *p)
{
    return (int32_t)(p->counts[BLOCK_FREE] + p->counts[BLOCK_CACHED]);
}

bool kvpool_take(struct kvpool *p, int32_t n, int32_t *blocks)
{
    assert(n >= 0);
    if (n > p->n_free)
        return false;
    for (int32_t i = 0; i < n; i++) {
        int32_t block = p->free_stack[--p->n_free];
        assert(p->state[block] == BLOCK_FREE && p->refs[block] == 0);
        set_state(p, block, BLOCK_RESERVED);
        p->refs[block] = 1;
        blocks[i] = block;
    }
    return true;
}

void kvpool_move(struct kvpool *p, int32_t block, enum block_state to)
{
    check_block(p, block);
    assert(is_held(p->state[block]) && is_held(to) && p->refs[block] > 0);
    set_state(p, block, to);
}

void kvpool_ref(struct kvpool *p, int32_t block)
{
    check_block(p, block);
    assert(p->state[block] == BLOCK_RUNNING || p->state[block] == BLOCK_CACHED);
    if (p->state[block] == BLOCK_CACHED)
        set_state(p, block, BLOCK_RUNNING);
    p->refs[block]++;
}

int32_t kvpool_unref(struct kvpool *p, int32_t block, bool keep)
{
    check_block(p, block);
    assert(is_held(p->state[block]) && p->refs[block] > 0);
    if (--p->refs[block] > 0)
        return p->refs[block];
    assert(!keep || p->state[block] == BLOCK_RUNNING);
    set_state(p, block, keep ? BLOCK_CACHED : BLOCK_FREE);
    return 0;
}

void kvpool_quarantine(struct kvpool *p, int32_t block)
{
    check_block(p, block);
    assert(is_held(p->state[block]) && p->refs[block] == 1);
    p->refs[block] = 0;
    set_state(p, block, BLOCK_QUARANTINED);
}

void kvpool_quiet(struct kvpool *p, int32_t block)
{
    check_block(p, block);
    assert(p->state[block] == BLOCK_QUARANTINED);
    set_state(p, block, BLOCK_FREE);
}

void kvpool_evict(struct kvpool *p, int32_t block)
{
    check_block(p, block);
    assert(p->state[block] == BLOCK_CACHED && p->refs[block] == 0);
    set_state(p, block, BLOCK_FREE);
}

int32_t kvpool_refs(const struct kvpool *p, int32_t block)
{
    check_block(p, block);
    return p->refs[block];
}

enum block_state kvpool_state(const struct kvpool *p, int32_t block)
{
    check_block(p, block);
    return p->state[block];
}

void kvpool_counts(const struct kvpool *p, struct msg_blocks *out)
{
    *out = (struct msg_blocks){
        .total = p->blocks,
        .free = p->counts[BLOCK_FREE],
        .reserved = p->counts[BLOCK_RESERVED],
        .receiving = p->counts[BLOCK_RECEIVING],
        .running = p->counts[BLOCK_RUNNING],
        .cached = p->counts[BLOCK_CACHED],
        .quarantined = p->counts[BLOCK_QUARANTINED],
    };
}

/* A recount of a very large pool would cost more than the step that it follows. */
#define RECOUNT_BLOCKS_MAX 65536

void kvpool_check(const struct kvpool *p)
{
    int64_t sum = 0;
    for (int s = 0; s < BLOCK_STATES; s++) {
        assert(p->counts[s] >= 0);
        sum += p->counts[s];
    }
    assert(sum == p->blocks);
    assert(p->counts[BLOCK_FREE] == p->n_free);
    if (p->blocks > RECOUNT_BLOCKS_MAX)
        return;
    int64_t counts[BLOCK_STATES] = {0};
    for (int32_t b = 0; b < p->blocks; b++) {
        assert(p->state[b] < BLOCK_STATES);
        counts[p->state[b]]++;
        assert((p->refs[b] > 0) == is_held(p->state[b]));
    }
    for (int s = 0; s < BLOCK_STATES; s++)
        assert(counts[s] == p->counts[s]);
}
