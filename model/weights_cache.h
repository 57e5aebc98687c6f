/* What was made of a checkpoint's weights when it was loaded, kept in a file for the next start.
 * Private to this folder.
 *
 * The file is mapped: nodes of one host share its pages. It begins with a head that names the
 * checkpoint (a key of 128 bits) and lists its parts, each with a CRC32C: a file of another
 * checkpoint, of another form, cut short or with a bit flipped is not used but written anew. A file
 * that others than its reader's user can write to is not used either. It is written beside its
 * name, by one start at a time, and renamed, so that nobody sees half of one; what a start that was
 * killed has left there the next one takes over. Only its owner can read it: weights may be secret.
 *
 * Owner: weights_cache_close() unmaps; the parts are the map's. Thread: the one that loads, but
 * weights_cache_check(), which is for any number at once.
 */
#ifndef MODEL_WEIGHTS_CACHE_H
#define MODEL_WEIGHTS_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct weights_key {
    uint64_t w[2];
};

struct weights_part {
    const void *data; /* aligned to 64 bytes */
    uint64_t bytes;
    uint32_t form; /* of no meaning here */
    uint32_t crc;
};

struct weights_cache {
    void *map;
    size_t len;
    struct weights_part *parts; /* [n] */
    size_t n;
};

/* `key` becomes that of the checkpoint's files too: their sizes and times. */
void weights_cache_mix(struct weights_key *key, const char *checkpoint);
/* Where the file of a checkpoint is: `where` is a folder, or "model" for beside it; one of `panels`
 * (kernels/panels.h) has a name of its own, so that hosts with tiles and hosts without can share a
 * folder. False: too long. */
bool weights_cache_path(const char *where, const char *checkpoint, bool panels, char *out,
                        size_t cap);
/* ST_NOT_FOUND; ST_INVALID: not of this key, or not of `n` parts; ST_IO. Parts are not checked. */
enum status weights_cache_open(const char *path, const struct weights_key *key, size_t n,
                               struct weights_cache *out, struct error *err);
bool weights_cache_check(const struct weights_cache *c, size_t part); /* reads it all */
void weights_cache_close(struct weights_cache *c);
/* crc of the parts is filled in. ST_IO, ST_NO_MEMORY (of the disk too: a GiB is left free). */
enum status weights_cache_write(const char *path, const struct weights_key *key,
                                struct weights_part *parts, size_t n, struct error *err);

#endif
