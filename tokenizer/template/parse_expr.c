/* Expressions: the grammar and precedence of Jinja2, by recursive descent. */
#include "tokenizer/template/parse.h"

#include <string.h>

#include "tokenizer/template/builtin.h"

static struct tnode *parse_unary(struct tparser *p, bool with_filters);
static struct tnode *parse_or(struct tparser *p);

/* Left-nested chains (a - b - c, x|f|g) and brackets both go through here: depth is counted on the
 * finished node. */
static struct tnode *pair(struct tparser *p, enum tnode_type type, struct tnode *a, struct tnode *b)
{
    struct tnode *n = tmpl_node(p, type);
    n->a = a;
    n->b = b;
    tmpl_depth(p, n, a);
    tmpl_depth(p, n, b);
    return n;
}

static void push(struct tparser *p, struct tnode *n, struct tnode *item)
{
    tmpl_list_push(p, &n->list, &n->n, item);
    tmpl_depth(p, n, item);
}

static void nest(struct tparser *p)
{
    if (++p->nest > TMPL_NEST_MAX)
        tmpl_syntax(p, "an expression is nested too deeply");
}

static struct tnode *parse_list(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, N_LIST);
    p->tok++;
    while (p->tok->type != T_RBRACKET) {
        if (n->n > 0)
            tmpl_expect(p, T_COMMA, "','");
        if (p->tok->type == T_RBRACKET)
            break;
        push(p, n, tmpl_parse_expr(p, true));
    }
    tmpl_expect(p, T_RBRACKET, "']'");
    return n;
}

static struct tnode *parse_dict(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, N_DICT);
    p->tok++;
    while (p->tok->type != T_RBRACE) {
        if (n->n > 0)
            tmpl_expect(p, T_COMMA, "','");
        if (p->tok->type == T_RBRACE)
            break;
        push(p, n, tmpl_parse_expr(p, true));
        tmpl_expect(p, T_COLON, "':'");
        push(p, n, tmpl_parse_expr(p, true));
    }
    tmpl_expect(p, T_RBRACE, "'}'");
    return n;
}

static struct tnode *parse_name(struct tparser *p, bool namespaces)
{
    struct ttoken *t = p->tok++;
    static const struct {
        const char *name;
        uint8_t kind, value;
    } constants[] = {{"true", TV_BOOL, 1},  {"True", TV_BOOL, 1}, {"false", TV_BOOL, 0},
                     {"False", TV_BOOL, 0}, {"none", TV_NONE, 0}, {"None", TV_NONE, 0}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (strlen(constants[i].name) != t->len || memcmp(constants[i].name, t->s, t->len) != 0)
            continue;
        struct tnode *n = tmpl_node(p, N_CONST);
        n->value = constants[i].kind == TV_NONE ? tv_none() : tv_bool(constants[i].value != 0);
        return n;
    }
    bool ns = namespaces && tmpl_skip(p, T_DOT);
    struct tnode *n = tmpl_node(p, ns ? N_NSREF : N_NAME);
    n->sym = tmpl_symbol(p, t->s, t->len);
    if (ns) {
        struct ttoken *attr = tmpl_expect(p, T_NAME, "a name");
        n->value = tv_str(attr->s, attr->len, true);
    }
    if (p->macro != NULL) {
        p->macro->flag |= n->sym == SYM_CALLER;
        p->macro->varargs |= n->sym == SYM_VARARGS;
        p->macro->kwargs |= n->sym == SYM_KWARGS;
    }
    return n;
}

static struct tnode *parse_string(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, N_CONST);
    struct tbuf b = {0};
    n->value = tv_str(p->tok->s, p->tok->len, true);
    p->tok++;
    if (p->tok->type != T_STR)
        return n;
    tbuf_add_str(p->r, &b, &n->value);
    for (; p->tok->type == T_STR; p->tok++)
        tbuf_add(p->r, &b, p->tok->s, p->tok->len, true);
    n->value = tbuf_value(p->r, &b);
    return n;
}

