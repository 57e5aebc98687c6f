/* Rows of floats, or of integers and their scales, out of quantized weights: both are made of what
 * the same functions unpack. Everything was checked when the weights were bound: no index here can
 * leave its tensor. */
#include <string.h>

#include "formats/dequant.h"
#include "formats/quantized.h"

#define TILE 32   /* rows made at once where they are columns of what is stored */
#define STRIP 64  /* columns made at once there: a whole number of packed words, of 3 bits too */
#define CHUNK 480 /* columns unpacked at once elsewhere: a whole number of words, of 2 to 8 bits */

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

/* A group's scale and zero; `first` is scale_row() of the row. */
struct group_scale {
    float scale, zero;
};

static struct group_scale load_group(const struct weight_parts *p, uint64_t row, uint64_t first,
                                     uint64_t g)
{
    return (struct group_scale){.scale = load_one(p->scale, first + g),
                                .zero = p->zero_packed ? packed_zero(p, row, g)
                                        : p->zero      ? load_one(p->zero, first + g)
                                                       : 0};
}

/* out = (out - zero) * scale, group by group. */
static void apply_scales(const struct weight_parts *p, uint64_t row, float *out)
{
    uint64_t first = scale_row(p, row), cols = p->w.cols;
    for (uint64_t at = 0; at < cols;) {
        struct group_scale s = load_group(p, row, first, group_of(p, at));
        uint64_t end = p->order ? at + 1 : least(at - at % p->col_block + p->col_block, cols);
        for (; at < end; at++)
            out[at] = (out[at] - s.zero) * s.scale;
    }
}

static const uint8_t *scaled_row(const struct weight_parts *p, uint64_t row)
{
    return (const uint8_t *)p->values->data + row * p->w.cols;
}

static void read_scaled(const struct weight_parts *p, uint64_t row, float *out)
{
    dequant_plain(p->values->type, scaled_row(p, row), p->w.cols, out);
    apply_scales(p, row, out);
}

/* Columns [at, at + n) of a row as they are stored: at is a multiple of CHUNK. */
static void unpack_packed(const struct weight_parts *p, uint64_t row, uint64_t at, uint64_t n,
                          uint8_t *restrict q)
{
    uint64_t words = p->values->shape[1], per_word = 32 / p->bits;
    const uint8_t *from = (const uint8_t *)p->values->data + row * words * 4;
    uint32_t mask = (1u << p->bits) - 1;
    if (!p->dense || 32 % p->bits == 0) {
        from += at / per_word * 4;
        for (uint64_t i = 0; i < n; i += per_word) {
            uint32_t word = load_u32(from, i / per_word);
            uint64_t count = least(per_word, n - i);
            for (uint64_t k = 0; k < count; k++)
                q[i + k] = (uint8_t)(word >> k * p->bits & mask);
        }
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t bit = (at + i) * p->bits, pair = load_u32(from, bit / 32);
        if (bit % 32 + p->bits > 32)
            pair |= (uint64_t)load_u32(from, bit / 32 + 1) << 32;
        q[i] = (uint8_t)(pair >> bit % 32 & mask);
    }
}

static void read_packed(const struct weight_parts *p, uint64_t row, float *out)
{
    uint8_t q[CHUNK];
    int offset = 1 << (p->bits - 1);
    for (uint64_t at = 0; at < p->w.cols; at += CHUNK) {
        uint64_t n = least(CHUNK, p->w.cols - at);
        unpack_packed(p, row, at, n, q);
        for (uint64_t i = 0; i < n; i++)
            out[at + i] = (float)(q[i] - offset);
    }
    apply_scales(p, row, out);
}

/* --- GPTQ and AWQ: outputs are columns of what is stored */

/* Some inputs of a tile of outputs, in the order in which they are stored. The loops over it have
 * constant bounds, and what is written far apart is written in whole lines. */
struct strip {
    uint8_t q[STRIP][TILE];
    uint64_t at, count; /* first input, inputs */
    uint64_t c0, n;     /* first output, outputs */
};

