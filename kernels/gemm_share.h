/* Many products as one work, cut anywhere: what a mixture of experts is.
 *
 * Each member of a team walks the same list of products and is given its part of them: the list's
 * whole cost is cut into equal pieces, of which a member takes some (base/work.h, or team_split()).
 * A border may fall inside a product, between two panels of PACKED_ROWS columns. So no weight is
 * read twice, nobody waits between one product and the next, and however few rows an expert has,
 * all members have as much to do. A row's bits do not depend on where the borders are (ops.h).
 *
 *     uint64_t cost = 0;
 *     for each product: cost += gemm_cost(w, tokens);
 *     of gemm_share_pieces(cost, members) some, [begin, end):
 *     struct gemm_share s = gemm_share_of(cost, begin, end, pieces);
 *     for each product, in the same order: if (gemm_share_take(&s, &a)) ops->gemm(&a, 0, 1);
 *
 * Owner: the caller's stack. Any thread.
 */
#ifndef KERNELS_GEMM_SHARE_H
#define KERNELS_GEMM_SHARE_H

#include "kernels/ops.h"

struct gemm_share {
    uint64_t at, begin, end; /* of the list's cost: passed so far; this share */
};

/* What so many rows times w cost, in bytes that memory could bring meanwhile. */
uint64_t gemm_cost(const struct matrix *w, int32_t tokens);
/* What it has to read. */
uint64_t gemm_weight_bytes(const struct matrix *w);
/* Into how many pieces so many members cut a list of that cost: of 256 KiB or less, so that who is
 * slower holds the others up for a piece alone, but few enough for each to walk the list so often.
 */
size_t gemm_share_pieces(uint64_t cost, size_t parts);
/* Pieces [begin, end) of so many. */
struct gemm_share gemm_share_of(uint64_t cost, size_t begin, size_t end, size_t pieces);
/* Whether some of the next product is in the share: sets its first and end. */
bool gemm_share_take(struct gemm_share *s, struct op_gemm *a);

#endif
