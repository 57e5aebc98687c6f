/* link: baton_formats */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/dequant.h"
#include "formats/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sum;

static void touch(const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)p)[i]);
}

static void read_value(const struct gguf *g, const struct gguf_value *v)
{
    if (gguf_find(g, v->key) != v)
        abort();
    for (uint64_t i = 0; i < v->count && i < 5000; i++) {
        struct gguf_str s = gguf_item_string(v, i);
        touch(s.s, s.len);
        sum = (uint8_t)(sum + (uint8_t)gguf_item_int(v, i, 0) + gguf_item_bool(v, i, false) +
                        (gguf_item_number(v, i, 0) > 0));
    }
    if (gguf_item_string(v, v->count).s || gguf_item_int(v, v->count, 7) != 7)
        abort();
}

/* What is accepted must be readable to its last byte, and be what the lookups find. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct error err = {0};
    if (gguf_open_bytes("fuzz", data, size, &g, &err)) {
        if (!err.text[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < gguf_key_count(g); i++)
        read_value(g, gguf_key_at(g, i));
    uint64_t bytes = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        touch(t->data, t->bytes);
        bytes += t->bytes;
        if (gguf_find_tensor(g, t->name) != t)
            abort();
        if (!dequant_ggml_known(t->type) || t->elements > 1 << 16)
            continue;
        float *out = malloc(((size_t)t->elements + 1) * sizeof *out);
        if (out)
            dequant_ggml(t->type, t->data, (size_t)t->elements, out);
        free(out);
    }
    if (bytes != gguf_data_bytes(g) || bytes > size)
        abort();
    gguf_close(g);
    return 0;
}
