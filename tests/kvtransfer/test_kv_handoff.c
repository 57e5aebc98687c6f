/* The two state machines of a handoff: each (state, event), and random runs over a network that
 * loses, doubles, reorders and damages, which must all end complete. */
#include <criterion/criterion.h>

#include <string.h>

#include "base/rng.h"
#include "kvtransfer/handoff.h"

#define LAYERS 3
#define TOKEN_BYTES 100
#define SLICE_BYTES 1000 /* ten tokens of a layer */

/* ---- offering ---- */

struct offer_rig {
    struct offering o;
    int32_t memory[2 * LAYERS];
};

static void offer_init(struct offer_rig *r, int32_t have, int32_t end)
{
    const struct offering_args a = {.layers = LAYERS,
                                    .head_begin = 2,
                                    .head_end = 4,
                                    .have = have,
                                    .end = end,
                                    .token_bytes = TOKEN_BYTES,
                                    .slice_bytes_max = SLICE_BYTES,
                                    .window = 4};
    cr_assert_leq(offering_bytes(LAYERS), sizeof(r->memory));
    offering_init(&r->o, &a, r->memory);
}

/* Posts and quiets all there is; how many slices that were. */
static int drain(struct offering *o, int64_t now)
{
    struct kv_slice s;
    int n = 0;
    while (offering_next(o, now, &s) == OFFERING_SLICE) {
        offering_quiet(o);
        n++;
    }
    return n;
}

static void offer_reach(struct offer_rig *r, enum offering_state state)
{
    offer_init(r, 5, 40);
    if (state == OFFERING_STREAMING)
        return;
    offering_fill(&r->o);
    drain(&r->o, 1000);
    if (state == OFFERING_DONE)
        offering_landed(&r->o);
    if (state == OFFERING_FAILED) {
        offering_link_lost(&r->o);
        offering_link_lost(&r->o);
    }
    cr_assert_eq(r->o.state, state);
}

enum offer_event {
    EV_READY,
    EV_FILL_AND_DRAIN,
    EV_RETURN,
    EV_LANDED,
    EV_MISSING,
    EV_MISSING_OTHERS,
    EV_LINK_LOST,
    EV_LINK_LOST_TWICE,
    EV_ASK_EARLY,
    N_OFFER_EVENTS
};

static void offer_happen(struct offer_rig *r, enum offer_event e)
{
    const struct wire_missing mine = {.ranges = {{0, 1, 10, 20, 2, 3}}, .n = 1};
    const struct wire_missing others = {.ranges = {{0, 1, 10, 20, 0, 2}}, .n = 1};
    const struct kv_slice back = {0, 1, 10, 12, 2, 4};
    struct kv_slice s;
    switch (e) {
    case EV_READY:
        offering_ready(&r->o, 1, 20);
        break;
    case EV_FILL_AND_DRAIN:
        offering_fill(&r->o);
        drain(&r->o, 5000);
        break;
    case EV_RETURN:
        offering_return(&r->o, &back);
        break;
    case EV_LANDED:
        offering_landed(&r->o);
        break;
    case EV_MISSING:
        cr_assert(offering_missing(&r->o, &mine));
        break;
    case EV_MISSING_OTHERS:
        cr_assert(offering_missing(&r->o, &others));
        break;
    case EV_LINK_LOST:
        offering_link_lost(&r->o);
        break;
    case EV_LINK_LOST_TWICE:
        offering_link_lost(&r->o);
        offering_link_lost(&r->o);
        break;
    default: /* within the time that an answer may take */
        cr_assert_eq(offering_next(&r->o, 1001, &s), OFFERING_IDLE);
        break;
    }
}

Test(kv_handoff, offering_table)
{
    enum { S = OFFERING_STREAMING, W = OFFERING_WAITING, D = OFFERING_DONE, F = OFFERING_FAILED };
    static const int after[4][N_OFFER_EVENTS] = {
        /* ready drain return landed missing others lost lost2 early */
        [S] = {S, W, S, S, S, S, S, F, S},
        [W] = {W, W, W, D, S, W, S, F, W},
        [D] = {D, D, D, D, D, D, D, D, D},
        [F] = {F, F, F, F, F, F, F, F, F},
    };
    for (int state = S; state <= F; state++)
        for (int e = 0; e < N_OFFER_EVENTS; e++) {
            struct offer_rig r;
            offer_reach(&r, (enum offering_state)state);
            offer_happen(&r, (enum offer_event)e);
            cr_assert_eq((int)r.o.state, after[state][e], "state %d event %d gives %d", state, e,
                         (int)r.o.state);
            cr_assert_eq(r.o.in_flight, 0);
            struct kv_slice s;
            if (r.o.state == OFFERING_DONE || r.o.state == OFFERING_FAILED)
                cr_assert_eq(offering_next(&r.o, INT64_MAX / 2, &s), OFFERING_IDLE);
        }
}

