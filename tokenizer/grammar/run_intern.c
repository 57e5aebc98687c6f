/* Contexts and states of a run: one index for each content. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tokenizer/grammar/run.h"

bool run_grow(void **v, uint32_t *cap, uint64_t want, size_t bytes)
{
    if (want <= *cap)
        return true;
    uint64_t more = *cap ? (uint64_t)*cap * 2 : 64;
    while (more < want)
        more *= 2;
    if (more > UINT32_MAX / 2)
        return false;
    void *to = realloc(*v, more * bytes);
    if (!to)
        return false;
    *v = to;
    *cap = (uint32_t)more;
    return true;
}

static bool table_grow(struct run_table *t)
{
    if ((uint64_t)t->n * 2 < t->n_slots)
        return true;
    uint32_t n = t->n_slots ? t->n_slots * 2 : 256;
    uint32_t *slots = calloc(n, 2 * sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t i = 0; i < t->n_slots; i++) {
        uint32_t index = t->slots[2 * i], hash = t->slots[2 * i + 1], at = hash & (n - 1);
        if (!index)
            continue;
        while (slots[2 * at])
            at = (at + 1) & (n - 1);
        slots[2 * at] = index;
        slots[2 * at + 1] = hash;
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
    return true;
}

/* Walks the entries with this hash: the next index, or UINT32_MAX with *at the free slot. */
static uint32_t table_probe(const struct run_table *t, uint32_t hash, uint32_t *at)
{
    while (t->slots[2 * *at]) {
        uint32_t here = *at;
        *at = (*at + 1) & (t->n_slots - 1);
        if (t->slots[2 * here + 1] == hash)
            return t->slots[2 * here] - 1;
    }
    return UINT32_MAX;
}

static void table_put(struct run_table *t, uint32_t hash, uint32_t at, uint32_t index)
{
    t->slots[2 * at] = index + 1;
    t->slots[2 * at + 1] = hash;
    t->n++;
}

static int by_frame(const void *a, const void *b)
{
    const struct run_frame *x = a, *y = b;
    if (x->call != y->call)
        return x->call < y->call ? -1 : 1;
    if (x->count != y->count)
        return x->count < y->count ? -1 : 1;
    return x->context < y->context ? -1 : x->context > y->context;
}

static int by_item(const void *a, const void *b)
{
    const struct run_item *x = a, *y = b;
    if (x->state != y->state)
        return x->state < y->state ? -1 : 1;
    return x->context < y->context ? -1 : x->context > y->context;
}

bool run_intern_context(struct grammar_run *r, struct run_frame *v, uint32_t n, uint32_t *out)
{
    uint32_t kept = 0;
    if (n > 1)
        qsort(v, n, sizeof *v, by_frame);
    for (uint32_t i = 0; i < n; i++)
        if (i == 0 || by_frame(&v[i], &v[kept - 1]) != 0)
            v[kept++] = v[i];
    n = kept;
    struct run_table *t = &r->context_table;
    if (!table_grow(t))
        return false;
    uint32_t hash = (uint32_t)hash_bytes(n, v, n * sizeof *v), at = hash & (t->n_slots - 1), i;
    while ((i = table_probe(t, hash, &at)) != UINT32_MAX) {
        const struct run_context *c = &r->contexts[i];
        if (c->n_frames == n && memcmp(r->frames + c->frames, v, n * sizeof *v) == 0) {
            *out = i;
            return true;
        }
    }
    if (!run_grow((void **)&r->contexts, &r->cap_contexts, (uint64_t)r->n_contexts + 1,
                  sizeof *r->contexts) ||
        !run_grow((void **)&r->frames, &r->cap_frames, (uint64_t)r->n_frames + n,
                  sizeof *r->frames))
        return false;
    r->contexts[r->n_contexts] = (struct run_context){.frames = r->n_frames, .n_frames = n};
    memcpy(r->frames + r->n_frames, v, n * sizeof *v);
    r->n_frames += n;
    table_put(t, hash, at, r->n_contexts);
    *out = r->n_contexts++;
    return true;
}

static bool room_for_state(struct grammar_run *r)
{
    size_t row = r->g->n_classes, want = ((size_t)r->n_states + 1) * row;
    if (!run_grow((void **)&r->states, &r->cap_states, (uint64_t)r->n_states + 1,
                  sizeof *r->states) ||
        !run_grow((void **)&r->items, &r->cap_items, (uint64_t)r->n_items + r->n_kept,
                  sizeof *r->items))
        return false;
    if (want > r->cap_next) {
        size_t more = r->cap_next ? r->cap_next * 2 : 64 * row;
        uint32_t *next = realloc(r->next, more * sizeof *next);
        if (!next)
            return false;
        r->next = next;
        r->cap_next = more;
    }
    return true;
}

bool run_add_state(struct grammar_run *r, bool complete, uint32_t *out)
{
    if (!room_for_state(r))
        return false;
    r->states[r->n_states] =
        (struct run_state){.items = r->n_items, .n_items = r->n_kept, .complete = complete};
    if (r->n_kept)
        memcpy(r->items + r->n_items, r->kept, r->n_kept * sizeof *r->kept);
    r->n_items += r->n_kept;
    memset(r->next + (size_t)r->n_states * r->g->n_classes, 0, r->g->n_classes * sizeof *r->next);
    *out = r->n_states++;
    return true;
}

bool run_intern_state(struct grammar_run *r, bool complete, uint32_t *out)
{
    struct run_item *v = r->kept;
    if (r->n_kept > 1)
        qsort(v, r->n_kept, sizeof *v, by_item);
    struct run_table *t = &r->state_table;
    if (!table_grow(t))
        return false;
    size_t bytes = r->n_kept * sizeof *v;
    uint32_t hash = (uint32_t)hash_bytes(complete, v, bytes), at = hash & (t->n_slots - 1), i;
    while ((i = table_probe(t, hash, &at)) != UINT32_MAX) {
        const struct run_state *s = &r->states[i];
        if (s->n_items == r->n_kept && s->complete == complete &&
            (bytes == 0 || memcmp(r->items + s->items, v, bytes) == 0)) {
            *out = i;
            return true;
        }
    }
    if (!run_add_state(r, complete, out))
        return false;
    table_put(t, hash, at, *out);
    return true;
}

static void table_clear(struct run_table *t)
{
    if (t->n_slots)
        memset(t->slots, 0, (size_t)t->n_slots * 2 * sizeof *t->slots);
    t->n = 0;
}

void run_forget_states(struct grammar_run *r)
{
    r->n_items = r->n_frames = r->n_contexts = r->n_states = 0;
    table_clear(&r->context_table);
    table_clear(&r->state_table);
}
