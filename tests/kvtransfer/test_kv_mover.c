/* Movers over the loopback fabric, whole and faulty: pools of any two shapes and dtypes, one rank
 * to several and several to one, both ways of carrying data, cancelled at any moment. */
#include "kvtransfer/mover_rig.h"

static bool all(const struct world *w, const struct rank *ranks, int n, enum mover_event_kind kind)
{
    for (int i = 0; i < n; i++)
        if (!ranks[i].events[kind])
            return false;
    return true;
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
        if (who != 1) {
            const struct msg_rank_address to = {
                .host = "loopback", .shm = d->name, .head_end = HEADS};
            const struct mover_send again = {
                9, {{3, 5}}, w.have, w.tokens, p->blocks, p->n, &to, 1, w.now + 300 * NS_PER_S};
            cr_assert_eq(mover_open(p->mover, &again, w.now), ST_OK);
            memset(p->pool.view.base, 0x33, kv_pool_bytes(&p->pool.view.layout));
        }
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
                           .value_dim = l->value_dim,
                           .block_tokens = l->block_tokens};
    struct buf b = {0};
    memset(payload, 0x3f, sizeof(payload));
    o.bytes = wire_slice_bytes(&o);
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

/* Tickets are equal in all of their bits, or they are not. */
Test(kv_mover, an_answer_for_another_ticket)
{
    struct shape s = {.n_p = 1, .n_d = 1, .staging = 4};
    struct world w;
    struct transport *x;
    struct transport_event ev;
    struct transport_link *back = NULL;
    world_open(&w, &s, 5);
    struct rank *p = &w.p[0];
    cr_assert_eq(fabric_add(w.fabric, "x", false, &w.d[0].pool.view, &x), ST_OK);
    const struct msg_rank_address to = {.host = "loopback", .shm = "x", .head_end = HEADS};
    const struct mover_send send = {
        9, ticket, w.have, w.tokens, p->blocks, p->n, &to, 1, w.now + 300 * NS_PER_S};
    cr_assert_eq(mover_open(p->mover, &send, w.now), ST_OK);
    for (int32_t layer = 0; layer < 3; layer++)
        compute_layer(&w, layer);
    const struct msg_ticket answers[] = {{.w = {1, 3}}, {.w = {2, 2}}, ticket};
    for (int i = 0; i < 3; i++) {
        struct buf b = {0};
        for (int n = 0; n < 10; n++) {
            turn(&w);
            while (x->ops->poll(x, &ev)) {
                if (ev.incoming)
                    x->ops->drop(x, ev.incoming);
                if (ev.kind == TRANSPORT_FRAME)
                    back = ev.link;
            }
        }
        cr_assert_not_null(back);
        cr_assert_not(p->events[MOVER_DELIVERED], "by answer %d", i);
        wire_put_landed(&b, answers[i]);
        cr_assert_eq(x->ops->send(back, b.data, b.len, NULL, 0, 0), ST_OK);
        buf_fini(&b);
    }
    turn(&w);
    turn(&w);
    cr_assert(p->events[MOVER_DELIVERED]);
    x->ops->destroy(x);
    world_close(&w);
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
                               .value_dim = l->value_dim,
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
        o.bytes = wire_slice_bytes(&o);
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
