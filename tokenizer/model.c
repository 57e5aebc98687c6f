#include "tokenizer/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/parse.h"
#include "tokenizer/unicode.h"

void model_run_fini(struct model_run *run)
{
    free(run->scratch);
    ids_fini(&run->ids);
    *run = (struct model_run){0};
}

static void *at_least(void **p, size_t *have, size_t bytes)
{
    if (*have < bytes) {
        free(*p);
        *p = malloc(bytes);
        *have = *p ? bytes : 0;
    }
    return *p;
}

void *model_run_scratch(struct model_run *run, size_t bytes)
{
    return at_least(&run->scratch, &run->scratch_bytes, bytes);
}

static size_t frozen_at(const struct trie *frozen, const char *s, size_t len, int32_t *id)
{
    size_t longest = 0;
    uint32_t node = TRIE_ROOT;
    for (size_t i = 0; i < len; i++) {
        node = trie_step(frozen, node, (unsigned char)s[i]);
        if (node == TRIE_NONE)
            break;
        if (frozen->values[node] >= 0) {
            longest = i + 1;
            *id = frozen->values[node];
        }
    }
    return longest;
}

enum status model_encode_parts(const struct model_parts *p, const char *s, size_t len,
                               struct ids *out)
{
    size_t done = 0;
    enum status st = ST_OK;
    for (size_t at = 0; p->frozen->n && at < len && !st;) {
        int32_t id = -1;
        size_t n = frozen_at(p->frozen, s + at, len - at, &id);
        if (!n) {
            at += text_char_len((unsigned char)s[at]);
            continue;
        }
        if (at > done)
            st = p->encode(p->model, p->run, s + done, at - done, out);
        if (!st && !ids_push(out, id))
            st = ST_NO_MEMORY;
        done = at += n;
    }
    return st || done >= len ? st : p->encode(p->model, p->run, s + done, len - done, out);
}

enum status model_parse_piece(const json *v, size_t i, struct piece *out, struct error *err)
{
    const json *text = json_at(v, 0), *score = json_at(v, 1);
    enum json_kind kind = json_kind_of(score);
    size_t n = json_count(v);
    int64_t type = n == 3 ? json_as_int(json_at(v, 2), 0) : PIECE_NORMAL;
    if (json_kind_of(v) != JSON_ARR || n < 2 || n > 3 || json_kind_of(text) != JSON_STR ||
        (kind != JSON_REAL && kind != JSON_INT))
        return err_set(err, ST_INVALID, "vocab[%zu]: expected [STRING, SCORE]", i);
    if (type < PIECE_NORMAL || type > PIECE_BYTE)
        return err_set(err, ST_INVALID, "vocab[%zu]: a piece of unknown type", i);
    *out = (struct piece){json_as_str(text, ""), json_str_len(text), json_as_number(score, 0),
                          (enum piece_type)type};
    if (out->len > PIECE_MAX)
        return err_set(err, ST_INVALID, "vocab[%zu]: piece of %zu bytes, at most %d", i, out->len,
                       PIECE_MAX);
    if (!isfinite(out->score))
        return err_set(err, ST_INVALID, "vocab[%zu]: the score is not a number", i);
    return ST_OK;
}

static enum status parse_vocab_array(const struct model_source *source, const json *list,
                                     struct error *err)
{
    if (json_count(list) == 0 || json_count(list) > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, "vocab: %zu entries, at most %u", json_count(list),
                       VOCAB_ENTRIES_MAX);
    enum status st = ST_OK;
    for (size_t i = 0; i < json_count(list) && !st; i++) {
        const json *v = json_at(list, i);
        struct piece p = {json_as_str(v, NULL), json_str_len(v), 0, PIECE_NORMAL};
        if (json_kind_of(v) == JSON_NULL_)
            continue;
        if (!p.s)
            st = model_parse_piece(v, i, &p, err);
        if (!st)
            st = vocab_add(source->vocab, p.s, p.len, (int64_t)i, err);
    }
    return st;
}

enum status model_parse_vocab(const struct model_source *source, struct error *err)
{
    const json *vocab = json_get(source->v, "vocab");
    if (json_kind_of(vocab) == JSON_ARR)
        return parse_vocab_array(source, vocab, err);
    if (json_kind_of(vocab) != JSON_OBJ)
        return parse_mismatch("vocab", "an object", vocab, err);
    if (json_count(vocab) > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, "vocab: %zu entries, at most %u", json_count(vocab),
                       VOCAB_ENTRIES_MAX);
    for (void *it = json_first(vocab); it; it = json_next(vocab, it)) {
        const char *key = json_iter_key(it);
        const json *id = json_iter_value(it);
        if (json_kind_of(id) != JSON_INT)
            return parse_mismatch("vocab", "an integer id", id, err);
        enum status st = vocab_add(source->vocab, key, strlen(key), json_as_int(id, -1), err);
        if (st)
            return st;
    }
    return ST_OK;
}

enum status model_parse_unk(const struct model_source *source, const char *fallback, int32_t *out,
                            struct error *err)
{
    struct text_ref name;
    enum status st = parse_str(source->v, "unk_token", fallback, &name, err);
    *out = -1;
    if (!st && name.len)
        *out = vocab_find(source->vocab, name.s, name.len);
    return st;
}

static const char *guess_type(const json *v)
{
    if (json_kind_of(json_get(v, "vocab")) == JSON_ARR)
        return "Unigram";
    if (json_get(v, "merges"))
        return "BPE";
    return json_get(v, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

enum status model_parse(const struct model_source *source, struct model **out, struct error *err)
{
    static const struct {
        const char *type;
        enum status (*parse)(const struct model_source *, struct model **, struct error *);
    } models[] = {
        {"BPE", model_bpe_parse},
        {"Unigram", model_unigram_parse},
        {"WordPiece", model_wordpiece_parse},
        {"WordLevel", model_wordlevel_parse},
    };
    if (json_kind_of(source->v) != JSON_OBJ)
        return parse_mismatch("model", "an object", source->v, err);
    const json *named = json_get(source->v, "type");
    if (named && json_kind_of(named) != JSON_STR)
        return parse_mismatch("model.type", "a string", named, err);
    const char *type = json_as_str(named, guess_type(source->v));
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
        if (!strcmp(models[i].type, type)) {
            enum status st = models[i].parse(source, out, err);
            if (st)
                err_prefix(err, "model");
            return st;
        }
    return err_set(err, ST_UNSUPPORTED, "model of unknown type \"%.60s\"", type);
}
