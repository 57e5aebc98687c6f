/* Spans of attention in tiles, of so few (row, head) pairs that most lanes would idle: scores of 4
 * or 8 pairs at several positions share a vector, so that softmax takes a fourth, or half, of the
 * operations; and values are not put in order for tiles, which takes longer than vectors do. For
 * tiles_body.h, and to the bit what it does: what a pair's sums add up, and in which order, is the
 * same.
 *
 * Tiles: 0 to 3 scores, a position a row; 4 and 5 keys; 6 queries. Values are for vectors.
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
    const size_t bytes = (size_t)width * sizeof(float);
    for (int i = 0; i < 4; i++)
        tile_set(&c, i, TILE_ROWS, bytes);
    tile_set(&c, 4, TILE_ROWS, TILE_ROW_BYTES);
    tile_set(&c, 5, TILE_ROWS, TILE_ROW_BYTES);
    tile_set(&c, 6, TILE_ROWS, bytes);
    tiles_begin(&c);
}

/* ---- scores ---- */

/* In tiles [first, end) of positions, into [position][pair]. */
static void narrow_scores(struct attention_state *s, const struct tiles_keys *k, const int tiles[2],
                          int width)
{
    float *to = s->tiles.score[0];
    const size_t row = (size_t)width * sizeof *to, tile = (size_t)(TILE_ROWS * width);
    tiles_multiply(s, k, s->q, tiles);
    TILE_STORE(0, to, row);
    TILE_STORE(1, to + tile, row);
    TILE_STORE(2, to + 2 * tile, row);
    TILE_STORE(3, to + 3 * tile, row);
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

/* Sums of even and of odd positions, one after the other: [even pairs][odd pairs] of 4 or 8. */
struct narrow_sums {
    __m256 four;
    vec eight;
};

INLINE void narrow_count(struct narrow_sums *s, vec v, int width)
{
    if (width == 4) {
        s->four = _mm256_add_ps(s->four, _mm512_castps512_ps256(v));
        s->four = _mm256_add_ps(s->four, _mm512_extractf32x8_ps(v, 1));
    } else {
        s->eight = s->eight + v;
    }
}

INLINE vec narrow_total(const struct narrow_sums *s, int width)
{
    const vec v = width == 4 ? _mm512_castps256_ps512(s->four) : s->eight;
    return v + _mm512_shuffle_f32x4(v, v, width == 4 ? 0xb1 : 0x4e); /* in the first lanes */
}

/* What tiles_weigh() does; weights stay where scores were, as floats. */
INLINE vec narrow_weigh(struct attention_state *s, vec base, const int range[2],
                        const struct tiles_ahead *ahead, int width)
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32((int)0xffff0000);
    const int each = LANES / width;
    struct narrow_sums sums = {_mm256_setzero_ps(), vec_zero()};
    for (int j = range[0]; j < range[1]; j += each) {
        float *score = s->tiles.score[0] + j * width;
        const __m512i v = _mm512_castps_si512(tiles_exp(vec_load(score) - base));
        const vec weight = _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(v, half), upper));
        for (int i = 0; i < each; i += 2)
            tiles_fetch(ahead, j + i);
        narrow_count(&sums, weight, width);
        vec_store(score, weight);
    }
    return narrow_total(&sums, width);
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
    const vec sum = narrow_weigh(s, less, range, &ahead, width);
    const vec fade = vec_exp(before - less);
    vec_store_n(s->sum, vec_load(s->sum) * fade + sum, width);
    vec_store_n(s->max, max, width);
    vec_store_n(s->fade, fade, width);
    for (int i = 0; i < t->rows * t->heads; i++)
        tiles_fade(s, i);
}

static __attribute__((noinline)) void narrow_softmax_4(const struct attention_tile *t,
                                                       struct attention_state *s, int32_t base,
                                                       const int tiles[2])
{
    narrow_softmax(t, s, base, tiles, 4);
}
static __attribute__((noinline)) void narrow_softmax_8(const struct attention_tile *t,
                                                       struct attention_state *s, int32_t base,
                                                       const int tiles[2])
{
    narrow_softmax(t, s, base, tiles, 8);
}

/* ---- values ---- */

/* Pairs [first, first + n) of one row, which sees positions [range[0], range[1]). */
struct narrow_mix {
    int first, range[2];
    size_t d;                 /* elements [d, d + TILES_COLS) */
    const char *const *ahead; /* values of the next span, or NULL */
};

/* Position j, of the even or the odd ones, of which these are sums. Elements are then where
 * mix16_place() says. */
