#include "tokenizer/trie.h"

#include <stdlib.h>
#include <string.h>

void trie_fini(struct trie *t)
{
    free(t->values);
    free(t->edges);
    *t = (struct trie){0};
}

static void edge_put(struct trie *t, uint64_t key, uint32_t to)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    size_t mask = t->n_slots - 1, i = (h ^ h >> 32) & mask;
    while (t->edges[i].to != TRIE_NONE)
        i = (i + 1) & mask;
    t->edges[i] = (struct trie_edge){key, to};
}

static bool grow_edges(struct trie *t)
{
    if (2 * t->n_edges < t->n_slots)
        return true;
    size_t old_n = t->n_slots, n = old_n ? 2 * old_n : 64;
    struct trie_edge *old = t->edges, *edges = malloc(n * sizeof(*edges));
    if (!edges)
        return false;
    memset(edges, 0xff, n * sizeof(*edges));
    t->edges = edges;
    t->n_slots = n;
    for (size_t i = 0; i < old_n; i++)
        if (old[i].to != TRIE_NONE)
            edge_put(t, old[i].key, old[i].to);
    free(old);
    return true;
}

/* A new node's number; TRIE_NONE: no memory. */
static uint32_t add_node(struct trie *t)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        int32_t *values = realloc(t->values, cap * sizeof(*values));
        if (!values)
            return TRIE_NONE;
        t->values = values;
        t->cap = cap;
    }
    t->values[t->n] = -1;
    return (uint32_t)t->n++;
}

bool trie_add(struct trie *t, const char *key, size_t len, int32_t value)
{
    if (!t->n) {
        memset(t->root, 0xff, sizeof(t->root));
        if (!grow_edges(t) || add_node(t) == TRIE_NONE)
            return false;
    }
    uint32_t node = TRIE_ROOT;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)key[i];
        uint32_t next = trie_step(t, node, byte);
        if (next == TRIE_NONE) {
            if (!grow_edges(t) || (next = add_node(t)) == TRIE_NONE)
                return false;
            if (node == TRIE_ROOT) {
                t->root[byte] = next;
            } else {
                edge_put(t, (uint64_t)node << 8 | byte, next);
                t->n_edges++;
            }
        }
        node = next;
    }
    t->values[node] = value;
    return true;
}
