/* link: baton_tokenizer */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The stream says what the whole says, a prefix of it at every step, and only whole characters. */
static void check_stream(const struct tokenizer *t, const struct ids *ids, bool skip)
{
    struct buf whole = {0}, stream = {0};
    tokenizer_decode(t, ids->v, ids->n, skip, &whole);
    if (whole.len && !utf8_valid(whole.data, whole.len))
        abort();
    struct detok *d = detok_create(t, skip);
    for (size_t i = 0; d && i < ids->n; i++) {
        detok_push(d, ids->v[i], &stream);
        if (stream.len > whole.len ||
            (stream.len && memcmp(stream.data, whole.data, stream.len) != 0))
            abort();
    }
    if (d) {
        detok_flush(d, &stream);
        if (stream.len != whole.len ||
            (whole.len && memcmp(stream.data, whole.data, whole.len) != 0))
            abort();
        detok_reset(d, ids->v, ids->n);
    }
    detok_destroy(d);
    buf_fini(&whole);
    buf_fini(&stream);
}

/* Up to the first NUL a tokenizer.json; then a text for it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t json_len = nul ? (size_t)(nul - data) : size;
    const char *text = nul ? (const char *)nul + 1 : "";
    size_t len = nul ? size - json_len - 1 : 0;
    struct tokenizer *t = NULL;
    struct error err = {0};
    if (tokenizer_load_text((const char *)data, json_len, NULL, 0, &t, &err)) {
        if (!err.text[0])
            abort();
        return 0;
    }
    struct ids ids = {0};
    struct text_span spans[] = {{len / 3, true}, {len - len / 3, false}};
    if (tokenizer_encode(t, text, len, TOKENIZE_PARSE_SPECIAL, &ids, &err) == ST_OK)
        for (size_t i = 0; i < ids.n; i++)
            if (ids.v[i] < 0 || (size_t)ids.v[i] >= tokenizer_vocab_size(t))
                abort();
    struct spanned_text spanned = {text, spans, 2};
    tokenizer_encode_spans(t, &spanned, TOKENIZE_ADD_SPECIAL, &ids, &err);
    for (size_t i = 0; i < len && i < 64; i++) /* and some ids that no text gives */
        ids_push(&ids, (int32_t)((uint8_t)text[i] % (tokenizer_vocab_size(t) + 2)));
    check_stream(t, &ids, false);
    check_stream(t, &ids, true);
    ids_fini(&ids);
    tokenizer_free(t);
    return 0;
}
