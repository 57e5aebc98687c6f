/* Loaders of tokenizers that are no tokenizer.json: each makes the text of one that does the same,
 * so that one loader, one set of checks and one engine serve all. Some of what they write is ours
 * alone: the normalizer "SentencePiece", and vocabularies that are arrays of pieces.
 *
 * Owner: struct made belongs to the caller, made_fini(). Thread: any; no state. Files are hostile:
 * sizes, counts and lengths are bounded before anything is done with them.
 */
#ifndef TOKENIZER_LOAD_LOAD_H
#define TOKENIZER_LOAD_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"

#define MADE_FILE_BYTES_MAX ((size_t)64 << 20) /* of a file that is read whole */

struct made {
    struct buf tokenizer; /* tokenizer.json */
    struct buf config;    /* what tokenizer_config.json would say; empty: nothing */
};
void made_fini(struct made *m);

/* tokenizer.model. `config`: tokenizer_config.json, or NULL. */
enum status load_sentencepiece(const void *bytes, size_t len, const json *config, struct made *out,
                               struct error *err);
/* "BASE64 RANK" lines. `name` is the file's, which says what encoding it is where the config does
 * not. */
enum status load_tiktoken(const char *name, const void *bytes, size_t len, const json *config,
                          struct made *out, struct error *err);
bool load_is_tiktoken(const void *bytes, size_t len);
/* The metadata of a GGUF file. */
struct gguf;
enum status load_gguf(const struct gguf *g, struct made *out, struct error *err);

/* For the above: pieces of a tokenizer.json. */
void made_key_str(struct jw *w, const char *key, const char *s);
void made_key_bool(struct jw *w, const char *key, bool v);
/* A "Split" by this pattern. */
void made_split(struct jw *w, const char *pattern);
/* "decoder": U+2581 is a space, bytes are bytes; so many spaces go at the start and the end. */
void made_space_decoder(struct jw *w, int64_t start, int64_t stop);
/* "pre_tokenizer": the patterns as Splits, then ByteLevel; "decoder": ByteLevel. */
void made_byte_level(struct jw *w, const char *const *patterns, size_t n);
/* One element of "added_tokens". */
void made_added(struct jw *w, int64_t id, const char *s, size_t len, bool special);
/* "post_processor": the ids (-1: none) before and after a text. */
void made_template(struct jw *w, int64_t before, int64_t after);

/* A SentencePiece model, from a tokenizer.model or from GGUF metadata. */
struct sp_piece {
    const char *s;
    size_t len;
    float score;
    int type; /* enum piece_type */
};
struct sp_model {
    struct sp_piece *pieces;
    size_t n, cap;
    bool unigram, byte_fallback;
    int64_t unk, bos, eos; /* -1: none */
    const void *charsmap;
    size_t charsmap_len;
    bool prefix, first_only, collapse, escape, suffix;
    bool user_first;          /* user-defined pieces are cut out of the raw text */
    int64_t add_bos, add_eos; /* ids around a text; -1: none */
};
enum status sp_model_add(struct sp_model *m, const struct sp_piece *p, struct error *err);
enum status sp_model_write(const struct sp_model *m, struct made *out, struct error *err);

#endif
