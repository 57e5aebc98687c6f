/* The rows of mixtures of experts with grouped-query attention: Mixtral (Jiang et al. 2024), Qwen2
 * and Qwen3 MoE, OLMoE (Muennighoff et al. 2024), Granite MoE, GPT-OSS (OpenAI 2025), JetMoE (Shen
 * et al. 2024), Hunyuan. */
#include <math.h>

#include "model/config_internal.h"

const char *config_experts_key(struct config_reader *r)
{
    static const char *const keys[] = {"num_experts", "num_local_experts", "n_routed_experts"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const json *v = json_get(r->root, keys[i]);
        if (v && json_kind_of(v) != JSON_NULL_)
            return keys[i];
    }
    return NULL;
}

void config_read_experts(struct config_reader *r, struct model_config *out, const char *ffn_key)
{
    struct moe_config *m = &out->moe;
    const char *count_key = config_experts_key(r);
    count_key = count_key ? count_key : "num_experts";
    m->experts = (int32_t)config_int(r, r->root, count_key, 1, OPS_EXPERTS_MAX, CONFIG_REQUIRED);
    m->top_k =
        (int32_t)config_int(r, r->root, "num_experts_per_tok", 1, OPS_TOP_K_MAX, CONFIG_REQUIRED);
    m->ffn = (int32_t)config_int(r, r->root, ffn_key, 1, FFN_MAX, CONFIG_REQUIRED);
    if (!r->status && m->top_k > m->experts)
        config_fail(r, ST_INVALID, "num_experts_per_tok: expected at most %s (%d), got %d",
                    count_key, m->experts, m->top_k);
    if (!r->status && (int64_t)m->experts * out->layers > PARTS_MAX)
        config_fail(r, ST_INVALID, "%s: expected at most %d in all layers together", count_key,
                    PARTS_MAX);
    for (int32_t i = 0; i < out->layers; i++)
        out->layer[i].mlp = MLP_MOE;
}

static void read_mixtral(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->naming = NAMING_MIXTRAL;
    config_read_windows(r, out, config_every_layer, 0);
    config_read_rope(r, out);
    config_read_experts(r, out, "intermediate_size");
    out->moe.score = ROUTE_SOFTMAX_TOP;
}

/* Which layers are dense: those of mlp_only_layers, and all but each decoder_sparse_step-th. */
static void read_sparse_layers(struct config_reader *r, struct model_config *out)
{
    int64_t step = config_int(r, r->root, "decoder_sparse_step", 1, 1 << 20, 1);
    const json *dense = json_get(r->root, "mlp_only_layers");
    for (int32_t i = 0; i < out->layers; i++)
        out->layer[i].mlp = (i + 1) % step == 0 ? MLP_MOE : MLP_DENSE;
    for (size_t i = 0; i < json_count(dense); i++) {
        int64_t layer = json_as_int(json_at(dense, i), -1);
        if (layer >= 0 && layer < out->layers)
            out->layer[layer].mlp = MLP_DENSE;
    }
}

static void read_qwen_moe(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->naming = NAMING_QWEN_MOE;
    config_read_rope(r, out);
    config_read_experts(r, out, "moe_intermediate_size");
    read_sparse_layers(r, out);
    out->moe.score = ROUTE_SOFTMAX;
    out->moe.normalize = config_bool(r, r->root, "norm_topk_prob", false);
}

static bool even_below(const struct model_config *c, int32_t layer, int32_t end)
{
    (void)c;
    return layer % 2 == 0 && layer < end;
}

static void read_qwen2_moe(struct config_reader *r, struct model_config *out)
{
    read_qwen_moe(r, out);
    out->qkv_bias = config_bool(r, r->root, "qkv_bias", true);
    out->moe.shared_ffn = (int32_t)config_int(r, r->root, "shared_expert_intermediate_size", 1,
                                              FFN_MAX, CONFIG_REQUIRED);
    out->moe.shared_gate = true;
    if (config_bool(r, r->root, "use_sliding_window", false)) {
        int64_t end = config_int(r, r->root, "max_window_layers", 0, 1 << 20, 28);
        config_read_windows(r, out, even_below, (int32_t)end);
    }
}

static void read_qwen3_moe(struct config_reader *r, struct model_config *out)
{
    read_qwen_moe(r, out);
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    out->qk_norm = QK_NORM_HEAD;
    if (config_bool(r, r->root, "use_sliding_window", false))
        config_read_windows(r, out, config_every_layer, 0);
}

static void read_olmoe(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->naming = NAMING_QWEN_MOE;
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    out->qk_norm = QK_NORM_FULL;
    out->clip_qkv = (float)config_real(r, r->root, "clip_qkv", 0, 1e9, 0);
    config_read_rope(r, out);
    config_read_experts(r, out, "intermediate_size");
    out->moe.score = ROUTE_SOFTMAX;
    out->moe.normalize = config_bool(r, r->root, "norm_topk_prob", false);
}

static void read_granite_moe(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->naming = NAMING_GRANITE_MOE;
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    config_read_multipliers(r, out);
    config_read_rope(r, out);
    config_read_experts(r, out, "intermediate_size");
    out->moe.score = ROUTE_SOFTMAX_TOP;
    out->moe.shared_ffn =
        (int32_t)config_int(r, r->root, "shared_intermediate_size", 0, FFN_MAX, 0);
}

