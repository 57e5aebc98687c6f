/* Groups: how their KV arrives, how they fork, how they leave. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/internal.h"

static const uint8_t group_moves[GROUP_PHASES] = {
    [GROUP_RESERVED] =
        1 << GROUP_FILLING | 1 << GROUP_PREFILLING | 1 << GROUP_FAILED | 1 << GROUP_LEFT,
    [GROUP_FILLING] =
        1 << GROUP_PREFILLING | 1 << GROUP_DECODING | 1 << GROUP_FAILED | 1 << GROUP_LEFT,
    [GROUP_PREFILLING] =
        1 << GROUP_DECODING | 1 << GROUP_HOLDING | 1 << GROUP_FAILED | 1 << GROUP_LEFT,
    [GROUP_DECODING] = 1 << GROUP_FAILED | 1 << GROUP_LEFT,
    [GROUP_HOLDING] = 1 << GROUP_FAILED | 1 << GROUP_LEFT,
    [GROUP_FAILED] = 1 << GROUP_LEFT,
    [GROUP_LEFT] = 0,
};

void group_move(struct group *g, enum group_phase to)
{
    assert(group_moves[g->phase] & 1 << to);
    g->phase = to;
}

struct group *group_get(struct engine *e, group_id id)
{
    struct group *g = slots_get(e->groups, id);
    assert(g != NULL);
    return g;
}

int32_t engine_transfer_tokens(struct engine *e, group_id id)
{
    return group_get(e, id)->target;
}

/* Where a landing plan begins in the lead's table: of a sliding group only the window lands. */
static int32_t landing_begins(const struct engine *e, const struct group *g, int32_t k)
{
    int32_t have = g->hit / e->block_tokens;
    int32_t from = kv_groups_need_from(e->args.layout.groups, k, g->target) / e->block_tokens;
    return g->prefill_only || from < have ? have : from;
}

/* Moves the promised blocks of a sliding group within the lead's table, from the hit's end to where
 * they will land, or back. Returns those that have no place there. */
static void shift_blocks(struct engine *e, struct group *g, int32_t k, int32_t from, int32_t to)
{
    struct seq *s = &g->seqs[g->lead];
    int32_t *table = seq_table(g, s, k), n = s->span[k].n - from;
    int32_t room = blocks_for(e, g->target) + 1 - to;
    if (from == to)
        return;
    for (; n > room; n--)
        engine_drop_block(e, table[from + n - 1]);
    memmove(table + to, table + from, (size_t)n * sizeof *table);
    for (int32_t i = from; i < to; i++)
        table[i] = -1;
    s->span[k].n = to + n;
}

static void move_blocks(struct engine *e, const int32_t *table, int32_t begin, int32_t end,
                        enum block_state to)
{
    for (int32_t i = begin; i < end; i++)
        if (table[i] >= 0)
            kvpool_move(e->pool, table[i], to);
}

const int32_t *engine_begin_fill(struct engine *e, group_id id, int32_t *n_blocks)
{
    struct group *g = group_get(e, id);
    struct seq *s = &g->seqs[g->lead];
    group_move(g, GROUP_FILLING);
    *n_blocks = blocks_for(e, g->target);
    for (int32_t k = 0; k < e->kv_groups; k++) {
        int32_t begin = landing_begins(e, g, k);
        shift_blocks(e, g, k, g->hit / e->block_tokens, begin);
        assert(s->span[k].n >= *n_blocks);
        move_blocks(e, seq_table(g, s, k), begin, *n_blocks, BLOCK_RECEIVING);
    }
    return s->table;
}

int32_t engine_table_stride(struct engine *e, group_id id)
{
    return group_get(e, id)->cap_blocks;
}

/* A choice takes the lead's full blocks, and a copy of the last one if that is partial. */
static void share_table(struct engine *e, struct group *g, struct seq *s, int32_t k)
{
    const struct seq *lead = &g->seqs[g->lead];
    int32_t full = g->target / e->block_tokens, used = blocks_for(e, g->target);
    const int32_t *from = seq_table(g, lead, k);
    int32_t *to = seq_table(g, s, k);
    for (int32_t i = 0; i < full; i++) {
        to[i] = i < lead->span[k].first ? -1 : from[i];
        if (to[i] >= 0)
            kvpool_ref(e->pool, to[i]);
    }
    assert(g->n_spare > 0);
    to[full] = g->spare[--g->n_spare];
    if (used > full) {
        engine_copy_block(e, from[full], to[full]);
        kvpool_move(e->pool, to[full], BLOCK_RUNNING);
    }
    s->span[k] = (struct span){.first = lead->span[k].first, .n = full + 1};
}

