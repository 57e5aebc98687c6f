#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"

/* A whole config with room for more members in front: with duplicate keys refused, `replaced` names
 * the member that `extra` is there instead of. */
static const struct {
    const char *key, *value;
} usual[] = {
    {"architectures", "[\"LlamaForCausalLM\"]"},
    {"model_type", "\"llama\""},
    {"vocab_size", "1000"},
    {"hidden_size", "64"},
    {"intermediate_size", "128"},
    {"num_hidden_layers", "2"},
    {"num_attention_heads", "4"},
    {"num_key_value_heads", "2"},
    {"max_position_embeddings", "512"},
    {"rms_norm_eps", "1e-05"},
    {"rope_theta", "10000.0"},
    {"torch_dtype", "\"bfloat16\""},
    {"bos_token_id", "1"},
    {"eos_token_id", "2"},
};

/* The usual config with one member's value changed or added; a NULL value leaves it out. */
static enum status parse_with(const char *key, const char *value, struct model_config *c,
                              struct error *err)
{
    char text[4096] = "{";
    size_t n = 1;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        if (strcmp(usual[i].key, key) != 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "\"%s\": %s, ", usual[i].key,
                                  usual[i].value);
    }
    if (value)
        n += (size_t)snprintf(text + n, sizeof text - n, "\"%s\": %s, ", key, value);
    snprintf(text + n, sizeof text - n, "\"end\": 0}");
    *err = (struct error){0};
    return model_config_parse(text, strlen(text), c, err);
}

