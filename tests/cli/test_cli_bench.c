/* The load generator's parts, against figures worked out by hand. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/bench/source.h"
#include "cli/bench/summary.h"

#define MS NS_PER_MS

static void near(double got, double want, const char *what)
{
    cr_assert(fabs(got - want) < 1e-9 * (1 + fabs(want)), "%s: %.12g, expected %.12g", what, got,
              want);
}

Test(bench, percentiles_interpolate)
{
    double ten[] = {10, 3, 1, 2, 4, 9, 5, 8, 7, 6}, one[] = {42}, two[] = {8, 4};
    struct bench_figures f = bench_figures_of(ten, 10);
    near(f.mean, 5.5, "mean");
    near(f.p50, 5.5, "p50");
    near(f.p90, 9.1, "p90");
    near(f.p95, 9.55, "p95");
    near(f.p99, 9.91, "p99");
    near(f.max, 10, "max");
    f = bench_figures_of(one, 1);
    near(f.p50, 42, "one p50");
    near(f.p99, 42, "one p99");
    f = bench_figures_of(two, 2);
    near(f.p90, 7.6, "two p90");
    cr_assert_eq(bench_figures_of(NULL, 0).n, 0);
}

/* Starts at 1 s, first token after `ttft`, then `n_gaps` gaps of `gap`, then [DONE] 1 ms later. */
static struct bench_record record(int64_t ttft, int64_t *gaps, size_t n_gaps)
{
    struct bench_record r = {.start_ns = NS_PER_S, .first_ns = NS_PER_S + ttft, .ended = true};
    r.last_ns = r.first_ns;
    for (size_t i = 0; i < n_gaps; i++)
        r.last_ns += gaps[i];
    r.end_ns = r.last_ns + MS;
    r.gaps_ns = gaps;
    r.n_gaps = n_gaps;
    r.chunks = r.output_tokens = r.asked_tokens = (int64_t)n_gaps + 1;
    r.input_tokens = 10;
    r.has_usage = true;
    return r;
}

