/* Statements: output, control flow, assignment, macros and loops. */
#include "tokenizer/template/ast.h"

#include <string.h>

#include "tokenizer/template/builtin.h"

struct tscope *tmpl_scope(struct trun *r, struct tscope *parent)
{
    struct tscope *s = tmpl_alloc(r, sizeof *s);
    *s = (struct tscope){.parent = parent};
    return s;
}

void tmpl_bind(struct trun *r, struct tscope *s, uint32_t sym, struct tval v)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->b[i].sym == sym) {
            s->b[i].v = v;
            return;
        }
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap == 0 ? 8 : s->cap * 2;
        s->b = tmpl_grow(r, s->b, s->cap * sizeof *s->b, cap * sizeof *s->b);
        s->cap = cap;
    }
    s->b[s->n].sym = sym;
    s->b[s->n++].v = v;
}

/* Runs a body with its output caught, in a scope of its own. */
static struct tval capture(struct trun *r, struct tscope *scope, struct tnode *const *body,
                           uint32_t n)
{
    struct tbuf b = {0}, *out = r->out;
    struct tscope *outer = r->scope;
    r->out = &b;
    r->scope = scope;
    tmpl_exec(r, body, n);
    r->scope = outer;
    r->out = out;
    return tbuf_value(r, &b);
}

static void assign(struct trun *r, struct tscope *s, const struct tnode *target, struct tval v)
{
    if (target->type == N_NAME) {
        tmpl_bind(r, s, target->sym, v);
        return;
    }
    if (target->type == N_NSREF) {
        struct tnode name = {.type = N_NAME, .sym = target->sym, .line = target->line};
        struct tval ns = tmpl_eval(r, &name);
        if (ns.kind != TV_NAMESPACE)
            tmpl_raise(r, "TemplateRuntimeError: cannot assign attribute on "
                          "non-namespace object");
        tv_dict_set(r, ns.u.dict, target->value, v);
        return;
    }
    size_t n;
    if (v.kind != TV_UNDEF && v.kind != TV_STR && v.kind != TV_SEQ && v.kind != TV_DICT)
        tmpl_raise(r, "TypeError: cannot unpack non-iterable %s object", tv_type_name(&v));
    struct tval *items = tv_iterate(r, &v, &n);
    if (n > target->n)
        tmpl_raise(r, "ValueError: too many values to unpack (expected %u)", target->n);
    if (n < target->n)
        tmpl_raise(r,
                   "ValueError: not enough values to unpack (expected %u, "
                   "got %zu)",
                   target->n, n);
    tmpl_enter(r);
    for (uint32_t i = 0; i < target->n; i++)
        assign(r, s, target->list[i], items[i]);
    tmpl_leave(r);
}

/* --- loops --- */

bool tmpl_loop_has(struct trun *r, struct tloop *loop, size_t i)
{
    while (loop->n <= i && loop->raw_n > 0) {
        /* The loop's `if` is asked as late as Jinja asks it: it may look at what the body has done
         * so far. */
        struct tscope *outer = r->scope;
        struct tval item = *loop->raw++;
        loop->raw_n--;
        r->scope = tmpl_scope(r, loop->outer);
        assign(r, r->scope, loop->node->a, item);
        struct tval test = tmpl_eval(r, loop->node->c);
        r->scope = outer;
        if (tv_truthy(&test))
            loop->items[loop->n++] = item;
    }
    return i < loop->n;
}

static void run_loop(struct trun *r, struct tloop *loop, const struct tval *iterable)
{
    const struct tnode *n = loop->node;
    struct tscope *outer = loop->outer;
    size_t count;
    struct tval *items = tv_iterate(r, iterable, &count);
    if (n->c == NULL) {
        loop->items = items;
        loop->n = count;
    } else {
        loop->raw = items;
        loop->raw_n = count;
        loop->items = count > 0 ? tmpl_alloc(r, count * sizeof *items) : NULL;
    }
    if (tmpl_loop_has(r, loop, 0)) {
        struct tscope *scope = tmpl_scope(r, outer);
        struct tval self = {.kind = TV_LOOP, .trusted = true, .u.loop = loop};
        r->scope = scope;
        for (loop->i = 0; tmpl_loop_has(r, loop, loop->i); loop->i++) {
            tmpl_work(r, 0);
            scope->n = 0;
            tmpl_bind(r, scope, SYM_LOOP, self);
            assign(r, scope, n->a, loop->items[loop->i]);
            tmpl_exec(r, n->list, n->n);
            bool stop = r->flow == FLOW_BREAK;
            r->flow = FLOW_NONE;
            if (stop)
                break;
        }
    } else {
        r->scope = tmpl_scope(r, outer);
        tmpl_exec(r, n->list2, n->n2);
    }
}

