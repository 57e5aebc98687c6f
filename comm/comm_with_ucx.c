/* comm/ucx.h over UCX's active messages.
 *
 * Every connection is made through a listener, so that both ends have an endpoint of their own with
 * an error handler: an endpoint that UCX makes by itself for replies is freed by UCX when the peer
 * dies, without a word. Endpoints are in peer-error mode; a broken one is closed by force, which
 * makes all that is posted on it complete.
 *
 * Data goes by rendezvous only, and over TCP as messages, never as remote writes: TCP_PUT_ENABLE=n
 * means that no peer can name an address here. KEEPALIVE_INTERVAL=inf because UCX's own keepalive
 * keeps TCP's from noticing a partition. */
#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucp/api/ucp.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "comm/comm_ucx_address.h"
#include "comm/comm_ucx_guard.h"
#include "comm/ucx.h"

#define DESTROY_NS (8 * NS_PER_S)

struct ucx_ep {
    struct list in_worker;
    struct ucx_worker *worker;
    ucp_ep_h handle;
    void *user;
    struct list data; /* announced and not yet pulled or dropped */
    int32_t posted;   /* sends and pulls that are not quiet */
    size_t posted_bytes;
    bool broken; /* to be closed by force */
    bool closing, close_done;
};

struct ucx_data {
    struct list in_ep;
    struct ucx_worker *worker;
    struct ucx_ep *ep; /* NULL: it has gone */
    void *descriptor;
    size_t bytes;
};

/* A send or a pull under way. */
struct op {
    struct ucx_ep *ep;
    enum ucx_op what;
    bool report; /* data: done() is due */
    uint64_t token;
    size_t bytes; /* to be pulled */
    size_t header_bytes;
    uint8_t header[];
};

struct ucx_worker {
    struct ucx_handlers on;
    void *ctx;
    ucp_context_h context;
    ucp_worker_h handle;
    ucp_listener_h listener;
    int fd;
    char address[UCX_ADDRESS_TEXT_BYTES];
    char transports[128];
    size_t header_max;
    struct list eps;
    int32_t n_eps;
    bool work; /* an endpoint broke or finished closing since the last sweep */
    struct kind {
        struct ucx_worker *worker;
        uint32_t kind;
    } kinds[UCX_KINDS];
};

/* ---- completions ---- */

static void op_done(struct op *o, ucs_status_t st)
{
    struct ucx_ep *ep = o->ep;
    struct ucx_worker *w = ep->worker;
    ep->posted--;
    ep->posted_bytes -= o->header_bytes;
    if (ep->closing)
        w->work = true;
    if (o->report)
        w->on.done(w->ctx, ep->user, o->what, o->token, st == UCS_OK ? ST_OK : ST_LINK);
    free(o);
}

static void send_callback(void *request, ucs_status_t st, void *op)
{
    op_done(op, st);
    ucp_request_free(request);
}

static void pull_callback(void *request, ucs_status_t st, size_t bytes, void *op)
{
    struct op *o = op;
    op_done(o, st == UCS_OK && bytes != o->bytes ? UCS_ERR_MESSAGE_TRUNCATED : st);
    ucp_request_free(request);
}

static void close_callback(void *request, ucs_status_t st, void *ep)
{
    ((struct ucx_ep *)ep)->close_done = true;
    ((struct ucx_ep *)ep)->worker->work = true;
    ucp_request_free(request);
}

/* ---- endpoints ---- */

static void on_error(void *arg, ucp_ep_h handle, ucs_status_t st)
{
    struct ucx_ep *ep = arg;
    log_debug("ucx_link_broken", "reason=\"%s\"", ucs_status_string(st));
    ep->broken = true;
    ep->worker->work = true;
}

static struct ucx_ep *ep_alloc(struct ucx_worker *w)
{
    struct ucx_ep *ep = w->n_eps < UCX_EPS_MAX ? calloc(1, sizeof(*ep)) : NULL;
    if (!ep)
        return NULL;
    ep->worker = w;
    list_init(&ep->data);
    list_push_back(&w->eps, &ep->in_worker);
    w->n_eps++;
    return ep;
}

static void ep_free(struct ucx_ep *ep)
{
    assert(list_empty(&ep->data) && ep->posted == 0);
    list_remove(&ep->in_worker);
    ep->worker->n_eps--;
    free(ep);
}

