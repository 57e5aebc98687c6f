#include "formats/weight_source.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "formats/dequant.h"
#include "formats/quantized.h"
#include "formats/weight_ints.h"

struct weight_source {
    struct checkpoint *checkpoint;
    struct gguf *gguf;
    struct opened_file *files; /* [n_files] */
    size_t n_files;
    struct quant_config config;
    struct quantized_set set; /* weights in order of name */
    uint64_t stored_bytes;
};

void weight_source_close(struct weight_source *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->set.n_names; i++)
        free(s->set.names[i]);
    free(s->set.names);
    free(s->set.weights);
    quant_config_fini(&s->config);
    checkpoint_close(s->checkpoint);
    gguf_close(s->gguf);
    free(s->files);
    free(s);
}

void weight_source_let_go(const struct weight_source *s)
{
    if (s->checkpoint)
        checkpoint_let_go(s->checkpoint);
    if (s->gguf)
        gguf_let_go(s->gguf);
}

static int compare_weights(const void *a, const void *b)
{
    return strcmp(((const struct weight *)a)->name, ((const struct weight *)b)->name);
}

/* Sorts, refuses doubles, sums. Shapes that lie in what is sorted are pointed to anew. */
static enum status finish(struct weight_source *s, struct error *err)
{
    struct weight_parts *v = s->set.weights;
    for (size_t i = 0; i < s->set.n; i++)
        v[i].has_own_shape = v[i].w.shape == v[i].own_shape;
    if (s->set.n)
        qsort(v, s->set.n, sizeof *v, compare_weights);
    for (size_t i = 0; i < s->set.n; i++)
        if (v[i].has_own_shape)
            v[i].w.shape = v[i].own_shape;
    for (size_t i = 0; i < s->set.n; i++) {
        if (i && !strcmp(v[i - 1].w.name, v[i].w.name))
            return err_set(err, ST_INVALID, "weight %.120s is there twice: as %s and as %s",
                           v[i].w.name, v[i - 1].w.format, v[i].w.format);
        s->stored_bytes += v[i].w.stored_bytes;
    }
    return ST_OK;
}

static enum status bind_gguf(struct weight_source *s, struct error *err)
{
    size_t n = gguf_tensor_count(s->gguf);
    s->set.weights = calloc(n + 1, sizeof *s->set.weights);
    if (!s->set.weights)
        return err_set(err, ST_NO_MEMORY, "no memory for %zu weights", n);
    s->set.n = n;
    for (size_t i = 0; i < n; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(s->gguf, i);
        struct weight_parts *p = &s->set.weights[i];
        uint64_t cols = t->rank ? t->shape[t->rank - 1] : 1;
        enum tensor_type type = t->type == GGML_F32    ? TENSOR_F32
                                : t->type == GGML_F16  ? TENSOR_F16
                                : t->type == GGML_BF16 ? TENSOR_BF16
                                                       : TENSOR_TYPES;
        p->kind = WEIGHT_GGML;
        p->gguf = t;
        p->w = (struct weight){.name = t->name,
                               .shape = t->shape,
                               .rank = t->rank,
                               .rows = cols ? t->elements / cols : 0,
                               .cols = cols,
                               .stored_bytes = t->bytes,
                               .type = type,
                               .data = type == TENSOR_TYPES ? NULL : t->data,
                               .readable = dequant_ggml_known(t->type)};
        snprintf(p->w.format, sizeof p->w.format, "%s", ggml_type_name(t->type));
    }
    return ST_OK;
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && !strcmp(s + n - m, suffix);
}

static bool has_safetensors(const char *dir)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    char path[4096];
    for (int i = 0; i < 2; i++)
        if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) < (int)sizeof path &&
            access(path, F_OK) == 0)
            return true;
    return false;
}

enum status weight_source_find_gguf(const char *path, char *out, size_t cap, struct error *err)
{
    struct stat info;
    const bool is_folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    if (has_suffix(path, ".gguf") && !is_folder) {
        if (snprintf(out, cap, "%s", path) >= (int)cap)
            return err_set(err, ST_INVALID, "%.200s: path too long", path);
        return ST_OK;
    }
    if (has_safetensors(path))
        return err_set(err, ST_NOT_FOUND, "%.200s: has safetensors", path);
    enum status st = gguf_find_file(path, out, cap, err);
    if (st == ST_NOT_FOUND)
        return err_set(err, st, "%s: no model.safetensors, no index of its shards, no GGUF file",
                       path);
    return st;
}

static enum status open_under(struct weight_source *s, const char *path, struct error *err)
{
    struct stat info;
    char file[4096];
    if (!has_suffix(path, ".gguf") && stat(path, &info) == 0 && S_ISREG(info.st_mode))
        return checkpoint_open_file(path, &s->checkpoint, err);
    if (!has_safetensors(path)) {
        enum status st = weight_source_find_gguf(path, file, sizeof file, err);
        return st ? st : gguf_open(file, &s->gguf, err);
    }
    enum status st = quant_config_read(path, &s->config, err);
    return st ? st : checkpoint_open(path, &s->checkpoint, err);
}

static enum status list_files(struct weight_source *s, struct error *err)
{
    const size_t n = s->gguf ? gguf_files(s->gguf) : checkpoint_files(s->checkpoint);
    const struct opened_file *index = s->gguf ? NULL : checkpoint_index(s->checkpoint);
    s->files = calloc(n + 1, sizeof *s->files);
    if (!s->files)
        return err_set(err, ST_NO_MEMORY, "no memory for a list of %zu files", n);
    for (size_t i = 0; i < n; i++)
        s->files[s->n_files++] =
            s->gguf ? gguf_file_at(s->gguf, i) : checkpoint_file_at(s->checkpoint, i);
    if (index)
        s->files[s->n_files++] = *index;
    return ST_OK;
}

