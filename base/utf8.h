/* UTF-8 without surprises: overlong forms, surrogates and values over U+10FFFF are invalid (RFC
 * 3629). Thread: any; pure. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool utf8_valid(const char *s, size_t len);
/* Decodes one code point at s[0..len): returns its length 1..4 and sets *cp; 0 when invalid or cut
 * short. */
size_t utf8_decode(const char *s, size_t len, uint32_t *cp);
size_t utf8_encode(uint32_t cp, char out[4]);
/* Length of the longest prefix that does not end inside a character that more bytes could still
 * complete. Bytes that no continuation can make valid count as complete (they will be shown as
 * U+FFFD). */
size_t utf8_complete_prefix(const char *s, size_t len);

#endif
