/* A growable byte buffer with a hard cap. Zero-initialised is empty and valid; it frees with
 * buf_fini(). A growth over the cap or a failed malloc sets `failed` and drops further appends, so
 * a writer checks once at the end. data is NUL-terminated after any append (the NUL is not
 * counted). Thread: owner only. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data;
    size_t len, cap;
    size_t max; /* 0: 1 GiB */
    bool failed;
};

void buf_fini(struct buf *b);
void buf_clear(struct buf *b); /* keeps the memory */
bool buf_reserve(struct buf *b, size_t more);
void buf_append(struct buf *b, const void *data, size_t len);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first `n` bytes. */
void buf_consume(struct buf *b, size_t n);
/* Gives the memory away (free() it) and leaves the buffer empty; NULL when it had failed. */
char *buf_take(struct buf *b, size_t *len);

#endif
