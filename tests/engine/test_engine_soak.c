/* Random lives of random requests: whatever happens to them and around them, what they say is what
 * the model says, and after every single operation all invariants hold. A failing seed replays
 * alone. */
#include <stdio.h>

#include "harness.h"

#define ASKS 12
#define OPERATIONS 2500

struct life {
    struct ask *ask;
    bool filling, unquiet, resumable;
    group_id ghost; /* released, not quiet */
    int32_t *landing;
    int32_t n_landing, landing_from;
};

struct soak {
    struct rig rig;
    struct rng rng;
    struct life lives[ASKS];
    struct {
        int started, landed, preempted, cancelled, completed, quarantined, credits, stopped;
    } seen;
};

static int32_t below(struct soak *k, int32_t n)
{
    return (int32_t)rng_below(&k->rng, (uint64_t)n);
}

static struct ask *random_ask(struct soak *k)
{
    struct ask *a = ask_new(rng_next(&k->rng), 1 + below(k, 40), 1 + below(k, 4));
    int32_t shared = below(k, (int32_t)a->prompt.n + 1);
    struct ask *root = ask_new((uint64_t)below(k, 3), 40, 1); /* few beginnings, many ends */
    memcpy(a->prompt_ids, root->prompt_ids, (size_t)shared * sizeof(int32_t));
    free(root);
    a->spec.max_tokens = 1 + below(k, 40);
    a->spec.min_tokens = below(k, 4) == 0 ? below(k, 10) : 0;
    a->spec.temperature = (float)below(k, 3) / 2;
    a->spec.top_k = below(k, 3) * 7;
    a->spec.repetition_penalty = 1 + (float)below(k, 2) / 4;
    a->spec.logprobs = below(k, 4) - 1;
    return a;
}

static void forget(struct life *l)
{
    free(l->ask);
    free(l->landing);
    *l = (struct life){0};
}

/* A new request or the rest of an interrupted one. */
static void start(struct soak *k, struct life *l)
{
    struct ask *a = l->ask;
    struct msg_ids emitted[H_CHOICES];
    bool finished[H_CHOICES];
    for (int32_t c = 0; c < a->n; c++) {
        emitted[c] = (struct msg_ids){a->said[c], (uint32_t)a->n_said[c]};
        finished[c] = a->ended[c];
    }
    struct engine_request req = ask_request(a);
    req.emitted = emitted;
    req.finished = finished;
    req.credits = below(k, 2) ? 1 << 20 : below(k, 30);
    a->failed = false;
    if (ask_reserve_as(&k->rig, a, &req) != ST_OK)
        return;
    k->seen.started++;
    if (below(k, 2)) {
        engine_fill_here(k->rig.engine, a->group);
        return;
    }
    l->filling = true;
    const int32_t *blocks = engine_begin_fill(k->rig.engine, a->group, &l->n_landing);
    int32_t groups = kv_groups_of(&k->rig.layout), n = l->n_landing;
    int32_t stride = engine_table_stride(k->rig.engine, a->group);
    free(l->landing);
    l->landing = malloc((size_t)(groups * n) * sizeof *l->landing);
    l->landing_from = a->have;
    for (int32_t g = 0; g < groups; g++)
        memcpy(l->landing + g * n, blocks + g * stride, (size_t)n * sizeof *l->landing);
}

static void land(struct soak *k, struct life *l)
{
    struct ask *a = l->ask;
    struct rig *r = &k->rig;
    int32_t tokens = engine_transfer_tokens(r->engine, a->group), ids[2 * H_TOKENS];
    memcpy(ids, a->prompt_ids, a->prompt.n * sizeof *ids);
    if (a->n == 1)
        memcpy(ids + a->prompt.n, a->said[0], (size_t)a->n_said[0] * sizeof *ids);
    struct msg_ids all = {ids, (uint32_t)tokens};
    struct model_kv kv = {r->pool, r->layout};
    fake_fill(&r->model, &kv, (struct fake_table){l->landing, l->n_landing}, &all, a->have);
    struct msg_token first[H_CHOICES];
    struct msg_logprob top[1] = {{0, 0}};
    int32_t n_first = 0;
    bool with_first = below(k, 2);
    for (int32_t c = 0; with_first && c < a->n; c++) {
        int32_t next[H_TOKENS];
        enum msg_finish_reason reason;
        struct msg_ids said = {a->said[c], (uint32_t)a->n_said[c]};
        int32_t n = fake_generate(&r->model, &a->prompt, &said, &a->spec, c, next, &reason);
        if (n > 0 && !a->ended[c] && (a->n == 1 || a->n_said[c] == 0))
            first[n_first++] = (struct msg_token){.choice = c,
                                                  .position = a->n_said[c],
                                                  .id = next[0],
                                                  .top = top,
                                                  .n_top = a->spec.logprobs > 0};
    }
    engine_fill_done(r->engine, a->group, first, n_first);
    l->filling = false;
    k->seen.landed++;
}

static bool is_over(const struct ask *a)
{
    for (int32_t c = 0; c < a->n; c++)
        if (!a->ended[c])
            return false;
    return true;
}

