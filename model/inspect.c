#include "model/inspect.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "model/model_impl.h"

const char *model_rope_name(enum rope_kind kind)
{
    static const char *const names[] = {
        [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_LLAMA3] = "llama3"};
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
    f->active_parameters = f->parameters - (c->tied ? 0 : (uint64_t)c->vocab * (uint64_t)c->hidden);
    for (int d = 0; d < DTYPE_COUNT; d++)
        f->kv_bytes_per_token[d] = 2 * (uint64_t)c->layers * (uint64_t)c->kv_heads *
                                   (uint64_t)c->head_dim * dtype_bytes((enum dtype)d);
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

static void match_tensors(struct model_facts *f, const struct checkpoint *ckpt, const char *dir)
{
    struct weight_spec s;
    uint64_t used = 0;
    for (size_t cursor = 0; weights_spec(&f->config, &cursor, &s);) {
        const struct tensor *t = checkpoint_find(ckpt, s.name);
        struct error err = {0};
        enum dtype dtype;
        if (weights_check_tensor(t, &s, dir, &dtype, &err))
            add_problem(f, &err);
        if (t) {
            f->weight_bytes += t->bytes;
            used++;
        }
    }
    f->tensors_unused = f->tensors - used;
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
