/* Types whose elements stand alone: floats of 8 to 64 bits, bytes, and gpt-oss's MXFP4. */
#include "formats/dequant.h"

#include <math.h>
#include <string.h>

static inline float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Without branches, and without a subnormal in between that a flush-to-zero mode would lose: a
 * subnormal half is put behind the exponent of 2^-14 and that is subtracted. */
static inline float half(uint16_t h)
{
    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, exponent = magnitude & 0x0f800000;
    uint32_t normal = magnitude + (112u << 23);
    normal += exponent == 0x0f800000 ? 112u << 23 : 0;
    float subnormal = from_bits(normal + (1u << 23)) - from_bits(113u << 23);
    uint32_t bits, mask = 0u - (uint32_t)(exponent == 0);
    memcpy(&bits, &subnormal, sizeof bits);
    return from_bits((bits & mask) | (normal & ~mask) | (uint32_t)(h & 0x8000) << 16);
}

float dequant_f16(uint16_t bits)
{
    return half(bits);
}

static void from_f16(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        out[i] = half(h);
    }
}

static void from_bf16(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        out[i] = from_bits((uint32_t)h << 16);
    }
}

static void from_f64(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, p + 8 * i, sizeof d);
        out[i] = (float)d;
    }
}

struct fp8 {
    int exponent_bits, bias;
    bool infinity; /* the highest exponent holds infinity and NaN, as IEEE has it */
    bool fnuz;     /* no negative zero: its place is the only NaN */
};

/* Of the exponents that 8 bits have: none is subnormal in a float. */
static inline float power_of_two(int exponent)
{
    return from_bits((uint32_t)(127 + exponent) << 23);
}

static float fp8_value(const struct fp8 *f, unsigned byte)
{
    int mantissa_bits = 7 - f->exponent_bits;
    unsigned magnitude = byte & 0x7f, mantissa = magnitude & ((1u << mantissa_bits) - 1);
    int exponent = (int)(magnitude >> mantissa_bits);
    float sign = byte & 0x80 ? -1.0f : 1.0f;
    if (f->fnuz && byte == 0x80)
        return NAN;
    if (f->infinity && exponent == (1 << f->exponent_bits) - 1)
        return mantissa ? NAN : sign * INFINITY;
    if (!f->infinity && !f->fnuz && magnitude == 0x7f)
        return NAN;
    float fraction = (float)mantissa / (float)(1 << mantissa_bits);
    if (exponent == 0)
        return sign * fraction * power_of_two(1 - f->bias);
    return sign * (1.0f + fraction) * power_of_two(exponent - f->bias);
}

/* A table of 256 made on the stack costs less than one row. */
static void from_fp8(const struct fp8 *f, const uint8_t *p, size_t n, float *out)
{
    float table[256];
    if (n < 256) {
        for (size_t i = 0; i < n; i++)
            out[i] = fp8_value(f, p[i]);
        return;
    }
    for (unsigned i = 0; i < 256; i++)
        table[i] = fp8_value(f, i);
    for (size_t i = 0; i < n; i++)
        out[i] = table[p[i]];
}

/* 2^(e-127); 255 is NaN. The least, 2^-127, is subnormal. */
static float e8m0(uint8_t e)
{
    if (e == 255)
        return NAN;
    return from_bits(e ? (uint32_t)e << 23 : 0x00400000u);
}

bool dequant_plain_known(enum tensor_type type)
{
    switch (type) {
    case TENSOR_F64:
    case TENSOR_F32:
    case TENSOR_F16:
    case TENSOR_BF16:
    case TENSOR_F8_E4M3:
    case TENSOR_F8_E5M2:
    case TENSOR_F8_E4M3FNUZ:
    case TENSOR_F8_E5M2FNUZ:
    case TENSOR_F8_E8M0:
    case TENSOR_I8:
    case TENSOR_U8:
        return true;
    default:
        return false;
    }
}

void dequant_plain(enum tensor_type type, const void *data, size_t n, float *out)
{
    static const struct fp8 e4m3 = {4, 7, false, false}, e5m2 = {5, 15, true, false};
    static const struct fp8 e4m3_fnuz = {4, 8, false, true}, e5m2_fnuz = {5, 16, false, true};
    const uint8_t *p = data;
    switch (type) {
    case TENSOR_F64:
        from_f64(p, n, out);
        break;
    case TENSOR_F32:
        memcpy(out, p, n * sizeof *out);
        break;
    case TENSOR_F16:
        from_f16(p, n, out);
        break;
    case TENSOR_BF16:
        from_bf16(p, n, out);
        break;
    case TENSOR_F8_E4M3:
        from_fp8(&e4m3, p, n, out);
        break;
    case TENSOR_F8_E5M2:
        from_fp8(&e5m2, p, n, out);
        break;
    case TENSOR_F8_E4M3FNUZ:
        from_fp8(&e4m3_fnuz, p, n, out);
        break;
    case TENSOR_F8_E5M2FNUZ:
        from_fp8(&e5m2_fnuz, p, n, out);
        break;
    case TENSOR_F8_E8M0:
        for (size_t i = 0; i < n; i++)
            out[i] = e8m0(p[i]);
        break;
    case TENSOR_I8:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)(int8_t)p[i];
        break;
    case TENSOR_U8:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)p[i];
        break;
    default:
        memset(out, 0, n * sizeof *out);
        break;
    }
}

float dequant_e8m0_half(uint8_t e)
{
    return from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* Halves of 16 bytes as 32 numbers, pair by pair. */
static void pairs(const uint8_t *restrict block, uint8_t *restrict q)
{
    for (int i = 0; i < 16; i++) {
        q[2 * i] = block[i] & 15;
        q[2 * i + 1] = block[i] >> 4;
    }
}

void dequant_mxfp4_pairs(const uint8_t *blocks, const uint8_t *scales, size_t groups, float *out)
{
    static const float values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                     -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    uint8_t q[32];
    for (size_t g = 0; g < groups; g++, blocks += 16, out += 32) {
        float scale = e8m0(scales[g]);
        pairs(blocks, q);
        for (int i = 0; i < 32; i++)
            out[i] = values[q[i]] * scale;
    }
}

void dequant_mxfp4_pair_ints(const uint8_t *blocks, const uint8_t *scales, size_t groups,
                             struct ints_out out)
{
    for (size_t g = 0; g < groups; g++) {
        pairs(blocks + 16 * g, out.q + 32 * g);
        out.scale[g] = scales[g] == 255 ? NAN : dequant_e8m0_half(scales[g]);
        if (out.min)
            out.min[g] = 0;
    }
}
