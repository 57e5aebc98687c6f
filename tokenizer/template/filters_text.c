/* Filters on text and numbers. */
#include "tokenizer/template/ast.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"
#include "tokenizer/template/builtin.h"

#define FILTER(name) static struct tval name(struct trun *r, const struct tval *in, struct targs *a)

static struct tval case_filter(struct trun *r, const struct tval *in, struct targs *a,
                               enum tcase how)
{
    tmpl_args(r, a, "", NULL);
    struct tval s = tv_to_str(r, in);
    return tmpl_case(r, &s, how);
}
FILTER(f_upper)
{
    return case_filter(r, in, a, CASE_UPPER);
}
FILTER(f_lower)
{
    return case_filter(r, in, a, CASE_LOWER);
}
FILTER(f_title)
{
    return case_filter(r, in, a, CASE_FILTER_TITLE);
}
FILTER(f_capitalize)
{
    return case_filter(r, in, a, CASE_CAPITAL);
}

FILTER(f_string)
{
    tmpl_args(r, a, "", NULL);
    return tv_to_str(r, in);
}

FILTER(f_safe)
{
    struct tval s = f_string(r, in, a);
    s.tag = STR_MARKUP;
    return s;
}

FILTER(f_escape)
{
    struct tval s = f_string(r, in, a);
    return s.tag == STR_MARKUP ? s : tmpl_escape_html(r, &s);
}

FILTER(f_forceescape)
{
    struct tval s = f_string(r, in, a);
    return tmpl_escape_html(r, &s);
}

FILTER(f_trim)
{
    struct tval chars;
    tmpl_args(r, a, ";chars", &chars);
    struct tval s = tv_to_str(r, in);
    if (chars.kind != TV_MISSING && chars.kind != TV_NONE)
        chars = tmpl_want_str(r, &chars, "strip arg");
    return tmpl_strip(r, &s, &chars, true, true);
}

FILTER(f_replace)
{
    struct tval v[3];
    tmpl_args(r, a, "old new;count", v);
    struct tval s = tv_to_str(r, in), from = tv_to_str(r, &v[0]), to = tv_to_str(r, &v[1]);
    s.tag = STR_PLAIN;
    return tmpl_replace(r, &s, &from, &to, v[2].kind == TV_NONE ? -1 : tmpl_arg_int(r, &v[2], -1));
}

FILTER(f_default)
{
    struct tval v[2];
    tmpl_args(r, a, ";default_value boolean", v);
    bool use = in->kind == TV_UNDEF || (tmpl_arg_bool(&v[1], false) && !tv_truthy(in));
    return !use ? *in : v[0].kind == TV_MISSING ? tv_cstr("") : v[0];
}

FILTER(f_indent)
{
    struct tval v[3], s = tmpl_want_str(r, in, "indent() input");
    struct tbuf b = {0}, pad = {0};
    tmpl_args(r, a, ";width first blank", v);
    if (v[0].kind == TV_STR) {
        tbuf_add_str(r, &pad, &v[0]);
    } else {
        struct tval space = tv_cstr(" ");
        int64_t width = tmpl_arg_int(r, &v[0], 4);
        tmpl_pad(r, &pad, &space, width > 0 ? (size_t)width : 0);
    }
    struct tval indent = tbuf_value(r, &pad), lines = tmpl_splitlines(r, &s, false);
    bool blank = tmpl_arg_bool(&v[2], false);
    /* The text gets a newline at its end before it is split: one that ends in a newline has an
     * empty last line. */
    struct tval ends = tmpl_splitlines(r, &s, true);
    size_t n = lines.u.seq->n;
    bool last_empty = n == 0 || ends.u.seq->v[n - 1].len > lines.u.seq->v[n - 1].len;
    if (last_empty)
        tv_seq_push(r, lines.u.seq, tv_substr(&s, s.len, s.len));
    for (size_t i = 0; i < lines.u.seq->n; i++) {
        const struct tval *line = &lines.u.seq->v[i];
        if (i > 0)
            tbuf_add(r, &b, "\n", 1, s.trusted && s.x.mask == NULL);
        if (i == 0 ? tmpl_arg_bool(&v[1], false) : blank || line->len > 0)
            tbuf_add_str(r, &b, &indent);
        tbuf_add_str(r, &b, line);
    }
    return tbuf_value(r, &b);
}

