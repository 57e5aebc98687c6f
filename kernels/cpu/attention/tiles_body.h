/* Stretches of attention in tiles of pairs of bf16 (kernels/cpu/vec/tiles.h), where keys are bf16,
 * or are made that by tiles_widen_body.h, and queries and weights may be rounded to it. For
 * attention_body.h, which says what a stretch is.
 *
 * Scores come out with positions down and (row, head) pairs across, 16 of each to a tile: keys
 * are then read where they lie in the pool, as the rows of a tile, and only queries are turned
 * around, once for all stretches. Softmax works on 16 pairs side by side, with nothing to sum
 * across lanes, and on a whole stretch: it has one maximum, and its sums with values stay in tiles
 * from the first position to the last. Its weights are turned around to meet the values, of which a
 * position and that 16 later lie side by side. Two times 16 pairs go together, so that a tile that
 * was loaded serves two products: where another thread is busy on the core, loads take longer than
 * products. Of up to 8 pairs tiles_narrow_body.h does the same in other ways.
 *
 * Any number of rows goes this way, a single one too: what a lane computes does not depend on the
 * lanes beside it, a sum always takes elements by 32, and positions by 16 of which each two sums
 * are added to what there was as one, so the bits are those of any other batch. What a row does
 * not see has a weight of zero; a value that is no number would make more of that, so where there
 * is one, rows are done one by one, zeros in the place of what they do not see. All of a stretch is
 * computed with flushing, as the tile unit does it, and zeros lose their sign in the end: then
 * products with zeros may be left out.
 *
 * Counted per 64 positions and 16 pairs, head_dim 128: 32 products of tiles (512 cycles), each with
 * one tile loaded; 64 vectors of weights of about 21 operations on two ports (670 cycles). For all
 * pairs together: 256 operations and 256 loads and stores to put two positions side by side. In
 * vectors (score_body.h, mix_body.h) the same takes 16384 fused products on two ports, 8192 cycles,
 * and 1024 shuffles for all pairs. What is counted is not all: tiles that were just stored are
 * waited for, which is most of what few pairs would take.
 *
 * It is over 150 lines because it is code. */
#ifndef KERNELS_CPU_ATTENTION_TILES_BODY_H
#define KERNELS_CPU_ATTENTION_TILES_BODY_H

#include "kernels/cpu/attention/span_body.h"

/* The stretch that is computed. */
struct tiles_stretch {
    const struct attention_tile *tile;
    int32_t base; /* its first position; others count from there */
    const struct tiles_seen *now, *next;
    bool cold; /* nobody has asked for its keys before */
};

/* Where the tiles of a stretch's keys or values are: blocks of 32 elements before `staged` a
 * position per row, stride apart, the others in the state. */
struct tiles_rows {
    const char *direct[TILES_OF_STRETCH];
    size_t stride, staged;
};

static size_t tiles_blocks(size_t dim)
{
    return (dim + TILES_COLS - 1) / TILES_COLS;
}

INLINE __mmask32 tiles_mask(size_t left) /* of so many words that are left */
{
    return left >= TILES_COLS ? ~(__mmask32)0 : ((__mmask32)1 << left) - 1;
}

/* What is fetched meanwhile, a little at a time: more at once would have to wait for each other,
 * and all else for them. */
struct tiles_ahead {
    const char *const *row;
    const int *range;     /* of these rows alone */
    size_t offset, bytes; /* of each, from where on; 0: nothing */
};

/* Of positions [first, end). */
INLINE void tiles_fetch(const struct tiles_ahead *a, int first, int end)
{
    if (a->bytes == 0)
        return;
    first = first > a->range[0] ? first : a->range[0];
    end = end < a->range[1] ? end : a->range[1];
    for (int j = first; j < end; j++)
        rows_prefetch(a->row[j] + a->offset, a->bytes);
}

/* Whether what is stored is no bf16, and tiles_widen() reads it. */
INLINE bool tiles_widens(const struct attention_state *s)
{
    return s->dtype != DTYPE_BF16;
}

/* The stretch's values, unless its keys hold them. */
INLINE struct tiles_ahead tiles_values_ahead(const struct attention_state *s,
                                             const struct tiles_stretch *x)
{
    const bool own = x->tile->op->layout->value_dim > 0;
    return (struct tiles_ahead){x->now->value, x->now->range, 0, own ? s->pool.slot[KV_VALUE] : 0};
}

/* Its own keys, where nobody has asked for them. */
INLINE struct tiles_ahead tiles_keys_ahead(const struct attention_state *s,
                                           const struct tiles_stretch *x)
{
    return (struct tiles_ahead){x->now->key, x->now->range, 0, x->cold ? s->pool.slot[KV_KEY] : 0};
}

