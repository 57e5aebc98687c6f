/* Which memory (NUMA) nodes memory lies on, for threads that stay on CPUs of some of them: on the
 * one node where all threads are of one, else spread over theirs page by page. Spread, not parted:
 * weights, KV and activations are read by all threads, or by another in the next step, and all
 * nodes' controllers are busy then; nobody reads everything from afar.
 *
 * Planning is pure: (topology, CPUs) to a plan. Only numa.c asks the kernel (mbind and
 * set_mempolicy); where it refuses, as in a container without CAP_SYS_NICE, memory lies where it is
 * first written to, and nothing fails. On a machine with one memory node nothing is placed.
 *
 *     struct numa_plan plan = numa_plan(&topology, cpus, n);
 *     numa_follow(&plan);
 *     numa_place(&plan, memory, bytes);
 *
 * Plain data. Thread: any; numa_follow() is about the calling one.
 */
#ifndef BASE_NUMA_H
#define BASE_NUMA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/topology.h"

#define NUMA_NODES_MAX TOPOLOGY_CPUS_MAX
#define NUMA_MASK_BITS (8 * sizeof(unsigned long))

enum numa_kind {
    NUMA_ANYWHERE, /* one node, or none known: nothing to choose */
    NUMA_NEAR,     /* on one node as long as it has room */
    NUMA_SPREAD    /* page by page over several */
};

struct numa_plan {
    enum numa_kind kind;
    int nodes; /* that memory goes to; 0 where it is anywhere */
    unsigned long mask[NUMA_NODES_MAX / NUMA_MASK_BITS];
};

/* For threads on these CPUs of a machine, all of whose nodes `t` has. */
struct numa_plan numa_plan(const struct topology *t, const int *cpus, int n);
/* Whether somebody has chosen for this process already (numactl): then that holds. */
bool numa_is_chosen(void);
/* Pages of [memory, memory + bytes) that are not there yet will come as planned; `memory` begins a
 * page. Memory shared between processes (memfd) too, files not. Returns 0 or the errno. */
int numa_place(const struct numa_plan *plan, void *memory, size_t bytes);
/* What the calling thread, and those that it starts from now on, write first or read from files
 * comes as planned, where it is not placed. Returns 0 or the errno. */
int numa_follow(const struct numa_plan *plan);
/* Back to where the first writer is. */
void numa_follow_nobody(void);
/* Pages of a thread's own, such as its stack, come from the node that it runs on, whatever it
 * follows. Returns 0 or the errno. */
int numa_stay(void *memory, size_t bytes);
/* Whether the kernel lets memory be placed at all: 0 or the errno. */
int numa_try(void);

#endif
