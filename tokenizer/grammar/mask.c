/* The mask of a state: a walk over the token trie, leaving out what the automaton refuses; where a
 * state is known that differs in counts only (how long a string may still get), a walk over the
 * tokens that are long enough to notice. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/run.h"

void run_forget_masks(struct grammar_run *r)
{
    for (uint32_t i = 0; i < r->n_masks; i++)
        free(r->masks[i]);
    r->n_masks = r->n_patterns = r->n_words = 0;
    memset(r->buckets, 0, sizeof r->buckets);
    for (uint32_t i = 0; i < r->n_states; i++)
        r->states[i].mask = 0;
}

static bool meet(struct grammar_run *r, uint32_t state)
{
    if (r->states[state].stamp == r->walk)
        return true;
    r->states[state].stamp = r->walk;
    if (!run_grow((void **)&r->met, &r->cap_met, (uint64_t)r->n_met + 1, sizeof *r->met))
        return false;
    r->met[r->n_met++] = state;
    return true;
}

static void clear_tokens(const struct grammar_run *r, uint32_t from, uint32_t to, uint64_t *mask)
{
    for (uint32_t i = from; i < to; i++) {
        int32_t token = r->vocab->nodes[i].token;
        if (token >= 0)
            mask[token / 64] &= ~(UINT64_C(1) << (token % 64));
    }
}

/* The mask is right about tokens of at most `alike` bytes; where that is 0, it has none yet. */
static bool walk(struct grammar_run *r, uint32_t state, uint32_t alike, uint64_t *mask)
{
    const struct vocab_node *nodes = r->vocab->nodes;
    uint32_t n = r->vocab->n_nodes, to;
    r->path[0] = state;
    if (!meet(r, state))
        return false;
    for (uint32_t i = 1; i < n;) {
        const struct vocab_node *node = &nodes[i];
        if (node->deepest <= alike) {
            i = node->skip;
            continue;
        }
        if (!run_next(r, r->path[node->depth - 1], node->byte, &to))
            return false;
        if (to == RUN_DEAD) {
            if (alike > 0 && node->depth > alike)
                clear_tokens(r, i, node->skip, mask);
            i = node->skip;
            continue;
        }
        if (node->token >= 0 && node->depth > alike)
            mask[node->token / 64] |= UINT64_C(1) << (node->token % 64);
        r->path[node->depth] = to;
        if (node->skip > i + 1 && r->states[to].stamp != r->walk && !meet(r, to))
            return false;
        i++;
    }
    return true;
}

static uint64_t *new_mask(struct grammar_run *r)
{
    if (!run_grow((void **)&r->masks, &r->cap_masks, (uint64_t)r->n_masks + 1, sizeof *r->masks))
        return NULL;
    uint64_t *mask = calloc(r->mask_words + 1, sizeof *mask);
    if (mask)
        r->masks[r->n_masks++] = mask;
    return mask;
}

static bool is_empty(const uint64_t *mask, uint32_t words)
{
    for (uint32_t i = 0; i < words; i++)
        if (mask[i])
            return false;
    return true;
}

static enum status make_mask(struct grammar_run *r, uint32_t state, struct error *err)
{
    uint32_t index = run_find_pattern(r, state);
    if (index != UINT32_MAX) {
        r->stats.masks_found++;
        r->states[state].mask = index + 1;
        return ST_OK;
    }
    uint64_t *mask = new_mask(r);
    if (!mask)
        return err_set(err, ST_NO_MEMORY, "no memory for the grammar's masks");
    uint32_t alike;
    r->spent = 0;
    r->walk++;
    r->n_met = 0;
    index = run_find_similar(r, state, &alike);
    if (index != UINT32_MAX)
        memcpy(mask, r->masks[index], r->mask_words * sizeof *mask);
    if (!walk(r, state, alike, mask)) {
        free(r->masks[--r->n_masks]);
        return err_set(err, ST_UNSUPPORTED, "the grammar is too ambiguous to follow");
    }
    r->stats.masks_made++;
    run_keep_pattern(r, state, r->n_masks - 1);
    r->states[state].mask = r->n_masks;
    return ST_OK;
}

enum status grammar_mask(struct grammar_run *r, const struct grammar_state *s, const uint64_t **out,
                         struct error *err)
{
    if (r->states[s->at].mask == 0) {
        enum status st = make_mask(r, s->at, err);
        if (st != ST_OK)
            return st;
    }
    *out = r->masks[r->states[s->at].mask - 1];
    if (!r->states[s->at].complete && is_empty(*out, r->mask_words))
        return err_set(err, ST_UNSUPPORTED,
                       "no token of the vocabulary can continue what the grammar asks for");
    return ST_OK;
}