static struct tnode *parse_primary(struct tparser *p, bool namespaces)
{
    struct tnode *n;
    nest(p);
    switch (p->tok->type) {
    case T_NAME:
        n = parse_name(p, namespaces);
        break;
    case T_STR:
        n = parse_string(p);
        break;
    case T_INT:
    case T_REAL:
        n = tmpl_node(p, N_CONST);
        n->value = p->tok->type == T_INT ? tv_int(p->tok->i, true) : tv_real(p->tok->f, true);
        p->tok++;
        break;
    case T_LPAREN:
        p->tok++;
        if (p->tok->type == T_RPAREN)
            n = tmpl_node(p, N_TUPLE);
        else
            n = tmpl_parse_tuple(p, true, NULL);
        tmpl_expect(p, T_RPAREN, "')'");
        break;
    case T_LBRACKET:
        n = parse_list(p);
        break;
    case T_LBRACE:
        n = parse_dict(p);
        break;
    default:
        tmpl_syntax(p, "unexpected '%.*s'", p->tok->len > 40 ? 40 : (int)p->tok->len, p->tok->s);
    }
    p->nest--;
    return n;
}

static struct tcall *parse_args(struct tparser *p, struct tnode *owner)
{
    struct tcall *c = tmpl_alloc(p->r, sizeof *c);
    *c = (struct tcall){0};
    uint32_t kw_cap = 0;
    bool any = false;
    tmpl_expect(p, T_LPAREN, "'('");
    while (p->tok->type != T_RPAREN) {
        if (any)
            tmpl_expect(p, T_COMMA, "','");
        if (p->tok->type == T_RPAREN)
            break;
        any = true;
        struct tnode *value;
        if (c->starstar == NULL && c->star == NULL && tmpl_skip(p, T_MUL)) {
            value = c->star = tmpl_parse_expr(p, true);
        } else if (c->starstar == NULL && tmpl_skip(p, T_POW)) {
            value = c->starstar = tmpl_parse_expr(p, true);
        } else if (c->starstar == NULL && p->tok->type == T_NAME && p->tok[1].type == T_ASSIGN) {
            struct ttoken *name = p->tok;
            p->tok += 2;
            value = tmpl_parse_expr(p, true);
            if (c->n_kw == kw_cap) {
                uint32_t cap = kw_cap == 0 ? 4 : kw_cap * 2;
                c->kw = tmpl_grow(p->r, c->kw, kw_cap * sizeof *c->kw, cap * sizeof *c->kw);
                kw_cap = cap;
            }
            c->kw[c->n_kw++] = (struct tkeyword){name->s, name->len, value};
        } else {
            if (c->n_kw > 0 || c->star != NULL || c->starstar != NULL)
                tmpl_syntax(p, "invalid syntax for function call expression");
            value = tmpl_parse_expr(p, true);
            tmpl_list_push(p, &c->pos, &c->n, value);
        }
        tmpl_depth(p, owner, value);
    }
    p->tok++;
    return c;
}

/* What is between the brackets of a subscript: an expression or a slice. */
static struct tnode *parse_subscribed(struct tparser *p)
{
    struct tnode *first = NULL;
    if (p->tok->type != T_COLON) {
        first = tmpl_parse_expr(p, true);
        if (p->tok->type != T_COLON)
            return first;
    }
    p->tok++;
    struct tnode *n = tmpl_node(p, N_SLICE);
    n->a = first;
    if (p->tok->type != T_COLON && p->tok->type != T_RBRACKET && p->tok->type != T_COMMA)
        n->b = tmpl_parse_expr(p, true);
    if (tmpl_skip(p, T_COLON) && p->tok->type != T_RBRACKET && p->tok->type != T_COMMA)
        n->c = tmpl_parse_expr(p, true);
    tmpl_depth(p, n, n->a);
    tmpl_depth(p, n, n->b);
    tmpl_depth(p, n, n->c);
    return n;
}