const struct opened_file *weight_source_files(const struct weight_source *s, size_t *n)
{
    *n = s->n_files;
    return s->files;
}

static enum status bind(struct weight_source *s, const char *label, struct error *err)
{
    enum status st;
    s->set.checkpoint = s->checkpoint;
    s->set.config = &s->config;
    st = s->gguf ? bind_gguf(s, err) : quantized_bind(&s->set, err);
    if (!st)
        st = finish(s, err);
    if (st)
        err_prefix(err, "%.200s", label);
    return st;
}

enum status weight_source_open(const char *path, struct weight_source **out, struct error *err)
{
    struct weight_source *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, ST_NO_MEMORY, "no memory for a checkpoint");
    enum status st = open_under(s, path, err);
    if (!st)
        st = list_files(s, err);
    if (!st)
        st = bind(s, path, err);
    if (st)
        weight_source_close(s);
    else
        *out = s;
    return st;
}

enum status weight_source_open_bytes(const struct weight_bytes *in, struct weight_source **out,
                                     struct error *err)
{
    struct weight_source *s = calloc(1, sizeof *s);
    json *config = NULL;
    if (!s)
        return err_set(err, ST_NO_MEMORY, "no memory for a checkpoint");
    enum status st = ST_OK;
    if (in->quantization_config)
        st = json_read(in->quantization_config, in->config_len, &config, err);
    if (!st)
        st = quant_config_parse(config, &s->config, err);
    if (!st && in->len >= 4 && memcmp(in->bytes, "GGUF", 4) == 0)
        st = gguf_open_bytes("bytes", in->bytes, in->len, &s->gguf, err);
    else if (!st)
        st = checkpoint_open_bytes("bytes", in->bytes, in->len, &s->checkpoint, err);
    if (!st)
        st = bind(s, "bytes", err);
    json_free(config);
    if (st)
        weight_source_close(s);
    else
        *out = s;
    return st;
}

const struct weight *weight_source_find(const struct weight_source *s, const char *name)
{
    struct weight_parts key = {.w = {.name = name}};
    const struct weight_parts *hit =
        s->set.n ? bsearch(&key, s->set.weights, s->set.n, sizeof key, compare_weights) : NULL;
    return hit ? &hit->w : NULL;
}

size_t weight_source_count(const struct weight_source *s)
{
    return s->set.n;
}

const struct weight *weight_source_at(const struct weight_source *s, size_t i)
{
    return i < s->set.n ? &s->set.weights[i].w : NULL;
}

uint64_t weight_source_stored_bytes(const struct weight_source *s)
{
    return s->stored_bytes;
}

const char *weight_source_quantization(const struct weight_source *s)
{
    static const char *const names[] = {[QUANT_FP8] = "fp8",
                                        [QUANT_GPTQ] = "gptq",
                                        [QUANT_AWQ] = "awq",
                                        [QUANT_COMPRESSED] = "compressed-tensors",
                                        [QUANT_MXFP4] = "mxfp4"};
    return s->gguf ? "gguf" : names[s->config.method];
}

const struct checkpoint *weight_source_checkpoint(const struct weight_source *s)
{
    return s->checkpoint;
}

const struct gguf *weight_source_gguf(const struct weight_source *s)
{
    return s->gguf;
}

void weight_read_rows(const struct weight *w, uint64_t r0, uint64_t r1, float *out)
{
    assert(w->readable && r0 <= r1 && r1 <= w->rows);
    if (r0 < r1 && w->cols)
        quantized_read((const struct weight_parts *)(const void *)w, r0, r1, out);
}

bool weight_as_fp8(const struct weight *w, struct weight_fp8 *out)
{
    const struct weight_parts *p = (const struct weight_parts *)(const void *)w;
    if (!w->readable || p->kind != WEIGHT_SCALED || p->values->type != TENSOR_F8_E4M3 || p->zero ||
        p->order || w->rows == 0 || w->cols == 0)
        return false;
    *out = (struct weight_fp8){p->values->data, p->matrix_rows, p->row_block, p->col_block,
                               p->scale_cols};
    return true;
}

void weight_read_fp8_scales(const struct weight *w, uint64_t row, float *out)
{
    assert(row < w->rows);
    quantized_read_scales((const struct weight_parts *)(const void *)w, row, out);
}

bool weight_as_ints(const struct weight *w, struct weight_ints *out)
{
    return w->readable && w->rows && w->cols && w->cols <= INT32_MAX &&
           quantized_as_ints((const struct weight_parts *)(const void *)w, out);
}

bool weight_wants_token_bytes(const struct weight *w)
{
    return ((const struct weight_parts *)(const void *)w)->token_bytes;
}

void weight_read_ints(const struct weight *w, uint64_t r0, uint64_t r1, uint8_t *q, float *scale,
                      float *min)
{
    struct ints_out out = {q, scale, min};
    assert(w->readable && r0 <= r1 && r1 <= w->rows);
    if (r0 < r1 && w->cols)
        quantized_read_ints((const struct weight_parts *)(const void *)w, r0, r1, out);
}

void weight_read_order(const struct weight *w, int32_t *order)
{
    quantized_read_order((const struct weight_parts *)(const void *)w, order);
}
