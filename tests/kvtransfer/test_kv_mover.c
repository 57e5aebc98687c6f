/* Movers over the loopback fabric, whole and faulty: pools of any two shapes and dtypes, one rank
 * to several and several to one, both ways of carrying data, cancelled at any moment. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"
#include "kvtransfer/kv_rig.h"
#include "kvtransfer/mover_internal.h"
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
                          .block_tokens = sizes[rng_below(g, 3)],
                          .dtype = (enum dtype)rng_below(g, DTYPE_COUNT)};
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

static bool all(const struct world *w, const struct rank *ranks, int n, enum mover_event_kind kind)
{
    for (int i = 0; i < n; i++)
        if (!ranks[i].events[kind])
            return false;
    return true;
}

static void compute_layer(struct world *w, int32_t layer)
{
    for (int i = 0; i < w->n_p; i++) {
        mover_layer_ready(w->p[i].mover, 9, layer, w->tokens);
        if (layer == 2)
            mover_fill(w->p[i].mover, 9, NULL, 0, w->now);
    }
}

/* To the end, with a check of every element; how many rounds of Missing it took. */
static int64_t deliver(const struct shape *s, uint64_t seed)
{
    struct world w;
    int64_t rounds = 0;
    world_open(&w, s, seed);
    begin(&w);
    for (int n = 0;
         n < 200000 && !(all(&w, w.d, w.n_d, MOVER_LANDED) && all(&w, w.p, w.n_p, MOVER_DELIVERED));
         n++) {
        if (n % 5 == 0 && n < 15)
            compute_layer(&w, n / 5);
        turn(&w);
        for (int i = 0; i < w.n_p; i++)
            cr_assert_not(w.p[i].events[MOVER_FAILED], "seed %llu: p%d: %s",
                          (unsigned long long)seed, i, status_name(w.p[i].status));
    }
    for (int i = 0; i < w.n_d; i++) {
        struct rank *d = &w.d[i];
        const int32_t range[2] = {w.have, w.tokens};
        struct mover_stats stats;
        mover_get_stats(d->mover, &stats);
        rounds += stats.missing_rounds;
        cr_assert(d->events[MOVER_LANDED], "seed %llu: d%d waits", (unsigned long long)seed, i);
        cr_assert_eq(rig_wrong(&d->pool.view, d->blocks, range, seed), 0, "seed %llu",
                     (unsigned long long)seed);
        cr_assert(mover_forget(d->mover, 7));
    }
    for (int i = 0; i < w.n_p; i++) {
        cr_assert(w.p[i].events[MOVER_DELIVERED]);
        cr_assert(mover_close(w.p[i].mover, 9));
    }
    turn(&w);
    bool quiet = all(&w, w.d, w.n_d, MOVER_QUIET) && all(&w, w.p, w.n_p, MOVER_QUIET);
    cr_assert(quiet);
    world_close(&w);
    return rounds;
}

static int64_t deliver_many(struct shape s, uint64_t seeds)
{
    int64_t rounds = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        s.maps = seed % 2;
        rounds += deliver(&s, seed);
    }
    return rounds;
}

Test(kv_mover, good_network, .timeout = 60)
{
    cr_assert_eq(deliver_many((struct shape){.n_p = 1, .n_d = 1, .staging = 8}, 60), 0);
}

Test(kv_mover, bad_network, .timeout = 120)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 8, .per_1000 = 100};
    cr_assert_gt(deliver_many(s, 100), 10, "nothing had to be repaired");
}

Test(kv_mover, link_lost, .timeout = 120)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 8, .per_1000 = 30, .breaks = true};
    deliver_many(s, 100);
}

Test(kv_mover, little_staging, .timeout = 120)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 1, .per_1000 = 50};
    deliver_many(s, 60);
}

Test(kv_mover, one_rank_to_two, .timeout = 120)
{
    deliver_many((struct shape){.n_p = 1, .n_d = 2, .staging = 8, .per_1000 = 50}, 50);
}

Test(kv_mover, two_ranks_to_one, .timeout = 120)
{
    deliver_many((struct shape){.n_p = 2, .n_d = 1, .staging = 8, .per_1000 = 50}, 50);
}

Test(kv_mover, two_ranks_to_two, .timeout = 120)
{
    deliver_many((struct shape){.n_p = 2, .n_d = 2, .staging = 8, .per_1000 = 50}, 50);
}

/* After QUIET not a byte of the plan's blocks changes, whatever is still under way; and the mover
 * is as good as new. */
