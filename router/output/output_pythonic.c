/* Calls as Python writes them: [f(a=1, b="x"), g()]. Each argument is passed on, as JSON, when it
 * is complete. */
#include <string.h>

#include "router/output/output_internal.h"

static bool fail(struct output_parser *p)
{
    output_call_fail(p);
    return true;
}

static bool in_name(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

/* An identifier up to `end`, which is taken. 1: there, 0: needs more, -1: it is none. */
static int identifier(struct output_parser *p, struct buf *to, unsigned char end)
{
    while (output_left(p)) {
        unsigned char c = output_peek(p);
        if (c != end && (!in_name(c) || to->len >= OUTPUT_NAME_BYTES_MAX))
            return -1;
        output_take(p, 1);
        if (c == end)
            return to->len ? 1 : -1;
        buf_putc(to, (char)c);
    }
    return 0;
}

static bool name_step(struct output_parser *p)
{
    size_t left = output_left(p);
    int got = identifier(p, &p->token, '(');
    if (got < 0 || (got > 0 && !output_call_name(p, p->token.data, p->token.len)))
        return fail(p);
    if (!got)
        return output_left(p) != left;
    buf_clear(&p->key);
    output_go(p, S_PY_ARGUMENT);
    return true;
}

static bool argument_step(struct output_parser *p)
{
    if (p->key.len == 0) {
        if (!output_skip_blanks(p))
            return false;
        unsigned char c = output_peek(p);
        if (c == ')') {
            output_take(p, 1);
            if (p->any_parameter)
                output_call_arguments(p, "}", 1);
            output_call_end(p);
            output_go(p, S_CALLS);
            return true;
        }
        if (c == ',' && p->any_parameter) {
            output_take(p, 1);
            return true;
        }
    }
    size_t left = output_left(p);
    if (p->key.len == 0)
        output_call_mark(p);
    int got = identifier(p, &p->key, '=');
    if (got < 0)
        return fail(p);
    if (!got)
        return output_left(p) != left;
    buf_clear(&p->token);
    p->quote = 0;
    p->brackets = 0;
    p->escaped = false;
    output_go(p, S_PY_VALUE);
    return true;
}

/* Follows quotes and brackets: is this the byte behind the value? */
static bool ends_value(struct output_parser *p, unsigned char c)
{
    if (p->quote) {
        if (p->escaped)
            p->escaped = false;
        else if (c == '\\')
            p->escaped = true;
        else if (c == (unsigned char)p->quote)
            p->quote = 0;
        return false;
    }
    if (p->brackets == 0 && (c == ',' || c == ')'))
        return true;
    if (c == '"' || c == '\'')
        p->quote = (char)c;
    else if (c == '[' || c == '{' || c == '(')
        p->brackets++;
    else if (c == ']' || c == '}' || c == ')')
        p->brackets--;
    return false;
}

static bool got_value(struct output_parser *p)
{
    struct buf out = {0};
    buf_puts(&out, p->any_parameter ? ", \"" : "{\"");
    buf_append(&out, p->key.data, p->key.len);
    buf_puts(&out, "\": ");
    bool ok = output_python_value(p->token.data ? p->token.data : "", p->token.len, &out);
    if (ok) {
        p->any_parameter = true;
        output_call_arguments(p, out.data ? out.data : "", out.len);
        p->call.failed |= out.failed;
        buf_clear(&p->key);
        output_call_unmark(p);
        output_go(p, S_PY_ARGUMENT);
    }
    buf_fini(&out);
    return ok || fail(p);
}

static bool value_step(struct output_parser *p)
{
    size_t most = p->args.whole ? WHOLE_BYTES_MAX : HELD_BYTES_MAX;
    bool moved = false;
    while (output_left(p)) {
        unsigned char c = output_peek(p);
        if (ends_value(p, c))
            return got_value(p);
        if (p->brackets < 0 || p->token.len > most)
            return fail(p);
        buf_putc(&p->token, (char)c);
        output_take(p, 1);
        moved = true;
    }
    return moved;
}

bool output_pythonic_step(struct output_parser *p)
{
    switch (p->state) {
    case S_PY_NAME:
        return name_step(p);
    case S_PY_ARGUMENT:
        return argument_step(p);
    default:
        return value_step(p);
    }
}
