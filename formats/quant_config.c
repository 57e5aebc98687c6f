#include "formats/quant_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/name_pattern.h"

#define CONFIG_BYTES_MAX ((size_t)16 << 20)
#define SUPPORTED "fp8, gptq, awq, compressed-tensors and mxfp4 are supported"

static enum status take_names(const json *list, const char *what, struct quant_names *out,
                              struct error *err)
{
    size_t n = json_count(list);
    if (json_kind_of(list) == JSON_ABSENT || json_kind_of(list) == JSON_NULL_)
        return ST_OK;
    if (json_kind_of(list) != JSON_ARR)
        return err_set(err, ST_INVALID, "%s: expected an array", what);
    if (n + out->n > QUANT_PATTERNS_MAX)
        return err_set(err, ST_INVALID, "%s: %zu entries, at most %d", what, n, QUANT_PATTERNS_MAX);
    char **v = realloc(out->v, (out->n + n + 1) * sizeof *v);
    if (!v)
        return err_set(err, ST_NO_MEMORY, "%s: no memory", what);
    out->v = v;
    for (size_t i = 0; i < n; i++) {
        const char *s = json_as_str(json_at(list, i), NULL);
        if (!s)
            return err_set(err, ST_INVALID, "%s[%zu]: expected a string", what, i);
        enum status st = name_pattern_check(s, err);
        if (st) {
            err_prefix(err, "%s[%zu]", what, i);
            return st;
        }
        out->v[out->n] = strdup(s);
        if (!out->v[out->n++])
            return err_set(err, ST_NO_MEMORY, "%s: no memory", what);
    }
    return ST_OK;
}

static void names_fini(struct quant_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->v[i]);
    free(names->v);
}

void quant_config_fini(struct quant_config *c)
{
    names_fini(&c->ignored);
    for (size_t i = 0; i < c->n_groups; i++)
        names_fini(&c->groups[i].targets);
    free(c->groups);
    *c = (struct quant_config){0};
}

/* -1, 0, null and absence are one group per row. */
static enum status read_group_size(const json *v, size_t *out, struct error *err)
{
    enum json_kind kind = json_kind_of(v);
    int64_t n = json_as_int(v, -1);
    if ((kind != JSON_INT && kind != JSON_ABSENT && kind != JSON_NULL_) || n < -1 ||
        n > QUANT_GROUP_SIZE_MAX)
        return err_set(err, ST_INVALID, "group_size: expected -1 to %d", QUANT_GROUP_SIZE_MAX);
    *out = n > 0 ? (size_t)n : 0;
    return ST_OK;
}

static enum status read_block(const json *v, const char *key, size_t out[2], struct error *err)
{
    out[0] = out[1] = 0;
    if (json_kind_of(v) == JSON_ABSENT || json_kind_of(v) == JSON_NULL_)
        return ST_OK;
    int64_t a = json_as_int(json_at(v, 0), -1), b = json_as_int(json_at(v, 1), -1);
    if (json_count(v) != 2 || a < 1 || b < 1 || a > QUANT_GROUP_SIZE_MAX ||
        b > QUANT_GROUP_SIZE_MAX)
        return err_set(err, ST_INVALID, "%s: expected [ROWS, COLUMNS]", key);
    out[0] = (size_t)a;
    out[1] = (size_t)b;
    return ST_OK;
}

static enum status read_bits(const json *v, const char *allowed, int *out, struct error *err)
{
    int64_t bits = json_as_int(v, 4);
    if (bits < 1 || bits > 9 || !strchr(allowed, (int)('0' + bits)))
        return err_set(err, ST_UNSUPPORTED, "weights of %lld bits; known are those of %s bits",
                       (long long)bits, allowed);
    *out = (int)bits;
    return ST_OK;
}

