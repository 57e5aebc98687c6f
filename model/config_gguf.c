/* The metadata of a GGUF file to the feature table: it is written as the config.json that the model
 * had before it was converted, and read by the same rows, with the same checks. What the conversion
 * changed in the tensors (their names, halves of rotated heads in turns, norms with their one
 * added) is put right afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/weight_source.h"
#include "model/config_internal.h"

#define FACTORS_MAX MODEL_ROPE_FACTORS

struct writer {
    struct jw w;
    const struct gguf *g;
    const struct weight_source *source;
    char arch[64];
    struct error *err;
    enum status status;
};

/* ---- reading ---- */

static const char *full_key(const struct writer *w, const char *key, char out[160])
{
    snprintf(out, 160, "%s.%s", w->arch, key);
    return out;
}

static bool has_key(const struct writer *w, const char *key)
{
    char name[160];
    return gguf_find(w->g, full_key(w, key, name)) != NULL;
}

static int64_t int_of(const struct writer *w, const char *key, int64_t fallback)
{
    char name[160];
    int64_t v = gguf_int(w->g, full_key(w, key, name), fallback);
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v; /* sums do not overflow */
}

static double number_of(const struct writer *w, const char *key, double fallback)
{
    char name[160];
    return gguf_number(w->g, full_key(w, key, name), fallback);
}

static bool has_tensor(const struct writer *w, const char *name)
{
    return weight_source_find(w->source, name) != NULL;
}

/* ---- writing ---- */

static void put_int(struct writer *w, const char *key, int64_t v)
{
    jw_key(&w->w, key);
    jw_int(&w->w, v);
}

static void put_real(struct writer *w, const char *key, double v)
{
    jw_key(&w->w, key);
    jw_real(&w->w, v);
}

static void put_bool(struct writer *w, const char *key, bool v)
{
    jw_key(&w->w, key);
    jw_bool(&w->w, v);
}

static void copy_int(struct writer *w, const char *key, const char *from)
{
    if (has_key(w, from))
        put_int(w, key, int_of(w, from, -1));
}

static void copy_real(struct writer *w, const char *key, const char *from)
{
    if (has_key(w, from))
        put_real(w, key, number_of(w, from, 0));
}

/* A count that some files give per layer: where all are equal, it is one. */
static void copy_count(struct writer *w, const char *key, const char *from)
{
    char name[160];
    const struct gguf_value *v = gguf_find(w->g, full_key(w, from, name));
    if (!v)
        return;
    int64_t first = gguf_item_int(v, 0, -1);
    for (uint64_t i = 1; i < v->count; i++)
        if (gguf_item_int(v, i, -1) != first && !w->status)
            w->status = err_set(w->err, ST_UNSUPPORTED,
                                "%s: layers that differ in it are not supported", name);
    put_int(w, key, first);
}

/* One-dimensional tensors of factors, one per rotated pair. */
static void put_factors(struct writer *w, const char *key, const char *tensor)
{
    const struct weight *t = weight_source_find(w->source, tensor);
    float *v = NULL;
    if (t && t->readable && t->rank == 1 && t->cols >= 1 && t->cols <= FACTORS_MAX)
        v = malloc((size_t)t->cols * sizeof *v);
    jw_key(&w->w, key);
    jw_arr(&w->w);
    if (v) {
        weight_read_rows(t, 0, 1, v);
        for (uint64_t i = 0; i < t->cols; i++)
            jw_real(&w->w, (double)v[i]);
    }
    jw_end_arr(&w->w);
    free(v);
}

