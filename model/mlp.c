/* The feed-forward block: one gated unit (Shazeer 2020), or a mixture of them. Of a mixture, the
 * pairs (token, chosen expert) are sorted by expert, so that each expert that was chosen is read
 * once; a token adds its experts' outputs in the order of its choices, so that its bits depend on
 * no other token. */
#include <string.h>

#include "model/model_impl.h"

static void run_glu(const struct layer_run *l, int32_t rows, int32_t ffn)
{
    const struct model *m = l->r->m;
    struct op_glu a = {.out = m->scratch.gate,
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

/* gate and up of rows [begin, end) of x, to the same rows of scratch. */
static void run_gate_up(const struct layer_run *l, const struct expert_weights *w, const float *x,
                        int32_t begin, int32_t end)
{
    const struct scratch *s = &l->r->m->scratch;
    const size_t in = (size_t)w->gate.cols, out = (size_t)w->gate.rows;
    struct op_gemm a = {.x = x + (size_t)begin * in, .tokens = end - begin};
    a.out = s->gate + (size_t)begin * out, a.w = &w->gate, a.bias = w->gate_bias;
    run_gemm_from(l, a, begin);
    a.out = s->up + (size_t)begin * out, a.w = &w->up, a.bias = w->up_bias;
    run_gemm_from(l, a, begin);
}

/* A unit that all rows go through, its output as `to` says. */
static void run_unit(const struct layer_run *l, const struct expert_weights *w, struct op_gemm to)
{
    run_ready(l, l->in, to.tokens, &w->gate);
    run_gate_up(l, w, l->in, 0, to.tokens);
    run_meet(l->r);
    run_glu(l, to.tokens, w->gate.rows);
    run_meet(l->r);
    run_ready(l, l->r->m->scratch.gate, to.tokens, &w->down);
    to.x = l->r->m->scratch.gate, to.w = &w->down, to.bias = w->down_bias;
    run_gemm(l, to);
    run_meet(l->r);
}

void mlp_dense(const struct layer_run *l)
{
    run_unit(l, &l->w->mlp, run_block_out(l));
}

/* ---- mixtures ---- */

/* Pairs in order of expert, then of token: pair_of for each choice, pair_row back. One member's
 * work. */
static void sort_pairs(const struct model_config *c, const struct scratch *s, int32_t tokens)
{
    const int32_t n = tokens * c->moe.top_k, experts = c->moe.experts;
    int32_t *end = s->expert_end;
    memset(end, 0, (size_t)experts * sizeof *end);
    for (int32_t i = 0; i < n; i++)
        end[s->expert[i]]++;
    for (int32_t e = 0, sum = 0; e < experts; e++) {
        int32_t count = end[e];
        end[e] = sum; /* its beginning, until the pairs are put there */
        sum += count;
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t pair = end[s->expert[i]]++;
        s->pair_of[i] = pair;
        s->pair_row[pair] = i / c->moe.top_k;
    }
}

struct pair_list moe_route(const struct layer_run *l, const struct matrix *router, const float *x,
                           int32_t tokens)
{
    const struct model *m = l->r->m;
    const struct model_config *c = &m->config;
    const struct scratch *s = &m->scratch;
    const size_t hidden = (size_t)c->hidden;
    size_t begin, end;
    run_gemm(
        l, (struct op_gemm){
               .out = s->router, .x = x, .w = router, .bias = l->w->router_bias, .tokens = tokens});
    run_meet(l->r);
    struct op_route a = {.expert = s->expert,
                         .weight = s->weight,
                         .logits = s->router,
                         .bias = l->w->choice_bias,
                         .score = c->moe.score,
                         .scale = c->moe.scale,
                         .tokens = tokens,
                         .experts = c->moe.experts,
                         .top_k = c->moe.top_k,
                         .groups = c->moe.groups,
                         .top_groups = c->moe.top_groups,
                         .normalize = c->moe.normalize};
    m->ops->route(&a, l->me.part, l->me.parts);
    run_meet(l->r);
    if (l->me.part == 0)
        sort_pairs(c, s, tokens);
    run_meet(l->r);
    struct pair_list p = {tokens * c->moe.top_k, s->expert_end};
    team_split((size_t)p.pairs, 1, l->me.part, l->me.parts, &begin, &end);
    for (size_t i = begin; i < end; i++)
        memcpy(s->pair_in + i * hidden, x + (size_t)s->pair_row[i] * hidden,
               hidden * sizeof(float));
    run_meet(l->r);
    return p;
}

static void run_experts(const struct layer_run *l, struct pair_list p)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    const size_t ffn = (size_t)c->moe.ffn, hidden = (size_t)c->hidden;
    run_ready(l, s->pair_in, p.pairs, &l->w->experts[0].gate);
    for (int32_t e = 0, begin = 0; e < c->moe.experts; begin = p.expert_end[e++])
        if (p.expert_end[e] > begin)
            run_gate_up(l, &l->w->experts[e], s->pair_in, begin, p.expert_end[e]);
    run_meet(l->r);
    run_glu(l, p.pairs, c->moe.ffn);
    run_meet(l->r);
    run_ready(l, s->gate, p.pairs, &l->w->experts[0].down);
    for (int32_t e = 0, begin = 0; e < c->moe.experts; begin = p.expert_end[e++]) {
        const struct expert_weights *w = &l->w->experts[e];
        if (p.expert_end[e] > begin)
            run_gemm_from(l,
                          (struct op_gemm){.out = s->pair_out + (size_t)begin * hidden,
                                           .x = s->gate + (size_t)begin * ffn,
                                           .w = &w->down,
                                           .bias = w->down_bias,
                                           .tokens = p.expert_end[e] - begin},
                          begin);
    }
    run_meet(l->r);
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
    struct pair_list p = moe_route(l, &l->w->router, l->in, to.tokens);
    run_experts(l, p);
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
