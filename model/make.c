/* Writes a random-weight checkpoint. Which tensors there are comes from weights_list(), as in
 * loading. */
#include "model/make.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/json.h"
#include "base/rng.h"
#include "model/make_files.h"
#include "model/model_impl.h"

#define SHARD_DEFAULT_BYTES UINT64_C(5000000000)
#define CHUNK_BYTES ((size_t)1 << 20)
#define LEVELS 65536
#define WEIGHT_BOUND 0.034641f /* uniform in +-0.02 * sqrt(3): the usual deviation of 0.02 */
#define PATH_BYTES 4096

/* ---- the plan: which tensor is in which shard ---- */

struct planned {
    struct weight_spec spec;
    uint64_t bytes;
    uint32_t shard;
};

struct plan {
    const struct model_make_args *args;
    size_t shape; /* of model_make_shape() */
    struct model_config config;
    struct planned *tensors;
    size_t count;
    uint32_t shards;
    uint64_t total_bytes, done_bytes;
    unsigned char *table; /* LEVELS values of the dtype */
    unsigned char *chunk;
    struct error *err;
};

static enum status count_tensor(void *ctx, const struct weight_spec *s)
{
    (void)s;
    ++*(size_t *)ctx;
    return ST_OK;
}

static uint64_t tensor_elements(const struct weight_spec *s)
{
    return (uint64_t)(s->experts ? s->experts : 1) * (uint64_t)s->rows *
           (uint64_t)(s->cols ? s->cols : 1);
}

/* A tensor that is read in parts is visited with each of them. */
static enum status add_tensor(void *ctx, const struct weight_spec *s)
{
    struct plan *p = ctx;
    bool in_parts = s->experts > 0 || s->take_rows != s->rows || s->take_cols != s->cols;
    for (size_t i = p->count; in_parts && i > 0; i--)
        if (strcmp(p->tensors[i - 1].spec.name, s->name) == 0)
            return ST_OK;
    p->tensors[p->count++].spec = *s;
    return ST_OK;
}

static enum status plan_init(struct plan *p, const struct model_make_args *args)
{
    const size_t size = dtype_bytes(args->dtype);
    const uint64_t limit = args->shard_bytes ? args->shard_bytes : SHARD_DEFAULT_BYTES;
    size_t n = 0;
    weights_list(&p->config, NULL, count_tensor, &n);
    p->tensors = calloc(n, sizeof *p->tensors);
    p->table = malloc(LEVELS * size);
    p->chunk = malloc(CHUNK_BYTES);
    if (!p->tensors || !p->table || !p->chunk)
        return err_set(p->err, ST_NO_MEMORY, "no memory for the plan of %zu tensors", n);
    for (int i = 0; i < LEVELS; i++) {
        float v = ((float)i + 0.5f) * (2.0f / LEVELS) * WEIGHT_BOUND - WEIGHT_BOUND;
        dtype_convert(p->table + (size_t)i * size, args->dtype, &v, DTYPE_F32, 1);
    }
    weights_list(&p->config, NULL, add_tensor, p);
    uint64_t in_shard = 0;
    for (size_t i = 0; i < p->count; i++) {
        struct planned *t = &p->tensors[i];
        t->bytes = tensor_elements(&t->spec) * size;
        if (in_shard > 0 && in_shard + t->bytes > limit) {
            p->shards++;
            in_shard = 0;
        }
        t->shard = p->shards;
        in_shard += t->bytes;
        p->total_bytes += t->bytes;
    }
    p->shards++;
    return ST_OK;
}

static void plan_fini(struct plan *p)
{
    free(p->tensors);
    free(p->table);
    free(p->chunk);
}

static void shard_name(const struct plan *p, uint32_t shard, char *out, size_t cap)
{
    if (p->shards == 1)
        snprintf(out, cap, "model.safetensors");
    else
        snprintf(out, cap, "model-%05u-of-%05u.safetensors", shard + 1, p->shards);
}

/* ---- writing ---- */

static enum status write_all(struct plan *p, int fd, const char *path, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(p->err, ST_IO, "%s: %s", path, strerror(n < 0 ? errno : ENOSPC));
        at += n;
        len -= (size_t)n;
    }
    return ST_OK;
}

