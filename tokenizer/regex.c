#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/unicode.h"

#define PATTERN_MAX 65536
#define CLASS_DEPTH_MAX 8
#define MATCH_STEPS_MAX 20000000
#define MATCH_HEAP_KIB (64 * 1024)
#define JIT_STACK_MAX (8 << 20)

struct regex {
    pcre2_code *code;
    bool jit;
    char *literal;
    size_t literal_len;
};

/* White_Space: PCRE2's own \s counts U+180E too. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
/* Word characters of UTS 18; PCRE2's own \w leaves out marks. */
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

/* Translation from Onigmo's dialect. One pass, recursing only into nested classes (bounded). */
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

enum status regex_compile(const char *pattern, size_t len, struct regex **out, struct error *err)
{
    if (len > PATTERN_MAX)
        return err_set(err, ST_INVALID, "pattern of %zu bytes, at most %d", len, PATTERN_MAX);
    struct translator t = {.p = pattern, .end = pattern + len, .out = {.max = 64 * PATTERN_MAX}};
    translate(&t);
    enum status st = ST_OK;
    struct regex *r = NULL;
    pcre2_compile_context *context = NULL;
    if (t.unsupported) {
        st = err_set(err, ST_UNSUPPORTED, "pattern with %s", t.unsupported);
        goto done;
    }
    r = calloc(1, sizeof(*r));
    context = pcre2_compile_context_create(NULL);
    if (!r || !context || t.out.failed) {
        st = err_set(err, ST_NO_MEMORY, "pattern: no memory");
        goto done;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int code = 0;
    PCRE2_SIZE at = 0;
    const char *text = t.out.data ? t.out.data : "";
    r->code = pcre2_compile((PCRE2_SPTR)text, t.out.len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &code, &at, context);
    if (!r->code) {
        char reason[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof(reason));
        st = err_set(err, ST_INVALID, "pattern: %s near \"%.40s\"", reason,
                     text + (at < t.out.len ? at : t.out.len));
        goto done;
    }
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    *out = r;
    r = NULL;
done:
    pcre2_compile_context_free(context);
    regex_free(r);
    buf_fini(&t.out);
    return st;
}

enum status regex_compile_literal(const char *s, size_t len, struct regex **out, struct error *err)
{
    struct regex *r = calloc(1, sizeof(*r));
    char *copy = malloc(len + 1);
    if (!r || !copy) {
        free(r);
        free(copy);
        return err_set(err, ST_NO_MEMORY, "pattern: no memory");
    }
    memcpy(copy, s, len);
    copy[len] = 0;
    r->literal = copy;
    r->literal_len = len;
    *out = r;
    return ST_OK;
}

void regex_free(struct regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    free(r->literal);
    free(r);
}

void regex_run_fini(struct regex_run *run)
{
    pcre2_match_data_free(run->match_data);
    pcre2_match_context_free(run->match_context);
    pcre2_jit_stack_free(run->jit_stack);
    *run = (struct regex_run){0};
}

static bool run_prepare(struct regex_run *run)
{
    if (run->match_data)
        return true;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    if (!data || !context) {
        pcre2_match_data_free(data);
        pcre2_match_context_free(context);
        return false;
    }
    pcre2_set_match_limit(context, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(context, MATCH_HEAP_KIB);
    run->match_data = data;
    run->match_context = context;
    return true;
}

static int match_hard(const struct regex_walk *w)
{
    struct regex_run *run = w->run;
    /* The machine stack was too small for the JIT's backtracking: a larger one, then the
     * interpreter. */
    if (!run->jit_stack)
        run->jit_stack = pcre2_jit_stack_create(64 * 1024, JIT_STACK_MAX, NULL);
    if (run->jit_stack) {
        pcre2_jit_stack_assign(run->match_context, NULL, run->jit_stack);
        int rc = pcre2_jit_match(w->regex->code, (PCRE2_SPTR)w->text, w->len, w->pos, 0,
                                 run->match_data, run->match_context);
        if (rc != PCRE2_ERROR_JIT_STACKLIMIT)
            return rc;
    }
    return pcre2_match(w->regex->code, (PCRE2_SPTR)w->text, w->len, w->pos,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->match_data, run->match_context);
}

/* First match at or after w->pos. */
static enum status find(struct regex_walk *w, struct error *err)
{
    const struct regex *r = w->regex;
    struct regex_run *run = w->run;
    if (r->literal) {
        const char *at = r->literal_len ? text_find(w->text + w->pos, w->len - w->pos, r->literal,
                                                    r->literal_len)
                                        : NULL;
        if (!at)
            return ST_NOT_FOUND;
        w->begin = (size_t)(at - w->text);
        w->end = w->begin + r->literal_len;
        return ST_OK;
    }
    if (!run_prepare(run))
        return err_set(err, ST_NO_MEMORY, "pattern: no memory");
    int rc;
    if (r->jit)
        rc = pcre2_jit_match(r->code, (PCRE2_SPTR)w->text, w->len, w->pos, 0, run->match_data,
                             run->match_context);
    else
        rc = pcre2_match(r->code, (PCRE2_SPTR)w->text, w->len, w->pos, PCRE2_NO_UTF_CHECK,
                         run->match_data, run->match_context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = match_hard(w);
    if (rc == PCRE2_ERROR_NOMATCH)
        return ST_NOT_FOUND;
    if (rc < 0) {
        char reason[128] = "";
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)reason, sizeof(reason));
        return err_set(err, rc == PCRE2_ERROR_NOMEMORY ? ST_NO_MEMORY : ST_INVALID,
                       "tokenizer pattern: %s", reason);
    }
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(run->match_data);
    w->begin = v[0];
    w->end = v[1];
    /* \K can turn a match around, and then it is no match for us */
    if (w->begin < w->pos || w->end < w->begin)
        return ST_NOT_FOUND;
    return ST_OK;
}

enum status regex_next(struct regex_walk *w, struct error *err)
{
    while (w->pos <= w->len) {
        size_t last_end = w->end;
        enum status st = find(w, err);
        if (st)
            return st;
        w->pos = w->end;
        if (w->begin != w->end) {
            w->any = true;
            return ST_OK;
        }
        w->pos += w->end < w->len ? text_char_len((unsigned char)w->text[w->end]) : 1;
        if (w->any && w->end == last_end)
            continue;
        w->any = true;
        return ST_OK;
    }
    return ST_NOT_FOUND;
}
