#include "kernels/fp8.h"

#include <math.h>

float fp8_to_f32(uint8_t q)
{
    int exponent = q >> 3 & 15, mantissa = q & 7;
    float v = (q & 0x7f) == 0x7f ? NAN
              : exponent > 0     ? ldexpf((float)(8 + mantissa), exponent - 10)
                                 : ldexpf((float)mantissa, -9);
    return q & 0x80 ? -v : v;
}

size_t fp8_find_nan(const uint8_t *q, size_t n)
{
    const size_t chunk = 4096;
    for (size_t at = 0; at < n; at += chunk) {
        size_t end = n - at < chunk ? n : at + chunk;
        unsigned found = 0;
        for (size_t i = at; i < end; i++)
            found |= (q[i] & 0x7f) == 0x7f;
        for (size_t i = at; found && i < end; i++)
            if ((q[i] & 0x7f) == 0x7f)
                return i;
    }
    return n;
}
