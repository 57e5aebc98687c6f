/* What a node tells about itself: Admin.Status and Drain, /metrics, /health. */
#include "node/node_internal.h"

#include <string.h>

#include "base/log.h"

#define PREFILL_SLOTS 8 /* one computes, others wait for their KV to land or come next */

static const char *const block_states[] = {"free",    "reserved", "receiving",
                                           "running", "cached",   "quarantined"};

void node_metrics_register(struct node *n)
{
    struct metrics *x = n->metrics;
    static const char step_help[] = "Duration of engine steps, by what was in them.";
    for (size_t i = 0; i < 6; i++) {
        char labels[64] = "state=\"";
        strcat(strcat(labels, block_states[i]), "\"");
        n->m.blocks[i] = metrics_gauge(x, "baton_kv_blocks", labels, "KV blocks by state.");
    }
    n->m.capacity = metrics_gauge(x, "baton_kv_blocks_capacity", "", "KV blocks in all.");
    n->m.prefix_hit = metrics_counter(x, "baton_prefix_hit_tokens_total", "",
                                      "Prompt tokens whose KV was found in the prefix cache.");
    n->m.preemptions = metrics_counter(x, "baton_preemptions_total", "",
                                       "Requests that gave way because blocks ran out.");
    n->m.running = metrics_gauge(x, "baton_requests_running", "", "Sequences in the batch.");
    n->m.waiting = metrics_gauge(x, "baton_requests_waiting", "",
                                 "Reserved requests whose KV is not complete.");
    n->m.step_prefill = metrics_histogram(x, "baton_step_seconds", "kind=\"prefill\"", step_help,
                                          metrics_step_bounds, metrics_step_bounds_n);
    n->m.step_decode = metrics_histogram(x, "baton_step_seconds", "kind=\"decode\"", step_help,
                                         metrics_step_bounds, metrics_step_bounds_n);
    n->m.step_mixed = metrics_histogram(x, "baton_step_seconds", "kind=\"mixed\"", step_help,
                                        metrics_step_bounds, metrics_step_bounds_n);
    static const double token_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};
    n->m.step_tokens =
        metrics_histogram(x, "baton_step_tokens", "", "Tokens computed in a step.", token_bounds,
                          sizeof(token_bounds) / sizeof(token_bounds[0]));
    /* Nothing drafts yet: the two stay 0, and dashboards find them. */
    metrics_counter(x, "baton_spec_drafted_tokens_total", "", "Tokens that a draft proposed.");
    metrics_counter(x, "baton_spec_accepted_tokens_total", "", "Drafted tokens that were kept.");
    n->m.damaged = metrics_counter(x, "baton_kv_checksum_failures_total", "",
                                   "Slices that arrived with a wrong CRC32C.");
    n->m.unknown = metrics_counter(x, "baton_kv_unknown_tickets_total", "",
                                   "Handoff frames for a ticket that is not (or no longer) known.");
    n->m.missing = metrics_counter(x, "baton_kv_missing_rounds_total", "",
                                   "Times a receiver asked for slices again.");
    n->m.links_lost =
        metrics_counter(x, "baton_kv_links_lost_total", "", "KV connections that broke.");
    n->m.refused = metrics_counter(x, "baton_kv_frames_refused_total", "",
                                   "Handoff frames that made no sense.");
}

static void count_to(struct metric *x, int64_t now, int64_t *seen)
{
    metric_add(x, (double)(now - *seen));
    *seen = now;
}

static void refresh_metrics(struct node *n)
{
    struct engine_load l;
    struct mover_stats s;
    engine_load(n->engine, &l);
    transfer_stats(n->transfer, &s);
    const int64_t blocks[] = {l.blocks.free,    l.blocks.reserved, l.blocks.receiving,
                              l.blocks.running, l.blocks.cached,   l.blocks.quarantined};
    for (size_t i = 0; i < 6; i++)
        metric_set(n->m.blocks[i], (double)blocks[i]);
    metric_set(n->m.capacity, (double)l.blocks.total);
    metric_set(n->m.running, l.running);
    metric_set(n->m.waiting, l.waiting);
    count_to(n->m.prefix_hit, l.prefix_hit_tokens_total, &n->m.prefix_hit_seen);
    count_to(n->m.preemptions, l.preemptions_total, &n->m.preemptions_seen);
    count_to(n->m.damaged, s.checksum_failures, &n->m.damaged_seen);
    count_to(n->m.unknown, s.unknown_tickets, &n->m.unknown_seen);
    count_to(n->m.missing, s.missing_rounds, &n->m.missing_seen);
    count_to(n->m.links_lost, s.links_lost, &n->m.links_seen);
    count_to(n->m.refused, s.frames_refused, &n->m.refused_seen);
}

