/* What a model said, taken apart: content, reasoning and tool calls, from the text of its tokens as
 * it comes.
 *
 * Text goes in piece by piece, each marked as stemming from a special token or not; events come
 * out at once, as soon as they are certain: half a marker is never content. The work is linear in
 * the text, memory is bounded (what is held is a marker's beginning, a header, one argument of a
 * call), and how the text was cut into pieces changes nothing but where events are cut. Formats
 * are rows of a table (output_format.h).
 *
 * A call's arguments come out as JSON text, byte for byte what the model wrote where it wrote JSON,
 * converted where it wrote XML or Python. What does not parse:
 *   - before OUTPUT_CALL_BEGIN (no name, not JSON, an unknown key) all of it, marker included, is
 *     content;
 *   - later the call ends as far as it got (its arguments are then no complete JSON, which a
 *     client notices) and the rest is content. With `whole` nothing of a call is said before its
 *     end, so that then too all of it is content.
 * A call cut off by the token limit comes out as far as it got; what is cut within a header of
 * harmony's, or before the name of a call that is forced, does not come out.
 *
 * Pure: no clocks, no ids of its own (the sink makes them). Owner: output_parser_create() gives an
 * object for output_parser_destroy(). Thread: one at a time.
 *
 *     p = output_parser_create(&args);
 *     output_parser_push(p, piece);  ...
 *     output_parser_finish(p, cut_by_length);
 */
#ifndef ROUTER_OUTPUT_OUTPUT_PARSER_H
#define ROUTER_OUTPUT_OUTPUT_PARSER_H

#include <stdbool.h>
#include <stddef.h>

#include "router/output/output_format.h"

#define OUTPUT_NAME_BYTES_MAX 256

enum output_event_kind {
    OUTPUT_CONTENT,
    OUTPUT_REASONING,
    OUTPUT_CALL_BEGIN,     /* text: the function's name; id: the model's own id, else "" */
    OUTPUT_CALL_ARGUMENTS, /* text: more of the arguments */
    OUTPUT_CALL_END
};
struct output_event {
    enum output_event_kind kind;
    int index; /* of the call, from 0 */
    const char *text;
    size_t len;
    const char *id;
};

/* What a tool's JSON schema says of one parameter. */
enum output_type { OUTPUT_TYPE_UNKNOWN, OUTPUT_TYPE_STRING, OUTPUT_TYPE_OTHER };

struct output_ops { /* any may be NULL */
    void (*event)(void *owner, const struct output_event *ev);
    bool (*known)(void *owner, const char *tool); /* guards formats without markers */
    enum output_type (*type)(void *owner, const char *tool, const char *parameter);
};

struct output_args {
    const struct output_ops *ops;
    void *owner;
    const struct output_format *tools;        /* NULL: calls stay text */
    const struct output_reasoning *reasoning; /* NULL: reasoning stays text */
    bool inside_reasoning;                    /* the prompt ends within it */
    bool skip_special;                        /* special tokens are no content */
    bool whole;
    const char *forced_name; /* all of the text is the arguments of this function */
    bool forced;             /* all of the text is calls: JSON, without markers */
    bool led;                /* the answer is constrained, with room for reasoning before it */
    bool keep_blanks;        /* led: those in front of the answer are its own */
};

struct output_parser;
struct output_parser *output_parser_create(const struct output_args *args);
void output_parser_destroy(struct output_parser *p);

struct output_piece {
    const char *text;
    size_t len;
    bool special;
};
/* False: out of memory, and the parser is of no use any more. */
bool output_parser_push(struct output_parser *p, struct output_piece piece);
/* The end; `cut`: for want of room, not because the model was done. */
bool output_parser_finish(struct output_parser *p, bool cut);
/* Whether what comes next is reasoning, as far as is known. */
bool output_parser_reasons(const struct output_parser *p);

#endif
