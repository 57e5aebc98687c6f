/* Python literals to JSON: strings with their escapes and implicit concatenation, numbers, lists,
 * tuples, dictionaries, True, False, None and what JSON calls them. */
#include <string.h>

#include "base/utf8.h"
#include "router/output/output_internal.h"

#define DEPTH_MAX 32

struct reader {
    const char *s, *end;
    struct buf *out;
    int depth;
};

static void skip_blanks(struct reader *r)
{
    while (r->s < r->end && output_is_blank((unsigned char)*r->s))
        r->s++;
}

static bool next_is(struct reader *r, char c)
{
    skip_blanks(r);
    if (r->s == r->end || *r->s != c)
        return false;
    r->s++;
    return true;
}

void output_put_char(struct buf *out, uint32_t c)
{
    static const char plain[] = "\"\\\n\t\r", escaped[] = "\"\\ntr";
    const char *at = c && c < 0x80 ? strchr(plain, (int)c) : NULL;
    char utf8[4];
    if (at)
        buf_printf(out, "\\%c", escaped[at - plain]);
    else if (c < 0x20 || c == 0x7f || (c >= 0xd800 && c < 0xe000))
        buf_printf(out, "\\u%04x", c);
    else
        buf_append(out, utf8, utf8_encode(c, utf8));
}

static bool hex(struct reader *r, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++) {
        if (r->s == r->end)
            return false;
        char c = *r->s++;
        const char *at = c ? strchr("0123456789abcdefABCDEF", c) : NULL;
        if (!at)
            return false;
        uint32_t d = c <= '9' ? (uint32_t)(c - '0') : (uint32_t)((c | 32) - 'a' + 10);
        *out = *out * 16 + d;
    }
    return true;
}

static bool escape(struct reader *r)
{
    static const char from[] = "ntr\\'\"abfv", to[] = "\n\t\r\\'\"\a\b\f\v";
    uint32_t c;
    if (r->s == r->end)
        return false;
    char e = *r->s++;
    const char *at = e ? strchr(from, e) : NULL;
    if (at) {
        output_put_char(r->out, (unsigned char)to[at - from]);
        return true;
    }
    if (e == '\n')
        return true;
    if (e == 'x' || e == 'u' || e == 'U') {
        if (!hex(r,
                 e == 'x'   ? 2
                 : e == 'u' ? 4
                            : 8,
                 &c) ||
            c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return false;
        output_put_char(r->out, c);
        return true;
    }
    output_put_char(r->out, '\\'); /* Python leaves unknown ones as they are */
    r->s--;
    return true;
}

static bool string_body(struct reader *r, char quote)
{
    while (r->s < r->end) {
        char c = *r->s++;
        if (c == quote)
            return true;
        if (c == '\\') {
            if (!escape(r))
                return false;
        } else if ((unsigned char)c >= 0x80) {
            buf_putc(r->out, c);
        } else {
            output_put_char(r->out, (unsigned char)c);
        }
    }
    return false;
}

static bool string(struct reader *r)
{
    buf_putc(r->out, '"');
    do {
        char quote = *r->s++;
        if (!string_body(r, quote))
            return false;
        skip_blanks(r);
    } while (r->s < r->end && (*r->s == '"' || *r->s == '\''));
    buf_putc(r->out, '"');
    return true;
}

static bool value(struct reader *r);

static bool items(struct reader *r, char close)
{
    buf_putc(r->out, '[');
    for (bool first = true; !next_is(r, close); first = false) {
        if (!first && !next_is(r, ','))
            return false;
        if (next_is(r, close))
            break;
        if (!first)
            buf_puts(r->out, ", ");
        if (!value(r))
            return false;
    }
    buf_putc(r->out, ']');
    return true;
}

static bool dictionary(struct reader *r)
{
    buf_putc(r->out, '{');
    for (bool first = true; !next_is(r, '}'); first = false) {
        if (!first && !next_is(r, ','))
            return false;
        if (next_is(r, '}'))
            break;
        if (!first)
            buf_puts(r->out, ", ");
        skip_blanks(r);
        if (r->s == r->end || (*r->s != '"' && *r->s != '\'') || !string(r) || !next_is(r, ':'))
            return false;
        buf_puts(r->out, ": ");
        if (!value(r))
            return false;
    }
    buf_putc(r->out, '}');
    return true;
}

static bool in_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '+' || c == '-' || c == '_';
}

static bool word(struct reader *r)
{
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"},
                                           {"true", "true"}, {"false", "false"}, {"null", "null"}};
    const char *from = r->s;
    while (r->s < r->end && in_word(*r->s))
        r->s++;
    size_t n = (size_t)(r->s - from);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (n == strlen(words[i][0]) && memcmp(from, words[i][0], n) == 0) {
            buf_puts(r->out, words[i][1]);
            return true;
        }
    }
    if (n && *from == '+') {
        from++;
        n--;
    }
    if (n == 0 || !json_scan_whole(from, n))
        return false;
    buf_append(r->out, from, n);
    return true;
}

static bool value(struct reader *r)
{
    skip_blanks(r);
    if (r->s == r->end || r->depth == DEPTH_MAX)
        return false;
    bool ok;
    char c = *r->s;
    r->depth++;
    if (c == '"' || c == '\'') {
        ok = string(r);
    } else if (c == '[' || c == '(' || c == '{') {
        r->s++;
        ok = c == '{' ? dictionary(r) : items(r, c == '[' ? ']' : ')');
    } else {
        ok = word(r);
    }
    r->depth--;
    return ok;
}

bool output_python_value(const char *s, size_t n, struct buf *out)
{
    struct reader r = {s, s + n, out, 0};
    if (!value(&r))
        return false;
    skip_blanks(&r);
    return r.s == r.end;
}