/* Words of the strip's outputs in row `row` of the packed inputs. */
static void load_words(const struct weight_parts *p, uint64_t row, const struct strip *s,
                       uint32_t words[TILE])
{
    const uint8_t *from = (const uint8_t *)p->values->data + (row * p->w.rows + s->c0) * 4;
    memcpy(words, from, s->n * 4);
}

/* A whole number of runs, which are what one word (of 3 bits: three) holds. */
static void fill_gptq(const struct weight_parts *p, struct strip *s)
{
    uint64_t run_words = p->bits == 3 ? 3 : 1, run = run_words * 32 / p->bits;
    uint32_t mask = (1u << p->bits) - 1, words[4][TILE] = {{0}};
    for (uint64_t k = 0; k < s->count; k++) {
        uint64_t in_run = k % run, bit = in_run * p->bits;
        for (uint64_t w = 0; in_run == 0 && w < run_words; w++)
            load_words(p, (s->at + k) / run * run_words + w, s, words[w]);
        const uint32_t *low = words[bit / 32], *high = words[bit / 32 + 1];
        unsigned shift = bit % 32;
        if (shift + p->bits > 32) {
            for (int i = 0; i < TILE; i++)
                s->q[k][i] = (uint8_t)((low[i] >> shift | high[i] << (32 - shift)) & mask);
        } else {
            for (int i = 0; i < TILE; i++)
                s->q[k][i] = (uint8_t)(low[i] >> shift & mask);
        }
    }
}

/* Elements [first, first + n) of a row-major matrix, 8 to a word in AWQ's order. */
static void load_awq(const struct tensor *t, uint64_t first, uint64_t n, uint8_t *out)
{
    static const uint8_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    for (uint64_t i = 0; i < n;) {
        uint32_t word = load_u32(t->data, (first + i) / 8);
        for (uint64_t k = (first + i) % 8; k < 8 && i < n; k++)
            out[i++] = word >> 4 * place[k] & 15;
    }
}

static void fill_awq(const struct weight_parts *p, struct strip *s)
{
    for (uint64_t k = 0; k < s->count; k++)
        load_awq(p->values, (s->at + k) * p->w.rows + s->c0, s->n, s->q[k]);
}

static void fill(const struct weight_parts *p, uint64_t at, struct strip *s)
{
    s->at = at;
    s->count = least(STRIP, p->w.cols - at);
    if (p->kind == WEIGHT_GPTQ)
        fill_gptq(p, s);
    else
        fill_awq(p, s);
}

/* Zeros of n columns in one group. */
static void column_zeros(const struct weight_parts *p, uint64_t g, uint64_t c0, uint64_t n,
                         uint8_t out[TILE])
{
    uint64_t zero_words = p->zero->shape[1];
    uint32_t mask = (1u << p->bits) - 1;
    if (p->kind == WEIGHT_AWQ) {
        load_awq(p->zero, g * p->w.rows + c0, n, out);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t bit = (c0 + i) * p->bits;
        uint64_t words = load_u32(p->zero->data, g * zero_words + bit / 32);
        if (bit % 32 + p->bits > 32)
            words |= (uint64_t)load_u32(p->zero->data, g * zero_words + bit / 32 + 1) << 32;
        out[i] = (uint8_t)(((uint32_t)(words >> bit % 32) + (p->zero_is_less ? 1 : 0)) & mask);
    }
}

/* Scale and zero of a strip's outputs in one group; what lies past them is zero. */
struct column_group {
    uint64_t group;
    float scale[TILE], zero[TILE];
};

static void load_column_group(const struct weight_parts *p, uint64_t g, const struct strip *s,
                              struct column_group *out)
{
    const struct tensor *t = p->scale;
    uint64_t bytes = tensor_type_bits(t->type) / 8, first = g * p->w.rows + s->c0;
    uint8_t zeros[TILE] = {0};
    out->group = g;
    dequant_plain(t->type, (const uint8_t *)t->data + first * bytes, s->n, out->scale);
    column_zeros(p, g, s->c0, s->n, zeros);
    for (int i = 0; i < TILE; i++)
        out->zero[i] = (float)zeros[i];
}

