#include "tokenizer/grammar/run.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STATE_BYTES_MAX (8u << 20)
#define MASK_BYTES_MAX (16u << 20)

size_t grammar_bytes(const struct grammar *g)
{
    return sizeof *g + g->n_states * sizeof *g->states + g->n_ranges * sizeof *g->ranges +
           g->n_calls * sizeof *g->calls + g->n_rules * (sizeof *g->rules + sizeof *g->by_rank);
}

static enum status no_memory(struct error *err)
{
    return err_set(err, ST_NO_MEMORY, "no memory for the grammar's states");
}

static enum status too_ambiguous(struct error *err)
{
    return err_set(err, ST_UNSUPPORTED, "the grammar is too ambiguous to follow");
}

enum status grammar_run_create(const struct grammar *g, const struct grammar_vocab *vocab,
                               struct grammar_run **out, struct error *err)
{
    struct grammar_run *r = calloc(1, sizeof *r);
    if (!r)
        return no_memory(err);
    r->g = g;
    r->vocab = vocab;
    r->state_bytes_max = STATE_BYTES_MAX;
    r->mask_bytes_max = MASK_BYTES_MAX;
    r->pending = calloc(g->n_rules, sizeof *r->pending);
    r->due = calloc((g->n_rules + 63) / 64, sizeof *r->due);
    if (vocab) {
        r->mask_words = ((uint32_t)vocab->size + 63) / 64;
        r->path = calloc(vocab->depth_max + 1, sizeof *r->path);
    }
    if (!r->pending || !r->due || (vocab && !r->path)) {
        grammar_run_free(r);
        return no_memory(err);
    }
    if (!run_make_begin(r)) {
        grammar_run_free(r);
        return too_ambiguous(err);
    }
    *out = r;
    return ST_OK;
}

void grammar_run_free(struct grammar_run *r)
{
    if (!r)
        return;
    run_forget_masks(r);
    free(r->items);
    free(r->frames);
    free(r->contexts);
    free(r->states);
    free(r->next);
    free(r->context_table.slots);
    free(r->state_table.slots);
    for (uint32_t i = 0; r->pending && i < r->g->n_rules; i++)
        free(r->pending[i].v);
    free(r->pending);
    free(r->due);
    free(r->path);
    free(r->work);
    free(r->kept);
    free(r->seen);
    free(r->met);
    free(r->to_touch);
    free(r->masks);
    free(r->patterns);
    free(r->words);
    free(r);
}

void grammar_run_bound(struct grammar_run *r, size_t state_bytes, size_t mask_bytes)
{
    r->state_bytes_max = state_bytes;
    r->mask_bytes_max = mask_bytes;
}

size_t run_known_bytes(const struct grammar_run *r)
{
    return r->n_items * sizeof *r->items + r->n_frames * sizeof *r->frames +
           r->n_contexts * (sizeof *r->contexts + 16) +
           (size_t)r->n_states * (sizeof *r->states + 16 + r->g->n_classes * sizeof *r->next) +
           (size_t)r->n_masks * r->mask_words * sizeof **r->masks + r->n_words * sizeof *r->words;
}

static size_t table_bytes(const struct run_table *t)
{
    return 2 * (size_t)t->n_slots * sizeof *t->slots;
}

static size_t scratch_bytes(const struct grammar_run *r)
{
    return ((size_t)r->cap_work + r->cap_kept) * sizeof *r->work + r->seen_slots * sizeof *r->seen +
           r->g->n_rules * sizeof *r->pending + r->cap_pending * sizeof *r->pending->v +
           (r->g->n_rules + 63) / 64 * sizeof *r->due +
           ((size_t)r->cap_met + r->cap_to_touch) * sizeof *r->met +
           (r->vocab ? (r->vocab->depth_max + 1) * sizeof *r->path : 0);
}

