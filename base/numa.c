#include "base/numa.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void add_node(struct numa_plan *p, int node)
{
    unsigned long *word = &p->mask[(size_t)node / NUMA_MASK_BITS];
    const unsigned long bit = 1UL << ((size_t)node % NUMA_MASK_BITS);
    p->nodes += !(*word & bit);
    *word |= bit;
}

struct numa_plan numa_plan(const struct topology *t, const int *cpus, int n)
{
    struct numa_plan plan = {0}, machine = {0};
    for (int i = 0; i < t->n; i++) {
        add_node(&machine, t->cpus[i].node);
        for (int k = 0; k < n; k++)
            if (cpus[k] == t->cpus[i].cpu)
                add_node(&plan, t->cpus[i].node);
    }
    if (machine.nodes < 2 || plan.nodes == 0)
        return (struct numa_plan){0};
    plan.kind = plan.nodes > 1 ? NUMA_SPREAD : NUMA_NEAR;
    return plan;
}

static int mode_of(const struct numa_plan *plan)
{
    return plan->kind == NUMA_SPREAD ? MPOL_INTERLEAVE : MPOL_PREFERRED;
}

bool numa_is_chosen(void)
{
    int mode = MPOL_DEFAULT;
    return syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) == 0 && mode != MPOL_DEFAULT;
}

/* The kernel takes one bit less than it is told. */
#define MASK_BITS (NUMA_NODES_MAX + 1)

int numa_place(const struct numa_plan *plan, void *memory, size_t bytes)
{
    if (plan->kind == NUMA_ANYWHERE || bytes == 0)
        return 0;
    return syscall(SYS_mbind, memory, bytes, mode_of(plan), plan->mask, MASK_BITS, 0) == 0 ? 0
                                                                                           : errno;
}

int numa_stay(void *memory, size_t bytes)
{
    return syscall(SYS_mbind, memory, bytes, MPOL_PREFERRED, NULL, 0, 0) == 0 ? 0 : errno;
}

int numa_follow(const struct numa_plan *plan)
{
    if (plan->kind == NUMA_ANYWHERE)
        return 0;
    return syscall(SYS_set_mempolicy, mode_of(plan), plan->mask, MASK_BITS) == 0 ? 0 : errno;
}

void numa_follow_nobody(void)
{
    syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
}

int numa_try(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return errno;
    int rc = syscall(SYS_mbind, memory, page, MPOL_DEFAULT, NULL, 0, 0) == 0 ? 0 : errno;
    munmap(memory, page);
    return rc;
}
