/* Scores of a prompt's own tokens: each position once and in order, equal however the work is cut,
 * equal to those of the same tokens when they are generated, and never out of the prefix cache. */
#include <math.h>

#include "engine/harness.h"

/* The score that one forward over ids[0..position) gives. */
static struct msg_score alone(struct rig *r, const struct ask *a, int32_t position)
{
    float logits[64];
    struct sampler *s = sampler_create(r->model.vocab);
    struct msg_score score = {0};
    fake_logits(&r->model, a->prompt_ids, position, logits);
    cr_assert_eq(sampler_score(s, logits, a->prompt_ids[position], 3, &score), ST_OK);
    sampler_destroy(s);
    return score;
}

static void expect_scores(struct rig *r, const struct ask *a, int32_t from)
{
    cr_assert_eq(a->n_scores, (int32_t)a->prompt.n - from);
    for (int32_t p = from; p < (int32_t)a->prompt.n; p++) {
        struct msg_score want = alone(r, a, p);
        cr_assert_eq(a->score[p].id, a->prompt_ids[p]);
        cr_assert_eq(a->score[p].rank, want.rank, "position %d", p);
        cr_assert_eq(a->score[p].logprob, want.logprob, "position %d", p);
        cr_assert_eq(a->score[p].n_top, 3U);
    }
}

static void start_scored(struct rig *r, struct ask *a, int32_t from)
{
    struct engine_request req = ask_request(a);
    req.scoring = (struct msg_scoring){.begin = from, .top = 3};
    a->score_from = from;
    cr_assert_eq(ask_reserve_as(r, a, &req), ST_OK);
    cr_assert(engine_scores_due(r->engine, a->group));
    engine_fill_here(r->engine, a->group);
}

Test(score, is_the_same_however_the_work_is_cut)
{
    static const int32_t chunks[] = {1, 3, 16, 512};
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
        for (int32_t batch = 1; batch <= 8; batch += 7) {
            struct rig r;
            rig_open(&r, (struct rig_options){.chunk = chunks[c], .max_batch = batch});
            struct ask *a = ask_new(3, 150, 2), *b = ask_new(4, 90, 1), *plain = ask_new(5, 60, 1);
            a->spec.temperature = 0.8F;
            a->spec.logprobs = 1;
            start_scored(&r, a, 1);
            ask_start(&r, plain);
            start_scored(&r, b, 1);
            rig_run(&r);
            expect_scores(&r, a, 1);
            expect_scores(&r, b, 1);
            cr_assert_eq(plain->n_scores, 0);
            ask_expect(&r, a, "scored, two choices");
            ask_expect(&r, b, "scored");
            ask_expect(&r, plain, "beside them");
            cr_assert_leq(r.model.logits_max, batch + (chunks[c] < 64 ? chunks[c] : 64));
            ask_release(&r, a);
            ask_release(&r, b);
            ask_release(&r, plain);
            rig_expect_all_free(&r);
            free(a), free(b), free(plain);
            rig_close(&r);
        }
    }
}

Test(score, equals_that_of_the_same_tokens_generated)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *a = ask_new(9, 40, 1), *b = ask_new(9, 40, 1);
    a->spec.temperature = 0;
    a->spec.ignore_eos = true;
    a->spec.logprobs = 2;
    ask_start(&r, a);
    rig_run(&r);
    memcpy(b->prompt_ids + 40, a->said[0], (size_t)a->n_said[0] * sizeof *b->prompt_ids);
    b->prompt.n += (uint32_t)a->n_said[0];
    start_scored(&r, b, 1);
    rig_run(&r);
    for (int32_t i = 0; i < a->n_said[0]; i++) {
        cr_assert_eq(b->score[40 + i].logprob, a->logprob[0][i], "token %d", i);
        cr_assert_eq(b->score[40 + i].rank, 1);
    }
    ask_release(&r, a);
    ask_release(&r, b);
    free(a), free(b);
    rig_close(&r);
}

Test(score, reads_the_prefix_cache_only_where_nothing_is_wanted)
{
    static const int32_t froms[] = {1, 2, 30, 59, 60};
    struct rig r;
    rig_open(&r, (struct rig_options){.block_tokens = 4});
    struct ask *first = ask_new(11, 60, 1);
    ask_start(&r, first);
    rig_run(&r);
    ask_release(&r, first);
    for (size_t i = 0; i < sizeof froms / sizeof *froms; i++) {
        struct ask *a = ask_new(11, 60, 1);
        if (froms[i] < 60) {
            start_scored(&r, a, froms[i]);
            cr_assert_eq(a->have, (froms[i] - 1) / 4 * 4);
        } else {
            struct engine_request req = ask_request(a);
            req.scoring = (struct msg_scoring){.begin = 60};
            cr_assert_eq(ask_reserve_as(&r, a, &req), ST_OK);
            cr_assert_not(engine_scores_due(r.engine, a->group));
            cr_assert_eq(a->have, 59);
            engine_fill_here(r.engine, a->group);
        }
        rig_run(&r);
        expect_scores(&r, a, froms[i]);
        ask_expect(&r, a, "after a hit");
        ask_release(&r, a);
        free(a);
    }
    rig_expect_all_free(&r);
    free(first);
    rig_close(&r);
}

