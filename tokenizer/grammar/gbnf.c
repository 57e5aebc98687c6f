/* GBNF, the grammar dialect of llama.cpp. An atom that is repeated a few times is read once per
 * copy; one that is repeated often becomes a rule of its own that is called so many times.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "tokenizer/grammar/chars.h"
#include "tokenizer/grammar/compile.h"

#define DEPTH_MAX 200
#define REPEAT_MAX 1000000
#define COPIED_STATES_MAX 512
#define COPIED_BYTES_MAX (1u << 20) /* of the text, by all copies: bounds the time */

struct symbol {
    const char *name;
    size_t len, at; /* at: first use or definition */
    uint32_t rule;
    bool defined;
};

struct gbnf {
    struct builder *b;
    const char *text;
    size_t len, at;
    size_t copied;
    int depth;
    struct symbol *symbols;
    uint32_t n_symbols, cap_symbols;
    uint32_t *slots, n_slots; /* symbol + 1 */
};

static void fail_at(struct gbnf *g, size_t at, enum status status, const char *why)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < at && i < g->len; i++)
        if (g->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    build_fail(g->b, status, "line %zu column %zu: %s", line, at - start + 1, why);
}

static void fail(struct gbnf *g, const char *why)
{
    fail_at(g, g->at, ST_INVALID, why);
}

static bool fine(const struct gbnf *g)
{
    return g->b->status == ST_OK;
}

static int peek(const struct gbnf *g)
{
    return g->at < g->len ? (unsigned char)g->text[g->at] : -1;
}

static void space(struct gbnf *g, bool newlines)
{
    for (;;) {
        int c = peek(g);
        if (c == '#')
            while (peek(g) >= 0 && peek(g) != '\n' && peek(g) != '\r')
                g->at++;
        else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r')))
            g->at++;
        else
            return;
    }
}

/* ---- names ---- */

