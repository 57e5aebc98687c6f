/* From the JSON files of a model folder to a tokenizer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/internal.h"
#include "tokenizer/parse.h"

static enum status load_added(struct tokenizer *t, const struct loader_input *in, struct error *err)
{
    const json *list = json_get(in->tokenizer, "added_tokens");
    enum json_kind kind = json_kind_of(list);
    if (kind != JSON_ARR && kind != JSON_ABSENT && kind != JSON_NULL_)
        return parse_mismatch("added_tokens", "an array", list, err);
    for (size_t i = 0; i < json_count(list); i++) {
        const json *v = json_at(list, i);
        size_t id;
        enum status st = parse_count(v, "id", -1, &id, err);
        struct added_source source = {v, (int64_t)id, &t->vocab};
        if (!st)
            st = added_add(&t->added, &source, err);
        if (st) {
            err_prefix(err, "added_tokens[%zu]", i);
            return st;
        }
    }
    /* tokens that only the configuration names */
    const json *more = json_get(in->config, "added_tokens_decoder");
    for (void *it = json_kind_of(more) == JSON_OBJ ? json_first(more) : NULL; it;
         it = json_next(more, it)) {
        char *end;
        errno = 0;
        long id = strtol(json_iter_key(it), &end, 10);
        if (*end || errno || id < 0 || json_kind_of(json_iter_value(it)) != JSON_OBJ)
            return err_set(err, ST_INVALID,
                           "tokenizer_config.json: added_tokens_decoder: bad entry");
        struct added_source source = {json_iter_value(it), id, &t->vocab};
        enum status st = added_add(&t->added, &source, err);
        if (st) {
            err_prefix(err, "tokenizer_config.json: added_tokens_decoder");
            return st;
        }
    }
    return ST_OK;
}

/* "bos_token" is a string or an object with "content", in either file. */
static const char *special_name(const struct loader_input *in, const char *key)
{
    const json *sources[] = {json_get(in->config, key), json_get(in->specials, key)};
    for (int i = 0; i < 2; i++) {
        const char *s = json_as_str(sources[i], NULL);
        if (!s && json_kind_of(sources[i]) == JSON_OBJ)
            s = json_as_str(json_get(sources[i], "content"), NULL);
        if (s && *s)
            return s;
    }
    return NULL;
}

/* A token that the configuration calls BOS or EOS is special even where the added tokens leave it
 * out. */
static enum status mark_named(struct tokenizer *t, const char *name, struct error *err)
{
    if (!name || vocab_find(&t->added.vocab, name, strlen(name)) >= 0 ||
        vocab_find(&t->vocab, name, strlen(name)) < 0)
        return ST_OK;
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    jw_key(&w, "content");
    jw_str(&w, name);
    jw_key(&w, "special");
    jw_bool(&w, true);
    jw_end_obj(&w);
    json *v = NULL;
    enum status st = json_read(text.data, text.len, &v, err);
    struct added_source source = {v, 0, &t->vocab};
    if (!st)
        st = added_add(&t->added, &source, err);
    json_free(v);
    buf_fini(&text);
    return st;
}

static enum status load_template(struct tokenizer *t, const json *config, struct error *err)
{
    const json *v = json_get(config, "chat_template");
    const char *text = json_as_str(v, NULL);
    for (size_t i = 0; json_kind_of(v) == JSON_ARR && i < json_count(v); i++) {
        const char *name = json_as_str(json_get(json_at(v, i), "name"), "");
        const char *one = json_as_str(json_get(json_at(v, i), "template"), NULL);
        if (one && (!text || !strcmp(name, "default")))
            text = one;
        if (one && !strcmp(name, "tool_use") && !t->tool_template &&
            !(t->tool_template = strdup(one)))
            return err_set(err, ST_NO_MEMORY, "no memory");
    }
    if (!text)
        return ST_OK;
    t->chat_template = strdup(text);
    return t->chat_template ? ST_OK : err_set(err, ST_NO_MEMORY, "no memory");
}

/* The post-processor of a tokenizer.json alone says what is added; add_bos_token of the
 * configuration counts where there was none to say it. */
static enum status load_bos(struct tokenizer *t, const struct loader_input *in, struct error *err)
{
    const char *bos = special_name(in, "bos_token"), *eos = special_name(in, "eos_token");
    t->bos = bos ? tokenizer_find(t, bos) : -1;
    t->eos = eos ? tokenizer_find(t, eos) : -1;
    if (!in->made || t->bos < 0 || !json_as_bool(json_get(in->config, "add_bos_token"), false))
        return ST_OK;
    return ids_push(&t->post.before, t->bos) ? ST_OK : err_set(err, ST_NO_MEMORY, "no memory");
}

static enum status build(struct tokenizer *t, const struct loader_input *in, struct error *err)
{
    const json *v = in->tokenizer;
    if (json_kind_of(v) != JSON_OBJ)
        return parse_mismatch("tokenizer.json", "an object", v, err);
    enum status st = normalizer_parse(json_get(v, "normalizer"), &t->normalizer, err);
    if (!st)
        st = pretokenizer_parse(json_get(v, "pre_tokenizer"), &t->pretokenizer, err);
    struct model_source source = {json_get(v, "model"), t->pretokenizer.bytes_out, &t->vocab};
    if (!st)
        st = model_parse(&source, &t->model, err);
    if (!st)
        st = load_added(t, in, err);
    if (!st)
        st = mark_named(t, special_name(in, "bos_token"), err);
    if (!st)
        st = mark_named(t, special_name(in, "eos_token"), err);
    if (!st)
        st = added_finish(&t->added, &t->normalizer, err);
    if (!st)
        st = postprocess_parse(json_get(v, "post_processor"), &t->post, err);
    if (!st)
        st = decoder_parse(json_get(v, "decoder"), &t->decoder, err);
    if (!st)
        st = load_bos(t, in, err);
    return st ? st : load_template(t, in->config, err);
}

enum status loader_build(const struct loader_input *in, struct tokenizer **out, struct error *err)
{
    struct tokenizer *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(err, ST_NO_MEMORY, "tokenizer: no memory");
    t->bos = t->eos = -1;
    enum status st = build(t, in, err);
    if (st) {
        tokenizer_free(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

enum status tokenizer_load_text(const char *json_text, size_t len, const char *config_text,
                                size_t config_len, struct tokenizer **out, struct error *err)
{
    json *tokenizer = NULL, *config = NULL;
    enum status st = len > TOKENIZER_BYTES_MAX
                         ? err_set(err, ST_INVALID, "tokenizer.json: %zu bytes", len)
                         : json_read(json_text, len, &tokenizer, err);
    if (!st && config_text)
        st = json_read(config_text, config_len, &config, err);
    struct loader_input in = {tokenizer, config, NULL, false};
    if (!st)
        st = loader_build(&in, out, err);
    json_free(config);
    json_free(tokenizer);
    return st;
}
