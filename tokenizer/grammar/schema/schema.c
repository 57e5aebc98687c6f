#include "tokenizer/grammar/schema/schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

/* ---- where it is wrong ---- */

static void put_key(struct buf *out, const char *key)
{
    buf_putc(out, '/');
    for (; *key && out->len < 300; key++) {
        if (*key == '~')
            buf_puts(out, "~0");
        else if (*key == '/')
            buf_puts(out, "~1");
        else
            buf_putc(out, *key);
    }
}

/* Appends the pointer of `node` below `at`; a node is told by its address. */
bool schema_find(const json *at, const void *node, struct buf *out)
{
    size_t len = out->len;
    if (at == node)
        return true;
    if (json_kind_of(at) == JSON_OBJ)
        for (void *it = json_first(at); it; it = json_next(at, it)) {
            put_key(out, json_iter_key(it));
            if (schema_find(json_iter_value(it), node, out))
                return true;
            out->len = len;
        }
    for (size_t i = 0; json_kind_of(at) == JSON_ARR && i < json_count(at); i++) {
        buf_printf(out, "/%zu", i);
        if (schema_find(json_at(at, i), node, out))
            return true;
        out->len = len;
    }
    return false;
}

void schema_fail(struct schema *s, enum status status, const json *at, const char *fmt, ...)
{
    if (s->b->status != ST_OK)
        return;
    struct buf place = {0};
    char text[240];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    buf_printf(&place, "#%s", s->where);
    schema_find(s->root, at, &place);
    build_fail(s->b, status, "%.*s: %s", place.len > 150 ? 150 : (int)place.len, place.data, text);
    buf_fini(&place);
}

/* ---- conjunctions and their rules ---- */

void conj_fini(struct conj *c)
{
    free(c->v);
    *c = (struct conj){0};
}

bool conj_requires(const struct conj *c, const char *name)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const json *list = json_get(c->v[i], "required");
        for (size_t k = 0; k < json_count(list); k++)
            if (strcmp(json_as_str(json_at(list, k), ""), name) == 0)
                return true;
    }
    return false;
}

void conj_add(struct schema *s, struct conj *c, const json *node)
{
    if (json_kind_of(node) == JSON_BOOL) {
        c->never = c->never || !json_as_bool(node, true);
        return;
    }
    for (uint32_t i = 0; i < c->n; i++)
        if (c->v[i] == node)
            return;
    if (c->n == SCHEMA_NODES_MAX) {
        schema_fail(s, ST_UNSUPPORTED, node, "more than %d schemas apply at once",
                    SCHEMA_NODES_MAX);
        return;
    }
    if (c->n == c->cap) {
        uint32_t cap = c->cap ? c->cap * 2 : 4;
        const json **v = realloc(c->v, cap * sizeof *v);
        if (!v) {
            build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
            return;
        }
        c->v = v;
        c->cap = cap;
    }
    c->v[c->n++] = node;
}

static uint64_t hash_conj(const struct conj *c, bool closed)
{
    return hash_bytes(closed, c->v, c->n * sizeof *c->v);
}

static bool grow_rules(struct schema *s)
{
    uint32_t cap = s->cap_rules ? s->cap_rules * 2 : 64, n = 4 * cap;
    struct schema_rule *v = realloc(s->rules, cap * sizeof *v);
    uint32_t *slots = calloc(n, sizeof *slots);
    if (v)
        s->rules = v;
    if (!v || !slots) {
        free(slots);
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return false;
    }
    for (uint32_t i = 0; i < s->n_rules; i++) {
        uint64_t h = hash_conj(&v[i].conj, v[i].closed);
        while (slots[h & (n - 1)])
            h++;
        slots[h & (n - 1)] = i + 1;
    }
    free(s->slots);
    s->slots = slots;
    s->n_slots = n;
    s->cap_rules = cap;
    return true;
}

static uint32_t find_rule(struct schema *s, const struct conj *c, bool closed)
{
    if (s->b->status != ST_OK || (s->n_rules == s->cap_rules && !grow_rules(s)))
        return 0;
    uint64_t h = hash_conj(c, closed);
    for (uint32_t i; (i = s->slots[h & (s->n_slots - 1)]) != 0; h++) {
        const struct schema_rule *r = &s->rules[i - 1];
        if (r->closed == closed && r->conj.n == c->n &&
            memcmp(r->conj.v, c->v, c->n * sizeof *c->v) == 0)
            return r->rule;
    }
    struct schema_rule r = {.closed = closed, .rule = build_rule(s->b, "(schema)")};
    if (s->b->status == ST_OK)
        s->b->rules[r.rule].about = c->v[0];
    for (uint32_t i = 0; i < c->n; i++)
        conj_add(s, &r.conj, c->v[i]);
    s->rules[s->n_rules] = r;
    s->slots[h & (s->n_slots - 1)] = ++s->n_rules;
    return r.rule;
}