static enum status create_file(struct plan *p, const char *name, char *path, int *fd)
{
    if (snprintf(path, PATH_BYTES, "%s/%s", p->args->out, name) >= PATH_BYTES)
        return err_set(p->err, ST_INVALID, "%.200s: path too long", p->args->out);
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return *fd >= 0 ? ST_OK : err_set(p->err, ST_IO, "%s: %s", path, strerror(errno));
}

/* Closes, and takes a half-written file away. */
static enum status finish_file(struct plan *p, enum status st, const char *path, int fd)
{
    if (close(fd) != 0 && !st)
        st = err_set(p->err, ST_IO, "%s: %s", path, strerror(errno));
    if (st)
        unlink(path);
    return st;
}

static enum status write_text(struct plan *p, const char *name, struct buf *text)
{
    char path[PATH_BYTES];
    int fd;
    enum status st = text->failed ? err_set(p->err, ST_NO_MEMORY, "no memory for %s", name) : ST_OK;
    if (!st)
        st = create_file(p, name, path, &fd);
    if (!st)
        st = finish_file(p, write_all(p, fd, path, text->data, text->len), path, fd);
    buf_fini(text);
    return st;
}

static void shard_header(const struct plan *p, uint32_t shard, struct buf *out)
{
    struct jw w = jw_begin(out);
    uint64_t at = 0;
    jw_obj(&w);
    jw_key(&w, "__metadata__");
    jw_raw(&w, "{\"format\":\"pt\"}");
    for (size_t i = 0; i < p->count; i++) {
        const struct planned *t = &p->tensors[i];
        if (t->shard != shard)
            continue;
        char body[192], shape[64], experts[16] = "";
        if (t->spec.experts > 0)
            snprintf(experts, sizeof experts, "%d,", t->spec.experts);
        if (t->spec.cols)
            snprintf(shape, sizeof shape, "[%s%d,%d]", experts, t->spec.rows, t->spec.cols);
        else
            snprintf(shape, sizeof shape, "[%s%d]", experts, t->spec.rows);
        static const char *const types[] = {
            [DTYPE_F32] = "F32", [DTYPE_BF16] = "BF16", [DTYPE_F16] = "F16"};
        snprintf(body, sizeof body, "{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
                 types[p->args->dtype], shape, (unsigned long long)at,
                 (unsigned long long)(at + t->bytes));
        jw_key(&w, t->spec.name);
        jw_raw(&w, body);
        at += t->bytes;
    }
    jw_end_obj(&w);
    while (out->len % 8 != 0)
        buf_putc(out, ' ');
}

static void fill_random(struct plan *p, struct rng *rng, size_t bytes)
{
    const size_t size = dtype_bytes(p->args->dtype), n = bytes / size;
    uint64_t bits = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % 4 == 0)
            bits = rng_next(rng);
        memcpy(p->chunk + i * size, p->table + (bits & (LEVELS - 1)) * size, size);
        bits >>= 16;
    }
}

static enum status write_tensor(struct plan *p, size_t index, int fd, const char *path)
{
    const struct planned *t = &p->tensors[index];
    struct rng rng = rng_seed(rng_hash(p->args->seed, index, 0, 0));
    enum status st = ST_OK;
    for (uint64_t done = 0; done < t->bytes && !st;) {
        size_t bytes = t->bytes - done < CHUNK_BYTES ? (size_t)(t->bytes - done) : CHUNK_BYTES;
        if (t->spec.is_norm) {
            const float one = 1.0f - p->config.norm_offset;
            const size_t size = dtype_bytes(p->args->dtype);
            for (size_t i = 0; i < bytes; i += size)
                dtype_convert(p->chunk + i, p->args->dtype, &one, DTYPE_F32, 1);
        } else {
            fill_random(p, &rng, bytes);
        }
        st = write_all(p, fd, path, p->chunk, bytes);
        done += bytes;
    }
    p->done_bytes += t->bytes;
    if (!st && p->args->progress)
        p->args->progress(p->args->ctx, p->done_bytes, p->total_bytes);
    return st;
}

