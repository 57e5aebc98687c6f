/* tojson, as Hugging Face defines it (json.dumps, not escaped for HTML, ensure_ascii off), and
 * from_json. */
#include "tokenizer/template/ast.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/template/builtin.h"

struct dump {
    struct tbuf b;
    bool ascii, sort, pretty;
    struct tval indent, item_separator, key_separator;
};

static void dump_escape(struct trun *r, struct dump *d, uint32_t cp, bool trusted)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char text[16];
    const char *simple = cp < 0x80 && cp != 0 ? strchr(from, (int)cp) : NULL;
    if (simple != NULL)
        snprintf(text, sizeof text, "\\%c", to[simple - from]);
    else if (cp >= 0x10000)
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10),
                 0xDC00 + ((cp - 0x10000) & 0x3FF));
    else
        snprintf(text, sizeof text, "\\u%04x", cp);
    tbuf_puts(r, &d->b, text, trusted);
}

static void dump_str(struct trun *r, struct dump *d, const struct tval *s)
{
    size_t run = 0;
    bool edge = s->trusted && s->x.mask == NULL;
    tbuf_puts(r, &d->b, "\"", edge);
    for (size_t i = 0; i < s->len;) {
        unsigned char c = (unsigned char)s->u.s[i];
        bool special = c < ' ' || c == '"' || c == '\\' || (d->ascii && c >= 0x7F);
        uint32_t cp = c;
        size_t n = 1;
        if (special && c >= 0x80) {
            n = utf8_decode(s->u.s + i, s->len - i, &cp);
            n = n == 0 ? 1 : n;
        }
        if (special) {
            tbuf_add_range(r, &d->b, s, run, i);
            dump_escape(r, d, cp, s->x.mask != NULL ? s->x.mask[i] : s->trusted);
            run = i + n;
        }
        i += n;
    }
    tbuf_add_range(r, &d->b, s, run, s->len);
    tbuf_puts(r, &d->b, "\"", edge);
}

static void dump_newline(struct trun *r, struct dump *d, int level)
{
    if (!d->pretty)
        return;
    tbuf_puts(r, &d->b, "\n", true);
    tmpl_pad(r, &d->b, &d->indent, (size_t)level);
}

/* A separator is the template's text, but between a client's members it counts as the client's. */
static void dump_separator(struct trun *r, struct dump *d, const struct tval *s, bool trusted)
{
    if (trusted)
        tbuf_add_str(r, &d->b, s);
    else
        tbuf_add(r, &d->b, s->u.s, s->len, false);
}

static void dump_value(struct trun *r, struct dump *d, const struct tval *v, int level);

static struct tval key_text(struct trun *r, const struct tval *key)
{
    if (key->kind == TV_STR)
        return *key;
    struct dump d = {0};
    if (key->kind != TV_NONE && !tv_is_number(key))
        tmpl_raise(r, "TypeError: keys must be str, int, float, bool or None, not %s",
                   tv_type_name(key));
    dump_value(r, &d, key, 0);
    return tbuf_value(r, &d.b);
}

static void dump_dict(struct trun *r, struct dump *d, const struct tdict *dict, int level)
{
    size_t n = dict->n;
    struct tval *keys = tmpl_alloc(r, n * sizeof *keys),
                *values = tmpl_alloc(r, n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        keys[i] = dict->e[i].key;
        values[i] = dict->e[i].value;
    }
    if (d->sort)
        tmpl_sort(r, values, keys, n, false);
    tbuf_puts(r, &d->b, "{", dict->trusted);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            dump_separator(r, d, &d->item_separator, dict->trusted);
        dump_newline(r, d, level + 1);
        struct tval key = key_text(r, &keys[i]);
        dump_str(r, d, &key);
        dump_separator(r, d, &d->key_separator, dict->trusted);
        dump_value(r, d, &values[i], level + 1);
    }
    if (n > 0)
        dump_newline(r, d, level);
    tbuf_puts(r, &d->b, "}", dict->trusted);
}

static void dump_list(struct trun *r, struct dump *d, const struct tseq *s, int level)
{
    tbuf_puts(r, &d->b, "[", s->trusted);
    for (size_t i = 0; i < s->n; i++) {
        if (i > 0)
            dump_separator(r, d, &d->item_separator, s->trusted);
        dump_newline(r, d, level + 1);
        dump_value(r, d, &s->v[i], level + 1);
    }
    if (s->n > 0)
        dump_newline(r, d, level);
    tbuf_puts(r, &d->b, "]", s->trusted);
}