static void share_blocks(struct engine *e, struct group *g, const struct seq *lead, struct seq *s)
{
    for (int32_t k = 0; k < e->kv_groups; k++)
        share_table(e, g, s, k);
    s->computed = lead->computed;
    s->entered = lead->entered;
    s->enter = lead->enter;
    seq_stand_on(e, s, lead->node);
}

void group_fork(struct engine *e, struct group *g)
{
    struct seq *lead = &g->seqs[g->lead];
    group_move(g, GROUP_DECODING);
    for (int32_t i = 0; i < g->n_seqs; i++) {
        struct seq *s = &g->seqs[i];
        if (s != lead && !s->done && !s->finishing)
            share_blocks(e, g, lead, s);
    }
    while (g->n_spare > 0)
        kvpool_unref(e->pool, g->spare[--g->n_spare], false);
    if (lead->done)
        seq_drop_blocks(e, g, lead, true);
}

/* A first token from the prefill node is the choice's next one, if it is sane and fits what is
 * known. */
static void take_first(struct engine *e, struct group *g, const struct msg_token *t)
{
    if (t->choice < 0 || t->choice >= g->n_seqs || t->id < 0 || t->id >= e->args.runner.vocab)
        return;
    struct seq *s = &g->seqs[t->choice];
    if (s->done || s->finishing || s->held || s->computed != s->n_ids ||
        t->position != s->n_ids - g->n_prompt)
        return;
    s->token = *t;
    s->token.n_top = t->n_top < MSG_LOGPROBS_MAX ? t->n_top : MSG_LOGPROBS_MAX;
    if (s->token.n_top > 0)
        memcpy(s->top, t->top, s->token.n_top * sizeof *s->top);
    s->token.top = s->top;
    s->held = true;
    seq_append(e, g, s, t->id);
}

/* A window may begin within a block: what is not whole is given back, or nothing is entered. */
static void take_landed(struct engine *e, struct group *g, int32_t k)
{
    struct seq *lead = &g->seqs[g->lead];
    int32_t *table = seq_table(g, lead, k);
    move_blocks(e, table, lead->span[k].first, blocks_for(e, g->target), BLOCK_RUNNING);
    int32_t from = kv_groups_need_from(e->args.layout.groups, k, g->target);
    int32_t partial = from / e->block_tokens;
    if (from <= g->hit || from % e->block_tokens == 0)
        return;
    if (partial < prefix_first_alive(&e->args.layout, k, g->target)) {
        engine_drop_block(e, table[partial]);
        table[partial] = -1;
    } else {
        lead->enter = false;
    }
}

void engine_fill_done(struct engine *e, group_id id, const struct msg_token *first, int32_t n_first)
{
    struct group *g = group_get(e, id);
    struct seq *lead = &g->seqs[g->lead];
    if (g->phase == GROUP_FAILED)
        return;
    assert(g->phase == GROUP_FILLING);
    for (int32_t k = 0; k < e->kv_groups; k++)
        take_landed(e, g, k);
    lead->computed = g->target;
    g->score_at = 0; /* whoever computed it has said them */
    seq_enter_blocks(e, g, lead);
    seq_trim(e, g, lead);
    if (n_first == 0 && g->target == lead->n_ids) {
        /* The last token's KV is written once more, in place, for its logits. */
        group_move(g, GROUP_PREFILLING);
        lead->computed--;
        return;
    }
    group_fork(e, g);
    for (int32_t i = 0; i < n_first; i++)
        take_first(e, g, &first[i]);
    for (int32_t i = 0; i < g->n_seqs; i++) {
        struct seq *s = &g->seqs[i];
        if (!s->done && !s->finishing && s->computed == s->n_ids)
            s->computed--;
    }
}

