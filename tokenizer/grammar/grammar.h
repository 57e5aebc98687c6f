/* Constrained output: a grammar, schema or pattern compiled to a byte-level automaton, and the
 * masks over a vocabulary that keep a model's output inside it.
 *
 *   struct grammar        what text may be said; immutable, any thread
 *   struct grammar_vocab  the tokens' bytes as a trie, made once per tokenizer; immutable
 *   struct grammar_run    both together, with what has been worked out so far; one thread
 *   struct grammar_state  where one sequence is: 8 bytes, copied by assignment
 *
 * Masks are exact: a token is allowed when, and only when, some sentence continues with its bytes.
 * (A vocabulary that has some byte in longer tokens only may still end in a state where no token is
 * allowed: ST_UNSUPPORTED.) End-of-text tokens are not in the mask: they are allowed when
 * grammar_is_complete().
 *
 * A run works states out when they are first met and keeps them within a bound; when it has to
 * forget them, states of before are stale (grammar_is_stale()) and are made again by
 * grammar_replay() from the ids that were said.
 *
 *     st = grammar_compile(GRAMMAR_JSON_SCHEMA, text, len, &g, &err);
 *     st = grammar_run_create(g, vocab, &run, &err);
 *     struct grammar_state at = grammar_begin(run);
 *     st = grammar_mask(run, &at, &mask, &err);     choose an id whose bit is set
 *     st = grammar_accept(run, &at, id, &err);
 */
#ifndef TOKENIZER_GRAMMAR_GRAMMAR_H
#define TOKENIZER_GRAMMAR_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

#define GRAMMAR_TEXT_MAX (256u << 10)
#define GRAMMAR_LEAD_MAX (4u << 10)

enum grammar_kind {
    GRAMMAR_NONE,
    GRAMMAR_JSON_OBJECT, /* any JSON object; the text is not looked at */
    GRAMMAR_JSON_SCHEMA,
    GRAMMAR_REGEX,     /* the whole output matches */
    GRAMMAR_GBNF,      /* the dialect of llama.cpp, rule "root" */
    GRAMMAR_CHOICE,    /* a JSON array of strings: one of them */
    GRAMMAR_STRUCTURE, /* a JSON tree of literals, schemas and patterns: structure.c */
    GRAMMAR_KINDS
};

struct grammar;
/* ST_INVALID: the text is wrong; ST_UNSUPPORTED: it is right but not supported, or too large. The
 * error names the place: a JSON pointer for schemas, line and column for GBNF, a byte offset for
 * patterns; what is too large as a whole has none. Bounded in time (some tenths of a second at
 * worst, usually below a millisecond), memory and depth. */
enum status grammar_compile(enum grammar_kind kind, const char *text, size_t len,
                            struct grammar **out, struct error *err);
void grammar_free(struct grammar *g);
size_t grammar_bytes(const struct grammar *g); /* memory it takes */
const char *grammar_kind_name(enum grammar_kind kind);

struct grammar_vocab;
/* The same for one vocabulary: what needs a byte that no token has is left out, so that nothing
 * leads there. */
enum status grammar_compile_for(const struct grammar_vocab *v, enum grammar_kind kind,
                                const char *text, size_t len, struct grammar **out,
                                struct error *err);
/* `size`: ids a mask covers (the model's logits). Ids in `ends` and special tokens stand for no
 * text. */
struct grammar_vocab_args {
    const struct tokenizer *tokenizer;
    int32_t size;
    const int32_t *ends;
    int32_t n_ends;
};
enum status grammar_vocab_create(const struct grammar_vocab_args *args, struct grammar_vocab **out,
                                 struct error *err);
void grammar_vocab_free(struct grammar_vocab *v);
int32_t grammar_vocab_size(const struct grammar_vocab *v);

/* A grammar behind something else: the first `lead` bytes of the text are a structure that comes
 * first, what follows is the grammar itself. */
struct grammar_source {
    enum grammar_kind kind;
    const char *text;
    size_t len, lead;
};
enum status grammar_compile_source(const struct grammar_vocab *v, const struct grammar_source *s,
                                   struct grammar **out, struct error *err);

struct grammar_run;
struct grammar_state {
    uint32_t epoch, at;
};
/* `vocab` may be NULL: then only bytes are accepted. Both must outlive the run. */
enum status grammar_run_create(const struct grammar *g, const struct grammar_vocab *vocab,
                               struct grammar_run **out, struct error *err);
void grammar_run_free(struct grammar_run *run);
/* Bounds of what a run keeps; for tests. */
void grammar_run_bound(struct grammar_run *run, size_t state_bytes, size_t mask_bytes);
size_t grammar_run_bytes(const struct grammar_run *run); /* memory it takes, scratch and all */

/* States and masks handed out before it may be stale after it; call it between steps only. */
void grammar_run_tidy(struct grammar_run *run);
void grammar_run_forget(struct grammar_run *run); /* everything; its memory goes back */
bool grammar_is_stale(const struct grammar_run *run, const struct grammar_state *s);
struct grammar_state grammar_begin(struct grammar_run *run);
/* From the beginning through `n` ids. */
enum status grammar_replay(struct grammar_run *run, const int32_t *ids, size_t n,
                           struct grammar_state *out, struct error *err);
/* ST_INVALID: not allowed here, *s is as before; ST_UNSUPPORTED: too ambiguous to follow. */
enum status grammar_accept(struct grammar_run *run, struct grammar_state *s, int32_t id,
                           struct error *err);
enum status grammar_accept_bytes(struct grammar_run *run, struct grammar_state *s,
                                 const char *bytes, size_t len, struct error *err);
/* What has been said is a sentence. */
bool grammar_is_complete(const struct grammar_run *run, const struct grammar_state *s);
/* Nothing can follow: a complete sentence that no other begins with. */
bool grammar_is_over(const struct grammar_run *run, const struct grammar_state *s);
/* Bit id % 64 of word id / 64: the token may follow. Read-only, valid until the next
 * grammar_run_tidy(). ST_UNSUPPORTED: too ambiguous to follow in a tenth of a second or two, or no
 * token can follow. */
enum status grammar_mask(struct grammar_run *run, const struct grammar_state *s,
                         const uint64_t **out, struct error *err);
static inline bool grammar_mask_has(const uint64_t *mask, int32_t id)
{
    return mask[id / 64] >> (id % 64) & 1;
}

struct grammar_run_stats {
    uint64_t states, masks, masks_made, masks_found, forgotten;
};
void grammar_run_stats(const struct grammar_run *run, struct grammar_run_stats *out);

#endif
