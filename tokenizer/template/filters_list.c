/* Filters over sequences and mappings. What Python gives as a generator is a one-time iterator here
 * too. */
#include "tokenizer/template/ast.h"

#include <string.h>

#include "tokenizer/template/builtin.h"

#define FILTER(name) static struct tval name(struct trun *r, const struct tval *in, struct targs *a)

static struct tval lazily(struct trun *r, const struct tval *in, struct targs *a,
                          struct tval (*fn)(struct trun *, const struct tval *, struct targs *))
{
    struct tval v = tv_seq_new(r, SEQ_ITER, 0);
    struct tlazy *lazy = tmpl_alloc(r, sizeof *lazy);
    lazy->fn = fn;
    lazy->in = *in;
    lazy->a = tmpl_alloc(r, sizeof *lazy->a);
    *lazy->a = *a;
    v.u.seq->lazy = lazy;
    return v;
}

/* Defines `name` to return an iterator, and name_now, whose body follows, to work it out. */
#define LAZY_FILTER(name)                                                                          \
    static struct tval name##_now(struct trun *r, const struct tval *in, struct targs *a);         \
    static struct tval name(struct trun *r, const struct tval *in, struct targs *a)                \
    {                                                                                              \
        return lazily(r, in, a, name##_now);                                                       \
    }                                                                                              \
    static struct tval name##_now(struct trun *r, const struct tval *in, struct targs *a)

/* --- attributes: "a.b.0" or a number --- */

static struct tval get_path(struct trun *r, struct tval item, const struct tval *path,
                            const struct tval *fallback)
{
    if (path->kind == TV_MISSING || path->kind == TV_NONE)
        return item;
    for (size_t from = 0; path->kind != TV_STR || from <= path->len;) {
        struct tval key = *path;
        if (path->kind == TV_STR) {
            const char *dot = memchr(path->u.s + from, '.', path->len - from);
            size_t to = dot != NULL ? (size_t)(dot - path->u.s) : path->len;
            key = tv_substr(path, from, to);
            if (to > from && to - from < 10 && strspn(key.u.s, "0123456789") >= to - from) {
                int64_t i = 0;
                for (size_t k = from; k < to; k++)
                    i = i * 10 + (path->u.s[k] - '0');
                key = tv_int(i, true);
            }
            from = to + 1;
        }
        item = tmpl_getitem(r, &item, &key);
        if (item.kind == TV_UNDEF && fallback != NULL && fallback->kind != TV_MISSING &&
            fallback->kind != TV_NONE)
            item = *fallback;
        if (path->kind != TV_STR)
            break;
    }
    return item;
}

static struct tval fold_case(struct trun *r, struct tval v, bool case_sensitive)
{
    return v.kind == TV_STR && !case_sensitive ? tmpl_case(r, &v, CASE_LOWER) : v;
}

/* --- sorting --- */

void tmpl_sort(struct trun *r, struct tval *v, struct tval *keys, size_t n, bool reverse)
{
    struct tval *v2 = tmpl_alloc(r, n * sizeof *v2), *k2 = tmpl_alloc(r, n * sizeof *k2);
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t mid = low + width < n ? low + width : n,
                   high = low + 2 * width < n ? low + 2 * width : n;
            size_t i = low, j = mid;
            for (size_t k = low; k < high; k++) {
                /* Equal keys keep their order, also in reverse. */
                bool right = i == mid;
                if (!right && j < high)
                    right = tv_compare(r, &keys[j], &keys[i], "<") == (reverse ? 1 : -1);
                size_t from = right ? j++ : i++;
                v2[k] = v[from];
                k2[k] = keys[from];
            }
        }
        memcpy(v, v2, n * sizeof *v);
        memcpy(keys, k2, n * sizeof *keys);
        tmpl_work(r, n * sizeof *v * 2);
    }
}

/* Always a list, of one key or of several comma-separated ones: equal items, also two undefined
 * ones, are then never ordered. */
