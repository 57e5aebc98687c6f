#include "model/weights_convert.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/huge.h"
#include "base/log.h"
#include "formats/weight_ints.h"
#include "model/model_impl.h"
#include "model/weights_keep.h"

#define CONVERT_ALIGN 64
#define KEEP_MIN_BYTES ((size_t)64 << 20)
#define LET_GO_BYTES (UINT64_C(64) << 20)
#define ASK_ROWS 512
#define PROGRESS_NS INT64_C(2000000000)

static size_t job_bytes(const struct weight_spec *s, enum dtype to)
{
    size_t n = (size_t)s->take_rows * (size_t)(s->take_cols ? s->take_cols : 1);
    return (n * dtype_bytes(to) + CONVERT_ALIGN - 1) & ~(size_t)(CONVERT_ALIGN - 1);
}

size_t conversion_result_bytes(const struct conversion_job *j, enum dtype type)
{
    struct packed form = j->form;
    form.scale_type = type;
    if (j->packs)
        return packed_bytes(&form);
    if (!j->panels)
        return job_bytes(&j->spec, type);
    return (j->to == DTYPE_FP8 ? panels8_bytes : panels_bytes)(j->spec.take_rows,
                                                               j->spec.take_cols);
}

static enum status add_job(struct conversion *c, struct conversion_job job)
{
    if (c->n_jobs == c->cap_jobs) {
        size_t cap = c->cap_jobs ? 2 * c->cap_jobs : 64;
        struct conversion_job *jobs = realloc(c->jobs, cap * sizeof *jobs);
        if (!jobs)
            return err_set(c->err, ST_NO_MEMORY, "%s: no memory for the list of weights", c->dir);
        c->jobs = jobs;
        c->cap_jobs = cap;
    }
    c->jobs[c->n_jobs++] = job;
    c->bytes_all += job.bytes;
    c->n_packed += job.packs;
    return ST_OK;
}

enum status conversion_add(struct conversion *c, const struct weight *w,
                           const struct weight_spec *s, enum dtype to)
{
    return add_job(
        c, (struct conversion_job){.weight = w, .spec = *s, .to = to, .bytes = job_bytes(s, to)});
}

enum status conversion_pack(struct conversion *c, const struct weight *w,
                            const struct weight_spec *s, const struct packed *form)
{
    struct conversion_job job = {.weight = w, .spec = *s, .packs = true, .form = *form};
    job.bytes = packed_bytes(&job.form);
    return add_job(c, job);
}

enum status conversion_round(struct conversion *c, const struct weight *w,
                             const struct weight_spec *s, const struct packed *form)
{
    struct conversion_job job = {
        .weight = w, .spec = *s, .packs = true, .rounds = true, .form = *form};
    assert(form->bits == 8 && form->group == form->cols && !form->has_order);
    job.bytes = packed_bytes(&job.form);
    return add_job(c, job);
}

enum status conversion_add_panels(struct conversion *c, const struct weight *w,
                                  const struct weight_spec *s, enum dtype to)
{
    struct conversion_job job = {.weight = w, .spec = *s, .to = to, .panels = true};
    job.bytes = conversion_result_bytes(&job, to);
    return add_job(c, job);
}

void conversion_fini(struct conversion *c)
{
    for (size_t i = 0; i < c->n_jobs; i++)
        free(c->jobs[i].own); /* not bound: a load that was stopped */
    free(c->jobs);
    c->jobs = NULL;
}

/* Rows of a weight were read, and are not needed again: without this the checkpoint would be in
 * memory beside all that is made of it. */
static void have_read(struct conversion *c, const struct weight *w, uint64_t rows)
{
    const uint64_t bytes = w->stored_bytes / w->rows * rows;
    const uint64_t before = atomic_fetch_add(&c->read, bytes);
    if (before / LET_GO_BYTES != (before + bytes) / LET_GO_BYTES)
        weight_source_let_go(c->source);
}

/* Whether to go on with a job that has come to this row. */
static bool goes_on(struct conversion *c, int part, size_t row)
{
    return !(row % ASK_ROWS == 0 ? stop_here(c->stop, part) : stop_is_set(c->stop));
}

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

/* n elements of row `row` of the result, from column `col` on. */
static void put_line(const struct conversion_job *j, struct slab *s, size_t row, size_t col,
                     const float *line, size_t n)
{
    const size_t cols = (size_t)j->spec.take_cols;
    for (size_t k = 0; k < n; k++)
        s->largest = fmaxf(s->largest, fabsf(line[k]));
    s->good = weights_find_nonfinite(line, DTYPE_F32, n) == n && s->good;
    if (j->panels)
        panels_put(j->out, j->spec.take_cols, row, col, line, n);
    else
        dtype_convert(j->out + (row * cols + col) * dtype_bytes(j->to), j->to, line, DTYPE_F32, n);
}

