/* Models: one word (or, without a pre-tokenizer, one text) to ids. A table of three functions per
 * model type; the tokenizer knows no more about them.
 *
 * Owner: the tokenizer; immutable after its parse function, any thread may encode. struct model_run
 * is one thread's scratch memory. No input makes an encoder quadratic.
 */
#ifndef TOKENIZER_MODEL_H
#define TOKENIZER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"

struct model_run {
    void *scratch;
    size_t scratch_bytes;
    struct ids ids;
};
void model_run_fini(struct model_run *run);
/* At least `bytes`, contents lost; NULL: no memory. */
void *model_run_scratch(struct model_run *run, size_t bytes);

struct model;
struct model_ops {
    const char *type;
    /* ST_NO_MEMORY or ST_OK; appends to *out. s is not empty. */
    enum status (*encode)(const struct model *m, struct model_run *run, const char *s, size_t len,
                          struct ids *out);
    void (*destroy)(struct model *m);
};
struct model {
    const struct model_ops *ops;
    const struct vocab *vocab;
};

/* Encoding with the user-defined pieces of `frozen` taken out of the text first, leftmost and
 * longest at each place; `encode` gets what is between. */
struct model_parts {
    const struct model *model;
    struct model_run *run;
    const struct trie *frozen; /* to ids */
    enum status (*encode)(const struct model *m, struct model_run *run, const char *s, size_t len,
                          struct ids *out);
};
enum status model_encode_parts(const struct model_parts *parts, const char *s, size_t len,
                               struct ids *out);

/* `v` is the "model" object; the vocabulary is filled from it. `bytes`: words come as raw bytes of
 * the byte alphabet. */
struct model_source {
    const json *v;
    bool bytes;
    struct vocab *vocab;
};
/* Chooses by "type", or, where there is none, by what is there. ST_UNSUPPORTED names the type. */
enum status model_parse(const struct model_source *source, struct model **out, struct error *err);

enum status model_bpe_parse(const struct model_source *source, struct model **out,
                            struct error *err);
enum status model_unigram_parse(const struct model_source *source, struct model **out,
                                struct error *err);
enum status model_wordpiece_parse(const struct model_source *source, struct model **out,
                                  struct error *err);
enum status model_wordlevel_parse(const struct model_source *source, struct model **out,
                                  struct error *err);

/* The "vocab" object of BPE, WordPiece and WordLevel; or, in tokenizers made of other files than a
 * tokenizer.json, an array by id of strings, of pieces, or of null for holes. */
enum status model_parse_vocab(const struct model_source *source, struct error *err);

/* A piece of a SentencePiece model: [TEXT, SCORE, TYPE], types by their number there. */
enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
};
#define PIECE_MAX 1024 /* bytes */
struct piece {
    const char *s;
    size_t len;
    double score;
    enum piece_type type;
};
/* [TEXT, SCORE] is of type NORMAL. */
enum status model_parse_piece(const json *v, size_t i, struct piece *out, struct error *err);
/* Id of the token named by `key`, which may be absent (-1) but must be known. */
enum status model_parse_unk(const struct model_source *source, const char *fallback, int32_t *out,
                            struct error *err);

#endif
