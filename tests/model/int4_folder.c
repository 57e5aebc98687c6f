#include "tests/model/int4_folder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/dtype.h"

/* A matrix as integers of 0 to 15: element [r, c] = (q - zero) * scale of the group of c. */
struct grid {
    const char *name; /* without ".weight" */
    size_t rows, cols, size, groups;
    float *v;
    uint8_t *q;
    uint8_t *zero;   /* [rows][groups] */
    uint16_t *scale; /* fp16, likewise */
    int32_t *of;     /* [cols] the group of each */
};

/* What a kind writes of a grid. */
typedef void put_fn(struct folder_writer *w, const struct grid *g);

struct form {
    size_t group;
    bool has_zeros, is_shuffled;
    put_fn *put;
    const char *config;
};

/* ---- rounding ---- */

static void quantize_group(const struct grid *g, size_t row, size_t group, bool has_zeros)
{
    const float *v = g->v + row * g->cols;
    const size_t at = row * g->groups + group;
    float least = 0, most = 0;
    for (size_t i = 0; i < g->cols; i++)
        if ((size_t)g->of[i] == group) {
            least = fminf(least, v[i]);
            most = fmaxf(most, v[i]);
        }
    float scale = has_zeros ? (most - least) / 15 : fmaxf(most, -least) / 7.5f;
    g->scale[at] = dtype_f32_to_f16(scale);
    scale = dtype_f16_to_f32(g->scale[at]);
    /* GPTQ's first format keeps zeros less one, so none is 0 here. */
    g->zero[at] = has_zeros && scale > 0 ? (uint8_t)fminf(fmaxf(rintf(-least / scale), 1), 15) : 8;
    for (size_t i = 0; i < g->cols; i++)
        if ((size_t)g->of[i] == group) {
            const float q = scale > 0 ? rintf(v[i] / scale) + g->zero[at] : 8;
            g->q[row * g->cols + i] = (uint8_t)fminf(fmaxf(q, 0), 15);
        }
}

static void shuffle(int32_t *v, size_t n, struct rng *rng)
{
    for (size_t i = n - 1; i > 0; i--) {
        const size_t k = (size_t)rng_below(rng, i + 1);
        const int32_t last = v[i];
        v[i] = v[k];
        v[k] = last;
    }
}

static struct grid quantize(const struct tensor *t, const struct form *f, const char *name)
{
    struct grid g = {.name = name, .rows = t->shape[0], .cols = t->shape[1], .size = f->group};
    struct rng rng = rng_seed(t->elements + strlen(name));
    g.groups = g.cols / g.size;
    g.v = folder_floats(t);
    g.q = folder_alloc(t->elements);
    g.zero = folder_alloc(g.rows * g.groups);
    g.scale = folder_alloc(g.rows * g.groups * sizeof *g.scale);
    g.of = folder_alloc(g.cols * sizeof *g.of);
    for (size_t i = 0; i < g.cols; i++)
        g.of[i] = (int32_t)(i / g.size);
    if (f->is_shuffled)
        shuffle(g.of, g.cols, &rng);
    for (size_t r = 0; r < g.rows; r++)
        for (size_t k = 0; k < g.groups; k++)
            quantize_group(&g, r, k, f->has_zeros);
    return g;
}

static void grid_fini(struct grid *g)
{
    free(g->v);
    free(g->q);
    free(g->zero);
    free(g->scale);
    free(g->of);
}

/* ---- writing ---- */

static void put(struct folder_writer *w, const struct grid *g, const char *suffix,
                struct folder_tensor t)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s", g->name, suffix);
    t.name = name;
    folder_put(w, &t);
}

static void put_matrix(struct folder_writer *w, const struct grid *g, const char *suffix,
                       struct folder_tensor t, const size_t shape[2])
{
    char text[64];
    snprintf(text, sizeof text, "[%zu,%zu]", shape[0], shape[1]);
    t.shape = text;
    put(w, g, suffix, t);
}

static void put_words(struct folder_writer *w, const struct grid *g, const char *suffix,
                      const uint32_t *words, const size_t shape[2])
{
    put_matrix(w, g, suffix,
               (struct folder_tensor){
                   .type = "I32", .data = words, .bytes = shape[0] * shape[1] * sizeof *words},
               shape);
}

