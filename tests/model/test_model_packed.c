/* Quantized weights as integers say nearly what they say as floats: what differs is that the rows
 * they are multiplied with are rounded to 8 bits. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model_impl.h"
#include "tests/model/int8_folder.h"
#include "tests/model/model_rig.h"

#define N 100

static float *run(const char *path, const struct ops *ops, enum model_weights_form form,
                  struct rig **out)
{
    struct rig *r = rig_open(&(struct rig_args){path, ops, 2, DTYPE_F32, 16, form});
    float *logits = calloc((size_t)N * (size_t)r->vocab, sizeof *logits);
    int32_t ids[N];
    struct sequence s;
    for (int32_t i = 0; i < N; i++)
        ids[i] = (i * 7919 + 13) % r->vocab;
    rig_begin(r, &s, ids);
    rig_step(r, &(struct feed){&s, N, WANT_ALL}, 1, logits);
    *out = r;
    return logits;
}

/* Root of the mean square of what differs, by that of what there is. */
static double distance(const float *got, const float *want, size_t n)
{
    double square = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        square += d * d;
        all += (double)want[i] * (double)want[i];
    }
    return sqrt(square / all);
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the rows' distances: some tokens go to another expert, which says nothing. */
static double middle(const float *got, const float *want, size_t vocab)
{
    double rows[N];
    for (size_t i = 0; i < N; i++)
        rows[i] = distance(got + i * vocab, want + i * vocab, vocab);
    qsort(rows, N, sizeof *rows, order);
    return rows[N / 2];
}

/* At least so many packed weights, at most that far from floats. */
static void compare_as(enum model_weights_form form, const char *name, const char *path,
                       size_t least, double most)
{
    struct rig *plain, *packed;
    const struct ops *ops;
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    float *want = run(path, ops, MODEL_WEIGHTS_FLOAT, &plain);
    cr_assert_eq(plain->model->weights.n_packed + plain->model->weights.fp8.n, 0);
    for (int b = 0; (ops = ops_at(b)); b++) {
        float *got = run(path, ops, form, &packed);
        double d = middle(got, want, (size_t)plain->vocab);
        size_t n = packed->model->weights.n_packed + packed->model->weights.fp8.n;
        cr_assert_geq(n, least, "%s: %zu", name, n);
        cr_assert_lt(d, most, "%s on %s: %g", name, ops->name, d);
        rig_close(packed);
        free(got);
    }
    rig_close(plain);
    free(want);
}

static void compare(const char *name, const char *path, size_t least, double most)
{
    compare_as(MODEL_WEIGHTS_PACKED, name, path, least, most);
}

Test(packed, gguf, .timeout = 120)
{
    static const char *const files[] = {"gguf/quantized.gguf", "gguf/quantized-k.gguf"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        compare(files[i], rig_golden_path(files[i]), 4, 0.04);
        compare_as(MODEL_WEIGHTS_WIDE, files[i], rig_golden_path(files[i]), 4, 0.01);
    }
}

static void as_it_is(void *ctx, const char *name, const char *path)
{
    (void)ctx;
    compare(name, path, strcmp(name, "fp8-block") ? 4 : 0, 0.04);
}

/* Every quantization of folders: blocks of FP8 that are narrower than a span become floats. */
Test(packed, folders, .timeout = 120)
{
    cr_assert_geq(rig_each_golden("quant", as_it_is, NULL), 8);
}

static void as_integers(void *ctx, const char *name, const char *golden)
{
    char path[FOLDER_PATH];
    (void)ctx;
    for (int kind = 0; kind < INT8_KINDS; kind++) {
        int8_folder_make(golden, (enum int8_kind)kind, path);
        compare(name, path, 4, 0.1);
        if (kind == INT8_ROWS)
            compare_as(MODEL_WEIGHTS_WIDE, name, path, 4, 0.03);
        folder_remove(path);
    }
}

/* Every architecture, all of its matrices integers: also those that no gemm of whole rows reads. */
Test(packed, architectures, .timeout = 240)
{
    cr_assert_gt(rig_each_golden("", as_integers, NULL), 25);
}

/* Rows with one scale for two spans, where there are two: near floats, and a row by itself gives
 * the bits that it gives among others. Which models do so is not for them to say here. */
