/* Expressions: names, operators, attributes and calls. */
#include "tokenizer/template/ast.h"

#include <string.h>

#include "tokenizer/template/builtin.h"

static struct tval lookup_variable(struct trun *r, uint32_t sym)
{
    const char *name = r->t->names[sym];
    size_t len = r->t->name_lens[sym];
    if (sym == SYM_BOS && r->bos != NULL)
        return tv_cstr(r->bos);
    if (sym == SYM_EOS && r->eos != NULL)
        return tv_cstr(r->eos);
    const json *v = json_get(r->variables, name);
    if (v != NULL)
        return tv_from_json(r, v, sym == SYM_MESSAGES);
    if (sym == SYM_BOS || sym == SYM_EOS)
        return tv_cstr("");
    const struct tbuiltin *g = tmpl_find_global(name, len);
    if (g != NULL)
        return (struct tval){.kind = TV_FUNC, .trusted = true, .u.func = g};
    return (struct tval){.kind = TV_UNDEF, .tag = UNDEF_NAME, .len = len, .u.s = name};
}

static struct tval lookup(struct trun *r, uint32_t sym)
{
    for (const struct tscope *s = r->scope; s != NULL; s = s->parent)
        for (uint32_t i = 0; i < s->n; i++)
            if (s->b[i].sym == sym)
                return s->b[i].v;
    struct tval *cached = &r->cache[sym];
    if (cached->kind == TV_MISSING)
        *cached = lookup_variable(r, sym);
    return *cached;
}

static bool compare(struct trun *r, enum toperator op, const struct tval *a, const struct tval *b)
{
    int c;
    switch (op) {
    case OP_EQ:
        return tv_equal(r, a, b);
    case OP_NE:
        return !tv_equal(r, a, b);
    case OP_LT:
        c = tv_compare(r, a, b, "<");
        return c == -1;
    case OP_LE:
        c = tv_compare(r, a, b, "<=");
        return c == -1 || c == 0;
    case OP_GT:
        c = tv_compare(r, a, b, ">");
        return c == 1;
    case OP_GE:
        c = tv_compare(r, a, b, ">=");
        return c == 1 || c == 0;
    case OP_IN:
        return tv_contains(r, b, a);
    default:
        return !tv_contains(r, b, a);
    }
}

static struct tval eval_compare(struct trun *r, const struct tnode *n)
{
    struct tval left = tmpl_eval(r, n->list[0]);
    for (uint32_t i = 1; i < n->n; i++) {
        struct tval right = tmpl_eval(r, n->list[i]);
        if (!compare(r, n->ops[i - 1], &left, &right))
            return tv_bool(false);
        left = right;
    }
    return tv_bool(true);
}

static struct tval eval_add(struct trun *r, const struct tnode *n)
{
    struct tval acc = tmpl_eval(r, n->list[0]);
    struct tbuf b = {0};
    bool joining = false; /* acc's text is in b */
    for (uint32_t i = 1; i < n->n; i++) {
        struct tval right = tmpl_eval(r, n->list[i]);
        bool plain = right.kind == TV_STR && right.tag == STR_PLAIN;
        if (!joining && plain && acc.kind == TV_STR && acc.tag == STR_PLAIN) {
            tbuf_add_str(r, &b, &acc);
            joining = true;
        }
        if (joining && plain) {
            tbuf_add_str(r, &b, &right);
            continue;
        }
        if (joining)
            acc = tbuf_value(r, &b);
        joining = false;
        b = (struct tbuf){0};
        acc = tmpl_add(r, &acc, &right);
    }
    return joining ? tbuf_value(r, &b) : acc;
}

static struct tval eval_concat(struct trun *r, const struct tnode *n)
{
    struct tbuf b = {0};
    for (uint32_t i = 0; i < n->n; i++) {
        struct tval v = tmpl_eval(r, n->list[i]);
        tv_print(r, &b, &v);
    }
    return tbuf_value(r, &b);
}

