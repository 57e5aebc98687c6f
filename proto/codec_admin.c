/* Admin.Status and Admin.Drain. */
#include "proto/codec_parts.h"

void codec_put_admin(struct buf *out, enum msg_admin_verb verb)
{
    Baton__V1__AdminRequest request = BATON__V1__ADMIN_REQUEST__INIT;
    request.verb = (Baton__V1__AdminRequest__Verb)verb;
    codec_pack(out, &request);
}

enum status codec_get_admin(const uint8_t *data, size_t len, enum msg_admin_verb *verb)
{
    struct codec_arena a = {0};
    const Baton__V1__AdminRequest *p =
        codec_parse(&baton__v1__admin_request__descriptor, data, len, &a);
    bool ok = p != NULL && (p->verb == BATON__V1__ADMIN_REQUEST__VERB__VERB_STATUS ||
                            p->verb == BATON__V1__ADMIN_REQUEST__VERB__VERB_DRAIN);
    if (ok)
        *verb = (enum msg_admin_verb)p->verb;
    codec_arena_fini(&a);
    return ok ? ST_OK : ST_PROTOCOL;
}

void codec_put_status(struct buf *out, const struct msg_status *m)
{
    Baton__V1__Fingerprint fingerprint = BATON__V1__FINGERPRINT__INIT;
    Baton__V1__Blocks blocks = BATON__V1__BLOCKS__INIT;
    Baton__V1__NodeStatus p = BATON__V1__NODE_STATUS__INIT;
    fingerprint.w0 = m->fingerprint[0];
    fingerprint.w1 = m->fingerprint[1];
    blocks.total = m->blocks.total;
    blocks.free = m->blocks.free;
    blocks.reserved = m->blocks.reserved;
    blocks.receiving = m->blocks.receiving;
    blocks.running = m->blocks.running;
    blocks.cached = m->blocks.cached;
    blocks.quarantined = m->blocks.quarantined;
    p.name = codec_pb_str(m->name);
    p.role = codec_pb_str(m->role);
    p.model = codec_pb_str(m->model);
    p.fingerprint = &fingerprint;
    p.boot = m->boot;
    p.wire_min = m->wire_min;
    p.wire_max = m->wire_max;
    p.draining = m->draining;
    p.ready = m->ready;
    p.max_context = m->max_context;
    p.vocab = m->vocab;
    p.running = m->running;
    p.waiting = m->waiting;
    p.waiting_tokens = m->waiting_tokens;
    p.slots = m->slots;
    p.blocks = &blocks;
    p.block_tokens = m->block_tokens;
    p.room_tokens = m->room_tokens;
    p.prefill_ns_per_token = m->prefill_ns_per_token;
    p.decode_ns_per_step = m->decode_ns_per_step;
    p.http = codec_pb_str(m->http);
    codec_pack(out, &p);
}

static bool read_blocks(const Baton__V1__Blocks *p, struct msg_blocks *b)
{
    *b = (struct msg_blocks){0};
    if (p == NULL)
        return true;
    *b = (struct msg_blocks){
        .total = p->total,
        .free = p->free,
        .reserved = p->reserved,
        .receiving = p->receiving,
        .running = p->running,
        .cached = p->cached,
        .quarantined = p->quarantined,
    };
    return p->total >= 0 && p->free >= 0 && p->reserved >= 0 && p->receiving >= 0 &&
           p->running >= 0 && p->cached >= 0 && p->quarantined >= 0;
}

static bool status_in_range(const Baton__V1__NodeStatus *p)
{
    return p->max_context >= 0 && p->vocab >= 0 && p->running >= 0 && p->waiting >= 0 &&
           p->waiting_tokens >= 0 && p->slots >= 0 && p->block_tokens >= 0 && p->room_tokens >= 0 &&
           p->prefill_ns_per_token >= 0 && p->decode_ns_per_step >= 0;
}

enum status codec_get_status(const uint8_t *data, size_t len, struct codec_arena *a,
                             struct msg_status *m)
{
    const Baton__V1__NodeStatus *p = codec_parse(&baton__v1__node_status__descriptor, data, len, a);
    if (p == NULL || !status_in_range(p))
        return ST_PROTOCOL;
    *m = (struct msg_status){
        .boot = p->boot,
        .wire_min = p->wire_min,
        .wire_max = p->wire_max,
        .draining = p->draining != 0,
        .ready = p->ready != 0,
        .max_context = p->max_context,
        .vocab = p->vocab,
        .running = p->running,
        .waiting = p->waiting,
        .waiting_tokens = p->waiting_tokens,
        .slots = p->slots,
        .block_tokens = p->block_tokens,
        .room_tokens = p->room_tokens,
        .prefill_ns_per_token = p->prefill_ns_per_token,
        .decode_ns_per_step = p->decode_ns_per_step,
    };
    codec_read_fingerprint(p->fingerprint, m->fingerprint);
    bool ok = codec_str(p->name, CODEC_TEXT_MAX, &m->name) &&
              codec_str(p->role, CODEC_TEXT_MAX, &m->role) &&
              codec_str(p->model, CODEC_TEXT_MAX, &m->model) &&
              codec_str(p->http, CODEC_TEXT_MAX, &m->http) && read_blocks(p->blocks, &m->blocks);
    return ok ? ST_OK : ST_PROTOCOL;
}