Test(packed, rows_of_paired_spans)
{
    char path[FOLDER_PATH];
    const struct ops *ops;
    struct rig *plain, *r;
    int8_folder_make(rig_golden_path("llama3-gqa"), INT8_ROWS, path);
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    float *want = run(path, ops, MODEL_WEIGHTS_FLOAT, &plain);
    const size_t vocab = (size_t)plain->vocab;
    float *together = calloc(N * vocab, sizeof *together), *alone = calloc(vocab, sizeof *alone);
    for (int b = 1; (ops = ops_at(b)); b++) {
        int32_t ids[N];
        struct sequence s;
        free(run(path, ops, MODEL_WEIGHTS_PACKED, &r));
        cr_assert_not(r->model->scratch.x8.paired);
        r->model->scratch.x8.paired = true;
        for (int32_t i = 0; i < N; i++)
            ids[i] = (i * 7919 + 13) % r->vocab;
        rig_begin(r, &s, ids);
        rig_step(r, &(struct feed){&s, N, WANT_ALL}, 1, together);
        cr_assert_lt(middle(together, want, vocab), 0.1, "%s", ops->name);
        rig_begin(r, &s, ids);
        for (int i = 0; i < N; i++) {
            rig_step(r, &(struct feed){&s, 1, WANT_LAST}, 1, alone);
            cr_assert_eq(memcmp(alone, together + (size_t)i * vocab, vocab * sizeof *alone), 0,
                         "%s: row %d", ops->name, i);
        }
        rig_close(r);
    }
    folder_remove(path);
    rig_close(plain);
    free(alone);
    free(together);
    free(want);
}

static void as_bytes(void *ctx, const char *name, const char *path)
{
    (void)ctx;
    compare_as(MODEL_WEIGHTS_INT8, name, path, 4, 0.15);
}

/* Every architecture, floats rounded to 8 bits when they are loaded. */
Test(packed, floats_to_bytes, .timeout = 240)
{
    cr_assert_gt(rig_each_golden("", as_bytes, NULL), 25);
}

/* Rows have one scale where all weights are of such rows, and the checkpoint says so, or whoever
 * serves it; what is rounded when it is loaded gives what was rounded so before. */
Test(packed, whole_rows)
{
    static const struct {
        enum int8_kind kind;
        enum model_weights_form form;
        bool whole;
    } cases[] = {
        {INT8_ROWS, MODEL_WEIGHTS_PACKED, false},  {INT8_ROWS, MODEL_WEIGHTS_INT8, true},
        {INT8_TOKENS, MODEL_WEIGHTS_PACKED, true}, {INT8_TOKENS, MODEL_WEIGHTS_INT8, true},
        {INT8_FP8, MODEL_WEIGHTS_INT8, true},      {INT8_FP8, MODEL_WEIGHTS_PACKED, false},
    };
    const struct ops *ops;
    struct rig *groups;
    float *rounded[2] = {NULL, NULL};
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    free(run(rig_golden_path("gguf/quantized.gguf"), ops, MODEL_WEIGHTS_INT8, &groups));
    cr_assert_not(groups->model->scratch.x8.whole);
    rig_close(groups);
    const char *golden = rig_golden_path("qwen3");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[FOLDER_PATH];
        struct rig *r;
        int8_folder_make(golden, cases[i].kind, path);
        free(run(path, ops, cases[i].form, &r));
        cr_assert_eq(r->model->scratch.x8.whole, cases[i].whole, "case %zu", i);
        rig_close(r);
        folder_remove(path);
    }
    for (int before = 0; before < 2; before++) {
        char path[FOLDER_PATH];
        struct rig *r;
        int8_folder_make(golden, INT8_TOKENS, path);
        rounded[before] = run(before ? path : golden, ops, MODEL_WEIGHTS_INT8, &r);
        if (before)
            cr_assert_lt(middle(rounded[1], rounded[0], (size_t)r->vocab), 0.06, "%g",
                         middle(rounded[1], rounded[0], (size_t)r->vocab));
        rig_close(r);
        folder_remove(path);
    }
    free(rounded[0]);
    free(rounded[1]);
}

static void as_bf16(void *ctx, const char *name, const char *path)
{
    (void)ctx;
    compare(name, path, 0, 0.03);
}

/* The same in bf16, as they are: rows rounded to bf16 on the bodies that do so. */
Test(packed, bf16, .timeout = 240)
{
    cr_assert_gt(rig_each_golden("", as_bf16, NULL), 25);
}

/* A small model stays in floats unless it is asked not to. */
Test(packed, small_models_are_exact)
{
    struct rig *r;
    const struct ops *ops;
    enum model_weights_form form;
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    free(run(rig_golden_path("gguf/quantized.gguf"), ops, MODEL_WEIGHTS_AUTO, &r));
    cr_assert_eq(r->model->weights.n_packed, 0);
    rig_close(r);
    cr_assert(model_weights_form_parse("float", &form) && form == MODEL_WEIGHTS_FLOAT);
    cr_assert(model_weights_form_parse("packed", &form) && form == MODEL_WEIGHTS_PACKED);
    cr_assert(model_weights_form_parse("wide", &form) && form == MODEL_WEIGHTS_WIDE);
    cr_assert(model_weights_form_parse("int8", &form) && form == MODEL_WEIGHTS_INT8);
    cr_assert_not(model_weights_form_parse("", &form));
}
