/* `baton bench serve`: load against any OpenAI-compatible server. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/flags.h"
#include "cli/bench/bench.h"
#include "cli/bench/report.h"
#include "cli/facts.h"

#define QUICK_SECONDS 10
#define QUICK_TIMEOUT_SECONDS 15

struct options {
    const char *url, *key, *model, *trace, *prompts, *slo, *json;
    int64_t concurrency, input_tokens, output_tokens, requests, seed, timeout_s;
    double rate, burstiness, speed, duration_s, temperature;
    bool chat, ignore_eos, quick, allow_failures, details, progress, probe;
};

static int usage(const char *text)
{
    fprintf(stderr, "baton bench serve: %s (see baton bench serve --help)\n", text);
    return 2;
}

/* What does not follow from one option alone; sets the defaults that depend on others. */
static int check(struct options *o)
{
    if ((o->concurrency > 0) + (o->rate > 0) > 1)
        return usage("--concurrency and --rate exclude each other");
    if (o->prompts && (o->input_tokens > 0 || o->trace))
        return usage("--prompts excludes --input-tokens and --trace");
    if (o->details && !o->json)
        return usage("--details needs --json FILE");
    if (o->concurrency == 0 && o->rate <= 0 && !o->trace)
        o->concurrency = 1;
    if (o->quick) {
        if (o->duration_s <= 0 || o->duration_s > QUICK_SECONDS)
            o->duration_s = QUICK_SECONDS;
        if (o->timeout_s > QUICK_TIMEOUT_SECONDS)
            o->timeout_s = QUICK_TIMEOUT_SECONDS;
    }
    if (o->requests == 0 && o->duration_s <= 0 && !o->trace)
        o->requests = 100;
    if (o->output_tokens == 0 && !o->trace)
        o->output_tokens = 64;
    return 0;
}

static enum status make_source(const struct options *o, struct bench_source *s, struct error *err)
{
    *s = (struct bench_source){.closed = o->concurrency > 0,
                               .rate = o->rate,
                               .burstiness = o->burstiness,
                               .speed = o->speed,
                               .input_tokens = (int32_t)o->input_tokens,
                               .output_tokens = (int32_t)o->output_tokens,
                               .requests = (size_t)o->requests,
                               .rng = rng_seed(rng_hash((uint64_t)o->seed, 0, 0, 5))};
    if (!o->trace)
        return ST_OK;
    enum status st = bench_trace_read(o->trace, &s->trace, err);
    if (st != ST_OK)
        return st;
    if (!s->trace.timed && o->rate <= 0 && !s->closed)
        return err_set(err, ST_INVALID, "%s: has no times; add --rate or --concurrency", o->trace);
    if (s->requests == 0 && o->duration_s <= 0)
        s->requests = s->trace.n;
    return ST_OK;
}

static void describe(const struct options *o, const struct bench_source *s,
                     const struct bench_prompts *p, char load[256], char prompts[256])
{
    if (o->concurrency > 0)
        snprintf(load, 256, "closed loop, %lld at a time", (long long)o->concurrency);
    else if (o->rate > 0)
        snprintf(load, 256, "open loop, %g requests/s, %s", o->rate,
                 o->burstiness == 1 ? "Poisson" : "gamma");
    else
        snprintf(load, 256, "open loop, times of a trace at speed %g", o->speed);
    if (o->concurrency == 0 && o->rate > 0 && o->burstiness != 1)
        snprintf(load + strlen(load), 256 - strlen(load), " of burstiness %g", o->burstiness);
    const char *sampling = o->temperature > 0 ? "sampled" : "greedy";
    if (s->trace.n > 0)
        snprintf(prompts, 256, "lengths of a trace (%zu requests), %s", s->trace.n, sampling);
    else if (p->n_lines > 0)
        snprintf(prompts, 256, "%zu lines of a file in turn, %lld tokens out, %s", p->n_lines,
                 (long long)o->output_tokens, sampling);
    else if (o->input_tokens > 0)
        snprintf(prompts, 256, "%lld random %s, %lld tokens out, %s", (long long)o->input_tokens,
                 p->n_ids > 0 ? "token ids" : "words", (long long)o->output_tokens, sampling);
    else
        snprintf(prompts, 256, "built-in texts, %lld tokens out, %s", (long long)o->output_tokens,
                 sampling);
}

