/* The batch builder is pure: budgets kept, nobody starved, progress always. */
#include <criterion/criterion.h>

#include "base/rng.h"
#include "engine/plan.h"

Test(plan, decodes_first_then_the_chunk)
{
    struct plan_item items[] = {
        {.need = 1, .decode = true}, {.need = 100}, {.need = 1, .decode = true}};
    struct plan_budget budget = {.max_sequences = 8, .chunk_tokens = 32};
    struct plan_result r;
    plan_batch(items, 3, &budget, &r);
    cr_assert_eq(r.decode_tokens, 2);
    cr_assert_eq(r.prefill_tokens, 32);
    cr_assert_eq(r.sequences, 3);
    cr_assert_eq(items[1].bring, 32);
}

Test(plan, the_oldest_gets_half_and_the_shortest_the_rest)
{
    struct plan_item items[] = {{.need = 1000}, {.need = 500}, {.need = 6}, {.need = 4}};
    struct plan_budget budget = {.max_sequences = 8, .chunk_tokens = 64};
    struct plan_result r;
    plan_batch(items, 4, &budget, &r);
    cr_assert_eq(items[0].bring, 32);
    cr_assert_eq(items[1].bring, 22);
    cr_assert_eq(items[2].bring, 6);
    cr_assert_eq(items[3].bring, 4);
    cr_assert_eq(r.prefill_tokens, 64);
}

Test(plan, random_budgets_are_kept_and_used)
{
    struct rng rng = rng_seed(1);
    for (int round = 0; round < 20000; round++) {
        struct plan_item items[24];
        int32_t n = (int32_t)rng_below(&rng, 24), decodes = 0;
        int64_t wanted = 0;
        for (int32_t i = 0; i < n; i++) {
            bool decode = rng_below(&rng, 2);
            items[i] = (struct plan_item){.need = decode ? 1 : 1 + (int32_t)rng_below(&rng, 60),
                                          .decode = decode,
                                          .bring = 9};
            decodes += decode;
            wanted += decode ? 0 : items[i].need;
        }
        struct plan_budget budget = {.max_sequences = 1 + (int32_t)rng_below(&rng, 20),
                                     .chunk_tokens = 1 + (int32_t)rng_below(&rng, 200),
                                     .rotate = (int32_t)rng_below(&rng, 1000)};
        struct plan_result r;
        plan_batch(items, n, &budget, &r);
        int32_t sequences = 0, prefill = 0, decode = 0;
        for (int32_t i = 0; i < n; i++) {
            cr_assert(items[i].bring >= 0 && items[i].bring <= items[i].need);
            sequences += items[i].bring > 0;
            if (items[i].decode)
                decode += items[i].bring;
            else
                prefill += items[i].bring;
        }
        cr_assert_eq(sequences, r.sequences);
        cr_assert_eq(prefill, r.prefill_tokens);
        cr_assert_eq(decode, r.decode_tokens);
        cr_assert(sequences <= budget.max_sequences && prefill <= budget.chunk_tokens);
        if (n > 0)
            cr_assert(sequences > 0, "no progress");
        if (n <= budget.max_sequences) {
            cr_assert_eq(decode, decodes);
            cr_assert_eq(prefill, wanted < budget.chunk_tokens ? wanted : budget.chunk_tokens);
        }
    }
}

/* Whatever the seats, every item is served within a bounded number of steps. */
Test(plan, nobody_starves)
{
    for (int32_t seats = 1; seats <= 7; seats++)
        for (int32_t decodes = 0; decodes <= 9; decodes++)
            for (int32_t prefills = 0; prefills <= 3; prefills++) {
                struct plan_item items[12];
                int64_t served[12] = {0};
                int32_t n = decodes + prefills, rotate = 0;
                for (int step = 0; step < 200; step++) {
                    for (int32_t i = 0; i < n; i++)
                        items[i] = (struct plan_item){.need = i < decodes ? 1 : 1000000,
                                                      .decode = i < decodes};
                    struct plan_budget budget = {seats, 64, rotate};
                    struct plan_result r;
                    plan_batch(items, n, &budget, &r);
                    rotate = r.rotate;
                    for (int32_t i = 0; i < n; i++)
                        served[i] += items[i].bring;
                }
                for (int32_t i = 0; i < decodes; i++)
                    cr_assert(served[i] >= 5, "seats %d decodes %d prefills %d: item %d got %d",
                              seats, decodes, prefills, i, (int)served[i]);
                if (prefills > 0)
                    cr_assert(served[decodes] >= 64 * 50);
            }
}

Test(plan, chunks_follow_measured_cost)
{
    struct plan_cost cost = {0};
    cr_assert_eq(plan_chunk_tokens(&cost, 50000000, 512, false), 64);
    cr_assert_eq(plan_chunk_tokens(&cost, 50000000, 20, false), 20);
    plan_measure(&cost, 64, 0, 64 * 200000);
    cr_assert_eq(cost.prefill_ns_per_token, 200000);
    cr_assert_eq(plan_chunk_tokens(&cost, 50000000, 512, false), 250);
    plan_measure(&cost, 0, 8, 10000000);
    cr_assert_eq(plan_chunk_tokens(&cost, 50000000, 512, true), 200);
    plan_measure(&cost, 100, 8, 30000000); /* 20 ms of it are the prompt's */
    cr_assert_eq(cost.prefill_ns_per_token, 200000);
    cost.decode_ns_per_step = 90000000;
    cr_assert_eq(plan_chunk_tokens(&cost, 50000000, 512, true), PLAN_CHUNK_MIN);
    plan_measure(&cost, 0, 0, 5);
    plan_measure(&cost, 1, 0, -5);
    cr_assert_eq(cost.prefill_ns_per_token, 200000);
    plan_measure(&cost, 1, 1, 0);
    cr_assert(cost.prefill_ns_per_token >= 1);
}

/* Measured while many sequences decoded; now there is one, beside prompts without an end: neither
 * cost may stay wrong, else chunks are far too small or far too large. */
Test(plan, a_stale_cost_is_unlearned)
{
    static const int64_t stale[] = {40000000, 90000000};
    for (size_t i = 0; i < sizeof stale / sizeof *stale; i++) {
        struct plan_cost cost = {.prefill_ns_per_token = 100000, .decode_ns_per_step = stale[i]};
        for (int step = 0; step < 60; step++) {
            int32_t tokens = plan_chunk_tokens(&cost, 50000000, 4096, true);
            int64_t ns = tokens * INT64_C(100000) + 1000000;
            cr_assert_leq(ns, 100000000, "step %d takes %lld ms", step, (long long)ns / 1000000);
            plan_measure(&cost, tokens, 1, ns);
        }
        int32_t tokens = plan_chunk_tokens(&cost, 50000000, 4096, true);
        cr_assert(tokens > 250, "chunks of %d tokens", tokens);
        cr_assert(cost.prefill_ns_per_token > 40000, "%lld ns a token",
                  (long long)cost.prefill_ns_per_token);
    }
}
