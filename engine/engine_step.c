/* A step: say what is due, choose who takes part, run the batch, sample. Allocates nothing. */
#include <assert.h>
#include <string.h>

#include "engine/internal.h"

static bool wants_more(const struct seq *s)
{
    return !s->done && !s->finishing && !s->held;
}

/* Who could compute something now. For a prefill that is the lead, whatever became of its own
 * choice. */
static bool group_has_work(const struct group *g)
{
    if (g->phase != GROUP_PREFILLING && g->phase != GROUP_DECODING)
        return false;
    if (g->phase == GROUP_PREFILLING && (g->prefill_only || group_scores_due(g)))
        return true;
    for (int32_t i = 0; i < g->n_seqs; i++)
        if (wants_more(&g->seqs[i]))
            return true;
    return false;
}

/* A decoding row says a token in this very step: it needs a credit of its own. Refills and prefills
 * may end without one, then their token is held. */
static bool needs_credit(const struct group *g, const struct seq *s)
{
    return g->phase == GROUP_DECODING && seq_need(g, s) == 1;
}

static int32_t collect_group(struct engine *e, struct group *g, int32_t n)
{
    if (g->phase == GROUP_PREFILLING) {
        e->run[n] = (struct runnable){.group = g, .seq = &g->seqs[g->lead]};
        return n + 1;
    }
    int32_t first = g->turn % g->n_seqs;
    bool short_of_credit = false;
    g->planned = 0;
    for (int32_t k = 0; k < g->n_seqs; k++) {
        int32_t i = (first + k) % g->n_seqs;
        struct seq *s = &g->seqs[i];
        if (!wants_more(s))
            continue;
        if (needs_credit(g, s)) {
            if (g->credits <= g->planned) {
                if (!short_of_credit)
                    g->turn = i; /* the first that has to wait begins next time */
                short_of_credit = true;
                continue;
            }
            g->planned++;
        }
        e->run[n++] = (struct runnable){.group = g, .seq = s};
    }
    return n;
}

/* Every runnable sequence with room for its next token, oldest group first. */
static int32_t collect(struct engine *e)
{
    int32_t n = 0, kept = 0;
    list_for_each(it, &e->list)
    {
        struct group *g = list_entry(it, struct group, link);
        if (group_has_work(g))
            n = collect_group(e, g, n);
    }
    assert(n <= e->cap_run);
    for (int32_t i = 0; i < n; i++)
        if (e->run[i].group->phase != GROUP_FAILED)
            e->run[i].has_room = seq_make_room(e, e->run[i].group, e->run[i].seq);
    for (int32_t i = 0; i < n; i++)
        if (e->run[i].group->phase != GROUP_FAILED && e->run[i].has_room)
            e->run[kept++] = e->run[i];
    return kept;
}

static bool plan(struct engine *e, int32_t n, struct plan_result *result)
{
    bool decoding = false;
    for (int32_t i = 0; i < n; i++) {
        const struct group *g = e->run[i].group;
        int32_t need = seq_need(g, e->run[i].seq);
        bool decode = g->phase == GROUP_DECODING && need == 1;
        e->items[i] = (struct plan_item){.need = need, .decode = decode};
        decoding = decoding || decode;
    }
    struct plan_budget budget = {
        .max_sequences = e->args.max_batch,
        .chunk_tokens =
            plan_chunk_tokens(&e->cost, e->args.step_budget_ns, e->args.chunk_tokens_max, decoding),
        .rotate = e->rotate};
    plan_batch(e->items, n, &budget, result);
    e->rotate = result->rotate;
    return result->sequences > 0;
}

static bool wants_logits(const struct runnable *r)
{
    const struct group *g = r->group;
    if (g->phase == GROUP_DECODING)
        return true;
    if (g->prefill_only)
        return g->want_first;
    for (int32_t i = 0; i < g->n_seqs; i++)
        if (wants_more(&g->seqs[i]) && g->seqs[i].n_ids == g->target)
            return true;
    return false;
}

static void announce(struct engine *e, struct group *g, int32_t begin, int32_t end)
{
    if (!g->prefill_only || e->args.events.chunk == NULL)
        return;
    if (!g->announced && g->hit > 0)
        e->args.events.chunk(e->args.events.ctx, g->user, 0, g->hit);
    g->announced = true;
    e->args.events.chunk(e->args.events.ctx, g->user, begin, end);
}

/* Positions up to `end` will be written. */
static void use_blocks(struct engine *e, const struct runnable *r, int32_t end)
{
    for (int32_t k = 0; k < e->kv_groups; k++) {
        const int32_t *table = seq_table(r->group, r->seq, k);
        for (int32_t i = r->seq->computed / e->block_tokens; i < blocks_for(e, end); i++) {
            assert(kvpool_refs(e->pool, table[i]) == 1); /* what is shared is never written */
            if (kvpool_state(e->pool, table[i]) == BLOCK_RESERVED)
                kvpool_move(e->pool, table[i], BLOCK_RUNNING);
        }
    }
}

