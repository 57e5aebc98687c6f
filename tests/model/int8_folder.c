#include "tests/model/int8_folder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/dequant.h"
#include "support/read_file.h"

struct writer {
    struct buf header, data;
};

static void put_tensor(struct writer *w, const char *name, const char *type, const char *shape,
                       const void *data, size_t bytes)
{
    buf_printf(&w->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
               w->header.len ? "," : "{", name, type, shape, w->data.len, w->data.len + bytes);
    buf_append(&w->data, data, bytes);
}

static void put_rows(struct writer *w, const struct tensor *t)
{
    const size_t cols = t->shape[t->rank - 1], rows = t->elements / cols;
    float *v = malloc(t->elements * sizeof *v), *scale = malloc(rows * sizeof *scale);
    int8_t *q = malloc(t->elements);
    char name[512], shape[128];
    cr_assert(v && scale && q);
    dequant_plain(t->type, t->data, t->elements, v);
    for (size_t r = 0; r < rows; r++) {
        float most = 0;
        for (size_t i = r * cols; i < (r + 1) * cols; i++)
            most = fmaxf(most, fabsf(v[i]));
        scale[r] = most > 0 ? most / 127 : 1;
        for (size_t i = r * cols; i < (r + 1) * cols; i++)
            q[i] = (int8_t)lrintf(v[i] / scale[r]);
    }
    put_tensor(w, t->name, "I8", tensor_shape_text(t, shape, sizeof shape), q, t->elements);
    snprintf(name, sizeof name, "%s_scale", t->name);
    snprintf(shape, sizeof shape, "[%zu,1]", rows);
    put_tensor(w, name, "F32", shape, scale, rows * sizeof *scale);
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

static void write_weights(const char *golden, const char *path)
{
    struct writer w = {0};
    struct checkpoint *c;
    struct error err = {0};
    char shape[128];
    cr_assert_eq(checkpoint_open(golden, &c, &err), ST_OK, "%s", err.text);
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct tensor *t = checkpoint_at(c, i);
        if (is_matrix(t))
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

void int8_folder_make(const char *golden, char path[INT8_FOLDER_PATH])
{
    struct buf config = read_file("%s/config.json", golden);
    strcpy(path, "/tmp/baton-int8-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
    while (config.len > 0 && config.data[config.len - 1] != '}')
        config.len--;
    config.len -= config.len > 0;
    buf_puts(&config, ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\","
                      "\"format\":\"int-quantized\",\"config_groups\":{\"all\":{\"weights\":"
                      "{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"channel\"}}}}}");
    write_file(path, "config.json", &config);
    buf_fini(&config);
    write_weights(golden, path);
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
