/* What is read of /sys, and where members go, on machines that this one is not. */
#include <criterion/criterion.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "base/topology.h"

/* A folder as /sys/devices/system, with the files that a test puts there. */
static char root[32];

static void begin(void)
{
    strcpy(root, "/tmp/baton-topology-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void end(void)
{
    char command[sizeof root + 16];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    cr_assert_eq(system(command), 0);
}

static void put(const char *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(const char *text, const char *fmt, ...)
{
    char name[200], path[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    for (char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        snprintf(path, sizeof path, "%s/%s", root, name);
        mkdir(path, 0700);
        *slash = '/';
    }
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f, "%s", path);
    fputs(text, f);
    fclose(f);
}

static void put_cpu(int cpu, int package, const char *siblings)
{
    char text[16];
    snprintf(text, sizeof text, "%d\n", package);
    put(text, "cpu/cpu%d/topology/physical_package_id", cpu);
    put(siblings, "cpu/cpu%d/topology/thread_siblings_list", cpu);
}

/* Two sockets of four cores with two threads each: CPU i and i + 8 share a core, as Linux counts;
 * node 1 is the second socket. */
static void put_two_sockets(void)
{
    put("0-15\n", "cpu/online");
    put("0-1\n", "node/online");
    put("0-3,8-11\n", "node/node0/cpulist");
    put("4-7,12-15\n", "node/node1/cpulist");
    for (int cpu = 0; cpu < 16; cpu++) {
        char siblings[16];
        snprintf(siblings, sizeof siblings, "%d,%d\n", cpu % 8, cpu % 8 + 8);
        put_cpu(cpu, cpu % 8 / 4, siblings);
    }
}

static void check_place(const struct topology *t, const bool *allowed, int count, const char *want)
{
    int cpus[64];
    char got[256] = "";
    int n = topology_place(t, allowed, count, cpus);
    for (int i = 0; i < count && n > 0; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? "," : "", cpus[i]);
    cr_expect_str_eq(got, want, "%d members: %s, not %s", count, got, want);
}

static void allow(bool *allowed, int from, int to)
{
    for (int i = from; i <= to; i++)
        allowed[i] = true;
}

Test(topology, two_sockets_with_two_threads_a_core, .init = begin, .fini = end)
{
    struct topology t;
    put_two_sockets();
    cr_assert(topology_read(root, &t));
    struct topology_counts n = topology_count(&t, NULL);
    cr_assert(n.nodes == 2 && n.packages == 2 && n.cores == 8 && n.cpus == 16);
    check_place(&t, NULL, 1, "0");
    check_place(&t, NULL, 4, "0,1,2,3");
    check_place(&t, NULL, 6, "0,1,2,3,4,5");
    check_place(&t, NULL, 8, "0,1,2,3,4,5,6,7");
    check_place(&t, NULL, 10, "0,1,2,3,4,5,6,7,8,9");
    check_place(&t, NULL, 18, "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,0,1");
}

Test(topology, a_cpuset_with_holes, .init = begin, .fini = end)
{
    struct topology t;
    bool allowed[TOPOLOGY_CPUS_MAX] = {false};
    put_two_sockets();
    cr_assert(topology_read(root, &t));
    /* One thread of a core of the first socket, whose sibling is not ours; three cores of the
     * second, one of them with both threads. */
    allow(allowed, 9, 9);
    allow(allowed, 5, 7);
    allow(allowed, 13, 13);
    check_place(&t, allowed, 1, "9"); /* the smaller node is enough */
    check_place(&t, allowed, 2, "5,6");
    check_place(&t, allowed, 4, "5,6,7,9");
    check_place(&t, allowed, 5, "5,6,7,9,13");
    cr_assert_eq(topology_place(&t, allowed, 0, NULL), 5);
    bool none[TOPOLOGY_CPUS_MAX] = {false};
    int cpu = -7;
    cr_assert_eq(topology_place(&t, none, 1, &cpu), 0);
    cr_assert_eq(cpu, -7);
}

static void put_cache(int cpu, int index, const char *level, const char *type, const char *size)
{
    put(level, "cpu/cpu%d/cache/index%d/level", cpu, index);
    put(type, "cpu/cpu%d/cache/index%d/type", cpu, index);
    put(size, "cpu/cpu%d/cache/index%d/size", cpu, index);
}

/* A cache that several CPUs share counts once; smaller levels and instructions do not. */
Test(topology, last_caches, .init = begin, .fini = end)
{
    bool allowed[TOPOLOGY_CPUS_MAX] = {false};
    put_two_sockets();
    cr_assert_eq(topology_last_cache_bytes(root, NULL), 0, "no caches are known");
    for (int cpu = 0; cpu < 16; cpu++) {
        put_cache(cpu, 0, "1\n", "Data\n", "48K\n");
        put_cache(cpu, 1, "1\n", "Instruction\n", "32K\n");
        put_cache(cpu, 2, "2\n", "Unified\n", "2048K\n");
        put_cache(cpu, 3, "3\n", "Unified\n", cpu % 8 < 4 ? "307200K\n" : "32M\n");
        put(cpu % 8 < 4 ? "0-3,8-11\n" : "4-7,12-15\n", "cpu/cpu%d/cache/index3/shared_cpu_list",
            cpu);
        put_cache(cpu, 4, "4\n", "Instruction\n", "1G\n");
    }
    cr_assert_eq(topology_last_cache_bytes(root, NULL), (size_t)332 << 20);
    allow(allowed, 5, 6);
    cr_assert_eq(topology_last_cache_bytes(root, allowed), (size_t)32 << 20);
    cr_assert_eq(topology_last_cache_bytes("/nonexistent", NULL), 0);
}

/* One socket parted in two nodes, and a second socket likewise: a team that needs two nodes takes
 * them of one socket. */
Test(topology, clusters_below_a_socket, .init = begin, .fini = end)
{
    struct topology t;
    bool allowed[TOPOLOGY_CPUS_MAX] = {false};
    put("0-15\n", "cpu/online");
    put("0-3\n", "node/online");
    for (int node = 0; node < 4; node++) {
        char list[16];
        snprintf(list, sizeof list, "%d-%d\n", 4 * node, 4 * node + 3);
        put(list, "node/node%d/cpulist", node);
    }
    for (int cpu = 0; cpu < 16; cpu++) {
        char own[16];
        snprintf(own, sizeof own, "%d\n", cpu);
        put_cpu(cpu, cpu / 8, own);
    }
    cr_assert(topology_read(root, &t));
    check_place(&t, NULL, 5, "0,1,2,3,4");
    allow(allowed, 2, 15); /* node 0 has two left */
    check_place(&t, allowed, 4, "4,5,6,7");
    check_place(&t, allowed, 6, "4,5,6,7,2,3");
    check_place(&t, allowed, 8, "4,5,6,7,2,3,8,9");
}

/* CPUs and a node that are offline, a node of memory alone, and numbers with gaps. */
Test(topology, what_is_offline_is_not_there, .init = begin, .fini = end)
{
    struct topology t;
    put("0,2-3,70\n", "cpu/online");
    put("0,2-3\n", "node/online");
    put("0-3\n", "node/node0/cpulist");
    put("\n", "node/node2/cpulist");
    put("70\n", "node/node3/cpulist");
    put("64-69\n", "node/node1/cpulist");
    for (int cpu = 0; cpu < 4; cpu++)
        put_cpu(cpu, 0, cpu < 2 ? "0\n" : "2-3\n"); /* of CPU 0's core one thread is left */
    cr_assert(topology_read(root, &t));
    cr_assert_eq(t.n, 4);
    struct topology_counts n = topology_count(&t, NULL);
    cr_assert(n.nodes == 2 && n.cores == 3 && n.cpus == 4, "%d nodes, %d cores", n.nodes, n.cores);
    check_place(&t, NULL, 1, "70");
    check_place(&t, NULL, 2, "0,2");
    check_place(&t, NULL, 4, "0,2,70,3");
}

Test(topology, a_container_with_two_cpus, .init = begin, .fini = end)
{
    struct topology t;
    put("0-1", "cpu/online"); /* no topology, no nodes */
    cr_assert(topology_read(root, &t));
    check_place(&t, NULL, 2, "0,1");
    check_place(&t, NULL, 3, "0,1,0");
}

Test(topology, without_sysfs, .init = begin, .fini = end)
{
    struct topology t = {.n = 3};
    cr_assert(!topology_read(root, &t));
    cr_assert_eq(t.n, 0);
    put("what?\n", "cpu/online");
    cr_assert(!topology_read(root, &t));
    put("5000,99999999999999999999\n", "cpu/online");
    cr_assert(!topology_read(root, &t));
    topology_flat(3, &t);
    check_place(&t, NULL, 2, "0,1");
    topology_flat(1 << 20, &t);
    cr_assert_eq(t.n, TOPOLOGY_CPUS_MAX);
    topology_flat(-1, &t);
    check_place(&t, NULL, 2, "");
}

Test(topology, this_machine)
{
    struct topology t;
    bool allowed[TOPOLOGY_CPUS_MAX];
    int cpu = -1;
    cr_assert(topology_allowed(allowed));
    if (!topology_read("/sys/devices/system", &t))
        topology_flat(TOPOLOGY_CPUS_MAX, &t);
    cr_assert_gt(topology_place(&t, allowed, 1, &cpu), 0);
    cr_assert(cpu >= 0 && allowed[cpu]);
    cr_assert_eq(topology_cpus(), topology_count(&t, allowed).cpus);
}

/* No core has two members while another has none, and every CPU is an allowed one. */
Test(topology, any_machine_is_filled_core_by_core)
{
    struct rng r = rng_seed(5);
    for (int round = 0; round < 500; round++) {
        struct topology t = {.n = 1 + (int)rng_below(&r, 40)};
        bool allowed[TOPOLOGY_CPUS_MAX];
        int cpus[64], count = 1 + (int)rng_below(&r, 50), on[TOPOLOGY_CPUS_MAX] = {0};
        for (int i = 0; i < t.n; i++) {
            int core = (int)rng_below(&r, 12);
            t.cpus[i] = (struct topology_cpu){(int16_t)i, (int16_t)(core % 3), (int16_t)(core % 2),
                                              (int16_t)core};
        }
        for (int i = 0; i < TOPOLOGY_CPUS_MAX; i++)
            allowed[i] = rng_below(&r, 4) > 0;
        struct topology_counts n = topology_count(&t, allowed);
        cr_assert_eq(topology_place(&t, allowed, count, cpus), n.cpus);
        int cores = 0, different = 0;
        for (int i = 0; i < count && n.cpus > 0; i++) {
            cr_assert(cpus[i] < t.n && allowed[cpus[i]]);
            different += on[cpus[i]]++ == 0;
        }
        bool seen[12] = {false};
        for (int i = 0; i < t.n; i++)
            if (on[i] && !seen[t.cpus[i].core]) {
                seen[t.cpus[i].core] = true;
                cores++;
            }
        cr_assert_eq(cores, count < n.cores ? count : n.cores);
        cr_assert_eq(different, count < n.cpus ? count : n.cpus);
    }
}
