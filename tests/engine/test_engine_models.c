/* Real models: a split into prefill and decode, batches, chunks, block sizes, prefix hits and the
 * giving back of what no window reaches change no token and no log-probability, bit for bit; and
 * the tokens of trained ones are the published ones. */
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "base/team.h"
#include "harness.h"

#define PROMPTS_MAX 16
#define NEW_TOKENS 48
#define KEEP_ALL (-1)   /* as slack: nothing is given back */
#define MARGIN_MIN 0.01 /* below it another order of summation may choose otherwise */

struct weights {
    struct team *team;
    struct model *model;
};

struct node {
    struct engine *engine;
    struct kv_layout layout;
    struct kv_groups groups;
    void *pool;
};

struct corpus {
    struct weights w;
    json *root;
    int32_t n;
    struct ask *prompts[PROMPTS_MAX];
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
    const struct model_config *c = model_get_config(m);
    *x = (struct node){.layout = model_kv_layout(m, o.dtype, o.block_tokens, 0)};
    x->layout.blocks = 2048;
    x->groups = *x->layout.groups;
    x->groups.slack = o.slack;
    x->layout.groups = o.slack == KEEP_ALL ? NULL : &x->groups;
    static int32_t stop[] = {1, 2}; /* where the published texts end */
    x->pool = malloc(kv_pool_bytes(&x->layout));
    memset(x->pool, 0x7f, kv_pool_bytes(&x->layout));
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
static void alone(struct corpus *c, enum dtype dtype)
{
    for (int32_t i = 0; i < c->n; i++) {
        struct node x;
        node_open(&x, c->w.model,
                  (struct rig_options){.block_tokens = 16,
                                       .max_batch = 1,
                                       .chunk = 512,
                                       .dtype = dtype,
                                       .slack = KEEP_ALL});
        struct ask *fresh = again(c->prompts[i]);
        free(c->prompts[i]);
        c->prompts[i] = fresh;
        struct engine_request req = ask_request(fresh);
        reserve(&x, fresh, &req);
        engine_fill_here(x.engine, fresh->group);
        node_run(&x);
        node_close(&x);
    }
}

static void together(struct corpus *c, struct rig_options o, const char *what)
{
    struct node x;
    node_open(&x, c->w.model, o);
    for (int round = 0; round < 2; round++) { /* the second time from the prefix cache */
        struct ask *a[PROMPTS_MAX];
        for (int32_t i = 0; i < c->n; i++) {
            a[i] = again(c->prompts[i]);
            struct engine_request req = ask_request(a[i]);
            reserve(&x, a[i], &req);
            cr_assert(round == 0 || o.no_prefix || a[i]->prompt.n < 17 || a[i]->have > 0);
            engine_fill_here(x.engine, a[i]->group);
        }
        node_run(&x);
        for (int32_t i = 0; i < c->n; i++) {
            same(c->prompts[i], a[i], what);
            engine_release(x.engine, a[i]->group, true, true);
            free(a[i]);
        }
    }
    node_close(&x);
}

/* A group's tables, as engine_begin_fill() gives them. */
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

/* What a handoff of `tokens` tokens brings of one position. */
static void copy_kv(const struct node *from, struct table source, const struct node *to,
                    struct table target, int32_t position, int32_t tokens)
{
    const struct kv_layout *f = &from->layout, *t = &to->layout;
    for (int layer = 0; layer < f->layers; layer++) {
        if (position < kv_groups_need_from(f->groups, kv_group_of(f, layer), tokens))
            continue;
        for (int part = 0; part < 2; part++)
            for (int h = 0; h < f->kv_heads && kv_part_dim(f, (enum kv_part)part); h++)
                memcpy(slot_of(to, target, layer, (enum kv_part)part, position) +
                           (size_t)h * kv_head_run_bytes(t, (enum kv_part)part),
                       slot_of(from, source, layer, (enum kv_part)part, position) +
                           (size_t)h * kv_head_run_bytes(f, (enum kv_part)part),
                       (size_t)kv_part_dim(f, (enum kv_part)part) * dtype_bytes(f->dtype));
    }
}

/* One prefill and one decode engine with blocks of other sizes; every other handoff brings the
 * first token along. */
static void split(struct corpus *c, enum dtype dtype, const char *what)
{
    struct node p, d;
    node_open(&p, c->w.model,
              (struct rig_options){
                  .block_tokens = 8, .max_batch = 4, .chunk = 13, .dtype = dtype, .slack = 40});
    node_open(&d, c->w.model,
              (struct rig_options){
                  .block_tokens = 16, .max_batch = 16, .chunk = 32, .dtype = dtype, .slack = 40});
    struct ask *a[PROMPTS_MAX];
    for (int32_t i = 0; i < c->n; i++) {
        struct ask *first = again(c->prompts[i]);
        a[i] = again(c->prompts[i]);
        struct engine_request req = ask_request(a[i]), pre = ask_request(first);
        int32_t n;
        reserve(&d, a[i], &req);
        struct table target = {engine_begin_fill(d.engine, a[i]->group, &n),
                               engine_table_stride(d.engine, a[i]->group)};
        pre.prefill_only = pre.want_first = true;
        reserve(&p, first, &pre);
        struct table source = {engine_begin_fill(p.engine, first->group, &n),
                               engine_table_stride(p.engine, first->group)};
        int32_t tokens = engine_transfer_tokens(d.engine, a[i]->group);
        engine_fill_here(p.engine, first->group);
        node_run(&p);
        cr_assert_eq(first->n_said[0], 1);
        for (int32_t t = a[i]->have; t < tokens; t++)
            copy_kv(&p, source, &d, target, t, tokens);
        struct msg_token token = {.id = first->said[0][0], .logprob = first->logprob[0][0]};
        engine_release(p.engine, first->group, true, true);
        engine_fill_done(d.engine, a[i]->group, &token, i % 2);
        free(first);
    }
    node_run(&d);
    for (int32_t i = 0; i < c->n; i++) {
        same(c->prompts[i], a[i], what);
        engine_release(d.engine, a[i]->group, true, true);
        free(a[i]);
    }
    node_close(&p);
    node_close(&d);
}

static void check_published(const struct corpus *c)
{
    for (int32_t i = 0; i < c->n; i++) {
        const json *one = json_at(json_get(c->root, "cases"), (size_t)i);
        if (json_as_number(json_get(one, "min_top1_top2_margin"), 0) < MARGIN_MIN)
            continue;
        const json *ids = json_get(one, "greedy_ids"), *logprobs = json_get(one, "logprobs");
        const struct ask *a = c->prompts[i];
        cr_assert(a->n_said[0] == NEW_TOKENS || a->n_said[0] == (int32_t)json_count(ids));
        for (int32_t t = 0; t < a->n_said[0]; t++) {
            cr_assert_eq(a->said[0][t], json_as_int(json_at(ids, (size_t)t), -1),
                         "prompt %d token %d", i, t);
            cr_assert_float_eq((double)a->logprob[0][t],
                               json_as_number(json_at(logprobs, (size_t)t), 9), 1e-3);
        }
    }
}

static void load(struct corpus *c, const char *dir)
{
    struct error err = {0};
    const struct ops *ops;
    cr_assert_eq(ops_cpu("auto", &ops, &err), ST_OK, "%s", err.text);
    c->w.team = team_create(2, false, false);
    struct model_load_args args = {
        .dir = dir, .ops = ops, .team = c->w.team, .max_batch_tokens = 513, .max_logits_rows = 80};
    cr_assert_eq(model_load(&args, &c->w.model, &err), ST_OK, "%s", err.text);
}

static void corpus_open(struct corpus *c, const char *name)
{
    char file[1024], dir[1024];
    snprintf(file, sizeof file, BATON_SOURCE_DIR "/../shared/data/models/goldens_%s.json", name);
    snprintf(dir, sizeof dir, BATON_SOURCE_DIR "/../shared/data/models/hf/%s", name);
    if (access(file, R_OK) != 0 || access(dir, R_OK) != 0)
        cr_skip_test("%s is not there", file);
    *c = (struct corpus){0};
    struct error err = {0};
    cr_assert_eq(json_read_file(file, 16 << 20, &c->root, &err), ST_OK, "%s", err.text);
    load(c, dir);
    const json *cases = json_get(c->root, "cases");
    c->n = (int32_t)json_count(cases);
    cr_assert(c->n >= 10 && c->n <= PROMPTS_MAX);
    for (int32_t i = 0; i < c->n; i++) {
        const json *ids = json_get(json_at(cases, (size_t)i), "prompt_ids");
        struct ask *a = c->prompts[i] = calloc(1, sizeof *a);
        a->prompt.n = (uint32_t)json_count(ids);
        for (uint32_t t = 0; t < a->prompt.n; t++)
            a->prompt_ids[t] = (int32_t)json_as_int(json_at(ids, t), -1);
        a->spec = sampling_default();
        a->spec.temperature = 0;
        a->spec.max_tokens = NEW_TOKENS;
        a->spec.logprobs = 0;
    }
}

static void corpus_close(struct corpus *c)
{
    for (int32_t i = 0; i < c->n; i++)
        free(c->prompts[i]);
    json_free(c->root);
    model_free(c->w.model);
    team_destroy(c->w.team);
}

/* What a race detector can see it sees in one dtype and two ways. */
#if defined(BATON_TSAN)
enum { TYPES = 1, WAYS = 2 };
#else
enum { TYPES = 3, WAYS = 3 };
#endif

static void check_model(const char *name)
{
    struct corpus c;
    char what[128];
    corpus_open(&c, name);
    enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < TYPES; i++) {
        alone(&c, types[i]);
        if (types[i] == DTYPE_F32)
            check_published(&c);
        struct rig_options ways[] = {
            {.block_tokens = 16, .max_batch = 16, .chunk = 64, .dtype = types[i]},
            {.block_tokens = 5, .max_batch = 3, .chunk = 7, .dtype = types[i]},
            {.block_tokens = 1, .max_batch = 11, .chunk = 1, .dtype = types[i], .no_prefix = true},
        };
        for (int w = 0; w < WAYS; w++) {
            snprintf(what, sizeof what, "%s %s way %d", name, dtype_name(types[i]), w);
            together(&c, ways[w], what);
        }
        snprintf(what, sizeof what, "%s %s split", name, dtype_name(types[i]));
        split(&c, types[i], what);
    }
    corpus_close(&c);
}

