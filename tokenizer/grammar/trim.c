/* The second half of finishing a grammar: states and rules that no sentence goes through are
 * dropped, so that no mask ever allows a dead end; rules are ranked and left recursion is found;
 * bytes are put into classes.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/build.h"
#include "tokenizer/grammar/grammar.h"

struct trim {
    struct builder *b;
    struct grammar *g;
    bool *rule_lives; /* [rules] some sentence of it ends */
    bool *lives;      /* [states] leads to its rule's end */
    bool *reached;    /* [states] */
    bool *rule_reached;
    uint32_t *stack;  /* [states + rules] */
    uint32_t *number; /* [states] new index */
    uint32_t *owner;  /* [states] its rule */
};

static bool call_lives(const struct trim *t, const struct ga_call *c)
{
    return t->lives[c->to] && t->rule_lives[c->rule];
}

static bool leads_on(const struct trim *t, const struct ga_state *s)
{
    for (uint32_t i = 0; i < s->n_ranges; i++)
        if (t->lives[t->g->ranges[s->ranges + i].to])
            return true;
    for (uint32_t i = 0; i < s->n_calls; i++)
        if (call_lives(t, &t->g->calls[s->calls + i]))
            return true;
    return false;
}

/* Who leads to a state or calls a rule: lists in arrays, so that life spreads in linear time. */
struct reverse {
    uint32_t *first, *next, *from; /* [states + rules]; [moves] */
};

static uint32_t n_targets(const struct grammar *g)
{
    return g->n_states + g->n_rules;
}

static void link_move(struct reverse *r, uint32_t *at, uint32_t to, uint32_t from)
{
    r->from[*at] = from;
    r->next[*at] = r->first[to];
    r->first[to] = (*at)++;
}

static bool make_reverse(const struct grammar *g, struct reverse *r)
{
    size_t moves = (size_t)g->n_ranges + 2 * (size_t)g->n_calls + 1;
    r->first = calloc(n_targets(g), sizeof *r->first);
    r->next = malloc(moves * sizeof *r->next);
    r->from = malloc(moves * sizeof *r->from);
    if (!r->first || !r->next || !r->from)
        return false;
    uint32_t at = 1;
    for (uint32_t s = 0; s < g->n_states; s++) {
        const struct ga_state *st = &g->states[s];
        for (uint32_t i = 0; i < st->n_ranges; i++)
            link_move(r, &at, g->ranges[st->ranges + i].to, s);
        for (uint32_t i = 0; i < st->n_calls; i++) {
            link_move(r, &at, g->calls[st->calls + i].to, s);
            link_move(r, &at, g->n_states + g->calls[st->calls + i].rule, s);
        }
    }
    return true;
}

/* Spreads life backwards from the states that accept. */
static void spread(struct trim *t, const struct reverse *r)
{
    struct grammar *g = t->g;
    uint32_t n = 0;
    for (uint32_t s = 0; s < g->n_states; s++)
        if (g->states[s].accept) {
            t->lives[s] = true;
            t->stack[n++] = s;
        }
    while (n > 0) {
        uint32_t at = t->stack[--n];
        for (uint32_t i = r->first[at]; i; i = r->next[i]) {
            uint32_t s = r->from[i];
            if (!t->lives[s] && leads_on(t, &g->states[s])) {
                t->lives[s] = true;
                t->stack[n++] = s;
            }
        }
        if (at >= g->n_states)
            continue;
        uint32_t rule = t->owner[at];
        if (!t->rule_lives[rule] && g->rules[rule].start == at) {
            t->rule_lives[rule] = true;
            t->stack[n++] = g->n_states + rule;
        }
    }
}

static void reach(struct trim *t)
{
    const struct grammar *g = t->g;
    uint32_t n = 0;
#define VISIT(s)                                                                                   \
    do {                                                                                           \
        if (!t->reached[s]) {                                                                      \
            t->reached[s] = true;                                                                  \
            t->stack[n++] = (s);                                                                   \
        }                                                                                          \
    } while (0)
    t->rule_reached[g->root] = true;
    VISIT(g->rules[g->root].start);
    while (n > 0) {
        const struct ga_state *s = &g->states[t->stack[--n]];
        for (uint32_t i = 0; i < s->n_ranges; i++)
            if (t->lives[g->ranges[s->ranges + i].to])
                VISIT(g->ranges[s->ranges + i].to);
        for (uint32_t i = 0; i < s->n_calls; i++) {
            const struct ga_call *c = &g->calls[s->calls + i];
            if (!call_lives(t, c))
                continue;
            t->rule_reached[c->rule] = true;
            VISIT(c->to);
            VISIT(g->rules[c->rule].start);
        }
    }
#undef VISIT
}

