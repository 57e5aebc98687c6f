/* Values: making, truth, equality, order, membership, iteration. Dicts are in dict.c. */
#include "tokenizer/template/run.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"

struct tval tv_str(const char *s, size_t len, bool trusted)
{
    return (struct tval){.kind = TV_STR, .trusted = trusted, .len = len, .u.s = s};
}
struct tval tv_cstr(const char *s)
{
    return tv_str(s, strlen(s), true);
}
struct tval tv_int(int64_t i, bool trusted)
{
    return (struct tval){.kind = TV_INT, .trusted = trusted, .u.i = i};
}
struct tval tv_real(double f, bool trusted)
{
    return (struct tval){.kind = TV_REAL, .trusted = trusted, .u.f = f};
}
struct tval tv_bool(bool b)
{
    return (struct tval){.kind = TV_BOOL, .trusted = true, .u.b = b};
}
struct tval tv_none(void)
{
    return (struct tval){.kind = TV_NONE, .trusted = true};
}
struct tval tv_undef_hint(const char *text)
{
    return (struct tval){.kind = TV_UNDEF, .tag = UNDEF_HINT, .len = strlen(text), .u.s = text};
}
struct tval tv_substr(const struct tval *s, size_t from, size_t to)
{
    struct tval v = *s;
    v.u.s += from;
    v.len = to - from;
    if (v.x.mask != NULL)
        v.x.mask += from;
    return v;
}
struct tval tv_copy_str(struct trun *r, const char *s, size_t len, bool trusted)
{
    tmpl_work(r, len);
    char *p = tmpl_alloc(r, len + 1);
    memcpy(p, s, len);
    p[len] = 0;
    return tv_str(p, len, trusted);
}

struct tval tv_seq_new(struct trun *r, enum tseq_kind kind, size_t cap)
{
    struct tseq *s = tmpl_alloc(r, sizeof *s);
    *s = (struct tseq){.kind = (uint8_t)kind, .trusted = true, .cap = cap};
    if (cap > 0)
        s->v = tmpl_alloc(r, cap * sizeof *s->v);
    return (struct tval){.kind = TV_SEQ, .trusted = true, .u.seq = s};
}

void tv_seq_push(struct trun *r, struct tseq *s, struct tval v)
{
    tmpl_work(r, 0);
    if (s->n == s->cap) {
        size_t cap = s->cap < 4 ? 8 : s->cap * 2;
        s->v = tmpl_grow(r, s->v, s->n * sizeof *s->v, cap * sizeof *s->v);
        s->cap = cap;
    }
    s->v[s->n++] = v;
}

bool tv_truthy(const struct tval *v)
{
    switch (v->kind) {
    case TV_MISSING:
    case TV_UNDEF:
    case TV_NONE:
        return false;
    case TV_BOOL:
        return v->u.b;
    case TV_INT:
        return v->u.i != 0;
    case TV_REAL:
        return v->u.f != 0;
    case TV_STR:
        return v->len > 0;
    case TV_SEQ:
        return v->u.seq->kind == SEQ_ITER || v->u.seq->n > 0;
    case TV_DICT:
        return v->u.dict->n > 0;
    default:
        return true;
    }
}

bool tv_is_number(const struct tval *v)
{
    return v->kind == TV_BOOL || v->kind == TV_INT || v->kind == TV_REAL;
}
double tv_number(const struct tval *v)
{
    return v->kind == TV_REAL ? v->u.f : (double)tv_integer(v);
}
int64_t tv_integer(const struct tval *v)
{
    return v->kind == TV_BOOL ? v->u.b : v->u.i;
}
bool tv_is(const struct tval *s, const char *text)
{
    return s->kind == TV_STR && s->len == strlen(text) && memcmp(s->u.s, text, s->len) == 0;
}

static bool dict_equal(struct trun *r, const struct tdict *a, const struct tdict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        struct tval *other = tv_dict_get(r, b, &a->e[i].key);
        if (other == NULL || !tv_equal(r, &a->e[i].value, other))
            return false;
    }
    return true;
}

/* Lists and tuples are different things; a groupby() pair is a tuple. */
static int seq_class(const struct tseq *s)
{
    return s->kind == SEQ_GROUP ? SEQ_TUPLE : s->kind;
}

static bool seq_equal(struct trun *r, const struct tseq *a, const struct tseq *b)
{
    if (a == b)
        return true;
    if (seq_class(a) != seq_class(b) || a->kind == SEQ_ITER || a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!tv_equal(r, &a->v[i], &b->v[i]))
            return false;
    return true;
}

