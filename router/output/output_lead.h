/* What may come before a constrained answer of a model that reasons: the reasoning, in the form of
 * the model's family, as a structure of tokenizer/grammar (a JSON tree, "lead" of struct
 * msg_grammar). The parser (output_parser.h) takes the same form apart again. Pure; any thread.
 */
#ifndef ROUTER_OUTPUT_OUTPUT_LEAD_H
#define ROUTER_OUTPUT_OUTPUT_LEAD_H

#include "base/buf.h"
#include "router/output/output_format.h"

struct output_lead {
    const struct output_reasoning *reasoning;
    bool within; /* the prompt ends within reasoning; else the model opens it, or answers at once */
    bool gap;    /* a space or line ends may stand before it and before the answer */
};
/* Appends the structure's text; out->failed tells of lacking memory. */
void output_lead_put(const struct output_lead *l, struct buf *out);

#endif
