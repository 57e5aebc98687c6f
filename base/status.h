/* Status codes and the one error record.
 *
 * Every fallible function returns `enum status`: 0 is ok, ST_PENDING (1) is "not yet, no error",
 * negatives are failures, grouped by what they destroy: the request, the link to a peer, or this
 * node. Outputs are set only on success. The place that decides an error fills `struct error` once
 * with err_set() (and, where it is an event of interest, logs it once); everything above only
 * passes the status on.
 *
 * Owner: the caller provides `struct error` (may be NULL: text is dropped). Thread: any; no global
 * state.
 *
 *     if (n > LIMIT)
 *         return err_set(err, ST_INVALID, "%s: %zu entries, at most %d", path, n, LIMIT);
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stdarg.h>

enum status {
    ST_OK = 0,
    ST_PENDING = 1,
    /* the request is wrong or over; the node is well */
    ST_INVALID = -1,     /* malformed or out of range: retrying is useless */
    ST_NOT_FOUND = -2,   /* no such model, file, key */
    ST_CANCELLED = -3,   /* the caller went away */
    ST_DEADLINE = -4,    /* the time was up */
    ST_BUSY = -5,        /* no room now; try later or elsewhere */
    ST_NEVER_FITS = -6,  /* no room ever: larger than this node */
    ST_PREEMPTED = -7,   /* gave way to others; may be resumed elsewhere */
    ST_DENIED = -8,      /* not authenticated or not allowed */
    ST_UNSUPPORTED = -9, /* well-formed, but not something we do */
    /* the link to a peer is gone or wrong */
    ST_LINK = -20,         /* connection lost, peer dead, transfer failed */
    ST_PROTOCOL = -21,     /* the peer speaks nonsense */
    ST_INCOMPATIBLE = -22, /* other fingerprint or wire version */
    ST_CHECKSUM = -23,     /* data arrived damaged */
    ST_TRANSFER = -24,     /* both nodes are well, but KV does not get from one to the other */
    /* this node cannot go on */
    ST_NO_MEMORY = -40,
    ST_IO = -41,
    ST_INTERNAL = -42 /* our bug, noticed before it did harm */
};

struct error {
    enum status status;
    char text[480];
};

/* Formats `text`, sets `status` in *err (when not NULL) and returns `status`. */
enum status err_set(struct error *err, enum status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "prefix: " in front of the text that is there. Returns err->status (ST_INTERNAL when err is
 * NULL). */
enum status err_prefix(struct error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* "invalid", "busy" ...: lower-case word of a status, never NULL. */
const char *status_name(enum status status);

#endif
