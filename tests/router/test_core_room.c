/* The router's core where room is short: whose turn it is, and which nodes are large enough. */
#define RIG_CALLS 60000
#define RIG_CLIENTS 24

#include "router/core_rig.h"

/* ---- whose turn it is ---- */

#define TAKES 3  /* requests at once on each of the two nodes */
#define TOKENS 4 /* of each request, one a round */

struct running {
    struct rig_call *call;
    int32_t position;
};

static struct {
    struct running on[2][TAKES];
    int32_t served[RIG_CLIENTS];
    int seen; /* calls that were looked at */
    struct rng rng;
} scene;

static void run_tokens(struct running *x)
{
    d_tokens(x->call, 0, x->position++, 1);
    if (x->position == TOKENS) {
        d_finish(x->call, 0);
        rig_close(x->call, ST_CANCELLED);
        x->call = NULL;
    }
}

/* A node takes what it has room for, in an order of its own: latest first. */
static void answer_starts(void)
{
    int end = rig.n_calls;
    for (int i = end - 1; i >= scene.seen; i--) {
        struct rig_call *k = &rig.calls[i];
        if (k->args.kind != CORE_CALL_D || k->closed)
            continue;
        struct running *room = NULL;
        for (int j = 0; j < TAKES; j++) {
            if (!scene.on[k->args.node - D0][j].call)
                room = &scene.on[k->args.node - D0][j];
        }
        if (room) {
            *room = (struct running){k, k->emitted};
            d_accept(k, 0);
        } else {
            d_reject(k, ST_BUSY);
            rig_close(k, ST_OK);
        }
    }
    scene.seen = end;
}

static void submit_ended(int clients)
{
    for (int i = 0; i < clients; i++) {
        struct rig_client *c = &rig.clients[i];
        if (c->ends)
            scene.served[i] += c->end == ST_OK;
        else if (c->id)
            continue;
        *c = (struct rig_client){.eager = true};
        cr_assert_eq(rig_submit(c, 10, 1), ST_OK);
    }
}

static void round_of(int clients, double preempt)
{
    submit_ended(clients);
    rig_tick(5 * NS_PER_MS);
    answer_starts();
    rig_tick(0);
    answer_starts();
    for (int node = 0; node < 2; node++) {
        for (int j = 0; j < TAKES; j++) {
            struct running *x = &scene.on[node][j];
            if (x->call && preempt > 0 && rng_below(&scene.rng, 1000) < preempt * 1000) {
                rig_close(x->call, ST_PREEMPTED);
                x->call = NULL;
            } else if (x->call) {
                run_tokens(x);
            }
        }
    }
    rig_answer_polls();
}

/* Many equal clients, each with one request at a time, and room for a quarter of them. */
static void check_fair(double preempt, double spread)
{
    int32_t least = INT32_MAX, most = 0;
    rig_open(8, 64, 64);
    memset(&scene, 0, sizeof(scene));
    scene.rng = rng_seed(5);
    for (int i = 0; i < 1500; i++)
        round_of(RIG_CLIENTS, preempt);
    for (int i = 0; i < RIG_CLIENTS; i++) {
        least = scene.served[i] < least ? scene.served[i] : least;
        most = scene.served[i] > most ? scene.served[i] : most;
    }
    cr_assert_gt(least, 20);
    cr_assert_leq(most - least, 2 + spread * most, "one was served %d times, another %d", least,
                  most);
    rig_teardown();
}

Test(core_room, equal_clients_get_equal_shares)
{
    check_fair(0, 0.05);
}

Test(core_room, equal_clients_get_equal_shares_where_nodes_take_back_what_they_gave)
{
    check_fair(0.05, 0.3); /* whose turn it is to be taken back is chance */
}

/* Only D0 is there. */
static void one_node(void)
{
    rig_open(8, 64, 64);
    cluster_on_lost(&rig.core->cluster, D1, rig.now_ns + 100 * NS_PER_S);
}

