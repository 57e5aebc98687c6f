/* The parsed form of a chat template. Private to template*.c.
 *
 * An immutable tree in the template's own arena: strings and nodes are freed together. Names are
 * interned, so that the run compares symbols. `depth` of a node is the height of the tree under it,
 * bounded at parse time, which bounds the recursion of everything that walks it.
 */
#ifndef TOKENIZER_TEMPLATE_AST_H
#define TOKENIZER_TEMPLATE_AST_H

#include "tokenizer/template.h"
#include "tokenizer/template/run.h"

/* clang-format off */
enum tnode_type {
    N_CONST, N_NAME, N_ATTR, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_NOT, N_NEG, N_POS,
    N_AND, N_OR, N_ADD, N_BINARY, N_CONCAT, N_COMPARE, N_COND, N_LIST, N_TUPLE, N_DICT,
    N_NSREF, S_TEXT, S_OUTPUT, S_FOR, S_IF, S_SET, S_SETBLOCK, S_MACRO, S_CALL, S_FILTER,
    S_WITH, S_SCOPE, S_BREAK, S_CONTINUE
};
enum toperator {
    OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW, OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT,
    OP_GE, OP_IN, OP_NOTIN
};
/* clang-format on */

/* Symbols that the run knows by name, interned first and in this order. */
enum { SYM_LOOP, SYM_CALLER, SYM_VARARGS, SYM_KWARGS, SYM_BOS, SYM_EOS, SYM_MESSAGES, SYM_KNOWN };

struct tnode {
    uint8_t type, op;
    bool flag; /* S_FOR: recursive; S_MACRO: uses caller */
    bool varargs, kwargs;
    uint16_t depth;
    uint32_t line, sym;
    struct tnode *a, *b, *c;
    struct tnode **list,
        **list2; /* children; S_MACRO: list = parameters' defaults (NULL: none), list2 = body */
    uint32_t n, n2;
    uint32_t *syms; /* S_MACRO, S_CALL: parameters */
    struct tcall *call;
    const void *fn;    /* N_ATTR: tmethod; N_FILTER: tfilter; N_TEST: ttest */
    struct tval value; /* N_CONST, S_TEXT; N_ATTR, N_FILTER, N_TEST, N_NSREF: the name */
    uint8_t *ops;      /* N_COMPARE */
};
struct tcall {
    struct tnode **pos;
    uint32_t n;
    struct tkeyword {
        const char *name;
        size_t len;
        struct tnode *v;
    } * kw;
    uint32_t n_kw;
    struct tnode *star, *starstar;
};

struct chat_template {
    struct trun memory; /* only its arena and failure exit are used */
    const char **names; /* by symbol */
    size_t *name_lens;
    uint32_t n_names, cap_names;
    uint32_t *name_index;
    uint32_t name_index_cap;
    struct tnode **body;
    uint32_t n_body;
};

/* eval.c, exec.c */
struct tval tmpl_eval(struct trun *r, const struct tnode *n);
void tmpl_exec(struct trun *r, struct tnode *const *body, uint32_t n);
struct tval tmpl_call(struct trun *r, const struct tval *f, struct targs *a);
struct tval tmpl_call_macro(struct trun *r, const struct tmacro *m, struct targs *a);
struct tval tmpl_call_loop(struct trun *r, struct tloop *loop, const struct tval *items);
struct tval tmpl_apply_filter(struct trun *r, const struct tnode *n, struct tval in);
struct tval tmpl_getattr(struct trun *r, const struct tval *o, const struct tval *name,
                         const void *method);
struct tval tmpl_getitem(struct trun *r, const struct tval *o, const struct tval *key);
struct tval tmpl_binary(struct trun *r, enum toperator op, const struct tval *a,
                        const struct tval *b);
struct tval tmpl_add(struct trun *r, const struct tval *a, const struct tval *b);
void tmpl_bind(struct trun *r, struct tscope *s, uint32_t sym, struct tval v);
struct tscope *tmpl_scope(struct trun *r, struct tscope *parent);

struct tmacro {
    const struct tnode *node; /* S_MACRO, or S_CALL for a caller() */
    struct tscope *scope;
    struct tval name;
};
struct tloop {
    const struct tnode *node;
    struct tscope *outer;
    struct tval *items; /* without a test all of them; with one, those found so far */
    size_t n, i;
    struct tval *raw; /* what the loop's `if` has not looked at yet */
    size_t raw_n;
    int depth0;
    struct tval last_changed; /* a tuple, or missing */
};
bool tmpl_loop_has(struct trun *r, struct tloop *loop, size_t i); /* is there an i-th item? */
#endif
