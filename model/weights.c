/* Tensors of a checkpoint to the weights of a model: which there must be, of what shape, and that
 * their numbers are numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/model_impl.h"

/* Up to this size every element is checked; above it norms and biases wholly, matrices by samples,
 * since a scan would read the whole checkpoint from disk before the first token. */
#define SCAN_WHOLE_MAX_BYTES (UINT64_C(256) << 20)
#define SCAN_SAMPLES 64
#define SCAN_SAMPLE_ELEMENTS 2048

/* ---- what a config calls for ---- */

#define MODEL_SLOT(field) offsetof(struct model_weights, field)
#define LAYER_SLOT(field) offsetof(struct layer_weights, field)

enum size { SIZE_NONE, SIZE_HIDDEN, SIZE_FFN, SIZE_Q, SIZE_KV, SIZE_VOCAB };
enum condition { ALWAYS, IF_UNTIED, IF_QKV_BIAS, IF_O_BIAS, IF_MLP_BIAS };

struct entry {
    const char *name;
    enum size rows, cols;
    enum condition when;
    bool is_norm;
    size_t offset;
};

static const struct entry model_entries[] = {
    {"model.embed_tokens.weight", SIZE_VOCAB, SIZE_HIDDEN, ALWAYS, false, MODEL_SLOT(embed)},
    {"model.norm.weight", SIZE_HIDDEN, SIZE_NONE, ALWAYS, true, MODEL_SLOT(norm)},
    {"lm_head.weight", SIZE_VOCAB, SIZE_HIDDEN, IF_UNTIED, false, MODEL_SLOT(head)},
};

static const struct entry layer_entries[] = {
    {"input_layernorm.weight", SIZE_HIDDEN, SIZE_NONE, ALWAYS, true, LAYER_SLOT(attn_norm)},
    {"self_attn.q_proj.weight", SIZE_Q, SIZE_HIDDEN, ALWAYS, false, LAYER_SLOT(q)},
    {"self_attn.k_proj.weight", SIZE_KV, SIZE_HIDDEN, ALWAYS, false, LAYER_SLOT(k)},
    {"self_attn.v_proj.weight", SIZE_KV, SIZE_HIDDEN, ALWAYS, false, LAYER_SLOT(v)},
    {"self_attn.o_proj.weight", SIZE_HIDDEN, SIZE_Q, ALWAYS, false, LAYER_SLOT(o)},
    {"self_attn.q_proj.bias", SIZE_Q, SIZE_NONE, IF_QKV_BIAS, false, LAYER_SLOT(q_bias)},
    {"self_attn.k_proj.bias", SIZE_KV, SIZE_NONE, IF_QKV_BIAS, false, LAYER_SLOT(k_bias)},
    {"self_attn.v_proj.bias", SIZE_KV, SIZE_NONE, IF_QKV_BIAS, false, LAYER_SLOT(v_bias)},
    {"self_attn.o_proj.bias", SIZE_HIDDEN, SIZE_NONE, IF_O_BIAS, false, LAYER_SLOT(o_bias)},
    {"post_attention_layernorm.weight", SIZE_HIDDEN, SIZE_NONE, ALWAYS, true, LAYER_SLOT(mlp_norm)},
    {"mlp.gate_proj.weight", SIZE_FFN, SIZE_HIDDEN, ALWAYS, false, LAYER_SLOT(gate)},
    {"mlp.up_proj.weight", SIZE_FFN, SIZE_HIDDEN, ALWAYS, false, LAYER_SLOT(up)},
    {"mlp.down_proj.weight", SIZE_HIDDEN, SIZE_FFN, ALWAYS, false, LAYER_SLOT(down)},
    {"mlp.gate_proj.bias", SIZE_FFN, SIZE_NONE, IF_MLP_BIAS, false, LAYER_SLOT(gate_bias)},
    {"mlp.up_proj.bias", SIZE_FFN, SIZE_NONE, IF_MLP_BIAS, false, LAYER_SLOT(up_bias)},
    {"mlp.down_proj.bias", SIZE_HIDDEN, SIZE_NONE, IF_MLP_BIAS, false, LAYER_SLOT(down_bias)},
};
#define N_MODEL_ENTRIES (sizeof model_entries / sizeof model_entries[0])
#define N_LAYER_ENTRIES (sizeof layer_entries / sizeof layer_entries[0])

