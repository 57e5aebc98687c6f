/* Where the keys and values of a stretch are, and the scores of many (row, head) pairs. For
 * tiles_body.h. It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_ATTENTION_TILES_SCORES_BODY_H
#define KERNELS_CPU_ATTENTION_TILES_SCORES_BODY_H

#include "kernels/cpu/attention/tiles_widen_body.h"

/* Puts what tiles read into the state. Keys that hold their values were there before these. */
static void tiles_convert(const struct tiles_stretch *x, struct attention_state *s,
                          enum kv_part part)
{
    const bool own = x->tile->op->layout->value_dim > 0, keys = part == KV_KEY;
    const int *range = x->now->range;
    struct tiles_widen w = {.row = keys ? x->now->key : x->now->value,
                            .first = range[0] / TILE_ROWS * TILE_ROWS,
                            .end = (range[1] + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS,
                            .dim = keys ? s->dim : s->out_dim,
                            .stored = s->stored[part],
                            .ahead = tiles_keys_ahead(s, x)};
    if (!keys)
        w.ahead.bytes = 0; /* was asked for before */
    if (keys || own)
        tiles_widen(s, &w);
}

/* Finds the keys, or values, of what is seen. Those of bf16 are read where they are, with what else
 * is in their block, unless a tile would reach beyond a block, or beyond an end of elements. */
static void tiles_find(const struct tiles_stretch *x, struct attention_state *s, enum kv_part part,
                       struct tiles_rows *out)
{
    const size_t dim = part == KV_KEY ? s->dim : s->out_dim, blocks = tiles_blocks(dim);
    const int *range = x->now->range;
    const char *const *row = part == KV_KEY ? x->now->key : x->now->value;
    out->stride = s->pool.slot[part];
    out->staged = 0;
    if (tiles_widens(s)) {
        tiles_convert(x, s, part);
        return;
    }
    out->staged = x->tile->op->layout->block_tokens % TILE_ROWS == 0 ? dim / TILES_COLS : 0;
    for (int i = 0; i < TILES_OF_STRETCH; i++) {
        const int from = i * TILE_ROWS, seen = range[0] > from ? range[0] : from;
        if (out->staged > 0 && seen < range[1] && seen < from + TILE_ROWS)
            out->direct[i] = row[seen] - (size_t)(seen - from) * out->stride;
        else
            out->direct[i] = NULL;
    }
    const int first = range[0] / TILE_ROWS * TILE_ROWS;
    const int end = (range[1] + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    for (size_t b = out->staged; b < blocks; b++)
        for (int j = first; j < end; j++)
            _mm512_store_si512(s->tiles.staged + tiles_staged(b, j),
                               _mm512_maskz_loadu_epi16(tiles_mask(dim - b * TILES_COLS),
                                                        row[j] + b * TILE_ROW_BYTES));
}

INLINE const char *tiles_row(const struct attention_state *s, const struct tiles_rows *k,
                             size_t block, int tile)
{
    if (block < k->staged)
        return k->direct[tile] + block * TILE_ROW_BYTES;
    return (const char *)(s->tiles.staged + tiles_staged(block, tile * TILE_ROWS));
}

INLINE size_t tiles_stride(const struct tiles_rows *k, size_t block)
{
    return block < k->staged ? k->stride : TILE_ROW_BYTES;
}

/* Of 32 pairs whose queries have two blocks, in tiles of positions [tiles[0], tiles[1]): queries
 * stay in tiles. */
static __attribute__((noinline)) void tiles_scores_near(struct attention_state *s,
                                                        const struct tiles_rows *k, const float *q,
                                                        const int tiles[2])
{
    const size_t stride[2] = {tiles_stride(k, 0), tiles_stride(k, 1)};
    TILE_LOAD(4, q, TILE_ROW_BYTES);
    TILE_LOAD(5, q + TILES_TILE, TILE_ROW_BYTES);
    TILE_LOAD(6, q + 2 * TILES_TILE, TILE_ROW_BYTES);
    TILE_LOAD(7, q + 3 * TILES_TILE, TILE_ROW_BYTES);
    for (int i = tiles[0]; i < tiles[1]; i++) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_LOAD(2, tiles_row(s, k, 0, i), stride[0]);
        TILE_DOT_BF16(0, 2, 4);
        TILE_DOT_BF16(1, 2, 6);
        TILE_LOAD(3, tiles_row(s, k, 1, i), stride[1]);
        TILE_DOT_BF16(0, 3, 5);
        TILE_DOT_BF16(1, 3, 7);
        TILE_STORE(0, s->tiles.score[0] + i * TILES_TILE, TILE_ROW_BYTES);
        TILE_STORE(1, s->tiles.score[1] + i * TILES_TILE, TILE_ROW_BYTES);
    }
}

/* The same of any queries, of two tiles of positions at a time; 0 and 1 are the first's. */
static __attribute__((noinline)) void tiles_scores_two(struct attention_state *s,
                                                       const struct tiles_rows *k, const float *q,
                                                       const int tiles[2])
{
    const size_t blocks = tiles_blocks(s->dim);
    const float *more = q + blocks * TILES_TILE;
    for (int i = tiles[0]; i < tiles[1]; i += 2) {
        const bool two = i + 1 < tiles[1];
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        for (size_t b = 0; b < blocks; b++) {
            const size_t stride = tiles_stride(k, b);
            TILE_LOAD(4, tiles_row(s, k, b, i), stride);
            TILE_LOAD(6, q + b * TILES_TILE, TILE_ROW_BYTES);
            TILE_LOAD(7, more + b * TILES_TILE, TILE_ROW_BYTES);
            if (two)
                TILE_LOAD(5, tiles_row(s, k, b, i + 1), stride);
            TILE_DOT_BF16(0, 4, 6);
            TILE_DOT_BF16(1, 4, 7);
            if (two) {
                TILE_DOT_BF16(2, 5, 6);
                TILE_DOT_BF16(3, 5, 7);
            }
        }
        TILE_STORE(0, s->tiles.score[0] + i * TILES_TILE, TILE_ROW_BYTES);
        TILE_STORE(1, s->tiles.score[1] + i * TILES_TILE, TILE_ROW_BYTES);
        if (two) {
            TILE_STORE(2, s->tiles.score[0] + (i + 1) * TILES_TILE, TILE_ROW_BYTES);
            TILE_STORE(3, s->tiles.score[1] + (i + 1) * TILES_TILE, TILE_ROW_BYTES);
        }
    }
}

/* Of 16 pairs, four tiles of positions at a time. */
static __attribute__((noinline)) void tiles_scores_one(struct attention_state *s,
                                                       const struct tiles_rows *k, const float *q,
                                                       const int tiles[2])
{
    const size_t blocks = tiles_blocks(s->dim);
    for (int i = tiles[0]; i < tiles[1]; i += 4) {
        float *to = s->tiles.score[0] + i * TILES_TILE;
        const int n = tiles[1] - i;
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        for (size_t b = 0; b < blocks; b++) {
            const size_t stride = tiles_stride(k, b);
            TILE_LOAD(6, q + b * TILES_TILE, TILE_ROW_BYTES);
            TILE_LOAD(4, tiles_row(s, k, b, i), stride);
            TILE_DOT_BF16(0, 4, 6);
            if (n > 1) {
                TILE_LOAD(5, tiles_row(s, k, b, i + 1), stride);
                TILE_DOT_BF16(1, 5, 6);
            }
            if (n > 2) {
                TILE_LOAD(4, tiles_row(s, k, b, i + 2), stride);
                TILE_DOT_BF16(2, 4, 6);
            }
            if (n > 3) {
                TILE_LOAD(5, tiles_row(s, k, b, i + 3), stride);
                TILE_DOT_BF16(3, 5, 6);
            }
        }
        TILE_STORE(0, to, TILE_ROW_BYTES);
        if (n > 1)
            TILE_STORE(1, to + TILES_TILE, TILE_ROW_BYTES);
        if (n > 2)
            TILE_STORE(2, to + 2 * TILES_TILE, TILE_ROW_BYTES);
        if (n > 3)
            TILE_STORE(3, to + 3 * TILES_TILE, TILE_ROW_BYTES);
    }
}

/* A group's, into [16 pairs][position][pair]. */
static void tiles_scores(struct attention_state *s, const struct tiles_rows *k,
                         const struct tiles_group *g)
{
    const size_t blocks = tiles_blocks(s->dim);
    const float *q = s->q + (size_t)(g->first / TILE_ROWS) * blocks * TILES_TILE;
    if (g->end - g->first == TILE_ROWS)
        tiles_scores_one(s, k, q, g->tiles);
    else if (blocks == 2)
        tiles_scores_near(s, k, q, g->tiles);
    else
        tiles_scores_two(s, k, q, g->tiles);
}

#endif
