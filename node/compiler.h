/* The thread that compiles grammars: a new one takes some tenths of a second at worst, in which the
 * loop has tokens to say. One draft at a time: what waits for it are calls, and those are the
 * role's.
 *
 *     compiler_give(c, draft);             // the compiler's, until it comes back
 *     while ((draft = compiler_next(c)))   // compiled, or wrong: the caller's again
 *
 * Owner: the node. Thread: the loop thread calls all of these.
 */
#ifndef NODE_COMPILER_H
#define NODE_COMPILER_H

#include "engine/grammars.h"

struct compiler;

enum status compiler_start(struct compiler **out, struct error *err);
/* Waits for the draft that is being compiled, and frees it. NULL: nothing. */
void compiler_stop(struct compiler *c);
/* Not before the one before came back. */
void compiler_give(struct compiler *c, struct grammar_draft *draft);
int compiler_fd(const struct compiler *c); /* readable when one came back */
struct grammar_draft *compiler_next(struct compiler *c);

#endif
