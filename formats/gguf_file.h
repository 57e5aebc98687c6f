/* One GGUF file: what gguf.c builds the view of. Private to this folder.
 *
 * Owner: the caller frees with gguf_file_fini(), which unmaps only what gguf_file_open() mapped.
 * Thread: owner only.
 */
#ifndef FORMATS_GGUF_FILE_H
#define FORMATS_GGUF_FILE_H

#include "formats/file_map.h"
#include "formats/gguf.h"

struct gguf_file {
    const uint8_t *bytes;
    size_t len;
    struct file_map map; /* nothing when the bytes are the caller's */
    unsigned version;
    uint64_t alignment;
    struct gguf_value *values; /* in order of key */
    size_t n_values;
    struct gguf_tensor *tensors; /* in order of name */
    size_t n_tensors;
    char **chunks; /* blocks of names and of string offsets */
    size_t n_chunks, cap_chunks;
};

/* A little-endian number of up to 8 bytes. */
static inline uint64_t gguf_load(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

enum status gguf_file_open(const char *path, struct gguf_file *f, struct error *err);
enum status gguf_file_parse(const char *label, const void *bytes, size_t len, struct gguf_file *f,
                            struct error *err);
void gguf_file_fini(struct gguf_file *f);

const struct gguf_value *gguf_file_find(const struct gguf_file *f, const char *key);
const struct gguf_tensor *gguf_search_tensor(const struct gguf_tensor *tensors, size_t n,
                                             const char *name);

#endif
