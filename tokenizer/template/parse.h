/* From source to tree: the lexer's tokens and the parser's state. Private to template*.c.
 *
 * The source is cut into tokens as a whole, then parsed by recursive descent. Nesting is bounded on
 * the way down, the height of the tree on the way up; both fail with the line and the reason.
 */
#ifndef TOKENIZER_TEMPLATE_PARSE_H
#define TOKENIZER_TEMPLATE_PARSE_H

#include "tokenizer/template/ast.h"

enum {
    TMPL_DEPTH_MAX = 200,      /* height of the tree */
    TMPL_NEST_MAX = 200,       /* blocks and brackets that are open at once */
    TMPL_SOURCE_MAX = 4 << 20, /* bytes */
    TMPL_NODES_MAX = 1 << 20
};

/* clang-format off */
enum ttoken_type {
    T_EOF, T_DATA, T_VAR_BEGIN, T_VAR_END, T_BLOCK_BEGIN, T_BLOCK_END, T_NAME, T_STR, T_INT,
    T_REAL, T_ADD, T_SUB, T_MUL, T_DIV, T_FLOORDIV, T_MOD, T_POW, T_TILDE, T_LBRACKET,
    T_RBRACKET, T_LPAREN, T_RPAREN, T_LBRACE, T_RBRACE, T_EQ, T_NE, T_GT, T_GE, T_LT, T_LE,
    T_ASSIGN, T_DOT, T_COLON, T_PIPE, T_COMMA, T_SEMICOLON
};
/* clang-format on */
struct ttoken {
    uint8_t type;
    uint32_t line;
    const char *s;
    size_t len;
    int64_t i;
    double f;
};

/* lex.c: cuts the whole source into tokens, with whitespace control already applied. */
struct ttoken *tmpl_lex(struct trun *r, const char *text, size_t len, size_t *n);
/* Bytes of the white space character at s; 0 when it is none. */
size_t tmpl_space_at(const char *s, size_t len);
size_t tmpl_trim_left(const char *s, size_t len);  /* bytes of leading white space */
size_t tmpl_trim_right(const char *s, size_t len); /* length without trailing white space */

/* parse.c and parse_expr.c */
struct tparser {
    struct trun *r;
    struct chat_template *t;
    struct ttoken *tok; /* current */
    int nest, conditional, loops;
    uint32_t nodes;
    struct tnode *macro; /* whose body is being parsed */
};
void tmpl_parse_body(struct tparser *p, struct ttoken *tokens);
struct tnode *tmpl_node(struct tparser *p, enum tnode_type type);
void tmpl_depth(struct tparser *p, struct tnode *n, const struct tnode *child);
uint32_t tmpl_symbol(struct tparser *p, const char *s, size_t len);
bool tmpl_at_name(const struct tparser *p, const char *name);
bool tmpl_skip_name(struct tparser *p, const char *name);
bool tmpl_skip(struct tparser *p, enum ttoken_type type);
struct ttoken *tmpl_expect(struct tparser *p, enum ttoken_type type, const char *what);
_Noreturn void tmpl_syntax(struct tparser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
struct tnode *tmpl_parse_expr(struct tparser *p, bool conditional);
/* `stop`: a name that ends the tuple ("in", "recursive"), or NULL. */
struct tnode *tmpl_parse_tuple(struct tparser *p, bool conditional, const char *stop);
struct tnode *tmpl_parse_target(struct tparser *p, bool namespaces, const char *stop);
struct tnode *tmpl_parse_filters(struct tparser *p, struct tnode *node, bool inline_start);
void tmpl_list_push(struct tparser *p, struct tnode ***list, uint32_t *n, struct tnode *item);

#endif
