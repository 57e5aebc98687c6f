/* Too little room, too little credit, wrong requests. */
#include <stdio.h>

#include "harness.h"

/* As the router does with a preempted call: give up the group, start again from what was said. */
static bool resume(struct rig *r, struct ask *a)
{
    struct msg_ids emitted[H_CHOICES];
    bool finished[H_CHOICES];
    if (a->live)
        ask_release(r, a);
    for (int32_t c = 0; c < a->n; c++) {
        emitted[c] = (struct msg_ids){a->said[c], (uint32_t)a->n_said[c]};
        finished[c] = a->ended[c];
    }
    struct engine_request req = ask_request(a);
    req.emitted = emitted;
    req.finished = finished;
    a->failed = false;
    if (ask_reserve_as(r, a, &req) != ST_OK)
        return false;
    engine_fill_here(r->engine, a->group);
    return true;
}

static bool all_ended(const struct ask *a)
{
    for (int32_t c = 0; c < a->n; c++)
        if (!a->ended[c])
            return false;
    return true;
}

Test(pressure, preempted_requests_resume_and_say_the_same, .timeout = 120)
{
    for (int32_t n = 1; n <= 3; n += 2) {
        struct rig r;
        rig_open(&r, (struct rig_options){.blocks = 30});
        struct ask *a[6];
        int waiting[6], n_waiting = 6, preempted = 0;
        for (int i = 0; i < 6; i++) {
            a[i] = ask_new((uint64_t)i + 60, 6 + i, n);
            a[i]->spec.max_tokens = n == 1 ? 40 : 25;
            a[i]->spec.ignore_eos = true;
            waiting[i] = i;
        }
        for (int round = 0; round < 20000; round++) {
            int left = 0;
            for (int i = 0; i < n_waiting; i++)
                if (!resume(&r, a[waiting[i]]))
                    waiting[left++] = waiting[i];
            n_waiting = left;
            if (engine_runnable(r.engine))
                rig_step(&r);
            bool done = n_waiting == 0;
            for (int i = 0; i < 6; i++) {
                if (a[i]->live && a[i]->failed) {
                    cr_assert_eq(a[i]->status, ST_PREEMPTED);
                    ask_release(&r, a[i]);
                    waiting[n_waiting++] = i;
                    preempted++;
                    done = false;
                } else if (a[i]->live && all_ended(a[i])) {
                    ask_release(&r, a[i]);
                }
                done = done && !a[i]->live;
            }
            if (done)
                break;
        }
        cr_assert(preempted > 0, "nothing was preempted");
        struct engine_load load;
        engine_load(r.engine, &load);
        cr_assert_eq(load.preemptions_total, preempted);
        for (int i = 0; i < 6; i++) {
            ask_expect(&r, a[i], "preempted");
            free(a[i]);
        }
        rig_expect_all_free(&r);
        rig_close(&r);
    }
}

Test(pressure, the_youngest_goes_first)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 12});
    struct ask *a[3];
    for (int i = 0; i < 3; i++) {
        a[i] = ask_new((uint64_t)i, 5, 1);
        a[i]->spec.ignore_eos = true;
        ask_start(&r, a[i]);
    }
    rig_run(&r);
    cr_assert_not(a[0]->failed);
    cr_assert(a[0]->ended[0]);
    cr_assert(a[2]->failed);
    cr_assert_eq(a[2]->status, ST_PREEMPTED);
    for (int i = 0; i < 3; i++) {
        ask_release(&r, a[i]);
        free(a[i]);
    }
    rig_close(&r);
}

Test(pressure, who_outgrows_the_whole_pool_never_fits)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 4});
    struct ask *a = ask_new(1, 9, 1);
    a->spec.ignore_eos = true;
    a->spec.max_tokens = 40;
    ask_start(&r, a);
    rig_run(&r);
    cr_assert(a->failed);
    cr_assert_eq(a->status, ST_NEVER_FITS);
    cr_assert_eq(a->n_said[0], 16 - 9 + 1);
    ask_release(&r, a);
    rig_expect_all_free(&r);
    free(a);
    rig_close(&r);
}