static ucs_status_t ep_open(struct ucx_ep *ep, ucp_ep_params_t *p)
{
    p->field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
    p->err_mode = UCP_ERR_HANDLING_MODE_PEER;
    p->err_handler.cb = on_error;
    p->err_handler.arg = ep;
    return ucp_ep_create(ep->worker->handle, p, &ep->handle);
}

static void on_connection(ucp_conn_request_h request, void *arg)
{
    struct ucx_worker *w = arg;
    struct ucx_ep *ep = ep_alloc(w);
    ucp_ep_params_t p = {.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST, .conn_request = request};
    if (!ep) {
        log_warn("ucx_refused", "connections=%d", w->n_eps);
        ucp_listener_reject(w->listener, request);
        return;
    }
    if (ep_open(ep, &p) != UCS_OK) { /* UCX has disposed of the request */
        ep_free(ep);
        return;
    }
    log_debug("ucx_accepted", "n=%d", w->n_eps);
    ep->user = w->on.accepted(w->ctx, ep);
    if (!ep->user)
        ucx_ep_close(ep);
}

enum status ucx_ep_connect(struct ucx_worker *w, const void *address, size_t bytes, void *user,
                           struct ucx_ep **out, struct error *err)
{
    struct sockaddr_storage to;
    socklen_t len;
    if (!ucx_address_parse(address, bytes, &to, &len))
        return err_set(err, ST_INVALID, "ucx: not an address");
    struct ucx_ep *ep = ep_alloc(w);
    if (!ep)
        return err_set(err, ST_BUSY, "ucx: too many connections");
    ucp_ep_params_t p = {.field_mask = UCP_EP_PARAM_FIELD_SOCK_ADDR | UCP_EP_PARAM_FIELD_FLAGS,
                         .flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER,
                         .sockaddr = {(struct sockaddr *)&to, len}};
    ep->user = user;
    ucs_status_t st = ep_open(ep, &p);
    if (st != UCS_OK) {
        ep_free(ep);
        return err_set(err, ST_LINK, "ucx: connecting: %s", ucs_status_string(st));
    }
    *out = ep;
    return ST_OK;
}

void ucx_ep_close(struct ucx_ep *ep)
{
    if (ep->closing)
        return;
    ep->closing = true;
    ep->worker->work = true;
    list_for_each_safe(it, next, &ep->data)
    {
        struct ucx_data *d = list_entry(it, struct ucx_data, in_ep);
        list_remove(it);
        ucp_am_data_release(ep->worker->handle, d->descriptor);
        d->descriptor = NULL;
        d->ep = NULL;
    }
    ucp_request_param_t p = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK |
                                             UCP_OP_ATTR_FIELD_USER_DATA,
                             .flags = UCP_EP_CLOSE_FLAG_FORCE,
                             .cb.send = close_callback,
                             .user_data = ep};
    ucs_status_ptr_t r = ucp_ep_close_nbx(ep->handle, &p);
    if (!UCS_PTR_IS_PTR(r))
        ep->close_done = true;
}

/* Closes what broke, and tells of what has become quiet. */
static void sweep(struct ucx_worker *w)
{
    while (w->work) {
        w->work = false;
        list_for_each_safe(it, next, &w->eps)
        {
            struct ucx_ep *ep = list_entry(it, struct ucx_ep, in_worker);
            if (ep->broken)
                ucx_ep_close(ep);
            if (!ep->close_done || ep->posted > 0)
                continue;
            void *user = ep->user;
            ep_free(ep);
            if (user)
                w->on.closed(w->ctx, user);
        }
    }
}

/* ---- messages ---- */

static struct ucx_ep *ep_find(struct ucx_worker *w, ucp_ep_h handle)
{
    list_for_each(it, &w->eps)
    {
        struct ucx_ep *ep = list_entry(it, struct ucx_ep, in_worker);
        if (ep->handle == handle && !ep->closing && !ep->broken)
            return ep;
    }
    return NULL;
}