/* max_tokens 0: finishes at once, without a token, and is scored all the same. */
Test(score, needs_no_token)
{
    for (int32_t scored = 0; scored < 2; scored++) {
        for (int32_t n = 1; n <= 3; n += 2) {
            struct rig r;
            rig_open(&r, (struct rig_options){.chunk = 8});
            struct ask *a = ask_new(13, 50, n);
            a->spec.max_tokens = 0;
            a->prompt_ids[49] = FAKE_EOS; /* a prompt's last token ends nothing */
            if (scored)
                start_scored(&r, a, 1);
            else
                ask_start(&r, a);
            rig_run(&r);
            for (int32_t c = 0; c < n; c++) {
                cr_assert(a->ended[c] && a->n_said[c] == 0);
                cr_assert_eq(a->finish[c].reason, MSG_FINISH_LENGTH);
            }
            if (scored)
                expect_scores(&r, a, 1);
            ask_release(&r, a);
            rig_expect_all_free(&r);
            free(a);
            rig_close(&r);
        }
    }
}

/* A resumed request whose choices are all over wants the rest of its scores only. */
Test(score, is_due_when_every_choice_is_over)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.chunk = 8});
    struct ask *a = ask_new(17, 50, 2);
    static const bool finished[] = {true, true};
    struct engine_request req = ask_request(a);
    a->spec.max_tokens = 0;
    a->score_from = 21;
    req.finished = finished;
    req.scoring = (struct msg_scoring){.begin = 21, .top = 3};
    cr_assert_eq(ask_reserve_as(&r, a, &req), ST_OK);
    engine_fill_here(r.engine, a->group);
    rig_run(&r);
    expect_scores(&r, a, 21);
    cr_assert_not(engine_scores_due(r.engine, a->group));
    cr_assert(!a->ended[0] && !a->ended[1]);
    ask_release(&r, a);
    rig_expect_all_free(&r);
    free(a);
    rig_close(&r);
}

Test(score, of_a_prompt_that_was_computed_elsewhere_is_not_said_again)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *a = ask_new(19, 40, 1);
    struct engine_request req = ask_request(a);
    req.scoring = (struct msg_scoring){.begin = 1, .top = 3};
    cr_assert_eq(ask_reserve_as(&r, a, &req), ST_OK);
    int32_t n;
    const int32_t *table = engine_begin_fill(r.engine, a->group, &n);
    const struct model_kv kv = {.pool = r.pool, .layout = r.layout};
    fake_fill(&r.model, &kv, (struct fake_table){table, 0}, &a->prompt, 0);
    engine_fill_done(r.engine, a->group, NULL, 0);
    rig_run(&r);
    cr_assert_eq(a->n_scores, 0);
    ask_expect(&r, a, "landed");
    ask_release(&r, a);
    free(a);
    rig_close(&r);
}

Test(score, fails_the_request_on_bad_logits)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.chunk = 8});
    struct ask *a = ask_new(23, 50, 1);
    r.model.broken = true;
    start_scored(&r, a, 1);
    rig_run(&r);
    cr_assert(a->failed && a->status == ST_INTERNAL && a->n_scores == 0);
    ask_release(&r, a);
    rig_expect_all_free(&r);
    free(a);
    rig_close(&r);
}

Test(score, ranks_and_ignores_the_spec)
{
    struct sampler *s = sampler_create(5);
    const float logits[] = {1, 3, 3, -INFINITY, 2};
    static const int32_t ranks[] = {4, 1, 2, 5, 3};
    struct msg_score x = {0};
    for (int32_t i = 0; i < 5; i++) {
        cr_assert_eq(sampler_score(s, logits, i, 2, &x), ST_OK);
        cr_assert_eq(x.rank, ranks[i], "id %d", i);
        cr_assert(x.n_top == 2 && x.top[0].id == 1 && x.top[1].id == 2);
        double sum = 2 * exp(3) + exp(1) + exp(2);
        if (i != 3)
            cr_assert_float_eq((double)x.logprob, (double)logits[i] - log(sum), 1e-6);
        else
            cr_assert_eq(x.logprob, -INFINITY);
    }
    cr_assert_eq(sampler_score(s, logits, 0, 0, &x), ST_OK);
    cr_assert_eq(x.n_top, 0U);
    const float bad[] = {1, NAN, 0, 0, 0},
                none[] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    cr_assert_eq(sampler_score(s, bad, 0, 0, &x), ST_INTERNAL);
    cr_assert_eq(sampler_score(s, none, 0, 0, &x), ST_INTERNAL);
    sampler_destroy(s);
}