/* Room that had been made for more goes back: grammars are kept. */
static void fit(void **v, size_t n, size_t bytes)
{
    void *to = realloc(*v, (n > 0 ? n : 1) * bytes);
    if (to)
        *v = to;
}

/* Moves what lives to the front of each array and renumbers it. */
static void compact(struct trim *t)
{
    struct grammar *g = t->g;
    uint32_t n = 0, n_ranges = 0, n_calls = 0;
    for (uint32_t s = 0; s < g->n_states; s++)
        t->number[s] = t->reached[s] ? n++ : UINT32_MAX;
    for (uint32_t s = 0; s < g->n_states; s++) {
        struct ga_state st = g->states[s];
        if (!t->reached[s])
            continue;
        uint32_t ranges = n_ranges, calls = n_calls;
        for (uint32_t i = 0; i < st.n_ranges; i++) {
            struct ga_range r = g->ranges[st.ranges + i];
            if (!t->lives[r.to])
                continue;
            r.to = t->number[r.to];
            g->ranges[n_ranges++] = r;
        }
        for (uint32_t i = 0; i < st.n_calls; i++) {
            struct ga_call c = g->calls[st.calls + i];
            if (!call_lives(t, &c))
                continue;
            c.to = t->number[c.to];
            g->calls[n_calls++] = c;
        }
        st.ranges = ranges;
        st.n_ranges = n_ranges - ranges;
        st.calls = calls;
        st.n_calls = n_calls - calls;
        st.is_end = st.accept && !st.n_ranges && !st.n_calls;
        g->states[t->number[s]] = st;
    }
    for (uint32_t r = 0; r < g->n_rules; r++)
        g->rules[r].start = t->rule_reached[r] ? t->number[g->rules[r].start] : UINT32_MAX;
    g->n_states = n;
    g->n_ranges = n_ranges;
    g->n_calls = n_calls;
    fit((void **)&g->states, n, sizeof *g->states);
    fit((void **)&g->ranges, n_ranges, sizeof *g->ranges);
    fit((void **)&g->calls, n_calls, sizeof *g->calls);
}

/* Where the end of a rule may be seen after one byte: it ends there, or there makes its last call,
 * which hands its context on. */
static void mark_exits(struct grammar *g)
{
    for (uint32_t s = 0; s < g->n_states; s++) {
        struct ga_state *from = &g->states[s];
        for (uint32_t i = 0; i < from->n_ranges && !from->may_exit; i++) {
            const struct ga_state *to = &g->states[g->ranges[from->ranges + i].to];
            from->may_exit = to->accept;
            for (uint32_t k = 0; k < to->n_calls; k++) {
                const struct ga_call *c = &g->calls[to->calls + k];
                if (c->max == 1 && g->states[c->to].is_end)
                    from->may_exit = true;
            }
        }
    }
}

/* Post-order over "may call before any byte"; a cycle is left recursion. */
static enum status rank_rules(struct trim *t)
{
    struct grammar *g = t->g;
    uint8_t *color = calloc(g->n_rules, 1);
    uint32_t *path = malloc((g->n_rules + 1) * sizeof *path);
    uint32_t *next = calloc(g->n_rules, sizeof *next);
    uint32_t rank = g->n_rules;
    g->by_rank = calloc(g->n_rules, sizeof *g->by_rank);
    if (!color || !path || !next || !g->by_rank)
        build_fail(t->b, ST_NO_MEMORY, "no memory for the grammar");
    for (uint32_t r = 0; r < g->n_rules && t->b->status == ST_OK; r++) {
        uint32_t n = 0;
        if (color[r] || !t->rule_reached[r])
            continue;
        path[n++] = r;
        color[r] = 1;
        while (n > 0 && t->b->status == ST_OK) {
            uint32_t at = path[n - 1];
            const struct ga_state *s = &g->states[g->rules[at].start];
            if (next[at] == s->n_calls) {
                color[at] = 2;
                g->rules[at].rank = --rank;
                g->by_rank[rank] = at;
                n--;
                continue;
            }
            uint32_t to = g->calls[s->calls + next[at]++].rule;
            if (color[to] == 1)
                build_fail(t->b, ST_INVALID, "left recursion: rule %s begins with itself",
                           t->b->rules[to].name);
            else if (color[to] == 0) {
                color[to] = 1;
                path[n++] = to;
            }
        }
    }
    free(color);
    free(path);
    free(next);
    return t->b->status;
}

