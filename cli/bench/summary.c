#include "cli/bench/summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const bench_formulas[][2] = {
    {"ttft_ms", "first chunk that brings a token - start; start: sent (closed loop) or due (rate, "
                "trace); requests that succeeded"},
    {"itl_ms", "gaps between consecutive chunks that bring tokens, of all requests together"},
    {"tpot_ms", "(e2e - ttft) / (output tokens - 1), per request with at least 2 output tokens"},
    {"e2e_ms", "[DONE] - start"},
    {"output_tokens", "usage.completion_tokens, else the number of chunks that bring tokens"},
    {"duration_seconds", "end of the last request - start of the run"},
    {"request_throughput", "completed / duration_seconds"},
    {"output_token_throughput", "output tokens of completed requests / duration_seconds"},
    {"goodput", "requests that succeeded and met every bound of the SLO / duration_seconds; "
                "bounds: ttft; itl: mean of the request's own gaps; itl_max: its largest gap; "
                "tpot; e2e"},
    {"percentiles", "of n sorted values the one at (n - 1) * p / 100, linearly interpolated"},
    {NULL, NULL}};

enum status bench_slo_parse(const char *text, struct bench_slo *out, struct error *err)
{
    const struct {
        const char *name;
        double *at;
    } keys[] = {{"ttft", &out->ttft},
                {"itl", &out->itl},
                {"itl_max", &out->itl_max},
                {"tpot", &out->tpot},
                {"e2e", &out->e2e}};
    *out = (struct bench_slo){0};
    for (const char *at = text; *at;) {
        size_t len = strcspn(at, "=,"), i = 0;
        while (i < 5 && (strlen(keys[i].name) != len || memcmp(keys[i].name, at, len) != 0))
            i++;
        char *end = NULL;
        double v = i < 5 && at[len] == '=' ? strtod(at + len + 1, &end) : 0;
        if (!(v > 0 && v < 1e12) || (*end != ',' && *end != '\0'))
            return err_set(
                err, ST_INVALID,
                "--slo: expected ttft=MS,itl=MS (also itl_max, tpot, e2e), got \"%.80s\"", text);
        *keys[i].at = v;
        at = *end == ',' ? end + 1 : end;
    }
    return ST_OK;
}

bool bench_slo_given(const struct bench_slo *slo)
{
    return slo->ttft > 0 || slo->itl > 0 || slo->itl_max > 0 || slo->tpot > 0 || slo->e2e > 0;
}

static double ms(int64_t ns)
{
    return (double)ns / 1e6;
}

static double tpot_ms(const struct bench_record *r)
{
    return ms(r->end_ns - r->first_ns) / (double)(r->output_tokens - 1);
}

bool bench_slo_met(const struct bench_slo *slo, const struct bench_record *r)
{
    double sum = 0, max = 0;
    for (size_t i = 0; i < r->n_gaps; i++) {
        sum += ms(r->gaps_ns[i]);
        max = fmax(max, ms(r->gaps_ns[i]));
    }
    double mean = r->n_gaps ? sum / (double)r->n_gaps : 0;
    double tpot = r->output_tokens > 1 ? tpot_ms(r) : 0;
    return (slo->ttft <= 0 || ms(r->first_ns - r->start_ns) <= slo->ttft) &&
           (slo->itl <= 0 || mean <= slo->itl) && (slo->itl_max <= 0 || max <= slo->itl_max) &&
           (slo->tpot <= 0 || tpot <= slo->tpot) &&
           (slo->e2e <= 0 || ms(r->end_ns - r->start_ns) <= slo->e2e);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t n, double p)
{
    double at = (double)(n - 1) * p / 100;
    size_t low = (size_t)at, high = low + 1 < n ? low + 1 : low;
    return sorted[low] + (sorted[high] - sorted[low]) * (at - (double)low);
}

struct bench_figures bench_figures_of(double *values, size_t n)
{
    double sum = 0;
    if (n == 0)
        return (struct bench_figures){0};
    qsort(values, n, sizeof *values, compare);
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    return (struct bench_figures){.mean = sum / (double)n,
                                  .p50 = percentile(values, n, 50),
                                  .p90 = percentile(values, n, 90),
                                  .p95 = percentile(values, n, 95),
                                  .p99 = percentile(values, n, 99),
                                  .max = values[n - 1],
                                  .n = n};
}

static void count_failure(struct bench_summary *s, const struct bench_record *r)
{
    size_t i = 0;
    s->failed++;
    while (i < s->n_failures && strcmp(s->failures[i].kind, r->failure) != 0)
        i++;
    if (i == BENCH_FAILURES_MAX)
        i--; /* more kinds than there are: the last one stands for the rest */
    if (i == s->n_failures) {
        s->n_failures++;
        memcpy(s->failures[i].kind, r->failure, sizeof r->failure);
        s->failures[i].example = r->detail;
    }
    s->failures[i].n++;
}

static void count(struct bench_summary *s, const struct bench_log *log, const struct bench_slo *slo)
{
    for (size_t i = 0; i < log->n; i++) {
        const struct bench_record *r = log->records[i];
        if (r->failure[0]) {
            count_failure(s, r);
        } else if (r->interrupted || !r->ended) {
            s->interrupted++;
        } else {
            s->completed++;
            s->good += bench_slo_met(slo, r);
            s->other_length += r->output_tokens != r->asked_tokens;
            s->without_usage += !r->has_usage;
            s->input_tokens += r->input_tokens;
            s->cached_tokens += r->cached_tokens;
            s->output_tokens += r->output_tokens;
        }
    }
}

/* Which latency a pass over the records collects. */
enum latency { TTFT, ITL, TPOT, E2E };

static size_t collect(const struct bench_log *log, enum latency what, double *out)
{
    size_t n = 0;
    for (size_t i = 0; i < log->n; i++) {
        const struct bench_record *r = log->records[i];
        if (r->failure[0] || r->interrupted || !r->ended)
            continue;
        if (what == TTFT)
            out[n++] = ms(r->first_ns - r->start_ns);
        else if (what == E2E)
            out[n++] = ms(r->end_ns - r->start_ns);
        else if (what == TPOT && r->output_tokens > 1)
            out[n++] = tpot_ms(r);
        for (size_t k = 0; what == ITL && k < r->n_gaps; k++)
            out[n++] = ms(r->gaps_ns[k]);
    }
    return n;
}

enum status bench_summarize(const struct bench_log *log, const struct bench_slo *slo,
                            struct bench_summary *out, struct error *err)
{
    size_t most = log->n + 1, gaps = 0;
    for (size_t i = 0; i < log->n; i++)
        gaps += log->records[i]->n_gaps;
    double *values = malloc((gaps > most ? gaps : most) * sizeof *values);
    if (!values)
        return err_set(err, ST_NO_MEMORY, "no memory for the figures");
    *out = (struct bench_summary){.duration_s = (double)(log->end_ns - log->begin_ns) / 1e9};
    count(out, log, slo);
    if (out->duration_s > 0) {
        out->request_throughput = (double)out->completed / out->duration_s;
        out->output_token_throughput = (double)out->output_tokens / out->duration_s;
        out->total_token_throughput =
            (double)(out->input_tokens + out->output_tokens) / out->duration_s;
        out->goodput = (double)out->good / out->duration_s;
    }
    out->ttft = bench_figures_of(values, collect(log, TTFT, values));
    out->itl = bench_figures_of(values, collect(log, ITL, values));
    out->tpot = bench_figures_of(values, collect(log, TPOT, values));
    out->e2e = bench_figures_of(values, collect(log, E2E, values));
    free(values);
    return ST_OK;
}
