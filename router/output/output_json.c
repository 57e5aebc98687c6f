/* Calls as JSON objects: {"name": ..., "arguments" or "parameters": {...}}, members in any order,
 * also wrapped as {"type": "function", "function": {...}}. Arguments are passed on as written; as a
 * string, what the string holds. */
#include <string.h>

#include "base/json.h"
#include "router/output/output_internal.h"

static bool to(struct output_parser *p, enum output_state state)
{
    output_take(p, 1);
    output_go(p, state);
    return true;
}

static bool is(const struct output_parser *p, const char *key)
{
    return p->token.len == strlen(key) && memcmp(p->token.data, key, p->token.len) == 0;
}

/* The string literal in `token` becomes the text it stands for. */
static bool decode(struct output_parser *p)
{
    struct buf array = {0};
    json *v = NULL;
    buf_putc(&array, '[');
    buf_append(&array, p->token.data, p->token.len);
    buf_putc(&array, ']');
    bool ok = !array.failed && json_read(array.data, array.len, &v, NULL) == ST_OK;
    if (ok) {
        const json *s = json_at(v, 0);
        buf_clear(&p->token);
        buf_append(&p->token, json_as_str(s, ""), json_str_len(s));
    }
    json_free(v);
    buf_fini(&array);
    return ok;
}

static void begin_text(struct output_parser *p, enum json_use use)
{
    p->use = use;
    p->scan = (struct json_scan){0};
    buf_clear(&p->token);
}

/* Arguments within a string must be an object all the same. */
static bool use_arguments(struct output_parser *p)
{
    const char *s = p->token.data;
    size_t n = p->token.len, i = 0;
    while (i < n && output_is_blank((unsigned char)s[i]))
        i++;
    if (i == n)
        return true;
    if (s[i] != '{' || !json_scan_whole(s, n))
        return false;
    output_call_arguments(p, s, n);
    return true;
}

static bool use_text(struct output_parser *p)
{
    if (!decode(p))
        return false;
    switch (p->use) {
    case USE_NAME:
        return output_call_name(p, p->token.data, p->token.len);
    case USE_ID:
        buf_clear(&p->id);
        if (p->token.len < OUTPUT_NAME_BYTES_MAX && !memchr(p->token.data, 0, p->token.len))
            buf_append(&p->id, p->token.data, p->token.len);
        return true;
    default:
        return use_arguments(p);
    }
}

/* A string's next byte; S_JSON_KEY_TEXT and S_JSON_TEXT. */
static bool in_text(struct output_parser *p, unsigned char c)
{
    bool key = p->state == S_JSON_KEY_TEXT;
    json_scan_copy(&p->scan, c, &p->token);
    enum json_step step = json_scan_push(&p->scan, c);
    output_take(p, 1);
    if (step == JSON_STEP_MORE)
        return p->token.len <= HELD_BYTES_MAX;
    output_go(p, key ? S_JSON_COLON : S_JSON_NEXT);
    return step == JSON_STEP_DONE && (key ? decode(p) : use_text(p));
}

static bool skip(struct output_parser *p)
{
    p->scan = (struct json_scan){0};
    output_go(p, S_JSON_SKIP);
    return true;
}

static bool read_text(struct output_parser *p, enum json_use use)
{
    begin_text(p, use);
    output_go(p, S_JSON_TEXT);
    return true;
}

/* Behind a key and its colon. Nothing is taken: the state it goes to does. */
static bool begin_value(struct output_parser *p, unsigned char c)
{
    bool first = p->first_key;
    p->first_key = false;
    if (is(p, "name") || is(p, "tool_name"))
        return c == '"' && read_text(p, USE_NAME);
    if (is(p, "arguments") || is(p, "parameters")) {
        if (c == '"' && !p->has_arguments)
            return read_text(p, USE_ARGUMENTS);
        if (c != '{' || p->has_arguments)
            return c == '{' || c == 'n' ? skip(p) : false;
        p->scan = (struct json_scan){0};
        output_go(p, S_JSON_ARGUMENTS);
        return true;
    }
    if ((is(p, "id") || is(p, "tool_call_id")) && c == '"')
        return read_text(p, USE_ID);
    if (is(p, "function") && c == '"')
        return read_text(p, USE_NAME);
    if (is(p, "function") && c == '{' && p->level == 0) {
        p->level = 1;
        return to(p, S_JSON_KEY);
    }
    /* Without a marker an unknown beginning is not the beginning of a call. */
    if (p->strict && first && !is(p, "id") && !is(p, "type"))
        return false;
    return skip(p);
}

static bool close_object(struct output_parser *p)
{
    if (p->level > 0) {
        p->level--;
        return to(p, S_JSON_NEXT);
    }
    if (!p->named)
        return false;
    output_take(p, 1);
    output_call_end(p);
    output_go(p, S_CALLS);
    return true;
}

/* Arguments and what is passed over. */
static bool in_value(struct output_parser *p, unsigned char c)
{
    bool wanted = p->state == S_JSON_ARGUMENTS;
    struct json_scan before = p->scan;
    enum json_step step = json_scan_push(&p->scan, c);
    if (step == JSON_STEP_BAD)
        return false;
    if (step == JSON_STEP_BEFORE) {
        output_go(p, S_JSON_NEXT);
        return true;
    }
    struct buf *out = &p->call;
    output_take(p, 1);
    if (wanted) {
        json_scan_copy(&before, c, out);
        output_call_arguments(p, "", 0);
    }
    if (step == JSON_STEP_DONE)
        output_go(p, S_JSON_NEXT);
    return true;
}

static bool in_key(struct output_parser *p, unsigned char c)
{
    if (c == '}')
        return close_object(p);
    if (c != '"')
        return false;
    begin_text(p, USE_NAME);
    output_go(p, S_JSON_KEY_TEXT);
    return true;
}

/* One byte more; false: this is no call. */
static bool take_byte(struct output_parser *p)
{
    unsigned char c = output_peek(p);
    bool between = p->state <= S_JSON_VALUE || p->state == S_JSON_NEXT;
    if (between && p->state != S_JSON_KEY_TEXT && output_is_blank(c)) {
        output_take(p, 1);
        return true;
    }
    switch (p->state) {
    case S_JSON_OPEN:
        return c == '{' && to(p, S_JSON_KEY);
    case S_JSON_KEY:
        return in_key(p, c);
    case S_JSON_KEY_TEXT:
    case S_JSON_TEXT:
        return in_text(p, c);
    case S_JSON_COLON:
        return c == ':' && to(p, S_JSON_VALUE);
    case S_JSON_VALUE:
        return begin_value(p, c);
    case S_JSON_NEXT:
        return c == '}' ? close_object(p) : c == ',' && to(p, S_JSON_KEY);
    default:
        return in_value(p, c);
    }
}

bool output_json_step(struct output_parser *p)
{
    size_t most = p->args.whole ? WHOLE_BYTES_MAX : HELD_BYTES_MAX;
    bool moved = false;
    while (output_left(p) && p->state >= S_JSON_OPEN && p->state <= S_JSON_NEXT) {
        moved = true;
        if (take_byte(p) && (!p->keep_raw || p->raw.text.len <= most))
            continue;
        output_call_fail(p);
        return true;
    }
    return moved;
}
