/* Calls over loopback: each shape, and each way to end. */
#include "rpc_pair.h"

Test(rpc, unary, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_ECHO, 0);
    send_text(c, "ping");
    rpc_call_half_close(c);
    struct rpc_event open = expect(p.server, RPC_EV_OPEN);
    cr_assert_eq(open.method, 0);
    cr_assert_eq(open.deadline_ns, NS_NEVER);
    cr_assert(strncmp(open.peer, "ipv4:127.0.0.1:", 15) == 0, "peer %s", open.peer);
    rpc_call_set_user(open.call, &open);
    struct rpc_event ev = expect(p.server, RPC_EV_MESSAGE);
    cr_assert(text_is(&ev, "ping"));
    cr_assert_eq(ev.user, &open);
    send_text(ev.call, "pong");
    rpc_call_finish(ev.call, ST_OK, NULL);
    ev = expect(p.client, RPC_EV_MESSAGE);
    cr_assert(text_is(&ev, "pong"));
    cr_assert_eq(ev.user, &p);
    rpc_call_read(c);
    ev = expect(p.client, RPC_EV_CLOSED);
    cr_assert_eq(ev.status, ST_OK);
    rpc_call_release(c);
    ev = expect(p.server, RPC_EV_CLOSED);
    cr_assert_eq(ev.status, ST_OK, "%s", ev.text);
    rpc_call_release(ev.call);
    pair_close(&p);
}

Test(rpc, server_stream_in_order, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_STREAM, 0);
    send_text(c, "go");
    rpc_call_half_close(c);
    struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
    expect(p.server, RPC_EV_MESSAGE);
    for (int i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        send_text(s, text);
    }
    rpc_call_finish(s, ST_OK, NULL);
    for (int i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        struct rpc_event ev = expect(p.client, RPC_EV_MESSAGE);
        cr_assert(text_is(&ev, text), "message %d", i);
        rpc_call_read(c);
    }
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_OK);
    cr_assert_eq(expect(p.server, RPC_EV_CLOSED).status, ST_OK);
    pair_close(&p);
}

Test(rpc, half_close_is_seen_after_the_last_message, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_STREAM, 0);
    send_text(c, "a");
    send_text(c, "");
    rpc_call_half_close(c);
    cr_assert_eq(rpc_call_send(c, (const uint8_t *)"b", 1), ST_CANCELLED);
    struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
    struct rpc_event ev = expect(p.server, RPC_EV_MESSAGE);
    cr_assert(text_is(&ev, "a"));
    rpc_call_read(s);
    ev = expect(p.server, RPC_EV_MESSAGE);
    cr_assert_eq(ev.len, 0);
    rpc_call_read(s);
    expect(p.server, RPC_EV_HALF_CLOSED);
    rpc_call_finish(s, ST_OK, NULL);
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_OK);
    cr_assert_eq(expect(p.server, RPC_EV_CLOSED).status, ST_OK);
    rpc_call_release(c);
    rpc_call_release(s);
    pair_close(&p);
}

Test(rpc, a_unary_answer_needs_no_second_read, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_ECHO, 0);
    send_text(c, "x");
    struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
    expect(p.server, RPC_EV_MESSAGE);
    send_text(s, "y");
    rpc_call_finish(s, ST_OK, NULL);
    expect(p.client, RPC_EV_MESSAGE);
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_OK);
    pair_close(&p);
}

Test(rpc, every_status_crosses_exactly, .timeout = 60)
{
    static const enum status all[] = {
        ST_OK,           ST_INVALID,   ST_NOT_FOUND, ST_CANCELLED,   ST_DEADLINE, ST_BUSY,
        ST_NEVER_FITS,   ST_PREEMPTED, ST_DENIED,    ST_UNSUPPORTED, ST_LINK,     ST_PROTOCOL,
        ST_INCOMPATIBLE, ST_CHECKSUM,  ST_NO_MEMORY, ST_IO,          ST_INTERNAL, ST_TRANSFER,
    };
    struct pair p = pair_default();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const char *text = all[i] == ST_OK ? "" : "100% na\xc3\xafve\nline";
        struct rpc_call *c = start_call(&p, METHOD_ECHO, 0);
        struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
        rpc_call_finish(s, all[i], text);
        struct rpc_event ev = expect(p.client, RPC_EV_CLOSED);
        cr_assert_eq(ev.status, all[i], "%s became %s", status_name(all[i]),
                     status_name(ev.status));
        cr_assert_str_eq(ev.text, text);
        cr_assert_eq(expect(p.server, RPC_EV_CLOSED).status, ST_OK);
        rpc_call_release(c);
        rpc_call_release(s);
    }
    pair_close(&p);
}