static struct tval eval_sign(struct trun *r, const struct tnode *n)
{
    struct tval v = tmpl_eval(r, n->a), zero = tv_int(0, true);
    if (v.kind == TV_UNDEF)
        tv_fail_undefined(r, &v);
    if (!tv_is_number(&v))
        tmpl_raise(r, "TypeError: bad operand type for unary %c: '%s'",
                   n->type == N_NEG ? '-' : '+', tv_type_name(&v));
    if (v.kind == TV_REAL)
        return tv_real(n->type == N_NEG ? -v.u.f : v.u.f, v.trusted);
    return n->type == N_NEG ? tmpl_binary(r, OP_SUB, &zero, &v) : tv_int(tv_integer(&v), v.trusted);
}

/* --- attributes and items --- */

static struct tval lacks(struct trun *r, const struct tval *o, const struct tval *name,
                         enum tundef tag)
{
    const char *type = tv_type_name(o);
    if (o->kind == TV_NONE)
        type = "None";
    else if (o->kind == TV_NAMESPACE)
        type = "jinja2.utils.Namespace";
    else if (o->kind == TV_LOOP)
        type = "jinja2.runtime.LoopContext";
    return (struct tval){
        .kind = TV_UNDEF, .tag = (uint8_t)tag, .len = name->len, .u.s = name->u.s, .x.type = type};
}

static struct tval loop_attr(struct trun *r, struct tloop *loop, const struct tval *name,
                             bool *found)
{
    int64_t i = (int64_t)loop->i;
    *found = true;
    if (tv_is(name, "index"))
        return tv_int(i + 1, true);
    if (tv_is(name, "index0"))
        return tv_int(i, true);
    if (tv_is(name, "first"))
        return tv_bool(i == 0);
    if (tv_is(name, "last"))
        return tv_bool(!tmpl_loop_has(r, loop, loop->i + 1));
    if (tv_is(name, "previtem"))
        return i > 0 ? loop->items[i - 1] : tv_undef_hint("there is no previous item");
    if (tv_is(name, "nextitem"))
        return tmpl_loop_has(r, loop, loop->i + 1) ? loop->items[i + 1]
                                                   : tv_undef_hint("there is no next item");
    if (tv_is(name, "depth"))
        return tv_int(loop->depth0 + 1, true);
    if (tv_is(name, "depth0"))
        return tv_int(loop->depth0, true);
    bool length = tv_is(name, "length"), rev = tv_is(name, "revindex"),
         rev0 = tv_is(name, "revindex0");
    *found = length || rev || rev0;
    if (!*found)
        return tv_none();
    tmpl_loop_has(r, loop, SIZE_MAX);
    return tv_int((int64_t)loop->n - (length ? 0 : rev ? i : i + 1), true);
}

static struct tval macro_attr(struct trun *r, const struct tval *o, const struct tval *name)
{
    const struct tnode *n = o->u.macro->node;
    if (tv_is(name, "name"))
        return o->u.macro->name;
    if (tv_is(name, "caller"))
        return tv_bool(n->flag);
    if (tv_is(name, "catch_kwargs"))
        return tv_bool(n->kwargs);
    if (tv_is(name, "catch_varargs"))
        return tv_bool(n->varargs);
    if (!tv_is(name, "arguments"))
        return lacks(r, o, name, UNDEF_ATTR);
    struct tval v = tv_seq_new(r, SEQ_TUPLE, n->n);
    for (uint32_t i = 0; i < n->n; i++)
        tv_seq_push(r, v.u.seq, tv_cstr(r->t->names[n->syms[i]]));
    return v;
}

/* The method of this name that objects of this type have, NULL for none. */
static tmpl_fn *method_of(const struct tval *o, const struct tmethod *m, bool *mutates)
{
    *mutates = false;
    if (m == NULL)
        return NULL;
    switch (o->kind) {
    case TV_STR:
        return m->str;
    case TV_LOOP:
        return m->loop;
    case TV_DICT:
        *mutates = m->mutates;
        return m->dict;
    case TV_SEQ:
        *mutates = m->mutates;
        return o->u.seq->kind == SEQ_LIST || (o->u.seq->kind != SEQ_ITER && !m->mutates) ? m->seq
                                                                                         : NULL;
    default:
        return NULL;
    }
}

