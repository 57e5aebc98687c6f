/* The compiled grammars of an engine's requests: equal texts are one, and what it has learned
 * (states, masks) stays for a while after the last request that used it.
 *
 * Bounded: at most GRAMMARS_MAX that nobody uses, GRAMMARS_BYTES_MAX of them, the oldest go first;
 * those in use forget what they have learned when together they hold more than twice that.
 * Owner and thread: the engine's loop thread.
 */
#ifndef ENGINE_GRAMMARS_H
#define ENGINE_GRAMMARS_H

#include "proto/messages.h"
#include "tokenizer/grammar/grammar.h"

#define GRAMMARS_MAX 64
#define GRAMMARS_BYTES_MAX (256u << 20)

struct grammars;
struct grammar_use; /* one grammar, counted */

/* `vocab` NULL: no request may ask for a grammar. It must outlive the object. */
struct grammars *grammars_create(const struct grammar_vocab *vocab);
void grammars_destroy(struct grammars *g); /* nothing may be in use */
/* ST_INVALID: wrong, not supported, or there is no vocabulary. Compiles where it is new: bounded,
 * most take less than a millisecond. */
enum status grammars_take(struct grammars *g, const struct msg_grammar *what,
                          struct grammar_use **out, struct error *err);
void grammars_give(struct grammars *g, struct grammar_use *use);
struct grammar_run *grammars_run(struct grammar_use *use);
/* Once before a step: keeps what the runs remember within bounds. */
void grammars_tidy(struct grammars *g);

#endif
