/* Tensors of a checkpoint to the weights of a model: that they are there, of their shape, and that
 * their numbers are numbers. What lies in the file as it is computed with stays there; the rest is
 * converted, once, by the whole team. */
#include <assert.h>
#include <math.h>
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
#define CONVERT_EXACT_MAX (UINT64_C(4) << 20) /* elements */
#define PROGRESS_NS INT64_C(2000000000)

/* ---- finding ---- */

/* Where files put a language model that is a part of something larger, or nothing but itself. */
static const struct {
    const char *name, *put;
} prefixes[] = {
    {"model.", "language_model.model."},
    {"model.", "model.language_model."},
    {"model.", ""},
    {"lm_head.", "language_model.lm_head."},
};

const struct weight *weights_find(const struct weight_source *source, const struct weight_spec *s)
{
    char name[192];
    const struct weight *w = weight_source_find(source, s->name);
    for (size_t i = 0; !w && i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t n = strlen(prefixes[i].name);
        if (strncmp(s->name, prefixes[i].name, n) != 0)
            continue;
        snprintf(name, sizeof name, "%s%s", prefixes[i].put, s->name + n);
        w = weight_source_find(source, name);
    }
    return w;
}

static bool is_there(const struct weight_source *source, const struct model_config *c,
                     enum weight_role role)
{
    struct weight_spec s = {0};
    const char *pattern = weights_name(c->naming, role);
    if (pattern)
        snprintf(s.name, sizeof s.name, pattern, c->layers);
    return pattern && weights_find(source, &s);
}

void weights_settle(const struct weight_source *source, struct model_config *c)
{
    if (c->may_tie && !is_there(source, c, W_HEAD))
        c->tied = true;
    if (c->mtp_layers > 0 && !is_there(source, c, W_MTP_EMBED_NORM)) {
        log_info("mtp_layers_left_out", "announced=%d", c->mtp_layers);
        c->mtp_layers = 0;
    }
}

size_t weights_index(const struct weight_source *source, const struct weight *w)
{
    size_t lo = 0, hi = weight_source_count(source);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(weight_source_at(source, mid)->name, w->name);
        if (order == 0)
            return mid;
        lo = order < 0 ? mid + 1 : lo;
        hi = order < 0 ? hi : mid;
    }
    assert(false);
    return 0;
}

enum dtype weights_converted_dtype(const struct weight_source *source)
{
    uint64_t elements = 0;
    for (size_t i = 0; i < weight_source_count(source); i++) {
        const struct weight *w = weight_source_at(source, i);
        elements += w->data ? 0 : w->rows * w->cols;
    }
    return elements <= CONVERT_EXACT_MAX ? DTYPE_F32 : DTYPE_F16;
}

/* ---- checks ---- */

/* What the ops compute with as it lies there. */
static bool dtype_of(const struct weight *w, enum dtype *out)
{
    if (!w->data)
        return false;
    *out = w->type == TENSOR_F32 ? DTYPE_F32 : w->type == TENSOR_F16 ? DTYPE_F16 : DTYPE_BF16;
    return true;
}

static bool shape_is(const struct weight *w, const struct weight_spec *s)
{
    uint64_t want[3];
    int n = 0;
    if (s->experts > 0)
        want[n++] = (uint64_t)s->experts;
    want[n++] = (uint64_t)s->rows;
    if (s->cols > 0)
        want[n++] = (uint64_t)s->cols;
    if (n == 2 && w->rank == 1 && want[0] == 1) /* one row, said as a vector */
        return w->shape[0] == want[1];
    if (w->rank != n)
        return false;
    for (int i = 0; i < n; i++)
        if (w->shape[i] != want[i])
            return false;
    return true;
}

static void shape_text(const struct weight *w, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < w->rank && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%llu", i ? ", " : "",
                              (unsigned long long)w->shape[i]);
    if (n < cap)
        snprintf(out + n, cap - n, "]");
}

