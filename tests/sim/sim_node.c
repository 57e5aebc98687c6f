/* A node of the simulation: the real role, engine and mover; a step takes virtual time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode-node/decode.h"
#include "prefill-node/prefill.h"
#include "sim/sim_world.h"

static enum status eff_expect(void *ctx, const struct mover_plan *plan)
{
    struct sim_node *n = ctx;
    n->world->coverage->handoffs++;
    return mover_expect(n->mover, plan);
}

static void eff_forget(void *ctx, uint64_t user)
{
    mover_forget(((struct sim_node *)ctx)->mover, user);
}

static enum status eff_open(void *ctx, const struct mover_send *send)
{
    struct sim_node *n = ctx;
    return mover_open(n->mover, send, n->world->now_ns);
}

static void eff_layer(void *ctx, uint64_t user, int32_t layer, int32_t tokens)
{
    mover_layer_ready(((struct sim_node *)ctx)->mover, user, layer, tokens);
}

static void eff_fill(void *ctx, uint64_t user, const struct msg_token *first, uint32_t count)
{
    struct sim_node *n = ctx;
    mover_fill(n->mover, user, first, count, n->world->now_ns);
}

static void eff_close(void *ctx, uint64_t user)
{
    mover_close(((struct sim_node *)ctx)->mover, user);
}

/* Takes its time, while calls come and go. */
static void eff_compile(void *ctx, struct grammar_draft *draft)
{
    struct sim_node *n = ctx;
    if (n->draft != NULL)
        world_fail(n->world, "%s: two drafts at once", n->name);
    n->draft = draft;
    n->draft_ns = n->world->now_ns + world_between(n->world, 0, 40 * NS_PER_MS);
}

static void compile(struct world *w, struct sim_node *n)
{
    struct engine_load before, after;
    struct grammar_draft *draft = n->draft;
    n->draft = NULL;
    grammar_draft_compile(draft);
    engine_load(n->engine, &before);
    n->ops->on_compiled(n->role, draft, w->now_ns);
    engine_load(n->engine, &after);
    w->coverage->compiled++;
    w->coverage->compiled_for_none += after.groups == before.groups;
    w->coverage->compiled_for_many += after.groups > before.groups + 1;
}

/* PLANT_LAW3: the role is told at once that what it forgets is quiet; the mover hears of it much
 * later. */
static void forget_quietly(void *ctx, uint64_t user)
{
    struct sim_node *n = ctx;
    struct sim_msg *late =
        sim_post(n->world, n->world->now_ns + 200 * NS_PER_MS, MSG_CONSUMED, NULL);
    late->client = -1 - n->index;
    late->tokens = 1;
    buf_append(&late->bytes, &user, sizeof(user));
    struct sim_msg *m = sim_post(n->world, n->world->now_ns, MSG_CONSUMED, NULL);
    m->client = -1 - n->index;
    buf_append(&m->bytes, &user, sizeof(user));
}

static void boot_engine(struct world *w, struct sim_node *n)
{
    struct error err = {0};
    const struct engine_args args = {.runner = fake_runner(&n->model),
                                     .events = n->ops->engine_events(n->role),
                                     .pool = n->pool,
                                     .layout = n->layout,
                                     .prefix_cache = true,
                                     .max_batch = 6,
                                     .chunk_tokens_max = 24,
                                     .step_budget_ns = 5 * NS_PER_MS,
                                     .max_groups = 40,
                                     .salt = 99,
                                     .grammar_vocab = w->letters ? w->letters->vocab : NULL};
    if (engine_create(&args, &n->engine, &err) != ST_OK)
        world_fail(w, "engine_create: %s", err.text);
    n->ops->set_engine(n->role, n->engine);
}

void sim_node_boot(struct world *w, struct sim_node *n)
{
    struct error err = {0};
    n->boot = rng_next(&w->rng) | 1;
    n->alive = true;
    n->drain_ns = 0;
    n->busy_until_ns = w->now_ns;
    n->pool = calloc(1, kv_pool_bytes(&n->layout));
    const struct kv_pool_view view = {.base = n->pool, .layout = n->layout};
    char address[40];
    snprintf(address, sizeof(address), "%s-%llx", n->name, (unsigned long long)n->boot);
    bool maps = rng_below(&w->rng, 2) == 0;
    if (fabric_add(w->fabric, address, maps, &view, &n->transport) != ST_OK)
        world_fail(w, "fabric_add");
    struct mover_args ma = {.n_transports = 1,
                            .pool = view,
                            .staging_buffers = 2,
                            .max_plans = 16,
                            .max_offerings = 16,
                            .window = 2};
    ma.transports[0] = n->transport;
    if (mover_create(&ma, &n->mover, &err) != ST_OK ||
        mover_address(n->mover, &n->address, &err) != ST_OK)
        world_fail(w, "mover: %s", err.text);
    struct node_role_args ra = {
        .effects = {.ctx = n,
                    .expect = eff_expect,
                    .forget = w->plant == PLANT_LAW3_EARLY_REUSE ? forget_quietly : eff_forget,
                    .offer_open = eff_open,
                    .offer_layer = eff_layer,
                    .offer_fill = eff_fill,
                    .offer_close = eff_close,
                    .compile = eff_compile},
        .max_calls = 8,
        .ranks = &n->address,
        .n_ranks = 1,
        .max_context = n->model.max_context,
        .fingerprint = {7, 7},
        .aggregated = n->aggregated};
    sim_role_calls(&ra.effects);
    if (n->ops->create(&ra, &n->role, &err) != ST_OK)
        world_fail(w, "role: %s", err.text);
    boot_engine(w, n);
}

