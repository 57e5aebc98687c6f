/* Scores of a prompt that wait to be said: the engine gives them chunk by chunk, the call takes
 * them in pieces that fit into messages, as the router reads. Bounded by the prompt.
 *
 * Owner: a call of a role; zero-initialise, set n_top, node_scores_fini(). Thread: the loop.
 */
#ifndef NODE_SCORES_H
#define NODE_SCORES_H

#include <stdbool.h>

#include "proto/messages.h"

#define NODE_SCORES_PIECE 64

struct node_scores {
    struct msg_score *v;
    struct msg_logprob *top; /* [cap][n_top] */
    int32_t n, cap, said;
    int32_t n_top; /* of each, at most: set by the owner before the first push */
};

void node_scores_fini(struct node_scores *s);
/* Copies; false when memory is out. */
bool node_scores_push(struct node_scores *s, const struct msg_score *x);
/* The next ones to be said, at most NODE_SCORES_PIECE; they stay valid until the next push. */
uint32_t node_scores_piece(const struct node_scores *s, struct msg_score *piece);
void node_scores_said(struct node_scores *s, uint32_t n);
static inline int32_t node_scores_left(const struct node_scores *s)
{
    return s->n - s->said;
}

#endif
