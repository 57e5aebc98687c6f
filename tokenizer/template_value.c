/* Values: making, converting from JSON, truth, equality, order, membership, iteration. */
#include "tokenizer/template_value.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
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

struct tval tv_dict_new(struct trun *r, bool trusted)
{
    struct tdict *d = tmpl_alloc(r, sizeof *d);
    *d = (struct tdict){.trusted = trusted};
    return (struct tval){.kind = TV_DICT, .trusted = trusted, .u.dict = d};
}

bool tv_hashable(const struct tval *v)
{
    if (v->kind == TV_SEQ && v->u.seq->kind == SEQ_TUPLE) {
        for (size_t i = 0; i < v->u.seq->n; i++)
            if (!tv_hashable(&v->u.seq->v[i]))
                return false;
        return true;
    }
    return v->kind != TV_SEQ && v->kind != TV_DICT;
}

/* Equal keys hash equally, also across 1, 1.0 and True. */
static uint64_t hash_key(const struct tval *v, uint64_t seed)
{
    if (v->kind == TV_STR)
        return hash_bytes(seed, v->u.s, v->len);
    if (tv_is_number(v)) {
        double d = tv_number(v);
        if (d == 0)
            d = 0; /* not -0.0 */
        return hash_bytes(seed + 1, &d, sizeof d);
    }
    uint64_t h = seed + 2 + v->kind;
    if (v->kind == TV_SEQ)
        for (size_t i = 0; i < v->u.seq->n; i++)
            h = hash_key(&v->u.seq->v[i], h);
    return h;
}

enum { INDEX_FROM = 16 }; /* smaller dicts are searched in line */

static void dict_reindex(struct trun *r, struct tdict *d, size_t cap)
{
    d->index = tmpl_alloc(r, cap * sizeof *d->index);
    d->index_cap = cap;
    memset(d->index, 0, cap * sizeof *d->index);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = hash_key(&d->e[i].key, 0) & (cap - 1);
        while (d->index[at] != 0)
            at = (at + 1) & (cap - 1);
        d->index[at] = (uint32_t)i + 1;
    }
}

struct tval *tv_dict_get(struct trun *r, const struct tdict *d, const struct tval *key)
{
    if (d->index == NULL) {
        for (size_t i = 0; i < d->n; i++)
            if (tv_equal(r, &d->e[i].key, key))
                return &d->e[i].value;
        return NULL;
    }
    for (size_t at = hash_key(key, 0);; at++) {
        uint32_t slot = d->index[at & (d->index_cap - 1)];
        if (slot == 0)
            return NULL;
        if (tv_equal(r, &d->e[slot - 1].key, key))
            return &d->e[slot - 1].value;
    }
}

struct tval *tv_dict_get_name(const struct tdict *d, const char *name, size_t len)
{
    struct tval key = tv_str(name, len, true);
    size_t at = d->index != NULL ? hash_key(&key, 0) : 0;
    for (;; at++) {
        size_t i = at;
        if (d->index != NULL) {
            uint32_t slot = d->index[at & (d->index_cap - 1)];
            if (slot == 0)
                return NULL;
            i = slot - 1;
        } else if (i >= d->n) {
            return NULL;
        }
        const struct tval *k = &d->e[i].key;
        if (k->kind == TV_STR && k->len == len && memcmp(k->u.s, name, len) == 0)
            return &d->e[i].value;
    }
}

void tv_dict_set(struct trun *r, struct tdict *d, struct tval key, struct tval value)
{
    tmpl_work(r, 0);
    if (!tv_hashable(&key))
        tmpl_raise(r, "TypeError: unhashable type: '%s'", tv_type_name(&key));
    struct tval *old = tv_dict_get(r, d, &key);
    if (old != NULL) {
        *old = value;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap < 4 ? 4 : d->cap * 2;
        d->e = tmpl_grow(r, d->e, d->n * sizeof *d->e, cap * sizeof *d->e);
        d->cap = cap;
    }
    d->e[d->n++] = (struct tentry){key, value};
    if (d->index == NULL && d->n < INDEX_FROM)
        return;
    if (d->n * 2 > d->index_cap) {
        dict_reindex(r, d, d->index_cap == 0 ? 64 : d->index_cap * 2);
    } else {
        size_t at = hash_key(&key, 0) & (d->index_cap - 1);
        while (d->index[at] != 0)
            at = (at + 1) & (d->index_cap - 1);
        d->index[at] = (uint32_t)d->n;
    }
}

bool tv_dict_remove(struct trun *r, struct tdict *d, const struct tval *key)
{
    struct tval *v = tv_dict_get(r, d, key);
    if (v == NULL)
        return false;
    size_t i = (size_t)((struct tentry *)((char *)v - offsetof(struct tentry, value)) - d->e);
    memmove(&d->e[i], &d->e[i + 1], (d->n - i - 1) * sizeof *d->e);
    d->n--;
    tmpl_work(r, d->n * sizeof *d->e);
    if (d->index != NULL)
        dict_reindex(r, d, d->index_cap);
    return true;
}

/* Role names are a closed vocabulary: as parts of markers such as <|user|> they count as the
 * template's own text. Any other role stays what it is, something that a client wrote. */
static bool known_role(const char *s, size_t len)
{
    static const char *const roles[] = {
        "system",   "user",     "assistant",    "tool",        "developer",
        "function", "ipython",  "tool_results", "observation", "model",
        "context",  "document", "documents",    "environment", "tool_response"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strlen(roles[i]) == len && memcmp(roles[i], s, len) == 0)
            return true;
    return false;
}

/* `roles`: how far below it the "role" member of messages is: 2 for the list, 1 for a message, 0
 * not at all. */
static struct tval from_json(struct trun *r, const json *v, int roles)
{
    struct tval out = tv_none();
    tmpl_work(r, 0);
    tmpl_enter(r);
    switch (json_kind_of(v)) {
    case JSON_BOOL:
        out = tv_bool(json_as_bool(v, false));
        break;
    case JSON_INT:
        out = tv_int(json_as_int(v, 0), false);
        break;
    case JSON_REAL:
        out = tv_real(json_as_number(v, 0), false);
        break;
    case JSON_STR:
        out = tv_str(json_as_str(v, ""), json_str_len(v), false);
        break;
    case JSON_ARR: {
        size_t n = json_count(v);
        out = tv_seq_new(r, SEQ_LIST, n);
        for (size_t i = 0; i < n; i++)
            tv_seq_push(r, out.u.seq, from_json(r, json_at(v, i), roles == 2 ? 1 : 0));
        out.u.seq->trusted = false;
        break;
    }
    case JSON_OBJ:
        out = tv_dict_new(r, false);
        for (void *it = json_first(v); it != NULL; it = json_next(v, it)) {
            const char *key = json_iter_key(it);
            struct tval item = from_json(r, json_iter_value(it), 0);
            if (roles == 1 && item.kind == TV_STR && strcmp(key, "role") == 0)
                item.trusted = known_role(item.u.s, item.len);
            tv_dict_set(r, out.u.dict, tv_str(key, strlen(key), false), item);
        }
        break;
    default:
        break;
    }
    out.trusted = out.kind == TV_STR && out.trusted;
    tmpl_leave(r);
    return out;
}

struct tval tv_from_json(struct trun *r, const json *v, bool roles)
{
    return from_json(r, v, roles ? 2 : 0);
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
        if (!tv_hashable(item))
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