void sim_node_fini(struct sim_node *n)
{
    if (!n->role)
        return;
    grammar_draft_free(n->draft);
    n->draft = NULL;
    mover_destroy(n->mover);
    n->transport->ops->destroy(n->transport);
    engine_destroy(n->engine);
    n->ops->destroy(n->role);
    free(n->pool);
    n->role = NULL;
    n->alive = false;
}

static void count_requests_on(struct world *w, const struct sim_node *n, enum sim_event e)
{
    for (slot_id id = slots_next(w->core->requests, 0); id && !w->router_dead;
         id = slots_next(w->core->requests, id)) {
        struct core_req *q = slots_get(w->core->requests, id);
        if (q->d_node == n->index || q->p_node == n->index)
            sim_count_event(w, e, q);
    }
}

void sim_node_drain(struct world *w, struct sim_node *n)
{
    count_requests_on(w, n, SIM_DRAIN);
    n->drain_ns = w->now_ns + world_between(w, 0, 100 * NS_PER_MS);
    n->ops->drain(n->role, false);
}

/* As the node's loop does: what is left is ended when the time is up, and then it goes. */
static bool drained(struct world *w, struct sim_node *n)
{
    struct node_role_load load;
    if (!n->drain_ns)
        return false;
    if (w->now_ns >= n->drain_ns && n->drain_ns != NS_NEVER) {
        n->drain_ns = NS_NEVER;
        n->ops->drain(n->role, true);
        n->ops->flush(n->role, w->now_ns);
    }
    n->ops->load(n->role, &load);
    return load.calls == 0;
}

void sim_node_die(struct world *w, struct sim_node *n)
{
    int64_t notice = world_between(w, 0, 30 * NS_PER_MS);
    if (!n->drain_ns)
        count_requests_on(w, n, n->ops == &decode_role_ops ? SIM_KILL_D : SIM_KILL_P);
    sim_calls_of_dead_node(w, n, notice);
    fabric_kill(w->fabric, n->transport, notice);
    n->alive = false;
    sim_node_fini(n);
    n->back_ns = w->now_ns + world_between(w, 50 * NS_PER_MS, 2 * NS_PER_S);
}

/* PLANT_LAW4: some plan is reported as landed although it is not. */
static void plant_landed_early(struct world *w, struct sim_node *n)
{
    struct node_role_load load;
    n->ops->load(n->role, &load);
    if (load.calls == 0 || !world_chance(w, 0.02))
        return;
    /* Handles of calls are slots with small generations: try them. */
    for (uint64_t slot = 0; slot < 8; slot++)
        for (uint64_t generation = 1; generation < 12; generation++) {
            const struct mover_event ev = {.kind = MOVER_LANDED, .user = generation << 32 | slot};
            n->ops->on_mover(n->role, &ev, w->now_ns);
        }
}

/* PLANT_LAW6: now and then the word that quarantined blocks are quiet is dropped. */
static bool lose_blocks(struct world *w, struct sim_node *n)
{
    struct engine_load l;
    engine_load(n->engine, &l);
    return l.blocks.quarantined > 0 && world_chance(w, 0.2);
}

static void step(struct world *w, struct sim_node *n)
{
    struct engine_step_info info;
    engine_step(n->engine, &info);
    int64_t took = world_between(w, 100 * NS_PER_US, 3 * NS_PER_MS);
    engine_step_took(n->engine, &info, took);
    n->busy_until_ns = w->now_ns + took;
    n->ops->flush(n->role, w->now_ns);
}

bool sim_node_work(struct world *w, struct sim_node *n)
{
    struct mover_event ev;
    bool any = false;
    if (!n->alive)
        return false;
    /* PLANT_LAW7: for the mover no time passes. */
    int64_t now_ns = w->plant == PLANT_LAW7_NO_DEADLINE ? 1 : w->now_ns;
    for (int i = 0; i < 100 && mover_work(n->mover, now_ns); i++)
        any = true;
    while (mover_next(n->mover, &ev)) {
        any = true;
        if (ev.kind == MOVER_QUIET && w->plant == PLANT_LAW6_BLOCK_LOST && lose_blocks(w, n))
            continue;
        if (ev.kind == MOVER_DELIVERED || ev.kind == MOVER_LANDED || ev.kind == MOVER_QUIET ||
            ev.kind == MOVER_FAILED)
            n->ops->on_mover(n->role, &ev, w->now_ns);
    }
    if (n->draft && w->now_ns >= n->draft_ns) {
        any = true;
        compile(w, n);
    }
    if (w->plant == PLANT_LAW4_LANDED_EARLY && n->ops == &decode_role_ops)
        plant_landed_early(w, n);
    n->ops->flush(n->role, w->now_ns);
    if (w->now_ns >= n->busy_until_ns && engine_runnable(n->engine)) {
        step(w, n);
        any = true;
    }
    engine_check(n->engine); /* LAW 6, after every event and step */
    if (drained(w, n))
        sim_node_die(w, n);
    return any;
}

int64_t sim_node_wake_ns(const struct sim_node *n)
{
    if (!n->alive)
        return n->back_ns;
    bool timeless = n->world->plant == PLANT_LAW7_NO_DEADLINE;
    int64_t wake = timeless ? NS_NEVER : mover_wake_ns(n->mover);
    if (engine_runnable(n->engine) && n->busy_until_ns < wake)
        wake = n->busy_until_ns;
    if (n->draft && n->draft_ns < wake)
        wake = n->draft_ns;
    if (n->drain_ns && n->drain_ns < wake)
        wake = n->drain_ns;
    return wake;
}
