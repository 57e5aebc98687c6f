/* The compiled grammars of an engine's requests: equal texts are one, and what it has learned
 * (states, masks) stays for a while after the last request that used it.
 *
 * Compiling is most of the work and has nothing to do with the rest: a draft can be compiled by
 * another thread and entered when it comes back.
 *
 *     d = grammars_draft(g, what);     // loop
 *     grammar_draft_compile(d);        // any thread, one at a time
 *     use = grammars_enter(g, d);      // loop; grammars_take() finds it from here on
 *
 * Bounded: at most GRAMMARS_MAX that nobody uses, GRAMMARS_BYTES_MAX of them, the oldest go first;
 * those in use forget what they have learned when together they hold more than twice that.
 * Owner and thread: the engine's loop thread, but for grammar_draft_compile().
 */
#ifndef ENGINE_GRAMMARS_H
#define ENGINE_GRAMMARS_H

#include "proto/messages.h"
#include "tokenizer/grammar/grammar.h"

#define GRAMMARS_MAX 64
#define GRAMMARS_BYTES_MAX (256u << 20)

struct grammars;
struct grammar_use;   /* one grammar, counted */
struct grammar_draft; /* one that is not compiled yet; whoever holds it owns it */

/* `vocab` NULL: no request may ask for a grammar. It must outlive the object. */
struct grammars *grammars_create(const struct grammar_vocab *vocab);
void grammars_destroy(struct grammars *g); /* nothing may be in use */
/* ST_INVALID: wrong, not supported, or there is no vocabulary. Compiles where it is new: bounded,
 * most take less than a millisecond, the worst some tenths of a second. */
enum status grammars_take(struct grammars *g, const struct msg_grammar *what,
                          struct grammar_use **out, struct error *err);
/* grammars_take() would compile. */
bool grammars_lacks(struct grammars *g, const struct msg_grammar *what);
void grammars_give(struct grammars *g, struct grammar_use *use);
struct grammar_run *grammars_run(struct grammar_use *use);
/* Once before a step: keeps what the runs remember within bounds. */
void grammars_tidy(struct grammars *g);

/* `what` is copied. NULL: no memory. */
struct grammar_draft *grammars_draft(struct grammars *g, const struct msg_grammar *what);
void grammar_draft_compile(struct grammar_draft *d);
bool grammar_draft_is(const struct grammar_draft *d, const struct msg_grammar *what);
/* After compiling: what is wrong with it; status ST_OK: nothing. */
const struct error *grammar_draft_error(const struct grammar_draft *d);
/* Of one that was compiled and is right. Taken, as by grammars_take(). */
struct grammar_use *grammars_enter(struct grammars *g, struct grammar_draft *d);
void grammar_draft_free(struct grammar_draft *d);

#endif
