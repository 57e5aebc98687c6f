/* Grouped-query attention (Ainslie et al. 2023). Queries, keys and values stand side by side in a
 * row of scratch.qkv. A layer that shares another's keys and values projects queries alone. */
#include "model/model_impl.h"

/* Where queries, keys and values of a row begin. */
struct widths {
    int32_t q, kv, all;
};

static struct widths widths_of(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    struct widths w = {c->heads * c->head_dim, c->kv_heads * c->head_dim, 0};
    w.all = w.q + 2 * w.kv;
    return w;
}

static void clip(const struct layer_run *l, float *x, int32_t width, int32_t tokens)
{
    const float max = l->r->m->config.clip_qkv;
    const size_t stride = (size_t)widths_of(l).all;
    size_t begin, end;
    team_split((size_t)tokens, 1, l->me.part, l->me.parts, &begin, &end);
    for (size_t m = begin; m < end; m++)
        for (int32_t i = 0; i < width; i++) {
            float *v = x + m * stride + i;
            *v = *v > max ? max : *v < -max ? -max : *v;
        }
}

static void norm_heads(const struct layer_run *l, float *x, const struct matrix *weight,
                       int32_t heads, int32_t tokens)
{
    const struct model_config *c = &l->r->m->config;
    const bool full = c->qk_norm == QK_NORM_FULL;
    run_norm(l, (struct op_rmsnorm){.out = x,
                                    .x = x,
                                    .weight = weight,
                                    .tokens = tokens,
                                    .groups = full ? 1 : heads,
                                    .dim = full ? heads * c->head_dim : c->head_dim,
                                    .x_stride = widths_of(l).all,
                                    .out_stride = widths_of(l).all});
}

/* Norm, clip and rotation of `heads` projected heads at x, in the order that the model was trained
 * with. Meets before each step, not after the last. */
static void finish_heads(const struct layer_run *l, float *x, const struct matrix *weight,
                         int32_t heads, const struct op_rows *rows)
{
    const struct model_config *c = &l->r->m->config;
    const bool before = c->qk_norm == QK_NORM_HEAD || c->qk_norm == QK_NORM_FULL;
    run_meet(l->r);
    if (before) {
        norm_heads(l, x, weight, heads, rows->tokens);
        run_meet(l->r);
    }
    if (c->clip_qkv > 0) {
        clip(l, x, heads * c->head_dim, rows->tokens);
        run_meet(l->r);
    }
    run_rope(l,
             (struct op_rope){
                 .x = x, .heads = heads, .head_stride = c->head_dim, .x_stride = widths_of(l).all},
             rows);
    if (c->qk_norm == QK_NORM_AFTER_ROPE) {
        run_meet(l->r);
        norm_heads(l, x, weight, heads, rows->tokens);
    }
}

static void project_queries(const struct layer_run *l, const float *in, const struct op_rows *rows)
{
    run_gemm(l, (struct op_gemm){.out = l->r->m->scratch.qkv,
                                 .x = in,
                                 .w = &l->w->q,
                                 .bias = l->w->q_bias,
                                 .tokens = rows->tokens,
                                 .out_stride = widths_of(l).all});
}

static void project_keys(const struct layer_run *l)
{
    const struct widths w = widths_of(l);
    struct op_gemm a = {.x = l->in, .tokens = l->r->all.tokens, .out_stride = w.all};
    a.out = l->r->m->scratch.qkv + w.q, a.w = &l->w->k, a.bias = l->w->k_bias;
    run_gemm(l, a);
    a.out += w.kv, a.w = &l->w->v, a.bias = l->w->v_bias;
    run_gemm(l, a);
}

void mixer_gqa(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    const struct widths w = widths_of(l);
    const bool stores = l->config->kv_from == l->layer;
    run_ready(l, l->in, l->r->all.tokens, stores ? &l->w->k : &l->w->q);
    if (stores)
        project_keys(l);
    if (!l->narrow)
        project_queries(l, l->in, l->rows);
    if (stores) {
        finish_heads(l, s->qkv + w.q, &l->w->k_norm, c->kv_heads, &l->r->all);
        if (c->clip_qkv > 0)
            clip(l, s->qkv + w.q + w.kv, w.kv, l->r->all.tokens);
    }
    if (!l->narrow)
        finish_heads(l, s->qkv, &l->w->q_norm, c->heads, l->rows);
    run_meet(l->r);
    if (stores)
        run_store(l, s->qkv + w.q, s->qkv + w.q + w.kv, w.all);
    run_stored(l);
    if (l->rows->tokens == 0)
        return;
    if (l->narrow) {
        run_ready(l, l->in_sel, l->rows->tokens, &l->w->q);
        project_queries(l, l->in_sel, l->rows);
        finish_heads(l, s->qkv, &l->w->q_norm, c->heads, l->rows);
        run_meet(l->r);
    }
    run_attend(l, (struct op_attention){
                      .out = s->attn, .q = s->qkv, .q_stride = w.all, .sinks = l->w->sinks});
    run_meet(l->r);
    struct op_gemm o = run_block_out(l);
    run_ready(l, s->attn, o.tokens, &l->w->o);
    o.x = s->attn, o.w = &l->w->o, o.bias = l->w->o_bias;
    run_gemm(l, o);
    run_meet(l->r);
}
