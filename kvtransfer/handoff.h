/* The two ends of a handoff, as pure state machines: what to offer next, what to take, when all has
 * landed.
 *
 *  offering (on P, one per receiving rank)
 *
 *    STREAMING --- all offered and filled ---> WAITING --- Landed ---> DONE
 *      ^  ^                                     |  |
 *      |  +------------ Missing{ranges} --------+  |
 *      +--------------- link lost, once -----------+
 *    from any: link lost again, or too many rounds ---> FAILED
 *
 *  landing (on D, one per ticket and rank)
 *
 *    OPEN --- Filled, something missing ---> FILLED --- the last slice lands ---> COMPLETE
 *      |                                       +--- nothing in flight: say Missing, stay
 *      +----- Filled, nothing missing --------------------------------------------> COMPLETE
 *
 * STREAMING: some layer has tokens that are computed and not yet offered, or may still get some.
 * WAITING: all is offered and said to be so (Filled); it is said again each HANDOFF_ANSWER_NS until
 * an answer comes. OPEN: slices are taken as they come. COMPLETE: every (layer, token, head) in the
 * plan has landed with a good CRC, counted here, never inferred from order (LAW 4).
 *
 * The handoff is idempotent (LAW 2): a slice that is there, or on its way, is dropped; Filled twice
 * is answered twice. No I/O, clock, thread or allocation after init: `now_ns` comes in, actions go
 * out. Owner: whoever drives (mover.c).
 */
#ifndef KVTRANSFER_HANDOFF_H
#define KVTRANSFER_HANDOFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "kvtransfer/slice.h"
#include "kvtransfer/wire.h"

#define HANDOFF_ANSWER_NS (1 * NS_PER_S)
#define HANDOFF_ROUNDS_MAX 64 /* Missing answers before the offering gives up */

/* ---- D ---- */

enum landing_state { LANDING_OPEN, LANDING_FILLED, LANDING_COMPLETE };
enum landing_verdict { LANDING_TAKE, LANDING_HAVE, LANDING_WRONG };

struct landing {
    enum landing_state state;
    /* The box that must land: all layers, this rank's heads, tokens have..end; but of sliding
     * layers only what they need to go on. */
    struct kv_slice need;
    const struct kv_groups *groups;
    int32_t words;            /* 64-bit words of a row; a row is one (layer, head) */
    uint64_t *landed, *taken; /* [layers * heads * words] */
    int64_t missing;          /* (layer, token, head) not landed */
    int32_t in_flight;        /* takes without landing_settle() */
    bool answer;              /* Filled came and is not answered */
};

/* Bytes of memory that landing_init() needs for its two bitmaps. */
size_t landing_bytes(const struct kv_slice *need);
/* `groups` (NULL: no layer slides) must outlive it. */
void landing_init(struct landing *l, const struct kv_slice *need, const struct kv_groups *groups,
                  void *memory);
/* An offered slice. TAKE: *take is the part to land (in `need`), to be settled later; HAVE: nothing
 * new in it; WRONG: it does not even touch the model's box. */
enum landing_verdict landing_offer(struct landing *l, const struct kv_slice *offered,
                                   struct kv_slice *take);
/* How a take ended: its bytes are in the pool with a good CRC, or they are not. */
void landing_settle(struct landing *l, const struct kv_slice *take, bool good);
/* Filled: the sender has offered everything up to kv_tokens. False: it is short of what is needed.
 */
bool landing_filled(struct landing *l, int32_t kv_tokens);
enum landing_reply { LANDING_QUIET, LANDING_SAY_LANDED, LANDING_SAY_MISSING };
/* What to answer now. Each Filled gets one answer, once nothing is in flight or all is there. */
enum landing_reply landing_reply(struct landing *l, struct wire_missing *missing);

/* ---- P ---- */

enum offering_state { OFFERING_STREAMING, OFFERING_WAITING, OFFERING_DONE, OFFERING_FAILED };
enum offering_act { OFFERING_IDLE, OFFERING_SLICE, OFFERING_SAY_FILLED };

struct offering {
    enum offering_state state;
    int32_t layers, head_begin, head_end;
    int32_t begin, end; /* tokens to bring: have .. kv length; of sliding layers from later on */
    const struct kv_groups *groups;
    int64_t token_bytes; /* of one token in one layer, all heads */
    int64_t slice_bytes_max;
    int32_t window, in_flight; /* offers posted and not quiet */
    bool filled;               /* the prefill is over: all layers are ready up to `end` */
    bool link_lost_once;
    int32_t rounds;
    int64_t asked_ns;                            /* when Filled was last said */
    int32_t *ready, *sent;                       /* [layers] tokens computed, tokens offered */
    struct kv_slice repair[WIRE_RANGES_MAX + 1]; /* one more: the rest of a layer that was cut */
    uint32_t n_repair;
};

struct offering_args {
    int32_t layers, head_begin, head_end;
    int32_t have, end;
    int64_t token_bytes, slice_bytes_max;
    int32_t window;
    const struct kv_groups *groups; /* NULL: no layer slides; must outlive the offering */
};

size_t offering_bytes(int32_t layers);
void offering_init(struct offering *o, const struct offering_args *args, void *memory);
/* KV of tokens [0, tokens) of a layer is in the pool. */
void offering_ready(struct offering *o, int32_t layer, int32_t tokens);
void offering_fill(struct offering *o); /* no more will come: everything is ready */
/* What to do now; OFFERING_SLICE counts as posted until offering_quiet(). */
enum offering_act offering_next(struct offering *o, int64_t now_ns, struct kv_slice *slice);
void offering_quiet(struct offering *o); /* one posted offer's memory is quiet */
/* The slice could not be posted or was lost on the way: it will be offered again. Still needs
 * offering_quiet(). */
void offering_return(struct offering *o, const struct kv_slice *slice);
/* Answers. What is missing may be another rank's to bring: then this one waits on. A range outside
 * the sequence is the peer's nonsense: false. */
void offering_landed(struct offering *o);
bool offering_missing(struct offering *o, const struct wire_missing *m);
/* The link went down: the first time everything is offered again (the receiver drops what it has),
 * the second time FAILED. */
void offering_link_lost(struct offering *o);
/* When to call offering_next() again if nothing happens before: 0: there is something to post that
 * found no room; NS_NEVER. */
int64_t offering_wake_ns(const struct offering *o);

#endif
