/* The words of the tile unit (Intel AMX, SDM volume 1 chapter 18): eight tiles of up to 16 rows
 * of 64 bytes, loaded from and stored to memory row by row, and products of two that are added to
 * a third.
 *
 *     TILE_DOT_BYTES(c, a, b)  c[m][n] += sum_k a[m][k] * b[k / 4][n][k % 4], signed bytes, exact
 *     TILE_DOT_MIXED(c, a, b)  the same, with bytes of b that have no sign
 *     TILE_DOT_BF16(c, a, b)   c[m][n] += even + odd, where even is the sum of
 *                              a[m][k] * b[k / 2][n][0] over even k, added up one after the
 *                              other by fused operations, odd that of odd k; what is too small
 *                              for a normal number counts as zero
 *
 * With TILES_EMULATED they are spelled in C: the same bits on a CPU without the unit, some thirty
 * times slower. That is for tests, and for whoever wants to see what another machine computed.
 *
 * Tiles belong to a thread, from tiles_begin() to tiles_end(). Numbers of tiles are constants. */
#ifndef KERNELS_CPU_VEC_TILES_H
#define KERNELS_CPU_VEC_TILES_H

#include <stdint.h>
#include <string.h>

#include "kernels/cpu/vec/vec_avx512.h"

#define TILE_ROWS 16
#define TILE_ROW_BYTES 64
#define TILE_BYTES ((size_t)1024)

/* As the instruction has it. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

INLINE void tile_set(struct tile_config *c, int tile, size_t rows, size_t row_bytes)
{
    c->palette = 1;
    c->rows[tile] = (uint8_t)rows;
    c->row_bytes[tile] = (uint16_t)row_bytes;
}

/* Between these, vectors too take what is no normal number for zero. */
INLINE unsigned flush_begin(void)
{
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | _MM_FLUSH_ZERO_ON | 0x40);
    __asm__ volatile("" ::: "memory");
    return before;
}
INLINE void flush_end(unsigned before)
{
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(before);
}

#if !defined(TILES_EMULATED)

/* The compiler's own words do not say that they read memory. */
#define TILE_FENCE() __asm__ volatile("" ::: "memory")

INLINE void tiles_begin(const struct tile_config *c)
{
    TILE_FENCE();
    _tile_loadconfig(c);
}
INLINE void tiles_end(void)
{
    _tile_release();
}
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, p, stride)                                                                    \
    do {                                                                                           \
        TILE_FENCE();                                                                              \
        _tile_loadd(t, p, stride);                                                                 \
    } while (0)
#define TILE_STORE(t, p, stride)                                                                   \
    do {                                                                                           \
        _tile_stored(t, p, stride);                                                                \
        TILE_FENCE();                                                                              \
    } while (0)
#define TILE_DOT_BYTES(c, a, b) _tile_dpbssd(c, a, b)
#define TILE_DOT_MIXED(c, a, b) _tile_dpbsud(c, a, b)
#define TILE_DOT_BF16(c, a, b) _tile_dpbf16ps(c, a, b)

#else

#include "kernels/cpu/vec/tiles_emulated.h"
#endif

#endif
