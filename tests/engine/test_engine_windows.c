/* Layers that slide: what no window reaches is given back, and nothing else changes. */
#include <inttypes.h>

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

/* What is said of the room is true: a prompt of so many tokens and all shorter ones fit, and one
 * of a token more does not. */
Test(windows, room_is_what_fits)
{
    static const int32_t windows[][2] = {{0, 0}, {0, 5}, {9, 5}, {0, 40}};
    for (int w = 0; w < 4; w++)
        for (int prefill = 0; prefill < 2; prefill++) {
            struct rig r;
            rig_open(&r, (struct rig_options){.blocks = 24,
                                              .chunk = 8,
                                              .slack = w % 3,
                                              .windows = {windows[w][0], windows[w][1]}});
            int64_t room = engine_room_tokens(r.engine, prefill), most = 0;
            for (int32_t tokens = 1; most == tokens - 1 && tokens < 500; tokens++) {
                struct ask *a = ask_new(3, tokens, 1);
                struct engine_request req = ask_request(a);
                req.prefill_only = prefill;
                if (ask_reserve_as(&r, a, &req) == ST_OK) {
                    ask_release(&r, a);
                    most = tokens;
                }
                free(a);
            }
            most += prefill ? 0 : 4; /* a decode node has a block to grow into */
            if (room > 500)
                cr_assert(most > 496, "windows %d", w);
            else
                cr_assert_eq(most, room, "windows %d prefill %d: %d of %d", w, prefill, (int)most,
                             (int)room);
            rig_close(&r);
        }
}

/* ---- the prefill role ---- */

static void prefill_start(struct rig *r, struct ask *a, const int32_t **table)
{
    struct engine_request req = ask_request(a);
    int32_t n;
    req.prefill_only = req.want_first = true;
    cr_assert_eq(ask_reserve_as(r, a, &req), ST_OK);
    *table = engine_begin_fill(r->engine, a->group, &n);
    engine_check(r->engine);
    engine_fill_here(r->engine, a->group);
    engine_check(r->engine);
}

/* Where the handoff was told that it lies, there is what a handoff brings. */
static void prefill_expect(struct rig *r, struct ask *a, const int32_t *told, const char *what)
{
    static int32_t whole[2 * H_TOKENS];
    struct kv_layout l = r->layout;
    l.blocks = 2 * H_TOKENS;
    for (int32_t i = 0; i < l.blocks; i++)
        whole[i] = i;
    struct model_kv want = {.pool = malloc(kv_pool_bytes(&l)), .layout = l};
    fake_fill(&r->model, &want, (struct fake_table){whole, H_TOKENS}, &a->prompt, 0);
    int32_t stride = engine_table_stride(r->engine, a->group), tokens = (int32_t)a->prompt.n;
    cr_assert_not(a->failed);
    cr_assert_eq(a->n_said[0], 1, "%s: not over", what);
    for (int layer = 0; layer < l.layers; layer++) {
        int32_t group = kv_group_of(&l, layer);
        for (int32_t p = kv_groups_need_from(l.groups, group, tokens); p < tokens; p++) {
            int32_t mine = told[group * stride + p / l.block_tokens], in = p % l.block_tokens;
            int32_t theirs = whole[group * H_TOKENS + p / l.block_tokens];
            cr_assert_geq(mine, 0, "%s: layer %d position %d has no block", what, layer, p);
            cr_assert_eq(memcmp((char *)r->pool + kv_offset(&r->layout, layer, mine, KV_KEY, 0, in),
                                (char *)want.pool + kv_offset(&l, layer, theirs, KV_KEY, 0, in),
                                kv_slot_bytes(&l, KV_KEY)),
                         0, "%s: layer %d position %d", what, layer, p);
        }
    }
    free(want.pool);
}

Test(windows, a_prompt_outgrows_a_prefill_pool)
{
    for (int32_t tokens = 60; tokens < 230; tokens += 17)
        for (int prefix = 0; prefix < 2; prefix++) {
            struct rig r;
            rig_open(&r, (struct rig_options){.blocks = 24,
                                              .chunk = 8,
                                              .slack = tokens % 3,
                                              .windows = {9, 5},
                                              .no_prefix = !prefix});
            struct ask *a = ask_new(3, tokens, 1);
            const int32_t *table;
            prefill_start(&r, a, &table);
            rig_run(&r);
            prefill_expect(&r, a, table, "longer than the pool");
            ask_release(&r, a);
            rig_expect_all_free(&r);
            free(a);
            rig_close(&r);
        }
}

