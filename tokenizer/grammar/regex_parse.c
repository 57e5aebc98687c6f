/* Regular expressions in the common dialect (ECMA-262 without what is not regular): alternation,
 * groups, classes, quantifiers, anchors, escapes, \p{...}. A quantifier's atom is read once per
 * copy: nesting is bounded by the number of states that come out. Then empty moves and anchors go.
 *
 * An anchor is an empty move that is open at the beginning, or only at the end: states reached
 * through "end" count for acceptance and nothing else, those through "begin" for the first state.
 */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/grammar/charnet.h"

#define DEPTH_MAX 200
#define REPEAT_MAX 20000
#define MOVES_MAX 400000u
#define STEPS_MAX 6000000u
#define READ_AGAIN_MAX (4u << 20) /* bytes of all copies: bounds the time */

enum move_kind { MOVE_EPS, MOVE_BEGIN, MOVE_END, MOVE_CHARS };
struct move {
    uint32_t next, to, set;
    enum move_kind kind;
};

struct parser {
    struct builder *b;
    const struct charnet_pattern *p;
    size_t at;
    int depth;
    struct move *moves;
    uint32_t n_moves, cap_moves;
    uint32_t *heads, n_states, cap_states;
    struct char_set *sets;
    uint32_t n_sets, cap_sets;
    uint32_t *set_at; /* [len + 1] set of the atom that begins there, + 1 */
    size_t ranges;    /* of all sets: each of them becomes an edge at least once */
    size_t read_again;
};

static void fail(struct parser *r, enum status status, const char *why)
{
    if (r->p->what)
        build_fail(r->b, status, "%s: offset %zu: %s", r->p->what, r->at, why);
    else
        build_fail(r->b, status, "offset %zu: %s", r->at, why);
}

static bool fine(const struct parser *r)
{
    return r->b->status == ST_OK;
}

static bool grow(struct parser *r, void **v, uint32_t *cap, uint32_t n, size_t bytes)
{
    if (n < *cap)
        return true;
    uint32_t more = *cap ? *cap * 2 : 64;
    void *to = more <= 2 * MOVES_MAX ? realloc(*v, more * bytes) : NULL;
    if (!to) {
        fail(r, ST_UNSUPPORTED, "the pattern is too large");
        return false;
    }
    *v = to;
    *cap = more;
    return true;
}

static uint32_t new_state(struct parser *r)
{
    if (!fine(r) || !grow(r, (void **)&r->heads, &r->cap_states, r->n_states, sizeof *r->heads))
        return 0;
    r->heads[r->n_states] = 0;
    return r->n_states++;
}

static void move(struct parser *r, uint32_t from, uint32_t to, enum move_kind kind)
{
    if (r->n_moves == 0)
        r->n_moves = 1; /* 0 ends a list */
    if (!fine(r) || !grow(r, (void **)&r->moves, &r->cap_moves, r->n_moves, sizeof *r->moves))
        return;
    r->moves[r->n_moves] = (struct move){.next = r->heads[from], .to = to, .kind = kind};
    r->heads[from] = r->n_moves++;
}

static void move_chars(struct parser *r, uint32_t from, uint32_t to, uint32_t set)
{
    uint32_t n = r->n_moves;
    move(r, from, to, MOVE_CHARS);
    if (r->n_moves > n)
        r->moves[r->n_moves - 1].set = set;
}

static int peek(const struct parser *r)
{
    return r->at < r->p->len ? (unsigned char)r->p->text[r->at] : -1;
}

static bool looking_at(const struct parser *r, const char *s)
{
    size_t n = strlen(s);
    return r->p->len - r->at >= n && memcmp(r->p->text + r->at, s, n) == 0;
}

/* ---- characters and classes ---- */

static uint32_t next_char(struct parser *r)
{
    uint32_t cp;
    size_t n = utf8_decode(r->p->text + r->at, r->p->len - r->at, &cp);
    if (n == 0) {
        fail(r, ST_INVALID, r->at < r->p->len ? "not UTF-8" : "the pattern ends too early");
        return 0;
    }
    r->at += n;
    return cp;
}

