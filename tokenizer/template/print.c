/* Values as text: Python's str() and repr(), and its shortest float format. */
#include "tokenizer/template/run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"

/* Shortest digits that read back, laid out as Python's repr() does: an exponent below 1e-4 and from
 * 1e16 on. */
size_t tv_format_real(double f, char out[40])
{
    if (isnan(f))
        return (size_t)sprintf(out, "nan");
    if (isinf(f))
        return (size_t)sprintf(out, f > 0 ? "inf" : "-inf");
    char sci[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(sci, sizeof sci, "%.*e", digits - 1, f);
        if (strtod(sci, NULL) == f)
            break;
    }
    char digits[24], *p = out;
    const char *s = sci;
    int n = 0;
    if (*s == '-')
        *p++ = *s++;
    for (; *s != 'e'; s++)
        if (*s != '.')
            digits[n++] = *s;
    int exponent = atoi(s + 1);
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (exponent < -4 || exponent >= 16) {
        *p++ = digits[0];
        if (n > 1) {
            *p++ = '.';
            memcpy(p, digits + 1, (size_t)n - 1);
            p += n - 1;
        }
        p += sprintf(p, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        p += sprintf(p, "0.");
        for (int i = -1; i > exponent; i--)
            *p++ = '0';
        memcpy(p, digits, (size_t)n);
        p += n;
    } else {
        for (int i = 0; i <= exponent; i++)
            *p++ = i < n ? digits[i] : '0';
        *p++ = '.';
        if (n > exponent + 1) {
            memcpy(p, digits + exponent + 1, (size_t)(n - exponent - 1));
            p += n - exponent - 1;
        } else {
            *p++ = '0';
        }
    }
    *p = 0;
    return (size_t)(p - out);
}

static bool printable(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return cp == ' ';
    default:
        return true;
    }
}

static void escape_code_point(char out[16], uint32_t cp)
{
    if (cp == '\n' || cp == '\r' || cp == '\t')
        sprintf(out, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    else
        sprintf(out, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
}

static void repr_str(struct trun *r, struct tbuf *b, const struct tval *s)
{
    bool single = memchr(s->u.s, '\'', s->len) != NULL, twin = memchr(s->u.s, '"', s->len) != NULL;
    const char *quote = single && !twin ? "\"" : "'";
    bool edge = s->trusted && s->x.mask == NULL;
    tbuf_add(r, b, quote, 1, edge);
    size_t run = 0; /* start of what can be copied as it is */
    for (size_t i = 0; i < s->len;) {
        uint32_t cp = 0;
        size_t len = utf8_decode(s->u.s + i, s->len - i, &cp);
        len = len == 0 ? 1 : len;
        bool quoted = cp == '\\' || cp == (uint32_t)*quote;
        if (!quoted && (cp < 0x7f ? cp >= ' ' : printable(cp))) {
            i += len;
            continue;
        }
        char esc[16];
        if (quoted)
            sprintf(esc, "\\%c", (char)cp);
        else
            escape_code_point(esc, cp);
        tbuf_add_range(r, b, s, run, i);
        tbuf_puts(r, b, esc, s->x.mask != NULL ? s->x.mask[i] : s->trusted);
        i += len;
        run = i;
    }
    tbuf_add_range(r, b, s, run, s->len);
    tbuf_add(r, b, quote, 1, edge);
}

static void print_items(struct trun *r, struct tbuf *b, const struct tseq *s, const char *open,
                        const char *close)
{
    tbuf_puts(r, b, open, s->trusted);
    for (size_t i = 0; i < s->n; i++) {
        if (i > 0)
            tbuf_puts(r, b, ", ", s->trusted);
        tv_repr(r, b, &s->v[i]);
    }
    tbuf_puts(r, b, close, s->trusted);
}

static void print_seq(struct trun *r, struct tbuf *b, const struct tseq *s)
{
    char text[96];
    switch (s->kind) {
    case SEQ_LIST:
        print_items(r, b, s, "[", "]");
        return;
    case SEQ_TUPLE:
    case SEQ_GROUP:
        print_items(r, b, s, "(", s->n == 1 ? ",)" : ")");
        return;
    case SEQ_KEYS:
        print_items(r, b, s, "dict_keys([", "])");
        return;
    case SEQ_VALUES:
        print_items(r, b, s, "dict_values([", "])");
        return;
    case SEQ_ITEMS:
        print_items(r, b, s, "dict_items([", "])");
        return;
    case SEQ_RANGE:
        snprintf(text, sizeof text,
                 s->step == 1 ? "range(%" PRId64 ", %" PRId64 ")"
                              : "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")",
                 s->start, s->stop, s->step);
        tbuf_puts(r, b, text, s->trusted);
        return;
    default:
        tbuf_puts(r, b, "<generator object>", true);
        return;
    }
}

static void print_dict(struct trun *r, struct tbuf *b, const struct tdict *d)
{
    tbuf_puts(r, b, "{", d->trusted);
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0)
            tbuf_puts(r, b, ", ", d->trusted);
        tv_repr(r, b, &d->e[i].key);
        tbuf_puts(r, b, ": ", d->trusted);
        tv_repr(r, b, &d->e[i].value);
    }
    tbuf_puts(r, b, "}", d->trusted);
}

void tv_repr(struct trun *r, struct tbuf *b, const struct tval *v)
{
    char text[64];
    tmpl_enter(r);
    switch (v->kind) {
    case TV_MISSING:
    case TV_UNDEF:
        tbuf_puts(r, b, "Undefined", true);
        break;
    case TV_NONE:
        tbuf_puts(r, b, "None", v->trusted);
        break;
    case TV_BOOL:
        tbuf_puts(r, b, v->u.b ? "True" : "False", v->trusted);
        break;
    case TV_INT:
        snprintf(text, sizeof text, "%" PRId64, v->u.i);
        tbuf_puts(r, b, text, v->trusted);
        break;
    case TV_REAL:
        tbuf_add(r, b, text, tv_format_real(v->u.f, text), v->trusted);
        break;
    case TV_STR:
        if (v->tag == STR_MARKUP)
            tbuf_puts(r, b, "Markup(", true);
        repr_str(r, b, v);
        if (v->tag == STR_MARKUP)
            tbuf_puts(r, b, ")", true);
        break;
    case TV_SEQ:
        print_seq(r, b, v->u.seq);
        break;
    case TV_DICT:
        print_dict(r, b, v->u.dict);
        break;
    case TV_NAMESPACE:
        tbuf_puts(r, b, "<Namespace ", true);
        print_dict(r, b, v->u.dict);
        tbuf_puts(r, b, ">", true);
        break;
    default:
        tbuf_puts(r, b, "<", true);
        tbuf_puts(r, b, tv_type_name(v), true);
        tbuf_puts(r, b, ">", true);
        break;
    }
    tmpl_leave(r);
}

void tv_print(struct trun *r, struct tbuf *b, const struct tval *v)
{
    if (v->kind == TV_STR)
        tbuf_add_str(r, b, v);
    else if (v->kind != TV_UNDEF && v->kind != TV_MISSING)
        tv_repr(r, b, v);
}

struct tval tv_to_str(struct trun *r, const struct tval *v)
{
    if (v->kind == TV_STR)
        return *v;
    struct tbuf b = {0};
    tv_print(r, &b, v);
    return tbuf_value(r, &b);
}
