/* What the tile unit can do at most: products of tiles that stay in registers, and of tiles that
 * are loaded from the first cache, two rows by two columns of accumulators. The tiles hold numbers,
 * not zeros: with zeros the unit draws less power and is up to a fifth faster, which no product of
 * a model sees. Compiled for AMX alone, and called only where cpu_amx_permit() said yes. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

#define TILE_ROWS 16
#define TILE_BYTES 1024
#define TILE_OPS (2.0 * 16 * 16 * 32) /* of one product in bf16; int8 has twice as many */

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void tiles_begin(void)
{
    struct tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = 64;
        c.rows[i] = TILE_ROWS;
    }
    _tile_loadconfig(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* An accumulator is read, so that the products are not for nothing. */
static void tiles_end(void)
{
    char out[TILE_BYTES];
    volatile char sink;
    _tile_stored(0, out, 64);
    sink = out[0];
    (void)sink;
    _tile_release();
}

static void load_operands(const char *data)
{
    _tile_loadd(4, data, 64);
    _tile_loadd(5, data + TILE_BYTES, 64);
    _tile_loadd(6, data + 2 * TILE_BYTES, 64);
    _tile_loadd(7, data + 3 * TILE_BYTES, 64);
}

/* Numbers of either sign from 1 to 2 in bf16, of which any byte is one in int8 too. */
static void fill(char *data, size_t bytes)
{
    uint32_t seed = 1;
    for (size_t i = 0; i < bytes; i += sizeof(uint16_t)) {
        seed = seed * 1664525 + 1013904223; /* Numerical Recipes' generator: its upper bits */
        const uint16_t v = (uint16_t)(0x3f80 | seed >> 25 | (seed >> 9 & 0x8000));
        memcpy(data + i, &v, sizeof v);
    }
}

/* Four accumulators, so that no product waits for another. */
static double run_tiles(int64_t rounds, bool from_cache, bool int8)
{
    char data[4 * TILE_BYTES] __attribute__((aligned(64)));
    fill(data, sizeof data);
    tiles_begin();
    load_operands(data);
    for (int64_t r = 0; r < rounds; r++) {
        if (from_cache)
            load_operands(data);
        if (int8) {
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        } else {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    tiles_end();
    return (int8 ? 8 : 4) * TILE_OPS * (double)rounds;
}

double probe_amx_bf16(int64_t rounds, bool from_cache)
{
    return run_tiles(rounds, from_cache, false);
}

double probe_amx_int8(int64_t rounds, bool from_cache)
{
    return run_tiles(rounds, from_cache, true);
}
