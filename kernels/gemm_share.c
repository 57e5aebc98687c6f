#include "kernels/gemm_share.h"

/* Products of an element of w with a row, in the time that memory takes for a byte, as gemms of
 * bytes and of bf16 come to on two cores of Zen 4. The longer of the two hides the other. */
#define PRODUCTS_PER_BYTE_PACKED 7
#define PRODUCTS_PER_BYTE 4

#define PIECE_BYTES ((uint64_t)256 << 10) /* what memory could bring meanwhile */
#define PIECES_EACH 64                    /* at most, of each member */

static uint64_t panels_of(const struct matrix *w)
{
    return ((uint64_t)w->rows + PACKED_ROWS - 1) / PACKED_ROWS;
}

static uint64_t element_bytes(const struct matrix *w)
{
    return w->fp8 ? 1 : dtype_bytes(w->dtype);
}

static uint64_t panel_cost(const struct matrix *w, int32_t tokens)
{
    const uint64_t elements = (uint64_t)w->cols * PACKED_ROWS;
    const uint64_t products = elements * (uint64_t)tokens;
    const uint64_t bytes = w->packed ? packed_panel_bytes(w->packed) : elements * element_bytes(w);
    const uint64_t each = matrix_reads_bytes(w) ? PRODUCTS_PER_BYTE_PACKED : PRODUCTS_PER_BYTE;
    return bytes > products / each ? bytes : products / each;
}

uint64_t gemm_cost(const struct matrix *w, int32_t tokens)
{
    return panels_of(w) * panel_cost(w, tokens);
}

uint64_t gemm_weight_bytes(const struct matrix *w)
{
    if (w->packed)
        return packed_bytes(w->packed);
    return (uint64_t)w->rows * (uint64_t)w->cols * element_bytes(w);
}

/* Where a piece begins, without a product that could overflow. */
static uint64_t border(uint64_t cost, uint64_t piece, uint64_t pieces)
{
    return cost / pieces * piece + cost % pieces * piece / pieces;
}

size_t gemm_share_pieces(uint64_t cost, size_t parts)
{
    const uint64_t each = cost / PIECE_BYTES / parts + 1;
    return (size_t)(each < PIECES_EACH ? each : PIECES_EACH) * parts;
}

struct gemm_share gemm_share_of(uint64_t cost, size_t begin, size_t end, size_t pieces)
{
    return (struct gemm_share){.begin = border(cost, begin, pieces),
                               .end = border(cost, end, pieces)};
}

/* The panel, of those from `at` on that cost so much each, at which this border is. */
static uint64_t panel_at(uint64_t border, uint64_t at, uint64_t each, uint64_t panels)
{
    uint64_t panel = border > at ? (border - at + each / 2) / each : 0;
    return panel < panels ? panel : panels;
}

bool gemm_share_take(struct gemm_share *s, struct op_gemm *a)
{
    const uint64_t panels = panels_of(a->w), each = panel_cost(a->w, a->tokens), at = s->at;
    s->at += panels * each;
    if (s->at <= s->begin || at >= s->end)
        return false;
    const uint64_t first = panel_at(s->begin, at, each, panels);
    const uint64_t end = panel_at(s->end, at, each, panels);
    a->first = (int32_t)(first * PACKED_ROWS);
    a->end = end == panels ? a->w->rows : (int32_t)(end * PACKED_ROWS);
    return first < end;
}