static int32_t size_of(const struct model_config *c, enum size s)
{
    switch (s) {
    case SIZE_HIDDEN:
        return c->hidden;
    case SIZE_FFN:
        return c->ffn;
    case SIZE_Q:
        return c->heads * c->head_dim;
    case SIZE_KV:
        return c->kv_heads * c->head_dim;
    case SIZE_VOCAB:
        return c->vocab;
    default:
        return 0;
    }
}

static bool holds(const struct model_config *c, enum condition when)
{
    switch (when) {
    case IF_UNTIED:
        return !c->tied;
    case IF_QKV_BIAS:
        return c->qkv_bias;
    case IF_O_BIAS:
        return c->o_bias;
    case IF_MLP_BIAS:
        return c->mlp_bias;
    default:
        return true;
    }
}

bool weights_spec(const struct model_config *c, size_t *cursor, struct weight_spec *out)
{
    const size_t end = N_MODEL_ENTRIES + N_LAYER_ENTRIES * (size_t)c->layers;
    for (; *cursor < end; ++*cursor) {
        const bool in_model = *cursor < N_MODEL_ENTRIES;
        const size_t i = in_model ? *cursor : (*cursor - N_MODEL_ENTRIES) % N_LAYER_ENTRIES;
        const struct entry *e = in_model ? &model_entries[i] : &layer_entries[i];
        if (!holds(c, e->when))
            continue;
        *out = (struct weight_spec){.rows = size_of(c, e->rows),
                                    .cols = size_of(c, e->cols),
                                    .is_norm = e->is_norm,
                                    .is_bias = e->cols == SIZE_NONE && !e->is_norm,
                                    .offset = e->offset,
                                    .layer = -1};
        if (!in_model)
            out->layer = (int32_t)((*cursor - N_MODEL_ENTRIES) / N_LAYER_ENTRIES);
        if (in_model)
            snprintf(out->name, sizeof out->name, "%s", e->name);
        else
            snprintf(out->name, sizeof out->name, "model.layers.%d.%s", out->layer, e->name);
        ++*cursor;
        return true;
    }
    return false;
}

/* ---- checks ---- */

bool weights_dtype_of(enum tensor_type t, enum dtype *out)
{
    switch (t) {
    case TENSOR_F32:
        *out = DTYPE_F32;
        return true;
    case TENSOR_BF16:
        *out = DTYPE_BF16;
        return true;
    case TENSOR_F16:
        *out = DTYPE_F16;
        return true;
    default:
        return false;
    }
}

enum status weights_check_tensor(const struct tensor *t, const struct weight_spec *s,
                                 const char *dir, enum dtype *dtype, struct error *err)
{
    const bool vector = s->cols == 0;
    char expected[64], found[256];
    if (vector)
        snprintf(expected, sizeof expected, "[%d]", s->rows);
    else
        snprintf(expected, sizeof expected, "[%d, %d]", s->rows, s->cols);
    if (!t)
        return err_set(err, ST_INVALID, "%s: tensor %s: expected %s by config.json, but missing",
                       dir, s->name, expected);
    if (t->rank != (vector ? 1 : 2) || t->shape[0] != (uint64_t)s->rows ||
        (!vector && t->shape[1] != (uint64_t)s->cols))
        return err_set(err, ST_INVALID, "%s: tensor %s: expected shape %s by config.json, found %s",
                       dir, s->name, expected, tensor_shape_text(t, found, sizeof found));
    if (!weights_dtype_of(t->type, dtype))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: tensor %s: type %s is not supported (supported: BF16, F16, F32)", dir,
                       s->name, tensor_type_name(t->type));
    return ST_OK;
}

/* Index of a non-finite element, or t->elements; samples a matrix of a big checkpoint. */
static size_t find_nonfinite(const struct tensor *t, enum dtype dtype, bool whole)
{
    const size_t n = t->elements, size = dtype_bytes(dtype);
    if (whole || n <= (size_t)SCAN_SAMPLES * SCAN_SAMPLE_ELEMENTS)
        return weights_find_nonfinite(t->data, dtype, n);
    const size_t last = n - SCAN_SAMPLE_ELEMENTS;
    for (size_t i = 0; i < SCAN_SAMPLES; i++) {
        size_t at = i == SCAN_SAMPLES - 1 ? last : last / (SCAN_SAMPLES - 1) * i;
        size_t bad =
            weights_find_nonfinite((const char *)t->data + at * size, dtype, SCAN_SAMPLE_ELEMENTS);
        if (bad < SCAN_SAMPLE_ELEMENTS)
            return at + bad;
    }
    return n;
}

