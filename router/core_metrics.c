#include "router/core_internal.h"

static struct metric *latency(struct core *c, const char *name, const char *labels,
                              const char *help)
{
    return metrics_histogram(c->args.metrics, name, labels, help, metrics_latency_bounds,
                             metrics_latency_bounds_n);
}

void core_metrics_register(struct core *c)
{
    struct metrics *x = c->args.metrics;
    static const char requests[] = "Requests that have ended, by outcome.";
    static const char phases[] = "Time of a request, by phase.";
    if (!x)
        return;
    c->m.ok = metrics_counter(x, "baton_requests_total", "outcome=\"ok\"", requests);
    c->m.cancelled = metrics_counter(x, "baton_requests_total", "outcome=\"cancelled\"", requests);
    c->m.failed = metrics_counter(x, "baton_requests_total", "outcome=\"failed\"", requests);
    c->m.refused = metrics_counter(x, "baton_requests_total", "outcome=\"refused\"", requests);
    c->m.running = metrics_gauge(x, "baton_requests_running", "", "Requests on nodes now.");
    c->m.waiting =
        metrics_gauge(x, "baton_requests_waiting", "", "Requests in the router's queue.");
    c->m.resumed = metrics_counter(x, "baton_requests_resumed_total", "",
                                   "Times a request that a node had accepted went back to the "
                                   "queue: after a loss or a preemption.");
    c->m.ttft = latency(c, "baton_time_to_first_token_seconds", "",
                        "From a request's arrival to its first token.");
    c->m.itl = latency(c, "baton_inter_token_latency_seconds", "",
                       "Between one token of a choice and the next.");
    c->m.queue = latency(c, "baton_request_seconds", "phase=\"queue\"", phases);
    c->m.prefill = latency(c, "baton_request_seconds", "phase=\"prefill\"", phases);
    c->m.transfer = latency(c, "baton_request_seconds", "phase=\"transfer\"", phases);
    c->m.decode = latency(c, "baton_request_seconds", "phase=\"decode\"", phases);
    c->m.total = latency(c, "baton_request_seconds", "phase=\"total\"", phases);
    c->m.prompt_tokens =
        metrics_counter(x, "baton_prompt_tokens_total", "", "Prompt tokens of ended requests.");
    c->m.generated_tokens = metrics_counter(x, "baton_generated_tokens_total", "",
                                            "Generated tokens of ended requests.");
    c->m.cached_tokens =
        metrics_counter(x, "baton_prompt_tokens_cached_total", "",
                        "Prompt tokens of ended requests whose KV was there already.");
}

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

void core_metrics_token(struct core *c, struct core_req *q, int32_t choice)
{
    struct core_choice *x = &q->choices[choice];
    if (c->m.ttft && !q->first_token_ns)
        metric_observe(c->m.ttft, seconds(c->now_ns - q->submitted_ns));
    if (c->m.itl && x->last_token_ns)
        metric_observe(c->m.itl, seconds(c->now_ns - x->last_token_ns));
    if (!q->first_token_ns)
        q->first_token_ns = c->now_ns;
    x->last_token_ns = c->now_ns;
}

void core_metrics_refused(struct core *c)
{
    if (c->m.refused)
        metric_inc(c->m.refused);
}

void core_metrics_resumed(struct core *c, struct core_req *q)
{
    if (c->m.resumed)
        metric_inc(c->m.resumed);
}

void core_metrics_end(struct core *c, struct core_req *q, const struct msg_usage *usage)
{
    const struct request *r = &q->sm;
    if (!c->m.ok)
        return;
    metric_inc(r->end_status == ST_OK          ? c->m.ok
               : r->end_status == ST_CANCELLED ? c->m.cancelled
                                               : c->m.failed);
    metric_observe(c->m.total, seconds(c->now_ns - q->submitted_ns));
    metric_observe(c->m.queue, seconds(q->waited_ns + (q->queued ? c->now_ns - q->queued_ns : 0)));
    if (q->first_token_ns) {
        metric_observe(c->m.prefill, seconds(q->first_token_ns - q->placed_ns));
        if (q->transfer_ns)
            metric_observe(c->m.transfer, seconds(q->transfer_ns));
        metric_observe(c->m.decode, seconds(c->now_ns - q->first_token_ns));
    }
    metric_add(c->m.prompt_tokens, usage->prompt_tokens);
    metric_add(c->m.generated_tokens, usage->completion_tokens);
    metric_add(c->m.cached_tokens, usage->cached_tokens);
}

void core_metrics_update(struct core *c)
{
    if (!c->m.running)
        return;
    metric_set(c->m.running, (double)slots_count(c->requests) - c->n_queued);
    metric_set(c->m.waiting, c->n_queued);
}
