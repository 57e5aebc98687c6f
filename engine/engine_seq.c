/* Sequences: their blocks, their tokens and how they end. */
#include <assert.h>
#include <string.h>

#include "engine/internal.h"

int32_t blocks_for(const struct engine *e, int32_t tokens)
{
    return (int32_t)(((int64_t)tokens + e->block_tokens - 1) / e->block_tokens);
}

bool engine_take_block(struct engine *e, int32_t *block)
{
    if (kvpool_take(e->pool, 1, block))
        return true;
    return e->prefix != NULL && prefix_evict(e->prefix, 1) > 0 && kvpool_take(e->pool, 1, block);
}

static void drop_block(struct engine *e, int32_t block)
{
    bool keep = e->prefix != NULL && prefix_holds(e->prefix, block);
    if (kvpool_unref(e->pool, block, keep) == 0 && keep)
        prefix_release(e->prefix, block);
}

/* From the end to the beginning, so that children are always older in the LRU list than their
 * parents. */
void seq_drop_blocks(struct engine *e, struct group *g, struct seq *s, bool keep)
{
    for (int32_t i = s->n_blocks - 1; i >= 0; i--) {
        if (!keep && i >= g->hit_blocks && e->prefix && prefix_holds(e->prefix, s->table[i]))
            prefix_forget(e->prefix, s->table[i]);
        drop_block(e, s->table[i]);
    }
    s->n_blocks = 0;
    s->computed = 0;
    s->entered = 0;
}

/* An equal block that is entered already takes the place of ours: one copy is enough. A prefill
 * node's blocks stay where they are: offers name them. */
static bool adopt_block(struct engine *e, struct group *g, struct seq *s, int32_t i)
{
    if (g->prefill_only)
        return false;
    int32_t twin = prefix_share(e->prefix, g->salt, s->ids, s->table, i);
    if (twin < 0)
        return false;
    drop_block(e, s->table[i]);
    s->table[i] = twin;
    return true;
}

void seq_enter_blocks(struct engine *e, struct group *g, struct seq *s)
{
    while (e->prefix && s->enter && s->entered < s->computed / e->block_tokens) {
        int32_t i = s->entered;
        if (prefix_holds(e->prefix, s->table[i]) ||
            prefix_insert(e->prefix, g->salt, s->ids, s->table, i) || adopt_block(e, g, s, i))
            s->entered++;
        else
            s->enter = false;
    }
}

static struct group *youngest_running(struct engine *e)
{
    for (struct list *it = e->list.prev; it != &e->list; it = it->prev) {
        struct group *g = list_entry(it, struct group, link);
        if (!g->prefill_only && (g->phase == GROUP_PREFILLING || g->phase == GROUP_DECODING))
            return g;
    }
    return NULL;
}

static bool holds_blocks(const struct group *g)
{
    for (int32_t i = 0; i < g->n_seqs; i++)
        if (g->seqs[i].n_blocks > 0)
            return true;
    return g->n_spare > 0;
}

/* Takes a block for `g`, at the price of the youngest running group. False: `g` was the youngest.
 */
static bool take_or_preempt(struct engine *e, struct group *g, int32_t *block)
{
    while (!engine_take_block(e, block)) {
        struct group *victim = youngest_running(e);
        assert(victim != NULL);
        bool alone = true;
        list_for_each(it, &e->list)
        {
            const struct group *other = list_entry(it, struct group, link);
            alone = alone && (other == victim || !holds_blocks(other));
        }
        e->preemptions_total += !alone;
        if (alone)
            group_fail(e, victim, ST_NEVER_FITS, "the sequence has outgrown the node's KV pool");
        else
            group_fail(e, victim, ST_PREEMPTED, "no KV block is free for the youngest request");
        if (victim == g)
            return false;
    }
    return true;
}

void engine_copy_block(struct engine *e, int32_t from, int32_t to)
{
    const struct kv_layout *l = &e->args.layout;
    for (int layer = 0; layer < l->layers; layer++)
        memcpy((char *)e->args.pool + kv_offset(l, layer, to, KV_KEY, 0, 0),
               (char *)e->args.pool + kv_offset(l, layer, from, KV_KEY, 0, 0), kv_block_bytes(l));
}

bool seq_make_room(struct engine *e, struct group *g, struct seq *s)
{
    int32_t at = s->computed / e->block_tokens, block;
    assert(at <= s->n_blocks && at < g->cap_blocks);
    if (at == s->n_blocks) {
        if (!take_or_preempt(e, g, &block))
            return false;
        s->table[s->n_blocks++] = block;
        return true;
    }
    if (kvpool_refs(e->pool, s->table[at]) == 1)
        return true;
    if (!take_or_preempt(e, g, &block))
        return false;
    engine_copy_block(e, s->table[at], block);
    kvpool_move(e->pool, block, BLOCK_RUNNING);
    drop_block(e, s->table[at]);
    s->table[at] = block;
    if (s->entered > at)
        s->entered = at;
    return true;
}

int32_t seq_extend(struct engine *e, struct seq *s, int32_t tokens)
{
    int32_t want = blocks_for(e, s->computed + tokens);
    while (s->n_blocks < want && engine_take_block(e, &s->table[s->n_blocks]))
        s->n_blocks++;
    int64_t room = (int64_t)s->n_blocks * e->block_tokens - s->computed;
    return room < tokens ? (int32_t)room : tokens;
}

