/* Byte-pair encoding (Sennrich et al., ACL 2016), with the merge order of Hugging Face tokenizers:
 * the pair of lowest rank first, the leftmost of equals. Short words merge by scanning an array,
 * long ones through a heap over a linked list, so a word of n symbols costs O(n log n) whatever it
 * is made of. Words that repeat come from a cache.
 *
 * Where no pre-tokenizer cuts the text, it is cut here before a U+2581 that no merge can reach
 * across: the result is the same, and words repeat again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/bpe.h"
#include "tokenizer/bytelevel.h"
#include "tokenizer/unicode.h"

#define SMALL_SYMBOLS 64

static const struct bpe *bpe_of(const struct model *m)
{
    return (const struct bpe *)(const void *)m;
}

static uint32_t pair_find(const struct bpe *b, int32_t left, int32_t right, int32_t *merged)
{
    const struct pair *p = &b->pairs[bpe_pair_slot(b, bpe_pair_key(left, right))];
    *merged = p->merged;
    return p->rank;
}

/* --- words to symbols */

static int32_t char_lookup(const struct bpe *b, const char *s, size_t len, uint32_t cp)
{
    return cp < 0x10000 ? b->char_id[cp] : vocab_find(b->model.vocab, s, len);
}

/* A character with its prefix or suffix. */
static int32_t affixed_lookup(const struct bpe *b, const char *s, size_t len, bool first, bool last)
{
    char text[2 * BPE_AFFIX_MAX + 8];
    size_t n = 0;
    if (!first) {
        memcpy(text, b->prefix, b->prefix_len);
        n = b->prefix_len;
    }
    memcpy(text + n, s, len);
    n += len;
    if (last) {
        memcpy(text + n, b->suffix, b->suffix_len);
        n += b->suffix_len;
    }
    return vocab_find(b->model.vocab, text, n);
}

struct symbols {
    int32_t *v;
    size_t n;
    bool unk; /* an unknown token is due before the next known one */
};

/* A character that the vocabulary lacks. In byte mode its text is that of the byte's character. */
static void add_unknown(const struct bpe *b, struct symbols *out, const char *s, size_t len)
{
    bool all = b->byte_fallback;
    for (size_t i = 0; i < len && all; i++)
        all = b->fallback[(unsigned char)s[i]] >= 0;
    if (all) {
        for (size_t i = 0; i < len; i++)
            out->v[out->n++] = b->fallback[(unsigned char)s[i]];
        return;
    }
    if (b->unk < 0)
        return;
    if (out->unk && !b->fuse_unk)
        out->v[out->n++] = b->unk;
    out->unk = true;
}

static void add_known(const struct bpe *b, struct symbols *out, int32_t id)
{
    if (out->unk)
        out->v[out->n++] = b->unk;
    out->unk = false;
    out->v[out->n++] = id;
}

/* v holds 2 * len. Each character gives one symbol, or none, or one for each of its bytes. */
static size_t symbols_make(const struct bpe *b, const char *s, size_t len, int32_t *v)
{
    struct symbols out = {.v = v};
    if (b->bytes) {
        for (size_t i = 0; i < len; i++) {
            int32_t id = b->byte_id[(unsigned char)s[i]];
            if (id >= 0) {
                add_known(b, &out, id);
                continue;
            }
            char c[8];
            struct buf one = {0};
            bytelevel_map(s + i, 1, &one);
            size_t n = one.len < sizeof(c) ? one.len : 0;
            memcpy(c, one.data ? one.data : "", n);
            buf_fini(&one);
            add_unknown(b, &out, c, n);
        }
    } else {
        bool affixed = b->prefix_len || b->suffix_len;
        for (size_t i = 0; i < len;) {
            uint32_t cp;
            size_t n = text_next(s + i, &cp);
            int32_t id = affixed ? affixed_lookup(b, s + i, n, i == 0, i + n == len)
                                 : char_lookup(b, s + i, n, cp);
            if (id >= 0)
                add_known(b, &out, id);
            else
                add_unknown(b, &out, s + i, n);
            i += n;
        }
    }
    if (out.unk)
        out.v[out.n++] = b->unk;
    return out.n;
}

/* --- merging */

static size_t merge_small(const struct bpe *b, int32_t *v, size_t n)
{
    uint32_t rank[SMALL_SYMBOLS];
    int32_t merged[SMALL_SYMBOLS];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = pair_find(b, v[i], v[i + 1], &merged[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == BPE_NO_RANK)
            break;
        v[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            v[i] = v[i + 1];
            rank[i - 1] = rank[i];
            merged[i - 1] = merged[i];
        }
        if (best + 1 < n)
            rank[best] = pair_find(b, v[best], v[best + 1], &merged[best]);
        if (best > 0)
            rank[best - 1] = pair_find(b, v[best - 1], v[best], &merged[best - 1]);
    }
    return n;
}

struct heap {
    uint64_t *v; /* rank << 32 | position: the least is the next merge */
    size_t n;
};

static void heap_down(struct heap *h, size_t i)
{
    uint64_t x = h->v[i];
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->v[child + 1] < h->v[child])
            child++;
        if (x <= h->v[child])
            break;
        h->v[i] = h->v[child];
    }
    h->v[i] = x;
}

