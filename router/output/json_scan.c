#include "router/output/json_scan.h"

#include <string.h>

static bool blank(unsigned char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static bool in_object(const struct json_scan *s)
{
    int at = s->depth - 1;
    return s->objects[at / 64] >> (at % 64) & 1;
}

static enum json_step enter(struct json_scan *s, bool object)
{
    if (s->depth == JSON_SCAN_DEPTH_MAX)
        return JSON_STEP_BAD;
    uint64_t bit = 1ull << (s->depth % 64);
    if (object)
        s->objects[s->depth / 64] |= bit;
    else
        s->objects[s->depth / 64] &= ~bit;
    s->depth++;
    s->state = object ? JSON_SCAN_FIRST_KEY : JSON_SCAN_FIRST;
    return JSON_STEP_MORE;
}

static enum json_step over(struct json_scan *s)
{
    s->state = s->depth ? JSON_SCAN_AFTER : JSON_SCAN_OVER;
    return s->depth ? JSON_STEP_MORE : JSON_STEP_DONE;
}

static enum json_step leave(struct json_scan *s)
{
    s->depth--;
    return over(s);
}

static enum json_step to(struct json_scan *s, enum json_scan_state state)
{
    s->state = state;
    return JSON_STEP_MORE;
}

static enum json_step begin_word(struct json_scan *s, const char *rest)
{
    s->word = rest;
    return to(s, JSON_SCAN_WORD);
}

static enum json_step begin_value(struct json_scan *s, unsigned char c)
{
    switch (c) {
    case '{':
        return enter(s, true);
    case '[':
        return enter(s, false);
    case '"':
        s->key = false;
        return to(s, JSON_SCAN_STRING);
    case 't':
        return begin_word(s, "rue");
    case 'f':
        return begin_word(s, "alse");
    case 'n':
        return begin_word(s, "ull");
    case '-':
        return to(s, JSON_SCAN_MINUS);
    case '0':
        return to(s, JSON_SCAN_ZERO);
    default:
        return digit(c) ? to(s, JSON_SCAN_INT) : JSON_STEP_BAD;
    }
}

static enum json_step begin_key(struct json_scan *s, unsigned char c)
{
    s->key = true;
    return c == '"' ? to(s, JSON_SCAN_STRING) : JSON_STEP_BAD;
}

static enum json_step after_value(struct json_scan *s, unsigned char c)
{
    bool object = in_object(s);
    if (c == ',')
        return to(s, object ? JSON_SCAN_KEY : JSON_SCAN_VALUE);
    return c == (object ? '}' : ']') ? leave(s) : JSON_STEP_BAD;
}

static enum json_step in_string(struct json_scan *s, unsigned char c)
{
    if (s->state == JSON_SCAN_HEX) {
        if (!digit(c) && !((c | 32) >= 'a' && (c | 32) <= 'f'))
            return JSON_STEP_BAD;
        return ++s->hex == 4 ? to(s, JSON_SCAN_STRING) : JSON_STEP_MORE;
    }
    if (s->state == JSON_SCAN_ESCAPE) {
        s->hex = 0;
        if (c == 'u')
            return to(s, JSON_SCAN_HEX);
        return c && strchr("\"\\/bfnrt", c) ? to(s, JSON_SCAN_STRING) : JSON_STEP_BAD;
    }
    if (c == '\\')
        return to(s, JSON_SCAN_ESCAPE);
    if (c != '"')
        return JSON_STEP_MORE;
    return s->key ? to(s, JSON_SCAN_COLON) : over(s);
}

/* The number's next state; JSON_SCAN_OVER: it does not go on. */
static enum json_scan_state number_next(enum json_scan_state at, unsigned char c)
{
    bool e = c == 'e' || c == 'E';
    switch (at) {
    case JSON_SCAN_MINUS:
        return c == '0' ? JSON_SCAN_ZERO : digit(c) ? JSON_SCAN_INT : JSON_SCAN_OVER;
    case JSON_SCAN_INT:
        if (digit(c))
            return JSON_SCAN_INT;
        return c == '.' ? JSON_SCAN_DOT : e ? JSON_SCAN_E : JSON_SCAN_OVER;
    case JSON_SCAN_ZERO:
        return c == '.' ? JSON_SCAN_DOT : e ? JSON_SCAN_E : JSON_SCAN_OVER;
    case JSON_SCAN_DOT:
        return digit(c) ? JSON_SCAN_FRACTION : JSON_SCAN_OVER;
    case JSON_SCAN_FRACTION:
        return digit(c) ? JSON_SCAN_FRACTION : e ? JSON_SCAN_E : JSON_SCAN_OVER;
    case JSON_SCAN_E:
        return digit(c)               ? JSON_SCAN_EXPONENT
               : c == '+' || c == '-' ? JSON_SCAN_SIGN
                                      : JSON_SCAN_OVER;
    default: /* JSON_SCAN_SIGN, JSON_SCAN_EXPONENT */
        return digit(c) ? JSON_SCAN_EXPONENT : JSON_SCAN_OVER;
    }
}

static bool number_complete(enum json_scan_state at)
{
    return at == JSON_SCAN_ZERO || at == JSON_SCAN_INT || at == JSON_SCAN_FRACTION ||
           at == JSON_SCAN_EXPONENT;
}

static enum json_step in_number(struct json_scan *s, unsigned char c)
{
    enum json_scan_state next = number_next(s->state, c);
    if (next != JSON_SCAN_OVER)
        return to(s, next);
    if (!number_complete(s->state))
        return JSON_STEP_BAD;
    if (over(s) == JSON_STEP_DONE)
        return JSON_STEP_BEFORE;
    return blank(c) ? JSON_STEP_MORE : after_value(s, c);
}

enum json_step json_scan_push(struct json_scan *s, unsigned char c)
{
    bool outside = s->state <= JSON_SCAN_AFTER;
    if (outside && blank(c))
        return JSON_STEP_MORE;
    switch (s->state) {
    case JSON_SCAN_FIRST:
        return c == ']' ? leave(s) : begin_value(s, c);
    case JSON_SCAN_VALUE:
        return begin_value(s, c);
    case JSON_SCAN_FIRST_KEY:
        return c == '}' ? leave(s) : begin_key(s, c);
    case JSON_SCAN_KEY:
        return begin_key(s, c);
    case JSON_SCAN_COLON:
        return c == ':' ? to(s, JSON_SCAN_VALUE) : JSON_STEP_BAD;
    case JSON_SCAN_AFTER:
        return after_value(s, c);
    case JSON_SCAN_STRING:
    case JSON_SCAN_ESCAPE:
    case JSON_SCAN_HEX:
        return in_string(s, c);
    case JSON_SCAN_WORD:
        if (c != (unsigned char)*s->word)
            return JSON_STEP_BAD;
        return *++s->word ? JSON_STEP_MORE : over(s);
    case JSON_SCAN_OVER:
        return JSON_STEP_BAD;
    default:
        return in_number(s, c);
    }
}

void json_scan_copy(const struct json_scan *s, unsigned char c, struct buf *out)
{
    if (c >= 0x20 || s->state != JSON_SCAN_STRING)
        buf_putc(out, (char)c);
    else
        buf_printf(out, "\\u%04x", c);
}

bool json_scan_whole(const char *text, size_t len)
{
    struct json_scan s = {0};
    enum json_step step = JSON_STEP_MORE;
    size_t i = 0;
    for (; i < len && step == JSON_STEP_MORE; i++)
        step = json_scan_push(&s, (unsigned char)text[i]);
    if (step == JSON_STEP_MORE)
        return s.depth == 0 && number_complete(s.state);
    if (step == JSON_STEP_BEFORE)
        i--;
    else if (step != JSON_STEP_DONE)
        return false;
    while (i < len && blank((unsigned char)text[i]))
        i++;
    return i == len;
}
