/* The router's core with scripted nodes: the ways of a request, good and bad. It has over 600 lines
 * because every way is short and they share one rig. */
#include "router/core_rig.h"

static struct rig_client *client(int i)
{
    return &rig.clients[i];
}

/* Submits with a prompt that is worth a handoff and takes it to FILLING. */
static void fill(struct rig_client *c, struct rig_call **d, struct rig_call **p)
{
    cr_assert_eq(rig_submit(c, 100, 1), ST_OK);
    rig_tick(0);
    *d = rig_call_of(CORE_CALL_D);
    cr_assert_not_null(*d);
    cr_assert_eq((*d)->starts, 1);
    d_accept(*d, 3);
    *p = rig_call_of(CORE_CALL_P);
    cr_assert_not_null(*p);
}

static struct rig_call *decode(struct rig_client *c)
{
    struct rig_call *d, *p;
    fill(c, &d, &p);
    p_first(p, 0);
    rig_close(p, ST_OK);
    return d;
}

Test(core, a_request_from_end_to_end, .init = rig_setup)
{
    struct rig_call *d, *p;
    client(0)->eager = true;
    fill(client(0), &d, &p);
    cr_assert(p->half_closed);
    cr_assert_eq(p->prompt, 100);
    cr_assert_eq(p->have, 3);
    cr_assert_eq(p->ticket, 77);
    cr_assert(p->want_first);
    cr_assert_not(d->local);
    p_first(p, 0);
    d_tokens(d, 0, 0, 3); /* D repeats the first token */
    rig_close(p, ST_OK);
    cr_assert_eq(client(0)->tokens, 3);
    d_finish(d, 0);
    cr_assert_eq(client(0)->finishes, 1);
    cr_assert_eq(client(0)->ends, 1);
    cr_assert_eq(client(0)->end, ST_OK);
    cr_assert_eq(client(0)->usage.completion_tokens, 3);
    cr_assert_eq(client(0)->usage.cached_tokens, 3);
    rig_check_quiet();
}

Test(core, short_prompts_stay_on_the_decode_node, .init = rig_setup)
{
    cr_assert_eq(rig_submit(client(0), 10, 1), ST_OK);
    rig_tick(0);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    cr_assert(d->local);
    d_accept(d, 0);
    cr_assert_null(rig_call_of(CORE_CALL_P));
    d_finish(d, 0);
    rig_check_quiet();
}

Test(core, mostly_cached_prompts_stay_too, .init = rig_setup)
{
    cr_assert_eq(rig_submit(client(0), 100, 1), ST_OK);
    rig_tick(0);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    cr_assert_not(d->local);
    d_accept(d, 95);
    cr_assert_null(rig_call_of(CORE_CALL_P));
    cr_assert_eq(d->here, 1);
    const char *prefill, *decode;
    core_nodes(rig.core, client(0)->id, &prefill, &decode);
    cr_assert_str_eq(prefill, "", "it has done nothing for it");
    cr_assert_str_eq(decode, d->args.node == D0 ? "d0" : "d1");
    d_finish(d, 0);
    rig_check_quiet();
}

Test(core, submit_says_why_not, .init = rig_setup)
{
    cr_assert_eq(rig_submit(client(0), 0, 1), ST_INVALID);
    cr_assert_eq(rig_submit(client(0), 181, 1), ST_INVALID, "181 + 20 > 200");
    cr_assert_eq(rig_submit(client(0), 200, 1), ST_INVALID);
    cr_assert_eq(rig_submit(client(0), 10, 0), ST_INVALID);
    cr_assert_eq(rig_submit(client(0), 10, MSG_CHOICES_MAX + 1), ST_INVALID);
    for (int i = P0; i < RIG_NODES; i++)
        cluster_on_lost(&rig.core->cluster, i, rig.now_ns);
    cr_assert_eq(rig_submit(client(0), 10, 1), ST_LINK, "no node is up");
    rig_tick(CLUSTER_POLL_NS);
    rig_answer_polls();
    cr_assert_eq(rig_submit(client(0), 180, 1), ST_OK);
    core_drain(rig.core);
    cr_assert_eq(rig_submit(client(1), 10, 1), ST_LINK, "draining");
    rig_teardown();
}

