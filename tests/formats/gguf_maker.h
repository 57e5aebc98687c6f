/* Writes GGUF bytes for tests: metadata and tensors in any order, with faults where a test wants
 * them. Thread: any; the buffer is the caller's. */
#ifndef TESTS_FORMATS_GGUF_MAKER_H
#define TESTS_FORMATS_GGUF_MAKER_H

#include <stdint.h>
#include <string.h>

#include "base/buf.h"

static inline void put_uint(struct buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        buf_putc(b, i < 8 ? (char)(v >> (8 * i)) : 0);
}

static inline void put_str(struct buf *b, const char *s)
{
    put_uint(b, strlen(s), 8);
    buf_puts(b, s);
}

static inline void put_head(struct buf *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
    buf_append(b, "GGUF", 4);
    put_uint(b, version, 4);
    put_uint(b, tensors, version == 1 ? 4 : 8);
    put_uint(b, keys, version == 1 ? 4 : 8);
}

static inline void put_key(struct buf *b, const char *key, uint32_t type)
{
    put_str(b, key);
    put_uint(b, type, 4);
}

static inline void put_tensor(struct buf *b, const char *name, const uint64_t *dims, uint32_t rank,
                              uint32_t type, uint64_t offset)
{
    put_str(b, name);
    put_uint(b, rank, 4);
    for (uint32_t i = 0; i < rank; i++)
        put_uint(b, dims[i], 8);
    put_uint(b, type, 4);
    put_uint(b, offset, 8);
}

static inline void put_pad(struct buf *b, size_t alignment)
{
    while (b->len % alignment)
        buf_putc(b, 0);
}

#endif