static void classify(struct grammar *g)
{
    bool edge_at[257] = {false};
    for (uint32_t i = 0; i < g->n_ranges; i++) {
        edge_at[g->ranges[i].lo] = true;
        edge_at[g->ranges[i].hi + 1] = true;
    }
    uint32_t class = 0;
    for (uint32_t b = 0; b < 256; b++) {
        class += b > 0 && edge_at[b];
        g->classes[b] = (uint8_t) class;
    }
    g->n_classes = class + 1;
}

/* States of a rule stand together, and rules in order. */
static void find_owners(struct trim *t)
{
    const struct grammar *g = t->g;
    for (uint32_t r = 0; r < g->n_rules; r++) {
        uint32_t end = r + 1 < g->n_rules ? g->rules[r + 1].start : g->n_states;
        for (uint32_t s = g->rules[r].start; s < end; s++)
            t->owner[s] = r;
    }
}

static uint32_t dead_callee(const struct trim *t, uint32_t rule, const bool *seen)
{
    const struct grammar *g = t->g;
    uint32_t end = rule + 1 < g->n_rules ? g->rules[rule + 1].start : g->n_states;
    for (uint32_t s = g->rules[rule].start; s < end; s++)
        for (uint32_t i = 0; i < g->states[s].n_calls; i++) {
            uint32_t to = g->calls[g->states[s].calls + i].rule;
            if (!t->rule_lives[to] && !seen[to])
                return to;
        }
    return UINT32_MAX;
}

/* Says what cannot be matched: the innermost thing, for all around it is so because of that. */
static void blame(const struct trim *t)
{
    struct builder *b = t->b;
    bool *seen = t->rule_reached; /* free until a grammar is known to live */
    for (uint32_t r = t->g->root; r != UINT32_MAX; r = dead_callee(t, r, seen)) {
        seen[r] = true;
        if (b->rules[r].about != NULL)
            b->dead = b->rules[r].about;
    }
    build_fail(b, ST_INVALID, "nothing can match: rule %s has no sentence",
               b->rules[t->g->root].name);
}

enum status grammar_trim(struct builder *b, struct grammar *g)
{
    struct trim t = {.b = b, .g = g};
    struct reverse r = {0};
    t.rule_lives = calloc(g->n_rules, sizeof *t.rule_lives);
    t.rule_reached = calloc(g->n_rules, sizeof *t.rule_reached);
    t.lives = calloc(g->n_states, sizeof *t.lives);
    t.reached = calloc(g->n_states, sizeof *t.reached);
    t.stack = malloc(n_targets(g) * sizeof *t.stack);
    t.number = malloc(g->n_states * sizeof *t.number);
    t.owner = malloc(g->n_states * sizeof *t.owner);
    if (!t.rule_lives || !t.rule_reached || !t.lives || !t.reached || !t.stack || !t.number ||
        !t.owner || !make_reverse(g, &r)) {
        build_fail(b, ST_NO_MEMORY, "no memory for the grammar");
    } else {
        find_owners(&t);
        spread(&t, &r);
        if (!t.rule_lives[g->root])
            blame(&t);
        else {
            reach(&t);
            compact(&t);
            mark_exits(g);
            classify(g);
            rank_rules(&t);
        }
    }
    free(t.rule_lives);
    free(t.rule_reached);
    free(t.lives);
    free(t.reached);
    free(t.stack);
    free(t.number);
    free(t.owner);
    free(r.first);
    free(r.next);
    free(r.from);
    return b->status;
}

void grammar_free(struct grammar *g)
{
    if (!g)
        return;
    free(g->states);
    free(g->ranges);
    free(g->calls);
    free(g->rules);
    free(g->by_rank);
    free(g);
}
