/* Structures: literals, schemas and patterns put together, for output that has a form of its own
 * around JSON (calls of tools). A tree of objects with one of these keys each:
 *
 *     {"literal": "<call>"}                  these very bytes
 *     {"special": "[TOOL_CALLS]"}            the special token of that name
 *     {"marker": "</think>"}                 either of these
 *     {"schema": {...}}                      JSON that fulfils the schema
 *     {"regex": "..."}                       a match of the pattern
 *     {"gbnf": "root ::= ..."}               a sentence of the grammar
 *     {"text_without": "<call>"}             any text that does not contain this one
 *     {"until": ["</a>"], "never": ["<b>"]}  any text up to and with the first of these markers,
 *                                            without those texts, which may be left out
 *     {"seq": [...]}, {"any": [...]}         one after another; one of them
 *     {"repeat": {...}, "min": 0, "max": 3}  so often; without max any number of times
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/charnet.h"
#include "tokenizer/grammar/compile.h"

#define DEPTH_MAX 64

struct structure {
    struct builder *b;
    struct buf place; /* JSON pointer of the node under way */
    int depth;
};

static void fail(struct structure *t, enum status status, const char *why)
{
    build_fail(t->b, status, "#%s: %s", t->place.data ? t->place.data : "", why);
}

static uint32_t put(struct structure *t, const json *node, uint32_t from);

static uint32_t put_below(struct structure *t, const json *node, const char *key, uint32_t from)
{
    size_t len = t->place.len;
    buf_printf(&t->place, "/%s", key);
    uint32_t to = put(t, node, from);
    t->place.len = len;
    if (t->place.data)
        t->place.data[len] = 0;
    return to;
}

static uint32_t put_list(struct structure *t, const json *list, uint32_t from, bool any)
{
    uint32_t end = build_state(t->b);
    if (json_kind_of(list) != JSON_ARR || json_count(list) == 0)
        fail(t, ST_INVALID, "must be an array that is not empty");
    for (size_t i = 0; i < json_count(list) && t->b->status == ST_OK; i++) {
        char key[40];
        snprintf(key, sizeof key, "%s/%zu", any ? "any" : "seq", i);
        uint32_t to = put_below(t, json_at(list, i), key, from);
        if (any)
            build_eps(t->b, to, end);
        else
            from = to;
    }
    return any ? end : from;
}

static uint32_t put_repeat(struct structure *t, const json *node, uint32_t from)
{
    int64_t min = json_as_int(json_get(node, "min"), 0);
    int64_t max = json_as_int(json_get(node, "max"), GRAMMAR_UNBOUNDED);
    if (min < 0 || max < min || max > GRAMMAR_UNBOUNDED) {
        fail(t, ST_INVALID, "min and max must be counts, max not below min");
        return from;
    }
    uint32_t rule = build_rule(t->b, "(repeat)"), to = build_state(t->b);
    if (t->b->status != ST_OK)
        return from;
    uint32_t inner = put_below(t, json_get(node, "repeat"), "repeat", t->b->rules[rule].start);
    if (t->b->status != ST_OK)
        return from;
    build_eps(t->b, inner, t->b->rules[rule].end);
    build_call(t->b, from, to, rule, (struct build_repeat){(uint32_t)min, (uint32_t)max});
    return to;
}

static uint32_t put_regex(struct structure *t, const json *v, uint32_t from)
{
    struct charnet net = {0};
    uint32_t to = build_state(t->b);
    char what[128];
    snprintf(what, sizeof what, "#%.100s/regex", t->place.data ? t->place.data : "");
    struct charnet_pattern p = {.text = json_as_str(v, ""), .len = json_str_len(v), .what = what};
    charnet_compile(t->b, &p, &net);
    if (t->b->status == ST_OK)
        charnet_lay_out_to(&net, t->b, from, to, false);
    charnet_fini(&net);
    return to;
}

/* Text that does not contain `v`: the states are how much of it has just been written. */
static uint32_t put_without(struct structure *t, const json *v, uint32_t from)
{
    struct charnet parts[1] = {{0}}, net = {0};
    struct buf pattern = {0};
    uint32_t to = build_state(t->b);
    for (size_t i = 0; i < json_str_len(v); i++) {
        char c = json_as_str(v, "")[i];
        if (strchr("\\^$.|?*+()[]{}", c))
            buf_putc(&pattern, '\\');
        buf_putc(&pattern, c);
    }
    struct charnet_pattern p = {.text = pattern.data ? pattern.data : "",
                                .len = pattern.len,
                                .search = true,
                                .what = "text_without"};
    if (pattern.len == 0)
        fail(t, ST_INVALID, "text_without must not be empty");
    charnet_compile(t->b, &p, &parts[0]);
    if (t->b->status == ST_OK)
        charnet_combine(parts, 1, t->b, &net);
    for (uint32_t i = 0; i < net.n_states; i++)
        net.accept[i] = !net.accept[i];
    if (t->b->status == ST_OK)
        charnet_lay_out_to(&net, t->b, from, to, false);
    charnet_fini(&parts[0]);
    charnet_fini(&net);
    buf_fini(&pattern);
    return to;
}

