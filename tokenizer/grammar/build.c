#include "tokenizer/grammar/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

void build_fini(struct builder *b)
{
    free(b->edges);
    free(b->heads);
    free(b->rules);
    *b = (struct builder){.status = b->status, .err = b->err};
}

enum status build_fail(struct builder *b, enum status status, const char *fmt, ...)
{
    if (b->status != ST_OK)
        return b->status;
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return b->status = err_set(b->err, status, "%s", text);
}

void build_spend(struct builder *b, uint32_t steps)
{
    if (steps > BUILD_PATTERN_STEPS_MAX - b->pattern_steps)
        build_fail(b, ST_UNSUPPORTED, "the patterns are too large together");
    else
        b->pattern_steps += steps;
}

/* Room for one more of `bytes` each; false when the bound is passed or memory is out. */
static bool grow(struct builder *b, void **v, uint32_t *cap, size_t bytes)
{
    uint32_t more = *cap ? *cap * 2 : 64;
    void *to = realloc(*v, more * bytes);
    if (!to) {
        build_fail(b, ST_NO_MEMORY, "no memory for the grammar");
        return false;
    }
    *v = to;
    *cap = more;
    return true;
}

uint32_t build_state(struct builder *b)
{
    if (b->status != ST_OK)
        return 0;
    if (b->n_states == BUILD_STATES_MAX) {
        build_fail(b, ST_UNSUPPORTED, "the grammar needs more than %u states", BUILD_STATES_MAX);
        return 0;
    }
    if (b->n_states == b->cap_states &&
        !grow(b, (void **)&b->heads, &b->cap_states, sizeof *b->heads))
        return 0;
    b->heads[b->n_states] = 0;
    return b->n_states++;
}

uint32_t build_rule(struct builder *b, const char *name)
{
    uint32_t start = build_state(b), end = build_state(b);
    return build_rule_of(b, start, end, name);
}

uint32_t build_rule_of(struct builder *b, uint32_t start, uint32_t end, const char *name)
{
    if (b->n_rules == BUILD_RULES_MAX)
        build_fail(b, ST_UNSUPPORTED, "the grammar needs more than %u rules", BUILD_RULES_MAX);
    if (b->n_rules == b->cap_rules && b->status == ST_OK)
        grow(b, (void **)&b->rules, &b->cap_rules, sizeof *b->rules);
    if (b->status != ST_OK)
        return 0;
    struct build_rule *r = &b->rules[b->n_rules];
    *r = (struct build_rule){.start = start, .end = end};
    snprintf(r->name, sizeof r->name, "%s", name);
    return b->n_rules++;
}

static void add_edge(struct builder *b, uint32_t from, struct build_edge edge)
{
    if (b->status != ST_OK)
        return;
    if (b->n_edges == BUILD_EDGES_MAX) {
        build_fail(b, ST_UNSUPPORTED, "the grammar needs more than %u moves", BUILD_EDGES_MAX);
        return;
    }
    if (b->n_edges == b->cap_edges && !grow(b, (void **)&b->edges, &b->cap_edges, sizeof *b->edges))
        return;
    if (b->n_edges == 0)
        b->edges[b->n_edges++] = (struct build_edge){0};
    if (b->n_edges == b->cap_edges && !grow(b, (void **)&b->edges, &b->cap_edges, sizeof *b->edges))
        return;
    edge.next = b->heads[from];
    b->edges[b->n_edges] = edge;
    b->heads[from] = b->n_edges++;
}

void build_eps(struct builder *b, uint32_t from, uint32_t to)
{
    add_edge(b, from, (struct build_edge){.kind = BUILD_EPS, .to = to});
}

void build_bytes(struct builder *b, uint32_t from, uint32_t to, struct ga_range bytes)
{
    add_edge(b, from,
             (struct build_edge){.kind = BUILD_BYTES, .to = to, .lo = bytes.lo, .hi = bytes.hi});
}

