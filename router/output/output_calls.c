/* Between the calls of a section: what may begin one, what ends the section. And arguments that
 * are an object, as several families write them. */
#include <string.h>

#include "router/output/output_internal.h"

static bool begins_name(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* The section is over; without any call it was none. */
static bool leave(struct output_parser *p)
{
    if (p->keep_raw) {
        output_call_fail(p);
    } else {
        p->strict = p->in_array = false;
        output_go(p, S_CONTENT);
    }
    return true;
}

static bool begin_call(struct output_parser *p, size_t marker, enum output_state state)
{
    output_call_start(p);
    output_take(p, marker);
    output_go(p, state);
    return true;
}

static bool bracket(struct output_parser *p, unsigned char c)
{
    bool first = p->keep_raw;
    if (c == '[' && !p->in_array)
        p->in_array = true;
    else if (c == ']' && p->in_array && !first)
        p->in_array = false;
    else if ((c != ',' && c != ';') || first)
        return false;
    output_take(p, 1);
    return true;
}

static bool begin_forced(struct output_parser *p)
{
    begin_call(p, 0, S_ARGUMENTS);
    p->scan = (struct json_scan){0};
    if (p->index > 0 || !output_call_name(p, p->args.forced_name, strlen(p->args.forced_name)))
        output_call_fail(p);
    return true;
}

static bool by_family(struct output_parser *p)
{
    unsigned char c = output_peek(p);
    switch (p->f->family) {
    case OUTPUT_JSON:
        if (c == '{' && p->args.forced_name)
            return begin_forced(p);
        if (c == '{')
            return begin_call(p, 0, S_JSON_OPEN);
        if (p->f->name_before[0] && begins_name(c))
            return begin_call(p, 0, S_HEADER);
        return bracket(p, c);
    case OUTPUT_XML:
        if (!p->f->call_open && p->opened)
            return begin_call(p, 0, S_XML_NAME);
        return false;
    case OUTPUT_PYTHONIC:
        if (begins_name(c))
            return begin_call(p, 0, S_PY_NAME);
        return bracket(p, c);
    default:
        return false;
    }
}

/* An open marker again: kept, should no call follow it. */
static bool reopen(struct output_parser *p, size_t n)
{
    output_keep(p);
    p->opened = true;
    p->in_array = false;
    output_take(p, n);
    return true;
}

bool output_calls_step(struct output_parser *p)
{
    static const enum output_state first[] = {
        [OUTPUT_NAMED] = S_HEADER, [OUTPUT_XML] = S_XML_NAME, [OUTPUT_HARMONY] = S_CONTENT};
    const struct output_format *f = p->f;
    size_t n = 0;
    if (!output_skip_blanks(p))
        return false;
    enum match call = f->call_open ? output_match(p, f->call_open) : MATCH_NO;
    if (call == MATCH_YES)
        return begin_call(p, strlen(f->call_open), first[f->family]);
    enum match close = output_match_any(p, f->close, OUTPUT_MARKERS_MAX, &n);
    if (close == MATCH_YES) {
        output_take(p, n);
        return leave(p);
    }
    enum match open = output_match_any(p, f->open, OUTPUT_MARKERS_MAX, &n);
    if (open == MATCH_YES && !p->opened)
        return reopen(p, n);
    if (call == MATCH_PART || close == MATCH_PART || (open == MATCH_PART && !p->opened))
        return false;
    return by_family(p) || leave(p);
}

bool output_call_object(struct output_parser *p, enum output_state next)
{
    bool moved = false;
    while (output_left(p)) {
        unsigned char c = output_peek(p);
        struct json_scan before = p->scan;
        enum json_step step = json_scan_push(&p->scan, c);
        moved = true;
        if (step == JSON_STEP_BAD || step == JSON_STEP_BEFORE) {
            output_call_fail(p);
            return true;
        }
        output_take(p, 1);
        json_scan_copy(&before, c, &p->call);
        output_call_arguments(p, "", 0);
        if (step == JSON_STEP_DONE) {
            output_call_end(p);
            output_go(p, next);
            return true;
        }
    }
    return moved;
}
