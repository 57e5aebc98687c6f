/* The first half of finishing a grammar: which rules are nullable, then rule by rule from
 * nondeterministic states with empty moves to states without (subset construction). Where the
 * subsets grow too many, the rule keeps its own states and only loses the empty moves: running it
 * then follows several states at once.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tokenizer/grammar/build.h"
#include "tokenizer/grammar/grammar.h"

#define STEPS_MAX 8000000u /* of all subsets: bounds the time */
#define RANGES_MAX 4000000u

struct finish {
    struct builder *b;
    struct grammar *g;
    bool *nullable;   /* [rules] */
    uint32_t *stamps; /* [states] of the closure under way */
    uint32_t stamp;
    uint32_t *stack;
    uint32_t *set, n_set;               /* the closure's states that matter */
    uint32_t *sets, n_sets, cap_sets;   /* of this rule: lengths and members */
    uint32_t *offsets;                  /* [states of the rule] where a state's subset begins */
    uint32_t n_local, cap_local, first; /* first: index of the rule's first state */
    uint32_t *slots, n_slots;
    uint32_t cap_states, cap_ranges, cap_calls;
    uint32_t steps;
    uint32_t patience; /* `steps` at which determinising this rule is given up */
    uint32_t end;      /* the rule's */
};

static bool out_of_memory(struct finish *f)
{
    build_fail(f->b, ST_NO_MEMORY, "no memory for the grammar");
    return false;
}

static bool too_large(struct finish *f)
{
    build_fail(f->b, ST_UNSUPPORTED, "the grammar is too large or too ambiguous");
    return false;
}

static bool reserve(struct finish *f, void **v, uint32_t *cap, uint64_t want, size_t bytes)
{
    if (want <= *cap)
        return true;
    uint64_t more = *cap ? (uint64_t)*cap * 2 : 256;
    while (more < want)
        more *= 2;
    if (more > UINT32_MAX)
        return too_large(f);
    void *to = realloc(*v, more * bytes);
    if (!to)
        return out_of_memory(f);
    *v = to;
    *cap = (uint32_t)more;
    return true;
}

/* ---- nullable rules ---- */

/* True when the end of `rule` is reached without a byte; else the calls that are in the way have
 * `waits` set. */
static bool ends_empty(struct finish *f, uint32_t rule, bool *waits)
{
    const struct builder *b = f->b;
    uint32_t n = 0;
    f->stamp++;
    f->stack[n++] = b->rules[rule].start;
    f->stamps[b->rules[rule].start] = f->stamp;
    while (n > 0) {
        uint32_t s = f->stack[--n];
        if (s == b->rules[rule].end)
            return true;
        for (uint32_t i = b->heads[s]; i; i = b->edges[i].next) {
            const struct build_edge *e = &b->edges[i];
            f->steps++;
            bool skip = e->kind == BUILD_EPS ||
                        (e->kind == BUILD_CALL && (e->min == 0 || f->nullable[e->rule]));
            if (e->kind == BUILD_CALL && !skip)
                *waits = true;
            if (skip && f->stamps[e->to] != f->stamp) {
                f->stamps[e->to] = f->stamp;
                f->stack[n++] = e->to;
            }
        }
    }
    return false;
}

static bool find_nullable(struct finish *f)
{
    bool changed = true;
    bool *open = malloc(f->b->n_rules + 1);
    if (!open)
        return out_of_memory(f);
    memset(open, 1, f->b->n_rules);
    while (changed) {
        changed = false;
        for (uint32_t r = f->b->n_rules; r-- > 0;) {
            if (!open[r])
                continue;
            bool waits = false;
            f->nullable[r] = ends_empty(f, r, &waits);
            changed = changed || f->nullable[r];
            open[r] = !f->nullable[r] && waits;
        }
        if (f->steps > STEPS_MAX) {
            free(open);
            return too_large(f);
        }
    }
    free(open);
    return true;
}

