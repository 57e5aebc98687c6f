/* The files of a checkpoint: whether what was once made of them would be made of them now.
 * Private to this folder.
 *
 * Their sizes are part of a key. That no byte of them is another one tells the stamp, for nothing:
 * inode, size and times of each, for nobody but the system sets an inode's ctime. A stamp that
 * differs says little, for copying a file or a touch changes it: then what the files hold decides,
 * hashed from end to end. Files are those that the source of the weights has opened, as they were
 * when it did; others in the same folder, and what they are called, are of no matter.
 *
 * Not seen is what changes a file and not its times: a disk that decays, who writes to the disk
 * itself or sets the host's clock, writes through a mapping whose time the system has yet to note.
 *
 *     size_t n;
 *     const struct opened_file *v = weight_source_files(source, &n);
 *     const struct weights_files files = {v, n};
 *
 * Owner: plain data; the files are the source's. Thread: any.
 */
#ifndef MODEL_WEIGHTS_FILES_H
#define MODEL_WEIGHTS_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/stop.h"
#include "base/team.h"
#include "formats/opened_file.h"

struct weights_key {
    uint64_t w[2];
};

struct weights_files {
    const struct opened_file *v; /* [n] */
    size_t n;
};

/* Adds sizes. */
void weights_files_mix(struct weights_key *key, struct weights_files files);
struct weights_key weights_files_stamp(struct weights_files files);
/* Whether these files still have their names, and are as they were. */
bool weights_files_same(struct weights_files files);
/* Whether none was changed in the last two seconds: one that was may be changed again, and have the
 * same time then. */
bool weights_files_settled(struct weights_files files);
/* Reads all, by the whole team, with a line when it begins, now and then, and when it ends. What of
 * them was not in the system's cache of files before is not left there. ST_IO; ST_INVALID: not what
 * was opened any more; ST_NO_MEMORY; ST_CANCELLED: it was to stop. */
enum status weights_files_hash(struct weights_files files, struct team *team, struct stop *stop,
                               uint64_t *out, struct error *err);

#endif
