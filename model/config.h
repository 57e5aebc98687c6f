/* The feature table of a transformer, filled from a Hugging Face config.json (and
 * generation_config.json).
 *
 * One forward reads this table; a new architecture is a new way of filling it. Every number is
 * checked against hard bounds here, so that nothing later overflows: config.json is hostile
 * input. Plain data, no ownership.
 */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"

enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 };

#define MODEL_EOS_MAX 16
#define MODEL_LAYERS_MAX 512

struct model_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    int32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn;
    int32_t max_context; /* tokens */
    float norm_eps;
    bool qkv_bias, o_bias, mlp_bias;
    bool tied;        /* lm_head is the embedding */
    enum dtype dtype; /* as declared; tensors may differ */
    struct {
        enum rope_kind kind;
        double theta, factor, low_freq_factor, high_freq_factor;
        int32_t original_context;
    } rope;
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
bool model_config_is_eos(const struct model_config *c, int32_t id);
uint64_t model_config_parameters(const struct model_config *c);
/* inv_freq[head_dim/2] and the factor for cos and sin, per kind. */
void model_rope_frequencies(const struct model_config *c, float *inv_freq, float *attention_factor);

#endif
