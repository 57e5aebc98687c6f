/* The workshop of the grammar compilers: nondeterministic states with empty moves, byte ranges and
 * calls, put together piece by piece and then finished into a struct grammar. Only this folder's
 * files include it.
 *
 * Errors are sticky: the first one (a bound passed, no memory) is kept in `status` and *err, and
 * from then on everything returns state 0 and does nothing, so that compilers check once per
 * construct.
 *
 *     struct builder b = {.err = err};
 *     uint32_t r = build_rule(&b, "root");
 *     uint32_t at = build_text(&b, b.rules[r].start, "yes", 3);
 *     build_eps(&b, at, b.rules[r].end);
 *     st = build_finish(&b, r, &grammar);
 */
#ifndef TOKENIZER_GRAMMAR_BUILD_H
#define TOKENIZER_GRAMMAR_BUILD_H

#include "base/status.h"
#include "tokenizer/grammar/automaton.h"

#define BUILD_STATES_MAX 400000u
#define BUILD_EDGES_MAX 1200000u
#define BUILD_RULES_MAX 50000u
#define BUILD_NAME_BYTES 64
#define BUILD_PATTERN_STEPS_MAX 12000000u /* of all patterns together: bounds the time */
#define BUILD_COMPARED_PER_STEP 8         /* moves: each is cheap */

enum build_kind { BUILD_EPS, BUILD_BYTES, BUILD_CALL };
struct build_edge {
    uint32_t next; /* of the same state; 0: the last */
    uint32_t to;
    uint32_t rule, min, max;
    uint8_t kind, lo, hi;
};
struct build_rule {
    uint32_t start, end;
    const void *about;           /* the node of the document that it is of, NULL: none */
    char name[BUILD_NAME_BYTES]; /* for messages */
};
struct builder {
    struct build_edge *edges; /* the first one is never used */
    uint32_t *heads;          /* of each state: its first edge */
    struct build_rule *rules;
    uint32_t n_edges, cap_edges, n_states, cap_states, n_rules, cap_rules;
    uint32_t pattern_steps;
    enum status status;
    struct error *err;
    const bool *spelled; /* [256] bytes that there are; NULL: all */
    const void *dead;    /* what build_finish() found that nothing can match: an `about` */
};

/* A range of code points, both ends included. */
struct char_range {
    uint32_t lo, hi;
};

void build_fini(struct builder *b);
enum status build_fail(struct builder *b, enum status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void build_spend(struct builder *b, uint32_t steps); /* on a pattern */
uint32_t build_state(struct builder *b);
uint32_t build_rule(struct builder *b, const char *name);
/* A rule of states that are there. */
uint32_t build_rule_of(struct builder *b, uint32_t start, uint32_t end, const char *name);
void build_eps(struct builder *b, uint32_t from, uint32_t to);
void build_bytes(struct builder *b, uint32_t from, uint32_t to, struct ga_range bytes);
struct build_repeat {
    uint32_t min, max;
};
void build_call(struct builder *b, uint32_t from, uint32_t to, uint32_t rule,
                struct build_repeat times);
/* A call once; returns the state behind it. */
uint32_t build_call_once(struct builder *b, uint32_t from, uint32_t rule);
/* One byte, or a run of them; return the state behind. */
uint32_t build_byte(struct builder *b, uint32_t from, uint8_t byte);
uint32_t build_text(struct builder *b, uint32_t from, const char *text, size_t len);
/* Any one of the characters, as UTF-8; surrogates are left out. */
void build_chars(struct builder *b, uint32_t from, uint32_t to, const struct char_range *ranges,
                 size_t n);

/* finish.c: takes what was built apart. ST_INVALID: nothing matches, left recursion;
 * ST_UNSUPPORTED: too large. */
enum status build_finish(struct builder *b, uint32_t root, struct grammar **out);
/* trim.c: the second half of it: drops what cannot lead to an end, ranks the rules. */
enum status grammar_trim(struct builder *b, struct grammar *g);

#endif