static void heap_push(struct heap *h, uint64_t x)
{
    size_t i = h->n++;
    while (i > 0 && x < h->v[(i - 1) / 2]) {
        h->v[i] = h->v[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->v[i] = x;
}

static uint64_t heap_pop(struct heap *h)
{
    uint64_t x = h->v[0];
    h->v[0] = h->v[--h->n];
    if (h->n)
        heap_down(h, 0);
    return x;
}

#define NO_NODE UINT32_MAX

struct node {
    int32_t id, merged;
    uint32_t rank; /* with the next one; BPE_NO_RANK: none, or this node is gone */
    uint32_t prev, next;
};

static void node_pair(const struct bpe *b, struct node *nodes, uint32_t i, struct heap *heap)
{
    struct node *x = &nodes[i];
    x->rank = x->next == NO_NODE ? BPE_NO_RANK : pair_find(b, x->id, nodes[x->next].id, &x->merged);
    if (x->rank != BPE_NO_RANK)
        heap_push(heap, (uint64_t)x->rank << 32 | i);
}

static enum status merge_large(const struct bpe *b, struct model_run *run, int32_t *v,
                               size_t *count)
{
    size_t n = *count;
    /* a merge takes one entry off and puts at most two on: never more than 2n */
    struct heap heap = {
        .v = model_run_scratch(run, n * (sizeof(struct node) + 2 * sizeof(uint64_t)))};
    if (!heap.v || n >= NO_NODE)
        return ST_NO_MEMORY;
    struct node *nodes = (struct node *)(void *)(heap.v + 2 * n);
    for (size_t i = 0; i < n; i++) {
        nodes[i] = (struct node){.id = v[i],
                                 .rank = BPE_NO_RANK,
                                 .prev = i ? (uint32_t)i - 1 : NO_NODE,
                                 .next = i + 1 < n ? (uint32_t)i + 1 : NO_NODE};
    }
    for (size_t i = 0; i < n; i++)
        node_pair(b, nodes, (uint32_t)i, &heap);
    while (heap.n) {
        uint64_t top = heap_pop(&heap);
        struct node *x = &nodes[(uint32_t)top];
        if (x->rank != top >> 32)
            continue; /* the pair has changed since */
        struct node *gone = &nodes[x->next];
        x->id = x->merged;
        x->next = gone->next;
        gone->rank = BPE_NO_RANK;
        if (x->next != NO_NODE)
            nodes[x->next].prev = (uint32_t)top;
        node_pair(b, nodes, (uint32_t)top, &heap);
        if (x->prev != NO_NODE)
            node_pair(b, nodes, x->prev, &heap);
    }
    size_t out = 0;
    for (uint32_t i = n ? 0 : NO_NODE; i != NO_NODE; i = nodes[i].next)
        v[out++] = nodes[i].id;
    *count = out;
    return ST_OK;
}

/* --- encoding */

static int32_t whole_word(const struct bpe *b, const char *s, size_t len)
{
    if (!b->bytes)
        return vocab_find(b->model.vocab, s, len);
    if (len > b->token_max)
        return -1;
    struct buf text = {0};
    bytelevel_map(s, len, &text);
    int32_t id = text.failed ? -1 : vocab_find(b->model.vocab, text.data, text.len);
    buf_fini(&text);
    return id;
}

static enum status encode_word(const struct bpe *b, struct model_run *run, const char *s,
                               size_t len, struct ids *out)
{
    bool cached = b->cache && len <= WORD_CACHE_KEY_MAX;
    struct word_key key;
    if (cached) {
        int32_t ids[WORD_CACHE_IDS_MAX];
        key = word_key_make(s, len);
        int n = word_cache_get(b->cache, &key, ids);
        if (n >= 0)
            return ids_append(out, ids, (size_t)n) ? ST_OK : ST_NO_MEMORY;
    }
    int32_t few[2 * SMALL_SYMBOLS], *v = few;
    size_t n = 1;
    if (b->ignore_merges && (few[0] = whole_word(b, s, len)) >= 0)
        goto store;
    if (len > SMALL_SYMBOLS) {
        run->ids.n = 0;
        if (!ids_reserve(&run->ids, 2 * len))
            return ST_NO_MEMORY;
        v = run->ids.v;
    }
    n = symbols_make(b, s, len, v);
    if (n <= SMALL_SYMBOLS) {
        n = merge_small(b, v, n);
    } else {
        enum status st = merge_large(b, run, v, &n);
        if (st)
            return st;
    }
store:
    if (cached && n <= WORD_CACHE_IDS_MAX)
        word_cache_put(b->cache, &key, v, n);
    return ids_append(out, v, n) ? ST_OK : ST_NO_MEMORY;
}

static int cp_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Whether no token spans the boundary before the marker at s[at]. */
static bool may_cut(const struct bpe *b, const char *s, size_t at)
{
    uint32_t cp;
    text_next(s + text_prev(s, at), &cp);
    return !b->n_before_marker ||
           !bsearch(&cp, b->before_marker, b->n_before_marker, sizeof(cp), cp_compare);
}

static enum status encode_text(const struct model *m, struct model_run *run, const char *s,
                               size_t len, struct ids *out)
{
    const struct bpe *b = bpe_of(m);
    if (!b->cut)
        return encode_word(b, run, s, len, out);
    size_t begin = 0, from = 1;
    enum status st = ST_OK;
    while (from < len && !st) {
        const char *hit = text_find(s + from, len - from, BPE_MARKER, BPE_MARKER_LEN);
        if (!hit)
            break;
        size_t at = (size_t)(hit - s);
        from = at + BPE_MARKER_LEN;
        if (!may_cut(b, s, at))
            continue;
        st = encode_word(b, run, s + begin, at - begin, out);
        begin = at;
    }
    return st ? st : encode_word(b, run, s + begin, len - begin, out);
}

enum status bpe_encode(const struct model *m, struct model_run *run, const char *s, size_t len,
                       struct ids *out)
{
    struct model_parts parts = {m, run, &bpe_of(m)->frozen, encode_text};
    return model_encode_parts(&parts, s, len, out);
}