static void read_gpt_oss(struct config_reader *r, struct model_config *out)
{
    out->naming = NAMING_GPT_OSS;
    out->activation = GLU_CLAMPED;
    out->glu_limit = (float)config_real(r, r->root, "swiglu_limit", 1e-3, 1e6, 7);
    out->glu_alpha = (float)config_real(r, r->root, "swiglu_alpha", 1e-3, 1e3, 1.702);
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", true);
    out->sinks = true;
    config_read_windows(r, out, config_even_layers, 0);
    config_read_rope(r, out);
    config_read_experts(r, out, "intermediate_size");
    out->moe.score = ROUTE_SOFTMAX_TOP;
    out->moe.router_bias = out->moe.expert_bias = true;
}

static void read_jetmoe(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "activation_function", "silu", out);
    out->naming = NAMING_JETMOE;
    out->attention = ATTENTION_MOA;
    out->block_norm_eps = 1e-6f; /* rms_norm_eps is the last norm's alone */
    out->head_dim = (int32_t)config_int(r, r->root, "kv_channels", 2, HEAD_DIM_MAX, 128);
    config_read_experts(r, out, "intermediate_size");
    config_read_rope(r, out);
    out->moe.score = ROUTE_SOFTMAX_TOP;
    out->o_bias = out->mlp_bias = true;
    if (!r->status && out->heads != out->kv_heads * out->moe.top_k)
        config_fail(r, ST_INVALID,
                    "num_attention_heads: expected num_key_value_heads * num_experts_per_tok = %d, "
                    "got %d",
                    out->kv_heads * out->moe.top_k, out->heads);
}

/* Numbers that some files give per layer: all must be equal. */
static int32_t read_per_layer(struct config_reader *r, const char *key, int64_t max,
                              int64_t otherwise)
{
    const json *v = json_get(r->root, key);
    if (json_kind_of(v) != JSON_ARR)
        return (int32_t)config_int(r, r->root, key, 1, max, (double)otherwise);
    int64_t first = json_as_int(json_at(v, 0), 0);
    for (size_t i = 0; i < json_count(v); i++)
        if (json_as_int(json_at(v, i), 0) != first)
            config_fail(r, ST_UNSUPPORTED, "%s: layers that differ are not supported", key);
    if (first < 1 || first > max)
        config_fail(r, ST_INVALID, "%s: expected integers of 1 to %lld", key, (long long)max);
    return (int32_t)first;
}

static void read_hunyuan_moe(struct config_reader *r, struct model_config *out)
{
    config_read_activation(r, "hidden_act", "silu", out);
    out->naming = NAMING_HUNYUAN;
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    config_read_rope(r, out);
    config_read_shared_keys(r, out);
    struct moe_config *m = &out->moe;
    const char *key = config_experts_key(r);
    m->experts = read_per_layer(r, key ? key : "num_experts", OPS_EXPERTS_MAX, 1);
    m->top_k = read_per_layer(r, "moe_topk", OPS_TOP_K_MAX, 1);
    m->ffn = read_per_layer(r, "moe_intermediate_size", FFN_MAX, out->ffn);
    m->shared_ffn = out->ffn * read_per_layer(r, "num_shared_expert", 64, 1);
    m->score = ROUTE_SOFTMAX_TOP;
    if (!r->status && (m->top_k > m->experts || m->shared_ffn > FFN_MAX))
        config_fail(r, ST_INVALID, "moe_topk: expected at most num_experts");
    if (!r->status && (int64_t)m->experts * out->layers > PARTS_MAX)
        config_fail(r, ST_INVALID, "num_experts: expected at most %d in all layers together",
                    PARTS_MAX);
    for (int32_t i = 0; i < out->layers; i++)
        out->layer[i].mlp = MLP_MOE;
}

static const struct size_defaults mixtral_defaults = {.theta = 1e6, .eps = 1e-5f};
static const struct size_defaults qwen_moe_defaults = {.window = 4096};
static const struct size_defaults olmoe_defaults = {.eps = 1e-5f};
static const struct size_defaults gpt_oss_defaults = {
    .head_dim = 64, .window = 128, .theta = 150000, .eps = 1e-5f};
static const struct size_defaults jetmoe_defaults = {.tied = true};
static const struct size_defaults hunyuan_defaults = {.eps = 1e-5f};

const struct architecture config_moe_rows[] = {
    {"MixtralForCausalLM", "mixtral", read_mixtral, &mixtral_defaults},
    {"Qwen2MoeForCausalLM", "qwen2_moe", read_qwen2_moe, &qwen_moe_defaults},
    {"Qwen3MoeForCausalLM", "qwen3_moe", read_qwen3_moe, &qwen_moe_defaults},
    {"OlmoeForCausalLM", "olmoe", read_olmoe, &olmoe_defaults},
    {"GraniteMoeForCausalLM", "granitemoe", read_granite_moe, NULL},
    {"GraniteMoeSharedForCausalLM", "granitemoeshared", read_granite_moe, NULL},
    {"GptOssForCausalLM", "gpt_oss", read_gpt_oss, &gpt_oss_defaults},
    {"JetMoeForCausalLM", "jetmoe", read_jetmoe, &jetmoe_defaults},
    {"HunYuanMoEV1ForCausalLM", "hunyuan_v1_moe", read_hunyuan_moe, &hunyuan_defaults},
    {"HunYuanForCausalLM", "hunyuan", read_hunyuan_moe, &hunyuan_defaults},
    {0},
};
