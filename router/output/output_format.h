/* The ways in which models write tool calls and reasoning: two tables, and how the right row is
 * found from a chat template's text (as no model folder names it). Constant data; any thread.
 */
#ifndef ROUTER_OUTPUT_OUTPUT_FORMAT_H
#define ROUTER_OUTPUT_OUTPUT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

enum output_family {
    OUTPUT_JSON,     /* {"name": ..., "arguments": {...}}, or an array of such */
    OUTPUT_NAMED,    /* a name, something, {...} */
    OUTPUT_XML,      /* tags around the name and each parameter */
    OUTPUT_PYTHONIC, /* [f(a=1), g(b="x")] */
    OUTPUT_HARMONY   /* channels */
};

#define OUTPUT_MARKERS_MAX 4

struct output_format {
    const char *name;
    enum output_family family;
    bool bare;      /* a call may also come without a marker */
    bool short_ids; /* templates want ids of nine letters and digits */
    bool newlines;  /* XML: one newline at either end of a value belongs to the tags */
    bool id_in_name;
    const char *open[OUTPUT_MARKERS_MAX];  /* each begins a section of calls */
    const char *close[OUTPUT_MARKERS_MAX]; /* each ends it */
    const char *call_open;                 /* begins one call; NULL: it begins at once */
    const char *call_close;
    const char *name_after;     /* NAMED: the name follows this, where it is there */
    const char *name_before[3]; /* NAMED: and ends before any of these */
    const char *id_after;       /* NAMED: an id follows this */
    const char *name_end;       /* XML */
    const char *param_open, *key_end, *value_open, *value_close;
    bool attributes; /* XML: further attributes follow a key, string="true" among them */
};

struct output_reasoning {
    const char *name;
    const char *open[OUTPUT_MARKERS_MAX], *close[OUTPUT_MARKERS_MAX]; /* longer ones first */
    const char *dropped[OUTPUT_MARKERS_MAX]; /* around the answer, and none of it */
    bool begins_inside;                      /* unless the prompt has closed it */
    bool harmony;
};

/* Rows by name, aliases included; NULL: there is none of this name. */
const struct output_format *output_format_find(const char *name);
const struct output_reasoning *output_reasoning_find(const char *name);
/* Rows for a template's text; NULL: none fits. */
const struct output_format *output_format_for(const char *chat_template);
const struct output_reasoning *output_reasoning_for(const char *chat_template);
/* Where a rendered prompt ends: right behind a marker that opens reasoning, or that closes it, or
 * where the model may open it. */
enum output_place { OUTPUT_BEHIND_REASONING, OUTPUT_BEFORE_REASONING, OUTPUT_WITHIN_REASONING };
enum output_place output_reasoning_place(const struct output_reasoning *r, const char *prompt,
                                         size_t len);
/* Whether an answer that is to be continued stops within reasoning. */
bool output_reasoning_is_unfinished(const struct output_reasoning *r, const char *text, size_t len);

#endif
