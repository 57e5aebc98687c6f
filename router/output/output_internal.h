/* The parser's state, shared by its files. Private to router/output.
 *
 * Text waits in `in` until a state takes it; a state takes what is certain and leaves the rest (at
 * most a marker's beginning). While a call has not begun, what is taken for it is also kept in
 * `raw`, to become content should it turn out to be none.
 *
 * Each family has a step(): it looks at the front of `in`, takes what it can and returns whether
 * anything changed; false: it needs more. With `over` set no more will come, so a marker's
 * beginning is none.
 */
#ifndef ROUTER_OUTPUT_OUTPUT_INTERNAL_H
#define ROUTER_OUTPUT_OUTPUT_INTERNAL_H

#include "base/buf.h"
#include "router/output/json_scan.h"
#include "router/output/output_parser.h"

#define BLANKS_MAX 1024           /* held before a call or at the end of reasoning */
#define HEADER_BYTES_MAX 512      /* of a call, up to its arguments */
#define HELD_BYTES_MAX (64 << 10) /* arguments before their name, a value whose type is open */
#define WHOLE_BYTES_MAX (4 << 20) /* of a call that is said when it is complete */

enum output_state {
    S_START,
    S_REASONING,
    S_CONTENT,
    S_CALLS, /* within a section, between calls */
    S_JSON_OPEN,
    S_JSON_KEY,
    S_JSON_KEY_TEXT,
    S_JSON_COLON,
    S_JSON_VALUE,
    S_JSON_TEXT, /* a string that is needed */
    S_JSON_SKIP,
    S_JSON_ARGUMENTS,
    S_JSON_NEXT,
    S_HEADER,
    S_ARGUMENTS, /* behind a header */
    S_TRAILER,
    S_XML_NAME,
    S_XML_BODY,
    S_XML_KEY,
    S_XML_ATTRIBUTES,
    S_XML_VALUE_OPEN,
    S_XML_VALUE,
    S_PY_NAME,
    S_PY_ARGUMENT,
    S_PY_VALUE,
    S_HARMONY_BETWEEN,
    S_HARMONY_HEAD,
    S_HARMONY_BODY,
    S_HARMONY_ARGUMENTS
};
enum json_use { USE_NAME, USE_ID, USE_ARGUMENTS };

struct flagged { /* text, and a byte for each of its bytes: from a special token */
    struct buf text, special;
};

struct output_parser {
    struct output_args args;
    const struct output_format *f;
    enum output_state state;
    struct flagged in, raw;
    size_t at; /* of `in`: taken */
    bool over, cut, keep_raw, failed;

    /* content and reasoning */
    struct buf out, blanks;
    enum output_event_kind out_kind;
    bool trim;       /* blanks before the next text are dropped */
    bool inside;     /* reasoning began in the prompt */
    bool calls;      /* calls are wanted (harmony is read for its channels in any case) */
    bool first[256]; /* bytes that markers begin with, in content */
    bool strict;     /* the call has no marker: its first key and its name must be right */

    /* the call under way */
    int index;
    bool active, begun, named, opened, in_array, has_arguments, first_key;
    struct buf name, id, call; /* call: arguments not said yet */
    struct buf token, key;
    struct json_scan scan;
    enum json_use use;
    int level; /* JSON: 1 within {"function": {...}} */

    /* XML and Python */
    enum output_type type;
    bool any_parameter, streaming, newline, skip_newline;
    char quote;
    bool escaped;
    int brackets;

    /* harmony */
    enum output_event_kind channel;
};

enum match { MATCH_NO, MATCH_PART, MATCH_YES };

/* output_parser.c */
size_t output_left(const struct output_parser *p);
unsigned char output_peek(const struct output_parser *p);
void output_take(struct output_parser *p, size_t n);
enum match output_match(const struct output_parser *p, const char *marker);
/* Any of a list; *n: the bytes of the one that matched. */
enum match output_match_any(const struct output_parser *p, const char *const markers[], size_t max,
                            size_t *n);
void output_text(struct output_parser *p, enum output_event_kind kind, size_t n); /* takes n */
void output_force(struct output_parser *p); /* from here on all is calls */
void output_go(struct output_parser *p, enum output_state state);
bool output_is_blank(unsigned char c);
/* False: nothing else is there yet, or there were so many that what they are in is no call. */
bool output_skip_blanks(struct output_parser *p);

/* one call, said when it may be */
void output_keep(struct output_parser *p);       /* what is taken from now on, with what is kept */
void output_call_start(struct output_parser *p); /* and that */
void output_call_begin(struct output_parser *p);
void output_call_arguments(struct output_parser *p, const char *s, size_t n);
void output_call_flush(struct output_parser *p);
/* Of a call that has begun: what is taken from here to the other is given back should it fail. */
void output_call_mark(struct output_parser *p);
void output_call_unmark(struct output_parser *p);
void output_call_end(struct output_parser *p);
void output_call_fail(struct output_parser *p);
bool output_call_name(struct output_parser *p, const char *s, size_t n);
/* An object that begins here, passed on as it is written; at its end the call is over. */
bool output_call_object(struct output_parser *p, enum output_state next);

bool output_calls_step(struct output_parser *p); /* S_CALLS */
bool output_json_step(struct output_parser *p);
bool output_named_step(struct output_parser *p);
bool output_xml_step(struct output_parser *p);
bool output_pythonic_step(struct output_parser *p);
bool output_harmony_step(struct output_parser *p);
/* Appends the JSON of a Python literal; false: it is none. */
bool output_python_value(const char *s, size_t n, struct buf *out);
/* A code point as it stands in a JSON string. */
void output_put_char(struct buf *out, uint32_t c);

#endif
