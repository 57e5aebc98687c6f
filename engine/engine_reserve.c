/* Reserving: checking a request, giving it memory, finding its prefix, taking its blocks. */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "engine/internal.h"

static enum status check_ids(const struct engine *e, const struct msg_ids *ids, const char *what,
                             struct error *err)
{
    for (uint32_t i = 0; i < ids->n; i++)
        if (ids->v[i] < 0 || ids->v[i] >= e->args.runner.vocab)
            return err_set(err, ST_INVALID,
                           "%s: token id %d at %u is not below the vocabulary's %d", what,
                           ids->v[i], i, e->args.runner.vocab);
    return ST_OK;
}

static enum status check_request(const struct engine *e, const struct engine_request *req,
                                 struct error *err)
{
    int32_t context = e->args.runner.max_context;
    if (req->prompt.n == 0)
        return err_set(err, ST_INVALID, "the prompt is empty");
    if (req->n < 1 || req->n > MSG_CHOICES_MAX)
        return err_set(err, ST_INVALID, "n: %d is not within 1..%d", req->n, MSG_CHOICES_MAX);
    if (req->prompt.n >= (uint32_t)context)
        return err_set(
            err, ST_NEVER_FITS,
            "the prompt has %u tokens, the model's context %d and one is to be generated",
            req->prompt.n, context);
    if (req->history_prompt < 0 || (uint32_t)req->history_prompt > req->prompt.n)
        return err_set(err, ST_INVALID, "history_prompt: %d of %u prompt tokens",
                       req->history_prompt, req->prompt.n);
    if (req->scoring.begin < 0 || (uint32_t)req->scoring.begin > req->prompt.n ||
        req->scoring.top < 0 || req->scoring.top > MSG_LOGPROBS_MAX)
        return err_set(err, ST_INVALID, "scoring: %d of the prompt from position %d of %u",
                       req->scoring.top, req->scoring.begin, req->prompt.n);
    enum status st = sampling_check(&req->sampling, e->args.runner.vocab, err);
    if (st == ST_OK)
        st = check_ids(e, &req->prompt, "prompt", err);
    for (int32_t i = 0; st == ST_OK && req->emitted && i < req->n; i++) {
        if (req->prompt.n + (uint64_t)req->emitted[i].n > (uint64_t)context)
            return err_set(err, ST_NEVER_FITS, "prompt and emitted tokens exceed the context %d",
                           context);
        st = check_ids(e, &req->emitted[i], "emitted", err);
    }
    return st;
}

/* The arrays that a step walks hold every live sequence; they grow here, never in a step. */
static bool grow_run(struct engine *e, int32_t n)
{
    if (n <= e->cap_run)
        return true;
    int32_t cap = e->cap_run * 2 > n ? e->cap_run * 2 : n;
    void *run = realloc(e->run, (size_t)cap * sizeof *e->run);
    if (run != NULL)
        e->run = run;
    void *items = realloc(e->items, (size_t)cap * sizeof *e->items);
    if (items != NULL)
        e->items = items;
    if (run == NULL || items == NULL)
        return false;
    e->cap_run = cap;
    return true;
}

static void *carve(char **at, size_t bytes)
{
    void *p = *at;
    *at += (bytes + 15) / 16 * 16;
    return p;
}

