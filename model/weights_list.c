/* The list of weights of a feature table. */
#include "model/weights_list.h"

#include <stdio.h>
#include <stdlib.h>

struct lister {
    const struct model_config *c;
    struct model_weights *w;   /* or NULL */
    struct layer_weights none; /* stands for a layer in a plan */
    struct layer_weights *at;
    weight_visit_fn *visit;
    void *ctx;
    int32_t layer;
    bool in_expert;
    enum status status;
};

static bool has(const struct lister *l, enum weight_role role)
{
    return weights_name(l->c->naming, role) != NULL;
}

/* Sizes and place are filled in; names it and calls the visitor. */
static void emit(struct lister *l, enum weight_role role, struct weight_spec s)
{
    const char *pattern = weights_name(l->c->naming, role);
    if (l->status)
        return;
    if (!pattern) {
        l->status = ST_INTERNAL; /* a row of the table without names for what it calls for */
        return;
    }
    s.step = s.step ? s.step : 1;
    s.is_expert = l->in_expert;
    if (!s.take_rows) {
        s.take_rows = s.rows;
        s.take_cols = s.cols;
    }
    if (!l->w) {
        s.matrix = NULL;
        s.floats = NULL;
    }
    snprintf(s.name, sizeof s.name, pattern, l->layer, s.expert);
    l->status = l->visit(l->ctx, &s);
}

static void matrix(struct lister *l, enum weight_role role, int32_t rows, int32_t cols,
                   struct matrix *to)
{
    emit(l, role,
         (struct weight_spec){.rows = rows, .cols = cols, .matrix = to, .is_active = true});
}

/* What decides about experts is never less precise than the file has it. */
static void gate(struct lister *l, enum weight_role role, int32_t rows, struct matrix *to)
{
    emit(l, role,
         (struct weight_spec){.rows = rows,
                              .cols = l->c->hidden,
                              .matrix = to,
                              .is_active = true,
                              .as_floats = true});
}

static void norm(struct lister *l, enum weight_role role, int32_t n, struct matrix *to)
{
    emit(l, role,
         (struct weight_spec){.rows = n, .matrix = to, .is_norm = true, .is_active = true});
}

static void floats(struct lister *l, enum weight_role role, int32_t n, const float **to)
{
    emit(l, role, (struct weight_spec){.rows = n, .floats = to, .is_active = true});
}

/* Rows [first, first + take) of a tensor of `rows`. */
static void part(struct lister *l, enum weight_role role, struct weight_spec s)
{
    s.take_cols = s.cols;
    s.is_active = true;
    emit(l, role, s);
}

static void list_gqa(struct lister *l, bool stores)
{
    const struct model_config *c = l->c;
    struct layer_weights *w = l->at;
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, in = c->hidden;
    const int32_t all = q + 2 * kv;
    if (has(l, W_QKV)) {
        part(l, W_QKV,
             (struct weight_spec){.rows = all, .cols = in, .take_rows = q, .matrix = &w->q});
        part(l, W_QKV,
             (struct weight_spec){
                 .rows = all, .cols = in, .first = q, .take_rows = kv, .matrix = &w->k});
        part(l, W_QKV,
             (struct weight_spec){
                 .rows = all, .cols = in, .first = q + kv, .take_rows = kv, .matrix = &w->v});
    } else {
        matrix(l, W_Q, q, in, &w->q);
        if (stores) {
            matrix(l, W_K, kv, in, &w->k);
            matrix(l, W_V, kv, in, &w->v);
        }
    }
    if (c->qkv_bias) {
        floats(l, W_Q_BIAS, q, &w->q_bias);
        if (stores) {
            floats(l, W_K_BIAS, kv, &w->k_bias);
            floats(l, W_V_BIAS, kv, &w->v_bias);
        }
    }
    if (c->qk_norm != QK_NORM_NONE) {
        bool full = c->qk_norm == QK_NORM_FULL;
        norm(l, W_Q_NORM, full ? q : c->head_dim, &w->q_norm);
        if (stores)
            norm(l, W_K_NORM, full ? kv : c->head_dim, &w->k_norm);
    }
    if (c->sinks)
        floats(l, W_SINKS, c->heads, &w->sinks);
    matrix(l, W_O, in, q, &w->o);
    if (c->o_bias)
        floats(l, W_O_BIAS, in, &w->o_bias);
}

