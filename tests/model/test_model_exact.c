/* Results do not depend, in any bit, on threads, on what else is in the batch, on chunking or on
 * the block size. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/int8_folder.h"
#include "tests/model/model_rig.h"
#include "tests/model/quantized_model.h"

#define N 150 /* more than two spans of the attention */
/* These on every body, quantized ones as integers; one of each architecture, which are many, on
 * the best, as it is and with integers for weights. */
static const char *const models[] = {"llama3-gqa", "bias-tied", "gguf/quantized.gguf",
                                     "gguf/quantized-k.gguf"};

static void random_ids(int32_t *ids, int32_t n, int32_t vocab, unsigned seed)
{
    for (int32_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)((seed >> 8) % (unsigned)vocab);
    }
}

/* The models share out the types of KV, and the first one is run with all. */
static enum dtype kv_dtype;
static enum model_weights_form form = MODEL_WEIGHTS_PACKED;

static struct rig *open_rig(const char *model, const struct ops *ops, int threads, int32_t block)
{
    const char *path = *model == '/' ? model : rig_golden_path(model);
    return rig_open(&(struct rig_args){path, ops, threads, kv_dtype, block, form});
}

/* Logits of all N rows, alone, in chunks, after `first` rows at once. */
static float *run_from(struct rig *r, const int32_t *ids, int32_t first, int32_t chunk)
{
    float *logits = calloc((size_t)N * (size_t)r->vocab, sizeof *logits);
    struct sequence s;
    rig_begin(r, &s, ids);
    s.is_long = model_is_long(r->model, N);
    while (s.done < N) {
        int32_t at = s.done, most = at < first ? first - at : chunk;
        int32_t n = N - at < most ? N - at : most;
        rig_step(r, &(struct feed){&s, n, WANT_ALL}, 1, logits + (size_t)at * (size_t)r->vocab);
    }
    return logits;
}

static float *run_alone(struct rig *r, const int32_t *ids, int32_t chunk)
{
    return run_from(r, ids, 0, chunk);
}

static void expect_same(const float *a, const float *b, int32_t rows, const struct rig *r,
                        const char *what)
{
    for (int32_t i = 0; i < rows; i++)
        cr_assert(memcmp(a + (size_t)i * (size_t)r->vocab, b + (size_t)i * (size_t)r->vocab,
                         (size_t)r->vocab * sizeof *a) == 0,
                  "%s: row %d differs", what, i);
}

static void each_body(void (*test)(const char *model, const struct ops *ops))
{
    const struct ops *ops;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++)
        for (int i = 1; (ops = ops_at(i)); i++) /* 0 is ref */
            for (kv_dtype = DTYPE_BF16; kv_dtype < (m ? DTYPE_F16 : DTYPE_KV_COUNT); kv_dtype++)
                test(models[m], ops);
}

typedef void exact_test(const char *model, const struct ops *ops);

struct each {
    exact_test *test;
    const struct ops *ops;
};

static void as_it_is_and_as_integers(void *ctx, const char *name, const char *path)
{
    const struct each *each = ctx;
    char integers[FOLDER_PATH];
    each->test(name, each->ops);
    kv_dtype = kv_dtype + 1 < DTYPE_KV_COUNT ? kv_dtype + 1 : DTYPE_BF16;
    for (int kind = 0; kind < INT8_KINDS; kind++) {
        int8_folder_make(path, (enum int8_kind)kind, integers);
        each->test(integers, each->ops);
        form = MODEL_WEIGHTS_WIDE;
        if (kind == INT8_ROWS)
            each->test(integers, each->ops);
        form = MODEL_WEIGHTS_PACKED;
        folder_remove(integers);
    }
    form = MODEL_WEIGHTS_INT8;
    each->test(name, each->ops);
    form = MODEL_WEIGHTS_PACKED;
}

static void each_architecture(exact_test *test)
{
    struct each each = {.test = test};
    cr_assert_eq(ops_cpu("auto", &each.ops, NULL), ST_OK);
    kv_dtype = DTYPE_BF16;
    cr_assert_gt(rig_each_golden("", as_it_is_and_as_integers, &each), 25);
}

