/* link: baton_formats */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/weight_ints.h"
#include "formats/weight_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLOATS_MAX (1u << 16)

static void *take(uint64_t n, size_t size)
{
    void *p = malloc((size_t)n * size); /* exactly as long as it is, for the sanitizer */
    if (!p)
        exit(2);
    return p;
}

/* As integers, row by row: in range, and without minima the same floats. */
static void read_ints(const struct weight *w, const float *want)
{
    struct weight_ints f;
    if (!weight_as_ints(w, &f))
        return;
    if ((f.bits != 4 && f.bits != 8) || f.group < 1 || (uint64_t)f.group > w->cols)
        abort();
    uint64_t group = (uint64_t)f.group, groups = (w->cols + group - 1) / group;
    uint8_t *q = take(w->cols, 1);
    int32_t *order = take(w->cols, sizeof *order);
    uint64_t *of = take(w->cols, sizeof *of);
    for (uint64_t i = 0; i < w->cols; i++)
        order[i] = (int32_t)i;
    if (f.has_order)
        weight_read_order(w, order);
    for (uint64_t i = 0; i < w->cols; i++)
        of[order[i]] = i / group;
    float *scale = take(groups, sizeof *scale), *min = take(groups, sizeof *min);
    for (uint64_t r = 0; r < w->rows; r++, want += w->cols) {
        weight_read_ints(w, r, r + 1, q, scale, f.has_min ? min : NULL);
        for (uint64_t i = 0; i < w->cols; i++) {
            if (q[i] >= 1 << f.bits)
                abort();
            float got = scale[of[i]] * (float)((f.table ? f.table[q[i]] : q[i]) - f.zero);
            if (!f.has_min && got != want[i] && (got == got || want[i] == want[i]))
                abort();
        }
    }
    free(order);
    free(of);
    free(q);
    free(scale);
    free(min);
}

/* All rows, then the last one by itself: the same floats. */
static void read_weight(const struct weight *w)
{
    if (!w->readable || !w->rows || !w->cols || w->rows > FLOATS_MAX / w->cols)
        return;
    float *all = take(w->rows * w->cols, sizeof *all), *last = take(w->cols, sizeof *last);
    weight_read_rows(w, 0, w->rows, all);
    weight_read_rows(w, w->rows - 1, w->rows, last);
    if (memcmp(all + (w->rows - 1) * w->cols, last, (size_t)w->cols * sizeof *last) != 0)
        abort();
    read_ints(w, all);
    free(all);
    free(last);
}

/* Up to the first NUL a quantization_config; then a safetensors or GGUF file. */
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
