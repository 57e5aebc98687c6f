/* Decode.Start: requests of the router, events of a decode node. */
#include "proto/codec_parts.h"

void codec_put_start(struct buf *out, const struct msg_start *m)
{
    struct codec_arena a = {0};
    Baton__V1__Sampling sampling;
    Baton__V1__Fingerprint fingerprint = BATON__V1__FINGERPRINT__INIT;
    Baton__V1__Scoring scoring;
    Baton__V1__DecodeStart start = BATON__V1__DECODE_START__INIT;
    Baton__V1__DecodeRequest request = BATON__V1__DECODE_REQUEST__INIT;
    size_t n = m->n > 0 ? (size_t)m->n : 0;
    ProtobufCBinaryData *emitted = codec_alloc(&a, n, sizeof *emitted);
    protobuf_c_boolean *finished = codec_alloc(&a, n, sizeof *finished);
    if (emitted == NULL || finished == NULL) {
        out->failed = true;
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        emitted[i] = m->emitted != NULL ? codec_ids_bytes(m->emitted[i]) : (ProtobufCBinaryData){0};
        finished[i] = m->finished != NULL && m->finished[i];
    }
    codec_fill_sampling(&sampling, &m->sampling);
    fingerprint.w0 = m->fingerprint[0];
    fingerprint.w1 = m->fingerprint[1];
    start.request_id = codec_pb_str(m->request_id);
    start.prompt = codec_ids_bytes(m->prompt);
    start.n = m->n;
    start.emitted = emitted;
    start.n_emitted = m->emitted != NULL ? n : 0;
    start.finished = finished;
    start.n_finished = m->finished != NULL ? n : 0;
    start.sampling = &sampling;
    start.cache_salt = codec_pb_str(m->cache_salt);
    start.deadline_ms = m->deadline_ms;
    start.credits = m->credits;
    start.local_prefill = m->local_prefill;
    start.fingerprint = &fingerprint;
    start.scoring = codec_fill_scoring(&scoring, &m->scoring);
    request.kind_case = BATON__V1__DECODE_REQUEST__KIND_START;
    request.start = &start;
    codec_pack(out, &request);
done:
    codec_arena_fini(&a);
}

void codec_put_control(struct buf *out, const struct msg_decode_control *m)
{
    Baton__V1__DecodeControl control = BATON__V1__DECODE_CONTROL__INIT;
    Baton__V1__DecodeRequest request = BATON__V1__DECODE_REQUEST__INIT;
    control.credit = m->credit;
    control.stop_choice_plus1 = m->stop_choice_plus1;
    control.prefill_here = m->prefill_here;
    request.kind_case = BATON__V1__DECODE_REQUEST__KIND_CONTROL;
    request.control = &control;
    codec_pack(out, &request);
}

static bool read_choices(const Baton__V1__DecodeStart *p, struct codec_arena *a,
                         struct msg_start *m)
{
    size_t n = (size_t)p->n;
    if ((p->n_emitted != 0 && p->n_emitted != n) || (p->n_finished != 0 && p->n_finished != n))
        return false;
    struct msg_ids *emitted = codec_alloc(a, n, sizeof *emitted);
    bool *finished = codec_alloc(a, n, sizeof *finished);
    if (emitted == NULL || finished == NULL)
        return false;
    for (size_t i = 0; i < p->n_emitted; i++)
        if (!codec_ids(p->emitted[i], MSG_IDS_MAX, &emitted[i]))
            return false;
    for (size_t i = 0; i < p->n_finished; i++)
        finished[i] = p->finished[i] != 0;
    m->emitted = emitted;
    m->finished = finished;
    return true;
}

static bool read_start(const Baton__V1__DecodeStart *p, struct codec_arena *a, struct msg_start *m)
{
    *m = (struct msg_start){
        .n = p->n,
        .deadline_ms = p->deadline_ms,
        .credits = p->credits,
        .local_prefill = p->local_prefill != 0,
    };
    codec_read_fingerprint(p->fingerprint, m->fingerprint);
    return p->n >= 1 && p->n <= MSG_CHOICES_MAX && codec_natural(p->deadline_ms) &&
           codec_natural(p->credits) &&
           codec_str(p->request_id, MSG_REQUEST_ID_MAX, &m->request_id) &&
           codec_str(p->cache_salt, CODEC_TEXT_MAX, &m->cache_salt) &&
           codec_ids(p->prompt, MSG_IDS_MAX, &m->prompt) && read_choices(p, a, m) &&
           codec_read_scoring(p->scoring, &m->scoring) &&
           codec_read_sampling(p->sampling, &m->sampling);
}