/* Keys' and values' up-projections, head by head: each in a tensor of its own. */
static void list_split_heads(struct lister *l)
{
    const struct latent_config *a = &l->c->latent;
    for (int32_t h = 0; h < l->c->heads; h++) {
        struct weight_spec s = {
            .experts = l->c->heads, .expert = h, .is_active = true, .as_floats = true};
        s.rows = a->kv_rank, s.cols = a->nope_dim;
        s.matrix = l->w ? &l->at->absorb_k[h] : NULL;
        emit(l, W_K_B, s);
        s.rows = a->value_dim, s.cols = a->kv_rank;
        s.matrix = l->w ? &l->at->absorb_v[h] : NULL;
        emit(l, W_V_B, s);
    }
}

/* The same in one tensor, each head's key and value in turns. */
static void list_joined_heads(struct lister *l)
{
    const struct latent_config *a = &l->c->latent;
    const int32_t both = a->nope_dim + a->value_dim;
    for (int32_t h = 0; h < l->c->heads; h++) {
        struct weight_spec k = {.rows = l->c->heads * both,
                                .cols = a->kv_rank,
                                .skip = h * both,
                                .flip = true,
                                .take_rows = a->kv_rank,
                                .take_cols = a->nope_dim,
                                .is_active = true,
                                .as_floats = true,
                                .matrix = l->w ? &l->at->absorb_k[h] : NULL};
        struct weight_spec v = {.rows = l->c->heads * both,
                                .cols = a->kv_rank,
                                .first = h * both + a->nope_dim,
                                .take_rows = a->value_dim,
                                .take_cols = a->kv_rank,
                                .is_active = true,
                                .as_floats = true,
                                .matrix = l->w ? &l->at->absorb_v[h] : NULL};
        emit(l, W_KV_B, k);
        emit(l, W_KV_B, v);
    }
}

static void list_latent(struct lister *l)
{
    const struct model_config *c = l->c;
    const struct latent_config *a = &c->latent;
    struct layer_weights *w = l->at;
    const int32_t q = c->heads * c->head_dim, kv = a->kv_rank + a->rope_dim;
    if (a->q_rank > 0) {
        matrix(l, W_Q_A, a->q_rank, c->hidden, &w->q_a);
        norm(l, W_Q_A_NORM, a->q_rank, &w->q_a_norm);
        matrix(l, W_Q_B, q, a->q_rank, &w->q);
        if (c->qkv_bias)
            floats(l, W_Q_A_BIAS, a->q_rank, &w->q_a_bias);
    } else {
        matrix(l, W_Q, q, c->hidden, &w->q);
    }
    matrix(l, W_KV_A, kv, c->hidden, &w->kv_a);
    norm(l, W_KV_A_NORM, a->kv_rank, &w->kv_a_norm);
    if (c->qkv_bias)
        floats(l, W_KV_A_BIAS, kv, &w->kv_a_bias);
    if (c->latent_split)
        list_split_heads(l);
    else
        list_joined_heads(l);
    matrix(l, W_O, c->hidden, c->heads * a->value_dim, &w->o);
    if (c->o_bias)
        floats(l, W_O_BIAS, c->hidden, &w->o_bias);
}

static void list_moa(struct lister *l)
{
    const struct model_config *c = l->c;
    struct layer_weights *w = l->at;
    const int32_t kv = c->kv_heads * c->head_dim, in = c->hidden, n = c->moe.experts;
    part(l, W_KV,
         (struct weight_spec){.rows = 2 * kv, .cols = in, .take_rows = kv, .matrix = &w->k});
    part(l, W_KV,
         (struct weight_spec){
             .rows = 2 * kv, .cols = in, .first = kv, .take_rows = kv, .matrix = &w->v});
    gate(l, W_MOA_ROUTER, n, &w->moa_router);
    l->in_expert = true;
    for (int32_t e = 0; e < n; e++) {
        struct weight_spec s = {.rows = kv, .cols = in, .experts = n, .expert = e};
        s.matrix = l->w ? &w->moa_in[e] : NULL;
        emit(l, W_MOA_IN, s);
        s.rows = in, s.cols = kv;
        s.matrix = l->w ? &w->moa_out[e] : NULL;
        emit(l, W_MOA_OUT, s);
    }
    l->in_expert = false;
    floats(l, W_O_BIAS, in, &w->o_bias);
}

