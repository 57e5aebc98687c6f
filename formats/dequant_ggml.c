/* GGUF's block types. A block is a scale (or two, with a minimum) in half precision and packed
 * integers; super-blocks of 256 ("K") hold 8 or 16 groups whose scales are integers times a half.
 * Each function unpacks one block into its integers and the scales and minima of its groups, and
 * one place makes floats of those; the loops are over fixed counts, 32 where that can be, for the
 * compiler to vectorise. */
#include <string.h>

#include "formats/dequant.h"

#define BLOCK_MAX 256
#define GROUPS_MAX 16 /* in a block */

struct block_scales {
    float scale[GROUPS_MAX], min[GROUPS_MAX];
};
typedef void unpack_fn(const uint8_t *restrict block, uint8_t *restrict q, struct block_scales *s);

static float load_half(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return dequant_f16(h);
}

/* Halves of 16 bytes as 32 numbers: the low ones first. */
static void nibbles(const uint8_t *restrict q, uint8_t *restrict out)
{
    for (int i = 0; i < 16; i++) {
        out[i] = q[i] & 15;
        out[16 + i] = q[i] >> 4;
    }
}

/* The same, with a fifth bit for each from a word of 32. */
static void nibbles_high(const uint8_t *restrict q, const uint8_t *high, uint8_t *restrict out)
{
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    nibbles(q, out);
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)(out[i] | (bits >> i & 1) << 4);
}

static void half_scale(const uint8_t *b, struct block_scales *s)
{
    s->scale[0] = load_half(b);
}

static void half_scale_and_min(const uint8_t *b, struct block_scales *s)
{
    s->scale[0] = load_half(b);
    s->min[0] = load_half(b + 2);
}

static void q4_0(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    half_scale(b, s);
    nibbles(b + 2, q);
}

static void q4_1(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    half_scale_and_min(b, s);
    nibbles(b + 4, q);
}

static void q5_0(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    half_scale(b, s);
    nibbles_high(b + 6, b + 2, q);
}

static void q5_1(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    half_scale_and_min(b, s);
    nibbles_high(b + 8, b + 4, q);
}

/* Signed bytes: turning the sign bit over adds 128. */
static void q8_0(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    half_scale(b, s);
    for (int i = 0; i < 32; i++)
        q[i] = b[2 + i] ^ 0x80;
}

/* scales[16], qs[64], d, dmin: 16 groups of 16, each with a 4-bit scale and minimum. */
static void q2_k(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    float d = load_half(b + 80), dmin = load_half(b + 82);
    for (int g = 0; g < 16; g++) {
        s->scale[g] = d * (float)(b[g] & 15);
        s->min[g] = -(dmin * (float)(b[g] >> 4));
    }
    for (int part = 0; part < 8; part++, q += 32) {
        const uint8_t *from = b + 16 + part / 4 * 32;
        int shift = part % 4 * 2;
        for (int i = 0; i < 32; i++)
            q[i] = from[i] >> shift & 3;
    }
}

/* hmask[32], qs[64], scales[12], d: 16 groups of 16 with signed 6-bit scales, of which the low four
 * bits are in the first 8 bytes and the high two in the last 4. */
static void q3_k(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    const uint8_t *scales = b + 96;
    float d = load_half(b + 108);
    for (int g = 0; g < 16; g++) {
        int low4 = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
        int scale = low4 | (scales[8 + g % 4] >> (g / 4 * 2) & 3) << 4;
        s->scale[g] = d * (float)(scale - 32);
    }
    for (int part = 0; part < 8; part++, q += 32) {
        const uint8_t *from = b + 32 + part / 4 * 32;
        int shift = part % 4 * 2;
        for (int i = 0; i < 32; i++)
            q[i] = (uint8_t)((from[i] >> shift & 3) | (b[i] >> part & 1) << 2);
    }
}