static enum status report(const struct options *o, struct bench_report *r, struct error *err)
{
    struct bench_summary summary;
    struct buf text = {0};
    enum status st = bench_summarize(r->log, r->slo, &summary, err);
    if (st != ST_OK)
        return st;
    r->summary = &summary;
    bench_report_table(r);
    if (o->json) {
        bench_report_json(r, &text);
        st = facts_write_file(o->json, &text, err);
        buf_fini(&text);
    }
    if (st == ST_OK && summary.failed > 0 && !o->allow_failures)
        st = err_set(err, ST_LINK, "%zu of %zu requests failed", summary.failed, r->log->n);
    if (st == ST_OK && summary.completed == 0 && !o->allow_failures)
        st = err_set(err, ST_CANCELLED, "no request was completed");
    return st;
}

static enum status prepare(const struct options *o, struct oai_server *server,
                           struct bench_source *source, struct bench_prompts *prompts,
                           struct error *err)
{
    enum status st = oai_server_init(server, o->url, o->key, err);
    if (st == ST_OK)
        st = make_source(o, source, err);
    if (st == ST_OK)
        st = bench_prompts_init(prompts, o->prompts, err);
    if (st == ST_OK)
        st = oai_server_find_model(server, o->model, err);
    if (st == ST_OK && !o->chat && (o->input_tokens > 0 || o->trace))
        bench_prompts_find_ids(prompts, server);
    return st;
}

static enum status serve(const struct options *o, int argc, char **argv, struct error *err)
{
    struct oai_server server;
    struct bench_source source = {0};
    struct bench_prompts prompts = {.seed = (uint64_t)o->seed, .chat = o->chat};
    struct bench_slo slo = {0};
    struct bench_log log = {0};
    struct kernels_probe probe[2]; /* before, after */
    char load_text[256], prompt_text[256];
    bool probed[2] = {false};
    enum status st = o->slo ? bench_slo_parse(o->slo, &slo, err) : ST_OK;
    if (st == ST_OK)
        st = prepare(o, &server, &source, &prompts, err);
    if (st == ST_OK && o->json && o->probe)
        probed[0] = facts_probe(0, &probe[0], NULL) == ST_OK;
    if (st == ST_OK) {
        describe(o, &source, &prompts, load_text, prompt_text);
        struct bench_load load = {.server = &server,
                                  .source = &source,
                                  .prompts = &prompts,
                                  .concurrency = (size_t)o->concurrency,
                                  .duration_ns = (int64_t)(o->duration_s * 1e9),
                                  .timeout_ns = o->timeout_s * NS_PER_S,
                                  .temperature = o->temperature,
                                  .seed = o->temperature > 0 ? o->seed : -1,
                                  .ignore_eos = o->ignore_eos,
                                  .keep_text = o->details,
                                  .progress = o->progress};
        st = bench_load_run(&load, &log, err);
        if (st == ST_OK && o->json && o->probe)
            probed[1] = facts_probe(0, &probe[1], NULL) == ST_OK;
        struct bench_report r = {.server = &server,
                                 .load = &load,
                                 .log = &log,
                                 .slo = &slo,
                                 .before = probed[0] ? &probe[0] : NULL,
                                 .after = probed[1] ? &probe[1] : NULL,
                                 .load_text = load_text,
                                 .prompt_text = prompt_text,
                                 .details = o->details,
                                 .argc = argc,
                                 .argv = argv};
        if (st == ST_OK)
            st = report(o, &r, err);
    }
    bench_log_fini(&log);
    bench_prompts_fini(&prompts);
    bench_source_fini(&source);
    return st;
}

#define TEXT(flag_name, where, shown, text)                                                        \
    {                                                                                              \
        .name = flag_name, .kind = FLAG_STR, .target = where, .value = shown, .help = text         \
    }
