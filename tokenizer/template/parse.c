/* Statements: tokens to the tree. Expressions are in parse_expr.c. */
#include "tokenizer/template/parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"

void tmpl_syntax(struct tparser *p, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->r->line = p->tok->line;
    tmpl_raise(p->r, "%s", text);
}

struct tnode *tmpl_node(struct tparser *p, enum tnode_type type)
{
    if (++p->nodes > TMPL_NODES_MAX)
        tmpl_syntax(p, "the template has more than %d parts", TMPL_NODES_MAX);
    struct tnode *n = tmpl_alloc(p->r, sizeof *n);
    *n = (struct tnode){.type = (uint8_t)type, .line = p->tok->line, .depth = 1};
    return n;
}

void tmpl_depth(struct tparser *p, struct tnode *n, const struct tnode *child)
{
    if (child == NULL || child->depth < n->depth)
        return;
    if (child->depth >= TMPL_DEPTH_MAX)
        tmpl_syntax(p, "an expression is nested too deeply");
    n->depth = (uint16_t)(child->depth + 1);
}

void tmpl_list_push(struct tparser *p, struct tnode ***list, uint32_t *n, struct tnode *item)
{
    /* Capacity is the next power of two from 4 on: grow when the count reaches one. */
    if (*n == 0)
        *list = tmpl_alloc(p->r, 4 * sizeof **list);
    else if (*n >= 4 && (*n & (*n - 1)) == 0)
        *list = tmpl_grow(p->r, *list, *n * sizeof **list, 2 * (size_t)*n * sizeof **list);
    (*list)[(*n)++] = item;
}

static void names_reindex(struct tparser *p, uint32_t cap)
{
    struct chat_template *t = p->t;
    t->name_index = tmpl_alloc(p->r, cap * sizeof *t->name_index);
    memset(t->name_index, 0, cap * sizeof *t->name_index);
    t->name_index_cap = cap;
    for (uint32_t i = 0; i < t->n_names; i++) {
        uint64_t at = hash_bytes(0, t->names[i], t->name_lens[i]);
        while (t->name_index[at & (cap - 1)] != 0)
            at++;
        t->name_index[at & (cap - 1)] = i + 1;
    }
}

uint32_t tmpl_symbol(struct tparser *p, const char *s, size_t len)
{
    struct chat_template *t = p->t;
    if (t->n_names * 2 >= t->name_index_cap)
        names_reindex(p, t->name_index_cap == 0 ? 64 : t->name_index_cap * 2);
    uint64_t at = hash_bytes(0, s, len);
    for (;; at++) {
        uint32_t slot = t->name_index[at & (t->name_index_cap - 1)];
        if (slot == 0)
            break;
        if (t->name_lens[slot - 1] == len && memcmp(t->names[slot - 1], s, len) == 0)
            return slot - 1;
    }
    if (t->n_names == t->cap_names) {
        uint32_t cap = t->cap_names == 0 ? 32 : t->cap_names * 2;
        t->names =
            tmpl_grow(p->r, t->names, t->cap_names * sizeof *t->names, cap * sizeof *t->names);
        t->name_lens = tmpl_grow(p->r, t->name_lens, t->cap_names * sizeof *t->name_lens,
                                 cap * sizeof *t->name_lens);
        t->cap_names = cap;
    }
    char *copy = tmpl_alloc(p->r, len + 1);
    memcpy(copy, s, len);
    copy[len] = 0;
    t->names[t->n_names] = copy;
    t->name_lens[t->n_names] = len;
    t->name_index[at & (t->name_index_cap - 1)] = t->n_names + 1;
    return t->n_names++;
}

static bool token_is(const struct ttoken *t, const char *name)
{
    return t->type == T_NAME && t->len == strlen(name) && memcmp(t->s, name, t->len) == 0;
}
bool tmpl_at_name(const struct tparser *p, const char *name)
{
    return token_is(p->tok, name);
}
bool tmpl_skip_name(struct tparser *p, const char *name)
{
    bool at = tmpl_at_name(p, name);
    p->tok += at;
    return at;
}
bool tmpl_skip(struct tparser *p, enum ttoken_type type)
{
    bool at = p->tok->type == type;
    p->tok += at;
    return at;
}
struct ttoken *tmpl_expect(struct tparser *p, enum ttoken_type type, const char *what)
{
    if (p->tok->type != type) {
        int len = p->tok->len > 40 ? 40 : (int)p->tok->len;
        tmpl_syntax(p, "expected %s, got '%.*s'", what, len, p->tok->s);
    }
    return p->tok++;
}

static const char *const *parse_statements(struct tparser *p, struct tnode *parent,
                                           struct tnode ***list, uint32_t *n,
                                           const char *const *ends);
static struct tnode *parse_statement(struct tparser *p);

