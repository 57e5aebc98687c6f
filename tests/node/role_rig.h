/* One role with a real engine over the fake model, and scripted hands: calls and the mover are what
 * the test says. Everything that the role does is written down; nothing happens by itself. */
#ifndef TESTS_NODE_ROLE_RIG_H
#define TESTS_NODE_ROLE_RIG_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"
#include "engine/sampler.h"
#include "node/role.h"
#include "support/fake_model.h"
#include "support/letters.h"

#define RIG_CALLS 16
#define RIG_TOKENS 64
#define RIG_USERS 64
#define RIG_REQUEST_NS (600 * NS_PER_S)

/* A call as its caller sees it. */
struct rig_call {
    void *handle;
    bool closed;
    int finishes, accepted, rejected, done, finish_events, reads, prefilled;
    enum status status, why; /* of its finish, of its rejection */
    int32_t have, n_ranks;
    struct msg_ticket ticket;
    int32_t ids[8][RIG_TOKENS], n[8]; /* what was said, by choice */
    int32_t scored;                   /* last position of the prompt that has a score */
    float score[512];
    bool deaf; /* takes no message */
    int room;  /* takes so many messages more; 0: any */
};

struct rig_handoff {
    uint64_t user;
    int32_t begin, end, n_blocks, blocks[64];
    int opened, closed; /* expect and forget, or open and close */
    int layers, fills;
    uint32_t n_first;
    int64_t deadline_ns;
};

static struct {
    const struct node_role_ops *ops;
    struct role *role;
    struct engine *engine;
    struct fake_model model;
    struct kv_layout layout;
    void *pool;
    int64_t now_ns;
    struct rig_call calls[RIG_CALLS];
    int n_calls;
    struct rig_handoff handoffs[RIG_USERS];
    int n_handoffs;
    enum status refuse_handoff;
    struct letters letters;
    struct grammar_draft *draft; /* under way */
    int drafts;                  /* so far */
    bool aggregated;
} rig;

static int32_t rig_prompt_ids[512];
static struct msg_rank_address rig_rank = {.head_end = 2, .host = "h", .shm = "s"};

static struct rig_handoff *handoff_of(uint64_t user)
{
    for (int i = rig.n_handoffs - 1; i >= 0; i--)
        if (rig.handoffs[i].user == user)
            return &rig.handoffs[i];
    cr_assert(false, "no handoff of that name");
    return NULL;
}

static struct rig_handoff *handoff_begin(uint64_t user, int32_t begin, int32_t end,
                                         const int32_t *blocks, int32_t n_blocks)
{
    struct rig_handoff *h = &rig.handoffs[rig.n_handoffs++];
    cr_assert(rig.n_handoffs < RIG_USERS && n_blocks <= 64);
    *h = (struct rig_handoff){
        .user = user, .begin = begin, .end = end, .n_blocks = n_blocks, .opened = 1};
    memcpy(h->blocks, blocks, sizeof(*blocks) * (size_t)n_blocks);
    return h;
}

/* ---- hands ---- */

static void note_tokens(struct rig_call *k, const struct msg_token *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(t[i].position, k->n[t[i].choice], "position %d after %d", t[i].position,
                     k->n[t[i].choice]);
        k->ids[t[i].choice][k->n[t[i].choice]++] = t[i].id;
    }
}

static void note_scores(struct rig_call *k, const struct msg_score *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(k->n[0], 0, "a score after a token");
        cr_assert_eq(s[i].position, k->scored + 1, "score of %d after %d", s[i].position,
                     k->scored);
        cr_assert_eq(s[i].id, rig_prompt_ids[s[i].position]);
        k->score[++k->scored] = s[i].logprob;
    }
}

static void note_decode(struct rig_call *k, const struct buf *b)
{
    struct codec_arena arena = {0};
    struct msg_decode_event ev;
    cr_assert_eq(codec_get_decode_event((const uint8_t *)b->data, b->len, &arena, &ev), ST_OK);
    cr_assert_eq(k->done, 0, "a word after Done");
    switch (ev.kind) {
    case MSG_D_ACCEPTED:
        k->accepted++;
        k->have = ev.accepted.have_tokens;
        k->n_ranks = (int32_t)ev.accepted.n_ranks;
        k->ticket = ev.accepted.ticket;
        break;
    case MSG_D_REJECTED:
        k->rejected++;
        k->why = ev.rejected;
        break;
    case MSG_D_TOKENS:
        cr_assert_eq(k->accepted, 1, "a token before Accepted");
        note_tokens(k, ev.tokens, ev.n_tokens);
        break;
    case MSG_D_SCORES:
        note_scores(k, ev.scores, ev.n_scores);
        break;
    case MSG_D_FINISH:
        k->finish_events++;
        break;
    case MSG_D_DONE:
        k->done++;
        break;
    }
    codec_arena_fini(&arena);
}

