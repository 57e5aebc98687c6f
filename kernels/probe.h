/* The limits of this machine, for one number of threads: what arithmetic it can do from registers
 * and from the first cache, how fast it reads and copies memory, and what it costs to wake a team
 * and to meet at a barrier. Every benchmark is held against these, measured in the same run:
 * machines differ, and shared ones differ from minute to minute.
 *
 * Units: operations count a multiply-add as two. What the CPU or its OS lacks is 0. Each figure is
 * the best of several short rounds (PROBE_ROUND_NS each), since whatever else runs can only lower
 * it; the latencies are medians.
 *
 * Thread: the one that may call team_run() on the given team; all its threads are busy for two
 * seconds, and for more where memory is slow: a round of reading or copying goes through the whole
 * buffer once at least, 2 GiB at 10 GB/s in ten times PROBE_ROUND_NS. `buffer` has been written to,
 * is larger than the caches and of whole MiB: of kernels_probe_bytes().
 */
#ifndef KERNELS_PROBE_H
#define KERNELS_PROBE_H

#include <stddef.h>

#include "base/team.h"

/* What binds most ops: the roof of a benchmark. */
struct kernels_probe {
    double gflops; /* fp32 multiply-adds of the widest vectors */
    /* Of the fastest instructions that there are for products of bf16 and of bytes, dot products or
     * tiles, from registers; without any, of bytes what int8_dot_gops says, of which products of
     * two full bytes come to half, or gflops. */
    double bf16_gflops, int8_gops;
    double gbytes_per_second; /* reading memory, in the best of 1, 2, 4 and 8 streams a member */
    double cache_gbytes_per_second; /* reading 512 KiB for each member again and again */
    size_t read_bytes;              /* of memory, from end to end: what gbytes_per_second is of */
};

struct machine_limits {
    int threads;
    struct kernels_probe roof;
    double bf16_dot_gflops;    /* vdpbf16ps */
    double int8_dot_gops;      /* vpdpbusd; where a CPU lacks it, vpmaddubsw and 16-bit additions */
    double amx_bf16_gflops;    /* tiles that stay in registers */
    double amx_bf16_l1_gflops; /* with both operands loaded from the first cache */
    double amx_int8_gops, amx_int8_l1_gops;
    double copy_gbytes_per_second; /* memory, bytes copied */
    double wake_us;                /* team_run() of a team that sleeps */
    double barrier_us;             /* team_barrier() */
};

/* How much memory to read: twice the last-level caches that this process' CPUs read through, for
 * what fits one of them is read faster than memory is; no more than an eighth of what memory is
 * left, or PROBE_BYTES_MOST, for each round reads all of it; PROBE_BYTES_LEAST at least. Chosen
 * when it is asked first, and the same ever after: what is measured before and after compares. */
#define PROBE_BYTES_LEAST ((size_t)256 << 20)
#define PROBE_BYTES_MOST ((size_t)2 << 30)
size_t kernels_probe_bytes(void);
/* The same where caches (0: unknown) and the memory that is left are these. */
size_t kernels_probe_bytes_for(size_t caches, size_t left);
struct machine_limits machine_probe(struct team *team, void *buffer, size_t bytes);
/* The roof alone: half a second, or one with dot products and tiles; longer as above. */
struct kernels_probe kernels_probe_run(struct team *team, void *buffer, size_t bytes);
/* The better of what was measured before and after; of reading memory, that of more bytes. */
struct kernels_probe kernels_probe_best(const struct kernels_probe *a,
                                        const struct kernels_probe *b);

#endif
