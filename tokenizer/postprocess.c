#include "tokenizer/postprocess.h"

#include <string.h>

#include "tokenizer/parse.h"
#include "tokenizer/vocab.h"

#define TEMPLATE_IDS_MAX 1024

/* One processor's ids before and after what the processors before it gave. */
static enum status wrap(struct postprocess *p, const struct ids *before, const struct ids *after,
                        struct error *err)
{
    struct ids all = {0};
    bool ok = ids_append(&all, before->v, before->n) &&
              ids_append(&all, p->before.v, p->before.n) &&
              ids_append(&p->after, after->v, after->n);
    ids_fini(&p->before);
    p->before = all;
    if (!ok)
        return err_set(err, ST_NO_MEMORY, "no memory");
    if (p->before.n > TEMPLATE_IDS_MAX || p->after.n > TEMPLATE_IDS_MAX)
        return err_set(err, ST_INVALID, "more than %d tokens around a text", TEMPLATE_IDS_MAX);
    return ST_OK;
}

static enum status push_id(struct ids *out, const json *v, struct error *err)
{
    int64_t id = json_as_int(v, -1);
    if (id < 0 || id >= VOCAB_ID_MAX)
        return err_set(err, ST_INVALID, "token id is outside 0..%d", VOCAB_ID_MAX - 1);
    return ids_push(out, (int32_t)id) ? ST_OK : err_set(err, ST_NO_MEMORY, "no memory");
}

/* cls and sep are ["TEXT", id]. */
static enum status parse_pair(const json *v, struct postprocess *p, struct error *err)
{
    struct ids before = {0}, after = {0};
    enum status st = push_id(&before, json_at(json_get(v, "cls"), 1), err);
    if (!st)
        st = push_id(&after, json_at(json_get(v, "sep"), 1), err);
    if (!st)
        st = wrap(p, &before, &after, err);
    ids_fini(&before);
    ids_fini(&after);
    return st;
}

static enum status push_special(struct ids *out, const json *specials, const json *name,
                                struct error *err)
{
    const char *key = json_as_str(name, NULL);
    if (!key)
        return parse_mismatch("SpecialToken.id", "a string", name, err);
    const json *ids = json_get(json_get(specials, key), "ids");
    if (json_kind_of(ids) != JSON_ARR)
        return err_set(err, ST_INVALID, "special_tokens lacks ids of \"%.60s\"", key);
    enum status st = ST_OK;
    for (size_t i = 0; i < json_count(ids) && !st; i++) {
        st = push_id(out, json_at(ids, i), err);
        if (!st && out->n > TEMPLATE_IDS_MAX)
            st = err_set(err, ST_INVALID, "more than %d tokens around a text", TEMPLATE_IDS_MAX);
    }
    return st;
}

static enum status parse_template(const json *v, struct postprocess *p, struct error *err)
{
    const json *single = json_get(v, "single"), *specials = json_get(v, "special_tokens");
    if (json_kind_of(single) != JSON_ARR)
        return parse_mismatch("single", "an array", single, err);
    struct ids before = {0}, after = {0};
    bool seen = false;
    enum status st = ST_OK;
    for (size_t i = 0; i < json_count(single) && !st; i++) {
        const json *piece = json_at(single, i);
        const json *special = json_get(piece, "SpecialToken");
        const char *sequence = json_as_str(json_get(json_get(piece, "Sequence"), "id"), NULL);
        if (special)
            st = push_special(seen ? &after : &before, specials, json_get(special, "id"), err);
        else if (!sequence)
            st = err_set(err, ST_INVALID, "single[%zu]: expected SpecialToken or Sequence", i);
        else if (strcmp(sequence, "A") || seen)
            st = err_set(err, ST_UNSUPPORTED, "template that names the text %s",
                         seen ? "twice" : "other than A");
        else
            seen = true;
    }
    p->drops_text = p->drops_text || !seen;
    if (!st)
        st = wrap(p, &before, &after, err);
    ids_fini(&before);
    ids_fini(&after);
    return st;
}

static enum status parse_step(void *arg, const char *type, const json *v, struct error *err)
{
    if (!strcmp(type, "TemplateProcessing"))
        return parse_template(v, arg, err);
    if (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing"))
        return parse_pair(v, arg, err);
    if (!strcmp(type, "ByteLevel"))
        return ST_OK;
    return err_set(err, ST_UNSUPPORTED, "post-processor of unknown type \"%.60s\"", type);
}

enum status postprocess_parse(const json *v, struct postprocess *out, struct error *err)
{
    return parse_components(v, "processors", parse_step, out, err);
}

void postprocess_fini(struct postprocess *p)
{
    ids_fini(&p->before);
    ids_fini(&p->after);
}