Test(rpc, back_pressure_both_ways, .timeout = 60)
{
    enum { BYTES = 16 << 10, MESSAGES = 64 };
    static uint8_t block[BYTES];
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_STREAM, 0);
    struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
    struct rpc_call *from[2] = {c, s};
    struct rpc *receiver[2] = {p.server, p.client};
    struct rpc *sender[2] = {p.client, p.server};
    for (int way = 0; way < 2; way++) {
        struct rpc_call *to = from[1 - way];
        int sent = 0, got = 0, busy = 0;
        while (got < MESSAGES) {
            while (sent < MESSAGES) {
                block[0] = (uint8_t)sent;
                enum status st = rpc_call_send(from[way], block, BYTES);
                busy += st == ST_BUSY;
                if (st == ST_BUSY)
                    break;
                cr_assert_eq(st, ST_OK);
                sent++;
            }
            struct rpc_event ev = {0};
            if (next_event(receiver[way], &ev, 0)) {
                cr_assert_eq(ev.kind, RPC_EV_MESSAGE);
                cr_assert_eq(ev.data[0], got, "order");
                got++;
                clock_sleep_ns(NS_PER_MS); /* a slow reader */
                rpc_call_read(to);
            } else if (sent < MESSAGES && next_event(sender[way], &ev, 10 * NS_PER_MS)) {
                cr_assert_eq(ev.kind, RPC_EV_DRAINED);
            }
        }
        cr_assert_gt(busy, 0, "way %d: the outbox never filled", way);
        struct rpc_event ev; /* a last one may wait */
        while (next_event(sender[way], &ev, 20 * NS_PER_MS))
            cr_assert_eq(ev.kind, RPC_EV_DRAINED);
    }
    pair_close(&p);
}

/* The server never reads: the client can queue its outbox and gRPC's window, and no more. */
Test(rpc, an_unread_call_is_bounded, .timeout = 60)
{
    static uint8_t block[16 << 10];
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_STREAM, 0);
    expect(p.server, RPC_EV_OPEN);
    size_t taken = 0;
    int64_t until = clock_now_ns() + NS_PER_S;
    while (clock_now_ns() < until) {
        struct rpc_event ev;
        if (rpc_call_send(c, block, sizeof block) == ST_OK)
            taken += sizeof block;
        else
            next_event(p.client, &ev, 20 * NS_PER_MS);
    }
    cr_assert_lt(taken, 2 << 20, "%zu bytes went out unread", taken);
    pair_close(&p);
}

/* Streams as fast as it can on several calls; a cancel of one must reach the server in the middle
 * of that. */
Test(rpc, a_cancel_is_seen_fast_under_load, .timeout = 60)
{
    enum { STREAMS = 8, ROUNDS = 5 };
    static uint8_t block[64];
    struct pair p = pair_default();
    struct rpc_call *c[STREAMS], *s[STREAMS];
    int64_t worst_ns = 0;
    for (int i = 0; i < STREAMS; i++) {
        c[i] = start_call(&p, METHOD_STREAM, 0);
        s[i] = expect(p.server, RPC_EV_OPEN).call;
    }
    for (int round = 0; round < ROUNDS; round++) {
        int64_t cancelled_ns = 0;
        bool seen = false;
        for (long turn = 0; !seen; turn++) {
            struct rpc_event ev;
            for (int i = 0; i < STREAMS; i++)
                rpc_call_send(s[i], block, sizeof block);
            if (turn == 200) {
                cancelled_ns = clock_now_ns();
                rpc_call_cancel(c[round]);
            }
            while (rpc_poll(p.server, &ev))
                if (ev.kind == RPC_EV_CLOSED) {
                    cr_assert_eq(ev.status, ST_CANCELLED);
                    cr_assert_eq(ev.call, s[round]);
                    seen = true;
                }
            while (rpc_poll(p.client, &ev))
                if (ev.kind == RPC_EV_MESSAGE)
                    rpc_call_read(ev.call);
            cr_assert_lt(turn, 10000000);
        }
        int64_t took_ns = clock_now_ns() - cancelled_ns;
        worst_ns = took_ns > worst_ns ? took_ns : worst_ns;
    }
    cr_log_info("worst cancel: %.1f ms", (double)worst_ns / NS_PER_MS);
    cr_assert_lt(worst_ns, 500 * NS_PER_MS);
    pair_close(&p);
}

