/* The largest sums that packed weights and rows of small integers can come to, of each number of
 * bits: where a body adds up products in fewer bits than 32, these are what would not fit. */
#include "kernels/cpu/cpu.h"
#include "kernels/kernels_util.h"
#include "kernels/packed.h"

enum { ROWS = 65, COLS = 512, TOKENS = 9 };

/* All weights are q, or entry q of a table, which is `most`; all other entries are `least`. */
struct extreme {
    int bits, group, zero;
    bool has_table;
    uint8_t least, most;
    int q;
};

static const struct extreme extremes[] = {
    {8, 32, 0, false, 0, 0, 255},
    {8, 128, 128, false, 0, 0, 255},
    {8, 16, 255, false, 0, 0, 0},
    {8, COLS, 128, false, 0, 0, 0},
    {4, 16, 0, false, 0, 0, 15},
    {4, 32, 8, false, 0, 0, 15},
    {4, 64, 15, false, 0, 0, 0},
    {4, 128, 8, false, 0, 0, 15},
    {4, COLS, 0, false, 0, 0, 15},
    {4, 32, 128, true, 100, 132, 9}, /* the widest that counts as narrow, */
    {4, 16, 100, true, 100, 132, 9},
    {4, 32, 128, true, 223, 255, 9},
    {4, 32, 128, true, 100, 133, 9}, /* and the first that does not */
    {4, 64, 128, true, 0, 255, 9},
    {4, 32, 0, true, 255, 255, 9},
};

static struct packed extreme_make(const struct extreme *e, void **memory)
{
    struct packed p = {.rows = ROWS,
                       .cols = COLS,
                       .bits = e->bits,
                       .group = e->group,
                       .zero = e->zero,
                       .has_table = e->has_table,
                       .scale_type = DTYPE_F32};
    float scale[PACKED_ROWS * COLS / 16];
    uint8_t q[PACKED_ROWS * COLS];
    memset(q, e->q, sizeof q);
    for (int i = 0; i < 16; i++)
        p.table[i] = i == e->q ? e->most : e->least;
    for (size_t i = 0; i < sizeof scale / sizeof scale[0]; i++)
        scale[i] = 1;
    *memory = aligned_alloc(PACKED_ALIGN, packed_bytes(&p));
    memset(*memory, 0, packed_bytes(&p));
    packed_place(&p, *memory);
    for (size_t r = 0; r < ROWS; r += PACKED_ROWS)
        packed_put(&p, &(struct packed_rows){.first = r,
                                             .n = ROWS - r < PACKED_ROWS ? ROWS - r : PACKED_ROWS,
                                             .q = q,
                                             .scale = scale});
    return p;
}

/* Elements of row m, all the same; -128 are left of rows that hold no numbers. */
static int x_of(int m)
{
    return m % 3 == 0 ? 127 : m % 3 == 1 ? -127 : -128;
}

static struct rows8 rows_make(bool paired)
{
    const size_t spans = COLS / PACKED_SPAN, stride = rows8_stride((int32_t)spans);
    struct rows8 x = {.q = malloc(TOKENS * stride),
                      .scale = malloc(TOKENS * spans * sizeof(float)),
                      .sum = malloc(2 * TOKENS * spans * sizeof(int32_t)),
                      .spans = (int32_t)spans,
                      .paired = paired};
    for (size_t m = 0; m < TOKENS; m++)
        memset(x.q + m * stride, x_of((int)m), stride);
    for (size_t i = 0; i < TOKENS * spans; i++) {
        x.scale[i] = 1;
        x.sum[2 * i] = x.sum[2 * i + 1] = x_of((int)(i / spans)) * PACKED_SPAN / 2;
    }
    return x;
}

static void check_extreme(const struct extreme *e, const struct ops *ops, bool paired, int tokens)
{
    void *memory;
    const struct packed p = extreme_make(e, &memory);
    const struct matrix w = {.rows = ROWS, .cols = COLS, .packed = &p};
    struct rows8 x = rows_make(paired);
    const int value = (e->has_table ? e->most : e->q) - e->zero;
    float out[TOKENS * ROWS];
    struct op_gemm a = {.out = out, .x8 = &x, .w = &w, .tokens = tokens};
    for (int part = 0; part < 2; part++)
        ops->gemm(&a, part, 2);
    for (int i = 0; i < tokens * ROWS; i++)
        cr_assert_eq(out[i], (float)(x_of(i / ROWS) * COLS * value),
                     "%s: %d bits, groups of %d, token %d of %d, output %d: %g", ops->name, e->bits,
                     e->group, i / ROWS, tokens, i % ROWS, (double)out[i]);
    free(x.q), free(x.scale), free(x.sum), free(memory);
}

/* All of these are integers that fp32 holds. */
Test(extremes, sums_of_the_largest_products, .timeout = 120)
{
    for (int b = 0; ops_at(b); b++)
        for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++)
            for (int tokens = 1; tokens <= TOKENS; tokens++) {
                check_extreme(&extremes[i], ops_at(b), false, tokens);
                if (extremes[i].group % (2 * PACKED_SPAN) == 0)
                    check_extreme(&extremes[i], ops_at(b), true, tokens);
            }
}
