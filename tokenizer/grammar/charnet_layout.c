/* Automata over characters laid out as bytes, and several of them made into one. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tokenizer/grammar/charnet.h"

/* ---- layout ---- */

/* \u00XX of the control characters lo..hi, which share their first digit. */
static void put_hex(struct builder *b, uint32_t hex, uint32_t to, struct char_range r)
{
    uint32_t low = build_byte(b, hex, (uint8_t)('0' + (r.lo >> 4)));
    uint8_t lo = r.lo & 15, hi = r.hi & 15;
    if (lo < 10)
        build_bytes(b, low, to,
                    (struct ga_range){.lo = (uint8_t)('0' + lo),
                                      .hi = (uint8_t)('0' + (hi < 10 ? hi : 9))});
    for (int upper = 0; upper < 2 && hi >= 10; upper++) {
        uint8_t a = upper ? 'A' : 'a';
        build_bytes(b, low, to,
                    (struct ga_range){.lo = (uint8_t)(a + (lo > 10 ? lo - 10 : 0)),
                                      .hi = (uint8_t)(a + hi - 10)});
    }
}

/* The characters of a range that a JSON string has to escape. */
static void put_escapes(struct builder *b, uint32_t from, uint32_t to, struct char_range r)
{
    static const struct {
        uint8_t cp, letter;
    } shorts[] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                  {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};
    uint32_t slash = UINT32_MAX;
    for (size_t i = 0; i < sizeof shorts / sizeof *shorts; i++) {
        if (shorts[i].cp < r.lo || shorts[i].cp > r.hi)
            continue;
        if (slash == UINT32_MAX)
            slash = build_byte(b, from, '\\');
        build_bytes(b, slash, to,
                    (struct ga_range){.lo = shorts[i].letter, .hi = shorts[i].letter});
    }
    if (r.lo >= 0x20)
        return;
    if (slash == UINT32_MAX)
        slash = build_byte(b, from, '\\');
    uint32_t hex = build_text(b, slash, "u00", 3), hi = r.hi < 0x1f ? r.hi : 0x1f;
    if (r.lo < 0x10)
        put_hex(b, hex, to, (struct char_range){r.lo, hi < 0xf ? hi : 0xf});
    if (hi >= 0x10)
        put_hex(b, hex, to, (struct char_range){r.lo > 0x10 ? r.lo : 0x10, hi});
}

static void put_edge(struct builder *b, uint32_t from, uint32_t to, struct char_range r, bool json)
{
    if (!json) {
        build_chars(b, from, to, &r, 1);
        return;
    }
    static const struct char_range plain[] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, CHAR_MAX_CP}};
    struct char_range v[3];
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        uint32_t lo = r.lo > plain[i].lo ? r.lo : plain[i].lo;
        uint32_t hi = r.hi < plain[i].hi ? r.hi : plain[i].hi;
        if (lo <= hi)
            v[n++] = (struct char_range){lo, hi};
    }
    build_chars(b, from, to, v, n);
    if (r.lo <= '\\')
        put_escapes(b, from, to, r);
}

void charnet_lay_out(const struct charnet *c, struct builder *b, const struct charnet_layout *l)
{
    uint32_t *states = calloc((size_t)c->n_states + 1, sizeof *states);
    if (!states)
        build_fail(b, ST_NO_MEMORY, "no memory for the pattern");
    if (b->status == ST_OK) {
        for (uint32_t s = 0; s < c->n_states; s++)
            states[s] = build_state(b);
        build_eps(b, l->from, states[0]);
        for (uint32_t i = 0; i < c->n_edges && b->status == ST_OK; i++)
            put_edge(b, states[c->edges[i].from], states[c->edges[i].to], c->edges[i].chars,
                     l->json);
        for (uint32_t s = 0; s < c->n_states && b->status == ST_OK; s++) {
            uint32_t to = l->exit(l->ctx, c->accept[s]);
            if (to != UINT32_MAX)
                build_eps(b, states[s], to);
        }
    }
    free(states);
}

