/* Byte-pair encoding (Sennrich et al., ACL 2016), with the merge order of Hugging Face tokenizers:
 * the pair of lowest rank first, the leftmost of equals. Short words merge by scanning an array,
 * long ones through a heap over a linked list, so a word of n symbols costs O(n log n) whatever it
 * is made of. Words that repeat come from a cache.
 *
 * Where no pre-tokenizer cuts the text, it is cut here before a U+2581 that no merge can reach
 * across: the result is the same, and words repeat again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/bytelevel.h"
#include "tokenizer/model.h"
#include "tokenizer/parse.h"
#include "tokenizer/unicode.h"
#include "tokenizer/word_cache.h"

#define NO_PAIR UINT64_MAX
#define NO_RANK UINT32_MAX
#define SMALL_SYMBOLS 64
#define AFFIX_MAX 64 /* bytes of continuing_subword_prefix, end_of_word_suffix */
#define MARKER "\xe2\x96\x81"
#define MARKER_LEN 3

struct pair {
    uint64_t key; /* left id << 32 | right id */
    uint32_t rank;
    int32_t merged;
};

struct bpe {
    struct model model;
    struct pair *pairs; /* open addressing */
    size_t n_pairs;
    bool bytes, ignore_merges, byte_fallback, fuse_unk;
    int32_t unk;
    int32_t fallback[256]; /* id of "<0xHH>" */
    int32_t byte_id[256];  /* bytes: id of the byte's character */
    int32_t *char_id;      /* else: id of each character of the basic plane */
    char prefix[AFFIX_MAX + 1], suffix[AFFIX_MAX + 1];
    size_t prefix_len, suffix_len;
    size_t token_max; /* bytes of the longest token */
    bool cut;
    uint32_t *before_marker; /* characters that some merged token has before a marker; sorted */
    size_t n_before_marker;
    struct word_cache *cache;
};

static const struct bpe *bpe_of(const struct model *m)
{
    return (const struct bpe *)(const void *)m;
}

static size_t pair_slot(const struct bpe *b, uint64_t key)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    size_t mask = b->n_pairs - 1, i = (h ^ h >> 32) & mask;
    while (b->pairs[i].key != key && b->pairs[i].key != NO_PAIR)
        i = (i + 1) & mask;
    return i;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint32_t pair_find(const struct bpe *b, int32_t left, int32_t right, int32_t *merged)
{
    const struct pair *p = &b->pairs[pair_slot(b, pair_key(left, right))];
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
    char text[2 * AFFIX_MAX + 8];
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
        if (rank[best] == NO_RANK)
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
    uint32_t rank; /* with the next one; NO_RANK: none, or this node is gone */
    uint32_t prev, next;
};

