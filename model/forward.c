/* One forward of a ragged batch, SPMD: every member of the team walks the same list of ops, each
 * doing its share, and meets the others at a barrier wherever an op reads what another wrote. This
 * file is the spine, the same for every architecture; what differs inside a block is in mixer_*.c
 * and mlp.c.
 *
 * The last layer stores the keys and values of all rows, then goes on with the rows that want
 * logits only; since a row's result depends on that row alone, that changes no bit.
 */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/gemm_pieces.h"
#include "model/model_impl.h"

#define NORM_ROWS 8 /* that are made ready while they are near */

/* ---- what the blocks are made of ---- */

/* Rows of x8, their columns in the order of the weights that read them. */
static void quantize(const struct layer_run *l, struct op_quantize a)
{
    a.out = scratch_x8(&l->r->m->scratch, a.dim);
    l->r->m->ops->quantize(&a, l->me.part, l->me.parts);
}

/* The rows that this gemm reads, in its weights' order where they are in another. */
static void put_in_order(const struct layer_run *l, const struct op_gemm *a)
{
    struct scratch *s = &l->r->m->scratch;
    const int32_t *order = a->w->packed->order;
    if (s->ready_order == order)
        return;
    run_meet(l->r);
    if (l->me.part == 0)
        s->ready_order = order;
    quantize(
        l, (struct op_quantize){.x = a->x, .tokens = a->tokens, .dim = a->w->cols, .order = order});
    run_meet(l->r);
}

static void gemm(const struct layer_run *l, struct op_gemm a, bool in_pieces)
{
    const struct scratch *s = &l->r->m->scratch;
    const struct rows8 x8 = scratch_x8(s, a.w->cols);
    if (matrix_reads_bytes(a.w) || a.w->rounds) {
        assert(s->ready_dim == a.w->cols && (a.x_stride == 0 || a.x_stride == a.w->cols));
        assert(a.x == s->ready);
    }
    if (matrix_reads_bytes(a.w)) {
        put_in_order(l, &a);
        a.x8 = &x8;
    }
    if (a.w->rounds)
        a.x16 = s->ready16;
    if (in_pieces && gemm_has_pieces(a.w, l->me.parts))
        gemm_run_pieces(l->r->m->ops, &a, l->r->m->work, l->me.part, l->me.parts);
    else
        l->r->m->ops->gemm(&a, l->me.part, l->me.parts);
}

bool run_gates(const struct layer_run *l, const struct op_gemm *a, const struct matrix *up)
{
    return (l->me.parts == 1 || gemm_has_pieces(a->w, l->me.parts)) &&
           ops_gates(l->r->m->ops, a, up);
}

void run_gemm(const struct layer_run *l, struct op_gemm a)
{
    gemm(l, a, true);
}

void run_small_gemm(const struct layer_run *l, struct op_gemm a)
{
    gemm(l, a, false);
}

void run_is_ready(const struct layer_run *l, const float *x, const struct matrix *w,
                  const uint16_t *x16)
{
    struct scratch *s = &l->r->m->scratch;
    if (l->me.part == 0) {
        s->ready = x;
        s->ready_dim = w->cols;
        s->ready_order = w->packed ? w->packed->order : NULL;
        s->ready16 = x16;
    }
}

void run_ready(const struct layer_run *l, const float *x, int32_t tokens, const struct matrix *w)
{
    struct model *m = l->r->m;
    const int32_t *order = w->packed ? w->packed->order : NULL;
    if (!m->weights.reads_bytes && !m->weights.rounds)
        return;
    run_is_ready(l, x, w, m->scratch.x16);
    if (m->weights.reads_bytes)
        quantize(l, (struct op_quantize){.x = x, .tokens = tokens, .dim = w->cols, .order = order});
    if (m->weights.rounds)
        m->ops->round(
            &(struct op_round){.out = m->scratch.x16, .x = x, .tokens = tokens, .dim = w->cols},
            l->me.part, l->me.parts);
    run_meet(l->r);
}

void run_in_ready(const struct layer_run *l, int32_t tokens, const struct matrix *w)
{
    if (!l->in_is_ready)
        run_ready(l, l->in, tokens, w);
}