/* ---- subsets ---- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static bool matters(const struct finish *f, uint32_t s)
{
    if (s == f->end)
        return true;
    for (uint32_t i = f->b->heads[s]; i; i = f->b->edges[i].next)
        if (f->b->edges[i].kind != BUILD_EPS)
            return true;
    return false;
}

/* Adds what is reached from `s` without a byte to the set. */
static void close_over(struct finish *f, uint32_t s)
{
    uint32_t n = 0;
    if (f->stamps[s] == f->stamp)
        return;
    f->stamps[s] = f->stamp;
    f->stack[n++] = s;
    while (n > 0) {
        s = f->stack[--n];
        if (matters(f, s))
            f->set[f->n_set++] = s;
        for (uint32_t i = f->b->heads[s]; i; i = f->b->edges[i].next) {
            const struct build_edge *e = &f->b->edges[i];
            f->steps++;
            bool skip = e->kind == BUILD_EPS ||
                        (e->kind == BUILD_CALL && (e->min == 0 || f->nullable[e->rule]));
            if (skip && f->stamps[e->to] != f->stamp) {
                f->stamps[e->to] = f->stamp;
                f->stack[n++] = e->to;
            }
        }
    }
}

static void begin_set(struct finish *f)
{
    f->n_set = 0;
    f->stamp++;
}

static uint64_t hash_set(const uint32_t *v, uint32_t n)
{
    return hash_bytes(n, v, n * sizeof *v);
}

static bool rehash(struct finish *f)
{
    uint32_t n = f->n_slots ? f->n_slots * 2 : 256;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return out_of_memory(f);
    free(f->slots);
    f->slots = slots;
    f->n_slots = n;
    for (uint32_t i = 0; i < f->n_local; i++) {
        const uint32_t *set = f->sets + f->offsets[i];
        uint64_t h = hash_set(set + 1, set[0]);
        while (slots[h & (n - 1)])
            h++;
        slots[h & (n - 1)] = i + 1;
    }
    return true;
}

/* The state of the set that was gathered, a new one when there is none. */
static bool intern_set(struct finish *f, uint32_t *out)
{
    if (f->n_local * 2 >= f->n_slots && !rehash(f))
        return false;
    qsort(f->set, f->n_set, sizeof *f->set, by_value);
    f->steps += f->n_set + 1;
    uint64_t h = hash_set(f->set, f->n_set);
    for (uint32_t i; (i = f->slots[h & (f->n_slots - 1)]) != 0; h++) {
        const uint32_t *set = f->sets + f->offsets[i - 1];
        if (set[0] == f->n_set && memcmp(set + 1, f->set, f->n_set * sizeof *set) == 0) {
            *out = f->first + i - 1;
            return true;
        }
    }
    if (!reserve(f, (void **)&f->sets, &f->cap_sets, (uint64_t)f->n_sets + f->n_set + 1,
                 sizeof *f->sets) ||
        !reserve(f, (void **)&f->offsets, &f->cap_local, (uint64_t)f->n_local + 1,
                 sizeof *f->offsets))
        return false;
    f->offsets[f->n_local] = f->n_sets;
    f->sets[f->n_sets++] = f->n_set;
    memcpy(f->sets + f->n_sets, f->set, f->n_set * sizeof *f->set);
    f->n_sets += f->n_set;
    f->slots[h & (f->n_slots - 1)] = ++f->n_local;
    *out = f->first + f->n_local - 1;
    return true;
}

static bool add_run(struct finish *f, struct ga_range range)
{
    struct grammar *g = f->g;
    struct ga_state *s = &g->states[g->n_states - 1];
    if (s->n_ranges > 0) {
        struct ga_range *last = &g->ranges[g->n_ranges - 1];
        if (last->to == range.to && last->hi + 1 == range.lo) {
            last->hi = range.hi;
            return true;
        }
    }
    if (g->n_ranges == RANGES_MAX)
        return too_large(f);
    if (!reserve(f, (void **)&g->ranges, &f->cap_ranges, (uint64_t)g->n_ranges + 1,
                 sizeof *g->ranges))
        return false;
    g->ranges[g->n_ranges++] = range;
    s->n_ranges++;
    return true;
}

