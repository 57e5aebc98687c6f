#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode-node/decode.h"
#include "prefill-node/prefill.h"
#include "sim/sim_world.h"

#define HORIZON_NS (300 * NS_PER_S)
#define EVENTS_MAX 400000

const char *const sim_plant_names[PLANTS] = {"none",        "call-end-unseen", "other-values",
                                             "early-reuse", "landed-early",    "seed-lost",
                                             "block-lost",  "no-deadline",     "said-twice"};
const char *const sim_plant_reasons[PLANTS] = {"",
                                               "are left",
                                               "expected",
                                               "expected",
                                               "expected",
                                               "expected",
                                               "quarantined for ever",
                                               "has not ended",
                                               "tokens"};
const char *const sim_event_names[SIM_EVENTS] = {
    "kill-prefill", "kill-decode", "kill-router", "call-break", "slow",
    "cancel",       "stop",        "busy",        "preempt",    "drain"};
const char *const sim_fault_names[SIM_FRAME_FAULTS] = {"lose",   "double", "delay",
                                                       "damage", "break",  "reorder"};

void world_fail(struct world *w, const char *fmt, ...)
{
    if (w->result->failed)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->result->why, sizeof(w->result->why), fmt, ap);
    va_end(ap);
    w->result->failed = true;
}

bool world_chance(struct world *w, double p)
{
    return rng_double(&w->rng) < p;
}

int64_t world_between(struct world *w, int64_t lo, int64_t hi)
{
    return lo + (int64_t)rng_below(&w->rng, (uint64_t)(hi - lo + 1));
}

/* ---- making a world ---- */

static void make_nodes(struct world *w)
{
    int prefills = (int)world_between(w, 0, 2);
    int decodes = (int)world_between(w, prefills == 0 ? 2 : 1, 2);
    w->config.router.n_nodes = 0;
    for (int i = 0; i < prefills + decodes; i++) {
        struct sim_node *n = &w->nodes[w->n_nodes++];
        bool prefill = i < prefills;
        n->world = w;
        n->index = i;
        n->ops = prefill ? &prefill_role_ops : &decode_role_ops;
        n->aggregated = !prefill && prefills > 0 && world_chance(w, 0.1);
        n->model = fake_model_default();
        if (w->windows[1])
            fake_slide(&n->model, w->windows, 2, w->slack);
        if (w->plant == PLANT_LAW2_OTHER_VALUES && prefill)
            n->model.weights = 1234567;
        static const int32_t sizes[] = {4, 7, 8, 16};
        int32_t block_tokens = sizes[rng_below(&w->rng, 4)];
        /* Some prefill nodes are so small that they must refuse now and then. */
        int32_t tokens = prefill && world_chance(w, 0.3)
                             ? (int32_t)world_between(w, 125, 160)
                             : (int32_t)world_between(w, 160, prefill ? 350 : 700);
        enum dtype dtype = (enum dtype)rng_below(&w->rng, DTYPE_KV_COUNT);
        n->layout = fake_layout(&n->model, dtype, block_tokens, 0);
        n->layout.blocks = (tokens / block_tokens + 2) * kv_groups_of(&n->layout);
        snprintf(n->name, sizeof(n->name), "%s%d", prefill ? "p" : "d", i);
        struct config_node *c = &w->config.router.nodes[w->config.router.n_nodes++];
        c->role = prefill ? ROLE_PREFILL : n->aggregated ? ROLE_BOTH : ROLE_DECODE;
        c->address = strdup(n->name);
        sim_node_boot(w, n);
    }
}

/* In a share of the runs layers slide: one of them, or both. */
static void make_windows(struct world *w)
{
    struct rng own = rng_seed(w->seed ^ 0x77696e646f77); /* the other draws stay what they are */
    if (rng_below(&own, 3) > 0)
        return;
    w->windows[0] = (int32_t)(rng_below(&own, 2) * (1 + rng_below(&own, 24)));
    w->windows[1] = 1 + (int32_t)rng_below(&own, 24);
    w->slack = (int32_t)rng_below(&own, 24);
}

/* In a share of the runs clients ask for grammars. The vocabulary is one for all runs. */
static void make_letters(struct world *w)
{
    static struct letters letters;
    struct rng own = rng_seed(w->seed ^ 0x6c657474657273);
    if (rng_below(&own, 3) > 0)
        return;
    if (letters.vocab == NULL)
        letters_init(&letters);
    w->letters = &letters;
}

