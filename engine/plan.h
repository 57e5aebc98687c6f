/* The batch builder: which runnable sequences take part in a step, and with how many tokens.
 *
 * Pure: items in, `bring` out. Decoding sequences go first, one token each; when there are more
 * than seats, they take turns from `rotate` on. One seat is kept for a prefill that waits. The
 * prompt tokens' budget is then shared: half of it goes to the oldest (so that a long prompt always
 * moves on), what is left to those with the least to do (so that a short one never waits for a long
 * one to end), what is left then to the oldest again.
 *
 * Thread: any.
 */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

struct plan_item { /* in order of age, oldest first */
    int32_t need;  /* known tokens without KV, >= 1 */
    bool decode;   /* need is 1 and it is the last generated token */
    int32_t bring; /* out: 0..need */
};

struct plan_budget {
    int32_t max_sequences; /* >= 1 */
    int32_t chunk_tokens;  /* for prefills, >= 1 */
    int32_t rotate;        /* which decoding item has the first turn */
};

struct plan_result {
    int32_t sequences, prefill_tokens, decode_tokens;
    int32_t rotate; /* for the next step */
};

void plan_batch(struct plan_item *items, int32_t n, const struct plan_budget *budget,
                struct plan_result *out);

/* Measured cost, smoothed; 0: not measured yet. */
struct plan_cost {
    int64_t prefill_ns_per_token, decode_ns_per_step;
};
/* Prompt tokens that fit into a step of `budget_ns` beside the decodes: PLAN_CHUNK_MIN..max. */
#define PLAN_CHUNK_MIN 16
int32_t plan_chunk_tokens(const struct plan_cost *cost, int64_t budget_ns, int32_t max,
                          bool decoding);
void plan_measure(struct plan_cost *cost, int32_t prefill_tokens, int32_t decode_tokens,
                  int64_t ns);

#endif
