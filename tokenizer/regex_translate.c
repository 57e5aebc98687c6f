/* Patterns written in Onigmo's dialect, spelled for PCRE2. One pass; it recurses into nested
 * classes only (bounded). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/unicode.h"

#define CLASS_DEPTH_MAX 8

/* White_Space: PCRE2's own \s counts U+180E too. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
/* Word characters of UTS 18; PCRE2's own \w leaves out marks. */
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

struct translator {
    const char *p, *end;
    struct buf out;
    int depth;
    const char *unsupported;
};

struct class_text {
    struct buf items;       /* without brackets */
    bool negated, compound; /* compound: `items` is a whole group, not class items */
};

/* Names of properties that PCRE2 spells otherwise; the items stand inside a class. */
static const struct {
    const char *name, *items;
} properties[] = {
    {"letter", "\\p{L}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"alpha", "\\p{Alphabetic}"},
    {"digit", "\\p{Nd}"},
    {"upper", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
    {"punct", "\\p{P}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"space", SPACES},
    {"word", WORDS},
};

static bool compiles(const char *pattern)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                  &code, &at, NULL);
    pcre2_code_free(c);
    return c;
}

/* \p{..} or \P{..} at t->p, with a name that Onigmo reads otherwise. False: nothing special,
 * nothing used up. */
static bool translate_property(struct translator *t, struct buf *out, bool in_class)
{
    const char *close = memchr(t->p, '}', (size_t)(t->end - t->p));
    char name[40], probe[64];
    size_t n = 0;
    bool negated = t->p[1] == 'P';
    if (!close || close - t->p < 4 || t->p[2] != '{')
        return false;
    const char *from = t->p + 3;
    if (*from == '^') {
        negated = !negated;
        from++;
    }
    for (; from < close; from++) {
        if (*from == ' ' || *from == '_' || *from == '-')
            continue;
        if (n + 1 >= sizeof(name) || !((*from | 32) >= 'a' && (*from | 32) <= 'z'))
            return false;
        name[n++] = (char)(*from | 32);
    }
    name[n] = 0;
    const char *items = NULL;
    for (size_t i = 0; i < sizeof(properties) / sizeof(properties[0]) && !items; i++)
        if (!strcmp(properties[i].name, name))
            items = properties[i].items;
    snprintf(probe, sizeof(probe), "\\p{sc:%s}", name);
    if (!items && n > 2 && compiles(probe)) /* a script, not the characters that it shares too */
        items = probe;
    if (!items)
        return false;
    if (!in_class)
        buf_printf(out, negated ? "[^%s]" : "[%s]", items);
    else if (!negated)
        buf_puts(out, items);
    else if (strchr(items, '}') == items + strlen(items) - 1 && items[1] == 'p')
        buf_printf(out, "\\P%s", items + 2);
    else
        t->unsupported = "a negated group of properties inside a character class";
    t->p = close + 1;
    return true;
}

static void copy_escape(struct translator *t, struct buf *out)
{
    const char *p = t->p;
    size_t left = (size_t)(t->end - p);
    if (left >= 6 && p[1] == 'u' && p[2] != '{') {
        buf_puts(out, "\\x{");
        buf_append(out, p + 2, 4);
        buf_putc(out, '}');
        t->p += 6;
    } else if (left >= 3 && p[1] == 'u') {
        buf_puts(out, "\\x");
        t->p += 2;
    } else if (left >= 2) {
        buf_append(out, p, 2);
        t->p += 2;
    } else {
        buf_putc(out, '\\');
        t->p += 1;
    }
}

static void class_escape(struct translator *t, struct buf *out)
{
    char c = t->end - t->p >= 2 ? t->p[1] : 0;
    const char *list = c == 's' ? SPACES : c == 'w' ? WORDS : c == 'h' ? "0-9a-fA-F" : NULL;
    if ((c == 'p' || c == 'P') && translate_property(t, out, true))
        return;
    if (!list) {
        copy_escape(t, out);
        return;
    }
    buf_puts(out, list);
    t->p += 2;
}

/* [:name:] at t->p, inside a class. */
static void posix_class(struct translator *t, struct buf *out)
{
    size_t left = (size_t)(t->end - t->p);
    const char *close = text_find(t->p, left, ":]", 2);
    size_t n = close ? (size_t)(close + 2 - t->p) : left;
    const char *items = NULL;
    if (n == 9 && !memcmp(t->p, "[:punct:]", 9))
        items = "\\p{P}\\p{S}"; /* \p{Punct} is without the symbols */
    for (size_t i = 0; i < sizeof(properties) / sizeof(properties[0]) && !items; i++)
        if (strlen(properties[i].name) + 4 == n && !memcmp(properties[i].name, t->p + 2, n - 4))
            items = properties[i].items;
    if (items)
        buf_puts(out, items);
    else
        buf_append(out, t->p, n);
    t->p += n;
}

static void parse_class(struct translator *t, struct class_text *c);

/* A class inside a class: a union when plain, an operand of && when alone. */
static void nested_class(struct translator *t, struct buf *items, struct buf *operand)
{
    struct class_text inner = {0};
    parse_class(t, &inner);
    bool alone = items->len == 0 && t->end - t->p >= 1 && (t->p[0] == ']' || t->p[0] == '&');
    if (inner.compound)
        t->unsupported = "an intersection inside a character class";
    else if (!inner.negated)
        buf_append(items, inner.items.data, inner.items.len);
    else if (alone)
        buf_printf(operand, "[^%.*s]", (int)inner.items.len, inner.items.data);
    else
        t->unsupported = "a negated class inside a character class";
    buf_fini(&inner.items);
}

/* Closes one operand of an intersection: as text of a class. */
static void close_operand(struct buf *items, struct buf *operand, struct buf *groups, bool last)
{
    struct buf whole = {0};
    if (operand->len)
        buf_append(&whole, operand->data, operand->len);
    else
        buf_printf(&whole, "[%.*s]", (int)items->len, items->len ? items->data : "");
    if (last)
        buf_append(groups, whole.data, whole.len);
    else
        buf_printf(groups, "(?=%.*s)", (int)whole.len, whole.data);
    buf_fini(&whole);
    buf_clear(items);
    buf_clear(operand);
}

/* At '[': reads to its ']'. */
static void parse_class(struct translator *t, struct class_text *c)
{
    struct buf operand = {0}, groups = {0};
    if (++t->depth > CLASS_DEPTH_MAX) {
        t->unsupported = "character classes nested too deeply";
        t->p = t->end;
        return;
    }
    t->p++;
    if (t->p < t->end && *t->p == '^') {
        c->negated = true;
        t->p++;
    }
    bool first = true;
    while (t->p < t->end && (*t->p != ']' || first)) {
        size_t left = (size_t)(t->end - t->p);
        if (*t->p == '\\') {
            class_escape(t, &c->items);
        } else if (left >= 2 && t->p[0] == '[' && t->p[1] == ':') {
            posix_class(t, &c->items);
        } else if (*t->p == '[') {
            nested_class(t, &c->items, &operand);
        } else if (left >= 2 && t->p[0] == '&' && t->p[1] == '&') {
            close_operand(&c->items, &operand, &groups, false);
            t->p += 2;
        } else {
            buf_putc(&c->items, *t->p++);
        }
        first = false;
    }
    if (t->p < t->end)
        t->p++;
    if (groups.len || operand.len) {
        close_operand(&c->items, &operand, &groups, true);
        if (c->negated)
            buf_printf(&c->items, "(?!%.*s)(?s:.)", (int)groups.len, groups.data);
        else
            buf_append(&c->items, groups.data, groups.len);
        c->compound = true;
    }
    buf_fini(&operand);
    buf_fini(&groups);
    t->depth--;
}

static void translate_class(struct translator *t)
{
    struct class_text c = {0};
    parse_class(t, &c);
    buf_puts(&t->out, c.compound ? "(?:" : c.negated ? "[^" : "[");
    buf_append(&t->out, c.items.data, c.items.len);
    buf_puts(&t->out, c.compound ? ")" : "]");
    buf_fini(&c.items);
}

static void translate(struct translator *t)
{
    while (t->p < t->end) {
        char c = *t->p, d = t->end - t->p >= 2 ? t->p[1] : 0;
        if (c == '\\' && (d == 's' || d == 'w' || d == 'h')) {
            buf_putc(&t->out, '[');
            class_escape(t, &t->out);
            buf_putc(&t->out, ']');
        } else if (c == '\\' && (d == 'S' || d == 'W' || d == 'H')) {
            buf_puts(&t->out, d == 'S'   ? "[^" SPACES "]"
                              : d == 'W' ? "[^" WORDS "]"
                                         : "[^0-9a-fA-F]");
            t->p += 2;
        } else if (c == '\\') {
            if (!((d == 'p' || d == 'P') && translate_property(t, &t->out, false)))
                copy_escape(t, &t->out);
        } else if (c == '[') {
            translate_class(t);
        } else if (c == '{' && d == ',') {
            buf_puts(&t->out, "{0");
            t->p++;
        } else {
            buf_putc(&t->out, c);
            t->p++;
        }
    }
}

const char *regex_translate(const char *pattern, size_t len, struct buf *out)
{
    struct translator t = {.p = pattern, .end = pattern + len, .out = {.max = out->max}};
    translate(&t);
    buf_fini(out);
    *out = t.out;
    return t.unsupported;
}
