/* The router's view of its nodes, and the choice among them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "router/cluster.h"

static struct cluster cluster;

static void setup(void)
{
    static struct config config;
    static char address[] = "127.0.0.1:1";
    static const enum node_role roles[] = {ROLE_PREFILL, ROLE_PREFILL, ROLE_DECODE, ROLE_DECODE,
                                           ROLE_BOTH};
    log_init("test", LOG_ERROR, LOG_TEXT);
    memset(&config, 0, sizeof(config));
    for (int i = 0; i < 5; i++)
        config.router.nodes[i] = (struct config_node){.role = roles[i], .address = address};
    config.router.n_nodes = 5;
    cluster_init(&cluster, &config);
}

static struct msg_status status_of(const char *role)
{
    return (struct msg_status){.name = "n",
                               .role = role,
                               .model = "m",
                               .fingerprint = {1, 2},
                               .boot = 3,
                               .wire_min = MSG_WIRE_VERSION,
                               .wire_max = MSG_WIRE_VERSION,
                               .ready = true,
                               .max_context = 512,
                               .vocab = 64,
                               .slots = 4,
                               .blocks = {.total = 100},
                               .http = ""};
}

static bool say(int32_t node, const struct msg_status *s, const char **why)
{
    const char *ignored;
    return cluster_on_status(&cluster, node, s, 1, why ? why : &ignored);
}

static void all_up(void)
{
    static const char *const roles[] = {"prefill", "prefill", "decode", "decode", "both"};
    for (int32_t i = 0; i < 5; i++) {
        struct msg_status s = status_of(roles[i]);
        cr_assert(say(i, &s, NULL), "node %d", i);
    }
}

Test(cluster, a_node_is_up_when_it_says_so, .init = setup)
{
    cr_assert_not(cluster_ready(&cluster));
    struct msg_status s = status_of("decode");
    s.ready = false;
    cr_assert(say(2, &s, NULL));
    cr_assert_eq(cluster.nodes[2].state, NODE_UNKNOWN);
    cr_assert_not(cluster.has_model, "a node that is not ready fixes no model");
    s.ready = true;
    cr_assert(say(2, &s, NULL));
    cr_assert_eq(cluster.nodes[2].state, NODE_UP);
    cr_assert(cluster_ready(&cluster));
    cr_assert_eq(cluster.max_context, 512);
    s.max_context = 256;
    cr_assert(say(3, &s, NULL));
    cr_assert_eq(cluster.max_context, 512, "the most of any");
    s.role = "prefill";
    s.max_context = 1024;
    cr_assert(say(0, &s, NULL));
    cr_assert_eq(cluster.max_context, 512, "of those that decode");
    cluster_on_lost(&cluster, 2, 2);
    cr_assert_eq(cluster.max_context, 512, "it may come back");
}

Test(cluster, prefill_nodes_alone_serve_nobody, .init = setup)
{
    struct msg_status s = status_of("prefill");
    cr_assert(say(0, &s, NULL));
    cr_assert(cluster_has(&cluster, ROLE_PREFILL));
    cr_assert_not(cluster_ready(&cluster));
}

Test(cluster, it_is_complete_with_the_last_node, .init = setup)
{
    struct msg_status s = status_of("both");
    cr_assert(say(3, &s, NULL), "a decode node may do both");
    cr_assert_eq(cluster_count(&cluster, ROLE_BOTH, NODE_UP), 1);
    cr_assert_eq(cluster_count(&cluster, ROLE_BOTH, NODE_UNKNOWN), 1);
    cr_assert_eq(cluster_count(&cluster, ROLE_PREFILL, NODE_UNKNOWN), 2);
    cr_assert(cluster_ready(&cluster) && !cluster_complete(&cluster));
    all_up();
    cr_assert(cluster_complete(&cluster));
    cluster_on_lost(&cluster, 0, 2);
    cr_assert_eq(cluster_count(&cluster, ROLE_PREFILL, NODE_DOWN), 1);
    cr_assert_not(cluster_complete(&cluster));
}

Test(cluster, another_model_is_refused_until_it_is_the_right_one, .init = setup)
{
    const char *why;
    struct msg_status s = status_of("decode");
    cr_assert(say(2, &s, NULL));
    s.fingerprint[1]++;
    cr_assert_not(say(3, &s, &why));
    cr_assert(strstr(why, "fingerprint") != NULL, "%s", why);
    cr_assert_eq(cluster.nodes[3].state, NODE_REFUSED);
    cr_assert_eq(cluster.nodes[2].state, NODE_UP);
    s.fingerprint[1]--;
    cr_assert(say(3, &s, &why));
    cr_assert_eq(cluster.nodes[3].state, NODE_UP);
}

Test(cluster, other_wire_versions_are_refused, .init = setup)
{
    const char *why;
    struct msg_status s = status_of("decode");
    s.wire_min = MSG_WIRE_VERSION + 1;
    s.wire_max = MSG_WIRE_VERSION + 2;
    cr_assert_not(say(2, &s, &why));
    cr_assert(strstr(why, "wire") != NULL);
    s.wire_min = s.wire_max = MSG_WIRE_VERSION - 1;
    cr_assert_not(say(2, &s, &why));
    s.wire_max = MSG_WIRE_VERSION + 3; /* a newer one that still speaks ours */
    cr_assert(say(2, &s, &why));
}

