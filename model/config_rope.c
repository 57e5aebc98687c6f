/* The rotary embedding of a config: which kind, its numbers, and the frequencies that follow. */
#include <math.h>
#include <string.h>

#include "model/config_internal.h"

#define FACTOR_MAX 1e6

static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static void read_linear(struct config_reader *r, const json *from, struct rope_config *out)
{
    out->factor = config_real(r, from, "factor", 1, FACTOR_MAX, CONFIG_REQUIRED);
}

static void read_llama3(struct config_reader *r, const json *from, struct rope_config *out)
{
    read_linear(r, from, out);
    out->low_freq_factor =
        config_real(r, from, "low_freq_factor", 1e-3, FACTOR_MAX, CONFIG_REQUIRED);
    out->high_freq_factor =
        config_real(r, from, "high_freq_factor", 1e-3, FACTOR_MAX, CONFIG_REQUIRED);
    out->original_context = (int32_t)config_int(r, from, "original_max_position_embeddings", 1,
                                                CONTEXT_MAX, CONFIG_REQUIRED);
    if (!r->status && out->low_freq_factor >= out->high_freq_factor)
        config_fail(r, ST_INVALID,
                    "rope_scaling.low_freq_factor: expected less than high_freq_factor");
}

/* original_max_position_embeddings stands in the scaling or, in some files, beside it. */
static void read_original(struct config_reader *r, const json *from, const struct model_config *c,
                          struct rope_config *out)
{
    const char *key = "original_max_position_embeddings";
    const json *where = json_get(from, key) ? from : r->root;
    out->original_context = (int32_t)config_int(r, where, key, 1, CONTEXT_MAX, c->max_context);
    out->factor = config_real(r, from, "factor", 1e-3, FACTOR_MAX,
                              (double)c->max_context / out->original_context);
}

/* Peng et al. 2023. */
static void read_yarn(struct config_reader *r, const json *from, const struct model_config *c,
                      struct rope_config *out)
{
    read_original(r, from, c, out);
    out->beta_fast = config_real(r, from, "beta_fast", 1e-3, FACTOR_MAX, 32);
    out->beta_slow = config_real(r, from, "beta_slow", 1e-3, FACTOR_MAX, 1);
    out->truncate = config_bool(r, from, "truncate", true);
    double mscale = config_real(r, from, "mscale", 0, FACTOR_MAX, 0);
    double all = config_real(r, from, "mscale_all_dim", 0, FACTOR_MAX, 0);
    double factor = mscale > 0 && all > 0
                        ? yarn_scale(out->factor, mscale) / yarn_scale(out->factor, all)
                        : yarn_scale(out->factor, 1);
    out->attention_factor = config_real(r, from, "attention_factor", 1e-6, FACTOR_MAX, factor);
}

static void read_factors(struct config_reader *r, const json *from, const char *key, int32_t n,
                         float *out)
{
    const json *list = json_get(from, key);
    if (!list || json_kind_of(list) != JSON_ARR || json_count(list) != (size_t)n) {
        config_fail(r, ST_INVALID, "rope_scaling.%s: expected an array of %d numbers", key, n);
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        double v = json_as_number(json_at(list, (size_t)i), 0);
        if (!(v > 0 && v < FACTOR_MAX)) {
            config_fail(r, ST_INVALID, "rope_scaling.%s: expected positive numbers", key);
            return;
        }
        out[i] = (float)v;
    }
}

/* Ding et al. 2024. */
static void read_longrope(struct config_reader *r, const json *from, const struct model_config *c,
                          struct rope_config *out)
{
    read_original(r, from, c, out);
    read_factors(r, from, "short_factor", out->dim / 2, out->short_factor);
    read_factors(r, from, "long_factor", out->dim / 2, out->long_factor);
    double factor = 1;
    if (out->factor > 1 && out->original_context > 1)
        factor = sqrt(1 + log(out->factor) / log(out->original_context));
    out->attention_factor = config_real(r, from, "attention_factor", 1e-6, FACTOR_MAX, factor);
}

static void read_kind(struct config_reader *r, const json *from, const struct model_config *c,
                      struct rope_config *out)
{
    char kind[64];
    const char *key = json_get(from, "rope_type") ? "rope_type" : "type";
    config_str(r, from, key, kind, sizeof kind, "default");
    if (strcmp(kind, "default") == 0 || strcmp(kind, "mrope") == 0)
        return;
    if (strcmp(kind, "linear") == 0) {
        out->kind = ROPE_LINEAR;
        read_linear(r, from, out);
    } else if (strcmp(kind, "dynamic") == 0 && !json_get(from, "alpha")) {
        out->kind = ROPE_DYNAMIC;
        out->original_context = c->max_context;
        read_linear(r, from, out);
    } else if (strcmp(kind, "dynamic") == 0 || strcmp(kind, "ntk_alpha") == 0) {
        /* a fixed stretch of the base (Hunyuan) */
        double alpha = config_real(r, from, "alpha", 1, FACTOR_MAX, CONFIG_REQUIRED);
        out->theta *= pow(alpha, (double)out->dim / (out->dim - 2));
    } else if (strcmp(kind, "llama3") == 0) {
        out->kind = ROPE_LLAMA3;
        read_llama3(r, from, out);
    } else if (strcmp(kind, "yarn") == 0 && !json_get(from, "short_factor")) {
        out->kind = ROPE_YARN;
        read_yarn(r, from, c, out);
    } else if (strcmp(kind, "longrope") == 0 || strcmp(kind, "su") == 0 ||
               strcmp(kind, "yarn") == 0) { /* the latter two in the first files of Phi-3 */
        out->kind = ROPE_LONGROPE;
        read_longrope(r, from, c, out);
    } else {
        config_fail(r, ST_UNSUPPORTED,
                    "rope_scaling.%s: \"%s\" is not supported (supported: default, linear, "
                    "dynamic, llama3, yarn, longrope)",
                    key, kind);
    }
}

