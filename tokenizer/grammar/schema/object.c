/* Objects: the declared properties in the order in which the schema declares them, each optional
 * one there or not, then properties of other names.
 *
 * What a property's value has to fulfil is what each schema of the conjunction says of that name:
 * its own `properties`, its `patternProperties` that match, else its `additionalProperties`. Other
 * names are told apart by one automaton over all patterns and all declared names.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define PROPERTIES_MAX 2000

struct property {
    const char *name;
    uint32_t rule; /* UINT32_MAX: must not be there */
    bool required;
};

/* A pattern of one schema, or what propertyNames asks for. */
struct key_part {
    const json *owner, *schema; /* schema NULL: every name has to match */
};

struct object {
    struct schema *s;
    const struct conj *c;
    struct property *properties;
    uint32_t n_properties, cap_properties;
    struct charnet nets[CHARNET_PATTERNS_MAX];
    struct key_part parts[CHARNET_PATTERNS_MAX]; /* of nets[1..]; nets[0]: the declared names */
    uint32_t n_parts;
    const json *rest; /* unevaluatedProperties: of names that no schema says anything of */
    uint64_t min, max;
    uint32_t member;      /* rule of a property of another name; UINT32_MAX: not allowed */
    uint32_t next_member; /* the same behind a comma */
    /* while the member's key is laid out */
    struct {
        uint32_t bits, state;
    } exits[256];
    uint32_t n_exits, member_end;
};

static bool fine(const struct object *o)
{
    return o->s->b->status == ST_OK;
}

/* ---- what a name asks for ---- */

static bool part_matches(const struct object *o, uint32_t part, const char *name)
{
    return charnet_accepts(&o->nets[part], o->s->b, name, strlen(name));
}

/* The conjunction of the value behind a key for which `bits` of the parts match. */
static void gather_by_bits(const struct object *o, uint32_t bits, struct conj *value)
{
    bool evaluated = false;
    for (uint32_t i = 0; i < o->c->n; i++) {
        bool matched = false;
        for (uint32_t k = 1; k < o->n_parts; k++)
            if (o->parts[k].owner == o->c->v[i] && o->parts[k].schema && (bits >> k & 1)) {
                conj_add(o->s, value, o->parts[k].schema);
                matched = evaluated = true;
            }
        const json *more = json_get(o->c->v[i], "additionalProperties");
        if (!matched && more)
            conj_add(o->s, value, more);
    }
    if (!evaluated && o->rest)
        conj_add(o->s, value, o->rest);
    for (uint32_t k = 1; k < o->n_parts; k++)
        if (!o->parts[k].schema && !(bits >> k & 1))
            value->never = true;
}

static uint32_t value_of_name(const struct object *o, const char *name)
{
    struct conj value = {0};
    bool evaluated = false;
    for (uint32_t i = 0; i < o->c->n && fine(o); i++) {
        const json *own = json_get(json_get(o->c->v[i], "properties"), name);
        bool matched = own != NULL;
        if (own)
            conj_add(o->s, &value, own);
        for (uint32_t k = 1; k < o->n_parts; k++) {
            if (o->parts[k].owner != o->c->v[i] || !part_matches(o, k, name))
                continue;
            if (o->parts[k].schema) {
                conj_add(o->s, &value, o->parts[k].schema);
                matched = true;
            }
        }
        const json *more = json_get(o->c->v[i], "additionalProperties");
        if (!matched && more)
            conj_add(o->s, &value, more);
        evaluated = evaluated || matched;
    }
    if (!evaluated && o->rest)
        conj_add(o->s, &value, o->rest);
    for (uint32_t k = 1; k < o->n_parts; k++)
        if (!o->parts[k].schema && !part_matches(o, k, name))
            value.never = true;
    uint32_t rule = schema_rule(o->s, &value);
    conj_fini(&value);
    return rule;
}

/* ---- names and patterns ---- */

