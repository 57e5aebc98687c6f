/* Stretches of attention in tiles, of so few (row, head) pairs that most lanes would idle: scores
 * of 4 or 8 pairs at several positions share a vector, so that softmax takes a fourth, or half, of
 * the operations; and the tile unit reads values of bf16 where they lie. For tiles_body.h, and to
 * the bit what it does: what a pair's sums add up, and in which order, is the same.
 *
 * Memory is asked for what comes next all the time: for a stretch's values while its scores and
 * weights are computed, and for the next keys while its values are.
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
                              const int tiles[2], int width)
{
    const size_t blocks = tiles_blocks(s->dim), row = (size_t)width * sizeof(float);
    const bool one = tile >= tiles[0], two = tile + 1 < tiles[1];
    float *to = s->tiles.score[0] + tile * TILE_ROWS * width;
    TILE_ZERO(0);
    TILE_ZERO(1);
    for (size_t b = 0; b < blocks; b++) {
        const size_t stride = tiles_stride(k, b);
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

/* All of them. Fetches half of the values; and its own keys, a span before they are read, where
 * nobody has asked for them. */
INLINE void narrow_scores(const struct tiles_stretch *x, struct attention_state *s,
                          const int tiles[2], int width)
{
    const struct tiles_ahead values = tiles_values_ahead(s, x);
    struct tiles_ahead keys = tiles_keys_ahead(s, x);
    struct tiles_rows rows;
    tiles_find(x, s, KV_KEY, &rows);
    if (tiles_widens(s))
        keys.bytes = 0; /* they have been read */
    for (int i = tiles[0] / 2 * 2, n = 0; i < tiles[1]; i += 2, n += TILE_ROWS) {
        const int next = i * TILE_ROWS + OPS_KV_SPAN, first = tiles[0] * TILE_ROWS + n;
        tiles_fetch(&keys, next, next + 2 * TILE_ROWS);
        narrow_two_scores(s, &rows, i, tiles, width);
        tiles_fetch(&values, first, first + TILE_ROWS);
    }
}

/* ---- weights ---- */

/* What tiles_limit() does. */
INLINE void narrow_limit(const struct tiles_stretch *x, float *score, const int tiles[2], int width)
{
    const int n = tiles_pairs(x), heads = x->tile->heads, each = LANES / width;
    int32_t seen[LANES] = {0}, skip[LANES] = {0}, place[LANES];
    const vec cap = vec_set1(x->tile->op->softcap);
    const int range[2] = {tiles[0] * TILE_ROWS, tiles[1] * TILE_ROWS};
    for (int j = range[0] * width; j < range[1] * width && x->tile->op->softcap > 0; j += LANES)
        vec_store(score + j, cap * vec_tanh(vec_load(score + j) / cap));
    for (int i = 0; i < LANES; i++) {
        const int row = i % width < n ? i % width / heads : 0;
        place[i] = i / width;
        seen[i] = i % width < n ? tiles_end_of(x, row) : 0;
        skip[i] = i % width < n ? tiles_start_of(x, row) : 0;
    }
    const __m512i to = _mm512_loadu_si512(seen), since = _mm512_loadu_si512(skip);
    const int all[2] = {skip[n - 1], n < width ? 0 : seen[0]};
    for (int j = range[0]; j < range[1]; j += each) {
        const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(j), _mm512_loadu_si512(place));
        if (all[0] <= j && j + each <= all[1])
            continue;
        vec_store(score + j * width, _mm512_mask_loadu_ps(vec_set1(-INFINITY),
                                                          _mm512_cmplt_epi32_mask(at, to) &
                                                              _mm512_cmpge_epi32_mask(at, since),
                                                          score + j * width));
    }
}

/* Each pair's largest in all of its lanes. */
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
        const int fetch = (tiles[1] + tile) * (TILE_ROWS / 2);
        float *to = narrow_weights(s, tile);
        vec v[8], *const add = sum[tile % 2];
        UNROLL
        for (int i = 0; i < width; i++) {
            const vec e = tiles_exp(vec_load(score + i * LANES), base);
            v[i] = _mm512_castsi512_ps(
                _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(e), half), upper));
            tiles_fetch(ahead, fetch + i * 8 / width, fetch + (i + 1) * 8 / width);
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

/* What tiles_softmax() does; fetches the other half of the values. */
INLINE void narrow_softmax(const struct tiles_stretch *x, struct attention_state *s,
                           const int tiles[2], int width)
{
    const struct tiles_ahead ahead = tiles_values_ahead(s, x);
    float *score = s->tiles.score[0];
    vec top[2] = {vec_set1(-INFINITY), vec_set1(-INFINITY)};
    narrow_limit(x, score, tiles, width);
    for (int j = tiles[0] * TILE_ROWS * width; j < tiles[1] * TILE_ROWS * width; j += 2 * LANES) {
        top[0] = vec_max(vec_load(score + j), top[0]);
        top[1] = vec_max(vec_load(score + j + LANES), top[1]);
    }
    const vec max = narrow_top(vec_max(top[1], top[0]), width);
    const vec sum = narrow_weigh(s, tiles_base(max), tiles, &ahead, width);
    vec_store_n(s->sum, sum, width);
    vec_store_n(s->max, max, width);
}

