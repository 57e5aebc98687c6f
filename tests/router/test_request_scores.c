/* A request whose prompt is scored: scores first, each once; what is missing is asked for again;
 * and nothing ends before they are all there. */
#include <criterion/criterion.h>

#include "router/request.h"

#define PROMPT 10

static void begin(struct request *r, bool local)
{
    const struct msg_accepted accepted = {.ticket = {{1, 2}}};
    request_init(r, 1, 0);
    request_want_scores(r, PROMPT);
    request_admit(r, local, 1);
    request_on_accepted(r, &accepted, false, 2);
}

static int32_t scores(struct request *r, int32_t from, int32_t n)
{
    struct msg_score s[PROMPT];
    for (int32_t i = 0; i < n; i++)
        s[i] = (struct msg_score){.position = from + i, .rank = 1};
    return request_on_scores(r, s, n, 3);
}

static bool acts(struct request *r, enum request_action wanted)
{
    enum request_action a;
    bool found = false;
    while (request_take_action(r, &a))
        found = found || a == wanted;
    return found;
}

static const struct msg_finish over = {.reason = MSG_FINISH_LENGTH, .stop_id = -1};

Test(request_scores, count_once_in_order)
{
    struct request r;
    begin(&r, false);
    cr_assert_eq(scores(&r, 1, 4), 0);
    cr_assert_eq(scores(&r, 1, 4), 4, "a second node begins again");
    cr_assert_eq(scores(&r, 3, 5), 2);
    cr_assert_eq(r.scored, 8);
    cr_assert_eq(scores(&r, 8, 2), 0);
    cr_assert_not(request_scores_missing(&r));
    cr_assert_eq(request_on_token(&r, &(struct msg_token){.id = 7}, false, 4), REQUEST_EMIT);
    request_fini(&r);
}

Test(request_scores, that_are_skipped_cost_the_call)
{
    for (int how = 0; how < 4; how++) {
        struct request r;
        begin(&r, how % 2);
        scores(&r, 1, 3);
        acts(&r, REQUEST_END);
        if (how < 2)
            cr_assert_eq(scores(&r, 5, 1), -1);
        else if (how == 2)
            cr_assert_eq(request_on_token(&r, &(struct msg_token){.id = 7}, false, 4),
                         REQUEST_CONFLICT, "a token before the last score");
        else
            cr_assert_eq(scores(&r, 4, PROMPT - 3), -1, "more than the prompt has");
        cr_assert_eq(r.state, REQUEST_QUEUED);
        cr_assert(acts(&r, REQUEST_REQUEUE));
        cr_assert_eq(r.scored, 4, "what was said stays said");
        request_fini(&r);
    }
}

Test(request_scores, end_a_request_that_generates_nothing)
{
    for (int finish_first = 0; finish_first < 2; finish_first++) {
        struct request r;
        begin(&r, true);
        if (finish_first)
            cr_assert(request_on_finish(&r, &over, 3));
        cr_assert_neq(r.state, REQUEST_DONE);
        scores(&r, 1, PROMPT - 1);
        if (!finish_first)
            cr_assert(request_on_finish(&r, &over, 3));
        cr_assert_eq(r.state, REQUEST_DONE);
        cr_assert_eq(r.end_status, ST_OK);
        request_fini(&r);
    }
}

/* D has all it needs and has ended its call while P still speaks. */
Test(request_scores, may_follow_the_end_of_the_decode_call)
{
    for (int lost = 0; lost < 2; lost++) {
        struct request r;
        begin(&r, false);
        request_on_finish(&r, &over, 3);
        request_on_d_closed(&r, ST_OK, "", 4);
        cr_assert_eq(r.state, REQUEST_FILLING);
        if (lost) {
            scores(&r, 1, 2);
            request_on_p_closed(&r, ST_LINK, "gone", 5);
            cr_assert_eq(r.state, REQUEST_QUEUED, "its ticket died with that call");
            cr_assert_eq(r.scored, 3);
        } else {
            scores(&r, 1, PROMPT - 1);
            cr_assert_eq(r.end_status, ST_OK);
            cr_assert_eq(r.state, REQUEST_DONE);
        }
        request_fini(&r);
    }
}

Test(request_scores, are_asked_for_again_when_the_prefill_node_dies)
{
    struct request r;
    begin(&r, false);
    scores(&r, 1, 5);
    acts(&r, REQUEST_END);
    request_on_p_closed(&r, ST_LINK, "gone", 5);
    cr_assert_eq(r.state, REQUEST_FILLING);
    cr_assert(acts(&r, REQUEST_PICK_P), "another, with the same ticket");
    request_no_p(&r, 6);
    cr_assert(acts(&r, REQUEST_PREFILL_HERE));
    cr_assert_eq(scores(&r, 3, 7), 3);
    cr_assert_not(request_scores_missing(&r));
    request_fini(&r);
    begin(&r, false);
    request_on_p_closed(&r, ST_OK, "", 5);
    cr_assert_eq(r.state, REQUEST_QUEUED, "all well, it says, and has said no score");
    request_fini(&r);
}
