/* Keywords that say what must not be, or what holds on a condition, written with others: `not`,
 * `if`, `dependentRequired`, `dependentSchemas`, `dependencies`, and a oneOf whose branches are not
 * exclusive. Each becomes groups of branches, of which one has to hold, as an anyOf. What cannot be
 * written so is refused.
 *
 * Of a negation some values may be lost (of numbers those that are no integers, where integers are
 * refused; all arrays or objects, where one is), never one be let in.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define DEPTH_MAX 8
#define VALUES_MAX 100

struct rewrite {
    struct schema *s;
    struct jw *w;
    const char *stuck; /* a keyword that cannot be turned round */
};

/* ---- pieces ---- */

static void put_pair(struct jw *w, const char *key, const char *text)
{
    jw_key(w, key);
    jw_str(w, text);
}

static void begin_of_type(struct jw *w, const char *type)
{
    jw_obj(w);
    put_pair(w, "type", type);
}

static void put_not_schema(struct jw *w, const json *schema)
{
    jw_obj(w);
    jw_key(w, "not");
    jw_json(w, schema);
    jw_end_obj(w);
}

/* Values of other types than these; without any there is no branch. */
static void put_other_types(struct jw *w, unsigned types)
{
    static const struct {
        const char *name;
        unsigned types;
    } names[] = {{"null", TYPE_NULL},     {"boolean", TYPE_BOOL},
                 {"string", TYPE_STRING}, {"array", TYPE_ARRAY},
                 {"object", TYPE_OBJECT}, {"number", TYPE_INTEGER | TYPE_FRACTION}};
    unsigned all = TYPE_ALL;
    if ((types & all) == all)
        return;
    jw_obj(w);
    jw_key(w, "type");
    jw_arr(w);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(types & names[i].types))
            jw_str(w, names[i].name);
    jw_end_arr(w);
    jw_end_obj(w);
}

/* ---- the opposite of each keyword, as branches ---- */

static void not_required(struct rewrite *x, const json *v, const json *node)
{
    (void)node;
    for (size_t i = 0; i < json_count(v); i++) {
        begin_of_type(x->w, "object");
        jw_key(x->w, "properties");
        jw_obj(x->w);
        jw_key(x->w, json_as_str(json_at(v, i), ""));
        jw_bool(x->w, false);
        jw_end_obj(x->w);
        jw_end_obj(x->w);
    }
}

static void not_properties(struct rewrite *x, const json *v, const json *node)
{
    (void)node;
    for (void *it = json_first(v); it; it = json_next(v, it)) {
        begin_of_type(x->w, "object");
        jw_key(x->w, "required");
        jw_arr(x->w);
        jw_str(x->w, json_iter_key(it));
        jw_end_arr(x->w);
        jw_key(x->w, "properties");
        jw_obj(x->w);
        jw_key(x->w, json_iter_key(it));
        put_not_schema(x->w, json_iter_value(it));
        jw_end_obj(x->w);
        jw_end_obj(x->w);
    }
}

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Numbers between, below and above those that are given. */
static void put_other_numbers(struct jw *w, double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_number);
    for (size_t i = 0; i <= n && n > 0; i++) {
        begin_of_type(w, "number");
        if (i > 0) {
            jw_key(w, "exclusiveMinimum");
            jw_real(w, v[i - 1]);
        }
        if (i < n) {
            jw_key(w, "exclusiveMaximum");
            jw_real(w, v[i]);
        }
        jw_end_obj(w);
    }
}

static void put_other_strings(struct jw *w, const json *const *v, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any = any || json_kind_of(v[i]) == JSON_STR;
    if (!any)
        return;
    begin_of_type(w, "string");
    jw_key(w, SCHEMA_NOT_VALUES);
    jw_arr(w);
    for (size_t i = 0; i < n; i++)
        if (json_kind_of(v[i]) == JSON_STR)
            jw_json(w, v[i]);
    jw_end_arr(w);
    jw_end_obj(w);
}

