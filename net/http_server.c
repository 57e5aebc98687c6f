/* The loop's side of the HTTP server; libmicrohttpd's side is http_server_mhd.c. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "net/http_server_internal.h"

/* How long the answer to a request may take that was refused unread, once its client has closed. */
#define LEAVING_NS NS_PER_S

/* ---- starting and stopping ---- */

static enum status listen_on(struct http_server *s, struct error *err)
{
    char host[256], service[16];
    int port, one = 1;
    enum status st = config_split_address(s->args.listen, host, sizeof host, &port, err);
    if (st != ST_OK)
        return st;
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *found = NULL;
    int rc = getaddrinfo(host[0] ? host : NULL, service, &hints, &found);
    if (rc != 0)
        return err_set(err, ST_IO, "http: %s: %s", s->args.listen, gai_strerror(rc));
    int e = 0;
    for (struct addrinfo *a = found; a && s->listen_fd < 0; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            e = errno;
            continue;
        }
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
            s->listen_fd = fd;
        } else {
            e = errno;
            close(fd);
        }
    }
    freeaddrinfo(found);
    if (s->listen_fd < 0)
        return err_set(err, ST_IO, "http: cannot listen on %s: %s", s->args.listen, strerror(e));
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    char bound[16] = "0";
    getsockname(s->listen_fd, (struct sockaddr *)&at, &len);
    getnameinfo((struct sockaddr *)&at, len, NULL, 0, bound, sizeof bound, NI_NUMERICSERV);
    s->port = atoi(bound);
    return ST_OK;
}

/* Each connection is a descriptor: the soft limit goes up to the hard one where it is too low. */
static void raise_descriptors(int32_t connections)
{
    struct rlimit l;
    rlim_t want = (rlim_t)connections + 256;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < want) {
        l.rlim_cur = want < l.rlim_max ? want : l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

static void server_free(struct http_server *s)
{
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    if (s->epoll_fd >= 0)
        close(s->epoll_fd);
    pthread_mutex_destroy(&s->lock);
    free((char *)s->args.listen);
    free(s);
}

enum status http_server_create(const struct http_server_args *args, struct http_server **out,
                               struct error *err)
{
    struct http_server *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, ST_NO_MEMORY, "http: out of memory");
    s->args = *args;
    s->args.listen = strdup(args->listen);
    s->listen_fd = s->wake_fd = s->epoll_fd = -1;
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->all);
    list_init(&s->ready);
    list_init(&s->batch);
    list_init(&s->arriving);
    list_init(&s->leaving);
    raise_descriptors(args->connections_max);
    enum status st =
        s->args.listen ? listen_on(s, err) : err_set(err, ST_NO_MEMORY, "http: memory");
    if (st != ST_OK)
        goto fail;
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN};
    if (s->wake_fd < 0 || s->epoll_fd < 0 ||
        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &e) != 0) {
        st = err_set(err, ST_IO, "http: no descriptors: %s", strerror(errno));
        goto fail;
    }
    st = http_daemon_start(s, err);
    if (st != ST_OK)
        goto fail;
    *out = s;
    return ST_OK;
fail:
    server_free(s);
    return st;
}

/* Answers that were begun and still have bytes to send or an end to reach. */
static bool anything_going_out(struct http_server *s)
{
    bool some = false;
    pthread_mutex_lock(&s->lock);
    list_for_each(it, &s->all)
    {
        struct http_request *r = list_entry(it, struct http_request, all);
        some |= r->phase == HTTP_WHOLE ||
                (r->phase == HTTP_STREAM && (r->ended || http_waiting(r) + r->in_flight));
    }
    pthread_mutex_unlock(&s->lock);
    return some;
}

void http_server_destroy(struct http_server *s, int64_t grace_ns)
{
    if (!s)
        return;
    MHD_socket fd = MHD_quiesce_daemon(s->daemon);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
    s->listen_fd = -1; /* else libmicrohttpd closes it */
    int64_t until_ns = clock_now_ns() + grace_ns;
    while (clock_now_ns() < until_ns && anything_going_out(s))
        clock_sleep_ns(NS_PER_MS);
    /* The daemon refuses to stop over suspended connections. */
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    list_for_each(it, &s->all) http_resume(list_entry(it, struct http_request, all));
    pthread_mutex_unlock(&s->lock);
    MHD_stop_daemon(s->daemon);
    /* What is left has ended; requests that the loop never released would be its bug. */
    struct list *lists[] = {&s->ready, &s->batch};
    for (size_t i = 0; i < 2; i++) {
        list_for_each_safe(it, tmp, lists[i])
        {
            struct http_request *r = list_entry(it, struct http_request, link);
            list_remove(&r->link);
            if (r->phase == HTTP_OVER)
                http_free(r);
        }
    }
    server_free(s);
}

int http_port(const struct http_server *s)
{
    return s->port;
}

int http_fd(const struct http_server *s)
{
    return s->epoll_fd;
}

/* ---- events ---- */

