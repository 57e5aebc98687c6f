/* The tokenizer object's inside: what the loader fills in and what encoding and decoding read. Only
 * this folder's files include it. Everything here is immutable after loading (the model's word
 * cache guards itself).
 */
#ifndef TOKENIZER_INTERNAL_H
#define TOKENIZER_INTERNAL_H

#include "base/json.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/decoder.h"
#include "tokenizer/model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/postprocess.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

struct tokenizer {
    struct vocab vocab; /* the model's */
    struct added_tokens added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct model *model;
    struct postprocess post;
    struct decoder decoder;
    int32_t bos, eos; /* -1: none */
    char *chat_template, *tool_template;
};

#define TOKENIZER_BYTES_MAX ((size_t)512 << 20) /* of a tokenizer.json */

struct loader_input {
    const json *tokenizer, *config, *specials; /* the latter two may be NULL */
    bool made;                                 /* `tokenizer` by legacy_make_json() */
};
enum status loader_build(const struct loader_input *in, struct tokenizer **out, struct error *err);

/* Text of a tokenizer.json made from vocab.json and merges.txt, for folders that have no
 * tokenizer.json. */
enum status legacy_make_json(const char *dir, const json *config, struct buf *out,
                             struct error *err);

#endif
