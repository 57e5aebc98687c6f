/* Readers of single fields, for the files that check request bodies. Each does nothing once
 * p->err is set, so a whole body is read straight through and asked once whether it was right.
 * Pure; owner: the caller's stack. */
#ifndef ROUTER_API_FIELDS_H
#define ROUTER_API_FIELDS_H

#include "router/api.h"

struct fields {
    const json *body;
    const struct api_rules *rules;
    struct api_error *err;
};
struct field_range {
    double fallback, min, max;
    bool above_min; /* min itself is out */
};

/* NULL: absent, null, or there was a mistake before. */
const json *field_get(struct fields *p, const char *key);
const json *field_kind(struct fields *p, const char *key, enum json_kind kind, const char *want);
void field_wrong_type(struct fields *p, const char *key, const char *want, const json *got);
bool field_bool(struct fields *p, const char *key, bool fallback);
int64_t field_int(struct fields *p, const char *key, int64_t fallback, int64_t min, int64_t max);
double field_number(struct fields *p, const char *key, struct field_range range);
/* Without NULs, `max` bytes. */
const char *field_str(struct fields *p, const char *key, const char *fallback, size_t max);

/* api_grammar.c: what the text has to be, into r->sampling.grammar; only its shape is looked at */
void api_parse_grammar(struct fields *p, struct api_request *r);
/* api_tools.c: tools, tool_choice, parallel_tool_calls */
void api_parse_tools(struct fields *p, struct api_request *r);

#endif
