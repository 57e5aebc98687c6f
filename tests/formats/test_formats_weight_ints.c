/* Weights as integers against the same weights as floats, which have goldens of their own. */
#include <criterion/criterion.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "formats/dequant.h"
#include "formats/gguf_maker.h"
#include "formats/weight_ints.h"
#include "formats/weight_source.h"

/* A weight as integers: rows [r0, r1), and room for what is written too far. */
struct ints {
    struct weight_ints f;
    uint64_t cols, groups;
    uint8_t *q;
    float *scale, *min;
};

#define GUARD 16

static struct ints read_ints(const struct weight *w, uint64_t r0, uint64_t r1)
{
    struct ints v = {.cols = w->cols};
    cr_assert(weight_as_ints(w, &v.f), "%s: %s", w->name, w->format);
    cr_assert(v.f.bits == 4 || v.f.bits == 8);
    cr_assert(v.f.group > 0 && (uint64_t)v.f.group <= w->cols);
    v.groups = (w->cols + (uint64_t)v.f.group - 1) / (uint64_t)v.f.group;
    size_t n = (size_t)((r1 - r0) * v.cols), scales = (size_t)((r1 - r0) * v.groups);
    v.q = malloc(n + GUARD);
    v.scale = malloc((scales + GUARD) * sizeof *v.scale);
    v.min = malloc((scales + GUARD) * sizeof *v.min);
    cr_assert(v.q && v.scale && v.min);
    memset(v.q, 0xa5, n + GUARD);
    memset(v.scale, 0xa5, (scales + GUARD) * sizeof *v.scale);
    memset(v.min, 0xa5, (scales + GUARD) * sizeof *v.min);
    weight_read_ints(w, r0, r1, v.q, v.scale, v.f.has_min ? v.min : NULL);
    for (size_t i = 0; i < GUARD; i++)
        cr_assert(v.q[n + i] == 0xa5, "%s: written too far", w->name);
    cr_assert(memcmp(v.scale + scales, v.q + n, GUARD) == 0, "%s", w->name);
    cr_assert(memcmp(v.min + (v.f.has_min ? scales : 0), v.q + n, GUARD) == 0, "%s", w->name);
    return v;
}

static void free_ints(struct ints *v)
{
    free(v->q);
    free(v->scale);
    free(v->min);
}

/* The element at `i` is `want`: exactly, unless a rounding min is added. */
static bool element_is(const struct ints *v, uint64_t i, float want, bool exact)
{
    uint64_t at = i / v->cols * v->groups + i % v->cols / (uint64_t)v->f.group;
    cr_assert(v->q[i] < 1 << v->f.bits);
    int value = (v->f.table ? v->f.table[v->q[i]] : v->q[i]) - v->f.zero;
    float product = v->scale[at] * (float)value, got = product, slack = 0;
    if (v->f.has_min) {
        got += v->min[at];
        slack = exact ? 0 : 2 * FLT_EPSILON * (fabsf(product) + fabsf(v->min[at]));
    }
    return (isnan(got) && isnan(want)) || got == want || fabsf(got - want) <= slack;
}

static void check_rows(const char *label, const struct weight *w, uint64_t r0, uint64_t r1)
{
    bool exact = strstr(label, "GGUF") != NULL;
    struct ints v = read_ints(w, r0, r1);
    size_t n = (size_t)((r1 - r0) * w->cols);
    float *want = malloc(n * sizeof *want + 1);
    cr_assert_not_null(want);
    weight_read_rows(w, r0, r1, want);
    for (size_t i = 0; i < n; i++)
        cr_assert(element_is(&v, i, want[i], exact), "%s: %s (%s): row %llu column %llu: not %a",
                  label, w->name, w->format, (unsigned long long)(r0 + i / w->cols),
                  (unsigned long long)(i % w->cols), (double)want[i]);
    free(want);
    free_ints(&v);
}

