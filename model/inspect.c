#include "model/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/model_impl.h"

const char *model_rope_name(enum rope_kind kind)
{
    static const char *const names[] = {
        [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_DYNAMIC] = "dynamic",
        [ROPE_LLAMA3] = "llama3",   [ROPE_YARN] = "yarn",     [ROPE_LONGROPE] = "longrope"};
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

static void count_config(struct model_facts *f)
{
    const struct model_config *c = &f->config;
    f->parameters = model_config_parameters(c);
    f->active_parameters = model_config_active_parameters(c);
    for (int d = 0; d < DTYPE_COUNT; d++)
        f->kv_bytes_per_token[d] = (uint64_t)c->kv_layers * (uint64_t)c->kv_heads *
                                   (uint64_t)(model_key_dim(c) + model_value_dim(c)) *
                                   dtype_bytes((enum dtype)d);
}

static void count_tensors(struct model_facts *f, const struct checkpoint *ckpt)
{
    f->tensors = checkpoint_count(ckpt);
    f->files = checkpoint_files(ckpt);
    for (size_t i = 0; i < f->tensors; i++) {
        const struct tensor *t = checkpoint_at(ckpt, i);
        f->by_type[t->type].tensors++;
        f->by_type[t->type].bytes += t->bytes;
    }
}

struct matcher {
    struct model_facts *facts;
    const struct checkpoint *checkpoint;
    const char *dir;
    unsigned char *seen; /* of the checkpoint's tensors */
    uint64_t used;
};

static enum status match_weight(void *ctx, const struct weight_spec *s)
{
    struct matcher *m = ctx;
    const struct tensor *t = weights_find(m->checkpoint, s);
    struct error err = {0};
    enum dtype dtype;
    if (!t && s->optional)
        return ST_OK;
    size_t i = t ? (size_t)(t - checkpoint_at(m->checkpoint, 0)) : 0;
    if (t && m->seen[i])
        return ST_OK;
    if (weights_check_tensor(t, s, m->dir, &dtype, &err))
        add_problem(m->facts, &err);
    if (t) {
        m->facts->weight_bytes += t->bytes;
        m->seen[i] = 1;
        m->used++;
    }
    return ST_OK;
}

static void match_tensors(struct model_facts *f, const struct checkpoint *ckpt, const char *dir)
{
    struct matcher m = {.facts = f, .checkpoint = ckpt, .dir = dir};
    m.seen = calloc((size_t)f->tensors + 1, 1);
    if (m.seen)
        weights_list(&f->config, NULL, match_weight, &m);
    free(m.seen);
    f->tensors_unused = f->tensors - m.used;
    for (int d = 0; d < DTYPE_COUNT; d++)
        f->memory_at_max_context_bytes[d] =
            f->weight_bytes + f->kv_bytes_per_token[d] * (uint64_t)f->config.max_context;
}

enum status model_inspect(const char *dir, struct model_facts *out, struct error *err)
{
    struct stat info;
    if (stat(dir, &info) != 0 || !S_ISDIR(info.st_mode))
        return err_set(err, ST_NOT_FOUND, "%.400s: no such folder", dir);
    memset(out, 0, sizeof *out);
    struct error problem = {0};
    struct checkpoint *ckpt = NULL;
    out->has_config = model_config_read(dir, &out->config, &out->defaults, &problem) == ST_OK;
    if (!out->has_config)
        add_problem(out, &problem);
    out->has_checkpoint = checkpoint_open(dir, &ckpt, &problem) == ST_OK;
    if (!out->has_checkpoint)
        add_problem(out, &problem);
    if (out->has_config)
        count_config(out);
    if (out->has_checkpoint)
        count_tensors(out, ckpt);
    if (out->has_config && out->has_checkpoint)
        match_tensors(out, ckpt, dir);
    checkpoint_close(ckpt);
    out->files_present.tokenizer_json = has_file(dir, "tokenizer.json");
    out->files_present.tokenizer_config = has_file(dir, "tokenizer_config.json");
    out->files_present.chat_template_jinja = has_file(dir, "chat_template.jinja");
    out->files_present.generation_config = has_file(dir, "generation_config.json");
    if (!out->files_present.tokenizer_json) {
        err_set(&problem, ST_NOT_FOUND, "%.400s/tokenizer.json: missing", dir);
        add_problem(out, &problem);
    }
    return ST_OK;
}