/* One allocation for everything that the group will ever need. */
static enum status allocate(struct engine *e, struct group *g, const struct engine_request *req,
                            struct error *err)
{
    int64_t emitted = 0;
    for (int32_t i = 0; req->emitted && i < req->n; i++)
        if (req->emitted[i].n > emitted)
            emitted = req->emitted[i].n;
    int64_t longest = req->prompt.n + (req->prefill_only ? 0 : (int64_t)req->sampling.max_tokens);
    if (longest > e->args.runner.max_context)
        longest = e->args.runner.max_context;
    if (longest < req->prompt.n + emitted)
        longest = req->prompt.n + emitted;
    g->n_seqs = req->prefill_only ? 1 : req->n;
    g->cap_ids = (int32_t)longest + 1;
    g->cap_blocks = blocks_for(e, g->cap_ids) + 2;
    size_t n = (size_t)g->n_seqs, tables = (size_t)e->kv_groups, round = 16;
    size_t table = tables * (size_t)g->cap_blocks * 4, spans = tables * sizeof(struct span);
    size_t bytes = n * (sizeof(struct seq) + (size_t)g->cap_ids * 4 + table + spans + 3 * round) +
                   (size_t)req->n * tables * 4 + req->sampling.stop_ids.n * 4 +
                   req->sampling.n_bias * sizeof(struct msg_bias) + 8 * round;
    char *at = g->memory = calloc(1, bytes);
    if (at == NULL || !grow_run(e, e->live_seqs + g->n_seqs))
        return err_set(err, ST_NO_MEMORY, "no memory for a request of %u tokens", req->prompt.n);
    g->seqs = carve(&at, n * sizeof *g->seqs);
    for (size_t i = 0; i < n; i++) {
        g->seqs[i].ids = carve(&at, (size_t)g->cap_ids * 4);
        g->seqs[i].table = carve(&at, table);
        g->seqs[i].span = carve(&at, spans);
        g->seqs[i].node = PREFIX_NONE;
    }
    g->spare = carve(&at, (size_t)req->n * tables * 4);
    g->spec = req->sampling;
    int32_t *stop = carve(&at, req->sampling.stop_ids.n * 4);
    if (req->sampling.stop_ids.n > 0)
        memcpy(stop, req->sampling.stop_ids.v, req->sampling.stop_ids.n * 4);
    g->spec.stop_ids.v = stop;
    struct msg_bias *bias = carve(&at, req->sampling.n_bias * sizeof *bias);
    if (req->sampling.n_bias > 0)
        memcpy(bias, req->sampling.bias, req->sampling.n_bias * sizeof *bias);
    g->spec.bias = bias;
    g->spec.grammar = (struct msg_grammar){0}; /* the compiled one stands for it */
    return ST_OK;
}

static void fill_sequences(struct engine *e, struct group *g, const struct engine_request *req)
{
    for (int32_t i = g->n_seqs - 1; i >= 0; i--) {
        struct seq *s = &g->seqs[i];
        memcpy(s->ids, req->prompt.v, req->prompt.n * sizeof *s->ids);
        s->n_ids = (int32_t)req->prompt.n;
        s->enter = true;
        if (!req->prefill_only && req->emitted && req->emitted[i].n > 0) {
            memcpy(s->ids + s->n_ids, req->emitted[i].v, req->emitted[i].n * sizeof *s->ids);
            s->n_ids += (int32_t)req->emitted[i].n;
        }
        s->done = !req->prefill_only && req->finished && req->finished[i];
        if (!req->prefill_only)
            seq_note_finish(e, g, s);
        if (!s->done && !s->finishing)
            g->lead = i;
    }
    g->target = (int32_t)req->prompt.n;
    if (req->n == 1)
        g->target = g->seqs[0].n_ids;
}

static int32_t live_choices(const struct group *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_seqs && !g->prefill_only; i++)
        n += !g->seqs[i].done && !g->seqs[i].finishing;
    return n;
}

/* Where the lead's table has a hole, in the prefill role: before what the handoff brings, behind as
 * many blocks as can be in use at once. */
static struct span with_hole(const struct engine *e, const struct group *g, int32_t k,
                             int32_t shared)
{
    struct span s = {.n = blocks_for(e, g->target)};
    int32_t handed = kv_groups_need_from(e->args.layout.groups, k, g->target) / e->block_tokens;
    if (!g->prefill_only || handed - shared <= e->alive_max[k])
        return s;
    s.hole = shared + e->alive_max[k];
    s.hole_end = handed;
    return s;
}

/* Blocks of a group of layers to promise to the lead behind `shared`: those of the target tokens
 * and one to grow into (the prefill role generates nothing), but no more than are ever in use at
 * once: what comes later takes the place of what is given back, or of another's blocks as a
 * generation does. */
