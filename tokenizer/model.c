#include "tokenizer/model.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/parse.h"

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

enum status model_parse_vocab(const struct model_source *source, struct error *err)
{
    const json *vocab = json_get(source->v, "vocab");
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
