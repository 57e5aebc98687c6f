/* The rotary embedding of a model (Su et al. 2021): which kind, its numbers, and the frequencies
 * that follow. Plain data, no ownership; pure.
 */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_ROPE_FACTORS 512 /* of LongRoPE, one per pair */

enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN, ROPE_LONGROPE };

struct rope_config {
    enum rope_kind kind;
    int32_t dim; /* elements of a head that are rotated */
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    bool truncate;
    double attention_factor; /* of cos and sin; found from the other keys where not given */
    int32_t original_context;
    float short_factor[MODEL_ROPE_FACTORS], long_factor[MODEL_ROPE_FACTORS]; /* [dim / 2] */
};

/* inv_freq[dim / 2] of one set of frequencies; `is_long`: of LongRoPE beyond the original context.
 */
void model_rope_frequencies(const struct rope_config *r, bool is_long, float *inv_freq);

#endif
