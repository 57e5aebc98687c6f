/* Quantized checkpoints against what the reference implementations make of them (make_goldens.py),
 * and the faults that must be refused by name. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "formats/safetensors_maker.h"
#include "formats/weight_source.h"
#include "support/read_file.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/formats/goldens/quantized/"

static void expect_rows(const char *name, const struct weight *w, const struct weight *want)
{
    const float *floats = want->data;
    float *got = malloc((size_t)(w->rows * w->cols) * sizeof *got + 1);
    cr_assert(w->rows == want->rows && w->cols == want->cols, "%s: %s is %llu x %llu", name,
              w->name, (unsigned long long)w->rows, (unsigned long long)w->cols);
    /* whole, and in pieces that begin and end anywhere */
    for (uint64_t step = w->rows; step; step = step == 1             ? 0
                                               : step / 3 + 1 < step ? step / 3 + 1
                                                                     : 1) {
        for (uint64_t r = 0; r < w->rows; r += step) {
            uint64_t end = r + step < w->rows ? r + step : w->rows;
            memset(got, 0xff, (size_t)((end - r) * w->cols) * sizeof *got);
            weight_read_rows(w, r, end, got);
            for (uint64_t i = 0; i < (end - r) * w->cols; i++)
                cr_assert(memcmp(&got[i], (const char *)floats + 4 * (r * w->cols + i), 4) == 0,
                          "%s: %s: row %llu column %llu: %a", name, w->name,
                          (unsigned long long)(r + i / w->cols), (unsigned long long)(i % w->cols),
                          (double)got[i]);
        }
    }
    free(got);
}

static void run_case(const char *name, const json *config)
{
    char path[512];
    struct buf text = {0};
    struct weight_source *s;
    struct error err = {0};
    snprintf(path, sizeof path, GOLDENS "%s.safetensors", name);
    struct buf b = read_file("%s", path);
    json_dump(config, &text);
    struct weight_bytes in = {b.data, b.len, text.data, text.len};
    cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s: %s", name, err.text);
    size_t checked = 0;
    for (size_t i = 0; i < weight_source_count(s); i++) {
        const struct weight *w = weight_source_at(s, i);
        char other[256];
        snprintf(other, sizeof other, "want.%s", w->name);
        const struct weight *want = weight_source_find(s, other);
        cr_assert(w->readable && w->format[0], "%s: %s", name, w->name);
        cr_assert_eq(weight_source_find(s, w->name), w);
        if (!want)
            continue;
        cr_assert_null(w->data);
        expect_rows(name, w, want);
        checked++;
    }
    cr_assert_eq(checked, 1, "%s", name);
    weight_source_close(s);
    buf_fini(&b);
    buf_fini(&text);
}

Test(quantized, goldens)
{
    json *cases = NULL;
    struct error err = {0};
    cr_assert_eq(json_read_file(GOLDENS "cases.json", 1 << 20, &cases, &err), ST_OK, "%s",
                 err.text);
    cr_assert_gt(json_count(cases), 20);
    for (size_t i = 0; i < json_count(cases); i++)
        run_case(json_as_str(json_get(json_at(cases, i), "name"), "?"),
                 json_get(json_at(cases, i), "config"));
    json_free(cases);
}

struct fault {
    const char *config, *says;
    struct spec specs[5];
};

#define GPTQ "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":8}"
#define AWQ "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":8}"
#define FP8 "{\"quant_method\":\"fp8\"}"
#define FP8_BLOCK "{\"quant_method\":\"fp8\",\"weight_block_size\":[2,4]}"
#define MXFP4 "{\"quant_method\":\"mxfp4\"}"
#define CT(format, weights)                                                                        \
    "{\"quant_method\":\"compressed-tensors\",\"format\":\"" format                                \
    "\",\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":" weights "}}}"
#define CT4 CT("pack-quantized", "{\"num_bits\":4,\"strategy\":\"group\",\"group_size\":8}")

