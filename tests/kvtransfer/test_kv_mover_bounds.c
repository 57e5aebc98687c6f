/* What movers share among handoffs: staging, links, tickets, and the counters that tell of it. */
#include "kvtransfer/mover_internal.h"
#include "kvtransfer/mover_rig.h"

/* What comes out of a mapped pool does not wait for staging that pulls from others hold. */
Test(kv_mover_bounds, mapped_slices_need_no_staging)
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
Test(kv_mover_bounds, counts_and_times_what_crossed)
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
        int64_t bytes = 3 * (int64_t)(w.tokens - w.have) * (int64_t)kv_token_bytes(l);
        cr_assert_eq(out.links_lost, 1);
        cr_assert_eq(out.bytes_out, bytes, "%lld of %lld", (long long)out.bytes_out,
                     (long long)bytes);
        cr_assert_eq(in.bytes_in, bytes, "%lld of %lld", (long long)in.bytes_in, (long long)bytes);
        world_close(&w);
    }
}

/* The router may ask again before the end of its first call has been seen: one answer serves both.
 */
Test(kv_mover_bounds, two_calls_of_one_ticket)
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
Test(kv_mover_bounds, links_that_make_room)
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