static void dump_value(struct trun *r, struct dump *d, const struct tval *v, int level)
{
    char text[40];
    tmpl_work(r, 0);
    tmpl_enter(r);
    switch (v->kind) {
    case TV_NONE:
        tbuf_puts(r, &d->b, "null", v->trusted);
        break;
    case TV_BOOL:
        tbuf_puts(r, &d->b, v->u.b ? "true" : "false", v->trusted);
        break;
    case TV_INT:
        snprintf(text, sizeof text, "%" PRId64, v->u.i);
        tbuf_puts(r, &d->b, text, v->trusted);
        break;
    case TV_REAL:
        tv_format_real(v->u.f, text);
        if (isnan(v->u.f) || isinf(v->u.f))
            snprintf(text, sizeof text,
                     isnan(v->u.f) ? "NaN"
                     : v->u.f > 0  ? "Infinity"
                                   : "-Infinity");
        tbuf_puts(r, &d->b, text, v->trusted);
        break;
    case TV_STR:
        dump_str(r, d, v);
        break;
    case TV_DICT:
        dump_dict(r, d, v->u.dict, level);
        break;
    case TV_SEQ:
        if (v->u.seq->kind <= SEQ_TUPLE || v->u.seq->kind == SEQ_GROUP) {
            dump_list(r, d, v->u.seq, level);
            break;
        }
        /* fall through */
    default:
        tmpl_raise(r, "TypeError: Object of type %s is not JSON serializable", tv_type_name(v));
    }
    tmpl_leave(r);
}

static struct tval f_tojson(struct trun *r, const struct tval *in, struct targs *a)
{
    struct tval v[4];
    struct dump d = {.item_separator = tv_cstr(", "), .key_separator = tv_cstr(": ")};
    tmpl_args(r, a, ";ensure_ascii indent separators sort_keys", v);
    d.ascii = tmpl_arg_bool(&v[0], false);
    d.sort = tmpl_arg_bool(&v[3], false);
    if (v[1].kind != TV_MISSING && v[1].kind != TV_NONE) {
        d.pretty = true;
        d.item_separator = tv_cstr(",");
        d.indent = v[1];
        if (v[1].kind != TV_STR) {
            struct tbuf pad = {0};
            struct tval space = tv_cstr(" ");
            int64_t width = tv_want_int(r, &v[1]);
            tmpl_pad(r, &pad, &space, width > 0 ? (size_t)width : 0);
            d.indent = tbuf_value(r, &pad);
        }
    }
    if (v[2].kind == TV_SEQ && v[2].u.seq->n == 2) {
        d.item_separator = tmpl_want_str(r, &v[2].u.seq->v[0], "separator");
        d.key_separator = tmpl_want_str(r, &v[2].u.seq->v[1], "separator");
    }
    dump_value(r, &d, in, 0);
    return tbuf_value(r, &d.b);
}

/* Text that a template takes for JSON: what comes out is untrusted, whoever wrote it. */
static struct tval f_fromjson(struct trun *r, const struct tval *in, struct targs *a)
{
    struct error err;
    json *root = NULL;
    tmpl_args(r, a, "", NULL);
    struct tval s = tmpl_want_str(r, in, "the JSON object");
    struct tscratch *keep = tmpl_alloc(r, sizeof *keep);
    /* The tree lives outside of the arena: charge for what it may take. */
    tmpl_work(r, s.len * 64);
    if (s.len > r->arena_max / 64 || r->arena_bytes > r->arena_max - s.len * 64)
        tmpl_raise(r, "from_json uses too much memory");
    if (json_read(s.u.s, s.len, &root, &err) != ST_OK)
        tmpl_raise(r, "JSONDecodeError: %.200s", err.text);
    r->arena_bytes += s.len * 64;
    *keep = (struct tscratch){r->scratch, root};
    r->scratch = keep;
    return tv_from_json(r, root, false);
}

const struct tfilter tmpl_json_filters[] = {
    {"tojson", f_tojson}, {"from_json", f_fromjson}, {"fromjson", f_fromjson}, {NULL, NULL}};
