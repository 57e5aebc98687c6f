/* The engine's life, its load, and the check of everything that must hold between steps. */
#include "engine/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/internal.h"

int32_t engine_rows_max(const struct engine_args *args)
{
    return args->max_batch + args->chunk_tokens_max;
}

/* Beyond one for each sequence: for prompts that are scored (engine_score.c). */
#define LOGITS_SPARE 64

int32_t engine_logits_max(const struct engine_args *args)
{
    int32_t spare = args->chunk_tokens_max < LOGITS_SPARE ? args->chunk_tokens_max : LOGITS_SPARE;
    return args->max_batch + spare;
}

static enum status check_args(const struct engine_args *a, struct error *err)
{
    if (a->max_batch < 1 || a->max_batch > 65536 || a->chunk_tokens_max < 1 ||
        a->chunk_tokens_max > 1 << 20)
        return err_set(err, ST_INVALID, "engine: max_batch %d, chunk_tokens_max %d", a->max_batch,
                       a->chunk_tokens_max);
    if (a->layout.blocks < 2 * kv_groups_of(&a->layout) || a->layout.block_tokens < 1)
        return err_set(err, ST_INVALID,
                       "kv: the pool holds %d blocks of %d tokens, at least %d are needed",
                       a->layout.blocks, a->layout.block_tokens, 2 * kv_groups_of(&a->layout));
    if (a->runner.max_context < 2)
        return err_set(err, ST_INVALID,
                       "max_context: %d leaves no room for a prompt and a token, at least 2 needed",
                       a->runner.max_context);
    if (a->max_groups < 1 || a->runner.vocab < 1)
        return err_set(err, ST_INVALID, "engine: max_groups %d, vocabulary %d", a->max_groups,
                       a->runner.vocab);
    return ST_OK;
}

static bool allocate(struct engine *e)
{
    const struct engine_args *a = &e->args;
    size_t rows = (size_t)engine_rows_max(a), batch = (size_t)a->max_batch;
    size_t blocks = (size_t)a->layout.blocks, logits = (size_t)e->logits_max;
    e->pool = kvpool_create(a->layout.blocks);
    e->sampler = sampler_create(a->runner.vocab);
    e->grammars = grammars_create(a->grammar_vocab);
    e->groups = slots_create((size_t)a->max_groups, sizeof(struct group));
    e->eos = calloc((size_t)a->runner.n_eos + 1, sizeof *e->eos);
    e->ids = calloc(rows, sizeof *e->ids);
    e->positions = calloc(rows, sizeof *e->positions);
    e->seq_of = calloc(rows, sizeof *e->seq_of);
    e->logits_rows = calloc(logits, sizeof *e->logits_rows);
    e->tables = calloc(batch * (size_t)e->kv_groups, sizeof *e->tables);
    e->is_long = calloc(batch, sizeof *e->is_long);
    e->logits = malloc(logits * (size_t)a->runner.vocab * sizeof *e->logits);
    e->recount = calloc(blocks, sizeof *e->recount);
    if (e->pool && a->prefix_cache)
        e->prefix = prefix_create(e->pool, &a->layout);
    return e->pool && e->sampler && e->grammars && e->groups && e->eos && e->ids && e->positions &&
           e->seq_of && e->logits_rows && e->tables && e->is_long && e->logits && e->recount &&
           (e->prefix || !a->prefix_cache);
}

/* A sliding group's blocks die as a step's chunk moves on, and what lands is the window and a bit
 * more. Two more: a block at each end. */
static void size_tables(struct engine *e)
{
    const struct engine_args *a = &e->args;
    e->kv_groups = kv_groups_of(&a->layout);
    for (int32_t k = 0; k < e->kv_groups; k++) {
        int32_t window = kv_group_window(&a->layout, k);
        int64_t keep = window > e->block_tokens ? window : e->block_tokens;
        int64_t slack = a->layout.groups ? a->layout.groups->slack : 0;
        int64_t more = a->chunk_tokens_max > slack ? a->chunk_tokens_max : slack;
        e->alive_max[k] = window == 0 || keep + more >= a->runner.max_context
                              ? INT32_MAX
                              : blocks_for(e, (int32_t)(keep + more)) + 2;
    }
}

enum status engine_create(const struct engine_args *args, struct engine **out, struct error *err)
{
    enum status st = check_args(args, err);
    if (st != ST_OK)
        return st;
    struct engine *e = calloc(1, sizeof *e);
    if (e == NULL)
        return err_set(err, ST_NO_MEMORY, "no memory for the engine");
    e->args = *args;
    e->block_tokens = args->layout.block_tokens;
    e->logits_max = engine_logits_max(args);
    e->watermark = args->layout.blocks / 100 > 1 ? args->layout.blocks / 100 : 1;
    size_tables(e);
    list_init(&e->list);
    if (!allocate(e)) {
        engine_destroy(e);
        return err_set(err, ST_NO_MEMORY, "no memory for an engine of %d blocks and %d sequences",
                       args->layout.blocks, args->max_batch);
    }
    if (args->runner.n_eos > 0)
        memcpy(e->eos, args->runner.eos, (size_t)args->runner.n_eos * sizeof *e->eos);
    *out = e;
    return ST_OK;
}

struct grammars *engine_grammars(struct engine *e)
{
    return e->grammars;
}

