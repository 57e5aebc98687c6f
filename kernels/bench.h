/* Times every op of every body that this CPU can run, against what the same machine can do at most.
 *
 * The limit of a row is the one that binds its op: multiply-adds from registers (of floats, of bf16
 * or of bytes, as the row multiplies), or reading. Weights and KV are read from a buffer larger
 * than usual caches, each time from its next part, as decoding reads a model, and are held against
 * reading memory; the small ops work on activations, which the op before has just written, and are
 * held against reading the second-level cache. All limits are measured with the best body by all
 * members of the team together, before and after the rows; the better of the two counts.
 *
 * A row of which one call would take longer than so many seconds is left out, as the last row of
 * its kind on the same body tells: large products on slow bodies would take minutes. The first row
 * of an op is always there. What is left out is listed. The body that "auto" takes has the most
 * time for each row.
 *
 * Thread: the one that may call team_run() on the given team. Takes kernels_probe_bytes() of memory
 * while it runs, and a quarter of a GiB.
 *
 *     struct kernels_bench b;
 *     st = kernels_bench_run(&(struct kernels_bench_args){.team = team, .quick = true}, &b, &err);
 *     ...
 *     kernels_bench_fini(&b);
 */
#ifndef KERNELS_BENCH_H
#define KERNELS_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/team.h"
#include "kernels/probe.h"

/* What is multiplied, and so which of the probe's figures of arithmetic a row is held against. */
enum kernels_math { KERNELS_MATH_FLOAT, KERNELS_MATH_BF16, KERNELS_MATH_BYTES };

struct kernels_bench_row {
    const char *op, *backend;
    const char *dtype; /* of weights or KV, else of rows; "bf16r": times rows of bf16; "q8", "q4":
                        * packed; with p: in groups of 128, and rows' spans are paired; "q8w": one
                        * scale for a row, of weights and of x; "wide4m": with mins; of KV,
                        * "int8r": queries are rounded, and what is stored is read as bf16 */
    char shape[80];
    enum kernels_math math;
    bool streams;        /* reads memory, not the cache */
    double flops, bytes; /* of one call */
    double seconds;      /* median of one call; of a row that is left out an estimate */
    double achieved, limit, fraction;
    const char *unit; /* "GFLOP/s" or "GB/s" */
};

struct kernels_bench_rows {
    struct kernels_bench_row *row;
    size_t n, room;
};

struct kernels_bench {
    struct kernels_probe before, after, limit;
    struct kernels_bench_rows timed, left_out;
    double call_seconds_max; /* of what is left out a call would take longer */
};

struct kernels_bench_args {
    struct team *team;
    bool quick;          /* fewer shapes, shorter: half a minute */
    const char *op;      /* that one alone; NULL: all */
    const char *backend; /* the same; "best": what "auto" takes */
};

/* ST_NO_MEMORY; ST_INVALID: no such op, or no such backend on this CPU. */
enum status kernels_bench_run(const struct kernels_bench_args *args, struct kernels_bench *out,
                              struct error *err);
void kernels_bench_fini(struct kernels_bench *b);
/* Name of the i-th op, NULL past the end. */
const char *kernels_bench_op(int i);

#endif