/* ---- binding ---- */

struct binding {
    const struct model_config *config;
    const struct checkpoint *checkpoint;
    const char *dir;
    struct model_weights *out;
    size_t biases_used;
    bool scan_whole;
    struct error *err;
};

static void place(struct binding *b, const struct weight_spec *s, const struct tensor *t,
                  enum dtype dtype)
{
    char *owner = s->layer < 0 ? (char *)b->out : (char *)&b->out->layers[s->layer];
    if (s->is_bias) {
        float *bias = b->out->biases + b->biases_used;
        dtype_convert(bias, DTYPE_F32, t->data, dtype, (size_t)s->rows);
        b->biases_used += (size_t)s->rows;
        *(const float **)(owner + s->offset) = bias;
        return;
    }
    *(struct matrix *)(owner + s->offset) = (struct matrix){.data = t->data,
                                                            .dtype = dtype,
                                                            .rows = s->cols ? s->rows : 1,
                                                            .cols = s->cols ? s->cols : s->rows};
}

static enum status bind_one(struct binding *b, const struct weight_spec *s)
{
    const struct tensor *t = checkpoint_find(b->checkpoint, s->name);
    enum dtype dtype;
    enum status st = weights_check_tensor(t, s, b->dir, &dtype, b->err);
    if (st)
        return st;
    size_t bad = find_nonfinite(t, dtype, b->scan_whole || s->cols == 0);
    if (bad < t->elements)
        return err_set(b->err, ST_INVALID, "%s: tensor %s: element %zu is not a finite number",
                       b->dir, s->name, bad);
    place(b, s, t, dtype);
    b->out->bytes += t->bytes;
    b->out->tensors++;
    return ST_OK;
}

/* A tensor that nothing reads may be a feature that we do not compute: worth a line, as for a bias
 * that the config does not announce. */
static void warn_unused(const struct binding *b)
{
    const size_t n = checkpoint_count(b->checkpoint);
    if (n == b->out->tensors)
        return;
    const struct tensor *all = checkpoint_at(b->checkpoint, 0);
    char *used = calloc(n, 1), name[160] = "?";
    struct weight_spec s;
    for (size_t cursor = 0; used && weights_spec(b->config, &cursor, &s);)
        used[checkpoint_find(b->checkpoint, s.name) - all] = 1;
    for (size_t i = 0; used && i < n; i++) {
        if (!used[i]) {
            log_quote(name, sizeof name, all[i].name);
            break;
        }
    }
    free(used);
    log_warn("tensors_unused", "n=%zu of=%zu first=%s", n - b->out->tensors, n, name);
}

static size_t count_biases(const struct model_config *c)
{
    struct weight_spec s;
    size_t n = 0;
    for (size_t cursor = 0; weights_spec(c, &cursor, &s);)
        n += s.is_bias ? (size_t)s.rows : 0;
    return n;
}

enum status weights_bind(const struct model_config *c, const struct checkpoint *ckpt,
                         const char *dir, struct model_weights *out, struct error *err)
{
    *out = (struct model_weights){0};
    out->layers = calloc((size_t)c->layers, sizeof *out->layers);
    out->biases = calloc(count_biases(c) + 1, sizeof *out->biases);
    struct binding b = {.config = c,
                        .checkpoint = ckpt,
                        .dir = dir,
                        .out = out,
                        .scan_whole = checkpoint_data_bytes(ckpt) <= SCAN_WHOLE_MAX_BYTES,
                        .err = err};
    enum status st = ST_OK;
    if (!out->layers || !out->biases)
        st =
            err_set(err, ST_NO_MEMORY, "%s: no memory for the tables of %d layers", dir, c->layers);
    struct weight_spec s;
    for (size_t cursor = 0; !st && weights_spec(c, &cursor, &s);)
        st = bind_one(&b, &s);
    if (st) {
        weights_fini(out);
        return st;
    }
    if (c->tied)
        out->head = out->embed;
    warn_unused(&b);
    return ST_OK;
}

void weights_fini(struct model_weights *w)
{
    free(w->layers);
    free(w->biases);
    *w = (struct model_weights){0};
}