/* Without the bytes that nobody can spell. */
static bool add_range(struct finish *f, struct ga_range range)
{
    const bool *spelled = f->b->spelled;
    if (!spelled)
        return add_run(f, range);
    for (unsigned lo = range.lo; lo <= range.hi; lo++) {
        unsigned hi = lo;
        if (!spelled[lo])
            continue;
        while (hi < range.hi && spelled[hi + 1])
            hi++;
        if (!add_run(f, (struct ga_range){.lo = (uint8_t)lo, .hi = (uint8_t)hi, .to = range.to}))
            return false;
        lo = hi;
    }
    return true;
}

static bool add_call(struct finish *f, const struct build_edge *e, uint32_t to)
{
    struct grammar *g = f->g;
    struct ga_state *s = &g->states[g->n_states - 1];
    struct ga_call call = {.rule = e->rule, .min = e->min, .max = e->max, .to = to};
    if (f->nullable[e->rule])
        call.min = 0;
    for (uint32_t i = 0; i < s->n_calls; i++)
        if (memcmp(&g->calls[s->calls + i], &call, sizeof call) == 0)
            return true;
    if (!reserve(f, (void **)&g->calls, &f->cap_calls, (uint64_t)g->n_calls + 1, sizeof *g->calls))
        return false;
    g->calls[g->n_calls++] = call;
    s->n_calls++;
    return true;
}

/* The byte moves of a subset: at every byte where the targets change, one range. */
static bool add_deterministic_ranges(struct finish *f, const uint32_t *set, uint32_t n)
{
    bool edge_at[257] = {false};
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = f->b->heads[set[k]]; i; i = f->b->edges[i].next)
            if (f->b->edges[i].kind == BUILD_BYTES) {
                edge_at[f->b->edges[i].lo] = true;
                edge_at[f->b->edges[i].hi + 1] = true;
            }
    for (int lo = 0; lo < 256;) {
        int hi = lo;
        while (hi < 255 && !edge_at[hi + 1])
            hi++;
        begin_set(f);
        for (uint32_t k = 0; k < n; k++)
            for (uint32_t i = f->b->heads[set[k]]; i; i = f->b->edges[i].next) {
                const struct build_edge *e = &f->b->edges[i];
                f->steps++;
                if (e->kind == BUILD_BYTES && e->lo <= lo && e->hi >= lo)
                    close_over(f, e->to);
            }
        uint32_t to;
        if (f->n_set > 0) {
            if (!intern_set(f, &to) ||
                !add_range(f, (struct ga_range){.lo = (uint8_t)lo, .hi = (uint8_t)hi, .to = to}))
                return false;
        }
        lo = hi + 1;
        if (f->steps > f->patience)
            return false;
    }
    return true;
}

static bool add_own_ranges(struct finish *f, const uint32_t *set, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = f->b->heads[set[k]]; i; i = f->b->edges[i].next) {
            const struct build_edge *e = &f->b->edges[i];
            uint32_t to;
            if (e->kind != BUILD_BYTES)
                continue;
            begin_set(f);
            close_over(f, e->to);
            if (f->n_set > 0 &&
                (!intern_set(f, &to) ||
                 !add_range(f, (struct ga_range){.lo = e->lo, .hi = e->hi, .to = to})))
                return false;
        }
    return true;
}

static bool add_calls(struct finish *f, const uint32_t *set, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = f->b->heads[set[k]]; i; i = f->b->edges[i].next) {
            uint32_t to;
            if (f->b->edges[i].kind != BUILD_CALL)
                continue;
            begin_set(f);
            close_over(f, f->b->edges[i].to);
            if (f->n_set > 0 && (!intern_set(f, &to) || !add_call(f, &f->b->edges[i], to)))
                return false;
        }
    return true;
}

