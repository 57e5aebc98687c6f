#include "router/grpc_reading.h"

#include <stdlib.h>
#include <string.h>

static bool in_range(struct api_error *err, const char *name, double v, double min, double max)
{
    return (v >= min && v <= max) || api_fail(err, 400, "invalid_value", name,
                                              "%s: expected %g to %g, got %g.", name, min, max, v);
}

/* The rules of the HTTP API, for the fields that protobuf does not check. */
static bool check_generate(struct router *r, struct msg_generate *m, struct api_error *err)
{
    const struct msg_sampling *d = &r->rules.defaults;
    struct msg_sampling *s = &m->sampling;
    if (!m->has_temperature)
        s->temperature = d->temperature;
    if (!m->has_top_p)
        s->top_p = d->top_p;
    if (!m->has_top_k)
        s->top_k = d->top_k;
    if (!m->has_min_p)
        s->min_p = d->min_p;
    if (!m->has_repetition_penalty)
        s->repetition_penalty = d->repetition_penalty;
    if (m->prompt_only)
        s->max_tokens = s->min_tokens = 0;
    else if (s->max_tokens == 0)
        s->max_tokens = -1;
    bool ok = prompt_check_model(r, m->model, err) && in_range(err, "n", m->n, 1, r->rules.n_max) &&
              in_range(err, "temperature", s->temperature, 0, 2) &&
              in_range(err, "top_p", s->top_p, 1e-9, 1) && in_range(err, "min_p", s->min_p, 0, 1) &&
              in_range(err, "repetition_penalty", s->repetition_penalty, 1e-9, 100) &&
              in_range(err, "presence_penalty", s->presence_penalty, -2, 2) &&
              in_range(err, "frequency_penalty", s->frequency_penalty, -2, 2) &&
              in_range(err, "logprobs", s->logprobs, -1, r->rules.logprobs_max) &&
              in_range(err, "prompt_logprobs", m->prompt_logprobs, 0, r->rules.logprobs_max) &&
              in_range(err, "stop", m->n_stop, 0, r->rules.stop_max);
    for (uint32_t i = 0; ok && i < m->n_stop; i++)
        ok = in_range(err, "bytes of stop", (double)strlen(m->stop[i]), 1, API_STOP_BYTES_MAX);
    for (uint32_t i = 0; ok && i < s->n_bias; i++)
        ok = in_range(err, "logit_bias", s->bias[i].bias, -100, 100) &&
             in_range(err, "logit_bias", s->bias[i].id, 0, r->rules.vocab - 1);
    for (uint32_t i = 0; ok && i < s->stop_ids.n; i++)
        ok = in_range(err, "stop_token_ids", s->stop_ids.v[i], 0, r->rules.vocab - 1);
    for (uint32_t i = 0; ok && i < m->ids.n; i++)
        ok = in_range(err, "ids", m->ids.v[i], 0, r->rules.vocab - 1);
    ok = ok && prompt_check_grammar(r, &s->grammar, "sampling.grammar", 1, err);
    if (ok && s->max_tokens > 0 && s->min_tokens > s->max_tokens)
        ok = api_fail(err, 400, "invalid_value", "min_tokens",
                      "min_tokens: expected at most max_tokens.");
    return ok;
}

static enum status from_api(struct error *err, const struct api_error *why)
{
    return err_set(err, why->status == 404 ? ST_NOT_FOUND : ST_INVALID, "%s", why->message);
}

static enum status decode(struct grpc_reading *d, const uint8_t *data, size_t len)
{
    struct msg_generate *m = &d->m;
    enum status st = d->generate ? codec_get_generate(data, len, &d->arena, m)
                                 : codec_get_tokenize(data, len, &d->arena, &m->model, &m->text,
                                                      &m->add_special);
    d->decoded = true;
    if (st != ST_OK)
        return m->wrong
                   ? err_set(&d->err, ST_INVALID, "%s: out of range or over a limit.", m->wrong)
                   : err_set(&d->err, ST_INVALID, "The request is malformed or over a limit.");
    if (d->generate && m->ids.n == 0 && !m->text)
        return err_set(&d->err, ST_INVALID, "prompt: expected text or ids, got neither.");
    return ST_OK;
}