Test(kv_handoff, nonsense_is_noticed)
{
    static const struct kv_slice bad[] = {
        {LAYERS, LAYERS + 1, 10, 20, 2, 3}, {0, 1, 40, 50, 2, 3}, {0, 1, 0, 5, 2, 3}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct offer_rig r;
        const struct wire_missing m = {.ranges = {bad[i]}, .n = 1};
        offer_reach(&r, OFFERING_WAITING);
        cr_assert_not(offering_missing(&r.o, &m), "range %zu", i);
    }
}

Test(kv_handoff, landed_before_filled_is_no_answer)
{
    struct offer_rig r;
    offer_init(&r, 0, 10);
    offering_landed(&r.o);
    cr_assert_eq(r.o.state, OFFERING_STREAMING);
}

Test(kv_handoff, filled_is_said_again)
{
    struct offer_rig r;
    struct kv_slice s;
    offer_reach(&r, OFFERING_WAITING); /* said at 1000 */
    cr_assert_eq(offering_wake_ns(&r.o), 1000 + HANDOFF_ANSWER_NS);
    cr_assert_eq(offering_next(&r.o, 999 + HANDOFF_ANSWER_NS, &s), OFFERING_IDLE);
    cr_assert_eq(offering_next(&r.o, 1000 + HANDOFF_ANSWER_NS, &s), OFFERING_SAY_FILLED);
    cr_assert_eq(offering_next(&r.o, 1001 + HANDOFF_ANSWER_NS, &s), OFFERING_IDLE);
}

/* What could not be posted is tried again without anything else happening: also when so much was
 * returned that all of it is listed anew. */
Test(kv_handoff, what_found_no_room_is_not_forgotten)
{
    for (int returns = 1; returns <= WIRE_RANGES_MAX + 1; returns++) {
        struct offer_rig r;
        struct kv_slice s;
        offer_init(&r, 0, 40);
        cr_assert_eq(offering_wake_ns(&r.o), NS_NEVER); /* nothing is computed */
        offering_fill(&r.o);
        cr_assert_eq(offering_wake_ns(&r.o), 0);
        drain(&r.o, 1000);
        cr_assert_eq(offering_wake_ns(&r.o), 1000 + HANDOFF_ANSWER_NS);
        for (int i = 0; i < returns; i++)
            offering_return(&r.o, &(struct kv_slice){0, 1, 10, 20, 2, 4});
        cr_assert_eq(offering_wake_ns(&r.o), 0, "after %d", returns);
        cr_assert_eq(offering_next(&r.o, 1001, &s), OFFERING_SLICE);
    }
}

Test(kv_handoff, rounds_end)
{
    struct offer_rig r;
    const struct wire_missing m = {.ranges = {{0, 1, 10, 20, 2, 3}}, .n = 1};
    struct kv_slice s;
    int rounds = 0;
    int64_t now = 0;
    offer_reach(&r, OFFERING_WAITING);
    while (r.o.state != OFFERING_FAILED && rounds < 1000) {
        cr_assert(offering_missing(&r.o, &m));
        rounds++;
        drain(&r.o, now += 2 * HANDOFF_ANSWER_NS);
        offering_next(&r.o, now, &s);
    }
    cr_assert_eq(rounds, HANDOFF_ROUNDS_MAX + 1);
}

Test(kv_handoff, window)
{
    struct offer_rig r;
    struct kv_slice s;
    offer_init(&r, 0, 400);
    offering_fill(&r.o);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(offering_next(&r.o, 0, &s), OFFERING_SLICE);
    cr_assert_eq(offering_next(&r.o, 0, &s), OFFERING_IDLE);
    offering_quiet(&r.o);
    cr_assert_eq(offering_next(&r.o, 0, &s), OFFERING_SLICE);
}

