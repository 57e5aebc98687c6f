#include "tokenizer/word_cache.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SETS 16384 /* of two entries: 2 MiB */
#define ID_BITS 24

struct entry {
    _Alignas(64) _Atomic uint64_t sequence; /* odd while it is being written */
    _Atomic uint64_t key[3];                /* 23 bytes, and the length in the top byte */
    _Atomic uint64_t ids[4]; /* two of 24 bits each; their number on top of the last */
};

struct word_cache {
    struct entry sets[SETS][2];
};

struct word_cache *word_cache_create(void)
{
    struct word_cache *c = aligned_alloc(64, sizeof(*c));
    if (c)
        memset((void *)c, 0, sizeof(*c));
    return c;
}

void word_cache_destroy(struct word_cache *c)
{
    free(c);
}

struct word_key word_key_make(const char *s, size_t len)
{
    struct word_key k = {{0, 0, 0}, 0};
    memcpy(k.w, s, len);
    k.w[2] |= (uint64_t)len << 56;
    uint64_t h = k.w[0] * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32 ^ k.w[1]) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 29 ^ k.w[2]) * 0xc4ceb9fe1a85ec53u;
    k.hash = h ^ h >> 32;
    return k;
}

static uint64_t load(const _Atomic uint64_t *p)
{
    /* acquire, so that the second look at the sequence cannot move before it */
    return atomic_load_explicit(p, memory_order_acquire);
}

static void store(_Atomic uint64_t *p, uint64_t v)
{
    /* release, so that a reader who sees it also sees the odd sequence before it */
    atomic_store_explicit(p, v, memory_order_release);
}

static int entry_get(const struct entry *e, const struct word_key *key, int32_t *out)
{
    uint64_t before = load(&e->sequence);
    if (before & 1 || load(&e->key[0]) != key->w[0] || load(&e->key[1]) != key->w[1] ||
        load(&e->key[2]) != key->w[2])
        return -1;
    uint64_t v[4];
    for (int i = 0; i < 4; i++)
        v[i] = load(&e->ids[i]);
    if (atomic_load_explicit(&e->sequence, memory_order_relaxed) != before)
        return -1;
    int n = (int)(v[3] >> 2 * ID_BITS);
    for (int i = 0; i < n; i++)
        out[i] = (int32_t)(v[i / 2] >> (i % 2 * ID_BITS) & ((1u << ID_BITS) - 1));
    return n;
}

int word_cache_get(const struct word_cache *c, const struct word_key *key, int32_t *out)
{
    const struct entry *set = c->sets[key->hash % SETS];
    int n = entry_get(&set[0], key, out);
    return n >= 0 ? n : entry_get(&set[1], key, out);
}

/* The one that has been written to less often: they take turns. */
static struct entry *older(struct entry *set)
{
    uint64_t a = atomic_load_explicit(&set[0].sequence, memory_order_relaxed);
    uint64_t b = atomic_load_explicit(&set[1].sequence, memory_order_relaxed);
    return a <= b ? &set[0] : &set[1];
}

void word_cache_put(struct word_cache *c, const struct word_key *key, const int32_t *ids, size_t n)
{
    struct entry *e = older(c->sets[key->hash % SETS]);
    uint64_t before = atomic_load_explicit(&e->sequence, memory_order_relaxed);
    uint64_t v[4] = {0, 0, 0, (uint64_t)n << 2 * ID_BITS};
    for (size_t i = 0; i < n; i++)
        v[i / 2] |= (uint64_t)(uint32_t)ids[i] << (i % 2 * ID_BITS);
    if (before & 1 ||
        !atomic_compare_exchange_strong_explicit(&e->sequence, &before, before + 1,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return;
    for (int i = 0; i < 3; i++)
        store(&e->key[i], key->w[i]);
    for (int i = 0; i < 4; i++)
        store(&e->ids[i], v[i]);
    store(&e->sequence, before + 2);
}