Test(rpc, cancel_by_the_client_and_by_the_server, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, METHOD_STREAM, 0);
    struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
    rpc_call_cancel(c);
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_CANCELLED);
    cr_assert_eq(expect(p.server, RPC_EV_CLOSED).status, ST_CANCELLED);
    cr_assert_eq(rpc_call_send(s, (const uint8_t *)"x", 1), ST_CANCELLED);
    rpc_call_finish(s, ST_OK, NULL); /* too late, harmless */
    rpc_call_release(c);
    rpc_call_release(s);
    c = start_call(&p, METHOD_STREAM, 0);
    s = expect(p.server, RPC_EV_OPEN).call;
    rpc_call_cancel(s);
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_CANCELLED);
    pair_close(&p);
}

Test(rpc, a_deadline_ends_both_sides, .timeout = 30)
{
    struct pair p = pair_default();
    int64_t began = clock_now_ns();
    struct rpc_call *c = start_call(&p, METHOD_STREAM, 200 * NS_PER_MS);
    struct rpc_event ev = expect(p.server, RPC_EV_OPEN);
    cr_assert_lt(ev.deadline_ns, began + 5 * NS_PER_S); /* what is left, counted from its arrival */
    cr_assert_gt(ev.deadline_ns, began + 100 * NS_PER_MS);
    ev = expect(p.client, RPC_EV_CLOSED);
    cr_assert_eq(ev.status, ST_DEADLINE, "%s", status_name(ev.status));
    cr_assert_gt(clock_now_ns() - began, 190 * NS_PER_MS);
    cr_assert_lt(clock_now_ns() - began, 2 * NS_PER_S);
    ev = expect(p.server, RPC_EV_CLOSED);
    /* whichever came first: the server's own clock or the client's reset */
    cr_assert(ev.status == ST_DEADLINE || ev.status == ST_CANCELLED);
    rpc_call_release(c);
    rpc_call_start(p.channel, METHOD_ECHO, clock_now_ns() - 1, NULL, &c); /* long past */
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_DEADLINE);
    pair_close(&p);
}

Test(rpc, unknown_methods_are_refused, .timeout = 30)
{
    struct pair p = pair_default();
    const char *wrong[] = {"/test.Echo/Other", "/", "/test.Echo/Unary/",
                           "/grpc.health.v1.Health/No"};
    for (size_t i = 0; i < 4; i++) {
        struct rpc_call *c = start_call(&p, wrong[i], 0);
        rpc_call_send(c, (const uint8_t *)"x", 1); /* refused when the end is known already */
        struct rpc_event ev = expect(p.client, RPC_EV_CLOSED);
        cr_assert_eq(ev.status, ST_UNSUPPORTED, "%s: %s", wrong[i], status_name(ev.status));
        rpc_call_release(c);
    }
    struct rpc_event none;
    cr_assert_not(next_event(p.server, &none, 50 * NS_PER_MS));
    pair_close(&p);
}

Test(rpc, messages_over_the_limit, .timeout = 30)
{
    static uint8_t big[3 << 20];
    struct rpc_args small = pair_args(), large = pair_args();
    struct pair p;
    large.max_message_bytes = 4 << 20;
    pair_open(&p, &small, &large);
    struct rpc_call *c = start_call(&p, METHOD_ECHO, 0);
    cr_assert_eq(rpc_call_send(c, big, sizeof big), ST_OK); /* within the client's limit */
    struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
    struct rpc_event ev = expect(p.client, RPC_EV_CLOSED);
    cr_assert_eq(ev.status, ST_INVALID, "%s: %s", status_name(ev.status), ev.text);
    ev = expect(p.server, RPC_EV_CLOSED);
    cr_assert_eq(rpc_call_send(s, big, sizeof big), ST_INVALID); /* over the server's own */
    rpc_call_release(s);
    rpc_call_release(c);
    c = start_call(&p, METHOD_ECHO, 0); /* exactly at the limit */
    cr_assert_eq(rpc_call_send(c, big, 1 << 20), ST_OK);
    expect(p.server, RPC_EV_OPEN);
    cr_assert_eq(expect(p.server, RPC_EV_MESSAGE).len, 1 << 20);
    pair_close(&p);
}

