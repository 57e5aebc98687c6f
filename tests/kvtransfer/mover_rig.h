/* Movers of several ranks over the loopback fabric, on the fabric's time: what the tests of movers
 * share. Everything is static: one program, one world. */
#ifndef TESTS_KV_MOVER_RIG_H
#define TESTS_KV_MOVER_RIG_H

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"
#include "kvtransfer/kv_rig.h"
#include "kvtransfer/transport_loopback.h"

#define RANKS 2
#define HEADS 6
#define TOKENS_MAX 120

struct bad_net {
    struct rng rng;
    int32_t per_1000; /* of each misfortune */
    bool breaks;
    bool break_next; /* the next frame's link goes down, a millisecond from now */
};

static void fate(void *ctx, const struct fabric_message *m, struct fabric_fate *f)
{
    struct bad_net *n = ctx;
    uint64_t p = (uint64_t)n->per_1000;
    if (strcmp(m->from, "slow") == 0)
        f->pull_ns = 100 * NS_PER_MS;
    if (n->break_next) {
        n->break_next = false;
        f->break_link = true;
        f->delay_ns = NS_PER_MS;
        return;
    }
    if (p == 0) /* a good one keeps the order, too */
        return;
    f->delay_ns = (int64_t)rng_below(&n->rng, 1000 * (p + 1)) * NS_PER_US;
    f->pull_ns = (int64_t)rng_below(&n->rng, 3000 * (p + 1)) * NS_PER_US;
    f->lose = rng_below(&n->rng, 1000) < p;
    f->damage = m->payload_bytes > 0 && rng_below(&n->rng, 1000) < p;
    f->copies = rng_below(&n->rng, 1000) < p ? 1 : 0;
    if (n->breaks && rng_below(&n->rng, 200) == 0) {
        n->breaks = false; /* the second one would be the end of it */
        f->break_link = true;
    }
}

struct rank {
    struct rig_pool pool;
    struct transport *transport;
    struct mover *mover;
    int32_t blocks[RIG_BLOCKS], n;
    bool events[4];
    enum status status;
    char name[8];
};

struct world {
    struct fabric *fabric;
    struct bad_net net;
    struct rank p[RANKS], d[RANKS];
    int n_p, n_d;
    int32_t have, tokens;
    int64_t now;
};

struct shape {
    int n_p, n_d;
    int32_t per_1000, staging;
    bool maps, breaks;
};

static const struct msg_ticket ticket = {.w = {1, 2}};

static void rank_open(struct world *w, struct rank *r, const struct shape *s, int index_of[2])
{
    struct rng *g = &w->net.rng;
    static const int32_t sizes[] = {4, 16, 32};
    int heads = HEADS / index_of[1];
    struct kv_layout l = {.layers = 3,
                          .kv_heads = heads,
                          .head_dim = 16,
                          .value_dim = 16,
                          .block_tokens = sizes[rng_below(g, 3)],
                          .dtype = (enum dtype)rng_below(g, DTYPE_KV_COUNT)};
    r->n = (w->tokens + l.block_tokens - 1) / l.block_tokens;
    l.blocks = r->n + 2;
    rig_pool_open(&r->pool, &l, index_of[0] * heads);
    rig_blocks(r->blocks, r->n, l.blocks, rng_next(g));
    cr_assert_eq(fabric_add(w->fabric, r->name, s->maps, &r->pool.view, &r->transport), ST_OK);
    const struct mover_args args = {.transports = {r->transport},
                                    .n_transports = 1,
                                    .pool = r->pool.view,
                                    .staging_buffers = s->staging,
                                    .max_plans = 4,
                                    .max_offerings = 4,
                                    .window = 3};
    cr_assert_eq(mover_create(&args, &r->mover, NULL), ST_OK);
}

