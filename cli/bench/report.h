/* How a run of `bench serve` is shown: the table for people, the JSON for files. Pure output.
 * Thread: main. */
#ifndef CLI_BENCH_REPORT_H
#define CLI_BENCH_REPORT_H

#include "base/json.h"
#include "cli/bench/summary.h"
#include "kernels/bench.h"

struct bench_report {
    const struct oai_server *server;
    const struct bench_load *load;
    const struct bench_log *log;
    const struct bench_slo *slo;
    const struct bench_summary *summary;
    const struct kernels_probe *before, *after; /* NULL: not measured */
    const char *load_text, *prompt_text;
    bool details; /* a row per request */
    int argc;
    char **argv;
};

/* Writes "key": the percentiles, mean and count. */
void bench_put_figures(struct jw *w, const char *key, const struct bench_figures *f);
void bench_report_table(const struct bench_report *r);
void bench_report_json(const struct bench_report *r, struct buf *out);

#endif