static struct tval bind_method(struct trun *r, const struct tval *o, const char *name, tmpl_fn *fn)
{
    struct tbound *b = tmpl_alloc(r, sizeof *b);
    *b = (struct tbound){*o, name, fn};
    return (struct tval){.kind = TV_METHOD, .trusted = true, .u.bound = b};
}

struct tval tmpl_getattr(struct trun *r, const struct tval *o, const struct tval *name,
                         const void *method)
{
    const struct tmethod *m = method;
    struct tval v, *at = NULL;
    bool found, mutates;
    if (o->kind == TV_UNDEF || o->kind == TV_MISSING)
        tv_fail_undefined(r, o);
    tmpl_fn *fn = method_of(o, m, &mutates);
    if (fn != NULL)
        return mutates && !r->mutation ? lacks(r, o, name, UNDEF_UNSAFE)
                                       : bind_method(r, o, m->name, fn);
    switch (o->kind) {
    case TV_DICT:
    case TV_NAMESPACE:
        at = tv_dict_get_name(o->u.dict, name->u.s, name->len);
        break;
    case TV_LOOP:
        v = loop_attr(r, o->u.loop, name, &found);
        at = found ? &v : NULL;
        break;
    case TV_MACRO:
        return macro_attr(r, o, name);
    case TV_SEQ:
        if (o->u.seq->kind == SEQ_GROUP && tv_is(name, "grouper"))
            return o->u.seq->v[0];
        if (o->u.seq->kind == SEQ_GROUP && tv_is(name, "list"))
            return o->u.seq->v[1];
        break;
    default:
        break;
    }
    return at != NULL ? *at : lacks(r, o, name, UNDEF_ATTR);
}

static struct tval lacks_element(struct trun *r, const struct tval *o, const struct tval *key)
{
    struct tbuf b = {0};
    if (key->kind == TV_STR)
        return lacks(r, o, key, UNDEF_ATTR);
    tv_repr(r, &b, key);
    struct tval text = tbuf_value(r, &b);
    return lacks(r, o, &text, UNDEF_ELEMENT);
}

struct tval tmpl_getitem(struct trun *r, const struct tval *o, const struct tval *key)
{
    if (o->kind == TV_UNDEF || o->kind == TV_MISSING)
        tv_fail_undefined(r, o);
    if (o->kind == TV_DICT && tv_hashable(r, key)) {
        struct tval *v = tv_dict_get(r, o->u.dict, key);
        if (v != NULL)
            return *v;
    }
    bool indexed =
        o->kind == TV_STR ||
        (o->kind == TV_SEQ && (o->u.seq->kind <= SEQ_RANGE || o->u.seq->kind == SEQ_GROUP));
    if (indexed && (key->kind == TV_INT || key->kind == TV_BOOL)) {
        int64_t i = tv_integer(key), n = (int64_t)tv_length(r, o);
        i += i < 0 ? n : 0;
        if (i < 0 || i >= n)
            return lacks_element(r, o, key);
        if (o->kind == TV_SEQ)
            return o->u.seq->v[i];
        struct tval bounds[3] = {tv_int(i, true), tv_int(i + 1, true), tv_none()};
        return tmpl_slice(r, o, bounds);
    }
    if (key->kind == TV_STR && o->kind != TV_DICT)
        return tmpl_getattr(r, o, key, tmpl_find_method(key->u.s, key->len));
    if (key->kind == TV_STR) {
        const struct tmethod *m = tmpl_find_method(key->u.s, key->len);
        if (m != NULL && m->dict != NULL)
            return tmpl_getattr(r, o, key, m);
    }
    return lacks_element(r, o, key);
}

static struct tval eval_slice(struct trun *r, const struct tnode *n, const struct tval *o)
{
    struct tval bounds[3];
    const struct tnode *parts[3] = {n->a, n->b, n->c};
    for (int i = 0; i < 3; i++)
        bounds[i] = parts[i] != NULL ? tmpl_eval(r, parts[i]) : tv_none();
    return tmpl_slice(r, o, bounds);
}

/* --- calls --- */

