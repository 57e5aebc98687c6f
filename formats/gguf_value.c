/* Reading the values of a GGUF file's metadata; all lengths were checked when it was opened. */
#include <string.h>

#include "formats/gguf_file.h"

static const uint8_t *item_at(const struct gguf_value *v, uint64_t i, unsigned bytes)
{
    return v->data + i * bytes;
}

int64_t gguf_item_int(const struct gguf_value *v, uint64_t i, int64_t fallback)
{
    if (!v || i >= v->count)
        return fallback;
    uint64_t big;
    switch (v->item) {
    case GGUF_U8:
        return *item_at(v, i, 1);
    case GGUF_I8:
        return (int8_t)*item_at(v, i, 1);
    case GGUF_U16:
        return (int64_t)gguf_load(item_at(v, i, 2), 2);
    case GGUF_I16:
        return (int16_t)gguf_load(item_at(v, i, 2), 2);
    case GGUF_U32:
        return (int64_t)gguf_load(item_at(v, i, 4), 4);
    case GGUF_I32:
        return (int32_t)gguf_load(item_at(v, i, 4), 4);
    case GGUF_U64:
        big = gguf_load(item_at(v, i, 8), 8);
        return big <= INT64_MAX ? (int64_t)big : fallback;
    case GGUF_I64:
        return (int64_t)gguf_load(item_at(v, i, 8), 8);
    default:
        return fallback;
    }
}

double gguf_item_number(const struct gguf_value *v, uint64_t i, double fallback)
{
    if (!v || i >= v->count)
        return fallback;
    if (v->item == GGUF_F32) {
        uint32_t bits = (uint32_t)gguf_load(item_at(v, i, 4), 4);
        float x;
        memcpy(&x, &bits, sizeof x);
        return (double)x;
    }
    if (v->item == GGUF_F64) {
        uint64_t bits = gguf_load(item_at(v, i, 8), 8);
        double x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }
    int64_t n = gguf_item_int(v, i, INT64_MIN);
    return n == INT64_MIN ? fallback : (double)n;
}

bool gguf_item_bool(const struct gguf_value *v, uint64_t i, bool fallback)
{
    return v && i < v->count && v->item == GGUF_BOOL ? v->data[i] == 1 : fallback;
}

struct gguf_str gguf_item_string(const struct gguf_value *v, uint64_t i)
{
    if (!v || i >= v->count || v->item != GGUF_STRING)
        return (struct gguf_str){NULL, 0};
    uint64_t begin = v->offsets[i], next = v->offsets[i + 1] - v->length_bytes;
    return (struct gguf_str){(const char *)v->data + begin, (size_t)(next - begin)};
}

static const struct gguf_value *scalar(const struct gguf *g, const char *key)
{
    const struct gguf_value *v = gguf_find(g, key);
    return v && v->type != GGUF_ARRAY ? v : NULL;
}

int64_t gguf_int(const struct gguf *g, const char *key, int64_t fallback)
{
    return gguf_item_int(scalar(g, key), 0, fallback);
}

double gguf_number(const struct gguf *g, const char *key, double fallback)
{
    return gguf_item_number(scalar(g, key), 0, fallback);
}

bool gguf_bool(const struct gguf *g, const char *key, bool fallback)
{
    return gguf_item_bool(scalar(g, key), 0, fallback);
}

struct gguf_str gguf_string(const struct gguf *g, const char *key)
{
    return gguf_item_string(scalar(g, key), 0);
}
