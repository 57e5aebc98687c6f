/* (token, chosen expert) pairs of a mixture in order of expert, then of token, so that each expert
 * that was chosen is read once.
 *
 * Owner: the caller. Pure. */
#ifndef KERNELS_EXPERT_PAIRS_H
#define KERNELS_EXPERT_PAIRS_H

#include <stdint.h>

/* n = tokens * top_k pairs. */
struct expert_pairs {
    int32_t *pair_of; /* [n] of each choice its pair */
    int32_t *row_of;  /* [n] of each pair its token */
    int32_t *end;     /* [experts] behind each one's last pair */
};

/* expert: [tokens, top_k], each less than `experts`. */
void expert_pairs_sort(const int32_t *expert, int32_t tokens, int32_t top_k, int32_t experts,
                       const struct expert_pairs *out);

#endif
