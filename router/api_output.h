/* What one choice of a chat says, taken apart for the answer: its text goes through the output
 * parser (router/output); content, reasoning and calls collect here until they are rendered, which
 * a stream does after every token and a whole answer once.
 *
 * struct api_output_plan is what all choices of a request share: made from the request, it outlives
 * the request's own body. Pure but for the random ids of calls; owner and thread: the answer's.
 */
#ifndef ROUTER_API_OUTPUT_H
#define ROUTER_API_OUTPUT_H

#include "router/api.h"
#include "router/output/output_parser.h"

struct api_call {
    char id[80];
    char name[OUTPUT_NAME_BYTES_MAX + 1];
    struct buf arguments; /* not rendered yet */
    bool said;            /* its beginning is rendered */
};
struct api_calls {
    struct api_call *v;
    size_t n, cap;
    size_t first; /* those before it are rendered and over */
};

struct api_output_plan {
    struct output_args args;
    json *tools; /* the request's own; NULL: none */
    char forced_name[OUTPUT_NAME_BYTES_MAX + 1];
    bool parse; /* false: text is content as it is, and no api_output is needed */
    bool parallel, include_reasoning;
};

/* The formats that the model's template speaks; either may be NULL. */
struct api_output_formats {
    const struct output_format *tools;
    const struct output_reasoning *reasoning;
};
bool api_output_plan_init(struct api_output_plan *p, const struct api_request *r,
                          struct api_output_formats formats, bool inside_reasoning);
void api_output_plan_fini(struct api_output_plan *p);

struct api_output {
    const struct api_output_plan *plan;
    struct output_parser *parser;
    struct buf *content; /* the caller's: text is appended */
    struct buf reasoning;
    struct api_calls calls;
    int32_t reasoning_tokens;
    bool failed;
};
bool api_output_init(struct api_output *o, const struct api_output_plan *plan, struct buf *content);
void api_output_fini(struct api_output *o);
/* A token's text; its last `special` bytes are a special token's. */
void api_output_push(struct api_output *o, struct api_text_ref text, size_t special, bool token);
void api_output_finish(struct api_output *o, bool cut);
/* Whether there is something to render beside content; of calls. */
bool api_output_calls_pending(const struct api_output *o);
bool api_output_pending(const struct api_output *o);
/* It is rendered. */
void api_output_clear(struct api_output *o);

#endif
