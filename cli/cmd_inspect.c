/* `baton inspect MODEL`: what a model folder holds and what serving it costs. Exits 1 when the
 * folder cannot be served, after saying what could be found out. */
#include <stdio.h>
#include <string.h>

#include "base/flags.h"
#include "base/json.h"
#include "cli/commands.h"
#include "model/inspect.h"

static const char *bytes_text(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    int i = 0;
    for (; v >= 1024 && i < 5; i++)
        v /= 1024;
    snprintf(out, 32, i ? "%.2f %s" : "%.0f %s", v, units[i]);
    return out;
}

static const char *count_text(uint64_t n, char out[32])
{
    if (n >= 1000000000)
        snprintf(out, 32, "%.2f billion", (double)n / 1e9);
    else if (n >= 1000000)
        snprintf(out, 32, "%.2f million", (double)n / 1e6);
    else
        snprintf(out, 32, "%llu", (unsigned long long)n);
    return out;
}

static void print_attention(const struct model_facts *f)
{
    const struct model_config *c = &f->config;
    printf("attention       %s, %d heads, ", model_attention_name(c->attention), c->heads);
    if (c->attention == ATTENTION_LATENT)
        printf("%d values per token and layer", model_key_dim(c));
    else
        printf("%d KV heads, head dimension %d", c->kv_heads, c->head_dim);
    printf("%s%s\n", c->qkv_bias ? ", bias" : "", c->sinks ? ", sinks" : "");
    if (c->kv_layers < c->layers)
        printf("shared KV       %d of %d layers store keys and values\n", c->kv_layers, c->layers);
}

static void print_experts(const struct model_facts *f)
{
    const struct moe_config *m = &f->config.moe;
    if (f->expert_layers == 0)
        return;
    printf("experts         %d of ffn %d in %d layers, %d per token", m->experts, m->ffn,
           f->expert_layers, m->top_k);
    if (m->shared_ffn > 0)
        printf(", and one of ffn %d for all", m->shared_ffn);
    printf("\n");
}

static void print_config(const struct model_facts *f)
{
    const struct model_config *c = &f->config;
    char a[32], b[32];
    printf("architecture    %s\n", c->architecture);
    printf("shape           %d layers, hidden %d, ffn %d, vocabulary %d\n", c->layers, c->hidden,
           c->ffn, c->vocab);
    print_attention(f);
    print_experts(f);
    printf("rope            %s, theta %g", model_rope_name(c->ropes[0].kind), c->ropes[0].theta);
    if (c->ropes[0].kind != ROPE_DEFAULT)
        printf(", factor %g", c->ropes[0].factor);
    printf("\ncontext         %d tokens\n", c->max_context);
    printf("parameters      %s (%s read per token)%s\n", count_text(f->parameters, a),
           count_text(f->active_parameters, b), c->tied ? ", tied embedding" : "");
    printf("ends at         ");
    for (int i = 0; i < c->n_eos; i++)
        printf("%s%d", i ? ", " : "", c->eos[i]);
    printf("%s\n", c->n_eos ? "" : "no token");
}

static void print_costs(const struct model_facts *f)
{
    char a[32], b[32];
    for (int k = 0; k < f->n_kv_kinds && (f->n_kv_kinds > 1 || f->kv_kinds[0].window > 0); k++) {
        printf("%-15s %d layer%s ", k ? "" : "KV", f->kv_kinds[k].layers,
               f->kv_kinds[k].layers == 1 ? " keeps" : "s keep");
        if (f->kv_kinds[k].window > 0)
            printf("the last %d tokens", f->kv_kinds[k].window);
        else
            printf("every token");
        printf(", %s per token as fp16\n",
               bytes_text(f->kv_kinds[k].bytes_per_token[DTYPE_F16], a));
    }
    printf("\n%-15s %18s %28s\n", "KV type", "KV per token", "weights + one full context");
    for (int d = 0; d < DTYPE_KV_COUNT; d++)
        printf("%-15s %18s %28s\n", dtype_name((enum dtype)d),
               bytes_text(f->kv_bytes_per_token[d], a),
               f->has_checkpoint ? bytes_text(f->memory_at_max_context_bytes[d], b) : "?");
}

