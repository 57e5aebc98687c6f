/* Tensors of a checkpoint to the weights of a model: that they are there, of their shape, and that
 * their numbers are numbers. What lies in the file as it is computed with stays there; the rest is
 * converted, once, by the whole team. */
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"
#include "model/model_impl.h"

/* Up to this size every element is checked; above it norms and biases wholly, matrices by samples,
 * since a scan would read the whole checkpoint from disk before the first token. */
#define SCAN_WHOLE_MAX_BYTES (UINT64_C(256) << 20)
#define SCAN_SAMPLES 64
#define SCAN_SAMPLE_ELEMENTS 2048

#define CONVERT_ALIGN 64
#define PROGRESS_NS INT64_C(2000000000)

/* ---- finding ---- */

/* Where files put a language model that is a part of something larger, or nothing but itself. */
static const struct {
    const char *name, *put;
} prefixes[] = {
    {"model.", "model."},
    {"model.", "language_model.model."},
    {"model.", "model.language_model."},
    {"model.", ""},
    {"lm_head.", "language_model.lm_head."},
};

const struct tensor *weights_find(const struct checkpoint *ckpt, const struct weight_spec *s)
{
    char name[192];
    const struct tensor *t = checkpoint_find(ckpt, s->name);
    for (size_t i = 0; !t && i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t n = strlen(prefixes[i].name);
        if (strncmp(s->name, prefixes[i].name, n) != 0)
            continue;
        snprintf(name, sizeof name, "%s%s", prefixes[i].put, s->name + n);
        t = checkpoint_find(ckpt, name);
    }
    return t;
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

static bool shape_is(const struct tensor *t, const struct weight_spec *s)
{
    uint64_t want[3];
    int n = 0;
    if (s->experts > 0)
        want[n++] = (uint64_t)s->experts;
    want[n++] = (uint64_t)s->rows;
    if (s->cols > 0)
        want[n++] = (uint64_t)s->cols;
    if (t->rank != n)
        return false;
    for (int i = 0; i < n; i++)
        if (t->shape[i] != want[i])
            return false;
    return true;
}

enum status weights_check_tensor(const struct tensor *t, const struct weight_spec *s,
                                 const char *dir, enum dtype *dtype, struct error *err)
{
    char expected[96], found[256], experts[32] = "";
    if (s->experts > 0)
        snprintf(experts, sizeof experts, "%d, ", s->experts);
    if (s->cols == 0)
        snprintf(expected, sizeof expected, "[%s%d]", experts, s->rows);
    else
        snprintf(expected, sizeof expected, "[%s%d, %d]", experts, s->rows, s->cols);
    if (!t)
        return err_set(err, ST_INVALID, "%s: tensor %s: expected %s by config.json, but missing",
                       dir, s->name, expected);
    if (!shape_is(t, s))
        return err_set(err, ST_INVALID, "%s: tensor %s: expected shape %s by config.json, found %s",
                       dir, s->name, expected, tensor_shape_text(t, found, sizeof found));
    if (!weights_dtype_of(t->type, dtype))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: tensor %s: type %s is not supported (supported: BF16, F16, F32)", dir,
                       s->name, tensor_type_name(t->type));
    return ST_OK;
}

/* Index of a non-finite element, or n; samples a matrix of a big checkpoint. */
static size_t find_nonfinite(const void *data, enum dtype dtype, size_t n, bool whole)
{
    const size_t size = dtype_bytes(dtype);
    if (whole || n <= (size_t)SCAN_SAMPLES * SCAN_SAMPLE_ELEMENTS)
        return weights_find_nonfinite(data, dtype, n);
    const size_t last = n - SCAN_SAMPLE_ELEMENTS;
    for (size_t i = 0; i < SCAN_SAMPLES; i++) {
        size_t at = i == SCAN_SAMPLES - 1 ? last : last / (SCAN_SAMPLES - 1) * i;
        size_t bad =
            weights_find_nonfinite((const char *)data + at * size, dtype, SCAN_SAMPLE_ELEMENTS);
        if (bad < SCAN_SAMPLE_ELEMENTS)
            return at + bad;
    }
    return n;
}

/* ---- binding ---- */

/* A weight that is converted or copied: part of a tensor to memory of our own. */
struct job {
    const struct tensor *tensor;
    struct weight_spec spec;
    enum dtype from, to;
    char *out;
};

struct binding {
    const struct weights_args *args;
    struct model_weights *out;
    struct job *jobs;
    size_t n_jobs, cap_jobs, floats_used, floats_all, bytes_all;
    unsigned char *used; /* of the checkpoint's tensors */
    bool scan_whole, placing;
    atomic_size_t next;
    size_t done_bytes;
    int64_t said_ns;
    struct error *err;
};

