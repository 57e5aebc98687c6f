/* The files of a checkpoint: whether what was once made of them would be made of them now.
 * Private to this folder.
 *
 * Their names and sizes are part of a key. That no byte of them is another one tells the stamp, for
 * nothing: device, inode, size and times of each; nobody can put back the time of an inode's last
 * change (ctime). A stamp that differs says little, for copying a file, another mount or a touch
 * changes it: then what the files hold decides, hashed from end to end.
 *
 * A checkpoint is a folder (its .safetensors and .gguf files), or one file, of a split GGUF the
 * first of several. Owner: plain data. Thread: any.
 */
#ifndef MODEL_WEIGHTS_FILES_H
#define MODEL_WEIGHTS_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/team.h"

struct weights_key {
    uint64_t w[2];
};

/* Adds names and sizes. */
void weights_files_mix(struct weights_key *key, const char *checkpoint);
struct weights_key weights_files_stamp(const char *checkpoint);
/* Reads all, by the whole team. False: a file could not be read, or there is no memory. */
bool weights_files_hash(const char *checkpoint, struct team *team, uint64_t *out);

#endif
