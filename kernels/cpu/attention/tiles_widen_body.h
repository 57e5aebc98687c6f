/* Keys or values that a pool holds in other types than bf16, as rows of bf16 in the state: what the
 * tiles of a stretch read in their place. For tiles_scores_body.h.
 *
 * The numbers are those of kv_vector_widen(), to the nearest bf16: queries and weights are rounded
 * so too (op_attention.rounds), and of what has 8 bits or fewer a rounding here costs less than
 * the one that it went through on its way into the pool. Each element is converted once for all
 * rows of the tile, two vectors at a time, with no more than a few operations each. */
#ifndef KERNELS_CPU_ATTENTION_TILES_WIDEN_BODY_H
#define KERNELS_CPU_ATTENTION_TILES_WIDEN_BODY_H

/* Where in attention_tiles.staged a block of 32 elements is. */
INLINE size_t tiles_staged(size_t block, int position)
{
    return (block * ATTENTION_STRETCH + (size_t)position) * TILES_COLS;
}

/* 32 elements with one scale. d is a constant where this is inlined. */
INLINE __m512i tiles_widen_block(const char *codes, const char *scale_at, enum dtype d)
{
    vec v[2];
    if (d == DTYPE_F16)
        return vec_pack_bf16(vec_load_f16(codes), vec_load_f16(codes + 2 * LANES));
    const vec scale = vec_set1(kv_load_bf16(scale_at));
    const vec least = d == DTYPE_INT4 ? vec_set1(kv_load_bf16(scale_at + 2)) : vec_zero();
    UNROLL
    for (size_t i = 0; i < 2; i++)
        v[i] = kv_widen_scaled(codes + kv_codes_bytes(d, i * LANES), d, scale, least);
    return vec_pack_bf16(v[0], v[1]);
}

/* What is converted. */
struct tiles_widen {
    const char *const *row; /* of each position */
    int first, end;         /* positions */
    size_t dim, stored;     /* elements that are wanted, and that a vector has */
    struct tiles_ahead ahead;
};

/* A vector's first elements, zeros behind them. */
INLINE void tiles_widen_row(struct attention_state *s, const struct tiles_widen *w, int position,
                            enum dtype d)
{
    const bool halves = d == DTYPE_F16;
    const char *row = w->row[position];
    for (size_t at = 0, block = 0; at < w->dim; at += TILES_COLS, block++) {
        const size_t n = w->dim - at;
        const char *codes = row + (halves ? 2 * at : kv_codes_bytes(d, at));
        const char *scale_at = halves ? row : row + kv_scale_at(d, w->stored, at);
        uint16_t *to = s->tiles.staged + tiles_staged(block, position);
        if (n >= TILES_COLS) {
            _mm512_store_si512(to, tiles_widen_block(codes, scale_at, d));
            continue;
        }
        char padded[2 * TILES_COLS] = {0};
        memcpy(padded, codes, halves ? 2 * n : kv_codes_bytes(d, n));
        _mm512_store_si512(
            to, _mm512_maskz_mov_epi16(tiles_mask(n), tiles_widen_block(padded, scale_at, d)));
    }
}

INLINE void tiles_widen_as(struct attention_state *s, const struct tiles_widen *w, enum dtype d)
{
    for (int j = w->first; j < w->end; j++) {
        tiles_fetch(&w->ahead, j, j + 1);
        tiles_widen_row(s, w, j, d);
    }
}

static __attribute__((noinline)) void tiles_widen(struct attention_state *s,
                                                  const struct tiles_widen *w)
{
    if (s->dtype == DTYPE_F16)
        tiles_widen_as(s, w, DTYPE_F16);
    else if (s->dtype == DTYPE_INT4)
        tiles_widen_as(s, w, DTYPE_INT4);
    else if (s->dtype == DTYPE_INT8)
        tiles_widen_as(s, w, DTYPE_INT8);
    else
        tiles_widen_as(s, w, DTYPE_FP8);
}

#endif
