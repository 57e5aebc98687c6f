/* The core's queue: what comes in, and its place. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "router/core_internal.h"

/* ---- the queue ---- */

static bool goes_before(const struct core_req *a, const struct core_req *b)
{
    return a->started != b->started ? a->started : a->arrival < b->arrival;
}

/* At its place: what is refused again and again loses nothing to what came after it. */
void core_enqueue(struct core *c, struct core_req *q)
{
    assert(!q->queued);
    struct list *at = &c->queue;
    while (at->prev != &c->queue && goes_before(q, list_entry(at->prev, struct core_req, queue)))
        at = at->prev;
    list_push_back(at, &q->queue);
    q->queued = true;
    q->queued_ns = q->fits_ns = c->now_ns;
    c->n_queued++;
}

void core_dequeue(struct core *c, struct core_req *q)
{
    list_remove(&q->queue);
    q->queued = false;
    q->waited_ns += c->now_ns - q->queued_ns;
    c->n_queued--;
}

/* ---- what comes in ---- */

/* Copies what the request points at into one block of memory. */
static bool copy_request(struct core_req *q, const struct core_request *req)
{
    size_t prompt = sizeof(int32_t) * req->prompt.n;
    size_t stops = sizeof(int32_t) * req->sampling.stop_ids.n;
    size_t bias = sizeof(struct msg_bias) * req->sampling.n_bias;
    size_t grammar = req->sampling.grammar.len;
    const char *salt = req->cache_salt ? req->cache_salt : "";
    const char *name = req->request_id ? req->request_id : "";
    size_t salt_bytes = strlen(salt) + 1, name_bytes = strlen(name) + 1;
    char *m = malloc(prompt + stops + bias + grammar + salt_bytes + name_bytes);
    q->choices = calloc((size_t)req->n, sizeof(*q->choices));
    q->memory = m;
    if (!m || !q->choices)
        return false;
    q->prompt = (struct msg_ids){.v = memcpy(m, req->prompt.v, prompt), .n = req->prompt.n};
    m += prompt;
    q->sampling = req->sampling;
    if (stops)
        q->sampling.stop_ids.v = memcpy(m, req->sampling.stop_ids.v, stops);
    m += stops;
    if (bias)
        q->sampling.bias = memcpy(m, req->sampling.bias, bias);
    m += bias;
    if (grammar)
        q->sampling.grammar.text = memcpy(m, req->sampling.grammar.text, grammar);
    m += grammar;
    q->cache_salt = memcpy(m, salt, salt_bytes);
    q->request_id = memcpy(m + salt_bytes, name, name_bytes);
    return true;
}

/* Whether it can be served at all, now or when there is room. */
static enum status check_request(const struct core *c, const struct core_request *req,
                                 struct error *err)
{
    const struct cluster *cl = &c->cluster;
    int64_t prompt = req->prompt.n, most = req->sampling.max_tokens;
    if (c->draining)
        return err_set(err, ST_LINK, "The server is shutting down.");
    if (!cluster_ready(cl))
        return err_set(err, ST_LINK, "No decode node is available.");
    if (req->n < 1 || req->n > MSG_CHOICES_MAX)
        return err_set(err, ST_INVALID, "n must be between 1 and %d.", MSG_CHOICES_MAX);
    if (prompt < 1)
        return err_set(err, ST_INVALID, "The prompt must have at least one token.");
    if (prompt >= cl->max_context || prompt + most > cl->max_context)
        return err_set(err, ST_INVALID,
                       "This model's maximum context length is %d tokens. However, you requested "
                       "%lld output tokens and your prompt contains %lld input tokens, for a total "
                       "of %lld tokens. Please reduce the length of the input prompt or the number "
                       "of requested output tokens.",
                       cl->max_context, (long long)most, (long long)prompt,
                       (long long)(prompt + most));
    const struct cluster_need need = {
        .tokens = prompt, .choices = req->n, .context = prompt + most};
    if (!cluster_fits(cl, &need, false))
        return err_set(err, ST_NEVER_FITS,
                       "The prompt contains %lld input tokens and %d choices are asked for: no "
                       "decode node has the memory for that. Please reduce the length of the "
                       "input prompt.",
                       (long long)prompt, req->n);
    if (c->n_queued >= c->args.config->router.queue_max)
        return err_set(err, ST_BUSY, "Too many requests are waiting.");
    return ST_OK;
}

static enum status take_request(struct core *c, const struct core_request *req, slot_id *out,
                                struct error *err)
{
    slot_id id;
    struct core_req *q = slots_alloc(c->requests, &id);
    if (!q)
        return err_set(err, ST_BUSY, "Too many requests at once.");
    list_init(&q->queue);
    q->id = id;
    if (!copy_request(q, req) || request_init(&q->sm, req->n, c->now_ns) != ST_OK) {
        core_req_free(c, q);
        return err_set(err, ST_NO_MEMORY, "no memory for the request");
    }
    q->client = req->client;
    q->score_top = req->score_top;
    if (req->score)
        request_want_scores(&q->sm, (int32_t)req->prompt.n);
    q->arrival = ++c->arrivals;
    q->d_node = q->p_node = -1;
    q->submitted_ns = req->arrived_ns ? req->arrived_ns : c->now_ns;
    q->consumed_ns = c->now_ns;
    q->deadline_ns = q->submitted_ns + c->args.config->timeouts.request_ns;
    q->window = c->args.credit_window > 0 ? c->args.credit_window : 64;
    if (q->window < 4 * req->n)
        q->window = 4 * req->n;
    core_enqueue(c, q);
    *out = id;
    return ST_OK;
}

enum status core_submit(struct core *c, const struct core_request *req, int64_t now_ns,
                        slot_id *out, struct error *err)
{
    c->now_ns = now_ns;
    enum status st = check_request(c, req, err);
    if (st == ST_OK)
        st = take_request(c, req, out, err);
    if (st != ST_OK)
        core_metrics_refused(c);
    return st;
}
