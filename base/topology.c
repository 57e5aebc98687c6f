#include "base/topology.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIST_CHARS 8192
#define CACHES_MAX 8 /* of a CPU */

static bool read_text(const char *path, char *text, size_t cap)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(text, 1, cap - 1, f);
    fclose(f);
    text[n] = '\0';
    return true;
}

/* "0-3,8,10-11": sets in[] of those below TOPOLOGY_CPUS_MAX; returns the first, -1: none. */
static int read_list(const char *path, bool *in)
{
    char text[LIST_CHARS], *at = text, *end;
    int first = -1;
    if (!read_text(path, text, sizeof text))
        return -1;
    for (;;) {
        long from = strtol(at, &end, 10), to = from;
        if (end == at || from < 0)
            return first;
        if (*end == '-')
            to = strtol(end + 1, &end, 10);
        for (long i = from; i <= to && i < TOPOLOGY_CPUS_MAX; i++) {
            in[i] = true;
            first = first < 0 ? (int)i : first;
        }
        if (*end != ',')
            return first;
        at = end + 1;
    }
}

static int read_number(const char *path)
{
    char text[32];
    return read_text(path, text, sizeof text) ? atoi(text) : 0;
}

static void read_cpu(const char *root, int cpu, struct topology_cpu *out)
{
    char path[512];
    bool siblings[TOPOLOGY_CPUS_MAX] = {false};
    *out = (struct topology_cpu){.cpu = (int16_t)cpu, .core = (int16_t)cpu};
    snprintf(path, sizeof path, "%s/cpu/cpu%d/topology/thread_siblings_list", root, cpu);
    int first = read_list(path, siblings);
    if (first >= 0)
        out->core = (int16_t)first;
    snprintf(path, sizeof path, "%s/cpu/cpu%d/topology/physical_package_id", root, cpu);
    int package = read_number(path);
    out->package = (int16_t)(package > 0 && package < TOPOLOGY_CPUS_MAX ? package : 0);
}

bool topology_read(const char *root, struct topology *out)
{
    char path[512];
    bool online[TOPOLOGY_CPUS_MAX] = {false}, nodes[TOPOLOGY_CPUS_MAX] = {false};
    out->n = 0;
    snprintf(path, sizeof path, "%s/cpu/online", root);
    if (read_list(path, online) < 0)
        return false;
    for (int cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++)
        if (online[cpu])
            read_cpu(root, cpu, &out->cpus[out->n++]);
    snprintf(path, sizeof path, "%s/node/online", root);
    read_list(path, nodes);
    for (int node = 0; node < TOPOLOGY_CPUS_MAX; node++) {
        bool of_node[TOPOLOGY_CPUS_MAX] = {false};
        if (!nodes[node])
            continue;
        snprintf(path, sizeof path, "%s/node/node%d/cpulist", root, node);
        read_list(path, of_node);
        for (int i = 0; i < out->n; i++)
            if (of_node[out->cpus[i].cpu])
                out->cpus[i].node = (int16_t)node;
    }
    return true;
}

void topology_flat(int n, struct topology *out)
{
    out->n = n < 0 ? 0 : n > TOPOLOGY_CPUS_MAX ? TOPOLOGY_CPUS_MAX : n;
    for (int i = 0; i < out->n; i++)
        out->cpus[i] = (struct topology_cpu){.cpu = (int16_t)i, .core = (int16_t)i};
}

bool topology_allowed(bool *allowed)
{
    cpu_set_t set;
    bool known = sched_getaffinity(0, sizeof set, &set) == 0;
    for (int cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++)
        allowed[cpu] = !known || (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &set));
    return known;
}

int topology_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > TOPOLOGY_CPUS_MAX ? TOPOLOGY_CPUS_MAX : (int)online;
}

/* ---- caches ---- */

struct cache {
    int level, first; /* CPU that shares it */
    size_t bytes;
};

/* False: the CPU has no cache of this index, or it holds instructions alone. */
static bool read_cache(const char *root, int cpu, int index, struct cache *out)
{
    char path[512], text[64], *unit;
    bool shared[TOPOLOGY_CPUS_MAX] = {false};
    int n = snprintf(path, sizeof path, "%s/cpu/cpu%d/cache/index%d/", root, cpu, index);
    if (n < 0 || n + 32 > (int)sizeof path)
        return false;
    strcpy(path + n, "type");
    if (!read_text(path, text, sizeof text) || strncmp(text, "Instruction", 11) == 0)
        return false;
    strcpy(path + n, "size");
    if (!read_text(path, text, sizeof text))
        return false;
    unsigned long long size = strtoull(text, &unit, 10);
    out->bytes = (size_t)size << (*unit == 'K' ? 10 : *unit == 'M' ? 20 : *unit == 'G' ? 30 : 0);
    strcpy(path + n, "level");
    out->level = read_number(path);
    strcpy(path + n, "shared_cpu_list");
    int first = read_list(path, shared);
    out->first = first < 0 ? cpu : first;
    return true;
}

