/* The prefill role: every layer of every chunk is offered, the first token is said, and what a call
 * held is given back, once, when the mover is quiet. */
#include "node/role_rig.h"
#include "prefill-node/prefill.h"

static void open_small(void)
{
    rig_open(&prefill_role_ops, 64, false);
}

static struct msg_prefill run_of(int32_t prompt)
{
    return (struct msg_prefill){.request_id = "test",
                                .prompt = rig_prompt(1, prompt),
                                .prompt_tokens = prompt,
                                .n = 1,
                                .want_first = true,
                                .sampling = rig_sampling(10),
                                .cache_salt = "",
                                .ticket = {{5, 6}},
                                .ranks = &rig_rank,
                                .n_ranks = 1,
                                .fingerprint = {7, 7}};
}

static void say_run(struct rig_call *k, const struct msg_prefill *m)
{
    struct buf b = {0};
    codec_put_prefill(&b, m);
    rig_say(k, &b);
}

enum stage { OPENED, COMPUTING, DELIVERING, DELIVERED, STAGES };

static struct rig_call *bring_to(enum stage stage, struct msg_prefill *m)
{
    struct rig_call *k = rig_dial();
    *m = run_of(40);
    if (stage == OPENED)
        return k;
    say_run(k, m);
    rig_steps(1); /* 16 of 40 tokens */
    if (stage == COMPUTING)
        return k;
    rig_steps(100);
    cr_assert_eq(k->prefilled, 1);
    cr_assert_eq(rig.handoffs[0].fills, 1);
    if (stage == DELIVERED)
        rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
    return k;
}

static void quiet(void)
{
    for (int i = 0; i < rig.n_handoffs; i++)
        if (rig.handoffs[i].closed)
            rig_mover(MOVER_QUIET, &rig.handoffs[i], NULL, 0);
}

static void check_first(const struct rig_call *k, const struct msg_prefill *m)
{
    int32_t ids[RIG_TOKENS];
    enum msg_finish_reason reason;
    for (int32_t c = 0; c < m->n; c++) {
        fake_generate(&rig.model, &m->prompt, NULL, &m->sampling, c, ids, &reason);
        cr_assert_eq(k->n[c], 1);
        cr_assert_eq(k->ids[c][0], ids[0], "choice %d", c);
    }
}

Test(prefill, computes_offers_and_says_the_first_token)
{
    for (int32_t n = 1; n <= 3; n += 2) {
        open_small();
        struct msg_prefill m = run_of(40);
        struct rig_call *k = rig_dial();
        m.n = n;
        m.sampling.temperature = 0.9f;
        m.have_tokens = 7;
        say_run(k, &m);
        cr_assert_eq(rig.handoffs[0].begin, 7);
        cr_assert_eq(rig.handoffs[0].end, 40);
        rig_steps(100);
        check_first(k, &m);
        cr_assert_eq(rig.handoffs[0].n_first, (uint32_t)n);
        cr_assert_eq(k->finishes, 0, "not before it has landed");
        rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
        cr_assert_eq(k->status, ST_OK);
        cr_assert_eq(k->finishes, 1);
        rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
        rig_flush();
        cr_assert_eq(rig_blocks().quarantined, 0, "the mover has nothing left to read");
        rig_close(k);
        cr_assert_eq(rig_held(), 1, "until the mover is quiet");
        quiet();
        cr_assert_gt(rig_blocks().cached, 0, "the prompt stays as prefix");
        rig_end();
    }
}

static void check_scores(const struct rig_call *k, const struct msg_prefill *m, int32_t from)
{
    struct sampler *s = sampler_create(rig.model.vocab);
    float logits[64];
    cr_assert_eq(k->scored, (int32_t)m->prompt.n - 1);
    for (int32_t p = from; p < (int32_t)m->prompt.n; p++) {
        struct msg_score x;
        fake_logits(&rig.model, m->prompt.v, p, logits);
        sampler_score(s, logits, m->prompt.v[p], 0, &x);
        cr_assert_eq(k->score[p], x.logprob, "position %d", p);
    }
    sampler_destroy(s);
}

