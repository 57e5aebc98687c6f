#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/dtype.h"

static float float_of(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint32_t bits_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* What a 16-bit pattern means, from the definition of the formats. */
static double meaning(uint16_t v, int exponent_bits, int mantissa_bits)
{
    int exponent = v >> mantissa_bits & ((1 << exponent_bits) - 1);
    int mantissa = v & ((1 << mantissa_bits) - 1), bias = (1 << (exponent_bits - 1)) - 1;
    double sign = v >> 15 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

struct format {
    const char *name;
    int exponent_bits, mantissa_bits;
    float (*widen)(uint16_t v);
    uint16_t (*narrow)(float v);
};

static const struct format formats[] = {
    {"bf16", 8, 7, dtype_bf16_to_f32, dtype_f32_to_bf16},
    {"fp16", 5, 10, dtype_f16_to_f32, dtype_f32_to_f16},
};

Test(dtype, widening_is_exact_for_every_pattern)
{
    for (int f = 0; f < 2; f++)
        for (uint32_t v = 0; v < 65536; v++) {
            double want = meaning((uint16_t)v, formats[f].exponent_bits, formats[f].mantissa_bits);
            float got = formats[f].widen((uint16_t)v);
            if (isnan(want)) {
                cr_assert(isnan(got), "%s %04x", formats[f].name, v);
                continue;
            }
            cr_assert((double)got == want, "%s %04x: %g", formats[f].name, v, (double)got);
            cr_assert_eq(signbit(got) != 0, v >> 15 != 0, "%s %04x sign", formats[f].name, v);
        }
}

Test(dtype, every_pattern_survives_the_round_trip)
{
    for (int f = 0; f < 2; f++)
        for (uint32_t v = 0; v < 65536; v++) {
            uint16_t back = formats[f].narrow(formats[f].widen((uint16_t)v));
            if (isnan(formats[f].widen((uint16_t)v))) {
                cr_assert(isnan(formats[f].widen(back)), "%s %04x", formats[f].name, v);
                cr_assert_eq(back >> 15, v >> 15, "%s %04x sign", formats[f].name, v);
                continue;
            }
            cr_assert_eq(back, v, "%s %04x came back as %04x", formats[f].name, v, back);
        }
}

/* Between two neighbours: the midpoint goes to the even one, a float beside it to the nearer one.
 */
Test(dtype, narrowing_rounds_to_nearest_even)
{
    for (int f = 0; f < 2; f++) {
        uint32_t infinity = ((1u << formats[f].exponent_bits) - 1) << formats[f].mantissa_bits;
        for (uint32_t v = 0; v < infinity; v++) {
            /* past the largest number the next step of the same size stands for infinity */
            double low = (double)formats[f].widen((uint16_t)v);
            double high = v + 1 < infinity ? (double)formats[f].widen((uint16_t)(v + 1))
                                           : 2 * low - (double)formats[f].widen((uint16_t)(v - 1));
            float middle = (float)((low + high) / 2);
            uint32_t even = v % 2 == 0 ? v : v + 1;
            for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
                float s = sign ? -1 : 1;
                cr_assert_eq(formats[f].narrow(s * middle), even | sign, "%s tie above %04x",
                             formats[f].name, v);
                cr_assert_eq(formats[f].narrow(s * nextafterf(middle, 0)), v | sign,
                             "%s below the tie above %04x", formats[f].name, v);
                cr_assert_eq(formats[f].narrow(s * nextafterf(middle, INFINITY)), (v + 1) | sign,
                             "%s above the tie above %04x", formats[f].name, v);
            }
        }
    }
}

Test(dtype, special_values)
{
    cr_assert_eq(dtype_f32_to_bf16(INFINITY), 0x7f80);
    cr_assert_eq(dtype_f32_to_bf16(-INFINITY), 0xff80);
    cr_assert_eq(dtype_f32_to_f16(INFINITY), 0x7c00);
    cr_assert_eq(dtype_f32_to_f16(-INFINITY), 0xfc00);
    cr_assert_eq(dtype_f32_to_f16(65519.996f), 0x7bff);
    cr_assert_eq(dtype_f32_to_f16(65520.0f), 0x7c00);
    cr_assert_eq(dtype_f32_to_f16(1e30f), 0x7c00);
    cr_assert_eq(dtype_f32_to_f16(1e-30f), 0);
    cr_assert_eq(dtype_f32_to_f16(-0.0f), 0x8000);
    cr_assert_eq(dtype_f32_to_bf16(-0.0f), 0x8000);
    /* a NaN whose payload is in the dropped bits alone must stay a NaN */
    cr_assert(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(float_of(0x7f800001)))));
    cr_assert(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(float_of(0xffffffff)))));
    cr_assert(isnan(dtype_f16_to_f32(dtype_f32_to_f16(float_of(0x7f800001)))));
    cr_assert(isnan(dtype_f16_to_f32(dtype_f32_to_f16(float_of(0xffffffff)))));
    cr_assert_eq(bits_of(dtype_f16_to_f32(0x7c01)), 0x7fc02000u);
}