static struct tval sort_key(struct trun *r, const struct tval *item, const struct tval *attribute,
                            bool case_sensitive)
{
    struct tval key = tv_seq_new(r, SEQ_LIST, 1), comma = tv_cstr(",");
    if (attribute->kind != TV_STR) {
        tv_seq_push(r, key.u.seq,
                    fold_case(r, get_path(r, *item, attribute, NULL), case_sensitive));
        return key;
    }
    struct tval parts = tmpl_split(r, attribute, &comma, -1, false);
    for (size_t i = 0; i < parts.u.seq->n; i++)
        tv_seq_push(r, key.u.seq,
                    fold_case(r, get_path(r, *item, &parts.u.seq->v[i], NULL), case_sensitive));
    return key;
}

static struct tval copy_list(struct trun *r, const struct tval *in)
{
    size_t n;
    struct tval *items = tv_iterate(r, in, &n), v = tv_seq_new(r, SEQ_LIST, n);
    for (size_t i = 0; i < n; i++)
        tv_seq_push(r, v.u.seq, items[i]);
    v.u.seq->trusted = in->kind == TV_SEQ    ? in->u.seq->trusted
                       : in->kind == TV_DICT ? in->u.dict->trusted
                                             : in->trusted;
    return v;
}

FILTER(f_sort)
{
    struct tval v[3], out = copy_list(r, in);
    tmpl_args(r, a, ";reverse case_sensitive attribute", v);
    struct tseq *s = out.u.seq;
    struct tval *keys = tmpl_alloc(r, s->n * sizeof *keys);
    for (size_t i = 0; i < s->n; i++)
        keys[i] = sort_key(r, &s->v[i], &v[2], tmpl_arg_bool(&v[1], false));
    tmpl_sort(r, s->v, keys, s->n, tmpl_arg_bool(&v[0], false));
    return out;
}

FILTER(f_dictsort)
{
    struct tval v[3];
    tmpl_args(r, a, ";case_sensitive by reverse", v);
    bool by_value = tv_is(&v[1], "value");
    if (v[1].kind != TV_MISSING && !by_value && !tv_is(&v[1], "key"))
        tmpl_raise(r, "FilterArgumentError: You can only sort by either "
                      "\"key\" or \"value\"");
    if (in->kind == TV_UNDEF)
        tv_fail_undefined(r, in);
    if (in->kind != TV_DICT)
        tmpl_raise(r, "AttributeError: '%s' object has no attribute 'items'", tv_type_name(in));
    struct targs none = {.callee = a->callee};
    struct tval items = tmpl_find_method("items", 5)->dict(r, in, &none);
    struct tval out = copy_list(r, &items);
    struct tseq *s = out.u.seq;
    struct tval *keys = tmpl_alloc(r, s->n * sizeof *keys);
    for (size_t i = 0; i < s->n; i++)
        keys[i] = fold_case(r, s->v[i].u.seq->v[by_value], tmpl_arg_bool(&v[0], false));
    tmpl_sort(r, s->v, keys, s->n, tmpl_arg_bool(&v[2], false));
    return out;
}

LAZY_FILTER(f_unique)
{
    struct tval v[2], out = tv_seq_new(r, SEQ_ITER, 0), seen = tv_dict_new(r, true);
    size_t n;
    tmpl_args(r, a, ";case_sensitive attribute", v);
    struct tval *items = tv_iterate(r, in, &n);
    for (size_t i = 0; i < n; i++) {
        struct tval key =
            fold_case(r, get_path(r, items[i], &v[1], NULL), tmpl_arg_bool(&v[0], false));
        size_t before = seen.u.dict->n;
        tv_dict_set(r, seen.u.dict, key, tv_none());
        if (seen.u.dict->n > before)
            tv_seq_push(r, out.u.seq, items[i]);
    }
    return out;
}