static struct op_rmsnorm norm_of(const struct model_config *c, struct op_rmsnorm a)
{
    a.offset = c->norm_offset;
    a.eps = a.eps > 0 ? a.eps : c->norm_eps;
    return a;
}

void run_norm(const struct layer_run *l, struct op_rmsnorm a)
{
    a = norm_of(&l->r->m->config, a);
    l->r->m->ops->rmsnorm(&a, l->me.part, l->me.parts);
}

/* Rows [first, first + n) of x, as run_ready() leaves them for w, by this member alone. */
static void ready_rows(const struct layer_run *l, const float *x, const struct matrix *w,
                       size_t first, int32_t n)
{
    const struct model *m = l->r->m;
    const struct scratch *s = &m->scratch;
    const int32_t dim = w->cols;
    const struct rows8 all = scratch_x8(s, dim);
    x += first * (size_t)dim;
    if (m->weights.reads_bytes)
        m->ops->quantize(&(struct op_quantize){.out = rows8_from(&all, first),
                                               .x = x,
                                               .tokens = n,
                                               .dim = dim,
                                               .order = w->packed ? w->packed->order : NULL},
                         0, 1);
    if (m->weights.rounds)
        m->ops->round(
            &(struct op_round){
                .out = s->x16 + first * rows16_stride(dim), .x = x, .tokens = n, .dim = dim},
            0, 1);
}

/* run_norm(), and run_ready() where w is what reads it first and wants that: then in one pass, for
 * who normed a row rounds it while it is near, and nobody waits between. Meets; true: it is ready.
 */
static bool norm_for(const struct layer_run *l, struct op_rmsnorm a, const struct matrix *w)
{
    const struct model *m = l->r->m;
    const size_t dim = (size_t)a.dim;
    size_t at, end, n;
    if (!w || (!m->weights.reads_bytes && !m->weights.rounds)) {
        run_norm(l, a);
        run_meet(l->r);
        return false;
    }
    a = norm_of(&m->config, a);
    run_is_ready(l, a.out, w, m->scratch.x16);
    team_split((size_t)a.tokens, 1, l->me.part, l->me.parts, &at, &end);
    for (; at < end; at += n) {
        struct op_rmsnorm some = a;
        n = end - at < NORM_ROWS ? end - at : NORM_ROWS;
        some.x += at * dim;
        some.out += at * dim;
        some.tokens = (int32_t)n;
        m->ops->rmsnorm(&some, 0, 1);
        ready_rows(l, a.out, w, at, some.tokens);
    }
    run_meet(l->r);
    return true;
}

void run_rope(const struct layer_run *l, struct op_rope a, const struct op_rows *rows)
{
    const struct model *m = l->r->m;
    if (l->config->rope < 0)
        return;
    const struct rope_config *r = &m->config.ropes[l->config->rope];
    a.positions = rows->positions;
    a.seq_of = rows->seq_of;
    a.tokens = rows->tokens;
    a.is_long = r->kind == ROPE_LONGROPE ? l->r->batch->is_long : NULL;
    a.inv_freq = m->inv_freq[l->config->rope][0];
    a.long_inv_freq = m->inv_freq[l->config->rope][1];
    a.attention_factor = (float)r->attention_factor;
    a.head_dim = r->dim;
    a.interleaved = m->config.rope_interleaved;
    if (r->kind == ROPE_DYNAMIC) {
        a.dynamic_from = r->original_context;
        a.dynamic_theta = r->theta;
        a.dynamic_factor = r->factor;
    }
    m->ops->rope(&a, l->me.part, l->me.parts);
}

/* Rows with the tables of the layer's group of pages. */
static struct op_rows rows_of_layer(const struct layer_run *l, const struct op_rows *rows)
{
    struct op_rows own = *rows;
    int32_t group = kv_group_of(&l->r->kv->layout, l->config->slot);
    own.block_tables += (size_t)group * (size_t)l->r->batch->sequences;
    return own;
}

