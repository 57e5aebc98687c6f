/* config.json to the feature table. Each architecture is a row: the keys that all share are read
 * first, then the row's own function reads the rest and refuses what its forward pass does not do.
 */
#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "kernels/ops.h"
#include "model/config_reader.h"

#define CONFIG_MAX_BYTES ((size_t)8 << 20)
#define VOCAB_MAX (4 << 20)
#define HIDDEN_MAX 65536
#define HEADS_MAX 4096
#define HEAD_DIM_MAX OPS_HEAD_DIM_MAX
#define FFN_MAX (1 << 20)
#define CONTEXT_MAX (16 << 20)
#define ROPE_FACTOR_MAX 1e6

/* ---- rotary embedding ---- */

static void read_rope_llama3(struct config_reader *r, const json *scaling, struct model_config *out)
{
    out->rope.kind = ROPE_LLAMA3;
    out->rope.factor = config_real(r, scaling, "factor", 1, ROPE_FACTOR_MAX, CONFIG_REQUIRED);
    out->rope.low_freq_factor =
        config_real(r, scaling, "low_freq_factor", 1e-3, ROPE_FACTOR_MAX, CONFIG_REQUIRED);
    out->rope.high_freq_factor =
        config_real(r, scaling, "high_freq_factor", 1e-3, ROPE_FACTOR_MAX, CONFIG_REQUIRED);
    out->rope.original_context = (int32_t)config_int(r, scaling, "original_max_position_embeddings",
                                                     1, CONTEXT_MAX, CONFIG_REQUIRED);
    if (!r->status && out->rope.low_freq_factor >= out->rope.high_freq_factor)
        config_fail(r, ST_INVALID,
                    "rope_scaling.low_freq_factor: expected less than high_freq_factor");
}

/* `rope_scaling`, or the `rope_parameters` that newer files have, which hold rope_theta as well.
 * The kind is `rope_type`, in older files `type`. */
static void read_rope(struct config_reader *r, struct model_config *out)
{
    const json *parameters = config_object(r, r->root, "rope_parameters");
    const json *scaling = parameters ? parameters : config_object(r, r->root, "rope_scaling");
    const json *theta_of = json_get(parameters, "rope_theta") ? parameters : r->root;
    out->rope.theta = config_real(r, theta_of, "rope_theta", 1, 1e15, 10000.0);
    out->rope.kind = ROPE_DEFAULT;
    out->rope.factor = 1;
    if (config_real(r, parameters ? parameters : r->root, "partial_rotary_factor", 0, 1, 1.0) !=
        1.0)
        config_fail(r, ST_UNSUPPORTED, "partial_rotary_factor: only 1 is supported");
    for (void *it = json_first(parameters); it; it = json_next(parameters, it)) {
        if (json_kind_of(json_iter_value(it)) == JSON_OBJ)
            config_fail(r, ST_UNSUPPORTED,
                        "rope_parameters: one set per kind of layer is not supported");
    }
    if (!scaling || r->status)
        return;
    const char *key = json_get(scaling, "rope_type") ? "rope_type" : "type";
    char kind[64];
    config_str(r, scaling, key, kind, sizeof kind, "default");
    if (strcmp(kind, "default") == 0)
        return;
    if (strcmp(kind, "linear") == 0) {
        out->rope.kind = ROPE_LINEAR;
        out->rope.factor = config_real(r, scaling, "factor", 1, ROPE_FACTOR_MAX, CONFIG_REQUIRED);
    } else if (strcmp(kind, "llama3") == 0) {
        read_rope_llama3(r, scaling, out);
    } else {
        config_fail(r, ST_UNSUPPORTED,
                    "rope_scaling.%s: \"%s\" is not supported (supported: default, linear, llama3)",
                    key, kind);
    }
}

