/* The rows of dense decoders that differ from Llama in a few features: Llama 2 and 3 (Touvron et
 * al. 2023; 2024), Mistral (Jiang et al. 2023), Qwen2, Qwen3, SmolLM3, OLMo 2 and 3, Granite 3,
 * Phi-3 and 4, Hunyuan. */
#include <math.h>

#include "model/config_internal.h"

static bool from_layer(const struct model_config *c, int32_t layer, int32_t first)
{
    (void)c;
    return layer >= first;
}

static void read_llama(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    out->mlp_bias = config_bool(r, r->root, "mlp_bias", false);
    config_read_rope(r, out);
}

static void read_mistral(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    config_read_windows(r, out, config_every_layer, 0);
    config_read_rope(r, out);
}

/* The window is off unless use_sliding_window says otherwise, and starts at max_window_layers. */
static void read_qwen_windows(struct config_reader *r, struct model_config *out)
{
    if (!config_bool(r, r->root, "use_sliding_window", false))
        return;
    int64_t first = config_int(r, r->root, "max_window_layers", 0, 1 << 20, 28);
    config_read_windows(r, out, from_layer, (int32_t)first);
}

static void read_qwen2(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->qkv_bias = true;
    read_qwen_windows(r, out);
    config_read_rope(r, out);
}

static void read_qwen3(struct config_reader *r, struct model_config *out)
{
    read_llama(r, out);
    out->mlp_bias = false;
    out->qk_norm = QK_NORM_HEAD;
    read_qwen_windows(r, out);
}

static bool does_not_rotate(const struct model_config *c, int32_t layer, int32_t unused)
{
    (void)unused;
    return c->layer[layer].rope < 0;
}

/* no_rope_layers has a 1 for each layer that does rotate; the window is of those that do not. */
static void read_smollm3(struct config_reader *r, struct model_config *out)
{
    read_llama(r, out);
    const json *list = json_get(r->root, "no_rope_layers");
    bool listed = list && json_kind_of(list) != JSON_NULL_;
    int64_t every = config_int(r, r->root, "no_rope_layer_interval", 1, 1 << 20, 4);
    if (listed && (json_kind_of(list) != JSON_ARR || json_count(list) < (size_t)out->layers))
        config_fail(r, ST_INVALID, "no_rope_layers: expected an array of %d integers", out->layers);
    for (int32_t i = 0; i < out->layers && !r->status; i++) {
        int64_t rotates = listed ? json_as_int(json_at(list, (size_t)i), 1) : (i + 1) % every != 0;
        out->layer[i].rope = rotates ? 0 : -1;
    }
    if (config_bool(r, r->root, "use_sliding_window", false))
        config_read_windows(r, out, does_not_rotate, 0);
}

static void read_olmo2(struct config_reader *r, struct model_config *out)
{
    read_llama(r, out);
    out->mlp_bias = false;
    out->naming = NAMING_OLMO2;
    out->pre_norm = false;
    out->post_norm = true;
    out->qk_norm = QK_NORM_FULL;
}

static bool not_each_fourth(const struct model_config *c, int32_t layer, int32_t unused)
{
    (void)c, (void)unused;
    return (layer + 1) % 4 != 0;
}

static void read_olmo3(struct config_reader *r, struct model_config *out)
{
    read_olmo2(r, out);
    config_read_windows(r, out, not_each_fourth, 0);
    config_read_local_rope(r, out);
}

void config_read_multipliers(struct config_reader *r, struct model_config *out)
{
    out->embed_scale = (float)config_real(r, r->root, "embedding_multiplier", 1e-6, 1e6, 1);
    out->residual_scale = (float)config_real(r, r->root, "residual_multiplier", 1e-6, 1e6, 1);
    out->attention_scale = (float)config_real(r, r->root, "attention_multiplier", 1e-9, 1e6, 1);
    out->logits_scale = 1 / (float)config_real(r, r->root, "logits_scaling", 1e-6, 1e6, 1);
}

static void read_granite(struct config_reader *r, struct model_config *out)
{
    read_llama(r, out);
    config_read_multipliers(r, out);
}

static void read_phi3(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->naming = NAMING_PHI3;
    config_read_windows(r, out, config_every_layer, 0);
    config_read_rope(r, out);
}

void config_read_shared_keys(struct config_reader *r, struct model_config *out)
{
    if (config_bool(r, r->root, "use_qk_norm", true))
        out->qk_norm = QK_NORM_AFTER_ROPE;
    int64_t share = config_int(r, r->root, "cla_share_factor", 1, MODEL_LAYERS_MAX, 1);
    if (!config_bool(r, r->root, "use_cla", false))
        share = 1;
    for (int32_t i = 0; i < out->layers; i++)
        out->layer[i].kv_from = i - i % (int32_t)share;
}

static void read_hunyuan(struct config_reader *r, struct model_config *out)
{
    read_llama(r, out);
    out->naming = NAMING_HUNYUAN;
    out->mlp_bias = false;
    config_read_shared_keys(r, out);
}

static const struct size_defaults mistral_defaults = {.window = 4096};
static const struct size_defaults mistral_part_defaults = {
    .vocab = 32000,
    .hidden = 4096,
    .layers = 32,
    .heads = 32,
    .kv_heads = 8,
    .ffn = 14336,
    .context = 131072,
    .window = 4096,
};
static const struct size_defaults qwen2_defaults = {.window = 4096};
static const struct size_defaults qwen3_defaults = {.window = 4096, .head_dim = 128};
static const struct size_defaults smollm3_defaults = {.theta = 2e6, .tied = true};
static const struct size_defaults olmo2_defaults = {.eps = 1e-5f};
static const struct size_defaults olmo3_defaults = {.window = 4096, .theta = 5e5, .eps = 1e-5f};
static const struct size_defaults phi3_defaults = {.eps = 1e-5f};
static const struct size_defaults hunyuan_defaults = {.eps = 1e-5f};

const struct architecture config_llama_rows[] = {
    {"LlamaForCausalLM", "llama", read_llama, NULL},
    {"MistralForCausalLM", "mistral", read_mistral, &mistral_defaults},
    {"Mistral3ForConditionalGeneration", "mistral3", read_mistral, &mistral_part_defaults},
    {"Qwen2ForCausalLM", "qwen2", read_qwen2, &qwen2_defaults},
    {"Qwen3ForCausalLM", "qwen3", read_qwen3, &qwen3_defaults},
    {"SmolLM3ForCausalLM", "smollm3", read_smollm3, &smollm3_defaults},
    {"Olmo2ForCausalLM", "olmo2", read_olmo2, &olmo2_defaults},
    {"Olmo3ForCausalLM", "olmo3", read_olmo3, &olmo3_defaults},
    {"GraniteForCausalLM", "granite", read_granite, NULL},
    {"Phi3ForCausalLM", "phi3", read_phi3, &phi3_defaults},
    {"HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", read_hunyuan, &hunyuan_defaults},
    {0},
};
