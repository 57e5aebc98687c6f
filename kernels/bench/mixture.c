/* A mixture of gated units from the router's logits on, as model/moe.c runs one: tokens choose
 * their experts, pairs of both are sorted by expert, rows are made ready in that order from where
 * they lie, and each expert that was chosen is read once. The products are one list of work, cut
 * while it is done. The matrices lie one after the other in the buffer, which they may go round. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "kernels/bench/job.h"
#include "kernels/expert_pairs.h"
#include "kernels/gemm_share.h"

enum matrix_of { GATE, UP, DOWN, MATRICES };

/* Experts that were chosen, one after the other, each with its pairs [begin, end); begun with
 * zeros. */
struct chosen {
    int32_t next, n, begin, end; /* n: so many so far */
};

static bool next_chosen(const struct bench_job *j, struct chosen *c)
{
    while (c->next < j->shape->experts) {
        c->begin = c->end;
        c->end = j->pairs->end[c->next++];
        if (c->end > c->begin) {
            c->n++;
            return true;
        }
    }
    return false;
}

static void choose_experts(const struct bench_job *j, int part, int parts)
{
    const struct bench_shape *s = j->shape;
    const struct op_route a = {.expert = j->pairs->expert,
                               .weight = j->pairs->weight,
                               .logits = j->logits,
                               .score = ROUTE_SOFTMAX,
                               .tokens = s->tokens,
                               .experts = s->experts,
                               .top_k = s->top_k};
    j->ops->route(&a, part, parts);
}

static void sort_pairs(const struct bench_shape *s, struct bench_pairs *p)
{
    expert_pairs_sort(p->expert, s->tokens, s->top_k, s->experts,
                      &(struct expert_pairs){p->pair_of, p->row_of, p->end});
}

/* This member of the team. */
struct member {
    const struct bench_job *j;
    int part, parts;
};

static void meet(const struct member *me)
{
    team_barrier(me->j->team);
}

/* Products of each expert that was chosen: n of its matrices from `first` on, all of one shape. */
struct products {
    enum matrix_of first;
    int n;
    struct bench_weights weights; /* of each */
    const float *x;
    const int32_t *row; /* of each pair the row of x; NULL: they are in order */
    float *out[2];
};

/* Rows as the products read them, in the order of the pairs; floats go to `gathered`. */
static void make_ready(const struct member *me, struct products *p, float *gathered)
{
    const struct bench_job *j = me->j;
    const int32_t pairs = j->shape->tokens * j->shape->top_k, dim = p->weights.matrix.cols;
    const struct op_quantize bytes = {
        .out = bench_rows8(j, dim), .x = p->x, .row = p->row, .tokens = pairs, .dim = dim};
    const struct op_round pairs16 = {
        .out = j->x16, .x = p->x, .row = p->row, .tokens = pairs, .dim = dim};
    if (j->math == KERNELS_MATH_BYTES) {
        j->ops->quantize(&bytes, me->part, me->parts);
    } else if (j->math == KERNELS_MATH_BF16) {
        j->ops->round(&pairs16, me->part, me->parts);
    } else if (p->row) {
        size_t begin, end;
        team_split((size_t)pairs, 1, me->part, me->parts, &begin, &end);
        for (size_t i = begin; i < end; i++)
            memcpy(gathered + i * (size_t)dim, p->x + (size_t)p->row[i] * (size_t)dim,
                   (size_t)dim * sizeof *gathered);
        p->x = gathered;
    }
    meet(me);
}

/* The i-th product of an expert; w is where its matrix is described. */
static struct op_gemm product_of(const struct bench_job *j, const struct products *p,
                                 const struct chosen *c, int i, struct bench_weights *w)
{
    const size_t row = (size_t)c->begin, at = (size_t)(c->n - 1) * MATRICES + (size_t)p->first;
    *w = p->weights;
    return (struct op_gemm){.out = p->out[i] + row * (size_t)w->matrix.rows,
                            .x = p->x + row * (size_t)w->matrix.cols,
                            .w = bench_weights_place(w, bench_piece(j, at + (size_t)i)),
                            .tokens = c->end - c->begin};
}

static void run_share(const struct bench_job *j, const struct products *p, struct gemm_share share)
{
    const int32_t cols = p->weights.matrix.cols;
    const struct rows8 all = bench_rows8(j, cols);
    struct bench_weights w;
    for (struct chosen c = {0}; next_chosen(j, &c);)
        for (int i = 0; i < p->n; i++) {
            struct op_gemm a = product_of(j, p, &c, i, &w);
            const struct rows8 x8 = rows8_from(&all, (size_t)c.begin);
            a.x8 = &x8;
            a.x16 = w.matrix.rounds ? j->x16 + (size_t)c.begin * rows16_stride(cols) : NULL;
            if (gemm_share_take(&share, &a))
                j->ops->gemm(&a, 0, 1);
        }
}