static const struct fault faults[] = {
    {GPTQ, "has no scales", {{"a.qweight", "I32", "[1,8]", 32}}},
    {GPTQ, "has no qzeros", {{"a.qweight", "I32", "[1,8]", 32}, {"a.scales", "F16", "[1,8]", 16}}},
    {GPTQ, "a.scales belongs to a weight that is not there", {{"a.scales", "F16", "[1,8]", 16}}},
    {GPTQ, "a.g_idx belongs", {{"a.g_idx", "I32", "[8]", 32}}},
    {GPTQ,
     "a.scales: F16 of shape [2, 8]",
     {{"a.qweight", "I32", "[1,8]", 32},
      {"a.scales", "F16", "[2,8]", 32},
      {"a.qzeros", "I32", "[1,1]", 4}}},
    {GPTQ,
     "a.qzeros: I32 of shape [1, 2]",
     {{"a.qweight", "I32", "[1,8]", 32},
      {"a.scales", "F16", "[1,8]", 16},
      {"a.qzeros", "I32", "[1,2]", 8}}},
    {GPTQ,
     "a.g_idx: I32 of shape [7]",
     {{"a.qweight", "I32", "[1,8]", 32},
      {"a.scales", "F16", "[1,8]", 16},
      {"a.qzeros", "I32", "[1,1]", 4},
      {"a.g_idx", "I32", "[7]", 28}}},
    {GPTQ,
     "a.qweight: F32",
     {{"a.qweight", "F32", "[1,8]", 32},
      {"a.scales", "F16", "[1,8]", 16},
      {"a.qzeros", "I32", "[1,1]", 4}}},
    {GPTQ,
     "weight a.weight is there twice",
     {{"a.qweight", "I32", "[1,8]", 32},
      {"a.scales", "F16", "[1,8]", 16},
      {"a.qzeros", "I32", "[1,1]", 4},
      {"a.weight", "F32", "[1]", 4}}},
    {AWQ,
     "a.qzeros",
     {{"a.qweight", "I32", "[8,1]", 32},
      {"a.scales", "F16", "[1,8]", 16},
      {"a.qzeros", "I32", "[2,1]", 8}}},
    {FP8, "a.weight has no scale", {{"a.weight", "F8_E4M3", "[2,2]", 4}}},
    {FP8, "a.weight_scale belongs", {{"a.weight_scale", "F32", "[]", 4}}},
    {FP8,
     "a.weight_scale belongs",
     {{"a.weight", "BF16", "[2]", 4}, {"a.weight_scale", "F32", "[]", 4}}},
    {FP8,
     "both _scale and _scale_inv",
     {{"a.weight", "F8_E4M3", "[2,2]", 4},
      {"a.weight_scale", "F32", "[]", 4},
      {"a.weight_scale_inv", "F32", "[]", 4}}},
    {FP8,
     "a.weight_scale: F32 of shape [3]",
     {{"a.weight", "F8_E4M3", "[2,2]", 4}, {"a.weight_scale", "F32", "[3]", 12}}},
    {FP8,
     "a.weight_scale: I32",
     {{"a.weight", "F8_E4M3", "[2,2]", 4}, {"a.weight_scale", "I32", "[2]", 8}}},
    {FP8_BLOCK,
     "[3, 1]",
     {{"a.weight", "F8_E4M3", "[4,4]", 16}, {"a.weight_scale_inv", "F32", "[3,1]", 12}}},
    {"{\"quant_method\":\"fp8\",\"ignored_layers\":[\"re:.*a$\"]}",
     "lists a as not so",
     {{"a.weight", "F8_E4M3", "[2,2]", 4}, {"a.weight_scale", "F32", "[]", 4}}},
    {MXFP4, "has no _scales", {{"a_blocks", "U8", "[1,1,16]", 16}}},
    {MXFP4, "a_scales belongs", {{"a_scales", "U8", "[1,1]", 1}}},
    {MXFP4,
     "a_scales: U8 of shape [1, 2]",
     {{"a_blocks", "U8", "[1,1,16]", 16}, {"a_scales", "U8", "[1,2]", 2}}},
    {MXFP4,
     "a_blocks: U8 of shape [1, 1, 8]",
     {{"a_blocks", "U8", "[1,1,8]", 8}, {"a_scales", "U8", "[1,1]", 1}}},
    {CT4, "has no weight_scale", {{"a.weight_packed", "I32", "[2,1]", 8}}},
    {CT4,
     "has no weight_shape",
     {{"a.weight_packed", "I32", "[2,1]", 8}, {"a.weight_scale", "F32", "[2,1]", 8}}},
    {CT4,
     "a dimension of 0",
     {{"a.weight_packed", "I32", "[2,1]", 8},
      {"a.weight_scale", "F32", "[2,1]", 8},
      {"a.weight_shape", "I64", "[2]", 16}}},
    {CT4, "a.weight_shape belongs", {{"a.weight_shape", "I64", "[2]", 16}}},
    {CT4, "nvfp4", {{"a.weight_global_scale", "F32", "[1]", 4}}},
    {CT("pack-quantized", "null"),
     "no group of the config has a",
     {{"a.weight_packed", "I32", "[2,1]", 8}, {"a.weight_scale", "F32", "[2,1]", 8}}},
};