Test(core, the_queue_is_bounded)
{
    rig_open(8, 16, 3);
    for (int i = P0; i < RIG_NODES; i++)
        cluster_on_busy(&rig.core->cluster, i, rig.now_ns + NS_PER_S);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rig_submit(client(i), 100, 1), ST_OK);
    cr_assert_eq(rig_submit(client(3), 100, 1), ST_BUSY);
    rig_tick(CLUSTER_BUSY_NS);
    cr_assert_eq(rig_submit(client(3), 100, 1), ST_BUSY, "they wait still");
    rig_tick(NS_PER_S + CLUSTER_BUSY_NS);
    rig_answer_polls();
    rig_tick(0);
    struct core_load load;
    core_get_load(rig.core, &load);
    cr_assert_eq(load.queued, 1, "nodes that were full are asked for one at a time");
    d_accept(rig_call_of(CORE_CALL_D), 0);
    rig_tick(0);
    core_get_load(rig.core, &load);
    cr_assert_eq(load.queued, 0);
    cr_assert_eq(rig_submit(client(3), 100, 1), ST_OK);
    rig_teardown();
}

Test(core, requests_are_bounded)
{
    rig_open(8, 2, 100);
    cr_assert_eq(rig_submit(client(0), 100, 1), ST_OK);
    cr_assert_eq(rig_submit(client(1), 100, 1), ST_OK);
    cr_assert_eq(rig_submit(client(2), 100, 1), ST_BUSY);
    rig_teardown();
}

Test(core, slots_of_nodes_are_kept)
{
    rig_open(8, 16, 100);
    for (int i = 0; i < RIG_NODES; i++)
        rig.core->cluster.nodes[i].slots = 2;
    for (int i = 0; i < 6; i++)
        cr_assert_eq(rig_submit(client(i), 100, 1), ST_OK);
    rig_tick(0);
    struct core_load load;
    core_get_load(rig.core, &load);
    cr_assert_eq(load.queued, 2, "two nodes take two each");
    rig_teardown();
}

/* ---- credit ---- */

static const struct core_req *req_of(const struct rig_client *c)
{
    return slots_get(rig.core->requests, c->id);
}

Test(core, credit_never_exceeds_the_window, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d = decode(c); /* P said position 0 */
    struct rng rng = rng_seed(3);
    int32_t said = 0, by_p = 1;
    cr_assert_eq(d->credits, 8);
    for (int round = 0; round < 2000 && said < 1000; round++) {
        int64_t may = d->credits - said;
        if (rng_below(&rng, 2) && may > 0) {
            int32_t n = 1 + (int32_t)rng_below(&rng, (uint64_t)may);
            d_tokens(d, 0, said, n);
            said += n;
        } else if (c->unconsumed > 0) {
            int64_t n = 1 + (int64_t)rng_below(&rng, (uint64_t)c->unconsumed);
            c->unconsumed -= n;
            core_consumed(rig.core, c->id, (int32_t)n);
            rig_tick(0);
        }
        const struct core_req *q = req_of(c);
        cr_assert_eq(q->d_outstanding, d->credits - said, "the core knows what D may still say");
        cr_assert_eq(q->unconsumed, c->unconsumed);
        cr_assert_leq(q->d_outstanding + q->unconsumed, 8 + by_p);
    }
    cr_assert_geq(said, 500, "it flows");
    core_cancel(rig.core, c->id, ST_CANCELLED, "");
    rig_tick(0);
    rig_check_quiet();
}

Test(core, a_resumed_request_gets_only_what_the_client_has_room_for, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d = decode(c);
    d_tokens(d, 0, 0, 8); /* nothing is passed on */
    rig_close(d, ST_PREEMPTED);
    rig_tick(0);
    d = rig_call_of(CORE_CALL_D);
    cr_assert_eq(d->credits, 0);
    cr_assert_eq(d->emitted, 8);
    d_accept(d, 3);
    struct rig_call *p = rig_call_of(CORE_CALL_P);
    cr_assert_eq(p->prompt, 108, "what was said is computed with the prompt");
    cr_assert_not(p->want_first, "the eighth may have been the last");
    rig_close(p, ST_OK);
    cr_assert_eq(d->credits, 0);
    core_consumed(rig.core, c->id, 8);
    rig_tick(0);
    cr_assert_eq(d->credits, 8);
    d_tokens(d, 0, 8, 1);
    d_finish(d, 0);
    cr_assert_eq(c->tokens, 9);
    rig_check_quiet();
}