static void print_files(const struct model_facts *f)
{
    char a[32];
    printf("checkpoint      %llu tensors (%llu not used) in %llu files, %s in use:",
           (unsigned long long)f->tensors, (unsigned long long)f->tensors_unused,
           (unsigned long long)f->files, bytes_text(f->weight_bytes, a));
    for (int i = 0; i < f->n_formats; i++)
        printf("%s %s x %llu", i ? "," : "", f->formats[i].name,
               (unsigned long long)f->formats[i].tensors);
    printf("\n");
    if (*f->quantization)
        printf("quantization    %s, when loaded %llu tensors are converted to %s, %llu stay "
               "integers\n",
               f->quantization, (unsigned long long)f->tensors_converted,
               dtype_name(f->converted_to), (unsigned long long)f->tensors_packed);
}

static void print_text(const struct model_facts *f)
{
    if (f->has_config)
        print_config(f);
    if (f->has_checkpoint)
        print_files(f);
    printf("files           tokenizer.json %s, tokenizer_config.json %s, generation_config.json "
           "%s, chat_template.jinja %s\n",
           f->files_present.tokenizer_json ? "yes" : "no",
           f->files_present.tokenizer_config ? "yes" : "no",
           f->files_present.generation_config ? "yes" : "no",
           f->files_present.chat_template_jinja ? "yes" : "no");
    if (f->has_config)
        print_costs(f);
    for (int i = 0; i < f->n_problems; i++)
        printf("problem         %s\n", f->problems[i]);
    if (f->n_problems_hidden > 0)
        printf("problem         and %d more\n", f->n_problems_hidden);
}

/* ---- JSON ---- */

static void put_uint(struct jw *w, const char *key, uint64_t v)
{
    jw_key(w, key);
    jw_uint(w, v);
}

static void put_bool(struct jw *w, const char *key, bool v)
{
    jw_key(w, key);
    jw_bool(w, v);
}

static void put_config(struct jw *w, const struct model_facts *f)
{
    const struct model_config *c = &f->config;
    jw_key(w, "architecture");
    jw_str(w, c->architecture);
    put_uint(w, "layers", (uint64_t)c->layers);
    put_uint(w, "hidden", (uint64_t)c->hidden);
    put_uint(w, "ffn", (uint64_t)c->ffn);
    put_uint(w, "vocab", (uint64_t)c->vocab);
    put_uint(w, "heads", (uint64_t)c->heads);
    put_uint(w, "kv_heads", (uint64_t)c->kv_heads);
    put_uint(w, "head_dim", (uint64_t)c->head_dim);
    put_uint(w, "max_context", (uint64_t)c->max_context);
    jw_key(w, "rope");
    jw_str(w, model_rope_name(c->ropes[0].kind));
    jw_key(w, "attention");
    jw_str(w, model_attention_name(c->attention));
    put_uint(w, "kv_layers", (uint64_t)c->kv_layers);
    put_uint(w, "expert_layers", (uint64_t)f->expert_layers);
    put_uint(w, "experts", (uint64_t)c->moe.experts);
    put_uint(w, "experts_per_token", (uint64_t)c->moe.top_k);
    put_bool(w, "tied", c->tied);
    put_uint(w, "parameters", f->parameters);
    put_uint(w, "active_parameters", f->active_parameters);
}

static void put_by_dtype(struct jw *w, const char *key, const uint64_t *v)
{
    jw_key(w, key);
    jw_obj(w);
    for (int d = 0; d < DTYPE_KV_COUNT; d++)
        put_uint(w, dtype_name((enum dtype)d), v[d]);
    jw_end_obj(w);
}

