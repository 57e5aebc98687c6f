/* One product as a work that is cut while it is done (base/work.h): a member whose core is slowed
 * holds up the others for a piece, not for all of its share.
 *
 * What is taken are panels of PACKED_ROWS columns, of one block of rows after the other
 * (ops_gemm_blocks()). A row's bits do not depend on where the cuts are (ops.h).
 *
 *     if (gemm_has_pieces(a.w, parts))
 *         gemm_run_pieces(ops, &a, work, part, parts);
 *     else
 *         ops->gemm(&a, part, parts);
 *
 * Owner: the caller's. Thread: every member of a team, at most WORK_SLOTS such works between two of
 * its meetings.
 */
#ifndef KERNELS_GEMM_PIECES_H
#define KERNELS_GEMM_PIECES_H

#include "base/work.h"
#include "kernels/ops.h"

/* Whether there are enough columns for that. */
bool gemm_has_pieces(const struct matrix *w, int parts);
void gemm_run_pieces(const struct ops *ops, const struct op_gemm *a, struct work *work, int part,
                     int parts);

#endif