enum status codec_get_decode_request(const uint8_t *data, size_t len, struct codec_arena *a,
                                     bool *is_start, struct msg_start *start,
                                     struct msg_decode_control *control)
{
    const Baton__V1__DecodeRequest *p =
        codec_parse(&baton__v1__decode_request__descriptor, data, len, a);
    if (p == NULL)
        return ST_PROTOCOL;
    switch (p->kind_case) {
    case BATON__V1__DECODE_REQUEST__KIND_START:
        *is_start = true;
        return read_start(p->start, a, start) ? ST_OK : ST_PROTOCOL;
    case BATON__V1__DECODE_REQUEST__KIND_CONTROL:
        if (p->control->credit < 0 || p->control->stop_choice_plus1 > MSG_CHOICES_MAX)
            return ST_PROTOCOL;
        *is_start = false;
        *control = (struct msg_decode_control){
            .credit = p->control->credit,
            .stop_choice_plus1 = p->control->stop_choice_plus1,
            .prefill_here = p->control->prefill_here,
        };
        return ST_OK;
    default:
        return ST_PROTOCOL;
    }
}

static const struct {
    enum status status;
    Baton__V1__Rejected__Why why;
} whys[] = {
    {ST_BUSY, BATON__V1__REJECTED__WHY__WHY_BUSY},
    {ST_NEVER_FITS, BATON__V1__REJECTED__WHY__WHY_NEVER_FITS},
    {ST_INVALID, BATON__V1__REJECTED__WHY__WHY_INVALID},
    {ST_INCOMPATIBLE, BATON__V1__REJECTED__WHY__WHY_INCOMPATIBLE},
};

static Baton__V1__Rejected__Why why_of(enum status status)
{
    for (size_t i = 0; i < sizeof whys / sizeof whys[0]; i++)
        if (whys[i].status == status)
            return whys[i].why;
    return BATON__V1__REJECTED__WHY__WHY_INVALID;
}

static bool put_event(struct buf *out, struct codec_arena *a, Baton__V1__DecodeEvent *event,
                      const struct msg_decode_event *m)
{
    Baton__V1__Ticket ticket = BATON__V1__TICKET__INIT;
    Baton__V1__Accepted accepted = BATON__V1__ACCEPTED__INIT;
    Baton__V1__Rejected rejected = BATON__V1__REJECTED__INIT;
    Baton__V1__Tokens tokens = BATON__V1__TOKENS__INIT;
    Baton__V1__Finish finish = BATON__V1__FINISH__INIT;
    Baton__V1__Done done = BATON__V1__DONE__INIT;
    Baton__V1__Scores scores = BATON__V1__SCORES__INIT;
    switch (m->kind) {
    case MSG_D_ACCEPTED:
        ticket.w0 = m->accepted.ticket.w[0];
        ticket.w1 = m->accepted.ticket.w[1];
        accepted.ticket = &ticket;
        accepted.have_tokens = m->accepted.have_tokens;
        accepted.n_ranks = m->accepted.n_ranks;
        if (!codec_fill_ranks(out, a, m->accepted.ranks, m->accepted.n_ranks, &accepted.ranks))
            return false;
        event->kind_case = BATON__V1__DECODE_EVENT__KIND_ACCEPTED;
        event->accepted = &accepted;
        break;
    case MSG_D_REJECTED:
        rejected.why = why_of(m->rejected);
        rejected.reason = codec_pb_str(m->reason);
        event->kind_case = BATON__V1__DECODE_EVENT__KIND_REJECTED;
        event->rejected = &rejected;
        break;
    case MSG_D_TOKENS:
        tokens.n_tokens = m->n_tokens;
        if (!codec_fill_tokens(out, a, m->tokens, m->n_tokens, &tokens.tokens))
            return false;
        event->kind_case = BATON__V1__DECODE_EVENT__KIND_TOKENS;
        event->tokens = &tokens;
        break;
    case MSG_D_SCORES:
        scores.n_scores = m->n_scores;
        if (!codec_fill_scores(out, a, m->scores, m->n_scores, &scores.scores))
            return false;
        event->kind_case = BATON__V1__DECODE_EVENT__KIND_SCORES;
        event->scores = &scores;
        break;
    case MSG_D_FINISH:
        finish.choice = m->finish.choice;
        finish.reason = (Baton__V1__Finish__Reason)m->finish.reason;
        finish.stop_id_plus1 = (uint32_t)m->finish.stop_id + 1;
        event->kind_case = BATON__V1__DECODE_EVENT__KIND_FINISH;
        event->finish = &finish;
        break;
    case MSG_D_DONE:
        done.prompt_tokens = m->usage.prompt_tokens;
        done.cached_tokens = m->usage.cached_tokens;
        done.completion_tokens = m->usage.completion_tokens;
        done.kv_wait_us = m->kv_wait_us;
        done.decode_us = m->decode_us;
        event->kind_case = BATON__V1__DECODE_EVENT__KIND_DONE;
        event->done = &done;
        break;
    }
    codec_pack(out, event);
    return true;
}

