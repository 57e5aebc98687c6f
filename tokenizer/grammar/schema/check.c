/* Whether a value fulfils a schema: used on the values that a schema lists itself. */
#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/grammar/schema/schema.h"

#define CHECKS_MAX 1000000u /* of values and of listed ones they are compared with */

int64_t schema_length(const json *string)
{
    const char *text = json_as_str(string, "");
    int64_t n = 0;
    for (size_t i = 0; i < json_str_len(string); i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

static bool is_number(const json *v)
{
    return json_kind_of(v) == JSON_INT || json_kind_of(v) == JSON_REAL;
}

bool schema_same_value(const json *a, const json *b)
{
    enum json_kind kind = json_kind_of(a);
    if (is_number(a) && is_number(b))
        return json_as_number(a, 0) == json_as_number(b, 0);
    if (kind != json_kind_of(b) || json_count(a) != json_count(b))
        return false;
    switch (kind) {
    case JSON_BOOL:
        return json_as_bool(a, false) == json_as_bool(b, false);
    case JSON_STR:
        return json_str_len(a) == json_str_len(b) &&
               memcmp(json_as_str(a, ""), json_as_str(b, ""), json_str_len(a)) == 0;
    case JSON_ARR:
        for (size_t i = 0; i < json_count(a); i++)
            if (!schema_same_value(json_at(a, i), json_at(b, i)))
                return false;
        return true;
    case JSON_OBJ:
        for (void *it = json_first(a); it; it = json_next(a, it)) {
            const json *other = json_get(b, json_iter_key(it));
            if (!other || !schema_same_value(json_iter_value(it), other))
                return false;
        }
        return true;
    default:
        return true;
    }
}

unsigned schema_type_of_value(const json *v)
{
    double d = json_as_number(v, 0);
    switch (json_kind_of(v)) {
    case JSON_NULL_:
        return TYPE_NULL;
    case JSON_BOOL:
        return TYPE_BOOL;
    case JSON_INT:
        return TYPE_INTEGER;
    case JSON_REAL:
        return d == floor(d) ? TYPE_INTEGER : TYPE_FRACTION;
    case JSON_STR:
        return TYPE_STRING;
    case JSON_ARR:
        return TYPE_ARRAY;
    default:
        return TYPE_OBJECT;
    }
}

static bool pattern_accepts(struct schema *s, const json *at, const char *pattern, bool search,
                            const json *value)
{
    struct charnet net = {0};
    struct charnet_pattern p = {
        .text = pattern, .len = strlen(pattern), .search = search, .what = "pattern"};
    schema_pattern(s, at, &p, &net);
    bool yes = s->b->status == ST_OK &&
               charnet_accepts(&net, s->b, json_as_str(value, ""), json_str_len(value));
    charnet_fini(&net);
    return yes;
}

static bool check_string(struct schema *s, const json *node, const json *v)
{
    int64_t n = schema_length(v);
    const char *pattern = json_as_str(json_get(node, "pattern"), NULL);
    const char *format = schema_format_pattern(json_as_str(json_get(node, "format"), ""));
    const char *not_pattern = json_as_str(json_get(node, SCHEMA_NOT_PATTERN), NULL);
    const json *not_values = json_get(node, SCHEMA_NOT_VALUES);
    for (size_t i = 0; i < json_count(not_values); i++)
        if (schema_same_value(json_at(not_values, i), v))
            return false;
    return n >= schema_count(s, node, "minLength", 0) &&
           (!not_pattern || !pattern_accepts(s, node, not_pattern, true, v)) &&
           n <= schema_count(s, node, "maxLength", INT64_MAX) &&
           (!pattern || pattern_accepts(s, node, pattern, true, v)) &&
           (!format || pattern_accepts(s, node, format, false, v));
}

/* A bound that is a number, or a boolean beside `plain` (draft 4). */
static bool check_number(const json *node, double v)
{
    const json *min = json_get(node, "minimum"), *max = json_get(node, "maximum");
    const json *above = json_get(node, "exclusiveMinimum");
    const json *below = json_get(node, "exclusiveMaximum");
    double step = json_as_number(json_get(node, "multipleOf"), 0);
    if (min &&
        (v < json_as_number(min, 0) || (json_as_bool(above, false) && v == json_as_number(min, 0))))
        return false;
    if (max &&
        (v > json_as_number(max, 0) || (json_as_bool(below, false) && v == json_as_number(max, 0))))
        return false;
    if (v <= json_as_number(above, -INFINITY) || v >= json_as_number(below, INFINITY))
        return false;
    double quotient = step > 0 ? v / step : 0;
    return fabs(quotient - nearbyint(quotient)) <= 1e-9;
}

static bool check_array(struct schema *s, const json *node, const json *v, int depth)
{
    size_t n = json_count(v);
    const json *items = json_get(node, "items"), *prefix = json_get(node, "prefixItems");
    if (json_kind_of(items) == JSON_ARR) {
        prefix = items;
        items = json_get(node, "additionalItems");
    }
    if ((int64_t)n < schema_count(s, node, "minItems", 0) ||
        (int64_t)n > schema_count(s, node, "maxItems", INT64_MAX))
        return false;
    for (size_t i = 0; i < n; i++) {
        const json *schema = i < json_count(prefix) ? json_at(prefix, i) : items;
        if (schema && !schema_check(s, schema, json_at(v, i), depth + 1))
            return false;
    }
    return true;
}

static bool check_member(struct schema *s, const json *node, const char *key, const json *v,
                         int depth)
{
    const json *own = json_get(json_get(node, "properties"), key);
    const json *patterns = json_get(node, "patternProperties");
    const json *more = json_get(node, "additionalProperties");
    bool matched = own != NULL;
    if (own && !schema_check(s, own, v, depth + 1))
        return false;
    for (void *it = json_first(patterns); it; it = json_next(patterns, it)) {
        struct charnet net = {0};
        struct charnet_pattern p = {.text = json_iter_key(it),
                                    .len = strlen(json_iter_key(it)),
                                    .search = true,
                                    .what = "patternProperties"};
        schema_pattern(s, node, &p, &net);
        bool yes = s->b->status == ST_OK && charnet_accepts(&net, s->b, key, strlen(key));
        charnet_fini(&net);
        matched = matched || yes;
        if (yes && !schema_check(s, json_iter_value(it), v, depth + 1))
            return false;
    }
    return matched || !more || schema_check(s, more, v, depth + 1);
}

static bool check_object(struct schema *s, const json *node, const json *v, int depth)
{
    const json *required = json_get(node, "required");
    int64_t n = (int64_t)json_count(v);
    if (n > 0 && json_get(node, "unevaluatedProperties"))
        return false; /* perhaps it does: none is let through */
    if (n < schema_count(s, node, "minProperties", 0) ||
        n > schema_count(s, node, "maxProperties", INT64_MAX))
        return false;
    for (size_t i = 0; i < json_count(required); i++)
        if (!json_get(v, json_as_str(json_at(required, i), "")))
            return false;
    for (void *it = json_first(v); it; it = json_next(v, it))
        if (!check_member(s, node, json_iter_key(it), json_iter_value(it), depth))
            return false;
    return true;
}

static bool check_listed(struct schema *s, const json *node, const json *v)
{
    const json *constant = json_get(node, "const"), *list = json_get(node, "enum");
    bool found = list == NULL;
    for (size_t i = 0; i < json_count(list) && !found; i++, s->checks++)
        found = schema_same_value(json_at(list, i), v);
    return found && (!constant || schema_same_value(constant, v));
}

static bool check_dependent(struct schema *s, const json *node, const json *v, int depth)
{
    static const char *const keys[] = {"dependentRequired", "dependentSchemas", "dependencies"};
    for (size_t k = 0; k < 3; k++) {
        const json *all = json_get(node, keys[k]);
        for (void *it = json_first(all); it; it = json_next(all, it)) {
            const json *on = json_iter_value(it);
            if (json_kind_of(v) != JSON_OBJ || !json_get(v, json_iter_key(it)))
                continue;
            for (size_t i = 0; json_kind_of(on) == JSON_ARR && i < json_count(on); i++)
                if (!json_get(v, json_as_str(json_at(on, i), "")))
                    return false;
            if (json_kind_of(on) != JSON_ARR && !schema_check(s, on, v, depth + 1))
                return false;
        }
    }
    return true;
}

static bool check_conditions(struct schema *s, const json *node, const json *v, int depth)
{
    const json *not = json_get(node, "not"), *condition = json_get(node, "if");
    if (not &&schema_check(s, not, v, depth + 1))
        return false;
    if (condition) {
        const json *next =
            json_get(node, schema_check(s, condition, v, depth + 1) ? "then" : "else");
        if (next && !schema_check(s, next, v, depth + 1))
            return false;
    }
    return check_dependent(s, node, v, depth);
}

static bool check_applied(struct schema *s, const json *node, const json *v, int depth)
{
    static const char *const keys[] = {"allOf", "anyOf", "oneOf"};
    const char *ref = json_as_str(json_get(node, "$ref"), NULL);
    if (ref) {
        const json *to = schema_resolve(s, node, ref);
        if (!to || !schema_check(s, to, v, depth + 1))
            return false;
    }
    for (size_t k = 0; k < 3; k++) {
        const json *group = json_get(node, keys[k]);
        size_t fulfilled = 0, n = json_count(group);
        for (size_t i = 0; i < n; i++)
            fulfilled += schema_check(s, json_at(group, i), v, depth + 1);
        if (group && (k == 0 ? fulfilled < n : k == 1 ? fulfilled == 0 : fulfilled != 1))
            return false;
    }
    return true;
}

bool schema_check(struct schema *s, const json *node, const json *v, int depth)
{
    return (json_kind_of(node) == JSON_BOOL || check_listed(s, node, v)) &&
           schema_check_unlisted(s, node, v, depth);
}

bool schema_check_unlisted(struct schema *s, const json *node, const json *v, int depth)
{
    if (s->b->status != ST_OK)
        return false;
    if (depth > SCHEMA_DEPTH_MAX || ++s->checks > CHECKS_MAX) {
        schema_fail(s, ST_UNSUPPORTED, node, "the listed values are too much to check");
        return false;
    }
    if (json_kind_of(node) == JSON_BOOL)
        return json_as_bool(node, true);
    unsigned type = schema_type_of_value(v);
    if (!(schema_types(s, node) & type))
        return false;
    bool ok = true;
    if (type == TYPE_STRING)
        ok = check_string(s, node, v);
    else if (type & (TYPE_INTEGER | TYPE_FRACTION))
        ok = check_number(node, json_as_number(v, 0));
    else if (type == TYPE_ARRAY)
        ok = check_array(s, node, v, depth);
    else if (type == TYPE_OBJECT)
        ok = check_object(s, node, v, depth);
    return ok && check_applied(s, node, v, depth) && check_conditions(s, node, v, depth);
}
