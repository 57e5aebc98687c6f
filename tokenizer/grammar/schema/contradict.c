/* Whether a conjunction that is being put together can still be fulfilled: of many conditions on
 * one property only few combinations can, and the others are left out before they multiply. It says
 * "no" only where that is certain. */
#include "tokenizer/grammar/schema/schema.h"

#define CANDIDATES_MAX 64

/* The shortest list of values that a schema of this property gives; NULL: none does. */
static const json *candidates(const struct conj *c, const char *name, bool *one)
{
    const json *best = NULL;
    *one = false;
    for (uint32_t i = 0; i < c->n && !*one; i++) {
        const json *own = json_get(json_get(c->v[i], "properties"), name);
        const json *value = json_get(own, "const"), *list = json_get(own, "enum");
        if (value) {
            best = value;
            *one = true;
        } else if (list && (!best || json_count(list) < json_count(best))) {
            best = list;
        }
    }
    return best;
}

static bool fits(struct schema *s, const struct conj *c, const char *name, const json *value)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const json *own = json_get(json_get(c->v[i], "properties"), name);
        if (own && !schema_check(s, own, value, 0))
            return false;
    }
    return true;
}

/* A property that has to be there, and cannot. */
static bool is_impossible(struct schema *s, const struct conj *c, const char *name)
{
    bool one;
    for (uint32_t i = 0; i < c->n; i++) {
        const json *own = json_get(json_get(c->v[i], "properties"), name);
        if (json_kind_of(own) == JSON_BOOL && !json_as_bool(own, true))
            return true;
    }
    const json *values = candidates(c, name, &one);
    size_t n = one ? 1 : json_count(values);
    if (!values || n > CANDIDATES_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (fits(s, c, name, one ? values : json_at(values, i)))
            return false;
    return true;
}

bool schema_contradicts(struct schema *s, const struct conj *c, uint32_t from)
{
    unsigned types = TYPE_ALL;
    for (uint32_t i = 0; i < c->n; i++)
        types &= c->v[i] ? schema_types(s, c->v[i]) : TYPE_ALL;
    if (types != TYPE_OBJECT)
        return types == 0;
    for (uint32_t i = from; i < c->n && s->b->status == ST_OK; i++) {
        const json *own = json_get(c->v[i], "properties"), *list = json_get(c->v[i], "required");
        for (void *it = json_first(own); it; it = json_next(own, it))
            if (conj_requires(c, json_iter_key(it)) && is_impossible(s, c, json_iter_key(it)))
                return true;
        for (size_t k = 0; k < json_count(list); k++)
            if (is_impossible(s, c, json_as_str(json_at(list, k), "")))
                return true;
    }
    return false;
}