static struct tval extreme(struct trun *r, const struct tval *in, struct targs *a, int want)
{
    struct tval v[2], best_key = tv_none();
    size_t n, best = 0;
    tmpl_args(r, a, ";case_sensitive attribute", v);
    struct tval *items = tv_iterate(r, in, &n);
    if (n == 0)
        return tv_undef_hint("No aggregated item, sequence was empty.");
    for (size_t i = 0; i < n; i++) {
        struct tval key =
            fold_case(r, get_path(r, items[i], &v[1], NULL), tmpl_arg_bool(&v[0], false));
        if (i == 0 || tv_compare(r, &key, &best_key, want < 0 ? "<" : ">") == want) {
            best = i;
            best_key = key;
        }
    }
    return items[best];
}
FILTER(f_min)
{
    return extreme(r, in, a, -1);
}
FILTER(f_max)
{
    return extreme(r, in, a, 1);
}

FILTER(f_groupby)
{
    struct tval v[3], out = tv_seq_new(r, SEQ_LIST, 0), list = copy_list(r, in);
    tmpl_args(r, a, "attribute;default case_sensitive", v);
    bool sensitive = tmpl_arg_bool(&v[2], false);
    struct tseq *s = list.u.seq, *group = NULL;
    struct tval *keys = tmpl_alloc(r, s->n * sizeof *keys);
    for (size_t i = 0; i < s->n; i++)
        keys[i] = fold_case(r, get_path(r, s->v[i], &v[0], &v[1]), sensitive);
    tmpl_sort(r, s->v, keys, s->n, false);
    for (size_t i = 0; i < s->n; i++) {
        if (i == 0 || !tv_equal(r, &keys[i - 1], &keys[i])) {
            struct tval pair = tv_seq_new(r, SEQ_GROUP, 2), members = tv_seq_new(r, SEQ_LIST, 0);
            group = members.u.seq;
            tv_seq_push(r, pair.u.seq, get_path(r, s->v[i], &v[0], &v[1]));
            tv_seq_push(r, pair.u.seq, members);
            tv_seq_push(r, out.u.seq, pair);
        }
        tv_seq_push(r, group, s->v[i]);
    }
    return out;
}

/* --- picking --- */

/* The arguments after the first `skip`, for the filter or test that was named among them. */
static struct targs rest_of(const struct targs *a, size_t skip, const char *callee)
{
    struct targs rest = *a;
    rest.v += skip;
    rest.n -= skip;
    rest.callee = callee;
    return rest;
}

static struct tval pick(struct trun *r, const struct tval *in, struct targs *a, bool want,
                        bool by_attribute)
{
    struct tval out = tv_seq_new(r, SEQ_ITER, 0);
    const struct ttest *test = NULL;
    size_t n, off = by_attribute;
    if (!tv_truthy(in))
        return out;
    if (a->n < off)
        tmpl_raise(r, "FilterArgumentError: Missing parameter for attribute name");
    if (a->n > off) {
        struct tval name = tmpl_want_str(r, &a->v[off], "test name");
        test = tmpl_find_test(name.u.s, name.len);
        if (test == NULL)
            tmpl_raise(r, "No test named '%.*s'.", name.len > 60 ? 60 : (int)name.len, name.u.s);
    }
    struct tval *items = tv_iterate(r, in, &n);
    for (size_t i = 0; i < n; i++) {
        struct tval v = by_attribute ? get_path(r, items[i], &a->v[0], NULL) : items[i];
        bool is;
        if (test != NULL) {
            struct targs rest = rest_of(a, off + 1, test->name);
            is = test->fn(r, &v, &rest);
        } else {
            is = tv_truthy(&v);
        }
        tmpl_work(r, 0);
        if (is == want)
            tv_seq_push(r, out.u.seq, items[i]);
    }
    return out;
}
LAZY_FILTER(f_select)
{
    return pick(r, in, a, true, false);
}
LAZY_FILTER(f_reject)
{
    return pick(r, in, a, false, false);
}
LAZY_FILTER(f_selectattr)
{
    return pick(r, in, a, true, true);
}
LAZY_FILTER(f_rejectattr)
{
    return pick(r, in, a, false, true);
}

