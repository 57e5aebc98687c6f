/* The BPE "model" of a tokenizer.json: vocabulary, merges, options. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/bpe.h"
#include "tokenizer/bytelevel.h"
#include "tokenizer/parse.h"
#include "tokenizer/unicode.h"

static void bpe_destroy(struct model *m)
{
    struct bpe *b = (struct bpe *)(void *)m;
    free(b->pairs);
    free(b->char_id);
    free(b->before_marker);
    word_cache_destroy(b->cache);
    trie_fini(&b->frozen);
    free(b);
}

static int cp_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

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
    uint64_t key = bpe_pair_key(left, right);
    b->pairs[bpe_pair_slot(b, key)] = (struct pair){key, (uint32_t)rank, merged};
    return ST_OK;
}

bool bpe_note_markers(struct bpe *b, size_t *cap, const char *s, size_t len)
{
    const char *hit = s;
    while (len > BPE_MARKER_LEN &&
           (hit = text_find(hit + 1, (size_t)(s + len - hit - 1), BPE_MARKER, BPE_MARKER_LEN))) {
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

void bpe_sort_markers(struct bpe *b)
{
    if (b->n_before_marker)
        qsort(b->before_marker, b->n_before_marker, sizeof(*b->before_marker), cp_compare);
}

bool bpe_pairs_init(struct bpe *b, size_t n)
{
    b->n_pairs = 16;
    while (b->n_pairs < 2 * n)
        b->n_pairs *= 2;
    b->pairs = malloc(b->n_pairs * sizeof(*b->pairs));
    for (size_t i = 0; b->pairs && i < b->n_pairs; i++)
        b->pairs[i] = (struct pair){BPE_NO_PAIR, BPE_NO_RANK, -1};
    return b->pairs;
}

static enum status parse_merges(struct bpe *b, const json *v, struct error *err)
{
    const json *merges = json_get(v, "merges");
    if (json_kind_of(merges) != JSON_ARR)
        return parse_mismatch("merges", "an array", merges, err);
    size_t n = json_count(merges), cap = 0;
    if (n > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, "merges: %zu entries, at most %u", n, VOCAB_ENTRIES_MAX);
    if (!bpe_pairs_init(b, n))
        return err_set(err, ST_NO_MEMORY, "merges: no memory");
    struct buf whole = {0};
    enum status st = ST_OK;
    for (size_t i = 0; i < n && !st; i++) {
        struct merge_text t = {0};
        st = merge_read(json_at(merges, i), i, &t, err);
        if (!st)
            st = merge_add(b, &t, i, &whole, err);
        if (!st && !bpe_note_markers(b, &cap, whole.data, whole.len))
            st = err_set(err, ST_NO_MEMORY, "merges: no memory");
    }
    bpe_sort_markers(b);
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
    if (affix.len > BPE_AFFIX_MAX)
        return err_set(err, ST_INVALID, "%s: %zu bytes, at most %d", key, affix.len, BPE_AFFIX_MAX);
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
    const json *vocab = json_get(source->v, "vocab");
    bool ranked = json_kind_of(vocab) == JSON_ARR && !json_get(source->v, "merges");
    if (!st)
        st = ranked ? bpe_rank_pieces(b, vocab, err) : parse_merges(b, source->v, err);
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
