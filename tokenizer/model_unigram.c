/* Unigram language model (Kudo, ACL 2018): the split of a text whose pieces have the greatest sum
 * of log probabilities, by Viterbi over the prefixes. Pieces are bounded in length, so the cost is
 * linear in the text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/model.h"
#include "tokenizer/parse.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"

#define UNK_PENALTY 10.0

struct unigram {
    struct model model;
    struct trie trie; /* to ids */
    double *scores;   /* per id */
    double unk_score;
    int32_t unk;
    bool byte_fallback;
    bool sentencepiece; /* scores add up in single precision, as that library does it */
    int32_t fallback[256];
};

static const struct unigram *unigram_of(const struct model *m)
{
    return (const struct unigram *)(const void *)m;
}

struct best {
    double score;
    uint32_t begin; /* of the piece that ends here; UINT32_MAX: unreached */
    int32_t id;
};

static void offer(const struct unigram *u, struct best *best, double score, size_t begin,
                  int32_t id)
{
    score = u->sentencepiece ? (double)(float)score : score;
    if (best->begin == UINT32_MAX || score > best->score)
        *best = (struct best){score, (uint32_t)begin, id};
}

static enum status emit(const struct unigram *u, const char *s, size_t len, int32_t id,
                        struct ids *out)
{
    if (id == u->unk) { /* a fused run may itself be a piece */
        int32_t known = u->sentencepiece ? -1 : vocab_find(u->model.vocab, s, len);
        bool all = known < 0 && u->byte_fallback;
        for (size_t i = 0; i < len && all; i++)
            all = u->fallback[(unsigned char)s[i]] >= 0;
        if (all) {
            for (size_t i = 0; i < len; i++)
                if (!ids_push(out, u->fallback[(unsigned char)s[i]]))
                    return ST_NO_MEMORY;
            return ST_OK;
        }
        id = known >= 0 ? known : id;
    }
    return id < 0 || ids_push(out, id) ? ST_OK : ST_NO_MEMORY;
}

/* Walks the chosen pieces back to front, turns them round, and joins runs of unknown ones. */
static enum status backtrack(const struct unigram *u, struct best *best, const char *s, size_t len,
                             struct ids *out)
{
    size_t next = len; /* chain forward: reuse `begin` of each node as the end of the piece */
    for (size_t end = len; end > 0;) {
        size_t begin = best[end].begin;
        int32_t id = best[end].id;
        best[end].begin = (uint32_t)next;
        best[end].id = id;
        next = end;
        end = begin;
    }
    /* now best[e].begin is the end of the piece after the one that ends at e, and next the first
     * piece's end */
    size_t begin = 0, end = next;
    enum status st = ST_OK;
    while (begin < len && !st) {
        int32_t id = best[end].id;
        while (id == u->unk && end < len && best[best[end].begin].id == u->unk)
            end = best[end].begin;
        size_t after = best[end].begin;
        st = emit(u, s + begin, end - begin, id, out);
        begin = end;
        end = after;
    }
    return st;
}

static enum status unigram_encode(const struct model *m, struct model_run *run, const char *s,
                                  size_t len, struct ids *out)
{
    const struct unigram *u = unigram_of(m);
    struct best *best = model_run_scratch(run, (len + 1) * sizeof(*best));
    if (!best || len >= UINT32_MAX)
        return ST_NO_MEMORY;
    for (size_t i = 0; i <= len; i++)
        best[i] = (struct best){0, UINT32_MAX, -1};
    for (size_t at = 0; at < len;) {
        size_t one = text_char_len((unsigned char)s[at]);
        double till_here = best[at].score;
        bool single = false;
        uint32_t node = TRIE_ROOT;
        for (size_t i = at; i < len; i++) {
            node = trie_step(&u->trie, node, (unsigned char)s[i]);
            if (node == TRIE_NONE)
                break;
            int32_t id = u->trie.values[node];
            if (id < 0)
                continue;
            offer(u, &best[i + 1], till_here + u->scores[id], at, id);
            single = single || i + 1 == at + one;
        }
        if (!single)
            offer(u, &best[at + one],
                  u->sentencepiece ? (double)((float)till_here + (float)u->unk_score)
                                   : till_here + u->unk_score,
                  at, u->unk);
        at += one;
    }
    return backtrack(u, best, s, len, out);
}

static void unigram_destroy(struct model *m)
{
    struct unigram *u = (struct unigram *)(void *)m;
    trie_fini(&u->trie);
    free(u->scores);
    free(u);
}

/* In a tokenizer.json all pieces are found in text; in SentencePiece's models by their type. */
static enum status add_piece(struct unigram *u, struct vocab *vocab, const struct piece *p,
                             size_t i, struct error *err)
{
    bool found = !u->sentencepiece || p->type == PIECE_NORMAL || p->type == PIECE_USER_DEFINED;
    u->scores[i] = p->score;
    if (u->sentencepiece && p->type == PIECE_USER_DEFINED && p->len)
        u->scores[i] = (double)(0.1f * (float)(p->len - 1)); /* the longer the better, always */
    enum status st = vocab_add(vocab, p->s, p->len, (int64_t)i, err);
    if (!st && found && p->len && !trie_add(&u->trie, p->s, p->len, (int32_t)i))
        st = err_set(err, ST_NO_MEMORY, "vocab: no memory");
    return st;
}

static enum status parse_pieces(struct unigram *u, const struct model_source *source,
                                struct error *err)
{
    const json *list = json_get(source->v, "vocab");
    size_t n = json_count(list), unk;
    if (json_kind_of(list) != JSON_ARR)
        return parse_mismatch("vocab", "an array", list, err);
    if (n > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, "vocab: %zu entries, at most %u", n, VOCAB_ENTRIES_MAX);
    enum status st = parse_count(source->v, "unk_id", VOCAB_ID_MAX, &unk, err);
    if (st)
        return st;
    if (unk >= n && unk != VOCAB_ID_MAX)
        return err_set(err, ST_INVALID, "unk_id: %zu of %zu pieces", unk, n);
    u->unk = unk == VOCAB_ID_MAX ? -1 : (int32_t)unk;
    u->scores = calloc(n + 1, sizeof(*u->scores));
    if (!u->scores)
        return err_set(err, ST_NO_MEMORY, "vocab: no memory");
    st = parse_bool(source->v, "sentencepiece", false, &u->sentencepiece, err);
    double least = INFINITY;
    for (size_t i = 0; i < n && !st; i++) {
        struct piece p;
        st = model_parse_piece(json_at(list, i), i, &p, err);
        if (!st)
            st = add_piece(u, source->vocab, &p, i, err);
        if (!st && (p.type == PIECE_NORMAL || !u->sentencepiece))
            least = p.score < least ? p.score : least;
    }
    u->unk_score = (isfinite(least) ? least : 0) - UNK_PENALTY;
    return st ? st : parse_bool(source->v, "byte_fallback", false, &u->byte_fallback, err);
}

enum status model_unigram_parse(const struct model_source *source, struct model **out,
                                struct error *err)
{
    static const struct model_ops ops = {"Unigram", unigram_encode, unigram_destroy};
    struct unigram *u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(err, ST_NO_MEMORY, "model: no memory");
    u->model = (struct model){&ops, source->vocab};
    enum status st = parse_pieces(u, source, err);
    if (st) {
        unigram_destroy(&u->model);
        return st;
    }
    for (int i = 0; i < 256; i++) {
        char text[8];
        int n = snprintf(text, sizeof(text), "<0x%02X>", i);
        u->fallback[i] = vocab_find(source->vocab, text, (size_t)n);
    }
    *out = &u->model;
    return ST_OK;
}
