/* The public API's stream: what was generated. */
#include "baton/v1/inference.pb-c.h"
#include "proto/codec_pb.h"

static bool fill_logprobs(Baton__V1__TokenLogprobs *p, const struct msg_token *t, struct buf *out,
                          struct codec_arena *a)
{
    baton__v1__token_logprobs__init(p);
    p->id = (uint32_t)t->id;
    p->logprob = t->logprob;
    p->position = (uint32_t)t->position;
    p->top = (Baton__V1__TokenLogprob **)codec_submessages(out, a, t->n_top, sizeof **p->top);
    if (p->top == NULL)
        return false;
    p->n_top = t->n_top;
    for (uint32_t i = 0; i < t->n_top; i++) {
        baton__v1__token_logprob__init(p->top[i]);
        p->top[i]->id = (uint32_t)t->top[i].id;
        p->top[i]->logprob = t->top[i].logprob;
    }
    return true;
}

void codec_put_generate_event(struct buf *out, const struct msg_generate_event *m)
{
    struct codec_arena a = {0};
    Baton__V1__Usage usage = BATON__V1__USAGE__INIT;
    Baton__V1__GenerateResponse p = BATON__V1__GENERATE_RESPONSE__INIT;
    p.choice = (uint32_t)m->choice;
    p.text = codec_pb_str(m->text);
    p.ids = (uint32_t *)(uintptr_t)m->ids.v;
    p.n_ids = m->ids.n;
    p.finish_reason = (Baton__V1__FinishReason)m->finish_reason;
    usage.prompt_tokens = (uint32_t)m->usage.prompt_tokens;
    usage.cached_tokens = (uint32_t)m->usage.cached_tokens;
    usage.completion_tokens = (uint32_t)m->usage.completion_tokens;
    p.usage = m->has_usage ? &usage : NULL;
    p.logprobs =
        (Baton__V1__TokenLogprobs **)codec_submessages(out, &a, m->n_tokens, sizeof **p.logprobs);
    bool ok = p.logprobs != NULL;
    p.n_logprobs = m->n_tokens;
    for (uint32_t i = 0; ok && i < m->n_tokens; i++)
        ok = fill_logprobs(p.logprobs[i], &m->tokens[i], out, &a);
    if (ok)
        codec_pack(out, &p);
    codec_arena_fini(&a);
}

static bool read_logprobs(const Baton__V1__TokenLogprobs *p, struct codec_arena *a,
                          struct msg_token *t)
{
    if (p->id > INT32_MAX || p->position > INT32_MAX || p->n_top > MSG_LOGPROBS_MAX)
        return false;
    struct msg_logprob *top = codec_alloc(a, p->n_top, sizeof *top);
    if (top == NULL)
        return false;
    for (size_t i = 0; i < p->n_top; i++) {
        if (p->top[i]->id > INT32_MAX)
            return false;
        top[i] = (struct msg_logprob){(int32_t)p->top[i]->id, p->top[i]->logprob};
    }
    t->position = (int32_t)p->position;
    t->id = (int32_t)p->id;
    t->logprob = p->logprob;
    t->top = top;
    t->n_top = (uint32_t)p->n_top;
    return true;
}

static bool read_usage(const Baton__V1__Usage *p, struct msg_generate_event *m)
{
    m->has_usage = p != NULL;
    if (p == NULL)
        return true;
    m->usage = (struct msg_usage){
        .prompt_tokens = (int32_t)p->prompt_tokens,
        .cached_tokens = (int32_t)p->cached_tokens,
        .completion_tokens = (int32_t)p->completion_tokens,
    };
    return p->prompt_tokens <= INT32_MAX && p->cached_tokens <= INT32_MAX &&
           p->completion_tokens <= INT32_MAX;
}

enum status codec_get_generate_event(const uint8_t *data, size_t len, struct codec_arena *a,
                                     struct msg_generate_event *m)
{
    const Baton__V1__GenerateResponse *p =
        codec_parse(&baton__v1__generate_response__descriptor, data, len, a);
    if (p == NULL || p->choice >= MSG_CHOICES_MAX || p->n_ids > MSG_TOKENS_MAX ||
        p->n_logprobs > MSG_TOKENS_MAX ||
        (unsigned)p->finish_reason > BATON__V1__FINISH_REASON__FINISH_REASON_LENGTH)
        return ST_PROTOCOL;
    struct msg_token *tokens = codec_alloc(a, p->n_logprobs, sizeof *tokens);
    if (tokens == NULL)
        return ST_PROTOCOL;
    *m = (struct msg_generate_event){
        .choice = (int32_t)p->choice,
        .text = p->text,
        .ids = {.v = (const int32_t *)p->ids, .n = (uint32_t)p->n_ids},
        .tokens = tokens,
        .n_tokens = (uint32_t)p->n_logprobs,
        .finish_reason = (int32_t)p->finish_reason,
    };
    for (size_t i = 0; i < p->n_ids; i++)
        if (p->ids[i] > INT32_MAX)
            return ST_PROTOCOL;
    for (size_t i = 0; i < p->n_logprobs; i++) {
        if (!read_logprobs(p->logprobs[i], a, &tokens[i]))
            return ST_PROTOCOL;
        tokens[i].choice = m->choice;
    }
    return read_usage(p->usage, m) ? ST_OK : ST_PROTOCOL;
}
