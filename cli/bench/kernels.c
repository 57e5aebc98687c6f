/* `baton bench kernels`: what the ops make of what the machine can do. */
#include <stdio.h>
#include <string.h>

#include "base/flags.h"
#include "cli/bench/bench.h"
#include "cli/commands.h"
#include "cli/facts.h"

static const char *const formulas[][2] = {
    {"seconds", "median of one call; of left_out an estimate, by the last row of the same kind"},
    {"achieved", "operations (GFLOP/s) or bytes read (GB/s) of a call / seconds"},
    {"dtype", "of weights or KV, or of rows where there are neither; bf16r: bf16 times rows of "
              "bf16; fp8, fp8r: weights in blocks of 128x128, times rows of fp32 and of bf16; q8, "
              "q4: packed integers, 32 to a scale, times rows of 8 bits; q8p, q4p: 128 to a "
              "scale; q8w: a scale for a row, of both; wide8, wide4: those of 32 times rows of "
              "bf16 or fp32; wide4m: 128 to a scale and a min; of KV, with r: queries are "
              "rounded to bf16, and what is stored is read as bf16"},
    {"op", "gemm: M rows of K times N columns; gated: two of them and the unit; moe: route, sort, "
           "gates and ups, unit, downs, combine; logits_*: a row for each thread"},
    {"limit", "the probe's figure that binds the op: arithmetic from registers, reading memory "
              "(weights, KV) or reading cache (activations); best of before and after"},
    {"fraction", "achieved / limit"},
    {NULL, NULL}};

static void put_str(struct jw *w, const char *key, const char *v)
{
    jw_key(w, key);
    jw_str(w, v);
}

static void put_real(struct jw *w, const char *key, double v)
{
    jw_key(w, key);
    jw_real(w, v);
}

/* Rows under `key`; those that were not timed have no more than an estimate. */
static void put_rows(struct jw *w, const char *key, const struct kernels_bench_rows *rows)
{
    jw_key(w, key);
    jw_arr(w);
    for (size_t i = 0; i < rows->n; i++) {
        const struct kernels_bench_row *r = &rows->row[i];
        jw_obj(w);
        put_str(w, "op", r->op);
        put_str(w, "backend", r->backend);
        put_str(w, "shape", r->shape);
        put_str(w, "dtype", r->dtype);
        put_real(w, "seconds", r->seconds);
        if (r->unit) {
            put_real(w, "achieved", r->achieved);
            put_real(w, "limit", r->limit);
            put_str(w, "unit", r->unit);
            put_real(w, "fraction", r->fraction);
        }
        jw_end_obj(w);
    }
    jw_end_arr(w);
}

struct run {
    int argc;
    char **argv;
    const char *json, *op, *backend;
    int threads;
    bool quick;
};

static enum status write_json(const struct run *run, const struct kernels_bench *b,
                              struct error *err)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton bench kernels", run->argc, run->argv);
    put_str(&w, "model", "none");
    facts_put_probes(&w, &b->before, &b->after, run->threads);
    put_rows(&w, "rows", &b->timed);
    jw_key(&w, "call_seconds_max");
    jw_real(&w, b->call_seconds_max);
    put_rows(&w, "left_out", &b->left_out);
    facts_put_formulas(&w, formulas);
    jw_end_obj(&w);
    enum status st = facts_write_file(run->json, &text, err);
    buf_fini(&text);
    return st;
}

static void print_probe(const struct kernels_probe *p, int threads)
{
    printf("limits of %d threads: %.1f GFLOP/s, of bf16 %.1f, of bytes %.1f GOP/s, memory %.1f "
           "GB/s, cache %.1f GB/s\n",
           threads, p->gflops, p->bf16_gflops, p->int8_gops, p->gbytes_per_second,
           p->cache_gbytes_per_second);
}

/* How many rows are missing, and of which backends. */
static void print_left_out(const struct kernels_bench *b)
{
    const struct kernels_bench_rows *rows = &b->left_out;
    if (rows->n == 0)
        return;
    printf("\n%zu rows left out, of which a call would take more than %g s:", rows->n,
           b->call_seconds_max);
    for (size_t i = 0; i < rows->n; i++) {
        size_t before = 0, all = 0;
        for (size_t k = 0; k < rows->n; k++) {
            const bool same = strcmp(rows->row[k].backend, rows->row[i].backend) == 0;
            before += same && k < i;
            all += same;
        }
        if (before == 0)
            printf("%s %s %zu", i == 0 ? "" : ",", rows->row[i].backend, all);
    }
    puts("");
}

static void print_table(const struct kernels_bench *b, int threads)
{
    print_probe(&b->limit, threads);
    printf("\n%-12s %-12s %-52s %-5s %12s %10s %10s %-8s %6s\n", "op", "backend", "shape", "dtype",
           "microseconds", "achieved", "limit", "unit", "of it");
    for (size_t i = 0; i < b->timed.n; i++) {
        const struct kernels_bench_row *r = &b->timed.row[i];
        printf("%-12s %-12s %-52s %-5s %12.2f %10.2f %10.2f %-8s %5.1f%%\n", r->op, r->backend,
               r->shape, r->dtype, r->seconds * 1e6, r->achieved, r->limit, r->unit,
               100 * r->fraction);
    }
    print_left_out(b);
    facts_print_formulas(formulas);
}

static int all_threads(int64_t asked)
{
    struct facts_machine m;
    facts_machine_read(&m);
    return asked > 0 ? (int)asked : (int)m.cores;
}

static enum status measure(const struct run *run, struct error *err)
{
    struct kernels_bench b = {0};
    struct team *team = team_create(run->threads, true, false);
    const struct kernels_bench_args args = {
        .team = team, .quick = run->quick, .op = run->op, .backend = run->backend};
    enum status st =
        team ? kernels_bench_run(&args, &b, err) : err_set(err, ST_NO_MEMORY, "no memory");
    if (st == ST_OK) {
        print_table(&b, run->threads);
        if (run->json)
            st = write_json(run, &b, err);
    }
    if (team)
        team_destroy(team);
    kernels_bench_fini(&b);
    return st;
}

int bench_kernels(int argc, char **argv)
{
    int64_t threads = 0;
    struct run run = {.argc = argc, .argv = argv};
    struct flag table[] = {
        {"threads", FLAG_INT, &threads, "K", "threads; 0: all CPUs that may be used", 0, 1024},
        {"quick", FLAG_BOOL, &run.quick, NULL, "fewer shapes, under 30 s"},
        {"op", FLAG_STR, &run.op, "NAME", "this op alone: gemm, gated, moe, attention, rope ..."},
        {"backend", FLAG_STR, &run.backend, "NAME",
         "this backend alone; best: what the engine takes on this machine"},
        {"json", FLAG_STR, &run.json, "FILE", "write the result as JSON; -: to stdout"},
    };
    struct flags f = {.program = "baton bench kernels",
                      .usage = "[options]",
                      .about = "Times every op of every backend that this machine can run. Rows of "
                               "which a call would take more than 0.5 s (--quick: 0.05 s) are left "
                               "out and counted.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    struct error err = {0};
    run.threads = all_threads(threads);
    enum status st = measure(&run, &err);
    if (st == ST_OK)
        return 0;
    fprintf(stderr, "baton bench kernels: %s\n", err.text);
    return st == ST_INVALID ? 2 : 1;
}