static void node_pair(const struct bpe *b, struct node *nodes, uint32_t i, struct heap *heap)
{
    struct node *x = &nodes[i];
    x->rank = x->next == NO_NODE ? NO_RANK : pair_find(b, x->id, nodes[x->next].id, &x->merged);
    if (x->rank != NO_RANK)
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
                                 .rank = NO_RANK,
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
        gone->rank = NO_RANK;
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

static enum status bpe_encode(const struct model *m, struct model_run *run, const char *s,
                              size_t len, struct ids *out)
{
    const struct bpe *b = bpe_of(m);
    if (!b->cut)
        return encode_word(b, run, s, len, out);
    size_t begin = 0, from = 1;
    enum status st = ST_OK;
    while (from < len && !st) {
        const char *hit = text_find(s + from, len - from, MARKER, MARKER_LEN);
        if (!hit)
            break;
        size_t at = (size_t)(hit - s);
        from = at + MARKER_LEN;
        if (!may_cut(b, s, at))
            continue;
        st = encode_word(b, run, s + begin, at - begin, out);
        begin = at;
    }
    return st ? st : encode_word(b, run, s + begin, len - begin, out);
}

static void bpe_destroy(struct model *m)
{
    struct bpe *b = (struct bpe *)(void *)m;
    free(b->pairs);
    free(b->char_id);
    free(b->before_marker);
    word_cache_destroy(b->cache);
    free(b);
}

/* --- loading */

struct merge_text {
    const char *left, *right;
    size_t left_len, right_len;
};

static enum status merge_read(const json *v, size_t i, struct merge_text *t, struct error *err)
{
    if (json_kind_of(v) == JSON_ARR && json_count(v) == 2 &&
        json_kind_of(json_at(v, 0)) == JSON_STR && json_kind_of(json_at(v, 1)) == JSON_STR) {
        t->left = json_as_str(json_at(v, 0), "");
        t->left_len = json_str_len(json_at(v, 0));
        t->right = json_as_str(json_at(v, 1), "");
        t->right_len = json_str_len(json_at(v, 1));
        return ST_OK;
    }
    if (json_kind_of(v) == JSON_STR) {
        const char *s = json_as_str(v, "");
        size_t len = json_str_len(v);
        const char *space = memchr(s, ' ', len);
        if (space && !memchr(space + 1, ' ', len - (size_t)(space + 1 - s))) {
            t->left = s;
            t->left_len = (size_t)(space - s);
            t->right = space + 1;
            t->right_len = len - t->left_len - 1;
            return ST_OK;
        }
    }
    return err_set(err, ST_INVALID, "merges[%zu]: expected \"LEFT RIGHT\" or a pair of strings", i);
}

static enum status merge_add(struct bpe *b, const struct merge_text *t, size_t rank,
                             struct buf *whole, struct error *err)
{
    const struct vocab *vocab = b->model.vocab;
    size_t skip = b->prefix_len < t->right_len ? b->prefix_len : t->right_len;
    buf_clear(whole);
    buf_append(whole, t->left, t->left_len);
    buf_append(whole, t->right + skip, t->right_len - skip);
    if (whole->failed)
        return err_set(err, ST_NO_MEMORY, "merges: no memory");
    int32_t left = vocab_find(vocab, t->left, t->left_len);
    int32_t right = vocab_find(vocab, t->right, t->right_len);
    int32_t merged = vocab_find(vocab, whole->data, whole->len);
    if (left < 0 || right < 0 || merged < 0)
        return err_set(err, ST_INVALID, "merges[%zu]: \"%.60s\" is not in the vocabulary", rank,
                       left < 0    ? t->left
                       : right < 0 ? t->right
                                   : whole->data);
    uint64_t key = pair_key(left, right);
    b->pairs[pair_slot(b, key)] = (struct pair){key, (uint32_t)rank, merged};
    return ST_OK;
}

/* Remembers which characters stand before a marker inside a merged token. */
static bool note_markers(struct bpe *b, size_t *cap, const char *s, size_t len)
{
    const char *hit = s;
    while (len > MARKER_LEN &&
           (hit = text_find(hit + 1, (size_t)(s + len - hit - 1), MARKER, MARKER_LEN))) {
        uint32_t cp;
        text_next(s + text_prev(s, (size_t)(hit - s)), &cp);
        bool seen = false;
        for (size_t i = 0; i < b->n_before_marker && i < 64; i++)
            seen = seen || b->before_marker[i] == cp;
        if (seen)
            continue;
        if (b->n_before_marker == *cap) {
            size_t n = *cap ? 2 * *cap : 64;
            uint32_t *v = realloc(b->before_marker, n * sizeof(*v));
            if (!v)
                return false;
            b->before_marker = v;
            *cap = n;
        }
        b->before_marker[b->n_before_marker++] = cp;
    }
    return true;
}

static enum status parse_merges(struct bpe *b, const json *v, struct error *err)
{
    const json *merges = json_get(v, "merges");
    if (json_kind_of(merges) != JSON_ARR)
        return parse_mismatch("merges", "an array", merges, err);
    size_t n = json_count(merges), cap = 0;
    if (n > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, "merges: %zu entries, at most %u", n, VOCAB_ENTRIES_MAX);
    b->n_pairs = 16;
    while (b->n_pairs < 2 * n)
        b->n_pairs *= 2;
    b->pairs = malloc(b->n_pairs * sizeof(*b->pairs));
    if (!b->pairs)
        return err_set(err, ST_NO_MEMORY, "merges: no memory");
    for (size_t i = 0; i < b->n_pairs; i++)
        b->pairs[i] = (struct pair){NO_PAIR, NO_RANK, -1};
    struct buf whole = {0};
    enum status st = ST_OK;
    for (size_t i = 0; i < n && !st; i++) {
        struct merge_text t = {0};
        st = merge_read(json_at(merges, i), i, &t, err);
        if (!st)
            st = merge_add(b, &t, i, &whole, err);
        if (!st && !note_markers(b, &cap, whole.data, whole.len))
            st = err_set(err, ST_NO_MEMORY, "merges: no memory");
    }
    if (b->n_before_marker)
        qsort(b->before_marker, b->n_before_marker, sizeof(*b->before_marker), cp_compare);
    buf_fini(&whole);
    return st;
}

static enum status parse_affix(const json *v, const char *key, char *out, size_t *out_len,
                               struct error *err)
{
    struct text_ref affix;
    enum status st = parse_str(v, key, "", &affix, err);
    if (st)
        return st;
    if (affix.len > AFFIX_MAX)
        return err_set(err, ST_INVALID, "%s: %zu bytes, at most %d", key, affix.len, AFFIX_MAX);
    memcpy(out, affix.s, affix.len);
    *out_len = affix.len;
    return ST_OK;
}

static enum status parse_options(struct bpe *b, const struct model_source *source,
                                 struct error *err)
{
    const json *v = source->v;
    enum status st = parse_bool(v, "ignore_merges", false, &b->ignore_merges, err);
    if (!st)
        st = parse_bool(v, "byte_fallback", false, &b->byte_fallback, err);
    if (!st)
        st = parse_bool(v, "fuse_unk", false, &b->fuse_unk, err);
    if (!st)
        st = parse_affix(v, "continuing_subword_prefix", b->prefix, &b->prefix_len, err);
    if (!st)
        st = parse_affix(v, "end_of_word_suffix", b->suffix, &b->suffix_len, err);
    return st ? st : model_parse_unk(source, "", &b->unk, err);
}

static enum status index_characters(struct bpe *b, struct error *err)
{
    const struct vocab *vocab = b->model.vocab;
    for (int i = 0; i < 256; i++) {
        char text[8];
        int n = snprintf(text, sizeof(text), "<0x%02X>", i);
        b->fallback[i] = vocab_find(vocab, text, (size_t)n);
        struct buf c = {0};
        char byte = (char)i;
        bytelevel_map(&byte, 1, &c);
        if (c.failed)
            return err_set(err, ST_NO_MEMORY, "model: no memory");
        b->byte_id[i] = vocab_find(vocab, c.data, c.len);
        buf_fini(&c);
    }
    for (size_t i = 0; i < vocab->n; i++)
        if (vocab->entries[i].len > b->token_max)
            b->token_max = vocab->entries[i].len;
    if (b->bytes)
        return ST_OK;
    b->char_id = malloc(0x10000 * sizeof(*b->char_id));
    if (!b->char_id)
        return err_set(err, ST_NO_MEMORY, "model: no memory");
    memset(b->char_id, 0xff, 0x10000 * sizeof(*b->char_id));
    for (size_t i = 0; i < vocab->n; i++) {
        const struct vocab_entry *e = &vocab->entries[i];
        uint32_t cp;
        const char *s = vocab->text + e->off;
        if (e->len && e->len <= 3 && text_char_len((unsigned char)s[0]) == e->len) {
            text_next(s, &cp);
            b->char_id[cp] = e->id;
        }
    }
    return ST_OK;
}

enum status model_bpe_parse(const struct model_source *source, struct model **out,
                            struct error *err)
{
    static const struct model_ops ops = {"BPE", bpe_encode, bpe_destroy};
    struct bpe *b = calloc(1, sizeof(*b));
    if (!b)
        return err_set(err, ST_NO_MEMORY, "model: no memory");
    b->model = (struct model){&ops, source->vocab};
    b->bytes = source->bytes;
    enum status st = model_parse_vocab(source, err);
    if (!st)
        st = parse_options(b, source, err);
    /* in byte mode there are characters without a prefix or suffix only */
    if (!st && b->bytes && (b->prefix_len || b->suffix_len))
        st = err_set(err, ST_UNSUPPORTED, "byte-level BPE with a subword prefix or suffix");
    if (!st)
        st = parse_merges(b, source->v, err);
    if (!st)
        st = index_characters(b, err);
    if (st) {
        bpe_destroy(&b->model);
        return st;
    }
    b->cut = !b->bytes && !b->ignore_merges && !b->prefix_len && !b->suffix_len &&
             b->char_id[0x2581] >= 0;
    b->cache = word_cache_create(); /* without memory for it: slower */
    *out = &b->model;
    return ST_OK;
}
