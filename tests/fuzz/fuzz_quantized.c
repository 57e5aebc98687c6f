/* link: baton_formats */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/weight_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLOATS_MAX (1u << 16)

/* All rows, then the last one by itself: the same floats. */
static void read_weight(const struct weight *w)
{
    if (!w->readable || !w->rows || !w->cols || w->rows > FLOATS_MAX / w->cols)
        return;
    float *all = malloc((size_t)(w->rows * w->cols) * sizeof *all);
    float *last = malloc((size_t)w->cols * sizeof *last);
    if (!all || !last)
        exit(2);
    weight_read_rows(w, 0, w->rows, all);
    weight_read_rows(w, w->rows - 1, w->rows, last);
    if (memcmp(all + (w->rows - 1) * w->cols, last, (size_t)w->cols * sizeof *last) != 0)
        abort();
    free(all);
    free(last);
}

/* Up to the first NUL a quantization_config; then a safetensors file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    if (!nul)
        return 0;
    size_t config_len = (size_t)(nul - data), len = size - config_len - 1;
    uint8_t *bytes = malloc(len + 1); /* exactly as long as it says, for the sanitizer */
    if (!bytes)
        exit(2);
    memcpy(bytes, nul + 1, len);
    struct weight_bytes in = {bytes, len, config_len ? (const char *)data : NULL, config_len};
    struct weight_source *s = NULL;
    struct error err = {0};
    if (weight_source_open_bytes(&in, &s, &err)) {
        if (!err.text[0])
            abort();
    } else {
        for (size_t i = 0; i < weight_source_count(s); i++) {
            const struct weight *w = weight_source_at(s, i);
            if (weight_source_find(s, w->name) != w)
                abort();
            read_weight(w);
        }
        weight_source_close(s);
    }
    free(bytes);
    return 0;
}
