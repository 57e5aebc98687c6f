/* `baton bench kernels`: what the ops make of what the machine can do. */
#include <stdio.h>
#include <stdlib.h>

#include "base/flags.h"
#include "cli/bench/bench.h"
#include "cli/commands.h"
#include "cli/facts.h"

static const char *const formulas[][2] = {
    {"seconds", "median of one call"},
    {"achieved", "operations (GFLOP/s) or bytes read (GB/s) of a call / seconds"},
    {"dtype", "of weights or KV; bf16r: bf16 times rows of bf16; fp8, fp8r: blocks of 128x128, "
              "times rows of fp32 and of bf16; q8, q4: packed integers, 32 to a "
              "scale, times rows of 8 bits; q8w: a scale for a row, of both; wide8, wide4: those "
              "of 32 times rows of bf16 or fp32"},
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

static void put_row(struct jw *w, const struct kernels_bench_row *r)
{
    jw_obj(w);
    put_str(w, "op", r->op);
    put_str(w, "backend", r->backend);
    put_str(w, "shape", r->shape);
    put_str(w, "dtype", r->dtype);
    put_real(w, "seconds", r->seconds);
    put_real(w, "achieved", r->achieved);
    put_real(w, "limit", r->limit);
    put_str(w, "unit", r->unit);
    put_real(w, "fraction", r->fraction);
    jw_end_obj(w);
}

struct run {
    int argc;
    char **argv;
    const char *json;
    int threads;
};

static enum status write_json(const struct run *run, const struct kernels_bench *b,
                              struct error *err)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton bench kernels", run->argc, run->argv);
    put_str(&w, "model", "none");
    facts_put_probe(&w, &b->limit, run->threads);
    jw_key(&w, "rows");
    jw_arr(&w);
    for (size_t i = 0; i < b->n; i++)
        put_row(&w, &b->rows[i]);
    jw_end_arr(&w);
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

static void print_table(const struct kernels_bench *b, int threads)
{
    print_probe(&b->limit, threads);
    printf("\n%-10s %-9s %-32s %-5s %12s %10s %10s %-8s %6s\n", "op", "backend", "shape", "dtype",
           "microseconds", "achieved", "limit", "unit", "of it");
    for (size_t i = 0; i < b->n; i++) {
        const struct kernels_bench_row *r = &b->rows[i];
        printf("%-10s %-9s %-32s %-5s %12.2f %10.2f %10.2f %-8s %5.1f%%\n", r->op, r->backend,
               r->shape, r->dtype, r->seconds * 1e6, r->achieved, r->limit, r->unit,
               100 * r->fraction);
    }
    facts_print_formulas(formulas);
}

static int all_threads(int64_t asked)
{
    struct facts_machine m;
    facts_machine_read(&m);
    return asked > 0 ? (int)asked : (int)m.cores;
}

static enum status measure(const struct run *run, bool quick, struct error *err)
{
    struct kernels_bench *b = malloc(sizeof *b);
    struct team *team = team_create(run->threads, true, false);
    enum status st = b && team ? ST_OK : err_set(err, ST_NO_MEMORY, "no memory");
    if (st == ST_OK)
        st = kernels_bench_run(&(struct kernels_bench_args){.team = team, .quick = quick}, b, err);
    if (st == ST_OK) {
        print_table(b, run->threads);
        if (run->json)
            st = write_json(run, b, err);
    }
    if (team)
        team_destroy(team);
    free(b);
    return st;
}

int bench_kernels(int argc, char **argv)
{
    int64_t threads = 0;
    bool quick = false;
    struct run run = {.argc = argc, .argv = argv};
    struct flag table[] = {
        {"threads", FLAG_INT, &threads, "K", "threads; 0: all CPUs that may be used", 0, 1024},
        {"quick", FLAG_BOOL, &quick, NULL, "fewer shapes, under 30 s"},
        {"json", FLAG_STR, &run.json, "FILE", "write the result as JSON; -: to stdout"},
    };
    struct flags f = {.program = "baton bench kernels",
                      .usage = "[options]",
                      .about = "Times every op of every backend that this machine can run.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    struct error err = {0};
    run.threads = all_threads(threads);
    if (measure(&run, quick, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton bench kernels: %s\n", err.text);
    return 1;
}