static uint32_t one_exit(void *ctx, uint32_t bits)
{
    return bits ? *(uint32_t *)ctx : UINT32_MAX;
}

void charnet_lay_out_to(const struct charnet *c, struct builder *b, uint32_t from, uint32_t to,
                        bool json)
{
    struct charnet_layout l = {.from = from, .json = json, .exit = one_exit, .ctx = &to};
    charnet_lay_out(c, b, &l);
}

/* ---- several in one ---- */

#define SETS_MAX 4000000u
#define WORK_MAX 1500000u

struct combine {
    const struct charnet *parts;
    size_t n;
    struct builder *b;
    struct charnet *out;
    uint32_t *base; /* [n] what is added to a part's states to tell them from others' */
    uint32_t *sets, n_sets, cap_sets;
    uint32_t *offsets, cap_offsets; /* [out states] length and members in `sets` */
    uint32_t *slots, n_slots;
    uint32_t *now, n_now, cap_now;
    uint32_t *cuts, n_cuts, cap_cuts;
};

static bool fit(struct combine *c, uint32_t **v, uint32_t *cap, uint32_t want)
{
    if (want <= *cap)
        return true;
    uint32_t more = *cap ? *cap * 2 : 64;
    while (more < want)
        more *= 2;
    uint32_t *to = more <= 2 * SETS_MAX ? realloc(*v, more * sizeof *to) : NULL;
    if (!to) {
        build_fail(c->b, ST_UNSUPPORTED, "the patterns of the keys are too large together");
        return false;
    }
    *v = to;
    *cap = more;
    return true;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static size_t part_of(const struct combine *c, uint32_t member)
{
    size_t k = c->n - 1;
    while (c->base[k] > member)
        k--;
    return k;
}

static bool slots_grow(struct combine *c)
{
    uint32_t n = c->n_slots ? c->n_slots * 2 : 256;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots) {
        build_fail(c->b, ST_NO_MEMORY, "no memory for the pattern");
        return false;
    }
    free(c->slots);
    c->slots = slots;
    c->n_slots = n;
    for (uint32_t i = 0; i < c->out->n_states; i++) {
        const uint32_t *set = c->sets + c->offsets[i];
        uint64_t h = hash_bytes(set[0], set + 1, set[0] * sizeof *set);
        while (slots[h & (n - 1)])
            h++;
        slots[h & (n - 1)] = i + 1;
    }
    return true;
}

/* The state of the members in `now`. */
static uint32_t set_state(struct combine *c)
{
    uint32_t n = 0, i;
    if (c->n_now > 1)
        qsort(c->now, c->n_now, sizeof *c->now, by_value);
    for (i = 0; i < c->n_now; i++)
        if (i == 0 || c->now[i] != c->now[n - 1])
            c->now[n++] = c->now[i];
    if (c->out->n_states * 2 >= c->n_slots && !slots_grow(c))
        return 0;
    uint64_t h = hash_bytes(n, c->now, n * sizeof *c->now);
    for (; (i = c->slots[h & (c->n_slots - 1)]) != 0; h++) {
        const uint32_t *set = c->sets + c->offsets[i - 1];
        if (set[0] == n && (n == 0 || memcmp(set + 1, c->now, n * sizeof *set) == 0))
            return i - 1;
    }
    uint32_t s = charnet_state(c->out, c->b);
    if (c->b->status != ST_OK || !fit(c, &c->sets, &c->cap_sets, c->n_sets + n + 1) ||
        !fit(c, &c->offsets, &c->cap_offsets, s + 1))
        return 0;
    c->offsets[s] = c->n_sets;
    c->sets[c->n_sets++] = n;
    for (i = 0; i < n; i++) {
        size_t k = part_of(c, c->now[i]);
        c->sets[c->n_sets++] = c->now[i];
        if (c->parts[k].accept[c->now[i] - c->base[k]])
            c->out->accept[s] |= UINT32_C(1) << k;
    }
    c->slots[h & (c->n_slots - 1)] = s + 1;
    return s;
}