FILTER(f_truncate)
{
    struct tval v[4], s, space = tv_cstr(" ");
    struct tbuf b = {0};
    tmpl_args(r, a, ";length killwords end leeway", v);
    struct tval end = v[2].kind == TV_MISSING ? tv_cstr("...") : tmpl_want_str(r, &v[2], "end");
    int64_t length = tmpl_arg_int(r, &v[0], 255), n_end = (int64_t)tv_length(r, &end);
    int64_t leeway = v[3].kind == TV_NONE ? 5 : tmpl_arg_int(r, &v[3], 5);
    if (length < n_end || leeway < 0)
        tmpl_raise(r, "AssertionError: truncate() to less than its end");
    if (leeway > INT64_MAX - length || (int64_t)tv_length(r, in) <= length + leeway)
        return *in;
    s = tmpl_want_str(r, in, "truncate() input");
    s = tmpl_slice(r, &s, (struct tval[3]){tv_none(), tv_int(length - n_end, true), tv_none()});
    if (!tmpl_arg_bool(&v[1], false))
        s = tmpl_split(r, &s, &space, 1, true).u.seq->v[0];
    tbuf_add_str(r, &b, &s);
    tbuf_add_str(r, &b, &end);
    return tbuf_value(r, &b);
}

FILTER(f_center)
{
    struct tval width, s = tv_to_str(r, in);
    tmpl_args(r, a, ";width", &width);
    width = tv_int(tmpl_arg_int(r, &width, 80), true);
    struct targs args = {.callee = "center", .v = &width, .n = 1};
    return tmpl_find_method("center", 6)->str(r, &s, &args);
}

FILTER(f_wordcount)
{
    struct tval s = f_string(r, in, a);
    int64_t words = 0;
    bool inside = false;
    tmpl_work(r, s.len * 4);
    for (size_t i = 0, n; i < s.len; i += n) {
        uint32_t cp = 0;
        n = utf8_decode(s.u.s + i, s.len - i, &cp);
        n = n == 0 ? 1 : n;
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        bool word = cp == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
                    (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
        words += word && !inside;
        inside = word;
    }
    return tv_int(words, false);
}

FILTER(f_format)
{
    struct tval s = tv_to_str(r, in), arg;
    if (a->n > 0 && a->n_kw > 0)
        tmpl_raise(r, "FilterArgumentError: can't handle positional and keyword "
                      "arguments at the same time");
    if (a->n_kw > 0) {
        arg = tv_dict_new(r, true);
        for (size_t i = 0; i < a->n_kw; i++)
            tv_dict_set(r, arg.u.dict, tv_str(a->kw[i].name, a->kw[i].len, true), a->kw[i].v);
    } else {
        arg = tv_seq_new(r, SEQ_TUPLE, a->n);
        for (size_t i = 0; i < a->n; i++)
            tv_seq_push(r, arg.u.seq, a->v[i]);
    }
    return tmpl_percent(r, &s, &arg);
}

FILTER(f_urlencode)
{
    struct tval s = f_string(r, in, a);
    struct tbuf b = {0};
    size_t from = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.u.s[i];
        if (c < 0x80 && (isalnum(c) || (c != 0 && strchr("_.-~/", c) != NULL)))
            continue;
        char hex[4];
        snprintf(hex, sizeof hex, "%%%02X", c);
        tbuf_add_range(r, &b, &s, from, i);
        tbuf_add(r, &b, hex, 3, s.x.mask != NULL ? s.x.mask[i] : s.trusted);
        from = i + 1;
    }
    tbuf_add_range(r, &b, &s, from, s.len);
    return tbuf_value(r, &b);
}

/* --- numbers --- */

/* A number as Python's int() and float() read it: blanks around, single underscores between digits.
 */
static bool clean_number(struct trun *r, const struct tval *s, char out[128])
{
    struct tval blank = tv_none(), t = tmpl_strip(r, s, &blank, true, true);
    size_t n = 0;
    if (t.len == 0 || t.len >= 128)
        return false;
    for (size_t i = 0; i < t.len; i++) {
        if (t.u.s[i] != '_')
            out[n++] = t.u.s[i];
        else if (i == 0 || i + 1 == t.len || !isalnum((unsigned char)t.u.s[i - 1]) ||
                 !isalnum((unsigned char)t.u.s[i + 1]))
            return false;
    }
    out[n] = 0;
    return strlen(out) == n;
}

static bool parse_real(struct trun *r, const struct tval *s, double *out)
{
    char text[128], *end;
    if (!clean_number(r, s, text) || strpbrk(text, "xXpP(") != NULL)
        return false;
    *out = strtod(text, &end);
    return *end == 0;
}

static bool parse_int(struct trun *r, const struct tval *s, int64_t base, int64_t *out)
{
    char text[128], *end;
    if (!clean_number(r, s, text) || isspace((unsigned char)*text) || base < 0 || base > 36 ||
        base == 1)
        return false;
    char *digits = text + (*text == '-' || *text == '+');
    static const char marks[] = "bBoOxX";
    const char *mark = digits[0] == '0' && digits[1] != 0 ? strchr(marks, digits[1]) : NULL;
    int64_t prefix = mark == NULL ? 10 : mark - marks < 2 ? 2 : mark - marks < 4 ? 8 : 16;
    if (mark != NULL && (base == 0 || base == prefix)) {
        memmove(digits, digits + 2, strlen(digits + 2) + 1);
        base = prefix;
    }
    if (!isalnum((unsigned char)*digits) || (base == 16 && (digits[1] == 'x' || digits[1] == 'X')))
        return false;
    errno = 0;
    *out = strtoll(text, &end, base == 0 ? 10 : (int)base);
    return *end == 0 && errno == 0;
}