static int32_t lead_blocks(const struct engine *e, const struct group *g, int32_t k, int32_t shared)
{
    const struct span s = with_hole(e, g, k, shared);
    int32_t n = s.n - (s.hole_end - s.hole) - shared + (live_choices(g) > 0);
    return g->prefill_only || n < e->alive_max[k] ? n : e->alive_max[k];
}

/* Of each group of layers for each choice but the lead: the fork copies the last block into it. */
static int32_t spare_blocks(const struct engine *e, const struct group *g)
{
    int32_t live = live_choices(g);
    return live > 1 ? (live - 1) * e->kv_groups : 0;
}

static int32_t blocks_to_promise(const struct engine *e, const struct group *g, int32_t shared)
{
    int32_t n = spare_blocks(e, g);
    for (int32_t k = 0; k < e->kv_groups; k++)
        n += lead_blocks(e, g, k, shared);
    return n;
}

/* Rows whose logits are wanted have to be computed. */
static int32_t blocks_to_match(const struct engine *e, const struct group *g)
{
    return group_scores_due(g) ? (g->score_at - 1) / e->block_tokens : blocks_for(e, g->target);
}

static void match_prefix(struct engine *e, struct group *g, struct prefix_hit *hit)
{
    struct seq *s = &g->seqs[g->lead];
    const struct prefix_seq as = seq_in_prefix(g, s);
    int32_t most = blocks_to_match(e, g), full = g->target / e->block_tokens;
    prefix_match(e->prefix, &as, most < full ? most : full, g->prefill_only ? g->target : 0, hit);
    for (int32_t k = 0; k < e->kv_groups; k++)
        s->span[k] = (struct span){.first = hit->first[k], .n = hit->n_blocks};
}

/* A hit's last block that cannot be shared is copied into the first block of our own. */
static void copy_last(struct engine *e, struct group *g, const int32_t *last)
{
    for (int32_t k = 0; k < e->kv_groups; k++) {
        engine_copy_block(e, last[k], seq_table(g, &g->seqs[g->lead], k)[g->hit_blocks]);
        engine_drop_block(e, last[k]);
    }
}

/* Moves what the handoff brings to where it belongs. */
static void open_hole(struct engine *e, struct group *g, int32_t k, int32_t shared)
{
    struct seq *s = &g->seqs[g->lead];
    const struct span to = with_hole(e, g, k, shared);
    int32_t *table = seq_table(g, s, k), hole = to.hole_end - to.hole;
    if (hole == 0)
        return;
    memmove(table + to.hole_end, table + to.hole, (size_t)(to.n - to.hole_end) * sizeof *table);
    for (int32_t i = to.hole; i < to.hole_end; i++)
        table[i] = -1;
    s->span[k] = (struct span){s->span[k].first, to.n, to.hole, to.hole_end};
}

static void promise(struct engine *e, struct group *g)
{
    struct seq *s = &g->seqs[g->lead];
    int32_t shared = g->hit_blocks;
    if (e->prefix)
        prefix_evict(e->prefix, blocks_to_promise(e, g, shared));
    bool taken = true;
    for (int32_t k = 0; k < e->kv_groups; k++) {
        int32_t n = lead_blocks(e, g, k, shared);
        taken = taken && kvpool_take(e->pool, n, seq_table(g, s, k) + shared);
        s->span[k].n = shared + n;
        open_hole(e, g, k, shared);
    }
    g->n_spare = spare_blocks(e, g);
    taken = taken && kvpool_take(e->pool, g->n_spare, g->spare);
    assert(taken);
}

/* Prefills that wait for a block come before whoever is new. */
static int32_t count_starved(const struct engine *e)
{
    int32_t n = 0;
    list_for_each(it, &e->list)
    {
        const struct group *g = list_entry(it, struct group, link);
        n += g->phase == GROUP_PREFILLING && seq_wants_block(e, &g->seqs[g->lead]);
    }
    return n;
}

/* With what the index has of the prompt, or without it. The last token is always computed, so the
 * last block of a prompt that is all there cannot be shared: what it holds is copied into a block
 * of our own. ST_BUSY: there are not enough blocks. */
