/* link: baton_tokenizer */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/load/load.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever is encoded is made of tokens that there are, and can be decoded. */
static void use(const struct tokenizer *t, const char *text, size_t len)
{
    struct ids ids = {0};
    struct buf back = {0};
    struct error err = {0};
    if (tokenizer_encode(t, text, len, TOKENIZE_PARSE_SPECIAL, &ids, &err) == ST_OK) {
        for (size_t i = 0; i < ids.n; i++)
            if (!tokenizer_token(t, ids.v[i]))
                abort();
        tokenizer_decode(t, ids.v, ids.n, false, &back);
    }
    ids_fini(&ids);
    buf_fini(&back);
}

/* One byte that chooses the encoding, then the file; its last bytes are also the text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"cl100k_base.tiktoken", "o200k_harmony.tiktoken",
                                        "r50k_base.tiktoken",   "qwen.tiktoken",
                                        "tokenizer.model",      "tiktoken.model",
                                        "p50k_edit.tiktoken",   "unheard-of.tiktoken"};
    struct made made = {0};
    struct tokenizer *t = NULL;
    struct error err = {0};
    if (size == 0)
        return 0;
    enum status st = load_tiktoken(names[data[0] % 8], data + 1, size - 1, NULL, &made, &err);
    if (!st)
        st = tokenizer_load_text(made.tokenizer.data, made.tokenizer.len, made.config.data,
                                 made.config.len, &t, &err);
    if (st && !err.text[0])
        abort();
    if (!st) {
        size_t n = size < 24 ? size : 24;
        use(t, (const char *)data + size - n, n);
        use(t, "ab aba <|endoftext|>\n\xc3\xa9 123", 27);
        tokenizer_free(t);
    }
    made_fini(&made);
    return 0;
}