Test(cluster, roles_are_checked, .init = setup)
{
    static const struct {
        int32_t node;
        const char *role;
        bool fits;
    } cases[] = {{0, "prefill", true}, {0, "decode", false}, {0, "both", false},
                 {2, "decode", true},  {2, "both", true},    {2, "prefill", false},
                 {4, "both", true},    {4, "decode", false}, {4, "prefill", false},
                 {2, "router", false}, {2, "", false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct msg_status s = status_of(cases[i].role);
        cr_assert_eq(say(cases[i].node, &s, NULL), cases[i].fits, "node %d as \"%s\"",
                     cases[i].node, cases[i].role);
    }
}

Test(cluster, a_decode_node_may_come_back_in_the_other_role, .init = setup)
{
    struct msg_status s = status_of("both");
    cr_assert(say(2, &s, NULL));
    cr_assert_eq(cluster.nodes[2].role, ROLE_BOTH);
    s = status_of("decode");
    cr_assert(say(2, &s, NULL), "it is configured as a decode node, whatever it was before");
    cr_assert_eq(cluster.nodes[2].role, ROLE_DECODE);
}

Test(cluster, draining_and_lost_nodes_get_nothing, .init = setup)
{
    all_up();
    struct msg_status s = status_of("decode");
    s.draining = true;
    cr_assert(say(2, &s, NULL));
    cr_assert_eq(cluster.nodes[2].state, NODE_DRAINING);
    cluster_on_lost(&cluster, 3, 1000);
    cr_assert_eq(cluster.nodes[3].state, NODE_DOWN);
    cr_assert_eq(cluster.nodes[3].next_poll_ns, 1000 + CLUSTER_POLL_NS);
    const struct policy_query q = {.role = ROLE_DECODE, .with_decode = -1, .not_node = -1};
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 4);
    cluster_on_lost(&cluster, 4, 1000);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1);
    cr_assert_not(cluster_ready(&cluster));
}

Test(cluster, a_pair_is_avoided_for_a_while, .init = setup)
{
    all_up();
    cluster_avoid_pair(&cluster, 0, 2, 5);
    cr_assert_not(cluster_pair_ok(&cluster, 0, 2, 6));
    cr_assert(cluster_pair_ok(&cluster, 0, 3, 6));
    cr_assert(cluster_pair_ok(&cluster, 1, 2, 6));
    cr_assert(cluster_can_send(&cluster, 2, NULL, 6));
    cluster_avoid_pair(&cluster, 1, 2, 5);
    cr_assert_not(cluster_can_send(&cluster, 2, NULL, 6));
    cr_assert(cluster_can_send(&cluster, 3, NULL, 6));
    cr_assert(cluster_pair_ok(&cluster, 0, 2, 5 + CLUSTER_AVOID_NS), "it expires");
    cr_assert(cluster_can_send(&cluster, 2, NULL, 5 + CLUSTER_AVOID_NS));
    for (int i = 0; i < 3 * CLUSTER_AVOID_MAX; i++) /* bounded: the oldest are forgotten */
        cluster_avoid_pair(&cluster, 1, 3, 7);
    cr_assert(cluster_pair_ok(&cluster, 0, 2, 8));
    cr_assert_not(cluster_pair_ok(&cluster, 1, 3, 8));
}

/* ---- policy ---- */

static struct policy_query ask(enum node_role role)
{
    return (struct policy_query){.role = role, .with_decode = -1, .not_node = -1, .now_ns = 10};
}

Test(policy, prefill_by_tokens, .init = setup)
{
    all_up();
    struct policy_query q = ask(ROLE_PREFILL);
    cluster_place(&cluster, 0, 1000);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 1);
    cluster_place(&cluster, 1, 400);
    cluster_place(&cluster, 1, 400);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 1, "two calls, but fewer tokens");
    cluster_place(&cluster, 1, 400);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 0);
    q.not_node = 0;
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 1);
    cluster_unplace(&cluster, 0, 1000);
    cr_assert_eq(cluster.nodes[0].calls, 0);
    cr_assert_eq(cluster.nodes[0].tokens, 0);
}

Test(policy, decode_by_calls_for_its_room, .init = setup)
{
    all_up();
    struct policy_query q = ask(ROLE_DECODE);
    cluster.nodes[2].blocks.total = 1000;
    cluster_place(&cluster, 2, 10);
    cluster_place(&cluster, 2, 10);
    cluster_place(&cluster, 3, 10);
    cluster_place(&cluster, 4, 10);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 2, "two calls in ten times the room");
}

Test(policy, full_and_busy_nodes_are_passed_over, .init = setup)
{
    all_up();
    struct policy_query q = ask(ROLE_PREFILL);
    for (int i = 0; i < 4; i++)
        cluster_place(&cluster, 0, 0);
    cluster_place(&cluster, 1, 5000);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 1, "all four slots are taken");
    cluster_on_busy(&cluster, 1, q.now_ns);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1);
    q.now_ns += CLUSTER_BUSY_NS;
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 1);
}