static enum status read_generate(struct grpc_reading *d)
{
    const struct msg_generate *m = &d->m;
    struct api_error why = {0};
    if (!check_generate(d->r, &d->m, &why))
        return from_api(&d->err, &why);
    if (desk_is_left(&d->job))
        return ST_CANCELLED;
    if (m->ids.n > 0) {
        if (!ids_append(&d->ids, m->ids.v, m->ids.n))
            return err_set(&d->err, ST_NO_MEMORY, "Out of memory.");
    } else {
        struct api_text_ref text = {m->text, strlen(m->text)};
        unsigned flags = TOKENIZE_PARSE_SPECIAL | (m->add_special ? TOKENIZE_ADD_SPECIAL : 0);
        if (!prompt_encode(d->r, text, flags, &d->ids, &why))
            return from_api(&d->err, &why);
    }
    if (m->has_prompt_logprobs && d->ids.n * (size_t)(m->prompt_logprobs + 1) > API_SCORES_MAX)
        return err_set(&d->err, ST_INVALID, "prompt_logprobs: more than %d are asked for.",
                       API_SCORES_MAX);
    return ST_OK;
}

static enum status read_tokenize(struct grpc_reading *d)
{
    const char *text = d->m.text;
    struct api_error why = {0};
    if (!prompt_check_model(d->r, d->m.model, &why))
        return from_api(&d->err, &why);
    if (strlen(text) > prompt_bytes_max(d->r))
        return err_set(&d->err, ST_INVALID, "text: longer than any prompt of this model can be.");
    unsigned flags = TOKENIZE_PARSE_SPECIAL | (d->m.add_special ? TOKENIZE_ADD_SPECIAL : 0);
    enum status st = tokenizer_encode(d->r->tokenizer, text, strlen(text), flags, &d->ids, &d->err);
    if (st == ST_OK) {
        struct msg_ids out = {.v = d->ids.v, .n = (uint32_t)d->ids.n};
        codec_put_tokenized(&d->out, &out);
    }
    return st;
}

static void work(struct desk_job *job)
{
    struct grpc_reading *d = (struct grpc_reading *)job;
    if (!d->decoded) {
        d->status = decode(d, (const uint8_t *)d->data.data, d->data.len);
        buf_fini(&d->data);
    }
    if (d->status == ST_OK && !desk_is_left(job))
        d->status = d->generate ? read_generate(d) : read_tokenize(d);
}

static void drop(struct desk_job *job)
{
    struct grpc_reading *d = (struct grpc_reading *)job;
    ids_fini(&d->ids);
    buf_fini(&d->out);
    buf_fini(&d->data);
    codec_arena_fini(&d->arena);
    free(d);
}

struct grpc_reading *grpc_reading_create(struct router *r, bool generate)
{
    struct grpc_reading *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->job.work = work;
    d->job.drop = drop;
    d->r = r;
    d->generate = generate;
    d->arrived_ns = r->now_ns;
    return d;
}

bool grpc_reading_begin(struct grpc_reading *d, const uint8_t *data, size_t len)
{
    if (len >= DESK_BYTES_MIN) {
        buf_append(&d->data, data, len);
        d->job.bytes = d->data.cap;
        if (d->data.failed)
            d->status = err_set(&d->err, ST_NO_MEMORY, "Out of memory.");
        return d->data.failed;
    }
    d->status = decode(d, data, len);
    const struct msg_grammar *g = &d->m.sampling.grammar;
    if (d->status == ST_OK && g->kind != MSG_GRAMMAR_NONE && !prompt_knows_grammar(d->r, g)) {
        d->job.bytes = len;
        return false;
    }
    work(&d->job);
    return true;
}
