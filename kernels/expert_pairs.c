#include "kernels/expert_pairs.h"

#include <string.h>

void expert_pairs_sort(const int32_t *expert, int32_t tokens, int32_t top_k, int32_t experts,
                       const struct expert_pairs *out)
{
    const int32_t n = tokens * top_k;
    memset(out->end, 0, (size_t)experts * sizeof *out->end);
    for (int32_t i = 0; i < n; i++)
        out->end[expert[i]]++;
    for (int32_t e = 0, sum = 0; e < experts; e++) {
        const int32_t count = out->end[e];
        out->end[e] = sum; /* its beginning, until the pairs are put there */
        sum += count;
    }
    for (int32_t i = 0; i < n; i++) {
        const int32_t pair = out->end[expert[i]]++;
        out->pair_of[i] = pair;
        out->row_of[pair] = i / top_k;
    }
}
