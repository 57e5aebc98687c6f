/* One checkpoint of every architecture: a prefill and a decode engine with blocks of other sizes
 * say, token for token and bit for bit, what one engine says that does both, alone or in company;
 * and the greedy tokens are those of transformers. */
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "base/team.h"
#include "harness.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/model/goldens/"
#define PROMPTS 4
#define NEW_TOKENS 24

struct node {
    struct engine *engine;
    struct kv_layout layout;
    struct kv_groups groups;
    void *pool;
};

struct set {
    const char *name;
    struct team *team;
    struct model *model;
    struct ask *prompts[PROMPTS]; /* [0]: the golden's */
};

static void forward(void *ctx, const struct batch *b, const struct model_kv *kv, float *logits,
                    model_layer_done_fn *done, void *done_ctx)
{
    model_forward(ctx, b, kv, logits, done, done_ctx);
}

static bool is_long(const void *ctx, int32_t prompt_tokens)
{
    return model_is_long(ctx, prompt_tokens);
}

static void node_open(struct node *x, struct model *m, struct rig_options o)
{
    *x = (struct node){.layout = model_kv_layout(m, o.dtype, o.block_tokens, 1)};
    x->layout.blocks = 256;
    x->groups = *x->layout.groups;
    x->groups.slack = 11; /* what is older than the window is given back, nearly at once */
    x->layout.groups = &x->groups;
    x->pool = malloc(kv_pool_bytes(&x->layout));
    memset(x->pool, 0xff, kv_pool_bytes(&x->layout));
    struct engine_args args = {
        .runner = {.ctx = m,
                   .forward = forward,
                   .is_long = is_long,
                   .vocab = model_get_config(m)->vocab,
                   .max_context = model_get_config(m)->max_context},
        .events = {.token = on_token, .finish = on_finish, .failed = on_failed},
        .pool = x->pool,
        .layout = x->layout,
        .prefix_cache = !o.no_prefix,
        .max_batch = o.max_batch,
        .chunk_tokens_max = o.chunk,
        .step_budget_ns = INT64_C(1000000000),
        .max_groups = 16};
    struct error err = {0};
    cr_assert_eq(engine_create(&args, &x->engine, &err), ST_OK, "%s", err.text);
}

static void node_close(struct node *x)
{
    engine_destroy(x->engine);
    free(x->pool);
}

static void node_run(struct node *x)
{
    struct engine_step_info info;
    while (engine_runnable(x->engine))
        engine_step(x->engine, &info);
    engine_check(x->engine);
}

static void reserve(struct node *x, struct ask *a, const struct engine_request *req)
{
    struct error err = {0};
    cr_assert_eq(engine_reserve(x->engine, req, &a->group, &a->have, &err), ST_OK, "%s", err.text);
}

static struct ask *again(const struct ask *a)
{
    struct ask *b = calloc(1, sizeof *b);
    memcpy(b->prompt_ids, a->prompt_ids, sizeof b->prompt_ids);
    b->prompt = (struct msg_ids){b->prompt_ids, a->prompt.n};
    b->n = 1;
    b->spec = a->spec;
    return b;
}

static void same(const struct ask *want, const struct ask *got, const char *what)
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
static void alone(struct set *s, enum dtype dtype)
{
    for (int i = 0; i < PROMPTS; i++) {
        struct node x;
        struct rig_options o = {.block_tokens = 16, .max_batch = 1, .chunk = 128, .dtype = dtype};
        node_open(&x, s->model, o);
        struct ask *fresh = again(s->prompts[i]);
        free(s->prompts[i]);
        s->prompts[i] = fresh;
        struct engine_request req = ask_request(fresh);
        reserve(&x, fresh, &req);
        engine_fill_here(x.engine, fresh->group);
        node_run(&x);
        cr_assert_eq(fresh->n_said[0], NEW_TOKENS, "%s", s->name);
        node_close(&x);
    }
}