static enum status rig_send(void *ctx, void *call, const struct buf *b)
{
    struct rig_call *k = call;
    cr_assert(!k->closed && k->finishes == 0, "a message after the end");
    if (k->deaf || (k->room > 0 && --k->room == 0 && (k->deaf = true)))
        return ST_BUSY;
    if (strcmp(rig.ops->name, "decode") == 0) {
        note_decode(k, b);
    } else {
        struct codec_arena arena = {0};
        struct msg_prefill_event ev;
        cr_assert_eq(codec_get_prefill_event((const uint8_t *)b->data, b->len, &arena, &ev), ST_OK);
        k->prefilled += ev.compute_us > 0 || ev.n_first > 0 || ev.n_scores == 0;
        note_scores(k, ev.scores, ev.n_scores);
        note_tokens(k, ev.first, ev.n_first);
        codec_arena_fini(&arena);
    }
    return ST_OK;
}

static void rig_read(void *ctx, void *call)
{
    ((struct rig_call *)call)->reads++;
}

static void rig_finish(void *ctx, void *call, enum status status, const char *text)
{
    struct rig_call *k = call;
    cr_assert_not(k->closed, "finished after its end");
    cr_assert_eq(k->finishes++, 0, "finished twice: %s", text);
    k->status = status;
}

static enum status rig_expect(void *ctx, const struct mover_plan *plan)
{
    if (rig.refuse_handoff != ST_OK)
        return rig.refuse_handoff;
    static struct msg_ticket before;
    for (int i = 0; i < 2; i++) /* 128 bits, anew each time */
        cr_assert(plan->ticket.w[i] != 0 && plan->ticket.w[i] != before.w[i]);
    cr_assert(plan->ticket.w[0] != plan->ticket.w[1]);
    before = plan->ticket;
    handoff_begin(plan->user, plan->token_begin, plan->token_end, plan->blocks, plan->n_blocks);
    return ST_OK;
}

static void rig_forget(void *ctx, uint64_t user)
{
    cr_assert_eq(handoff_of(user)->closed++, 0, "forgotten twice");
}

static enum status rig_offer_open(void *ctx, const struct mover_send *send)
{
    if (rig.refuse_handoff != ST_OK)
        return rig.refuse_handoff;
    cr_assert_eq(send->n_ranks, 1);
    handoff_begin(send->user, send->token_begin, send->token_end, send->blocks, send->n_blocks)
        ->deadline_ns = send->deadline_ns;
    return ST_OK;
}

static void rig_offer_layer(void *ctx, uint64_t user, int32_t layer, int32_t tokens)
{
    struct rig_handoff *h = handoff_of(user);
    cr_assert(tokens <= h->end);
    h->layers += tokens == h->end;
}

static void rig_offer_fill(void *ctx, uint64_t user, const struct msg_token *first, uint32_t n)
{
    struct rig_handoff *h = handoff_of(user);
    cr_assert_eq(h->layers, rig.model.layers, "filled before every layer was offered");
    cr_assert_eq(h->fills++, 0);
    h->n_first = n;
}

static void rig_offer_close(void *ctx, uint64_t user)
{
    cr_assert_eq(handoff_of(user)->closed++, 0, "closed twice");
}

static void rig_compile(void *ctx, struct grammar_draft *draft)
{
    cr_assert_null(rig.draft, "one at a time");
    rig.draft = draft;
    rig.drafts++;
}

static uint64_t rig_random(void *ctx)
{
    static uint64_t n = 1;
    return rng_hash(5, n++, 0, 0);
}

/* ---- life ---- */

static void rig_open(const struct node_role_ops *ops, int32_t blocks, bool aggregated)
{
    struct error err = {0};
    log_init("test", LOG_ERROR, LOG_TEXT);
    memset(&rig, 0, sizeof(rig));
    rig.ops = ops;
    rig.now_ns = NS_PER_S;
    rig.model = fake_model_default();
    letters_init(&rig.letters);
    rig.model.grammars = rig.letters.vocab;
    rig.layout = fake_layout(&rig.model, DTYPE_F32, 4, blocks);
    rig.pool = calloc(1, kv_pool_bytes(&rig.layout));
    const struct node_role_args args = {.effects = {.send = rig_send,
                                                    .read = rig_read,
                                                    .finish = rig_finish,
                                                    .expect = rig_expect,
                                                    .forget = rig_forget,
                                                    .offer_open = rig_offer_open,
                                                    .offer_layer = rig_offer_layer,
                                                    .offer_fill = rig_offer_fill,
                                                    .offer_close = rig_offer_close,
                                                    .compile = rig_compile,
                                                    .random = rig_random},
                                        .max_calls = 4,
                                        .ranks = &rig_rank,
                                        .n_ranks = 1,
                                        .max_context = rig.model.max_context,
                                        .fingerprint = {7, 7},
                                        .request_ns = RIG_REQUEST_NS,
                                        .aggregated = aggregated};
    cr_assert_eq(ops->create(&args, &rig.role, &err), ST_OK);
    const struct engine_args ea = {.runner = fake_runner(&rig.model),
                                   .events = ops->engine_events(rig.role),
                                   .pool = rig.pool,
                                   .layout = rig.layout,
                                   .prefix_cache = true,
                                   .max_batch = 8,
                                   .chunk_tokens_max = 16,
                                   .step_budget_ns = 50 * NS_PER_MS,
                                   .max_groups = 16,
                                   .salt = 3,
                                   .grammar_vocab = rig.letters.vocab};
    cr_assert_eq(engine_create(&ea, &rig.engine, &err), ST_OK, "%s", err.text);
    ops->set_engine(rig.role, rig.engine);
}

