/* Two counters are waited on, each a `gate`: `go` tells the workers that a run began, `phase` tells
 * everybody that a barrier was passed. A gate's value only grows (it may wrap); who waits remembers
 * the value from before. A waiter counts itself in `sleepers` before it sleeps, and the opener
 * looks at `sleepers` after raising the value: both sequentially consistent, so one of them sees
 * the other, and no system call is made while all spin.
 */
#include "base/team.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/numa.h"
#include "base/topology.h"

#define SPIN_ROUNDS 4000 /* some 20 to 100 us: longer than the gap between two ops of a step */

struct gate {
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
};

struct team {
    struct gate go, phase;
    _Alignas(64) _Atomic uint32_t arrived; /* at the barrier now forming */
    _Alignas(64) team_fn *fn;
    void *arg;
    int parts;
    bool spin, running, quit;
    pthread_t *threads; /* members 1.. */
    int started;
    int *cpus; /* [parts] where members are pinned; NULL: they are not */
    struct numa_plan memory;
    int refused; /* the kernel's errno to that plan */
};

struct member {
    struct team *team;
    int part;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void gate_wait(struct gate *g, uint32_t before, bool spin)
{
    if (spin) {
        for (int i = 0; i < SPIN_ROUNDS; i++) {
            if (atomic_load_explicit(&g->value, memory_order_acquire) != before)
                return;
            pause_cpu();
        }
    }
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->value) == before)
        syscall(SYS_futex, &g->value, FUTEX_WAIT_PRIVATE, before, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(struct gate *g)
{
    atomic_fetch_add(&g->value, 1);
    if (atomic_load(&g->sleepers) != 0)
        syscall(SYS_futex, &g->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void team_barrier(struct team *t)
{
    if (t->parts == 1)
        return;
    uint32_t before = atomic_load_explicit(&t->phase.value, memory_order_relaxed);
    if (atomic_fetch_add(&t->arrived, 1) + 1 == (uint32_t)t->parts) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed); /* published by the opening */
        gate_open(&t->phase);
    } else {
        gate_wait(&t->phase, before, t->spin);
    }
}

static void pin_to(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one); /* a CPU that has gone meanwhile: left where it is */
}

/* One core for each member, as base/topology.h says. False: no memory. */
static bool place_members(struct team *t)
{
    bool allowed[TOPOLOGY_CPUS_MAX];
    struct topology *machine = malloc(sizeof *machine);
    t->cpus = malloc((size_t)t->parts * sizeof *t->cpus);
    if (!machine || !t->cpus) {
        free(machine);
        return false;
    }
    bool known = topology_allowed(allowed);
    if (!topology_read("/sys/devices/system", machine))
        topology_flat(TOPOLOGY_CPUS_MAX, machine);
    if (!known || topology_place(machine, allowed, t->parts, t->cpus) == 0) {
        free(t->cpus);
        t->cpus = NULL;
    } else if (!numa_is_chosen()) {
        t->memory = numa_plan(machine, t->cpus, t->parts);
        t->refused = numa_follow(&t->memory);
    }
    free(machine);
    return true;
}

/* A member's sums lie on its stack: they are nobody else's, unlike what memory is spread for. */
static void keep_stack_near(void)
{
    pthread_attr_t a;
    void *stack;
    size_t bytes;
    if (pthread_getattr_np(pthread_self(), &a) != 0)
        return;
    if (pthread_attr_getstack(&a, &stack, &bytes) == 0)
        (void)numa_stay(stack, bytes); /* refused: spread, which is slower and not wrong */
    pthread_attr_destroy(&a);
}

static void *member_main(void *arg)
{
    struct member me = *(struct member *)arg;
    free(arg);
    struct team *t = me.team;
    if (t->cpus)
        pin_to(t->cpus[me.part]);
    if (t->memory.kind == NUMA_SPREAD)
        keep_stack_near();
    for (uint32_t seen = 0;; seen++) {
        gate_wait(&t->go, seen, t->spin);
        if (t->quit)
            return NULL;
        t->fn(t->arg, me.part, t->parts);
        team_barrier(t);
    }
}