/* gate, up and down of one unit whose gate and up may be one tensor. */
struct unit_roles {
    enum weight_role gate, up, gate_up, down;
};

static void list_unit(struct lister *l, struct unit_roles r, int32_t ffn, struct expert_weights *w)
{
    const int32_t in = l->c->hidden;
    if (has(l, r.gate_up)) {
        struct weight_spec s = {.rows = 2 * ffn, .cols = in, .take_rows = ffn, .matrix = &w->gate};
        part(l, r.gate_up, s);
        s.first = ffn, s.matrix = &w->up;
        part(l, r.gate_up, s);
    } else {
        matrix(l, r.gate, ffn, in, &w->gate);
        matrix(l, r.up, ffn, in, &w->up);
    }
    matrix(l, r.down, in, ffn, &w->down);
}

static void list_dense(struct lister *l)
{
    const struct model_config *c = l->c;
    struct expert_weights *w = &l->at->mlp;
    list_unit(l, (struct unit_roles){W_GATE, W_UP, W_GATE_UP, W_DOWN}, c->ffn, w);
    if (c->mlp_bias) {
        floats(l, W_GATE_BIAS, c->ffn, &w->gate_bias);
        floats(l, W_UP_BIAS, c->ffn, &w->up_bias);
        floats(l, W_DOWN_BIAS, c->hidden, &w->down_bias);
    }
}

/* A stack of all experts' gates and ups: gates first then ups, or in turns and transposed. */
static void list_stacked(struct lister *l, int32_t e, struct expert_weights *w)
{
    const struct model_config *c = l->c;
    const struct moe_config *m = &c->moe;
    const bool turns = c->naming == NAMING_GPT_OSS, flip = turns && !c->expert_blocks;
    struct weight_spec s = {.experts = m->experts,
                            .expert = e,
                            .flip = flip,
                            .step = turns ? 2 : 1,
                            .rows = flip ? c->hidden : 2 * m->ffn,
                            .cols = flip ? 2 * m->ffn : c->hidden,
                            .take_rows = m->ffn,
                            .take_cols = c->hidden,
                            .matrix = &w->gate};
    emit(l, W_EXPERTS_GATE_UP, s);
    s.first = turns ? 1 : m->ffn;
    s.matrix = &w->up;
    emit(l, W_EXPERTS_GATE_UP, s);
    s = (struct weight_spec){.experts = m->experts,
                             .expert = e,
                             .flip = flip,
                             .rows = flip ? m->ffn : c->hidden,
                             .cols = flip ? c->hidden : m->ffn,
                             .take_rows = c->hidden,
                             .take_cols = m->ffn,
                             .matrix = &w->down};
    emit(l, W_EXPERTS_DOWN, s);
    if (!m->expert_bias)
        return;
    s = (struct weight_spec){.experts = m->experts, .expert = e, .rows = 2 * m->ffn, .step = 2};
    s.take_rows = m->ffn, s.floats = &w->gate_bias;
    emit(l, W_EXPERTS_GATE_UP_BIAS, s);
    s.first = 1, s.floats = &w->up_bias;
    emit(l, W_EXPERTS_GATE_UP_BIAS, s);
    s = (struct weight_spec){.experts = m->experts, .expert = e, .rows = c->hidden};
    s.floats = &w->down_bias;
    emit(l, W_EXPERTS_DOWN_BIAS, s);
}

