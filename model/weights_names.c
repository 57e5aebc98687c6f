/* How checkpoints name their tensors. */
#include <stddef.h>

#include "model/weights_list.h"

#define L "model.layers.%d."
#define B "blk.%d."

static const char
    *const names[NAMINGS][W_ROLES] =
        {
            [NAMING_LLAMA] =
                {
                    [W_EMBED] = "model.embed_tokens.weight",
                    [W_NORM] = "model.norm.weight",
                    [W_HEAD] = "lm_head.weight",
                    [W_ATTN_NORM] = L "input_layernorm.weight",
                    [W_MLP_NORM] = L "post_attention_layernorm.weight",
                    [W_Q] = L "self_attn.q_proj.weight",
                    [W_K] = L "self_attn.k_proj.weight",
                    [W_V] = L "self_attn.v_proj.weight",
                    [W_O] = L "self_attn.o_proj.weight",
                    [W_Q_BIAS] = L "self_attn.q_proj.bias",
                    [W_K_BIAS] = L "self_attn.k_proj.bias",
                    [W_V_BIAS] = L "self_attn.v_proj.bias",
                    [W_O_BIAS] = L "self_attn.o_proj.bias",
                    [W_Q_NORM] = L "self_attn.q_norm.weight",
                    [W_K_NORM] = L "self_attn.k_norm.weight",
                    [W_GATE] = L "mlp.gate_proj.weight",
                    [W_UP] = L "mlp.up_proj.weight",
                    [W_DOWN] = L "mlp.down_proj.weight",
                    [W_GATE_BIAS] = L "mlp.gate_proj.bias",
                    [W_UP_BIAS] = L "mlp.up_proj.bias",
                    [W_DOWN_BIAS] = L "mlp.down_proj.bias",
                },
            [NAMING_PHI3] =
                {
                    [W_QKV] = L "self_attn.qkv_proj.weight",
                    [W_GATE_UP] = L "mlp.gate_up_proj.weight",
                },
            [NAMING_OLMO2] =
                {
                    [W_ATTN_POST_NORM] = L "post_attention_layernorm.weight",
                    [W_MLP_POST_NORM] = L "post_feedforward_layernorm.weight",
                },
            [NAMING_GEMMA] =
                {
                    [W_ATTN_POST_NORM] = L "post_attention_layernorm.weight",
                    [W_MLP_NORM] = L "pre_feedforward_layernorm.weight",
                    [W_MLP_POST_NORM] = L "post_feedforward_layernorm.weight",
                },
            [NAMING_MIXTRAL] =
                {
                    [W_ROUTER] = L "block_sparse_moe.gate.weight",
                    [W_EXPERT_GATE] = L "block_sparse_moe.experts.%d.w1.weight",
                    [W_EXPERT_UP] = L "block_sparse_moe.experts.%d.w3.weight",
                    [W_EXPERT_DOWN] = L "block_sparse_moe.experts.%d.w2.weight",
                },
            [NAMING_QWEN_MOE] =
                {
                    [W_ROUTER] = L "mlp.gate.weight",
                    [W_EXPERT_GATE] = L "mlp.experts.%d.gate_proj.weight",
                    [W_EXPERT_UP] = L "mlp.experts.%d.up_proj.weight",
                    [W_EXPERT_DOWN] = L "mlp.experts.%d.down_proj.weight",
                    [W_SHARED_GATE] = L "mlp.shared_expert.gate_proj.weight",
                    [W_SHARED_UP] = L "mlp.shared_expert.up_proj.weight",
                    [W_SHARED_DOWN] = L "mlp.shared_expert.down_proj.weight",
                    [W_SHARED_WEIGHT] = L "mlp.shared_expert_gate.weight",
                },
            [NAMING_GRANITE_MOE] =
                {
                    [W_ROUTER] = L "block_sparse_moe.router.layer.weight",
                    [W_EXPERTS_GATE_UP] = L "block_sparse_moe.input_linear.weight",
                    [W_EXPERTS_DOWN] = L "block_sparse_moe.output_linear.weight",
                    [W_SHARED_GATE_UP] = L "shared_mlp.input_linear.weight",
                    [W_SHARED_DOWN] = L "shared_mlp.output_linear.weight",
                },
            [NAMING_GPT_OSS] =
                {
                    [W_SINKS] = L "self_attn.sinks",
                    [W_ROUTER] = L "mlp.router.weight",
                    [W_ROUTER_BIAS] = L "mlp.router.bias",
                    [W_EXPERTS_GATE_UP] = L "mlp.experts.gate_up_proj",
                    [W_EXPERTS_DOWN] = L "mlp.experts.down_proj",
                    [W_EXPERTS_GATE_UP_BIAS] = L "mlp.experts.gate_up_proj_bias",
                    [W_EXPERTS_DOWN_BIAS] = L "mlp.experts.down_proj_bias",
                },
            [NAMING_DEEPSEEK] =
                {
                    [W_Q_A] = L "self_attn.q_a_proj.weight",
                    [W_Q_A_BIAS] = L "self_attn.q_a_proj.bias",
                    [W_Q_A_NORM] = L "self_attn.q_a_layernorm.weight",
                    [W_Q_B] = L "self_attn.q_b_proj.weight",
                    [W_KV_A] = L "self_attn.kv_a_proj_with_mqa.weight",
                    [W_KV_A_BIAS] = L "self_attn.kv_a_proj_with_mqa.bias",
                    [W_KV_A_NORM] = L "self_attn.kv_a_layernorm.weight",
                    [W_KV_B] = L "self_attn.kv_b_proj.weight",
                    [W_ROUTER] = L "mlp.gate.weight",
                    [W_CHOICE_BIAS] = L "mlp.gate.e_score_correction_bias",
                    [W_EXPERT_GATE] = L "mlp.experts.%d.gate_proj.weight",
                    [W_EXPERT_UP] = L "mlp.experts.%d.up_proj.weight",
                    [W_EXPERT_DOWN] = L "mlp.experts.%d.down_proj.weight",
                    [W_SHARED_GATE] = L "mlp.shared_experts.gate_proj.weight",
                    [W_SHARED_UP] = L "mlp.shared_experts.up_proj.weight",
                    [W_SHARED_DOWN] = L "mlp.shared_experts.down_proj.weight",
                    [W_MTP_EMBED] = L "embed_tokens.weight",
                    [W_MTP_EMBED_NORM] = L "enorm.weight",
                    [W_MTP_HIDDEN_NORM] = L "hnorm.weight",
                    [W_MTP_PROJECT] = L "eh_proj.weight",
                    [W_MTP_NORM] = L "shared_head.norm.weight",
                    [W_MTP_HEAD] = L "shared_head.head.weight",
                },
            [NAMING_JETMOE] =
                {
                    [W_KV] = L "self_attention.kv_proj.weight",
                    [W_O_BIAS] = L "self_attention.experts.bias",
                    [W_MOA_ROUTER] = L "self_attention.experts.router.layer.weight",
                    [W_MOA_IN] = L "self_attention.experts.input_linear.weight",
                    [W_MOA_OUT] = L "self_attention.experts.output_linear.weight",
                    [W_ROUTER] = L "mlp.router.layer.weight",
                    [W_EXPERTS_GATE_UP] = L "mlp.input_linear.weight",
                    [W_EXPERTS_DOWN] = L "mlp.output_linear.weight",
                    [W_DOWN_BIAS] = L "mlp.bias",
                },
            [NAMING_HUNYUAN] =
                {
                    [W_Q_NORM] = L "self_attn.query_layernorm.weight",
                    [W_K_NORM] = L "self_attn.key_layernorm.weight",
                    [W_ROUTER] = L "mlp.gate.wg.weight",
                    [W_EXPERT_GATE] = L "mlp.experts.%d.gate_proj.weight",
                    [W_EXPERT_UP] = L "mlp.experts.%d.up_proj.weight",
                    [W_EXPERT_DOWN] = L "mlp.experts.%d.down_proj.weight",
                    [W_SHARED_GATE] = L "mlp.shared_mlp.gate_proj.weight",
                    [W_SHARED_UP] = L "mlp.shared_mlp.up_proj.weight",
                    [W_SHARED_DOWN] = L "mlp.shared_mlp.down_proj.weight",
                },
#define GGUF_NAMES                                                                                 \
    [W_EMBED] = "token_embd.weight", [W_NORM] = "output_norm.weight", [W_HEAD] = "output.weight",  \
    [W_ATTN_NORM] = B "attn_norm.weight", [W_ATTN_POST_NORM] = B "post_attention_norm.weight",     \
    [W_MLP_POST_NORM] = B "post_ffw_norm.weight", [W_Q] = B "attn_q.weight",                       \
    [W_K] = B "attn_k.weight", [W_V] = B "attn_v.weight", [W_O] = B "attn_output.weight",          \
    [W_Q_BIAS] = B "attn_q.bias", [W_K_BIAS] = B "attn_k.bias", [W_V_BIAS] = B "attn_v.bias",      \
    [W_O_BIAS] = B "attn_output.bias", [W_Q_NORM] = B "attn_q_norm.weight",                        \
    [W_K_NORM] = B "attn_k_norm.weight", [W_SINKS] = B "attn_sinks.weight",                        \
    [W_DOWN] = B "ffn_down.weight", [W_ROUTER] = B "ffn_gate_inp.weight",                          \
    [W_ROUTER_BIAS] = B "ffn_gate_inp.bias", [W_CHOICE_BIAS] = B "exp_probs_b.bias",               \
    [W_EXPERTS_GATE] = B "ffn_gate_exps.weight", [W_EXPERTS_UP] = B "ffn_up_exps.weight",          \
    [W_EXPERTS_DOWN] = B "ffn_down_exps.weight", [W_EXPERTS_GATE_BIAS] = B "ffn_gate_exps.bias",   \
    [W_EXPERTS_UP_BIAS] = B "ffn_up_exps.bias", [W_EXPERTS_DOWN_BIAS] = B "ffn_down_exps.bias",    \
    [W_SHARED_GATE] = B "ffn_gate_shexp.weight", [W_SHARED_UP] = B "ffn_up_shexp.weight",          \
    [W_SHARED_DOWN] = B "ffn_down_shexp.weight",                                                   \
    [W_SHARED_WEIGHT] = B "ffn_gate_inp_shexp.weight", [W_Q_A] = B "attn_q_a.weight",              \
    [W_Q_A_NORM] = B "attn_q_a_norm.weight", [W_Q_B] = B "attn_q_b.weight",                        \
    [W_KV_A] = B "attn_kv_a_mqa.weight", [W_KV_A_NORM] = B "attn_kv_a_norm.weight",                \
    [W_KV_B] = B "attn_kv_b.weight", [W_K_B] = B "attn_k_b.weight", [W_V_B] = B "attn_v_b.weight"
            [NAMING_GGUF] =
                {GGUF_NAMES, [W_MLP_NORM] = B "ffn_norm.weight", [W_GATE] = B "ffn_gate.weight",
                 [W_UP] = B "ffn_up.weight", [W_GATE_BIAS] = B "ffn_gate.bias",
                 [W_UP_BIAS] = B "ffn_up.bias", [W_DOWN_BIAS] = B "ffn_down.bias"},
            [NAMING_GGUF_PHI3] = {GGUF_NAMES, [W_MLP_NORM] = B "ffn_norm.weight",
                                  [W_QKV] = B "attn_qkv.weight", [W_GATE_UP] = B "ffn_up.weight"},
            [NAMING_GGUF_GPT_OSS] = {GGUF_NAMES, [W_MLP_NORM] = B "post_attention_norm.weight",
                                     [W_GATE] = B "ffn_gate.weight", [W_UP] = B "ffn_up.weight"},
};

const char *weights_name(enum weight_naming naming, enum weight_role role)
{
    const char *own = names[naming][role];
    return own ? own : names[NAMING_LLAMA][role];
}
