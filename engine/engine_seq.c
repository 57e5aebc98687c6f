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

void engine_drop_block(struct engine *e, int32_t block)
{
    bool keep = e->prefix != NULL && prefix_holds(e->prefix, block);
    if (kvpool_unref(e->pool, block, keep) == 0 && keep)
        prefix_release(e->prefix, block);
}

void seq_stand_on(struct engine *e, struct seq *s, int32_t node)
{
    if (e->prefix == NULL)
        return;
    prefix_hold(e->prefix, node);
    prefix_let_go(e->prefix, s->node);
    s->node = node;
}

/* The sequence leaves the index' chain behind its block `blocks`. */
static void leave_chain(struct engine *e, struct seq *s, int32_t blocks)
{
    for (; s->entered > blocks; s->entered--)
        seq_stand_on(e, s, prefix_parent(e->prefix, s->node));
}

static void drop_entry(struct engine *e, struct group *g, int32_t *entry, bool forget)
{
    if (*entry < 0)
        return;
    if (forget && e->prefix && prefix_holds(e->prefix, *entry))
        prefix_forget(e->prefix, *entry);
    engine_drop_block(e, *entry);
    *entry = -1;
}

/* From the end to the beginning, so that children are always older in the LRU list than their
 * parents. */
void seq_drop_blocks(struct engine *e, struct group *g, struct seq *s, bool keep)
{
    int32_t n = 0;
    seq_stand_on(e, s, PREFIX_NONE);
    for (int32_t k = 0; k < e->kv_groups; k++)
        n = s->span[k].n > n ? s->span[k].n : n;
    for (int32_t i = n - 1; i >= 0; i--)
        for (int32_t k = e->kv_groups - 1; k >= 0; k--)
            if (i >= s->span[k].first && i < s->span[k].n)
                drop_entry(e, g, &seq_table(g, s, k)[i], !keep && i >= g->hit_blocks);
    memset(s->span, 0, (size_t)e->kv_groups * sizeof *s->span);
    s->computed = 0;
    s->entered = 0;
}

/* A prefill takes for what is to come as many blocks as it has given back; there are none where
 * others share those. */
static void fill_hole(struct engine *e, struct group *g, struct seq *s, int32_t k)
{
    struct span *span = &s->span[k];
    while (span->hole < span->hole_end && span->hole - span->first < e->alive_max[k] &&
           engine_take_block(e, &seq_table(g, s, k)[span->hole]))
        span->hole++;
}

void seq_trim(struct engine *e, struct group *g, struct seq *s)
{
    for (int32_t k = 0; k < e->kv_groups; k++) {
        struct span *span = &s->span[k];
        int32_t alive = prefix_first_alive(&e->args.layout, k, s->computed);
        int32_t handed = kv_groups_need_from(e->args.layout.groups, k, g->target) / e->block_tokens;
        if (g->prefill_only && handed < alive) /* offers may still read them */
            alive = handed;
        for (; span->first < alive && span->first < span->n; span->first++)
            drop_entry(e, g, &seq_table(g, s, k)[span->first], false);
        fill_hole(e, g, s, k);
    }
}

/* Equal blocks that are entered already take the place of ours: one copy is enough. A prefill
 * node's blocks stay where they are: offers name them. */
void seq_enter_blocks(struct engine *e, struct group *g, struct seq *s)
{
    const struct prefix_seq as = seq_in_prefix(g, s);
    while (e->prefix && s->enter && s->entered < s->computed / e->block_tokens) {
        int32_t node = prefix_enter(e->prefix, &as, s->entered, s->node, !g->prefill_only);
        if (node == PREFIX_NONE) {
            s->enter = false;
            return;
        }
        seq_stand_on(e, s, node);
        s->entered++;
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
        if (g->seqs[i].span[0].n > 0)
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
    for (int place = 0; place < kv_page_layers(l); place++) {
        char *at = (char *)e->args.pool + (size_t)place * kv_layer_bytes(l);
        memcpy(at + (size_t)to * kv_block_bytes(l), at + (size_t)from * kv_block_bytes(l),
               kv_block_bytes(l));
    }
}

static bool within_hole(const struct engine *e, const struct seq *s, int32_t k)
{
    int32_t at = s->computed / e->block_tokens;
    return at >= s->span[k].hole && at < s->span[k].hole_end;
}

bool seq_wants_block(const struct engine *e, const struct seq *s)
{
    for (int32_t k = 0; k < e->kv_groups; k++)
        if (within_hole(e, s, k))
            return true;
    return false;
}

/* The same for one table. */
static bool make_room(struct engine *e, struct group *g, struct seq *s, int32_t k)
{
    int32_t at = s->computed / e->block_tokens, block;
    int32_t *table = seq_table(g, s, k);
    assert(at <= s->span[k].n && at < g->cap_blocks);
    if (at == s->span[k].n) {
        if (!take_or_preempt(e, g, &block))
            return false;
        table[s->span[k].n++] = block;
        return true;
    }
    if (within_hole(e, s, k)) {
        fill_hole(e, g, s, k);
        return !within_hole(e, s, k);
    }
    if (kvpool_refs(e->pool, table[at]) == 1)
        return true;
    if (!take_or_preempt(e, g, &block))
        return false;
    engine_copy_block(e, table[at], block);
    kvpool_move(e->pool, block, BLOCK_RUNNING);
    leave_chain(e, s, at);
    engine_drop_block(e, table[at]);
    table[at] = block;
    return true;
}

bool seq_make_room(struct engine *e, struct group *g, struct seq *s)
{
    for (int32_t k = 0; k < e->kv_groups; k++)
        if (!make_room(e, g, s, k))
            return false;
    return true;
}

int32_t seq_extend(struct engine *e, struct group *g, struct seq *s, int32_t tokens)
{
    int32_t want = blocks_for(e, s->computed + tokens);
    for (int32_t k = 0; k < e->kv_groups; k++) {
        struct span *span = &s->span[k];
        while (span->n < want && engine_take_block(e, &seq_table(g, s, k)[span->n]))
            span->n++;
        int32_t end = span->hole < span->hole_end ? span->hole : span->n;
        int64_t room = (int64_t)end * e->block_tokens - s->computed;
        tokens = room < tokens ? (int32_t)room : tokens;
    }
    return tokens;
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