static uint32_t hex_digits(struct parser *r, size_t min, size_t max)
{
    uint32_t v = 0;
    size_t n = 0;
    for (; n < max; n++) {
        int c = peek(r), d = c >= '0' && c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
        if (c < 0 || d < 0 || d > 15 || (c > '9' && (c | 32) < 'a'))
            break;
        v = v * 16 + (uint32_t)d;
        r->at++;
    }
    if (n < min)
        fail(r, ST_INVALID, "hexadecimal digits are missing");
    return v;
}

static uint32_t hex_escape(struct parser *r, size_t digits)
{
    if (peek(r) == '{') {
        r->at++;
        uint32_t v = hex_digits(r, 1, 6);
        if (peek(r) != '}')
            fail(r, ST_INVALID, "'}' is missing");
        r->at++;
        return v;
    }
    uint32_t v = hex_digits(r, digits, digits);
    if (digits != 4 || v < 0xd800 || v > 0xdbff ||
        !(looking_at(r, "\\ud") || looking_at(r, "\\uD")))
        return v;
    size_t before = r->at;
    r->at += 2;
    uint32_t low = hex_digits(r, 4, 4);
    if (low >= 0xdc00)
        return 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    r->at = before; /* two halves that make no character: no text has either */
    return v;
}

static void property(struct parser *r, struct char_set *set, bool negated)
{
    size_t begin = r->at + 1;
    if (peek(r) == '{')
        while (r->at < r->p->len && peek(r) != '}')
            r->at++;
    if (peek(r) != '}')
        fail(r, ST_INVALID, "\\p needs a {name}");
    else if (!chars_add_property(set, r->p->text + begin, r->at - begin, negated))
        fail(r, ST_UNSUPPORTED, "this character property is not supported");
    r->at++;
}

/* Behind a backslash, in a class or outside: a class of characters into *set (true), else one
 * character. */
static bool escape(struct parser *r, struct char_set *set, uint32_t *cp)
{
    uint32_t c = next_char(r);
    switch (c) {
    case 'p':
    case 'P':
        property(r, set, c == 'P');
        return true;
    case 'd':
    case 'D':
    case 'w':
    case 'W':
    case 's':
    case 'S':
        chars_add_class(set, (char)c);
        return true;
    case 'x':
        *cp = hex_escape(r, 2);
        return false;
    case 'u':
        *cp = hex_escape(r, 4);
        return false;
    case 'c':
        *cp = next_char(r) & 31;
        return false;
    case '0':
        *cp = 0;
        return false;
    default:
        break;
    }
    static const char letters[] = "n\nr\rt\tf\fv\va\ae\033";
    for (size_t i = 0; i + 1 < sizeof letters; i += 2)
        if (c == (uint32_t)letters[i]) {
            *cp = (uint32_t)letters[i + 1];
            return false;
        }
    if (c >= '1' && c <= '9')
        fail(r, ST_UNSUPPORTED, "backreferences are not supported");
    else if (c == 'k')
        fail(r, ST_UNSUPPORTED, "backreferences are not supported");
    else if ((c | 32) >= 'a' && (c | 32) <= 'z' && c < 128)
        fail(r, ST_UNSUPPORTED, "this escape is not supported");
    *cp = c;
    return false;
}

static void class_item(struct parser *r, struct char_set *set)
{
    static const struct {
        const char *name;
        char letter;
    } posix[] = {{"[:digit:]", 'd'}, {"[:space:]", 's'}, {"[:word:]", 'w'}};
    for (size_t i = 0; i < sizeof posix / sizeof *posix; i++)
        if (looking_at(r, posix[i].name)) {
            chars_add_class(set, posix[i].letter);
            r->at += strlen(posix[i].name);
            return;
        }
    uint32_t lo = next_char(r), hi;
    if (lo == '\\') {
        if (peek(r) == 'b') {
            r->at++;
            lo = '\b';
        } else if (escape(r, set, &lo)) {
            return;
        }
    }
    hi = lo;
    if (peek(r) == '-' && r->at + 1 < r->p->len && r->p->text[r->at + 1] != ']') {
        size_t before = r->at++;
        hi = next_char(r);
        if (hi == '\\' && escape(r, set, &hi)) {
            chars_add(set, '-', '-'); /* [a-\d]: the dash is one */
            hi = lo;
        } else if (hi < lo) {
            r->at = before;
            fail(r, ST_INVALID, "the range is the wrong way round");
        }
    }
    chars_add(set, lo, hi);
}

