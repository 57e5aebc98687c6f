#include "base/work.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/team.h"

#define LINE 64
#define OTHERS_MAX 8 /* whose shares are looked at: a look at a busy line costs its owner too */

/* What was taken of one share, under the number of the work that it was taken for: a number that is
 * not this work's says that nothing was, so that no slot is ever cleared. */
struct share {
    _Alignas(LINE) _Atomic uint64_t turn_taken;
};

struct place {
    _Alignas(LINE) uint32_t turn;
    size_t n, grain;
    int others; /* whose shares are empty, from its own on */
};

struct work {
    int parts;
    struct place *places; /* [parts] */
    struct share *shares; /* [WORK_SLOTS][parts] */
};

static void *zeros(size_t bytes)
{
    void *p = aligned_alloc(LINE, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

struct work *work_create(int parts)
{
    struct work *w = calloc(1, sizeof *w);
    assert(parts >= 1);
    if (!w)
        return NULL;
    w->parts = parts;
    w->places = zeros((size_t)parts * sizeof *w->places);
    w->shares = zeros((size_t)parts * WORK_SLOTS * sizeof *w->shares);
    if (w->places && w->shares)
        return w;
    work_destroy(w);
    return NULL;
}

void work_destroy(struct work *w)
{
    if (!w)
        return;
    free(w->shares);
    free(w->places);
    free(w);
}

void work_begin(struct work *w, int part, size_t n, size_t grain)
{
    struct place *p = &w->places[part];
    assert(n <= WORK_ITEMS_MAX && grain > 0);
    p->turn++;
    p->n = n;
    p->grain = grain;
    p->others = 0;
}

/* Half of what is left of `n` items, in whole grains. */
static size_t next_piece(size_t left, size_t grain)
{
    const size_t half = (left / 2 + grain - 1) / grain * grain, piece = half > 0 ? half : grain;
    return piece < left ? piece : left;
}

/* A piece of a share of so many items; 0: none is left. */
static size_t take(struct share *s, const struct place *p, size_t items, size_t *at)
{
    uint64_t seen = atomic_load_explicit(&s->turn_taken, memory_order_relaxed);
    for (;;) {
        const size_t taken = (uint32_t)(seen >> 32) == p->turn ? (uint32_t)seen : 0;
        if (taken >= items)
            return 0;
        const size_t n = next_piece(items - taken, p->grain);
        if (atomic_compare_exchange_weak_explicit(&s->turn_taken, &seen,
                                                  (uint64_t)p->turn << 32 | (taken + n),
                                                  memory_order_relaxed, memory_order_relaxed)) {
            *at = taken;
            return n;
        }
    }
}

bool work_take(struct work *w, int part, size_t *begin, size_t *end)
{
    struct place *p = &w->places[part];
    struct share *slot = w->shares + p->turn % WORK_SLOTS * (size_t)w->parts;
    for (; p->others < w->parts && p->others <= OTHERS_MAX; p->others++) {
        const int of = (part + p->others) % w->parts;
        size_t first, last, at;
        team_split(p->n, p->grain, of, w->parts, &first, &last);
        const size_t n = take(&slot[of], p, last - first, &at);
        if (n > 0) {
            *begin = first + at;
            *end = *begin + n;
            return true;
        }
    }
    return false;
}
