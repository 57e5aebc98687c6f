/* Sets of characters as sorted ranges of code points. Only this folder's files include it.
 * Zero-initialise, free with chars_fini(); a failed malloc sets `failed` and further adds do
 * nothing. */
#ifndef TOKENIZER_GRAMMAR_CHARS_H
#define TOKENIZER_GRAMMAR_CHARS_H

#include "tokenizer/grammar/build.h"

#define CHAR_MAX_CP 0x10ffffu

struct char_set {
    struct char_range *v;
    size_t n, cap;
    bool failed;
};
void chars_fini(struct char_set *s);
void chars_add(struct char_set *s, uint32_t lo, uint32_t hi);
void chars_normalize(struct char_set *s); /* sorted, apart from each other */
void chars_negate(struct char_set *s);    /* needs it normalized */
void chars_intersect(const struct char_set *a, const struct char_set *b, struct char_set *out);
/* The classes of ECMA-262: d w s, and D W S. False: another letter. */
bool chars_add_class(struct char_set *s, char letter);
/* \p{Name}: the general categories L Lu Ll N P M and a few by name. False: not known. */
bool chars_add_property(struct char_set *s, const char *name, size_t len, bool negated);

#endif