static ucs_status_t on_message(void *arg, const void *header, size_t header_bytes, void *data,
                               size_t bytes, const ucp_am_recv_param_t *p)
{
    struct kind *k = arg;
    struct ucx_worker *w = k->worker;
    bool announced = p->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV;
    struct ucx_ep *ep = NULL;
    if (p->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP)
        ep = ep_find(w, p->reply_ep);
    if (!ep || (!announced && header_bytes > 0)) /* of a connection given up, or not ours */
        return UCS_OK;
    struct ucx_message m = {.kind = k->kind,
                            .header = announced ? header : data,
                            .header_bytes = announced ? header_bytes : bytes};
    if (announced) {
        struct ucx_data *d = calloc(1, sizeof(*d));
        if (!d)
            return UCS_OK;
        d->worker = w;
        d->ep = ep;
        d->descriptor = data;
        d->bytes = bytes;
        list_push_back(&ep->data, &d->in_ep);
        m.data = d;
        m.data_bytes = bytes;
    }
    if (w->on.arrived(w->ctx, ep->user, &m))
        return announced ? UCS_INPROGRESS : UCS_OK;
    if (m.data) { /* UCX tells the sender */
        list_remove(&m.data->in_ep);
        free(m.data);
    }
    return UCS_OK;
}

enum status ucx_ep_send(struct ucx_ep *ep, const struct ucx_send *s)
{
    assert(s->kind < UCX_KINDS && (!s->data || s->data_bytes > 0));
    if (ep->closing || ep->broken)
        return ST_LINK;
    if (s->data && s->header_bytes > ep->worker->header_max)
        return ST_INVALID;
    if (ep->posted_bytes + s->header_bytes > UCX_POSTED_BYTES_MAX)
        return ST_BUSY;
    struct op *o = malloc(sizeof(*o) + s->header_bytes);
    if (!o)
        return ST_BUSY;
    *o = (struct op){.ep = ep,
                     .what = UCX_SENT,
                     .report = s->data != NULL,
                     .token = s->token,
                     .header_bytes = s->header_bytes};
    memcpy(o->header, s->header, s->header_bytes);
    ucp_request_param_t p = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK |
                                             UCP_OP_ATTR_FIELD_USER_DATA,
                             .flags = UCP_AM_SEND_FLAG_REPLY,
                             .cb.send = send_callback,
                             .user_data = o};
    ep->posted++;
    ep->posted_bytes += s->header_bytes;
    ucs_status_ptr_t r;
    if (s->data) {
        p.flags |= UCP_AM_SEND_FLAG_RNDV;
        r = ucp_am_send_nbx(ep->handle, s->kind, o->header, s->header_bytes, s->data, s->data_bytes,
                            &p);
    } else {
        p.flags |= UCP_AM_SEND_FLAG_EAGER;
        r = ucp_am_send_nbx(ep->handle, s->kind, NULL, 0, o->header, s->header_bytes, &p);
    }
    if (UCS_PTR_IS_PTR(r))
        return ST_OK;
    if (UCS_PTR_STATUS(r) == UCS_OK) {
        op_done(o, UCS_OK);
        return ST_OK;
    }
    ep->posted--;
    ep->posted_bytes -= o->header_bytes;
    free(o);
    return UCS_PTR_STATUS(r) == UCS_ERR_NO_MEMORY ? ST_BUSY : ST_LINK;
}

enum status ucx_data_pull(struct ucx_data *d, void *dst, uint64_t token)
{
    struct ucx_ep *ep = d->ep;
    struct op *o = ep ? malloc(sizeof(*o)) : NULL;
    if (!o) {
        ucx_data_drop(d);
        return ST_LINK;
    }
    *o = (struct op){
        .ep = ep, .what = UCX_PULLED, .report = true, .token = token, .bytes = d->bytes};
    ucp_request_param_t p = {.op_attr_mask =
                                 UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                             .cb.recv_am = pull_callback,
                             .user_data = o};
    ep->posted++;
    ucs_status_ptr_t r = ucp_am_recv_data_nbx(d->worker->handle, d->descriptor, dst, d->bytes, &p);
    list_remove(&d->in_ep);
    free(d);
    if (!UCS_PTR_IS_PTR(r))
        op_done(o, UCS_PTR_STATUS(r));
    return ST_OK;
}

void ucx_data_drop(struct ucx_data *d)
{
    list_remove(&d->in_ep);
    if (d->descriptor)
        ucp_am_data_release(d->worker->handle, d->descriptor);
    free(d);
}

