/* "%s" % values and "{}".format(values), as Python formats text and numbers. */
#include "tokenizer/template/ast.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/template/builtin.h"

enum { FIELD_MAX = 4096, PRECISION_MAX = 100 };

struct spec {
    struct tval fill;
    char align, sign, group, type;
    bool alternate, zero;
    int width, precision; /* precision -1: none */
};

static _Noreturn void bad_format(struct trun *r, const char *what)
{
    tmpl_raise(r, "ValueError: %s", what);
}

/* Reads a number of at most FIELD_MAX; returns bytes eaten. */
static size_t read_count(struct trun *r, const char *s, size_t len, int *out)
{
    size_t i = 0;
    *out = 0;
    for (; i < len && isdigit((unsigned char)s[i]); i++) {
        *out = *out * 10 + (s[i] - '0');
        if (*out > FIELD_MAX)
            bad_format(r, "a field is too wide");
    }
    return i;
}

/* Puts `,` or `_` between groups of three digits of the integer part. */
static void group_digits(char *text, size_t cap, char mark)
{
    char out[FIELD_MAX];
    size_t start = !isdigit((unsigned char)text[0]), n = start, digits = 0, o = 0;
    while (isdigit((unsigned char)text[n]))
        n++;
    digits = n - start;
    memcpy(out, text, start);
    o = start;
    for (size_t i = 0; i < digits; i++) {
        if (i > 0 && (digits - i) % 3 == 0)
            out[o++] = mark;
        out[o++] = text[start + i];
    }
    snprintf(out + o, sizeof out - o, "%s", text + n);
    snprintf(text, cap, "%s", out);
}

static void integer_text(char *out, size_t cap, const struct spec *f, int64_t i)
{
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    const char *sign = i < 0 ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
    if (f->type == 'b') {
        char bits[65];
        size_t n = sizeof bits - 1;
        bits[n] = 0;
        do
            bits[--n] = (char)('0' + (u & 1));
        while ((u >>= 1) != 0);
        snprintf(out, cap, "%s%s%s", sign, f->alternate ? "0b" : "", bits + n);
        return;
    }
    const char *prefix = !f->alternate    ? ""
                         : f->type == 'x' ? "0x"
                         : f->type == 'X' ? "0X"
                         : f->type == 'o' ? "0o"
                                          : "";
    if (f->type == 'x')
        snprintf(out, cap, "%s%s%" PRIx64, sign, prefix, u);
    else if (f->type == 'X')
        snprintf(out, cap, "%s%s%" PRIX64, sign, prefix, u);
    else if (f->type == 'o')
        snprintf(out, cap, "%s%s%" PRIo64, sign, prefix, u);
    else
        snprintf(out, cap, "%s%" PRIu64, sign, u);
}

static void real_text(char *out, size_t cap, const struct spec *f, double d)
{
    const char *sign = signbit(d) ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
    double u = fabs(d);
    int precision = f->precision < 0 ? 6 : f->precision;
    char text[40];
    if (f->type == 0 && f->precision < 0) {
        tv_format_real(u, text);
        snprintf(out, cap, "%s%s", sign, text);
    } else if (f->type == '%') {
        snprintf(out, cap, "%s%.*f%%", sign, precision, u * 100);
    } else if (f->type == 'e' || f->type == 'E') {
        snprintf(out, cap, f->type == 'e' ? "%s%.*e" : "%s%.*E", sign, precision, u);
    } else if (f->type == 'g' || f->type == 'G' || f->type == 0) {
        snprintf(out, cap, f->type == 'G' ? "%s%.*G" : "%s%.*g", sign, precision, u);
    } else {
        snprintf(out, cap, "%s%.*f", sign, precision, u);
    }
}

/* Lays `text` out in the field. '=' pads between sign and digits. */
static void put_field(struct trun *r, struct tbuf *b, const struct spec *f, const struct tval *text)
{
    size_t n = tv_length(r, text), pad = f->width > (int)n ? (size_t)f->width - n : 0, left = 0,
           sign = 0;
    if (f->align == '>')
        left = pad;
    else if (f->align == '^')
        left = pad / 2;
    else if (f->align == '=') {
        sign = text->len > 0 && strchr("+- ", text->u.s[0]) != NULL;
        if (text->len > sign + 1 && text->u.s[sign] == '0' &&
            isalpha((unsigned char)text->u.s[sign + 1]))
            sign += 2;
        left = pad;
    }
    tbuf_add_range(r, b, text, 0, sign);
    tmpl_pad(r, b, &f->fill, left);
    tbuf_add_range(r, b, text, sign, text->len);
    tmpl_pad(r, b, &f->fill, pad - left);
}