void build_call(struct builder *b, uint32_t from, uint32_t to, uint32_t rule,
                struct build_repeat times)
{
    if (times.max == 0)
        build_eps(b, from, to);
    else
        add_edge(
            b, from,
            (struct build_edge){
                .kind = BUILD_CALL, .to = to, .rule = rule, .min = times.min, .max = times.max});
}

uint32_t build_call_once(struct builder *b, uint32_t from, uint32_t rule)
{
    uint32_t to = build_state(b);
    build_call(b, from, to, rule, (struct build_repeat){1, 1});
    return to;
}

uint32_t build_byte(struct builder *b, uint32_t from, uint8_t byte)
{
    uint32_t to = build_state(b);
    build_bytes(b, from, to, (struct ga_range){.lo = byte, .hi = byte});
    return to;
}

uint32_t build_text(struct builder *b, uint32_t from, const char *text, size_t len)
{
    for (size_t i = 0; i < len && b->status == ST_OK; i++)
        from = build_byte(b, from, (uint8_t)text[i]);
    return from;
}

/* ---- characters as UTF-8 ---- */

/* States that lead through continuation bytes to one target: many ranges end alike. */
#define TAILS_MAX 32
struct tails {
    struct builder *b;
    uint32_t from, to;
    struct {
        uint8_t lo, hi;
        uint32_t to, state;
    } v[TAILS_MAX];
    size_t n;
};

static uint32_t tail_state(struct tails *t, struct ga_range bytes)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].lo == bytes.lo && t->v[i].hi == bytes.hi && t->v[i].to == bytes.to)
            return t->v[i].state;
    uint32_t state = build_state(t->b);
    build_bytes(t->b, state, bytes.to, bytes);
    if (t->n < TAILS_MAX) {
        t->v[t->n].lo = bytes.lo;
        t->v[t->n].hi = bytes.hi;
        t->v[t->n].to = bytes.to;
        t->v[t->n++].state = state;
    }
    return state;
}

/* lo..hi of one length whose bytes are ranges each: no carry between them. */
static void put_sequence(struct tails *t, const char *lo, const char *hi, size_t len)
{
    uint32_t to = t->to;
    for (size_t i = len - 1; i > 0; i--)
        to = tail_state(t, (struct ga_range){.lo = (uint8_t)lo[i], .hi = (uint8_t)hi[i], .to = to});
    build_bytes(t->b, t->from, to, (struct ga_range){.lo = (uint8_t)lo[0], .hi = (uint8_t)hi[0]});
}

/* Splits lo..hi where the number of bytes changes and where a byte carries into the one before. */
static void put_range(struct tails *t, uint32_t lo, uint32_t hi)
{
    static const uint32_t last[] = {0x7f, 0x7ff, 0xffff};
    while (lo <= hi && t->b->status == ST_OK) {
        uint32_t end = hi;
        for (size_t i = 0; i < 3; i++)
            if (lo <= last[i] && end > last[i])
                end = last[i];
        for (int bits = 6; bits < 24 && end > 0x7f; bits += 6) {
            uint32_t block = (UINT32_C(1) << bits) - 1;
            if ((lo & ~block) == (end & ~block))
                break;
            if ((lo & block) != 0)
                end = lo | block;
            else if ((end & block) != block)
                end = (end & ~block) - 1;
        }
        char a[4], z[4];
        size_t len = utf8_encode(lo, a);
        utf8_encode(end, z);
        put_sequence(t, a, z, len);
        lo = end + 1;
    }
}

void build_chars(struct builder *b, uint32_t from, uint32_t to, const struct char_range *ranges,
                 size_t n)
{
    struct tails t = {.b = b, .from = from, .to = to};
    for (size_t i = 0; i < n; i++) {
        uint32_t lo = ranges[i].lo, hi = ranges[i].hi > 0x10ffff ? 0x10ffff : ranges[i].hi;
        if (lo <= 0xd7ff)
            put_range(&t, lo, hi < 0xd7ff ? hi : 0xd7ff);
        if (hi >= 0xe000)
            put_range(&t, lo > 0xe000 ? lo : 0xe000, hi);
    }
}