/* Parses up to one of `ends` and skips that word (not the tag's end); returns which. */
static const char *const *parse_body(struct tparser *p, struct tnode *parent, struct tnode ***list,
                                     uint32_t *n, const char *const *ends)
{
    if (++p->nest > TMPL_NEST_MAX)
        tmpl_syntax(p, "blocks are nested too deeply");
    tmpl_skip(p, T_COLON);
    tmpl_expect(p, T_BLOCK_END, "end of tag");
    const char *const *end = parse_statements(p, parent, list, n, ends);
    p->nest--;
    return end;
}

static void parse_target_syms(struct tparser *p, struct tnode *node)
{
    uint32_t cap = 0, n = 0;
    bool defaults = false;
    tmpl_expect(p, T_LPAREN, "'('");
    while (p->tok->type != T_RPAREN) {
        if (n > 0)
            tmpl_expect(p, T_COMMA, "','");
        struct ttoken *name = tmpl_expect(p, T_NAME, "a parameter's name");
        if (n == cap) {
            uint32_t more = cap == 0 ? 8 : cap * 2;
            node->syms =
                tmpl_grow(p->r, node->syms, cap * sizeof *node->syms, more * sizeof *node->syms);
            cap = more;
        }
        node->syms[n] = tmpl_symbol(p, name->s, name->len);
        struct tnode *value = NULL;
        if (tmpl_skip(p, T_ASSIGN)) {
            value = tmpl_parse_expr(p, true);
            defaults = true;
        } else if (defaults) {
            tmpl_syntax(p, "non-default argument follows default argument");
        }
        tmpl_depth(p, node, value);
        tmpl_list_push(p, &node->list, &n, value);
    }
    p->tok++;
    node->n = n;
}

static const char *const
    end_for[] = {"endfor", "else", NULL},
    *const end_endfor[] = {"endfor", NULL}, *const end_if[] = {"elif", "else", "endif", NULL},
    *const end_set[] = {"endset", NULL}, *const end_macro[] = {"endmacro", NULL},
    *const end_call[] = {"endcall", NULL}, *const end_filter[] = {"endfilter", NULL},
    *const end_with[] = {"endwith", NULL}, *const end_generation[] = {"endgeneration", NULL},
    *const end_block[] = {"endblock", NULL};

static struct tnode *parse_for(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, S_FOR);
    n->a = tmpl_parse_target(p, false, "in");
    if (!tmpl_skip_name(p, "in"))
        tmpl_syntax(p, "expected 'in'");
    n->b = tmpl_parse_tuple(p, false, "recursive");
    if (tmpl_skip_name(p, "if"))
        n->c = tmpl_parse_expr(p, true);
    n->flag = tmpl_skip_name(p, "recursive");
    p->loops++;
    const char *const *end = parse_body(p, n, &n->list, &n->n, end_for);
    p->loops--;
    if (end == &end_for[1])
        parse_body(p, n, &n->list2, &n->n2, end_endfor);
    return n;
}

static struct tnode *parse_if(struct tparser *p)
{
    struct tnode *first = tmpl_node(p, S_IF), *n = first;
    p->conditional++;
    for (;;) {
        n->a = tmpl_parse_tuple(p, false, NULL);
        tmpl_depth(p, first, n->a);
        const char *const *end = parse_body(p, first, &n->list, &n->n, end_if);
        if (end == &end_if[0]) {
            n->b = tmpl_node(p, S_IF);
            n = n->b;
            continue;
        }
        if (end == &end_if[1])
            parse_body(p, first, &n->list2, &n->n2, end_if + 2);
        break;
    }
    p->conditional--;
    return first;
}

static struct tnode *parse_set(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, S_SET);
    n->a = tmpl_parse_target(p, true, NULL);
    if (tmpl_skip(p, T_ASSIGN)) {
        n->b = tmpl_parse_tuple(p, true, NULL);
        return n;
    }
    n->type = S_SETBLOCK;
    n->b = tmpl_parse_filters(p, NULL, false);
    parse_body(p, n, &n->list, &n->n, end_set);
    return n;
}

static struct tnode *parse_macro(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, S_MACRO);
    struct ttoken *name = tmpl_expect(p, T_NAME, "the macro's name");
    n->sym = tmpl_symbol(p, name->s, name->len);
    parse_target_syms(p, n);
    struct tnode *outer = p->macro;
    int loops = p->loops;
    p->macro = n;
    p->loops = 0;
    parse_body(p, n, &n->list2, &n->n2, end_macro);
    p->macro = outer;
    p->loops = loops;
    return n;
}

static struct tnode *parse_call(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, S_CALL);
    if (p->tok->type == T_LPAREN)
        parse_target_syms(p, n);
    n->a = tmpl_parse_expr(p, true);
    if (n->a->type != N_CALL)
        tmpl_syntax(p, "expected call");
    int loops = p->loops;
    p->loops = 0;
    parse_body(p, n, &n->list2, &n->n2, end_call);
    p->loops = loops;
    return n;
}