void engine_destroy(struct engine *e)
{
    if (e == NULL)
        return;
    list_for_each(it, &e->list)
    {
        struct group *g = list_entry(it, struct group, link);
        grammars_give(e->grammars, g->grammar);
        free(g->memory);
    }
    prefix_destroy(e->prefix);
    kvpool_destroy(e->pool);
    sampler_destroy(e->sampler);
    grammars_destroy(e->grammars);
    slots_destroy(e->groups);
    free(e->eos);
    free(e->run);
    free(e->items);
    free(e->ids);
    free(e->positions);
    free(e->seq_of);
    free(e->logits_rows);
    free(e->tables);
    free(e->is_long);
    free(e->logits);
    free(e->recount);
    free(e);
}

void engine_load(const struct engine *e, struct engine_load *out)
{
    *out = (struct engine_load){.prefill_ns_per_token = e->cost.prefill_ns_per_token,
                                .decode_ns_per_step = e->cost.decode_ns_per_step,
                                .prefix_hit_tokens_total = e->prefix_hit_tokens_total,
                                .preemptions_total = e->preemptions_total};
    kvpool_counts(e->pool, &out->blocks);
    list_for_each(it, &e->list)
    {
        const struct group *g = list_entry(it, struct group, link);
        if (g->phase == GROUP_FAILED || g->phase == GROUP_LEFT)
            continue;
        out->groups++;
        if (g->phase == GROUP_PREFILLING)
            out->prefill_tokens_left += g->target - g->seqs[g->lead].computed;
        if (g->phase != GROUP_DECODING) {
            out->waiting += g->phase != GROUP_HOLDING;
            continue;
        }
        for (int32_t i = 0; i < g->n_seqs; i++)
            out->running += !g->seqs[i].done;
    }
}

/* Of a sliding group: as many as can be in use at once, and in the prefill role those besides that
 * a handoff brings, which may begin and end within a block. */
static int64_t sliding_room(const struct engine *e, int32_t k, bool prefill)
{
    const struct kv_layout *l = &e->args.layout;
    int32_t handed = kv_group_window(l, k) + (l->groups ? l->groups->slack : 0);
    return (int64_t)e->alive_max[k] + (prefill ? blocks_for(e, handed - 1) + 1 : 0);
}

/* Groups of layers that see everything need a block for each block_tokens tokens, sliding ones a
 * number that does not grow. */
int64_t engine_room_tokens(const struct engine *e, bool prefill)
{
    int64_t blocks = e->args.layout.blocks, kept = blocks / e->kv_groups, sliding = 0;
    int64_t full = 0, context = blocks_for(e, e->args.runner.max_context);
    for (int32_t k = 0; k < e->kv_groups; k++) {
        full += e->alive_max[k] == INT32_MAX;
        sliding += e->alive_max[k] == INT32_MAX ? 0 : sliding_room(e, k, prefill);
    }
    if (sliding == 0 || sliding >= blocks)
        return kept * e->block_tokens;
    int64_t slid = full > 0 ? (blocks - sliding) / full : context + kept;
    return (slid > kept ? slid : kept) * e->block_tokens;
}

static void check_table(const struct engine *e, const struct group *g, const struct seq *s,
                        int32_t k)
{
    const struct span *span = &s->span[k];
    assert(span->n <= g->cap_blocks && span->first <= span->n);
    assert(span->n == 0 || s->computed <= span->n * e->block_tokens);
    assert(span->hole <= span->hole_end && span->hole_end <= span->n);
    assert(span->hole == span->hole_end || s->computed <= span->hole * e->block_tokens);
    for (int32_t b = span->first; b < span->n; b++) {
        int32_t block = seq_table(g, s, k)[b];
        if (block < 0) {
            assert(kv_group_window(&e->args.layout, k) > 0 || g->phase == GROUP_LEFT);
            continue;
        }
        enum block_state state = kvpool_state(e->pool, block);
        if (state == BLOCK_QUARANTINED) {
            assert(g->phase == GROUP_LEFT && kvpool_refs(e->pool, block) == 0);
            continue;
        }
        e->recount[block]++;
        assert(state != BLOCK_RECEIVING || g->phase == GROUP_FILLING);
        if (b < s->entered && kv_group_window(&e->args.layout, k) == 0)
            assert(e->prefix && prefix_holds(e->prefix, block) && state == BLOCK_RUNNING);
    }
}

static void check_seq(const struct engine *e, const struct group *g, const struct seq *s)
{
    assert(s->n_ids <= g->cap_ids);
    assert(s->computed >= 0 && s->computed <= s->n_ids && s->entered <= s->span[0].n);
    assert((s->entered > 0) == (s->node != PREFIX_NONE));
    assert(!s->held || !s->done);
    for (int32_t k = 0; k < e->kv_groups; k++)
        check_table(e, g, s, k);
}

void engine_check(const struct engine *e)
{
    kvpool_check(e->pool);
    if (e->prefix)
        prefix_check(e->prefix);
    memset(e->recount, 0, (size_t)e->args.layout.blocks * sizeof *e->recount);
    int32_t seqs = 0;
    list_for_each(it, &e->list)
    {
        const struct group *g = list_entry(it, struct group, link);
        seqs += g->n_seqs;
        assert(g->credits >= 0 && g->hit < g->target);
        assert(g->phase != GROUP_PREFILLING || !group_scores_due(g) ||
               g->seqs[g->lead].computed < g->score_at);
        for (int32_t i = 0; i < g->n_seqs; i++)
            check_seq(e, g, &g->seqs[i]);
        for (int32_t i = 0; i < g->n_spare; i++)
            e->recount[g->spare[i]]++;
    }
    assert(seqs == e->live_seqs);
    for (int32_t b = 0; b < e->args.layout.blocks; b++)
        assert(kvpool_refs(e->pool, b) == e->recount[b]);
}

void engine_drop_cache(struct engine *e)
{
    if (e->prefix)
        prefix_clear(e->prefix);
}
