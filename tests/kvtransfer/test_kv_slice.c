/* Slices between pools of every shape: gathered canonically, scattered with conversion, and nothing
 * outside touched. */
#include <criterion/criterion.h>

#include "base/hash.h"
#include "base/rng.h"
#include "kvtransfer/kv_rig.h"

static int32_t pick(struct rng *r, int32_t lo, int32_t hi)
{
    return lo + (int32_t)rng_below(r, (uint64_t)(hi - lo + 1));
}

struct end {
    struct rig_pool pool;
    int32_t blocks[RIG_BLOCKS], n;
};

static void end_open(struct end *e, struct rng *r, int32_t tokens, const int32_t heads[2])
{
    static const int32_t sizes[] = {1, 4, 8, 16, 32, 48};
    struct kv_layout l = {.layers = 3,
                          .kv_heads = heads[1] - heads[0],
                          .head_dim = 8,
                          .value_dim = 8,
                          .block_tokens = sizes[rng_below(r, 6)],
                          .dtype = (enum dtype)rng_below(r, DTYPE_KV_COUNT)};
    e->n = (tokens + l.block_tokens - 1) / l.block_tokens;
    l.blocks = e->n + 3;
    rig_pool_open(&e->pool, &l, heads[0]);
    rig_blocks(e->blocks, e->n, l.blocks, rng_next(r));
}

/* What the scatter must leave alone: everything out of the box is still the filling. */
static int64_t out_of_box(const struct end *e, const struct kv_slice *box, int32_t tokens,
                          uint64_t salt)
{
    const struct kv_layout *l = &e->pool.view.layout;
    int64_t bad = 0;
    for (int32_t layer = 0; layer < l->layers; layer++)
        for (int32_t part = 0; part < 2; part++)
            for (int32_t h = 0; h < l->kv_heads; h++)
                for (int32_t t = 0; t < tokens; t++) {
                    int32_t head = h + e->pool.view.head_base;
                    bool in = layer >= box->layer_begin && layer < box->layer_end &&
                              head >= box->head_begin && head < box->head_end &&
                              t >= box->token_begin && t < box->token_end;
                    const char *at = (const char *)e->pool.view.base +
                                     kv_offset(l, layer, e->blocks[t / l->block_tokens],
                                               (enum kv_part)part, h, t % l->block_tokens);
                    const int32_t where[4] = {layer, part, head, t};
                    if (in)
                        bad += rig_differs(at, l, salt, where);
                    for (size_t k = 0; !in && k < kv_slot_bytes(l, (enum kv_part)part); k++)
                        bad += at[k] != 0x55;
                }
    return bad;
}

/* 400 pairs of pools of random block sizes, dtypes and head ranges; a random box of what the first
 * has; a random part of it into the second. */
Test(kv_slice, any_shape_to_any_shape, .timeout = 60)
{
    struct rng r = rng_seed(11);
    for (int round = 0; round < 400; round++) {
        int32_t tokens = pick(&r, 1, 60);
        struct end a, b;
        const int32_t ha[2] = {pick(&r, 0, 2), pick(&r, 3, 6)};
        const int32_t hb[2] = {pick(&r, 0, 2), pick(&r, 3, 6)};
        end_open(&a, &r, tokens, ha);
        end_open(&b, &r, tokens, hb);
        rig_fill(&a.pool.view, a.blocks, tokens, 99);
        struct kv_slice s = {0, 3, 0, tokens, ha[0], ha[1]}, take;
        s.layer_begin = pick(&r, 0, 2);
        s.layer_end = pick(&r, s.layer_begin + 1, 3);
        s.token_begin = pick(&r, 0, tokens - 1);
        s.token_end = pick(&r, s.token_begin + 1, tokens);
        const struct kv_slice theirs = {0, 3, pick(&r, 0, tokens - 1), tokens, hb[0], hb[1]};
        const struct kv_blocks_view va = {a.blocks, a.n, 0}, vb = {b.blocks, b.n, 0};
        const struct kv_layout *la = &a.pool.view.layout;
        const struct wire_offer offer = {
            .slice = s, .dtype = la->dtype, .head_dim = la->head_dim, .value_dim = la->value_dim};
        size_t bytes = wire_slice_bytes(&offer);
        void *wire = malloc(bytes);
        cr_assert(kv_slice_fits(&s, &a.pool.view, &va));
        uint32_t crc = kv_slice_gather(&s, &a.pool.view, &va, wire);
        cr_assert_eq(crc, hash_crc32c(0, wire, bytes), "round %d", round);
        cr_assert_eq(crc, kv_slice_gather(&s, &a.pool.view, &va, NULL), "round %d", round);
        if (kv_slice_intersect(&s, &theirs, &take)) {
            cr_assert(kv_slice_fits(&take, &b.pool.view, &vb));
            const struct kv_scatter_args args = {.from = &s,
                                                 .take = &take,
                                                 .from_dtype = la->dtype,
                                                 .bytes = wire,
                                                 .pool = &b.pool.view,
                                                 .blocks = &vb};
            kv_slice_scatter(&args);
            cr_assert_eq(out_of_box(&b, &take, tokens, 99), 0, "round %d", round);
        }
        free(wire);
        rig_pool_close(&a.pool);
        rig_pool_close(&b.pool);
    }
}

/* One vector of a pool, at its place. */
static const char *vector_of(const struct end *e, const int32_t at[3], enum kv_part part)
{
    const struct kv_layout *l = &e->pool.view.layout;
    return (const char *)e->pool.view.base + kv_offset(l, at[0], e->blocks[at[2] / l->block_tokens],
                                                       part, at[1], at[2] % l->block_tokens);
}

