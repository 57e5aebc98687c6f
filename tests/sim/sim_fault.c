/* The weather of a run, and the fate of every frame of the KV plane. */
#include "kvtransfer/mover_internal.h"
#include "sim/sim_world.h"

void sim_make_faults(struct world *w)
{
    /* Each run has its own weather; some are calm, so that the happy path is seen as well. */
    bool calm = world_chance(w, 0.15);
    double scale = calm ? 0 : rng_double(&w->rng);
    w->lose = 0.10 * scale * (double)rng_below(&w->rng, 2);
    w->doubled = 0.10 * scale * (double)rng_below(&w->rng, 2);
    w->delay = 0.30 * scale * (double)rng_below(&w->rng, 2);
    w->damage = 0.10 * scale * (double)rng_below(&w->rng, 2);
    w->break_link = 0.02 * scale * (double)rng_below(&w->rng, 2);
    w->delay_ns_max = world_between(w, NS_PER_MS, 50 * NS_PER_MS);
    w->kills_left = calm ? 0 : (int)rng_below(&w->rng, REQUEST_DEATHS_MAX);
    w->next_kill_ns = w->kills_left ? world_between(w, 0, 500 * NS_PER_MS) : NS_NEVER;
    w->router_dies_ns =
        world_chance(w, 0.05) ? world_between(w, 50 * NS_PER_MS, 600 * NS_PER_MS) : NS_NEVER;
    if (w->plant == PLANT_LAW5_SEED_LOST) {
        w->kills_left = 2;
        w->next_kill_ns = world_between(w, 20 * NS_PER_MS, 300 * NS_PER_MS);
    }
    if (w->plant != PLANT_NONE)
        w->router_dies_ns = NS_NEVER;
    if (w->plant == PLANT_LAW7_NO_DEADLINE)
        w->lose = 0.2;
    if (w->plant == PLANT_LAW3_EARLY_REUSE) {
        w->delay = 0.7;
        w->delay_ns_max = 150 * NS_PER_MS;
    }
    /* What comes between two turns of the router finds the consequences of the other undone. */
    w->tick_lag_ns = world_chance(w, 0.5) ? world_between(w, 0, 3 * NS_PER_MS) : 0;
}

static bool same_ticket(const struct msg_ticket *a, const struct msg_ticket *b)
{
    return a->w[0] == b->w[0] && a->w[1] == b->w[1];
}

static int landing_of(const struct sim_node *n, const struct msg_ticket *ticket)
{
    for (int32_t i = 0; n->mover && i < n->mover->args.max_plans; i++)
        if (n->mover->plans[i].used && same_ticket(&n->mover->plans[i].ticket, ticket))
            return (int)n->mover->plans[i].landing.state;
    return SIM_LANDING_NONE;
}

static int offering_of(const struct sim_node *n, const struct msg_ticket *ticket)
{
    for (int32_t i = 0; n->mover && i < n->mover->args.max_offerings; i++)
        if (n->mover->sendings[i].used && same_ticket(&n->mover->sendings[i].ticket, ticket))
            return (int)n->mover->sendings[i].ranks[0].offering.state;
    return SIM_OFFERING_NONE;
}

/* Addresses begin with the node's name: p0, d1. */
static struct sim_node *node_of(struct world *w, const char *address)
{
    return &w->nodes[address[1] - '0'];
}

static void count(struct world *w, enum sim_fault fault, const struct wire_frame *f,
                  const struct fabric_message *m)
{
    bool to_d = f->kind == WIRE_OFFER || f->kind == WIRE_FILLED;
    const struct sim_node *d = node_of(w, to_d ? m->to : m->from);
    const struct sim_node *p = node_of(w, to_d ? m->from : m->to);
    w->coverage->frames[fault][f->kind]++;
    w->coverage->landings[fault][landing_of(d, &f->ticket)]++;
    w->coverage->offerings[fault][offering_of(p, &f->ticket)]++;
}

void sim_frame_fate(void *ctx, const struct fabric_message *m, struct fabric_fate *fate)
{
    struct world *w = ctx;
    struct wire_frame frame;
    if (wire_get(m->frame, m->frame_bytes, &frame) != ST_OK) {
        world_fail(w, "a malformed frame was sent");
        return;
    }
    int64_t *last = &w->arrives_ns[node_of(w, m->from)->index][node_of(w, m->to)->index];
    fate->delay_ns = world_between(w, 5 * NS_PER_US, 100 * NS_PER_US);
    fate->pull_ns = world_between(w, 0, world_chance(w, w->delay) ? w->delay_ns_max : NS_PER_MS);
    if (world_chance(w, w->lose)) {
        fate->lose = true;
        count(w, SIM_LOSE, &frame, m);
    }
    if (world_chance(w, w->doubled)) {
        fate->copies = 1;
        count(w, SIM_DOUBLE, &frame, m);
    }
    if (world_chance(w, w->delay)) {
        fate->delay_ns = world_between(w, 0, w->delay_ns_max);
        count(w, SIM_DELAY, &frame, m);
    }
    if (m->payload_bytes > 0 && world_chance(w, w->damage)) {
        fate->damage = true;
        count(w, SIM_DAMAGE, &frame, m);
    }
    if (world_chance(w, w->break_link)) {
        fate->break_link = true;
        count(w, SIM_BREAK, &frame, m);
        *last = 0;
    } else if (!fate->lose) {
        int64_t arrives = w->now_ns + fate->delay_ns;
        if (arrives < *last)
            count(w, SIM_REORDER, &frame, m);
        else
            *last = arrives;
    }
    wire_frame_fini(&frame);
}
