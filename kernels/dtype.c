#include "kernels/dtype.h"

#include <assert.h>
#include <string.h>

#include "kernels/float_bits.h"

static const char *const names[DTYPE_KV_COUNT] = {
    [DTYPE_F32] = "fp32", [DTYPE_BF16] = "bf16", [DTYPE_F16] = "fp16",
    [DTYPE_FP8] = "fp8",  [DTYPE_INT8] = "int8", [DTYPE_INT4] = "int4",
};

static const struct {
    const char *name;
    enum dtype dtype;
} aliases[] = {
    {"fp32", DTYPE_F32},    {"float32", DTYPE_F32},   {"F32", DTYPE_F32},   {"float", DTYPE_F32},
    {"bf16", DTYPE_BF16},   {"bfloat16", DTYPE_BF16}, {"BF16", DTYPE_BF16}, {"fp16", DTYPE_F16},
    {"float16", DTYPE_F16}, {"F16", DTYPE_F16},       {"half", DTYPE_F16},
};

size_t dtype_bytes(enum dtype d)
{
    assert(d < DTYPE_COUNT);
    return d == DTYPE_F32 ? 4 : 2;
}

const char *dtype_name(enum dtype d)
{
    return names[d];
}

bool dtype_parse(const char *name, enum dtype *d)
{
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcmp(name, aliases[i].name) == 0) {
            *d = aliases[i].dtype;
            return true;
        }
    return false;
}

float dtype_bf16_to_f32(uint16_t v)
{
    return float_of_bits((uint32_t)v << 16);
}

uint16_t dtype_f32_to_bf16(float v)
{
    uint32_t b = float_bits(v);
    uint32_t rounded = b + 0x7fff + (b >> 16 & 1); /* ties to even; overflow carries into inf */
    uint32_t quiet = b | 0x400000;                 /* a NaN must not round to inf */
    return (uint16_t)(((b & 0x7fffffff) > 0x7f800000 ? quiet : rounded) >> 16);
}

float dtype_f16_to_f32(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000) << 16;
    uint32_t exponent = v >> 10 & 0x1f, mantissa = v & 0x3ff;
    if (exponent == 0x1f) /* a signalling NaN turns quiet, as the hardware does it */
        return float_of_bits(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent == 0) { /* mantissa * 2^-24 is exact */
        float magnitude = (float)mantissa * 0x1p-24f;
        return float_of_bits(sign | float_bits(magnitude));
    }
    return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t dtype_f32_to_f16(float v)
{
    uint32_t b = float_bits(v);
    uint16_t sign = (uint16_t)(b >> 16 & 0x8000);
    uint32_t a = b & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520 and above rounds to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* below 2^-14: adding 0.5 aligns the mantissa at 2^-24 and rounds */
        uint32_t aligned = float_bits(float_of_bits(a) + 0.5f);
        return (uint16_t)(sign | (aligned - 0x3f000000));
    }
    a -= 112u << 23;
    a += 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | a >> 13);
}

#define INLINE static inline __attribute__((always_inline))

/* Elements may be unaligned, hence memcpy. */
INLINE float load_element(const char *src, enum dtype type, size_t i)
{
    uint16_t half;
    float full;
    if (type == DTYPE_F32) {
        memcpy(&full, src + 4 * i, sizeof full);
        return full;
    }
    memcpy(&half, src + 2 * i, sizeof half);
    return type == DTYPE_BF16 ? dtype_bf16_to_f32(half) : dtype_f16_to_f32(half);
}

INLINE void store_element(char *dst, enum dtype type, size_t i, float v)
{
    if (type == DTYPE_F32) {
        memcpy(dst + 4 * i, &v, sizeof v);
        return;
    }
    uint16_t half = type == DTYPE_BF16 ? dtype_f32_to_bf16(v) : dtype_f32_to_f16(v);
    memcpy(dst + 2 * i, &half, sizeof half);
}

/* One loop per pair of types, which the compiler can turn into vector code. */
#define CONVERT(name, to, from)                                                                    \
    static void name(char *restrict dst, const char *restrict src, size_t n)                       \
    {                                                                                              \
        for (size_t i = 0; i < n; i++)                                                             \
            store_element(dst, to, i, load_element(src, from, i));                                 \
    }

CONVERT(f32_from_bf16, DTYPE_F32, DTYPE_BF16)
CONVERT(f32_from_f16, DTYPE_F32, DTYPE_F16)
CONVERT(bf16_from_f32, DTYPE_BF16, DTYPE_F32)
CONVERT(bf16_from_f16, DTYPE_BF16, DTYPE_F16)
CONVERT(f16_from_f32, DTYPE_F16, DTYPE_F32)
CONVERT(f16_from_bf16, DTYPE_F16, DTYPE_BF16)

static void (*const converts[DTYPE_COUNT][DTYPE_COUNT])(char *restrict, const char *restrict,
                                                        size_t) = {
    [DTYPE_F32] = {[DTYPE_BF16] = f32_from_bf16, [DTYPE_F16] = f32_from_f16},
    [DTYPE_BF16] = {[DTYPE_F32] = bf16_from_f32, [DTYPE_F16] = bf16_from_f16},
    [DTYPE_F16] = {[DTYPE_F32] = f16_from_f32, [DTYPE_BF16] = f16_from_bf16},
};

void dtype_convert(void *dst, enum dtype dst_type, const void *src, enum dtype src_type, size_t n)
{
    if (n == 0)
        return;
    if (dst_type == src_type)
        memmove(dst, src, n * dtype_bytes(src_type));
    else
        converts[dst_type][src_type](dst, src, n);
}