Test(kv_mover, cancelled_at_any_moment, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct shape s = {.n_p = 1, .n_d = 1, .staging = 4, .per_1000 = 20, .maps = seed % 2 == 0};
        struct world w;
        struct mover_stats stats;
        world_open(&w, &s, seed);
        begin(&w);
        int when = (int)rng_below(&w.net.rng, 40), who = (int)rng_below(&w.net.rng, 3);
        for (int n = 0; n < when; n++) {
            if (n % 3 == 0 && n < 9)
                compute_layer(&w, n / 3);
            turn(&w);
        }
        struct rank *d = &w.d[0], *p = &w.p[0];
        if (who != 0)
            cr_assert(mover_forget(d->mover, 7));
        if (who != 1)
            cr_assert(mover_close(p->mover, 9));
        take_events(d);
        take_events(p);
        cr_assert_eq(d->events[MOVER_QUIET], who != 0);
        cr_assert_eq(p->events[MOVER_QUIET], who != 1);
        size_t bytes = kv_pool_bytes(&d->pool.view.layout);
        if (who != 0) {
            /* The name is used again at once, for another ticket: late data is not its data. */
            const struct mover_plan next = {7, {{3, 4}}, w.have, w.tokens, d->blocks, d->n};
            cr_assert_eq(mover_expect(d->mover, &next), ST_OK);
            memset(d->pool.view.base, 0x77, bytes);
        }
        if (who != 1)
            memset(p->pool.view.base, 0x33, kv_pool_bytes(&p->pool.view.layout));
        for (int n = 0; n < 300; n++)
            turn(&w);
        for (size_t i = 0; who != 0 && i < bytes; i++)
            cr_assert_eq(((char *)d->pool.view.base)[i], 0x77, "seed %llu: written after quiet",
                         (unsigned long long)seed);
        if (d->events[MOVER_LANDED] && who == 0) {
            /* landed, so it was whole before the sender's blocks went to others */
            const int32_t range[2] = {w.have, w.tokens};
            cr_assert_eq(rig_wrong(&d->pool.view, d->blocks, range, seed), 0, "seed %llu",
                         (unsigned long long)seed);
        }
        mover_get_stats(d->mover, &stats);
        cr_assert_eq(stats.staging_free, 4, "seed %llu", (unsigned long long)seed);
        mover_get_stats(p->mover, &stats);
        cr_assert_eq(stats.staging_free, 4, "seed %llu", (unsigned long long)seed);
        world_close(&w);
    }
}

/* Offers the first token of the first layer, all of its bits set, whose data takes long to come. */
static void offer_slowly(struct world *w, struct transport **t)
{
    struct msg_rank_address to;
    struct transport_link *link;
    const struct kv_layout *l = &w->p[0].pool.view.layout;
    static uint8_t payload[2 * HEADS * 16 * 4];
    struct wire_offer o = {.slice = {0, 1, 0, 1, 0, HEADS},
                           .dtype = l->dtype,
                           .head_dim = l->head_dim,
                           .block_tokens = l->block_tokens};
    struct buf b = {0};
    memset(payload, 0x3f, sizeof(payload));
    o.bytes = wire_slice_bytes(&o.slice, o.head_dim, o.dtype);
    cr_assert_leq(o.bytes, sizeof(payload));
    o.crc = hash_crc32c(0, payload, (size_t)o.bytes);
    cr_assert_eq(mover_address(w->d[0].mover, &to, NULL), ST_OK);
    cr_assert_eq(fabric_add(w->fabric, "slow", false, &w->p[0].pool.view, t), ST_OK);
    cr_assert_eq((*t)->ops->connect(*t, to.shm, strlen(to.shm), &link, NULL), ST_OK);
    wire_put_offer(&b, ticket, &o);
    cr_assert_eq((*t)->ops->send(link, b.data, b.len, payload, (size_t)o.bytes, 0), ST_OK);
    buf_fini(&b);
}

/* Another node has been asked before and is slow: when all has landed from elsewhere the blocks
 * belong to the sequence, and what comes then, good as it may be, is not written. */
