/* libmicrohttpd's side of the HTTP server: its one thread reads requests, hands whole ones over,
 * and pulls the bytes of answers. Nothing here calls the user. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "net/http_server_internal.h"

#define STREAM_BLOCK_BYTES 4096
/* Left alone the kernel takes megabytes for a client that reads nothing, and its stall goes unseen
 * for as long. */
#define SEND_BUFFER_BYTES (128 << 10)
/* All bodies together: this many of the largest. */
#define BODIES_MAX 64

/* ---- reading ---- */

struct gather {
    struct http_request *r;
    size_t n_headers, n_query, bytes;
    char *at; /* NULL: only counting */
    int hosts, lengths, encodings;
    const char *bad;
    uint64_t content_length;
};

static char *put(struct gather *g, const char *s)
{
    size_t len = s ? strlen(s) + 1 : 1;
    char *to = g->at;
    if (s)
        memcpy(to, s, len);
    else
        *to = 0;
    g->at += len;
    return to;
}

static enum MHD_Result on_pair(void *cls, enum MHD_ValueKind kind, const char *name,
                               const char *value)
{
    struct gather *g = cls;
    struct http_request *r = g->r;
    size_t *n = kind == MHD_HEADER_KIND ? &g->n_headers : &g->n_query;
    if (g->at) {
        struct http_pair *p = kind == MHD_HEADER_KIND ? &r->headers[*n] : &r->query[*n];
        p->name = put(g, name);
        p->value = put(g, value);
    } else {
        g->bytes += strlen(name) + 1 + (value ? strlen(value) : 0) + 1;
        g->hosts += kind == MHD_HEADER_KIND && strcasecmp(name, "host") == 0;
        if (kind == MHD_HEADER_KIND && strcasecmp(name, "content-length") == 0) {
            g->lengths++;
            g->content_length = value ? strtoull(value, NULL, 10) : 0;
        } else if (kind == MHD_HEADER_KIND && strcasecmp(name, "transfer-encoding") == 0) {
            g->encodings++;
            if (!value || strcasecmp(value, "chunked") != 0)
                g->bad = "unknown transfer encoding";
        }
    }
    (*n)++;
    return MHD_YES;
}

/* Copies the head. NULL: no memory. */
static struct http_request *begin(struct http_server *s, struct MHD_Connection *conn,
                                  const char *url, const char *method)
{
    struct http_request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    r->server = s;
    r->conn = conn;
    r->link_to = info ? info->socket_context : NULL;
    r->body.max = s->args.body_bytes_max + 1;
    list_init(&r->all);
    list_init(&r->link);
    struct gather g = {.r = r, .bytes = strlen(url) + strlen(method) + 2};
    MHD_get_connection_values(conn, MHD_HEADER_KIND, on_pair, &g);
    MHD_get_connection_values(conn, MHD_GET_ARGUMENT_KIND, on_pair, &g);
    r->headers = calloc(g.n_headers + 1, sizeof *r->headers);
    r->query = calloc(g.n_query + 1, sizeof *r->query);
    r->strings = malloc(g.bytes);
    if (!r->headers || !r->query || !r->strings) {
        http_free(r);
        return NULL;
    }
    struct gather f = {.r = r, .at = r->strings};
    r->method = put(&f, method);
    r->path = put(&f, url);
    MHD_get_connection_values(conn, MHD_HEADER_KIND, on_pair, &f);
    MHD_get_connection_values(conn, MHD_GET_ARGUMENT_KIND, on_pair, &f);
    r->n_headers = f.n_headers;
    r->n_query = f.n_query;

    if (g.bytes + 2 * (g.n_headers + g.n_query) > s->args.header_bytes_max)
        r->refused = 431;
    else if (g.bad || g.hosts > 1 || g.lengths > 1 || g.encodings > 1 || (g.lengths && g.encodings))
        r->refused = 400;
    else if (g.content_length > s->args.body_bytes_max)
        r->refused = 413;
    return r;
}

/* How much of a refused body is read and dropped so that the client, still sending, gets to see
 * the answer. */
static uint64_t patience_bytes(const struct http_server *s)
{
    return 4 * (uint64_t)s->args.body_bytes_max + (1 << 20);
}

