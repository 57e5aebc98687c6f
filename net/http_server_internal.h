/* What the files of the HTTP server share. Not for others.
 *
 * Two threads meet here: the loop (all of http_server.h) and libmicrohttpd's (the callbacks of
 * http_server_mhd.c). Everything of a request that both touch is under the server's one mutex, held
 * for a few instructions or one copy. A request is seen by the loop once it is whole; from then on
 * only the loop frees it, when it has been released and libmicrohttpd is through with it, so a
 * pointer that the loop holds stays good.
 *
 * A request waits suspended in libmicrohttpd until the loop answers; a stream is suspended whenever
 * all that was written has gone out. A suspended connection is not polled, and of one that is,
 * libmicrohttpd does not hear that the client has closed where that came together with bytes: so
 * the loop's own epoll watches every descriptor for the client's going away, and the loop looks at
 * how long a request takes to arrive. A struct http_link is touched and freed under the lock.
 */
#ifndef NET_HTTP_SERVER_INTERNAL_H
#define NET_HTTP_SERVER_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"
#include "net/http_server.h"

enum http_phase {
    HTTP_ARRIVING, /* libmicrohttpd's alone */
    HTTP_WAITING,  /* the loop has it, nothing is answered */
    HTTP_WHOLE,    /* answered at once */
    HTTP_STREAM,
    HTTP_OVER /* libmicrohttpd is through: conn and fd are not ours any more */
};

struct http_pair {
    char *name, *value;
};

struct http_header_out {
    struct http_header_out *next;
    char *name, *value;
};

struct http_link {    /* a connection */
    struct list link; /* in server->arriving or leaving while no request is with the loop */
    struct http_request *request; /* the one that is; NULL */
    int fd;
    bool left;        /* the client has closed */
    int64_t since_ns; /* when the last request was over */
};

struct http_request {
    struct http_server *server;
    struct http_link *link_to; /* NULL: its connection could not be kept an eye on, or is gone */
    struct list all, link;     /* in server->all from WAITING to OVER; in ready or batch */
    struct MHD_Connection *conn;
    int fd;
    enum http_phase phase;
    /* the request; constant from WAITING on, but for the body, which the loop may take */
    char *method, *path;
    struct http_pair *headers, *query;
    size_t n_headers, n_query;
    char *strings;
    struct buf body;
    size_t body_seen;
    bool published; /* libmicrohttpd's thread only: it has been WAITING */
    int refused;    /* the status that it will get without being delivered; 0 */
    /* the answer */
    int status;
    char *content_type;
    struct http_header_out *out_headers;
    struct buf out;
    size_t out_at, in_flight; /* in_flight: given to libmicrohttpd and not known to be sent */
    bool ended, aborted;
    bool written; /* since the last HTTP_EV_SENT */
    /* between the threads */
    bool suspended, gone, released;
    unsigned events; /* bits of enum http_event_kind */
    void *user;
};

struct http_server {
    struct http_server_args args;
    struct MHD_Daemon *daemon;
    int listen_fd, port, wake_fd, epoll_fd;
    pthread_mutex_t lock;
    struct list all, ready, batch; /* ready: for the loop to take; batch: taken */
    struct list arriving, leaving; /* of struct http_link, the longest first */
    bool stopping, signalled;      /* signalled: wake_fd is readable */
    atomic_int connections;
    atomic_size_t body_bytes; /* of all requests */
};

/* Under the lock. */
void http_push(struct http_request *r, enum http_event_kind kind);
void http_resume(struct http_request *r);
/* Frees what nobody refers to any more. Loop thread, or libmicrohttpd's while ARRIVING. */
void http_free(struct http_request *r);
size_t http_waiting(const struct http_request *r);

/* http_server_refuse.c */
/* Answers with an error that the loop never sees; the connection ends. */
enum MHD_Result http_refuse(struct MHD_Connection *conn, int status);
/* MHD_queue_response() itself, which means something else in this program. */
enum MHD_Result http_queue(struct MHD_Connection *conn, int status, struct MHD_Response *resp);

/* http_server_mhd.c */
enum status http_daemon_start(struct http_server *s, struct error *err);

#endif
