/* Spans of attention in tiles of pairs of bf16 (kernels/cpu/vec/tiles.h), where keys are bf16 and
 * queries and weights may be rounded to that. For attention_body.h, which says what a span is.
 *
 * Scores come out with positions down and (row, head) pairs across, 16 of each to a tile: keys
 * are then read where they lie in the pool, as the rows of a tile, and only queries are turned
 * around, once for all spans. Softmax works on 16 pairs side by side, with nothing to sum across
 * lanes. Its weights are turned around to meet the values, of which a position and that 16 later
 * lie side by side. Of up to 8 pairs tiles_narrow_body.h does the same in other ways.
 *
 * Any number of rows goes this way, a single one too: what a lane computes does not depend on the
 * lanes beside it, a sum always takes elements by 32, and positions by 16 of which each two sums
 * are added to what there was as one, so the bits are those of any other batch. What a row does
 * not see has a weight of zero; a value that is no number would make more of that, so where there
 * is one, rows are done one by one, zeros in the place of what they do not see. All of a span is
 * computed with flushing, as the tile unit does it, and zeros lose their sign in the end: then
 * products with zeros may be left out.
 *
 * Counted per span of 64 positions and 16 pairs, head_dim 128: 32 products of tiles (512 cycles);
 * tiles loaded for them 4 x 5 of queries and keys, 2 x 14 of weights, sums and values (384 cycles
 * of the loads' ports, beside the products); 64 vectors of weights of about 23 operations on two
 * ports (740 cycles, of which most run while products of the next 16 pairs are under way). For all
 * pairs together: 256 operations and 256 loads and stores to put two positions side by side. In
 * vectors (score_body.h, mix_body.h) the same takes 16384 fused products on two ports, 8192 cycles,
 * and 1024 shuffles for all pairs. What is counted is not all: tiles that were just stored are
 * waited for, which is most of what few pairs would take.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_ATTENTION_TILES_BODY_H
#define KERNELS_CPU_ATTENTION_TILES_BODY_H

#include "kernels/cpu/attention/span_body.h"

/* Where the tiles of a span's keys or values are: blocks of 32 elements before `staged` a position
 * per row, stride apart, the others in the state. */
struct tiles_rows {
    const char *direct[TILES_OF_SPAN];
    size_t stride, staged;
    int tiles[2]; /* of positions: the first that somebody sees some of, and that behind the last */
};

static size_t tiles_blocks(size_t dim)
{
    return (dim + TILES_COLS - 1) / TILES_COLS;
}

INLINE __mmask32 tiles_mask(size_t left) /* of so many words that are left */
{
    return left >= TILES_COLS ? ~(__mmask32)0 : ((__mmask32)1 << left) - 1;
}

/* What of the next span is fetched meanwhile, a little at a time: more at once would have to wait
 * for each other, and all else for them. */
struct tiles_ahead {
    const char *const *row; /* or NULL */
    size_t bytes, offset;   /* of each, and from where on */
};

INLINE void tiles_fetch(const struct tiles_ahead *a, int j) /* for rows j and j + 1 */
{
    if (!a->row)
        return;
    rows_prefetch(a->row[j] + a->offset, a->bytes);
    rows_prefetch(a->row[j + 1] + a->offset, a->bytes);
}

/* ---- queries ---- */

/* Elements [d, d + 32) of a query, zeros behind its end. */
INLINE vec tiles_query(const float *q, size_t dim, size_t d, float scale)
{
    static const uint16_t upper[TILES_COLS] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                               23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                               45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    const uint32_t mask = tiles_mask(dim - d);
    const vec by = vec_set1(scale);
    const __m512i low = vec_near_bf16(_mm512_maskz_loadu_ps((__mmask16)mask, q + d) * by);
    const __m512i high =
        vec_near_bf16(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), q + d + 16) * by);
    return _mm512_castsi512_ps(_mm512_permutex2var_epi16(low, _mm512_loadu_si512(upper), high));
}