static void class(struct parser *r, struct char_set *set)
{
    bool negated = peek(r) == '^';
    r->at += negated;
    size_t tidy_at = 4096; /* many items may say the same */
    while (fine(r) && peek(r) != ']') {
        if (peek(r) < 0)
            fail(r, ST_INVALID, "']' is missing");
        else
            class_item(r, set);
        if (set->n > tidy_at) {
            chars_normalize(set);
            tidy_at = 4096 + 2 * set->n;
        }
    }
    r->at++;
    chars_normalize(set);
    if (negated)
        chars_negate(set);
}

/* The set of the atom at `begin`, read only once. */
static uint32_t keep_set(struct parser *r, size_t begin, struct char_set *set)
{
    chars_normalize(set);
    if (set->failed)
        fail(r, ST_NO_MEMORY, "no memory");
    r->ranges += set->n;
    if (r->ranges > CHARNET_EDGES_MAX)
        fail(r, ST_UNSUPPORTED, "the pattern is too large");
    if (!fine(r) || !grow(r, (void **)&r->sets, &r->cap_sets, r->n_sets, sizeof *r->sets)) {
        chars_fini(set);
        return 0;
    }
    r->sets[r->n_sets++] = *set;
    r->set_at[begin] = r->n_sets;
    return r->n_sets - 1;
}

/* ---- atoms ---- */

static void alternatives(struct parser *r, uint32_t from, uint32_t to);

static void group(struct parser *r, uint32_t from, uint32_t to)
{
    if (looking_at(r, "?:"))
        r->at += 2;
    else if (looking_at(r, "?P<") ||
             (looking_at(r, "?<") && !looking_at(r, "?<=") && !looking_at(r, "?<!"))) {
        while (peek(r) >= 0 && peek(r) != '>')
            r->at++;
        r->at++;
    } else if (peek(r) == '?') {
        fail(r, ST_UNSUPPORTED, "lookaround and inline flags are not supported");
    }
    if (++r->depth > DEPTH_MAX)
        fail(r, ST_UNSUPPORTED, "groups are nested too deep");
    alternatives(r, from, to);
    r->depth--;
    if (fine(r) && peek(r) != ')')
        fail(r, ST_INVALID, "')' is missing");
    r->at++;
}

static void one_set(struct parser *r, uint32_t from, uint32_t to, size_t begin)
{
    struct char_set set = {0};
    uint32_t c = next_char(r), cp = c;
    if (c == '[') {
        class(r, &set);
    } else if (c == '.') {
        chars_add(&set, '\n', '\n');
        chars_add(&set, '\r', '\r');
        chars_add(&set, 0x2028, 0x2029);
        chars_normalize(&set);
        chars_negate(&set);
    } else if (c != '\\' || !escape(r, &set, &cp)) {
        if (cp > CHAR_MAX_CP)
            fail(r, ST_INVALID, "not a character");
        chars_add(&set, cp, cp);
    }
    move_chars(r, from, to, keep_set(r, begin, &set));
}

static void atom(struct parser *r, uint32_t from, uint32_t to)
{
    size_t begin = r->at;
    int c = peek(r);
    if (c == '(') {
        r->at++;
        group(r, from, to);
    } else if (c == '^' || looking_at(r, "\\A")) {
        r->at += c == '^' ? 1 : 2;
        move(r, from, to, MOVE_BEGIN);
    } else if (c == '$' || looking_at(r, "\\z") || looking_at(r, "\\Z")) {
        r->at += c == '$' ? 1 : 2;
        move(r, from, to, MOVE_END);
    } else if (looking_at(r, "\\b") || looking_at(r, "\\B")) {
        fail(r, ST_UNSUPPORTED, "word boundaries are not supported");
    } else if (c == '*' || c == '+' || c == '?') {
        fail(r, ST_INVALID, "there is nothing to repeat");
    } else {
        one_set(r, from, to, begin);
    }
}