static struct tnode *parse_subscript(struct tparser *p, struct tnode *node)
{
    struct tnode *arg;
    if (tmpl_skip(p, T_DOT)) {
        if (p->tok->type == T_NAME) {
            struct tnode *n = pair(p, N_ATTR, node, NULL);
            n->value = tv_str(p->tok->s, p->tok->len, true);
            n->fn = tmpl_find_method(p->tok->s, p->tok->len);
            p->tok++;
            return n;
        }
        struct ttoken *t = tmpl_expect(p, T_INT, "a name or number");
        arg = tmpl_node(p, N_CONST);
        arg->value = tv_int(t->i, true);
        return pair(p, N_ITEM, node, arg);
    }
    p->tok++;
    arg = parse_subscribed(p);
    if (p->tok->type == T_COMMA) {
        struct tnode *tuple = tmpl_node(p, N_TUPLE);
        push(p, tuple, arg);
        while (tmpl_skip(p, T_COMMA) && p->tok->type != T_RBRACKET)
            push(p, tuple, parse_subscribed(p));
        arg = tuple;
    }
    tmpl_expect(p, T_RBRACKET, "']'");
    return pair(p, N_ITEM, node, arg);
}

static struct tnode *parse_call(struct tparser *p, struct tnode *node)
{
    struct tnode *n = pair(p, N_CALL, node, NULL);
    n->call = parse_args(p, n);
    return n;
}

static struct tnode *parse_postfix(struct tparser *p, struct tnode *node)
{
    for (;;) {
        if (p->tok->type == T_DOT || p->tok->type == T_LBRACKET)
            node = parse_subscript(p, node);
        else if (p->tok->type == T_LPAREN)
            node = parse_call(p, node);
        else
            return node;
    }
}

/* The name after | or is, dots included. */
static struct tval dotted_name(struct tparser *p)
{
    struct ttoken *t = tmpl_expect(p, T_NAME, "a name");
    struct tval v = tv_str(t->s, t->len, true);
    while (tmpl_skip(p, T_DOT)) {
        t = tmpl_expect(p, T_NAME, "a name");
        v.len = (size_t)(t->s + t->len - v.u.s);
    }
    return v;
}

/* An unknown filter or test is a mistake at once, or, under an `if`, when it is reached: as Jinja
 * has it. */
static void check_known(struct tparser *p, const struct tnode *n, const char *what)
{
    if (n->fn == NULL && p->conditional == 0)
        tmpl_syntax(p, "No %s named '%.*s'.", what, n->value.len > 60 ? 60 : (int)n->value.len,
                    n->value.u.s);
}

struct tnode *tmpl_parse_filters(struct tparser *p, struct tnode *node, bool inline_start)
{
    while (inline_start || tmpl_skip(p, T_PIPE)) {
        inline_start = false;
        struct tnode *n = pair(p, N_FILTER, node, NULL);
        n->value = dotted_name(p);
        n->fn = tmpl_find_filter(n->value.u.s, n->value.len);
        check_known(p, n, "filter");
        if (p->tok->type == T_LPAREN)
            n->call = parse_args(p, n);
        node = n;
    }
    return node;
}

static struct tnode *parse_test(struct tparser *p, struct tnode *node)
{
    bool negated = tmpl_skip_name(p, "not");
    struct tnode *n = pair(p, N_TEST, node, NULL);
    n->value = dotted_name(p);
    n->fn = tmpl_find_test(n->value.u.s, n->value.len);
    check_known(p, n, "test");
    uint8_t t = p->tok->type;
    bool word = t == T_NAME && !tmpl_at_name(p, "else") && !tmpl_at_name(p, "or") &&
                !tmpl_at_name(p, "and");
    if (t == T_LPAREN) {
        n->call = parse_args(p, n);
    } else if (word || t == T_STR || t == T_INT || t == T_REAL || t == T_LBRACKET ||
               t == T_LBRACE) {
        /* `x is test if ...`: a keyword is a name to the lexer, and Jinja takes it for the argument
         * too, except `is`. */
        if (tmpl_at_name(p, "is"))
            tmpl_syntax(p, "You cannot chain multiple tests with is");
        struct tnode *arg = parse_postfix(p, parse_primary(p, false));
        tmpl_depth(p, n, arg);
        n->call = tmpl_alloc(p->r, sizeof *n->call);
        *n->call = (struct tcall){0};
        tmpl_list_push(p, &n->call->pos, &n->call->n, arg);
    }
    return negated ? pair(p, N_NOT, n, NULL) : n;
}

