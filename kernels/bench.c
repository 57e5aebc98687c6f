#include "kernels/bench.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/huge.h"
#include "base/rng.h"
#include "kernels/bench/job.h"

#define SCRATCH_BYTES ((size_t)16 << 20) /* of attention, and for each member; as model.c has it */
#define SCRATCH_BYTES_EACH ((size_t)1 << 20)
#define SAMPLES_MAX 256
#define BODIES_MAX 16
#define CALL_SECONDS_MAX 0.5
#define CALL_SECONDS_MAX_QUICK 0.05
#define MANY_ROWS 16 /* of one sequence, or expert: may be computed in another way than fewer */

struct run {
    const struct kernels_bench_args *args;
    struct kernels_bench *out;
    struct bench_job *j;
    const struct ops *best;
    /* Operations a second of the last row of such weights, or KV, with few and with many rows, on
     * a body; 0: there was none. */
    double rate[BODIES_MAX][FORMS][2][2];
    const struct bench_op *op;
    bool has_row[BODIES_MAX][FORMS]; /* of this op: the first is never left out */
};

const char *kernels_bench_op(int i)
{
    const struct bench_op *last = NULL;
    for (size_t s = 0; s < bench_shapes_n; s++) {
        if (bench_shapes[s].op != last && i-- == 0)
            return bench_shapes[s].op->name;
        last = bench_shapes[s].op;
    }
    return NULL;
}

/* ---- memory ---- */

static void job_destroy(struct bench_job *j)
{
    if (!j)
        return;
    work_destroy(j->work);
    huge_free(j->buffer, j->buffer_bytes);
    huge_free(j->scratch, j->scratch_bytes);
    huge_free(j->x, BENCH_FLOATS * sizeof *j->x);
    huge_free(j->y, BENCH_FLOATS * sizeof *j->y);
    huge_free(j->z, BENCH_FLOATS * sizeof *j->z);
    huge_free(j->x16, BENCH_PAIRS16 * sizeof *j->x16);
    huge_free(j->x8.q, BENCH_BYTES8);
    free(j->x8.scale);
    free(j->x8.sum);
    free(j->logits);
    free(j->pairs);
    free(j);
}

/* NULL: no memory. */
static struct bench_job *job_create(struct team *team)
{
    struct bench_job *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->team = team;
    j->scratch_bytes = SCRATCH_BYTES + (size_t)team_size(team) * SCRATCH_BYTES_EACH;
    j->work = work_create(team_size(team));
    j->buffer_bytes = kernels_probe_bytes();
    j->buffer = huge_alloc(j->buffer_bytes);
    j->scratch = huge_alloc(j->scratch_bytes);
    j->x = huge_alloc(BENCH_FLOATS * sizeof *j->x);
    j->y = huge_alloc(BENCH_FLOATS * sizeof *j->y);
    j->z = huge_alloc(BENCH_FLOATS * sizeof *j->z);
    j->x16 = huge_alloc(BENCH_PAIRS16 * sizeof *j->x16);
    j->x8 = (struct rows8){.q = huge_alloc(BENCH_BYTES8),
                           .scale = malloc(BENCH_SPANS * sizeof(float)),
                           .sum = malloc(BENCH_SPANS * 2 * sizeof(int32_t))};
    j->logits = malloc(BENCH_LOGITS * sizeof *j->logits);
    j->pairs = calloc(1, sizeof *j->pairs);
    if (j->work && j->buffer && j->scratch && j->x && j->y && j->z && j->logits && j->x16 &&
        j->x8.q && j->x8.scale && j->x8.sum && j->pairs)
        return j;
    job_destroy(j);
    return NULL;
}

/* Numbers that differ: a tile unit that multiplies zeros, or the same again and again, is faster
 * than one that computes something. */
static void job_fill(struct bench_job *j)
{
    struct rng r = rng_seed(1);
    for (size_t i = 0; i < j->buffer_bytes; i += sizeof(uint64_t)) {
        /* Bytes of 0x3c and 0x3d and their negatives: in every dtype moderate numbers, and such
         * scores that nothing in a softmax is denormal. */
        const uint64_t word = (rng_next(&r) & 0x8181818181818181) | 0x3c3c3c3c3c3c3c3c;
        memcpy(j->buffer + i, &word, sizeof word);
    }
    for (size_t i = 0; i < BENCH_FLOATS; i++)
        j->x[i] = (float)(i % 1009) / 1009 - 0.5f;
    for (size_t i = 0; i < BENCH_LOGITS; i++)
        j->logits[i] = (float)rng_double(&r) * 8;
    for (size_t i = 0; i < BENCH_PAIRS16; i++)
        j->x16[i] = dtype_f32_to_bf16(j->x[i % BENCH_FLOATS]);
    for (size_t i = 0; i < BENCH_BYTES8; i++)
        j->x8.q[i] = (int8_t)((int)(i % 1009) % 255 - 127);
    for (size_t i = 0; i < BENCH_SPANS; i++) {
        j->x8.scale[i] = 0x1p-7f;
        j->x8.sum[2 * i] = j->x8.sum[2 * i + 1] = (int32_t)(i % 255) - 127;
    }
    for (int32_t i = 0; i < BENCH_TOKENS_MAX; i++)
        j->ids[i] = i * 37 % 1000;
}

