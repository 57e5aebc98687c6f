/* Strings: length, pattern, format; and values that are given. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define BYTE_0_255 "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4 BYTE_0_255 "(?:\\." BYTE_0_255 "){3}"
#define H16 "[0-9a-fA-F]{1,4}"
#define YEAR "(?:[1-9]\\d{3}|0[1-9]\\d\\d|00[1-9]\\d|000[1-9])"
#define LEAP "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                       \
    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|"  \
    "30)|02-(?:0[1-9]|1\\d|2[0-8]))|" LEAP "-02-29)"
#define TIME                                                                                       \
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define HOST LABEL "(?:\\." LABEL "){0,8}"
#define URI_CHARS "(?:[A-Za-z0-9._~:@!$&'()*+,;=/?-]|%[0-9A-Fa-f]{2})"
#define PCHARS "(?:[A-Za-z0-9._~:@!$&'()*+,;=/-]|%[0-9A-Fa-f]{2})*"
#define QUERY "(?:\\?" URI_CHARS "*)?(?:#" URI_CHARS "*)?"
#define AUTHORITY                                                                                  \
    "(?:[A-Za-z0-9._~!$&'()*+,;=:-]+@)?(?:[A-Za-z0-9._~-]+|\\[[0-9a-fA-F:.]+\\])(?::\\d{1,5})?"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "[Tt]" TIME},
    {"duration",
     "P(?:\\d+W|(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)(?:T(?:\\d+H(?:\\d+M(?:"
     "\\d+S)?)?|\\d+M(?:\\d+S)?|\\d+S))?|T(?:\\d+H(?:\\d+M(?:\\d+S)?)?|\\d+M(?:\\d+S)?|"
     "\\d+S))"},
    {"email", "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@" LABEL
              "(?:\\." LABEL "){1,8}"},
    {"hostname", HOST},
    {"ipv4", IPV4},
    {"ipv6", "(?:(?:" H16 ":){7}" H16 "|(?:" H16 ":){1,7}:|(?:" H16 ":){1,6}(?::" H16 "){1}|(?:" H16
             ":){1,5}(?::" H16 "){1,2}|(?:" H16 ":){1,4}(?::" H16 "){1,3}|(?:" H16 ":){1,3}(?::" H16
             "){1,4}|(?:" H16 ":){1,2}(?::" H16 "){1,5}|" H16 ":(?::" H16 "){1,6}|:(?:(?::" H16
             "){1,7}|:)|(?:" H16 ":){6}" IPV4 "|::(?:" H16 ":){0,5}" IPV4 ")"},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"uri", "[A-Za-z][A-Za-z0-9+.-]*:(?://" AUTHORITY "(?:/" PCHARS ")?|" PCHARS ")" QUERY},
    {"uri-reference",
     "(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://" AUTHORITY "(?:/" PCHARS
     ")?|/?(?:[A-Za-z0-9._~@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?:/" PCHARS ")?)" QUERY},
    {"json-pointer", "(?:/(?:[^/~]|~[01])*)*"},
    {"relative-json-pointer", "(?:0|[1-9]\\d*)(?:#|(?:/(?:[^/~]|~[01])*)*)"},
};

const char *schema_format_pattern(const char *format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(format, formats[i].name) == 0)
            return formats[i].pattern;
    return NULL;
}

/* ---- all that restricts a string, in one ---- */

static void intersect_with(struct schema *s, struct charnet *net, bool *any, struct charnet *with)
{
    if (!*any) {
        *net = *with;
        *any = true;
        return;
    }
    struct charnet both = {0};
    charnet_intersect(net, with, s->b, &both);
    charnet_fini(net);
    charnet_fini(with);
    *net = both;
}

void schema_pattern(struct schema *s, const json *node, const struct charnet_pattern *p,
                    struct charnet *out)
{
    struct error why = {0}, *outer = s->b->err;
    s->b->err = &why;
    charnet_compile(s->b, p, out);
    s->b->err = outer;
    if (s->b->status != ST_OK) {
        enum status st = s->b->status;
        s->b->status = ST_OK;
        schema_fail(s, st, node, "%s", why.text);
    }
}

static void add_listed(struct schema *s, const json *node, struct charnet *out)
{
    const json *constant = json_get(node, "const"), *list = json_get(node, "enum");
    charnet_state(out, s->b);
    for (size_t i = 0; i < (constant ? 1 : json_count(list)); i++) {
        const json *v = constant ? constant : json_at(list, i);
        if (json_kind_of(v) == JSON_STR)
            charnet_add_text(out, s->b, json_as_str(v, ""), json_str_len(v));
    }
    charnet_seal(out, s->b);
}

/* All strings that `net` does not accept. */
static void turn_round(struct schema *s, struct charnet *net)
{
    struct charnet other = {0};
    charnet_combine(net, 1, s->b, &other);
    for (uint32_t i = 0; i < other.n_states; i++)
        other.accept[i] = !other.accept[i];
    charnet_fini(net);
    *net = other;
}

