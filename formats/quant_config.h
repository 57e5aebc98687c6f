/* How a Hugging Face checkpoint says that it is quantized: `quantization_config` of config.json
 * (compression_config of old), or one of the files that older tools wrote beside it.
 *
 * What a config says of the KV cache is passed over, and of activations all but that they are to be
 * rounded to integers of 8 bits with one scale a token.
 * Private to this folder. Owner: quant_config_fini(). Thread: owner only until filled, then any.
 */
#ifndef FORMATS_QUANT_CONFIG_H
#define FORMATS_QUANT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/status.h"

#define QUANT_PATTERNS_MAX 20000
#define QUANT_GROUPS_MAX 256
#define QUANT_GROUP_SIZE_MAX (1 << 20)

enum quant_method {
    QUANT_NONE,
    QUANT_FP8,
    QUANT_GPTQ,
    QUANT_AWQ,
    QUANT_COMPRESSED, /* compressed-tensors */
    QUANT_MXFP4,
};

struct quant_names {
    char **v;
    size_t n;
};

/* Weights of one group of compressed-tensors. */
struct quant_group {
    struct quant_names targets;
    int bits;
    bool is_float, symmetric, is_mxfp4;
    size_t group_size; /* 0: none */
    size_t block[2];   /* {0, 0}: none */
    bool token_bytes;  /* rows they are multiplied with have 8 bits and a scale each, found then */
};

struct quant_config {
    enum quant_method method;
    int bits;          /* GPTQ, AWQ */
    size_t group_size; /* GPTQ, AWQ; 0: one group for all */
    bool zero_is_less; /* GPTQ: zeros are stored less one */
    size_t block[2];   /* FP8; {0, 0}: none */
    struct quant_names ignored;
    struct quant_group *groups;
    size_t n_groups;
};

/* `v`: the object (NULL or null: not quantized). ST_UNSUPPORTED names the method. */
enum status quant_config_parse(const json *v, struct quant_config *out, struct error *err);
/* From the files of a folder. */
enum status quant_config_read(const char *dir, struct quant_config *out, struct error *err);
void quant_config_fini(struct quant_config *c);

bool quant_config_ignores(const struct quant_config *c, const char *module);
/* The group that a module's weight is of; NULL: none. */
const struct quant_group *quant_config_group(const struct quant_config *c, const char *module);

#endif