static void put_slab(const struct conversion_job *j, struct slab *s, size_t at)
{
    const struct weight_spec *spec = &j->spec;
    const size_t stride = (size_t)j->weight->cols;
    const size_t cols = (size_t)spec->take_cols,
                 lines = spec->flip ? (size_t)spec->take_rows : s->n;
    for (size_t i = 0; i < lines; i++) {
        if (!spec->flip) {
            put_line(j, s, at + i, 0, s->rows + i * stride, cols);
            continue;
        }
        const float *from = s->rows + (size_t)spec->first + i * (size_t)spec->step;
        for (size_t k = 0; k < s->n; k++)
            s->line[k] = from[k * stride];
        put_line(j, s, i, at, s->line, s->n);
    }
}

static void read_into(struct conversion *c, const struct conversion_job *j, struct slab *s,
                      int part)
{
    const struct weight_spec *spec = &j->spec;
    const uint64_t base = weights_first_row(spec);
    s->largest = 0;
    s->good = true;
    if (!spec->take_cols) { /* a vector: its one row */
        weight_read_rows(j->weight, base, base + 1, s->rows);
        put_line(j, s, 0, 0, s->rows, (size_t)spec->take_rows);
        return;
    }
    const size_t all = (size_t)(spec->flip ? spec->take_cols : spec->take_rows);
    const uint64_t step = spec->flip ? 1 : (uint64_t)spec->step;
    for (size_t i = 0; i < all && goes_on(c, part, i); i += s->n) {
        uint64_t from = base + (uint64_t)(spec->flip ? spec->skip : spec->first) + i * step;
        s->n = all - i < CONVERT_ROWS ? all - i : CONVERT_ROWS;
        if (step == 1)
            weight_read_rows(j->weight, from, from + s->n, s->rows);
        for (size_t k = 0; step != 1 && k < s->n; k++)
            weight_read_rows(j->weight, from + k * step, from + k * step + 1,
                             s->rows + k * (size_t)j->weight->cols);
        have_read(c, j->weight, s->n);
        put_slab(j, s, i);
    }
}

static bool put_fp8(struct conversion *c, const struct conversion_job *j, int part)
{
    const struct weight_spec *s = &j->spec;
    const size_t cols = (size_t)s->take_cols, rows = (size_t)s->take_rows;
    struct weight_fp8 f;
    weight_as_fp8(j->weight, &f);
    const uint8_t *q = f.data + (weights_first_row(s) + (uint64_t)s->first) * cols;
    bool good = true;
    for (size_t row = 0; row < rows && goes_on(c, part, row); row++, q += cols) {
        good = fp8_find_nan(q, cols) == cols && good;
        panels8_put_row(j->out, s->take_cols, row, q);
        have_read(c, j->weight, 1);
    }
    return good;
}

/* fp16 has the precision that quantized weights need, where fp32 would take room that matters; a
 * matrix with numbers beyond its range goes into bf16, which takes the same room. */
static bool convert(struct conversion *c, struct conversion_job *j, int part)
{
    const size_t rows = j->spec.take_cols ? CONVERT_ROWS : 1;
    struct slab s = {.rows =
                         malloc((rows * (size_t)j->weight->cols + CONVERT_ROWS) * sizeof(float))};
    if (!s.rows) {
        j->out = NULL;
        return false;
    }
    s.line = s.rows + rows * (size_t)j->weight->cols;
    read_into(c, j, &s, part);
    if (s.good && j->to == DTYPE_F16 && s.largest > 65504.0f) {
        j->to = DTYPE_BF16;
        read_into(c, j, &s, part);
    }
    free(s.rows);
    j->spec.matrix->dtype = j->to;
    return s.good;
}

/* ---- packing ---- */

/* Rows of a tensor as integers; `good`: their scales are numbers. */
struct ints {
    uint8_t *q;
    float *scale, *min; /* [PACKED_ROWS][groups] */
    float *rows;        /* [PACKED_ROWS][cols], where they are made of floats */
    bool good, fits_f16;
};

/* To 8 bits around `zero`, the largest to 127 from it. The sum with 1.5 * 2^23 has the nearest
 * integer in its low bits. Returns the scale. */
static float round_row(const float *x, size_t n, int32_t zero, uint8_t *q)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    const float by = most < QUANTIZE_LEAST ? 0 : 127.0f / most;
    for (size_t i = 0; i < n; i++) {
        const float sum = x[i] * by + 0x1.8p23f;
        uint32_t bits;
        memcpy(&bits, &sum, sizeof bits);
        q[i] = (uint8_t)(bits + (uint32_t)zero);
    }
    return by == 0 ? 0 : most / 127.0f;
}