static enum status push(struct kernels_bench_rows *rows, const struct kernels_bench_row *row,
                        struct error *err)
{
    if (rows->n == rows->room) {
        const size_t room = rows->room ? 2 * rows->room : 256;
        struct kernels_bench_row *more = realloc(rows->row, room * sizeof *more);
        if (!more)
            return err_set(err, ST_NO_MEMORY, "bench kernels: no memory for %zu rows", room);
        rows->row = more;
        rows->room = room;
    }
    rows->row[rows->n++] = *row;
    return ST_OK;
}

/* ---- a row ---- */

static void run_op(void *arg, int part, int parts)
{
    const struct bench_job *j = arg;
    j->shape->op->run(j, part, parts);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct call_time {
    double median, least;
};

/* Seconds of one call; the first one, which warms up, does not count. */
static struct call_time time_call(struct bench_job *j, int64_t budget_ns)
{
    double samples[SAMPLES_MAX];
    size_t n = 0;
    const int64_t begin = clock_now_ns();
    team_run(j->team, run_op, j);
    do {
        j->first_piece += j->pieces;
        const int64_t t = clock_now_ns();
        team_run(j->team, run_op, j);
        samples[n++] = (double)(clock_now_ns() - t) * 1e-9;
    } while (n < SAMPLES_MAX && clock_now_ns() - begin < budget_ns);
    qsort(samples, n, sizeof samples[0], compare);
    return (struct call_time){samples[n / 2], samples[0]};
}

static bool has_many_rows(const struct bench_shape *s)
{
    const int32_t rows = s->top_k ? s->tokens * s->top_k / s->experts : s->tokens;
    return rows / (s->sequences ? s->sequences : 1) >= MANY_ROWS;
}

static struct kernels_bench_row row_of(const struct bench_job *j)
{
    const struct bench_op *op = j->shape->op;
    struct kernels_bench_row row = {.op = op->name,
                                    .backend = j->backend,
                                    .dtype = bench_form_name(j->form),
                                    .math = j->math,
                                    .streams = op->streams,
                                    .flops = j->flops,
                                    .bytes = j->bytes};
    op->describe(j, row.shape, sizeof row.shape);
    return row;
}

static enum status bench_row(struct run *r, int body, bool best, struct error *err)
{
    struct bench_job *j = r->j;
    struct kernels_bench_row row = row_of(j);
    double *rates = r->rate[body][j->form][j->shape->op == &bench_attention];
    double *rate = &rates[j->flops > 0 && has_many_rows(j->shape)];
    const double known = *rate > 0 ? *rate : rates[0];
    row.seconds = known > 0 ? j->flops / known : 0;
    if (r->has_row[body][j->form] && row.seconds > r->out->call_seconds_max)
        return push(&r->out->left_out, &row, err);
    const int64_t ms = r->args->quick ? best ? 20 : 8 : best ? 300 : 60;
    const struct call_time time = time_call(j, ms * NS_PER_MS);
    row.seconds = time.median;
    r->has_row[body][j->form] = true;
    if (j->flops > 0)
        *rate = j->flops / time.least;
    return push(&r->out->timed, &row, err);
}

/* ---- all of them ---- */

/* Takes the i-th backend of the shape's op; false: there are no more. */
static bool take_backend(struct run *r, int i, bool *best)
{
    struct bench_job *j = r->j;
    if (j->shape->op->of_logits) {
        j->ops = r->best; /* unused */
        j->peaks = logits_body_at(i);
        j->backend = j->peaks ? j->peaks->name : NULL;
        *best = i == 0;
    } else {
        j->ops = ops_at(i);
        j->backend = j->ops ? j->ops->name : NULL;
        *best = j->ops == r->best;
    }
    assert(i < BODIES_MAX);
    return j->backend;
}

/* The forms that this shape is timed in. */
static uint32_t forms_of(const struct bench_shape *s)
{
    return s->few ? s->op->forms & (FORM_BIT(FORM_BF16) | FORM_BIT(FORM_BF16_ROWS)) : s->op->forms;
}

static enum status bench_shape(struct run *r, const struct bench_shape *s, struct error *err)
{
    const char *backend = r->args->backend;
    const bool only_best = backend && strcmp(backend, "best") == 0;
    enum status st = ST_OK;
    bool best;
    r->j->shape = s;
    if (r->op != s->op)
        memset(r->has_row, 0, sizeof r->has_row);
    r->op = s->op;
    for (int i = 0; st == ST_OK && take_backend(r, i, &best); i++) {
        if (backend && !(only_best ? best : strcmp(backend, r->j->backend) == 0))
            continue;
        for (int f = 0; st == ST_OK && f < FORMS; f++) {
            r->j->form = (enum bench_form)f;
            if ((forms_of(s) & FORM_BIT(f)) && s->op->prepare(r->j))
                st = bench_row(r, i, best, err);
        }
    }
    return st;
}

/* Compares a row with the limit that binds it. */
static void judge(struct kernels_bench_row *row, const struct kernels_probe *limit)
{
    const double computing = row->math == KERNELS_MATH_BF16    ? limit->bf16_gflops
                             : row->math == KERNELS_MATH_BYTES ? limit->int8_gops
                                                               : limit->gflops;
    const double reading = row->streams ? limit->gbytes_per_second : limit->cache_gbytes_per_second;
    const bool compute = row->flops / computing > row->bytes / reading;
    row->unit = compute ? "GFLOP/s" : "GB/s";
    row->limit = compute ? computing : reading;
    row->achieved = (compute ? row->flops : row->bytes) / row->seconds * 1e-9;
    row->fraction = row->achieved / row->limit;
}

static enum status bench_all(struct run *r, struct error *err)
{
    struct kernels_bench *out = r->out;
    const struct kernels_bench_args *args = r->args;
    enum status st = ST_OK;
    job_fill(r->j);
    out->before = kernels_probe_run(args->team, r->j->buffer, r->j->buffer_bytes);
    for (size_t i = 0; st == ST_OK && i < bench_shapes_n; i++) {
        const struct bench_shape *s = &bench_shapes[i];
        if ((!args->op || strcmp(args->op, s->op->name) == 0) && !(args->quick && s->thorough))
            st = bench_shape(r, s, err);
    }
    out->after = kernels_probe_run(args->team, r->j->buffer, r->j->buffer_bytes);
    out->limit = kernels_probe_best(&out->before, &out->after);
    for (size_t i = 0; i < out->timed.n; i++)
        judge(&out->timed.row[i], &out->limit);
    if (st == ST_OK && out->timed.n == 0) /* what is named exists, but not both together */
        st = err_set(err, ST_INVALID, "--op %s: %s does not have it", args->op,
                     args->backend ? args->backend : "this CPU");
    return st;
}

/* Adds a name to a list of them; says whether it is the one that is looked for. */
static bool list_name(struct buf *names, const char *name, const char *wanted)
{
    buf_printf(names, " %s", name);
    return strcmp(wanted, name) == 0;
}

static enum status check_names(const struct kernels_bench_args *args, struct error *err)
{
    struct buf ops = {0}, backends = {0};
    bool op = !args->op, backend = !args->backend;
    enum status st = ST_OK;
    for (int i = 0; args->op && kernels_bench_op(i); i++)
        op |= list_name(&ops, kernels_bench_op(i), args->op);
    if (args->backend)
        backend = list_name(&backends, "best", args->backend);
    for (int i = 0; args->backend && ops_at(i); i++)
        backend |= list_name(&backends, ops_at(i)->name, args->backend);
    if (!op)
        st = err_set(err, ST_INVALID, "--op %s: expected one of%s", args->op, ops.data);
    else if (!backend)
        st = err_set(err, ST_INVALID, "--backend %s: expected one of%s", args->backend,
                     backends.data);
    buf_fini(&ops);
    buf_fini(&backends);
    return st;
}

enum status kernels_bench_run(const struct kernels_bench_args *args, struct kernels_bench *out,
                              struct error *err)
{
    struct run *r = calloc(1, sizeof *r);
    enum status st = check_names(args, err);
    *out = (struct kernels_bench){.call_seconds_max =
                                      args->quick ? CALL_SECONDS_MAX_QUICK : CALL_SECONDS_MAX};
    if (st == ST_OK && r)
        r->j = job_create(args->team);
    if (st == ST_OK && (!r || !r->j))
        st = err_set(err, ST_NO_MEMORY, "bench kernels: no memory for its test data");
    if (st == ST_OK)
        st = ops_cpu("auto", &r->best, err);
    if (st == ST_OK) {
        r->args = args;
        r->out = out;
        st = bench_all(r, err);
    }
    if (st != ST_OK)
        kernels_bench_fini(out);
    if (r)
        job_destroy(r->j);
    free(r);
    return st;
}

void kernels_bench_fini(struct kernels_bench *b)
{
    free(b->timed.row);
    free(b->left_out.row);
    *b = (struct kernels_bench){0};
}