static uint32_t put_literal(struct structure *t, const json *v, uint32_t from)
{
    return build_text(t->b, from, json_as_str(v, ""), json_str_len(v));
}

static uint32_t put_marker(struct structure *t, const json *v, uint32_t from)
{
    uint32_t to = build_state(t->b);
    build_eps(t->b, put_literal(t, v, from), to);
    build_eps(t->b, build_special(t->b, from, v), to);
    return to;
}

static uint32_t put_schema(struct structure *t, const json *node, uint32_t from)
{
    const json *v = json_get(node, "schema"), *at = json_get(node, "at");
    struct buf where = {0};
    if (json_kind_of(at) == JSON_STR)
        buf_puts(&where, json_as_str(at, ""));
    else
        buf_printf(&where, "%s/schema", t->place.data ? t->place.data : "");
    uint32_t rule = schema_compile(t->b, v, where.data ? where.data : "");
    buf_fini(&where);
    return t->b->status == ST_OK ? build_call_once(t->b, from, rule) : from;
}

static uint32_t put_text(struct structure *t, const json *node, uint32_t from)
{
    const json *v;
    if ((v = json_get(node, "literal")) != NULL && json_kind_of(v) == JSON_STR)
        return put_literal(t, v, from);
    if ((v = json_get(node, "special")) != NULL && json_kind_of(v) == JSON_STR)
        return build_special(t->b, from, v);
    if ((v = json_get(node, "marker")) != NULL && json_kind_of(v) == JSON_STR)
        return put_marker(t, v, from);
    if ((v = json_get(node, "until")) != NULL)
        return build_until(t->b, from, v, json_get(node, "never"));
    if ((v = json_get(node, "regex")) != NULL && json_kind_of(v) == JSON_STR)
        return put_regex(t, v, from);
    if ((v = json_get(node, "text_without")) != NULL && json_kind_of(v) == JSON_STR)
        return put_without(t, v, from);
    if ((v = json_get(node, "gbnf")) != NULL && json_kind_of(v) == JSON_STR)
        return build_call_once(t->b, from, gbnf_compile(t->b, json_as_str(v, ""), json_str_len(v)));
    fail(t, ST_INVALID, "not a node of a structure");
    return from;
}

static uint32_t put(struct structure *t, const json *node, uint32_t from)
{
    const json *v;
    uint32_t to = from;
    if (t->b->status != ST_OK)
        return from;
    if (++t->depth > DEPTH_MAX)
        fail(t, ST_UNSUPPORTED, "nested too deep");
    else if ((v = json_get(node, "seq")) != NULL)
        to = put_list(t, v, from, false);
    else if ((v = json_get(node, "any")) != NULL)
        to = put_list(t, v, from, true);
    else if (json_get(node, "repeat"))
        to = put_repeat(t, node, from);
    else if ((v = json_get(node, "schema")) != NULL)
        to = put_schema(t, node, from);
    else
        to = put_text(t, node, from);
    t->depth--;
    return to;
}

uint32_t structure_compile(struct builder *b, const json *root)
{
    struct structure t = {.b = b};
    uint32_t rule = build_rule(b, "root");
    if (b->status == ST_OK) {
        uint32_t to = put(&t, root, b->rules[rule].start);
        if (b->status == ST_OK)
            build_eps(b, to, b->rules[rule].end);
    }
    buf_fini(&t.place);
    return rule;
}

bool structure_find(const json *at, const void *node, struct buf *out)
{
    const json *schema = json_get(at, "schema"), *place = json_get(at, "at");
    size_t len = out->len;
    if (json_kind_of(place) == JSON_STR) {
        buf_puts(out, json_as_str(place, ""));
        if (schema_find(schema, node, out))
            return true;
        out->len = len;
        return false;
    }
    if (json_kind_of(at) == JSON_OBJ)
        for (void *it = json_first(at); it; it = json_next(at, it))
            if (structure_find(json_iter_value(it), node, out))
                return true;
    for (size_t i = 0; json_kind_of(at) == JSON_ARR && i < json_count(at); i++)
        if (structure_find(json_at(at, i), node, out))
            return true;
    return false;
}
