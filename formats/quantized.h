/* Weights whose parts are several tensors of a checkpoint: what goes with what, checked, and how
 * rows of floats are made of them. Private to this folder; weight_source.h is the public face.
 *
 * Thread: quantized_bind() by one; the others by any.
 */
#ifndef FORMATS_QUANTIZED_H
#define FORMATS_QUANTIZED_H

#include "formats/dequant.h"
#include "formats/quant_config.h"
#include "formats/weight_source.h"

enum quantized_kind {
    WEIGHT_PLAIN,  /* one tensor */
    WEIGHT_GGML,   /* one tensor of a GGUF file */
    WEIGHT_SCALED, /* elements of 8 bits times a grid of scales, less zeros */
    WEIGHT_PACKED, /* compressed-tensors: integers packed along each row */
    WEIGHT_GPTQ,   /* integers packed down each column */
    WEIGHT_AWQ,    /* 8 columns in each word, interleaved */
    WEIGHT_MXFP4,  /* pairs of 4-bit floats, a scale for each 32 */
};

struct weight_parts {
    struct weight w; /* first: a struct weight * is one of these */
    enum quantized_kind kind;
    const struct tensor *values, *scale, *zero, *order; /* the latter three may be NULL */
    const struct gguf_tensor *gguf;
    uint64_t own_shape[8]; /* where it is not that of `values`; w.shape points here */
    bool has_own_shape;
    unsigned bits;
    bool zero_packed;                /* PACKED: zeros are packed down the columns */
    bool zero_is_less;               /* GPTQ */
    bool even_order;                 /* every group of `order` has its number of columns */
    bool dense;                      /* PACKED: without unused bits at the end of a word */
    bool token_bytes;                /* weight_wants_token_bytes() */
    uint64_t row_block, col_block;   /* rows and columns per scale */
    uint64_t scale_rows, scale_cols; /* the grid of each matrix */
    uint64_t matrix_rows;            /* rows of one matrix */
};

/* The logical weights of a checkpoint, unsorted; names that are not tensors' own are allocations in
 * `names`. The owner frees both arrays, after an error too. */
struct quantized_set {
    const struct checkpoint *checkpoint;
    const struct quant_config *config;
    struct weight_parts *weights;
    size_t n;
    char **names;
    size_t n_names;
};
enum status quantized_bind(struct quantized_set *set, struct error *err);
void quantized_read(const struct weight_parts *p, uint64_t r0, uint64_t r1, float *out);
/* weight_ints.h */
bool quantized_as_ints(const struct weight_parts *p, struct weight_ints *out);
void quantized_read_ints(const struct weight_parts *p, uint64_t r0, uint64_t r1,
                         struct ints_out out);
void quantized_read_scales(const struct weight_parts *p, uint64_t row, float *out);
void quantized_read_order(const struct weight_parts *p, int32_t *order);

#endif
