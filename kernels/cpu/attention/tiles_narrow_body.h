/* Spans of attention in tiles, of so few (row, head) pairs that most lanes would idle: scores of 4
 * or 8 pairs at several positions share a vector, so that softmax takes a fourth, or half, of the
 * operations; and values are read by the tile unit where they lie. For tiles_body.h, and to the bit
 * what it does: what a pair's sums add up, and in which order, is the same.
 *
 * A product takes two positions of an element that lie side by side, and in a pool two elements of
 * a position do. So each weight is given twice, once beside a zero and once behind one: the first
 * takes the even elements and the second the odd ones, and both together fill no more rows than
 * there are. Only what is no finite number shows at the zeros, as NaN; what became NaN is made
 * again, in vectors.
 *
 * Tiles: 0 and 1 scores, a position a row; 2 and 3 sums of values; 4 and 5 keys or values; 6
 * queries; 7 weights.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_ATTENTION_TILES_NARROW_BODY_H
#define KERNELS_CPU_ATTENTION_TILES_NARROW_BODY_H

/* Of so many pairs: 4 or 8 to a vector; TILE_ROWS where tiles_body.h does it alone. */
INLINE int narrow_width(int pairs)
{
    return pairs <= 4 ? 4 : pairs <= 8 ? 8 : TILE_ROWS;
}

static void narrow_configure(int width)
{
    struct tile_config c = {0};
    const size_t rows = 2 * (size_t)width, bytes = (size_t)width * sizeof(float);
    tile_set(&c, 0, TILE_ROWS, bytes);
    tile_set(&c, 1, TILE_ROWS, bytes);
    tile_set(&c, 2, rows, TILE_ROW_BYTES);
    tile_set(&c, 3, rows, TILE_ROW_BYTES);
    tile_set(&c, 4, TILE_ROWS, TILE_ROW_BYTES);
    tile_set(&c, 5, TILE_ROWS, TILE_ROW_BYTES);
    tile_set(&c, 6, TILE_ROWS, bytes);
    tile_set(&c, 7, rows, TILE_ROW_BYTES);
    tiles_begin(&c);
}

/* ---- scores ---- */

/* In tiles `tile` and the next of positions where somebody sees them, into [position][pair]. */
INLINE void narrow_two_scores(struct attention_state *s, const struct tiles_rows *k, int tile,
                              int width)
{
    const size_t blocks = tiles_blocks(s->dim), row = (size_t)width * sizeof(float);
    const bool one = tile >= k->tiles[0] && tile < k->tiles[1];
    const bool two = tile + 1 >= k->tiles[0] && tile + 1 < k->tiles[1];
    float *to = s->tiles.score[0] + tile * TILE_ROWS * width;
    TILE_ZERO(0);
    TILE_ZERO(1);
    for (size_t b = 0; b < blocks; b++) {
        const size_t stride = b < k->staged ? k->stride : TILE_ROW_BYTES;
        TILE_LOAD(6, s->q + b * TILES_TILE, TILE_ROW_BYTES);
        if (one) {
            TILE_LOAD(4, tiles_row(s, k, b, tile), stride);
            TILE_DOT_BF16(0, 4, 6);
        }
        if (two) {
            TILE_LOAD(5, tiles_row(s, k, b, tile + 1), stride);
            TILE_DOT_BF16(1, 5, 6);
        }
    }
    TILE_STORE(0, to, row);
    TILE_STORE(1, to + TILE_ROWS * width, row);
}

/* ---- weights ---- */

/* What tiles_limit() does. */
INLINE void narrow_limit(const struct attention_tile *t, float *score, int32_t base,
                         const int range[2], int width)
{
    const int n = t->rows * t->heads, each = LANES / width; /* positions of a vector */
    int32_t seen[LANES] = {0}, skip[LANES] = {0}, place[LANES];
    const vec cap = vec_set1(t->op->softcap);
    for (int j = range[0] * width; j < range[1] * width && t->op->softcap > 0; j += LANES)
        vec_store(score + j, cap * vec_tanh(vec_load(score + j) / cap));
    if (attention_seen(t, 0, base) == OPS_KV_SPAN && attention_skip(t, t->rows - 1, base) == 0)
        return;
    for (int i = 0; i < LANES; i++) {
        const int row = i % width / t->heads;
        place[i] = i / width;
        seen[i] = i % width < n ? attention_seen(t, row, base) : 0;
        skip[i] = i % width < n ? attention_skip(t, row, base) : 0;
    }
    const __m512i to = _mm512_loadu_si512(seen), since = _mm512_loadu_si512(skip);
    for (int j = range[0]; j < range[1]; j += each) {
        const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(j), _mm512_loadu_si512(place));
        const __mmask16 sees = _mm512_cmplt_epi32_mask(at, to) & _mm512_cmpge_epi32_mask(at, since);
        vec_store(score + j * width,
                  _mm512_mask_loadu_ps(vec_set1(-INFINITY), sees, score + j * width));
    }
}

