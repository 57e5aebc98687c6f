/* Where the time of forwards goes: by kind of op, over all members of the team.
 *
 * Off, it costs a branch per barrier; on, two readings of the clock per op and barrier. What is
 * computed is the same to the bit. Times are of threads: those of all kinds, and what is between
 * ops, add up to forward_ns x members.
 *
 * Owner and thread: the model's. Not while a forward runs.
 *
 *     model_profile_start(m, &err);
 *     ... model_forward() ...
 *     model_profile_read(m, &p);
 */
#ifndef MODEL_PROFILE_H
#define MODEL_PROFILE_H

#include <stdint.h>

#include "base/status.h"
#include "model/model.h"

enum profile_kind {
    PROFILE_EMBED,
    PROFILE_NORM,
    PROFILE_QUANTIZE, /* rows to bytes or bf16 */
    PROFILE_QKV,      /* gemms: of queries, keys and values, latents' included */
    PROFILE_ROPE,
    PROFILE_KV_STORE,
    PROFILE_ATTENTION,
    PROFILE_ATTENTION_OUT,
    PROFILE_GATE_UP,
    PROFILE_ACTIVATION,
    PROFILE_DOWN,
    PROFILE_EXPERTS, /* all gemms of chosen experts, feed-forward or attention */
    PROFILE_ROUTE,   /* the router's gemm, the choice, and adding up */
    PROFILE_ABSORB,  /* latents' up-projections, a head at a time */
    PROFILE_HEAD,    /* logits, capped or not */
    PROFILE_BARRIER, /* waiting for other members */
    PROFILE_KINDS
};
/* "attention", "gemm_gate_up" ... */
const char *profile_kind_name(enum profile_kind kind);

struct profile_total {
    int64_t ns, calls; /* of all members; of a gemm, its pieces, and the unit behind them */
};

struct model_profile {
    int members;
    int64_t forwards, forward_ns;
    struct profile_total by[PROFILE_KINDS];
};

/* From now on, from nothing; again: anew. ST_NO_MEMORY. */
enum status model_profile_start(struct model *m, struct error *err);
void model_profile_stop(struct model *m);
/* Since the start; all 0 when off. */
void model_profile_read(const struct model *m, struct model_profile *out);

#endif
