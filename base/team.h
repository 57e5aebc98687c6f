/* A team of threads that run one function together (SPMD): the caller is member 0. Between steps of
 * that function the members meet at team_barrier(). Waiting spins briefly when the team was told
 * that it has the cores for it, then sleeps on a futex; an idle team uses no CPU.
 *
 * Owner: the creating thread; only it may call team_run(). Where `pin` is set, members are pinned
 * each to a core (base/topology.h), the caller while team_run() lasts.
 *
 *     static void body(void *arg, int part, int parts) { ...; team_barrier(team); ... }
 *     team_run(team, body, &args);
 */
#ifndef BASE_TEAM_H
#define BASE_TEAM_H

#include <stdbool.h>
#include <stddef.h>

#define TEAM_MAX 1024 /* more threads are not made */

struct team;
typedef void team_fn(void *arg, int part, int parts);

struct team *team_create(int threads, bool spin, bool pin);
void team_destroy(struct team *t);
int team_size(const struct team *t);
void team_run(struct team *t, team_fn *fn, void *arg);
void team_barrier(struct team *t);

/* Share of `n` items for `part` of `parts`, in multiples of `grain`: [*begin, *end). */
void team_split(size_t n, size_t grain, int part, int parts, size_t *begin, size_t *end);

#endif
