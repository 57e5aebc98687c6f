#include "router/run.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "router/router.h"

struct part {
    struct run *run;
    slot_id id;
    int32_t first;   /* index of its first choice */
    int32_t pending; /* tokens given to the owner and not known to be out */
    bool ended, begun;
};

struct choice {
    struct api_text *text;
    bool over;
    int64_t last_ns; /* when its last token came; 0: none has */
};

struct run {
    struct list all;
    struct router *router;
    const struct run_ops *ops; /* NULL: abandoned */
    void *owner;
    struct part *parts;
    struct choice *choices;
    size_t n_parts, live;
    int32_t n;
    struct msg_sampling sampling; /* its arrays are ours */
    int32_t *stop_ids;
    struct api_text_ref *stops;
    char *stop_bytes;
    size_t n_stops;
    struct buf text;
    size_t special; /* bytes of a special token at the end of it */
    enum status failed;
    char failed_copy[256];
    struct msg_usage usage;
    int64_t started_ns;
};

static void run_free(struct run *r)
{
    for (size_t i = 0; r->choices && i < r->n_parts * (size_t)r->n; i++)
        api_text_destroy(r->choices[i].text);
    list_remove(&r->all);
    buf_fini(&r->text);
    free(r->choices);
    free(r->parts);
    free(r->stop_ids);
    free(r->stops);
    free(r->stop_bytes);
    free(r);
}

static bool copy_stops(struct run *r, const struct run_args *a)
{
    size_t bytes = 1;
    for (size_t i = 0; i < a->n_stops; i++)
        bytes += a->stops[i].len + 1;
    r->stops = calloc(a->n_stops + 1, sizeof *r->stops);
    r->stop_bytes = calloc(1, bytes);
    r->stop_ids = calloc(a->sampling.stop_ids.n + 1, sizeof *r->stop_ids);
    if (!r->stops || !r->stop_bytes || !r->stop_ids)
        return false;
    char *at = r->stop_bytes;
    for (size_t i = 0; i < a->n_stops; i++) {
        memcpy(at, a->stops[i].text, a->stops[i].len);
        r->stops[i] = (struct api_text_ref){at, a->stops[i].len};
        at += a->stops[i].len + 1;
    }
    r->n_stops = a->n_stops;
    for (uint32_t i = 0; i < a->sampling.stop_ids.n; i++)
        r->stop_ids[i] = a->sampling.stop_ids.v[i];
    return true;
}

static struct run *run_create(const struct run_args *a)
{
    struct run *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    list_init(&r->all);
    r->router = a->router;
    r->ops = a->ops;
    r->owner = a->owner;
    r->n_parts = a->n_prompts;
    r->n = a->n;
    r->sampling = a->sampling;
    r->parts = calloc(a->n_prompts, sizeof *r->parts);
    r->choices = calloc(a->n_prompts * (size_t)a->n, sizeof *r->choices);
    bool ok = copy_stops(r, a) && r->parts && r->choices;
    const struct api_text_args text = {.tokenizer = a->router->tokenizer,
                                       .stops = r->stops,
                                       .n_stops = r->n_stops,
                                       .include_stop = a->include_stop,
                                       .skip_special = a->skip_special,
                                       .tell_special = a->tell_special,
                                       .min_tokens = a->sampling.min_tokens};
    for (size_t i = 0; ok && i < a->n_prompts * (size_t)a->n; i++) {
        r->choices[i].text = api_text_create(&text, a->prompts[i / (size_t)a->n]);
        ok = r->choices[i].text != NULL;
    }
    if (!ok) {
        run_free(r);
        return NULL;
    }
    r->sampling.stop_ids.v = r->stop_ids;
    r->sampling.bias = NULL;
    r->sampling.n_bias = 0;
    r->sampling.grammar = (struct msg_grammar){0};
    return r;
}

