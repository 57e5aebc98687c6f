/* The split patterns that published tokenizers use, and what the names in `tokenizer.ggml.pre` of
 * GGUF files stand for. A pre-tokenizer is a list of patterns, applied one after the other, each to
 * the pieces that the one before it left.
 *
 * Thread: any; constants.
 */
#ifndef TOKENIZER_LOAD_PATTERNS_H
#define TOKENIZER_LOAD_PATTERNS_H

#include <stdbool.h>

#define PATTERNS_MAX 8 /* NULL-ended, so at most 7 */

extern const char *const pattern_gpt2[PATTERNS_MAX];
extern const char *const pattern_cl100k[PATTERNS_MAX];
extern const char *const pattern_o200k[PATTERNS_MAX];
extern const char *const pattern_llama3[PATTERNS_MAX];
extern const char *const pattern_qwen2[PATTERNS_MAX];
extern const char *const pattern_kimi[PATTERNS_MAX];

struct pre_type {
    const char *names; /* between commas: ",llama3,llama-bpe," */
    const char *const *patterns;
    bool ignore_merges, add_bos; /* add_bos: where the file does not say */
    bool nfc;                    /* as the model's own tokenizer has it */
    bool spaces_escaped;         /* U+2581 for spaces and plain text, no byte alphabet */
};
/* NULL: unknown. An empty name is "default". */
const struct pre_type *pre_type_find(const char *name);

#endif
