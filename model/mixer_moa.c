/* A mixture of attention heads (Zhang et al. 2022; JetMoE, Shen et al. 2024): each token chooses
 * experts, and an expert is a projection to one query per kv head and one back. Keys and values are
 * shared. Query head kv * top_k + k of a token is its k-th choice's for that kv head, so that heads
 * of one kv head are adjacent. */
#include <string.h>

#include "model/model_impl.h"

/* Between a token's heads and its pairs' rows: `to_pairs` gathers, else scatters. */
static void move_heads(const struct layer_run *l, float *heads, size_t stride, bool to_pairs)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    const size_t dim = (size_t)c->head_dim, kv = (size_t)c->kv_heads, k = (size_t)c->moe.top_k;
    size_t begin, end;
    team_split((size_t)l->rows->tokens * k, 1, l->me.part, l->me.parts, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        for (size_t h = 0; h < kv; h++) {
            float *head = heads + i / k * stride + (h * k + i % k) * dim;
            size_t row = (size_t)s->pair_of[i];
            if (to_pairs)
                memcpy(s->pair_in + (row * kv + h) * dim, head, dim * sizeof(float));
            else
                memcpy(head, s->pair_out + (row * kv + h) * dim, dim * sizeof(float));
        }
    }
    run_meet(l->r);
}

static void project_keys(const struct layer_run *l, float *k, float *v, int32_t width)
{
    const struct model_config *c = &l->r->m->config;
    struct op_gemm a = {.x = l->in, .tokens = l->r->all.tokens, .out_stride = width};
    a.out = k, a.w = &l->w->k;
    run_ready(l, l->in, a.tokens, a.w);
    run_gemm(l, a);
    a.out = v, a.w = &l->w->v;
    run_gemm(l, a);
    run_meet(l->r);
    run_rope(l,
             (struct op_rope){
                 .x = k, .heads = c->kv_heads, .head_stride = c->head_dim, .x_stride = width},
             &l->r->all);
    run_meet(l->r);
    run_store(l, k, v, width);
    run_stored(l);
}

/* The choices' outputs, weighed and added up, and the bias that all share. */
static void combine(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    const struct op_gemm to = run_block_out(l);
    struct op_combine a = {.out = to.out,
                           .y = s->pair_out,
                           .row = s->pair_of,
                           .weight = s->weight,
                           .bias = l->w->o_bias,
                           .scale = to.scale,
                           .tokens = to.tokens,
                           .dim = c->hidden,
                           .k = c->moe.top_k,
                           .accumulate = to.accumulate};
    l->r->m->ops->combine(&a, l->me.part, l->me.parts);
    run_meet(l->r);
}

void mixer_moa(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int32_t width = model_qkv_width(c);
    project_keys(l, s->qkv + q, s->qkv + q + kv, width);
    if (l->rows->tokens == 0)
        return;
    const struct pair_list p = moe_route(l, &l->w->moa_router, l->in_sel, l->rows->tokens);
    const struct pair_product in = {l->w->moa_in, NULL, sizeof *l->w->moa_in, s->pair_out};
    const struct pair_product out = {l->w->moa_out, NULL, sizeof *l->w->moa_out, s->pair_out};
    moe_gemm(l, &p, l->in_sel, s->pair_row, &in, 1);
    move_heads(l, s->qkv, (size_t)width, false);
    run_rope(l,
             (struct op_rope){
                 .x = s->qkv, .heads = c->heads, .head_stride = c->head_dim, .x_stride = width},
             l->rows);
    run_meet(l->r);
    run_attend(l, (struct op_attention){.out = s->attn, .q = s->qkv, .q_stride = width});
    run_meet(l->r);
    move_heads(l, s->attn, (size_t)q, true);
    moe_gemm(l, &p, s->pair_in, NULL, &out, 1);
    combine(l);
}
