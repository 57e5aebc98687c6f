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

/* Which of the heads that stand side by side. */
struct heads {
    bool queries, keys;
};

static void norm_each(const struct layer_run *l, struct heads h, int32_t tokens)
{
    const struct model_config *c = &l->r->m->config;
    float *queries = l->r->m->scratch.qkv;
    if (h.queries)
        norm_heads(l, queries, &l->w->q_norm, c->heads, tokens);
    if (h.keys)
        norm_heads(l, queries + widths_of(l).q, &l->w->k_norm, c->kv_heads, tokens);
}

/* The angles of all rows are kept from the first layer on. */
static void rotate(const struct layer_run *l, float *x, int32_t heads, const struct op_rows *rows)
{
    const struct model *m = l->r->m;
    const int rope = l->config->rope;
    struct op_rope a = {
        .x = x, .heads = heads, .head_stride = m->config.head_dim, .x_stride = widths_of(l).all};
    if (rope >= 0 && rows->positions == l->r->all.positions) {
        a.angles = m->scratch.angles[rope];
        a.angled = l->layer > m->rope_first[rope];
    }
    run_rope(l, a, rows);
}

/* Norm, clip and rotation of projected heads, in the order that the model was trained with. Meets
 * before each step, not after the last. */
static void finish_heads(const struct layer_run *l, struct heads h, const struct op_rows *rows)
{
    const struct model_config *c = &l->r->m->config;
    const bool before = c->qk_norm == QK_NORM_HEAD || c->qk_norm == QK_NORM_FULL;
    const int32_t heads = (h.queries ? c->heads : 0) + (h.keys ? c->kv_heads : 0);
    float *x = l->r->m->scratch.qkv + (h.queries ? 0 : widths_of(l).q);
    run_meet(l->r);
    if (before) {
        norm_each(l, h, rows->tokens);
        run_meet(l->r);
    }
    if (c->clip_qkv > 0) {
        clip(l, x, heads * c->head_dim, rows->tokens);
        run_meet(l->r);
    }
    rotate(l, x, heads, rows);
    if (c->qk_norm == QK_NORM_AFTER_ROPE) {
        run_meet(l->r);
        norm_each(l, h, rows->tokens);
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
    run_in_ready(l, l->r->all.tokens, stores ? &l->w->k : &l->w->q);
    if (stores)
        project_keys(l);
    if (!l->narrow)
        project_queries(l, l->in, l->rows);
    if (stores || !l->narrow) {
        finish_heads(l, (struct heads){!l->narrow, stores}, &l->r->all);
        if (stores && c->clip_qkv > 0)
            clip(l, s->qkv + w.q + w.kv, w.kv, l->r->all.tokens);
    }
    run_meet(l->r);
    if (stores)
        run_store(l, s->qkv + w.q, s->qkv + w.q + w.kv, w.all);
    run_stored(l);
    if (l->rows->tokens == 0)
        return;
    if (l->narrow) {
        run_ready(l, l->in_sel, l->rows->tokens, &l->w->q);
        project_queries(l, l->in_sel, l->rows);
        finish_heads(l, (struct heads){.queries = true}, l->rows);
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
