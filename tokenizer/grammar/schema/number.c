/* Numbers within bounds, and multiples, as decimal digits without exponent.
 *
 * A bound is a decimal. A number is compared with both bounds digit by digit while it is written:
 * "low" is true as long as its digits are those of the lower bound, "high" of the upper one. Whole
 * parts of each length have states of their own; the fraction's are shared. With multipleOf a state
 * also holds what the digits so far leave over.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/schema/schema.h"

#define DIGITS_MAX 340
#define MULTIPLE_MAX 20000
#define STATES_MAX 200000u

struct decimal {
    bool there, negative, exclusive;
    char whole[DIGITS_MAX + 1], fraction[DIGITS_MAX + 1]; /* no zeros in front or behind */
};

struct limits {
    struct decimal low, high;
    uint32_t multiple, scale; /* value * 10^scale is a multiple of it; 0: none */
    bool integer;
};

/* ---- decimals ---- */

static bool read_decimal(double v, struct decimal *out)
{
    char text[400];
    int precision = 1;
    if (!isfinite(v))
        return false;
    do
        snprintf(text, sizeof text, "%.*e", precision - 1, v);
    while (strtod(text, NULL) != v && precision++ < 17);
    char digits[32];
    int n = 0;
    const char *p = text + (text[0] == '-');
    for (; *p && *p != 'e'; p++)
        if (*p != '.')
            digits[n++] = *p;
    int power = atoi(p + 1) + 1; /* digits in front of the point */
    while (n > 0 && digits[n - 1] == '0')
        n--;
    if (power > DIGITS_MAX || n - power > DIGITS_MAX)
        return false;
    int w = 0, f = 0;
    for (int i = 0; i < power; i++)
        out->whole[w++] = i < n ? digits[i] : '0';
    for (int i = power; i < 0 && n > 0; i++)
        out->fraction[f++] = '0';
    for (int i = power > 0 ? power : 0; i < n; i++)
        out->fraction[f++] = digits[i];
    if (w == 0)
        out->whole[w++] = '0';
    out->whole[w] = out->fraction[f] = 0;
    out->there = true;
    out->negative = v < 0;
    return true;
}

/* Of magnitudes: < 0, 0, > 0. */
static int compare(const struct decimal *a, const struct decimal *b)
{
    size_t x = strlen(a->whole), y = strlen(b->whole);
    if (x != y)
        return x < y ? -1 : 1;
    int d = strcmp(a->whole, b->whole);
    return d ? d : strcmp(a->fraction, b->fraction);
}

static bool is_zero(const struct decimal *d)
{
    return strcmp(d->whole, "0") == 0 && d->fraction[0] == 0;
}

/* ---- magnitudes between two bounds ---- */

struct state_key {
    bool fraction, low, high;
    uint32_t at, left; /* at: digits written of this part */
};

struct digits {
    struct schema *s;
    const struct limits *limits;
    const struct decimal *low, *high; /* high may be absent */
    uint32_t end;
    uint32_t length;  /* of the whole part; 0: any that is over the lower bound's */
    uint32_t n_whole; /* positions of the whole part that are told apart */
    uint32_t n_fraction, modulus;
    uint32_t *states; /* by key; UINT32_MAX: not built */
    uint32_t *queue, n_queue;
    size_t n_keys;
};

static size_t index_of(const struct digits *d, struct state_key k)
{
    size_t at = k.fraction ? d->n_whole + k.at : k.at;
    return ((at * 2 + k.low) * 2 + k.high) * d->modulus + k.left;
}

static struct state_key key_of(const struct digits *d, size_t index)
{
    struct state_key k = {.left = (uint32_t)(index % d->modulus)};
    index /= d->modulus;
    k.high = index & 1;
    k.low = index >> 1 & 1;
    index /= 4;
    k.fraction = index >= d->n_whole;
    k.at = (uint32_t)(k.fraction ? index - d->n_whole : index);
    return k;
}

static uint32_t state_of(struct digits *d, struct state_key k)
{
    size_t i = index_of(d, k);
    if (d->states[i] == UINT32_MAX) {
        d->states[i] = build_state(d->s->b);
        d->queue[d->n_queue++] = (uint32_t)i;
    }
    return d->states[i];
}

static bool divides(const struct digits *d, uint32_t left, uint32_t written)
{
    uint64_t v = left;
    for (uint32_t i = written; i < d->limits->scale; i++)
        v = v * 10 % d->modulus;
    return d->limits->multiple == 0 || v == 0;
}

/* The number may end here. */
static bool may_end(const struct digits *d, struct state_key k)
{
    const char *low = d->low->fraction, *high = d->high->fraction;
    uint32_t at = k.fraction ? k.at : 0;
    if (!k.fraction && k.at < d->n_whole - 1)
        return false;
    if (k.fraction && k.at == 0)
        return false;
    if (k.low && (at < strlen(low) || d->low->exclusive))
        return false;
    if (k.high && at >= strlen(high) && d->high->exclusive)
        return false;
    return divides(d, k.left, at);
}