static bool is_listed(int32_t id, const int32_t *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i] == id)
            return true;
    return false;
}

/* Brings `said` up to the ids that are there: also after a run has forgotten its states. False: an
 * id does not fit the grammar. */
static bool follow(const struct group *g, struct seq *s, struct error *err)
{
    struct grammar_run *run = grammars_run(g->grammar);
    if (s->followed == 0 || grammar_is_stale(run, &s->said)) {
        s->said = grammar_begin(run);
        s->followed = 0;
    }
    for (; g->n_prompt + s->followed < s->n_ids; s->followed++)
        if (grammar_accept(run, &s->said, s->ids[g->n_prompt + s->followed], err) != ST_OK)
            return false;
    return true;
}

/* The grammar has come to its end: nothing can follow. */
static bool grammar_ends(const struct group *g, struct seq *s)
{
    return g->grammar != NULL && follow(g, s, NULL) &&
           grammar_is_over(grammars_run(g->grammar), &s->said);
}

void seq_note_finish(struct engine *e, struct group *g, struct seq *s)
{
    int32_t generated = s->n_ids - g->n_prompt;
    if (s->done || s->finishing || (generated <= 0 && g->spec.max_tokens > 0))
        return;
    int32_t last = s->ids[s->n_ids - 1];
    bool may_stop = generated > g->spec.min_tokens;
    bool eos = !g->spec.ignore_eos && is_listed(last, e->eos, (uint32_t)e->args.runner.n_eos);
    if (may_stop && (eos || is_listed(last, g->spec.stop_ids.v, g->spec.stop_ids.n))) {
        s->finish.reason = MSG_FINISH_STOP;
        s->finish.stop_id = last;
    } else if (grammar_ends(g, s)) {
        s->finish.reason = MSG_FINISH_STOP;
        s->finish.stop_id = -1;
    } else if (generated >= g->spec.max_tokens || s->n_ids >= e->args.runner.max_context) {
        s->finish.reason = MSG_FINISH_LENGTH;
        s->finish.stop_id = -1;
    } else {
        return;
    }
    s->finish.choice = (int32_t)(s - g->seqs);
    s->finishing = true;
}

void seq_append(struct engine *e, struct group *g, struct seq *s, int32_t id)
{
    assert(s->n_ids < g->cap_ids);
    s->ids[s->n_ids++] = id;
    seq_note_finish(e, g, s);
}

bool seq_can_flush(const struct group *g, const struct seq *s)
{
    if (s->done || g->phase == GROUP_FAILED || g->phase == GROUP_LEFT)
        return false;
    return s->held ? g->credits > 0 : s->finishing;
}

/* Says what is held and ends what is over. */
void seq_flush(struct engine *e, struct group *g, struct seq *s)
{
    if (!seq_can_flush(g, s))
        return;
    if (s->held) {
        s->held = false;
        g->credits--;
        e->args.events.token(e->args.events.ctx, g->user, &s->token);
    }
    if (!s->finishing)
        return;
    s->done = true;
    e->args.events.finish(e->args.events.ctx, g->user, &s->finish);
    if (g->phase == GROUP_DECODING)
        seq_drop_blocks(e, g, s, true);
}

/* The mask of what may come next, where there is a grammar. */
static enum status find_mask(struct group *g, struct seq *s, struct sampler_input *in,
                             struct error *err)
{
    if (g->grammar == NULL)
        return ST_OK;
    struct grammar_run *run = grammars_run(g->grammar);
    if (!follow(g, s, err))
        return err_prefix(err, "what was said before does not fit the grammar");
    in->may_end = grammar_is_complete(run, &s->said);
    return grammar_mask(run, &s->said, &in->mask, err);
}

enum status seq_pick(struct engine *e, struct group *g, struct seq *s, struct seq_pick *p,
                     struct error *err)
{
    struct sampler_input in = {.logits = p->logits,
                               .spec = &g->spec,
                               .ids = s->ids,
                               .n_ids = s->n_ids,
                               .n_prompt = g->n_prompt,
                               .choice = p->choice,
                               .eos = e->eos,
                               .n_eos = e->args.runner.n_eos};
    enum status st = find_mask(g, s, &in, err);
    if (st != ST_OK)
        return st == ST_UNSUPPORTED ? ST_INVALID : st;
    st = sampler_pick(e->sampler, &in, p->out);
    if (st != ST_OK)
        return err_set(err, st, "the model gave no usable logits");
    return ST_OK;
}

void seq_sample(struct engine *e, struct group *g, struct seq *s, const float *logits)
{
    struct error why = {0};
    struct seq_pick pick = {.logits = logits, .choice = (int32_t)(s - g->seqs), .out = &s->token};
    enum status st = seq_pick(e, g, s, &pick, &why);
    if (st != ST_OK) {
        group_fail(e, g, st, why.text);
        return;
    }
    if (s->token.n_top > 0)
        memcpy(s->top, s->token.top, s->token.n_top * sizeof *s->top);
    s->token.top = s->top;
    s->held = true;
    seq_append(e, g, s, s->token.id);
    seq_flush(e, g, s);
}
