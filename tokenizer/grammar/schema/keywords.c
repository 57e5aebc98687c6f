/* Which keywords are supported, and that their values are what they should be. */
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

enum value_kind {
    ANY,
    STRING,
    COUNT,
    NUMBER,
    BOOLEAN,
    SCHEMA,
    SCHEMAS,
    SCHEMA_MAP,
    NAMES,
    VALUES,
    LISTS
};

static const struct {
    const char *key;
    enum value_kind kind;
} supported[] = {
    {"type", ANY},
    {"enum", VALUES},
    {"const", ANY},
    {"$ref", STRING},
    {"allOf", SCHEMAS},
    {"anyOf", SCHEMAS},
    {"oneOf", SCHEMAS},
    {"properties", SCHEMA_MAP},
    {"patternProperties", SCHEMA_MAP},
    {"additionalProperties", SCHEMA},
    {"propertyNames", SCHEMA},
    {"unevaluatedProperties", SCHEMA},
    {"required", NAMES},
    {"minProperties", COUNT},
    {"maxProperties", COUNT},
    {"prefixItems", SCHEMAS},
    {"items", ANY},
    {"additionalItems", SCHEMA},
    {"minItems", COUNT},
    {"maxItems", COUNT},
    {"minLength", COUNT},
    {"maxLength", COUNT},
    {"pattern", STRING},
    {"format", STRING},
    {"minimum", NUMBER},
    {"maximum", NUMBER},
    {"exclusiveMinimum", ANY},
    {"exclusiveMaximum", ANY},
    {"multipleOf", NUMBER},
    {"nullable", BOOLEAN},
    {"not", SCHEMA},
    {"if", SCHEMA},
    {"dependentRequired", LISTS},
    {"dependentSchemas", SCHEMA_MAP},
    {"dependencies", LISTS},
};

static const char *const refused[] = {"contains",         "uniqueItems", "extends",
                                      "disallow",         "$dynamicRef", "$recursiveRef",
                                      "unevaluatedItems", "divisibleBy"};

static const char *const conditions[] = {"not", "if", "dependentRequired", "dependentSchemas",
                                         "dependencies"};

bool schema_is_assertion(const char *key)
{
    for (size_t i = 0; i < sizeof supported / sizeof *supported; i++)
        if (strcmp(key, supported[i].key) == 0 && supported[i].kind != BOOLEAN)
            return true;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(key, refused[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof conditions / sizeof *conditions; i++)
        if (strcmp(key, conditions[i]) == 0)
            return true;
    return strcmp(key, SCHEMA_NOT_PATTERN) == 0 || strcmp(key, SCHEMA_NOT_VALUES) == 0;
}

static bool is_schema(const json *v)
{
    return json_kind_of(v) == JSON_OBJ || json_kind_of(v) == JSON_BOOL;
}

static bool all(const json *list, enum json_kind kind)
{
    if (json_kind_of(list) != JSON_ARR)
        return false;
    for (size_t i = 0; i < json_count(list); i++)
        if (json_kind_of(json_at(list, i)) != kind)
            return false;
    return true;
}

static bool all_schemas(const json *v)
{
    for (size_t i = 0; json_kind_of(v) == JSON_ARR && i < json_count(v); i++)
        if (!is_schema(json_at(v, i)))
            return false;
    for (void *it = json_kind_of(v) == JSON_OBJ ? json_first(v) : NULL; it; it = json_next(v, it))
        if (!is_schema(json_iter_value(it)))
            return false;
    return true;
}

/* Names with the names, or (in "dependencies") the schema, that they ask for. */
static bool is_dependencies(const json *v)
{
    if (json_kind_of(v) != JSON_OBJ)
        return false;
    for (void *it = json_first(v); it; it = json_next(v, it))
        if (!is_schema(json_iter_value(it)) && !all(json_iter_value(it), JSON_STR))
            return false;
    return true;
}

static bool is_count(const json *v)
{
    double d = json_as_number(v, -1);
    return d >= 0 && d <= 4e9 && d == (double)(int64_t)d;
}

/* What the value should have been; NULL: it is. */
static const char *wrong_value(enum value_kind kind, const json *v)
{
    enum json_kind is = json_kind_of(v);
    switch (kind) {
    case STRING:
        return is == JSON_STR ? NULL : "a string";
    case COUNT:
        return is_count(v) ? NULL : "a whole number from 0 to 4000000000";
    case NUMBER:
        return is == JSON_INT || is == JSON_REAL ? NULL : "a number";
    case BOOLEAN:
        return is == JSON_BOOL ? NULL : "a boolean";
    case SCHEMA:
        return is_schema(v) ? NULL : "a schema";
    case SCHEMAS:
        return is == JSON_ARR && json_count(v) > 0 && all_schemas(v) ? NULL : "an array of schemas";
    case SCHEMA_MAP:
        return is == JSON_OBJ && all_schemas(v) ? NULL : "an object of schemas";
    case NAMES:
        return all(v, JSON_STR) ? NULL : "an array of strings";
    case LISTS:
        return is_dependencies(v) ? NULL : "an object of arrays of names";
    case VALUES:
        return is == JSON_ARR ? NULL : "an array";
    default:
        return NULL;
    }
}

static const struct {
    const char *name;
    unsigned types;
} type_names[] = {
    {"null", TYPE_NULL},       {"boolean", TYPE_BOOL},
    {"integer", TYPE_INTEGER}, {"number", TYPE_INTEGER | TYPE_FRACTION},
    {"string", TYPE_STRING},   {"array", TYPE_ARRAY},
    {"object", TYPE_OBJECT},
};

static unsigned type_of_name(struct schema *s, const json *node, const json *name)
{
    const char *text = json_as_str(name, "");
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++)
        if (strcmp(text, type_names[i].name) == 0)
            return type_names[i].types;
    if (strcmp(text, "any") == 0 && s->ref_alone)
        return TYPE_ALL;
    schema_fail(s, ST_INVALID, node, "type \"%.40s\" is not one of JSON's", text);
    return 0;
}

