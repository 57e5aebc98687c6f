/* The shapes of well-known models, as their published config.json files have them; ' stands for ".
 * What is left out is what the architecture takes for granted. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/make.h"
#include "model/make_files.h"

#define ARCHITECTURE(name, type) "'architectures':['" name "'],'model_type':'" type "',"
#define SIZES(vocab, hidden, ffn, layers)                                                          \
    "'vocab_size':" #vocab ",'hidden_size':" #hidden ",'intermediate_size':" #ffn                  \
    ",'num_hidden_layers':" #layers ","
#define HEADS(heads, kv_heads, head_dim)                                                           \
    "'num_attention_heads':" #heads ",'num_key_value_heads':" #kv_heads ",'head_dim':" #head_dim ","
#define CONTEXT(tokens, eps, theta)                                                                \
    "'max_position_embeddings':" #tokens ",'hidden_act':'silu','rms_norm_eps':" #eps               \
    ",'rope_theta':" #theta ","
#define PLAIN "'rope_scaling':null,"
#define LLAMA3(factor)                                                                             \
    "'rope_scaling':{'rope_type':'llama3','factor':" #factor                                       \
    ",'low_freq_factor':1.0,'high_freq_factor':4.0,'original_max_position_embeddings':8192},"
#define TIED "'tie_word_embeddings':true,"
#define UNTIED "'tie_word_embeddings':false,"
#define EXPERTS(key, n, per_token) "'" key "':" #n ",'num_experts_per_tok':" #per_token ","
#define LLAMA ARCHITECTURE("LlamaForCausalLM", "llama") "'attention_bias':false,'mlp_bias':false,"
#define QWEN2 ARCHITECTURE("Qwen2ForCausalLM", "qwen2") "'use_sliding_window':false,"
#define QWEN3_MOE                                                                                  \
    ARCHITECTURE("Qwen3MoeForCausalLM", "qwen3_moe")                                               \
    "'attention_bias':false,'decoder_sparse_step':1,'mlp_only_layers':[],'norm_topk_prob':true,"
#define MISTRAL ARCHITECTURE("MistralForCausalLM", "mistral")
#define OLMOE                                                                                      \
    ARCHITECTURE("OlmoeForCausalLM", "olmoe")                                                      \
    "'attention_bias':false,'clip_qkv':null,'norm_topk_prob':false,"

static const struct {
    const char *name, *body;
} shapes[] = {
    {"tiny-llama-test",
     LLAMA SIZES(512, 64, 176, 2) HEADS(4, 2, 16) CONTEXT(512, 1e-05, 10000.0) PLAIN TIED},
    {"tiny-moe-test", OLMOE SIZES(512, 64, 48, 2) HEADS(4, 2, 16) CONTEXT(512, 1e-05, 10000.0)
                          EXPERTS("num_experts", 8, 2) UNTIED},
    {"tiny-sinks-test",
     ARCHITECTURE("GptOssForCausalLM", "gpt_oss") SIZES(512, 64, 48, 2) HEADS(4, 2, 16)
         CONTEXT(512, 1e-05, 10000.0) EXPERTS("num_local_experts", 4, 2) UNTIED
     "'attention_bias':true,'sliding_window':32,'swiglu_limit':7.0,"},
    {"tiny-latent-test", ARCHITECTURE("DeepseekV2ForCausalLM", "deepseek_v2") SIZES(512, 64, 176, 3)
                             CONTEXT(512, 1e-06, 10000.0) EXPERTS("n_routed_experts", 8, 2) UNTIED
     "'num_attention_heads':4,'num_key_value_heads':4,'attention_bias':false,'q_lora_rank':null,"
     "'kv_lora_rank':32,'qk_nope_head_dim':16,'qk_rope_head_dim':8,'v_head_dim':16,"
     "'moe_intermediate_size':48,'n_shared_experts':1,'first_k_dense_replace':1,"
     "'moe_layer_freq':1,'topk_method':'greedy','n_group':1,'topk_group':1,"
     "'norm_topk_prob':false,'routed_scaling_factor':1.0,'scoring_func':'softmax',"},
    {"tiny-fused-test", ARCHITECTURE("Phi3ForCausalLM", "phi3") SIZES(512, 64, 176, 2)
                            HEADS(4, 2, 16) CONTEXT(512, 1e-05, 10000.0) PLAIN UNTIED
     "'original_max_position_embeddings':512,'sliding_window':null,"},
    {"smollm2-135m",
     LLAMA SIZES(49152, 576, 1536, 30) HEADS(9, 3, 64) CONTEXT(8192, 1e-05, 100000.0) PLAIN TIED},
    {"smollm2-360m",
     LLAMA SIZES(49152, 960, 2560, 32) HEADS(15, 5, 64) CONTEXT(8192, 1e-05, 100000.0) PLAIN TIED},
    {"smollm2-1.7b", LLAMA SIZES(49152, 2048, 8192, 24) HEADS(32, 32, 64)
                         CONTEXT(8192, 1e-05, 130000.0) PLAIN TIED},
    {"smollm3-3b", ARCHITECTURE("SmolLM3ForCausalLM", "smollm3") SIZES(128256, 2048, 11008, 36)
                       HEADS(16, 4, 128) CONTEXT(65536, 1e-06, 5000000.0) TIED
     "'no_rope_layer_interval':4,'use_sliding_window':false,"},
    {"tinyllama-1.1b", LLAMA SIZES(32000, 2048, 5632, 22) HEADS(32, 4, 64)
                           CONTEXT(2048, 1e-05, 10000.0) PLAIN UNTIED},
    {"llama-2-7b", LLAMA SIZES(32000, 4096, 11008, 32) HEADS(32, 32, 128)
                       CONTEXT(4096, 1e-05, 10000.0) PLAIN UNTIED},
    {"llama-3.2-1b", LLAMA SIZES(128256, 2048, 8192, 16) HEADS(32, 8, 64)
                         CONTEXT(131072, 1e-05, 500000.0) LLAMA3(32.0) TIED},
    {"llama-3.2-3b", LLAMA SIZES(128256, 3072, 8192, 28) HEADS(24, 8, 128)
                         CONTEXT(131072, 1e-05, 500000.0) LLAMA3(32.0) TIED},
    {"llama-3.1-8b", LLAMA SIZES(128256, 4096, 14336, 32) HEADS(32, 8, 128)
                         CONTEXT(131072, 1e-05, 500000.0) LLAMA3(8.0) UNTIED},
    {"mistral-7b", MISTRAL SIZES(32000, 4096, 14336, 32) HEADS(32, 8, 128)
                       CONTEXT(32768, 1e-05, 10000.0) UNTIED "'sliding_window':4096,"},
    {"qwen2.5-0.5b",
     QWEN2 SIZES(151936, 896, 4864, 24) HEADS(14, 2, 64) CONTEXT(32768, 1e-06, 1000000.0) TIED},
    {"qwen2.5-7b", QWEN2 SIZES(152064, 3584, 18944, 28) HEADS(28, 4, 128)
                       CONTEXT(32768, 1e-06, 1000000.0) UNTIED},
    {"qwen3-0.6b", ARCHITECTURE("Qwen3ForCausalLM", "qwen3") SIZES(151936, 1024, 3072, 28)
                       HEADS(16, 8, 128) CONTEXT(40960, 1e-06, 1000000.0) TIED
     "'attention_bias':false,'use_sliding_window':false,"},
    {"qwen3-30b-a3b",
     QWEN3_MOE SIZES(151936, 2048, 6144, 48) HEADS(32, 4, 128) CONTEXT(40960, 1e-06, 1000000.0)
         UNTIED EXPERTS("num_experts", 128, 8) "'moe_intermediate_size':768,"},
    {"gemma-2-2b", ARCHITECTURE("Gemma2ForCausalLM", "gemma2") SIZES(256000, 2304, 9216, 26)
                       HEADS(8, 4, 256) CONTEXT(8192, 1e-06, 10000.0) TIED
     "'hidden_activation':'gelu_pytorch_tanh','query_pre_attn_scalar':256,'sliding_window':4096,"
     "'attn_logit_softcapping':50.0,'final_logit_softcapping':30.0,"},
    {"gemma-3-1b", ARCHITECTURE("Gemma3ForCausalLM", "gemma3_text") SIZES(262144, 1152, 6912, 26)
                       HEADS(4, 1, 256) CONTEXT(32768, 1e-06, 1000000.0) TIED
     "'hidden_activation':'gelu_pytorch_tanh','query_pre_attn_scalar':256,'sliding_window':512,"
     "'rope_local_base_freq':10000.0,'sliding_window_pattern':6,"},
    {"phi-3-mini", ARCHITECTURE("Phi3ForCausalLM", "phi3") SIZES(32064, 3072, 8192, 32)
                       HEADS(32, 32, 96) CONTEXT(4096, 1e-05, 10000.0) PLAIN UNTIED
     "'original_max_position_embeddings':4096,'sliding_window':2047,"},
    {"olmo-2-1b", ARCHITECTURE("Olmo2ForCausalLM", "olmo2") SIZES(100352, 2048, 8192, 16)
                      HEADS(16, 16, 128) CONTEXT(4096, 1e-06, 500000.0) PLAIN UNTIED},
    {"olmoe-1b-7b", OLMOE SIZES(50304, 2048, 1024, 16) HEADS(16, 16, 128)
                        CONTEXT(4096, 1e-05, 10000.0) EXPERTS("num_experts", 64, 8) UNTIED},
    {"mixtral-8x7b", ARCHITECTURE("MixtralForCausalLM", "mixtral") SIZES(32000, 4096, 14336, 32)
                         HEADS(32, 8, 128) CONTEXT(32768, 1e-05, 1000000.0)
                             EXPERTS("num_local_experts", 8, 2) UNTIED "'sliding_window':null,"},
    {"gpt-oss-20b",
     ARCHITECTURE("GptOssForCausalLM", "gpt_oss") SIZES(201088, 2880, 2880, 24) HEADS(64, 8, 64)
         CONTEXT(131072, 1e-05, 150000) EXPERTS("num_local_experts", 32, 4) UNTIED
     "'attention_bias':true,'sliding_window':128,'swiglu_limit':7.0,'rope_scaling':{'rope_type':"
     "'yarn','factor':32.0,'beta_fast':32.0,'beta_slow':1.0,'truncate':false,"
     "'original_max_position_embeddings':4096},"},
    {"deepseek-v2-lite",
     ARCHITECTURE("DeepseekV2ForCausalLM", "deepseek_v2") SIZES(102400, 2048, 10944, 27)
         CONTEXT(163840, 1e-06, 10000) EXPERTS("n_routed_experts", 64, 6) UNTIED
     "'num_attention_heads':16,'num_key_value_heads':16,'attention_bias':false,'q_lora_rank':null,"
     "'kv_lora_rank':512,'qk_nope_head_dim':128,'qk_rope_head_dim':64,'v_head_dim':128,"
     "'moe_intermediate_size':1408,'n_shared_experts':2,'first_k_dense_replace':1,"
     "'moe_layer_freq':1,'topk_method':'greedy','n_group':1,'topk_group':1,'norm_topk_prob':false,"
     "'routed_scaling_factor':1.0,'scoring_func':'softmax','rope_scaling':{'type':'yarn',"
     "'factor':40,'beta_fast':32,'beta_slow':1,'mscale':0.707,'mscale_all_dim':0.707,"
     "'original_max_position_embeddings':4096},"},
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

void make_config_json(size_t shape, enum dtype dtype, struct buf *out)
{
    static const char *const dtypes[] = {
        [DTYPE_F32] = "float32", [DTYPE_BF16] = "bfloat16", [DTYPE_F16] = "float16"};
    assert(shape < N_SHAPES);
    buf_putc(out, '{');
    for (const char *c = shapes[shape].body; *c; c++)
        buf_putc(out, *c == '\'' ? '"' : *c);
    buf_printf(out, "\"bos_token_id\":%d,\"eos_token_id\":[%d,%d],\"torch_dtype\":\"%s\"}\n",
               MAKE_BOS, MAKE_EOS, MAKE_IM_END, dtypes[dtype]);
}

const char *model_make_shape(size_t i, struct model_config *config)
{
    if (i >= N_SHAPES)
        return NULL;
    if (config) {
        struct buf text = {0};
        struct error err = {0};
        make_config_json(i, DTYPE_BF16, &text);
        enum status st =
            text.failed ? ST_NO_MEMORY : model_config_parse(text.data, text.len, config, &err);
        buf_fini(&text);
        assert(st == ST_OK);
    }
    return shapes[i].name;
}