/* The logits of `base` again, by so many threads, in such chunks and blocks. */
struct shape {
    int threads;
    int32_t chunk, block, first; /* first: rows at once before the chunks */
};

static void check_shape(const char *model, const struct rig *base, const struct ops *ops,
                        const int32_t *ids, const float *expected, struct shape shape)
{
    char what[256];
    snprintf(what, sizeof what, "%s %s: %d threads, chunks of %d, blocks of %d", model, ops->name,
             shape.threads, shape.chunk, shape.block);
    struct rig *r = open_rig(model, ops, shape.threads, shape.block);
    float *got = run_from(r, ids, shape.first, shape.chunk);
    expect_same(expected, got, N, base, what);
    free(got);
    rig_close(r);
}

static void check_shapes(const char *model, const struct ops *ops, const struct shape *cases,
                         size_t n)
{
    int32_t ids[N];
    struct rig *base = open_rig(model, ops, 1, 16);
    random_ids(ids, N, base->vocab, 5);
    float *expected = run_alone(base, ids, N);
    for (size_t i = 0; i < n; i++)
        check_shape(model, base, ops, ids, expected, cases[i]);
    free(expected);
    rig_close(base);
}

static void vary_shape(const char *model, const struct ops *ops)
{
    static const struct shape cases[] = {{2, N, 16}, {3, N, 16},  {4, N, 16}, {1, 1, 16},
                                         {1, 3, 16}, {1, 16, 16}, {1, N, 1},  {1, N, 7},
                                         {1, N, 32}, {3, 5, 7}};
    check_shapes(model, ops, cases, sizeof cases / sizeof cases[0]);
}

Test(exact, threads_chunks_and_blocks, .timeout = 240)
{
    each_body(vary_shape);
    each_architecture(vary_shape);
}

/* Three sequences at different stages in one ragged batch, one after the other alone. */
static void run_company(const char *model, const struct ops *ops, int steps)
{
    int32_t ids[3][N];
    float *alone[3];
    struct rig *base = open_rig(model, ops, 1, 16), *r = open_rig(model, ops, 2, 16);
    const size_t vocab = (size_t)base->vocab;
    for (int i = 0; i < 3; i++) {
        random_ids(ids[i], N, base->vocab, 17u + (unsigned)i);
        alone[i] = run_alone(base, ids[i], N);
    }
    struct sequence s[3];
    float *logits = calloc(RIG_TOKENS_MAX * vocab, sizeof *logits);
    for (int i = 0; i < 3; i++) {
        rig_begin(r, &s[i], ids[i]);
        s[i].is_long = model_is_long(r->model, N);
    }
    rig_step(r, &(struct feed){&s[1], 33, WANT_NONE}, 1, logits);
    for (int step = 0; step < steps; step++) {
        /* one prefills in chunks of three, one decodes, one joins late and leaves early */
        struct feed feeds[3] = {{&s[0], 3, WANT_LAST}, {&s[1], 1, WANT_LAST}, {&s[2], 5, WANT_ALL}};
        int n = step >= steps / 4 && step < steps * 3 / 4 ? 3 : 2;
        rig_step(r, feeds, n, logits);
        for (int i = 0; i < 2; i++)
            expect_same(logits + (size_t)i * vocab, alone[i] + (size_t)(s[i].done - 1) * vocab, 1,
                        base, "in company");
        if (n == 3)
            expect_same(logits + 2 * vocab, alone[2] + (size_t)(s[2].done - 5) * vocab, 5, base,
                        "all rows in company");
    }
    for (int i = 0; i < 3; i++)
        free(alone[i]);
    free(logits);
    rig_close(r);
    rig_close(base);
}

static void vary_company(const char *model, const struct ops *ops)
{
    run_company(model, ops, 40);
}

/* Bodies with tiles or panels compute gate and up of many rows as one gemm (op_gemm.unit), whose
 * outputs go on in bf16 where weights are, and cut rows in blocks for several members: prompts in
 * any chunks, above and below what is many. */