#define NUMBER(flag_name, flag_kind, where, shown, low, high, text)                                \
    {                                                                                              \
        .name = flag_name, .kind = flag_kind, .target = where, .value = shown, .help = text,       \
        .min = low, .max = high                                                                    \
    }
#define SWITCH(flag_name, where, text)                                                             \
    {                                                                                              \
        .name = flag_name, .kind = FLAG_BOOL, .target = where, .help = text                        \
    }

int bench_serve(int argc, char **argv)
{
    struct options o = {.url = "http://127.0.0.1:8000",
                        .burstiness = 1,
                        .speed = 1,
                        .timeout_s = 600,
                        .ignore_eos = true,
                        .probe = true};
    struct flag table[] = {
        TEXT("url", &o.url, "URL", "the server (http://127.0.0.1:8000)"),
        TEXT("model", &o.model, "NAME", "its model (the first that it has)"),
        SWITCH("chat", &o.chat, "/v1/chat/completions instead of /v1/completions"),
        NUMBER("concurrency", FLAG_INT, &o.concurrency, "C", 1, 100000,
               "closed loop: C requests at a time (1)"),
        NUMBER("rate", FLAG_REAL, &o.rate, "R", 1e-6, 1e6, "open loop: R requests/s on average"),
        NUMBER("burstiness", FLAG_REAL, &o.burstiness, "B", 1e-3, 1e6,
               "gamma arrivals; 1: Poisson, more: steadier (1)"),
        TEXT("trace", &o.trace, "FILE",
             "times and lengths of a trace (JSON lines or CSV); with --rate or --concurrency, "
             "lengths only"),
        NUMBER("speed", FLAG_REAL, &o.speed, "X", 1e-6, 1e6, "of the trace's clock (1)"),
        NUMBER("input-tokens", FLAG_INT, &o.input_tokens, "N", 1, 16777216,
               "prompts of N random ids (with --chat: words); with --trace: at most N"),
        NUMBER("output-tokens", FLAG_INT, &o.output_tokens, "N", 1, 16777216,
               "tokens to generate (64); with --trace: at most N"),
        TEXT("prompts", &o.prompts, "FILE", "one prompt per line, taken in turn"),
        NUMBER("requests", FLAG_INT, &o.requests, "N", 1, 100000000, "how many (100)"),
        NUMBER("duration", FLAG_REAL, &o.duration_s, "S", 1e-3, 1e7,
               "send for S seconds, then wait for what runs"),
        TEXT("slo", &o.slo, "ttft=MS,itl=MS", "bounds for goodput; also itl_max, tpot, e2e"),
        NUMBER("temperature", FLAG_REAL, &o.temperature, "T", 0, 2, "0: greedy (0)"),
        NUMBER("seed", FLAG_INT, &o.seed, "N", 0, 9e15, "of prompts, arrivals and draws (0)"),
        SWITCH("ignore-eos", &o.ignore_eos, "generate all tokens asked for (true)"),
        NUMBER("timeout", FLAG_INT, &o.timeout_s, "S", 1, 1000000, "of a request (600)"),
        TEXT("json", &o.json, "FILE", "write the result as JSON; -: to stdout"),
        SWITCH("details", &o.details, "with --json: a row per request, with its text"),
        SWITCH("probe", &o.probe,
               "with --json: measure this machine's limits before and after (true)"),
        SWITCH("allow-failures", &o.allow_failures, "exit 0 although requests failed"),
        SWITCH("quick", &o.quick, "at most 10 s of sending, under 30 s in all"),
        SWITCH("progress", &o.progress, "show on stderr how far it is"),
        TEXT("api-key", &o.key, "KEY", "sent as a bearer token"),
    };
    struct flags f = {.program = "baton bench serve",
                      .usage = "[options]",
                      .about = "Puts load on any OpenAI-compatible server and prints latencies, "
                               "throughput and goodput.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc == 0)
        rc = check(&o) ? 2 : 0;
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    struct error err = {0};
    if (serve(&o, argc, argv, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton bench serve: %s\n", err.text);
    return 1;
}
