#include <criterion/criterion.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/team.h"

struct sum {
    struct team *team;
    const int *in;
    size_t n;
    long part[64], total[64];
};

/* Two steps with a barrier between: partial sums, then everybody adds up all of them. */
static void sum_body(void *arg, int part, int parts)
{
    struct sum *s = arg;
    size_t begin, end;
    team_split(s->n, 3, part, parts, &begin, &end);
    s->part[part] = 0;
    for (size_t i = begin; i < end; i++)
        s->part[part] += s->in[i];
    team_barrier(s->team);
    s->total[part] = 0;
    for (int i = 0; i < parts; i++)
        s->total[part] += s->part[i];
    team_barrier(s->team);
}

static void sums(int threads, bool spin, bool pin, int rounds)
{
    static int in[1000];
    struct team *t = team_create(threads, spin, pin);
    cr_assert_not_null(t);
    cr_assert_eq(team_size(t), threads);
    struct sum s = {.team = t, .in = in};
    for (int round = 0; round < rounds; round++) {
        long want = 0;
        s.n = (size_t)(round * 7 % 1000);
        for (size_t i = 0; i < s.n; i++)
            want += in[i] = round + (int)i;
        team_run(t, sum_body, &s);
        for (int i = 0; i < threads; i++)
            cr_assert_eq(s.total[i], want, "threads %d round %d part %d", threads, round, i);
    }
    team_destroy(t);
}

Test(team, sums_sleeping, .timeout = 60)
{
    for (int threads = 1; threads <= 9; threads += 2)
        sums(threads, false, false, 300);
}

Test(team, sums_spinning, .timeout = 60)
{
    sums(2, true, false, 2000);
    sums(5, true, true, 50);
}

static void count_body(void *arg, int part, int parts)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

Test(team, every_member_runs_once, .timeout = 60)
{
    struct team *t = team_create(4, false, true);
    atomic_int count = 0;
    for (int i = 1; i <= 500; i++) {
        team_run(t, count_body, &count);
        cr_assert_eq(atomic_load(&count), 4 * i);
    }
    team_destroy(t);
}

static void note_cpu(void *arg, int part, int parts)
{
    ((int *)arg)[part] = sched_getcpu();
}

/* Each to a CPU of its own; behind a run the caller's mask is what it was. */
Test(team, pinned_members_have_cpus_of_their_own, .timeout = 60)
{
    cpu_set_t before, after;
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    int threads = CPU_COUNT(&before) < 4 ? CPU_COUNT(&before) : 4, cpus[4];
    struct team *t = team_create(threads, false, true);
    for (int round = 0; round < 20; round++) {
        team_run(t, note_cpu, cpus);
        for (int i = 0; i < threads; i++) {
            cr_assert(CPU_ISSET(cpus[i], &before));
            for (int k = 0; k < i; k++)
                cr_assert_neq(cpus[i], cpus[k], "members %d and %d", i, k);
        }
        cr_assert_eq(sched_getaffinity(0, sizeof after, &after), 0);
        cr_assert(CPU_EQUAL(&before, &after));
    }
    team_destroy(t);
}

Test(team, sizes_are_clamped)
{
    struct team *t = team_create(-3, false, false);
    cr_assert_eq(team_size(t), 1);
    atomic_int count = 0;
    team_run(t, count_body, &count);
    team_barrier(t);
    cr_assert_eq(atomic_load(&count), 1);
    team_destroy(t);
    team_destroy(NULL);
}

Test(team, may_end_without_having_run)
{
    for (int i = 0; i < 50; i++)
        team_destroy(team_create(3, i % 2 == 0, false));
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

Test(team, idle_uses_no_cpu, .timeout = 30)
{
    struct team *t = team_create(4, true, false);
    atomic_int count = 0;
    team_run(t, count_body, &count);
    clock_sleep_ns(20 * NS_PER_MS);
    double before = cpu_seconds();
    clock_sleep_ns(300 * NS_PER_MS);
    cr_assert_lt(cpu_seconds() - before, 0.03, "spinning ended");
    team_destroy(t);
}

Test(team, split_covers_everything_once)
{
    struct rng r = rng_seed(8);
    for (int round = 0; round < 3000; round++) {
        size_t n = rng_below(&r, 200), grain = 1 + rng_below(&r, 40);
        int parts = 1 + (int)rng_below(&r, 20);
        size_t expect = 0, least = SIZE_MAX, most = 0;
        for (int p = 0; p < parts; p++) {
            size_t begin, end;
            team_split(n, grain, p, parts, &begin, &end);
            cr_assert_eq(begin, expect, "n %zu grain %zu part %d of %d", n, grain, p, parts);
            cr_assert(begin % grain == 0 || begin == n);
            size_t grains = (end - begin + grain - 1) / grain;
            least = grains < least ? grains : least;
            most = grains > most ? grains : most;
            expect = end;
        }
        cr_assert_eq(expect, n);
        cr_assert_leq(most - least, 1, "even");
    }
}

/* Uses as much stack as a member may. */
static void deep_body(void *arg, int part, int parts)
{
    volatile char deep[TEAM_STACK / 2 - 65536];
    for (size_t i = 0; i < sizeof deep; i += 1024)
        deep[i] = (char)part;
    if (part == 0)
        *(int *)arg = deep[sizeof deep / 1024 * 1024 - 1024] + parts;
}

/* What a process whose stack is limited to so many bytes, and at most `most`, comes to. */
static int deep_process(rlim_t bytes, rlim_t most)
{
    const pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int got = 0;
        if (setrlimit(RLIMIT_STACK, &(struct rlimit){bytes, most}) != 0)
            _exit(100);
        struct team *t = team_create(2, false, false);
        if (!t)
            _exit(3);
        team_run(t, deep_body, &got);
        team_destroy(t);
        _exit(got == 2 ? 0 : 101);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

Test(team, the_caller_has_stack_too)
{
    struct rlimit now;
    cr_assert_eq(getrlimit(RLIMIT_STACK, &now), 0);
    if (now.rlim_max < TEAM_STACK)
        cr_skip_test("the stack cannot be raised here");
    cr_expect_eq(deep_process(512 << 10, now.rlim_max), 0);
    cr_expect_eq(deep_process(512 << 10, 1 << 20), 3, "a stack of a MiB was enough");
}
