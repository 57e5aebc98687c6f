/* Passes over the logits of one row, as large as a vocabulary, for the sampler: the largest, where
 * a larger one is, and what all weigh. Vectors where the CPU has them; the results are the same
 * bits on every CPU. Pure; thread: any.
 *
 *     struct logits_peak peak = logits_find_peak(x, n);
 *     double all = logits_weigh(x, n, &(struct logits_scale){peak.max, 1});
 */
#ifndef KERNELS_LOGITS_H
#define KERNELS_LOGITS_H

#include <stdbool.h>
#include <stdint.h>

#define LOGITS_BLOCK 64
#define LOGITS_NEGLIGIBLE (-50.0) /* e to that adds nothing to a double sum that holds a 1 */

struct logits_peak {
    float max;  /* -infinity where there is none */
    int32_t id; /* the lowest that has it; -1: none is above -infinity */
    bool nan;   /* one of them is no number: the rest means nothing */
};
struct logits_peak logits_find_peak(const float *x, int32_t n);

/* The first block of LOGITS_BLOCK at `from` (a multiple of it) or behind it that has an element
 * above `than`; n or more: none has. No element is NaN. */
int32_t logits_skip(const float *x, int32_t n, int32_t from, float than);

/* A logit weighs e^((logit - max) / temperature), or 0 where that is below e^LOGITS_NEGLIGIBLE. */
struct logits_scale {
    float max; /* no logit is larger */
    double temperature;
};
double logits_weight(float logit, const struct logits_scale *s);
/* The sum over n logits, added up in eight lanes. */
double logits_weigh(const float *x, int32_t n, const struct logits_scale *s);

/* The i-th body that this CPU can run, the best first, NULL past the end: for tests and
 * benchmarks. */
struct logits_body {
    const char *name; /* "portable", "avx2", "avx512" */
    struct logits_peak (*find_peak)(const float *x, int32_t n);
    int32_t (*skip)(const float *x, int32_t n, int32_t from, float than);
    double (*weigh)(const float *x, int32_t n, const struct logits_scale *s);
};
const struct logits_body *logits_body_at(int i);

#endif
