/* The rows of Gemma 1, 2 and 3 (Gemma Team 2024, 2025). */
#include <math.h>
#include <string.h>

#include "model/config_internal.h"

static void read_gemma(struct config_reader *r, struct model_config *out)
{
    const char *key = json_get(r->root, "hidden_activation") ? "hidden_activation" : "hidden_act";
    config_read_activation(r, key, "gelu_pytorch_tanh", out);
    if (out->activation == GLU_GELU && strcmp(key, "hidden_act") == 0)
        out->activation = GLU_GELU_TANH; /* what the first files say, not what was trained */
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    out->norm_offset = 1;
    out->embed_scale = sqrtf((float)out->hidden);
    config_read_rope(r, out);
}

static bool not_each(const struct model_config *c, int32_t layer, int32_t pattern)
{
    (void)c;
    return (layer + 1) % pattern != 0;
}

/* A cap that a file is silent of is its class's; null is none. */
static float read_cap(struct config_reader *r, const char *key, float fallback)
{
    bool silent = !json_get(r->root, key);
    return (float)config_real(r, r->root, key, 0, 1e6, silent ? (double)fallback : 0);
}

static void read_local(struct config_reader *r, struct model_config *out)
{
    read_gemma(r, out);
    out->naming = NAMING_GEMMA;
    out->post_norm = true;
    double scalar = config_real(r, r->root, "query_pre_attn_scalar", 1e-6, 1e6, 256);
    out->attention_scale = 1.0f / sqrtf((float)scalar);
    if (config_bool(r, r->root, "use_bidirectional_attention", false))
        config_fail(r, ST_UNSUPPORTED, "use_bidirectional_attention: true is not supported");
}

static void read_gemma2(struct config_reader *r, struct model_config *out)
{
    read_local(r, out);
    out->attention_softcap = read_cap(r, "attn_logit_softcapping", 50);
    out->final_softcap = read_cap(r, "final_logit_softcapping", 30);
    config_read_windows(r, out, config_even_layers, 0);
}

static void read_gemma3(struct config_reader *r, struct model_config *out)
{
    read_local(r, out);
    out->final_softcap = read_cap(r, "final_logit_softcapping", 0); /* scores have none */
    out->qk_norm = QK_NORM_HEAD;
    int64_t pattern = config_int(r, r->root, "sliding_window_pattern", 1, 1 << 20, 6);
    config_read_windows(r, out, not_each, (int32_t)pattern);
    if (!config_read_local_rope(r, out))
        out->ropes[1].theta = config_real(r, r->root, "rope_local_base_freq", 1, 1e15, 10000.0);
}

static const struct size_defaults gemma_defaults = {.head_dim = 256, .tied = true};
static const struct size_defaults gemma2_defaults = {.head_dim = 256, .window = 4096, .tied = true};
static const struct size_defaults gemma3_defaults = {
    .vocab = 262208,
    .hidden = 2304,
    .layers = 26,
    .heads = 8,
    .kv_heads = 4,
    .head_dim = 256,
    .ffn = 9216,
    .context = 131072,
    .window = 4096,
    .theta = 1e6,
    .tied = true,
};

const struct architecture config_gemma_rows[] = {
    {"GemmaForCausalLM", "gemma", read_gemma, &gemma_defaults},
    {"Gemma2ForCausalLM", "gemma2", read_gemma2, &gemma2_defaults},
    {"Gemma3ForCausalLM", "gemma3_text", read_gemma3, &gemma3_defaults},
    {"Gemma3ForConditionalGeneration", "gemma3", read_gemma3, &gemma3_defaults},
    {0},
};
