/* Vectors of KV: bytes against the spelling in ref, bit for bit, of any numbers and of any bytes;
 * conversions between all pairs of types; and every body reads the numbers that they stand for. */
#include "kernels/kernels_util.h"
#include "kernels/ref/ref.h"

#define DIM_MAX 300

static const size_t dims[] = {1, 2, 3, 7, 16, 31, 32, 33, 64, 80, 127, 128, 129, 192, 256, DIM_MAX};
#define N_DIMS (sizeof dims / sizeof dims[0])

static bool same_number(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

/* Numbers of every size a float may have; where `sick`, some that are none. */
static void numbers(float *x, size_t n, uint64_t seed, bool sick)
{
    static const float odd[] = {0,   -0.0f,          1, -1, 0x1p-149f, -0x1p-126f, 0x1p-100f,
                                448, 0x1.fffffep125f};
    int from = kt_below(&seed, 250) - 149;
    for (size_t i = 0; i < n; i++) {
        x[i] = ldexpf(kt_uniform(&seed), from + kt_below(&seed, seed % 2 ? 3 : 12));
        if (kt_below(&seed, 9) == 0)
            x[i] = odd[kt_below(&seed, sizeof odd / sizeof odd[0])];
    }
    static const float none[] = {NAN, -NAN, INFINITY, -INFINITY};
    if (sick)
        x[kt_below(&seed, (int)n)] = none[kt_below(&seed, 4)];
}

/* Of int4 scales are below 2: the product of a larger one may be infinite before it is added. Of
 * fp8 they are below 2^118, as what is written: bodies take multiples of them. */
static void any_bytes(uint8_t *vector, enum dtype d, size_t dim, uint64_t seed)
{
    for (size_t i = 0; i < kv_vector_bytes(d, dim); i++)
        vector[i] = (uint8_t)kt_below(&seed, 256);
    for (size_t at = 0; d == DTYPE_INT4 && at < dim; at += KV_GROUP_4)
        vector[kv_scale_at(d, dim, at) + 1] &= 0xbf;
    for (size_t at = 0; d == DTYPE_FP8 && at < dim; at += KV_GROUP_8) {
        uint8_t *scale = vector + kv_scale_at(d, dim, at);
        const float size = fabsf(kv_load_bf16(scale));
        if (size >= 0x1p118f && size < INFINITY)
            scale[1] &= 0xbf;
    }
}

Test(kv_vector, sizes_and_names)
{
    static const struct {
        const char *name;
        size_t one, of_64, of_80, of_128, of_576;
    } types[] = {{"fp32", 4, 256, 320, 512, 2304}, {"bf16", 2, 128, 160, 256, 1152},
                 {"fp16", 2, 128, 160, 256, 1152}, {"fp8", 3, 66, 82, 130, 586},
                 {"int8", 3, 66, 82, 130, 586},    {"int4", 5, 40, 52, 80, 360}};
    enum dtype d;
    for (int i = 0; i < DTYPE_KV_COUNT; i++) {
        cr_assert(kv_dtype_parse(types[i].name, &d));
        cr_assert_eq((int)d, i);
        cr_assert_str_eq(dtype_name(d), types[i].name);
        cr_assert_eq(kv_is_quantized(d), i >= 3);
        cr_assert_eq(kv_vector_bytes(d, 0), 0);
        cr_assert_eq(kv_vector_bytes(d, 1), types[i].one);
        cr_assert_eq(kv_vector_bytes(d, 64), types[i].of_64);
        cr_assert_eq(kv_vector_bytes(d, 80), types[i].of_80);
        cr_assert_eq(kv_vector_bytes(d, 128), types[i].of_128);
        cr_assert_eq(kv_vector_bytes(d, 576), types[i].of_576);
    }
    cr_assert(kv_dtype_parse("bfloat16", &d) && d == DTYPE_BF16);
    cr_assert_not(kv_dtype_parse("int2", &d));
    cr_assert_not(kv_dtype_parse("", &d));
}

Test(kv_vector, narrow_is_what_ref_says)
{
    for (int type = 0; type < DTYPE_KV_COUNT; type++)
        for (uint64_t round = 0; round < 60 * N_DIMS; round++) {
            enum dtype d = (enum dtype)type;
            size_t dim = dims[round % N_DIMS], bytes = kv_vector_bytes(d, dim);
            float x[DIM_MAX];
            uint8_t want[4 * DIM_MAX], got[4 * DIM_MAX + 2];
            numbers(x, dim, round, round % 5 == 4);
            memset(got, 0x5a, sizeof got);
            ref_kv_narrow(want, d, x, dim);
            kv_vector_narrow(got + 1, d, x, dim);
            for (size_t i = 0; i < bytes; i++)
                cr_assert_eq(got[i + 1], want[i], "%s dim %zu round %d: byte %zu is %d, not %d",
                             dtype_name(d), dim, (int)round, i, got[i + 1], want[i]);
            cr_assert(got[0] == 0x5a && got[bytes + 1] == 0x5a);
        }
}

/* Bytes that nobody wrote as a vector read as some numbers, everywhere the same. */
Test(kv_vector, widen_is_what_ref_says)
{
    for (int type = 0; type < DTYPE_KV_COUNT; type++)
        for (uint64_t round = 0; round < 40 * N_DIMS; round++) {
            enum dtype d = (enum dtype)type;
            size_t dim = dims[round % N_DIMS];
            uint8_t vector[4 * DIM_MAX + 1];
            float got[DIM_MAX + 1];
            any_bytes(vector + 1, d, dim, round);
            got[dim] = 5;
            kv_vector_widen(got, vector + 1, d, dim);
            for (size_t i = 0; i < dim; i++)
                cr_assert(same_number(got[i], ref_kv_element(vector + 1, d, dim, i)),
                          "%s dim %zu element %zu: %a, not %a", dtype_name(d), dim, i,
                          (double)got[i], (double)ref_kv_element(vector + 1, d, dim, i));
            cr_assert_eq(got[dim], 5);
        }
}

/* How far a number may be from what is read back, of its group's largest. */
Test(kv_vector, rounds_to_the_nearest)
{
    static const double half_step[] = {
        [DTYPE_FP8] = 16.0 / 448, [DTYPE_INT8] = 0.5 / 127, [DTYPE_INT4] = 1.01 / 15};
    for (int type = DTYPE_COUNT; type < DTYPE_KV_COUNT; type++)
        for (size_t k = 0; k < N_DIMS; k++) {
            enum dtype d = (enum dtype)type;
            float *x = kt_floats(dims[k], k), back[DIM_MAX];
            uint8_t vector[4 * DIM_MAX];
            kv_vector_narrow(vector, d, x, dims[k]);
            kv_vector_widen(back, vector, d, dims[k]);
            for (size_t i = 0; i < dims[k]; i++) {
                double most = 0;
                for (size_t j = i - i % kv_group(d);
                     j < dims[k] && j / kv_group(d) == i / kv_group(d); j++)
                    most = fmax(most, fabs((double)x[j]));
                cr_assert_leq(fabs((double)(back[i] - x[i])), most * half_step[type] * 1.008,
                              "%s dim %zu element %zu", dtype_name(d), dims[k], i);
            }
            free(x);
        }
}

/* A group with a number that is none is none as a whole; its neighbours are not touched. What is
 * next to nothing is nothing. */
Test(kv_vector, what_is_no_number)
{
    static const float none[] = {NAN, INFINITY, -INFINITY, 0x1p126f, -0x1.8p127f};
    for (int type = DTYPE_COUNT; type < DTYPE_KV_COUNT; type++)
        for (int k = 0; k < 5; k++) {
            enum dtype d = (enum dtype)type;
            size_t group = kv_group(d), dim = 3 * group - 5;
            float *x = kt_floats(dim, 7), *clean = malloc(dim * sizeof *clean),
                  *back = malloc(dim * sizeof *back);
            uint8_t *vector = malloc(kv_vector_bytes(d, dim));
            kv_vector_narrow(vector, d, x, dim);
            kv_vector_widen(clean, vector, d, dim);
            x[group + 3] = none[k];
            kv_vector_narrow(vector, d, x, dim);
            kv_vector_widen(back, vector, d, dim);
            for (size_t i = 0; i < dim; i++)
                cr_assert(i / group == 1 ? isnan(back[i]) : same_number(back[i], clean[i]),
                          "%s element %zu", dtype_name(d), i);
            for (size_t i = 0; i < dim; i++)
                x[i] = i % 2 ? 0x1.8p-101f : -0x1p-149f;
            kv_vector_narrow(vector, d, x, dim);
            kv_vector_widen(back, vector, d, dim);
            for (size_t i = 0; i < dim; i++)
                cr_assert_eq(back[i], 0);
            free(vector);
            free(back);
            free(clean);
            free(x);
        }
}

/* Between equal types the bytes stay; else as if through floats, one vector after the other. */
Test(kv_vector, converts_any_pair)
{
    enum { N = 5 };
    for (int from = 0; from < DTYPE_KV_COUNT; from++)
        for (int to = 0; to < DTYPE_KV_COUNT; to++)
            for (size_t k = 0; k < N_DIMS; k++) {
                const struct kv_conversion c = {(enum dtype)to, (enum dtype)from, dims[k]};
                size_t source = kv_vector_bytes(c.from, c.dim),
                       target = kv_vector_bytes(c.to, c.dim);
                uint8_t *src = malloc(N * source + 1), *dst = malloc(N * target + 2);
                uint8_t want[4 * DIM_MAX];
                float x[DIM_MAX];
                for (uint64_t v = 0; v < N; v++) {
                    numbers(x, c.dim, v * 31 + k, v == 3);
                    kv_vector_narrow(src + 1 + v * source, c.from, x, c.dim);
                }
                memset(dst, 0x5a, N * target + 2);
                kv_vectors_convert(&c, dst + 1, src + 1, N);
                for (size_t v = 0; v < N; v++) {
                    kv_vector_widen(x, src + 1 + v * source, c.from, c.dim);
                    kv_vector_narrow(want, c.to, x, c.dim);
                    cr_assert(memcmp(dst + 1 + v * target, from == to ? src + 1 + v * source : want,
                                     target) == 0,
                              "%s to %s dim %zu vector %zu", dtype_name(c.from), dtype_name(c.to),
                              c.dim, v);
                }
                cr_assert(dst[0] == 0x5a && dst[N * target + 1] == 0x5a);
                free(dst);
                free(src);
            }
}

/* Of one position attention gives the value itself: a body's reading, bit for bit. */
static void expect_read(const struct ops *ops, const struct kv_layout *l, const void *pool)
{
    static const int32_t positions[] = {0}, seq_of[] = {0}, block[] = {0};
    static const int32_t *const table[] = {block};
    const struct op_rows rows = {positions, seq_of, table, 1};
    const size_t dim = (size_t)l->value_dim;
    float q[DIM_MAX] = {0}, got[DIM_MAX];
    ops->attention(&(struct op_attention){.out = got,
                                          .q = q,
                                          .pool = (void *)pool,
                                          .layout = l,
                                          .heads = 1,
                                          .scale = 1,
                                          .rows = &rows},
                   0, 1);
    const char *value = (const char *)pool + kv_offset(l, 0, 0, KV_VALUE, 0, 0);
    for (size_t i = 0; i < dim; i++) {
        float want = ref_kv_element(value, l->dtype, dim, i) + 0.0f; /* -0 becomes 0 */
        cr_assert(same_number(got[i], want), "%s %s dim %zu element %zu: %a, not %a", ops->name,
                  dtype_name(l->dtype), dim, i, (double)got[i], (double)want);
    }
}

/* Here any bytes are a value; then the largest and the least magnitudes that are written. */
Test(kv_vector, bodies_read_what_ref_says)
{
    for (int type = DTYPE_COUNT; type < DTYPE_KV_COUNT; type++)
        for (size_t k = 0; k < N_DIMS; k++) {
            const size_t dim = dims[k];
            const struct kv_layout l = {.layers = 1,
                                        .kv_heads = 1,
                                        .head_dim = (int32_t)dim,
                                        .value_dim = (int32_t)dim,
                                        .block_tokens = 1,
                                        .blocks = 1,
                                        .dtype = (enum dtype)type};
            char *pool = calloc(1, kv_pool_bytes(&l));
            char *value = pool + kv_offset(&l, 0, 0, KV_VALUE, 0, 0);
            float *x = kt_floats(dim, k), largest = 0;
            for (size_t i = 0; i < dim; i++)
                largest = fmaxf(largest, fabsf(x[i]));
            for (int b = 1; ops_at(b); b++) {
                any_bytes((uint8_t *)value, l.dtype, dim, k);
                expect_read(ops_at(b), &l, pool);
                for (int least = 0; least < 2; least++) {
                    const float by = least ? KV_VECTOR_LEAST * 1.01f : KV_VECTOR_MOST * 0.99f;
                    float scaled[DIM_MAX];
                    for (size_t i = 0; i < dim; i++)
                        scaled[i] = x[i] / largest * by;
                    kv_vector_narrow(value, l.dtype, scaled, dim);
                    expect_read(ops_at(b), &l, pool);
                }
            }
            free(x);
            free(pool);
        }
}