/* One set: `from` holds the kind and perhaps theta, else the root does. */
static void read_set(struct config_reader *r, const json *from, double theta,
                     const struct model_config *c, struct rope_config *out)
{
    int32_t head = c->attention == ATTENTION_LATENT ? c->latent.rope_dim : c->head_dim;
    const json *parameters = from ? from : r->root;
    const char *key = "partial_rotary_factor";
    const json *where = json_get(parameters, key) ? parameters : r->root;
    double partial = config_real(r, where, key, 0, 1, 1.0);
    *out = (struct rope_config){.kind = ROPE_DEFAULT, .factor = 1, .attention_factor = 1};
    if (c->attention == ATTENTION_LATENT)
        partial = 1; /* the rotated part is a head's own */
    out->dim = (int32_t)(head * partial);
    where = json_get(from, "rope_theta") ? from : r->root;
    out->theta = config_real(r, where, "rope_theta", 1, 1e15, theta);
    if (!r->status && head > 0 &&
        (out->dim < 2 || out->dim % 2 != 0 || out->dim / 2 > MODEL_ROPE_FACTORS))
        config_fail(r, ST_INVALID,
                    "partial_rotary_factor: expected an even number of rotated elements from 2 to "
                    "%d, got %d of %d",
                    2 * MODEL_ROPE_FACTORS, out->dim, head);
    const json *beta = json_get(from, "llama_4_scaling_beta");
    if (beta && json_kind_of(beta) != JSON_NULL_)
        config_fail(r, ST_UNSUPPORTED,
                    "llama_4_scaling_beta: queries scaled by their position are not supported");
    if (from && !r->status)
        read_kind(r, from, c, out);
}

/* `rope_scaling`, or the `rope_parameters` that newer files have, which hold rope_theta as well, or
 * hold one set per kind of layer. */
void config_read_rope(struct config_reader *r, struct model_config *out)
{
    const json *parameters = config_object(r, r->root, "rope_parameters");
    const json *full = config_object(r, parameters, "full_attention");
    const json *sliding = config_object(r, parameters, "sliding_attention");
    if (!full)
        full = sliding ? sliding : parameters;
    if (!full)
        full = config_object(r, r->root, "rope_scaling");
    read_set(r, full, r->defaults->theta > 0 ? r->defaults->theta : 10000.0, out, &out->ropes[0]);
    out->ropes[1] = out->ropes[0];
    if (sliding)
        read_set(r, sliding, 10000.0, out, &out->ropes[1]);
}

bool config_read_local_rope(struct config_reader *r, struct model_config *out)
{
    const json *parameters = config_object(r, r->root, "rope_parameters");
    bool described = config_object(r, parameters, "sliding_attention") != NULL;
    if (!described) {
        out->ropes[1].kind = ROPE_DEFAULT;
        out->ropes[1].attention_factor = 1;
    }
    for (int32_t i = 0; i < out->layers; i++)
        out->layer[i].rope = out->layer[i].window > 0;
    return described;
}

/* Rounded to float where transformers is in float: the angles of late positions depend on it. */
static float base_frequency(const struct rope_config *r, int32_t i)
{
    float exponent = (float)(2 * i) / (float)r->dim;
    return 1.0f / (float)pow(r->theta, (double)exponent);
}

static float llama3_frequency(const struct rope_config *r, float f)
{
    const float factor = (float)r->factor, context = (float)r->original_context;
    const float low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
    float wavelength = 2.0f * (float)M_PI / f;
    float smooth = (context / wavelength - low) / (high - low);
    if (wavelength > context / low)
        return f / factor;
    if (wavelength >= context / high)
        return (1.0f - smooth) * f / factor + smooth * f;
    return f;
}

static double yarn_dimension(const struct rope_config *r, double rotations)
{
    return r->dim * log(r->original_context / (rotations * 2 * M_PI)) / (2 * log(r->theta));
}

static float yarn_frequency(const struct rope_config *r, int32_t i)
{
    double low = yarn_dimension(r, r->beta_fast), high = yarn_dimension(r, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < r->dim - 1 ? high : r->dim - 1;
    if (low == high)
        high += 0.001;
    float ramp = ((float)i - (float)low) / (float)(high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    float power = (float)pow(r->theta, (double)((float)(2 * i) / (float)r->dim));
    float keep = 1.0f - ramp;
    return 1.0f / ((float)r->factor * power) * (1.0f - keep) + 1.0f / power * keep;
}

void model_rope_frequencies(const struct rope_config *r, bool is_long, float *inv_freq)
{
    for (int32_t i = 0; i < r->dim / 2; i++) {
        float f = base_frequency(r, i);
        if (r->kind == ROPE_LINEAR)
            f /= (float)r->factor;
        else if (r->kind == ROPE_LLAMA3)
            f = llama3_frequency(r, f);
        else if (r->kind == ROPE_YARN)
            f = yarn_frequency(r, i);
        else if (r->kind == ROPE_LONGROPE)
            f = 1.0f / ((is_long ? r->long_factor[i] : r->short_factor[i]) *
                        (float)pow(r->theta, (double)((float)(2 * i) / (float)r->dim)));
        inv_freq[i] = f;
    }
}
