/* The block pool and the prefix index by themselves. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "engine/prefix.h"

static struct msg_blocks counts(const struct kvpool *p)
{
    struct msg_blocks c;
    kvpool_check(p);
    kvpool_counts(p, &c);
    return c;
}

Test(kvpool, a_block_goes_through_all_states)
{
    struct kvpool *p = kvpool_create(4);
    int32_t b[5];
    cr_assert_not(kvpool_take(p, 5, b));
    cr_assert(kvpool_take(p, 3, b));
    cr_assert_eq(counts(p).reserved, 3);
    cr_assert_not(kvpool_take(p, 2, b + 3));
    kvpool_move(p, b[0], BLOCK_RECEIVING);
    kvpool_move(p, b[0], BLOCK_RUNNING);
    kvpool_ref(p, b[0]);
    cr_assert_eq(kvpool_refs(p, b[0]), 2);
    cr_assert_eq(kvpool_unref(p, b[0], true), 1);
    cr_assert_eq(kvpool_unref(p, b[0], true), 0);
    cr_assert_eq(kvpool_state(p, b[0]), BLOCK_CACHED);
    cr_assert_eq(kvpool_available(p), 2);
    kvpool_ref(p, b[0]);
    cr_assert_eq(kvpool_state(p, b[0]), BLOCK_RUNNING);
    kvpool_unref(p, b[0], true);
    kvpool_evict(p, b[0]);
    kvpool_move(p, b[1], BLOCK_RECEIVING);
    kvpool_quarantine(p, b[1]);
    cr_assert_eq(counts(p).quarantined, 1);
    cr_assert_eq(kvpool_available(p), 2);
    kvpool_quiet(p, b[1]);
    kvpool_unref(p, b[2], false);
    cr_assert_eq(counts(p).free, 4);
    kvpool_destroy(p);
}

Test(kvpool, double_unref_is_noticed, .signal = SIGABRT)
{
    struct kvpool *p = kvpool_create(2);
    int32_t b;
    kvpool_take(p, 1, &b);
    kvpool_unref(p, b, false);
    kvpool_unref(p, b, false);
}

Test(kvpool, a_shared_block_is_never_quarantined, .signal = SIGABRT)
{
    struct kvpool *p = kvpool_create(2);
    int32_t b;
    kvpool_take(p, 1, &b);
    kvpool_move(p, b, BLOCK_RUNNING);
    kvpool_ref(p, b);
    kvpool_quarantine(p, b);
}

#define BT 4

struct index {
    struct kvpool *pool;
    struct prefix *x;
};

static struct index index_open_as(int32_t blocks, const struct kv_groups *groups)
{
    struct kvpool *pool = kvpool_create(blocks);
    struct kv_layout layout = {.layers = 1,
                               .kv_heads = 1,
                               .head_dim = 1,
                               .value_dim = 1,
                               .block_tokens = BT,
                               .blocks = blocks,
                               .groups = groups};
    return (struct index){pool, prefix_create(pool, &layout)};
}

static struct index index_open(int32_t blocks)
{
    return index_open_as(blocks, NULL);
}

static struct prefix_seq as_seq(uint64_t salt, const int32_t *ids, int32_t *blocks)
{
    return (struct prefix_seq){.salt = salt, .ids = ids, .table = blocks};
}

static int32_t match(struct index *i, uint64_t salt, const int32_t *ids, int32_t n, int32_t *blocks)
{
    const struct prefix_seq s = as_seq(salt, ids, blocks);
    struct prefix_hit hit;
    prefix_match(i->x, &s, n / BT, 0, &hit);
    return hit.n_blocks;
}

/* Enters block k behind those that are entered. */
static bool enter(struct index *i, const struct prefix_seq *s, int32_t k, bool adopt)
{
    int32_t node = PREFIX_NONE;
    for (int32_t at = 0; at <= k; at++) {
        node = prefix_enter(i->x, s, at, node, adopt);
        if (node == PREFIX_NONE)
            return false;
    }
    return true;
}

