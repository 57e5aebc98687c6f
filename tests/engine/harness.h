/* One engine over the fake model, with a record of everything it said: what the engine tests drive.
 */
#ifndef TESTS_ENGINE_HARNESS_H
#define TESTS_ENGINE_HARNESS_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "support/fake_model.h"

#define H_CHOICES 8
#define H_TOKENS 512

struct rig_options {
    int32_t blocks, block_tokens, max_batch, chunk;
    bool no_prefix;
    enum dtype dtype;
    int32_t windows[2]; /* of the two layers */
    int32_t slack;
    const struct grammar_vocab *vocab;
};

struct rig {
    struct fake_model model;
    struct engine *engine;
    void *pool;
    struct kv_layout layout;
    int32_t layers_seen; /* layer_done calls */
};

/* One request and what became of it; `user` of its group. */
struct ask {
    int32_t prompt_ids[H_TOKENS];
    struct msg_ids prompt;
    struct msg_sampling spec;
    int32_t n;
    int32_t said[H_CHOICES][H_TOKENS], n_said[H_CHOICES];
    float logprob[H_CHOICES][H_TOKENS];
    bool ended[H_CHOICES], stopped[H_CHOICES];
    struct msg_finish finish[H_CHOICES];
    bool failed;
    enum status status;
    struct msg_score score[H_TOKENS]; /* by position; id -1: none */
    int32_t n_scores, score_from;
    int32_t chunk_begin[64], chunk_end[64], n_chunks;
    group_id group;
    bool live;
    int32_t have;
    int32_t base[H_CHOICES]; /* tokens that were emitted before this group */
};

static inline void on_token(void *ctx, void *user, const struct msg_token *t)
{
    (void)ctx;
    struct ask *a = user;
    cr_assert(t->choice >= 0 && t->choice < a->n);
    cr_assert_eq(t->position, a->n_said[t->choice], "choice %d: position %d after %d", t->choice,
                 t->position, a->n_said[t->choice]);
    cr_assert_not(a->ended[t->choice]);
    cr_assert_not(a->failed);
    a->logprob[t->choice][t->position] = t->logprob;
    a->said[t->choice][a->n_said[t->choice]++] = t->id;
}

static inline void on_score(void *ctx, void *user, const struct msg_score *s)
{
    (void)ctx;
    struct ask *a = user;
    cr_assert_eq(s->position, a->score_from + a->n_scores++);
    cr_assert_eq(a->n_said[0], 0, "a score after a token");
    a->score[s->position] = *s;
}

static inline void on_finish(void *ctx, void *user, const struct msg_finish *f)
{
    (void)ctx;
    struct ask *a = user;
    cr_assert_not(a->ended[f->choice]);
    a->ended[f->choice] = true;
    a->finish[f->choice] = *f;
}

static inline void on_failed(void *ctx, void *user, enum status status, const char *why)
{
    (void)ctx;
    struct ask *a = user;
    cr_assert_not(a->failed);
    cr_assert_not_null(why);
    a->failed = true;
    a->status = status;
}

static inline void on_chunk(void *ctx, void *user, int32_t begin, int32_t end)
{
    (void)ctx;
    struct ask *a = user;
    cr_assert(a->n_chunks < 64);
    a->chunk_begin[a->n_chunks] = begin;
    a->chunk_end[a->n_chunks++] = end;
}

static inline void on_layer(void *ctx, int32_t layer)
{
    struct rig *r = ctx;
    cr_assert_eq(layer, r->layers_seen % r->model.layers);
    r->layers_seen++;
}

static inline void rig_open(struct rig *r, struct rig_options o)
{
    *r = (struct rig){.model = fake_model_default()};
    if (o.windows[0] || o.windows[1])
        fake_slide(&r->model, o.windows, 2, o.slack);
    r->layout = fake_layout(&r->model, o.dtype, o.block_tokens ? o.block_tokens : 4,
                            o.blocks ? o.blocks : 256);
    r->pool = malloc(kv_pool_bytes(&r->layout));
    memset(r->pool, 0xa5, kv_pool_bytes(&r->layout));
    struct engine_args args = {.runner = fake_runner(&r->model),
                               .events = {.token = on_token,
                                          .score = on_score,
                                          .finish = on_finish,
                                          .failed = on_failed,
                                          .chunk = on_chunk,
                                          .layer_done = on_layer,
                                          .ctx = r},
                               .pool = r->pool,
                               .layout = r->layout,
                               .prefix_cache = !o.no_prefix,
                               .max_batch = o.max_batch ? o.max_batch : 16,
                               .chunk_tokens_max = o.chunk ? o.chunk : 32,
                               .step_budget_ns = 50000000,
                               .max_groups = 64,
                               .salt = 7,
                               .grammar_vocab = o.vocab};
    struct error err = {0};
    cr_assert_eq(engine_create(&args, &r->engine, &err), ST_OK, "%s", err.text);
}

