/* Groups: how they come, how their KV arrives, how they leave. */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
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
    size_t n = (size_t)g->n_seqs, round = 16;
    size_t bytes =
        n * (sizeof(struct seq) + (size_t)g->cap_ids * 4 + (size_t)g->cap_blocks * 4 + 2 * round) +
        (size_t)req->n * 4 + req->sampling.stop_ids.n * 4 +
        req->sampling.n_bias * sizeof(struct msg_bias) + 8 * round;
    char *at = g->memory = calloc(1, bytes);
    if (at == NULL || !grow_run(e, e->live_seqs + g->n_seqs))
        return err_set(err, ST_NO_MEMORY, "no memory for a request of %u tokens", req->prompt.n);
    g->seqs = carve(&at, n * sizeof *g->seqs);
    for (size_t i = 0; i < n; i++) {
        g->seqs[i].ids = carve(&at, (size_t)g->cap_ids * 4);
        g->seqs[i].table = carve(&at, (size_t)g->cap_blocks * 4);
    }
    g->spare = carve(&at, (size_t)req->n * 4);
    g->spec = req->sampling;
    int32_t *stop = carve(&at, req->sampling.stop_ids.n * 4);
    if (req->sampling.stop_ids.n > 0)
        memcpy(stop, req->sampling.stop_ids.v, req->sampling.stop_ids.n * 4);
    g->spec.stop_ids.v = stop;
    struct msg_bias *bias = carve(&at, req->sampling.n_bias * sizeof *bias);
    if (req->sampling.n_bias > 0)
        memcpy(bias, req->sampling.bias, req->sampling.n_bias * sizeof *bias);
    g->spec.bias = bias;
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

/* Blocks to promise: those of the target tokens, and one for each choice to grow into (the fork
 * copies the last block into it); the prefill role generates nothing. */
static int32_t blocks_to_promise(const struct engine *e, const struct group *g)
{
    int32_t n = blocks_for(e, g->target);
    if (g->prefill_only)
        return n;
    for (int32_t i = 0; i < g->n_seqs; i++)
        n += !g->seqs[i].done && !g->seqs[i].finishing;
    return n;
}

static void undo_hits(struct engine *e, struct group *g)
{
    seq_drop_blocks(e, g, &g->seqs[g->lead], true);
}

/* The last token is always computed, so the last block of a prompt that is all there cannot be
 * shared: what it holds is copied into a block of our own. */
static enum status take_blocks(struct engine *e, struct group *g, struct error *err)
{
    struct seq *s = &g->seqs[g->lead];
    int32_t total = blocks_to_promise(e, g), prompt_blocks = blocks_for(e, g->target);
    if (total > e->args.layout.blocks)
        return err_set(err, ST_NEVER_FITS, "needs %d KV blocks, the node has %d", total,
                       e->args.layout.blocks);
    if (e->prefix)
        s->n_blocks = prefix_match(e->prefix, g->salt, s->ids, g->target, prompt_blocks, s->table);
    int32_t shared = s->n_blocks, full_hit = -1;
    g->hit = shared * e->block_tokens;
    if (g->hit >= g->target) {
        full_hit = s->table[--shared];
        g->hit = g->target - 1;
    }
    int32_t watermark = slots_count(e->groups) > 1 ? e->watermark : 0, fresh = total - shared;
    int32_t available = kvpool_available(e->pool);
    if (available < fresh + watermark) {
        undo_hits(e, g);
        return err_set(err, ST_BUSY, "needs %d KV blocks, %d are to be had", fresh + watermark,
                       available);
    }
    if (e->prefix)
        prefix_evict(e->prefix, fresh);
    int32_t lead_blocks = prompt_blocks - shared + (total > prompt_blocks);
    bool taken = kvpool_take(e->pool, lead_blocks, s->table + shared);
    if (taken && fresh > lead_blocks) {
        g->n_spare = fresh - lead_blocks;
        taken = kvpool_take(e->pool, g->n_spare, g->spare);
    }
    assert(taken);
    s->n_blocks = shared + lead_blocks;
    if (full_hit >= 0) {
        engine_copy_block(e, full_hit, s->table[shared]);
        if (kvpool_unref(e->pool, full_hit, true) == 0)
            prefix_release(e->prefix, full_hit);
    }
    g->hit_blocks = s->entered = shared;
    s->computed = g->hit;
    e->prefix_hit_tokens_total += g->hit;
    return ST_OK;
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
    const char *salt = req->cache_salt ? req->cache_salt : "";
    g->salt = hash_bytes(rng_mix(e->args.salt), salt, strlen(salt));
    st = allocate(e, g, req, err);
    if (st != ST_OK)
        goto fail;
    fill_sequences(e, g, req);
    st = take_blocks(e, g, err);
    if (st != ST_OK)
        goto fail;
    list_push_back(&e->list, &g->link);
    e->live_seqs += g->n_seqs;
    *out = id;
    *have = g->hit;
    return ST_OK;
fail:
    free(g->memory);
    slots_free(e->groups, id);
    return st;
}