Test(pressure, room_is_refused_with_the_right_word)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 10});
    struct ask *big = ask_new(1, 41, 1), *fits = ask_new(2, 25, 1), *second = ask_new(3, 9, 1);
    struct ask *longest = ask_new(4, 511, 1);
    cr_assert_eq(ask_reserve(&r, big), ST_NEVER_FITS);
    cr_assert_eq(ask_reserve(&r, longest), ST_NEVER_FITS);
    longest->prompt.n = 512;
    cr_assert_eq(ask_reserve(&r, longest), ST_NEVER_FITS);
    cr_assert_eq(ask_reserve(&r, fits), ST_OK);
    cr_assert_eq(ask_reserve(&r, second), ST_BUSY);
    second->prompt.n = 1; /* 2 blocks and the watermark fit into the 2 that are left: no */
    cr_assert_eq(ask_reserve(&r, second), ST_BUSY);
    ask_release(&r, fits);
    cr_assert_eq(ask_reserve(&r, second), ST_OK);
    ask_release(&r, second);
    rig_expect_all_free(&r);
    free(big);
    free(fits);
    free(second);
    free(longest);
    rig_close(&r);
}

Test(pressure, groups_are_bounded)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 1024});
    struct ask *a[65];
    for (int i = 0; i < 65; i++) {
        a[i] = ask_new((uint64_t)i, 5, 1);
        cr_assert_eq(ask_reserve(&r, a[i]), i < 64 ? ST_OK : ST_BUSY);
    }
    for (int i = 0; i < 65; i++) {
        if (i < 64)
            ask_release(&r, a[i]);
        free(a[i]);
    }
    rig_close(&r);
}

Test(pressure, wrong_requests_are_invalid)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *a = ask_new(1, 8, 1);
    struct engine_request good = ask_request(a), bad;
    int32_t ids[] = {1, 2, 64};
    struct msg_ids emitted = {ids, 3};
    struct msg_bias bias = {70, 1};
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        bad = good;                                                                                \
        change;                                                                                    \
        cr_assert_eq(ask_reserve_as(&r, a, &bad), ST_INVALID, "%s", #change);                      \
    } while (0)
    REFUSED(bad.prompt.n = 0);
    REFUSED((bad.prompt = (struct msg_ids){ids, 3}));
    REFUSED(bad.n = 0);
    REFUSED(bad.n = MSG_CHOICES_MAX + 1);
    REFUSED(bad.emitted = &emitted);
    REFUSED(bad.history_prompt = 9);
    REFUSED(bad.sampling.temperature = -1);
    REFUSED(bad.sampling.temperature = 0.0F / 0.0F);
    REFUSED(bad.sampling.top_p = 0);
    REFUSED(bad.sampling.top_k = -1);
    REFUSED(bad.sampling.repetition_penalty = 0);
    REFUSED(bad.sampling.max_tokens = -1);
    REFUSED(bad.scoring.begin = -1);
    REFUSED(bad.scoring.begin = (int32_t)bad.prompt.n + 1);
    REFUSED(bad.scoring.top = MSG_LOGPROBS_MAX + 1);
    REFUSED(bad.sampling.logprobs = 21);
    REFUSED((bad.sampling.stop_ids = (struct msg_ids){ids, 3}));
    REFUSED((bad.sampling.bias = &bias, bad.sampling.n_bias = 1));
    ids[2] = -1;
    REFUSED((bad.prompt = (struct msg_ids){ids, 3}));
    rig_expect_all_free(&r);
    free(a);
    rig_close(&r);
}

Test(pressure, no_credit_no_token)
{
    for (int32_t n = 1; n <= 4; n += 3) {
        struct rig r;
        rig_open(&r, (struct rig_options){0});
        struct ask *a = ask_new(21, 9, n), *other = ask_new(22, 9, 1);
        a->spec.ignore_eos = true;
        struct engine_request req = ask_request(a);
        req.credits = 0;
        cr_assert_eq(ask_reserve_as(&r, a, &req), ST_OK);
        engine_fill_here(r.engine, a->group);
        ask_start(&r, other);
        rig_run(&r);
        ask_expect(&r, other, "other");
        int32_t given = 0;
        while (!all_ended(a)) {
            int32_t said = 0;
            for (int32_t c = 0; c < n; c++) {
                said += a->n_said[c];
                cr_assert(a->n_said[0] - a->n_said[c] <= 2, "choice %d falls behind", c);
            }
            cr_assert_eq(said, given);
            int32_t more = 1 + given % 3;
            given += more;
            engine_credit(r.engine, a->group, more);
            rig_run(&r);
            if (given > 20 * n)
                break;
        }
        ask_expect(&r, a, "credited");
        ask_release(&r, a);
        ask_release(&r, other);
        rig_expect_all_free(&r);
        free(a);
        free(other);
        rig_close(&r);
    }
}