/* The tile's queries: [16 of them][blocks of 32 elements][16 pairs of elements][16 queries][2]. */
static void tiles_queries(const struct attention_tile *t, struct attention_state *s)
{
    const struct op_attention *a = t->op;
    const int n = t->rows * t->heads;
    const size_t stride = a->q_stride ? (size_t)a->q_stride : (size_t)a->heads * s->dim;
    const size_t blocks = tiles_blocks(s->dim);
    float *to = s->q;
    for (int first = 0; first < n; first += TILE_ROWS)
        for (size_t block = 0; block < blocks; block++, to += TILES_TILE) {
            vec v[TILE_ROWS];
            for (int i = 0; i < TILE_ROWS; i++) {
                const int at = first + i < n ? first + i : n - 1;
                const float *q = a->q + (size_t)(t->row + at / t->heads) * stride +
                                 (size_t)(t->head + at % t->heads) * s->dim;
                v[i] = tiles_query(q, s->dim, block * TILES_COLS, a->scale);
            }
            vec_transpose(v);
            UNROLL
            for (int i = 0; i < TILE_ROWS; i++)
                vec_store(to + i * TILE_ROWS, v[i]);
        }
}

/* ---- scores ---- */

/* Finds the keys, or values, of positions [range[0], range[1]). Read where they are, with what else
 * is in their block, unless a tile would reach beyond a block, or beyond an end of elements. */
static void tiles_find(const struct attention_tile *t, struct attention_state *s, enum kv_part part,
                       const int range[2], struct tiles_rows *out)
{
    const size_t dim = part == KV_KEY ? s->dim : s->out_dim, blocks = tiles_blocks(dim);
    const char *const *row = part == KV_KEY ? s->now->key : s->now->value;
    out->tiles[0] = range[0] / TILE_ROWS;
    out->tiles[1] = (range[1] + TILE_ROWS - 1) / TILE_ROWS;
    out->stride = s->pool.slot[part];
    out->staged = t->op->layout->block_tokens % TILE_ROWS == 0 ? dim / TILES_COLS : 0;
    for (int i = 0; i < TILES_OF_SPAN; i++) {
        const int from = i * TILE_ROWS, seen = range[0] > from ? range[0] : from;
        if (out->staged > 0 && seen < range[1] && seen < from + TILE_ROWS)
            out->direct[i] = row[seen] - (size_t)(seen - from) * out->stride;
        else
            out->direct[i] = NULL;
    }
    for (size_t b = out->staged; b < blocks; b++)
        for (int j = 0; j < OPS_KV_SPAN; j++)
            _mm512_store_si512(s->tiles.staged + (b * OPS_KV_SPAN + (size_t)j) * TILES_COLS,
                               _mm512_maskz_loadu_epi16(tiles_mask(dim - b * TILES_COLS),
                                                        row[j] + b * TILE_ROW_BYTES));
}

INLINE const char *tiles_row(const struct attention_state *s, const struct tiles_rows *k,
                             size_t block, int tile)
{
    if (block < k->staged)
        return k->direct[tile] + block * TILE_ROW_BYTES;
    return (const char *)(s->tiles.staged +
                          (block * OPS_KV_SPAN + (size_t)(tile * TILE_ROWS)) * TILES_COLS);
}

/* Tiles 0 to 3: products of these queries with tiles k->tiles of positions, zeros else. */
INLINE void tiles_multiply(struct attention_state *s, const struct tiles_rows *k, const float *q)
{
    const size_t blocks = tiles_blocks(s->dim);
    const int *tiles = k->tiles;
    const bool on[TILES_OF_SPAN] = {
        tiles[0]<1, tiles[0]<2 && tiles[1]> 1, tiles[0]<3 && tiles[1]> 2, tiles[1]> 3};
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (size_t b = 0; b < blocks; b++) {
        const size_t stride = b < k->staged ? k->stride : TILE_ROW_BYTES;
        TILE_LOAD(6, q + b * TILES_TILE, TILE_ROW_BYTES);
        if (on[0]) {
            TILE_LOAD(4, tiles_row(s, k, b, 0), stride);
            TILE_DOT_BF16(0, 4, 6);
        }
        if (on[1]) {
            TILE_LOAD(5, tiles_row(s, k, b, 1), stride);
            TILE_DOT_BF16(1, 5, 6);
        }
        if (on[2]) {
            TILE_LOAD(4, tiles_row(s, k, b, 2), stride);
            TILE_DOT_BF16(2, 4, 6);
        }
        if (on[3]) {
            TILE_LOAD(5, tiles_row(s, k, b, 3), stride);
            TILE_DOT_BF16(3, 5, 6);
        }
    }
}