size_t grammar_run_bytes(const struct grammar_run *r)
{
    return sizeof *r + r->cap_items * sizeof *r->items + r->cap_frames * sizeof *r->frames +
           r->cap_contexts * sizeof *r->contexts + r->cap_states * sizeof *r->states +
           r->cap_next * sizeof *r->next + table_bytes(&r->context_table) +
           table_bytes(&r->state_table) + scratch_bytes(r) + r->cap_masks * sizeof *r->masks +
           (size_t)r->n_masks * (r->mask_words + 1) * sizeof **r->masks +
           r->cap_patterns * sizeof *r->patterns + r->cap_words * sizeof *r->words;
}

/* Begins again in the memory that is there. */
static void forget_in_place(struct grammar_run *r)
{
    run_forget_masks(r);
    run_forget_states(r);
    bool ok = run_make_begin(r);
    assert(ok);
    (void)ok;
}

void grammar_run_forget(struct grammar_run *r)
{
    struct grammar_run old = *r, *fresh = NULL;
    if (grammar_run_create(r->g, r->vocab, &fresh, NULL) == ST_OK) {
        *r = *fresh;
        *fresh = old;
        grammar_run_free(fresh); /* what was learned, memory and all */
    } else {
        forget_in_place(r);
    }
    r->state_bytes_max = old.state_bytes_max;
    r->mask_bytes_max = old.mask_bytes_max;
    r->stats = old.stats;
    r->stats.forgotten++;
    r->epoch = old.epoch + 1;
}

void grammar_run_tidy(struct grammar_run *r)
{
    size_t masks = (size_t)r->n_masks * r->mask_words * sizeof **r->masks;
    if (run_known_bytes(r) - masks > r->state_bytes_max) {
        grammar_run_forget(r);
    } else if (masks > r->mask_bytes_max) {
        run_forget_masks(r);
        r->stats.forgotten++;
    }
}

bool grammar_is_stale(const struct grammar_run *r, const struct grammar_state *s)
{
    return s->epoch != r->epoch;
}

struct grammar_state grammar_begin(struct grammar_run *r)
{
    return (struct grammar_state){r->epoch, RUN_BEGIN};
}

enum status grammar_accept_bytes(struct grammar_run *r, struct grammar_state *s, const char *bytes,
                                 size_t len, struct error *err)
{
    assert(s->epoch == r->epoch);
    uint32_t at = s->at;
    r->spent = 0;
    for (size_t i = 0; i < len; i++) {
        if (!run_next(r, at, (uint8_t)bytes[i], &at))
            return too_ambiguous(err);
        if (at == RUN_DEAD)
            return err_set(err, ST_INVALID, "the grammar does not go on like this");
    }
    s->at = at;
    return ST_OK;
}

enum status grammar_accept(struct grammar_run *r, struct grammar_state *s, int32_t id,
                           struct error *err)
{
    const struct grammar_vocab *v = r->vocab;
    if (id < 0 || id >= v->size || v->offsets[id] == v->offsets[id + 1])
        return err_set(err, ST_INVALID, "token %d stands for no text", id);
    return grammar_accept_bytes(r, s, v->bytes + v->offsets[id],
                                v->offsets[id + 1] - v->offsets[id], err);
}

enum status grammar_replay(struct grammar_run *r, const int32_t *ids, size_t n,
                           struct grammar_state *out, struct error *err)
{
    struct grammar_state s = grammar_begin(r);
    for (size_t i = 0; i < n; i++) {
        enum status st = grammar_accept(r, &s, ids[i], err);
        if (st != ST_OK)
            return st;
    }
    *out = s;
    return ST_OK;
}

bool grammar_is_complete(const struct grammar_run *r, const struct grammar_state *s)
{
    assert(s->epoch == r->epoch);
    return r->states[s->at].complete;
}

bool grammar_is_over(const struct grammar_run *r, const struct grammar_state *s)
{
    return grammar_is_complete(r, s) && r->states[s->at].n_items == 0;
}

void grammar_run_stats(const struct grammar_run *r, struct grammar_run_stats *out)
{
    *out = r->stats;
    out->states = r->n_states;
    out->masks = r->n_masks;
}