void http_push(struct http_request *r, enum http_event_kind kind)
{
    struct http_server *s = r->server;
    r->events |= 1u << kind;
    if (!list_empty(&r->link))
        return;
    list_push_back(&s->ready, &r->link);
    if (!s->signalled) {
        uint64_t one = 1;
        s->signalled = write(s->wake_fd, &one, sizeof one) == sizeof one;
    }
}

void http_resume(struct http_request *r)
{
    if (r->suspended && r->phase != HTTP_OVER) {
        r->suspended = false;
        MHD_resume_connection(r->conn);
    }
}

/* The client of a request has closed. shutdown() makes libmicrohttpd notice too, whatever it waits
 * for. */
static void client_gone(struct http_request *r)
{
    if (r->phase == HTTP_OVER || r->gone)
        return;
    r->gone = true;
    shutdown(r->fd, SHUT_RDWR);
    http_resume(r);
    if (!r->released)
        http_push(r, HTTP_EV_GONE);
}

/* The client has closed, at least its way to us. Of a request that has not come as a whole nothing
 * more will come; but it may be one that is refused, and the refusal is let out first. */
static void link_left(struct http_server *s, struct http_link *l)
{
    l->left = true;
    if (l->request) {
        client_gone(l->request);
    } else {
        l->since_ns = clock_now_ns();
        list_remove(&l->link);
        list_push_back(&s->leaving, &l->link);
    }
}

/* Those in the list since more than `most_ns` go. libmicrohttpd closes what is shut down. */
static void shut_old(struct list *links, int64_t most_ns)
{
    int64_t now_ns = clock_now_ns();
    while (!list_empty(links)) {
        struct http_link *l = list_entry(links->next, struct http_link, link);
        if (now_ns - l->since_ns < most_ns)
            return;
        list_remove(&l->link);
        shutdown(l->fd, SHUT_RDWR);
    }
}

/* Takes what there is into the batch. */
static bool collect(struct http_server *s)
{
    struct epoll_event e[64];
    pthread_mutex_lock(&s->lock);
    int n = epoll_wait(s->epoll_fd, e, 64, 0); /* under the lock, so that no link is freed */
    for (int i = 0; i < n; i++) {
        if (e[i].data.ptr)
            link_left(s, e[i].data.ptr);
    }
    shut_old(&s->leaving, LEAVING_NS);
    if (s->args.request_timeout_ns > 0)
        shut_old(&s->arriving, s->args.request_timeout_ns);
    while (!list_empty(&s->ready)) {
        struct list *it = s->ready.next;
        list_remove(it);
        list_push_back(&s->batch, it);
    }
    bool some = !list_empty(&s->batch) || n == 64;
    /* Only now quiet: whoever stops polling before the end finds http_fd() readable. */
    if (!some && s->signalled) {
        uint64_t count;
        s->signalled = read(s->wake_fd, &count, sizeof count) != sizeof count;
    }
    pthread_mutex_unlock(&s->lock);
    return some;
}