static void eval_args(struct trun *r, const struct tcall *c, struct targs *a)
{
    *a = (struct targs){0};
    if (c == NULL)
        return;
    struct tval star = tv_none(), starstar = tv_none(), *more = NULL;
    size_t n_more = 0;
    a->v = c->n > 0 ? tmpl_alloc(r, c->n * sizeof *a->v) : NULL;
    for (; a->n < c->n; a->n++)
        a->v[a->n] = tmpl_eval(r, c->pos[a->n]);
    if (c->star != NULL) {
        star = tmpl_eval(r, c->star);
        more = tv_iterate(r, &star, &n_more);
        a->v = tmpl_grow(r, a->v, a->n * sizeof *a->v, (a->n + n_more) * sizeof *a->v);
        for (size_t i = 0; i < n_more; i++)
            a->v[a->n++] = more[i];
        tmpl_work(r, n_more * sizeof *a->v);
    }
    size_t extra = 0;
    if (c->starstar != NULL) {
        starstar = tmpl_eval(r, c->starstar);
        if (starstar.kind != TV_DICT)
            tmpl_raise(r, "TypeError: argument after ** must be a mapping, not %s",
                       tv_type_name(&starstar));
        extra = starstar.u.dict->n;
    }
    a->kw = c->n_kw + extra > 0 ? tmpl_alloc(r, (c->n_kw + extra) * sizeof *a->kw) : NULL;
    for (; a->n_kw < c->n_kw; a->n_kw++)
        a->kw[a->n_kw] = (struct tkwarg){c->kw[a->n_kw].name, c->kw[a->n_kw].len,
                                         tmpl_eval(r, c->kw[a->n_kw].v)};
    for (size_t i = 0; i < extra; i++) {
        const struct tentry *e = &starstar.u.dict->e[i];
        if (e->key.kind != TV_STR)
            tmpl_raise(r, "TypeError: keywords must be strings");
        a->kw[a->n_kw++] = (struct tkwarg){e->key.u.s, e->key.len, e->value};
    }
}

struct tval tmpl_call(struct trun *r, const struct tval *f, struct targs *a)
{
    struct tval items;
    switch (f->kind) {
    case TV_FUNC:
        a->callee = f->u.func->name;
        return f->u.func->fn(r, f, a);
    case TV_METHOD:
        a->callee = f->u.bound->name;
        return f->u.bound->fn(r, &f->u.bound->self, a);
    case TV_MACRO:
        return tmpl_call_macro(r, f->u.macro, a);
    case TV_LOOP:
        a->callee = "loop";
        tmpl_args(r, a, "iterable", &items);
        return tmpl_call_loop(r, f->u.loop, &items);
    case TV_JOINER:
        return tmpl_find_global("joiner", 6)->fn(r, f, a);
    case TV_UNDEF:
        tv_fail_undefined(r, f);
    default:
        tmpl_raise(r, "TypeError: '%s' object is not callable", tv_type_name(f));
    }
}

static struct tval eval_call(struct trun *r, const struct tnode *n)
{
    struct targs a;
    bool mutates;
    if (n->a->type == N_ATTR && n->a->fn != NULL) {
        /* A method that is called at once needs no bound object. */
        const struct tmethod *m = n->a->fn;
        struct tval o = tmpl_eval(r, n->a->a);
        tmpl_fn *fn = method_of(&o, m, &mutates);
        if (fn != NULL && (!mutates || r->mutation)) {
            eval_args(r, n->call, &a);
            a.callee = m->name;
            r->line = n->line;
            return fn(r, &o, &a);
        }
        struct tval f = tmpl_getattr(r, &o, &n->a->value, m);
        eval_args(r, n->call, &a);
        return tmpl_call(r, &f, &a);
    }
    struct tval f = tmpl_eval(r, n->a);
    eval_args(r, n->call, &a);
    r->line = n->line;
    return tmpl_call(r, &f, &a);
}

static struct tval run_filter(struct trun *r, const struct tnode *n, struct tval in)
{
    const struct tfilter *f = n->fn;
    struct targs a;
    r->line = n->line;
    if (f == NULL)
        tmpl_raise(r, "No filter named '%.*s'.", (int)n->value.len, n->value.u.s);
    eval_args(r, n->call, &a);
    a.callee = f->name;
    return f->fn(r, &in, &a);
}

