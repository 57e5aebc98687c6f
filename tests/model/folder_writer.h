/* What the makers of quantized models share: a folder under /tmp with a golden's config.json and
 * with safetensors that are put into it one by one.
 *
 * Without Criterion, so that a program can make them too: errors end the process, with a line that
 * says why. Owner: folder_create() gives a folder that folder_remove() removes; folder_finish()
 * frees the writer. Thread: any.
 *
 *     struct folder_writer w = {0};
 *     folder_create(golden, "{\"quant_method\":\"awq\",...}", path);
 *     folder_put(&w, &(struct folder_tensor){"x.scales", "F16", "[2,3]", scales, bytes});
 *     folder_finish(&w, path);
 */
#ifndef TESTS_MODEL_FOLDER_WRITER_H
#define TESTS_MODEL_FOLDER_WRITER_H

#include "base/buf.h"
#include "formats/safetensors.h"

#define FOLDER_PATH 40

struct folder_writer {
    struct buf header, data;
};

struct folder_tensor {
    const char *name, *type, *shape;
    const void *data;
    size_t bytes;
};

/* Ends the process where a thing is not so. */
void folder_must(bool is_so, const char *what);
void *folder_alloc(size_t bytes); /* zeros */

void folder_put(struct folder_writer *w, const struct folder_tensor *t);
void folder_put_as_it_is(struct folder_writer *w, const struct tensor *t);
float *folder_floats(const struct tensor *t); /* the caller frees */
/* `quantization` becomes config.json's quantization_config. */
void folder_create(const char *golden, const char *quantization, char path[FOLDER_PATH]);
void folder_finish(struct folder_writer *w, const char *path);
/* Of a file: that file. */
void folder_remove(const char *path);

#endif
