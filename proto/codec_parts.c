/* Sampling, rank addresses, tokens, tickets and fingerprints, to protobuf-c structs and back. */
#include "proto/codec_parts.h"

#include <math.h>

static bool bias_ok(ProtobufCBinaryData b, struct msg_sampling *s)
{
    if (b.len % sizeof(struct msg_bias) != 0 || b.len / sizeof(struct msg_bias) > MSG_BIAS_MAX)
        return false;
    const struct msg_bias *v = (const struct msg_bias *)(const void *)b.data;
    s->bias = v;
    s->n_bias = (uint32_t)(b.len / sizeof *v);
    for (uint32_t i = 0; i < s->n_bias; i++)
        if (v[i].id < 0 || !isfinite(v[i].bias))
            return false;
    return true;
}

static bool grammar_ok(const Baton__V1__Sampling *p, struct msg_sampling *s)
{
    if (p->grammar_kind >= MSG_GRAMMAR_KINDS || p->grammar_lead > MSG_GRAMMAR_LEAD_MAX ||
        p->grammar_lead > p->grammar.len ||
        p->grammar.len - p->grammar_lead > MSG_GRAMMAR_BYTES_MAX)
        return false;
    s->grammar = (struct msg_grammar){.kind = (enum msg_grammar_kind)p->grammar_kind,
                                      .text = (const char *)p->grammar.data,
                                      .len = (uint32_t)p->grammar.len,
                                      .lead = p->grammar_lead};
    return p->grammar_kind != MSG_GRAMMAR_NONE || p->grammar.len == 0;
}

void codec_fill_sampling(Baton__V1__Sampling *p, const struct msg_sampling *s)
{
    baton__v1__sampling__init(p);
    p->temperature = s->temperature;
    p->top_p = s->top_p;
    p->min_p = s->min_p;
    p->top_k = s->top_k;
    p->repetition_penalty = s->repetition_penalty;
    p->presence_penalty = s->presence_penalty;
    p->frequency_penalty = s->frequency_penalty;
    p->seed = s->seed;
    p->logprobs_plus1 = (uint32_t)(s->logprobs + 1);
    p->max_tokens = s->max_tokens;
    p->min_tokens = s->min_tokens;
    p->ignore_eos = s->ignore_eos;
    p->stop_ids = codec_ids_bytes(s->stop_ids);
    p->bias.len = s->n_bias * sizeof *s->bias;
    p->bias.data = (uint8_t *)(uintptr_t)s->bias;
    p->grammar_kind = (uint32_t)s->grammar.kind;
    p->grammar_lead = s->grammar.lead;
    p->grammar.len = s->grammar.len;
    p->grammar.data = (uint8_t *)(uintptr_t)s->grammar.text;
}

bool codec_read_sampling(const Baton__V1__Sampling *p, struct msg_sampling *s)
{
    if (p == NULL || p->logprobs_plus1 > MSG_LOGPROBS_MAX + 1 || !isfinite(p->temperature) ||
        !isfinite(p->top_p) || !isfinite(p->min_p) || !isfinite(p->repetition_penalty) ||
        !isfinite(p->presence_penalty) || !isfinite(p->frequency_penalty))
        return false;
    *s = (struct msg_sampling){
        .temperature = p->temperature,
        .top_p = p->top_p,
        .min_p = p->min_p,
        .top_k = p->top_k,
        .repetition_penalty = p->repetition_penalty,
        .presence_penalty = p->presence_penalty,
        .frequency_penalty = p->frequency_penalty,
        .seed = p->seed,
        .logprobs = (int32_t)p->logprobs_plus1 - 1,
        .max_tokens = p->max_tokens,
        .min_tokens = p->min_tokens,
        .ignore_eos = p->ignore_eos != 0,
    };
    return p->top_k >= 0 && p->max_tokens >= 0 && p->min_tokens >= 0 &&
           codec_ids(p->stop_ids, MSG_STOP_IDS_MAX, &s->stop_ids) && bias_ok(p->bias, s) &&
           grammar_ok(p, s);
}

bool codec_fill_ranks(struct buf *out, struct codec_arena *a, const struct msg_rank_address *ranks,
                      uint32_t n, Baton__V1__RankAddress ***to)
{
    Baton__V1__RankAddress **v =
        (Baton__V1__RankAddress **)codec_submessages(out, a, n, sizeof **v);
    if (v == NULL)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        baton__v1__rank_address__init(v[i]);
        v[i]->rank = ranks[i].rank;
        v[i]->head_begin = ranks[i].head_begin;
        v[i]->head_end = ranks[i].head_end;
        v[i]->host = codec_pb_str(ranks[i].host);
        v[i]->shm = codec_pb_str(ranks[i].shm);
        v[i]->ucx.len = ranks[i].ucx_bytes;
        v[i]->ucx.data = (uint8_t *)(uintptr_t)ranks[i].ucx;
    }
    *to = v;
    return true;
}

