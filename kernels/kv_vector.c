#include "kernels/kv_vector.h"

#define MAGIC_INT 0x1.8p23f /* v + this has the nearest integer of a small v in its lowest bits */

bool kv_dtype_parse(const char *name, enum dtype *d)
{
    for (enum dtype q = DTYPE_COUNT; q < DTYPE_KV_COUNT; q++)
        if (strcmp(name, dtype_name(q)) == 0) {
            *d = q;
            return true;
        }
    return dtype_parse(name, d);
}

static inline int32_t bits_of(float v)
{
    int32_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}

static inline float float_of(int32_t b)
{
    float v;
    memcpy(&v, &b, sizeof v);
    return v;
}

/* Stores the scale of n elements whose largest is to become `top`, and returns what to multiply
 * them with. Magnitudes are compared as integers, where a NaN is larger than infinity. */
static float put_scale(char *scale, const float *x, size_t n, float top)
{
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t b = bits_of(x[i]) & 0x7fffffff;
        most = b > most ? b : most;
    }
    bool none = most >= 0x7f800000, zero = float_of(most) < KV_VECTOR_LEAST;
    uint16_t s = none ? 0x7fc0 : 0;
    if (!none && !zero)
        s = (uint16_t)((bits_of(float_of(most) / top) + 0xffff) >> 16);
    memcpy(scale, &s, sizeof s);
    return none || zero ? 0 : 1 / dtype_bf16_to_f32(s);
}

/* What is multiplied with 0 may be infinite or NaN: those elements become 0 too. */
static inline float scaled(float x, float by)
{
    return by == 0 ? 0 : x * by;
}

static inline int32_t to_integer(float v)
{
    return bits_of(v + MAGIC_INT) - bits_of(MAGIC_INT);
}

/* |v| of at most 448 and a little */
static inline uint8_t to_fp8(float v)
{
    int32_t a = bits_of(v) & 0x7fffffff;
    int32_t small = bits_of(float_of(a) + 0x1p14f) - bits_of(0x1p14f); /* in steps of 2^-9 */
    int32_t b = a - (120 << 23);
    b = (b + 0x7ffff + (b >> 20 & 1)) >> 20;
    b = float_of(a) < 0x1p-6f ? small : b > 0x7e ? 0x7e : b;
    return (uint8_t)(b | (v < 0 ? 0x80 : 0));
}

static inline float from_fp8(uint8_t b)
{
    uint32_t wide = (uint32_t)(b & 0x7f) << 20 | (uint32_t)(b & 0x80) << 24;
    return float_of((int32_t)wide) * 0x1p120f;
}

static void narrow_int4(uint8_t *to, const float *x, size_t n, float by)
{
    for (size_t i = 0; i < n; i += 2) {
        int32_t low = to_integer(scaled(x[i], by)) + 8;
        int32_t high = i + 1 < n ? to_integer(scaled(x[i + 1], by)) + 8 : 8;
        to[i / 2] = (uint8_t)(low | high << 4);
    }
}

/* Elements [at, at + n) of a quantized vector; `at` begins a group. */
static void narrow_groups(char *vector, const struct kv_conversion *c, const float *x, size_t at,
                          size_t n)
{
    const enum dtype d = c->to;
    const size_t group = kv_group(d);
    const float top = d == DTYPE_FP8 ? 448 : d == DTYPE_INT8 ? 127 : 7;
    char *scales = vector + kv_scales_at(d, c->dim);
    for (size_t g = 0; g < n; g += group) {
        size_t m = n - g < group ? n - g : group;
        float by = put_scale(scales + 2 * ((at + g) / group), x + g, m, top);
        uint8_t *to = (uint8_t *)vector + kv_scales_at(d, at + g);
        if (d == DTYPE_INT4)
            narrow_int4(to, x + g, m, by);
        else if (d == DTYPE_INT8)
            for (size_t i = 0; i < m; i++)
                to[i] = (uint8_t)to_integer(scaled(x[g + i], by));
        else
            for (size_t i = 0; i < m; i++)
                to[i] = to_fp8(scaled(x[g + i], by));
    }
}

static void widen_groups(float *out, const char *vector, const struct kv_conversion *c, size_t at,
                         size_t n)
{
    const enum dtype d = c->from;
    const size_t group = kv_group(d);
    const char *scales = vector + kv_scales_at(d, c->dim);
    for (size_t g = 0; g < n; g += group) {
        size_t m = n - g < group ? n - g : group;
        const float scale = kv_vector_scale(scales, (at + g) / group);
        const uint8_t *from = (const uint8_t *)vector + kv_scales_at(d, at + g);
        if (d == DTYPE_INT4)
            for (size_t i = 0; i < m; i++)
                out[g + i] = (float)((from[i / 2] >> i % 2 * 4 & 15) - 8) * scale;
        else if (d == DTYPE_INT8)
            for (size_t i = 0; i < m; i++)
                out[g + i] = (float)(int8_t)from[i] * scale;
        else
            for (size_t i = 0; i < m; i++)
                out[g + i] = from_fp8(from[i]) * scale;
    }
}

/* A whole number of groups of either type at a time. */
static void convert(const struct kv_conversion *c, char *dst, const char *src)
{
    float part[KV_GROUP_8];
    for (size_t at = 0; at < c->dim; at += KV_GROUP_8) {
        size_t n = c->dim - at < KV_GROUP_8 ? c->dim - at : KV_GROUP_8;
        if (kv_is_quantized(c->from))
            widen_groups(part, src, c, at, n);
        else
            dtype_convert(part, DTYPE_F32, src + kv_vector_bytes(c->from, at), c->from, n);
        if (kv_is_quantized(c->to))
            narrow_groups(dst, c, part, at, n);
        else
            dtype_convert(dst + kv_vector_bytes(c->to, at), c->to, part, DTYPE_F32, n);
    }
}

void kv_vectors_convert(const struct kv_conversion *c, void *dst, const void *src, size_t n)
{
    const size_t to = kv_vector_bytes(c->to, c->dim), from = kv_vector_bytes(c->from, c->dim);
    if (n == 0 || c->dim == 0)
        return;
    if (c->to == c->from)
        memcpy(dst, src, n * from);
    else if (!kv_is_quantized(c->to) && !kv_is_quantized(c->from))
        dtype_convert(dst, c->to, src, c->from, n * c->dim);
    else
        for (size_t i = 0; i < n; i++)
            convert(c, (char *)dst + i * to, (const char *)src + i * from);
}

void kv_vector_narrow(void *vector, enum dtype d, const float *x, size_t dim)
{
    kv_vectors_convert(&(struct kv_conversion){d, DTYPE_F32, dim}, vector, x, 1);
}

void kv_vector_widen(float *out, const void *vector, enum dtype d, size_t dim)
{
    kv_vectors_convert(&(struct kv_conversion){DTYPE_F32, d, dim}, out, vector, 1);
}
