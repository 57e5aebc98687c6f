/* The decode role: whatever happens, a call is finished at most once and what it held is given
 * back, once, when the mover is quiet.
 *
 * It has over 600 lines because the cases share how a call is brought to each state. */
#include "decode-node/decode.h"
#include "node/role_rig.h"

static void open_small(void)
{
    rig_open(&decode_role_ops, 64, false);
}

static struct msg_start start_of(int32_t prompt, int32_t max_tokens)
{
    return (struct msg_start){.request_id = "test",
                              .prompt = rig_prompt(1, prompt),
                              .n = 1,
                              .sampling = rig_sampling(max_tokens),
                              .cache_salt = "",
                              .credits = 1000,
                              .fingerprint = {7, 7}};
}

static void say_start(struct rig_call *k, const struct msg_start *m)
{
    static const struct msg_ids none[8];
    static const bool unfinished[8];
    struct msg_start with = *m;
    struct buf b = {0};
    if (!with.emitted)
        with.emitted = none;
    if (!with.finished)
        with.finished = unfinished;
    codec_put_start(&b, &with);
    rig_say(k, &b);
}

static void control(struct rig_call *k, struct msg_decode_control m)
{
    struct buf b = {0};
    codec_put_control(&b, &m);
    rig_say(k, &b);
}

/* What P would have brought, and the token it sampled. */
static void land(struct rig_handoff *h, const struct msg_start *m, bool first)
{
    const struct model_kv kv = {.pool = rig.pool, .layout = rig.layout};
    int32_t ids[RIG_TOKENS];
    enum msg_finish_reason reason;
    fake_fill(&rig.model, &kv, (struct fake_table){h->blocks, 0}, &m->prompt, h->begin);
    fake_generate(&rig.model, &m->prompt, NULL, &m->sampling, 0, ids, &reason);
    const struct msg_token t = {.id = ids[0]};
    rig_mover(MOVER_LANDED, h, &t, first);
}

static void check_tokens(const struct rig_call *k, const struct msg_start *m)
{
    int32_t ids[RIG_TOKENS];
    enum msg_finish_reason reason;
    for (int32_t c = 0; c < m->n; c++) {
        int32_t n = fake_generate(&rig.model, &m->prompt, NULL, &m->sampling, c, ids, &reason);
        cr_assert_eq(k->n[c], n, "choice %d: %d of %d tokens", c, k->n[c], n);
        cr_assert_eq(memcmp(k->ids[c], ids, sizeof(int32_t) * (size_t)n), 0, "choice %d", c);
    }
}

enum stage { OPENED, FILLING, SWITCHING, RUNNING, RUNNING_LANDED, STAGES };

static struct rig_call *bring_to(enum stage stage, struct msg_start *m)
{
    struct rig_call *k = rig_dial();
    *m = start_of(30, 20);
    m->local_prefill = stage == RUNNING;
    if (stage == OPENED)
        return k;
    say_start(k, m);
    if (stage == SWITCHING)
        control(k, (struct msg_decode_control){.prefill_here = true});
    if (stage == RUNNING_LANDED)
        land(&rig.handoffs[0], m, true);
    if (stage == RUNNING || stage == RUNNING_LANDED)
        rig_steps(5);
    return k;
}

static void quiet(void)
{
    for (int i = 0; i < rig.n_handoffs; i++)
        if (rig.handoffs[i].closed)
            rig_mover(MOVER_QUIET, &rig.handoffs[i], NULL, 0);
}

Test(decode, computes_by_itself)
{
    open_small();
    struct msg_start m = start_of(30, 10);
    struct rig_call *k = rig_dial();
    m.local_prefill = true;
    m.n = 2;
    m.sampling.temperature = 0.8f;
    say_start(k, &m);
    cr_assert_eq(k->accepted, 1);
    rig_steps(100);
    check_tokens(k, &m);
    cr_assert_eq(k->finish_events, 2);
    cr_assert_eq(k->done, 1);
    cr_assert_eq(k->finishes, 1);
    cr_assert_eq(k->status, ST_OK);
    rig_close(k);
    cr_assert_eq(rig.n_handoffs, 0);
    rig_end();
}

