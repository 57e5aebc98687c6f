/* Whether the parts of one quantized weight fit each other, and what follows from their shapes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quantized_check.h"

#define SHAPE_TEXT 96

static enum status bad_shape(const struct binder *b, const struct tensor *t, const char *expected)
{
    char shape[SHAPE_TEXT];
    return err_set(b->err, ST_INVALID, "tensor %.160s: %s of shape %s; expected %s", t->name,
                   tensor_type_name(t->type), tensor_shape_text(t, shape, sizeof shape), expected);
}

static enum status missing(const struct binder *b, const struct tensor *values, const char *what)
{
    return err_set(b->err, ST_INVALID, "tensor %.160s has no %s beside it", values->name, what);
}

static bool is_scale_type(const struct tensor *t)
{
    return t->type == TENSOR_F32 || t->type == TENSOR_F16 || t->type == TENSOR_BF16 ||
           t->type == TENSOR_F64 || t->type == TENSOR_F8_E8M0;
}

static bool is_matrix(const struct tensor *t, enum tensor_type type, uint64_t rows, uint64_t cols)
{
    return t->type == type && t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

static bool is_float_matrix(const struct tensor *t, uint64_t rows, uint64_t cols)
{
    return is_scale_type(t) && t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

static uint64_t up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static void set_matrix(struct weight_parts *p, uint64_t rows, uint64_t cols)
{
    p->own_shape[0] = rows;
    p->own_shape[1] = cols;
    p->w.rank = 2;
    p->w.rows = p->matrix_rows = rows;
    p->w.cols = cols;
    p->row_block = 1;
}

static void set_grid(struct weight_parts *p, uint64_t rows, uint64_t cols)
{
    p->scale_rows = rows;
    p->scale_cols = cols;
}

/* Whether each group has as many columns as it has where they lie in order. */
static enum status count_order(struct binder *b, struct weight_parts *p)
{
    uint64_t *n = calloc(p->scale_cols, sizeof *n);
    if (!n)
        return err_set(b->err, ST_NO_MEMORY, "tensor %.160s: no memory", p->order->name);
    for (uint64_t i = 0; i < p->w.cols; i++) {
        uint32_t g;
        memcpy(&g, (const uint8_t *)p->order->data + 4 * i, sizeof g);
        n[g]++;
    }
    p->even_order = true;
    for (uint64_t g = 0, left = p->w.cols; g < p->scale_cols; g++, left -= p->col_block)
        p->even_order = p->even_order && n[g] == (left < p->col_block ? left : p->col_block);
    free(n);
    return ST_OK;
}

/* Group of each column: in range, and dropped where it says nothing new. */
static enum status take_order(struct binder *b, struct weight_parts *p, const struct tensor *order)
{
    if (!order)
        return ST_OK;
    bool plain = true;
    if (order->type != TENSOR_I32 || order->elements != p->w.cols)
        return bad_shape(b, order, "an I32 for each input");
    for (uint64_t i = 0; i < p->w.cols; i++) {
        uint32_t g;
        memcpy(&g, (const uint8_t *)order->data + 4 * i, sizeof g);
        if (g >= p->scale_cols)
            return err_set(b->err, ST_INVALID, "tensor %.160s: input %llu is of group %ld of %llu",
                           order->name, (unsigned long long)i, (long)(int32_t)g,
                           (unsigned long long)p->scale_cols);
        plain = plain && g == i / p->col_block;
    }
    p->order = plain ? NULL : order;
    return plain ? ST_OK : count_order(b, p);
}

/* --- 8-bit elements and a grid of scales */

/* The grid from the scale's shape: one scale, one per matrix, per row, per group, per block. */
static bool find_grid(struct weight_parts *p, uint64_t matrices, const size_t block[2],
                      size_t group)
{
    const struct tensor *s = p->scale;
    uint64_t rows = p->matrix_rows, cols = p->w.cols, n = s->elements;
    uint64_t last = s->rank ? s->shape[s->rank - 1] : 1;
    p->col_block = cols;
    p->row_block = 1;
    if (block[0]) {
        uint64_t grid_rows = up(rows, block[0]), grid_cols = up(cols, block[1]);
        p->row_block = block[0];
        p->col_block = block[1];
        set_grid(p, grid_rows, grid_cols);
        if (n == matrices * grid_rows * grid_cols && last == grid_cols)
            return true;
        p->row_block = 1;
        p->col_block = cols;
    }
    if (group && n == p->w.rows * up(cols, group) && last == up(cols, group)) {
        p->col_block = group;
        set_grid(p, rows, up(cols, group));
        return true;
    }
    set_grid(p, 1, 1);
    p->row_block = rows;
    if (n == 1) {
        p->matrix_rows = p->row_block = p->w.rows;
        return true;
    }
    if (n == matrices)
        return true;
    p->row_block = 1;
    set_grid(p, rows, 1);
    return n == p->w.rows;
}

