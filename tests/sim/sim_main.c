/* Runs many seeds, or one again:
 *
 *     sim --seeds 10000 [--from N]    every seed must hold, every fault must fire in every state
 *     sim --seed 1234 --verbose       one run, replayed
 *     sim --planted                   a bug per law: each must be noticed, and for its own reason
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "sim/sim.h"

/* What can strike where. Frames: only offers carry data that can be damaged. */
#define IN(s) (1u << (s))
static const unsigned event_states[SIM_EVENTS] = {
    [SIM_KILL_P] = IN(REQUEST_RESERVING) | IN(REQUEST_FILLING), /* while one is placed on it */
    [SIM_KILL_D] = IN(REQUEST_RESERVING) | IN(REQUEST_FILLING) | IN(REQUEST_DECODING),
    [SIM_KILL_ROUTER] =
        IN(REQUEST_QUEUED) | IN(REQUEST_RESERVING) | IN(REQUEST_FILLING) | IN(REQUEST_DECODING),
    [SIM_CALL_BREAK] = IN(REQUEST_RESERVING) | IN(REQUEST_FILLING) | IN(REQUEST_DECODING),
    [SIM_SLOW] = IN(REQUEST_RESERVING) | IN(REQUEST_FILLING) | IN(REQUEST_DECODING),
    [SIM_CANCEL] =
        IN(REQUEST_QUEUED) | IN(REQUEST_RESERVING) | IN(REQUEST_FILLING) | IN(REQUEST_DECODING),
    [SIM_STOP] = IN(REQUEST_FILLING) | IN(REQUEST_DECODING),  /* only what speaks can be stopped */
    [SIM_BUSY] = IN(REQUEST_RESERVING) | IN(REQUEST_FILLING), /* when D is asked, when P is */
    [SIM_PREEMPT] = IN(REQUEST_DECODING),
    [SIM_DRAIN] = IN(REQUEST_RESERVING) | IN(REQUEST_FILLING) | IN(REQUEST_DECODING),
};
/* A frame may find the landing open, filled or complete, or its ticket unknown: that is so rare
 * that it is demanded of overtaking only. A sender that is done or has failed sends nothing; what
 * is sent again after Missing makes it streaming again. */
static const unsigned landing_states = IN(LANDING_OPEN) | IN(LANDING_FILLED) | IN(LANDING_COMPLETE);
static const unsigned offering_states = IN(OFFERING_STREAMING) | IN(OFFERING_WAITING);

static unsigned demanded_landings(int fault)
{
    if (fault == SIM_DAMAGE)
        return IN(LANDING_OPEN) | IN(LANDING_FILLED);
    return fault == SIM_REORDER ? landing_states | IN(SIM_LANDING_NONE) : landing_states;
}

static bool check_row(const char *what, const char *const *names, const int64_t *counts, int n,
                      unsigned demanded)
{
    bool ok = true;
    printf("  %-12s", what);
    for (int i = 0; i < n; i++)
        printf("  %s %lld", names[i], (long long)counts[i]);
    printf("\n");
    for (int i = 0; i < n; i++)
        if ((demanded & IN(i)) && counts[i] == 0) {
            printf("NOT COVERED: %s, %s\n", what, names[i]);
            ok = false;
        }
    return ok;
}

