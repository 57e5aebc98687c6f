/* The feed-forward block: one gated unit (Shazeer 2020), or a mixture of them (moe.c); a token adds
 * its experts' outputs in the order of its choices, so that its bits depend on no other token. */
#include "model/model_impl.h"

#define UNIT_GATED_LEAST 64 /* so wide, a row of bf16 with what is behind it fits one of floats */

/* Whether what the gated unit gives is read in bf16 alone: then it is never anything else. */
static bool reads_pairs_alone(const struct model *m, const struct matrix *down)
{
    return !m->weights.reads_bytes && down->rounds;
}

static void run_glu(const struct layer_run *l, int32_t rows, int32_t ffn, bool rounded)
{
    const struct model *m = l->r->m;
    struct op_glu a = {.out = m->scratch.gate,
                       .out16 = rounded ? m->scratch.x16 : NULL,
                       .gate = m->scratch.gate,
                       .up = m->scratch.up,
                       .kind = m->config.activation,
                       .limit = m->config.glu_limit,
                       .alpha = m->config.glu_alpha,
                       .tokens = rows,
                       .dim = ffn,
                       .in_stride = ffn};
    m->ops->glu(&a, l->me.part, l->me.parts);
}

/* Both products, and then the unit. */
static void run_products_and_unit(const struct layer_run *l, const struct expert_weights *w,
                                  struct op_gemm a, bool rounded)
{
    const struct scratch *s = &l->r->m->scratch;
    run_gemm(l, a);
    a.out = s->up, a.w = &w->up, a.bias = w->up_bias;
    run_gemm(l, a);
    run_meet(l->r);
    if (rounded)
        run_is_ready(l, s->gate, &w->down, s->x16);
    run_glu(l, a.tokens, w->gate.rows, rounded);
}

/* The same of many rows, where what the products give is never in memory: x16 is being read, and
 * rows in bf16 go to where no others are. */
static void run_gated(const struct layer_run *l, const struct expert_weights *w, struct op_gemm a,
                      bool rounded)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    const struct gemm_unit unit = {.up = &w->up,
                                   .up_bias = w->up_bias,
                                   .kind = c->activation,
                                   .limit = c->glu_limit,
                                   .alpha = c->glu_alpha,
                                   .out16 = rounded ? (uint16_t *)s->up : NULL};
    a.unit = &unit;
    run_gemm(l, a);
    if (!rounded)
        return;
    run_meet(l->r);
    run_is_ready(l, s->gate, &w->down, unit.out16);
}

/* A unit that all rows go through, its output as `to` says. */
static void run_unit(const struct layer_run *l, const struct expert_weights *w, struct op_gemm to)
{
    const struct scratch *s = &l->r->m->scratch;
    const struct op_gemm a = {
        .out = s->gate, .x = l->in, .w = &w->gate, .bias = w->gate_bias, .tokens = to.tokens};
    const bool rounded = reads_pairs_alone(l->r->m, &w->down);
    run_in_ready(l, to.tokens, &w->gate);
    if (w->gate.rows >= UNIT_GATED_LEAST && run_gates(l, &a, &w->up))
        run_gated(l, w, a, rounded);
    else
        run_products_and_unit(l, w, a, rounded);
    run_meet(l->r);
    if (!rounded)
        run_ready(l, s->gate, to.tokens, &w->down);
    to.x = s->gate, to.w = &w->down, to.bias = w->down_bias;
    run_gemm(l, to);
    run_meet(l->r);
}

void mlp_dense(const struct layer_run *l)
{
    run_unit(l, &l->w->mlp, run_block_out(l));
}

/* ---- mixtures ---- */

static void run_experts(const struct layer_run *l, const struct pair_list *p)
{
    const struct scratch *s = &l->r->m->scratch;
    const struct expert_weights *w = l->w->experts;
    const struct pair_product gates[] = {{&w->gate, &w->gate_bias, sizeof *w, s->gate},
                                         {&w->up, &w->up_bias, sizeof *w, s->up}};
    const struct pair_product down = {&w->down, &w->down_bias, sizeof *w, s->pair_out};
    moe_gemm(l, p, l->in, s->pair_row, gates, 2);
    run_glu(l, p->pairs, l->r->m->config.moe.ffn, false);
    run_meet(l->r);
    moe_gemm(l, p, s->gate, NULL, &down, 1);
}

static void run_combine(const struct layer_run *l, struct op_combine a)
{
    a.y = l->r->m->scratch.pair_out;
    a.dim = l->r->m->config.hidden;
    a.tokens = l->rows->tokens;
    l->r->m->ops->combine(&a, l->me.part, l->me.parts);
    run_meet(l->r);
}

/* The experts that every token goes to, perhaps weighed by a gate of their own. */
static void run_shared(const struct layer_run *l, struct op_gemm to)
{
    const struct scratch *s = &l->r->m->scratch;
    to.accumulate = 1;
    if (!l->r->m->config.moe.shared_gate) {
        run_unit(l, &l->w->shared, to);
        return;
    }
    run_gemm(l, (struct op_gemm){
                    .out = s->weight, .x = l->in, .w = &l->w->shared_gate, .tokens = to.tokens});
    run_unit(l, &l->w->shared, (struct op_gemm){.out = s->pair_out, .tokens = to.tokens});
    run_combine(l, (struct op_combine){.out = to.out,
                                       .weight = s->weight,
                                       .scale = to.scale,
                                       .k = 1,
                                       .accumulate = 1,
                                       .sigmoid = 1});
}

void mlp_moe(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    const struct op_gemm to = run_block_out(l);
    const struct pair_list p = moe_route(l, &l->w->router, l->in, to.tokens);
    run_experts(l, &p);
    run_combine(l, (struct op_combine){.out = to.out,
                                       .row = s->pair_of,
                                       .weight = s->weight,
                                       .bias = l->w->mlp.down_bias,
                                       .scale = to.scale,
                                       .k = c->moe.top_k,
                                       .accumulate = to.accumulate});
    if (c->moe.shared_ffn > 0)
        run_shared(l, to);
}