Test(bench, summary_of_a_canned_log)
{
    int64_t even[] = {10 * MS, 10 * MS, 10 * MS, 10 * MS};
    int64_t uneven[] = {5 * MS, 5 * MS, 5 * MS, 65 * MS}; /* mean 20, worst 65 */
    struct bench_record a = record(50 * MS, even, 4), b = record(150 * MS, even, 4);
    struct bench_record c = record(50 * MS, uneven, 4), d = record(50 * MS, even, 4);
    struct bench_record e = record(10 * MS, even, 4), f = {.start_ns = NS_PER_S, .end_ns = 2};
    snprintf(d.failure, sizeof d.failure, "http_500");
    snprintf(e.failure, sizeof e.failure, "http_500");
    f.interrupted = f.ended = true;
    struct bench_record *all[] = {&a, &b, &c, &d, &e, &f};
    struct bench_log log = {.records = all, .n = 6, .begin_ns = NS_PER_S, .end_ns = 3 * NS_PER_S};
    struct bench_slo slo;
    struct bench_summary s;
    struct error err = {0};

    cr_assert_eq(bench_slo_parse("ttft=100,itl=15", &slo, &err), ST_OK, "%s", err.text);
    cr_assert_eq(bench_summarize(&log, &slo, &s, &err), ST_OK);
    cr_assert_eq(s.completed, 3);
    cr_assert_eq(s.failed, 2);
    cr_assert_eq(s.interrupted, 1);
    cr_assert_eq(s.n_failures, 1);
    cr_assert_str_eq(s.failures[0].kind, "http_500");
    cr_assert_eq(s.failures[0].n, 2);
    cr_assert_eq(s.good, 1, "%zu", s.good);
    near(s.goodput, 0.5, "goodput");
    near(s.request_throughput, 1.5, "requests/s");
    near(s.output_token_throughput, 7.5, "tokens/s");
    near(s.total_token_throughput, 22.5, "all tokens/s");
    near(s.ttft.mean, 250.0 / 3, "ttft");
    near(s.ttft.p50, 50, "ttft p50");
    near(s.ttft.max, 150, "ttft max");
    cr_assert_eq(s.itl.n, 12);
    near(s.itl.mean, 160.0 / 12, "itl");
    near(s.itl.max, 65, "itl max");
    near(s.tpot.max, 81.0 / 4, "tpot max"); /* (e2e - ttft) / 4, e2e up to [DONE] */
    near(s.e2e.max, 191, "e2e max");

    const struct {
        const char *slo;
        size_t good;
    } cases[] = {{"ttft=100", 2},   {"itl=20", 3},     {"itl=19.99", 2}, {"itl_max=65,ttft=50", 2},
                 {"itl_max=64", 2}, {"tpot=10.25", 2}, {"e2e=91", 1},    {"e2e=131", 2},
                 {"ttft=49", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert_eq(bench_slo_parse(cases[i].slo, &slo, &err), ST_OK, "%s", cases[i].slo);
        cr_assert_eq(bench_summarize(&log, &slo, &s, &err), ST_OK);
        cr_assert_eq(s.good, cases[i].good, "%s: %zu", cases[i].slo, s.good);
    }
}

Test(bench, slo_texts)
{
    const char *bad[] = {"ttft",  "ttft=",    "ttft=0", "ttft=-1",       "ttft=x",  "ttft=1;itl=2",
                         "foo=1", "ttft=nan", "=5",     "ttft=1,,itl=2", "ttft=inf"};
    struct bench_slo slo;
    struct error err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(bench_slo_parse(bad[i], &slo, &err), ST_INVALID, "%s", bad[i]);
    cr_assert_eq(bench_slo_parse("", &slo, &err), ST_OK);
    cr_assert_not(bench_slo_given(&slo));
    cr_assert_eq(bench_slo_parse("ttft=1.5,itl=2,itl_max=3,tpot=4,e2e=5", &slo, &err), ST_OK);
    near(slo.ttft + slo.itl + slo.itl_max + slo.tpot + slo.e2e, 15.5, "bounds");
}

Test(bench, arrivals_have_their_rate_and_burstiness)
{
    const double burstiness[] = {0.25, 1, 4};
    for (int k = 0; k < 3; k++) {
        struct bench_source s = {.rate = 20,
                                 .burstiness = burstiness[k],
                                 .output_tokens = 4,
                                 .requests = 40000,
                                 .rng = rng_seed(7)};
        struct bench_item item;
        double last = 0, sum = 0, squares = 0;
        size_t n = 0;
        while (bench_source_next(&s, &item)) {
            double gap = (double)item.at_ns / 1e9 - last;
            last = (double)item.at_ns / 1e9;
            cr_assert_geq(gap, -1e-9);
            sum += gap;
            squares += gap * gap;
            n++;
        }
        double mean = sum / (double)n, variance = squares / (double)n - mean * mean;
        cr_assert_eq(n, 40000);
        cr_assert_float_eq(mean, 0.05, 0.002, "burstiness %g: mean %g", burstiness[k], mean);
        /* A gamma's variance is mean^2 / shape. */
        cr_assert_float_eq(variance / (mean * mean) * burstiness[k], 1, 0.1, "burstiness %g: %g",
                           burstiness[k], variance);
    }
}

Test(bench, closed_loop_counts)
{
    struct bench_source s = {
        .closed = true, .burstiness = 1, .input_tokens = 5, .output_tokens = 6, .requests = 3};
    struct bench_item item;
    for (int i = 0; i < 3; i++) {
        cr_assert(bench_source_next(&s, &item));
        cr_assert_eq(item.at_ns, 0);
        cr_assert_eq(item.input_tokens, 5);
        cr_assert_eq(item.output_tokens, 6);
    }
    cr_assert_not(bench_source_next(&s, &item));
}

static enum status parse(const char *text, struct bench_trace *t, struct error *err)
{
    return bench_trace_parse("trace", text, strlen(text), t, err);
}

Test(bench, json_lines)
{
    struct bench_source s = {.speed = 2, .burstiness = 1, .input_tokens = 600};
    struct bench_item item;
    struct error err = {0};
    cr_assert_eq(
        parse("{\"timestamp\":3000,\"input_length\":1000,\"output_length\":6,\"hash_ids\":[7,8]}\n"
              "\n{\"timestamp\":1000,\"input_length\":5,\"output_length\":2,\"hash_ids\":[9]}\n",
              &s.trace, &err),
        ST_OK, "%s", err.text);
    cr_assert(s.trace.timed);
    cr_assert(bench_source_next(&s, &item));
    cr_assert_eq(item.at_ns, 0);
    cr_assert_eq(item.input_tokens, 5);
    cr_assert_eq(item.n_hashes, 1);
    cr_assert_eq(item.hashes[0], 9);
    cr_assert(bench_source_next(&s, &item));
    cr_assert_eq(item.at_ns, NS_PER_S); /* 2 s at speed 2 */
    cr_assert_eq(item.input_tokens, 600);
    cr_assert_eq(item.n_hashes, 2);
    cr_assert_eq(item.hashes[1], 8);
    cr_assert_not(bench_source_next(&s, &item));
    bench_source_fini(&s);
}

Test(bench, csv)
{
    struct bench_trace t;
    struct error err = {0};
    cr_assert_eq(parse("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                       "2023-11-16 23:59:59.5000000,374,44\r\n2023-11-17 00:00:01.2500000,396,109",
                       &t, &err),
                 ST_OK, "%s", err.text);
    cr_assert_eq(t.n, 2);
    cr_assert_eq(t.items[0].at_ns, 0);
    cr_assert_leq(llabs(t.items[1].at_ns - 1750 * MS), 1000);
    cr_assert_eq(t.items[1].output_tokens, 109);
    bench_trace_fini(&t);
    cr_assert_eq(parse("num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n"
                       "74,918,992,0.08\n",
                       &t, &err),
                 ST_OK, "%s", err.text);
    cr_assert_not(t.timed);
    cr_assert_eq(t.items[0].input_tokens, 74);
    bench_trace_fini(&t);
    cr_assert_eq(parse("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                       "5,ChatGPT,472,18,490,x\n45,ChatGPT,1087,0,1087,x\n",
                       &t, &err),
                 ST_OK, "%s", err.text);
    cr_assert_eq(t.n, 1);
    bench_trace_fini(&t);
}

Test(bench, traces_are_checked)
{
    const char *bad[] = {
        "",
        "\n\n",
        "a,b,c\n1,2,3\n",
        "\n%",
        "\nContextTokens,GeneratedTokens\n1,x\n",
        "ContextTokens,GeneratedTokens\n",
        "ContextTokens,GeneratedTokens\n1\n",
        "ContextTokens,GeneratedTokens\n1,x\n",
        "ContextTokens,GeneratedTokens\n0,5\n",
        "ContextTokens,GeneratedTokens\n1,99999999999999999999\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n-5,1,2\n",
        "{\"timestamp\":0}",
        "{\"timestamp\":-1,\"input_length\":1,\"output_length\":1}",
        "{\"timestamp\":1e300,\"input_length\":1,\"output_length\":1}",
        "{\"timestamp\":0,\"input_length\":1,\"output_length\":0}",
        "{\"timestamp\":0,\"input_length\":1,\"output_length\":1",
        "{\"timestamp\":0,\"input_length\":1,\"output_length\":1}\nrubbish\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bench_trace t;
        struct error err = {0};
        cr_assert_eq(parse(bad[i], &t, &err), ST_INVALID, "%s", bad[i]);
        cr_assert(strncmp(err.text, "trace", 5) == 0, "%s", err.text);
        cr_assert_null(t.items);
    }
}

Test(bench, published_traces)
{
    const struct {
        const char *name;
        size_t n;
        bool timed;
    } files[] = {{"mooncake_synthetic_trace.jsonl", 3993, true},
                 {"AzureLLMInferenceTrace_conv.csv", 19366, true},
                 {"sharegpt_8k_lengths.csv", 30731, false}};
    for (int i = 0; i < 3; i++) {
        char path[512];
        struct bench_trace t;
        struct error err = {0};
        snprintf(path, sizeof path, BATON_SOURCE_DIR "/../shared/data/traces/%s", files[i].name);
        if (access(path, R_OK) != 0)
            cr_skip_test("%s is not here", files[i].name);
        cr_assert_eq(bench_trace_read(path, &t, &err), ST_OK, "%s", err.text);
        cr_assert_eq(t.n, files[i].n, "%s: %zu", files[i].name, t.n);
        cr_assert_eq(t.timed, files[i].timed);
        bench_trace_fini(&t);
    }
}