static struct tnode *parse_with(struct tparser *p)
{
    /* list: target and value in turn; list2: body */
    struct tnode *n = tmpl_node(p, S_WITH);
    while (p->tok->type != T_BLOCK_END) {
        if (n->n > 0)
            tmpl_expect(p, T_COMMA, "','");
        tmpl_list_push(p, &n->list, &n->n, tmpl_parse_target(p, false, NULL));
        tmpl_expect(p, T_ASSIGN, "'='");
        struct tnode *value = tmpl_parse_expr(p, true);
        tmpl_depth(p, n, value);
        tmpl_list_push(p, &n->list, &n->n, value);
    }
    parse_body(p, n, &n->list2, &n->n2, end_with);
    return n;
}

static struct tnode *parse_scope(struct tparser *p, const char *const *end)
{
    struct tnode *n = tmpl_node(p, S_SCOPE);
    if (end == end_block)
        tmpl_expect(p, T_NAME, "the block's name");
    parse_body(p, n, &n->list2, &n->n2, end);
    if (end == end_block)
        tmpl_skip(p, T_NAME);
    return n;
}

static struct tnode *parse_print(struct tparser *p)
{
    struct tnode *n = tmpl_node(p, S_SCOPE);
    while (p->tok->type != T_BLOCK_END) {
        if (n->n2 > 0)
            tmpl_expect(p, T_COMMA, "','");
        struct tnode *out = tmpl_node(p, S_OUTPUT);
        out->a = tmpl_parse_expr(p, true);
        tmpl_depth(p, n, out->a);
        tmpl_list_push(p, &n->list2, &n->n2, out);
    }
    return n;
}

static struct tnode *parse_statement(struct tparser *p)
{
    struct ttoken *word = tmpl_expect(p, T_NAME, "a statement");
    struct tnode *n;
    if (token_is(word, "for"))
        return parse_for(p);
    if (token_is(word, "if"))
        return parse_if(p);
    if (token_is(word, "set"))
        return parse_set(p);
    if (token_is(word, "macro"))
        return parse_macro(p);
    if (token_is(word, "call"))
        return parse_call(p);
    if (token_is(word, "with"))
        return parse_with(p);
    if (token_is(word, "print"))
        return parse_print(p);
    if (token_is(word, "generation"))
        return parse_scope(p, end_generation);
    if (token_is(word, "block"))
        return parse_scope(p, end_block);
    if (token_is(word, "filter")) {
        n = tmpl_node(p, S_FILTER);
        n->b = tmpl_parse_filters(p, NULL, true);
        parse_body(p, n, &n->list2, &n->n2, end_filter);
        return n;
    }
    if (token_is(word, "break") || token_is(word, "continue")) {
        if (p->loops == 0)
            tmpl_syntax(p, "'%.*s' outside of a loop", (int)word->len, word->s);
        return tmpl_node(p, token_is(word, "break") ? S_BREAK : S_CONTINUE);
    }
    static const char *const others[] = {"include",    "import", "from", "extends",
                                         "autoescape", "do",     "trans"};
    p->tok = word;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (token_is(word, others[i]))
            tmpl_syntax(p, "{%% %s %%} is not supported in chat templates", others[i]);
    tmpl_syntax(p, "Encountered unknown tag '%.*s'.", word->len > 40 ? 40 : (int)word->len,
                word->s);
}

static const char *const *parse_statements(struct tparser *p, struct tnode *parent,
                                           struct tnode ***list, uint32_t *n,
                                           const char *const *ends)
{
    for (;;) {
        struct tnode *item = NULL;
        switch (p->tok->type) {
        case T_DATA:
            item = tmpl_node(p, S_TEXT);
            item->value = tv_str(p->tok->s, p->tok->len, true);
            p->tok++;
            break;
        case T_VAR_BEGIN:
            item = tmpl_node(p, S_OUTPUT);
            p->tok++;
            item->a = tmpl_parse_tuple(p, true, NULL);
            tmpl_depth(p, item, item->a);
            tmpl_expect(p, T_VAR_END, "'}}'");
            break;
        case T_BLOCK_BEGIN:
            p->tok++;
            for (const char *const *end = ends; *end != NULL; end++)
                if (tmpl_skip_name(p, *end))
                    return end;
            item = parse_statement(p);
            tmpl_depth(p, item, item->a);
            tmpl_depth(p, item, item->b);
            tmpl_expect(p, T_BLOCK_END, "'%}'");
            break;
        default:
            if (*ends != NULL)
                tmpl_syntax(p, "Unexpected end of template: looking for '%s'.", *ends);
            return NULL;
        }
        tmpl_depth(p, parent, item);
        tmpl_list_push(p, list, n, item);
    }
}

void tmpl_parse_body(struct tparser *p, struct ttoken *tokens)
{
    static const char *const known[SYM_KNOWN] = {"loop",      "caller",    "varargs", "kwargs",
                                                 "bos_token", "eos_token", "messages"};
    static const char *const none[] = {NULL};
    p->tok = tokens;
    for (int i = 0; i < SYM_KNOWN; i++)
        tmpl_symbol(p, known[i], strlen(known[i]));
    struct tnode *root = tmpl_node(p, S_SCOPE);
    parse_statements(p, root, &p->t->body, &p->t->n_body, none);
}
