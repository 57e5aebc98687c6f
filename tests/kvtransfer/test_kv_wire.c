/* Handoff frames: every kind there and back, every truncation, every damaged byte, every count out
 * of range. */
#include <criterion/criterion.h>
#include <math.h>

#include "base/rng.h"
#include "kvtransfer/wire.h"

static const struct msg_ticket ticket = {.w = {0x0123456789abcdef, 0xfedcba9876543210}};
static const struct kv_slice box = {1, 3, 30, 70, 2, 6};
static const int32_t blocks[] = {9, 0, 4, 77};

static struct wire_offer an_offer(void)
{
    struct wire_offer o = {.slice = box,
                           .dtype = DTYPE_BF16,
                           .head_dim = 64,
                           .value_dim = 64,
                           .crc = 0xdeadbeef,
                           .block_tokens = 16,
                           .n_blocks = 4,
                           .blocks = blocks};
    o.bytes = wire_slice_bytes(&o);
    return o;
}

static const struct msg_logprob top0[] = {{5, -0.5f}, {6, -1.5f}};
static const struct msg_token first[] = {
    {.choice = 0, .position = 70, .id = 5, .logprob = -0.5f, .n_top = 2, .top = top0},
    {.choice = 1, .position = 70, .id = 8, .logprob = -2.0f},
};

static void put_kind(struct buf *b, enum wire_kind kind)
{
    struct wire_offer o = an_offer();
    struct wire_filled f = {.kv_tokens = 70, .first = first, .n_first = 2};
    struct wire_missing m = {.ranges = {box, {0, 1, 0, 5, 0, 1}}, .n = 2};
    switch (kind) {
    case WIRE_OFFER:
        wire_put_offer(b, ticket, &o);
        break;
    case WIRE_FILLED:
        wire_put_filled(b, ticket, &f);
        break;
    case WIRE_LANDED:
        wire_put_landed(b, ticket);
        break;
    case WIRE_MISSING:
        wire_put_missing(b, ticket, &m);
        break;
    }
    cr_assert_not(b->failed);
}

static bool same_box(const struct kv_slice *a, const struct kv_slice *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

Test(kv_wire, offer)
{
    struct buf b = {0};
    struct wire_frame f;
    put_kind(&b, WIRE_OFFER);
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_OK);
    cr_assert_eq(f.kind, WIRE_OFFER);
    cr_assert_eq(f.ticket.w[0], ticket.w[0]);
    cr_assert_eq(f.ticket.w[1], ticket.w[1]);
    cr_assert(same_box(&f.offer.slice, &box));
    cr_assert_eq(f.offer.dtype, DTYPE_BF16);
    cr_assert_eq(f.offer.head_dim, 64);
    cr_assert_eq(f.offer.crc, 0xdeadbeef);
    cr_assert_eq(f.offer.bytes, 2u * 2 * 40 * 4 * 64 * 2);
    cr_assert_eq(f.offer.n_blocks, 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(f.offer.blocks[i], blocks[i]);
    wire_frame_fini(&f);
    buf_fini(&b);
}

Test(kv_wire, filled)
{
    struct buf b = {0};
    struct wire_frame f;
    put_kind(&b, WIRE_FILLED);
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_OK);
    cr_assert_eq(f.kind, WIRE_FILLED);
    cr_assert_eq(f.filled.kv_tokens, 70);
    cr_assert_eq(f.filled.n_first, 2);
    cr_assert_eq(f.filled.first[0].id, 5);
    cr_assert_eq(f.filled.first[0].n_top, 2);
    cr_assert_eq(f.filled.first[0].top[1].id, 6);
    cr_assert_float_eq(f.filled.first[0].top[1].logprob, -1.5, 0);
    cr_assert_eq(f.filled.first[1].choice, 1);
    cr_assert_eq(f.filled.first[1].n_top, 0);
    cr_assert_float_eq(f.filled.first[1].logprob, -2.0, 0);
    wire_frame_fini(&f);
    buf_fini(&b);
}

Test(kv_wire, answers)
{
    struct buf b = {0};
    struct wire_frame f;
    put_kind(&b, WIRE_LANDED);
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_OK);
    cr_assert_eq(f.kind, WIRE_LANDED);
    buf_clear(&b);
    put_kind(&b, WIRE_MISSING);
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_OK);
    cr_assert_eq(f.kind, WIRE_MISSING);
    cr_assert_eq(f.missing.n, 2);
    cr_assert(same_box(&f.missing.ranges[0], &box));
    wire_frame_fini(&f);
    buf_fini(&b);
}