FILTER(f_int)
{
    struct tval v[2];
    int64_t i = 0;
    double d = 0;
    tmpl_args(r, a, ";default base", v);
    if (in->kind == TV_UNDEF)
        tv_fail_undefined(r, in);
    if (in->kind == TV_INT || in->kind == TV_BOOL)
        return tv_int(tv_integer(in), in->trusted);
    if (in->kind == TV_STR && parse_int(r, in, tmpl_arg_int(r, &v[1], 10), &i))
        return tv_int(i, in->trusted && in->x.mask == NULL);
    bool real = in->kind == TV_REAL || (in->kind == TV_STR && parse_real(r, in, &d));
    d = in->kind == TV_REAL ? in->u.f : d;
    if (real && fabs(d) < 9.2e18)
        return tv_int((int64_t)d, in->trusted && (in->kind == TV_REAL || in->x.mask == NULL));
    return v[0].kind == TV_MISSING ? tv_int(0, true) : v[0];
}

FILTER(f_float)
{
    struct tval v;
    double d = 0;
    tmpl_args(r, a, ";default", &v);
    if (in->kind == TV_UNDEF)
        tv_fail_undefined(r, in);
    if (tv_is_number(in))
        return tv_real(tv_number(in), in->trusted);
    if (in->kind == TV_STR && parse_real(r, in, &d))
        return tv_real(d, in->trusted && in->x.mask == NULL);
    return v.kind == TV_MISSING ? tv_real(0, true) : v;
}

static void want_number(struct trun *r, const struct tval *in, const char *what)
{
    if (in->kind == TV_UNDEF)
        tv_fail_undefined(r, in);
    if (!tv_is_number(in))
        tmpl_raise(r, "TypeError: bad operand type for %s: '%s'", what, tv_type_name(in));
}

FILTER(f_abs)
{
    struct tval zero = tv_int(0, true);
    tmpl_args(r, a, "", NULL);
    want_number(r, in, "abs()");
    if (in->kind == TV_REAL)
        return tv_real(fabs(in->u.f), in->trusted);
    return tv_integer(in) < 0 ? tmpl_binary(r, OP_SUB, &zero, in)
                              : tv_int(tv_integer(in), in->trusted);
}

FILTER(f_round)
{
    struct tval v[2];
    char text[512];
    tmpl_args(r, a, ";precision method", v);
    int64_t precision = tmpl_arg_int(r, &v[0], 0);
    bool up = tv_is(&v[1], "ceil"), down = tv_is(&v[1], "floor");
    if (v[1].kind != TV_MISSING && !up && !down && !tv_is(&v[1], "common"))
        tmpl_raise(r, "FilterArgumentError: method must be common, ceil or floor");
    want_number(r, in, "round()");
    if (precision > 100 || precision < -100)
        tmpl_raise(r, "ValueError: round() to too many places");
    double power = pow(10, (double)precision), d = tv_number(in);
    if (up || down)
        return tv_real((up ? ceil(d * power) : floor(d * power)) / power, in->trusted);
    if (in->kind != TV_REAL && precision >= 0)
        return tv_int(tv_integer(in), in->trusted);
    if (in->kind != TV_REAL)
        return tv_int((int64_t)(nearbyint(d * power) / power), in->trusted);
    if (precision < 0)
        return tv_real(nearbyint(d * power) / power, in->trusted);
    snprintf(text, sizeof text, "%.*f", (int)precision,
             d); /* printf rounds the exact value, half to even */
    return tv_real(strtod(text, NULL), in->trusted);
}

const struct tfilter tmpl_text_filters[] = {{"trim", f_trim},
                                            {"string", f_string},
                                            {"default", f_default},
                                            {"d", f_default},
                                            {"safe", f_safe},
                                            {"lower", f_lower},
                                            {"upper", f_upper},
                                            {"replace", f_replace},
                                            {"title", f_title},
                                            {"capitalize", f_capitalize},
                                            {"indent", f_indent},
                                            {"int", f_int},
                                            {"float", f_float},
                                            {"abs", f_abs},
                                            {"round", f_round},
                                            {"escape", f_escape},
                                            {"e", f_escape},
                                            {"forceescape", f_forceescape},
                                            {"truncate", f_truncate},
                                            {"center", f_center},
                                            {"wordcount", f_wordcount},
                                            {"format", f_format},
                                            {"urlencode", f_urlencode},
                                            {NULL, NULL}};
