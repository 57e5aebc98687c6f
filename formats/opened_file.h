/* A file that was opened, as it was then.
 *
 * Owner: what opened it owns path and map. Thread: any number read it.
 */
#ifndef FORMATS_OPENED_FILE_H
#define FORMATS_OPENED_FILE_H

#include "base/file.h"

struct opened_file {
    const char *path; /* NULL: it was bytes in memory */
    const void *map;  /* of all of it; NULL: it was read and closed */
    struct file_state state;
};

#endif
