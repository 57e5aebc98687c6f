/* Calls as tags: a name, then keys and values one by one. They become members of a JSON object. A
 * value has no type of its own: the tool's schema says whether it is a string; where it does not,
 * a value that is JSON is taken as such. Strings are passed on as they come, other values when they
 * are complete. */
#include <string.h>

#include "base/json.h"
#include "router/output/output_internal.h"

static bool fail(struct output_parser *p)
{
    output_call_fail(p);
    return true;
}

/* Collects bytes in `to` up to a marker; *found when it is there (and taken). False: too long. */
static bool collect(struct output_parser *p, const char *marker, struct buf *to, bool *found)
{
    *found = false;
    while (output_left(p)) {
        enum match m = output_match(p, marker);
        if (m == MATCH_PART)
            return true;
        if (m == MATCH_YES) {
            output_take(p, strlen(marker));
            *found = true;
            return true;
        }
        if (to->len >= OUTPUT_NAME_BYTES_MAX)
            return false;
        buf_putc(to, (char)output_peek(p));
        output_take(p, 1);
    }
    return true;
}

/* What a step answers whose collect() has not found the end: has it taken anything? */
static bool waits(const struct output_parser *p, size_t left)
{
    return output_left(p) != left;
}

static bool got_name(struct output_parser *p)
{
    if (!output_call_name(p, p->token.data ? p->token.data : "", p->token.len))
        return fail(p);
    output_go(p, S_XML_BODY);
    return true;
}

static bool name_step(struct output_parser *p)
{
    size_t left = output_left(p);
    bool found = false;
    if (p->f->name_end) {
        if (!collect(p, p->f->name_end, &p->token, &found))
            return fail(p);
        return found ? got_name(p) : waits(p, left);
    }
    while (output_left(p)) {
        unsigned char c = output_peek(p);
        if (c == '\n' || c == '<')
            return got_name(p);
        if (p->token.len >= OUTPUT_NAME_BYTES_MAX)
            return fail(p);
        buf_putc(&p->token, (char)c);
        output_take(p, 1);
    }
    return waits(p, left);
}

static bool end_call(struct output_parser *p)
{
    if (p->any_parameter)
        output_call_arguments(p, "}", 1);
    output_call_end(p);
    output_go(p, S_CALLS);
    return true;
}

static bool body_step(struct output_parser *p)
{
    const struct output_format *f = p->f;
    size_t n = 0;
    if (!output_skip_blanks(p))
        return p->over && !p->cut && p->named ? end_call(p) : false;
    enum match param = output_match(p, f->param_open);
    if (param == MATCH_YES) {
        output_call_mark(p);
        output_take(p, strlen(f->param_open));
        buf_clear(&p->key);
        output_go(p, S_XML_KEY);
        return true;
    }
    enum match close = output_match(p, f->call_close);
    if (close == MATCH_YES) {
        output_take(p, strlen(f->call_close));
        return end_call(p);
    }
    enum match section = output_match_any(p, f->close, OUTPUT_MARKERS_MAX, &n);
    if (section == MATCH_YES)
        return end_call(p);
    if (param == MATCH_PART || close == MATCH_PART || section == MATCH_PART)
        return false;
    return fail(p);
}

/* ---- values ---- */

/* A byte of UTF-8. */
static void put_escaped(struct buf *out, unsigned char c)
{
    if (c < 0x80)
        output_put_char(out, c);
    else
        buf_putc(out, (char)c);
}

static void put_string(struct buf *out, const char *s, size_t n)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < n; i++)
        put_escaped(out, (unsigned char)s[i]);
}

static void begin_value(struct output_parser *p)
{
    struct buf lead = {0};
    if (p->type == OUTPUT_TYPE_UNKNOWN && p->args.ops->type)
        p->type = p->args.ops->type(p->args.owner, p->name.data, p->key.data);
    buf_puts(&lead, p->any_parameter ? ", " : "{");
    put_string(&lead, p->key.data, p->key.len);
    buf_puts(&lead, "\": ");
    p->streaming = p->type == OUTPUT_TYPE_STRING;
    if (p->streaming)
        buf_putc(&lead, '"');
    p->any_parameter = true;
    p->newline = false;
    p->skip_newline = p->f->newlines;
    output_call_arguments(p, lead.data ? lead.data : "", lead.len);
    p->call.failed |= lead.failed;
    buf_fini(&lead);
    buf_clear(&p->token);
    output_call_unmark(p);
    output_go(p, S_XML_VALUE);
}