static void put_costs(struct jw *w, const struct model_facts *f)
{
    put_by_dtype(w, "kv_bytes_per_token", f->kv_bytes_per_token);
    put_by_dtype(w, "kv_bytes_at_max_context", f->kv_bytes_at_max_context);
    jw_key(w, "kv_kinds");
    jw_arr(w);
    for (int k = 0; k < f->n_kv_kinds; k++) {
        jw_obj(w);
        put_uint(w, "layers", (uint64_t)f->kv_kinds[k].layers);
        put_uint(w, "window", (uint64_t)f->kv_kinds[k].window);
        put_by_dtype(w, "bytes_per_token", f->kv_kinds[k].bytes_per_token);
        jw_end_obj(w);
    }
    jw_end_arr(w);
}

static void put_checkpoint(struct jw *w, const struct model_facts *f)
{
    put_uint(w, "tensors", f->tensors);
    put_uint(w, "tensors_unused", f->tensors_unused);
    put_uint(w, "tensors_converted", f->tensors_converted);
    put_uint(w, "tensors_packed", f->tensors_packed);
    put_uint(w, "files", f->files);
    put_uint(w, "weight_bytes", f->weight_bytes);
    jw_key(w, "by_type");
    jw_obj(w);
    for (int i = 0; i < f->n_formats; i++) {
        jw_key(w, f->formats[i].name);
        jw_obj(w);
        put_uint(w, "tensors", f->formats[i].tensors);
        put_uint(w, "bytes", f->formats[i].bytes);
        jw_end_obj(w);
    }
    jw_end_obj(w);
    jw_key(w, "quantization");
    if (*f->quantization)
        jw_str(w, f->quantization);
    else
        jw_null(w);
}

static void print_json(const char *dir, const struct model_facts *f)
{
    struct buf out = {0};
    struct jw w = jw_begin(&out);
    jw_obj(&w);
    jw_key(&w, "path");
    jw_str(&w, dir);
    if (f->has_config)
        put_config(&w, f);
    if (f->has_checkpoint)
        put_checkpoint(&w, f);
    if (f->has_config)
        put_costs(&w, f);
    if (f->has_config && f->has_checkpoint)
        put_by_dtype(&w, "memory_at_max_context_bytes", f->memory_at_max_context_bytes);
    put_bool(&w, "tokenizer_json", f->files_present.tokenizer_json);
    put_bool(&w, "tokenizer_config", f->files_present.tokenizer_config);
    put_bool(&w, "generation_config", f->files_present.generation_config);
    put_bool(&w, "chat_template_jinja", f->files_present.chat_template_jinja);
    jw_key(&w, "problems");
    jw_arr(&w);
    for (int i = 0; i < f->n_problems; i++)
        jw_str(&w, f->problems[i]);
    jw_end_arr(&w);
    jw_end_obj(&w);
    fwrite(out.data, 1, out.len, stdout);
    putchar('\n');
    buf_fini(&out);
}

int cmd_inspect(int argc, char **argv)
{
    const char *dir = NULL;
    bool as_json = false;
    static struct model_facts facts;
    struct flag table[] = {{"json", FLAG_BOOL, &as_json, NULL, "one JSON object"}};
    struct flags f = {.program = "baton inspect",
                      .usage = "MODEL [options]",
                      .about = "Says what a model folder holds and what serving it costs. Reads no "
                               "weights.",
                      .table = table,
                      .n = 1};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, &dir, 1, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (n != 1) {
        fprintf(stderr, "baton inspect: expected MODEL (see baton inspect --help)\n");
        return 2;
    }
    struct error err = {0};
    if (model_inspect(dir, &facts, &err) != ST_OK) {
        fprintf(stderr, "baton inspect: %s\n", err.text);
        return 1;
    }
    if (as_json)
        print_json(dir, &facts);
    else
        print_text(&facts);
    if (facts.n_problems > 0)
        fprintf(stderr, "baton inspect: %s cannot be served\n", dir);
    return facts.n_problems > 0;
}
