/* One byte on, for all items of a state at once: first every end of a rule is followed back to its
 * callers, then every call that is met is entered, rule by rule in the order of rank, so that all
 * who call a rule at this place are known when its context is made.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tokenizer/grammar/run.h"

#define WORK_MAX (1u << 16)  /* items of one step */
#define SPENT_MAX (1u << 21) /* usual grammars need some thousands; each takes 50 to 100 ns */
#define RANGES_PER_SPENT 16
#define WALK_BYTES_MAX (64u << 20)

static bool spend(struct grammar_run *r, uint32_t n)
{
    r->spent += n;
    return r->spent <= SPENT_MAX;
}

static bool see(struct grammar_run *r, struct run_item item, bool *fresh)
{
    if (r->n_work * 2 >= r->seen_slots) {
        uint32_t n = r->seen_slots ? r->seen_slots * 2 : 64;
        uint32_t *seen = realloc(r->seen, n * sizeof *seen);
        if (!seen)
            return false;
        memset(seen, 0, n * sizeof *seen);
        r->seen = seen;
        r->seen_slots = n;
        for (uint32_t i = 0; i < r->n_work; i++) {
            uint64_t h = hash_bytes(0, &r->work[i], sizeof *r->work);
            while (seen[h & (n - 1)])
                h++;
            seen[h & (n - 1)] = i + 1;
        }
    }
    uint64_t h = hash_bytes(0, &item, sizeof item);
    uint32_t at;
    for (; (at = r->seen[h & (r->seen_slots - 1)]) != 0; h++)
        if (memcmp(&r->work[at - 1], &item, sizeof item) == 0) {
            *fresh = false;
            return true;
        }
    r->seen[h & (r->seen_slots - 1)] = r->n_work + 1;
    *fresh = true;
    return true;
}

/* An item that was reached by a byte. */
static bool add_work(struct grammar_run *r, uint32_t state, uint32_t context)
{
    struct run_item item = {state, context};
    bool fresh;
    if (r->n_work == WORK_MAX || !spend(r, 1) || !see(r, item, &fresh))
        return false;
    if (!fresh)
        return true;
    if (!run_grow((void **)&r->work, &r->cap_work, (uint64_t)r->n_work + 1, sizeof *r->work))
        return false;
    r->work[r->n_work++] = item;
    return true;
}

static bool keep(struct grammar_run *r, uint32_t state, uint32_t context)
{
    if (r->g->states[state].n_ranges == 0)
        return true;
    if (!run_grow((void **)&r->kept, &r->cap_kept, (uint64_t)r->n_kept + 1, sizeof *r->kept))
        return false;
    r->kept[r->n_kept++] = (struct run_item){state, context};
    return true;
}

static bool enter(struct grammar_run *r, uint32_t rule, struct run_frame frame)
{
    uint32_t n = r->pending[rule].n, cap = r->pending[rule].cap, rank = r->g->rules[rule].rank;
    if (n >= WORK_MAX || !spend(r, 1) ||
        !run_grow((void **)&r->pending[rule].v, &r->pending[rule].cap, (uint64_t)n + 1,
                  sizeof frame))
        return false;
    r->cap_pending += r->pending[rule].cap - cap;
    r->pending[rule].v[n] = frame;
    r->pending[rule].n++;
    r->due[rank / 64] |= UINT64_C(1) << (rank % 64);
    return true;
}

/* Calls of a state. One that is the last thing its rule does hands its own context on: right
 * recursion needs no stack. */
static bool enter_calls(struct grammar_run *r, uint32_t state, uint32_t context)
{
    const struct ga_state *s = &r->g->states[state];
    for (uint32_t i = 0; i < s->n_calls; i++) {
        uint32_t index = s->calls + i;
        const struct ga_call *c = &r->g->calls[index];
        if (c->max == 1 && r->g->states[c->to].is_end) {
            const struct run_context *own = &r->contexts[context];
            for (uint32_t k = 0; k < own->n_frames; k++)
                if (!enter(r, c->rule, r->frames[own->frames + k]))
                    return false;
        } else if (!enter(r, c->rule, (struct run_frame){index, 1, context})) {
            return false;
        }
    }
    return true;
}