static inline void rig_close(struct rig *r)
{
    engine_destroy(r->engine);
    free(r->pool);
}

static inline struct ask *ask_new(uint64_t seed, int32_t prompt_tokens, int32_t n)
{
    struct ask *a = calloc(1, sizeof *a);
    struct rng rng = rng_seed(seed);
    for (int32_t i = 0; i < prompt_tokens; i++)
        a->prompt_ids[i] = 1 + (int32_t)rng_below(&rng, 63);
    a->prompt = (struct msg_ids){a->prompt_ids, (uint32_t)prompt_tokens};
    a->n = n;
    a->spec = sampling_default();
    a->spec.seed = seed;
    a->spec.max_tokens = 20;
    return a;
}

static inline struct engine_request ask_request(struct ask *a)
{
    return (struct engine_request){.prompt = a->prompt,
                                   .n = a->n,
                                   .sampling = a->spec,
                                   .cache_salt = "",
                                   .credits = 1 << 20,
                                   .user = a};
}

static inline enum status ask_reserve_as(struct rig *r, struct ask *a,
                                         const struct engine_request *req)
{
    struct error err = {0};
    enum status st = engine_reserve(r->engine, req, &a->group, &a->have, &err);
    a->live = st == ST_OK;
    cr_assert(st == ST_OK || err.text[0] != 0);
    engine_check(r->engine);
    return st;
}

static inline enum status ask_reserve(struct rig *r, struct ask *a)
{
    struct engine_request req = ask_request(a);
    return ask_reserve_as(r, a, &req);
}

static inline void ask_start(struct rig *r, struct ask *a)
{
    cr_assert_eq(ask_reserve(r, a), ST_OK);
    engine_fill_here(r->engine, a->group);
    engine_check(r->engine);
}

static inline void rig_step(struct rig *r)
{
    struct engine_step_info info;
    engine_step(r->engine, &info);
    engine_step_took(r->engine, &info, 1000000);
    engine_check(r->engine);
}

static inline void rig_run(struct rig *r)
{
    for (int i = 0; engine_runnable(r->engine); i++) {
        cr_assert(i < 20000, "the engine does not come to rest");
        rig_step(r);
    }
}

static inline void ask_release(struct rig *r, struct ask *a)
{
    engine_release(r->engine, a->group, true, true);
    a->live = false;
    engine_check(r->engine);
}

/* Everything a choice said is what the model says when nobody disturbs it. */
static inline void ask_expect(struct rig *r, struct ask *a, const char *what)
{
    for (int32_t c = 0; c < a->n; c++) {
        if (a->stopped[c])
            continue;
        int32_t want[H_TOKENS];
        enum msg_finish_reason reason;
        int32_t n = fake_generate(&r->model, &a->prompt, NULL, &a->spec, c, want, &reason);
        cr_assert(a->ended[c], "%s: choice %d has not ended", what, c);
        cr_assert_eq(a->n_said[c], n, "%s: choice %d said %d tokens, %d expected", what, c,
                     a->n_said[c], n);
        for (int32_t i = 0; i < n; i++)
            cr_assert_eq(a->said[c][i], want[i], "%s: choice %d differs at %d", what, c, i);
        cr_assert_eq(a->finish[c].reason, reason, "%s: choice %d", what, c);
        cr_assert_eq(a->finish[c].stop_id, reason == MSG_FINISH_STOP ? want[n - 1] : -1, "%s",
                     what);
    }
}

static inline void rig_expect_all_free(struct rig *r)
{
    struct engine_load load;
    engine_load(r->engine, &load);
    cr_assert_eq(load.blocks.free + load.blocks.cached, load.blocks.total);
    engine_drop_cache(r->engine);
    engine_check(r->engine);
    engine_load(r->engine, &load);
    cr_assert_eq(load.blocks.free, load.blocks.total);
}

#endif