static bool check_coverage(const struct sim_coverage *c)
{
    bool ok = true;
    static const char *const kinds[] = {"", "offer", "filled", "landed", "missing"};
    static const char *const states[] = {"queued", "reserving", "filling", "decoding"};
    static const char *const landings[] = {"open", "filled", "complete", "unknown"};
    static const char *const offerings[] = {"streaming", "waiting", "done", "failed", "unknown"};
    unsigned frames = IN(WIRE_OFFER) | IN(WIRE_FILLED) | IN(WIRE_LANDED) | IN(WIRE_MISSING);
    printf("faults of KV frames, by kind of frame:\n");
    for (int f = 0; f < SIM_FRAME_FAULTS; f++)
        ok &= check_row(sim_fault_names[f], kinds + 1, c->frames[f] + 1, WIRE_MISSING,
                        (f == SIM_DAMAGE ? IN(WIRE_OFFER) : frames) >> 1);
    printf("by state of the receiving end:\n");
    for (int f = 0; f < SIM_FRAME_FAULTS; f++)
        ok &= check_row(sim_fault_names[f], landings, c->landings[f], SIM_LANDINGS,
                        demanded_landings(f));
    printf("by state of the sending end:\n");
    for (int f = 0; f < SIM_FRAME_FAULTS; f++)
        ok &= check_row(sim_fault_names[f], offerings, c->offerings[f], SIM_OFFERINGS,
                        f == SIM_DAMAGE ? IN(OFFERING_STREAMING) : offering_states);
    printf("events, by state of the request:\n");
    for (int e = 0; e < SIM_EVENTS; e++)
        ok &= check_row(sim_event_names[e], states, c->events[e], REQUEST_DONE, event_states[e]);
    printf("requests %lld tokens %lld handoffs %lld prefix hits %lld missing rounds %lld crc "
           "failures %lld\n",
           (long long)c->requests, (long long)c->tokens, (long long)c->handoffs,
           (long long)c->prefix_hits, (long long)c->missing_rounds, (long long)c->crc_failures);
    printf("grammars compiled %lld, for nobody %lld, for several calls %lld; messages held %lld\n",
           (long long)c->compiled, (long long)c->compiled_for_none, (long long)c->compiled_for_many,
           (long long)c->held);
    ok &= c->compiled > 0 && c->compiled_for_none > 0 && c->compiled_for_many > 0;
    return ok && c->missing_rounds > 0 && c->crc_failures > 0 && c->prefix_hits > 0;
}

/* An assertion inside the code under test ends the process: say which run it was. */
static volatile uint64_t running_seed;

static void on_abort(int signal_number)
{
    char text[80];
    int n = snprintf(text, sizeof(text), "seed %llu ABORTED\n", (unsigned long long)running_seed);
    ssize_t written = write(STDOUT_FILENO, text, (size_t)n);
    (void)written;
}

static int run_seeds(uint64_t from, uint64_t count, bool demand_coverage)
{
    struct sim_coverage coverage = {0};
    int failed = 0;
    for (uint64_t seed = from; seed < from + count && failed < 5; seed++) {
        struct sim_result r;
        running_seed = seed;
        sim_run(seed, PLANT_NONE, false, &coverage, &r);
        if (r.failed) {
            failed++;
            printf("seed %llu FAILED: %s\n  again: sim --seed %llu --verbose\n",
                   (unsigned long long)seed, r.why, (unsigned long long)seed);
        }
    }
    bool covered = check_coverage(&coverage);
    printf("%llu passed, %d failed\n", (unsigned long long)count - (unsigned long long)failed,
           failed + (demand_coverage && !covered));
    return failed > 0 || (demand_coverage && !covered);
}

static int run_planted(void)
{
    int missed = 0;
    for (int p = PLANT_NONE + 1; p < PLANTS; p++) {
        struct sim_coverage coverage = {0};
        struct sim_result r = {0};
        uint64_t seed = 1;
        for (; seed <= 1000 && !r.failed; seed++)
            sim_run(seed, (enum sim_plant)p, false, &coverage, &r);
        bool right = r.failed && strstr(r.why, sim_plant_reasons[p]) != NULL;
        printf("%-16s %s%s\n", sim_plant_names[p],
               right      ? "noticed: "
               : r.failed ? "NOTICED FOR ANOTHER REASON: "
                          : "NOT NOTICED",
               r.failed ? r.why : "");
        missed += !right;
    }
    printf("%d passed, %d failed\n", PLANTS - 1 - missed, missed);
    return missed > 0;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 1000, from = 1, one = 0;
    bool planted = false, verbose = false, coverage = true;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--seeds") == 0)
            seeds = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--from") == 0)
            from = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            one = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--planted") == 0)
            planted = true;
        else if (strcmp(argv[i], "--any-coverage") == 0)
            coverage = false;
        else if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
    }
    log_init("sim", verbose ? LOG_DEBUG : LOG_ERROR, LOG_TEXT);
    signal(SIGABRT, on_abort);
    if (planted)
        return run_planted();
    if (one > 0) {
        struct sim_coverage c = {0};
        struct sim_result r;
        sim_run(one, PLANT_NONE, verbose, &c, &r);
        printf("seed %llu: %s; %.3f virtual seconds, %lld events\n", (unsigned long long)one,
               r.failed ? r.why : "holds", (double)r.virtual_ns / 1e9, (long long)r.events);
        return r.failed;
    }
    return run_seeds(from, seeds, coverage);
}
