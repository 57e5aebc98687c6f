/* What the files that fill the feature table share: config.c reads what all architectures have,
 * config_rope.c the rotary embedding, config_*.c the architectures. Private to this folder. */
#ifndef MODEL_CONFIG_INTERNAL_H
#define MODEL_CONFIG_INTERNAL_H

#include "model/config.h"
#include "model/config_reader.h"

#define VOCAB_MAX (4 << 20)
#define HIDDEN_MAX 65536
#define HEADS_MAX 4096
#define HEAD_DIM_MAX OPS_HEAD_DIM_MAX
#define FFN_MAX (1 << 20)
#define CONTEXT_MAX (16 << 20)
#define WINDOW_MAX CONTEXT_MAX
#define PARTS_MAX (1 << 18) /* experts, or latent heads, of all layers */

/* A row: reads what its architecture has beyond the common keys, and refuses what its forward pass
 * does not do. The table arrives with the defaults of a plain Llama. */
struct architecture {
    const char *name, *model_type;
    void (*read)(struct config_reader *r, struct model_config *out);
    const struct size_defaults *defaults; /* NULL: sizes must be said */
};

/* What a class of transformers has where a file is silent: a model that is a part of a larger one
 * leaves out what equals it. 0: the key must be there, or what Llama has. */
struct size_defaults {
    int32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, context, window;
    double theta;
    float eps;
    bool tied;
};
extern const struct architecture config_llama_rows[]; /* each ends with a NULL name */
extern const struct architecture config_gemma_rows[];
extern const struct architecture config_moe_rows[];
extern const struct architecture config_latent_rows[];

/* What a plain Llama has; the rows change what they differ in. */
void config_set_defaults(struct model_config *c);
/* What follows from the rest; r NULL: it is known to be sound. */
void config_settle(struct config_reader *r, struct model_config *c);
struct weight_source;
/* The table of a GGUF file's model. */
enum status config_from_gguf(const struct weight_source *source, struct model_config *out,
                             struct error *err);
/* Both sets of frequencies from rope_parameters, rope_scaling, rope_theta. */
void config_read_rope(struct config_reader *r, struct model_config *out);
/* `hidden_act` (or the key named) into the kind of gated unit. */
void config_read_activation(struct config_reader *r, const char *key, const char *fallback,
                            struct model_config *out);
/* The window of each layer: `layer_types` where given, else as `is_sliding` says. */
typedef bool layer_rule(const struct model_config *c, int32_t layer, int32_t argument);
void config_read_windows(struct config_reader *r, struct model_config *out, layer_rule *is_sliding,
                         int32_t argument);
layer_rule config_every_layer, config_even_layers; /* the argument is not used */
/* Sliding layers rotate with the second set of frequencies. Returns whether the file describes it;
 * where not, it is the first without its scaling. */
bool config_read_local_rope(struct config_reader *r, struct model_config *out);
/* Granite's four scales. */
void config_read_multipliers(struct config_reader *r, struct model_config *out);
/* Hunyuan's norm of queries and keys, and cross-layer attention (Brandon et al. 2024): of each
 * cla_share_factor layers the first stores keys and values for all. */
void config_read_shared_keys(struct config_reader *r, struct model_config *out);
/* Router and experts: names of the keys differ, their meaning does not. */
void config_read_experts(struct config_reader *r, struct model_config *out, const char *ffn_key);
/* The key that holds the number of experts; NULL: none. */
const char *config_experts_key(struct config_reader *r);

#endif
