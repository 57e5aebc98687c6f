/* Runs many seeds, or one again:
 *     sim --seeds 10000 [--from N]     every seed must hold, and every fault must have fired in
 * every state sim --seed 1234 --verbose        one run, replayed sim --planted                    a
 * bug per law, each of which must be noticed
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sim/sim.h"

static bool check_coverage(const struct sim_coverage *c)
{
    bool ok = true;
    static const char *const kinds[] = {"", "offer", "filled", "landed", "missing"};
    static const char *const states[] = {"queued", "reserving", "filling", "decoding"};
    for (int f = 0; f < SIM_FRAME_FAULTS; f++) {
        for (int k = WIRE_OFFER; k <= WIRE_MISSING; k++) {
            bool possible = f != SIM_DAMAGE || k == WIRE_OFFER; /* only offers carry data */
            printf("  %-7s %-8s %lld\n", sim_fault_names[f], kinds[k], (long long)c->frames[f][k]);
            if (possible && c->frames[f][k] == 0) {
                printf("NOT COVERED: %s of a %s frame\n", sim_fault_names[f], kinds[k]);
                ok = false;
            }
        }
    }
    for (int e = 0; e < SIM_EVENTS; e++) {
        for (int s = REQUEST_QUEUED; s <= REQUEST_DECODING; s++) {
            /* Only what holds a node can lose it; only a placed prefill call can be lost with its
             * node; only tokens can be stopped; nodes refuse in the two states that ask them. */
            bool possible = e == SIM_CANCEL || (s != REQUEST_QUEUED);
            if (e == SIM_KILL_P)
                possible = s == REQUEST_FILLING;
            if (e == SIM_STOP)
                possible = s == REQUEST_FILLING || s == REQUEST_DECODING;
            if (e == SIM_BUSY)
                possible = s == REQUEST_RESERVING || s == REQUEST_FILLING;
            printf("  %-12s %-10s %lld\n", sim_event_names[e], states[s],
                   (long long)c->events[e][s]);
            if (possible && c->events[e][s] == 0) {
                printf("NOT COVERED: %s while %s\n", sim_event_names[e], states[s]);
                ok = false;
            }
        }
    }
    printf("  requests %lld tokens %lld handoffs %lld prefix hits %lld missing rounds %lld crc "
           "failures %lld\n",
           (long long)c->requests, (long long)c->tokens, (long long)c->handoffs,
           (long long)c->prefix_hits, (long long)c->missing_rounds, (long long)c->crc_failures);
    return ok && c->missing_rounds > 0 && c->crc_failures > 0 && c->prefix_hits > 0;
}

static int run_seeds(uint64_t from, uint64_t count, bool demand_coverage)
{
    struct sim_coverage coverage = {0};
    int failed = 0;
    for (uint64_t seed = from; seed < from + count && failed < 5; seed++) {
        struct sim_result r;
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
        printf("%-16s %s%s\n", sim_plant_names[p], r.failed ? "noticed: " : "NOT NOTICED",
               r.failed ? r.why : "");
        missed += !r.failed;
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