/* The first `width` lanes in all others' places, and each pair's largest in all of its lanes. */
INLINE vec narrow_spread(vec v, int width)
{
    return width == 4 ? _mm512_shuffle_f32x4(v, v, 0) : _mm512_shuffle_f32x4(v, v, 0x44);
}
INLINE vec narrow_top(vec v, int width)
{
    v = vec_max(_mm512_shuffle_f32x4(v, v, 0x4e), v);
    return width == 4 ? vec_max(_mm512_shuffle_f32x4(v, v, 0xb1), v) : v;
}

/* A pair's sums as tiles_weigh() adds them up: [tile, even or odd][vectors of a tile]. The total is
 * in all places of the pair. */
INLINE vec narrow_total(vec sum[2][2], int width)
{
    const vec first = sum[0][0] + sum[1][0];
    if (width == 8) {
        const vec second = sum[0][1] + sum[1][1];
        return (first + _mm512_shuffle_f32x4(first, first, 0x4e)) +
               (second + _mm512_shuffle_f32x4(second, second, 0x4e));
    }
    const vec two = first + _mm512_shuffle_f32x4(first, first, 0xb1);
    return two + _mm512_shuffle_f32x4(two, two, 0x4e);
}

/* Lanes of four vectors, each for itself, from [vector][lane's four] to [lane's four][vector]. */
INLINE void narrow_turn_four(vec v[4])
{
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[0], v[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(v[0], v[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(v[2], v[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(v[2], v[3]));
    v[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    v[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    v[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    v[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
}

/* 16 positions' weights, `width` vectors, from [position][pair] to [pair][position]. */
INLINE void narrow_turn(vec v[8], int width)
{
    const __m512i four = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i low = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
    narrow_turn_four(v);
    if (width == 4) {
        UNROLL
        for (int i = 0; i < 4; i++)
            v[i] = _mm512_permutexvar_ps(four, v[i]);
        return;
    }
    narrow_turn_four(v + 4);
    UNROLL
    for (int i = 0; i < 4; i++) {
        const vec first = v[i], second = v[i + 4];
        v[i] = _mm512_permutex2var_ps(first, low, second);
        v[i + 4] = _mm512_permutex2var_ps(first, high, second);
    }
}

/* Where the weights of a tile of positions are: rows of pairs with the zero behind, then before. */
INLINE float *narrow_weights(struct attention_state *s, int tile)
{
    return s->tiles.weight[0][0] + tile * TILES_TILE;
}

/* What tiles_weigh() does, into narrow_weights(). */
INLINE vec narrow_weigh(struct attention_state *s, vec base, const int tiles[2],
                        const struct tiles_ahead *ahead, int width)
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32((int)0xffff0000);
    vec sum[2][2] = {{vec_zero(), vec_zero()}, {vec_zero(), vec_zero()}};
    for (int tile = tiles[0]; tile < tiles[1]; tile++) {
        const float *score = s->tiles.score[0] + tile * TILE_ROWS * width;
        float *to = narrow_weights(s, tile);
        vec v[8], *const add = sum[tile % 2];
        UNROLL
        for (int i = 0; i < width; i++) {
            const vec e = tiles_exp(vec_load(score + i * LANES) - base);
            v[i] = _mm512_castsi512_ps(
                _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(e), half), upper));
            for (int j = 0; j < LANES / width; j += 2)
                tiles_fetch(ahead, tile * TILE_ROWS + i * (LANES / width) + j);
            add[width == 8 ? i % 2 : 0] = add[width == 8 ? i % 2 : 0] + v[i];
        }
        narrow_turn(v, width);
        UNROLL
        for (int i = 0; i < width; i++) {
            _mm512_store_si512(to + i * LANES, _mm512_srli_epi32(_mm512_castps_si512(v[i]), 16));
            vec_store(to + (width + i) * LANES, v[i]);
        }
    }
    return narrow_total(sum, width);
}

/* What tiles_softmax() does. */
INLINE void narrow_softmax(const struct attention_tile *t, struct attention_state *s, int32_t base,
                           const int tiles[2], int width)
{
    const int range[2] = {tiles[0] * TILE_ROWS, tiles[1] * TILE_ROWS};
    const struct tiles_ahead ahead = {s->ahead ? s->ahead->key : NULL, s->dim * sizeof(uint16_t)};
    float *score = s->tiles.score[0];
    vec top = vec_set1(-INFINITY);
    narrow_limit(t, score, base, range, width);
    for (int j = range[0] * width; j < range[1] * width; j += LANES)
        top = vec_max(vec_load(score + j), top);
    const vec before = narrow_spread(vec_load(s->max), width);
    const vec max = vec_max(narrow_top(top, width), before);
    const __mmask16 none = _mm512_cmp_ps_mask(max, vec_set1(-INFINITY), _CMP_EQ_OQ);
    const vec less = _mm512_mask_mov_ps(max, none, vec_zero()); /* weights 0 then, not NaN */
    const vec sum = narrow_weigh(s, less, tiles, &ahead, width);
    const vec fade = vec_exp(before - less);
    vec_store_n(s->sum, vec_load(s->sum) * fade + sum, width);
    vec_store_n(s->max, max, width);
    vec_store_n(s->fade, fade, width);
    for (int i = 0; i < t->rows * t->heads; i++)
        tiles_fade(s, i);
}

/* ---- values ---- */

/* Weights of a tile of positions times block `block` of its values, into tile 2 or 3 of sums. */
#define NARROW_MULTIPLY(s, v, tile, block, sums, values)                                           \
    do {                                                                                           \
        TILE_LOAD(values, tiles_row(s, v, block, tile),                                            \
                  (block) < (v)->staged ? (v)->stride : TILE_ROW_BYTES);                           \
        TILE_DOT_BF16(sums, 7, values);                                                            \
    } while (0)

/* Of rows [from, from + 8) of the next span's values what blocks `block` and, of two, the next are.
 */
INLINE void narrow_fetch(const struct attention_state *s, int from, size_t block, bool two)
{
    for (int i = from; s->ahead && i < from + TILE_ROWS / 2; i++)
        rows_prefetch(s->ahead->value[i] + block * TILE_ROW_BYTES, (two ? 2 : 1) * TILE_ROW_BYTES);
}

/* Weighted values, [element block][tile][pairs' even elements, then odd ones][16], of element
 * blocks `block` and, where there are two, the next; zeros of tiles that nobody sees. Fetches the
 * next span's values. */
INLINE void narrow_products(struct attention_state *s, const struct tiles_rows *v, size_t block,
                            bool two)
{
    float *to = s->tiles.value[0][0];
    for (int tile = 0; tile < TILES_OF_SPAN; tile++, to += TILES_TILE) {
        const bool seen = tile >= v->tiles[0] && tile < v->tiles[1];
        TILE_ZERO(2);
        TILE_ZERO(3);
        if (seen) {
            TILE_LOAD(7, narrow_weights(s, tile), TILE_ROW_BYTES);
            NARROW_MULTIPLY(s, v, tile, block, 2, 4);
        }
        narrow_fetch(s, tile * TILE_ROWS, block, two);
        if (seen && two)
            NARROW_MULTIPLY(s, v, tile, block + 1, 3, 5);
        narrow_fetch(s, tile * TILE_ROWS + TILE_ROWS / 2, block, two);
        TILE_STORE(2, to, TILE_ROW_BYTES);
        TILE_STORE(3, to + TILES_OF_SPAN * TILES_TILE, TILE_ROW_BYTES);
    }
}

/* acc [width][32] += products; false, and nothing is done, where a sum would be no number. */
INLINE bool narrow_add(const float *product, float *acc, size_t stride, int width)
{
    vec all[2 * 8];
    __mmask16 sick = 0;
    UNROLL
    for (int i = 0; i < 2 * width; i++) {
        const float *from = product + i * LANES;
        const vec first = vec_load(from) + vec_load(from + TILES_TILE);
        const vec second = vec_load(from + 2 * TILES_TILE) + vec_load(from + 3 * TILES_TILE);
        all[i] = vec_load(acc + (size_t)(i % width) * stride + i / width * LANES) + first;
        all[i] = all[i] + second;
        sick |= _mm512_cmp_ps_mask(all[i], all[i], _CMP_UNORD_Q);
    }
    if (sick)
        return false;
    UNROLL
    for (int i = 0; i < 2 * width; i++)
        vec_store(acc + (size_t)(i % width) * stride + i / width * LANES, all[i]);
    return true;
}

/* A pair's sums of elements [d, d + 32) over positions [range[0], range[1]), in vectors: what a row
 * does not see, which may be no number, is not its. */
static void narrow_add_pair(struct attention_state *s, int pair, size_t d, const int range[2])
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    const __mmask32 mask = tiles_mask(s->out_dim - d);
    float *acc = s->acc + (size_t)pair * s->acc_stride + d;
    vec all[2] = {vec_load(acc), vec_load(acc + LANES)};
    for (int from = 0; from < OPS_KV_SPAN; from += 2 * TILE_ROWS) {
        vec sum[2][2] = {{vec_zero(), vec_zero()}, {vec_zero(), vec_zero()}};
        for (int j = from; j < from + 2 * TILE_ROWS; j++) {
            const int tile = j / TILE_ROWS, place = (s->tiles.width + pair) * LANES;
            vec *to = sum[tile % 2];
            if (j < range[0] || j >= range[1])
                continue;
            const __m512i v = _mm512_maskz_loadu_epi16(mask, s->now->value[j] + 2 * d);
            const vec w = vec_set1(narrow_weights(s, tile)[place + j % TILE_ROWS]);
            to[0] = vec_fma(w, _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)), to[0]);
            to[1] = vec_fma(w, _mm512_castsi512_ps(_mm512_and_si512(v, upper)), to[1]);
        }
        all[0] = all[0] + (sum[0][0] + sum[1][0]);
        all[1] = all[1] + (sum[0][1] + sum[1][1]);
    }
    vec_store(acc, all[0]);
    vec_store(acc + LANES, all[1]);
}

INLINE void narrow_values(const struct attention_tile *t, struct attention_state *s, int32_t base,
                          const struct attention_view *v, int width)
{
    struct tiles_rows values;
    tiles_find(t, s, KV_VALUE, v->range, &values);
    for (size_t d = 0; d < s->acc_stride; d += TILES_COLS) {
        const size_t block = d / TILES_COLS, at = block % 2;
        if (at == 0)
            narrow_products(s, &values, block, d + TILES_COLS < s->acc_stride);
        if (narrow_add(s->tiles.value[at][0], s->acc + d, s->acc_stride, width))
            continue;
        for (int i = v->first * t->heads; i < v->last * t->heads; i++)
            narrow_add_pair(s, i, d,
                            (int[2]){attention_skip(t, i / t->heads, base),
                                     attention_seen(t, i / t->heads, base)});
    }
}

/* ---- a span ---- */

/* What tiles_span() does. */
INLINE void narrow_span(const struct attention_tile *t, struct attention_state *s, int32_t base,
                        const struct attention_view *v, int width)
{
    struct tiles_rows keys;
    tiles_find(t, s, KV_KEY, v->range, &keys);
    for (int tile = keys.tiles[0] / 2 * 2; tile < keys.tiles[1]; tile += 2)
        narrow_two_scores(s, &keys, tile, width);
    narrow_softmax(t, s, base, keys.tiles, width);
    narrow_values(t, s, base, v, width);
}

static __attribute__((noinline)) void narrow_span_4(const struct attention_tile *t,
                                                    struct attention_state *s, int32_t base,
                                                    const struct attention_view *v)
{
    narrow_span(t, s, base, v, 4);
}
static __attribute__((noinline)) void narrow_span_8(const struct attention_tile *t,
                                                    struct attention_state *s, int32_t base,
                                                    const struct attention_view *v)
{
    narrow_span(t, s, base, v, 8);
}

/* A pair's elements as they come out of tiles, in their order. */
INLINE void narrow_order(vec low, vec high, vec out[2])
{
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    out[0] = _mm512_permutex2var_ps(low, first, high);
    out[1] = _mm512_permutex2var_ps(low, second, high);
}

#endif