static void find_cuts(struct combine *c, uint32_t s)
{
    const uint32_t n = c->sets[c->offsets[s]];
    c->n_cuts = 0;
    if (!fit(c, &c->cuts, &c->cap_cuts, 2))
        return;
    c->cuts[c->n_cuts++] = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t member = c->sets[c->offsets[s] + 1 + i];
        size_t k = part_of(c, member);
        const struct charnet *part = &c->parts[k];
        for (uint32_t e = part->first[member - c->base[k]];
             e < part->first[member - c->base[k] + 1]; e++) {
            if (!fit(c, &c->cuts, &c->cap_cuts, c->n_cuts + 3))
                return;
            c->cuts[c->n_cuts++] = part->edges[e].chars.lo;
            c->cuts[c->n_cuts++] = part->edges[e].chars.hi + 1;
        }
    }
    qsort(c->cuts, c->n_cuts, sizeof *c->cuts, by_value);
    c->cuts[c->n_cuts++] = CHAR_MAX_CP + 1;
}

static void gather(struct combine *c, uint32_t s, uint32_t cp)
{
    const uint32_t n = c->sets[c->offsets[s]];
    c->n_now = 0;
    for (uint32_t i = 0; i < n && c->b->status == ST_OK; i++) {
        uint32_t member = c->sets[c->offsets[s] + 1 + i];
        size_t k = part_of(c, member);
        const struct charnet *part = &c->parts[k];
        build_spend(c->b,
                    (part->first[member - c->base[k] + 1] - part->first[member - c->base[k]]) /
                        BUILD_COMPARED_PER_STEP);
        for (uint32_t e = part->first[member - c->base[k]];
             e < part->first[member - c->base[k] + 1]; e++) {
            if (part->edges[e].chars.lo > cp || part->edges[e].chars.hi < cp)
                continue;
            if (!fit(c, &c->now, &c->cap_now, c->n_now + 1))
                return;
            c->now[c->n_now++] = c->base[k] + part->edges[e].to;
        }
    }
}

void charnet_combine(const struct charnet *parts, size_t n, struct builder *b, struct charnet *out)
{
    struct combine c = {.parts = parts, .n = n, .b = b, .out = out};
    uint32_t base[CHARNET_PATTERNS_MAX + 1] = {0}, work = 0;
    c.base = base;
    for (size_t k = 0; k + 1 < n; k++)
        base[k + 1] = base[k] + parts[k].n_states;
    for (size_t k = 0; k < n && fit(&c, &c.now, &c.cap_now, c.n_now + 1); k++)
        c.now[c.n_now++] = base[k];
    if (b->status == ST_OK && (n > 0 || fit(&c, &c.now, &c.cap_now, 1)))
        set_state(&c);
    for (uint32_t s = 0; s < out->n_states && b->status == ST_OK; s++) {
        find_cuts(&c, s);
        for (uint32_t i = 0; i + 1 < c.n_cuts && b->status == ST_OK; i++) {
            if (c.cuts[i] == c.cuts[i + 1])
                continue;
            gather(&c, s, c.cuts[i]);
            work += c.sets[c.offsets[s]] + 1;
            if (work > WORK_MAX)
                build_fail(b, ST_UNSUPPORTED, "the patterns of the keys are too large together");
            uint32_t to = set_state(&c);
            charnet_edge(out, b, (struct charnet_edge){s, to, {c.cuts[i], c.cuts[i + 1] - 1}});
        }
    }
    charnet_seal(out, b);
    free(c.sets);
    free(c.offsets);
    free(c.slots);
    free(c.now);
    free(c.cuts);
}
