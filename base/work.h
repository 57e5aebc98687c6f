/* Work that the members of a team (base/team.h) cut while they do it. Each has a share of the
 * items, the same one that team_split() gives, and takes it from its beginning, half of what is
 * left at a time; who has nothing left takes half of what is left of another's, of one of the next
 * eight. So a member whose core is slowed, by a neighbour or by its clock, holds up the others for
 * what it is at, at first half a share, and no more; and as long as all are equally fast each works
 * on its own memory. Guided self-scheduling (Polychronopoulos and Kuck 1987) with a queue for each
 * member.
 *
 *     work_begin(w, part, n, grain);            every member, in the same order, with the same n
 *     while (work_take(w, part, &begin, &end))
 *         ...items [begin, end), multiples of grain or the last ones
 *
 * Every item is taken once. Nothing says that it is done: meet (team_barrier()) for that, and
 * begin at most WORK_SLOTS works between two meetings, for members to be no further apart.
 *
 * Owner: who creates it. Thread: member `part`, each for itself.
 */
#ifndef BASE_WORK_H
#define BASE_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORK_SLOTS 16
#define WORK_ITEMS_MAX ((size_t)UINT32_MAX)

struct work;

struct work *work_create(int parts); /* NULL: no memory */
void work_destroy(struct work *w);   /* NULL: nothing */
void work_begin(struct work *w, int part, size_t n, size_t grain);
bool work_take(struct work *w, int part, size_t *begin, size_t *end);

#endif