Test(quantized, refuses_faults)
{
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        const struct fault *f = &faults[i];
        struct buf b = make_file(f->specs, 5);
        struct weight_bytes in = {b.data, b.len, f->config, strlen(f->config)};
        struct weight_source *s = NULL;
        struct error err = {0};
        enum status st = weight_source_open_bytes(&in, &s, &err);
        cr_assert(st == ST_INVALID || st == ST_UNSUPPORTED, "%s: accepted", f->says);
        cr_assert_not_null(strstr(err.text, f->says), "\"%s\" lacks \"%s\"", err.text, f->says);
        buf_fini(&b);
    }
}

Test(quantized, refuses_what_it_cannot_read)
{
    static const struct {
        const char *config, *says;
    } cases[] = {
        {"[]", "expected an object"},
        {"{}", "quant_method"},
        {"{\"quant_method\":\"bitsandbytes\"}", "bitsandbytes\"; fp8, gptq, awq"},
        {"{\"quant_method\":\"gptq\",\"bits\":5}", "5 bits"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-7}", "group_size"},
        {"{\"quant_method\":\"gptq\",\"checkpoint_format\":\"marlin\"}", "marlin"},
        {"{\"quant_method\":\"gptq\",\"dynamic\":{\"-:.*gate\":{},\"+:x\":{\"bits\":8}}}",
         "per module"},
        {"{\"quant_method\":\"awq\",\"version\":\"gemv\"}", "gemv"},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[0,1]}", "weight_block_size"},
        {"{\"quant_method\":\"fp8\",\"ignored_layers\":[\"re:(\"]}", "ignored_layers[0]"},
        {"{\"quant_method\":\"fp8\",\"ignored_layers\":\"x\"}", "expected an array"},
        {"{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}", "NVFP4"},
        {CT("nvfp4-pack-quantized", "{}"), "nvfp4"},
        {CT("marlin-24", "{}"), "marlin-24"},
        {CT("pack-quantized", "{\"num_bits\":9}"), "9 bits"},
        {"{\"quant_method\":\"compressed-tensors\"}", "config_groups"},
        {"{", "line"},
    };
    struct buf b = make_file((struct spec[1]){{0}}, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct weight_bytes in = {b.data, b.len, cases[i].config, strlen(cases[i].config)};
        struct weight_source *s;
        struct error err = {0};
        cr_assert_lt(weight_source_open_bytes(&in, &s, &err), 0, "%s", cases[i].config);
        cr_assert_not_null(strstr(err.text, cases[i].says), "\"%s\" lacks \"%s\"", err.text,
                           cases[i].says);
    }
    buf_fini(&b);
}

/* A group index that leads out of the scales. */
Test(quantized, refuses_a_wild_group_index)
{
    static const struct spec specs[] = {{"a.g_idx", "I32", "[8]", 32},
                                        {"a.qweight", "I32", "[1,8]", 32},
                                        {"a.scales", "F16", "[1,8]", 16},
                                        {"a.qzeros", "I32", "[1,1]", 4}};
    for (int bad = -1; bad < 2; bad++) {
        struct buf b = make_file(specs, 4);
        int32_t g = bad;
        memcpy(b.data + b.len - 84 + 12, &g, 4);
        struct weight_bytes in = {b.data, b.len, GPTQ, strlen(GPTQ)};
        struct weight_source *s;
        struct error err = {0};
        enum status st = weight_source_open_bytes(&in, &s, &err);
        cr_assert_eq(st, bad ? ST_INVALID : ST_OK, "%s", err.text);
        if (bad)
            cr_assert_not_null(strstr(err.text, "a.g_idx: input 3 is of group"), "%s", err.text);
        else
            weight_source_close(s);
        buf_fini(&b);
    }
}

