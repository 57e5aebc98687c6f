/* Decoders: token strings to text, as a flat list of stages through which a stream of tokens is
 * pushed. Known: ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, WordPiece, BPEDecoder.
 *
 * A stage sees tokens one by one until some stage before it fuses them; from there on the stream is
 * one long token, which comes in chunks of whole characters. A stage holds back what a later token
 * may still change: the bytes of an unfinished character, a run of byte-fallback tokens (of which
 * one bad byte spoils all), trailing characters that Strip may yet take. So what comes out is
 * always a prefix of the whole decoding, and decoding a whole is pushing it all and flushing.
 *
 * Owner: struct decoder belongs to the tokenizer and is immutable; struct decoder_run is one
 * stream's state.
 */
#ifndef TOKENIZER_DECODER_H
#define TOKENIZER_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "tokenizer/parse.h"
#include "tokenizer/regex.h"

enum dec_kind {
    DEC_BYTE_LEVEL,
    DEC_BYTE_FALLBACK,
    DEC_FUSE,
    DEC_STRIP,
    DEC_REPLACE,
    DEC_METASPACE,
    DEC_WORDPIECE,
    DEC_BPE,
    DEC_JOIN, /* no decoder: tokens with a space between */
};

struct dec_stage {
    enum dec_kind kind;
    bool fused;    /* its input is one token in chunks */
    char text[68]; /* STRIP's character, REPLACE's pattern, METASPACE's replacement, WORDPIECE's
                      prefix, BPE's suffix */
    size_t text_len;
    char *content; /* REPLACE */
    size_t content_len;
    struct regex *pattern; /* REPLACE by a regular expression, or a pattern too long for text[] */
    size_t start, stop;    /* STRIP */
    bool keep_first;       /* METASPACE: the first token keeps its space */
    bool cleanup;          /* WORDPIECE */
};

struct decoder {
    struct dec_stage stages[COMPONENTS_MAX];
    size_t n;
};

/* ST_UNSUPPORTED names the component. */
enum status decoder_parse(const json *v, struct decoder *out, struct error *err);
void decoder_fini(struct decoder *d);

struct decoder_run {
    const struct decoder *d;
    struct buf *out;
    struct {
        struct buf held;
        struct buf work;
        struct regex_run regex;
        bool any;     /* a token, or a chunk, has come */
        bool settled; /* STRIP, fused: past the leading characters */
        size_t stripped;
    } stage[COMPONENTS_MAX];
};

void decoder_run_fini(struct decoder_run *run);
/* Ready for another stream; memory is kept. */
void decoder_run_reset(struct decoder_run *run);
/* What has become certain is appended to run->out; a flush ends the text but not the memory of
 * having begun. */
void decoder_push(struct decoder_run *run, const char *token, size_t len);
void decoder_flush(struct decoder_run *run);

/* The bytes that one token stands for in the middle of a text, broken characters included. */
void decoder_token_bytes(const struct decoder *d, const char *token, size_t len, struct buf *out);

#endif
