/* Choosing a token from logits: penalties and bias, temperature, top-k, top-p, min-p, and a draw
 * that is a pure function of (seed, choice, position), so that any node continues any sequence with
 * the same tokens (LAW 5).
 *
 * Order: the grammar's mask; logit bias; repetition, presence, frequency penalties; masks (EOS and
 * stop ids below min_tokens); greedy when temperature is 0, else temperature, top-k, top-p
 * (smallest set whose probability reaches it), min-p. Log-probabilities are those of the logits
 * after bias and penalties, before temperature and cuts. Ties go to the lower id. A row with a NaN
 * or without a finite logit is ST_INTERNAL: the request fails, it never gets a made-up token. What
 * a logit weighs, and all of them (kernels/logits.h), is the same bits on every CPU.
 *
 * Thread: one sampler per thread (it has scratch memory, sized at create).
 */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "proto/messages.h"

struct sampler;

struct sampler_input {
    const float *logits; /* [vocab]; not changed */
    const struct msg_sampling *spec;
    const int32_t *ids; /* prompt and generated */
    int32_t n_ids, n_prompt;
    int32_t choice;
    const int32_t *eos;
    int32_t n_eos;
    const uint64_t *mask; /* NULL: all; else a bit per id: those that the grammar lets follow */
    bool may_end; /* with a mask: EOS and stop ids may follow too; nothing else of it does */
};

struct sampler *sampler_create(int32_t vocab);
void sampler_destroy(struct sampler *s);
/* Sets id, logprob, top[0..n_top) of *out (position and choice too); out->top points into the
 * sampler until the next call. */
enum status sampler_pick(struct sampler *s, const struct sampler_input *in, struct msg_token *out);
/* Scores `id` against logits [vocab] as the model gave them: no bias, penalty, mask or temperature.
 * Sets id, rank (ties: the lower id comes first), logprob and top of *out, which points into the
 * sampler until the next call. ST_INTERNAL as above. */
enum status sampler_score(struct sampler *s, const float *logits, int32_t id, int32_t n_top,
                          struct msg_score *out);
/* Ranges: every field finite and within what the API allows. */
enum status sampling_check(const struct msg_sampling *spec, int32_t vocab, struct error *err);
struct msg_sampling sampling_default(void);

#endif
