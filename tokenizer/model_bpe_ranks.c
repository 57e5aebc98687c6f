/* Merges of a BPE whose files give no list of them, but a score or a rank to each piece. All ways
 * to split a piece in two other pieces get the piece's rank: between equals the leftmost goes
 * first, as in the two libraries whose files these are. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/bpe.h"
#include "tokenizer/parse.h"
#include "tokenizer/unicode.h"

struct scored {
    double score;
    int32_t id;
};

struct ranking {
    struct bpe *b;
    const json *vocab;
    uint32_t *rank; /* by id; BPE_NO_RANK: takes no part in merges */
    size_t n, cap_markers;
    struct error *err;
};

static int compare_scores(const void *a, const void *b)
{
    double x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return x > y ? -1 : x < y;
}

/* Control pieces, bytes and what is unused come of no text. */
static bool takes_part(enum piece_type type)
{
    return type == PIECE_NORMAL || type == PIECE_USER_DEFINED;
}

static enum status read_scores(struct ranking *r, struct scored *scores, size_t *count)
{
    enum status st = ST_OK;
    for (size_t i = 0; i < r->n && !st; i++) {
        const json *v = json_at(r->vocab, i);
        struct piece p;
        r->rank[i] = BPE_NO_RANK;
        if (json_kind_of(v) == JSON_NULL_)
            continue;
        st = model_parse_piece(v, i, &p, r->err);
        if (st || !p.len || !takes_part(p.type))
            continue;
        /* of equal texts the first is the one that is found */
        if (vocab_find(r->b->model.vocab, p.s, p.len) != (int32_t)i)
            continue;
        scores[(*count)++] = (struct scored){p.score, (int32_t)i};
        if (p.type == PIECE_USER_DEFINED && !trie_add(&r->b->frozen, p.s, p.len, (int32_t)i))
            st = err_set(r->err, ST_NO_MEMORY, "vocab: no memory");
    }
    if (*count)
        qsort(scores, *count, sizeof(*scores), compare_scores);
    uint32_t rank = 0;
    for (size_t i = 0; i < *count; i++) {
        rank += i && scores[i].score != scores[i - 1].score;
        r->rank[scores[i].id] = rank;
    }
    return st;
}

static bool is_part(const struct ranking *r, int32_t id)
{
    return id >= 0 && (size_t)id < r->n && r->rank[id] != BPE_NO_RANK;
}

/* Adds (or, with `only_count`, counts) the pairs that make piece `id`. */
static size_t add_splits(struct ranking *r, int32_t id, bool only_count)
{
    size_t len = 0, pairs = 0;
    const struct vocab *vocab = r->b->model.vocab;
    const char *s = vocab_string(vocab, id, &len);
    for (size_t at = len ? text_char_len((unsigned char)s[0]) : 0; at < len;
         at += text_char_len((unsigned char)s[at])) {
        int32_t left = vocab_find(vocab, s, at), right = vocab_find(vocab, s + at, len - at);
        if (!is_part(r, left) || !is_part(r, right))
            continue;
        pairs++;
        if (only_count)
            continue;
        uint64_t key = bpe_pair_key(left, right);
        r->b->pairs[bpe_pair_slot(r->b, key)] = (struct pair){key, r->rank[id], id};
    }
    return pairs;
}

static enum status add_pairs(struct ranking *r)
{
    size_t pairs = 0;
    for (size_t i = 0; i < r->n; i++)
        if (r->rank[i] != BPE_NO_RANK)
            pairs += add_splits(r, (int32_t)i, true);
    if (pairs > (size_t)16 * VOCAB_ENTRIES_MAX)
        return err_set(r->err, ST_INVALID, "vocab: %zu ways to merge", pairs);
    if (!bpe_pairs_init(r->b, pairs))
        return err_set(r->err, ST_NO_MEMORY, "merges: no memory");
    for (size_t i = 0; i < r->n; i++) {
        size_t len;
        if (r->rank[i] == BPE_NO_RANK || !add_splits(r, (int32_t)i, false))
            continue;
        const char *s = vocab_string(r->b->model.vocab, (int32_t)i, &len);
        if (!bpe_note_markers(r->b, &r->cap_markers, s, len))
            return err_set(r->err, ST_NO_MEMORY, "merges: no memory");
    }
    bpe_sort_markers(r->b);
    return ST_OK;
}

enum status bpe_rank_pieces(struct bpe *b, const json *vocab, struct error *err)
{
    struct ranking r = {.b = b, .vocab = vocab, .n = json_count(vocab), .err = err};
    struct scored *scores = calloc(r.n + 1, sizeof(*scores));
    size_t count = 0;
    enum status st = ST_OK;
    r.rank = calloc(r.n + 1, sizeof(*r.rank));
    if (!scores || !r.rank)
        st = err_set(err, ST_NO_MEMORY, "vocab: no memory");
    if (!st)
        st = read_scores(&r, scores, &count);
    if (!st)
        st = add_pairs(&r);
    free(scores);
    free(r.rank);
    return st;
}
