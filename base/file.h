/* Small regular files read whole: configuration, keys, certificates; and what tells whether a file
 * is still the same. Thread: any; blocks on the disk, never on a pipe or a terminal. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

struct stat;

/* Appends what is in the file, at most `max` bytes. ST_NOT_FOUND, ST_IO, ST_INVALID (not a regular
 * file, or larger), ST_NO_MEMORY; the text begins with the path. On failure `out` is to be freed,
 * too. */
enum status file_read(const char *path, size_t max, struct buf *out, struct error *err);
/* The same as one text, to be freed; a NUL byte in it is ST_INVALID. */
enum status file_read_text(const char *path, size_t max, char **out, struct error *err);

/* Who may write to a file can put back what it held, its size and mtime, but not ctime. No device:
 * mounts of one file system have numbers of their own, other ones after each start of the host. No
 * padding: it may be compared and hashed as bytes. */
struct file_state {
    uint64_t inode, bytes;
    int64_t modified_ns, changed_ns; /* mtime, ctime */
};
struct file_state file_state_of(const struct stat *s);
bool file_state_read(const char *path, struct file_state *out); /* false: no regular file */

#endif
