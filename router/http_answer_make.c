/* An answer before it begins: made of the request, and its run started. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "router/http_answer.h"

void http_answer_free(struct answer *a)
{
    if (!a)
        return;
    for (size_t i = 0; a->slots && i < a->n_slots; i++) {
        buf_fini(&a->slots[i].text);
        api_tokens_fini(&a->slots[i].tokens);
        api_output_fini(&a->slots[i].output);
        free((char *)(uintptr_t)a->slots[i].stop_text);
    }
    for (size_t i = 0; a->prompts && i < a->n_prompts; i++) {
        buf_fini(&a->prompts[i].echo);
        api_tokens_fini(&a->prompts[i].tokens);
    }
    api_output_plan_fini(&a->plan);
    free(a->slots);
    free(a->prompts);
    buf_fini(&a->out);
    free(a);
}

static bool keep_echo(struct answer *a, const struct api_request *q, const struct ids *all,
                      size_t i)
{
    struct buf *echo = &a->prompts[i].echo;
    const struct api_prompt *p = &q->prompts[i];
    if (p->text)
        buf_append(echo, p->text, p->len);
    else
        tokenizer_decode(a->r->tokenizer, all[i].v, all[i].n, q->skip_special, echo);
    for (size_t k = 0; k < (size_t)a->n && !a->head.stream; k++)
        buf_append(&a->slots[i * (size_t)a->n + k].text, echo->data, echo->len);
    return !echo->failed;
}

/* What is said of the prompts themselves. */
static bool keep_prompts(struct answer *a, const struct api_request *q, const struct ids *all)
{
    a->echo = q->echo;
    a->echo_scores = q->echo && q->sampling.logprobs >= 0;
    a->prompt_scores = q->prompt_logprobs >= 0;
    a->head.prompt_top = q->prompt_logprobs;
    a->prompts = calloc(a->n_prompts, sizeof *a->prompts);
    if (!a->prompts)
        return false;
    for (size_t i = 0; i < a->n_prompts; i++) {
        if (q->echo && !keep_echo(a, q, all, i))
            return false;
        const struct msg_ids ids = {.v = all[i].v, .n = (uint32_t)all[i].n};
        if (api_score_top(q) >= 0 && !api_tokens_of_prompt(&a->prompts[i].tokens, ids))
            return false;
    }
    if (a->prompt_scores && q->kind == API_CHAT)
        a->head.chat_prompt = &a->prompts[0].tokens;
    return true;
}

static bool plan_output(struct answer *a, const struct http_order *o)
{
    if (!api_output_plan_init(&a->plan, o->req, a->r->formats, o->inside_reasoning))
        return false;
    for (size_t i = 0; i < a->n_slots && a->plan.parse; i++) {
        if (!api_output_init(&a->slots[i].output, &a->plan, &a->slots[i].text))
            return false;
    }
    return true;
}

struct answer *http_answer_create(const struct http_order *o)
{
    const struct api_request *req = o->req;
    struct answer *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->user.event = http_answer_event;
    a->r = o->r;
    a->n = req->n;
    a->usage_always = req->usage_always;
    a->n_prompts = req->kind == API_CHAT ? 1 : req->n_prompts;
    a->n_slots = a->n_prompts * (size_t)req->n;
    a->slots = calloc(a->n_slots, sizeof *a->slots);
    a->head = (struct api_answer){.kind = req->kind,
                                  .tokenizer = o->r->tokenizer,
                                  .created_s = clock_unix_ns() / NS_PER_S,
                                  .model = o->r->config->model.name,
                                  .logprobs = req->sampling.logprobs >= 0,
                                  .echo_top = req->sampling.logprobs,
                                  .stream = req->stream,
                                  .include_usage = req->include_usage};
    snprintf(a->head.id, sizeof a->head.id, "%s-%016llx%016llx",
             req->kind == API_CHAT ? "chatcmpl" : "cmpl", (unsigned long long)rng_entropy(),
             (unsigned long long)rng_entropy());
    if (a->slots && keep_prompts(a, req, o->all) && plan_output(a, o))
        return a;
    http_answer_free(a);
    return NULL;
}

static bool start_run(struct answer *a, const struct http_order *o, struct api_error *err)
{
    const struct api_request *q = o->req;
    struct msg_ids *prompts = calloc(a->n_prompts, sizeof *prompts);
    for (size_t i = 0; prompts && i < a->n_prompts; i++)
        prompts[i] = (struct msg_ids){.v = o->all[i].v, .n = (uint32_t)o->all[i].n};
    const struct run_args args = {.router = a->r,
                                  .ops = &http_answer_ops,
                                  .owner = a,
                                  .request_id = o->request_id,
                                  .arrived_ns = o->arrived_ns,
                                  .prompts = prompts,
                                  .n_prompts = a->n_prompts,
                                  .n = q->n,
                                  .has_seed = q->has_seed,
                                  .sampling = q->sampling,
                                  .score = api_score_top(q) >= 0,
                                  .score_top = api_score_top(q),
                                  .cache_salt = q->cache_salt,
                                  .stops = q->stops,
                                  .n_stops = q->n_stops,
                                  .include_stop = q->include_stop,
                                  .skip_special = q->skip_special,
                                  .tell_special = a->plan.parse};
    struct error why = {0};
    enum status st =
        prompts ? run_start(&args, &a->run, &why) : err_set(&why, ST_NO_MEMORY, "Out of memory.");
    free(prompts);
    if (st != ST_OK)
        api_fail_status(err, st, why.text);
    if (err->code && strcmp(err->code, "context_length_exceeded") == 0)
        snprintf(err->param, sizeof err->param, "%s", q->kind == API_CHAT ? "messages" : "prompt");
    return st == ST_OK;
}

bool http_answer_start(struct answer *a, struct http_request *q, const struct http_order *o,
                       struct api_error *err)
{
    if (!start_run(a, o, err))
        return false;
    a->q = q;
    a->r->answers++;
    http_set_user(q, &a->user);
    return true;
}
