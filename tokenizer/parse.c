#include "tokenizer/parse.h"

#include <limits.h>
#include <string.h>

#define DEPTH_MAX 8

static bool absent(const json *v)
{
    enum json_kind kind = json_kind_of(v);
    return kind == JSON_ABSENT || kind == JSON_NULL_;
}

enum status parse_mismatch(const char *key, const char *expected, const json *got,
                           struct error *err)
{
    return err_set(err, ST_INVALID, "%s: expected %s, got %s", key, expected,
                   json_kind_name(json_kind_of(got)));
}

enum status parse_bool(const json *obj, const char *key, bool fallback, bool *out,
                       struct error *err)
{
    const json *v = json_get(obj, key);
    *out = fallback;
    if (absent(v))
        return ST_OK;
    if (json_kind_of(v) != JSON_BOOL)
        return parse_mismatch(key, "true or false", v, err);
    *out = json_as_bool(v, fallback);
    return ST_OK;
}

enum status parse_str(const json *obj, const char *key, const char *fallback, struct text_ref *out,
                      struct error *err)
{
    const json *v = json_get(obj, key);
    if (absent(v) && fallback) {
        *out = (struct text_ref){fallback, strlen(fallback)};
        return ST_OK;
    }
    if (json_kind_of(v) != JSON_STR)
        return parse_mismatch(key, "a string", v, err);
    *out = (struct text_ref){json_as_str(v, ""), json_str_len(v)};
    return ST_OK;
}

enum status parse_char(const json *obj, const char *key, const char *fallback, struct text_ref *out,
                       struct error *err)
{
    enum status st = parse_str(obj, key, fallback, out, err);
    if (st)
        return st;
    size_t chars = 0;
    for (size_t i = 0; i < out->len; i++)
        chars += ((unsigned char)out->s[i] & 0xc0) != 0x80;
    if (chars != 1 || out->len > 4)
        return err_set(err, ST_INVALID, "%s: expected one character, got %zu", key, chars);
    return ST_OK;
}

enum status parse_count(const json *obj, const char *key, long fallback, size_t *out,
                        struct error *err)
{
    const json *v = json_get(obj, key);
    if (absent(v) && fallback >= 0) {
        *out = (size_t)fallback;
        return ST_OK;
    }
    if (json_kind_of(v) != JSON_INT)
        return parse_mismatch(key, "a count", v, err);
    int64_t n = json_as_int(v, -1);
    if (n < 0 || n > INT_MAX)
        return err_set(err, ST_INVALID, "%s: %lld is out of range", key, (long long)n);
    *out = (size_t)n;
    return ST_OK;
}

enum status parse_pattern(const json *obj, const char *key, struct regex **out, struct error *err)
{
    const json *v = json_get(obj, key);
    const json *literal = json_get(v, "String"), *pattern = json_get(v, "Regex");
    if (json_kind_of(literal) == JSON_STR)
        return regex_compile_literal(json_as_str(literal, ""), json_str_len(literal), out, err);
    if (json_kind_of(pattern) == JSON_STR)
        return regex_compile(json_as_str(pattern, ""), json_str_len(pattern), out, err);
    return parse_mismatch(key, "{\"String\": ..} or {\"Regex\": ..}", v, err);
}

struct walk {
    const char *list;
    parse_leaf_fn *leaf;
    void *arg;
    struct error *err;
    int depth, leaves;
};

static enum status walk(struct walk *w, const json *v)
{
    if (absent(v))
        return ST_OK;
    if (json_kind_of(v) != JSON_OBJ)
        return parse_mismatch("component", "an object", v, w->err);
    const char *type = json_as_str(json_get(v, "type"), NULL);
    if (!type)
        return parse_mismatch("type", "a string", json_get(v, "type"), w->err);
    if (strcmp(type, "Sequence")) {
        if (++w->leaves > COMPONENTS_MAX)
            return err_set(w->err, ST_INVALID, "more than %d components", COMPONENTS_MAX);
        enum status st = w->leaf(w->arg, type, v, w->err);
        if (st && st != ST_UNSUPPORTED)
            err_prefix(w->err, "%.40s", type);
        return st;
    }
    const json *members = json_get(v, w->list);
    if (json_kind_of(members) != JSON_ARR)
        return parse_mismatch(w->list, "an array", members, w->err);
    if (++w->depth > DEPTH_MAX)
        return err_set(w->err, ST_INVALID, "Sequences nested deeper than %d", DEPTH_MAX);
    enum status st = ST_OK;
    for (size_t i = 0; i < json_count(members) && !st; i++)
        st = walk(w, json_at(members, i));
    w->depth--;
    return st;
}

enum status parse_components(const json *component, const char *list, parse_leaf_fn *leaf,
                             void *arg, struct error *err)
{
    struct walk w = {list, leaf, arg, err, 0, 0};
    return walk(&w, component);
}