static bool start_member(struct team *t, int part)
{
    struct member *m = malloc(sizeof *m);
    if (m == NULL)
        return false;
    *m = (struct member){.team = t, .part = part};
    /* Signals are for the program's own threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc == 0) {
        rc = pthread_attr_setstacksize(&attr, TEAM_STACK);
        if (rc == 0)
            rc = pthread_create(&t->threads[part - 1], &attr, member_main, m);
        pthread_attr_destroy(&attr);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        free(m);
        return false;
    }
    t->started++;
    return true;
}

/* Whether the caller, who is a member, has as much stack as members may use: a process's first
 * thread has as much as a limit says by then, which this raises. */
static bool caller_has_stack(void)
{
    struct rlimit limit;
    pthread_attr_t a;
    void *stack;
    size_t bytes = TEAM_STACK;
    if (getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur < TEAM_STACK) {
        limit.rlim_cur = limit.rlim_max < TEAM_STACK ? limit.rlim_max : TEAM_STACK;
        (void)setrlimit(RLIMIT_STACK, &limit); /* refused: as with a limit that is too low */
    }
    if (pthread_getattr_np(pthread_self(), &a) != 0)
        return true;
    (void)pthread_attr_getstack(&a, &stack, &bytes);
    pthread_attr_destroy(&a);
    if (bytes < TEAM_STACK / 2)
        log_error("stack_too_small", "bytes=%zu least=%zu hint=\"raise ulimit -s\"", bytes,
                  TEAM_STACK / 2);
    return bytes >= TEAM_STACK / 2;
}

struct team *team_create(int threads, bool spin, bool pin)
{
    if (!caller_has_stack())
        return NULL;
    if (threads < 1)
        threads = 1;
    if (threads > TEAM_MAX)
        threads = TEAM_MAX;
    struct team *t = aligned_alloc(_Alignof(struct team), sizeof *t);
    if (t == NULL)
        return NULL;
    *t = (struct team){.parts = threads, .spin = spin};
    t->threads = calloc((size_t)threads, sizeof *t->threads);
    bool ok = t->threads != NULL && (!pin || place_members(t));
    for (int part = 1; ok && part < threads; part++)
        ok = start_member(t, part);
    if (!ok) {
        team_destroy(t);
        return NULL;
    }
    return t;
}

void team_destroy(struct team *t)
{
    if (t == NULL)
        return;
    assert(!t->running);
    t->quit = true; /* published by the opening */
    gate_open(&t->go);
    for (int i = 0; i < t->started; i++)
        pthread_join(t->threads[i], NULL);
    if (t->memory.kind != NUMA_ANYWHERE && t->refused == 0)
        numa_follow_nobody();
    free(t->threads);
    free(t->cpus);
    free(t);
}

int team_size(const struct team *t)
{
    return t->parts;
}

void team_place(struct team *t, void *memory, size_t bytes)
{
    int rc = numa_place(&t->memory, memory, bytes);
    if (t->refused == 0)
        t->refused = rc;
}

int team_memory_nodes(const struct team *t, int *refused)
{
    *refused = t->refused;
    return t->refused ? 0 : t->memory.nodes;
}

/* Member 0 is pinned while the others may need it, and no longer: threads that it makes between
 * runs would inherit its mask. */
void team_run(struct team *t, team_fn *fn, void *arg)
{
    cpu_set_t before;
    bool pinned = t->cpus && sched_getaffinity(0, sizeof before, &before) == 0;
    assert(!t->running);
    if (pinned)
        pin_to(t->cpus[0]);
    t->running = true;
    t->fn = fn;
    t->arg = arg;
    if (t->parts > 1)
        gate_open(&t->go);
    fn(arg, 0, t->parts);
    team_barrier(t);
    if (pinned)
        sched_setaffinity(0, sizeof before, &before);
    t->running = false;
}

void team_split(size_t n, size_t grain, int part, int parts, size_t *begin, size_t *end)
{
    assert(grain > 0 && parts > 0 && part >= 0 && part < parts);
    size_t grains = n / grain + (n % grain != 0);
    size_t each = grains / (size_t)parts, extra = grains % (size_t)parts, p = (size_t)part;
    size_t first = p * each + (p < extra ? p : extra);
    size_t last = first + each + (p < extra);
    *begin = first * grain < n ? first * grain : n;
    *end = last * grain < n ? last * grain : n;
}
