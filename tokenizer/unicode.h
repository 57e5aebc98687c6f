/* Characters: classes as the Hugging Face pieces define them, lossy UTF-8, and the Unicode normal
 * forms.
 *
 * utf8proc is confined to unicode.c. All input here is valid UTF-8 (text_make_valid() made it so)
 * unless said otherwise. The normal forms are linear: runs of combining marks are sorted stably,
 * never bubbled, so that no text is quadratic. Thread: any; pure.
 */
#ifndef TOKENIZER_UNICODE_H
#define TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* One code point of valid UTF-8: returns its length and sets *cp. */
static inline size_t text_next(const char *s, uint32_t *cp)
{
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    if (p[0] < 0xe0) {
        *cp = (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
        return 2;
    }
    if (p[0] < 0xf0) {
        *cp = (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        return 3;
    }
    *cp = (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 |
          (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    return 4;
}
static inline size_t text_char_len(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}
/* Start of the character that ends at s[end), end > 0. */
static inline size_t text_prev(const char *s, size_t end)
{
    do
        end--;
    while (end > 0 && ((unsigned char)s[end] & 0xc0) == 0x80);
    return end;
}
/* Bytes of the first grapheme cluster of s, len > 0. */
size_t text_grapheme(const char *s, size_t len);
/* First occurrence of the needle (n bytes), NULL: none. memmem() for long needles, and quicker for
 * short ones. */
const char *text_find(const char *s, size_t len, const char *needle, size_t n);
void text_put(struct buf *out, uint32_t cp);

/* Appends s as valid UTF-8: each maximal broken part becomes one U+FFFD (Unicode 3.9, "best
 * practice"). Returns the bytes consumed: all of s, or, when `keep_tail`, all but a last character
 * that more bytes could complete. */
size_t text_make_valid(const char *s, size_t len, bool keep_tail, struct buf *out);

bool uc_is_space(uint32_t cp);   /* White_Space */
bool uc_is_numeric(uint32_t cp); /* Nd, Nl, No */
enum uc_letter { UC_NO_LETTER, UC_UPPER, UC_LOWER, UC_OTHER_LETTER };
enum uc_letter uc_letter(uint32_t cp);   /* Lu and Lt; Ll; Lm and Lo */
bool uc_is_word(uint32_t cp);            /* \w: Alphabetic, M, Nd, Pc, Join_Control */
bool uc_is_punct(uint32_t cp);           /* ASCII punctuation and symbols, or P* */
bool uc_is_mark(uint32_t cp);            /* Mn, Mc, Me */
bool uc_is_mark_nonspacing(uint32_t cp); /* Mn */
bool uc_is_control(uint32_t cp);         /* Cc, Cf, Co; tab and line ends excepted */
bool uc_is_cjk(uint32_t cp);             /* ideographs, as BERT counts them */

enum uc_form { UC_NFC, UC_NFD, UC_NFKC, UC_NFKD };
/* Appends the normal form of s; false when memory is out. */
bool uc_normalize(enum uc_form form, const char *s, size_t len, struct buf *out);
/* True when s is surely in NFC (a quick check: false means "perhaps not"). */
bool uc_is_nfc_quick(const char *s, size_t len);
/* Appends s in lower case, character by character (no final sigma). */
void uc_lowercase(const char *s, size_t len, struct buf *out);

#endif