int32_t engine_transfer_tokens(struct engine *e, group_id id)
{
    return group_get(e, id)->target;
}

const int32_t *engine_begin_fill(struct engine *e, group_id id, int32_t *n_blocks)
{
    struct group *g = group_get(e, id);
    struct seq *s = &g->seqs[g->lead];
    group_move(g, GROUP_FILLING);
    *n_blocks = blocks_for(e, g->target);
    for (int32_t i = g->hit / e->block_tokens; i < *n_blocks; i++)
        kvpool_move(e->pool, s->table[i], BLOCK_RECEIVING);
    return s->table;
}

/* A choice takes the lead's full blocks, and a copy of the last one if that is partial. */
static void share_blocks(struct engine *e, struct group *g, const struct seq *lead, struct seq *s)
{
    int32_t full = g->target / e->block_tokens, used = blocks_for(e, g->target);
    for (int32_t i = 0; i < full; i++) {
        kvpool_ref(e->pool, lead->table[i]);
        s->table[i] = lead->table[i];
    }
    assert(g->n_spare > 0);
    s->table[full] = g->spare[--g->n_spare];
    if (used > full) {
        engine_copy_block(e, lead->table[full], s->table[full]);
        kvpool_move(e->pool, s->table[full], BLOCK_RUNNING);
    }
    s->n_blocks = full + 1;
    s->computed = lead->computed;
    s->entered = lead->entered;
    s->enter = lead->enter;
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

void engine_fill_done(struct engine *e, group_id id, const struct msg_token *first, int32_t n_first)
{
    struct group *g = group_get(e, id);
    struct seq *lead = &g->seqs[g->lead];
    if (g->phase == GROUP_FAILED)
        return;
    assert(g->phase == GROUP_FILLING);
    for (int32_t i = 0; i < blocks_for(e, g->target); i++)
        kvpool_move(e->pool, lead->table[i], BLOCK_RUNNING);
    lead->computed = g->target;
    seq_enter_blocks(e, g, lead);
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
    for (int32_t i = 0; i < lead->n_blocks; i++)
        if (kvpool_state(e->pool, lead->table[i]) == BLOCK_RECEIVING)
            kvpool_move(e->pool, lead->table[i], BLOCK_RESERVED);
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
    e->live_seqs -= g->n_seqs;
    free(g->memory);
    slots_free(e->groups, g->id);
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
    /* Blocks that are shared or entered keep our reference until then: whoever else holds them may
     * go first. */
    for (int32_t i = 0; i < g->n_seqs; i++) {
        struct seq *s = &g->seqs[i];
        for (int32_t b = 0; b < s->n_blocks; b++)
            if (kvpool_refs(e->pool, s->table[b]) == 1 &&
                !(e->prefix && prefix_holds(e->prefix, s->table[b])))
                kvpool_quarantine(e->pool, s->table[b]);
    }
    while (g->n_spare > 0)
        kvpool_unref(e->pool, g->spare[--g->n_spare], false);
}

void engine_quiet(struct engine *e, group_id id)
{
    struct group *g = group_get(e, id);
    assert(g->phase == GROUP_LEFT);
    for (int32_t i = 0; i < g->n_seqs; i++) {
        struct seq *s = &g->seqs[i];
        int32_t kept = 0;
        for (int32_t b = 0; b < s->n_blocks; b++) {
            if (kvpool_state(e->pool, s->table[b]) == BLOCK_QUARANTINED)
                kvpool_quiet(e->pool, s->table[b]);
            else
                s->table[kept++] = s->table[b];
        }
        s->n_blocks = kept;
    }
    group_drop_blocks(e, g, true);
    forget_group(e, g);
}

int32_t engine_group_cached(struct engine *e, group_id id)
{
    return group_get(e, id)->hit;
}
