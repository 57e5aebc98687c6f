/* JSON without restriction: values of any type, and the white space between. */
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define INDENT_MAX 20

static void range(struct schema *s, uint32_t from, uint32_t to, char lo, char hi)
{
    build_bytes(s->b, from, to, (struct ga_range){.lo = (uint8_t)lo, .hi = (uint8_t)hi});
}

/* Nothing, one space, or a line end and an indent: enough to be read, too little to get lost in. */
static uint32_t space_rule(struct schema *s)
{
    struct builder *b = s->b;
    if (s->space != UINT32_MAX)
        return s->space;
    s->space = build_rule(b, "(white space)");
    if (b->status != ST_OK)
        return s->space;
    struct build_rule r = b->rules[s->space];
    build_eps(b, r.start, r.end);
    range(s, r.start, r.end, ' ', ' ');
    uint32_t at = build_byte(b, r.start, '\n');
    build_eps(b, at, r.end);
    for (int i = 0; i < INDENT_MAX; i++) {
        uint32_t next = build_state(b);
        range(s, at, next, ' ', ' ');
        range(s, at, next, '\t', '\t');
        build_eps(b, next, r.end);
        at = next;
    }
    return s->space;
}

uint32_t schema_space(struct schema *s, uint32_t from)
{
    return build_call_once(s->b, from, space_rule(s));
}

static uint32_t hex_digits(struct schema *s, uint32_t from, const char *ranges)
{
    uint32_t to = build_state(s->b);
    for (; ranges[0]; ranges += 2)
        range(s, from, to, ranges[0], ranges[1]);
    return to;
}

static const char hex[] = "09afAF";

/* \uXXXX: a character, or two of them that are a surrogate pair; never half of one. */
static void unicode_escape(struct schema *s, uint32_t from, uint32_t to)
{
    struct builder *b = s->b;
    uint32_t two = hex_digits(s, hex_digits(s, from, "09acefACEF"), hex);
    uint32_t not_surrogate = hex_digits(s, hex_digits(s, from, "ddDD"), "07");
    uint32_t high = hex_digits(s, hex_digits(s, from, "ddDD"), "89abAB");
    build_eps(b, not_surrogate, two);
    build_eps(b, hex_digits(s, hex_digits(s, two, hex), hex), to);
    high = hex_digits(s, hex_digits(s, high, hex), hex);
    uint32_t low = hex_digits(s, hex_digits(s, build_text(b, high, "\\u", 2), "ddDD"), "cfCF");
    build_eps(b, hex_digits(s, hex_digits(s, low, hex), hex), to);
}

static void put_character(struct schema *s, uint32_t from, uint32_t to)
{
    static const struct char_range plain[] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, CHAR_MAX_CP}};
    build_chars(s->b, from, to, plain, 3);
    uint32_t slash = build_byte(s->b, from, '\\');
    for (const char *c = "\"\\/bfnrt"; *c; c++)
        range(s, slash, to, *c, *c);
    unicode_escape(s, build_byte(s->b, slash, 'u'), to);
}

uint32_t schema_any_character(struct schema *s)
{
    if (s->character != UINT32_MAX)
        return s->character;
    s->character = build_rule(s->b, "(character)");
    if (s->b->status == ST_OK) {
        struct build_rule r = s->b->rules[s->character];
        put_character(s, r.start, r.end);
    }
    return s->character;
}

uint32_t schema_any_string(struct schema *s)
{
    struct builder *b = s->b;
    if (s->string != UINT32_MAX)
        return s->string;
    s->string = build_rule(b, "(string)");
    if (b->status != ST_OK)
        return s->string;
    struct build_rule r = b->rules[s->string];
    uint32_t at = build_byte(b, r.start, '"');
    put_character(s, at, at); /* a loop: a call per character would cost more */
    range(s, at, r.end, '"', '"');
    return s->string;
}

void schema_put_any_number(struct schema *s, struct span at, bool integer)
{
    struct builder *b = s->b;
    uint32_t sign = build_byte(b, at.from, '-'), whole = build_state(b);
    build_eps(b, at.from, sign);
    uint32_t digits = hex_digits(s, sign, "19");
    range(s, digits, digits, '0', '9');
    build_eps(b, digits, whole);
    build_eps(b, build_byte(b, sign, '0'), whole);
    build_eps(b, whole, at.to);
    if (integer)
        return;
    uint32_t fraction = hex_digits(s, build_byte(b, whole, '.'), "09");
    range(s, fraction, fraction, '0', '9');
    build_eps(b, fraction, at.to);
    uint32_t e = build_state(b), plus = build_state(b);
    range(s, whole, e, 'e', 'e');
    range(s, whole, e, 'E', 'E');
    range(s, fraction, e, 'e', 'e');
    range(s, fraction, e, 'E', 'E');
    range(s, e, plus, '+', '+');
    range(s, e, plus, '-', '-');
    build_eps(b, e, plus);
    /* Two digits: what overflows a double is of no use to whoever reads it. */
    uint32_t power = hex_digits(s, plus, "09");
    build_eps(b, power, at.to);
    build_eps(b, hex_digits(s, power, "09"), at.to);
}

uint32_t schema_any_object(struct schema *s)
{
    struct builder *b = s->b;
    if (s->object != UINT32_MAX)
        return s->object;
    s->object = build_rule(b, "(object)");
    uint32_t value = schema_any_value(s), string = schema_any_string(s);
    if (b->status != ST_OK)
        return s->object;
    struct build_rule r = b->rules[s->object];
    uint32_t open = schema_space(s, build_byte(b, r.start, '{')), key = build_state(b);
    build_eps(b, open, key);
    uint32_t at = schema_space(s, build_call_once(b, key, string));
    at = schema_space(s, build_byte(b, at, ':'));
    at = schema_space(s, build_call_once(b, at, value));
    build_eps(b, schema_space(s, build_byte(b, at, ',')), key);
    range(s, at, r.end, '}', '}');
    range(s, open, r.end, '}', '}');
    return s->object;
}

uint32_t schema_any_array(struct schema *s)
{
    struct builder *b = s->b;
    if (s->array != UINT32_MAX)
        return s->array;
    s->array = build_rule(b, "(array)");
    uint32_t value = schema_any_value(s);
    if (b->status != ST_OK)
        return s->array;
    struct build_rule r = b->rules[s->array];
    uint32_t open = schema_space(s, build_byte(b, r.start, '[')), item = build_state(b);
    build_eps(b, open, item);
    uint32_t at = schema_space(s, build_call_once(b, item, value));
    build_eps(b, schema_space(s, build_byte(b, at, ',')), item);
    range(s, at, r.end, ']', ']');
    range(s, open, r.end, ']', ']');
    return s->array;
}

uint32_t schema_any_value(struct schema *s)
{
    struct builder *b = s->b;
    if (s->value != UINT32_MAX)
        return s->value;
    s->value = build_rule(b, "(value)");
    uint32_t rules[] = {schema_any_object(s), schema_any_array(s), schema_any_string(s)};
    if (b->status != ST_OK)
        return s->value;
    struct build_rule r = b->rules[s->value];
    for (size_t i = 0; i < 3; i++)
        build_call(b, r.start, r.end, rules[i], (struct build_repeat){1, 1});
    for (const char *const *word = (const char *const[]){"true", "false", "null", NULL}; *word;
         word++)
        build_eps(b, build_text(b, r.start, *word, strlen(*word)), r.end);
    schema_put_any_number(s, (struct span){r.start, r.end}, false);
    return s->value;
}