bool tv_equal(struct trun *r, const struct tval *a, const struct tval *b)
{
    bool same = false;
    if (a->kind == TV_STR && b->kind == TV_STR) {
        if (a->len != b->len)
            return false;
        tmpl_work(r, a->len);
        return memcmp(a->u.s, b->u.s, a->len) == 0;
    }
    tmpl_work(r, 0);
    if (tv_is_number(a) && tv_is_number(b)) {
        if (a->kind == TV_REAL || b->kind == TV_REAL)
            return tv_number(a) == tv_number(b);
        return tv_integer(a) == tv_integer(b);
    }
    if (a->kind != b->kind)
        return false;
    tmpl_enter(r);
    switch (a->kind) {
    case TV_UNDEF:
    case TV_NONE:
        same = true;
        break;
    case TV_SEQ:
        same = seq_equal(r, a->u.seq, b->u.seq);
        break;
    case TV_DICT:
        same = a->u.dict == b->u.dict || dict_equal(r, a->u.dict, b->u.dict);
        break;
    default:
        same = a->u.s == b->u.s;
        break;
    }
    tmpl_leave(r);
    return same;
}

int tv_compare(struct trun *r, const struct tval *a, const struct tval *b, const char *op)
{
    tmpl_work(r, 0);
    if (tv_is_number(a) && tv_is_number(b)) {
        if (a->kind == TV_REAL || b->kind == TV_REAL) {
            double x = tv_number(a), y = tv_number(b);
            return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2; /* 2: unordered */
        }
        int64_t x = tv_integer(a), y = tv_integer(b);
        return (x > y) - (x < y);
    }
    if (a->kind == TV_STR && b->kind == TV_STR) {
        /* Byte order of UTF-8 is code point order. */
        size_t n = a->len < b->len ? a->len : b->len;
        tmpl_work(r, n);
        int c = memcmp(a->u.s, b->u.s, n);
        return c != 0 ? (c > 0) - (c < 0) : (a->len > b->len) - (a->len < b->len);
    }
    if (a->kind == TV_UNDEF || b->kind == TV_UNDEF)
        tv_fail_undefined(r, a->kind == TV_UNDEF ? a : b);
    if (a->kind == TV_SEQ && b->kind == TV_SEQ && seq_class(a->u.seq) == seq_class(b->u.seq) &&
        seq_class(a->u.seq) <= SEQ_TUPLE) {
        const struct tseq *s = a->u.seq, *t = b->u.seq;
        tmpl_enter(r);
        int c = 0;
        for (size_t i = 0; c == 0 && i < s->n && i < t->n; i++)
            if (!tv_equal(r, &s->v[i], &t->v[i]))
                c = tv_compare(r, &s->v[i], &t->v[i], op);
        tmpl_leave(r);
        return c != 0 ? c : (s->n > t->n) - (s->n < t->n);
    }
    tmpl_raise(r, "TypeError: '%s' not supported between instances of '%s' and '%s'", op,
               tv_type_name(a), tv_type_name(b));
}

bool tv_contains(struct trun *r, const struct tval *c, const struct tval *item)
{
    switch (c->kind) {
    case TV_UNDEF:
        return false;
    case TV_STR:
        if (item->kind == TV_UNDEF)
            tmpl_raise(r, "TypeError: 'in <string>' requires string as left "
                          "operand, not "
                          "Undefined");
        if (item->kind != TV_STR)
            tmpl_raise(r,
                       "TypeError: 'in <string>' requires string as left "
                       "operand, not %s",
                       tv_type_name(item));
        tmpl_work(r, c->len);
        return item->len == 0 || memmem(c->u.s, c->len, item->u.s, item->len) != NULL;
    case TV_DICT:
        if (!tv_hashable(r, item))
            tmpl_raise(r, "TypeError: unhashable type: '%s'", tv_type_name(item));
        return tv_dict_get(r, c->u.dict, item) != NULL;
    case TV_SEQ: {
        size_t n;
        struct tval *v = tv_iterate(r, c, &n);
        for (size_t i = 0; i < n; i++)
            if (tv_equal(r, &v[i], item))
                return true;
        return false;
    }
    default:
        tmpl_raise(r, "TypeError: argument of type '%s' is not iterable", tv_type_name(c));
    }
}

