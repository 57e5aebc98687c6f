/* Patterns: what a walk over the vocabulary has looked at, so that its mask serves every state that
 * looks the same. Words: per item its automaton state and then its context: 0 when it was not
 * looked into, else 1 + frames, and per frame its call, how many repetitions are still needed and
 * still possible (no more than a token has bytes, which is all it could count), and its context.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tokenizer/grammar/run.h"

#define PATTERN_WORDS_MAX 4096u
#define PATTERNS_TRIED_MAX 64

struct counts {
    uint32_t needed, possible;
};

/* Repetitions after the one under way. */
static struct counts count(const struct grammar_run *r, const struct run_frame *f)
{
    uint32_t most = r->vocab->depth_max + 1;
    struct counts n = {0, 0};
    if (f->call == RUN_CALL_ROOT)
        return n;
    const struct ga_call *c = &r->g->calls[f->call];
    n.needed = c->min > f->count ? c->min - f->count : 0;
    n.possible = c->max == GRAMMAR_UNBOUNDED ? most : c->max - f->count;
    n.needed = n.needed > most ? most : n.needed;
    n.possible = n.possible > most ? most : n.possible;
    return n;
}

static uint32_t bucket(const struct grammar_run *r, const struct run_state *s)
{
    uint64_t h = s->n_items;
    for (uint32_t i = 0; i < s->n_items; i++)
        h = hash_bytes(h, &r->items[s->items + i].state, sizeof(uint32_t));
    return (uint32_t)(h % RUN_BUCKETS);
}

/* ---- what was looked at ---- */

/* The end of a caller that has nothing more to do is the end of its own caller. A last call of it
 * hands its context on, frames and all. */
static bool passes_on(const struct grammar_run *r, const struct run_frame *f)
{
    if (f->call == RUN_CALL_ROOT)
        return false;
    const struct ga_state *to = &r->g->states[r->g->calls[f->call].to];
    for (uint32_t k = 0; k < to->n_calls; k++) {
        const struct ga_call *next = &r->g->calls[to->calls + k];
        if (next->max == 1 && r->g->states[next->to].is_end)
            return true;
    }
    return to->accept;
}

static bool push(struct grammar_run *r, uint32_t *n, uint32_t context)
{
    if (r->contexts[context].touched == r->walk)
        return true;
    r->contexts[context].touched = r->walk;
    if (!run_grow((void **)&r->to_touch, &r->cap_to_touch, (uint64_t)*n + 1, sizeof *r->to_touch))
        return false;
    r->to_touch[(*n)++] = context;
    return true;
}

static bool touch(struct grammar_run *r, uint32_t context)
{
    uint32_t n = 0;
    if (!push(r, &n, context))
        return false;
    while (n > 0) {
        struct run_context c = r->contexts[r->to_touch[--n]];
        for (uint32_t i = 0; i < c.n_frames; i++) {
            const struct run_frame *f = &r->frames[c.frames + i];
            if (passes_on(r, f) && !push(r, &n, f->context))
                return false;
        }
    }
    return true;
}

static bool touch_all(struct grammar_run *r)
{
    for (uint32_t i = 0; i < r->n_met; i++) {
        const struct run_state *s = &r->states[r->met[i]];
        for (uint32_t k = 0; k < s->n_items; k++) {
            const struct run_item *item = &r->items[s->items + k];
            if (r->g->states[item->state].may_exit && !touch(r, item->context))
                return false;
        }
    }
    return true;
}

/* ---- writing ---- */

static bool put(struct grammar_run *r, uint32_t begin, uint32_t word)
{
    if (r->n_words - begin >= PATTERN_WORDS_MAX ||
        !run_grow((void **)&r->words, &r->cap_words, (uint64_t)r->n_words + 1, sizeof *r->words))
        return false;
    r->words[r->n_words++] = word;
    return true;
}

static bool put_context(struct grammar_run *r, uint32_t begin, uint32_t context)
{
    const struct run_context *c = &r->contexts[context];
    if (c->touched != r->walk)
        return put(r, begin, 0);
    if (!put(r, begin, c->n_frames + 1))
        return false;
    for (uint32_t i = 0; i < c->n_frames; i++) {
        const struct run_frame *f = &r->frames[c->frames + i];
        struct counts n = count(r, f);
        if (!put(r, begin, f->call) || !put(r, begin, n.needed) || !put(r, begin, n.possible))
            return false;
        if (f->call != RUN_CALL_ROOT && !put_context(r, begin, f->context))
            return false;
    }
    return true;
}