static enum status take_plain_zero(struct binder *b, struct weight_parts *p,
                                   const struct tensor *zero)
{
    if (!zero)
        return ST_OK;
    if (zero->elements != p->scale->elements ||
        (zero->type != TENSOR_I8 && zero->type != p->values->type && !is_scale_type(zero)))
        return bad_shape(b, zero, "a zero for each scale");
    p->zero = zero;
    return ST_OK;
}

enum status quantized_bind_scaled(struct binder *b, const struct tensor *t, struct weight_parts *p)
{
    static const size_t default_block[2] = {128, 128};
    const struct quant_config *c = b->set->config;
    const struct quant_group *group = quant_config_group(c, b->module);
    size_t len = strlen(t->name);
    const struct tensor *scale = quantized_sibling(b, t->name, len, "_scale");
    const struct tensor *inverse = quantized_sibling(b, t->name, len, "_scale_inv");
    if (scale && inverse)
        return err_set(b->err, ST_INVALID, "tensor %.160s has both _scale and _scale_inv", t->name);
    if (!scale && !inverse)
        return missing(b, t, "scale");
    if (t->rank < 2 || t->rank > 8 || t->elements == 0)
        return bad_shape(b, t, "a matrix or several");
    p->kind = WEIGHT_SCALED;
    p->token_bytes = group && group->token_bytes;
    p->scale = scale ? scale : inverse;
    p->w.shape = t->shape;
    p->w.rank = t->rank;
    p->w.cols = t->shape[t->rank - 1];
    p->w.rows = t->elements / p->w.cols;
    p->matrix_rows = t->shape[t->rank - 2];
    const size_t *block = group && group->block[0] ? group->block : c->block;
    if (inverse && !block[0] && p->scale->rank >= 2)
        block = default_block;
    if (!is_scale_type(p->scale) ||
        !find_grid(p, p->w.rows / p->matrix_rows, block, group ? group->group_size : 0))
        return bad_shape(b, p->scale, "scales per tensor, row, group or block of its weight");
    enum status st = take_plain_zero(b, p, quantized_sibling(b, t->name, len, "_zero_point"));
    if (!st)
        st = take_order(b, p, quantized_sibling(b, t->name, len, "_g_idx"));
    const char *type = t->type == TENSOR_I8 ? "INT8" : tensor_type_name(t->type);
    if (p->row_block > 1 && p->scale_rows * p->scale_cols > 1)
        snprintf(p->w.format, sizeof p->w.format, "%s, blocks of %llux%llu", type,
                 (unsigned long long)p->row_block, (unsigned long long)p->col_block);
    else
        snprintf(p->w.format, sizeof p->w.format, "%s, scale per %s", type,
                 p->scale_cols > 1   ? "group"
                 : p->scale_rows > 1 ? "row"
                                     : "tensor");
    return st;
}

/* --- compressed-tensors, packed */

static enum status read_shape_tensor(struct binder *b, const struct tensor *t, uint64_t out[2])
{
    unsigned bytes = t->type == TENSOR_I64 ? 8 : 4;
    if ((t->type != TENSOR_I64 && t->type != TENSOR_I32) || t->elements != 2)
        return bad_shape(b, t, "two integers");
    for (int i = 0; i < 2; i++) {
        out[i] = 0;
        memcpy(&out[i], (const uint8_t *)t->data + (size_t)i * bytes, bytes);
        if (out[i] < 1 || out[i] > INT32_MAX)
            return err_set(b->err, ST_INVALID, "tensor %.160s: a dimension of %lld", t->name,
                           (long long)out[i]);
    }
    return ST_OK;
}