/* n <= TILE outputs from r0 on. */
static void read_columns(const struct weight_parts *p, uint64_t r0, uint64_t n, float *out)
{
    struct column_group g = {.group = UINT64_MAX};
    struct strip s = {.c0 = r0, .n = n};
    float v[STRIP][TILE];
    for (uint64_t at = 0; at < p->w.cols; at += STRIP) {
        fill(p, at, &s);
        for (uint64_t k = 0; k < s.count; k++) {
            uint64_t group = group_of(p, at + k);
            if (group != g.group)
                load_column_group(p, group, &s, &g);
            for (int i = 0; i < TILE; i++)
                v[k][i] = ((float)s.q[k][i] - g.zero[i]) * g.scale[i];
        }
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t k = 0; k < s.count; k++)
                out[i * p->w.cols + at + k] = v[k][i];
    }
}

/* --- all kinds, as floats */

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
    case WEIGHT_AWQ:
        for (uint64_t r = r0; r < r1; r += TILE)
            read_columns(p, r, least(TILE, r1 - r), out + (r - r0) * cols);
        break;
    case WEIGHT_SCALED:
    case WEIGHT_PACKED:
        for (uint64_t r = r0; r < r1; r++)
            read_row(p, r, out + (r - r0) * cols);
        break;
    }
}

/* --- as integers: q is stored with an offset, and what a zero point differs from it is the min */

/* Half of the range: what symmetric weights have for a zero. */
static int offset_of(const struct weight_parts *p)
{
    return p->kind == WEIGHT_SCALED ? 128 : 1 << (p->bits - 1);
}

static bool columns_have_mins(const struct weight_parts *p)
{
    uint8_t zeros[TILE];
    for (uint64_t g = 0; g < p->scale_cols; g++)
        for (uint64_t c = 0; c < p->w.rows; c += TILE) {
            uint64_t n = least(TILE, p->w.rows - c);
            column_zeros(p, g, c, n, zeros);
            for (uint64_t i = 0; i < n; i++)
                if (zeros[i] != offset_of(p))
                    return true;
        }
    return false;
}

static bool rows_have_mins(const struct weight_parts *p)
{
    for (uint64_t r = 0; p->zero && r < p->w.rows; r++)
        for (uint64_t g = 0; g < p->scale_cols; g++)
            if (load_group(p, r, scale_row(p, r), g).zero != 0)
                return true;
    return false;
}

bool quantized_as_ints(const struct weight_parts *p, struct weight_ints *out)
{
    bool known = false, columns = p->kind == WEIGHT_GPTQ || p->kind == WEIGHT_AWQ;
    switch (p->kind) {
    case WEIGHT_PLAIN:
        break;
    case WEIGHT_GGML:
        return dequant_ggml_as_ints(p->gguf->type, out);
    case WEIGHT_MXFP4:
        return dequant_ggml_as_ints(GGML_MXFP4, out);
    case WEIGHT_SCALED:
        known = p->values->type == TENSOR_I8;
        break;
    case WEIGHT_PACKED:
    case WEIGHT_GPTQ:
    case WEIGHT_AWQ:
        known = p->bits == 4 || p->bits == 8;
        break;
    }
    if (!known || (p->order && !p->even_order))
        return false;
    *out = (struct weight_ints){.bits = offset_of(p) == 128 ? 8 : 4,
                                .group = (int32_t)least(p->col_block, p->w.cols),
                                .zero = offset_of(p),
                                .has_min = columns ? columns_have_mins(p) : rows_have_mins(p),
                                .has_order = p->order != NULL};
    return true;
}

