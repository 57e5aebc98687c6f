#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

static double bf16_at(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return (double)dtype_bf16_to_f32(v);
}

/* The least bf16 that is not below v, a positive number. */
static uint16_t bf16_up(float v)
{
    uint16_t b = dtype_f32_to_bf16(v);
    return dtype_bf16_to_f32(b) < v ? (uint16_t)(b + 1) : b;
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
        return (vector[i / 2] >> (i % 2 ? 4 : 0) & 15) - 8;
    return d == DTYPE_INT8 ? (int8_t)vector[i] : fp8_value(vector[i]);
}

static void put_code(enum dtype d, uint8_t *vector, size_t i, float v)
{
    if (d == DTYPE_INT4)
        vector[i / 2] |= (uint8_t)(((int)nearbyintf(v) + 8) << (i % 2 ? 4 : 0));
    else
        vector[i] = d == DTYPE_INT8 ? (uint8_t)(int)nearbyintf(v) : fp8_code((double)v);
}

float ref_kv_element(const void *vector, enum dtype d, size_t dim, size_t i)
{
    const uint8_t *at = vector;
    float v;
    if (kv_is_quantized(d))
        return (float)(code_value(d, at, i) *
                       bf16_at(at + kv_scales_at(d, dim) + i / kv_group(d) * 2));
    dtype_convert(&v, DTYPE_F32, at + i * dtype_bytes(d), d, 1);
    return v;
}

void ref_kv_narrow(void *vector, enum dtype d, const float *x, size_t dim)
{
    uint8_t *to = vector;
    if (!kv_is_quantized(d)) {
        dtype_convert(to, d, x, DTYPE_F32, dim);
        return;
    }
    const float top = d == DTYPE_FP8 ? 448 : d == DTYPE_INT8 ? 127 : 7;
    memset(to, 0, kv_vector_bytes(d, dim));
    for (size_t begin = 0; begin < dim; begin += kv_group(d)) {
        size_t end = begin + kv_group(d) < dim ? begin + kv_group(d) : dim;
        float most = 0, wrong = 0;
        for (size_t i = begin; i < end; i++) {
            most = fmaxf(most, fabsf(x[i]));
            wrong += x[i] * 0.0f; /* NaN where x is none, or infinite */
        }
        bool zeros = isnan(wrong) || most < KV_VECTOR_LEAST;
        uint16_t scale = isnan(wrong) ? 0x7fc0 : zeros ? 0 : bf16_up(most / top);
        memcpy(to + kv_scales_at(d, dim) + begin / kv_group(d) * 2, &scale, sizeof scale);
        for (size_t i = begin; i < end; i++)
            put_code(d, to, i, zeros ? 0 : x[i] * (1 / dtype_bf16_to_f32(scale)));
    }
    if (d == DTYPE_INT4 && dim % 2)
        put_code(d, to, dim, 0);
}