/* Scores first; a call that has nothing to generate is done when they are said. */
Test(decode, says_the_scores_of_what_it_computes)
{
    for (int32_t tokens = 0; tokens <= 5; tokens += 5) {
        for (int over = 0; over <= (tokens == 0); over++) {
            static const bool finished[] = {true};
            rig_open(&decode_role_ops, 128, false);
            struct msg_start m = start_of(200, tokens);
            struct rig_call *k = rig_dial();
            m.local_prefill = true;
            m.scoring = (struct msg_scoring){.begin = 1, .top = 1};
            m.finished = over ? finished : NULL;
            m.credits = 0; /* no token before the router has them all */
            say_start(k, &m);
            k->room = 2; /* and it reads slowly */
            for (int i = 0; i < 20; i++) {
                rig_steps(3);
                cr_assert(k->done == 0 || k->scored == 199);
                k->deaf = false;
                k->room = 2;
            }
            cr_assert_eq(k->scored, 199);
            cr_assert_eq(k->done, tokens == 0);
            if (tokens > 0) {
                k->room = 0;
                control(k, (struct msg_decode_control){.credit = 10});
                rig_steps(100);
                check_tokens(k, &m);
            }
            cr_assert_eq(k->finish_events, !over);
            cr_assert_eq(k->done, 1);
            rig_close(k);
            rig_end();
        }
    }
}

Test(decode, leaves_the_scores_to_who_computes_the_prompt)
{
    open_small();
    struct msg_start m = start_of(30, 0);
    struct rig_call *k = rig_dial();
    m.scoring = (struct msg_scoring){.begin = 1};
    say_start(k, &m);
    rig_steps(10);
    cr_assert_eq(k->finish_events, 1);
    cr_assert_eq(k->done, 0, "nothing has landed");
    land(&rig.handoffs[0], &m, false);
    rig_steps(10);
    cr_assert_eq(k->scored, 0);
    cr_assert_eq(k->done, 1);
    rig_close(k);
    quiet();
    rig_end();
}

/* What has landed would not be computed again: the router has to begin anew. */
Test(decode, cannot_score_what_has_landed)
{
    for (int landed = 0; landed < 2; landed++) {
        open_small();
        struct msg_start m = start_of(30, 5);
        struct rig_call *k = rig_dial();
        m.scoring = (struct msg_scoring){.begin = 1};
        m.credits = 0;
        say_start(k, &m);
        if (landed)
            land(&rig.handoffs[0], &m, true);
        rig_steps(5);
        control(k, (struct msg_decode_control){.prefill_here = true});
        quiet();
        rig_steps(100);
        cr_assert_eq(k->finishes, landed);
        cr_assert_eq(k->scored, landed ? 0 : 29);
        if (landed)
            cr_assert_eq(k->status, ST_PREEMPTED);
        rig_close(k);
        quiet();
        rig_end();
    }
}

Test(decode, takes_what_lands)
{
    for (int first = 0; first < 2; first++) {
        open_small();
        struct msg_start m = start_of(30, 10);
        struct rig_call *k = rig_dial();
        say_start(k, &m);
        cr_assert_eq(k->n_ranks, 1);
        cr_assert_eq(rig.n_handoffs, 1);
        cr_assert_eq(rig.handoffs[0].end, 30);
        rig_steps(100);
        cr_assert_eq(k->n[0], 0, "nothing runs before it has landed");
        land(&rig.handoffs[0], &m, first);
        rig_mover(MOVER_LANDED, &rig.handoffs[0], NULL, 0); /* again: nothing */
        rig_steps(100);
        check_tokens(k, &m);
        cr_assert_eq(k->done, 1);
        rig_close(k);
        cr_assert_eq(rig_held(), 1, "until the mover is quiet");
        quiet();
        rig_end();
    }
}

Test(decode, an_aggregated_node_never_waits)
{
    rig_open(&decode_role_ops, 64, true);
    struct msg_start m = start_of(30, 10);
    struct rig_call *k = rig_dial();
    say_start(k, &m);
    rig_steps(100);
    check_tokens(k, &m);
    rig_close(k);
    rig_end();
}

