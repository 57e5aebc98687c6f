/* link: baton_tokenizer */
#include "grammar_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_grammar(GRAMMAR_REGEX, data, size);
    return 0;
}