Test(core, a_client_that_does_not_read_is_cancelled, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d = decode(c);
    d_tokens(d, 0, 0, 4);
    for (int i = 0; i < 49; i++)
        rig_tick(100 * NS_PER_MS);
    cr_assert_eq(c->ends, 0);
    core_consumed(rig.core, c->id, 1); /* it lives */
    for (int i = 0; i < 49; i++)
        rig_tick(100 * NS_PER_MS);
    cr_assert_eq(c->ends, 0);
    for (int i = 0; i < 3; i++)
        rig_tick(100 * NS_PER_MS);
    cr_assert_eq(c->ends, 1);
    cr_assert_eq(c->end, ST_CANCELLED);
    cr_assert_eq(d->cancels, 1);
    rig_check_quiet();
}

Test(core, a_client_that_has_nothing_to_read_is_not, .init = rig_setup)
{
    struct rig_client *c = client(0);
    c->eager = true;
    struct rig_call *d = decode(c);
    for (int i = 0; i < 100; i++)
        rig_tick(200 * NS_PER_MS);
    cr_assert_eq(c->ends, 0);
    d_finish(d, 0);
    rig_check_quiet();
}

/* ---- ends in every state ---- */

enum stage { IN_QUEUE, IN_RESERVING, IN_FILLING, IN_PICKING, IN_DECODING, STAGES };

static void bring_to(struct rig_client *c, enum stage stage)
{
    struct rig_call *d = NULL, *p = NULL;
    switch (stage) {
    case IN_QUEUE:
        cr_assert_eq(rig_submit(c, 100, 1), ST_OK);
        break;
    case IN_RESERVING:
        cr_assert_eq(rig_submit(c, 100, 1), ST_OK);
        rig_tick(0);
        break;
    case IN_FILLING:
    case IN_PICKING:
        fill(c, &d, &p);
        break;
    case IN_DECODING:
        decode(c);
        break;
    case STAGES:
        break;
    }
}

Test(core, cancel_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        rig_setup();
        struct rig_client *c = client(0);
        bring_to(c, (enum stage)stage);
        struct rig_call *d = rig_call_of(CORE_CALL_D), *p = rig_call_of(CORE_CALL_P);
        core_cancel(rig.core, c->id, ST_CANCELLED, "The client has gone.");
        core_cancel(rig.core, c->id, ST_INTERNAL, "twice");
        /* In the same turn, before the core has looked: P is lost. */
        if (stage == IN_PICKING)
            rig_close(p, ST_LINK);
        rig_tick(0);
        cr_assert_eq(c->ends, 1, "stage %d", stage);
        cr_assert_eq(c->end, ST_CANCELLED, "stage %d", stage);
        cr_assert_null(slots_get(rig.core->requests, c->id));
        if (d) {
            cr_assert_eq(d->cancels, 1, "stage %d", stage);
            d_accept(d, 0); /* late words of a call given up */
            d_tokens(d, 0, 0, 2);
            d_finish(d, 0);
            garbage(d);
        }
        if (p && stage != IN_PICKING) {
            cr_assert_eq(p->cancels, 1, "stage %d", stage);
            p_first(p, 0);
        }
        core_consumed(rig.core, c->id, 1);
        core_stop_choice(rig.core, c->id, 0);
        core_cancel(rig.core, c->id, ST_CANCELLED, "late");
        rig_check_quiet();
    }
}

Test(core, time_counts_from_the_arrival)
{
    rig_setup();
    struct rig_client *c = client(0);
    struct error err;
    rig_tick(50 * NS_PER_S);
    const struct core_request req = {.request_id = "test",
                                     .prompt = {.v = prompt_ids, .n = 4},
                                     .n = 1,
                                     .sampling = {.max_tokens = 20, .logprobs = -1},
                                     .arrived_ns = rig.now_ns - 50 * NS_PER_S,
                                     .client = c};
    cr_assert_eq(core_submit(rig.core, &req, rig.now_ns, &c->id, &err), ST_OK);
    rig_tick(9 * NS_PER_S);
    cr_assert_eq(c->ends, 0);
    rig_tick(2 * NS_PER_S);
    cr_assert_eq(c->ends, 1);
    cr_assert_eq(c->end, ST_DEADLINE);
}