static void add_part(struct object *o, struct key_part part, const char *pattern)
{
    if (o->n_parts == CHARNET_PATTERNS_MAX) {
        schema_fail(o->s, ST_UNSUPPORTED, part.owner, "more than %d patterns of names",
                    CHARNET_PATTERNS_MAX - 1);
        return;
    }
    struct charnet *net = &o->nets[o->n_parts];
    o->parts[o->n_parts++] = part;
    if (pattern) {
        struct charnet_pattern p = {
            .text = pattern, .len = strlen(pattern), .search = true, .what = "patternProperties"};
        schema_pattern(o->s, part.owner, &p, net);
        return;
    }
    struct conj names = {0};
    struct build_repeat times;
    schema_expand_flat(o->s, json_get(part.owner, "propertyNames"), &names);
    for (uint32_t i = 0; i < names.n; i++)
        if (json_get(names.v[i], "anyOf") || json_get(names.v[i], "oneOf"))
            schema_fail(o->s, ST_UNSUPPORTED, names.v[i],
                        "anyOf and oneOf are not supported in propertyNames");
    if (names.never) {
        charnet_state(net, o->s->b); /* accepts nothing */
        charnet_seal(net, o->s->b);
    } else if (!schema_string_net(o->s, &names, net, &times) && fine(o)) {
        charnet_make_length(net, o->s->b, times);
    }
    conj_fini(&names);
}

static void find_parts(struct object *o)
{
    o->n_parts = 1;
    for (uint32_t i = 0; i < o->c->n && fine(o); i++) {
        const json *node = o->c->v[i], *patterns = json_get(node, "patternProperties");
        for (void *it = json_first(patterns); it && fine(o); it = json_next(patterns, it))
            add_part(o, (struct key_part){node, json_iter_value(it)}, json_iter_key(it));
        if (json_get(node, "propertyNames"))
            add_part(o, (struct key_part){node, NULL}, NULL);
    }
}

static struct property *property(struct object *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_properties; i++)
        if (strcmp(o->properties[i].name, name) == 0)
            return &o->properties[i];
    if (o->n_properties == PROPERTIES_MAX) {
        schema_fail(o->s, ST_UNSUPPORTED, o->c->v[0], "more than %d properties", PROPERTIES_MAX);
        return NULL;
    }
    if (o->n_properties == o->cap_properties) {
        uint32_t cap = o->cap_properties ? o->cap_properties * 2 : 16;
        struct property *v = realloc(o->properties, cap * sizeof *v);
        if (!v) {
            build_fail(o->s->b, ST_NO_MEMORY, "no memory for the schema");
            return NULL;
        }
        o->properties = v;
        o->cap_properties = cap;
    }
    struct property *p = &o->properties[o->n_properties++];
    *p = (struct property){.name = name};
    charnet_add_text(&o->nets[0], o->s->b, name, strlen(name));
    return p;
}

static void find_properties(struct object *o)
{
    charnet_state(&o->nets[0], o->s->b);
    for (uint32_t i = 0; i < o->c->n && fine(o); i++) {
        const json *own = json_get(o->c->v[i], "properties");
        for (void *it = json_first(own); it && fine(o); it = json_next(own, it))
            property(o, json_iter_key(it));
    }
    for (uint32_t i = 0; i < o->c->n && fine(o); i++) {
        const json *required = json_get(o->c->v[i], "required");
        for (size_t k = 0; k < json_count(required) && fine(o); k++) {
            struct property *p = property(o, json_as_str(json_at(required, k), ""));
            if (p)
                p->required = true;
        }
    }
    charnet_seal(&o->nets[0], o->s->b);
    for (uint32_t i = 0; i < o->n_properties && fine(o); i++)
        o->properties[i].rule = value_of_name(o, o->properties[i].name);
}

/* ---- properties of other names ---- */

static uint32_t put_value(struct object *o, uint32_t at, uint32_t rule)
{
    struct schema *s = o->s;
    at = schema_space(s, build_byte(s->b, schema_space(s, at), ':'));
    return schema_space(s, build_call_once(s->b, at, rule));
}

/* Behind the characters of a key: the state that closes it and goes on to its value. */
static uint32_t key_exit(void *ctx, uint32_t bits)
{
    struct object *o = ctx;
    uint32_t state = UINT32_MAX;
    for (uint32_t i = 0; i < o->n_exits; i++)
        if (o->exits[i].bits == bits)
            return o->exits[i].state;
    if (o->n_exits == sizeof o->exits / sizeof *o->exits) {
        schema_fail(o->s, ST_UNSUPPORTED, o->c->v[0], "the patterns of names overlap too much");
        return UINT32_MAX;
    }
    if (!(bits & 1)) {
        struct conj value = {0};
        gather_by_bits(o, bits, &value);
        uint32_t rule = schema_rule(o->s, &value);
        if (rule != UINT32_MAX) {
            state = build_state(o->s->b);
            uint32_t quote = build_byte(o->s->b, state, '"');
            build_eps(o->s->b, put_value(o, quote, rule), o->member_end);
        }
        conj_fini(&value);
    }
    o->exits[o->n_exits].bits = bits;
    o->exits[o->n_exits++].state = state;
    return state;
}

