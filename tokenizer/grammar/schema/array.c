/* Arrays: items by position, then the rest. */
#include "tokenizer/grammar/schema/schema.h"

struct array {
    struct schema *s;
    const struct conj *c;
    uint32_t n_prefix;
    uint64_t min, max;
};

static const json *prefix_of(const json *node)
{
    const json *items = json_get(node, "items");
    return json_kind_of(items) == JSON_ARR ? items : json_get(node, "prefixItems");
}

static const json *rest_of(const json *node)
{
    const json *items = json_get(node, "items");
    return json_kind_of(items) == JSON_ARR ? json_get(node, "additionalItems") : items;
}

/* The rule of item i; UINT32_MAX: there cannot be one. */
static uint32_t item_rule(const struct array *a, uint32_t i)
{
    struct conj item = {0};
    for (uint32_t k = 0; k < a->c->n; k++) {
        const json *prefix = prefix_of(a->c->v[k]), *rest = rest_of(a->c->v[k]);
        if (i < json_count(prefix))
            conj_add(a->s, &item, json_at(prefix, i));
        else if (rest)
            conj_add(a->s, &item, rest);
    }
    uint32_t rule = schema_rule(a->s, &item);
    conj_fini(&item);
    return rule;
}

static uint32_t comma(struct schema *s, uint32_t at)
{
    return schema_space(s, build_byte(s->b, at, ','));
}

/* Any number of further items, `have` of them being there already. */
static void put_rest(const struct array *a, uint32_t from, uint32_t have, uint32_t to)
{
    struct schema *s = a->s;
    struct builder *b = s->b;
    uint32_t rule = item_rule(a, a->n_prefix);
    uint64_t min = a->min > have ? a->min - have : 0, max = a->max - have;
    if (min == 0)
        build_eps(b, from, to);
    if (rule == UINT32_MAX || max == 0)
        return;
    uint32_t next = build_rule(b, "(further items)");
    if (b->status != ST_OK)
        return;
    struct build_rule r = b->rules[next];
    build_eps(b, schema_space(s, build_call_once(b, comma(s, r.start), rule)), r.end);
    if (have == 0) {
        from = schema_space(s, build_call_once(b, from, rule));
        min -= min > 0;
        max -= 1;
    }
    struct build_repeat times = {(uint32_t)min,
                                 a->max >= GRAMMAR_UNBOUNDED ? GRAMMAR_UNBOUNDED : (uint32_t)max};
    build_call(b, from, to, next, times);
}

void schema_put_array(struct schema *s, const struct conj *c, struct span at)
{
    struct array a = {.s = s, .c = c, .max = GRAMMAR_UNBOUNDED};
    struct builder *b = s->b;
    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t min = (uint64_t)schema_count(s, c->v[i], "minItems", 0);
        uint64_t max = (uint64_t)schema_count(s, c->v[i], "maxItems", GRAMMAR_UNBOUNDED);
        uint32_t n = (uint32_t)json_count(prefix_of(c->v[i]));
        a.min = min > a.min ? min : a.min;
        a.max = max < a.max ? max : a.max;
        a.n_prefix = n > a.n_prefix ? n : a.n_prefix;
    }
    if (a.min > a.max)
        return;
    uint32_t from = schema_space(s, build_byte(b, at.from, '[')), end = build_state(b);
    build_bytes(b, end, at.to, (struct ga_range){.lo = ']', .hi = ']'});
    for (uint32_t i = 0; i < a.n_prefix; i++) {
        uint32_t rule = i < a.max ? item_rule(&a, i) : UINT32_MAX;
        if (i >= a.min)
            build_eps(b, from, end);
        if (rule == UINT32_MAX || b->status != ST_OK)
            return;
        from = schema_space(s, build_call_once(b, i > 0 ? comma(s, from) : from, rule));
    }
    put_rest(&a, from, a.n_prefix, end);
}
