/* Times every op of every body that this CPU can run, against what the same machine can do at most.
 *
 * The limit of a row is the one that binds its op: multiply-adds from registers (of floats, of bf16
 * or of bytes, as the row multiplies), or reading.
 * Weights and KV are read from a buffer larger than usual caches, each time from its next part, as
 * decoding reads a model, and are held against reading memory; the small ops work on activations,
 * which the op before has just written, and are held against reading the second-level cache. All
 * limits are measured with the best body by all members of the team together, before and after the
 * rows; the better of the two counts. ref is timed on the small shapes only.
 *
 * Thread: the one that may call team_run() on the given team. Takes KERNELS_BENCH_BYTES of memory
 * while it runs.
 *
 *     struct kernels_bench *b = malloc(sizeof *b);
 *     st = kernels_bench_run(&(struct kernels_bench_args){.team = team, .quick = true}, b, &err);
 */
#ifndef KERNELS_BENCH_H
#define KERNELS_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/team.h"
#include "kernels/probe.h"

#define KERNELS_BENCH_ROWS_MAX 1024
#define KERNELS_BENCH_BYTES ((size_t)256 << 20)

struct kernels_bench_row {
    const char *op, *backend;
    const char *dtype; /* of weights or KV; "bf16r": times rows of bf16; "q8", "q4": packed;
                        * with p: in groups of 128, and rows' spans are paired; "q8w": one scale
                        * for a row, of weights and of x */
    char shape[48];
    bool pairs;     /* products are of two bf16 */
    double seconds; /* median of one call */
    double achieved, limit, fraction;
    const char *unit; /* "GFLOP/s" or "GB/s" */
};

struct kernels_bench {
    struct kernels_probe before, after, limit;
    struct kernels_bench_row rows[KERNELS_BENCH_ROWS_MAX];
    size_t n;
};

struct kernels_bench_args {
    struct team *team;
    bool quick; /* under ten seconds on a slow core */
};

/* ST_NO_MEMORY. */
enum status kernels_bench_run(const struct kernels_bench_args *args, struct kernels_bench *out,
                              struct error *err);

#endif
