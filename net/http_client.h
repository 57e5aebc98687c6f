/* HTTP requests to a server, many at once, for the load generator, the chat client and tests:
 * libcurl's multi interface is the body, confined to http_client.c. One object, one thread,
 * poll-driven; a response's body is delivered as it arrives.
 *
 *     http_client_start(c, &req, &id); while (http_client_poll(c, timeout_ms, &ev)) { ... }
 */
#ifndef NET_HTTP_CLIENT_H
#define NET_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct http_client;
struct http_transfer;

struct http_client_request {
    const char *method, *url;
    const char *body; /* NULL: none; copied */
    size_t body_bytes;
    const char *bearer; /* API key, NULL: none */
    int64_t timeout_ns; /* whole transfer; 0: none */
    void *user;
};

enum http_client_event_kind { HTTP_CLIENT_HEADERS, HTTP_CLIENT_DATA, HTTP_CLIENT_END };

struct http_client_event {
    enum http_client_event_kind kind;
    struct http_transfer *transfer;
    void *user;
    int status;       /* HTTP status, 0 before headers */
    const char *data; /* DATA: valid until the next poll */
    size_t len;
    int64_t at_ns;      /* when it arrived */
    enum status result; /* END: ST_OK, ST_LINK, ST_DEADLINE, ST_CANCELLED */
    const char *text;
};

enum status http_client_create(struct http_client **out, struct error *err);
void http_client_destroy(struct http_client *c);
enum status http_client_start(struct http_client *c, const struct http_client_request *req,
                              struct http_transfer **out, struct error *err);
void http_client_cancel(struct http_client *c,
                        struct http_transfer *t); /* END{CANCELLED} follows */
/* Waits up to timeout_ms for the next event; false: none came. After END the transfer is gone. */
bool http_client_poll(struct http_client *c, int timeout_ms, struct http_client_event *ev);
const char *http_client_header(struct http_transfer *t, const char *name);

/* Server-sent events: feeds bytes, gives whole `data:` payloads. Zero-initialise; sse_fini() frees.
 */
struct sse_parser {
    char *data;
    size_t len, cap, at;
};
enum status sse_feed(struct sse_parser *p, const char *data, size_t len);
/* Next event's data (joined lines), NUL-terminated, valid until the next call; NULL: none complete.
 * Comments are skipped. */
const char *sse_next(struct sse_parser *p);
void sse_fini(struct sse_parser *p);

#endif
