/* Chat templates: a bounded interpreter of the Jinja subset that published chat templates use.
 *
 * A template is parsed once into an immutable tree and rendered from any thread. Values are JSON
 * trees (messages, tools, further variables). Output carries provenance: bytes that stem from the
 * template itself (or from bos/eos strings) are trusted, bytes that stem from messages and other
 * variables are not; tokenizer_encode_spans() uses it. Rendering is bounded in steps, depth and
 * output bytes; a template that raises (raise_exception) gives ST_INVALID with the template's own
 * text; any other mistake names the line and Python's error. A message's "role" is trusted when it
 * is a well-known word: templates build markers of it (<|user|>).
 *
 * Environment as Hugging Face's: trim_blocks, lstrip_blocks, tojson without HTML escaping, loop
 * controls, strftime_now, namespace, generation blocks.
 */
#ifndef TOKENIZER_TEMPLATE_H
#define TOKENIZER_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"

struct chat_template;

/* ST_INVALID with line and reason: syntax, or an unknown construct. */
enum status template_parse(const char *text, size_t len, struct chat_template **out,
                           struct error *err);
void template_free(struct chat_template *t);

struct template_args {
    const json
        *variables; /* an object: messages, tools, add_generation_prompt ... become globals */
    const char *bos_token, *eos_token; /* win over variables of these names; NULL: those, else "" */
    bool has_now;
    int64_t now_unix_s;  /* for strftime_now, shown in local time; the wall clock when !has_now */
    bool allow_mutation; /* list.append() and the like, which Hugging Face's sandbox refuses */
    /* 0: defaults */
    int64_t max_steps, max_output_bytes;
};

struct template_result {
    struct buf text;
    struct text_span *spans; /* cover text */
    size_t n_spans;
};
void template_result_fini(struct template_result *r);

enum status template_render(const struct chat_template *t, const struct template_args *args,
                            struct template_result *out, struct error *err);

#endif
