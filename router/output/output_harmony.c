/* The harmony format: messages, each with a header (channel, recipient) and a body. `analysis` is
 * reasoning; what is addressed to a function is a call; the rest is content, and what is addressed
 * to a built-in tool is taken for reasoning.
 *
 * The prompt ends with <|start|>assistant, so the text begins within a header, unless the prompt
 * went further: then it begins with content. */
#include <string.h>

#include "router/output/output_internal.h"

static const char *const header_begins[] = {"<|channel|>", "<|start|>", "<|message|>", " to="};
static const char *const body_ends[] = {"<|end|>", "<|return|>", "<|call|>", NULL};
static const char *const body_stops[] = {"<|start|>", "<|channel|>", NULL};

static void begin_header(struct output_parser *p)
{
    output_keep(p);
    buf_clear(&p->token);
    output_go(p, S_HARMONY_HEAD);
}

static void begin_body(struct output_parser *p, enum output_event_kind kind)
{
    p->keep_raw = false;
    p->channel = kind;
    p->trim = kind == OUTPUT_REASONING;
    output_go(p, S_HARMONY_BODY);
}

static void read_header(struct output_parser *p)
{
    const char *s = p->token.data ? p->token.data : "";
    const char *channel = strstr(s, "<|channel|>"), *to = strstr(s, "to=");
    channel = channel ? channel + strlen("<|channel|>") : "final";
    bool analysis = strncmp(channel, "analysis", 8) == 0;
    bool function = to && strncmp(to, "to=functions.", 13) == 0;
    if (function && p->calls && !(p->args.forced || p->args.forced_name)) {
        const char *name = to + 13;
        output_call_start(p);
        if (!output_call_name(p, name, strcspn(name, " \t\n<"))) {
            output_call_fail(p);
            return;
        }
        p->scan = (struct json_scan){0};
        output_go(p, S_HARMONY_ARGUMENTS);
    } else if (p->args.reasoning && (analysis || (to && !function))) {
        begin_body(p, OUTPUT_REASONING);
    } else if (p->args.forced || p->args.forced_name) {
        buf_clear(&p->raw.text);
        buf_clear(&p->raw.special);
        output_force(p);
    } else {
        begin_body(p, OUTPUT_CONTENT);
    }
}

static bool head_step(struct output_parser *p)
{
    bool moved = false;
    size_t n = 0;
    if (p->token.len == 0 && p->raw.text.len == 0) { /* the very beginning */
        enum match m = output_match_any(p, header_begins, 4, &n);
        if (m == MATCH_PART || !output_left(p))
            return false;
        if (m == MATCH_NO) {
            begin_body(p, OUTPUT_CONTENT);
            return true;
        }
    }
    while (output_left(p)) {
        enum match m = output_match(p, "<|message|>");
        if (m == MATCH_PART)
            return moved;
        if (m == MATCH_YES) {
            output_take(p, strlen("<|message|>"));
            read_header(p);
            return true;
        }
        unsigned char c = output_peek(p);
        if (p->token.len >= HEADER_BYTES_MAX || c == 0) {
            output_call_fail(p);
            return true;
        }
        buf_putc(&p->token, (char)c);
        output_take(p, 1);
        moved = true;
    }
    return moved;
}

static bool end_body(struct output_parser *p, size_t n)
{
    if (p->channel == OUTPUT_REASONING)
        buf_clear(&p->blanks);
    output_take(p, n);
    output_go(p, S_HARMONY_BETWEEN);
    return true;
}

static bool body_step(struct output_parser *p)
{
    bool moved = false;
    while (output_left(p)) {
        size_t n = 0, run = 0, left = output_left(p);
        while (run < left && !p->first[(unsigned char)p->in.text.data[p->at + run]])
            run++;
        if (run) {
            output_text(p, p->channel, run);
            moved = true;
            continue;
        }
        enum match end = output_match_any(p, body_ends, 4, &n);
        if (end == MATCH_YES)
            return end_body(p, n);
        enum match stop = output_match_any(p, body_stops, 3, &n);
        if (stop == MATCH_YES)
            return end_body(p, 0);
        if (end == MATCH_PART || stop == MATCH_PART)
            return moved;
        output_text(p, p->channel, 1);
        moved = true;
    }
    return moved;
}

static bool arguments_step(struct output_parser *p)
{
    if (!p->has_arguments) {
        if (!output_skip_blanks(p))
            return false;
        if (output_peek(p) != '{') {
            output_call_fail(p);
            return true;
        }
    }
    return output_call_object(p, S_HARMONY_BETWEEN);
}

static bool between_step(struct output_parser *p)
{
    size_t n = 0;
    if (!output_skip_blanks(p))
        return false;
    enum match end = output_match_any(p, body_ends, 4, &n);
    if (end == MATCH_YES) {
        output_take(p, n);
        return true;
    }
    enum match start = output_match_any(p, body_stops, 3, &n);
    if (end == MATCH_PART || start == MATCH_PART)
        return false;
    if (start == MATCH_YES)
        begin_header(p);
    else
        begin_body(p, OUTPUT_CONTENT);
    return true;
}

bool output_harmony_step(struct output_parser *p)
{
    switch (p->state) {
    case S_HARMONY_HEAD:
        return head_step(p);
    case S_HARMONY_BODY:
        return body_step(p);
    case S_HARMONY_ARGUMENTS:
        return arguments_step(p);
    default:
        return between_step(p);
    }
}
