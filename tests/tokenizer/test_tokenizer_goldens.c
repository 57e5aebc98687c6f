/* Small tokenizers of our own making, in some sixty variants, against what PyPI's `tokenizers` gave
 * (make_goldens.py). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "tokenizer/tokenizer.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/tokenizer/goldens/"

static json *read_json(const char *kind, const char *base)
{
    char path[512];
    struct error err = {0};
    json *v = NULL;
    snprintf(path, sizeof(path), GOLDENS "%s_%s.json", kind, base);
    cr_assert_eq(json_read_file(path, 16 << 20, &v, &err), ST_OK, "%s", err.text);
    return v;
}

static void write_members(struct jw *w, const json *obj, const json *overrides)
{
    for (void *it = json_first(obj); it; it = json_next(obj, it)) {
        if (json_get(overrides, json_iter_key(it)))
            continue;
        jw_key(w, json_iter_key(it));
        jw_json(w, json_iter_value(it));
    }
    for (void *it = overrides ? json_first(overrides) : NULL; it; it = json_next(overrides, it)) {
        jw_key(w, json_iter_key(it));
        jw_json(w, json_iter_value(it));
    }
}

static void write_string_merges(struct jw *w, const json *merges)
{
    jw_key(w, "merges");
    jw_arr(w);
    for (size_t i = 0; i < json_count(merges); i++) {
        char text[256];
        snprintf(text, sizeof(text), "%s %s", json_as_str(json_at(json_at(merges, i), 0), ""),
                 json_as_str(json_at(json_at(merges, i), 1), ""));
        jw_str(w, text);
    }
    jw_end_arr(w);
}

/* The base's text with the variant's parts in place of its own. */
static struct buf make_tokenizer(const json *base, const json *variant)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    const json *parts = json_get(variant, "parts"), *model = json_get(base, "model");
    jw_obj(&w);
    for (void *it = json_first(base); it; it = json_next(base, it)) {
        if (json_get(parts, json_iter_key(it)) || !strcmp(json_iter_key(it), "model"))
            continue;
        jw_key(&w, json_iter_key(it));
        jw_json(&w, json_iter_value(it));
    }
    for (void *it = json_first(parts); it; it = json_next(parts, it)) {
        jw_key(&w, json_iter_key(it));
        jw_json(&w, json_iter_value(it));
    }
    jw_key(&w, "model");
    jw_obj(&w);
    if (json_as_bool(json_get(variant, "string_merges"), false)) {
        json *only = NULL;
        cr_assert_eq(json_read("{\"merges\":0}", 12, &only, NULL), ST_OK);
        for (void *it = json_first(model); it; it = json_next(model, it)) {
            if (json_get(only, json_iter_key(it)))
                continue;
            jw_key(&w, json_iter_key(it));
            jw_json(&w, json_iter_value(it));
        }
        write_string_merges(&w, json_get(model, "merges"));
        json_free(only);
    } else {
        write_members(&w, model, json_get(variant, "model"));
    }
    jw_end_obj(&w);
    jw_end_obj(&w);
    return text;
}

static void check_ids(const char *name, size_t i, const json *want, const struct ids *got)
{
    cr_assert_eq(json_count(want), got->n, "%s[%zu]: %zu ids, not %zu", name, i, got->n,
                 json_count(want));
    for (size_t k = 0; k < got->n; k++)
        cr_assert_eq(json_as_int(json_at(want, k), -1), got->v[k], "%s[%zu]: id %zu is %d", name, i,
                     k, got->v[k]);
}

static void check_encode(const struct tokenizer *t, const char *name, size_t i, const json *c)
{
    static const unsigned flags[] = {TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, TOKENIZE_PLAIN};
    const json *text = json_at(c, 0);
    for (size_t k = 0; k < 2; k++) {
        struct ids ids = {0};
        struct error err = {0};
        cr_assert_eq(
            tokenizer_encode(t, json_as_str(text, ""), json_str_len(text), flags[k], &ids, &err),
            ST_OK, "%s[%zu]: %s", name, i, err.text);
        check_ids(name, i, json_at(c, 1 + k), &ids);
        ids_fini(&ids);
    }
}

static void check_decode(const struct tokenizer *t, const char *name, size_t i, const json *c)
{
    struct ids ids = {0};
    const json *list = json_at(c, 3);
    for (size_t k = 0; k < json_count(list); k++)
        ids_push(&ids, (int32_t)json_as_int(json_at(list, k), -1));
    for (int skip = 0; skip < 2; skip++) {
        const json *want = json_at(c, 4 + (size_t)skip);
        struct buf whole = {0}, stream = {0};
        tokenizer_decode(t, ids.v, ids.n, skip, &whole);
        struct detok *d = detok_create(t, skip);
        for (size_t k = 0; k < ids.n; k++) {
            detok_push(d, ids.v[k], &stream);
            cr_assert(stream.len <= whole.len &&
                          (!stream.len || !memcmp(stream.data, whole.data, stream.len)),
                      "%s[%zu]: the stream is no prefix after %zu ids", name, i, k + 1);
        }
        detok_flush(d, &stream);
        detok_destroy(d);
        cr_assert_eq(whole.len, json_str_len(want), "%s[%zu]: got \"%s\"", name, i,
                     whole.data ? whole.data : "");
        cr_assert(!whole.len || !memcmp(whole.data, json_as_str(want, ""), whole.len),
                  "%s[%zu]: got \"%s\"", name, i, whole.data);
        cr_assert_eq(stream.len, whole.len, "%s[%zu]: stream of other length", name, i);
        buf_fini(&whole);
        buf_fini(&stream);
    }
    ids_fini(&ids);
}

static void run_base(const char *base_name)
{
    json *base = read_json("base", base_name), *list = read_json("cases", base_name);
    cr_assert_gt(json_count(list), 0);
    for (size_t v = 0; v < json_count(list); v++) {
        const json *variant = json_at(list, v), *cases = json_get(variant, "cases");
        const char *name = json_as_str(json_get(variant, "name"), "?");
        struct buf text = make_tokenizer(base, variant);
        struct tokenizer *t = NULL;
        struct error err = {0};
        cr_assert_eq(tokenizer_load_text(text.data, text.len, NULL, 0, &t, &err), ST_OK, "%s: %s",
                     name, err.text);
        for (size_t i = 0; i < json_count(cases); i++) {
            check_encode(t, name, i, json_at(cases, i));
            check_decode(t, name, i, json_at(cases, i));
        }
        tokenizer_free(t);
        buf_fini(&text);
    }
    json_free(base);
    json_free(list);
}

Test(tokenizer_goldens, byte_level_bpe)
{
    run_base("bytes");
}

Test(tokenizer_goldens, sentencepiece_bpe)
{
    run_base("sp");
}

Test(tokenizer_goldens, unigram)
{
    run_base("unigram");
}

Test(tokenizer_goldens, wordpiece)
{
    run_base("wordpiece");
}

Test(tokenizer_goldens, bpe_with_suffix)
{
    run_base("suffix");
}
