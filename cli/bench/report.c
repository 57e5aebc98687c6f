#include "cli/bench/report.h"

#include <stdio.h>

#include "cli/facts.h"

static void row(const char *name, const struct bench_figures *f)
{
    if (f->n == 0)
        printf("  %-8s %10s\n", name, "none");
    else
        printf("  %-8s %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f\n", name, f->mean, f->p50, f->p90,
               f->p95, f->p99, f->max);
}

static void slo_text(const struct bench_slo *slo, char *out, size_t cap)
{
    const struct {
        const char *name;
        double v;
    } bounds[] = {{"TTFT", slo->ttft},
                  {"ITL", slo->itl},
                  {"largest gap", slo->itl_max},
                  {"TPOT", slo->tpot},
                  {"E2E", slo->e2e}};
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < 5; i++)
        if (bounds[i].v > 0 && at < cap)
            at += (size_t)snprintf(out + at, cap - at, "%s%s <= %g ms", at ? ", " : "",
                                   bounds[i].name, bounds[i].v);
}

static void print_failures(const struct bench_summary *s)
{
    for (size_t i = 0; i < s->n_failures; i++)
        printf("  failed      %zu x %s: %.120s\n", s->failures[i].n, s->failures[i].kind,
               s->failures[i].example);
    if (s->interrupted > 0)
        printf("  interrupted %zu (not counted)\n", s->interrupted);
    if (s->other_length > 0)
        printf("  note        %zu answers have not the asked number of tokens\n", s->other_length);
    if (s->without_usage > 0)
        printf("  note        %zu answers without usage: their chunks were counted\n",
               s->without_usage);
}

void bench_report_table(const struct bench_report *r)
{
    const struct bench_summary *s = r->summary;
    char bounds[200];
    printf("%s  model %s\n", r->server->url, r->server->model);
    printf("  load        %s\n", r->load_text);
    printf("  prompts     %s\n", r->prompt_text);
    printf("  requests    %zu completed, %zu failed in %.2f s, at most %zu at a time\n",
           s->completed, s->failed, s->duration_s, r->log->running_max);
    printf("  tokens      %lld in (%lld cached), %lld out\n", (long long)s->input_tokens,
           (long long)s->cached_tokens, (long long)s->output_tokens);
    print_failures(s);
    printf("\n  %-8s %10s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p95", "p99",
           "max");
    row("TTFT", &s->ttft);
    row("ITL", &s->itl);
    row("TPOT", &s->tpot);
    row("E2E", &s->e2e);
    printf("\n  throughput  %.2f requests/s, %.1f output tokens/s, %.1f tokens/s in all\n",
           s->request_throughput, s->output_token_throughput, s->total_token_throughput);
    if (bench_slo_given(r->slo)) {
        slo_text(r->slo, bounds, sizeof bounds);
        printf("  goodput     %.2f requests/s (%zu requests) with %s\n", s->goodput, s->good,
               bounds);
    }
    facts_print_formulas(bench_formulas);
}

/* ---- JSON ---- */

static void put_real(struct jw *w, const char *key, double v)
{
    jw_key(w, key);
    jw_real(w, v);
}

static void put_int(struct jw *w, const char *key, int64_t v)
{
    jw_key(w, key);
    jw_int(w, v);
}

static void put_str(struct jw *w, const char *key, const char *v)
{
    jw_key(w, key);
    jw_str(w, v);
}

void bench_put_figures(struct jw *w, const char *key, const struct bench_figures *f)
{
    jw_key(w, key);
    jw_obj(w);
    put_real(w, "mean", f->mean);
    put_real(w, "p50", f->p50);
    put_real(w, "p90", f->p90);
    put_real(w, "p95", f->p95);
    put_real(w, "p99", f->p99);
    put_real(w, "max", f->max);
    put_int(w, "count", (int64_t)f->n);
    jw_end_obj(w);
}

static void put_slo(struct jw *w, const struct bench_slo *slo)
{
    jw_key(w, "slo_ms");
    jw_obj(w);
    if (slo->ttft > 0)
        put_real(w, "ttft", slo->ttft);
    if (slo->itl > 0)
        put_real(w, "itl", slo->itl);
    if (slo->itl_max > 0)
        put_real(w, "itl_max", slo->itl_max);
    if (slo->tpot > 0)
        put_real(w, "tpot", slo->tpot);
    if (slo->e2e > 0)
        put_real(w, "e2e", slo->e2e);
    jw_end_obj(w);
}

