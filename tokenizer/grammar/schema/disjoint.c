/* Whether no value can fulfil two schemas: what makes a oneOf an anyOf. It says yes only when that
 * is evident: other types, other constants, or a property that both must have and that tells them
 * apart. */
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define DEPTH_MAX 4

static unsigned types_of(struct schema *s, const struct conj *c)
{
    unsigned types = TYPE_ALL;
    for (uint32_t i = 0; i < c->n; i++)
        types &= schema_types(s, c->v[i]);
    return types;
}

static const json *values_of(const struct conj *c, bool *one)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const json *constant = json_get(c->v[i], "const"), *list = json_get(c->v[i], "enum");
        *one = constant != NULL;
        if (constant || list)
            return constant ? constant : list;
    }
    return NULL;
}

/* Each listed value is refused by the other side. */
static bool values_refused(struct schema *s, const struct conj *c, const struct conj *other)
{
    bool one;
    const json *values = values_of(c, &one);
    if (!values)
        return false;
    for (size_t i = 0; i < (one ? 1 : json_count(values)); i++) {
        const json *v = one ? values : json_at(values, i);
        bool ok = true;
        for (uint32_t k = 0; k < other->n && ok; k++)
            ok = schema_check(s, other->v[k], v, 0);
        if (ok)
            return false;
    }
    return true;
}

static bool forbids(const struct conj *c, const char *name)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const json *more = json_get(c->v[i], "additionalProperties");
        const json *own = json_get(json_get(c->v[i], "properties"), name);
        if (own ? json_kind_of(own) == JSON_BOOL && !json_as_bool(own, true)
                : json_kind_of(more) == JSON_BOOL && !json_as_bool(more, true) &&
                      !json_get(c->v[i], "patternProperties"))
            return true;
    }
    return false;
}

/* Two schemas that only name the same type: the usual case of properties with one name. */
static bool only_types(const json *a, const json *b)
{
    static const char *const keys[] = {"const", "enum", "$ref", "allOf", "minimum", "maximum"};
    const char *type = json_as_str(json_get(a, "type"), NULL);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_get(a, keys[i]) || json_get(b, keys[i]))
            return false;
    return type && strcmp(type, "object") != 0 &&
           strcmp(type, json_as_str(json_get(b, "type"), "")) == 0;
}

static bool property_differs(struct schema *s, const struct conj *a, const struct conj *b,
                             const char *name, int depth)
{
    for (uint32_t i = 0; i < a->n; i++)
        for (uint32_t k = 0; k < b->n; k++) {
            const json *x = json_get(json_get(a->v[i], "properties"), name);
            const json *y = json_get(json_get(b->v[k], "properties"), name);
            if (x && y && !only_types(x, y) && schema_disjoint(s, x, y, depth + 1))
                return true;
        }
    return false;
}

/* A name that `a` requires and that `b` forbids, or requires with another value. */
static bool name_differs(struct schema *s, const struct conj *a, const struct conj *b, int depth)
{
    for (uint32_t i = 0; i < a->n; i++) {
        const json *list = json_get(a->v[i], "required");
        for (size_t k = 0; k < json_count(list); k++) {
            const char *name = json_as_str(json_at(list, k), "");
            if (forbids(b, name) || (depth < DEPTH_MAX && property_differs(s, a, b, name, depth) &&
                                     conj_requires(b, name)))
                return true;
        }
    }
    return false;
}

static bool ranges_apart(const struct conj *a, const struct conj *b)
{
    for (uint32_t i = 0; i < a->n; i++)
        for (uint32_t k = 0; k < b->n; k++) {
            const json *hi = json_get(a->v[i], "maximum"), *lo = json_get(b->v[k], "minimum");
            if (hi && lo && json_as_number(hi, 0) < json_as_number(lo, 0))
                return true;
        }
    return false;
}

bool schema_disjoint(struct schema *s, const json *a, const json *b, int depth)
{
    struct conj x = {0}, y = {0};
    schema_expand_flat(s, a, &x);
    schema_expand_flat(s, b, &y);
    unsigned common = types_of(s, &x) & types_of(s, &y);
    bool apart =
        x.never || y.never || common == 0 || values_refused(s, &x, &y) || values_refused(s, &y, &x);
    if (!apart && common == TYPE_OBJECT)
        apart = name_differs(s, &x, &y, depth) || name_differs(s, &y, &x, depth);
    if (!apart && (common & ~(unsigned)(TYPE_INTEGER | TYPE_FRACTION)) == 0)
        apart = ranges_apart(&x, &y) || ranges_apart(&y, &x);
    conj_fini(&x);
    conj_fini(&y);
    return apart && s->b->status == ST_OK;
}
