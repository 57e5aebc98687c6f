/* GGUF's block types. A block is a scale (or two, with a minimum) in half precision and packed
 * integers; super-blocks of 256 ("K") hold 8 or 16 groups whose scales are integers times a half.
 * Each function turns one block into floats; the loops are over fixed counts, for the compiler to
 * vectorise. */
#include <string.h>

#include "formats/dequant.h"

static float load_half(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return dequant_f16(h);
}

/* Halves of 16 bytes as 32 numbers: the low ones first. */
static void nibbles(const uint8_t *q, uint8_t out[32])
{
    for (int i = 0; i < 16; i++) {
        out[i] = q[i] & 15;
        out[16 + i] = q[i] >> 4;
    }
}

/* The same, with a fifth bit for each from a word of 32. */
static void nibbles_high(const uint8_t *q, const uint8_t *high, uint8_t out[32])
{
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    nibbles(q, out);
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)(out[i] | (bits >> i & 1) << 4);
}

static void q4_0(const uint8_t *b, float *out)
{
    uint8_t q[32];
    float d = load_half(b);
    nibbles(b + 2, q);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(q[i] - 8);
}

static void q4_1(const uint8_t *b, float *out)
{
    uint8_t q[32];
    float d = load_half(b), m = load_half(b + 2);
    nibbles(b + 4, q);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)q[i] + m;
}

static void q5_0(const uint8_t *b, float *out)
{
    uint8_t q[32];
    float d = load_half(b);
    nibbles_high(b + 6, b + 2, q);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(q[i] - 16);
}

static void q5_1(const uint8_t *b, float *out)
{
    uint8_t q[32];
    float d = load_half(b), m = load_half(b + 2);
    nibbles_high(b + 8, b + 4, q);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)q[i] + m;
}

static void q8_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 32; i++)
        out[i] = (float)(int8_t)b[2 + i] * d;
}

/* scales[16], qs[64], d, dmin: 16 groups of 16, each with a 4-bit scale and minimum. */
static void q2_k(const uint8_t *b, float *out)
{
    const uint8_t *qs = b + 16;
    float d = load_half(b + 80), dmin = load_half(b + 82);
    for (int g = 0; g < 16; g++) {
        float scale = d * (float)(b[g] & 15), min = dmin * (float)(b[g] >> 4);
        const uint8_t *q = qs + g / 8 * 32 + g % 2 * 16;
        int shift = g / 2 % 4 * 2;
        for (int i = 0; i < 16; i++)
            out[16 * g + i] = scale * (float)(q[i] >> shift & 3) - min;
    }
}

/* hmask[32], qs[64], scales[12], d: 16 groups of 16 with signed 6-bit scales, of which the low four
 * bits are in the first 8 bytes and the high two in the last 4. */
static void q3_k(const uint8_t *b, float *out)
{
    const uint8_t *high = b, *qs = b + 32, *scales = b + 96;
    float d = load_half(b + 108);
    for (int g = 0; g < 16; g++) {
        int low4 = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
        int scale = low4 | (scales[8 + g % 4] >> (g / 4 * 2) & 3) << 4;
        float dl = d * (float)(scale - 32);
        const uint8_t *q = qs + g / 8 * 32 + g % 2 * 16, *h = high + g % 2 * 16;
        int shift = g / 2 % 4 * 2, bit = g / 2;
        for (int i = 0; i < 16; i++)
            out[16 * g + i] = dl * (float)((q[i] >> shift & 3) - ((h[i] >> bit & 1) ? 0 : 4));
    }
}

/* 6-bit scales and minima of 8 groups in 12 bytes, as Q4_K and Q5_K have them. */
static void k_scales(const uint8_t *s, uint8_t scale[8], uint8_t min[8])
{
    for (int i = 0; i < 4; i++) {
        scale[i] = s[i] & 63;
        min[i] = s[4 + i] & 63;
        scale[4 + i] = (uint8_t)((s[8 + i] & 15) | (s[i] >> 2 & 0x30));
        min[4 + i] = (uint8_t)(s[8 + i] >> 4 | (s[4 + i] >> 2 & 0x30));
    }
}

static void q4_k(const uint8_t *b, float *out)
{
    uint8_t scale[8], min[8];
    float d = load_half(b), dmin = load_half(b + 2);
    k_scales(b + 4, scale, min);
    for (int g = 0; g < 8; g++) {
        float dl = d * (float)scale[g], ml = dmin * (float)min[g];
        const uint8_t *q = b + 16 + g / 2 * 32;
        int shift = g % 2 * 4;
        for (int i = 0; i < 32; i++)
            out[32 * g + i] = dl * (float)(q[i] >> shift & 15) - ml;
    }
}

