/* SentencePiece's own normalizer (Kudo and Richardson, EMNLP 2018), as one step: the character map
 * by longest prefix, user-defined pieces left as they are, white space collapsed, a space put in
 * front, spaces made U+2581. It stands in the tokenizers made of SentencePiece and GGUF files, as
 * component "SentencePiece" with the fields of the model's NormalizerSpec.
 *
 * Owner: the normalizer step; immutable after parsing, any thread may apply.
 */
#ifndef TOKENIZER_SP_NORMALIZER_H
#define TOKENIZER_SP_NORMALIZER_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "tokenizer/parse.h"

struct sp_normalizer;

/* {"precompiled_charsmap": base64, "add_dummy_prefix", "prefix_first_only",
 * "remove_extra_whitespaces", "escape_whitespaces", "treat_whitespace_as_suffix": bools,
 * "user_defined": [strings]} */
enum status sp_normalizer_parse(const json *v, struct sp_normalizer **out, struct error *err);
void sp_normalizer_free(struct sp_normalizer *n);
/* `first`: the text is the first part of what is being encoded. out->failed: no memory. */
void sp_normalizer_apply(const struct sp_normalizer *n, struct text_ref in, bool first,
                         struct buf *out);

#endif
