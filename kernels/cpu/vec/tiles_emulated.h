/* The words of the tile unit in C, for tiles.h, which says what they do and includes this. */
#ifndef KERNELS_CPU_VEC_TILES_EMULATED_H
#define KERNELS_CPU_VEC_TILES_EMULATED_H

static _Thread_local struct {
    struct tile_config config;
    uint8_t data[8][TILE_ROWS][TILE_ROW_BYTES];
} emulated __attribute__((aligned(64)));

static void tiles_begin(const struct tile_config *c)
{
    emulated.config = *c;
    memset(emulated.data, 0, sizeof emulated.data);
}
static void tiles_end(void)
{
    memset(&emulated.config, 0, sizeof emulated.config);
}
static void TILE_ZERO(int t)
{
    memset(emulated.data[t], 0, sizeof emulated.data[t]);
}
static void TILE_LOAD(int t, const void *p, size_t stride)
{
    TILE_ZERO(t);
    for (size_t r = 0; r < emulated.config.rows[t]; r++)
        memcpy(emulated.data[t][r], (const char *)p + r * stride, emulated.config.row_bytes[t]);
}
static void TILE_STORE(int t, void *p, size_t stride)
{
    for (size_t r = 0; r < emulated.config.rows[t]; r++)
        memcpy((char *)p + r * stride, emulated.data[t][r], emulated.config.row_bytes[t]);
}

/* Signed bytes by bytes that are signed, or not. */
static __attribute__((noinline, unused)) void emulated_dot_bytes(int c, int a, int b, bool sign)
{
    for (int m = 0; m < emulated.config.rows[c]; m++) {
        int32_t sum[TILE_ROWS];
        memcpy(sum, emulated.data[c][m], sizeof sum);
        for (int k = 0; k < emulated.config.row_bytes[a]; k++)
            for (int n = 0; n < TILE_ROWS; n++) {
                const uint8_t w = emulated.data[b][k / 4][4 * n + k % 4];
                sum[n] += (int8_t)emulated.data[a][m][k] * (sign ? (int8_t)w : w);
            }
        memcpy(emulated.data[c][m], sum, sizeof sum);
    }
}
#define TILE_DOT_BYTES(c, a, b) emulated_dot_bytes(c, a, b, true)
#define TILE_DOT_MIXED(c, a, b) emulated_dot_bytes(c, a, b, false)

/* Element `odd` of the 16 pairs of a row. */
static __m512 emulated_half(const uint8_t *row, bool odd)
{
    __m512i v = _mm512_loadu_si512(row);
    v = odd ? _mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)) : _mm512_slli_epi32(v, 16);
    return _mm512_castsi512_ps(v);
}

static __attribute__((noinline, unused)) void TILE_DOT_BF16(int c, int a, int b)
{
    const unsigned csr = flush_begin();
    const int pairs = emulated.config.row_bytes[a] / 4;
    float x[2][TILE_ROWS];
    for (int m = 0; m < emulated.config.rows[c]; m++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        _mm512_storeu_ps(x[0], emulated_half(emulated.data[a][m], false));
        _mm512_storeu_ps(x[1], emulated_half(emulated.data[a][m], true));
        for (int k = 0; k < pairs; k++) {
            const uint8_t *w = emulated.data[b][k];
            even = _mm512_fmadd_ps(_mm512_set1_ps(x[0][k]), emulated_half(w, false), even);
            odd = _mm512_fmadd_ps(_mm512_set1_ps(x[1][k]), emulated_half(w, true), odd);
        }
        uint8_t *to = emulated.data[c][m];
        _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), _mm512_add_ps(even, odd)));
    }
    flush_end(csr);
}

#endif