void engine_fill_here(struct engine *e, group_id id)
{
    struct group *g = group_get(e, id);
    struct seq *lead = &g->seqs[g->lead];
    if (g->phase == GROUP_FAILED)
        return;
    for (int32_t k = 0; g->phase == GROUP_FILLING && k < e->kv_groups; k++) {
        int32_t begin = landing_begins(e, g, k);
        move_blocks(e, seq_table(g, lead, k), begin, blocks_for(e, g->target), BLOCK_RESERVED);
        shift_blocks(e, g, k, begin, g->hit / e->block_tokens);
    }
    group_move(g, GROUP_PREFILLING);
}

void engine_credit(struct engine *e, group_id id, int64_t n)
{
    struct group *g = slots_get(e->groups, id);
    if (g != NULL && n > 0)
        g->credits = n > INT64_MAX - g->credits ? INT64_MAX : g->credits + n;
}

void engine_stop_choice(struct engine *e, group_id id, int32_t choice)
{
    struct group *g = slots_get(e->groups, id);
    if (g == NULL || choice < 0 || choice >= g->n_seqs || g->prefill_only)
        return;
    struct seq *s = &g->seqs[choice];
    s->done = true;
    s->held = false;
    if (g->phase == GROUP_DECODING)
        seq_drop_blocks(e, g, s, true);
}

void group_drop_blocks(struct engine *e, struct group *g, bool keep)
{
    for (int32_t i = g->n_seqs - 1; i >= 0; i--)
        seq_drop_blocks(e, g, &g->seqs[i], keep);
    while (g->n_spare > 0)
        kvpool_unref(e->pool, g->spare[--g->n_spare], false);
}

void group_fail(struct engine *e, struct group *g, enum status status, const char *why)
{
    if (g->phase == GROUP_FAILED)
        return;
    group_move(g, GROUP_FAILED);
    /* A prefill node's blocks may be on their way to another node: they wait for engine_release().
     */
    if (!g->prefill_only)
        group_drop_blocks(e, g, status != ST_INTERNAL);
    e->args.events.failed(e->args.events.ctx, g->user, status, why);
}

static void forget_group(struct engine *e, struct group *g)
{
    list_remove(&g->link);
    grammars_give(e->grammars, g->grammar);
    e->live_seqs -= g->n_seqs;
    free(g->memory);
    slots_free(e->groups, g->id);
}

/* Blocks that are shared or entered keep our reference until the transfer is quiet: whoever else
 * holds them may go first. */
static void quarantine_table(struct engine *e, struct group *g, struct seq *s, int32_t k)
{
    const int32_t *table = seq_table(g, s, k);
    for (int32_t i = s->span[k].first; i < s->span[k].n; i++)
        if (table[i] >= 0 && kvpool_refs(e->pool, table[i]) == 1 &&
            !(e->prefix && prefix_holds(e->prefix, table[i])))
            kvpool_quarantine(e->pool, table[i]);
}

static void quiet_table(struct engine *e, struct group *g, struct seq *s, int32_t k)
{
    int32_t *table = seq_table(g, s, k);
    for (int32_t i = s->span[k].first; i < s->span[k].n; i++) {
        if (table[i] < 0 || kvpool_state(e->pool, table[i]) != BLOCK_QUARANTINED)
            continue;
        kvpool_quiet(e->pool, table[i]);
        table[i] = -1;
    }
}

void engine_release(struct engine *e, group_id id, bool keep, bool quiet)
{
    struct group *g = group_get(e, id);
    group_move(g, GROUP_LEFT);
    if (quiet) {
        group_drop_blocks(e, g, keep);
        forget_group(e, g);
        return;
    }
    for (int32_t i = 0; i < g->n_seqs; i++)
        for (int32_t k = 0; k < e->kv_groups; k++)
            quarantine_table(e, g, &g->seqs[i], k);
    while (g->n_spare > 0)
        kvpool_unref(e->pool, g->spare[--g->n_spare], false);
}

void engine_quiet(struct engine *e, group_id id)
{
    struct group *g = group_get(e, id);
    assert(g->phase == GROUP_LEFT);
    for (int32_t i = 0; i < g->n_seqs; i++)
        for (int32_t k = 0; k < e->kv_groups; k++)
            quiet_table(e, g, &g->seqs[i], k);
    group_drop_blocks(e, g, true);
    forget_group(e, g);
}

int32_t engine_group_cached(struct engine *e, group_id id)
{
    return group_get(e, id)->hit;
}