struct tval tmpl_apply_filter(struct trun *r, const struct tnode *n, struct tval in)
{
    return run_filter(r, n, n->a != NULL ? tmpl_apply_filter(r, n->a, in) : in);
}

static struct tval eval_test(struct trun *r, const struct tnode *n)
{
    const struct ttest *t = n->fn;
    struct targs a;
    struct tval v = tmpl_eval(r, n->a);
    if (t == NULL)
        tmpl_raise(r, "No test named '%.*s'.", (int)n->value.len, n->value.u.s);
    eval_args(r, n->call, &a);
    a.callee = t->name;
    return tv_bool(t->fn(r, &v, &a));
}

/* --- literals and the switch --- */

static struct tval eval_list(struct trun *r, const struct tnode *n)
{
    struct tval v = tv_seq_new(r, n->type == N_LIST ? SEQ_LIST : SEQ_TUPLE, n->n);
    for (uint32_t i = 0; i < n->n; i++)
        tv_seq_push(r, v.u.seq, tmpl_eval(r, n->list[i]));
    return v;
}

static struct tval eval_dict(struct trun *r, const struct tnode *n)
{
    struct tval v = tv_dict_new(r, true);
    for (uint32_t i = 0; i + 1 < n->n; i += 2) {
        struct tval key = tmpl_eval(r, n->list[i]);
        tv_dict_set(r, v.u.dict, key, tmpl_eval(r, n->list[i + 1]));
    }
    return v;
}

static struct tval eval_logic(struct trun *r, const struct tnode *n)
{
    struct tval v = tv_none();
    for (uint32_t i = 0; i < n->n; i++) {
        v = tmpl_eval(r, n->list[i]);
        if (tv_truthy(&v) == (n->type == N_OR))
            break;
    }
    return v;
}

static struct tval eval_item(struct trun *r, const struct tnode *n)
{
    struct tval o = tmpl_eval(r, n->a);
    r->line = n->line;
    if (n->b->type == N_SLICE)
        return eval_slice(r, n->b, &o);
    struct tval key = tmpl_eval(r, n->b);
    return tmpl_getitem(r, &o, &key);
}

static struct tval eval_node(struct trun *r, const struct tnode *n)
{
    struct tval v, w;
    switch (n->type) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return lookup(r, n->sym);
    case N_ATTR:
        v = tmpl_eval(r, n->a);
        r->line = n->line;
        return tmpl_getattr(r, &v, &n->value, n->fn);
    case N_ITEM:
        return eval_item(r, n);
    case N_CALL:
        return eval_call(r, n);
    case N_FILTER:
        return run_filter(r, n, tmpl_eval(r, n->a));
    case N_TEST:
        return eval_test(r, n);
    case N_NOT:
        v = tmpl_eval(r, n->a);
        return tv_bool(!tv_truthy(&v));
    case N_NEG:
    case N_POS:
        return eval_sign(r, n);
    case N_AND:
    case N_OR:
        return eval_logic(r, n);
    case N_ADD:
        return eval_add(r, n);
    case N_BINARY:
        v = tmpl_eval(r, n->a);
        w = tmpl_eval(r, n->b);
        return tmpl_binary(r, n->op, &v, &w);
    case N_CONCAT:
        return eval_concat(r, n);
    case N_COMPARE:
        return eval_compare(r, n);
    case N_COND:
        v = tmpl_eval(r, n->a);
        if (tv_truthy(&v))
            return tmpl_eval(r, n->b);
        return n->c != NULL
                   ? tmpl_eval(r, n->c)
                   : tv_undef_hint(
                         "the inline if-expression evaluated to false and no else section was "
                         "defined.");
    case N_LIST:
    case N_TUPLE:
        return eval_list(r, n);
    case N_DICT:
        return eval_dict(r, n);
    default:
        tmpl_raise(r, "a slice outside of a subscript");
    }
}

struct tval tmpl_eval(struct trun *r, const struct tnode *n)
{
    tmpl_work(r, 0);
    if (n->type == N_CONST)
        return n->value;
    tmpl_enter(r);
    struct tval v = eval_node(r, n);
    tmpl_leave(r);
    return v;
}
