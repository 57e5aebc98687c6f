/* Tensors of a checkpoint to the weights of a model: that they are there, of their shape, and that
 * their numbers are numbers. What lies in the file as it is computed with stays there; the rest is
 * converted, once, by the whole team. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/huge.h"
#include "base/log.h"
#include "formats/weight_ints.h"
#include "model/model_impl.h"
#include "model/weights_convert.h"
#include "model/weights_fp8.h"

/* Up to this size every element is checked; above it norms and biases wholly, matrices by samples,
 * since a scan would read the whole checkpoint from disk before the first token. (FP8 is scanned
 * whole: every thread takes part, and its bytes have no sign of being wrong but NaN.) */
#define SCAN_WHOLE_MAX_BYTES (UINT64_C(256) << 20)
#define SCAN_SAMPLES 64
#define SCAN_SAMPLE_ELEMENTS 2048

/* Up to so many elements what is computed is what fp32 gives: of quantized weights, and of all. */
#define CONVERT_EXACT_MAX (UINT64_C(4) << 20)
#define ROUND_EXACT_MAX (UINT64_C(16) << 20)

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

/* Of quantized weights, or of all. */
static uint64_t count_elements(const struct weight_source *source, bool all)
{
    uint64_t elements = 0;
    for (size_t i = 0; i < weight_source_count(source); i++) {
        const struct weight *w = weight_source_at(source, i);
        elements += all || !w->data ? w->rows * w->cols : 0;
    }
    return elements;
}

static bool is_small(const struct weight_source *source)
{
    return count_elements(source, false) <= CONVERT_EXACT_MAX;
}

/* Whether gemms by bf16 may read bf16. */
static bool may_round(const struct weights_args *a)
{
    if (a->form == MODEL_WEIGHTS_AUTO)
        return a->rounds && count_elements(a->source, true) > ROUND_EXACT_MAX;
    return a->rounds && a->form != MODEL_WEIGHTS_FLOAT;
}

enum dtype weights_converted_dtype(const struct weight_source *source)
{
    return is_small(source) ? DTYPE_F32 : DTYPE_F16;
}

bool weights_are_packed(const struct weight_source *source, enum model_weights_form form)
{
    return form == MODEL_WEIGHTS_AUTO ? !is_small(source) : form != MODEL_WEIGHTS_FLOAT;
}

bool weights_pack(const struct weight *w, const struct weight_spec *s, struct packed *out)
{
    struct weight_ints f;
    if (!s->take_cols || (uint64_t)s->take_cols != w->cols || s->as_floats || s->flip || w->data ||
        !w->readable || w->rows > INT32_MAX || w->cols > INT32_MAX || !weight_as_ints(w, &f) ||
        !packed_takes(f.bits, f.group, (int32_t)w->cols))
        return false;
    *out = (struct packed){.rows = (int32_t)w->rows,
                           .cols = (int32_t)w->cols,
                           .bits = f.bits,
                           .group = f.group,
                           .zero = f.zero,
                           .has_min = f.has_min,
                           .has_table = f.table != NULL,
                           .has_order = f.has_order,
                           .scale_type = DTYPE_F16};
    if (f.table)
        memcpy(out->table, f.table, sizeof out->table);
    return true;
}