/* ---- the worker ---- */

bool ucx_worker_progress(struct ucx_worker *w)
{
    bool any = ucp_worker_progress(w->handle) != 0 || w->work;
    sweep(w);
    return any;
}

int ucx_worker_fd(struct ucx_worker *w)
{
    return w->fd;
}

bool ucx_worker_arm(struct ucx_worker *w)
{
    return !w->work && ucp_worker_arm(w->handle) == UCS_OK;
}

enum status ucx_worker_address(struct ucx_worker *w, struct buf *out, struct error *err)
{
    buf_puts(out, w->address);
    return ST_OK;
}

const char *ucx_worker_transports(const struct ucx_worker *w)
{
    return w->transports;
}

static bool rdma_present(void)
{
    DIR *d = opendir("/sys/class/infiniband");
    bool any = false;
    for (struct dirent *e = d ? readdir(d) : NULL; e && !any; e = readdir(d))
        any = e->d_name[0] != '.';
    if (d)
        closedir(d);
    return any;
}

static ucs_status_t set_option(ucp_config_t *c, const char *name, const char *value)
{
    ucs_status_t st = ucp_config_modify(c, name, value);
    if (st != UCS_OK)
        log_error("ucx_option", "name=%s value=%s reason=\"%s\"", name, value,
                  ucs_status_string(st));
    return st;
}

/* What a transport is told: before UCX 1.17 by the option's name alone. */
static ucs_status_t set_tcp(ucp_config_t *c, const char *name, const char *value)
{
    unsigned major, minor, release;
    char full[64];
    ucp_get_version(&major, &minor, &release);
    bool prefixed = major > 1 || (major == 1 && minor >= 17);
    snprintf(full, sizeof(full), "%s%s", prefixed ? "TCP_" : "", name);
    return set_option(c, full, value);
}

static ucs_status_t configure(ucp_config_t *c, const struct ucx_worker_args *args)
{
    char idle[32], interval[32];
    int64_t ms = args->keepalive_ns / NS_PER_MS;
    snprintf(idle, sizeof(idle), "%lldms", (long long)(ms < 2000 ? 1000 : ms / 2));
    snprintf(interval, sizeof(interval), "%lldms", (long long)(ms < 6000 ? 1000 : ms / 6));
    const char *const general[][2] = {
        {"TLS", rdma_present() ? "rc,ud,dc,tcp" : "tcp"},
        {"NET_DEVICES", args->device && args->device[0] ? args->device : "all"},
        {"KEEPALIVE_INTERVAL", "inf"},
        {"PROTO_INDIRECT_ID", "on"},
    };
    const char *const tcp[][2] = {
        {"TX_SEG_SIZE", "128K"}, {"RX_SEG_SIZE", "256K"}, {"PUT_ENABLE", "n"}, {"CONN_NB", "y"},
        {"KEEPIDLE", idle},      {"KEEPINTVL", interval}, {"KEEPCNT", "3"},
    };
    ucs_status_t st = UCS_OK;
    for (size_t i = 0; i < sizeof(general) / sizeof(general[0]) && st == UCS_OK; i++)
        st = set_option(c, general[i][0], general[i][1]);
    for (size_t i = 0; i < sizeof(tcp) / sizeof(tcp[0]) && st == UCS_OK; i++)
        st = set_tcp(c, tcp[i][0], tcp[i][1]);
    return st;
}

/* The transports of the context, each once, out of UCX's own description (it has no other way to
 * say): lines such as "# resource 0 : md 0 dev 0 flags -- tcp/eth0". */
static void list_transports(struct ucx_worker *w)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return;
    ucp_context_print_info(w->context, f);
    fclose(f);
    size_t used = 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *slash = strchr(line, '/');
        if (!strstr(line, "resource") || !slash)
            continue;
        *slash = '\0';
        const char *name = strrchr(line, ' ');
        name = name ? name + 1 : line;
        char *seen = strstr(w->transports, name);
        size_t n = strlen(name);
        bool known = seen && (seen[n] == '\0' || seen[n] == ',');
        if (n > 0 && !known && used + n + 2 < sizeof(w->transports))
            used += (size_t)snprintf(w->transports + used, sizeof(w->transports) - used, "%s%s",
                                     used ? "," : "", name);
    }
    free(text);
}

