/* The profile of a measurement, as a table and as JSON. Plain functions. Thread: one. */
#ifndef CLI_BENCH_PROFILE_H
#define CLI_BENCH_PROFILE_H

#include "base/json.h"
#include "model/profile.h"

/* `seconds`: of all that was measured, forwards and what is between them. */
void profile_print(const struct model_profile *p, double seconds);
/* Writes {"threads", "forwards", "kinds": [{"kind", "calls", "seconds", "share"}]}: seconds of a
 * thread, on average; the shares add up to 1. */
void profile_put(struct jw *w, const struct model_profile *p, double seconds);

#endif