/* Scores of pairs [16 p, 16 p + 16) in these tiles of positions, into [position][pair]. */
static __attribute__((noinline)) void tiles_scores(struct attention_state *s,
                                                   const struct tiles_rows *k, int p)
{
    float *to = s->tiles.score[p % 2];
    tiles_multiply(s, k, s->q + (size_t)p * tiles_blocks(s->dim) * TILES_TILE);
    TILE_STORE(0, to, TILE_ROW_BYTES);
    TILE_STORE(1, to + TILES_TILE, TILE_ROW_BYTES);
    TILE_STORE(2, to + 2 * TILES_TILE, TILE_ROW_BYTES);
    TILE_STORE(3, to + 3 * TILES_TILE, TILE_ROW_BYTES);
}

/* ---- weights ---- */

/* e^x for x <= 0, to 3e-6 of it: what is rounded to bf16 needs no more. */
INLINE vec tiles_exp(vec x)
{
    x = vec_max(vec_set1(-200.0f), x * vec_set1(0x1.715476p+0f)); /* keeps NaN */
    const vec k = vec_of_int(vec_round(x)), r = x - k;
    vec p = vec_fma(vec_set1(1.3333558e-3f), r, vec_set1(9.6181291e-3f)); /* Taylor's, of 2^r */
    p = vec_fma(p, r, vec_set1(5.5504109e-2f));
    p = vec_fma(p, r, vec_set1(2.4022651e-1f));
    p = vec_fma(p, r, vec_set1(6.9314718e-1f));
    p = vec_fma(p, r, vec_set1(1.0f));
    return _mm512_scalef_ps(p, k);
}

/* Before softmax: what scores are made of, and -infinity where a pair does not see. */
static void tiles_limit(const struct attention_tile *t, float *score, int p, int32_t base,
                        const int range[2])
{
    const int n = t->rows * t->heads, from = p * TILE_ROWS;
    const int last = (from + TILE_ROWS < n ? from + TILE_ROWS : n) - 1;
    int32_t seen[TILE_ROWS] = {0}, skip[TILE_ROWS] = {0};
    const vec cap = vec_set1(t->op->softcap);
    for (int j = range[0]; j < range[1] && t->op->softcap > 0; j++)
        vec_store(score + j * TILE_ROWS, cap * vec_tanh(vec_load(score + j * TILE_ROWS) / cap));
    if (attention_seen(t, from / t->heads, base) == OPS_KV_SPAN &&
        attention_skip(t, last / t->heads, base) == 0)
        return;
    for (int i = from; i <= last; i++) {
        seen[i - from] = attention_seen(t, i / t->heads, base);
        skip[i - from] = attention_skip(t, i / t->heads, base);
    }
    const __m512i to = _mm512_loadu_si512(seen), since = _mm512_loadu_si512(skip);
    for (int j = range[0]; j < range[1]; j++) {
        const __m512i at = _mm512_set1_epi32(j);
        const __mmask16 sees = _mm512_cmplt_epi32_mask(at, to) & _mm512_cmpge_epi32_mask(at, since);
        vec_store(score + j * TILE_ROWS,
                  _mm512_mask_loadu_ps(vec_set1(-INFINITY), sees, score + j * TILE_ROWS));
    }
}

/* A tile of positions' scores, and what is fetched meanwhile. */
struct tiles_scored {
    const float *score;
    const struct tiles_ahead *ahead;
    int first; /* position */
};

/* Weights of the first or the second tile of a half of the span, and what they add up to when
 * rounded, by position % 4. What is rounded lies in [0, 1] or is NaN, and carries nowhere. */
INLINE void tiles_weigh_one(struct tiles_scored t, vec base, bool second, vec weight[TILE_ROWS],
                            vec sum[4])
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32((int)0xffff0000);
    for (int j = 0; j < TILE_ROWS; j += 4) {
        tiles_fetch(t.ahead, t.first + j);
        tiles_fetch(t.ahead, t.first + j + 2);
        UNROLL
        for (int i = 0; i < 4; i++) {
            const vec v = tiles_exp(vec_load(t.score + (j + i) * TILE_ROWS) - base);
            const __m512i near = _mm512_add_epi32(_mm512_castps_si512(v), half);
            const __m512i w = _mm512_and_si512(near, upper);
            const __m512i before = _mm512_castps_si512(weight[j + i]);
            sum[i] = sum[i] + _mm512_castsi512_ps(w);
            weight[j + i] =
                _mm512_castsi512_ps(second ? _mm512_or_si512(before, w) : _mm512_srli_epi32(w, 16));
        }
    }
}