/* ---- values ---- */

/* Weights of a tile of positions times block `block` of its values, into tile 2 or 3 of sums. */
#define NARROW_MULTIPLY(s, v, tile, block, sums, values)                                           \
    do {                                                                                           \
        TILE_LOAD(values, tiles_row(s, v, block, tile), tiles_stride(v, block));                   \
        TILE_DOT_BF16(sums, 7, values);                                                            \
    } while (0)

/* What is multiplied of a stretch, and how. */
struct narrow_part {
    struct tiles_rows values;
    const int *tiles; /* that somebody sees */
    int span;         /* its first position */
};

/* Weighted values of a span, [element block][tile][pairs' even elements, then odd ones][16], of
 * element blocks `block` and, where there are two, the next; zeros of tiles that nobody sees.
 * Fetches the next stretch's keys. */
INLINE void narrow_products(struct attention_state *s, const struct narrow_part *v, size_t block,
                            bool two, const struct tiles_ahead *ahead)
{
    float *to = s->tiles.value[0][0];
    for (int i = 0; i < TILES_OF_SPAN; i++, to += TILES_TILE) {
        const int first = v->span + i * TILE_ROWS, tile = first / TILE_ROWS;
        const bool seen = tile >= v->tiles[0] && tile < v->tiles[1];
        TILE_ZERO(2);
        TILE_ZERO(3);
        if (seen) {
            TILE_LOAD(7, narrow_weights(s, tile), TILE_ROW_BYTES);
            NARROW_MULTIPLY(s, &v->values, tile, block, 2, 4);
        }
        tiles_fetch(ahead, first, first + TILE_ROWS / 2);
        if (seen && two)
            NARROW_MULTIPLY(s, &v->values, tile, block + 1, 3, 5);
        tiles_fetch(ahead, first + TILE_ROWS / 2, first + TILE_ROWS);
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

/* A pair's sums of elements [d, d + 32) over what it sees of a span, in vectors: what it does not
 * see, which may be no number, is not its. */
static void narrow_add_pair(const struct tiles_stretch *x, struct attention_state *s, int pair,
                            size_t d, int span)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    const __mmask32 mask = tiles_mask(s->out_dim - d);
    const int row = pair / x->tile->heads;
    const int range[2] = {tiles_start_of(x, row), tiles_end_of(x, row)};
    float *acc = s->acc + (size_t)pair * s->acc_stride + d;
    vec all[2] = {vec_load(acc), vec_load(acc + LANES)};
    for (int from = span; from < span + OPS_KV_SPAN; from += 2 * TILE_ROWS) {
        vec sum[2][2] = {{vec_zero(), vec_zero()}, {vec_zero(), vec_zero()}};
        for (int j = from; j < from + 2 * TILE_ROWS; j++) {
            const int tile = j / TILE_ROWS, place = (s->tiles.width + pair) * LANES;
            vec *to = sum[tile % 2];
            if (j < range[0] || j >= range[1])
                continue;
            const __m512i v = _mm512_maskz_loadu_epi16(mask, tiles_value(x, s, j, d));
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

INLINE void narrow_values(const struct tiles_stretch *x, struct attention_state *s,
                          const int tiles[2], int width)
{
    struct narrow_part v = {.tiles = tiles};
    tiles_find(x, s, KV_VALUE, &v.values);
    for (int i = 0; i < width; i++)
        memset(s->acc + (size_t)i * s->acc_stride, 0, s->acc_stride * sizeof *s->acc);
    v.span = x->now->range[0] / OPS_KV_SPAN * OPS_KV_SPAN;
    for (; v.span < x->now->range[1]; v.span += OPS_KV_SPAN)
        for (size_t d = 0; d < s->acc_stride; d += TILES_COLS) {
            const size_t block = d / TILES_COLS, at = block % 2;
            const struct tiles_ahead ahead = tiles_next_ahead(s, x, d, 2 * TILES_COLS);
            if (at == 0)
                narrow_products(s, &v, block, d + TILES_COLS < s->acc_stride, &ahead);
            if (narrow_add(s->tiles.value[at][0], s->acc + d, s->acc_stride, width))
                continue;
            for (int i = 0; i < tiles_pairs(x); i++)
                narrow_add_pair(x, s, i, d, v.span);
        }
}

/* ---- a stretch ---- */

/* What tiles_stretch_of_many() does. */
INLINE void narrow_stretch(const struct tiles_stretch *x, struct attention_state *s, int width)
{
    const int tiles[2] = {x->now->range[0] / TILE_ROWS,
                          (x->now->range[1] + TILE_ROWS - 1) / TILE_ROWS};
    narrow_scores(x, s, tiles, width);
    narrow_softmax(x, s, tiles, width);
    narrow_values(x, s, tiles, width);
}

static __attribute__((noinline)) void narrow_stretch_4(const struct tiles_stretch *x,
                                                       struct attention_state *s)
{
    narrow_stretch(x, s, 4);
}
static __attribute__((noinline)) void narrow_stretch_8(const struct tiles_stretch *x,
                                                       struct attention_state *s)
{
    narrow_stretch(x, s, 8);
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
