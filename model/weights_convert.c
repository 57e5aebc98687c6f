#include "model/weights_convert.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/huge.h"
#include "base/log.h"
#include "formats/weight_ints.h"
#include "model/model_impl.h"

#define CONVERT_ALIGN 64
#define PROGRESS_NS INT64_C(2000000000)

/* A weight that is converted or copied: part of a tensor to memory of our own. */
struct conversion_job {
    const struct weight *weight;
    struct weight_spec spec;
    enum dtype to;
    bool packs;         /* else to floats */
    struct packed form; /* its place is `out` */
    size_t bytes;       /* of `out` */
    char *out;
    void *own; /* memory of its own, where it turned out to need more */
};

static size_t job_bytes(const struct weight_spec *s, enum dtype to)
{
    size_t n = (size_t)s->take_rows * (size_t)(s->take_cols ? s->take_cols : 1);
    return (n * dtype_bytes(to) + CONVERT_ALIGN - 1) & ~(size_t)(CONVERT_ALIGN - 1);
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

void conversion_fini(struct conversion *c)
{
    free(c->jobs);
    c->jobs = NULL;
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

static void put_line(const struct conversion_job *j, struct slab *s, char *out, const float *line,
                     size_t n)
{
    for (size_t k = 0; k < n; k++)
        s->largest = fmaxf(s->largest, fabsf(line[k]));
    s->good = weights_find_nonfinite(line, DTYPE_F32, n) == n && s->good;
    dtype_convert(out, j->to, line, DTYPE_F32, n);
}

static void put_slab(const struct conversion_job *j, struct slab *s, size_t at)
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

static void read_into(const struct conversion_job *j, struct slab *s)
{
    const struct weight_spec *spec = &j->spec;
    const uint64_t base = weights_first_row(spec);
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
static bool convert(struct conversion_job *j)
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

/* ---- packing ---- */

/* Rows of a tensor as integers; `good`: their scales are numbers. */
struct ints {
    uint8_t *q;
    float *scale, *min; /* [PACKED_ROWS][groups] */
    bool good, fits_f16;
};

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

static bool pack_all(const struct conversion_job *j, struct ints *s)
{
    const size_t rows = (size_t)j->form.rows;
    s->good = s->fits_f16 = true;
    for (size_t i = 0; i < rows && s->good; i += PACKED_ROWS) {
        size_t n = rows - i < PACKED_ROWS ? rows - i : PACKED_ROWS;
        read_ints(j, s, i, n);
        if (j->form.scale_type == DTYPE_F16 && !s->fits_f16)
            return false;
        packed_put(&j->form, &(struct packed_rows){i, n, s->q, s->scale, s->min});
    }
    return true;
}

/* Scales go into fp16, or all of them into fp32 where one does not fit. */
static bool pack(struct conversion_job *j)
{
    const size_t cells = PACKED_ROWS * packed_groups(&j->form);
    struct ints s = {.scale =
                         malloc(2 * cells * sizeof(float) + PACKED_ROWS * (size_t)j->form.cols)};
    if (!s.scale) {
        j->out = NULL;
        return false;
    }
    s.min = s.scale + cells;
    s.q = (uint8_t *)(s.min + cells);
    packed_place(&j->form, j->out);
    if (!pack_all(j, &s)) {
        j->form.scale_type = DTYPE_F32;
        j->own = aligned_alloc(PACKED_ALIGN, packed_bytes(&j->form));
        j->out = j->own;
        s.good = false;
        if (j->own) {
            packed_place(&j->form, j->own);
            pack_all(j, &s);
        }
    }
    free(s.scale);
    return s.good;
}

static void convert_body(void *arg, int part, int parts)
{
    struct conversion *c = arg;
    (void)parts;
    for (size_t i; (i = atomic_fetch_add(&c->next, 1)) < c->n_jobs;) {
        int none = 0;
        if (!(c->jobs[i].packs ? pack(&c->jobs[i]) : convert(&c->jobs[i])))
            atomic_compare_exchange_strong(&c->bad, &none, (int)i + 1);
        int64_t now = clock_now_ns();
        if (part == 0 && now - c->said_ns > PROGRESS_NS) {
            c->said_ns = now;
            log_info("weights_converting", "done=%zu of=%zu percent=%zu", i + 1, c->n_jobs,
                     (i + 1) * 100 / c->n_jobs);
        }
    }
}

enum status conversion_run(struct conversion *c, struct team *team, struct model_weights *out)
{
    if (c->n_jobs == 0)
        return ST_OK;
    char *at = huge_alloc(c->bytes_all);
    if (!at)
        return err_set(c->err, ST_NO_MEMORY, "%s: no memory for %zu MiB of converted weights",
                       c->dir, c->bytes_all >> 20);
    out->converted = at;
    out->converted_bytes = c->bytes_all;
    out->packed = calloc(c->n_packed + 1, sizeof *out->packed);
    out->owned = calloc(c->n_packed + 1, sizeof *out->owned);
    if (!out->packed || !out->owned)
        return err_set(c->err, ST_NO_MEMORY, "%s: no memory for the list of weights", c->dir);
    for (size_t i = 0; i < c->n_jobs; i++) {
        struct conversion_job *j = &c->jobs[i];
        j->out = at;
        j->spec.matrix->data = j->packs ? NULL : at;
        at += j->bytes;
    }
    c->said_ns = clock_now_ns();
    team_run(team, convert_body, c);
    for (size_t i = 0; i < c->n_jobs; i++) {
        if (!c->jobs[i].packs)
            continue;
        out->owned[out->n_packed] = c->jobs[i].own;
        out->packed[out->n_packed] = c->jobs[i].form;
        c->jobs[i].spec.matrix->packed = &out->packed[out->n_packed++];
    }
    int bad = atomic_load(&c->bad);
    if (bad && !c->jobs[bad - 1].out)
        return err_set(c->err, ST_NO_MEMORY, "%s: tensor %s: no memory to convert it", c->dir,
                       c->jobs[bad - 1].weight->name);
    if (bad)
        return err_set(c->err, ST_INVALID, "%s: tensor %s: an element is not a finite number",
                       c->dir, c->jobs[bad - 1].weight->name);
    return ST_OK;
}