Test(decode, the_call_is_the_lease_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        for (int late = 0; late < 2; late++) {
            open_small();
            struct msg_start m;
            struct rig_call *k = bring_to((enum stage)stage, &m);
            bool plan = rig.n_handoffs > 0;
            rig_close(k);
            if (stage == FILLING || stage == SWITCHING)
                cr_assert_gt(rig_blocks().quarantined, 0, "stage %d", stage);
            else
                cr_assert_eq(rig_blocks().quarantined, 0, "stage %d", stage);
            if (plan && late) /* it has landed while the call was ending */
                rig_mover(MOVER_LANDED, &rig.handoffs[0], NULL, 0);
            if (plan && late)
                rig_mover(MOVER_FAILED, &rig.handoffs[0], NULL, 0);
            rig_flush();
            cr_assert_eq(rig_held(), plan, "stage %d", stage);
            quiet();
            quiet(); /* a stale one hurts nobody */
            cr_assert_eq(k->finishes, 0, "stage %d: there is nobody to tell", stage);
            rig_end();
        }
    }
}

Test(decode, time_is_up_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        open_small();
        struct msg_start m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        rig.now_ns += NODE_OPEN_NS - 1;
        rig_flush();
        cr_assert_eq(k->finishes, 0);
        rig.now_ns += 1;
        rig_flush();
        cr_assert_eq(k->finishes, stage == OPENED, "stage %d: only a silent call is ended", stage);
        rig_close(k);
        quiet();
        /* A deadline of its own. */
        struct rig_call *other = rig_dial();
        m = start_of(40, 20);
        m.deadline_ms = 50;
        m.local_prefill = stage % 2 == 0;
        say_start(other, &m);
        rig.now_ns += 50 * NS_PER_MS;
        rig_flush();
        cr_assert_eq(other->status, ST_DEADLINE);
        rig_close(other);
        quiet();
        rig_end();
    }
}

/* Whoever asks for no end gets the node's. */
Test(decode, no_call_is_for_ever)
{
    for (int stage = FILLING; stage < STAGES; stage++) {
        open_small();
        struct msg_start m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        rig.now_ns += RIG_REQUEST_NS - NS_PER_MS;
        rig_flush();
        cr_assert_eq(k->finishes, 0, "stage %d", stage);
        rig.now_ns += NS_PER_MS;
        rig_flush();
        cr_assert_eq(k->status, ST_DEADLINE, "stage %d", stage);
        rig_close(k);
        quiet();
        rig_end();
    }
}

Test(decode, absurd_deadlines)
{
    open_small();
    struct msg_start m = start_of(30, 4);
    struct rig_call *k = rig_dial();
    m.local_prefill = true;
    m.deadline_ms = INT64_MAX;
    say_start(k, &m);
    rig_steps(100);
    check_tokens(k, &m);
    rig_close(k);
    rig_end();
}

Test(decode, drain_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        open_small();
        struct msg_start m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        rig.ops->drain(rig.role, false);
        rig_flush();
        cr_assert_eq(k->finishes, 0, "what runs may end");
        struct rig_call *more = rig_dial();
        say_start(more, &m);
        cr_assert_eq(more->why, ST_BUSY);
        cr_assert_eq(more->finishes, 1);
        rig_close(more);
        rig.ops->drain(rig.role, true);
        rig_flush();
        rig_flush();
        cr_assert_eq(k->status, ST_PREEMPTED, "stage %d", stage);
        rig_close(k);
        quiet();
        rig_end();
    }
}

Test(decode, malformed_messages_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        for (int what = 0; what < 3; what++) {
            open_small();
            struct msg_start m;
            struct rig_call *k = bring_to((enum stage)stage, &m);
            if (what == 1 && stage == OPENED)
                control(k, (struct msg_decode_control){.credit = 5}); /* before Start */
            else if (what == 1)
                say_start(k, &m); /* a second one */
            if (what != 1)
                rig_garbage(k);
            if (what == 2)
                rig_garbage(k);
            rig_flush();
            cr_assert_eq(k->status, ST_PROTOCOL, "stage %d", stage);
            cr_assert_eq(k->finishes, 1);
            say_start(k, &m); /* after its end */
            rig_garbage(k);
            rig_flush();
            rig_close(k);
            quiet();
            rig_end();
        }
    }
}

