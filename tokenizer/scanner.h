/* Hand-written scanners of the split patterns that most models use: several times faster than any
 * regex engine, and linear. Each is exactly its pattern (tests compare them with PCRE2 on random
 * text). A pattern is recognised by its text.
 *
 * Thread: any; pure. Text is valid UTF-8.
 */
#ifndef TOKENIZER_SCANNER_H
#define TOKENIZER_SCANNER_H

#include <stddef.h>

/* End of the match that begins at `from` < len: these patterns match everywhere. */
typedef size_t scanner_fn(const char *s, size_t len, size_t from);

/* NULL: not a known pattern. */
scanner_fn *scanner_find(const char *pattern, size_t len);

#endif