static void put_number(struct trun *r, struct tbuf *b, struct spec *f, const struct tval *v)
{
    char text[FIELD_MAX];
    if (f->precision > PRECISION_MAX)
        bad_format(r, "precision too big");
    if (f->type == 'c') {
        int64_t cp = tv_want_int(r, v);
        if (cp <= 0 || cp > 0x7F)
            bad_format(r, "%c is supported for ASCII only");
        snprintf(text, sizeof text, "%c", (char)cp);
    } else if (v->kind == TV_REAL || (f->type != 0 && strchr("eEfFgG%", f->type) != NULL)) {
        real_text(text, sizeof text, f, tv_number(v));
    } else {
        integer_text(text, sizeof text, f, tv_integer(v));
    }
    if (f->group != 0)
        group_digits(text, sizeof text, f->group);
    if (f->align == 0)
        f->align = '>';
    struct tval s = tv_str(text, strlen(text), v->trusted);
    put_field(r, b, f, &s);
}

static void put_text(struct trun *r, struct tbuf *b, struct spec *f, struct tval s)
{
    if (f->precision >= 0)
        s = tmpl_slice(r, &s, (struct tval[3]){tv_none(), tv_int(f->precision, true), tv_none()});
    if (f->align == 0 || f->align == '=')
        f->align = '<';
    put_field(r, b, f, &s);
}

static struct tval repr_value(struct trun *r, const struct tval *v)
{
    struct tbuf b = {0};
    tv_repr(r, &b, v);
    return tbuf_value(r, &b);
}

/* --- "%..." --- */

struct percent {
    const struct tval *arg;
    size_t next;
};

static const struct tval *percent_next(struct trun *r, struct percent *p)
{
    bool tuple = p->arg->kind == TV_SEQ && p->arg->u.seq->kind == SEQ_TUPLE;
    size_t n = tuple ? p->arg->u.seq->n : 1;
    if (p->next >= n)
        tmpl_raise(r, "TypeError: not enough arguments for format string");
    return tuple ? &p->arg->u.seq->v[p->next++] : (p->next++, p->arg);
}

/* One conversion at s[i..), after its '%'; returns where the text goes on. */
static size_t percent_one(struct trun *r, struct tbuf *b, const struct tval *fmt, size_t i,
                          struct percent *p)
{
    const char *s = fmt->u.s;
    struct spec f = {.fill = tv_cstr(" "), .precision = -1};
    const struct tval *v = NULL;
    if (i < fmt->len && s[i] == '(') {
        const char *close = memchr(s + i, ')', fmt->len - i);
        if (close == NULL || p->arg->kind != TV_DICT)
            bad_format(r, close == NULL ? "incomplete format key" : "format requires a mapping");
        v = tv_dict_get_name(p->arg->u.dict, s + i + 1, (size_t)(close - s) - i - 1);
        if (v == NULL)
            tmpl_raise(r, "KeyError: a format key is missing");
        i = (size_t)(close - s) + 1;
        p->next = 1;
    }
    for (; i < fmt->len && strchr("-+ #0", s[i]) != NULL && s[i] != 0; i++) {
        if (s[i] == '-')
            f.align = '<';
        else if (s[i] == '#')
            f.alternate = true;
        else if (s[i] == '0')
            f.zero = true;
        else if (f.sign != '+')
            f.sign = s[i];
    }
    i += read_count(r, s + i, fmt->len - i, &f.width);
    if (i < fmt->len && s[i] == '.')
        i += 1 + read_count(r, s + i + 1, fmt->len - i - 1, &f.precision);
    if (i >= fmt->len)
        bad_format(r, "incomplete format");
    f.type = s[i] == 'i' || s[i] == 'u' ? 'd' : s[i];
    if (f.type == '%') {
        tbuf_add_range(r, b, fmt, i, i + 1);
        return i + 1;
    }
    if (strchr("sradxXoeEfFgGc", f.type) == NULL || f.type == 0)
        bad_format(r, "unsupported format character");
    v = v != NULL ? v : percent_next(r, p);
    if (f.align == 0)
        f.align = '>';
    if (f.type == 's' || f.type == 'r' || f.type == 'a') {
        put_text(r, b, &f, f.type == 's' ? tv_to_str(r, v) : repr_value(r, v));
        return i + 1;
    }
    if (!tv_is_number(v))
        tmpl_raise(r, "TypeError: %%%c format: a real number is required, not %s", s[i],
                   tv_type_name(v));
    struct tval whole = *v;
    if (strchr("dxXo", f.type) != NULL && v->kind == TV_REAL) {
        if (!(fabs(v->u.f) < 9e18))
            bad_format(r, "a number is too large");
        whole = tv_int((int64_t)v->u.f, v->trusted);
    }
    if (f.zero && f.align == '>') {
        f.fill = tv_cstr("0");
        f.align = '=';
    }
    put_number(r, b, &f, &whole);
    return i + 1;
}

