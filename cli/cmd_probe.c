/* `baton probe`: the machine's limits, for one thread, for two, four ... and for all cores. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/flags.h"
#include "base/huge.h"
#include "base/topology.h"
#include "cli/commands.h"
#include "cli/facts.h"

#define COUNTS_MAX 16

struct run {
    int argc;
    char **argv;
    const char *json;
    int64_t threads; /* 0: one to all cores */
};

/* 1, 2, 4 ... and the number of cores; or the one that was asked for. */
static int thread_counts(const struct run *run, long cores, int *counts)
{
    int n = 0;
    if (run->threads > 0) {
        counts[n++] = (int)run->threads;
        return n;
    }
    for (long k = 1; k < cores && n < COUNTS_MAX - 1; k *= 2)
        counts[n++] = (int)k;
    counts[n++] = (int)cores;
    return n;
}

static enum status measure(int threads, void *buffer, size_t bytes, struct machine_limits *out,
                           struct error *err)
{
    struct team *team = team_create(threads, threads <= topology_cpus(), false);
    if (!team)
        return err_set(err, ST_NO_MEMORY, "no memory for a team of %d", threads);
    *out = machine_probe(team, buffer, bytes);
    team_destroy(team);
    return ST_OK;
}

/* What is 0 is not there. */
static void put_limit(struct jw *w, const char *key, double v)
{
    jw_key(w, key);
    if (v > 0)
        jw_real(w, v);
    else
        jw_null(w);
}

static void put_limits(struct jw *w, const struct machine_limits *l)
{
    jw_obj(w);
    jw_key(w, "threads");
    jw_int(w, l->threads);
    put_limit(w, "fma_gflops", l->roof.gflops);
    put_limit(w, "bf16_dot_gflops", l->bf16_dot_gflops);
    put_limit(w, "int8_dot_gops", l->int8_dot_gops);
    put_limit(w, "amx_bf16_gflops", l->amx_bf16_gflops);
    put_limit(w, "amx_bf16_l1_gflops", l->amx_bf16_l1_gflops);
    put_limit(w, "amx_int8_gops", l->amx_int8_gops);
    put_limit(w, "amx_int8_l1_gops", l->amx_int8_l1_gops);
    put_limit(w, "read_gbytes_per_second", l->roof.gbytes_per_second);
    put_limit(w, "copy_gbytes_per_second", l->copy_gbytes_per_second);
    put_limit(w, "cache_gbytes_per_second", l->roof.cache_gbytes_per_second);
    put_limit(w, "wake_us", l->wake_us);
    put_limit(w, "barrier_us", l->barrier_us);
    jw_end_obj(w);
}

static enum status write_result(const struct run *run, const struct machine_limits *limits, int n,
                                struct error *err)
{
    const struct machine_limits *all = &limits[n - 1];
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton probe", run->argc, run->argv);
    facts_put_probe(&w, &all->roof, all->threads);
    jw_key(&w, "limits");
    jw_arr(&w);
    for (int i = 0; i < n; i++)
        put_limits(&w, &limits[i]);
    jw_end_arr(&w);
    jw_end_obj(&w);
    enum status st = facts_write_file(run->json ? run->json : "-", &text, err);
    buf_fini(&text);
    return st;
}

static enum status probe(const struct run *run, struct error *err)
{
    struct machine_limits limits[COUNTS_MAX];
    int counts[COUNTS_MAX];
    int n = thread_counts(run, topology_cpus(), counts);
    const size_t bytes = kernels_probe_bytes();
    char *buffer = huge_alloc(bytes);
    if (!buffer)
        return err_set(err, ST_NO_MEMORY, "no memory to measure the machine with");
    memset(buffer, 0x3c, bytes);
    enum status st = ST_OK;
    for (int i = 0; i < n && st == ST_OK; i++)
        st = measure(counts[i], buffer, bytes, &limits[i], err);
    huge_free(buffer, bytes);
    return st == ST_OK ? write_result(run, limits, n, err) : st;
}

int cmd_probe(int argc, char **argv)
{
    struct run run = {.argc = argc, .argv = argv};
    struct flag table[] = {
        {"threads", FLAG_INT, &run.threads, "K", "threads; 0: one, two, four ... all CPUs", 0,
         TEAM_MAX},
        {"json", FLAG_STR, &run.json, "FILE", "where to write (stdout)"},
    };
    struct flags f = {.program = "baton probe",
                      .usage = "[options]",
                      .about = "Measures the machine's limits: arithmetic (vectors, dot products, "
                               "tiles), reading and copying memory, reading cache, waking a team, "
                               "a barrier. JSON; null: this CPU has none.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    struct error err = {0};
    if (probe(&run, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton probe: %s\n", err.text);
    return 1;
}
