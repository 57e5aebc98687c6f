/* Block types against what the reference implementations give (make_goldens.py): bit for bit. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "formats/dequant.h"
#include "support/read_file.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/formats/goldens/"

static void expect_floats(const char *what, const float *got, const char *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float w;
        memcpy(&w, want + 4 * i, 4);
        if (isnan(w) && isnan(got[i]))
            continue;
        cr_assert(memcmp(&w, &got[i], 4) == 0, "%s[%zu]: %a, not %a", what, i, (double)got[i],
                  (double)w);
    }
}

Test(dequant, ggml_types_bit_for_bit)
{
    struct buf b = read_file(GOLDENS "dequant.bin");
    size_t kinds = 0;
    for (size_t at = 0; at < b.len; kinds++) {
        uint32_t head[3];
        memcpy(head, b.data + at, sizeof head);
        enum ggml_type type = (enum ggml_type)head[0];
        struct ggml_block shape = ggml_type_block(type);
        cr_assert(dequant_ggml_known(type), "%s", shape.name);
        cr_assert_eq(head[2] % shape.bytes, 0);
        cr_assert_eq(head[2] / shape.bytes * shape.elements, head[1]);
        /* one byte off any alignment */
        char *raw = malloc(head[2] + 1);
        float *out = malloc(head[1] * sizeof *out);
        memcpy(raw + 1, b.data + at + 12, head[2]);
        dequant_ggml(type, raw + 1, head[1], out);
        expect_floats(shape.name, out, b.data + at + 12 + head[2], head[1]);
        free(raw);
        free(out);
        at += 12 + head[2] + 4 * (size_t)head[1];
    }
    cr_assert_eq(kinds, 15);
    buf_fini(&b);
}

Test(dequant, fp8_tables)
{
    static const enum tensor_type types[] = {TENSOR_F8_E4M3, TENSOR_F8_E5M2, TENSOR_F8_E4M3FNUZ,
                                             TENSOR_F8_E5M2FNUZ};
    struct buf b = read_file(GOLDENS "fp8.bin");
    uint8_t bytes[512];
    float out[512];
    cr_assert_eq(b.len, 4 * 256 * sizeof(float));
    for (int i = 0; i < 512; i++)
        bytes[i] = (uint8_t)i;
    for (int k = 0; k < 4; k++) {
        const char *want = b.data + k * 1024;
        dequant_plain(types[k], bytes, 512, out); /* through the table */
        expect_floats(tensor_type_name(types[k]), out, want, 256);
        expect_floats(tensor_type_name(types[k]), out + 256, want, 256);
        dequant_plain(types[k], bytes + 100, 100, out); /* and without */
        expect_floats(tensor_type_name(types[k]), out, want + 400, 100);
    }
    buf_fini(&b);
}

Test(dequant, halves_are_exact)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        unsigned e = h >> 10 & 31, m = h & 1023;
        double want =
            e == 31 ? (m ? NAN : INFINITY) : ldexp(e ? 1024 + m : m, (int)(e ? e : 1) - 25);
        want = h & 0x8000 ? -want : want;
        float got = dequant_f16((uint16_t)h);
        cr_assert(isnan(want) ? isnan(got) : (double)got == want, "%04x: %a, not %a", h,
                  (double)got, want);
        cr_assert(isnan(want) || (signbit(got) != 0) == (h >> 15 == 1), "%04x", h);
    }
}

Test(dequant, small_types)
{
    static const uint8_t bytes[] = {0, 1, 127, 128, 254, 255};
    float out[6];
    dequant_plain(TENSOR_F8_E8M0, bytes, 6, out);
    cr_assert(out[0] == 0x1p-127f && out[1] == 0x1p-126f && out[2] == 1 && out[3] == 2);
    cr_assert(out[4] == 0x1p127f && isnan(out[5]));
    dequant_plain(TENSOR_I8, bytes, 6, out);
    cr_assert(out[2] == 127 && out[3] == -128 && out[5] == -1);
    static const double doubles[] = {1.5, -0.1};
    dequant_plain(TENSOR_F64, doubles, 2, out);
    cr_assert(out[0] == 1.5f && out[1] == -0.1f);
    cr_assert_not(dequant_plain_known(TENSOR_I32));
    cr_assert_not(dequant_ggml_known(GGML_IQ1_S));
    cr_assert_not(dequant_ggml_known(GGML_TYPES));
}

Test(dequant, mxfp4_pairs)
{
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    uint8_t blocks[32], scales[2] = {127, 130};
    float out[64];
    for (int i = 0; i < 32; i++)
        blocks[i] = (uint8_t)(i * 37 + 11);
    dequant_mxfp4_pairs(blocks, scales, 2, out);
    for (int i = 0; i < 64; i++) {
        unsigned code = i % 2 ? blocks[i / 2] >> 4 : blocks[i / 2] & 15u;
        float want = (code & 8 ? -values[code & 7] : values[code & 7]) * (i < 32 ? 1.0f : 8.0f);
        cr_assert(out[i] == want, "%d", i);
    }
}