LAZY_FILTER(f_map)
{
    struct tval out = tv_seq_new(r, SEQ_ITER, 0), v[2];
    const struct tfilter *f = NULL;
    size_t n;
    if (!tv_truthy(in))
        return out;
    if (a->n == 0) {
        tmpl_args(r, a, ";attribute default", v);
        if (v[0].kind == TV_MISSING)
            tmpl_raise(r, "FilterArgumentError: map requires a filter argument");
    } else {
        struct tval name = tmpl_want_str(r, &a->v[0], "filter name");
        f = tmpl_find_filter(name.u.s, name.len);
        if (f == NULL)
            tmpl_raise(r, "No filter named '%.*s'.", name.len > 60 ? 60 : (int)name.len, name.u.s);
    }
    struct tval *items = tv_iterate(r, in, &n);
    tmpl_enter(r);
    for (size_t i = 0; i < n; i++) {
        struct targs rest = f != NULL ? rest_of(a, 1, f->name) : *a;
        tv_seq_push(r, out.u.seq,
                    f != NULL ? f->fn(r, &items[i], &rest) : get_path(r, items[i], &v[0], &v[1]));
    }
    tmpl_leave(r);
    return out;
}

FILTER(f_first)
{
    size_t n;
    tmpl_args(r, a, "", NULL);
    if (in->kind == TV_SEQ && in->u.seq->kind == SEQ_ITER) {
        tv_force(r, in->u.seq);
        if (in->u.seq->pos < in->u.seq->n)
            return in->u.seq->v[in->u.seq->pos++];
    }
    if (in->kind == TV_STR && in->len > 0)
        return tmpl_slice(r, in, (struct tval[3]){tv_none(), tv_int(1, true), tv_none()});
    struct tval *items = tv_iterate(r, in, &n);
    return n > 0 ? items[0] : tv_undef_hint("No first item, sequence was empty.");
}

FILTER(f_last)
{
    size_t n;
    tmpl_args(r, a, "", NULL);
    if (in->kind == TV_SEQ && in->u.seq->kind == SEQ_ITER)
        tmpl_raise(r, "TypeError: 'generator' object is not reversible");
    if (in->kind == TV_STR && in->len > 0)
        return tmpl_slice(r, in, (struct tval[3]){tv_int(-1, true), tv_none(), tv_none()});
    struct tval *items = tv_iterate(r, in, &n);
    return n > 0 ? items[n - 1] : tv_undef_hint("No last item, sequence was empty.");
}

FILTER(f_length)
{
    tmpl_args(r, a, "", NULL);
    return tv_int((int64_t)tv_length(r, in), false);
}

FILTER(f_list)
{
    tmpl_args(r, a, "", NULL);
    return copy_list(r, in);
}

LAZY_FILTER(f_items)
{
    struct tval out = tv_seq_new(r, SEQ_ITER, 0);
    tmpl_args(r, a, "", NULL);
    if (in->kind == TV_UNDEF)
        return out;
    if (in->kind != TV_DICT)
        tmpl_raise(r, "TypeError: Can only get item pairs from a mapping.");
    out = tmpl_find_method("items", 5)->dict(r, in, a);
    out.u.seq->kind = SEQ_ITER;
    return out;
}

FILTER(f_join)
{
    struct tval v[2];
    size_t n;
    tmpl_args(r, a, ";d attribute", v);
    struct tval sep = v[0].kind == TV_MISSING ? tv_cstr("") : tv_to_str(r, &v[0]);
    struct tval *items = tv_iterate(r, in, &n);
    if (v[1].kind != TV_MISSING && v[1].kind != TV_NONE) {
        struct tval *parts = tmpl_alloc(r, n * sizeof *parts);
        for (size_t i = 0; i < n; i++)
            parts[i] = get_path(r, items[i], &v[1], NULL);
        items = parts;
    }
    return tmpl_join(r, items, n, &sep);
}

FILTER(f_sum)
{
    struct tval v[2];
    size_t n;
    tmpl_args(r, a, ";attribute start", v);
    struct tval sum = v[1].kind == TV_MISSING ? tv_int(0, true) : v[1],
                *items = tv_iterate(r, in, &n);
    for (size_t i = 0; i < n; i++) {
        struct tval x = get_path(r, items[i], &v[0], NULL);
        sum = tmpl_add(r, &sum, &x);
    }
    return sum;
}

