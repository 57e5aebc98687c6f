/* A real model in engines of its own: prompts alone, together and split into prefill and decode, to
 * be compared token for token and bit for bit. Owner: who opened a set closes it. */
#ifndef TESTS_ENGINE_SPLIT_RIG_H
#define TESTS_ENGINE_SPLIT_RIG_H

#include "base/team.h"
#include "harness.h"

#define PROMPTS_MAX 16
#define KEEP_ALL (-1) /* as slack: nothing is given back */

/* A model and what it is asked; once alone() has run, what it says to that. */
struct set {
    struct team *team;
    struct model *model;
    int32_t n;
    struct ask *prompts[PROMPTS_MAX];
};

struct node {
    struct engine *engine;
    struct kv_layout layout;
    struct kv_groups groups;
    void *pool;
};

static inline void forward(void *ctx, const struct batch *b, const struct model_kv *kv,
                           float *logits, model_layer_done_fn *done, void *done_ctx)
{
    model_forward(ctx, b, kv, logits, done, done_ctx);
}

static inline bool is_long(const void *ctx, int32_t prompt_tokens)
{
    return model_is_long(ctx, prompt_tokens);
}

static inline void node_open(struct node *x, struct model *m, struct rig_options o)
{
    const struct model_config *c = model_get_config(m);
    *x = (struct node){.layout = model_kv_layout(m, o.dtype, o.block_tokens, 0)};
    x->layout.blocks = o.blocks ? o.blocks : 2048;
    x->groups = *x->layout.groups;
    x->groups.slack = o.slack;
    x->layout.groups = o.slack == KEEP_ALL ? NULL : &x->groups;
    static int32_t stop[] = {1, 2}; /* where the trained models' texts end */
    x->pool = malloc(kv_pool_bytes(&x->layout));
    memset(x->pool, 0xff, kv_pool_bytes(&x->layout));
    struct engine_args args = {
        .runner = {.ctx = m,
                   .forward = forward,
                   .is_long = is_long,
                   .vocab = c->vocab,
                   .max_context = c->max_context,
                   .eos = stop,
                   .n_eos = 2},
        .events = {.token = on_token, .finish = on_finish, .failed = on_failed},
        .pool = x->pool,
        .layout = x->layout,
        .prefix_cache = !o.no_prefix,
        .max_batch = o.max_batch,
        .chunk_tokens_max = o.chunk,
        .step_budget_ns = INT64_C(1000000000),
        .max_groups = 64};
    struct error err = {0};
    cr_assert_eq(engine_create(&args, &x->engine, &err), ST_OK, "%s", err.text);
}

static inline void node_close(struct node *x)
{
    engine_destroy(x->engine);
    free(x->pool);
}

static inline void node_run(struct node *x)
{
    struct engine_step_info info;
    while (engine_runnable(x->engine))
        engine_step(x->engine, &info);
    engine_check(x->engine);
}

static inline void reserve(struct node *x, struct ask *a, const struct engine_request *req)
{
    struct error err = {0};
    cr_assert_eq(engine_reserve(x->engine, req, &a->group, &a->have, &err), ST_OK, "%s", err.text);
}

static inline struct ask *again(const struct ask *a)
{
    struct ask *b = calloc(1, sizeof *b);
    memcpy(b->prompt_ids, a->prompt_ids, sizeof b->prompt_ids);
    b->prompt = (struct msg_ids){b->prompt_ids, a->prompt.n};
    b->n = 1;
    b->spec = a->spec;
    return b;
}

static inline void same(const struct ask *want, const struct ask *got, const char *what)
{
    cr_assert(got->ended[0], "%s", what);
    cr_assert_eq(got->n_said[0], want->n_said[0], "%s", what);
    for (int32_t i = 0; i < want->n_said[0]; i++) {
        cr_assert_eq(got->said[0][i], want->said[0][i], "%s: token %d", what, i);
        cr_assert(memcmp(&got->logprob[0][i], &want->logprob[0][i], sizeof(float)) == 0,
                  "%s: log-probability %d: %.9g and %.9g", what, i, (double)got->logprob[0][i],
                  (double)want->logprob[0][i]);
    }
}

/* Every prompt by itself: what all else is compared with. */
static inline void alone(struct set *s, struct rig_options o)
{
    o.block_tokens = 16;
    o.max_batch = 1;
    for (int32_t i = 0; i < s->n; i++) {
        struct node x;
        node_open(&x, s->model, o);
        struct ask *fresh = again(s->prompts[i]);
        free(s->prompts[i]);
        s->prompts[i] = fresh;
        struct engine_request req = ask_request(fresh);
        reserve(&x, fresh, &req);
        engine_fill_here(x.engine, fresh->group);
        node_run(&x);
        node_close(&x);
    }
}

static inline void together(struct set *s, struct rig_options o, const char *what)
{
    struct node x;
    node_open(&x, s->model, o);
    for (int round = 0; round < 2; round++) { /* the second time from the prefix cache */
        struct ask *a[PROMPTS_MAX];
        for (int32_t i = 0; i < s->n; i++) {
            a[i] = again(s->prompts[i]);
            struct engine_request req = ask_request(a[i]);
            reserve(&x, a[i], &req);
            cr_assert(round == 0 || o.no_prefix || a[i]->prompt.n < 17 || a[i]->have > 0);
            engine_fill_here(x.engine, a[i]->group);
        }
        node_run(&x);
        for (int32_t i = 0; i < s->n; i++) {
            same(s->prompts[i], a[i], what);
            engine_release(x.engine, a[i]->group, true, true);
            free(a[i]);
        }
    }
    node_close(&x);
}

