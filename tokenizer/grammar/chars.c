#include "tokenizer/grammar/chars.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/unicode.h"

void chars_fini(struct char_set *s)
{
    free(s->v);
    *s = (struct char_set){0};
}

void chars_add(struct char_set *s, uint32_t lo, uint32_t hi)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 8;
        struct char_range *v = realloc(s->v, cap * sizeof *v);
        if (!v) {
            s->failed = true;
            return;
        }
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (struct char_range){lo, hi};
}

static int by_lo(const void *a, const void *b)
{
    const struct char_range *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

void chars_normalize(struct char_set *s)
{
    size_t kept = 0;
    if (s->n > 1)
        qsort(s->v, s->n, sizeof *s->v, by_lo);
    for (size_t i = 0; i < s->n; i++) {
        if (kept && s->v[i].lo <= s->v[kept - 1].hi + 1) {
            if (s->v[i].hi > s->v[kept - 1].hi)
                s->v[kept - 1].hi = s->v[i].hi;
        } else {
            s->v[kept++] = s->v[i];
        }
    }
    s->n = kept;
}

void chars_negate(struct char_set *s)
{
    struct char_set out = {.failed = s->failed};
    uint32_t next = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].lo > next)
            chars_add(&out, next, s->v[i].lo - 1);
        next = s->v[i].hi + 1;
    }
    if (next <= CHAR_MAX_CP)
        chars_add(&out, next, CHAR_MAX_CP);
    free(s->v);
    *s = out;
}

void chars_intersect(const struct char_set *a, const struct char_set *b, struct char_set *out)
{
    for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
        uint32_t lo = a->v[i].lo > b->v[k].lo ? a->v[i].lo : b->v[k].lo;
        uint32_t hi = a->v[i].hi < b->v[k].hi ? a->v[i].hi : b->v[k].hi;
        if (lo <= hi)
            chars_add(out, lo, hi);
        if (a->v[i].hi < b->v[k].hi)
            i++;
        else
            k++;
    }
}

static void add_all(struct char_set *s, struct char_set *from, bool negated)
{
    if (negated) {
        chars_normalize(from);
        chars_negate(from);
    }
    for (size_t i = 0; i < from->n; i++)
        chars_add(s, from->v[i].lo, from->v[i].hi);
    s->failed = s->failed || from->failed;
    chars_fini(from);
}

bool chars_add_class(struct char_set *s, char letter)
{
    static const struct char_range digits[] = {{'0', '9'}},
                                   word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                                   space[] = {{9, 13},          {' ', ' '},       {0xa0, 0xa0},
                                              {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029},
                                              {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000},
                                              {0xfeff, 0xfeff}};
    const struct char_range *v;
    size_t n;
    switch (letter | 0x20) {
    case 'd':
        v = digits;
        n = sizeof digits / sizeof *digits;
        break;
    case 'w':
        v = word;
        n = sizeof word / sizeof *word;
        break;
    case 's':
        v = space;
        n = sizeof space / sizeof *space;
        break;
    default:
        return false;
    }
    struct char_set own = {0};
    for (size_t i = 0; i < n; i++)
        chars_add(&own, v[i].lo, v[i].hi);
    add_all(s, &own, !(letter & 0x20));
    return true;
}

static bool is_title(uint32_t cp)
{
    return cp == 0x1c5 || cp == 0x1c8 || cp == 0x1cb || cp == 0x1f2 ||
           (cp >= 0x1f88 && cp <= 0x1faf && (cp & 8)) || cp == 0x1fbc || cp == 0x1fcc ||
           cp == 0x1ffc;
}
static bool is_upper(uint32_t cp)
{
    return uc_letter(cp) == UC_UPPER && !is_title(cp);
}
static bool is_lower(uint32_t cp)
{
    return uc_letter(cp) == UC_LOWER;
}
static bool is_letter(uint32_t cp)
{
    return uc_letter(cp) != UC_NO_LETTER;
}
static bool is_punct(uint32_t cp)
{
    return uc_is_punct(cp) && !(cp < 0x80 && strchr("$+<=>^`|~", (int)cp));
}

/* Each is looked up for all characters once: patterns may name one many times. */
#define PROPERTIES 7
static const struct property {
    const char *names[3];
    bool (*has)(uint32_t cp);
} properties[PROPERTIES] = {
    {{"L", "Letter", NULL}, is_letter},
    {{"Lu", "Uppercase_Letter", NULL}, is_upper},
    {{"Ll", "Lowercase_Letter", NULL}, is_lower},
    {{"N", "Number", NULL}, uc_is_numeric},
    {{"M", "Mark", NULL}, uc_is_mark},
    {{"P", "Punctuation", NULL}, is_punct},
    {{"White_Space", "space", NULL}, uc_is_space},
};
static struct char_set property_sets[PROPERTIES];
static pthread_once_t property_once = PTHREAD_ONCE_INIT;

static void find_properties(void)
{
    for (size_t i = 0; i < PROPERTIES; i++)
        for (uint32_t cp = 0; cp <= CHAR_MAX_CP; cp++) {
            uint32_t begin = cp;
            while (cp <= CHAR_MAX_CP && properties[i].has(cp))
                cp++;
            if (cp > begin)
                chars_add(&property_sets[i], begin, cp - 1);
        }
}

bool chars_add_property(struct char_set *s, const char *name, size_t len, bool negated)
{
    for (size_t i = 0; i < PROPERTIES; i++)
        for (size_t k = 0; k < 3 && properties[i].names[k]; k++) {
            const char *known = properties[i].names[k];
            if (strlen(known) != len || memcmp(known, name, len) != 0)
                continue;
            pthread_once(&property_once, find_properties);
            const struct char_set *all = &property_sets[i];
            struct char_set own = {.failed = all->failed};
            for (size_t v = 0; v < all->n; v++)
                chars_add(&own, all->v[v].lo, all->v[v].hi);
            add_all(s, &own, negated);
            return true;
        }
    return false;
}
