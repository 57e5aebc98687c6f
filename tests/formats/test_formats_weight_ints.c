/* Weights as integers against the same weights as floats, which have goldens of their own. */
#include <criterion/criterion.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/rng.h"
#include "formats/dequant.h"
#include "formats/gguf_maker.h"
#include "formats/safetensors_maker.h"
#include "formats/weight_ints.h"
#include "formats/weight_source.h"
#include "support/read_file.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/formats/goldens/quantized/"

/* A weight as integers: rows [r0, r1), and room for what is written too far. */
struct ints {
    struct weight_ints f;
    uint64_t cols, groups;
    uint8_t *q;
    float *scale, *min;
    uint64_t *group_of; /* [cols] */
};

#define GUARD 16

/* Every column once, group after group and ascending within one. */
static void read_groups(const struct weight *w, struct ints *v)
{
    uint64_t group = (uint64_t)v->f.group;
    int32_t *order = malloc(w->cols * sizeof *order);
    v->group_of = malloc(w->cols * sizeof *v->group_of);
    cr_assert(order && v->group_of);
    for (uint64_t c = 0; c < w->cols; c++) {
        order[c] = (int32_t)c;
        v->group_of[c] = UINT64_MAX;
    }
    if (v->f.has_order)
        weight_read_order(w, order);
    for (uint64_t k = 0; k < w->cols; k++) {
        cr_assert(order[k] >= 0 && (uint64_t)order[k] < w->cols);
        cr_assert_eq(v->group_of[order[k]], UINT64_MAX);
        cr_assert(k % group == 0 || order[k] > order[k - 1]);
        v->group_of[order[k]] = k / group;
    }
    free(order);
}

static struct ints read_ints(const struct weight *w, uint64_t r0, uint64_t r1)
{
    struct ints v = {.cols = w->cols};
    cr_assert(weight_as_ints(w, &v.f), "%s: %s", w->name, w->format);
    cr_assert(v.f.bits == 4 || v.f.bits == 8);
    cr_assert(v.f.group > 0 && (uint64_t)v.f.group <= w->cols);
    v.groups = (w->cols + (uint64_t)v.f.group - 1) / (uint64_t)v.f.group;
    size_t n = (size_t)((r1 - r0) * v.cols), scales = (size_t)((r1 - r0) * v.groups);
    read_groups(w, &v);
    v.q = malloc(n + GUARD);
    v.scale = malloc((scales + GUARD) * sizeof *v.scale);
    v.min = malloc((scales + GUARD) * sizeof *v.min);
    cr_assert(v.q && v.scale && v.min);
    memset(v.q, 0xa5, n + GUARD);
    memset(v.scale, 0xa5, (scales + GUARD) * sizeof *v.scale);
    memset(v.min, 0xa5, (scales + GUARD) * sizeof *v.min);
    /* minima that are all 0 may be asked for, and need not be */
    bool mins = v.f.has_min || (r0 ^ r1) & 1;
    weight_read_ints(w, r0, r1, v.q, v.scale, mins ? v.min : NULL);
    for (size_t i = 0; i < GUARD; i++)
        cr_assert(v.q[n + i] == 0xa5, "%s: written too far", w->name);
    cr_assert(memcmp(v.scale + scales, v.q + n, GUARD) == 0, "%s", w->name);
    cr_assert(memcmp(v.min + (mins ? scales : 0), v.q + n, GUARD) == 0, "%s", w->name);
    for (size_t i = 0; mins && !v.f.has_min && i < scales; i++)
        cr_assert(v.min[i] == 0, "%s", w->name);
    return v;
}

static void free_ints(struct ints *v)
{
    free(v->q);
    free(v->scale);
    free(v->min);
    free(v->group_of);
}