static enum status submit(struct run *r, const struct run_args *a, size_t i, struct error *err)
{
    struct part *p = &r->parts[i];
    struct core_request q = {.request_id = a->request_id,
                             .prompt = a->prompts[i],
                             .n = a->n,
                             .sampling = a->sampling,
                             .score = a->score,
                             .score_top = a->score_top,
                             .arrived_ns = a->arrived_ns,
                             .cache_salt = a->cache_salt,
                             .client = p};
    int64_t room = (int64_t)router_max_context(r->router) - q.prompt.n;
    if (q.sampling.max_tokens < 0)
        q.sampling.max_tokens = room > 1 ? (int32_t)room : 1;
    if (q.sampling.min_tokens > q.sampling.max_tokens)
        q.sampling.min_tokens = q.sampling.max_tokens;
    /* With a seed of the client's each prompt draws as if it were alone. */
    if (!a->has_seed)
        q.sampling.seed = rng_entropy();
    *p = (struct part){.run = r, .first = (int32_t)i * r->n};
    enum status st = core_submit(r->router->core, &q, r->router->now_ns, &p->id, err);
    if (st == ST_OK)
        r->live++;
    return st;
}

enum status run_start(const struct run_args *args, struct run **out, struct error *err)
{
    struct run *r = run_create(args);
    if (!r)
        return err_set(err, ST_NO_MEMORY, "Out of memory.");
    r->started_ns = args->arrived_ns;
    enum status st = ST_OK;
    for (size_t i = 0; i < r->n_parts && st == ST_OK; i++)
        st = submit(r, args, i, err);
    if (st != ST_OK) {
        /* Those that were submitted end before it can be freed. */
        if (r->live == 0) {
            run_free(r);
        } else {
            list_push_back(&args->router->runs, &r->all);
            run_abandon(r);
        }
        return st;
    }
    list_push_back(&args->router->runs, &r->all);
    *out = r;
    return ST_OK;
}

void run_consumed(struct run *r)
{
    for (size_t i = 0; i < r->n_parts; i++) {
        struct part *p = &r->parts[i];
        if (p->pending && !p->ended)
            core_consumed(r->router->core, p->id, p->pending);
        p->pending = 0;
    }
}

size_t run_special_bytes(const struct run *r)
{
    return r->special;
}

void run_cancel(struct run *r, enum status status, const char *text)
{
    for (size_t i = 0; i < r->n_parts; i++) {
        if (r->parts[i].id && !r->parts[i].ended)
            core_cancel(r->router->core, r->parts[i].id, status, text);
    }
}

void run_abandon(struct run *r)
{
    r->ops = NULL;
    run_cancel(r, ST_CANCELLED, "The client has gone.");
}

void run_nodes(const struct run *r, const char **prefill, const char **decode)
{
    core_nodes(r->router->core, r->parts[0].id, prefill, decode);
}

static void add_usage(struct msg_usage *to, const struct msg_usage *u)
{
    to->prompt_tokens += u->prompt_tokens;
    to->cached_tokens += u->cached_tokens;
    to->completion_tokens += u->completion_tokens;
}

struct msg_usage run_usage(const struct run *r)
{
    struct msg_usage all = r->usage, u;
    for (size_t i = 0; i < r->n_parts; i++) {
        if (r->parts[i].ended)
            continue;
        core_usage(r->router->core, r->parts[i].id, &u);
        add_usage(&all, &u);
    }
    return all;
}

struct run *run_of(struct list *member)
{
    return list_entry(member, struct run, all);
}

/* ---- from the core ---- */

static bool is_stop_id(const struct run *r, const struct msg_token *t)
{
    if (t->position < r->sampling.min_tokens)
        return false;
    for (size_t i = 0; i < r->router->n_eos && !r->sampling.ignore_eos; i++) {
        if (r->router->eos[i] == t->id)
            return true;
    }
    for (uint32_t i = 0; i < r->sampling.stop_ids.n; i++) {
        if (r->stop_ids[i] == t->id)
            return true;
    }
    return false;
}

static struct api_text_ref text_of(const struct run *r)
{
    return (struct api_text_ref){r->text.data ? r->text.data : "", r->text.len};
}

static void count_finish(struct run *r, enum msg_finish_reason reason)
{
    struct metric *m = reason == MSG_FINISH_STOP ? r->router->vllm.stop : r->router->vllm.length;
    if (m)
        metric_inc(m);
}

