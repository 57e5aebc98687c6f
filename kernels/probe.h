/* The limits of this machine, for one number of threads: what arithmetic it can do from registers
 * and from the first cache, how fast it reads and copies memory, and what it costs to wake a team
 * and to meet at a barrier. Every benchmark is held against these, measured in the same run:
 * machines differ, and shared ones differ from minute to minute.
 *
 * Units: operations count a multiply-add as two. What the CPU or its OS lacks is 0. Each figure is
 * the best of several short rounds (PROBE_ROUND_NS each), since whatever else runs can only lower
 * it; the latencies are medians.
 *
 * Thread: the one that may call team_run() on the given team; all its threads are busy for about
 * two seconds. `buffer` has been written to, and is larger than the caches.
 */
#ifndef KERNELS_PROBE_H
#define KERNELS_PROBE_H

#include <stddef.h>

#include "base/team.h"

struct machine_limits {
    int threads;
    double fma_gflops;         /* fp32 multiply-adds of the widest vectors */
    double bf16_dot_gflops;    /* vdpbf16ps */
    double int8_dot_gops;      /* vpdpbusd */
    double amx_bf16_gflops;    /* tiles that stay in registers */
    double amx_bf16_l1_gflops; /* with both operands loaded from the first cache */
    double amx_int8_gops, amx_int8_l1_gops;
    double read_gbytes_per_second; /* memory */
    double copy_gbytes_per_second; /* memory, bytes copied */
    double cache_gbytes_per_second;
    double wake_us;    /* team_run() of a team that sleeps */
    double barrier_us; /* team_barrier() */
};

struct machine_limits machine_probe(struct team *team, void *buffer, size_t bytes);

#endif
