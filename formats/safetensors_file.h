/* One mapped safetensors file: what checkpoint.c builds a checkpoint of. Private to this folder.
 *
 * Owner: the caller of safetensors_file_parse() frees with safetensors_file_fini(), which unmaps
 * only what safetensors_file_open() mapped. Thread: owner only.
 */
#ifndef FORMATS_SAFETENSORS_FILE_H
#define FORMATS_SAFETENSORS_FILE_H

#include "formats/file_map.h"
#include "formats/safetensors.h"

struct safetensors_file {
    const unsigned char *bytes;
    size_t len;
    struct file_map map;    /* nothing when the bytes are the caller's */
    struct tensor *tensors; /* in order of name */
    size_t count;
    uint64_t *shapes;
    char *names;
};

/* Maps a regular file; `label` is what messages call it. */
enum status safetensors_file_open(const char *path, const char *label, struct safetensors_file *f,
                                  struct error *err);
enum status safetensors_file_parse(const char *label, const void *bytes, size_t len,
                                   struct safetensors_file *f, struct error *err);
void safetensors_file_fini(struct safetensors_file *f);
/* Binary search in tensors sorted by name. */
const struct tensor *safetensors_search(const struct tensor *tensors, size_t count,
                                        const char *name);

#endif