static void put_member_rule(struct object *o)
{
    struct builder *b = o->s->b;
    struct conj plain = {0};
    o->member = UINT32_MAX;
    gather_by_bits(o, 0, &plain);
    bool closed = plain.never && o->n_parts == 1;
    if (!closed && fine(o)) {
        o->member = build_rule(b, "(property)");
        o->next_member = build_rule(b, "(further property)");
    }
    if (!closed && fine(o)) {
        struct build_rule r = b->rules[o->member], next = b->rules[o->next_member];
        o->member_end = r.end;
        if (o->n_parts == 1 && o->n_properties == 0) {
            uint32_t key = build_call_once(b, r.start, schema_any_string(o->s));
            build_eps(b, put_value(o, key, schema_rule(o->s, &plain)), r.end);
        } else {
            struct charnet keys = {0};
            charnet_combine(o->nets, o->n_parts, b, &keys);
            struct charnet_layout l = {
                .from = build_byte(b, r.start, '"'), .json = true, .exit = key_exit, .ctx = o};
            charnet_lay_out(&keys, b, &l);
            charnet_fini(&keys);
        }
        uint32_t at = schema_space(o->s, build_byte(b, next.start, ','));
        build_eps(b, build_call_once(b, at, o->member), next.end);
    }
    conj_fini(&plain);
}

/* From `at`, behind a comma where `have` > 0: properties of other names and no declared ones. Their
 * names may be all the same, which readers take for one property: however many they are, only the
 * first counts towards the least number. */
static void put_members(struct object *o, uint32_t at, uint64_t have, uint32_t to)
{
    struct builder *b = o->s->b;
    uint64_t min = o->min > have ? o->min - have : 0;
    uint64_t max = o->max == GRAMMAR_UNBOUNDED ? GRAMMAR_UNBOUNDED : o->max - have;
    if (min == 0 && have == 0)
        build_eps(b, at, to);
    if (o->member == UINT32_MAX || max == 0 || min > 1)
        return;
    at = build_call_once(b, at, o->member);
    max -= max != GRAMMAR_UNBOUNDED;
    build_call(b, at, to, o->next_member, (struct build_repeat){0, (uint32_t)max});
}

/* ---- the whole ---- */

static uint32_t put_property(struct object *o, uint32_t at, const struct property *p)
{
    struct builder *b = o->s->b;
    struct buf key = {0};
    struct jw w = jw_begin(&key);
    jw_str(&w, p->name);
    at = build_text(b, at, key.data ? key.data : "", key.len);
    buf_fini(&key);
    return put_value(o, at, p->rule);
}

/* States before a declared property, by how many properties are there (exactly, or 1 for "some"
 * where nobody counts): `ready` behind a property, where a comma or the end follows, and `due`
 * behind a comma (or at the very beginning), where a property follows. UINT32_MAX: none. */
struct rows {
    uint32_t *ready, *due, *next_ready, *next_due;
    uint32_t width;
    bool counted;
};

static void lead_to(struct object *o, uint32_t from, uint32_t *to)
{
    if (*to == UINT32_MAX)
        *to = build_state(o->s->b);
    build_eps(o->s->b, from, *to);
}

static void put_commas(struct object *o, struct rows *r, bool may_end, uint32_t end)
{
    for (uint32_t k = 1; k < r->width && fine(o); k++) {
        if (r->ready[k] == UINT32_MAX)
            continue;
        if (may_end && k >= o->min)
            build_eps(o->s->b, r->ready[k], end);
        if (!r->counted || k < o->max)
            lead_to(o, schema_space(o->s, build_byte(o->s->b, r->ready[k], ',')), &r->due[k]);
    }
}