void run_store(const struct layer_run *l, const float *k, const float *v, int32_t stride)
{
    const struct op_rows rows = rows_of_layer(l, &l->r->all);
    struct op_kv_store a = {.pool = l->r->kv->pool,
                            .layout = &l->r->kv->layout,
                            .layer = l->config->slot,
                            .k = k,
                            .v = v,
                            .kv_stride = stride,
                            .rows = &rows};
    l->r->m->ops->kv_store(&a, l->me.part, l->me.parts);
}

/* Rows of x and of the block's input that go on, packed. */
static void pack_selected(const struct run *r, struct member me, const float *h)
{
    const struct scratch *s = &r->m->scratch;
    const size_t hidden = (size_t)r->m->config.hidden;
    size_t begin, end;
    team_split((size_t)r->batch->n_logits, 1, me.part, me.parts, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t row = (size_t)r->batch->logits_rows[i];
        memcpy(s->x_sel + i * hidden, s->x + row * hidden, hidden * sizeof(float));
        if (h)
            memcpy(s->h_sel + i * hidden, h + row * hidden, hidden * sizeof(float));
    }
}

void run_stored(const struct layer_run *l)
{
    const struct run *r = l->r;
    if (l->narrow)
        pack_selected(r, l->me, r->m->config.pre_norm ? r->m->scratch.h : NULL);
    run_meet(r);
    if (l->me.part == 0 && r->done && l->config->kv_from == l->layer)
        r->done(r->ctx, l->config->slot);
}

void run_attend(const struct layer_run *l, struct op_attention a)
{
    const struct model_config *c = &l->r->m->config;
    const struct op_rows rows = rows_of_layer(l, l->rows);
    a.pool = l->r->kv->pool;
    a.layout = &l->r->kv->layout;
    a.layer = l->config->slot;
    a.heads = c->heads;
    a.window = l->config->window;
    a.scale = c->attention_scale;
    a.softcap = c->attention_softcap;
    a.rounds = model_get_math(l->r->m) != MODEL_MATH_FLOAT;
    a.scratch = l->r->m->scratch.split;
    a.scratch_bytes = l->r->m->scratch.split_bytes;
    a.rows = &rows;
    l->r->m->ops->attention(&a, l->me.part, l->me.parts);
}

struct op_gemm run_block_out(const struct layer_run *l)
{
    const struct model *m = l->r->m;
    if (m->config.post_norm)
        return (struct op_gemm){.out = m->scratch.block, .tokens = l->rows->tokens};
    return (struct op_gemm){
        .out = l->x, .scale = m->config.residual_scale, .tokens = l->rows->tokens, .accumulate = 1};
}

/* ---- the spine ---- */

/* Adds a block's output to the residual stream, where the block did not. */
static void add_block(const struct layer_run *l, const struct matrix *weight)
{
    const struct model *m = l->r->m;
    if (!m->config.post_norm)
        return;
    run_norm(l, (struct op_rmsnorm){.out = l->x,
                                    .x = m->scratch.block,
                                    .weight = weight,
                                    .scale = m->config.residual_scale,
                                    .tokens = l->rows->tokens,
                                    .dim = m->config.hidden,
                                    .accumulate = 1});
    run_meet(l->r);
}

/* Rows of x, normalised where the architecture does that before a block, for a block that begins
 * with products with `first`, or with something else (NULL). */
static const float *block_in(struct layer_run *l, struct op_rmsnorm a, const struct matrix *first)
{
    const struct model_config *c = &l->r->m->config;
    l->in_is_ready = false;
    if (!c->pre_norm)
        return a.x;
    a.eps = c->block_norm_eps;
    a.dim = c->hidden;
    l->in_is_ready = norm_for(l, a, first);
    return a.out;
}

/* What reads the attention block's input first, as floats or otherwise. */
static const struct matrix *attention_reads(const struct layer_run *l)
{
    const struct model_config *c = &l->r->m->config;
    if (c->attention == ATTENTION_LATENT)
        return &l->w->kv_a;
    if (c->attention == ATTENTION_MOA)
        return NULL;
    return l->config->kv_from == l->layer ? &l->w->k : &l->w->q;
}

