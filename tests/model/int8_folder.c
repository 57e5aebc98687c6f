#include "tests/model/int8_folder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/dequant.h"
#include "kernels/fp8.h"
#include "support/read_file.h"

#define GROUP 32
/* Blocks whose borders lie inside the parts of fused matrices (query, key and value; gate and up),
 * and which no tensor's rows need be a multiple of. */
#define BLOCK_ROWS 24
#define BLOCK_COLS 128

struct writer {
    struct buf header, data;
    enum int8_kind kind;
    uint64_t seed;
};

static void put_tensor(struct writer *w, const char *name, const char *type, const char *shape,
                       const void *data, size_t bytes)
{
    buf_printf(&w->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
               w->header.len ? "," : "{", name, type, shape, w->data.len, w->data.len + bytes);
    buf_append(&w->data, data, bytes);
}

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

/* The nearest, of -448 to 448. */
static int8_t to_fp8(float v)
{
    uint8_t best = 0;
    for (int q = 1; q < 0x7f; q++)
        if (fabsf(fp8_to_f32((uint8_t)q) - fabsf(v)) < fabsf(fp8_to_f32(best) - fabsf(v)))
            best = (uint8_t)q;
    return (int8_t)(best | (v < 0 ? 0x80 : 0));
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

static void put_blocks(struct writer *w, const struct tensor *t)
{
    const size_t cols = t->shape[1], rows = t->shape[0];
    const size_t across = (cols - 1) / BLOCK_COLS + 1, down = (rows - 1) / BLOCK_ROWS + 1;
    float *v = malloc(t->elements * sizeof *v), *scale = malloc(across * down * sizeof *scale);
    int8_t *q = malloc(t->elements);
    char name[512], shape[128];
    cr_assert(v && scale && q);
    dequant_plain(t->type, t->data, t->elements, v);
    for (size_t b = 0; b < across * down; b++) {
        const size_t r = b / across * BLOCK_ROWS, c = b % across * BLOCK_COLS;
        const size_t high = rows - r < BLOCK_ROWS ? rows - r : BLOCK_ROWS;
        const size_t wide = cols - c < BLOCK_COLS ? cols - c : BLOCK_COLS;
        quantize_fp8(v + r * cols + c, high, wide, cols, scale + b, q + r * cols + c);
    }
    put_tensor(w, t->name, "F8_E4M3", tensor_shape_text(t, shape, sizeof shape), q, t->elements);
    snprintf(name, sizeof name, "%s_scale", t->name);
    snprintf(shape, sizeof shape, "[%zu,%zu]", down, across);
    put_tensor(w, name, "F32", shape, scale, across * down * sizeof *scale);
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
    float *v = malloc(t->elements * sizeof *v), *scale = malloc(rows * groups * sizeof *scale);
    int32_t *group = malloc(cols * sizeof *group);
    int8_t *q = malloc(t->elements);
    char name[512], shape[128];
    cr_assert(v && scale && q && group);
    dequant_plain(t->type, t->data, t->elements, v);
    make_groups(w, group, cols, size);
    for (size_t r = 0; r < rows && w->kind == INT8_FP8; r++)
        quantize_fp8(v + r * cols, 1, cols, cols, scale + r, q + r * cols);
    for (size_t r = 0; r < rows && w->kind != INT8_FP8; r++)
        quantize_row(v + r * cols, group, cols, scale + r * groups, q + r * cols);
    put_tensor(w, t->name, w->kind == INT8_FP8 ? "F8_E4M3" : "I8",
               tensor_shape_text(t, shape, sizeof shape), q, t->elements);
    snprintf(name, sizeof name, "%s_scale", t->name);
    snprintf(shape, sizeof shape, "[%zu,%zu]", rows, groups);
    put_tensor(w, name, "F32", shape, scale, rows * groups * sizeof *scale);
    snprintf(name, sizeof name, "%s_g_idx", t->name);
    snprintf(shape, sizeof shape, "[%zu]", cols);
    if (size < cols)
        put_tensor(w, name, "I32", shape, group, cols * sizeof *group);
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

static void write_file(const char *path, const char *name, const struct buf *b)
{
    char to[512];
    snprintf(to, sizeof to, "%s/%s", path, name);
    FILE *f = fopen(to, "wb");
    cr_assert(f && !b->failed && fwrite(b->data, 1, b->len, f) == b->len);
    cr_assert_eq(fclose(f), 0);
}

static void write_weights(const char *golden, enum int8_kind kind, const char *path)
{
    struct writer w = {.kind = kind};
    struct checkpoint *c;
    struct error err = {0};
    char shape[128];
    cr_assert_eq(checkpoint_open(golden, &c, &err), ST_OK, "%s", err.text);
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct tensor *t = checkpoint_at(c, i);
        if (is_matrix(t) && kind == INT8_FP8_BLOCKS && t->rank == 2)
            put_blocks(&w, t);
        else if (is_matrix(t) && kind != INT8_FP8_BLOCKS)
            put_rows(&w, t);
        else
            put_tensor(&w, t->name, tensor_type_name(t->type),
                       tensor_shape_text(t, shape, sizeof shape), t->data, t->bytes);
    }
    checkpoint_close(c);
    buf_puts(&w.header, "}");
    struct buf file = {0};
    for (int i = 0; i < 8; i++)
        buf_putc(&file, (char)((uint64_t)w.header.len >> (8 * i)));
    buf_append(&file, w.header.data, w.header.len);
    buf_append(&file, w.data.data, w.data.len);
    write_file(path, "model.safetensors", &file);
    buf_fini(&w.header);
    buf_fini(&w.data);
    buf_fini(&file);
}

void int8_folder_make(const char *golden, enum int8_kind kind, char path[INT8_FOLDER_PATH])
{
    struct buf config = read_file("%s/config.json", golden);
    strcpy(path, "/tmp/baton-int8-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
    while (config.len > 0 && config.data[config.len - 1] != '}')
        config.len--;
    config.len -= config.len > 0;
    const char *kinds[INT8_KINDS] = {
        "\"int\",\"strategy\":\"channel\"", "\"int\",\"strategy\":\"channel\"",
        "\"int\",\"strategy\":\"group\",\"group_size\":32", "\"float\",\"strategy\":\"channel\"",
        "\"float\",\"strategy\":\"block\",\"block_structure\":[24,128]"};
    buf_printf(
        &config,
        ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"%s\","
        "\"config_groups\":{\"all\":{\"targets\":[\"re:.*\"],\"weights\":{\"num_bits\":8,"
        "\"type\":%s}%s}}}}",
        kind >= INT8_FP8 ? "float-quantized" : "int-quantized", kinds[kind],
        kind == INT8_TOKENS ? ",\"input_activations\":{\"num_bits\":8,\"type\":\"int\","
                              "\"strategy\":\"token\",\"dynamic\":true}"
                            : "");
    write_file(path, "config.json", &config);
    buf_fini(&config);
    write_weights(golden, kind, path);
}

void int8_folder_remove(const char *path)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char file[512];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        unlink(file);
    }
    rmdir(path);
}
