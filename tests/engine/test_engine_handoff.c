/* KV that comes from another node: landing plans, first tokens, the prefill role, quarantine. */
#include <stdio.h>

#include "harness.h"

/* A prefill engine computes, its blocks are copied into a decode engine's landing plan: the handoff
 * without a wire. */
struct pair {
    struct rig p, d;
};

static void pair_open_as(struct pair *x, int32_t p_block, int32_t d_block,
                         const struct kv_conversion *c)
{
    rig_open(&x->p, (struct rig_options){.block_tokens = p_block, .dtype = c->from});
    rig_open(&x->d, (struct rig_options){.block_tokens = d_block, .dtype = c->to});
}

static void pair_open(struct pair *x, int32_t p_block, int32_t d_block)
{
    pair_open_as(x, p_block, d_block, &(struct kv_conversion){DTYPE_BF16, DTYPE_F32, 0});
}

static void pair_close(struct pair *x)
{
    rig_close(&x->p);
    rig_close(&x->d);
}

static void copy_token(struct rig *from, const int32_t *from_table, struct rig *to,
                       const int32_t *to_table, int32_t position)
{
    for (int layer = 0; layer < from->model.layers; layer++)
        for (int part = 0; part < 2; part++)
            for (int h = 0; h < from->model.kv_heads; h++) {
                const struct kv_layout *f = &from->layout, *t = &to->layout;
                size_t src = kv_offset(f, layer, from_table[position / f->block_tokens],
                                       (enum kv_part)part, h, position % f->block_tokens);
                size_t dst = kv_offset(t, layer, to_table[position / t->block_tokens],
                                       (enum kv_part)part, h, position % t->block_tokens);
                kv_vectors_convert(&(struct kv_conversion){t->dtype, f->dtype, FAKE_HEAD_DIM},
                                   (char *)to->pool + dst, (char *)from->pool + src, 1);
            }
}

struct handoff {
    struct ask *p, *d; /* the same request on both sides */
    struct msg_token first[H_CHOICES];
    int32_t n_first;
    const int32_t *from; /* P's blocks */
};

/* Runs the prefill of `d`'s request (plus emitted ids when n is 1) on P. */
static void prefill(struct pair *x, struct handoff *h, const struct msg_ids *emitted,
                    bool want_first)
{
    struct ask *p = h->p = calloc(1, sizeof *p);
    *p = *h->d;
    memset(p->n_said, 0, sizeof p->n_said);
    memset(p->base, 0, sizeof p->base);
    struct engine_request req = ask_request(h->d);
    int32_t n = (int32_t)h->d->prompt.n, extra = 0;
    if (emitted && h->d->n == 1) {
        extra = (int32_t)emitted->n;
        memcpy(p->prompt_ids + n, emitted->v, emitted->n * sizeof(int32_t));
        p->base[0] = p->n_said[0] = extra;
    }
    memcpy(p->prompt_ids, h->d->prompt_ids, (size_t)n * sizeof(int32_t));
    req.prompt = (struct msg_ids){p->prompt_ids, (uint32_t)(n + extra)};
    req.history_prompt = n;
    req.prefill_only = true;
    req.want_first = want_first;
    req.credits = 0;
    req.user = p;
    cr_assert_eq(ask_reserve_as(&x->p, p, &req), ST_OK);
    int32_t n_blocks;
    h->from = engine_begin_fill(x->p.engine, p->group, &n_blocks);
    engine_fill_here(x->p.engine, p->group);
    rig_run(&x->p);
    cr_assert_not(p->failed);
    for (int32_t c = 0; want_first && c < p->n; c++) {
        cr_assert_eq(p->n_said[c], p->base[c] + 1);
        if (h->d->n_said[c] == p->base[c])
            h->first[h->n_first++] = (struct msg_token){
                .choice = c, .position = p->base[c], .id = p->said[c][p->base[c]]};
    }
}

static void check_chunks(const struct ask *p, int32_t tokens)
{
    int32_t at = 0;
    cr_assert(p->n_chunks > 0);
    for (int32_t i = 0; i < p->n_chunks; i++) {
        cr_assert_eq(p->chunk_begin[i], at);
        cr_assert(p->chunk_end[i] > at);
        at = p->chunk_end[i];
    }
    cr_assert_eq(at, tokens);
}

