/* The tokens of a request depend on nothing but the request. */
#include "harness.h"

Test(engine, one_request_says_what_the_model_says)
{
    for (int32_t block = 1; block <= 16; block *= 2)
        for (int32_t chunk = 1; chunk <= 64; chunk *= 4) {
            struct rig r;
            rig_open(&r, (struct rig_options){.block_tokens = block, .chunk = chunk});
            for (int32_t tokens = 1; tokens < 40; tokens += 7) {
                struct ask *a = ask_new((uint64_t)tokens, tokens, 1);
                ask_start(&r, a);
                rig_run(&r);
                ask_expect(&r, a, "alone");
                ask_release(&r, a);
                free(a);
            }
            rig_expect_all_free(&r);
            rig_close(&r);
        }
}

Test(engine, batch_composition_changes_no_token)
{
    for (int32_t max_batch = 1; max_batch <= 32; max_batch += 3) {
        struct rig r;
        rig_open(&r, (struct rig_options){.max_batch = max_batch});
        struct ask *a[12];
        for (int32_t i = 0; i < 12; i++) {
            a[i] = ask_new((uint64_t)i + 100, 3 + i * 5, 1);
            a[i]->spec.ignore_eos = i % 2;
            if (i % 3 == 0)
                a[i]->spec.temperature = 0;
            ask_start(&r, a[i]);
            if (i % 4 == 3)
                rig_step(&r);
        }
        rig_run(&r);
        cr_assert(r.model.rows_max <= max_batch + 32 && r.model.logits_max <= max_batch);
        for (int32_t i = 0; i < 12; i++) {
            ask_expect(&r, a[i], "batched");
            ask_release(&r, a[i]);
            free(a[i]);
        }
        rig_expect_all_free(&r);
        rig_close(&r);
    }
}

Test(engine, choices_share_the_prompt_and_part_ways)
{
    for (int32_t tokens = 1; tokens < 14; tokens++) {
        struct rig r;
        rig_open(&r, (struct rig_options){0});
        struct ask *a = ask_new(5, tokens, 6);
        ask_start(&r, a);
        int64_t before = r.model.rows;
        rig_run(&r);
        ask_expect(&r, a, "n = 6");
        int32_t said = 0;
        for (int32_t c = 0; c < 6; c++)
            said += a->n_said[c];
        cr_assert_eq(r.model.rows - before, tokens + said - 6, "the prompt is computed once");
        ask_release(&r, a);
        rig_expect_all_free(&r);
        free(a);
        rig_close(&r);
    }
}

Test(engine, prefix_hits_change_no_token)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    int64_t rows = 0;
    for (int round = 0; round < 3; round++) {
        for (int32_t tokens = 15; tokens < 34; tokens++) {
            struct ask *a = ask_new(9, tokens, 1 + tokens % 3);
            ask_start(&r, a);
            cr_assert(a->have < tokens);
            if (round > 0)
                cr_assert_eq(a->have, tokens % 4 ? tokens / 4 * 4 : tokens - 1);
            rig_run(&r);
            ask_expect(&r, a, "hit");
            ask_release(&r, a);
            free(a);
        }
        if (round > 0)
            cr_assert(r.model.rows - rows < 19 * 3 * 22);
        rows = r.model.rows;
    }
    rig_expect_all_free(&r);
    rig_close(&r);
}

Test(engine, salts_keep_prefixes_apart)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    const char *salts[] = {"", "a", "b", "a", NULL};
    int32_t want[] = {0, 0, 0, 16, 16};
    for (int i = 0; i < 5; i++) {
        struct ask *a = ask_new(3, 17, 1);
        struct engine_request req = ask_request(a);
        req.cache_salt = salts[i];
        cr_assert_eq(ask_reserve_as(&r, a, &req), ST_OK);
        cr_assert_eq(a->have, want[i], "salt %d", i);
        cr_assert_eq(engine_group_cached(r.engine, a->group), want[i]);
        engine_fill_here(r.engine, a->group);
        rig_run(&r);
        ask_expect(&r, a, "salted");
        ask_release(&r, a);
        free(a);
    }
    rig_close(&r);
}

Test(engine, equal_prompts_at_once_end_up_sharing)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *a[4];
    for (int i = 0; i < 4; i++) {
        a[i] = ask_new(77, 33, 1);
        a[i]->spec.ignore_eos = true;
        ask_start(&r, a[i]);
    }
    rig_run(&r);
    for (int i = 0; i < 4; i++) {
        ask_expect(&r, a[i], "twin");
        ask_release(&r, a[i]);
        free(a[i]);
    }
    struct engine_load load;
    engine_load(r.engine, &load);
    cr_assert_eq(load.blocks.cached, (33 + 20 - 1) / 4, "%d cached", (int)load.blocks.cached);
    rig_expect_all_free(&r);
    rig_close(&r);
}

Test(engine, kv_dtypes_and_no_prefix_cache)
{
    for (int type = 0; type < DTYPE_KV_COUNT; type++) {
        struct rig r;
        rig_open(&r, (struct rig_options){.dtype = (enum dtype)type, .no_prefix = true});
        struct ask *a = ask_new(11, 21, 3);
        ask_start(&r, a);
        rig_run(&r);
        ask_expect(&r, a, dtype_name((enum dtype)type));
        ask_release(&r, a);
        struct engine_load load;
        engine_load(r.engine, &load);
        cr_assert_eq(load.blocks.free, load.blocks.total);
        free(a);
        rig_close(&r);
    }
}

/* Keys of texts with a long prompt may be of another kind (LongRoPE): to their end, whatever is
 * generated, and never shared with others. */
Test(engine, long_prompts_keep_to_themselves)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    r.model.long_from = 50;
    struct ask *brief = ask_new(31, 45, 1), *asks[2] = {ask_new(31, 60, 1), ask_new(31, 60, 1)};
    brief->spec.ignore_eos = true; /* grows past 50 */
    ask_start(&r, brief);
    rig_run(&r);
    cr_assert_eq(r.model.long_rows, 0);
    ask_release(&r, brief);
    for (int i = 0; i < 2; i++) {
        struct ask *other = ask_new(32, 20, 1); /* in the same batches */
        int64_t rows = r.model.rows, long_rows = r.model.long_rows;
        ask_start(&r, asks[i]);
        cr_assert_eq(asks[i]->have, i == 0 ? 0 : 59, "not the KV of the brief one");
        rig_run(&r);
        cr_assert_eq(r.model.long_rows - long_rows, r.model.rows - rows, "to the end");
        ask_start(&r, other);
        rows = r.model.long_rows;
        rig_run(&r);
        cr_assert_eq(r.model.long_rows, rows);
        ask_release(&r, asks[i]);
        ask_release(&r, other);
        free(other);
        free(asks[i]);
    }
    rig_expect_all_free(&r);
    free(brief);
    rig_close(&r);
}
