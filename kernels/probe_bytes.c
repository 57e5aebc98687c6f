/* How much memory a probe reads: more than the caches hold, and no more than there is. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/topology.h"
#include "kernels/probe.h"

/* The number that a file of one begins with; SIZE_MAX: it has none ("max"), or there is no file. */
static size_t read_number(const char *path)
{
    unsigned long long v;
    FILE *f = fopen(path, "r");
    int n = f ? fscanf(f, "%llu", &v) : 0;
    if (f)
        fclose(f);
    return n == 1 ? (size_t)v : SIZE_MAX;
}

static size_t memory_available(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return (size_t)kib << 10;
}

/* A container is killed for what the machine has and it has not. Pages of files count as used in
 * it, too much rather than too little. */
static size_t memory_left(void)
{
    const size_t machine = memory_available(), most = read_number("/sys/fs/cgroup/memory.max");
    const size_t used = read_number("/sys/fs/cgroup/memory.current");
    if (most == SIZE_MAX || used == SIZE_MAX)
        return machine;
    const size_t left = most > used ? most - used : 0;
    return left < machine ? left : machine;
}

size_t kernels_probe_bytes_for(size_t caches, size_t left)
{
    const size_t share = left / 8 < PROBE_BYTES_MOST ? left / 8 : PROBE_BYTES_MOST;
    const size_t bytes = caches < share / 2 ? 2 * caches : share;
    return bytes > PROBE_BYTES_LEAST ? bytes >> 20 << 20 : PROBE_BYTES_LEAST;
}

size_t kernels_probe_bytes(void)
{
    bool allowed[TOPOLOGY_CPUS_MAX];
    topology_allowed(allowed);
    size_t caches = topology_last_cache_bytes("/sys/devices/system", allowed);
    if (caches == 0) {
        long asked = sysconf(_SC_LEVEL3_CACHE_SIZE);
        caches = asked > 0 ? (size_t)asked : 0;
    }
    return kernels_probe_bytes_for(caches, memory_left());
}