/* Each of the three projections in a stack of its own. */
static void list_three_stacks(struct lister *l, int32_t e, struct expert_weights *w)
{
    const struct model_config *c = l->c;
    const struct moe_config *m = &c->moe;
    struct weight_spec s = {.experts = m->experts, .expert = e, .rows = m->ffn, .cols = c->hidden};
    s.matrix = &w->gate;
    emit(l, W_EXPERTS_GATE, s);
    s.matrix = &w->up;
    emit(l, W_EXPERTS_UP, s);
    s.rows = c->hidden, s.cols = m->ffn, s.matrix = &w->down;
    emit(l, W_EXPERTS_DOWN, s);
    if (!m->expert_bias)
        return;
    s = (struct weight_spec){.experts = m->experts, .expert = e, .rows = m->ffn};
    s.floats = &w->gate_bias;
    emit(l, W_EXPERTS_GATE_BIAS, s);
    s.floats = &w->up_bias;
    emit(l, W_EXPERTS_UP_BIAS, s);
    s.rows = c->hidden, s.floats = &w->down_bias;
    emit(l, W_EXPERTS_DOWN_BIAS, s);
}

static void list_expert(struct lister *l, int32_t e, struct expert_weights *w)
{
    const struct model_config *c = l->c;
    if (has(l, W_EXPERTS_GATE_UP)) {
        list_stacked(l, e, w);
        return;
    }
    if (has(l, W_EXPERTS_GATE)) {
        list_three_stacks(l, e, w);
        return;
    }
    struct weight_spec s = {.rows = c->moe.ffn, .cols = c->hidden, .expert = e, .matrix = &w->gate};
    emit(l, W_EXPERT_GATE, s);
    s.matrix = &w->up;
    emit(l, W_EXPERT_UP, s);
    s.rows = c->hidden, s.cols = c->moe.ffn, s.matrix = &w->down;
    emit(l, W_EXPERT_DOWN, s);
}

static void list_moe(struct lister *l)
{
    const struct model_config *c = l->c;
    struct layer_weights *w = l->at;
    struct expert_weights none;
    gate(l, W_ROUTER, c->moe.experts, &w->router);
    if (c->moe.router_bias)
        floats(l, W_ROUTER_BIAS, c->moe.experts, &w->router_bias);
    if (c->moe.choice_bias)
        floats(l, W_CHOICE_BIAS, c->moe.experts, &w->choice_bias);
    l->in_expert = true;
    for (int32_t e = 0; e < c->moe.experts; e++)
        list_expert(l, e, l->w ? &w->experts[e] : &none);
    l->in_expert = false;
    if (c->attention == ATTENTION_MOA)
        floats(l, W_DOWN_BIAS, c->hidden, &w->mlp.down_bias);
    if (c->moe.shared_ffn > 0)
        list_unit(l,
                  (struct unit_roles){W_SHARED_GATE, W_SHARED_UP, W_SHARED_GATE_UP, W_SHARED_DOWN},
                  c->moe.shared_ffn, &w->shared);
    if (c->moe.shared_gate)
        gate(l, W_SHARED_WEIGHT, 1, &w->shared_gate);
}

static void list_layer(struct lister *l, int32_t layer, const struct layer_config *k)
{
    const struct model_config *c = l->c;
    struct layer_weights *w = l->at = l->w ? &l->w->layers[layer] : &l->none;
    l->layer = layer;
    if (c->pre_norm) {
        norm(l, W_ATTN_NORM, c->hidden, &w->attn_norm);
        norm(l, W_MLP_NORM, c->hidden, &w->mlp_norm);
    }
    if (c->post_norm) {
        norm(l, W_ATTN_POST_NORM, c->hidden, &w->attn_post_norm);
        norm(l, W_MLP_POST_NORM, c->hidden, &w->mlp_post_norm);
    }
    if (c->attention == ATTENTION_LATENT)
        list_latent(l);
    else if (c->attention == ATTENTION_MOA)
        list_moa(l);
    else
        list_gqa(l, k->kv_from == layer);
    if (k->mlp == MLP_MOE)
        list_moe(l);
    else
        list_dense(l);
}

/* The layers of multi-token prediction stand behind the others, each with what joins it to the
 * model; files may leave its copies of embedding and head out. */