Test(dtype, names)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } names[] = {{"fp32", DTYPE_F32},  {"float32", DTYPE_F32},   {"F32", DTYPE_F32},
                 {"bf16", DTYPE_BF16}, {"bfloat16", DTYPE_BF16}, {"BF16", DTYPE_BF16},
                 {"fp16", DTYPE_F16},  {"float16", DTYPE_F16},   {"F16", DTYPE_F16}};
    enum dtype d = DTYPE_COUNT;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cr_assert(dtype_parse(names[i].name, &d), "%s", names[i].name);
        cr_assert_eq(d, names[i].dtype, "%s", names[i].name);
    }
    cr_assert_not(dtype_parse("int8", &d));
    cr_assert_not(dtype_parse("", &d));
    for (int i = 0; i < DTYPE_COUNT; i++) {
        cr_assert(dtype_parse(dtype_name((enum dtype)i), &d));
        cr_assert_eq((int)d, i);
    }
    cr_assert_eq(dtype_bytes(DTYPE_F32), 4);
    cr_assert_eq(dtype_bytes(DTYPE_BF16), 2);
    cr_assert_eq(dtype_bytes(DTYPE_F16), 2);
}

/* Every pair of types, at odd addresses, agrees with the scalar functions and stays within n
 * elements. */
Test(dtype, convert_agrees_with_the_scalar_functions)
{
    enum { N = 37 };
    float values[N];
    for (int i = 0; i < N; i++)
        values[i] = (float)(i - 18) * 1.37e-3f * (float)(1 << i % 12);
    for (int from = 0; from < DTYPE_COUNT; from++)
        for (int to = 0; to < DTYPE_COUNT; to++) {
            char source[4 * N + 1], result[4 * N + 2], again[4 * N];
            size_t bytes = dtype_bytes((enum dtype)to);
            dtype_convert(source + 1, (enum dtype)from, values, DTYPE_F32, N);
            memset(result, 0x5a, sizeof result);
            dtype_convert(result + 1, (enum dtype)to, source + 1, (enum dtype)from, N);
            for (int i = 0; i < N; i++)
                dtype_convert(again + (size_t)i * bytes, (enum dtype)to,
                              source + 1 + (size_t)i * dtype_bytes((enum dtype)from),
                              (enum dtype)from, 1);
            cr_assert(memcmp(result + 1, again, N * bytes) == 0, "%d to %d", from, to);
            cr_assert_eq(result[0], 0x5a);
            cr_assert_eq(result[1 + N * bytes], 0x5a, "%d to %d wrote past the end", from, to);
            for (int i = 0; i < N && from != DTYPE_F32 && to == DTYPE_F32; i++) {
                uint16_t half;
                float wide;
                memcpy(&half, source + 1 + 2 * i, sizeof half);
                memcpy(&wide, result + 1 + 4 * i, sizeof wide);
                cr_assert_eq(bits_of(wide), bits_of(from == DTYPE_BF16 ? dtype_bf16_to_f32(half)
                                                                       : dtype_f16_to_f32(half)));
            }
        }
    dtype_convert(NULL, DTYPE_F32, NULL, DTYPE_F32, 0);
}