static enum status take_blocks(struct engine *e, struct group *g, bool match, struct error *err)
{
    struct seq *s = &g->seqs[g->lead];
    struct prefix_hit hit = {.node = PREFIX_NONE};
    int32_t last[KV_GROUPS_MAX];
    if (match)
        match_prefix(e, g, &hit);
    int32_t shared = hit.n_blocks, node = hit.node;
    bool all = shared > 0 && shared * e->block_tokens >= g->target;
    if (all) {
        shared--;
        node = prefix_parent(e->prefix, node);
    }
    int32_t fresh = blocks_to_promise(e, g, shared), available = kvpool_available(e->pool);
    int32_t watermark = slots_count(e->groups) > 1 ? e->watermark + count_starved(e) : 0;
    if (available < fresh + watermark) {
        seq_drop_blocks(e, g, s, true);
        return err_set(err, ST_BUSY, "needs %d KV blocks, %d are to be had", fresh + watermark,
                       available);
    }
    for (int32_t k = 0; k < e->kv_groups && all; k++)
        last[k] = seq_table(g, s, k)[shared];
    seq_stand_on(e, s, node);
    g->hit_blocks = s->entered = shared;
    promise(e, g);
    if (all)
        copy_last(e, g, last);
    g->hit = s->computed = all ? g->target - 1 : shared * e->block_tokens;
    e->prefix_hit_tokens_total += g->hit;
    return ST_OK;
}

static enum status reserve_blocks(struct engine *e, struct group *g, struct error *err)
{
    int32_t total = blocks_to_promise(e, g, 0);
    if (total > e->args.layout.blocks)
        return err_set(err, ST_NEVER_FITS, "needs %d KV blocks, the node has %d", total,
                       e->args.layout.blocks);
    enum status st = take_blocks(e, g, e->prefix != NULL, err);
    /* What a hit keeps from eviction may be what is missing. */
    return st == ST_BUSY && e->prefix ? take_blocks(e, g, false, err) : st;
}

static bool follows_grammar(const struct engine_request *req)
{
    bool samples = !req->prefill_only || req->want_first;
    return samples && req->sampling.grammar.kind != MSG_GRAMMAR_NONE;
}

bool engine_lacks_grammar(const struct engine *e, const struct engine_request *req)
{
    return follows_grammar(req) && grammars_lacks(e->grammars, &req->sampling.grammar);
}

enum status engine_reserve(struct engine *e, const struct engine_request *req, group_id *out,
                           int32_t *have, struct error *err)
{
    enum status st = check_request(e, req, err);
    if (st != ST_OK)
        return st;
    group_id id;
    struct group *g = slots_alloc(e->groups, &id);
    if (g == NULL)
        return err_set(err, ST_BUSY, "the node has %d requests already", e->args.max_groups);
    g->id = id;
    g->user = req->user;
    g->n = req->n;
    g->prefill_only = req->prefill_only;
    g->want_first = req->want_first;
    g->credits = req->credits > 0 ? req->credits : 0;
    g->n_prompt = req->history_prompt > 0 ? req->history_prompt : (int32_t)req->prompt.n;
    g->score_at = req->scoring.begin;
    g->score_top = req->scoring.top;
    const char *salt = req->cache_salt ? req->cache_salt : "";
    const struct engine_runner *runner = &e->args.runner;
    g->is_long = runner->is_long != NULL && runner->is_long(runner->ctx, g->n_prompt);
    g->salt = hash_bytes(rng_mix(e->args.salt + g->is_long), salt, strlen(salt));
    if (follows_grammar(req)) {
        st = grammars_take(e->grammars, &req->sampling.grammar, &g->grammar, err);
        if (st != ST_OK)
            goto fail;
    }
    st = allocate(e, g, req, err);
    if (st != ST_OK)
        goto fail;
    fill_sequences(e, g, req);
    st = reserve_blocks(e, g, err);
    if (st != ST_OK)
        goto fail;
    list_push_back(&e->list, &g->link);
    e->live_seqs += g->n_seqs;
    *out = id;
    *have = g->hit;
    return ST_OK;
fail:
    grammars_give(e->grammars, g->grammar);
    free(g->memory);
    slots_free(e->groups, id);
    return st;
}
