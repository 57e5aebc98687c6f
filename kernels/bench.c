#include "kernels/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/huge.h"
#include "kernels/ops.h"

#define FLOATS_MAX ((size_t)512 * 8192) /* the largest activation of any shape below */
#define CONTEXT_MAX 8448
#define SCRATCH_BYTES (OPS_ATTENTION_COUNTS + ((size_t)8 << 20))
#define BLOCK_TOKENS 16
#define TOKENS_MAX 512
#define REF_FLOPS_MAX 3e7
#define SAMPLES_MAX 64

enum op_kind { EMBED, RMSNORM, GEMM, ROPE, KV_STORE, ATTENTION, GLU, QUANTIZE };

/* How what is stored is multiplied: as a plain dtype, or as gemms alone can do it. */
enum form {
    FORM_PLAIN,
    FORM_BF16_ROWS = DTYPE_COUNT,
    FORM_FP8,
    FORM_FP8_ROWS,
    FORM_Q8,
    FORM_Q4,
    FORM_Q8_PAIRED, /* groups of 128, and rows whose spans are paired */
    FORM_Q4_PAIRED,
    FORM_Q8_WHOLE, /* one scale for a row, of weights and of x */
    FORM_Q8_WIDE,
    FORM_Q4_WIDE,
    FORMS
};
static const char *const form_names[FORMS] = {
    [FORM_BF16_ROWS] = "bf16r", [FORM_FP8] = "fp8",      [FORM_FP8_ROWS] = "fp8r",
    [FORM_Q8] = "q8",           [FORM_Q4] = "q4",        [FORM_Q8_PAIRED] = "q8p",
    [FORM_Q4_PAIRED] = "q4p",   [FORM_Q8_WHOLE] = "q8w", [FORM_Q8_WIDE] = "wide8",
    [FORM_Q4_WIDE] = "wide4"};

/* a, b, c: GEMM N, K; attention heads, kv_heads, head_dim; others dim or heads, head_dim. */
struct shape {
    enum op_kind op;
    int32_t tokens, a, b, c;
    int32_t start; /* attention: positions before the batch; each of `sequences` */
    int32_t sequences;
    bool thorough; /* left out of a quick run */
};

static const struct shape shapes[] = {
    {GEMM, 1, 512, 512},
    {GEMM, 1, 2048, 2048},
    {GEMM, 8, 2048, 2048},
    {GEMM, 64, 2048, 2048},
    {GEMM, 256, 2048, 2048, .thorough = true},
    {GEMM, 1, 8192, 2048, .thorough = true},
    {GEMM, 64, 2048, 8192, .thorough = true},
    {ATTENTION, 1, 8, 2, 64, .start = 255, .sequences = 1},
    {ATTENTION, 8, 32, 8, 64, .start = 1023, .sequences = 8},
    {ATTENTION, 128, 32, 8, 64, .start = 384, .sequences = 1},
    /* decoding by depth, by queries of a kv head, and in batches; drafts; a prompt's chunks */
    {ATTENTION, 1, 32, 8, 64, .start = 2047, .sequences = 1, .thorough = true},
    {ATTENTION, 1, 32, 8, 64, .start = 8191, .sequences = 1, .thorough = true},
    {ATTENTION, 1, 8, 8, 128, .start = 8191, .sequences = 1, .thorough = true},
    {ATTENTION, 1, 14, 2, 64, .start = 8191, .sequences = 1, .thorough = true},
    {ATTENTION, 1, 16, 1, 128, .start = 8191, .sequences = 1, .thorough = true},
    {ATTENTION, 16, 32, 8, 64, .start = 2047, .sequences = 16, .thorough = true},
    {ATTENTION, 32, 32, 8, 64, .start = 2047, .sequences = 32, .thorough = true},
    {ATTENTION, 2, 32, 8, 64, .start = 8190, .sequences = 1, .thorough = true},
    {ATTENTION, 4, 32, 8, 64, .start = 8188, .sequences = 1, .thorough = true},
    {ATTENTION, 8, 32, 8, 64, .start = 8184, .sequences = 1, .thorough = true},
    {ATTENTION, 128, 32, 8, 64, .start = 2048, .sequences = 1, .thorough = true},
    {ATTENTION, 128, 32, 8, 64, .start = 8192, .sequences = 1, .thorough = true},
    {EMBED, 16, 2048},
    {RMSNORM, 16, 2048},
    {ROPE, 16, 32, 64},
    {KV_STORE, 16, 8, 64, .start = 0, .sequences = 1},
    {GLU, 16, 8192},
    {QUANTIZE, 16, 8192},
};

