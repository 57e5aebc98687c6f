/* An HTTP/1.1 server whose requests one thread (the loop) handles as events: keep-alive, bounded
 * bodies, streaming answers (SSE) with back-pressure, and a prompt word when a client goes away.
 * libmicrohttpd is the body, confined to http_server*.c; its threads never run user code.
 * Call http_poll() now and then also when http_fd() is quiet: it looks at the time.
 *
 * A request is delivered whole (headers and body, within the limits; what is over a limit or is not
 * HTTP is answered 413/431/400 here, with the error body of the API). It lives until
 * http_release(), also after its client has gone: writes to it are then dropped. HTTP_EV_GONE comes
 * at most once, when the client closed before the answer was complete; HTTP_EV_SENT when all that
 * was written so far has been handed to the kernel.
 *
 * Thread: everything from the loop thread. http_fd() is readable when http_poll() has something.
 */
#ifndef NET_HTTP_SERVER_H
#define NET_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;
struct http_server;
struct http_request;

struct http_server_args {
    const char *listen; /* host:port; port 0 picks one */
    size_t body_bytes_max, header_bytes_max;
    int32_t connections_max;
    int64_t idle_timeout_ns;    /* a connection without progress, half-sent requests included */
    int64_t request_timeout_ns; /* from the end of one request to the whole of the next; 0: none */
    size_t stream_bytes_max;    /* unsent bytes of one answer before http_write says BUSY */
};

enum http_event_kind { HTTP_EV_REQUEST, HTTP_EV_GONE, HTTP_EV_SENT };

struct http_event {
    enum http_event_kind kind;
    struct http_request *request;
    void *user; /* as set with http_set_user */
};

enum status http_server_create(const struct http_server_args *args, struct http_server **out,
                               struct error *err);
/* Closes the listening socket, lets answers that were begun go out for `grace_ns`, frees. */
void http_server_destroy(struct http_server *s, int64_t grace_ns);
int http_port(const struct http_server *s);
int http_fd(const struct http_server *s);
bool http_poll(struct http_server *s, struct http_event *ev);

const char *http_method(const struct http_request *r);
const char *http_path(const struct http_request *r); /* decoded, without the query */
const char *http_header(const struct http_request *r, const char *name); /* NULL: not there */
const char *http_query(const struct http_request *r, const char *name);
const char *http_body(const struct http_request *r, size_t *len); /* NUL-terminated */
/* Hands the body over: *out is the caller's, and the request has none any more. */
void http_take_body(struct http_request *r, struct buf *out);
void http_set_user(struct http_request *r, void *user);

/* Adds a header to the answer, before it begins; copied. */
void http_set_header(struct http_request *r, const char *name, const char *value);
/* A whole answer. */
void http_respond(struct http_request *r, int status, const char *content_type, const void *body,
                  size_t len);
/* The same without a copy; `body` is empty afterwards. */
void http_respond_take(struct http_request *r, int status, const char *content_type,
                       struct buf *body);
/* A streamed answer: begin, write..., end. http_write takes a copy; ST_BUSY: too much is unsent
 * (nothing was taken); ST_CANCELLED: the client has gone. Ends are chunked-encoding ends;
 * http_abort() breaks the connection instead. */
void http_stream_begin(struct http_request *r, int status, const char *content_type);
enum status http_write(struct http_request *r, const void *data, size_t len);
size_t http_unsent(const struct http_request *r);
void http_stream_end(struct http_request *r);
void http_abort(struct http_request *r);
void http_release(struct http_request *r); /* an unanswered request is answered 500 */

#endif
