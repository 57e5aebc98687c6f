#include "formats/name_pattern.h"

#include <stddef.h>
#include <string.h>

#define STEPS_MAX 10000
#define DEPTH_MAX 200
#define REPEAT_MAX 1000

/* A matcher in continuation style: match(p, end, s, then) tries the pattern p..end at s and, where
 * that succeeds, what is to follow. Continuations live on the stack. */
struct matcher {
    const char *name;
    int steps, depth;
};

struct then {
    const char *p, *end; /* the rest of the pattern */
    const struct then *next;
    /* for a repeated piece: how often it has matched, and where that began */
    const struct repeat *repeat;
    int count;
    const char *from;
};

struct repeat {
    const char *piece, *piece_end; /* one atom */
    const char *after, *end;       /* the pattern behind it */
    int min, max;
    bool lazy;
    const struct then *then;
};

static bool match(struct matcher *m, const char *p, const char *end, const char *s,
                  const struct then *then);

/* End of the atom at p: a character, an escape, a class or a group. NULL: malformed. */
static const char *atom_end(const char *p, const char *end)
{
    if (*p == '\\')
        return p + 1 < end ? p + 2 : NULL;
    if (*p == '[') {
        p++;
        p += p < end && *p == '^';
        p += p < end && *p == ']';
        while (p < end && *p != ']')
            p += *p == '\\' ? 2 : 1;
        return p < end ? p + 1 : NULL;
    }
    if (*p != '(')
        return p + 1;
    int depth = 0;
    while (p < end) {
        if (*p == '[' || *p == '\\') {
            p = atom_end(p, end);
            if (!p)
                return NULL;
            continue;
        }
        depth += *p == '(';
        depth -= *p == ')';
        p++;
        if (depth == 0)
            return p;
    }
    return NULL;
}