static void rig_flush(void)
{
    rig.ops->flush(rig.role, rig.now_ns);
    engine_check(rig.engine);
}

static void rig_steps(int most)
{
    struct engine_step_info info;
    for (int i = 0; i < most && engine_runnable(rig.engine); i++) {
        engine_step(rig.engine, &info);
        engine_step_took(rig.engine, &info, NS_PER_MS);
        rig_flush();
    }
    rig_flush();
}

static struct rig_call *rig_dial(void)
{
    struct rig_call *k = &rig.calls[rig.n_calls++];
    cr_assert_leq(rig.n_calls, RIG_CALLS);
    k->handle = rig.ops->on_open(rig.role, k, rig.now_ns, NS_NEVER);
    return k;
}

static void rig_say(struct rig_call *k, struct buf *b)
{
    rig.ops->on_message(rig.role, k->handle, (const uint8_t *)b->data, b->len, rig.now_ns);
    buf_fini(b);
}

static void rig_close(struct rig_call *k)
{
    cr_assert_not(k->closed);
    k->closed = true;
    rig.ops->on_closed(rig.role, k->handle, rig.now_ns);
    engine_check(rig.engine);
}

static void rig_garbage(struct rig_call *k)
{
    static const uint8_t bytes[] = {0xff, 0xff, 0xff, 0x01, 0x02};
    rig.ops->on_message(rig.role, k->handle, bytes, sizeof(bytes), rig.now_ns);
}

static void rig_mover(enum mover_event_kind kind, const struct rig_handoff *h,
                      const struct msg_token *first, uint32_t n_first)
{
    const struct mover_event ev = {.kind = kind,
                                   .user = h->user,
                                   .status = kind == MOVER_FAILED ? ST_LINK : ST_OK,
                                   .first = first,
                                   .n_first = n_first};
    rig.ops->on_mover(rig.role, &ev, rig.now_ns);
    engine_check(rig.engine);
}

static int32_t rig_held(void) /* calls that the role still has */
{
    struct node_role_load load;
    rig.ops->load(rig.role, &load);
    return load.calls;
}

static struct msg_blocks rig_blocks(void)
{
    struct engine_load l;
    engine_load(rig.engine, &l);
    return l.blocks;
}

/* Nothing is left: no call, no group, no block but cache. */
static void rig_check_empty(void)
{
    struct engine_load l;
    engine_load(rig.engine, &l);
    cr_assert_eq(rig_held(), 0, "%d calls are left", rig_held());
    cr_assert_eq(l.groups, 0);
    cr_assert_eq(l.blocks.free + l.blocks.cached, l.blocks.total,
                 "free %lld cached %lld quarantined %lld of %lld", (long long)l.blocks.free,
                 (long long)l.blocks.cached, (long long)l.blocks.quarantined,
                 (long long)l.blocks.total);
    for (int i = 0; i < rig.n_handoffs; i++)
        cr_assert_eq(rig.handoffs[i].closed, 1, "handoff %d was left open", i);
}

static void rig_end(void)
{
    rig_check_empty();
    rig.ops->destroy(rig.role);
    engine_destroy(rig.engine);
    grammar_draft_free(rig.draft);
    letters_fini(&rig.letters);
    free(rig.pool);
}

static struct msg_ids rig_prompt(uint64_t seed, int32_t n)
{
    struct rng rng = rng_seed(seed);
    for (int32_t i = 0; i < n; i++)
        rig_prompt_ids[i] = 1 + (int32_t)rng_below(&rng, 63);
    return (struct msg_ids){rig_prompt_ids, (uint32_t)n};
}

static struct msg_sampling rig_sampling(int32_t max_tokens)
{
    struct msg_sampling s = sampling_default();
    s.seed = 11;
    s.max_tokens = max_tokens;
    s.ignore_eos = true;
    return s;
}

#endif
