/* The rows of models with multi-head latent attention: DeepSeek-V2, -V3 and R1 (DeepSeek-AI 2024,
 * 2025), and what was built like them. */
#include <math.h>
#include <string.h>

#include "model/config_internal.h"

/* YaRN's second factor goes into the scores. */
static float latent_scale(struct config_reader *r, const struct model_config *c)
{
    const struct latent_config *l = &c->latent;
    double scale = 1 / sqrt(l->nope_dim + l->rope_dim);
    const json *rope = config_object(r, r->root, "rope_parameters");
    if (!rope)
        rope = config_object(r, r->root, "rope_scaling");
    double all = config_real(r, rope, "mscale_all_dim", 0, 1e6, 0);
    if (c->ropes[0].kind == ROPE_YARN && all > 0 && c->ropes[0].factor > 1) {
        double m = 0.1 * all * log(c->ropes[0].factor) + 1;
        scale *= m * m;
    }
    return (float)scale;
}

static void read_latent(struct config_reader *r, struct model_config *out)
{
    struct latent_config *l = &out->latent;
    out->naming = NAMING_DEEPSEEK;
    out->attention = ATTENTION_LATENT;
    config_read_activation(r, "hidden_act", "silu", out);
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    l->q_rank = (int32_t)config_int(r, r->root, "q_lora_rank", 0, HIDDEN_MAX, 0);
    l->kv_rank = (int32_t)config_int(r, r->root, "kv_lora_rank", 1, HEAD_DIM_MAX, CONFIG_REQUIRED);
    l->nope_dim =
        (int32_t)config_int(r, r->root, "qk_nope_head_dim", 1, HEAD_DIM_MAX, CONFIG_REQUIRED);
    l->rope_dim =
        (int32_t)config_int(r, r->root, "qk_rope_head_dim", 2, HEAD_DIM_MAX, CONFIG_REQUIRED);
    l->value_dim = (int32_t)config_int(r, r->root, "v_head_dim", 1, HEAD_DIM_MAX, CONFIG_REQUIRED);
    if (!r->status && l->rope_dim % 2 != 0)
        config_fail(r, ST_INVALID, "qk_rope_head_dim: expected an even number, got %d",
                    l->rope_dim);
    if (!r->status && (int64_t)out->heads * out->layers > PARTS_MAX)
        config_fail(r, ST_INVALID,
                    "num_attention_heads: expected at most %d in all layers together", PARTS_MAX);
    out->head_dim = l->nope_dim + l->rope_dim;
    out->kv_heads = 1;
    config_read_rope(r, out);
    out->rope_interleaved = config_bool(r, r->root, "rope_interleave", true);
    if (!r->status)
        out->attention_scale = latent_scale(r, out);
}

/* The first layers are dense, then each moe_layer_freq-th is a mixture. */
static void read_moe(struct config_reader *r, struct model_config *out)
{
    struct moe_config *m = &out->moe;
    if (!config_experts_key(r))
        return;
    config_read_experts(r, out, "moe_intermediate_size");
    int64_t dense = config_int(r, r->root, "first_k_dense_replace", 0, MODEL_LAYERS_MAX, 0);
    int64_t step = config_int(r, r->root, "moe_layer_freq", 1, MODEL_LAYERS_MAX, 1);
    for (int32_t i = 0; i < out->layers; i++)
        out->layer[i].mlp = i >= dense && i % step == 0 ? MLP_MOE : MLP_DENSE;
    int64_t shared = config_int(r, r->root, "n_shared_experts", 0, 1024, 0);
    if (!r->status && shared * m->ffn > FFN_MAX)
        config_fail(r, ST_INVALID, "n_shared_experts * moe_intermediate_size: expected at most %d",
                    FFN_MAX);
    m->shared_ffn = (int32_t)(shared * m->ffn);
    m->scale = (float)config_real(r, r->root, "routed_scaling_factor", 1e-6, 1e6, 1);
    m->normalize = config_bool(r, r->root, "norm_topk_prob", false);
}

static void read_groups(struct config_reader *r, struct moe_config *m)
{
    m->groups = (int32_t)config_int(r, r->root, "n_group", 1, OPS_EXPERTS_MAX, 1);
    m->top_groups = (int32_t)config_int(r, r->root, "topk_group", 1, OPS_EXPERTS_MAX, 1);
    if (r->status || m->experts == 0)
        return;
    int32_t size = m->experts / m->groups;
    if (m->experts % m->groups != 0 || m->top_groups > m->groups)
        config_fail(r, ST_INVALID,
                    "n_group: expected a divisor of n_routed_experts, and at least topk_group");
    else if (m->top_k > m->top_groups * size)
        config_fail(r, ST_INVALID,
                    "num_experts_per_tok: expected at most the %d experts of topk_group groups",
                    m->top_groups * size);
    if (m->groups == 1)
        m->groups = m->top_groups = 0;
}

static void read_deepseek_v2(struct config_reader *r, struct model_config *out)
{
    char method[64];
    read_latent(r, out);
    read_moe(r, out);
    out->moe.score = ROUTE_SOFTMAX;
    config_str(r, r->root, "topk_method", method, sizeof method, "greedy");
    if (strcmp(method, "group_limited_greedy") == 0)
        read_groups(r, &out->moe);
    else if (strcmp(method, "greedy") != 0)
        config_fail(r, ST_UNSUPPORTED,
                    "topk_method: \"%s\" is not supported (supported: greedy, "
                    "group_limited_greedy)",
                    method);
}

static void read_deepseek_v3(struct config_reader *r, struct model_config *out)
{
    read_latent(r, out);
    read_moe(r, out);
    out->moe.score = ROUTE_SIGMOID;
    out->moe.choice_bias = true;
    out->moe.normalize = config_bool(r, r->root, "norm_topk_prob", true);
    read_groups(r, &out->moe);
    out->mtp_layers = (int32_t)config_int(r, r->root, "num_nextn_predict_layers", 0, 8, 0);
    if (!r->status && out->layers + out->mtp_layers > MODEL_LAYERS_MAX)
        config_fail(r, ST_INVALID, "num_hidden_layers: expected at most %d", MODEL_LAYERS_MAX);
}

const struct architecture config_latent_rows[] = {
    {"DeepseekV2ForCausalLM", "deepseek_v2", read_deepseek_v2, NULL},
    {"DeepseekV3ForCausalLM", "deepseek_v3", read_deepseek_v3, NULL},
    {0},
};
