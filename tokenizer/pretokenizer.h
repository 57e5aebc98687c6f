/* Pre-tokenizers: a flat list of steps that cut a text into words. Text is pushed through the steps
 * piece by piece; no list of pieces is ever built, so memory does not grow with their number.
 * Known: ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation,
 * BertPreTokenizer, CharDelimiterSplit, FixedLength.
 *
 * A last ByteLevel is special: when `bytes_out` is set the words come out as raw bytes, and the
 * model works on bytes; the byte alphabet's characters are then never spelled out.
 *
 * Owner: the tokenizer; immutable after pretokenizer_parse(). struct pretokenizer_run is one
 * thread's state.
 */
#ifndef TOKENIZER_PRETOKENIZER_H
#define TOKENIZER_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "tokenizer/parse.h"
#include "tokenizer/regex.h"
#include "tokenizer/scanner.h"

#define PRE_STEPS_MAX (2 * COMPONENTS_MAX)

enum pre_kind {
    PRE_BYTE_LEVEL,
    PRE_SPLIT,
    PRE_CHARS, /* split at characters of a class */
    PRE_METASPACE,
    PRE_FIXED_LENGTH,
};
enum pre_class { CLASS_DIGIT, CLASS_SPACE, CLASS_PUNCT, CLASS_ONE };
enum pre_behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_CONTIGUOUS,
    SPLIT_MERGED_PREVIOUS,
    SPLIT_MERGED_NEXT,
};
enum pre_scheme { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct pre_step {
    enum pre_kind kind;
    enum pre_behavior behavior;
    struct regex *regex;  /* SPLIT; BYTE_LEVEL with use_regex */
    scanner_fn *scan;     /* the same as regex, by hand; NULL: not a known pattern */
    bool invert;          /* SPLIT */
    bool prefix_space;    /* BYTE_LEVEL */
    bool split;           /* METASPACE */
    enum pre_class class; /* CHARS */
    enum pre_scheme scheme;
    uint32_t one;        /* the character of CLASS_ONE */
    char replacement[8]; /* METASPACE */
    size_t length;       /* FIXED_LENGTH, characters */
};

struct pretokenizer {
    struct pre_step steps[PRE_STEPS_MAX];
    size_t n;
    bool bytes_out;
};

struct text_view {
    const char *s;
    size_t len;
    bool first; /* stands at the very beginning of the text (Metaspace's scheme "first") */
};

typedef enum status pre_sink(void *arg, const char *s, size_t len);

struct pretokenizer_run {
    const struct pretokenizer *p;
    pre_sink *sink; /* gets each word; never empty */
    void *arg;
    struct error *err;
    struct {
        struct regex_run regex;
        struct buf text, word;
    } step[PRE_STEPS_MAX];
};

/* ST_UNSUPPORTED names the component. */
enum status pretokenizer_parse(const json *v, struct pretokenizer *out, struct error *err);
void pretokenizer_fini(struct pretokenizer *p);

enum status pretokenizer_push(struct pretokenizer_run *run, struct text_view text);
void pretokenizer_run_fini(struct pretokenizer_run *run);

#endif