static enum status parse_gptq(const json *v, struct quant_config *c, struct error *err)
{
    const char *format = json_as_str(json_get(v, "checkpoint_format"), "gptq");
    c->method = QUANT_GPTQ;
    c->zero_is_less = strcmp(format, "gptq_v2") != 0;
    if (strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return err_set(err, ST_UNSUPPORTED,
                       "checkpoint_format \"%.40s\"; gptq and gptq_v2 are supported", format);
    /* "-:PATTERN" leaves modules as they are, which their tensors show too */
    const json *dynamic = json_get(v, "dynamic");
    for (void *it = json_kind_of(dynamic) == JSON_OBJ ? json_first(dynamic) : NULL; it;
         it = json_next(dynamic, it))
        if (strncmp(json_iter_key(it), "-:", 2) != 0)
            return err_set(err, ST_UNSUPPORTED, "gptq with \"dynamic\" settings per module");
    enum status st = read_bits(json_get(v, "bits"), "2348", &c->bits, err);
    return st ? st : read_group_size(json_get(v, "group_size"), &c->group_size, err);
}

static enum status parse_awq(const json *v, struct quant_config *c, struct error *err)
{
    const json *bits = json_get(v, "bits"), *group = json_get(v, "group_size");
    const char *version = json_as_str(json_get(v, "version"), "gemm");
    c->method = QUANT_AWQ;
    if (strcmp(version, "gemm") && strcmp(version, "GEMM"))
        return err_set(err, ST_UNSUPPORTED, "awq version \"%.40s\"; gemm is supported", version);
    enum status st = read_bits(bits ? bits : json_get(v, "w_bit"), "4", &c->bits, err);
    return st ? st
              : read_group_size(group ? group : json_get(v, "q_group_size"), &c->group_size, err);
}

static bool is_mx(const char *format)
{
    return format && !strcmp(format, "mxfp4-pack-quantized");
}

static enum status check_format(const char *format, struct error *err)
{
    static const char *const known[] = {"pack-quantized",
                                        "int-quantized",
                                        "float-quantized",
                                        "naive-quantized",
                                        "mixed-precision",
                                        "mxfp4-pack-quantized",
                                        "dense"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(format, known[i]))
            return ST_OK;
    return err_set(err, ST_UNSUPPORTED,
                   "format \"%.60s\"; pack-quantized, int-quantized, float-quantized, "
                   "naive-quantized and mxfp4-pack-quantized are supported",
                   format);
}

/* "input_activations" of a group. */
static bool are_token_bytes(const json *v)
{
    return json_as_int(json_get(v, "num_bits"), 0) == 8 &&
           json_as_bool(json_get(v, "dynamic"), false) &&
           json_as_bool(json_get(v, "symmetric"), true) &&
           !strcmp(json_as_str(json_get(v, "type"), "int"), "int") &&
           !strcmp(json_as_str(json_get(v, "strategy"), ""), "token");
}

static enum status parse_group(const json *v, const char *format, struct quant_group *g,
                               struct error *err)
{
    const json *w = json_get(v, "weights");
    const char *own = json_as_str(json_get(v, "format"), format);
    enum status st = take_names(json_get(v, "targets"), "targets", &g->targets, err);
    if (!st)
        st = check_format(own, err);
    if (st || json_kind_of(w) != JSON_OBJ) /* activations only: weights stay as they are */
        return st;
    const char *strategy = json_as_str(json_get(w, "strategy"), "");
    g->is_float = !strcmp(json_as_str(json_get(w, "type"), "int"), "float");
    g->symmetric = json_as_bool(json_get(w, "symmetric"), true);
    g->is_mxfp4 = is_mx(own);
    g->token_bytes = are_token_bytes(json_get(v, "input_activations"));
    if (!strcmp(strategy, "tensor_group") && !g->is_mxfp4)
        return err_set(err, ST_UNSUPPORTED, "weights with strategy tensor_group");
    const json *bits = json_get(w, "num_bits");
    st = read_bits(bits, g->is_float ? (g->is_mxfp4 ? "4" : "8") : "2345678", &g->bits, err);
    if (!st && (!strcmp(strategy, "group") || !*strategy))
        st = read_group_size(json_get(w, "group_size"), &g->group_size, err);
    if (!st && !strcmp(strategy, "block"))
        st = read_block(json_get(w, "block_structure"), "block_structure", g->block, err);
    return st;
}

static enum status parse_compressed(const json *v, struct quant_config *c, struct error *err)
{
    const json *groups = json_get(v, "config_groups"), *sparsity = json_get(v, "sparsity_config");
    const char *format = json_as_str(json_get(v, "format"), "dense");
    const char *sparse = json_as_str(json_get(sparsity, "format"), "dense");
    c->method = QUANT_COMPRESSED;
    if (strcmp(sparse, "dense"))
        return err_set(err, ST_UNSUPPORTED, "sparsity format \"%.60s\"", sparse);
    enum status st = check_format(format, err);
    if (st)
        return st;
    size_t n = json_count(groups);
    if (json_kind_of(groups) != JSON_OBJ || n == 0 || n > QUANT_GROUPS_MAX)
        return err_set(err, ST_INVALID, "config_groups: expected an object of 1 to %d groups",
                       QUANT_GROUPS_MAX);
    c->groups = calloc(n, sizeof *c->groups);
    if (!c->groups)
        return err_set(err, ST_NO_MEMORY, "config_groups: no memory");
    for (void *it = json_first(groups); it && !st; it = json_next(groups, it)) {
        st = parse_group(json_iter_value(it), format, &c->groups[c->n_groups++], err);
        if (st)
            err_prefix(err, "%.60s", json_iter_key(it));
    }
    return st;
}

/* modelopt: {"quant_algo": "FP8", "exclude_modules": [..]} */
static enum status parse_modelopt(const json *v, struct quant_config *c, struct error *err)
{
    const char *algo = json_as_str(json_get(v, "quant_algo"), "");
    if (strcmp(algo, "FP8"))
        return err_set(err, ST_UNSUPPORTED, "modelopt's \"%.40s\"; its FP8 is supported", algo);
    c->method = QUANT_FP8;
    return take_names(json_get(v, "exclude_modules"), "exclude_modules", &c->ignored, err);
}

static enum status parse_fp8(const json *v, struct quant_config *c, struct error *err)
{
    const char *format = json_as_str(json_get(v, "fmt"), "e4m3");
    c->method = QUANT_FP8;
    if (strcmp(format, "e4m3") && strcmp(format, "e5m2"))
        return err_set(err, ST_UNSUPPORTED, "fp8 of format \"%.40s\"", format);
    return read_block(json_get(v, "weight_block_size"), "weight_block_size", c->block, err);
}

/* auto-round packs as one of the others does. */
static enum status parse_auto_round(const json *v, struct quant_config *c, struct error *err)
{
    const char *packing = json_as_str(json_get(v, "packing_format"), "auto_round:auto_gptq");
    if (strstr(packing, "awq"))
        return parse_awq(v, c, err);
    if (strstr(packing, "gptq"))
        return parse_gptq(v, c, err);
    return err_set(err, ST_UNSUPPORTED, "packing_format \"%.60s\"", packing);
}

static enum status parse_method(const json *v, struct quant_config *c, struct error *err)
{
    static const struct {
        const char *name;
        enum status (*parse)(const json *, struct quant_config *, struct error *);
    } methods[] = {
        {"fp8", parse_fp8},
        {"fbgemm_fp8", parse_fp8},
        {"gptq", parse_gptq},
        {"gptqmodel", parse_gptq},
        {"awq", parse_awq},
        {"compressed-tensors", parse_compressed},
        {"auto-round", parse_auto_round},
        {"intel/auto-round", parse_auto_round},
        {"modelopt", parse_modelopt},
    };
    const char *name = json_as_str(json_get(v, "quant_method"), NULL);
    if (!name && json_get(v, "config_groups"))
        name = "compressed-tensors";
    if (!name)
        return err_set(err, ST_INVALID, "quant_method: expected a string");
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (!strcmp(methods[i].name, name))
            return methods[i].parse(v, c, err);
    if (!strcmp(name, "mxfp4")) {
        c->method = QUANT_MXFP4;
        return ST_OK;
    }
    return err_set(err, ST_UNSUPPORTED, "quantized by \"%.60s\"; " SUPPORTED, name);
}

enum status quant_config_parse(const json *v, struct quant_config *out, struct error *err)
{
    static const char *const lists[] = {"modules_to_not_convert", "ignored_layers", "ignore"};
    *out = (struct quant_config){0};
    enum json_kind kind = json_kind_of(v);
    if (kind == JSON_ABSENT || kind == JSON_NULL_)
        return ST_OK;
    if (kind != JSON_OBJ)
        return err_set(err, ST_INVALID, "expected an object, got %s", json_kind_name(kind));
    enum status st = parse_method(v, out, err);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0] && !st; i++)
        st = take_names(json_get(v, lists[i]), lists[i], &out->ignored, err);
    if (st)
        quant_config_fini(out);
    return st;
}

