#include "tokenizer/grammar/charnet.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

void charnet_fini(struct charnet *c)
{
    free(c->edges);
    free(c->first);
    free(c->accept);
    *c = (struct charnet){0};
}

static bool grow(struct builder *b, void **v, uint32_t *cap, uint32_t n, size_t bytes)
{
    if (n < *cap)
        return true;
    uint32_t more = *cap ? *cap * 2 : 32;
    void *to = realloc(*v, more * bytes);
    if (!to) {
        build_fail(b, ST_NO_MEMORY, "no memory for the pattern");
        return false;
    }
    *v = to;
    *cap = more;
    return true;
}

uint32_t charnet_state(struct charnet *c, struct builder *b)
{
    if (c->n_states >= CHARNET_STATES_MAX)
        build_fail(b, ST_UNSUPPORTED, "a pattern needs more than %u states", CHARNET_STATES_MAX);
    if (b->status != ST_OK ||
        !grow(b, (void **)&c->accept, &c->cap_states, c->n_states, sizeof *c->accept))
        return 0;
    c->accept[c->n_states] = 0;
    return c->n_states++;
}

void charnet_edge(struct charnet *c, struct builder *b, struct charnet_edge edge)
{
    if (c->n_edges >= CHARNET_EDGES_MAX)
        build_fail(b, ST_UNSUPPORTED, "a pattern needs more than %u moves", CHARNET_EDGES_MAX);
    if (b->status != ST_OK ||
        !grow(b, (void **)&c->edges, &c->cap_edges, c->n_edges, sizeof *c->edges))
        return;
    c->edges[c->n_edges++] = edge;
}

static int by_from(const void *a, const void *b)
{
    const struct charnet_edge *x = a, *y = b;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    if (x->to != y->to)
        return x->to < y->to ? -1 : 1;
    return x->chars.lo < y->chars.lo ? -1 : x->chars.lo > y->chars.lo;
}

void charnet_seal(struct charnet *c, struct builder *b)
{
    if (b->status != ST_OK)
        return;
    if (c->n_edges > 1)
        qsort(c->edges, c->n_edges, sizeof *c->edges, by_from);
    c->first = calloc((size_t)c->n_states + 1, sizeof *c->first);
    if (!c->first) {
        build_fail(b, ST_NO_MEMORY, "no memory for the pattern");
        return;
    }
    for (uint32_t i = 0; i < c->n_edges; i++)
        c->first[c->edges[i].from + 1]++;
    for (uint32_t i = 0; i < c->n_states; i++)
        c->first[i + 1] += c->first[i];
}

void charnet_add_text(struct charnet *c, struct builder *b, const char *text, size_t len)
{
    if (c->n_states == 0)
        charnet_state(c, b);
    uint32_t at = 0;
    for (size_t i = 0; i < len && b->status == ST_OK;) {
        uint32_t cp, to = charnet_state(c, b);
        size_t n = utf8_decode(text + i, len - i, &cp);
        charnet_edge(c, b, (struct charnet_edge){at, to, {cp, cp}});
        at = to;
        i += n ? n : 1;
    }
    if (b->status == ST_OK)
        c->accept[at] = 1;
}

void charnet_make_length(struct charnet *c, struct builder *b, struct build_repeat length)
{
    bool open = length.max == GRAMMAR_UNBOUNDED;
    uint32_t n = open ? length.min : length.max;
    for (uint32_t i = 0; i <= n && b->status == ST_OK; i++) {
        uint32_t s = charnet_state(c, b);
        if (b->status != ST_OK)
            return;
        c->accept[s] = s >= length.min;
        if (s < n || open)
            charnet_edge(c, b, (struct charnet_edge){s, s < n ? s + 1 : s, {0, CHAR_MAX_CP}});
    }
    charnet_seal(c, b);
}

/* ---- both at once ---- */

struct pairs {
    const struct charnet *a, *b;
    struct builder *build;
    struct charnet *out;
    uint32_t *slots, n_slots; /* of pairs; state + 1 */
    uint32_t (*pair)[2], cap;
};

