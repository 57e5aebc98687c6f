/* How much memory a probe reads: more than the caches hold, and no more than there is. */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/topology.h"
#include "kernels/probe.h"

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

/* Of the machine, and of the groups that this process is in. */
static size_t memory_left(void)
{
    char text[4096];
    struct cgroup group;
    FILE *f = fopen("/proc/self/cgroup", "r");
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = '\0';
    if (f)
        fclose(f);
    const size_t machine = memory_available();
    const size_t most =
        cgroup_parse(text, &group) ? cgroup_memory_left("/sys/fs/cgroup", &group) : SIZE_MAX;
    return most < machine ? most : machine;
}

size_t kernels_probe_bytes_for(size_t caches, size_t left)
{
    const size_t share = left / 8 < PROBE_BYTES_MOST ? left / 8 : PROBE_BYTES_MOST;
    const size_t bytes = caches < share / 2 ? 2 * caches : share;
    return bytes > PROBE_BYTES_LEAST ? bytes >> 20 << 20 : PROBE_BYTES_LEAST;
}

static size_t choose_bytes(void)
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

/* Of two that ask at once the first counts. */
size_t kernels_probe_bytes(void)
{
    static _Atomic size_t chosen;
    size_t bytes = 0;
    if (atomic_load(&chosen) == 0)
        atomic_compare_exchange_strong(&chosen, &bytes, choose_bytes());
    return atomic_load(&chosen);
}