static enum status bind_packed_mxfp4(struct binder *b, const struct tensor *t,
                                     struct weight_parts *p)
{
    if (t->type != TENSOR_U8 || t->rank != 2 || t->shape[1] % 16 || t->elements == 0)
        return bad_shape(b, t, "U8 of two elements each, in groups of 32");
    set_matrix(p, t->shape[0], t->shape[1] * 2);
    if ((p->scale->type != TENSOR_U8 && p->scale->type != TENSOR_F8_E8M0) || p->scale->rank != 2 ||
        p->scale->shape[0] != p->w.rows || p->scale->shape[1] != p->w.cols / 32)
        return bad_shape(b, p->scale, "a U8 for each 32 elements");
    p->kind = WEIGHT_MXFP4;
    snprintf(p->w.format, sizeof p->w.format, "MXFP4");
    return ST_OK;
}

static enum status take_packed_zero(struct binder *b, const struct tensor *t,
                                    const struct tensor *zero, const struct quant_group *group,
                                    struct weight_parts *p)
{
    uint64_t words = p->dense ? up(p->w.rows * p->bits, 32) : up(p->w.rows, 32 / p->bits);
    if (!zero)
        return group->symmetric ? ST_OK : missing(b, t, "zero points");
    if (zero->type != TENSOR_I32)
        return take_plain_zero(b, p, zero);
    if (p->scale->elements != p->w.rows * p->scale_cols || zero->elements != words * p->scale_cols)
        return bad_shape(b, zero, "packed zeros for the scales");
    p->zero = zero;
    p->zero_packed = true;
    return ST_OK;
}

enum status quantized_bind_packed(struct binder *b, const struct tensor *t, struct weight_parts *p)
{
    const struct quant_group *group = quant_config_group(b->set->config, b->module);
    size_t len = strlen(b->module);
    const struct tensor *shape = quantized_sibling(b, t->name, len, ".weight_shape");
    const struct tensor *zero = quantized_sibling(b, t->name, len, ".weight_zero_point");
    uint64_t dims[2];
    p->scale = quantized_sibling(b, t->name, len, ".weight_scale");
    if (!group || !group->bits)
        return err_set(b->err, ST_INVALID, "tensor %.160s: no group of the config has %.160s",
                       t->name, b->module);
    if (!p->scale)
        return missing(b, t, "weight_scale");
    if (group->is_mxfp4)
        return bind_packed_mxfp4(b, t, p);
    if (group->is_float)
        return err_set(b->err, ST_UNSUPPORTED, "tensor %.160s: packed floats", t->name);
    if (!shape)
        return missing(b, t, "weight_shape");
    enum status st = read_shape_tensor(b, shape, dims);
    if (st)
        return st;
    p->kind = WEIGHT_PACKED;
    p->bits = (unsigned)group->bits;
    p->token_bytes = group->token_bytes;
    set_matrix(p, dims[0], dims[1]);
    uint64_t padded = up(dims[1], 32 / p->bits), dense = up(dims[1] * p->bits, 32);
    p->dense = 32 % p->bits == 0 || !is_matrix(t, TENSOR_I32, dims[0], padded) || padded == dense;
    if (!is_matrix(t, TENSOR_I32, dims[0], p->dense ? dense : padded))
        return bad_shape(b, t, "I32 words for weight_shape");
    static const size_t none[2] = {0, 0};
    if (!is_scale_type(p->scale) || !find_grid(p, 1, none, group->group_size))
        return bad_shape(b, p->scale, "scales per tensor, row or group of its weight");
    st = take_packed_zero(b, t, zero, group, p);
    if (!st)
        st = take_order(b, p, quantized_sibling(b, t->name, len, ".weight_g_idx"));
    if (p->scale_cols > 1)
        snprintf(p->w.format, sizeof p->w.format, "INT%u, groups of %llu", p->bits,
                 (unsigned long long)p->col_block);
    else
        snprintf(p->w.format, sizeof p->w.format, "INT%u, scale per %s", p->bits,
                 p->scale_rows > 1 ? "row" : "tensor");
    return st;
}

/* --- GPTQ and AWQ: inputs down, outputs across */

/* Groups of inputs: their number must be the scales' first dimension. */
static void set_groups(const struct binder *b, struct weight_parts *p)
{
    size_t group = b->set->config->group_size;
    p->col_block = group ? group : p->w.cols;
    set_grid(p, 1, up(p->w.cols, p->col_block));
}

