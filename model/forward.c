/* One forward of a ragged batch, SPMD: every member of the team walks the same list of ops, each
 * doing its share, and meets the others at a barrier wherever an op reads what another wrote.
 *
 * The last layer stores the keys and values of all rows, then goes on with the rows that want
 * logits only; since a row's result depends on that row alone, that changes no bit.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/model_impl.h"

struct run {
    struct model *m;
    const struct batch *batch;
    const struct model_kv *kv;
    float *logits;
    model_layer_done_fn *done;
    void *ctx;
    struct op_rows all, selected; /* rows of the batch; those that go through the last layer */
    bool narrow;                  /* selected are logits_rows, packed; else they are all */
};

/* This member's place in the team. */
struct member {
    int part, parts;
};

static void meet(const struct run *r)
{
    team_barrier(r->m->team);
}

static void run_gemm(const struct run *r, struct member me, struct op_gemm a)
{
    r->m->ops->gemm(&a, me.part, me.parts);
}

static void run_norm(const struct run *r, struct member me, const struct matrix *weight,
                     const float *x, float *out, int32_t tokens)
{
    struct op_rmsnorm a = {.out = out,
                           .x = x,
                           .weight = weight,
                           .eps = r->m->config.norm_eps,
                           .tokens = tokens,
                           .dim = r->m->config.hidden};
    r->m->ops->rmsnorm(&a, me.part, me.parts);
}

/* Rotates `heads` adjacent heads that begin at x in the rows of qkv. */
static void run_rope(const struct run *r, struct member me, float *x, int32_t heads,
                     const struct op_rows *rows)
{
    const struct model_config *c = &r->m->config;
    struct op_rope a = {.x = x,
                        .positions = rows->positions,
                        .inv_freq = r->m->inv_freq,
                        .attention_factor = r->m->attention_factor,
                        .tokens = rows->tokens,
                        .heads = heads,
                        .head_dim = c->head_dim,
                        .x_stride = (c->heads + 2 * c->kv_heads) * c->head_dim};
    r->m->ops->rope(&a, me.part, me.parts);
}

/* Rows of x and h that go on, packed. */
static void pack_selected(const struct run *r, struct member me)
{
    const struct scratch *s = &r->m->scratch;
    const size_t hidden = (size_t)r->m->config.hidden;
    size_t begin, end;
    team_split((size_t)r->batch->n_logits, 1, me.part, me.parts, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t row = (size_t)r->batch->logits_rows[i];
        memcpy(s->x_sel + i * hidden, s->x + row * hidden, hidden * sizeof(float));
        if (r->narrow)
            memcpy(s->h_sel + i * hidden, s->h + row * hidden, hidden * sizeof(float));
    }
}

static void store_kv(const struct run *r, struct member me, int layer)
{
    const struct model_config *c = &r->m->config;
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    struct op_kv_store a = {.pool = r->kv->pool,
                            .layout = &r->kv->layout,
                            .layer = layer,
                            .k = r->m->scratch.qkv + q,
                            .v = r->m->scratch.qkv + q + kv,
                            .kv_stride = q + 2 * kv,
                            .rows = &r->all};
    r->m->ops->kv_store(&a, me.part, me.parts);
}

/* Projects, rotates and stores keys and values of all rows, and queries of the rows that go on. */
static void run_qkv(const struct run *r, struct member me, int layer, bool narrow)
{
    const struct model_config *c = &r->m->config;
    const struct scratch *s = &r->m->scratch;
    const struct layer_weights *w = &r->m->weights.layers[layer];
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    struct op_gemm a = {.x = s->h, .tokens = r->all.tokens, .out_stride = q + 2 * kv};

    a.out = s->qkv + q, a.w = &w->k, a.bias = w->k_bias;
    run_gemm(r, me, a);
    a.out = s->qkv + q + kv, a.w = &w->v, a.bias = w->v_bias;
    run_gemm(r, me, a);
    a.out = s->qkv, a.w = &w->q, a.bias = w->q_bias;
    if (!narrow)
        run_gemm(r, me, a);
    meet(r);
    if (!narrow)
        run_rope(r, me, s->qkv, c->heads + c->kv_heads, &r->all);
    else
        run_rope(r, me, s->qkv + q, c->kv_heads, &r->all);
    meet(r);
    store_kv(r, me, layer);
    if (narrow)
        pack_selected(r, me);
    meet(r);
    if (me.part == 0 && r->done)
        r->done(r->ctx, layer);
    if (!narrow || r->selected.tokens == 0)
        return;
    a.x = s->h_sel, a.tokens = r->selected.tokens;
    run_gemm(r, me, a);
    meet(r);
    run_rope(r, me, s->qkv, c->heads, &r->selected);
    meet(r);
}

/* Attention and its projection, added to the residual stream x. */
static void run_attention(const struct run *r, struct member me, int layer, float *x,
                          const struct op_rows *rows)
{
    const struct model_config *c = &r->m->config;
    const struct scratch *s = &r->m->scratch;
    const struct layer_weights *w = &r->m->weights.layers[layer];
    struct op_attention a = {.out = s->attn,
                             .q = s->qkv,
                             .q_stride = (c->heads + 2 * c->kv_heads) * c->head_dim,
                             .pool = r->kv->pool,
                             .layout = &r->kv->layout,
                             .layer = layer,
                             .heads = c->heads,
                             .scale = 1.0f / sqrtf((float)c->head_dim),
                             .rows = rows};
    r->m->ops->attention(&a, me.part, me.parts);
    meet(r);
    run_gemm(r, me,
             (struct op_gemm){.out = x,
                              .x = s->attn,
                              .w = &w->o,
                              .bias = w->o_bias,
                              .tokens = rows->tokens,
                              .accumulate = 1});
    meet(r);
}

