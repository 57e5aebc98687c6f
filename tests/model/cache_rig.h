/* A quantized copy of a small model, and where its converted weights are kept for the next start:
 * what tests of that keeping share. Owner: kept_begin() makes both, in folders under /tmp, and
 * kept_end() removes them. Thread: one. Aborts on errors. */
#ifndef TESTS_MODEL_CACHE_RIG_H
#define TESTS_MODEL_CACHE_RIG_H

#include <stdbool.h>
#include <stddef.h>

#include "model/weights_cache.h"
#include "tests/model/folder_writer.h"

struct cache_rig {
    char folder[FOLDER_PATH], cache[64];
    char file[160], part[170]; /* of the cache; what it is written to first */
    char logged[1 << 16];      /* by what was captured last */
};

extern struct cache_rig kept_rig;

void kept_begin(void);
void kept_end(void);

/* What is written to stderr in between goes to kept_rig.logged. */
void kept_log_begin(void);
void kept_log_end(void);
bool kept_says(const char *what);

/* Logits [*n] of a model loaded with a cache (NULL: none), which the caller frees; `mapped`:
 * whether its weights came from there. What it logs is captured. */
float *kept_say(const char *dir, const char *where, bool *mapped, size_t *n);
/* That the model says `want`, with weights that were `mapped` or not. */
void kept_expect(bool mapped, const float *want, const char *what);

/* Flips a bit of the file, from its end where `at` is negative. */
void kept_flip(long at);
/* What the file says it was made of. */
struct weights_origin kept_origin(void);

#endif