enum status quantized_bind_gptq(struct binder *b, const struct tensor *t, struct weight_parts *p)
{
    size_t len = strlen(b->module);
    p->bits = (unsigned)b->set->config->bits;
    p->scale = quantized_sibling(b, t->name, len, ".scales");
    p->zero = quantized_sibling(b, t->name, len, ".qzeros");
    if (!p->scale || !p->zero)
        return missing(b, t, p->scale ? "qzeros" : "scales");
    if (t->type != TENSOR_I32 || t->rank != 2 || t->elements == 0 ||
        (p->bits == 3 && t->shape[0] % 3) || t->shape[0] > UINT32_MAX)
        return bad_shape(b, t, "I32 words of packed inputs");
    set_matrix(p, t->shape[1], t->shape[0] * 32 / p->bits);
    set_groups(b, p);
    if (!is_float_matrix(p->scale, p->scale_cols, p->w.rows))
        return bad_shape(b, p->scale, "a scale for each group and output");
    if (!is_matrix(p->zero, TENSOR_I32, p->scale_cols, up(p->w.rows * p->bits, 32)))
        return bad_shape(b, p->zero, "packed zeros for each group");
    p->kind = WEIGHT_GPTQ;
    p->zero_is_less = b->set->config->zero_is_less;
    snprintf(p->w.format, sizeof p->w.format, "GPTQ %u bits, groups of %llu", p->bits,
             (unsigned long long)p->col_block);
    return take_order(b, p, quantized_sibling(b, t->name, len, ".g_idx"));
}

enum status quantized_bind_awq(struct binder *b, const struct tensor *t, struct weight_parts *p)
{
    size_t len = strlen(b->module);
    p->bits = 4;
    p->scale = quantized_sibling(b, t->name, len, ".scales");
    p->zero = quantized_sibling(b, t->name, len, ".qzeros");
    if (!p->scale || !p->zero)
        return missing(b, t, p->scale ? "qzeros" : "scales");
    if (t->type != TENSOR_I32 || t->rank != 2 || t->elements == 0 || t->shape[1] > UINT32_MAX)
        return bad_shape(b, t, "I32 words of 8 outputs");
    set_matrix(p, t->shape[1] * 8, t->shape[0]);
    set_groups(b, p);
    if (!is_float_matrix(p->scale, p->scale_cols, p->w.rows))
        return bad_shape(b, p->scale, "a scale for each group and output");
    if (!is_matrix(p->zero, TENSOR_I32, p->scale_cols, t->shape[1]))
        return bad_shape(b, p->zero, "packed zeros for each group");
    p->kind = WEIGHT_AWQ;
    snprintf(p->w.format, sizeof p->w.format, "AWQ 4 bits, groups of %llu",
             (unsigned long long)p->col_block);
    return ST_OK;
}

/* --- gpt-oss: [.., rows, groups, 16] bytes, [.., rows, groups] scales */

enum status quantized_bind_mxfp4(struct binder *b, const struct tensor *t, struct weight_parts *p)
{
    p->scale = quantized_sibling(b, t->name, strlen(b->module), "_scales");
    if (!p->scale)
        return missing(b, t, "_scales");
    if (t->type != TENSOR_U8 || t->rank < 3 || t->rank > 8 || t->shape[t->rank - 1] != 16 ||
        t->elements == 0)
        return bad_shape(b, t, "U8 [.., rows, groups, 16]");
    if ((p->scale->type != TENSOR_U8 && p->scale->type != TENSOR_F8_E8M0) ||
        p->scale->rank != t->rank - 1 ||
        memcmp(p->scale->shape, t->shape, (size_t)p->scale->rank * sizeof *t->shape) != 0)
        return bad_shape(b, p->scale, "a U8 for each group of 16 bytes");
    p->kind = WEIGHT_MXFP4;
    p->w.rank = t->rank - 1;
    memcpy(p->own_shape, t->shape, (size_t)p->w.rank * sizeof *t->shape);
    p->w.cols = p->own_shape[p->w.rank - 1] *= 32;
    p->w.rows = t->elements / 16 / (p->w.cols / 32);
    snprintf(p->w.format, sizeof p->w.format, "MXFP4");
    return ST_OK;
}
