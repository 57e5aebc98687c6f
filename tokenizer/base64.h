/* Base64 (RFC 4648, the plain alphabet), as tokenizer files use it. Thread: any; pure. */
#ifndef TOKENIZER_BASE64_H
#define TOKENIZER_BASE64_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* Appends the bytes; padding may be missing. false: another character, or out has failed. */
bool base64_decode(const char *s, size_t len, struct buf *out);
void base64_encode(const void *bytes, size_t len, struct buf *out);

#endif
