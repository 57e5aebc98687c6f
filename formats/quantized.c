/* Which tensors of a checkpoint are weights and which go with one. The names decide: each tool has
 * its own for the packed integers, their scales and zeros. */
#include "formats/quantized.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/dequant.h"
#include "formats/quantized_check.h"

static bool ends(const char *name, const char *suffix, size_t *base)
{
    size_t n = strlen(name), m = strlen(suffix);
    if (n <= m || strcmp(name + n - m, suffix) != 0)
        return false;
    *base = n - m;
    return true;
}

const struct tensor *quantized_sibling(const struct binder *b, const char *name, size_t len,
                                       const char *suffix)
{
    char text[QUANTIZED_NAME_MAX + 64];
    if (len > QUANTIZED_NAME_MAX)
        return NULL;
    memcpy(text, name, len);
    snprintf(text + len, sizeof text - len, "%s", suffix);
    return checkpoint_find(b->set->checkpoint, text);
}

/* What concerns activations and the KV cache, which are not quantized here. */
static bool is_of_activations(const char *name)
{
    static const char *const suffixes[] = {
        ".input_scale",      ".input_zero_point",  ".input_global_scale",
        ".activation_scale", ".output_scale",      ".output_zero_point",
        ".k_scale",          ".v_scale",           ".q_scale",
        ".kv_scale",         ".k_zero_point",      ".v_zero_point",
        ".q_zero_point",     ".prob_output_scale", ".input_scale_inv",
        ".input_g_idx"};
    size_t base;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (ends(name, suffixes[i], &base))
            return true;
    return false;
}

static bool is_8_bit(const struct tensor *t)
{
    switch (t->type) {
    case TENSOR_F8_E4M3:
    case TENSOR_F8_E5M2:
    case TENSOR_F8_E4M3FNUZ:
    case TENSOR_F8_E5M2FNUZ:
    case TENSOR_I8:
        return true;
    default:
        return false;
    }
}

/* A companion's suffix, and the suffixes of the tensors that it may go with. */
struct companion {
    const char *suffix, *owners[2];
    bool must; /* without an owner it is an error, not a tensor like any other */
};

static const struct companion column_packed[] = {{".qzeros", {".qweight"}, true},
                                                 {".scales", {".qweight"}, true},
                                                 {".g_idx", {".qweight"}, true}};
static const struct companion scaled[] = {
    {".weight_scale", {".weight", ".weight_packed"}, true},
    {".weight_scale_inv", {".weight", ".weight_packed"}, true},
    {".weight_zero_point", {".weight", ".weight_packed"}, true},
    {".weight_g_idx", {".weight", ".weight_packed"}, true},
    {".weight_shape", {".weight_packed"}, true},
    {"_scale", {""}, false},
    {"_scale_inv", {""}, false}};
static const struct companion mxfp4[] = {{"_scales", {"_blocks"}, true}};

enum role { ROLE_WEIGHT, ROLE_COMPANION, ROLE_ORPHAN };

/* ".weight" and a bare name own scales only where they are of 8 bits; packed ones always. */
static bool owns(const char *suffix, const struct tensor *owner)
{
    bool packed = *suffix && strcmp(suffix, ".weight") != 0;
    return owner && (packed || is_8_bit(owner));
}