Test(core, the_time_is_up_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        rig_setup();
        struct rig_client *c = client(0);
        c->eager = true;
        bring_to(c, (enum stage)stage);
        if (stage == IN_QUEUE)
            for (int i = 0; i < RIG_NODES; i++)
                cluster_on_busy(&rig.core->cluster, i, 100 * NS_PER_S);
        rig_tick(59 * NS_PER_S);
        cr_assert_eq(c->ends, 0, "stage %d", stage);
        rig_tick(2 * NS_PER_S);
        cr_assert_eq(c->ends, 1, "stage %d", stage);
        cr_assert_eq(c->end, ST_DEADLINE, "stage %d", stage);
        for (int i = 0; i < rig.n_calls; i++) /* polls that nobody has answered for a minute */
            if (rig.calls[i].args.kind == CORE_CALL_STATUS && !rig.calls[i].closed)
                rig_close(&rig.calls[i], ST_DEADLINE);
        rig_check_quiet();
    }
}

Test(core, nothing_is_said_after_a_cancel_within_a_token, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d = decode(c);
    c->cancel_at_token = true;
    d_tokens(d, 0, 1, 1);
    cr_assert_eq(c->ends, 1);
    cr_assert_eq(c->tokens, 2);
    rig_check_quiet();
}

/* ---- nodes that fail ---- */

Test(core, a_call_that_cannot_start_is_tried_again, .init = rig_setup)
{
    struct rig_client *c = client(0);
    rig.refuse_start = true;
    cr_assert_eq(rig_submit(c, 100, 1), ST_OK);
    rig_tick(0);
    cr_assert_null(rig_call_of(CORE_CALL_D));
    for (int i = 0; i < 50; i++)
        rig_tick(NS_PER_MS);
    cr_assert_eq(c->ends, 0);
    rig.refuse_start = false;
    rig_tick(CLUSTER_POLL_NS);
    rig_answer_polls();
    rig_tick(CLUSTER_BUSY_NS);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    cr_assert_not_null(d);
    d_accept(d, 3);
    rig.refuse_start = true; /* P's call cannot start: D is told to compute */
    rig_close(rig_call_of(CORE_CALL_P), ST_PREEMPTED);
    cr_assert_eq(d->here, 1);
    d_finish(d, 0);
    rig.refuse_start = false;
    rig_check_quiet();
}

Test(core, a_start_that_cannot_be_sent_is_tried_again, .init = rig_setup)
{
    struct rig_client *c = client(0);
    rig.refuse_send = ST_BUSY;
    cr_assert_eq(rig_submit(c, 100, 1), ST_OK);
    rig_tick(0);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    cr_assert_eq(d->cancels, 1);
    rig.refuse_send = ST_OK;
    rig_close(d, ST_CANCELLED);
    rig_tick(CLUSTER_BUSY_NS);
    d = rig_call_of(CORE_CALL_D);
    cr_assert_eq(d->starts, 1);
    cr_assert_eq(c->ends, 0);
    d_finish(d, 0);
    rig_check_quiet();
}

Test(core, a_node_that_does_not_read_loses_the_request, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d = decode(c);
    d_tokens(d, 0, 0, 8);
    rig.refuse_send = ST_BUSY;
    core_consumed(rig.core, c->id, 8); /* a credit is due and does not go out */
    rig_tick(0);
    cr_assert_eq(d->cancels, 1);
    cr_assert_eq(c->ends, 0);
    rig.refuse_send = ST_OK;
    rig_close(d, ST_CANCELLED);
    rig_tick(0);
    struct rig_call *again = rig_call_of(CORE_CALL_D);
    cr_assert_not_null(again);
    cr_assert_eq(again->emitted, 8);
    d_finish(again, 0);
    cr_assert_eq(c->end, ST_OK);
    rig_check_quiet();
}

Test(core, the_last_words_of_a_call_that_is_over_are_heard, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d = decode(c);
    d_tokens(d, 0, 0, 8);
    rig.refuse_send = ST_CANCELLED; /* D has finished the call; its end is on the way */
    core_consumed(rig.core, c->id, 8);
    rig_tick(0);
    cr_assert_eq(d->cancels, 0);
    rig.refuse_send = ST_OK;
    d_finish(d, 0);
    cr_assert_eq(c->ends, 1);
    cr_assert_eq(c->end, ST_OK);
    rig_close(d, ST_OK);
    rig_check_quiet();
}

