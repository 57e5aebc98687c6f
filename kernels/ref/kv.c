#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

static double bf16_at(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return (double)dtype_bf16_to_f32(v);
}

/* The nearest bf16 that is not below v, and the one that is not above. */
static uint16_t bf16_up(float v)
{
    uint16_t b = dtype_f32_to_bf16(v);
    return dtype_bf16_to_f32(b) >= v ? b : (uint16_t)(v > 0 ? b + 1 : b - 1);
}
static uint16_t bf16_down(float v)
{
    return bf16_up(-v) ^ 0x8000;
}

/* sign, 4 bits of exponent, 3 of mantissa */
static double fp8_value(uint8_t code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    double v = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return code & 0x80 ? -v : v;
}

/* The code whose value is nearest to v; of two the even one. The last code is NaN and not used. */
static uint8_t fp8_code(double v)
{
    uint8_t best = 0;
    for (uint8_t c = 1; c < 0x7f; c++) {
        double is = fabs(fp8_value(c) - fabs(v)), was = fabs(fp8_value(best) - fabs(v));
        if (is < was || (is == was && c % 2 == 0))
            best = c;
    }
    return v < 0 ? best | 0x80 : best;
}

static double code_value(enum dtype d, const uint8_t *vector, size_t i)
{
    if (d == DTYPE_INT4)
        return vector[i / 2] >> (i % 2 ? 4 : 0) & 15;
    return d == DTYPE_INT8 ? (int8_t)vector[i] : fp8_value(vector[i]);
}

static void put_code(enum dtype d, uint8_t *vector, size_t i, float v)
{
    if (d == DTYPE_INT4)
        vector[i / 2] |= (uint8_t)((int)nearbyintf(v) << (i % 2 ? 4 : 0));
    else
        vector[i] = d == DTYPE_INT8 ? (uint8_t)(int)nearbyintf(v) : fp8_code((double)v);
}

float ref_kv_element(const void *vector, enum dtype d, size_t dim, size_t i)
{
    const uint8_t *at = vector;
    float v;
    if (!kv_is_quantized(d)) {
        dtype_convert(&v, DTYPE_F32, at + i * dtype_bytes(d), d, 1);
        return v;
    }
    const uint8_t *scale = at + kv_scale_at(d, dim, i);
    double product = code_value(d, at, i) * bf16_at(scale);
    return (float)(d == DTYPE_INT4 ? product + bf16_at(scale + 2) : product);
}

/* Elements [begin, end), which are a group. */
static void narrow_group(uint8_t *to, enum dtype d, const float *x, size_t dim, const size_t at[2])
{
    uint16_t scale = 0, least = 0;
    float most = 0, low = INFINITY, high = -INFINITY;
    bool none = false;
    for (size_t i = at[0]; i < at[1]; i++) {
        none = none || !(fabsf(x[i]) < KV_VECTOR_MOST);
        most = fmaxf(most, fabsf(x[i]));
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    if (none) {
        scale = 0x7fc0;
    } else if (most >= KV_VECTOR_LEAST && d == DTYPE_INT4) {
        least = bf16_down(low == 0 ? 0 : low); /* not -0 */
        float way = high - dtype_bf16_to_f32(least);
        scale = way < KV_VECTOR_LEAST ? 0 : bf16_up(way / 15);
    } else if (most >= KV_VECTOR_LEAST) {
        scale = bf16_up(most / (d == DTYPE_INT8 ? 127 : 448));
    }
    memcpy(to + kv_scale_at(d, dim, at[0]), &scale, sizeof scale);
    if (d == DTYPE_INT4)
        memcpy(to + kv_scale_at(d, dim, at[0]) + 2, &least, sizeof least);
    for (size_t i = at[0]; i < at[1] && scale != 0 && !none; i++)
        put_code(d, to, i, (x[i] - dtype_bf16_to_f32(least)) * (1 / dtype_bf16_to_f32(scale)));
}

void ref_kv_narrow(void *vector, enum dtype d, const float *x, size_t dim)
{
    if (!kv_is_quantized(d)) {
        dtype_convert(vector, d, x, DTYPE_F32, dim);
        return;
    }
    memset(vector, 0, kv_vector_bytes(d, dim));
    for (size_t begin = 0; begin < dim; begin += kv_group(d)) {
        size_t end = begin + kv_group(d) < dim ? begin + kv_group(d) : dim;
        narrow_group(vector, d, x, dim, (const size_t[2]){begin, end});
    }
}
