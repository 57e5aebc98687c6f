/* From a conjunction as it is written to its alternatives: $ref, allOf, anyOf, oneOf. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define GROUPS_MAX 64

struct expansion {
    struct conj closed;
    const json *groups[GROUPS_MAX]; /* of anyOf and oneOf */
    uint32_t n_groups;
    bool flat; /* branches are not looked at */
};

/* ---- references ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One part of a pointer, unescaped; returns what follows it. */
static const char *next_part(const char *p, struct buf *part)
{
    buf_clear(part);
    for (; *p && *p != '/'; p++) {
        if (p[0] == '%' && hex_value(p[1]) >= 0 && hex_value(p[2]) >= 0) {
            char c = (char)(hex_value(p[1]) * 16 + hex_value(p[2]));
            buf_putc(part, c);
            p += 2;
        } else if (p[0] == '~' && (p[1] == '0' || p[1] == '1')) {
            buf_putc(part, *++p == '0' ? '~' : '/');
        } else {
            buf_putc(part, *p);
        }
    }
    if (part->len == 0)
        buf_append(part, "", 0);
    return p;
}

static const json *follow(const json *at, const char *pointer)
{
    struct buf part = {0};
    while (at && *pointer == '/') {
        pointer = next_part(pointer + 1, &part);
        const char *key = part.len ? part.data : "";
        if (json_kind_of(at) == JSON_ARR) {
            char *end;
            unsigned long i = strtoul(key, &end, 10);
            at = *key && !*end ? json_at(at, i) : NULL;
        } else {
            at = json_get(at, key);
        }
    }
    buf_fini(&part);
    return *pointer ? NULL : at;
}

static const char *id_of(const json *node)
{
    const char *id = json_as_str(json_get(node, "$id"), NULL);
    return id ? id : json_as_str(json_get(node, "id"), NULL);
}

/* A document of its own within the document: "#..." inside of it means it. */
static bool is_resource(const json *node)
{
    const char *id = json_as_str(json_get(node, "$id"), "#");
    return id[0] != '#';
}

static bool is_named(const json *node, const char *name, bool anchor)
{
    const char *id = id_of(node), *own = json_as_str(json_get(node, "$anchor"), NULL);
    if (!own)
        own = json_as_str(json_get(node, "$dynamicAnchor"), NULL);
    if (!anchor)
        return id && strcmp(id, name) == 0;
    return (own && strcmp(own, name) == 0) || (id && id[0] == '#' && strcmp(id + 1, name) == 0);
}

/* The node that has this id, anywhere, or this anchor, in the same resource. */
static const json *find_named(const json *at, const char *name, bool anchor)
{
    const json *found = NULL;
    if (json_kind_of(at) == JSON_OBJ) {
        if (is_named(at, name, anchor))
            return at;
        for (void *it = json_first(at); it && !found; it = json_next(at, it)) {
            const json *value = json_iter_value(it);
            if (strcmp(json_iter_key(it), "enum") != 0 && strcmp(json_iter_key(it), "const") != 0 &&
                !(anchor && is_resource(value)))
                found = find_named(value, name, anchor);
        }
    }
    for (size_t i = 0; json_kind_of(at) == JSON_ARR && i < json_count(at) && !found; i++)
        if (!(anchor && is_resource(json_at(at, i))))
            found = find_named(json_at(at, i), name, anchor);
    return found;
}

/* The resource that `node` stands in: `base` for what is below `at`. NULL: not there. */
static const json *find_resource(const json *at, const json *node, const json *base)
{
    const json *found = NULL;
    if (is_resource(at))
        base = at;
    if (at == node)
        return base;
    for (void *it = json_kind_of(at) == JSON_OBJ ? json_first(at) : NULL; it && !found;
         it = json_next(at, it))
        found = find_resource(json_iter_value(it), node, base);
    for (size_t i = 0; json_kind_of(at) == JSON_ARR && i < json_count(at) && !found; i++)
        found = find_resource(json_at(at, i), node, base);
    return found;
}

const json *schema_resolve(struct schema *s, const json *at, const char *ref)
{
    const char *hash = strchr(ref, '#');
    const json *base = find_resource(s->root, at, s->root), *to = NULL;
    if (hash != ref) {
        struct buf id = {0};
        buf_append(&id, ref, hash ? (size_t)(hash - ref) : strlen(ref));
        base = id.data ? find_named(s->root, id.data, false) : NULL;
        buf_fini(&id);
    }
    if (base && (!hash || !hash[1]))
        to = base;
    else if (base && hash[1] == '/')
        to = follow(base, hash + 1);
    else if (base)
        to = find_named(base, hash + 1, true);
    if (!to)
        schema_fail(s, hash == ref ? ST_INVALID : ST_UNSUPPORTED, at,
                    hash == ref ? "$ref %.100s leads nowhere"
                                : "$ref %.100s leads out of this document",
                    ref);
    return to;
}

/* ---- collecting ---- */