static bool run_layer(const struct run *r, struct member me, int layer)
{
    const struct model *m = r->m;
    const struct scratch *s = &m->scratch;
    const struct model_config *c = &m->config;
    const bool narrow = r->narrow && layer == c->layers - 1;
    struct layer_run l = {.r = r,
                          .me = me,
                          .layer = layer,
                          .config = &c->layer[layer],
                          .w = &m->weights.layers[layer],
                          .narrow = narrow,
                          .rows = narrow ? &r->selected : &r->all,
                          .x = narrow ? s->x_sel : s->x,
                          .h = narrow ? s->h_sel : s->h};
    const struct op_rmsnorm all = {
        .out = s->h, .x = s->x, .weight = &l.w->attn_norm, .tokens = r->all.tokens};
    l.in = block_in(&l, all, attention_reads(&l));
    l.in_sel = !narrow ? l.in : c->pre_norm ? s->h_sel : s->x_sel;
    if (c->attention == ATTENTION_LATENT)
        mixer_latent(&l);
    else if (c->attention == ATTENTION_MOA)
        mixer_moa(&l);
    else
        mixer_gqa(&l);
    if (l.rows->tokens == 0)
        return false;
    add_block(&l, &l.w->attn_post_norm);
    const bool mixture = l.config->mlp == MLP_MOE;
    const struct op_rmsnorm on = {
        .out = l.h, .x = l.x, .weight = &l.w->mlp_norm, .tokens = l.rows->tokens};
    l.in = block_in(&l, on, mixture ? NULL : &l.w->mlp.gate);
    if (mixture)
        mlp_moe(&l);
    else
        mlp_dense(&l);
    add_block(&l, &l.w->mlp_post_norm);
    return true;
}

static void run_head(const struct run *r, struct member me)
{
    const struct model *m = r->m;
    const struct scratch *s = &m->scratch;
    const int32_t n = r->batch->n_logits;
    const struct layer_run l = {.r = r, .me = me};
    if (n == 0)
        return;
    if (!r->narrow) {
        pack_selected(r, me, NULL);
        run_meet(r);
    }
    norm_for(&l,
             (struct op_rmsnorm){.out = s->h_sel,
                                 .x = s->x_sel,
                                 .weight = &m->weights.norm,
                                 .tokens = n,
                                 .dim = m->config.hidden},
             &m->weights.head);
    run_gemm(&l, (struct op_gemm){.out = r->logits,
                                  .x = s->h_sel,
                                  .w = &m->weights.head,
                                  .scale = m->config.logits_scale,
                                  .tokens = n});
    if (m->config.final_softcap == 0)
        return;
    run_meet(r);
    struct op_softcap cap = {
        .x = r->logits, .cap = m->config.final_softcap, .n = (int64_t)n * m->config.vocab};
    m->ops->softcap(&cap, me.part, me.parts);
}

static void forward_body(void *arg, int part, int parts)
{
    const struct run *r = arg;
    const struct member me = {part, parts};
    const struct model *m = r->m;
    struct op_embed embed = {.out = m->scratch.x,
                             .table = &m->weights.embed,
                             .ids = r->batch->ids,
                             .scale = m->config.embed_scale,
                             .tokens = r->batch->tokens};
    if (m->profile)
        profile_enter(m->profile, part);
    m->ops->embed(&embed, part, parts);
    run_meet(r);
    for (int layer = 0; layer < m->config.layers; layer++)
        if (!run_layer(r, me, layer))
            break;
    run_head(r, me);
    if (m->profile)
        run_meet(r); /* so that who is done first is seen waiting */
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
    const struct kv_layout *l = &kv->layout;
    const struct model_config *c = &m->config;
    assert(b->tokens > 0 && b->tokens <= m->max_tokens);
    assert(b->n_logits >= 0 && b->n_logits <= m->max_logits && b->n_logits <= b->tokens);
    assert(l->layers == c->kv_layers && l->kv_heads == c->kv_heads &&
           l->head_dim == model_key_dim(c) && l->value_dim == model_value_dim(c));
    for (int32_t i = 0; i < b->tokens; i++)
        assert(b->ids[i] >= 0 && b->ids[i] < c->vocab && b->positions[i] >= 0);
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
    const int64_t begin = m->profile ? clock_now_ns() : 0;
    team_run(m->team, forward_body, &r);
    if (m->profile)
        profile_ran(m->profile, clock_now_ns() - begin);
}
