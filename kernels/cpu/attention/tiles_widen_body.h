/* Keys or values that a pool holds in other types than bf16, as rows of bf16 in the state: what the
 * tiles of a stretch read in their place. For tiles_scores_body.h.
 *
 * The numbers are those of kv_vector_widen(), to the nearest bf16: queries and weights are rounded
 * so too (op_attention.rounds), and of what has 8 bits or fewer a rounding here costs less than
 * the one that it went through on its way into the pool. Each element is converted once for all
 * rows of the tile, 32 at a time. */
#ifndef KERNELS_CPU_ATTENTION_TILES_WIDEN_BODY_H
#define KERNELS_CPU_ATTENTION_TILES_WIDEN_BODY_H

/* Where in attention_tiles.staged a block of 32 elements is. */
INLINE size_t tiles_staged(size_t block, int position)
{
    return (block * ATTENTION_STRETCH + (size_t)position) * TILES_COLS;
}

INLINE vec tiles_widen_scale(const char *at)
{
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return _mm512_castsi512_ps(_mm512_set1_epi32((int)((uint32_t)half << 16)));
}

/* 16 bytes, an even element and an odd one in each. */
INLINE __m512i tiles_widen_int4(const char *codes, const char *scale_at)
{
    static const uint16_t turns[TILES_COLS] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                               21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                               11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)codes));
    const __m512i even = _mm512_and_si512(both, _mm512_set1_epi32(15));
    const vec scale = tiles_widen_scale(scale_at), least = tiles_widen_scale(scale_at + 2);
    const vec low = vec_fma(vec_of_int(even), scale, least);
    const vec high = vec_fma(vec_of_int(_mm512_srli_epi32(both, 4)), scale, least);
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(turns), vec_pack_bf16(low, high));
}

/* 32 elements with one scale. d is a constant where this is inlined. */
INLINE __m512i tiles_widen_block(const char *codes, const char *scale_at, enum dtype d)
{
    if (d == DTYPE_F16)
        return vec_pack_bf16(vec_load_f16(codes), vec_load_f16(codes + 2 * LANES));
    if (d == DTYPE_INT4)
        return tiles_widen_int4(codes, scale_at);
    vec scale = tiles_widen_scale(scale_at);
    if (d == DTYPE_FP8)
        scale = scale * vec_set1(KV_FP8_UNIT);
    return vec_pack_bf16(kv_widen_load(codes, d) * scale, kv_widen_load(codes + LANES, d) * scale);
}

/* What is converted. */
struct tiles_widen {
    const char *const *row;   /* of each position */
    int first, end;           /* positions */
    size_t dim, stored;       /* elements that are wanted, and that a vector has */
    struct tiles_ahead ahead; /* what is fetched a span before it is read */
};

/* A block of every vector, n elements and zeros behind them. */
INLINE void tiles_widen_rows(struct attention_state *s, const struct tiles_widen *w, size_t block,
                             enum dtype d)
{
    const bool halves = d == DTYPE_F16;
    const size_t at = block * TILES_COLS, n = w->dim - at;
    const size_t codes = halves ? 2 * at : kv_codes_bytes(d, at);
    const size_t scale_at = halves ? 0 : kv_scale_at(d, w->stored, at);
    uint16_t *to = s->tiles.staged + tiles_staged(block, w->first);
    for (int j = w->first; j < w->end; j++, to += TILES_COLS) {
        const char *row = w->row[j];
        if (block == 0)
            tiles_fetch(&w->ahead, j + OPS_KV_SPAN, j + OPS_KV_SPAN + 1);
        if (n >= TILES_COLS) {
            _mm512_store_si512(to, tiles_widen_block(row + codes, row + scale_at, d));
            continue;
        }
        char padded[2 * TILES_COLS] = {0};
        memcpy(padded, row + codes, halves ? 2 * n : kv_codes_bytes(d, n));
        _mm512_store_si512(to, _mm512_maskz_mov_epi16(
                                   tiles_mask(n), tiles_widen_block(padded, row + scale_at, d)));
    }
}

INLINE void tiles_widen_as(struct attention_state *s, const struct tiles_widen *w, enum dtype d)
{
    for (size_t block = 0; block < tiles_blocks(w->dim); block++)
        tiles_widen_rows(s, w, block, d);
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
