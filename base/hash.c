/* CRC32C with the crc32 instruction runs three independent streams, since the instruction takes
 * three cycles but one can start each cycle; the streams are joined by advancing a CRC over a known
 * number of zero bytes, which is a linear map over GF(2) and becomes four table look-ups (Gopal et
 * al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011). Without
 * the instruction: slicing by eight tables.
 */
#include "base/hash.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define POLY UINT32_C(0x82f63b78) /* Castagnoli, bit-reversed */
#define LONG_BYTES 4096           /* per stream */
#define SHORT_BYTES 256

static struct {
    pthread_once_t once;
    bool hardware;
    uint32_t slice[8][256];
    uint32_t skip_long[4][256], skip_short[4][256]; /* advance over that many zero bytes */
} crc = {.once = PTHREAD_ONCE_INIT};

/* `crc` is a 32 x 32 bit matrix given as its columns. */
static uint32_t matrix_times(const uint32_t m[32], uint32_t v)
{
    uint32_t sum = 0;
    for (int i = 0; v != 0; i++, v >>= 1)
        if (v & 1)
            sum ^= m[i];
    return sum;
}

static void make_skip(uint32_t table[4][256], size_t zero_bytes)
{
    uint32_t m[32], square[32];
    m[0] = POLY; /* one zero bit */
    for (int i = 1; i < 32; i++)
        m[i] = UINT32_C(1) << (i - 1);
    for (size_t bits = 8 * zero_bytes; bits > 1; bits /= 2) { /* a power of two */
        for (int i = 0; i < 32; i++)
            square[i] = matrix_times(m, m[i]);
        memcpy(m, square, sizeof m);
    }
    for (uint32_t b = 0; b < 256; b++)
        for (int k = 0; k < 4; k++)
            table[k][b] = matrix_times(m, b << (8 * k));
}

static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ POLY : c >> 1;
        crc.slice[0][b] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++)
            crc.slice[k][b] = crc.slice[k - 1][b] >> 8 ^ crc.slice[0][crc.slice[k - 1][b] & 0xff];
    make_skip(crc.skip_long, LONG_BYTES);
    make_skip(crc.skip_short, SHORT_BYTES);
#if defined(__x86_64__)
    unsigned a, b, c, d;
    crc.hardware = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_SSE4_2) != 0;
#endif
}

static uint64_t load_le64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

uint32_t hash_crc32c_portable(uint32_t start, const void *data, size_t bytes)
{
    pthread_once(&crc.once, make_tables);
    const unsigned char *p = data;
    uint32_t c = ~start;
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint64_t v = load_le64(p) ^ c;
        c = crc.slice[7][v & 0xff] ^ crc.slice[6][v >> 8 & 0xff] ^ crc.slice[5][v >> 16 & 0xff] ^
            crc.slice[4][v >> 24 & 0xff] ^ crc.slice[3][v >> 32 & 0xff] ^
            crc.slice[2][v >> 40 & 0xff] ^ crc.slice[1][v >> 48 & 0xff] ^ crc.slice[0][v >> 56];
    }
    for (; bytes > 0; bytes--, p++)
        c = c >> 8 ^ crc.slice[0][(c ^ *p) & 0xff];
    return ~c;
}

#if defined(__x86_64__)

static uint64_t skip(const uint32_t t[4][256], uint64_t c)
{
    return t[0][c & 0xff] ^ t[1][c >> 8 & 0xff] ^ t[2][c >> 16 & 0xff] ^ t[3][c >> 24 & 0xff];
}

/* Three streams of `stride` bytes each. */
__attribute__((target("sse4.2"))) static uint64_t
three_streams(uint64_t c0, const unsigned char *p, size_t stride, const uint32_t table[4][256])
{
    uint64_t c1 = 0, c2 = 0;
    for (size_t i = 0; i < stride; i += 8) {
        c0 = __builtin_ia32_crc32di(c0, load_le64(p + i));
        c1 = __builtin_ia32_crc32di(c1, load_le64(p + stride + i));
        c2 = __builtin_ia32_crc32di(c2, load_le64(p + 2 * stride + i));
    }
    return skip(table, skip(table, c0) ^ c1) ^ c2;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t start, const void *data,
                                                               size_t bytes)
{
    const unsigned char *p = data;
    uint64_t c = ~start;
    for (; bytes >= 3 * LONG_BYTES; bytes -= 3 * LONG_BYTES, p += 3 * LONG_BYTES)
        c = three_streams(c, p, LONG_BYTES, crc.skip_long);
    for (; bytes >= 3 * SHORT_BYTES; bytes -= 3 * SHORT_BYTES, p += 3 * SHORT_BYTES)
        c = three_streams(c, p, SHORT_BYTES, crc.skip_short);
    for (; bytes >= 8; bytes -= 8, p += 8)
        c = __builtin_ia32_crc32di(c, load_le64(p));
    for (; bytes > 0; bytes--, p++)
        c = __builtin_ia32_crc32qi((uint32_t)c, *p);
    return ~(uint32_t)c;
}

#endif

uint32_t hash_crc32c(uint32_t start, const void *data, size_t bytes)
{
    pthread_once(&crc.once, make_tables);
#if defined(__x86_64__)
    if (crc.hardware)
        return crc32c_sse42(start, data, bytes);
#endif
    return hash_crc32c_portable(start, data, bytes);
}

/* Folded 64 x 64 multiplication, as in wyhash; the operands are mixed back in, so that a zero does
 * not erase the state. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64) ^ a ^ b;
}

#define K0 UINT64_C(0xa0761d6478bd642f)
#define K1 UINT64_C(0xe7037ed1a0b428db)
#define K2 UINT64_C(0x8ebc6af09c88c6e3)

uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    uint64_t h = fold(seed ^ K0, K1), g = fold(h, K2);
    size_t left = bytes;
    for (; left >= 32; left -= 32, p += 32) {
        h = fold(load_le64(p) ^ K1, load_le64(p + 8) ^ h);
        g = fold(load_le64(p + 16) ^ K2, load_le64(p + 24) ^ g);
    }
    for (; left >= 8; left -= 8, p += 8)
        h = fold(load_le64(p) ^ K1, h);
    unsigned char last[8] = {0};
    if (left > 0)
        memcpy(last, p, left);
    h = fold(load_le64(last) ^ K2 ^ h, g);
    return fold(h ^ K0, (uint64_t)bytes ^ K1);
}
