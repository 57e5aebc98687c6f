/* Errors that the loop never sees: what the server refuses by itself, and what libmicrohttpd does.
 *
 * libmicrohttpd answers what it cannot parse on its own, with a page of HTML, has no way to say how
 * such an answer should look, and (0.9.75) sends the head of some twice. But the library calls its
 * own MHD_queue_response() as a stranger would, through the table of dynamic symbols: so the one
 * below stands in front of it for the whole process, as accept4() does in rpc_grpc. Everything that
 * comes to it comes from the library itself, for our own answers go to http_queue(). It writes the
 * API's error, with the status that was to be, and says that the page could not be queued: then the
 * library closes the connection. Should a library not call this way, its pages are HTML again, and
 * tests say so. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "net/http_server_internal.h"

#define DRAIN_READS 64

static const struct refusal {
    int status;
    const char *reason, *code, *message;
} refusals[] = {
    /* the first also stands for what is not in this table */
    {400, "Bad Request", "bad_request", "The request is malformed."},
    {413, "Content Too Large", "request_too_large",
     "The request body is larger than this server accepts."},
    {414, "URI Too Long", "uri_too_long",
     "The address in the request is longer than this server accepts."},
    {431, "Request Header Fields Too Large", "headers_too_large",
     "The request headers are larger than this server accepts."},
    {500, "Internal Server Error", "internal_error", "Internal server error."},
    {501, "Not Implemented", "not_implemented",
     "The request uses a part of HTTP that this server does not know."},
    {503, "Service Unavailable", "overloaded",
     "The server is holding too many request bodies. Try again later."},
    {505, "HTTP Version Not Supported", "http_version",
     "Only HTTP/1.0 and HTTP/1.1 are spoken here."},
};

static const struct refusal *refusal_of(int status)
{
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        if (refusals[i].status == status)
            return &refusals[i];
    }
    return &refusals[0];
}

static size_t put_body(const struct refusal *f, char body[320])
{
    return (size_t)snprintf(
        body, 320,
        "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}",
        f->message, f->status >= 500 ? "server_error" : "invalid_request_error", f->code);
}

/* ---- ours ---- */

typedef enum MHD_Result (*queue_function)(struct MHD_Connection *, unsigned, struct MHD_Response *);

static pthread_once_t found_once = PTHREAD_ONCE_INIT;
static queue_function found;

static void find(void)
{
    /* ISO C has no cast from an object's pointer to a function's; POSIX says that they are alike.
     */
    *(void **)&found = dlsym(RTLD_NEXT, "MHD_queue_response");
}

enum MHD_Result http_queue(struct MHD_Connection *conn, int status, struct MHD_Response *resp)
{
    pthread_once(&found_once, find);
    return found ? found(conn, (unsigned)status, resp) : MHD_NO;
}

enum MHD_Result http_refuse(struct MHD_Connection *conn, int status)
{
    char body[320];
    const struct refusal *f = refusal_of(status);
    size_t n = put_body(f, body);
    struct MHD_Response *resp = MHD_create_response_from_buffer(n, body, MHD_RESPMEM_MUST_COPY);
    if (!resp)
        return MHD_NO;
    MHD_add_response_header(resp, "Content-Type", "application/json");
    MHD_add_response_header(resp, "Connection", "close");
    if (f->status == 503)
        MHD_add_response_header(resp, "Retry-After", "1");
    enum MHD_Result rc = http_queue(conn, f->status, resp);
    MHD_destroy_response(resp);
    return rc;
}

/* ---- the library's ---- */

enum MHD_Result MHD_queue_response(struct MHD_Connection *connection, unsigned int status_code,
                                   struct MHD_Response *response)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    const struct refusal *f = refusal_of((int)status_code);
    char body[320], date[40] = "", text[700], unread[4096];
    time_t now = time(NULL);
    struct tm tm;
    size_t body_bytes = put_body(f, body);
    if (gmtime_r(&now, &tm))
        strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     f->status, f->reason, date, body_bytes, body);
    if (!info)
        return MHD_NO;
    /* All answers before this one are with the kernel. A client that has not read them, so that
     * this one finds no room, is not waited for. */
    if (send(info->connect_fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n)
        shutdown(info->connect_fd, SHUT_WR);
    /* Closing over bytes that were not read resets the connection, and the client may lose the
     * answer. */
    for (int i = 0; i < DRAIN_READS; i++) {
        if (recv(info->connect_fd, unread, sizeof unread, MSG_DONTWAIT) <= 0)
            break;
    }
    return MHD_NO;
}
