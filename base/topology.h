/* Which CPUs there are, which of them share a core and which a memory (NUMA node), and where the
 * members of a team go. Reading asks /sys; placing is pure: (topology, allowed CPUs, count) to a
 * list of CPUs.
 *
 * Members go one to a core, on one node where one has enough, else on nodes of one socket first;
 * second threads of a core (SMT) are taken only where there are not enough cores, and a CPU twice
 * only where there are not enough of these either. Members that follow each other are neighbours.
 *
 *     struct topology t;
 *     topology_read("/sys/devices/system", &t);
 *     int cpus[8];
 *     topology_place(&t, allowed, 8, cpus);
 *
 * Plain data, no ownership. Thread: any.
 */
#ifndef BASE_TOPOLOGY_H
#define BASE_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOPOLOGY_CPUS_MAX 1024 /* more are not seen */

struct topology_cpu {
    int16_t cpu;
    int16_t node;    /* 0 where the system knows none */
    int16_t package; /* socket */
    int16_t core;    /* the first CPU of its core */
};

struct topology {
    struct topology_cpu cpus[TOPOLOGY_CPUS_MAX]; /* those that are online, ascending */
    int n;
};

/* `root`: /sys/devices/system. Without it, every CPU below `n` of the fallback is a core of its own
 * and all are of one node: topology_flat(). False: it could not be read; *out is empty. */
bool topology_read(const char *root, struct topology *out);
void topology_flat(int n, struct topology *out);
/* CPUs for members 0 .. count - 1, among those whose allowed[cpu] is set (NULL: all). Returns how
 * many different CPUs were there to choose from: 0 sets nothing. */
int topology_place(const struct topology *t, const bool *allowed, int count, int *cpus);
/* Counts of different nodes, packages and cores among the allowed CPUs. */
struct topology_counts {
    int nodes, packages, cores, cpus;
};
struct topology_counts topology_count(const struct topology *t, const bool *allowed);
/* allowed[TOPOLOGY_CPUS_MAX] of the calling thread; false: unknown, and all are set. */
bool topology_allowed(bool *allowed);
/* Bytes of the caches of the last level that the allowed CPUs (NULL: all) read data through, each
 * counted once. 0: unknown, as in some virtual machines. */
size_t topology_last_cache_bytes(const char *root, const bool *allowed);
/* How many CPUs the calling thread may use; 1 at least. */
int topology_cpus(void);

#endif
