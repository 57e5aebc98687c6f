/* Giving up something long: whoever does it asks now and then whether it is still wanted.
 *
 *     struct stop stop = {.asked = is_signal_there, .ctx = node};
 *     ... one thread, between two pieces:  if (stop_asked(&stop)) return ST_CANCELLED;
 *     ... its helpers, meanwhile:          if (stop_is_set(&stop)) break;
 *
 * Once yes it stays so. Owner: the caller's. Thread: stop_asked() of one at a time, which is what
 * `asked` may count on; stop_is_set() of any. NULL is never asked. */
#ifndef BASE_STOP_H
#define BASE_STOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct stop {
    bool (*asked)(void *ctx);
    void *ctx;
    atomic_bool is_set;
};

static inline bool stop_is_set(const struct stop *s)
{
    return s && atomic_load_explicit(&s->is_set, memory_order_relaxed);
}

static inline bool stop_asked(struct stop *s)
{
    if (s && !stop_is_set(s) && s->asked(s->ctx))
        atomic_store_explicit(&s->is_set, true, memory_order_relaxed);
    return stop_is_set(s);
}

/* In a team's body: its first member asks, the others look. */
static inline bool stop_here(struct stop *s, int part)
{
    return part == 0 ? stop_asked(s) : stop_is_set(s);
}

#endif