bool codec_read_ranks(Baton__V1__RankAddress **ranks, size_t n, struct codec_arena *a,
                      const struct msg_rank_address **to)
{
    if (n > MSG_RANKS_MAX)
        return false;
    struct msg_rank_address *v = codec_alloc(a, n, sizeof *v);
    if (v == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        const Baton__V1__RankAddress *p = ranks[i];
        v[i].rank = p->rank;
        v[i].head_begin = p->head_begin;
        v[i].head_end = p->head_end;
        v[i].ucx = p->ucx.data;
        v[i].ucx_bytes = (uint32_t)p->ucx.len;
        if (p->rank < 0 || p->rank >= MSG_RANKS_MAX || p->head_begin < 0 ||
            p->head_end < p->head_begin || p->ucx.len > MSG_ADDRESS_MAX ||
            !codec_str(p->host, MSG_ADDRESS_MAX, &v[i].host) ||
            !codec_str(p->shm, MSG_ADDRESS_MAX, &v[i].shm))
            return false;
    }
    *to = v;
    return true;
}

bool codec_fill_tokens(struct buf *out, struct codec_arena *a, const struct msg_token *tokens,
                       uint32_t n, Baton__V1__Token ***to)
{
    Baton__V1__Token **v = (Baton__V1__Token **)codec_submessages(out, a, n, sizeof **v);
    if (v == NULL)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        baton__v1__token__init(v[i]);
        v[i]->choice = tokens[i].choice;
        v[i]->position = tokens[i].position;
        v[i]->id = tokens[i].id;
        v[i]->logprob = tokens[i].logprob;
        v[i]->top.len = tokens[i].n_top * sizeof *tokens[i].top;
        v[i]->top.data = (uint8_t *)(uintptr_t)tokens[i].top;
    }
    *to = v;
    return true;
}

static bool read_top(ProtobufCBinaryData b, const struct msg_logprob **top, uint32_t *n)
{
    if (b.len % sizeof **top != 0 || b.len / sizeof **top > MSG_LOGPROBS_MAX)
        return false;
    *top = (const struct msg_logprob *)(const void *)b.data;
    *n = (uint32_t)(b.len / sizeof **top);
    for (uint32_t i = 0; i < *n; i++)
        if ((*top)[i].id < 0)
            return false;
    return true;
}

static bool read_token(const Baton__V1__Token *p, struct msg_token *t)
{
    if (p->choice < 0 || p->choice >= MSG_CHOICES_MAX || p->position < 0 || p->id < 0)
        return false;
    *t = (struct msg_token){
        .choice = p->choice, .position = p->position, .id = p->id, .logprob = p->logprob};
    return read_top(p->top, &t->top, &t->n_top);
}

bool codec_read_tokens(Baton__V1__Token **tokens, size_t n, struct codec_arena *a,
                       const struct msg_token **to)
{
    if (n > MSG_TOKENS_MAX)
        return false;
    struct msg_token *v = codec_alloc(a, n, sizeof *v);
    if (v == NULL)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_token(tokens[i], &v[i]))
            return false;
    *to = v;
    return true;
}

bool codec_fill_scores(struct buf *out, struct codec_arena *a, const struct msg_score *scores,
                       uint32_t n, Baton__V1__Score ***to)
{
    Baton__V1__Score **v = (Baton__V1__Score **)codec_submessages(out, a, n, sizeof **v);
    if (v == NULL)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        baton__v1__score__init(v[i]);
        v[i]->position = scores[i].position;
        v[i]->id = scores[i].id;
        v[i]->rank = scores[i].rank;
        v[i]->logprob = scores[i].logprob;
        v[i]->top.len = scores[i].n_top * sizeof *scores[i].top;
        v[i]->top.data = (uint8_t *)(uintptr_t)scores[i].top;
    }
    *to = v;
    return true;
}

bool codec_read_scores(Baton__V1__Score **scores, size_t n, struct codec_arena *a,
                       const struct msg_score **to)
{
    if (n > MSG_TOKENS_MAX)
        return false;
    struct msg_score *v = codec_alloc(a, n, sizeof *v);
    if (v == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        const Baton__V1__Score *p = scores[i];
        if (p->position < 1 || p->position >= MSG_IDS_MAX || p->id < 0 || p->rank < 1 ||
            (i > 0 && p->position != v[i - 1].position + 1))
            return false;
        v[i] = (struct msg_score){
            .position = p->position, .id = p->id, .rank = p->rank, .logprob = p->logprob};
        if (!read_top(p->top, &v[i].top, &v[i].n_top))
            return false;
    }
    *to = v;
    return true;
}

Baton__V1__Scoring *codec_fill_scoring(Baton__V1__Scoring *p, const struct msg_scoring *s)
{
    baton__v1__scoring__init(p);
    p->begin = s->begin;
    p->top = (uint32_t)s->top;
    return s->begin > 0 ? p : NULL;
}

bool codec_read_scoring(const Baton__V1__Scoring *p, struct msg_scoring *s)
{
    *s = (struct msg_scoring){0};
    if (p == NULL)
        return true;
    if (p->begin < 1 || p->begin >= MSG_IDS_MAX || p->top > MSG_LOGPROBS_MAX)
        return false;
    *s = (struct msg_scoring){.begin = p->begin, .top = (int32_t)p->top};
    return true;
}

void codec_read_ticket(const Baton__V1__Ticket *p, struct msg_ticket *t)
{
    *t = (struct msg_ticket){{0}};
    if (p != NULL)
        *t = (struct msg_ticket){{p->w0, p->w1}};
}

void codec_read_fingerprint(const Baton__V1__Fingerprint *p, uint64_t fingerprint[2])
{
    fingerprint[0] = p != NULL ? p->w0 : 0;
    fingerprint[1] = p != NULL ? p->w1 : 0;
}