Test(kv_mover, what_comes_after_landed_is_not_written)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 4};
    struct world w;
    struct transport *slow;
    struct transport_event ev;
    struct mover_stats stats;
    world_open(&w, &s, 11);
    w.have = 0;
    begin(&w);
    offer_slowly(&w, &slow);
    turn(&w);
    turn(&w);
    mover_get_stats(w.d[0].mover, &stats);
    cr_assert_eq(stats.staging_free, 3, "it is under way");
    for (int32_t layer = 0; layer < 3; layer++)
        compute_layer(&w, layer);
    for (int n = 0; n < 50 && !w.d[0].events[MOVER_LANDED]; n++)
        turn(&w);
    cr_assert(w.d[0].events[MOVER_LANDED]);
    mover_get_stats(w.d[0].mover, &stats);
    cr_assert_eq(stats.staging_free, 3, "it still is");
    int64_t begin_ns = w.now;
    while (w.now < begin_ns + 200 * NS_PER_MS) {
        turn(&w);
        while (slow->ops->poll(slow, &ev))
            ;
    }
    mover_get_stats(w.d[0].mover, &stats);
    cr_assert_eq(stats.staging_free, 4);
    const int32_t range[2] = {0, w.tokens};
    cr_assert_eq(rig_wrong(&w.d[0].pool.view, w.d[0].blocks, range, 11), 0);
    slow->ops->destroy(slow);
    world_close(&w);
}

/* Filled for fewer tokens than the plan waits for is a peer's mistake, not the end of the plan. */
static void fill_short(struct world *w, struct transport *liar, struct transport_link *link)
{
    const struct wire_filled m = {.kv_tokens = w->tokens - 1};
    struct mover_stats before, after;
    struct buf b = {0};
    mover_get_stats(w->d[0].mover, &before);
    wire_put_filled(&b, ticket, &m);
    cr_assert_eq(liar->ops->send(link, b.data, b.len, NULL, 0, 0), ST_OK);
    buf_fini(&b);
    for (int n = 0; n < 5; n++)
        turn(w);
    mover_get_stats(w->d[0].mover, &after);
    cr_assert_eq(after.frames_refused, before.frames_refused + 1);
    cr_assert_eq(after.missing_rounds, 0, "it has been answered");
}

Test(kv_mover, deadline)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 4, .per_1000 = 1000};
    struct world w;
    world_open(&w, &s, 1);
    begin(&w);
    compute_layer(&w, 2);
    for (int n = 0; n < 100000 && !w.p[0].events[MOVER_FAILED]; n++)
        turn(&w);
    cr_assert(w.p[0].events[MOVER_FAILED]);
    cr_assert_eq(w.p[0].status, ST_DEADLINE);
    world_close(&w);
}

/* Nobody listens there; and a ticket that nobody knows. */
Test(kv_mover, nobody_there)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 4};
    struct world w;
    struct mover_stats stats;
    world_open(&w, &s, 1);
    begin(&w);
    cr_assert(mover_forget(w.d[0].mover, 7));
    take_events(&w.d[0]);
    compute_layer(&w, 2);
    for (int n = 0; n < 50; n++)
        turn(&w);
    mover_get_stats(w.d[0].mover, &stats);
    cr_assert_gt(stats.unknown_tickets, 0);
    cr_assert_eq(stats.staging_free, 4);
    fabric_kill(w.fabric, w.d[0].transport, 0);
    for (int n = 0; n < 100 && !w.p[0].events[MOVER_FAILED]; n++)
        turn(&w);
    cr_assert(w.p[0].events[MOVER_FAILED]);
    cr_assert_eq(w.p[0].status, ST_LINK);
    world_close(&w);
}

Test(kv_mover, full)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 4};
    struct world w;
    world_open(&w, &s, 1);
    begin(&w);
    for (int i = 0; i < 4; i++) {
        const struct mover_plan plan = {100 + (uint64_t)i, {{50, (uint64_t)i}}, 0, 1, w.d[0].blocks,
                                        w.d[0].n};
        cr_assert_eq(mover_expect(w.d[0].mover, &plan), i < 3 ? ST_OK : ST_BUSY);
    }
    cr_assert_not(mover_forget(w.d[0].mover, 12345));
    cr_assert_not(mover_close(w.p[0].mover, 12345));
    world_close(&w);
}