static void run_mlp(const struct run *r, struct member me, int layer, float *x, float *h,
                    int32_t tokens)
{
    const struct model_config *c = &r->m->config;
    const struct scratch *s = &r->m->scratch;
    const struct layer_weights *w = &r->m->weights.layers[layer];
    run_norm(r, me, &w->mlp_norm, x, h, tokens);
    meet(r);
    run_gemm(r, me,
             (struct op_gemm){
                 .out = s->gate, .x = h, .w = &w->gate, .bias = w->gate_bias, .tokens = tokens});
    run_gemm(
        r, me,
        (struct op_gemm){.out = s->up, .x = h, .w = &w->up, .bias = w->up_bias, .tokens = tokens});
    meet(r);
    struct op_silu_mul a = {.out = s->gate,
                            .gate = s->gate,
                            .up = s->up,
                            .tokens = tokens,
                            .dim = c->ffn,
                            .in_stride = c->ffn};
    r->m->ops->silu_mul(&a, me.part, me.parts);
    meet(r);
    run_gemm(r, me,
             (struct op_gemm){.out = x,
                              .x = s->gate,
                              .w = &w->down,
                              .bias = w->down_bias,
                              .tokens = tokens,
                              .accumulate = 1});
    meet(r);
}

static void run_head(const struct run *r, struct member me)
{
    const struct model *m = r->m;
    const struct scratch *s = &m->scratch;
    const int32_t n = r->batch->n_logits;
    if (n == 0)
        return;
    if (!r->narrow) {
        pack_selected(r, me);
        meet(r);
    }
    run_norm(r, me, &m->weights.norm, s->x_sel, s->h_sel, n);
    meet(r);
    run_gemm(r, me,
             (struct op_gemm){.out = r->logits, .x = s->h_sel, .w = &m->weights.head, .tokens = n});
}

static void forward_body(void *arg, int part, int parts)
{
    const struct run *r = arg;
    const struct member me = {part, parts};
    const struct model *m = r->m;
    const struct scratch *s = &m->scratch;
    struct op_embed embed = {
        .out = s->x, .table = &m->weights.embed, .ids = r->batch->ids, .tokens = r->batch->tokens};
    m->ops->embed(&embed, part, parts);
    meet(r);
    for (int layer = 0; layer < m->config.layers; layer++) {
        const bool narrow = r->narrow && layer == m->config.layers - 1;
        const struct op_rows *rows = narrow ? &r->selected : &r->all;
        float *x = narrow ? s->x_sel : s->x, *h = narrow ? s->h_sel : s->h;
        run_norm(r, me, &m->weights.layers[layer].attn_norm, s->x, s->h, r->all.tokens);
        meet(r);
        run_qkv(r, me, layer, narrow);
        if (rows->tokens == 0)
            break;
        run_attention(r, me, layer, x, rows);
        run_mlp(r, me, layer, x, h, rows->tokens);
    }
    run_head(r, me);
}

/* The attention op wants rows of one sequence to ascend by one: a selection with gaps inside a
 * sequence is not packed. */
static bool select_rows(struct run *r)
{
    const struct batch *b = r->batch;
    struct scratch *s = &r->m->scratch;
    if (b->n_logits == b->tokens)
        return false;
    for (int32_t i = 0; i < b->n_logits; i++) {
        const int32_t row = b->logits_rows[i];
        s->sel_positions[i] = b->positions[row];
        s->sel_seq_of[i] = b->seq_of[row];
        if (i > 0 && s->sel_seq_of[i] == s->sel_seq_of[i - 1] &&
            s->sel_positions[i] != s->sel_positions[i - 1] + 1)
            return false;
    }
    r->selected = (struct op_rows){.positions = s->sel_positions,
                                   .seq_of = s->sel_seq_of,
                                   .block_tables = b->block_tables,
                                   .tokens = b->n_logits};
    return true;
}

static void check_batch(const struct model *m, const struct batch *b, const struct model_kv *kv)
{
    assert(b->tokens > 0 && b->tokens <= m->max_tokens);
    assert(b->n_logits >= 0 && b->n_logits <= m->max_logits && b->n_logits <= b->tokens);
    assert(kv->layout.layers == m->config.layers && kv->layout.kv_heads == m->config.kv_heads &&
           kv->layout.head_dim == m->config.head_dim);
    for (int32_t i = 0; i < b->tokens; i++)
        assert(b->ids[i] >= 0 && b->ids[i] < m->config.vocab && b->positions[i] >= 0);
    for (int32_t i = 0; i < b->n_logits; i++)
        assert(b->logits_rows[i] < b->tokens &&
               b->logits_rows[i] > (i ? b->logits_rows[i - 1] : -1));
}

void model_forward(struct model *m, const struct batch *b, const struct model_kv *kv, float *logits,
                   model_layer_done_fn *done, void *ctx)
{
    check_batch(m, b, kv);
    struct run r = {.m = m,
                    .batch = b,
                    .kv = kv,
                    .logits = logits,
                    .done = done,
                    .ctx = ctx,
                    .all = {.positions = b->positions,
                            .seq_of = b->seq_of,
                            .block_tables = b->block_tables,
                            .tokens = b->tokens}};
    r.narrow = select_rows(&r);
    team_run(m->team, forward_body, &r);
}
