/* Channels and the start of a client's call. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "proto/rpc_grpc/rpc_grpc.h"

#define CONNECT_TIMEOUT_MS 3000
#define RECONNECT_FIRST_MS 100
#define RECONNECT_MAX_MS 2000

enum status rpc_connect(struct rpc *r, const char *address, struct rpc_channel **out,
                        struct error *err)
{
    int64_t ping_ms = r->args.keepalive_ns / NS_PER_MS;
    int64_t max = (int64_t)r->args.max_message_bytes;
    grpc_arg args[] = {
        rpc_arg(GRPC_ARG_ENABLE_RETRIES, 0), /* who retries is the router */
        rpc_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        rpc_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        rpc_arg("grpc.use_local_subchannel_pool", 1), /* a connection of its own */
        rpc_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, max),
        rpc_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, max),
        rpc_arg(GRPC_ARG_KEEPALIVE_TIME_MS, ping_ms),
        rpc_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, rpc_ping_timeout_ms(ping_ms)),
        rpc_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        rpc_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        rpc_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_FIRST_MS),
        rpc_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_TIMEOUT_MS),
        rpc_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS),
        rpc_arg(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT32_MAX),
        rpc_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        rpc_arg(GRPC_ARG_HTTP2_BDP_PROBE,
                0), /* fixed windows: what an unread call holds is bounded */
        rpc_arg("grpc.compression_enabled_algorithms_bitset", 1),
    };
    const grpc_channel_args channel_args = {.num_args = sizeof args / sizeof args[0], .args = args};
    struct rpc_channel *c = calloc(1, sizeof *c);
    if (c == NULL)
        return err_set(err, ST_NO_MEMORY, "out of memory");
    c->rpc = r;
    c->core = grpc_channel_create(address, r->channel_creds, &channel_args);
    if (c->core == NULL) {
        free(c);
        return err_set(err, ST_INVALID, "cannot make a channel to %s", address);
    }
    list_push_back(&r->channels, &c->link);
    *out = c;
    return ST_OK;
}

void rpc_disconnect(struct rpc_channel *c)
{
    list_remove(&c->link);
    grpc_channel_destroy(c->core);
    free(c);
}

static gpr_timespec deadline_of(int64_t deadline_ns)
{
    if (deadline_ns == NS_NEVER)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    int64_t left_ns = deadline_ns - clock_now_ns();
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_nanos(left_ns > 0 ? left_ns : 0, GPR_TIMESPAN));
}

enum status rpc_call_start(struct rpc_channel *c, const char *method, int64_t deadline_ns,
                           void *user, struct rpc_call **out)
{
    struct rpc *r = c->rpc;
    grpc_slice path = grpc_slice_from_copied_string(method);
    grpc_call *core = grpc_channel_create_call(c->core, NULL, GRPC_PROPAGATE_DEFAULTS,
                                               r->queues[r->next_queue++ % RPC_QUEUES], path, NULL,
                                               deadline_of(deadline_ns), NULL);
    grpc_slice_unref(path);
    struct rpc_call *call = core != NULL ? rpc_call_create(r, core, false) : NULL;
    if (call == NULL) {
        if (core != NULL)
            grpc_call_unref(core);
        return ST_NO_MEMORY;
    }
    call->user = user;
    rpc_call_begin(call);
    *out = call;
    return ST_OK;
}