static size_t spec_elements(const struct weight_spec *s)
{
    return (size_t)s->take_rows * (size_t)(s->take_cols ? s->take_cols : 1);
}

/* Whether what is taken is one run of the tensor's bytes. */
static bool is_run(const struct weight_spec *s)
{
    return !s->flip && s->step == 1;
}

static size_t spec_start(const struct weight_spec *s)
{
    size_t cols = (size_t)(s->cols ? s->cols : 1);
    return ((size_t)s->expert * (s->experts > 0) * (size_t)s->rows + (size_t)s->first) * cols;
}

static enum status add_job(struct binding *b, const struct job *j)
{
    if (b->n_jobs == b->cap_jobs) {
        size_t cap = b->cap_jobs ? 2 * b->cap_jobs : 64;
        struct job *jobs = realloc(b->jobs, cap * sizeof *jobs);
        if (!jobs)
            return err_set(b->err, ST_NO_MEMORY, "%s: no memory for the list of weights",
                           b->args->dir);
        b->jobs = jobs;
        b->cap_jobs = cap;
    }
    b->jobs[b->n_jobs++] = *j;
    b->bytes_all += (spec_elements(&j->spec) * dtype_bytes(j->to) + CONVERT_ALIGN - 1) &
                    ~(size_t)(CONVERT_ALIGN - 1);
    return ST_OK;
}

static void place_floats(struct binding *b, const struct weight_spec *s, const struct tensor *t,
                         enum dtype dtype)
{
    float *to = b->out->floats + b->floats_used;
    size_t start = spec_start(s);
    for (int32_t i = 0; i < s->take_rows; i++)
        dtype_convert(to + i, DTYPE_F32,
                      (const char *)t->data +
                          (start + (size_t)i * (size_t)s->step) * dtype_bytes(dtype),
                      dtype, 1);
    b->floats_used += (size_t)s->take_rows;
    *s->floats = to;
}

static void count_tensor(struct binding *b, const struct tensor *t)
{
    unsigned char *used = &b->used[t - checkpoint_at(b->args->checkpoint, 0)];
    if (*used)
        return;
    *used = 1;
    b->out->bytes += t->bytes;
    b->out->tensors++;
}

static enum status check_finite(struct binding *b, const struct weight_spec *s,
                                const struct tensor *t, enum dtype dtype)
{
    if (s->expert > 0 && s->experts > 0)
        return ST_OK; /* a stack is checked with its first expert */
    size_t bad = find_nonfinite(t->data, dtype, t->elements, b->scan_whole || s->cols == 0);
    if (bad < t->elements)
        return err_set(b->err, ST_INVALID, "%s: tensor %s: element %zu is not a finite number",
                       b->args->dir, s->name, bad);
    return ST_OK;
}

/* First pass: everything is checked, and bound where it lies. Floats are only counted. */
static enum status bind_one(void *ctx, const struct weight_spec *s)
{
    struct binding *b = ctx;
    const struct tensor *t = weights_find(b->args->checkpoint, s);
    enum dtype dtype;
    if (!t && s->optional)
        return ST_OK;
    enum status st = weights_check_tensor(t, s, b->args->dir, &dtype, b->err);
    if (!st)
        st = check_finite(b, s, t, dtype);
    if (st)
        return st;
    count_tensor(b, t);
    if (s->floats) {
        b->floats_all += (size_t)s->take_rows;
        return ST_OK;
    }
    *s->matrix = (struct matrix){.data = (const char *)t->data + spec_start(s) * dtype_bytes(dtype),
                                 .dtype = dtype,
                                 .rows = s->take_cols ? s->take_rows : 1,
                                 .cols = s->take_cols ? s->take_cols : s->take_rows};
    if (is_run(s))
        return ST_OK;
    return add_job(b, &(struct job){.tensor = t, .spec = *s, .from = dtype, .to = dtype});
}

static enum status bind_floats(void *ctx, const struct weight_spec *s)
{
    struct binding *b = ctx;
    const struct tensor *t = weights_find(b->args->checkpoint, s);
    enum dtype dtype;
    if (t && s->floats && weights_dtype_of(t->type, &dtype))
        place_floats(b, s, t, dtype);
    return ST_OK;
}

/* ---- conversion ---- */