static bool number(struct parser *r, uint32_t *n)
{
    size_t begin = r->at;
    uint64_t v = 0;
    while (peek(r) >= '0' && peek(r) <= '9') {
        v = v * 10 + (uint64_t)(peek(r) - '0');
        v = v > REPEAT_MAX ? REPEAT_MAX + 1 : v;
        r->at++;
    }
    *n = (uint32_t)v;
    return r->at > begin;
}

/* {m}, {m,}, {m,n}; another brace is a brace. */
static bool counts(struct parser *r, struct build_repeat *times)
{
    size_t begin = r->at++;
    bool ok = number(r, &times->min);
    times->max = times->min;
    if (ok && peek(r) == ',') {
        r->at++;
        if (!number(r, &times->max))
            times->max = GRAMMAR_UNBOUNDED;
    } else if (!ok && peek(r) == ',') {
        r->at++;
        ok = number(r, &times->max);
        times->min = 0;
    }
    if (!ok || peek(r) != '}') {
        r->at = begin;
        return false;
    }
    r->at++;
    if (times->min > REPEAT_MAX || (times->max != GRAMMAR_UNBOUNDED && times->max > REPEAT_MAX))
        fail(r, ST_UNSUPPORTED, "a repetition is over 20000");
    else if (times->max < times->min)
        fail(r, ST_INVALID, "the repetition is the wrong way round");
    return true;
}

static bool quantifier(struct parser *r, struct build_repeat *times)
{
    int c = peek(r);
    *times = (struct build_repeat){c == '+', c == '?' ? 1 : GRAMMAR_UNBOUNDED};
    if (c == '*' || c == '+' || c == '?')
        r->at++;
    else if (c != '{' || !counts(r, times))
        return false;
    if (peek(r) == '?') /* lazy: the language is the same */
        r->at++;
    else if (peek(r) == '+')
        fail(r, ST_UNSUPPORTED, "possessive quantifiers are not supported");
    return true;
}

/* The atom at `begin` once more. */
static void again(struct parser *r, size_t begin, uint32_t from, uint32_t to)
{
    if (r->set_at[begin])
        move_chars(r, from, to, r->set_at[begin] - 1);
    else {
        r->at = begin;
        atom(r, from, to);
        r->read_again += r->at - begin;
        if (r->read_again > READ_AGAIN_MAX)
            fail(r, ST_UNSUPPORTED, "the pattern is too large");
    }
}

static uint32_t repeated(struct parser *r, uint32_t from)
{
    size_t begin = r->at, end;
    struct build_repeat times;
    uint32_t first = new_state(r), last = new_state(r);
    atom(r, first, last);
    if (!fine(r) || !quantifier(r, &times)) {
        move(r, from, first, MOVE_EPS);
        return last;
    }
    end = r->at;
    bool open = times.max == GRAMMAR_UNBOUNDED;
    uint32_t copies = open ? (times.min > 1 ? times.min : 1) : times.max, out = new_state(r);
    uint32_t at = from;
    for (uint32_t i = 0; i < copies && fine(r); i++) {
        if (i > 0) {
            first = new_state(r);
            last = new_state(r);
            again(r, begin, first, last);
        }
        if (i >= times.min)
            move(r, at, out, MOVE_EPS);
        move(r, at, first, MOVE_EPS);
        at = last;
    }
    if (open)
        move(r, last, first, MOVE_EPS);
    move(r, at, out, MOVE_EPS);
    r->at = end;
    return out;
}

static void alternatives(struct parser *r, uint32_t from, uint32_t to)
{
    for (;;) {
        uint32_t at = new_state(r);
        move(r, from, at, MOVE_EPS);
        while (fine(r) && peek(r) >= 0 && peek(r) != '|' && peek(r) != ')')
            at = repeated(r, at);
        move(r, at, to, MOVE_EPS);
        if (!fine(r) || peek(r) != '|')
            return;
        r->at++;
    }
}

/* ---- without empty moves ---- */

struct closure {
    struct parser *r;
    uint32_t *stamps, stamp, *stack, *list, n, steps;
};