/* Packed along rows; zeros down the columns. */
static void put_compressed(struct folder_writer *w, const struct grid *g)
{
    const size_t across = g->cols / 8, down = g->rows / 8;
    uint32_t *q = folder_alloc(g->rows * across * sizeof *q);
    uint32_t *zeros = folder_alloc(down * g->groups * sizeof *zeros);
    const int64_t shape[2] = {(int64_t)g->rows, (int64_t)g->cols};
    bool has_zeros = false;
    for (size_t i = 0; i < g->rows * g->cols; i++)
        q[i / 8] |= (uint32_t)g->q[i] << 4 * (i % 8);
    for (size_t r = 0; r < g->rows; r++)
        for (size_t k = 0; k < g->groups; k++) {
            const uint8_t zero = g->zero[r * g->groups + k];
            zeros[r / 8 * g->groups + k] |= (uint32_t)zero << 4 * (r % 8);
            has_zeros = has_zeros || zero != 8;
        }
    put_words(w, g, ".weight_packed", q, (const size_t[]){g->rows, across});
    put(w, g, ".weight_shape",
        (struct folder_tensor){.type = "I64", .shape = "[2]", .data = shape, .bytes = 16});
    put_matrix(
        w, g, ".weight_scale",
        (struct folder_tensor){.type = "F16", .data = g->scale, .bytes = g->rows * g->groups * 2},
        (const size_t[]){g->rows, g->groups});
    if (has_zeros)
        put_words(w, g, ".weight_zero_point", zeros, (const size_t[]){down, g->groups});
    free(q);
    free(zeros);
}

/* Scales as GPTQ and AWQ have them: [groups][rows]. */
static void put_scales(struct folder_writer *w, const struct grid *g)
{
    uint16_t *scale = folder_alloc(g->rows * g->groups * sizeof *scale);
    for (size_t r = 0; r < g->rows; r++)
        for (size_t k = 0; k < g->groups; k++)
            scale[k * g->rows + r] = g->scale[r * g->groups + k];
    put_matrix(
        w, g, ".scales",
        (struct folder_tensor){.type = "F16", .data = scale, .bytes = g->rows * g->groups * 2},
        (const size_t[]){g->groups, g->rows});
    free(scale);
}

/* Packed down the columns; zeros, less one, along the rows. */
static void put_gptq(struct folder_writer *w, const struct grid *g)
{
    const size_t down = g->cols / 8, across = g->rows / 8;
    uint32_t *q = folder_alloc(down * g->rows * sizeof *q);
    uint32_t *zeros = folder_alloc(g->groups * across * sizeof *zeros);
    char shape[32];
    for (size_t r = 0; r < g->rows; r++)
        for (size_t c = 0; c < g->cols; c++)
            q[c / 8 * g->rows + r] |= (uint32_t)g->q[r * g->cols + c] << 4 * (c % 8);
    for (size_t r = 0; r < g->rows; r++)
        for (size_t k = 0; k < g->groups; k++)
            zeros[k * across + r / 8] |= (uint32_t)(g->zero[r * g->groups + k] - 1) << 4 * (r % 8);
    snprintf(shape, sizeof shape, "[%zu]", g->cols);
    put_words(w, g, ".qweight", q, (const size_t[]){down, g->rows});
    put_words(w, g, ".qzeros", zeros, (const size_t[]){g->groups, across});
    put_scales(w, g);
    put(w, g, ".g_idx",
        (struct folder_tensor){
            .type = "I32", .shape = shape, .data = g->of, .bytes = g->cols * sizeof *g->of});
    free(q);
    free(zeros);
}

/* Both along the rows of what is stored, outputs of a word in an order of their own. */
static void put_awq(struct folder_writer *w, const struct grid *g)
{
    static const int place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    const size_t across = g->rows / 8;
    uint32_t *q = folder_alloc(g->cols * across * sizeof *q);
    uint32_t *zeros = folder_alloc(g->groups * across * sizeof *zeros);
    for (size_t r = 0; r < g->rows; r++) {
        for (size_t c = 0; c < g->cols; c++)
            q[c * across + r / 8] |= (uint32_t)g->q[r * g->cols + c] << 4 * place[r % 8];
        for (size_t k = 0; k < g->groups; k++)
            zeros[k * across + r / 8] |= (uint32_t)g->zero[r * g->groups + k] << 4 * place[r % 8];
    }
    put_words(w, g, ".qweight", q, (const size_t[]){g->cols, across});
    put_words(w, g, ".qzeros", zeros, (const size_t[]){g->groups, across});
    put_scales(w, g);
    free(q);
    free(zeros);
}

