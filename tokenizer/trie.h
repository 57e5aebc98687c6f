/* A byte trie: keys with a value each, walked a byte at a time. Nodes are numbers; edges live in
 * one hash table.
 *
 * Owner: whoever fills it; immutable afterwards, any thread may walk.
 *
 *     uint32_t node = TRIE_ROOT;
 *     for (i = at; i < len && (node = trie_step(t, node, s[i])) != TRIE_NONE; i++)
 *         if (t->values[node] >= 0) ...the key s[at..i] is there...
 */
#ifndef TOKENIZER_TRIE_H
#define TOKENIZER_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRIE_ROOT 0u
#define TRIE_NONE UINT32_MAX

struct trie_edge {
    uint64_t key; /* node << 8 | byte */
    uint32_t to;
};

struct trie {
    int32_t *values; /* per node; -1: no key ends here */
    size_t n, cap;   /* nodes */
    struct trie_edge *edges;
    size_t n_edges, n_slots;
    uint32_t root[256];
};

/* false: no memory. The later value of equal keys stays. */
bool trie_add(struct trie *t, const char *key, size_t len, int32_t value);
void trie_fini(struct trie *t);

static inline uint32_t trie_step(const struct trie *t, uint32_t node, unsigned char byte)
{
    if (node == TRIE_ROOT)
        return t->n ? t->root[byte] : TRIE_NONE;
    uint64_t key = (uint64_t)node << 8 | byte, h = key * 0x9e3779b97f4a7c15u;
    size_t mask = t->n_slots - 1;
    for (size_t i = (h ^ h >> 32) & mask; t->edges[i].to != TRIE_NONE; i = (i + 1) & mask)
        if (t->edges[i].key == key)
            return t->edges[i].to;
    return TRIE_NONE;
}

#endif
