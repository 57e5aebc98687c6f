/* Rows of floats out of quantized weights. Everything was checked when the weights were bound: no
 * index here can leave its tensor. */
#include <string.h>

#include "formats/dequant.h"
#include "formats/quantized.h"

#define TILE 16 /* rows made at once where they are columns of what is stored */

static uint32_t load_u32(const void *base, uint64_t i)
{
    uint32_t v;
    memcpy(&v, (const uint8_t *)base + 4 * i, sizeof v);
    return v;
}

/* One element of a tensor of scales or zeros. */
static float load_one(const struct tensor *t, uint64_t i)
{
    float v;
    dequant_plain(t->type, (const uint8_t *)t->data + i * (tensor_type_bits(t->type) / 8), 1, &v);
    return v;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Place of a row's first scale: grids of several matrices lie one behind the other. */
static uint64_t scale_row(const struct weight_parts *p, uint64_t row)
{
    uint64_t matrix = row / p->matrix_rows, inside = row % p->matrix_rows;
    return (matrix * p->scale_rows + inside / p->row_block) * p->scale_cols;
}

/* A value's group where columns were reordered by activation; else its place divided. */
static uint64_t group_of(const struct weight_parts *p, uint64_t col)
{
    return p->order ? load_u32(p->order->data, col) : col / p->col_block;
}

static float zero_at(const struct weight_parts *p, uint64_t row, uint64_t group)
{
    if (!p->zero)
        return 0;
    if (!p->zero_packed)
        return load_one(p->zero, row * p->scale_cols + group);
    uint64_t per_word = 32 / p->bits,
             bit = p->dense ? row * p->bits : row / per_word * 32 + row % per_word * p->bits;
    uint64_t words = load_u32(p->zero->data, bit / 32 * p->scale_cols + group);
    if (bit % 32 + p->bits > 32)
        words |= (uint64_t)load_u32(p->zero->data, (bit / 32 + 1) * p->scale_cols + group) << 32;
    return (float)((int)(words >> bit % 32 & ((1u << p->bits) - 1)) - (1 << (p->bits - 1)));
}

/* out = (out - zero) * scale, group by group. */
static void apply_scales(const struct weight_parts *p, uint64_t row, float *out)
{
    uint64_t first = scale_row(p, row), cols = p->w.cols;
    for (uint64_t at = 0; at < cols;) {
        uint64_t g = group_of(p, at);
        uint64_t end = p->order ? at + 1 : least(at - at % p->col_block + p->col_block, cols);
        float scale = load_one(p->scale, first + g);
        float zero = p->zero_packed ? zero_at(p, row, g)
                     : p->zero      ? load_one(p->zero, first + g)
                                    : 0;
        for (; at < end; at++)
            out[at] = (out[at] - zero) * scale;
    }
}

static void read_scaled(const struct weight_parts *p, uint64_t row, float *out)
{
    const uint8_t *from = (const uint8_t *)p->values->data + row * p->w.cols;
    dequant_plain(p->values->type, from, p->w.cols, out);
    apply_scales(p, row, out);
}

static void read_packed(const struct weight_parts *p, uint64_t row, float *out)
{
    uint64_t words = p->values->shape[1], cols = p->w.cols, per_word = 32 / p->bits;
    const uint8_t *from = (const uint8_t *)p->values->data + row * words * 4;
    int offset = 1 << (p->bits - 1);
    uint32_t mask = (1u << p->bits) - 1;
    if (!p->dense || 32 % p->bits == 0) {
        for (uint64_t at = 0; at < cols; at += per_word) {
            uint32_t word = load_u32(from, at / per_word);
            uint64_t n = least(per_word, cols - at);
            for (uint64_t i = 0; i < n; i++)
                out[at + i] = (float)((int)(word >> i * p->bits & mask) - offset);
        }
    } else {
        for (uint64_t at = 0; at < cols; at++) {
            uint64_t bit = at * p->bits, pair = load_u32(from, bit / 32);
            if (bit % 32 + p->bits > 32)
                pair |= (uint64_t)load_u32(from, bit / 32 + 1) << 32;
            out[at] = (float)((int)(pair >> bit % 32 & mask) - offset);
        }
    }
    apply_scales(p, row, out);
}

/* Scale and zero of up to TILE columns in one group. */
struct column_group {
    uint64_t group;
    float scale[TILE], zero[TILE];
};

static void load_gptq_group(const struct weight_parts *p, uint64_t g, uint64_t c0, uint64_t n,
                            struct column_group *out)
{
    uint64_t all = p->w.rows, zero_words = p->zero ? p->zero->shape[1] : 0;
    uint32_t mask = (1u << p->bits) - 1;
    out->group = g;
    for (uint64_t i = 0; i < n; i++) {
        out->scale[i] = load_one(p->scale, g * all + c0 + i);
        uint64_t bit = (c0 + i) * p->bits;
        uint64_t words = load_u32(p->zero->data, g * zero_words + bit / 32);
        if (bit % 32 + p->bits > 32)
            words |= (uint64_t)load_u32(p->zero->data, g * zero_words + bit / 32 + 1) << 32;
        uint32_t zero = (uint32_t)(words >> bit % 32) + (p->zero_is_less ? 1 : 0);
        out->zero[i] = (float)(zero & mask);
    }
}

/* Outputs are columns of qweight: a tile of them is made together, a run of packed inputs at a
 * time. */
static void read_gptq(const struct weight_parts *p, uint64_t r0, uint64_t n, float *out)
{
    uint64_t all = p->w.rows, inputs = p->w.cols;
    uint64_t run_words = p->bits == 3 ? 3 : 1, run = run_words * 32 / p->bits;
    uint32_t mask = (1u << p->bits) - 1;
    struct column_group g = {.group = UINT64_MAX};
    for (uint64_t at = 0; at < inputs; at += run) {
        uint64_t words[TILE][2];
        for (uint64_t i = 0; i < n; i++) {
            uint64_t first = at / run * run_words;
            words[i][0] = load_u32(p->values->data, first * all + r0 + i);
            words[i][1] = 0;
            if (run_words == 3) {
                words[i][0] |= (uint64_t)load_u32(p->values->data, (first + 1) * all + r0 + i)
                               << 32;
                words[i][1] = load_u32(p->values->data, (first + 2) * all + r0 + i);
            }
        }
        for (uint64_t k = 0; k < run; k++) {
            uint64_t group = group_of(p, at + k), bit = k * p->bits;
            if (group != g.group)
                load_gptq_group(p, group, r0, n, &g);
            for (uint64_t i = 0; i < n; i++) {
                uint64_t v = bit >= 64            ? words[i][1] >> (bit - 64)
                             : bit > 64 - p->bits ? words[i][0] >> bit | words[i][1] << (64 - bit)
                                                  : words[i][0] >> bit;
                out[i * inputs + at + k] = ((float)(v & mask) - g.zero[i]) * g.scale[i];
            }
        }
    }
}

/* Where output j of 8 lies in its word. */
static unsigned awq_shift(uint64_t j)
{
    static const uint8_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return 4u * place[j % 8];
}

static void load_awq_group(const struct weight_parts *p, uint64_t g, uint64_t c0, uint64_t n,
                           struct column_group *out)
{
    uint64_t all = p->w.rows;
    out->group = g;
    for (uint64_t i = 0; i < n; i++) {
        out->scale[i] = load_one(p->scale, g * all + c0 + i);
        out->zero[i] =
            (float)(load_u32(p->zero->data, (g * all + c0 + i) / 8) >> awq_shift(c0 + i) & 15);
    }
}

static void read_awq(const struct weight_parts *p, uint64_t r0, uint64_t n, float *out)
{
    uint64_t all = p->w.rows, inputs = p->w.cols;
    struct column_group g = {.group = UINT64_MAX};
    for (uint64_t k = 0; k < inputs; k++) {
        uint64_t group = k / p->col_block;
        if (group != g.group)
            load_awq_group(p, group, r0, n, &g);
        for (uint64_t i = 0; i < n; i++) {
            uint32_t word = load_u32(p->values->data, (k * all + r0 + i) / 8);
            out[i * inputs + k] =
                ((float)(word >> awq_shift(r0 + i) & 15) - g.zero[i]) * g.scale[i];
        }
    }
}

static void read_ggml(const struct weight_parts *p, uint64_t r0, uint64_t r1, float *out)
{
    struct ggml_block block = ggml_type_block(p->gguf->type);
    uint64_t row_bytes = p->w.cols / block.elements * block.bytes;
    dequant_ggml(p->gguf->type, (const uint8_t *)p->gguf->data + r0 * row_bytes,
                 (r1 - r0) * p->w.cols, out);
}

static void read_plain(const struct weight_parts *p, uint64_t r0, uint64_t r1, float *out)
{
    uint64_t bytes = tensor_type_bits(p->values->type) / 8;
    dequant_plain(p->values->type, (const uint8_t *)p->values->data + r0 * p->w.cols * bytes,
                  (r1 - r0) * p->w.cols, out);
}

static void read_mxfp4(const struct weight_parts *p, uint64_t r0, uint64_t r1, float *out)
{
    uint64_t groups = p->w.cols / 32;
    dequant_mxfp4_pairs((const uint8_t *)p->values->data + r0 * groups * 16,
                        (const uint8_t *)p->scale->data + r0 * groups, (r1 - r0) * groups, out);
}

static void read_row(const struct weight_parts *p, uint64_t row, float *out)
{
    if (p->kind == WEIGHT_SCALED)
        read_scaled(p, row, out);
    else
        read_packed(p, row, out);
}

void quantized_read(const struct weight_parts *p, uint64_t r0, uint64_t r1, float *out)
{
    uint64_t cols = p->w.cols;
    switch (p->kind) {
    case WEIGHT_PLAIN:
        read_plain(p, r0, r1, out);
        break;
    case WEIGHT_GGML:
        read_ggml(p, r0, r1, out);
        break;
    case WEIGHT_MXFP4:
        read_mxfp4(p, r0, r1, out);
        break;
    case WEIGHT_GPTQ:
        for (uint64_t r = r0; r < r1; r += TILE)
            read_gptq(p, r, least(TILE, r1 - r), out + (r - r0) * cols);
        break;
    case WEIGHT_AWQ:
        for (uint64_t r = r0; r < r1; r += TILE)
            read_awq(p, r, least(TILE, r1 - r), out + (r - r0) * cols);
        break;
    case WEIGHT_SCALED:
    case WEIGHT_PACKED:
        for (uint64_t r = r0; r < r1; r++)
            read_row(p, r, out + (r - r0) * cols);
        break;
    }
}