static void put_failures(struct jw *w, const struct bench_summary *s)
{
    jw_key(w, "failures");
    jw_obj(w);
    for (size_t i = 0; i < s->n_failures; i++) {
        jw_key(w, s->failures[i].kind);
        jw_obj(w);
        put_int(w, "count", (int64_t)s->failures[i].n);
        put_str(w, "example", s->failures[i].example);
        jw_end_obj(w);
    }
    jw_end_obj(w);
}

static void put_record(struct jw *w, const struct bench_report *r, const struct bench_record *x)
{
    jw_obj(w);
    put_int(w, "index", (int64_t)x->index);
    put_real(w, "start_seconds", (double)(x->start_ns - r->log->begin_ns) / 1e9);
    put_str(w, "failure", x->interrupted ? "interrupted" : x->failure);
    put_int(w, "input_tokens", x->input_tokens);
    put_int(w, "output_tokens", x->output_tokens);
    if (x->chunks > 0)
        put_real(w, "ttft_ms", (double)(x->first_ns - x->start_ns) / 1e6);
    put_real(w, "e2e_ms", (double)(x->end_ns - x->start_ns) / 1e6);
    jw_key(w, "gaps_ms");
    jw_arr(w);
    for (size_t i = 0; i < x->n_gaps; i++)
        jw_real(w, (double)x->gaps_ns[i] / 1e6);
    jw_end_arr(w);
    jw_key(w, "text");
    jw_strn(w, x->text.data ? x->text.data : "", x->text.len);
    jw_end_obj(w);
}

static void put_totals(struct jw *w, const struct bench_report *r)
{
    const struct bench_summary *s = r->summary;
    put_int(w, "completed", (int64_t)s->completed);
    put_int(w, "failed", (int64_t)s->failed);
    put_int(w, "interrupted", (int64_t)s->interrupted);
    put_real(w, "duration_seconds", s->duration_s);
    put_int(w, "input_tokens", s->input_tokens);
    put_int(w, "cached_tokens", s->cached_tokens);
    put_int(w, "output_tokens", s->output_tokens);
    put_int(w, "other_length", (int64_t)s->other_length);
    put_int(w, "without_usage", (int64_t)s->without_usage);
    put_int(w, "concurrency_max", (int64_t)r->log->running_max);
    put_real(w, "send_lag_max_ms", (double)r->log->lag_max_ns / 1e6);
    put_real(w, "request_throughput", s->request_throughput);
    put_real(w, "output_token_throughput", s->output_token_throughput);
    put_real(w, "total_token_throughput", s->total_token_throughput);
    if (bench_slo_given(r->slo))
        put_real(w, "goodput", s->goodput);
    else {
        jw_key(w, "goodput");
        jw_null(w);
    }
    put_slo(w, r->slo);
}

void bench_report_json(const struct bench_report *r, struct buf *out)
{
    const struct bench_summary *s = r->summary;
    struct jw w = jw_begin(out);
    jw_obj(&w);
    facts_put_run(&w, "baton bench serve", r->argc, r->argv);
    put_str(&w, "url", r->server->url);
    put_str(&w, "model", r->server->model);
    put_str(&w, "load", r->load_text);
    put_str(&w, "prompts", r->prompt_text);
    facts_put_probes(&w, r->before, r->after, 0);
    put_totals(&w, r);
    bench_put_figures(&w, "ttft_ms", &s->ttft);
    bench_put_figures(&w, "itl_ms", &s->itl);
    bench_put_figures(&w, "tpot_ms", &s->tpot);
    bench_put_figures(&w, "e2e_ms", &s->e2e);
    put_failures(&w, s);
    facts_put_formulas(&w, bench_formulas);
    if (r->details) {
        jw_key(&w, "requests");
        jw_arr(&w);
        for (size_t i = 0; i < r->log->n; i++)
            put_record(&w, r, r->log->records[i]);
        jw_end_arr(&w);
    }
    jw_end_obj(&w);
}