void model_rope_frequencies(const struct model_config *c, float *inv_freq, float *attention_factor)
{
    /* in float where transformers is in float: the angles of late positions depend on these
     * roundings */
    const float factor = (float)c->rope.factor;
    const float low = (float)c->rope.low_freq_factor, high = (float)c->rope.high_freq_factor;
    const float context = (float)c->rope.original_context;
    for (int32_t i = 0; i < c->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)c->head_dim;
        float f = 1.0f / (float)pow(c->rope.theta, (double)exponent);
        if (c->rope.kind == ROPE_LINEAR)
            f /= factor;
        if (c->rope.kind == ROPE_LLAMA3) {
            float wavelength = 2.0f * (float)M_PI / f;
            float smooth = (context / wavelength - low) / (high - low);
            if (wavelength > context / low)
                f = f / factor;
            else if (wavelength >= context / high)
                f = (1.0f - smooth) * f / factor + smooth * f;
        }
        inv_freq[i] = f;
    }
    *attention_factor = 1.0f;
}

/* ---- architectures ---- */

/* Touvron et al. 2023, and the Llama 3 herd (2024). */
static void read_llama(struct config_reader *r, struct model_config *out)
{
    char activation[64];
    config_str(r, r->root, "hidden_act", activation, sizeof activation, "silu");
    if (!r->status && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        config_fail(r, ST_UNSUPPORTED, "hidden_act: \"%s\" is not supported (supported: silu)",
                    activation);
    out->qkv_bias = out->o_bias = config_bool(r, r->root, "attention_bias", false);
    out->mlp_bias = config_bool(r, r->root, "mlp_bias", false);
    read_rope(r, out);
}

static const struct architecture {
    const char *name, *model_type;
    void (*read)(struct config_reader *r, struct model_config *out);
} architectures[] = {
    {"LlamaForCausalLM", "llama", read_llama},
};
#define N_ARCHITECTURES (sizeof architectures / sizeof architectures[0])

static const struct architecture *find_architecture(struct config_reader *r)
{
    const json *list = json_get(r->root, "architectures");
    char name[64] = "", type[64];
    config_str(r, r->root, "model_type", type, sizeof type, "");
    if (list && json_kind_of(list) != JSON_NULL_) {
        const json *first = json_at(list, 0);
        if (json_kind_of(list) != JSON_ARR || json_kind_of(first) != JSON_STR) {
            config_fail(r, ST_INVALID, "architectures: expected an array of strings");
            return NULL;
        }
        config_copy_str(first, name, sizeof name);
    }
    char supported[256] = "";
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        if (strcmp(name, architectures[i].name) == 0 ||
            (!*name && strcmp(type, architectures[i].model_type) == 0))
            return &architectures[i];
        size_t n = strlen(supported);
        snprintf(supported + n, sizeof supported - n, "%s%s", n ? ", " : "", architectures[i].name);
    }
    if (*name)
        config_fail(r, ST_UNSUPPORTED, "architectures: \"%s\" is not supported (supported: %s)",
                    name, supported);
    else
        config_fail(r, ST_UNSUPPORTED,
                    "model_type: \"%s\" without architectures is not supported "
                    "(supported architectures: %s)",
                    type, supported);
    return NULL;
}

/* ---- what all have ---- */

static void read_quantization(struct config_reader *r)
{
    const json *q = config_object(r, r->root, "quantization_config");
    if (!q)
        return;
    char method[64];
    config_str(r, q, "quant_method", method, sizeof method, "unnamed");
    config_fail(
        r, ST_UNSUPPORTED,
        "quantization_config: \"%s\" is not supported (supported: bf16, fp16 and fp32 weights)",
        method);
}