static void vary_long_prompts(void)
{
    static const struct shape cases[] = {
        {3, N, 16}, {2, N, 16}, {1, 47, 16}, {2, 60, 16}, {1, 1, 16}};
    kv_dtype = DTYPE_BF16;
    for (int b = 0; ops_at(b); b++)
        if (ops_at(b)->gates)
            check_shapes(BATON_SOURCE_DIR "/models/tiny", ops_at(b), cases,
                         sizeof cases / sizeof cases[0]);
}

Test(exact, units_of_long_prompts, .timeout = 240)
{
    vary_long_prompts();
}

Test(exact, long_prompts_by_a_scale_a_row, .timeout = 240)
{
    form = MODEL_WEIGHTS_INT8;
    vary_long_prompts();
}

Test(exact, company_in_the_batch, .timeout = 240)
{
    each_body(vary_company);
    each_architecture(vary_company);
}

/* The last layer goes on with the rows that want logits only, except where a selection has gaps. */
static void vary_selection(const char *model, const struct ops *ops)
{
    int32_t ids[N], positions[40], seq_of[40] = {0};
    struct rig *r = open_rig(model, ops, 2, 16);
    const size_t vocab = (size_t)r->vocab;
    random_ids(ids, N, r->vocab, 3);
    float *expected = run_alone(r, ids, N), *logits = calloc(40 * vocab, sizeof *logits);
    static const int32_t selections[][4] = {{0, 1, 2, 3}, {0, 2, 17, 39}, {36, 37, 38, 39}};
    for (size_t k = 0; k < 3; k++) {
        struct sequence s;
        rig_begin(r, &s, ids);
        s.is_long = model_is_long(r->model, N);
        const uint8_t is_long[] = {s.is_long};
        const int32_t *tables[] = {s.table};
        for (int32_t i = 0; i < 40; i++)
            positions[i] = i;
        struct batch b = {.ids = ids,
                          .positions = positions,
                          .seq_of = seq_of,
                          .block_tables = tables,
                          .is_long = is_long,
                          .tokens = 40,
                          .logits_rows = selections[k],
                          .n_logits = 4};
        model_forward(r->model, &b, &r->kv, logits, NULL, NULL);
        for (int i = 0; i < 4; i++)
            expect_same(logits + (size_t)i * vocab, expected + (size_t)selections[k][i] * vocab, 1,
                        r, "selection");
        /* and the keys and values of every row are there for what follows */
        s.done = 40;
        rig_step(r, &(struct feed){&s, 1, WANT_LAST}, 1, logits);
        expect_same(logits, expected + 40 * vocab, 1, r, "after a selection");
    }
    free(expected);
    free(logits);
    rig_close(r);
}

Test(exact, selected_rows, .timeout = 120)
{
    each_body(vary_selection);
    each_architecture(vary_selection);
}

/* ---- every type of weights, of what they are multiplied with, and of KV ---- */

#define TINY BATON_SOURCE_DIR "/models/tiny"

/* Of the embedded model, whose rows are wide enough for groups of 128 and for bodies with tiles.
 * Weights share out the types of KV; those of floats have all of them. */
