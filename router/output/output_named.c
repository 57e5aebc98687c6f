/* Calls as a header with the name in it and a JSON object behind: what each kind of model writes
 * into the header is in the table. */
#include <string.h>

#include "router/output/output_internal.h"

struct span {
    const char *s;
    size_t n;
};

/* Cuts it before the first of the texts; the index of that, -1: none is in it. */
static void cut_before(struct span *t, const char *const *before, size_t max)
{
    for (size_t i = 0; i < max && before[i]; i++) {
        const char *hit = memmem(t->s, t->n, before[i], strlen(before[i]));
        if (hit)
            t->n = (size_t)(hit - t->s);
    }
}

static struct span after(struct span t, const char *text)
{
    const char *hit = memmem(t.s, t.n, text, strlen(text));
    if (!hit)
        return (struct span){NULL, 0};
    size_t skip = (size_t)(hit - t.s) + strlen(text);
    return (struct span){t.s + skip, t.n - skip};
}

static void set_id(struct output_parser *p, struct span id)
{
    while (id.n && output_is_blank((unsigned char)*id.s)) {
        id.s++;
        id.n--;
    }
    while (id.n && output_is_blank((unsigned char)id.s[id.n - 1]))
        id.n--;
    buf_clear(&p->id);
    if (id.n && id.n < OUTPUT_NAME_BYTES_MAX && !memchr(id.s, 0, id.n))
        buf_append(&p->id, id.s, id.n);
}

static bool read_header(struct output_parser *p)
{
    const struct output_format *f = p->f;
    struct span all = {p->token.data ? p->token.data : "", p->token.len}, name = all, id = {0};
    if (f->id_in_name) {
        id = all;
        cut_before(&id, &f->name_before[1], 2);
    }
    if (f->id_after)
        id = after(all, f->id_after);
    if (id.s) {
        if (f->id_after)
            cut_before(&id, f->name_before, 3);
        set_id(p, id);
    }
    if (f->name_after) {
        struct span rest = after(all, f->name_after);
        if (rest.s)
            name = rest;
    }
    cut_before(&name, f->name_before, 3);
    return output_call_name(p, name.s, name.n);
}

static enum output_state behind(const struct output_parser *p)
{
    return p->f->call_close ? S_TRAILER : S_CALLS;
}

/* `[TOOL_CALLS]name` and the like end where the object begins; a call may also have none. */
static bool header_step(struct output_parser *p)
{
    const struct output_format *f = p->f;
    const char *const ends[] = {f->call_close, f->close[0], NULL};
    bool moved = false;
    size_t n;
    while (output_left(p)) {
        enum match m =
            output_match_any(p, f->call_close ? ends : f->close, OUTPUT_MARKERS_MAX - 1, &n);
        bool object = output_peek(p) == '{';
        if (m == MATCH_PART)
            return moved;
        if (m == MATCH_YES || object) {
            if (!read_header(p)) {
                output_call_fail(p);
                return true;
            }
            p->scan = (struct json_scan){0};
            output_go(p, S_ARGUMENTS);
            if (object)
                return true;
            output_call_end(p);
            output_go(p, behind(p));
            return true;
        }
        buf_putc(&p->token, (char)output_peek(p));
        output_take(p, 1);
        moved = true;
        if (p->token.len > HEADER_BYTES_MAX) {
            output_call_fail(p);
            return true;
        }
    }
    return moved;
}

/* Behind a call: code fences and the marker that closes it. */
static bool trailer_step(struct output_parser *p)
{
    bool moved = false;
    while (output_left(p)) {
        enum match m = output_match(p, p->f->call_close);
        if (m == MATCH_PART)
            return moved;
        if (m == MATCH_YES)
            output_take(p, strlen(p->f->call_close));
        if (m == MATCH_YES || (!output_is_blank(output_peek(p)) && output_peek(p) != '`')) {
            output_go(p, S_CALLS);
            return true;
        }
        output_take(p, 1);
        moved = true;
    }
    return moved;
}

bool output_named_step(struct output_parser *p)
{
    switch (p->state) {
    case S_HEADER:
        return header_step(p);
    case S_ARGUMENTS:
        return output_call_object(p, behind(p));
    default:
        return trailer_step(p);
    }
}