Test(decode, what_it_refuses)
{
    static const struct {
        int32_t prompt, max_tokens;
        uint64_t fingerprint;
        int32_t id;
        enum status why;
    } cases[] = {{30, 10, 8, 1, ST_INCOMPATIBLE},
                 {512, 10, 7, 1, ST_INVALID},
                 {400, 10, 7, 1, ST_NEVER_FITS},
                 {30, 10, 7, 64, ST_INVALID},
                 {30, 10, 7, -1, ST_INVALID}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        open_small();
        struct msg_start m = start_of(cases[i].prompt, cases[i].max_tokens);
        struct rig_call *k = rig_dial();
        m.fingerprint[0] = cases[i].fingerprint;
        rig_prompt_ids[3] = cases[i].id;
        say_start(k, &m);
        cr_assert_eq(k->accepted, 0);
        if (k->rejected) /* ids below zero do not even decode */
            cr_assert_eq(k->why, cases[i].why, "case %zu: %d", i, k->why);
        rig_flush();
        cr_assert_eq(k->finishes, 1, "case %zu", i);
        rig_close(k);
        rig_end();
    }
}

Test(decode, full_is_busy)
{
    open_small();
    struct rig_call *first = rig_dial(), *second = rig_dial();
    struct msg_start m = start_of(200, 10);
    m.local_prefill = true;
    say_start(first, &m);
    m.prompt = rig_prompt(2, 200);
    say_start(second, &m);
    cr_assert_eq(second->why, ST_BUSY);
    cr_assert_eq(second->finishes, 1);
    rig_close(second);
    rig_close(first);
    rig_end();
}

Test(decode, calls_are_bounded)
{
    open_small();
    struct rig_call *k[5];
    for (int i = 0; i < 5; i++)
        k[i] = rig_dial();
    cr_assert_null(k[4]->handle);
    for (int i = 0; i < 4; i++)
        rig_close(k[i]);
    rig_end();
}

Test(decode, no_plan_no_reservation)
{
    open_small();
    struct msg_start m = start_of(30, 10);
    struct rig_call *k = rig_dial();
    rig.refuse_handoff = ST_BUSY;
    say_start(k, &m);
    cr_assert_eq(k->accepted, 0);
    cr_assert_eq(k->why, ST_BUSY);
    cr_assert_eq(k->finishes, 1);
    cr_assert_eq(rig_blocks().free + rig_blocks().cached, rig_blocks().total);
    rig_close(k);
    rig_end();
}

Test(decode, a_plan_that_fails_ends_the_call)
{
    open_small();
    struct msg_start m;
    struct rig_call *k = bring_to(FILLING, &m);
    rig_mover(MOVER_FAILED, &rig.handoffs[0], NULL, 0);
    rig_flush();
    cr_assert_eq(k->status, ST_BUSY);
    cr_assert_eq(rig.handoffs[0].closed, 1);
    cr_assert_gt(rig_blocks().quarantined, 0);
    quiet();
    cr_assert_eq(rig_blocks().quarantined, 0);
    rig_close(k);
    rig_end();
}

Test(decode, without_a_prefill_node_after_all)
{
    open_small();
    struct msg_start m;
    struct rig_call *k = bring_to(SWITCHING, &m);
    control(k, (struct msg_decode_control){.prefill_here = true}); /* twice */
    rig_mover(MOVER_LANDED, &rig.handoffs[0], NULL, 0);            /* too late */
    rig_steps(20);
    cr_assert_eq(k->n[0], 0, "not before the mover is quiet");
    quiet();
    rig_steps(100);
    check_tokens(k, &m);
    cr_assert_eq(k->status, ST_OK);
    rig_close(k);
    rig_end();
}

Test(decode, prefill_here_when_it_runs_already_is_nothing)
{
    open_small();
    struct msg_start m;
    struct rig_call *k = bring_to(RUNNING_LANDED, &m);
    control(k, (struct msg_decode_control){.prefill_here = true});
    rig_steps(100);
    check_tokens(k, &m);
    rig_close(k);
    quiet();
    rig_end();
}

Test(decode, the_youngest_gives_way)
{
    rig_open(&decode_role_ops, 26, false); /* 104 tokens */
    struct msg_start m = start_of(40, 40);
    struct rig_call *old = rig_dial(), *young = rig_dial();
    m.local_prefill = true;
    say_start(old, &m);
    rig_steps(3);
    struct msg_start other = start_of(40, 40);
    other.prompt = rig_prompt(2, 40);
    other.local_prefill = true;
    say_start(young, &other);
    cr_assert_eq(young->accepted, 1);
    rig_steps(300);
    cr_assert_eq(young->status, ST_PREEMPTED);
    cr_assert_eq(young->finishes, 1);
    m.prompt = rig_prompt(1, 40);
    check_tokens(old, &m);
    cr_assert_eq(old->status, ST_OK);
    rig_close(young);
    rig_close(old);
    rig_end();
}

