/* Multi-head latent attention (DeepSeek-V2, 2024), always in absorbed form: keys are stored as one
 * latent and one rotated part for all heads, queries are taken into the latent space, and attention
 * gives latents that each head takes to its values. Prefill could expand the latents and multiply
 * less, but then its bits would differ from those of decode (ARCHITECTURE.md, Exactness).
 *
 * A row of scratch.qkv: queries [heads, nope + rope], then the key [kv_rank + rope]. */
#include <string.h>

#include "model/model_impl.h"

/* The norms of latents have an epsilon of their own. */
#define LATENT_NORM_EPS 1e-6f

static int32_t row_width(const struct layer_run *l)
{
    return model_qkv_width(&l->r->m->config);
}

static int32_t key_dim(const struct layer_run *l)
{
    return model_key_dim(&l->r->m->config);
}

static void project_queries(const struct layer_run *l, const float *in, const struct op_rows *rows)
{
    const struct latent_config *a = &l->r->m->config.latent;
    const struct scratch *s = &l->r->m->scratch;
    struct op_gemm q = {
        .out = s->qkv, .x = in, .w = &l->w->q, .tokens = rows->tokens, .out_stride = row_width(l)};
    if (a->q_rank > 0) {
        run_gemm(l, (struct op_gemm){.out = s->latent,
                                     .x = in,
                                     .w = &l->w->q_a,
                                     .bias = l->w->q_a_bias,
                                     .tokens = rows->tokens});
        run_meet(l->r);
        run_norm(l, (struct op_rmsnorm){.out = s->latent,
                                        .x = s->latent,
                                        .weight = &l->w->q_a_norm,
                                        .eps = LATENT_NORM_EPS,
                                        .tokens = rows->tokens,
                                        .dim = a->q_rank});
        run_meet(l->r);
        run_ready(l, s->latent, rows->tokens, &l->w->q);
        q.x = s->latent;
    }
    run_gemm(l, q);
}

/* Rotates the queries' second parts, takes the first ones into latent space, and puts both side by
 * side as the keys are. Meets before and after. */
static void absorb_queries(const struct layer_run *l, const struct op_rows *rows)
{
    const struct model_config *c = &l->r->m->config;
    const struct latent_config *a = &c->latent;
    const struct scratch *s = &l->r->m->scratch;
    const size_t width = (size_t)row_width(l), key = (size_t)key_dim(l);
    const size_t nope = (size_t)a->nope_dim, rope = (size_t)a->rope_dim;
    const size_t rank = (size_t)a->kv_rank, heads = (size_t)c->heads;
    size_t begin, end;
    run_meet(l->r);
    run_rope(l,
             (struct op_rope){.x = s->qkv + nope,
                              .heads = c->heads,
                              .head_stride = c->head_dim,
                              .x_stride = (int32_t)width},
             rows);
    for (size_t h = 0; h < heads; h++)
        run_small_gemm(l, (struct op_gemm){.out = s->latent + h * key,
                                           .x = s->qkv + h * (nope + rope),
                                           .w = &l->w->absorb_k[h],
                                           .tokens = rows->tokens,
                                           .x_stride = (int32_t)width,
                                           .out_stride = (int32_t)(heads * key)});
    run_meet(l->r);
    team_split((size_t)rows->tokens * heads, 1, l->me.part, l->me.parts, &begin, &end);
    for (size_t i = begin; i < end; i++)
        memcpy(s->latent + i * key + rank,
               s->qkv + i / heads * width + i % heads * (nope + rope) + nope, rope * sizeof(float));
    run_meet(l->r);
}

/* The key of each row, with its norm and rotation. Meets first. */
static void finish_keys(const struct layer_run *l, float *key)
{
    const struct latent_config *a = &l->r->m->config.latent;
    run_meet(l->r);
    run_norm(l, (struct op_rmsnorm){.out = key,
                                    .x = key,
                                    .weight = &l->w->kv_a_norm,
                                    .eps = LATENT_NORM_EPS,
                                    .tokens = l->r->all.tokens,
                                    .dim = a->kv_rank,
                                    .x_stride = row_width(l),
                                    .out_stride = row_width(l)});
    run_rope(l, (struct op_rope){.x = key + a->kv_rank, .heads = 1, .x_stride = row_width(l)},
             &l->r->all);
}

/* Each head's latents to its values, and those to the block's output. */
static void project_out(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    const struct latent_config *a = &c->latent;
    const struct scratch *s = &l->r->m->scratch;
    for (int32_t h = 0; h < c->heads; h++)
        run_small_gemm(l, (struct op_gemm){.out = s->qkv + (size_t)h * (size_t)a->value_dim,
                                           .x = s->attn + (size_t)h * (size_t)a->kv_rank,
                                           .w = &l->w->absorb_v[h],
                                           .tokens = l->rows->tokens,
                                           .x_stride = c->heads * a->kv_rank,
                                           .out_stride = c->heads * a->value_dim});
    run_meet(l->r);
    struct op_gemm o = run_block_out(l);
    run_ready(l, s->qkv, o.tokens, &l->w->o);
    o.x = s->qkv, o.w = &l->w->o, o.bias = l->w->o_bias;
    run_gemm(l, o);
    run_meet(l->r);
}

void mixer_latent(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    const struct scratch *s = &l->r->m->scratch;
    float *key = s->qkv + (size_t)c->heads * (size_t)c->head_dim;
    run_in_ready(l, l->r->all.tokens, &l->w->kv_a);
    run_gemm(l, (struct op_gemm){.out = key,
                                 .x = l->in,
                                 .w = &l->w->kv_a,
                                 .bias = l->w->kv_a_bias,
                                 .tokens = l->r->all.tokens,
                                 .out_stride = row_width(l)});
    if (!l->narrow)
        project_queries(l, l->in, l->rows);
    finish_keys(l, key);
    run_meet(l->r);
    run_store(l, key, NULL, row_width(l));
    run_stored(l);
    if (l->rows->tokens == 0)
        return;
    if (l->narrow) {
        run_ready(l, l->in_sel, l->rows->tokens, c->latent.q_rank > 0 ? &l->w->q_a : &l->w->q);
        project_queries(l, l->in_sel, l->rows);
    }
    absorb_queries(l, l->rows);
    run_attend(l,
               (struct op_attention){.out = s->attn, .q = s->latent, .out_dim = c->latent.kv_rank});
    run_meet(l->r);
    project_out(l);
}