const char *tv_type_name(const struct tval *v)
{
    static const char *const seqs[] = {"list",        "tuple",      "range",     "dict_keys",
                                       "dict_values", "dict_items", "generator", "_GroupTuple"};
    static const char *const kinds[] = {"Undefined",   "Undefined",
                                        "NoneType",    "bool",
                                        "int",         "float",
                                        "str",         "",
                                        "dict",        "Namespace",
                                        "LoopContext", "Macro",
                                        "function",    "builtin_function_or_method",
                                        "Joiner"};
    if (v->kind == TV_SEQ)
        return seqs[v->u.seq->kind];
    return v->kind == TV_STR && v->tag == STR_MARKUP ? "Markup" : kinds[v->kind];
}

void tv_fail_undefined(struct trun *r, const struct tval *v)
{
    int len = v->len > 200 ? 200 : (int)v->len;
    const char *type = v->x.type;
    switch (v->tag) {
    case UNDEF_NAME:
        tmpl_raise(r, "UndefinedError: '%.*s' is undefined", len, v->u.s);
    case UNDEF_ATTR:
        tmpl_raise(r, "UndefinedError: '%s%s' has no attribute '%.*s'", type,
                   strcmp(type, "None") == 0 ? "" : " object", len, v->u.s);
    case UNDEF_ELEMENT:
        tmpl_raise(r, "UndefinedError: %s%s has no element %.*s", type,
                   strcmp(type, "None") == 0 ? "" : " object", len, v->u.s);
    case UNDEF_UNSAFE:
        tmpl_raise(r,
                   "SecurityError: access to attribute '%.*s' of '%s' "
                   "object is unsafe.",
                   len, v->u.s, type);
    default:
        tmpl_raise(r, "UndefinedError: %.*s", len, v->u.s);
    }
}

size_t tv_length(struct trun *r, const struct tval *v)
{
    if (v->kind == TV_STR) {
        size_t n = 0;
        tmpl_work(r, v->len);
        for (size_t i = 0; i < v->len; i++)
            n += ((unsigned char)v->u.s[i] & 0xC0) != 0x80;
        return n;
    }
    if (v->kind == TV_SEQ && v->u.seq->kind != SEQ_ITER)
        return v->u.seq->n;
    if (v->kind == TV_DICT)
        return v->u.dict->n;
    if (v->kind == TV_UNDEF)
        return 0;
    tmpl_raise(r, "TypeError: object of type '%s' has no len()", tv_type_name(v));
}

void tv_force(struct trun *r, struct tseq *s)
{
    struct tlazy *lazy = s->lazy;
    if (lazy == NULL)
        return;
    s->lazy = NULL;
    tmpl_enter(r);
    struct tval done = lazy->fn(r, &lazy->in, lazy->a);
    tmpl_leave(r);
    s->v = done.u.seq->v;
    s->n = done.u.seq->n;
    s->trusted = done.u.seq->trusted;
}

struct tval *tv_iterate(struct trun *r, const struct tval *v, size_t *n)
{
    struct tval out;
    switch (v->kind) {
    case TV_UNDEF:
        *n = 0;
        return NULL;
    case TV_SEQ: {
        struct tseq *s = v->u.seq;
        tv_force(r, s);
        size_t from = s->pos;
        *n = s->n - from;
        if (s->kind == SEQ_ITER)
            s->pos = s->n;
        return s->v != NULL ? s->v + from : NULL;
    }
    case TV_DICT:
        out = tv_seq_new(r, SEQ_LIST, v->u.dict->n);
        for (size_t i = 0; i < v->u.dict->n; i++)
            tv_seq_push(r, out.u.seq, v->u.dict->e[i].key);
        break;
    case TV_STR:
        out = tv_seq_new(r, SEQ_LIST, 0);
        for (size_t i = 0; i < v->len;) {
            uint32_t cp;
            size_t len = utf8_decode(v->u.s + i, v->len - i, &cp);
            len = len == 0 ? 1 : len;
            tv_seq_push(r, out.u.seq, tv_substr(v, i, i + len));
            out.u.seq->v[out.u.seq->n - 1].tag = STR_PLAIN;
            i += len;
        }
        break;
    default:
        tmpl_raise(r, "TypeError: '%s' object is not iterable", tv_type_name(v));
    }
    *n = out.u.seq->n;
    return out.u.seq->v;
}

int64_t tv_want_int(struct trun *r, const struct tval *v)
{
    if (v->kind == TV_INT || v->kind == TV_BOOL)
        return tv_integer(v);
    if (v->kind == TV_UNDEF)
        tv_fail_undefined(r, v);
    tmpl_raise(r, "TypeError: '%s' object cannot be interpreted as an integer", tv_type_name(v));
}