/* What a mover must survive from a peer that speaks the protocol but lies. */
Test(kv_mover, lies)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 4, .maps = true};
    struct world w;
    struct mover_stats stats;
    struct msg_rank_address to;
    struct transport *liar;
    struct transport_link *link;
    world_open(&w, &s, 4);
    const struct mover_plan plan = {7, ticket, 0, w.tokens, w.d[0].blocks, w.d[0].n};
    cr_assert_eq(mover_expect(w.d[0].mover, &plan), ST_OK);
    cr_assert_eq(mover_address(w.d[0].mover, &to, NULL), ST_OK);
    cr_assert_eq(fabric_add(w.fabric, "liar", true, &w.p[0].pool.view, &liar), ST_OK);
    cr_assert_eq(liar->ops->connect(liar, to.shm, strlen(to.shm), &link, NULL), ST_OK);
    const struct kv_layout *l = &w.p[0].pool.view.layout;
    int32_t blocks[64];
    for (int lie = 0; lie < 7; lie++) {
        struct wire_offer o = {.slice = {0, 1, 0, 1, 0, HEADS},
                               .dtype = l->dtype,
                               .head_dim = l->head_dim,
                               .block_tokens = l->block_tokens,
                               .n_blocks = 1,
                               .blocks = blocks};
        blocks[0] = 0;
        if (lie == 0)
            blocks[0] = l->blocks; /* past the pool */
        if (lie == 1)
            o.slice.head_end = HEADS + 1;
        if (lie == 2)
            o.block_tokens = l->block_tokens * 2;
        if (lie == 3)
            o.dtype = l->dtype == DTYPE_F32 ? DTYPE_F16 : DTYPE_F32;
        if (lie == 4)
            o.head_dim = l->head_dim / 2;
        if (lie == 5)
            o.slice.layer_end = 99;
        if (lie == 6)
            o.n_blocks = 0; /* data that does not follow */
        o.bytes = wire_slice_bytes(&o.slice, o.head_dim, o.dtype);
        struct buf b = {0};
        wire_put_offer(&b, ticket, &o);
        cr_assert_eq(liar->ops->send(link, b.data, b.len, NULL, 0, 0), ST_OK);
        buf_fini(&b);
        for (int n = 0; n < 5; n++)
            turn(&w);
    }
    mover_get_stats(w.d[0].mover, &stats);
    cr_assert_eq(stats.frames_refused + stats.dropped_offers, 7, "%lld and %lld",
                 (long long)stats.frames_refused, (long long)stats.dropped_offers);
    cr_assert_eq(stats.staging_free, 4);
    const int32_t range[2] = {0, w.tokens};
    cr_assert_eq(rig_wrong(&w.d[0].pool.view, w.d[0].blocks, range, 4),
                 (int64_t)w.tokens * 3 * 2 * HEADS * l->head_dim, "something has landed");
    fill_short(&w, liar, link);
    liar->ops->destroy(liar);
    world_close(&w);
}

/* What comes out of a mapped pool does not wait for staging that pulls from others hold. */
Test(kv_mover, mapped_slices_need_no_staging)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 2, .maps = true};
    struct world w;
    world_open(&w, &s, 1);
    begin(&w);
    struct rank *d = &w.d[0], *p = &w.p[0];
    struct staging *held[2] = {mover_staging_take(d->mover, STAGING_PULL),
                               mover_staging_take(d->mover, STAGING_PULL)};
    for (int layer = 0; layer < 3; layer++)
        compute_layer(&w, layer);
    for (int n = 0; n < 200 && !p->events[MOVER_DELIVERED] && !p->events[MOVER_FAILED]; n++)
        turn(&w);
    cr_assert(d->events[MOVER_LANDED]);
    cr_assert(p->events[MOVER_DELIVERED]);
    const int32_t range[2] = {w.have, w.tokens};
    cr_assert_eq(rig_wrong(&d->pool.view, d->blocks, range, 1), 0);
    for (int i = 0; i < 2; i++)
        mover_staging_free(d->mover, held[i]);
    world_close(&w);
}

/* Bytes are counted where they have crossed: not what a broken link lost. And the transfer begins
 * with the first offer, not with the wait for the prompt's turn. */
Test(kv_mover, counts_and_times_what_crossed)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct shape s = {.n_p = 1, .n_d = 1, .staging = 8};
        struct world w;
        struct mover_event ev = {.kind = MOVER_QUIET};
        struct mover_stats in, out;
        world_open(&w, &s, seed);
        begin(&w);
        for (int64_t until = w.now + 2 * NS_PER_S; w.now < until;)
            turn(&w);
        w.net.break_next = true;
        for (int layer = 0; layer < 3; layer++)
            compute_layer(&w, layer);
        for (int n = 0; n < 1000 && ev.kind != MOVER_DELIVERED; n++) {
            mover_work(w.p[0].mover, w.now);
            if (!mover_next(w.p[0].mover, &ev))
                turn(&w);
        }
        cr_assert_eq(ev.kind, MOVER_DELIVERED, "seed %llu", (unsigned long long)seed);
        cr_assert_lt(ev.transfer_ns, NS_PER_S, "seed %llu", (unsigned long long)seed);
        cr_assert_leq(ev.exposed_ns, ev.transfer_ns);
        mover_get_stats(w.d[0].mover, &in);
        mover_get_stats(w.p[0].mover, &out);
        const struct kv_layout *l = &w.p[0].pool.view.layout;
        int64_t bytes = 2 * 3 * HEADS * (int64_t)(w.tokens - w.have) * l->head_dim *
                        (int64_t)dtype_bytes(l->dtype);
        cr_assert_eq(out.links_lost, 1);
        cr_assert_eq(out.bytes_out, bytes, "%lld of %lld", (long long)out.bytes_out,
                     (long long)bytes);
        cr_assert_eq(in.bytes_in, bytes, "%lld of %lld", (long long)in.bytes_in, (long long)bytes);
        world_close(&w);
    }
}