void run_keep_pattern(struct grammar_run *r, uint32_t state, uint32_t mask)
{
    const struct run_state *s = &r->states[state];
    uint32_t begin = r->n_words;
    bool ok = touch_all(r) && put(r, begin, s->n_items);
    for (uint32_t i = 0; i < s->n_items && ok; i++) {
        const struct run_item *item = &r->items[s->items + i];
        ok = put(r, begin, item->state) && put_context(r, begin, item->context);
    }
    if (!ok || !run_grow((void **)&r->patterns, &r->cap_patterns, (uint64_t)r->n_patterns + 1,
                         sizeof *r->patterns)) {
        r->n_words = begin; /* this mask serves its own state only */
        return;
    }
    uint32_t *head = &r->buckets[bucket(r, s)];
    r->patterns[r->n_patterns] = (struct run_pattern){
        .next = *head, .words = begin, .n_words = r->n_words - begin, .mask = mask};
    *head = ++r->n_patterns;
}

/* ---- reading ---- */

/* How a pattern and a state are compared. Where counts may differ, `alike` is what both have at
 * least: a token of so many bytes cannot tell them apart. */
struct comparison {
    struct grammar_run *r;
    bool counts_differ; /* they may */
    bool mark;          /* note the contexts as looked at */
    uint32_t alike;
};

static bool same_count(struct comparison *c, uint32_t a, uint32_t b)
{
    uint32_t least = a < b ? a : b;
    if (a == b)
        return true;
    if (least < c->alike)
        c->alike = least;
    return c->counts_differ;
}

/* Words that `context` matches, 0: it does not. */
static uint32_t match_context(struct comparison *m, const uint32_t *w, uint32_t context)
{
    struct run_context *c = &m->r->contexts[context];
    uint32_t at = 1;
    if (w[0] == 0)
        return 1;
    if (w[0] != c->n_frames + 1)
        return 0;
    if (m->mark)
        c->touched = m->r->walk;
    for (uint32_t i = 0; i < c->n_frames; i++) {
        const struct run_frame *f = &m->r->frames[c->frames + i];
        struct counts n = count(m->r, f);
        if (w[at] != f->call || !same_count(m, w[at + 1], n.needed) ||
            !same_count(m, w[at + 2], n.possible))
            return 0;
        at += 3;
        if (f->call == RUN_CALL_ROOT)
            continue;
        uint32_t used = match_context(m, w + at, f->context);
        if (!used)
            return 0;
        at += used;
    }
    return at;
}

static bool matches(struct comparison *m, const struct run_pattern *p, const struct run_state *s)
{
    const uint32_t *w = m->r->words + p->words;
    uint32_t at = 1;
    if (w[0] != s->n_items)
        return false;
    for (uint32_t i = 0; i < s->n_items; i++) {
        const struct run_item *item = &m->r->items[s->items + i];
        if (w[at++] != item->state)
            return false;
        uint32_t used = match_context(m, w + at, item->context);
        if (!used)
            return false;
        at += used;
    }
    return true;
}

uint32_t run_find_pattern(struct grammar_run *r, uint32_t state)
{
    const struct run_state *s = &r->states[state];
    struct comparison m = {.r = r, .alike = UINT32_MAX};
    int tried = 0;
    for (uint32_t i = r->buckets[bucket(r, s)]; i && tried < PATTERNS_TRIED_MAX; tried++) {
        const struct run_pattern *p = &r->patterns[i - 1];
        if (matches(&m, p, s))
            return p->mask;
        i = p->next;
    }
    return UINT32_MAX;
}

uint32_t run_find_similar(struct grammar_run *r, uint32_t state, uint32_t *alike)
{
    const struct run_state *s = &r->states[state];
    const struct run_pattern *best = NULL;
    int tried = 0;
    *alike = 0;
    for (uint32_t i = r->buckets[bucket(r, s)]; i && tried < PATTERNS_TRIED_MAX; tried++) {
        const struct run_pattern *p = &r->patterns[i - 1];
        struct comparison m = {.r = r, .counts_differ = true, .alike = UINT32_MAX};
        if (matches(&m, p, s) && m.alike > *alike) {
            best = p;
            *alike = m.alike;
        }
        i = p->next;
    }
    struct comparison mark = {.r = r, .counts_differ = true, .mark = true, .alike = UINT32_MAX};
    return best != NULL && matches(&mark, best, s) ? best->mask : UINT32_MAX;
}
