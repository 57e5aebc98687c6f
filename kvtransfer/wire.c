#include "kvtransfer/wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put32(struct buf *b, uint32_t v)
{
    uint8_t x[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    buf_append(b, x, 4);
}

static void put64(struct buf *b, uint64_t v)
{
    put32(b, (uint32_t)v);
    put32(b, (uint32_t)(v >> 32));
}

static void put_float(struct buf *b, float v)
{
    uint32_t u;
    memcpy(&u, &v, 4);
    put32(b, u);
}

static void put_header(struct buf *b, enum wire_kind kind, struct msg_ticket t, uint32_t body)
{
    put32(b, WIRE_MAGIC);
    put32(b, (uint32_t)WIRE_VERSION | (uint32_t)kind << 16);
    put32(b, body);
    put32(b, 0);
    put64(b, t.w[0]);
    put64(b, t.w[1]);
}

static void put_slice(struct buf *b, const struct kv_slice *s)
{
    put32(b, (uint32_t)s->layer_begin);
    put32(b, (uint32_t)s->layer_end);
    put32(b, (uint32_t)s->token_begin);
    put32(b, (uint32_t)s->token_end);
    put32(b, (uint32_t)s->head_begin);
    put32(b, (uint32_t)s->head_end);
}

/* of one token of one head in one layer */
static size_t token_bytes(const struct wire_offer *m)
{
    return kv_vector_bytes(m->dtype, (size_t)m->head_dim) +
           kv_vector_bytes(m->dtype, (size_t)m->value_dim);
}

size_t wire_slice_bytes(const struct wire_offer *m)
{
    const struct kv_slice *s = &m->slice;
    return (size_t)(s->layer_end - s->layer_begin) * (size_t)(s->token_end - s->token_begin) *
           (size_t)(s->head_end - s->head_begin) * token_bytes(m);
}

void wire_put_offer(struct buf *out, struct msg_ticket t, const struct wire_offer *m)
{
    put_header(out, WIRE_OFFER, t, 24 + 32 + 4 * m->n_blocks);
    put_slice(out, &m->slice);
    put32(out, (uint32_t)m->dtype);
    put32(out, (uint32_t)m->head_dim);
    put32(out, (uint32_t)m->value_dim);
    put32(out, m->crc);
    put64(out, m->bytes);
    put32(out, (uint32_t)m->block_tokens);
    put32(out, m->n_blocks);
    for (uint32_t i = 0; i < m->n_blocks; i++)
        put32(out, (uint32_t)m->blocks[i]);
}

void wire_put_filled(struct buf *out, struct msg_ticket t, const struct wire_filled *m)
{
    uint32_t body = 8;
    for (uint32_t i = 0; i < m->n_first; i++)
        body += 20 + 8 * m->first[i].n_top;
    put_header(out, WIRE_FILLED, t, body);
    put32(out, (uint32_t)m->kv_tokens);
    put32(out, m->n_first);
    for (uint32_t i = 0; i < m->n_first; i++) {
        const struct msg_token *k = &m->first[i];
        put32(out, (uint32_t)k->choice);
        put32(out, (uint32_t)k->position);
        put32(out, (uint32_t)k->id);
        put_float(out, k->logprob);
        put32(out, k->n_top);
        for (uint32_t j = 0; j < k->n_top; j++) {
            put32(out, (uint32_t)k->top[j].id);
            put_float(out, k->top[j].logprob);
        }
    }
}

void wire_put_landed(struct buf *out, struct msg_ticket t)
{
    put_header(out, WIRE_LANDED, t, 0);
}

void wire_put_missing(struct buf *out, struct msg_ticket t, const struct wire_missing *m)
{
    put_header(out, WIRE_MISSING, t, 4 + 24 * m->n);
    put32(out, m->n);
    for (uint32_t i = 0; i < m->n; i++)
        put_slice(out, &m->ranges[i]);
}

/* A cursor that never reads past its end: once short, everything reads as 0 and `bad` stays set. */
struct reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static uint32_t get32(struct reader *r)
{
    if (r->left < 4) {
        r->bad = true;
        return 0;
    }
    uint32_t v = (uint32_t)r->p[0] | (uint32_t)r->p[1] << 8 | (uint32_t)r->p[2] << 16 |
                 (uint32_t)r->p[3] << 24;
    r->p += 4;
    r->left -= 4;
    return v;
}

static uint64_t get64(struct reader *r)
{
    uint64_t lo = get32(r);
    return lo | (uint64_t)get32(r) << 32;
}

static float get_float(struct reader *r)
{
    uint32_t u = get32(r);
    float v;
    memcpy(&v, &u, 4);
    if (!isfinite(v))
        r->bad = true;
    return v;
}

static int32_t get_count(struct reader *r, int32_t max)
{
    uint32_t v = get32(r);
    if (v > (uint32_t)max) {
        r->bad = true;
        return 0;
    }
    return (int32_t)v;
}

static struct kv_slice get_slice(struct reader *r)
{
    struct kv_slice s;
    s.layer_begin = get_count(r, 65535);
    s.layer_end = get_count(r, 65535);
    s.token_begin = get_count(r, MSG_IDS_MAX);
    s.token_end = get_count(r, MSG_IDS_MAX);
    s.head_begin = get_count(r, 65535);
    s.head_end = get_count(r, 65535);
    if (s.layer_begin >= s.layer_end || s.token_begin >= s.token_end || s.head_begin >= s.head_end)
        r->bad = true;
    return s;
}

/* Sizes that a peer chose: their product may not even fit. */
static bool offer_bytes_right(const struct wire_offer *m)
{
    const struct kv_slice *s = &m->slice;
    double bytes = (double)(s->layer_end - s->layer_begin) * (s->token_end - s->token_begin) *
                   (s->head_end - s->head_begin) * (double)token_bytes(m);
    return bytes < 1e15 && m->bytes == wire_slice_bytes(m);
}

static enum status get_offer(struct reader *r, struct wire_frame *f)
{
    struct wire_offer *m = &f->offer;
    m->slice = get_slice(r);
    m->dtype = (enum dtype)get_count(r, DTYPE_KV_COUNT - 1);
    m->head_dim = get_count(r, 65536);
    m->value_dim = get_count(r, 65536);
    m->crc = get32(r);
    m->bytes = get64(r);
    m->block_tokens = get_count(r, 1 << 20);
    m->n_blocks = (uint32_t)get_count(r, WIRE_BLOCKS_MAX);
    if (r->bad || r->left != 4 * (size_t)m->n_blocks || m->head_dim == 0 || m->block_tokens == 0)
        return ST_PROTOCOL;
    if (!offer_bytes_right(m))
        return ST_PROTOCOL;
    if (m->n_blocks == 0)
        return ST_OK;
    int64_t first_slot = m->slice.token_begin % m->block_tokens;
    int64_t slots = first_slot + (m->slice.token_end - m->slice.token_begin);
    if ((slots + m->block_tokens - 1) / m->block_tokens != (int64_t)m->n_blocks)
        return ST_PROTOCOL;
    int32_t *blocks = malloc(4 * (size_t)m->n_blocks);
    if (!blocks)
        return ST_NO_MEMORY;
    f->owned = blocks;
    m->blocks = blocks;
    for (uint32_t i = 0; i < m->n_blocks; i++)
        blocks[i] = get_count(r, INT32_MAX);
    return r->bad ? ST_PROTOCOL : ST_OK;
}

static enum status get_filled(struct reader *r, struct wire_frame *f)
{
    struct wire_filled *m = &f->filled;
    m->kv_tokens = get_count(r, MSG_IDS_MAX);
    m->n_first = (uint32_t)get_count(r, MSG_CHOICES_MAX);
    if (r->bad)
        return ST_PROTOCOL;
    if (m->n_first == 0)
        return r->left == 0 ? ST_OK : ST_PROTOCOL;
    size_t tops = (size_t)m->n_first * MSG_LOGPROBS_MAX;
    struct msg_token *first =
        calloc(1, m->n_first * sizeof(*first) + tops * sizeof(struct msg_logprob));
    if (!first)
        return ST_NO_MEMORY;
    f->owned = first;
    m->first = first;
    struct msg_logprob *top = (struct msg_logprob *)(first + m->n_first);
    for (uint32_t i = 0; i < m->n_first; i++, top += MSG_LOGPROBS_MAX) {
        first[i].choice = get_count(r, MSG_CHOICES_MAX - 1);
        first[i].position = get_count(r, MSG_IDS_MAX);
        first[i].id = get_count(r, INT32_MAX);
        first[i].logprob = get_float(r);
        first[i].n_top = (uint32_t)get_count(r, MSG_LOGPROBS_MAX);
        first[i].top = top;
        for (uint32_t j = 0; j < first[i].n_top; j++) {
            top[j].id = get_count(r, INT32_MAX);
            top[j].logprob = get_float(r);
        }
        if (r->bad)
            return ST_PROTOCOL;
    }
    return r->left == 0 ? ST_OK : ST_PROTOCOL;
}

static enum status get_missing(struct reader *r, struct wire_frame *f)
{
    f->missing.n = (uint32_t)get_count(r, WIRE_RANGES_MAX);
    for (uint32_t i = 0; i < f->missing.n && !r->bad; i++)
        f->missing.ranges[i] = get_slice(r);
    return r->bad || r->left != 0 || f->missing.n == 0 ? ST_PROTOCOL : ST_OK;
}

enum status wire_get(const void *data, size_t len, struct wire_frame *out)
{
    struct reader r = {.p = data, .left = len};
    memset(out, 0, sizeof(*out));
    if (len < WIRE_HEADER_BYTES || len > WIRE_FRAME_MAX || get32(&r) != WIRE_MAGIC)
        return ST_PROTOCOL;
    uint32_t word = get32(&r), body = get32(&r);
    get32(&r);
    out->ticket.w[0] = get64(&r);
    out->ticket.w[1] = get64(&r);
    if ((word & 0xffff) != WIRE_VERSION)
        return ST_INCOMPATIBLE;
    if (body != r.left)
        return ST_PROTOCOL;
    out->kind = (enum wire_kind)(word >> 16);
    enum status st = ST_PROTOCOL;
    switch (out->kind) {
    case WIRE_OFFER:
        st = get_offer(&r, out);
        break;
    case WIRE_FILLED:
        st = get_filled(&r, out);
        break;
    case WIRE_LANDED:
        st = r.left == 0 ? ST_OK : ST_PROTOCOL;
        break;
    case WIRE_MISSING:
        st = get_missing(&r, out);
        break;
    }
    if (st != ST_OK)
        wire_frame_fini(out);
    return st;
}

void wire_frame_fini(struct wire_frame *f)
{
    free(f->owned);
    f->owned = NULL;
}

void *wire_copy_tokens(const struct msg_token *tokens, uint32_t n, const struct msg_token **out)
{
    size_t tops = 0;
    for (uint32_t i = 0; i < n; i++)
        tops += tokens[i].n_top;
    struct msg_token *copy = malloc(n * sizeof(*copy) + tops * sizeof(struct msg_logprob) + 1);
    if (!copy)
        return NULL;
    struct msg_logprob *top = (struct msg_logprob *)(copy + n);
    for (uint32_t i = 0; i < n; i++) {
        copy[i] = tokens[i];
        copy[i].top = top;
        if (tokens[i].n_top > 0)
            memcpy(top, tokens[i].top, tokens[i].n_top * sizeof(*top));
        top += tokens[i].n_top;
    }
    *out = copy;
    return copy;
}