void quantized_read_scales(const struct weight_parts *p, uint64_t row, float *out)
{
    for (uint64_t g = 0; g < p->scale_cols; g++)
        out[g] = load_one(p->scale, scale_row(p, row) + g);
}

void quantized_read_order(const struct weight_parts *p, int32_t *order)
{
    uint64_t cols = p->w.cols, group = p->col_block;
    /* The last place of each group counts its columns until it gets one. */
    for (uint64_t g = 0; g < p->scale_cols; g++)
        order[least((g + 1) * group, cols) - 1] = 0;
    for (uint64_t c = 0; c < cols; c++) {
        uint64_t first = group_of(p, c) * group, last = least(first + group, cols) - 1;
        int32_t n = order[last];
        order[first + (uint64_t)n] = (int32_t)c;
        if (first + (uint64_t)n < last)
            order[last] = n + 1;
    }
}

/* Of a zero less the offset; 0 for 0, whatever the scale. */
static float min_of(float scale, float zero)
{
    return zero != 0 ? -zero * scale : 0;
}

static void row_ints(const struct weight_parts *p, uint64_t row, struct ints_out out)
{
    uint64_t cols = p->w.cols, first = scale_row(p, row);
    if (p->kind == WEIGHT_SCALED) {
        const uint8_t *from = scaled_row(p, row);
        for (uint64_t i = 0; i < cols; i++)
            out.q[i] = from[i] ^ 0x80; /* turning the sign over adds 128 */
    } else {
        for (uint64_t at = 0; at < cols; at += CHUNK)
            unpack_packed(p, row, at, least(CHUNK, cols - at), out.q + at);
    }
    for (uint64_t g = 0; g < p->scale_cols; g++) {
        struct group_scale s = load_group(p, row, first, g);
        out.scale[g] = s.scale;
        if (out.min)
            out.min[g] = min_of(s.scale, s.zero);
    }
}

/* n <= TILE outputs from r0 on. */
static void columns_ints(const struct weight_parts *p, uint64_t r0, uint64_t n, struct ints_out out)
{
    struct column_group column = {.group = UINT64_MAX};
    struct strip s = {.c0 = r0, .n = n};
    uint64_t groups = p->scale_cols;
    for (uint64_t at = 0; at < p->w.cols; at += STRIP) {
        fill(p, at, &s);
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t k = 0; k < s.count; k++)
                out.q[i * p->w.cols + at + k] = s.q[k][i];
    }
    for (uint64_t g = 0; g < groups; g++) {
        load_column_group(p, g, &s, &column);
        for (uint64_t i = 0; i < n; i++) {
            float zero = column.zero[i] - (float)offset_of(p);
            out.scale[i * groups + g] = column.scale[i];
            if (out.min)
                out.min[i * groups + g] = min_of(column.scale[i], zero);
        }
    }
}

void quantized_read_ints(const struct weight_parts *p, uint64_t r0, uint64_t r1,
                         struct ints_out out)
{
    uint64_t step = p->kind == WEIGHT_GPTQ || p->kind == WEIGHT_AWQ ? TILE : 1;
    if (p->kind == WEIGHT_GGML) {
        dequant_ggml_ints(p->gguf->type, ggml_row(p, r0), (r1 - r0) * p->w.cols, out);
        return;
    }
    if (p->kind == WEIGHT_MXFP4) {
        uint64_t groups = p->w.cols / 32;
        dequant_mxfp4_pair_ints((const uint8_t *)p->values->data + r0 * groups * 16,
                                (const uint8_t *)p->scale->data + r0 * groups, (r1 - r0) * groups,
                                out);
        return;
    }
    for (uint64_t r = r0; r < r1; r += step) {
        uint64_t n = least(step, r1 - r);
        if (step == 1)
            row_ints(p, r, out);
        else
            columns_ints(p, r, n, out);
        out.q += n * p->w.cols;
        out.scale += n * p->scale_cols;
        if (out.min)
            out.min += n * p->scale_cols;
    }
}