/* The nearest of e2m1's. */
static uint8_t to_e2m1(float v)
{
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    uint8_t best = 0;
    for (uint8_t i = 1; i < 8; i++)
        if (fabsf(fabsf(v) - values[i]) < fabsf(fabsf(v) - values[best]))
            best = i;
    return (uint8_t)(best | (v < 0 && best ? 8 : 0));
}

/* Of floats: the grid's integers are not for these. */
static void put_mxfp4(struct folder_writer *w, const struct grid *g)
{
    const size_t n = g->rows * g->cols;
    uint8_t *q = folder_alloc(n / 2), *scale = folder_alloc(n / g->size);
    for (size_t i = 0; i < n; i += g->size) {
        float most = 0;
        for (size_t k = 0; k < g->size; k++)
            most = fmaxf(most, fabsf(g->v[i + k]));
        const int exponent = most > 0 ? ilogbf(most) - 2 : 0; /* 4 to 6 are the largest */
        scale[i / g->size] = (uint8_t)(exponent + 127);
        for (size_t k = 0; k < g->size; k++)
            q[(i + k) / 2] |= (uint8_t)(to_e2m1(ldexpf(g->v[i + k], -exponent)) << 4 * (k % 2));
    }
    put_matrix(w, g, ".weight_packed",
               (struct folder_tensor){.type = "U8", .data = q, .bytes = n / 2},
               (const size_t[]){g->rows, g->cols / 2});
    put_matrix(w, g, ".weight_scale",
               (struct folder_tensor){.type = "U8", .data = scale, .bytes = n / g->size},
               (const size_t[]){g->rows, g->groups});
    free(q);
    free(scale);
}

/* ---- the kinds ---- */

#define COMPRESSED(format, weights)                                                                \
    "{\"quant_method\":\"compressed-tensors\",\"format\":\"" format                                \
    "\",\"ignore\":[\"lm_head\"],\"config_groups\":{\"all\":{\"targets\":[\"Linear\"],"            \
    "\"weights\":{\"num_bits\":4," weights "}}}}"
#define GROUPS(size)                                                                               \
    COMPRESSED("pack-quantized", "\"type\":\"int\",\"strategy\":\"group\",\"group_size\":" size    \
                                 ",\"symmetric\":true")

static const struct form forms[INT4_KINDS] = {
    [INT4_32] = {32, false, false, put_compressed, GROUPS("32")},
    [INT4_64] = {64, false, false, put_compressed, GROUPS("64")},
    [INT4_128] = {128, false, false, put_compressed, GROUPS("128")},
    [INT4_ZEROS] = {128, true, false, put_compressed,
                    COMPRESSED("pack-quantized", "\"type\":\"int\",\"strategy\":\"group\","
                                                 "\"group_size\":128,\"symmetric\":false")},
    [INT4_ORDERED] = {128, true, true, put_gptq,
                      "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"sym\":false,"
                      "\"desc_act\":true,\"checkpoint_format\":\"gptq\"}"},
    [INT4_GPTQ] = {128, true, false, put_gptq,
                   "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"sym\":false,"
                   "\"desc_act\":false,\"checkpoint_format\":\"gptq\"}"},
    [INT4_AWQ] = {64, true, false, put_awq,
                  "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,\"zero_point\":true,"
                  "\"version\":\"gemm\"}"},
    [INT4_MXFP4] = {32, false, false, put_mxfp4,
                    COMPRESSED("mxfp4-pack-quantized",
                               "\"type\":\"float\",\"strategy\":\"group\",\"group_size\":32,"
                               "\"symmetric\":true")},
};

/* Length of the module's name; 0: it stays as it is. */
static size_t projection(const struct tensor *t, const struct form *f)
{
    const char *end = strstr(t->name, "_proj.weight");
    if (!end || end[12] || t->rank != 2 || t->shape[0] % 8 || t->shape[1] % f->group)
        return 0;
    return (size_t)(end - t->name) + 5;
}

void int4_folder_make(const char *golden, enum int4_kind kind, char path[FOLDER_PATH])
{
    const struct form *f = &forms[kind];
    struct folder_writer w = {{0}, {0}};
    struct checkpoint *c;
    struct error err = {0};
    folder_must(checkpoint_open(golden, &c, &err) == ST_OK, err.text);
    folder_create(golden, f->config, path);
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct tensor *t = checkpoint_at(c, i);
        char name[256];
        const size_t n = projection(t, f);
        if (n == 0) {
            folder_put_as_it_is(&w, t);
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)n, t->name);
        struct grid g = quantize(t, f, name);
        f->put(&w, &g);
        grid_fini(&g);
    }
    checkpoint_close(c);
    folder_finish(&w, path);
}