static void run_products(const struct member *me, const struct products *p)
{
    const struct bench_job *j = me->j;
    struct bench_weights w;
    uint64_t cost = 0;
    size_t begin, end;
    for (struct chosen c = {0}; next_chosen(j, &c);)
        for (int i = 0; i < p->n; i++) {
            const struct op_gemm a = product_of(j, p, &c, i, &w);
            cost += gemm_cost(a.w, a.tokens);
        }
    const size_t pieces = gemm_share_pieces(cost, (size_t)me->parts);
    work_begin(j->work, me->part, pieces, 1);
    while (work_take(j->work, me->part, &begin, &end))
        run_share(j, p, gemm_share_of(cost, begin, end, pieces));
    meet(me);
}

static void run_experts(const struct member *me)
{
    const struct bench_job *j = me->j;
    const int32_t hidden = j->shape->b, ffn = j->shape->a;
    const int32_t pairs = j->shape->tokens * j->shape->top_k;
    float *gate = j->z, *up = gate + (size_t)pairs * (size_t)ffn;
    struct products gates = {GATE, 2, j->weights, j->x, j->pairs->row_of, {gate, up}};
    struct products down = {DOWN, 1, bench_weights_of(j, hidden, ffn), gate, NULL, {j->y}};
    const struct op_glu unit = {
        .out = gate, .gate = gate, .up = up, .tokens = pairs, .dim = ffn, .in_stride = ffn};
    make_ready(me, &gates, j->y);
    run_products(me, &gates);
    j->ops->glu(&unit, me->part, me->parts);
    meet(me);
    make_ready(me, &down, NULL);
    run_products(me, &down);
}

static void run(const struct bench_job *j, int part, int parts)
{
    const struct bench_shape *s = j->shape;
    const struct member me = {j, part, parts};
    const struct op_combine combine = {.out = j->z, /* gates are no longer needed */
                                       .y = j->y,
                                       .row = j->pairs->pair_of,
                                       .weight = j->pairs->weight,
                                       .tokens = s->tokens,
                                       .dim = s->b,
                                       .k = s->top_k};
    choose_experts(j, part, parts);
    meet(&me);
    if (part == 0)
        sort_pairs(s, j->pairs);
    meet(&me);
    run_experts(&me);
    j->ops->combine(&combine, part, parts);
}

static bool prepare(struct bench_job *j)
{
    const struct bench_shape *s = j->shape;
    const size_t pairs = (size_t)s->tokens * (size_t)s->top_k;
    struct chosen c = {0};
    if (!bench_form_runs(j->ops, j->form))
        return false;
    assert(pairs <= BENCH_ROWS_MAX && s->experts <= BENCH_EXPERTS_MAX);
    assert(pairs * (size_t)s->b <= BENCH_FLOATS && 2 * pairs * (size_t)s->a <= BENCH_FLOATS);
    j->weights = bench_weights_of(j, s->a, s->b);
    j->math = bench_form_math(j->ops, j->form);
    choose_experts(j, 0, 1);
    sort_pairs(s, j->pairs);
    while (next_chosen(j, &c))
        ;
    const struct bench_weights down = bench_weights_of(j, s->b, s->a);
    const double each = 2 * (double)j->weights.bytes + (double)down.bytes;
    j->flops = 2.0 * MATRICES * (double)pairs * s->a * s->b;
    j->bytes = c.n * each + 8.0 * s->tokens * s->b;
    bench_set_pieces(j, (size_t)c.n * MATRICES,
                     down.bytes > j->weights.bytes ? down.bytes : j->weights.bytes);
    return true;
}

static void describe(const struct bench_job *j, char *text, size_t cap)
{
    const struct bench_shape *s = j->shape;
    snprintf(text, cap, "M=%d N=%d K=%d experts=%d top=%d", s->tokens, s->a, s->b, s->experts,
             s->top_k);
}

const struct bench_op bench_mixture = {.name = "moe",
                                       .forms = FORM_BIT(FORM_BF16) | FORM_BIT(FORM_BF16_ROWS) |
                                                FORM_BIT(FORM_Q8) | FORM_BIT(FORM_Q4) |
                                                FORM_BIT(FORM_Q8_WHOLE) | FORM_BIT(FORM_Q8_WIDE) |
                                                FORM_BIT(FORM_Q4_WIDE),
                                       .streams = true,
                                       .prepare = prepare,
                                       .run = run,
                                       .describe = describe};