/* The next one's keys: what lies beside elements [d, d + n) of values, and with the last all. */
INLINE struct tiles_ahead tiles_next_ahead(const struct attention_state *s,
                                           const struct tiles_stretch *x, size_t d, size_t n)
{
    const size_t end = d + n < s->out_dim && d + n < s->dim ? d + n : s->dim;
    const size_t from = s->pool.slot[KV_KEY] * d / s->dim, to = s->pool.slot[KV_KEY] * end / s->dim;
    return (struct tiles_ahead){x->next->key, x->next->range, from, to > from ? to - from : 0};
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

/* ---- a stretch ---- */

/* Of its positions, row i sees [skip, seen); nothing where skip is not less. */
static int tiles_clamp(int32_t n)
{
    return n > ATTENTION_STRETCH ? ATTENTION_STRETCH : n > 0 ? (int)n : 0;
}
static int tiles_end_of(const struct tiles_stretch *x, int i)
{
    return tiles_clamp(x->tile->op->rows->positions[x->tile->row + i] + 1 - x->base);
}
static int tiles_start_of(const struct tiles_stretch *x, int i)
{
    const int32_t p = x->tile->op->rows->positions[x->tile->row + i];
    return tiles_clamp(attention_window_from(x->tile->op, p) - x->base);
}

static int tiles_pairs(const struct tiles_stretch *x)
{
    return x->tile->rows * x->tile->heads;
}

/* Pairs that are computed together: [first, end), and the tiles of positions that some of them see.
 */
struct tiles_group {
    int first, end; /* multiples of TILE_ROWS */
    int tiles[2];
};

static struct tiles_group tiles_group(const struct tiles_stretch *x, int first, int most)
{
    const int pairs = tiles_pairs(x), left = pairs - first;
    struct tiles_group g = {.first = first, .end = left > most ? first + most : pairs};
    const int from = tiles_start_of(x, first / x->tile->heads);
    const int to = tiles_end_of(x, (g.end - 1) / x->tile->heads);
    g.end = (g.end + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    if (from < to) {
        g.tiles[0] = from / TILE_ROWS;
        g.tiles[1] = (to + TILE_ROWS - 1) / TILE_ROWS;
    }
    return g;
}

#include "kernels/cpu/attention/tiles_scores_body.h"
#include "kernels/cpu/attention/tiles_weights_body.h"

/* ---- values ---- */

/* Elements of a value from d on, a multiple of 32. */
INLINE const void *tiles_value(const struct tiles_stretch *x, const struct attention_state *s,
                               int position, size_t d)
{
    if (tiles_widens(s))
        return s->tiles.staged + tiles_staged(d / TILES_COLS, position);
    return x->now->value[position] + d * sizeof(uint16_t);
}

/* Elements [d, d + 64) of the values of positions [range[0], range[1]), zeros in the others' places
 * as far as somebody sees some of the 32: [32 positions][two tiles of each 32 elements][position]
 * [16][2], the second of the position 16 later. Elements are then as vec_of_unpacked() takes them.
 * True where one is no finite number. */
static bool tiles_values(const struct tiles_stretch *x, struct attention_state *s, size_t d,
                         const int range[2])
{
    const size_t end = s->out_dim - d < TILES_CHUNK ? s->out_dim : d + TILES_CHUNK;
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    const struct tiles_ahead ahead = tiles_next_ahead(s, x, d, TILES_CHUNK);
    __m512i most = _mm512_setzero_si512();
    for (int i = x->now->range[0] / TILES_COLS; i * TILES_COLS < x->now->range[1]; i++)
        for (int k = 0; k < TILE_ROWS; k++) {
            const int at[2] = {i * TILES_COLS + k, i * TILES_COLS + k + TILE_ROWS};
            float *to = s->tiles.value[i][0] + k * TILE_ROWS;
            tiles_fetch(&ahead, i * TILES_COLS + 2 * k, i * TILES_COLS + 2 * k + 2);
            for (size_t e = d; e < end; e += TILES_COLS, to += 2 * TILES_TILE) {
                const __mmask32 mask = tiles_mask(s->out_dim - e);
                __m512i v[2];
                UNROLL
                for (int h = 0; h < 2; h++) {
                    const bool sees = at[h] >= range[0] && at[h] < range[1];
                    v[h] = _mm512_setzero_si512();
                    if (sees)
                        v[h] = _mm512_maskz_loadu_epi16(mask, tiles_value(x, s, at[h], e));
                    most = _mm512_max_epu16(most, _mm512_and_si512(v[h], magnitude));
                }
                _mm512_store_si512(to, _mm512_unpacklo_epi16(v[0], v[1]));
                _mm512_store_si512(to + TILES_TILE, _mm512_unpackhi_epi16(v[0], v[1]));
            }
        }
    return _mm512_cmpge_epu16_mask(most, _mm512_set1_epi16(0x7f80)) != 0;
}

/* Weighted values of 32 pairs, from group g->first on: acc [32, stride floats apart][32 elements],
 * of tiles `at` and the next of the values. */
static __attribute__((noinline)) void tiles_mix_two(const struct attention_state *s,
                                                    const struct tiles_group *g, size_t at,
                                                    float *acc, size_t stride)
{
    const size_t bytes = stride * sizeof *acc;
    float *more = acc + TILE_ROWS * stride;
    const int p = g->first / TILE_ROWS;
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int i = g->tiles[0] / 2; 2 * i < g->tiles[1]; i++) {
        TILE_LOAD(4, s->tiles.weight[p][i], TILE_ROW_BYTES);
        TILE_LOAD(5, s->tiles.weight[p + 1][i], TILE_ROW_BYTES);
        TILE_LOAD(6, s->tiles.value[i][at], TILE_ROW_BYTES);
        TILE_LOAD(7, s->tiles.value[i][at + 1], TILE_ROW_BYTES);
        TILE_DOT_BF16(0, 4, 6);
        TILE_DOT_BF16(1, 4, 7);
        TILE_DOT_BF16(2, 5, 6);
        TILE_DOT_BF16(3, 5, 7);
    }
    TILE_STORE(0, acc, bytes);
    TILE_STORE(1, acc + TILE_ROWS, bytes);
    TILE_STORE(2, more, bytes);
    TILE_STORE(3, more + TILE_ROWS, bytes);
}

/* The same of 16. */
static __attribute__((noinline)) void tiles_mix_one(const struct attention_state *s,
                                                    const struct tiles_group *g, size_t at,
                                                    float *acc, size_t stride)
{
    const size_t bytes = stride * sizeof *acc;
    TILE_ZERO(0);
    TILE_ZERO(1);
    for (int i = g->tiles[0] / 2; 2 * i < g->tiles[1]; i++) {
        TILE_LOAD(4, s->tiles.weight[g->first / TILE_ROWS][i], TILE_ROW_BYTES);
        TILE_LOAD(6, s->tiles.value[i][at], TILE_ROW_BYTES);
        TILE_LOAD(7, s->tiles.value[i][at + 1], TILE_ROW_BYTES);
        TILE_DOT_BF16(0, 4, 6);
        TILE_DOT_BF16(1, 4, 7);
    }
    TILE_STORE(0, acc, bytes);
    TILE_STORE(1, acc + TILE_ROWS, bytes);
}

/* Elements [d, d + 64) of a group, as far as there are. */
static void tiles_mix(struct attention_state *s, const struct tiles_group *g, size_t d)
{
    float *acc = s->acc + (size_t)g->first * s->acc_stride + d;
    for (size_t at = 0; at < 4 && d < s->acc_stride; at += 2, d += TILES_COLS, acc += TILES_COLS)
        if (g->end - g->first == TILE_ROWS)
            tiles_mix_one(s, g, at, acc, s->acc_stride);
        else
            tiles_mix_two(s, g, at, acc, s->acc_stride);
}

/* Of row `row`, whose values alone are there, the pairs. */
static void tiles_mix_row(const struct tiles_stretch *x, struct attention_state *s, int row,
                          size_t d)
{
    const int end = (row + 1) * x->tile->heads;
    float own[TILE_ROWS * TILES_COLS];
    for (int i = row * x->tile->heads, next; i < end; i = next) {
        const struct tiles_group g = tiles_group(x, i / TILE_ROWS * TILE_ROWS, TILE_ROWS);
        next = g.end < end ? g.end : end;
        for (size_t at = 0, e = d; at < 4 && e < s->acc_stride; at += 2, e += TILES_COLS) {
            tiles_mix_one(s, &g, at, own, TILES_COLS);
            for (int j = i; j < next; j++)
                memcpy(s->acc + (size_t)j * s->acc_stride + e, own + j % TILE_ROWS * TILES_COLS,
                       TILES_COLS * sizeof *own);
        }
    }
}

#include "kernels/cpu/attention/tiles_narrow_body.h"

/* ---- all of it ---- */

static void tiles_stretch_of_many(const struct tiles_stretch *x, struct attention_state *s)
{
    const int pairs = tiles_pairs(x);
    const bool all =
        tiles_end_of(x, 0) == ATTENTION_STRETCH && tiles_start_of(x, x->tile->rows - 1) == 0;
    struct tiles_rows keys;
    tiles_find(x, s, KV_KEY, &keys);
    for (int p = 0; p < pairs; p += 2 * TILE_ROWS) {
        const struct tiles_group g = tiles_group(x, p, 2 * TILE_ROWS);
        tiles_scores(s, &keys, &g);
        for (int i = g.first; i < g.end; i += TILE_ROWS)
            tiles_softmax(x, s, i, &g);
    }
    if (tiles_widens(s))
        tiles_find(x, s, KV_VALUE, &(struct tiles_rows){0});
    for (size_t d = 0; d < s->out_dim; d += TILES_CHUNK) {
        const bool sick = tiles_values(x, s, d, x->now->range) && !all;
        for (int p = 0; p < pairs && !sick; p += 2 * TILE_ROWS) {
            const struct tiles_group g = tiles_group(x, p, 2 * TILE_ROWS);
            tiles_mix(s, &g, d);
        }
        for (int row = 0; row < x->tile->rows && sick; row++) {
            tiles_values(x, s, d, (int[2]){tiles_start_of(x, row), tiles_end_of(x, row)});
            tiles_mix_row(x, s, row, d);
        }
    }
}

/* What the tile's rows see of a stretch, and where it is; nothing of none. */
static void tiles_look(const struct attention_tile *t, struct attention_where where,
                       struct tiles_seen *out)
{
    const struct tiles_stretch x = {.tile = t, .base = where.at * ATTENTION_STRETCH};
    struct attention_pool pool;
    out->range[0] = out->range[1] = 0;
    if (where.at < 0)
        return;
    attention_find_pool(t, where.kv_head, &pool);
    out->range[0] = tiles_start_of(&x, 0);
    out->range[1] = tiles_end_of(&x, t->rows - 1);
    for (int i = 0; i < ATTENTION_STRETCH; i += OPS_KV_SPAN) {
        const int from = out->range[0] > i ? out->range[0] - i : 0;
        const int to = out->range[1] < i + OPS_KV_SPAN ? out->range[1] - i : OPS_KV_SPAN;
        if (from < to)
            attention_locate(&pool, x.base + i, (int[2]){from, to}, out->key + i, out->value + i);
    }
}

static bool tiles_same(struct attention_where a, struct attention_where b)
{
    return a.kv_head == b.kv_head && a.at == b.at;
}

/* What attention_stretch() does. */
static void tiles_stretch(const struct attention_tile *t, struct attention_state *s, int32_t at)
{
    static const struct tiles_seen nothing;
    const struct attention_where here = {t->kv_head, at};
    struct attention_tiles *m = &s->tiles;
    struct tiles_stretch x = {.tile = t, .base = at * ATTENTION_STRETCH, .next = &nothing};
    x.cold = m->row != t->row || !tiles_same(m->known, here);
    if (x.cold)
        tiles_look(t, here, &m->seen[m->turn]);
    x.now = &m->seen[m->turn];
    m->row = t->row;
    m->known = here;
    if (!tiles_same(t->next, here)) {
        m->turn = !m->turn;
        tiles_look(t, t->next, &m->seen[m->turn]);
        x.next = &m->seen[m->turn];
        m->known = t->next;
    }
    const unsigned csr = flush_begin();
    if (m->width == 4)
        narrow_stretch_4(&x, s);
    else if (m->width == 8)
        narrow_stretch_8(&x, s);
    else
        tiles_stretch_of_many(&x, s);
    flush_end(csr);
}

/* Elements of a pair's sums in their order, times `fade` and over `sum`. */
static void tiles_write(const struct attention_state *s, const float *acc, vec fade, vec sum,
                        float *out)
{
    const vec share = fade / sum;
    for (size_t d = 0; d < s->out_dim; d += TILES_COLS) {
        const uint32_t mask = tiles_mask(s->out_dim - d);
        const vec low = (vec_load(acc + d) + vec_zero()) * share;
        const vec high = (vec_load(acc + d + LANES) + vec_zero()) * share;
        vec v[2];
        if (s->tiles.width < TILE_ROWS)
            narrow_order(low, high, v);
        else
            vec_of_unpacked(low, high, v);
        _mm512_mask_storeu_ps(out + d, (__mmask16)mask, v[0]);
        _mm512_mask_storeu_ps(out + d + LANES, (__mmask16)(mask >> 16), v[1]);
    }
}

static void tiles_attention_begin(struct attention_state *s)
{
    s->tiles.width = s->tiles.turn = 0;
    s->tiles.row = -1;
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