Test(quantized, plain_and_companions)
{
    static const struct spec specs[] = {{"a.weight", "BF16", "[2,3]", 12},
                                        {"b.weight", "F64", "[2]", 16},
                                        {"c.k_scale", "F32", "[]", 4},
                                        {"d.ids", "I64", "[1]", 8},
                                        {"e.layer_scale", "F32", "[]", 4}};
    struct buf b = make_file(specs, 5);
    struct weight_source *s;
    struct error err = {0};
    struct weight_bytes in = {b.data, b.len, NULL, 0};
    cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s", err.text);
    cr_assert_null(weight_source_quantization(s));
    cr_assert_eq(weight_source_count(s), 5);
    const struct weight *a = weight_source_find(s, "a.weight"), *d = weight_source_find(s, "d.ids");
    cr_assert(a->data && a->type == TENSOR_BF16 && a->rows == 2 && a->cols == 3 && a->rank == 2);
    const struct weight *f64 = weight_source_find(s, "b.weight");
    cr_assert(!f64->data && f64->readable && f64->rows == 1 && f64->cols == 2);
    float row[2] = {1, 1};
    weight_read_rows(f64, 0, 1, row);
    cr_assert(row[0] == 0 && row[1] == 0);
    cr_assert(d && !d->readable && !d->data);
    cr_assert_eq(weight_source_stored_bytes(s), 44);
    weight_source_close(s);
    in.quantization_config = FP8;
    in.config_len = strlen(FP8);
    cr_assert_eq(weight_source_open_bytes(&in, &s, &err), ST_OK, "%s", err.text);
    cr_assert_str_eq(weight_source_quantization(s), "fp8");
    cr_assert(!weight_source_find(s, "c.k_scale") && weight_source_find(s, "e.layer_scale"));
    weight_source_close(s);
    buf_fini(&b);
}

Test(quantized, gguf_files)
{
    struct weight_source *s;
    struct error err = {0};
    cr_assert_eq(
        weight_source_open(BATON_SOURCE_DIR "/tests/fuzz/seeds/gguf/all_types.gguf", &s, &err),
        ST_OK, "%s", err.text);
    cr_assert_str_eq(weight_source_quantization(s), "gguf");
    cr_assert_not_null(weight_source_gguf(s));
    const struct weight *f32 = weight_source_find(s, "F32"), *q4 = weight_source_find(s, "Q4_K");
    cr_assert(f32 && f32->data && f32->type == TENSOR_F32 && f32->rows == 2 && f32->cols == 32);
    cr_assert(q4 && !q4->data && q4->readable && q4->rows == 2 && q4->cols == 256);
    float both[512], second[256];
    weight_read_rows(q4, 0, 2, both);
    weight_read_rows(q4, 1, 2, second);
    cr_assert(memcmp(both + 256, second, sizeof second) == 0);
    weight_source_close(s);
    cr_assert_eq(weight_source_open("/nonexistent", &s, &err), ST_NOT_FOUND);
}

/* The configs of older tools lie in files of their own. */
Test(quantized, old_config_files)
{
    char folder[] = "/tmp/baton_quant_XXXXXX", path[64], command[64];
    static const struct {
        const char *file, *text, *method;
    } cases[] = {
        {"quantize_config.json", "{\"bits\":4,\"group_size\":16}", "gptq"},
        {"quant_config.json", "{\"w_bit\":4,\"q_group_size\":16,\"version\":\"GEMM\"}", "awq"},
        {"hf_quant_config.json",
         "{\"quantization\":{\"quant_algo\":\"FP8\",\"exclude_modules\":[\"lm_head\"]}}", "fp8"},
    };
    cr_assert_not_null(mkdtemp(folder));
    for (size_t i = 0; i < 3; i++) {
        struct buf b = make_file((struct spec[1]){{"x", "F32", "[]", 4}}, 1);
        struct weight_source *s;
        struct error err = {0};
        snprintf(path, sizeof path, "%s/model.safetensors", folder);
        FILE *f = fopen(path, "wb");
        cr_assert(f && fwrite(b.data, 1, b.len, f) == b.len && fclose(f) == 0);
        snprintf(path, sizeof path, "%s/%s", folder, cases[i].file);
        f = fopen(path, "wb");
        cr_assert(f && fputs(cases[i].text, f) >= 0 && fclose(f) == 0);
        cr_assert_eq(weight_source_open(folder, &s, &err), ST_OK, "%s", err.text);
        cr_assert_str_eq(weight_source_quantization(s), cases[i].method);
        weight_source_close(s);
        unlink(path);
        buf_fini(&b);
    }
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}