Test(decode, tokens_flow_by_credit)
{
    open_small();
    struct msg_start m = start_of(30, 10);
    struct rig_call *k = rig_dial();
    m.local_prefill = true;
    m.credits = 2;
    say_start(k, &m);
    rig_steps(100);
    cr_assert_eq(k->n[0], 2);
    control(k, (struct msg_decode_control){.credit = 1});
    rig_steps(100);
    cr_assert_eq(k->n[0], 3);
    control(k, (struct msg_decode_control){.credit = INT64_MAX});
    control(k, (struct msg_decode_control){.credit = INT64_MAX});
    rig_steps(100);
    check_tokens(k, &m);
    rig_close(k);
    rig_end();
}

Test(decode, a_router_that_does_not_read)
{
    open_small();
    struct msg_start m = start_of(30, 10);
    struct rig_call *k = rig_dial();
    m.local_prefill = true;
    say_start(k, &m);
    k->deaf = true;
    rig_steps(5);
    cr_assert_eq(k->n[0], 0);
    cr_assert_eq(k->finishes, 0, "tokens wait");
    k->deaf = false;
    rig_steps(3);
    cr_assert_gt(k->n[0], 3, "and come in order");
    k->deaf = true;
    rig_steps(100);
    k->deaf = false;
    rig_steps(100);
    check_tokens(k, &m);
    cr_assert_eq(k->status, ST_OK);
    rig_close(k);
    rig_end();
}

Test(decode, stopped_choices_end_it)
{
    open_small();
    struct msg_start m = start_of(30, 20);
    struct rig_call *k = rig_dial();
    m.local_prefill = true;
    m.n = 2;
    say_start(k, &m);
    rig_steps(4);
    control(k, (struct msg_decode_control){.stop_choice_plus1 = 1});
    control(k, (struct msg_decode_control){.stop_choice_plus1 = 1});
    control(k, (struct msg_decode_control){.stop_choice_plus1 = 9}); /* there is none */
    rig_steps(2);
    cr_assert_eq(k->finishes, 0);
    control(k, (struct msg_decode_control){.stop_choice_plus1 = 2});
    rig_flush();
    cr_assert_eq(k->done, 1);
    cr_assert_eq(k->status, ST_OK);
    cr_assert_eq(k->finish_events, 0, "the router knows");
    rig_close(k);
    rig_end();
}

Test(decode, all_choices_stopped_before_the_prompt_has_landed)
{
    open_small();
    struct msg_start m;
    struct rig_call *k = bring_to(FILLING, &m);
    control(k, (struct msg_decode_control){.stop_choice_plus1 = 1});
    rig_flush();
    rig_close(k);
    quiet();
    rig_end();
}

Test(decode, a_model_that_breaks_ends_the_call)
{
    open_small();
    struct msg_start m;
    struct rig_call *k = bring_to(RUNNING, &m);
    rig.model.broken = true;
    rig_steps(10);
    cr_assert_eq(k->finishes, 1);
    cr_assert_eq(k->status, ST_INTERNAL);
    rig_close(k);
    rig_end();
}

Test(decode, continues_what_was_said)
{
    open_small();
    struct msg_start m = start_of(30, 12);
    int32_t all[RIG_TOKENS];
    enum msg_finish_reason reason;
    int32_t n = fake_generate(&rig.model, &m.prompt, NULL, &m.sampling, 0, all, &reason);
    const struct msg_ids emitted = {all, 5};
    struct rig_call *k = rig_dial();
    m.emitted = &emitted;
    m.local_prefill = true;
    say_start(k, &m);
    k->n[0] = 5; /* what the router knows */
    rig_steps(100);
    cr_assert_eq(k->n[0], n);
    cr_assert_eq(memcmp(k->ids[0] + 5, all + 5, sizeof(int32_t) * (size_t)(n - 5)), 0);
    rig_close(k);
    rig_end();
}