static void leave(struct soak *k, struct life *l)
{
    bool quiet = !l->filling || below(k, 2);
    l->ghost = l->ask->group;
    engine_release(k->rig.engine, l->ask->group, below(k, 4) != 0, quiet);
    l->ask->live = false;
    l->filling = false;
    l->unquiet = !quiet;
    k->seen.quarantined += !quiet;
}

/* A transfer that was given up still writes to its landing blocks until it is quiet. */
static void scribble(struct soak *k, const struct life *l)
{
    struct model_kv kv = {k->rig.pool, k->rig.layout};
    int32_t junk[H_TOKENS] = {0};
    int32_t from = l->landing_from, to = l->n_landing * k->rig.layout.block_tokens;
    struct fake_model other = k->rig.model;
    other.weights = 99;
    struct msg_ids ids = {junk, (uint32_t)(to < H_TOKENS ? to : H_TOKENS)};
    fake_fill(&other, &kv, (struct fake_table){l->landing, l->n_landing}, &ids, from);
}

static void operate(struct soak *k, struct life *l)
{
    struct ask *a = l->ask;
    if (l->unquiet) {
        scribble(k, l);
        if (below(k, 4) == 0) {
            engine_quiet(k->rig.engine, l->ghost);
            l->unquiet = false;
        }
    } else if (!a) {
        l->ask = random_ask(k);
        start(k, l);
    } else if (!a->live) {
        start(k, l);
    } else if (a->failed) {
        cr_assert(a->status == ST_PREEMPTED || a->status == ST_NEVER_FITS);
        k->seen.preempted++;
        leave(k, l);
        if (a->status == ST_NEVER_FITS && !l->unquiet)
            forget(l);
    } else if (is_over(a)) {
        ask_expect(&k->rig, a, "soak");
        k->seen.completed++;
        leave(k, l);
        if (!l->unquiet)
            forget(l);
    } else {
        switch (below(k, 8)) {
        case 0:
            k->seen.cancelled++;
            leave(k, l); /* the client went; or the link broke and the request is resumed */
            if (!l->unquiet && below(k, 2))
                forget(l);
            break;
        case 1:
        case 2:
            if (l->filling)
                land(k, l);
            break;
        case 3:
            if (l->filling) {
                engine_fill_here(k->rig.engine, a->group);
                l->filling = false;
            }
            break;
        case 4: {
            int32_t c = below(k, a->n);
            if (!a->ended[c] && below(k, 4) == 0) {
                engine_stop_choice(k->rig.engine, a->group, c);
                a->ended[c] = a->stopped[c] = true;
                k->seen.stopped++;
            }
            break;
        }
        case 5:
        case 6:
            engine_credit(k->rig.engine, a->group, 1 + below(k, 20));
            k->seen.credits++;
            break;
        default:
            break;
        }
    }
}

static void live(uint64_t seed, bool slides)
{
    struct soak *k = calloc(1, sizeof *k);
    k->rng = rng_seed(seed);
    struct rig_options o = {.blocks = 40 + below(k, 60),
                            .block_tokens = 1 + below(k, 8),
                            .max_batch = 1 + below(k, 12),
                            .chunk = 1 + below(k, 40),
                            .no_prefix = below(k, 4) == 0,
                            .dtype = (enum dtype)below(k, DTYPE_KV_COUNT)};
    if (slides) {
        o.blocks *= 2;
        o.windows[0] = below(k, 2) * (1 + below(k, 16));
        o.windows[1] = 1 + below(k, 16);
        o.slack = below(k, 24);
    }
    rig_open(&k->rig, o);
    for (int i = 0; i < OPERATIONS; i++) {
        if (below(k, 2) && engine_runnable(k->rig.engine)) {
            rig_step(&k->rig);
        } else if (below(k, 400) == 0) {
            engine_drop_cache(k->rig.engine);
        } else {
            operate(k, &k->lives[below(k, ASKS)]);
        }
        engine_check(k->rig.engine);
    }
    cr_assert(k->seen.started > 0 && k->seen.completed > 0, "seed %d", (int)seed);
    for (int i = 0; i < ASKS; i++) {
        struct life *l = &k->lives[i];
        if (l->ask && l->ask->live)
            leave(k, l);
        if (l->unquiet)
            engine_quiet(k->rig.engine, l->ghost);
        forget(l);
    }
    rig_expect_all_free(&k->rig);
    rig_close(&k->rig);
    cr_log_info("seed %d: %d started, %d landed, %d preempted, %d cancelled, %d completed, "
                "%d quarantined, %d stopped\n",
                (int)seed, k->seen.started, k->seen.landed, k->seen.preempted, k->seen.cancelled,
                k->seen.completed, k->seen.quarantined, k->seen.stopped);
    free(k);
}

Test(soak, random_lives, .timeout = 280)
{
    for (uint64_t seed = 1; seed <= 16; seed++)
        live(seed, false);
}

Test(soak, random_lives_with_windows, .timeout = 280)
{
    for (uint64_t seed = 1; seed <= 24; seed++)
        live(seed, true);
}
