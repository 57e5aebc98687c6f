/* What a load consists of: which request comes next, when, and how long it is.
 *
 * A source gives requests one by one, the same for the same seed. Arrivals are closed-loop (the
 * caller decides when), or gamma-distributed around a rate (burstiness 1: Poisson), or those of a
 * trace. Lengths are fixed, or those of a trace: JSON lines {timestamp in ms, input_length,
 * output_length, hash_ids}, or CSV with a header line (Azure's, BurstGPT's, or plain length pairs).
 * Files are hostile input. Owner: bench_source_fini() frees. Thread: one.
 */
#ifndef CLI_BENCH_SOURCE_H
#define CLI_BENCH_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

#define BENCH_TRACE_BYTES_MAX ((size_t)1 << 30)
#define BENCH_TRACE_BLOCK_TOKENS 512 /* of a hash id */

struct bench_item {
    int64_t at_ns;          /* from the start of the run */
    int32_t input_tokens;   /* 0: the prompt's own */
    int32_t output_tokens;  /* max_tokens */
    const uint64_t *hashes; /* what its blocks of BENCH_TRACE_BLOCK_TOKENS hold */
    size_t n_hashes;
};

struct bench_trace {
    struct bench_item *items;
    uint64_t *hashes;
    size_t n, n_hashes, hashes_cap, cap;
    bool timed;
};

struct bench_source {
    struct bench_trace trace;            /* n == 0: none */
    bool closed;                         /* at_ns is always 0 */
    double rate, burstiness;             /* per second; rate 0: the trace's times */
    double speed;                        /* the trace's times are divided by it */
    int32_t input_tokens, output_tokens; /* without a trace; else bounds of its lengths, 0: none */
    size_t requests;                     /* 0: no end, or the end of a timed trace */
    struct rng rng;
    size_t next;
    double at_s;
};

enum status bench_trace_read(const char *path, struct bench_trace *out, struct error *err);
enum status bench_trace_parse(const char *name, const char *text, size_t len,
                              struct bench_trace *out, struct error *err);
void bench_trace_fini(struct bench_trace *t);

/* The next request; false: there is none. */
bool bench_source_next(struct bench_source *s, struct bench_item *out);
void bench_source_fini(struct bench_source *s);
/* A gamma variate (Marsaglia and Tsang, ACM TOMS 26, 2000); shape > 0. */
double bench_gamma(struct rng *r, double shape, double scale);

#endif
