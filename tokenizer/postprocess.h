/* Post-processors: which special tokens stand before and after an encoded text. Known:
 * TemplateProcessing (its "single" form), BertProcessing, RobertaProcessing, ByteLevel (which
 * touches offsets only, so nothing here).
 *
 * Owner: the tokenizer; immutable after postprocess_parse().
 */
#ifndef TOKENIZER_POSTPROCESS_H
#define TOKENIZER_POSTPROCESS_H

#include <stdbool.h>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"

struct postprocess {
    struct ids before, after;
    bool drops_text; /* a template without the text itself */
};

/* ST_UNSUPPORTED names the component. */
enum status postprocess_parse(const json *v, struct postprocess *out, struct error *err);
void postprocess_fini(struct postprocess *p);

#endif