static void world_init(struct world *w)
{
    struct error err = {0};
    w->rng = rng_seed(w->seed);
    list_init(&w->calls);
    list_init(&w->messages);
    config_default(&w->config);
    w->fabric = fabric_create(sim_frame_fate, w);
    sim_make_faults(w);
    make_windows(w);
    make_letters(w);
    make_nodes(w);
    struct core_args args = {.config = &w->config,
                             .max_requests = 16,
                             .credit_window = (int32_t)world_between(w, 1, 12)};
    sim_core_effects(w, &args.effects);
    if (core_create(&args, &w->core, &err) != ST_OK)
        world_fail(w, "core: %s", err.text);
    w->n_clients = (int)world_between(w, 3, SIM_CLIENTS_MAX);
    for (int i = 0; i < w->n_clients; i++)
        sim_client_init(w, i);
}

static void world_fini(struct world *w)
{
    core_destroy(w->core);
    /* A run that was given up has data under way, and its time stands still: the dead wait for
     * nothing. */
    for (int i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].alive)
            fabric_kill(w->fabric, w->nodes[i].transport, 0);
    for (int i = 0; i < w->n_nodes; i++)
        sim_node_fini(&w->nodes[i]);
    sim_rpc_fini(w);
    fabric_destroy(w->fabric);
    config_fini(&w->config);
}

/* ---- time ---- */

static void maybe_kill(struct world *w)
{
    if (w->now_ns < w->next_kill_ns || w->kills_left == 0)
        return;
    w->kills_left--;
    w->next_kill_ns = w->kills_left ? w->now_ns + world_between(w, 0, 300 * NS_PER_MS) : NS_NEVER;
    if (world_chance(w, 0.3) && !w->router_dead) {
        sim_break_some_call(w);
        return;
    }
    struct sim_node *n = &w->nodes[rng_below(&w->rng, (uint64_t)w->n_nodes)];
    if (n->alive && !n->drain_ns && world_chance(w, 0.3))
        sim_node_drain(w, n);
    else if (n->alive)
        sim_node_die(w, n);
}

static int64_t next_time(struct world *w)
{
    int64_t next = fabric_next_ns(w->fabric);
#define EARLIER(t)                                                                                 \
    do {                                                                                           \
        int64_t t_ = (t);                                                                          \
        if (t_ < next)                                                                             \
            next = t_;                                                                             \
    } while (0)
    if (!list_empty(&w->messages))
        EARLIER(list_entry(w->messages.next, struct sim_msg, queue)->at_ns);
    for (int i = 0; i < w->n_nodes; i++)
        EARLIER(sim_node_wake_ns(&w->nodes[i]));
    EARLIER(w->next_kill_ns);
    if (!w->router_dead) {
        int64_t wake = core_wake_ns(w->core);
        EARLIER(wake > w->next_tick_ns ? wake : w->next_tick_ns);
        EARLIER(w->router_dies_ns);
    }
    for (int i = 0; i < w->n_clients && !w->router_dead; i++) {
        struct sim_client *k = &w->clients[i];
        if (!k->submitted)
            EARLIER(k->submit_ns);
        if (k->live && !k->cancelled)
            EARLIER(k->cancel_ns);
    }
#undef EARLIER
    return next > w->now_ns ? next : w->now_ns;
}

static void deliver_due(struct world *w)
{
    while (!list_empty(&w->messages) && !w->result->failed) {
        struct sim_msg *m = list_entry(w->messages.next, struct sim_msg, queue);
        if (m->at_ns > w->now_ns)
            return;
        list_remove(&m->queue);
        if (m->kind == MSG_CONSUMED && m->client < 0) { /* PLANT_LAW3 */
            struct sim_node *n = &w->nodes[-1 - m->client];
            struct mover_event ev = {.kind = MOVER_QUIET};
            memcpy(&ev.user, m->bytes.data, sizeof(ev.user));
            if (n->alive && m->tokens > 0)
                mover_forget(n->mover, ev.user);
            else if (n->alive)
                n->ops->on_mover(n->role, &ev, w->now_ns);
        } else {
            sim_deliver(w, m);
        }
        buf_fini(&m->bytes);
        free(m);
        w->result->events++;
    }
}

static bool all_quiet(struct world *w)
{
    for (int i = 0; i < w->n_clients && !w->router_dead; i++)
        if (!w->clients[i].ended)
            return false;
    list_for_each(it, &w->calls)
    {
        if (!list_entry(it, struct sim_call, in_world)->admin)
            return false;
    }
    for (int i = 0; i < w->n_nodes; i++) {
        struct node_role_load load;
        if (!w->nodes[i].alive)
            return false;
        w->nodes[i].ops->load(w->nodes[i].role, &load);
        if (load.calls > 0)
            return false;
    }
    return true;
}

