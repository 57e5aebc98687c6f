#include "kernels/gemm_pieces.h"

#include "kernels/gemm_share.h"

/* What a piece of a gemm costs at least, in bytes read from memory: several microseconds. */
#define PIECE_BYTES ((uint64_t)128 << 10)
#define PANELS_EACH 4 /* for a member; fewer are cut evenly */

bool gemm_has_pieces(const struct matrix *w, int parts)
{
    return parts > 1 && (size_t)w->rows >= (size_t)PANELS_EACH * PACKED_ROWS * (size_t)parts;
}

/* Panels of a piece that is worth being taken alone, of so many in all: see base/work.h. */
static size_t grain_of(const struct op_gemm *a, size_t all, int parts)
{
    const uint64_t each = gemm_cost(a->w, a->tokens) / all, most = all / (8 * (size_t)parts);
    const uint64_t n = PIECE_BYTES / (each > 0 ? each : 1);
    const uint64_t some = n < most ? n : most;
    return some < 2 ? 2 : some / 2 * 2;
}

/* A gemm in blocks of rows: what is taken are their panels, those of one block after the other. */
struct pieces {
    const struct op_gemm *op;
    size_t panels, blocks; /* of the matrix; of rows */
};

/* Panels [begin, end) of a block. */
static void run_piece(const struct ops *ops, const struct pieces *p, size_t block, size_t begin,
                      size_t end)
{
    struct op_gemm_rows part;
    ops_cut_block(p->op, block, p->blocks, &part);
    part.op.first = (int32_t)(begin * PACKED_ROWS);
    part.op.end = end == p->panels ? p->op->w->rows : (int32_t)(end * PACKED_ROWS);
    ops->gemm(&part.op, 0, 1);
}

void gemm_run_pieces(const struct ops *ops, const struct op_gemm *a, struct work *work, int part,
                     int parts)
{
    const size_t panels = ((size_t)a->w->rows + PACKED_ROWS - 1) / PACKED_ROWS;
    const struct pieces p = {a, panels, ops_gemm_blocks(ops, a)};
    const size_t all = p.blocks * panels;
    size_t begin, end;
    work_begin(work, part, all, grain_of(a, all, parts));
    while (work_take(work, part, &begin, &end))
        for (size_t next; begin < end; begin = next) {
            const size_t block = begin / panels, at = block * panels;
            next = at + panels < end ? at + panels : end;
            run_piece(ops, &p, block, begin - at, next - at);
        }
}
