/* Text to token ids and back, for Hugging Face `tokenizer.json`.
 *
 * A tokenizer is an immutable object: load it once, use it from any thread. Encoding runs: added tokens are cut
 * out of the text (special ones only when asked), then normalizer, pre-tokenizer, model (BPE ...), and at last the post
 * processor's template (BOS, EOS) when `add_special`. Encoding is linear in practice; no input makes it quadratic.
 *
 * Text is bytes that should be UTF-8; an invalid sequence is encoded as U+FFFD. Decoding gives bytes: a byte-level
 * token may hold half a character, so streams go through struct detok, which emits whole characters only.
 *
 * Owner: tokenizer_load() gives an object freed by tokenizer_free(). It never reads files after load.
 *
 *     struct tokenizer *t;
 *     st = tokenizer_load("models/tiny", &t, &err);
 *     st = tokenizer_encode(t, text, len, TOKENIZE_SPECIAL, &ids, &err);
 */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

struct tokenizer;

/* A growable array of ids; zero-initialise, free with ids_fini(). */
struct ids {
    int32_t *v;
    size_t n, cap;
};
void ids_fini(struct ids *a);
bool ids_reserve(struct ids *a, size_t more); /* room for `more` beyond n */
bool ids_push(struct ids *a, int32_t id); /* false when memory is out */
bool ids_append(struct ids *a, const int32_t *v, size_t n);

enum tokenize_flags {
    TOKENIZE_PLAIN = 0,
    TOKENIZE_ADD_SPECIAL = 1,   /* run the post processor: BOS and the like */
    TOKENIZE_PARSE_SPECIAL = 2, /* the text of a special token becomes that token */
};

/* Reads tokenizer.json, tokenizer_config.json, special_tokens_map.json (the latter two may be missing) of `dir`. */
enum status tokenizer_load(const char *dir, struct tokenizer **out, struct error *err);
/* The same from memory, for tests and fuzzing; config_text may be NULL. */
enum status tokenizer_load_text(const char *json_text, size_t len, const char *config_text,
                                size_t config_len, struct tokenizer **out, struct error *err);
void tokenizer_free(struct tokenizer *t);

/* Appends to *out. Errors: ST_NO_MEMORY, ST_INVALID (more than 2^31 bytes). */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                             unsigned flags, struct ids *out, struct error *err);
/* Encodes text made of trusted and untrusted spans (a rendered chat): special tokens are parsed only in the trusted
 * ones, so that nothing a user typed becomes a control token. Spans are contiguous and cover the text. */
struct text_span {
    size_t len;
    bool trusted;
};
enum status tokenizer_encode_spans(const struct tokenizer *t, const char *text,
                                   const struct text_span *spans, size_t n_spans, unsigned flags,
                                   struct ids *out, struct error *err);

/* Appends the bytes of the ids, as the tokenizer's decoder gives them; unknown ids give nothing. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                      struct buf *out);

size_t tokenizer_vocab_size(const struct tokenizer *t); /* highest id + 1, added tokens included */
/* Raw vocabulary entry ("Ġthe"), NULL for a hole. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id);
/* Bytes that this id stands for by itself (">the" with its space), for logprobs; false for a hole. */
bool tokenizer_token_bytes(const struct tokenizer *t, int32_t id, struct buf *out);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
int32_t tokenizer_find(const struct tokenizer *t, const char *token); /* -1: none */
int32_t tokenizer_bos(const struct tokenizer *t);                     /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* Template text of tokenizer_config.json / chat_template.jinja ("default" of a named list), NULL: none. */
const char *tokenizer_chat_template(const struct tokenizer *t);

/* Streaming detokenization: ids in, whole characters out, each byte once, constant work per token. The text that has
 * been emitted in total is always a prefix of what tokenizer_decode() gives for all ids. */
struct detok;
struct detok *detok_create(const struct tokenizer *t, bool skip_special);
void detok_destroy(struct detok *d);
void detok_push(struct detok *d, int32_t id, struct buf *out);
void detok_flush(struct detok *d, struct buf *out); /* the end: an unfinished character as U+FFFD */
/* Starts a fresh stream whose left context is `ids` (prompt): decides leading-space handling. */
void detok_reset(struct detok *d, const int32_t *ids, size_t n);

#endif
