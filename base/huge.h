/* Memory in pages of 2 MiB where the system gives them: what is read from end to end, as weights
 * are, is read up to twice as fast as in small ones, each of which is an entry of the TLB.
 *
 * Owner: the caller, until huge_free() with the same size. Thread: any.
 */
#ifndef BASE_HUGE_H
#define BASE_HUGE_H

#include <stddef.h>

/* Zeroed, aligned to 2 MiB; costs nothing before it is written to. NULL: no memory. */
void *huge_alloc(size_t bytes);
void huge_free(void *memory, size_t bytes); /* NULL: nothing */
/* Asks for large pages where a mapping of the caller's has room for them. */
void huge_ask(void *memory, size_t bytes);
/* A file of so many bytes, mapped to be read and shared: what of it the system holds in large pages
 * is mapped in such, and what it reads it is asked to read so. munmap() with the same size. NULL:
 * it cannot be mapped, or is empty. */
void *huge_map_file(int fd, size_t bytes);
/* How many bytes of the mapping that this lies in are in large pages now. Goes through the page
 * tables of the process. */
size_t huge_mapped(const void *memory);

#endif
