/* Methods of dicts, lists and loops. Those that change their object are refused where the run says
 * so. */
#include "tokenizer/template/ast.h"

#include <string.h>

#include "tokenizer/template/builtin.h"

#define METHOD(name) struct tval name(struct trun *r, const struct tval *self, struct targs *a)

/* --- dicts --- */

METHOD(tmpl_dict_get)
{
    struct tval v[2];
    tmpl_args(r, a, "key;default", v);
    if (!tv_hashable(r, &v[0]))
        tmpl_raise(r, "TypeError: unhashable type: '%s'", tv_type_name(&v[0]));
    struct tval *at = tv_dict_get(r, self->u.dict, &v[0]);
    return at != NULL ? *at : v[1].kind == TV_MISSING ? tv_none() : v[1];
}

static struct tval view(struct trun *r, const struct tval *self, struct targs *a,
                        enum tseq_kind kind)
{
    const struct tdict *d = self->u.dict;
    tmpl_args(r, a, "", NULL);
    struct tval v = tv_seq_new(r, kind, d->n);
    v.u.seq->trusted = d->trusted;
    for (size_t i = 0; i < d->n; i++) {
        struct tval item = kind == SEQ_KEYS ? d->e[i].key : d->e[i].value;
        if (kind == SEQ_ITEMS) {
            item = tv_seq_new(r, SEQ_TUPLE, 2);
            item.u.seq->trusted = d->trusted;
            tv_seq_push(r, item.u.seq, d->e[i].key);
            tv_seq_push(r, item.u.seq, d->e[i].value);
        }
        tv_seq_push(r, v.u.seq, item);
    }
    return v;
}
METHOD(tmpl_dict_items)
{
    return view(r, self, a, SEQ_ITEMS);
}
METHOD(tmpl_dict_keys)
{
    return view(r, self, a, SEQ_KEYS);
}
METHOD(tmpl_dict_values)
{
    return view(r, self, a, SEQ_VALUES);
}

METHOD(tmpl_dict_copy)
{
    tmpl_args(r, a, "", NULL);
    struct tval v = tv_dict_new(r, self->u.dict->trusted);
    for (size_t i = 0; i < self->u.dict->n; i++)
        tv_dict_set(r, v.u.dict, self->u.dict->e[i].key, self->u.dict->e[i].value);
    return v;
}

METHOD(tmpl_dict_pop)
{
    struct tval v[2];
    tmpl_args(r, a, "key;default", v);
    struct tval *at = tv_dict_get(r, self->u.dict, &v[0]);
    if (at == NULL && v[1].kind == TV_MISSING)
        tmpl_raise(r, "KeyError: pop() of a key that is not there");
    struct tval found = at != NULL ? *at : v[1];
    tv_dict_remove(r, self->u.dict, &v[0]);
    return found;
}

METHOD(tmpl_dict_update)
{
    struct tval other;
    struct tkwarg *kw = a->kw;
    size_t n_kw = a->n_kw;
    a->n_kw = 0;
    tmpl_args(r, a, ";other", &other);
    if (other.kind == TV_DICT)
        for (size_t i = 0; i < other.u.dict->n; i++)
            tv_dict_set(r, self->u.dict, other.u.dict->e[i].key, other.u.dict->e[i].value);
    for (size_t i = 0; i < n_kw; i++)
        tv_dict_set(r, self->u.dict, tv_str(kw[i].name, kw[i].len, true), kw[i].v);
    return tv_none();
}

METHOD(tmpl_dict_setdefault)
{
    struct tval v[2];
    tmpl_args(r, a, "key;default", v);
    struct tval *at = tv_dict_get(r, self->u.dict, &v[0]);
    struct tval value = at != NULL ? *at : v[1].kind == TV_MISSING ? tv_none() : v[1];
    tv_dict_set(r, self->u.dict, v[0], value);
    return value;
}

METHOD(tmpl_dict_clear)
{
    tmpl_args(r, a, "", NULL);
    *self->u.dict = (struct tdict){.trusted = self->u.dict->trusted};
    return tv_none();
}

/* --- lists --- */

METHOD(tmpl_list_append)
{
    struct tval v;
    tmpl_args(r, a, "object", &v);
    tv_seq_push(r, self->u.seq, v);
    return tv_none();
}