static ucs_status_t open_worker(struct ucx_worker *w, const struct ucx_worker_args *args)
{
    ucp_config_t *config;
    ucs_status_t st = ucp_config_read("BATON", NULL, &config);
    if (st != UCS_OK)
        return st;
    st = configure(config, args);
    ucp_params_t p = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                      .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP};
    if (st == UCS_OK)
        st = ucp_init(&p, config, &w->context);
    ucp_config_release(config);
    ucp_worker_params_t wp = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                              .thread_mode = UCS_THREAD_MODE_SERIALIZED};
    if (st == UCS_OK)
        st = ucp_worker_create(w->context, &wp, &w->handle);
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER};
    if (st == UCS_OK)
        st = ucp_worker_query(w->handle, &attr);
    if (st == UCS_OK)
        st = ucp_worker_get_efd(w->handle, &w->fd);
    w->header_max = attr.max_am_header;
    for (uint32_t i = 0; i < UCX_KINDS && st == UCS_OK; i++) {
        w->kinds[i].worker = w;
        w->kinds[i].kind = i;
        ucp_am_handler_param_t h = {
            .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                          UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
            .id = i,
            .flags = UCP_AM_FLAG_WHOLE_MSG,
            .cb = on_message,
            .arg = &w->kinds[i]};
        st = ucp_worker_set_am_recv_handler(w->handle, &h);
    }
    return st;
}

static ucs_status_t open_listener(struct ucx_worker *w, const char *device)
{
    struct sockaddr_storage at;
    socklen_t len;
    if (!ucx_address_local(device, &at, &len))
        return UCS_ERR_NO_DEVICE;
    ucp_listener_params_t p = {.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR |
                                             UCP_LISTENER_PARAM_FIELD_CONN_HANDLER,
                               .sockaddr = {(struct sockaddr *)&at, len},
                               .conn_handler = {on_connection, w}};
    ucs_status_t st = ucp_listener_create(w->handle, &p, &w->listener);
    ucp_listener_attr_t attr = {.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR};
    if (st == UCS_OK)
        st = ucp_listener_query(w->listener, &attr);
    if (st == UCS_OK) {
        enum status guarded = ucx_guard_listener((const struct sockaddr *)&attr.sockaddr);
        if (guarded != ST_OK)
            log_warn("ucx_not_guarded", "reason=%s", status_name(guarded));
        ucx_address_format(&attr.sockaddr, w->address);
    }
    return st;
}

enum status ucx_worker_create(const struct ucx_worker_args *args, struct ucx_worker **out,
                              struct error *err)
{
    struct ucx_worker *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, ST_NO_MEMORY, "no memory for a UCX worker");
    w->on = args->handlers;
    w->ctx = args->ctx;
    list_init(&w->eps);
    ucs_status_t st = open_worker(w, args);
    if (st == UCS_OK)
        st = open_listener(w, args->device ? args->device : "");
    if (st != UCS_OK) {
        ucx_worker_destroy(w);
        return err_set(err, st == UCS_ERR_NO_DEVICE ? ST_INVALID : ST_IO, "UCX: %s (device \"%s\")",
                       ucs_status_string(st), args->device ? args->device : "");
    }
    list_transports(w);
    *out = w;
    return ST_OK;
}

void ucx_worker_destroy(struct ucx_worker *w)
{
    if (!w)
        return;
    if (w->listener)
        ucp_listener_destroy(w->listener);
    list_for_each_safe(it, next, &w->eps)
    {
        ucx_ep_close(list_entry(it, struct ucx_ep, in_worker));
    }
    int64_t give_up_ns = clock_now_ns() + DESTROY_NS;
    while (!list_empty(&w->eps) && clock_now_ns() < give_up_ns)
        if (!ucx_worker_progress(w))
            clock_sleep_ns(NS_PER_MS / 10);
    if (!list_empty(&w->eps)) { /* what is not quiet is never freed under UCX's hands */
        log_error("ucx_not_quiet", "connections=%d", w->n_eps);
        return;
    }
    if (w->handle)
        ucp_worker_destroy(w->handle);
    if (w->context)
        ucp_cleanup(w->context);
    free(w);
}
