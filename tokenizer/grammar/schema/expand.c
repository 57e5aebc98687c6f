/* From a conjunction as it is written to its alternatives: $ref, allOf, anyOf, oneOf. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define GROUPS_MAX 200
#define ONE_OF_MAX 6           /* branches that are made exclusive */
#define LOOKED_AT_MAX 8000000u /* nodes, for all references: bounds the time */

struct expansion {
    struct conj closed;
    const json *groups[GROUPS_MAX]; /* of anyOf and oneOf */
    uint32_t n_groups;
    bool flat;  /* branches are not looked at */
    bool alone; /* one schema and what it applies; no other one says something of the same value */
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

/* What stands below a keyword: nothing that is a schema, schemas, or schemas by name. */
enum below { BELOW_OTHER, BELOW_SCHEMA, BELOW_NAMED };
static enum below below(const char *key)
{
    static const char *const named[] = {
        "$defs",       "definitions", "properties", "patternProperties", "dependentSchemas",
        "dependencies"};
    static const char *const schemas[] = {"allOf",
                                          "anyOf",
                                          "oneOf",
                                          "not",
                                          "if",
                                          "then",
                                          "else",
                                          "items",
                                          "prefixItems",
                                          "additionalItems",
                                          "additionalProperties",
                                          "propertyNames",
                                          "contains"};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (strcmp(key, named[i]) == 0)
            return BELOW_NAMED;
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
        if (strcmp(key, schemas[i]) == 0)
            return BELOW_SCHEMA;
    return BELOW_OTHER;
}

struct search {
    const char *name; /* an id, or an anchor; NULL: `node` is looked for */
    bool anchor;
    const json *node; /* NULL too: any resource within the document */
    uint32_t looked_at;
};

/* The node that has this id, anywhere, or this anchor, in the same resource; of a node its
 * resource. NULL: not there. `base` is the resource of `at`. */
static const json *find(struct search *q, const json *at, const json *base, bool by_name)
{
    const json *found = NULL;
    bool object = json_kind_of(at) == JSON_OBJ;
    q->looked_at++;
    if (object && !by_name) {
        if (is_resource(at) && at != base) {
            if (q->anchor)
                return NULL;
            if (!q->name && !q->node)
                return at;
            base = at;
        }
        if (q->name ? is_named(at, q->name, q->anchor) : at == q->node)
            return q->name ? at : base;
    }
    for (void *it = object ? json_first(at) : NULL; it && !found; it = json_next(at, it)) {
        enum below kind = by_name ? BELOW_SCHEMA : below(json_iter_key(it));
        if (kind != BELOW_OTHER)
            found = find(q, json_iter_value(it), base, kind == BELOW_NAMED);
    }
    for (size_t i = 0; json_kind_of(at) == JSON_ARR && i < json_count(at) && !found; i++)
        found = find(q, json_at(at, i), base, false);
    return found;
}

static const json *look_for(struct schema *s, const json *at, struct search q)
{
    const json *found = find(&q, at, at, false);
    s->looked_at += q.looked_at;
    if (s->looked_at > LOOKED_AT_MAX)
        schema_fail(s, ST_UNSUPPORTED, at, "the references are too much to look for");
    return found;
}

/* The resource that a node is in. */
static const json *base_of(struct schema *s, const json *node)
{
    if (!s->resources_known)
        s->has_resources = look_for(s, s->root, (struct search){0}) != NULL;
    s->resources_known = true;
    const json *base =
        s->has_resources ? look_for(s, s->root, (struct search){.node = node}) : s->root;
    return base ? base : s->root; /* rewritten, or below a keyword that nobody knows */
}

const json *schema_resolve(struct schema *s, const json *at, const char *ref)
{
    const char *hash = strchr(ref, '#');
    const json *base = s->root, *to = NULL;
    if (hash == ref) {
        base = base_of(s, at);
    } else {
        struct buf id = {0};
        buf_append(&id, ref, hash ? (size_t)(hash - ref) : strlen(ref));
        base = id.data ? look_for(s, s->root, (struct search){.name = id.data}) : NULL;
        buf_fini(&id);
    }
    if (base && (!hash || !hash[1]))
        to = base;
    else if (base && hash[1] == '/')
        to = follow(base, hash + 1);
    else if (base)
        to = look_for(s, base, (struct search){.name = hash + 1, .anchor = true});
    if (!to)
        schema_fail(s, hash == ref ? ST_INVALID : ST_UNSUPPORTED, at,
                    hash == ref ? "$ref %.100s leads nowhere"
                                : "$ref %.100s leads out of this document",
                    ref);
    return to;
}

/* ---- collecting ---- */

static void take_group(struct schema *s, struct expansion *e, const json *node, const json *group)
{
    if (e->n_groups == GROUPS_MAX)
        schema_fail(s, ST_UNSUPPORTED, node, "more than %d choices apply at once", GROUPS_MAX);
    else
        e->groups[e->n_groups++] = group;
}

/* Two branches that a value could fulfil both; false: there are none. */
static bool find_overlap(struct schema *s, const json *group, size_t *a, size_t *b)
{
    size_t n = json_count(group);
    for (*a = 0; *a < n; ++*a)
        for (*b = *a + 1; *b < n && s->b->status == ST_OK; ++*b)
            if (!schema_disjoint(s, json_at(group, *a), json_at(group, *b), 0))
                return true;
    return false;
}

/* A oneOf is an anyOf where its branches exclude each other, or are made to. */
static void add_one_of(struct schema *s, struct expansion *e, const json *node)
{
    const json *group = json_get(node, "oneOf");
    size_t n = json_count(group), a, b;
    for (uint32_t i = 0; i < s->exclusive.n; i++)
        if (s->exclusive.v[i] == node) {
            take_group(s, e, node, group);
            return;
        }
    if (n > 100) {
        schema_fail(s, ST_UNSUPPORTED, node, "oneOf has more than 100 branches: use anyOf");
        return;
    }
    if (!find_overlap(s, group, &a, &b)) {
        conj_add(s, &s->exclusive, node);
        take_group(s, e, node, group);
        return;
    }
    bool ok = n <= ONE_OF_MAX;
    for (size_t i = 0; i < n && ok; i++)
        ok = schema_can_negate(s, json_at(group, i), 0);
    if (!ok) {
        schema_fail(s, ST_UNSUPPORTED, node,
                    "oneOf: branches %zu and %zu are not evidently exclusive: use anyOf", a, b);
        return;
    }
    const json *groups = schema_rewrite(s, node, "oneOf");
    if (groups)
        take_group(s, e, node, json_at(groups, 0));
}

static void add_conditions(struct schema *s, struct expansion *e, const json *node)
{
    static const char *const keys[] = {"not", "if", "dependentRequired", "dependentSchemas",
                                       "dependencies"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys && s->b->status == ST_OK; i++) {
        bool idle =
            strcmp(keys[i], "if") == 0 && !json_get(node, "then") && !json_get(node, "else");
        const json *groups =
            json_get(node, keys[i]) && !idle ? schema_rewrite(s, node, keys[i]) : NULL;
        for (size_t k = 0; k < json_count(groups); k++)
            take_group(s, e, node, json_at(groups, k));
    }
}

/* Says nothing of an object itself, and applies one thing only. */
static bool is_transparent(const json *node)
{
    static const char *const keys[] = {
        "properties",       "patternProperties", "additionalProperties", "allOf", "if", "not",
        "dependentSchemas", "dependencies",      "unevaluatedProperties"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_get(node, keys[i]))
            return false;
    return (json_get(node, "$ref") != NULL) + (json_get(node, "anyOf") != NULL) +
               (json_get(node, "oneOf") != NULL) <=
           1;
}

/* unevaluatedProperties is about all that its own schema applies: the closed conjunction has to be
 * that and nothing else. */
static void check_unevaluated(struct schema *s, const struct expansion *e, const json *node,
                              uint32_t before)
{
    bool ok = e->alone && e->n_groups <= 1;
    if (!json_get(node, "unevaluatedProperties"))
        return;
    for (uint32_t i = 0; i < before && ok; i++)
        ok = e->closed.v[i] == NULL || is_transparent(e->closed.v[i]);
    if (!ok)
        schema_fail(
            s, ST_UNSUPPORTED, node,
            "keyword \"unevaluatedProperties\" is not supported beside other schemas of the "
            "same value");
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
    if (!e->flat)
        check_unevaluated(s, e, node, before);
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
    if (e->flat)
        return;
    if (json_get(node, "anyOf"))
        take_group(s, e, node, json_get(node, "anyOf"));
    if (json_get(node, "oneOf"))
        add_one_of(s, e, node);
    add_conditions(s, e, node);
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
    if (++s->alternatives > SCHEMA_ALTERNATIVES_MAX) {
        schema_fail(s, ST_UNSUPPORTED, s->root, "the schema has more than %d alternatives",
                    SCHEMA_ALTERNATIVES_MAX);
        return;
    }
    if (group == e->n_groups) {
        drop_marks(&e->closed);
        emit->emit(s, &e->closed, emit->ctx);
        return;
    }
    const json *branches = e->groups[group];
    for (size_t i = 0; i < json_count(branches) && s->b->status == ST_OK; i++) {
        struct expansion *c = copy_of(s, e);
        if (!c)
            return;
        uint32_t before = c->closed.n;
        add_node(s, c, json_at(branches, i), 0);
        if (!schema_contradicts(s, &c->closed, before))
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
    e->alone = open->n == 1;
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
