/* Scores of many (row, head) pairs to weights: the softmax of a stretch. For tiles_body.h. */
#ifndef KERNELS_CPU_ATTENTION_TILES_WEIGHTS_BODY_H
#define KERNELS_CPU_ATTENTION_TILES_WEIGHTS_BODY_H

/* e^(score - max) where that is not more than 1, to 1e-4 of it, which is a twentieth of what
 * rounding to bf16 may cost; exactly 0 from 2^-127 on down. NaN stays NaN: its low bits, which are
 * added to others here, are zeros in all that comes of bf16. */
INLINE vec tiles_exp(vec score, vec max)
{
    const vec whole = vec_set1(0x1.8p+23f); /* to it added, fractions are rounded away */
    const vec x = vec_max(vec_set1(-127.0f), (score - max) * vec_set1(0x1.715476p+0f));
    const vec k = x + whole, r = x - (k - whole);
    vec p = vec_fma(vec_set1(5.5008934e-2f), r, vec_set1(2.4221098e-1f)); /* nearest, 1 at 0 */
    p = vec_fma(p, r, vec_set1(6.9328293e-1f));
    p = vec_fma(p, r, vec_set1(1.0f));
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(k), 23)));
}

/* What tiles_exp() takes for the largest score: where there is none weights are 0, not NaN. */
INLINE vec tiles_base(vec max)
{
    const __mmask16 none = _mm512_cmp_ps_mask(max, vec_set1(-INFINITY), _CMP_EQ_OQ);
    return _mm512_mask_mov_ps(max, none, vec_zero());
}

/* Before softmax: what scores are made of, and -infinity where a pair does not see. */
static void tiles_limit(const struct tiles_stretch *x, float *score, int from, const int tiles[2])
{
    const int n = tiles_pairs(x), last = (from + TILE_ROWS < n ? from + TILE_ROWS : n) - 1;
    const int heads = x->tile->heads;
    int32_t seen[TILE_ROWS] = {0}, skip[TILE_ROWS] = {0};
    const vec cap = vec_set1(x->tile->op->softcap);
    for (int j = tiles[0] * TILES_TILE; j < tiles[1] * TILES_TILE && x->tile->op->softcap > 0;
         j += LANES)
        vec_store(score + j, cap * vec_tanh(vec_load(score + j) / cap));
    for (int i = from; i <= last; i++) {
        seen[i - from] = tiles_end_of(x, i / heads);
        skip[i - from] = tiles_start_of(x, i / heads);
    }
    const __m512i to = _mm512_loadu_si512(seen), since = _mm512_loadu_si512(skip);
    const int all[2] = {skip[last - from], n - from < TILE_ROWS ? 0 : seen[0]};
    for (int i = tiles[0]; i < tiles[1]; i++)
        for (int j = i * TILE_ROWS, end = j + TILE_ROWS; j < end; j++) {
            const __m512i at = _mm512_set1_epi32(j);
            if (all[0] <= i * TILE_ROWS && end <= all[1])
                break;
            vec_store(score + j * TILE_ROWS,
                      _mm512_mask_loadu_ps(vec_set1(-INFINITY),
                                           _mm512_cmplt_epi32_mask(at, to) &
                                               _mm512_cmpge_epi32_mask(at, since),
                                           score + j * TILE_ROWS));
        }
}

/* Weights of the first or the second tile of 32 positions, and what they add up to when rounded, by
 * position % 4. What is rounded lies in [0, 1] or is NaN, and carries nowhere. */
INLINE void tiles_weigh_one(const float *score, vec base, bool second, vec weight[TILE_ROWS],
                            vec sum[4])
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32((int)0xffff0000);
    for (int j = 0; j < TILE_ROWS; j += 4) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const vec v = tiles_exp(vec_load(score + (j + i) * TILE_ROWS), base);
            const __m512i near = _mm512_add_epi32(_mm512_castps_si512(v), half);
            const __m512i w = _mm512_and_si512(near, upper);
            const __m512i before = _mm512_castps_si512(weight[j + i]);
            sum[i] = sum[i] + _mm512_castsi512_ps(w);
            weight[j + i] =
                _mm512_castsi512_ps(second ? _mm512_or_si512(before, w) : _mm512_srli_epi32(w, 16));
        }
    }
}

/* Weights of tiles [tiles[0], tiles[1]) of positions, and zeros of a lone one's neighbour, into
 * `to`; their sum. */
INLINE vec tiles_weigh(const float *score, vec base, const int tiles[2], float to[][TILES_TILE],
                       const struct tiles_ahead *ahead)
{
    vec sum[2][4];
    UNROLL
    for (int i = 0; i < 8; i++)
        sum[i / 4][i % 4] = vec_zero();
    for (int i = tiles[0] / 2; 2 * i < tiles[1]; i++) {
        vec weight[TILE_ROWS];
        const bool first = 2 * i >= tiles[0], second = 2 * i + 1 < tiles[1];
        if (first)
            tiles_weigh_one(score + 2 * i * TILES_TILE, base, false, weight, sum[0]);
        for (int j = 0; j < TILE_ROWS && !first; j++)
            weight[j] = vec_zero();
        tiles_fetch(ahead, 2 * i * TILE_ROWS, (2 * i + 1) * TILE_ROWS);
        if (second)
            tiles_weigh_one(score + (2 * i + 1) * TILES_TILE, base, true, weight, sum[1]);
        tiles_fetch(ahead, (2 * i + 1) * TILE_ROWS, (2 * i + 2) * TILE_ROWS);
        vec_transpose(weight);
        UNROLL
        for (int j = 0; j < TILE_ROWS; j++)
            vec_store(to[i] + j * TILE_ROWS, weight[j]);
    }
    UNROLL
    for (int i = 0; i < 4; i++)
        sum[0][i] = sum[0][i] + sum[1][i];
    return (sum[0][0] + sum[0][1]) + (sum[0][2] + sum[0][3]);
}

/* Turns scores of pairs [from, from + 16) into weights, with their maxima and sums. */
static __attribute__((noinline)) void tiles_softmax(const struct tiles_stretch *x,
                                                    struct attention_state *s, int from,
                                                    const struct tiles_group *g)
{
    float *score = s->tiles.score[(from - g->first) / TILE_ROWS];
    struct tiles_ahead ahead = tiles_values_ahead(s, x);
    vec top[2] = {vec_set1(-INFINITY), vec_set1(-INFINITY)};
    tiles_limit(x, score, from, g->tiles);
    for (int j = g->tiles[0] * TILES_TILE; j < g->tiles[1] * TILES_TILE; j += 2 * LANES) {
        top[0] = vec_max(vec_load(score + j), top[0]);
        top[1] = vec_max(vec_load(score + j + LANES), top[1]);
    }
    const vec max = vec_max(top[1], top[0]);
    if (from > 0)
        ahead.bytes = 0;
    vec_store(s->max + from, max);
    vec_store(s->sum + from, tiles_weigh(score, tiles_base(max), g->tiles,
                                         s->tiles.weight[from / TILE_ROWS], &ahead));
}

#endif
