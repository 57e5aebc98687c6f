/* Where memory goes on machines that this one is not, and what the kernel of this one says. */
#include <criterion/criterion.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/huge.h"
#include "base/numa.h"
#include "base/team.h"

#define BYTES ((size_t)4 << 20)

/* CPUs of four nodes, four to each: node = CPU / 4, but for the numbers that `far` moves up. */
static struct topology machine(int nodes, int far)
{
    struct topology t = {.n = 4 * nodes};
    for (int i = 0; i < t.n; i++)
        t.cpus[i] = (struct topology_cpu){(int16_t)i, (int16_t)(i / 4 + (i / 4 ? far : 0)),
                                          (int16_t)(i / 8), (int16_t)i};
    return t;
}

static bool has(const struct numa_plan *p, int node)
{
    return p->mask[(size_t)node / NUMA_MASK_BITS] >> ((size_t)node % NUMA_MASK_BITS) & 1;
}

Test(numa, one_node_is_no_choice)
{
    const struct topology t = machine(1, 0), none = {.n = 0};
    const int cpus[] = {0, 1, 2, 3};
    struct numa_plan p = numa_plan(&t, cpus, 4);
    cr_assert_eq(p.kind, NUMA_ANYWHERE);
    cr_assert_eq(p.nodes, 0);
    cr_assert_eq(numa_plan(&none, cpus, 4).kind, NUMA_ANYWHERE);
    /* Nothing is asked of the kernel: not even an address that is none is looked at. */
    cr_assert_eq(numa_place(&p, (void *)1, 4096), 0);
    cr_assert_eq(numa_follow(&p), 0);
}

Test(numa, near_where_one_node_is_enough)
{
    const struct topology t = machine(4, 0);
    const int cpus[] = {8, 9, 11};
    struct numa_plan p = numa_plan(&t, cpus, 3);
    cr_assert_eq(p.kind, NUMA_NEAR);
    cr_assert_eq(p.nodes, 1);
    cr_assert(has(&p, 2) && !has(&p, 0) && !has(&p, 1) && !has(&p, 3));
}

Test(numa, spread_over_the_nodes_of_the_threads)
{
    const struct topology t = machine(4, 0);
    const int cpus[] = {4, 5, 6, 7, 12, 12}, nowhere[] = {99, -1};
    struct numa_plan p = numa_plan(&t, cpus, 6);
    cr_assert_eq(p.kind, NUMA_SPREAD);
    cr_assert_eq(p.nodes, 2);
    cr_assert(has(&p, 1) && has(&p, 3) && !has(&p, 0) && !has(&p, 2));
    cr_assert_eq(numa_plan(&t, nowhere, 2).kind, NUMA_ANYWHERE);
    cr_assert_eq(numa_plan(&t, cpus, 0).kind, NUMA_ANYWHERE);
}

/* As topology_place() chooses them, on two sockets of a machine that numbers nodes with a gap. */
Test(numa, numbers_with_gaps)
{
    const struct topology t = machine(2, 900);
    int cpus[6];
    topology_place(&t, NULL, 6, cpus);
    struct numa_plan p = numa_plan(&t, cpus, 6);
    cr_assert_eq(p.kind, NUMA_SPREAD);
    cr_assert(has(&p, 0) && has(&p, 901));
    topology_place(&t, NULL, 4, cpus);
    cr_assert_eq(numa_plan(&t, cpus, 4).kind, NUMA_NEAR);
}

/* A plan for node 0, which nearly every machine has memory on and lets be used. */
static struct numa_plan on_node_0(enum numa_kind kind)
{
    return (struct numa_plan){.kind = kind, .nodes = 1, .mask = {1}};
}

static bool node_0_is_ours(void)
{
    unsigned long mask[NUMA_NODES_MAX / NUMA_MASK_BITS] = {0};
    int mode;
    return syscall(SYS_get_mempolicy, &mode, mask, NUMA_NODES_MAX + 1, NULL, MPOL_F_MEMS_ALLOWED) !=
               0 ||
           (mask[0] & 1);
}

static bool may_refuse(int rc)
{
    return rc == EPERM || rc == ENOSYS || !node_0_is_ours();
}

