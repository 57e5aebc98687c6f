/* config.json to the feature table. Each architecture is a row: the keys that all share are read
 * first, then the row's own function reads the rest and refuses what its forward pass does not do.
 */
#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "formats/weight_source.h"
#include "model/config_internal.h"

#define CONFIG_MAX_BYTES ((size_t)8 << 20)

/* ---- architectures ---- */

static const struct architecture *const tables[] = {config_llama_rows, config_gemma_rows,
                                                    config_moe_rows, config_latent_rows};
#define N_TABLES (sizeof tables / sizeof tables[0])

static const struct architecture *find_row(const char *name, const char *type)
{
    for (size_t t = 0; t < N_TABLES; t++)
        for (const struct architecture *a = tables[t]; a->name; a++)
            if (strcmp(name, a->name) == 0 || (!*name && strcmp(type, a->model_type) == 0))
                return a;
    return NULL;
}

static const struct architecture *find_architecture(struct config_reader *r, const json *root)
{
    const json *list = json_get(root, "architectures");
    char name[64] = "", type[64], supported[1200] = "";
    config_str(r, root, "model_type", type, sizeof type, "");
    if (list && json_kind_of(list) != JSON_NULL_) {
        const json *first = json_at(list, 0);
        if (json_kind_of(list) != JSON_ARR || json_kind_of(first) != JSON_STR) {
            config_fail(r, ST_INVALID, "architectures: expected an array of strings");
            return NULL;
        }
        config_copy_str(first, name, sizeof name);
    }
    const struct architecture *found = find_row(name, type);
    if (found)
        return found;
    for (size_t t = 0; t < N_TABLES; t++)
        for (const struct architecture *a = tables[t]; a->name; a++) {
            size_t n = strlen(supported);
            snprintf(supported + n, sizeof supported - n, "%s%s", n ? ", " : "", a->name);
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

void config_read_activation(struct config_reader *r, const char *key, const char *fallback,
                            struct model_config *out)
{
    char name[64];
    config_str(r, r->root, key, name, sizeof name, fallback);
    if (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0)
        out->activation = GLU_SILU;
    else if (strcmp(name, "gelu_pytorch_tanh") == 0 || strcmp(name, "gelu_new") == 0)
        out->activation = GLU_GELU_TANH;
    else if (strcmp(name, "gelu") == 0)
        out->activation = GLU_GELU;
    else
        config_fail(r, ST_UNSUPPORTED,
                    "%s: \"%s\" is not supported (supported: silu, gelu, gelu_pytorch_tanh)", key,
                    name);
}

/* `layer_types` into out->layer[].window; false where the file has none. */
static bool read_layer_types(struct config_reader *r, struct model_config *out, int32_t window)
{
    const json *list = json_get(r->root, "layer_types");
    if (!list || json_kind_of(list) == JSON_NULL_)
        return false;
    if (json_kind_of(list) != JSON_ARR || json_count(list) < (size_t)out->layers) {
        config_fail(r, ST_INVALID, "layer_types: expected an array of %d strings", out->layers);
        return true;
    }
    for (int32_t i = 0; i < out->layers; i++) {
        const char *type = json_as_str(json_at(list, (size_t)i), "");
        bool sliding = strcmp(type, "sliding_attention") == 0;
        if (!sliding && strcmp(type, "full_attention") != 0)
            config_fail(r, ST_UNSUPPORTED,
                        "layer_types: entry %d is not supported (supported: full_attention, "
                        "sliding_attention)",
                        i);
        else if (sliding && window == 0)
            config_fail(r, ST_INVALID, "layer_types: sliding_attention without sliding_window");
        out->layer[i].window = sliding ? window : 0;
    }
    return true;
}

bool config_every_layer(const struct model_config *c, int32_t layer, int32_t unused)
{
    (void)c, (void)layer, (void)unused;
    return true;
}

bool config_even_layers(const struct model_config *c, int32_t layer, int32_t unused)
{
    (void)c, (void)unused;
    return layer % 2 == 0;
}

void config_read_windows(struct config_reader *r, struct model_config *out, layer_rule *is_sliding,
                         int32_t argument)
{
    const bool silent = !json_get(r->root, "sliding_window"); /* null: none */
    int32_t window = (int32_t)config_int(r, r->root, "sliding_window", 0, WINDOW_MAX,
                                         silent ? r->defaults->window : 0);
    if (!config_bool(r, r->root, "use_sliding_window", true))
        window = 0;
    if (r->status || read_layer_types(r, out, window))
        return;
    for (int32_t i = 0; i < out->layers; i++)
        out->layer[i].window = window > 0 && is_sliding(out, i, argument) ? window : 0;
}

/* ---- what all have ---- */

/* The reader of weights knows the formats; here it matters which way round GPT-OSS's experts lie.
 */
static void read_quantization(struct config_reader *r, struct model_config *out)
{
    const json *q = config_object(r, r->root, "quantization_config");
    char method[64];
    config_str(r, q, "quant_method", method, sizeof method, "");
    out->expert_blocks = strcmp(method, "mxfp4") == 0;
}

/* A size that must be there, unless the architecture has a default for it. */
static int32_t read_size(struct config_reader *r, const char *key, int64_t max, int32_t otherwise)
{
    return (int32_t)config_int(r, r->root, key, 1, max,
                               otherwise > 0 ? (double)otherwise : CONFIG_REQUIRED);
}

static void read_sizes(struct config_reader *r, struct model_config *out)
{
    const struct size_defaults *d = r->defaults;
    out->vocab = read_size(r, "vocab_size", VOCAB_MAX, d->vocab);
    out->hidden = read_size(r, "hidden_size", HIDDEN_MAX, d->hidden);
    out->layers = read_size(r, "num_hidden_layers", MODEL_LAYERS_MAX, d->layers);
    out->heads = read_size(r, "num_attention_heads", HEADS_MAX, d->heads);
    out->ffn = read_size(r, "intermediate_size", FFN_MAX, d->ffn);
    out->kv_heads =
        read_size(r, "num_key_value_heads", HEADS_MAX, d->kv_heads ? d->kv_heads : out->heads);
    out->max_context =
        read_size(r, "max_position_embeddings", CONTEXT_MAX, d->context ? d->context : 2048);
    out->norm_eps = (float)config_real(r, r->root, "rms_norm_eps", 1e-12, 1,
                                       d->eps > 0 ? (double)d->eps : 1e-6);
    out->tied = config_bool(r, r->root, "tie_word_embeddings", d->tied);
    if (r->status)
        return;
    if (out->heads % out->kv_heads != 0)
        config_fail(r, ST_INVALID,
                    "num_attention_heads: expected a multiple of num_key_value_heads, "
                    "got %d and %d",
                    out->heads, out->kv_heads);
    const json *head_dim = json_get(r->root, "head_dim");
    if (head_dim && json_kind_of(head_dim) != JSON_NULL_)
        out->head_dim =
            (int32_t)config_int(r, r->root, "head_dim", 2, HEAD_DIM_MAX, CONFIG_REQUIRED);
    else if (d->head_dim > 0)
        out->head_dim = d->head_dim;
    else
        out->head_dim = out->hidden % out->heads == 0 ? out->hidden / out->heads : 0;
}

static const char *dtype_key(const json *v)
{
    return json_kind_of(json_get(v, "dtype")) == JSON_STR         ? "dtype"
           : json_kind_of(json_get(v, "torch_dtype")) == JSON_STR ? "torch_dtype"
                                                                  : NULL;
}

/* A model inside a larger one mostly leaves it to that. */
static void read_dtype(struct config_reader *r, const json *whole, struct model_config *out)
{
    char name[64];
    const json *from = dtype_key(r->root) ? r->root : whole;
    const char *key = dtype_key(from) ? dtype_key(from) : "torch_dtype";
    config_str(r, from, key, name, sizeof name, "float32");
    if (strncmp(name, "torch.", 6) == 0) /* as Python writes it */
        memmove(name, name + 6, strlen(name + 6) + 1);
    if (!r->status && !dtype_parse(name, &out->dtype))
        config_fail(r, ST_UNSUPPORTED,
                    "%s: \"%s\" is not supported (supported: bfloat16, float16, float32)", key,
                    name);
}

/* Files have ids that are none of theirs, mostly the defaults of a larger vocabulary: such a token
 * cannot be said. */
static bool is_token(struct config_reader *r, const char *key, int64_t id, int32_t vocab)
{
    if (id >= vocab && !r->status)
        log_warn("config_token_unknown", "key=%s id=%lld vocab=%d", key, (long long)id, vocab);
    return id < vocab;
}

static void add_eos(struct config_reader *r, const json *v, struct model_config *out)
{
    int64_t id = json_as_int(v, -1);
    if (json_kind_of(v) != JSON_INT || id < 0) {
        config_fail(r, ST_INVALID, "eos_token_id: expected a token id");
        return;
    }
    if (!is_token(r, "eos_token_id", id, out->vocab) || model_config_is_eos(out, (int32_t)id))
        return;
    if (out->n_eos == MODEL_EOS_MAX)
        config_fail(r, ST_INVALID, "eos_token_id: more than %d ids", MODEL_EOS_MAX);
    else
        out->eos[out->n_eos++] = (int32_t)id;
}

static void read_bos(struct config_reader *r, struct model_config *out)
{
    int64_t id = config_int(r, r->root, "bos_token_id", 0, INT32_MAX, -1);
    out->bos = is_token(r, "bos_token_id", id, out->vocab) ? (int32_t)id : -1;
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

void config_set_defaults(struct model_config *c)
{
    c->bos = -1;
    c->pre_norm = true;
    c->embed_scale = c->residual_scale = c->logits_scale = 1;
    c->glu_alpha = 1.702f;
    c->moe.scale = 1;
    for (int32_t i = 0; i < MODEL_LAYERS_MAX; i++)
        c->layer[i].kv_from = i;
}

static void check_heads(struct config_reader *r, const struct model_config *c)
{
    if (c->head_dim == 0)
        config_fail(r, ST_INVALID,
                    "hidden_size: expected a multiple of num_attention_heads, got %d and %d",
                    c->hidden, c->heads);
    if (c->head_dim < 2 || c->head_dim > HEAD_DIM_MAX)
        config_fail(r, ST_INVALID, "hidden_size / num_attention_heads: expected 2 to %d, got %d",
                    HEAD_DIM_MAX, c->head_dim);
    if (c->head_dim % 2 != 0)
        config_fail(r, ST_INVALID, "head_dim: expected an even number, got %d", c->head_dim);
    if ((int64_t)c->heads * c->head_dim > 4 * HIDDEN_MAX)
        config_fail(r, ST_INVALID, "num_attention_heads * head_dim: expected at most %d, got %lld",
                    4 * HIDDEN_MAX, (long long)c->heads * c->head_dim);
}

/* What every layer that stores KV is read with: the widest window of those that read it. */
static void settle_groups(struct model_config *c)
{
    int32_t window[MODEL_LAYERS_MAX] = {0};
    bool seen[MODEL_LAYERS_MAX] = {false};
    _Static_assert(MODEL_LAYERS_MAX <= KV_LAYERS_MAX, "all layers may store KV");
    for (int32_t i = 0; i < c->layers; i++) {
        const struct layer_config *l = &c->layer[i];
        int32_t reach = l->window >= c->max_context ? 0 : l->window;
        bool wider = reach == 0 || (window[l->slot] != 0 && reach > window[l->slot]);
        if (!seen[l->slot] || wider)
            window[l->slot] = reach;
        seen[l->slot] = true;
    }
    if (c->kv_layers > 0)
        kv_groups_make(window, c->kv_layers, &c->kv_groups);
}

void config_settle(struct config_reader *r, struct model_config *c)
{
    for (int32_t i = 0; i < c->layers; i++)
        if (c->layer[i].kv_from == i)
            c->layer[i].slot = c->kv_layers++;
    for (int32_t i = 0; i < c->layers; i++)
        c->layer[i].slot = c->layer[c->layer[i].kv_from].slot;
    settle_groups(c);
    if (c->attention_scale == 0)
        c->attention_scale = 1.0f / sqrtf((float)c->head_dim);
    if (r && model_key_dim(c) > HEAD_DIM_MAX)
        config_fail(r, ST_UNSUPPORTED, "keys of %d elements are not supported (at most %d)",
                    model_key_dim(c), HEAD_DIM_MAX);
}

int32_t model_key_dim(const struct model_config *c)
{
    return c->attention == ATTENTION_LATENT ? c->latent.kv_rank + c->latent.rope_dim : c->head_dim;
}

int32_t model_value_dim(const struct model_config *c)
{
    return c->attention == ATTENTION_LATENT ? 0 : c->head_dim;
}

static enum status read_config(struct config_reader *r, struct model_config *out)
{
    if (json_kind_of(r->root) != JSON_OBJ)
        return config_fail(r, ST_INVALID, "expected a JSON object");
    static const struct size_defaults none;
    memset(out, 0, sizeof *out);
    config_set_defaults(out);
    const json *root = r->root, *text = config_object(r, root, "text_config");
    const struct architecture *a = find_architecture(r, root);
    if (!a)
        return r->status;
    if (text)
        r->root = text;
    r->defaults = a->defaults ? a->defaults : &none;
    snprintf(out->architecture, sizeof out->architecture, "%s", a->name);
    read_quantization(r, out);
    read_sizes(r, out);
    read_dtype(r, root, out);
    if (!r->status) {
        read_bos(r, out);
        read_eos(r, out);
        if (text) {
            r->root = root; /* some files have the ids on the outside, and a word on the head */
            read_eos(r, out);
            out->may_tie = config_bool(r, root, "tie_word_embeddings", true);
            r->root = text;
        }
        a->read(r, out);
    }
    if (!r->status)
        check_heads(r, out);
    if (!r->status)
        config_settle(r, out);
    r->root = root;
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
    struct model_config config;
    st = read_config(&r, &config);
    json_free(root);
    if (!st)
        *out = config;
    return st;
}

static enum status read_gguf(const char *path, struct model_config *out, struct error *err)
{
    struct weight_source *source = NULL;
    struct error mine = {0};
    enum status st = weight_source_open(path, &source, err);
    if (st)
        return st;
    st = config_from_gguf(source, out, &mine);
    if (st)
        err_set(err, st, "%.200s: %s", path, mine.text);
    weight_source_close(source);
    return st;
}

static enum status read_json(const char *path, struct model_config *out, struct error *err)
{
    json *root = NULL;
    enum status st = json_read_file(path, CONFIG_MAX_BYTES, &root, err);
    if (st)
        return st;
    struct config_reader r = {.root = root, .file = path, .err = err};
    st = read_config(&r, out);
    json_free(root);
    return st;
}

/* generation_config.json may be missing; beside a GGUF file that is named itself it is not looked
 * for (nothing lies within a file). */
static enum status read_defaults(const char *path, struct model_config *config,
                                 struct generation_defaults *out, struct error *err)
{
    json *root = NULL;
    struct error mine = {0};
    enum status st = json_read_file(path, CONFIG_MAX_BYTES, &root, &mine);
    if (st == ST_NOT_FOUND)
        return ST_OK;
    if (st) {
        if (err)
            *err = mine;
        return st;
    }
    struct config_reader r = {.root = root, .file = path, .err = err};
    st = read_generation(&r, config, out);
    json_free(root);
    return st;
}

enum status model_config_read(const char *dir, struct model_config *out,
                              struct generation_defaults *defaults, struct error *err)
{
    struct model_config config;
    struct generation_defaults generation = {0};
    char path[4096], gguf[4096];
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    enum status st;
    if (weight_source_find_gguf(dir, gguf, sizeof gguf, NULL) == ST_OK)
        st = read_gguf(gguf, &config, err);
    else
        st = read_json(path, &config, err);
    if (st)
        return st;
    if (snprintf(path, sizeof path, "%s/generation_config.json", dir) >= (int)sizeof path)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    st = read_defaults(path, &config, &generation, err);
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