/* Prompts with a common beginning share blocks that one of them gives back: it has to wait for the
 * other, and may then go on. */
static void prefill_crowd(uint64_t seed)
{
    enum { ASKS = 40, LIVE = 5 };
    struct rng rng = rng_seed(seed);
    const int32_t *table[LIVE];
    struct ask *live[LIVE] = {0};
    struct rig r;
    int32_t windows[] = {rng_below(&rng, 4) ? 9 : 0, 1 + (int32_t)rng_below(&rng, 12)}, begun = 0;
    rig_open(&r, (struct rig_options){.blocks = 24 + (int32_t)rng_below(&rng, 40),
                                      .chunk = 8,
                                      .slack = (int32_t)rng_below(&rng, 9),
                                      .windows = {windows[0], windows[1]}});
    for (int32_t left = ASKS, i = 0; left > 0; i++) {
        cr_assert(i < 20000, "seed %" PRIu64 ": no end", seed);
        int32_t at = (int32_t)rng_below(&rng, LIVE);
        if (live[at] == NULL && begun < ASKS) {
            struct ask *a = ask_new(3 + rng_below(&rng, 2), 8 + (int32_t)rng_below(&rng, 200), 1);
            struct engine_request req = ask_request(a);
            int32_t n;
            req.prefill_only = req.want_first = true;
            enum status st = ask_reserve_as(&r, a, &req);
            if (st != ST_OK) {
                cr_assert(st == ST_BUSY || st == ST_NEVER_FITS);
                left -= st == ST_NEVER_FITS;
                begun += st == ST_NEVER_FITS;
                free(a);
            } else {
                table[at] = engine_begin_fill(r.engine, a->group, &n);
                engine_fill_here(r.engine, a->group);
                live[at] = a;
                begun++;
            }
        }
        for (int32_t k = (int32_t)rng_below(&rng, 4); k > 0 && engine_runnable(r.engine); k--)
            rig_step(&r);
        at = (int32_t)rng_below(&rng, LIVE);
        if (live[at] == NULL || (live[at]->n_said[0] == 0 && rng_below(&rng, 50) > 0))
            continue;
        if (live[at]->n_said[0] > 0)
            prefill_expect(&r, live[at], table[at], "one of a crowd");
        ask_release(&r, live[at]);
        free(live[at]);
        live[at] = NULL;
        left--;
    }
    rig_expect_all_free(&r);
    rig_close(&r);
}

Test(windows, prefills_wait_for_each_other_and_end, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 60; seed++)
        prefill_crowd(seed);
}

/* Others that begin as it does hold what a long prefill gives back, until there is nothing to go on
 * with; nobody else gets in before it. */
Test(windows, a_starved_prefill_waits)
{
    enum { SHORT = 12 };
    struct rig r;
    rig_open(&r, (struct rig_options){.blocks = 60, .chunk = 4, .windows = {33, 17}});
    struct ask *a = ask_new(3, 200, 1), *other[SHORT];
    const int32_t *table, *shared[SHORT];
    int32_t n = 0;
    prefill_start(&r, a, &table);
    while (n < SHORT && a->n_said[0] == 0 && engine_runnable(r.engine)) {
        rig_step(&r);
        rig_step(&r);
        int32_t done = a->chunk_end[a->n_chunks - 1];
        struct ask *b = ask_new(3, done, 1);
        struct engine_request req = ask_request(b);
        req.prefill_only = req.want_first = true;
        if (done < 40 || ask_reserve_as(&r, b, &req) != ST_OK) {
            free(b);
            continue;
        }
        int32_t blocks;
        shared[n] = engine_begin_fill(r.engine, b->group, &blocks);
        engine_fill_here(r.engine, b->group);
        other[n++] = b;
    }
    rig_run(&r);
    cr_assert_eq(a->n_said[0], 0, "it was not starved: %d others", n);
    struct ask *late = ask_new(99, 4, 1);
    cr_assert_eq(ask_reserve(&r, late), ST_BUSY);
    for (int32_t i = 0; i < n; i++) {
        prefill_expect(&r, other[i], shared[i], "one that shares");
        ask_release(&r, other[i]);
        free(other[i]);
        rig_run(&r);
    }
    prefill_expect(&r, a, table, "starved for a while");
    ask_release(&r, a);
    rig_expect_all_free(&r);
    free(a);
    free(late);
    rig_close(&r);
}