Test(numa, memory_comes_as_planned)
{
    static const int modes[] = {[NUMA_NEAR] = MPOL_PREFERRED, [NUMA_SPREAD] = MPOL_INTERLEAVE};
    for (enum numa_kind kind = NUMA_NEAR; kind <= NUMA_SPREAD; kind++) {
        const struct numa_plan plan = on_node_0(kind);
        int mode = -1;
        unsigned long mask[NUMA_NODES_MAX / NUMA_MASK_BITS] = {0};
        char *memory = huge_alloc(BYTES);
        int rc = numa_place(&plan, memory, BYTES);
        cr_assert(rc == 0 || may_refuse(rc), "%s", strerror(rc));
        cr_assert(rc == numa_try() || !node_0_is_ours());
        if (rc == 0) {
            cr_assert_eq(
                syscall(SYS_get_mempolicy, &mode, mask, NUMA_NODES_MAX + 1, memory, MPOL_F_ADDR),
                0);
            cr_assert_eq(mode, modes[kind]);
            cr_assert_eq(mask[0], 1);
        }
        memset(memory, 1, BYTES);
        huge_free(memory, BYTES);
    }
}

Test(numa, a_thread_follows_until_it_does_not)
{
    const struct numa_plan plan = on_node_0(NUMA_SPREAD);
    if (numa_is_chosen())
        cr_skip_test("started with a policy");
    int rc = numa_follow(&plan);
    cr_assert(rc == 0 || may_refuse(rc), "%s", strerror(rc));
    cr_assert_eq(numa_is_chosen(), rc == 0);
    numa_follow_nobody();
    cr_assert(!numa_is_chosen());
}

Test(numa, a_node_that_is_not_there)
{
    struct numa_plan plan = {.kind = NUMA_SPREAD, .nodes = 1};
    plan.mask[1000 / NUMA_MASK_BITS] = 1UL << 1000 % NUMA_MASK_BITS;
    char *memory = huge_alloc(BYTES);
    cr_assert_neq(numa_place(&plan, memory, BYTES), 0);
    cr_assert_neq(numa_follow(&plan), 0);
    memset(memory, 1, BYTES); /* and nothing is lost */
    huge_free(memory, BYTES);
}

/* What a container's filter does. */
static bool refuse_placing(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mbind, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_set_mempolicy, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_get_mempolicy, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

Test(numa, refused_as_in_a_container)
{
    const struct numa_plan plan = on_node_0(NUMA_SPREAD);
    char *memory = huge_alloc(BYTES);
    if (!refuse_placing())
        cr_skip_test("no filters here");
    cr_assert_eq(numa_place(&plan, memory, BYTES), EPERM);
    cr_assert_eq(numa_follow(&plan), EPERM);
    cr_assert_eq(numa_try(), EPERM);
    cr_assert(!numa_is_chosen());
    numa_follow_nobody();
    memset(memory, 1, BYTES);
    huge_free(memory, BYTES);
}

/* Pinned or not, a team that places says what came of it and its memory can be used. */
Test(numa, a_team_places)
{
    for (int pin = 0; pin < 2; pin++) {
        struct team *t = team_create(2, false, pin);
        char *memory = huge_alloc(BYTES);
        int refused = -1, nodes;
        team_place(t, memory, BYTES);
        nodes = team_memory_nodes(t, &refused);
        cr_assert(refused == 0 || (pin && may_refuse(refused)));
        cr_assert(nodes >= 0 && (pin || nodes == 0) && !(refused && nodes));
        memset(memory, 1, BYTES);
        huge_free(memory, BYTES);
        team_destroy(t);
    }
}

/* A thread's own memory stays near whatever it follows. */
Test(numa, what_is_a_threads_own)
{
    int mode = -1;
    char *memory = huge_alloc(BYTES);
    int rc = numa_stay(memory, BYTES);
    cr_assert_eq(rc, numa_try());
    if (rc == 0) {
        cr_assert_eq(syscall(SYS_get_mempolicy, &mode, NULL, 0, memory, MPOL_F_ADDR), 0);
        cr_assert(mode == MPOL_PREFERRED || mode == MPOL_LOCAL, "%d", mode);
    }
    huge_free(memory, BYTES);
}