static void measure(struct part *p, struct choice *c)
{
    struct router *router = p->run->router;
    if (router->vllm.ttft && !p->begun)
        metric_observe(router->vllm.ttft, (double)(router->now_ns - p->run->started_ns) / 1e9);
    if (router->vllm.itl && c->last_ns)
        metric_observe(router->vllm.itl, (double)(router->now_ns - c->last_ns) / 1e9);
    p->begun = true;
    c->last_ns = router->now_ns;
}

void run_on_scores(void *part, const struct msg_score *s, int32_t n)
{
    struct part *p = part;
    if (p->run->ops && p->run->ops->scores)
        p->run->ops->scores(p->run->owner, (size_t)(p - p->run->parts), s, n);
}

void run_on_token(void *part, const struct msg_token *t)
{
    struct part *p = part;
    struct run *r = p->run;
    assert(t->choice >= 0 && t->choice < r->n);
    int32_t index = p->first + t->choice;
    struct choice *c = &r->choices[index];
    measure(p, c);
    if (!r->ops || c->over) {
        core_consumed(r->router->core, p->id, 1);
        return;
    }
    p->pending++;
    int stop = -1;
    buf_clear(&r->text);
    r->special = 0;
    if (!is_stop_id(r, t)) {
        stop = api_text_push(c->text, t->id, &r->text);
        r->special = api_text_special_bytes(c->text);
    }
    r->ops->delta(r->owner, index, text_of(r), t);
    if (stop < 0 || !r->ops)
        return;
    c->over = true;
    core_stop_choice(r->router->core, p->id, t->choice);
    count_finish(r, MSG_FINISH_STOP);
    r->ops->finish(r->owner, index,
                   &(struct run_finish){
                       .reason = MSG_FINISH_STOP, .stop_text = r->stops[stop].text, .stop_id = -1});
}

static bool is_eos(const struct run *r, int32_t id)
{
    for (size_t i = 0; i < r->router->n_eos; i++) {
        if (r->router->eos[i] == id)
            return true;
    }
    return false;
}

void run_on_finish(void *part, const struct msg_finish *f)
{
    struct part *p = part;
    struct run *r = p->run;
    assert(f->choice >= 0 && f->choice < r->n);
    int32_t index = p->first + f->choice;
    struct choice *c = &r->choices[index];
    if (!r->ops || c->over)
        return;
    c->over = true;
    buf_clear(&r->text);
    r->special = 0;
    int stop = api_text_finish(c->text, &r->text);
    if (r->text.len)
        r->ops->delta(r->owner, index, text_of(r), NULL);
    if (!r->ops)
        return;
    struct run_finish out = {.reason = stop >= 0 ? MSG_FINISH_STOP : f->reason,
                             .stop_text = stop >= 0 ? r->stops[stop].text : NULL,
                             .stop_id = stop < 0 && !is_eos(r, f->stop_id) ? f->stop_id : -1};
    count_finish(r, out.reason);
    r->ops->finish(r->owner, index, &out);
}

void run_on_end(void *part, enum status status, const char *text, const struct msg_usage *usage)
{
    struct part *p = part;
    struct run *r = p->run;
    p->ended = true;
    r->live--;
    add_usage(&r->usage, usage);
    if (r->router->vllm.e2e) {
        metric_add(r->router->vllm.prompt_tokens, usage->prompt_tokens);
        metric_add(r->router->vllm.generated, usage->completion_tokens);
        metric_observe(r->router->vllm.e2e, (double)(r->router->now_ns - r->started_ns) / 1e9);
    }
    if (status != ST_OK && r->failed == ST_OK) {
        r->failed = status;
        snprintf(r->failed_copy, sizeof r->failed_copy, "%s", text ? text : "");
        run_cancel(r, ST_CANCELLED, "Another part of the request has failed.");
    }
    if (r->live)
        return;
    if (r->ops)
        r->ops->end(r->owner, r->failed, r->failed_copy, &r->usage);
    run_free(r);
}
