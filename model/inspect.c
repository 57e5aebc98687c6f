#include "model/inspect.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/model_impl.h"
#include "model/weights_fp8.h"

const char *model_rope_name(enum rope_kind kind)
{
    static const char *const names[] = {
        [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_DYNAMIC] = "dynamic",
        [ROPE_LLAMA3] = "llama3",   [ROPE_YARN] = "yarn",     [ROPE_LONGROPE] = "longrope"};
    return names[kind];
}

const char *model_attention_name(enum attention_kind kind)
{
    static const char *const names[] = {[ATTENTION_GQA] = "grouped queries",
                                        [ATTENTION_LATENT] = "latent",
                                        [ATTENTION_MOA] = "mixture of heads"};
    return names[kind];
}

static void add_problem(struct model_facts *f, const struct error *err)
{
    if (f->n_problems == INSPECT_PROBLEMS_MAX)
        f->n_problems_hidden++;
    else
        snprintf(f->problems[f->n_problems++], sizeof f->problems[0], "%s", err->text);
}

static bool has_file(const char *dir, const char *name)
{
    char path[4096];
    struct stat info;
    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path &&
           stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* What tokenizer_load() would find. */
static bool has_tokenizer(const char *dir, const struct weight_source *source)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tiktoken.model",
                                        "vocab.json"};
    const struct gguf *g = source ? weight_source_gguf(source) : NULL;
    bool found = g && gguf_find(g, "tokenizer.ggml.model");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        found = found || has_file(dir, names[i]);
    DIR *d = found ? NULL : opendir(dir);
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        found = dot && !strcmp(dot, ".tiktoken");
    }
    if (d)
        closedir(d);
    return found;
}

static void count_layer(struct model_facts *f, int32_t window)
{
    int k = 0;
    while (k < f->n_kv_kinds && f->kv_kinds[k].window != window)
        k++;
    if (k == f->n_kv_kinds)
        f->kv_kinds[f->n_kv_kinds++].window = window;
    f->kv_kinds[k].layers++;
}

static void count_config(struct model_facts *f)
{
    const struct model_config *c = &f->config;
    for (int32_t i = 0; i < c->layers; i++)
        f->expert_layers += c->layer[i].mlp == MLP_MOE;
    f->parameters = model_config_parameters(c);
    f->active_parameters = model_config_active_parameters(c);
    for (int32_t i = 0; i < c->kv_layers; i++)
        count_layer(f, c->kv_groups.window[c->kv_groups.group_of[i]]);
    for (int k = 0; k < f->n_kv_kinds; k++)
        for (int d = 0; d < DTYPE_KV_COUNT; d++) {
            const int32_t window = f->kv_kinds[k].window;
            const uint64_t bytes = (uint64_t)f->kv_kinds[k].layers * (uint64_t)c->kv_heads *
                                   (kv_vector_bytes((enum dtype)d, (size_t)model_key_dim(c)) +
                                    kv_vector_bytes((enum dtype)d, (size_t)model_value_dim(c)));
            f->kv_kinds[k].bytes_per_token[d] = bytes;
            f->kv_bytes_per_token[d] += bytes;
            f->kv_bytes_at_max_context[d] += bytes * (uint64_t)(window ? window : c->max_context);
        }
}

static void count_format(struct model_facts *f, const struct weight *w)
{
    int i = 0;
    while (i < f->n_formats && strcmp(f->formats[i].name, w->format) != 0)
        i++;
    if (i == INSPECT_FORMATS_MAX)
        i--; /* the last one stands for the rest */
    if (i == f->n_formats)
        snprintf(f->formats[f->n_formats++].name, sizeof f->formats[0].name, "%s", w->format);
    f->formats[i].tensors++;
    f->formats[i].bytes += w->stored_bytes;
}

