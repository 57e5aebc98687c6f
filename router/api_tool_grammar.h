/* The structure that constrains an answer which must call tools (tokenizer/grammar: a JSON tree of
 * literals and schemas): the arguments alone where one function is named, else an array of
 * {"name", "parameters"}. It is plain JSON, whatever format the model itself writes calls in, and
 * read back as such (struct output_args: forced, forced_name). Pure. */
#ifndef ROUTER_API_TOOL_GRAMMAR_H
#define ROUTER_API_TOOL_GRAMMAR_H

#include "router/api.h"

static inline bool api_tool_must(const struct api_request *r)
{
    return r->tools && (r->tool_choice == API_TOOLS_REQUIRED || r->tool_choice == API_TOOLS_NAMED);
}
/* Sets r->sampling.grammar, in the place of any that the client asked for: a call it must be. */
bool api_force_tool(struct api_request *r, struct api_error *err);
/* Appends the structure's text; out->failed tells of lacking memory. Only for requests whose tools
 * and choice were checked, with API_TOOLS_REQUIRED or API_TOOLS_NAMED. */
void api_tool_grammar(const struct api_request *r, struct buf *out);

#endif