static struct tnode *parse_unary(struct tparser *p, bool with_filters)
{
    struct tnode *node;
    nest(p);
    if (tmpl_skip(p, T_SUB))
        node = pair(p, N_NEG, parse_unary(p, false), NULL);
    else if (tmpl_skip(p, T_ADD))
        node = pair(p, N_POS, parse_unary(p, false), NULL);
    else
        node = parse_primary(p, false);
    p->nest--;
    node = parse_postfix(p, node);
    while (with_filters) {
        if (p->tok->type == T_PIPE)
            node = tmpl_parse_filters(p, node, false);
        else if (tmpl_skip_name(p, "is"))
            node = parse_test(p, node);
        else if (p->tok->type == T_LPAREN)
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

static struct tnode *binary(struct tparser *p, enum toperator op, struct tnode *a, struct tnode *b)
{
    struct tnode *n = pair(p, N_BINARY, a, b);
    n->op = (uint8_t)op;
    return n;
}

static struct tnode *parse_power(struct tparser *p)
{
    struct tnode *left = parse_unary(p, true);
    while (tmpl_skip(p, T_POW))
        left = binary(p, OP_POW, left, parse_unary(p, true));
    return left;
}

static struct tnode *parse_product(struct tparser *p)
{
    struct tnode *left = parse_power(p);
    for (;;) {
        enum toperator op;
        switch (p->tok->type) {
        case T_MUL:
            op = OP_MUL;
            break;
        case T_DIV:
            op = OP_DIV;
            break;
        case T_FLOORDIV:
            op = OP_FLOORDIV;
            break;
        case T_MOD:
            op = OP_MOD;
            break;
        default:
            return left;
        }
        p->tok++;
        left = binary(p, op, left, parse_power(p));
    }
}

static struct tnode *parse_concat(struct tparser *p)
{
    struct tnode *first = parse_product(p);
    if (p->tok->type != T_TILDE)
        return first;
    struct tnode *n = tmpl_node(p, N_CONCAT);
    push(p, n, first);
    while (tmpl_skip(p, T_TILDE))
        push(p, n, parse_product(p));
    return n;
}

/* a + b + c is one node: strings are then joined once, however long the chain. */
static struct tnode *parse_sum(struct tparser *p)
{
    struct tnode *left = parse_concat(p);
    bool chain = false;
    for (;;) {
        if (tmpl_skip(p, T_ADD)) {
            struct tnode *right = parse_concat(p);
            if (!chain) {
                struct tnode *n = tmpl_node(p, N_ADD);
                push(p, n, left);
                left = n;
                chain = true;
            }
            push(p, left, right);
        } else if (tmpl_skip(p, T_SUB)) {
            left = binary(p, OP_SUB, left, parse_concat(p));
            chain = false;
        } else {
            return left;
        }
    }
}

enum { COMPARE_MAX = 16 };

static struct tnode *parse_compare(struct tparser *p)
{
    struct tnode *first = parse_sum(p), *n = NULL;
    for (;;) {
        uint8_t t = p->tok->type, op;
        if (t >= T_EQ && t <= T_LE) {
            static const uint8_t map[] = {OP_EQ, OP_NE, OP_GT, OP_GE, OP_LT, OP_LE};
            op = map[t - T_EQ];
            p->tok++;
        } else if (tmpl_skip_name(p, "in")) {
            op = OP_IN;
        } else if (tmpl_at_name(p, "not") && p->tok[1].type == T_NAME && p->tok[1].len == 2 &&
                   memcmp(p->tok[1].s, "in", 2) == 0) {
            op = OP_NOTIN;
            p->tok += 2;
        } else {
            return n != NULL ? n : first;
        }
        if (n == NULL) {
            n = tmpl_node(p, N_COMPARE);
            n->ops = tmpl_alloc(p->r, COMPARE_MAX);
            push(p, n, first);
        }
        if (n->n > COMPARE_MAX)
            tmpl_syntax(p, "a comparison has more than %d operators", COMPARE_MAX);
        n->ops[n->n - 1] = op;
        push(p, n, parse_sum(p));
    }
}

static struct tnode *parse_not(struct tparser *p)
{
    if (!tmpl_skip_name(p, "not"))
        return parse_compare(p);
    nest(p);
    struct tnode *n = pair(p, N_NOT, parse_not(p), NULL);
    p->nest--;
    return n;
}

static struct tnode *parse_and(struct tparser *p)
{
    struct tnode *first = parse_not(p);
    if (!tmpl_at_name(p, "and"))
        return first;
    struct tnode *n = tmpl_node(p, N_AND);
    push(p, n, first);
    while (tmpl_skip_name(p, "and"))
        push(p, n, parse_not(p));
    return n;
}

static struct tnode *parse_or(struct tparser *p)
{
    struct tnode *first = parse_and(p);
    if (!tmpl_at_name(p, "or"))
        return first;
    struct tnode *n = tmpl_node(p, N_OR);
    push(p, n, first);
    while (tmpl_skip_name(p, "or"))
        push(p, n, parse_and(p));
    return n;
}

struct tnode *tmpl_parse_expr(struct tparser *p, bool conditional)
{
    nest(p);
    struct tnode *value = parse_or(p);
    while (conditional && tmpl_skip_name(p, "if")) {
        struct tnode *n = tmpl_node(p, N_COND);
        p->conditional++;
        n->a = parse_or(p);
        n->b = value;
        if (tmpl_skip_name(p, "else"))
            n->c = tmpl_parse_expr(p, true);
        p->conditional--;
        tmpl_depth(p, n, n->a);
        tmpl_depth(p, n, n->b);
        tmpl_depth(p, n, n->c);
        value = n;
    }
    p->nest--;
    return value;
}

static bool tuple_end(const struct tparser *p, const char *stop)
{
    uint8_t t = p->tok->type;
    return t == T_VAR_END || t == T_BLOCK_END || t == T_RPAREN ||
           (stop != NULL && tmpl_at_name(p, stop));
}

struct tnode *tmpl_parse_tuple(struct tparser *p, bool conditional, const char *stop)
{
    if (tuple_end(p, stop))
        tmpl_syntax(p, "Expected an expression, got the end of it");
    struct tnode *first = tmpl_parse_expr(p, conditional);
    if (p->tok->type != T_COMMA)
        return first;
    struct tnode *n = tmpl_node(p, N_TUPLE);
    push(p, n, first);
    while (tmpl_skip(p, T_COMMA) && !tuple_end(p, stop))
        push(p, n, tmpl_parse_expr(p, conditional));
    return n;
}

static struct tnode *parse_one_target(struct tparser *p, bool namespaces)
{
    struct tnode *n = parse_primary(p, namespaces);
    bool ok = n->type == N_NAME || n->type == N_NSREF || n->type == N_TUPLE;
    for (uint32_t i = 0; ok && n->type == N_TUPLE && i < n->n; i++)
        ok = n->list[i]->type == N_NAME || n->list[i]->type == N_TUPLE;
    if (!ok)
        tmpl_syntax(p, "can't assign to this");
    return n;
}

struct tnode *tmpl_parse_target(struct tparser *p, bool namespaces, const char *stop)
{
    struct tnode *first = parse_one_target(p, namespaces);
    if (p->tok->type != T_COMMA)
        return first;
    struct tnode *n = tmpl_node(p, N_TUPLE);
    push(p, n, first);
    while (tmpl_skip(p, T_COMMA) && !tuple_end(p, stop) && p->tok->type != T_ASSIGN)
        push(p, n, parse_one_target(p, namespaces));
    return n;
}
