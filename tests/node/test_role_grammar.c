/* Both roles and a grammar that the engine does not have: the call waits while it is compiled
 * elsewhere, nobody else does, and who leaves meanwhile leaves nothing behind. */
#include "decode-node/decode.h"
#include "node/role_rig.h"
#include "prefill-node/prefill.h"

static const char pattern[] = "[a-f]{4,9}[0-9]{3}", other[] = "[g-m]{5}", wrong[] = "a(";

static const struct node_role_ops *const roles[] = {&decode_role_ops, &prefill_role_ops};
#define FOR_BOTH_ROLES(r) for (int r = 0; r < 2; r++)

static void open_role(int r)
{
    rig_open(roles[r], 96, false);
}

static struct msg_sampling sampling_in(const char *text)
{
    struct msg_sampling s = rig_sampling(20);
    if (text)
        s.grammar = (struct msg_grammar){MSG_GRAMMAR_REGEX, text, (uint32_t)strlen(text), 0};
    return s;
}

/* A call that asks for what matches `text`, NULL: for anything. It is told the same prompt. */
static struct rig_call *ask(const char *text, bool first)
{
    static const struct msg_ids none;
    static const bool unfinished;
    struct rig_call *k = rig_dial();
    struct buf b = {0};
    const struct msg_start start = {.request_id = "test",
                                    .prompt = rig_prompt(1, 30),
                                    .n = 1,
                                    .emitted = &none,
                                    .finished = &unfinished,
                                    .sampling = sampling_in(text),
                                    .cache_salt = "",
                                    .credits = 1000,
                                    .local_prefill = true,
                                    .fingerprint = {7, 7}};
    const struct msg_prefill run = {.request_id = "test",
                                    .prompt = start.prompt,
                                    .prompt_tokens = 30,
                                    .n = 1,
                                    .want_first = first,
                                    .sampling = start.sampling,
                                    .cache_salt = "",
                                    .ticket = {{5, 6}},
                                    .ranks = &rig_rank,
                                    .n_ranks = 1,
                                    .fingerprint = {7, 7}};
    cr_assert_not_null(k->handle);
    if (rig.ops == &decode_role_ops)
        codec_put_start(&b, &start);
    else
        codec_put_prefill(&b, &run);
    rig_say(k, &b);
    rig_flush();
    return k;
}

/* The draft that is under way comes back. */
static void compiled(void)
{
    struct grammar_draft *draft = rig.draft;
    cr_assert_not_null(draft);
    rig.draft = NULL;
    grammar_draft_compile(draft);
    rig.ops->on_compiled(rig.role, draft, rig.now_ns);
    engine_check(rig.engine);
}

/* It holds blocks. */
static bool goes_on(const struct rig_call *k)
{
    struct engine_load l;
    engine_load(rig.engine, &l);
    return l.groups > 0 && (rig.ops == &prefill_role_ops || k->accepted == 1);
}

static void check_said(const struct rig_call *k, const char *text)
{
    int32_t ids[RIG_TOKENS];
    enum msg_finish_reason reason;
    const struct msg_ids prompt = rig_prompt(1, 30);
    const struct msg_sampling s = sampling_in(text);
    int32_t n = fake_generate(&rig.model, &prompt, NULL, &s, 0, ids, &reason);
    if (rig.ops == &prefill_role_ops)
        n = 1;
    cr_assert_eq(k->n[0], n);
    cr_assert_eq(memcmp(k->ids[0], ids, sizeof(*ids) * (size_t)n), 0);
}

/* All that waits for the mover hears from it, whether its call is over or not. */
static void quiet(void)
{
    for (int i = 0; i < rig.n_handoffs; i++)
        if (rig.handoffs[i].closed)
            rig_mover(MOVER_QUIET, &rig.handoffs[i], NULL, 0);
}

/* To its end, with what it says. */
static void finish(struct rig_call *k, const char *text)
{
    rig_steps(100);
    check_said(k, text);
    if (rig.ops == &decode_role_ops)
        cr_assert_eq(k->done, 1);
    rig_close(k);
}

Test(role_grammar, a_new_one_is_compiled_elsewhere)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *k = ask(pattern, true);
        cr_assert_eq(rig.drafts, 1);
        cr_assert_eq(k->reads, 0, "what comes next waits as well");
        cr_assert_not(goes_on(k));
        cr_assert_eq(rig_blocks().free, rig_blocks().total, "it holds nothing");
        struct rig_call *beside = ask(NULL, true);
        cr_assert(goes_on(beside));
        finish(beside, NULL);
        compiled();
        cr_assert(goes_on(k));
        cr_assert_eq(k->reads, r == 0);
        struct rig_call *again = ask(pattern, true);
        cr_assert(goes_on(again));
        finish(k, pattern);
        finish(again, pattern);
        struct rig_call *later = ask(pattern, true);
        cr_assert(goes_on(later), "kept for a while");
        finish(later, pattern);
        cr_assert_eq(rig.drafts, 1);
        quiet();
        rig_end();
    }
}