/* The element at `i` is `want`: exactly, unless a rounding min is added. */
static bool element_is(const struct ints *v, uint64_t i, float want, bool exact)
{
    uint64_t at = i / v->cols * v->groups + v->group_of[i % v->cols];
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
    } want[] = {
        {GGML_Q8_0, 8, 32, 128, false, false}, {GGML_Q4_0, 4, 32, 8, false, false},
        {GGML_Q2_K, 4, 16, 0, true, false},    {GGML_Q4_K, 4, 32, 0, true, false},
        {GGML_Q6_K, 8, 16, 32, false, false},  {GGML_IQ4_XS, 4, 32, 128, false, true},
        {GGML_MXFP4, 4, 32, 128, false, true},
    };
    struct weight_ints f;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const char *name = ggml_type_name(want[i].type);
        cr_assert(dequant_ggml_as_ints(want[i].type, &f), "%s", name);
        cr_assert(f.bits == want[i].bits && f.group == want[i].group, "%s", name);
        cr_assert(f.zero == want[i].zero && f.has_min == want[i].has_min, "%s", name);
        cr_assert_eq(f.table != NULL, want[i].has_table, "%s", name);
    }
    static const enum ggml_type others[] = {GGML_F32, GGML_F16,  GGML_BF16,    GGML_F64,
                                            GGML_I8,  GGML_Q8_1, GGML_IQ2_XXS, GGML_TYPES};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        cr_assert_not(dequant_ggml_as_ints(others[i], &f), "%s", ggml_type_name(others[i]));
}

/* The checkpoints of make_goldens.py: which are integers, and what they say of themselves. */
static const struct {
    const char *name;
    struct weight_ints f; /* bits 0: not known */
} goldens[] = {
    {"gptq4", {.bits = 4, .group = 16, .zero = 8, .has_min = true}},
    {"gptq8", {.bits = 8, .group = 16, .zero = 128, .has_min = true}},
    {"gptq4_v2", {.bits = 4, .group = 16, .zero = 8, .has_min = true}},
    {"awq", {.bits = 4, .group = 16, .zero = 8, .has_min = true}},
    {"ct_int4", {.bits = 4, .group = 16, .zero = 8}},
    {"ct_int4_zero", {.bits = 4, .group = 16, .zero = 8, .has_min = true}},
    {"ct_int8_channel", {.bits = 8, .group = 50, .zero = 128}},
    {"ct_int8_naive", {.bits = 8, .group = 64, .zero = 128, .has_min = true}},
    {"mxfp4", {.bits = 4, .group = 32, .zero = 128, .table = (const uint8_t *)""}},
    {"gptq2", {0}},
    {"gptq3", {0}},
    {"gptq4_act_order", {.bits = 4, .group = 16, .zero = 8, .has_min = true, .has_order = true}},
    {"ct_int4_order", {.bits = 4, .group = 16, .zero = 8, .has_order = true}},
    {"ct_int3_zero", {0}},
    {"ct_fp8_channel", {0}},
    {"fp8_block", {0}},
};

static void check_golden(const char *name, const json *config)
{
    struct buf b = read_file(GOLDENS "%s.safetensors", name), text = {0};
    struct weight_source *s;
    struct error err = {0};
    struct weight_ints f;
    size_t k = 0;
    while (k < sizeof goldens / sizeof goldens[0] && strcmp(goldens[k].name, name) != 0)
        k++;
    const struct weight_ints *want = k < sizeof goldens / sizeof goldens[0] ? &goldens[k].f : NULL;
    json_dump(config, &text);
    struct weight_bytes in = {b.data, b.len, text.data, text.len};
    cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s: %s", name, err.text);
    for (size_t i = 0; i < weight_source_count(s); i++) {
        const struct weight *w = weight_source_at(s, i);
        bool known = weight_as_ints(w, &f);
        cr_assert_eq(known, want && want->bits && !w->data, "%s: %s", name, w->name);
        if (!known)
            continue;
        cr_assert(f.bits == want->bits && f.group == want->group && f.zero == want->zero &&
                      f.has_min == want->has_min && !f.table == !want->table &&
                      f.has_order == want->has_order,
                  "%s: %d bits, groups of %d, zero %d", name, f.bits, f.group, f.zero);
        check_weight(name, w);
    }
    weight_source_close(s);
    buf_fini(&b);
    buf_fini(&text);
}