/* Answers of every size and number of ranges: what is offered again is exactly what was asked for,
 * and no slice is larger than a staging buffer, however full the list is. */
Test(kv_handoff, repairs_fit_and_cover, .timeout = 60)
{
    struct rng g = rng_seed(3);
    enum { END = 97 };
    for (int round = 0; round < 3000; round++) {
        struct offer_rig r;
        struct wire_missing m = {.n = 0};
        bool asked[LAYERS][END] = {{false}}, offered[LAYERS][END] = {{false}};
        uint32_t n = round % 3 == 0 ? WIRE_RANGES_MAX : 1 + (uint32_t)rng_below(&g, 8);
        offer_init(&r, 0, END);
        offering_fill(&r.o);
        drain(&r.o, 1000);
        for (uint32_t i = 0; i < n; i++) {
            struct kv_slice *s = &m.ranges[m.n++];
            s->layer_begin = (int32_t)rng_below(&g, LAYERS);
            s->layer_end = s->layer_begin + 1 + (int32_t)rng_below(&g, LAYERS);
            s->token_begin = (int32_t)rng_below(&g, END);
            s->token_end = s->token_begin + 1 + (int32_t)rng_below(&g, END);
            s->head_begin = 0;
            s->head_end = 8;
            for (int32_t l = s->layer_begin; l < s->layer_end && l < LAYERS; l++)
                for (int32_t t = s->token_begin; t < s->token_end && t < END; t++)
                    asked[l][t] = true;
        }
        cr_assert(offering_missing(&r.o, &m));
        struct kv_slice s;
        int slices = 0;
        while (offering_next(&r.o, 1000, &s) == OFFERING_SLICE) {
            cr_assert_lt(slices++, 100000);
            cr_assert_leq((s.layer_end - s.layer_begin) * (s.token_end - s.token_begin) *
                              TOKEN_BYTES,
                          SLICE_BYTES, "round %d", round);
            cr_assert(s.head_begin == 2 && s.head_end == 4);
            for (int32_t l = s.layer_begin; l < s.layer_end; l++)
                for (int32_t t = s.token_begin; t < s.token_end; t++)
                    offered[l][t] = true;
            if (rng_below(&g, 8) == 0) /* found no room */
                offering_return(&r.o, &s);
            offering_quiet(&r.o);
        }
        for (int l = 0; l < LAYERS; l++)
            for (int t = 0; t < END; t++)
                cr_assert(offered[l][t] || !asked[l][t], "round %d layer %d token %d", round, l, t);
    }
}

/* ---- landing ---- */

static const struct kv_slice need = {0, LAYERS, 10, 150, 4, 6};

struct land_rig {
    struct landing l;
    uint64_t memory[2 * LAYERS * 2 * 3];
};

static void land_init(struct land_rig *r)
{
    cr_assert_leq(landing_bytes(&need), sizeof(r->memory));
    landing_init(&r->l, &need, NULL, r->memory);
}

static void land_box(struct landing *l, const struct kv_slice *s, bool good)
{
    struct kv_slice take;
    cr_assert_eq(landing_offer(l, s, &take), LANDING_TAKE);
    landing_settle(l, &take, good);
}

static void land_reach(struct land_rig *r, enum landing_state state)
{
    const struct kv_slice half = {0, LAYERS, 10, 80, 4, 6};
    land_init(r);
    land_box(&r->l, state == LANDING_COMPLETE ? &need : &half, true);
    if (state != LANDING_OPEN)
        cr_assert(landing_filled(&r->l, need.token_end));
    cr_assert_eq(r->l.state, state);
}

