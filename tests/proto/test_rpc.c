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