/* Weights of tiles [first, end) of positions, zeros of others, with their sum: [half of the
 * span][position][pair][2], the second that of the position 16 later. */
INLINE vec tiles_weigh(const float *score, vec base, const int tiles[2],
                       vec weight[OPS_KV_SPAN / 2], const struct tiles_ahead *ahead)
{
    vec sum[2][4];
    UNROLL
    for (int i = 0; i < 8; i++)
        sum[i / 4][i % 4] = vec_zero();
    for (int j = 0; j < OPS_KV_SPAN / 2; j++)
        weight[j] = vec_zero();
    for (int tile = tiles[0]; tile < tiles[1]; tile++) {
        const struct tiles_scored t = {score + tile * TILES_TILE, ahead, tile * TILE_ROWS};
        vec *to = weight + tile / 2 * TILE_ROWS;
        if (tile % 2 == 0)
            tiles_weigh_one(t, base, false, to, sum[0]);
        else
            tiles_weigh_one(t, base, true, to, sum[1]);
    }
    UNROLL
    for (int i = 0; i < 4; i++)
        sum[0][i] = sum[0][i] + sum[1][i];
    return (sum[0][0] + sum[0][1]) + (sum[0][2] + sum[0][3]);
}

static void tiles_fade(struct attention_state *s, int i)
{
    for (size_t d = 0; s->fade[i] != 1 && d < s->acc_stride; d += LANES) {
        float *acc = s->acc + (size_t)i * s->acc_stride + d;
        vec_store(acc, vec_load(acc) * vec_set1(s->fade[i]));
    }
}

/* Turns scores of pairs [16 p, 16 p + 16) into weights, merges the span into their maxima and sums,
 * and fades what was added up before. */
static __attribute__((noinline)) void tiles_softmax(const struct attention_tile *t,
                                                    struct attention_state *s, int p, int32_t base,
                                                    const int tiles[2], bool fetches)
{
    const int range[2] = {tiles[0] * TILE_ROWS, tiles[1] * TILE_ROWS}, from = p * TILE_ROWS;
    float *score = s->tiles.score[p % 2];
    vec weight[OPS_KV_SPAN / 2], top = vec_set1(-INFINITY);
    tiles_limit(t, score, p, base, range);
    for (int j = range[0]; j < range[1]; j++)
        top = vec_max(vec_load(score + j * TILE_ROWS), top);
    const vec before = vec_load(s->max + from), max = vec_max(top, before);
    const __mmask16 none = _mm512_cmp_ps_mask(max, vec_set1(-INFINITY), _CMP_EQ_OQ);
    const vec less = _mm512_mask_mov_ps(max, none, vec_zero()); /* weights 0 then, not NaN */
    const struct tiles_ahead ahead = {fetches && s->ahead ? s->ahead->key : NULL,
                                      s->dim * sizeof(uint16_t)};
    const vec sum = tiles_weigh(score, less, tiles, weight, &ahead);
    const vec fade = vec_exp(before - less);
    vec_store(s->sum + from, vec_load(s->sum + from) * fade + sum);
    vec_store(s->max + from, max);
    vec_store(s->fade + from, fade);
    for (int h = 0; h < 2; h++) {
        vec_transpose(weight + h * TILE_ROWS);
        for (int i = 0; i < TILE_ROWS; i++)
            vec_store(s->tiles.weight[p][h] + i * TILE_ROWS, weight[h * TILE_ROWS + i]);
    }
    for (int i = from; i < from + TILE_ROWS && i < t->rows * t->heads; i++)
        tiles_fade(s, i);
}

#include "kernels/cpu/attention/tiles_narrow_body.h"

/* ---- values ---- */

/* Elements [d, d + 64) of the values of positions [range[0], range[1]), zeros elsewhere:
 * [half of the span][two tiles of each 32 elements][position][16][2], the second of the position 16
 * later. Elements are then where mix16_place() says. True where one is no finite number. */