Test(config, reads_the_usual)
{
    struct model_config c;
    struct error err;
    cr_assert_eq(parse_with("none", "1", &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.vocab == 1000 && c.hidden == 64 && c.ffn == 128 && c.layers == 2 && c.heads == 4 &&
              c.kv_heads == 2 && c.head_dim == 16 && c.max_context == 512);
    cr_assert(c.dtype == DTYPE_BF16 && !c.tied && !c.qkv_bias && !c.o_bias && !c.mlp_bias);
    cr_assert(c.ropes[0].kind == ROPE_DEFAULT && c.ropes[0].theta == 10000 && c.bos == 1);
    cr_assert(c.n_eos == 1 && model_config_is_eos(&c, 2) && !model_config_is_eos(&c, 1));
    cr_assert_float_eq(c.norm_eps, 1e-5f, 1e-12f);
}

Test(config, variants)
{
    struct model_config c;
    struct error err;
    cr_assert_eq(parse_with("num_key_value_heads", NULL, &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.kv_heads, 4);
    cr_assert_eq(parse_with("num_key_value_heads", "null", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.kv_heads, 4);
    cr_assert_eq(parse_with("head_dim", "24", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.head_dim, 24);
    cr_assert_eq(parse_with("head_dim", "null", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.head_dim, 16);
    cr_assert_eq(parse_with("eos_token_id", "[5, 7, 5]", &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.n_eos == 2 && c.eos[0] == 5 && c.eos[1] == 7);
    cr_assert_eq(parse_with("eos_token_id", "null", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.n_eos, 0);
    cr_assert_eq(parse_with("eos_token_id", "[2, 1000]", &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.n_eos == 1 && c.eos[0] == 2); /* the other is none of its tokens */
    cr_assert_eq(parse_with("bos_token_id", "1000", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.bos, -1);
    cr_assert_eq(parse_with("bos_token_id", "null", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.bos, -1);
    cr_assert_eq(parse_with("attention_bias", "true", &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.qkv_bias && c.o_bias && !c.mlp_bias);
    cr_assert_eq(parse_with("mlp_bias", "true", &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.mlp_bias && !c.qkv_bias);
    cr_assert_eq(parse_with("tie_word_embeddings", "true", &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.tied);
    cr_assert_eq(parse_with("torch_dtype", NULL, &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.dtype, DTYPE_F32);
    cr_assert_eq(parse_with("dtype", "\"float16\"", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.dtype, DTYPE_F16, "dtype goes before torch_dtype");
    cr_assert_eq(parse_with("torch_dtype", "\"torch.float16\"", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(c.dtype, DTYPE_F16);
    cr_assert_eq(parse_with("architectures", "null", &c, &err), ST_OK, "%s", err.text);
    cr_assert_str_eq(c.architecture, "LlamaForCausalLM");
    cr_assert_eq(parse_with("rope_scaling", "null", &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(parse_with("rope_scaling", "{\"rope_type\": \"default\"}", &c, &err), ST_OK, "%s",
                 err.text);
    cr_assert_eq(c.ropes[0].kind, ROPE_DEFAULT);
}

#define LLAMA3(type_key)                                                                           \
    "{\"" type_key "\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1.0, "                     \
    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}"

Test(config, rope_in_every_spelling)
{
    static const struct {
        const char *key, *value;
        enum rope_kind kind;
        double theta, factor;
    } cases[] = {
        {"rope_scaling", LLAMA3("rope_type"), ROPE_LLAMA3, 1e4, 8},
        {"rope_scaling", LLAMA3("type"), ROPE_LLAMA3, 1e4, 8},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 2.5}", ROPE_LINEAR, 1e4, 2.5},
        {"rope_parameters", "{\"rope_theta\": 5e5, \"rope_type\": \"default\"}", ROPE_DEFAULT, 5e5,
         1},
        {"rope_parameters", "{\"rope_type\": \"linear\", \"factor\": 4}", ROPE_LINEAR, 1e4, 4},
        {"rope_parameters", LLAMA3("rope_type"), ROPE_LLAMA3, 1e4, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_config c;
        struct error err;
        cr_assert_eq(parse_with(cases[i].key, cases[i].value, &c, &err), ST_OK, "%s: %s",
                     cases[i].value, err.text);
        cr_assert(c.ropes[0].kind == cases[i].kind && c.ropes[0].theta == cases[i].theta &&
                      c.ropes[0].factor == cases[i].factor,
                  "%s", cases[i].value);
        if (c.ropes[0].kind == ROPE_LLAMA3)
            cr_assert_eq(c.ropes[0].original_context, 8192);
    }
}

Test(config, llama3_frequencies)
{
    /* bands: short wavelengths stay, long ones are divided by the factor, between them a blend */
    struct rope_config r = {.dim = 128, .theta = 5e5, .factor = 1};
    float f[64], plain[64];
    model_rope_frequencies(&r, false, plain);
    cr_assert_eq(plain[0], 1.0f);
    cr_assert_float_eq(plain[63], powf(5e5f, -126.0f / 128), 1e-10f);
    r.kind = ROPE_LLAMA3;
    r.factor = 8;
    r.low_freq_factor = 1;
    r.high_freq_factor = 4;
    r.original_context = 8192;
    model_rope_frequencies(&r, false, f);
    int kept = 0, blended = 0, divided = 0;
    for (int i = 0; i < 64; i++) {
        double wavelength = 2 * M_PI / (double)plain[i];
        if (wavelength < 8192.0 / 4) {
            cr_assert_eq(f[i], plain[i], "%d", i);
            kept++;
        } else if (wavelength > 8192.0) {
            cr_assert_eq(f[i], plain[i] / 8, "%d", i);
            divided++;
        } else {
            cr_assert(f[i] < plain[i] && f[i] > plain[i] / 8, "%d", i);
            blended++;
        }
    }
    cr_assert(kept > 0 && blended > 0 && divided > 0);
    r.kind = ROPE_LINEAR;
    model_rope_frequencies(&r, false, f);
    cr_assert_eq(f[10], plain[10] / 8);
}

struct refusal {
    const char *key, *value;
    enum status st;
    const char *says; /* besides the key */
};

static void expect_refusals(const struct refusal *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct model_config c;
        struct error err;
        cr_assert_eq(parse_with(cases[i].key, cases[i].value, &c, &err), cases[i].st, "%s = %s: %s",
                     cases[i].key, cases[i].value ? cases[i].value : "missing", err.text);
        cr_assert(strncmp(err.text, "config.json: ", 13) == 0 && strstr(err.text, cases[i].says),
                  "%s = %s says \"%s\"", cases[i].key, cases[i].value, err.text);
        cr_assert_null(strchr(err.text, '\n'));
    }
}

Test(config, refuses_absurd_values)
{
    static const struct refusal cases[] = {
        {"vocab_size", NULL, ST_INVALID, "vocab_size: required"},
        {"vocab_size", "0", ST_INVALID, "vocab_size: expected"},
        {"vocab_size", "-1", ST_INVALID, "got -1"},
        {"vocab_size", "4194305", ST_INVALID, "vocab_size"},
        {"vocab_size", "1e3", ST_INVALID, "vocab_size: expected an integer"},
        {"vocab_size", "\"1000\"", ST_INVALID, "vocab_size: expected an integer"},
        {"vocab_size", "99999999999999999999999", ST_INVALID, "vocab_size"},
        {"hidden_size", "65537", ST_INVALID, "hidden_size"},
        {"hidden_size", "66", ST_INVALID, "multiple of num_attention_heads"},
        {"hidden_size", "4", ST_INVALID, "rotated elements"},
        {"hidden_size", "12", ST_INVALID, "even"},
        {"hidden_size", "null", ST_INVALID, "required"},
        {"num_hidden_layers", "513", ST_INVALID, "1 to 512"},
        {"num_hidden_layers", "[2]", ST_INVALID, "expected an integer"},
        {"num_attention_heads", "0", ST_INVALID, "num_attention_heads"},
        {"num_attention_heads", "5000", ST_INVALID, "num_attention_heads"},
        {"num_key_value_heads", "3", ST_INVALID, "multiple of num_key_value_heads"},
        {"num_key_value_heads", "8", ST_INVALID, "multiple of num_key_value_heads"},
        {"intermediate_size", "2000000000", ST_INVALID, "intermediate_size"},
        {"max_position_embeddings", "16777217", ST_INVALID, "max_position_embeddings"},
        {"head_dim", "7", ST_INVALID, "even"},
        {"head_dim", "2048", ST_INVALID, "head_dim"},
        {"rms_norm_eps", "0", ST_INVALID, "rms_norm_eps"},
        {"rms_norm_eps", "-1e-5", ST_INVALID, "rms_norm_eps"},
        {"rms_norm_eps", "true", ST_INVALID, "expected a number"},
        {"rope_theta", "0", ST_INVALID, "rope_theta"},
        {"rope_theta", "1e300", ST_INVALID, "rope_theta"},
        {"eos_token_id", "-3", ST_INVALID, "eos_token_id"},
        {"eos_token_id", "[1, \"2\"]", ST_INVALID, "eos_token_id"},
        {"eos_token_id", "{}", ST_INVALID, "eos_token_id"},
        {"eos_token_id", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", ST_INVALID, "more than 16"},
        {"bos_token_id", "-2", ST_INVALID, "bos_token_id"},
        {"tie_word_embeddings", "1", ST_INVALID, "expected true or false"},
        {"attention_bias", "\"no\"", ST_INVALID, "attention_bias"},
        {"architectures", "\"LlamaForCausalLM\"", ST_INVALID, "array of strings"},
        {"architectures", "[]", ST_INVALID, "array of strings"},
        {"architectures", "[3]", ST_INVALID, "array of strings"},
        {"rope_scaling", "[]", ST_INVALID, "rope_scaling: expected an object"},
        {"partial_rotary_factor", "0.45", ST_INVALID, "partial_rotary_factor"},
        {"partial_rotary_factor", "2", ST_INVALID, "partial_rotary_factor"},
        {"rope_scaling", "{\"rope_type\": \"longrope\", \"short_factor\": [1]}", ST_INVALID,
         "short_factor: expected an array of"},
        {"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": -4}", ST_INVALID, "factor"},
        {"rope_scaling", "{\"rope_type\": \"linear\"}", ST_INVALID, "factor: required"},
        {"rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 0.5}", ST_INVALID, "factor"},
        {"rope_scaling", "{\"rope_type\": 3}", ST_INVALID, "rope_type"},
        {"rope_scaling",
         "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": "
         "4, "
         "\"original_max_position_embeddings\": 8192}",
         ST_INVALID, "low_freq_factor"},
        {"rope_scaling",
         "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": "
         "4}",
         ST_INVALID, "original_max_position_embeddings"},
    };
    expect_refusals(cases, sizeof cases / sizeof cases[0]);
}

Test(config, refuses_what_is_not_supported)
{
    static const struct refusal cases[] = {
        {"architectures", "[\"Qwen9ForCausalLM\"]", ST_UNSUPPORTED,
         "\"Qwen9ForCausalLM\" is not supported (supported: LlamaForCausalLM, "},
        {"architectures", "[\"a\\nb\\u001b\"]", ST_UNSUPPORTED, "\"a?b?\""},
        {"quantization_config", "[]", ST_INVALID, "quantization_config"},
        {"hidden_act", "\"relu2\"", ST_UNSUPPORTED,
         "\"relu2\" is not supported (supported: silu, "},
        {"torch_dtype", "\"float8_e4m3fn\"", ST_UNSUPPORTED, "float8_e4m3fn"},
        {"rope_scaling", "{\"rope_type\": \"spiral\", \"factor\": 4}", ST_UNSUPPORTED,
         "\"spiral\" is not supported (supported: default, linear, dynamic, llama3, yarn, "
         "longrope)"},
    };
    expect_refusals(cases, sizeof cases / sizeof cases[0]);
    struct model_config c;
    struct error err;
    cr_assert_eq(model_config_parse("{}", 2, &c, &err), ST_UNSUPPORTED);
    cr_assert_eq(model_config_parse("[]", 2, &c, &err), ST_INVALID);
    cr_assert_eq(model_config_parse("{\"a\": NaN}", 10, &c, &err), ST_INVALID);
    cr_assert_eq(model_config_parse("", 0, &c, &err), ST_INVALID);
}

/* As the hub has them: the model inside a larger one says little. */
Test(config, text_config_with_defaults)
{
    static const char text[] =
        "{\"architectures\": [\"Gemma3ForConditionalGeneration\"], \"model_type\": \"gemma3\","
        " \"eos_token_id\": [1, 106], \"text_config\": {\"hidden_size\": 2560, "
        "\"intermediate_size\": 10240, \"model_type\": \"gemma3_text\", "
        "\"num_hidden_layers\": 34, \"rope_scaling\": {\"factor\": 8.0, \"rope_type\": "
        "\"linear\"}, \"sliding_window\": 1024}, \"torch_dtype\": \"bfloat16\", "
        "\"vision_config\": {\"hidden_size\": 1152}}";
    static struct model_config c;
    struct error err;
    cr_assert_eq(model_config_parse(text, sizeof text - 1, &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.hidden == 2560 && c.layers == 34 && c.heads == 8 && c.kv_heads == 4);
    cr_assert(c.head_dim == 256 && c.vocab == 262208 && c.max_context == 131072 && c.tied);
    cr_assert(c.n_eos == 2 && c.eos[1] == 106 && c.dtype == DTYPE_BF16);
    cr_assert(c.layer[0].window == 1024 && c.layer[5].window == 0 && c.layer[33].window == 1024);
    cr_assert(c.ropes[0].kind == ROPE_LINEAR && c.ropes[0].theta == 1e6);
    cr_assert(c.ropes[1].kind == ROPE_DEFAULT && c.ropes[1].theta == 1e4);
    cr_assert(c.layer[0].rope == 1 && c.layer[5].rope == 0);
}

/* ---- generation_config.json ---- */

static char folder[64];

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fputs(text, f) >= 0);
    fclose(f);
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/baton-config-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    put("config.json", "{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 100, "
                       "\"hidden_size\": 8, \"intermediate_size\": 8, \"num_hidden_layers\": 1, "
                       "\"num_attention_heads\": 2, \"eos_token_id\": 2}");
}

static void remove_folder(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    unlink(path);
    rmdir(folder);
}

static enum status parse_text(const char *text, struct model_config *c, struct error *err)
{
    *err = (struct error){0};
    return model_config_parse(text, strlen(text), c, err);
}

#define SIZES                                                                                      \
    "\"vocab_size\": 96, \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": "  \
    "8, \"num_attention_heads\": 4, \"num_key_value_heads\": 2"

/* What transformers takes a key for that is not there, and for one that is null. */
Test(config, silence_and_null)
{
    struct model_config c;
    struct error err;
    cr_assert_eq(parse_text("{\"architectures\": [\"Gemma2ForCausalLM\"], " SIZES "}", &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert(c.attention_softcap == 50 && c.final_softcap == 30 && c.head_dim == 256 &&
              c.layer[0].window == 4096 && c.layer[1].window == 0);
    cr_assert_eq(parse_text("{\"architectures\": [\"Gemma2ForCausalLM\"], " SIZES
                            ", \"attn_logit_softcapping\": null, \"sliding_window\": null}",
                            &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert(c.attention_softcap == 0 && c.final_softcap == 30 && c.layer[0].window == 0);
    cr_assert_eq(parse_text("{\"architectures\": [\"MistralForCausalLM\"], " SIZES "}", &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert(c.layer[3].window == 4096);
    cr_assert_eq(parse_text("{\"architectures\": [\"MistralForCausalLM\"], " SIZES
                            ", \"sliding_window\": null}",
                            &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert(c.layer[3].window == 0);
    cr_assert_eq(parse_text("{\"architectures\": [\"Qwen3ForCausalLM\"], " SIZES "}", &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert(c.head_dim == 128 && c.layer[0].window == 0);
    cr_assert_eq(parse_text("{\"architectures\": [\"Olmo2ForCausalLM\"], " SIZES "}", &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert(c.norm_eps == 1e-5f);
}

/* Layers without rotation are the ones that slide; local layers know nothing of the others' YaRN;
 * Phi-3's first files call LongRoPE something else. */
Test(config, kinds_of_layers)
{
    struct model_config c;
    struct error err;
    cr_assert_eq(parse_text("{\"architectures\": [\"SmolLM3ForCausalLM\"], " SIZES
                            ", \"use_sliding_window\": true, \"sliding_window\": 9}",
                            &c, &err),
                 ST_OK, "%s", err.text);
    for (int32_t i = 0; i < 8; i++)
        cr_assert_eq(c.layer[i].window, i % 4 == 3 ? 9 : 0, "layer %d", i);
    cr_assert(c.ropes[0].theta == 2e6);
    cr_assert_eq(parse_text("{\"architectures\": [\"Gemma3ForCausalLM\"], " SIZES
                            ", \"attn_logit_softcapping\": 2, \"final_logit_softcapping\": 3, "
                            "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8}}",
                            &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert(c.ropes[0].attention_factor > 1.2 && c.ropes[1].attention_factor == 1);
    cr_assert(c.ropes[0].theta == 1e6 && c.ropes[1].theta == 1e4);
    cr_assert(c.attention_softcap == 0 && c.final_softcap == 3, "Gemma 3 caps no scores");
    cr_assert_eq(parse_text("{\"architectures\": [\"Phi3ForCausalLM\"], " SIZES
                            ", \"head_dim\": 4, \"rope_scaling\": {\"type\": \"yarn\", "
                            "\"short_factor\": [1, 1], \"long_factor\": [2, 2]}}",
                            &c, &err),
                 ST_OK, "%s", err.text);
    cr_assert_eq(c.ropes[0].kind, ROPE_LONGROPE);
    cr_assert_eq(parse_text("{\"architectures\": [\"Mistral3ForConditionalGeneration\"], "
                            "\"text_config\": {\"rope_parameters\": {\"rope_type\": \"yarn\", "
                            "\"factor\": 16, \"llama_4_scaling_beta\": 0.1}}}",
                            &c, &err),
                 ST_UNSUPPORTED);
    cr_assert_not_null(strstr(err.text, "llama_4_scaling_beta"), "%s", err.text);
}

Test(config, generation_defaults, .init = make_folder, .fini = remove_folder)
{
    struct model_config c;
    struct generation_defaults d;
    struct error err = {0};
    cr_assert_eq(model_config_read(folder, &c, &d, &err), ST_OK, "%s", err.text);
    cr_assert(!d.has_temperature && !d.has_top_p && !d.has_top_k && !d.has_min_p &&
              !d.has_repetition_penalty && !d.do_sample && c.n_eos == 1);
    cr_assert_eq(err.status, ST_OK, "a missing file leaves no error behind");
    put("generation_config.json", "{\"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.9, "
                                  "\"top_k\": 50, \"eos_token_id\": [2, 3], \"max_length\": "
                                  "1000000000000000000000000000000}");
    cr_assert_eq(model_config_read(folder, &c, &d, &err), ST_OK, "%s", err.text);
    cr_assert(d.do_sample && d.has_temperature && d.temperature == 0.6 && d.has_top_p &&
              d.top_p == 0.9 && d.has_top_k && d.top_k == 50 && !d.has_min_p);
    cr_assert(c.n_eos == 2 && c.eos[1] == 3);
    put("generation_config.json", "{\"top_k\": -1}");
    cr_assert_eq(model_config_read(folder, &c, &d, &err), ST_OK, "%s", err.text);
    cr_assert(d.has_top_k && d.top_k == 0, "-1 is off: %d", d.top_k);

    static const char *const bad[] = {"{",
                                      "[]",
                                      "{\"temperature\": -1}",
                                      "{\"temperature\": \"hot\"}",
                                      "{\"top_p\": 2}",
                                      "{\"top_k\": -5}",
                                      "{\"min_p\": 1.5}",
                                      "{\"repetition_penalty\": 0}",
                                      "{\"eos_token_id\": -1}",
                                      "{\"do_sample\": 1}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put("generation_config.json", bad[i]);
        cr_assert_eq(model_config_read(folder, &c, &d, &err), ST_INVALID, "%s", bad[i]);
        cr_assert_not_null(strstr(err.text, "generation_config.json: "), "%s", err.text);
    }
    cr_assert_eq(model_config_read("/nonexistent", &c, &d, &err), ST_NOT_FOUND);
}

/* SmolLM3's window is that of the layers that do not rotate; Gemma 3 has norms where Gemma 2 had a
 * soft cap, and files that still say one. */
Test(config, windows_of_layers_without_rope)
{
    struct model_config c;
    struct error err = {0};
    static const char text[] =
        "{\"architectures\": [\"SmolLM3ForCausalLM\"], \"hidden_size\": 32, "
        "\"num_attention_heads\": 2, \"num_hidden_layers\": 4, \"intermediate_size\": 32, "
        "\"vocab_size\": 64, \"no_rope_layers\": [1, 0, 1, 0], \"use_sliding_window\": true, "
        "\"sliding_window\": 5}";
    cr_assert_eq(model_config_parse(text, strlen(text), &c, &err), ST_OK, "%s", err.text);
    for (int i = 0; i < 4; i++)
        cr_assert(c.layer[i].window == (i % 2 ? 5 : 0) && c.layer[i].rope == (i % 2 ? -1 : 0));
}

Test(config, gemma3_caps_no_scores)
{
    struct model_config c;
    struct error err = {0};
    static const char text[] =
        "{\"architectures\": [\"Gemma3ForCausalLM\"], \"hidden_size\": 32, "
        "\"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"head_dim\": 16, "
        "\"num_hidden_layers\": 2, \"intermediate_size\": 32, \"vocab_size\": 64, "
        "\"sliding_window\": 5, \"attn_logit_softcapping\": 50.0, "
        "\"final_logit_softcapping\": 30.0}";
    cr_assert_eq(model_config_parse(text, strlen(text), &c, &err), ST_OK, "%s", err.text);
    cr_assert(c.attention_softcap == 0 && c.final_softcap == 30);
}