size_t topology_last_cache_bytes(const char *root, const bool *allowed)
{
    char path[512];
    bool online[TOPOLOGY_CPUS_MAX] = {false}, counted[TOPOLOGY_CPUS_MAX] = {false};
    size_t bytes = 0;
    snprintf(path, sizeof path, "%s/cpu/online", root);
    read_list(path, online);
    for (int cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        struct cache last = {0}, c;
        if (!online[cpu] || (allowed && !allowed[cpu]))
            continue;
        for (int index = 0; index < CACHES_MAX; index++)
            if (read_cache(root, cpu, index, &c) && c.level > last.level)
                last = c;
        if (last.level > 0 && !counted[last.first])
            bytes += last.bytes;
        counted[last.first] |= last.level > 0;
    }
    return bytes;
}

/* ---- placing ---- */

/* The CPUs that may be used, each with its place among the threads of its core. */
struct candidates {
    struct {
        const struct topology_cpu *cpu;
        int thread; /* 0: the first of its core */
    } v[TOPOLOGY_CPUS_MAX];
    int n, threads; /* of a core, at most */
    int cores[TOPOLOGY_CPUS_MAX];
    int package[TOPOLOGY_CPUS_MAX]; /* of each node */
    bool used[TOPOLOGY_CPUS_MAX];   /* nodes that were gone through */
};

static void collect(const struct topology *t, const bool *allowed, struct candidates *c)
{
    int seen[TOPOLOGY_CPUS_MAX] = {0};
    memset(c, 0, sizeof *c);
    for (int i = 0; i < t->n; i++) {
        const struct topology_cpu *cpu = &t->cpus[i];
        if (allowed && !allowed[cpu->cpu])
            continue;
        int thread = seen[cpu->core]++;
        c->v[c->n].cpu = cpu;
        c->v[c->n++].thread = thread;
        c->threads = thread + 1 > c->threads ? thread + 1 : c->threads;
        c->cores[cpu->node] += thread == 0;
        c->package[cpu->node] = cpu->package;
    }
}

/* The node to fill next, for `wanted` members: the smallest that holds all of them, else the
 * largest; rather one of the package `near` (-1: any). -1: none is left. */
static int next_node(const struct candidates *c, int wanted, int near)
{
    int best = -1;
    bool best_near = false;
    for (int node = 0; node < TOPOLOGY_CPUS_MAX; node++) {
        const int cores = c->cores[node], most = best < 0 ? 0 : c->cores[best];
        const bool is_near = near >= 0 && c->package[node] == near;
        if (cores == 0 || c->used[node])
            continue;
        bool better = cores >= wanted ? most < wanted || cores < most : cores > most;
        if (best < 0 || (is_near != best_near ? is_near : better)) {
            best = node;
            best_near = is_near;
        }
    }
    return best;
}

int topology_place(const struct topology *t, const bool *allowed, int count, int *cpus)
{
    struct candidates c;
    int order[TOPOLOGY_CPUS_MAX], nodes = 0, placed = 0, near = -1;
    collect(t, allowed, &c);
    for (int left = count, node; left > 0 && (node = next_node(&c, left, near)) >= 0;) {
        order[nodes++] = node;
        c.used[node] = true;
        left -= c.cores[node];
        near = c.package[node];
    }
    for (int thread = 0; thread < c.threads; thread++)
        for (int k = 0; k < nodes; k++)
            for (int i = 0; i < c.n && placed < count; i++)
                if (c.v[i].cpu->node == order[k] && c.v[i].thread == thread)
                    cpus[placed++] = c.v[i].cpu->cpu;
    for (int i = placed; i < count && placed > 0; i++)
        cpus[i] = cpus[i % placed];
    return c.n;
}

struct topology_counts topology_count(const struct topology *t, const bool *allowed)
{
    bool nodes[TOPOLOGY_CPUS_MAX] = {false}, packages[TOPOLOGY_CPUS_MAX] = {false};
    bool cores[TOPOLOGY_CPUS_MAX] = {false};
    struct topology_counts n = {0};
    for (int i = 0; i < t->n; i++) {
        const struct topology_cpu *cpu = &t->cpus[i];
        if (allowed && !allowed[cpu->cpu])
            continue;
        n.cpus++;
        n.nodes += !nodes[cpu->node];
        n.packages += !packages[cpu->package];
        n.cores += !cores[cpu->core];
        nodes[cpu->node] = packages[cpu->package] = cores[cpu->core] = true;
    }
    return n;
}