static bool refuse_at_once(const struct http_request *r)
{
    if (!r->refused)
        return false;
    const char *length = http_header(r, "content-length");
    return r->refused != 413 || http_header(r, "expect") ||
           (length && strtoull(length, NULL, 10) > patience_bytes(r->server));
}

static enum MHD_Result take_body(struct http_request *r, const char *data, size_t len)
{
    struct http_server *s = r->server;
    r->body_seen += len;
    if (!r->refused && r->body_seen > s->args.body_bytes_max)
        r->refused = 413;
    if (!r->refused) {
        size_t before = r->body.cap;
        buf_append(&r->body, data, len);
        size_t all = atomic_fetch_add(&s->body_bytes, r->body.cap - before) + r->body.cap - before;
        if (r->body.failed || all > BODIES_MAX * s->args.body_bytes_max)
            r->refused = 503;
    }
    if (r->refused && r->body.cap) {
        atomic_fetch_sub(&s->body_bytes, r->body.cap);
        buf_fini(&r->body);
    }
    return r->body_seen > patience_bytes(s) ? MHD_NO : MHD_YES;
}

/* The request is whole: to the loop with it. */
static enum MHD_Result publish(struct http_request *r)
{
    struct http_server *s = r->server;
    struct http_link *l = r->link_to;
    enum MHD_Result rc = MHD_YES;
    pthread_mutex_lock(&s->lock);
    if (s->stopping || !l || l->left) {
        rc = MHD_NO;
    } else {
        l->request = r;
        list_remove(&l->link);
        r->fd = l->fd;
        r->published = true;
        r->phase = HTTP_WAITING;
        r->suspended = true;
        list_push_back(&s->all, &r->all);
        http_push(r, HTTP_EV_REQUEST);
        MHD_suspend_connection(r->conn);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* ---- answering ---- */

static ssize_t on_read(void *cls, uint64_t pos, char *to, size_t max)
{
    struct http_request *r = cls;
    ssize_t n = 0;
    pthread_mutex_lock(&r->server->lock);
    /* Being asked again means that what was given before is with the kernel. */
    r->in_flight = 0;
    size_t waiting = http_waiting(r);
    if (r->server->stopping) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (r->gone || r->aborted) {
        /* The socket is shut down, so this end cannot reach the client. END_WITH_ERROR would keep
         * the descriptor until libmicrohttpd looks for idle connections, behind every older one;
         * failing to write the end closes it at once. */
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (waiting) {
        n = (ssize_t)(waiting < max ? waiting : max);
        memcpy(to, r->out.data + r->out_at, (size_t)n);
        r->out_at += (size_t)n;
        r->in_flight = (size_t)n;
        if (r->out_at == r->out.len) {
            buf_clear(&r->out);
            r->out_at = 0;
        }
    } else if (r->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        if (r->written) {
            r->written = false;
            http_push(r, HTTP_EV_SENT);
        }
        r->suspended = true;
        MHD_suspend_connection(r->conn);
    }
    pthread_mutex_unlock(&r->server->lock);
    return n;
}

/* Under the lock. */
static struct MHD_Response *make_response(struct http_request *r)
{
    struct MHD_Response *resp;
    if (r->phase == HTTP_STREAM) {
        resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, on_read, r,
                                                 NULL);
    } else {
        size_t len = r->out.len;
        char *body = len ? buf_take(&r->out, &len) : NULL;
        resp = MHD_create_response_from_buffer(
            len, body ? body : (void *)"", body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
        if (!resp)
            free(body);
    }
    if (!resp)
        return NULL;
    if (r->content_type)
        MHD_add_response_header(resp, "Content-Type", r->content_type);
    for (struct http_header_out *h = r->out_headers; h; h = h->next)
        MHD_add_response_header(resp, h->name, h->value);
    return resp;
}

static enum MHD_Result answer(struct http_request *r)
{
    struct http_server *s = r->server;
    struct MHD_Response *resp = NULL;
    enum MHD_Result rc = MHD_NO;
    pthread_mutex_lock(&s->lock);
    bool lost = r->gone || r->aborted || s->stopping;
    if (!lost && r->phase == HTTP_WAITING) {
        r->suspended = true;
        MHD_suspend_connection(r->conn);
        rc = MHD_YES;
    } else if (!lost) {
        resp = make_response(r);
    }
    int status = r->status;
    pthread_mutex_unlock(&s->lock);
    if (resp) {
        rc = http_queue(r->conn, status, resp);
        MHD_destroy_response(resp);
    }
    return rc;
}

/* ---- callbacks ---- */

/* Under the lock. A request is to arrive whole from now on. */
static void link_waits(struct http_server *s, struct http_link *l)
{
    if (!l)
        return;
    l->request = NULL;
    l->since_ns = clock_now_ns();
    list_remove(&l->link);
    list_push_back(l->left ? &s->leaving : &s->arriving, &l->link);
}

/* The signature is libmicrohttpd's. */
static enum MHD_Result on_access(void *cls, struct MHD_Connection *conn, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *len, void **state)
{
    struct http_server *s = cls;
    struct http_request *r = *state;
    if (!r) {
        r = begin(s, conn, url, method);
        *state = r;
        if (!r)
            return MHD_NO;
        return refuse_at_once(r) ? http_refuse(conn, r->refused) : MHD_YES;
    }
    if (*len) {
        size_t n = *len;
        *len = 0;
        return take_body(r, data, n);
    }
    if (r->refused)
        return http_refuse(conn, r->refused);
    return r->published ? answer(r) : publish(r);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **state,
                         enum MHD_RequestTerminationCode how)
{
    struct http_server *s = cls;
    struct http_request *r = *state;
    if (!r)
        return;
    *state = NULL;
    pthread_mutex_lock(&s->lock);
    link_waits(s, r->link_to);
    if (!r->published) {
        pthread_mutex_unlock(&s->lock);
        http_free(r);
        return;
    }
    bool whole = how == MHD_REQUEST_TERMINATED_COMPLETED_OK && !r->aborted;
    if (!whole && !r->gone && !r->aborted) {
        r->gone = true;
        http_push(r, HTTP_EV_GONE);
    }
    r->phase = HTTP_OVER;
    r->conn = NULL;
    r->link_to = NULL;
    r->suspended = false;
    r->in_flight = 0;
    list_remove(&r->all);
    /* Only the loop frees: it may hold the pointer. */
    if (r->released && list_empty(&r->link))
        http_push(r, HTTP_EV_SENT);
    pthread_mutex_unlock(&s->lock);
}

static void link_open(struct http_server *s, struct MHD_Connection *conn, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_link *l = info ? calloc(1, sizeof *l) : NULL;
    int bytes = SEND_BUFFER_BYTES;
    if (!l)
        return; /* its requests are not taken */
    l->fd = info->connect_fd;
    list_init(&l->link);
    setsockopt(l->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    struct epoll_event e = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = l};
    pthread_mutex_lock(&s->lock);
    epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, l->fd, &e);
    link_waits(s, l);
    pthread_mutex_unlock(&s->lock);
    *context = l;
}

static void link_close(struct http_server *s, void **context)
{
    struct http_link *l = *context;
    if (!l)
        return;
    *context = NULL;
    pthread_mutex_lock(&s->lock);
    epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, l->fd, NULL);
    list_remove(&l->link);
    pthread_mutex_unlock(&s->lock);
    free(l);
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    bool started = what == MHD_CONNECTION_NOTIFY_STARTED;
    atomic_fetch_add(&s->connections, started ? 1 : -1);
    if (started)
        link_open(s, conn, context);
    else
        link_close(s, context);
}

static enum MHD_Result on_accept(void *cls, const struct sockaddr *addr, socklen_t len)
{
    struct http_server *s = cls;
    return atomic_load(&s->connections) < s->args.connections_max ? MHD_YES : MHD_NO;
}

enum status http_daemon_start(struct http_server *s, struct error *err)
{
    int64_t timeout_s = (s->args.idle_timeout_ns + NS_PER_S - 1) / NS_PER_S;
    /* Room for a head that we refuse ourselves, with the API's error body, and for the answer. */
    size_t memory = 2 * s->args.header_bytes_max + 32768;
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, on_accept, s, on_access, s,
        MHD_OPTION_LISTEN_SOCKET, s->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)s->args.connections_max + 64u, MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(timeout_s < 1 ? 1 : timeout_s),
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        s, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!s->daemon)
        return err_set(err, ST_IO, "http: the server could not be started on %s", s->args.listen);
    return ST_OK;
}
