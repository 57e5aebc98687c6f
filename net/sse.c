/* Server-sent events, as the HTML standard's event stream: lines end in LF, CR or CRLF, a blank
 * line ends an event, `data:` lines are joined by LF, everything else is skipped. */
#include <stdlib.h>
#include <string.h>

#include "net/http_client.h"

#define SSE_BYTES_MAX (64u << 20) /* of what has not been taken yet */

enum status sse_feed(struct sse_parser *p, const char *data, size_t len)
{
    if (p->at) {
        memmove(p->data, p->data + p->at, p->len - p->at);
        p->len -= p->at;
        p->at = 0;
    }
    if (len > SSE_BYTES_MAX - p->len)
        return ST_NO_MEMORY;
    if (p->len + len > p->cap) {
        size_t cap = p->cap ? p->cap : 4096;
        while (cap < p->len + len)
            cap *= 2;
        char *bigger = realloc(p->data, cap);
        if (!bigger)
            return ST_NO_MEMORY;
        p->data = bigger;
        p->cap = cap;
    }
    if (len)
        memcpy(p->data + p->len, data, len);
    p->len += len;
    return ST_OK;
}

/* The line at *at: its length, and *at moves behind its end. False: its end has not come yet. */
static bool next_line(const struct sse_parser *p, size_t *at, size_t *len)
{
    size_t i = *at;
    while (i < p->len && p->data[i] != '\n' && p->data[i] != '\r')
        i++;
    if (i == p->len)
        return false;
    if (p->data[i] == '\r' && i + 1 == p->len)
        return false; /* a LF may follow */
    *len = i - *at;
    *at = i + (p->data[i] == '\r' && p->data[i + 1] == '\n' ? 2 : 1);
    return true;
}

/* Finds the end of the event at p->at; *end is behind its blank line. */
static bool event_end(const struct sse_parser *p, size_t *end)
{
    size_t at = p->at, len;
    while (next_line(p, &at, &len)) {
        if (len == 0) {
            *end = at;
            return true;
        }
    }
    return false;
}

const char *sse_next(struct sse_parser *p)
{
    size_t end;
    while (event_end(p, &end)) {
        /* Joined in place: what comes out is never longer than what was read. */
        size_t at = p->at, line, len, to = p->at;
        bool some = false;
        char *event = p->data + p->at;
        while (at < end) {
            line = at;
            if (!next_line(p, &at, &len))
                break;
            const char *s = p->data + line;
            if (len < 4 || memcmp(s, "data", 4) != 0 || (len > 4 && s[4] != ':'))
                continue;
            size_t skip = len > 4 ? 5 : 4;
            if (len > 5 && s[5] == ' ')
                skip = 6;
            if (some)
                p->data[to++] = '\n';
            memmove(p->data + to, s + skip, len - skip);
            to += len - skip;
            some = true;
        }
        p->at = end;
        if (some) {
            p->data[to] = 0;
            return event;
        }
    }
    return NULL;
}

void sse_fini(struct sse_parser *p)
{
    free(p->data);
    memset(p, 0, sizeof *p);
}
