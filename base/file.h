/* Small regular files read whole: configuration, keys, certificates. Thread: any; blocks on the
 * disk, never on a pipe or a terminal. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buf.h"
#include "base/status.h"

/* Appends what is in the file, at most `max` bytes. ST_NOT_FOUND, ST_IO, ST_INVALID (not a regular
 * file, or larger), ST_NO_MEMORY; the text begins with the path. On failure `out` is to be freed,
 * too. */
enum status file_read(const char *path, size_t max, struct buf *out, struct error *err);
/* The same as one text, to be freed; a NUL byte in it is ST_INVALID. */
enum status file_read_text(const char *path, size_t max, char **out, struct error *err);

#endif
