/* The inside of a run: the pushdown automaton made deterministic step by step, as states are met.
 *
 * A state is a set of items (automaton state, context). A context is what is to be done when a
 * rule ends: a set of frames (the call that was made, which repetition it is, the context of the
 * caller); all calls of one rule at one place share a context, so sets stay small however
 * ambiguous the grammar is (Tomita's graph-structured stack; Earley's sets by another name).
 * Contexts and states are interned: equal ones are one, named by an index, and a state's next
 * state by byte class is a table look-up once it has been worked out.
 *
 * Masks are remembered per state, and shared by states that no token can tell apart: a pattern
 * holds the items and, of their contexts, only what the walk over the vocabulary looked at, with
 * repetition counts only as far as a token could count. Only this folder's files include it.
 */
#ifndef TOKENIZER_GRAMMAR_RUN_H
#define TOKENIZER_GRAMMAR_RUN_H

#include "tokenizer/grammar/automaton.h"
#include "tokenizer/grammar/grammar.h"
#include "tokenizer/grammar/vocab.h"

#define RUN_UNKNOWN 0u
#define RUN_DEAD 1u
#define RUN_BEGIN 2u
#define RUN_CALL_ROOT UINT32_MAX /* the frame behind the whole sentence */

struct run_item {
    uint32_t state, context;
};
struct run_frame {
    uint32_t call, count, context; /* count: of the repetition under way, from 1 */
};
struct run_context {
    uint32_t frames, n_frames;
    uint32_t touched; /* number of the walk that looked into it */
};
struct run_state {
    uint32_t items, n_items;
    uint32_t mask;  /* index + 1; 0: not known */
    uint32_t stamp; /* of the walk that met it */
    bool complete;
};

struct run_table { /* open addressing over indices; index + 1, 0 free */
    uint32_t *slots;
    uint32_t n_slots, n;
};

struct run_pattern {
    uint32_t next; /* of the same bucket; index + 1 */
    uint32_t words, n_words;
    uint32_t mask;
};

#define RUN_BUCKETS 1024u
struct grammar_run {
    const struct grammar *g;
    const struct grammar_vocab *vocab;
    uint32_t epoch;
    size_t state_bytes_max, mask_bytes_max;

    struct run_item *items;
    struct run_frame *frames;
    struct run_context *contexts;
    struct run_state *states;
    uint32_t *next; /* [states][classes] */
    uint32_t n_items, cap_items, n_frames, cap_frames, n_contexts, cap_contexts;
    uint32_t n_states, cap_states;
    size_t cap_next;
    struct run_table context_table, state_table;

    /* scratch of one step */
    struct run_item *work, *kept;
    uint32_t n_work, cap_work, n_kept, cap_kept;
    struct {
        struct run_frame *v;
        uint32_t n, cap;
    } * pending;        /* [rules] calls made at this place */
    size_t cap_pending; /* of all rules together */
    uint64_t *due;      /* a bit per rank */
    uint32_t *seen;     /* table over work: index + 1 */
    uint32_t seen_slots;
    uint64_t spent; /* items and calls looked at for one mask, or one token: bounds the time */

    /* masks */
    uint64_t **masks;
    uint32_t n_masks, cap_masks, mask_words;
    uint32_t walk;  /* number of the walk over the vocabulary */
    uint32_t *path; /* [depth_max + 1] states on the way down the trie */
    uint32_t *met;  /* states of this walk */
    uint32_t n_met, cap_met;
    uint32_t *to_touch;
    uint32_t cap_to_touch;
    struct run_pattern *patterns;
    uint32_t n_patterns, cap_patterns;
    uint32_t *words;
    uint32_t n_words, cap_words;
    uint32_t buckets[RUN_BUCKETS];
    struct grammar_run_stats stats;
};

bool run_grow(void **v, uint32_t *cap, uint64_t want, size_t bytes);
size_t run_known_bytes(const struct grammar_run *r); /* of states and masks: what bounds hold */
/* run_step.c: the state behind `byte`, which has to be worked out; false: out of bounds or memory.
 */
bool run_make_next(struct grammar_run *r, uint32_t state, uint8_t byte, uint32_t *out);
bool run_make_begin(struct grammar_run *r);
static inline bool run_next(struct grammar_run *r, uint32_t state, uint8_t byte, uint32_t *out)
{
    *out = r->next[(size_t)state * r->g->n_classes + r->g->classes[byte]];
    return *out != RUN_UNKNOWN || run_make_next(r, state, byte, out);
}
/* run_intern.c. The frames and items are sorted by these and freed of doubles. */
bool run_intern_context(struct grammar_run *r, struct run_frame *v, uint32_t n, uint32_t *out);
bool run_intern_state(struct grammar_run *r, bool complete, uint32_t *out); /* of r->kept */
bool run_add_state(struct grammar_run *r, bool complete, uint32_t *out);    /* in no table */
void run_forget_states(struct grammar_run *r);
/* mask.c */
void run_forget_masks(struct grammar_run *r);
/* mask_pattern.c: UINT32_MAX: none. */
uint32_t run_find_pattern(struct grammar_run *r, uint32_t state);
/* One that differs in counts only: the masks agree on all tokens of at most *alike bytes. Notes
 * what it has looked at as looked at by this walk. */
uint32_t run_find_similar(struct grammar_run *r, uint32_t state, uint32_t *alike);
void run_keep_pattern(struct grammar_run *r, uint32_t state, uint32_t mask);

#endif