Test(policy, nodes_that_are_too_small_are_passed_over, .init = setup)
{
    all_up();
    struct cluster_need need = {.tokens = 100, .choices = 1, .context = 200};
    struct policy_query q = ask(ROLE_DECODE);
    q.need = &need;
    cr_assert_neq(policy_pick_least_loaded(&cluster, &q), -1, "what has not said counts as large");
    for (int i = 0; i < 5; i++) {
        cluster.nodes[i].block_tokens = 16;
        cluster.nodes[i].blocks.total = 7;
    }
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1, "seven blocks, and one more");
    cr_assert_not(cluster_fits(&cluster, &need, false));
    cluster.nodes[3].blocks.total = 8;
    for (int i = 0; i < 3; i++)
        cluster_place(&cluster, 3, 1000);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 3);
    cluster.nodes[3].room_tokens = 7 * 16; /* some of its layers need blocks of their own */
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1);
    cluster.nodes[3].room_tokens = 8 * 16;
    cr_assert_eq(cluster_room(&cluster, 3), 8 * 16);
    need.above = 8 * 16;
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1, "it was tried");
    need.above = 8 * 16 - 1;
    need.context = 513;
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1, "longer than its context");
    need.context = 512;
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 3);
    cr_assert(cluster_fits(&cluster, &need, true));
    cluster_on_lost(&cluster, 3, 1);
    cr_assert_not(cluster_fits(&cluster, &need, true));
    cr_assert(cluster_fits(&cluster, &need, false), "it may come back");
    cr_assert_not(cluster_can_send(&cluster, 2, &need, 1), "no prefill node is large enough");
    need.choices = 0;
    cr_assert(cluster_can_send(&cluster, 2, &(struct cluster_need){.tokens = 112}, 1));
}

Test(policy, a_node_that_was_full_is_asked_for_little_at_first, .init = setup)
{
    all_up();
    struct policy_query q = ask(ROLE_DECODE);
    cluster_on_lost(&cluster, 3, 0);
    cluster_on_lost(&cluster, 4, 0);
    for (int i = 0; i < 3; i++)
        cluster_reserve(&cluster, 2);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 2, "it never said that it was full");
    cluster_on_busy(&cluster, 2, 0);
    q.now_ns = CLUSTER_BUSY_NS;
    cluster_reserved(&cluster, 2, false);
    cluster_reserved(&cluster, 2, false);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1, "one is under way");
    cluster_reserved(&cluster, 2, true);
    cluster_reserve(&cluster, 2);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 2, "it has taken one: two");
    cluster_reserve(&cluster, 2);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1);
    for (int i = 0; i < 2; i++)
        cluster_reserved(&cluster, 2, true);
    for (int i = 0; i < 64; i++)
        cluster_reserve(&cluster, 2);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), -1);
    for (int i = 0; i < 64; i++)
        cluster_reserved(&cluster, 2, true);
    cr_assert_eq(cluster.nodes[2].window, 0, "as many as it likes again");
    cr_assert_eq(cluster.nodes[2].reserving, 0);
}

Test(policy, avoids_pairs, .init = setup)
{
    all_up();
    struct policy_query q = ask(ROLE_PREFILL);
    q.with_decode = 2;
    cluster_place(&cluster, 1, 500);
    cluster_avoid_pair(&cluster, 0, 2, 0);
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 1);
    q.with_decode = 3;
    cr_assert_eq(policy_pick_least_loaded(&cluster, &q), 0);
}

Test(policy, short_rests_stay, .init = setup)
{
    all_up();
    cr_assert(policy_rest_is_short(&cluster, 2, -5));
    cr_assert(policy_rest_is_short(&cluster, 2, 16));
    cr_assert_not(policy_rest_is_short(&cluster, 2, 17), "nothing was measured");
    cluster.nodes[2].prefill_ns_per_token = 50 * NS_PER_US;
    cr_assert(policy_rest_is_short(&cluster, 2, 50));
    cr_assert_not(policy_rest_is_short(&cluster, 2, 64), "however fast");
    cluster.nodes[2].prefill_ns_per_token = 500 * NS_PER_US;
    cr_assert_not(policy_rest_is_short(&cluster, 2, 17));
}

Test(cluster, a_node_that_has_not_answered_yet_may_be_large, .init = setup)
{
    const struct cluster_need need = {.tokens = 5000, .choices = 1, .context = 100};
    struct msg_status small = status_of("decode");
    small.blocks.total = 10;
    small.block_tokens = 16;
    cr_assert(say(2, &small, NULL));
    cr_assert_not(cluster_fits(&cluster, &need, true));
    cr_assert(cluster_fits(&cluster, &need, false), "two others may have the room");
    cluster_on_lost(&cluster, 3, 1);
    cr_assert(cluster_fits(&cluster, &need, false), "one other may");
    cluster_on_lost(&cluster, 4, 1);
    cr_assert_not(cluster_fits(&cluster, &need, false));
}