/* Whether this, which is no integers, is rounded to such, and how. */
static bool rounds_to_bytes(const struct weight *w, const struct weight_spec *s, struct packed *out)
{
    if (!s->take_cols || (uint64_t)s->take_cols != w->cols || s->as_floats || s->flip ||
        !packed_takes(8, s->take_cols, s->take_cols))
        return false;
    *out = (struct packed){.rows = s->take_rows,
                           .cols = s->take_cols,
                           .bits = 8,
                           .group = s->take_cols,
                           .zero = 128,
                           .scale_type = DTYPE_F32};
    return true;
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

struct binding {
    const struct weights_args *args;
    struct model_weights *out;
    struct conversion conversion;
    size_t floats_used, floats_all;
    unsigned char *used; /* of the source's weights */
    bool scan_whole;
    enum dtype converted; /* what matrices are converted to */
    bool packs;           /* or what of them are integers stays so */
    bool rounds;          /* gemms by bf16 read bf16 */
    struct error *err;
};

static void count_weight(struct binding *b, const struct weight *w, bool is_rounded)
{
    unsigned char *used = &b->used[weights_index(b->args->source, w)];
    if (*used)
        return;
    *used = 1;
    b->out->bytes += is_rounded ? 0 : w->stored_bytes;
    b->out->tensors++;
}

/* Of what is used where it lies; what is rounded is checked then: samples of all of it would map
 * most of a checkpoint that is twice as large as what is made of it. */
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
    struct packed form;
    const bool is_int = b->packs && weights_pack(w, s, &form);
    const bool is_rounded =
        !is_int && b->args->form == MODEL_WEIGHTS_INT8 && rounds_to_bytes(w, s, &form);
    count_weight(b, w, is_rounded);
    bool native = dtype_of(w, &dtype);
    if (native && !is_rounded)
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
    if (is_rounded) {
        b->out->reads_bytes = true;
        b->out->bytes += packed_bytes(&form);
        return conversion_round(&b->conversion, w, s, &form);
    }
    if (is_int) {
        const bool is_row = form.bits == 8 && form.group == form.cols && !form.has_min;
        form.rows = s->take_rows;
        b->out->whole_rows = b->out->whole_rows && is_row &&
                             (b->args->form == MODEL_WEIGHTS_INT8 || weight_wants_token_bytes(w));
        s->matrix->wide_rows = b->args->form == MODEL_WEIGHTS_WIDE && !form.has_order;
        s->matrix->rounds = s->matrix->wide_rows && b->rounds;
        b->out->rounds = b->out->rounds || s->matrix->rounds;
        b->out->reads_bytes = b->out->reads_bytes || !s->matrix->wide_rows;
        return conversion_pack(&b->conversion, w, s, &form);
    }
    if (b->packs && weights_fp8_takes(w, s)) {
        s->matrix->rounds = b->rounds;
        b->out->rounds = b->out->rounds || s->matrix->rounds;
        if (weights_fp8_bind(&b->out->fp8, w, s))
            return err_set(b->err, ST_NO_MEMORY, "%s: no memory for scales", b->args->dir);
        s->matrix->panels = s->matrix->rounds && b->args->panels;
        return s->matrix->panels ? conversion_add_panels(&b->conversion, w, s, DTYPE_FP8) : ST_OK;
    }
    s->matrix->rounds = b->rounds && native && dtype == DTYPE_BF16 && s->take_cols && !s->as_floats;
    b->out->rounds = b->out->rounds || s->matrix->rounds;
    s->matrix->panels = s->matrix->rounds && b->args->panels;
    if (s->matrix->panels)
        return conversion_add_panels(&b->conversion, w, s, DTYPE_BF16);
    if (!native || s->flip || s->step != 1)
        return conversion_add(&b->conversion, w, s, dtype);
    size_t start =
        (size_t)(weights_first_row(s) + (uint64_t)s->first) * (s->cols ? (size_t)w->cols : 1);
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
    weight_read_rows(w, weights_first_row(s), weights_first_row(s) + 1, row);
    for (int32_t i = 0; i < s->take_rows; i++)
        to[i] = row[s->first + i * s->step];
    free(row);
    b->floats_used += (size_t)s->take_rows;
    *s->floats = to;
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

/* Of `node.weights`, what makes other bytes: each has a file of its own, which another would else
 * write anew whenever the setting changes. */
static const char *cache_form(const struct weights_args *a)
{
    if (!weights_are_packed(a->source, a->form))
        return ".float";
    return a->form == MODEL_WEIGHTS_INT8 ? ".int8" : "";
}

enum status weights_bind(const struct weights_args *args, struct model_weights *out,
                         struct error *err)
{
    const struct model_config *c = args->config;
    *out = (struct model_weights){.whole_rows = true};
    struct binding b = {.args = args,
                        .out = out,
                        .scan_whole =
                            weight_source_stored_bytes(args->source) <= SCAN_WHOLE_MAX_BYTES,
                        .converted = weights_converted_dtype(args->source),
                        .rounds = may_round(args),
                        .packs = weights_are_packed(args->source, args->form),
                        .used = calloc(weight_source_count(args->source) + 1, 1),
                        .conversion = {.source = args->source,
                                       .dir = args->dir,
                                       .cache = args->cache,
                                       .form = cache_form(args),
                                       .stop = args->stop,
                                       .err = err},
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
    const char *bad = st ? NULL : weights_fp8_check(&out->fp8, args->team, args->stop);
    if (bad)
        st = err_set(err, ST_INVALID, "%s: tensor %s: an element is not a finite number", args->dir,
                     bad);
    if (!st && stop_asked(args->stop))
        st = err_set(err, ST_CANCELLED, "%s: asked to stop while it was loaded", args->dir);
    if (!st && args->cache && b.conversion.n_jobs > 0) {
        b.conversion.files.v = weight_source_files(args->source, &b.conversion.files.n);
        struct weights_origin *of = &b.conversion.origin;
        memcpy(of->key.w, args->fingerprint.w, sizeof args->fingerprint.w);
        weights_files_mix(&of->key, b.conversion.files);
        of->stamp = weights_files_stamp(b.conversion.files);
    }
    if (!st)
        st = conversion_run(&b.conversion, args->team, out);
    if (!st) {
        if (c->tied)
            out->head = out->embed;
        warn_unused(&b);
    } else {
        weights_fini(out);
    }
    conversion_fini(&b.conversion);
    free(b.used);
    return st;
}

void weights_fini(struct model_weights *w)
{
    huge_free(w->converted, w->converted_bytes);
    weights_cache_close(&w->cache);
    free(w->layers);
    free(w->mtp);
    free(w->matrices);
    free(w->experts);
    free(w->floats);
    for (size_t i = 0; i < w->n_packed; i++)
        free(w->owned[i]);
    free(w->owned);
    free(w->packed);
    weights_fp8_fini(&w->fp8);
    *w = (struct model_weights){0};
}