/* Factors for each pair are LongRoPE's, or those of Llama 3, which hold for texts of any length. */
static void put_scaling(struct writer *w)
{
    char name[160], kind[32] = "";
    struct gguf_str s = gguf_string(w->g, full_key(w, "rope.scaling.type", name));
    if (s.s && s.len < sizeof kind)
        memcpy(kind, s.s, s.len);
    const bool both = has_tensor(w, "rope_factors_long.weight");
    const bool one = has_tensor(w, "rope_freqs.weight");
    if (!both && !one && (!*kind || strcmp(kind, "none") == 0))
        return;
    jw_key(&w->w, "rope_scaling");
    jw_obj(&w->w);
    jw_key(&w->w, "rope_type");
    jw_str(&w->w, both || one ? "longrope" : kind);
    if (both || one) {
        put_factors(w, "short_factor", both ? "rope_factors_short.weight" : "rope_freqs.weight");
        put_factors(w, "long_factor", both ? "rope_factors_long.weight" : "rope_freqs.weight");
    }
    if (one)
        put_real(w, "attention_factor", 1);
    else
        copy_real(w, "attention_factor", "rope.scaling.attn_factor");
    if (!both && !one)
        copy_real(w, "factor", "rope.scaling.factor");
    if (!one)
        copy_int(w, "original_max_position_embeddings", "rope.scaling.original_context_length");
    copy_real(w, "beta_fast", "rope.scaling.yarn_beta_fast");
    copy_real(w, "beta_slow", "rope.scaling.yarn_beta_slow");
    if (strcmp(w->arch, "gpt-oss") == 0)
        put_bool(w, "truncate", false);
    if (has_key(w, "rope.scaling.yarn_log_multiplier")) {
        double all = number_of(w, "rope.scaling.yarn_log_multiplier", 0) * 10;
        put_real(w, "mscale", all);
        put_real(w, "mscale_all_dim", all);
    }
    jw_end_obj(&w->w);
}

static void put_tokens(struct writer *w)
{
    const struct gguf_value *tokens = gguf_find(w->g, "tokenizer.ggml.tokens");
    const struct weight *embed = weight_source_find(w->source, "token_embd.weight");
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    put_int(w, "vocab_size", embed ? (int64_t)embed->rows : tokens ? (int64_t)tokens->count : 0);
    if (gguf_find(w->g, "tokenizer.ggml.bos_token_id"))
        put_int(w, "bos_token_id", gguf_int(w->g, "tokenizer.ggml.bos_token_id", 0));
    jw_key(&w->w, "eos_token_id");
    jw_arr(&w->w);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (gguf_find(w->g, ends[i]))
            jw_int(&w->w, gguf_int(w->g, ends[i], 0));
    jw_end_arr(&w->w);
}

static void put_experts(struct writer *w)
{
    int64_t ffn = int_of(w, "expert_feed_forward_length", 0), shared;
    char name[160];
    put_int(w, "num_experts", int_of(w, "expert_count", 0));
    copy_int(w, "num_experts_per_tok", "expert_used_count");
    if (ffn > 0)
        put_int(w, "moe_intermediate_size", ffn);
    shared = int_of(w, "expert_shared_feed_forward_length", 0);
    if (shared > 0) {
        put_int(w, "shared_expert_intermediate_size", shared);
        put_int(w, "shared_intermediate_size", shared);
    }
    put_bool(w, "norm_topk_prob",
             gguf_bool(w->g, full_key(w, "expert_weights_norm", name),
                       strcmp(w->arch, "qwen3moe") == 0));
    copy_real(w, "routed_scaling_factor", "expert_weights_scale");
    copy_int(w, "first_k_dense_replace", "leading_dense_block_count");
    copy_int(w, "n_shared_experts", "expert_shared_count");
    copy_int(w, "n_group", "expert_group_count");
    copy_int(w, "topk_group", "expert_group_used_count");
}

static void put_latent(struct writer *w)
{
    const char *mla = has_key(w, "attention.key_length_mla") ? "attention.key_length_mla"
                                                             : "attention.key_length";
    const char *value = has_key(w, "attention.value_length_mla") ? "attention.value_length_mla"
                                                                 : "attention.value_length";
    int64_t rope = int_of(w, "rope.dimension_count", 0);
    copy_int(w, "q_lora_rank", "attention.q_lora_rank");
    copy_int(w, "kv_lora_rank", "attention.kv_lora_rank");
    put_int(w, "qk_rope_head_dim", rope);
    put_int(w, "qk_nope_head_dim", int_of(w, mla, 0) - rope);
    copy_int(w, "v_head_dim", value);
    put_int(w, "num_key_value_heads", int_of(w, "attention.head_count", 1));
}