static bool tiles_values(struct attention_state *s, size_t d, const int range[2])
{
    const size_t end = s->out_dim - d < TILES_CHUNK ? s->out_dim : d + TILES_CHUNK;
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    const struct tiles_ahead ahead = {s->ahead ? s->ahead->value : NULL, (end - d) * 2, d * 2};
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < OPS_KV_SPAN / 2; i++) {
        const int j = i / TILE_ROWS * 2 * TILE_ROWS + i % TILE_ROWS;
        float *to = s->tiles.value[i / TILE_ROWS][0] + i % TILE_ROWS * TILE_ROWS;
        tiles_fetch(&ahead, 2 * i);
        for (size_t e = d; e < end; e += TILES_COLS, to += 2 * TILES_TILE) {
            const __mmask32 mask = tiles_mask(s->out_dim - e);
            __m512i x[2];
            UNROLL
            for (int k = 0; k < 2; k++) {
                const int at = j + k * TILE_ROWS;
                const bool sees = at >= range[0] && at < range[1];
                x[k] = _mm512_maskz_loadu_epi16(sees ? mask : 0, s->now->value[at] + 2 * e);
                most = _mm512_max_epu16(most, _mm512_and_si512(x[k], magnitude));
            }
            _mm512_store_si512(to, _mm512_unpacklo_epi16(x[0], x[1]));
            _mm512_store_si512(to + TILES_TILE, _mm512_unpackhi_epi16(x[0], x[1]));
        }
    }
    return _mm512_cmpge_epu16_mask(most, _mm512_set1_epi16(0x7f80)) != 0;
}

/* acc [16 pairs, stride bytes apart][32 or 64 elements] += weights times values. */
INLINE void tiles_add(const struct attention_state *s, int p, float *acc, size_t stride, bool wide)
{
    TILE_LOAD(0, acc, stride);
    TILE_LOAD(1, acc + TILE_ROWS, stride);
    TILE_LOAD(4, s->tiles.weight[p][0], TILE_ROW_BYTES);
    TILE_LOAD(6, s->tiles.value[0][0], TILE_ROW_BYTES);
    TILE_DOT_BF16(0, 4, 6);
    TILE_LOAD(7, s->tiles.value[0][1], TILE_ROW_BYTES);
    TILE_DOT_BF16(1, 4, 7);
    if (wide) {
        TILE_LOAD(2, acc + 2 * TILE_ROWS, stride);
        TILE_LOAD(3, acc + 3 * TILE_ROWS, stride);
        TILE_LOAD(6, s->tiles.value[0][2], TILE_ROW_BYTES);
        TILE_DOT_BF16(2, 4, 6);
        TILE_LOAD(7, s->tiles.value[0][3], TILE_ROW_BYTES);
        TILE_DOT_BF16(3, 4, 7);
    }
    TILE_LOAD(5, s->tiles.weight[p][1], TILE_ROW_BYTES);
    TILE_LOAD(6, s->tiles.value[1][0], TILE_ROW_BYTES);
    TILE_DOT_BF16(0, 5, 6);
    TILE_LOAD(7, s->tiles.value[1][1], TILE_ROW_BYTES);
    TILE_DOT_BF16(1, 5, 7);
    if (wide) {
        TILE_LOAD(6, s->tiles.value[1][2], TILE_ROW_BYTES);
        TILE_DOT_BF16(2, 5, 6);
        TILE_LOAD(7, s->tiles.value[1][3], TILE_ROW_BYTES);
        TILE_DOT_BF16(3, 5, 7);
        TILE_STORE(2, acc + 2 * TILE_ROWS, stride);
        TILE_STORE(3, acc + 3 * TILE_ROWS, stride);
    }
    TILE_STORE(0, acc, stride);
    TILE_STORE(1, acc + TILE_ROWS, stride);
}

static __attribute__((noinline)) void tiles_add_one(const struct attention_state *s, int p,
                                                    float *acc, size_t stride)
{
    tiles_add(s, p, acc, stride, false);
}
static __attribute__((noinline)) void tiles_add_two(const struct attention_state *s, int p,
                                                    float *acc, size_t stride)
{
    tiles_add(s, p, acc, stride, true);
}

static void tiles_mix(const struct attention_state *s, int p, float *acc, size_t stride, size_t d)
{
    if (s->acc_stride - d >= TILES_CHUNK)
        tiles_add_two(s, p, acc, stride * sizeof *acc);
    else
        tiles_add_one(s, p, acc, stride * sizeof *acc);
}