/* The rule of an item has ended: its callers go on, or begin the next repetition. */
static bool leave(struct grammar_run *r, uint32_t context, bool *complete)
{
    struct run_context own = r->contexts[context];
    for (uint32_t i = 0; i < own.n_frames; i++) {
        struct run_frame f = r->frames[own.frames + i];
        if (f.call == RUN_CALL_ROOT) {
            *complete = true;
            continue;
        }
        const struct ga_call *c = &r->g->calls[f.call];
        if (f.count >= c->min && !add_work(r, c->to, f.context))
            return false;
        if (f.count >= c->max)
            continue;
        uint32_t most = c->min > 1 ? c->min : 1; /* further counts of an endless call are alike */
        if (c->max != GRAMMAR_UNBOUNDED || f.count < most)
            f.count++;
        if (!enter(r, c->rule, f))
            return false;
    }
    return true;
}

static bool follow_ends(struct grammar_run *r, bool *complete)
{
    for (uint32_t i = 0; i < r->n_work; i++) {
        struct run_item item = r->work[i];
        if (!keep(r, item.state, item.context) || !enter_calls(r, item.state, item.context))
            return false;
        if (r->g->states[item.state].accept && !leave(r, item.context, complete))
            return false;
    }
    return true;
}

static bool follow_calls(struct grammar_run *r)
{
    uint32_t words = (r->g->n_rules + 63) / 64;
    for (uint32_t w = 0; w < words; w++) {
        while (r->due[w]) {
            uint32_t rank = w * 64 + (uint32_t)__builtin_ctzll(r->due[w]);
            uint32_t rule = r->g->by_rank[rank], context;
            r->due[w] &= r->due[w] - 1;
            uint32_t n = r->pending[rule].n;
            r->pending[rule].n = 0;
            uint32_t start = r->g->rules[rule].start;
            if (!run_intern_context(r, r->pending[rule].v, n, &context) ||
                !keep(r, start, context) || !enter_calls(r, start, context))
                return false;
        }
    }
    return true;
}

static void abandon(struct grammar_run *r)
{
    for (uint32_t i = 0; i < r->g->n_rules; i++)
        r->pending[i].n = 0;
    memset(r->due, 0, ((r->g->n_rules + 63) / 64) * sizeof *r->due);
}

static bool within_bounds(const struct grammar_run *r)
{
    /* A walk over the vocabulary may need more than the bound that tidying keeps to. */
    return run_known_bytes(r) < r->state_bytes_max + r->mask_bytes_max + WALK_BYTES_MAX;
}

static bool finish_step(struct grammar_run *r, bool *complete, uint32_t *out)
{
    if (!within_bounds(r) || !follow_ends(r, complete) || !follow_calls(r)) {
        abandon(r);
        return false;
    }
    if (r->n_kept == 0 && !*complete) {
        *out = RUN_DEAD;
        return true;
    }
    return run_intern_state(r, *complete, out);
}

static void begin_step(struct grammar_run *r)
{
    r->n_work = r->n_kept = 0;
    if (r->seen_slots > 4096) {
        free(r->seen);
        r->seen = NULL;
        r->seen_slots = 0;
    } else if (r->seen_slots) {
        memset(r->seen, 0, r->seen_slots * sizeof *r->seen);
    }
}

bool run_make_next(struct grammar_run *r, uint32_t state, uint8_t byte, uint32_t *out)
{
    struct run_state from = r->states[state];
    bool complete = false;
    begin_step(r);
    for (uint32_t i = 0; i < from.n_items; i++) {
        struct run_item item = r->items[from.items + i];
        const struct ga_state *s = &r->g->states[item.state];
        if (!spend(r, 1 + s->n_ranges / RANGES_PER_SPENT))
            return false;
        for (uint32_t k = 0; k < s->n_ranges; k++) {
            const struct ga_range *range = &r->g->ranges[s->ranges + k];
            if (range->lo <= byte && byte <= range->hi && !add_work(r, range->to, item.context))
                return false;
        }
    }
    if (!finish_step(r, &complete, out))
        return false;
    r->next[(size_t)state * r->g->n_classes + r->g->classes[byte]] = *out;
    return true;
}

/* The states that always are there: unknown, dead (both empty) and the beginning. */
bool run_make_begin(struct grammar_run *r)
{
    uint32_t state;
    bool complete = r->g->nullable;
    begin_step(r);
    r->spent = 0;
    if (!run_add_state(r, false, &state) || !run_add_state(r, false, &state))
        return false;
    for (uint32_t i = 0; i < r->g->n_classes; i++)
        r->next[RUN_DEAD * r->g->n_classes + i] = RUN_DEAD;
    if (!enter(r, r->g->root, (struct run_frame){RUN_CALL_ROOT, 1, 0}))
        return false;
    return finish_step(r, &complete, &state);
}
