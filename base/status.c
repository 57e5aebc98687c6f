#include "base/status.h"

#include <stdio.h>
#include <string.h>

enum status err_set(struct error *err, enum status status, const char *fmt, ...)
{
    if (err == NULL)
        return status;
    /* The arguments may point into err->text (wrapping an error in itself), so format aside. */
    char text[sizeof err->text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err->status = status;
    memcpy(err->text, text, sizeof text);
    return status;
}

enum status err_prefix(struct error *err, const char *fmt, ...)
{
    if (err == NULL)
        return ST_INTERNAL;
    char text[sizeof err->text];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    snprintf(text + used, sizeof text - used, ": %s", err->text);
    memcpy(err->text, text, sizeof text);
    return err->status;
}

const char *status_name(enum status status)
{
    switch (status) {
    case ST_OK:
        return "ok";
    case ST_PENDING:
        return "pending";
    case ST_INVALID:
        return "invalid";
    case ST_NOT_FOUND:
        return "not_found";
    case ST_CANCELLED:
        return "cancelled";
    case ST_DEADLINE:
        return "deadline";
    case ST_BUSY:
        return "busy";
    case ST_NEVER_FITS:
        return "never_fits";
    case ST_PREEMPTED:
        return "preempted";
    case ST_DENIED:
        return "denied";
    case ST_UNSUPPORTED:
        return "unsupported";
    case ST_LINK:
        return "link";
    case ST_PROTOCOL:
        return "protocol";
    case ST_INCOMPATIBLE:
        return "incompatible";
    case ST_CHECKSUM:
        return "checksum";
    case ST_TRANSFER:
        return "transfer";
    case ST_NO_MEMORY:
        return "no_memory";
    case ST_IO:
        return "io";
    case ST_INTERNAL:
        return "internal";
    }
    return "unknown";
}
