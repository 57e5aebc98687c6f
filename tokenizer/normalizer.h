/* Normalizers: a flat list of steps, each text to text, run before anything is split (added tokens
 * that are matched raw excepted). Known: NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents,
 * Replace, Prepend, ByteLevel, BertNormalizer, Precompiled, Nmt, SentencePiece.
 *
 * Owner: the tokenizer; immutable after normalizer_parse(). struct normalizer_run is one thread's
 * scratch memory.
 */
#ifndef TOKENIZER_NORMALIZER_H
#define TOKENIZER_NORMALIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "tokenizer/parse.h"
#include "tokenizer/regex.h"

enum norm_kind {
    NORM_FORM,
    NORM_LOWERCASE,
    NORM_STRIP,
    NORM_STRIP_ACCENTS,
    NORM_REPLACE,
    NORM_PREPEND,
    NORM_BYTE_LEVEL,
    NORM_BERT,
    NORM_PRECOMPILED,
    NORM_NMT,
    NORM_SENTENCEPIECE,
};

struct charsmap;
struct sp_normalizer;

struct norm_step {
    enum norm_kind kind;
    int form;              /* enum uc_form */
    bool left, right;      /* STRIP */
    struct regex *pattern; /* REPLACE */
    char *text;            /* REPLACE, PREPEND */
    size_t text_len;
    bool clean, chinese, accents, lower; /* BERT */
    struct charsmap *map;                /* PRECOMPILED */
    struct sp_normalizer *sp;            /* SENTENCEPIECE */
};

struct normalizer {
    struct norm_step steps[COMPONENTS_MAX];
    size_t n;
};

struct normalizer_run {
    struct buf a, b;
    bool later; /* the text is not the first part of what is encoded */
    struct regex_run regex[COMPONENTS_MAX];
};

/* ST_UNSUPPORTED names the component. */
enum status normalizer_parse(const json *v, struct normalizer *out, struct error *err);
void normalizer_fini(struct normalizer *n);

/* *text becomes the normalized text: it lives in `run` (or is the input) until the next call. */
enum status normalizer_apply(const struct normalizer *n, struct normalizer_run *run,
                             struct text_ref *text, struct error *err);
void normalizer_run_fini(struct normalizer_run *run);

#endif
