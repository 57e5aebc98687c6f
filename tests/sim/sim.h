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

#include "kvtransfer/handoff.h"
#include "router/request.h"

enum sim_fault {
    SIM_LOSE,
    SIM_DOUBLE,
    SIM_DELAY,
    SIM_DAMAGE,
    SIM_BREAK,   /* of a KV link */
    SIM_REORDER, /* a frame overtakes one that was sent before it */
    SIM_FRAME_FAULTS
};

/* Where the two ends of a handoff stand when a fault strikes one of its frames; NONE: that end does
 * not know the ticket (any more). */
enum { SIM_LANDING_NONE = LANDING_COMPLETE + 1, SIM_LANDINGS };
enum { SIM_OFFERING_NONE = OFFERING_FAILED + 1, SIM_OFFERINGS };

enum sim_event {
    SIM_KILL_P,
    SIM_KILL_D,
    SIM_KILL_ROUTER,
    SIM_CALL_BREAK, /* of a gRPC call: all that is lost of an ordered stream is its rest */
    SIM_SLOW,       /* a message of a call takes long */
    SIM_CANCEL,     /* the client goes away */
    SIM_STOP,       /* the router ends a choice */
    SIM_BUSY,       /* a node refuses */
    SIM_PREEMPT,    /* a node takes back what it gave */
    SIM_DRAIN,      /* a node takes nothing new, ends what is left, and goes */
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
    int64_t landings[SIM_FRAME_FAULTS][SIM_LANDINGS];   /* by state of the receiver */
    int64_t offerings[SIM_FRAME_FAULTS][SIM_OFFERINGS]; /* and of the sender */
    int64_t events[SIM_EVENTS][REQUEST_STATES];         /* by state of the requests concerned */
    int64_t tokens, requests, resumed, prefix_hits, missing_rounds, crc_failures, handoffs;
    /* Grammars that a node compiled, those whose calls had gone, those that several calls waited
     * for; messages that waited meanwhile. */
    int64_t compiled, compiled_for_none, compiled_for_many, held;
};

struct sim_result {
    bool failed;
    char why[400];
    int64_t virtual_ns, events;
};

extern const char *const sim_plant_names[PLANTS];
/* What a run must say when it notices: the law's own complaint, not some other's. */
extern const char *const sim_plant_reasons[PLANTS];
extern const char *const sim_event_names[SIM_EVENTS];
extern const char *const sim_fault_names[SIM_FRAME_FAULTS];

void sim_run(uint64_t seed, enum sim_plant plant, bool verbose, struct sim_coverage *coverage,
             struct sim_result *result);

#endif