/* The router may ask again before the end of its first call has been seen: one answer serves both.
 */
Test(kv_mover, two_calls_of_one_ticket)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 8, .maps = true};
    struct world w;
    struct mover_event ev;
    struct msg_rank_address to;
    bool delivered[2] = {false, false};
    world_open(&w, &s, 3);
    begin(&w);
    cr_assert_eq(mover_address(w.d[0].mover, &to, NULL), ST_OK);
    const struct mover_send again = {.user = 10,
                                     .ticket = ticket,
                                     .token_begin = w.have,
                                     .token_end = w.tokens,
                                     .blocks = w.p[0].blocks,
                                     .n_blocks = w.p[0].n,
                                     .ranks = &to,
                                     .n_ranks = 1,
                                     .deadline_ns = w.now + 300 * NS_PER_S};
    cr_assert_eq(mover_open(w.p[0].mover, &again, w.now), ST_OK);
    compute_layer(&w, 2);
    mover_fill(w.p[0].mover, 10, NULL, 0, w.now);
    for (int64_t until = w.now + 5 * NS_PER_S; w.now < until;) {
        while (mover_next(w.p[0].mover, &ev))
            delivered[ev.user - 9] |= ev.kind == MOVER_DELIVERED;
        w.now += NS_PER_MS;
        fabric_set_now(w.fabric, w.now);
        mover_work(w.d[0].mover, w.now);
        mover_work(w.p[0].mover, w.now);
    }
    cr_assert(delivered[0] && delivered[1], "%d %d", delivered[0], delivered[1]);
    world_close(&w);
}

/* A link that is being closed to make room is nobody's new link, and has not been lost. */
Test(kv_mover, links_that_make_room)
{
    enum { N = MOVER_LINKS_MAX + 1 };
    static struct transport *peers[N];
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 4, .maps = true};
    struct world w;
    struct mover_event ev;
    struct mover_stats stats;
    struct transport_event lost;
    world_open(&w, &s, 1);
    struct mover *m = w.p[0].mover;
    char name[16];
    struct msg_rank_address to = {.host = "loopback", .shm = name, .head_end = HEADS};
    struct mover_send send = {.token_begin = 0,
                              .token_end = w.tokens,
                              .blocks = w.p[0].blocks,
                              .n_blocks = w.p[0].n,
                              .ranks = &to,
                              .n_ranks = 1,
                              .deadline_ns = w.now + 300 * NS_PER_S};
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        cr_assert_eq(fabric_add(w.fabric, name, true, &w.d[0].pool.view, &peers[i]), ST_OK);
        if (i == N - 1)
            break;
        send.user = 100;
        send.ticket.w[0] = (uint64_t)i + 5;
        cr_assert_eq(mover_open(m, &send, ++w.now), ST_OK);
        fabric_set_now(w.fabric, w.now);
        mover_work(m, w.now);
        cr_assert(mover_close(m, 100));
        cr_assert(mover_next(m, &ev) && ev.kind == MOVER_QUIET);
    }
    send.user = 101; /* finds no slot: the oldest link, to x0, must go */
    cr_assert_eq(mover_open(m, &send, w.now), ST_OK);
    snprintf(name, sizeof(name), "x0");
    send.user = 102;
    send.ticket.w[0] = 3;
    cr_assert_eq(mover_open(m, &send, w.now), ST_OK);
    for (int n = 0; n < 20; n++) {
        fabric_set_now(w.fabric, w.now += NS_PER_MS);
        mover_work(m, w.now);
    }
    for (int32_t i = 0; i < 4; i++)
        if (m->sendings[i].used) {
            cr_assert_not_null(m->sendings[i].ranks[0].link, "%d", i);
            cr_assert_not(m->sendings[i].ranks[0].offering.link_lost_once, "%d", i);
        }
    mover_get_stats(m, &stats);
    cr_assert_eq(stats.links_lost, 0, "%lld", (long long)stats.links_lost);
    for (int i = 0; i < N; i++) {
        while (peers[i]->ops->poll(peers[i], &lost))
            ;
        peers[i]->ops->destroy(peers[i]);
    }
    world_close(&w);
}