void codec_put_decode_event(struct buf *out, const struct msg_decode_event *m)
{
    struct codec_arena a = {0};
    Baton__V1__DecodeEvent event = BATON__V1__DECODE_EVENT__INIT;
    put_event(out, &a, &event, m);
    codec_arena_fini(&a);
}

static bool read_accepted(const Baton__V1__Accepted *p, struct codec_arena *a,
                          struct msg_decode_event *m)
{
    m->kind = MSG_D_ACCEPTED;
    codec_read_ticket(p->ticket, &m->accepted.ticket);
    m->accepted.have_tokens = p->have_tokens;
    m->accepted.n_ranks = (uint32_t)p->n_ranks;
    return p->have_tokens >= 0 && codec_read_ranks(p->ranks, p->n_ranks, a, &m->accepted.ranks);
}

static bool read_rejected(const Baton__V1__Rejected *p, struct msg_decode_event *m)
{
    m->kind = MSG_D_REJECTED;
    for (size_t i = 0; i < sizeof whys / sizeof whys[0]; i++)
        if (whys[i].why == p->why) {
            m->rejected = whys[i].status;
            return codec_str(p->reason, CODEC_TEXT_MAX, &m->reason);
        }
    return false;
}

static bool read_finish(const Baton__V1__Finish *p, struct msg_decode_event *m)
{
    m->kind = MSG_D_FINISH;
    m->finish = (struct msg_finish){
        .choice = p->choice,
        .reason = (enum msg_finish_reason)p->reason,
        .stop_id = (int32_t)(p->stop_id_plus1 - 1),
    };
    return p->choice >= 0 && p->choice < MSG_CHOICES_MAX &&
           (p->reason == BATON__V1__FINISH__REASON__REASON_STOP ||
            p->reason == BATON__V1__FINISH__REASON__REASON_LENGTH) &&
           p->stop_id_plus1 <= (uint32_t)INT32_MAX + 1;
}

static bool read_done(const Baton__V1__Done *p, struct msg_decode_event *m)
{
    m->kind = MSG_D_DONE;
    m->usage = (struct msg_usage){
        .prompt_tokens = p->prompt_tokens,
        .cached_tokens = p->cached_tokens,
        .completion_tokens = p->completion_tokens,
    };
    m->kv_wait_us = p->kv_wait_us;
    m->decode_us = p->decode_us;
    return p->prompt_tokens >= 0 && p->cached_tokens >= 0 && p->completion_tokens >= 0 &&
           codec_natural(p->kv_wait_us) && codec_natural(p->decode_us);
}

enum status codec_get_decode_event(const uint8_t *data, size_t len, struct codec_arena *a,
                                   struct msg_decode_event *m)
{
    const Baton__V1__DecodeEvent *p =
        codec_parse(&baton__v1__decode_event__descriptor, data, len, a);
    bool ok = false;
    if (p == NULL)
        return ST_PROTOCOL;
    *m = (struct msg_decode_event){.reason = ""};
    switch (p->kind_case) {
    case BATON__V1__DECODE_EVENT__KIND_ACCEPTED:
        ok = read_accepted(p->accepted, a, m);
        break;
    case BATON__V1__DECODE_EVENT__KIND_REJECTED:
        ok = read_rejected(p->rejected, m);
        break;
    case BATON__V1__DECODE_EVENT__KIND_TOKENS:
        m->kind = MSG_D_TOKENS;
        m->n_tokens = (uint32_t)p->tokens->n_tokens;
        ok = codec_read_tokens(p->tokens->tokens, p->tokens->n_tokens, a, &m->tokens);
        break;
    case BATON__V1__DECODE_EVENT__KIND_SCORES:
        m->kind = MSG_D_SCORES;
        m->n_scores = (uint32_t)p->scores->n_scores;
        ok = codec_read_scores(p->scores->scores, p->scores->n_scores, a, &m->scores);
        break;
    case BATON__V1__DECODE_EVENT__KIND_FINISH:
        ok = read_finish(p->finish, m);
        break;
    case BATON__V1__DECODE_EVENT__KIND_DONE:
        ok = read_done(p->done, m);
        break;
    default:
        break;
    }
    return ok ? ST_OK : ST_PROTOCOL;
}