/* One more digit; false: not this one. */
static bool next_digit(const struct digits *d, struct state_key *k, uint32_t digit)
{
    const char *low = k->fraction ? d->low->fraction : d->low->whole;
    const char *high = k->fraction ? d->high->fraction : d->high->whole;
    uint32_t lo = k->at < strlen(low) ? (uint32_t)(low[k->at] - '0') : 0;
    uint32_t hi = k->at < strlen(high) ? (uint32_t)(high[k->at] - '0') : 0;
    if ((k->low && digit < lo) || (k->high && digit > hi))
        return false;
    k->low = k->low && digit == lo;
    k->high = k->high && digit == hi;
    if (d->limits->multiple) {
        if (k->fraction && k->at >= d->limits->scale) {
            if (digit != 0)
                return false;
        } else {
            k->left = (uint32_t)(((uint64_t)k->left * 10 + digit) % d->modulus);
        }
    }
    uint32_t last = k->fraction ? d->n_fraction - 1 : d->n_whole - 1;
    k->at = k->at < last ? k->at + 1 : last;
    return true;
}

static void put_digit(struct digits *d, struct state_key from, uint32_t digit)
{
    struct state_key to = from;
    bool first = !from.fraction && from.at == 0;
    if (!from.fraction && d->length && from.at == d->length)
        return; /* all of this length are written */
    if (first && digit == 0 && d->length != 1)
        return; /* no zeros in front */
    if (next_digit(d, &to, digit)) {
        uint8_t byte = (uint8_t)('0' + digit);
        build_bytes(d->s->b, d->states[index_of(d, from)], state_of(d, to),
                    (struct ga_range){.lo = byte, .hi = byte});
    }
}

static void put_states(struct digits *d)
{
    struct builder *b = d->s->b;
    while (d->n_queue > 0 && b->status == ST_OK) {
        size_t index = d->queue[--d->n_queue];
        struct state_key k = key_of(d, index);
        if (may_end(d, k))
            build_eps(b, d->states[index], d->end);
        for (uint32_t digit = 0; digit < 10; digit++)
            put_digit(d, k, digit);
        if (!k.fraction && k.at == d->n_whole - 1 && !d->limits->integer) {
            struct state_key to = {.fraction = true, .low = k.low, .high = k.high, .left = k.left};
            build_bytes(b, d->states[index], state_of(d, to),
                        (struct ga_range){.lo = '.', .hi = '.'});
        }
    }
}

static uint32_t longest(size_t a, size_t b, uint32_t c)
{
    uint32_t n = (uint32_t)(a > b ? a : b);
    return (n > c ? n : c) + 2;
}

/* Whole parts of `length` digits; 0: all longer ones. */
static void put_length(struct digits *d, uint32_t from, uint32_t length)
{
    bool open = length == 0;
    size_t low = strlen(d->low->whole), high = strlen(d->high->whole);
    d->length = length;
    d->n_whole = (open ? (uint32_t)low + 1 : length) + 1;
    d->n_keys = ((size_t)d->n_whole + d->n_fraction) * 4 * d->modulus;
    if (d->n_keys > STATES_MAX) {
        build_fail(d->s->b, ST_UNSUPPORTED, "multipleOf with such bounds needs too many states");
        return;
    }
    d->states = malloc(d->n_keys * sizeof *d->states);
    d->queue = malloc(d->n_keys * sizeof *d->queue);
    d->n_queue = 0;
    if (d->states && d->queue) {
        memset(d->states, 0xff, d->n_keys * sizeof *d->states);
        struct state_key k = {.low = !open && length == low,
                              .high = !open && d->high->there && length == high};
        build_eps(d->s->b, from, state_of(d, k));
        put_states(d);
    } else {
        build_fail(d->s->b, ST_NO_MEMORY, "no memory for the schema");
    }
    free(d->states);
    free(d->queue);
}

static void put_magnitudes(struct schema *s, const struct limits *l, const struct decimal *low,
                           const struct decimal *high, struct span at)
{
    struct digits d = {.s = s, .limits = l, .low = low, .high = high, .end = at.to};
    if (high->there) {
        int order = compare(low, high);
        if (order > 0 || (order == 0 && (low->exclusive || high->exclusive)))
            return;
    }
    d.modulus = l->multiple ? l->multiple : 1;
    d.n_fraction = longest(strlen(low->fraction), strlen(high->fraction), l->scale);
    uint32_t from = (uint32_t)strlen(low->whole);
    uint32_t to = high->there ? (uint32_t)strlen(high->whole) : from;
    for (uint32_t n = from; n <= to && s->b->status == ST_OK; n++)
        put_length(&d, at.from, n);
    if (!high->there)
        put_length(&d, at.from, 0);
}