static void round_ints(const struct conversion_job *j, struct ints *s, size_t at, size_t n)
{
    const uint64_t first = weights_first_row(&j->spec) + (uint64_t)j->spec.first;
    const size_t cols = (size_t)j->form.cols;
    const uint64_t step = (uint64_t)j->spec.step;
    if (step == 1)
        weight_read_rows(j->weight, first + at, first + at + n, s->rows);
    for (size_t i = 0; i < n; i++) {
        float *row = s->rows + i * cols;
        if (step != 1)
            weight_read_rows(j->weight, first + (at + i) * step, first + (at + i) * step + 1, row);
        s->good = s->good && weights_find_nonfinite(row, DTYPE_F32, cols) == cols;
        s->scale[i] = round_row(row, cols, j->form.zero, s->q + i * cols);
    }
}

static void read_ints(const struct conversion_job *j, struct ints *s, size_t at, size_t n)
{
    const uint64_t first = weights_first_row(&j->spec) + (uint64_t)j->spec.first;
    const uint64_t step = (uint64_t)j->spec.step;
    const size_t groups = packed_groups(&j->form), cols = (size_t)j->form.cols, all = n * groups;
    float *min = j->form.has_min ? s->min : NULL;
    if (step == 1)
        weight_read_ints(j->weight, first + at, first + at + n, s->q, s->scale, min);
    for (size_t i = 0; step != 1 && i < n; i++)
        weight_read_ints(j->weight, first + (at + i) * step, first + (at + i) * step + 1,
                         s->q + i * cols, s->scale + i * groups, min ? min + i * groups : NULL);
    s->good = s->good && weights_find_nonfinite(s->scale, DTYPE_F32, all) == all &&
              (!min || weights_find_nonfinite(min, DTYPE_F32, all) == all);
    s->fits_f16 =
        s->fits_f16 && packed_fits_f16(s->scale, all) && (!min || packed_fits_f16(min, all));
}

static void place(struct conversion_job *j)
{
    packed_place(&j->form, j->out);
    if (j->form.order)
        weight_read_order(j->weight, (int32_t *)(uintptr_t)j->form.order);
}

static bool pack_all(struct conversion *c, const struct conversion_job *j, struct ints *s, int part)
{
    const size_t rows = (size_t)j->form.rows;
    s->good = s->fits_f16 = true;
    for (size_t i = 0; i < rows && s->good && goes_on(c, part, i); i += PACKED_ROWS) {
        size_t n = rows - i < PACKED_ROWS ? rows - i : PACKED_ROWS;
        (j->rounds ? round_ints : read_ints)(j, s, i, n);
        have_read(c, j->weight, n);
        if (j->form.scale_type == DTYPE_F16 && !s->fits_f16)
            return false;
        packed_put(&j->form, &(struct packed_rows){i, n, s->q, s->scale, s->min});
    }
    return true;
}

/* Scales go into fp16, or all of them into fp32 where one does not fit. */
static bool pack(struct conversion *c, struct conversion_job *j, int part)
{
    const size_t cells = PACKED_ROWS * packed_groups(&j->form);
    const size_t cols = (size_t)j->form.cols,
                 floats = 2 * cells + (j->rounds ? PACKED_ROWS * cols : 0);
    struct ints s = {.scale = malloc(floats * sizeof(float) + PACKED_ROWS * cols)};
    if (!s.scale) {
        j->out = NULL;
        return false;
    }
    s.min = s.scale + cells;
    s.rows = s.min + cells;
    s.q = (uint8_t *)(s.scale + floats);
    place(j);
    if (!pack_all(c, j, &s, part)) {
        j->form.scale_type = DTYPE_F32;
        j->own = aligned_alloc(PACKED_ALIGN, packed_bytes(&j->form));
        j->out = j->own;
        s.good = false;
        if (j->own) {
            place(j);
            pack_all(c, j, &s, part);
        }
    }
    free(s.scale);
    return s.good;
}

/* False: an element is no number, or there is no memory, and no result. */
static bool run_job(struct conversion *c, struct conversion_job *j, int part)
{
    return j->packs             ? pack(c, j, part)
           : j->to == DTYPE_FP8 ? put_fp8(c, j, part)
                                : convert(c, j, part);
}