/* Of row `row`, whose values alone are there, the pairs. */
static void tiles_mix_row(const struct attention_tile *t, struct attention_state *s, int row,
                          size_t d)
{
    const int end = (row + 1) * t->heads;
    const size_t n = s->acc_stride - d < TILES_CHUNK ? s->acc_stride - d : TILES_CHUNK;
    for (int i = row * t->heads, next; i < end; i = next) {
        const int p = i / TILE_ROWS;
        float own[TILE_ROWS * TILES_CHUNK];
        next = (p + 1) * TILE_ROWS < end ? (p + 1) * TILE_ROWS : end;
        float *acc = s->acc + (size_t)i * s->acc_stride + d;
        memset(own, 0, sizeof own);
        for (int j = i; j < next; j++)
            memcpy(own + j % TILE_ROWS * TILES_CHUNK, acc + (size_t)(j - i) * s->acc_stride,
                   n * sizeof *own);
        tiles_mix(s, p, own, TILES_CHUNK, d);
        for (int j = i; j < next; j++)
            memcpy(acc + (size_t)(j - i) * s->acc_stride, own + j % TILE_ROWS * TILES_CHUNK,
                   n * sizeof *own);
    }
}

/* ---- a span ---- */

static void tiles_span_of_many(const struct attention_tile *t, struct attention_state *s,
                               int32_t base, const struct attention_view *v)
{
    const int first = v->first * t->heads / TILE_ROWS;
    const int end = (v->last * t->heads + TILE_ROWS - 1) / TILE_ROWS;
    const bool all =
        attention_seen(t, 0, base) == OPS_KV_SPAN && attention_skip(t, t->rows - 1, base) == 0;
    struct tiles_rows keys;
    tiles_find(t, s, KV_KEY, v->range, &keys);
    tiles_scores(s, &keys, first);
    for (int p = first; p < end; p++) {
        if (p + 1 < end)
            tiles_scores(s, &keys, p + 1);
        tiles_softmax(t, s, p, base, keys.tiles, p == first);
    }
    for (size_t d = 0; d < s->out_dim; d += TILES_CHUNK) {
        const bool sick = tiles_values(s, d, v->range) && !all;
        for (int p = first; p < end && !sick; p++)
            tiles_mix(s, p, s->acc + (size_t)(p * TILE_ROWS) * s->acc_stride + d, s->acc_stride, d);
        for (int row = v->first; row < v->last && sick; row++) {
            tiles_values(s, d,
                         (int[2]){attention_skip(t, row, base), attention_seen(t, row, base)});
            tiles_mix_row(t, s, row, d);
        }
    }
}

/* What attention_span() does. */
static void tiles_span(const struct attention_tile *t, struct attention_state *s, int32_t base,
                       const struct attention_view *v)
{
    const unsigned csr = flush_begin();
    if (s->tiles.width == 4)
        narrow_span_4(t, s, base, v);
    else if (s->tiles.width == 8)
        narrow_span_8(t, s, base, v);
    else
        tiles_span_of_many(t, s, base, v);
    flush_end(csr);
}

/* A pair's elements as mix16_place() has them, in their order. */
INLINE void tiles_order(vec low, vec high, vec out[2])
{
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    out[0] = _mm512_permutex2var_ps(low, first, high);
    out[1] = _mm512_permutex2var_ps(low, second, high);
}

/* Elements of a pair's sums in their order, times `fade` and over `sum`. */
static void tiles_write(const struct attention_state *s, const float *acc, vec fade, vec sum,
                        float *out)
{
    for (size_t d = 0; d < s->out_dim; d += TILES_COLS) {
        const uint32_t mask = tiles_mask(s->out_dim - d);
        const vec low = (vec_load(acc + d) + vec_zero()) * fade / sum;
        const vec high = (vec_load(acc + d + LANES) + vec_zero()) * fade / sum;
        vec v[2];
        if (s->tiles.width < TILE_ROWS)
            narrow_order(low, high, v);
        else
            tiles_order(low, high, v);
        _mm512_mask_storeu_ps(out + d, (__mmask16)mask, v[0]);
        _mm512_mask_storeu_ps(out + d + LANES, (__mmask16)(mask >> 16), v[1]);
    }
}

/* Sets the tiles for so many pairs. */
static void tiles_attention_set(struct attention_state *s, int pairs)
{
    struct tile_config c = {0};
    const int width = narrow_width(pairs);
    if (s->tiles.width == width)
        return;
    s->tiles.width = width;
    if (width < TILE_ROWS) {
        narrow_configure(width);
        return;
    }
    for (int i = 0; i < 8; i++)
        tile_set(&c, i, TILE_ROWS, TILE_ROW_BYTES);
    tiles_begin(&c);
}

#endif