Test(core_room, the_queue_keeps_the_order_of_arrival_with_what_ran_before_ahead)
{
    static const int order[] = {2, 0, 1, 3};
    struct rig_call *d[4];
    one_node();
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(rig_submit(&rig.clients[i], 10 + i, 1), ST_OK);
        rig_tick(0);
        d[i] = rig_call_of(CORE_CALL_D);
    }
    d_accept(d[2], 0);
    d_reject(d[0], ST_BUSY);
    d_reject(d[1], ST_BUSY);
    d_reject(d[3], ST_BUSY);
    rig_close(d[2], ST_PREEMPTED);
    for (int i = 0; i < 4; i++) {
        rig_tick(CLUSTER_BUSY_NS);
        struct rig_call *k = rig_call_of(CORE_CALL_D);
        cr_assert_eq(k->prompt, 10 + order[i], "%d: %d", i, k->prompt);
        rig_tick(NS_PER_MS);
        cr_assert_eq(rig_call_of(CORE_CALL_D), k, "one at a time after a BUSY");
        d_accept(k, 0);
        cluster_on_busy(&rig.core->cluster, D0, rig.now_ns);
    }
    rig_teardown();
}

/* ---- which nodes are large enough ---- */

/* D0 has room for 64 tokens, D1 for 256. */
static void two_sizes(void)
{
    rig_open(8, 64, 64);
    rig.block_tokens = 16;
    rig.blocks[D0] = 4;
    rig.blocks[D1] = 16;
    rig_tick(CLUSTER_POLL_NS);
    rig_answer_polls();
}

static struct rig_call *start(int client, int32_t prompt)
{
    cr_assert_eq(rig_submit(&rig.clients[client], prompt, 1), ST_OK);
    rig_tick(0);
    return rig_call_of(CORE_CALL_D);
}

Test(core_room, long_prompts_go_where_they_fit)
{
    two_sizes();
    for (int i = 0; i < 5; i++)
        cr_assert_eq(start(i, 100)->args.node, D1, "%d", i);
    cr_assert_eq(start(5, 40)->args.node, D0);
    rig.max_context = 2000;
    rig_tick(CLUSTER_POLL_NS);
    rig_answer_polls();
    cr_assert_eq(rig_submit(&rig.clients[6], 241, 1), ST_NEVER_FITS);
    cr_assert_eq(rig_submit(&rig.clients[6], 240, 1), ST_OK);
    cr_assert_eq(rig_submit(&rig.clients[7], 240, 2), ST_NEVER_FITS, "each choice wants a block");
    rig_teardown();
}

Test(core_room, never_fits_is_said_of_the_largest_node_only)
{
    two_sizes();
    /* Its report is old: it has shrunk. */
    struct rig_call *d = start(0, 40);
    cr_assert_eq(d->args.node, D0);
    d_reject(d, ST_NEVER_FITS);
    rig_close(d, ST_OK);
    cr_assert_eq(rig.clients[0].ends, 0);
    rig_tick(0);
    d = rig_call_of(CORE_CALL_D);
    cr_assert_eq(d->args.node, D1);
    d_reject(d, ST_NEVER_FITS);
    cr_assert_eq(rig.clients[0].end, ST_NEVER_FITS);
    rig_close(d, ST_OK);
    rig_check_quiet();
}

Test(core_room, what_outgrows_a_node_goes_on_on_a_larger_one)
{
    two_sizes();
    struct rig_client *c = &rig.clients[0];
    c->eager = true;
    struct rig_call *d = start(0, 45);
    cr_assert_eq(d->args.node, D0);
    d_accept(d, 0);
    d_tokens(d, 0, 0, 7);
    rig_close(d, ST_NEVER_FITS);
    rig_tick(0);
    d = rig_call_of(CORE_CALL_D);
    cr_assert_eq(d->args.node, D1);
    cr_assert_eq(d->emitted, 7);
    d_accept(d, 0);
    d_tokens(d, 0, 7, 1);
    d_finish(d, 0);
    cr_assert_eq(c->end, ST_OK);
    cr_assert_eq(c->tokens, 8);
    rig_close(d, ST_OK);
    for (int i = 0; i < rig.n_calls; i++)
        if (rig.calls[i].args.kind == CORE_CALL_P && !rig.calls[i].closed)
            rig_close(&rig.calls[i], ST_OK);
    rig_check_quiet();
}

Test(core_room, the_large_node_is_kept_for_those_who_need_it_and_only_that_one)
{
    two_sizes();
    struct rig_call *d = start(0, 100);
    d_reject(d, ST_BUSY);
    rig_close(d, ST_OK);
    d = start(1, 40);
    cr_assert_eq(d->prompt, 40, "it does not wait behind the long one");
    cr_assert_eq(d->args.node, D0);
    cluster_on_lost(&rig.core->cluster, D0, rig.now_ns);
    cr_assert_eq(rig_submit(&rig.clients[2], 40, 1), ST_OK);
    rig_tick(CLUSTER_BUSY_NS);
    d = rig_call_of(CORE_CALL_D);
    cr_assert_eq(d->prompt, 100, "who was there first");
    rig_teardown();
}

