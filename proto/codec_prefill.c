/* Prefill.Run: the router's request, a prefill node's events. */
#include "proto/codec_parts.h"

void codec_put_prefill(struct buf *out, const struct msg_prefill *m)
{
    struct codec_arena a = {0};
    Baton__V1__Sampling sampling;
    Baton__V1__Fingerprint fingerprint = BATON__V1__FINGERPRINT__INIT;
    Baton__V1__Scoring scoring;
    Baton__V1__Ticket ticket = BATON__V1__TICKET__INIT;
    Baton__V1__PrefillRequest request = BATON__V1__PREFILL_REQUEST__INIT;
    codec_fill_sampling(&sampling, &m->sampling);
    fingerprint.w0 = m->fingerprint[0];
    fingerprint.w1 = m->fingerprint[1];
    ticket.w0 = m->ticket.w[0];
    ticket.w1 = m->ticket.w[1];
    request.request_id = codec_pb_str(m->request_id);
    request.prompt = codec_ids_bytes(m->prompt);
    request.prompt_tokens = m->prompt_tokens;
    request.n = m->n;
    request.want_first = m->want_first;
    request.sampling = &sampling;
    request.cache_salt = codec_pb_str(m->cache_salt);
    request.ticket = &ticket;
    request.have_tokens = m->have_tokens;
    request.n_ranks = m->n_ranks;
    request.deadline_ms = m->deadline_ms;
    request.fingerprint = &fingerprint;
    request.scoring = codec_fill_scoring(&scoring, &m->scoring);
    if (codec_fill_ranks(out, &a, m->ranks, m->n_ranks, &request.ranks))
        codec_pack(out, &request);
    codec_arena_fini(&a);
}

static bool read_prefill(const Baton__V1__PrefillRequest *p, struct codec_arena *a,
                         struct msg_prefill *m)
{
    *m = (struct msg_prefill){
        .prompt_tokens = p->prompt_tokens,
        .n = p->n,
        .want_first = p->want_first != 0,
        .have_tokens = p->have_tokens,
        .n_ranks = (uint32_t)p->n_ranks,
        .deadline_ms = p->deadline_ms,
    };
    codec_read_fingerprint(p->fingerprint, m->fingerprint);
    codec_read_ticket(p->ticket, &m->ticket);
    return p->n >= 1 && p->n <= MSG_CHOICES_MAX && p->have_tokens >= 0 &&
           codec_natural(p->deadline_ms) &&
           codec_str(p->request_id, MSG_REQUEST_ID_MAX, &m->request_id) &&
           codec_str(p->cache_salt, CODEC_TEXT_MAX, &m->cache_salt) &&
           codec_ids(p->prompt, MSG_IDS_MAX, &m->prompt) && p->prompt_tokens >= 0 &&
           (uint32_t)p->prompt_tokens <= m->prompt.n &&
           codec_read_sampling(p->sampling, &m->sampling) &&
           codec_read_scoring(p->scoring, &m->scoring) &&
           codec_read_ranks(p->ranks, p->n_ranks, a, &m->ranks);
}

enum status codec_get_prefill(const uint8_t *data, size_t len, struct codec_arena *a,
                              struct msg_prefill *m)
{
    const Baton__V1__PrefillRequest *p =
        codec_parse(&baton__v1__prefill_request__descriptor, data, len, a);
    return p != NULL && read_prefill(p, a, m) ? ST_OK : ST_PROTOCOL;
}

void codec_put_prefill_event(struct buf *out, const struct msg_prefill_event *m)
{
    struct codec_arena a = {0};
    Baton__V1__PrefillEvent event = BATON__V1__PREFILL_EVENT__INIT;
    event.n_first = m->n_first;
    event.cached_tokens = m->cached_tokens;
    event.queue_us = m->queue_us;
    event.compute_us = m->compute_us;
    event.n_scores = m->n_scores;
    if (codec_fill_tokens(out, &a, m->first, m->n_first, &event.first) &&
        codec_fill_scores(out, &a, m->scores, m->n_scores, &event.scores))
        codec_pack(out, &event);
    codec_arena_fini(&a);
}

enum status codec_get_prefill_event(const uint8_t *data, size_t len, struct codec_arena *a,
                                    struct msg_prefill_event *m)
{
    const Baton__V1__PrefillEvent *p =
        codec_parse(&baton__v1__prefill_event__descriptor, data, len, a);
    if (p == NULL || p->n_first > MSG_CHOICES_MAX || p->cached_tokens < 0 || p->queue_us < 0 ||
        p->compute_us < 0)
        return ST_PROTOCOL;
    *m = (struct msg_prefill_event){
        .n_first = (uint32_t)p->n_first,
        .cached_tokens = p->cached_tokens,
        .queue_us = p->queue_us,
        .compute_us = p->compute_us,
        .n_scores = (uint32_t)p->n_scores,
    };
    return codec_read_tokens(p->first, p->n_first, a, &m->first) &&
                   codec_read_scores(p->scores, p->n_scores, a, &m->scores)
               ? ST_OK
               : ST_PROTOCOL;
}