INLINE void narrow_position(const struct attention_state *s, const struct narrow_mix *m, int j,
                            int n, __mmask32 mask, vec sum[4][2])
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i v = _mm512_maskz_loadu_epi16(mask, s->now->value[j] + 2 * m->d);
    const vec low = _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, v));
    const vec high = _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, v));
    const float *weight = s->tiles.score[0] + j * s->tiles.width + m->first;
    if (m->ahead)
        __builtin_prefetch(m->ahead[j] + 2 * m->d, 0, 2);
    UNROLL
    for (int i = 0; i < n; i++) {
        const vec w = vec_set1(weight[i]);
        sum[i][0] = vec_fma(w, low, sum[i][0]);
        sum[i][1] = vec_fma(w, high, sum[i][1]);
    }
}

/* What the tile unit does with weights and values, in its order: of each 32 positions the sum of
 * the even ones, that of the odd ones, and both added to what was there. Few pairs wait less for
 * this than for values to be put side by side, stored, and loaded as tiles. */
INLINE void narrow_add(struct attention_state *s, const struct narrow_mix *m, int n)
{
    const __mmask32 mask = tiles_mask(s->out_dim - m->d);
    float *acc = s->acc + (size_t)m->first * s->acc_stride + m->d;
    vec all[4][2];
    UNROLL
    for (int i = 0; i < 2 * n; i++)
        all[i / 2][i % 2] = vec_load(acc + (size_t)(i / 2) * s->acc_stride + i % 2 * LANES);
    for (int from = 0; from < OPS_KV_SPAN; from += TILES_COLS) {
        vec even[4][2], odd[4][2];
        int j = m->range[0] > from ? m->range[0] : from;
        const int end = m->range[1] < from + TILES_COLS ? m->range[1] : from + TILES_COLS;
        if (j >= end)
            continue;
        UNROLL
        for (int i = 0; i < 2 * n; i++)
            even[i / 2][i % 2] = odd[i / 2][i % 2] = vec_zero();
        if (j % 2 == 1)
            narrow_position(s, m, j++, n, mask, odd);
        for (; j + 1 < end; j += 2) {
            narrow_position(s, m, j, n, mask, even);
            narrow_position(s, m, j + 1, n, mask, odd);
        }
        if (j < end)
            narrow_position(s, m, j, n, mask, even);
        UNROLL
        for (int i = 0; i < 2 * n; i++)
            all[i / 2][i % 2] = all[i / 2][i % 2] + (even[i / 2][i % 2] + odd[i / 2][i % 2]);
    }
    UNROLL
    for (int i = 0; i < 2 * n; i++)
        vec_store(acc + (size_t)(i / 2) * s->acc_stride + i % 2 * LANES, all[i / 2][i % 2]);
}

#define NARROW_CASE(n)                                                                             \
    static __attribute__((noinline)) void narrow_add_##n(struct attention_state *s,                \
                                                         const struct narrow_mix *m)               \
    {                                                                                              \
        narrow_add(s, m, n);                                                                       \
    }
NARROW_CASE(1)
NARROW_CASE(2)
NARROW_CASE(3)
NARROW_CASE(4)

/* Row by row: a value that one does not see, which may be no number, is not its. */
static void narrow_values(const struct attention_tile *t, struct attention_state *s, int32_t base,
                          const struct attention_view *v)
{
    static void (*const fns[])(struct attention_state *, const struct narrow_mix *) = {
        narrow_add_1, narrow_add_2, narrow_add_3, narrow_add_4};
    struct narrow_mix m = {.ahead = s->ahead ? s->ahead->value : NULL};
    for (int row = v->first; row < v->last; row++) {
        m.range[0] = attention_skip(t, row, base);
        m.range[1] = attention_seen(t, row, base);
        for (int head = 0, n; head < t->heads; head += n, m.ahead = NULL) {
            n = t->heads - head < 4 ? t->heads - head : 4;
            m.first = row * t->heads + head;
            for (m.d = 0; m.d < s->out_dim; m.d += TILES_COLS)
                fns[n - 1](s, &m);
        }
    }
}

/* ---- a span ---- */

/* What tiles_span() does. */
static void narrow_span(const struct attention_tile *t, struct attention_state *s, int32_t base,
                        const struct attention_view *v)
{
    const int tiles[2] = {v->range[0] / TILE_ROWS, (v->range[1] + TILE_ROWS - 1) / TILE_ROWS};
    struct tiles_keys keys;
    tiles_find(t, s, v->range, &keys);
    narrow_scores(s, &keys, tiles, s->tiles.width);
    (s->tiles.width == 4 ? narrow_softmax_4 : narrow_softmax_8)(t, s, base, tiles);
    narrow_values(t, s, base, v);
}

#endif
