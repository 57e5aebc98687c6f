/* Starts that fail, peers that die, ends with work in flight, and what idling costs. */
#include <sys/resource.h>

#include "base/rng.h"
#include "rpc_pair.h"

Test(rpc_life, a_bad_start_says_why, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_args args = pair_args();
    struct rpc *r;
    struct error err = {0};
    char address[64];
    int port;
    cr_assert_eq(rpc_create(&args, &r, &err), ST_OK);
    snprintf(address, sizeof address, "127.0.0.1:%d", p.port);
    cr_assert_eq(rpc_listen(r, address, &port, &err), ST_IO);
    cr_assert_not_null(strstr(err.text, "Address already in use"), "%s", err.text);
    cr_assert_not_null(strstr(err.text, address), "%s", err.text);
    static const char *const wrong[] = {"127.0.0.1", ":80", "host:", "127.0.0.1:70000",
                                        "127.0.0.1:80x"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_assert_eq(rpc_listen(r, wrong[i], &port, &err), ST_INVALID, "%s", wrong[i]);
    cr_assert_eq(rpc_listen(r, "192.0.2.1:0", &port, &err), ST_IO);
    cr_assert_not_null(strstr(err.text, "assign"), "%s", err.text);
    rpc_destroy(r, 0); /* never started */
    pair_close(&p);
}

Test(rpc_life, created_listening_and_destroyed_unstarted, .timeout = 30)
{
    struct rpc_args args = pair_args();
    struct rpc *r;
    int port = 0;
    cr_assert_eq(rpc_create(&args, &r, NULL), ST_OK);
    cr_assert_eq(rpc_listen(r, "127.0.0.1:0", &port, NULL), ST_OK);
    cr_assert_gt(port, 0);
    rpc_destroy(r, NS_PER_S);
}

Test(rpc_life, nobody_listens, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_channel *nowhere;
    struct rpc_call *c;
    cr_assert_eq(rpc_connect(p.client, "127.0.0.1:1", &nowhere, NULL), ST_OK);
    int64_t began = clock_now_ns();
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(rpc_call_start(nowhere, METHOD_ECHO, NS_NEVER, NULL, &c), ST_OK);
        rpc_call_send(c, (const uint8_t *)"x", 1); /* refused when the end is known already */
        struct rpc_event ev = expect(p.client, RPC_EV_CLOSED);
        cr_assert_eq(ev.status, ST_LINK, "%s", status_name(ev.status));
        cr_assert_neq(ev.text[0], '\0');
        rpc_call_release(c);
    }
    cr_assert_lt(clock_now_ns() - began, 2 * NS_PER_S);
    rpc_disconnect(nowhere);
    pair_close(&p);
}

Test(rpc_life, a_server_that_shuts_down_reads_as_link, .timeout = 30)
{
    struct pair p = pair_default();
    for (int i = 0; i < 5; i++) {
        start_call(&p, METHOD_STREAM, 0);
        expect(p.server, RPC_EV_OPEN);
    }
    rpc_destroy(p.server, 50 * NS_PER_MS);
    for (int i = 0; i < 5; i++) {
        struct rpc_event ev = expect(p.client, RPC_EV_CLOSED);
        cr_assert_eq(ev.status, ST_LINK, "%s: %s", status_name(ev.status), ev.text);
        rpc_call_release(ev.call);
    }
    rpc_destroy(p.client, 0);
}

Test(rpc_life, a_channel_finds_its_server_again, .timeout = 60)
{
    struct pair p = pair_default();
    struct rpc_args args = pair_args();
    struct rpc_call *c;
    struct rpc_event ev;
    char address[64];
    bool back = false;
    rpc_destroy(p.server, 0);
    snprintf(address, sizeof address, "127.0.0.1:%d", p.port);
    cr_assert_eq(rpc_create(&args, &p.server, NULL), ST_OK);
    cr_assert_eq(rpc_listen(p.server, address, NULL, NULL), ST_OK);
    cr_assert_eq(rpc_start(p.server, NULL), ST_OK);
    int64_t until = clock_now_ns() + 10 * NS_PER_S;
    while (!back && clock_now_ns() < until) {
        c = start_call(&p, METHOD_ECHO, NS_PER_S);
        if (next_event(p.server, &ev, 300 * NS_PER_MS) && ev.kind == RPC_EV_OPEN)
            back = true;
        else
            rpc_call_cancel(c);
    }
    cr_assert(back);
    pair_close(&p);
}

Test(rpc_life, destroyed_with_calls_in_every_state, .timeout = 60)
{
    static uint8_t block[8 << 10];
    for (int round = 0; round < 8; round++) {
        struct pair p = pair_default();
        struct rpc_event ev;
        for (int i = 0; i < 20; i++) {
            struct rpc_call *c = start_call(&p, i % 2 != 0 ? METHOD_STREAM : METHOD_ECHO, 0);
            for (int k = 0; k < i; k++)
                rpc_call_send(c, block, sizeof block);
            if (i % 3 == 0)
                rpc_call_half_close(c);
            if (i % 7 == 0)
                rpc_call_cancel(c);
        }
        for (int i = 0; i < round * 6 && next_event(p.server, &ev, 50 * NS_PER_MS); i++) {
            rpc_call_send(ev.call, block, sizeof block);
            if (i % 4 == 0)
                rpc_call_finish(ev.call, ST_BUSY, "no");
        }
        if (round % 2 == 0)
            rpc_destroy(p.client, 0);
        rpc_destroy(p.server, (round % 3) * 10 * NS_PER_MS);
        if (round % 2 != 0)
            rpc_destroy(p.client, 0);
    }
}

