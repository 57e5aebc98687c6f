/* Global functions of the environment: Jinja's, and those that Hugging Face adds. */
#include "tokenizer/template/ast.h"

#include <string.h>
#include <time.h>

#include "tokenizer/template/builtin.h"

#define GLOBAL(name)                                                                               \
    static struct tval name(struct trun *r, const struct tval *self, struct targs *a)

enum { RANGE_MAX = 100000 };

GLOBAL(g_range)
{
    struct tval v[3];
    int64_t start = 0, stop, step = 1;
    tmpl_args(r, a, "start;stop step", v);
    stop = tv_want_int(r, &v[0]);
    if (v[1].kind != TV_MISSING) {
        start = stop;
        stop = tv_want_int(r, &v[1]);
        step = tmpl_arg_int(r, &v[2], 1);
    }
    if (step == 0)
        tmpl_raise(r, "ValueError: range() arg 3 must not be zero");
    struct tval out = tv_seq_new(r, SEQ_RANGE, 0);
    struct tseq *s = out.u.seq;
    bool more = step > 0 ? start < stop : start > stop;
    s->start = start;
    s->stop = stop;
    s->step = step;
    for (int64_t i = start; more; more = more && (step > 0 ? i < stop : i > stop)) {
        if (s->n == RANGE_MAX)
            tmpl_raise(r,
                       "OverflowError: Range too big. The sandbox blocks "
                       "ranges larger than "
                       "MAX_RANGE (%d).",
                       RANGE_MAX);
        tv_seq_push(r, s, tv_int(i, true));
        more = !__builtin_add_overflow(i, step, &i);
    }
    return out;
}

static void fill_dict(struct trun *r, struct tdict *d, struct targs *a)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct tval *v = &a->v[i];
        if (v->kind == TV_DICT) {
            for (size_t k = 0; k < v->u.dict->n; k++)
                tv_dict_set(r, d, v->u.dict->e[k].key, v->u.dict->e[k].value);
            continue;
        }
        size_t n, n_pair;
        struct tval *pairs = tv_iterate(r, v, &n);
        for (size_t k = 0; k < n; k++) {
            struct tval *pair = tv_iterate(r, &pairs[k], &n_pair);
            if (n_pair != 2)
                tmpl_raise(r,
                           "ValueError: dictionary update sequence element "
                           "#%zu has "
                           "length %zu; 2 is required",
                           k, n_pair);
            tv_dict_set(r, d, pair[0], pair[1]);
        }
    }
    for (size_t i = 0; i < a->n_kw; i++)
        tv_dict_set(r, d, tv_str(a->kw[i].name, a->kw[i].len, true), a->kw[i].v);
}

GLOBAL(g_dict)
{
    struct tval v = tv_dict_new(r, true);
    fill_dict(r, v.u.dict, a);
    return v;
}

GLOBAL(g_namespace)
{
    struct tval v = g_dict(r, self, a);
    v.kind = TV_NAMESPACE;
    return v;
}

/* The template gives up: its text is the whole message. */
GLOBAL(g_raise_exception)
{
    struct tval message;
    tmpl_args(r, a, "message", &message);
    message = tv_to_str(r, &message);
    tmpl_fail(r, ST_INVALID, "%.*s", message.len > 470 ? 470 : (int)message.len, message.u.s);
}

/* Python's strftime of a time without zone: %z and %Z are empty, %f is microseconds; the rest is
 * the C library's. */
GLOBAL(g_strftime_now)
{
    struct tval format;
    char text[1024];
    struct tm tm;
    time_t now = (time_t)r->now_unix_s;
    tmpl_args(r, a, "format", &format);
    format = tmpl_want_str(r, &format, "strftime() argument 1");
    struct tbuf f = {0};
    for (size_t i = 0; i < format.len; i++) {
        char c = format.u.s[i], next = i + 1 < format.len ? format.u.s[i + 1] : 0;
        if (c == '%' && (next == 'f' || next == 'z' || next == 'Z'))
            tbuf_puts(r, &f, next == 'f' ? "000000" : "", true);
        else
            tbuf_add_range(r, &f, &format, i, next != 0 && c == '%' ? i + 2 : i + 1);
        i += c == '%' && next != 0;
    }
    tbuf_add(r, &f, "x", 2,
             true); /* with its NUL: an empty result differs from one that does not fit */
    if (localtime_r(&now, &tm) == NULL)
        tmpl_raise(r, "strftime_now: the time is out of range");
    size_t n = strftime(text, sizeof text, f.p, &tm);
    if (n == 0)
        tmpl_raise(r, "strftime_now: the result is too long");
    return tv_copy_str(r, text, n - 1, format.trusted && format.x.mask == NULL);
}

/* joiner(", ") gives "" when first called and its separator after that. */
GLOBAL(g_joiner)
{
    struct tval sep;
    if (self->kind == TV_JOINER) {
        tmpl_args(r, a, "", NULL);
        return self->u.seq->pos++ == 0 ? tv_cstr("") : self->u.seq->v[0];
    }
    tmpl_args(r, a, ";sep", &sep);
    struct tval v = tv_seq_new(r, SEQ_LIST, 1);
    tv_seq_push(r, v.u.seq, sep.kind == TV_MISSING ? tv_cstr(", ") : sep);
    v.kind = TV_JOINER;
    return v;
}

static const struct tbuiltin globals[] = {{"range", g_range},
                                          {"dict", g_dict},
                                          {"namespace", g_namespace},
                                          {"raise_exception", g_raise_exception},
                                          {"strftime_now", g_strftime_now},
                                          {"joiner", g_joiner}};

const struct tbuiltin *tmpl_find_global(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (strlen(globals[i].name) == len && memcmp(globals[i].name, name, len) == 0)
            return &globals[i];
    return NULL;
}