/* A frame that is shorter or longer than it says is no frame. */
Test(kv_wire, lengths)
{
    for (int kind = WIRE_OFFER; kind <= WIRE_MISSING; kind++) {
        struct buf b = {0};
        struct wire_frame f;
        put_kind(&b, (enum wire_kind)kind);
        for (size_t n = 0; n < b.len; n++) {
            char *exact = malloc(n + 1); /* so that a sanitizer sees a read past the end */
            memcpy(exact, b.data, n);
            cr_assert_eq(wire_get(exact, n, &f), ST_PROTOCOL, "kind %d cut to %zu", kind, n);
            free(exact);
        }
        buf_append(&b, "x", 1);
        cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL, "kind %d and a byte", kind);
        /* also when its own count of bytes agrees */
        uint32_t more = (uint32_t)(b.len - WIRE_HEADER_BYTES);
        memcpy(b.data + 8, &more, 4);
        cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL, "kind %d that counts it", kind);
        for (int less = 1; less < 40; less++) {
            uint32_t body = (uint32_t)(b.len - WIRE_HEADER_BYTES) - (uint32_t)less;
            if (b.len < WIRE_HEADER_BYTES + (size_t)less || less == 1)
                continue;
            memcpy(b.data + 8, &body, 4);
            cr_assert_eq(wire_get(b.data, WIRE_HEADER_BYTES + body, &f), ST_PROTOCOL,
                         "kind %d without %d bytes", kind, less);
        }
        buf_fini(&b);
    }
}

Test(kv_wire, missing_nothing_is_no_answer)
{
    const struct wire_missing none = {.n = 0};
    struct buf b = {0};
    struct wire_frame f;
    wire_put_missing(&b, ticket, &none);
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL);
    buf_fini(&b);
}

Test(kv_wire, another_version)
{
    struct buf b = {0};
    struct wire_frame f;
    put_kind(&b, WIRE_LANDED);
    b.data[4]++;
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_INCOMPATIBLE);
    b.data[4]--;
    b.data[6] = 99;
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL, "an unknown kind");
    b.data[0] ^= 1;
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL, "another magic");
    buf_fini(&b);
}

/* Words of an offer's body, and what must not be accepted in them. */
Test(kv_wire, offer_out_of_range)
{
    static const struct {
        const char *what;
        int word;
        uint32_t value;
    } bad[] = {
        {"layers the wrong way round", 0, 3},
        {"negative layer", 0, 0xffffffff},
        {"no tokens", 3, 30},
        {"tokens past any context", 3, MSG_IDS_MAX + 1},
        {"heads the wrong way round", 5, 1},
        {"unknown dtype", 6, DTYPE_KV_COUNT},
        {"negative dtype", 6, 0x80000000},
        {"no head_dim", 7, 0},
        {"another head_dim than the bytes", 7, 65},
        {"another value_dim than the bytes", 8, 63},
        {"negative value_dim", 8, 0x80000000},
        {"bytes", 10, 1},
        {"upper bytes", 11, 1},
        {"no block_tokens", 12, 0},
        {"block_tokens that need another number of blocks", 12, 64},
        {"more blocks than bytes", 13, 5},
        {"fewer blocks than bytes", 13, 3},
        {"absurdly many blocks", 13, 0x40000004},
        {"negative block", 14, 0x80000000},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct buf b = {0};
        struct wire_frame f;
        put_kind(&b, WIRE_OFFER);
        memcpy(b.data + WIRE_HEADER_BYTES + 4 * bad[i].word, &bad[i].value, 4);
        cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL, "%s", bad[i].what);
        buf_fini(&b);
    }
}

/* A box whose size wraps to a small number must not pass for a small one. */
Test(kv_wire, sizes_that_wrap)
{
    struct wire_offer o = an_offer();
    struct buf b = {0};
    struct wire_frame f;
    o.slice = (struct kv_slice){0, 32768, 0, 16 << 20, 0, 32768};
    o.head_dim = o.value_dim = 65536;
    o.dtype = DTYPE_F32; /* 2^(1 + 15 + 24 + 15 + 16 + 2) bytes: 0 in 64 bits */
    o.bytes = wire_slice_bytes(&o);
    cr_assert_eq(o.bytes, 0);
    o.n_blocks = 0;
    wire_put_offer(&b, ticket, &o);
    cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL);
    buf_fini(&b);
}

Test(kv_wire, numbers_that_are_none)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct msg_token t = {.id = 1, .logprob = bad[i]};
        struct wire_filled m = {.kv_tokens = 1, .first = &t, .n_first = 1};
        struct buf b = {0};
        struct wire_frame f;
        wire_put_filled(&b, ticket, &m);
        cr_assert_eq(wire_get(b.data, b.len, &f), ST_PROTOCOL);
        buf_fini(&b);
    }
}

/* Damaged frames are refused or decode to something within bounds; nothing else happens. */
Test(kv_wire, damage, .timeout = 60)
{
    struct rng r = rng_seed(5);
    int accepted = 0;
    for (int i = 0; i < 60000; i++) {
        struct buf b = {0};
        struct wire_frame f;
        put_kind(&b, (enum wire_kind)(1 + i % 4));
        for (uint64_t k = rng_below(&r, 4); k-- > 0;)
            b.data[rng_below(&r, b.len)] = (char)rng_next(&r);
        size_t n = rng_below(&r, 8) ? b.len : (size_t)rng_below(&r, b.len + 1);
        if (wire_get(b.data, n, &f) == ST_OK) {
            accepted++;
            if (f.kind == WIRE_OFFER)
                cr_assert_leq(f.offer.n_blocks, WIRE_BLOCKS_MAX);
            if (f.kind == WIRE_MISSING)
                cr_assert(f.missing.n >= 1 && f.missing.n <= WIRE_RANGES_MAX);
            wire_frame_fini(&f);
        }
        buf_fini(&b);
    }
    cr_assert_gt(accepted, 1000);
}