/* The states of one rule; false with status ST_OK: determinising it is too dear. */
static bool make_states(struct finish *f, uint32_t rule, uint32_t most)
{
    struct grammar *g = f->g;
    uint32_t start, *copy = NULL, cap = 0;
    bool ok = false;
    f->first = g->n_states;
    f->n_sets = f->n_local = 0;
    if (f->n_slots > 4096) { /* clearing it for each of many small rules would be dear */
        free(f->slots);
        f->slots = NULL;
        f->n_slots = 0;
    }
    if (f->n_slots)
        memset(f->slots, 0, f->n_slots * sizeof *f->slots);
    f->end = f->b->rules[rule].end;
    begin_set(f);
    close_over(f, f->b->rules[rule].start);
    if (!intern_set(f, &start))
        return false;
    g->rules[rule].start = start;
    for (uint32_t at = 0; at < f->n_local; at++) {
        if (f->steps > STEPS_MAX) {
            too_large(f);
            goto done;
        }
        uint32_t n = f->sets[f->offsets[at]];
        if (f->n_local > most)
            goto done;
        if (!reserve(f, (void **)&g->states, &f->cap_states, (uint64_t)g->n_states + 1,
                     sizeof *g->states) ||
            !reserve(f, (void **)&copy, &cap, n, sizeof *copy))
            goto done;
        if (n > 0)
            memcpy(copy, f->sets + f->offsets[at] + 1, n * sizeof *copy);
        g->states[g->n_states++] = (struct ga_state){.ranges = g->n_ranges, .calls = g->n_calls};
        for (uint32_t k = 0; k < n; k++)
            if (copy[k] == f->end)
                g->states[g->n_states - 1].accept = true;
        if (!(most == UINT32_MAX ? add_own_ranges(f, copy, n)
                                 : add_deterministic_ranges(f, copy, n)) ||
            !add_calls(f, copy, n))
            goto done;
    }
    ok = true;
done:
    free(copy);
    return ok;
}

static bool make_rule(struct finish *f, uint32_t rule, uint32_t built)
{
    struct grammar *g = f->g;
    uint32_t states = g->n_states, ranges = g->n_ranges, calls = g->n_calls;
    f->patience = f->steps + 2000000;
    if (make_states(f, rule, 1000 + 8 * built))
        return true;
    if (f->b->status != ST_OK)
        return false;
    g->n_states = states;
    g->n_ranges = ranges;
    g->n_calls = calls;
    return make_states(f, rule, UINT32_MAX);
}

/* How many of the builder's states a rule can reach without calling, at most `n`. */
static uint32_t count_built(struct finish *f, uint32_t rule)
{
    uint32_t n = 0, seen = 0;
    f->stamp++;
    f->stack[n++] = f->b->rules[rule].start;
    f->stamps[f->b->rules[rule].start] = f->stamp;
    while (n > 0) {
        uint32_t s = f->stack[--n];
        seen++;
        for (uint32_t i = f->b->heads[s]; i; i = f->b->edges[i].next)
            if (f->stamps[f->b->edges[i].to] != f->stamp) {
                f->stamps[f->b->edges[i].to] = f->stamp;
                f->stack[n++] = f->b->edges[i].to;
            }
    }
    return seen;
}

enum status build_finish(struct builder *b, uint32_t root, struct grammar **out)
{
    if (b->status != ST_OK)
        return b->status;
    struct finish f = {.b = b};
    size_t n = b->n_states;
    f.g = calloc(1, sizeof *f.g);
    f.nullable = calloc(b->n_rules, sizeof *f.nullable);
    f.stamps = calloc(n, sizeof *f.stamps);
    f.stack = malloc(n * sizeof *f.stack);
    f.set = malloc(n * sizeof *f.set);
    if (f.g)
        f.g->rules = calloc(b->n_rules, sizeof *f.g->rules);
    if (!f.g || !f.nullable || !f.stamps || !f.stack || !f.set || !f.g->rules)
        out_of_memory(&f);
    else if (find_nullable(&f)) {
        f.g->n_rules = b->n_rules;
        f.g->root = root;
        f.g->nullable = f.nullable[root];
        for (uint32_t r = 0; r < b->n_rules && b->status == ST_OK; r++)
            make_rule(&f, r, count_built(&f, r));
        if (b->status == ST_OK)
            grammar_trim(b, f.g);
    }
    free(f.nullable);
    free(f.stamps);
    free(f.stack);
    free(f.set);
    free(f.sets);
    free(f.offsets);
    free(f.slots);
    if (b->status != ST_OK)
        grammar_free(f.g);
    else
        *out = f.g;
    return b->status;
}