static void add_group(struct schema *s, struct expansion *e, const json *node, const char *key)
{
    const json *group = json_get(node, key);
    if (!group)
        return;
    if (e->n_groups == GROUPS_MAX)
        schema_fail(s, ST_UNSUPPORTED, node, "more than %d choices apply at once", GROUPS_MAX);
    else
        e->groups[e->n_groups++] = group;
}

static void check_disjoint(struct schema *s, const json *node)
{
    const json *group = json_get(node, "oneOf");
    size_t n = json_count(group);
    uint32_t before = s->exclusive.n;
    conj_add(s, &s->exclusive, node);
    if (s->exclusive.n == before)
        return;
    if (n > 200)
        schema_fail(s, ST_UNSUPPORTED, node, "oneOf has more than 200 branches: use anyOf");
    for (size_t i = 0; i < n && s->b->status == ST_OK; i++)
        for (size_t k = i + 1; k < n && s->b->status == ST_OK; k++)
            if (!schema_disjoint(s, json_at(group, i), json_at(group, k), 0))
                schema_fail(s, ST_UNSUPPORTED, node,
                            "oneOf: branches %zu and %zu are not evidently exclusive: use anyOf", i,
                            k);
}

static void add_node(struct schema *s, struct expansion *e, const json *node, int depth)
{
    uint32_t before = e->closed.n;
    if (s->b->status != ST_OK)
        return;
    if (depth > 2 * SCHEMA_DEPTH_MAX) {
        schema_fail(s, ST_UNSUPPORTED, node, "references and allOf are nested too deep");
        return;
    }
    if (json_kind_of(node) != JSON_OBJ && json_kind_of(node) != JSON_BOOL) {
        schema_fail(s, ST_INVALID, node, "a schema must be an object or a boolean, got %s",
                    json_kind_name(json_kind_of(node)));
        return;
    }
    const char *ref = json_as_str(json_get(node, "$ref"), NULL);
    conj_add(s, &e->closed, node);
    if (json_kind_of(node) == JSON_BOOL || e->closed.n == before)
        return;
    if (ref && s->ref_alone)
        e->closed.v[before] = NULL; /* stays as a mark until the expansion is done */
    else
        schema_check_keywords(s, node);
    if (ref && s->b->status == ST_OK) {
        const json *to = schema_resolve(s, node, ref);
        if (to)
            add_node(s, e, to, depth + 1);
    }
    if (ref && s->ref_alone)
        return;
    const json *all = json_get(node, "allOf");
    for (size_t i = 0; i < json_count(all); i++)
        add_node(s, e, json_at(all, i), depth + 1);
    add_group(s, e, node, "anyOf");
    add_group(s, e, node, "oneOf");
    if (json_get(node, "oneOf") && !e->flat)
        check_disjoint(s, node);
}

static void drop_marks(struct conj *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++)
        if (c->v[i])
            c->v[n++] = c->v[i];
    c->n = n;
}

/* ---- choosing ---- */

static struct expansion *copy_of(struct schema *s, const struct expansion *e)
{
    struct expansion *c = malloc(sizeof *c);
    if (!c) {
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return NULL;
    }
    *c = *e;
    c->closed = (struct conj){.never = e->closed.never};
    c->closed.v = calloc(e->closed.n + 1, sizeof *c->closed.v);
    if (!c->closed.v) {
        free(c);
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return NULL;
    }
    memcpy(c->closed.v, e->closed.v, e->closed.n * sizeof *c->closed.v);
    c->closed.n = e->closed.n;
    c->closed.cap = e->closed.n + 1;
    return c;
}

static void choose(struct schema *s, struct expansion *e, uint32_t group,
                   const struct schema_emit *emit)
{
    if (s->b->status != ST_OK || e->closed.never)
        return;
    if (group == e->n_groups) {
        if (++s->alternatives > SCHEMA_ALTERNATIVES_MAX) {
            schema_fail(s, ST_UNSUPPORTED, s->root, "the schema has more than %d alternatives",
                        SCHEMA_ALTERNATIVES_MAX);
            return;
        }
        drop_marks(&e->closed);
        emit->emit(s, &e->closed, emit->ctx);
        return;
    }
    const json *branches = e->groups[group];
    for (size_t i = 0; i < json_count(branches) && s->b->status == ST_OK; i++) {
        struct expansion *c = copy_of(s, e);
        if (!c)
            return;
        add_node(s, c, json_at(branches, i), 0);
        choose(s, c, group + 1, emit);
        conj_fini(&c->closed);
        free(c);
    }
}

void schema_expand(struct schema *s, const struct conj *open, const struct schema_emit *emit)
{
    struct expansion *e = calloc(1, sizeof *e);
    if (!e) {
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return;
    }
    for (uint32_t i = 0; i < open->n; i++)
        add_node(s, e, open->v[i], 0);
    choose(s, e, 0, emit);
    conj_fini(&e->closed);
    free(e);
}

void schema_expand_flat(struct schema *s, const json *node, struct conj *out)
{
    struct expansion *e = calloc(1, sizeof *e);
    if (!e) {
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return;
    }
    e->flat = true;
    add_node(s, e, node, 0);
    drop_marks(&e->closed);
    *out = e->closed;
    free(e);
}
