/* Ops on rows of activations. */
#include <stdio.h>
#include <string.h>

#include "kernels/bench/job.h"

/* So many bytes to each of the shape's elements. */
static bool prepare(struct bench_job *j, double bytes)
{
    const struct bench_shape *s = j->shape;
    j->flops = 0;
    j->math = KERNELS_MATH_FLOAT;
    j->bytes = bytes * s->tokens * s->a * (s->b ? s->b : 1);
    j->pieces = 0;
    return true;
}

static bool prepare_weights(struct bench_job *j, double bytes, int32_t rows)
{
    prepare(j, bytes);
    j->weights = bench_weights_of(j, rows, j->shape->a);
    bench_set_pieces(j, 1, j->weights.bytes);
    return true;
}

static void describe_rows(const struct bench_job *j, char *text, size_t cap)
{
    snprintf(text, cap, "rows=%d dim=%d", j->shape->tokens, j->shape->a);
}

static bool prepare_embed(struct bench_job *j)
{
    return prepare_weights(j, 2 + 4, 1024); /* bf16 in, a float out */
}

static void run_embed(const struct bench_job *j, int part, int parts)
{
    struct bench_weights w = j->weights;
    const struct op_embed a = {.out = j->y,
                               .table = bench_weights_place(&w, bench_piece(j, 0)),
                               .ids = j->ids,
                               .tokens = j->shape->tokens};
    j->ops->embed(&a, part, parts);
}

static bool prepare_rmsnorm(struct bench_job *j)
{
    return prepare_weights(j, 8, 1);
}

static void run_rmsnorm(const struct bench_job *j, int part, int parts)
{
    struct bench_weights w = j->weights;
    const struct op_rmsnorm a = {.out = j->y,
                                 .x = j->x,
                                 .weight = bench_weights_place(&w, bench_piece(j, 0)),
                                 .eps = 1e-5f,
                                 .tokens = j->shape->tokens,
                                 .dim = j->shape->a};
    j->ops->rmsnorm(&a, part, parts);
}

static bool prepare_rope(struct bench_job *j)
{
    return prepare(j, 8);
}

static void run_rope(const struct bench_job *j, int part, int parts)
{
    const struct op_rope a = {.x = j->y,
                              .positions = j->ids,
                              .inv_freq = j->x,
                              .attention_factor = 1,
                              .tokens = j->shape->tokens,
                              .heads = j->shape->a,
                              .head_dim = j->shape->b};
    j->ops->rope(&a, part, parts);
}

static void describe_rope(const struct bench_job *j, char *text, size_t cap)
{
    snprintf(text, cap, "rows=%d heads=%d dim=%d", j->shape->tokens, j->shape->a, j->shape->b);
}

static bool prepare_glu(struct bench_job *j)
{
    return prepare(j, 12);
}

static void run_glu(const struct bench_job *j, int part, int parts)
{
    const struct bench_shape *s = j->shape;
    const size_t n = (size_t)s->tokens * (size_t)s->a;
    const struct op_glu a = {.out = j->y,
                             .gate = j->x,
                             .up = j->x + n,
                             .tokens = s->tokens,
                             .dim = s->a,
                             .in_stride = s->a};
    j->ops->glu(&a, part, parts);
}

static bool prepare_quantize(struct bench_job *j)
{
    /* A float in; a byte, and a span's scale and sums, out. */
    return prepare(j, 5 + 12.0 / PACKED_SPAN);
}

static void run_quantize(const struct bench_job *j, int part, int parts)
{
    const struct op_quantize a = {.out = bench_rows8(j, j->shape->a),
                                  .x = j->x,
                                  .tokens = j->shape->tokens,
                                  .dim = j->shape->a};
    j->ops->quantize(&a, part, parts);
}

static bool prepare_round(struct bench_job *j)
{
    return j->ops->round && prepare(j, 4 + 2);
}

static void run_round(const struct bench_job *j, int part, int parts)
{
    const struct op_round a = {
        .out = j->x16, .x = j->x, .tokens = j->shape->tokens, .dim = j->shape->a};
    j->ops->round(&a, part, parts);
}

static bool prepare_softcap(struct bench_job *j)
{
    const size_t n = (size_t)j->shape->tokens * (size_t)j->shape->a;
    memcpy(j->y, j->x, n * sizeof *j->y);
    return prepare(j, 8);
}

static void run_softcap(const struct bench_job *j, int part, int parts)
{
    const struct op_softcap a = {
        .x = j->y, .cap = 30, .n = (int64_t)j->shape->tokens * j->shape->a};
    j->ops->softcap(&a, part, parts);
}

#define ROWS_OP(op, of)                                                                            \
    const struct bench_op bench_##op = {.name = #op,                                               \
                                        .forms = FORM_BIT(of),                                     \
                                        .prepare = prepare_##op,                                   \
                                        .run = run_##op,                                           \
                                        .describe = describe_rows}
ROWS_OP(embed, FORM_BF16);
ROWS_OP(rmsnorm, FORM_BF16);
ROWS_OP(glu, FORM_F32);
ROWS_OP(quantize, FORM_F32);
ROWS_OP(round, FORM_F32);
ROWS_OP(softcap, FORM_F32);
const struct bench_op bench_rope = {.name = "rope",
                                    .forms = FORM_BIT(FORM_F32),
                                    .prepare = prepare_rope,
                                    .run = run_rope,
                                    .describe = describe_rope};