static void convert_body(void *arg, int part, int parts)
{
    struct conversion *c = arg;
    (void)parts;
    for (size_t i; !stop_here(c->stop, part) && (i = atomic_fetch_add(&c->next, 1)) < c->n_jobs;) {
        int none = 0;
        if (!run_job(c, &c->jobs[i], part))
            atomic_compare_exchange_strong(&c->bad, &none, (int)i + 1);
        int64_t now = clock_now_ns();
        if (part == 0 && now - c->said_ns > PROGRESS_NS) {
            c->said_ns = now;
            log_info("weights_converting", "done=%zu of=%zu percent=%zu", i + 1, c->n_jobs,
                     (i + 1) * 100 / c->n_jobs);
        }
    }
}

/* ---- all of it ---- */

/* Matrices that read the same x lie side by side in the list, and most have the same order: one of
 * them stands for all, so that x is quantized once. */
static void share_order(struct packed *p, const struct packed *before)
{
    if (p->order && before->order && p->cols == before->cols &&
        memcmp(p->order, before->order, (size_t)p->cols * sizeof *p->order) == 0)
        p->order = before->order;
}

static void bind_jobs(struct conversion *c, struct model_weights *out)
{
    for (size_t i = 0; i < c->n_jobs; i++) {
        struct conversion_job *j = &c->jobs[i];
        j->spec.matrix->data = j->packs ? NULL : j->out;
        if (!j->packs && j->to != DTYPE_FP8)
            j->spec.matrix->dtype = j->to;
        if (!j->packs)
            continue;
        out->owned[out->n_packed] = j->own;
        j->own = NULL;
        out->packed[out->n_packed] = j->form;
        if (out->n_packed > 0)
            share_order(&out->packed[out->n_packed], &out->packed[out->n_packed - 1]);
        j->spec.matrix->packed = &out->packed[out->n_packed++];
    }
}

static enum status run_jobs(struct conversion *c, struct team *team, struct model_weights *out)
{
    char *at = huge_alloc(c->bytes_all);
    if (!at)
        return err_set(c->err, ST_NO_MEMORY, "%s: no memory for %zu MiB of converted weights",
                       c->dir, c->bytes_all >> 20);
    out->converted = at;
    out->converted_bytes = c->bytes_all;
    team_place(team, at, c->bytes_all);
    for (size_t i = 0; i < c->n_jobs; i++) {
        c->jobs[i].out = at;
        at += c->jobs[i].bytes;
    }
    c->said_ns = clock_now_ns();
    team_run(team, convert_body, c);
    weight_source_let_go(c->source);
    return ST_OK;
}

static bool in_panels(const struct conversion *c)
{
    for (size_t i = 0; i < c->n_jobs; i++)
        if (c->jobs[i].panels)
            return true;
    return false;
}

static enum status stopped(const struct conversion *c)
{
    return err_set(c->err, ST_CANCELLED, "%s: asked to stop while it was loaded", c->dir);
}

enum status conversion_run(struct conversion *c, struct team *team, struct model_weights *out)
{
    char path[1024], kind[64];
    if (c->n_jobs == 0)
        return ST_OK;
    out->packed = calloc(c->n_packed + 1, sizeof *out->packed);
    out->owned = calloc(c->n_packed + 1, sizeof *out->owned);
    if (!out->packed || !out->owned)
        return err_set(c->err, ST_NO_MEMORY, "%s: no memory for the list of weights", c->dir);
    /* Nobody wants a file beside a model that is ready at once. */
    bool worth = c->cache && (strcmp(c->cache, "model") != 0 || c->bytes_all >= KEEP_MIN_BYTES);
    snprintf(kind, sizeof kind, "%s%s", c->form, in_panels(c) ? ".panels" : "");
    bool keeps = worth && weights_cache_path(c->cache, c->dir, kind, path, sizeof path);
    if (keeps)
        weights_keep_mix(c);
    weight_source_let_go(c->source); /* samples of it were read */
    bool kept = keeps && weights_keep_use(c, path, team, out);
    enum status st = kept || stop_is_set(c->stop) ? ST_OK : run_jobs(c, team, out);
    if (st != ST_OK)
        return st;
    if (stop_is_set(c->stop))
        return stopped(c);
    bind_jobs(c, out);
    int bad = atomic_load(&c->bad);
    if (bad && !c->jobs[bad - 1].out)
        return err_set(c->err, ST_NO_MEMORY, "%s: tensor %s: no memory to convert it", c->dir,
                       c->jobs[bad - 1].weight->name);
    if (bad)
        return err_set(c->err, ST_INVALID, "%s: tensor %s: an element is not a finite number",
                       c->dir, c->jobs[bad - 1].weight->name);
    if (keeps && !kept)
        weights_keep_write(c, path, team);
    return stop_is_set(c->stop) ? stopped(c) : ST_OK;
}
