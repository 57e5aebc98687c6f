/* The schema compiler's inside, shared by the files of this folder and by nothing else.
 *
 * What a value has to fulfil is a conjunction: a list of schema objects of the document, in the
 * order in which they were met. It becomes a rule; equal lists are one rule, so recursion ends.
 * A list is `open` as it is collected (from properties and items), and expanded into alternatives
 * that are closed: references followed, allOf merged, one branch of each anyOf and oneOf taken.
 * Rules wait in a queue, so that nesting takes no stack.
 */
#ifndef TOKENIZER_GRAMMAR_SCHEMA_H
#define TOKENIZER_GRAMMAR_SCHEMA_H

#include "tokenizer/grammar/charnet.h"
#include "tokenizer/grammar/compile.h"

#define SCHEMA_NODES_MAX 500         /* in one conjunction */
#define SCHEMA_ALTERNATIVES_MAX 5000 /* in the whole document, steps to them included */
#define SCHEMA_DEPTH_MAX 100
#define SCHEMA_MADE_MAX 500
#define SCHEMA_MADE_BYTES_MAX (2u << 20)
/* Keywords of rewritten schemas only: strings that do not match, or are none of these. */
#define SCHEMA_NOT_PATTERN "\x01not-pattern"
#define SCHEMA_NOT_VALUES "\x01not-values"

struct conj {
    const json **v;
    uint32_t n, cap;
    bool never; /* `false` is among them: nothing fulfils it */
};

struct schema_rule {
    uint32_t rule;
    bool closed, done;
    struct conj conj;
};

struct schema_made { /* what a keyword of a node was rewritten to */
    const json *node;
    const char *key;
    json *groups;
};

struct schema {
    struct builder *b;
    const json *root;
    const char *where;
    bool ref_alone; /* drafts up to 7: beside $ref other keywords do not count */
    struct schema_rule *rules;
    uint32_t n_rules, cap_rules, n_done;
    uint32_t *slots, n_slots;
    uint32_t alternatives, checks, looked_at;
    bool resources_known, has_resources; /* documents within the document */
    struct schema_made *made;
    uint32_t n_made;
    size_t made_bytes;
    struct conj exclusive; /* nodes whose oneOf is known to be an anyOf */
    /* shared rules, UINT32_MAX: not built yet */
    uint32_t space, value, object, array, string, character;
};

enum schema_type {
    TYPE_NULL = 1,
    TYPE_BOOL = 2,
    TYPE_INTEGER = 4,
    TYPE_FRACTION = 8, /* numbers that need not be integers */
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ALL = 127
};

/* schema.c */
void schema_fail(struct schema *s, enum status status, const json *at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void conj_add(struct schema *s, struct conj *c, const json *node);
void conj_fini(struct conj *c);
bool conj_requires(const struct conj *c, const char *name); /* a node's "required" lists it */
/* The rule of a conjunction, whose nodes it copies; UINT32_MAX: nothing fulfils it. */
uint32_t schema_rule(struct schema *s, const struct conj *c);
/* From `from` optional white space; returns the state behind. */
uint32_t schema_space(struct schema *s, uint32_t from);

/* expand.c: calls `emit` with every closed alternative. */
struct schema_emit {
    void (*emit)(struct schema *s, const struct conj *closed, void *ctx);
    void *ctx;
};
void schema_expand(struct schema *s, const struct conj *open, const struct schema_emit *emit);
/* The first alternative, without its anyOf and oneOf groups. */
void schema_expand_flat(struct schema *s, const json *node, struct conj *out);
const json *schema_resolve(struct schema *s, const json *at, const char *ref);
/* keywords.c: refuses what is not supported. */
void schema_check_keywords(struct schema *s, const json *node);
unsigned schema_types(struct schema *s, const json *node); /* TYPE_ALL where it does not say */
bool schema_is_assertion(const char *key);                 /* restricts values: is no annotation */
/* rewrite.c: an array of groups, in each of which one schema has to hold; NULL: an error. Keys:
 * not, if, dependentRequired, dependentSchemas, dependencies, oneOf. */
const json *schema_rewrite(struct schema *s, const json *node, const char *key);
bool schema_can_negate(struct schema *s, const json *schema, int depth);
/* contradict.c: nothing can fulfil the closed nodes; those before `from` were looked at. */
bool schema_contradicts(struct schema *s, const struct conj *c, uint32_t from);
/* disjoint.c */
bool schema_disjoint(struct schema *s, const json *a, const json *b, int depth);

/* One file each: values of a type that fulfil a closed conjunction, from state to state. */
struct span {
    uint32_t from, to;
};
void schema_put_string(struct schema *s, const struct conj *c, struct span at);
void schema_put_number(struct schema *s, const struct conj *c, struct span at, bool integer);
void schema_put_object(struct schema *s, const struct conj *c, struct span at);
void schema_put_array(struct schema *s, const struct conj *c, struct span at);
void schema_put_constant(struct schema *s, const json *value, struct span at);
/* What strings have to fulfil, as one automaton; false: nothing but the (shared) length of `*times`
 * restricts them. */
bool schema_string_net(struct schema *s, const struct conj *c, struct charnet *out,
                       struct build_repeat *times);
/* charnet_compile() with the node named in its messages. */
void schema_pattern(struct schema *s, const json *node, const struct charnet_pattern *p,
                    struct charnet *out);
const char *schema_format_pattern(const char *format); /* NULL: not restricted */
/* any.c: rules without restriction */
uint32_t schema_any_value(struct schema *s);
uint32_t schema_any_object(struct schema *s);
uint32_t schema_any_array(struct schema *s);
uint32_t schema_any_string(struct schema *s);
uint32_t schema_any_character(struct schema *s);
void schema_put_any_number(struct schema *s, struct span at, bool integer);

/* check.c: true when the value fulfils the node (of supported keywords). */
bool schema_check_unlisted(struct schema *s, const json *node, const json *value,
                           int depth); /* but for the node's own const and enum */
bool schema_check(struct schema *s, const json *node, const json *value, int depth);
unsigned schema_type_of_value(const json *v);
bool schema_same_value(const json *a, const json *b);
int64_t schema_count(struct schema *s, const json *node, const char *key, int64_t fallback);
int64_t schema_length(const json *string); /* in characters */

#endif