static void list_mtp(struct lister *l, int32_t i)
{
    const struct model_config *c = l->c;
    struct mtp_weights none, *w = l->w ? &l->w->mtp[i] : &none;
    struct layer_config k = {.mlp = c->layer[c->layers - 1].mlp, .kv_from = c->layers + i};
    list_layer(l, c->layers + i, &k);
    struct weight_spec s = {.rows = c->vocab, .cols = c->hidden, .optional = true};
    s.matrix = &w->embed;
    emit(l, W_MTP_EMBED, s);
    s.matrix = &w->head;
    emit(l, W_MTP_HEAD, s);
    norm(l, W_MTP_EMBED_NORM, c->hidden, &w->embed_norm);
    norm(l, W_MTP_HIDDEN_NORM, c->hidden, &w->hidden_norm);
    norm(l, W_MTP_NORM, c->hidden, &w->norm);
    matrix(l, W_MTP_PROJECT, c->hidden, 2 * c->hidden, &w->project);
}

enum status weights_list(const struct model_config *c, struct model_weights *w,
                         weight_visit_fn *visit, void *ctx)
{
    struct lister l = {.c = c, .w = w, .visit = visit, .ctx = ctx};
    struct model_weights none;
    struct model_weights *to = w ? w : &none;
    emit(&l, W_EMBED,
         (struct weight_spec){
             .rows = c->vocab, .cols = c->hidden, .matrix = &to->embed, .is_active = c->tied});
    norm(&l, W_NORM, c->hidden, &to->norm);
    if (!c->tied)
        matrix(&l, W_HEAD, c->vocab, c->hidden, &to->head);
    for (int32_t i = 0; i < c->layers && !l.status; i++)
        list_layer(&l, i, &c->layer[i]);
    for (int32_t i = 0; i < c->mtp_layers && !l.status; i++)
        list_mtp(&l, i);
    return l.status;
}

enum status weights_alloc(const struct model_config *c, struct model_weights *w)
{
    const size_t layers = (size_t)(c->layers + c->mtp_layers), heads = (size_t)c->heads;
    const size_t experts = (size_t)c->moe.experts;
    const bool latent = c->attention == ATTENTION_LATENT, moa = c->attention == ATTENTION_MOA;
    const size_t per_layer = latent ? 2 * heads : moa ? 2 * experts : 0;
    w->layers = calloc(layers, sizeof *w->layers);
    w->mtp = calloc((size_t)c->mtp_layers + 1, sizeof *w->mtp);
    w->matrices = calloc(layers * per_layer + 1, sizeof *w->matrices);
    w->experts = calloc(layers * experts + 1, sizeof *w->experts);
    if (!w->layers || !w->mtp || !w->matrices || !w->experts)
        return ST_NO_MEMORY;
    for (size_t i = 0; i < layers; i++) {
        struct matrix *m = w->matrices + i * per_layer;
        w->layers[i].experts = w->experts + i * experts;
        w->layers[i].absorb_k = latent ? m : NULL;
        w->layers[i].absorb_v = latent ? m + heads : NULL;
        w->layers[i].moa_in = moa ? m : NULL;
        w->layers[i].moa_out = moa ? m + experts : NULL;
    }
    return ST_OK;
}

struct counter {
    const struct model_config *c;
    uint64_t all, active;
    double active_of_experts;
};

static enum status count(void *ctx, const struct weight_spec *s)
{
    struct counter *k = ctx;
    uint64_t n = (uint64_t)s->take_rows * (uint64_t)(s->take_cols ? s->take_cols : 1);
    k->all += n;
    if (s->is_expert)
        k->active_of_experts += (double)n * k->c->moe.top_k / k->c->moe.experts;
    else if (s->is_active)
        k->active += n;
    return ST_OK;
}

static struct counter count_all(const struct model_config *c)
{
    struct counter k = {.c = c};
    struct model_config without_mtp = *c; /* it drafts, it does not decide */
    without_mtp.mtp_layers = 0;
    weights_list(&without_mtp, NULL, count, &k);
    return k;
}

uint64_t model_config_parameters(const struct model_config *c)
{
    return count_all(c).all;
}

uint64_t model_config_active_parameters(const struct model_config *c)
{
    struct counter k = count_all(c);
    return k.active + (uint64_t)(k.active_of_experts + 0.5);
}
