/* Products: a matrix times rows, and two of them that give a gated unit. They are cut as
 * model/forward.c cuts them. */
#include <stdio.h>

#include "kernels/bench/job.h"
#include "kernels/gemm_pieces.h"

#define FORMS_OF_WEIGHTS                                                                           \
    (FORM_BIT(FORM_F32) | FORM_BIT(FORM_BF16) | FORM_BIT(FORM_F16) | FORM_BIT(FORM_BF16_ROWS) |    \
     FORM_BIT(FORM_FP8) | FORM_BIT(FORM_FP8_ROWS) | FORM_BIT(FORM_Q8) | FORM_BIT(FORM_Q4) |        \
     FORM_BIT(FORM_Q8_PAIRED) | FORM_BIT(FORM_Q4_PAIRED) | FORM_BIT(FORM_Q8_WHOLE) |               \
     FORM_BIT(FORM_Q8_WIDE) | FORM_BIT(FORM_Q4_WIDE) | FORM_BIT(FORM_Q4_WIDE_MINS))
#define FORMS_THAT_GATE                                                                            \
    (FORM_BIT(FORM_BF16_ROWS) | FORM_BIT(FORM_Q8) | FORM_BIT(FORM_Q4) | FORM_BIT(FORM_Q8_PAIRED) | \
     FORM_BIT(FORM_Q4_PAIRED) | FORM_BIT(FORM_Q8_WHOLE))

static bool prepare(struct bench_job *j, size_t matrices)
{
    const struct bench_shape *s = j->shape;
    const double m = (double)matrices, tokens = s->tokens;
    if (!bench_form_runs(j->ops, j->form))
        return false;
    j->weights = bench_weights_of(j, s->a, s->b);
    j->math = bench_form_math(j->ops, j->form);
    j->flops = 2 * m * tokens * s->a * s->b;
    j->bytes = m * (double)j->weights.bytes + 4 * tokens * (s->a + s->b);
    bench_set_pieces(j, matrices, j->weights.bytes);
    return true;
}

static bool prepare_gemm(struct bench_job *j)
{
    return prepare(j, 1);
}

static void run_cut(const struct bench_job *j, const struct op_gemm *a, int part, int parts)
{
    if (gemm_has_pieces(a->w, parts))
        gemm_run_pieces(j->ops, a, j->work, part, parts);
    else
        j->ops->gemm(a, part, parts);
}

static struct op_gemm gemm_of(const struct bench_job *j, const struct matrix *w,
                              const struct rows8 *x8)
{
    return (struct op_gemm){.out = j->y,
                            .x = j->x,
                            .x8 = x8,
                            .x16 = w->rounds ? j->x16 : NULL,
                            .w = w,
                            .tokens = j->shape->tokens};
}

static void run_gemm(const struct bench_job *j, int part, int parts)
{
    struct bench_weights w = j->weights;
    const struct rows8 x8 = bench_rows8(j, j->shape->b);
    const struct op_gemm a = gemm_of(j, bench_weights_place(&w, bench_piece(j, 0)), &x8);
    run_cut(j, &a, part, parts);
}

static bool prepare_gated(struct bench_job *j)
{
    struct bench_weights gate, up;
    if (!j->ops->gates || !prepare(j, 2))
        return false;
    gate = up = j->weights;
    const struct op_gemm a = {.w = bench_weights_place(&gate, j->buffer),
                              .tokens = j->shape->tokens};
    return ops_gates(j->ops, &a, bench_weights_place(&up, j->buffer));
}

static void run_gated(const struct bench_job *j, int part, int parts)
{
    struct bench_weights gate = j->weights, up = j->weights;
    const struct rows8 x8 = bench_rows8(j, j->shape->b);
    const struct gemm_unit unit = {.up = bench_weights_place(&up, bench_piece(j, 1)),
                                   .kind = GLU_SILU,
                                   .out16 = gate.matrix.rounds ? (uint16_t *)j->z : NULL};
    struct op_gemm a = gemm_of(j, bench_weights_place(&gate, bench_piece(j, 0)), &x8);
    a.unit = &unit;
    run_cut(j, &a, part, parts);
}

static void describe(const struct bench_job *j, char *text, size_t cap)
{
    snprintf(text, cap, "M=%d N=%d K=%d", j->shape->tokens, j->shape->a, j->shape->b);
}

const struct bench_op bench_gemm = {.name = "gemm",
                                    .forms = FORMS_OF_WEIGHTS,
                                    .streams = true,
                                    .prepare = prepare_gemm,
                                    .run = run_gemm,
                                    .describe = describe};
const struct bench_op bench_gated = {.name = "gated",
                                     .forms = FORMS_THAT_GATE,
                                     .streams = true,
                                     .prepare = prepare_gated,
                                     .run = run_gated,
                                     .describe = describe};