METHOD(tmpl_list_extend)
{
    struct tval v;
    size_t n;
    tmpl_args(r, a, "iterable", &v);
    struct tval *items = tv_iterate(r, &v, &n);
    for (size_t i = 0; i < n; i++) /* reads before it grows: extending a list by itself is fine */
        tv_seq_push(r, self->u.seq, items[i]);
    return tv_none();
}

METHOD(tmpl_list_insert)
{
    struct tval v[2];
    struct tseq *s = self->u.seq;
    tmpl_args(r, a, "index object", v);
    int64_t at = tv_want_int(r, &v[0]), n = (int64_t)s->n;
    at = at < 0 ? (at + n < 0 ? 0 : at + n) : at > n ? n : at;
    tv_seq_push(r, s, v[1]);
    tmpl_work(r, s->n * sizeof *s->v);
    memmove(&s->v[at + 1], &s->v[at], (size_t)(n - at) * sizeof *s->v);
    s->v[at] = v[1];
    return tv_none();
}

METHOD(tmpl_list_pop)
{
    struct tval v;
    struct tseq *s = self->u.seq;
    tmpl_args(r, a, ";index", &v);
    int64_t at = tmpl_arg_int(r, &v, -1), n = (int64_t)s->n;
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n)
        tmpl_raise(r, "IndexError: pop %s", n == 0 ? "from empty list" : "index out of range");
    struct tval out = s->v[at];
    tmpl_work(r, s->n * sizeof *s->v);
    memmove(&s->v[at], &s->v[at + 1], (size_t)(n - 1 - at) * sizeof *s->v);
    s->n--;
    return out;
}

static int64_t list_find(struct trun *r, const struct tseq *s, const struct tval *v)
{
    for (size_t i = 0; i < s->n; i++)
        if (tv_equal(r, &s->v[i], v))
            return (int64_t)i;
    return -1;
}

METHOD(tmpl_list_index)
{
    struct tval v;
    tmpl_args(r, a, "value", &v);
    int64_t at = list_find(r, self->u.seq, &v);
    if (at < 0)
        tmpl_raise(r, "ValueError: value is not in list");
    return tv_int(at, false);
}

METHOD(tmpl_list_count)
{
    struct tval v;
    int64_t n = 0;
    tmpl_args(r, a, "value", &v);
    for (size_t i = 0; i < self->u.seq->n; i++)
        n += tv_equal(r, &self->u.seq->v[i], &v);
    return tv_int(n, false);
}

METHOD(tmpl_list_copy)
{
    tmpl_args(r, a, "", NULL);
    return tmpl_slice(r, self, (struct tval[3]){tv_none(), tv_none(), tv_none()});
}

METHOD(tmpl_list_clear)
{
    tmpl_args(r, a, "", NULL);
    self->u.seq->n = 0;
    return tv_none();
}

METHOD(tmpl_list_reverse)
{
    struct tseq *s = self->u.seq;
    tmpl_args(r, a, "", NULL);
    tmpl_work(r, s->n * sizeof *s->v);
    for (size_t i = 0; i < s->n / 2; i++) {
        struct tval t = s->v[i];
        s->v[i] = s->v[s->n - 1 - i];
        s->v[s->n - 1 - i] = t;
    }
    return tv_none();
}

METHOD(tmpl_list_remove)
{
    struct tval at = tmpl_list_index(r, self, a);
    struct tseq *s = self->u.seq;
    memmove(&s->v[at.u.i], &s->v[at.u.i + 1], (s->n - 1 - (size_t)at.u.i) * sizeof *s->v);
    s->n--;
    return tv_none();
}

/* --- loops --- */

METHOD(tmpl_loop_cycle)
{
    if (a->n == 0)
        tmpl_raise(r, "TypeError: no items for cycling given");
    return a->v[self->u.loop->i % a->n];
}

METHOD(tmpl_loop_changed)
{
    struct tval now = tv_seq_new(r, SEQ_TUPLE, a->n);
    for (size_t i = 0; i < a->n; i++)
        tv_seq_push(r, now.u.seq, a->v[i]);
    struct tval *last = &self->u.loop->last_changed;
    bool changed = last->kind == TV_MISSING || !tv_equal(r, last, &now);
    *last = now;
    return tv_bool(changed);
}