static const struct {
    const char *weights; /* NULL: as they are */
    enum model_weights_form form;
    enum dtype kv;
} types[] = {
    {NULL, MODEL_WEIGHTS_PACKED, DTYPE_BF16},
    {NULL, MODEL_WEIGHTS_PACKED, DTYPE_F16},
    {NULL, MODEL_WEIGHTS_PACKED, DTYPE_FP8},
    {NULL, MODEL_WEIGHTS_PACKED, DTYPE_INT8},
    {NULL, MODEL_WEIGHTS_PACKED, DTYPE_INT4},
    {NULL, MODEL_WEIGHTS_FLOAT, DTYPE_INT4},
    {NULL, MODEL_WEIGHTS_INT8, DTYPE_FP8},
    {"int8-rows", MODEL_WEIGHTS_PACKED, DTYPE_INT8},
    {"int8-rows", MODEL_WEIGHTS_WIDE, DTYPE_BF16},
    {"int8-tokens", MODEL_WEIGHTS_PACKED, DTYPE_F16},
    {"int8-32-ordered", MODEL_WEIGHTS_PACKED, DTYPE_FP8},
    {"fp8-rows", MODEL_WEIGHTS_PACKED, DTYPE_FP8},
    {"fp8-blocks", MODEL_WEIGHTS_PACKED, DTYPE_BF16},
    {"int4-32", MODEL_WEIGHTS_PACKED, DTYPE_BF16},
    {"int4-32", MODEL_WEIGHTS_WIDE, DTYPE_INT8},
    {"int4-64", MODEL_WEIGHTS_PACKED, DTYPE_F16},
    {"int4-64", MODEL_WEIGHTS_WIDE, DTYPE_BF16},
    {"int4-128", MODEL_WEIGHTS_PACKED, DTYPE_INT4},
    {"int4-128", MODEL_WEIGHTS_WIDE, DTYPE_FP8},
    {"int4-128-zeros", MODEL_WEIGHTS_PACKED, DTYPE_BF16},
    {"int4-128-zeros", MODEL_WEIGHTS_WIDE, DTYPE_INT4},
    {"gptq-128", MODEL_WEIGHTS_WIDE, DTYPE_F16},
    {"gptq-128-ordered", MODEL_WEIGHTS_PACKED, DTYPE_INT8},
    {"awq-64", MODEL_WEIGHTS_PACKED, DTYPE_BF16},
    {"awq-64", MODEL_WEIGHTS_WIDE, DTYPE_INT8},
    {"mxfp4", MODEL_WEIGHTS_PACKED, DTYPE_BF16},
    {"mxfp4", MODEL_WEIGHTS_WIDE, DTYPE_FP8},
    {"gguf-q8_0", MODEL_WEIGHTS_PACKED, DTYPE_INT8},
    {"gguf-q8_0", MODEL_WEIGHTS_WIDE, DTYPE_INT4},
    {"gguf-q4_0", MODEL_WEIGHTS_PACKED, DTYPE_INT4},
    {"gguf-q4_0", MODEL_WEIGHTS_WIDE, DTYPE_F16},
    {"gguf-q4_k", MODEL_WEIGHTS_PACKED, DTYPE_FP8},
    {"gguf-q4_k", MODEL_WEIGHTS_WIDE, DTYPE_BF16},
    {"gguf-q6_k", MODEL_WEIGHTS_PACKED, DTYPE_BF16},
    {"gguf-mxfp4", MODEL_WEIGHTS_PACKED, DTYPE_F16},
};

/* Every kind that can be made is among them. */
static bool is_listed(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].weights && strcmp(types[i].weights, name) == 0)
            return true;
    return false;
}

static void each_type(exact_test *test, const struct ops *ops)
{
    char path[FOLDER_PATH];
    for (size_t i = 0; quantized_model_name(i); i++)
        cr_assert(is_listed(quantized_model_name(i)), "%s", quantized_model_name(i));
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const char *name = types[i].weights;
        form = types[i].form;
        kv_dtype = types[i].kv;
        fprintf(stderr, "%s, form %d, %s KV, on %s\n", name ? name : "as it is", form,
                dtype_name(kv_dtype), ops->name);
        if (!name) {
            test(TINY, ops);
            continue;
        }
        cr_assert(quantized_model_make(TINY, name, path));
        test(path, ops);
        folder_remove(path);
    }
    form = MODEL_WEIGHTS_PACKED;
}

/* Fewer than the small models have: threads, chunks and blocks that cut in other places than the
 * first does, and the batch. */
static void vary_all(const char *model, const struct ops *ops)
{
    static const struct shape cases[] = {{2, N, 32, 0}, {3, 5, 7, 103}, {1, 1, 16, 131}};
    check_shapes(model, ops, cases, sizeof cases / sizeof cases[0]);
    run_company(model, ops, 8);
}

static const struct ops *body(const char *name)
{
    const struct ops *ops;
    return ops_cpu(name, &ops, NULL) == ST_OK ? ops : NULL;
}

Test(exact, types_on_the_best_body, .timeout = 240)
{
    each_type(vary_all, body("auto"));
}

/* A lower one multiplies and adds in an order of its own. */
Test(exact, types_on_a_lower_body, .timeout = 240)
{
    const struct ops *lower = body("avx2"), *best = body("auto");
    if (!lower || lower == best)
        lower = body("portable");
    if (lower == best)
        cr_skip_test("this CPU has no body but %s", best->name);
    each_type(vary_all, lower);
}