static void not_values(struct rewrite *x, const json *const *v, size_t n)
{
    double numbers[VALUES_MAX];
    size_t n_numbers = 0;
    bool yes = false, no = false;
    unsigned types = 0;
    for (size_t i = 0; i < n; i++) {
        types |= schema_type_of_value(v[i]);
        if (schema_type_of_value(v[i]) & (TYPE_INTEGER | TYPE_FRACTION))
            numbers[n_numbers++] = json_as_number(v[i], 0);
        yes = yes || (json_kind_of(v[i]) == JSON_BOOL && json_as_bool(v[i], false));
        no = no || (json_kind_of(v[i]) == JSON_BOOL && !json_as_bool(v[i], true));
    }
    put_other_types(x->w, types);
    put_other_strings(x->w, v, n);
    put_other_numbers(x->w, numbers, n_numbers);
    if (yes != no) {
        jw_obj(x->w);
        jw_key(x->w, "const");
        jw_bool(x->w, no);
        jw_end_obj(x->w);
    }
}

static void not_const(struct rewrite *x, const json *v, const json *node)
{
    (void)node;
    not_values(x, &v, 1);
}

static void not_enum(struct rewrite *x, const json *v, const json *node)
{
    const json *values[VALUES_MAX];
    (void)node;
    if (json_count(v) > VALUES_MAX) {
        x->stuck = "enum";
        return;
    }
    for (size_t i = 0; i < json_count(v); i++)
        values[i] = json_at(v, i);
    not_values(x, values, json_count(v));
}

static void not_pattern(struct rewrite *x, const json *v, const json *node)
{
    (void)node;
    begin_of_type(x->w, "string");
    put_pair(x->w, SCHEMA_NOT_PATTERN, json_as_str(v, ""));
    jw_end_obj(x->w);
}

static void not_type(struct rewrite *x, const json *v, const json *node)
{
    (void)v;
    put_other_types(x->w, schema_types(x->s, node));
}

static void not_any_of(struct rewrite *x, const json *v, const json *node)
{
    (void)node;
    jw_obj(x->w);
    jw_key(x->w, "allOf");
    jw_arr(x->w);
    for (size_t i = 0; i < json_count(v); i++)
        put_not_schema(x->w, json_at(v, i));
    jw_end_arr(x->w);
    jw_end_obj(x->w);
}

static void not_all_of(struct rewrite *x, const json *v, const json *node)
{
    (void)node;
    for (size_t i = 0; i < json_count(v); i++)
        put_not_schema(x->w, json_at(v, i));
}

static void not_not(struct rewrite *x, const json *v, const json *node)
{
    (void)node;
    jw_json(x->w, v);
}

static void not_ref(struct rewrite *x, const json *v, const json *node)
{
    const json *to = schema_resolve(x->s, node, json_as_str(v, ""));
    if (to)
        put_not_schema(x->w, to);
}

/* A count whose opposite is another count. */
static void put_count(struct rewrite *x, const char *type, const char *key, int64_t n)
{
    if (n < 0)
        return;
    begin_of_type(x->w, type);
    jw_key(x->w, key);
    jw_int(x->w, n);
    jw_end_obj(x->w);
}

static const struct {
    const char *key, *type, *opposite;
    int step;
} counts[] = {
    {"minLength", "string", "maxLength", -1},
    {"maxLength", "string", "minLength", 1},
    {"minItems", "array", "maxItems", -1},
    {"maxItems", "array", "minItems", 1},
    {"minProperties", "object", "maxProperties", -1},
    {"maxProperties", "object", "minProperties", 1},
};

static const struct {
    const char *key, *opposite, *strict; /* strict: the boolean of draft 4 beside it */
} bounds[] = {
    {"minimum", "exclusiveMaximum", "exclusiveMinimum"},
    {"maximum", "exclusiveMinimum", "exclusiveMaximum"},
    {"exclusiveMinimum", "maximum", NULL},
    {"exclusiveMaximum", "minimum", NULL},
};