/* Reserves on D, prefills on P, copies, and lets D go on. */
static void hand_over(struct pair *x, struct handoff *h, const struct msg_ids *emitted,
                      bool want_first)
{
    struct ask *d = h->d;
    struct engine_request req = ask_request(d);
    req.emitted = emitted;
    cr_assert_eq(ask_reserve_as(&x->d, d, &req), ST_OK);
    int32_t tokens = engine_transfer_tokens(x->d.engine, d->group);
    cr_assert(d->have < tokens);
    prefill(x, h, emitted, want_first);
    check_chunks(h->p, tokens);
    int32_t n_d;
    const int32_t *to = engine_begin_fill(x->d.engine, d->group, &n_d);
    engine_check(x->d.engine);
    int32_t table[H_TOKENS];
    memcpy(table, to, (size_t)n_d * sizeof *table);
    for (int32_t t = d->have; t < tokens; t++)
        copy_token(&x->p, h->from, &x->d, table, t);
    ask_release(&x->p, h->p);
    engine_fill_done(x->d.engine, d->group, h->first, h->n_first);
    engine_check(x->d.engine);
}

static void finish(struct pair *x, struct handoff *h, const char *what)
{
    rig_run(&x->d);
    ask_expect(&x->d, h->d, what);
    ask_release(&x->d, h->d);
    rig_expect_all_free(&x->d);
    rig_expect_all_free(&x->p);
    free(h->p);
    free(h->d);
}

/* Between all pairs of dtypes, one after the other. */
Test(handoff, split_equals_aggregated, .timeout = 120)
{
    int round = 0;
    int32_t blocks[][2] = {{4, 4}, {1, 16}, {16, 1}, {8, 3}};
    for (int b = 0; b < 4; b++)
        for (int32_t tokens = 1; tokens < 24; tokens += 3)
            for (int32_t n = 1; n <= 5; n += 2)
                for (int first = 0; first < 2; first++) {
                    struct pair x;
                    char what[128];
                    const struct kv_conversion c = {
                        .from = (enum dtype)(round % DTYPE_KV_COUNT),
                        .to = (enum dtype)(round / DTYPE_KV_COUNT % DTYPE_KV_COUNT)};
                    round++;
                    snprintf(what, sizeof what, "%s to %s blocks %d/%d tokens %d n %d first %d",
                             dtype_name(c.from), dtype_name(c.to), blocks[b][0], blocks[b][1],
                             tokens, n, first);
                    pair_open_as(&x, blocks[b][0], blocks[b][1], &c);
                    struct handoff h = {.d = ask_new((uint64_t)tokens, tokens, n)};
                    hand_over(&x, &h, NULL, first);
                    finish(&x, &h, what);
                    pair_close(&x);
                }
}

Test(handoff, greedy_ends_at_once_when_the_first_token_is_the_last)
{
    struct pair x;
    pair_open(&x, 4, 4);
    struct handoff h = {.d = ask_new(8, 10, 2)};
    h.d->spec.max_tokens = 1;
    hand_over(&x, &h, NULL, true);
    int64_t before = x.d.model.forwards;
    finish(&x, &h, "max_tokens 1");
    cr_assert_eq(x.d.model.forwards, before);
    pair_close(&x);
}

Test(handoff, eos_as_first_token_ends_the_choice)
{
    struct pair x;
    pair_open(&x, 4, 4);
    struct msg_bias bias = {FAKE_EOS, 100};
    struct handoff h = {.d = ask_new(8, 10, 1)};
    h.d->spec.bias = &bias;
    h.d->spec.n_bias = 1;
    hand_over(&x, &h, NULL, true);
    rig_run(&x.d);
    cr_assert_eq(h.d->n_said[0], 1);
    cr_assert_eq(h.d->finish[0].stop_id, FAKE_EOS);
    finish(&x, &h, "eos first");
    pair_close(&x);
}

Test(handoff, resumed_requests_go_on_where_they_were, .timeout = 120)
{
    for (int32_t n = 1; n <= 3; n += 2)
        for (int32_t cut = 0; cut <= 20; cut += 4)
            for (int first = 0; first < 2; first++) {
                struct pair x;
                char what[96];
                snprintf(what, sizeof what, "n %d cut %d first %d", n, cut, first);
                pair_open(&x, 4, 8);
                struct handoff h = {.d = ask_new(40, 13, n)};
                int32_t all[3][H_TOKENS];
                struct msg_ids emitted[3];
                for (int32_t c = 0; c < n; c++) {
                    enum msg_finish_reason reason;
                    int32_t got = fake_generate(&x.d.model, &h.d->prompt, NULL, &h.d->spec, c,
                                                all[c], &reason);
                    int32_t keep = c == 1 ? 0 : cut - c > 0 ? cut - c : 0;
                    keep = keep < got ? keep : got;
                    emitted[c] = (struct msg_ids){all[c], (uint32_t)keep};
                    memcpy(h.d->said[c], all[c], (size_t)keep * sizeof(int32_t));
                    h.d->base[c] = h.d->n_said[c] = keep;
                }
                hand_over(&x, &h, emitted, first);
                finish(&x, &h, what);
                pair_close(&x);
            }
}