/* Whole, row by row, and in pieces that begin and end anywhere. */
static void check_weight(const char *label, const struct weight *w)
{
    static const uint64_t steps[] = {1, 3, 16, 21};
    check_rows(label, w, 0, w->rows);
    check_rows(label, w, w->rows / 2, w->rows / 2);
    for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++)
        for (uint64_t r = 0; r < w->rows; r += steps[k])
            check_rows(label, w, r, r + steps[k] < w->rows ? r + steps[k] : w->rows);
}

static void fill_random(struct rng *rng, char *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (char)rng_next(rng);
}

static const enum ggml_type gguf_types[] = {
    GGML_Q4_0, GGML_Q4_1, GGML_Q5_0, GGML_Q5_1,   GGML_Q8_0,   GGML_Q2_K, GGML_Q3_K,
    GGML_Q4_K, GGML_Q5_K, GGML_Q6_K, GGML_IQ4_NL, GGML_IQ4_XS, GGML_MXFP4};

#define GGUF_ROWS 5
#define GGUF_BLOCKS 3 /* to a row */

/* One weight of random bytes: any is legal, and halves that are infinite or NaN are some. */
static void check_gguf(enum ggml_type type, struct rng *rng)
{
    struct ggml_block block = ggml_type_block(type);
    struct buf b = {0};
    struct weight_source *s;
    struct error err = {0};
    char label[64];
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "w", (uint64_t[]){GGUF_BLOCKS * block.elements, GGUF_ROWS}, 2, type, 0);
    put_pad(&b, 32);
    for (unsigned i = 0; i < GGUF_ROWS * GGUF_BLOCKS * block.bytes; i++)
        buf_putc(&b, 0);
    size_t bytes = GGUF_ROWS * GGUF_BLOCKS * block.bytes;
    fill_random(rng, b.data + b.len - bytes, bytes);
    snprintf(label, sizeof label, "GGUF %s", block.name);
    struct weight_bytes in = {.bytes = b.data, .len = b.len};
    cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s", err.text);
    check_weight(label, weight_source_find(s, "w"));
    weight_source_close(s);
    buf_fini(&b);
}

Test(weight_ints, gguf_types)
{
    uint64_t seed = rng_entropy();
    struct rng rng = rng_seed(seed);
    fprintf(stderr, "weight_ints gguf_types: seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < sizeof gguf_types / sizeof gguf_types[0]; i++)
        for (int k = 0; k < 20; k++)
            check_gguf(gguf_types[i], &rng);
}

/* What each type says of itself. */
Test(weight_ints, gguf_forms)
{
    static const struct {
        enum ggml_type type;
        int bits, group, zero;
        bool has_min, has_table;
    } forms[] = {
        {GGML_Q8_0, 8, 32, 128, false, false}, {GGML_Q4_0, 4, 32, 8, false, false},
        {GGML_Q2_K, 4, 16, 0, true, false},    {GGML_Q4_K, 4, 32, 0, true, false},
        {GGML_Q6_K, 8, 16, 32, false, false},  {GGML_IQ4_XS, 4, 32, 128, false, true},
        {GGML_MXFP4, 4, 32, 128, false, true},
    };
    struct weight_ints f;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const char *name = ggml_type_name(forms[i].type);
        cr_assert(dequant_ggml_as_ints(forms[i].type, &f), "%s", name);
        cr_assert(f.bits == forms[i].bits && f.group == forms[i].group, "%s", name);
        cr_assert(f.zero == forms[i].zero && f.has_min == forms[i].has_min, "%s", name);
        cr_assert_eq(f.table != NULL, forms[i].has_table, "%s", name);
    }
    static const enum ggml_type others[] = {GGML_F32, GGML_F16,  GGML_BF16,    GGML_F64,
                                            GGML_I8,  GGML_Q8_1, GGML_IQ2_XXS, GGML_TYPES};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        cr_assert_not(dequant_ggml_as_ints(others[i], &f), "%s", ggml_type_name(others[i]));
}
