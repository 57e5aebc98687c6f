/* The model's table of ops is exchanged for one whose entries time those of the first. Such an
 * entry is not told whose forward it is in: profile_enter() leaves that with the thread. */
#include "model/profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "model/model_impl.h"

struct profile_member {
    _Alignas(64) struct profile_total by[PROFILE_KINDS];
    const struct profile *profile;
};

struct profile {
    struct ops ops;         /* these time */
    const struct ops *real; /* these work */
    const struct model_weights *weights;
    const struct model_config *config;
    int64_t forwards, forward_ns;
    int n;
    struct profile_member *members; /* [n] */
};

static _Thread_local struct profile_member *me;

const char *profile_kind_name(enum profile_kind kind)
{
    static const char *const names[PROFILE_KINDS] = {
        [PROFILE_EMBED] = "embed",
        [PROFILE_NORM] = "norm",
        [PROFILE_QUANTIZE] = "quantize",
        [PROFILE_QKV] = "gemm_qkv",
        [PROFILE_ROPE] = "rope",
        [PROFILE_KV_STORE] = "kv_store",
        [PROFILE_ATTENTION] = "attention",
        [PROFILE_ATTENTION_OUT] = "gemm_attention_out",
        [PROFILE_GATE_UP] = "gemm_gate_up",
        [PROFILE_ACTIVATION] = "activation",
        [PROFILE_DOWN] = "gemm_down",
        [PROFILE_EXPERTS] = "gemm_experts",
        [PROFILE_ROUTE] = "route",
        [PROFILE_ABSORB] = "gemm_absorb",
        [PROFILE_HEAD] = "gemm_head",
        [PROFILE_BARRIER] = "barrier",
    };
    return names[kind];
}

static void add(enum profile_kind kind, int64_t begin)
{
    me->by[kind].ns += clock_now_ns() - begin;
    me->by[kind].calls++;
}

/* ---- whose weights a gemm reads ---- */

#define IS(field) (at == offsetof(struct layer_weights, field))

static enum profile_kind kind_in_layer(size_t at)
{
    if (IS(q) || IS(k) || IS(v) || IS(q_a) || IS(kv_a))
        return PROFILE_QKV;
    if (IS(o))
        return PROFILE_ATTENTION_OUT;
    if (IS(mlp.down) || IS(shared.down))
        return PROFILE_DOWN;
    if (IS(router) || IS(shared_gate) || IS(moa_router))
        return PROFILE_ROUTE;
    return PROFILE_GATE_UP;
}

static bool is_in(const struct matrix *w, const struct matrix *first, int32_t n)
{
    return first && (uintptr_t)w >= (uintptr_t)first && (uintptr_t)w < (uintptr_t)(first + n);
}

static enum profile_kind kind_of(const struct profile *p, const struct matrix *w)
{
    const struct model_weights *all = p->weights;
    const size_t at = (uintptr_t)w - (uintptr_t)all->layers;
    const int32_t layers = p->config->layers, heads = p->config->heads;
    if (w == &all->head)
        return PROFILE_HEAD;
    if (at < (size_t)layers * sizeof *all->layers)
        return kind_in_layer(at % sizeof *all->layers);
    for (int32_t i = 0; i < layers; i++) {
        const struct layer_weights *l = &all->layers[i];
        if (is_in(w, l->absorb_k, heads) || is_in(w, l->absorb_v, heads))
            return PROFILE_ABSORB;
    }
    return PROFILE_EXPERTS;
}

/* ---- ops that time ---- */

#define TIMED(op, kind)                                                                            \
    static void timed_##op(const struct op_##op *a, int part, int parts)                           \
    {                                                                                              \
        const enum profile_kind of = kind;                                                         \
        const int64_t begin = clock_now_ns();                                                      \
        me->profile->real->op(a, part, parts);                                                     \
        add(of, begin);                                                                            \
    }

TIMED(embed, PROFILE_EMBED)
TIMED(rmsnorm, PROFILE_NORM)
TIMED(gemm, kind_of(me->profile, a->w))
TIMED(quantize, PROFILE_QUANTIZE)
TIMED(round, PROFILE_QUANTIZE)
TIMED(rope, PROFILE_ROPE)
TIMED(kv_store, PROFILE_KV_STORE)
TIMED(attention, PROFILE_ATTENTION)
TIMED(glu, PROFILE_ACTIVATION)
TIMED(softcap, PROFILE_HEAD)
TIMED(route, PROFILE_ROUTE)
TIMED(combine, PROFILE_ROUTE)

static void wrap(struct profile *p, const struct ops *real)
{
    p->real = real;
    p->ops = *real; /* what is no function stays */
    p->ops.embed = timed_embed;
    p->ops.rmsnorm = timed_rmsnorm;
    p->ops.gemm = timed_gemm;
    p->ops.quantize = timed_quantize;
    p->ops.round = real->round ? timed_round : NULL;
    p->ops.rope = timed_rope;
    p->ops.kv_store = timed_kv_store;
    p->ops.attention = timed_attention;
    p->ops.glu = timed_glu;
    p->ops.softcap = timed_softcap;
    p->ops.route = timed_route;
    p->ops.combine = timed_combine;
}

/* ---- called by the forward ---- */

void profile_enter(struct profile *p, int part)
{
    me = &p->members[part];
}

void profile_meet(struct team *team)
{
    const int64_t begin = clock_now_ns();
    team_barrier(team);
    add(PROFILE_BARRIER, begin);
}

void profile_ran(struct profile *p, int64_t ns)
{
    p->forwards++;
    p->forward_ns += ns;
}

/* ---- called by who wants to know ---- */

enum status model_profile_start(struct model *m, struct error *err)
{
    model_profile_stop(m);
    struct profile *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(err, ST_NO_MEMORY, "no memory for a profile");
    p->n = team_size(m->team);
    p->weights = &m->weights;
    p->config = &m->config;
    p->members = aligned_alloc(_Alignof(struct profile_member), (size_t)p->n * sizeof *p->members);
    if (!p->members) {
        free(p);
        return err_set(err, ST_NO_MEMORY, "no memory for a profile");
    }
    memset(p->members, 0, (size_t)p->n * sizeof *p->members);
    for (int i = 0; i < p->n; i++)
        p->members[i].profile = p;
    wrap(p, m->ops);
    m->ops = &p->ops;
    m->profile = p;
    return ST_OK;
}

void model_profile_stop(struct model *m)
{
    if (!m->profile)
        return;
    m->ops = m->profile->real;
    free(m->profile->members);
    free(m->profile);
    m->profile = NULL;
}

void model_profile_read(const struct model *m, struct model_profile *out)
{
    const struct profile *p = m->profile;
    *out = (struct model_profile){0};
    if (!p)
        return;
    *out = (struct model_profile){p->n, p->forwards, p->forward_ns, {{0}}};
    for (int i = 0; i < p->n; i++)
        for (int k = 0; k < PROFILE_KINDS; k++) {
            out->by[k].ns += p->members[i].by[k].ns;
            out->by[k].calls += p->members[i].by[k].calls;
        }
}