static void world_open(struct world *w, const struct shape *s, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->net = (struct bad_net){rng_seed(seed), s->per_1000, s->breaks, false};
    w->fabric = fabric_create(fate, &w->net);
    w->n_p = s->n_p;
    w->n_d = s->n_d;
    w->tokens = 2 + (int32_t)rng_below(&w->net.rng, TOKENS_MAX - 1);
    w->have = (int32_t)rng_below(&w->net.rng, (uint64_t)w->tokens - 1);
    w->now = NS_PER_S;
    for (int i = 0; i < w->n_p; i++) {
        snprintf(w->p[i].name, sizeof(w->p[i].name), "p%d", i);
        rank_open(w, &w->p[i], s, (int[]){i, w->n_p});
        rig_fill(&w->p[i].pool.view, w->p[i].blocks, w->tokens, seed);
    }
    for (int i = 0; i < w->n_d; i++) {
        snprintf(w->d[i].name, sizeof(w->d[i].name), "d%d", i);
        rank_open(w, &w->d[i], s, (int[]){i, w->n_d});
    }
}

static void rank_close(struct rank *r)
{
    mover_destroy(r->mover);
    r->transport->ops->destroy(r->transport);
    rig_pool_close(&r->pool);
}

static void world_close(struct world *w)
{
    for (int i = 0; i < w->n_p; i++)
        rank_close(&w->p[i]);
    for (int i = 0; i < w->n_d; i++)
        rank_close(&w->d[i]);
    fabric_destroy(w->fabric);
}

static void begin(struct world *w)
{
    struct msg_rank_address to[RANKS];
    for (int i = 0; i < w->n_d; i++) {
        struct rank *d = &w->d[i];
        const struct mover_plan plan = {7, ticket, w->have, w->tokens, d->blocks, d->n};
        cr_assert_eq(mover_expect(d->mover, &plan), ST_OK);
        cr_assert_eq(mover_address(d->mover, &to[i], NULL), ST_OK);
    }
    for (int i = 0; i < w->n_p; i++) {
        struct rank *p = &w->p[i];
        struct msg_rank_address mine[RANKS];
        int n = 0;
        for (int k = 0; k < w->n_d; k++) /* those that share a head with this rank */
            if (to[k].head_begin < p->pool.view.head_base + HEADS / w->n_p &&
                to[k].head_end > p->pool.view.head_base)
                mine[n++] = to[k];
        const struct mover_send send = {.user = 9,
                                        .ticket = ticket,
                                        .token_begin = w->have,
                                        .token_end = w->tokens,
                                        .blocks = p->blocks,
                                        .n_blocks = p->n,
                                        .ranks = mine,
                                        .n_ranks = n,
                                        .deadline_ns = w->now + 300 * NS_PER_S};
        cr_assert_eq(mover_open(p->mover, &send, w->now), ST_OK);
    }
}

static void take_events(struct rank *r)
{
    struct mover_event ev;
    while (mover_next(r->mover, &ev)) {
        cr_assert_not(r->events[ev.kind], "%s: event %d twice", r->name, ev.kind);
        r->events[ev.kind] = true;
        if (ev.kind == MOVER_FAILED)
            r->status = ev.status;
    }
}

/* One turn of everybody, in the network's time. */
static void turn(struct world *w)
{
    int64_t next = fabric_next_ns(w->fabric), step = w->now + 20 * NS_PER_MS;
    w->now = next < step ? (next > w->now ? next : w->now + NS_PER_US) : step;
    fabric_set_now(w->fabric, w->now);
    for (int i = 0; i < w->n_p; i++) {
        mover_work(w->p[i].mover, w->now);
        take_events(&w->p[i]);
    }
    for (int i = 0; i < w->n_d; i++) {
        mover_work(w->d[i].mover, w->now);
        take_events(&w->d[i]);
    }
}

static void compute_layer(struct world *w, int32_t layer)
{
    for (int i = 0; i < w->n_p; i++) {
        mover_layer_ready(w->p[i].mover, 9, layer, w->tokens);
        if (layer == 2)
            mover_fill(w->p[i].mover, 9, NULL, 0, w->now);
    }
}

#endif
