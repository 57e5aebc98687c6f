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

#endif