/* What was finished before the end is still delivered. */
Test(rpc_life, grace_delivers_finished_answers, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_ECHO, 0);
    struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
    send_text(s, "last words");
    rpc_call_finish(s, ST_OK, NULL);
    rpc_destroy(p.server, NS_PER_S);
    struct rpc_event ev = expect(p.client, RPC_EV_MESSAGE);
    cr_assert(text_is(&ev, "last words"));
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_OK);
    rpc_call_release(c);
    rpc_destroy(p.client, 0);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

Test(rpc_life, an_idle_pair_uses_no_cpu, .timeout = 60)
{
    struct pair p = pair_default();
    struct rpc_event ev;
    start_call(&p, METHOD_STREAM, 0); /* connected, with a call open */
    expect(p.server, RPC_EV_OPEN);
    next_event(p.client, &ev, 500 * NS_PER_MS);
    double before = cpu_seconds();
    int64_t began = clock_now_ns();
    cr_assert_not(next_event(p.client, &ev, 3 * NS_PER_S));
    double used = (cpu_seconds() - before) / ((double)(clock_now_ns() - began) / NS_PER_S);
    cr_log_info("idle server and client: %.3f %% of a core", 100 * used);
    cr_assert_lt(used, 0.01, "%.2f %% of a core", 100 * used);
    pair_close(&p);
}

#define SOAK_CALLS 600
#define SOAK_AT_ONCE 40

struct soak_side { /* one end of one call */
    struct rpc_call *call;
    int closed;
};

/* One random thing that a program may do with a call that is open. */
static void do_something(struct rng *rng, struct soak_side *s, bool server)
{
    static const uint8_t block[5000];
    switch (rng_below(rng, 12)) {
    case 0:
        rpc_call_cancel(s->call);
        break;
    case 1:
    case 2:
        if (server)
            rpc_call_finish(s->call, rng_below(rng, 2) != 0 ? ST_OK : ST_PREEMPTED, "over");
        else
            rpc_call_half_close(s->call);
        break;
    case 3:
    case 4:
    case 5:
        rpc_call_read(s->call);
        break;
    default:
        rpc_call_send(s->call, block, rng_below(rng, sizeof block));
    }
}

static void take_events(struct rpc *r, struct soak_side *sides, struct rng *rng, int *n_closed)
{
    struct rpc_event ev;
    static int opened;
    while (rpc_poll(r, &ev)) {
        if (ev.kind == RPC_EV_OPEN) {
            cr_assert_lt(opened, SOAK_CALLS);
            sides[opened] = (struct soak_side){.call = ev.call};
            rpc_call_set_user(ev.call, &sides[opened++]);
            continue;
        }
        struct soak_side *s = ev.user;
        cr_assert_eq(s->closed, 0, "event %d after the end", ev.kind);
        if (ev.kind == RPC_EV_MESSAGE && rng_below(rng, 4) != 0)
            rpc_call_read(ev.call);
        if (ev.kind == RPC_EV_CLOSED) {
            s->closed++;
            s->call = NULL;
            (*n_closed)++;
            rpc_call_release(ev.call);
        }
    }
}

/* Both sides do whatever they may at random: each call ends once on the side that began it, nothing
 * comes after. */
Test(rpc_life, random_actions, .timeout = 120)
{
    static struct soak_side clients[SOAK_CALLS], servers[SOAK_CALLS];
    struct pair p = pair_default();
    struct rng rng = rng_seed(42);
    int started = 0, done = 0, server_done = 0;
    while (done < SOAK_CALLS) {
        if (started < SOAK_CALLS && started - done < SOAK_AT_ONCE) {
            struct soak_side *s = &clients[started++];
            int64_t deadline = clock_now_ns() + (int64_t)rng_below(&rng, 500) * NS_PER_MS;
            cr_assert_eq(rpc_call_start(p.channel, METHOD_STREAM, deadline, s, &s->call), ST_OK);
        }
        for (int i = 0; i < 20; i++) {
            struct soak_side *c = &clients[rng_below(&rng, SOAK_CALLS)];
            struct soak_side *s = &servers[rng_below(&rng, SOAK_CALLS)];
            if (c->call != NULL)
                do_something(&rng, c, false);
            if (s->call != NULL)
                do_something(&rng, s, true);
        }
        take_events(p.server, servers, &rng, &server_done);
        take_events(p.client, clients, &rng, &done);
        if (started - done >= SOAK_AT_ONCE)
            clock_sleep_ns(200 * NS_PER_US);
    }
    cr_log_info("calls that reached the server: %d", server_done);
    pair_close(&p);
}

Test(rpc_life, names_and_both_ip_versions, .timeout = 30)
{
    static const char *const hosts[][2] = {
        {"localhost:0", "localhost"}, {"127.0.0.1:0", "localhost"}, {"[::1]:0", "[::1]"}};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct rpc_args args = pair_args();
        struct pair p;
        struct error err = {0};
        char address[64];
        cr_assert_eq(rpc_create(&args, &p.server, &err), ST_OK);
        if (rpc_listen(p.server, hosts[i][0], &p.port, &err) != ST_OK) {
            cr_log_info("not tested here: %s", err.text);
            rpc_destroy(p.server, 0);
            continue;
        }
        cr_assert_eq(rpc_start(p.server, &err), ST_OK);
        cr_assert_eq(rpc_create(&args, &p.client, &err), ST_OK);
        cr_assert_eq(rpc_start(p.client, &err), ST_OK);
        snprintf(address, sizeof address, "%s:%d", hosts[i][1], p.port);
        cr_assert_eq(rpc_connect(p.client, address, &p.channel, &err), ST_OK);
        start_call(&p, METHOD_ECHO, 5 * NS_PER_S);
        expect(p.server, RPC_EV_OPEN);
        pair_close(&p);
    }
}
