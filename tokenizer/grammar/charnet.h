/* Automata over characters, for patterns and the keys and strings of schemas: nondeterministic,
 * without empty moves, state 0 the beginning. They can be intersected and made deterministic, and
 * in the end are laid out as bytes in a builder. Only this folder's files include it.
 *
 * A state accepts with a set of bits: of several patterns in one automaton each has its own.
 * Owner: whoever made one frees it with charnet_fini(). Errors go to the builder (struct builder's
 * sticky status), which every function takes for that.
 */
#ifndef TOKENIZER_GRAMMAR_CHARNET_H
#define TOKENIZER_GRAMMAR_CHARNET_H

#include "tokenizer/grammar/build.h"
#include "tokenizer/grammar/chars.h"

#define CHARNET_STATES_MAX 60000u
#define CHARNET_EDGES_MAX 600000u
#define CHARNET_PATTERNS_MAX 31

struct charnet_edge {
    uint32_t from, to;
    struct char_range chars;
};
struct charnet {
    struct charnet_edge *edges; /* grouped by `from` once sealed */
    uint32_t *first;            /* [n_states + 1] once sealed */
    uint32_t *accept;           /* [n_states] bits */
    uint32_t n_states, n_edges, cap_states, cap_edges;
};

void charnet_fini(struct charnet *c);
uint32_t charnet_state(struct charnet *c, struct builder *b);
void charnet_edge(struct charnet *c, struct builder *b, struct charnet_edge edge);
void charnet_seal(struct charnet *c, struct builder *b);

/* regex_parse.c. `search`: the pattern may match anywhere (JSON Schema), else
 * the whole text must match. `what`: names the pattern in messages ("/properties/a/pattern").
 * ST_INVALID and ST_UNSUPPORTED with the byte offset. */
struct charnet_pattern {
    const char *text;
    size_t len;
    bool search;
    const char *what;
};
void charnet_compile(struct builder *b, const struct charnet_pattern *p, struct charnet *out);
/* Accepts each of the texts (valid UTF-8) and nothing else. */
void charnet_add_text(struct charnet *c, struct builder *b, const char *text, size_t len);
/* Strings of min to max characters (GRAMMAR_UNBOUNDED: no limit). */
void charnet_make_length(struct charnet *c, struct builder *b, struct build_repeat length);
/* What both accept. */
void charnet_intersect(const struct charnet *a, const struct charnet *b, struct builder *build,
                       struct charnet *out);
/* One complete deterministic automaton: a state's bit k is set when parts[k] accepts there. */
void charnet_combine(const struct charnet *parts, size_t n, struct builder *b, struct charnet *out);
bool charnet_accepts(const struct charnet *c, struct builder *b, const char *text, size_t len);

/* Lays it out from builder state `from`; behind an accepting state an empty move leads to
 * exits[bits] where that is not UINT32_MAX. `json`: as the inside of a JSON string: characters
 * that need an escape have one, others stand for themselves. */
struct charnet_layout {
    uint32_t from;
    bool json;
    uint32_t (*exit)(void *ctx, uint32_t bits);
    void *ctx;
};
void charnet_lay_out(const struct charnet *c, struct builder *b, const struct charnet_layout *l);
/* The same with one exit for any bits. */
void charnet_lay_out_to(const struct charnet *c, struct builder *b, uint32_t from, uint32_t to,
                        bool json);

#endif