static void read_sizes(struct config_reader *r, struct model_config *out)
{
    out->vocab = (int32_t)config_int(r, r->root, "vocab_size", 1, VOCAB_MAX, CONFIG_REQUIRED);
    out->hidden = (int32_t)config_int(r, r->root, "hidden_size", 1, HIDDEN_MAX, CONFIG_REQUIRED);
    out->layers =
        (int32_t)config_int(r, r->root, "num_hidden_layers", 1, MODEL_LAYERS_MAX, CONFIG_REQUIRED);
    out->heads =
        (int32_t)config_int(r, r->root, "num_attention_heads", 1, HEADS_MAX, CONFIG_REQUIRED);
    out->ffn = (int32_t)config_int(r, r->root, "intermediate_size", 1, FFN_MAX, CONFIG_REQUIRED);
    out->kv_heads =
        (int32_t)config_int(r, r->root, "num_key_value_heads", 1, HEADS_MAX, out->heads);
    out->max_context =
        (int32_t)config_int(r, r->root, "max_position_embeddings", 1, CONTEXT_MAX, 2048);
    out->norm_eps = (float)config_real(r, r->root, "rms_norm_eps", 1e-12, 1, 1e-6);
    out->tied = config_bool(r, r->root, "tie_word_embeddings", false);
    if (r->status)
        return;
    if (out->heads % out->kv_heads != 0)
        config_fail(r, ST_INVALID,
                    "num_attention_heads: expected a multiple of num_key_value_heads, "
                    "got %d and %d",
                    out->heads, out->kv_heads);
    const json *head_dim = json_get(r->root, "head_dim");
    if (!head_dim || json_kind_of(head_dim) == JSON_NULL_) {
        if (out->hidden % out->heads != 0)
            config_fail(r, ST_INVALID,
                        "hidden_size: expected a multiple of num_attention_heads, got "
                        "%d and %d",
                        out->hidden, out->heads);
        out->head_dim = out->hidden / out->heads;
        if (!r->status && (out->head_dim < 2 || out->head_dim > HEAD_DIM_MAX))
            config_fail(r, ST_INVALID,
                        "hidden_size / num_attention_heads: expected 2 to %d, got %d", HEAD_DIM_MAX,
                        out->head_dim);
    } else {
        out->head_dim =
            (int32_t)config_int(r, r->root, "head_dim", 2, HEAD_DIM_MAX, CONFIG_REQUIRED);
    }
    if (!r->status && out->head_dim % 2 != 0)
        config_fail(r, ST_INVALID, "head_dim: expected an even number, got %d", out->head_dim);
    if (!r->status && out->heads * out->head_dim > 4 * HIDDEN_MAX)
        config_fail(r, ST_INVALID, "num_attention_heads * head_dim: expected at most %d, got %d",
                    4 * HIDDEN_MAX, out->heads * out->head_dim);
}

static void read_dtype(struct config_reader *r, struct model_config *out)
{
    char name[64];
    const char *key = json_get(r->root, "dtype") ? "dtype" : "torch_dtype";
    config_str(r, r->root, key, name, sizeof name, "float32");
    if (!r->status && !dtype_parse(name, &out->dtype))
        config_fail(r, ST_UNSUPPORTED,
                    "%s: \"%s\" is not supported (supported: bfloat16, float16, float32)", key,
                    name);
}

static void add_eos(struct config_reader *r, const json *v, struct model_config *out)
{
    int64_t id = json_as_int(v, -1);
    if (json_kind_of(v) != JSON_INT || id < 0 || id >= out->vocab) {
        config_fail(r, ST_INVALID, "eos_token_id: expected a token id below vocab_size (%d)",
                    out->vocab);
        return;
    }
    if (model_config_is_eos(out, (int32_t)id))
        return;
    if (out->n_eos == MODEL_EOS_MAX)
        config_fail(r, ST_INVALID, "eos_token_id: more than %d ids", MODEL_EOS_MAX);
    else
        out->eos[out->n_eos++] = (int32_t)id;
}

static void read_eos(struct config_reader *r, struct model_config *out)
{
    const json *v = json_get(r->root, "eos_token_id");
    if (!v || json_kind_of(v) == JSON_NULL_)
        return;
    if (json_kind_of(v) != JSON_ARR)
        add_eos(r, v, out);
    for (size_t i = 0; i < json_count(v) && !r->status; i++)
        add_eos(r, json_at(v, i), out);
}

static enum status read_config(struct config_reader *r, struct model_config *out)
{
    struct model_config c = {.bos = -1};
    if (json_kind_of(r->root) != JSON_OBJ)
        return config_fail(r, ST_INVALID, "expected a JSON object");
    const struct architecture *a = find_architecture(r);
    if (!a)
        return r->status;
    snprintf(c.architecture, sizeof c.architecture, "%s", a->name);
    read_quantization(r);
    read_sizes(r, &c);
    read_dtype(r, &c);
    if (!r->status) {
        c.bos = (int32_t)config_int(r, r->root, "bos_token_id", 0, c.vocab - 1, -1);
        read_eos(r, &c);
        a->read(r, &c);
    }
    if (!r->status)
        *out = c;
    return r->status;
}

