/* Dicts, in insertion order with a hash index once they are large, and values made from JSON. */
#include "tokenizer/template/run.h"

#include <string.h>

#include "base/hash.h"

struct tval tv_dict_new(struct trun *r, bool trusted)
{
    struct tdict *d = tmpl_alloc(r, sizeof *d);
    *d = (struct tdict){.trusted = trusted};
    return (struct tval){.kind = TV_DICT, .trusted = trusted, .u.dict = d};
}

/* Tuples may share their parts many times over, so both walks below are charged and bounded. */
bool tv_hashable(struct trun *r, const struct tval *v)
{
    if (v->kind != TV_SEQ || v->u.seq->kind != SEQ_TUPLE)
        return v->kind != TV_SEQ && v->kind != TV_DICT;
    bool all = true;
    tmpl_work(r, 0);
    tmpl_enter(r);
    for (size_t i = 0; all && i < v->u.seq->n; i++)
        all = tv_hashable(r, &v->u.seq->v[i]);
    tmpl_leave(r);
    return all;
}

/* Equal keys hash equally, also across 1, 1.0 and True. */
static uint64_t hash_key(struct trun *r, const struct tval *v, uint64_t seed)
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
    if (v->kind != TV_SEQ)
        return h;
    tmpl_work(r, 0);
    tmpl_enter(r);
    for (size_t i = 0; i < v->u.seq->n; i++)
        h = hash_key(r, &v->u.seq->v[i], h);
    tmpl_leave(r);
    return h;
}

enum { INDEX_FROM = 16 }; /* smaller dicts are searched in line */

static void dict_reindex(struct trun *r, struct tdict *d, size_t cap)
{
    d->index = tmpl_alloc(r, cap * sizeof *d->index);
    d->index_cap = cap;
    memset(d->index, 0, cap * sizeof *d->index);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = hash_key(r, &d->e[i].key, 0) & (cap - 1);
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
    for (size_t at = hash_key(r, key, 0);; at++) {
        uint32_t slot = d->index[at & (d->index_cap - 1)];
        if (slot == 0)
            return NULL;
        if (tv_equal(r, &d->e[slot - 1].key, key))
            return &d->e[slot - 1].value;
    }
}

struct tval *tv_dict_get_name(const struct tdict *d, const char *name, size_t len)
{
    size_t at = d->index != NULL ? hash_bytes(0, name, len) : 0;
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
    if (!tv_hashable(r, &key))
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
        size_t at = hash_key(r, &key, 0) & (d->index_cap - 1);
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