/* Nothing may be left behind anywhere. */
static void check_end(struct world *w)
{
    for (int i = 0; i < w->n_clients && !w->router_dead; i++)
        if (!w->clients[i].ended) {
            const struct core_req *q = slots_get(w->core->requests, w->clients[i].id);
            world_fail(w,
                       "client %d has not ended: submitted %d, state %d, queued %d, calls %d/%d on "
                       "nodes %d/%d, window %lld: %lld unconsumed, %lld at D; %d of %d finished",
                       i, w->clients[i].submitted, q ? (int)q->sm.state : -1, q ? q->queued : 0,
                       q ? q->d_call != 0 : 0, q ? q->p_call != 0 : 0, q ? q->d_node : -1,
                       q ? q->p_node : -1, q ? (long long)q->window : 0,
                       q ? (long long)q->unconsumed : 0, q ? (long long)q->d_outstanding : 0,
                       q ? q->sm.finished : 0, q ? q->sm.n : 0);
        }
    for (int i = 0; i < w->n_nodes; i++) {
        struct sim_node *n = &w->nodes[i];
        struct engine_load l;
        struct mover_stats s;
        struct node_role_load r;
        if (!n->alive) {
            world_fail(w, "node %s is not back", n->name);
            return;
        }
        engine_load(n->engine, &l);
        mover_get_stats(n->mover, &s);
        n->ops->load(n->role, &r);
        if (l.blocks.quarantined != 0)
            world_fail(w, "%s: of %lld blocks %lld are quarantined for ever", n->name,
                       (long long)l.blocks.total, (long long)l.blocks.quarantined);
        if (r.calls != 0)
            world_fail(w, "%s: %d calls are left, with %d groups", n->name, r.calls, l.groups);
        if (l.groups != 0 || l.blocks.free + l.blocks.cached != l.blocks.total)
            world_fail(w, "%s: %d groups left; of %lld blocks %lld free, %lld cached", n->name,
                       l.groups, (long long)l.blocks.total, (long long)l.blocks.free,
                       (long long)l.blocks.cached);
        if (s.plans != 0 || s.offerings != 0)
            world_fail(w, "%s: %d plans, %d offerings are left", n->name, s.plans, s.offerings);
        if (n->draft)
            world_fail(w, "%s: a grammar is being compiled for ever", n->name);
        w->coverage->prefix_hits += l.prefix_hit_tokens_total;
        w->coverage->missing_rounds += s.missing_rounds;
        w->coverage->crc_failures += s.checksum_failures;
    }
    struct core_load cl;
    core_get_load(w->core, &cl);
    if (!w->router_dead && (cl.requests != 0 || cl.queued != 0))
        world_fail(w, "router: %d requests, %d queued are left", cl.requests, cl.queued);
}

static void world_step(struct world *w)
{
    w->now_ns = next_time(w);
    fabric_set_now(w->fabric, w->now_ns);
    if (!w->router_dead && w->now_ns >= w->router_dies_ns)
        sim_router_dies(w);
    maybe_kill(w);
    for (int i = 0; i < w->n_nodes; i++)
        if (!w->nodes[i].alive && w->now_ns >= w->nodes[i].back_ns)
            sim_node_boot(w, &w->nodes[i]);
    deliver_due(w);
    sim_clients_work(w);
    if (!w->router_dead && w->now_ns >= w->next_tick_ns) {
        core_tick(w->core, w->now_ns);
        w->next_tick_ns = w->now_ns + w->tick_lag_ns;
    }
    for (int i = 0; i < w->n_nodes; i++)
        sim_node_work(w, &w->nodes[i]);
    w->result->events++;
}

void sim_run(uint64_t seed, enum sim_plant plant, bool verbose, struct sim_coverage *coverage,
             struct sim_result *result)
{
    struct world *w = calloc(1, sizeof(*w));
    *result = (struct sim_result){0};
    w->seed = seed;
    w->plant = plant;
    w->verbose = verbose;
    w->coverage = coverage;
    w->result = result;
    world_init(w);
    while (!result->failed && !all_quiet(w)) {
        world_step(w);
        if (w->now_ns > HORIZON_NS || result->events > EVENTS_MAX) {
            check_end(w);
            world_fail(w, "no end after %.1f virtual seconds and %lld events",
                       (double)w->now_ns / 1e9, (long long)result->events);
        }
    }
    if (!result->failed) {
        /* Late frames and polls: nothing may come of them. */
        int64_t settle = w->now_ns + 3 * NS_PER_S;
        while (!result->failed && next_time(w) < settle)
            world_step(w);
        check_end(w);
    }
    result->virtual_ns = w->now_ns;
    world_fini(w);
    free(w);
}