/* d, dmin and 6-bit scales and minima of 8 groups in 12 bytes, as Q4_K and Q5_K begin. */
static void k_scales(const uint8_t *b, struct block_scales *s)
{
    const uint8_t *packed = b + 4;
    float d = load_half(b), dmin = load_half(b + 2);
    for (int i = 0; i < 4; i++) {
        s->scale[i] = d * (float)(packed[i] & 63);
        s->min[i] = -(dmin * (float)(packed[4 + i] & 63));
        s->scale[4 + i] = d * (float)((packed[8 + i] & 15) | (packed[i] >> 2 & 0x30));
        s->min[4 + i] = -(dmin * (float)(packed[8 + i] >> 4 | (packed[4 + i] >> 2 & 0x30)));
    }
}

static void q4_k(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    k_scales(b, s);
    for (int g = 0; g < 8; g++) {
        const uint8_t *from = b + 16 + g / 2 * 32;
        int shift = g % 2 * 4;
        for (int i = 0; i < 32; i++)
            q[32 * g + i] = from[i] >> shift & 15;
    }
}

static void q5_k(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    const uint8_t *high = b + 16;
    k_scales(b, s);
    for (int g = 0; g < 8; g++) {
        const uint8_t *from = b + 48 + g / 2 * 32;
        int shift = g % 2 * 4;
        for (int i = 0; i < 32; i++)
            q[32 * g + i] = (uint8_t)((from[i] >> shift & 15) | (high[i] >> g & 1) << 4);
    }
}

/* ql[128], qh[64], scales[16], d: 16 groups of 16 with 8-bit scales. */
static void q6_k(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    float d = load_half(b + 208);
    for (int g = 0; g < 16; g++)
        s->scale[g] = d * (float)(int8_t)b[192 + g];
    for (int i = 0; i < 8; i++, q += 32) {
        int half = i / 4, part = i % 4; /* quarters of a half: two low, two high nibbles */
        const uint8_t *ql = b + half * 64 + part % 2 * 32, *qh = b + 128 + half * 32;
        int low = part / 2 * 4, high = part * 2;
        for (int k = 0; k < 32; k++)
            q[k] = (uint8_t)((ql[k] >> low & 15) | (qh[k] >> high & 3) << 4);
    }
}

static void iq4_nl(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    half_scale(b, s);
    nibbles(b + 2, q);
}