static void put_row(struct object *o, struct rows *r, const struct property *p)
{
    memset(r->next_ready, 0xff, 2 * r->width * sizeof *r->next_ready);
    for (uint32_t k = 0; k < r->width && fine(o); k++) {
        uint32_t more = k + 1 < r->width ? k + 1 : k;
        if (r->due[k] == UINT32_MAX)
            continue;
        if (!p->required)
            lead_to(o, r->due[k], &r->next_due[k]);
        if (p->rule != UINT32_MAX)
            lead_to(o, put_property(o, r->due[k], p), &r->next_ready[more]);
    }
    uint32_t *ready = r->ready, *due = r->due;
    r->ready = r->next_ready;
    r->due = r->next_due;
    r->next_ready = ready;
    r->next_due = due;
}

static void put_rows(struct object *o, uint32_t from, uint32_t to)
{
    struct rows r = {.counted = o->min > 1 || o->max != GRAMMAR_UNBOUNDED};
    r.width = r.counted ? o->n_properties + 2 : 2;
    uint32_t *memory = malloc(4 * r.width * sizeof *memory), last_required = 0;
    if (!memory) {
        build_fail(o->s->b, ST_NO_MEMORY, "no memory for the schema");
        return;
    }
    memset(memory, 0xff, 4 * r.width * sizeof *memory);
    r.ready = memory;
    r.due = memory + r.width;
    r.next_ready = memory + 2 * r.width;
    r.next_due = memory + 3 * r.width;
    r.due[0] = from;
    for (uint32_t i = 0; i < o->n_properties; i++)
        if (o->properties[i].required)
            last_required = i + 1;
    for (uint32_t i = 0; i < o->n_properties && fine(o); i++) {
        put_commas(o, &r, i >= last_required, to);
        put_row(o, &r, &o->properties[i]);
    }
    put_commas(o, &r, true, to);
    for (uint32_t k = 0; k < r.width && fine(o); k++)
        if (r.due[k] != UINT32_MAX)
            put_members(o, r.due[k], k, to);
    free(memory);
}

/* A schema with additionalProperties speaks of every name. What was rewritten names properties that
 * the schema itself does not speak of. */
static void find_rest(struct object *o)
{
    bool all = false;
    for (uint32_t i = 0; i < o->c->n; i++) {
        const json *rest = json_get(o->c->v[i], "unevaluatedProperties");
        all = all || json_get(o->c->v[i], "additionalProperties");
        o->rest = rest ? rest : o->rest;
    }
    if (o->rest && o->s->n_made > 0)
        schema_fail(o->s, ST_UNSUPPORTED, o->c->v[0],
                    "keyword \"unevaluatedProperties\" is not supported beside conditions");
    if (all)
        o->rest = NULL;
}

static void check_min(struct object *o)
{
    uint64_t declared = 0;
    for (uint32_t i = 0; i < o->n_properties; i++)
        declared += o->properties[i].rule != UINT32_MAX;
    if (o->member != UINT32_MAX && o->min > declared + 1)
        schema_fail(o->s, ST_UNSUPPORTED, o->c->v[0],
                    "minProperties is not supported over one more than what is declared (%llu)",
                    (unsigned long long)declared);
}

void schema_put_object(struct schema *s, const struct conj *c, struct span at)
{
    struct object *o = calloc(1, sizeof *o);
    if (!o) {
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return;
    }
    o->s = s;
    o->c = c;
    o->max = GRAMMAR_UNBOUNDED;
    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t min = (uint64_t)schema_count(s, c->v[i], "minProperties", 0);
        uint64_t max = (uint64_t)schema_count(s, c->v[i], "maxProperties", GRAMMAR_UNBOUNDED);
        o->min = min > o->min ? min : o->min;
        o->max = max < o->max ? max : o->max;
    }
    find_rest(o);
    find_parts(o);
    if (fine(o))
        find_properties(o);
    if (fine(o) && o->min <= o->max) {
        put_member_rule(o);
        check_min(o);
        uint32_t from = schema_space(s, build_byte(s->b, at.from, '{'));
        uint32_t end = build_state(s->b);
        build_bytes(s->b, end, at.to, (struct ga_range){.lo = '}', .hi = '}'});
        put_rows(o, from, end);
    }
    for (uint32_t i = 0; i < CHARNET_PATTERNS_MAX; i++)
        charnet_fini(&o->nets[i]);
    free(o->properties);
    free(o);
}