struct tval tmpl_percent(struct trun *r, const struct tval *fmt, const struct tval *arg)
{
    struct tbuf b = {0};
    struct percent p = {.arg = arg};
    size_t from = 0;
    for (size_t i = 0; i < fmt->len;) {
        if (fmt->u.s[i] != '%') {
            i++;
            continue;
        }
        tbuf_add_range(r, &b, fmt, from, i);
        from = i = percent_one(r, &b, fmt, i + 1, &p);
    }
    tbuf_add_range(r, &b, fmt, from, fmt->len);
    bool tuple = arg->kind == TV_SEQ && arg->u.seq->kind == SEQ_TUPLE;
    /* What can be subscripted counts as a mapping, whose members need not all be used. */
    bool mapping = arg->kind == TV_DICT || arg->kind == TV_UNDEF || (arg->kind == TV_SEQ && !tuple);
    if (!mapping && p.next < (tuple ? arg->u.seq->n : 1))
        tmpl_raise(r, "TypeError: not all arguments converted during string "
                      "formatting");
    return tbuf_value(r, &b);
}

/* --- "{...}" --- */

struct braces {
    const struct targs *a;
    int next; /* -1: numbered by hand */
};

static void parse_spec(struct trun *r, const struct tval *spec, struct spec *f)
{
    const char *s = spec->u.s;
    size_t i = 0, len = spec->len, first = 0;
    *f = (struct spec){.fill = tv_cstr(" "), .precision = -1};
    for (first = 1; first < len && ((unsigned char)s[first] & 0xC0) == 0x80;)
        first++;
    if (first < len && strchr("<>=^", s[first]) != NULL && s[first] != 0) {
        f->fill = tv_substr(spec, 0, first);
        f->align = s[first];
        i = first + 1;
    } else if (len > 0 && strchr("<>=^", s[0]) != NULL && s[0] != 0) {
        f->align = s[i++];
    }
    if (i < len && (s[i] == '+' || s[i] == '-' || s[i] == ' '))
        f->sign = s[i++];
    if (i < len && s[i] == '#')
        f->alternate = s[i++] != 0;
    if (i < len && s[i] == '0') {
        f->zero = true;
        i++;
    }
    i += read_count(r, s + i, len - i, &f->width);
    if (i < len && (s[i] == ',' || s[i] == '_'))
        f->group = s[i++];
    if (i < len && s[i] == '.')
        i += 1 + read_count(r, s + i + 1, len - i - 1, &f->precision);
    if (i < len)
        f->type = s[i++];
    if (i < len || (f->type != 0 && strchr("sdxXobceEfFgG%", f->type) == NULL))
        bad_format(r, "Invalid format specifier");
    if (f->zero && f->align == 0) {
        f->fill = tv_cstr("0");
        f->align = '=';
    }
}

/* The object that a field's name leads to: "0.name[key]". */
static struct tval field_value(struct trun *r, struct braces *p, const struct tval *name)
{
    size_t end = 0;
    int index;
    while (end < name->len && name->u.s[end] != '.' && name->u.s[end] != '[')
        end++;
    struct tval v, head = tv_substr(name, 0, end);
    bool number = read_count(r, head.u.s, head.len, &index) == head.len;
    if (number) {
        if (end == 0)
            index = p->next++;
        else
            p->next = INT32_MIN;
        if (p->next < 0 && end == 0)
            bad_format(
                r, "cannot switch from manual field specification to automatic field numbering");
        if (index < 0 || (size_t)index >= p->a->n)
            tmpl_raise(r,
                       "IndexError: Replacement index %d out of range for "
                       "positional "
                       "args tuple",
                       index);
        v = p->a->v[index];
    } else {
        const struct tkwarg *found = NULL;
        for (size_t i = 0; i < p->a->n_kw; i++)
            if (p->a->kw[i].len == head.len && memcmp(p->a->kw[i].name, head.u.s, head.len) == 0)
                found = &p->a->kw[i];
        if (found == NULL)
            tmpl_raise(r, "KeyError: '%.*s'", head.len > 60 ? 60 : (int)head.len, head.u.s);
        v = found->v;
    }
    while (end < name->len) {
        bool item = name->u.s[end++] == '[';
        size_t from = end;
        while (end < name->len &&
               (item ? name->u.s[end] != ']' : name->u.s[end] != '.' && name->u.s[end] != '['))
            end++;
        struct tval key = tv_substr(name, from, end);
        if (item && end++ == name->len)
            bad_format(r, "Missing ']' in format string");
        if (item && key.len > 0 && read_count(r, key.u.s, key.len, &index) == key.len)
            key = tv_int(index, true);
        v = item ? tmpl_getitem(r, &v, &key)
                 : tmpl_getattr(r, &v, &key, tmpl_find_method(key.u.s, key.len));
    }
    return v;
}