/* d, scales_h (2 bits each), scales_l[4], qs[128]: 8 groups of 32. */
static void iq4_xs(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    float d = load_half(b);
    uint16_t high;
    memcpy(&high, b + 2, sizeof high);
    for (int g = 0; g < 8; g++) {
        int scale = (b[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (2 * g) & 3) << 4;
        s->scale[g] = d * (float)(scale - 32);
        nibbles(b + 8 + 16 * g, q + 32 * g);
    }
}

/* An e8m0 scale and values that are stored doubled, so the scale is halved. */
static void mxfp4(const uint8_t *restrict b, uint8_t *restrict q, struct block_scales *s)
{
    s->scale[0] = dequant_e8m0_half(b[0]);
    nibbles(b + 1, q);
}

/* The non-linear types' values, and e2m1's doubled; all more by 128. */
static const uint8_t iq4_table[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                      129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t mxfp4_table[16] = {128, 129, 130, 131, 132, 134, 136, 140,
                                        128, 127, 126, 125, 124, 122, 120, 116};

struct layout {
    unpack_fn *unpack;
    struct weight_ints ints;
};

static const struct layout layouts[GGML_TYPES] = {
    [GGML_Q4_0] = {q4_0, {.bits = 4, .group = 32, .zero = 8}},
    [GGML_Q4_1] = {q4_1, {.bits = 4, .group = 32, .has_min = true}},
    [GGML_Q5_0] = {q5_0, {.bits = 8, .group = 32, .zero = 16}},
    [GGML_Q5_1] = {q5_1, {.bits = 8, .group = 32, .has_min = true}},
    [GGML_Q8_0] = {q8_0, {.bits = 8, .group = 32, .zero = 128}},
    [GGML_Q2_K] = {q2_k, {.bits = 4, .group = 16, .has_min = true}},
    [GGML_Q3_K] = {q3_k, {.bits = 4, .group = 16, .zero = 4}},
    [GGML_Q4_K] = {q4_k, {.bits = 4, .group = 32, .has_min = true}},
    [GGML_Q5_K] = {q5_k, {.bits = 8, .group = 32, .has_min = true}},
    [GGML_Q6_K] = {q6_k, {.bits = 8, .group = 16, .zero = 32}},
    [GGML_IQ4_NL] = {iq4_nl, {.bits = 4, .group = 32, .zero = 128, .table = iq4_table}},
    [GGML_IQ4_XS] = {iq4_xs, {.bits = 4, .group = 32, .zero = 128, .table = iq4_table}},
    [GGML_MXFP4] = {mxfp4, {.bits = 4, .group = 32, .zero = 128, .table = mxfp4_table}},
};

static const struct layout *layout_of(enum ggml_type type)
{
    return (unsigned)type < GGML_TYPES && layouts[type].unpack ? &layouts[type] : NULL;
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
    return plain_of(type) != TENSOR_TYPES || layout_of(type);
}

/* One group. Its size stays a variable: a loop of 16 by a constant is unrolled, not vectorised.
 * Nothing is added where there is no min: that would lose a zero's sign. */
static void group_floats(const struct weight_ints *f, const uint8_t *restrict q, float scale,
                         const float *min, float *restrict out)
{
    int n = f->group, zero = f->zero;
    float values[16];
    if (f->table) {
        for (int i = 0; i < 16; i++)
            values[i] = scale * (float)(f->table[i] - zero);
        for (int i = 0; i < n; i++)
            out[i] = values[q[i]];
    } else if (min) {
        float m = *min;
        for (int i = 0; i < n; i++)
            out[i] = scale * (float)(q[i] - zero) + m;
    } else {
        for (int i = 0; i < n; i++)
            out[i] = scale * (float)(q[i] - zero);
    }
}

void dequant_ggml(enum ggml_type type, const void *blocks, size_t elements, float *out)
{
    const struct layout *l = layout_of(type);
    if (!l) {
        dequant_plain(plain_of(type), blocks, elements, out);
        return;
    }
    struct ggml_block shape = ggml_type_block(type);
    struct block_scales s;
    uint8_t q[BLOCK_MAX];
    unsigned group = (unsigned)l->ints.group, groups = shape.elements / group;
    const uint8_t *b = blocks;
    for (size_t i = 0; i < elements; i += shape.elements, b += shape.bytes) {
        l->unpack(b, q, &s);
        for (unsigned g = 0; g < groups; g++)
            group_floats(&l->ints, q + g * group, s.scale[g], l->ints.has_min ? &s.min[g] : NULL,
                         out + i + g * group);
    }
}

bool dequant_ggml_as_ints(enum ggml_type type, struct weight_ints *out)
{
    const struct layout *l = layout_of(type);
    if (l)
        *out = l->ints;
    return l;
}

void dequant_ggml_ints(enum ggml_type type, const void *blocks, size_t elements,
                       struct ints_out out)
{
    const struct layout *l = layout_of(type);
    struct ggml_block shape = ggml_type_block(type);
    struct block_scales s = {{0}, {0}};
    unsigned groups = shape.elements / (unsigned)l->ints.group;
    const uint8_t *b = blocks;
    for (size_t i = 0; i < elements; i += shape.elements, b += shape.bytes) {
        l->unpack(b, out.q + i, &s);
        memcpy(out.scale, s.scale, groups * sizeof *out.scale);
        out.scale += groups;
        if (!out.min)
            continue;
        memcpy(out.min, s.min, groups * sizeof *out.min);
        out.min += groups;
    }
}