static enum role find_role(const struct binder *b, const struct tensor *t,
                           const struct companion *list, size_t n)
{
    size_t base;
    for (size_t i = 0; i < n; i++) {
        if (!ends(t->name, list[i].suffix, &base))
            continue;
        for (int k = 0; k < 2 && list[i].owners[k]; k++) {
            const char *suffix = list[i].owners[k];
            if (owns(suffix, quantized_sibling(b, t->name, base, suffix)))
                return ROLE_COMPANION;
        }
        if (list[i].must)
            return ROLE_ORPHAN;
    }
    return ROLE_WEIGHT;
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static enum role role_of(const struct binder *b, const struct tensor *t)
{
    switch (b->set->config->method) {
    case QUANT_GPTQ:
    case QUANT_AWQ:
        return find_role(b, t, column_packed, COUNT(column_packed));
    case QUANT_MXFP4:
        return find_role(b, t, mxfp4, COUNT(mxfp4));
    case QUANT_FP8:
    case QUANT_COMPRESSED:
        return find_role(b, t, scaled, COUNT(scaled));
    case QUANT_NONE:
        break;
    }
    /* scales beside 8-bit floats mean what they mean, config or not */
    enum role role = find_role(b, t, scaled, COUNT(scaled));
    return role == ROLE_COMPANION ? role : ROLE_WEIGHT;
}

typedef enum status bind_fn(struct binder *b, const struct tensor *values, struct weight_parts *p);

/* How a weight is stored; NULL: plainly. *base is the length of the module's name (MXFP4: of the
 * weight's own). */
static bind_fn *bind_of(const struct binder *b, const struct tensor *t, size_t *base)
{
    enum quant_method method = b->set->config->method;
    if ((method == QUANT_GPTQ || method == QUANT_AWQ) && ends(t->name, ".qweight", base))
        return method == QUANT_GPTQ ? quantized_bind_gptq : quantized_bind_awq;
    if (method == QUANT_COMPRESSED && ends(t->name, ".weight_packed", base))
        return quantized_bind_packed;
    if (method == QUANT_MXFP4 && ends(t->name, "_blocks", base))
        return quantized_bind_mxfp4;
    if (!is_8_bit(t) || method == QUANT_GPTQ || method == QUANT_AWQ || method == QUANT_MXFP4)
        return NULL;
    size_t len = *base = strlen(t->name);
    ends(t->name, ".weight", base);
    bool has_scale = quantized_sibling(b, t->name, len, "_scale") ||
                     quantized_sibling(b, t->name, len, "_scale_inv");
    return has_scale || method != QUANT_NONE ? quantized_bind_scaled : NULL;
}

static void bind_plain(const struct tensor *t, struct weight_parts *p)
{
    bool direct = t->type == TENSOR_F32 || t->type == TENSOR_F16 || t->type == TENSOR_BF16;
    uint64_t cols = t->rank ? t->shape[t->rank - 1] : 1;
    p->kind = WEIGHT_PLAIN;
    p->values = t;
    p->w = (struct weight){.name = t->name,
                           .shape = t->shape,
                           .rank = t->rank,
                           .rows = cols ? t->elements / cols : 0,
                           .cols = cols,
                           .stored_bytes = t->bytes,
                           .type = direct ? t->type : TENSOR_TYPES,
                           .data = direct ? t->data : NULL,
                           .readable = dequant_plain_known(t->type) && t->type != TENSOR_U8 &&
                                       t->type != TENSOR_I8};
    snprintf(p->w.format, sizeof p->w.format, "%s", tensor_type_name(t->type));
}

/* The name of the weight whose parts are `base`.something; kept in the set. */
static char *make_name(struct quantized_set *set, const char *base, size_t len, const char *suffix)
{
    char *name = malloc(len + strlen(suffix) + 1);
    if (!name)
        return NULL;
    memcpy(name, base, len);
    strcpy(name + len, suffix);
    set->names[set->n_names++] = name;
    return name;
}

static void sum_bytes(struct weight_parts *p)
{
    const struct tensor *parts[] = {p->values, p->scale, p->zero, p->order};
    p->w.stored_bytes = 0;
    for (size_t i = 0; i < COUNT(parts); i++)
        p->w.stored_bytes += parts[i] ? parts[i]->bytes : 0;
}

static enum status bind_one(struct binder *b, const struct tensor *t, struct weight_parts *p)
{
    struct quantized_set *set = b->set;
    size_t base = 0;
    bind_fn *fn = bind_of(b, t, &base);
    if (!fn) {
        bind_plain(t, p);
        return ST_OK;
    }
    if (base > QUANTIZED_NAME_MAX)
        return err_set(b->err, ST_INVALID, "tensor %.120s...: a name of %zu bytes", t->name,
                       strlen(t->name));
    bool own = fn == quantized_bind_scaled, whole = fn == quantized_bind_mxfp4;
    char *module = make_name(set, t->name, base, "");
    const char *name = own ? t->name : whole ? module : make_name(set, t->name, base, ".weight");
    if (!module || !name)
        return err_set(b->err, ST_NO_MEMORY, "no memory for names");
    b->module = module;
    if (quant_config_ignores(set->config, module))
        return err_set(b->err, ST_INVALID,
                       "tensor %.120s is quantized, but the config lists %.120s as not so", t->name,
                       module);
    p->values = t;
    p->w = (struct weight){
        .name = name, .shape = p->own_shape, .type = TENSOR_TYPES, .readable = true};
    enum status st = fn(b, t, p);
    sum_bytes(p);
    return st;
}

enum status quantized_bind(struct quantized_set *set, struct error *err)
{
    struct binder b = {set, err, NULL};
    size_t n = checkpoint_count(set->checkpoint);
    bool quantized = set->config->method != QUANT_NONE;
    set->weights = calloc(n + 1, sizeof *set->weights);
    set->names = calloc(2 * n + 1, sizeof *set->names);
    if (!set->weights || !set->names)
        return err_set(err, ST_NO_MEMORY, "no memory for %zu weights", n);
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = checkpoint_at(set->checkpoint, i);
        if (quantized && is_of_activations(t->name))
            continue;
        if (quantized && strstr(t->name, ".weight_global_scale"))
            return err_set(err, ST_UNSUPPORTED, "tensor %.120s: nvfp4 weights", t->name);
        enum role role = role_of(&b, t);
        if (role == ROLE_ORPHAN)
            return err_set(err, ST_INVALID, "tensor %.120s belongs to a weight that is not there",
                           t->name);
        if (role == ROLE_COMPANION)
            continue;
        enum status st = bind_one(&b, t, &set->weights[set->n]);
        if (st)
            return st;
        set->n++;
    }
    return ST_OK;
}
