/* What a conversion makes, kept for the next start in a file (weights_cache.h), and taken from it.
 * Private to this folder.
 *
 * A cache is taken where its stamp is that of the checkpoint's files, or else where hashing these
 * says so; one is written where it can be, which is found out before anything is hashed for it.
 * Files that change meanwhile are noticed: what is made of them then is neither taken nor kept.
 *
 * Owner: what is mapped is the weights', of which the cache is a part. Thread: the one that loads.
 */
#ifndef MODEL_WEIGHTS_KEEP_H
#define MODEL_WEIGHTS_KEEP_H

#include <stdbool.h>

#include "base/team.h"
#include "model/weights_convert.h"

/* What the jobs are is a part of what is kept: adds them to the origin's key. */
void weights_keep_mix(struct conversion *c);
/* Maps what was kept and makes it the jobs' results. False: there is none, or none of this
 * checkpoint that is whole. */
bool weights_keep_use(struct conversion *c, const char *path, struct team *team,
                      struct model_weights *out);
/* Of jobs that are done. Where it cannot be, a line says why. */
void weights_keep_write(struct conversion *c, const char *path, struct team *team);

#endif