Test(handoff, a_bad_first_token_is_ignored)
{
    struct pair x;
    pair_open(&x, 4, 4);
    struct msg_token bad[] = {{.choice = -1, .id = 3},
                              {.choice = 9, .id = 3},
                              {.choice = 0, .id = -1},
                              {.choice = 0, .id = 64},
                              {.choice = 0, .id = 3, .position = 1}};
    struct handoff h = {.d = ask_new(8, 12, 2)};
    for (int i = 0; i < 5; i++)
        h.first[h.n_first++] = bad[i];
    hand_over(&x, &h, NULL, false);
    finish(&x, &h, "bad first");
    pair_close(&x);
}

Test(handoff, a_failed_handoff_is_computed_here)
{
    struct pair x;
    pair_open(&x, 4, 4);
    struct ask *a = ask_new(8, 13, 3);
    cr_assert_eq(ask_reserve(&x.d, a), ST_OK);
    int32_t n;
    const int32_t *blocks = engine_begin_fill(x.d.engine, a->group, &n);
    cr_assert_eq(n, 4);
    memset((char *)x.d.pool + (size_t)blocks[0] * kv_block_bytes(&x.d.layout), 1,
           kv_block_bytes(&x.d.layout));
    cr_assert_not(engine_runnable(x.d.engine));
    struct engine_load load;
    engine_load(x.d.engine, &load);
    cr_assert_eq(load.blocks.receiving, 4);
    cr_assert_eq(load.waiting, 1);
    engine_fill_here(x.d.engine, a->group);
    rig_run(&x.d);
    ask_expect(&x.d, a, "after all");
    ask_release(&x.d, a);
    rig_expect_all_free(&x.d);
    free(a);
    pair_close(&x);
}

Test(handoff, unquiet_blocks_stay_quarantined)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *first = ask_new(8, 16, 1), *a = ask_new(8, 30, 2);
    memcpy(a->prompt_ids, first->prompt_ids, 16 * sizeof(int32_t));
    ask_start(&r, first);
    rig_run(&r);
    cr_assert_eq(ask_reserve(&r, a), ST_OK);
    cr_assert_eq(a->have, 16);
    int32_t n;
    engine_begin_fill(r.engine, a->group, &n);
    engine_release(r.engine, a->group, true, false);
    engine_check(r.engine);
    ask_release(&r, first);
    engine_drop_cache(r.engine);
    engine_check(r.engine);
    struct engine_load load;
    engine_load(r.engine, &load);
    cr_assert_eq(load.blocks.quarantined, 4 + 1, "%d", (int)load.blocks.quarantined);
    cr_assert_eq(load.blocks.running, 4); /* the hit ones are pinned */
    cr_assert_eq(load.groups, 0);
    engine_quiet(r.engine, a->group);
    engine_check(r.engine);
    rig_expect_all_free(&r);
    free(a);
    free(first);
    rig_close(&r);
}

Test(handoff, prefill_node_announces_its_cached_part)
{
    struct rig r;
    rig_open(&r, (struct rig_options){.chunk = 8});
    for (int round = 0; round < 2; round++) {
        struct ask *a = ask_new(8, 40, 2);
        struct engine_request req = ask_request(a);
        req.prefill_only = true;
        req.want_first = round == 0;
        cr_assert_eq(ask_reserve_as(&r, a, &req), ST_OK);
        cr_assert_eq(a->have, round == 0 ? 0 : 39);
        engine_fill_here(r.engine, a->group);
        rig_run(&r);
        check_chunks(a, 40);
        cr_assert_eq(a->n_chunks, round == 0 ? 5 : 2);
        for (int c = 0; c < 2; c++) {
            cr_assert_eq(a->n_said[c], round == 0);
            cr_assert_not(a->ended[c]);
        }
        struct engine_load load;
        engine_load(r.engine, &load);
        cr_assert_eq(load.blocks.running, round == 0 ? 10 : 10);
        ask_release(&r, a);
        free(a);
    }
    cr_assert_eq(r.layers_seen, (5 + 1) * r.model.layers);
    rig_expect_all_free(&r);
    rig_close(&r);
}

Test(handoff, dropped_blocks_are_not_kept)
{
    struct rig r;
    rig_open(&r, (struct rig_options){0});
    struct ask *a = ask_new(8, 40, 1);
    ask_start(&r, a);
    rig_step(&r);
    engine_release(r.engine, a->group, false, true);
    engine_check(r.engine);
    struct engine_load load;
    engine_load(r.engine, &load);
    cr_assert_eq(load.blocks.free, load.blocks.total);
    free(a);
    rig_close(&r);
}