/* In pieces, before the first token, and no faster than the router reads. */
Test(prefill, says_the_scores_of_the_prompt)
{
    for (int slow = 0; slow < 2; slow++) {
        rig_open(&prefill_role_ops, 128, false);
        struct msg_prefill m = run_of(200);
        struct rig_call *k = rig_dial();
        m.scoring = (struct msg_scoring){.begin = 1, .top = 2};
        say_run(k, &m);
        k->room = slow;
        rig_steps(100);
        for (int i = 0; slow && i < 4; i++) {
            cr_assert_eq(k->finishes, 0);
            cr_assert_eq(rig.handoffs[0].fills, 0, "Filled goes with First");
            k->deaf = false;
            k->room = 2;
            rig_flush();
        }
        check_scores(k, &m, 1);
        check_first(k, &m);
        cr_assert_eq(k->prefilled, 1);
        rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
        cr_assert_eq(k->status, ST_OK);
        rig_close(k);
        quiet();
        /* All is cached now; what is wanted is computed again. */
        struct rig_call *again = rig_dial();
        m.scoring.begin = 100;
        m.want_first = false;
        m.prompt = rig_prompt(1, 200);
        again->scored = 99;
        say_run(again, &m);
        rig_steps(100);
        check_scores(again, &m, 100);
        rig_mover(MOVER_DELIVERED, &rig.handoffs[1], NULL, 0);
        rig_close(again);
        quiet();
        rig_end();
    }
}

Test(prefill, a_prompt_that_is_cached_is_offered_all_the_same)
{
    open_small();
    struct msg_prefill m;
    struct rig_call *k = bring_to(DELIVERED, &m), *again = rig_dial();
    rig_close(k);
    quiet();
    m.prompt = rig_prompt(1, 40);
    say_run(again, &m);
    rig_steps(100);
    check_first(again, &m);
    cr_assert_eq(rig.handoffs[1].fills, 1);
    cr_assert_eq(rig.handoffs[1].begin, 0);
    rig_mover(MOVER_DELIVERED, &rig.handoffs[1], NULL, 0);
    rig_close(again);
    rig_mover(MOVER_QUIET, &rig.handoffs[1], NULL, 0);
    rig_end();
}

Test(prefill, without_a_first_token)
{
    open_small();
    struct msg_prefill m = run_of(40);
    struct rig_call *k = rig_dial();
    m.want_first = false;
    say_run(k, &m);
    rig_steps(100);
    cr_assert_eq(k->prefilled, 1);
    cr_assert_eq(k->n[0], 0);
    cr_assert_eq(rig.handoffs[0].n_first, 0);
    rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
    cr_assert_eq(k->status, ST_OK);
    rig_close(k);
    quiet();
    rig_end();
}

Test(prefill, the_call_is_the_lease_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        for (int late = 0; late < 3; late++) {
            open_small();
            struct msg_prefill m;
            struct rig_call *k = bring_to((enum stage)stage, &m);
            int said = k->finishes;
            rig_close(k);
            if (stage == COMPUTING || stage == DELIVERING)
                cr_assert_lt(rig_blocks().free + rig_blocks().cached, rig_blocks().total,
                             "stage %d: the mover may still read them", stage);
            if (stage != OPENED && late == 1)
                rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
            if (stage != OPENED && late == 2)
                rig_mover(MOVER_FAILED, &rig.handoffs[0], NULL, 0);
            rig_steps(100);
            cr_assert_eq(rig_held(), stage != OPENED, "stage %d", stage);
            quiet();
            quiet();
            cr_assert_eq(k->finishes, said, "stage %d", stage);
            rig_end();
        }
    }
}

