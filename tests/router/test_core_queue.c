/* The router's core and its queue: who goes first, who waits, and what a resumed request is given.
 */
#include "router/core_rig.h"

static struct rig_client *client(int i)
{
    return &rig.clients[i];
}

/* Which client's request a Start is for: prompts tell them apart. */
static struct rig_call *start_of(int32_t prompt)
{
    for (int i = rig.n_calls - 1; i >= 0; i--)
        if (rig.calls[i].args.kind == CORE_CALL_D && !rig.calls[i].closed &&
            rig.calls[i].prompt == prompt)
            return &rig.calls[i];
    return NULL;
}

static void only_one_slot(void)
{
    rig_open(8, 16, 4);
    rig.slots = 1;
    rig_tick(CLUSTER_POLL_NS);
    rig_answer_polls();
}

/* Short prompts stay on their decode node: two requests take both, the third waits. */
static struct rig_call *fill_both_and_queue(int32_t waiting)
{
    only_one_slot();
    for (int i = 0; i < 2; i++) {
        client(i)->eager = true;
        cr_assert_eq(rig_submit(client(i), 10 + i, 1), ST_OK);
        rig_tick(0);
        cr_assert_not_null(start_of(10 + i));
        d_accept(start_of(10 + i), 0);
    }
    for (int32_t i = 0; i < waiting; i++) {
        cr_assert_eq(rig_submit(client(2 + i), 12 + i, 1), ST_OK);
        rig_tick(0);
        cr_assert_null(start_of(12 + i));
    }
    return start_of(10);
}

Test(core_queue, what_was_preempted_goes_before_new_work)
{
    struct rig_call *d = fill_both_and_queue(1);
    d_tokens(d, 0, 0, 3);
    rig_close(d, ST_PREEMPTED);
    rig_tick(0);
    struct rig_call *again = start_of(10);
    cr_assert_not_null(again, "the newcomer was let past");
    cr_assert_eq(again->emitted, 3);
    cr_assert_null(start_of(12));
    d_accept(again, 0);
    d_finish(again, 0);
    rig_close(again, ST_OK);
    rig_tick(0);
    cr_assert_not_null(start_of(12), "and then it is the newcomer's turn");
    d_finish(start_of(12), 0);
    d_finish(start_of(11), 0);
    rig_close(start_of(12), ST_OK);
    rig_close(start_of(11), ST_OK);
    rig_check_quiet();
}

Test(core_queue, first_come_first_served)
{
    struct rig_call *d = fill_both_and_queue(3);
    for (int32_t i = 0; i < 3; i++) {
        d_finish(d, 0);
        rig_close(d, ST_OK);
        rig_tick(0);
        for (int32_t k = i + 1; k < 3; k++)
            cr_assert_null(start_of(12 + k));
        d = start_of(12 + i);
        cr_assert_not_null(d, "request %d", i);
        d_accept(d, 0);
    }
    d_finish(d, 0);
    rig_close(d, ST_OK);
    d_finish(start_of(11), 0);
    rig_close(start_of(11), ST_OK);
    rig_check_quiet();
}

/* A long prompt that no prefill node can take now must not starve behind short ones that would fit.
 */
Test(core_queue, what_fits_does_not_overtake_what_waits, .init = rig_setup)
{
    for (int i = P0; i <= P1; i++)
        cluster_on_busy(&rig.core->cluster, i, rig.now_ns);
    cr_assert_eq(rig_submit(client(0), 100, 1), ST_OK);
    cr_assert_eq(rig_submit(client(1), 10, 1), ST_OK);
    rig_tick(0);
    cr_assert_null(start_of(100));
    cr_assert_null(start_of(10));
    rig_tick(CLUSTER_BUSY_NS);
    cr_assert_not_null(start_of(100));
    cr_assert_not_null(start_of(10));
    for (int i = 0; i < 2; i++)
        core_cancel(rig.core, client(i)->id, ST_CANCELLED, "");
    rig_tick(0);
    rig_check_quiet();
}

/* Choices share the window: each may be a few tokens ahead of what the client has read. */
Test(core_queue, the_window_grows_with_the_choices, .init = rig_setup)
{
    client(0)->eager = true;
    cr_assert_eq(rig_submit(client(0), 10, 8), ST_OK);
    rig_tick(0);
    cr_assert_eq(start_of(10)->credits, 4 * 8);
    core_cancel(rig.core, client(0)->id, ST_CANCELLED, "");
    rig_tick(0);
    rig_check_quiet();
}
