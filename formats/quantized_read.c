/* Rows of floats out of quantized weights. Everything was checked when the weights were bound: no
 * index here can leave its tensor. */
#include <string.h>

#include "formats/dequant.h"
#include "formats/quantized.h"

#define TILE 16  /* rows made at once where they are columns of what is stored */
#define STRIP 64 /* columns made at once there: a whole number of packed words, of 3 bits too */

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

static float packed_zero(const struct weight_parts *p, uint64_t row, uint64_t group)
{
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
        float zero = p->zero_packed ? packed_zero(p, row, g)
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

/* Scale and zero of up to TILE columns in one group; what lies past them is zero. */
struct column_group {
    uint64_t group;
    float scale[TILE], zero[TILE];
};

/* Some inputs of a tile of outputs, in the order in which they are stored. The loops over it have
 * constant bounds, and what is written far apart is written in whole lines. */
struct strip {
    float v[STRIP][TILE];
    uint64_t at, n; /* first input; outputs */
};

static void strip_write(const struct strip *s, uint64_t inputs, float *out)
{
    uint64_t count = least(STRIP, inputs - s->at);
    for (uint64_t i = 0; i < s->n; i++)
        for (uint64_t k = 0; k < count; k++)
            out[i * inputs + s->at + k] = s->v[k][i];
}

static void load_scales(const struct weight_parts *p, uint64_t first, uint64_t n, float *out)
{
    const struct tensor *t = p->scale;
    dequant_plain(t->type, (const uint8_t *)t->data + first * (tensor_type_bits(t->type) / 8), n,
                  out);
}

static void load_gptq_group(const struct weight_parts *p, uint64_t g, uint64_t c0, uint64_t n,
                            struct column_group *out)
{
    uint64_t zero_words = p->zero->shape[1];
    uint32_t mask = (1u << p->bits) - 1;
    out->group = g;
    load_scales(p, g * p->w.rows + c0, n, out->scale);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t bit = (c0 + i) * p->bits;
        uint64_t words = load_u32(p->zero->data, g * zero_words + bit / 32);
        if (bit % 32 + p->bits > 32)
            words |= (uint64_t)load_u32(p->zero->data, g * zero_words + bit / 32 + 1) << 32;
        uint32_t zero = (uint32_t)(words >> bit % 32) + (p->zero_is_less ? 1 : 0);
        out->zero[i] = (float)(zero & mask);
    }
}

/* One input of the tile: the low bits of each word. */
static void strip_put(struct strip *s, uint64_t k, const uint32_t words[TILE], uint32_t mask,
                      const struct column_group *g)
{
    for (int i = 0; i < TILE; i++)
        s->v[k][i] = ((float)(int)(words[i] & mask) - g->zero[i]) * g->scale[i];
}

/* Words of `n` columns in row `row` of the packed inputs. */
static void load_words(const struct weight_parts *p, uint64_t row, uint64_t c0, uint64_t n,
                       uint32_t words[TILE])
{
    const uint8_t *from = (const uint8_t *)p->values->data + (row * p->w.rows + c0) * 4;
    memcpy(words, from, n * 4);
}

/* Inputs s->at and on, at most STRIP of them: a whole number of runs, which are what one word (of 3
 * bits: three) holds. */
static void fill_gptq(const struct weight_parts *p, uint64_t c0, struct strip *s,
                      struct column_group *g)
{
    uint64_t run_words = p->bits == 3 ? 3 : 1, run = run_words * 32 / p->bits;
    uint64_t count = least(STRIP, p->w.cols - s->at);
    uint32_t mask = (1u << p->bits) - 1, words[4][TILE] = {{0}}, now[TILE];
    for (uint64_t k = 0; k < count; k++) {
        uint64_t in_run = k % run, bit = in_run * p->bits, group = group_of(p, s->at + k);
        for (uint64_t w = 0; in_run == 0 && w < run_words; w++)
            load_words(p, (s->at + k) / run * run_words + w, c0, s->n, words[w]);
        if (group != g->group)
            load_gptq_group(p, group, c0, s->n, g);
        const uint32_t *low = words[bit / 32], *high = words[bit / 32 + 1];
        unsigned shift = bit % 32;
        if (shift + p->bits > 32) {
            for (int i = 0; i < TILE; i++)
                now[i] = low[i] >> shift | high[i] << (32 - shift);
        } else {
            for (int i = 0; i < TILE; i++)
                now[i] = low[i] >> shift;
        }
        strip_put(s, k, now, mask, g);
    }
}

/* Outputs are columns of what is stored: n <= TILE of them, from r0 on. */
static void read_gptq(const struct weight_parts *p, uint64_t r0, uint64_t n, float *out)
{
    struct column_group g = {.group = UINT64_MAX};
    struct strip s = {.n = n};
    for (s.at = 0; s.at < p->w.cols; s.at += STRIP) {
        fill_gptq(p, r0, &s, &g);
        strip_write(&s, p->w.cols, out);
    }
}

/* Where output j of 8 lies in its word. */
static unsigned awq_shift(uint64_t j)
{
    static const uint8_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return 4u * place[j % 8];
}

static void load_awq(const struct tensor *t, uint64_t first, uint64_t n, uint32_t out[TILE])
{
    for (uint64_t i = 0; i < n; i++)
        out[i] = load_u32(t->data, (first + i) / 8) >> awq_shift(first + i);
}

static void load_awq_group(const struct weight_parts *p, uint64_t g, uint64_t c0, uint64_t n,
                           struct column_group *out)
{
    uint32_t zeros[TILE] = {0};
    out->group = g;
    load_scales(p, g * p->w.rows + c0, n, out->scale);
    load_awq(p->zero, g * p->w.rows + c0, n, zeros);
    for (uint64_t i = 0; i < n; i++)
        out->zero[i] = (float)(zeros[i] & 15);
}

static void read_awq(const struct weight_parts *p, uint64_t r0, uint64_t n, float *out)
{
    struct column_group g = {.group = UINT64_MAX};
    struct strip s = {.n = n};
    uint32_t words[TILE] = {0};
    for (s.at = 0; s.at < p->w.cols; s.at += STRIP) {
        uint64_t count = least(STRIP, p->w.cols - s.at);
        for (uint64_t k = 0; k < count; k++) {
            uint64_t group = (s.at + k) / p->col_block;
            if (group != g.group)
                load_awq_group(p, group, r0, n, &g);
            load_awq(p->values, (s.at + k) * p->w.rows + r0, n, words);
            strip_put(&s, k, words, 15, &g);
        }
        strip_write(&s, p->w.cols, out);
    }
}

static const uint8_t *ggml_row(const struct weight_parts *p, uint64_t row)
{
    struct ggml_block block = ggml_type_block(p->gguf->type);
    return (const uint8_t *)p->gguf->data + row * (p->w.cols / block.elements * block.bytes);
}

static void read_ggml(const struct weight_parts *p, uint64_t r0, uint64_t r1, float *out)
{
    dequant_ggml(p->gguf->type, ggml_row(p, r0), (r1 - r0) * p->w.cols, out);
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

bool quantized_as_ints(const struct weight_parts *p, struct weight_ints *out)
{
    return p->kind == WEIGHT_GGML && dequant_ggml_as_ints(p->gguf->type, out);
}

void quantized_read_ints(const struct weight_parts *p, uint64_t r0, uint64_t r1,
                         struct ints_out out)
{
    dequant_ggml_ints(p->gguf->type, ggml_row(p, r0), (r1 - r0) * p->w.cols, out);
}
