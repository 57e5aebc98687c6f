/* Scores of the prompt's own ids: which rows of a chunk give them, and what they are.
 *
 * A step has logits for one row of each sequence and LOGITS_SPARE more, which those that score
 * share in order of age: a chunk that wants more is cut. So the memory for logits is bounded, and
 * every sequence that takes part moves on.
 */
#include <assert.h>

#include "engine/internal.h"

static bool scores_here(const struct runnable *r)
{
    return r->group->phase == GROUP_PREFILLING && group_scores_due(r->group);
}

int32_t score_limit(const struct runnable *r, int32_t tokens, int32_t spare)
{
    if (!scores_here(r))
        return tokens;
    int32_t silent = r->group->score_at - 1 - r->seq->computed; /* rows before the first score */
    assert(silent >= 0);
    int64_t most = (int64_t)silent + 1 + spare;
    return most < tokens ? (int32_t)most : tokens;
}

int32_t score_rows(const struct runnable *r, int32_t end, int32_t row, int32_t *logits_rows)
{
    int32_t n = 0, begin = r->seq->computed;
    if (!scores_here(r))
        return 0;
    for (int32_t p = r->group->score_at - 1; p < end && p + 1 < r->group->n_prompt; p++)
        logits_rows[n++] = row + p - begin;
    return n;
}

bool score_say(struct engine *e, const struct runnable *r, const float *logits)
{
    struct group *g = r->group;
    for (int32_t i = 0; i < r->n_scores; i++, logits += e->args.runner.vocab) {
        struct msg_score s = {.position = g->score_at++};
        enum status st =
            sampler_score(e->sampler, logits, r->seq->ids[s.position], g->score_top, &s);
        if (st != ST_OK) {
            group_fail(e, g, st, "the model gave no usable logits");
            return false;
        }
        if (e->args.events.score)
            e->args.events.score(e->args.events.ctx, g->user, &s);
    }
    return true;
}

bool engine_scores_due(struct engine *e, group_id id)
{
    return group_scores_due(group_get(e, id));
}
