/* A bounded multi-producer single-consumer ring of fixed-size records, with an eventfd that becomes
 * readable when the ring turns non-empty (Vyukov's bounded queue). This is the only way threads of
 * a process talk. A full ring refuses (false): the bound is part of the design, the producer
 * decides what that means.
 *
 * Owner: the consumer creates and destroys. Thread: ring_push from any; ring_pop, ring_fd handling
 * by one.
 */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <stdbool.h>
#include <stddef.h>

struct ring;

/* `capacity` is rounded up to a power of two. NULL when memory or descriptors are out. */
struct ring *ring_create(size_t capacity, size_t record_bytes);
void ring_destroy(struct ring *r);
bool ring_push(struct ring *r, const void *record);
bool ring_pop(struct ring *r, void *record);
/* Readable when records may be there; ring_clear() before draining makes it quiet again. Then drain
 * until ring_pop() says false: what is left behind is not announced again. */
int ring_fd(const struct ring *r);
void ring_clear(struct ring *r);

#endif
