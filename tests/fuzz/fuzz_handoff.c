/* link: baton_kvtransfer */
/* Any frame at a mover that expects a ticket: what decodes is encoded and decoded again, and then
 * lands, is dropped or refused, all within the mover's own memory. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kvtransfer/mover.h"
#include "kvtransfer/transport_loopback.h"

#define POOL_BLOCKS 6

static const struct kv_layout layout = {2, 2, 4, 4, 8, POOL_BLOCKS, DTYPE_F32};
static const struct msg_ticket ticket = {.w = {0x1111111111111111, 0x2222222222222222}};

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* What the decoder let through must survive its own encoder. */
static void again(const struct wire_frame *f)
{
    struct buf b = {0};
    struct wire_frame g;
    switch (f->kind) {
    case WIRE_OFFER:
        wire_put_offer(&b, f->ticket, &f->offer);
        break;
    case WIRE_FILLED:
        wire_put_filled(&b, f->ticket, &f->filled);
        break;
    case WIRE_LANDED:
        wire_put_landed(&b, f->ticket);
        break;
    case WIRE_MISSING:
        wire_put_missing(&b, f->ticket, &f->missing);
        break;
    }
    must(wire_get(b.data, b.len, &g) == ST_OK && g.kind == f->kind);
    wire_frame_fini(&g);
    buf_fini(&b);
}

static struct mover *mover_on(struct transport *t, const struct kv_pool_view *pool)
{
    struct mover *m;
    const struct mover_args a = {.transports = {t},
                                 .n_transports = 1,
                                 .pool = *pool,
                                 .staging_buffers = 2,
                                 .max_plans = 2,
                                 .max_offerings = 2,
                                 .window = 2};
    must(mover_create(&a, &m, NULL) == ST_OK);
    return m;
}

static void turn(struct mover *d, struct mover *p)
{
    struct mover_event ev;
    for (int i = 0; i < 4; i++) {
        mover_work(d, NS_PER_S);
        mover_work(p, NS_PER_S);
        while (mover_next(d, &ev) || mover_next(p, &ev))
            ;
    }
}

/* Every frame of the input, one after the other, from a peer to a receiver, and to a sender as if
 * it answered. */
static void deliver(const uint8_t *data, size_t len, bool maps)
{
    static const int32_t blocks[] = {4, 1, 3};
    struct fabric *f = fabric_create(NULL, NULL);
    struct transport *td, *tp, *tx;
    struct transport_link *link;
    char *memory[3];
    struct kv_pool_view view[3];
    for (int i = 0; i < 3; i++) {
        memory[i] = calloc(1, kv_pool_bytes(&layout));
        view[i] = (struct kv_pool_view){memory[i], layout, 0};
    }
    must(fabric_add(f, "d", maps, &view[0], &td) == ST_OK);
    must(fabric_add(f, "p", maps, &view[1], &tp) == ST_OK);
    must(fabric_add(f, "x", maps, &view[2], &tx) == ST_OK);
    struct mover *d = mover_on(td, &view[0]), *p = mover_on(tp, &view[1]);
    const struct mover_plan plan = {1, ticket, 3, 20, blocks, 3};
    must(mover_expect(d, &plan) == ST_OK);
    must(tx->ops->connect(tx, "d", 1, &link, NULL) == ST_OK);
    const struct msg_rank_address to = {.host = "loopback", .shm = "x", .head_end = 2};
    const struct mover_send send = {1, ticket, 3, 20, blocks, 3, &to, 1, 100 * NS_PER_S};
    must(mover_open(p, &send, NS_PER_S) == ST_OK);
    mover_fill(p, 1, NULL, 0, NS_PER_S);
    turn(d, p);
    struct transport_link *back = NULL;
    struct transport_event ev;
    while (tx->ops->poll(tx, &ev)) {
        if (ev.incoming)
            tx->ops->drop(tx, ev.incoming);
        if (ev.kind == TRANSPORT_FRAME)
            back = ev.link;
    }
    static const uint8_t payload[4096];
    for (size_t at = 0; at + 2 < len;) {
        size_t n = (size_t)data[at] | (size_t)(data[at + 1] & 3) << 8;
        size_t carries = (size_t)(data[at + 1] >> 2) * 64;
        at += 2;
        if (n > len - at)
            n = len - at;
        if (n > 0) {
            link->transport->ops->send(link, data + at, n, payload, maps ? 0 : carries, 0);
            if (back)
                back->transport->ops->send(back, data + at, n, payload, maps ? 0 : carries, 0);
        }
        at += n;
        turn(d, p);
    }
    mover_destroy(d);
    mover_destroy(p);
    tx->ops->destroy(tx);
    td->ops->destroy(td);
    tp->ops->destroy(tp);
    fabric_destroy(f);
    for (int i = 0; i < 3; i++)
        free(memory[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct wire_frame f;
    static bool quiet;
    if (!quiet)
        log_init("fuzz", LOG_ERROR, LOG_TEXT);
    quiet = true;
    if (len > 2 && wire_get(data + 2, len - 2, &f) == ST_OK) {
        again(&f);
        wire_frame_fini(&f);
    }
    deliver(data, len, false);
    deliver(data, len, true);
    return 0;
}