/* ---- generation_config.json ---- */

static bool read_default(struct config_reader *r, const char *key, double min, double max,
                         double *out)
{
    const json *v = json_get(r->root, key);
    if (!v || json_kind_of(v) == JSON_NULL_)
        return false;
    *out = config_real(r, r->root, key, min, max, CONFIG_REQUIRED);
    return !r->status;
}

static enum status read_generation(struct config_reader *r, struct model_config *config,
                                   struct generation_defaults *d)
{
    if (json_kind_of(r->root) != JSON_OBJ)
        return config_fail(r, ST_INVALID, "expected a JSON object");
    double top_k = 0;
    d->do_sample = config_bool(r, r->root, "do_sample", false);
    d->has_temperature = read_default(r, "temperature", 0, 1000, &d->temperature);
    d->has_top_p = read_default(r, "top_p", 0, 1, &d->top_p);
    d->has_min_p = read_default(r, "min_p", 0, 1, &d->min_p);
    d->has_top_k = read_default(r, "top_k", -1, VOCAB_MAX, &top_k);
    d->has_repetition_penalty =
        read_default(r, "repetition_penalty", 1e-3, 1000, &d->repetition_penalty);
    d->top_k = top_k > 0 ? (int32_t)top_k : 0; /* some files say "off" with -1 */
    read_eos(r, config);
    return r->status;
}

/* ---- the public functions ---- */

enum status model_config_parse(const char *text, size_t len, struct model_config *out,
                               struct error *err)
{
    json *root = NULL;
    enum status st = json_read(text, len, &root, err);
    if (st)
        return st;
    struct config_reader r = {.root = root, .file = "config.json", .err = err};
    st = read_config(&r, out);
    json_free(root);
    return st;
}

enum status model_config_read(const char *dir, struct model_config *out,
                              struct generation_defaults *defaults, struct error *err)
{
    struct model_config config;
    struct generation_defaults generation = {0};
    char path[4096];
    json *root = NULL;
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    enum status st = json_read_file(path, CONFIG_MAX_BYTES, &root, err);
    if (st)
        return st;
    struct config_reader r = {.root = root, .file = path, .err = err};
    st = read_config(&r, &config);
    json_free(root);
    if (st)
        return st;

    if (snprintf(path, sizeof path, "%s/generation_config.json", dir) >= (int)sizeof path)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    struct error mine = {0};
    st = json_read_file(path, CONFIG_MAX_BYTES, &root, &mine);
    if (st == ST_OK) {
        r = (struct config_reader){.root = root, .file = path, .err = err};
        st = read_generation(&r, &config, &generation);
        json_free(root);
    } else if (st == ST_NOT_FOUND) {
        st = ST_OK;
    } else if (err) {
        *err = mine;
    }
    if (st)
        return st;
    *out = config;
    if (defaults)
        *defaults = generation;
    return ST_OK;
}

bool model_config_is_eos(const struct model_config *c, int32_t id)
{
    for (int32_t i = 0; i < c->n_eos; i++) {
        if (c->eos[i] == id)
            return true;
    }
    return false;
}

uint64_t model_config_parameters(const struct model_config *c)
{
    const uint64_t hidden = (uint64_t)c->hidden, ffn = (uint64_t)c->ffn;
    const uint64_t q = (uint64_t)c->heads * (uint64_t)c->head_dim;
    const uint64_t kv = (uint64_t)c->kv_heads * (uint64_t)c->head_dim;
    uint64_t layer = 2 * hidden + (2 * q + 2 * kv) * hidden + 3 * ffn * hidden;
    if (c->qkv_bias)
        layer += q + 2 * kv;
    if (c->o_bias)
        layer += hidden;
    if (c->mlp_bias)
        layer += 2 * ffn + hidden;
    return (uint64_t)c->layers * layer + hidden + (c->tied ? 1 : 2) * (uint64_t)c->vocab * hidden;
}