Test(weight_ints, safetensors_goldens)
{
    json *cases = NULL;
    struct error err = {0};
    cr_assert_eq(json_read_file(GOLDENS "cases.json", 1 << 20, &cases, &err), ST_OK, "%s",
                 err.text);
    cr_assert_geq(json_count(cases), sizeof goldens / sizeof goldens[0]);
    for (size_t i = 0; i < json_count(cases); i++)
        check_golden(json_as_str(json_get(json_at(cases, i), "name"), "?"),
                     json_get(json_at(cases, i), "config"));
    json_free(cases);
}

/* Weights whose last group, word and tile are cut short; every tensor is random, but for zeros
 * where `zeros` says what all their bytes are. */
struct form {
    const char *config;
    int zeros; /* -1: random */
    bool has_min;
    struct spec specs[5];
};

#define GPTQ(bits, group) "{\"quant_method\":\"gptq\",\"bits\":" bits ",\"group_size\":" group "}"
#define AWQ "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":48}"
#define CT(format, weights)                                                                        \
    "{\"quant_method\":\"compressed-tensors\",\"format\":\"" format                                \
    "\",\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":" weights "}}}"
#define GROUPS "\"strategy\":\"group\",\"group_size\":48"
#define GPTQ4_SPECS                                                                                \
    {                                                                                              \
        {"a.qweight", "I32", "[25,37]", 3700}, {"a.scales", "F32", "[5,37]", 740},                 \
        {                                                                                          \
            "a.qzeros", "I32", "[5,5]", 100                                                        \
        }                                                                                          \
    }
#define GPTQ8_SPECS                                                                                \
    {                                                                                              \
        {"a.qweight", "I32", "[50,37]", 7400}, {"a.scales", "F32", "[1,37]", 148},                 \
        {                                                                                          \
            "a.qzeros", "I32", "[1,10]", 40                                                        \
        }                                                                                          \
    }
#define GPTQ4_ORDER                                                                                \
    {                                                                                              \
        {"a.qweight", "I32", "[25,37]", 3700}, {"a.scales", "F32", "[5,37]", 740},                 \
            {"a.qzeros", "I32", "[5,5]", 100},                                                     \
        {                                                                                          \
            "a.g_idx", "I32", "[200]", 800                                                         \
        }                                                                                          \
    }
#define AWQ_SPECS                                                                                  \
    {                                                                                              \
        {"a.qweight", "I32", "[100,5]", 2000}, {"a.scales", "F32", "[3,40]", 480},                 \
        {                                                                                          \
            "a.qzeros", "I32", "[3,5]", 60                                                         \
        }                                                                                          \
    }
#define PACKED4                                                                                    \
    {                                                                                              \
        "a.weight_packed", "I32", "[37,126]", 18648                                                \
    }
#define PACKED_SHAPE                                                                               \
    {                                                                                              \
        "a.weight_shape", "I64", "[2]", 16                                                         \
    } /* 37, 1003 */
#define INT8                                                                                       \
    {                                                                                              \
        "a.weight", "I8", "[37,1003]", 37111                                                       \
    }
#define GROUP_SCALES                                                                               \
    {                                                                                              \
        "a.weight_scale", "F32", "[37,21]", 3108                                                   \
    }