static bool not_counted(struct rewrite *x, const char *key, const json *v, const json *node)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (strcmp(key, counts[i].key) == 0) {
            put_count(x, counts[i].type, counts[i].opposite,
                      schema_count(x->s, node, key, 0) + counts[i].step);
            return true;
        }
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        if (strcmp(key, bounds[i].key) != 0)
            continue;
        bool strict = bounds[i].strict && json_as_bool(json_get(node, bounds[i].strict), false);
        if (json_kind_of(v) == JSON_BOOL)
            return true; /* belongs to the bound beside it */
        begin_of_type(x->w, "number");
        jw_key(x->w, strict ? bounds[i].opposite + strlen("exclusive") : bounds[i].opposite);
        jw_json(x->w, v);
        jw_end_obj(x->w);
        return true;
    }
    return false;
}

static const struct {
    const char *key;
    void (*put)(struct rewrite *x, const json *v, const json *node);
} opposites[] = {
    {"type", not_type},         {"const", not_const},     {"enum", not_enum},
    {"required", not_required}, {"pattern", not_pattern}, {"properties", not_properties},
    {"anyOf", not_any_of},      {"allOf", not_all_of},    {"not", not_not},
    {"$ref", not_ref},
};

/* Branches of which one holds where `schema` does not. */
static void put_opposite(struct rewrite *x, const json *schema)
{
    if (json_kind_of(schema) == JSON_BOOL) {
        if (!json_as_bool(schema, true))
            jw_bool(x->w, true);
        return;
    }
    for (void *it = json_first(schema); it && !x->stuck; it = json_next(schema, it)) {
        const char *key = json_iter_key(it);
        size_t i = 0, n = sizeof opposites / sizeof *opposites;
        if (!schema_is_assertion(key))
            continue;
        while (i < n && strcmp(key, opposites[i].key) != 0)
            i++;
        if (i < n)
            opposites[i].put(x, json_iter_value(it), schema);
        else if (!not_counted(x, key, json_iter_value(it), schema))
            x->stuck = key;
    }
}

/* ---- keywords ---- */

static void put_all_of(struct jw *w, const json *a, const json *b)
{
    jw_obj(w);
    jw_key(w, "allOf");
    jw_arr(w);
    if (a)
        jw_json(w, a);
    if (b)
        jw_json(w, b);
    jw_end_arr(w);
    jw_end_obj(w);
}

static void rewrite_not(struct rewrite *x, const json *node)
{
    jw_arr(x->w);
    put_opposite(x, json_get(node, "not"));
    jw_end_arr(x->w);
}

static void rewrite_if(struct rewrite *x, const json *node)
{
    const json *condition = json_get(node, "if"), *otherwise = json_get(node, "else");
    jw_arr(x->w);
    put_all_of(x->w, condition, json_get(node, "then"));
    jw_obj(x->w);
    jw_key(x->w, "allOf");
    jw_arr(x->w);
    put_not_schema(x->w, condition);
    if (otherwise)
        jw_json(x->w, otherwise);
    jw_end_arr(x->w);
    jw_end_obj(x->w);
    jw_end_arr(x->w);
}

/* For every name: it is not there, or what depends on it holds. */
static void rewrite_dependent(struct rewrite *x, const json *node, const char *key)
{
    const json *all = json_get(node, key);
    for (void *it = json_first(all); it; it = json_next(all, it)) {
        const json *v = json_iter_value(it);
        jw_arr(x->w);
        jw_obj(x->w);
        jw_key(x->w, "properties");
        jw_obj(x->w);
        jw_key(x->w, json_iter_key(it));
        jw_bool(x->w, false);
        jw_end_obj(x->w);
        jw_end_obj(x->w);
        jw_obj(x->w);
        jw_key(x->w, "required");
        jw_arr(x->w);
        jw_str(x->w, json_iter_key(it));
        for (size_t i = 0; json_kind_of(v) == JSON_ARR && i < json_count(v); i++)
            jw_json(x->w, json_at(v, i));
        jw_end_arr(x->w);
        if (json_kind_of(v) != JSON_ARR) {
            jw_key(x->w, "allOf");
            jw_arr(x->w);
            jw_json(x->w, v);
            jw_end_arr(x->w);
        }
        jw_end_obj(x->w);
        jw_end_arr(x->w);
    }
}