/* The scale of scores that llama.cpp's converters leave out, since it follows from the size. */
static void put_gemma(struct writer *w)
{
    int64_t layers = int_of(w, "block_count", 0), heads = int_of(w, "attention.head_count", 1);
    int64_t dim = int_of(w, "attention.key_length", 256);
    bool largest = strcmp(w->arch, "gemma2") == 0 ? layers == 46 : layers == 62;
    if (largest && heads > 0)
        dim = int_of(w, "embedding_length", 0) / heads;
    put_int(w, "query_pre_attn_scalar", dim);
    copy_real(w, "attn_logit_softcapping", "attn_logit_softcapping");
    copy_real(w, "final_logit_softcapping", "final_logit_softcapping");
}

static void put_sizes(struct writer *w, bool latent, bool moe)
{
    int64_t dim = int_of(w, "attention.key_length", 0), rope = int_of(w, "rope.dimension_count", 0);
    int64_t heads = int_of(w, "attention.head_count", 0);
    int64_t hidden = int_of(w, "embedding_length", 0);
    put_int(w, "hidden_size", hidden);
    put_int(w, "num_hidden_layers",
            int_of(w, "block_count", 0) - int_of(w, "nextn_predict_layers", 0));
    copy_int(w, "max_position_embeddings", "context_length");
    copy_real(w, "rms_norm_eps", "attention.layer_norm_rms_epsilon");
    put_real(w, "rope_theta", number_of(w, "rope.freq_base", 10000));
    copy_int(w, "sliding_window", "attention.sliding_window");
    copy_count(w, "num_attention_heads", "attention.head_count");
    if (!latent)
        copy_count(w, "num_key_value_heads", "attention.head_count_kv");
    if (moe && !has_key(w, "feed_forward_length"))
        copy_int(w, "intermediate_size", "expert_feed_forward_length");
    else
        copy_count(w, "intermediate_size", "feed_forward_length");
    if (latent)
        return;
    if (dim <= 0 && heads > 0 && hidden % heads == 0)
        dim = hidden / heads; /* whatever the class has by default */
    if (dim > 0)
        put_int(w, "head_dim", dim);
    if (rope > 0 && dim > 0 && rope != dim)
        put_real(w, "partial_rotary_factor", (double)rope / (double)dim);
}

/* ---- architectures ---- */

static const struct known {
    const char *arch, *name, *moe_name;
    enum weight_naming naming;
    bool interleaved; /* rotated pairs were put side by side */
} known[] = {
    {"llama", "LlamaForCausalLM", "MixtralForCausalLM", NAMING_GGUF, true},
    {"qwen2", "Qwen2ForCausalLM", NULL, NAMING_GGUF, false},
    {"qwen3", "Qwen3ForCausalLM", NULL, NAMING_GGUF, false},
    {"qwen2moe", NULL, "Qwen2MoeForCausalLM", NAMING_GGUF, false},
    {"qwen3moe", NULL, "Qwen3MoeForCausalLM", NAMING_GGUF, false},
    {"gemma", "GemmaForCausalLM", NULL, NAMING_GGUF, false},
    {"gemma2", "Gemma2ForCausalLM", NULL, NAMING_GGUF, false},
    {"gemma3", "Gemma3ForCausalLM", NULL, NAMING_GGUF, false},
    {"phi3", "Phi3ForCausalLM", NULL, NAMING_GGUF_PHI3, false},
    {"olmo2", "Olmo2ForCausalLM", NULL, NAMING_GGUF, false},
    {"olmoe", NULL, "OlmoeForCausalLM", NAMING_GGUF, false},
    {"granite", "GraniteForCausalLM", NULL, NAMING_GGUF, true},
    {"granitemoe", NULL, "GraniteMoeSharedForCausalLM", NAMING_GGUF, true},
    {"smollm3", "SmolLM3ForCausalLM", NULL, NAMING_GGUF, true},
    {"gpt-oss", NULL, "GptOssForCausalLM", NAMING_GGUF_GPT_OSS, false},
    {"deepseek2", "DeepseekV2ForCausalLM", "DeepseekV2ForCausalLM", NAMING_GGUF, true},
    {"hunyuan-dense", "HunYuanDenseV1ForCausalLM", NULL, NAMING_GGUF, false},
};
#define N_KNOWN (sizeof known / sizeof known[0])

