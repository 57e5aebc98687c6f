/* The figures of a run, from its records alone: pure, so that they can be checked by hand.
 *
 * Latencies count requests that succeeded; failures are counted beside them, by kind. Percentiles
 * are linearly interpolated between order statistics: p at position (n - 1) p / 100 of the sorted
 * values. Goodput counts a request when it succeeded and meets every bound that was given.
 * bench_formulas says all of it in words, for tables and result files. Thread: any.
 */
#ifndef CLI_BENCH_SUMMARY_H
#define CLI_BENCH_SUMMARY_H

#include "base/status.h"
#include "cli/bench/load.h"

struct bench_figures {
    double mean, p50, p90, p95, p99, max;
    size_t n;
};

/* In ms; 0: not asked for. */
struct bench_slo {
    double ttft, itl, itl_max, tpot, e2e;
};

#define BENCH_FAILURES_MAX 24

struct bench_summary {
    size_t completed, failed, interrupted, good, other_length, without_usage;
    struct {
        char kind[24];
        const char *example; /* points into a record */
        size_t n;
    } failures[BENCH_FAILURES_MAX];
    size_t n_failures;
    double duration_s;
    int64_t input_tokens, cached_tokens, output_tokens; /* of requests that succeeded */
    double request_throughput, output_token_throughput, total_token_throughput, goodput;
    struct bench_figures ttft, itl, tpot, e2e; /* ms */
};

extern const char *const bench_formulas[][2]; /* name, formula; ends with NULL */

/* "ttft=200,itl=50". ST_INVALID. */
enum status bench_slo_parse(const char *text, struct bench_slo *out, struct error *err);
bool bench_slo_given(const struct bench_slo *slo);
bool bench_slo_met(const struct bench_slo *slo, const struct bench_record *r);
/* Sorts `values`. */
struct bench_figures bench_figures_of(double *values, size_t n);
enum status bench_summarize(const struct bench_log *log, const struct bench_slo *slo,
                            struct bench_summary *out, struct error *err);

#endif