/* Each branch without any of the others. */
static void rewrite_one_of(struct rewrite *x, const json *node)
{
    const json *group = json_get(node, "oneOf");
    jw_arr(x->w);
    for (size_t i = 0; i < json_count(group); i++) {
        jw_obj(x->w);
        jw_key(x->w, "allOf");
        jw_arr(x->w);
        jw_json(x->w, json_at(group, i));
        for (size_t k = 0; k < json_count(group); k++)
            if (k != i)
                put_not_schema(x->w, json_at(group, k));
        jw_end_arr(x->w);
        jw_end_obj(x->w);
    }
    jw_end_arr(x->w);
}

bool schema_can_negate(struct schema *s, const json *schema, int depth)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    struct rewrite x = {.s = s, .w = &w};
    if (depth > DEPTH_MAX || s->b->status != ST_OK)
        return false;
    jw_arr(&w);
    put_opposite(&x, schema);
    buf_fini(&text);
    static const char *const lists[] = {"anyOf", "allOf"};
    for (size_t k = 0; k < 2 && !x.stuck; k++) {
        const json *list = json_get(schema, lists[k]);
        for (size_t i = 0; i < json_count(list); i++)
            if (!schema_can_negate(s, json_at(list, i), depth + 1))
                return false;
    }
    const json *own = json_get(schema, "properties");
    for (void *it = json_first(own); it && !x.stuck; it = json_next(own, it))
        if (!schema_can_negate(s, json_iter_value(it), depth + 1))
            return false;
    const char *ref = json_as_str(json_get(schema, "$ref"), NULL);
    const json *to = ref && !x.stuck ? schema_resolve(s, schema, ref) : NULL;
    return !x.stuck && (!ref || (to && schema_can_negate(s, to, depth + 1)));
}

static const json *keep(struct schema *s, const json *node, const char *key, struct buf *text)
{
    json *made = NULL;
    s->made_bytes += text->len;
    struct schema_made *v = realloc(s->made, (s->n_made + 1) * sizeof *v);
    if (v)
        s->made = v;
    if (!v || text->failed || json_read(text->data, text->len, &made, NULL) != ST_OK) {
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return NULL;
    }
    s->made[s->n_made++] = (struct schema_made){node, key, made};
    return made;
}

const json *schema_rewrite(struct schema *s, const json *node, const char *key)
{
    for (uint32_t i = 0; i < s->n_made; i++)
        if (s->made[i].node == node && strcmp(s->made[i].key, key) == 0)
            return s->made[i].groups;
    if (s->n_made == SCHEMA_MADE_MAX || s->made_bytes >= SCHEMA_MADE_BYTES_MAX) {
        schema_fail(s, ST_UNSUPPORTED, node, "too many conditions and negations");
        return NULL;
    }
    struct buf text = {.max = SCHEMA_MADE_BYTES_MAX};
    struct jw w = jw_begin(&text);
    struct rewrite x = {.s = s, .w = &w};
    jw_arr(&w);
    if (strcmp(key, "not") == 0)
        rewrite_not(&x, node);
    else if (strcmp(key, "if") == 0)
        rewrite_if(&x, node);
    else if (strcmp(key, "oneOf") == 0)
        rewrite_one_of(&x, node);
    else
        rewrite_dependent(&x, node, key);
    jw_end_arr(&w);
    const json *groups = NULL;
    if (x.stuck)
        schema_fail(s, ST_UNSUPPORTED, node, "keyword \"not\" is not supported with \"%.40s\"",
                    x.stuck);
    else if (s->b->status == ST_OK)
        groups = keep(s, node, key, &text);
    buf_fini(&text);
    return groups;
}
