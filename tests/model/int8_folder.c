#include "tests/model/int8_folder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fp8.h"

#define GROUP 32
/* Blocks whose borders lie inside the parts of fused matrices (query, key and value; gate and up),
 * and which no tensor's rows need be a multiple of. */
#define BLOCK_ROWS 24
#define BLOCK_COLS 128

struct writer {
    struct folder_writer w;
    enum int8_kind kind;
    uint64_t seed;
};

/* Each column's group: all of one size, shuffled. */
static void make_groups(struct writer *w, int32_t *group, size_t cols, size_t size)
{
    for (size_t i = 0; i < cols; i++)
        group[i] = (int32_t)(i / size);
    for (size_t i = cols - 1; size < cols && i > 0; i--) {
        w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
        size_t k = (size_t)(w->seed >> 33) % (i + 1);
        int32_t last = group[i];
        group[i] = group[k];
        group[k] = last;
    }
}

/* The nearest, of -448 to 448: codes ascend as their magnitudes do. */
static int8_t to_fp8(float v)
{
    const float most = fabsf(v);
    uint8_t low = 0, high = 0x7e;
    while (high - low > 1) {
        const uint8_t middle = (uint8_t)((low + high) / 2);
        if (fp8_to_f32(middle) <= most)
            low = middle;
        else
            high = middle;
    }
    const bool is_high = fabsf(fp8_to_f32(high) - most) < fabsf(fp8_to_f32(low) - most);
    return (int8_t)((is_high ? high : low) | (v < 0 ? 0x80 : 0));
}

/* `n` elements in `rows` rows that lie `stride` apart have one scale. */
static void quantize_fp8(const float *v, size_t rows, size_t n, size_t stride, float *scale,
                         int8_t *q)
{
    *scale = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = r * stride; i < r * stride + n; i++)
            *scale = fmaxf(*scale, fabsf(v[i]) / 448);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = r * stride; i < r * stride + n; i++)
            q[i] = *scale > 0 ? to_fp8(v[i] / *scale) : 0;
}

/* A tensor beside the one of that name: its scales, or its order. */
static void put_beside(struct writer *w, const struct tensor *t, const char *suffix,
                       struct folder_tensor beside)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s", t->name, suffix);
    beside.name = name;
    folder_put(&w->w, &beside);
}

static void put_blocks(struct writer *w, const struct tensor *t)
{
    const size_t cols = t->shape[1], rows = t->shape[0];
    const size_t across = (cols - 1) / BLOCK_COLS + 1, down = (rows - 1) / BLOCK_ROWS + 1;
    float *v = folder_floats(t), *scale = folder_alloc(across * down * sizeof *scale);
    int8_t *q = folder_alloc(t->elements);
    char shape[128];
    for (size_t b = 0; b < across * down; b++) {
        const size_t r = b / across * BLOCK_ROWS, c = b % across * BLOCK_COLS;
        const size_t high = rows - r < BLOCK_ROWS ? rows - r : BLOCK_ROWS;
        const size_t wide = cols - c < BLOCK_COLS ? cols - c : BLOCK_COLS;
        quantize_fp8(v + r * cols + c, high, wide, cols, scale + b, q + r * cols + c);
    }
    tensor_shape_text(t, shape, sizeof shape);
    folder_put(&w->w, &(struct folder_tensor){t->name, "F8_E4M3", shape, q, t->elements});
    snprintf(shape, sizeof shape, "[%zu,%zu]", down, across);
    put_beside(w, t, "_scale",
               (struct folder_tensor){
                   .type = "F32", .shape = shape, .data = scale, .bytes = across * down * 4});
    free(v);
    free(scale);
    free(q);
}

static void quantize_row(const float *v, const int32_t *group, size_t cols, float *scale, int8_t *q)
{
    for (size_t i = 0; i < cols; i++)
        scale[group[i]] = 0;
    for (size_t i = 0; i < cols; i++)
        scale[group[i]] = fmaxf(scale[group[i]], fabsf(v[i]) / 127);
    for (size_t i = 0; i < cols; i++)
        q[i] = (int8_t)(scale[group[i]] > 0 ? lrintf(v[i] / scale[group[i]]) : 0);
}