/* States reached from `s` by empty moves and, where asked for, through the anchors. */
static void close_over(struct closure *c, uint32_t s, bool begin, bool end)
{
    uint32_t n = 0;
    c->stamp++;
    c->n = 0;
    c->stack[n++] = s;
    c->stamps[s] = c->stamp;
    while (n > 0) {
        s = c->stack[--n];
        c->list[c->n++] = s;
        for (uint32_t i = c->r->heads[s]; i; i = c->r->moves[i].next) {
            const struct move *m = &c->r->moves[i];
            c->steps++;
            if (m->kind == MOVE_CHARS || (m->kind == MOVE_BEGIN && !begin) ||
                (m->kind == MOVE_END && !end) || c->stamps[m->to] == c->stamp)
                continue;
            c->stamps[m->to] = c->stamp;
            c->stack[n++] = m->to;
        }
    }
}

static uint32_t number_of(struct closure *c, uint32_t *numbers, uint32_t *old, uint32_t s,
                          struct charnet *out)
{
    if (numbers[s] == 0) {
        uint32_t n = charnet_state(out, c->r->b);
        if (!fine(c->r))
            return 0;
        old[n] = s;
        numbers[s] = n + 1;
    }
    return numbers[s] - 1;
}

static void drop_empty_moves(struct parser *r, uint32_t start, uint32_t final, struct charnet *out)
{
    size_t n = r->n_states;
    uint32_t *memory = calloc(5 * n + 1, sizeof *memory);
    if (!memory) {
        fail(r, ST_NO_MEMORY, "no memory");
        return;
    }
    struct closure c = {.r = r, .stamps = memory, .stack = memory + n, .list = memory + 2 * n};
    uint32_t *numbers = memory + 3 * n, *old = memory + 4 * n;
    number_of(&c, numbers, old, start, out);
    for (uint32_t s = 0; s < out->n_states && fine(r); s++) {
        bool first = s == 0;
        close_over(&c, old[s], first, true);
        for (uint32_t i = 0; i < c.n; i++)
            if (c.list[i] == final)
                out->accept[s] = 1;
        close_over(&c, old[s], first, false);
        for (uint32_t i = 0; i < c.n && fine(r); i++)
            for (uint32_t k = r->heads[c.list[i]]; k; k = r->moves[k].next) {
                const struct move *m = &r->moves[k];
                if (m->kind != MOVE_CHARS)
                    continue;
                uint32_t to = number_of(&c, numbers, old, m->to, out);
                const struct char_set *set = &r->sets[m->set];
                for (size_t v = 0; v < set->n; v++)
                    charnet_edge(out, r->b, (struct charnet_edge){s, to, set->v[v]});
                c.steps += (uint32_t)set->n;
            }
        if (c.steps > STEPS_MAX)
            fail(r, ST_UNSUPPORTED, "the pattern is too large");
    }
    build_spend(r->b, c.steps);
    free(memory);
}

void charnet_compile(struct builder *b, const struct charnet_pattern *p, struct charnet *out)
{
    struct parser r = {.b = b, .p = p};
    struct char_set any = {0};
    r.set_at = calloc(p->len + 1, sizeof *r.set_at);
    if (!r.set_at)
        build_fail(b, ST_NO_MEMORY, "no memory for the pattern");
    if (fine(&r)) {
        uint32_t start = new_state(&r), first = new_state(&r), last = new_state(&r);
        uint32_t final = new_state(&r), before = new_state(&r);
        move(&r, start, before, MOVE_EPS); /* nothing leads back to `start`: there "begin" holds */
        move(&r, before, first, MOVE_EPS);
        move(&r, last, final, MOVE_EPS);
        alternatives(&r, first, last);
        if (fine(&r) && r.at < p->len)
            fail(&r, ST_INVALID, "')' without '('");
        if (p->search) {
            chars_add(&any, 0, CHAR_MAX_CP);
            uint32_t set = keep_set(&r, p->len, &any);
            move_chars(&r, before, before, set);
            move_chars(&r, final, final, set);
        }
        drop_empty_moves(&r, start, final, out);
    }
    charnet_seal(out, b);
    for (uint32_t i = 0; i < r.n_sets; i++)
        chars_fini(&r.sets[i]);
    free(r.sets);
    free(r.moves);
    free(r.heads);
    free(r.set_at);
}