Test(core, a_full_node_is_passed_over_for_a_while, .init = rig_setup)
{
    struct rig_client *c = client(0);
    cr_assert_eq(rig_submit(c, 100, 1), ST_OK);
    rig_tick(0);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    int32_t first = d->args.node;
    d_reject(d, ST_BUSY);
    d_reject(d, ST_BUSY); /* nonsense, and nobody is hurt */
    d_accept(d, 5);
    rig_tick(0);
    struct rig_call *other = rig_call_of(CORE_CALL_D);
    cr_assert_neq(other->args.node, first, "the other one may have room");
    d_reject(other, ST_BUSY);
    rig_tick(CLUSTER_BUSY_NS - 1);
    cr_assert_eq(rig_call_of(CORE_CALL_D), other);
    rig_tick(1);
    struct rig_call *again = rig_call_of(CORE_CALL_D);
    cr_assert_neq(again, other);
    rig_close(d, ST_OK);
    rig_close(other, ST_OK);
    cr_assert_eq(c->ends, 0, "the old call says nothing about the new one");
    cr_assert_eq(
        rig.core->cluster.nodes[first].calls + rig.core->cluster.nodes[D0 + D1 - first].calls, 1);
    d_accept(again, 0);
    d_finish(again, 0);
    rig_check_quiet();
}

Test(core, what_never_fits_ends, .init = rig_setup)
{
    static const enum status ends[] = {ST_NEVER_FITS, ST_INVALID};
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(rig_submit(client(i), 100, 1), ST_OK);
        rig_tick(0);
        struct rig_call *d = rig_call_of(CORE_CALL_D);
        d_reject(d, ends[i]);
        cr_assert_eq(client(i)->end, ends[i]);
        rig_close(d, ST_OK);
    }
    rig_check_quiet();
}

Test(core, a_dead_decode_node_is_a_pause, .init = rig_setup)
{
    struct rig_client *c = client(0);
    c->eager = true;
    struct rig_call *d = decode(c);
    int32_t first = d->args.node;
    d_tokens(d, 0, 0, 5);
    rig_close(d, ST_LINK);
    cr_assert_eq(rig.core->cluster.nodes[first].state, NODE_DOWN);
    rig_tick(0);
    d = rig_call_of(CORE_CALL_D);
    cr_assert_neq(d->args.node, first);
    cr_assert_eq(d->emitted, 5);
    d_accept(d, 0);
    struct rig_call *p = rig_call_of(CORE_CALL_P);
    p_first(p, 5);
    rig_close(p, ST_OK);
    d_tokens(d, 0, 5, 2);
    d_finish(d, 0);
    cr_assert_eq(c->tokens, 7);
    cr_assert_eq(c->end, ST_OK);
    rig_check_quiet();
}

Test(core, a_dead_prefill_node_is_replaced_with_the_same_ticket, .init = rig_setup)
{
    struct rig_call *d, *p;
    fill(client(0), &d, &p);
    int32_t first = p->args.node;
    rig_close(p, ST_LINK);
    p = rig_call_of(CORE_CALL_P);
    cr_assert_neq(p->args.node, first);
    cr_assert_eq(p->ticket, 77);
    rig_close(p, ST_LINK); /* none is left */
    cr_assert_null(rig_call_of(CORE_CALL_P));
    cr_assert_eq(d->here, 1);
    d_tokens(d, 0, 0, 1);
    d_finish(d, 0);
    rig_check_quiet();
}

Test(core, pairs_that_cannot_reach_each_other_are_parted, .init = rig_setup)
{
    struct rig_call *d, *p;
    fill(client(0), &d, &p);
    int32_t node = d->args.node;
    rig_close(p, ST_TRANSFER);
    p = rig_call_of(CORE_CALL_P);
    rig_close(p, ST_TRANSFER);
    cr_assert_eq(d->here, 1, "no prefill node can send to it");
    d_finish(d, 0);
    rig_close(d, ST_CANCELLED);
    /* The next request goes to the decode node that can be sent to. */
    fill(client(1), &d, &p);
    cr_assert_neq(d->args.node, node);
    rig_close(p, ST_TRANSFER);
    p = rig_call_of(CORE_CALL_P);
    rig_close(p, ST_TRANSFER);
    d_finish(d, 0);
    rig_close(d, ST_CANCELLED);
    /* And when there is none, it does not wait for ten seconds: D computes. */
    cr_assert_eq(rig_submit(client(2), 100, 1), ST_OK);
    rig_tick(0);
    d = rig_call_of(CORE_CALL_D);
    cr_assert_not_null(d);
    cr_assert(d->local);
    d_finish(d, 0);
    rig_check_quiet();
}

