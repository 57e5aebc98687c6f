#include "tokenizer/grammar/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/automaton.h"

#define TEXT_MAX (512u << 20)

static bool is_end(const struct grammar_vocab_args *a, int32_t id)
{
    for (int32_t i = 0; i < a->n_ends; i++)
        if (a->ends[i] == id)
            return true;
    return false;
}

/* The bytes of every token; a special one is its name between two bytes that no text has. */
static bool read_bytes(const struct grammar_vocab_args *a, struct grammar_vocab *v)
{
    struct buf all = {.max = TEXT_MAX};
    int32_t known = (int32_t)tokenizer_vocab_size(a->tokenizer);
    v->offsets = calloc((size_t)a->size + 1, sizeof *v->offsets);
    for (int32_t id = 0; v->offsets && id < a->size; id++) {
        v->offsets[id] = (uint32_t)all.len;
        if (id >= known || is_end(a, id))
            continue;
        const char *name = tokenizer_token(a->tokenizer, id);
        if (tokenizer_is_special(a->tokenizer, id)) {
            if (!name || !name[0])
                continue;
            buf_putc(&all, (char)GRAMMAR_SPECIAL_BYTE);
            buf_puts(&all, name);
            buf_putc(&all, (char)GRAMMAR_SPECIAL_BYTE);
        } else if (!tokenizer_token_bytes(a->tokenizer, id, &all)) {
            all.len = v->offsets[id];
        } else if (memchr(all.data + v->offsets[id], GRAMMAR_SPECIAL_BYTE,
                          all.len - v->offsets[id])) {
            all.len = v->offsets[id]; /* no text has this byte, only names of special tokens */
        }
        if (all.len - v->offsets[id] > VOCAB_TOKEN_BYTES_MAX)
            all.len = v->offsets[id];
    }
    if (!v->offsets || all.failed) {
        buf_fini(&all);
        return false;
    }
    v->offsets[a->size] = (uint32_t)all.len;
    v->bytes = all.data;
    return true;
}

struct entry {
    const char *bytes;
    uint32_t len;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    uint32_t n = x->len < y->len ? x->len : y->len;
    int d = n ? memcmp(x->bytes, y->bytes, n) : 0;
    if (d == 0)
        d = x->len < y->len ? -1 : x->len > y->len;
    return d ? d : x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t shared_prefix(const struct entry *a, const struct entry *b)
{
    uint32_t n = 0;
    while (n < a->len && n < b->len && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Entries in order: each shares its first bytes with the one before and adds a node for every byte
 * more. */
static bool lay_out(struct grammar_vocab *v, const struct entry *entries, size_t n)
{
    size_t nodes = 1, at = 1;
    uint32_t open[VOCAB_TOKEN_BYTES_MAX + 1] = {0}; /* the node of each depth that is not closed */
    for (size_t i = 0; i < n; i++) {
        uint32_t shared = i ? shared_prefix(&entries[i - 1], &entries[i]) : 0;
        nodes += entries[i].len - shared + (shared == entries[i].len);
    }
    v->nodes = calloc(nodes, sizeof *v->nodes);
    if (!v->nodes)
        return false;
    v->nodes[0].token = -1;
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < entries[i].len; k++)
            v->spelled[(uint8_t)entries[i].bytes[k]] = true;
    uint32_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        const struct entry *e = &entries[i];
        uint32_t shared = i ? shared_prefix(&entries[i - 1], e) : 0;
        if (shared == e->len) /* the same bytes again: a sibling without children */
            shared--;
        for (; depth > shared; depth--)
            v->nodes[open[depth]].skip = (uint32_t)at;
        while (depth < e->len) {
            depth++;
            v->nodes[at] = (struct vocab_node){
                .token = -1, .depth = (uint16_t)depth, .byte = (uint8_t)e->bytes[depth - 1]};
            open[depth] = (uint32_t)at++;
        }
        v->nodes[at - 1].token = e->id;
        if (e->len > v->depth_max)
            v->depth_max = e->len;
    }
    for (; depth > 0; depth--)
        v->nodes[open[depth]].skip = (uint32_t)at;
    v->nodes[0].skip = (uint32_t)at;
    v->n_nodes = (uint32_t)at;
    return true;
}

static void find_deepest(struct grammar_vocab *v)
{
    uint16_t below[VOCAB_TOKEN_BYTES_MAX + 2] = {0}; /* by depth: of the siblings behind */
    for (uint32_t i = v->n_nodes; i-- > 1;) {
        struct vocab_node *n = &v->nodes[i];
        n->deepest = below[n->depth + 1];
        below[n->depth + 1] = 0;
        if (n->token >= 0 && n->depth > n->deepest)
            n->deepest = n->depth;
        if (n->deepest > below[n->depth])
            below[n->depth] = n->deepest;
    }
}

enum status grammar_vocab_create(const struct grammar_vocab_args *a, struct grammar_vocab **out,
                                 struct error *err)
{
    struct grammar_vocab *v = calloc(1, sizeof *v);
    struct entry *entries = calloc((size_t)a->size + 1, sizeof *entries);
    bool ok = v && entries && read_bytes(a, v);
    size_t n = 0;
    if (ok) {
        v->size = a->size;
        for (int32_t id = 0; id < a->size; id++) {
            uint32_t len = v->offsets[id + 1] - v->offsets[id];
            if (len > 0)
                entries[n++] = (struct entry){v->bytes + v->offsets[id], len, id};
        }
        qsort(entries, n, sizeof *entries, by_bytes);
        ok = lay_out(v, entries, n);
        if (ok)
            find_deepest(v);
    }
    free(entries);
    if (!ok) {
        grammar_vocab_free(v);
        return err_set(err, ST_NO_MEMORY, "no memory for the vocabulary's tokens");
    }
    *out = v;
    return ST_OK;
}

void grammar_vocab_free(struct grammar_vocab *v)
{
    if (!v)
        return;
    free(v->nodes);
    free(v->bytes);
    free(v->offsets);
    free(v);
}

int32_t grammar_vocab_size(const struct grammar_vocab *v)
{
    return v->size;
}
