/* link: baton_tokenizer */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf.h"
#include "tokenizer/load/load.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_BYTES 16 /* of the input's end: the text to encode */

static enum status make(const uint8_t *data, size_t size, struct made *made, struct error *err)
{
    struct gguf *g = NULL;
    if (load_is_tiktoken(data, size))
        return load_tiktoken("qwen.tiktoken", data, size, NULL, made, err);
    if (size < 4 || memcmp(data, "GGUF", 4) != 0)
        return load_sentencepiece(data, size, NULL, made, err);
    enum status st = gguf_open_bytes("fuzz", data, size, &g, err);
    if (!st)
        st = load_gguf(g, made, err);
    gguf_close(g);
    return st;
}

/* What encoding gives must decode, in a stream as at once. */
static void use(const struct tokenizer *t, const char *text, size_t len)
{
    struct ids ids = {0};
    struct buf whole = {0}, stream = {0};
    struct error err = {0};
    if (tokenizer_encode(t, text, len, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &ids, &err) ==
        ST_OK) {
        struct detok *d = detok_create(t, false);
        for (size_t i = 0; i < ids.n; i++) {
            if (ids.v[i] < 0 || (size_t)ids.v[i] >= tokenizer_vocab_size(t))
                abort();
            if (d)
                detok_push(d, ids.v[i], &stream);
        }
        if (d)
            detok_flush(d, &stream);
        tokenizer_decode(t, ids.v, ids.n, false, &whole);
        if (d && (whole.len != stream.len ||
                  (whole.len && memcmp(whole.data, stream.data, whole.len) != 0)))
            abort();
        detok_destroy(d);
    }
    ids_fini(&ids);
    buf_fini(&whole);
    buf_fini(&stream);
}

/* A tokenizer.model, a tiktoken file or a GGUF file, by what it begins with; its last bytes are
 * also the text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct made made = {0};
    struct tokenizer *t = NULL;
    struct error err = {0};
    enum status st = make(data, size, &made, &err);
    if (!st)
        st = tokenizer_load_text(made.tokenizer.data, made.tokenizer.len,
                                 made.config.len ? made.config.data : NULL, made.config.len, &t,
                                 &err);
    if (st && !err.text[0])
        abort();
    if (!st) {
        size_t n = size < TEXT_BYTES ? size : TEXT_BYTES;
        use(t, (const char *)data + size - n, n);
        use(t, "a ab  abc \xe2\x96\x81\xe2\x96\x81<s></s>\n\xc3\xa9", 27);
        tokenizer_free(t);
    }
    made_fini(&made);
    return 0;
}