/* ---- the schema's side ---- */

static void tighten_low(struct limits *l, double v, bool exclusive)
{
    struct decimal d = {.exclusive = exclusive};
    if (!read_decimal(v, &d))
        return;
    int order = 1;
    if (l->low.there) {
        if (d.negative != l->low.negative)
            order = d.negative ? -1 : 1;
        else
            order = d.negative ? -compare(&d, &l->low) : compare(&d, &l->low);
    }
    if (order > 0 || (order == 0 && exclusive))
        l->low = d;
}

static void tighten_high(struct limits *l, double v, bool exclusive)
{
    struct decimal d = {.exclusive = exclusive};
    if (!read_decimal(v, &d))
        return;
    int order = -1;
    if (l->high.there) {
        if (d.negative != l->high.negative)
            order = d.negative ? -1 : 1;
        else
            order = d.negative ? -compare(&d, &l->high) : compare(&d, &l->high);
    }
    if (order < 0 || (order == 0 && exclusive))
        l->high = d;
}

static void read_bounds(const json *node, struct limits *l)
{
    const json *min = json_get(node, "minimum"), *max = json_get(node, "maximum");
    const json *above = json_get(node, "exclusiveMinimum");
    const json *below = json_get(node, "exclusiveMaximum");
    if (min)
        tighten_low(l, json_as_number(min, 0), json_as_bool(above, false));
    if (max)
        tighten_high(l, json_as_number(max, 0), json_as_bool(below, false));
    if (json_kind_of(above) == JSON_INT || json_kind_of(above) == JSON_REAL)
        tighten_low(l, json_as_number(above, 0), true);
    if (json_kind_of(below) == JSON_INT || json_kind_of(below) == JSON_REAL)
        tighten_high(l, json_as_number(below, 0), true);
}

static uint64_t greatest_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

static void read_multiple(struct schema *s, const json *node, struct limits *l)
{
    const json *v = json_get(node, "multipleOf");
    struct decimal d = {0};
    if (!v || !read_decimal(json_as_number(v, 0), &d))
        return;
    uint64_t m = 0, scale = strlen(d.fraction);
    char all[2 * DIGITS_MAX + 2];
    snprintf(all, sizeof all, "%s%s", d.whole, d.fraction);
    for (const char *p = all; *p && m <= MULTIPLE_MAX; p++)
        m = m * 10 + (uint64_t)(*p - '0');
    uint64_t old = l->multiple ? l->multiple : 1, old_scale = l->multiple ? l->scale : scale;
    for (; old_scale < scale && old <= MULTIPLE_MAX; old_scale++)
        old *= 10;
    for (; scale < old_scale && m <= MULTIPLE_MAX; scale++)
        m *= 10;
    if (m <= MULTIPLE_MAX && old <= MULTIPLE_MAX && l->multiple)
        m = m / greatest_divisor(m, old) * old;
    if (m > MULTIPLE_MAX || m == 0) {
        schema_fail(s, ST_UNSUPPORTED, node, "multipleOf has more digits than are supported");
        return;
    }
    l->multiple = (uint32_t)m;
    l->scale = (uint32_t)scale;
}

static void put_bounded(struct schema *s, const struct limits *l, struct span at)
{
    struct decimal zero = {.there = true, .whole = "0"}, none = {.whole = "0"};
    struct decimal above_zero = zero;
    above_zero.exclusive = true;
    const struct decimal *low = &l->low, *high = &l->high;
    if (!high->there || !high->negative)
        put_magnitudes(s, l, low->there && !low->negative ? low : &zero, high->there ? high : &none,
                       at);
    bool below_zero = !low->there || low->negative;
    if (below_zero && !(low->there && is_zero(low))) {
        struct span minus = {build_byte(s->b, at.from, '-'), at.to};
        bool capped = high->there && high->negative;
        put_magnitudes(s, l, capped ? high : &above_zero, low->there ? low : &none, minus);
    }
}

void schema_put_number(struct schema *s, const struct conj *c, struct span at, bool integer)
{
    struct limits *l = calloc(1, sizeof *l);
    if (!l) {
        build_fail(s->b, ST_NO_MEMORY, "no memory for the schema");
        return;
    }
    l->integer = integer;
    for (uint32_t i = 0; i < c->n; i++) {
        read_bounds(c->v[i], l);
        read_multiple(s, c->v[i], l);
    }
    /* Every integer is a multiple of 1. */
    if (integer && l->multiple == 1 && l->scale == 0)
        l->multiple = 0;
    if (l->low.there || l->high.there || l->multiple)
        put_bounded(s, l, at);
    else
        schema_put_any_number(s, at, integer);
    free(l);
}
