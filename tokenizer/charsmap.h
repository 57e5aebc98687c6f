/* SentencePiece's precompiled character map: a double-array trie from byte sequences to replacement
 * strings, as found base64 coded in tokenizer.json. Applied as Hugging Face does: to each grapheme
 * of under 6 bytes, else to its characters.
 *
 * Owner: charsmap_parse() gives an immutable object (NULL for an empty map). The bytes are hostile:
 * every trie step is checked against the array's end. Thread: any.
 */
#ifndef TOKENIZER_CHARSMAP_H
#define TOKENIZER_CHARSMAP_H

#include <stddef.h>

#include "base/buf.h"
#include "base/status.h"

struct charsmap;

enum status charsmap_parse(const char *base64, size_t len, struct charsmap **out,
                           struct error *err);
void charsmap_free(struct charsmap *m);
void charsmap_apply(const struct charsmap *m, const char *s, size_t len, struct buf *out);

/* Replacement of the longest prefix of s that the map has, and that prefix's length; NULL: none. It
 * is how SentencePiece itself applies the map. */
const char *charsmap_longest(const struct charsmap *m, const char *s, size_t len, size_t *used);

#endif