Test(role_grammar, nothing_is_compiled_where_no_token_is_wanted)
{
    open_role(1);
    struct rig_call *k = ask(pattern, false);
    cr_assert_eq(rig.drafts, 0);
    cr_assert(goes_on(k));
    rig_close(k);
    quiet();
    rig_end();
}

Test(role_grammar, a_wrong_one_ends_its_calls)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *a = ask(wrong, true), *b = ask(wrong, true), *c = ask(pattern, true);
        compiled();
        for (int i = 0; i < 2; i++) {
            const struct rig_call *k = i == 0 ? a : b;
            cr_assert_eq(k->finishes, 1);
            cr_assert_eq(r == 0 ? k->why : k->status, ST_INVALID);
            cr_assert_eq(k->rejected, r == 0);
        }
        cr_assert_eq(rig.drafts, 2, "equal ones once");
        rig_flush();
        compiled();
        cr_assert(goes_on(c));
        finish(c, pattern);
        rig_close(a);
        rig_close(b);
        quiet();
        rig_end();
    }
}

Test(role_grammar, equal_ones_are_compiled_once_and_others_in_turn)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *a = ask(pattern, true), *b = ask(other, true), *c = ask(pattern, true);
        cr_assert_eq(rig.drafts, 1);
        compiled();
        cr_assert_eq(rig.drafts, 2);
        finish(a, pattern);
        finish(c, pattern);
        cr_assert_eq(b->n[0], 0);
        compiled();
        finish(b, other);
        cr_assert_eq(rig.drafts, 2);
        quiet();
        rig_end();
    }
}

/* One whose grammar is under way, and one that is not even that far. */
Test(role_grammar, who_goes_away_leaves_nothing)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *a = ask(pattern, true), *b = ask(other, true);
        rig_close(a);
        rig_close(b);
        cr_assert_eq(rig_held(), 0);
        compiled();
        cr_assert_eq(rig.drafts, 1);
        struct rig_call *k = ask(pattern, true);
        cr_assert(goes_on(k), "it was not for nothing");
        finish(k, pattern);
        struct rig_call *last = ask(other, true); /* and one that is still away at the end */
        rig_close(last);
        quiet();
        rig_end();
    }
}

Test(role_grammar, another_waits_for_the_draft_that_was_left)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        rig_close(ask(pattern, true));
        struct rig_call *k = ask(pattern, true);
        cr_assert_eq(rig.drafts, 1);
        compiled();
        finish(k, pattern);
        cr_assert_eq(rig.drafts, 1);
        quiet();
        rig_end();
    }
}

Test(role_grammar, the_time_of_one_that_waits_runs_out)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *a = ask(pattern, true), *b = ask(other, true);
        rig.now_ns += RIG_REQUEST_NS;
        rig_flush();
        cr_assert_eq(a->status, ST_DEADLINE);
        cr_assert_eq(b->status, ST_DEADLINE);
        compiled(); /* before their ends have come */
        cr_assert_eq(a->finishes + b->finishes, 2);
        cr_assert_eq(rig.drafts, 1);
        cr_assert_not(goes_on(a));
        rig_close(a);
        rig_close(b);
        rig_end();
    }
}

/* Its time is up, and the grammar comes before anybody has looked. */
Test(role_grammar, too_late_is_too_late)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *k = ask(pattern, true);
        rig.now_ns += RIG_REQUEST_NS;
        compiled();
        rig_flush();
        cr_assert_eq(k->finishes, 1);
        cr_assert_eq(k->status, ST_DEADLINE);
        rig_close(k);
        quiet();
        rig_end();
    }
}

Test(role_grammar, draining_lets_it_go_on_until_the_end)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *a = ask(pattern, true), *b = ask(other, true);
        rig.ops->drain(rig.role, false);
        compiled();
        finish(a, pattern);
        rig.ops->drain(rig.role, true);
        rig_flush();
        cr_assert_eq(b->finishes, 1);
        cr_assert_eq(b->status, ST_PREEMPTED);
        compiled();
        rig_flush();
        cr_assert_eq(b->finishes, 1);
        rig_close(b);
        quiet();
        rig_end();
    }
}

Test(role_grammar, a_second_message_meanwhile_is_an_end)
{
    FOR_BOTH_ROLES(r)
    {
        open_role(r);
        struct rig_call *k = ask(pattern, true);
        rig_garbage(k);
        compiled(); /* before the end is said */
        rig_flush();
        cr_assert_eq(k->finishes, 1);
        cr_assert_eq(k->status, ST_PROTOCOL);
        cr_assert_not(goes_on(k));
        rig_close(k);
        rig_end();
    }
}