enum status weights_check(const struct weight *w, const struct weight_spec *s, const char *dir,
                          struct error *err)
{
    char expected[96], found[256], experts[32] = "";
    if (s->experts > 0)
        snprintf(experts, sizeof experts, "%d, ", s->experts);
    if (s->cols == 0)
        snprintf(expected, sizeof expected, "[%s%d]", experts, s->rows);
    else
        snprintf(expected, sizeof expected, "[%s%d, %d]", experts, s->rows, s->cols);
    if (!w)
        return err_set(err, ST_INVALID, "%s: tensor %s: expected %s by config.json, but missing",
                       dir, s->name, expected);
    if (!shape_is(w, s)) {
        shape_text(w, found, sizeof found);
        return err_set(err, ST_INVALID, "%s: tensor %s: expected shape %s by config.json, found %s",
                       dir, s->name, expected, found);
    }
    if (!w->readable)
        return err_set(err, ST_UNSUPPORTED, "%s: tensor %s: type %s is not supported", dir, s->name,
                       w->format);
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
    const struct weight *weight;
    struct weight_spec spec;
    enum dtype to;
    char *out;
};

struct binding {
    const struct weights_args *args;
    struct model_weights *out;
    struct job *jobs;
    size_t n_jobs, cap_jobs, floats_used, floats_all, bytes_all;
    unsigned char *used; /* of the source's weights */
    bool scan_whole;
    enum dtype converted; /* what matrices are converted to */
    atomic_size_t next;
    atomic_int bad; /* 1 + the first job whose numbers are none, or for which there is no memory */
    int64_t said_ns;
    struct error *err;
};

static size_t job_bytes(const struct weight_spec *s, enum dtype to)
{
    size_t n = (size_t)s->take_rows * (size_t)(s->take_cols ? s->take_cols : 1);
    return (n * dtype_bytes(to) + CONVERT_ALIGN - 1) & ~(size_t)(CONVERT_ALIGN - 1);
}

/* The first row of the expert's matrix, or of the only one. */
static uint64_t first_row(const struct weight_spec *s)
{
    return s->experts > 0 ? (uint64_t)s->expert * (uint64_t)(s->cols ? s->rows : 1) : 0;
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
    b->bytes_all += job_bytes(&j->spec, j->to);
    return ST_OK;
}

static void count_weight(struct binding *b, const struct weight *w)
{
    unsigned char *used = &b->used[weights_index(b->args->source, w)];
    if (*used)
        return;
    *used = 1;
    b->out->bytes += w->stored_bytes;
    b->out->tensors++;
}

/* Of what is used where it lies; what is converted is checked then. */
static enum status check_finite(struct binding *b, const struct weight_spec *s,
                                const struct weight *w, enum dtype dtype)
{
    if (s->expert > 0 && s->experts > 0)
        return ST_OK; /* a stack is checked with its first expert */
    size_t n = (size_t)(w->rows * w->cols);
    size_t bad = find_nonfinite(w->data, dtype, n, b->scan_whole || s->cols == 0);
    if (bad < n)
        return err_set(b->err, ST_INVALID, "%s: tensor %s: element %zu is not a finite number",
                       b->args->dir, s->name, bad);
    return ST_OK;
}