/* What rewritten schemas say strings are not. */
static void add_refused(struct schema *s, const json *node, struct charnet *out, bool *any)
{
    const char *pattern = json_as_str(json_get(node, SCHEMA_NOT_PATTERN), NULL);
    const json *values = json_get(node, SCHEMA_NOT_VALUES);
    struct charnet net = {0};
    if (pattern) {
        struct charnet_pattern p = {pattern, strlen(pattern), true, "pattern"};
        schema_pattern(s, node, &p, &net);
    } else if (values) {
        charnet_state(&net, s->b);
        for (size_t i = 0; i < json_count(values); i++)
            charnet_add_text(&net, s->b, json_as_str(json_at(values, i), ""),
                             json_str_len(json_at(values, i)));
        charnet_seal(&net, s->b);
    }
    if ((pattern || values) && s->b->status == ST_OK) {
        turn_round(s, &net);
        intersect_with(s, out, any, &net);
    } else {
        charnet_fini(&net);
    }
}

bool schema_string_net(struct schema *s, const struct conj *c, struct charnet *out,
                       struct build_repeat *times)
{
    bool any = false;
    *times = (struct build_repeat){0, GRAMMAR_UNBOUNDED};
    for (uint32_t i = 0; i < c->n && s->b->status == ST_OK; i++) {
        const json *node = c->v[i];
        const char *pattern = json_as_str(json_get(node, "pattern"), NULL);
        const char *format = schema_format_pattern(json_as_str(json_get(node, "format"), ""));
        int64_t min = schema_count(s, node, "minLength", 0);
        int64_t max = schema_count(s, node, "maxLength", GRAMMAR_UNBOUNDED);
        struct charnet net = {0};
        times->min = min > times->min ? (uint32_t)min : times->min;
        times->max = max < times->max ? (uint32_t)max : times->max;
        if (pattern) {
            struct charnet_pattern p = {pattern, strlen(pattern), true, "pattern"};
            schema_pattern(s, node, &p, &net);
            intersect_with(s, out, &any, &net);
        }
        net = (struct charnet){0};
        if (format) {
            struct charnet_pattern p = {format, strlen(format), false, "format"};
            schema_pattern(s, node, &p, &net);
            intersect_with(s, out, &any, &net);
        }
        net = (struct charnet){0};
        if (json_get(node, "const") || json_get(node, "enum")) {
            add_listed(s, node, &net);
            intersect_with(s, out, &any, &net);
        }
        add_refused(s, node, out, &any);
    }
    if (any && (times->min > 0 || times->max != GRAMMAR_UNBOUNDED) && s->b->status == ST_OK &&
        times->min <= times->max) {
        struct charnet length = {0};
        charnet_make_length(&length, s->b, *times);
        intersect_with(s, out, &any, &length);
    }
    return any;
}

void schema_put_string(struct schema *s, const struct conj *c, struct span at)
{
    struct builder *b = s->b;
    struct charnet net = {0};
    struct build_repeat times;
    bool restricted = schema_string_net(s, c, &net, &times);
    if (times.min > times.max) {
        charnet_fini(&net);
        return;
    }
    if (!restricted && times.min == 0 && times.max == GRAMMAR_UNBOUNDED) {
        build_call(b, at.from, at.to, schema_any_string(s), (struct build_repeat){1, 1});
        return;
    }
    uint32_t from = build_byte(b, at.from, '"'), to = build_state(b);
    if (restricted)
        charnet_lay_out_to(&net, b, from, to, true);
    else
        build_call(b, from, to, schema_any_character(s), times);
    build_bytes(b, to, at.to, (struct ga_range){.lo = '"', .hi = '"'});
    charnet_fini(&net);
}

/* ---- given values ---- */

static uint32_t put_value(struct schema *s, const json *v, uint32_t from);

static uint32_t put_text_of(struct schema *s, const json *v, uint32_t from)
{
    struct buf text = {0};
    json_dump(v, &text);
    from = build_text(s->b, from, text.data ? text.data : "", text.len);
    buf_fini(&text);
    return from;
}

static uint32_t put_object(struct schema *s, const json *v, uint32_t at)
{
    bool first = true;
    at = schema_space(s, build_byte(s->b, at, '{'));
    for (void *it = json_first(v); it; it = json_next(v, it)) {
        struct buf key = {0};
        struct jw w = jw_begin(&key);
        if (!first)
            at = schema_space(s, build_byte(s->b, at, ','));
        first = false;
        jw_str(&w, json_iter_key(it));
        at = build_text(s->b, at, key.data, key.len);
        at = schema_space(s, build_byte(s->b, schema_space(s, at), ':'));
        at = schema_space(s, put_value(s, json_iter_value(it), at));
        buf_fini(&key);
    }
    return build_byte(s->b, at, '}');
}

static uint32_t put_value(struct schema *s, const json *v, uint32_t at)
{
    if (s->b->status != ST_OK)
        return 0;
    if (json_kind_of(v) == JSON_OBJ)
        return put_object(s, v, at);
    if (json_kind_of(v) != JSON_ARR)
        return put_text_of(s, v, at);
    at = schema_space(s, build_byte(s->b, at, '['));
    for (size_t i = 0; i < json_count(v); i++) {
        if (i > 0)
            at = schema_space(s, build_byte(s->b, at, ','));
        at = schema_space(s, put_value(s, json_at(v, i), at));
    }
    return build_byte(s->b, at, ']');
}

void schema_put_constant(struct schema *s, const json *value, struct span at)
{
    build_eps(s->b, put_value(s, value, at.from), at.to);
}