/* One field between braces, fmt[from..to). */
static void brace_field(struct trun *r, struct tbuf *b, const struct tval *fmt, size_t from,
                        size_t to, struct braces *p)
{
    const char *s = fmt->u.s;
    size_t end = from;
    while (end < to && s[end] != '!' && s[end] != ':')
        end += s[end] == '[' && memchr(s + end, ']', to - end) != NULL
                   ? (size_t)((const char *)memchr(s + end, ']', to - end) - (s + end))
                   : 1;
    struct tval name = tv_substr(fmt, from, end), v = field_value(r, p, &name);
    if (end < to && s[end] == '!') {
        char conversion = end + 1 < to ? s[end + 1] : 0;
        if (conversion != 's' && conversion != 'r' && conversion != 'a')
            bad_format(r, "Unknown conversion specifier");
        v = conversion == 's' ? tv_to_str(r, &v) : repr_value(r, &v);
        end += 2;
    }
    struct tval text = tv_substr(fmt, end < to ? end + 1 : to, to);
    struct spec f;
    parse_spec(r, &text, &f);
    if (text.len == 0)
        put_text(r, b, &f, tv_to_str(r, &v));
    else if (v.kind == TV_STR && f.type != 0 && f.type != 's')
        bad_format(r, "Unknown format code for object of type 'str'");
    else if (tv_is_number(&v) && f.type != 's' && !(v.kind == TV_BOOL && f.type == 0))
        put_number(r, b, &f, &v);
    else if (v.kind == TV_STR || v.kind == TV_UNDEF || v.kind == TV_BOOL)
        put_text(r, b, &f, tv_to_str(r, &v));
    else
        bad_format(r, "unsupported format string passed to this type");
}

struct tval tmpl_method_format(struct trun *r, const struct tval *self, struct targs *a)
{
    struct tbuf b = {0};
    struct braces p = {.a = a};
    const char *s = self->u.s;
    size_t from = 0;
    for (size_t i = 0; i < self->len;) {
        if (s[i] != '{' && s[i] != '}') {
            i++;
            continue;
        }
        bool twice = i + 1 < self->len && s[i + 1] == s[i];
        tbuf_add_range(r, &b, self, from, i + twice);
        if (twice) {
            from = i += 2;
            continue;
        }
        const char *close = s[i] == '{' ? memchr(s + i, '}', self->len - i) : NULL;
        if (close == NULL)
            bad_format(r, s[i] == '{' ? "Single '{' encountered in format string"
                                      : "Single '}' encountered in format string");
        if (memchr(s + i + 1, '{', (size_t)(close - s) - i - 1) != NULL)
            bad_format(r, "nested format fields are not supported");
        brace_field(r, &b, self, i + 1, (size_t)(close - s), &p);
        from = i = (size_t)(close - s) + 1;
    }
    tbuf_add_range(r, &b, self, from, self->len);
    struct tval v = tbuf_value(r, &b);
    v.tag = self->tag;
    return v;
}

struct tval tmpl_method_format_map(struct trun *r, const struct tval *self, struct targs *a)
{
    struct tval map;
    struct targs named = {.callee = a->callee};
    tmpl_args(r, a, "mapping", &map);
    if (map.kind != TV_DICT)
        tmpl_raise(r, "TypeError: format_map() needs a mapping");
    named.kw = tmpl_alloc(r, (map.u.dict->n + 1) * sizeof *named.kw);
    for (size_t i = 0; i < map.u.dict->n; i++) {
        const struct tentry *e = &map.u.dict->e[i];
        if (e->key.kind == TV_STR)
            named.kw[named.n_kw++] = (struct tkwarg){e->key.u.s, e->key.len, e->value};
    }
    return tmpl_method_format(r, self, &named);
}