/* Lays the rows out; leaves in `bring` what every item really brings. */
static void build(struct engine *e, int32_t n, int32_t seated, struct batch *b)
{
    int32_t rows = 0, logits = 0, seqs = 0, spare = e->logits_max - seated;
    for (int32_t i = 0; i < n; i++) {
        struct plan_item *item = &e->items[i];
        struct runnable *r = &e->run[i];
        if (item->bring == 0)
            continue;
        item->bring = seq_extend(e, r->group, r->seq, score_limit(r, item->bring, spare));
        int32_t begin = r->seq->computed, end = begin + item->bring;
        for (int32_t p = begin; p < end; p++, rows++) {
            e->ids[rows] = r->seq->ids[p];
            e->positions[rows] = p;
            e->seq_of[rows] = seqs;
        }
        use_blocks(e, r, end);
        for (int32_t k = 0; k < e->kv_groups; k++)
            e->tables[(size_t)k * (size_t)e->args.max_batch + (size_t)seqs] =
                seq_table(r->group, r->seq, k);
        e->is_long[seqs++] = r->group->is_long;
        int32_t before = logits;
        r->n_scores = score_rows(r, end, rows - item->bring, &e->logits_rows[logits]);
        logits += r->n_scores;
        r->logits = item->bring == item->need && wants_logits(r);
        if (r->logits)
            e->logits_rows[logits++] = rows - 1;
        spare -= logits - before > 1 ? logits - before - 1 : 0;
        announce(e, r->group, begin, end);
    }
    assert(rows <= engine_rows_max(&e->args) && logits <= e->logits_max);
    *b = (struct batch){.ids = e->ids,
                        .positions = e->positions,
                        .seq_of = e->seq_of,
                        .block_tables = e->tables,
                        .sequences = e->args.max_batch,
                        .tokens = rows,
                        .logits_rows = e->logits_rows,
                        .n_logits = logits,
                        .is_long = e->args.runner.is_long ? e->is_long : NULL};
}

static void layer_done(void *ctx, int layer)
{
    struct engine *e = ctx;
    if (e->args.events.layer_done)
        e->args.events.layer_done(e->args.events.ctx, layer);
}

/* The prefill role's first tokens: one per choice from the same logits; the other node decides what
 * they end. */
static void say_first(struct engine *e, struct group *g, const float *logits)
{
    for (int32_t choice = 0; choice < g->n; choice++) {
        struct msg_token t;
        struct error why = {0};
        struct seq_pick pick = {.logits = logits, .choice = choice, .out = &t};
        enum status st = seq_pick(e, g, &g->seqs[0], &pick, &why);
        if (st != ST_OK) {
            group_fail(e, g, st, why.text);
            return;
        }
        e->args.events.token(e->args.events.ctx, g->user, &t);
    }
}

static void end_prefill(struct engine *e, struct group *g, const float *logits)
{
    if (g->prefill_only) {
        group_move(g, GROUP_HOLDING);
        if (logits != NULL)
            say_first(e, g, logits);
        return;
    }
    group_fork(e, g);
    for (int32_t i = 0; i < g->n_seqs && g->phase == GROUP_DECODING; i++)
        if (logits != NULL && wants_more(&g->seqs[i]) && g->seqs[i].n_ids == g->target)
            seq_sample(e, g, &g->seqs[i], logits);
}

static void settle(struct engine *e, int32_t n)
{
    const float *logits = e->logits;
    const size_t vocab = (size_t)e->args.runner.vocab;
    for (int32_t i = 0; i < n; i++) {
        struct runnable *r = &e->run[i];
        const struct plan_item *item = &e->items[i];
        if (item->bring == 0)
            continue;
        bool complete = item->bring == item->need;
        const float *scores = logits, *mine = scores + (size_t)r->n_scores * vocab;
        logits = mine + (r->logits ? vocab : 0);
        if (r->group->phase == GROUP_FAILED)
            continue; /* another of its choices met bad logits */
        r->seq->computed += item->bring;
        seq_enter_blocks(e, r->group, r->seq);
        seq_trim(e, r->group, r->seq);
        if (!score_say(e, r, scores) || !complete)
            continue;
        if (!r->logits)
            mine = NULL;
        if (r->group->phase == GROUP_PREFILLING)
            end_prefill(e, r->group, mine);
        else
            seq_sample(e, r->group, r->seq, mine);
    }
}

static void flush(struct engine *e)
{
    list_for_each(it, &e->list)
    {
        struct group *g = list_entry(it, struct group, link);
        for (int32_t i = 0; i < g->n_seqs && !g->prefill_only; i++)
            seq_flush(e, g, &g->seqs[i]);
    }
}

bool engine_runnable(const struct engine *e)
{
    list_for_each(it, &e->list)
    {
        const struct group *g = list_entry(it, struct group, link);
        if (g->phase == GROUP_PREFILLING && group_has_work(g) &&
            (kvpool_available(e->pool) > 0 || !seq_wants_block(e, &g->seqs[g->lead])))
            return true;
        for (int32_t i = 0; i < g->n_seqs && !g->prefill_only; i++) {
            const struct seq *s = &g->seqs[i];
            if (seq_can_flush(g, s))
                return true;
            if (g->phase == GROUP_DECODING && wants_more(s) &&
                (g->credits > 0 || !needs_credit(g, s)))
                return true;
        }
    }
    return false;
}

void engine_step(struct engine *e, struct engine_step_info *info)
{
    *info = (struct engine_step_info){0};
    flush(e);
    grammars_tidy(e->grammars);
    int32_t n = collect(e);
    struct plan_result result;
    if (n > 0 && plan(e, n, &result)) {
        struct batch b;
        build(e, n, result.sequences, &b);
        struct model_kv kv = {.pool = e->args.pool, .layout = e->args.layout};
        e->args.runner.forward(e->args.runner.ctx, &b, &kv, e->logits, layer_done, e);
        settle(e, n);
        info->decode_tokens = result.decode_tokens;
        info->prefill_tokens = b.tokens - result.decode_tokens;
        info->sequences = result.sequences;
    }
    kvpool_check(e->pool);
}

void engine_step_took(struct engine *e, const struct engine_step_info *info, int64_t ns)
{
    plan_measure(&e->cost, info->prefill_tokens, info->decode_tokens, ns);
}