static void count_tensors(struct model_facts *f, const struct weight_source *source)
{
    const char *quantization = weight_source_quantization(source);
    const struct checkpoint *checkpoint = weight_source_checkpoint(source);
    f->converted_to = weights_converted_dtype(source);
    f->packs = weights_are_packed(source, MODEL_WEIGHTS_AUTO);
    f->tensors = weight_source_count(source);
    f->files = checkpoint ? checkpoint_files(checkpoint) : gguf_files(weight_source_gguf(source));
    snprintf(f->quantization, sizeof f->quantization, "%s", quantization ? quantization : "");
    for (size_t i = 0; i < f->tensors; i++)
        count_format(f, weight_source_at(source, i));
}

/* What a weight takes in memory: itself where it is used as it lies there, else what it is packed
 * or converted to. */
static uint64_t loaded_bytes(struct model_facts *f, const struct weight *w,
                             const struct weight_spec *s)
{
    struct packed form;
    if (w->data)
        return w->stored_bytes;
    if (f->packs && weights_pack(w, s, &form)) {
        f->tensors_packed++;
        return packed_bytes(&form);
    }
    if (f->packs && weights_fp8_takes(w, s))
        return w->stored_bytes;
    f->tensors_converted++;
    return w->rows * w->cols * dtype_bytes(f->converted_to);
}

struct matcher {
    struct model_facts *facts;
    const struct weight_source *source;
    const char *dir;
    unsigned char *seen; /* of the source's weights */
    uint64_t used;
};

static enum status match_weight(void *ctx, const struct weight_spec *s)
{
    struct matcher *m = ctx;
    const struct weight *w = weights_find(m->source, s);
    struct error err = {0};
    if (!w && s->optional)
        return ST_OK;
    unsigned char *seen = w ? &m->seen[weights_index(m->source, w)] : NULL;
    if (seen && *seen)
        return ST_OK;
    if (weights_check(w, s, m->dir, &err))
        add_problem(m->facts, &err);
    if (seen) {
        *seen = 1;
        m->used++;
        m->facts->weight_bytes += loaded_bytes(m->facts, w, s);
    }
    return ST_OK;
}

static void match_tensors(struct model_facts *f, const struct weight_source *source,
                          const char *dir)
{
    struct matcher m = {.facts = f, .source = source, .dir = dir};
    m.seen = calloc((size_t)f->tensors + 1, 1);
    if (m.seen)
        weights_list(&f->config, NULL, match_weight, &m);
    free(m.seen);
    f->tensors_unused = f->tensors - m.used;
    for (int d = 0; d < DTYPE_KV_COUNT; d++)
        f->memory_at_max_context_bytes[d] = f->weight_bytes + f->kv_bytes_at_max_context[d];
}

enum status model_inspect(const char *dir, struct model_facts *out, struct error *err)
{
    struct stat info;
    if (stat(dir, &info) != 0 || !(S_ISDIR(info.st_mode) || S_ISREG(info.st_mode)))
        return err_set(err, ST_NOT_FOUND, "%.400s: no such folder or file", dir);
    memset(out, 0, sizeof *out);
    struct error problem = {0};
    struct weight_source *source = NULL;
    out->has_config = model_config_read(dir, &out->config, &out->defaults, &problem) == ST_OK;
    if (!out->has_config)
        add_problem(out, &problem);
    out->has_checkpoint = weight_source_open(dir, &source, &problem) == ST_OK;
    if (!out->has_checkpoint)
        add_problem(out, &problem);
    if (out->has_config && out->has_checkpoint)
        weights_settle(source, &out->config);
    if (out->has_config)
        count_config(out);
    if (out->has_checkpoint)
        count_tensors(out, source);
    if (out->has_config && out->has_checkpoint)
        match_tensors(out, source, dir);
    out->files_present.tokenizer_json = has_file(dir, "tokenizer.json");
    out->files_present.tokenizer_config = has_file(dir, "tokenizer_config.json");
    out->files_present.chat_template_jinja = has_file(dir, "chat_template.jinja");
    out->files_present.generation_config = has_file(dir, "generation_config.json");
    if (!has_tokenizer(dir, source)) {
        err_set(&problem, ST_NOT_FOUND,
                "%.400s: no tokenizer (a tokenizer.json, or what stands in "
                "for one)",
                dir);
        add_problem(out, &problem);
    }
    weight_source_close(source);
    return ST_OK;
}