Test(rpc, calls_over_the_limit_are_busy, .timeout = 30)
{
    struct rpc_args args = pair_args();
    struct pair p;
    struct rpc_call *c[6];
    struct rpc_event ev;
    args.max_calls = 4;
    pair_open(&p, &args, &args);
    for (int i = 0; i < 4; i++) {
        c[i] = start_call(&p, METHOD_STREAM, 0);
        expect(p.server, RPC_EV_OPEN);
    }
    c[4] = start_call(&p, METHOD_STREAM, 0);
    ev = expect(p.client, RPC_EV_CLOSED);
    cr_assert_eq(ev.status, ST_BUSY);
    rpc_call_cancel(c[0]);
    ev = expect(p.server, RPC_EV_CLOSED);
    rpc_call_release(ev.call);
    c[5] = start_call(&p, METHOD_STREAM, 0);
    expect(p.server, RPC_EV_OPEN);
    pair_close(&p);
}

Test(rpc, a_released_call_leaves_its_place_at_once, .timeout = 60)
{
    struct rpc_args args = pair_args();
    struct pair p;
    args.max_calls = 1;
    pair_open(&p, &args, &args);
    for (int i = 0; i < 500; i++) {
        struct rpc_event ev;
        struct rpc_call *c = start_call(&p, METHOD_STREAM, 0);
        expect(p.server, RPC_EV_OPEN);
        rpc_call_cancel(c); /* the server's receive is still in flight when the call closes */
        ev = expect(p.server, RPC_EV_CLOSED);
        rpc_call_release(ev.call);
        ev = expect(p.client, RPC_EV_CLOSED);
        cr_assert_eq(ev.status, ST_CANCELLED, "call %d: %s", i, ev.text);
        rpc_call_release(ev.call);
    }
    pair_close(&p);
}

Test(rpc, thousands_of_calls, .timeout = 120)
{
    enum { CALLS = 4000, AT_ONCE = 50 };
    struct pair p = pair_default();
    int started = 0, done = 0, opened = 0, server_done = 0;
    while (done < CALLS || server_done < CALLS) {
        struct rpc_event ev;
        while (started < CALLS && started - server_done < AT_ONCE) {
            struct rpc_call *c = start_call(&p, METHOD_ECHO, 20 * NS_PER_S);
            send_text(c, "hello");
            rpc_call_half_close(c);
            started++;
        }
        while (rpc_poll(p.server, &ev)) {
            opened += ev.kind == RPC_EV_OPEN;
            if (ev.kind == RPC_EV_MESSAGE) {
                rpc_call_send(ev.call, ev.data, ev.len);
                rpc_call_finish(ev.call, ST_OK, NULL);
            } else if (ev.kind == RPC_EV_CLOSED) {
                cr_assert_eq(ev.status, ST_OK, "%s", ev.text);
                rpc_call_release(ev.call);
                server_done++;
            }
        }
        while (rpc_poll(p.client, &ev)) {
            if (ev.kind == RPC_EV_MESSAGE) {
                cr_assert(text_is(&ev, "hello"));
            } else if (ev.kind == RPC_EV_CLOSED) {
                cr_assert_eq(ev.status, ST_OK, "%s %s", status_name(ev.status), ev.text);
                rpc_call_release(ev.call);
                done++;
            }
        }
        struct pollfd fds[2] = {{rpc_fd(p.server), POLLIN, 0}, {rpc_fd(p.client), POLLIN, 0}};
        poll(fds, 2, 1000);
    }
    cr_assert_eq(opened, CALLS);
    pair_close(&p);
}

Test(rpc, wake_makes_the_fd_readable_once, .timeout = 30)
{
    struct pair p = pair_default();
    struct pollfd fd = {.fd = rpc_fd(p.server), .events = POLLIN};
    struct rpc_event ev;
    cr_assert_eq(poll(&fd, 1, 0), 0);
    rpc_wake(p.server);
    rpc_wake(p.server);
    cr_assert_eq(poll(&fd, 1, 1000), 1);
    cr_assert_not(rpc_poll(p.server, &ev));
    cr_assert_eq(poll(&fd, 1, 0), 0);
    pair_close(&p);
}