static void index_close(struct index *i)
{
    prefix_check(i->x);
    prefix_destroy(i->x);
    kvpool_destroy(i->pool);
}

/* A sequence of n blocks: what the index lacks is taken and entered. */
static int32_t hold(struct index *i, uint64_t salt, const int32_t *ids, int32_t n, int32_t *blocks)
{
    const struct prefix_seq s = as_seq(salt, ids, blocks);
    int32_t hit = match(i, salt, ids, n * BT, blocks);
    prefix_evict(i->x, n - hit);
    cr_assert(kvpool_take(i->pool, n - hit, blocks + hit));
    for (int32_t k = hit; k < n; k++) {
        kvpool_move(i->pool, blocks[k], BLOCK_RUNNING);
        cr_assert(enter(i, &s, k, false));
    }
    prefix_check(i->x);
    return hit;
}

static void release(struct index *i, const int32_t *blocks, int32_t n)
{
    for (int32_t k = n - 1; k >= 0; k--)
        if (kvpool_unref(i->pool, blocks[k], true) == 0)
            prefix_release(i->x, blocks[k]);
    prefix_check(i->x);
}

static void count_up(int32_t *ids, int32_t n, int32_t from)
{
    for (int32_t k = 0; k < n; k++)
        ids[k] = from + k;
}

Test(prefix, finds_the_longest_chain)
{
    struct index i = index_open(16);
    int32_t ids[24], other[24], blocks[6], again[6];
    count_up(ids, 24, 0);
    cr_assert_eq(hold(&i, 1, ids, 6, blocks), 0);
    release(&i, blocks, 6);
    memcpy(other, ids, sizeof ids);
    other[13] = 99;
    for (int32_t n = 0; n <= 24; n++) {
        int32_t hit = match(&i, 1, ids, n, again);
        cr_assert_eq(hit, n / BT);
        cr_assert_eq(memcmp(blocks, again, (size_t)hit * sizeof *again), 0);
        release(&i, again, hit);
        hit = match(&i, 1, other, n, again);
        cr_assert_eq(hit, n / BT < 3 ? n / BT : 3);
        release(&i, again, hit);
    }
    cr_assert_eq(match(&i, 1, ids, 2 * BT, again), 2);
    release(&i, again, 2);
    cr_assert_eq(match(&i, 2, ids, 24, again), 0, "another salt");
    cr_assert_eq(match(&i, 1, ids + 4, 20, again), 0, "a chain starts at the start");
    index_close(&i);
}

/* Two runs of tokens that the hash does not tell apart: one must not be served the other's KV. */
Test(prefix, runs_of_equal_hash_are_told_apart)
{
    static const int32_t x[BT] = {1, 2, 568055753, 1464031565},
                         y[BT] = {1, 2, -1563898453, -1859828922};
    struct index i = index_open(4);
    int32_t a, b;
    cr_assert_eq(hash_bytes(rng_mix(1), x, sizeof x), hash_bytes(rng_mix(1), y, sizeof y));
    cr_assert_eq(hold(&i, 1, x, 1, &a), 0);
    cr_assert_eq(hold(&i, 1, y, 1, &b), 0);
    cr_assert_neq(a, b);
    int32_t again;
    cr_assert_eq(match(&i, 1, x, BT, &again), 1);
    cr_assert_eq(again, a);
    cr_assert_eq(match(&i, 1, y, BT, &again), 1);
    cr_assert_eq(again, b);
    kvpool_unref(i.pool, a, true);
    kvpool_unref(i.pool, b, true);
    release(&i, &a, 1);
    release(&i, &b, 1);
    index_close(&i);
}