Test(prefill, time_is_up_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        open_small();
        struct msg_prefill m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        rig.now_ns += NODE_OPEN_NS;
        rig_flush();
        cr_assert_eq(k->finishes, stage == OPENED || stage == DELIVERED, "stage %d", stage);
        rig_close(k);
        quiet();
        struct rig_call *other = rig_dial();
        m = run_of(41);
        m.deadline_ms = 50;
        say_run(other, &m);
        rig.now_ns += 50 * NS_PER_MS;
        rig_flush();
        cr_assert_eq(other->status, ST_DEADLINE);
        rig_steps(100);
        rig_close(other);
        rig_mover(MOVER_QUIET, &rig.handoffs[rig.n_handoffs - 1], NULL, 0);
        rig_end();
    }
}

/* Whoever asks for no end gets the node's, and so does the handoff. */
Test(prefill, no_call_is_for_ever)
{
    for (int stage = COMPUTING; stage <= DELIVERING; stage++) {
        open_small();
        struct msg_prefill m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        cr_assert_eq(rig.handoffs[0].deadline_ns, rig.now_ns + RIG_REQUEST_NS);
        rig.now_ns += RIG_REQUEST_NS;
        rig_flush();
        cr_assert_eq(k->status, ST_DEADLINE, "stage %d", stage);
        rig_steps(100);
        rig_close(k);
        quiet();
        rig_end();
    }
}

Test(prefill, drain_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        open_small();
        struct msg_prefill m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        rig.ops->drain(rig.role, false);
        rig_flush();
        cr_assert_eq(k->finishes, stage == DELIVERED);
        struct rig_call *more = rig_dial();
        say_run(more, &m);
        cr_assert_eq(more->status, ST_BUSY);
        rig_close(more);
        rig.ops->drain(rig.role, true);
        rig_flush();
        cr_assert_eq(k->status, stage == DELIVERED ? ST_OK : ST_PREEMPTED, "stage %d", stage);
        rig_steps(100);
        rig_close(k);
        quiet();
        rig_end();
    }
}

Test(prefill, malformed_messages_in_every_state)
{
    for (int stage = 0; stage < STAGES; stage++) {
        open_small();
        struct msg_prefill m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        rig_garbage(k);
        rig_garbage(k);
        rig_flush();
        cr_assert_eq(k->status, stage == DELIVERED ? ST_OK : ST_PROTOCOL, "stage %d", stage);
        say_run(k, &m); /* after its end */
        rig_steps(100);
        rig_close(k);
        quiet();
        rig_end();
    }
}

Test(prefill, what_it_refuses)
{
    for (int i = 0; i < 10; i++) {
        open_small();
        struct msg_prefill m = run_of(40);
        struct rig_call *k = rig_dial();
        enum status want = ST_INVALID;
        switch (i) {
        case 0:
            m.fingerprint[1] = 8;
            want = ST_INCOMPATIBLE;
            break;
        case 1:
            m.prompt = rig_prompt(1, 512);
            break;
        case 2:
            m.prompt = rig_prompt(1, 400);
            m.prompt_tokens = 400;
            want = ST_NEVER_FITS;
            break;
        case 3:
            m.have_tokens = 40;
            break;
        case 4:
            m.have_tokens = INT32_MAX;
            break;
        case 5:
            m.prompt_tokens = 41;
            break;
        case 6:
            m.prompt_tokens = 0;
            break;
        case 7:
            m.n_ranks = 0;
            break;
        case 8:
            rig_prompt_ids[20] = 64;
            break;
        case 9:
            rig.refuse_handoff = ST_BUSY;
            want = ST_BUSY;
            break;
        }
        say_run(k, &m);
        rig_flush();
        cr_assert_eq(k->finishes, 1, "case %d", i);
        cr_assert(k->status == want || (k->status == ST_PROTOCOL && want == ST_INVALID),
                  "case %d: %d", i, k->status);
        cr_assert_eq(rig_blocks().free + rig_blocks().cached, rig_blocks().total, "case %d", i);
        rig_close(k);
        rig_end();
    }
}