/* A sequence's tables, as engine_begin_fill() gives them. */
struct table {
    const int32_t *blocks;
    int32_t stride;
};

struct spot {
    int layer;
    enum kv_part part;
    int head;
    int32_t position;
};

static inline char *slot_of(const struct node *x, struct table t, struct spot s)
{
    const struct kv_layout *l = &x->layout;
    int32_t block = t.blocks[kv_group_of(l, s.layer) * t.stride + s.position / l->block_tokens];
    cr_assert(block >= 0 && block < l->blocks, "layer %d position %d", s.layer, s.position);
    return (char *)x->pool +
           kv_offset(l, s.layer, block, s.part, s.head, s.position % l->block_tokens);
}

struct copy {
    const struct node *from, *to;
    struct table source, target;
    int32_t tokens; /* of the handoff */
};

/* What a handoff brings of one position. */
static inline void copy_kv(const struct copy *c, int32_t position)
{
    const struct kv_layout *f = &c->from->layout, *t = &c->to->layout;
    for (int layer = 0; layer < f->layers; layer++) {
        if (position < kv_groups_need_from(f->groups, kv_group_of(f, layer), c->tokens))
            continue;
        for (enum kv_part part = KV_KEY; part <= KV_VALUE && kv_part_dim(f, part); part++)
            for (int h = 0; h < f->kv_heads; h++) {
                const struct spot s = {layer, part, h, position};
                kv_vectors_convert(
                    &(struct kv_conversion){t->dtype, f->dtype, (size_t)kv_part_dim(f, part)},
                    slot_of(c->to, c->target, s), slot_of(c->from, c->source, s), 1);
            }
    }
}

/* One prefill and one decode engine, with blocks of 8 tokens and of d_block_tokens; every other
 * handoff brings the first token along. */
static inline void split(struct set *s, struct rig_options o, int32_t d_block_tokens,
                         const char *what)
{
    struct node p, d;
    struct ask *a[PROMPTS_MAX];
    o.block_tokens = 8;
    o.max_batch = 4;
    o.chunk = 13;
    node_open(&p, s->model, o);
    o.block_tokens = d_block_tokens;
    o.max_batch = 16;
    o.chunk = 32;
    node_open(&d, s->model, o);
    for (int32_t i = 0; i < s->n; i++) {
        struct ask *first = again(s->prompts[i]);
        a[i] = again(s->prompts[i]);
        struct engine_request req = ask_request(a[i]), pre = ask_request(first);
        int32_t n;
        reserve(&d, a[i], &req);
        struct copy c = {.from = &p, .to = &d};
        c.tokens = engine_transfer_tokens(d.engine, a[i]->group);
        c.target.blocks = engine_begin_fill(d.engine, a[i]->group, &n);
        c.target.stride = engine_table_stride(d.engine, a[i]->group);
        pre.prefill_only = pre.want_first = true;
        reserve(&p, first, &pre);
        c.source.blocks = engine_begin_fill(p.engine, first->group, &n);
        c.source.stride = engine_table_stride(p.engine, first->group);
        engine_fill_here(p.engine, first->group);
        node_run(&p);
        cr_assert_eq(first->n_said[0], 1);
        for (int32_t t = a[i]->have; t < c.tokens; t++)
            copy_kv(&c, t);
        struct msg_token token = {.id = first->said[0][0], .logprob = first->logprob[0][0]};
        engine_release(p.engine, first->group, true, true);
        engine_fill_done(d.engine, a[i]->group, &token, i % 2);
        free(first);
    }
    node_run(&d);
    for (int32_t i = 0; i < s->n; i++) {
        same(s->prompts[i], a[i], what);
        engine_release(d.engine, a[i]->group, true, true);
        free(a[i]);
    }
    node_close(&p);
    node_close(&d);
}

static inline void set_load(struct set *s, const char *dir)
{
    struct error err = {0};
    const struct ops *ops;
    *s = (struct set){.team = team_create(2, false, false)};
    cr_assert_eq(ops_cpu("auto", &ops, &err), ST_OK, "%s", err.text);
    struct model_load_args args = {
        .dir = dir, .ops = ops, .team = s->team, .max_batch_tokens = 513, .max_logits_rows = 80};
    cr_assert_eq(model_load(&args, &s->model, &err), ST_OK, "%s", err.text);
}

static inline void set_add(struct set *s, struct ask *a, int32_t new_tokens)
{
    cr_assert(s->n < PROMPTS_MAX);
    a->spec = sampling_default();
    a->spec.temperature = 0;
    a->spec.max_tokens = new_tokens;
    a->spec.logprobs = 0;
    s->prompts[s->n++] = a;
}

static inline void set_close(struct set *s)
{
    for (int32_t i = 0; i < s->n; i++)
        free(s->prompts[i]);
    model_free(s->model);
    team_destroy(s->team);
}

#endif