Test(prefix, an_equal_block_is_not_entered_twice)
{
    struct index i = index_open(16);
    int32_t ids[8], a[2], b[2];
    count_up(ids, 8, 0);
    hold(&i, 1, ids, 2, a);
    cr_assert(kvpool_take(i.pool, 2, b));
    for (int k = 0; k < 2; k++)
        kvpool_move(i.pool, b[k], BLOCK_RUNNING);
    const struct prefix_seq own = as_seq(1, ids, b);
    cr_assert_not(enter(&i, &own, 0, false));
    cr_assert_not(enter(&i, &own, 1, false), "its parent is not entered");
    cr_assert(enter(&i, &own, 0, true));
    cr_assert_eq(b[0], a[0]);
    cr_assert_eq(kvpool_refs(i.pool, a[0]), 2);
    cr_assert(enter(&i, &own, 0, true), "itself");
    kvpool_unref(i.pool, b[0], true);
    kvpool_unref(i.pool, b[1], false);
    release(&i, a, 2);
    index_close(&i);
}

Test(prefix, evicts_the_oldest_leaf_first)
{
    struct index i = index_open(8);
    int32_t x[16], y[16], a[4], b[4], c[4];
    count_up(x, 16, 0);
    count_up(y, 16, 100);
    hold(&i, 1, x, 4, a);
    hold(&i, 1, y, 4, b);
    release(&i, a, 4);
    release(&i, b, 4);
    cr_assert_eq(match(&i, 1, x, 8, c), 2); /* the first half of x is in use again */
    release(&i, c, 2);
    cr_assert_eq(prefix_evict(i.x, 3), 3); /* x's second half, then y's end */
    prefix_check(i.x);
    cr_assert_eq(match(&i, 1, x, 16, c), 2);
    release(&i, c, 2);
    cr_assert_eq(match(&i, 1, y, 16, c), 3);
    release(&i, c, 3);
    prefix_clear(i.x);
    cr_assert_eq(counts(i.pool).free, 8);
    index_close(&i);
}

Test(prefix, forgets_only_what_nobody_needs)
{
    struct index i = index_open(8);
    int32_t x[8], a[2], b[2];
    count_up(x, 8, 0);
    hold(&i, 1, x, 2, a);
    cr_assert_not(prefix_forget(i.x, a[0]), "it has a child");
    cr_assert_eq(match(&i, 1, x, 8, b), 2);
    cr_assert_not(prefix_forget(i.x, a[1]), "it is shared");
    release(&i, b, 2);
    cr_assert(prefix_forget(i.x, a[1]));
    kvpool_unref(i.pool, a[1], false);
    cr_assert(prefix_forget(i.x, a[0]));
    kvpool_unref(i.pool, a[0], false);
    cr_assert_eq(counts(i.pool).free, 8);
    index_close(&i);
}

Test(prefix, random_chains_agree_with_a_list)
{
    enum { CHAINS = 24, DEEP = 5 };
    struct index i = index_open(64);
    struct rng rng = rng_seed(4);
    int32_t ids[CHAINS][DEEP * BT], blocks[CHAINS][DEEP], held[CHAINS] = {0};
    for (int c = 0; c < CHAINS; c++)
        for (int t = 0; t < DEEP * BT; t++)
            ids[c][t] =
                (int32_t)rng_below(&rng, 2) * (t / BT == 0) + (t / BT) * 10 + c % (t / BT + 1);
    for (int op = 0; op < 20000; op++) {
        int c = (int)rng_below(&rng, CHAINS);
        if (held[c] > 0) {
            release(&i, blocks[c], held[c]);
            held[c] = 0;
        } else if (kvpool_available(i.pool) > DEEP + 2) {
            int32_t n = 1 + (int32_t)rng_below(&rng, DEEP);
            hold(&i, c % 2, ids[c], n, blocks[c]);
            held[c] = n;
            for (int o = 0; o < CHAINS; o++) /* equal beginnings are the same blocks */
                for (int k = 0; o != c && o % 2 == c % 2 && k < n && k < held[o]; k++)
                    if (memcmp(ids[o], ids[c], (size_t)(k + 1) * BT * sizeof(int32_t)) == 0)
                        cr_assert_eq(blocks[o][k], blocks[c][k]);
        }
        kvpool_check(i.pool);
    }
    for (int c = 0; c < CHAINS; c++)
        release(&i, blocks[c], held[c]);
    index_close(&i);
}