/* The next event of the batch; requests that are over and released are freed on the way. */
static bool take(struct http_server *s, struct http_event *ev)
{
    bool found = false;
    pthread_mutex_lock(&s->lock);
    while (!found && !list_empty(&s->batch)) {
        struct http_request *r = list_entry(s->batch.next, struct http_request, link);
        if (r->released || !r->events) {
            list_remove(&r->link);
            r->events = 0;
            if (r->released && r->phase == HTTP_OVER)
                http_free(r);
            continue;
        }
        for (enum http_event_kind k = HTTP_EV_REQUEST; k <= HTTP_EV_SENT && !found; k++) {
            if (r->events & 1u << k) {
                r->events &= ~(1u << k);
                *ev = (struct http_event){.kind = k, .request = r, .user = r->user};
                found = true;
            }
        }
        if (!r->events)
            list_remove(&r->link);
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

bool http_poll(struct http_server *s, struct http_event *ev)
{
    do {
        if (take(s, ev))
            return true;
    } while (collect(s));
    return false;
}

/* ---- the request ---- */

const char *http_method(const struct http_request *r)
{
    return r->method;
}

const char *http_path(const struct http_request *r)
{
    return r->path;
}

const char *http_header(const struct http_request *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++) {
        if (strcasecmp(r->headers[i].name, name) == 0)
            return r->headers[i].value;
    }
    return NULL;
}

const char *http_query(const struct http_request *r, const char *name)
{
    for (size_t i = 0; i < r->n_query; i++) {
        if (strcmp(r->query[i].name, name) == 0)
            return r->query[i].value;
    }
    return NULL;
}

const char *http_body(const struct http_request *r, size_t *len)
{
    *len = r->body.len;
    return r->body.data ? r->body.data : "";
}

void http_take_body(struct http_request *r, struct buf *out)
{
    atomic_fetch_sub(&r->server->body_bytes, r->body.cap);
    *out = r->body;
    r->body = (struct buf){0};
}

void http_set_user(struct http_request *r, void *user)
{
    r->user = user;
}

/* ---- the answer ---- */

void http_set_header(struct http_request *r, const char *name, const char *value)
{
    struct http_header_out *h = calloc(1, sizeof *h);
    char *n = strdup(name), *v = strdup(value);
    if (!h || !n || !v) {
        free(h);
        free(n);
        free(v);
        return;
    }
    pthread_mutex_lock(&r->server->lock);
    *h = (struct http_header_out){.next = r->out_headers, .name = n, .value = v};
    r->out_headers = h;
    pthread_mutex_unlock(&r->server->lock);
}

static void respond_locked(struct http_request *r, int status, const char *content_type)
{
    r->status = status;
    r->content_type = content_type ? strdup(content_type) : NULL;
    r->phase = HTTP_WHOLE;
    http_resume(r);
}

void http_respond(struct http_request *r, int status, const char *content_type, const void *body,
                  size_t len)
{
    pthread_mutex_lock(&r->server->lock);
    if (r->phase == HTTP_WAITING) {
        buf_append(&r->out, body, len);
        respond_locked(r, status, content_type);
    }
    pthread_mutex_unlock(&r->server->lock);
}

void http_respond_take(struct http_request *r, int status, const char *content_type,
                       struct buf *body)
{
    struct buf unused = *body;
    pthread_mutex_lock(&r->server->lock);
    if (r->phase == HTTP_WAITING) {
        unused = r->out;
        r->out = *body;
        respond_locked(r, status, content_type);
    }
    pthread_mutex_unlock(&r->server->lock);
    *body = (struct buf){0};
    buf_fini(&unused);
}

void http_stream_begin(struct http_request *r, int status, const char *content_type)
{
    pthread_mutex_lock(&r->server->lock);
    if (r->phase == HTTP_WAITING) {
        r->status = status;
        r->content_type = strdup(content_type);
        r->phase = HTTP_STREAM;
        http_resume(r);
    }
    pthread_mutex_unlock(&r->server->lock);
}

size_t http_waiting(const struct http_request *r)
{
    return r->out.len - r->out_at;
}

enum status http_write(struct http_request *r, const void *data, size_t len)
{
    enum status st = ST_OK;
    pthread_mutex_lock(&r->server->lock);
    if (r->phase != HTTP_STREAM || r->gone || r->ended || r->aborted) {
        st = ST_CANCELLED;
    } else if (http_waiting(r) > 0 && http_waiting(r) + len > r->server->args.stream_bytes_max) {
        st = ST_BUSY;
    } else if (len) {
        if (r->out_at && r->out_at >= r->out.len / 2) {
            buf_consume(&r->out, r->out_at);
            r->out_at = 0;
        }
        buf_append(&r->out, data, len);
        if (r->out.failed) {
            r->aborted = true;
            st = ST_CANCELLED;
        }
        r->written = true;
        http_resume(r);
    }
    pthread_mutex_unlock(&r->server->lock);
    return st;
}

size_t http_unsent(const struct http_request *r)
{
    pthread_mutex_lock(&r->server->lock);
    size_t n = http_waiting(r) + r->in_flight;
    pthread_mutex_unlock(&r->server->lock);
    return n;
}

void http_stream_end(struct http_request *r)
{
    pthread_mutex_lock(&r->server->lock);
    if (r->phase == HTTP_STREAM) {
        r->ended = true;
        http_resume(r);
    }
    pthread_mutex_unlock(&r->server->lock);
}

static void abort_locked(struct http_request *r)
{
    r->aborted = true;
    if (r->phase != HTTP_OVER) {
        shutdown(r->fd, SHUT_RDWR);
        http_resume(r);
    }
}

void http_abort(struct http_request *r)
{
    pthread_mutex_lock(&r->server->lock);
    abort_locked(r);
    pthread_mutex_unlock(&r->server->lock);
}

void http_release(struct http_request *r)
{
    static const char lost[] = "{\"error\":{\"message\":\"Internal server error.\",\"type\":"
                               "\"server_error\",\"param\":null,\"code\":\"internal_error\"}}";
    struct http_server *s = r->server;
    pthread_mutex_lock(&s->lock);
    if (r->phase == HTTP_WAITING && !r->gone) {
        buf_append(&r->out, lost, sizeof lost - 1);
        respond_locked(r, 500, "application/json");
    } else if (r->phase == HTTP_STREAM && !r->ended) {
        abort_locked(r);
    }
    r->released = true;
    r->user = NULL;
    if (r->phase == HTTP_OVER) {
        list_remove(&r->link);
        http_free(r);
    }
    pthread_mutex_unlock(&s->lock);
}

void http_free(struct http_request *r)
{
    atomic_fetch_sub(&r->server->body_bytes, r->body.cap);
    buf_fini(&r->body);
    buf_fini(&r->out);
    while (r->out_headers) {
        struct http_header_out *h = r->out_headers;
        r->out_headers = h->next;
        free(h->name);
        free(h->value);
        free(h);
    }
    free(r->content_type);
    free(r->headers);
    free(r->query);
    free(r->strings);
    free(r);
}
