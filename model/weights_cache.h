/* What was made of a checkpoint's weights when it was loaded, kept in a file for the next start.
 * Private to this folder.
 *
 * The file is mapped: nodes of one host share its pages, large ones where the system keeps files in
 * such. It begins with a head that names the checkpoint (a key of 128 bits, and the hash and the
 * stamp of its files: weights_files.h) and lists its parts, each with a CRC32C: a file of another
 * checkpoint, of another form, cut short or with a bit flipped is not used but written anew. The
 * stamp alone is written in place, where other files turned out to hold the same. A file that
 * others than its reader's user can write to is not used either. It is written beside its name, by
 * one start at a time, and renamed, so that nobody sees half of one; what a start that was killed
 * has left there the next one takes over. Only its owner can read it: weights may be secret.
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
#include "model/weights_files.h"

struct weights_part {
    const void *data; /* aligned to 64 bytes */
    uint64_t bytes;
    uint32_t form; /* of no meaning here */
    uint32_t crc;
};

/* What it was made of. */
struct weights_origin {
    struct weights_key key;
    uint64_t content; /* weights_files_hash() */
    struct weights_key stamp;
};

struct weights_cache {
    void *map;
    size_t len;
    struct weights_part *parts; /* [n] */
    size_t n;
    struct weights_origin origin;
};

/* Where the file of a checkpoint is: `where` is a folder, or "model" for beside it; each `kind`
 * ("", ".panels") has a name of its own. False: too long. */
bool weights_cache_path(const char *where, const char *checkpoint, const char *kind, char *out,
                        size_t cap);
/* ST_NOT_FOUND; ST_INVALID: not of this key, or not of `n` parts; ST_IO. Neither are parts checked,
 * nor whether out->origin is of the checkpoint's files as they are now. */
enum status weights_cache_open(const char *path, const struct weights_key *key, size_t n,
                               struct weights_cache *out, struct error *err);
bool weights_cache_check(const struct weights_cache *c, size_t part); /* reads it all */
void weights_cache_close(struct weights_cache *c);
/* The checkpoint's files hold what they did, and this is their stamp now. Where it cannot be
 * written, the next start finds the same out again. */
void weights_cache_restamp(struct weights_cache *c, const char *path,
                           const struct weights_key *stamp);
/* crc of the parts is filled in. ST_IO, ST_NO_MEMORY (of the disk too: a GiB is left free). */
enum status weights_cache_write(const char *path, const struct weights_origin *origin,
                                struct weights_part *parts, size_t n, struct error *err);

#endif
