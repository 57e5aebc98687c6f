/* What a grammar is compiled to: rules of byte-level states that may call other rules, a pushdown
 * automaton. It is immutable, free of empty moves, and every state of it can reach the end: what
 * has not been refused yet can be completed. Only this folder's files include it.
 *
 * A state has ranges (a byte within lo..hi leads on; where determinisation was too dear, ranges
 * overlap) and calls (`rule`, min to max times over, then on; max UINT32_MAX: without bound).
 * What is nullable is skipped by a move of its own, so a call that was entered consumes a byte.
 * Rules are ranked: one that another can call before it has consumed anything has a higher rank.
 */
#ifndef TOKENIZER_GRAMMAR_AUTOMATON_H
#define TOKENIZER_GRAMMAR_AUTOMATON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRAMMAR_UNBOUNDED UINT32_MAX
/* Begins and ends the name of a special token: no byte of UTF-8. */
#define GRAMMAR_SPECIAL_BYTE 0xff

struct ga_range {
    uint8_t lo, hi;
    uint32_t to;
};
struct ga_call {
    uint32_t rule, min, max, to;
};
struct ga_state {
    uint32_t ranges, n_ranges; /* into the grammar's */
    uint32_t calls, n_calls;
    bool accept;   /* the rule may end here */
    bool may_exit; /* a byte leads to a state that accepts */
    bool is_end;   /* accepts and leads nowhere */
};
struct ga_rule {
    uint32_t start;
    uint32_t rank;
};

struct grammar {
    struct ga_state *states;
    struct ga_range *ranges;
    struct ga_call *calls;
    struct ga_rule *rules;
    uint32_t *by_rank; /* rules in the order of their rank */
    uint32_t n_states, n_ranges, n_calls, n_rules;
    uint32_t root;
    bool nullable;        /* nothing at all is a sentence too */
    uint8_t classes[256]; /* bytes that no range tells apart have one class */
    uint32_t n_classes;
};

#endif
