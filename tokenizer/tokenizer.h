/* Text to token ids and back, for Hugging Face `tokenizer.json` and what stands in for it.
 *
 * A tokenizer is an immutable object: load it once, use it from any thread. Encoding runs: added
 * tokens are cut out of the text (special ones only when asked), then normalizer, pre-tokenizer,
 * model (BPE ...), and at last the post-processor's template (BOS, EOS) with TOKENIZE_ADD_SPECIAL.
 * No text makes encoding quadratic.
 *
 * Text is bytes that should be UTF-8; an invalid sequence is encoded as U+FFFD. Decoded text is
 * always UTF-8; a token may hold half a character, so streams go through struct detok, which emits
 * whole characters only.
 *
 * Owner: tokenizer_load() gives an object freed by tokenizer_free(). It never reads files after
 * load.
 *
 *     struct tokenizer *t;
 *     st = tokenizer_load("models/tiny", &t, &err);
 *     st = tokenizer_encode(t, text, len, TOKENIZE_ADD_SPECIAL, &ids, &err);
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
bool ids_push(struct ids *a, int32_t id);     /* false when memory is out */
bool ids_append(struct ids *a, const int32_t *v, size_t n);

enum tokenize_flags {
    TOKENIZE_PLAIN = 0,
    TOKENIZE_ADD_SPECIAL = 1,   /* run the post processor: BOS and the like */
    TOKENIZE_PARSE_SPECIAL = 2, /* the text of a special token becomes that token */
};

/* `path` is a folder: its tokenizer.json (or, in its place, tokenizer.model, a tiktoken file,
 * vocab.json with merges.txt, or the metadata of its GGUF file), tokenizer_config.json,
 * special_tokens_map.json and chat_template.jinja, of which the latter three may be missing. Or it
 * is a GGUF file. ST_NOT_FOUND, ST_INVALID, ST_UNSUPPORTED (the text names the component). */
enum status tokenizer_load(const char *path, struct tokenizer **out, struct error *err);
/* The same from memory, for tests and fuzzing; config_text may be NULL. */
enum status tokenizer_load_text(const char *json_text, size_t len, const char *config_text,
                                size_t config_len, struct tokenizer **out, struct error *err);
void tokenizer_free(struct tokenizer *t);

/* Appends to *out, or leaves it as it was on an error: ST_NO_MEMORY, ST_INVALID (more than 2^31
 * bytes, or a text too hard for the tokenizer's own regular expression). */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                             unsigned flags, struct ids *out, struct error *err);
/* Encodes text made of trusted and untrusted spans (a rendered chat): special tokens are parsed in
 * the trusted ones only, so that nothing a user typed becomes a control token; one that begins on
 * one side and ends on the other is text too. Otherwise spans change nothing: words go across
 * them. Spans are contiguous and cover the text. Of the flags only TOKENIZE_ADD_SPECIAL counts. */
struct text_span {
    size_t len;
    bool trusted;
};
struct spanned_text {
    const char *text;
    const struct text_span *spans;
    size_t n_spans;
};
enum status tokenizer_encode_spans(const struct tokenizer *t, const struct spanned_text *in,
                                   unsigned flags, struct ids *out, struct error *err);

/* Appends the text of the ids as the tokenizer's decoder gives it, broken characters as U+FFFD;
 * unknown ids give nothing. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                      struct buf *out);

size_t tokenizer_vocab_size(const struct tokenizer *t); /* highest id + 1, added tokens included */
/* Raw vocabulary entry ("Ġthe"), NULL for a hole. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id);
/* Bytes that this id stands for by itself (" the" with its space), for logprobs; false: a hole. */
bool tokenizer_token_bytes(const struct tokenizer *t, int32_t id, struct buf *out);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
int32_t tokenizer_find(const struct tokenizer *t, const char *token); /* -1: none */
int32_t tokenizer_bos(const struct tokenizer *t);                     /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* Text of chat_template.jinja, else of tokenizer_config.json ("default" of a named list); NULL:
 * none. */
const char *tokenizer_chat_template(const struct tokenizer *t);
/* Text of the template for chats with tools: "tool_use" of a named list, or
 * additional_chat_templates/tool_use.jinja; NULL: the one above serves these too. */
const char *tokenizer_tool_template(const struct tokenizer *t);

/* Streaming detokenization: ids in, whole characters out, each byte once, constant work per token.
 * What has been emitted is always a prefix of what tokenizer_decode() gives for all ids, and after
 * the flush it is all of that. (So a run of byte-fallback tokens is held until it ends: one bad
 * byte in it would turn all of them into U+FFFD.) */
struct detok;
struct detok *detok_create(const struct tokenizer *t, bool skip_special);
void detok_destroy(struct detok *d);
void detok_push(struct detok *d, int32_t id, struct buf *out);
void detok_flush(struct detok *d, struct buf *out); /* the end: an unfinished character as U+FFFD */
/* Starts a fresh stream whose left context is `ids` (prompt): decides leading-space handling. */
void detok_reset(struct detok *d, const int32_t *ids, size_t n);

#endif