/* Next `|` outside of groups, or the end. */
static const char *branch_end(const char *p, const char *end)
{
    while (p < end && *p != '|') {
        p = atom_end(p, end);
        if (!p)
            return end;
    }
    return p < end ? p : end;
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool escape_has(char kind, char c)
{
    switch (kind) {
    case 'd':
        return c >= '0' && c <= '9';
    case 'D':
        return !(c >= '0' && c <= '9');
    case 'w':
        return is_word(c);
    case 'W':
        return !is_word(c);
    case 's':
        return c == ' ' || (c >= '\t' && c <= '\r');
    case 'S':
        return c != ' ' && !(c >= '\t' && c <= '\r');
    default:
        return c == kind;
    }
}

static bool class_has(const char *p, const char *end, char c)
{
    bool negated = p[1] == '^', has = false;
    p += negated ? 2 : 1;
    for (; p < end - 1; p++) {
        if (*p == '\\' && p + 1 < end - 1) {
            has = has || escape_has(*++p, c);
        } else if (p + 2 < end - 1 && p[1] == '-') {
            has = has || (c >= *p && c <= p[2]);
            p += 2;
        } else {
            has = has || c == *p;
        }
    }
    return has != negated;
}

/* {m}, {m,}, {m,n}, *, +, ? and a lazy `?` behind; p is after the atom. Returns where it ends. */
static const char *read_repeat(const char *p, const char *end, struct repeat *r)
{
    r->min = r->max = 1;
    r->lazy = false;
    if (p >= end)
        return p;
    if (*p == '*' || *p == '+' || *p == '?') {
        r->min = *p == '+';
        r->max = *p == '?' ? 1 : REPEAT_MAX;
        p++;
    } else if (*p == '{') {
        int bounds[2] = {0, -1}, k = 0;
        const char *q = p + 1;
        bool digits = false;
        for (; q < end && *q != '}'; q++) {
            if (*q == ',' && k == 0 && digits) {
                k = 1;
            } else if (*q >= '0' && *q <= '9' && bounds[k] < REPEAT_MAX) {
                bounds[k] = (bounds[k] < 0 ? 0 : bounds[k]) * 10 + (*q - '0');
                digits = true;
            } else {
                return NULL;
            }
        }
        if (q >= end || !digits)
            return NULL;
        r->min = bounds[0];
        r->max = k == 0 ? bounds[0] : bounds[1] < 0 ? REPEAT_MAX : bounds[1];
        if (r->min > REPEAT_MAX || r->max > REPEAT_MAX || r->max < r->min)
            return NULL;
        p = q + 1;
    } else {
        return p;
    }
    if (p < end && *p == '?') {
        r->lazy = true;
        p++;
    }
    return p < end && (*p == '*' || *p == '+' || *p == '?') ? NULL : p;
}

static bool go_on(struct matcher *m, const char *s, const struct then *then);

static bool alternatives(struct matcher *m, const char *p, const char *end, const char *s,
                         const struct then *then)
{
    for (;;) {
        const char *stop = branch_end(p, end);
        if (match(m, p, stop, s, then))
            return true;
        if (stop >= end)
            return false;
        p = stop + 1;
    }
}

/* One atom at s, then what follows. */
static bool match_atom(struct matcher *m, const char *p, const char *end, const char *s,
                       const struct then *then)
{
    if (*p == '(') {
        const char *inside = p + 1;
        if (*inside == '?') {
            char kind = inside[1];
            inside += 2;
            if (kind == '=' || kind == '!')
                return alternatives(m, inside, end - 1, s, NULL) == (kind == '=') &&
                       go_on(m, s, then);
        }
        return alternatives(m, inside, end - 1, s, then);
    }
    if (*p == '^')
        return s == m->name && go_on(m, s, then);
    if (*p == '$')
        return !*s && go_on(m, s, then);
    if (*p == '\\' && p[1] == 'b') {
        bool before = s > m->name && is_word(s[-1]), after = *s && is_word(*s);
        return before != after && go_on(m, s, then);
    }
    if (!*s)
        return false;
    bool ok = *p == '\\'  ? escape_has(p[1], *s)
              : *p == '[' ? class_has(p, end, *s)
              : *p == '.' ? *s != '\n'
                          : *p == *s;
    return ok && go_on(m, s + 1, then);
}

static bool match_repeat(struct matcher *m, const struct repeat *r, int count, const char *s)
{
    struct then again = {.next = r->then, .repeat = r, .count = count + 1, .from = s};
    bool more = count < r->max;
    if (count < r->min)
        return match_atom(m, r->piece, r->piece_end, s, &again);
    if (r->lazy)
        return match(m, r->after, r->end, s, r->then) ||
               (more && match_atom(m, r->piece, r->piece_end, s, &again));
    return (more && match_atom(m, r->piece, r->piece_end, s, &again)) ||
           match(m, r->after, r->end, s, r->then);
}

/* The piece in front has matched up to s. */
static bool go_on(struct matcher *m, const char *s, const struct then *then)
{
    if (!then)
        return true;
    if (then->repeat) {
        if (s == then->from && then->count > then->repeat->min)
            return false; /* an empty turn leads nowhere */
        return match_repeat(m, then->repeat, then->count, s);
    }
    return match(m, then->p, then->end, s, then->next);
}

static bool match(struct matcher *m, const char *p, const char *end, const char *s,
                  const struct then *then)
{
    if (++m->steps > STEPS_MAX || m->depth >= DEPTH_MAX * 10)
        return false;
    if (p >= end)
        return go_on(m, s, then);
    m->depth++;
    struct repeat r = {.piece = p, .piece_end = atom_end(p, end), .end = end, .then = then};
    r.after = read_repeat(r.piece_end, end, &r);
    bool ok;
    if (r.min == 1 && r.max == 1) {
        struct then rest = {.p = r.after, .end = end, .next = then};
        ok = match_atom(m, p, r.piece_end, s, &rest);
    } else {
        ok = match_repeat(m, &r, 0, s);
    }
    m->depth--;
    return ok;
}

/* Whether every part of the pattern is of the dialect. */
static bool well_formed(const char *p, const char *end, int depth)
{
    if (depth > 20)
        return false;
    while (p < end) {
        if (*p == '|') {
            p++;
            continue;
        }
        if (strchr("*+?{)", *p))
            return false;
        const char *stop = atom_end(p, end);
        struct repeat r;
        if (!stop)
            return false;
        if (*p == '(') {
            const char *inside = p + 1;
            if (*inside == '?' && inside[1] != ':' && inside[1] != '=' && inside[1] != '!')
                return false;
            inside += *inside == '?' ? 2 : 0;
            if (!well_formed(inside, stop - 1, depth + 1))
                return false;
        } else if (*p == '\\' && (is_word(p[1]) && !strchr("dDwWsSb", p[1]))) {
            return false;
        }
        p = read_repeat(stop, end, &r);
        if (!p)
            return false;
    }
    return true;
}

enum status name_pattern_check(const char *pattern, struct error *err)
{
    if (strncmp(pattern, "re:", 3))
        return ST_OK;
    const char *p = pattern + 3;
    size_t len = strlen(p);
    if (len <= NAME_PATTERN_MAX && well_formed(p, p + len, 0))
        return ST_OK;
    return err_set(err, ST_UNSUPPORTED, "pattern \"%.200s\" is not of a kind that is understood",
                   pattern);
}

bool name_matches_whole(const char *pattern, const char *name)
{
    struct matcher m = {.name = name};
    if (!strncmp(pattern, "re:", 3))
        return alternatives(&m, pattern + 3, pattern + strlen(pattern), name, NULL);
    return !strcmp(pattern, name);
}

bool name_matches(const char *pattern, const char *name)
{
    size_t n = strlen(pattern), len = strlen(name);
    if (!strncmp(pattern, "re:", 3))
        return name_matches_whole(pattern, name);
    if (n == 0 || n > len)
        return false;
    if (!memcmp(name, pattern, n) && (name[n] == '\0' || name[n] == '.'))
        return true;
    return !strcmp(name + len - n, pattern) && name[len - n - 1] == '.';
}