unsigned schema_types(struct schema *s, const json *node)
{
    const json *v = json_get(node, "type");
    unsigned types = 0;
    if (!v)
        return TYPE_ALL;
    if (json_kind_of(v) != JSON_ARR)
        types = type_of_name(s, node, v);
    for (size_t i = 0; json_kind_of(v) == JSON_ARR && i < json_count(v); i++)
        types |= type_of_name(s, node, json_at(v, i));
    if (json_as_bool(json_get(node, "nullable"), false))
        types |= TYPE_NULL;
    return types;
}

/* A refused keyword may say nothing. */
static bool says_nothing(const char *key, const json *v)
{
    if (strcmp(key, "uniqueItems") == 0 && !json_as_bool(v, true))
        return true;
    if (strncmp(key, "unevaluated", 11) == 0 &&
        (json_as_bool(v, false) || (json_kind_of(v) == JSON_OBJ && json_count(v) == 0)))
        return true;
    return false;
}

static void check_items(struct schema *s, const json *node)
{
    const json *v = json_get(node, "items");
    if (v && !is_schema(v) && !(json_kind_of(v) == JSON_ARR && all_schemas(v)))
        schema_fail(s, ST_INVALID, node, "items must be a schema");
    if (json_kind_of(v) == JSON_ARR && json_get(node, "prefixItems"))
        schema_fail(s, ST_INVALID, node, "items must be a schema beside prefixItems");
}

void schema_check_keywords(struct schema *s, const json *node)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused && s->b->status == ST_OK; i++) {
        const json *v = json_get(node, refused[i]);
        if (v && !says_nothing(refused[i], v))
            schema_fail(s, ST_UNSUPPORTED, node, "keyword \"%s\" is not supported", refused[i]);
    }
    for (size_t i = 0; i < sizeof supported / sizeof *supported && s->b->status == ST_OK; i++) {
        const json *v = json_get(node, supported[i].key);
        const char *should = v ? wrong_value(supported[i].kind, v) : NULL;
        if (should)
            schema_fail(s, ST_INVALID, node, "%s must be %s", supported[i].key, should);
    }
    check_items(s, node);
    schema_types(s, node);
    if (json_get(node, "multipleOf") && !(json_as_number(json_get(node, "multipleOf"), 0) > 0))
        schema_fail(s, ST_INVALID, node, "multipleOf must be above 0");
}

int64_t schema_count(struct schema *s, const json *node, const char *key, int64_t fallback)
{
    (void)s;
    const json *v = json_get(node, key);
    return v ? (int64_t)json_as_number(v, 0) : fallback;
}
