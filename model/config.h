/* The feature table of a transformer, filled from a Hugging Face config.json (and
 * generation_config.json) or the metadata of a GGUF file.
 *
 * One forward reads this table; a new architecture is a new way of filling it. Every number is
 * checked against hard bounds where it is read, so that nothing later overflows: config.json is
 * hostile input. Plain data, no ownership.
 */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"
#include "kernels/kv_groups.h"
#include "kernels/ops.h"
#include "model/rope.h"

#define MODEL_EOS_MAX 16
#define MODEL_LAYERS_MAX 512
#define MODEL_ROPES 2 /* sets of frequencies: of full and of sliding layers */

enum attention_kind {
    ATTENTION_GQA,    /* grouped queries */
    ATTENTION_LATENT, /* multi-head latent attention (DeepSeek-V2, 2024), in absorbed form */
    ATTENTION_MOA,    /* a mixture of query heads (JetMoE, 2024) */
};
enum mlp_kind { MLP_DENSE, MLP_MOE };

struct layer_config {
    enum mlp_kind mlp;
    int32_t window;  /* positions that a query sees, its own included; 0: all */
    int32_t kv_from; /* the layer whose keys and values it reads: itself, or one before */
    int32_t slot;    /* of its keys and values among the layers that store some */
    int8_t rope;     /* index into ropes; -1: none */
};

enum qk_norm {
    QK_NORM_NONE,
    QK_NORM_HEAD,       /* each head by itself, one weight for all */
    QK_NORM_FULL,       /* all heads as one vector */
    QK_NORM_AFTER_ROPE, /* each head by itself, after its rotation */
};

/* How a checkpoint names and cuts its tensors (weights_names.c). */
enum weight_naming {
    NAMING_LLAMA,
    NAMING_PHI3,
    NAMING_OLMO2,
    NAMING_GEMMA,
    NAMING_MIXTRAL,
    NAMING_QWEN_MOE,
    NAMING_GRANITE_MOE,
    NAMING_GPT_OSS,
    NAMING_DEEPSEEK,
    NAMING_JETMOE,
    NAMING_HUNYUAN,
    NAMING_GGUF,
    NAMING_GGUF_PHI3,
    NAMING_GGUF_GPT_OSS,
    NAMINGS
};

struct moe_config {
    int32_t experts, top_k, ffn;
    int32_t shared_ffn; /* of the experts that every token goes to; 0: none */
    bool shared_gate;   /* their output is weighed by a sigmoid of its own */
    bool router_bias;   /* added to the logits */
    bool choice_bias;   /* added to the scores for the choice alone */
    bool expert_bias;   /* the experts' projections have biases */
    bool normalize;
    enum route_score score;
    int32_t groups, top_groups;
    float scale;
};

struct latent_config {
    int32_t q_rank; /* 0: queries are projected in one step */
    int32_t kv_rank, nope_dim, rope_dim, value_dim;
};

struct model_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    enum weight_naming naming;
    int32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn;
    int32_t max_context;        /* tokens */
    int32_t kv_layers;          /* layers that store keys and values */
    struct kv_groups kv_groups; /* of these */
    struct layer_config layer[MODEL_LAYERS_MAX];

    float norm_eps;
    float block_norm_eps;     /* of the norms within layers; 0: norm_eps */
    float norm_offset;        /* 1: weights are stored as their distance from 1 */
    bool pre_norm, post_norm; /* before a block, and of its output before it is added */
    enum qk_norm qk_norm;
    enum attention_kind attention;
    bool qkv_bias, o_bias, mlp_bias;
    bool sinks;
    float attention_scale, attention_softcap, final_softcap; /* caps: 0: none */
    float clip_qkv;                                          /* 0: not */
    float embed_scale, residual_scale, logits_scale;
    enum glu_kind activation;
    float glu_limit, glu_alpha;
    struct moe_config moe;
    struct latent_config latent;
    bool latent_split;  /* keys' and values' up-projections are stacks of heads, not one matrix */
    bool expert_blocks; /* the experts of a GPT-OSS are MXFP4 blocks, not transposed */
    int32_t mtp_layers; /* of multi-token prediction, behind the others */

    bool tied;        /* lm_head is the embedding */
    bool may_tie;     /* it is, where the checkpoint has none of its own */
    enum dtype dtype; /* as declared; tensors may differ */
    struct rope_config ropes[MODEL_ROPES];
    bool rope_interleaved;
    int32_t bos; /* -1: none */
    int32_t eos[MODEL_EOS_MAX];
    int32_t n_eos;
};

/* Sampling defaults of generation_config.json; `has_*` false where the file is silent. */
struct generation_defaults {
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_repetition_penalty, do_sample;
    double temperature, top_p, min_p, repetition_penalty;
    int32_t top_k;
};

/* Reads DIR/config.json and DIR/generation_config.json (which may be missing; its eos ids are
 * added). ST_INVALID names the key and what was expected; ST_UNSUPPORTED names the architecture
 * or feature and what is supported. */
enum status model_config_read(const char *dir, struct model_config *out,
                              struct generation_defaults *defaults, struct error *err);
enum status model_config_parse(const char *text, size_t len, struct model_config *out,
                               struct error *err);
/* Parameters; and how many of them a token is multiplied with (all but an untied embedding, and of
 * the experts those that it goes to). */
uint64_t model_config_parameters(const struct model_config *c);
uint64_t model_config_active_parameters(const struct model_config *c);
bool model_config_is_eos(const struct model_config *c, int32_t id);
/* Elements of a key, a value (0: it is part of the key), and heads of them, as they are stored. */
int32_t model_key_dim(const struct model_config *c);
int32_t model_value_dim(const struct model_config *c);
#endif
