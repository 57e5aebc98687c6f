/* The public API's stream: what was generated. */
#include "baton/v1/inference.pb-c.h"
#include "proto/codec_pb.h"

static Baton__V1__TokenLogprob **fill_top(const struct msg_logprob *top, uint32_t n,
                                          struct buf *out, struct codec_arena *a)
{
    Baton__V1__TokenLogprob **v =
        (Baton__V1__TokenLogprob **)codec_submessages(out, a, n, sizeof **v);
    for (uint32_t i = 0; v != NULL && i < n; i++) {
        baton__v1__token_logprob__init(v[i]);
        v[i]->id = (uint32_t)top[i].id;
        v[i]->logprob = top[i].logprob;
    }
    return v;
}

static bool fill_logprobs(Baton__V1__TokenLogprobs *p, const struct msg_token *t, struct buf *out,
                          struct codec_arena *a)
{
    baton__v1__token_logprobs__init(p);
    p->id = (uint32_t)t->id;
    p->logprob = t->logprob;
    p->position = (uint32_t)t->position;
    p->n_top = t->n_top;
    p->top = fill_top(t->top, t->n_top, out, a);
    return p->top != NULL;
}

static bool fill_prompt(Baton__V1__GenerateResponse *p, const struct msg_generate_event *m,
                        struct buf *out, struct codec_arena *a)
{
    p->n_prompt_logprobs = m->n_prompt;
    p->prompt_logprobs = (Baton__V1__PromptLogprobs **)codec_submessages(
        out, a, m->n_prompt, sizeof **p->prompt_logprobs);
    for (uint32_t i = 0; p->prompt_logprobs != NULL && i < m->n_prompt; i++) {
        Baton__V1__PromptLogprobs *x = p->prompt_logprobs[i];
        const struct msg_score *s = &m->prompt[i];
        baton__v1__prompt_logprobs__init(x);
        x->id = (uint32_t)s->id;
        x->logprob = s->logprob;
        x->position = (uint32_t)s->position;
        x->rank = (uint32_t)s->rank;
        x->n_top = s->n_top;
        x->top = fill_top(s->top, s->n_top, out, a);
        if (x->top == NULL)
            return false;
    }
    return p->prompt_logprobs != NULL;
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
    bool ok = p.logprobs != NULL && fill_prompt(&p, m, out, &a);
    p.n_logprobs = m->n_tokens;
    for (uint32_t i = 0; ok && i < m->n_tokens; i++)
        ok = fill_logprobs(p.logprobs[i], &m->tokens[i], out, &a);
    if (ok)
        codec_pack(out, &p);
    codec_arena_fini(&a);
}

static bool read_top(Baton__V1__TokenLogprob **top, size_t n, struct codec_arena *a,
                     const struct msg_logprob **out)
{
    if (n > MSG_LOGPROBS_MAX)
        return false;
    struct msg_logprob *v = codec_alloc(a, n, sizeof *v);
    if (v == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (top[i]->id > INT32_MAX)
            return false;
        v[i] = (struct msg_logprob){(int32_t)top[i]->id, top[i]->logprob};
    }
    *out = v;
    return true;
}

static bool read_logprobs(const Baton__V1__TokenLogprobs *p, struct codec_arena *a,
                          struct msg_token *t)
{
    t->position = (int32_t)p->position;
    t->id = (int32_t)p->id;
    t->logprob = p->logprob;
    t->n_top = (uint32_t)p->n_top;
    return p->id <= INT32_MAX && p->position <= INT32_MAX && read_top(p->top, p->n_top, a, &t->top);
}

static bool read_prompt(const Baton__V1__GenerateResponse *p, struct codec_arena *a,
                        struct msg_generate_event *m)
{
    if (p->n_prompt_logprobs > MSG_TOKENS_MAX)
        return false;
    struct msg_score *v = codec_alloc(a, p->n_prompt_logprobs, sizeof *v);
    if (v == NULL)
        return false;
    for (size_t i = 0; i < p->n_prompt_logprobs; i++) {
        const Baton__V1__PromptLogprobs *x = p->prompt_logprobs[i];
        if (x->id > INT32_MAX || x->position > INT32_MAX || x->rank > INT32_MAX ||
            !read_top(x->top, x->n_top, a, &v[i].top))
            return false;
        v[i].id = (int32_t)x->id;
        v[i].position = (int32_t)x->position;
        v[i].rank = (int32_t)x->rank;
        v[i].logprob = x->logprob;
        v[i].n_top = (uint32_t)x->n_top;
    }
    m->prompt = v;
    m->n_prompt = (uint32_t)p->n_prompt_logprobs;
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
    return read_prompt(p, a, m) && read_usage(p->usage, m) ? ST_OK : ST_PROTOCOL;
}