/* First pass: everything is checked, and bound where it lies. Floats are only counted. */
static enum status bind_one(void *ctx, const struct weight_spec *s)
{
    struct binding *b = ctx;
    const struct weight *w = weights_find(b->args->source, s);
    enum dtype dtype;
    if (!w && s->optional)
        return ST_OK;
    enum status st = weights_check(w, s, b->args->dir, b->err);
    if (st)
        return st;
    count_weight(b, w);
    bool native = dtype_of(w, &dtype);
    if (native)
        st = check_finite(b, s, w, dtype);
    if (st)
        return st;
    if (s->floats) {
        b->floats_all += (size_t)s->take_rows;
        return ST_OK;
    }
    if (!native)
        dtype = s->take_cols ? b->converted : DTYPE_F32;
    *s->matrix = (struct matrix){.dtype = dtype,
                                 .rows = s->take_cols ? s->take_rows : 1,
                                 .cols = s->take_cols ? s->take_cols : s->take_rows};
    if (!native || s->flip || s->step != 1)
        return add_job(b, &(struct job){.weight = w, .spec = *s, .to = dtype});
    size_t start = (size_t)(first_row(s) + (uint64_t)s->first) * (s->cols ? (size_t)w->cols : 1);
    s->matrix->data = (const char *)w->data + start * dtype_bytes(dtype);
    return ST_OK;
}

static enum status bind_floats(void *ctx, const struct weight_spec *s)
{
    struct binding *b = ctx;
    const struct weight *w = s->floats ? weights_find(b->args->source, s) : NULL;
    if (!w)
        return ST_OK;
    float *row = malloc((size_t)w->cols * sizeof *row), *to = b->out->floats + b->floats_used;
    if (!row)
        return err_set(b->err, ST_NO_MEMORY, "%s: no memory for biases", b->args->dir);
    weight_read_rows(w, first_row(s), first_row(s) + 1, row);
    for (int32_t i = 0; i < s->take_rows; i++)
        to[i] = row[s->first + i * s->step];
    free(row);
    b->floats_used += (size_t)s->take_rows;
    *s->floats = to;
    return ST_OK;
}

/* ---- conversion ---- */

/* How many rows of a tensor are read at a time: formats that are packed down their columns make as
 * many of them for the price of one. */
#define CONVERT_ROWS 16

/* Rows of a tensor, and where they go: a row each, or where the tensor lies the other way round a
 * column each. */
struct slab {
    float *rows; /* [CONVERT_ROWS][cols of the tensor] */
    float *line; /* [CONVERT_ROWS] */
    size_t n;
    float largest;
    bool good;
};

static void put_line(const struct job *j, struct slab *s, char *out, const float *line, size_t n)
{
    for (size_t k = 0; k < n; k++)
        s->largest = fmaxf(s->largest, fabsf(line[k]));
    s->good = weights_find_nonfinite(line, DTYPE_F32, n) == n && s->good;
    dtype_convert(out, j->to, line, DTYPE_F32, n);
}

static void put_slab(const struct job *j, struct slab *s, size_t at)
{
    const struct weight_spec *spec = &j->spec;
    const size_t size = dtype_bytes(j->to), stride = (size_t)j->weight->cols;
    const size_t cols = (size_t)spec->take_cols,
                 lines = spec->flip ? (size_t)spec->take_rows : s->n;
    for (size_t i = 0; i < lines; i++) {
        if (!spec->flip) {
            put_line(j, s, j->out + (at + i) * cols * size, s->rows + i * stride, cols);
            continue;
        }
        const float *from = s->rows + (size_t)spec->first + i * (size_t)spec->step;
        for (size_t k = 0; k < s->n; k++)
            s->line[k] = from[k * stride];
        put_line(j, s, j->out + (i * cols + at) * size, s->line, s->n);
    }
}

static void read_into(const struct job *j, struct slab *s)
{
    const struct weight_spec *spec = &j->spec;
    const uint64_t base = first_row(spec);
    s->largest = 0;
    s->good = true;
    if (!spec->take_cols) { /* a vector: its one row */
        weight_read_rows(j->weight, base, base + 1, s->rows);
        put_line(j, s, j->out, s->rows, (size_t)spec->take_rows);
        return;
    }
    const size_t all = (size_t)(spec->flip ? spec->take_cols : spec->take_rows);
    const uint64_t step = spec->flip ? 1 : (uint64_t)spec->step;
    for (size_t i = 0; i < all; i += s->n) {
        uint64_t from = base + (uint64_t)(spec->flip ? spec->skip : spec->first) + i * step;
        s->n = all - i < CONVERT_ROWS ? all - i : CONVERT_ROWS;
        if (step == 1)
            weight_read_rows(j->weight, from, from + s->n, s->rows);
        for (size_t k = 0; step != 1 && k < s->n; k++)
            weight_read_rows(j->weight, from + k * step, from + k * step + 1,
                             s->rows + k * (size_t)j->weight->cols);
        put_slab(j, s, i);
    }
}