Test(core, garbage_ends_the_call_only, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d, *p;
    fill(c, &d, &p);
    garbage(p);
    cr_assert_eq(p->cancels, 1);
    rig_close(p, ST_CANCELLED);
    garbage(d);
    cr_assert_eq(d->cancels, 1);
    rig_close(d, ST_CANCELLED);
    cr_assert_eq(c->ends, 0);
    rig_tick(0);
    struct rig_call *again = rig_call_of(CORE_CALL_D);
    cr_assert_neq(again, d);
    core_cancel(rig.core, c->id, ST_CANCELLED, "");
    rig_tick(0);
    rig_check_quiet();
}

Test(core, nodes_that_disagree_lose_the_request, .init = rig_setup)
{
    struct rig_client *c = client(0);
    struct rig_call *d = decode(c);
    const struct msg_token t = {.position = 0, .id = 9999};
    say_to_core(d, &(struct msg_decode_event){.kind = MSG_D_TOKENS, .tokens = &t, .n_tokens = 1});
    cr_assert_eq(d->cancels, 1);
    cr_assert_eq(c->ends, 0);
    rig_tick(0);
    struct rig_call *again = rig_call_of(CORE_CALL_D);
    cr_assert_neq(again, d);
    cr_assert_eq(again->emitted, 1);
    d_finish(again, 0);
    rig_check_quiet();
}

Test(core, stopped_choices, .init = rig_setup)
{
    struct rig_client *c = client(0);
    c->eager = true;
    c->stop_at = 2;
    cr_assert_eq(rig_submit(c, 10, 2), ST_OK);
    rig_tick(0);
    struct rig_call *d = rig_call_of(CORE_CALL_D);
    d_accept(d, 0);
    d_tokens(d, 0, 0, 4); /* two too many: they were under way */
    cr_assert_eq(c->next[0], 2);
    cr_assert_eq(d->stopped, 1);
    d_tokens(d, 0, 4, 1);
    d_tokens(d, 1, 0, 3);
    cr_assert_eq(c->next[1], 3);
    cr_assert_eq(c->ends, 0);
    d_finish(d, 1);
    cr_assert_eq(c->end, ST_OK);
    cr_assert_eq(c->usage.completion_tokens, 5);
    rig_check_quiet();
}

Test(core, without_a_decode_node_waiting_has_an_end, .init = rig_setup)
{
    struct rig_client *c = client(0);
    c->eager = true;
    struct rig_call *d = decode(c);
    rig_close(d, ST_LINK);
    rig_tick(0);
    rig_close(rig_call_of(CORE_CALL_D), ST_LINK);
    for (int i = 0; i < 99; i++)
        rig_tick(100 * NS_PER_MS);
    cr_assert_eq(c->ends, 0);
    rig_tick(NS_PER_S);
    cr_assert_eq(c->end, ST_LINK);
    for (int i = 0; i < rig.n_calls; i++)
        if (!rig.calls[i].closed)
            rig_close(&rig.calls[i], ST_DEADLINE);
    rig_check_quiet();
}

/* Calls that were given up and do not end fill the table: requests wait until there is room. */
Test(core, calls_are_bounded)
{
    rig_open(8, 2, 10);
    for (int i = 0; i < 600; i++) {
        struct rig_client *c = client(0);
        *c = (struct rig_client){0};
        cr_assert_eq(rig_submit(c, 100, 1), ST_OK);
        rig_tick(CLUSTER_BUSY_NS);
        rig_answer_polls();
        core_cancel(rig.core, c->id, ST_CANCELLED, "");
        rig_tick(0);
        cr_assert_eq(c->end, ST_CANCELLED);
    }
    struct core_load load;
    core_get_load(rig.core, &load);
    cr_assert_leq(load.calls, 4 * 2 + CLUSTER_NODES_MAX);
    rig_check_quiet();
}

Test(core, one_poll_at_a_time, .init = rig_setup)
{
    int before = rig.n_calls;
    for (int i = 0; i < 10; i++)
        rig_tick(CLUSTER_POLL_NS);
    cr_assert_eq(rig.n_calls, before + RIG_NODES);
    cr_assert_leq(core_wake_ns(rig.core), rig.now_ns + CORE_WATCH_NS);
    for (int i = before; i < before + RIG_NODES; i++)
        rig_close(&rig.calls[i], ST_DEADLINE);
    cr_assert_not(cluster_ready(core_cluster(rig.core)));
    rig_check_quiet();
}
