/* Added tokens: strings that are cut out of the text before anything else sees it, special
 * (control) tokens among them.
 *
 * Those with `normalized` false are looked for in the raw text, the others in the normalized text,
 * in their own normalized form. The leftmost match wins, of several there the longest. Surrounding
 * white space goes with a token that strips.
 *
 * Owner: the tokenizer; immutable after loading, any thread may search.
 */
#ifndef TOKENIZER_ADDED_TOKENS_H
#define TOKENIZER_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"

#define ADDED_TOKENS_MAX (1 << 20)
#define ADDED_CONTENT_MAX 4096 /* bytes */

struct added_token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};

/* Which tokens a search looks for. */
enum added_set {
    ADDED_RAW,        /* not normalized */
    ADDED_NORMALIZED, /* normalized */
    ADDED_RAW_TRUST,  /* not normalized, or special: for text whose parts differ in trust */
    ADDED_SETS,
};

struct added_tokens {
    struct added_token *v;
    size_t n, cap;
    struct vocab vocab;           /* content to id */
    struct vocab decoded;         /* id to the text it decodes to, where that is not the content */
    struct trie sets[ADDED_SETS]; /* to indexes into v */
    uint8_t *special;             /* bit per id */
    size_t special_ids;           /* bits */
};

struct added_source {
    const json *v; /* one token's object */
    int64_t id;
    const struct vocab *model;
};
/* A token that the model's vocabulary has keeps that id, else `id` is taken. A repeated token is
 * ignored. */
enum status added_add(struct added_tokens *a, const struct added_source *source, struct error *err);
/* Builds the search structures: call once, after the last added_add(). */
enum status added_finish(struct added_tokens *a, const struct normalizer *normalizer,
                         struct error *err);
void added_fini(struct added_tokens *a);

/* What the decoder is given for an added token; NULL: not one. */
const char *added_decoded(const struct added_tokens *a, int32_t id, size_t *len);
bool added_is_special(const struct added_tokens *a, int32_t id);

/* The search: fill in the first group, then added_next() until it returns false. Text before a
 * match is [done, begin), where that is not empty (a match may lie in the white space that the one
 * before it has stripped). */
struct added_walk {
    const struct added_tokens *tokens;
    enum added_set set;
    const char *text;
    size_t len;
    bool parse_special;            /* without it special tokens are passed over as text */
    const struct text_span *spans; /* or NULL; trust of each part of `text` */
    size_t n_spans;

    size_t pos;        /* where to look next */
    size_t done;       /* end of what has been given out */
    size_t begin, end; /* the match, with the white space it strips */
    int32_t id;
    size_t span, span_begin; /* the span that pos is in */
};
bool added_next(struct added_walk *w);

#endif