static const struct form forms[] = {
    {GPTQ("4", "48"), -1, true, GPTQ4_SPECS},
    {GPTQ("4", "48"), 0x77, false, GPTQ4_SPECS},
    {GPTQ("4", "48"), -1, true, GPTQ4_ORDER},
    {GPTQ("4", "48"), 0x77, false, GPTQ4_ORDER},
    {GPTQ("8", "-1"), -1, true, GPTQ8_SPECS},
    {GPTQ("8", "-1"), 0x7f, false, GPTQ8_SPECS},
    {AWQ, -1, true, AWQ_SPECS},
    {AWQ, 0x88, false, AWQ_SPECS},
    {CT("pack-quantized", "{\"num_bits\":4," GROUPS "}"),
     -1,
     false,
     {PACKED4, PACKED_SHAPE, GROUP_SCALES}},
    {CT("pack-quantized", "{\"num_bits\":4,\"symmetric\":false," GROUPS "}"),
     -1,
     true,
     {PACKED4, PACKED_SHAPE, GROUP_SCALES, {"a.weight_zero_point", "I32", "[5,21]", 420}}},
    {CT("pack-quantized", "{\"num_bits\":4,\"symmetric\":false," GROUPS "}"),
     0x88,
     false,
     {PACKED4, PACKED_SHAPE, GROUP_SCALES, {"a.weight_zero_point", "I32", "[5,21]", 420}}},
    {CT("pack-quantized", "{\"num_bits\":8,\"strategy\":\"channel\"}"),
     -1,
     false,
     {{"a.weight_packed", "I32", "[37,251]", 37148},
      PACKED_SHAPE,
      {"a.weight_scale", "F32", "[37,1]", 148}}},
    {CT("int-quantized", "{\"num_bits\":8," GROUPS "}"), -1, false, {INT8, GROUP_SCALES}},
    {CT("int-quantized", "{\"num_bits\":8," GROUPS "}"),
     -1,
     false,
     {INT8, GROUP_SCALES, {"a.weight_g_idx", "I32", "[1003]", 4012}}},
    {CT("int-quantized", "{\"num_bits\":8,\"symmetric\":false," GROUPS "}"),
     -1,
     true,
     {INT8, GROUP_SCALES, {"a.weight_zero_point", "I8", "[37,21]", 777}}},
    {CT("int-quantized", "{\"num_bits\":8,\"strategy\":\"tensor\"}"),
     -1,
     false,
     {INT8, {"a.weight_scale", "F32", "[1]", 4}}},
    {"{\"quant_method\":\"mxfp4\"}",
     -1,
     false,
     {{"a.weight_blocks", "U8", "[3,5,2,16]", 480}, {"a.weight_scales", "U8", "[3,5,2]", 30}}},
};

/* Groups of 48 in any order. */
static void fill_order(struct rng *rng, char *at, size_t n)
{
    int32_t *g = malloc(n * sizeof *g);
    cr_assert_not_null(g);
    for (size_t i = 0; i < n; i++)
        g[i] = (int32_t)(i / 48);
    for (size_t i = n; i > 1; i--) {
        size_t k = rng_below(rng, i);
        int32_t last = g[i - 1];
        g[i - 1] = g[k];
        g[k] = last;
    }
    memcpy(at, g, n * sizeof *g);
    free(g);
}

static void fill_tensor(const struct form *form, const struct spec *t, struct rng *rng, char *at)
{
    fill_random(rng, at, t->bytes);
    if (strstr(t->name, "zero") && form->zeros >= 0)
        memset(at, form->zeros, t->bytes);
    if (!strcmp(t->type, "I64"))
        memcpy(at, (uint64_t[]){37, 1003}, 16);
    if (strstr(t->name, "g_idx"))
        fill_order(rng, at, t->bytes / sizeof(int32_t));
    for (size_t i = 0; !strcmp(t->type, "F32") && i < t->bytes; i += sizeof(float)) {
        float scale = (float)(rng_double(rng) - 0.5) * (float)(1 + rng_below(rng, 100));
        memcpy(at + i, &scale, sizeof scale);
    }
}

