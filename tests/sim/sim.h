/* The cluster simulator: the real router core, roles, engines, movers and handoff machines, on
 * virtual time, over a network that loses, delays, doubles, reorders and damages, among nodes that
 * die and come back.
 *
 * One seed is one run and replays bit for bit. After every event the block sums of every engine are
 * checked; every token that reaches a client is compared at once with what an undisturbed model
 * says; at the end every request must have ended once, and every block, plan, offering and call
 * must be gone. `plant` breaks one law on purpose, in the shell that the simulator puts around the
 * real code: a run that does not notice is a failure of the simulator.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "kvtransfer/wire.h"
#include "router/request.h"

enum sim_fault {
    SIM_LOSE,
    SIM_DOUBLE,
    SIM_DELAY,
    SIM_DAMAGE,
    SIM_BREAK, /* of a KV link */
    SIM_FRAME_FAULTS
};

enum sim_event {
    SIM_KILL_P,
    SIM_KILL_D,
    SIM_CALL_BREAK, /* of a gRPC call */
    SIM_CANCEL,     /* the client goes away */
    SIM_STOP,       /* the router ends a choice */
    SIM_BUSY,       /* a node refuses */
    SIM_EVENTS
};

enum sim_plant {
    PLANT_NONE,
    PLANT_LAW1_CALL_END_UNSEEN, /* a node is not told that a call ended */
    PLANT_LAW2_OTHER_VALUES,    /* equal fingerprint, different KV */
    PLANT_LAW3_EARLY_REUSE,     /* blocks count as quiet while the mover may write to them */
    PLANT_LAW4_LANDED_EARLY,    /* a sequence joins before all has landed */
    PLANT_LAW5_SEED_LOST,       /* a resumed request draws from another seed */
    PLANT_LAW6_BLOCK_LOST,      /* quarantined blocks never come back */
    PLANT_LAW7_NO_DEADLINE, /* an unanswered Filled is never repeated, nor does anything time out */
    PLANT_LAW8_SAID_TWICE,  /* a token reaches the client twice */
    PLANTS
};

/* How often each fault fired in each state, over many runs. */
struct sim_coverage {
    int64_t frames[SIM_FRAME_FAULTS][WIRE_MISSING + 1]; /* by kind of frame */
    int64_t events[SIM_EVENTS][REQUEST_STATES];         /* by state of the requests concerned */
    int64_t tokens, requests, resumed, prefix_hits, missing_rounds, crc_failures, handoffs;
};

struct sim_result {
    bool failed;
    char why[400];
    int64_t virtual_ns, events;
};

extern const char *const sim_plant_names[PLANTS];
extern const char *const sim_event_names[SIM_EVENTS];
extern const char *const sim_fault_names[SIM_FRAME_FAULTS];

void sim_run(uint64_t seed, enum sim_plant plant, bool verbose, struct sim_coverage *coverage,
             struct sim_result *result);

#endif
