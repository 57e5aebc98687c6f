/* The core's dealings with calls, over effects that this file keeps in its hands. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "proto/codec.h"
#include "router/core.h"

static struct config config;
static struct core *core;
static enum status send_answer;
static uint64_t last_user;
static int starts;

static void *eff_start(void *ctx, int32_t node, const char *method, int64_t deadline_ns,
                       uint64_t user)
{
    last_user = user;
    starts++;
    return &starts;
}

static enum status eff_send(void *ctx, void *call, const struct buf *bytes)
{
    return send_answer;
}

static void eff_nothing(void *ctx, void *call)
{
}

static void setup(void)
{
    static char address[] = "127.0.0.1:1";
    struct error err = {0};
    log_init("test", LOG_ERROR + 1, LOG_TEXT);
    config_default(&config);
    config.router.nodes[0] = (struct config_node){.role = ROLE_DECODE, .address = address};
    config.router.n_nodes = 1;
    const struct core_args args = {.effects = {.call_start = eff_start,
                                               .call_send = eff_send,
                                               .call_half_close = eff_nothing,
                                               .call_read = eff_nothing,
                                               .call_cancel = eff_nothing},
                                   .config = &config,
                                   .max_requests = 4};
    cr_assert_eq(core_create(&args, &core, &err), ST_OK, "%s", err.text);
}

static void teardown(void)
{
    core_destroy(core);
}

static void answer_status(int64_t now_ns)
{
    struct buf b = {0};
    struct msg_status s = {.name = "d0",
                           .role = "decode",
                           .model = "m",
                           .wire_min = MSG_WIRE_VERSION,
                           .wire_max = MSG_WIRE_VERSION,
                           .ready = true,
                           .max_context = 512,
                           .vocab = 64,
                           .slots = 4,
                           .http = ""};
    codec_put_status(&b, &s);
    core_on_message(core, last_user, (const uint8_t *)b.data, b.len, now_ns);
    core_on_closed(core, last_user, ST_OK, "", now_ns);
    buf_fini(&b);
}

Test(core, an_answer_that_comes_before_the_question_is_sent_counts, .init = setup, .fini = teardown)
{
    const enum status answers[] = {ST_OK, ST_CANCELLED, ST_CANCELLED, ST_OK};
    int64_t now = NS_PER_S;
    for (int i = 0; i < 4; i++) {
        send_answer = answers[i];
        core_tick(core, now);
        cr_assert_eq(starts, i + 1, "poll %d", i);
        answer_status(now);
        cr_assert(cluster_ready(core_cluster(core)), "poll %d", i);
        now += NS_PER_S;
    }
}

Test(core, a_poll_that_cannot_be_sent_takes_the_node_down, .init = setup, .fini = teardown)
{
    core_tick(core, NS_PER_S);
    answer_status(NS_PER_S);
    send_answer = ST_BUSY;
    core_tick(core, 2 * NS_PER_S);
    cr_assert_not(cluster_ready(core_cluster(core)));
    core_on_closed(core, last_user, ST_CANCELLED, "", 2 * NS_PER_S);
    struct core_load load;
    core_get_load(core, &load);
    cr_assert_eq(load.calls, 0);
}
