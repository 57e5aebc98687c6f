/* A fixed pool of objects addressed by {slot, generation}: a handle to an object that has been
 * freed since is recognised as stale, so an event that arrives late harms nobody. Sized once; never
 * grows. Thread: owner only (handles may be passed through other threads freely).
 */
#ifndef BASE_SLOTS_H
#define BASE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t slot_id; /* generation in the high 32 bits, slot in the low; 0 is never valid */

struct slots;

struct slots *slots_create(size_t capacity, size_t object_bytes);
void slots_destroy(struct slots *s);
/* Zeroed object, or NULL when full. */
void *slots_alloc(struct slots *s, slot_id *id);
void *slots_get(struct slots *s, slot_id id); /* NULL when stale */
void slots_free(struct slots *s, slot_id id); /* asserts that id is live */
size_t slots_count(const struct slots *s);
size_t slots_capacity(const struct slots *s);
/* Visits live objects: start with 0, returns the next live id or 0. */
slot_id slots_next(struct slots *s, slot_id after);

#endif
