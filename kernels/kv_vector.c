#include "kernels/kv_vector.h"

#include "kernels/float_bits.h"

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

/* Magnitudes and differences of bits are small: signed, so that vectors compare them. */
static inline int32_t bits_of(float v)
{
    return (int32_t)float_bits(v);
}

static void put_bf16(char *at, int32_t bits)
{
    uint16_t half = (uint16_t)((uint32_t)bits >> 16);
    memcpy(at, &half, sizeof half);
}

/* Magnitudes are compared as integers, where a NaN is larger than infinity. */
static float largest_magnitude(const float *x, size_t n)
{
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t b = bits_of(x[i]) & 0x7fffffff;
        most = b > most ? b : most;
    }
    return float_of_bits((uint32_t)most);
}

/* A group that is zeros or none is stored at once: true. */
static bool put_nothing(char *codes, char *scale, enum dtype d, size_t n, float most)
{
    if (most >= KV_VECTOR_LEAST && most < KV_VECTOR_MOST)
        return false;
    memset(codes, 0, kv_codes_bytes(d, n));
    put_bf16(scale, most < KV_VECTOR_LEAST ? 0 : 0x7fc00000);
    if (d == DTYPE_INT4)
        put_bf16(scale + 2, 0);
    return true;
}

/* Stores a scale, rounded up, and returns what to multiply with. */
static float put_scale(char *at, float scale)
{
    put_bf16(at, bits_of(scale) + 0xffff);
    return 1 / kv_load_bf16(at);
}

static inline int32_t to_integer(float v)
{
    return bits_of(v + MAGIC_INT) - bits_of(MAGIC_INT);
}

/* |v| of at most 448 and a little */
static inline uint8_t to_fp8(float v)
{
    int32_t a = bits_of(v) & 0x7fffffff;
    int32_t small =
        bits_of(float_of_bits((uint32_t)a) + 0x1p14f) - bits_of(0x1p14f); /* in steps of 2^-9 */
    int32_t b = a - (120 << 23);
    b = (b + 0x7ffff + (b >> 20 & 1)) >> 20;
    b = float_of_bits((uint32_t)a) < 0x1p-6f ? small : b > 0x7e ? 0x7e : b;
    return (uint8_t)(b | (v < 0 ? 0x80 : 0));
}

static inline float from_fp8(uint8_t b)
{
    uint32_t wide = (uint32_t)(b & 0x7f) << 20 | (uint32_t)(b & 0x80) << 24;
    return float_of_bits(wide) * 0x1p120f;
}

static void narrow_int4(char *codes, char *scale, const float *x, size_t n)
{
    float low = x[0], high = x[0];
    for (size_t i = 1; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    low = low == 0 ? 0 : low; /* of -0 and 0 either may be met first */
    put_bf16(scale + 2, bits_of(low) + (low < 0 ? 0xffff : 0));
    low = kv_load_bf16(scale + 2);
    bool flat = high - low < KV_VECTOR_LEAST;
    float by = put_scale(scale, flat ? 0 : (high - low) / 15);
    for (size_t i = 0; i < n; i += 2) {
        int32_t first = flat ? 0 : to_integer((x[i] - low) * by);
        int32_t second = flat || i + 1 == n ? 0 : to_integer((x[i + 1] - low) * by);
        codes[i / 2] = (char)(first | second << 4);
    }
}

static void narrow_bytes(char *codes, char *scale, enum dtype d, const float *x, size_t n)
{
    float most = largest_magnitude(x, n),
          by = put_scale(scale, most / (d == DTYPE_FP8 ? 448 : 127));
    if (d == DTYPE_FP8)
        for (size_t i = 0; i < n; i++)
            codes[i] = (char)to_fp8(x[i] * by);
    else
        for (size_t i = 0; i < n; i++)
            codes[i] = (char)to_integer(x[i] * by);
}

/* Elements [at, at + n) of a quantized vector; `at` begins a group. */
static void narrow_groups(char *vector, const struct kv_conversion *c, const float *x, size_t at,
                          size_t n)
{
    const enum dtype d = c->to;
    for (size_t g = 0, m; g < n; g += m) {
        char *codes = vector + kv_codes_bytes(d, at + g);
        char *scale = vector + kv_scale_at(d, c->dim, at + g);
        m = n - g < kv_group(d) ? n - g : kv_group(d);
        if (put_nothing(codes, scale, d, m, largest_magnitude(x + g, m)))
            continue;
        if (d == DTYPE_INT4)
            narrow_int4(codes, scale, x + g, m);
        else
            narrow_bytes(codes, scale, d, x + g, m);
    }
}

static void widen_groups(float *out, const char *vector, const struct kv_conversion *c, size_t at,
                         size_t n)
{
    const enum dtype d = c->from;
    for (size_t g = 0, m; g < n; g += m) {
        const char *codes = vector + kv_codes_bytes(d, at + g);
        const char *scale_at = vector + kv_scale_at(d, c->dim, at + g);
        const float scale = kv_load_bf16(scale_at);
        m = n - g < kv_group(d) ? n - g : kv_group(d);
        if (d == DTYPE_INT4) {
            const float least = kv_load_bf16(scale_at + 2);
            for (size_t i = 0; i < m; i++)
                out[g + i] = (float)((uint8_t)codes[i / 2] >> i % 2 * 4 & 15) * scale + least;
        } else if (d == DTYPE_INT8) {
            for (size_t i = 0; i < m; i++)
                out[g + i] = (float)(int8_t)codes[i] * scale;
        } else {
            for (size_t i = 0; i < m; i++)
                out[g + i] = from_fp8((uint8_t)codes[i]) * scale;
        }
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
