#include "tests/model/folder_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "formats/dequant.h"

void folder_must(bool is_so, const char *what)
{
    if (is_so)
        return;
    fprintf(stderr, "making a quantized model: %s\n", what);
    abort();
}

void *folder_alloc(size_t bytes)
{
    void *p = calloc(1, bytes);
    folder_must(p, "no memory");
    return p;
}

void folder_put(struct folder_writer *w, const struct folder_tensor *t)
{
    buf_printf(&w->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
               w->header.len ? "," : "{", t->name, t->type, t->shape, w->data.len,
               w->data.len + t->bytes);
    buf_append(&w->data, t->data, t->bytes);
}

void folder_put_as_it_is(struct folder_writer *w, const struct tensor *t)
{
    char shape[128];
    folder_put(w, &(struct folder_tensor){t->name, tensor_type_name(t->type),
                                          tensor_shape_text(t, shape, sizeof shape), t->data,
                                          t->bytes});
}

float *folder_floats(const struct tensor *t)
{
    float *v = folder_alloc(t->elements * sizeof *v);
    dequant_plain(t->type, t->data, t->elements, v);
    return v;
}

static void write_file(const char *path, const char *name, const struct buf *b)
{
    char to[512];
    snprintf(to, sizeof to, "%s/%s", path, name);
    FILE *f = fopen(to, "wb");
    folder_must(f && !b->failed && fwrite(b->data, 1, b->len, f) == b->len, to);
    folder_must(fclose(f) == 0, to);
}

void folder_create(const char *golden, const char *quantization, char path[FOLDER_PATH])
{
    struct buf config = {0};
    struct error err = {0};
    char from[1024];
    snprintf(from, sizeof from, "%s/config.json", golden);
    folder_must(file_read(from, 1 << 20, &config, &err) == ST_OK, err.text);
    strcpy(path, "/tmp/baton-model-XXXXXX");
    folder_must(mkdtemp(path), "no folder under /tmp");
    while (config.len > 0 && config.data[config.len - 1] != '}')
        config.len--;
    config.len -= config.len > 0;
    buf_printf(&config, ",\"quantization_config\":%s}", quantization);
    write_file(path, "config.json", &config);
    buf_fini(&config);
}

void folder_finish(struct folder_writer *w, const char *path)
{
    struct buf file = {0};
    buf_puts(&w->header, "}");
    for (int i = 0; i < 8; i++)
        buf_putc(&file, (char)((uint64_t)w->header.len >> (8 * i)));
    buf_append(&file, w->header.data, w->header.len);
    buf_append(&file, w->data.data, w->data.len);
    write_file(path, "model.safetensors", &file);
    buf_fini(&w->header);
    buf_fini(&w->data);
    buf_fini(&file);
}

void folder_remove(const char *path)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char file[512];
    if (unlink(path) == 0) /* a GGUF file */
        return;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        unlink(file);
    }
    rmdir(path);
}