FILTER(f_reverse)
{
    tmpl_args(r, a, "", NULL);
    if (in->kind == TV_STR)
        return tmpl_slice(r, in, (struct tval[3]){tv_none(), tv_none(), tv_int(-1, true)});
    bool generator = in->kind == TV_SEQ && in->u.seq->kind == SEQ_ITER;
    struct tval out = copy_list(r, in);
    tmpl_find_method("reverse", 7)->seq(r, &out, a);
    out.u.seq->kind = generator ? SEQ_LIST : SEQ_ITER;
    return out;
}

LAZY_FILTER(f_batch)
{
    struct tval v[2], out = tv_seq_new(r, SEQ_ITER, 0), row = tv_none();
    size_t n;
    tmpl_args(r, a, "linecount;fill_with", v);
    int64_t count = tv_want_int(r, &v[0]);
    struct tval *items = tv_iterate(r, in, &n);
    for (size_t i = 0; i < n; i++) {
        if (row.kind == TV_NONE || (int64_t)row.u.seq->n == count) {
            row = tv_seq_new(r, SEQ_LIST, 0);
            tv_seq_push(r, out.u.seq, row);
        }
        tv_seq_push(r, row.u.seq, items[i]);
    }
    if (row.kind == TV_SEQ && v[1].kind != TV_MISSING && v[1].kind != TV_NONE)
        while ((int64_t)row.u.seq->n < count)
            tv_seq_push(r, row.u.seq, v[1]);
    return out;
}

LAZY_FILTER(f_slice)
{
    struct tval v[2], out = tv_seq_new(r, SEQ_ITER, 0);
    size_t n, at = 0;
    tmpl_args(r, a, "slices;fill_with", v);
    int64_t slices = tv_want_int(r, &v[0]);
    struct tval *items = tv_iterate(r, in, &n);
    if (slices == 0)
        tmpl_raise(r, "ZeroDivisionError: integer division or modulo by zero");
    for (int64_t i = 0; i < slices; i++) {
        struct tval part = tv_seq_new(r, SEQ_LIST, 0);
        bool extra = (size_t)i < n % (size_t)slices;
        for (size_t k = n / (size_t)slices + extra; k > 0; k--)
            tv_seq_push(r, part.u.seq, items[at++]);
        if (!extra && v[1].kind != TV_MISSING && v[1].kind != TV_NONE)
            tv_seq_push(r, part.u.seq, v[1]);
        tv_seq_push(r, out.u.seq, part);
    }
    return out;
}

FILTER(f_attr)
{
    struct tval name;
    tmpl_args(r, a, "name", &name);
    name = tmpl_want_str(r, &name, "attribute name");
    if (in->kind == TV_DICT) { /* keys are not attributes */
        const struct tmethod *m = tmpl_find_method(name.u.s, name.len);
        if (m == NULL || m->dict == NULL)
            return tv_undef_hint("'dict object' has no such attribute");
    }
    return tmpl_getattr(r, in, &name, tmpl_find_method(name.u.s, name.len));
}

const struct tfilter tmpl_list_filters[] = {{"length", f_length},
                                            {"count", f_length},
                                            {"join", f_join},
                                            {"items", f_items},
                                            {"list", f_list},
                                            {"first", f_first},
                                            {"last", f_last},
                                            {"map", f_map},
                                            {"selectattr", f_selectattr},
                                            {"select", f_select},
                                            {"rejectattr", f_rejectattr},
                                            {"reject", f_reject},
                                            {"sort", f_sort},
                                            {"dictsort", f_dictsort},
                                            {"unique", f_unique},
                                            {"min", f_min},
                                            {"max", f_max},
                                            {"sum", f_sum},
                                            {"reverse", f_reverse},
                                            {"groupby", f_groupby},
                                            {"batch", f_batch},
                                            {"slice", f_slice},
                                            {"attr", f_attr},
                                            {NULL, NULL}};