Test(pressure, stopped_choices_give_their_blocks_back)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.no_prefix = true});
    struct ask *a = ask_new(21, 9, 3);
    a->spec.ignore_eos = true;
    ask_start(&r, a);
    engine_stop_choice(r.engine, a->group, 0); /* the lead, before the fork */
    engine_check(r.engine);
    for (int i = 0; i < 5; i++)
        rig_step(&r);
    cr_assert_eq(a->n_said[0], 0);
    engine_stop_choice(r.engine, a->group, 2);
    engine_check(r.engine);
    int32_t said = a->n_said[2];
    rig_run(&r);
    cr_assert_eq(a->n_said[2], said);
    cr_assert(a->ended[1] && !a->ended[0] && !a->ended[2]);
    struct engine_load load;
    engine_load(r.engine, &load);
    cr_assert_eq(load.blocks.free, load.blocks.total);
    cr_assert_eq(load.running, 0);
    ask_release(&r, a);
    free(a);
    rig_close(&r);
}

Test(pressure, nothing_is_computed_for_what_has_ended)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *a = ask_new(21, 9, 3);
    int32_t over[] = {5, FAKE_EOS}, full[20];
    for (int i = 0; i < 20; i++)
        full[i] = 3;
    struct msg_ids emitted[] = {{over, 2}, {full, 20}, {full, 4}};
    bool finished[] = {false, false, true};
    struct engine_request req = ask_request(a);
    req.emitted = emitted;
    req.finished = finished;
    cr_assert_eq(ask_reserve_as(&r, a, &req), ST_OK);
    cr_assert(engine_runnable(r.engine));
    rig_run(&r);
    cr_assert_eq(r.model.rows, 0);
    cr_assert(a->ended[0] && a->ended[1] && !a->ended[2]);
    cr_assert_eq(a->finish[0].reason, MSG_FINISH_STOP);
    cr_assert_eq(a->finish[1].reason, MSG_FINISH_LENGTH);
    engine_fill_here(r.engine, a->group);
    rig_run(&r);
    cr_assert_eq(r.model.rows, 0);
    ask_release(&r, a);
    rig_expect_all_free(&r);
    free(a);
    rig_close(&r);
}

Test(pressure, the_context_ends_a_sequence)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.block_tokens = 16});
    struct ask *a = ask_new(21, 500, 1);
    a->spec.ignore_eos = true;
    ask_start(&r, a);
    rig_run(&r);
    cr_assert_eq(a->n_said[0], 12);
    cr_assert_eq(a->finish[0].reason, MSG_FINISH_LENGTH);
    ask_release(&r, a);
    free(a);
    rig_close(&r);
}

Test(pressure, bad_logits_fail_the_request_only)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *a = ask_new(21, 9, 3);
    ask_start(&r, a);
    rig_step(&r);
    r.model.broken = true;
    rig_run(&r);
    cr_assert(a->failed);
    cr_assert_eq(a->status, ST_INTERNAL);
    ask_release(&r, a);
    r.model.broken = false;
    struct ask *b = ask_new(22, 9, 3);
    ask_start(&r, b);
    rig_run(&r);
    ask_expect(&r, b, "after a failure");
    ask_release(&r, b);
    rig_expect_all_free(&r);
    free(a);
    free(b);
    rig_close(&r);
}

Test(pressure, min_tokens_and_stop_ids)
{
    for (int32_t min = 0; min < 24; min += 6) {
        struct rig r;
        rig_open(&r, (struct rig_options){0});
        int32_t stop[40];
        for (int32_t i = 0; i < 40; i++)
            stop[i] = 20 + i;
        struct ask *a = ask_new(21, 9, 4);
        a->spec.min_tokens = min;
        a->spec.stop_ids = (struct msg_ids){stop, 40};
        ask_start(&r, a);
        rig_run(&r);
        ask_expect(&r, a, "stop ids");
        for (int32_t c = 0; c < 4; c++)
            cr_assert(a->n_said[c] > min || a->n_said[c] == 20);
        ask_release(&r, a);
        free(a);
        rig_close(&r);
    }
}

Test(pressure, short_prompts_do_not_wait_for_a_long_one)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 512, .chunk = 16});
    struct ask *slow = ask_new(1, 400, 1), *quick = ask_new(2, 8, 1);
    ask_start(&r, slow);
    ask_start(&r, quick);
    int steps = 0;
    while (quick->n_said[0] == 0) {
        rig_step(&r);
        steps++;
    }
    cr_assert_leq(steps, 2);
    rig_run(&r);
    ask_expect(&r, slow, "long");
    ask_expect(&r, quick, "short");
    ask_release(&r, slow);
    ask_release(&r, quick);
    free(slow);
    free(quick);
    rig_close(&r);
}