static void exec_for(struct trun *r, const struct tnode *n)
{
    struct tval iterable = tmpl_eval(r, n->b);
    struct tloop *loop = tmpl_alloc(r, sizeof *loop);
    struct tscope *outer = r->scope;
    *loop = (struct tloop){.node = n, .outer = outer};
    r->line = n->line;
    run_loop(r, loop, &iterable);
    r->scope = outer;
}

struct tval tmpl_call_loop(struct trun *r, struct tloop *loop, const struct tval *items)
{
    if (!loop->node->flag)
        tmpl_raise(r, "TypeError: The loop must have the 'recursive' marker to "
                      "be called "
                      "recursively.");
    struct tloop *inner = tmpl_alloc(r, sizeof *inner);
    struct tbuf b = {0}, *out = r->out;
    struct tscope *scope = r->scope;
    *inner = (struct tloop){.node = loop->node, .outer = loop->outer, .depth0 = loop->depth0 + 1};
    tmpl_enter(r);
    r->out = &b;
    run_loop(r, inner, items);
    r->out = out;
    r->scope = scope;
    tmpl_leave(r);
    return tbuf_value(r, &b);
}

/* --- macros --- */

static struct tkwarg *find_kwarg(struct targs *a, const char *name, size_t len)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (a->kw[i].name != NULL && a->kw[i].len == len && memcmp(a->kw[i].name, name, len) == 0)
            return &a->kw[i];
    return NULL;
}

/* What is left over goes to varargs and kwargs where the body uses them, else it is a mistake. */
static void bind_rest(struct trun *r, const struct tmacro *m, struct tscope *s, struct targs *a)
{
    const struct tnode *n = m->node;
    struct tkwarg *caller = find_kwarg(a, "caller", 6);
    if (n->flag || caller != NULL) {
        struct tval v = {
            .kind = TV_UNDEF, .tag = UNDEF_HINT, .len = 17, .u.s = "No caller defined"};
        if (caller != NULL && n->flag) {
            v = caller->v;
            caller->name = NULL;
        }
        tmpl_bind(r, s, SYM_CALLER, v);
    }
    struct tval rest = tv_dict_new(r, true);
    for (size_t i = 0; i < a->n_kw; i++) {
        if (a->kw[i].name == NULL)
            continue;
        if (!n->kwargs)
            tmpl_raise(r, "TypeError: macro '%.*s' takes no keyword argument '%.*s'",
                       (int)m->name.len, m->name.u.s, (int)a->kw[i].len, a->kw[i].name);
        tv_dict_set(r, rest.u.dict, tv_str(a->kw[i].name, a->kw[i].len, true), a->kw[i].v);
    }
    if (n->kwargs)
        tmpl_bind(r, s, SYM_KWARGS, rest);
    if (a->n > n->n && !n->varargs)
        tmpl_raise(r, "TypeError: macro '%.*s' takes not more than %u argument(s)",
                   (int)m->name.len, m->name.u.s, n->n);
    if (n->varargs) {
        struct tval more = tv_seq_new(r, SEQ_TUPLE, 0);
        for (size_t i = n->n; i < a->n; i++)
            tv_seq_push(r, more.u.seq, a->v[i]);
        tmpl_bind(r, s, SYM_VARARGS, more);
    }
}

struct tval tmpl_call_macro(struct trun *r, const struct tmacro *m, struct targs *a)
{
    const struct tnode *n = m->node;
    struct tscope *s = tmpl_scope(r, m->scope), *outer = r->scope;
    tmpl_enter(r);
    struct tval *given = n->n > 0 ? tmpl_alloc(r, n->n * sizeof *given) : NULL;
    for (uint32_t i = 0; i < n->n; i++) {
        struct tkwarg *kw = find_kwarg(a, r->t->names[n->syms[i]], r->t->name_lens[n->syms[i]]);
        given[i] = (struct tval){.kind = TV_MISSING};
        if (i < a->n) {
            given[i] = a->v[i];
        } else if (kw != NULL) {
            given[i] = kw->v;
            kw->name = NULL;
        }
    }
    bind_rest(r, m, s, a);
    r->scope = s;
    for (uint32_t i = 0; i < n->n; i++) {
        if (given[i].kind == TV_MISSING && n->list[i] != NULL)
            given[i] = tmpl_eval(r, n->list[i]);
        else if (given[i].kind == TV_MISSING)
            given[i] = tv_undef_hint("a parameter was not provided");
        tmpl_bind(r, s, n->syms[i], given[i]);
    }
    struct tval v = capture(r, s, n->list2, n->n2);
    r->scope = outer;
    tmpl_leave(r);
    return v;
}