static void convert(const struct job *j)
{
    const struct weight_spec *s = &j->spec;
    const size_t from = dtype_bytes(j->from), to = dtype_bytes(j->to);
    const size_t rows = (size_t)s->take_rows, cols = (size_t)s->take_cols;
    const size_t expert = s->experts > 0 ? (size_t)s->expert * (size_t)s->rows : 0;
    const char *data = j->tensor->data;
    for (size_t i = 0; i < rows; i++) {
        char *out = j->out + i * cols * to;
        size_t at =
            (size_t)s->first + i * (size_t)s->step; /* its row, or where flipped its column */
        if (!s->flip) {
            dtype_convert(out, j->to, data + (expert + at) * cols * from, j->from, cols);
            continue;
        }
        for (size_t k = 0; k < cols; k++)
            dtype_convert(out + k * to, j->to,
                          data + ((expert + (size_t)s->skip + k) * (size_t)s->cols + at) * from,
                          j->from, 1);
    }
}

static void convert_body(void *arg, int part, int parts)
{
    struct binding *b = arg;
    (void)parts;
    for (size_t i; (i = atomic_fetch_add(&b->next, 1)) < b->n_jobs;) {
        convert(&b->jobs[i]);
        int64_t now = clock_now_ns();
        if (part == 0 && now - b->said_ns > PROGRESS_NS) {
            b->said_ns = now;
            log_info("weights_converting", "done=%zu of=%zu", i + 1, b->n_jobs);
        }
    }
}

static enum status convert_all(struct binding *b)
{
    struct model_weights *w = b->out;
    if (b->n_jobs == 0)
        return ST_OK;
    void *memory =
        mmap(NULL, b->bytes_all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return err_set(b->err, ST_NO_MEMORY, "%s: no memory for %zu MiB of converted weights",
                       b->args->dir, b->bytes_all >> 20);
    w->converted = memory;
    w->converted_bytes = b->bytes_all;
    char *at = memory;
    for (size_t i = 0; i < b->n_jobs; i++) {
        struct job *j = &b->jobs[i];
        j->out = at;
        j->spec.matrix->data = at;
        j->spec.matrix->dtype = j->to;
        at += (spec_elements(&j->spec) * dtype_bytes(j->to) + CONVERT_ALIGN - 1) &
              ~(size_t)(CONVERT_ALIGN - 1);
    }
    b->said_ns = clock_now_ns();
    team_run(b->args->team, convert_body, b);
    return ST_OK;
}

/* A tensor that nothing reads may be a feature that we do not compute: worth a line, as for a bias
 * that the config does not announce. */
static void warn_unused(const struct binding *b)
{
    const struct checkpoint *ckpt = b->args->checkpoint;
    const size_t n = checkpoint_count(ckpt);
    char name[160] = "?";
    if (n == b->out->tensors)
        return;
    for (size_t i = 0; i < n; i++) {
        if (!b->used[i]) {
            log_quote(name, sizeof name, checkpoint_at(ckpt, i)->name);
            break;
        }
    }
    log_warn("tensors_unused", "n=%zu of=%zu first=%s", n - b->out->tensors, n, name);
}

enum status weights_bind(const struct weights_args *args, struct model_weights *out,
                         struct error *err)
{
    const struct model_config *c = args->config;
    *out = (struct model_weights){0};
    struct binding b = {.args = args,
                        .out = out,
                        .scan_whole =
                            checkpoint_data_bytes(args->checkpoint) <= SCAN_WHOLE_MAX_BYTES,
                        .used = calloc(checkpoint_count(args->checkpoint) + 1, 1),
                        .err = err};
    enum status st = ST_OK;
    if (!b.used || weights_alloc(c, out))
        st = err_set(err, ST_NO_MEMORY, "%s: no memory for the tables of %d layers", args->dir,
                     c->layers);
    if (!st)
        st = weights_list(c, out, bind_one, &b);
    if (!st && !(out->floats = calloc(b.floats_all + 1, sizeof *out->floats)))
        st = err_set(err, ST_NO_MEMORY, "%s: no memory for biases", args->dir);
    if (!st)
        st = weights_list(c, out, bind_floats, &b);
    if (!st)
        st = convert_all(&b);
    if (!st) {
        if (c->tied)
            out->head = out->embed;
        warn_unused(&b);
    } else {
        weights_fini(out);
    }
    free(b.jobs);
    free(b.used);
    return st;
}

void weights_fini(struct model_weights *w)
{
    if (w->converted)
        munmap(w->converted, w->converted_bytes);
    free(w->layers);
    free(w->mtp);
    free(w->matrices);
    free(w->experts);
    free(w->floats);
    *w = (struct model_weights){0};
}