static const struct known *find_known(struct writer *w)
{
    struct gguf_str arch = gguf_string(w->g, "general.architecture");
    char supported[300] = "";
    if (arch.s && arch.len < sizeof w->arch)
        memcpy(w->arch, arch.s, arch.len);
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (strcmp(w->arch, known[i].arch) == 0)
            return &known[i];
        size_t n = strlen(supported);
        snprintf(supported + n, sizeof supported - n, "%s%s", n ? ", " : "", known[i].arch);
    }
    for (char *c = w->arch; *c; c++)
        *c = *c >= ' ' && *c <= '~' ? *c : '?';
    w->status = err_set(w->err, ST_UNSUPPORTED,
                        "general.architecture: \"%s\" is not supported (supported: %s)", w->arch,
                        supported);
    return NULL;
}

/* DeepSeek-V3 says so by its sigmoids, or by the biases that only it has. */
static const char *architecture_name(const struct writer *w, const struct known *k, bool moe)
{
    char bias[64];
    snprintf(bias, sizeof bias, "blk.%d.exp_probs_b.bias",
             (int)int_of(w, "leading_dense_block_count", 0));
    if (strcmp(w->arch, "deepseek2") == 0 &&
        (int_of(w, "expert_gating_func", 1) == 2 || has_tensor(w, bias)))
        return "DeepseekV3ForCausalLM";
    return moe ? k->moe_name : k->name;
}

static void write_config(struct writer *w, const struct known *k)
{
    const bool latent = strcmp(k->arch, "deepseek2") == 0;
    const bool moe = int_of(w, "expert_count", 0) > 0;
    const char *name = architecture_name(w, k, moe);
    if (!name) {
        w->status =
            err_set(w->err, ST_UNSUPPORTED, "%s.expert_count: not what %s has", w->arch, w->arch);
        return;
    }
    jw_obj(&w->w);
    jw_key(&w->w, "architectures");
    jw_arr(&w->w);
    jw_str(&w->w, name);
    jw_end_arr(&w->w);
    put_sizes(w, latent, moe);
    put_tokens(w);
    put_scaling(w);
    if (moe)
        put_experts(w);
    if (latent)
        put_latent(w);
    if (latent && has_key(w, "expert_group_count")) {
        jw_key(&w->w, "topk_method");
        jw_str(&w->w, "group_limited_greedy");
    }
    if (strncmp(k->arch, "gemma", 5) == 0)
        put_gemma(w);
    copy_real(w, "clip_qkv", "attention.clamp_kqv");
    copy_real(w, "embedding_multiplier", "embedding_scale");
    copy_real(w, "residual_multiplier", "residual_scale");
    copy_real(w, "attention_multiplier", "attention.scale");
    copy_real(w, "logits_scaling", "logit_scale");
    put_bool(w, "tie_word_embeddings", !has_tensor(w, "output.weight"));
    jw_key(&w->w, "torch_dtype");
    jw_str(&w->w, "float16");
    jw_end_obj(&w->w);
}

/* What the conversion did to the tensors. */
static void adjust(const struct writer *w, const struct known *k, struct model_config *c)
{
    c->naming = k->naming;
    c->rope_interleaved = k->interleaved;
    c->norm_offset = 0; /* the one has been added */
    c->qkv_bias = has_tensor(w, "blk.0.attn_q.bias");
    c->o_bias = has_tensor(w, "blk.0.attn_output.bias");
    c->mlp_bias = has_tensor(w, "blk.0.ffn_gate.bias");
    c->latent_split = has_tensor(w, "blk.0.attn_k_b.weight");
}

enum status config_from_gguf(const struct weight_source *source, struct model_config *out,
                             struct error *err)
{
    struct buf text = {0};
    struct writer w = {
        .w = jw_begin(&text), .g = weight_source_gguf(source), .source = source, .err = err};
    const struct known *k = find_known(&w);
    if (k)
        write_config(&w, k);
    if (!w.status && text.failed)
        w.status = err_set(err, ST_NO_MEMORY, "no memory for a model's metadata");
    if (!w.status)
        w.status = model_config_parse(text.data, text.len, out, err);
    if (!w.status)
        adjust(&w, k, out);
    buf_fini(&text);
    return w.status;
}