/* One of the files that older tools wrote; `key` is the member that counts, NULL the whole. */
struct old_file {
    const char *name, *key;
    enum status (*parse)(const json *, struct quant_config *, struct error *);
};

static enum status read_old(const char *dir, const struct old_file *file, struct quant_config *out,
                            bool *found, struct error *err)
{
    char path[4096];
    json *root = NULL;
    if (snprintf(path, sizeof path, "%s/%s", dir, file->name) >= (int)sizeof path)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    *found = access(path, F_OK) == 0;
    if (!*found)
        return ST_OK;
    enum status st = json_read_file(path, CONFIG_BYTES_MAX, &root, err);
    if (st)
        return st;
    st = file->parse(file->key ? json_get(root, file->key) : root, out, err);
    json_free(root);
    if (st) {
        quant_config_fini(out);
        err_prefix(err, "%s", path);
    }
    return st;
}

enum status quant_config_read(const char *dir, struct quant_config *out, struct error *err)
{
    static const struct old_file old[] = {{"quantize_config.json", NULL, parse_gptq},
                                          {"quant_config.json", NULL, parse_awq},
                                          {"hf_quant_config.json", "quantization", parse_modelopt}};
    char path[4096];
    json *root = NULL;
    *out = (struct quant_config){0};
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    enum status st = ST_OK;
    if (access(path, F_OK) == 0) {
        st = json_read_file(path, CONFIG_BYTES_MAX, &root, err);
        if (st)
            return st;
        const json *v = json_get(root, "quantization_config");
        if (!v)
            v = json_get(root, "compression_config");
        if (!v)
            v = json_get(json_get(root, "text_config"), "quantization_config");
        st = quant_config_parse(v, out, err);
        if (st)
            err_prefix(err, "%s: quantization_config", path);
        json_free(root);
    }
    bool found = false;
    for (size_t i = 0; i < sizeof old / sizeof old[0] && !st && !found; i++)
        if (out->method == QUANT_NONE)
            st = read_old(dir, &old[i], out, &found, err);
    return st;
}

typedef bool match_fn(const char *pattern, const char *name);

static bool any_matches(const struct quant_names *names, const char *module, match_fn *matches)
{
    for (size_t i = 0; i < names->n; i++)
        if (matches(names->v[i], module))
            return true;
    return false;
}

bool quant_config_ignores(const struct quant_config *c, const char *module)
{
    bool whole =
        c->method == QUANT_COMPRESSED; /* there a list names modules, not what is in them */
    return any_matches(&c->ignored, module, whole ? name_matches_whole : name_matches);
}

/* A name says more than the class "Linear" that stands for the rest. */
const struct quant_group *quant_config_group(const struct quant_config *c, const char *module)
{
    for (size_t i = 0; i < c->n_groups; i++)
        if (any_matches(&c->groups[i].targets, module, name_matches_whole))
            return &c->groups[i];
    for (size_t i = 0; i < c->n_groups; i++)
        for (size_t k = 0; k < c->groups[i].targets.n; k++) {
            const char *target = c->groups[i].targets.v[k];
            if (target[0] >= 'A' && target[0] <= 'Z' && !strchr(target, '.'))
                return &c->groups[i];
        }
    return NULL;
}