static bool key_step(struct output_parser *p)
{
    size_t left = output_left(p);
    bool found = false;
    if (!collect(p, p->f->key_end, &p->key, &found))
        return fail(p);
    if (!found)
        return waits(p, left);
    if (p->key.len == 0 || memchr(p->key.data, 0, p->key.len))
        return fail(p);
    p->type = OUTPUT_TYPE_UNKNOWN;
    buf_clear(&p->token);
    if (p->f->attributes)
        output_go(p, S_XML_ATTRIBUTES);
    else if (p->f->value_open)
        output_go(p, S_XML_VALUE_OPEN);
    else
        begin_value(p);
    return true;
}

static bool attributes_step(struct output_parser *p)
{
    size_t left = output_left(p);
    bool found = false;
    if (!collect(p, ">", &p->token, &found))
        return fail(p);
    if (!found)
        return waits(p, left);
    const char *s = p->token.data ? p->token.data : "";
    if (strstr(s, "string=\"true\""))
        p->type = OUTPUT_TYPE_STRING;
    else if (strstr(s, "string=\"false\""))
        p->type = OUTPUT_TYPE_OTHER;
    begin_value(p);
    return true;
}

static bool value_open_step(struct output_parser *p)
{
    if (!output_skip_blanks(p))
        return false;
    enum match m = output_match(p, p->f->value_open);
    if (m == MATCH_PART)
        return false;
    if (m == MATCH_NO)
        return fail(p);
    output_take(p, strlen(p->f->value_open));
    begin_value(p);
    return true;
}

static void value_byte(struct output_parser *p, unsigned char c)
{
    if (p->streaming) {
        put_escaped(&p->call, c);
    } else {
        buf_putc(&p->token, (char)c);
        if (p->token.len > HELD_BYTES_MAX) { /* whatever it is, it is passed on as a string */
            put_string(&p->call, p->token.data, p->token.len);
            buf_clear(&p->token);
            p->streaming = true;
        }
    }
    output_call_arguments(p, "", 0);
}

static void take_value_byte(struct output_parser *p)
{
    unsigned char c = output_peek(p);
    bool skipped = p->skip_newline && c == '\n';
    output_take(p, 1);
    p->skip_newline = false;
    if (skipped)
        return;
    if (p->newline)
        value_byte(p, '\n');
    p->newline = p->f->newlines && c == '\n';
    if (!p->newline)
        value_byte(p, c);
}

static void end_value(struct output_parser *p)
{
    const char *s = p->token.data ? p->token.data : "";
    size_t n = p->token.len, from = 0, to = n;
    struct buf out = {0};
    while (from < to && output_is_blank((unsigned char)s[from]))
        from++;
    while (to > from && output_is_blank((unsigned char)s[to - 1]))
        to--;
    if (p->streaming) {
        buf_putc(&out, '"');
    } else if (json_scan_whole(s + from, to - from)) {
        struct json_scan scan = {0};
        for (size_t i = from; i < to; i++) {
            json_scan_copy(&scan, (unsigned char)s[i], &out);
            json_scan_push(&scan, (unsigned char)s[i]);
        }
    } else if (!output_python_value(s + from, to - from, &out)) {
        buf_clear(&out);
        put_string(&out, s, n);
        buf_putc(&out, '"');
    }
    output_call_arguments(p, out.data ? out.data : "", out.len);
    p->call.failed |= out.failed;
    buf_fini(&out);
    output_go(p, S_XML_BODY);
}

static bool value_step(struct output_parser *p)
{
    const char *close = p->f->value_close;
    bool moved = false;
    while (output_left(p)) {
        enum match m = output_match(p, close);
        if (m == MATCH_PART)
            return moved;
        if (m == MATCH_YES) {
            output_take(p, strlen(close));
            end_value(p);
            return true;
        }
        take_value_byte(p);
        moved = true;
    }
    return moved;
}

bool output_xml_step(struct output_parser *p)
{
    switch (p->state) {
    case S_XML_NAME:
        return name_step(p);
    case S_XML_BODY:
        return body_step(p);
    case S_XML_KEY:
        return key_step(p);
    case S_XML_ATTRIBUTES:
        return attributes_step(p);
    case S_XML_VALUE_OPEN:
        return value_open_step(p);
    default:
        return value_step(p);
    }
}