static void check_form(const struct form *form, struct rng *rng)
{
    struct buf b = make_file(form->specs, 5);
    struct weight_source *s;
    struct error err = {0};
    struct weight_ints f;
    char *at = b.data + b.len;
    for (size_t i = 0; i < 5 && form->specs[i].name; i++)
        at -= form->specs[i].bytes;
    for (size_t i = 0; i < 5 && form->specs[i].name; at += form->specs[i++].bytes)
        fill_tensor(form, &form->specs[i], rng, at);
    struct weight_bytes in = {b.data, b.len, form->config, strlen(form->config)};
    cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s: %s", form->config, err.text);
    const struct weight *w = weight_source_find(s, "a.weight");
    cr_assert(w && weight_as_ints(w, &f), "%s", form->config);
    cr_assert_eq(f.has_min, form->has_min, "%s", form->config);
    check_weight(form->config, w);
    weight_source_close(s);
    buf_fini(&b);
}

Test(weight_ints, safetensors_forms)
{
    uint64_t seed = rng_entropy();
    struct rng rng = rng_seed(seed);
    fprintf(stderr, "weight_ints safetensors_forms: seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        for (int k = 0; k < 3; k++)
            check_form(&forms[i], &rng);
}

/* Rows of 8 bits with a scale a token, found then: that and nothing else is said of activations. */
Test(weight_ints, what_is_said_of_activations)
{
    static const struct {
        const char *text;
        bool wants;
    } said[] = {
        {"null", false},
        {"{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"token\",\"dynamic\":true}", true},
        {"{\"num_bits\":8,\"strategy\":\"token\",\"dynamic\":true}", true},
        {"{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"token\",\"dynamic\":true}", false},
        {"{\"num_bits\":4,\"type\":\"int\",\"strategy\":\"token\",\"dynamic\":true}", false},
        {"{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"tensor\",\"dynamic\":true}", false},
        {"{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"token\",\"dynamic\":false}", false},
        {"{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"token\",\"dynamic\":\"local\"}", false},
        {"{\"num_bits\":8,\"strategy\":\"token\",\"dynamic\":true,\"symmetric\":true}", true},
        {"{\"num_bits\":8,\"strategy\":\"token\",\"dynamic\":true,\"symmetric\":false}", false},
        {"[8]", false},
    };
    static const struct spec specs[] = {INT8, {"a.weight_scale", "F32", "[37,1]", 148}};
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        char config[512];
        struct buf b = make_file(specs, 2);
        struct weight_source *s;
        struct error err = {0};
        snprintf(config, sizeof config,
                 "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\","
                 "\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":8,"
                 "\"strategy\":\"channel\"},\"input_activations\":%s}}}",
                 said[i].text);
        struct weight_bytes in = {b.data, b.len, config, strlen(config)};
        cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s", err.text);
        const struct weight *w = weight_source_find(s, "a.weight");
        cr_assert(w);
        cr_assert_eq(weight_wants_token_bytes(w), said[i].wants, "%s", said[i].text);
        weight_source_close(s);
        buf_fini(&b);
    }
}

/* Groups of other sizes than they say are floats. */
Test(weight_ints, groups_of_any_size)
{
    static const struct spec specs[] = GPTQ4_ORDER;
    static const char config[] = GPTQ("4", "48");
    for (int32_t moved = 0; moved < 2; moved++) {
        struct buf b = make_file(specs, 4);
        int32_t order[200];
        struct weight_source *s;
        struct error err = {0};
        struct weight_ints f;
        for (int32_t i = 0; i < 200; i++)
            order[i] = (199 - i) / 48;
        order[0] -= moved;
        memcpy(b.data + b.len - sizeof order, order, sizeof order);
        struct weight_bytes in = {b.data, b.len, config, strlen(config)};
        cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s", err.text);
        cr_assert_eq(weight_as_ints(weight_source_find(s, "a.weight"), &f), moved == 0);
        weight_source_close(s);
        buf_fini(&b);
    }
}
