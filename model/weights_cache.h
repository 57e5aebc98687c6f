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
 * Owner: weights_cache_close() unmaps; the parts are the map's. What weights_cache_begin() opened
 * weights_cache_finish() or weights_cache_abandon() ends. Thread: the one that loads, but
 * weights_cache_check(), which is for any number at once.
 */
#ifndef MODEL_WEIGHTS_CACHE_H
#define MODEL_WEIGHTS_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/stop.h"
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
    uint64_t content;         /* weights_files_hash() */
    struct weights_key stamp; /* zeros: of files that had not settled, and so of none */
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
/* The checkpoint's files hold what they did, and this is their stamp now. ST_IO: it cannot be
 * written, and the next start has to find the same out again. */
enum status weights_cache_restamp(struct weights_cache *c, const char *path,
                                  const struct weights_key *stamp, struct error *err);

/* A file that is being written. */
struct weights_cache_new {
    int fd;
    char path[1024], part[1032];
    struct stop *stop; /* of who began it; NULL */
};
/* Only bytes of the parts counts yet. ST_IO: the folder is none, cannot be written to, or another
 * start writes the same; ST_NO_MEMORY: of the disk, of which a GiB is left free. */
enum status weights_cache_begin(const char *path, const struct weights_part *parts, size_t n,
                                struct weights_cache_new *out, struct error *err);
/* crc of the parts is filled in. ST_IO, ST_NO_MEMORY, ST_CANCELLED. */
enum status weights_cache_finish(struct weights_cache_new *w, const struct weights_origin *origin,
                                 struct weights_part *parts, size_t n, struct error *err);
void weights_cache_abandon(struct weights_cache_new *w);

#endif