Test(core_room, a_large_node_that_is_away_is_waited_for_but_not_for_ever)
{
    two_sizes();
    for (int again = 0; again < 2; again++) {
        struct rig_client *c = &rig.clients[again];
        cluster_on_lost(&rig.core->cluster, D1, rig.now_ns);
        cr_assert_eq(rig_submit(c, 100, 1), ST_OK, "it has been seen");
        for (int i = 0; i < 99; i++)
            rig_tick(100 * NS_PER_MS);
        cr_assert_eq(c->ends, 0);
        if (again == 0) { /* it comes back */
            rig_answer_polls();
            rig_tick(0);
            struct rig_call *d = rig_call_of(CORE_CALL_D);
            cr_assert_eq(d->args.node, D1);
            d_accept(d, 100);
            d_finish(d, 0);
            rig_close(d, ST_OK);
            cr_assert_eq(c->end, ST_OK);
        } else {
            rig_tick(NS_PER_S);
            cr_assert_eq(c->end, ST_LINK);
        }
    }
    rig_check_quiet();
}

/* ---- what is told of a request that was resumed ---- */

static double sample(const char *line)
{
    struct buf out = {0};
    metrics_render(rig.metrics, &out);
    const char *at = strstr(out.data, line);
    cr_assert_not_null(at, "%s: %s", line, out.data);
    double v = strtod(at + strlen(line), NULL);
    buf_fini(&out);
    return v;
}

Test(core_room, usage_and_times_of_a_resumed_request_are_those_of_the_first_try)
{
    one_node();
    struct rig_client *c = &rig.clients[0];
    c->eager = true;
    cr_assert_eq(rig_submit(c, 10, 1), ST_OK);
    rig_tick(0);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    d_accept(d, 3);
    rig_tick(2 * NS_PER_S);
    d_tokens(d, 0, 0, 1);
    rig_tick(3 * NS_PER_S);
    rig_close(d, ST_PREEMPTED);
    rig_tick(0);
    d = rig_call_of(CORE_CALL_D);
    d_accept(d, 9); /* its own */
    rig_tick(NS_PER_S);
    d_tokens(d, 0, 1, 1);
    d_finish(d, 0);
    rig_close(d, ST_OK);
    cr_assert_eq(c->end, ST_OK);
    cr_assert_eq(c->usage.cached_tokens, 3);
    cr_assert_float_eq(sample("baton_request_seconds_sum{phase=\"queue\"} "), 0, 1e-6);
    cr_assert_float_eq(sample("baton_request_seconds_sum{phase=\"prefill\"} "), 2, 1e-6);
    cr_assert_float_eq(sample("baton_request_seconds_sum{phase=\"decode\"} "), 4, 1e-6);
    cr_assert_float_eq(sample("baton_inter_token_latency_seconds_sum "), 4, 1e-6);
    cr_assert_eq(sample("\nbaton_requests_resumed_total "), 1);
    cr_assert_eq(sample("baton_requests_total{outcome=\"ok\"} "), 1);
    rig_check_quiet();
}

Test(core_room, the_time_between_tokens_is_that_of_a_choice)
{
    one_node();
    struct rig_client *c = &rig.clients[0];
    c->eager = true;
    cr_assert_eq(rig_submit(c, 10, 2), ST_OK);
    rig_tick(0);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    d_accept(d, 0);
    for (int i = 0; i < 3; i++) {
        rig_tick(NS_PER_S);
        d_tokens(d, 0, i, 1);
        d_tokens(d, 1, i, 1);
    }
    cr_assert_eq(sample("baton_inter_token_latency_seconds_count "), 4);
    cr_assert_float_eq(sample("baton_inter_token_latency_seconds_sum "), 4, 1e-6);
    rig_teardown();
}

Test(core_room, refusals_are_counted)
{
    rig_open(8, 64, 1);
    for (int i = P0; i < RIG_NODES; i++)
        cluster_on_busy(&rig.core->cluster, i, rig.now_ns + NS_PER_S);
    cr_assert_eq(rig_submit(&rig.clients[0], 10, 1), ST_OK);
    cr_assert_eq(rig_submit(&rig.clients[1], 10, 1), ST_BUSY);
    cr_assert_eq(rig_submit(&rig.clients[1], 0, 1), ST_INVALID);
    cr_assert_eq(sample("baton_requests_total{outcome=\"refused\"} "), 2);
    rig_teardown();
}