static void put_status(struct node *n)
{
    struct engine_load l;
    struct fingerprint f = model_fingerprint(n->model);
    const struct model_config *mc = model_get_config(n->model);
    engine_load(n->engine, &l);
    bool prefill = strcmp(n->role_ops->name, "prefill") == 0;
    struct msg_status s = {
        .name = n->config->node.name,
        .role = n->aggregated ? "both" : n->role_ops->name,
        .model = n->config->model.name,
        .fingerprint = {f.w[0], f.w[1]},
        .boot = n->boot,
        .wire_min = MSG_WIRE_VERSION,
        .wire_max = MSG_WIRE_VERSION,
        .draining = n->drain_ns != 0,
        .ready = true,
        .max_context = mc->max_context,
        .vocab = mc->vocab,
        .running = l.running,
        .waiting = l.waiting,
        .waiting_tokens = l.prefill_tokens_left,
        .slots = n->config->engine.max_batch,
        .blocks = l.blocks,
        .block_tokens = n->layout.block_tokens,
        .room_tokens = engine_room_tokens(n->engine, prefill),
        .prefill_ns_per_token = l.prefill_ns_per_token,
        .decode_ns_per_step = l.decode_ns_per_step,
        .http = n->http_address,
    };
    if (n->config->model.max_context > 0 && n->config->model.max_context < s.max_context)
        s.max_context = (int32_t)n->config->model.max_context;
    if (prefill && s.slots > PREFILL_SLOTS)
        s.slots = PREFILL_SLOTS;
    buf_clear(&n->out);
    codec_put_status(&n->out, &s);
}

void node_drain(struct node *n)
{
    if (n->drain_ns)
        return;
    log_info("drain", "node=%s", n->config->node.name);
    n->drain_ns = clock_now_ns();
    n->role_ops->drain(n->role, false);
    rpc_set_serving(n->rpc, false);
}

bool node_admin_open(struct node *n, struct rpc_call *call)
{
    if (n->n_admin == NODE_ADMIN_CALLS_MAX)
        return false;
    n->admin[n->n_admin].call = call;
    n->admin[n->n_admin++].opened_ns = clock_now_ns();
    return true;
}

void node_admin_closed(struct node *n, struct rpc_call *call)
{
    for (int i = 0; i < n->n_admin; i++)
        if (n->admin[i].call == call)
            n->admin[i--] = n->admin[--n->n_admin];
}

void node_admin_check_time(struct node *n, int64_t now_ns)
{
    for (int i = 0; i < n->n_admin; i++)
        if (now_ns - n->admin[i].opened_ns >= NODE_OPEN_NS) /* said twice is said once */
            rpc_call_finish(n->admin[i].call, ST_DEADLINE, "no request came");
}

void node_admin_call(struct node *n, struct rpc_call *call, int method)
{
    if (method == NODE_METHOD_DRAIN)
        node_drain(n);
    put_status(n);
    enum status st = n->out.failed ? ST_NO_MEMORY
                                   : rpc_call_send(call, (const uint8_t *)n->out.data, n->out.len);
    rpc_call_finish(call, st, st == ST_OK ? "" : "no status");
}

static void respond_text(struct http_request *r, int status, const char *text)
{
    http_respond(r, status, "text/plain; charset=utf-8", text, strlen(text));
}

void node_http(struct node *n, struct http_request *r)
{
    const char *path = http_path(r);
    if (strcmp(http_method(r), "GET") != 0) {
        respond_text(r, 405, "only GET\n");
    } else if (strcmp(path, "/metrics") == 0) {
        refresh_metrics(n);
        buf_clear(&n->out);
        metrics_render(n->metrics, &n->out);
        http_respond(r, 200, "text/plain; version=0.0.4; charset=utf-8", n->out.data, n->out.len);
    } else if (strcmp(path, "/health/live") == 0) {
        respond_text(r, 200, "ok\n");
    } else if (strcmp(path, "/health/ready") == 0 || strcmp(path, "/health") == 0) {
        if (n->drain_ns)
            http_set_header(r, "Retry-After", "5");
        respond_text(r, n->drain_ns ? 503 : 200, n->drain_ns ? "draining\n" : "ok\n");
    } else {
        respond_text(r, 404, "not found\n");
    }
    http_release(r);
}
