/* Before a body with tiles is taken for the first time it must compute, here, what vectors
 * compute: whoever serves from a CPU, a hypervisor or an emulator whose tiles do something else
 * is better off without them. Takes about a millisecond. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

#define ROWS 40   /* of weights: two panels and a half */
#define COLS 1080 /* more than a piece of bytes in groups; spans are even in number */
#define TOKENS 53 /* enough for tiles: three, and a part of one */
#define FEW 13    /* one tile, and not all of it */
_Static_assert(TOKENS >= TILES_MORE_8 && FEW >= TILES_FEW_8 && FEW >= TILES_FEW_4,
               "rows for vectors");
#define SPANS ((COLS + PACKED_SPAN - 1) / PACKED_SPAN)

struct numbers {
    uint8_t q[PACKED_ROWS * COLS];
    float scale[PACKED_ROWS * COLS], min[PACKED_ROWS * COLS];
    float x[TOKENS * COLS];
    int8_t x_q[TOKENS * (SPANS + 2) * PACKED_SPAN];
    float x_scale[TOKENS * SPANS];
    int32_t x_sum[TOKENS * SPANS * 2];
    uint16_t x16[TOKENS * ((COLS + 31) / 32 * 32 + 32)];
    float tiles[TOKENS * ROWS], vectors[TOKENS * ROWS];
};

static uint32_t next(uint32_t *state) /* xorshift (Marsaglia 2003) */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static float next_float(uint32_t *state)
{
    return (float)((int32_t)next(state) >> 8) * 0x1p-23f;
}

static void fill(struct numbers *n, const struct packed *p)
{
    uint32_t state = 2463534242u;
    for (size_t i = 0; i < sizeof n->q; i++)
        n->q[i] = (uint8_t)(next(&state) >> (p->bits == 4 ? 28 : 24));
    for (size_t i = 0; i < PACKED_ROWS * COLS; i++) {
        n->scale[i] = next_float(&state);
        n->min[i] = next_float(&state);
    }
    for (size_t i = 0; i < TOKENS * COLS; i++)
        n->x[i] = next_float(&state);
    for (size_t r = 0; r < ROWS; r += PACKED_ROWS)
        packed_put(p, &(struct packed_rows){r, ROWS - r < PACKED_ROWS ? ROWS - r : PACKED_ROWS,
                                            n->q, n->scale, n->min});
}

struct trial {
    struct packed p;
    int tokens;
    bool whole; /* rows of x with one scale */
};

static bool agree(struct numbers *n, const struct trial *t, const struct ops *tiles,
                  const struct ops *vectors)
{
    struct packed p = t->p;
    assert(sizeof n->x_q >= TOKENS * rows8_stride(SPANS));
    void *memory = aligned_alloc(PACKED_ALIGN, packed_bytes(&p));
    if (!memory)
        return false;
    packed_place(&p, memory);
    fill(n, &p);
    const struct matrix w = {.rows = ROWS, .cols = COLS, .packed = &p};
    const bool paired = t->whole || packed_pairs(&p);
    const struct rows8 x8 = {n->x_q, n->x_scale, n->x_sum, SPANS, paired, t->whole};
    struct op_gemm a = {.out = n->tiles, .x8 = &x8, .w = &w, .tokens = t->tokens};
    vectors->quantize(&(struct op_quantize){.out = x8, .x = n->x, .tokens = TOKENS, .dim = COLS}, 0,
                      1);
    tiles->gemm(&a, 0, 1);
    a.out = n->vectors;
    vectors->gemm(&a, 0, 1);
    free(memory);
    return memcmp(n->tiles, n->vectors, (size_t)t->tokens * ROWS * sizeof n->tiles[0]) == 0;
}

/* Of bf16, whose order of addition vectors have where they emulate tiles. */
static bool agree_on_pairs(struct numbers *n, const struct ops *tiles)
{
    const size_t bytes = panels_bytes(ROWS, COLS), stride = rows16_stride(COLS);
    char *memory = aligned_alloc(PACKED_ALIGN, bytes);
    if (!memory)
        return false;
    memset(memory, 0, bytes);
    for (size_t r = 0; r < ROWS; r++)
        panels_put(memory, COLS, r, 0, r % 2 ? n->scale + r : n->min + r, COLS);
    const struct matrix w = {
        .data = memory, .dtype = DTYPE_BF16, .rows = ROWS, .cols = COLS, .panels = true};
    struct op_gemm a = {.out = n->tiles, .x16 = n->x16, .w = &w, .tokens = TOKENS};
    assert(sizeof n->x16 >= TOKENS * stride * sizeof n->x16[0]);
    tiles->round(&(struct op_round){.out = n->x16, .x = n->x, .tokens = TOKENS, .dim = COLS}, 0, 1);
    tiles->gemm(&a, 0, 1);
    a.out = n->vectors;
    cpu_ops_amx_emulated.gemm(&a, 0, 1);
    free(memory);
    return memcmp(n->tiles, n->vectors, sizeof n->tiles) == 0;
}

bool cpu_tiles_agree(const struct ops *tiles, const struct ops *vectors)
{
    static const struct packed forms[] = {
        {ROWS, COLS, .bits = 8, .group = 32, .zero = 128, .scale_type = DTYPE_F16},
        {ROWS, COLS, .bits = 8, .group = 16, .zero = 32, .scale_type = DTYPE_F32},
        {ROWS, COLS, .bits = 4, .group = 32, .zero = 8, .scale_type = DTYPE_F16},
        {ROWS, COLS, .bits = 4, .group = 64, .has_min = true, .scale_type = DTYPE_F32},
        {ROWS, COLS, .bits = 8, .group = COLS, .zero = 128, .scale_type = DTYPE_F32},
    };
    struct numbers *n = malloc(sizeof *n);
    bool good = n != NULL;
    for (size_t i = 0; good && i < sizeof forms / sizeof forms[0]; i++)
        for (int j = 0; good && j < 4; j++)
            good = agree(n, &(struct trial){forms[i], j < 2 ? TOKENS : FEW, j % 2 == 1}, tiles,
                         vectors);
    good = good && (!tiles->tiles || agree_on_pairs(n, tiles));
    free(n);
    return good;
}
