/* What quantized.c (which tensor is what) and quantized_bind.c (whether the parts of a weight fit)
 * share. Only these two include it. Thread: the one that opens the checkpoint. */
#ifndef FORMATS_QUANTIZED_CHECK_H
#define FORMATS_QUANTIZED_CHECK_H

#include "formats/quantized.h"

#define QUANTIZED_NAME_MAX 4000 /* a tensor of a longer name has no companions */

struct binder {
    struct quantized_set *set;
    struct error *err;
    const char *module; /* of the weight that is being bound: its name without ".weight" */
};

/* The tensor "BASE" + suffix, NULL: none. BASE is the first `len` bytes of name. */
const struct tensor *quantized_sibling(const struct binder *b, const char *name, size_t len,
                                       const char *suffix);

/* Each fills *p from `values` and what goes with it; the text of an error names the tensor. */
enum status quantized_bind_scaled(struct binder *b, const struct tensor *values,
                                  struct weight_parts *p);
enum status quantized_bind_packed(struct binder *b, const struct tensor *values,
                                  struct weight_parts *p);
enum status quantized_bind_gptq(struct binder *b, const struct tensor *values,
                                struct weight_parts *p);
enum status quantized_bind_awq(struct binder *b, const struct tensor *values,
                               struct weight_parts *p);
enum status quantized_bind_mxfp4(struct binder *b, const struct tensor *values,
                                 struct weight_parts *p);

#endif