Test(kv_handoff, landing_table)
{
    enum { O = LANDING_OPEN, F = LANDING_FILLED, C = LANDING_COMPLETE };
    static const struct kv_slice rest = {0, LAYERS, 80, 150, 4, 6}, all = {0, 3, 0, 200, 0, 9},
                                 old = {0, 1, 20, 40, 4, 5}, wrong = {0, LAYERS + 1, 80, 90, 4, 6},
                                 elsewhere = {0, 1, 20, 40, 0, 4};
    static const struct {
        const char *what;
        const struct kv_slice *s;
        int verdict[3];
        bool good;
        int after[3];
    } t[] = {
        {"the rest", &rest, {LANDING_TAKE, LANDING_TAKE, LANDING_HAVE}, true, {O, C, C}},
        {"the rest, damaged", &rest, {LANDING_TAKE, LANDING_TAKE, LANDING_HAVE}, false, {O, F, C}},
        {"everything", &all, {LANDING_TAKE, LANDING_TAKE, LANDING_HAVE}, true, {O, C, C}},
        {"what is there", &old, {LANDING_HAVE, LANDING_HAVE, LANDING_HAVE}, true, {O, F, C}},
        {"another rank's heads",
         &elsewhere,
         {LANDING_HAVE, LANDING_HAVE, LANDING_HAVE},
         true,
         {O, F, C}},
        {"another model's layers",
         &wrong,
         {LANDING_WRONG, LANDING_WRONG, LANDING_WRONG},
         true,
         {O, F, C}},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
        for (int state = O; state <= C; state++) {
            struct land_rig r;
            struct kv_slice take;
            land_reach(&r, (enum landing_state)state);
            int verdict = (int)landing_offer(&r.l, t[i].s, &take);
            cr_assert_eq(verdict, t[i].verdict[state], "%s in %d: %d", t[i].what, state, verdict);
            if (verdict == LANDING_TAKE)
                landing_settle(&r.l, &take, t[i].good);
            cr_assert_eq((int)r.l.state, t[i].after[state], "%s in %d", t[i].what, state);
            cr_assert_eq(r.l.in_flight, 0);
        }
    for (int state = O; state <= C; state++) {
        struct land_rig r;
        land_reach(&r, (enum landing_state)state);
        cr_assert_not(landing_filled(&r.l, need.token_end - 1), "short of what is needed");
        cr_assert_eq((int)r.l.state, state);
    }
}

Test(kv_handoff, one_answer_for_each_question)
{
    struct land_rig r;
    struct wire_missing m;
    land_init(&r);
    cr_assert_eq(landing_reply(&r.l, &m), LANDING_QUIET);
    cr_assert(landing_filled(&r.l, 150));
    cr_assert(landing_filled(&r.l, 150));
    cr_assert_eq(landing_reply(&r.l, &m), LANDING_SAY_MISSING);
    cr_assert_eq(m.n, 1);
    cr_assert_eq(memcmp(&m.ranges[0], &need, sizeof(need)), 0);
    cr_assert_eq(landing_reply(&r.l, &m), LANDING_QUIET);
    struct kv_slice take;
    cr_assert_eq(landing_offer(&r.l, &need, &take), LANDING_TAKE);
    cr_assert(landing_filled(&r.l, 150));
    cr_assert_eq(landing_reply(&r.l, &m), LANDING_QUIET, "while something is in flight");
    landing_settle(&r.l, &take, true);
    cr_assert_eq(landing_reply(&r.l, &m), LANDING_SAY_LANDED);
    cr_assert_eq(landing_reply(&r.l, &m), LANDING_QUIET);
}

/* A pull that hangs does not hold up a sequence that others have completed. */
Test(kv_handoff, late_duplicate)
{
    struct land_rig r;
    struct wire_missing m;
    const struct kv_slice some = {0, 1, 10, 20, 4, 6};
    struct kv_slice slow, take;
    land_init(&r);
    cr_assert_eq(landing_offer(&r.l, &some, &slow), LANDING_TAKE);
    land_box(&r.l, &need, true);
    cr_assert(landing_filled(&r.l, 150));
    cr_assert_eq(r.l.state, LANDING_COMPLETE);
    cr_assert_eq(landing_reply(&r.l, &m), LANDING_SAY_LANDED);
    cr_assert_eq(landing_offer(&r.l, &some, &take), LANDING_HAVE);
    landing_settle(&r.l, &slow, true);
    cr_assert_eq(r.l.missing, 0);
    cr_assert_eq(r.l.state, LANDING_COMPLETE);
}

/* What is listed as missing covers all that is missing, whatever holes there are. */
Test(kv_handoff, missing_covers, .timeout = 60)
{
    struct rng g = rng_seed(8);
    for (int round = 0; round < 500; round++) {
        struct land_rig r;
        struct wire_missing m;
        bool there[LAYERS][2][150] = {{{false}}};
        land_init(&r);
        for (int n = (int)rng_below(&g, 200); n > 0; n--) {
            struct kv_slice s, take;
            s.layer_begin = (int32_t)rng_below(&g, LAYERS);
            s.layer_end = s.layer_begin + 1;
            s.token_begin = (int32_t)rng_below(&g, 150);
            s.token_end = s.token_begin + 1 + (int32_t)rng_below(&g, 4);
            s.head_begin = 3 + (int32_t)rng_below(&g, 3);
            s.head_end = s.head_begin + 1 + (int32_t)rng_below(&g, 2);
            if (landing_offer(&r.l, &s, &take) != LANDING_TAKE)
                continue;
            landing_settle(&r.l, &take, true);
            for (int32_t h = take.head_begin; h < take.head_end; h++)
                for (int32_t t = take.token_begin; t < take.token_end; t++)
                    there[s.layer_begin][h - 4][t] = true;
        }
        landing_filled(&r.l, 150);
        if (landing_reply(&r.l, &m) == LANDING_SAY_LANDED)
            continue;
        cr_assert(m.n >= 1 && m.n <= WIRE_RANGES_MAX);
        for (uint32_t i = 0; i < m.n; i++)
            for (int32_t l = m.ranges[i].layer_begin; l < m.ranges[i].layer_end; l++)
                for (int32_t h = m.ranges[i].head_begin; h < m.ranges[i].head_end; h++)
                    for (int32_t t = m.ranges[i].token_begin; t < m.ranges[i].token_end; t++)
                        there[l][h - 4][t] = true;
        for (int l = 0; l < LAYERS; l++)
            for (int h = 0; h < 2; h++)
                for (int t = 10; t < 150; t++)
                    cr_assert(there[l][h][t], "round %d: %d/%d/%d is nowhere", round, l, h, t);
    }
}

/* ---- both, over a bad network ---- */

struct post {
    struct kv_slice s;
    bool used;
};

/* One run: random readiness, loss, damage, doubles, order, and at most one lost link. */
static void run(uint64_t seed, int *missing_rounds)
{
    struct rng g = rng_seed(seed);
    struct land_rig d;
    struct offer_rig p;
    struct post wire[64] = {{.used = false}};
    int64_t now = 0;
    bool lost = false;
    land_init(&d);
    offer_init(&p, 10, 150);
    p.o.head_begin = 4;
    p.o.head_end = 6;
    for (int step = 0; step < 20000 && p.o.state != OFFERING_DONE; step++) {
        struct kv_slice s, take;
        struct wire_missing m;
        now += 10 * NS_PER_MS;
        if (rng_below(&g, 4) == 0)
            offering_ready(&p.o, (int32_t)rng_below(&g, LAYERS), (int32_t)rng_below(&g, 151));
        if (step > 200)
            offering_fill(&p.o);
        enum offering_act act = offering_next(&p.o, now, &s);
        if (act == OFFERING_SLICE) {
            for (int32_t l = s.layer_begin; l < s.layer_end; l++)
                cr_assert_leq(s.token_end, p.o.ready[l], "seed %llu: offered before it is computed",
                              (unsigned long long)seed);
            for (int copy = 0; copy < 2; copy++) {
                uint64_t dice = rng_below(&g, 10);
                struct post *slot = &wire[rng_below(&g, 64)];
                if ((copy == 0 && dice == 0) || (copy == 1 && dice > 0))
                    continue; /* lost; not doubled */
                *slot = (struct post){s, true};
            }
            offering_quiet(&p.o);
        } else if (act == OFFERING_SAY_FILLED && rng_below(&g, 3) > 0) {
            cr_assert(landing_filled(&d.l, 150));
        }
        struct post *w = &wire[rng_below(&g, 64)];
        if (w->used && landing_offer(&d.l, &w->s, &take) == LANDING_TAKE)
            landing_settle(&d.l, &take, rng_below(&g, 8) > 0);
        w->used = false;
        switch (landing_reply(&d.l, &m)) {
        case LANDING_SAY_LANDED:
            cr_assert_eq(d.l.missing, 0);
            if (rng_below(&g, 3) > 0)
                offering_landed(&p.o);
            break;
        case LANDING_SAY_MISSING:
            ++*missing_rounds;
            if (rng_below(&g, 3) > 0)
                cr_assert(offering_missing(&p.o, &m));
            break;
        default:
            break;
        }
        if (!lost && rng_below(&g, 400) == 0) {
            offering_link_lost(&p.o);
            lost = true;
        }
    }
    cr_assert_eq(p.o.state, OFFERING_DONE, "seed %llu: state %d", (unsigned long long)seed,
                 (int)p.o.state);
    cr_assert_eq(d.l.state, LANDING_COMPLETE);
    cr_assert_eq(d.l.missing, 0);
    cr_assert_eq(d.l.in_flight, 0);
}

Test(kv_handoff, bad_networks_end_complete, .timeout = 120)
{
    int missing_rounds = 0;
    for (uint64_t seed = 1; seed <= 400; seed++)
        run(seed, &missing_rounds);
    cr_assert_gt(missing_rounds, 100, "the network was not bad enough: %d", missing_rounds);
}

/* ---- layers that slide ---- */

/* Layer 0 sees everything, the others 20 positions; 5 more are brought. */
static struct kv_groups sliding(void)
{
    int32_t window[LAYERS];
    struct kv_groups g;
    for (int i = 0; i < LAYERS; i++)
        window[i] = i == 0 ? 0 : 20;
    kv_groups_make(window, LAYERS, &g);
    g.slack = 5;
    return g;
}

Test(kv_handoff, of_a_sliding_layer_the_window_lands)
{
    const struct kv_groups g = sliding();
    const struct kv_slice early = {1, LAYERS, 10, 125, 4, 6}, all = {0, LAYERS, 10, 150, 4, 6};
    struct land_rig r;
    struct kv_slice take;
    struct wire_missing missing;
    landing_init(&r.l, &need, &g, r.memory);
    cr_assert_eq(r.l.missing, 2 * (140 + (LAYERS - 1) * 25));
    cr_assert_eq(landing_offer(&r.l, &early, &take), LANDING_HAVE);
    cr_assert_eq(landing_offer(&r.l, &all, &take), LANDING_TAKE);
    cr_assert_eq(take.token_begin, 125, "what has no block to go to is not taken");
    landing_settle(&r.l, &take, true);
    cr_assert(landing_filled(&r.l, 150));
    cr_assert_eq(landing_reply(&r.l, &missing), LANDING_SAY_MISSING);
    cr_assert_eq(missing.n, 1);
    const struct kv_slice rest = {0, 1, 10, 125, 4, 6};
    cr_assert_eq(memcmp(&missing.ranges[0], &rest, sizeof rest), 0);
    land_box(&r.l, &rest, true);
    cr_assert_eq(r.l.state, LANDING_COMPLETE);
}

Test(kv_handoff, of_a_sliding_layer_the_window_is_offered)
{
    const struct kv_groups g = sliding();
    const struct offering_args a = {.layers = LAYERS,
                                    .head_begin = 2,
                                    .head_end = 4,
                                    .have = 5,
                                    .end = 150,
                                    .token_bytes = TOKEN_BYTES,
                                    .slice_bytes_max = SLICE_BYTES,
                                    .window = 4,
                                    .groups = &g};
    struct offer_rig r;
    struct wire_missing m = {.n = 1, .ranges = {{0, LAYERS, 100, 150, 2, 4}}};
    offering_init(&r.o, &a, r.memory);
    for (int round = 0; round < 3; round++) {
        int64_t tokens[LAYERS] = {0};
        struct kv_slice s;
        for (int layer = 0; layer < LAYERS && round == 0; layer++)
            offering_ready(&r.o, layer, 70); /* of sliding layers nothing of that is wanted */
        if (round == 0)
            drain(&r.o, 1000);
        offering_fill(&r.o);
        while (offering_next(&r.o, 1000, &s) == OFFERING_SLICE) {
            offering_quiet(&r.o);
            for (int layer = s.layer_begin; layer < s.layer_end; layer++) {
                cr_assert_eq(g.group_of[layer], g.group_of[s.layer_begin]);
                cr_assert(layer == 0 || s.token_begin >= 125);
                tokens[layer] += s.token_end - s.token_begin;
            }
        }
        cr_assert_eq(tokens[0], round == 0 ? 150 - 70 : round == 1 ? 50 : 145, "round %d", round);
        for (int layer = 1; layer < LAYERS; layer++)
            cr_assert_eq(tokens[layer], 25, "round %d", round);
        if (round == 0)
            cr_assert(offering_missing(&r.o, &m));
        else
            offering_link_lost(&r.o);
    }
}