static void put_rows(struct writer *w, const struct tensor *t)
{
    const size_t cols = t->shape[t->rank - 1], rows = t->elements / cols;
    const size_t size = w->kind == INT8_ORDERED && cols % GROUP == 0 ? GROUP : cols;
    const size_t groups = cols / size;
    float *v = folder_floats(t), *scale = folder_alloc(rows * groups * sizeof *scale);
    int32_t *group = folder_alloc(cols * sizeof *group);
    int8_t *q = folder_alloc(t->elements);
    char shape[128];
    make_groups(w, group, cols, size);
    for (size_t r = 0; r < rows && w->kind == INT8_FP8; r++)
        quantize_fp8(v + r * cols, 1, cols, cols, scale + r, q + r * cols);
    for (size_t r = 0; r < rows && w->kind != INT8_FP8; r++)
        quantize_row(v + r * cols, group, cols, scale + r * groups, q + r * cols);
    tensor_shape_text(t, shape, sizeof shape);
    folder_put(&w->w, &(struct folder_tensor){t->name, w->kind == INT8_FP8 ? "F8_E4M3" : "I8",
                                              shape, q, t->elements});
    snprintf(shape, sizeof shape, "[%zu,%zu]", rows, groups);
    put_beside(w, t, "_scale",
               (struct folder_tensor){
                   .type = "F32", .shape = shape, .data = scale, .bytes = rows * groups * 4});
    snprintf(shape, sizeof shape, "[%zu]", cols);
    if (size < cols)
        put_beside(w, t, "_g_idx",
                   (struct folder_tensor){
                       .type = "I32", .shape = shape, .data = group, .bytes = cols * 4});
    free(group);
    free(v);
    free(scale);
    free(q);
}

static bool is_matrix(const struct tensor *t)
{
    size_t n = strlen(t->name);
    return t->rank >= 2 && t->elements > 0 && (n < 4 || strcmp(t->name + n - 4, "bias") != 0);
}

static void write_weights(const char *golden, enum int8_kind kind, const char *path)
{
    struct writer w = {.kind = kind};
    struct checkpoint *c;
    struct error err = {0};
    folder_must(checkpoint_open(golden, &c, &err) == ST_OK, err.text);
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct tensor *t = checkpoint_at(c, i);
        if (is_matrix(t) && kind == INT8_FP8_BLOCKS && t->rank == 2)
            put_blocks(&w, t);
        else if (is_matrix(t) && kind != INT8_FP8_BLOCKS)
            put_rows(&w, t);
        else
            folder_put_as_it_is(&w.w, t);
    }
    checkpoint_close(c);
    folder_finish(&w.w, path);
}

void int8_folder_make(const char *golden, enum int8_kind kind, char path[FOLDER_PATH])
{
    static const char *const kinds[INT8_KINDS] = {
        "\"int\",\"strategy\":\"channel\"", "\"int\",\"strategy\":\"channel\"",
        "\"int\",\"strategy\":\"group\",\"group_size\":32", "\"float\",\"strategy\":\"channel\"",
        "\"float\",\"strategy\":\"block\",\"block_structure\":[24,128]"};
    char config[512];
    snprintf(
        config, sizeof config,
        "{\"quant_method\":\"compressed-tensors\",\"format\":\"%s\",\"config_groups\":{\"all\":"
        "{\"targets\":[\"re:.*\"],\"weights\":{\"num_bits\":8,\"type\":%s}%s}}}",
        kind >= INT8_FP8 ? "float-quantized" : "int-quantized", kinds[kind],
        kind == INT8_TOKENS ? ",\"input_activations\":{\"num_bits\":8,\"type\":\"int\","
                              "\"strategy\":\"token\",\"dynamic\":true}"
                            : "");
    folder_create(golden, config, path);
    write_weights(golden, kind, path);
}
