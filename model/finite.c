/* Looking for NaN and infinity at memory speed: an element is one of them when its exponent is all
 * ones. */
#include <string.h>

#include "model/model_impl.h"

#define CHUNK 2048

typedef uint16_t unaligned_u16 __attribute__((aligned(1)));
typedef uint32_t unaligned_u32 __attribute__((aligned(1)));

static unsigned any16(const unaligned_u16 *p, size_t n, unsigned exponent)
{
    unsigned found = 0;
    for (size_t i = 0; i < n; i++)
        found |= (p[i] & exponent) == exponent;
    return found;
}

static unsigned any32(const unaligned_u32 *p, size_t n)
{
    unsigned found = 0;
    for (size_t i = 0; i < n; i++)
        found |= (p[i] & 0x7f800000u) == 0x7f800000u;
    return found;
}

static unsigned any(const void *data, enum dtype dtype, size_t n)
{
    switch (dtype) {
    case DTYPE_F32:
        return any32(data, n);
    case DTYPE_BF16:
        return any16(data, n, 0x7f80u);
    default:
        return any16(data, n, 0x7c00u);
    }
}

size_t weights_find_nonfinite(const void *data, enum dtype dtype, size_t n)
{
    const size_t size = dtype_bytes(dtype);
    for (size_t at = 0; at < n; at += CHUNK) {
        const char *p = (const char *)data + at * size;
        size_t chunk = n - at < CHUNK ? n - at : CHUNK;
        if (!any(p, dtype, chunk))
            continue;
        for (size_t i = 0; i < chunk; i++) {
            if (any(p + i * size, dtype, 1))
                return at + i;
        }
    }
    return n;
}