Test(models, stories260K, .timeout = 240)
{
    check_model("stories260K");
}

Test(models, babyllama, .timeout = 240)
{
    check_model("babyllama-tok105");
}

/* A small model of random weights whose layers slide, or some of them: prompts with common
 * beginnings, most of them longer than any window. */
static void check_sliding(const char *name)
{
    struct corpus c = {.n = 8};
    char dir[1024];
    snprintf(dir, sizeof dir, BATON_SOURCE_DIR "/tests/model/goldens/%s", name);
    load(&c, dir);
    struct rng rng = rng_seed(3);
    for (int32_t i = 0; i < c.n; i++) {
        struct ask *a = c.prompts[i] = calloc(1, sizeof *a);
        a->prompt.n = 5 + (uint32_t)i * 19;
        for (uint32_t t = 0; t < a->prompt.n; t++)
            a->prompt_ids[t] = i > 1 && t < 40 * (uint32_t)(i % 3)
                                   ? c.prompts[i - 1]->prompt_ids[t]
                                   : 3 + (int32_t)rng_below(&rng, 140);
        a->spec = sampling_default();
        a->spec.temperature = 0;
        a->spec.max_tokens = NEW_TOKENS;
        a->spec.logprobs = 0;
        a->spec.ignore_eos = true;
    }
    alone(&c, DTYPE_BF16);
    static const struct rig_options ways[] = {
        {.block_tokens = 16, .max_batch = 16, .chunk = 64, .dtype = DTYPE_BF16},
        {.block_tokens = 5, .max_batch = 3, .chunk = 7, .dtype = DTYPE_BF16, .slack = 9},
        {.block_tokens = 1, .max_batch = 11, .chunk = 1, .dtype = DTYPE_BF16, .no_prefix = true},
    };
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
        together(&c, ways[w], name);
    split(&c, DTYPE_BF16, name);
    corpus_close(&c);
}

Test(models, what_no_window_reaches_is_given_back, .timeout = 240)
{
    static const char *const names[] = {"mistral", "phi3",  "gemma2", "gemma3",
                                        "gpt-oss", "qwen2", "olmo3",  "phi3-longrope-long"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        check_sliding(names[i]);
}