/* fp16 has the precision that quantized weights need, where fp32 would take room that matters; a
 * matrix with numbers beyond its range goes into bf16, which takes the same room. */
static bool convert(struct job *j)
{
    const size_t rows = j->spec.take_cols ? CONVERT_ROWS : 1;
    struct slab s = {.rows =
                         malloc((rows * (size_t)j->weight->cols + CONVERT_ROWS) * sizeof(float))};
    if (!s.rows) {
        j->out = NULL;
        return false;
    }
    s.line = s.rows + rows * (size_t)j->weight->cols;
    read_into(j, &s);
    if (s.good && j->to == DTYPE_F16 && s.largest > 65504.0f) {
        j->to = DTYPE_BF16;
        read_into(j, &s);
    }
    free(s.rows);
    j->spec.matrix->dtype = j->to;
    return s.good;
}

static void convert_body(void *arg, int part, int parts)
{
    struct binding *b = arg;
    (void)parts;
    for (size_t i; (i = atomic_fetch_add(&b->next, 1)) < b->n_jobs;) {
        int none = 0;
        if (!convert(&b->jobs[i]))
            atomic_compare_exchange_strong(&b->bad, &none, (int)i + 1);
        int64_t now = clock_now_ns();
        if (part == 0 && now - b->said_ns > PROGRESS_NS) {
            b->said_ns = now;
            log_info("weights_converting", "done=%zu of=%zu percent=%zu", i + 1, b->n_jobs,
                     (i + 1) * 100 / b->n_jobs);
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
        at += job_bytes(&j->spec, j->to);
    }
    b->said_ns = clock_now_ns();
    team_run(b->args->team, convert_body, b);
    int bad = atomic_load(&b->bad);
    if (bad && !b->jobs[bad - 1].out)
        return err_set(b->err, ST_NO_MEMORY, "%s: tensor %s: no memory to convert it", b->args->dir,
                       b->jobs[bad - 1].weight->name);
    if (bad)
        return err_set(b->err, ST_INVALID, "%s: tensor %s: an element is not a finite number",
                       b->args->dir, b->jobs[bad - 1].weight->name);
    return ST_OK;
}

/* A tensor that nothing reads may be a feature that we do not compute: worth a line, as for a bias
 * that the config does not announce. */
static void warn_unused(const struct binding *b)
{
    const struct weight_source *source = b->args->source;
    const size_t n = weight_source_count(source);
    char name[160] = "?";
    size_t unused = 0;
    for (size_t i = 0; i < n; i++) {
        const char *found = weight_source_at(source, i)->name;
        if (b->used[i] || strncmp(found, "rope_", 5) == 0) /* factors: config_gguf.c has them */
            continue;
        if (unused++ == 0)
            log_quote(name, sizeof name, found);
    }
    if (unused > 0)
        log_warn("tensors_unused", "n=%zu of=%zu first=%s", unused, n, name);
}

enum status weights_bind(const struct weights_args *args, struct model_weights *out,
                         struct error *err)
{
    const struct model_config *c = args->config;
    *out = (struct model_weights){0};
    struct binding b = {.args = args,
                        .out = out,
                        .scan_whole =
                            weight_source_stored_bytes(args->source) <= SCAN_WHOLE_MAX_BYTES,
                        .converted = weights_converted_dtype(args->source),
                        .used = calloc(weight_source_count(args->source) + 1, 1),
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