static const char *const op_names[] = {"embed",    "rmsnorm",   "gemm", "rope",
                                       "kv_store", "attention", "glu",  "quantize"};

/* One op about to be timed. `stream` is where its weights or KV lie this time. */
struct job {
    const struct ops *ops;
    const struct shape *shape;
    enum dtype dtype;
    enum form form;
    struct packed packed;
    struct fp8_grid fp8;
    struct rows8 x8;
    uint16_t *x16;
    float *x, *y;  /* FLOATS_MAX each */
    char *scratch; /* SCRATCH_BYTES */
    char *stream;
    size_t stream_bytes; /* what one call reads of it */
    double flops, bytes; /* of one call */
    int32_t ids[TOKENS_MAX], positions[TOKENS_MAX], seq_of[TOKENS_MAX];
    int32_t blocks[TOKENS_MAX][CONTEXT_MAX / BLOCK_TOKENS];
    const int32_t *tables[TOKENS_MAX];
    struct matrix matrix;
    struct kv_layout layout;
    struct op_rows rows;
};

static int32_t sequence_blocks(const struct shape *s)
{
    int32_t end = s->start + s->tokens / s->sequences;
    return (end + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
}

static void job_rows(struct job *j)
{
    const struct shape *s = j->shape;
    int32_t each = s->tokens / s->sequences, blocks = sequence_blocks(s);
    int32_t kv_heads = s->op == ATTENTION ? s->b : s->a, dim = s->op == ATTENTION ? s->c : s->b;
    for (int32_t q = 0; q < s->sequences; q++) {
        j->tables[q] = j->blocks[q];
        for (int32_t i = 0; i < blocks; i++)
            j->blocks[q][i] = i * s->sequences + q;
    }
    for (int32_t r = 0; r < s->tokens; r++) {
        j->seq_of[r] = r / each;
        j->positions[r] = s->start + r % each;
    }
    j->layout = (struct kv_layout){.layers = 1,
                                   .kv_heads = kv_heads,
                                   .head_dim = dim,
                                   .value_dim = dim,
                                   .block_tokens = BLOCK_TOKENS,
                                   .blocks = blocks * s->sequences,
                                   .dtype = j->dtype};
    j->rows = (struct op_rows){.positions = j->positions,
                               .seq_of = j->seq_of,
                               .block_tables = j->tables,
                               .tokens = s->tokens};
}

/* Fills in what one call computes and reads, and the stored operand's form. */
static void job_measure(struct job *j)
{
    const struct shape *s = j->shape;
    double tokens = s->tokens, width = (double)s->a * (s->b ? s->b : 1);
    int32_t rows = s->op == GEMM ? s->a : s->op == EMBED ? 1024 : 1;
    int32_t cols = s->op == GEMM ? s->b : s->a;
    j->flops = 0;
    j->stream_bytes = 0;
    j->bytes = 8 * tokens * width; /* activations in and out */
    if (s->op == ATTENTION || s->op == KV_STORE) {
        job_rows(j);
        j->stream_bytes = kv_pool_bytes(&j->layout);
        j->bytes = (double)j->stream_bytes;
        for (int32_t r = 0; r < s->tokens && s->op == ATTENTION; r++)
            j->flops += 4.0 * (j->positions[r] + 1) * s->a * s->c;
        return;
    }
    j->matrix = (struct matrix){.dtype = j->dtype, .rows = rows, .cols = cols};
    j->stream_bytes = (size_t)rows * (size_t)cols * dtype_bytes(j->dtype);
    if (j->form == FORM_BF16_ROWS && j->ops->panels) {
        j->matrix.panels = true;
        j->stream_bytes = panels_bytes(rows, cols);
    }
    if (j->form == FORM_FP8 || j->form == FORM_FP8_ROWS) {
        /* Blocks of 128x128; their scales, which are one in 16 KiB, are of x. */
        j->fp8 = (struct fp8_grid){.scale = j->x,
                                   .row_block = FP8_SPAN,
                                   .col_block = FP8_SPAN,
                                   .scale_cols = (cols + FP8_SPAN - 1) / FP8_SPAN};
        j->matrix.fp8 = &j->fp8;
        j->stream_bytes = (size_t)rows * (size_t)cols;
    }
    if (j->form >= FORM_Q8) {
        const bool eight = j->form == FORM_Q8 || j->form == FORM_Q8_PAIRED ||
                           j->form == FORM_Q8_WHOLE || j->form == FORM_Q8_WIDE;
        const bool paired = j->form == FORM_Q8_PAIRED || j->form == FORM_Q4_PAIRED;
        j->packed = (struct packed){.rows = rows,
                                    .cols = cols,
                                    .bits = eight ? 8 : 4,
                                    .group = j->form == FORM_Q8_WHOLE ? cols
                                             : paired                 ? 128
                                                                      : PACKED_SPAN,
                                    .zero = eight ? 128 : 8,
                                    .scale_type = DTYPE_F16};
        j->matrix.packed = &j->packed;
        j->matrix.wide_rows = j->form >= FORM_Q8_WIDE;
        j->stream_bytes = packed_bytes(&j->packed);
    }
    if (s->op == GEMM) {
        j->flops = 2 * tokens * s->a * s->b;
        j->bytes = (double)j->stream_bytes + 4 * tokens * (s->a + s->b);
    } else if (s->op == GLU) {
        j->bytes = 12 * tokens * width;
    } else if (s->op == QUANTIZE) { /* a float in; a byte, and a span's scale and sums, out */
        j->bytes = (5 + 12.0 / PACKED_SPAN) * tokens * width;
    }
}

/* Whether x is in bf16. */
static bool reads_pairs(const struct job *j)
{
    return j->form == FORM_BF16_ROWS || j->form == FORM_FP8_ROWS ||
           (j->form >= FORM_Q8_WIDE && ops_wide_reads_pairs(j->ops));
}

static void run_rows_op(const struct job *j, int part, int parts)
{
    const struct shape *s = j->shape;
    struct matrix m = j->matrix;
    struct packed packed = j->packed;
    m.data = j->stream;
    if (m.packed) {
        packed_place(&packed, j->stream);
        m.packed = &packed;
    }
    struct op_embed embed = {.out = j->y, .table = &m, .ids = j->ids, .tokens = s->tokens};
    struct op_rmsnorm norm = {
        .out = j->y, .x = j->x, .weight = &m, .eps = 1e-5f, .tokens = s->tokens, .dim = s->a};
    struct rows8 x8 = j->x8;
    x8.spans = (s->op == QUANTIZE ? s->a : s->b) / PACKED_SPAN;
    x8.whole = j->form == FORM_Q8_WHOLE;
    x8.paired = x8.whole || j->form == FORM_Q8_PAIRED || j->form == FORM_Q4_PAIRED;
    struct op_gemm gemm = {.out = j->y,
                           .x = j->x,
                           .x8 = &x8,
                           .x16 = reads_pairs(j) ? j->x16 : NULL,
                           .w = &m,
                           .tokens = s->tokens};
    struct op_quantize quantize = {.out = x8, .x = j->x, .tokens = s->tokens, .dim = s->a};
    struct op_rope rope = {.x = j->y,
                           .positions = j->ids,
                           .inv_freq = j->x,
                           .attention_factor = 1,
                           .tokens = s->tokens,
                           .heads = s->a,
                           .head_dim = s->b};
    struct op_glu glu = {.out = j->y, .gate = j->x, .up = j->x, .tokens = s->tokens, .dim = s->a};
    if (s->op == EMBED)
        j->ops->embed(&embed, part, parts);
    else if (s->op == RMSNORM)
        j->ops->rmsnorm(&norm, part, parts);
    else if (s->op == GEMM)
        j->ops->gemm(&gemm, part, parts);
    else if (s->op == ROPE)
        j->ops->rope(&rope, part, parts);
    else if (s->op == QUANTIZE)
        j->ops->quantize(&quantize, part, parts);
    else
        j->ops->glu(&glu, part, parts);
}

static void run_op(void *arg, int part, int parts)
{
    const struct job *j = arg;
    struct op_kv_store store = {
        .pool = j->stream, .layout = &j->layout, .k = j->x, .v = j->x, .rows = &j->rows};
    struct op_attention attention = {.out = j->y,
                                     .q = j->x,
                                     .pool = j->stream,
                                     .layout = &j->layout,
                                     .heads = j->shape->a,
                                     .scale = 0.125f,
                                     .rows = &j->rows,
                                     .rounds = j->form == FORM_BF16_ROWS,
                                     .scratch = j->scratch,
                                     .scratch_bytes = SCRATCH_BYTES};
    if (j->shape->op == KV_STORE)
        j->ops->kv_store(&store, part, parts);
    else if (j->shape->op == ATTENTION)
        j->ops->attention(&attention, part, parts);
    else
        run_rows_op(j, part, parts);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of one call; the first one, which warms up, does not count. */
static double job_time(struct job *j, struct team *team, int64_t budget_ns, char *buffer)
{
    double samples[SAMPLES_MAX];
    size_t n = 0, offset = 0;
    int64_t begin = clock_now_ns();
    team_run(team, run_op, j);
    do {
        size_t step = (j->stream_bytes + 4095) / 4096 * 4096;
        offset = offset + 2 * step <= KERNELS_BENCH_BYTES ? offset + step : 0;
        j->stream = buffer + offset;
        int64_t t = clock_now_ns();
        team_run(team, run_op, j);
        samples[n++] = (double)(clock_now_ns() - t) * 1e-9;
    } while (n < SAMPLES_MAX && clock_now_ns() - begin < budget_ns);
    qsort(samples, n, sizeof samples[0], compare);
    return samples[n / 2];
}

static void describe(const struct shape *s, char *text, size_t cap)
{
    if (s->op == GEMM)
        snprintf(text, cap, "M=%d N=%d K=%d", s->tokens, s->a, s->b);
    else if (s->op == ATTENTION)
        snprintf(text, cap, "rows=%d at=%d heads=%d/%d dim=%d", s->tokens, s->start, s->a, s->b,
                 s->c);
    else if (s->b)
        snprintf(text, cap, "rows=%d heads=%d dim=%d", s->tokens, s->a, s->b);
    else
        snprintf(text, cap, "rows=%d dim=%d", s->tokens, s->a);
}

static void add_row(const struct job *j, struct kernels_bench *out, double seconds)
{
    struct kernels_bench_row *row = &out->rows[out->n++];
    *row = (struct kernels_bench_row){.op = op_names[j->shape->op],
                                      .backend = j->ops->name,
                                      .dtype = j->form < FORM_BF16_ROWS ? dtype_name(j->dtype)
                                                                        : form_names[j->form],
                                      .pairs = reads_pairs(j),
                                      .seconds = seconds};
    describe(j->shape, row->shape, sizeof row->shape);
}

/* Compares a row, which still holds its operations and bytes, with the limit that binds it. */
static void judge(struct kernels_bench_row *row, const struct kernels_probe *limit)
{
    double flops = row->achieved, bytes = row->limit;
    bool streams = strcmp(row->op, "gemm") == 0 || strcmp(row->op, "attention") == 0;
    double computing = row->pairs             ? limit->bf16_gflops
                       : row->dtype[0] == 'q' ? limit->int8_gops
                                              : limit->gflops;
    double reading = streams ? limit->gbytes_per_second : limit->cache_gbytes_per_second;
    bool compute = flops / computing > bytes / reading;
    row->unit = compute ? "GFLOP/s" : "GB/s";
    row->limit = compute ? computing : reading;
    row->achieved = (compute ? flops : bytes) / row->seconds * 1e-9;
    row->fraction = row->achieved / row->limit;
}

/* Rows of bf16 are for bodies that have products of two. */
static bool runs_form(const struct ops *ops, enum form form)
{
    return ops->round || (form != FORM_BF16_ROWS && form != FORM_FP8_ROWS);
}

/* Type and form number `d` of shape j->shape; false: there is none, or it says nothing new. */
static bool choose(struct job *j, int d)
{
    const enum op_kind op = j->shape->op;
    const bool kv = op == ATTENTION || op == KV_STORE;
    j->form = FORM_PLAIN;
    j->dtype = d < DTYPE_COUNT || kv ? (enum dtype)d : DTYPE_BF16;
    if (op == GEMM && d >= DTYPE_COUNT)
        j->form = (enum form)d;
    if (op == ATTENTION && d == DTYPE_KV_COUNT) {
        j->form = FORM_BF16_ROWS;
        j->dtype = DTYPE_BF16;
    }
    if (op == ATTENTION && j->shape->thorough && j->dtype != DTYPE_BF16)
        return false;
    return (op == GEMM || kv || d == DTYPE_BF16) && runs_form(j->ops, j->form);
}

/* Times shape `s` on every body, in every dtype where that is what is read. */
static void bench_shape(const struct kernels_bench_args *args, struct job *j, char *buffer,
                        struct kernels_bench *out)
{
    const enum op_kind op = j->shape->op;
    const int types = op == GEMM        ? (int)FORMS
                      : op == ATTENTION ? (int)DTYPE_KV_COUNT + 1
                      : op == KV_STORE  ? (int)DTYPE_KV_COUNT
                                        : (int)DTYPE_COUNT;
    int64_t budget_ns = (args->quick ? 30 : 300) * NS_PER_MS;
    for (int b = 0; ops_at(b); b++)
        for (int d = 0; d < types; d++) {
            j->ops = ops_at(b);
            if (!choose(j, d))
                continue;
            j->stream = buffer;
            job_measure(j);
            if ((b == 0 && j->flops > REF_FLOPS_MAX) || out->n == KERNELS_BENCH_ROWS_MAX)
                continue;
            add_row(j, out, job_time(j, args->team, budget_ns, buffer));
            /* Kept as numbers until the second probe: see judge(). */
            out->rows[out->n - 1].achieved = j->flops;
            out->rows[out->n - 1].limit = j->bytes;
        }
}

enum status kernels_bench_run(const struct kernels_bench_args *args, struct kernels_bench *out,
                              struct error *err)
{
    char *buffer = huge_alloc(KERNELS_BENCH_BYTES);
    struct job *j = calloc(1, sizeof *j);
    enum status st = ST_OK;
    out->n = 0;
    if (j) {
        j->x = malloc(FLOATS_MAX * sizeof *j->x);
        j->y = calloc(FLOATS_MAX, sizeof *j->y);
        j->scratch = calloc(1, SCRATCH_BYTES);
        j->x16 = calloc(FLOATS_MAX + 64 * TOKENS_MAX, sizeof *j->x16);
        j->x8 = (struct rows8){.q = calloc(FLOATS_MAX + 128 * TOKENS_MAX, 1),
                               .scale = calloc(FLOATS_MAX / PACKED_SPAN, sizeof(float)),
                               .sum = calloc(FLOATS_MAX / PACKED_SPAN, 2 * sizeof(int32_t))};
    }
    if (!buffer || !j || !j->x || !j->y || !j->x16 || !j->scratch || !j->x8.q || !j->x8.scale ||
        !j->x8.sum) {
        st = err_set(err, ST_NO_MEMORY, "bench kernels: no memory for %zu bytes of test data",
                     KERNELS_BENCH_BYTES + 2 * FLOATS_MAX * sizeof(float));
        goto done;
    }
    for (int32_t i = 0; i < TOKENS_MAX; i++)
        j->ids[i] = i * 37 % 1000;             /* tokens of a small table, or positions */
    memset(buffer, 0x3c, KERNELS_BENCH_BYTES); /* a small number in every dtype */
    for (size_t i = 0; i < FLOATS_MAX; i++)
        j->x[i] = (float)(i % 1009) / 1009 - 0.5f;
    out->before = kernels_probe_run(args->team, buffer, KERNELS_BENCH_BYTES);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        j->shape = &shapes[i];
        if (!args->quick || !shapes[i].thorough)
            bench_shape(args, j, buffer, out);
    }
    out->after = kernels_probe_run(args->team, buffer, KERNELS_BENCH_BYTES);
    out->limit = kernels_probe_best(&out->before, &out->after);
    for (size_t i = 0; i < out->n; i++)
        judge(&out->rows[i], &out->limit);
done:
    if (j) {
        free(j->x);
        free(j->y);
        free(j->x16);
        free(j->scratch);
        free(j->x8.q);
        free(j->x8.scale);
        free(j->x8.sum);
    }
    free(j);
    huge_free(buffer, KERNELS_BENCH_BYTES);
    return st;
}
