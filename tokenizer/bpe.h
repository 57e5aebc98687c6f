/* Inside of the BPE model: what model_bpe_load.c builds and model_bpe.c reads. Only these two
 * include it.
 *
 * Merges are one table from a pair of ids to its rank and product. Immutable after loading, the
 * word cache excepted, which guards itself.
 */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H

#include "tokenizer/model.h"
#include "tokenizer/trie.h"
#include "tokenizer/word_cache.h"

#define BPE_NO_PAIR UINT64_MAX
#define BPE_NO_RANK UINT32_MAX
#define BPE_AFFIX_MAX 64 /* bytes of continuing_subword_prefix, end_of_word_suffix */
#define BPE_MARKER "\xe2\x96\x81"
#define BPE_MARKER_LEN 3

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
    char prefix[BPE_AFFIX_MAX + 1], suffix[BPE_AFFIX_MAX + 1];
    size_t prefix_len, suffix_len;
    size_t token_max; /* bytes of the longest token */
    bool cut;
    uint32_t *before_marker; /* characters that some merged token has before a marker; sorted */
    size_t n_before_marker;
    struct word_cache *cache;
    struct trie frozen; /* user-defined pieces: taken out of the text before anything merges */
};

static inline size_t bpe_pair_slot(const struct bpe *b, uint64_t key)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    size_t mask = b->n_pairs - 1, i = (h ^ h >> 32) & mask;
    while (b->pairs[i].key != key && b->pairs[i].key != BPE_NO_PAIR)
        i = (i + 1) & mask;
    return i;
}

static inline uint64_t bpe_pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Room for n pairs, none in it. false: no memory. */
bool bpe_pairs_init(struct bpe *b, size_t n);
/* Remembers what a merged token has before markers; false: no memory. Sort when all are in. */
bool bpe_note_markers(struct bpe *b, size_t *cap, const char *s, size_t len);
void bpe_sort_markers(struct bpe *b);
/* Merges out of the scores of pieces instead of a list: any two neighbours whose texts together are
 * a piece may merge, the piece of the highest score first. That is SentencePiece's rule and, with
 * ranks for scores, tiktoken's. Fills frozen too. */
enum status bpe_rank_pieces(struct bpe *b, const json *vocab, struct error *err);

enum status bpe_encode(const struct model *m, struct model_run *run, const char *s, size_t len,
                       struct ids *out);

#endif
