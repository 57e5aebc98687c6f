/* A regular file mapped to be read: what the readers of weights have in common. Private to this
 * folder.
 *
 * Owner: the caller unmaps with file_map_close(). Thread: any; opening never waits, for a FIFO of
 * that name must not hang the start. A file that is cut short while it is mapped raises SIGBUS.
 */
#ifndef FORMATS_FILE_MAP_H
#define FORMATS_FILE_MAP_H

#include <stddef.h>

#include "base/status.h"
#include "formats/opened_file.h"

struct file_map {
    void *bytes; /* NULL: nothing is mapped */
    size_t len;
    char *path;
    struct file_state state;
};

/* ST_NOT_FOUND, ST_IO, ST_INVALID (not a regular file, or empty), ST_NO_MEMORY; the text begins
 * with `label`. */
enum status file_map_open(const char *path, const char *label, struct file_map *out,
                          struct error *err);
/* Its pages no longer count as this process' memory, until they are read again; they may stay in
 * the page cache. */
void file_map_let_go(const struct file_map *m);
void file_map_close(struct file_map *m);
struct opened_file file_map_opened(const struct file_map *m);

#endif