uint32_t schema_rule(struct schema *s, const struct conj *c)
{
    if (c->never)
        return UINT32_MAX;
    return c->n == 0 ? schema_any_value(s) : find_rule(s, c, false);
}

/* ---- values ---- */

static void put_literal(struct schema *s, const char *text, struct span at)
{
    build_eps(s->b, build_text(s->b, at.from, text, strlen(text)), at.to);
}

/* A value that c->v[own] lists. */
static void put_if_allowed(struct schema *s, const struct conj *c, uint32_t own, const json *value,
                           struct span at)
{
    bool ok = true;
    for (uint32_t k = 0; k < c->n && ok; k++)
        ok = k == own && !json_get(c->v[k], "const") ? schema_check_unlisted(s, c->v[k], value, 0)
                                                     : schema_check(s, c->v[k], value, 0);
    if (ok)
        schema_put_constant(s, value, at);
}

/* Values that are listed; false: none are. */
static bool put_listed(struct schema *s, const struct conj *c, struct span at)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const json *value = json_get(c->v[i], "const"), *list = json_get(c->v[i], "enum");
        if (value) {
            put_if_allowed(s, c, i, value, at);
            return true;
        }
        for (size_t k = 0; k < json_count(list) && s->b->status == ST_OK; k++)
            put_if_allowed(s, c, i, json_at(list, k), at);
        if (list)
            return true;
    }
    return false;
}

static void put_closed(struct schema *s, const struct conj *c, struct span at)
{
    if (put_listed(s, c, at))
        return;
    unsigned types = TYPE_ALL;
    for (uint32_t i = 0; i < c->n; i++)
        types &= schema_types(s, c->v[i]);
    if (types & TYPE_NULL)
        put_literal(s, "null", at);
    if (types & TYPE_BOOL) {
        put_literal(s, "true", at);
        put_literal(s, "false", at);
    }
    if (types & (TYPE_INTEGER | TYPE_FRACTION))
        schema_put_number(s, c, at, !(types & TYPE_FRACTION));
    if (types & TYPE_STRING)
        schema_put_string(s, c, at);
    if (types & TYPE_ARRAY)
        schema_put_array(s, c, at);
    if (types & TYPE_OBJECT)
        schema_put_object(s, c, at);
}

/* An alternative of a rule has a rule of its own: others may share it. */
static void put_alternative(struct schema *s, const struct conj *closed, void *ctx)
{
    const struct span *at = ctx;
    if (closed->never)
        return;
    uint32_t rule = closed->n == 0 ? schema_any_value(s) : find_rule(s, closed, true);
    build_call(s->b, at->from, at->to, rule, (struct build_repeat){1, 1});
}

static void work_off(struct schema *s)
{
    for (uint32_t i = 0; i < s->n_rules && s->b->status == ST_OK; i++) {
        /* The list may move while the rule is built, its nodes do not. */
        struct conj c = s->rules[i].conj;
        uint32_t rule = s->rules[i].rule;
        struct span at = {s->b->rules[rule].start, s->b->rules[rule].end};
        struct schema_emit emit = {put_alternative, &at};
        if (s->rules[i].closed)
            put_closed(s, &c, at);
        else
            schema_expand(s, &c, &emit);
    }
}

static bool is_old_draft(const json *root)
{
    const char *uri = json_as_str(json_get(root, "$schema"), "");
    return strstr(uri, "draft-07") || strstr(uri, "draft-06") || strstr(uri, "draft-04") ||
           strstr(uri, "draft-03");
}

static void fini(struct schema *s)
{
    for (uint32_t i = 0; i < s->n_rules; i++)
        conj_fini(&s->rules[i].conj);
    for (uint32_t i = 0; i < s->n_made; i++)
        json_free(s->made[i].groups);
    free(s->made);
    conj_fini(&s->exclusive);
    free(s->rules);
    free(s->slots);
}

static struct schema begin(struct builder *b, const json *root, const char *where)
{
    return (struct schema){.b = b,
                           .root = root,
                           .where = where,
                           .ref_alone = is_old_draft(root),
                           .space = UINT32_MAX,
                           .value = UINT32_MAX,
                           .object = UINT32_MAX,
                           .array = UINT32_MAX,
                           .string = UINT32_MAX,
                           .character = UINT32_MAX};
}

uint32_t schema_compile(struct builder *b, const json *root, const char *where)
{
    struct schema s = begin(b, root, where);
    struct conj c = {0};
    conj_add(&s, &c, root);
    uint32_t rule = schema_rule(&s, &c);
    if (rule == UINT32_MAX)
        schema_fail(&s, ST_INVALID, root, "nothing fulfils the schema false");
    work_off(&s);
    conj_fini(&c);
    fini(&s);
    return rule;
}

uint32_t schema_compile_any_object(struct builder *b)
{
    struct schema s = begin(b, NULL, "");
    uint32_t rule = schema_any_object(&s);
    fini(&s);
    return rule;
}