Test(prefill, a_handoff_that_fails_ends_the_call)
{
    for (int stage = COMPUTING; stage <= DELIVERING; stage++) {
        open_small();
        struct msg_prefill m;
        struct rig_call *k = bring_to((enum stage)stage, &m);
        rig_mover(MOVER_FAILED, &rig.handoffs[0], NULL, 0);
        rig_flush();
        cr_assert_eq(k->status, ST_TRANSFER);
        rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0); /* nonsense: it has ended */
        rig_steps(100);
        quiet();
        cr_assert_eq(rig_blocks().quarantined, 0);
        rig_close(k);
        rig_end();
    }
}

/* The pair is to be avoided for a broken way between them, not because a node is full. */
Test(prefill, why_a_handoff_failed)
{
    static const enum status why[][2] = {{ST_LINK, ST_TRANSFER},
                                         {ST_PROTOCOL, ST_TRANSFER},
                                         {ST_BUSY, ST_BUSY},
                                         {ST_NO_MEMORY, ST_NO_MEMORY},
                                         {ST_DEADLINE, ST_DEADLINE}};
    for (int i = 0; i < 5; i++) {
        open_small();
        struct msg_prefill m;
        struct rig_call *k = bring_to(COMPUTING, &m);
        const struct mover_event ev = {
            .kind = MOVER_FAILED, .user = rig.handoffs[0].user, .status = why[i][0]};
        rig.ops->on_mover(rig.role, &ev, rig.now_ns);
        rig_flush();
        cr_assert_eq(k->status, why[i][1], "%s", status_name(k->status));
        rig_steps(100);
        quiet();
        rig_close(k);
        rig_end();
    }
}

Test(prefill, delivered_before_it_was_computed_is_nonsense)
{
    open_small();
    struct msg_prefill m;
    struct rig_call *k = bring_to(COMPUTING, &m);
    rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
    cr_assert_eq(k->finishes, 0);
    rig_steps(100);
    check_first(k, &m);
    rig_mover(MOVER_DELIVERED, &rig.handoffs[0], NULL, 0);
    cr_assert_eq(k->status, ST_OK);
    rig_close(k);
    quiet();
    rig_end();
}

Test(prefill, a_router_that_does_not_read)
{
    open_small();
    struct msg_prefill m = run_of(40);
    struct rig_call *k = rig_dial();
    say_run(k, &m);
    k->deaf = true;
    rig_steps(100);
    cr_assert_eq(k->finishes, 1);
    cr_assert_eq(k->status, ST_BUSY);
    rig_close(k);
    quiet();
    rig_end();
}

Test(prefill, a_model_that_breaks_ends_the_call)
{
    open_small();
    struct msg_prefill m;
    struct rig_call *k = bring_to(COMPUTING, &m);
    rig.model.broken = true;
    rig_steps(100);
    cr_assert_eq(k->finishes, 1);
    cr_assert_eq(k->status, ST_INTERNAL);
    cr_assert_eq(rig.handoffs[0].fills, 0, "nothing of it is handed over as whole");
    rig_close(k);
    quiet();
    rig_end();
}

Test(prefill, several_at_once)
{
    rig_open(&prefill_role_ops, 200, false);
    struct rig_call *k[4];
    struct msg_prefill m[4];
    static int32_t ids[4][60];
    for (int i = 0; i < 4; i++) {
        k[i] = rig_dial();
        m[i] = run_of(30 + 7 * i);
        rig_prompt((uint64_t)i + 50, 60);
        memcpy(ids[i], rig_prompt_ids, sizeof(ids[i]));
        m[i].prompt.v = ids[i];
        say_run(k[i], &m[i]);
    }
    cr_assert_null(rig_dial()->handle);
    rig_steps(100);
    for (int i = 0; i < 4; i++) {
        check_first(k[i], &m[i]);
        rig_mover(MOVER_DELIVERED, &rig.handoffs[i], NULL, 0);
        cr_assert_eq(k[i]->status, ST_OK);
        rig_close(k[i]);
    }
    quiet();
    rig_end();
}
