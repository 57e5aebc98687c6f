/* Layers that slide: what no window reaches is given back, and nothing else changes. */
#include "harness.h"

static int64_t in_use(struct rig *r)
{
    struct engine_load load;
    engine_load(r->engine, &load);
    return load.blocks.total - load.blocks.free - load.blocks.cached;
}

Test(windows, a_text_outgrows_the_pool)
{
    for (int prefix = 0; prefix < 2; prefix++) {
        struct rig r;
        rig_open(&r, (struct rig_options){
                         .blocks = 16, .chunk = 8, .windows = {9, 5}, .no_prefix = !prefix});
        struct ask *a = ask_new(3, 90, 1); /* 23 blocks in each of two groups */
        a->spec.max_tokens = 400;
        a->spec.ignore_eos = true;
        ask_start(&r, a);
        while (engine_runnable(r.engine)) {
            rig_step(&r);
            cr_assert(in_use(&r) <= 16);
        }
        ask_expect(&r, a, "longer than the pool");
        ask_release(&r, a);
        rig_expect_all_free(&r);
        free(a);
        rig_close(&r);
    }
}

Test(windows, only_what_slides_is_given_back)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.chunk = 8, .windows = {0, 6}});
    struct ask *a = ask_new(3, 40, 1);
    a->spec.max_tokens = 100;
    a->spec.ignore_eos = true;
    ask_start(&r, a);
    for (int i = 0; engine_runnable(r.engine) && a->n_said[0] < 99; i++)
        rig_step(&r);
    /* Of 138 tokens with KV: all 35 blocks, and those that the last 6 are in. */
    cr_assert_leq(in_use(&r), 35 + 3);
    cr_assert_geq(in_use(&r), 35 + 2);
    rig_run(&r);
    ask_expect(&r, a, "one layer slides");
    ask_release(&r, a);
    rig_expect_all_free(&r);
    free(a);
    rig_close(&r);
}

/* The next turn of a talk goes on where the last one ended, though its beginning is gone. */
static void talk(int32_t full, int32_t slides)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 200, .chunk = 16, .windows = {full, slides}});
    struct ask *a = ask_new(3, 30, 1);
    for (int turn = 0; turn < 5; turn++) {
        a->spec.max_tokens = 37;
        a->spec.ignore_eos = true;
        ask_start(&r, a);
        if (turn > 0)
            cr_assert_geq(a->have, (int32_t)a->prompt.n - 3 - 4, "turn %d: %d of %d", turn, a->have,
                          (int)a->prompt.n);
        rig_run(&r);
        ask_expect(&r, a, "a turn");
        ask_release(&r, a);
        struct ask *next = ask_new(3, 1, 1);
        int32_t n = (int32_t)a->prompt.n;
        memcpy(next->prompt_ids, a->prompt_ids, (size_t)n * sizeof(int32_t));
        memcpy(next->prompt_ids + n, a->said[0], 37 * sizeof(int32_t));
        next->prompt_ids[n + 37] = 11 + turn;
        next->prompt.n = (uint32_t)n + 38;
        free(a);
        a = next;
    }
    free(a);
    rig_expect_all_free(&r);
    rig_close(&r);
}

Test(windows, talks_go_on_where_they_were)
{
    talk(0, 6);
    talk(12, 6);
    talk(7, 7);
    talk(0, 1);
}

Test(windows, a_prefix_without_its_window_is_none)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 200, .chunk = 16, .windows = {0, 6}});
    struct ask *a = ask_new(3, 40, 1), *b = ask_new(3, 40, 1);
    a->spec.max_tokens = 1;
    ask_start(&r, a);
    rig_run(&r);
    ask_release(&r, a);
    /* As many others as it takes to evict what was given back first: the sliding layer's blocks. */
    struct ask *other = ask_new(99, 200, 1);
    other->spec.max_tokens = 150;
    other->spec.ignore_eos = true;
    ask_start(&r, other);
    rig_run(&r);
    ask_release(&r, other);
    b->prompt_ids[24] ^= 1; /* the first 6 blocks are those of a */
    ask_start(&r, b);
    cr_assert(b->have == 0 || b->have % 4 == 0);
    rig_run(&r);
    ask_expect(&r, b, "half a prefix");
    ask_release(&r, b);
    rig_expect_all_free(&r);
    free(a);
    free(b);
    free(other);
    rig_close(&r);
}

Test(windows, choices_share_what_is_there)
{
    for (int32_t tokens = 1; tokens < 60; tokens += 7)
        for (int32_t window = 1; window < 12; window += 5) {
            struct rig r;
            rig_open(&r, (struct rig_options){.chunk = 8, .windows = {window / 6 * 3, window}});
            struct ask *a = ask_new(5, tokens, 6);
            a->spec.ignore_eos = true;
            ask_start(&r, a);
            rig_run(&r);
            ask_expect(&r, a, "n = 6");
            ask_release(&r, a);
            rig_expect_all_free(&r);
            free(a);
            rig_close(&r);
        }
}

/* A hit keeps the blocks that a request needs from being evicted: it does without the hit then. */
Test(windows, a_pool_that_fits_once_always_fits)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 16, .chunk = 8, .windows = {9, 5}});
    for (int i = 0; i < 6; i++) {
        struct ask *a = ask_new(3, 90 - (i % 2) * 10, 1);
        ask_start(&r, a);
        rig_run(&r);
        ask_expect(&r, a, "again");
        ask_release(&r, a);
        free(a);
    }
    rig_expect_all_free(&r);
    rig_close(&r);
}

Test(windows, what_never_fits_is_refused)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 12, .chunk = 8, .windows = {0, 5}});
    struct ask *a = ask_new(3, 60, 1);
    cr_assert_eq(ask_reserve(&r, a), ST_NEVER_FITS);
    rig_expect_all_free(&r);
    free(a);
    rig_close(&r);
}

/* What is said of the room is true: a prompt of so many tokens and one more is the most. */
Test(windows, room_is_what_fits)
{
    static const int32_t windows[][2] = {{0, 0}, {0, 5}, {9, 5}, {0, 40}};
    for (int w = 0; w < 4; w++)
        for (int prefill = 0; prefill < 2; prefill++) {
            struct rig r;
            rig_open(&r, (struct rig_options){
                             .blocks = 24, .chunk = 8, .windows = {windows[w][0], windows[w][1]}});
            int64_t room = engine_room_tokens(r.engine, prefill), most = 0;
            for (int32_t tokens = 4; tokens < 500; tokens += 4) {
                struct ask *a = ask_new(3, tokens, 1);
                struct engine_request req = ask_request(a);
                req.prefill_only = prefill;
                if (ask_reserve_as(&r, a, &req) == ST_OK) {
                    ask_release(&r, a);
                    most = tokens + (prefill ? 0 : 4); /* a decode node has a block to grow into */
                }
                free(a);
            }
            if (room > 500)
                cr_assert(most > 496, "windows %d", w);
            else
                cr_assert_eq(most, room, "windows %d prefill %d: %d of %d", w, prefill, (int)most,
                             (int)room);
            rig_close(&r);
        }
}