static bool is_word(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static bool grow_symbols(struct gbnf *g)
{
    uint32_t cap = g->cap_symbols ? g->cap_symbols * 2 : 32, n = 4 * cap;
    struct symbol *v = realloc(g->symbols, cap * sizeof *v);
    uint32_t *slots = calloc(n, sizeof *slots);
    if (v)
        g->symbols = v;
    if (!v || !slots) {
        free(slots);
        build_fail(g->b, ST_NO_MEMORY, "no memory for the grammar");
        return false;
    }
    for (uint32_t i = 0; i < g->n_symbols; i++) {
        uint64_t h = hash_bytes(0, v[i].name, v[i].len);
        while (slots[h & (n - 1)])
            h++;
        slots[h & (n - 1)] = i + 1;
    }
    free(g->slots);
    g->slots = slots;
    g->n_slots = n;
    g->cap_symbols = cap;
    return true;
}

/* The symbol of the name that begins here. NULL after an error. */
static struct symbol *name(struct gbnf *g)
{
    size_t begin = g->at;
    while (is_word(peek(g)))
        g->at++;
    size_t len = g->at - begin;
    if (len == 0)
        fail(g, "a name is missing");
    if (!fine(g) || (g->n_symbols == g->cap_symbols && !grow_symbols(g)))
        return NULL;
    uint64_t h = hash_bytes(0, g->text + begin, len);
    for (uint32_t i; (i = g->slots[h & (g->n_slots - 1)]) != 0; h++) {
        struct symbol *s = &g->symbols[i - 1];
        if (s->len == len && memcmp(s->name, g->text + begin, len) == 0)
            return s;
    }
    char shown[BUILD_NAME_BYTES];
    snprintf(shown, sizeof shown, "%.*s", len > 60 ? 60 : (int)len, g->text + begin);
    g->symbols[g->n_symbols] = (struct symbol){
        .name = g->text + begin, .len = len, .at = begin, .rule = build_rule(g->b, shown)};
    g->slots[h & (g->n_slots - 1)] = ++g->n_symbols;
    return fine(g) ? &g->symbols[g->n_symbols - 1] : NULL;
}

/* ---- literals and classes ---- */

static uint32_t hex(struct gbnf *g, int digits)
{
    uint32_t v = 0;
    for (int i = 0; i < digits; i++) {
        int c = peek(g);
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 87
                                                     : -1;
        if (c < 0 || d < 0) {
            fail(g, "hexadecimal digits are missing");
            return 0;
        }
        v = v * 16 + (uint32_t)d;
        g->at++;
    }
    return v;
}

static uint32_t character(struct gbnf *g)
{
    uint32_t cp;
    if (peek(g) != '\\') {
        size_t n = utf8_decode(g->text + g->at, g->len - g->at, &cp);
        if (n == 0)
            fail(g, g->at < g->len ? "not UTF-8" : "the grammar ends too early");
        g->at += n;
        return n ? cp : 0;
    }
    size_t begin = g->at++;
    int c = peek(g);
    g->at++;
    switch (c) {
    case 'x':
        cp = hex(g, 2);
        break;
    case 'u':
        cp = hex(g, 4);
        break;
    case 'U':
        cp = hex(g, 8);
        break;
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
        return (uint32_t)c;
    default:
        g->at = begin;
        fail(g, "unknown escape");
        return 0;
    }
    if (cp > CHAR_MAX_CP || (cp >= 0xd800 && cp <= 0xdfff)) {
        g->at = begin;
        fail(g, "not a character");
        return 0;
    }
    return cp;
}

static void literal(struct gbnf *g, uint32_t from, uint32_t to)
{
    g->at++;
    while (fine(g) && peek(g) != '"') {
        char utf8[4];
        uint32_t cp = character(g);
        from = build_text(g->b, from, utf8, utf8_encode(cp, utf8));
    }
    g->at++;
    build_eps(g->b, from, to);
}

static void class(struct gbnf *g, uint32_t from, uint32_t to)
{
    struct char_set set = {0};
    g->at++;
    bool negated = peek(g) == '^';
    g->at += negated;
    while (fine(g) && peek(g) != ']') {
        size_t begin = g->at;
        uint32_t lo = character(g), hi = lo;
        if (peek(g) == '-' && g->at + 1 < g->len && g->text[g->at + 1] != ']') {
            g->at++;
            hi = character(g);
        }
        if (hi < lo)
            fail_at(g, begin, ST_INVALID, "the range is the wrong way round");
        chars_add(&set, lo, hi);
    }
    g->at++;
    chars_normalize(&set);
    if (negated)
        chars_negate(&set);
    if (set.failed)
        build_fail(g->b, ST_NO_MEMORY, "no memory for the grammar");
    build_chars(g->b, from, to, set.v, set.n);
    chars_fini(&set);
}

/* ---- structure ---- */

static void alternatives(struct gbnf *g, uint32_t from, uint32_t to);

static void atom(struct gbnf *g, uint32_t from, uint32_t to)
{
    int c = peek(g);
    if (c == '"') {
        literal(g, from, to);
    } else if (c == '[') {
        class(g, from, to);
    } else if (c == '.') {
        struct char_range any = {0, CHAR_MAX_CP};
        g->at++;
        build_chars(g->b, from, to, &any, 1);
    } else if (c == '(') {
        if (++g->depth > DEPTH_MAX)
            fail_at(g, g->at, ST_UNSUPPORTED, "parentheses are nested too deep");
        g->at++;
        space(g, true);
        alternatives(g, from, to);
        space(g, true);
        if (fine(g) && peek(g) != ')')
            fail(g, "')' is missing");
        g->at++;
        g->depth--;
    } else if (is_word(c)) {
        const struct symbol *s = name(g);
        if (s)
            build_call(g->b, from, to, s->rule, (struct build_repeat){1, 1});
    } else if (c == '<' || c == '!') {
        fail_at(g, g->at, ST_UNSUPPORTED, "references to tokens are not supported");
    } else {
        fail(g, "expected a literal, a class, a name or '('");
    }
}

static uint32_t number(struct gbnf *g)
{
    uint64_t v = 0;
    if (peek(g) < '0' || peek(g) > '9')
        fail(g, "a number is missing");
    while (peek(g) >= '0' && peek(g) <= '9') {
        v = v * 10 + (uint64_t)(g->text[g->at++] - '0');
        if (v > REPEAT_MAX)
            v = REPEAT_MAX + 1;
    }
    if (v > REPEAT_MAX)
        fail_at(g, g->at, ST_UNSUPPORTED, "a repetition is over 1000000");
    return (uint32_t)v;
}

static bool quantifier(struct gbnf *g, struct build_repeat *times)
{
    size_t begin = g->at;
    int c = peek(g);
    *times = (struct build_repeat){c == '+', c == '?' ? 1 : GRAMMAR_UNBOUNDED};
    if (c == '*' || c == '+' || c == '?') {
        g->at++;
        return true;
    }
    if (c != '{')
        return false;
    g->at++;
    space(g, true);
    times->min = peek(g) == ',' ? 0 : number(g);
    times->max = times->min;
    space(g, true);
    if (peek(g) == ',') {
        g->at++;
        space(g, true);
        times->max = peek(g) == '}' ? GRAMMAR_UNBOUNDED : number(g);
        space(g, true);
    }
    if (fine(g) && peek(g) != '}')
        fail(g, "'}' is missing");
    g->at++;
    if (times->max < times->min)
        fail_at(g, begin, ST_INVALID, "the repetition is the wrong way round");
    return fine(g);
}

/* From `from` the fragment first..last so often; the copies are read again. */
static uint32_t copies(struct gbnf *g, size_t begin, uint32_t from, uint32_t first, uint32_t last,
                       struct build_repeat times)
{
    struct builder *b = g->b;
    bool open = times.max == GRAMMAR_UNBOUNDED;
    uint32_t n = open ? (times.min > 1 ? times.min : 1) : times.max, out = build_state(b);
    size_t end = g->at;
    for (uint32_t i = 0; i < n && fine(g); i++) {
        if (i > 0) {
            first = build_state(b);
            last = build_state(b);
            g->at = begin;
            atom(g, first, last);
            g->copied += g->at - begin;
        }
        if (i >= times.min)
            build_eps(b, from, out);
        build_eps(b, from, first);
        from = last;
    }
    if (open)
        build_eps(b, last, first);
    build_eps(b, from, out);
    g->at = end;
    return out;
}

static uint32_t repeated(struct gbnf *g, uint32_t from)
{
    struct builder *b = g->b;
    size_t begin = g->at;
    uint32_t states = b->n_states, first = build_state(b), last = build_state(b);
    struct build_repeat times;
    atom(g, first, last);
    uint64_t size = b->n_states - states, bytes = g->at - begin;
    space(g, g->depth > 0);
    if (!fine(g) || !quantifier(g, &times)) {
        build_eps(b, from, first);
        return last;
    }
    uint64_t n = times.max == GRAMMAR_UNBOUNDED ? times.min : times.max;
    uint32_t to;
    if (n <= 1 || (n * size <= COPIED_STATES_MAX && g->copied + n * bytes <= COPIED_BYTES_MAX)) {
        to = copies(g, begin, from, first, last, times);
    } else {
        to = build_state(b);
        build_call(b, from, to, build_rule_of(b, first, last, "(repetition)"), times);
    }
    return to;
}

static void alternatives(struct gbnf *g, uint32_t from, uint32_t to)
{
    for (;;) {
        uint32_t at = build_state(g->b);
        build_eps(g->b, from, at);
        space(g, g->depth > 0);
        while (fine(g)) {
            int c = peek(g);
            if (c < 0 || c == '|' || c == ')' || c == '\n' || c == '\r')
                break;
            at = repeated(g, at);
            space(g, g->depth > 0);
        }
        build_eps(g->b, at, to);
        size_t end = g->at;
        space(g, true); /* an alternative may begin the next line */
        if (!fine(g) || peek(g) != '|') {
            g->at = end;
            return;
        }
        g->at++;
        space(g, true);
    }
}

static void rule(struct gbnf *g)
{
    size_t begin = g->at;
    const struct symbol *s = name(g);
    if (!s)
        return;
    size_t index = (size_t)(s - g->symbols);
    if (s->defined) {
        fail_at(g, begin, ST_INVALID, "the rule is defined twice");
        return;
    }
    space(g, false);
    if (g->len - g->at < 3 || memcmp(g->text + g->at, "::=", 3) != 0) {
        fail(g, "expected ::=");
        return;
    }
    g->at += 3;
    space(g, true);
    uint32_t r = s->rule;
    g->symbols[index].defined = true;
    alternatives(g, g->b->rules[r].start, g->b->rules[r].end);
    if (fine(g) && peek(g) >= 0 && peek(g) != '\n' && peek(g) != '\r')
        fail(g, "expected a new line");
    space(g, true);
}

static uint32_t find_root(struct gbnf *g)
{
    for (uint32_t i = 0; i < g->n_symbols && fine(g); i++)
        if (!g->symbols[i].defined)
            fail_at(g, g->symbols[i].at, ST_INVALID, "the rule is not defined");
    for (uint32_t i = 0; i < g->n_symbols && fine(g); i++)
        if (g->symbols[i].len == 4 && memcmp(g->symbols[i].name, "root", 4) == 0)
            return g->symbols[i].rule;
    build_fail(g->b, ST_INVALID, "the grammar has no rule \"root\"");
    return 0;
}

uint32_t gbnf_compile(struct builder *b, const char *text, size_t len)
{
    struct gbnf g = {.b = b, .text = text, .len = len};
    space(&g, true);
    while (fine(&g) && g.at < len)
        rule(&g);
    uint32_t root = find_root(&g);
    free(g.symbols);
    free(g.slots);
    return root;
}