static bool pairs_rehash(struct pairs *p)
{
    uint32_t n = p->n_slots ? p->n_slots * 2 : 256;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots) {
        build_fail(p->build, ST_NO_MEMORY, "no memory for the pattern");
        return false;
    }
    free(p->slots);
    p->slots = slots;
    p->n_slots = n;
    for (uint32_t i = 0; i < p->out->n_states; i++) {
        uint64_t h = hash_bytes(0, p->pair[i], sizeof p->pair[i]);
        while (slots[h & (n - 1)])
            h++;
        slots[h & (n - 1)] = i + 1;
    }
    return true;
}

static uint32_t pair_state(struct pairs *p, uint32_t x, uint32_t y)
{
    uint32_t key[2] = {x, y}, i;
    if (p->out->n_states * 2 >= p->n_slots && !pairs_rehash(p))
        return 0;
    uint64_t h = hash_bytes(0, key, sizeof key);
    for (; (i = p->slots[h & (p->n_slots - 1)]) != 0; h++)
        if (p->pair[i - 1][0] == x && p->pair[i - 1][1] == y)
            return i - 1;
    if (!grow(p->build, (void **)&p->pair, &p->cap, p->out->n_states, sizeof *p->pair))
        return 0;
    uint32_t s = charnet_state(p->out, p->build);
    if (p->build->status != ST_OK)
        return 0;
    p->pair[s][0] = x;
    p->pair[s][1] = y;
    p->out->accept[s] = p->a->accept[x] && p->b->accept[y];
    p->slots[h & (p->n_slots - 1)] = s + 1;
    return s;
}

void charnet_intersect(const struct charnet *a, const struct charnet *b, struct builder *build,
                       struct charnet *out)
{
    struct pairs p = {.a = a, .b = b, .build = build, .out = out};
    if (build->status == ST_OK)
        pair_state(&p, 0, 0);
    for (uint32_t s = 0; s < out->n_states && build->status == ST_OK; s++) {
        uint32_t x = p.pair[s][0], y = p.pair[s][1];
        uint64_t work = (uint64_t)(a->first[x + 1] - a->first[x]) * (b->first[y + 1] - b->first[y]);
        work /= BUILD_COMPARED_PER_STEP;
        build_spend(build, work < UINT32_MAX ? (uint32_t)work : UINT32_MAX);
        if (build->status != ST_OK)
            break;
        for (uint32_t i = a->first[x]; i < a->first[x + 1]; i++)
            for (uint32_t k = b->first[y]; k < b->first[y + 1]; k++) {
                const struct charnet_edge *e = &a->edges[i], *f = &b->edges[k];
                uint32_t lo = e->chars.lo > f->chars.lo ? e->chars.lo : f->chars.lo;
                uint32_t hi = e->chars.hi < f->chars.hi ? e->chars.hi : f->chars.hi;
                if (lo <= hi)
                    charnet_edge(out, build,
                                 (struct charnet_edge){s, pair_state(&p, e->to, f->to), {lo, hi}});
            }
    }
    charnet_seal(out, build);
    free(p.slots);
    free(p.pair);
}

bool charnet_accepts(const struct charnet *c, struct builder *b, const char *text, size_t len)
{
    uint32_t *memory = calloc(3 * (size_t)c->n_states + 1, sizeof *memory);
    if (!memory) {
        build_fail(b, ST_NO_MEMORY, "no memory for the pattern");
        return false;
    }
    uint32_t *now = memory, *next = now + c->n_states, *stamps = next + c->n_states;
    uint32_t n_now = c->n_states > 0, stamp = 0;
    for (size_t i = 0; i < len && n_now > 0 && b->status == ST_OK;) {
        uint32_t cp, n_next = 0, looked_at = 0;
        size_t n = utf8_decode(text + i, len - i, &cp);
        stamp++;
        for (uint32_t k = 0; n && k < n_now; k++)
            for (uint32_t v = c->first[now[k]]; v < c->first[now[k] + 1]; v++) {
                const struct charnet_edge *e = &c->edges[v];
                looked_at++;
                if (e->chars.lo > cp || cp > e->chars.hi || stamps[e->to] == stamp)
                    continue;
                stamps[e->to] = stamp;
                next[n_next++] = e->to;
            }
        build_spend(b, looked_at / BUILD_COMPARED_PER_STEP);
        uint32_t *swap = now;
        now = next;
        next = swap;
        n_now = n_next;
        i += n ? n : 1;
    }
    bool yes = false;
    for (uint32_t k = 0; k < n_now; k++)
        yes = yes || c->accept[now[k]];
    free(memory);
    return yes && b->status == ST_OK;
}