static void together(struct set *s, struct rig_options o, const char *what)
{
    struct node x;
    node_open(&x, s->model, o);
    for (int round = 0; round < 2; round++) { /* the second time from the prefix cache */
        struct ask *a[PROMPTS];
        for (int i = 0; i < PROMPTS; i++) {
            a[i] = again(s->prompts[i]);
            struct engine_request req = ask_request(a[i]);
            reserve(&x, a[i], &req);
            engine_fill_here(x.engine, a[i]->group);
        }
        node_run(&x);
        for (int i = 0; i < PROMPTS; i++) {
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

static char *slot_of(const struct node *x, struct table t, int layer, enum kv_part part,
                     int32_t position)
{
    const struct kv_layout *l = &x->layout;
    int32_t block = t.blocks[kv_group_of(l, layer) * t.stride + position / l->block_tokens];
    cr_assert(block >= 0 && block < l->blocks, "layer %d position %d", layer, position);
    return (char *)x->pool + kv_offset(l, layer, block, part, 0, position % l->block_tokens);
}

struct copy {
    const struct node *from, *to;
    struct table source, target;
    int32_t tokens; /* of the handoff */
};

/* What a handoff brings of one position. */
static void copy_kv(const struct copy *c, int32_t position)
{
    const struct kv_layout *f = &c->from->layout, *t = &c->to->layout;
    for (int layer = 0; layer < f->layers; layer++) {
        if (position < kv_groups_need_from(f->groups, kv_group_of(f, layer), c->tokens))
            continue;
        for (enum kv_part part = KV_KEY; part <= KV_VALUE && kv_part_dim(f, part); part++)
            for (size_t h = 0; h < (size_t)f->kv_heads; h++)
                memcpy(slot_of(c->to, c->target, layer, part, position) +
                           h * kv_head_run_bytes(t, part),
                       slot_of(c->from, c->source, layer, part, position) +
                           h * kv_head_run_bytes(f, part),
                       (size_t)kv_part_dim(f, part) * dtype_bytes(f->dtype));
    }
}

/* One prefill and one decode engine; every other handoff brings the first token along. */
static void split(struct set *s, enum dtype dtype, const char *what)
{
    struct node p, d;
    struct ask *a[PROMPTS];
    node_open(&p, s->model,
              (struct rig_options){.block_tokens = 8, .max_batch = 4, .chunk = 13, .dtype = dtype});
    node_open(&d, s->model,
              (struct rig_options){.block_tokens = 5, .max_batch = 8, .chunk = 32, .dtype = dtype});
    for (int i = 0; i < PROMPTS; i++) {
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
    for (int i = 0; i < PROMPTS; i++) {
        same(s->prompts[i], a[i], what);
        engine_release(d.engine, a[i]->group, true, true);
        free(a[i]);
    }
    node_close(&p);
    node_close(&d);
}

static struct ask *prompt_random(int32_t vocab, uint64_t seed, int32_t tokens)
{
    struct ask *a = ask_new(seed, tokens, 1);
    struct rng rng = rng_seed(seed);
    for (int32_t i = 0; i < tokens; i++)
        a->prompt_ids[i] = (int32_t)rng_below(&rng, (uint32_t)vocab);
    return a;
}

/* The golden's prompt and three others, on both sides of windows and of LongRoPE's context. */
static void set_open(struct set *s, const char *name)
{
    static const int32_t lengths[PROMPTS] = {0, 7, 65, 140};
    char path[1400];
    struct error err = {0};
    const struct ops *ops;
    json *root = NULL;
    *s = (struct set){.name = name, .team = team_create(2, false, false)};
    cr_assert_eq(ops_cpu("auto", &ops, &err), ST_OK, "%s", err.text);
    snprintf(path, sizeof path, GOLDENS "%s", name);
    struct model_load_args args = {
        .dir = path, .ops = ops, .team = s->team, .max_batch_tokens = 160, .max_logits_rows = 16};
    cr_assert_eq(model_load(&args, &s->model, &err), ST_OK, "%s", err.text);
    for (int i = 1; i < PROMPTS; i++)
        s->prompts[i] =
            prompt_random(model_get_config(s->model)->vocab, (uint64_t)i + 50, lengths[i]);
    snprintf(path, sizeof path, GOLDENS "%s.json", name);
    cr_assert_eq(json_read_file(path, 1 << 20, &root, &err), ST_OK, "%s", err.text);
    struct ask *a = s->prompts[0] = ask_new(1, 0, 1);
    a->prompt.n = (uint32_t)json_as_int(json_get(root, "prompt_tokens"), 0);
    for (size_t i = 0; i < json_count(json_get(root, "ids")); i++)
        a->prompt_ids[i] = (int32_t)json_as_int(json_at(json_get(root, "ids"), i), -1);
    json_free(root);
    for (int i = 0; i < PROMPTS; i++) {
        s->prompts[i]->spec.temperature = 0;
        s->prompts[i]->spec.max_tokens = NEW_TOKENS;
        s->prompts[i]->spec.logprobs = 0;
    }
}

static void set_close(struct set *s)
{
    for (int i = 0; i < PROMPTS; i++)
        free(s->prompts[i]);
    model_free(s->model);
    team_destroy(s->team);
}

static void check(const char *name)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    struct set s;
    char what[128];
    set_open(&s, name);
    for (int i = 0; i < 2; i++) {
        alone(&s, types[i]);
        const struct ask *golden = s.prompts[0];
        for (uint32_t t = 0; types[i] == DTYPE_F32 && t < 8; t++)
            cr_assert_eq(golden->said[0][t], golden->prompt_ids[golden->prompt.n + t],
                         "%s: token %u of transformers", name, t);
        snprintf(what, sizeof what, "%s %s together", name, dtype_name(types[i]));
        struct rig_options o = {.block_tokens = 7, .max_batch = 3, .chunk = 19, .dtype = types[i]};
        together(&s, o, what);
        snprintf(what, sizeof what, "%s %s split", name, dtype_name(types[i]));
        split(&s, types[i], what);
    }
    set_close(&s);
}

Test(architectures, split_together_or_alone, .timeout = 240)
{
    char path[1400];
    int n = 0;
    DIR *dir = opendir(GOLDENS);
    cr_assert_not_null(dir);
    for (const struct dirent *e; (e = readdir(dir));) {
        snprintf(path, sizeof path, GOLDENS "%s/config.json", e->d_name);
        if (e->d_name[0] == '.' || access(path, R_OK) != 0)
            continue;
        check(e->d_name);
        n++;
    }
    closedir(dir);
    cr_assert_gt(n, 25);
}