static enum status write_shard(struct plan *p, uint32_t shard)
{
    char name[64], path[PATH_BYTES];
    struct buf header = {0};
    int fd;
    shard_name(p, shard, name, sizeof name);
    enum status st = create_file(p, name, path, &fd);
    if (st)
        return st;
    shard_header(p, shard, &header);
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    st = header.failed ? err_set(p->err, ST_NO_MEMORY, "%s: no memory for the header", path)
                       : write_all(p, fd, path, length, sizeof length);
    if (!st)
        st = write_all(p, fd, path, header.data, header.len);
    for (size_t i = 0; i < p->count && !st; i++) {
        if (p->tensors[i].shard == shard)
            st = write_tensor(p, i, fd, path);
    }
    buf_fini(&header);
    return finish_file(p, st, path, fd);
}

static enum status write_index(struct plan *p)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    jw_key(&w, "metadata");
    jw_obj(&w);
    jw_key(&w, "total_size");
    jw_uint(&w, p->total_bytes);
    jw_end_obj(&w);
    jw_key(&w, "weight_map");
    jw_obj(&w);
    for (size_t i = 0; i < p->count; i++) {
        char name[64];
        shard_name(p, p->tensors[i].shard, name, sizeof name);
        jw_key(&w, p->tensors[i].spec.name);
        jw_str(&w, name);
    }
    jw_end_obj(&w);
    jw_end_obj(&w);
    buf_putc(&text, '\n');
    return write_text(p, "model.safetensors.index.json", &text);
}

static enum status write_small_files(struct plan *p)
{
    static const struct {
        const char *name;
        void (*make)(const struct model_config *c, struct buf *out);
    } files[] = {
        {"tokenizer.json", make_tokenizer_json},
        {"tokenizer_config.json", make_tokenizer_config_json},
        {"generation_config.json", make_generation_config_json},
    };
    enum status st = ST_OK;
    for (size_t i = 0; i < sizeof files / sizeof files[0] && !st; i++) {
        struct buf text = {0};
        files[i].make(&p->config, &text);
        st = write_text(p, files[i].name, &text);
    }
    if (st)
        return st;
    struct buf text = {0};
    make_config_json(p->shape, p->args->dtype, &text);
    return write_text(p, "config.json", &text); /* last: it makes the folder a model */
}

/* ---- the folder ---- */

static enum status prepare_folder(const struct plan *p)
{
    const char *out = p->args->out;
    if (mkdir(out, 0755) != 0 && errno != EEXIST)
        return err_set(p->err, ST_IO, "%.400s: %s", out, strerror(errno));
    DIR *dir = opendir(out);
    if (!dir)
        return err_set(p->err, ST_IO, "%.400s: %s", out, strerror(errno));
    bool empty = true;
    for (const struct dirent *e; empty && (e = readdir(dir));)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(dir);
    if (!empty)
        return err_set(p->err, ST_INVALID, "%.400s: the folder is not empty", out);
    struct statvfs fs;
    if (statvfs(out, &fs) == 0) {
        uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (free_bytes < p->total_bytes)
            return err_set(p->err, ST_IO, "%.400s: needs %llu MiB, %llu MiB are free", out,
                           (unsigned long long)(p->total_bytes >> 20),
                           (unsigned long long)(free_bytes >> 20));
    }
    return ST_OK;
}

static enum status find_shape(struct plan *p)
{
    char names[400] = "";
    const char *at;
    for (; (at = model_make_shape(p->shape, NULL)); p->shape++) {
        if (strcmp(at, p->args->shape) == 0) {
            model_make_shape(p->shape, &p->config);
            return ST_OK;
        }
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", at);
    }
    return err_set(p->err, ST_NOT_FOUND, "no shape \"%.40s\"; there are: %s", p->args->shape,
                   names);
}

enum status model_make(const struct model_make_args *args, struct error *err)
{
    struct plan p = {.args = args, .err = err};
    assert(args->dtype < DTYPE_COUNT);
    enum status st = find_shape(&p);
    if (st)
        return st;
    p.config.dtype = args->dtype;
    st = plan_init(&p, args);
    if (!st)
        st = prepare_folder(&p);
    for (uint32_t shard = 0; shard < p.shards && !st; shard++)
        st = write_shard(&p, shard);
    if (!st && p.shards > 1)
        st = write_index(&p);
    if (!st)
        st = write_small_files(&p);
    plan_fini(&p);
    return st;
}