/* Between all pairs of dtypes and blocks of any size a vector arrives as kv_vectors_convert() says:
 * between equal ones as it was, also where it is no number or was never written. */
Test(kv_slice, every_vector_of_every_pair_of_dtypes)
{
    enum { TOKENS = 21, HEADS = 2, LAYERS = 2, DIM = 72, VALUE_DIM = 40 };
    struct rng r = rng_seed(12);
    for (int pair = 0; pair < DTYPE_KV_COUNT * DTYPE_KV_COUNT; pair++) {
        struct end e[2];
        for (int i = 0; i < 2; i++) {
            struct kv_layout l = {
                .layers = LAYERS,
                .kv_heads = HEADS,
                .head_dim = DIM,
                .value_dim = pair % 3 ? VALUE_DIM : 0,
                .block_tokens = pick(&r, 1, 25),
                .dtype = (enum dtype)(i ? pair / DTYPE_KV_COUNT : pair % DTYPE_KV_COUNT)};
            e[i].n = l.blocks = (TOKENS + l.block_tokens - 1) / l.block_tokens;
            rig_pool_open(&e[i].pool, &l, 0);
            rig_blocks(e[i].blocks, e[i].n, l.blocks, rng_next(&r));
        }
        uint8_t *from = e[0].pool.view.base;
        for (size_t i = 0; i < kv_pool_bytes(&e[0].pool.view.layout); i++)
            from[i] = (uint8_t)rng_next(&r);
        const struct kv_layout *lp = &e[0].pool.view.layout, *ld = &e[1].pool.view.layout;
        const struct kv_slice all = {0, LAYERS, 0, TOKENS, 0, HEADS};
        const struct kv_blocks_view p = {e[0].blocks, e[0].n, 0}, d = {e[1].blocks, e[1].n, 0};
        void *wire = malloc(TOKENS * LAYERS * kv_token_bytes(lp));
        kv_slice_gather(&all, &e[0].pool.view, &p, wire);
        kv_slice_scatter(
            &(struct kv_scatter_args){&all, &all, lp->dtype, wire, &e[1].pool.view, &d});
        for (int32_t i = 0; i < LAYERS * HEADS * TOKENS; i++)
            for (enum kv_part part = KV_KEY; part <= KV_VALUE && kv_part_dim(lp, part); part++) {
                const int32_t at[3] = {i % LAYERS, i / LAYERS % HEADS, i / LAYERS / HEADS};
                const size_t dim = (size_t)kv_part_dim(lp, part);
                char want[4 * DIM];
                kv_vectors_convert(&(struct kv_conversion){ld->dtype, lp->dtype, dim}, want,
                                   vector_of(&e[0], at, part), 1);
                cr_assert(memcmp(vector_of(&e[1], at, part),
                                 lp->dtype == ld->dtype ? vector_of(&e[0], at, part) : want,
                                 kv_slot_bytes(ld, part)) == 0,
                          "%s to %s", dtype_name(lp->dtype), dtype_name(ld->dtype));
            }
        free(wire);
        rig_pool_close(&e[0].pool);
        rig_pool_close(&e[1].pool);
    }
}

Test(kv_slice, what_does_not_fit)
{
    struct kv_layout l = {2, 4, 8, 8, 16, 10, DTYPE_F16};
    const struct kv_pool_view pool = {.base = NULL, .layout = l, .head_base = 4};
    const int32_t good[] = {3, 0, 9}, bad[] = {3, 10, 9}, negative[] = {3, -1, 9};
    const struct kv_blocks_view view = {good, 3, 16}; /* tokens 16 .. 64 */
    const struct kv_slice ok = {0, 2, 16, 64, 4, 8};
    static const struct {
        const char *what;
        struct kv_slice s;
    } cases[] = {{"layer -1", {-1, 2, 16, 64, 4, 8}},       {"layer 3", {0, 3, 16, 64, 4, 8}},
                 {"no layer", {1, 1, 16, 64, 4, 8}},        {"head before", {0, 2, 16, 64, 3, 8}},
                 {"head after", {0, 2, 16, 64, 4, 9}},      {"no head", {0, 2, 16, 64, 5, 5}},
                 {"token before", {0, 2, 15, 64, 4, 8}},    {"token after", {0, 2, 16, 65, 4, 8}},
                 {"no token", {0, 2, 20, 20, 4, 8}},        {"tokens turned", {0, 2, 30, 20, 4, 8}},
                 {"far after", {0, 2, 16, INT32_MAX, 4, 8}}};
    cr_assert(kv_slice_fits(&ok, &pool, &view));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_assert_not(kv_slice_fits(&cases[i].s, &pool, &view), "%s", cases[i].what);
    cr_assert_not(kv_slice_fits(&ok, &pool, &(struct kv_blocks_view){bad, 3, 16}));
    cr_assert_not(kv_slice_fits(&ok, &pool, &(struct kv_blocks_view){negative, 3, 16}));
    const struct kv_slice early = {0, 2, 16, 32, 4, 8}; /* only the first block is looked at */
    cr_assert(kv_slice_fits(&early, &pool, &(struct kv_blocks_view){bad, 3, 16}));
}

Test(kv_slice, intersect)
{
    const struct kv_slice a = {0, 4, 10, 20, 0, 8};
    const struct kv_slice b = {2, 6, 15, 30, 4, 6}, apart = {0, 4, 20, 30, 0, 8};
    const struct kv_slice both = {2, 4, 15, 20, 4, 6};
    struct kv_slice out;
    cr_assert(kv_slice_intersect(&a, &b, &out));
    cr_assert_eq(memcmp(&out, &both, sizeof(out)), 0);
    cr_assert_not(kv_slice_intersect(&a, &apart, &out));
}
