/* Sends the requests of a source to a server and notes when each part of each answer came.
 *
 * One thread, one HTTP client, any number of requests at a time. In an open loop (rate, trace) a
 * request's clock starts when it was due, not when it could be sent, so a slow server or a slow
 * generator cannot hide waiting. Owner: bench_log_fini() frees the records.
 */
#ifndef CLI_BENCH_LOAD_H
#define CLI_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/bench/prompts.h"
#include "cli/bench/source.h"
#include "cli/oai.h"

struct bench_record {
    size_t index;
    int64_t start_ns;                  /* due (open loop) or sent (closed loop) */
    int64_t first_ns, last_ns, end_ns; /* first and last token; end of the stream */
    int64_t *gaps_ns;                  /* between chunks that bring tokens */
    size_t n_gaps, gaps_cap;
    int64_t chunks, input_tokens, cached_tokens, output_tokens, asked_tokens;
    bool ended, has_usage, interrupted;
    char failure[24]; /* kind; "": succeeded */
    char detail[200];
    struct buf text; /* where texts are kept */
};

struct bench_log {
    struct bench_record **records; /* in order of index */
    size_t n, cap;
    int64_t begin_ns, end_ns; /* first start to last end */
    int64_t lag_max_ns;       /* of a request's sending behind its time */
    size_t running_max;
};

struct bench_load {
    const struct oai_server *server;
    struct bench_source *source;
    const struct bench_prompts *prompts;
    size_t concurrency;  /* closed loop; 0: open */
    int64_t duration_ns; /* nothing is sent after; 0: no end */
    int64_t timeout_ns;  /* of a request */
    double temperature;
    int64_t seed; /* sent with each request, plus its index; negative: not sent */
    bool ignore_eos, keep_text, progress;
};

/* ST_OK even when requests failed: the records say so. An interrupt (SIGINT) ends the run early, as
 * does a server that is not there any more. */
enum status bench_load_run(const struct bench_load *load, struct bench_log *log, struct error *err);
void bench_log_fini(struct bench_log *log);

#endif
