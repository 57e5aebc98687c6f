/* The byte alphabet of byte-level BPE (GPT-2): each byte has a printable character, and each of
 * those 256 characters a byte. Thread: any; pure. */
#ifndef TOKENIZER_BYTELEVEL_H
#define TOKENIZER_BYTELEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* GPT-2's pattern, which ByteLevel splits by when use_regex is set. */
#define BYTELEVEL_PATTERN                                                                          \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

uint32_t bytelevel_char(unsigned char byte);
int bytelevel_byte(uint32_t cp); /* -1: not of the alphabet */
/* Appends the characters of the bytes. */
void bytelevel_map(const char *s, size_t len, struct buf *out);
/* Appends the bytes of the characters; false, and nothing appended, when one is not of the
 * alphabet. */
bool bytelevel_unmap(const char *s, size_t len, struct buf *out);

#endif
