#include "node/scores.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void node_scores_fini(struct node_scores *s)
{
    free(s->v);
    free(s->top);
    *s = (struct node_scores){0};
}

static bool grow(struct node_scores *s)
{
    int32_t cap = s->cap > 0 ? 2 * s->cap : 2 * NODE_SCORES_PIECE;
    void *v = realloc(s->v, (size_t)cap * sizeof *s->v);
    if (v != NULL)
        s->v = v;
    void *top = realloc(s->top, ((size_t)cap * (size_t)s->n_top + 1) * sizeof *s->top);
    if (top != NULL)
        s->top = top;
    if (v == NULL || top == NULL)
        return false;
    s->cap = cap;
    return true;
}

bool node_scores_push(struct node_scores *s, const struct msg_score *x)
{
    assert(x->n_top <= (uint32_t)s->n_top);
    if (s->n == s->cap && !grow(s))
        return false;
    s->v[s->n] = *x;
    if (x->n_top > 0)
        memcpy(s->top + (size_t)s->n * (size_t)s->n_top, x->top, x->n_top * sizeof *x->top);
    s->n++;
    return true;
}

uint32_t node_scores_piece(const struct node_scores *s, struct msg_score *piece)
{
    int32_t n = node_scores_left(s);
    if (n > NODE_SCORES_PIECE)
        n = NODE_SCORES_PIECE;
    for (int32_t i = 0; i < n; i++) {
        piece[i] = s->v[s->said + i];
        piece[i].top = s->top + (size_t)(s->said + i) * (size_t)s->n_top;
    }
    return (uint32_t)n;
}

void node_scores_said(struct node_scores *s, uint32_t n)
{
    s->said += (int32_t)n;
    assert(s->said <= s->n);
}