static struct tval make_macro(struct trun *r, const struct tnode *n, struct tval name)
{
    struct tmacro *m = tmpl_alloc(r, sizeof *m);
    *m = (struct tmacro){n, r->scope, name};
    return (struct tval){.kind = TV_MACRO, .trusted = true, .u.macro = m};
}

static void exec_call(struct trun *r, const struct tnode *n)
{
    /* The body becomes the keyword argument `caller` of the call in the tag. */
    struct tkeyword caller = {"caller", 6, NULL};
    struct tnode value = {.type = N_CONST, .line = n->line}, node = *n->a;
    struct tcall call = *n->a->call;
    value.value = make_macro(r, n, tv_cstr("caller"));
    caller.v = &value;
    call.kw = tmpl_alloc(r, (call.n_kw + 1) * sizeof *call.kw);
    if (call.n_kw > 0)
        memcpy(call.kw, n->a->call->kw, call.n_kw * sizeof *call.kw);
    call.kw[call.n_kw++] = caller;
    node.call = &call;
    struct tval v = tmpl_eval(r, &node);
    tv_print(r, r->out, &v);
}

/* --- the switch --- */

static void exec_if(struct trun *r, const struct tnode *n)
{
    for (; n != NULL; n = n->b) {
        struct tval test = tmpl_eval(r, n->a);
        if (tv_truthy(&test)) {
            tmpl_exec(r, n->list, n->n);
            return;
        }
        if (n->b == NULL)
            tmpl_exec(r, n->list2, n->n2);
    }
}

static void exec_with(struct trun *r, const struct tnode *n)
{
    struct tscope *outer = r->scope, *s = tmpl_scope(r, outer);
    for (uint32_t i = 0; i + 1 < n->n; i += 2)
        assign(r, s, n->list[i], tmpl_eval(r, n->list[i + 1]));
    r->scope = s;
    tmpl_exec(r, n->list2, n->n2);
    r->scope = outer;
}

static void exec_output(struct trun *r, const struct tnode *e)
{
    if (e->type != N_CONCAT) {
        struct tval v = tmpl_eval(r, e);
        tv_print(r, r->out, &v);
        return;
    }
    for (uint32_t i = 0; i < e->n; i++) {
        struct tval v = tmpl_eval(r, e->list[i]);
        tv_print(r, r->out, &v);
    }
}

static void exec_node(struct trun *r, const struct tnode *n)
{
    struct tscope *outer = r->scope;
    struct tval v;
    switch (n->type) {
    case S_TEXT:
        tbuf_add_str(r, r->out, &n->value);
        break;
    case S_OUTPUT:
        exec_output(r, n->a);
        break;
    case S_FOR:
        exec_for(r, n);
        break;
    case S_IF:
        exec_if(r, n);
        break;
    case S_SET:
        assign(r, r->scope, n->a, tmpl_eval(r, n->b));
        break;
    case S_SETBLOCK:
        v = capture(r, tmpl_scope(r, outer), n->list, n->n);
        assign(r, r->scope, n->a, n->b != NULL ? tmpl_apply_filter(r, n->b, v) : v);
        break;
    case S_MACRO:
        tmpl_bind(r, r->scope, n->sym, make_macro(r, n, tv_cstr(r->t->names[n->sym])));
        break;
    case S_CALL:
        exec_call(r, n);
        break;
    case S_FILTER:
        v = capture(r, tmpl_scope(r, outer), n->list2, n->n2);
        v = tmpl_apply_filter(r, n->b, v);
        tv_print(r, r->out, &v);
        break;
    case S_WITH:
        exec_with(r, n);
        break;
    case S_SCOPE:
        r->scope = tmpl_scope(r, outer);
        tmpl_exec(r, n->list2, n->n2);
        r->scope = outer;
        break;
    case S_BREAK:
    case S_CONTINUE:
        r->flow = n->type == S_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
        break;
    default:
        break;
    }
}

void tmpl_exec(struct trun *r, struct tnode *const *body, uint32_t n)
{
    tmpl_enter(r);
    for (uint32_t i = 0; i < n && r->flow == FLOW_NONE; i++) {
        tmpl_work(r, 0);
        r->line = body[i]->line;
        exec_node(r, body[i]);
    }
    tmpl_leave(r);
}