static void q5_k(const uint8_t *b, float *out)
{
    uint8_t scale[8], min[8];
    float d = load_half(b), dmin = load_half(b + 2);
    const uint8_t *high = b + 16;
    k_scales(b + 4, scale, min);
    for (int g = 0; g < 8; g++) {
        float dl = d * (float)scale[g], ml = dmin * (float)min[g];
        const uint8_t *q = b + 48 + g / 2 * 32;
        int shift = g % 2 * 4;
        for (int i = 0; i < 32; i++)
            out[32 * g + i] = dl * (float)((q[i] >> shift & 15) | (high[i] >> g & 1) << 4) - ml;
    }
}

/* ql[128], qh[64], scales[16], d: 16 groups of 16 with 8-bit scales. */
static void q6_k(const uint8_t *b, float *out)
{
    const uint8_t *scales = b + 192;
    float d = load_half(b + 208);
    for (int g = 0; g < 16; g++) {
        float dl = d * (float)(int8_t)scales[g];
        int half = g / 8, part = g / 2 % 4; /* quarters of a half: two low, two high nibbles */
        const uint8_t *ql = b + half * 64 + part % 2 * 32 + g % 2 * 16;
        const uint8_t *qh = b + 128 + half * 32 + g % 2 * 16;
        int low = part / 2 * 4, high = part * 2;
        for (int i = 0; i < 16; i++)
            out[16 * g + i] = dl * (float)(((ql[i] >> low & 15) | (qh[i] >> high & 3) << 4) - 32);
    }
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

static void iq4_nl(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)iq4_values[b[2 + i] & 15];
        out[16 + i] = d * (float)iq4_values[b[2 + i] >> 4];
    }
}

/* d, scales_h (2 bits each), scales_l[4], qs[128]: 8 groups of 32. */
static void iq4_xs(const uint8_t *b, float *out)
{
    float d = load_half(b);
    uint16_t high;
    memcpy(&high, b + 2, sizeof high);
    for (int g = 0; g < 8; g++) {
        int scale = (b[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (2 * g) & 3) << 4;
        float dl = d * (float)(scale - 32);
        const uint8_t *q = b + 8 + 16 * g;
        for (int i = 0; i < 16; i++) {
            out[32 * g + i] = dl * (float)iq4_values[q[i] & 15];
            out[32 * g + 16 + i] = dl * (float)iq4_values[q[i] >> 4];
        }
    }
}

/* An e8m0 scale and values that are stored doubled, so the scale is halved. */
static void mxfp4(const uint8_t *b, float *out)
{
    static const int8_t doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    uint32_t bits = b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
    float d;
    memcpy(&d, &bits, sizeof d);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)doubled[b[1 + i] & 15];
        out[16 + i] = d * (float)doubled[b[1 + i] >> 4];
    }
}

typedef void block_fn(const uint8_t *block, float *out);

static block_fn *block_of(enum ggml_type type)
{
    switch (type) {
    case GGML_Q4_0:
        return q4_0;
    case GGML_Q4_1:
        return q4_1;
    case GGML_Q5_0:
        return q5_0;
    case GGML_Q5_1:
        return q5_1;
    case GGML_Q8_0:
        return q8_0;
    case GGML_Q2_K:
        return q2_k;
    case GGML_Q3_K:
        return q3_k;
    case GGML_Q4_K:
        return q4_k;
    case GGML_Q5_K:
        return q5_k;
    case GGML_Q6_K:
        return q6_k;
    case GGML_IQ4_NL:
        return iq4_nl;
    case GGML_IQ4_XS:
        return iq4_xs;
    case GGML_MXFP4:
        return mxfp4;
    default:
        return NULL;
    }
}

static enum tensor_type plain_of(enum ggml_type type)
{
    switch (type) {
    case GGML_F32:
        return TENSOR_F32;
    case GGML_F16:
        return TENSOR_F16;
    case GGML_BF16:
        return TENSOR_BF16;
    case GGML_F64:
        return TENSOR_F64;
    default:
        return TENSOR_TYPES;
    }
}

bool dequant_ggml_known(enum ggml_type type)
{
    return plain_of(type) != TENSOR_TYPES || block_of(type);
}

void dequant_ggml(enum ggml_type type, const void *blocks, size_t elements, float *out)
{
    block_fn *fn = block_of(type);
    if (!fn) {
        dequant_plain(plain_of(type), blocks, elements, out);
        return;
    }
    struct ggml_block shape = ggml_type_block(type);
    const uint8_t *b = blocks;
    for (size_t i = 0; i < elements; i += shape.elements, b += shape.bytes)
        fn(b, out + i);
}
