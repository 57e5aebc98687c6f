/* A team of threads that run one function together (SPMD): the caller is member 0. Between steps of
 * that function the members meet at team_barrier(). Waiting spins briefly when the team was told
 * that it has the cores for it, then sleeps on a futex; an idle team uses no CPU.
 *
 * Owner: the creating thread; only it may call team_run(). Where `pin` is set, members are pinned
 * each to a core (base/topology.h), the caller while team_run() lasts; and on a machine with
 * several memory nodes memory goes to those of the members (base/numa.h): what team_place() is
 * given, and what the creating thread and threads that it starts write first while the team lives.
 *
 *     static void body(void *arg, int part, int parts) { ...; team_barrier(team); ... }
 *     team_run(team, body, &args);
 */
#ifndef BASE_TEAM_H
#define BASE_TEAM_H

#include <stdbool.h>
#include <stddef.h>

#define TEAM_MAX 1024 /* more threads are not made */
/* Bytes of stack of members but the first, who is the caller; what they call may use half of it.
 * The caller has to have that half: of a process's first thread team_create() raises the limit
 * (RLIMIT_STACK, which programs that it starts inherit). */
#define TEAM_STACK ((size_t)8 << 20)

struct team;
typedef void team_fn(void *arg, int part, int parts);

/* NULL: no memory, no threads, or too small a stack of the caller's, which is logged. */
struct team *team_create(int threads, bool spin, bool pin);
void team_destroy(struct team *t);
int team_size(const struct team *t);
void team_run(struct team *t, team_fn *fn, void *arg);
void team_barrier(struct team *t);
/* For memory that members work on, before it is written to; `memory` begins a page. Where nothing
 * is to be placed, or the kernel refuses, it lies where it is first written to. */
void team_place(struct team *t, void *memory, size_t bytes);
/* On how many memory nodes it is placed; 0: not at all, and *refused is why not: an errno, or 0
 * where nothing was to be placed. */
int team_memory_nodes(const struct team *t, int *refused);

/* Share of `n` items for `part` of `parts`, in multiples of `grain`: [*begin, *end). */
void team_split(size_t n, size_t grain, int part, int parts, size_t *begin, size_t *end);

#endif
